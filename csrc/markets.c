/* markets.c: states of markets, interruptions and auctions (docs/rules.md section 8). */

#include "markets.h"

#include "triggers.h"

#define STATE(name) (1u << ZX_MARKET_STATE_##name)

static const uint16_t transitions[ZX_MARKET_STATE_MAX + 1] = {
    [ZX_MARKET_STATE_CLOSED] = STATE(PRE_OPEN) | STATE(AUCTION) | STATE(CONTINUOUS) | STATE(POST_ONLY) |
                               STATE(HALTED) | STATE(EXPIRED),
    [ZX_MARKET_STATE_PRE_OPEN] = STATE(AUCTION) | STATE(HALTED) | STATE(CLOSED),
    [ZX_MARKET_STATE_AUCTION] = STATE(CONTINUOUS) | STATE(POST_ONLY) | STATE(HALTED) | STATE(CLOSED),
    [ZX_MARKET_STATE_CONTINUOUS] =
        STATE(AUCTION) | STATE(CLOSING_AUCTION) | STATE(HALTED) | STATE(POST_ONLY) | STATE(CLOSED),
    [ZX_MARKET_STATE_CLOSING_AUCTION] = STATE(HALTED) | STATE(CLOSED),
    [ZX_MARKET_STATE_HALTED] = STATE(PRE_OPEN) | STATE(AUCTION) | STATE(CONTINUOUS) | STATE(CLOSING_AUCTION) |
                               STATE(POST_ONLY) | STATE(CLOSED),
    [ZX_MARKET_STATE_POST_ONLY] =
        STATE(CONTINUOUS) | STATE(AUCTION) | STATE(CLOSING_AUCTION) | STATE(HALTED) | STATE(CLOSED),
};

bool markets_may_go(uint32_t from, uint32_t to) {
    if (from == to) return from != ZX_MARKET_STATE_UNCROSSING;
    return from <= ZX_MARKET_STATE_MAX && to <= ZX_MARKET_STATE_MAX && (transitions[from] >> to & 1) != 0;
}

uint32_t markets_after(uint32_t state) {
    switch (state) {
    case ZX_MARKET_STATE_PRE_OPEN:
        return ZX_MARKET_STATE_AUCTION;
    case ZX_MARKET_STATE_AUCTION:
    case ZX_MARKET_STATE_HALTED:
        return ZX_MARKET_STATE_CONTINUOUS;
    case ZX_MARKET_STATE_CLOSING_AUCTION:
        return ZX_MARKET_STATE_CLOSED;
    default:
        return ZX_MARKET_STATE_NONE;
    }
}

uint8_t markets_collects_for(uint32_t state) {
    switch (state) {
    case ZX_MARKET_STATE_PRE_OPEN:
    case ZX_MARKET_STATE_AUCTION:
        return ZX_TIME_IN_FORCE_AT_THE_OPEN;
    case ZX_MARKET_STATE_CLOSING_AUCTION:
        return ZX_TIME_IN_FORCE_AT_THE_CLOSE;
    default:
        return ZX_TIME_IN_FORCE_NONE;
    }
}

/* ------------------------------------------------------------ states */

static uint32_t index_of(const engine *self, const engine_market *market) {
    return (uint32_t)(market - self->markets);
}

static void set_member(slots *set, uint32_t index, bool is_member) {
    if (slots_is_taken(set, index) == is_member) return;
    if (is_member) slots_take(set, index);
    else slots_free(set, index);
}

/* Keeps the sets of markets with something ahead, and the first time at which one ends. */
static void note(engine *self, engine_market *market) {
    const uint32_t index = index_of(self, market);
    set_member(&self->uncrossing_markets, index, market->state == ZX_MARKET_STATE_UNCROSSING);
    set_member(
        &self->timed_markets, index, market->until_ns != 0 && market->state != ZX_MARKET_STATE_UNCROSSING
    );
    self->next_market_end_ns = UINT64_MAX;
    for (uint32_t at = slots_next_taken(&self->timed_markets, 0); at != ZX_NONE;
         at = slots_next_taken(&self->timed_markets, at + 1)) {
        if (self->markets[at].until_ns < self->next_market_end_ns) {
            self->next_market_end_ns = self->markets[at].until_ns;
        }
    }
    touch(self, TREE_MARKETS, index);
    triggers_look(self, market);
}

