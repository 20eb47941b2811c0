/* trading.c: matching, fills and the ends of orders (docs/rules.md sections 1, 5 and 6). */

#include "trading.h"

#include "markets.h"
#include "triggers.h"

/* ------------------------------------------------------------ amounts */

uint64_t trading_ppm_of(uint64_t amount, uint32_t ppm) {
    const uint64_t millions = amount / 1000000;
    const uint64_t rest = amount % 1000000;
    return millions * ppm + (rest * ppm + 999999) / 1000000;
}

/* What a buy order holds per lot; UINT64_MAX if it is above 63 bits. */
static uint64_t unit_hold(const engine_market *market, int64_t price_ticks) {
    const uint64_t lot_value = zx_mul_amount((uint64_t)price_ticks, market->quote_units_per_tick_lot);
    if (lot_value == UINT64_MAX) return UINT64_MAX;
    const uint64_t hold = lot_value + trading_ppm_of(lot_value, market->worst_fee_ppm);
    return hold > ZX_AMOUNT_MAX ? UINT64_MAX : hold;
}

uint64_t trading_hold_per_lot(const engine_market *market, uint8_t side, int64_t price_ticks) {
    return side == BOOK_BUY ? unit_hold(market, price_ticks) : market->base_units_per_lot;
}

uint64_t trading_hold_for(const engine_market *market, uint8_t side, int64_t price_ticks, uint64_t qty_lots) {
    const uint64_t per_lot = trading_hold_per_lot(market, side, price_ticks);
    if (per_lot == UINT64_MAX) return UINT64_MAX;
    if (side == BOOK_SELL) {
        const uint64_t lot_value = zx_mul_amount((uint64_t)price_ticks, market->quote_units_per_tick_lot);
        if (lot_value == UINT64_MAX || zx_mul_amount(lot_value, qty_lots) == UINT64_MAX) return UINT64_MAX;
    }
    return zx_mul_amount(per_lot, qty_lots);
}

uint64_t trading_hold_of(const engine *self, uint32_t slot) {
    const engine_market *const market = &self->markets[trading_market_of(self, slot)];
    const uint64_t per_lot =
        trading_hold_per_lot(market, trading_side_of(self, slot), trading_price_of(self, slot));
    return per_lot == UINT64_MAX ? UINT64_MAX : zx_mul_amount(per_lot, self->pool.orders[slot].leaves_lots);
}

uint32_t trading_must_find_balance(const engine *self, uint32_t account, uint32_t asset) {
    const uint32_t balance = ledger_find_balance(&self->ledger, account, asset);
    ZX_ASSERT(balance != ZX_NONE);
    return balance;
}

/* ------------------------------------------------------------ orders and owners */

uint64_t trading_hash_client_order(const engine *self, uint32_t account_id, uint64_t client_order_id) {
    return idmap_hash(self->hash_seed, client_order_id, account_id);
}

uint32_t engine_find_order(const engine *self, uint64_t order_id) {
    return ids_find(&self->by_id, order_id);
}

uint32_t engine_find_client_order(const engine *self, uint32_t account_id, uint64_t client_order_id) {
    idmap_cursor cursor;
    uint32_t slot =
        idmap_first(&self->client_order_map, trading_hash_client_order(self, account_id, client_order_id), &cursor);
    while (slot != ZX_NONE && (self->pool.orders[slot].client_order_id != client_order_id ||
                               self->pool.orders[slot].owner != account_id)) {
        slot = idmap_next(&self->client_order_map, &cursor);
    }
    return slot;
}

/* Before an account's list of orders changes, and these two in it; either may be ZX_NONE. */
static inline void before_listing(engine *self, uint32_t account, uint32_t slot, uint32_t other) {
    if (__builtin_expect(self->undo == NULL, 1)) return;
    before_account(self, account);
    if (slot != ZX_NONE) before_order(self, slot);
    if (other != ZX_NONE) before_order(self, other);
}

