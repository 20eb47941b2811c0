/* engine.c: making a shard, applying records (docs/rules.md section 3), queries. */

#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include "engine.h"

#include <stdlib.h>

#include "ahead.h"
#include "attempt.h"
#include "definitions.h"
#include "frames.h"
#include "markets.h"
#include "reports.h"
#include "state.h"
#include "trading.h"
#include "triggers.h"

/* ------------------------------------------------------------ creation */

/* Where everything lies in the arena. */
typedef struct engine_plan {
    ledger_plan ledger;
    book_pool_plan pool;
    ids_plan by_id;
    lanes_plan lanes;
    merkle_plan trees[TREE_COUNT];
    size_t events, windows, markets, market_defined, market_entries, market_symbol_entries,
        client_order_entries, terms, expiry_heap, due_markets, uncrossing_markets, timed_markets, account_rules,
        trade_groups, outcomes, outcome_entries, scratch, work, before;
    undo_plan changes;
} engine_plan;

static bool config_is_sound(const engine_config *config) {
    const uint32_t pool_max = UINT32_C(1) << 26;
    if (config->accounts_max < 1 || config->accounts_max > pool_max) return false;
    if (config->keys_max < 1 || config->keys_max > pool_max) return false;
    if (config->balances_max < 1 || config->balances_max > pool_max) return false;
    if (config->orders_max < 1 || config->orders_max > pool_max) return false;
    if (config->outcomes_max < ZX_SIGNED_BATCH_COMMANDS_MAX || config->outcomes_max > pool_max) return false;
    if (config->asset_count < 1 || config->assets_max < config->asset_count ||
        config->assets_max > DEFINITIONS_TABLE_MAX) {
        return false;
    }
    if (config->markets_max < 1 || config->markets_max < config->market_count ||
        config->markets_max > DEFINITIONS_TABLE_MAX) {
        return false;
    }
    return config->tracked <= 1 && (!config->tracked || config->sha256 != NULL);
}

/* Leaf counts of the trees at their largest. */
static uint32_t tree_capacity(const engine_config *config, enum engine_tree tree) {
    switch (tree) {
    case TREE_ACCOUNTS:
        return config->accounts_max;
    case TREE_KEYS:
        return config->keys_max;
    case TREE_MARKETS:
        return config->markets_max;
    case TREE_ASSETS:
        return config->assets_max;
    case TREE_ORDERS:
        return config->orders_max;
    case TREE_OUTCOMES:
        return config->outcomes_max;
    default:
        return 1;
    }
}

static engine_plan plan_memory(const engine_config *config, arena *memory) {
    const ledger_limits limits = {
        .accounts = config->accounts_max,
        .keys = config->keys_max,
        .balances = config->balances_max,
        .assets = config->assets_max,
    };
    const uint32_t markets = config->markets_max;
    const book_limits books = {
        .orders = config->orders_max,
        .books = markets * ENGINE_BOOKS_PER_MARKET,
        .windowed = markets,
    };
    engine_plan plan = {
        .events = arena_reserve(memory, ARENA_ALIGN + ENGINE_EVENTS_BYTES, 1),
        .ledger = ledger_reserve(memory, &limits),
        .pool = book_pool_reserve(memory, &books),
        .lanes = lanes_reserve(memory, config->accounts_max, config->orders_max),
        .markets = arena_reserve(memory, markets, sizeof(engine_market)),
        .market_defined = arena_reserve(memory, markets, sizeof(uint64_t)),
        .market_entries = arena_reserve(memory, idmap_entries(markets), sizeof(idmap_entry)),
        .market_symbol_entries = arena_reserve(memory, idmap_entries(markets), sizeof(idmap_entry)),
        .by_id = ids_reserve(memory, config->orders_max),
        .client_order_entries = arena_reserve(memory, idmap_entries(config->orders_max), sizeof(idmap_entry)),
        .terms = arena_reserve(memory, config->orders_max, sizeof(engine_terms)),
        .expiry_heap = arena_reserve(memory, config->orders_max, sizeof(uint32_t)),
        .due_markets = arena_reserve(memory, slots_words(markets), sizeof(uint64_t)),
        .uncrossing_markets = arena_reserve(memory, slots_words(markets), sizeof(uint64_t)),
        .timed_markets = arena_reserve(memory, slots_words(markets), sizeof(uint64_t)),
        .account_rules = arena_reserve(memory, config->accounts_max, sizeof(engine_account_rules)),
        .trade_groups = arena_reserve(memory, config->accounts_max, sizeof(uint32_t)),
        .outcomes = arena_reserve(memory, config->outcomes_max, sizeof(engine_outcome)),
        .outcome_entries = arena_reserve(memory, idmap_entries(config->outcomes_max), sizeof(idmap_entry)),
        .scratch = arena_reserve(memory, STATE_LEAF_BYTES_MAX(config->assets_max) + 1, 1),
        .work = arena_reserve(memory, config->orders_max, sizeof(uint32_t)),
        .before = arena_reserve(memory, 1, sizeof(engine)),
    };
    plan.changes = undo_reserve(memory);
    if (config->tracked) {
        for (enum engine_tree tree = TREE_META; tree < TREE_COUNT; tree++) {
            plan.trees[tree] = merkle_reserve(memory, tree_capacity(config, tree));
        }
    }
    return plan;
}