static bool is_crossed(const engine_market *market) {
    const book_level *const levels = market->book.pool->levels;
    const uint32_t bid = market->book.sides[BOOK_BUY].best;
    const uint32_t ask = market->book.sides[BOOK_SELL].best;
    return bid != ZX_NONE && ask != ZX_NONE && book_level_price(&levels[bid]) >= book_level_price(&levels[ask]);
}

/* ------------------------------------------------------------ orders for auctions */

static uint8_t auction_of(const engine *self, uint32_t slot) {
    return self->terms[slot].time_in_force;
}

/* The side of `for_auctions` in which those wait that are for the auction. */
static uint8_t waiting_side(uint8_t time_in_force) {
    return time_in_force == ZX_TIME_IN_FORCE_AT_THE_OPEN ? BOOK_BUY : BOOK_SELL;
}

/* The first of those that wait for the auction, or ZX_NONE. */
static uint32_t first_waiting(const engine *self, const engine_market *market, uint8_t time_in_force) {
    const uint32_t level = market->for_auctions.sides[waiting_side(time_in_force)].best;
    return level == ZX_NONE ? ZX_NONE : self->pool.levels[level].next;
}

/* The same, or first of the orders for auctions that rest if they are for this one. */
static bool has_orders_for(const engine *self, const engine_market *market, uint8_t time_in_force) {
    const bool rests = market->auction_head != ZX_NONE && auction_of(self, market->auction_head) == time_in_force;
    return rests || first_waiting(self, market, time_in_force) != ZX_NONE;
}

/* Whether nobody may wait for the auction in a state, because it is over. */
static bool is_missed(uint32_t state, uint8_t time_in_force) {
    if (state == ZX_MARKET_STATE_EXPIRED) return true;
    if (time_in_force == ZX_TIME_IN_FORCE_AT_THE_CLOSE) return state == ZX_MARKET_STATE_CLOSED;
    return state == ZX_MARKET_STATE_CONTINUOUS || state == ZX_MARKET_STATE_POST_ONLY ||
           state == ZX_MARKET_STATE_CLOSING_AUCTION;
}

/* What happens next to an order for an auction while its market is uncrossing. */
typedef struct move {
    uint32_t slot; /* ZX_NONE if all are where they belong */
    bool ends;     /* or else it comes to the book */
    bool is_last;  /* it happens behind the execution */
} move;

static move next_move(const engine *self, const engine_market *market) {
    const uint32_t next = market->next_state;
    const uint8_t collected = markets_collects_for(next);
    uint8_t belongs = collected; /* that is where orders for it belong in the book */
    if (!market->called_off) {
        belongs = next == ZX_MARKET_STATE_CLOSED ? ZX_TIME_IN_FORCE_AT_THE_CLOSE : ZX_TIME_IN_FORCE_AT_THE_OPEN;
    }
    const uint32_t resting = market->auction_head;
    if (resting != ZX_NONE && auction_of(self, resting) != belongs) return (move){.slot = resting, .ends = true};
    const uint32_t coming =
        belongs == ZX_TIME_IN_FORCE_NONE ? ZX_NONE : first_waiting(self, market, belongs);
    if (coming != ZX_NONE) return (move){.slot = coming};
    move last = {.slot = ZX_NONE, .ends = true, .is_last = true};
    if (resting != ZX_NONE && auction_of(self, resting) != collected) last.slot = resting;
    uint8_t auction = ZX_TIME_IN_FORCE_AT_THE_OPEN;
    for (; last.slot == ZX_NONE && auction <= ZX_TIME_IN_FORCE_AT_THE_CLOSE; auction++) {
        if (is_missed(next, auction)) last.slot = first_waiting(self, market, auction);
    }
    return last;
}

static void arrive(engine_market *market) {
    market->state = market->next_state;
    market->next_state = ZX_MARKET_STATE_NONE;
    market->called_off = 0;
}

