/*
 * levels.h: the price levels of one side of a book.
 *
 *      best ─worse─▶ [101] ─▶ [103] ─▶ [104] ─▶ ... ─▶ [250] ─▶ [90000]          list: every level, by rank
 *                      |        |        |               |         |
 *      window: base ├──■────────■────────■──────┤     AVL tree of those outside the window
 *
 * Most orders come and go near the best price. There a level is found by its price in a window: an array of level
 * numbers, one entry for each rank in [base, base + size), and two layers of bits that say where the next one is. What
 * is outside is in an AVL tree, so that prices may lie anywhere without memory in proportion. All levels, of window and
 * tree, are in one list from best to worst; the neighbour on one side comes from window or tree, the other from the list.
 *
 * The window is a ring: rank modulo size gives the entry, so that it moves without anything else in it moving. It moves
 * when the best level has left its first half and more levels have gone to the tree since it last moved than it
 * holds: what is moved is paid for by what has missed. Where the window stands is not part of the state of a market: it
 * decides how fast an answer comes and never which.
 *
 * Cost: in the window O(1); outside O(log levels there). Nothing allocates. Not thread safe.
 */
#ifndef ZX_LEVELS_H
#define ZX_LEVELS_H

#include "book.h"

/* The level of a rank, made if there is none: empty, and the caller puts an order into it. */
uint32_t levels_make(book *self, uint8_t side, int64_t rank);

/* The same, quickly where the level exists and is in the window. */
static inline uint32_t levels_find_or_make(book *self, uint8_t side, int64_t rank) {
    const book_window *const window = &self->windows[side];
    if (book_window_covers(window, rank)) {
        const uint32_t found = window->levels[(uint64_t)rank & (window->size - 1)];
        if (found != 0) return found - 1;
    }
    return levels_make(self, side, rank);
}

/* Takes an empty level away and gives it back to the pool. */
void levels_drop(book *self, uint32_t index);

/* Walks list, tree and window of a side, but not the queues. Returns NULL, or a sentence about what does not hold. */
const char *levels_check(const book *self, uint8_t side);

#endif
