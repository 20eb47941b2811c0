#include "lob.h"

#include "match.h"

#include <stdlib.h>
#include <sys/random.h>

#define READY_ORDERS 16384u /* orders for which lob_create() touches memory: what the first of them need is there */

/* Whoever sends commands chooses ids, and might choose some that collide: so nobody knows the seed. It decides where ids
 * lie and never what is answered, so that one that is known, where the system has no other, is as correct. */
static uint64_t draw_seed(void) {
    uint64_t seed = UINT64_C(0x5bd1e995c0ffee11);
    const ssize_t drawn = getrandom(&seed, sizeof seed, GRND_NONBLOCK);
    (void)drawn;
    return seed;
}

int lob_create(uint32_t orders_max, lob **out) {
    if (orders_max == 0 || orders_max > LOB_ORDERS_MAX) return ZX_ERROR_CONFIG;
    lob *const self = calloc(1, sizeof *self);
    if (self == NULL) return ZX_ERROR_MEMORY;
    self->orders_max = orders_max;
    self->event_room = orders_max + LOB_EVENTS_BESIDE_ORDERS;
    const book_limits limits = {.orders = orders_max, .books = 1, .windowed = 1, .any_slot = true};
    const book_pool_plan pool = book_pool_reserve(&self->memory, &limits);
    const ids_plan by_id = ids_reserve(&self->memory, orders_max);
    const size_t events_at = arena_reserve(&self->memory, self->event_room, sizeof(lob_event));
    if (arena_map_huge(&self->memory) != ZX_OK) {
        free(self);
        return ZX_ERROR_MEMORY;
    }
    book_pool_init(&self->pool, &pool, &self->memory);
    book_init(&self->book, &self->pool, 0);
    book_use_windows(&self->book, 0);
    ids_init(&self->by_id, &by_id, &self->memory, self->pool.orders, draw_seed());
    self->events = arena_at(&self->memory, events_at);
    const uint32_t ready = orders_max < READY_ORDERS ? orders_max : READY_ORDERS;
    arena_touch(&self->memory, pool.orders, ready * sizeof(book_order));
    arena_touch(&self->memory, pool.levels, ready * sizeof(book_level));
    arena_touch(&self->memory, pool.free_slots, ready * sizeof(uint32_t));
    arena_touch(&self->memory, by_id.places, ready * sizeof(uint32_t));
    arena_touch(&self->memory, events_at, ready * sizeof(lob_event));
    *out = self;
    return ZX_OK;
}

void lob_destroy(lob *self) {
    arena_unmap(&self->memory);
    free(self);
}

/* ------------------------------------------------------------ events */

ZX_INLINE void emit(
    lob *self, uint8_t kind, uint8_t reason, uint8_t side, uint64_t order_id, uint64_t maker_order_id,
    int64_t price_ticks, uint64_t qty_lots
) {
    lob_event *const event = self->next_event++;
    event->order_id = order_id;
    event->maker_order_id = maker_order_id;
    event->price_ticks = price_ticks;
    event->qty_lots = qty_lots;
    event->command = self->command;
    event->kind_reason_side = kind | (uint32_t)reason << 8 | (uint32_t)side << 16;
}

static void reject(lob *self, const lob_command *command, uint8_t reason) {
    emit(self, LOB_REJECTED, reason, command->side, command->order_id, 0, 0, 0);
}

static void tell_accepted(lob *self, const lob_command *command) {
    const int64_t price_ticks = command->price_ticks;
    emit(self, LOB_ACCEPTED, LOB_REASON_NONE, command->side, command->order_id, 0, price_ticks, command->qty_lots);
}

static void tell_cancelled(lob *self, uint8_t side, uint64_t order_id, uint64_t qty_lots, uint8_t reason) {
    emit(self, LOB_CANCELLED, reason, side, order_id, 0, 0, qty_lots);
}

static void tell_amended(lob *self, uint8_t side, uint64_t order_id, int64_t price_ticks, uint64_t qty_lots) {
    emit(self, LOB_AMENDED, LOB_REASON_NONE, side, order_id, 0, price_ticks, qty_lots);
}

