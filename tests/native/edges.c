/*
 * edges.c: what happens where something ends: memory, threads, room in a buffer, numbers in a field.
 *
 * Allocations and threads come here (--wrap of the linker) and can be had for a while only. The small answers are
 * compared with what the headers say.
 */

#define _GNU_SOURCE /* barriers */

#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>

#include "commands.h"
#include "definitions.h"
#include "engine.h"
#include "express.h"
#include "frontier.h"
#include "idmap.h"
#include "inbox.h"
#include "kit.h"
#include "lob.h"
#include "pump.h"
#include "routes.h"
#include "seal.h"
#include "sha256.h"
#include "stages.h"
#include "verifiers.h"

#define START_NS UINT64_C(1700000000000000000)
#define TRADER 1u

/* ------------------------------------------------------------ what can be had */

static uint32_t grants_left = UINT32_MAX; /* allocations, mappings and threads before one fails */
static uint32_t granted;                  /* and not given back */
static sem_t *caller_waits;               /* told when somebody is about to wait for a condition */

void *__real_calloc(size_t count, size_t size);
void *__real_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t length);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);

void *__wrap_calloc(size_t count, size_t size);
void *__wrap_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t length);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);

static bool is_granted(void) {
    if (grants_left == 0) return false;
    grants_left--;
    return true;
}

void *__wrap_calloc(size_t count, size_t size) {
    return is_granted() ? __real_calloc(count, size) : NULL;
}

void *__wrap_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    if (!is_granted()) return MAP_FAILED;
    granted++;
    return __real_mmap(at, length, protection, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t length) {
    granted--;
    return __real_munmap(at, length);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    return is_granted() ? __real_pthread_create(thread, attributes, run, argument) : 11;
}

static pthread_t caller;

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
    if (caller_waits != NULL && pthread_equal(pthread_self(), caller)) sem_post(caller_waits);
    return __real_pthread_cond_wait(condition, mutex);
}

/* ------------------------------------------------------------ an engine */

static const uint8_t operator_key[32] = {1};
static const uint8_t trader_key[32] = {2};
static const uint8_t deployment_id[ZX_HASH_BYTES] = {7};
static const engine_asset_config assets[] = {
    {.symbol = "A", .asset_id = 1}, {.symbol = "ABCDEFGHIJKLMNOPQRSTUVWXYZ01-._9", .asset_id = 2}
};
static const engine_market_config markets[] = {
    {.symbol = "B-A", .base_units_per_lot = 1, .quote_units_per_tick_lot = 1, .market_id = 1, .base_asset = 1},
    {.symbol = "B.A", .base_units_per_lot = 1, .quote_units_per_tick_lot = 1, .market_id = 2, .base_asset = 1},
    {.symbol = "B_A", .base_units_per_lot = 1, .quote_units_per_tick_lot = 1, .market_id = 3, .base_asset = 1},
};

static engine_config config_for(uint32_t orders_max) {
    return (engine_config){
        .deployment_id = deployment_id,
        .operator_public_key = operator_key,
        .assets = assets,
        .markets = markets,
        .sha256 = toy_hash,
        .asset_count = 2,
        .market_count = 3,
        .assets_max = 2,
        .markets_max = 3,
        .accounts_max = 4,
        .keys_max = 4,
        .balances_max = 16,
        .orders_max = orders_max,
        .outcomes_max = 1024,
    };
}

static uint64_t nonce;

static int apply(engine *self, uint64_t log_time_ns, uint16_t template_id, const void *commands, uint32_t count) {
    uint8_t frame[FRAMES_LENGTH_MAX];
    const uint8_t *const key = template_id == ZX_OPERATOR_BATCH_TEMPLATE_ID ? operator_key : trader_key;
    const uint32_t length = put_batch(frame, key, ++nonce, template_id, commands, count);
    engine_applied applied;
    return engine_apply(self, frame, length, log_time_ns, &applied);
}

