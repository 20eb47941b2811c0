/* orders.c: commands of traders (docs/rules.md sections 5 and 6). */

#include "markets.h"
#include "trading.h"
#include "triggers.h"

#define DAY_NS UINT64_C(86400000000000)
#define AMEND_OPTIONS (ZX_ORDER_OPTIONS_POST_ONLY | ZX_ORDER_OPTIONS_SLIDE)

static bool has_option(const struct zx_command *command, uint32_t option) {
    return (command->options & option) != 0;
}

/* Reason why a market takes only cancels, or ZX_REASON_NONE. */
static int market_closed_reason(const engine_market *market) {
    switch (market->state) {
    case ZX_MARKET_STATE_CLOSED:
        return ZX_REASON_MARKET_CLOSED;
    case ZX_MARKET_STATE_HALTED:
        return ZX_REASON_MARKET_HALTED;
    case ZX_MARKET_STATE_EXPIRED:
        return ZX_REASON_MARKET_EXPIRED;
    case ZX_MARKET_STATE_UNCROSSING:
        return ZX_REASON_MARKET_UNCROSSING;
    default:
        return ZX_REASON_NONE;
    }
}

/* Whether orders rest in the market without trading, for an auction. */
static bool collects(const engine_market *market) {
    return markets_collects_for(market->state) != ZX_TIME_IN_FORCE_NONE;
}

/* Whether an order is for an auction for which the market does not collect yet. */
static bool must_wait(const engine_market *market, uint8_t time_in_force) {
    return trading_is_for_auction(time_in_force) && markets_collects_for(market->state) != time_in_force;
}

/* Section 5, rule 2: whether the state of the market allows a new order. */
static int state_refusal(const engine_market *market, const struct zx_command *command) {
    const bool is_for_open = command->time_in_force == ZX_TIME_IN_FORCE_AT_THE_OPEN;
    if (is_for_open && market->state == ZX_MARKET_STATE_CLOSED) return ZX_REASON_NONE;
    const int closed = market_closed_reason(market);
    if (closed != ZX_REASON_NONE) return closed;
    const bool waits = must_wait(market, command->time_in_force);
    if (is_for_open && waits) return ZX_REASON_NOT_IN_AUCTION;
    if (command->trigger != ZX_TRIGGER_NONE || waits) return ZX_REASON_NONE;
    const bool may_rest = trading_stays_open(command->time_in_force);
    if (collects(market) && (!may_rest || has_option(command, ZX_ORDER_OPTIONS_POST_ONLY))) {
        return ZX_REASON_MARKET_NOT_CONTINUOUS;
    }
    if (market->state == ZX_MARKET_STATE_POST_ONLY && !may_rest) return ZX_REASON_MARKET_POST_ONLY;
    return ZX_REASON_NONE;
}

/* ------------------------------------------------------------ limits */

static int size_refusal(const engine_market *market, uint64_t qty_lots, int64_t price_ticks, uint64_t max_notional) {
    if (market->qty_lots_max != 0 && qty_lots > market->qty_lots_max) return ZX_REASON_ORDER_TOO_LARGE;
    if (market->notional_max == 0) return ZX_REASON_NONE;
    uint64_t value = max_notional;
    if (value == 0) {
        value = zx_mul_amount((uint64_t)price_ticks, market->quote_units_per_tick_lot);
        if (value != UINT64_MAX) value = zx_mul_amount(value, qty_lots);
    }
    return value > market->notional_max ? ZX_REASON_NOTIONAL_TOO_LARGE : ZX_REASON_NONE;
}

static uint32_t open_orders_in(const engine *self, uint32_t account, const engine_market *market) {
    uint32_t count = 0;
    for (uint8_t side = 0; side < 2; side++) {
        const lane *const of_side =
            lanes_find(&self->lanes, account, (uint32_t)(market - self->markets), side);
        if (of_side != NULL) count += of_side->count;
    }
    return count;
}

