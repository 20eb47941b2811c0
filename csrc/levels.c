#include "levels.h"

/* ------------------------------------------------------------ tree */

static uint8_t height_of(const book_level *levels, uint32_t at) {
    return at == ZX_NONE ? 0 : levels[at].height;
}

static void update_height(book_pool *pool, uint32_t at) {
    book_level *const levels = pool->levels;
    const uint8_t left = height_of(levels, levels[at].left);
    const uint8_t right = height_of(levels, levels[at].right);
    book_before_level(pool, at);
    levels[at].height = (uint8_t)((left > right ? left : right) + 1);
}

/* Makes `parent` (or the root, if ZX_NONE) point to `replacement` where it pointed to `child`. */
static void replace_child(
    book_pool *pool, book_side *side, uint32_t parent, uint32_t child, uint32_t replacement
) {
    book_level *const levels = pool->levels;
    if (parent != ZX_NONE) book_before_level(pool, parent);
    if (replacement != ZX_NONE) book_before_level(pool, replacement);
    if (parent == ZX_NONE) {
        side->root = replacement;
    } else if (levels[parent].left == child) {
        levels[parent].left = replacement;
    } else {
        levels[parent].right = replacement;
    }
    if (replacement != ZX_NONE) levels[replacement].parent = parent;
}

static uint32_t rotate_left(book_pool *pool, book_side *side, uint32_t at) {
    book_level *const levels = pool->levels;
    const uint32_t pivot = levels[at].right;
    const uint32_t middle = levels[pivot].left;
    replace_child(pool, side, levels[at].parent, at, pivot);
    book_before_level(pool, at);
    if (middle != ZX_NONE) book_before_level(pool, middle);
    levels[pivot].left = at;
    levels[at].parent = pivot;
    levels[at].right = middle;
    if (middle != ZX_NONE) levels[middle].parent = at;
    update_height(pool, at);
    update_height(pool, pivot);
    return pivot;
}

static uint32_t rotate_right(book_pool *pool, book_side *side, uint32_t at) {
    book_level *const levels = pool->levels;
    const uint32_t pivot = levels[at].left;
    const uint32_t middle = levels[pivot].right;
    replace_child(pool, side, levels[at].parent, at, pivot);
    book_before_level(pool, at);
    if (middle != ZX_NONE) book_before_level(pool, middle);
    levels[pivot].right = at;
    levels[at].parent = pivot;
    levels[at].left = middle;
    if (middle != ZX_NONE) levels[middle].parent = at;
    update_height(pool, at);
    update_height(pool, pivot);
    return pivot;
}

/* Restores heights and balance from `at` up to the first ancestor whose height does not change. */
static void rebalance(book_pool *pool, book_side *side, uint32_t at) {
    book_level *const levels = pool->levels;
    while (at != ZX_NONE) {
        const uint8_t height_before = levels[at].height;
        const uint32_t left = levels[at].left;
        const uint32_t right = levels[at].right;
        const int balance = (int)height_of(levels, left) - (int)height_of(levels, right);
        if (balance > 1) {
            if (height_of(levels, levels[left].left) < height_of(levels, levels[left].right)) {
                rotate_left(pool, side, left);
            }
            at = rotate_right(pool, side, at);
        } else if (balance < -1) {
            if (height_of(levels, levels[right].right) < height_of(levels, levels[right].left)) {
                rotate_right(pool, side, right);
            }
            at = rotate_left(pool, side, at);
        } else {
            update_height(pool, at);
        }
        if (levels[at].height == height_before) return;
        at = levels[at].parent;
    }
}

/* Puts a level that is in no tree below `parent`, which has room on that side; or makes it the root. */
static void plant_below(book_pool *pool, book_side *side, uint32_t parent, uint32_t index) {
    book_level *const levels = pool->levels;
    book_before_level(pool, index);
    if (parent != ZX_NONE) book_before_level(pool, parent);
    levels[index].left = levels[index].right = ZX_NONE;
    levels[index].parent = parent;
    levels[index].height = 1;
    if (parent == ZX_NONE) side->root = index;
    else if (levels[index].rank < levels[parent].rank) levels[parent].left = index;
    else levels[parent].right = index;
    rebalance(pool, side, parent);
}

/* Where a rank is in the tree, or would be. */
typedef struct place {
    uint32_t found;  /* its level, or ZX_NONE */
    uint32_t parent; /* of a new one */
    uint32_t better; /* in the tree: the next better level, or ZX_NONE */
} place;

