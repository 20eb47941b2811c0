/*
 * match.h: an incoming order trades with what rests.
 *
 * The body of book_match() (book.h says what it does), compiled into its callers: one that gives a constant listener has no
 * calls left in the loop.
 */
#ifndef ZX_MATCH_H
#define ZX_MATCH_H

#include "queues.h"

static inline bool match_is_overdue(const book_pool *pool, uint32_t slot, uint64_t now_ns) {
    return pool->orders[slot].flags & BOOK_TIMED && pool->terms[slot].expire_time_ns <= now_ns;
}

static inline bool match_is_same_owner(const book_incoming *incoming, const book_order *maker) {
    if (maker->owner == incoming->owner) return true;
    if (__builtin_expect(incoming->groups == NULL, 1)) return false;
    const uint32_t group = incoming->groups[incoming->owner];
    return group != 0 && group == incoming->groups[maker->owner];
}

/* `is_plain`: a constant of the caller, as in queues.h; of `incoming` it also says that there are neither groups nor a limit on
 * the makers. */
ZX_INLINE enum book_match_end match(book *self, book_incoming *incoming, const book_listener *listener, bool is_plain) {
    book_pool *const pool = self->pool;
    const uint8_t other = incoming->side ^ 1;
    const int64_t rank_max = book_rank_of(other, incoming->price_ticks);
    const book_side *const its = &self->sides[other];
    if (incoming->leaves_lots == 0) return BOOK_DONE;
    int64_t rank = its->best_rank;
    uint32_t index = its->best;
    while (rank <= rank_max) {
        const uint32_t slot = pool->levels[index].next;
        book_order *const maker = &pool->orders[slot];
        uint64_t tradable_lots = maker->leaves_lots;
        if (is_plain) {
            if (__builtin_expect(maker->owner == incoming->owner, 0)) return BOOK_OWN_ORDER;
        } else {
            const bool is_timed = maker->flags & BOOK_TIMED;
            if (__builtin_expect(is_timed, 0) && match_is_overdue(pool, slot, incoming->now_ns)) return BOOK_OVERDUE;
            if (match_is_same_owner(incoming, maker)) return BOOK_OWN_ORDER;
            if (incoming->makers_used == incoming->makers_max) return BOOK_MAKERS_USED;
            tradable_lots = book_tradable_lots(pool, slot);
        }
        const int64_t price_ticks = book_rank_of(other, rank);
        uint64_t fill_lots = incoming->leaves_lots < tradable_lots ? incoming->leaves_lots : tradable_lots;
        if (__builtin_expect(listener->lots_max != NULL, 0)) {
            const uint64_t lots_max = listener->lots_max(listener->context, price_ticks);
            if (lots_max == 0) return BOOK_NO_LOT;
            if (fill_lots > lots_max) fill_lots = lots_max;
        }
        if (!is_plain) incoming->makers_used++;
        incoming->leaves_lots -= fill_lots;
        queues_take_lots(pool, slot, index, fill_lots, is_plain);
        listener->on_fill(listener->context, slot, price_ticks, fill_lots);
        bool is_best_other = !is_plain; /* icebergs, and what a listener takes away, may have made it another */
        /* Asked twice, for what is left of the maker says nearly always what is left of the incoming order. */
        if (maker->leaves_lots > 0) {
            if (!is_plain && __builtin_expect(maker->flags & BOOK_ICEBERG, 0)) queues_show_next_slice(self, slot);
            if (incoming->leaves_lots == 0) return BOOK_DONE;
        } else {
            is_best_other |= queues_drop_filled(self, other, index, slot, is_plain);
            if (incoming->leaves_lots == 0) return BOOK_DONE;
        }
        if (is_best_other) {
            rank = its->best_rank;
            index = its->best;
        }
    }
    return BOOK_DONE;
}

#endif
