/*
 * ranks.h: an ordered map from ranks to numbers, a B+ tree.
 *
 *                    [ 17 | 90 | 400 ]                            inner node: the lowest rank below each child
 *                   /       |        \
 *      [3 5 9 12] ─▶ [17 18 44 71] ─▶ [400 512 ...]               leaves, linked in order
 *
 * For what is spread over all 2^54 ranks without memory in proportion to them: the price levels that lie far from
 * the best. A node is three cache lines, two of them keys; unused keys are INT64_MAX, so that a search makes the same
 * comparisons whatever is in it, and none of them is a jump that a processor could foresee wrongly. So a rank is
 * always less than INT64_MAX, also one that is only asked for. Many trees share the nodes of one pool.
 *
 * Invariants, walked by ranks_check(): keys ascend; leaves are equally deep; a node that is not a root has at least
 * RANKS_FILL_MIN entries, so that the pool can be reserved beforehand: entries / (RANKS_FILL_MIN - 1) nodes and one for each
 * tree. The first leaf of a tree stays the first for as long as the tree has an entry.
 *
 * Cost: O(log entries); the first: O(1). Nothing allocates. Not thread safe.
 */
#ifndef ZX_RANKS_H
#define ZX_RANKS_H

#include "arena.h"
#include "base.h"
#include "undo.h"

#define RANKS_FANOUT 15u   /* eight keys are in one cache line, seven in the other */
#define RANKS_FILL_MIN 4u
#define RANKS_HEIGHT_MAX 16u /* 4^16 = 2^32 entries */

typedef struct ranks_node {
    int64_t keys[RANKS_FANOUT];    /* leaf: the ranks; inner: least that is below each child, at first INT64_MIN */
    uint32_t count;                /* entries */
    uint32_t next;                 /* of a leaf: the one behind it, or ZX_NONE; of a free node: the next free one */
    uint32_t values[RANKS_FANOUT]; /* leaf: the numbers; inner: the child nodes */
    uint32_t reserved;
} ranks_node;

_Static_assert(sizeof(ranks_node) == 192, "three cache lines");
_Static_assert(offsetof(ranks_node, values) == 128, "what a search reads is in two of them");

typedef struct ranks_pool {
    ranks_node *nodes;
    uint32_t free;  /* first of the nodes given back, or ZX_NONE */
    uint32_t fresh; /* nodes from here on were never used */
    uint32_t capacity;
    uint32_t reserved;
    undo *undo; /* told of changes of nodes, or NULL */
} ranks_pool;

typedef struct ranks {
    uint32_t root;   /* or ZX_NONE: nothing is in it */
    uint32_t first;  /* the first leaf, while there is a root */
    uint32_t height; /* levels of nodes above the leaves */
} ranks;

/* Where a rank is in a tree, or would be. */
typedef struct ranks_place {
    uint32_t nodes[RANKS_HEIGHT_MAX];    /* from the root to a leaf */
    uint32_t children[RANKS_HEIGHT_MAX]; /* which child was taken */
    uint32_t position;                   /* in the leaf */
    uint32_t value;                      /* what is there, or ZX_NONE */
} ranks_place;

/* Nodes to reserve for `entries` in all of at most `trees` trees. */
static inline uint32_t ranks_nodes(uint32_t entries, uint32_t trees) {
    return entries / (RANKS_FILL_MIN - 1) + (trees < entries ? trees : entries) + 1;
}

void ranks_pool_init(ranks_pool *self, uint32_t capacity, ranks_node *nodes);

static inline void ranks_init(ranks *self) {
    *self = (ranks){.root = ZX_NONE, .first = ZX_NONE};
}

/* The number of a rank, or ZX_NONE. */
uint32_t ranks_find(const ranks_pool *pool, const ranks *self, int64_t rank);

/* The same, with the place for ranks_insert() or ranks_remove() right afterwards. */
void ranks_seek(const ranks_pool *pool, const ranks *self, int64_t rank, ranks_place *place);

/* Adds a rank that is not there, at its place. */
void ranks_insert(ranks_pool *pool, ranks *self, const ranks_place *place, int64_t rank, uint32_t value);

/* Takes away the rank that is at this place. */
void ranks_remove(ranks_pool *pool, ranks *self, const ranks_place *place);

/* The number of the lowest rank, or ZX_NONE. */
static inline uint32_t ranks_first(const ranks_pool *pool, const ranks *self) {
    return self->root == ZX_NONE ? ZX_NONE : pool->nodes[self->first].values[0];
}

/* Fetches what a search looks at first into the cache. */
static inline void ranks_fetch_root(const ranks_pool *pool, const ranks *self) {
    if (self->root == ZX_NONE) return;
    const uint8_t *const node = (const uint8_t *)&pool->nodes[self->root];
    for (size_t at = 0; at < sizeof(ranks_node); at += ARENA_ALIGN) zx_fetch(node + at);
}

/* The number of the lowest rank above this one, or ZX_NONE. */
uint32_t ranks_above(const ranks_pool *pool, const ranks *self, int64_t rank);

/* NULL, or a sentence about what does not hold of the nodes that were given back. */
const char *ranks_pool_check(const ranks_pool *pool);

/* NULL, or a sentence about what does not hold; numbers are to be below `values_end`. `*entries` is increased by those found. */
const char *ranks_check(const ranks_pool *pool, const ranks *self, uint32_t values_end, uint32_t *entries);

#endif
