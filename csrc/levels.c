#include "levels.h"

/* ------------------------------------------------------------ window */

static void before_entry(const book *self, const book_side *window, uint32_t entry) {
    undo_before(self->pool->undo, &window->entries[entry], sizeof(uint32_t));
    undo_before(self->pool->undo, &window->words[entry / 64], sizeof(uint64_t));
}

static void put(const book *self, book_side *window, int64_t rank, uint32_t index) {
    const uint32_t entry = levels_entry(window, rank);
    before_entry(self, window, entry);
    window->entries[entry] = index + 1;
    window->words[entry / 64] |= UINT64_C(1) << (entry % 64);
    window->summary |= UINT64_C(1) << (entry / 64);
}

static void remove_from(const book *self, book_side *window, int64_t rank) {
    const uint32_t entry = levels_entry(window, rank);
    before_entry(self, window, entry);
    window->entries[entry] = 0;
    window->words[entry / 64] &= ~(UINT64_C(1) << (entry % 64));
    if (window->words[entry / 64] == 0) window->summary &= ~(UINT64_C(1) << (entry / 64));
}

/* The level of the first entry in use at `entry` or behind it, going round; there is one. */
static inline uint32_t next_from(const book_side *window, uint32_t entry) {
    uint32_t word = entry / 64;
    uint64_t bits = window->words[word] & (UINT64_MAX << (entry % 64));
    if (bits == 0) {
        /* Twice shifted: by 64 at once would be undefined. */
        const uint64_t behind = window->summary & (UINT64_MAX << word << 1);
        word = (uint32_t)__builtin_ctzll(behind != 0 ? behind : window->summary);
        bits = window->words[word];
    }
    return window->entries[word * 64 + (uint32_t)__builtin_ctzll(bits)] - 1;
}

static uint32_t first_of(const book_side *window) {
    return window->summary == 0 ? ZX_NONE : next_from(window, levels_entry(window, window->base));
}

/* Adds a level to the tree, where it is not yet. */
static void plant(book *self, uint32_t side, int64_t rank, uint32_t index) {
    ranks_place place;
    ranks_seek(&self->pool->far, &self->sides[side].far, rank, &place);
    ranks_insert(&self->pool->far, &self->sides[side].far, &place, rank, index);
}

static void uproot(book *self, uint32_t side, int64_t rank) {
    ranks_place place;
    ranks_seek(&self->pool->far, &self->sides[side].far, rank, &place);
    ZX_ASSERT(place.value != ZX_NONE);
    ranks_remove(&self->pool->far, &self->sides[side].far, &place);
}

/* Moves the window so that the best level is near its begin. */
static void move_window(book *self, uint32_t side) {
    const book_level *const levels = self->pool->levels;
    book_side *const window = &self->sides[side];
    const ranks *const far = &window->far;
    window->base = window->best_rank - (int64_t)(window->size / 8);
    window->misses = 0;
    for (uint32_t word = 0; word < window->size / 64; word++) {
        for (uint64_t bits = window->words[word]; bits != 0; bits &= bits - 1) {
            const uint32_t index = window->entries[word * 64 + (uint32_t)__builtin_ctzll(bits)] - 1;
            const int64_t rank = levels[index].rank;
            if (book_window_covers(window, rank)) continue;
            remove_from(self, window, rank);
            plant(self, side, rank, index);
        }
    }
    uint32_t index = ranks_above(&self->pool->far, far, window->base - 1);
    while (index != ZX_NONE && book_window_covers(window, levels[index].rank)) {
        const int64_t rank = levels[index].rank;
        uproot(self, side, rank);
        put(self, window, rank, index);
        index = ranks_above(&self->pool->far, far, rank);
    }
}

/* ------------------------------------------------------------ levels */

#define PREPARED 64u
#define MISSES_MIN 16u

void levels_prepare(book_pool *pool) {
    const uint32_t capacity = pool->taken.capacity;
    for (uint32_t count = 0; count < PREPARED && pool->levels_ready < capacity; count++) {
        const uint32_t index = pool->levels_ready++;
        book_before_level(pool, index);
        undo_before(pool->undo, &pool->spare[index], sizeof(uint32_t));
        pool->levels[index].next = pool->levels[index].prev = levels_link(pool, index);
        pool->spare[index] = index;
    }
}

static uint32_t make(book *self, uint32_t side, int64_t rank) {
    book_pool *const pool = self->pool;
    if (pool->levels_used == pool->levels_ready) levels_prepare(pool);
    ZX_ASSERT(pool->levels_used < pool->levels_ready);
    const uint32_t made = pool->spare[pool->levels_used++];
    book_before_level(pool, made);
    book_level *const level = &pool->levels[made];
    level->rank = rank;
    level->market = self->market;
    level->side = side;
    book_side *const its = &self->sides[side];
    if (rank < its->best_rank) {
        its->best = made;
        its->best_rank = rank;
    }
    return made;
}

static uint32_t count_of(const book_side *window) {
    uint32_t count = 0;
    for (uint64_t left = window->summary; left != 0; left &= left - 1) {
        count += (uint32_t)__builtin_popcountll(window->words[__builtin_ctzll(left)]);
    }
    return count;
}

/* Some levels at a time, as it takes some time to count what is in the window. */
static void note_miss(book *self, uint32_t side) {
    book_side *const window = &self->sides[side];
    if (window->size == 0 || ++window->misses % MISSES_MIN != 0) return;
    const book_side first_half = {.base = window->base, .size = window->size / 2};
    if (!book_window_covers(&first_half, window->best_rank) && window->misses > count_of(window)) {
        move_window(self, side);
    }
}