void markets_enter(engine *self, engine_market *market, uint32_t state, uint64_t until_ns) {
    const bool may_trade = state == ZX_MARKET_STATE_CONTINUOUS || state == ZX_MARKET_STATE_POST_ONLY;
    const bool opens = may_trade && (market->state == ZX_MARKET_STATE_AUCTION || is_crossed(market) ||
                                     has_orders_for(self, market, ZX_TIME_IN_FORCE_AT_THE_OPEN));
    const bool closes = market->state == ZX_MARKET_STATE_CLOSING_AUCTION && state == ZX_MARKET_STATE_CLOSED;
    market->until_ns = until_ns;
    if (state == ZX_MARKET_STATE_HALTED) { /* everything stays where it is */
        market->state = state;
    } else {
        market->state = ZX_MARKET_STATE_UNCROSSING;
        market->next_state = state;
        market->called_off = !(opens || closes);
        if (market->called_off && next_move(self, market).slot == ZX_NONE) arrive(market);
    }
    note(self, market);
}

static void report_state(engine *self, const engine_market *market) {
    struct zx_execution_report *const report =
        report_to(self, ENGINE_OPERATOR_ACCOUNT, ZX_EXEC_TYPE_MARKET_STATE_SET);
    report->market_id = market->market_id;
    report->market_state = (uint8_t)market->state;
}

void markets_interrupt(engine *self, engine_market *market) {
    before_market(self, market);
    market->state = ZX_MARKET_STATE_AUCTION;
    market->until_ns = 0;
    if (market->interruption_ns != 0 &&
        __builtin_add_overflow(self->log_time_ns, market->interruption_ns, &market->until_ns)) {
        market->until_ns = UINT64_MAX;
    }
    note(self, market);
    report_state(self, market);
}

void markets_end_states(engine *self) {
    uint32_t ended = 0;
    uint32_t index = self->next_market_end_ns <= self->log_time_ns ? slots_next_taken(&self->timed_markets, 0)
                                                                   : ZX_NONE;
    for (; index != ZX_NONE && ended < ENGINE_MARKET_ENDS_MAX;
         index = slots_next_taken(&self->timed_markets, index + 1)) {
        engine_market *const market = &self->markets[index];
        if (market->until_ns > self->log_time_ns) continue;
        markets_enter(self, market, markets_after(market->state), 0);
        report_state(self, market);
        ended++;
    }
}

/* ------------------------------------------------------------ orders for auctions and their queues */

void markets_add_auction_order(engine *self, uint32_t slot) {
    engine_market *const market = &self->markets[self->terms[slot].market];
    engine_terms *const terms = &self->terms[slot];
    before_market(self, market);
    before_order(self, slot);
    if (market->auction_tail != ZX_NONE) before_order(self, market->auction_tail);
    terms->list_next = ZX_NONE;
    terms->list_prev = market->auction_tail;
    if (market->auction_tail != ZX_NONE) self->terms[market->auction_tail].list_next = slot;
    else market->auction_head = slot;
    market->auction_tail = slot;
}

void markets_forget_auction_order(engine *self, uint32_t slot) {
    engine_market *const market = &self->markets[self->terms[slot].market];
    const engine_terms *const terms = &self->terms[slot];
    before_market(self, market);
    if (terms->list_prev != ZX_NONE) before_order(self, terms->list_prev);
    if (terms->list_next != ZX_NONE) before_order(self, terms->list_next);
    if (terms->list_prev != ZX_NONE) self->terms[terms->list_prev].list_next = terms->list_next;
    else market->auction_head = terms->list_next;
    if (terms->list_next != ZX_NONE) self->terms[terms->list_next].list_prev = terms->list_prev;
    else market->auction_tail = terms->list_prev;
}

void markets_wait(engine *self, uint32_t slot) {
    const uint8_t side = waiting_side(auction_of(self, slot));
    const bool rested = book_rest(&self->markets[self->terms[slot].market].for_auctions, slot, side, 1);
    ZX_ASSERT(rested); /* holds bound the lots that wait: of each side to below 2^63 */
    touch(self, TREE_ORDERS, slot);
}

void markets_wait_anew(engine *self, uint32_t slot) {
    book_unlink(&self->markets[self->terms[slot].market].for_auctions, slot);
    markets_wait(self, slot);
}

