/*
 * ready.h: makes the memory of a shard ready before it is needed.
 *
 *      arena    [ orders ████░░░░░░ | levels ████░░░░░ | maps ██████ | ... ]     █ touched, on huge pages    ░ when first used
 *
 * The arena is given by the kernel a page at a time as it is touched. A page that is not there yet keeps an order waiting,
 * and tables of many small pages are slow to be found in. So whoever serves orders touches beforehand what so many of them
 * need, and asks for huge pages where that is. What lies beyond stays as it was: a huge page that is first touched under load
 * would keep all orders waiting while the kernel clears it and perhaps makes room.
 *
 * Nothing that is answered depends on it.
 */
#ifndef ZX_READY_H
#define ZX_READY_H

#include "engine.h"

/* For so many open orders, at most as many as the shard takes. Maps, which are used all over from the first entry on, are
 * made ready if they are for no more than READY_MAP_TIMES as many; of the places of ids the next 2 * orders are. Takes as long
 * as the kernel needs to clear the memory, 0.1 s for a gigabyte: about a kilobyte for each order, less near the limits. Nobody
 * else may use the engine meanwhile. */
#define READY_MAP_TIMES 4u
void ready_make(const engine *self, uint32_t orders);

#endif
