#include "inbox.h"

#include <stdlib.h>

#define MESSAGE_VERIFIED_OFFSET 16u

_Static_assert(
    INBOX_BODY_BYTES_MAX /
            (ZX_BODY_OFFSET + ZX_SIGNED_BATCH_BLOCK_LENGTH + ZX_GROUP_HEADER_BYTES + ZX_COMMAND_BLOCK_LENGTH) <
        INBOX_FRAMES_PER_BODY_MAX,
    "there is an origin for every frame of a body"
);

int inbox_create(inbox **out) {
    inbox *const self = calloc(1, sizeof *self);
    if (self == NULL) return ZX_ERROR_MEMORY;
    const size_t queue_at = arena_reserve(&self->memory, INBOX_QUEUE_BYTES, 1);
    const size_t body_at = arena_reserve(&self->memory, INBOX_BODY_BYTES_MAX, 1);
    const size_t items_at = arena_reserve(&self->memory, INBOX_ITEMS_MAX, sizeof(inbox_item));
    const size_t origins_at =
        arena_reserve(&self->memory, INBOX_FRAMES_PER_BODY_MAX, sizeof(inbox_origin));
    if (arena_map(&self->memory) != ZX_OK) {
        free(self);
        return ZX_ERROR_MEMORY;
    }
    self->queue = arena_at(&self->memory, queue_at);
    self->body = arena_at(&self->memory, body_at);
    self->items = arena_at(&self->memory, items_at);
    self->origins = arena_at(&self->memory, origins_at);
    *out = self;
    return ZX_OK;
}

void inbox_destroy(inbox *self) {
    arena_unmap(&self->memory);
    free(self);
}

/* Bytes that the frames of one message take at most: an origin is eleven bytes longer than an entry's
 * header, and a frame is longer than eight times that. */
static uint32_t room_for_a_message(void) {
    return INBOX_MESSAGE_BYTES_MAX + INBOX_MESSAGE_BYTES_MAX / 8;
}

bool inbox_has_room(const inbox *self) {
    return INBOX_QUEUE_BYTES - (self->tail - self->head) >= room_for_a_message();
}

/* Moves the queue to the start of its memory if `bytes` would not fit behind its end. */
static void make_room(inbox *self, uint32_t bytes) {
    if (INBOX_QUEUE_BYTES - self->tail >= bytes) return;
    ZX_ASSERT(self->taken == 0);
    memmove(self->queue, self->queue + self->head, self->tail - self->head);
    self->tail -= self->head;
    self->head = 0;
    ZX_ASSERT(INBOX_QUEUE_BYTES - self->tail >= bytes);
}

/* Bytes of the payload that the kind demands, UINT32_MAX where they vary; false for a kind that is not known. */
static bool payload_of(uint8_t kind, uint32_t *length) {
    switch (kind) {
    case INBOX_OPEN:
        *length = 32;
        return true;
    case INBOX_CLOSE:
    case INBOX_PING:
        *length = 0;
        return true;
    case INBOX_BATCH:
    case INBOX_QUERY:
        *length = UINT32_MAX;
        return true;
    default:
        return false;
    }
}

static bool is_whole(const uint8_t *message, size_t length) {
    if (length < INBOX_MESSAGE_HEADER_BYTES || length > INBOX_MESSAGE_BYTES_MAX) return false;
    size_t at = INBOX_MESSAGE_HEADER_BYTES;
    while (at < length) {
        if (length - at < INBOX_ENTRY_HEADER_BYTES) return false;
        const uint32_t payload = zx_load_u32(message + at);
        uint32_t expected;
        if (!payload_of(message[at + 4], &expected)) return false;
        at += INBOX_ENTRY_HEADER_BYTES;
        if (payload > length - at || (expected != UINT32_MAX && payload != expected)) return false;
        at += payload;
    }
    return true;
}