/* A shard in which one trader has plenty of everything. */
static engine *make_shard(uint32_t orders_max) {
    const engine_config config = config_for(orders_max);
    engine *made = NULL;
    CHECK(engine_create(&config, &made) == ZX_OK);
    struct zx_operator_command commands[3] = {
        {.kind = ZX_OPERATOR_COMMAND_KIND_OPEN_ACCOUNT, .account_id = TRADER},
        {.kind = ZX_OPERATOR_COMMAND_KIND_DEPOSIT, .account_id = TRADER, .asset_id = 1, .amount = ZX_AMOUNT_MAX / 2},
        {.kind = ZX_OPERATOR_COMMAND_KIND_DEPOSIT, .account_id = TRADER, .asset_id = 2, .amount = ZX_AMOUNT_MAX / 2},
    };
    memcpy(commands[0].new_public_key, trader_key, sizeof trader_key);
    CHECK(apply(made, START_NS, ZX_OPERATOR_BATCH_TEMPLATE_ID, commands, 3) == ZX_OK);
    return made;
}

/* ------------------------------------------------------------ memory and threads */

typedef int create(void **out);
typedef void destroy(void *self);

static int create_engine(void **out) {
    const engine_config config = config_for(64);
    return engine_create(&config, (engine **)out);
}

static int create_lob(void **out) {
    return lob_create(64, (lob **)out);
}

static int create_inbox(void **out) {
    return inbox_create((inbox **)out);
}

static int create_express(void **out) {
    return express_create((express **)out);
}

static int create_routes(void **out) {
    return routes_create(64, (routes **)out);
}

static int create_pump(void **out) {
    static const pump_parts parts;
    return pump_create(&parts, (pump **)out);
}

static int create_verifiers(void **out) {
    return verifiers_create(3, (verifiers **)out);
}

static void destroy_engine(void *self) {
    engine_destroy(self);
}

static void destroy_lob(void *self) {
    lob_destroy(self);
}

static void destroy_inbox(void *self) {
    inbox_destroy(self);
}

static void destroy_express(void *self) {
    express_destroy(self);
}

static void destroy_routes(void *self) {
    routes_destroy(self);
}

static void destroy_pump(void *self) {
    pump_destroy(self);
}

static void destroy_verifiers(void *self) {
    verifiers_destroy(self);
}

/* Whatever cannot be had: it is said, and all that was had is given back (the rest is the leak sanitizer's to find). */
static void test_too_little(create *make, destroy *unmake, uint32_t needs) {
    for (uint32_t enough_for = 0; enough_for < needs; enough_for++) {
        void *made = NULL;
        grants_left = enough_for;
        CHECK(make(&made) == ZX_ERROR_MEMORY && made == NULL && granted == 0);
    }
    void *made = NULL;
    grants_left = needs;
    CHECK(make(&made) == ZX_OK && made != NULL && grants_left == 0);
    grants_left = UINT32_MAX;
    unmake(made);
    CHECK(granted == 0);
}

/* ------------------------------------------------------------ verifiers */

static pthread_barrier_t all_are_here;
static sem_t caller_is_waiting;
static _Thread_local bool has_begun;

/* Ends when caller and helpers each verify a frame; the helpers' when the caller waits for them too. Frame 5 is bad. */
static int sign_open_together(
    unsigned char *m, unsigned long long *mlen, const unsigned char *sm, unsigned long long smlen, const unsigned char *pk
) {
    (void)m;
    (void)mlen;
    (void)smlen;
    (void)pk;
    if (!has_begun) {
        has_begun = true;
        pthread_barrier_wait(&all_are_here);
        if (!pthread_equal(pthread_self(), caller)) {
            sem_wait(&caller_is_waiting);
            sem_post(&caller_is_waiting);
        }
    }
    return sm[0] == 5 ? -1 : 0;
}

static int sign_open(
    unsigned char *m, unsigned long long *mlen, const unsigned char *sm, unsigned long long smlen, const unsigned char *pk
) {
    (void)m;
    (void)mlen;
    (void)smlen;
    (void)pk;
    return sm[0] == 0 ? 0 : -1;
}

