/*
 * arena.h: all memory of one engine, reserved at once.
 *
 *     [ accounts | keys | balances | orders | levels | maps ... ]      one private anonymous mapping
 *
 * The sizes of all pools are known from the configuration, so they are laid out in one mapping when the engine
 * is made and nothing is allocated later. The kernel hands out zero pages on first touch: a shard configured
 * for millions of orders costs memory only for those it has seen. Each block starts on its own cache line.
 *
 * Use: arena_reserve() once per pool to learn its offset, arena_map() once, then arena_at() for the pointers.
 */
#ifndef ZX_ARENA_H
#define ZX_ARENA_H

#include "base.h"

#define ARENA_ALIGN 64 /* one cache line */

typedef struct arena {
    uint8_t *base; /* start of the mapping; NULL before arena_map() */
    size_t size;   /* bytes reserved so far */
} arena;

/* Adds a block of `count` items of `size` bytes and returns its offset. */
size_t arena_reserve(arena *self, size_t count, size_t size);

/* Maps everything reserved, filled with zeros. Returns ZX_OK or ZX_ERROR_MEMORY. */
int arena_map(arena *self);

/* The same on huge pages, where the system has some. That is faster once it is touched, but the first touch of each 2 MiB
 * clears them all, and may have to wait for the kernel to make room: not for a matcher, which answers all the time. */
int arena_map_huge(arena *self);

/* Touches so many bytes, so that they need not be waited for later; what is in them stays, if nobody else writes there
 * meanwhile. */
void arena_touch(const arena *self, size_t offset, size_t bytes);

/* The same of all huge pages in which they lie, and on huge pages, where the system has some; also if parts have been touched
 * before. */
void arena_make_ready(const arena *self, const void *at, size_t bytes);

/* Gives the memory back. */
void arena_unmap(arena *self);

static inline void *arena_at(const arena *self, size_t offset) {
    return self->base + offset;
}

#endif
