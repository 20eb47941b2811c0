/*
 * engine.h: one shard. Many books and one ledger; applies records and emits reports.
 *
 *      frames + log time                                     168-byte ExecutionReport blocks
 *            |                                                        ^
 *            v                                                        |
 *      engine.c    record, key, nonce, duplicates, outcome cache -----+
 *         |-- orders.c     new, cancel, amend, cancel all ------------+
 *         |-- trading.c    matching, fills, how orders end -----------+---> book.h, lanes.h
 *         |-- triggers.c   orders that wait; what time and prices do -+
 *         |-- markets.c    states of markets; auctions, their orders -+
 *         |-- operator.c   accounts, keys, deposits, market states ---+---> ledger.h
 *         |-- definitions.c  what assets and markets are --------------+
 *         |-- state.c      leaves of the state tree, snapshots ----------> merkle.h
 *         |-- attempt.c    all or nothing of a batch -------------------> undo.h
 *         |-- check.c      the standing truths
 *         |-- ahead.c      what the next commands will need is fetched early
 *         '-- ready.c      what so many orders will need is there beforehand
 *
 * The rules are docs/rules.md, the bytes docs/formats.md. What comes out is a function of the configuration and
 * of the sequence of (log time, frame): no clock, no random number, no thread, no allocation after
 * engine_create(), no byte of padding, and no answer that depends on where something happens to lie in memory.
 * The hash seed of the configuration moves entries of hash maps around and nothing else.
 *
 * Every command is refused with a reason before it changes anything, or applied completely. Behind the checks
 * stand assertions: one that fails means the engine is wrong, and it stops. engine_check() walks every standing
 * truth of the rule book; tests call it after every command.
 *
 * Events are written to one buffer, made once, with room for the worst record several times over;
 * engine_apply() stops before a record that might not fit. They are valid until the next engine_apply(). Not
 * thread safe: one thread owns an engine.
 */
#ifndef ZX_ENGINE_H
#define ZX_ENGINE_H

#include "arena.h"
#include "base.h"
#include "book.h"
#include "idmap.h"
#include "ids.h"
#include "lanes.h"
#include "ledger.h"
#include "merkle.h"
#include "slots.h"
#include "undo.h"
#include "wire.h"

#define ENGINE_OPERATOR_ACCOUNT 0u
#define ENGINE_NONCE_AHEAD_US UINT64_C(10000000)
#define ENGINE_MAKERS_MAX 1024u     /* resting orders that one command may fill or cancel */
#define ENGINE_FEE_PPM_MAX 1000000u /* a fee never exceeds the notional */

#define ENGINE_TRIGGERED_MAX 64u    /* waiting orders triggered after one command */
#define ENGINE_EXPIRIES_MAX 1024u   /* orders that expire at the start of one record */
#define ENGINE_TRAILING_MAX 1024u   /* trailing orders of a market */

#define ENGINE_MARKET_ENDS_MAX 64u  /* markets whose state ends at the start of one record */
#define ENGINE_AUCTION_STEPS_MAX 1024u /* fills and ends of orders of auctions after one command */
#define ENGINE_INDICATION_LOOKS_MAX 4096u /* levels and orders looked at to say what an auction would trade */
#define ENGINE_BOOKS_PER_MARKET 4u /* its own, two of stops, one of orders for auctions */
#define ENGINE_DEPTH_SKIPPED_MAX 1024u /* levels with hidden orders alone that a depth passes over on each side */
#define ENGINE_INTERRUPTION_NS_MAX UINT64_C(86400000000000)
#define ENGINE_PPM 1000000u

/* Of a command itself three for each maker (two of a trade, and the end of the maker's pair), the answer, the end of
 * its own pair and of the remainder, and a market that is interrupted; then the same of the orders it triggers; then of
 * each step of an auction two of a trade and the ends of both pairs. */
#define ENGINE_REPORTS_PER_COMMAND_MAX \
    ((3u * ENGINE_MAKERS_MAX + 4u) + 3u * (2u * ENGINE_MAKERS_MAX - 1u) + 4u * ENGINE_TRIGGERED_MAX + \
     4u * ENGINE_AUCTION_STEPS_MAX)
/* Of the orders that expire, their pairs, and markets whose state ends. */
#define ENGINE_REPORTS_OF_TIME_MAX (2u * ENGINE_EXPIRIES_MAX + ENGINE_MARKET_ENDS_MAX)
#define ENGINE_REPORT_BYTES ZX_EXECUTION_REPORT_BLOCK_LENGTH
#define ENGINE_EVENTS_BYTES (UINT64_C(192) << 20)
#define ENGINE_EVENTS_TAG_BYTES 16u /* the tag that is hashed with the events stands right in front of them */

