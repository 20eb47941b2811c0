/*
 * seal.h: applies a body to an engine and writes the batch that the log gets (docs/formats.md section 2).
 *
 *     body ─▶ engine_apply ─▶ events ─▶ H(tag || events)
 *                                            v
 *     [header | chain_before][frames that were applied][events_hash][chain_after][crc32]
 *      '------------- H -> with tag and chain_before, H again: chain_after -------------'
 *
 * The whole drain of a matcher in one call, without a copy of the events. zexchange/log/journal.py writes the same
 * bytes in Python, and reads them; the verifier uses that one. Not thread safe.
 */
#ifndef ZX_SEAL_H
#define ZX_SEAL_H

#include "base.h"
#include "engine.h"
#include "inbox.h"

#define SEAL_HEADER_BYTES 80u
#define SEAL_TRAILER_BYTES 68u
#define SEAL_BATCH_BYTES_MAX 65536u

typedef struct seal {
    uint64_t epoch;                      /* of the writer */
    uint64_t first_record_no;            /* of the last batch */
    uint64_t events_bytes;               /* of the last batch: in the engine's buffer, from its start */
    uint32_t records;                    /* of the last batch */
    uint32_t batch_bytes;                /* of the last batch */
    uint8_t chain[ZX_HASH_BYTES];        /* behind the last batch */
    uint8_t batch[SEAL_BATCH_BYTES_MAX]; /* the last one */
} seal;

/* Applies the whole frames in `body` at `log_time_ns` and fills in `self`; `chain` and `epoch` are the caller's to set
 * before the first. `length` leaves room for header and trailer. Returns what engine_apply() returns; unless that is
 * ZX_OK, nothing of `self` has changed. Fewer frames than given are applied when the events of more would have no
 * room. */
int seal_apply(seal *self, engine *shard, const uint8_t *body, size_t length, uint64_t log_time_ns);

/* The same for the frames that were taken from an inbox; those that were applied leave it. */
int seal_apply_taken(seal *self, engine *shard, inbox *from, uint64_t log_time_ns);

/* Redoes a batch that somebody else has sealed: applies its frames and compares all its bytes with what sealing them
 * here gives. The batch must be of the same epoch as the one before it, and hold whole frames but no EpochOpen;
 * anything else is for the caller to look at. Returns ZX_OK, ZX_ERROR_NOT_NEXT, or ZX_ERROR_DIVERGED: then
 * `self->batch` is ours. */
int seal_replay(
    seal *self, engine *shard, uint64_t id_epoch, uint64_t id_record_no, const uint8_t *batch, size_t length
);

#endif