/* Takes a resting order away. Here and below queues.h is used in place of book.h, without what only the exchange has: an undo,
 * icebergs, hidden orders. */
ZX_INLINE void remove_resting(lob *self, uint32_t slot) {
    ids_remove(&self->by_id, self->pool.orders[slot].order_id, slot, true);
    queues_take(&self->book, slot, self->pool.orders[slot].leaves_lots, true);
    spares_give(&self->pool.free_slots, slot, true);
}

ZX_INLINE void take_away(lob *self, uint32_t slot, uint8_t reason) {
    const book_order *const order = &self->pool.orders[slot];
    tell_cancelled(self, book_side_of(&self->pool, order), order->order_id, order->leaves_lots, reason);
    remove_resting(self, slot);
}

static __attribute__((noinline)) void cancel_resting(lob *self, uint32_t slot, uint8_t reason) {
    take_away(self, slot, reason);
}

/* ------------------------------------------------------------ matching */

typedef struct taker {
    lob *self;
    uint64_t order_id;
    uint8_t side;
} taker;

ZX_INLINE void on_fill(void *context, uint32_t maker_slot, int64_t price_ticks, uint64_t qty_lots) {
    const taker *const incoming = context;
    lob *const self = incoming->self;
    const book_order *const maker = &self->pool.orders[maker_slot];
    emit(self, LOB_TRADE, LOB_REASON_NONE, incoming->side, incoming->order_id, maker->order_id, price_ticks, qty_lots);
    if (maker->leaves_lots == 0) ids_remove(&self->by_id, maker->order_id, maker_slot, true);
}

/* Lowers both by the smaller of their quantities, without a trade. */
static void decrement(lob *self, book_incoming *incoming, uint64_t order_id, uint32_t slot) {
    const book_order *const resting = &self->pool.orders[slot];
    const uint64_t both_lots =
        incoming->leaves_lots < resting->leaves_lots ? incoming->leaves_lots : resting->leaves_lots;
    incoming->leaves_lots -= both_lots;
    if (resting->leaves_lots == both_lots) {
        cancel_resting(self, slot, LOB_SELF_TRADE);
    } else {
        const int64_t price_ticks = book_price_of(&self->pool, resting);
        book_resize(&self->book, slot, resting->qty_lots - both_lots);
        tell_amended(self, book_side_of(&self->pool, resting), resting->order_id, price_ticks, resting->qty_lots);
    }
    if (incoming->leaves_lots == 0) tell_cancelled(self, incoming->side, order_id, both_lots, LOB_SELF_TRADE);
}

/* Trades what it can of an order that does not trade with those of `owner`; returns what is left to rest. `*lost_lots` is what it
 * lost to decrements. */
static __attribute__((noinline)) uint64_t trade(
    lob *self, const lob_command *command, uint32_t owner, uint8_t side, int64_t price_ticks, uint64_t leaves_lots,
    uint64_t *lost_lots
) {
    const uint64_t order_id = command->order_id;
    book_incoming incoming = {.price_ticks = price_ticks, .leaves_lots = leaves_lots, .owner = owner, .side = side};
    taker context = {.self = self, .order_id = order_id, .side = side};
    const book_listener listener = {.on_fill = on_fill, .context = &context};
    while (match(&self->book, &incoming, &listener, true) == BOOK_OWN_ORDER) {
        const uint32_t slot = book_next_maker(&self->book, side);
        const uint64_t before_lots = incoming.leaves_lots;
        switch (command->stp) {
        case LOB_CANCEL_OLDEST:
            cancel_resting(self, slot, LOB_SELF_TRADE);
            continue;
        case LOB_DECREMENT:
            decrement(self, &incoming, order_id, slot);
            *lost_lots += before_lots - incoming.leaves_lots;
            if (incoming.leaves_lots == 0) return 0;
            continue;
        case LOB_CANCEL_BOTH:
            cancel_resting(self, slot, LOB_SELF_TRADE);
            break;
        default:
            break;
        }
        tell_cancelled(self, side, order_id, incoming.leaves_lots, LOB_SELF_TRADE);
        return 0;
    }
    return incoming.leaves_lots;
}