static void place_pools(engine *self, const engine_plan *plan, const engine_config *config) {
    const arena *const memory = &self->memory;
    const uint32_t markets = config->markets_max;
    self->events = (uint8_t *)arena_at(memory, plan->events) + ARENA_ALIGN;
    memcpy(self->events - ENGINE_EVENTS_TAG_BYTES, "zx.v1/events\0\0\0\0", ENGINE_EVENTS_TAG_BYTES);
    ledger_init(&self->ledger, &plan->ledger, memory, config->hash_seed);
    book_pool_init(&self->pool, &plan->pool, memory);
    lanes_init(&self->lanes, &plan->lanes, memory, config->hash_seed);
    self->markets = arena_at(memory, plan->markets);
    self->market_defined = arena_at(memory, plan->market_defined);
    idmap_init(&self->market_map, markets, arena_at(memory, plan->market_entries));
    idmap_init(&self->market_symbol_map, markets, arena_at(memory, plan->market_symbol_entries));
    ids_init(&self->by_id, &plan->by_id, memory, self->pool.orders, config->hash_seed);
    idmap_init(&self->client_order_map, config->orders_max, arena_at(memory, plan->client_order_entries));
    self->terms = arena_at(memory, plan->terms);
    self->expiry_heap = arena_at(memory, plan->expiry_heap);
    slots_init(&self->due_markets, markets, arena_at(memory, plan->due_markets));
    slots_init(&self->uncrossing_markets, markets, arena_at(memory, plan->uncrossing_markets));
    slots_init(&self->timed_markets, markets, arena_at(memory, plan->timed_markets));
    self->account_rules = arena_at(memory, plan->account_rules);
    self->trade_groups = arena_at(memory, plan->trade_groups);
    self->outcomes = arena_at(memory, plan->outcomes);
    idmap_init(&self->outcome_map, config->outcomes_max, arena_at(memory, plan->outcome_entries));
    self->scratch = arena_at(memory, plan->scratch);
    self->work = arena_at(memory, plan->work);
    self->before = arena_at(memory, plan->before);
    undo_init(&self->changes, &plan->changes, memory);
    if (config->tracked) {
        for (enum engine_tree tree = TREE_META; tree < TREE_COUNT; tree++) {
            merkle_init(&self->trees[tree], &plan->trees[tree], memory);
        }
    }
}

/* The assets and markets of the genesis file. */
static int add_genesis(engine *self, const engine_config *config) {
    for (uint32_t asset = 0; asset < config->asset_count; asset++) {
        if (definitions_asset_refusal(self, &config->assets[asset]) != ZX_REASON_NONE) return ZX_ERROR_CONFIG;
        definitions_add_asset(self, &config->assets[asset]);
    }
    for (uint32_t index = 0; index < config->market_count; index++) {
        if (definitions_market_refusal(self, &config->markets[index]) != ZX_REASON_NONE) return ZX_ERROR_CONFIG;
        definitions_add_market(self, &config->markets[index], ZX_MARKET_STATE_CONTINUOUS);
    }
    return ZX_OK;
}

