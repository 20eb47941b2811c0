/*
 * trading.h: what happens between orders, and how an order ends (docs/rules.md sections 1, 5 and 6).
 *
 *     order on its way in          resting orders
 *          taker  --- trading_match() --->  book      fills, self-trade prevention, icebergs, orders past their time
 *            |                                |
 *            +---- trading_end_taker()        +---- trading_end_open()      holds, maps, lists, pairs, reports
 *
 * Shared by the commands of traders (orders.c) and by what happens by itself (triggers.c). An order that is in no
 * queue is a `taker`: new, amended, or just triggered. An open order has a slot: it rests in its market's book or
 * waits for its trigger or its auction. Whatever ends an order ends the other of its pair too.
 */
#ifndef ZX_TRADING_H
#define ZX_TRADING_H

#include "reports.h"

/* An order while it is in no queue. */
typedef struct taker {
    engine *engine;
    engine_market *market;
    order_face face;        /* as reported; leaves and filled quantity move with each fill */
    uint64_t hold_per_lot;  /* of the order's own limit; not of one by notional */
    uint64_t notional_left; /* by notional: what it may still spend, which is what it holds */
    uint32_t account;
    uint32_t hold_balance; /* where the hold is: quote if it buys, base if it sells */
    uint32_t gain_balance; /* where the proceeds go */
    uint32_t slot;         /* that of an order that has one, or ZX_NONE */
    uint32_t pair;         /* slot of the other of its pair, or ZX_NONE */
    uint32_t makers;       /* resting orders it has used */
    uint32_t followers;    /* trailing orders whose best price its last trade was */
    uint8_t side;          /* enum book_side_index */
    uint8_t self_trade_prevention; /* enum zx_self_trade_prevention */
    bool is_by_notional;
} taker;

static inline uint8_t trading_wire_side(uint8_t side) {
    return side == BOOK_BUY ? ZX_SIDE_BUY : ZX_SIDE_SELL;
}

static inline bool trading_stays_open(uint8_t time_in_force) {
    return time_in_force != ZX_TIME_IN_FORCE_IOC && time_in_force != ZX_TIME_IN_FORCE_FOK;
}

static inline bool trading_is_for_auction(uint8_t time_in_force) {
    return time_in_force == ZX_TIME_IN_FORCE_AT_THE_OPEN || time_in_force == ZX_TIME_IN_FORCE_AT_THE_CLOSE;
}

/* Why what is left of an order that does not stay open ends. */
static inline int trading_remainder_reason(const engine_market *market) {
    return market->state == ZX_MARKET_STATE_AUCTION ? ZX_REASON_PRICE_BAND : ZX_REASON_IMMEDIATE_REMAINDER;
}

/* ---- an open order, resting or waiting */

static inline bool trading_has_trigger(const book_order *order) {
    return (order->flags & (ORDER_WAITING | ORDER_AUCTION)) == ORDER_WAITING;
}

static inline bool trading_awaits_auction(const book_order *order) {
    return (order->flags & (ORDER_WAITING | ORDER_AUCTION)) == (ORDER_WAITING | ORDER_AUCTION);
}

static inline uint32_t trading_market_of(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    return order->flags & ORDER_WAITING ? self->terms[slot].market : book_market_of(&self->pool, order);
}

static inline uint8_t trading_side_of(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    return order->flags & ORDER_WAITING ? self->terms[slot].side : book_side_of(&self->pool, order);
}

static inline int64_t trading_price_of(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    return order->flags & ORDER_WAITING ? self->terms[slot].price_ticks : book_price_of(&self->pool, order);
}

static inline uint8_t trading_time_in_force_of(const engine *self, uint32_t slot) {
    const bool has_own = (self->pool.orders[slot].flags & (ORDER_WAITING | BOOK_TIMED | ORDER_AUCTION)) != 0;
    return has_own ? self->terms[slot].time_in_force : (uint8_t)ZX_TIME_IN_FORCE_GTC;
}

/* Quantity that it shows at a time; 0 if it is no iceberg. */
static inline uint64_t trading_display_of(const engine *self, uint32_t slot) {
    const uint32_t flags = self->pool.orders[slot].flags;
    const bool is_iceberg = flags & BOOK_ICEBERG || (flags & ORDER_WAITING && self->terms[slot].is_iceberg);
    return is_iceberg ? self->pool.terms[slot].display_lots : 0;
}