_Static_assert(
    ((uint64_t)ZX_SIGNED_BATCH_COMMANDS_MAX * ENGINE_REPORTS_PER_COMMAND_MAX + ENGINE_REPORTS_OF_TIME_MAX) *
            ENGINE_REPORT_BYTES <=
        ENGINE_EVENTS_BYTES,
    "the worst record fits in an empty buffer, so engine_apply() always makes progress"
);
_Static_assert(sizeof(struct zx_execution_report) == ENGINE_REPORT_BYTES, "reports are written in place");

#define ENGINE_SYMBOL_BYTES LEDGER_SYMBOL_BYTES

/* An asset, as the genesis file or a command defines it. */
typedef struct engine_asset_config {
    uint8_t symbol[ENGINE_SYMBOL_BYTES]; /* padded with zeros */
    uint32_t asset_id;
    uint32_t decimals;
} engine_asset_config;

_Static_assert(sizeof(engine_asset_config) == 40, "no padding");

/* A market, as the genesis file or a command defines it. Assets are positions. */
typedef struct engine_market_config {
    uint64_t base_units_per_lot;
    uint64_t quote_units_per_tick_lot;
    uint8_t symbol[ENGINE_SYMBOL_BYTES]; /* padded with zeros */
    uint32_t market_id;
    uint32_t base_asset;
    uint32_t quote_asset;
    int32_t maker_fee_ppm; /* negative: a rebate, not larger than the taker's fee */
    uint32_t taker_fee_ppm;
    uint32_t reserved;
} engine_market_config;

_Static_assert(sizeof(engine_market_config) == 72, "no padding");

typedef struct engine_config {
    const uint8_t *deployment_id;        /* 32 bytes */
    const uint8_t *operator_public_key;  /* 32 bytes */
    const engine_asset_config *assets;   /* in the order of the genesis file */
    const engine_market_config *markets; /* this shard's, in the order of the genesis file */
    zx_sha256 sha256;                    /* for the state tree and for seal.h; NULL if neither is used */
    uint64_t hash_seed;                  /* any number; decides nothing but positions in hash maps */
    uint32_t asset_count;
    uint32_t market_count;
    uint32_t assets_max;  /* with those that are added later, at least asset_count */
    uint32_t markets_max; /* likewise */
    uint32_t accounts_max;
    uint32_t keys_max;
    uint32_t balances_max;
    uint32_t orders_max;
    uint32_t outcomes_max;
    uint16_t shard;
    uint16_t tracked; /* 1: keep a state tree */
} engine_config;

/* What most commands look at comes first: ENGINE_MARKET_HOT_BYTES, four cache lines, two of which are the sides of the book. */
typedef struct engine_market {
    _Alignas(ARENA_ALIGN) uint64_t base_units_per_lot;
    uint64_t quote_units_per_tick_lot;
    uint32_t market_id;
    uint32_t base_asset;  /* position */
    uint32_t quote_asset; /* likewise */
    uint32_t state;       /* enum zx_market_state */
    int32_t maker_fee_ppm;
    uint32_t taker_fee_ppm;
    uint32_t worst_fee_ppm; /* the larger of both: what holds are made for */
    uint32_t fee_balance;   /* account 0's balance of the quote asset */
    int64_t last_ticks;      /* price of the last trade; 0 before the first */
    uint32_t sizes_no;       /* how often its sizes have changed */
    uint32_t waiting_count;  /* orders that wait for their trigger */
    book book;
    int64_t reference_ticks; /* the operator's reference price; 0 before the first */
    uint64_t notional_max;   /* of an order; this and the following limits: 0 is none */
    uint64_t qty_lots_max;   /* of an order */
    uint32_t orders_max;       /* open orders of an account in this market */
    uint32_t dynamic_band_ppm; /* around the last trade */
    uint32_t static_band_ppm;  /* around the reference price */
    uint32_t trailing_count; /* of the waiting orders those that follow a price */
    uint32_t trailing_head;  /* the oldest of these, or ZX_NONE */
    uint32_t trailing_tail;  /* the newest */
    uint32_t called_off;     /* 1 while it is uncrossing and no auction is executed */
    uint32_t next_state;     /* while it is uncrossing: what follows */
    uint64_t until_ns;       /* log time at which the state, or the one it comes to, ends by itself; 0 for never */
    int64_t auction_ticks;   /* while an auction is executed: its price; 0 before it is found */
    uint64_t interruption_ns;
    uint32_t auction_head;     /* of the orders for an auction that rest: lowest priority_no, or ZX_NONE */
    uint32_t auction_tail;     /* highest */
    uint8_t symbol[ENGINE_SYMBOL_BYTES]; /* padded with zeros */
    book stops[2]; /* waiting orders by trigger price, for trades and for the reference price; triggers.h */
    book for_auctions; /* orders that wait for their auction; markets.h */
} engine_market;