int engine_create(const engine_config *config, engine **out) {
    if (!config_is_sound(config)) return ZX_ERROR_CONFIG;
    engine *const self = calloc(1, sizeof *self);
    if (self == NULL) return ZX_ERROR_MEMORY;
    const engine_plan plan = plan_memory(config, &self->memory);
    int error = arena_map(&self->memory);
    if (error == ZX_OK) {
        memcpy(self->deployment_id, config->deployment_id, ZX_HASH_BYTES);
        self->hash_seed = config->hash_seed;
        self->sha256 = config->sha256;
        self->shard = config->shard;
        self->tracked = config->tracked != 0;
        self->outcomes_max = config->outcomes_max;
        self->next_record_no = 1; /* record 0 is the genesis record */
        self->next_seq = 1;
        self->next_trade_id = 1;
        self->next_market_end_ns = UINT64_MAX;
        self->markets_max = config->markets_max;
        place_pools(self, &plan, config);
        ledger_open_account(&self->ledger, ENGINE_OPERATOR_ACCOUNT);
        ledger_add_key(&self->ledger, config->operator_public_key, ENGINE_OPERATOR_ACCOUNT);
        error = add_genesis(self, config);
    }
    if (error != ZX_OK) {
        engine_destroy(self);
        return error;
    }
    *out = self;
    return ZX_OK;
}

void engine_destroy(engine *self) {
    if (self == NULL) return;
    arena_unmap(&self->memory);
    free(self);
}

/* ------------------------------------------------------------ outcomes */

static uint64_t hash_outcome(const engine *self, uint32_t key_index, uint64_t nonce) {
    return idmap_hash(self->hash_seed, nonce, key_index);
}

/* Ring position of the first outcome of a cached batch, or ZX_NONE. */
uint32_t engine_find_outcome(const engine *self, uint32_t key_index, uint64_t nonce) {
    idmap_cursor cursor;
    uint32_t position = idmap_first(&self->outcome_map, hash_outcome(self, key_index, nonce), &cursor);
    while (position != ZX_NONE &&
           (self->outcomes[position].key_index != key_index || self->outcomes[position].nonce != nonce)) {
        position = idmap_next(&self->outcome_map, &cursor);
    }
    return position;
}

uint32_t engine_outcome_position(const engine *self, uint64_t ordinal) {
    return (uint32_t)(ordinal % self->outcomes_max);
}

void engine_cache_batch(engine *self, uint32_t position) {
    const engine_outcome *const outcome = &self->outcomes[position];
    idmap_insert(&self->outcome_map, hash_outcome(self, outcome->key_index, outcome->nonce), position);
}

/* Removes the oldest batch from the cache. */
static void drop_oldest_batch(engine *self) {
    uint64_t ordinal = self->outcomes_head - self->outcomes_count;
    const uint32_t position = engine_outcome_position(self, ordinal);
    const engine_outcome *const first = &self->outcomes[position];
    ZX_ASSERT(first->command_index == 0);
    idmap_remove(&self->outcome_map, hash_outcome(self, first->key_index, first->nonce), position);
    do {
        ordinal++;
        self->outcomes_count--;
    } while (self->outcomes_count > 0 &&
             self->outcomes[engine_outcome_position(self, ordinal)].command_index != 0);
}

engine_outcome *report_answer(engine *self, const struct zx_execution_report *report, uint64_t named_id) {
    const uint32_t position = engine_outcome_position(self, self->outcomes_head);
    engine_outcome *const outcome = &self->outcomes[position];
    *outcome = (engine_outcome){
        .nonce = self->command.nonce,
        .seq = report->seq,
        .record_no = report->record_no,
        .report_seq = report->report_seq,
        .order_id = named_id,
        .client_order_id = report->client_order_id,
        .leaves_lots = report->leaves_lots,
        .cum_qty_lots = report->cum_qty_lots,
        .key_index = self->command.key_index,
        .market_id = report->market_id,
        .reason = report->reason,
        .exec_type = report->exec_type,
        .command_index = report->command_index,
    };
    self->outcomes_head++;
    self->outcomes_count++;
    touch(self, TREE_OUTCOMES, position);
    return outcome;
}

