#include "express.h"

#include <stdlib.h>

int express_create(express **out) {
    express *const self = calloc(1, sizeof *self);
    if (self == NULL) return ZX_ERROR_MEMORY;
    const size_t frames_at = arena_reserve(&self->memory, EXPRESS_PENDING_BYTES, 1);
    if (arena_map(&self->memory) != ZX_OK) {
        free(self);
        return ZX_ERROR_MEMORY;
    }
    self->frames = arena_at(&self->memory, frames_at);
    *out = self;
    return ZX_OK;
}

void express_destroy(express *self) {
    arena_unmap(&self->memory);
    free(self);
}

uint32_t express_receive(
    express *self, uint64_t session_id, const uint8_t *public_key, uint32_t shard, const uint8_t *data, size_t length
) {
    uint32_t taken = 0;
    while (self->pending < EXPRESS_PENDING_MAX && self->bytes <= EXPRESS_PENDING_BYTES - FRAMES_LENGTH_MAX) {
        intake_batch found;
        const intake_scanned scanned =
            intake_scan(data + taken, length - taken, public_key, shard + 1, &found, 1);
        if (scanned.found == 0 || found.shard != shard) break;
        memcpy(self->frames + self->bytes, data + taken, found.length);
        self->lengths[self->pending] = found.length;
        self->sessions[self->pending] = session_id;
        self->pending++;
        self->bytes += found.length;
        taken += found.length;
    }
    return taken;
}

uint32_t express_verify(express *self, verifiers *with, zx_sign_open sign_open, const uint8_t *deployment_id) {
    const uint32_t good = (uint32_t)verifiers_run(
        with, sign_open, deployment_id, self->frames, self->lengths, self->pending, self->verdicts
    );
    return self->pending - good;
}

void express_pass_on(express *self, inbox *to, uint32_t link, uint64_t verified_ns) {
    const uint8_t *frame = self->frames;
    for (uint32_t index = 0; index < self->pending; index++) {
        inbox_add(to, link, self->sessions[index], verified_ns, frame, self->lengths[index]);
        frame += self->lengths[index];
    }
    express_clear(self);
}

void express_clear(express *self) {
    self->pending = 0;
    self->bytes = 0;
}
