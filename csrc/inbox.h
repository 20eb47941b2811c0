/*
 * inbox.h: the frames that wait for the matcher, and the body of the next batch of the log.
 *
 *     link message ─▶ inbox_receive ─▶ queue:  [frame][frame][frame][frame][frame]...
 *                                               '---- taken ----'
 *                     inbox_take ─▶ body: the same frames, one behind the other, for the engine
 *                     inbox_commit: these have been applied; what was taken beyond them is in the queue again
 *
 * A link message (zexchange/matcher/link.py) is a header and entries. Frames are checked and copied into the
 * queue; runs of them, and everything else, come back as items in the order of the message, for the caller to
 * keep its own queue of. The body is cut where the next frame would not fit.
 *
 * The queue is one piece of memory that is moved to its start when its end is reached; it is nearly always
 * empty then. Memory is reserved by inbox_create() and touched as it is used. Not thread safe.
 */
#ifndef ZX_INBOX_H
#define ZX_INBOX_H

#include "arena.h"
#include "base.h"
#include "frames.h"
#include "stages.h"

#define INBOX_QUEUE_BYTES (UINT32_C(64) << 20)
#define INBOX_MESSAGE_BYTES_MAX (UINT32_C(1) << 20)
#define INBOX_BODY_BYTES_MAX 65536u
#define INBOX_MESSAGE_HEADER_BYTES 24u
#define INBOX_ENTRY_HEADER_BYTES 13u
/* Smallest frame is 138 bytes, so a body holds fewer. */
#define INBOX_FRAMES_PER_BODY_MAX 512u
#define INBOX_ITEMS_MAX (INBOX_MESSAGE_BYTES_MAX / INBOX_ENTRY_HEADER_BYTES + 1)

/* Kinds of entries that a matcher receives, as in zexchange/matcher/link.py, and of items made of them. */
enum inbox_kind {
    INBOX_OPEN = 1,
    INBOX_CLOSE = 2,
    INBOX_BATCH = 3,
    INBOX_QUERY = 4,
    INBOX_PING = 5,
    INBOX_FRAMES = 6,  /* item: `count` frames are in the queue */
    INBOX_REFUSED = 7, /* item: a frame that is no well-formed batch, and was not queued */
};

typedef struct inbox_item {
    uint64_t session_id;
    uint32_t kind;   /* enum inbox_kind */
    uint32_t offset; /* of the payload in the message */
    uint32_t length; /* of the payload */
    uint32_t count;  /* INBOX_FRAMES: how many; INBOX_REFUSED: enum zx_reason_code */
} inbox_item;

_Static_assert(sizeof(inbox_item) == 24, "shared with Python");

/* Who sent a frame, and when its signature was found to be good. */
typedef struct inbox_origin {
    uint64_t session_id;
    uint64_t verified_ns; /* monotonic clock of this machine; 0: nobody measures */
    uint32_t link;
    uint32_t length; /* of the frame */
} inbox_origin;

_Static_assert(sizeof(inbox_origin) == 24, "queued in front of each frame");

typedef struct inbox {
    uint8_t *queue;         /* origin, frame, origin, frame ... */
    uint8_t *body;          /* the taken frames */
    inbox_item *items;      /* of the last message */
    inbox_origin *origins;  /* of the taken frames */
    uint32_t body_bytes;    /* taken */
    uint32_t taken;         /* frames in the body */
    uint32_t head;          /* first byte in the queue */
    uint32_t tail;          /* behind the last */
    uint32_t frames;        /* in the queue, taken ones included */
    uint32_t applied;       /* frames of the last inbox_commit(); their origins are still there */
    arena memory;
} inbox;

/* Returns ZX_OK or ZX_ERROR_MEMORY. */
int inbox_create(inbox **out);
void inbox_destroy(inbox *self);

/* Whether a message of any size fits. */
bool inbox_has_room(const inbox *self);

/* Takes in one link message that came over `link`; needs room. Returns the number of items, or a negative
 * ZX_ERROR_MALFORMED_FRAME when it is no message of whole, known entries; then nothing was taken. */
int inbox_receive(inbox *self, uint32_t link, const uint8_t *message, size_t length);

/* Queues one well-formed frame, as inbox_receive() does with those of a message; needs room for a message, which
 * may be used up frame by frame. `verified_ns` as in inbox_origin. */
void inbox_add(
    inbox *self, uint32_t link, uint64_t session_id, uint64_t verified_ns, const uint8_t *frame, uint32_t length
);

/* Adds up to `frames_max` frames to the body, as long as it stays within `body_max` bytes and the next frame is
 * not of `link` and one of `asked_count` sessions. Returns how many. */
uint32_t inbox_take(
    inbox *self, uint32_t frames_max, uint32_t body_max, uint32_t link, const uint64_t *asked, uint32_t asked_count
);

/* The first `applied` frames of the body leave the queue; the body is empty again. */
void inbox_commit(inbox *self, uint32_t applied);

/* After inbox_commit(): counts as `stage` how long it was for each frame from its verification until `until_ns`.
 * Frames of which that is not known are left out. */
void inbox_count_waits(const inbox *self, uint64_t until_ns, stages *times, enum stage stage);

#endif
