#include "levels.h"

/* ------------------------------------------------------------ window */

static void before_entry(const book *self, const book_side *window, uint32_t entry) {
    undo_before(self->pool->undo, &window->entries[entry], sizeof(uint32_t));
    undo_before(self->pool->undo, &window->words[entry / 64], sizeof(uint64_t));
}

static void set_bit(const book *self, book_side *window, uint32_t entry) {
    before_entry(self, window, entry);
    window->words[entry / 64] |= UINT64_C(1) << (entry % 64);
}

static void clear_bit(const book *self, book_side *window, uint32_t entry) {
    before_entry(self, window, entry);
    window->words[entry / 64] &= ~(UINT64_C(1) << (entry % 64));
}

static void put(book *self, uint32_t side, int64_t rank, uint32_t index) {
    book_side *const window = &self->sides[side];
    const uint32_t entry = book_window_entry(window, rank);
    book_level *const level = &self->pool->levels[index];
    book_before_level(self->pool, index);
    level->word = &window->words[entry / 64];
    level->bit = UINT64_C(1) << (entry % 64);
    set_bit(self, window, entry);
    window->entries[entry] = index;
    window->kept_words |= UINT64_C(1) << (entry / 64);
    self->kept[side]++;
}

static void remove_from(book *self, uint32_t side, uint32_t entry) {
    book_side *const window = &self->sides[side];
    book_level *const level = &self->pool->levels[window->entries[entry]];
    book_before_level(self->pool, window->entries[entry]);
    level->word = NULL;
    level->bit = 0;
    clear_bit(self, window, entry);
    window->entries[entry] = 0;
    self->kept[side]--;
}

/* The level of the first entry in use among these words, or 0. */
static uint32_t first_in(const book_side *window, uint64_t words) {
    for (uint64_t left = window->kept_words & words; left != 0; left &= left - 1) {
        const uint32_t word = (uint32_t)__builtin_ctzll(left);
        const uint64_t bits = window->words[word];
        if (bits != 0) return window->entries[word * 64 + (uint32_t)__builtin_ctzll(bits)];
    }
    return 0;
}

/* The level of the first entry in use at `entry` or behind it, going round, or ZX_NONE. */
static inline uint32_t next_from(const book_side *window, uint32_t entry) {
    if (window->kept_words == 0) return ZX_NONE;
    const uint32_t word = entry / 64;
    const uint64_t bits = window->words[word] & (UINT64_MAX << (entry % 64));
    if (__builtin_expect(bits != 0, 1)) return window->entries[word * 64 + (uint32_t)__builtin_ctzll(bits)];
    const uint64_t behind = UINT64_MAX << word << 1; /* by 64 at once would be undefined */
    uint32_t found = first_in(window, behind);
    if (found == 0) found = first_in(window, ~behind);
    return found != 0 ? found : ZX_NONE;
}

static uint32_t first_of(const book_side *window) {
    return next_from(window, book_window_entry(window, window->base));
}

/* Adds a level to the tree, where it is not yet. */
static void plant(book *self, uint32_t side, int64_t rank, uint32_t index) {
    ranks_place place;
    ranks_seek(&self->pool->far, &self->sides[side].far, rank, &place);
    ranks_insert(&self->pool->far, &self->sides[side].far, &place, rank, index);
}

static inline void uproot(book *self, uint32_t side, int64_t rank) {
    ranks_place place;
    ranks_seek(&self->pool->far, &self->sides[side].far, rank, &place);
    ZX_ASSERT(place.value != ZX_NONE);
    ranks_remove(&self->pool->far, &self->sides[side].far, &place);
}

/* An empty level that is nowhere any more is free. */
static void give(book_pool *pool, uint32_t index) {
    book_before_level(pool, index);
    pool->levels[index].rank = BOOK_NO_RANK;
    spares_give(&pool->free_levels, index, false);
}

/* Lets what the window does not cover any more go from these 64 entries: to the tree, or if it is empty for good. Returns how
 * many levels are left. */
