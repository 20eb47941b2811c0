#include "sha256.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define BLOCK_BYTES 64u

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* The two halves of the state as the instructions want them: ABEF and CDGH, highest lane first. */
typedef struct sha_state {
    __m128i abef;
    __m128i cdgh;
} sha_state;

__attribute__((target("sha,sse4.1,ssse3"))) static sha_state compress(
    sha_state state, const uint8_t *data, size_t blocks
) {
    const __m128i to_big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
    for (; blocks > 0; blocks--, data += BLOCK_BYTES) {
        const sha_state before = state;
        __m128i words[4]; /* the last sixteen words of the schedule, four a register */
        for (int group = 0; group < 16; group++) {
            __m128i now;
            if (group < 4) {
                now = _mm_shuffle_epi8(
                    _mm_loadu_si128((const __m128i *)(const void *)(data + 16 * group)), to_big_endian
                );
            } else {
                /* W[t] = s1(W[t-2]) + W[t-7] + s0(W[t-15]) + W[t-16] for four t at once. */
                const __m128i w16 = words[group % 4];
                const __m128i w12 = words[(group + 1) % 4];
                const __m128i w8 = words[(group + 2) % 4];
                const __m128i w4 = words[(group + 3) % 4];
                now = _mm_sha256msg1_epu32(w16, w12);
                now = _mm_add_epi32(now, _mm_alignr_epi8(w4, w8, 4));
                now = _mm_sha256msg2_epu32(now, w4);
            }
            words[group % 4] = now;
            __m128i keyed = _mm_add_epi32(
                now, _mm_loadu_si128((const __m128i *)(const void *)(round_constants + 4 * group))
            );
            state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, keyed);
            keyed = _mm_shuffle_epi32(keyed, 0x0e);
            state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, keyed);
        }
        state.abef = _mm_add_epi32(state.abef, before.abef);
        state.cdgh = _mm_add_epi32(state.cdgh, before.cdgh);
    }
    return state;
}

__attribute__((target("sha,sse4.1,ssse3"))) static int hash(
    unsigned char *out, const unsigned char *in, unsigned long long length
) {
    sha_state state = {
        /* Initial values A B E F and C D G H of FIPS 180-4, section 5.3.3. */
        .abef = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c),
        .cdgh = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19),
    };
    const size_t whole = (size_t)(length / BLOCK_BYTES);
    state = compress(state, in, whole);
    uint8_t tail[2 * BLOCK_BYTES] = {0};
    const size_t rest = (size_t)(length % BLOCK_BYTES);
    if (rest > 0) memcpy(tail, in + whole * BLOCK_BYTES, rest);
    tail[rest] = 0x80;
    const size_t tail_blocks = rest + 9 <= BLOCK_BYTES ? 1 : 2;
    const uint64_t bits = (uint64_t)length * 8;
    for (size_t index = 0; index < 8; index++) {
        tail[tail_blocks * BLOCK_BYTES - 1 - index] = (uint8_t)(bits >> (8 * index));
    }
    state = compress(state, tail, tail_blocks);
    uint32_t abef[4];
    uint32_t cdgh[4];
    _mm_storeu_si128((__m128i *)(void *)abef, state.abef);
    _mm_storeu_si128((__m128i *)(void *)cdgh, state.cdgh);
    const uint32_t words[8] = {abef[3], abef[2], cdgh[3], cdgh[2], abef[1], abef[0], cdgh[1], cdgh[0]};
    for (size_t index = 0; index < 8; index++) {
        out[4 * index] = (unsigned char)(words[index] >> 24);
        out[4 * index + 1] = (unsigned char)(words[index] >> 16);
        out[4 * index + 2] = (unsigned char)(words[index] >> 8);
        out[4 * index + 3] = (unsigned char)words[index];
    }
    return 0;
}

zx_sha256 sha256_with(uint32_t leaf_1_ecx, uint32_t leaf_7_ebx) {
    const uint32_t needed = bit_SSE4_1 | bit_SSSE3;
    return (leaf_1_ecx & needed) == needed && (leaf_7_ebx & bit_SHA) != 0 ? hash : NULL;
}

zx_sha256 sha256_of_processor(void) {
    unsigned a, d; /* not asked for */
    unsigned b = 0;
    unsigned c = 0;
    unsigned leaf_1_ecx = 0; /* and so it stays if the processor has no such leaf */
    unsigned leaf_7_ebx = 0;
    __get_cpuid(1, &a, &b, &leaf_1_ecx, &d);
    __get_cpuid_count(7, 0, &a, &leaf_7_ebx, &c, &d);
    return sha256_with(leaf_1_ecx, leaf_7_ebx);
}

#else

zx_sha256 sha256_with(uint32_t leaf_1_ecx, uint32_t leaf_7_ebx) {
    (void)leaf_1_ecx;
    (void)leaf_7_ebx;
    return NULL;
}

zx_sha256 sha256_of_processor(void) {
    return NULL;
}

#endif
