/*
 * book.h: the order book of one market, in price-time priority.
 *
 *      buy side                               sell side
 *      best                                   best
 *       |                                      |
 *      [101]  worse   [100]  worse   [97]     [103]  worse   [104]          levels: one price each
 *       |              |              |        |              |
 *      o-o-o          o              o-o      o-o            o              orders: oldest first
 *
 * A side is a set of price levels. The level of a price is found in a window of prices near the best one, or outside of it
 * in a tree: levels.h. An order is in the queue of its level and nowhere else. Orders and levels live in a book_pool
 * that many books share; they refer to each other by 32-bit number. Levels carry a rank instead of a price, ascending from
 * best to worst on either side: the price for sells, the negated price for buys; so both sides run through the same
 * code.
 *
 * A queue is a ring through its level, so that an order is linked and unlinked without asking where in it it is:
 *
 *      level ─next─▶ oldest ─▶ ... ─▶ newest ─▶ the level again        and the same backwards
 *
 * Orders and levels are numbered together, the levels behind the last order, and both are one cache line with their
 * links in the same place. book_is_order() tells them apart.
 *
 * A queue is what is shown, first come first, and behind it what is hidden. An iceberg shows a slice of its
 * quantity; when that is filled the next slice goes to the back of what is shown. An order past its time does
 * not trade.
 *
 * The book knows no accounts and no money. An order has an owner tag: the book compares owners so as never to
 * trade an owner with itself, and keeps two links with which a user may list the orders of an owner. What
 * happens to a resting order in a match goes to a listener. The book is usable alone: make a pool, call
 * book_match() and, if something is left, book_rest().
 *
 * Invariants, all walked by book_check():
 *   - best bid < best ask, each level is in the window or in the tree, as its price says, and the best one is the best of
 *     both; window and tree are in order (levels.h, ranks.h);
 *   - a level that is empty is in no order of levels, but may be kept in the window for the next order at its price; of all
 *     others counts and total are those of the queue;
 *   - what is shown and what is hidden of a queue each ascend by priority_no; 0 < leaves_lots <= qty_lots; an
 *     iceberg shows something, and no more than is left; the slot of each order is taken.
 *
 * Cost: fill, cancel, rest, best: O(1) in the window, elsewhere O(log levels) when a level is looked for or emptied.
 * Nothing allocates; a full order pool is the caller's to refuse beforehand; levels cannot run out because there are as many as
 * orders and places in windows. Not thread safe: one thread owns a pool and all its books.
 */
#ifndef ZX_BOOK_H
#define ZX_BOOK_H

#include "arena.h"
#include "base.h"
#include "ranks.h"
#include "slots.h"
#include "spares.h"

enum book_side_index { BOOK_BUY = 0, BOOK_SELL = 1 };

/* Flags of an order. One without flags has no entry in book_pool's terms. The higher bits are the user's. */
#define BOOK_ICEBERG 1u  /* it shows terms.shown_lots, and then terms.display_lots at a time */
#define BOOK_HIDDEN 2u   /* it shows nothing */
#define BOOK_TIMED 4u    /* it does not trade at terms.expire_time_ns or later */
#define BOOK_USER_FLAG_1 8u
#define BOOK_USER_FLAG_2 16u
#define BOOK_USER_FLAG_3 32u

#define BOOK_OWNER_BITS 26 /* owners are below 2^26, or ZX_NONE in an incoming order: nobody */

typedef struct book_order {
    uint64_t order_id;        /* never 0 while the order is open */
    uint64_t client_order_id; /* the owner's name for it; 0 if none */
    uint64_t priority_no;     /* gives the place in the queue: lower comes first */
    uint64_t qty_lots;        /* total quantity, what is filled included */
    uint64_t leaves_lots;     /* still open */
    uint32_t level;           /* level it rests in; ZX_NONE while it is out of its queue */
    uint32_t next;            /* the order behind it in the queue, or its level */
    uint32_t prev;            /* the order before it in the queue, or its level */
    union {
        struct {
            uint32_t owner : BOOK_OWNER_BITS;      /* who owns it */
            uint32_t flags : 32 - BOOK_OWNER_BITS; /* BOOK_ICEBERG and so on */
        };
        uint32_t owner_and_flags; /* what is written: a processor waits when it reads a word of which a part was written just before */
    };
    uint32_t owner_next;      /* the user's list of one owner's orders; the book does not look at it */
    uint32_t owner_prev;      /* likewise */
} book_order;

