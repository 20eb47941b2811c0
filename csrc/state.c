/* state.c: leaves, state root, snapshots. Offsets and fields are those of docs/formats.md, in the same order. */

#include "state.h"

#include "definitions.h"
#include "markets.h"
#include "reports.h"
#include "trading.h"
#include "triggers.h"

#define NO_ENTRY "ZXN1"
#define TAG_BYTES 4u
#define TOP_LEAF_BYTES (TAG_BYTES + 4u + 8u + ZX_HASH_BYTES)
#define SNAPSHOT_VERSION 1u

/* ------------------------------------------------------------ writing bytes */

static uint8_t *put_tag(uint8_t *at, const char *tag) {
    memcpy(at, tag, TAG_BYTES);
    return at + TAG_BYTES;
}

static uint8_t *put_bytes(uint8_t *at, const uint8_t *bytes, size_t length) {
    memcpy(at, bytes, length);
    return at + length;
}

static uint8_t *put_u16(uint8_t *at, uint16_t value) {
    zx_store_u16(at, value);
    return at + 2;
}

static uint8_t *put_u32(uint8_t *at, uint32_t value) {
    zx_store_u32(at, value);
    return at + 4;
}

static uint8_t *put_u64(uint8_t *at, uint64_t value) {
    zx_store_u64(at, value);
    return at + 8;
}

/* ------------------------------------------------------------ leaves */

static size_t meta_leaf(const void *context, uint32_t index, uint8_t *out) {
    const engine *const self = context;
    (void)index;
    uint8_t *at = put_tag(out, "ZXE1");
    at = put_bytes(at, self->deployment_id, ZX_HASH_BYTES);
    at = put_u16(at, self->shard);
    at = put_u16(at, 0);
    at = put_u64(at, self->next_record_no);
    at = put_u64(at, self->next_seq);
    at = put_u64(at, self->next_trade_id);
    at = put_u64(at, self->pool.next_priority_no);
    at = put_u64(at, self->log_time_ns);
    at = put_u64(at, self->outcomes_head);
    at = put_u64(at, self->outcomes_count);
    return (size_t)(at - out);
}

static size_t account_leaf(const void *context, uint32_t index, uint8_t *out) {
    const engine *const self = context;
    const ledger_account *const account = &self->ledger.accounts[index];
    if (!account->opened) return (size_t)(put_tag(out, NO_ENTRY) - out);
    uint8_t *at = put_tag(out, "ZXA1");
    at = put_u64(at, index);
    at = put_u64(at, account->report_seq);
    at = put_u32(at, account->balance_count);
    const engine_account_rules *const rules = &self->account_rules[index];
    at = put_u32(at, rules->fee_discount_ppm);
    at = put_u32(at, self->trade_groups[index]);
    at = put_u32(at, rules->orders_max);
    at = put_u32(at, rules->orders_per_second);
    at = put_u64(at, rules->rate_second);
    at = put_u32(at, rules->rate_count);
    at = put_u32(at, 0);
    for (uint32_t next = account->first_balance; next != ZX_NONE; next = self->ledger.balances[next].next) {
        const ledger_balance *const balance = &self->ledger.balances[next];
        at = put_u32(at, self->ledger.asset_ids[balance->asset]);
        at = put_u64(at, balance->available);
        at = put_u64(at, balance->held);
    }
    return (size_t)(at - out);
}

static size_t key_leaf(const void *context, uint32_t index, uint8_t *out) {
    const engine *const self = context;
    const ledger_key *const key = &self->ledger.keys[index];
    uint8_t *at = put_tag(out, "ZXK1");
    at = put_u32(at, index);
    at = put_bytes(at, key->public_key, LEDGER_KEY_BYTES);
    at = put_u64(at, key->account);
    at = put_u64(at, key->highest_nonce);
    for (uint32_t word = 0; word < LEDGER_WINDOW_WORDS; word++) at = put_u64(at, key->window[word]);
    return (size_t)(at - out);
}

static size_t market_leaf(const void *context, uint32_t index, uint8_t *out) {
    const engine *const self = context;
    const engine_market *const market = &self->markets[index];
    uint8_t *at = put_tag(out, "ZXM1");
    at = put_u32(at, market->market_id);
    at = put_u32(at, self->ledger.asset_ids[market->base_asset]);
    at = put_u32(at, self->ledger.asset_ids[market->quote_asset]);
    at = put_u32(at, market->state);
    at = put_u64(at, market->base_units_per_lot);
    at = put_u64(at, market->quote_units_per_tick_lot);
    at = put_u32(at, (uint32_t)market->maker_fee_ppm);
    at = put_u32(at, market->taker_fee_ppm);
    at = put_u64(at, (uint64_t)market->last_ticks);
    at = put_u64(at, (uint64_t)market->reference_ticks);
    at = put_u64(at, market->until_ns);
    at = put_u64(at, (uint64_t)market->auction_ticks);
    at = put_u64(at, market->notional_max);
    at = put_u64(at, market->qty_lots_max);
    at = put_u64(at, market->interruption_ns);
    at = put_u32(at, market->next_state);
    at = put_u32(at, market->orders_max);
    at = put_u32(at, market->dynamic_band_ppm);
    at = put_u32(at, market->static_band_ppm);
    at = put_u32(at, market->sizes_no);
    at = put_u32(at, market->called_off);
    at = put_u64(at, self->market_defined[index]);
    at = put_bytes(at, market->symbol, ENGINE_SYMBOL_BYTES);
    return (size_t)(at - out);
}

