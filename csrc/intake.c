#include "intake.h"

#include "frames.h"

#define PUBLIC_KEY_BYTES 32u

intake_scanned intake_scan(
    const uint8_t *data, size_t length, const uint8_t *public_key, uint32_t shards, intake_batch *found,
    uint32_t found_max
) {
    intake_scanned scanned = {0};
    while (scanned.found < found_max && length - scanned.consumed >= ZX_BODY_OFFSET) {
        const uint8_t *const frame = data + scanned.consumed;
        const uint32_t stated =
            (uint32_t)frame[0] << 24 | (uint32_t)frame[1] << 16 | (uint32_t)frame[2] << 8 | frame[3];
        if (stated > FRAMES_LENGTH_MAX || stated > length - scanned.consumed) break;
        if (frames_check(frame, stated, false) != ZX_REASON_NONE) break;
        const uint8_t *const root = frame + ZX_BODY_OFFSET;
        const uint32_t shard = zx_load_u16(root + ZX_SIGNED_BATCH_SHARD_OFFSET);
        if (shard >= shards) break;
        if (memcmp(root + ZX_SIGNED_BATCH_PUBLIC_KEY_OFFSET, public_key, PUBLIC_KEY_BYTES) != 0) break;
        found[scanned.found++] = (intake_batch){
            .nonce = zx_load_u64(root + ZX_SIGNED_BATCH_NONCE_OFFSET),
            .offset = scanned.consumed,
            .length = stated,
            .shard = shard,
        };
        scanned.consumed += stated;
    }
    return scanned;
}
