#include "shardbench.h"

#include <stdlib.h>

#define BLOCK 32u     /* commands that are looked at ahead */
#define RING 65536u   /* reports; a power of two */
#define SEED UINT64_C(1)

typedef struct shard {
    lob_event *ring;
    uint64_t written; /* reports */
    uint64_t refused;
    uint64_t trades;
    book *books;
    book_pool pool;
    ids by_id;
    arena memory;
} shard;

static int shard_create(shard *self, uint32_t market_count, uint32_t orders_max) {
    *self = (shard){0};
    const book_limits limits = {.orders = orders_max, .books = market_count, .windowed = market_count, .any_slot = true};
    const size_t books_at = arena_reserve(&self->memory, market_count, sizeof(book));
    const size_t ring_at = arena_reserve(&self->memory, RING, sizeof(lob_event));
    const book_pool_plan pool = book_pool_reserve(&self->memory, &limits);
    const ids_plan by_id = ids_reserve(&self->memory, orders_max);
    if (arena_map_huge(&self->memory) != ZX_OK) return ZX_ERROR_MEMORY;
    book_pool_init(&self->pool, &pool, &self->memory);
    ids_init(&self->by_id, &by_id, &self->memory, self->pool.orders, SEED);
    self->ring = arena_at(&self->memory, ring_at);
    self->books = arena_at(&self->memory, books_at);
    for (uint32_t market = 0; market < market_count; market++) {
        book_init(&self->books[market], &self->pool, market);
        book_use_windows(&self->books[market], market);
    }
    return ZX_OK;
}

static lob_event *emit(shard *self, uint8_t kind, uint8_t side, uint64_t order_id) {
    lob_event *const event = &self->ring[self->written++ % RING];
    *event = (lob_event){.kind = kind, .side = side, .order_id = order_id};
    return event;
}

/* An order on its way in. */
typedef struct taker {
    shard *self;
    uint64_t order_id;
    uint8_t side;
} taker;

static void on_fill(void *context, uint32_t maker_slot, int64_t price_ticks, uint64_t qty_lots) {
    const taker *const of = context;
    const book_order *const maker = &of->self->pool.orders[maker_slot];
    lob_event *const event = emit(of->self, LOB_TRADE, of->side, of->order_id);
    event->maker_order_id = maker->order_id;
    event->price_ticks = price_ticks;
    event->qty_lots = qty_lots;
    of->self->trades++;
    if (maker->leaves_lots == 0) ids_remove(&of->self->by_id, maker->order_id, maker_slot, true);
}

/* Trades; returns what is left. */
static uint64_t trade(shard *self, book *its, uint64_t order_id, uint8_t side, int64_t price_ticks, uint64_t qty_lots) {
    taker context = {.self = self, .order_id = order_id, .side = side};
    const book_listener listener = {.on_fill = on_fill, .context = &context};
    book_incoming incoming = {
        .price_ticks = price_ticks, .leaves_lots = qty_lots, .owner = ZX_NONE, .makers_max = UINT32_MAX, .side = side,
    };
    book_match(its, &incoming, &listener);
    return incoming.leaves_lots;
}

static void rest(
    shard *self, book *its, uint64_t order_id, uint8_t side, int64_t price_ticks, uint64_t qty_lots, uint64_t leaves_lots
) {
    const uint32_t slot = book_take_free_slot(&self->pool);
    book_order *const order = &self->pool.orders[slot];
    order->order_id = order_id;
    order->qty_lots = qty_lots;
    order->leaves_lots = leaves_lots;
    book_set_owner(order, 0);
    const bool rested = book_rest(its, slot, side, price_ticks);
    ZX_ASSERT(rested);
    ids_add(&self->by_id, order_id, slot, true);
}