static size_t asset_leaf(const void *context, uint32_t index, uint8_t *out) {
    const engine *const self = context;
    uint8_t *at = put_tag(out, "ZXS1");
    at = put_u32(at, self->ledger.asset_ids[index]);
    at = put_u64(at, self->ledger.supplies[index]);
    at = put_u32(at, self->ledger.asset_decimals[index]);
    at = put_u32(at, 0);
    at = put_bytes(at, self->ledger.asset_symbols[index], ENGINE_SYMBOL_BYTES);
    return (size_t)(at - out);
}

/* What an order has that is not plain. Fields that it does not use are zero, or what a resting order has. */
static uint8_t *put_terms(const engine *self, uint32_t slot, uint8_t *at) {
    const book_order *const order = &self->pool.orders[slot];
    const engine_terms *const terms = &self->terms[slot];
    const bool is_waiting = trading_has_trigger(order);
    at = put_u64(at, trading_display_of(self, slot));
    at = put_u64(at, order->flags & BOOK_ICEBERG ? self->pool.terms[slot].shown_lots : 0);
    at = put_u64(at, order->flags & BOOK_TIMED ? self->pool.terms[slot].expire_time_ns : 0);
    at = put_u64(at, is_waiting ? (uint64_t)triggers_price_of(self, slot) : 0);
    at = put_u64(at, is_waiting ? (uint64_t)terms->trail_ticks : 0);
    at = put_u64(at, is_waiting ? (uint64_t)terms->best_ticks : 0);
    at = put_u64(at, order->flags & ORDER_PAIRED ? self->pool.orders[terms->pair].order_id : 0);
    at = put_u32(at, is_waiting ? terms->trail_ppm : 0);
    *at++ = is_waiting ? terms->order_type : (uint8_t)ZX_ORDER_TYPE_LIMIT;
    *at++ = trading_time_in_force_of(self, slot);
    *at++ = is_waiting ? terms->self_trade_prevention : (uint8_t)ZX_SELF_TRADE_PREVENTION_NONE;
    *at++ = is_waiting ? terms->trigger : (uint8_t)ZX_TRIGGER_NONE;
    *at++ = trading_is_hidden(self, slot);
    *at++ = is_waiting && terms->on_reference;
    *at++ = trading_awaits_auction(order);
    memset(at, 0, 5);
    return at + 5;
}

static size_t order_leaf(const void *context, uint32_t index, uint8_t *out) {
    const engine *const self = context;
    if (!slots_is_taken(&self->pool.taken, index)) return (size_t)(put_tag(out, NO_ENTRY) - out);
    const book_order *const order = &self->pool.orders[index];
    uint8_t *at = put_tag(out, order->flags == 0 ? "ZXO1" : "ZXO2");
    at = put_u64(at, order->order_id);
    at = put_u64(at, order->client_order_id);
    at = put_u64(at, order->owner);
    at = put_u64(at, order->priority_no);
    at = put_u64(at, (uint64_t)trading_price_of(self, index));
    at = put_u64(at, order->qty_lots);
    at = put_u64(at, order->leaves_lots);
    at = put_u32(at, self->markets[trading_market_of(self, index)].market_id);
    at = put_u32(at, trading_wire_side(trading_side_of(self, index)));
    if (order->flags != 0) at = put_terms(self, index, at);
    return (size_t)(at - out);
}

static size_t outcome_leaf(const void *context, uint32_t index, uint8_t *out) {
    const engine *const self = context;
    const engine_outcome *const outcome = &self->outcomes[index];
    uint8_t *at = put_tag(out, "ZXR1");
    at = put_u32(at, outcome->key_index);
    at = put_u64(at, outcome->nonce);
    at = put_u64(at, outcome->seq);
    at = put_u64(at, outcome->record_no);
    at = put_u64(at, outcome->report_seq);
    at = put_u64(at, outcome->order_id);
    at = put_u64(at, outcome->client_order_id);
    at = put_u64(at, outcome->leaves_lots);
    at = put_u64(at, outcome->cum_qty_lots);
    at = put_u32(at, outcome->market_id);
    at = put_u16(at, outcome->reason);
    *at++ = outcome->exec_type;
    *at++ = outcome->command_index;
    return (size_t)(at - out);
}

typedef size_t (*leaf_writer)(const void *context, uint32_t index, uint8_t *out);

static const leaf_writer leaf_writers[TREE_COUNT] = {
    [TREE_META] = meta_leaf,        [TREE_ACCOUNTS] = account_leaf, [TREE_KEYS] = key_leaf,
    [TREE_MARKETS] = market_leaf,   [TREE_ASSETS] = asset_leaf,     [TREE_ORDERS] = order_leaf,
    [TREE_OUTCOMES] = outcome_leaf,
};

static void leaf_counts(const engine *self, uint32_t counts[TREE_COUNT]) {
    const uint32_t highest_slot = slots_highest_taken(&self->pool.taken);
    counts[TREE_META] = 1;
    counts[TREE_ACCOUNTS] = self->ledger.highest_account + 1;
    counts[TREE_KEYS] = self->ledger.key_count;
    counts[TREE_MARKETS] = self->market_count;
    counts[TREE_ASSETS] = self->ledger.asset_count;
    counts[TREE_ORDERS] = highest_slot == ZX_NONE ? 0 : highest_slot + 1;
    counts[TREE_OUTCOMES] =
        self->outcomes_head < self->outcomes_max ? (uint32_t)self->outcomes_head : self->outcomes_max;
}