static void test_verifiers_all_at_work(void) {
    enum { HELPERS = 2, FRAMES = 9 };
    verifiers *made;
    CHECK(verifiers_create(VERIFIERS_HELPERS_MAX + 1, &made) == ZX_ERROR_CONFIG);
    caller = pthread_self();
    caller_waits = &caller_is_waiting;
    CHECK(pthread_barrier_init(&all_are_here, NULL, HELPERS + 1) == 0 && sem_init(&caller_is_waiting, 0, 0) == 0);
    CHECK(verifiers_create(HELPERS, &made) == ZX_OK);
    uint8_t frames[FRAMES * 256];
    uint32_t lengths[FRAMES];
    uint8_t verdicts[FRAMES];
    uint32_t bytes = 0;
    const struct zx_command command = limit_order(1, ZX_SIDE_BUY, 1, 50);
    for (uint32_t index = 0; index < FRAMES; index++) {
        lengths[index] =
            put_batch(frames + bytes, trader_key, index, ZX_SIGNED_BATCH_TEMPLATE_ID, &command, 1);
        frames[bytes + ZX_BODY_OFFSET] = (uint8_t)index;
        bytes += lengths[index];
    }
    CHECK(verifiers_run(made, sign_open_together, deployment_id, frames, lengths, FRAMES, verdicts) == FRAMES - 1);
    for (uint32_t index = 0; index < FRAMES; index++) CHECK(verdicts[index] == (index != 5));
    verifiers_destroy(made);
    caller_waits = NULL;
    pthread_barrier_destroy(&all_are_here);
    sem_destroy(&caller_is_waiting);
}

/* Lengths that no well-formed batch has are not valid, whatever stands there. */
static void test_frames_of_impossible_lengths(void) {
    static uint8_t frame[FRAMES_LENGTH_MAX + 1];
    const uint32_t lengths[] = {
        ZX_BODY_OFFSET + ZX_SIGNED_BATCH_BLOCK_LENGTH - 1, ZX_BODY_OFFSET + ZX_SIGNED_BATCH_BLOCK_LENGTH, FRAMES_LENGTH_MAX,
        FRAMES_LENGTH_MAX + 1
    };
    for (uint32_t index = 0; index < 4; index++) {
        uint8_t verdict = 9;
        const bool is_possible = index == 1 || index == 2;
        CHECK(frames_verify(sign_open, deployment_id, frame, &lengths[index], 1, &verdict) == is_possible);
        CHECK(verdict == is_possible);
    }
}

/* ------------------------------------------------------------ queues */

static void test_express_that_is_full(void) {
    express *made;
    CHECK(express_create(&made) == ZX_OK);
    static uint8_t frames[(EXPRESS_PENDING_MAX + 1) * FRAMES_LENGTH_MAX];
    struct zx_operator_command commands[ZX_OPERATOR_BATCH_COMMANDS_MAX];
    memset(commands, 0, sizeof commands);
    for (uint32_t index = 0; index < ZX_OPERATOR_BATCH_COMMANDS_MAX; index++) {
        commands[index].kind = ZX_OPERATOR_COMMAND_KIND_DEPOSIT;
        commands[index].amount = 1;
    }
    size_t bytes = 0;
    uint32_t length = 0;
    for (uint32_t index = 0; index <= EXPRESS_PENDING_MAX; index++) {
        length = put_batch(
            frames + bytes, operator_key, index, ZX_OPERATOR_BATCH_TEMPLATE_ID, commands, ZX_OPERATOR_BATCH_COMMANDS_MAX
        );
        bytes += length;
    }
    CHECK(length == FRAMES_LENGTH_MAX);
    /* Of the longest frames as many as fit; of short ones as many as are counted. */
    CHECK(express_receive(made, 5, operator_key, 0, frames, bytes) == 92 * length);
    CHECK(made->pending == 92 && made->bytes + length > EXPRESS_PENDING_BYTES);
    CHECK(express_receive(made, 5, operator_key, 0, frames, bytes) == 0);
    express_clear(made);
    bytes = 0;
    for (uint32_t index = 0; index <= EXPRESS_PENDING_MAX; index++) {
        length = put_batch(frames + bytes, operator_key, index, ZX_OPERATOR_BATCH_TEMPLATE_ID, commands, 1);
        bytes += length;
    }
    CHECK(express_receive(made, 5, operator_key, 0, frames, bytes) == EXPRESS_PENDING_MAX * length);
    CHECK(made->pending == EXPRESS_PENDING_MAX && made->sessions[EXPRESS_PENDING_MAX - 1] == 5);
    express_destroy(made);
}

