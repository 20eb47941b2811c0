/* orders.c: commands of traders (docs/rules.md sections 1, 5 and 6). */

#include "reports.h"

/* An order while it is not in its queue: on its way in, or amended and trading again. */
typedef struct taker {
    engine *engine;
    engine_market *market;
    order_face face;       /* as reported; leaves and filled quantity move with each fill */
    uint64_t hold_per_lot; /* of the order's own limit */
    uint32_t account;
    uint32_t hold_balance; /* where the hold is: quote if it buys, base if it sells */
    uint32_t gain_balance; /* where the proceeds go */
    uint8_t side;          /* enum book_side_index */
} taker;

static uint8_t wire_side(uint8_t side) {
    return side == BOOK_BUY ? ZX_SIDE_BUY : ZX_SIDE_SELL;
}

/* ------------------------------------------------------------ amounts */

/* ceil(amount * ppm / 1,000,000) without leaving 64 bits: `amount` is at most 2^63-1 and `ppm` at most 1,000,000. */
static uint64_t ppm_of(uint64_t amount, uint32_t ppm) {
    const uint64_t millions = amount / 1000000;
    const uint64_t rest = amount % 1000000;
    return millions * ppm + (rest * ppm + 999999) / 1000000;
}

/* What a buy order holds per lot; UINT64_MAX if it is above 63 bits. */
static uint64_t unit_hold(const engine_market *market, int64_t price_ticks) {
    const uint64_t lot_value = zx_mul_amount((uint64_t)price_ticks, market->quote_units_per_tick_lot);
    if (lot_value == UINT64_MAX) return UINT64_MAX;
    const uint64_t hold = lot_value + ppm_of(lot_value, market->worst_fee_ppm);
    return hold > ZX_AMOUNT_MAX ? UINT64_MAX : hold;
}

static uint64_t hold_per_lot(const engine_market *market, uint8_t side, int64_t price_ticks) {
    return side == BOOK_BUY ? unit_hold(market, price_ticks) : market->base_units_per_lot;
}

uint64_t orders_hold_for(const engine_market *market, uint8_t side, int64_t price_ticks, uint64_t qty_lots) {
    const uint64_t per_lot = hold_per_lot(market, side, price_ticks);
    if (per_lot == UINT64_MAX) return UINT64_MAX;
    if (side == BOOK_SELL) {
        const uint64_t lot_value = zx_mul_amount((uint64_t)price_ticks, market->quote_units_per_tick_lot);
        if (lot_value == UINT64_MAX || zx_mul_amount(lot_value, qty_lots) == UINT64_MAX) return UINT64_MAX;
    }
    return zx_mul_amount(per_lot, qty_lots);
}

uint64_t orders_hold_of(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    const engine_market *const market = &self->markets[book_market_of(&self->pool, order)];
    const uint64_t per_lot =
        hold_per_lot(market, book_side_of(&self->pool, order), book_price_of(&self->pool, order));
    return per_lot == UINT64_MAX ? UINT64_MAX : zx_mul_amount(per_lot, order->leaves_lots);
}

static uint32_t hold_asset(const engine_market *market, uint8_t side) {
    return side == BOOK_BUY ? market->quote_asset : market->base_asset;
}

static uint32_t gain_asset(const engine_market *market, uint8_t side) {
    return side == BOOK_BUY ? market->base_asset : market->quote_asset;
}

/* ------------------------------------------------------------ orders and owners */

/* Eight ids in a row are neighbours in the map: orders made one after the other share a cache line and, what costs
 * more on a virtual machine, a page. We number the orders ourselves, so nobody can choose ids that crowd. */
static uint64_t hash_order(const engine *self, uint64_t order_id) {
    return idmap_hash(self->hash_seed, order_id / 8, 1) << 3 | order_id % 8;
}

static uint64_t hash_client_order(const engine *self, uint32_t account_id, uint64_t client_order_id) {
    return idmap_hash(self->hash_seed, client_order_id, account_id);
}

