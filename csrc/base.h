/*
 * base.h: what every file of the engine starts from.
 *
 * - ZX_ASSERT states a fact that only a defect of ours can break. It stays on in release builds: an exchange
 *   that goes on with a broken book is worse than one that stops. Input never trips it; input gets a reason
 *   code.
 * - Functions return 0 or a named negative code (enum zx_error). Nothing here prints or allocates.
 * - Wire and state bytes are little-endian. The load and store functions spell that out byte by byte; compilers
 *   turn them into single moves on the machines we run on.
 */
#ifndef ZX_BASE_H
#define ZX_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Reports the broken fact on stderr and aborts. The only function of the engine that ends the process. */
_Noreturn void zx_assert_failed(const char *expression, const char *file, int line);

#define ZX_ASSERT(fact) \
    do { \
        if (__builtin_expect(!(fact), 0)) zx_assert_failed(#fact, __FILE__, __LINE__); \
    } while (0)

/* Version of the package, SHA-256 of the sources in hex, and build mode, as given by build_ext.py. */
const char *zx_build_version(void);
const char *zx_build_source_hash(void);
const char *zx_build_mode(void);

/* Index that refers to nothing, in every pool and map. */
#define ZX_NONE UINT32_MAX

/* Largest price in ticks and quantity in lots: 2^53-1, exact in every language with doubles. */
#define ZX_TICKS_MAX ((int64_t)((UINT64_C(1) << 53) - 1))
#define ZX_LOTS_MAX ((UINT64_C(1) << 53) - 1)

/* Largest amount, hold and supply in base units: 63 bits, so that two of them add without overflow. */
#define ZX_AMOUNT_MAX ((uint64_t)INT64_MAX)

#define ZX_HASH_BYTES 32

enum zx_error {
    ZX_OK = 0,
    ZX_ERROR_MEMORY = -1,          /* the pools could not be reserved */
    ZX_ERROR_CONFIG = -2,          /* the configuration contradicts itself */
    ZX_ERROR_MALFORMED_FRAME = -3, /* a frame in a body is not well-formed */
    ZX_ERROR_SNAPSHOT = -4,        /* the bytes are not a snapshot of this deployment and shard */
    ZX_ERROR_NOT_TRACKED = -5,     /* the engine was made without a state tree */
    ZX_ERROR_TIME = -6,            /* log time did not move forward */
    ZX_ERROR_NOT_NEXT = -7,        /* bytes are not what comes next, or not plainly; nothing has changed */
    ZX_ERROR_DIVERGED = -8,        /* redoing gave something else; the engine has changed and must not be used on */
};

__extension__ typedef unsigned __int128 zx_u128; /* GCC and Clang on 64-bit machines */

static inline uint16_t zx_load_u16(const uint8_t *at) {
    return (uint16_t)(at[0] | (uint16_t)(at[1] << 8));
}

static inline uint32_t zx_load_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t zx_load_u64(const uint8_t *at) {
    return (uint64_t)zx_load_u32(at) | (uint64_t)zx_load_u32(at + 4) << 32;
}

static inline void zx_store_u16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static inline void zx_store_u32(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
}

static inline void zx_store_u64(uint8_t *at, uint64_t value) {
    zx_store_u32(at, (uint32_t)value);
    zx_store_u32(at + 4, (uint32_t)(value >> 32));
}

/* Of functions that are to be compiled into each caller, whatever the compiler thinks of their size: those on the way of every
 * command, and those with arguments that are constants of the caller and leave half of the body away. */
#define ZX_INLINE static inline __attribute__((always_inline))

/* Fetches a line into the cache. The empty statement keeps GCC from taking a function that does nothing else for one
 * without an effect, and dropping the calls to it. */
static inline void zx_fetch(const void *at) {
    __builtin_prefetch(at);
    __asm__ volatile("");
}

/* a * b, or UINT64_MAX if the product is above ZX_AMOUNT_MAX. */
static inline uint64_t zx_mul_amount(uint64_t a, uint64_t b) {
    const zx_u128 product = (zx_u128)a * b;
    return product > ZX_AMOUNT_MAX ? UINT64_MAX : (uint64_t)product;
}

/* Smallest power of two that is at least `value`; `value` is 1 to 2^31. */
static inline uint32_t zx_ceil_pow2(uint32_t value) {
    return value <= 1 ? 1 : (uint32_t)1 << (32 - __builtin_clz(value - 1));
}

#endif