static void test_message_that_is_too_long(void) {
    inbox *made;
    CHECK(inbox_create(&made) == ZX_OK);
    uint8_t *const message = calloc(1, INBOX_MESSAGE_BYTES_MAX + 1);
    const uint32_t payload = INBOX_MESSAGE_BYTES_MAX - INBOX_MESSAGE_HEADER_BYTES - INBOX_ENTRY_HEADER_BYTES;
    message[INBOX_MESSAGE_HEADER_BYTES + 4] = INBOX_QUERY;
    zx_store_u32(message + INBOX_MESSAGE_HEADER_BYTES, payload);
    CHECK(inbox_receive(made, 0, message, INBOX_MESSAGE_BYTES_MAX) == 1 && made->items[0].length == payload);
    zx_store_u32(message + INBOX_MESSAGE_HEADER_BYTES, payload + 1);
    CHECK(inbox_receive(made, 0, message, INBOX_MESSAGE_BYTES_MAX + 1) == ZX_ERROR_MALFORMED_FRAME);
    free(message);
    inbox_destroy(made);
}

/* A run for one link is cut where it would no longer fit in a message. */
static void test_runs_that_are_cut(void) {
    enum { SESSIONS = 3, EVENTS = 1000, ENTRY = ROUTES_ENTRY_HEADER_BYTES + EVENTS * ROUTES_REPORT_FRAME_BYTES };
    routes *made;
    CHECK(routes_create(4, &made) == ZX_OK);
    for (uint64_t session_id = 1; session_id <= SESSIONS; session_id++) {
        routes_bind(made, routes_add(made, 6, session_id), TRADER);
    }
    uint8_t *const events = calloc(EVENTS, ZX_EXECUTION_REPORT_BLOCK_LENGTH);
    for (uint64_t at = 0; at < EVENTS; at++) {
        uint8_t *const event = events + at * ZX_EXECUTION_REPORT_BLOCK_LENGTH;
        zx_store_u64(event + ZX_EXECUTION_REPORT_ACCOUNT_ID_OFFSET, TRADER);
    }
    CHECK(2 * ENTRY <= ROUTES_RUN_BYTES_MAX && 3 * ENTRY > ROUTES_RUN_BYTES_MAX);
    const routes_collected found = routes_collect(made, events, EVENTS, NULL, 1);
    CHECK(found.events == EVENTS && found.runs == 2 && made->runs[0].link == 6 && made->runs[1].link == 6);
    CHECK(made->runs[0].length == 2 * ENTRY && made->runs[1].length == ENTRY && made->runs[1].offset == 2 * ENTRY);
    free(events);
    routes_destroy(made);
}

/* The same index may stand under several hashes, and each is removed alone. */
static void test_index_under_two_hashes(void) {
    idmap_entry *const entries = calloc(idmap_entries(8), sizeof *entries);
    idmap map;
    idmap_init(&map, 8, entries);
    idmap_insert(&map, 1, 5);
    idmap_insert(&map, 1 + idmap_entries(8), 5); /* begins at the same entry */
    idmap_remove(&map, 1 + idmap_entries(8), 5);
    idmap_cursor cursor;
    CHECK(map.count == 1 && idmap_first(&map, 1, &cursor) == 5 && idmap_next(&map, &cursor) == ZX_NONE);
    CHECK(idmap_first(&map, 1 + idmap_entries(8), &cursor) == ZX_NONE);
    free(entries);
}

/* Each bucket begins where the one before it ends, and no duration is out of all of them. */
static void test_buckets_of_durations(void) {
    stages *const made = calloc(1, sizeof *made);
    for (uint32_t bucket = 0; bucket < 61 * STAGES_SUB_BUCKETS; bucket++) {
        CHECK(stages_bucket(stages_floor_ns(bucket)) == bucket);
        if (bucket > 0) CHECK(stages_bucket(stages_floor_ns(bucket) - 1) == bucket - 1);
    }
    stages_add(made, STAGE_BUS, UINT64_MAX);
    stages_add(made, STAGE_BUS, 3);
    CHECK(made->max_ns[STAGE_BUS] == UINT64_MAX && made->counts[STAGE_BUS][3] == 1);
    CHECK(made->counts[STAGE_BUS][61 * STAGES_SUB_BUCKETS - 1] == 1);
    free(made);
}