uint32_t engine_find_order(const engine *self, uint64_t order_id) {
    idmap_cursor cursor;
    uint32_t slot = idmap_first(&self->order_map, hash_order(self, order_id), &cursor);
    while (slot != ZX_NONE && self->pool.orders[slot].order_id != order_id) {
        slot = idmap_next(&self->order_map, &cursor);
    }
    return slot;
}

uint32_t engine_find_client_order(const engine *self, uint32_t account_id, uint64_t client_order_id) {
    idmap_cursor cursor;
    uint32_t slot =
        idmap_first(&self->client_order_map, hash_client_order(self, account_id, client_order_id), &cursor);
    while (slot != ZX_NONE && (self->pool.orders[slot].client_order_id != client_order_id ||
                               self->pool.orders[slot].owner != account_id)) {
        slot = idmap_next(&self->client_order_map, &cursor);
    }
    return slot;
}

void orders_register(engine *self, uint32_t slot) {
    book_order *const order = &self->pool.orders[slot];
    ledger_account *const account = &self->ledger.accounts[order->owner];
    idmap_insert(&self->order_map, hash_order(self, order->order_id), slot);
    if (order->client_order_id != 0) {
        idmap_insert(
            &self->client_order_map, hash_client_order(self, order->owner, order->client_order_id), slot
        );
    }
    /* Order ids only grow, so the end of the list keeps it sorted. */
    order->owner_next = ZX_NONE;
    order->owner_prev = account->order_tail;
    if (account->order_tail != ZX_NONE) {
        ZX_ASSERT(self->pool.orders[account->order_tail].order_id < order->order_id);
        self->pool.orders[account->order_tail].owner_next = slot;
    } else {
        account->order_head = slot;
    }
    account->order_tail = slot;
    account->order_count++;
    lanes_add(
        &self->lanes, slot, order->owner, book_market_of(&self->pool, order), book_side_of(&self->pool, order)
    );
}

/* Takes an order that is over out of the maps and of its owner's list and lanes. Its slot is freed by the caller. */
static void unregister(engine *self, uint32_t slot) {
    book_order *const order = &self->pool.orders[slot];
    ledger_account *const account = &self->ledger.accounts[order->owner];
    idmap_remove(&self->order_map, hash_order(self, order->order_id), slot);
    if (order->client_order_id != 0) {
        idmap_remove(
            &self->client_order_map, hash_client_order(self, order->owner, order->client_order_id), slot
        );
    }
    if (order->owner_prev != ZX_NONE) self->pool.orders[order->owner_prev].owner_next = order->owner_next;
    else account->order_head = order->owner_next;
    if (order->owner_next != ZX_NONE) self->pool.orders[order->owner_next].owner_prev = order->owner_prev;
    else account->order_tail = order->owner_prev;
    account->order_count--;
    lanes_remove(&self->lanes, slot);
    touch(self, TREE_ORDERS, slot);
}

static order_face face_of(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    const book_level *const level = &self->pool.levels[order->level];
    return (order_face){
        .order_id = order->order_id,
        .client_order_id = order->client_order_id,
        .price_ticks = book_level_price(level),
        .qty_lots = order->qty_lots,
        .leaves_lots = order->leaves_lots,
        .cum_qty_lots = order->qty_lots - order->leaves_lots,
        .market_id = self->markets[level->market].market_id,
        .side = wire_side(level->side),
    };
}

/* ------------------------------------------------------------ trading */

static uint32_t must_find_balance(const engine *self, uint32_t account, uint32_t asset) {
    const uint32_t balance = ledger_find_balance(&self->ledger, account, asset);
    ZX_ASSERT(balance != ZX_NONE); /* made when the order was accepted */
    return balance;
}