uint32_t levels_enter_slowly(book *self, uint32_t side, int64_t rank) {
    book_pool *const pool = self->pool;
    book_side *const window = &self->sides[side];
    undo_before(pool->undo, self, sizeof *self);
    if (self->sides[side].best == ZX_NONE) {
        window->base = rank - (int64_t)(window->size / 8); /* nothing is in it */
        window->misses = 0;
    }
    if (book_window_covers(window, rank)) {
        const uint32_t found = window->entries[levels_entry(window, rank)];
        if (found != 0) return found - 1;
        const uint32_t made = make(self, side, rank);
        put(self, window, rank, made);
        return made;
    }
    ranks_place place;
    ranks_seek(&pool->far, &self->sides[side].far, rank, &place);
    if (place.value != ZX_NONE) return place.value;
    const uint32_t made = make(self, side, rank);
    ranks_insert(&pool->far, &self->sides[side].far, &place, rank, made);
    note_miss(self, side);
    return made;
}

void levels_leave_slowly(book *self, uint32_t index) {
    book_pool *const pool = self->pool;
    const book_level *const level = &pool->levels[index];
    if (level->order_count > 0) return;
    const uint32_t side = level->side;
    book_side *const window = &self->sides[side];
    undo_before(pool->undo, self, sizeof *self);
    if (book_window_covers(window, level->rank)) remove_from(self, window, level->rank);
    else uproot(self, side, level->rank);
    uint32_t *const spare = &pool->spare[--pool->levels_used];
    undo_before(pool->undo, spare, sizeof *spare);
    *spare = index;
    if (index == self->sides[side].best) levels_find_best(pool, window, levels_entry(window, window->base));
}

void levels_find_best(const book_pool *pool, book_side *side, uint32_t entry) {
    const uint32_t near = side->summary == 0 ? ZX_NONE : next_from(side, entry);
    side->best = near;
    side->best_rank = near == ZX_NONE ? BOOK_NO_RANK : pool->levels[near].rank;
    const uint32_t far = ranks_first(&pool->far, &side->far);
    if (far != ZX_NONE && pool->levels[far].rank < side->best_rank) {
        side->best = far;
        side->best_rank = pool->levels[far].rank;
    }
}

uint32_t book_worse_level(const book *self, uint32_t index) {
    const book_pool *const pool = self->pool;
    const book_level *const level = &pool->levels[index];
    const book_side *const window = &self->sides[level->side];
    const ranks *const far = &self->sides[level->side].far;
    if (book_window_covers(window, level->rank)) {
        const uint32_t next = next_from(window, levels_entry(window, level->rank + 1));
        if (pool->levels[next].rank > level->rank) return next;
        return ranks_above(&pool->far, far, level->rank); /* none is in the window: it is behind it */
    }
    const uint32_t next = ranks_above(&pool->far, far, level->rank);
    const bool is_before_window = level->rank < window->base && window->summary != 0;
    if (is_before_window && (next == ZX_NONE || pool->levels[next].rank > window->base)) return first_of(window);
    return next;
}

/* ------------------------------------------------------------ check */

static const char *check_window(const book_side *window, uint32_t levels_end) {
    static const uint32_t nothing[64];
    for (uint32_t word = 0; word < window->size / 64; word++) {
        const uint64_t used = window->words[word];
        const uint32_t *const entries = &window->entries[word * 64];
        if ((used != 0) != (window->summary >> word & 1)) return "a window is summed up wrongly";
        bool agrees = used != 0 || memcmp(entries, nothing, sizeof nothing) == 0;
        for (uint32_t entry = 0; used != 0 && entry < 64; entry++) {
            agrees = agrees && (entries[entry] != 0) == (used >> entry & 1) && entries[entry] <= levels_end;
        }
        if (!agrees) return "a window's bits do not say what is in it";
    }
    return NULL;
}

const char *levels_check(const book *self, uint32_t side) {
    const book_pool *const pool = self->pool;
    const book_side *const its = &self->sides[side];
    uint32_t far = 0;
    const char *broken = check_window(its, pool->taken.capacity);
    if (broken == NULL) broken = ranks_check(&pool->far, &its->far, pool->taken.capacity, &far);
    if (broken != NULL) return broken;
    uint32_t in_window = 0;
    uint32_t in_tree = 0;
    int64_t rank = INT64_MIN;
    for (uint32_t at = its->best; at != ZX_NONE; at = book_worse_level(self, at)) {
        if (at >= pool->taken.capacity) return "there is no such level";
        const book_level *const level = &pool->levels[at];
        if (level->side != side || level->market != self->market) return "a level is in the wrong book";
        if (book_level_price(level) < 1) return "a level's price is out of range";
        if (level->rank <= rank) return "levels are not sorted";
        rank = level->rank;
        if (at == its->best && rank != its->best_rank) return "a side's best rank is not that of its best level";
        if (book_window_covers(its, rank)) {
            in_window++;
            if (its->entries[levels_entry(its, rank)] != at + 1) return "a level is not in the window";
        } else {
            in_tree++;
            if (ranks_find(&pool->far, &its->far, rank) != at) return "a level is not in the tree";
        }
    }
    if (its->best == ZX_NONE && its->best_rank != BOOK_NO_RANK) return "a side without levels has a best rank";
    if (in_tree != far || in_window != count_of(its)) return "a side has levels that are not reached from its best";
    return NULL;
}
