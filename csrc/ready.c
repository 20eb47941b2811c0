#include "ready.h"

#define EVENTS_BYTES (UINT64_C(1) << 20) /* of usual records */

static uint32_t least(uint32_t one, uint32_t other) {
    return one < other ? one : other;
}

static void make(const engine *self, const void *at, size_t count, size_t size) {
    arena_make_ready(&self->memory, at, count * size);
}

static void make_map(const engine *self, const idmap *map, uint32_t entries) {
    if (map->limit / READY_MAP_TIMES <= entries) make(self, map->entries, (size_t)map->mask + 1, sizeof *map->entries);
}

static void make_books(const engine *self, uint32_t orders) {
    const book_pool *const pool = &self->pool;
    const uint32_t levels = least(2 * orders, pool->levels_end - pool->capacity);
    const slots *const taken = &pool->taken;
    make(self, pool->orders, orders, sizeof *pool->orders);
    make(self, &pool->levels[pool->capacity], levels, sizeof *pool->levels);
    make(self, pool->free_levels.numbers, levels, sizeof *pool->free_levels.numbers);
    make(self, pool->terms, orders, sizeof *pool->terms);
    make(self, pool->far.nodes, least(ranks_nodes(orders, 0), pool->far.capacity), sizeof *pool->far.nodes);
    make(self, pool->windows, 2 * (size_t)self->market_count, book_window_bytes(pool->window_size));
    make(self, taken->any[0], orders / 64 + 1, sizeof *taken->any[0]);
    make(self, self->markets, self->market_count, sizeof *self->markets);
}

/* Ids count up: the next of them have the places behind those of the last. */
static void make_places(const engine *self, uint32_t orders) {
    const ids *const by_id = &self->by_id;
    const uint32_t size = by_id->mask + 1;
    if (by_id->others.limit / READY_MAP_TIMES <= orders) {
        make(self, by_id->places, size, sizeof *by_id->places);
        return;
    }
    const uint32_t first = (uint32_t)self->next_seq & by_id->mask;
    const uint32_t behind = least(2 * orders, size - first);
    make(self, &by_id->places[first], behind, sizeof *by_id->places);
    make(self, by_id->places, 2 * orders - behind, sizeof *by_id->places);
}

static void make_orders(const engine *self, uint32_t orders) {
    const lanes *const by_account = &self->lanes;
    const uint32_t accounts_max = self->ledger.limits.accounts;
    make(self, self->terms, orders, sizeof *self->terms);
    make(self, by_account->links, (size_t)orders * LANES_PER_ORDER, sizeof *by_account->links);
    make(self, by_account->pool, 2 * (size_t)least(orders, accounts_max), sizeof *by_account->pool);
    make(self, &by_account->pool[2 * (size_t)accounts_max], orders, sizeof *by_account->pool);
    make(self, self->expiry_heap, orders, sizeof *self->expiry_heap);
    make_places(self, orders);
    make_map(self, &by_account->map, orders);
    make_map(self, &self->by_id.others, orders);
    make_map(self, &self->client_order_map, orders);
}

static void make_ledger(const engine *self, uint32_t orders) {
    const ledger *const its = &self->ledger;
    const uint32_t accounts = least(orders, its->limits.accounts);
    make(self, its->accounts, accounts, sizeof *its->accounts);
    make(self, its->keys, least(orders, its->limits.keys), sizeof *its->keys);
    make(self, its->balances, least(orders, its->limits.balances), sizeof *its->balances);
    make(self, self->account_rules, accounts, sizeof *self->account_rules);
    make(self, self->trade_groups, accounts, sizeof *self->trade_groups);
    make_map(self, &its->key_map, orders);
    make_map(self, &its->balance_map, orders);
}

void ready_make(const engine *self, uint32_t orders) {
    const uint32_t count = least(orders, self->pool.capacity);
    if (count == 0) return;
    make(self, self->events, EVENTS_BYTES, 1);
    make_books(self, count);
    make_orders(self, count);
    make_ledger(self, count);
    make_map(self, &self->market_map, count);
    if (self->outcomes_max / READY_MAP_TIMES <= count) make(self, self->outcomes, self->outcomes_max, sizeof *self->outcomes);
    make_map(self, &self->outcome_map, count);
}