static void test_processors_with_and_without_sha(void) {
    CHECK(sha256_with(0, 0) == NULL && sha256_with(UINT32_MAX, 0) == NULL && sha256_with(0, UINT32_MAX) == NULL);
#if defined(__x86_64__)
    const zx_sha256 ours = sha256_with(UINT32_MAX, UINT32_MAX);
    const zx_sha256 of_processor = sha256_of_processor();
    CHECK(ours != NULL && (of_processor == ours || of_processor == NULL));
    for (uint32_t bit = 0; bit < 32; bit++) {
        const bool needs_1 = bit == 9 || bit == 19; /* SSSE3, SSE4.1 */
        const bool needs_7 = bit == 29;             /* SHA */
        CHECK(sha256_with(~(UINT32_C(1) << bit), UINT32_MAX) == (needs_1 ? NULL : ours));
        CHECK(sha256_with(UINT32_MAX, ~(UINT32_C(1) << bit)) == (needs_7 ? NULL : ours));
    }
#else
    CHECK(sha256_with(UINT32_MAX, UINT32_MAX) == NULL && sha256_of_processor() == NULL);
#endif
}

/* ------------------------------------------------------------ the book alone */

static void expect_rejected(lob *book, lob_command command, uint8_t reason) {
    CHECK(lob_apply(book, &command, 1) == 1 && book->event_count == 1);
    CHECK(book->events[0].kind == LOB_REJECTED && book->events[0].reason == reason);
    CHECK(lob_check(book) == NULL);
}

static void test_commands_that_the_book_does_not_know(void) {
    lob *book;
    CHECK(lob_create(0, &book) == ZX_ERROR_CONFIG && lob_create(LOB_ORDERS_MAX + 1, &book) == ZX_ERROR_CONFIG);
    CHECK(lob_create(8, &book) == ZX_OK);
    const lob_command good = {.kind = LOB_NEW, .order_id = 1, .price_ticks = 100, .qty_lots = 5};
    lob_command bad = good;
    bad.kind = LOB_AMEND + 1;
    expect_rejected(book, bad, LOB_MALFORMED);
    bad = good;
    bad.side = BOOK_SELL + 1;
    expect_rejected(book, bad, LOB_MALFORMED);
    bad = good;
    bad.order_type = LOB_MARKET + 1;
    expect_rejected(book, bad, LOB_MALFORMED);
    bad = good;
    bad.time_in_force = LOB_FOK + 1;
    expect_rejected(book, bad, LOB_MALFORMED);
    bad = good;
    bad.stp = LOB_DECREMENT + 1;
    expect_rejected(book, bad, LOB_MALFORMED);
    bad = good;
    bad.post_only = 2;
    expect_rejected(book, bad, LOB_MALFORMED);
    bad = good;
    bad.account = LOB_ACCOUNT_MAX + 1;
    expect_rejected(book, bad, LOB_MALFORMED);
    bad = good;
    bad.price_ticks = ZX_TICKS_MAX + 1;
    expect_rejected(book, bad, LOB_PRICE_OUT_OF_RANGE);
    CHECK(lob_apply(book, &good, 1) == 1 && book->events[0].kind == LOB_ACCEPTED && lob_rests(book, 1));
    bad = (lob_command){.kind = LOB_AMEND, .order_id = 1, .price_ticks = 101, .stp = LOB_DECREMENT + 1};
    expect_rejected(book, bad, LOB_MALFORMED);
    CHECK(lob_count(book) == 1 && lob_best(book, BOOK_BUY) == 100 && lob_best(book, BOOK_SELL) == 0);
    lob_destroy(book);
}

static void test_lists_of_the_book_with_little_room(void) {
    lob *book;
    CHECK(lob_create(8, &book) == ZX_OK);
    for (uint32_t index = 0; index < 4; index++) {
        lob_do(book, LOB_NEW, 1 + index, BOOK_BUY, 100 - index / 2, 5, LOB_LIMIT, LOB_GTC, 0, 0, LOB_STP_NONE);
    }
    lob_level levels[2];
    lob_order orders[4];
    CHECK(lob_depth(book, BOOK_BUY, 0, levels) == 0 && lob_depth(book, BOOK_BUY, 1, levels) == 1);
    CHECK(levels[0].price_ticks == 100 && levels[0].qty_lots == 10 && levels[0].orders == 2);
    CHECK(lob_orders(book, BOOK_BUY, 0, orders) == 0 && lob_orders(book, BOOK_BUY, 3, orders) == 3);
    CHECK(orders[0].order_id == 1 && orders[1].order_id == 2 && orders[2].order_id == 3);
    CHECK(lob_orders(book, BOOK_BUY, 4, orders) == 4 && lob_orders(book, BOOK_SELL, 4, orders) == 0);
    lob_destroy(book);
}

