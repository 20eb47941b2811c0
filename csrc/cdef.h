/*
 * cdef.h: what Python may see of the engine. build_ext.py only reads it; the compiler checks it against the
 * real headers.
 */
#define ZX_OK 0
#define ZX_ERROR_MEMORY ...
#define ZX_ERROR_CONFIG ...
#define ZX_ERROR_MALFORMED_FRAME ...
#define ZX_ERROR_SNAPSHOT ...
#define ZX_ERROR_NOT_TRACKED ...
#define ZX_ERROR_TIME ...
#define ZX_ERROR_NOT_NEXT ...
#define ZX_ERROR_DIVERGED ...
#define ZX_ACCOUNT_NONE ...

/* How the extension was built. */
const char *zx_build_version(void);
const char *zx_build_source_hash(void);
const char *zx_build_mode(void);

/* Functions of libsodium, whose addresses come from PyNaCl. */
typedef int (*zx_sha256)(unsigned char *, const unsigned char *, unsigned long long);
typedef int (*zx_sign_open)(
    unsigned char *, unsigned long long *, const unsigned char *, unsigned long long, const unsigned char *);

/* frames.h */
int frames_check(const uint8_t *frame, size_t length, bool from_log);
size_t frames_verify(
    zx_sign_open sign_open, const uint8_t *deployment_id, const uint8_t *frames, const uint32_t *lengths, size_t count,
    uint8_t *verdicts);

/* verifiers.h */
#define VERIFIERS_FRAMES_MAX ...
#define VERIFIERS_HELPERS_MAX ...
typedef struct verifiers verifiers;
int verifiers_create(uint32_t helpers, verifiers **out);
void verifiers_destroy(verifiers *self);
size_t verifiers_run(
    verifiers *self, zx_sign_open sign_open, const uint8_t *deployment_id, const uint8_t *frames,
    const uint32_t *lengths, size_t count, uint8_t *verdicts);

/* sha256.h */
zx_sha256 sha256_of_processor(void);

/* intake.h */
typedef struct {
    uint64_t nonce;
    uint32_t offset;
    uint32_t length;
    uint32_t shard;
    uint32_t reserved;
} intake_batch;
typedef struct {
    uint32_t found;
    uint32_t consumed;
} intake_scanned;
intake_scanned intake_scan(
    const uint8_t *data, size_t length, const uint8_t *public_key, uint32_t shards, intake_batch *found,
    uint32_t found_max);

/* inbox.h */
#define INBOX_BODY_BYTES_MAX ...
#define INBOX_FRAMES ...
#define INBOX_REFUSED ...
typedef struct {
    uint64_t session_id;
    uint32_t kind;
    uint32_t offset;
    uint32_t length;
    uint32_t count;
} inbox_item;
typedef struct {
    uint64_t session_id;
    uint64_t verified_ns;
    uint32_t link;
    uint32_t length;
} inbox_origin;
typedef struct {
    uint8_t *body;
    inbox_item *items;
    inbox_origin *origins;
    uint32_t body_bytes;
    uint32_t taken;
    uint32_t frames;
    ...;
} inbox;
int inbox_create(inbox **out);
void inbox_destroy(inbox *self);
bool inbox_has_room(const inbox *self);
int inbox_receive(inbox *self, uint32_t link, const uint8_t *message, size_t length);
uint32_t inbox_take(
    inbox *self, uint32_t frames_max, uint32_t body_max, uint32_t link, const uint64_t *asked, uint32_t asked_count);
void inbox_commit(inbox *self, uint32_t applied);

/* express.h */
typedef struct {
    uint8_t *frames;
    uint32_t lengths[144];
    uint64_t sessions[144];
    uint8_t verdicts[144];
    uint32_t pending;
    uint32_t bytes;
    ...;
} express;
int express_create(express **out);
void express_destroy(express *self);
uint32_t express_receive(
    express *self, uint64_t session_id, const uint8_t *public_key, uint32_t shard, const uint8_t *data, size_t length);
uint32_t express_verify(express *self, verifiers *with, zx_sign_open sign_open, const uint8_t *deployment_id);
void express_pass_on(express *self, inbox *to, uint32_t link, uint64_t verified_ns);
void express_clear(express *self);