/* The same of an order that does not mind whose orders it meets, as most do not. */
ZX_INLINE uint64_t trade_simply(lob *self, uint64_t order_id, uint8_t side, int64_t price_ticks, uint64_t leaves_lots) {
    book_incoming incoming = {.price_ticks = price_ticks, .leaves_lots = leaves_lots, .owner = ZX_NONE, .side = side};
    taker context = {.self = self, .order_id = order_id, .side = side};
    const book_listener listener = {.on_fill = on_fill, .context = &context};
    match(&self->book, &incoming, &listener, true);
    return incoming.leaves_lots;
}

/* ------------------------------------------------------------ commands */

static bool is_price(int64_t price_ticks) {
    return price_ticks >= 1 && price_ticks <= ZX_TICKS_MAX;
}

static bool is_qty(uint64_t qty_lots) {
    return qty_lots >= 1 && qty_lots <= ZX_LOTS_MAX;
}

/* The owner that the book compares: of an order that is to trade with its own account, none that is there. */
static uint32_t owner_of(uint32_t account, uint8_t stp) {
    return account == 0 || stp == LOB_STP_NONE ? ZX_NONE : account;
}

static inline bool has_known_options(const lob_command *command) {
    return !((command->order_type > LOB_MARKET) | (command->time_in_force > LOB_FOK) | (command->stp > LOB_DECREMENT) |
             (command->post_only > 1));
}

/* What is wrong with a new order, whatever is in the book at which price. */
static uint8_t check_new(const lob *self, const lob_command *command, bool rests) {
    if ((command->side > BOOK_SELL) | (command->account > LOB_ACCOUNT_MAX)) return LOB_MALFORMED;
    if (!has_known_options(command)) return LOB_MALFORMED;
    const bool any_price = (command->order_type == LOB_MARKET) & (command->price_ticks == 0);
    if (!any_price && !is_price(command->price_ticks)) return LOB_PRICE_OUT_OF_RANGE;
    if (!is_qty(command->qty_lots)) return LOB_QTY_OUT_OF_RANGE;
    if (command->post_only && !rests) return LOB_POST_ONLY_MUST_REST;
    if (ids_has(&self->by_id, command->order_id)) return LOB_ORDER_ID_IN_USE;
    if (rests && self->pool.free_slots.used == self->orders_max) return LOB_BOOK_FULL;
    return LOB_REASON_NONE;
}

static bool is_to_rest(const lob_command *command) {
    return (command->order_type == LOB_LIMIT) & (command->time_in_force == LOB_GTC);
}

/* The worst price that a new order accepts. */
static int64_t limit_of(const lob_command *command) {
    if (command->price_ticks != 0) return command->price_ticks;
    return command->side == BOOK_BUY ? ZX_TICKS_MAX : 1;
}

/* Rests what is left of a new order. */
ZX_INLINE void rest_new(lob *self, const lob_command *command, uint64_t qty_lots, uint64_t leaves_lots) {
    book_pool *const pool = &self->pool;
    const uint32_t slot = spares_take(&pool->free_slots);
    book_order *const order = &pool->orders[slot];
    order->order_id = command->order_id;
    order->client_order_id = 0;
    order->priority_no = pool->next_priority_no;
    order->qty_lots = qty_lots;
    order->leaves_lots = leaves_lots;
    book_set_owner(order, command->account);
    if (__builtin_expect(!queues_put(&self->book, slot, command->side, command->price_ticks, leaves_lots, 0, true), 0)) {
        order->level = ZX_NONE;
        spares_give(&pool->free_slots, slot, true);
        tell_cancelled(self, command->side, command->order_id, leaves_lots, LOB_LEVEL_FULL);
        return;
    }
    pool->next_priority_no++;
    ids_add(&self->by_id, command->order_id, slot, true);
}

