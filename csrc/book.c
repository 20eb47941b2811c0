#include "book.h"

#include "match.h"

/* Ranks that each window covers if there are so many on a side. */
static uint32_t window_size(uint32_t windows) {
    uint32_t size = BOOK_WINDOW_MAX;
    while (size >= BOOK_WINDOW_MIN && (uint64_t)size * windows > BOOK_WINDOWS_TOTAL) size /= 2;
    return size >= BOOK_WINDOW_MIN ? size : 0;
}

book_pool_plan book_pool_reserve(arena *memory, const book_limits *limits) {
    const uint32_t capacity = limits->orders;
    const uint32_t size = limits->windowed > 0 ? window_size(limits->windowed) : 0;
    book_pool_plan plan = {
        .capacity = capacity,
        .level_count = capacity + 2 * limits->windowed * size,
        .far_nodes = ranks_nodes(capacity, 2 * limits->books),
        .window_size = size,
        .any_slot = limits->any_slot,
    };
    plan.orders = arena_reserve(memory, capacity, sizeof(book_order));
    plan.levels = arena_reserve(memory, plan.level_count, sizeof(book_level));
    ZX_ASSERT(plan.levels == plan.orders + (size_t)capacity * sizeof(book_order));
    plan.terms = arena_reserve(memory, capacity, sizeof(book_terms));
    plan.free_levels = arena_reserve(memory, plan.level_count, sizeof(uint32_t));
    if (plan.any_slot) plan.free_slots = arena_reserve(memory, capacity, sizeof(uint32_t));
    else plan.words = arena_reserve(memory, slots_words(capacity), sizeof(uint64_t));
    plan.far = arena_reserve(memory, plan.far_nodes, sizeof(ranks_node));
    plan.windows = arena_reserve(memory, 2 * (size_t)limits->windowed, book_window_bytes(size));
    return plan;
}

void book_pool_init(book_pool *self, const book_pool_plan *plan, const arena *memory) {
    *self = (book_pool){
        .orders = arena_at(memory, plan->orders),
        .levels = arena_at(memory, plan->orders),
        .terms = arena_at(memory, plan->terms),
        .next_priority_no = 1,
        .capacity = plan->capacity,
        .levels_end = plan->capacity + plan->level_count,
        .windows = arena_at(memory, plan->windows),
        .window_size = plan->window_size,
    };
    spares_init(&self->free_levels, plan->capacity, plan->level_count, arena_at(memory, plan->free_levels));
    if (plan->any_slot) spares_init(&self->free_slots, 0, plan->capacity, arena_at(memory, plan->free_slots));
    else slots_init(&self->taken, plan->capacity, arena_at(memory, plan->words));
    ranks_pool_init(&self->far, plan->far_nodes, arena_at(memory, plan->far));
}

void book_pool_tell(book_pool *self, undo *told) {
    self->undo = told;
    self->free_levels.undo = told;
    self->free_slots.undo = told;
    self->taken.undo = told;
    self->far.undo = told;
}

void book_init(book *self, book_pool *pool, uint32_t market) {
    *self = (book){.pool = pool, .market = market};
    for (uint32_t side = 0; side < 2; side++) {
        self->sides[side] = (book_side){.best_rank = BOOK_NO_RANK, .best = ZX_NONE};
        ranks_init(&self->sides[side].far);
    }
}

void book_use_windows(book *self, uint32_t number) {
    const uint32_t size = self->pool->window_size;
    if (size == 0) return;
    for (uint32_t side = 0; side < 2; side++) {
        uint8_t *const at = self->pool->windows + (2 * (size_t)number + side) * book_window_bytes(size);
        self->sides[side].size = size;
        self->sides[side].words = (uint64_t *)(void *)at;
        self->sides[side].entries = (uint32_t *)(void *)(at + size / 8);
    }
}

/* ------------------------------------------------------------ operations */

static void clear_order(book_pool *pool, uint32_t slot) {
    book_before_order(pool, slot);
    pool->orders[slot].level = ZX_NONE;
    pool->orders[slot].owner_and_flags = 0;
}

uint32_t book_take_free_slot(book_pool *pool) {
    const bool takes_any = pool->free_slots.numbers != NULL;
    const uint32_t slot = takes_any ? spares_take(&pool->free_slots) : slots_take_lowest(&pool->taken);
    clear_order(pool, slot);
    return slot;
}

void book_take_slot(book_pool *pool, uint32_t slot) {
    slots_take(&pool->taken, slot);
    clear_order(pool, slot);
}

