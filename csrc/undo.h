/*
 * undo.h: puts memory back as it was.
 *
 *     arena    | ... | line | line | line | ...          64 bytes each
 *                        |             |
 *     kept        0      1      0      1                 a bit for each: its contents are kept already
 *     contents         [ as it was ] [ as it was ]       in the order in which they were first changed
 *
 * For a batch of which all or nothing is to happen: it is applied, and if one of its commands is refused, everything that it
 * changed is put back. Whoever changes something in the arena says so before, with undo_before(); a line is kept once, so
 * that the order of changes does not matter, and many changes of one thing cost no more than one. A structure has a pointer to
 * the undo while there is one to be told, else NULL: to be told then costs one test that the processor foresees.
 *
 * What lies outside the arena, which is the engine's own struct, is the caller's to copy. Cost: 64 bytes copied for each line
 * changed, and the same to put it back. There is room for all lines that may change, of which only what is used is ever
 * touched. Nothing allocates. Not thread safe.
 */
#ifndef ZX_UNDO_H
#define ZX_UNDO_H

#include "arena.h"
#include "base.h"

typedef struct undo {
    uint8_t *base;     /* of the arena */
    uint64_t *kept;    /* bit by line number */
    uint8_t *contents; /* ARENA_ALIGN bytes each */
    uint32_t *lines;   /* their numbers */
    uint32_t count;    /* lines kept */
    uint32_t capacity; /* lines of the arena */
} undo;

/* What undo_reserve() reserved, for undo_init(). */
typedef struct undo_plan {
    size_t kept, contents, lines; /* offsets in the arena */
    uint32_t capacity;
} undo_plan;

/* For changes of what is reserved already: all of it may change. */
undo_plan undo_reserve(arena *memory);
void undo_init(undo *self, const undo_plan *plan, const arena *memory);

/* Keeps what lies at `at`, in the arena. */
__attribute__((cold)) void undo_keep(undo *self, const void *at, size_t size);

/* The same if there is an undo to be told: to be called before each change. */
static inline void undo_before(undo *self, const void *at, size_t size) {
    if (__builtin_expect(self != NULL, 0)) undo_keep(self, at, size);
}

/* Puts everything back. */
void undo_all(undo *self);

/* Lets what was changed stay. */
void undo_forget(undo *self);

#endif
