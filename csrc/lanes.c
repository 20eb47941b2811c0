#include "lanes.h"

lanes_plan lanes_reserve(arena *memory, uint32_t accounts, uint32_t orders) {
    return (lanes_plan){
        .pool = arena_reserve(memory, (size_t)accounts * 2 + orders, sizeof(lane)),
        .links = arena_reserve(memory, (size_t)orders * LANES_PER_ORDER, sizeof(lane_link)),
        .entries = arena_reserve(memory, idmap_entries(orders), sizeof(idmap_entry)),
        .accounts = accounts,
        .orders = orders,
    };
}

void lanes_init(lanes *self, const lanes_plan *plan, const arena *memory, uint64_t seed) {
    *self = (lanes){
        .pool = arena_at(memory, plan->pool),
        .links = arena_at(memory, plan->links),
        .seed = seed,
        .size = plan->accounts * 2 + plan->orders,
        .free = ZX_NONE,
        .fresh = plan->accounts * 2,
    };
    idmap_init(&self->map, plan->orders, arena_at(memory, plan->entries));
}

static uint64_t hash_lane(const lanes *self, uint32_t account, uint32_t market, uint8_t side) {
    return idmap_hash(self->seed, account, (uint64_t)market << 1 | side);
}

void lanes_fetch(const lanes *self, uint32_t account, uint32_t market, uint8_t side) {
    idmap_fetch(&self->map, hash_lane(self, account, market, side));
}

void lanes_fetch_guess(const lanes *self, uint32_t account, uint32_t market, uint8_t side) {
    const uint32_t index = idmap_guess(&self->map, hash_lane(self, account, market, side));
    if (index != ZX_NONE) zx_fetch(&self->pool[index]);
}

/* Index of a lane, or ZX_NONE. */
static uint32_t find(const lanes *self, uint32_t account, uint32_t market, uint8_t side) {
    if (market == LANES_EVERY_MARKET) return account * 2 + side;
    idmap_cursor cursor;
    uint32_t index = idmap_first(&self->map, hash_lane(self, account, market, side), &cursor);
    while (index != ZX_NONE && (self->pool[index].account != account || self->pool[index].market != market ||
                                self->pool[index].side != side)) {
        index = idmap_next(&self->map, &cursor);
    }
    return index;
}

static uint32_t find_or_make(lanes *self, uint32_t account, uint32_t market, uint8_t side) {
    uint32_t index = find(self, account, market, side);
    if (index == ZX_NONE) {
        index = self->free;
        if (index != ZX_NONE) {
            self->free = self->pool[index].head;
        } else {
            ZX_ASSERT(self->fresh < self->size);
            index = self->fresh++;
        }
        idmap_insert(&self->map, hash_lane(self, account, market, side), index);
    } else if (self->pool[index].count > 0) {
        return index;
    }
    undo_before(self->undo, &self->pool[index], sizeof(lane));
    self->pool[index] =
        (lane){.account = account, .market = market, .side = side, .head = ZX_NONE, .tail = ZX_NONE};
    return index;
}

static lane_link *link_of(const lanes *self, uint32_t slot, uint32_t which) {
    return &self->links[slot * LANES_PER_ORDER + which];
}

/* Before an order is put between two others of a lane, or taken from there. */
static inline void before_linking(const lanes *self, const lane *at, uint32_t which, uint32_t slot, uint32_t prev, uint32_t next) {
    if (__builtin_expect(self->undo == NULL, 1)) return;
    undo_keep(self->undo, at, sizeof *at);
    undo_keep(self->undo, link_of(self, slot, which), sizeof(lane_link));
    if (prev != ZX_NONE) undo_keep(self->undo, link_of(self, prev, which), sizeof(lane_link));
    if (next != ZX_NONE) undo_keep(self->undo, link_of(self, next, which), sizeof(lane_link));
}

void lanes_add(lanes *self, uint32_t slot, uint32_t account, uint32_t market, uint8_t side) {
    ZX_ASSERT(market != LANES_EVERY_MARKET);
    const uint32_t markets[LANES_PER_ORDER] = {LANES_EVERY_MARKET, market};
    for (uint32_t which = 0; which < LANES_PER_ORDER; which++) {
        const uint32_t index = find_or_make(self, account, markets[which], side);
        lane *const at = &self->pool[index];
        before_linking(self, at, which, slot, at->tail, ZX_NONE);
        *link_of(self, slot, which) = (lane_link){.lane = index, .next = ZX_NONE, .prev = at->tail};
        if (at->tail != ZX_NONE) link_of(self, at->tail, which)->next = slot;
        else at->head = slot;
        at->tail = slot;
        at->count++;
    }
}

void lanes_remove(lanes *self, uint32_t slot) {
    for (uint32_t which = 0; which < LANES_PER_ORDER; which++) {
        const lane_link link = self->links[slot * LANES_PER_ORDER + which];
        lane *const at = &self->pool[link.lane];
        ZX_ASSERT(at->count > 0);
        before_linking(self, at, which, slot, link.prev, link.next);
        if (link.prev != ZX_NONE) link_of(self, link.prev, which)->next = link.next;
        else at->head = link.next;
        if (link.next != ZX_NONE) link_of(self, link.next, which)->prev = link.prev;
        else at->tail = link.prev;
        at->count--;
        if (at->count > 0 || at->market == LANES_EVERY_MARKET) continue;
        idmap_remove(&self->map, hash_lane(self, at->account, at->market, (uint8_t)at->side), link.lane);
        at->head = self->free;
        self->free = link.lane;
    }
}

const lane *lanes_find(const lanes *self, uint32_t account, uint32_t market, uint8_t side) {
    const uint32_t index = find(self, account, market, side);
    return index == ZX_NONE || self->pool[index].count == 0 ? NULL : &self->pool[index];
}

/* ------------------------------------------------------------ check */

/* The lane that begins with `slot`: sorted, and as long as it says. */
static const char *check_lane(
    const lanes *self, const book_order *orders, const lane *at, uint32_t slot, uint32_t which
) {
    uint32_t count = 0;
    uint32_t prev = ZX_NONE;
    for (; slot != ZX_NONE; slot = self->links[slot * LANES_PER_ORDER + which].next) {
        const lane_link *const link = &self->links[slot * LANES_PER_ORDER + which];
        if (&self->pool[link->lane] != at || link->prev != prev) return "the links of a lane do not agree";
        if (prev != ZX_NONE && orders[prev].order_id >= orders[slot].order_id) return "a lane is not sorted";
        prev = slot;
        if (++count > at->count) return "a lane is longer than it says";
    }
    return count == at->count && at->tail == prev ? NULL : "a lane's end or length is wrong";
}

const char *lanes_check(
    const lanes *self, const book_order *orders, uint32_t slot, uint32_t market, uint8_t side, uint32_t *found
) {
    const uint32_t markets[LANES_PER_ORDER] = {LANES_EVERY_MARKET, market};
    for (uint32_t which = 0; which < LANES_PER_ORDER; which++) {
        const lane_link *const link = &self->links[slot * LANES_PER_ORDER + which];
        const lane *const at = lanes_find(self, orders[slot].owner, markets[which], side);
        if (at == NULL || at != &self->pool[link->lane]) return "an order is not in its lane";
        if (link->prev != ZX_NONE) continue;
        if (at->head != slot) return "a lane does not begin with its first order";
        const char *const broken = check_lane(self, orders, at, slot, which);
        if (broken != NULL) return broken;
        if (markets[which] != LANES_EVERY_MARKET) (*found)++;
    }
    return NULL;
}