void trading_register(engine *self, uint32_t slot) {
    book_order *const order = &self->pool.orders[slot];
    ledger_account *const account = &self->ledger.accounts[order->owner];
    ids_add(&self->by_id, order->order_id, slot, false);
    if (order->client_order_id != 0) {
        idmap_insert(
            &self->client_order_map, trading_hash_client_order(self, order->owner, order->client_order_id), slot
        );
    }
    before_listing(self, order->owner, slot, account->order_tail);
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
        &self->lanes, slot, order->owner, trading_market_of(self, slot), trading_side_of(self, slot)
    );
}

void trading_unregister(engine *self, uint32_t slot) {
    book_order *const order = &self->pool.orders[slot];
    ledger_account *const account = &self->ledger.accounts[order->owner];
    ids_remove(&self->by_id, order->order_id, slot, false);
    if (order->client_order_id != 0) {
        idmap_remove(
            &self->client_order_map, trading_hash_client_order(self, order->owner, order->client_order_id), slot
        );
    }
    before_listing(self, order->owner, order->owner_prev, order->owner_next);
    if (order->owner_prev != ZX_NONE) self->pool.orders[order->owner_prev].owner_next = order->owner_next;
    else account->order_head = order->owner_next;
    if (order->owner_next != ZX_NONE) self->pool.orders[order->owner_next].owner_prev = order->owner_prev;
    else account->order_tail = order->owner_prev;
    account->order_count--;
    lanes_remove(&self->lanes, slot);
    if (__builtin_expect(order->flags & BOOK_TIMED, 0)) triggers_remove_expiry(self, slot);
    if (__builtin_expect((order->flags & (ORDER_AUCTION | ORDER_WAITING)) == ORDER_AUCTION, 0)) {
        markets_forget_auction_order(self, slot);
    }
    touch(self, TREE_ORDERS, slot);
}

order_face trading_face_of(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    const engine_market *const market = &self->markets[trading_market_of(self, slot)];
    return (order_face){
        .order_id = order->order_id,
        .client_order_id = order->client_order_id,
        .price_ticks = trading_price_of(self, slot),
        .qty_lots = order->qty_lots,
        .leaves_lots = order->leaves_lots,
        .cum_qty_lots = order->qty_lots - order->leaves_lots,
        .market_id = market->market_id,
        .sizes_no = (uint8_t)market->sizes_no,
        .side = trading_wire_side(trading_side_of(self, slot)),
    };
}

/* ------------------------------------------------------------ ends */

void trading_unpair(engine *self, uint32_t slot) {
    const uint32_t other = self->terms[slot].pair;
    ZX_ASSERT(self->pool.orders[slot].flags & ORDER_PAIRED && self->terms[other].pair == slot);
    before_order(self, slot);
    before_order(self, other);
    book_clear_flags(&self->pool.orders[slot], ORDER_PAIRED);
    book_clear_flags(&self->pool.orders[other], ORDER_PAIRED);
    touch(self, TREE_ORDERS, slot);
    touch(self, TREE_ORDERS, other);
}

static struct zx_execution_report *report_end(
    engine *self, uint32_t account, order_face *face, uint8_t exec_type, int reason
) {
    const uint64_t removed_lots = face->leaves_lots;
    face->leaves_lots = 0;
    struct zx_execution_report *const report = report_to(self, account, exec_type);
    report_order(report, face);
    report->last_qty_lots = removed_lots;
    report->reason = (uint16_t)reason;
    return report;
}

void trading_end_open(engine *self, uint32_t slot, uint8_t exec_type, int reason, bool is_answer) {
    const book_order *const order = &self->pool.orders[slot];
    engine_market *const market = &self->markets[trading_market_of(self, slot)];
    const uint32_t account = order->owner;
    const uint32_t balance =
        trading_must_find_balance(self, account, trading_hold_asset(market, trading_side_of(self, slot)));
    ledger_settle_hold(&self->ledger, balance, trading_hold_of(self, slot), 0);
    order_face face = trading_face_of(self, slot);
    uint32_t pair = ZX_NONE;
    if (order->flags & ORDER_PAIRED) {
        pair = self->terms[slot].pair;
        trading_unpair(self, slot);
    }
    trading_unregister(self, slot);
    if (trading_has_trigger(order)) triggers_forget(self, slot);
    else if (order->flags & ORDER_WAITING) markets_forget_waiting(self, slot);
    else book_unlink(&market->book, slot);
    book_free_slot(&self->pool, slot);
    const struct zx_execution_report *const report = report_end(self, account, &face, exec_type, reason);
    if (is_answer) report_answer(self, report, face.order_id);
    if (pair != ZX_NONE) {
        trading_end_open(self, pair, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_ONE_CANCELS_OTHER, false);
    }
}