/* routes.h */
#define ROUTES_ENTRY_KIND_REPORTS ...
#define ROUTES_REPORT_FRAME_BYTES ...
#define ROUTES_NOBODY ...
#define ROUTES_OUT_BYTES ...
typedef struct {
    uint64_t offset;
    uint32_t length;
    uint32_t link;
} routes_run;
typedef struct {
    uint8_t *out;
    routes_run *runs;
    uint32_t count;
    ...;
} routes;
typedef struct {
    uint64_t events;
    uint64_t runs;
} routes_collected;
int routes_create(uint32_t accounts_max, routes **out);
void routes_destroy(routes *self);
uint32_t routes_add(routes *self, uint32_t link, uint64_t session_id);
void routes_bind(routes *self, uint32_t slot, uint64_t account_id);
void routes_remove(routes *self, uint32_t slot);
routes_collected routes_collect(
    routes *self, const uint8_t *events, uint64_t count, const inbox_origin *origins, uint64_t first_record_no);

/* wire.h */
struct zx_level {
    int64_t price_ticks;
    uint64_t qty_lots;
    uint64_t orders;
};
struct zx_balance {
    uint32_t asset_id;
    uint32_t reserved;
    uint64_t available;
    uint64_t held;
};
struct zx_asset_definition {
    uint8_t symbol[32];
    uint32_t asset_id;
    uint8_t decimals;
    ...;
};
struct zx_market_definition {
    uint8_t symbol[32];
    uint64_t base_units_per_lot;
    uint64_t quote_units_per_tick_lot;
    uint64_t defined_record_no;
    uint32_t market_id;
    uint32_t base_asset_id;
    uint32_t quote_asset_id;
    int32_t maker_fee_ppm;
    uint32_t taker_fee_ppm;
    uint32_t sizes_no;
};
struct zx_open_order {
    uint64_t order_id;
    uint64_t client_order_id;
    int64_t price_ticks;
    uint64_t qty_lots;
    uint64_t leaves_lots;
    uint64_t priority_no;
    uint32_t market_id;
    uint8_t side;
    uint8_t order_type;
    uint8_t time_in_force;
    uint8_t trigger;
    uint64_t display_qty_lots;
    int64_t trigger_ticks;
    uint64_t expire_time_ns;
    uint8_t options;
    ...;
};

/* engine.h */
#define ENGINE_EVENTS_BYTES ...
#define ENGINE_REPORTS_PER_COMMAND_MAX ...
#define ENGINE_REPORTS_OF_TIME_MAX ...
typedef struct {
    uint8_t symbol[32];
    uint32_t asset_id;
    uint32_t decimals;
} engine_asset_config;
typedef struct {
    uint64_t base_units_per_lot;
    uint64_t quote_units_per_tick_lot;
    uint8_t symbol[32];
    uint32_t market_id;
    uint32_t base_asset;
    uint32_t quote_asset;
    int32_t maker_fee_ppm;
    uint32_t taker_fee_ppm;
    uint32_t reserved;
} engine_market_config;
typedef struct {
    const uint8_t *deployment_id;
    const uint8_t *operator_public_key;
    const engine_asset_config *assets;
    const engine_market_config *markets;
    zx_sha256 sha256;
    uint64_t hash_seed;
    uint32_t asset_count;
    uint32_t market_count;
    uint32_t assets_max;
    uint32_t markets_max;
    uint32_t accounts_max;
    uint32_t keys_max;
    uint32_t balances_max;
    uint32_t orders_max;
    uint32_t outcomes_max;
    uint16_t shard;
    uint16_t tracked;
} engine_config;
typedef struct {
    uint64_t next_record_no;
    uint64_t next_seq;
    uint64_t next_trade_id;
    uint64_t log_time_ns;
    uint8_t *events;
    ...;
} engine;
typedef struct {
    uint64_t consumed_bytes;
    uint64_t records;
    uint64_t commands;
    uint64_t events_bytes;
    int32_t reason;
    uint32_t reserved;
} engine_applied;
typedef struct {
    uint64_t open_orders;
    uint64_t accounts;
    uint64_t keys;
    uint64_t balances;
} engine_counts;
int engine_create(const engine_config *config, engine **out);
void engine_destroy(engine *self);
int engine_apply(engine *self, const uint8_t *body, size_t length, uint64_t log_time_ns, engine_applied *applied);
typedef struct {
    int64_t price_ticks;
    uint64_t qty_lots;
} engine_auction;
engine_auction engine_indicated(const engine *self, uint32_t market_id);
typedef struct {
    uint64_t until_ns;
    uint64_t notional_max;
    uint64_t qty_lots_max;
    int64_t last_ticks;
    int64_t reference_ticks;
    uint32_t orders_max;
    uint32_t dynamic_band_ppm;
    uint32_t static_band_ppm;
    uint32_t reserved;
} engine_market_terms;
engine_market_terms engine_terms_of(const engine *self, uint32_t market_id);
uint32_t engine_depth(const engine *self, uint32_t market_id, uint8_t side, uint32_t levels_max, struct zx_level *at);
uint32_t engine_balances(const engine *self, uint64_t account_id, uint32_t balances_max, struct zx_balance *at);
uint32_t engine_open_orders(
    const engine *self, uint64_t account_id, uint32_t market_id, uint64_t after_order_id, uint32_t orders_max,
    struct zx_open_order *at);
