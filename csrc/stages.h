/*
 * stages.h: how long each stage of an order's way takes, counted in buckets.
 *
 * A duration falls into one of 16 buckets for each power of two, so a percentile is known to 6 %. Counting costs a
 * few nanoseconds and no memory beyond this struct. The caller takes the times. One thread counts; others may read
 * meanwhile, with stages_read(): each number is then whole, and they may be some counts apart.
 */
#ifndef ZX_STAGES_H
#define ZX_STAGES_H

#include "base.h"

/* Per turn of a loop, but for the bus and the acknowledgement, which are per frame: how long it waited between its
 * verification and the matcher, and how long it was until its reports were on their way to whoever sent it. A batch
 * is visible, by its log time, when the web process has redone it. */
enum stage {
    STAGE_VERIFY,
    STAGE_BUS,
    STAGE_MATCH,
    STAGE_APPEND,
    STAGE_PUBLISH,
    STAGE_ACKNOWLEDGE,
    STAGE_VISIBLE,
    STAGE_COUNT
};

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

/* As cheap as plain stores: there is one writer, so nothing has to be locked, only written in one piece. */
static inline void stages_add(stages *self, enum stage stage, uint64_t duration_ns) {
    uint64_t *const count = &self->counts[stage][stages_bucket(duration_ns)];
    __atomic_store_n(count, *count + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&self->total_ns[stage], self->total_ns[stage] + duration_ns, __ATOMIC_RELAXED);
    if (duration_ns > self->max_ns[stage]) __atomic_store_n(&self->max_ns[stage], duration_ns, __ATOMIC_RELAXED);
}

/* Copies what another thread or process may be counting. */
static inline void stages_read(stages *self, const stages *counted) {
    const uint64_t *const from = (const uint64_t *)(const void *)counted;
    uint64_t *const to = (uint64_t *)(void *)self;
    for (size_t index = 0; index < sizeof *self / sizeof *to; index++) {
        to[index] = __atomic_load_n(&from[index], __ATOMIC_RELAXED);
    }
}

_Static_assert(sizeof(stages) == (STAGE_COUNT * (STAGES_BUCKETS + 2u)) * sizeof(uint64_t), "nothing but counts");

/* Adds to `self` what was counted in `now` and not yet in `before`; a process that began anew has counted all of it. */
static inline void stages_gather(stages *self, const stages *now, const stages *before) {
    for (uint32_t stage = 0; stage < STAGE_COUNT; stage++) {
        uint64_t had = 0;
        uint64_t has = 0;
        for (uint32_t bucket = 0; bucket < STAGES_BUCKETS; bucket++) {
            had += before->counts[stage][bucket];
            has += now->counts[stage][bucket];
        }
        const bool anew = has < had;
        for (uint32_t bucket = 0; bucket < STAGES_BUCKETS; bucket++) {
            const uint64_t first = anew ? 0 : before->counts[stage][bucket];
            /* Counts that were read while they changed may be one apart. */
            if (now->counts[stage][bucket] > first) {
                self->counts[stage][bucket] += now->counts[stage][bucket] - first;
            }
        }
        const uint64_t first_ns = anew ? 0 : before->total_ns[stage];
        if (now->total_ns[stage] > first_ns) self->total_ns[stage] += now->total_ns[stage] - first_ns;
        if (now->max_ns[stage] > self->max_ns[stage]) self->max_ns[stage] = now->max_ns[stage];
    }
}

/* How many were counted of a stage. */
static inline uint64_t stages_count(const stages *self, enum stage stage) {
    uint64_t count = 0;
    for (uint32_t bucket = 0; bucket < STAGES_BUCKETS; bucket++) count += self->counts[stage][bucket];
    return count;
}

/* How many of these took less than `bound_ns`, which is to be where a bucket begins. */
static inline uint64_t stages_below(const stages *self, enum stage stage, uint64_t bound_ns) {
    uint64_t count = 0;
    for (uint32_t bucket = 0; bucket < stages_bucket(bound_ns); bucket++) count += self->counts[stage][bucket];
    return count;
}

/* The bucket's floor below or at which `rank` of the durations lie, from 1 to the count of the stage. */
static inline uint64_t stages_at_rank_ns(const stages *self, enum stage stage, uint64_t rank) {
    uint64_t seen = 0;
    uint32_t bucket = 0;
    for (; bucket < STAGES_BUCKETS - 1u; bucket++) {
        seen += self->counts[stage][bucket];
        if (seen >= rank) break;
    }
    return stages_floor_ns(bucket);
}

#endif