/* An order that is amended to a level whose quantities would not fit with it is cancelled. */
static void test_amend_to_a_level_that_is_full(void) {
    enum { FULL = 2048 };
    lob *book;
    CHECK(lob_create(FULL + 1, &book) == ZX_OK);
    for (uint64_t id = 1; id <= FULL; id++) {
        CHECK(lob_do(book, LOB_NEW, id, BOOK_BUY, 100, ZX_LOTS_MAX, LOB_LIMIT, LOB_GTC, 0, 0, LOB_STP_NONE) == 1);
    }
    CHECK(lob_do(book, LOB_NEW, 9999, BOOK_BUY, 99, ZX_LOTS_MAX, LOB_LIMIT, LOB_GTC, 0, 0, LOB_STP_NONE) == 1);
    CHECK(lob_do(book, LOB_AMEND, 9999, BOOK_BUY, 100, 0, LOB_LIMIT, LOB_GTC, 0, 0, LOB_STP_NONE) == 2);
    CHECK(book->events[0].kind == LOB_AMENDED && book->events[1].kind == LOB_CANCELLED);
    CHECK(book->events[1].reason == LOB_LEVEL_FULL && book->events[1].qty_lots == ZX_LOTS_MAX);
    CHECK(lob_count(book) == FULL && !lob_rests(book, 9999) && lob_check(book) == NULL);
    lob_destroy(book);
}

/* ------------------------------------------------------------ questions to a shard */

static void test_questions_about_what_is_not_there(void) {
    engine *const self = make_shard(64);
    struct zx_level level;
    CHECK(engine_depth(self, 99, ZX_SIDE_BUY, 1, &level) == 0);
    CHECK(engine_indicated(self, 99).price_ticks == 0 && engine_market_state(self, 99) == ZX_MARKET_STATE_NONE);
    const engine_market_terms terms = engine_terms_of(self, 99);
    static const engine_market_terms none;
    CHECK(memcmp(&terms, &none, sizeof terms) == 0);
    CHECK(engine_supply(self, 99) == UINT64_MAX && engine_supply(self, 1) == ZX_AMOUNT_MAX / 2);
    struct zx_balance balances[4];
    CHECK(engine_balances(self, 3, 4, balances) == 0 && engine_balances(self, TRADER, 4, balances) == 2);
    CHECK(engine_balances(self, TRADER, 1, balances) == 1 && balances[0].asset_id == 1);
    engine_destroy(self);
    engine_destroy(NULL);
}

static void test_definitions_in_pieces(void) {
    engine *const self = make_shard(64);
    struct zx_asset_definition found_assets[2];
    CHECK(engine_assets(self, 0, 1, found_assets) == 1 && engine_assets(self, 0, 2, found_assets) == 2);
    CHECK(memcmp(found_assets[1].symbol, assets[1].symbol, ENGINE_SYMBOL_BYTES) == 0);
    struct zx_market_definition found[3];
    uint32_t first = 0;
    CHECK(engine_markets(self, 0, &first, 2, found) == 2 && first == 2 && found[1].market_id == 2);
    CHECK(engine_markets(self, 0, &first, 2, found) == 1 && first == 0 && found[0].market_id == 3);
    CHECK(engine_markets(self, 1, &first, 2, found) == 0 && first == 0); /* all are of the genesis record */
    engine_destroy(self);
}

/* ------------------------------------------------------------ batches */

static void test_time_that_stands_still_seals_nothing(void) {
    engine *const self = make_shard(64);
    seal *const sealed = calloc(1, sizeof *sealed);
    seal *const before = calloc(1, sizeof *before);
    inbox *from;
    CHECK(inbox_create(&from) == ZX_OK);
    uint8_t frame[FRAMES_LENGTH_MAX];
    const struct zx_command command = limit_order(1, ZX_SIDE_BUY, 1, 50);
    const uint32_t length = put_batch(frame, trader_key, ++nonce, ZX_SIGNED_BATCH_TEMPLATE_ID, &command, 1);
    inbox_add(from, 0, 1, 0, frame, length);
    CHECK(inbox_take(from, 1, 60000, ZX_NONE, NULL, 0) == 1);
    CHECK(seal_apply_taken(sealed, self, from, START_NS) == ZX_ERROR_TIME);
    CHECK(memcmp(sealed, before, sizeof *sealed) == 0 && from->frames == 1 && from->taken == 0);
    CHECK(inbox_take(from, 1, 60000, ZX_NONE, NULL, 0) == 1);
    CHECK(seal_apply_taken(sealed, self, from, START_NS + 1) == ZX_OK && sealed->records == 1 && from->frames == 0);
    inbox_destroy(from);
    free(sealed);
    free(before);
    engine_destroy(self);
}