_Static_assert(sizeof(book_order) == 64, "an order is one cache line");

typedef struct book_level {
    int64_t rank;          /* price of a sell level, negated price of a buy level; BOOK_NO_RANK while it is free */
    uint64_t total_lots;   /* sum of what the orders in the queue show */
    uint64_t *word;        /* of its window, with `bit`; NULL while it is in none */
    uint64_t bit;          /* says that it is not empty; 0 while it is in no window */
    uint32_t order_count;  /* orders in the queue, hidden ones included */
    uint32_t hidden_count; /* hidden orders in the queue */
    uint32_t hidden_head;  /* oldest hidden order while there is one; all behind it are hidden */
    uint32_t next;         /* the oldest order, or itself */
    uint32_t prev;         /* the newest order, or itself */
    uint32_t market;       /* number of the book, as given to book_init() */
    uint32_t side;         /* enum book_side_index */
    uint32_t is_veiled;    /* an iceberg or a hidden order has rested in it since it was empty: total_lots may not be all */
} book_level;

_Static_assert(sizeof(book_level) == sizeof(book_order), "they are numbered together");
_Static_assert(offsetof(book_level, next) == offsetof(book_order, next), "a link is in the same place");
_Static_assert(offsetof(book_level, prev) == offsetof(book_order, prev), "a link is in the same place");

/* What only some orders have; by slot, and touched for no others. */
typedef struct book_terms {
    uint64_t display_lots;   /* of an iceberg: a full slice */
    uint64_t shown_lots;     /* what is left of the slice that it shows */
    uint64_t expire_time_ns; /* of a timed order */
} book_terms;

_Static_assert(sizeof(book_terms) == 24, "no padding");

/* Orders and levels of all books of a shard. */
typedef struct book_pool {
    book_order *orders;   /* capacity of them, by slot */
    book_level *levels;   /* the same memory: numbers from capacity up to levels_end */
    book_terms *terms;    /* as orders */
    uint64_t next_priority_no; /* of the next order that takes a place */
    undo *undo;                /* told of changes of orders, levels and books, or NULL; set it with book_pool_tell() */
    uint32_t capacity;         /* orders */
    uint32_t levels_end;
    spares free_levels;
    spares free_slots;         /* if any slot will do; else without numbers, and slots are handed out by `taken` */
    slots taken;               /* slots of open orders, if new ones are to get the lowest that is free */
    ranks_pool far;            /* nodes of the trees of far levels */
    uint8_t *windows;          /* memory of them */
    uint32_t window_size;      /* ranks that each covers, or 0: there are none */
    uint32_t reserved;
} book_pool;

#define BOOK_NO_RANK INT64_MAX

/* One side of a book. The window is where levels near the best one are found by their price; see levels.h.
 * If its size is 0 there is none, and all levels are far. */
typedef struct book_side {
    int64_t best_rank; /* rank of `best`, or BOOK_NO_RANK */
    int64_t base;      /* lowest rank that the window covers */
    uint64_t kept_words; /* bit of each 64 entries with a level, empty or not; and of some without, until they are looked at */
    uint64_t *words;   /* size / 64 of them: bit of each entry with a level that is not empty */
    uint32_t *entries; /* size of them, by rank modulo size: the level, which may be empty, or 0: none */
    uint32_t size;     /* ranks that the window covers: a power of two */
    uint32_t misses;   /* levels made outside since it was last moved */
    uint32_t best;     /* level of the lowest rank, or ZX_NONE */
    ranks far;         /* the levels outside of the window, by rank */
} book_side;

_Static_assert(sizeof(book_side) == 64, "a side is as large as a cache line");

#define BOOK_WINDOW_MIN 64u
#ifndef BOOK_WINDOW_MAX /* tests build with less, and with 0: without windows */
#define BOOK_WINDOW_MAX 4096u
#endif
#define BOOK_WINDOWS_TOTAL (UINT32_C(1) << 21) /* entries of all windows of one side, 8 MiB */

