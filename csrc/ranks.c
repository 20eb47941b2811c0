#include "ranks.h"

#define MERGED_MAX (RANKS_FANOUT - 3) /* two nodes with no more become one, which has room for what comes next */

void ranks_pool_init(ranks_pool *self, uint32_t capacity, ranks_node *nodes) {
    *self = (ranks_pool){.nodes = nodes, .free = ZX_NONE, .capacity = capacity};
}

static ranks_node *node_at(const ranks_pool *pool, uint32_t index) {
    return &pool->nodes[index];
}

static void before_node(const ranks_pool *pool, uint32_t index) {
    undo_before(pool->undo, &pool->nodes[index], sizeof(ranks_node));
}

static uint32_t take_node(ranks_pool *pool) {
    uint32_t index = pool->free;
    if (index != ZX_NONE) {
        pool->free = pool->nodes[index].next;
    } else {
        ZX_ASSERT(pool->fresh < pool->capacity);
        index = pool->fresh++;
    }
    before_node(pool, index);
    ranks_node *const node = node_at(pool, index);
    for (uint32_t at = 0; at < RANKS_FANOUT; at++) node->keys[at] = INT64_MAX;
    node->count = 0;
    node->next = ZX_NONE;
    return index;
}

/* The node is kept for the undo already. */
static void give_node(ranks_pool *pool, uint32_t index) {
    pool->nodes[index].next = pool->free;
    pool->free = index;
}

/* How many keys are not above the rank: one comparison says in which cache line the first of those above it is, seven at once
 * say where. */
static inline uint32_t count_up_to(const ranks_node *node, int64_t rank) {
    const bool is_behind = node->keys[7] <= rank;
    const int64_t *const keys = is_behind ? &node->keys[8] : node->keys;
    const uint32_t low = (uint32_t)(keys[0] <= rank) + (uint32_t)(keys[1] <= rank);
    const uint32_t middle = (uint32_t)(keys[2] <= rank) + (uint32_t)(keys[3] <= rank);
    const uint32_t high = (uint32_t)(keys[4] <= rank) + (uint32_t)(keys[5] <= rank) + (uint32_t)(keys[6] <= rank);
    return is_behind * 8u + (low + middle) + high;
}

/* The child of an inner node below which a rank is: the first key is not above any rank that gets here. */
static inline uint32_t child_of(const ranks_node *node, int64_t rank) {
    return count_up_to(node, rank) - 1;
}

static uint32_t leaf_of(const ranks_pool *pool, const ranks *self, int64_t rank) {
    uint32_t index = self->root;
    for (uint32_t height = self->height; height > 0; height--) {
        const ranks_node *const node = node_at(pool, index);
        index = node->values[child_of(node, rank)];
    }
    return index;
}

uint32_t ranks_find(const ranks_pool *pool, const ranks *self, int64_t rank) {
    if (self->root == ZX_NONE) return ZX_NONE;
    const ranks_node *const leaf = node_at(pool, leaf_of(pool, self, rank));
    const uint32_t count = count_up_to(leaf, rank);
    return count > 0 && leaf->keys[count - 1] == rank ? leaf->values[count - 1] : ZX_NONE;
}

uint32_t ranks_above(const ranks_pool *pool, const ranks *self, int64_t rank) {
    ZX_ASSERT(rank < INT64_MAX);
    if (self->root == ZX_NONE) return ZX_NONE;
    const ranks_node *const leaf = node_at(pool, leaf_of(pool, self, rank));
    const uint32_t at = count_up_to(leaf, rank);
    if (at < leaf->count) return leaf->values[at];
    return leaf->next == ZX_NONE ? ZX_NONE : pool->nodes[leaf->next].values[0];
}

void ranks_seek(const ranks_pool *pool, const ranks *self, int64_t rank, ranks_place *place) {
    place->value = ZX_NONE;
    place->position = 0;
    if (self->root == ZX_NONE) return;
    uint32_t index = self->root;
    for (uint32_t depth = 0; depth < self->height; depth++) {
        const ranks_node *const node = node_at(pool, index);
        const uint32_t child = child_of(node, rank);
        place->nodes[depth] = index;
        place->children[depth] = child;
        index = node->values[child];
    }
    place->nodes[self->height] = index;
    const ranks_node *const leaf = node_at(pool, index);
    place->position = count_up_to(leaf, rank);
    if (place->position > 0 && leaf->keys[place->position - 1] == rank) {
        place->value = leaf->values[--place->position];
    }
}

/* ------------------------------------------------------------ one node */

/* Entries make room, or close up, without a jump: how many of them nobody foresees. Each goes one place further or stays,
 * as its place says. */
typedef int32_t quad __attribute__((vector_size(16))); /* two keys, or four values */

static inline quad load(const void *at) {
    quad loaded;
    memcpy(&loaded, at, sizeof loaded);
    return loaded;
}

/* What is at `from` for places from `first` on, and what is at `to` for those before it. */
static inline void shift(void *to, const void *from, quad places, uint32_t first) {
    const int32_t before = (int32_t)first - 1;
    const quad moves = places > (quad){before, before, before, before};
    const quad shifted = (load(from) & moves) | (load(to) & ~moves);
    memcpy(to, &shifted, sizeof shifted);
}