void trading_end_pair(taker *order) {
    const uint32_t pair = order->pair;
    if (pair == ZX_NONE) return;
    order->pair = ZX_NONE;
    if (order->slot != ZX_NONE) trading_unpair(order->engine, order->slot);
    trading_end_open(order->engine, pair, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_ONE_CANCELS_OTHER, false);
}

/* Gives back what so many lots of it hold; of an order by notional all that is left, once it has ended. */
static void release(taker *order, uint64_t qty_lots) {
    ledger *const money = &order->engine->ledger;
    if (!order->is_by_notional) {
        ledger_settle_hold(money, order->hold_balance, qty_lots * order->hold_per_lot, 0);
    } else if (qty_lots == order->face.leaves_lots) {
        ledger_settle_hold(money, order->hold_balance, order->notional_left, 0);
        order->notional_left = 0;
    }
}

void trading_end_taker(taker *order, uint8_t exec_type, int reason) {
    release(order, order->face.leaves_lots);
    report_end(order->engine, order->account, &order->face, exec_type, reason);
    trading_end_pair(order);
}

/* ------------------------------------------------------------ fills */

/* What is left of a fee for this account. */
static uint32_t discounted_ppm(const engine *self, uint32_t account, uint32_t ppm) {
    if (__builtin_expect(self->rule_count == 0, 1)) return ppm;
    const uint64_t rest = (uint64_t)ppm * (ENGINE_PPM - self->account_rules[account].fee_discount_ppm);
    return (uint32_t)((rest + ENGINE_PPM - 1) / ENGINE_PPM);
}

/* The fee of a maker; negative if it is a rebate: rounded down and never above the taker's fee. */
static int64_t maker_fee_of(const engine *self, const engine_market *market, uint32_t maker, uint64_t value, uint64_t taker_fee) {
    if (market->maker_fee_ppm >= 0) {
        return (int64_t)trading_ppm_of(value, discounted_ppm(self, maker, (uint32_t)market->maker_fee_ppm));
    }
    const uint64_t ppm = (uint64_t)-(int64_t)market->maker_fee_ppm;
    const uint64_t rebate = value / ENGINE_PPM * ppm + value % ENGINE_PPM * ppm / ENGINE_PPM;
    return -(int64_t)(rebate < taker_fee ? rebate : taker_fee);
}

static void report_trade(
    engine *self, uint32_t account, const order_face *order, int64_t price_ticks, uint64_t qty_lots,
    int64_t fee, uint8_t liquidity
) {
    struct zx_execution_report *const report = report_to(self, account, ZX_EXEC_TYPE_TRADE);
    report_order(report, order);
    report->last_price_ticks = price_ticks;
    report->last_qty_lots = qty_lots;
    report->fee = fee;
    report->trade_id = self->next_trade_id;
    report->liquidity = liquidity;
}

/* Moves the money of a fill in which the taker buys. */
static void pay_for_buy(taker *order, uint64_t qty_lots, uint64_t cost, uint64_t base_units) {
    ledger *const money = &order->engine->ledger;
    if (order->is_by_notional) {
        ledger_settle_hold(money, order->hold_balance, cost, cost);
        order->notional_left -= cost;
    } else {
        ledger_settle_hold(money, order->hold_balance, qty_lots * order->hold_per_lot, cost);
    }
    ledger_credit(money, order->gain_balance, base_units);
}