void report_rejected_command(
    struct zx_execution_report *report, const struct zx_command *command, int reason
) {
    report->order_id = command->order_id;
    report->client_order_id = command->client_order_id;
    report->price_ticks = command->price_ticks;
    report->qty_lots = command->qty_lots;
    report->market_id = command->market_id;
    report->side = command->side;
    report->sizes_no = command->sizes_no;
    report->reason = (uint16_t)reason;
}

void report_rejected_operator_command(
    struct zx_execution_report *report, const struct zx_operator_command *command, int reason
) {
    report->target_account_id = command->account_id;
    report->amount = command->amount;
    report->market_id = command->market_id;
    report->asset_id = command->asset_id;
    report->market_state = command->market_state;
    report->reason = (uint16_t)reason;
}

/* ------------------------------------------------------------ records */

/* Reports the original outcomes of a batch that was seen before. */
static void repeat_outcomes(engine *self, uint32_t position) {
    const engine_outcome *outcome = &self->outcomes[position];
    const uint32_t key_index = outcome->key_index;
    const uint64_t nonce = outcome->nonce;
    const uint64_t oldest = self->outcomes_head - self->outcomes_count;
    const uint32_t oldest_position = engine_outcome_position(self, oldest);
    /* Distance in the ring from the oldest cached outcome gives the ordinal. */
    uint64_t ordinal = oldest + (position + self->outcomes_max - oldest_position) % self->outcomes_max;
    do {
        const bool of_operator = self->command.account == ENGINE_OPERATOR_ACCOUNT;
        struct zx_execution_report *const report =
            report_unnumbered(self, self->command.account, outcome->exec_type);
        report->report_seq = outcome->report_seq;
        report->seq = outcome->seq;
        report->record_no = outcome->record_no;
        report->order_id = of_operator ? 0 : outcome->order_id;
        report->target_account_id = of_operator ? outcome->order_id : 0;
        report->client_order_id = outcome->client_order_id;
        report->leaves_lots = outcome->leaves_lots;
        report->cum_qty_lots = outcome->cum_qty_lots;
        report->market_id = outcome->market_id;
        report->reason = outcome->reason;
        report->command_index = outcome->command_index;
        report->flags = ZX_REPORT_FLAGS_DUPLICATE;
        ordinal++;
        outcome = &self->outcomes[engine_outcome_position(self, ordinal)];
    } while (ordinal < self->outcomes_head && outcome->key_index == key_index && outcome->nonce == nonce);
}

/* Reason why the whole batch is refused, ZX_REASON_NONE if it is to be applied. Sets `*duplicate` to the
 * position of its outcomes if it was seen before, else to ZX_NONE. */
static int batch_refusal(
    const engine *self, const struct zx_signed_batch *batch, bool by_operator, uint32_t *duplicate
) {
    const uint32_t key_index = self->command.key_index;
    *duplicate = ZX_NONE;
    if (batch->shard != self->shard) return ZX_REASON_WRONG_SHARD;
    if (key_index == ZX_NONE) return ZX_REASON_UNKNOWN_KEY;
    *duplicate = engine_find_outcome(self, key_index, batch->nonce);
    if (*duplicate != ZX_NONE) return ZX_REASON_NONE;
    switch (ledger_nonce_check(&self->ledger.keys[key_index], batch->nonce)) {
    case LEDGER_NONCE_TOO_OLD:
        return ZX_REASON_NONCE_TOO_OLD;
    case LEDGER_NONCE_USED:
        return ZX_REASON_NONCE_USED;
    case LEDGER_NONCE_UNSEEN:
        break;
    }
    if (batch->nonce > self->log_time_ns / 1000 + ENGINE_NONCE_AHEAD_US) return ZX_REASON_NONCE_TOO_NEW;
    const bool is_operator = self->command.account == ENGINE_OPERATOR_ACCOUNT;
    if (by_operator && !is_operator) return ZX_REASON_OPERATOR_ONLY;
    if (!by_operator && is_operator) return ZX_REASON_TRADERS_ONLY;
    return ZX_REASON_NONE;
}

/* What happens by itself is nobody's command: it is reported behind the last command that has a number. */
static void become_nobody(engine *self) {
    self->command.seq = self->next_seq - 1;
    self->command.nonce = 0;
    self->command.account = ZX_ACCOUNT_NONE;
}