/* A new order of any kind, sound or not. */
static __attribute__((noinline)) void apply_any_new(lob *self, const lob_command *command) {
    const uint8_t side = command->side;
    const bool rests = is_to_rest(command);
    uint8_t reason = check_new(self, command, rests);
    if (reason != LOB_REASON_NONE) {
        reject(self, command, reason);
        return;
    }
    book_incoming incoming = {
        .price_ticks = limit_of(command),
        .leaves_lots = command->qty_lots,
        .owner = owner_of(command->account, command->stp),
        .makers_max = UINT32_MAX,
        .side = side,
    };
    const bool passes_own = command->stp == LOB_CANCEL_OLDEST;
    if (command->post_only && book_crosses(&self->book, side, incoming.price_ticks)) {
        reason = LOB_POST_ONLY_WOULD_CROSS;
    } else if (command->time_in_force == LOB_FOK &&
        book_reachable(&self->book, &incoming, command->qty_lots, passes_own, NULL) < command->qty_lots) {
        reason = LOB_FOK_NOT_FILLABLE;
    }
    if (reason != LOB_REASON_NONE) {
        reject(self, command, reason);
        return;
    }
    tell_accepted(self, command);
    uint64_t lost_lots = 0;
    const uint64_t leaves_lots =
        trade(self, command, incoming.owner, side, incoming.price_ticks, command->qty_lots, &lost_lots);
    if (leaves_lots == 0) return;
    if (!rests) {
        tell_cancelled(self, side, command->order_id, leaves_lots, LOB_IMMEDIATE_REMAINDER);
        return;
    }
    const uint64_t qty_lots = command->qty_lots - lost_lots;
    if (lost_lots > 0) tell_amended(self, side, command->order_id, command->price_ticks, qty_lots);
    rest_new(self, command, qty_lots, leaves_lots);
}

/* A limit order, until cancelled or immediate, without options, is simple. Of the eight bytes from `account` it has these bits at
 * most, and the two behind them are 0. */
#define AT(field) (8 * (offsetof(lob_command, field) - offsetof(lob_command, account)))
#define SIMPLE (LOB_ACCOUNT_MAX | (uint64_t)BOOK_SELL << AT(side) | (uint64_t)LOB_IOC << AT(time_in_force))
_Static_assert(LOB_NEW == 0 && LOB_LIMIT == 0 && LOB_GTC == 0 && LOB_STP_NONE == 0, "what most orders are is 0");
_Static_assert(AT(kind) == 32 && AT(order_type) < 64 && AT(time_in_force) < 64 && AT(side) < 64, "eight bytes");
_Static_assert(AT(stp) == 64 && AT(post_only) == 72, "two bytes behind them");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte is the lowest");

static inline bool is_simple(const lob_command *command) {
    const uint8_t *const from = (const uint8_t *)command + offsetof(lob_command, account);
    uint64_t account_to_time_in_force;
    uint16_t stp_and_post_only;
    memcpy(&account_to_time_in_force, from, sizeof account_to_time_in_force);
    memcpy(&stp_and_post_only, from + sizeof account_to_time_in_force, sizeof stp_and_post_only);
    return ((account_to_time_in_force & ~SIMPLE) | stp_and_post_only) == 0;
}

/* A new order. What is not simple, or not sound, takes the longer way. */
static inline void apply_new(lob *self, const lob_command *command) {
    const int64_t price_ticks = command->price_ticks;
    const uint64_t qty_lots = command->qty_lots;
    if (__builtin_expect(!is_simple(command), 0) || __builtin_expect(ids_has(&self->by_id, command->order_id), 0) ||
        __builtin_expect(self->pool.free_slots.used == self->orders_max, 0) || __builtin_expect(!is_price(price_ticks), 0) ||
        __builtin_expect(!is_qty(qty_lots), 0)) {
        apply_any_new(self, command);
        return;
    }
    const uint8_t side = command->side;
    const bool is_immediate = command->time_in_force == LOB_IOC;
    tell_accepted(self, command);
    uint64_t leaves_lots = qty_lots;
    if (is_immediate | book_crosses(&self->book, side, price_ticks)) {
        leaves_lots = trade_simply(self, command->order_id, side, price_ticks, leaves_lots);
        if (leaves_lots == 0) return;
        if (is_immediate) {
            tell_cancelled(self, side, command->order_id, leaves_lots, LOB_IMMEDIATE_REMAINDER);
            return;
        }
    }
    rest_new(self, command, qty_lots, leaves_lots);
}