static void report_trade(
    engine *self, uint32_t account, const order_face *order, int64_t price_ticks, uint64_t qty_lots,
    uint64_t fee, uint8_t liquidity
) {
    struct zx_execution_report *const report = report_to(self, account, ZX_EXEC_TYPE_TRADE);
    report_order(report, order);
    report->last_price_ticks = price_ticks;
    report->last_qty_lots = qty_lots;
    report->fee = fee;
    report->trade_id = self->next_trade_id;
    report->liquidity = liquidity;
}

/* One fill: moves the money and reports it to both. The book has reduced the maker's leaves already. */
static void on_fill(void *context, uint32_t maker_slot, int64_t price_ticks, uint64_t qty_lots) {
    taker *const order = context;
    engine *const self = order->engine;
    const engine_market *const market = order->market;
    const uint32_t maker = self->pool.orders[maker_slot].owner;
    const uint8_t maker_side = order->side ^ 1;

    /* Bounded by the buyer's hold, so neither product leaves 63 bits. */
    const uint64_t value = (uint64_t)price_ticks * market->quote_units_per_tick_lot * qty_lots;
    const uint64_t base_units = qty_lots * market->base_units_per_lot;
    const uint64_t maker_fee = ppm_of(value, market->maker_fee_ppm);
    const uint64_t taker_fee = ppm_of(value, market->taker_fee_ppm);
    const uint32_t maker_hold = must_find_balance(self, maker, hold_asset(market, maker_side));
    const uint32_t maker_gain = must_find_balance(self, maker, gain_asset(market, maker_side));
    ledger *const money = &self->ledger;
    if (order->side == BOOK_BUY) {
        ledger_settle_hold(money, order->hold_balance, qty_lots * order->hold_per_lot, value + taker_fee);
        ledger_credit(money, order->gain_balance, base_units);
        ledger_settle_hold(money, maker_hold, base_units, base_units);
        ledger_credit(money, maker_gain, value - maker_fee);
    } else {
        ledger_settle_hold(money, order->hold_balance, base_units, base_units);
        ledger_credit(money, order->gain_balance, value - taker_fee);
        ledger_settle_hold(money, maker_hold, qty_lots * unit_hold(market, price_ticks), value + maker_fee);
        ledger_credit(money, maker_gain, base_units);
    }
    ledger_credit(money, market->fee_balance, maker_fee + taker_fee);
    touch(self, TREE_ACCOUNTS, ENGINE_OPERATOR_ACCOUNT);
    touch(self, TREE_ORDERS, maker_slot);

    const order_face maker_face = face_of(self, maker_slot);
    order->face.leaves_lots -= qty_lots;
    order->face.cum_qty_lots += qty_lots;
    report_trade(self, maker, &maker_face, price_ticks, qty_lots, maker_fee, ZX_LIQUIDITY_MAKER);
    report_trade(self, order->account, &order->face, price_ticks, qty_lots, taker_fee, ZX_LIQUIDITY_TAKER);
    self->next_trade_id++;
    if (maker_face.leaves_lots == 0) unregister(self, maker_slot);
}

/* Gives up what is left of an order that is in no queue. */
static void cancel_remainder(taker *order, uint8_t exec_type, int reason) {
    engine *const self = order->engine;
    ledger_settle_hold(&self->ledger, order->hold_balance, order->face.leaves_lots * order->hold_per_lot, 0);
    const uint64_t removed_lots = order->face.leaves_lots;
    order->face.leaves_lots = 0;
    struct zx_execution_report *const report = report_to(self, order->account, exec_type);
    report_order(report, &order->face);
    report->last_qty_lots = removed_lots;
    report->reason = (uint16_t)reason;
}

/* Trades the order as far as prices, owners and the limit of makers allow; ends a remainder that may not rest.
 * Returns with leaves above zero only if the remainder rests. */