/* One fill: moves the money and reports it to both. The book has reduced the maker's leaves already. */
static void on_fill(void *context, uint32_t maker_slot, int64_t price_ticks, uint64_t qty_lots) {
    taker *const order = context;
    engine *const self = order->engine;
    engine_market *const market = order->market;
    const uint32_t maker = self->pool.orders[maker_slot].owner;
    const uint8_t maker_side = order->side ^ 1;

    /* Bounded by the buyer's hold, so neither product leaves 63 bits. */
    const uint64_t value = (uint64_t)price_ticks * market->quote_units_per_tick_lot * qty_lots;
    const uint64_t base_units = qty_lots * market->base_units_per_lot;
    const uint64_t taker_fee =
        trading_ppm_of(value, discounted_ppm(self, order->account, market->taker_fee_ppm));
    const int64_t maker_fee = maker_fee_of(self, market, maker, value, taker_fee);
    const uint32_t maker_hold = trading_must_find_balance(self, maker, trading_hold_asset(market, maker_side));
    const uint32_t maker_gain = trading_must_find_balance(self, maker, trading_gain_asset(market, maker_side));
    ledger *const money = &self->ledger;
    if (order->side == BOOK_BUY) {
        pay_for_buy(order, qty_lots, value + taker_fee, base_units);
        ledger_settle_hold(money, maker_hold, base_units, base_units);
        ledger_credit(money, maker_gain, value - (uint64_t)maker_fee);
    } else {
        ledger_settle_hold(money, order->hold_balance, base_units, base_units);
        ledger_credit(money, order->gain_balance, value - taker_fee);
        ledger_settle_hold(money, maker_hold, qty_lots * unit_hold(market, price_ticks), value + (uint64_t)maker_fee);
        ledger_credit(money, maker_gain, base_units);
    }
    ledger_credit(money, market->fee_balance, taker_fee + (uint64_t)maker_fee);
    before_market(self, market);
    market->last_ticks = price_ticks;
    touch(self, TREE_ACCOUNTS, ENGINE_OPERATOR_ACCOUNT);
    touch(self, TREE_ORDERS, maker_slot);

    const order_face maker_face = trading_face_of(self, maker_slot);
    order->face.leaves_lots -= qty_lots;
    order->face.cum_qty_lots += qty_lots;
    report_trade(self, maker, &maker_face, price_ticks, qty_lots, maker_fee, ZX_LIQUIDITY_MAKER);
    report_trade(self, order->account, &order->face, price_ticks, qty_lots, (int64_t)taker_fee, ZX_LIQUIDITY_TAKER);
    self->next_trade_id++;
    uint32_t pair = ZX_NONE;
    if (__builtin_expect(self->pool.orders[maker_slot].flags & ORDER_PAIRED, 0)) {
        pair = self->terms[maker_slot].pair;
        trading_unpair(self, maker_slot);
    }
    if (maker_face.leaves_lots == 0) trading_unregister(self, maker_slot);
    if (pair != ZX_NONE) {
        trading_end_open(self, pair, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_ONE_CANCELS_OTHER, false);
    }
    trading_end_pair(order);
}