static inline void shift_keys(ranks_node *node, int32_t place, int32_t by, uint32_t first) {
    shift(&node->keys[place], &node->keys[place + by], (quad){place, place, place + 1, place + 1}, first);
}

static inline void shift_values(ranks_node *node, int32_t place, int32_t by, uint32_t first) {
    shift(&node->values[place], &node->values[place + by], (quad){place, place + 1, place + 2, place + 3}, first);
}

static inline void put_entry(ranks_node *node, uint32_t at, int64_t key, uint32_t value) {
    uint32_t *const values = node->values;
#pragma GCC unroll 8
    for (int32_t place = RANKS_FANOUT - 2; place > 0; place -= 2) shift_keys(node, place, -1, at + 1);
#pragma GCC unroll 4
    for (int32_t place = RANKS_FANOUT - 4; place > 2; place -= 4) shift_values(node, place, -1, at + 1);
    values[2] = at < 2 ? values[1] : values[2];
    values[1] = at < 1 ? values[0] : values[1];
    node->keys[at] = key;
    values[at] = value;
    node->count++;
}

static inline void drop_entry(ranks_node *node, uint32_t at) {
    uint32_t *const values = node->values;
#pragma GCC unroll 8
    for (int32_t place = 0; place < (int32_t)RANKS_FANOUT - 1; place += 2) shift_keys(node, place, 1, at);
#pragma GCC unroll 4
    for (int32_t place = 0; place < (int32_t)RANKS_FANOUT - 3; place += 4) shift_values(node, place, 1, at);
    values[12] = at <= 12 ? values[13] : values[12];
    values[13] = at <= 13 ? values[14] : values[13];
    node->keys[RANKS_FANOUT - 1] = INT64_MAX;
    node->count--;
}

_Static_assert(RANKS_FANOUT == 15, "what is left over of the quads is shifted by name");

/* Moves the last `moved` entries of `left` to the begin of `right`. */
static void move_right(ranks_node *left, ranks_node *right, uint32_t moved) {
    memmove(&right->keys[moved], right->keys, right->count * sizeof right->keys[0]);
    memmove(&right->values[moved], right->values, right->count * sizeof right->values[0]);
    left->count -= moved;
    right->count += moved;
    memcpy(right->keys, &left->keys[left->count], moved * sizeof left->keys[0]);
    memcpy(right->values, &left->values[left->count], moved * sizeof left->values[0]);
    for (uint32_t at = 0; at < moved; at++) left->keys[left->count + at] = INT64_MAX;
}

/* Moves the first `moved` entries of `right` to the end of `left`. */
static void move_left(ranks_node *left, ranks_node *right, uint32_t moved) {
    memcpy(&left->keys[left->count], right->keys, moved * sizeof left->keys[0]);
    memcpy(&left->values[left->count], right->values, moved * sizeof left->values[0]);
    left->count += moved;
    right->count -= moved;
    memmove(right->keys, &right->keys[moved], right->count * sizeof right->keys[0]);
    memmove(right->values, &right->values[moved], right->count * sizeof right->values[0]);
    for (uint32_t at = 0; at < moved; at++) right->keys[right->count + at] = INT64_MAX;
}

/* ------------------------------------------------------------ insert */

/* Puts an entry into a full node, of which the upper half goes to a new one; returns that. */
static uint32_t split(ranks_pool *pool, uint32_t index, uint32_t at, int64_t key, uint32_t value) {
    const uint32_t made = take_node(pool);
    ranks_node *const left = node_at(pool, index);
    ranks_node *const right = node_at(pool, made);
    right->next = left->next;
    left->next = made; /* looked at in leaves alone */
    move_right(left, right, RANKS_FANOUT / 2);
    if (at > left->count) put_entry(right, at - left->count, key, value);
    else put_entry(left, at, key, value);
    return made;
}

static void grow(ranks_pool *pool, ranks *self, uint32_t left, uint32_t right) {
    const uint32_t root = take_node(pool);
    put_entry(node_at(pool, root), 0, INT64_MIN, left);
    put_entry(node_at(pool, root), 1, pool->nodes[right].keys[0], right);
    self->root = root;
    self->height++;
    ZX_ASSERT(self->height < RANKS_HEIGHT_MAX);
}

void ranks_insert(ranks_pool *pool, ranks *self, const ranks_place *place, int64_t rank, uint32_t value) {
    if (self->root == ZX_NONE) {
        self->root = self->first = take_node(pool);
        put_entry(node_at(pool, self->root), 0, rank, value);
        return;
    }
    uint32_t position = place->position;
    for (uint32_t depth = self->height;; depth--) {
        const uint32_t index = place->nodes[depth];
        ranks_node *const node = node_at(pool, index);
        before_node(pool, index);
        if (node->count < RANKS_FANOUT) {
            put_entry(node, position, rank, value);
            return;
        }
        value = split(pool, index, position, rank, value);
        rank = pool->nodes[value].keys[0];
        if (depth == 0) {
            grow(pool, self, index, value);
            return;
        }
        position = place->children[depth - 1] + 1;
    }
}