ZX_INLINE bool restore(book *self, uint32_t slot, uint32_t side, int64_t price_ticks) {
    const book_order *const order = &self->pool->orders[slot];
    const uint32_t flags = order->flags & (BOOK_ICEBERG | BOOK_HIDDEN);
    ZX_ASSERT(order->level == ZX_NONE && order->leaves_lots - 1 < order->qty_lots && price_ticks > 0);
    return queues_put(self, slot, side, price_ticks, queues_visible_lots(self->pool, slot), flags, false);
}

bool book_restore(book *self, uint32_t slot, uint32_t side, int64_t price_ticks) {
    return restore(self, slot, side, price_ticks);
}

static void show_slice(book_pool *pool, uint32_t slot) {
    book_terms *const terms = &pool->terms[slot];
    const uint64_t leaves_lots = pool->orders[slot].leaves_lots;
    book_before_terms(pool, slot);
    terms->shown_lots = terms->display_lots < leaves_lots ? terms->display_lots : leaves_lots;
}

bool book_rest(book *self, uint32_t slot, uint32_t side, int64_t price_ticks) {
    book_pool *const pool = self->pool;
    if (__builtin_expect(pool->orders[slot].flags & BOOK_ICEBERG, 0)) show_slice(pool, slot);
    if (!restore(self, slot, side, price_ticks)) return false;
    pool->orders[slot].priority_no = pool->next_priority_no++;
    return true;
}

void book_unlink(book *self, uint32_t slot) {
    queues_take(self, slot, queues_visible_lots(self->pool, slot), false);
}

void book_free_slot(book_pool *pool, uint32_t slot) {
    ZX_ASSERT(pool->orders[slot].level == ZX_NONE);
    queues_free_slot(pool, slot);
}

void book_remove(book *self, uint32_t slot) {
    queues_take(self, slot, queues_visible_lots(self->pool, slot), false);
    queues_free_slot(self->pool, slot);
}

void book_resize(book *self, uint32_t slot, uint64_t qty_lots) {
    book_pool *const pool = self->pool;
    book_order *const order = &pool->orders[slot];
    book_level *const level = &pool->levels[order->level];
    const uint64_t filled_lots = order->qty_lots - order->leaves_lots;
    ZX_ASSERT(qty_lots > filled_lots);
    queues_tell_lots(pool, slot);
    level->total_lots -= queues_visible_lots(pool, slot);
    order->leaves_lots = qty_lots - filled_lots;
    order->qty_lots = qty_lots;
    if (order->flags & BOOK_ICEBERG && pool->terms[slot].shown_lots > order->leaves_lots) {
        pool->terms[slot].shown_lots = order->leaves_lots;
    }
    const bool overflows = __builtin_add_overflow(level->total_lots, queues_visible_lots(pool, slot), &level->total_lots);
    ZX_ASSERT(!overflows);
}

uint64_t book_open_lots(const book_pool *pool, uint32_t level) {
    if (!pool->levels[level].is_veiled) return pool->levels[level].total_lots;
    uint64_t lots = 0;
    for (uint32_t slot = pool->levels[level].next; book_is_order(pool, slot); slot = pool->orders[slot].next) {
        lots += pool->orders[slot].leaves_lots;
    }
    return lots;
}

/* How far an order that is looked at would come. */
typedef struct reach {
    const book *book;
    const book_incoming *incoming;
    const book_pairs *pairs; /* or NULL */
    uint64_t wanted_lots;
    uint64_t reached_lots;
    uint32_t makers;
    uint32_t iceberg_count;
    uint32_t icebergs[BOOK_REACH_MAX];  /* slots of those in the level that have a slice to come */
    uint64_t rest_lots[BOOK_REACH_MAX]; /* what they have behind the slices looked at */
    bool passes_own;
} reach;

/* Fills `lots` more of what is wanted, with one maker more. Returns false if the search is over. */
static bool reach_lots(reach *self, uint64_t lots) {
    if (self->makers == self->incoming->makers_max) return false;
    self->makers++;
    const uint64_t missing_lots = self->wanted_lots - self->reached_lots;
    self->reached_lots += lots < missing_lots ? lots : missing_lots;
    return self->reached_lots < self->wanted_lots;
}

/* Whether an order is gone when the search comes to it: the other of its pair is before it, and took it away. */
static bool is_taken_away(const reach *self, uint32_t slot) {
    const book_pool *const pool = self->book->pool;
    const book_pairs *const pairs = self->pairs;
    const book_order *const order = &pool->orders[slot];
    if (__builtin_expect(pairs == NULL || !(order->flags & pairs->flag), 1)) return false;
    const uint32_t other_slot = pairs->other_of(pairs->context, slot);
    if (other_slot == ZX_NONE) return false;
    const book_order *const other = &pool->orders[other_slot];
    const int64_t rank = pool->levels[order->level].rank;
    const int64_t other_rank = pool->levels[other->level].rank;
    if (rank != other_rank) return other_rank < rank;
    const bool is_hidden = (order->flags & BOOK_HIDDEN) != 0;
    const bool is_other_hidden = (other->flags & BOOK_HIDDEN) != 0;
    if (is_hidden != is_other_hidden) return is_hidden;
    return other->priority_no < order->priority_no;
}