static void trade(taker *order, bool may_rest) {
    book_incoming incoming = {
        .price_ticks = order->face.price_ticks,
        .leaves_lots = order->face.leaves_lots,
        .owner = order->account,
        .makers_max = ENGINE_MAKERS_MAX,
        .side = order->side,
    };
    const book_listener listener = {.on_fill = on_fill, .context = order};
    const enum book_match_end end = book_match(&order->market->book, &incoming, &listener);
    ZX_ASSERT(incoming.leaves_lots == order->face.leaves_lots);
    if (end == BOOK_OWN_ORDER) {
        cancel_remainder(order, ZX_EXEC_TYPE_SELF_TRADE_PREVENTED, ZX_REASON_SELF_TRADE);
    } else if (end == BOOK_MAKERS_USED) {
        cancel_remainder(order, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_MATCH_LIMIT);
    } else if (order->face.leaves_lots > 0 && !may_rest) {
        cancel_remainder(order, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_IMMEDIATE_REMAINDER);
    }
}

static void rest(taker *order, uint32_t slot) {
    engine *const self = order->engine;
    book_order *const resting = &self->pool.orders[slot];
    resting->qty_lots = order->face.qty_lots;
    resting->leaves_lots = order->face.leaves_lots;
    resting->priority_seq = self->command.seq;
    const bool rested = book_rest(&order->market->book, slot, order->side, order->face.price_ticks);
    ZX_ASSERT(rested); /* holds bound the lots of a level: each holds at least one unit */
    touch(self, TREE_ORDERS, slot);
}

/* ------------------------------------------------------------ new order */

static int market_closed_reason(const engine_market *market) {
    switch (market->state) {
    case ZX_MARKET_STATE_CONTINUOUS:
        return ZX_REASON_NONE;
    case ZX_MARKET_STATE_CLOSED:
        return ZX_REASON_MARKET_CLOSED;
    default:
        return ZX_REASON_MARKET_HALTED;
    }
}

