/*
 * ledger.h: who there is and what they have. Accounts, their keys with nonce windows, assets with their supplies,
 * balances.
 *
 *     keys      [ 0 | 1 | 2 | ... ]            in order of registration; each belongs to one account
 *     accounts  [ 0 | 1 | - | 3 | ... ]        by account id; 0 is the operator's
 *                 |
 *                 +-> balance --> balance      list by ascending asset id; also found by (account, asset)
 *     assets    [ 0 | 1 | 2 | ... ]            those of the genesis file, then in order of addition
 *
 * A balance is `available + held`, in base units. Holds back open orders. Amounts only move here by functions
 * that check: a sum that leaves 63 bits or a balance that would go below zero is a defect of the caller and
 * trips an assertion. The rules decide beforehand what is refused.
 *
 * Invariants (ledger_check): per asset the sum of available + held over all balances is its supply, at most
 * 2^63-1; each account's list ascends by asset id; each key, asset and balance is found by its map.
 *
 * Cost: everything O(1) except making a balance, O(balances of the account), done once per account and asset.
 * Nothing allocates. Not thread safe.
 */
#ifndef ZX_LEDGER_H
#define ZX_LEDGER_H

#include "arena.h"
#include "base.h"
#include "idmap.h"

#define LEDGER_KEY_BYTES 32
#define LEDGER_SYMBOL_BYTES 32u
#define LEDGER_NONCE_WINDOW 1024u
#define LEDGER_WINDOW_WORDS (LEDGER_NONCE_WINDOW / 64)

typedef struct ledger_account {
    uint64_t report_seq;    /* number of the last report; 0 if none */
    uint32_t first_balance; /* lowest asset id, or ZX_NONE */
    uint32_t balance_count; /* length of that list */
    uint32_t order_head;    /* oldest open order, or ZX_NONE; the list is the engine's */
    uint32_t order_tail;    /* newest open order, or ZX_NONE */
    uint32_t order_count;   /* open orders */
    uint32_t opened;        /* 1 once the account is open; 0 before, and then all else is meaningless */
} ledger_account;

_Static_assert(sizeof(ledger_account) == 32, "two accounts a cache line");

typedef struct ledger_balance {
    uint64_t available; /* base units free to use */
    uint64_t held;      /* base units behind open orders */
    uint32_t account;   /* whose */
    uint32_t asset;     /* position of the asset */
    uint32_t next;      /* the account's next higher asset id, or ZX_NONE */
    uint32_t reserved;  /* zero */
} ledger_balance;

_Static_assert(sizeof(ledger_balance) == 32, "two balances a cache line");

typedef struct ledger_key {
    uint64_t
        window[LEDGER_WINDOW_WORDS]; /* bit nonce % 1024: used, for nonces in (highest - 1024, highest] */
    uint8_t public_key[LEDGER_KEY_BYTES];
    uint64_t highest_nonce; /* highest nonce used */
    uint32_t account;       /* whose */
    uint32_t reserved;      /* zero */
} ledger_key;

_Static_assert(sizeof(ledger_key) == 176, "no padding");

typedef struct ledger_limits {
    uint32_t accounts; /* account ids are below this */
    uint32_t keys;
    uint32_t balances;
    uint32_t assets;
} ledger_limits;

typedef struct ledger {
    ledger_account *accounts; /* by account id */
    ledger_key *keys;         /* by key index */
    ledger_balance *balances; /* in order of creation */
    uint64_t *supplies;       /* by asset */
    uint32_t *asset_ids;      /* by asset */
    uint8_t (*asset_symbols)[LEDGER_SYMBOL_BYTES]; /* by asset; padded with zeros */
    uint8_t *asset_decimals;  /* by asset: its base unit is 10^-decimals */
    zx_u128 *sums;            /* by asset; only ledger_check() uses it */
    idmap key_map;            /* public key to key index */
    idmap balance_map;        /* (account, asset) to balance */
    idmap asset_map;          /* asset id to asset */
    idmap asset_symbol_map;   /* symbol to asset */
    ledger_limits limits;
    uint64_t seed;            /* of the hashes */
    undo *undo;               /* told of changes of accounts and balances, or NULL */
    uint32_t account_count;   /* opened accounts */
    uint32_t highest_account; /* highest opened id */
    uint32_t key_count;
    uint32_t balance_count;
    uint32_t asset_count;
    uint32_t reserved; /* zero */
} ledger;