/* What the command before has set going: auctions are executed, then waiting orders triggered. */
static void go_on(engine *self) {
    if (self->due_markets.count == 0 && self->uncrossing_markets.count == 0) return;
    const engine_command command = self->command;
    become_nobody(self);
    markets_run(self);
    triggers_run(self);
    self->command = command;
}

/* Refuses or applies the next command of the batch. */
static void apply_command(engine *self, const uint8_t *at, bool by_operator, int refusal) {
    self->command.seq = self->next_seq++;
    const uint64_t head_before = self->outcomes_head;
    if (by_operator) {
        struct zx_operator_command command;
        memcpy(&command, at, sizeof command);
        if (refusal == ZX_REASON_NONE) {
            operator_apply(self, &command);
        } else {
            struct zx_execution_report *const report =
                report_unnumbered(self, self->command.account, ZX_EXEC_TYPE_REJECTED);
            report_rejected_operator_command(report, &command, refusal);
        }
    } else {
        struct zx_command command;
        memcpy(&command, at, sizeof command);
        if (refusal == ZX_REASON_NONE) {
            const int reason = orders_apply(self, &command);
            if (reason != ZX_REASON_NONE) orders_refuse(self, &command, reason);
        } else {
            struct zx_execution_report *const report =
                report_unnumbered(self, self->command.account, ZX_EXEC_TYPE_REJECTED);
            report_rejected_command(report, &command, refusal);
        }
    }
    ZX_ASSERT(self->outcomes_head == head_before + (refusal == ZX_REASON_NONE)); /* answered exactly once */
    if (refusal == ZX_REASON_NONE) go_on(self);
}

/* Applies a trader's commands up to the first that is refused. Returns how many were applied and, if not all were, sets
 * `*reason` to why. */
static uint32_t apply_until_refused(engine *self, const uint8_t *commands, uint32_t count, int *reason) {
    const uint64_t events_before = self->events_used;
    for (uint32_t index = 0; index < count; index++) {
        struct zx_command command;
        memcpy(&command, commands + (size_t)index * ZX_COMMAND_BLOCK_LENGTH, sizeof command);
        self->command.index = (uint8_t)index;
        self->command.seq = self->next_seq++;
        *reason = orders_apply(self, &command);
        if (self->events_used - events_before > ATTEMPT_REPORTS_MAX * ENGINE_REPORT_BYTES) {
            *reason = ZX_REASON_BATCH_TOO_LARGE;
        }
        if (*reason != ZX_REASON_NONE) return index;
    }
    return count;
}

/* All of a trader's commands are applied, or each is refused: nothing happens between them. */
static void apply_all_or_nothing(engine *self, const uint8_t *commands, uint32_t count) {
    int reason;
    attempt_begin(self);
    const uint32_t applied = apply_until_refused(self, commands, count, &reason);
    if (applied == count) {
        attempt_keep(self);
    } else {
        attempt_undo(self);
        for (uint32_t index = 0; index < count; index++) {
            struct zx_command command;
            memcpy(&command, commands + (size_t)index * ZX_COMMAND_BLOCK_LENGTH, sizeof command);
            self->command.index = (uint8_t)index;
            self->command.seq = self->next_seq++;
            orders_refuse(self, &command, index == applied ? reason : ZX_REASON_BATCH_REFUSED);
        }
    }
    go_on(self);
}