static void apply_cancel(lob *self, const lob_command *command) {
    const uint32_t slot = ids_find(&self->by_id, command->order_id);
    if (slot == ZX_NONE) {
        reject(self, command, LOB_UNKNOWN_ORDER);
        return;
    }
    take_away(self, slot, LOB_REQUESTED);
}

static uint8_t check_amend(const lob_command *command) {
    if (command->stp > LOB_DECREMENT) return LOB_MALFORMED;
    if (command->price_ticks != 0 && !is_price(command->price_ticks)) return LOB_PRICE_OUT_OF_RANGE;
    if (command->qty_lots != 0 && !is_qty(command->qty_lots)) return LOB_QTY_OUT_OF_RANGE;
    return LOB_REASON_NONE;
}

/* Frees the slot of an order that is in no queue any more. */
static void forget(lob *self, uint32_t slot) {
    ZX_ASSERT(self->pool.orders[slot].level == ZX_NONE);
    ids_remove(&self->by_id, self->pool.orders[slot].order_id, slot, true);
    spares_give(&self->pool.free_slots, slot, true);
}

/* Gives an order another price and quantities: to the back of the queue there. */
static inline bool move(
    lob *self, uint32_t slot, uint32_t side, int64_t price_ticks, uint64_t qty_lots, uint64_t leaves_lots
) {
    book_order *const order = &self->pool.orders[slot];
    queues_take(&self->book, slot, order->leaves_lots, true);
    order->qty_lots = qty_lots;
    order->leaves_lots = leaves_lots;
    if (__builtin_expect(!queues_put(&self->book, slot, side, price_ticks, leaves_lots, 0, true), 0)) return false;
    order->priority_no = self->pool.next_priority_no++;
    return true;
}

/* An amended order trades with what it meets; what is left goes to the back of its new price. */
static __attribute__((noinline)) void amend_and_trade(
    lob *self, const lob_command *command, uint32_t slot, int64_t price_ticks, uint64_t qty_lots
) {
    book_order *const order = &self->pool.orders[slot];
    const uint8_t side = book_side_of(&self->pool, order);
    const uint64_t filled_lots = order->qty_lots - order->leaves_lots;
    uint64_t leaves_lots = qty_lots - filled_lots;
    uint64_t lost_lots = 0;
    queues_take(&self->book, slot, order->leaves_lots, true);
    const uint32_t owner = owner_of(order->owner, command->stp);
    if (__builtin_expect(owner == ZX_NONE, 1)) {
        leaves_lots = trade_simply(self, command->order_id, side, price_ticks, leaves_lots);
    } else {
        leaves_lots = trade(self, command, owner, side, price_ticks, leaves_lots, &lost_lots);
    }
    if (leaves_lots > 0) {
        order->qty_lots = qty_lots - lost_lots;
        order->leaves_lots = leaves_lots;
        if (lost_lots > 0) tell_amended(self, side, command->order_id, price_ticks, order->qty_lots);
        const bool rested = queues_put(&self->book, slot, side, price_ticks, leaves_lots, 0, true);
        ZX_ASSERT(rested); /* a price that crossed has no orders of this side */
        order->priority_no = self->pool.next_priority_no++;
        return;
    }
    forget(self, slot);
}