/* Looks at the resting orders from `slot` up to `end`: another, or the level. */
static bool reach_queue(reach *self, uint32_t slot, uint32_t end) {
    const book_pool *const pool = self->book->pool;
    for (; slot != end; slot = pool->orders[slot].next) {
        const book_order *const maker = &pool->orders[slot];
        if (is_taken_away(self, slot)) continue;
        bool passes_over = match_is_overdue(pool, slot, self->incoming->now_ns);
        if (!passes_over && match_is_same_owner(self->incoming, maker)) {
            if (!self->passes_own) return false;
            passes_over = true;
        }
        const uint64_t lots = passes_over ? 0 : book_tradable_lots(pool, slot);
        if (!reach_lots(self, lots)) return false;
        if (lots > 0 && maker->leaves_lots > lots) {
            ZX_ASSERT(self->iceberg_count < BOOK_REACH_MAX);
            self->icebergs[self->iceberg_count] = slot;
            self->rest_lots[self->iceberg_count++] = maker->leaves_lots - lots;
        }
    }
    return true;
}

/* Looks at the slices to come, in the order in which the icebergs would show them. */
static bool reach_slices(reach *self) {
    while (self->iceberg_count > 0) {
        uint32_t kept = 0;
        for (uint32_t at = 0; at < self->iceberg_count; at++) {
            const uint64_t display_lots = self->book->pool->terms[self->icebergs[at]].display_lots;
            const uint64_t lots = display_lots < self->rest_lots[at] ? display_lots : self->rest_lots[at];
            if (!reach_lots(self, lots)) return false;
            if (self->rest_lots[at] == lots) continue;
            self->icebergs[kept] = self->icebergs[at];
            self->rest_lots[kept++] = self->rest_lots[at] - lots;
        }
        self->iceberg_count = kept;
    }
    return true;
}

uint64_t book_reachable(
    const book *self, const book_incoming *incoming, uint64_t wanted_lots, bool passes_own, const book_pairs *pairs
) {
    if (wanted_lots == 0) return 0;
    const book_level *const levels = self->pool->levels;
    const uint8_t other = incoming->side ^ 1;
    const int64_t rank_max = book_rank_of(other, incoming->price_ticks);
    reach found;
    found.book = self;
    found.incoming = incoming;
    found.pairs = pairs;
    found.wanted_lots = wanted_lots;
    found.reached_lots = 0;
    found.makers = 0;
    found.passes_own = passes_own;
    for (uint32_t at = self->sides[other].best; at != ZX_NONE && levels[at].rank <= rank_max;
         at = book_worse_level(self, at)) {
        found.iceberg_count = 0;
        const uint32_t hidden = levels[at].hidden_count > 0 ? levels[at].hidden_head : at;
        if (!reach_queue(&found, levels[at].next, hidden) || !reach_slices(&found) || !reach_queue(&found, hidden, at)) {
            break;
        }
    }
    return found.reached_lots;
}

void book_fill(book *self, uint32_t slot, uint64_t qty_lots) {
    const uint64_t tradable_lots = book_tradable_lots(self->pool, slot);
    const uint64_t shown_lots = qty_lots < tradable_lots ? qty_lots : tradable_lots;
    ZX_ASSERT(qty_lots > 0 && qty_lots <= self->pool->orders[slot].leaves_lots);
    queues_take_lots(self->pool, slot, self->pool->orders[slot].level, shown_lots, false);
    book_order *const order = &self->pool->orders[slot];
    order->leaves_lots -= qty_lots - shown_lots;
    if (order->leaves_lots == 0) book_remove(self, slot);
    else if (order->flags & BOOK_ICEBERG) queues_show_next_slice(self, slot);
}

enum book_match_end book_match(book *self, book_incoming *incoming, const book_listener *listener) {
    return match(self, incoming, listener, false);
}

/* ------------------------------------------------------------ check */