/* Returns whether the commands were applied; not if the batch was refused or seen before. */
static bool apply_batch(engine *self, const uint8_t *frame) {
    struct zx_signed_batch batch;
    memcpy(&batch, frame + ZX_BODY_OFFSET, ZX_SIGNED_BATCH_BLOCK_LENGTH);
    const bool by_operator = frames_template(frame) == ZX_OPERATOR_BATCH_TEMPLATE_ID;
    const size_t command_length = by_operator ? ZX_OPERATOR_COMMAND_BLOCK_LENGTH : ZX_COMMAND_BLOCK_LENGTH;
    const uint32_t count = frames_command_count(frame);
    const uint32_t key_index = ledger_find_key(&self->ledger, batch.public_key);
    self->command = (engine_command){
        .record_no = self->next_record_no,
        .nonce = batch.nonce,
        .account = key_index == ZX_NONE ? ZX_ACCOUNT_NONE : self->ledger.keys[key_index].account,
        .key_index = key_index,
    };
    uint32_t duplicate;
    const int refusal = batch_refusal(self, &batch, by_operator, &duplicate);
    if (duplicate != ZX_NONE) {
        repeat_outcomes(self, duplicate);
        return false;
    }
    uint32_t first_position = ZX_NONE;
    if (refusal == ZX_REASON_NONE) {
        ledger_nonce_use(&self->ledger.keys[key_index], batch.nonce);
        touch(self, TREE_KEYS, key_index);
        while (self->outcomes_count + count > self->outcomes_max) drop_oldest_batch(self);
        first_position = engine_outcome_position(self, self->outcomes_head);
        self->previous_order = 0;
    }
    const uint8_t *const commands = frames_commands(frame);
    if (batch.flags & ZX_BATCH_FLAGS_ALL_OR_NOTHING && refusal == ZX_REASON_NONE) {
        apply_all_or_nothing(self, commands, count);
        engine_cache_batch(self, first_position);
        return true;
    }
    const bool fetches = !by_operator && ahead_pays(self);
    ahead next;
    if (fetches) ahead_begin(&next, self, commands, count);
    for (uint32_t index = 0; index < count; index++) {
        if (fetches) ahead_go_on(&next, index);
        self->command.index = (uint8_t)index;
        apply_command(self, commands + index * command_length, by_operator, refusal);
    }
    if (refusal != ZX_REASON_NONE) return false;
    engine_cache_batch(self, first_position);
    return true;
}

static bool is_batch(const uint8_t *frame) {
    const uint16_t template_id = frames_template(frame);
    return template_id == ZX_SIGNED_BATCH_TEMPLATE_ID || template_id == ZX_OPERATOR_BATCH_TEMPLATE_ID;
}

/* What time brings comes first, then the commands with what each triggers. */
static void apply_record(engine *self, const uint8_t *frame) {
    self->command = (engine_command){.record_no = self->next_record_no, .key_index = ZX_NONE};
    become_nobody(self);
    triggers_expire(self);
    markets_end_states(self);
    if (is_batch(frame) && apply_batch(self, frame)) return;
    self->command = (engine_command){.record_no = self->next_record_no, .key_index = ZX_NONE};
    go_on(self);
}

/* Whether the event buffer has room for the worst that a well-formed frame can do. */
static bool has_room(const engine *self, const uint8_t *frame) {
    const uint64_t commands = is_batch(frame) ? frames_command_count(frame) : 1;
    const uint64_t worst = commands * ENGINE_REPORTS_PER_COMMAND_MAX + ENGINE_REPORTS_OF_TIME_MAX;
    return self->events_used + worst * ENGINE_REPORT_BYTES <= ENGINE_EVENTS_BYTES;
}

int engine_apply(
    engine *self, const uint8_t *body, size_t length, uint64_t log_time_ns, engine_applied *applied
) {
    *applied = (engine_applied){.reason = ZX_REASON_NONE};
    if (log_time_ns <= self->log_time_ns) return ZX_ERROR_TIME;
    self->events_used = 0;
    const uint64_t first_seq = self->next_seq;
    size_t offset = 0;
    int error = ZX_OK;
    while (offset < length) {
        const uint8_t *const frame = body + offset;
        const size_t rest = length - offset;
        size_t frame_length = rest; /* shorter than a framing header: fails the check below */
        if (rest >= ZX_FRAME_HEADER_BYTES) {
            frame_length = (size_t)frame[0] << 24 | (size_t)frame[1] << 16 | (size_t)frame[2] << 8 | frame[3];
        }
        applied->reason =
            frame_length > rest ? ZX_REASON_FRAME_TRUNCATED : frames_check(frame, frame_length, true);
        if (applied->reason != ZX_REASON_NONE) {
            error = ZX_ERROR_MALFORMED_FRAME;
            break;
        }
        if (!has_room(self, frame)) break;
        self->log_time_ns = log_time_ns;
        apply_record(self, frame);
        self->next_record_no++;
        applied->records++;
        offset += frame_length;
    }
    applied->consumed_bytes = offset;
    applied->commands = self->next_seq - first_seq;
    applied->events_bytes = self->events_used;
    return error;
}

