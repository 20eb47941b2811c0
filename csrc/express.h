/*
 * express.h: from the bytes of a client to the matcher's queue, for an ingress worker in the matcher's own thread.
 *
 *     bytes of session 7  ─▶ express_receive ─┐
 *     bytes of session 9  ─▶ express_receive ─┴▶ pending: [7: frame][9: frame][9: frame]
 *                                                 express_verify ─▶ verdicts ─▶ express_pass_on ─▶ inbox queue
 *
 * What intake_scan() finds is copied once and waits for the end of the loop turn, when all signatures are verified
 * in one call. If all are good the frames are passed on to the inbox; if one is not, none is, and the caller deals with
 * them one by one: it knows about strikes. Memory is reserved by express_create(). Not thread safe.
 */
#ifndef ZX_EXPRESS_H
#define ZX_EXPRESS_H

#include "arena.h"
#include "base.h"
#include "inbox.h"
#include "intake.h"
#include "verifiers.h"

#define EXPRESS_PENDING_MAX 144u
#define EXPRESS_PENDING_BYTES (UINT32_C(1) << 20) /* less than as many of the longest frames: only an operator sends them */

_Static_assert(EXPRESS_PENDING_BYTES + EXPRESS_PENDING_MAX * sizeof(inbox_origin) <= INBOX_MESSAGE_BYTES_MAX +
                   INBOX_MESSAGE_BYTES_MAX / 8, "inbox_has_room() speaks for one turn");

typedef struct express {
    uint8_t *frames;                        /* the pending ones, one behind the other */
    uint32_t lengths[EXPRESS_PENDING_MAX];  /* of each */
    uint64_t sessions[EXPRESS_PENDING_MAX]; /* who sent each */
    uint8_t verdicts[EXPRESS_PENDING_MAX];  /* of the last express_verify() */
    uint32_t pending;                       /* frames */
    uint32_t bytes;                         /* of all pending frames */
    arena memory;
} express;

/* Returns ZX_OK or ZX_ERROR_MEMORY. */
int express_create(express **out);
void express_destroy(express *self);

/* Takes the batches of `public_key` for `shard` at the start of `data` until pending is full. Returns the bytes
 * taken. */
uint32_t express_receive(
    express *self, uint64_t session_id, const uint8_t *public_key, uint32_t shard, const uint8_t *data, size_t length
);

/* Verifies everything pending. Returns how many are not good. */
uint32_t express_verify(express *self, verifiers *with, zx_sign_open sign_open, const uint8_t *deployment_id);

/* Puts everything pending, all of which express_verify() has found to be good, into the inbox, as frames of `link`;
 * the inbox has room. Nothing is pending any more. `verified_ns`: as in inbox_origin. */
void express_pass_on(express *self, inbox *to, uint32_t link, uint64_t verified_ns);

/* Forgets everything pending. */
void express_clear(express *self);

#endif