void trading_fill_in_auction(engine *self, engine_market *market, uint32_t buy, uint32_t sell) {
    const uint32_t slots_of[2] = {buy, sell};
    const int64_t price_ticks = market->auction_ticks;
    const uint64_t wanted = self->pool.orders[buy].leaves_lots;
    const uint64_t offered = self->pool.orders[sell].leaves_lots;
    const uint64_t qty_lots = wanted < offered ? wanted : offered;
    const uint64_t value = (uint64_t)price_ticks * market->quote_units_per_tick_lot * qty_lots;
    const uint64_t base_units = qty_lots * market->base_units_per_lot;
    const uint32_t ppm = market->maker_fee_ppm > 0 ? (uint32_t)market->maker_fee_ppm : 0;
    ledger *const money = &self->ledger;
    before_market(self, market);
    market->last_ticks = price_ticks;
    touch(self, TREE_MARKETS, (uint32_t)(market - self->markets));
    touch(self, TREE_ACCOUNTS, ENGINE_OPERATOR_ACCOUNT);
    uint32_t pairs[2] = {ZX_NONE, ZX_NONE};
    for (uint32_t at = 0; at < 2; at++) {
        const uint32_t slot = slots_of[at];
        const uint8_t side = at == 0 ? BOOK_BUY : BOOK_SELL;
        const book_order *const order = &self->pool.orders[slot];
        const uint32_t account = order->owner;
        const uint64_t fee = trading_ppm_of(value, discounted_ppm(self, account, ppm));
        const uint32_t hold = trading_must_find_balance(self, account, trading_hold_asset(market, side));
        const uint32_t gain = trading_must_find_balance(self, account, trading_gain_asset(market, side));
        if (side == BOOK_BUY) {
            const uint64_t per_lot = unit_hold(market, trading_price_of(self, slot));
            ledger_settle_hold(money, hold, qty_lots * per_lot, value + fee);
            ledger_credit(money, gain, base_units);
        } else {
            ledger_settle_hold(money, hold, base_units, base_units);
            ledger_credit(money, gain, value - fee);
        }
        ledger_credit(money, market->fee_balance, fee);
        order_face face = trading_face_of(self, slot);
        face.leaves_lots -= qty_lots;
        face.cum_qty_lots += qty_lots;
        report_trade(self, account, &face, price_ticks, qty_lots, (int64_t)fee, ZX_LIQUIDITY_AUCTION);
        if (order->flags & ORDER_PAIRED) {
            pairs[at] = self->terms[slot].pair;
            trading_unpair(self, slot);
        }
        touch(self, TREE_ORDERS, slot);
        if (face.leaves_lots == 0) trading_unregister(self, slot);
        const uint64_t priority_no = order->priority_no;
        book_fill(&market->book, slot, qty_lots);
        /* An iceberg's next slice is behind all others. */
        if (face.leaves_lots > 0 && order->flags & ORDER_AUCTION && order->priority_no != priority_no) {
            markets_forget_auction_order(self, slot);
            markets_add_auction_order(self, slot);
        }
    }
    self->next_trade_id++;
    for (uint32_t at = 0; at < 2; at++) {
        if (pairs[at] == ZX_NONE) continue;
        trading_end_open(self, pairs[at], ZX_EXEC_TYPE_CANCELLED, ZX_REASON_ONE_CANCELS_OTHER, false);
    }
}

/* Most lots that what is left of the maximum notional pays for, the taker's fee included. */
static uint64_t affordable_lots(void *context, int64_t price_ticks) {
    const taker *const order = context;
    const engine_market *const market = order->market;
    const uint64_t lot_value = zx_mul_amount((uint64_t)price_ticks, market->quote_units_per_tick_lot);
    if (lot_value == UINT64_MAX) return 0;
    const uint32_t ppm = discounted_ppm(order->engine, order->account, market->taker_fee_ppm);
    const zx_u128 cost = (zx_u128)lot_value * (ENGINE_PPM + ppm);
    return (uint64_t)((zx_u128)order->notional_left * 1000000 / cost);
}

/* ------------------------------------------------------------ matching */

/* A limit no further from the centre of a band than that allows. */
static int64_t within_band(int64_t limit_ticks, uint8_t side, int64_t centre_ticks, uint32_t ppm) {
    if (centre_ticks == 0 || ppm == 0) return limit_ticks;
    const int64_t width_ticks = (int64_t)((zx_u128)centre_ticks * ppm / ENGINE_PPM);
    if (side == BOOK_BUY) {
        return limit_ticks < centre_ticks + width_ticks ? limit_ticks : centre_ticks + width_ticks;
    }
    return limit_ticks > centre_ticks - width_ticks ? limit_ticks : centre_ticks - width_ticks;
}

static book_incoming incoming_of(const taker *order) {
    const engine_market *const market = order->market;
    const int64_t dynamic_ticks =
        within_band(order->face.price_ticks, order->side, market->last_ticks, market->dynamic_band_ppm);
    return (book_incoming){
        .price_ticks =
            within_band(dynamic_ticks, order->side, market->reference_ticks, market->static_band_ppm),
        .leaves_lots = order->face.leaves_lots,
        .now_ns = order->engine->log_time_ns,
        .groups = order->engine->rule_count > 0 ? order->engine->trade_groups : NULL,
        .owner = order->account,
        .makers_max = ENGINE_MAKERS_MAX,
        .side = order->side,
    };
}

/* The other of a pair if it rests: one that waits is in no queue of the book. */
static uint32_t resting_pair_of(const void *context, uint32_t slot) {
    const engine *const self = context;
    const uint32_t pair = self->terms[slot].pair;
    return self->pool.orders[pair].flags & ORDER_WAITING ? ZX_NONE : pair;
}