static uint32_t clear_entries(book *self, uint32_t side, uint32_t first) {
    book_side *const window = &self->sides[side];
    uint32_t left = 0;
    for (uint32_t entry = first; entry < first + 64; entry++) {
        const uint32_t index = window->entries[entry];
        if (index == 0) continue;
        const book_level *const level = &self->pool->levels[index];
        if (book_window_covers(window, level->rank)) {
            left++;
            continue;
        }
        remove_from(self, side, entry);
        if (level->order_count > 0) plant(self, side, level->rank, index);
        else give(self->pool, index);
    }
    return left;
}

/* Places the window so that this rank, the best, is near its begin. */
static void place_window(book *self, uint32_t side, int64_t best_rank) {
    book_side *const window = &self->sides[side];
    window->base = best_rank - (int64_t)(window->size / 8);
    window->misses = 0;
    for (uint64_t words = window->kept_words; words != 0; words &= words - 1) {
        const uint32_t word = (uint32_t)__builtin_ctzll(words);
        if (clear_entries(self, side, word * 64) == 0) window->kept_words &= ~(UINT64_C(1) << word);
    }
}

/* Moves the window to the best level. */
static void move_window(book *self, uint32_t side) {
    const book_level *const levels = self->pool->levels;
    book_side *const window = &self->sides[side];
    const ranks *const far = &window->far;
    place_window(self, side, window->best_rank);
    uint32_t index = ranks_above(&self->pool->far, far, window->base - 1);
    while (index != ZX_NONE && book_window_covers(window, levels[index].rank)) {
        const int64_t rank = levels[index].rank;
        uproot(self, side, rank);
        put(self, side, rank, index);
        index = ranks_above(&self->pool->far, far, rank);
    }
}

/* ------------------------------------------------------------ levels */

#define MISSES_MIN 16u

static inline uint32_t make(book *self, uint32_t side, int64_t rank) {
    book_pool *const pool = self->pool;
    const uint32_t made = spares_take(&pool->free_levels);
    book_before_level(pool, made);
    book_level *const level = &pool->levels[made];
    level->rank = rank;
    level->market = self->market;
    level->side = side;
    level->next = level->prev = made;
    return made;
}

static void note_best(book_side *side, int64_t rank, uint32_t index) {
    if (rank >= side->best_rank) return;
    side->best = index;
    side->best_rank = rank;
}

static uint32_t count_of(const book_side *window) {
    uint32_t count = 0;
    for (uint64_t left = window->kept_words; left != 0; left &= left - 1) {
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
    if (window->best == ZX_NONE && !book_window_covers(window, rank)) place_window(self, side, rank);
    if (book_window_covers(window, rank)) {
        const uint32_t entry = book_window_entry(window, rank);
        uint32_t level = window->entries[entry];
        if (level == 0) {
            level = make(self, side, rank);
            put(self, side, rank, level);
        } else {
            set_bit(self, window, entry);
        }
        note_best(window, rank, level);
        return level;
    }
    ranks_place place;
    ranks_seek(&pool->far, &window->far, rank, &place);
    if (place.value != ZX_NONE) return place.value;
    const uint32_t made = make(self, side, rank);
    ranks_insert(&pool->far, &window->far, &place, rank, made);
    note_best(window, rank, made);
    note_miss(self, side);
    return made;
}

void levels_leave_slowly(book *self, uint32_t index) {
    book_pool *const pool = self->pool;
    const book_level *const level = &pool->levels[index];
    const uint32_t side = level->side;
    const int64_t rank = level->rank;
    book_side *const window = &self->sides[side];
    undo_before(pool->undo, self, sizeof *self);
    if (book_window_covers(window, rank)) {
        clear_bit(self, window, book_window_entry(window, rank));
    } else {
        uproot(self, side, rank);
        give(pool, index);
    }
    if (index == window->best) levels_find_best(pool, window, book_window_entry(window, window->base));
}

void levels_find_best(const book_pool *pool, book_side *side, uint32_t entry) {
    const bool was_far_ahead = side->best_rank < side->base;
    const uint32_t near = next_from(side, entry);
    side->best = near;
    side->best_rank = near == ZX_NONE ? BOOK_NO_RANK : pool->levels[near].rank;
    if (near != ZX_NONE && !was_far_ahead) return; /* what is left in the tree is behind the window */
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
        const uint32_t next = next_from(window, book_window_entry(window, level->rank + 1));
        if (next != ZX_NONE && pool->levels[next].rank > level->rank) return next;
        return ranks_above(&pool->far, far, level->rank); /* none is in the window: it is behind it */
    }
    const uint32_t next = ranks_above(&pool->far, far, level->rank);
    if (level->rank > window->base || (next != ZX_NONE && pool->levels[next].rank < window->base)) return next;
    const uint32_t first = first_of(window);
    return first != ZX_NONE ? first : next;
}

