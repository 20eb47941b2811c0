#include "lob.h"

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
    const book_pool_plan pool = book_pool_reserve(&self->memory, orders_max, 1);
    const size_t windows_at = book_windows_reserve(&self->memory, 1);
    const ids_plan by_id = ids_reserve(&self->memory, orders_max);
    const size_t events_at = arena_reserve(&self->memory, self->event_room, sizeof(lob_event));
    if (arena_map_huge(&self->memory) != ZX_OK) {
        free(self);
        return ZX_ERROR_MEMORY;
    }
    book_pool_init(&self->pool, &pool, &self->memory);
    book_init(&self->book, &self->pool, 0);
    book_use_windows(&self->book, &self->memory, windows_at, 1, 0);
    ids_init(&self->by_id, &by_id, &self->memory, self->pool.orders, draw_seed());
    self->events = arena_at(&self->memory, events_at);
    const uint32_t ready = orders_max < READY_ORDERS ? orders_max : READY_ORDERS;
    arena_touch(&self->memory, pool.orders, ready * sizeof(book_order));
    arena_touch(&self->memory, pool.levels, ready * sizeof(book_level));
    arena_touch(&self->memory, pool.spare, ready * sizeof(uint32_t));
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

static lob_event *emit(lob *self, uint8_t kind, uint8_t side, uint64_t order_id) {
    lob_event *const event = &self->events[self->event_count++];
    *event = (lob_event){.kind = kind, .side = side, .order_id = order_id, .command = self->command};
    return event;
}

static void reject(lob *self, const lob_command *command, uint8_t reason) {
    emit(self, LOB_REJECTED, command->side, command->order_id)->reason = reason;
}

static void tell_cancelled(lob *self, uint8_t side, uint64_t order_id, uint64_t qty_lots, uint8_t reason) {
    lob_event *const event = emit(self, LOB_CANCELLED, side, order_id);
    event->qty_lots = qty_lots;
    event->reason = reason;
}

static void tell_amended(lob *self, uint8_t side, uint64_t order_id, int64_t price_ticks, uint64_t qty_lots) {
    lob_event *const event = emit(self, LOB_AMENDED, side, order_id);
    event->price_ticks = price_ticks;
    event->qty_lots = qty_lots;
}

/* Takes a resting order away. */
static void remove_resting(lob *self, uint32_t slot) {
    ids_remove(&self->by_id, self->pool.orders[slot].order_id, slot);
    book_remove(&self->book, slot);
}

static void cancel_resting(lob *self, uint32_t slot, uint8_t reason) {
    const book_order *const order = &self->pool.orders[slot];
    tell_cancelled(self, book_side_of(&self->pool, order), order->order_id, order->leaves_lots, reason);
    remove_resting(self, slot);
}

/* ------------------------------------------------------------ matching */

typedef struct taker {
    lob *self;
    uint64_t order_id;
    uint8_t side;
} taker;