static void enter(shard *self, book *its, const lob_command *command, uint64_t order_id, uint8_t side) {
    uint64_t leaves_lots = command->qty_lots;
    if (book_crosses(its, side, command->price_ticks)) {
        leaves_lots = trade(self, its, order_id, side, command->price_ticks, leaves_lots);
    }
    if (leaves_lots == 0) return;
    if (command->kind == LOB_NEW && command->time_in_force == LOB_IOC) {
        emit(self, LOB_CANCELLED, side, order_id)->qty_lots = leaves_lots;
        return;
    }
    rest(self, its, order_id, side, command->price_ticks, command->qty_lots, leaves_lots);
}

static void apply(shard *self, book *its, const lob_command *command) {
    if (command->kind == LOB_NEW) {
        if (ids_has(&self->by_id, command->order_id) || book_order_count(&self->pool) == self->pool.capacity) {
            self->refused++;
            emit(self, LOB_REJECTED, command->side, command->order_id);
            return;
        }
        lob_event *const event = emit(self, LOB_ACCEPTED, command->side, command->order_id);
        event->price_ticks = command->price_ticks;
        event->qty_lots = command->qty_lots;
        enter(self, its, command, command->order_id, command->side);
        return;
    }
    const uint32_t slot = ids_find(&self->by_id, command->order_id);
    if (slot == ZX_NONE) {
        self->refused++;
        emit(self, LOB_REJECTED, command->side, command->order_id);
        return;
    }
    const book_order *const order = &self->pool.orders[slot];
    const uint8_t side = book_side_of(&self->pool, order);
    const uint64_t leaves_lots = order->leaves_lots;
    book_remove(its, slot);
    ids_remove(&self->by_id, command->order_id, slot, true);
    if (command->kind == LOB_CANCEL) {
        emit(self, LOB_CANCELLED, side, command->order_id)->qty_lots = leaves_lots;
        return;
    }
    lob_event *const event = emit(self, LOB_AMENDED, side, command->order_id);
    event->price_ticks = command->price_ticks;
    event->qty_lots = command->qty_lots;
    enter(self, its, command, command->order_id, side);
}

static void fetch_lines(const void *at, size_t bytes) {
    for (size_t done = 0; done < bytes; done += ARENA_ALIGN) zx_fetch((const uint8_t *)at + done);
}

/* Asks for what a block of commands will need, a step of the way at a time for all of them. */
static void fetch_block(const shard *self, const lob_command *commands, const uint32_t *markets, size_t count) {
    const book_pool *const pool = &self->pool;
    uint32_t named[BLOCK];  /* slots of orders */
    uint32_t levels[BLOCK]; /* where orders will rest */
    uint32_t makers[BLOCK]; /* levels that they may trade with */
    for (size_t at = 0; at < count; at++) {
        zx_fetch(ids_place(&self->by_id, commands[at].order_id));
        fetch_lines(&self->books[markets[at]], sizeof(book));
    }
    for (size_t at = 0; at < count; at++) {
        const lob_command *const command = &commands[at];
        const book *const its = &self->books[markets[at]];
        named[at] = command->kind == LOB_NEW ? ZX_NONE : ids_guess(&self->by_id, command->order_id);
        if (named[at] != ZX_NONE) zx_fetch(&pool->orders[named[at]]);
        if (command->kind != LOB_CANCEL) book_fetch_place(its, command->side, command->price_ticks);
        makers[at] = its->sides[command->side ^ 1].best;
        if (command->time_in_force == LOB_IOC && makers[at] != ZX_NONE) zx_fetch(&pool->levels[makers[at]]);
    }
    for (size_t at = 0; at < count; at++) {
        const lob_command *const command = &commands[at];
        const book *const its = &self->books[markets[at]];
        if (named[at] != ZX_NONE) {
            const book_order *const order = &pool->orders[named[at]];
            zx_fetch(&pool->levels[order->level]);
            zx_fetch(&pool->orders[order->next]);
            zx_fetch(&pool->orders[order->prev]);
        }
        levels[at] = command->kind == LOB_CANCEL ? ZX_NONE : book_guess_level(its, command->side, command->price_ticks);
        if (levels[at] != ZX_NONE) zx_fetch(&pool->levels[levels[at]]);
        if (command->time_in_force == LOB_IOC && makers[at] != ZX_NONE) {
            zx_fetch(&pool->orders[pool->levels[makers[at]].next]);
        }
    }
    for (size_t at = 0; at < count; at++) {
        if (named[at] != ZX_NONE) {
            const book_order *const order = &pool->orders[named[at]];
            book_fetch_place(&self->books[markets[at]], commands[at].side, book_price_of(pool, order));
        }
        if (levels[at] != ZX_NONE) zx_fetch(&pool->orders[pool->levels[levels[at]].prev]); /* or a level */
        if (commands[at].time_in_force == LOB_IOC && makers[at] != ZX_NONE) {
            zx_fetch(ids_place(&self->by_id, pool->orders[pool->levels[makers[at]].next].order_id));
        }
    }
}