uint64_t engine_next_due_ns(const engine *self) {
    if (self->due_markets.count > 0 || self->uncrossing_markets.count > 0) return self->log_time_ns + 1;
    const uint64_t expiry_ns =
        self->expiry_count == 0 ? UINT64_MAX : self->pool.terms[self->expiry_heap[0]].expire_time_ns;
    return expiry_ns < self->next_market_end_ns ? expiry_ns : self->next_market_end_ns;
}

engine_auction engine_indicated(const engine *self, uint32_t market_id) {
    const engine_market *const market = engine_find_market(self, market_id);
    const bool collects = market != NULL && (market->state == ZX_MARKET_STATE_AUCTION ||
                                             market->state == ZX_MARKET_STATE_CLOSING_AUCTION);
    return collects ? markets_auction(market, ENGINE_INDICATION_LOOKS_MAX) : (engine_auction){0};
}

/* ------------------------------------------------------------ queries */

engine_market *engine_find_market(const engine *self, uint32_t market_id) {
    idmap_cursor cursor;
    uint32_t index = idmap_first(&self->market_map, engine_hash_market(self, market_id), &cursor);
    while (index != ZX_NONE && self->markets[index].market_id != market_id) {
        index = idmap_next(&self->market_map, &cursor);
    }
    return index == ZX_NONE ? NULL : &self->markets[index];
}

uint32_t engine_depth(
    const engine *self, uint32_t market_id, uint8_t side, uint32_t levels_max, struct zx_level *at
) {
    const engine_market *const market = engine_find_market(self, market_id);
    if (market == NULL) return 0;
    uint32_t count = 0;
    uint32_t skipped = 0;
    uint32_t index = market->book.sides[side == ZX_SIDE_BUY ? BOOK_BUY : BOOK_SELL].best;
    for (; index != ZX_NONE && count < levels_max; index = book_worse_level(&market->book, index)) {
        const book_level *const level = &self->pool.levels[index];
        if (level->order_count == level->hidden_count) {
            if (skipped++ == ENGINE_DEPTH_SKIPPED_MAX) break;
            continue;
        }
        at[count++] = (struct zx_level){
            .price_ticks = book_level_price(level),
            .qty_lots = level->total_lots,
            .orders = level->order_count - level->hidden_count,
        };
    }
    return count;
}

uint32_t engine_balances(
    const engine *self, uint64_t account_id, uint32_t balances_max, struct zx_balance *at
) {
    if (!ledger_is_open(&self->ledger, account_id)) return 0;
    uint32_t count = 0;
    uint32_t index = self->ledger.accounts[account_id].first_balance;
    for (; index != ZX_NONE && count < balances_max; index = self->ledger.balances[index].next) {
        const ledger_balance *const balance = &self->ledger.balances[index];
        at[count++] = (struct zx_balance){
            .asset_id = self->ledger.asset_ids[balance->asset],
            .available = balance->available,
            .held = balance->held,
        };
    }
    return count;
}