static int apply_new(engine *self, const struct zx_command *command) {
    const uint32_t account = (uint32_t)self->command.account;
    const uint8_t side = command->side == ZX_SIDE_BUY ? BOOK_BUY : BOOK_SELL;
    const bool rests = command->time_in_force == ZX_TIME_IN_FORCE_GTC;
    const bool is_market_order = command->order_type == ZX_ORDER_TYPE_MARKET;
    const bool post_only = (command->options & ZX_ORDER_OPTIONS_POST_ONLY) != 0;

    engine_market *const market = engine_find_market(self, command->market_id);
    if (market == NULL) return ZX_REASON_UNKNOWN_MARKET;
    const int closed = market_closed_reason(market);
    if (closed != ZX_REASON_NONE) return closed;
    if (command->price_ticks < 1 || command->price_ticks > ZX_TICKS_MAX) {
        return ZX_REASON_PRICE_TICKS_OUT_OF_RANGE;
    }
    if (command->qty_lots < 1 || command->qty_lots > ZX_LOTS_MAX) {
        return ZX_REASON_QTY_LOTS_OUT_OF_RANGE;
    }
    if (is_market_order && rests) return ZX_REASON_MARKET_ORDER_CANNOT_REST;
    if (post_only && (is_market_order || !rests)) return ZX_REASON_POST_ONLY_MUST_REST;
    const uint64_t hold = orders_hold_for(market, side, command->price_ticks, command->qty_lots);
    if (hold == UINT64_MAX) return ZX_REASON_NOTIONAL_OVERFLOW;
    if (command->client_order_id != 0 &&
        engine_find_client_order(self, account, command->client_order_id) != ZX_NONE) {
        return ZX_REASON_CLIENT_ORDER_ID_IN_USE;
    }
    if (rests && self->pool.taken.count == self->pool.taken.capacity) {
        return ZX_REASON_ORDER_POOL_FULL;
    }
    const uint32_t hold_balance = ledger_find_balance(&self->ledger, account, hold_asset(market, side));
    if (hold_balance == ZX_NONE || self->ledger.balances[hold_balance].available < hold) {
        return ZX_REASON_INSUFFICIENT_FUNDS;
    }
    uint32_t gain_balance = ledger_find_balance(&self->ledger, account, gain_asset(market, side));
    if (gain_balance == ZX_NONE && ledger_balances_full(&self->ledger)) {
        return ZX_REASON_BALANCE_POOL_FULL;
    }
    if (post_only && book_crosses(&market->book, side, command->price_ticks)) {
        return ZX_REASON_POST_ONLY_WOULD_CROSS;
    }
    if (command->time_in_force == ZX_TIME_IN_FORCE_FOK) {
        const book_incoming wanted = {
            .price_ticks = command->price_ticks,
            .leaves_lots = command->qty_lots,
            .owner = account,
            .makers_max = ENGINE_MAKERS_MAX,
            .side = side,
        };
        if (!book_can_fill(&market->book, &wanted)) return ZX_REASON_FOK_NOT_FILLABLE;
    }

    /* Accepted. */
    if (gain_balance == ZX_NONE) {
        gain_balance = ledger_make_balance(&self->ledger, account, gain_asset(market, side));
    }
    ledger_hold(&self->ledger, hold_balance, hold);
    taker order = {
        .engine = self,
        .market = market,
        .face =
            {
                .order_id = self->command.seq,
                .client_order_id = command->client_order_id,
                .price_ticks = command->price_ticks,
                .qty_lots = command->qty_lots,
                .leaves_lots = command->qty_lots,
                .market_id = market->market_id,
                .side = command->side,
            },
        .hold_per_lot = hold_per_lot(market, side, command->price_ticks),
        .account = account,
        .hold_balance = hold_balance,
        .gain_balance = gain_balance,
        .side = side,
    };
    struct zx_execution_report *const report = report_to(self, account, ZX_EXEC_TYPE_NEW);
    report_order(report, &order.face);
    engine_outcome *const outcome = report_answer(self, report, order.face.order_id);
    trade(&order, rests);
    if (order.face.leaves_lots > 0) {
        const uint32_t slot = book_lowest_free_slot(&self->pool);
        ZX_ASSERT(slot != ZX_NONE);
        book_take_slot(&self->pool, slot);
        book_order *const resting = &self->pool.orders[slot];
        resting->order_id = order.face.order_id;
        resting->client_order_id = order.face.client_order_id;
        resting->owner = account;
        rest(&order, slot);
        orders_register(self, slot);
    }
    outcome->leaves_lots = order.face.leaves_lots;
    outcome->cum_qty_lots = order.face.cum_qty_lots;
    return ZX_REASON_NONE;
}

/* ------------------------------------------------------------------------------------------ cancel, amend,
 * cancel all */

/* Slot of the sender's open order that a cancel or amend names, or ZX_NONE. */
static uint32_t find_named_order(const engine *self, const struct zx_command *command) {
    const uint32_t account = (uint32_t)self->command.account;
    uint32_t slot = ZX_NONE;
    if (command->order_id != 0) slot = engine_find_order(self, command->order_id);
    else if (command->client_order_id != 0)
        slot = engine_find_client_order(self, account, command->client_order_id);
    if (slot == ZX_NONE) return ZX_NONE;
    const book_order *const order = &self->pool.orders[slot];
    if (order->owner != account) return ZX_NONE;
    if (command->client_order_id != 0 && order->client_order_id != command->client_order_id) return ZX_NONE;
    if (command->market_id != 0 &&
        self->markets[book_market_of(&self->pool, order)].market_id != command->market_id) {
        return ZX_NONE;
    }
    return slot;
}

