/*
 * levels.h: the price levels of one side of a book.
 *
 *      ranks    best                                                              worst
 *      ───────────■────────■────────■──■────────■─────────────────────■──────────────■──▶
 *      window   base├───────────────────────────────┤ size
 *                 101      103      104 105     250                  9000          90000
 *                 entries: the levels; bits: where one is not empty               B+ tree (ranks.h)
 *
 * Most orders come and go near the best price. There a level is found by its price in a window: an array of level
 * numbers, one entry for each rank in [base, base + size), and bits that say which of them are not empty; a level knows its bit.
 * What is outside, better or worse, is in a tree, so that prices may lie anywhere without memory in proportion. The
 * next level behind another is the next bit of the window, or the next entry of the tree.
 *
 * A level of the window that becomes empty is kept there for the next order at its price: where orders come and go, a bit
 * is all that changes. The tree has no empty levels.
 *
 * The window is a ring: rank modulo size gives the entry, so that it moves without anything else in it moving. It moves
 * when the best level has left its first half and more levels have gone to the tree since it last moved than it
 * holds: what is moved is paid for by what has missed, and empty levels that are dropped by what made them. It is placed
 * anew when a side is empty and the next price lies outside of it. Where the window stands is not part of the state of a
 * market: it decides how fast an answer comes and never which.
 *
 * Whether an order is the first or the last of its price is what no processor foresees: in the window nothing asks.
 *
 * Cost: in the window O(1); to find the next level there, if it is far away, a look at each of up to 64 words of bits. Outside
 * O(log levels there), and a move of the window, which comes after at least 16 misses, and as many as it moves levels, and looks
 * at 4096 entries at most: so O(log levels) on average, and once in a while 4096 levels at once, about a millisecond. To ask for
 * the next level outside is O(log levels there) as well. Nothing allocates. Not thread safe.
 */
#ifndef ZX_LEVELS_H
#define ZX_LEVELS_H

#include "book.h"

/* The rest of levels_enter() and levels_leave(): where the level is not in the window, or changes are told to an undo. */
uint32_t levels_enter_slowly(book *self, uint32_t side, int64_t rank);
void levels_leave_slowly(book *self, uint32_t level);

/* Finds the best level of a side that has lost it, at `entry` or behind it. */
void levels_find_best(const book_pool *pool, book_side *side, uint32_t entry);

/* The same where the lost one was in the window, at `entry`, and `bits` are those of its word: all levels of the tree are worse
 * than those of the window then. */
ZX_INLINE void levels_find_next_best(const book_pool *pool, book_side *side, uint32_t entry, uint64_t bits) {
    const uint64_t behind = bits >> (entry % 64);
    if (__builtin_expect(behind == 0, 0)) {
        levels_find_best(pool, side, entry);
        return;
    }
    const uint32_t away = (uint32_t)__builtin_ctzll(behind);
    side->best = side->entries[entry + away];
    side->best_rank += away;
}

/* The level of a rank for an order that is about to be put into it; made, and empty, if there was none. `is_plain`: the caller
 * knows that there is no undo to be told. */
ZX_INLINE uint32_t levels_enter(book *self, uint32_t side, int64_t rank, bool is_plain) {
    book_side *const its = &self->sides[side];
    const bool is_told = !is_plain && self->pool->undo != NULL;
    if (__builtin_expect(!book_window_covers(its, rank) | is_told, 0)) return levels_enter_slowly(self, side, rank);
    const uint32_t entry = book_window_entry(its, rank);
    const uint32_t level = its->entries[entry];
    if (__builtin_expect(level == 0, 0)) return levels_enter_slowly(self, side, rank);
    *self->pool->levels[level].word |= self->pool->levels[level].bit;
    if (rank < its->best_rank) {
        its->best = level;
        its->best_rank = rank;
    }
    return level;
}

/* To be called when an order has been taken out of a level that has `order_count` now. `is_plain` as above. */
ZX_INLINE void levels_leave(book *self, uint32_t index, uint32_t order_count, bool is_plain) {
    const book_level *const level = &self->pool->levels[index];
    const uint64_t bit = level->bit;
    const bool is_told = !is_plain && self->pool->undo != NULL;
    if (__builtin_expect((bit == 0) | is_told, 0)) {
        if (order_count == 0) levels_leave_slowly(self, index);
        return;
    }
    const uint64_t bits = *level->word & ~((uint64_t)(order_count == 0) * bit);
    *level->word = bits;
    book_side *const its = &self->sides[level->side];
    if (__builtin_expect((order_count | (index ^ its->best)) == 0, 0)) {
        levels_find_next_best(self->pool, its, book_window_entry(its, level->rank), bits);
    }
}

/* To be called when the best level of a side has become empty. `is_plain` as above. */
ZX_INLINE void levels_leave_best(book *self, uint32_t side, bool is_plain) {
    book_side *const its = &self->sides[side];
    const bool is_told = !is_plain && self->pool->undo != NULL;
    if (__builtin_expect(!book_window_covers(its, its->best_rank) | is_told, 0)) {
        levels_leave_slowly(self, its->best);
        return;
    }
    const uint32_t entry = book_window_entry(its, its->best_rank);
    uint64_t *const word = &its->words[entry / 64];
    const uint64_t bits = *word & ~(UINT64_C(1) << (entry % 64));
    *word = bits;
    levels_find_next_best(self->pool, its, entry, bits);
}

/* Walks window and tree of a side, but not the queues. Returns NULL, or a sentence about what does not hold. */
const char *levels_check(const book *self, uint32_t side);

#endif