static inline bool book_window_covers(const book_side *self, int64_t rank) {
    return (uint64_t)rank - (uint64_t)self->base < self->size;
}

/* The entry of a rank in a window that covers it. */
static inline uint32_t book_window_entry(const book_side *self, int64_t rank) {
    return (uint32_t)((uint64_t)rank & (self->size - 1));
}

typedef struct book {
    book_side sides[2]; /* by enum book_side_index */
    book_pool *pool;
    uint32_t market;    /* tag written to the levels */
    uint32_t kept[2];   /* levels in the windows, empty or not */
    uint32_t reserved;
} book;

_Static_assert(sizeof(book) == 152, "two cache lines of sides, and what is needed with any of them");

/* Told of each fill, in order. The maker's leaves_lots are already reduced. A maker that is filled completely
 * is still in the pool during the call; after it its slot is free. */
typedef struct book_listener {
    void (*on_fill)(void *context, uint32_t maker_slot, int64_t price_ticks, uint64_t qty_lots);
    /* Most lots that may be filled at this price, asked before each fill; NULL if there is no such limit. */
    uint64_t (*lots_max)(void *context, int64_t price_ticks);
    void *context;
} book_listener;

/* An order on its way in. */
typedef struct book_incoming {
    int64_t price_ticks;  /* worst price it accepts: 1 to ZX_TICKS_MAX, also if it accepts any */
    uint64_t leaves_lots; /* still wanted; book_match() reduces it */
    uint64_t now_ns;      /* orders that expire at this time or before do not trade with it */
    const uint32_t *groups; /* by owner: those of one group, not 0, are like one owner; or NULL */
    uint32_t owner;       /* does not trade with resting orders of the same owner */
    uint32_t makers_max;  /* most resting orders it may use */
    uint32_t makers_used; /* those it has used; book_match() counts its fills */
    uint8_t side;         /* enum book_side_index */
} book_incoming;

enum book_match_end {
    BOOK_DONE,        /* nothing is left, or no resting order agrees with the price */
    BOOK_OVERDUE,     /* the next maker is past its time */
    BOOK_OWN_ORDER,   /* the next maker has the same owner */
    BOOK_MAKERS_USED, /* the next maker would be one more than makers_max */
    BOOK_NO_LOT,      /* lots_max allows none at the price of the next maker */
};

/* Bytes of a window that covers so many ranks: the bits, and behind them the entries. */
static inline size_t book_window_bytes(uint32_t size) {
    return size / 8 + size * sizeof(uint32_t);
}

/* What a pool is for. */
typedef struct book_limits {
    uint32_t orders;   /* 1 to 2^26 */
    uint32_t books;    /* at most */
    uint32_t windowed; /* those of them that get windows: smaller ones the more there are, and none with very many */
    bool any_slot;     /* a new order gets whichever slot is free, which is faster, and not the lowest */
} book_limits;

/* What book_pool_reserve() reserved, for book_pool_init(). */
typedef struct book_pool_plan {
    size_t orders, levels, terms, free_levels, free_slots, words, far, windows; /* offsets in the arena */
    uint32_t capacity; /* orders */
    uint32_t level_count;
    uint32_t far_nodes;
    uint32_t window_size;
    bool any_slot;
} book_pool_plan;

book_pool_plan book_pool_reserve(arena *memory, const book_limits *limits);
void book_pool_init(book_pool *self, const book_pool_plan *plan, const arena *memory);

/* From now on tells this undo of all changes, or NULL: none. */
void book_pool_tell(book_pool *self, undo *told);

void book_init(book *self, book_pool *pool, uint32_t market);

/* To be called right behind book_init() for a book that gets windows, with a number of its own below `windowed`. */
void book_use_windows(book *self, uint32_t number);

/* Lower is better, on both sides. Without a jump, which half of all orders would take by surprise. */
static inline int64_t book_rank_of(uint32_t side, int64_t price_ticks) {
    const uint64_t sign = (uint64_t)side - 1; /* all ones for buys, 0 for sells */
    return (int64_t)(((uint64_t)price_ticks ^ sign) - sign);
}