/* Bytes that are not plainly the next batch are left to the caller; one that redoing gives otherwise is told. */
static void test_batches_that_are_not_next(void) {
    engine *const writer = make_shard(64);
    nonce = 0;
    engine *const reader = make_shard(64);
    seal *const written = calloc(1, sizeof *written);
    seal *const redone = calloc(1, sizeof *redone);
    uint8_t frame[FRAMES_LENGTH_MAX];
    const struct zx_command command = limit_order(1, ZX_SIDE_BUY, 1, 50);
    const uint32_t length = put_batch(frame, trader_key, 77, ZX_SIGNED_BATCH_TEMPLATE_ID, &command, 1);
    const uint64_t record_no = writer->next_record_no;
    CHECK(seal_apply(written, writer, frame, length, START_NS + 5) == ZX_OK);
    const size_t whole = written->batch_bytes;
    uint8_t *const batch = malloc(SEAL_BATCH_BYTES_MAX + 1);
    memset(batch, 0, SEAL_BATCH_BYTES_MAX + 1);
    memcpy(batch, written->batch, whole);
    CHECK(seal_replay(redone, reader, 1, record_no, batch, whole) == ZX_ERROR_NOT_NEXT); /* another epoch */
    CHECK(seal_replay(redone, reader, 0, record_no + 1, batch, whole) == ZX_ERROR_NOT_NEXT);
    CHECK(seal_replay(redone, reader, 0, record_no, batch, SEAL_BATCH_BYTES_MAX + 1) == ZX_ERROR_NOT_NEXT);
    CHECK(seal_replay(redone, reader, 0, record_no, batch, whole - 1) == ZX_ERROR_NOT_NEXT); /* not as long as it says */
    /* A few bytes behind the last frame, with a length that agrees. */
    zx_store_u32(batch + 36, length + 5);
    CHECK(seal_replay(redone, reader, 0, record_no, batch, whole + 5) == ZX_ERROR_NOT_NEXT);
    zx_store_u32(batch + 36, 0);
    CHECK(seal_replay(redone, reader, 0, record_no, batch, SEAL_HEADER_BYTES + SEAL_TRAILER_BYTES) == ZX_ERROR_NOT_NEXT);
    zx_store_u32(batch + 36, length);
    static const size_t of_id[] = {8, 16, 48};
    for (uint32_t index = 0; index < 3; index++) {
        batch[of_id[index]] ^= 1;
        CHECK(seal_replay(redone, reader, 0, record_no, batch, whole) == ZX_ERROR_NOT_NEXT);
        batch[of_id[index]] ^= 1;
    }
    zx_store_u64(batch + 40, START_NS); /* log time stands still */
    CHECK(seal_replay(redone, reader, 0, record_no, batch, whole) == ZX_ERROR_NOT_NEXT);
    zx_store_u64(batch + 40, START_NS + 5);
    CHECK(seal_replay(redone, reader, 0, record_no, batch, whole) == ZX_OK);
    CHECK(redone->batch_bytes == whole && memcmp(redone->batch, batch, whole) == 0);
    free(batch);
    free(written);
    free(redone);
    engine_destroy(writer);
    engine_destroy(reader);
}

enum { CROWD = 7200 * 64, PER_FRAME = 64, FRAMES = 7 };

/* A shard with very many orders, and in `body` frames that cancel most of them: their events have no room together.
 * Returns the length of a frame. */