void markets_forget_waiting(engine *self, uint32_t slot) {
    book_unlink(&self->markets[self->terms[slot].market].for_auctions, slot);
    before_order(self, slot);
    book_clear_flags(&self->pool.orders[slot], ORDER_WAITING);
}

bool markets_restore_waiting(engine *self, uint32_t slot) {
    const uint8_t side = waiting_side(auction_of(self, slot));
    return book_restore(&self->markets[self->terms[slot].market].for_auctions, slot, side, 1);
}

/* An order that waited comes to the book. */
static void come(engine *self, uint32_t slot) {
    book_order *const order = &self->pool.orders[slot];
    const engine_terms *const terms = &self->terms[slot];
    const order_face face = trading_face_of(self, slot);
    markets_forget_waiting(self, slot);
    book_set_flags(order, (terms->is_iceberg ? BOOK_ICEBERG : 0) | (terms->is_hidden ? BOOK_HIDDEN : 0));
    report_order(report_to(self, order->owner, ZX_EXEC_TYPE_TRIGGERED), &face);
    taker incoming = trading_taker_of(self, slot, &face, ZX_SELF_TRADE_PREVENTION_NONE);
    trading_rest(&incoming);
}

/* ------------------------------------------------------------ price of an auction */

/* What is known of a range of prices: all of them trade the same. */
typedef struct candidate {
    int64_t low_ticks, high_ticks;
    uint64_t wanted_lots, offered_lots;
} candidate;

/* The best price so far. */
typedef struct choice {
    int64_t reference_ticks;
    int64_t price_ticks; /* 0 before the first */
    uint64_t qty_lots, imbalance_lots, distance_ticks;
} choice;

static uint64_t distance(uint64_t a, uint64_t b) {
    return a > b ? a - b : b - a;
}

static void consider(choice *best, const candidate *found) {
    int64_t price_ticks = best->reference_ticks;
    if (price_ticks < found->low_ticks) price_ticks = found->low_ticks;
    if (price_ticks > found->high_ticks) price_ticks = found->high_ticks;
    const uint64_t qty_lots =
        found->wanted_lots < found->offered_lots ? found->wanted_lots : found->offered_lots;
    const uint64_t imbalance_lots = distance(found->wanted_lots, found->offered_lots);
    const uint64_t distance_ticks = distance((uint64_t)price_ticks, (uint64_t)best->reference_ticks);
    if (best->price_ticks != 0) {
        if (qty_lots < best->qty_lots) return;
        if (qty_lots == best->qty_lots) {
            if (imbalance_lots > best->imbalance_lots) return;
            if (imbalance_lots == best->imbalance_lots) {
                if (distance_ticks > best->distance_ticks) return;
                if (distance_ticks == best->distance_ticks && price_ticks > best->price_ticks) return;
            }
        }
    }
    best->price_ticks = price_ticks;
    best->qty_lots = qty_lots;
    best->imbalance_lots = imbalance_lots;
    best->distance_ticks = distance_ticks;
}

/* The levels of both sides that trade, from the best inwards. */
typedef struct reach {
    const book *book;
    uint64_t looks_left; /* levels, and single orders, that may still be looked at */
    bool is_over;        /* it would take more */
} reach;

/* All that is open in a level; 0 if that is a look too many, or there is no such level. */
static uint64_t look(reach *self, uint32_t level) {
    if (level == ZX_NONE || self->is_over) return 0;
    const book_level *const found = &self->book->pool->levels[level];
    const uint64_t looks = found->is_veiled ? found->order_count : 1;
    if (looks > self->looks_left) {
        self->is_over = true;
        return 0;
    }
    self->looks_left -= looks;
    return book_open_lots(self->book->pool, level);
}

static int64_t price_of(const reach *self, uint32_t level, int64_t if_none) {
    return level == ZX_NONE ? if_none : book_level_price(&self->book->pool->levels[level]);
}

static uint32_t worse_than(const reach *self, uint32_t level) {
    return level == ZX_NONE ? ZX_NONE : book_worse_level(self->book, level);
}

static bool is_crossing(const reach *self, uint32_t bid, uint32_t ask) {
    return bid != ZX_NONE && ask != ZX_NONE && price_of(self, bid, 0) >= price_of(self, ask, 0);
}