static bool may_have_one_more(const engine *self, uint32_t account, const engine_market *market) {
    if (market->orders_max != 0 && open_orders_in(self, account, market) >= market->orders_max) return false;
    const uint32_t orders_max = self->account_rules[account].orders_max;
    return orders_max == 0 || self->ledger.accounts[account].order_count < orders_max;
}

static uint64_t second_of(const engine *self) {
    return self->log_time_ns / 1000000000;
}

static bool is_within_rate(const engine *self, uint32_t account) {
    const engine_account_rules *const rules = &self->account_rules[account];
    if (rules->orders_per_second == 0 || rules->rate_second != second_of(self)) return true;
    return rules->rate_count < rules->orders_per_second;
}

static void count_order(engine *self, uint32_t account) {
    engine_account_rules *const rules = &self->account_rules[account];
    if (rules->orders_per_second == 0) return;
    before_account(self, account);
    if (rules->rate_second != second_of(self)) {
        rules->rate_second = second_of(self);
        rules->rate_count = 0;
    }
    rules->rate_count++;
    touch(self, TREE_ACCOUNTS, account);
}

/* The price itself, or, if it would trade, the best one that does not; the price itself if there is none. */
static int64_t slid_price(const book *queues, uint8_t side, int64_t price_ticks) {
    if (!book_crosses(queues, side, price_ticks)) return price_ticks;
    const int64_t best_ticks = book_level_price(&queues->pool->levels[queues->sides[side ^ 1].best]);
    const int64_t slid_ticks = side == BOOK_BUY ? best_ticks - 1 : best_ticks + 1;
    return slid_ticks < 1 || slid_ticks > ZX_TICKS_MAX ? price_ticks : slid_ticks;
}

/* ------------------------------------------------------------ new order */

/* Whether the trigger of a new order is complete, and nothing of one is given without it. */
static bool trigger_is_sound(const struct zx_command *command) {
    if (command->trigger == ZX_TRIGGER_NONE) {
        return command->trigger_ticks == 0 && command->trail_ppm == 0 &&
               !has_option(command, ZX_ORDER_OPTIONS_ON_REFERENCE);
    }
    if (command->trigger == ZX_TRIGGER_TRAILING && command->trail_ppm != 0) {
        return command->trail_ppm < 1000000 && command->trigger_ticks == 0;
    }
    return command->trigger_ticks >= 1 && command->trigger_ticks <= ZX_TICKS_MAX && command->trail_ppm == 0;
}

/* Section 5, rules 5 to 10: whether the terms of a new order fit together. */
static int terms_refusal(const struct zx_command *command) {
    const bool is_market_order = command->order_type == ZX_ORDER_TYPE_MARKET;
    const bool is_waiting = command->trigger != ZX_TRIGGER_NONE;
    const bool is_ioc = command->time_in_force == ZX_TIME_IN_FORCE_IOC;
    const bool may_rest = trading_stays_open(command->time_in_force);
    const bool is_post_only = has_option(command, ZX_ORDER_OPTIONS_POST_ONLY);
    const bool is_hidden = has_option(command, ZX_ORDER_OPTIONS_HIDDEN);
    const bool is_for_auction = trading_is_for_auction(command->time_in_force);
    if (is_market_order && may_rest && !is_for_auction) return ZX_REASON_MARKET_ORDER_CANNOT_REST;
    if (is_post_only && (is_market_order || !may_rest || is_waiting || is_for_auction)) {
        return ZX_REASON_POST_ONLY_MUST_REST;
    }
    if (has_option(command, ZX_ORDER_OPTIONS_SLIDE) && !is_post_only) return ZX_REASON_SLIDE_WITHOUT_POST_ONLY;
    if (command->display_qty_lots > command->qty_lots || (is_hidden && command->display_qty_lots != 0) ||
        ((is_hidden || command->display_qty_lots != 0) && !may_rest)) {
        return ZX_REASON_DISPLAY_INVALID;
    }
    if (command->min_qty_lots != 0 && (!is_ioc || command->min_qty_lots > command->qty_lots || is_waiting ||
                                       command->max_notional != 0)) {
        return ZX_REASON_MIN_QTY_INVALID;
    }
    if (command->max_notional != 0 && (!is_market_order || command->side != ZX_SIDE_BUY || !is_ioc ||
                                       is_waiting || command->max_notional > ZX_AMOUNT_MAX)) {
        return ZX_REASON_MAX_NOTIONAL_INVALID;
    }
    const bool is_sound = trigger_is_sound(command) && !(is_waiting && is_for_auction);
    return is_sound ? ZX_REASON_NONE : ZX_REASON_TRIGGER_INVALID;
}