/* Whether an order of `side` at `price_ticks`, 1 to ZX_TICKS_MAX, would trade now, whoever owns the other. Of another price it
 * says something or other. */
static inline bool book_crosses(const book *self, uint32_t side, int64_t price_ticks) {
    const uint64_t rank = (uint64_t)book_rank_of(side, price_ticks);
    return self->sides[side ^ 1].best_rank <= (int64_t)-rank; /* the price's rank on the other side */
}

/* Orders of a user's that end each other: the one that is filled or passed over first takes the other away. */
typedef struct book_pairs {
    uint32_t flag; /* the orders that may be one of a pair have it */
    uint32_t (*other_of)(const void *context, uint32_t slot); /* the other, or ZX_NONE if it is in no queue of a book */
    const void *context;
} book_pairs;

/* How much of `wanted_lots` the order would fill at once, with makers_max resting orders: orders past their time and,
 * if it `passes_own`, those of its owner are used up without a fill; otherwise the first of its owner ends it. Changes
 * nothing. Of icebergs it follows each slice; makers_max is at most BOOK_REACH_MAX if there are any. Of two `pairs` of
 * one side it counts the first; NULL if there are none. */
#define BOOK_REACH_MAX 1024u
uint64_t book_reachable(
    const book *self, const book_incoming *incoming, uint64_t wanted_lots, bool passes_own, const book_pairs *pairs
);

/* Trades `incoming` against the other side until one of the ends. What to do about the next maker is the caller's; it
 * may call again. */
enum book_match_end book_match(book *self, book_incoming *incoming, const book_listener *listener);

/* Fills so many of all that is open of a resting order, away from book_match(): it is gone if nothing is left, and an
 * iceberg whose slice is used up shows its next. */
void book_fill(book *self, uint32_t slot, uint64_t qty_lots);

/* The resting order that comes next for an incoming order of `side`; there is one. */
static inline uint32_t book_next_maker(const book *self, uint8_t side) {
    return self->pool->levels[self->sides[side ^ 1].best].next;
}

/* To be called before an order, or what only some have, or a level is changed. */
static inline void book_before_order(const book_pool *pool, uint32_t slot) {
    undo_before(pool->undo, &pool->orders[slot], sizeof(book_order));
}

static inline void book_before_terms(const book_pool *pool, uint32_t slot) {
    undo_before(pool->undo, &pool->terms[slot], sizeof(book_terms));
}

static inline void book_before_level(const book_pool *pool, uint32_t level) {
    undo_before(pool->undo, &pool->levels[level], sizeof(book_level));
}

/* Orders that have a slot. */
static inline uint32_t book_order_count(const book_pool *pool) {
    return pool->free_slots.numbers != NULL ? pool->free_slots.used : pool->taken.count;
}

/* Takes a free slot, of which there is one, for an order that is about to rest: the lowest, or any if the pool was made so. The
 * caller fills in the order. */
uint32_t book_take_free_slot(book_pool *pool);

/* The same of this slot, which is free. Not for a pool of `any_slot`. */
void book_take_slot(book_pool *pool, uint32_t slot);

/* Puts the order of a taken slot at the back of the queue of its price, with the next priority_no; an iceberg shows a
 * slice. Returns false, and changes nothing, if the level's total would not fit in 64 bits; a caller whose holds bound
 * the quantities may assert that it does. */
bool book_rest(book *self, uint32_t slot, uint32_t side, int64_t price_ticks);

/* As book_rest(), with the priority_no and the slice that the order has: to rebuild a queue, oldest first. */
bool book_restore(book *self, uint32_t slot, uint32_t side, int64_t price_ticks);

/* Takes the order out of its queue; the slot stays taken. */
void book_unlink(book *self, uint32_t slot);

/* Frees the slot of an order that is out of its queue. */
void book_free_slot(book_pool *pool, uint32_t slot);

/* Takes the order out of its queue and frees the slot. */
void book_remove(book *self, uint32_t slot);

/* Changes an order's total quantity and so its leaves; it keeps its place. `qty_lots` is above what is filled, and
 * the level's total fits in 64 bits. */
