/*
 * slots.h: a set of small integers that answers "lowest free", "highest taken" and "next taken" in a few steps.
 *
 *     level 2   full any          one bit per word of level 1
 *     level 1   full any   ...    one bit per word of level 0: all 64 taken / at least one taken
 *     level 0   taken      ...    one bit per slot
 *
 * Order slots are leaves of the state tree, so the choice of the slot is part of the state and must not depend
 * on how the engine got there: always the lowest free one. Every operation touches at most one word pair per
 * level, 4 levels for 2^24 slots. Taking and freeing need no jump but for the rare cases: where slots are taken from the
 * lowest on, nobody can foresee which of them fills its word. Not thread safe. The memory belongs to the caller:
 * slots_words() of zeroed u64.
 */
#ifndef ZX_SLOTS_H
#define ZX_SLOTS_H

#include "base.h"
#include "undo.h"

#define SLOTS_LEVELS_MAX 6 /* 64^6 > 2^32 */

typedef struct slots {
    uint64_t *any[SLOTS_LEVELS_MAX];  /* any[0]: taken bits; above: the child word is not zero */
    uint64_t *full[SLOTS_LEVELS_MAX]; /* full[0] is any[0]; above: the child word is all ones */
    uint32_t words[SLOTS_LEVELS_MAX]; /* words of each level */
    uint32_t levels;                  /* levels in use, at least two; the top level is one word */
    uint32_t capacity;                /* slots are 0 to capacity - 1 */
    uint32_t count;                   /* slots taken */
    uint32_t open_group;              /* the first word of full[1] with a bit that is not set; while a slot is free */
    undo *undo;                       /* told of changes, or NULL */
} slots;

/* Words of memory a set of `capacity` slots needs. */
size_t slots_words(uint32_t capacity);

/* Makes an empty set over `words`, which must be zero. */
void slots_init(slots *self, uint32_t capacity, uint64_t *words);

/* Highest taken slot, or ZX_NONE when none is. */
uint32_t slots_highest_taken(const slots *self);

/* Lowest taken slot that is at least `from`, or ZX_NONE. */
uint32_t slots_next_taken(const slots *self, uint32_t from);

static inline bool slots_is_taken(const slots *self, uint32_t slot) {
    return slot < self->capacity && (self->any[0][slot / 64] >> (slot % 64) & 1) != 0;
}

/* The rest of slots_take() and slots_free(): where words further up change, or an undo is told. */
void slots_take_above(slots *self, uint32_t slot);
void slots_free_above(slots *self, uint32_t slot);

/* Takes a free slot. */
static inline void slots_take(slots *self, uint32_t slot) {
    ZX_ASSERT(slot < self->capacity);
    uint64_t *const word = &self->any[0][slot / 64];
    uint64_t *const full = &self->full[1][slot / 4096];
    const uint64_t before = *word;
    const uint64_t after = before | UINT64_C(1) << (slot % 64);
    ZX_ASSERT(before != after);
    const uint64_t full_after = *full | (uint64_t)(after == UINT64_MAX) << (slot / 64 % 64);
    if (__builtin_expect((before == 0) | (full_after == UINT64_MAX) | (self->undo != NULL), 0)) {
        slots_take_above(self, slot);
        return;
    }
    *word = after;
    *full = full_after;
    self->count++;
}

/* Takes the lowest free slot, of which there is one, and returns it. */
static inline uint32_t slots_take_lowest(slots *self) {
    ZX_ASSERT(self->count < self->capacity);
    const uint32_t group = self->open_group;
    uint64_t *const full = &self->full[1][group];
    const uint32_t in_group = (uint32_t)__builtin_ctzll(~*full);
    uint64_t *const word = &self->any[0][group * 64 + in_group];
    const uint64_t before = *word;
    const uint64_t after = before | (before + 1);
    const uint64_t full_after = *full | (uint64_t)(after == UINT64_MAX) << in_group;
    const uint32_t slot = (group * 64 + in_group) * 64 + (uint32_t)__builtin_ctzll(~before);
    if (__builtin_expect((before == 0) | (full_after == UINT64_MAX) | (self->undo != NULL), 0)) {
        slots_take_above(self, slot);
        return slot;
    }
    *word = after;
    *full = full_after;
    self->count++;
    return slot;
}

/* Frees a taken slot. */
static inline void slots_free(slots *self, uint32_t slot) {
    ZX_ASSERT(slot < self->capacity);
    uint64_t *const word = &self->any[0][slot / 64];
    uint64_t *const full = &self->full[1][slot / 4096];
    const uint64_t before = *word;
    const uint64_t after = before & ~(UINT64_C(1) << (slot % 64));
    ZX_ASSERT(before != after);
    if (__builtin_expect((after == 0) | (*full == UINT64_MAX) | (self->undo != NULL), 0)) {
        slots_free_above(self, slot);
    } else {
        *word = after;
        *full &= ~(UINT64_C(1) << (slot / 64 % 64));
        self->count--;
    }
    const uint32_t group = slot / 4096;
    self->open_group = group < self->open_group ? group : self->open_group;
}

#endif