/* Cancels a resting order and releases its hold. Returns the report. */
static struct zx_execution_report *cancel_resting(engine *self, uint32_t slot, int reason) {
    const book_order *const order = &self->pool.orders[slot];
    engine_market *const market = &self->markets[book_market_of(&self->pool, order)];
    const uint32_t account = order->owner;
    const uint32_t balance =
        must_find_balance(self, account, hold_asset(market, book_side_of(&self->pool, order)));
    ledger_settle_hold(&self->ledger, balance, orders_hold_of(self, slot), 0);
    order_face face = face_of(self, slot);
    const uint64_t removed_lots = face.leaves_lots;
    face.leaves_lots = 0;
    unregister(self, slot);
    book_remove(&market->book, slot);
    struct zx_execution_report *const report = report_to(self, account, ZX_EXEC_TYPE_CANCELLED);
    report_order(report, &face);
    report->last_qty_lots = removed_lots;
    report->reason = (uint16_t)reason;
    return report;
}

static int apply_cancel(engine *self, const struct zx_command *command) {
    const uint32_t slot = find_named_order(self, command);
    if (slot == ZX_NONE) return ZX_REASON_UNKNOWN_ORDER;
    const struct zx_execution_report *const report = cancel_resting(self, slot, ZX_REASON_CANCELLED_BY_USER);
    report_answer(self, report, report->order_id);
    return ZX_REASON_NONE;
}

static int apply_amend(engine *self, const struct zx_command *command) {
    const uint32_t slot = find_named_order(self, command);
    if (slot == ZX_NONE) return ZX_REASON_UNKNOWN_ORDER;
    const book_order *const resting = &self->pool.orders[slot];
    engine_market *const market = &self->markets[book_market_of(&self->pool, resting)];
    const uint8_t side = book_side_of(&self->pool, resting);
    const int closed = market_closed_reason(market);
    if (closed != ZX_REASON_NONE) return closed;
    if (command->price_ticks < 0 || command->price_ticks > ZX_TICKS_MAX) {
        return ZX_REASON_PRICE_TICKS_OUT_OF_RANGE;
    }
    if (command->qty_lots > ZX_LOTS_MAX) return ZX_REASON_QTY_LOTS_OUT_OF_RANGE;

    order_face face = face_of(self, slot);
    const int64_t price_ticks = command->price_ticks != 0 ? command->price_ticks : face.price_ticks;
    const uint64_t qty_lots = command->qty_lots != 0 ? command->qty_lots : face.qty_lots;
    if (qty_lots <= face.cum_qty_lots) {
        const struct zx_execution_report *const report =
            cancel_resting(self, slot, ZX_REASON_AMENDED_BELOW_FILLED);
        report_answer(self, report, report->order_id);
        return ZX_REASON_NONE;
    }
    const uint64_t leaves_lots = qty_lots - face.cum_qty_lots;
    const uint64_t hold_before = orders_hold_of(self, slot);
    const uint64_t hold = orders_hold_for(market, side, price_ticks, leaves_lots);
    if (hold == UINT64_MAX) return ZX_REASON_NOTIONAL_OVERFLOW;
    const uint32_t hold_balance = must_find_balance(self, resting->owner, hold_asset(market, side));
    if (hold > hold_before && hold - hold_before > self->ledger.balances[hold_balance].available) {
        return ZX_REASON_INSUFFICIENT_FUNDS;
    }
    const bool keeps_place = price_ticks == face.price_ticks && qty_lots <= face.qty_lots;
    const bool post_only = (command->options & ZX_ORDER_OPTIONS_POST_ONLY) != 0;
    if (post_only && !keeps_place && book_crosses(&market->book, side, price_ticks)) {
        return ZX_REASON_POST_ONLY_WOULD_CROSS;
    }

    /* Accepted. */
    if (keeps_place) book_reduce(&market->book, slot, qty_lots);
    else book_unlink(&market->book, slot);
    if (hold > hold_before) ledger_hold(&self->ledger, hold_balance, hold - hold_before);
    else ledger_settle_hold(&self->ledger, hold_balance, hold_before - hold, 0);
    face.price_ticks = price_ticks;
    face.qty_lots = qty_lots;
    face.leaves_lots = leaves_lots;
    touch(self, TREE_ORDERS, slot);
    struct zx_execution_report *const report = report_to(self, resting->owner, ZX_EXEC_TYPE_REPLACED);
    report_order(report, &face);
    engine_outcome *const outcome = report_answer(self, report, face.order_id);
    if (keeps_place) return ZX_REASON_NONE;

    taker order = {
        .engine = self,
        .market = market,
        .face = face,
        .hold_per_lot = hold_per_lot(market, side, price_ticks),
        .account = resting->owner,
        .hold_balance = hold_balance,
        .gain_balance = must_find_balance(self, resting->owner, gain_asset(market, side)),
        .side = side,
    };
    trade(&order, true);
    if (order.face.leaves_lots > 0) {
        rest(&order, slot);
    } else {
        unregister(self, slot);
        book_free_slot(&self->pool, slot);
    }
    outcome->leaves_lots = order.face.leaves_lots;
    outcome->cum_qty_lots = order.face.cum_qty_lots;
    return ZX_REASON_NONE;
}