/* When the order expires, 0 if it does not. Returns false if what it says is invalid. */
static bool find_expire_time(const engine *self, const struct zx_command *command, uint64_t *expire_time_ns) {
    *expire_time_ns = command->expire_time_ns;
    if (command->time_in_force == ZX_TIME_IN_FORCE_GTD) return *expire_time_ns > self->log_time_ns;
    if (*expire_time_ns != 0) return false;
    if (command->time_in_force != ZX_TIME_IN_FORCE_DAY) return true;
    return !__builtin_mul_overflow(self->log_time_ns / DAY_NS + 1, DAY_NS, expire_time_ns);
}

/* Slot of the order that this one may be paired with, or ZX_NONE. */
static uint32_t find_pair(
    const engine *self, const struct zx_command *command, const engine_market *market, uint64_t previous_order
) {
    const uint32_t slot = previous_order == 0 ? ZX_NONE : engine_find_order(self, previous_order);
    if (slot == ZX_NONE || self->pool.orders[slot].flags & ORDER_PAIRED) return ZX_NONE;
    if (command->trigger == ZX_TRIGGER_NONE && !trading_stays_open(command->time_in_force)) return ZX_NONE;
    const bool is_like = &self->markets[trading_market_of(self, slot)] == market &&
                         trading_wire_side(trading_side_of(self, slot)) == command->side;
    return is_like ? slot : ZX_NONE;
}

/* Takes a slot for an order that stays open, and fills in what it is. */
static uint32_t open_order(
    const taker *order, const struct zx_command *command, uint64_t expire_time_ns, bool is_waiting
) {
    engine *const self = order->engine;
    const uint32_t slot = book_take_free_slot(&self->pool);
    book_order *const open = &self->pool.orders[slot];
    open->order_id = order->face.order_id;
    open->client_order_id = order->face.client_order_id;
    open->qty_lots = order->face.qty_lots;
    open->leaves_lots = order->face.leaves_lots;
    book_set_owner(open, order->account);
    const bool is_hidden = has_option(command, ZX_ORDER_OPTIONS_HIDDEN);
    const bool is_iceberg = command->display_qty_lots != 0;
    const bool is_for_auction = trading_is_for_auction(command->time_in_force);
    if (!is_waiting && !is_hidden && !is_iceberg && expire_time_ns == 0 && order->pair == ZX_NONE &&
        !is_for_auction) {
        return slot;
    }
    before_order(self, slot);
    if (is_waiting) book_set_flags(open, ORDER_WAITING);
    else book_set_flags(open, (is_hidden ? BOOK_HIDDEN : 0) | (is_iceberg ? BOOK_ICEBERG : 0));
    if (expire_time_ns != 0) book_set_flags(open, BOOK_TIMED);
    self->pool.terms[slot] = (book_terms){
        .display_lots = command->display_qty_lots,
        .expire_time_ns = expire_time_ns,
    };
    const bool is_trailing = command->trigger == ZX_TRIGGER_TRAILING;
    self->terms[slot] = (engine_terms){
        .price_ticks = order->face.price_ticks,
        .trail_ticks = is_trailing ? command->trigger_ticks : 0,
        .market = (uint32_t)(order->market - self->markets),
        .trail_ppm = command->trail_ppm,
        .side = order->side,
        .order_type = command->order_type,
        .time_in_force = command->time_in_force,
        .self_trade_prevention = command->self_trade_prevention,
        .trigger = command->trigger,
        .is_hidden = is_hidden,
        .on_reference = has_option(command, ZX_ORDER_OPTIONS_ON_REFERENCE),
        .is_iceberg = is_iceberg,
    };
    if (order->pair != ZX_NONE) {
        before_order(self, order->pair);
        self->terms[slot].pair = order->pair;
        self->terms[order->pair].pair = slot;
        book_set_flags(open, ORDER_PAIRED);
        book_set_flags(&self->pool.orders[order->pair], ORDER_PAIRED);
        touch(self, TREE_ORDERS, order->pair);
    }
    if (expire_time_ns != 0) triggers_add_expiry(self, slot);
    if (is_for_auction) book_set_flags(open, ORDER_AUCTION);
    return slot;
}