/* ------------------------------------------------------------ state root */

static void subtree_root(
    engine *self, uint32_t tree, const uint32_t counts[TREE_COUNT], uint8_t root[ZX_HASH_BYTES]
) {
    const merkle_source source = {
        .leaf = leaf_writers[tree],
        .context = self,
        .scratch = self->scratch,
        .sha256 = self->sha256,
    };
    if (tree == TREE_META) merkle_mark(&self->trees[tree], 0); /* numbers and time move with every record */
    merkle_root(&self->trees[tree], counts[tree], &source, root);
}

int state_root(engine *self, uint8_t root[ZX_HASH_BYTES]) {
    if (!self->tracked) return ZX_ERROR_NOT_TRACKED;
    uint32_t counts[TREE_COUNT];
    leaf_counts(self, counts);
    uint8_t hashes[TREE_COUNT * ZX_HASH_BYTES];
    for (uint32_t tree = 0; tree < TREE_COUNT; tree++) {
        uint8_t leaf[1 + TOP_LEAF_BYTES];
        uint8_t *at = put_tag(leaf + 1, "ZXT1");
        at = put_u32(at, tree);
        at = put_u64(at, counts[tree]);
        subtree_root(self, tree, counts, at);
        merkle_leaf_hash(leaf, TOP_LEAF_BYTES, self->sha256, hashes + (size_t)tree * ZX_HASH_BYTES);
    }
    merkle_fold(hashes, TREE_COUNT, self->sha256, root);
    return ZX_OK;
}

int state_prove_account(engine *self, uint64_t account_id, state_account_proof *proof) {
    if (!self->tracked) return ZX_ERROR_NOT_TRACKED;
    *proof = (state_account_proof){0};
    uint32_t counts[TREE_COUNT];
    leaf_counts(self, counts);
    for (uint32_t tree = 0; tree < TREE_COUNT; tree++) {
        proof->counts[tree] = counts[tree];
        subtree_root(self, tree, counts, proof->roots[tree]);
    }
    if (account_id >= counts[TREE_ACCOUNTS]) return ZX_OK;
    const uint32_t index = (uint32_t)account_id;
    proof->path_count = merkle_path(&self->trees[TREE_ACCOUNTS], index, proof->path[0]);
    proof->leaf_bytes = (uint32_t)account_leaf(self, index, self->scratch);
    proof->leaf = self->scratch;
    return ZX_OK;
}

/* ------------------------------------------------------------ snapshot */

size_t state_snapshot_size(const engine *self) {
    uint32_t counts[TREE_COUNT];
    leaf_counts(self, counts);
    const uint32_t free_accounts = counts[TREE_ACCOUNTS] - self->ledger.account_count;
    const uint32_t free_slots = counts[TREE_ORDERS] - self->pool.taken.count;
    size_t size = STATE_SNAPSHOT_HEAD_BYTES + STATE_META_BYTES;
    for (uint32_t tree = 0; tree < TREE_COUNT; tree++) size += (size_t)counts[tree] * sizeof(uint32_t);
    size += (size_t)self->ledger.account_count * STATE_ACCOUNT_HEAD_BYTES;
    size += (size_t)self->ledger.balance_count * STATE_ACCOUNT_BALANCE_BYTES;
    size += ((size_t)free_accounts + free_slots) * TAG_BYTES;
    size += (size_t)counts[TREE_KEYS] * STATE_KEY_BYTES;
    size += (size_t)counts[TREE_MARKETS] * STATE_MARKET_BYTES;
    size += (size_t)counts[TREE_ASSETS] * STATE_ASSET_BYTES;
    size += (size_t)self->pool.taken.count * STATE_ORDER_BYTES;
    uint32_t slot = slots_next_taken(&self->pool.taken, 0);
    for (; slot != ZX_NONE; slot = slots_next_taken(&self->pool.taken, slot + 1)) {
        if (self->pool.orders[slot].flags != 0) size += STATE_TERMS_BYTES;
    }
    size += (size_t)counts[TREE_OUTCOMES] * STATE_OUTCOME_BYTES;
    return size;
}

static void write_head(const uint32_t counts[TREE_COUNT], uint8_t out[STATE_SNAPSHOT_HEAD_BYTES]) {
    uint8_t *at = put_tag(out, "ZXP1");
    at = put_u32(at, SNAPSHOT_VERSION);
    for (uint32_t tree = 0; tree < TREE_COUNT; tree++) at = put_u64(at, counts[tree]);
}

void state_snapshot(const engine *self, uint8_t *out) {
    uint32_t counts[TREE_COUNT];
    leaf_counts(self, counts);
    write_head(counts, out);
    uint8_t *at = out + STATE_SNAPSHOT_HEAD_BYTES;
    for (uint32_t tree = 0; tree < TREE_COUNT; tree++) {
        for (uint32_t index = 0; index < counts[tree]; index++) {
            const size_t length = leaf_writers[tree](self, index, at + sizeof(uint32_t));
            zx_store_u32(at, (uint32_t)length);
            at += sizeof(uint32_t) + length;
        }
    }
    ZX_ASSERT((size_t)(at - out) == state_snapshot_size(self));
}

/* ------------------------------------------------------------ restore */

/* What is left of a snapshot. */
typedef struct reader {
    const uint8_t *at;
    const uint8_t *end;
} reader;

