#include "book.h"

#include "levels.h"

book_pool_plan book_pool_reserve(arena *memory, uint32_t capacity, uint32_t books) {
    const uint32_t far_nodes = ranks_nodes(capacity, 2 * books);
    const size_t orders = arena_reserve(memory, capacity, sizeof(book_order));
    const size_t levels = arena_reserve(memory, capacity, sizeof(book_level));
    ZX_ASSERT(levels == orders + (size_t)capacity * sizeof(book_order));
    return (book_pool_plan){
        .orders = orders,
        .levels = levels,
        .terms = arena_reserve(memory, capacity, sizeof(book_terms)),
        .spare = arena_reserve(memory, (size_t)capacity + 1, sizeof(uint32_t)), /* the last is looked at, and not taken */
        .words = arena_reserve(memory, slots_words(capacity), sizeof(uint64_t)),
        .far = arena_reserve(memory, far_nodes, sizeof(ranks_node)),
        .capacity = capacity,
        .far_nodes = far_nodes,
    };
}

void book_pool_init(book_pool *self, const book_pool_plan *plan, const arena *memory) {
    *self = (book_pool){
        .orders = arena_at(memory, plan->orders),
        .levels = arena_at(memory, plan->levels),
        .terms = arena_at(memory, plan->terms),
        .spare = arena_at(memory, plan->spare),
        .next_priority_no = 1,
    };
    slots_init(&self->taken, plan->capacity, arena_at(memory, plan->words));
    ranks_pool_init(&self->far, plan->far_nodes, arena_at(memory, plan->far));
}