static place find_place(const book_level *levels, uint32_t root, int64_t rank) {
    place result = {.found = ZX_NONE, .parent = ZX_NONE, .better = ZX_NONE};
    for (uint32_t at = root; at != ZX_NONE;) {
        const int64_t at_rank = levels[at].rank;
        if (rank == at_rank) {
            result.found = at;
            return result;
        }
        result.parent = at;
        if (rank < at_rank) {
            at = levels[at].left;
        } else {
            result.better = at;
            at = levels[at].right;
        }
    }
    return result;
}

/* Takes a level out of the tree. */
static void uproot(book_pool *pool, book_side *side, uint32_t index) {
    book_level *const levels = pool->levels;
    book_level *const level = &levels[index];
    book_before_level(pool, index);
    uint32_t unbalanced;
    if (level->left == ZX_NONE || level->right == ZX_NONE) {
        unbalanced = level->parent;
        const uint32_t child = level->left != ZX_NONE ? level->left : level->right;
        replace_child(pool, side, level->parent, index, child);
    } else {
        /* The leftmost of the right subtree takes its place. */
        uint32_t heir = level->right;
        while (levels[heir].left != ZX_NONE) heir = levels[heir].left;
        unbalanced = levels[heir].parent;
        book_before_level(pool, heir);
        if (unbalanced == index) {
            unbalanced = heir;
        } else {
            replace_child(pool, side, levels[heir].parent, heir, levels[heir].right);
            book_before_level(pool, level->right);
            levels[heir].right = level->right;
            levels[level->right].parent = heir;
        }
        book_before_level(pool, level->left);
        levels[heir].left = level->left;
        levels[level->left].parent = heir;
        levels[heir].height = level->height;
        replace_child(pool, side, level->parent, index, heir);
    }
    rebalance(pool, side, unbalanced);
    level->left = level->right = level->parent = ZX_NONE;
}

/* ------------------------------------------------------------ window */

static uint32_t entry_of(const book_window *window, int64_t rank) {
    return (uint32_t)((uint64_t)rank & (window->size - 1));
}

static void before_entry(const book *self, const book_window *window, uint32_t entry) {
    undo_before(self->pool->undo, &window->levels[entry], sizeof(uint32_t));
    undo_before(self->pool->undo, &window->words[entry / 64], sizeof(uint64_t));
}

static void put(const book *self, book_window *window, int64_t rank, uint32_t index) {
    const uint32_t entry = entry_of(window, rank);
    before_entry(self, window, entry);
    window->levels[entry] = index + 1;
    window->words[entry / 64] |= UINT64_C(1) << (entry % 64);
    window->summary |= UINT64_C(1) << (entry / 64);
    window->count++;
}

static void remove_from(const book *self, book_window *window, int64_t rank) {
    const uint32_t entry = entry_of(window, rank);
    before_entry(self, window, entry);
    window->levels[entry] = 0;
    window->words[entry / 64] &= ~(UINT64_C(1) << (entry % 64));
    if (window->words[entry / 64] == 0) window->summary &= ~(UINT64_C(1) << (entry / 64));
    window->count--;
}

/* The level of the first entry in use at `entry` or behind it, going round; there is one. */
static uint32_t next_from(const book_window *window, uint32_t entry) {
    uint32_t word = entry / 64;
    uint64_t bits = window->words[word] & (UINT64_MAX << (entry % 64));
    if (bits == 0) {
        /* Twice shifted: by 64 at once would be undefined. */
        const uint64_t behind = window->summary & (UINT64_MAX << word << 1);
        word = (uint32_t)__builtin_ctzll(behind != 0 ? behind : window->summary);
        bits = window->words[word];
    }
    return window->levels[word * 64 + (uint32_t)__builtin_ctzll(bits)] - 1;
}

/* The same backwards: the first in use before `entry`, going round. */
static uint32_t last_before(const book_window *window, uint32_t entry) {
    uint32_t word = entry / 64;
    uint64_t bits = window->words[word] & ~(UINT64_MAX << (entry % 64));
    if (bits == 0) {
        const uint64_t before = window->summary & ~(UINT64_MAX << word);
        word = 63 - (uint32_t)__builtin_clzll(before != 0 ? before : window->summary);
        bits = window->words[word];
    }
    return window->levels[word * 64 + 63 - (uint32_t)__builtin_clzll(bits)] - 1;
}