static void apply_amend(lob *self, const lob_command *command) {
    const uint8_t reason = check_amend(command);
    const uint32_t slot = reason == LOB_REASON_NONE ? ids_find(&self->by_id, command->order_id) : ZX_NONE;
    if (slot == ZX_NONE) {
        reject(self, command, reason != LOB_REASON_NONE ? reason : LOB_UNKNOWN_ORDER);
        return;
    }
    book_order *const order = &self->pool.orders[slot];
    const uint8_t side = book_side_of(&self->pool, order);
    const int64_t old_price_ticks = book_price_of(&self->pool, order);
    const int64_t price_ticks = command->price_ticks != 0 ? command->price_ticks : old_price_ticks;
    uint64_t qty_lots = command->qty_lots != 0 ? command->qty_lots : order->qty_lots;
    const uint64_t filled_lots = order->qty_lots - order->leaves_lots;
    if (qty_lots <= filled_lots) {
        cancel_resting(self, slot, LOB_AMENDED_BELOW_FILLED);
        return;
    }
    tell_amended(self, side, command->order_id, price_ticks, qty_lots);
    if ((price_ticks == old_price_ticks) & (qty_lots <= order->qty_lots)) { /* of the two the price is foreseen */
        book_resize(&self->book, slot, qty_lots);
        return;
    }
    if (__builtin_expect(book_crosses(&self->book, side, price_ticks), 0)) {
        amend_and_trade(self, command, slot, price_ticks, qty_lots);
        return;
    }
    if (move(self, slot, side, price_ticks, qty_lots, qty_lots - filled_lots)) return;
    tell_cancelled(self, side, command->order_id, qty_lots - filled_lots, LOB_LEVEL_FULL);
    forget(self, slot);
}

ZX_INLINE void apply_one(lob *self, const lob_command *command) {
    if (command->kind == LOB_NEW) apply_new(self, command);
    else if (command->kind == LOB_AMEND) apply_amend(self, command);
    else if (command->kind == LOB_CANCEL) apply_cancel(self, command);
    else reject(self, command, LOB_MALFORMED);
}

/* Whether there is room for the events of so many commands, at least one. Each tells of itself four times at most, rounded up,
 * of one resting order that stays, and of those that go. All that may go rest now or come before the last command, and that
 * tells of each that is left at most once: so 4 for each, 1 for each but the last, and those that rest now or come before it. */
static inline bool has_room(const lob *self, const lob_event *end, size_t commands) {
    const size_t room = (size_t)((const uint8_t *)end - (const uint8_t *)self->next_event);
    return room >= (self->pool.free_slots.used + 6 * commands - 2) * sizeof(lob_event);
}

#define BLOCK 32u
#ifndef FETCH_FROM /* tests build with 0: always */
#define FETCH_FROM 16384u /* orders from which on it pays: below, all of them are in the cache */
#endif

/* Fetches into the cache what some commands will need, a step of the way at a time for all of them, so that they wait
 * together. */
static void fetch_block(const lob *self, const lob_command *commands, size_t count) {
    const book_pool *const pool = &self->pool;
    uint32_t found[BLOCK]; /* level of a new order, slot of another */
    for (size_t at = 0; at < count; at++) zx_fetch(ids_place(&self->by_id, commands[at].order_id));
    for (size_t at = 0; at < count; at++) {
        const lob_command *const command = &commands[at];
        const bool is_new = command->kind == LOB_NEW;
        found[at] = is_new ? book_guess_level(&self->book, command->side, command->price_ticks)
                           : ids_guess(&self->by_id, command->order_id);
        if (found[at] == ZX_NONE) continue;
        if (is_new) zx_fetch(&pool->levels[found[at]]);
        else zx_fetch(&pool->orders[found[at]]);
    }
    for (size_t at = 0; at < count; at++) {
        if (found[at] == ZX_NONE) continue;
        if (commands[at].kind == LOB_NEW) {
            zx_fetch(&pool->orders[pool->levels[found[at]].prev]); /* or a level */
        } else {
            const book_order *const order = &pool->orders[found[at]];
            zx_fetch(&pool->levels[order->level]);
            zx_fetch(&pool->orders[order->next]);
            zx_fetch(&pool->orders[order->prev]);
        }
    }
}

/* Applies commands while there is room for the events of one more, in `events`; returns how many. */
static size_t apply_all(
    lob *self, const lob_command *commands, size_t count, lob_event *events, size_t room, size_t *written
) {
    const lob_event *const end = events + room;
    size_t applied = 0;
    self->next_event = events;
    while (applied < count) {
        size_t block = count - applied < BLOCK ? count - applied : BLOCK;
        if (!has_room(self, end, block)) block = 1;
        if (!has_room(self, end, block)) break;
        if (self->pool.free_slots.used + 1 > FETCH_FROM) fetch_block(self, &commands[applied], block);
        const lob_command *const block_end = &commands[applied + block];
        self->command = (uint32_t)applied;
        for (const lob_command *command = &commands[applied]; command < block_end; command++) {
            apply_one(self, command);
            self->command++;
        }
        applied += block;
    }
    *written = (size_t)(self->next_event - events);
    return applied;
}

