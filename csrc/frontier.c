#include "frontier.h"

#include "frames.h"

static void append(frontier *self, const uint8_t leaf[ZX_HASH_BYTES], zx_sha256 sha256) {
    uint32_t count = (uint32_t)__builtin_popcountll(self->size);
    uint8_t computed[ZX_HASH_BYTES];
    memcpy(computed, leaf, ZX_HASH_BYTES);
    for (uint64_t size = self->size; (size & 1) != 0; size >>= 1) {
        uint8_t node[1 + 2 * ZX_HASH_BYTES];
        node[0] = 1;
        memcpy(node + 1, self->hashes[--count], ZX_HASH_BYTES);
        memcpy(node + 1 + ZX_HASH_BYTES, computed, ZX_HASH_BYTES);
        sha256(computed, node, sizeof node);
    }
    memcpy(self->hashes[count], computed, ZX_HASH_BYTES);
    self->size++;
}

void frontier_append_frames(frontier *self, const uint8_t *body, size_t length, zx_sha256 sha256) {
    uint8_t scratch[1 + FRAMES_LENGTH_MAX];
    for (size_t at = 0; at < length;) {
        const uint8_t *const frame = body + at;
        const size_t frame_length =
            (size_t)frame[0] << 24 | (size_t)frame[1] << 16 | (size_t)frame[2] << 8 | frame[3];
        ZX_ASSERT(frame_length <= FRAMES_LENGTH_MAX && frame_length <= length - at);
        memcpy(scratch + 1, frame, frame_length);
        uint8_t leaf[ZX_HASH_BYTES];
        merkle_leaf_hash(scratch, frame_length, sha256, leaf);
        append(self, leaf, sha256);
        at += frame_length;
    }
}