/* Moves the window so that the best level is near its begin. */
static void move_window(book *self, uint8_t side_index) {
    book_level *const levels = self->pool->levels;
    book_side *const side = &self->sides[side_index];
    book_window *const window = &self->windows[side_index];
    const int64_t base = levels[side->best].rank - (int64_t)(window->size / 8);
    const int64_t old_base = window->base;
    window->misses = 0;
    window->base = base;
    for (uint32_t word = 0; word < window->size / 64; word++) {
        for (uint64_t bits = window->words[word]; bits != 0; bits &= bits - 1) {
            const uint32_t index = window->levels[word * 64 + (uint32_t)__builtin_ctzll(bits)] - 1;
            const int64_t rank = levels[index].rank;
            if (book_window_covers(window, rank)) continue;
            remove_from(self, window, rank);
            plant_below(self->pool, side, find_place(levels, side->root, rank).parent, index);
        }
    }
    const book_window before = {.base = old_base, .size = window->size};
    for (uint32_t at = side->best; at != ZX_NONE && book_window_covers(window, levels[at].rank); at = levels[at].worse) {
        if (window->levels[entry_of(window, levels[at].rank)] != 0) continue;
        ZX_ASSERT(!book_window_covers(&before, levels[at].rank));
        uproot(self->pool, side, at);
        put(self, window, levels[at].rank, at);
    }
}

/* ------------------------------------------------------------ levels */

static uint32_t take_level(book_pool *pool) {
    const uint32_t index = pool->level_free;
    if (index != ZX_NONE) {
        pool->level_free = pool->levels[index].worse;
        return index;
    }
    ZX_ASSERT(pool->level_fresh < pool->taken.capacity);
    return pool->level_fresh++;
}

/* The next better level of a rank in the window that has none itself, or ZX_NONE. */
static uint32_t better_of(const book *self, uint8_t side, int64_t rank) {
    const book_level *const levels = self->pool->levels;
    const book_window *const window = &self->windows[side];
    if (window->count == 0) return find_place(levels, self->sides[side].root, rank).better;
    const uint32_t next = next_from(window, entry_of(window, rank));
    if (levels[next].rank > rank) return levels[next].better;
    return last_before(window, entry_of(window, rank)); /* behind all that is in the window */
}

static void before_neighbours(const book_pool *pool, uint32_t better, uint32_t worse) {
    if (__builtin_expect(pool->undo == NULL, 1)) return;
    if (better != ZX_NONE) book_before_level(pool, better);
    if (worse != ZX_NONE) book_before_level(pool, worse);
}

/* Makes a level and puts it into the list. */
static uint32_t make_behind(book *self, uint8_t side_index, int64_t rank, uint32_t better) {
    book_level *const levels = self->pool->levels;
    book_side *const side = &self->sides[side_index];
    const uint32_t worse = better == ZX_NONE ? side->best : levels[better].worse;
    const uint32_t made = take_level(self->pool);
    book_before_level(self->pool, made);
    before_neighbours(self->pool, better, worse);
    levels[made] = (book_level){
        .rank = rank,
        .head = ZX_NONE,
        .tail = ZX_NONE,
        .better = better,
        .worse = worse,
        .left = ZX_NONE,
        .right = ZX_NONE,
        .parent = ZX_NONE,
        .market = self->market,
        .side = side_index,
        .height = 1,
        .hidden_head = ZX_NONE,
    };
    if (better != ZX_NONE) levels[better].worse = made;
    else side->best = made;
    if (worse != ZX_NONE) levels[worse].better = made;
    return made;
}

/* The level of a rank outside the window, made if there is none. */
static uint32_t make_in_tree(book *self, uint8_t side_index, int64_t rank) {
    book_level *const levels = self->pool->levels;
    book_side *const side = &self->sides[side_index];
    book_window *const window = &self->windows[side_index];
    const place where = find_place(levels, side->root, rank);
    if (where.found != ZX_NONE) return where.found;
    uint32_t better = where.better;
    if (window->count > 0 && rank > window->base) {
        const uint32_t last = last_before(window, entry_of(window, window->base));
        if (better == ZX_NONE || levels[last].rank > levels[better].rank) better = last;
    }
    const uint32_t made = make_behind(self, side_index, rank, better);
    plant_below(self->pool, side, where.parent, made);
    if (window->size > 0) {
        window->misses++;
        const book_window first_half = {.base = window->base, .size = window->size / 2};
        if (window->misses > window->count && !book_window_covers(&first_half, levels[side->best].rank)) {
            move_window(self, side_index);
        }
    }
    return made;
}

