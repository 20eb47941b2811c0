/*
 * sha256.h: SHA-256 by the processor's own instructions, where it has them.
 *
 * libsodium's SHA-256 is portable C and takes five times as long. The log's chain and the state tree hash so
 * much that this shows, so on x86-64 processors with SHA extensions this one is used: FIPS 180-4, section 6.2,
 * with the rounds done by SHA256RNDS2, SHA256MSG1 and SHA256MSG2. Elsewhere there is none, and libsodium's is used.
 * Which of both it was shows in nothing but time; tests compare them.
 *
 * Hashes public data only: nothing here needs to hide anything from a timing observer. No state, any number of
 * threads.
 */
#ifndef ZX_SHA256_H
#define ZX_SHA256_H

#include "base.h"
#include "merkle.h"

/* The function, with the signature of libsodium's crypto_hash_sha256, or NULL if this processor has no such
 * instructions. */
zx_sha256 sha256_of_processor(void);

/* The same for a processor that says this of itself: two registers of the instruction CPUID. */
zx_sha256 sha256_with(uint32_t leaf_1_ecx, uint32_t leaf_7_ebx);

#endif
