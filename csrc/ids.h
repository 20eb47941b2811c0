/*
 * ids.h: finds the slot of an open order by its id.
 *
 *      places    [ . | 4 | 5 | . | . | 6 | ... ]    slot + 1 by the low bits of the id
 *                      id 1025 ──┘
 *      others    an idmap: orders whose place was taken by another when they came
 *
 * Ids that count up, as an exchange gives them and most callers choose them, each have a place of their own for as long as
 * no more than size of them lie between the oldest open order and the newest; then finding one is one look at its place and one at
 * the order. All others are found as well, by a hash, so any ids are right and those that count up are fast.
 *
 * Cost: one cache line, or those of an idmap. There are twice as many places as orders at most. Nothing allocates. Not
 * thread safe.
 */
#ifndef ZX_IDS_H
#define ZX_IDS_H

#include "arena.h"
#include "base.h"
#include "book.h"
#include "idmap.h"
#include "undo.h"

#ifndef IDS_PLACES_MAX /* tests build with few, so that most orders are among the others */
#define IDS_PLACES_MAX (UINT32_C(1) << 27)
#endif

typedef struct ids {
    const book_order *orders; /* by slot */
    uint32_t *places;         /* mask + 1 of them: slot + 1, or 0 */
    uint32_t mask;            /* a power of two less one */
    uint32_t count;           /* orders that are found */
    uint64_t highest;         /* id that was ever added */
    uint64_t seed;            /* of the hashes of others */
    idmap others;
    undo *undo; /* told of changes, or NULL; set it with ids_tell() */
} ids;

/* What ids_reserve() reserved, for ids_init(). */
typedef struct ids_plan {
    size_t places, others; /* offsets in the arena */
    uint32_t limit;
} ids_plan;

/* For at most so many orders at once, 1 to 2^26. */
ids_plan ids_reserve(arena *memory, uint32_t limit);
void ids_init(ids *self, const ids_plan *plan, const arena *memory, const book_order *orders, uint64_t seed);

/* From now on tells this undo of all changes, or NULL: none. */
void ids_tell(ids *self, undo *told);

/* The parts of what follows that are about `others`. */
uint32_t ids_find_other(const ids *self, uint64_t order_id);
void ids_add_other(ids *self, uint64_t order_id, uint32_t slot);
void ids_remove_other(ids *self, uint64_t order_id, uint32_t slot);

static inline uint32_t *ids_place(const ids *self, uint64_t order_id) {
    return &self->places[(uint32_t)order_id & self->mask];
}

/* The slot of the order in the place of an id, which may be another's, or ZX_NONE: a guess, for fetching ahead. */
static inline uint32_t ids_guess(const ids *self, uint64_t order_id) {
    return *ids_place(self, order_id) - 1;
}

/* The slot of an order, or ZX_NONE. */
static inline uint32_t ids_find(const ids *self, uint64_t order_id) {
    const uint32_t slot = ids_guess(self, order_id);
    if (slot != ZX_NONE && self->orders[slot].order_id == order_id) return slot;
    return __builtin_expect(self->others.count == 0, 1) ? ZX_NONE : ids_find_other(self, order_id);
}

/* Whether an order has this id. For ids that count up no look is needed. */
static inline bool ids_has(const ids *self, uint64_t order_id) {
    return __builtin_expect(order_id <= self->highest, 0) && ids_find(self, order_id) != ZX_NONE;
}

/* Adds an order that is not found yet; its slot has the id. `is_plain`: the caller knows that there is no undo to be
 * told. */
static inline void ids_add(ids *self, uint64_t order_id, uint32_t slot, bool is_plain) {
    uint32_t *const place = ids_place(self, order_id);
    self->count++;
    if (order_id > self->highest) self->highest = order_id;
    if (__builtin_expect(*place != 0, 0)) {
        ids_add_other(self, order_id, slot);
        return;
    }
    if (!is_plain) undo_before(self->undo, place, sizeof *place);
    *place = slot + 1;
}

/* Takes away an order that was added under this id. `is_plain` as above. */
static inline void ids_remove(ids *self, uint64_t order_id, uint32_t slot, bool is_plain) {
    uint32_t *const place = ids_place(self, order_id);
    self->count--;
    if (__builtin_expect(*place != slot + 1, 0)) {
        ids_remove_other(self, order_id, slot);
        return;
    }
    if (!is_plain) undo_before(self->undo, place, sizeof *place);
    *place = 0;
}

/* Walks all places. NULL, or a sentence about what does not hold; that each order is found is the caller's to ask. */
const char *ids_check(const ids *self);

#endif