#define ENGINE_MARKET_HOT_BYTES 256u
_Static_assert(offsetof(engine_market, book) == 64, "the first line is what an order is checked and paid by");
_Static_assert(offsetof(engine_market, trailing_head) == ENGINE_MARKET_HOT_BYTES, "four lines");

/* Flags of an order besides the book's. An order without any flag is plain: price and quantity are all there is. */
#define ORDER_WAITING BOOK_USER_FLAG_1 /* for its trigger: it is in engine_market.stops, or nowhere while it has no price; with
                                        * ORDER_AUCTION for its auction: it is in engine_market.for_auctions */
#define ORDER_PAIRED BOOK_USER_FLAG_2  /* one cancels other */
#define ORDER_AUCTION BOOK_USER_FLAG_3 /* it trades in one auction only */

/* What the operator has laid down for an account; all zero for most. */
typedef struct engine_account_rules {
    uint32_t fee_discount_ppm;
    uint32_t orders_max;        /* open orders on the shard; 0 is no limit */
    uint32_t orders_per_second; /* new orders and amends; 0 is no limit */
    uint32_t rate_count;        /* those of rate_second */
    uint64_t rate_second;       /* of log time */
} engine_account_rules;

_Static_assert(sizeof(engine_account_rules) == 24, "no padding");

/* What an order has that is not plain, by slot, and touched for no other; beside book_terms. */
typedef struct engine_terms {
    int64_t price_ticks;    /* limit or protection price, while it waits */
    int64_t trail_ticks;    /* trailing: distance, or 0 if it is in trail_ppm */
    int64_t best_ticks;     /* trailing: best price since it was entered, or 0 */
    uint32_t market;        /* while it waits: position of its market */
    uint32_t trail_ppm;     /* trailing: distance, or 0 */
    uint32_t pair;          /* slot of the other of a pair */
    uint32_t heap_at;       /* if it expires: where it is in the heap */
    uint32_t list_next; /* trailing, or for an auction and in the book: the next such one of the market, or ZX_NONE */
    uint32_t list_prev; /* likewise, the one before */
    uint8_t side;           /* while it waits: enum book_side_index */
    uint8_t order_type;     /* enum zx_order_type: how it comes to the book */
    uint8_t time_in_force;  /* enum zx_time_in_force */
    uint8_t self_trade_prevention; /* while it waits: enum zx_self_trade_prevention */
    uint8_t trigger;        /* enum zx_trigger */
    uint8_t is_hidden;      /* while it waits: it will be */
    uint8_t on_reference;   /* it waits for the reference price */
    uint8_t is_iceberg;     /* while it waits: it will be */
} engine_terms;

_Static_assert(sizeof(engine_terms) == 56, "no padding");

/* The answer to one command, kept to answer duplicates; one leaf of the state tree. */
typedef struct engine_outcome {
    uint64_t nonce;
    uint64_t seq;
    uint64_t record_no;
    uint64_t report_seq;
    uint64_t order_id; /* of operator commands: the account concerned */
    uint64_t client_order_id;
    uint64_t leaves_lots;
    uint64_t cum_qty_lots;
    uint32_t key_index;
    uint32_t market_id;
    uint16_t reason;
    uint8_t exec_type;
    uint8_t command_index; /* 0 begins a batch */
    uint32_t reserved;     /* zero */
} engine_outcome;

_Static_assert(sizeof(engine_outcome) == 80, "no padding");

/* The command being applied. */
typedef struct engine_command {
    uint64_t seq;
    uint64_t record_no;
    uint64_t nonce;
    uint64_t account; /* the sender's, or ZX_ACCOUNT_NONE */
    uint32_t key_index;
    uint8_t index; /* in its batch */
} engine_command;

/* Subtrees of the state tree, in the order of docs/formats.md section 3. */
enum engine_tree {
    TREE_META,
    TREE_ACCOUNTS,
    TREE_KEYS,
    TREE_MARKETS,
    TREE_ASSETS,
    TREE_ORDERS,
    TREE_OUTCOMES,
    TREE_COUNT,
};

