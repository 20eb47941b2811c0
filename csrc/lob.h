/*
 * lob.h: a matching engine of one market and nothing around it: no accounts' money, no signatures, no log.
 *
 *      array of lob_command ─▶ lob_apply() ─▶ array of lob_event
 *                                 │
 *                                 ├── ids      order id, as the caller chose it, to slot (ids.h)
 *                                 └── book     price-time priority (book.h)
 *
 * For whoever wants only that: simulations, backtests, a venue of another kind, and benchmarks. zexchange.book is the
 * same for Python. The exchange itself uses book.h directly, with ledger and rules of its own.
 *
 * Rules: trades at the maker's price. An order is refused as a whole or accepted; `accepted` comes before its trades.
 * Immediate-or-cancel, fill-or-kill and market orders never rest: what is left is cancelled. A market order takes
 * any price, or none worse than `price_ticks` if that is not 0. Post-only orders that would trade are refused.
 * An amend states the intended total quantity; less at the same price keeps its place, anything else goes to the back
 * of its level, trading on the way. Orders of one account (not 0) do not trade with each other: the incoming order
 * says what happens instead.
 *
 * An order id may be any u64, and may be used again once its order is gone. Same commands, same events, on every
 * machine. Nothing allocates after lob_create(). lob_check() walks every invariant. Not thread safe.
 *
 *     lob *book;
 *     if (lob_create(1000, &book) != ZX_OK) return 1;
 *     const lob_command commands[] = {
 *         {.kind = LOB_NEW, .order_id = 1, .side = BOOK_SELL, .price_ticks = 101, .qty_lots = 5},
 *         {.kind = LOB_NEW, .order_id = 2, .side = BOOK_BUY, .price_ticks = 102, .qty_lots = 3},
 *         {.kind = LOB_CANCEL, .order_id = 1},
 *     };
 *     size_t applied = 0;
 *     while (applied < 3) {
 *         applied += lob_apply(book, commands + applied, 3 - applied);
 *         for (uint32_t at = 0; at < book->event_count; at++) {
 *             const lob_event *const event = &book->events[at];
 *             printf("%d %llu %lld %llu\n", event->kind, (unsigned long long)event->order_id,
 *                    (long long)event->price_ticks, (unsigned long long)event->qty_lots);
 *         }
 *     }
 *     lob_destroy(book);
 */
#ifndef ZX_LOB_H
#define ZX_LOB_H

#include "arena.h"
#include "base.h"
#include "book.h"
#include "ids.h"

#define LOB_ORDERS_MAX (1u << 26)
#define LOB_EVENTS_BESIDE_ORDERS 65536u /* room in `events` for many small commands */
#define LOB_ACCOUNT_MAX ((1u << BOOK_OWNER_BITS) - 1)

enum lob_kind { LOB_NEW = 0, LOB_CANCEL = 1, LOB_AMEND = 2 };
enum lob_order_type { LOB_LIMIT = 0, LOB_MARKET = 1 };
enum lob_time_in_force { LOB_GTC = 0, LOB_IOC = 1, LOB_FOK = 2 };

/* What happens when an order meets one of its own account. */
enum lob_stp {
    LOB_STP_NONE = 0,      /* they trade */
    LOB_CANCEL_NEWEST = 1, /* what is left of the incoming order is cancelled */
    LOB_CANCEL_OLDEST = 2, /* the resting order is cancelled, and matching goes on */
    LOB_CANCEL_BOTH = 3,
    LOB_DECREMENT = 4, /* both lose the smaller quantity: the smaller is cancelled, the larger amended */
};

enum lob_event_kind {
    LOB_ACCEPTED = 0,  /* order_id, price_ticks, qty_lots of the order */
    LOB_REJECTED = 1,  /* order_id, reason */
    LOB_TRADE = 2,     /* order_id of the taker, maker_order_id, price_ticks, qty_lots of the trade */
    LOB_CANCELLED = 3, /* order_id, reason, qty_lots taken away */
    LOB_AMENDED = 4,   /* order_id, price_ticks, qty_lots: its total from now on */
};

/* Of rejected and cancelled, in order of precedence among those of one kind. */
enum lob_reason {
    LOB_REASON_NONE = 0,
    LOB_MALFORMED = 1, /* a field has no such value */
    LOB_PRICE_OUT_OF_RANGE = 2,
    LOB_QTY_OUT_OF_RANGE = 3,
    LOB_POST_ONLY_MUST_REST = 4, /* post-only with a market order or an immediate one */
    LOB_ORDER_ID_IN_USE = 5,
    LOB_UNKNOWN_ORDER = 6,
    LOB_BOOK_FULL = 7,
    LOB_POST_ONLY_WOULD_CROSS = 8,
    LOB_FOK_NOT_FILLABLE = 9,
    LOB_REQUESTED = 10,            /* cancelled: by a cancel */
    LOB_IMMEDIATE_REMAINDER = 11,  /* cancelled: what an order that does not rest has left */
    LOB_SELF_TRADE = 12,           /* cancelled: it met an order of its account */
    LOB_AMENDED_BELOW_FILLED = 13, /* cancelled: the total asked for is filled already */
    LOB_LEVEL_FULL = 14,           /* cancelled: the quantities of its level would not fit in 64 bits */
};