static int apply_new(engine *self, const struct zx_command *command, uint64_t previous_order) {
    const uint32_t account = (uint32_t)self->command.account;
    const uint8_t side = command->side == ZX_SIDE_BUY ? BOOK_BUY : BOOK_SELL;
    const bool is_by_notional = command->max_notional != 0;
    const bool has_trigger = command->trigger != ZX_TRIGGER_NONE;
    const bool may_stay = has_trigger || trading_stays_open(command->time_in_force);

    engine_market *const market = engine_find_market(self, command->market_id);
    if (market == NULL) return ZX_REASON_UNKNOWN_MARKET;
    if (command->sizes_no != (uint8_t)market->sizes_no) return ZX_REASON_SIZES_CHANGED;
    const int not_now = state_refusal(market, command);
    if (not_now != ZX_REASON_NONE) return not_now;
    if (command->price_ticks < (is_by_notional ? 0 : 1) || command->price_ticks > ZX_TICKS_MAX) {
        return ZX_REASON_PRICE_TICKS_OUT_OF_RANGE;
    }
    if (command->qty_lots < 1 || command->qty_lots > ZX_LOTS_MAX) {
        return ZX_REASON_QTY_LOTS_OUT_OF_RANGE;
    }
    const int terms = terms_refusal(command);
    if (terms != ZX_REASON_NONE) return terms;
    uint64_t expire_time_ns;
    if (!find_expire_time(self, command, &expire_time_ns)) return ZX_REASON_EXPIRY_INVALID;
    uint32_t pair = ZX_NONE;
    if (has_option(command, ZX_ORDER_OPTIONS_OCO_WITH_PREVIOUS)) {
        pair = find_pair(self, command, market, previous_order);
        if (pair == ZX_NONE) return ZX_REASON_OCO_INVALID;
    }
    int64_t price_ticks = command->price_ticks != 0 ? command->price_ticks : ZX_TICKS_MAX;
    if (has_option(command, ZX_ORDER_OPTIONS_SLIDE)) price_ticks = slid_price(&market->book, side, price_ticks);
    const uint64_t hold = is_by_notional ? command->max_notional
                                         : trading_hold_for(market, side, price_ticks, command->qty_lots);
    if (hold == UINT64_MAX) return ZX_REASON_NOTIONAL_OVERFLOW;
    const int size = size_refusal(market, command->qty_lots, price_ticks, command->max_notional);
    if (size != ZX_REASON_NONE) return size;
    if (command->client_order_id != 0 &&
        engine_find_client_order(self, account, command->client_order_id) != ZX_NONE) {
        return ZX_REASON_CLIENT_ORDER_ID_IN_USE;
    }
    if (may_stay && self->pool.taken.count == self->pool.taken.capacity) {
        return ZX_REASON_ORDER_POOL_FULL;
    }
    if (command->trigger == ZX_TRIGGER_TRAILING && market->trailing_count == ENGINE_TRAILING_MAX) {
        return ZX_REASON_TRAILING_LIMIT;
    }
    if (may_stay && !may_have_one_more(self, account, market)) return ZX_REASON_OPEN_ORDERS_LIMIT;
    if (!is_within_rate(self, account)) return ZX_REASON_ORDER_RATE_LIMIT;
    const uint32_t hold_balance =
        ledger_find_balance(&self->ledger, account, trading_hold_asset(market, side));
    if (hold_balance == ZX_NONE || self->ledger.balances[hold_balance].available < hold) {
        return ZX_REASON_INSUFFICIENT_FUNDS;
    }
    uint32_t gain_balance = ledger_find_balance(&self->ledger, account, trading_gain_asset(market, side));
    if (gain_balance == ZX_NONE && ledger_balances_full(&self->ledger)) {
        return ZX_REASON_BALANCE_POOL_FULL;
    }
    const bool on_reference = has_option(command, ZX_ORDER_OPTIONS_ON_REFERENCE);
    if (has_trigger && command->trigger != ZX_TRIGGER_TRAILING &&
        triggers_is_met(market, side, command->trigger, on_reference, command->trigger_ticks)) {
        return ZX_REASON_TRIGGER_MET;
    }
    const bool is_waiting = has_trigger || must_wait(market, command->time_in_force);
    const bool must_not_trade = has_option(command, ZX_ORDER_OPTIONS_POST_ONLY) ||
                                (market->state == ZX_MARKET_STATE_POST_ONLY && !is_waiting);
    if (must_not_trade && book_crosses(&market->book, side, price_ticks)) {
        return ZX_REASON_POST_ONLY_WOULD_CROSS;
    }
    taker order = {
        .engine = self,
        .market = market,
        .face =
            {
                .order_id = self->command.seq,
                .client_order_id = command->client_order_id,
                .price_ticks = price_ticks,
                .qty_lots = command->qty_lots,
                .leaves_lots = command->qty_lots,
                .market_id = market->market_id,
                .sizes_no = (uint8_t)market->sizes_no,
                .side = command->side,
            },
        .hold_per_lot = is_by_notional ? 0 : trading_hold_per_lot(market, side, price_ticks),
        .notional_left = command->max_notional,
        .account = account,
        .hold_balance = hold_balance,
        .gain_balance = gain_balance,
        .slot = ZX_NONE,
        .pair = pair,
        .side = side,
        .self_trade_prevention = command->self_trade_prevention,
        .is_by_notional = is_by_notional,
    };
    if (!is_waiting && command->time_in_force == ZX_TIME_IN_FORCE_FOK &&
        trading_reachable(&order, command->qty_lots) < command->qty_lots) {
        return ZX_REASON_FOK_NOT_FILLABLE;
    }
    if (command->min_qty_lots != 0 &&
        trading_reachable(&order, command->min_qty_lots) < command->min_qty_lots) {
        return ZX_REASON_MIN_QTY_NOT_FILLABLE;
    }

    /* Accepted. */
    count_order(self, account);
    if (gain_balance == ZX_NONE) {
        order.gain_balance = ledger_make_balance(&self->ledger, account, trading_gain_asset(market, side));
    }
    ledger_hold(&self->ledger, hold_balance, hold);
    struct zx_execution_report *const report = report_to(self, account, ZX_EXEC_TYPE_NEW);
    report_order(report, &order.face);
    engine_outcome *const outcome = report_answer(self, report, order.face.order_id);
    self->previous_order = order.face.order_id;
    if (is_waiting) {
        const uint32_t slot = open_order(&order, command, expire_time_ns, true);
        trading_register(self, slot);
        if (has_trigger) triggers_wait(self, slot, command->trigger_ticks);
        else markets_wait(self, slot);
        return ZX_REASON_NONE;
    }
    if (market->state == ZX_MARKET_STATE_CONTINUOUS) trading_match(&order);
    if (order.face.leaves_lots > 0 && may_stay) {
        order.slot = open_order(&order, command, expire_time_ns, false);
        trading_rest(&order);
        trading_register(self, order.slot);
    } else if (order.face.leaves_lots > 0) {
        trading_end_taker(&order, ZX_EXEC_TYPE_CANCELLED, trading_remainder_reason(market));
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
        self->markets[trading_market_of(self, slot)].market_id != command->market_id) {
        return ZX_NONE;
    }
    return slot;
}