uint64_t trading_reachable(const taker *order, uint64_t wanted_lots) {
    const book_incoming incoming = incoming_of(order);
    const bool passes_own = order->self_trade_prevention == ZX_SELF_TRADE_PREVENTION_CANCEL_OLDEST;
    const book_pairs pairs = {.flag = ORDER_PAIRED, .other_of = resting_pair_of, .context = order->engine};
    return book_reachable(&order->market->book, &incoming, wanted_lots, passes_own, &pairs);
}

static void report_prevented(engine *self, uint32_t account, const order_face *face, uint64_t qty_lots) {
    struct zx_execution_report *const report = report_to(self, account, ZX_EXEC_TYPE_SELF_TRADE_PREVENTED);
    report_order(report, face);
    report->last_qty_lots = qty_lots;
    report->reason = ZX_REASON_SELF_TRADE;
}

/* Both lose the smaller open quantity. */
static void decrement(taker *order, uint32_t maker_slot) {
    engine *const self = order->engine;
    book_order *const maker = &self->pool.orders[maker_slot];
    const uint32_t maker_account = maker->owner;
    order_face face = trading_face_of(self, maker_slot);
    const uint64_t both_lots =
        order->face.leaves_lots < maker->leaves_lots ? order->face.leaves_lots : maker->leaves_lots;
    const uint64_t maker_hold =
        both_lots * trading_hold_per_lot(order->market, order->side ^ 1, face.price_ticks);
    const uint32_t balance =
        trading_must_find_balance(self, maker_account, trading_hold_asset(order->market, order->side ^ 1));
    ledger_settle_hold(&self->ledger, balance, maker_hold, 0);
    face.qty_lots -= both_lots;
    face.leaves_lots -= both_lots;
    uint32_t pair = ZX_NONE;
    if (face.leaves_lots > 0) {
        book_resize(&order->market->book, maker_slot, face.qty_lots);
        touch(self, TREE_ORDERS, maker_slot);
    } else {
        if (maker->flags & ORDER_PAIRED) {
            pair = self->terms[maker_slot].pair;
            trading_unpair(self, maker_slot);
        }
        trading_unregister(self, maker_slot);
        book_remove(&order->market->book, maker_slot);
    }
    report_prevented(self, maker_account, &face, both_lots);
    if (pair != ZX_NONE) {
        trading_end_open(self, pair, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_ONE_CANCELS_OTHER, false);
    }
    release(order, both_lots);
    order->face.qty_lots -= both_lots;
    order->face.leaves_lots -= both_lots;
    report_prevented(self, order->account, &order->face, both_lots);
    if (order->face.leaves_lots == 0) trading_end_pair(order);
}

/* The next maker is past its time, or of the same account. Returns whether the order goes on. */
static bool pass_over(taker *order, book_incoming *incoming, bool is_overdue) {
    engine *const self = order->engine;
    const uint32_t maker = book_next_maker(&order->market->book, order->side);
    const uint8_t mode = order->self_trade_prevention;
    if (!is_overdue && mode == ZX_SELF_TRADE_PREVENTION_CANCEL_NEWEST) {
        trading_end_taker(order, ZX_EXEC_TYPE_SELF_TRADE_PREVENTED, ZX_REASON_SELF_TRADE);
        return false;
    }
    if (incoming->makers_used == incoming->makers_max) {
        trading_end_taker(order, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_MATCH_LIMIT);
        return false;
    }
    incoming->makers_used++;
    if (is_overdue) {
        trading_end_open(self, maker, ZX_EXEC_TYPE_EXPIRED, ZX_REASON_ORDER_EXPIRED, false);
        return true;
    }
    if (mode == ZX_SELF_TRADE_PREVENTION_DECREMENT) {
        decrement(order, maker);
        incoming->leaves_lots = order->face.leaves_lots;
        return order->face.leaves_lots > 0;
    }
    trading_end_open(self, maker, ZX_EXEC_TYPE_SELF_TRADE_PREVENTED, ZX_REASON_SELF_TRADE, false);
    if (mode != ZX_SELF_TRADE_PREVENTION_CANCEL_BOTH) return true;
    trading_end_taker(order, ZX_EXEC_TYPE_SELF_TRADE_PREVENTED, ZX_REASON_SELF_TRADE);
    return false;
}

