/*
 * triggers.h: what happens by itself (docs/rules.md section 7): orders expire, and waiting orders are triggered.
 *
 *     stops[0] (trades)             stops[1] (reference price)          one book each per market, by trigger price:
 *       falling   |   rising          falling   |   rising              its sell side waits for a rising price, lowest
 *     [98]--[95]  |  [105]--[110]   [90]        |                       first; its buy side for a falling one
 *
 *     expiry_heap  [ t1 | t2 | t5 | ... ]                               orders that expire, the first in front
 *     trailing     o-o-o                                                per market, oldest first: moved with the price
 *
 * A waiting order has a slot like any open order, and is found, cancelled and listed as such; only it is in no queue
 * of the market's book. A trailing order that has no trigger price yet is in no queue at all. Orders that wait for their
 * auction are no matter of this file: markets.h.
 *
 * After each command the waiting orders that are due come to the book one after the other, in a loop until none is, at
 * most ENGINE_TRIGGERED_MAX and none once they used ENGINE_MAKERS_MAX resting orders; the rest goes on after the
 * next command, or with the next record.
 */
#ifndef ZX_TRIGGERS_H
#define ZX_TRIGGERS_H

#include "trading.h"

/* ---- time */

/* An order that expires begins, or ceases, to be open. */
void triggers_add_expiry(engine *self, uint32_t slot);
void triggers_remove_expiry(engine *self, uint32_t slot);

/* Its expiry has changed. */
void triggers_move_expiry(engine *self, uint32_t slot, uint64_t expire_time_ns);

/* Ends the orders whose time is over, at most ENGINE_EXPIRIES_MAX. */
void triggers_expire(engine *self);

/* ---- waiting */

/* Whether a stop or take-profit order of these terms would be triggered at once. */
bool triggers_is_met(
    const engine_market *market, uint8_t side, uint8_t trigger, bool on_reference, int64_t trigger_ticks
);

/* The order in a slot, whose terms say that it waits, begins to. `trigger_ticks` is not used for trailing orders. */
void triggers_wait(engine *self, uint32_t slot, int64_t trigger_ticks);

/* The same when a snapshot is read: with the priority_no that it has, in ascending order of it. Returns false if the
 * quantities that wait for a price do not fit in 64 bits. */
bool triggers_restore(engine *self, uint32_t slot, int64_t trigger_ticks);

/* The oldest trailing order is added first. */
void triggers_restore_trailing(engine *self, uint32_t slot);

/* The trigger price of a waiting order; 0 if it has none yet. */
static inline int64_t triggers_price_of(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    return order->level == ZX_NONE ? 0 : book_price_of(&self->pool, order);
}

/* An amended trigger: another price for a stop or take-profit order; the distance in its terms for a trailing one. */
void triggers_move(engine *self, uint32_t slot, int64_t trigger_ticks);

/* The order waits no longer; its slot stays. */
void triggers_forget(engine *self, uint32_t slot);

/* ---- prices */

/* The last trade, or the reference price, has moved: trailing orders follow it. Returns for how many it is the best price
 * so far. */
uint32_t triggers_price_moved(engine *self, engine_market *market, bool on_reference);

/* Marks the market if an order in it is due. */
void triggers_look(engine *self, engine_market *market);

/* Triggers what is due, within the limits. */
void triggers_run(engine *self);

/* Whether a waiting order's links, place and price are sound. Returns NULL or a sentence. */
const char *triggers_check(const engine *self, uint32_t slot);

#endif