static int apply_cancel(engine *self, const struct zx_command *command) {
    const uint32_t slot = find_named_order(self, command);
    if (slot == ZX_NONE) return ZX_REASON_UNKNOWN_ORDER;
    trading_end_open(self, slot, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_CANCELLED_BY_USER, true);
    return ZX_REASON_NONE;
}

/* Reason why the order has nothing that the amend could change so, or ZX_REASON_NONE. */
static int amend_refusal(const engine *self, uint32_t slot, const struct zx_command *command) {
    const uint32_t flags = self->pool.orders[slot].flags;
    const bool is_waiting = (flags & ORDER_WAITING) != 0;
    const engine_terms *const terms = &self->terms[slot];
    const uint8_t time_in_force = trading_time_in_force_of(self, slot);
    const bool has_trigger = trading_has_trigger(&self->pool.orders[slot]);
    const bool is_trailing = has_trigger && terms->trigger == ZX_TRIGGER_TRAILING;
    const bool is_hidden = trading_is_hidden(self, slot);
    if ((command->options & ~AMEND_OPTIONS) != 0 || (command->options != 0 && is_waiting) ||
        (command->display_qty_lots != 0 && (is_hidden || !trading_stays_open(time_in_force))) ||
        (command->expire_time_ns != 0 && time_in_force != ZX_TIME_IN_FORCE_GTD) ||
        (command->trigger_ticks != 0 && !has_trigger) || (command->trail_ppm != 0 && !is_trailing) ||
        (command->trigger_ticks != 0 && is_trailing && terms->trail_ticks == 0) ||
        (command->trail_ppm != 0 && terms->trail_ppm == 0)) { /* it is trailing */
        return ZX_REASON_AMEND_INVALID;
    }
    if (command->trigger_ticks < 0 || command->trigger_ticks > ZX_TICKS_MAX || command->trail_ppm >= 1000000) {
        return ZX_REASON_TRIGGER_INVALID;
    }
    return ZX_REASON_NONE;
}