/* Whether the next maker would not trade with the order: `*is_overdue`, or of the same account or group. */
static bool is_passed_over(const taker *order, bool *is_overdue) {
    const engine *const self = order->engine;
    const uint32_t slot = book_next_maker(&order->market->book, order->side);
    const book_order *const maker = &self->pool.orders[slot];
    *is_overdue = trading_is_overdue(self, slot);
    const uint32_t group = self->trade_groups[order->account];
    const bool is_own =
        maker->owner == order->account || (group != 0 && group == self->trade_groups[maker->owner]);
    return *is_overdue || is_own;
}

void trading_match(taker *order) {
    engine *const self = order->engine;
    const uint64_t first_trade_id = self->next_trade_id;
    book_incoming incoming = incoming_of(order);
    const book_listener listener = {
        .on_fill = on_fill,
        .lots_max = order->is_by_notional ? affordable_lots : NULL,
        .context = order,
    };
    bool goes_on = true;
    while (goes_on) {
        const enum book_match_end end = book_match(&order->market->book, &incoming, &listener);
        ZX_ASSERT(incoming.leaves_lots == order->face.leaves_lots);
        switch (end) {
        case BOOK_OVERDUE:
        case BOOK_OWN_ORDER:
            goes_on = pass_over(order, &incoming, end == BOOK_OVERDUE);
            continue;
        case BOOK_MAKERS_USED:
            trading_end_taker(order, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_MATCH_LIMIT);
            break;
        case BOOK_NO_LOT:
            trading_end_taker(order, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_MAX_NOTIONAL_REACHED);
            break;
        case BOOK_DONE:
            if (order->face.leaves_lots == 0) {
                release(order, 0); /* by notional: what it did not spend */
            } else if (incoming.price_ticks != order->face.price_ticks &&
                       book_crosses(&order->market->book, order->side, order->face.price_ticks)) {
                /* Only a band keeps it from the next maker; what would not trade anyway is no reason to interrupt. */
                bool is_overdue;
                if (is_passed_over(order, &is_overdue)) {
                    goes_on = pass_over(order, &incoming, is_overdue);
                    continue;
                }
                markets_interrupt(self, order->market);
            }
            break;
        }
        goes_on = false;
    }
    order->makers = incoming.makers_used;
    if (self->next_trade_id > first_trade_id) {
        touch(self, TREE_MARKETS, (uint32_t)(order->market - self->markets));
        order->followers = triggers_price_moved(self, order->market, false);
    }
}

taker trading_taker_of(engine *self, uint32_t slot, const order_face *face, uint8_t self_trade_prevention) {
    const book_order *const order = &self->pool.orders[slot];
    engine_market *const market = engine_find_market(self, face->market_id);
    const uint8_t side = face->side == ZX_SIDE_BUY ? BOOK_BUY : BOOK_SELL;
    return (taker){
        .engine = self,
        .market = market,
        .face = *face,
        .hold_per_lot = trading_hold_per_lot(market, side, face->price_ticks),
        .account = order->owner,
        .hold_balance = trading_must_find_balance(self, order->owner, trading_hold_asset(market, side)),
        .gain_balance = trading_must_find_balance(self, order->owner, trading_gain_asset(market, side)),
        .slot = slot,
        .pair = order->flags & ORDER_PAIRED ? self->terms[slot].pair : ZX_NONE,
        .side = side,
        .self_trade_prevention = self_trade_prevention,
    };
}

/* An undo knows of the order already: it was given its slot or taken out of its queue before. */
void trading_rest(taker *order) {
    engine *const self = order->engine;
    book_order *const resting = &self->pool.orders[order->slot];
    resting->qty_lots = order->face.qty_lots;
    resting->leaves_lots = order->face.leaves_lots;
    const bool rested = book_rest(&order->market->book, order->slot, order->side, order->face.price_ticks);
    ZX_ASSERT(rested); /* holds bound the lots of a level: each holds at least one unit */
    if (__builtin_expect(resting->flags & ORDER_AUCTION, 0)) markets_add_auction_order(self, order->slot);
    touch(self, TREE_ORDERS, order->slot);
}