static void consider_range(
    choice *best, int64_t low_ticks, int64_t high_ticks, uint64_t wanted_lots, uint64_t offered_lots
) {
    const candidate found = {low_ticks, high_ticks, wanted_lots, offered_lots};
    consider(best, &found);
}

/*
 *      bids that trade          bid   next_bid
 *      o───────o──────────o──────o      o                     most is traded from the price of `ask` to that of `bid`:
 *      highest                                                there is the price that leaves least on one side
 *               o   o──────o─────────────o──────o
 *        next_ask  ask          sales that trade  lowest
 *
 * Walks both sides from the best inwards for as long as they trade with each other, so its cost is in what trades.
 */
engine_auction markets_auction(const engine_market *market, uint64_t looks_max) {
    reach at = {.book = &market->book, .looks_left = looks_max};
    uint32_t bid = market->book.sides[BOOK_BUY].best;
    uint32_t ask = market->book.sides[BOOK_SELL].best;
    if (!is_crossing(&at, bid, ask)) return (engine_auction){0};
    uint64_t wanted_lots = look(&at, bid);   /* at the price of `bid` */
    uint64_t offered_lots = look(&at, ask); /* at the price of `ask` */
    while (!at.is_over) {
        const uint32_t bid_after = wanted_lots <= offered_lots ? worse_than(&at, bid) : bid;
        const uint32_t ask_after = wanted_lots >= offered_lots ? worse_than(&at, ask) : ask;
        if (!is_crossing(&at, bid_after, ask_after)) break;
        if (bid_after != bid) wanted_lots += look(&at, bid_after);
        if (ask_after != ask) offered_lots += look(&at, ask_after);
        bid = bid_after;
        ask = ask_after;
    }
    if (at.is_over) return (engine_auction){0};
    const uint64_t qty_lots = wanted_lots < offered_lots ? wanted_lots : offered_lots;
    const uint32_t next_bid = worse_than(&at, bid);
    const uint32_t next_ask = worse_than(&at, ask);
    const int64_t lowest = price_of(&at, ask, 0);
    const int64_t highest = price_of(&at, bid, 0);
    int64_t low = price_of(&at, next_bid, 0) + 1;
    int64_t high = price_of(&at, next_ask, INT64_MAX) - 1;
    choice best = {
        .reference_ticks = market->last_ticks != 0 ? market->last_ticks : market->reference_ticks,
    };
    if (wanted_lots > qty_lots) high = highest;
    if (offered_lots > qty_lots) low = lowest;
    if (low < lowest) low = lowest;
    if (high > highest) high = highest;
    if (low <= high) {
        consider_range(&best, low, high, wanted_lots, offered_lots);
    } else { /* the next two are one tick apart: one of them would have to stay */
        const int64_t next_bid_ticks = price_of(&at, next_bid, 0);
        const int64_t next_ask_ticks = price_of(&at, next_ask, 0);
        low = price_of(&at, worse_than(&at, next_bid), 0) + 1;
        high = price_of(&at, worse_than(&at, next_ask), INT64_MAX) - 1;
        consider_range(
            &best, low > lowest ? low : lowest, next_bid_ticks, wanted_lots + look(&at, next_bid), offered_lots
        );
        consider_range(
            &best, next_ask_ticks, high < highest ? high : highest, wanted_lots, offered_lots + look(&at, next_ask)
        );
    }
    if (at.is_over) return (engine_auction){0};
    return (engine_auction){.price_ticks = best.price_ticks, .qty_lots = best.qty_lots};
}

/* ------------------------------------------------------------ between two states */

/* The price nearest to this one at which the best orders of a crossed book trade. */
static int64_t nearest_price(const engine_market *market, int64_t price_ticks) {
    const book_level *const levels = market->book.pool->levels;
    const int64_t lowest = book_level_price(&levels[market->book.sides[BOOK_SELL].best]);
    const int64_t highest = book_level_price(&levels[market->book.sides[BOOK_BUY].best]);
    if (price_ticks < lowest) return lowest;
    return price_ticks > highest ? highest : price_ticks;
}