/* Next leaf, or NULL if the snapshot ends before. */
static const uint8_t *next_leaf(reader *from, size_t *length) {
    const size_t rest = (size_t)(from->end - from->at);
    if (rest < sizeof(uint32_t)) return NULL;
    *length = zx_load_u32(from->at);
    if (*length > rest - sizeof(uint32_t)) return NULL;
    const uint8_t *const leaf = from->at + sizeof(uint32_t);
    from->at = leaf + *length;
    return leaf;
}

static bool is_leaf(const uint8_t *leaf, size_t length, const char *tag, size_t wanted) {
    return leaf != NULL && length == wanted && memcmp(leaf, tag, TAG_BYTES) == 0;
}

static const char *read_meta(engine *self, uint32_t index, const uint8_t *leaf, size_t length) {
    (void)index;
    if (!is_leaf(leaf, length, "ZXE1", STATE_META_BYTES)) return "the meta entry is missing";
    if (memcmp(leaf + 4, self->deployment_id, ZX_HASH_BYTES) != 0) return "it is of another deployment";
    if (zx_load_u16(leaf + 36) != self->shard) return "it is of another shard";
    self->next_record_no = zx_load_u64(leaf + 40);
    self->next_seq = zx_load_u64(leaf + 48);
    self->next_trade_id = zx_load_u64(leaf + 56);
    self->pool.next_priority_no = zx_load_u64(leaf + 64);
    self->log_time_ns = zx_load_u64(leaf + 72);
    self->outcomes_head = zx_load_u64(leaf + 80);
    self->outcomes_count = zx_load_u64(leaf + 88);
    if (self->next_record_no < 1 || self->next_seq < 1 || self->next_trade_id < 1 ||
        self->pool.next_priority_no < 1) {
        return "a number starts below 1";
    }
    if (self->outcomes_count > self->outcomes_head || self->outcomes_count > self->outcomes_max) {
        return "more outcomes are cached than there are";
    }
    return NULL;
}

static const char *read_account(engine *self, uint32_t index, const uint8_t *leaf, size_t length) {
    if (is_leaf(leaf, length, NO_ENTRY, TAG_BYTES)) return NULL;
    if (leaf == NULL || length < STATE_ACCOUNT_HEAD_BYTES || memcmp(leaf, "ZXA1", TAG_BYTES) != 0) {
        return "an account is malformed";
    }
    const size_t balances = zx_load_u32(leaf + 20);
    if (balances > self->ledger.asset_count ||
        length != STATE_ACCOUNT_HEAD_BYTES + balances * STATE_ACCOUNT_BALANCE_BYTES) {
        return "an account's balances are malformed";
    }
    /* Account 0 and its fee balances exist since genesis. */
    if (!ledger_is_open(&self->ledger, index)) ledger_open_account(&self->ledger, index);
    self->ledger.accounts[index].report_seq = zx_load_u64(leaf + 12);
    self->account_rules[index] = (engine_account_rules){
        .fee_discount_ppm = zx_load_u32(leaf + 24),
        .orders_max = zx_load_u32(leaf + 32),
        .orders_per_second = zx_load_u32(leaf + 36),
        .rate_second = zx_load_u64(leaf + 40),
        .rate_count = zx_load_u32(leaf + 48),
    };
    self->trade_groups[index] = zx_load_u32(leaf + 28);
    self->rule_count += engine_has_rules(self, index);
    for (size_t number = 0; number < balances; number++) {
        const uint8_t *const at = leaf + STATE_ACCOUNT_HEAD_BYTES + number * STATE_ACCOUNT_BALANCE_BYTES;
        const uint32_t asset = ledger_find_asset(&self->ledger, zx_load_u32(at));
        if (asset == ZX_NONE) return "a balance is of an unknown asset";
        const uint32_t balance = ledger_make_balance(&self->ledger, index, asset);
        if (balance == ZX_NONE) return "there are more balances than allowed";
        self->ledger.balances[balance].available = zx_load_u64(at + 4);
        self->ledger.balances[balance].held = zx_load_u64(at + 12);
    }
    return NULL;
}

static const char *read_key(engine *self, uint32_t index, const uint8_t *leaf, size_t length) {
    if (!is_leaf(leaf, length, "ZXK1", STATE_KEY_BYTES)) return "a key is malformed";
    const uint8_t *const public_key = leaf + 8;
    const uint64_t account_id = zx_load_u64(leaf + 40);
    if (!ledger_is_open(&self->ledger, account_id)) return "a key belongs to no account";
    if (index >
        0) { /* key 0 is the operator's and exists since genesis; the comparison at the end covers it */
        if (ledger_find_key(&self->ledger, public_key) != ZX_NONE) return "a key is there twice";
        ledger_add_key(&self->ledger, public_key, (uint32_t)account_id);
    }
    ledger_key *const key = &self->ledger.keys[index];
    key->highest_nonce = zx_load_u64(leaf + 48);
    for (uint32_t word = 0; word < LEDGER_WINDOW_WORDS; word++) {
        key->window[word] = zx_load_u64(leaf + 56 + (size_t)word * sizeof(uint64_t));
    }
    /* Before the window is full, bits above the highest nonce stand for nonces below zero. */
    for (uint64_t bit = key->highest_nonce + 1; bit < LEDGER_NONCE_WINDOW && bit != 0; bit++) {
        if (key->window[bit / 64] >> (bit % 64) & 1) return "a key used nonces that do not exist";
    }
    return NULL;
}

