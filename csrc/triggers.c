/* triggers.c: what happens by itself (docs/rules.md section 7). */

#include "triggers.h"

/* ------------------------------------------------------------ time */

/* Whether the order in slot `a` expires before the one in slot `b`. */
static bool expires_before(const engine *self, uint32_t a, uint32_t b) {
    const uint64_t time_a = self->pool.terms[a].expire_time_ns;
    const uint64_t time_b = self->pool.terms[b].expire_time_ns;
    return time_a != time_b ? time_a < time_b : self->pool.orders[a].order_id < self->pool.orders[b].order_id;
}

static void place(engine *self, uint32_t at, uint32_t slot) {
    undo_before(self->undo, &self->expiry_heap[at], sizeof(uint32_t));
    before_order(self, slot);
    self->expiry_heap[at] = slot;
    self->terms[slot].heap_at = at;
}

static void sift_up(engine *self, uint32_t at) {
    const uint32_t slot = self->expiry_heap[at];
    while (at > 0 && expires_before(self, slot, self->expiry_heap[(at - 1) / 2])) {
        place(self, at, self->expiry_heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(self, at, slot);
}

static void sift_down(engine *self, uint32_t at) {
    const uint32_t slot = self->expiry_heap[at];
    for (uint32_t child = at * 2 + 1; child < self->expiry_count; child = at * 2 + 1) {
        if (child + 1 < self->expiry_count &&
            expires_before(self, self->expiry_heap[child + 1], self->expiry_heap[child])) {
            child++;
        }
        if (!expires_before(self, self->expiry_heap[child], slot)) break;
        place(self, at, self->expiry_heap[child]);
        at = child;
    }
    place(self, at, slot);
}

void triggers_add_expiry(engine *self, uint32_t slot) {
    place(self, self->expiry_count, slot);
    sift_up(self, self->expiry_count++);
}

void triggers_remove_expiry(engine *self, uint32_t slot) {
    const uint32_t at = self->terms[slot].heap_at;
    ZX_ASSERT(at < self->expiry_count && self->expiry_heap[at] == slot);
    const uint32_t moved = self->expiry_heap[--self->expiry_count];
    if (moved == slot) return;
    place(self, at, moved);
    sift_up(self, at);
    sift_down(self, self->terms[moved].heap_at);
}

void triggers_move_expiry(engine *self, uint32_t slot, uint64_t expire_time_ns) {
    before_order(self, slot);
    self->pool.terms[slot].expire_time_ns = expire_time_ns;
    sift_up(self, self->terms[slot].heap_at);
    sift_down(self, self->terms[slot].heap_at);
}

void triggers_expire(engine *self) {
    for (uint32_t expired = 0; expired < ENGINE_EXPIRIES_MAX && self->expiry_count > 0; expired++) {
        const uint32_t slot = self->expiry_heap[0];
        if (self->pool.terms[slot].expire_time_ns > self->log_time_ns) return;
        trading_end_open(self, slot, ZX_EXEC_TYPE_EXPIRED, ZX_REASON_ORDER_EXPIRED, false);
    }
}

/* ------------------------------------------------------------ waiting */

static int64_t source_price(const engine_market *market, bool on_reference) {
    return on_reference ? market->reference_ticks : market->last_ticks;
}

/* Whether it waits for a price at or above its trigger price, not at or below. */
static bool triggers_upwards(uint8_t side, uint8_t trigger) {
    return (side == BOOK_BUY) != (trigger == ZX_TRIGGER_TAKE_PROFIT);
}

bool triggers_is_met(
    const engine_market *market, uint8_t side, uint8_t trigger, bool on_reference, int64_t trigger_ticks
) {
    const int64_t price_ticks = source_price(market, on_reference);
    if (price_ticks == 0) return false;
    return triggers_upwards(side, trigger) ? price_ticks >= trigger_ticks : price_ticks <= trigger_ticks;
}

static engine_market *market_of(engine *self, uint32_t slot) {
    return &self->markets[self->terms[slot].market];
}

static book *stops_of(engine *self, uint32_t slot) {
    return &market_of(self, slot)->stops[self->terms[slot].on_reference];
}

/* The side of `stops` in which it waits. */
static uint8_t direction_of(const engine *self, uint32_t slot) {
    return triggers_upwards(self->terms[slot].side, self->terms[slot].trigger) ? BOOK_SELL : BOOK_BUY;
}

/* To the back of those that wait for the same price; 0 takes it out of all queues. */
static void wait_for(engine *self, uint32_t slot, int64_t trigger_ticks) {
    book_order *const order = &self->pool.orders[slot];
    if (order->level != ZX_NONE) book_unlink(stops_of(self, slot), slot);
    if (trigger_ticks == 0) {
        before_order(self, slot);
        order->priority_no = 0;
    } else {
        const bool rested = book_rest(stops_of(self, slot), slot, direction_of(self, slot), trigger_ticks);
        ZX_ASSERT(rested); /* holds bound the lots that wait: of each side to below 2^63 */
    }
    touch(self, TREE_ORDERS, slot);
}

/* If the price is the best so far for a trailing order, its trigger price moves. Returns whether it is. */
static bool follow(engine *self, uint32_t slot, int64_t price_ticks) {
    engine_terms *const terms = &self->terms[slot];
    const bool is_sell = terms->side == BOOK_SELL;
    if (price_ticks == 0) {
        wait_for(self, slot, 0);
        return false;
    }
    if (terms->best_ticks != 0 &&
        (is_sell ? price_ticks <= terms->best_ticks : price_ticks >= terms->best_ticks)) {
        return false;
    }
    before_order(self, slot);
    terms->best_ticks = price_ticks;
    touch(self, TREE_ORDERS, slot);
    const int64_t distance_ticks =
        terms->trail_ticks != 0 ? terms->trail_ticks
                                : (int64_t)trading_ppm_of((uint64_t)price_ticks, terms->trail_ppm);
    const int64_t trigger_ticks = is_sell ? price_ticks - distance_ticks : price_ticks + distance_ticks;
    if (trigger_ticks < 1 || trigger_ticks > ZX_TICKS_MAX) wait_for(self, slot, 0);
    else if (trigger_ticks != triggers_price_of(self, slot)) wait_for(self, slot, trigger_ticks);
    return true;
}

void triggers_restore_trailing(engine *self, uint32_t slot) {
    engine_market *const market = market_of(self, slot);
    engine_terms *const terms = &self->terms[slot];
    before_market(self, market);
    before_order(self, slot);
    terms->list_next = ZX_NONE;
    terms->list_prev = market->trailing_tail;
    if (market->trailing_tail != ZX_NONE) before_order(self, market->trailing_tail);
    if (market->trailing_tail != ZX_NONE) self->terms[market->trailing_tail].list_next = slot;
    else market->trailing_head = slot;
    market->trailing_tail = slot;
    market->trailing_count++;
}

void triggers_wait(engine *self, uint32_t slot, int64_t trigger_ticks) {
    engine_market *const market = market_of(self, slot);
    before_market(self, market);
    market->waiting_count++;
    if (self->terms[slot].trigger != ZX_TRIGGER_TRAILING) {
        wait_for(self, slot, trigger_ticks);
        return;
    }
    triggers_restore_trailing(self, slot);
    follow(self, slot, source_price(market, self->terms[slot].on_reference));
}

bool triggers_restore(engine *self, uint32_t slot, int64_t trigger_ticks) {
    market_of(self, slot)->waiting_count++;
    return trigger_ticks == 0 ||
           book_restore(stops_of(self, slot), slot, direction_of(self, slot), trigger_ticks);
}

void triggers_move(engine *self, uint32_t slot, int64_t trigger_ticks) {
    engine_terms *const terms = &self->terms[slot];
    if (terms->trigger == ZX_TRIGGER_TRAILING) {
        const int64_t best_ticks = terms->best_ticks;
        before_order(self, slot);
        terms->best_ticks = 0;
        wait_for(self, slot, 0);
        follow(self, slot, best_ticks);
    } else {
        wait_for(self, slot, trigger_ticks);
    }
    triggers_look(self, market_of(self, slot));
}

static void before_neighbours(engine *self, const engine_terms *terms) {
    if (terms->list_prev != ZX_NONE) before_order(self, terms->list_prev);
    if (terms->list_next != ZX_NONE) before_order(self, terms->list_next);
}

void triggers_forget(engine *self, uint32_t slot) {
    engine_market *const market = market_of(self, slot);
    book_order *const order = &self->pool.orders[slot];
    engine_terms *const terms = &self->terms[slot];
    before_market(self, market);
    before_order(self, slot);
    market->waiting_count--;
    if (order->level != ZX_NONE) book_unlink(stops_of(self, slot), slot);
    if (terms->trigger == ZX_TRIGGER_TRAILING) {
        before_neighbours(self, terms);
        if (terms->list_prev != ZX_NONE) self->terms[terms->list_prev].list_next = terms->list_next;
        else market->trailing_head = terms->list_next;
        if (terms->list_next != ZX_NONE) self->terms[terms->list_next].list_prev = terms->list_prev;
        else market->trailing_tail = terms->list_prev;
        market->trailing_count--;
    }
    book_clear_flags(order, ORDER_WAITING);
}

/* ------------------------------------------------------------ triggering */

/* The waiting order that comes first of those that are due, or ZX_NONE. */
static uint32_t next_due(const engine *self, const engine_market *market) {
    const book_level *const levels = self->pool.levels;
    for (uint32_t on_reference = 0; on_reference < 2; on_reference++) {
        const book *const stops = &market->stops[on_reference];
        const int64_t price_ticks = source_price(market, on_reference);
        if (price_ticks == 0) continue;
        const uint32_t rising = stops->sides[BOOK_SELL].best;
        if (rising != ZX_NONE && price_ticks >= book_level_price(&levels[rising])) return levels[rising].next;
        const uint32_t falling = stops->sides[BOOK_BUY].best;
        if (falling != ZX_NONE && price_ticks <= book_level_price(&levels[falling])) return levels[falling].next;
    }
    return ZX_NONE;
}

void triggers_look(engine *self, engine_market *market) {
    const uint32_t index = (uint32_t)(market - self->markets);
    if (market->waiting_count == 0 || market->state != ZX_MARKET_STATE_CONTINUOUS) return;
    if (slots_is_taken(&self->due_markets, index) || next_due(self, market) == ZX_NONE) return;
    slots_take(&self->due_markets, index);
}

uint32_t triggers_price_moved(engine *self, engine_market *market, bool on_reference) {
    uint32_t followed = 0;
    if (market->waiting_count == 0) return followed;
    const int64_t price_ticks = source_price(market, on_reference);
    for (uint32_t slot = market->trailing_head; slot != ZX_NONE; slot = self->terms[slot].list_next) {
        if (self->terms[slot].on_reference == on_reference && follow(self, slot, price_ticks)) followed++;
    }
    triggers_look(self, market);
    return followed;
}

/* A waiting order comes to the book, or ends if it is past its time. Returns how many resting orders it
 * used, and trailing orders it moved. */
static uint32_t trigger(engine *self, uint32_t slot) {
    if (trading_is_overdue(self, slot)) {
        trading_end_open(self, slot, ZX_EXEC_TYPE_EXPIRED, ZX_REASON_ORDER_EXPIRED, false);
        return 0;
    }
    book_order *const order = &self->pool.orders[slot];
    engine_terms *const terms = &self->terms[slot];
    const order_face face = trading_face_of(self, slot);
    triggers_forget(self, slot);
    terms->trigger = ZX_TRIGGER_NONE;
    if (terms->is_iceberg) book_set_flags(order, BOOK_ICEBERG);
    if (terms->is_hidden) book_set_flags(order, BOOK_HIDDEN);
    touch(self, TREE_ORDERS, slot);
    report_order(report_to(self, order->owner, ZX_EXEC_TYPE_TRIGGERED), &face);
    taker incoming = trading_taker_of(self, slot, &face, terms->self_trade_prevention);
    trading_end_pair(&incoming);
    if (terms->time_in_force == ZX_TIME_IN_FORCE_FOK &&
        trading_reachable(&incoming, face.leaves_lots) < face.leaves_lots) {
        trading_end_taker(&incoming, ZX_EXEC_TYPE_CANCELLED, ZX_REASON_FOK_NOT_FILLABLE);
    } else {
        trading_match(&incoming);
    }
    if (incoming.face.leaves_lots > 0 && trading_stays_open(terms->time_in_force)) {
        trading_rest(&incoming);
        return incoming.makers + incoming.followers;
    }
    if (incoming.face.leaves_lots > 0) {
        trading_end_taker(&incoming, ZX_EXEC_TYPE_CANCELLED, trading_remainder_reason(incoming.market));
    }
    trading_unregister(self, slot);
    book_free_slot(&self->pool, slot);
    return incoming.makers + incoming.followers;
}

void triggers_run(engine *self) {
    uint32_t triggered = 0;
    uint32_t touched = 0; /* makers and trailing orders */
    while (self->due_markets.count > 0) {
        const uint32_t index = slots_next_taken(&self->due_markets, 0);
        const engine_market *const market = &self->markets[index];
        const uint32_t slot =
            market->state == ZX_MARKET_STATE_CONTINUOUS ? next_due(self, market) : ZX_NONE;
        if (slot == ZX_NONE) {
            slots_free(&self->due_markets, index);
            continue;
        }
        if (triggered == ENGINE_TRIGGERED_MAX || touched >= ENGINE_MAKERS_MAX) return;
        touched += trigger(self, slot);
        triggered++;
    }
}

/* ------------------------------------------------------------ check */

const char *triggers_check(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    const engine_terms *const terms = &self->terms[slot];
    if (terms->trigger == ZX_TRIGGER_NONE || terms->trigger > ZX_TRIGGER_MAX) return "an order waits for nothing";
    if (terms->market >= self->market_count || terms->side > 1 || terms->on_reference > 1) {
        return "a waiting order is nowhere";
    }
    if (order->flags & (BOOK_ICEBERG | BOOK_HIDDEN)) return "an order waits as if it rested";
    const bool is_trailing = terms->trigger == ZX_TRIGGER_TRAILING;
    if (order->level == ZX_NONE) {
        return is_trailing && order->priority_no == 0 ? NULL : "a waiting order has no trigger price";
    }
    const engine_market *const market = &self->markets[terms->market];
    const book_level *const level = &self->pool.levels[order->level];
    if (level->market != terms->market || level->side != direction_of(self, slot)) {
        return "a waiting order waits in another's place";
    }
    /* The levels of stops are walked by engine_check(); here only that this one is among its own. */
    const ranks *const levels = &market->stops[terms->on_reference].sides[level->side].far;
    return ranks_find(&self->pool.far, levels, level->rank) == order->level ? NULL : "a waiting order waits for another price";
}