typedef struct {
    uint64_t pair_order_id;
    int64_t trail_ticks;
    uint32_t trail_ppm;
    uint32_t self_trade_prevention;
} engine_order_terms;
engine_order_terms engine_terms_of_order(const engine *self, uint64_t order_id);
engine_counts engine_count(const engine *self);
void ready_make(const engine *self, uint32_t orders);
uint64_t engine_account_of_key(const engine *self, const uint8_t *public_key);
uint64_t engine_report_seq(const engine *self, uint64_t account_id);
uint32_t engine_market_state(const engine *self, uint32_t market_id);
uint32_t engine_assets(const engine *self, uint32_t first, uint32_t assets_max, struct zx_asset_definition *at);
uint32_t engine_markets(
    const engine *self, uint64_t since_record_no, uint32_t *first, uint32_t markets_max,
    struct zx_market_definition *at);
uint64_t engine_supply(const engine *self, uint32_t asset_id);
uint64_t engine_next_due_ns(const engine *self);
const char *engine_check(const engine *self);

/* seal.h */
typedef struct {
    uint64_t epoch;
    uint64_t first_record_no;
    uint64_t events_bytes;
    uint32_t records;
    uint32_t batch_bytes;
    uint8_t chain[32];
    uint8_t batch[65536];
} seal;
int seal_replay(
    seal *self, engine *shard, uint64_t id_epoch, uint64_t id_record_no, const uint8_t *batch, size_t length);
int seal_apply_taken(seal *self, engine *shard, inbox *from, uint64_t log_time_ns);
int seal_apply(seal *self, engine *shard, const uint8_t *body, size_t length, uint64_t log_time_ns);

/* frontier.h */
typedef struct {
    uint64_t size;
    uint8_t hashes[64][32];
} frontier;
void frontier_append_frames(frontier *self, const uint8_t *body, size_t length, zx_sha256 sha256);

/* stages.h */
#define STAGE_COUNT ...
#define STAGES_BUCKETS ...
typedef struct {
    uint64_t counts[7][1024];
    uint64_t total_ns[7];
    uint64_t max_ns[7];
} stages;
uint64_t stages_floor_ns(uint32_t bucket);
enum stage { STAGE_VERIFY, ... };
void stages_add(stages *self, enum stage stage, uint64_t duration_ns);
void stages_read(stages *self, const stages *counted);
void stages_gather(stages *self, const stages *now, const stages *before);
uint64_t stages_count(const stages *self, enum stage stage);
uint64_t stages_below(const stages *self, enum stage stage, uint64_t bound_ns);
uint64_t stages_at_rank_ns(const stages *self, enum stage stage, uint64_t rank);
void inbox_count_waits(const inbox *self, uint64_t until_ns, stages *times, enum stage stage);

/* figures.h */
#define FIGURE_COUNT ...
#define FIGURES_FORMAT ...
typedef struct {
    uint64_t format;
    uint64_t values[15];
    stages stages;
} figures;
enum figure { FIGURE_SIGNATURES_GOOD, ... };
void figures_set(figures *self, enum figure figure, uint64_t value);
void figures_add(figures *self, enum figure figure, uint64_t more);
void figures_begin(figures *self);
bool figures_read(figures *self, const figures *counted);