typedef struct engine {
    uint64_t next_record_no;
    uint64_t next_seq;
    uint64_t next_trade_id;
    uint64_t log_time_ns; /* of the last record; 0 before the first */

    engine_command command;
    uint8_t *events;      /* ENGINE_EVENTS_BYTES of report blocks, behind their tag */
    uint64_t events_used; /* bytes */

    ledger ledger;
    book_pool pool;
    engine_market *markets;
    uint64_t *market_defined; /* by position: record that added it or gave it its sizes, 0 is the genesis record; apart
                               * from the rest, because whoever logs on has all of them looked through */
    idmap market_map;       /* market id to position */
    idmap market_symbol_map; /* symbol to position */
    ids by_id;              /* order id to slot */
    idmap client_order_map; /* (account, client order id) to slot */
    engine_terms *terms;    /* by slot */
    uint32_t *expiry_heap;  /* slots of the orders that expire, the one that expires first in front */
    uint32_t expiry_count;
    uint32_t rule_count;     /* accounts with rules: while it is 0 nobody looks at them */
    engine_account_rules *account_rules; /* by account id */
    uint32_t *trade_groups;  /* by account id; 0 is none */
    slots due_markets;       /* markets where an order may be triggered */
    slots uncrossing_markets; /* markets on their way to another state */
    slots timed_markets;     /* markets whose state ends by itself */
    uint64_t next_market_end_ns; /* the first of these times, or UINT64_MAX */
    uint64_t previous_order; /* id of the order that the command before entered in the same batch, or 0 */
    lanes lanes;            /* open orders by account, market and side */
    undo *undo;             /* told of changes while a batch is applied of which all or nothing is to happen, or NULL */
    uint32_t market_count;
    uint32_t markets_max;
    uint16_t shard;
    bool tracked;

    engine_outcome *outcomes; /* ring of outcomes_max */
    idmap outcome_map;        /* (key index, nonce) to the ring position of the batch's first outcome */
    uint64_t outcomes_head;   /* outcomes ever written */
    uint64_t outcomes_count;  /* those still in the cache */
    uint32_t outcomes_max;

    uint64_t hash_seed;
    merkle_tree trees[TREE_COUNT]; /* only when tracked */
    undo changes;                  /* of an attempt: attempt.h */
    struct engine *before;         /* this struct before it */
    uint8_t *scratch;              /* room for the longest leaf and one byte before it */
    uint32_t *work;                /* orders_max slots, for restoring */
    zx_sha256 sha256;
    arena memory;
    uint8_t deployment_id[ZX_HASH_BYTES];
} engine;

typedef struct engine_applied {
    uint64_t consumed_bytes; /* of the frames applied */
    uint64_t records;        /* frames applied */
    uint64_t commands;       /* by how much seq moved */
    uint64_t events_bytes;   /* in the event buffer, from its start */
    int32_t reason;    /* with ZX_ERROR_MALFORMED_FRAME: enum zx_reason_code of the frame at consumed_bytes */
    uint32_t reserved; /* zero */
} engine_applied;

_Static_assert(sizeof(engine_applied) == 40, "shared with Python");

/* Makes a shard in its genesis state. Returns ZX_OK, ZX_ERROR_MEMORY or ZX_ERROR_CONFIG; `*out` only with ZX_OK. */
int engine_create(const engine_config *config, engine **out);

void engine_destroy(engine *self);

/* Applies the frames in `body`, one behind the other, all at one log time. Returns ZX_OK; ZX_ERROR_TIME if log
 * time does not move forward, and nothing changes; or ZX_ERROR_MALFORMED_FRAME when it comes to a frame that is
 * not well-formed, after applying those before it. `*applied` says how far it came; less than `length` with
 * ZX_OK means that the event buffer has no worst-case room for the next record. */
int engine_apply(
    engine *self, const uint8_t *body, size_t length, uint64_t log_time_ns, engine_applied *applied
);

/* Log time from which on something happens although no command comes: an order expires, or more orders are triggered
 * than one command may. UINT64_MAX if nothing is ahead. */
uint64_t engine_next_due_ns(const engine *self);

/* Whether the operator has laid down anything for an account. */
static inline bool engine_has_rules(const engine *self, uint64_t account_id) {
    const engine_account_rules *const rules = &self->account_rules[account_id];
    return rules->fee_discount_ppm != 0 || rules->orders_max != 0 || rules->orders_per_second != 0 ||
           self->trade_groups[account_id] != 0;
}

