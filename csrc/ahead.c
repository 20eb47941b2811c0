#include "ahead.h"

#include "trading.h"

static void fetch_lines(const void *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += ARENA_ALIGN) zx_fetch((const uint8_t *)from + at);
}

static uint64_t client_order_hash(const engine *self, const ahead_guess *of) {
    return trading_hash_client_order(self, (uint32_t)self->command.account, of->command.client_order_id);
}

static void fetch_entries(const engine *self, const ahead_guess *of, uint64_t seq) {
    idmap_fetch(&self->market_map, engine_hash_market(self, of->command.market_id));
    zx_fetch(ids_place(&self->by_id, of->command.order_id != 0 ? of->command.order_id : seq));
    if (of->command.client_order_id != 0) idmap_fetch(&self->client_order_map, client_order_hash(self, of));
}

static void fetch_order(const engine *self, uint32_t slot) {
    zx_fetch(&self->pool.orders[slot]);
    zx_fetch(&self->lanes.links[slot * LANES_PER_ORDER]);
}

static void fetch_market_and_order(const engine *self, ahead_guess *of) {
    const uint32_t index = idmap_guess(&self->market_map, engine_hash_market(self, of->command.market_id));
    of->market = index == ZX_NONE ? NULL : &self->markets[index];
    if (of->market != NULL) {
        fetch_lines(of->market, ENGINE_MARKET_HOT_BYTES);
        if (of->is_new) lanes_fetch(&self->lanes, (uint32_t)self->command.account, index, of->side);
    }
    of->slot = ZX_NONE;
    if (of->is_new) return;
    if (of->command.order_id != 0) {
        of->slot = ids_guess(&self->by_id, of->command.order_id);
    } else if (of->command.client_order_id != 0) {
        of->slot = idmap_guess(&self->client_order_map, client_order_hash(self, of));
    }
    if (of->slot != ZX_NONE) fetch_order(self, of->slot);
}

/* What changes beside an order when it is gone. */
static void fetch_around(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    lanes_fetch_around(&self->lanes, slot);
    if (order->owner_next != ZX_NONE) zx_fetch(&self->pool.orders[order->owner_next]);
    if (order->owner_prev != ZX_NONE) zx_fetch(&self->pool.orders[order->owner_prev]);
}

static void fetch_ways(const engine *self, const ahead_guess *of) {
    const book_pool *const pool = &self->pool;
    if (of->market != NULL && of->is_new) {
        book_fetch_place(&of->market->book, of->side, of->command.price_ticks);
        for (uint32_t side = 0; side < 2; side++) {
            const uint32_t best = of->market->book.sides[side].best;
            if (best != ZX_NONE) zx_fetch(&pool->levels[best]);
        }
        lanes_fetch_guess(&self->lanes, (uint32_t)self->command.account, (uint32_t)(of->market - self->markets), of->side);
    }
    if (of->slot == ZX_NONE) return;
    const book_order *const order = &pool->orders[of->slot];
    fetch_around(self, of->slot);
    if (order->level == ZX_NONE) return;
    zx_fetch(&pool->levels[order->level]);
    zx_fetch(&pool->orders[order->next]); /* or a level */
    zx_fetch(&pool->orders[order->prev]);
}

static void fetch_levels(const engine *self, ahead_guess *of) {
    of->maker = of->level = ZX_NONE;
    if (of->market == NULL || !of->is_new) return;
    const book *const its = &of->market->book;
    /* The price is as it came, and may be beyond all that there are. */
    if (its->sides[of->side ^ 1].best != ZX_NONE && book_crosses(its, of->side, of->command.price_ticks)) {
        of->maker = book_next_maker(its, of->side);
        fetch_order(self, of->maker);
        book_fetch_place(its, of->side ^ 1, book_rank_of(of->side ^ 1, its->sides[of->side ^ 1].best_rank));
    } else {
        of->level = book_guess_level(its, of->side, of->command.price_ticks);
        if (of->level != ZX_NONE) zx_fetch(&self->pool.levels[of->level]);
    }
}

static void fetch_ends(const engine *self, const ahead_guess *of) {
    const book_pool *const pool = &self->pool;
    if (of->maker != ZX_NONE) {
        const book_order *const maker = &pool->orders[of->maker];
        zx_fetch(ids_place(&self->by_id, maker->order_id));
        fetch_around(self, of->maker);
        book_fetch_second_level(&of->market->book, of->side ^ 1);
        lanes_fetch(&self->lanes, maker->owner, (uint32_t)(of->market - self->markets), of->side ^ 1);
    } else if (of->level != ZX_NONE) {
        zx_fetch(&pool->orders[pool->levels[of->level].prev]); /* or a level */
    }
}

#define PASSES 5u

/* From the command that is applied next to the one whose turn a pass is; the last is one gap before it is applied. */
static inline uint32_t distance_of(uint32_t pass) {
    return (PASSES + 1 - pass) * AHEAD_GAP;
}

_Static_assert(PASSES * AHEAD_GAP < AHEAD_DEPTH, "a guess is kept until its command is applied");

static void begin_guess(ahead_guess *of, const uint8_t *command) {
    memcpy(&of->command, command, sizeof of->command);
    of->is_new = of->command.kind == ZX_COMMAND_KIND_NEW;
    of->side = of->command.side == ZX_SIDE_BUY ? BOOK_BUY : BOOK_SELL;
}

/* One pass over one command; `next` is the one that is applied next. */
static void run(ahead *self, uint32_t pass, uint32_t at, uint32_t next) {
    const engine *const shard = self->shard;
    ahead_guess *const of = &self->guesses[at % AHEAD_DEPTH];
    switch (pass) {
    case 1:
        begin_guess(of, self->commands + (size_t)at * ZX_COMMAND_BLOCK_LENGTH);
        fetch_entries(shard, of, shard->next_seq + (at - next));
        return;
    case 2:
        fetch_market_and_order(shard, of);
        return;
    case 3:
        fetch_ways(shard, of);
        return;
    case 4:
        fetch_levels(shard, of);
        return;
    default:
        fetch_ends(shard, of);
    }
}

void ahead_begin(ahead *self, const engine *shard, const uint8_t *commands, uint32_t count) {
    self->shard = shard;
    self->commands = commands;
    self->count = count;
    for (uint32_t pass = 1; pass <= PASSES; pass++) {
        for (uint32_t at = 0; at < distance_of(pass) && at < count; at++) run(self, pass, at, 0);
    }
}

void ahead_go_on(ahead *self, uint32_t index) {
    for (uint32_t pass = 1; pass <= PASSES; pass++) {
        const uint32_t at = index + distance_of(pass);
        if (at < self->count) run(self, pass, at, index);
    }
}