static const char *read_market(engine *self, uint32_t index, const uint8_t *leaf, size_t length) {
    if (!is_leaf(leaf, length, "ZXM1", STATE_MARKET_BYTES)) return "a market is malformed";
    const uint32_t state = zx_load_u32(leaf + 16);
    if (state < ZX_MARKET_STATE_CLOSED || state > ZX_MARKET_STATE_MAX) return "a market's state is unknown";
    engine_market_config definition = {
        .base_units_per_lot = zx_load_u64(leaf + 20),
        .quote_units_per_tick_lot = zx_load_u64(leaf + 28),
        .market_id = zx_load_u32(leaf + 4),
        .base_asset = ledger_find_asset(&self->ledger, zx_load_u32(leaf + 8)),
        .quote_asset = ledger_find_asset(&self->ledger, zx_load_u32(leaf + 12)),
        .maker_fee_ppm = (int32_t)zx_load_u32(leaf + 36),
        .taker_fee_ppm = zx_load_u32(leaf + 40),
    };
    memcpy(definition.symbol, leaf + 132, ENGINE_SYMBOL_BYTES);
    if (index == self->market_count) {
        if (definitions_market_refusal(self, &definition) != ZX_REASON_NONE) return "a market is not defined";
        definitions_add_market(self, &definition, state);
    }
    engine_market *const market = &self->markets[index];
    if (!definitions_sizes_are_sound(
            self->ledger.asset_decimals[market->base_asset], self->ledger.asset_decimals[market->quote_asset],
            definition.base_units_per_lot, definition.quote_units_per_tick_lot
        )) {
        return "a market's sizes are wrong";
    }
    definitions_set_sizes(market, definition.base_units_per_lot, definition.quote_units_per_tick_lot);
    market->state = state;
    market->last_ticks = (int64_t)zx_load_u64(leaf + 44);
    market->reference_ticks = (int64_t)zx_load_u64(leaf + 52);
    market->until_ns = zx_load_u64(leaf + 60);
    market->auction_ticks = (int64_t)zx_load_u64(leaf + 68);
    market->notional_max = zx_load_u64(leaf + 76);
    market->qty_lots_max = zx_load_u64(leaf + 84);
    market->interruption_ns = zx_load_u64(leaf + 92);
    market->next_state = zx_load_u32(leaf + 100);
    market->orders_max = zx_load_u32(leaf + 104);
    market->dynamic_band_ppm = zx_load_u32(leaf + 108);
    market->static_band_ppm = zx_load_u32(leaf + 112);
    market->sizes_no = zx_load_u32(leaf + 116);
    market->called_off = zx_load_u32(leaf + 120);
    self->market_defined[index] = zx_load_u64(leaf + 124);
    /* All else of a market of the genesis file is as it says there; the comparison at the end covers it. */
    return NULL;
}

static const char *read_asset(engine *self, uint32_t index, const uint8_t *leaf, size_t length) {
    if (!is_leaf(leaf, length, "ZXS1", STATE_ASSET_BYTES)) return "an asset is malformed";
    if (index == self->ledger.asset_count) {
        engine_asset_config asset = {.asset_id = zx_load_u32(leaf + 4), .decimals = zx_load_u32(leaf + 16)};
        memcpy(asset.symbol, leaf + 24, ENGINE_SYMBOL_BYTES);
        if (definitions_asset_refusal(self, &asset) != ZX_REASON_NONE) return "an asset is not defined";
        definitions_add_asset(self, &asset);
    }
    self->ledger.supplies[index] = zx_load_u64(leaf + 8);
    return NULL;
}

/* While a restored order is in no queue yet, its links hold what the queue will tell: price (of a waiting order the
 * trigger price), market and side. */
static void park_order(book_order *order, uint64_t price_ticks, uint32_t market, uint8_t side) {
    order->next = (uint32_t)(price_ticks & UINT32_MAX);
    order->prev = (uint32_t)(price_ticks >> 32);
    order->owner_next = market;
    order->owner_prev = side;
}

static int64_t parked_price(const book_order *order) {
    return (int64_t)((uint64_t)order->prev << 32 | order->next);
}

/* The id of the order's pair is kept in these two fields until all orders are there. */
static void park_pair(engine_terms *terms, uint64_t pair_id) {
    terms->list_next = (uint32_t)(pair_id & UINT32_MAX);
    terms->list_prev = (uint32_t)(pair_id >> 32);
}

static uint64_t parked_pair(const engine_terms *terms) {
    return (uint64_t)terms->list_prev << 32 | terms->list_next;
}