static uint32_t make_crowd(engine **out, uint8_t *body) {
    engine *const self = make_shard(CROWD + PER_FRAME);
    struct zx_command commands[PER_FRAME];
    for (uint32_t index = 0; index < PER_FRAME; index++) commands[index] = limit_order(1, ZX_SIDE_SELL, 1, 100);
    for (uint32_t count = 0; count < CROWD; count += PER_FRAME) {
        CHECK(apply(self, self->log_time_ns + 1, ZX_SIGNED_BATCH_TEMPLATE_ID, commands, PER_FRAME) == ZX_OK);
    }
    for (uint32_t index = 0; index < PER_FRAME; index++) {
        commands[index] = (struct zx_command){.kind = ZX_COMMAND_KIND_CANCEL_ALL};
    }
    uint32_t length = 0;
    for (uint32_t index = 0; index < FRAMES; index++) {
        length = put_batch(
            body + index * length, trader_key, ++nonce, ZX_SIGNED_BATCH_TEMPLATE_ID, commands, PER_FRAME
        );
    }
    *out = self;
    return length;
}

/* What was not applied stays in the inbox and makes the next batch. */
static void test_events_without_room(void) {
    uint8_t body[SEAL_BATCH_BYTES_MAX];
    engine *self;
    const uint32_t length = make_crowd(&self, body);
    seal *const sealed = calloc(1, sizeof *sealed);
    inbox *from;
    CHECK(inbox_create(&from) == ZX_OK);
    for (uint32_t index = 0; index < FRAMES; index++) inbox_add(from, 0, 1, 0, body + index * length, length);
    CHECK(inbox_take(from, FRAMES, 60000, ZX_NONE, NULL, 0) == FRAMES);
    CHECK(seal_apply_taken(sealed, self, from, self->log_time_ns + 1) == ZX_OK);
    const uint32_t applied = sealed->records;
    CHECK(applied > 0 && applied < FRAMES && from->frames == FRAMES - applied && from->taken == 0);
    CHECK(inbox_take(from, from->frames, 60000, ZX_NONE, NULL, 0) == FRAMES - applied);
    CHECK(memcmp(from->body, body + applied * length, from->body_bytes) == 0);
    CHECK(seal_apply_taken(sealed, self, from, self->log_time_ns + 1) == ZX_OK && from->frames == 0);
    CHECK(engine_count(self).open_orders == CROWD - FRAMES * PER_FRAME * ENGINE_MAKERS_MAX);
    inbox_destroy(from);
    free(sealed);
    engine_destroy(self);
}

/* A batch that claims to hold them all is not what redoing gives. */
static void test_batch_with_more_events_than_there_is_room(void) {
    uint8_t body[SEAL_BATCH_BYTES_MAX];
    engine *self;
    const uint32_t length = make_crowd(&self, body);
    seal *const redone = calloc(1, sizeof *redone);
    const size_t whole = SEAL_HEADER_BYTES + FRAMES * length + SEAL_TRAILER_BYTES;
    uint8_t *const batch = calloc(1, whole);
    const uint64_t record_no = self->next_record_no;
    zx_store_u64(batch + 16, record_no);
    zx_store_u32(batch + 36, FRAMES * length);
    zx_store_u64(batch + 40, self->log_time_ns + 1);
    memcpy(batch + SEAL_HEADER_BYTES, body, FRAMES * length);
    CHECK(seal_replay(redone, self, 0, record_no, batch, whole) == ZX_ERROR_DIVERGED);
    CHECK(redone->records < FRAMES && redone->batch_bytes < whole);
    free(batch);
    free(redone);
    engine_destroy(self);
}

int main(void) {
    test_too_little(create_engine, destroy_engine, 2);
    test_too_little(create_lob, destroy_lob, 2);
    test_too_little(create_inbox, destroy_inbox, 2);
    test_too_little(create_express, destroy_express, 2);
    test_too_little(create_routes, destroy_routes, 2);
    test_too_little(create_pump, destroy_pump, 2);
    test_too_little(create_verifiers, destroy_verifiers, 4);
    test_verifiers_all_at_work();
    test_frames_of_impossible_lengths();
    test_express_that_is_full();
    test_message_that_is_too_long();
    test_runs_that_are_cut();
    test_index_under_two_hashes();
    test_buckets_of_durations();
    test_processors_with_and_without_sha();
    test_commands_that_the_book_does_not_know();
    test_lists_of_the_book_with_little_room();
    test_amend_to_a_level_that_is_full();
    test_questions_about_what_is_not_there();
    test_definitions_in_pieces();
    test_time_that_stands_still_seals_nothing();
    test_batches_that_are_not_next();
    test_events_without_room();
    test_batch_with_more_events_than_there_is_room();
    puts("ok");
    return 0;
}
