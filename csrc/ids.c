#include "ids.h"

static uint32_t places_for(uint32_t limit) {
    const uint32_t places = zx_ceil_pow2(limit) * 2;
    return places < IDS_PLACES_MAX ? places : IDS_PLACES_MAX;
}

ids_plan ids_reserve(arena *memory, uint32_t limit) {
    return (ids_plan){
        .places = arena_reserve(memory, places_for(limit), sizeof(uint32_t)),
        .others = arena_reserve(memory, idmap_entries(limit), sizeof(idmap_entry)),
        .limit = limit,
    };
}

void ids_init(ids *self, const ids_plan *plan, const arena *memory, const book_order *orders, uint64_t seed) {
    *self = (ids){
        .orders = orders,
        .places = arena_at(memory, plan->places),
        .mask = places_for(plan->limit) - 1,
        .seed = seed,
    };
    idmap_init(&self->others, plan->limit, arena_at(memory, plan->others));
}

void ids_tell(ids *self, undo *told) {
    self->undo = told;
    self->others.undo = told;
}

static uint64_t hash_of(const ids *self, uint64_t order_id) {
    return idmap_hash(self->seed, order_id, 0);
}

uint32_t ids_find_other(const ids *self, uint64_t order_id) {
    idmap_cursor cursor;
    uint32_t slot = idmap_first(&self->others, hash_of(self, order_id), &cursor);
    while (slot != ZX_NONE && self->orders[slot].order_id != order_id) slot = idmap_next(&self->others, &cursor);
    return slot;
}

void ids_add_other(ids *self, uint64_t order_id, uint32_t slot) {
    idmap_insert(&self->others, hash_of(self, order_id), slot);
}

void ids_remove_other(ids *self, uint64_t order_id, uint32_t slot) {
    idmap_remove(&self->others, hash_of(self, order_id), slot);
}

const char *ids_check(const ids *self) {
    uint32_t found = self->others.count;
    for (uint64_t at = 0; at <= self->mask; at++) {
        const uint32_t slot = self->places[at] - 1;
        if (slot == ZX_NONE) continue;
        if (slot >= self->others.limit || ids_place(self, self->orders[slot].order_id) != &self->places[at]) {
            return "the place of an id leads to another's order";
        }
        found++;
    }
    return found == self->count ? NULL : "ids lead to orders that are gone";
}
