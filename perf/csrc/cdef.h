/* cdef.h: what Python may see of the load generator. build_ext.py only reads it; the compiler checks it against the
 * real headers. */
#define LOADGEN_OK 0
#define LOADGEN_CLOSED ...
#define LOADGEN_TERMINATED ...
#define LOADGEN_PROTOCOL ...
#define LOADGEN_SYSTEM ...
#define LOADGEN_MEMORY ...
#define HDR_COUNTS ...
#define HDR_VALUE_MAX ...
const char *perf_source_hash(void);
typedef struct {
    uint64_t counts[27648];
    uint64_t total;
    uint64_t max_ns;
} hdr;
void hdr_record(hdr *self, uint64_t value_ns);
uint64_t hdr_value(uint32_t index);
typedef struct {
    const uint8_t *frames;
    const uint64_t *offsets;
    const uint32_t *lengths;
    const uint64_t *due_ns;
    const uint16_t *traders;
    const int32_t *fds;
    const uint8_t *heartbeat;
    uint64_t frame_count;
    uint64_t first_nonce;
    uint64_t duration_ns;
    uint64_t drain_ns;
    uint64_t late_ns;
    uint32_t heartbeat_bytes;
    uint32_t trader_count;
    uint32_t commands;
    uint32_t window;
    uint32_t seconds;
    uint32_t reserved;
} loadgen_plan;
typedef struct {
    hdr *latency;
    hdr *service;
    hdr *lateness;
    hdr *by_second;
    uint64_t sent;
    uint64_t answered;
    uint64_t accepted;
    uint64_t rejected;
    uint64_t not_applied;
    uint64_t doubled;
    uint64_t foreign;
    uint64_t trades;
    uint64_t reports;
    uint64_t late;
    uint64_t elapsed_ns;
    uint64_t start_wall_ns;
    int32_t reason;
    int32_t reserved;
} loadgen_result;
int loadgen_run(const loadgen_plan *plan, loadgen_result *result);
void hiccup_run(hdr *self, uint64_t interval_ns, const volatile int32_t *stop);
typedef struct {
    uint64_t order_id;
    int64_t price_ticks;
    uint64_t qty_lots;
    uint32_t account;
    uint8_t kind;
    uint8_t side;
    uint8_t order_type;
    uint8_t time_in_force;
    uint8_t stp;
    uint8_t post_only;
    uint8_t reserved[6];
} lob_command;
typedef struct {
    void *(*create)(void);
    void (*destroy)(void *);
    int32_t (*set_callback)(void *, void (*)(const void *, void *), void *);
    int32_t (*limit)(void *, int32_t, uint64_t, uint32_t, uint64_t, uint32_t *);
    int32_t (*market)(void *, int32_t, uint64_t, uint32_t, uint32_t *);
    int32_t (*cancel)(void *, uint64_t);
} bookbench_peer;
typedef struct {
    uint64_t elapsed_ns;
    uint64_t events;
    uint64_t trades;
    uint64_t refused;
    uint64_t resting;
} bookbench_result;
int bookbench_lob(
    const lob_command *commands, size_t count, size_t first, uint32_t orders_max, hdr *latency,
    bookbench_result *result);
int bookbench_peer_run(
    const bookbench_peer *peer, const lob_command *commands, size_t count, size_t first, hdr *latency,
    bookbench_result *result);
int shardbench_run(
    const lob_command *commands, const uint32_t *markets, size_t count, size_t first, uint32_t market_count,
    uint32_t orders_max, hdr *latency, bookbench_result *result);
int shardbench_peer_run(
    const bookbench_peer *peer, const lob_command *commands, const uint32_t *markets, size_t count, size_t first,
    uint32_t market_count, hdr *latency, bookbench_result *result);