/* pump.h */
#define PUMP_EVENTS ...
#define PUMP_REST ...
#define PUMP_REFUSED ...
#define PUMP_HANDOFF ...
#define PUMP_STORE ...
#define PUMP_TRADES ...
#define PUMP_KEYS ...
typedef struct {
    int32_t fd;
    uint32_t events;
} pump_event;
typedef struct {
    uint64_t session_id;
    uint64_t received_ms;
    uint64_t sent_ms;
    uint64_t sent_bytes;
    uint8_t public_key[32];
    uint8_t active;
    uint8_t input_held;
    uint8_t output_held;
    uint8_t reserved[5];
} pump_peer;
typedef struct {
    engine *shard;
    express *express;
    inbox *inbox;
    routes *routes;
    seal *seal;
    verifiers *verifiers;
    figures *figures;
    stages *stages;
    zx_sign_open sign_open;
    const uint8_t *deployment_id;
    const char *log_key;
    uint64_t timeout_ms;
    uint32_t body_max;
    uint32_t queued_max;
    uint32_t shard_number;
    int32_t epoll_fd;
} pump_parts;
typedef struct {
    uint32_t link;
    int32_t store_fd;
    uint8_t may_queue;
    uint8_t may_seal;
    uint8_t waits;
    uint8_t in_flight;
    uint32_t event_count;
    pump_event events[64];
    int32_t rest_fd;
    uint32_t rest_bytes;
    uint8_t *rest;
    uint8_t *handoff;
    uint64_t handoff_bytes;
    uint8_t *tape;
    uint32_t tape_trades;
    uint32_t reply_bytes;
    uint8_t reply[256];
    uint64_t landed_batches;
    uint64_t landed_first_record_no;
    uint32_t landed_bytes;
    uint32_t added;
    uint8_t *landed;
    pump_peer *peers;
    ...;
} pump;
int pump_create(const pump_parts *parts, pump **out);
void pump_destroy(pump *self);
bool pump_add(pump *self, int32_t fd, uint64_t session_id, const uint8_t *public_key);
void pump_remove(pump *self, int32_t fd);
uint32_t pump_run(pump *self, int wait_ms);

/* state.h */
typedef struct {
    const uint8_t *leaf;
    uint64_t counts[7];
    uint8_t roots[7][32];
    uint8_t path[33][32];
    uint32_t leaf_bytes;
    uint32_t path_count;
} state_account_proof;
int state_root(engine *self, uint8_t *root);
int state_prove_account(engine *self, uint64_t account_id, state_account_proof *proof);
size_t state_snapshot_size(const engine *self);
void state_snapshot(const engine *self, uint8_t *out);
int state_restore(engine *self, const uint8_t *snapshot, size_t length, const char **why);

/* lob.h */
#define LOB_ORDERS_MAX ...
#define LOB_EVENTS_BESIDE_ORDERS ...
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
    uint64_t order_id;
    uint64_t maker_order_id;
    int64_t price_ticks;
    uint64_t qty_lots;
    uint32_t command;
    uint8_t kind;
    uint8_t reason;
    uint8_t side;
    uint8_t reserved;
} lob_event;
typedef struct {
    uint64_t order_id;
    int64_t price_ticks;
    uint64_t qty_lots;
    uint64_t leaves_lots;
    uint32_t account;
    uint32_t reserved;
} lob_order;
typedef struct {
    int64_t price_ticks;
    uint64_t qty_lots;
    uint64_t orders;
} lob_level;
typedef struct {
    lob_event *events;
    uint32_t event_count;
    uint32_t orders_max;
    ...;
} lob;
int lob_create(uint32_t orders_max, lob **out);
void lob_destroy(lob *self);
size_t lob_apply(lob *self, const lob_command *commands, size_t count);
uint32_t lob_do(
    lob *self, uint8_t kind, uint64_t order_id, uint8_t side, int64_t price_ticks, uint64_t qty_lots,
    uint8_t order_type, uint8_t time_in_force, uint8_t post_only, uint32_t account, uint8_t stp);
size_t lob_apply_into(
    lob *self, const lob_command *commands, size_t count, lob_event *events, size_t room, size_t *written);
int64_t lob_best(const lob *self, uint8_t side);
size_t lob_depth(const lob *self, uint8_t side, size_t room, lob_level *found);
size_t lob_orders(const lob *self, uint8_t side, size_t room, lob_order *found);
uint32_t lob_count(const lob *self);
bool lob_rests(const lob *self, uint64_t order_id);
const char *lob_check(const lob *self);
