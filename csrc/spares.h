/*
 * spares.h: hands out numbers, and takes them back.
 *
 *      numbers   [ . | . | . | 7 | 2 | . | . | ... ]
 *                              ^used   ^ready           3 are used, 2 were used and are free, all others never were
 *
 * The number that was given back last is handed out first: what it stands for is likely to be in the cache. Whoever needs
 * the same numbers again whatever came in between takes slots.h.
 *
 * Cost: O(1), one word of memory for each number. Nothing allocates. Not thread safe.
 */
#ifndef ZX_SPARES_H
#define ZX_SPARES_H

#include "base.h"
#include "undo.h"

typedef struct spares {
    uint32_t *numbers; /* capacity of them; those that are free from `used` up to `ready` */
    uint32_t first;    /* the lowest number there is */
    uint32_t capacity; /* numbers are first to first + capacity - 1 */
    uint32_t used;     /* how many are not free */
    uint32_t ready;    /* first + ready and above were never used */
    undo *undo;        /* told of changes of `numbers`, or NULL */
} spares;

static inline void spares_init(spares *self, uint32_t first, uint32_t capacity, uint32_t *numbers) {
    *self = (spares){.numbers = numbers, .first = first, .capacity = capacity};
}

/* A number that is free, of which there is one. */
static inline uint32_t spares_take(spares *self) {
    const uint32_t at = self->used;
    ZX_ASSERT(at < self->capacity);
    self->used = at + 1;
    if (__builtin_expect(at != self->ready, 1)) return self->numbers[at];
    self->ready = at + 1;
    return self->first + at;
}

/* `is_plain`: the caller knows that there is no undo to be told. */
static inline void spares_give(spares *self, uint32_t number, bool is_plain) {
    ZX_ASSERT(self->used > 0);
    uint32_t *const place = &self->numbers[--self->used];
    if (!is_plain) undo_before(self->undo, place, sizeof *place);
    *place = number;
}

#endif
