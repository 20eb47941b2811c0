/*
 * ahead.h: fetches into the cache what the next commands of a batch will need, before they are applied.
 *
 *     command      i      i+1     i+2     i+3     i+4     i+5
 *               applied  pass 5  pass 4  pass 3  pass 2  pass 1
 *
 *     pass 1    entries of the maps in which market and order are found
 *     pass 2    the market; the order that is named
 *     pass 3    where the window or the tree tells of the level of the price; the best levels; level and neighbours of the order,
 *               in its queue and in all lists
 *     pass 4    the level of the price; or the first order of the best level of the other side, and where that level is found
 *     pass 5    what is behind those: the last order of the level; or by what the maker is found, its neighbours in all lists,
 *               and the level behind its own
 *
 * A shard with many markets or orders does not fit into any cache, and a command waits for memory about twenty times. The
 * batch says what comes: each pass asks for one step of the way of one command, and what it asked for arrives while others are
 * applied. Nothing is decided here and nothing changes; a guess that turns out wrong costs a line of cache. Small shards are left
 * alone: for them it would only be work.
 */
#ifndef ZX_AHEAD_H
#define ZX_AHEAD_H

#include "engine.h"

#define AHEAD_GAP 1u   /* commands between two passes: more were not faster */
#define AHEAD_DEPTH 8u /* commands in work, a power of two: more than all gaps together */

#ifndef AHEAD_MARKETS /* tests build with 0: always */
#define AHEAD_MARKETS 256u
#endif

/* What is known of one command so far. */
typedef struct ahead_guess {
    struct zx_command command;
    const engine_market *market; /* or NULL */
    uint32_t slot;               /* of the order that it names, or ZX_NONE */
    uint32_t maker;              /* slot of the order that a new one would meet first, or ZX_NONE */
    uint32_t level;              /* where a new one would rest, or ZX_NONE */
    uint8_t side;                /* enum book_side_index, of a new order */
    bool is_new;
} ahead_guess;

/* A batch on its way. */
typedef struct ahead {
    const engine *shard;
    const uint8_t *commands;
    uint32_t count;
    ahead_guess guesses[AHEAD_DEPTH]; /* by command modulo their number */
} ahead;

/* Whether it pays. */
static inline bool ahead_pays(const engine *self) {
    return self->market_count > AHEAD_MARKETS || self->by_id.count > 16384;
}

/* Before the first of `count` commands, of ZX_COMMAND_BLOCK_LENGTH bytes each, is applied. */
void ahead_begin(ahead *self, const engine *shard, const uint8_t *commands, uint32_t count);

/* Before command `index`, each of them in turn, is applied. */
void ahead_go_on(ahead *self, uint32_t index);

#endif