typedef struct ledger_plan {
    /* Offsets in the arena. */
    size_t accounts, keys, balances, supplies, asset_ids, asset_symbols, asset_decimals, sums, key_entries,
        balance_entries, asset_entries, asset_symbol_entries;
    ledger_limits limits;
} ledger_plan;

ledger_plan ledger_reserve(arena *memory, const ledger_limits *limits);

/* Makes an empty ledger: nobody, and no asset. */
void ledger_init(ledger *self, const ledger_plan *plan, const arena *memory, uint64_t seed);

static inline bool ledger_is_open(const ledger *self, uint64_t account_id) {
    return account_id < self->limits.accounts && self->accounts[account_id].opened != 0;
}

/* Opens an account id that is below the limit and not open yet. */
void ledger_open_account(ledger *self, uint32_t account_id);

/* Index of a key, or ZX_NONE. */
uint32_t ledger_find_key(const ledger *self, const uint8_t *public_key);

/* Registers a key that does not exist yet, for an open account; the caller has checked the limit. Returns its index. */
uint32_t ledger_add_key(ledger *self, const uint8_t *public_key, uint32_t account_id);

enum ledger_nonce_status { LEDGER_NONCE_UNSEEN, LEDGER_NONCE_TOO_OLD, LEDGER_NONCE_USED };

enum ledger_nonce_status ledger_nonce_check(const ledger_key *key, uint64_t nonce);

/* Marks an unseen nonce used and moves the window up if it is the highest. */
void ledger_nonce_use(ledger_key *key, uint64_t nonce);

/* Position of an asset, by id or symbol, or ZX_NONE. */
uint32_t ledger_find_asset(const ledger *self, uint32_t asset_id);
uint32_t ledger_find_symbol(const ledger *self, const uint8_t symbol[LEDGER_SYMBOL_BYTES]);

/* Adds an asset whose id and symbol do not exist yet; the caller has checked the limit. Returns its position. */
uint32_t ledger_add_asset(
    ledger *self, uint32_t asset_id, const uint8_t symbol[LEDGER_SYMBOL_BYTES], uint32_t decimals
);

/* Balance of an account in an asset, or ZX_NONE if it was never created. */
uint32_t ledger_find_balance(const ledger *self, uint32_t account_id, uint32_t asset);

/* The same, created if missing; ZX_NONE if it is missing and the pool is full. */
uint32_t ledger_make_balance(ledger *self, uint32_t account_id, uint32_t asset);

static inline bool ledger_balances_full(const ledger *self) {
    return self->balance_count == self->limits.balances;
}

static inline void ledger_before(ledger *self, uint32_t balance) {
    undo_before(self->undo, &self->balances[balance], sizeof(ledger_balance));
}

static inline void ledger_credit(ledger *self, uint32_t balance, uint64_t amount) {
    ledger_before(self, balance);
    uint64_t *const available = &self->balances[balance].available;
    *available += amount;
    ZX_ASSERT(amount <= ZX_AMOUNT_MAX && *available <= ZX_AMOUNT_MAX);
}

static inline void ledger_debit(ledger *self, uint32_t balance, uint64_t amount) {
    ZX_ASSERT(self->balances[balance].available >= amount);
    ledger_before(self, balance);
    self->balances[balance].available -= amount;
}

/* Moves available to held. */
static inline void ledger_hold(ledger *self, uint32_t balance, uint64_t amount) {
    ZX_ASSERT(self->balances[balance].available >= amount);
    ledger_before(self, balance);
    self->balances[balance].available -= amount;
    self->balances[balance].held += amount;
    ZX_ASSERT(self->balances[balance].held <= ZX_AMOUNT_MAX);
}

/* Ends a hold of `held`, of which `spent` leaves the balance and the rest becomes available. */
static inline void ledger_settle_hold(ledger *self, uint32_t balance, uint64_t held, uint64_t spent) {
    ZX_ASSERT(self->balances[balance].held >= held && held >= spent);
    ledger_before(self, balance);
    self->balances[balance].held -= held;
    self->balances[balance].available += held - spent;
    ZX_ASSERT(self->balances[balance].available <= ZX_AMOUNT_MAX);
}

/* Walks the invariants. Returns NULL, or a sentence about the first that does not hold. */
const char *ledger_check(const ledger *self);

#endif
