/*
 * hdr.h: a histogram of durations with three significant digits, in the layout of HdrHistogram.
 *
 *     bucket 0   values 0 .. 2047        one count each
 *     bucket 1   values 2048 .. 4095     one count for two values
 *     bucket 2   values 4096 .. 8191     one count for four values ...
 *
 * So any value is known to one part in a thousand, from a nanosecond to a minute, in 216 KiB. Recording is a shift, an
 * addition and an increment. perf/histogram.py turns the counts into the encoding that HdrHistogram tools read. Not
 * thread safe.
 */
#ifndef PERF_HDR_H
#define PERF_HDR_H

#include <stdint.h>
#include <string.h>

#define HDR_SUB_BITS 11u                            /* 2048 counts in the first bucket */
#define HDR_HALF (UINT32_C(1) << (HDR_SUB_BITS - 1)) /* counts that each further bucket adds */
#define HDR_BUCKETS 26u                             /* up to 2^36 ns, which is above a minute */
#define HDR_COUNTS ((HDR_BUCKETS + 1u) * HDR_HALF)
#define HDR_VALUE_MAX ((UINT64_C(1) << (HDR_SUB_BITS + HDR_BUCKETS - 1u)) - 1u)

typedef struct hdr {
    uint64_t counts[HDR_COUNTS];
    uint64_t total;  /* values recorded */
    uint64_t max_ns; /* largest of them */
} hdr;

/* Records one value; one that is too large counts as the largest there is. */
static inline void hdr_record(hdr *self, uint64_t value_ns) {
    if (value_ns > HDR_VALUE_MAX) value_ns = HDR_VALUE_MAX;
    const uint32_t bits = 64u - (uint32_t)__builtin_clzll(value_ns | ((UINT64_C(1) << HDR_SUB_BITS) - 1u));
    const uint32_t bucket = bits - HDR_SUB_BITS;
    const uint32_t sub = (uint32_t)(value_ns >> bucket);
    self->counts[bucket * HDR_HALF + sub]++;
    self->total++;
    if (value_ns > self->max_ns) self->max_ns = value_ns;
}

/* Smallest value that falls into a count. */
static inline uint64_t hdr_value(uint32_t index) {
    if (index < 2u * HDR_HALF) return index;
    const uint32_t bucket = index / HDR_HALF - 1u;
    return (uint64_t)(index % HDR_HALF + HDR_HALF) << bucket;
}

#endif