uint32_t levels_make(book *self, uint8_t side_index, int64_t rank) {
    undo_before(self->pool->undo, self, sizeof *self);
    const book_side *const side = &self->sides[side_index];
    book_window *const window = &self->windows[side_index];
    if (side->best == ZX_NONE) {
        window->base = rank - (int64_t)(window->size / 8); /* nothing is in it */
        window->misses = 0;
    }
    if (!book_window_covers(window, rank)) return make_in_tree(self, side_index, rank);
    const bool is_best = side->best == ZX_NONE || rank < self->pool->levels[side->best].rank;
    const uint32_t better = is_best ? ZX_NONE : better_of(self, side_index, rank);
    const uint32_t made = make_behind(self, side_index, rank, better);
    put(self, window, rank, made);
    return made;
}

void levels_drop(book *self, uint32_t index) {
    book_level *const levels = self->pool->levels;
    book_level *const level = &levels[index];
    book_side *const side = &self->sides[level->side];
    book_window *const window = &self->windows[level->side];
    ZX_ASSERT(level->order_count == 0 && level->total_lots == 0);
    undo_before(self->pool->undo, self, sizeof *self);
    book_before_level(self->pool, index);
    before_neighbours(self->pool, level->better, level->worse);
    if (level->better != ZX_NONE) levels[level->better].worse = level->worse;
    else side->best = level->worse;
    if (level->worse != ZX_NONE) levels[level->worse].better = level->better;
    if (book_window_covers(window, level->rank)) remove_from(self, window, level->rank);
    else uproot(self->pool, side, index);
    level->worse = self->pool->level_free;
    self->pool->level_free = index;
}

/* ------------------------------------------------------------ check */

/* Checks one subtree and returns its height, or -1. Recursion is as deep as the tree is high: below 40. */
static int check_subtree(
    const book_level *levels, uint32_t at, uint32_t parent, int64_t above, int64_t below
) {
    if (at == ZX_NONE) return 0;
    const book_level *const level = &levels[at];
    if (level->parent != parent || level->rank <= above || level->rank >= below) return -1;
    const int left = check_subtree(levels, level->left, at, above, level->rank);
    const int right = check_subtree(levels, level->right, at, level->rank, below);
    if (left < 0 || right < 0 || left - right > 1 || right - left > 1) return -1;
    const int height = (left > right ? left : right) + 1;
    return height == level->height ? height : -1;
}

static uint32_t count_subtree(const book_level *levels, uint32_t at) {
    return at == ZX_NONE
               ? 0
               : 1 + count_subtree(levels, levels[at].left) + count_subtree(levels, levels[at].right);
}

const char *levels_check(const book *self, uint8_t side) {
    static const uint32_t nothing[64];
    const book_level *const levels = self->pool->levels;
    const book_window *const window = &self->windows[side];
    if (check_subtree(levels, self->sides[side].root, ZX_NONE, INT64_MIN, INT64_MAX) < 0) {
        return "a side's tree is not ordered or not balanced";
    }
    uint32_t better = ZX_NONE;
    uint32_t in_window = 0;
    uint32_t in_tree = 0;
    for (uint32_t at = self->sides[side].best; at != ZX_NONE; at = levels[at].worse) {
        const book_level *const level = &levels[at];
        if (level->side != side || level->market != self->market) return "a level is in the wrong book";
        if (level->better != better) return "the links of levels do not agree";
        if (better != ZX_NONE && levels[better].rank >= level->rank) return "levels are not sorted";
        better = at;
        if (!book_window_covers(window, level->rank)) {
            in_tree++;
            continue;
        }
        in_window++;
        if (window->levels[entry_of(window, level->rank)] != at + 1) return "a level is not in the window";
    }
    if (in_tree != count_subtree(levels, self->sides[side].root)) return "tree and list hold different levels";
    uint32_t bits = 0;
    for (uint32_t word = 0; word < window->size / 64; word++) {
        const uint64_t used = window->words[word];
        const uint32_t *const entries = &window->levels[word * 64];
        if ((used != 0) != (window->summary >> word & 1)) return "a window is summed up wrongly";
        bool agrees = used != 0 || memcmp(entries, nothing, sizeof nothing) == 0;
        for (uint32_t entry = 0; used != 0 && entry < 64; entry++) {
            agrees = agrees && (entries[entry] != 0) == (used >> entry & 1);
        }
        if (!agrees) return "a window's bits do not say what is in it";
        bits += (uint32_t)__builtin_popcountll(used);
    }
    if (bits != in_window || bits != window->count) return "window and list hold different levels";
    return NULL;
}
