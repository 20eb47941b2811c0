/*
 * frames.h: is a frame well-formed, and is it signed by the key it names?
 *
 *     u32 length (big-endian) | u16 0xEB50 | SBE header | signature | public key ... | group header | commands
 *     '------- framing ------'             '---8-----'  '----64---'
 *
 * frames_check() applies the checks in the order of docs/protocol.md and returns the reason of the first that
 * fails; the Python codec gives the same verdicts. It reads nothing beyond the frame and trusts
 * nothing in it. A frame that passes can be read with the structs of wire.h.
 *
 * frames_verify() checks Ed25519 signatures through libsodium's crypto_sign_open, whose address the caller
 * passes in: there is one libsodium in the process and nothing to link. The signed bytes are tag || deployment
 * id || SBE header || everything after the signature; see docs/formats.md section 1. Stateless, so any number
 * of threads may call.
 */
#ifndef ZX_FRAMES_H
#define ZX_FRAMES_H

#include "base.h"
#include "wire.h"

/* A full operator batch: the largest frame that is ever well-formed. */
#define FRAMES_LENGTH_MAX \
    (ZX_BODY_OFFSET + ZX_OPERATOR_BATCH_BLOCK_LENGTH + ZX_GROUP_HEADER_BYTES + \
     ZX_OPERATOR_BATCH_COMMANDS_MAX * ZX_OPERATOR_COMMAND_BLOCK_LENGTH)

_Static_assert(FRAMES_LENGTH_MAX == 11390, "documented in the protocol");
_Static_assert((int)ZX_OPERATOR_COMMAND_BLOCK_LENGTH >= (int)ZX_COMMAND_BLOCK_LENGTH, "the operator's is the longer");
_Static_assert(
    (int)ZX_SIGNED_BATCH_BLOCK_LENGTH == (int)ZX_OPERATOR_BATCH_BLOCK_LENGTH &&
        (int)ZX_SIGNED_BATCH_PUBLIC_KEY_OFFSET == (int)ZX_OPERATOR_BATCH_PUBLIC_KEY_OFFSET &&
        (int)ZX_SIGNED_BATCH_NONCE_OFFSET == (int)ZX_OPERATOR_BATCH_NONCE_OFFSET &&
        (int)ZX_SIGNED_BATCH_SHARD_OFFSET == (int)ZX_OPERATOR_BATCH_SHARD_OFFSET,
    "both batches have the same root block, so one struct reads either"
);

/* libsodium's crypto_sign_open: 0 if `pk` signed the message behind the signature at `sm`; `m` may be NULL. */
typedef int (*zx_sign_open)(
    unsigned char *m, unsigned long long *mlen, const unsigned char *sm, unsigned long long smlen,
    const unsigned char *pk
);

/* enum zx_reason_code of the first check that the whole frame `frame[length]` fails; ZX_REASON_NONE if it is a
 * well-formed SignedBatch or OperatorBatch, or, when `from_log`, EpochOpen or TimePassed, which no client may send. */
int frames_check(const uint8_t *frame, size_t length, bool from_log);

/* Template id of a well-formed frame. */
static inline uint16_t frames_template(const uint8_t *frame) {
    return zx_load_u16(frame + ZX_FRAME_HEADER_BYTES + 2);
}

/* Commands in a well-formed batch. */
static inline uint32_t frames_command_count(const uint8_t *frame) {
    return zx_load_u16(frame + ZX_BODY_OFFSET + ZX_SIGNED_BATCH_BLOCK_LENGTH + 2);
}

/* First command of a well-formed batch. */
static inline const uint8_t *frames_commands(const uint8_t *frame) {
    return frame + ZX_BODY_OFFSET + ZX_SIGNED_BATCH_BLOCK_LENGTH + ZX_GROUP_HEADER_BYTES;
}

/* Verifies `count` frames that lie one behind the other at `frames`, of these lengths. Sets verdicts[i] to 1 if
 * frame i is a batch long enough to hold one and its signature is valid, else 0. Returns how many are valid. */
size_t frames_verify(
    zx_sign_open sign_open, const uint8_t *deployment_id, const uint8_t *frames, const uint32_t *lengths,
    size_t count, uint8_t *verdicts
);

#endif