static inline uint64_t engine_hash_market(const engine *self, uint32_t market_id) {
    return idmap_hash(self->hash_seed, market_id, 0);
}

/* The market with this id, or NULL. */
engine_market *engine_find_market(const engine *self, uint32_t market_id);

/* Slot of an open order, or ZX_NONE. */
uint32_t engine_find_order(const engine *self, uint64_t order_id);

/* Slot of an account's open order with this client order id (not 0), or ZX_NONE. */
uint32_t engine_find_client_order(const engine *self, uint32_t account_id, uint64_t client_order_id);

typedef struct engine_auction {
    int64_t price_ticks; /* 0 if nothing would trade */
    uint64_t qty_lots;
} engine_auction;

/* What the auction of a market would trade now; nothing if it collects no orders for one, or if to find it takes more
 * than ENGINE_INDICATION_LOOKS_MAX. */
engine_auction engine_indicated(const engine *self, uint32_t market_id);

/* How long a market stays as it is, and what it takes; each 0 if there is none. */
typedef struct engine_market_terms {
    uint64_t until_ns; /* log time at which the state ends by itself */
    uint64_t notional_max;
    uint64_t qty_lots_max;
    int64_t last_ticks;
    int64_t reference_ticks;
    uint32_t orders_max;
    uint32_t dynamic_band_ppm;
    uint32_t static_band_ppm;
    uint32_t reserved; /* zero */
} engine_market_terms;

/* All zero if the shard has no such market. */
engine_market_terms engine_terms_of(const engine *self, uint32_t market_id);

/* Lists what is shown of the best levels of one side (enum zx_side), at most `levels_max`, and none behind more than
 * ENGINE_DEPTH_SKIPPED_MAX levels that show nothing; returns how many. `at` has room for them. */
uint32_t engine_depth(
    const engine *self, uint32_t market_id, uint8_t side, uint32_t levels_max, struct zx_level *at
);

/* Lists an account's balances by ascending asset id, at most `balances_max`; returns how many. */
uint32_t engine_balances(
    const engine *self, uint64_t account_id, uint32_t balances_max, struct zx_balance *at
);

/* Lists an account's open orders above `after_order_id` by ascending order id, of one market or of all if 0, at
 * most `orders_max`; returns how many. */
uint32_t engine_open_orders(
    const engine *self, uint64_t account_id, uint32_t market_id, uint64_t after_order_id, uint32_t orders_max,
    struct zx_open_order *at
);

/* What an open order has that struct zx_open_order does not say; each 0 if there is none. */
typedef struct engine_order_terms {
    uint64_t pair_order_id; /* the other of its pair */
    int64_t trail_ticks;    /* trailing: distance, or 0 if it is in trail_ppm */
    uint32_t trail_ppm;
    uint32_t self_trade_prevention; /* with a trigger: enum zx_self_trade_prevention */
} engine_order_terms;

/* All zero if the shard has no such open order. */
engine_order_terms engine_terms_of_order(const engine *self, uint64_t order_id);

/* How full the pools are. */
typedef struct engine_counts {
    uint64_t open_orders;
    uint64_t accounts; /* opened, the operator's included */
    uint64_t keys;
    uint64_t balances;
} engine_counts;

engine_counts engine_count(const engine *self);

/* The account of a key of 32 bytes, or ZX_ACCOUNT_NONE. */
uint64_t engine_account_of_key(const engine *self, const uint8_t *public_key);

/* Number of an account's last report; 0 if it has none or is not open. */
uint64_t engine_report_seq(const engine *self, uint64_t account_id);

/* enum zx_market_state of a market, or ZX_MARKET_STATE_NONE if the shard has no such market. */
uint32_t engine_market_state(const engine *self, uint32_t market_id);

/* Lists assets from position `first` on, at most `assets_max`; returns how many. */
uint32_t engine_assets(const engine *self, uint32_t first, uint32_t assets_max, struct zx_asset_definition *at);

/* Lists markets from position `*first` on that were added, or got their sizes, by record `since_record_no` or a later
 * one, at most `markets_max`; returns how many. `*first` is where to go on, or 0 at the end. */
uint32_t engine_markets(
    const engine *self, uint64_t since_record_no, uint32_t *first, uint32_t markets_max, struct zx_market_definition *at
);

/* Deposits less withdrawals, or UINT64_MAX if there is no such asset. */
uint64_t engine_supply(const engine *self, uint32_t asset_id);

/* Walks every standing truth. Returns NULL, or a sentence about the first that does not hold. */
const char *engine_check(const engine *self);

#endif
