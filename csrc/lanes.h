/*
 * lanes.h: the open orders of each account by market and side, oldest first.
 *
 *     (account, every market, side)    o-o-o-o-o-o-o    every order is in two lanes: the one of all markets,
 *     (account, market, side)          o-o-o-o          and its market's
 *
 * Cancel all names orders by account, market and side, each of the two last perhaps left open. With lanes it
 * comes to the orders it means without passing the account's others, and knows how many there are: what it
 * costs depends on what it cancels, never on how many orders the account has.
 *
 * Lanes hold orders by their slot; the caller adds them in ascending order of order id, so lanes are sorted. The
 * two lanes of all markets have their place by account; a lane of a market exists while it has orders and is
 * found by a map. There is room for every order being alone in its lane.
 *
 * Cost: everything O(1), with a map lookup to add an order and to find the lane of a market. Nothing allocates.
 * Not thread safe.
 */
#ifndef ZX_LANES_H
#define ZX_LANES_H

#include "arena.h"
#include "base.h"
#include "book.h"
#include "idmap.h"

#define LANES_EVERY_MARKET UINT32_MAX
#define LANES_PER_ORDER 2u

typedef struct lane {
    uint32_t account;
    uint32_t market; /* index of the book, or LANES_EVERY_MARKET */
    uint32_t side;   /* enum book_side_index */
    uint32_t count;  /* orders; while it is 0, all else is meaningless */
    uint32_t head;   /* slot of the oldest order; in a lane given back: the next such lane, or ZX_NONE */
    uint32_t tail;   /* slot of the newest order */
} lane;

_Static_assert(sizeof(lane) == 24, "no padding");

typedef struct lane_link {
    uint32_t lane; /* index of the lane */
    uint32_t next; /* slot of the next order in it, or ZX_NONE */
    uint32_t prev; /* slot of the order before, or ZX_NONE */
} lane_link;

_Static_assert(sizeof(lane_link) == 12, "no padding");

typedef struct lanes {
    lane *pool;       /* two for each account, then one for each slot */
    lane_link *links; /* by slot: the lane of every market, then its market's */
    idmap map;        /* (account, market, side) to lane */
    uint64_t seed;    /* of the hashes */
    undo *undo;       /* told of changes, or NULL */
    uint32_t size;    /* of the pool */
    uint32_t free;    /* first of the lanes given back, or ZX_NONE */
    uint32_t fresh;   /* lanes from here on were never used */
    uint32_t reserved;
} lanes;

/* What lanes_reserve() reserved, for lanes_init(). */
typedef struct lanes_plan {
    size_t pool, links, entries; /* offsets in the arena */
    uint32_t accounts, orders;
} lanes_plan;

/* Account ids are below `accounts` and slots below `orders`, each 1 to 2^26. */
lanes_plan lanes_reserve(arena *memory, uint32_t accounts, uint32_t orders);
void lanes_init(lanes *self, const lanes_plan *plan, const arena *memory, uint64_t seed);

/* Adds an order, newer than all others of the account, to the end of its two lanes. */
void lanes_add(lanes *self, uint32_t slot, uint32_t account, uint32_t market, uint8_t side);

/* Takes an order out of its lanes. */
void lanes_remove(lanes *self, uint32_t slot);

/* The lane of an account's orders of one side, of a market or of LANES_EVERY_MARKET; NULL if there are none. */
const lane *lanes_find(const lanes *self, uint32_t account, uint32_t market, uint8_t side);

/* Slot of the order behind this one in the lane of its market or of LANES_EVERY_MARKET, or ZX_NONE. */
static inline uint32_t lanes_next(const lanes *self, uint32_t slot, uint32_t market) {
    return self->links[slot * LANES_PER_ORDER + (market != LANES_EVERY_MARKET)].next;
}

/* Fetches where the lane of a market's orders is found into the cache. */
void lanes_fetch(const lanes *self, uint32_t account, uint32_t market, uint8_t side);

/* And then the lane itself, as far as the map's first candidate tells. */
void lanes_fetch_guess(const lanes *self, uint32_t account, uint32_t market, uint8_t side);

/* Fetches the lane of an order's market, and its neighbours among the orders of every market. */
static inline void lanes_fetch_around(const lanes *self, uint32_t slot) {
    const lane_link *const links = &self->links[slot * LANES_PER_ORDER];
    zx_fetch(&self->pool[links[1].lane]);
    if (links[0].next != ZX_NONE) zx_fetch(&self->links[links[0].next * LANES_PER_ORDER]);
    if (links[0].prev != ZX_NONE) zx_fetch(&self->links[links[0].prev * LANES_PER_ORDER]);
}

/* Checks the place of one open order in its lanes; of the first order in a lane also the lane. Returns NULL, or a
 * sentence about what does not hold. `*found` is increased if a lane of a market begins with this order. */
const char *lanes_check(
    const lanes *self, const book_order *orders, uint32_t slot, uint32_t market, uint8_t side, uint32_t *found
);

#endif