/* The two orders that come first meet. */
static void meet(engine *self, engine_market *market) {
    const uint32_t buy = book_next_maker(&market->book, BOOK_SELL);
    const uint32_t sell = book_next_maker(&market->book, BOOK_BUY);
    const uint32_t both[2] = {buy, sell};
    for (uint32_t at = 0; at < 2; at++) {
        const uint32_t slot = both[at];
        if (trading_is_overdue(self, slot)) {
            trading_end_open(self, slot, ZX_EXEC_TYPE_EXPIRED, ZX_REASON_ORDER_EXPIRED, false);
            return;
        }
    }
    if (trading_is_same_owner(self, buy, sell)) {
        const bool buy_is_newer = self->pool.orders[buy].priority_no > self->pool.orders[sell].priority_no;
        trading_end_open(
            self, buy_is_newer ? buy : sell, ZX_EXEC_TYPE_SELF_TRADE_PREVENTED, ZX_REASON_SELF_TRADE, false
        );
        return;
    }
    trading_fill_in_auction(self, market, buy, sell);
}

/* An order for an auction ends, or comes to the book. */
static void make_move(engine *self, const move *next) {
    if (!next->ends) come(self, next->slot);
    else trading_end_open(self, next->slot, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_AUCTION_REMAINDER, false);
}

/* One fill, or the end of one order. Returns false if nothing trades any more. */
static bool execute(engine *self, engine_market *market) {
    const int64_t before_ticks = market->auction_ticks;
    if (!is_crossed(market)) market->auction_ticks = 0;
    else if (before_ticks == 0) market->auction_ticks = markets_auction(market, UINT64_MAX).price_ticks;
    else market->auction_ticks = nearest_price(market, before_ticks);
    if (market->auction_ticks != before_ticks) touch(self, TREE_MARKETS, index_of(self, market));
    if (market->auction_ticks == 0) return false;
    meet(self, market);
    return true;
}

/* One fill, an order that comes or ends, or the next state. */
static void step(engine *self, engine_market *market) {
    const move next = next_move(self, market);
    const bool is_first = next.slot != ZX_NONE && !next.is_last;
    if (!is_first && !market->called_off && execute(self, market)) return;
    if (next.slot != ZX_NONE) {
        make_move(self, &next);
    } else {
        arrive(market);
        note(self, market);
        report_state(self, market);
    }
}

void markets_run(engine *self) {
    uint32_t steps = 0;
    for (uint32_t index = slots_next_taken(&self->uncrossing_markets, 0);
         index != ZX_NONE && steps < ENGINE_AUCTION_STEPS_MAX;
         index = slots_next_taken(&self->uncrossing_markets, index + 1)) {
        engine_market *const market = &self->markets[index];
        const uint64_t first_trade_id = self->next_trade_id;
        while (market->state == ZX_MARKET_STATE_UNCROSSING && steps < ENGINE_AUCTION_STEPS_MAX) {
            step(self, market);
            steps++;
        }
        if (self->next_trade_id > first_trade_id) triggers_price_moved(self, market, false);
    }
}

/* ------------------------------------------------------------ snapshots, checks */

void markets_restore(engine *self) {
    for (uint32_t index = 0; index < self->market_count; index++) note(self, &self->markets[index]);
}

/* Those that rest are listed, and both they and those that wait are where the state lets them be. */
static const char *check_auction_orders(const engine *self, const engine_market *market, uint32_t index) {
    uint64_t priority_no = 0;
    const uint8_t auction = market->auction_head == ZX_NONE ? 0 : auction_of(self, market->auction_head);
    for (uint32_t slot = market->auction_head; slot != ZX_NONE; slot = self->terms[slot].list_next) {
        const book_order *const order = &self->pool.orders[slot];
        if (!slots_is_taken(&self->pool.taken, slot) || !(order->flags & ORDER_AUCTION) ||
            order->flags & ORDER_WAITING || order->priority_no <= priority_no ||
            self->terms[slot].market != index || auction_of(self, slot) != auction) {
            return "a market's orders for auctions are not in order";
        }
        priority_no = order->priority_no;
    }
    for (uint32_t side = 0; side < 2; side++) {
        const uint32_t best = market->for_auctions.sides[side].best;
        if (best == ZX_NONE) continue;
        const book_level *const level = &self->pool.levels[best];
        if (book_worse_level(&market->for_auctions, best) != ZX_NONE || book_level_price(level) != 1) {
            return "a market's orders that wait for an auction are not in one queue";
        }
    }
    if (market->state == ZX_MARKET_STATE_UNCROSSING) return NULL;
    const uint8_t collected = markets_collects_for(market->state);
    if (auction != 0 && auction != collected && market->state != ZX_MARKET_STATE_HALTED) {
        return "an order for an auction rests while that is not on";
    }
    for (uint8_t one = ZX_TIME_IN_FORCE_AT_THE_OPEN; one <= ZX_TIME_IN_FORCE_AT_THE_CLOSE; one++) {
        if ((is_missed(market->state, one) || one == collected) && first_waiting(self, market, one) != ZX_NONE) {
            return "an order waits for an auction that is on, or over";
        }
    }
    return NULL;
}