/* ------------------------------------------------------------ remove */

/* A child of `parent` has too few entries: it gets some of its neighbour's, or they become one. */
static void refill(ranks_pool *pool, uint32_t parent_index, uint32_t child) {
    ranks_node *const parent = node_at(pool, parent_index);
    const uint32_t right_child = child + 1 < parent->count ? child + 1 : child;
    const uint32_t left_index = parent->values[right_child - 1];
    const uint32_t right_index = parent->values[right_child];
    ranks_node *const left = node_at(pool, left_index);
    ranks_node *const right = node_at(pool, right_index);
    before_node(pool, parent_index);
    before_node(pool, left_index);
    before_node(pool, right_index);
    const uint32_t total = left->count + right->count;
    if (total <= MERGED_MAX) {
        move_left(left, right, right->count);
        left->next = right->next;
        give_node(pool, right_index);
        drop_entry(parent, right_child);
        return;
    }
    if (left->count < total / 2) move_left(left, right, total / 2 - left->count);
    else move_right(left, right, left->count - total / 2);
    parent->keys[right_child] = right->keys[0];
}

void ranks_remove(ranks_pool *pool, ranks *self, const ranks_place *place) {
    uint32_t depth = self->height;
    uint32_t index = place->nodes[depth];
    before_node(pool, index);
    drop_entry(node_at(pool, index), place->position);
    while (depth > 0 && pool->nodes[index].count < RANKS_FILL_MIN) {
        refill(pool, place->nodes[depth - 1], place->children[depth - 1]);
        depth--;
        index = place->nodes[depth];
    }
    if (depth > 0) return;
    const ranks_node *const root = node_at(pool, index);
    if (self->height == 0 && root->count == 0) {
        give_node(pool, index);
        ranks_init(self);
    } else if (self->height > 0 && root->count == 1) {
        self->root = root->values[0];
        self->height--;
        before_node(pool, index);
        give_node(pool, index);
    }
}

/* ------------------------------------------------------------ check */

typedef struct walk {
    const ranks_pool *pool;
    uint32_t leaf;    /* that should come next */
    uint32_t values_end;
    uint32_t entries; /* found */
} walk;

/* Checks what is below a node; keys are to be at least `low` and less than `high`. */
static const char *check_node(walk *at, uint32_t index, uint32_t height, bool is_root, int64_t low, int64_t high) {
    if (index >= at->pool->fresh) return "a tree leads to a node that was never used";
    const ranks_node *const node = &at->pool->nodes[index];
    const uint32_t count_min = !is_root ? RANKS_FILL_MIN : height > 0 ? 2 : 1;
    if (node->count < count_min || node->count > RANKS_FANOUT) return "a tree's node has too few or too many entries";
    for (uint32_t entry = node->count; entry < RANKS_FANOUT; entry++) {
        if (node->keys[entry] != INT64_MAX) return "a key that is not used would be found";
    }
    for (uint32_t entry = 0; entry < node->count; entry++) {
        if (node->keys[entry] < low || node->keys[entry] >= high) return "a tree's key is outside of its node";
        if (entry > 0 && node->keys[entry - 1] >= node->keys[entry]) return "a tree's keys are not sorted";
    }
    if (height > 0 && node->keys[0] != low) return "an inner node does not begin where it should";
    if (height == 0) {
        if (index != at->leaf) return "a tree's leaves are not linked in order";
        for (uint32_t entry = 0; entry < node->count; entry++) {
            if (node->values[entry] >= at->values_end) return "a tree leads to nothing";
        }
        at->leaf = node->next;
        at->entries += node->count;
        return NULL;
    }
    for (uint32_t entry = 0; entry < node->count; entry++) {
        const int64_t child_high = entry + 1 == node->count ? high : node->keys[entry + 1];
        const char *const broken = check_node(at, node->values[entry], height - 1, false, node->keys[entry], child_high);
        if (broken != NULL) return broken;
    }
    return NULL;
}

const char *ranks_check(const ranks_pool *pool, const ranks *self, uint32_t values_end, uint32_t *entries) {
    if (self->root == ZX_NONE) return self->height == 0 ? NULL : "a tree of nothing is high";
    if (self->height >= RANKS_HEIGHT_MAX) return "a tree is too high";
    walk at = {.pool = pool, .leaf = self->first, .values_end = values_end};
    const char *const broken = check_node(&at, self->root, self->height, true, INT64_MIN, INT64_MAX);
    if (broken != NULL) return broken;
    if (at.leaf != ZX_NONE) return "a tree has a leaf too many";
    *entries += at.entries;
    return NULL;
}

const char *ranks_pool_check(const ranks_pool *pool) {
    uint32_t left = pool->fresh;
    if (left > pool->capacity) return "more nodes are used than there are";
    for (uint32_t index = pool->free; index != ZX_NONE; index = pool->nodes[index].next) {
        if (index >= pool->fresh || left-- == 0) return "a node that was given back is not one";
    }
    return NULL;
}
