#include "ahead.h"

#include "trading.h"

#define STEP 4u

static uint32_t market_id_of(const uint8_t *command) {
    return zx_load_u32(command + offsetof(struct zx_command, market_id));
}

static uint64_t order_id_of(const uint8_t *command) {
    return zx_load_u64(command + offsetof(struct zx_command, order_id));
}

/* The market that a command names, as far as the map's first candidate tells; or NULL. */
static const engine_market *guess_market(const engine *self, const uint8_t *command) {
    const uint32_t index = idmap_guess(&self->market_map, engine_hash_market(self, market_id_of(command)));
    return index == ZX_NONE ? NULL : &self->markets[index];
}

static uint32_t guess_order(const engine *self, const uint8_t *command) {
    const uint64_t order_id = order_id_of(command);
    return order_id == 0 ? ZX_NONE : ids_guess(&self->by_id, order_id);
}

static void fetch_entries(const engine *self, const uint8_t *command, uint64_t seq) {
    idmap_fetch(&self->market_map, engine_hash_market(self, market_id_of(command)));
    const uint64_t order_id = order_id_of(command);
    zx_fetch(ids_place(&self->by_id, order_id != 0 ? order_id : seq));
    const uint64_t client_order_id = zx_load_u64(command + offsetof(struct zx_command, client_order_id));
    if (client_order_id != 0) {
        const uint64_t hash = trading_hash_client_order(self, (uint32_t)self->command.account, client_order_id);
        idmap_fetch(&self->client_order_map, hash);
    }
}

static void fetch_lines(const void *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += ARENA_ALIGN) zx_fetch((const uint8_t *)from + at);
}

static void fetch_market_and_order(const engine *self, const uint8_t *command) {
    const engine_market *const market = guess_market(self, command);
    if (market != NULL) {
        fetch_lines(market, offsetof(engine_market, stops));
        const uint32_t index = (uint32_t)(market - self->markets);
        lanes_fetch(&self->lanes, (uint32_t)self->command.account, index, command[1] == ZX_SIDE_BUY ? BOOK_BUY : BOOK_SELL);
    }
    const uint32_t slot = guess_order(self, command);
    if (slot != ZX_NONE) {
        zx_fetch(&self->pool.orders[slot]);
        zx_fetch(&self->lanes.links[slot * LANES_PER_ORDER]);
    }
}

static void fetch_levels(const engine *self, const uint8_t *command) {
    const engine_market *const market = guess_market(self, command);
    for (uint32_t side = 0; market != NULL && side < 2; side++) {
        const uint32_t best = market->book.sides[side].best;
        if (best != ZX_NONE) zx_fetch(&self->pool.levels[best]);
    }
    const uint32_t slot = guess_order(self, command);
    if (slot == ZX_NONE) return;
    const book_order *const order = &self->pool.orders[slot];
    if (order->level == ZX_NONE) return;
    zx_fetch(&self->pool.levels[order->level]);
    zx_fetch(&self->pool.orders[order->next]); /* or a level: links number both */
    zx_fetch(&self->pool.orders[order->prev]);
}

static void fetch_makers(const engine *self, const uint8_t *command) {
    const engine_market *const market = guess_market(self, command);
    for (uint32_t side = 0; market != NULL && side < 2; side++) {
        const uint32_t best = market->book.sides[side].best;
        if (best == ZX_NONE) continue;
        zx_fetch(&self->pool.orders[self->pool.levels[best].next]);
    }
}

void ahead_fetch(const engine *self, const uint8_t *commands, uint32_t index, uint32_t count) {
    const uint8_t *const at = commands + (size_t)index * ZX_COMMAND_BLOCK_LENGTH;
    const uint32_t left = count - index;
    if (left > 3 * STEP) fetch_entries(self, at + 3 * STEP * ZX_COMMAND_BLOCK_LENGTH, self->next_seq + 3 * STEP);
    if (left > 2 * STEP) fetch_market_and_order(self, at + 2 * STEP * ZX_COMMAND_BLOCK_LENGTH);
    if (left > STEP) fetch_levels(self, at + STEP * ZX_COMMAND_BLOCK_LENGTH);
    if (left > STEP / 2) fetch_makers(self, at + STEP / 2 * ZX_COMMAND_BLOCK_LENGTH);
}