/* ------------------------------------------------------------ check */

/* One entry of a window. */
static const char *check_entry(const book *self, uint32_t side, uint32_t entry) {
    const book_side *const window = &self->sides[side];
    const bool is_used = (window->words[entry / 64] >> entry % 64 & 1) != 0;
    const uint32_t index = window->entries[entry];
    if (index == 0 && !is_used) return NULL;
    if (index < self->pool->capacity || index >= self->pool->levels_end) return "a window leads to no level";
    const book_level *const level = &self->pool->levels[index];
    if (!book_window_covers(window, level->rank) || book_window_entry(window, level->rank) != entry) {
        return "a level is in the wrong place of a window";
    }
    if (level->side != side || level->market != self->market) return "a level of a window is in the wrong book";
    if (level->word != &window->words[entry / 64] || level->bit != UINT64_C(1) << (entry % 64)) {
        return "a level does not know its bit";
    }
    return is_used == (level->order_count > 0) ? NULL : "a window's bits do not say what is in it";
}

static const char *check_window(const book *self, uint32_t side) {
    static const uint32_t nothing[64];
    const book_side *const window = &self->sides[side];
    uint32_t kept = 0;
    for (uint32_t word = 0; word < window->size / 64; word++) {
        const uint64_t bits = window->words[word];
        const uint32_t *const entries = &window->entries[word * 64];
        const bool is_kept = (window->kept_words >> word & 1) != 0;
        if (bits == 0 && memcmp(entries, nothing, sizeof nothing) == 0) continue;
        if (!is_kept) return "levels of a window would not be found when it moves";
        for (uint32_t entry = 0; entry < 64; entry++) {
            const char *const broken = check_entry(self, side, word * 64 + entry);
            if (broken != NULL) return broken;
            kept += entries[entry] != 0;
        }
    }
    const uint64_t beyond = window->size == 4096 ? 0 : UINT64_MAX << (window->size / 64);
    if ((window->kept_words & beyond) != 0) return "a window has levels beyond its end";
    return kept == self->kept[side] ? NULL : "the levels of a window are miscounted";
}

const char *levels_check(const book *self, uint32_t side) {
    const book_pool *const pool = self->pool;
    const book_side *const its = &self->sides[side];
    uint32_t far = 0;
    const char *broken = check_window(self, side);
    if (broken == NULL) broken = ranks_check(&pool->far, &its->far, pool->levels_end, &far);
    if (broken != NULL) return broken;
    uint32_t in_window = 0;
    uint32_t in_tree = 0;
    int64_t rank = INT64_MIN;
    for (uint32_t at = its->best; at != ZX_NONE; at = book_worse_level(self, at)) {
        if (at < pool->capacity || at >= pool->levels_end) return "there is no such level";
        const book_level *const level = &pool->levels[at];
        if (level->side != side || level->market != self->market) return "a level is in the wrong book";
        if (book_level_price(level) < 1) return "a level's price is out of range";
        if (level->rank <= rank) return "levels are not sorted";
        rank = level->rank;
        if (at == its->best && rank != its->best_rank) return "a side's best rank is not that of its best level";
        if (book_window_covers(its, rank)) in_window++;
        else if (ranks_find(&pool->far, &its->far, rank) != at) return "a level is not in the tree";
        else if (level->word != NULL || level->bit != 0) return "a level of the tree has a bit";
        else in_tree++;
    }
    if (its->best == ZX_NONE && its->best_rank != BOOK_NO_RANK) return "a side without levels has a best rank";
    if (in_tree != far || in_window != count_of(its)) return "a side has levels that are not reached from its best";
    return NULL;
}
