/*
 * merkle.h: a Merkle tree over an array of leaves that change, kept up to date at the cost of what changed.
 *
 *     level 2              [ 0..4 ]                 root
 *     level 1       [ 0..3 ]       [ 4 ]            a lone right node moves up unchanged
 *     level 0    [0 1] [2 3]       [ 4 ]
 *
 * The shape is RFC 6962's: leaf hash H(0x00 || data), node hash H(0x01 || left || right), no padding, H("")
 * when empty. The owner of the array says which leaves changed (merkle_mark) and asks for the root now and
 * then; the leaves' data is read back through a function at that time. The number of leaves may grow and shrink
 * between two roots.
 *
 * Cost: mark: O(1). Root: the changed leaves and their ancestors, each hashed once. Memory: 64 bytes per leaf,
 * touched as the tree grows. Nothing allocates. Not thread safe.
 */
#ifndef ZX_MERKLE_H
#define ZX_MERKLE_H

#include "arena.h"
#include "base.h"
#include "slots.h"

#define MERKLE_LEVELS_MAX 33

/* libsodium's crypto_hash_sha256. */
typedef int (*zx_sha256)(unsigned char *out, const unsigned char *in, unsigned long long length);

/* Where leaves come from. */
typedef struct merkle_source {
    /* Writes the data of a leaf at `out` and returns its length. */
    size_t (*leaf)(const void *context, uint32_t index, uint8_t *out);
    const void *context;
    uint8_t *scratch; /* one byte more than the longest leaf */
    zx_sha256 sha256;
} merkle_source;

typedef struct merkle_tree {
    uint8_t *nodes[MERKLE_LEVELS_MAX]; /* hashes of each level, 32 bytes each; 0 is the leaves */
    uint32_t *work;                    /* positions to recompute, ascending */
    slots dirty;                       /* leaves that changed since the last root */
    uint32_t capacity;                 /* most leaves */
    uint32_t count;                    /* leaves at the last root */
} merkle_tree;

typedef struct merkle_plan {
    size_t nodes[MERKLE_LEVELS_MAX], work, words; /* offsets in the arena */
    uint32_t capacity;
    uint32_t levels;
} merkle_plan;

merkle_plan merkle_reserve(arena *memory, uint32_t capacity);
void merkle_init(merkle_tree *self, const merkle_plan *plan, const arena *memory);

/* Says that a leaf changed. */
static inline void merkle_mark(merkle_tree *self, uint32_t index) {
    if (!slots_is_taken(&self->dirty, index)) slots_take(&self->dirty, index);
}

/* Root over the first `count` leaves. */
void merkle_root(merkle_tree *self, uint32_t count, const merkle_source *source, uint8_t root[ZX_HASH_BYTES]);

/* The hashes that lead from a leaf of the last root up to it, lowest first, as RFC 6962's audit path; returns how many.
 * `path` has room for MERKLE_LEVELS_MAX, and `index` is below the count of leaves. */
uint32_t merkle_path(const merkle_tree *self, uint32_t index, uint8_t *path);

/* Root of a few leaf hashes, in place: `hashes` is destroyed. */
void merkle_fold(uint8_t *hashes, uint32_t count, zx_sha256 sha256, uint8_t root[ZX_HASH_BYTES]);

/* H(0x00 || data); `scratch` holds the data from its second byte on. */
void merkle_leaf_hash(uint8_t *scratch, size_t length, zx_sha256 sha256, uint8_t out[ZX_HASH_BYTES]);

#endif
