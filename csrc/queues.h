/*
 * queues.h: how orders come into the queues of a book and leave them.
 *
 *      level ─next─▶ oldest ─▶ ... ─▶ newest ─▶ the level again        and the same backwards
 *
 * What book.h does step by step, for those that do it for each command: book.c, match.h, lob.c. All of it is compiled into its
 * callers, which may say that their book `is_plain`, a constant: that it has no undo to be told, no orders with flags, and slots
 * of which any will do. What is rare, hidden orders, icebergs and undo, is in queues.c.
 *
 * Cost: O(1), and what levels.h says of the level. Nothing allocates. Not thread safe.
 */
#ifndef ZX_QUEUES_H
#define ZX_QUEUES_H

#include "book.h"
#include "levels.h"

/* To be called before an order is put between two others of a level, or taken from there, if there is an undo to be told. */
void queues_tell(const book_pool *pool, uint32_t slot, uint32_t level, uint32_t prev, uint32_t next);

/* An iceberg or a hidden order has come into a level. */
void queues_veil(book_level *level, const book_order *order, uint32_t slot);

/* An order has gone from a level in which there have been such. */
void queues_unveil(book_level *level, const book_order *order, uint32_t slot);

/* An iceberg of which what it showed is filled goes to the back of its queue with what it shows next. */
void queues_show_next_slice(book *self, uint32_t slot);

/* What a level's total counts of an order. */
static inline uint64_t queues_visible_lots(const book_pool *pool, uint32_t slot) {
    const book_order *const order = &pool->orders[slot];
    if (__builtin_expect((order->flags & (BOOK_ICEBERG | BOOK_HIDDEN)) == 0, 1)) return order->leaves_lots;
    return order->flags & BOOK_HIDDEN ? 0 : pool->terms[slot].shown_lots;
}

/* What follows an order or level, and what is before it. */
static inline uint32_t *queues_next(const book_pool *pool, uint32_t number) {
    return (uint32_t *)(void *)((uint8_t *)&pool->orders[number] + offsetof(book_order, next));
}

static inline uint32_t *queues_prev(const book_pool *pool, uint32_t number) {
    return (uint32_t *)(void *)((uint8_t *)&pool->orders[number] + offsetof(book_order, prev));
}

/* Puts an order with so many queues_visible_lots() at the back of its queue; `flags` are the order's that concern its place.
 * Returns false, with nothing changed, if the level's total would not fit in 64 bits. */
ZX_INLINE bool queues_put(
    book *self, uint32_t slot, uint32_t side, int64_t price_ticks, uint64_t lots, uint32_t flags, bool is_plain
) {
    book_pool *const pool = self->pool;
    book_order *const order = &pool->orders[slot];
    const uint32_t index = levels_enter(self, side, book_rank_of(side, price_ticks), is_plain);
    book_level *const level = &pool->levels[index];
    uint64_t total_lots;
    if (__builtin_add_overflow(level->total_lots, lots, &total_lots)) return false; /* one that was empty cannot get here */
    uint32_t next = index;
    if (!is_plain && __builtin_expect(level->hidden_count > 0, 0) && !(flags & BOOK_HIDDEN)) next = level->hidden_head;
    const uint32_t prev = *queues_prev(pool, next);
    if (!is_plain && __builtin_expect(pool->undo != NULL, 0)) queues_tell(pool, slot, index, prev, next);
    level->total_lots = total_lots;
    level->order_count++;
    order->level = index;
    order->next = next;
    order->prev = prev;
    *queues_next(pool, prev) = slot;
    *queues_prev(pool, next) = slot;
    if (__builtin_expect(flags != 0, 0)) queues_veil(level, order, slot);
    return true;
}

/* Frees a slot, of whichever kind they are. */
static inline void queues_free_slot(book_pool *pool, uint32_t slot) {
    if (pool->free_slots.numbers != NULL) spares_give(&pool->free_slots, slot, false);
    else slots_free(&pool->taken, slot);
}

/* Takes an order, of which its level shows so many lots, out of its queue. */
ZX_INLINE void queues_take(book *self, uint32_t slot, uint64_t lots, bool is_plain) {
    book_pool *const pool = self->pool;
    book_order *const order = &pool->orders[slot];
    const uint32_t index = order->level;
    ZX_ASSERT(index != ZX_NONE);
    book_level *const level = &pool->levels[index];
    const uint64_t total_lots = level->total_lots;
    const uint32_t order_count = level->order_count;
    const uint32_t prev = order->prev;
    const uint32_t next = order->next;
    ZX_ASSERT(total_lots >= lots && order_count > 0);
    if (!is_plain && __builtin_expect(pool->undo != NULL, 0)) queues_tell(pool, slot, index, prev, next);
    level->total_lots = total_lots - lots;
    level->order_count = order_count - 1;
    order->level = ZX_NONE;
    if (!is_plain && __builtin_expect(level->is_veiled, 0)) queues_unveil(level, order, slot);
    *queues_next(pool, prev) = next;
    *queues_prev(pool, next) = prev;
    levels_leave(self, index, order_count - 1, is_plain);
}

/* Before its open quantity changes while it rests. */
static inline void queues_tell_lots(const book_pool *pool, uint32_t slot) {
    if (__builtin_expect(pool->undo == NULL, 1)) return;
    book_before_order(pool, slot);
    book_before_terms(pool, slot);
    book_before_level(pool, pool->orders[slot].level);
}

/* An order that rests in this level gives so many of its tradable lots. */
ZX_INLINE void queues_take_lots(
    book_pool *pool, uint32_t slot, uint32_t level, uint64_t qty_lots, bool is_plain
) {
    book_order *const order = &pool->orders[slot];
    if (!is_plain) queues_tell_lots(pool, slot);
    order->leaves_lots -= qty_lots;
    if (is_plain || __builtin_expect(!(order->flags & BOOK_HIDDEN), 1)) pool->levels[level].total_lots -= qty_lots;
    if (!is_plain && __builtin_expect(order->flags & BOOK_ICEBERG, 0)) pool->terms[slot].shown_lots -= qty_lots;
}

/* A filled order, the first of the best level of a side, is gone; its level does not count its lots any more. Returns whether
 * another level is the best now. */
ZX_INLINE bool queues_drop_filled(book *self, uint32_t side, uint32_t index, uint32_t slot, bool is_plain) {
    book_pool *const pool = self->pool;
    book_order *const order = &pool->orders[slot];
    book_level *const level = &pool->levels[index];
    const uint32_t next = order->next;
    ZX_ASSERT(order->level == index && level->order_count > 0);
    if (!is_plain && __builtin_expect(pool->undo != NULL, 0)) queues_tell(pool, slot, index, index, next);
    order->level = ZX_NONE;
    level->next = next;
    *queues_prev(pool, next) = index;
    level->order_count--;
    if (!is_plain && __builtin_expect(level->is_veiled, 0)) queues_unveil(level, order, slot);
    if (is_plain) spares_give(&pool->free_slots, slot, true);
    else queues_free_slot(pool, slot);
    if (level->order_count > 0) return false;
    levels_leave_best(self, side, is_plain);
    return true;
}

#endif