void book_resize(book *self, uint32_t slot, uint64_t qty_lots);

/* What the next fill may take of a resting order at most. */
static inline uint64_t book_tradable_lots(const book_pool *pool, uint32_t slot) {
    const book_order *const order = &pool->orders[slot];
    return __builtin_expect(order->flags & BOOK_ICEBERG, 0) ? pool->terms[slot].shown_lots : order->leaves_lots;
}

#define BOOK_OWNER_MASK ((UINT32_C(1) << BOOK_OWNER_BITS) - 1)
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the owner is in the low bits");

/* Gives an order its owner, and takes all its flags away. */
static inline void book_set_owner(book_order *order, uint32_t owner) {
    order->owner_and_flags = owner & BOOK_OWNER_MASK;
}

static inline void book_set_flags(book_order *order, uint32_t flags) {
    order->owner_and_flags |= flags << BOOK_OWNER_BITS;
}

static inline void book_clear_flags(book_order *order, uint32_t flags) {
    order->owner_and_flags &= ~(flags << BOOK_OWNER_BITS);
}

/* Whether the next or previous of an order is one, and not the level. */
static inline bool book_is_order(const book_pool *pool, uint32_t number) {
    return number < pool->capacity;
}

/* Fetches into the cache where the window tells of the level of a price; if it is not in the window, where a search begins. */
static inline void book_fetch_place(const book *self, uint32_t side, int64_t price_ticks) {
    const book_side *const its = &self->sides[side];
    const int64_t rank = book_rank_of(side, price_ticks);
    if (!book_window_covers(its, rank)) {
        ranks_fetch_root(&self->pool->far, &its->far);
        return;
    }
    const uint32_t entry = book_window_entry(its, rank);
    zx_fetch(&its->entries[entry]);
    zx_fetch(&its->words[entry / 64]);
}

/* Fetches the level behind the best one of a side, if it is near it in the window. */
static inline void book_fetch_second_level(const book *self, uint32_t side) {
    const book_side *const its = &self->sides[side];
    if (!book_window_covers(its, its->best_rank)) return;
    const uint32_t entry = book_window_entry(its, its->best_rank);
    const uint64_t behind = its->words[entry / 64] >> (entry % 64) >> 1;
    if (behind == 0) return;
    zx_fetch(&self->pool->levels[its->entries[entry + 1 + (uint32_t)__builtin_ctzll(behind)]]);
}

/* The level of a price if it is in the window, for fetching ahead, or ZX_NONE. `side` may be anything. */
static inline uint32_t book_guess_level(const book *self, uint32_t side, int64_t price_ticks) {
    const book_side *const its = &self->sides[side & 1];
    const int64_t rank = book_rank_of(side & 1, price_ticks);
    if (!book_window_covers(its, rank)) return ZX_NONE;
    const uint32_t level = its->entries[book_window_entry(its, rank)];
    return level != 0 ? level : ZX_NONE;
}

/* The next level of the same side behind this one, which has orders, or ZX_NONE. */
uint32_t book_worse_level(const book *self, uint32_t level);

/* All that is open in a level, shown or not. */
uint64_t book_open_lots(const book_pool *pool, uint32_t level);

static inline uint8_t book_side_of(const book_pool *pool, const book_order *order) {
    return (uint8_t)pool->levels[order->level].side;
}

static inline int64_t book_level_price(const book_level *level) {
    return book_rank_of(level->side, level->rank); /* the other way is the same */
}

static inline int64_t book_price_of(const book_pool *pool, const book_order *order) {
    return book_level_price(&pool->levels[order->level]);
}

static inline uint32_t book_market_of(const book_pool *pool, const book_order *order) {
    return pool->levels[order->level].market;
}

/* Walks every invariant of the book. Returns NULL, or a sentence about the first that does not hold. `orders`
 * is increased by the number of orders found. */
const char *book_check(const book *self, uint32_t *orders);

/* The same but for the first: of a book whose sides have nothing to do with each other. */
const char *book_check_queues(const book *self, uint32_t *orders);

/* Walks what is free in a pool: what is not is reached from its books. NULL, or a sentence about what does not hold. */
const char *book_pool_check(const book_pool *self);

#endif
