/*
 * levels.h: the price levels of one side of a book.
 *
 *      ranks    best                                                              worst
 *      ───────────■────────■────────■──■────────■─────────────────────■──────────────■──▶
 *      window   base├───────────────────────────────┤ size
 *                 101      103      104 105     250                  9000          90000
 *                 entries: number of the level; bits: where there is one          B+ tree (ranks.h)
 *
 * Most orders come and go near the best price. There a level is found by its price in a window: an array of level
 * numbers, one entry for each rank in [base, base + size), and two layers of bits that say where the next one is. What
 * is outside, better or worse, is in a tree, so that prices may lie anywhere without memory in proportion. The next level
 * behind another is the next bit of the window, or the next entry of the tree.
 *
 * The window is a ring: rank modulo size gives the entry, so that it moves without anything else in it moving. It moves
 * when the best level has left its first half and more levels have gone to the tree since it last moved than it
 * holds: what is moved is paid for by what has missed. Where the window stands is not part of the state of a market: it
 * decides how fast an answer comes and never which.
 *
 * In the window a level is made and dropped without a jump: whether an order is the first or the last of its price is what
 * no processor foresees.
 *
 * Cost: in the window O(1); outside O(log levels there), and a move of the window, which comes after as many misses as it
 * moves levels: so O(log levels) on average, and once in a while 4096 of them at once, about a millisecond. To ask for the
 * next level outside is O(log levels there) as well. Nothing allocates. Not thread safe.
 */
#ifndef ZX_LEVELS_H
#define ZX_LEVELS_H

#include "book.h"

/* The link that leads to a level. */
static inline uint32_t levels_link(const book_pool *pool, uint32_t level) {
    return pool->taken.capacity + level;
}

/* The rest of levels_enter() and levels_leave(): where the level is outside of the window, or changes are told to an undo. */
uint32_t levels_enter_slowly(book *self, uint32_t side, int64_t rank);
void levels_leave_slowly(book *self, uint32_t level);

/* Makes some more levels ready to be used; there are some. */
void levels_prepare(book_pool *pool);

/* Finds the best level of a side that has lost it. Nothing is in the window before `entry`. */
void levels_find_best(const book_pool *pool, book_side *side, uint32_t entry);

/* The entry of a rank in the window. */
static inline uint32_t levels_entry(const book_side *side, int64_t rank) {
    return (uint32_t)((uint64_t)rank & (side->size - 1));
}

/* The level of a rank for an order that is about to be put into it; made, and empty, if there was none. */
static inline __attribute__((always_inline)) uint32_t levels_enter(book *self, uint32_t side, int64_t rank) {
    book_pool *const pool = self->pool;
    book_side *const its = &self->sides[side];
    if (__builtin_expect(!book_window_covers(its, rank) | (pool->undo != NULL), 0)) {
        return levels_enter_slowly(self, side, rank);
    }
    const uint32_t used = pool->levels_used;
    if (__builtin_expect(used == pool->levels_ready, 0)) levels_prepare(pool);
    const uint32_t entry = levels_entry(its, rank);
    uint32_t *const place = &its->entries[entry];
    uint64_t *const word = &its->words[entry / 64];
    const uint32_t found = *place; /* one more than the number, or 0 */
    const uint32_t is_new = found == 0;
    const uint32_t number = found | ((pool->spare[used] + 1) & -is_new);
    const bool is_best = rank < its->best_rank;
    *word |= UINT64_C(1) << (entry % 64);
    its->summary |= UINT64_C(1) << (entry / 64);
    *place = number;
    pool->levels_used = used + is_new;
    book_level *const level = &pool->levels[number - 1];
    level->rank = rank;
    level->market = self->market;
    level->side = side;
    if (is_best) {
        its->best = number - 1;
        its->best_rank = rank;
    }
    return number - 1;
}

/* To be called when an order has been taken out of a level that has `order_count` now: drops it if it is empty. */
static inline __attribute__((always_inline)) void levels_leave(book *self, uint32_t index, uint32_t order_count) {
    book_pool *const pool = self->pool;
    const book_level *const level = &pool->levels[index];
    const int64_t rank = level->rank;
    book_side *const its = &self->sides[level->side];
    if (__builtin_expect(!book_window_covers(its, rank) | (pool->undo != NULL), 0)) {
        levels_leave_slowly(self, index);
        return;
    }
    const uint32_t is_empty = order_count == 0;
    const uint32_t entry = levels_entry(its, rank);
    uint64_t *const word = &its->words[entry / 64];
    const uint64_t bits = *word & ~((uint64_t)is_empty << (entry % 64));
    const uint32_t used = pool->levels_used;
    const bool is_best = rank == its->best_rank;
    its->summary &= ~((uint64_t)(bits == 0) << (entry / 64));
    *word = bits;
    its->entries[entry] = (index + 1) & (is_empty - 1);
    pool->spare[used - 1] = index; /* counts if it is free now, and is not looked at otherwise */
    pool->levels_used = used - is_empty;
    if (__builtin_expect(is_empty & is_best, 0)) levels_find_best(pool, its, entry);
}

/* Walks window and tree of a side, but not the queues. Returns NULL, or a sentence about what does not hold. */
const char *levels_check(const book *self, uint32_t side);

#endif