static void run(shard *self, const lob_command *commands, const uint32_t *markets, size_t count) {
    for (size_t at = 0; at < count; at++) {
        if (at % BLOCK == 0) {
            fetch_block(self, commands + at, markets + at, count - at < BLOCK ? count - at : BLOCK);
        }
        apply(self, &self->books[markets[at]], &commands[at]);
    }
}

int shardbench_run(
    const lob_command *commands, const uint32_t *markets, size_t count, size_t first, uint32_t market_count,
    uint32_t orders_max, hdr *latency, bookbench_result *result
) {
    *result = (bookbench_result){0};
    shard target;
    const int error = shard_create(&target, market_count, orders_max);
    if (error != ZX_OK) return error;
    run(&target, commands, markets, first);
    target.written = target.trades = 0;
    if (latency == NULL) {
        const uint64_t begun_ns = bookbench_now_ns();
        run(&target, commands + first, markets + first, count - first);
        result->elapsed_ns = bookbench_now_ns() - begun_ns;
    } else {
        for (size_t at = first; at < count; at++) {
            const uint64_t begun_ns = bookbench_now_ns();
            apply(&target, &target.books[markets[at]], &commands[at]);
            hdr_record(latency, bookbench_now_ns() - begun_ns);
        }
    }
    result->events = target.written;
    result->trades = target.trades;
    result->refused = target.refused;
    result->resting = book_order_count(&target.pool);
    arena_unmap(&target.memory);
    return ZX_OK;
}

int shardbench_peer_run(
    const bookbench_peer *peer, const lob_command *commands, const uint32_t *markets, size_t count, size_t first,
    uint32_t market_count, hdr *latency, bookbench_result *result
) {
    *result = (bookbench_result){0};
    void **const books = calloc(market_count, sizeof *books);
    if (books == NULL) return ZX_ERROR_MEMORY;
    uint32_t made = 0;
    while (made < market_count && (books[made] = bookbench_peer_create(peer)) != NULL) made++;
    if (made == market_count) {
        for (size_t at = 0; at < first; at++) bookbench_peer_apply(peer, books[markets[at]], &commands[at]);
        const uint64_t before = bookbench_peer_trades();
        const uint64_t begun_ns = bookbench_now_ns();
        for (size_t at = first; at < count; at++) {
            const uint64_t applied_ns = latency == NULL ? 0 : bookbench_now_ns();
            bookbench_peer_apply(peer, books[markets[at]], &commands[at]);
            if (latency != NULL) hdr_record(latency, bookbench_now_ns() - applied_ns);
        }
        if (latency == NULL) result->elapsed_ns = bookbench_now_ns() - begun_ns;
        result->trades = result->events = bookbench_peer_trades() - before;
    }
    for (uint32_t market = 0; market < made; market++) peer->destroy(books[market]);
    free(books);
    return made == market_count ? ZX_OK : ZX_ERROR_MEMORY;
}
