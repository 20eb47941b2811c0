/*
 * intake.h: which of the bytes a client sent are batches that may be verified as they are.
 *
 *     received bytes   [batch][batch][query][batch][ba...
 *                       '-- found ---'^ consumed: from here on the session looks itself
 *
 * Nearly all that clients send is whole, well-formed batches of their own key for a shard there is. Those are
 * found here, without a copy. At anything else intake_scan() stops, and the caller goes on with the slower way
 * that knows every message and every fault. Stateless.
 */
#ifndef ZX_INTAKE_H
#define ZX_INTAKE_H

#include "base.h"

typedef struct intake_batch {
    uint64_t nonce;
    uint32_t offset; /* of the frame in the received bytes */
    uint32_t length;
    uint32_t shard;
    uint32_t reserved; /* zero */
} intake_batch;

_Static_assert(sizeof(intake_batch) == 24, "shared with Python");

typedef struct intake_scanned {
    uint32_t found;
    uint32_t consumed; /* bytes up to the end of the last found frame */
} intake_scanned;

/* Finds at most `found_max` batches at the start of `data`: signed for `public_key` (the signature is NOT checked),
 * for a shard below `shards`. */
intake_scanned intake_scan(
    const uint8_t *data, size_t length, const uint8_t *public_key, uint32_t shards, intake_batch *found,
    uint32_t found_max
);

#endif