void inbox_add(
    inbox *self, uint32_t link, uint64_t session_id, uint64_t verified_ns, const uint8_t *frame, uint32_t length
) {
    make_room(self, length + (uint32_t)sizeof(inbox_origin));
    const inbox_origin origin = {
        .session_id = session_id, .verified_ns = verified_ns, .link = link, .length = length
    };
    memcpy(self->queue + self->tail, &origin, sizeof origin);
    memcpy(self->queue + self->tail + sizeof origin, frame, length);
    self->tail += (uint32_t)sizeof origin + length;
    self->frames++;
}

int inbox_receive(inbox *self, uint32_t link, const uint8_t *message, size_t length) {
    ZX_ASSERT(inbox_has_room(self));
    if (!is_whole(message, length)) return ZX_ERROR_MALFORMED_FRAME;
    const uint64_t verified_ns = zx_load_u64(message + MESSAGE_VERIFIED_OFFSET);
    int items = 0;
    for (size_t at = INBOX_MESSAGE_HEADER_BYTES; at < length;) {
        const uint32_t payload = zx_load_u32(message + at);
        inbox_item item = {
            .kind = message[at + 4],
            .session_id = zx_load_u64(message + at + 5),
            .offset = (uint32_t)at + INBOX_ENTRY_HEADER_BYTES,
            .length = payload,
        };
        at += INBOX_ENTRY_HEADER_BYTES + payload;
        if (item.kind == INBOX_BATCH) {
            const int reason = frames_check(message + item.offset, payload, false);
            if (reason == ZX_REASON_NONE) {
                inbox_add(self, link, item.session_id, verified_ns, message + item.offset, payload);
                if (items > 0 && self->items[items - 1].kind == INBOX_FRAMES) {
                    self->items[items - 1].count++;
                    continue;
                }
                item.kind = INBOX_FRAMES;
                item.count = 1;
            } else {
                item.kind = INBOX_REFUSED;
                item.count = (uint32_t)reason;
            }
        }
        self->items[items++] = item;
    }
    return items;
}

/* Byte in the queue behind the frames that are taken. */
static uint32_t behind_taken(const inbox *self) {
    return self->head + self->body_bytes + self->taken * (uint32_t)sizeof(inbox_origin);
}

uint32_t inbox_take(
    inbox *self, uint32_t frames_max, uint32_t body_max, uint32_t link, const uint64_t *asked, uint32_t asked_count
) {
    ZX_ASSERT(body_max <= INBOX_BODY_BYTES_MAX);
    ZX_ASSERT(frames_max <= self->frames - self->taken);
    uint32_t at = behind_taken(self);
    for (uint32_t took = 0; took < frames_max; took++) {
        inbox_origin origin;
        memcpy(&origin, self->queue + at, sizeof origin);
        if (self->body_bytes + origin.length > body_max) return took;
        if (origin.link == link) {
            for (uint32_t index = 0; index < asked_count; index++) {
                if (asked[index] == origin.session_id) return took;
            }
        }
        ZX_ASSERT(self->taken < INBOX_FRAMES_PER_BODY_MAX);
        memcpy(self->body + self->body_bytes, self->queue + at + sizeof origin, origin.length);
        self->body_bytes += origin.length;
        self->origins[self->taken++] = origin;
        at += (uint32_t)sizeof origin + origin.length;
    }
    return frames_max;
}

void inbox_commit(inbox *self, uint32_t applied) {
    ZX_ASSERT(applied <= self->taken);
    for (uint32_t index = 0; index < applied; index++) {
        self->head += (uint32_t)sizeof(inbox_origin) + self->origins[index].length;
    }
    self->frames -= applied;
    self->applied = applied;
    self->taken = 0;
    self->body_bytes = 0;
    if (self->frames == 0) {
        ZX_ASSERT(self->head == self->tail);
        self->head = 0;
        self->tail = 0;
    }
}

void inbox_count_waits(const inbox *self, uint64_t until_ns, stages *times, enum stage stage) {
    for (uint32_t index = 0; index < self->applied; index++) {
        const uint64_t verified_ns = self->origins[index].verified_ns;
        if (verified_ns == 0) continue;
        stages_add(times, stage, until_ns > verified_ns ? until_ns - verified_ns : 0);
    }
}