static const char *check_queue(const book_pool *pool, uint32_t index) {
    const book_level *const level = &pool->levels[index];
    zx_u128 total_lots = 0;
    uint32_t order_count = 0;
    uint32_t hidden_count = 0;
    uint32_t prev = index;
    for (uint32_t slot = level->next; slot != index; slot = pool->orders[slot].next) {
        if (!book_is_order(pool, slot)) return "a queue leads to another level";
        const book_order *const order = &pool->orders[slot];
        const bool is_taken = pool->free_slots.numbers != NULL || slots_is_taken(&pool->taken, slot);
        if (!is_taken) return "the slot of a resting order is free";
        if (order->level != index || order->prev != prev) return "a queue's links do not agree";
        if (order->leaves_lots == 0 || order->leaves_lots > order->qty_lots) {
            return "an order's leaves are out of range";
        }
        const bool is_hidden = (order->flags & BOOK_HIDDEN) != 0;
        if (is_hidden && hidden_count++ == 0 && level->hidden_head != slot) {
            return "a level does not know its first hidden order";
        }
        if (!is_hidden && hidden_count > 0) return "a shown order is behind a hidden one";
        if (order_count > 0 && ((pool->orders[prev].flags & BOOK_HIDDEN) != 0) == is_hidden &&
            pool->orders[prev].priority_no >= order->priority_no) {
            return "a queue is not sorted by priority";
        }
        if (order->flags & BOOK_ICEBERG) {
            const book_terms *const terms = &pool->terms[slot];
            if (is_hidden || terms->shown_lots == 0 || terms->shown_lots > order->leaves_lots ||
                terms->shown_lots > terms->display_lots) {
                return "an iceberg shows too much or nothing";
            }
        }
        total_lots += queues_visible_lots(pool, slot);
        prev = slot;
        if (++order_count > level->order_count) return "a queue is longer than its level says";
    }
    if (level->prev != prev || order_count != level->order_count) return "a queue's end or length is wrong";
    if (hidden_count != level->hidden_count) return "a level's hidden orders are miscounted";
    if (total_lots != level->total_lots) return "a level's total is wrong";
    return NULL;
}

const char *book_check_queues(const book *self, uint32_t *orders) {
    const book_level *const levels = self->pool->levels;
    for (uint8_t side = 0; side < 2; side++) {
        const char *broken = levels_check(self, side);
        if (broken != NULL) return broken;
        for (uint32_t at = self->sides[side].best; at != ZX_NONE; at = book_worse_level(self, at)) {
            const book_level *const level = &levels[at];
            if (level->order_count == 0) return "a level is empty";
            broken = check_queue(self->pool, at);
            if (broken != NULL) return broken;
            *orders += level->order_count;
        }
    }
    return NULL;
}

const char *book_check(const book *self, uint32_t *orders) {
    const book_level *const levels = self->pool->levels;
    const char *const broken = book_check_queues(self, orders);
    if (broken != NULL) return broken;
    const uint32_t bid = self->sides[BOOK_BUY].best;
    const uint32_t ask = self->sides[BOOK_SELL].best;
    if (bid != ZX_NONE && ask != ZX_NONE &&
        book_level_price(&levels[bid]) >= book_level_price(&levels[ask])) {
        return "the book is crossed";
    }
    return NULL;
}

/* Whether what is free of so many numbers is among the spare ones, each once. */
static bool are_spare(const spares *all, uint64_t free_sum, uint32_t free_count) {
    for (uint32_t at = all->used; at < all->ready; at++) free_sum -= all->numbers[at];
    return free_count == all->ready - all->used && free_sum == 0;
}

const char *book_pool_check(const book_pool *self) {
    const spares *const levels = &self->free_levels;
    if (levels->used > levels->ready || levels->ready > levels->capacity) return "more levels are used than are ready";
    uint64_t free_sum = 0; /* of numbers, so that none is spare twice and another never */
    uint32_t free_count = 0;
    for (uint32_t index = levels->first; index < levels->first + levels->ready; index++) {
        const book_level *const level = &self->levels[index];
        if (level->order_count > 0) continue;
        if (level->next != index || level->prev != index || level->total_lots != 0 || level->hidden_count != 0 ||
            level->is_veiled) {
            return "a level without orders is not empty";
        }
        if (level->rank != BOOK_NO_RANK) continue;
        if (level->word != NULL || level->bit != 0) return "a free level has a bit";
        free_sum += index;
        free_count++;
    }
    if (!are_spare(levels, free_sum, free_count)) return "a free level is not spare";
    const spares *const free_slots = &self->free_slots;
    if (free_slots->used > free_slots->ready || free_slots->ready > free_slots->capacity) {
        return "more slots are used than are ready";
    }
    free_sum = free_count = 0;
    for (uint32_t slot = 0; slot < free_slots->ready; slot++) {
        if (self->orders[slot].level != ZX_NONE) continue;
        free_sum += slot;
        free_count++;
    }
    if (!are_spare(free_slots, free_sum, free_count)) return "a free slot is not spare";
    return ranks_pool_check(&self->far);
}
