/*
 * figures.h: what one process says about itself while it runs, in memory that another process may read.
 *
 *     ingress, matcher ──plain stores──▶ [format][values][stages] ◀──loads, when it is asked── web
 *
 * The supervisor makes the memory (a memfd, zexchange/runtime/figures.py) and hands it to both at their start, to the
 * reader without the right to write. So telling costs nothing beyond counting: no timer, no message and no file. It is
 * no file on a disk on purpose: while the kernel writes a page of such a file back, a store to it may wait for the disk,
 * and with it the matcher.
 *
 * One thread writes. Each number is stored and loaded in one piece; different ones may be a moment apart.
 */
#ifndef ZX_FIGURES_H
#define ZX_FIGURES_H

#include "base.h"
#include "stages.h"

#define FIGURES_FORMAT UINT64_C(1) /* to be raised with any change of the layout or of a number's meaning */

enum figure {
    /* Counted since the process began. */
    FIGURE_SIGNATURES_GOOD,
    FIGURE_SIGNATURES_BAD,
    FIGURE_CONNECTIONS,
    FIGURE_CONNECTIONS_REFUSED, /* too many of them */
    FIGURE_FRAMES_REFUSED,      /* that no session may send */
    FIGURE_BATCHES_BUSY,        /* answered with serverBusy */
    FIGURE_SLOW_CONSUMERS,      /* sessions ended because the client did not read */
    FIGURE_LINK_DROPS,          /* messages that an ingress worker did not take: it then ends its sessions */
    /* As it is, or was when the loop last turned. */
    FIGURE_SESSIONS,
    FIGURE_UNVERIFIED_FRAMES, /* received, for the next turn */
    FIGURE_LINK_BYTES,        /* sent to matchers and not dealt with */
    FIGURE_UNSENT_BYTES,      /* for clients, not taken by the kernel yet */
    FIGURE_QUEUED_FRAMES,     /* verified, and waiting for the matcher */
    FIGURE_QUEUED_OTHERS,     /* logons, queries and the like that wait for it */
    FIGURE_BATCHES_IN_FLIGHT, /* on their way to the disk */
    FIGURE_COUNT
};

typedef struct figures {
    uint64_t format; /* FIGURES_FORMAT once the rest is valid */
    uint64_t values[FIGURE_COUNT];
    stages stages;
} figures;

static inline void figures_set(figures *self, enum figure figure, uint64_t value) {
    __atomic_store_n(&self->values[figure], value, __ATOMIC_RELAXED);
}

static inline void figures_add(figures *self, enum figure figure, uint64_t more) {
    figures_set(self, figure, self->values[figure] + more);
}

/* Forgets what an earlier process has left here. */
static inline void figures_begin(figures *self) {
    __atomic_store_n(&self->format, 0, __ATOMIC_RELEASE);
    memset(self->values, 0, sizeof self->values);
    memset(&self->stages, 0, sizeof self->stages);
    __atomic_store_n(&self->format, FIGURES_FORMAT, __ATOMIC_RELEASE);
}

/* Copies what another process may be counting. False if there is nothing, or nothing that we understand. */
static inline bool figures_read(figures *self, const figures *counted) {
    self->format = __atomic_load_n(&counted->format, __ATOMIC_ACQUIRE);
    if (self->format != FIGURES_FORMAT) return false;
    for (uint32_t index = 0; index < FIGURE_COUNT; index++) {
        self->values[index] = __atomic_load_n(&counted->values[index], __ATOMIC_RELAXED);
    }
    stages_read(&self->stages, &counted->stages);
    return true;
}

#endif
