/*
 * idmap.h: finds the index of something in its pool by a 64-bit hash of its identity.
 *
 *     entries   [ . | h3 i | h1 i | . | h2 i | ... ]      8 bytes each, linear probing, a power of two of them
 *
 * The map keeps 32 bits of the hash and the index; identities stay in the pool. A lookup walks the candidates
 * with idmap_first() and idmap_next() and the caller compares the identity in the pool, so one map type serves
 * order ids, client order ids, public keys, balances and outcomes, and several equal hashes may live side by
 * side. Deletion shifts the following entries back: no tombstones, so speed does not decay with age.
 *
 * Hashes are mixed with a seed that the process draws at start. It decides where entries lie, never what the
 * engine answers; it makes it hard to choose ids that collide on purpose.
 *
 * The map is made for at most half of its entries in use. Cost: one or two cache lines per operation. Not
 * thread safe.
 */
#ifndef ZX_IDMAP_H
#define ZX_IDMAP_H

#include "base.h"
#include "undo.h"

typedef struct idmap_entry {
    uint32_t hash;  /* low half of the mixed hash: home position and tag */
    uint32_t taken; /* index + 1; 0 when the entry is free */
} idmap_entry;

_Static_assert(sizeof(idmap_entry) == 8, "eight entries a cache line");

typedef struct idmap {
    idmap_entry *entries; /* mask + 1 of them */
    undo *undo;           /* told of changes, or NULL */
    uint32_t mask;        /* number of entries less one */
    uint32_t count;       /* entries in use */
    uint32_t limit;       /* most entries ever in use at once */
    uint32_t reserved;
} idmap;

/* Where a walk over candidates stands. */
typedef struct idmap_cursor {
    uint32_t hash;     /* what is looked for */
    uint32_t position; /* next entry to look at */
} idmap_cursor;

/* Entries to reserve for a map of at most `limit` items (1 to 2^30). */
static inline uint32_t idmap_entries(uint32_t limit) {
    return zx_ceil_pow2(limit) * 2;
}

/* Makes an empty map over idmap_entries(limit) zeroed entries. */
static inline void idmap_init(idmap *self, uint32_t limit, idmap_entry *entries) {
    *self = (idmap){.entries = entries, .mask = idmap_entries(limit) - 1, .limit = limit};
}

/* Bits of a hash that count. Tests build with few of them: then different things have equal hashes all the time,
 * which otherwise takes a hundred thousand of them. */
#ifndef IDMAP_HASH_MASK
#define IDMAP_HASH_MASK UINT64_MAX
#endif

/* Mixes two words and the seed into a hash. */
static inline uint64_t idmap_hash(uint64_t seed, uint64_t a, uint64_t b) {
    zx_u128 product = (zx_u128)(a ^ seed ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xe7037ed1a0b428db));
    const uint64_t mixed = (uint64_t)product ^ (uint64_t)(product >> 64);
    product = (zx_u128)(mixed ^ seed) * UINT64_C(0x8ebc6af09c88c6e3);
    return ((uint64_t)product ^ (uint64_t)(product >> 64)) & IDMAP_HASH_MASK;
}

/* The same of 32 bytes: a public key, a symbol. */
static inline uint64_t idmap_hash_bytes(uint64_t seed, const uint8_t *bytes) {
    const uint64_t half = idmap_hash(seed, zx_load_u64(bytes), zx_load_u64(bytes + 8));
    return idmap_hash(half, zx_load_u64(bytes + 16), zx_load_u64(bytes + 24));
}

/* Next candidate for the hash of the cursor, or ZX_NONE. */
static inline uint32_t idmap_next(const idmap *self, idmap_cursor *cursor) {
    for (;;) {
        const idmap_entry entry = self->entries[cursor->position];
        if (entry.taken == 0) return ZX_NONE;
        cursor->position = (cursor->position + 1) & self->mask;
        if (entry.hash == cursor->hash) return entry.taken - 1;
    }
}

/* First candidate for a hash, or ZX_NONE. */
static inline uint32_t idmap_first(const idmap *self, uint64_t hash, idmap_cursor *cursor) {
    *cursor = (idmap_cursor){.hash = (uint32_t)hash, .position = (uint32_t)hash & self->mask};
    return idmap_next(self, cursor);
}

/* Fetches the entry where a hash begins into the cache. */
static inline void idmap_fetch(const idmap *self, uint64_t hash) {
    zx_fetch(&self->entries[(uint32_t)hash & self->mask]);
}

/* The first index under a hash, which may be another's, or ZX_NONE: a guess, for fetching ahead. */
static inline uint32_t idmap_guess(const idmap *self, uint64_t hash) {
    idmap_cursor cursor;
    return idmap_first(self, hash, &cursor);
}

/* Adds an index under a hash. The caller has checked that the identity is not there yet. */
void idmap_insert(idmap *self, uint64_t hash, uint32_t index);

/* Removes an index that was added under this hash. */
void idmap_remove(idmap *self, uint64_t hash, uint32_t index);

#endif