static void on_fill(void *context, uint32_t maker_slot, int64_t price_ticks, uint64_t qty_lots) {
    const taker *const incoming = context;
    lob *const self = incoming->self;
    const book_order *const maker = &self->pool.orders[maker_slot];
    lob_event *const event = emit(self, LOB_TRADE, incoming->side, incoming->order_id);
    event->maker_order_id = maker->order_id;
    event->price_ticks = price_ticks;
    event->qty_lots = qty_lots;
    if (maker->leaves_lots == 0) ids_remove(&self->by_id, maker->order_id, maker_slot);
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

/* Trades `incoming` as far as it can. Returns false when it is over because it met an order of its account. `*lost_lots`
 * is what it lost to decrements. */
static bool trade(lob *self, book_incoming *incoming, uint64_t order_id, uint8_t stp, uint64_t *lost_lots) {
    taker context = {.self = self, .order_id = order_id, .side = incoming->side};
    const book_listener listener = {.on_fill = on_fill, .context = &context};
    while (book_match(&self->book, incoming, &listener) == BOOK_OWN_ORDER) {
        const uint32_t slot = book_next_maker(&self->book, incoming->side);
        const uint64_t before_lots = incoming->leaves_lots;
        switch (stp) {
        case LOB_CANCEL_OLDEST:
            cancel_resting(self, slot, LOB_SELF_TRADE);
            continue;
        case LOB_DECREMENT:
            decrement(self, incoming, order_id, slot);
            *lost_lots += before_lots - incoming->leaves_lots;
            if (incoming->leaves_lots == 0) return false;
            continue;
        case LOB_CANCEL_BOTH:
            cancel_resting(self, slot, LOB_SELF_TRADE);
            break;
        default:
            break;
        }
        tell_cancelled(self, incoming->side, order_id, incoming->leaves_lots, LOB_SELF_TRADE);
        return false;
    }
    return true;
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

static inline bool is_well_formed(const lob_command *command) {
    return !((command->side > BOOK_SELL) | (command->order_type > LOB_MARKET) | (command->time_in_force > LOB_FOK) |
             (command->stp > LOB_DECREMENT) | (command->post_only > 1) | (command->account > LOB_ACCOUNT_MAX));
}

/* What is wrong with a new order, whatever is in the book at which price. */
static inline uint8_t check_new(const lob *self, const lob_command *command, bool rests) {
    if (!is_well_formed(command)) return LOB_MALFORMED;
    const bool any_price = (command->order_type == LOB_MARKET) & (command->price_ticks == 0);
    if (!any_price && !is_price(command->price_ticks)) return LOB_PRICE_OUT_OF_RANGE;
    if (!is_qty(command->qty_lots)) return LOB_QTY_OUT_OF_RANGE;
    if (command->post_only && !rests) return LOB_POST_ONLY_MUST_REST;
    if (ids_find(&self->by_id, command->order_id) != ZX_NONE) return LOB_ORDER_ID_IN_USE;
    if (rests && self->pool.taken.count == self->orders_max) return LOB_BOOK_FULL;
    return LOB_REASON_NONE;
}

/* Rests what is left of a new order. */
static inline void rest_new(lob *self, const lob_command *command, uint64_t qty_lots, uint64_t leaves_lots) {
    const uint32_t slot = book_add(
        &self->book, command->side, command->price_ticks, command->order_id, qty_lots, leaves_lots, command->account
    );
    if (slot == ZX_NONE) tell_cancelled(self, command->side, command->order_id, leaves_lots, LOB_LEVEL_FULL);
    else ids_add(&self->by_id, command->order_id, slot);
}

static void tell_accepted(lob *self, const lob_command *command) {
    lob_event *const event = emit(self, LOB_ACCEPTED, command->side, command->order_id);
    event->price_ticks = command->price_ticks;
    event->qty_lots = command->qty_lots;
}

/* A new order that trades, or does not rest. */
static __attribute__((noinline)) void trade_new(lob *self, const lob_command *command, int64_t price_ticks, bool rests) {
    const uint8_t side = command->side;
    book_incoming incoming = {
        .price_ticks = price_ticks,
        .leaves_lots = command->qty_lots,
        .owner = owner_of(command->account, command->stp),
        .makers_max = UINT32_MAX,
        .side = side,
    };
    const bool passes_own = command->stp == LOB_CANCEL_OLDEST;
    if (command->time_in_force == LOB_FOK &&
        book_reachable(&self->book, &incoming, command->qty_lots, passes_own, NULL) < command->qty_lots) {
        reject(self, command, LOB_FOK_NOT_FILLABLE);
        return;
    }
    tell_accepted(self, command);
    uint64_t lost_lots = 0;
    if (!trade(self, &incoming, command->order_id, command->stp, &lost_lots) || incoming.leaves_lots == 0) return;
    if (!rests) {
        tell_cancelled(self, side, command->order_id, incoming.leaves_lots, LOB_IMMEDIATE_REMAINDER);
        return;
    }
    const uint64_t qty_lots = command->qty_lots - lost_lots;
    if (lost_lots > 0) tell_amended(self, side, command->order_id, price_ticks, qty_lots);
    rest_new(self, command, qty_lots, incoming.leaves_lots);
}

static void apply_new(lob *self, const lob_command *command) {
    const bool rests = (command->order_type == LOB_LIMIT) & (command->time_in_force == LOB_GTC);
    const uint8_t reason = check_new(self, command, rests);
    if (__builtin_expect(reason != LOB_REASON_NONE, 0)) {
        reject(self, command, reason);
        return;
    }
    const bool any_price = command->price_ticks == 0;
    const int64_t price_ticks = !any_price ? command->price_ticks : command->side == BOOK_BUY ? ZX_TICKS_MAX : 1;
    const bool crosses = book_crosses(&self->book, command->side, price_ticks);
    if (rests & !crosses) {
        tell_accepted(self, command);
        rest_new(self, command, command->qty_lots, command->qty_lots);
    } else if (crosses & (command->post_only != 0)) {
        reject(self, command, LOB_POST_ONLY_WOULD_CROSS);
    } else {
        trade_new(self, command, price_ticks, rests);
    }
}

static void apply_cancel(lob *self, const lob_command *command) {
    const uint32_t slot = ids_find(&self->by_id, command->order_id);
    if (slot == ZX_NONE) {
        reject(self, command, LOB_UNKNOWN_ORDER);
        return;
    }
    cancel_resting(self, slot, LOB_REQUESTED);
}

static uint8_t check_amend(const lob_command *command) {
    if (command->stp > LOB_DECREMENT) return LOB_MALFORMED;
    if (command->price_ticks != 0 && !is_price(command->price_ticks)) return LOB_PRICE_OUT_OF_RANGE;
    if (command->qty_lots != 0 && !is_qty(command->qty_lots)) return LOB_QTY_OUT_OF_RANGE;
    return LOB_REASON_NONE;
}

/* Frees the slot of an order that is in no queue any more. */
static void forget(lob *self, uint32_t slot) {
    ids_remove(&self->by_id, self->pool.orders[slot].order_id, slot);
    book_free_slot(&self->pool, slot);
}

/* An amended order trades with what it meets; what is left goes to the back of its new price. */
static __attribute__((noinline)) void amend_and_trade(
    lob *self, const lob_command *command, uint32_t slot, int64_t price_ticks, uint64_t qty_lots
) {
    book_order *const order = &self->pool.orders[slot];
    const uint8_t side = book_side_of(&self->pool, order);
    book_incoming incoming = {
        .price_ticks = price_ticks,
        .leaves_lots = qty_lots - (order->qty_lots - order->leaves_lots),
        .owner = owner_of(order->owner, command->stp),
        .makers_max = UINT32_MAX,
        .side = side,
    };
    uint64_t lost_lots = 0;
    book_unlink(&self->book, slot);
    if (trade(self, &incoming, command->order_id, command->stp, &lost_lots) && incoming.leaves_lots > 0) {
        order->qty_lots = qty_lots - lost_lots;
        order->leaves_lots = incoming.leaves_lots;
        if (lost_lots > 0) tell_amended(self, side, command->order_id, price_ticks, order->qty_lots);
        if (book_rest(&self->book, slot, side, price_ticks)) return;
        tell_cancelled(self, side, command->order_id, incoming.leaves_lots, LOB_LEVEL_FULL);
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
    if (book_move(&self->book, slot, side, price_ticks, qty_lots, qty_lots - filled_lots)) return;
    tell_cancelled(self, side, command->order_id, qty_lots - filled_lots, LOB_LEVEL_FULL);
    forget(self, slot);
}

static void apply_one(lob *self, const lob_command *command) {
    switch (command->kind) {
    case LOB_NEW:
        apply_new(self, command);
        return;
    case LOB_CANCEL:
        apply_cancel(self, command);
        return;
    case LOB_AMEND:
        apply_amend(self, command);
        return;
    default:
        reject(self, command, LOB_MALFORMED);
    }
}

/* A command tells of each resting order once at most, and of itself four times. */
static bool has_room(const lob *self, size_t room) {
    return room - self->event_count >= self->pool.taken.count + 4u;
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
            zx_fetch(&pool->orders[pool->levels[found[at]].prev]); /* or a level: links number both */
        } else {
            const book_order *const order = &pool->orders[found[at]];
            zx_fetch(&pool->levels[order->level]);
            zx_fetch(&pool->orders[order->next]);
            zx_fetch(&pool->orders[order->prev]);
        }
    }
}

/* Applies commands while there is room for the events of one more; returns how many. */
static size_t apply_all(lob *self, const lob_command *commands, size_t count, size_t room) {
    size_t applied = 0;
    self->event_count = 0;
    for (; applied < count && has_room(self, room); applied++) {
        self->command = (uint32_t)applied;
        if (applied % BLOCK == 0 && self->pool.taken.count + 1 > FETCH_FROM) {
            fetch_block(self, &commands[applied], count - applied < BLOCK ? count - applied : BLOCK);
        }
        apply_one(self, &commands[applied]);
    }
    return applied;
}

size_t lob_apply(lob *self, const lob_command *commands, size_t count) {
    return apply_all(self, commands, count, self->event_room);
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
    self->event_count = 0;
    self->command = 0;
    apply_one(self, &command);
    return self->event_count;
}

size_t lob_apply_into(
    lob *self, const lob_command *commands, size_t count, lob_event *events, size_t room, size_t *written
) {
    lob_event *const own = self->events;
    self->events = events;
    const size_t applied = apply_all(self, commands, count, room < UINT32_MAX ? room : UINT32_MAX);
    *written = self->event_count;
    self->events = own;
    self->event_count = 0;
    return applied;
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
    return self->pool.taken.count;
}

bool lob_rests(const lob *self, uint64_t order_id) {
    return ids_find(&self->by_id, order_id) != ZX_NONE;
}

const char *lob_check(const lob *self) {
    uint32_t orders = 0;
    const char *broken = book_check(&self->book, &orders);
    if (broken == NULL) broken = book_pool_check(&self->pool);
    if (broken != NULL) return broken;
    if (orders != self->pool.taken.count) return "a slot is taken without an order";
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