size_t lob_apply(lob *self, const lob_command *commands, size_t count) {
    size_t written;
    const size_t applied = apply_all(self, commands, count, self->events, self->event_room, &written);
    self->event_count = (uint32_t)written;
    return applied;
}

uint32_t lob_do(
    lob *self, uint8_t kind, uint64_t order_id, uint8_t side, int64_t price_ticks, uint64_t qty_lots,
    uint8_t order_type, uint8_t time_in_force, uint8_t post_only, uint32_t account, uint8_t stp
) {
    const lob_command command = {
        .order_id = order_id,
        .price_ticks = price_ticks,
        .qty_lots = qty_lots,
        .account = account,
        .kind = kind,
        .side = side,
        .order_type = order_type,
        .time_in_force = time_in_force,
        .stp = stp,
        .post_only = post_only,
    };
    lob_apply(self, &command, 1);
    return self->event_count;
}

size_t lob_apply_into(
    lob *self, const lob_command *commands, size_t count, lob_event *events, size_t room, size_t *written
) {
    self->event_count = 0;
    return apply_all(self, commands, count, events, room < UINT32_MAX ? room : UINT32_MAX, written);
}

/* ------------------------------------------------------------ questions */

int64_t lob_best(const lob *self, uint8_t side) {
    const uint32_t best = self->book.sides[side].best;
    return best == ZX_NONE ? 0 : book_level_price(&self->pool.levels[best]);
}

size_t lob_depth(const lob *self, uint8_t side, size_t room, lob_level *found) {
    size_t count = 0;
    for (uint32_t at = self->book.sides[side].best; at != ZX_NONE && count < room;
         at = book_worse_level(&self->book, at)) {
        const book_level *const level = &self->pool.levels[at];
        found[count++] = (lob_level){
            .price_ticks = book_level_price(level),
            .qty_lots = level->total_lots,
            .orders = level->order_count,
        };
    }
    return count;
}

size_t lob_orders(const lob *self, uint8_t side, size_t room, lob_order *found) {
    size_t count = 0;
    for (uint32_t at = self->book.sides[side].best; at != ZX_NONE; at = book_worse_level(&self->book, at)) {
        for (uint32_t slot = self->pool.levels[at].next; book_is_order(&self->pool, slot);
             slot = self->pool.orders[slot].next) {
            if (count == room) return count;
            const book_order *const order = &self->pool.orders[slot];
            found[count++] = (lob_order){
                .order_id = order->order_id,
                .price_ticks = book_level_price(&self->pool.levels[at]),
                .qty_lots = order->qty_lots,
                .leaves_lots = order->leaves_lots,
                .account = order->owner,
            };
        }
    }
    return count;
}

uint32_t lob_count(const lob *self) {
    return self->pool.free_slots.used;
}

bool lob_rests(const lob *self, uint64_t order_id) {
    return ids_find(&self->by_id, order_id) != ZX_NONE;
}

const char *lob_check(const lob *self) {
    uint32_t orders = 0;
    const char *broken = book_check(&self->book, &orders);
    if (broken != NULL) return broken;
    if (orders != self->pool.free_slots.used) return "a slot is taken without an order";
    broken = book_pool_check(&self->pool);
    if (broken != NULL) return broken;
    if (orders != self->by_id.count) return "ids are found that are not in the book";
    broken = ids_check(&self->by_id);
    if (broken != NULL) return broken;
    for (uint8_t side = 0; side < 2; side++) {
        for (uint32_t at = self->book.sides[side].best; at != ZX_NONE; at = book_worse_level(&self->book, at)) {
            for (uint32_t slot = self->pool.levels[at].next; book_is_order(&self->pool, slot);
             slot = self->pool.orders[slot].next) {
                if (ids_find(&self->by_id, self->pool.orders[slot].order_id) != slot) return "an order is not found by its id";
            }
        }
    }
    return NULL;
}
