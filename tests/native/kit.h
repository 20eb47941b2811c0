/* kit.h: what the native tests share: a seeded generator and a check that names what failed. */
#ifndef ZX_TESTS_KIT_H
#define ZX_TESTS_KIT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(fact) \
    do { \
        if (!(fact)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #fact); \
            exit(1); \
        } \
    } while (0)

/* xorshift64*: the same numbers on every machine. */
static inline uint64_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static inline uint32_t random_below(uint64_t *state, uint32_t bound) {
    return (uint32_t)((next_random(state) >> 32) % bound);
}

/* A stand-in for SHA-256 where only equality matters: 32 bytes that depend on every byte and on the length. */
static inline int toy_hash(unsigned char *out, const unsigned char *in, unsigned long long length) {
    uint64_t state = UINT64_C(0xcbf29ce484222325) ^ length;
    for (unsigned long long at = 0; at < length; at++) state = (state ^ in[at]) * UINT64_C(0x100000001b3);
    for (int at = 0; at < 32; at++) {
        state = (state ^ (uint64_t)at) * UINT64_C(0x100000001b3);
        out[at] = (unsigned char)(state >> 32);
    }
    return 0;
}

#endif