/* Goes through lanes, so that it looks at no order but those it cancels: else an account with a million orders
 * could stop the shard for seconds with commands that cancel nothing. */
static int apply_cancel_all(engine *self, const struct zx_command *command) {
    const uint32_t account = (uint32_t)self->command.account;
    uint32_t market = LANES_EVERY_MARKET;
    if (command->market_id != 0) {
        const engine_market *const named = engine_find_market(self, command->market_id);
        if (named == NULL) return ZX_REASON_UNKNOWN_MARKET;
        market = (uint32_t)(named - self->markets);
    }
    uint64_t matching = 0;
    uint32_t next[2] = {ZX_NONE, ZX_NONE}; /* oldest order of each side that is still to be cancelled */
    for (uint8_t side = 0; side < 2; side++) {
        if (command->side != ZX_SIDE_NONE && command->side != wire_side(side)) continue;
        const lane *const matches = lanes_find(&self->lanes, account, market, side);
        if (matches == NULL) continue;
        next[side] = matches->head;
        matching += matches->count;
    }
    uint64_t cancelled = 0;
    for (; cancelled < matching && cancelled < ENGINE_MAKERS_MAX; cancelled++) {
        const book_order *const orders = self->pool.orders;
        const bool sell_is_next =
            next[BOOK_BUY] == ZX_NONE ||
            (next[BOOK_SELL] != ZX_NONE &&
             orders[next[BOOK_SELL]].order_id < orders[next[BOOK_BUY]].order_id);
        const uint8_t side = sell_is_next ? BOOK_SELL : BOOK_BUY;
        const uint32_t slot = next[side];
        next[side] = lanes_next(&self->lanes, slot, market);
        cancel_resting(self, slot, ZX_REASON_MASS_CANCEL);
    }
    struct zx_execution_report *const report = report_to(self, account, ZX_EXEC_TYPE_MASS_CANCELLED);
    report->market_id = command->market_id;
    report->side = command->side;
    report->qty_lots = cancelled;
    report->leaves_lots = matching - cancelled;
    report_answer(self, report, 0);
    return ZX_REASON_NONE;
}

/* Applies and answers a command, or returns the reason for refusing it and has changed nothing. */
static int apply(engine *self, const struct zx_command *command) {
    switch (command->kind) {
    case ZX_COMMAND_KIND_NEW:
        return apply_new(self, command);
    case ZX_COMMAND_KIND_CANCEL:
        return apply_cancel(self, command);
    case ZX_COMMAND_KIND_AMEND:
        return apply_amend(self, command);
    default:
        return apply_cancel_all(self, command);
    }
}

void orders_apply(engine *self, const struct zx_command *command) {
    const int reason = apply(self, command);
    if (reason == ZX_REASON_NONE) return;
    struct zx_execution_report *const report =
        report_to(self, (uint32_t)self->command.account, ZX_EXEC_TYPE_REJECTED);
    report_rejected_command(report, command, reason);
    report_answer(self, report, command->order_id);
}
