/*
 * ahead.h: fetches into the cache what the next commands of a batch will need, before they are applied.
 *
 *     pass 1    entries of the maps in which market and order are found
 *     pass 2    the market; the order that is named
 *     pass 3    where the window tells of the level of the price; the best levels; level and neighbours of the order
 *     pass 4    the level of the price; the first order of the best level of the other side
 *     pass 5    what is behind those: the last order of the level; by what the maker is found
 *
 * A shard with many markets or orders does not fit into any cache, and a command waits for memory about twenty times. The
 * batch says what comes: each pass asks for one step of the way for all commands of a block, so that they wait together. Nothing is
 * decided here and nothing changes; a guess that turns out wrong costs a line of cache. Small shards are left alone:
 * for them it would only be work.
 */
#ifndef ZX_AHEAD_H
#define ZX_AHEAD_H

#include "engine.h"

#define AHEAD_BLOCK 16u /* commands; what they need fits into the cache next to the processor */

#ifndef AHEAD_MARKETS /* tests build with 0: always */
#define AHEAD_MARKETS 256u
#endif

/* Whether it pays. */
static inline bool ahead_pays(const engine *self) {
    return self->market_count > AHEAD_MARKETS || self->by_id.count > 16384;
}

/* Before `count` commands, at most AHEAD_BLOCK, of ZX_COMMAND_BLOCK_LENGTH bytes each, are applied. */
void ahead_fetch(const engine *self, const uint8_t *commands, uint32_t count);

#endif
