/*
 * ahead.h: fetches into the cache what the next commands of a batch will need, while this one is applied.
 *
 *     command i     is applied
 *     command i+2   its market's best levels' first orders
 *     command i+4   the best levels of its market; level and neighbours of the order that it names
 *     command i+8   its market; the order that it names
 *     command i+12  entries of the maps in which those are found
 *
 * A shard with many markets or orders does not fit into any cache, and a command waits for memory about ten times. The
 * batch says what comes: asked for early, the waits overlap. Nothing is decided here and nothing changes; a guess that
 * turns out wrong costs a line of cache. Small shards are left alone: for them it would only be work.
 */
#ifndef ZX_AHEAD_H
#define ZX_AHEAD_H

#include "engine.h"

/* Whether it pays. */
static inline bool ahead_pays(const engine *self) {
    return self->market_count > 256 || self->by_id.count > 16384;
}

/* Before command `index` of `count`, of ZX_COMMAND_BLOCK_LENGTH bytes each, is applied. */
void ahead_fetch(const engine *self, const uint8_t *commands, uint32_t index, uint32_t count);

#endif