/* The terms of an order that is parked. What is not canonical is found by the comparison at the end. */
static const char *read_terms(engine *self, uint32_t slot, const uint8_t *at) {
    book_order *const order = &self->pool.orders[slot];
    const uint64_t display_lots = zx_load_u64(at);
    const uint64_t expire_time_ns = zx_load_u64(at + 16);
    const uint64_t trigger_ticks = zx_load_u64(at + 24);
    const uint64_t trail_ticks = zx_load_u64(at + 32);
    const uint64_t best_ticks = zx_load_u64(at + 40);
    const uint64_t pair_id = zx_load_u64(at + 48);
    const uint8_t *const small = at + 60;
    const uint64_t ticks_max = (uint64_t)ZX_TICKS_MAX;
    if (trigger_ticks > ticks_max || trail_ticks > ticks_max || best_ticks > ticks_max) {
        return "an order's trigger is out of range";
    }
    if (small[3] > ZX_TRIGGER_MAX || small[4] > 1 || small[5] > 1 || small[6] > 1) return "an order's terms are unknown";
    const bool is_for_auction = trading_is_for_auction(small[1]);
    const bool has_trigger = small[3] != ZX_TRIGGER_NONE;
    if (is_for_auction ? has_trigger : small[6] != 0) return "an order waits for what it is not for";
    const bool is_waiting = has_trigger || small[6] != 0;
    self->pool.terms[slot] = (book_terms){
        .display_lots = display_lots,
        .shown_lots = zx_load_u64(at + 8),
        .expire_time_ns = expire_time_ns,
    };
    self->terms[slot] = (engine_terms){
        .price_ticks = parked_price(order),
        .trail_ticks = (int64_t)trail_ticks,
        .best_ticks = (int64_t)best_ticks,
        .market = order->owner_next,
        .trail_ppm = zx_load_u32(at + 56),
        .side = (uint8_t)order->owner_prev,
        .order_type = small[0],
        .time_in_force = small[1],
        .self_trade_prevention = small[2],
        .trigger = small[3],
        .is_hidden = small[4],
        .on_reference = small[5],
        .is_iceberg = display_lots != 0,
    };
    park_pair(&self->terms[slot], pair_id);
    if (is_waiting) {
        book_set_flags(order, ORDER_WAITING);
        park_order(order, trigger_ticks, order->owner_next, (uint8_t)order->owner_prev);
    } else {
        if (display_lots != 0) book_set_flags(order, BOOK_ICEBERG);
        if (small[4]) book_set_flags(order, BOOK_HIDDEN);
    }
    if (expire_time_ns != 0) book_set_flags(order, BOOK_TIMED);
    if (pair_id != 0) book_set_flags(order, ORDER_PAIRED);
    if (is_for_auction) book_set_flags(order, ORDER_AUCTION);
    return NULL;
}

static const char *read_order(engine *self, uint32_t index, const uint8_t *leaf, size_t length) {
    if (is_leaf(leaf, length, NO_ENTRY, TAG_BYTES)) return NULL;
    const bool is_plain = is_leaf(leaf, length, "ZXO1", STATE_ORDER_BYTES);
    if (!is_plain && !is_leaf(leaf, length, "ZXO2", STATE_ORDER_BYTES + STATE_TERMS_BYTES)) {
        return "an order is malformed";
    }
    const uint64_t owner = zx_load_u64(leaf + 20);
    const uint64_t price_ticks = zx_load_u64(leaf + 36);
    const uint64_t qty_lots = zx_load_u64(leaf + 44);
    const uint64_t leaves_lots = zx_load_u64(leaf + 52);
    const engine_market *const market = engine_find_market(self, zx_load_u32(leaf + 60));
    const uint32_t side = zx_load_u32(leaf + 64);
    if (owner == ENGINE_OPERATOR_ACCOUNT || !ledger_is_open(&self->ledger, owner)) {
        return "an order belongs to no trader";
    }
    if (market == NULL) return "an order is of an unknown market";
    if (side != ZX_SIDE_BUY && side != ZX_SIDE_SELL) return "an order has no side";
    if (price_ticks < 1 || price_ticks > (uint64_t)ZX_TICKS_MAX) return "an order's price is out of range";
    if (qty_lots > ZX_LOTS_MAX || leaves_lots < 1 || leaves_lots > qty_lots) {
        return "an order's quantities are out of range";
    }
    book_take_slot(&self->pool, index);
    book_order *const order = &self->pool.orders[index];
    order->order_id = zx_load_u64(leaf + 4);
    order->client_order_id = zx_load_u64(leaf + 12);
    book_set_owner(order, (uint32_t)owner);
    order->priority_no = zx_load_u64(leaf + 28);
    order->qty_lots = qty_lots;
    order->leaves_lots = leaves_lots;
    park_order(
        order, price_ticks, (uint32_t)(market - self->markets), side == ZX_SIDE_BUY ? BOOK_BUY : BOOK_SELL
    );
    return is_plain ? NULL : read_terms(self, index, leaf + STATE_ORDER_BYTES);
}

/* Whether a command can be answered with this reason. */
static bool is_answer(uint16_t reason) {
    return reason == ZX_REASON_NONE ||
           (reason >= ZX_REASON_UNKNOWN_MARKET && reason <= ZX_REASON_UNKNOWN_ORDER) ||
           (reason >= ZX_REASON_CANCELLED_BY_USER && reason <= ZX_REASON_PRICE_BAND) ||
           (reason >= ZX_REASON_SLIDE_WITHOUT_POST_ONLY && reason <= ZX_REASON_BATCH_TOO_LARGE) ||
           reason == ZX_REASON_SIZES_CHANGED ||
           (reason >= ZX_REASON_UNKNOWN_ACCOUNT && reason <= ZX_REASON_MARKET_NOT_EMPTY);
}

static const char *read_outcome(engine *self, uint32_t index, const uint8_t *leaf, size_t length) {
    if (!is_leaf(leaf, length, "ZXR1", STATE_OUTCOME_BYTES)) return "an outcome is malformed";
    self->outcomes[index] = (engine_outcome){
        .key_index = zx_load_u32(leaf + 4),
        .nonce = zx_load_u64(leaf + 8),
        .seq = zx_load_u64(leaf + 16),
        .record_no = zx_load_u64(leaf + 24),
        .report_seq = zx_load_u64(leaf + 32),
        .order_id = zx_load_u64(leaf + 40),
        .client_order_id = zx_load_u64(leaf + 48),
        .leaves_lots = zx_load_u64(leaf + 56),
        .cum_qty_lots = zx_load_u64(leaf + 64),
        .market_id = zx_load_u32(leaf + 72),
        .reason = zx_load_u16(leaf + 76),
        .exec_type = leaf[78],
        .command_index = leaf[79],
    };
    const engine_outcome *const outcome = &self->outcomes[index];
    if (outcome->key_index >= self->ledger.key_count) return "an outcome is of an unknown key";
    if (outcome->exec_type == ZX_EXEC_TYPE_NONE || outcome->exec_type > ZX_EXEC_TYPE_MAX ||
        !is_answer(outcome->reason)) {
        return "an outcome is no answer";
    }
    return NULL;
}