typedef struct lob_command {
    uint64_t order_id;
    int64_t price_ticks; /* 1 to 2^53-1; market: worst price, or 0; amend: 0 keeps it; cancel: 0 */
    uint64_t qty_lots;   /* 1 to 2^53-1, the total; amend: 0 keeps it; cancel: 0 */
    uint32_t account;    /* 0: of no account */
    uint8_t kind;        /* enum lob_kind */
    uint8_t side;        /* enum book_side_index */
    uint8_t order_type;  /* enum lob_order_type */
    uint8_t time_in_force; /* enum lob_time_in_force; a market order with LOB_GTC is LOB_IOC */
    uint8_t stp;           /* enum lob_stp; amend: of the trades it makes */
    uint8_t post_only;     /* 0 or 1 */
    uint8_t reserved[6];   /* zero */
} lob_command;

_Static_assert(sizeof(lob_command) == 40, "no padding");

typedef struct lob_event {
    uint64_t order_id;
    uint64_t maker_order_id;
    int64_t price_ticks;
    uint64_t qty_lots;
    uint32_t command; /* index of the command in its lob_apply() */
    union {
        struct {
            uint8_t kind;     /* enum lob_event_kind */
            uint8_t reason;   /* enum lob_reason */
            uint8_t side;     /* of order_id */
            uint8_t reserved; /* zero */
        };
        uint32_t kind_reason_side; /* what is written: a compiler takes a write of bytes for one that may change anything */
    };
} lob_event;

_Static_assert(sizeof(lob_event) == 40, "no padding");

/* A resting order, as lob_orders() lists it. */
typedef struct lob_order {
    uint64_t order_id;
    int64_t price_ticks;
    uint64_t qty_lots;
    uint64_t leaves_lots;
    uint32_t account;
    uint32_t reserved;
} lob_order;

typedef struct lob_level {
    int64_t price_ticks;
    uint64_t qty_lots;
    uint64_t orders;
} lob_level;

typedef struct lob {
    lob_event *events;    /* of the last lob_apply() */
    uint32_t event_count; /* in `events` */
    uint32_t orders_max;
    uint32_t event_room;
    uint32_t command; /* being applied */
    lob_event *next_event; /* where the next one goes */
    book book;
    book_pool pool;
    ids by_id;
    arena memory;
} lob;

/* Makes a book for at most `orders_max` resting orders, 1 to LOB_ORDERS_MAX. Returns ZX_OK, ZX_ERROR_CONFIG or
 * ZX_ERROR_MEMORY. */
int lob_create(uint32_t orders_max, lob **out);
void lob_destroy(lob *self);

/* Applies commands in order and returns how many: fewer than `count` when the events of the next might not fit, at least
 * one. Their events are in `events` until the next call. */
size_t lob_apply(lob *self, const lob_command *commands, size_t count);

/* One command in the arguments of a call, which some languages find easier than a struct; returns the number of events. */
uint32_t lob_do(
    lob *self, uint8_t kind, uint64_t order_id, uint8_t side, int64_t price_ticks, uint64_t qty_lots,
    uint8_t order_type, uint8_t time_in_force, uint8_t post_only, uint32_t account, uint8_t stp
);

/* As lob_apply(), into the caller's array, which has room for `room` events; `*written` is how many there are. None is applied if
 * the events of the first might not fit: room for as many events as orders rest and four more is always enough. */
size_t lob_apply_into(
    lob *self, const lob_command *commands, size_t count, lob_event *events, size_t room, size_t *written
);

/* Best price of a side in ticks, 0 if it is empty. */
int64_t lob_best(const lob *self, uint8_t side);

/* Writes the best levels of a side, at most `room`, and returns how many. */
size_t lob_depth(const lob *self, uint8_t side, size_t room, lob_level *found);

/* Writes a side's orders in order of priority, at most `room`, and returns how many. */
size_t lob_orders(const lob *self, uint8_t side, size_t room, lob_order *found);

/* Resting orders. */
uint32_t lob_count(const lob *self);

/* Whether an order with this id rests. */
bool lob_rests(const lob *self, uint64_t order_id);

/* NULL, or a sentence about the first invariant that does not hold. */
const char *lob_check(const lob *self);

#endif
