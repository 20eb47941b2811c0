#include "queues.h"

void queues_tell(const book_pool *pool, uint32_t slot, uint32_t level, uint32_t prev, uint32_t next) {
    book_before_order(pool, slot);
    book_before_level(pool, level);
    book_before_order(pool, prev);
    book_before_order(pool, next);
}

void queues_veil(book_level *level, const book_order *order, uint32_t slot) {
    level->is_veiled = 1;
    if (order->flags & BOOK_HIDDEN && level->hidden_count++ == 0) level->hidden_head = slot;
}

void queues_unveil(book_level *level, const book_order *order, uint32_t slot) {
    level->is_veiled = level->order_count > 0;
    if (!(order->flags & BOOK_HIDDEN)) return;
    level->hidden_count--;
    if (level->hidden_head == slot) level->hidden_head = order->next;
}

void queues_show_next_slice(book *self, uint32_t slot) {
    const book_pool *const pool = self->pool;
    const book_order *const order = &pool->orders[slot];
    if (pool->terms[slot].shown_lots > 0) return;
    const uint32_t side = book_side_of(pool, order);
    const int64_t price_ticks = book_price_of(pool, order);
    book_unlink(self, slot);
    const bool rested = book_rest(self, slot, side, price_ticks);
    ZX_ASSERT(rested); /* it showed more before */
}