/* Sorts slots by a number of their orders: heap sort, in place, no recursion, no worst case. */
typedef uint64_t (*slot_number)(const book_order *order);

static uint64_t number_of_order(const book_order *order) {
    return order->order_id;
}

static uint64_t number_of_priority(const book_order *order) {
    return order->priority_no;
}

static void sift_down(const engine *self, uint32_t at, uint32_t count, slot_number number) {
    uint32_t *const heap = self->work;
    const book_order *const orders = self->pool.orders;
    for (uint32_t child = at * 2 + 1; child < count; child = at * 2 + 1) {
        if (child + 1 < count && number(&orders[heap[child]]) < number(&orders[heap[child + 1]])) child++;
        if (number(&orders[heap[at]]) >= number(&orders[heap[child]])) return;
        const uint32_t moved = heap[at];
        heap[at] = heap[child];
        heap[child] = moved;
        at = child;
    }
}

static uint32_t sort_slots(const engine *self, slot_number number) {
    uint32_t count = 0;
    uint32_t slot = slots_next_taken(&self->pool.taken, 0);
    for (; slot != ZX_NONE; slot = slots_next_taken(&self->pool.taken, slot + 1)) self->work[count++] = slot;
    for (uint32_t at = count / 2; at-- > 0;) sift_down(self, at, count, number);
    for (uint32_t last = count; last-- > 1;) {
        const uint32_t moved = self->work[0];
        self->work[0] = self->work[last];
        self->work[last] = moved;
        sift_down(self, 0, last, number);
    }
    return count;
}

/* Finds the other of each pair by its id. */
static const char *rebuild_pairs(engine *self, uint32_t count) {
    for (uint32_t at = 0; at < count; at++) {
        const uint32_t slot = self->work[at];
        if (!(self->pool.orders[slot].flags & ORDER_PAIRED)) continue;
        self->terms[slot].pair = engine_find_order(self, parked_pair(&self->terms[slot]));
        if (self->terms[slot].pair == ZX_NONE) return "the other of a pair is missing";
    }
    return NULL;
}

static bool is_auction_order(const book_order *order) {
    return (order->flags & (ORDER_AUCTION | ORDER_WAITING)) == ORDER_AUCTION;
}

/* Lists the orders for auctions that rest, lowest priority_no first. */
static void rebuild_auction_orders(engine *self) {
    const uint32_t count = sort_slots(self, number_of_priority);
    for (uint32_t at = 0; at < count; at++) {
        if (is_auction_order(&self->pool.orders[self->work[at]])) markets_add_auction_order(self, self->work[at]);
    }
}

/* Puts the parked orders into their queues, lowest priority_no first, and then into the lists of their owners and of
 * what they wait for, oldest id first. */
static const char *rebuild_queues(engine *self) {
    uint32_t count = sort_slots(self, number_of_priority);
    for (uint32_t at = 0; at < count; at++) {
        const uint32_t slot = self->work[at];
        const book_order *const order = &self->pool.orders[slot];
        const int64_t price_ticks = parked_price(order);
        if (trading_awaits_auction(order)) {
            if (!markets_restore_waiting(self, slot)) return "too much waits for one auction";
        } else if (order->flags & ORDER_WAITING) {
            if (!triggers_restore(self, slot, price_ticks)) return "too much waits for one price";
        } else if (!book_restore(
                       &self->markets[order->owner_next].book, slot, (uint8_t)order->owner_prev, price_ticks
                   )) {
            return "a level's total does not fit in 64 bits";
        }
    }
    count = sort_slots(self, number_of_order);
    for (uint32_t at = 0; at < count; at++) {
        const uint32_t slot = self->work[at];
        const book_order *const order = &self->pool.orders[slot];
        if (engine_find_order(self, order->order_id) != ZX_NONE) return "an order id is there twice";
        if (order->client_order_id != 0 &&
            engine_find_client_order(self, order->owner, order->client_order_id) != ZX_NONE) {
            return "a client order id is there twice";
        }
        trading_register(self, slot);
        if (order->flags & BOOK_TIMED) triggers_add_expiry(self, slot);
    }
    const char *const broken = rebuild_pairs(self, count);
    if (broken != NULL) return broken;
    bool has_auction_orders = false;
    for (uint32_t at = 0; at < count; at++) {
        const uint32_t slot = self->work[at];
        const book_order *const order = &self->pool.orders[slot];
        if (trading_has_trigger(order) && self->terms[slot].trigger == ZX_TRIGGER_TRAILING) {
            triggers_restore_trailing(self, slot);
        }
        has_auction_orders = has_auction_orders || is_auction_order(order);
    }
    if (has_auction_orders) rebuild_auction_orders(self);
    markets_restore(self);
    return NULL;
}

static void rebuild_cache(engine *self) {
    for (uint64_t ordinal = self->outcomes_head - self->outcomes_count; ordinal < self->outcomes_head;
         ordinal++) {
        const uint32_t position = engine_outcome_position(self, ordinal);
        if (self->outcomes[position].command_index == 0) engine_cache_batch(self, position);
    }
}