static inline bool trading_is_hidden(const engine *self, uint32_t slot) {
    const uint32_t flags = self->pool.orders[slot].flags;
    return flags & BOOK_HIDDEN || (flags & ORDER_WAITING && self->terms[slot].is_hidden);
}

/* Whether its time is over: it does not trade any more, though it may not have expired yet. */
static inline bool trading_is_overdue(const engine *self, uint32_t slot) {
    return self->pool.orders[slot].flags & BOOK_TIMED && self->pool.terms[slot].expire_time_ns <= self->log_time_ns;
}

/* How reports show it. */
order_face trading_face_of(const engine *self, uint32_t slot);

/* Hash under which orders are found by (account, client order id). */
uint64_t trading_hash_client_order(const engine *self, uint32_t account_id, uint64_t client_order_id);

/* ---- amounts */

/* ceil(amount * ppm / 1,000,000); `amount` is at most 2^63-1 and `ppm` at most 1,000,000. */
uint64_t trading_ppm_of(uint64_t amount, uint32_t ppm);

/* What an order holds for each open lot; UINT64_MAX if it is above 63 bits. */
uint64_t trading_hold_per_lot(const engine_market *market, uint8_t side, int64_t price_ticks);

/* What an order of these terms would hold; UINT64_MAX if that or, of a sale, the notional is above 63 bits. */
uint64_t trading_hold_for(const engine_market *market, uint8_t side, int64_t price_ticks, uint64_t qty_lots);

/* What the open order in a slot holds: of the quote asset if it buys, of the base asset if it sells. UINT64_MAX,
 * which only a snapshot that nobody wrote can cause, if it is above 63 bits. */
uint64_t trading_hold_of(const engine *self, uint32_t slot);

static inline uint32_t trading_hold_asset(const engine_market *market, uint8_t side) {
    return side == BOOK_BUY ? market->quote_asset : market->base_asset;
}

static inline uint32_t trading_gain_asset(const engine_market *market, uint8_t side) {
    return side == BOOK_BUY ? market->base_asset : market->quote_asset;
}

/* The account's balance of an asset, which was made when the order was accepted. */
uint32_t trading_must_find_balance(const engine *self, uint32_t account, uint32_t asset);

/* ---- orders and owners */

/* Adds an open order, newer than all others of its owner, to the maps and to the end of its owner's list and lanes. */
void trading_register(engine *self, uint32_t slot);

/* Takes an order that is over out of the maps and of its owner's list and lanes. Its slot is freed by the caller. */
void trading_unregister(engine *self, uint32_t slot);

/* ---- trading */

/* The open order in a slot as a taker, once it is out of its queue. */
taker trading_taker_of(engine *self, uint32_t slot, const order_face *face, uint8_t self_trade_prevention);

/* How much of `wanted_lots` it would fill at once. */
uint64_t trading_reachable(const taker *order, uint64_t wanted_lots);

/* Trades the order as far as prices, owners and the limit of makers allow, and ends it if it may not go on. */
void trading_match(taker *order);

/* Ends an order that is in no queue, and the other of its pair. Its slot, if it has one, is freed by the caller. */
void trading_end_taker(taker *order, uint8_t exec_type, int reason);

/* One cancels other: it has traded, was triggered or has ended, so the other of its pair ends. */
void trading_end_pair(taker *order);

/* Puts what is left of it in its queue; it has a slot. */
void trading_rest(taker *order);

/* One fill of two resting orders at the price of the market's auction. */
void trading_fill_in_auction(engine *self, engine_market *market, uint32_t buy, uint32_t sell);

/* Whether two orders must not trade with each other: of one account, or of one group of accounts. */
static inline bool trading_is_same_owner(const engine *self, uint32_t first, uint32_t second) {
    const uint32_t a = self->pool.orders[first].owner;
    const uint32_t b = self->pool.orders[second].owner;
    return a == b || (self->trade_groups[a] != 0 && self->trade_groups[a] == self->trade_groups[b]);
}

/* ---- ending open orders */

/* Ends an open order and the other of its pair. If it `is_answer`, the order's report, which comes first, is the outcome
 * of the current command. */
void trading_end_open(engine *self, uint32_t slot, uint8_t exec_type, int reason, bool is_answer);

/* Makes two open orders strangers; nothing is reported. */
void trading_unpair(engine *self, uint32_t slot);

#endif