const char *markets_check(const engine *self, uint32_t index) {
    const engine_market *const market = &self->markets[index];
    const bool is_between = market->state == ZX_MARKET_STATE_UNCROSSING;
    const bool executes = is_between && market->called_off == 0;
    const uint32_t next = market->next_state;
    const bool may_follow = next != ZX_MARKET_STATE_NONE && next <= ZX_MARKET_STATE_MAX &&
                            next != ZX_MARKET_STATE_HALTED && next != ZX_MARKET_STATE_UNCROSSING;
    const bool may_execute = next == ZX_MARKET_STATE_CLOSED || next == ZX_MARKET_STATE_CONTINUOUS ||
                             next == ZX_MARKET_STATE_POST_ONLY;
    if (market->state == ZX_MARKET_STATE_NONE || market->state > ZX_MARKET_STATE_MAX) {
        return "a market is in no state";
    }
    if (is_between ? !may_follow : next != ZX_MARKET_STATE_NONE) return "a market's next state is wrong";
    if (market->called_off > is_between || (executes && !may_execute)) return "a market's auction is wrong";
    if ((!executes && market->auction_ticks != 0) || market->auction_ticks < 0 ||
        market->auction_ticks > ZX_TICKS_MAX) {
        return "the price of a market's auction is wrong";
    }
    if (market->until_ns != 0 && markets_after(is_between ? next : market->state) == ZX_MARKET_STATE_NONE) {
        return "a market's state cannot end";
    }
    if (market->dynamic_band_ppm >= ENGINE_PPM || market->static_band_ppm >= ENGINE_PPM ||
        market->qty_lots_max > ZX_LOTS_MAX || market->notional_max > ZX_AMOUNT_MAX ||
        market->interruption_ns > ENGINE_INTERRUPTION_NS_MAX) {
        return "a market's rules are out of range";
    }
    const bool is_timed = market->until_ns != 0 && !is_between;
    if (slots_is_taken(&self->uncrossing_markets, index) != is_between ||
        slots_is_taken(&self->timed_markets, index) != is_timed ||
        (is_timed && market->until_ns < self->next_market_end_ns)) {
        return "a market with something ahead is forgotten";
    }
    const bool may_trade =
        market->state == ZX_MARKET_STATE_CONTINUOUS || market->state == ZX_MARKET_STATE_POST_ONLY;
    if (may_trade && is_crossed(market)) return "the book is crossed";
    return check_auction_orders(self, market, index);
}

const char *markets_check_waiting(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    const engine_terms *const terms = &self->terms[slot];
    if (order->level == ZX_NONE || terms->market >= self->market_count || terms->side > 1) {
        return "an order that waits for its auction is nowhere";
    }
    const uint8_t side = waiting_side(terms->time_in_force);
    if (self->markets[terms->market].for_auctions.sides[side].best != order->level) {
        return "an order waits for another auction";
    }
    if (terms->trigger != ZX_TRIGGER_NONE || order->flags & (BOOK_ICEBERG | BOOK_HIDDEN | BOOK_TIMED)) {
        return "an order waits for its auction as if it rested";
    }
    if (terms->is_iceberg > 1 || terms->is_hidden > 1 ||
        (terms->is_iceberg && self->pool.terms[slot].display_lots == 0)) {
        return "what an order for an auction will show is wrong";
    }
    return NULL;
}