/* Gives the order its amended display and expiry. */
static void amend_terms(engine *self, uint32_t slot, const struct zx_command *command) {
    book_order *const order = &self->pool.orders[slot];
    if (command->display_qty_lots != 0) {
        before_order(self, slot);
        self->pool.terms[slot].display_lots = command->display_qty_lots;
        if (order->flags & ORDER_WAITING) self->terms[slot].is_iceberg = 1;
        else book_set_flags(order, BOOK_ICEBERG);
    }
    if (command->expire_time_ns != 0) triggers_move_expiry(self, slot, command->expire_time_ns);
}

/* An amended order that waits for its auction goes on waiting, if it `is_smaller` in its place. */
static void amend_for_auction(engine *self, uint32_t slot, const order_face *face, bool is_smaller) {
    book_order *const order = &self->pool.orders[slot];
    before_order(self, slot);
    self->terms[slot].price_ticks = face->price_ticks;
    book_resize(&self->markets[self->terms[slot].market].for_auctions, slot, face->qty_lots);
    order->qty_lots = face->qty_lots;
    order->leaves_lots = face->leaves_lots;
    if (!is_smaller) markets_wait_anew(self, slot);
}

/* An amended order with a trigger goes on waiting. */
static void amend_waiting(engine *self, uint32_t slot, const struct zx_command *command, const order_face *face) {
    engine_terms *const terms = &self->terms[slot];
    before_order(self, slot);
    terms->price_ticks = face->price_ticks;
    terms->self_trade_prevention = command->self_trade_prevention;
    book_order *const order = &self->pool.orders[slot];
    if (order->level != ZX_NONE) {
        book_resize(&self->markets[terms->market].stops[terms->on_reference], slot, face->qty_lots);
    }
    order->qty_lots = face->qty_lots;
    order->leaves_lots = face->leaves_lots;
    if (terms->trigger == ZX_TRIGGER_TRAILING && (command->trigger_ticks != 0 || command->trail_ppm != 0)) {
        terms->trail_ticks = command->trigger_ticks;
        terms->trail_ppm = command->trail_ppm;
    }
    if (command->trigger_ticks != 0 || command->trail_ppm != 0) {
        triggers_move(self, slot, command->trigger_ticks);
    }
}