typedef const char *(*leaf_reader)(engine *self, uint32_t index, const uint8_t *leaf, size_t length);

static const leaf_reader leaf_readers[TREE_COUNT] = {
    [TREE_META] = read_meta,        [TREE_ACCOUNTS] = read_account, [TREE_KEYS] = read_key,
    [TREE_MARKETS] = read_market,   [TREE_ASSETS] = read_asset,     [TREE_ORDERS] = read_order,
    [TREE_OUTCOMES] = read_outcome,
};

/* Balances name assets that were added, and so stand before them in the snapshot. */
static const enum engine_tree reading_order[TREE_COUNT] = {
    TREE_META, TREE_ASSETS, TREE_ACCOUNTS, TREE_KEYS, TREE_MARKETS, TREE_ORDERS, TREE_OUTCOMES,
};

/* Reads the counts and compares them with what this shard can hold. */
static const char *read_counts(
    const engine *self, const uint8_t *snapshot, size_t length, uint32_t counts[TREE_COUNT]
) {
    if (length < STATE_SNAPSHOT_HEAD_BYTES || memcmp(snapshot, "ZXP1", TAG_BYTES) != 0) {
        return "it is no engine snapshot";
    }
    if (zx_load_u32(snapshot + TAG_BYTES) != SNAPSHOT_VERSION) return "its version is unknown";
    const uint32_t counts_max[TREE_COUNT] = {
        [TREE_META] = 1,
        [TREE_ACCOUNTS] = self->ledger.limits.accounts,
        [TREE_KEYS] = self->ledger.limits.keys,
        [TREE_MARKETS] = self->markets_max,
        [TREE_ASSETS] = self->ledger.limits.assets,
        [TREE_ORDERS] = self->pool.taken.capacity,
        [TREE_OUTCOMES] = self->outcomes_max,
    };
    for (uint32_t tree = 0; tree < TREE_COUNT; tree++) {
        const uint64_t count = zx_load_u64(snapshot + 8 + (size_t)tree * sizeof(uint64_t));
        if (count > counts_max[tree]) return "it holds more than this shard can";
        counts[tree] = (uint32_t)count;
    }
    const bool is_complete = counts[TREE_META] == 1 && counts[TREE_ACCOUNTS] >= 1 && counts[TREE_KEYS] >= 1 &&
                             counts[TREE_MARKETS] >= self->market_count &&
                             counts[TREE_ASSETS] >= self->ledger.asset_count;
    return is_complete ? NULL : "entries are missing";
}

/* Whether the engine would write this snapshot. */
static bool is_canonical(const engine *self, const uint8_t *snapshot, size_t length) {
    if (length != state_snapshot_size(self)) return false;
    uint32_t counts[TREE_COUNT];
    leaf_counts(self, counts);
    uint8_t head[STATE_SNAPSHOT_HEAD_BYTES];
    write_head(counts, head);
    if (memcmp(snapshot, head, sizeof head) != 0) return false;
    reader from = {.at = snapshot + sizeof head, .end = snapshot + length};
    for (uint32_t tree = 0; tree < TREE_COUNT; tree++) {
        for (uint32_t index = 0; index < counts[tree]; index++) {
            size_t stated;
            const uint8_t *const leaf = next_leaf(&from, &stated);
            const size_t written = leaf_writers[tree](self, index, self->scratch);
            if (leaf == NULL || stated != written || memcmp(leaf, self->scratch, written) != 0) return false;
        }
    }
    return true;
}

int state_restore(engine *self, const uint8_t *snapshot, size_t length, const char **why) {
    uint32_t counts[TREE_COUNT];
    *why = read_counts(self, snapshot, length, counts);
    if (*why != NULL) return ZX_ERROR_SNAPSHOT;
    reader from = {.at = snapshot + STATE_SNAPSHOT_HEAD_BYTES, .end = snapshot + length};
    reader starts[TREE_COUNT];
    for (uint32_t tree = 0; tree < TREE_COUNT; tree++) {
        starts[tree] = from;
        for (uint32_t index = 0; index < counts[tree]; index++) {
            size_t leaf_length;
            if (next_leaf(&from, &leaf_length) == NULL) {
                *why = "it is truncated";
                return ZX_ERROR_SNAPSHOT;
            }
        }
    }
    for (uint32_t number = 0; number < TREE_COUNT; number++) {
        const enum engine_tree tree = reading_order[number];
        for (uint32_t index = 0; index < counts[tree]; index++) {
            size_t leaf_length = 0;
            const uint8_t *const leaf = next_leaf(&starts[tree], &leaf_length);
            *why = leaf_readers[tree](self, index, leaf, leaf_length);
            if (*why != NULL) return ZX_ERROR_SNAPSHOT;
        }
    }
    const uint64_t written =
        self->outcomes_head < self->outcomes_max ? self->outcomes_head : self->outcomes_max;
    if (from.at != from.end) *why = "bytes follow its last entry";
    else if (counts[TREE_OUTCOMES] != written) *why = "outcomes are missing";
    else *why = rebuild_queues(self);
    if (*why != NULL) return ZX_ERROR_SNAPSHOT;
    rebuild_cache(self);
    *why = engine_check(self);
    if (*why == NULL && !is_canonical(self, snapshot, length)) {
        *why = "it is not what an engine in this state writes";
    }
    return *why == NULL ? ZX_OK : ZX_ERROR_SNAPSHOT;
}
