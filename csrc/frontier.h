/*
 * frontier.h: an RFC 6962 tree that only grows, as the roots of its perfect subtrees.
 *
 *     11 leaves = 8 + 2 + 1     hashes: [root of 8][root of 2][leaf]
 *
 * One hash per one bit of the size, largest subtree first. A new leaf completes one subtree for every trailing one bit,
 * as a carry does. zexchange/verification/merkle.py has the same as CompactRange. Not thread safe.
 */
#ifndef ZX_FRONTIER_H
#define ZX_FRONTIER_H

#include "base.h"
#include "merkle.h"

#define FRONTIER_HASHES_MAX 64u

typedef struct frontier {
    uint64_t size;                                      /* leaves */
    uint8_t hashes[FRONTIER_HASHES_MAX][ZX_HASH_BYTES]; /* as many as the size has one bits */
} frontier;

/* Adds a leaf for each of the whole, well-formed frames in `body`. */
void frontier_append_frames(frontier *self, const uint8_t *body, size_t length, zx_sha256 sha256);

#endif
