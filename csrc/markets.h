/*
 * markets.h: states of markets, interruptions and auctions (docs/rules.md section 8).
 *
 *     closed ─▶ pre-open ─▶ auction ─▶ uncrossing ─▶ continuous ─▶ closing auction ─▶ uncrossing ─▶ closed
 *                              ▲                         │
 *                              └── a trade would leave a price band
 *
 * While a market collects orders for an auction they rest without trading, and the book may be crossed. Leaving the
 * auction executes it: at one price, pair by pair, at most ENGINE_AUCTION_STEPS_MAX steps after one command; until it is
 * done the market is `uncrossing` and takes only cancels.
 *
 *     for_auctions                                     auction_head
 *       buy side   | sell side                           |
 *       at the open| at the close     ── collects ──▶    o-o-o          both lowest priority_no first
 *       o-o-o      | o-o                                 in the book
 *
 * An order that is for one auction waits out of the book until the market collects for it, in a queue that is the only level
 * of its side, of price 1. Orders that come, and those that are over, are steps of the way between two states too.
 *
 * Cost: a change of state O(1); a step O(1) but for the first of an execution, which finds the price: O(levels that
 * trade), and O(orders) of levels with icebergs or hidden orders.
 */
#ifndef ZX_MARKETS_H
#define ZX_MARKETS_H

#include "trading.h"

/* Whether an operator can bring a market from one state to another. */
bool markets_may_go(uint32_t from, uint32_t to);

/* The state that follows when one ends by itself; ZX_MARKET_STATE_NONE if it does not. */
uint32_t markets_after(uint32_t state);

/* Time in force of the orders that a state collects for its auction, or ZX_TIME_IN_FORCE_NONE. */
uint8_t markets_collects_for(uint32_t state);

/* The market comes to a state: by way of uncrossing if anything is to be done before. */
void markets_enter(engine *self, engine_market *market, uint32_t state, uint64_t until_ns);

/* The next trade would leave a price band: the market goes into an auction. */
void markets_interrupt(engine *self, engine_market *market);

/* Ends the states whose time is over, at most ENGINE_MARKET_ENDS_MAX. */
void markets_end_states(engine *self);

/* Brings markets that are uncrossing to their next states, within the limit. */
void markets_run(engine *self);

/* What an auction would trade now; nothing if to find it takes more than so many looks, at a level or, where icebergs or
 * hidden orders are, at an order. */
engine_auction markets_auction(const engine_market *market, uint64_t looks_max);

/* An order for an auction begins, at the end of its queue, or ceases to rest. */
void markets_add_auction_order(engine *self, uint32_t slot);
void markets_forget_auction_order(engine *self, uint32_t slot);

/* The order in a slot, which is for an auction and in no queue, begins to wait for it; goes to the back of those that
 * do; or waits no longer. */
void markets_wait(engine *self, uint32_t slot);
void markets_wait_anew(engine *self, uint32_t slot);
void markets_forget_waiting(engine *self, uint32_t slot);

/* The same when a snapshot is read: with the priority_no that it has, in ascending order of it. Returns false if the
 * quantities that wait do not fit in 64 bits. */
bool markets_restore_waiting(engine *self, uint32_t slot);

/* After a snapshot: the sets of markets that have something ahead. */
void markets_restore(engine *self);

/* NULL, or a sentence about what does not hold of a market's state, rules and orders for auctions. */
const char *markets_check(const engine *self, uint32_t index);

/* Likewise of the place of an order that waits for its auction. */
const char *markets_check_waiting(const engine *self, uint32_t slot);

#endif