uint32_t engine_open_orders(
    const engine *self, uint64_t account_id, uint32_t market_id, uint64_t after_order_id, uint32_t orders_max,
    struct zx_open_order *at
) {
    if (!ledger_is_open(&self->ledger, account_id)) return 0;
    uint32_t slot = self->ledger.accounts[account_id].order_head;
    /* The usual next page starts behind an order that is still open, and who wants one order asks for what is behind
     * the id before it: no need to walk there. */
    const uint32_t after = engine_find_order(self, after_order_id);
    const uint32_t next = engine_find_order(self, after_order_id + 1);
    if (after != ZX_NONE && self->pool.orders[after].owner == account_id) {
        slot = self->pool.orders[after].owner_next;
    } else if (next != ZX_NONE && self->pool.orders[next].owner == account_id) {
        slot = next;
    }
    uint32_t count = 0;
    for (; slot != ZX_NONE && count < orders_max; slot = self->pool.orders[slot].owner_next) {
        const book_order *const order = &self->pool.orders[slot];
        const engine_terms *const terms = &self->terms[slot];
        const uint32_t order_market_id = self->markets[trading_market_of(self, slot)].market_id;
        if (order->order_id <= after_order_id) continue;
        if (market_id != 0 && order_market_id != market_id) continue;
        const bool has_trigger = trading_has_trigger(order);
        const uint32_t options = (trading_is_hidden(self, slot) ? ZX_ORDER_OPTIONS_HIDDEN : 0) |
                                 (has_trigger && terms->on_reference ? ZX_ORDER_OPTIONS_ON_REFERENCE : 0) |
                                 (order->flags & ORDER_PAIRED ? ZX_ORDER_OPTIONS_OCO_WITH_PREVIOUS : 0);
        at[count++] = (struct zx_open_order){
            .order_id = order->order_id,
            .client_order_id = order->client_order_id,
            .price_ticks = trading_price_of(self, slot),
            .qty_lots = order->qty_lots,
            .leaves_lots = order->leaves_lots,
            .priority_no = order->priority_no,
            .market_id = order_market_id,
            .side = trading_wire_side(trading_side_of(self, slot)),
            .order_type = has_trigger ? terms->order_type : (uint8_t)ZX_ORDER_TYPE_LIMIT,
            .time_in_force = trading_time_in_force_of(self, slot),
            .trigger = has_trigger ? terms->trigger : (uint8_t)ZX_TRIGGER_NONE,
            .display_qty_lots = trading_display_of(self, slot),
            .trigger_ticks = has_trigger ? triggers_price_of(self, slot) : 0,
            .expire_time_ns = order->flags & BOOK_TIMED ? self->pool.terms[slot].expire_time_ns : 0,
            .options = (uint8_t)options,
        };
    }
    return count;
}

engine_order_terms engine_terms_of_order(const engine *self, uint64_t order_id) {
    engine_order_terms found = {0};
    const uint32_t slot = engine_find_order(self, order_id);
    if (slot == ZX_NONE) return found;
    const engine_terms *const terms = &self->terms[slot];
    const book_order *const order = &self->pool.orders[slot];
    if (order->flags & ORDER_PAIRED) found.pair_order_id = self->pool.orders[terms->pair].order_id;
    if (trading_has_trigger(order)) {
        found.trail_ticks = terms->trail_ticks;
        found.trail_ppm = terms->trail_ppm;
        found.self_trade_prevention = terms->self_trade_prevention;
    }
    return found;
}

engine_counts engine_count(const engine *self) {
    return (engine_counts){
        .open_orders = self->pool.taken.count,
        .accounts = self->ledger.account_count,
        .keys = self->ledger.key_count,
        .balances = self->ledger.balance_count,
    };
}

uint64_t engine_account_of_key(const engine *self, const uint8_t *public_key) {
    const uint32_t index = ledger_find_key(&self->ledger, public_key);
    return index == ZX_NONE ? ZX_ACCOUNT_NONE : self->ledger.keys[index].account;
}

uint64_t engine_report_seq(const engine *self, uint64_t account_id) {
    return ledger_is_open(&self->ledger, account_id) ? self->ledger.accounts[account_id].report_seq : 0;
}

uint32_t engine_market_state(const engine *self, uint32_t market_id) {
    const engine_market *const market = engine_find_market(self, market_id);
    return market == NULL ? (uint32_t)ZX_MARKET_STATE_NONE : market->state;
}

engine_market_terms engine_terms_of(const engine *self, uint32_t market_id) {
    const engine_market *const market = engine_find_market(self, market_id);
    if (market == NULL) return (engine_market_terms){0};
    return (engine_market_terms){
        .until_ns = market->until_ns,
        .notional_max = market->notional_max,
        .qty_lots_max = market->qty_lots_max,
        .last_ticks = market->last_ticks,
        .reference_ticks = market->reference_ticks,
        .orders_max = market->orders_max,
        .dynamic_band_ppm = market->dynamic_band_ppm,
        .static_band_ppm = market->static_band_ppm,
    };
}

uint64_t engine_supply(const engine *self, uint32_t asset_id) {
    const uint32_t asset = ledger_find_asset(&self->ledger, asset_id);
    return asset == ZX_NONE ? UINT64_MAX : self->ledger.supplies[asset];
}
