/*
 * stages.h: how long each stage of an order's way takes, counted in buckets.
 *
 * A duration falls into one of 16 buckets for each power of two, so a percentile is known to 6 %. Counting costs a
 * few nanoseconds and no memory beyond this struct. The caller takes the times. Not thread safe.
 */
#ifndef ZX_STAGES_H
#define ZX_STAGES_H

#include "base.h"

/* Per turn of a loop, but for the bus: that is how long each frame waited between its verification and the matcher. */
enum stage { STAGE_VERIFY, STAGE_BUS, STAGE_MATCH, STAGE_APPEND, STAGE_PUBLISH, STAGE_COUNT };

#define STAGES_SUB_BUCKETS 16u
#define STAGES_BUCKETS (64u * STAGES_SUB_BUCKETS)

typedef struct stages {
    uint64_t counts[STAGE_COUNT][STAGES_BUCKETS];
    uint64_t total_ns[STAGE_COUNT];
    uint64_t max_ns[STAGE_COUNT];
} stages;

static inline uint32_t stages_bucket(uint64_t duration_ns) {
    if (duration_ns < STAGES_SUB_BUCKETS) return (uint32_t)duration_ns;
    const uint32_t power = 63u - (uint32_t)__builtin_clzll(duration_ns);
    const uint32_t sub = (uint32_t)(duration_ns >> (power - 4u)) & (STAGES_SUB_BUCKETS - 1u);
    return (power - 3u) * STAGES_SUB_BUCKETS + sub;
}

/* Smallest duration that falls into a bucket. */
static inline uint64_t stages_floor_ns(uint32_t bucket) {
    if (bucket < STAGES_SUB_BUCKETS) return bucket;
    const uint32_t power = bucket / STAGES_SUB_BUCKETS + 3u;
    return (UINT64_C(1) << power) + ((uint64_t)(bucket % STAGES_SUB_BUCKETS) << (power - 4u));
}

static inline void stages_add(stages *self, enum stage stage, uint64_t duration_ns) {
    self->counts[stage][stages_bucket(duration_ns)]++;
    self->total_ns[stage] += duration_ns;
    if (duration_ns > self->max_ns[stage]) self->max_ns[stage] = duration_ns;
}

#endif
