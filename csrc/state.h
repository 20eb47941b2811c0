/*
 * state.h: the state of a shard as canonical bytes (docs/formats.md sections 3 and 4).
 *
 *     top tree:  meta | accounts | keys | markets | assets | orders | outcomes       seven subtrees, one leaf each here
 *     snapshot:  "ZXP1" version counts[7]  { length u32, leaf data } ...             the same leaves, in the same order
 *
 * A leaf is a function of the state alone: ids, amounts and positions that the rules define, never an index
 * that depends on history. So two engines in the same state give the same bytes, and a snapshot is exactly what
 * the state root commits to.
 *
 * state_restore() trusts nothing in a snapshot. It reads with bounds, refuses what no engine could have
 * written, walks every standing truth, and at last compares the snapshot with the one the restored engine would
 * write. It does not repair.
 */
#ifndef ZX_STATE_H
#define ZX_STATE_H

#include "engine.h"

#define STATE_ACCOUNT_HEAD_BYTES 56u
#define STATE_ACCOUNT_BALANCE_BYTES 20u
#define STATE_META_BYTES 96u
#define STATE_KEY_BYTES 184u
#define STATE_MARKET_BYTES 164u
#define STATE_ASSET_BYTES 56u
#define STATE_ORDER_BYTES 68u
#define STATE_TERMS_BYTES 72u /* behind an order that is not plain */
#define STATE_OUTCOME_BYTES 80u
#define STATE_SNAPSHOT_HEAD_BYTES (8u + TREE_COUNT * 8u)

/* The longest leaf is a key's, or that of an account with a balance in every asset. */
#define STATE_LEAF_BYTES_MAX(assets) (STATE_KEY_BYTES + (size_t)(assets) * STATE_ACCOUNT_BALANCE_BYTES)

/* Root of the state tree. Returns ZX_OK, or ZX_ERROR_NOT_TRACKED. */
int state_root(engine *self, uint8_t root[ZX_HASH_BYTES]);

/* What leads from one account to the state root. */
typedef struct state_account_proof {
    const uint8_t *leaf;                                   /* data, until the next call with this engine; NULL: see below */
    uint64_t counts[TREE_COUNT];                           /* leaves of every subtree */
    uint8_t roots[TREE_COUNT][ZX_HASH_BYTES];              /* root of every subtree */
    uint8_t path[MERKLE_LEVELS_MAX][ZX_HASH_BYTES];        /* from the leaf to the root of the accounts, lowest first */
    uint32_t leaf_bytes;
    uint32_t path_count;
} state_account_proof;

/* Brings the tree up to date and proves what it says about an account. Beyond the highest account there is no leaf: then
 * `leaf` is NULL, and the count of leaves is the proof. Returns ZX_OK, or ZX_ERROR_NOT_TRACKED. */
int state_prove_account(engine *self, uint64_t account_id, state_account_proof *proof);

/* Bytes that state_snapshot() will write. */
size_t state_snapshot_size(const engine *self);

/* Writes the snapshot; `out` has room for state_snapshot_size() bytes. */
void state_snapshot(const engine *self, uint8_t *out);

/* Brings an engine that was just created into the state of a snapshot. Returns ZX_OK, or ZX_ERROR_SNAPSHOT, and
 * then the engine is good for nothing but engine_destroy(). `*why` is a sentence about what is wrong. */
int state_restore(engine *self, const uint8_t *snapshot, size_t length, const char **why);

/* Position in the ring of the outcome that was written as number `ordinal`, from 0. */
uint32_t engine_outcome_position(const engine *self, uint64_t ordinal);

/* Position of the first outcome of a batch, or ZX_NONE if it is not cached. */
uint32_t engine_find_outcome(const engine *self, uint32_t key_index, uint64_t nonce);

/* Makes the batch whose first outcome is at `position` findable as a duplicate. */
void engine_cache_batch(engine *self, uint32_t position);

#endif