void book_pool_tell(book_pool *self, undo *told) {
    self->undo = told;
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

uint32_t book_window_size(uint32_t books) {
    uint32_t size = BOOK_WINDOW_MAX;
    while (size >= BOOK_WINDOW_MIN && (uint64_t)size * books > BOOK_WINDOWS_TOTAL) size /= 2;
    return size >= BOOK_WINDOW_MIN ? size : 0;
}

size_t book_windows_reserve(arena *memory, uint32_t books) {
    const size_t size = book_window_size(books);
    return arena_reserve(memory, 2u * (size_t)books, size * sizeof(uint32_t) + size / 8);
}

void book_use_windows(book *self, const arena *memory, size_t windows, uint32_t books, uint32_t number) {
    const uint32_t size = book_window_size(books);
    if (size == 0) return;
    const size_t bytes = size * sizeof(uint32_t) + size / 8;
    for (uint32_t side = 0; side < 2; side++) {
        uint8_t *const at = (uint8_t *)arena_at(memory, windows) + (2u * (size_t)number + side) * bytes;
        self->sides[side].size = size;
        self->sides[side].words = (uint64_t *)(void *)at;
        self->sides[side].entries = (uint32_t *)(void *)(at + size / 8);
    }
}

/* ------------------------------------------------------------ operations */

uint32_t book_lowest_free_slot(const book_pool *pool) {
    return slots_lowest_free(&pool->taken);
}

void book_take_slot(book_pool *pool, uint32_t slot) {
    slots_take(&pool->taken, slot);
    book_before_order(pool, slot);
    pool->orders[slot].level = ZX_NONE;
    pool->orders[slot].flags = 0;
}

/* What a level's total counts of an order. */
static inline uint64_t visible_lots(const book_pool *pool, uint32_t slot) {
    const book_order *const order = &pool->orders[slot];
    if (__builtin_expect((order->flags & (BOOK_ICEBERG | BOOK_HIDDEN)) == 0, 1)) return order->leaves_lots;
    return order->flags & BOOK_HIDDEN ? 0 : pool->terms[slot].shown_lots;
}

/* What follows the order or level of a link, and what is before it. */
static inline uint32_t *next_of(const book_pool *pool, uint32_t link) {
    return (uint32_t *)(void *)((uint8_t *)&pool->orders[link] + offsetof(book_order, next));
}

static inline uint32_t *prev_of(const book_pool *pool, uint32_t link) {
    return (uint32_t *)(void *)((uint8_t *)&pool->orders[link] + offsetof(book_order, prev));
}

/* Before an order is put between two others of a level, or taken from there. */
static inline void before_linking(const book_pool *pool, uint32_t slot, uint32_t level, uint32_t prev, uint32_t next) {
    if (__builtin_expect(pool->undo == NULL, 1)) return;
    book_before_order(pool, slot);
    book_before_level(pool, level);
    book_before_order(pool, prev);
    book_before_order(pool, next);
}

/* An iceberg or a hidden order has come into a level. */
static void veil(book_level *level, const book_order *order, uint32_t slot) {
    level->is_veiled = 1;
    if (order->flags & BOOK_HIDDEN && level->hidden_count++ == 0) level->hidden_head = slot;
}

/* An order has gone from a level in which there have been such. */
static void unveil(book_level *level, const book_order *order, uint32_t slot) {
    level->is_veiled = level->order_count > 0;
    if (!(order->flags & BOOK_HIDDEN)) return;
    level->hidden_count--;
    if (level->hidden_head == slot) level->hidden_head = order->next;
}

/* Puts an order with so many visible_lots() at the back of its queue; `flags` are the order's that concern its place. */
static inline __attribute__((always_inline)) bool put_into_queue(
    book *self, uint32_t slot, uint32_t side, int64_t price_ticks, uint64_t lots, uint32_t flags
) {
    book_pool *const pool = self->pool;
    book_order *const order = &pool->orders[slot];
    const uint32_t index = levels_enter(self, side, book_rank_of(side, price_ticks));
    book_level *const level = &pool->levels[index];
    uint64_t total_lots;
    if (__builtin_add_overflow(level->total_lots, lots, &total_lots)) return false; /* a new level cannot get here */
    uint32_t next = levels_link(pool, index);
    if (__builtin_expect(level->hidden_count > 0, 0) && !(flags & BOOK_HIDDEN)) next = level->hidden_head;
    const uint32_t prev = *prev_of(pool, next);
    before_linking(pool, slot, index, prev, next);
    level->total_lots = total_lots;
    level->order_count++;
    order->level = index;
    order->next = next;
    order->prev = prev;
    *next_of(pool, prev) = slot;
    *prev_of(pool, next) = slot;
    if (__builtin_expect(flags != 0, 0)) veil(level, order, slot);
    return true;
}

static inline __attribute__((always_inline)) bool restore(book *self, uint32_t slot, uint32_t side, int64_t price_ticks) {
    const book_order *const order = &self->pool->orders[slot];
    const uint32_t flags = order->flags & (BOOK_ICEBERG | BOOK_HIDDEN);
    ZX_ASSERT(order->level == ZX_NONE && order->leaves_lots - 1 < order->qty_lots && price_ticks > 0);
    return put_into_queue(self, slot, side, price_ticks, visible_lots(self->pool, slot), flags);
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

static inline __attribute__((always_inline)) bool rest(book *self, uint32_t slot, uint32_t side, int64_t price_ticks) {
    book_pool *const pool = self->pool;
    if (__builtin_expect(pool->orders[slot].flags & BOOK_ICEBERG, 0)) show_slice(pool, slot);
    if (!restore(self, slot, side, price_ticks)) return false;
    pool->orders[slot].priority_no = pool->next_priority_no++;
    return true;
}

bool book_rest(book *self, uint32_t slot, uint32_t side, int64_t price_ticks) {
    return rest(self, slot, side, price_ticks);
}

uint32_t book_add(
    book *self, uint32_t side, int64_t price_ticks, uint64_t order_id, uint64_t qty_lots, uint64_t leaves_lots, uint32_t owner
) {
    book_pool *const pool = self->pool;
    ZX_ASSERT(leaves_lots - 1 < qty_lots && price_ticks > 0);
    const uint32_t slot = slots_take_lowest(&pool->taken);
    book_before_order(pool, slot);
    book_order *const order = &pool->orders[slot];
    order->order_id = order_id;
    order->client_order_id = 0;
    order->priority_no = pool->next_priority_no;
    order->qty_lots = qty_lots;
    order->leaves_lots = leaves_lots;
    order->flags = 0;
    book_set_owner(order, owner);
    if (__builtin_expect(!put_into_queue(self, slot, side, price_ticks, leaves_lots, 0), 0)) {
        order->level = ZX_NONE;
        slots_free(&pool->taken, slot);
        return ZX_NONE;
    }
    pool->next_priority_no++;
    return slot;
}

/* Takes an order out of its queue. Whether its level is empty then nobody foresees; but where orders are filled one after
 * the other, as `is_filled` says, that is how it was the last time. */
static inline __attribute__((always_inline)) void take_out(book *self, uint32_t slot, bool is_filled) {
    book_pool *const pool = self->pool;
    book_order *const order = &pool->orders[slot];
    const uint32_t index = order->level;
    ZX_ASSERT(index != ZX_NONE);
    book_level *const level = &pool->levels[index];
    const uint64_t lots = visible_lots(pool, slot);
    const uint64_t total_lots = level->total_lots;
    const uint32_t order_count = level->order_count;
    const uint32_t prev = order->prev;
    const uint32_t next = order->next;
    ZX_ASSERT(total_lots >= lots && order_count > 0);
    before_linking(pool, slot, index, prev, next);
    level->total_lots = total_lots - lots;
    level->order_count = order_count - 1;
    order->level = ZX_NONE;
    if (__builtin_expect(level->is_veiled, 0)) unveil(level, order, slot);
    *next_of(pool, prev) = next;
    *prev_of(pool, next) = prev;
    if (!is_filled || order_count == 1) levels_leave(self, index, order_count - 1);
}

void book_unlink(book *self, uint32_t slot) {
    take_out(self, slot, false);
}

void book_free_slot(book_pool *pool, uint32_t slot) {
    ZX_ASSERT(pool->orders[slot].level == ZX_NONE);
    slots_free(&pool->taken, slot);
}

void book_remove(book *self, uint32_t slot) {
    take_out(self, slot, false);
    slots_free(&self->pool->taken, slot);
}

bool book_move(book *self, uint32_t slot, uint32_t side, int64_t price_ticks, uint64_t qty_lots, uint64_t leaves_lots) {
    book_pool *const pool = self->pool;
    take_out(self, slot, false);
    pool->orders[slot].qty_lots = qty_lots;
    pool->orders[slot].leaves_lots = leaves_lots;
    return rest(self, slot, side, price_ticks);
}

/* Before its open quantity changes while it rests. */
static void before_quantities(const book_pool *pool, uint32_t slot) {
    if (__builtin_expect(pool->undo == NULL, 1)) return;
    book_before_order(pool, slot);
    book_before_terms(pool, slot);
    book_before_level(pool, pool->orders[slot].level);
}

void book_resize(book *self, uint32_t slot, uint64_t qty_lots) {
    book_pool *const pool = self->pool;
    book_order *const order = &pool->orders[slot];
    book_level *const level = &pool->levels[order->level];
    const uint64_t filled_lots = order->qty_lots - order->leaves_lots;
    ZX_ASSERT(qty_lots > filled_lots);
    before_quantities(pool, slot);
    level->total_lots -= visible_lots(pool, slot);
    order->leaves_lots = qty_lots - filled_lots;
    order->qty_lots = qty_lots;
    if (order->flags & BOOK_ICEBERG && pool->terms[slot].shown_lots > order->leaves_lots) {
        pool->terms[slot].shown_lots = order->leaves_lots;
    }
    const bool overflows = __builtin_add_overflow(level->total_lots, visible_lots(pool, slot), &level->total_lots);
    ZX_ASSERT(!overflows);
}

static bool is_overdue(const book_pool *pool, uint32_t slot, uint64_t now_ns) {
    return pool->orders[slot].flags & BOOK_TIMED && pool->terms[slot].expire_time_ns <= now_ns;
}

uint64_t book_open_lots(const book_pool *pool, uint32_t level) {
    if (!pool->levels[level].is_veiled) return pool->levels[level].total_lots;
    uint64_t lots = 0;
    for (uint32_t slot = pool->levels[level].next; book_is_order(pool, slot); slot = pool->orders[slot].next) {
        lots += pool->orders[slot].leaves_lots;
    }
    return lots;
}

static bool is_same_owner(const book_incoming *incoming, const book_order *maker) {
    if (maker->owner == incoming->owner) return true;
    if (__builtin_expect(incoming->groups == NULL, 1)) return false;
    const uint32_t group = incoming->groups[incoming->owner];
    return group != 0 && group == incoming->groups[maker->owner];
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

/* Looks at the resting orders from `slot` up to the link `end`. */
static bool reach_queue(reach *self, uint32_t slot, uint32_t end) {
    const book_pool *const pool = self->book->pool;
    for (; slot != end; slot = pool->orders[slot].next) {
        const book_order *const maker = &pool->orders[slot];
        if (is_taken_away(self, slot)) continue;
        bool passes_over = is_overdue(pool, slot, self->incoming->now_ns);
        if (!passes_over && is_same_owner(self->incoming, maker)) {
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
        const uint32_t end = levels_link(self->pool, at);
        const uint32_t hidden = levels[at].hidden_count > 0 ? levels[at].hidden_head : end;
        if (!reach_queue(&found, levels[at].next, hidden) || !reach_slices(&found) ||
            !reach_queue(&found, hidden, end)) {
            break;
        }
    }
    return found.reached_lots;
}

/* A resting order gives so many of its tradable lots. */
static void take_lots(book_pool *pool, uint32_t slot, uint64_t qty_lots) {
    book_order *const order = &pool->orders[slot];
    before_quantities(pool, slot);
    order->leaves_lots -= qty_lots;
    if (!(order->flags & BOOK_HIDDEN)) pool->levels[order->level].total_lots -= qty_lots;
    if (__builtin_expect(order->flags & BOOK_ICEBERG, 0)) pool->terms[slot].shown_lots -= qty_lots;
}

/* An iceberg of which what it showed is filled goes to the back of its queue with what it shows next. */
static void show_next_slice(book *self, uint32_t slot) {
    const book_pool *const pool = self->pool;
    const book_order *const order = &pool->orders[slot];
    if (pool->terms[slot].shown_lots > 0) return;
    const uint32_t side = book_side_of(pool, order);
    const int64_t price_ticks = book_price_of(pool, order);
    book_unlink(self, slot);
    const bool rested = book_rest(self, slot, side, price_ticks);
    ZX_ASSERT(rested); /* it showed more before */
}

void book_fill(book *self, uint32_t slot, uint64_t qty_lots) {
    const uint64_t tradable_lots = book_tradable_lots(self->pool, slot);
    const uint64_t shown_lots = qty_lots < tradable_lots ? qty_lots : tradable_lots;
    ZX_ASSERT(qty_lots > 0 && qty_lots <= self->pool->orders[slot].leaves_lots);
    take_lots(self->pool, slot, shown_lots);
    book_order *const order = &self->pool->orders[slot];
    order->leaves_lots -= qty_lots - shown_lots;
    if (order->leaves_lots == 0) book_remove(self, slot);
    else if (order->flags & BOOK_ICEBERG) show_next_slice(self, slot);
}

enum book_match_end book_match(book *self, book_incoming *incoming, const book_listener *listener) {
    book_pool *const pool = self->pool;
    const uint8_t other = incoming->side ^ 1;
    const int64_t rank_max = book_rank_of(other, incoming->price_ticks);
    if (incoming->leaves_lots == 0) return BOOK_DONE;
    while (self->sides[other].best_rank <= rank_max) {
        const book_level *const level = &pool->levels[self->sides[other].best];
        const uint32_t slot = level->next;
        book_order *const maker = &pool->orders[slot];
        if (__builtin_expect(maker->flags & BOOK_TIMED, 0) && is_overdue(pool, slot, incoming->now_ns)) {
            return BOOK_OVERDUE;
        }
        if (is_same_owner(incoming, maker)) return BOOK_OWN_ORDER;
        if (incoming->makers_used == incoming->makers_max) return BOOK_MAKERS_USED;
        const uint64_t tradable_lots = book_tradable_lots(pool, slot);
        const int64_t price_ticks = book_level_price(level);
        uint64_t fill_lots = incoming->leaves_lots < tradable_lots ? incoming->leaves_lots : tradable_lots;
        if (__builtin_expect(listener->lots_max != NULL, 0)) {
            const uint64_t lots_max = listener->lots_max(listener->context, price_ticks);
            if (lots_max == 0) return BOOK_NO_LOT;
            if (fill_lots > lots_max) fill_lots = lots_max;
        }
        incoming->makers_used++;
        incoming->leaves_lots -= fill_lots;
        take_lots(pool, slot, fill_lots);
        listener->on_fill(listener->context, slot, price_ticks, fill_lots);
        /* Asked twice, for what is left of the maker says nearly always what is left of the incoming order. */
        if (maker->leaves_lots > 0) {
            if (__builtin_expect(maker->flags & BOOK_ICEBERG, 0)) show_next_slice(self, slot);
            if (incoming->leaves_lots == 0) return BOOK_DONE;
        } else {
            take_out(self, slot, true);
            slots_free(&pool->taken, slot);
            if (incoming->leaves_lots == 0) return BOOK_DONE;
        }
    }
    return BOOK_DONE;
}

/* ------------------------------------------------------------ check */

static const char *check_queue(const book_pool *pool, uint32_t index) {
    const book_level *const level = &pool->levels[index];
    zx_u128 total_lots = 0;
    uint32_t order_count = 0;
    uint32_t hidden_count = 0;
    uint32_t prev = levels_link(pool, index);
    for (uint32_t slot = level->next; slot != levels_link(pool, index); slot = pool->orders[slot].next) {
        if (!book_is_order(pool, slot)) return "a queue leads to another's level";
        const book_order *const order = &pool->orders[slot];
        if (!slots_is_taken(&pool->taken, slot)) return "the slot of a resting order is free";
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
        total_lots += visible_lots(pool, slot);
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

const char *book_pool_check(const book_pool *self) {
    const uint32_t ready = self->levels_ready;
    if (self->levels_used > ready || ready > self->taken.capacity) return "more levels are used than are ready";
    uint64_t free_sum = 0; /* of numbers, so that none is spare twice and another never */
    uint32_t free_count = 0;
    for (uint32_t index = 0; index < ready; index++) {
        const book_level *const level = &self->levels[index];
        if (level->order_count > 0) continue;
        const uint32_t link = levels_link(self, index);
        if (level->next != link || level->prev != link || level->total_lots != 0 || level->hidden_count != 0 ||
            level->is_veiled) {
            return "a level is free and not empty";
        }
        free_sum += index;
        free_count++;
    }
    for (uint32_t at = self->levels_used; at < ready; at++) free_sum -= self->spare[at];
    if (free_count != ready - self->levels_used || free_sum != 0) return "a free level is not spare";
    return ranks_pool_check(&self->far);
}