static int apply_amend(engine *self, const struct zx_command *command) {
    const uint32_t slot = find_named_order(self, command);
    if (slot == ZX_NONE) return ZX_REASON_UNKNOWN_ORDER;
    if (trading_is_overdue(self, slot)) return ZX_REASON_UNKNOWN_ORDER;
    const book_order *const open = &self->pool.orders[slot];
    const bool is_waiting = (open->flags & ORDER_WAITING) != 0;
    engine_market *const market = &self->markets[trading_market_of(self, slot)];
    const uint8_t side = trading_side_of(self, slot);
    if (command->sizes_no != (uint8_t)market->sizes_no) return ZX_REASON_SIZES_CHANGED;
    const bool awaits_auction = trading_awaits_auction(open);
    const bool is_next = awaits_auction && market->state == ZX_MARKET_STATE_CLOSED; /* it waits for the open */
    const int closed = is_next ? ZX_REASON_NONE : market_closed_reason(market);
    if (closed != ZX_REASON_NONE) return closed;
    const int refusal = amend_refusal(self, slot, command);
    if (refusal != ZX_REASON_NONE) return refusal;
    if (command->options != 0 && collects(market)) return ZX_REASON_MARKET_NOT_CONTINUOUS;
    if (command->price_ticks < 0 || command->price_ticks > ZX_TICKS_MAX) {
        return ZX_REASON_PRICE_TICKS_OUT_OF_RANGE;
    }
    if (command->qty_lots > ZX_LOTS_MAX) return ZX_REASON_QTY_LOTS_OUT_OF_RANGE;
    const bool post_only = has_option(command, ZX_ORDER_OPTIONS_POST_ONLY);
    const bool slides = has_option(command, ZX_ORDER_OPTIONS_SLIDE);
    if (slides && !post_only) return ZX_REASON_SLIDE_WITHOUT_POST_ONLY;

    order_face face = trading_face_of(self, slot);
    int64_t price_ticks = command->price_ticks != 0 ? command->price_ticks : face.price_ticks;
    const uint64_t qty_lots = command->qty_lots != 0 ? command->qty_lots : face.qty_lots;
    const uint64_t old_display_lots = trading_display_of(self, slot);
    const uint64_t display_lots =
        command->display_qty_lots != 0 ? command->display_qty_lots : old_display_lots;
    if (qty_lots <= face.cum_qty_lots) {
        trading_end_open(self, slot, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_AMENDED_BELOW_FILLED, true);
        return ZX_REASON_NONE;
    }
    if (command->display_qty_lots > qty_lots) return ZX_REASON_DISPLAY_INVALID;
    if (command->expire_time_ns != 0 && command->expire_time_ns <= self->log_time_ns) {
        return ZX_REASON_EXPIRY_INVALID;
    }
    if (slides) price_ticks = slid_price(&market->book, side, price_ticks);
    const uint64_t leaves_lots = qty_lots - face.cum_qty_lots;
    const uint64_t hold_before = trading_hold_of(self, slot);
    const uint64_t hold = trading_hold_for(market, side, price_ticks, leaves_lots);
    if (hold == UINT64_MAX) return ZX_REASON_NOTIONAL_OVERFLOW;
    const int size = size_refusal(market, qty_lots, price_ticks, 0);
    if (size != ZX_REASON_NONE) return size;
    if (!is_within_rate(self, open->owner)) return ZX_REASON_ORDER_RATE_LIMIT;
    const uint32_t hold_balance =
        trading_must_find_balance(self, open->owner, trading_hold_asset(market, side));
    if (hold > hold_before && hold - hold_before > self->ledger.balances[hold_balance].available) {
        return ZX_REASON_INSUFFICIENT_FUNDS;
    }
    if (command->trigger_ticks != 0 && self->terms[slot].trigger != ZX_TRIGGER_TRAILING &&
        triggers_is_met(
            market, side, self->terms[slot].trigger, self->terms[slot].on_reference, command->trigger_ticks
        )) {
        return ZX_REASON_TRIGGER_MET;
    }
    const bool is_smaller =
        price_ticks == face.price_ticks && qty_lots <= face.qty_lots && display_lots == old_display_lots;
    const bool keeps_place = is_waiting || is_smaller;
    const bool must_not_trade = post_only || market->state == ZX_MARKET_STATE_POST_ONLY;
    if (must_not_trade && !keeps_place && book_crosses(&market->book, side, price_ticks)) {
        return ZX_REASON_POST_ONLY_WOULD_CROSS;
    }

    /* Accepted. */
    count_order(self, open->owner);
    if (hold > hold_before) ledger_hold(&self->ledger, hold_balance, hold - hold_before);
    else ledger_settle_hold(&self->ledger, hold_balance, hold_before - hold, 0);
    face.price_ticks = price_ticks;
    face.qty_lots = qty_lots;
    face.leaves_lots = leaves_lots;
    if (awaits_auction) amend_for_auction(self, slot, &face, is_smaller);
    else if (is_waiting) amend_waiting(self, slot, command, &face);
    else if (keeps_place) book_resize(&market->book, slot, qty_lots);
    else book_unlink(&market->book, slot);
    if (!keeps_place && open->flags & ORDER_AUCTION) markets_forget_auction_order(self, slot);
    amend_terms(self, slot, command);
    touch(self, TREE_ORDERS, slot);
    struct zx_execution_report *const report = report_to(self, open->owner, ZX_EXEC_TYPE_REPLACED);
    report_order(report, &face);
    engine_outcome *const outcome = report_answer(self, report, face.order_id);
    if (keeps_place) return ZX_REASON_NONE;

    taker order = trading_taker_of(self, slot, &face, command->self_trade_prevention);
    if (market->state == ZX_MARKET_STATE_CONTINUOUS) trading_match(&order);
    if (order.face.leaves_lots > 0) {
        trading_rest(&order);
    } else {
        trading_unregister(self, slot);
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
        if (command->side != ZX_SIDE_NONE && command->side != trading_wire_side(side)) continue;
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
        /* The other of a pair has its own turn. */
        if (orders[slot].flags & ORDER_PAIRED) trading_unpair(self, slot);
        trading_end_open(self, slot, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_MASS_CANCEL, false);
    }
    struct zx_execution_report *const report = report_to(self, account, ZX_EXEC_TYPE_MASS_CANCELLED);
    report->market_id = command->market_id;
    report->side = command->side;
    report->qty_lots = cancelled;
    report->leaves_lots = matching - cancelled;
    report_answer(self, report, 0);
    return ZX_REASON_NONE;
}

int orders_apply(engine *self, const struct zx_command *command) {
    const uint64_t previous_order = self->previous_order;
    self->previous_order = 0;
    switch (command->kind) {
    case ZX_COMMAND_KIND_NEW:
        return apply_new(self, command, previous_order);
    case ZX_COMMAND_KIND_CANCEL:
        return apply_cancel(self, command);
    case ZX_COMMAND_KIND_AMEND:
        return apply_amend(self, command);
    default:
        return apply_cancel_all(self, command);
    }
}

void orders_refuse(engine *self, const struct zx_command *command, int reason) {
    struct zx_execution_report *const report =
        report_to(self, (uint32_t)self->command.account, ZX_EXEC_TYPE_REJECTED);
    report_rejected_command(report, command, reason);
    report_answer(self, report, command->order_id);
}
