/* books.c: the book without the exchange: priority, icebergs, windows of levels, and that what it changed is undone. */

#include "book.h"
#include "kit.h"
#include "undo.h"

/* ------------------------------------------------------------ priority */

typedef struct fills {
    uint32_t count;
    uint32_t slots[64];
    int64_t prices[64];
    uint64_t lots[64];
} fills;

static void note_fill(void *context, uint32_t maker_slot, int64_t price_ticks, uint64_t qty_lots) {
    fills *const seen = context;
    CHECK(seen->count < 64);
    seen->slots[seen->count] = maker_slot;
    seen->prices[seen->count] = price_ticks;
    seen->lots[seen->count++] = qty_lots;
}

/* Some orders are icebergs, some hidden. */
static bool varied;

static void set_terms(book_pool *pool, uint32_t slot, uint64_t id) {
    if (!varied) return;
    if (id % 5 == 0) {
        book_set_flags(&pool->orders[slot], BOOK_ICEBERG);
        book_before_terms(pool, slot);
        pool->terms[slot].display_lots = 1 + id % 3;
    } else if (id % 5 == 1) {
        book_set_flags(&pool->orders[slot], BOOK_HIDDEN);
    }
}

static uint32_t enter(
    book *market, uint64_t id, uint32_t owner, uint8_t side, int64_t price_ticks, uint64_t qty_lots,
    fills *seen
) {
    book_incoming incoming = {
        .price_ticks = price_ticks, .leaves_lots = qty_lots, .owner = owner, .makers_max = 1024, .side = side
    };
    const book_listener listener = {.on_fill = note_fill, .context = seen};
    seen->count = 0;
    if (book_match(market, &incoming, &listener) != BOOK_DONE || incoming.leaves_lots == 0) return ZX_NONE;
    const uint32_t slot = book_take_free_slot(market->pool);
    book_order *const order = &market->pool->orders[slot];
    order->order_id = id;
    order->qty_lots = qty_lots;
    order->leaves_lots = incoming.leaves_lots;
    book_set_owner(order, owner);
    set_terms(market->pool, slot, id);
    CHECK(book_rest(market, slot, side, price_ticks));
    return slot;
}

/* One book without windows; the caller unmaps the memory. */
static void make_one(arena *memory, book_pool *pool, book *market, uint32_t orders) {
    const book_pool_plan plan = book_pool_reserve(memory, &(book_limits){.orders = orders, .books = 1});
    CHECK(arena_map(memory) == ZX_OK);
    book_pool_init(pool, &plan, memory);
    book_init(market, pool, 0);
}

static void test_book_trades_by_price_then_time(void) {
    arena memory = {0};
    book_pool pool;
    book market;
    fills seen;
    make_one(&memory, &pool, &market, 16);

    const uint32_t later_price = enter(&market, 1, 1, BOOK_SELL, 103, 5, &seen);
    const uint32_t first = enter(&market, 2, 1, BOOK_SELL, 101, 5, &seen);
    const uint32_t second = enter(&market, 3, 2, BOOK_SELL, 101, 5, &seen);
    CHECK(book_crosses(&market, BOOK_BUY, 101) && !book_crosses(&market, BOOK_BUY, 100));
    CHECK(enter(&market, 4, 3, BOOK_BUY, 103, 12, &seen) == ZX_NONE);
    CHECK(seen.count == 3);
    CHECK(seen.slots[0] == first && seen.prices[0] == 101 && seen.lots[0] == 5);
    CHECK(seen.slots[1] == second && seen.prices[1] == 101 && seen.lots[1] == 5);
    CHECK(seen.slots[2] == later_price && seen.prices[2] == 103 && seen.lots[2] == 2);

    /* Never with its own owner; nothing of the incoming order rests because book_match() said so. */
    CHECK(enter(&market, 5, 1, BOOK_BUY, 103, 1, &seen) == ZX_NONE && seen.count == 0);
    book_incoming wanted = {
        .price_ticks = 103, .owner = 9, .makers_max = 1, .side = BOOK_BUY
    };
    CHECK(book_reachable(&market, &wanted, 3, false, NULL) == 3);
    CHECK(book_reachable(&market, &wanted, 4, false, NULL) == 3);
    wanted.owner = 1;
    CHECK(book_reachable(&market, &wanted, 3, false, NULL) == 0 && book_reachable(&market, &wanted, 3, true, NULL) == 0);
    book_resize(&market, later_price, 3); /* 2 of 5 are filled */
    CHECK(pool.orders[later_price].leaves_lots == 1);
    book_remove(&market, later_price);
    CHECK(market.sides[BOOK_SELL].best == ZX_NONE && pool.taken.count == 0);
    arena_unmap(&memory);
}

/* Where something in `from` is in its copy. */
static void *in_copy(const void *at, const arena *from, const arena *copy) {
    return copy->base + ((const uint8_t *)at - from->base);
}

/* What would be filled is what is filled, on a copy of the book's memory. */
static void check_reach(const book *market, const arena *memory, const arena *space, uint64_t id) {
    if (id % 16 != 0) return;
    memcpy(space->base, memory->base, memory->size);
    book_pool pool = *market->pool;
    pool.orders = in_copy(pool.orders, memory, space);
    pool.levels = in_copy(pool.levels, memory, space);
    pool.terms = in_copy(pool.terms, memory, space);
    pool.free_levels.numbers = in_copy(pool.free_levels.numbers, memory, space);
    pool.far.nodes = in_copy(pool.far.nodes, memory, space);
    for (uint32_t level = 0; level < pool.taken.levels; level++) {
        pool.taken.any[level] = in_copy(pool.taken.any[level], memory, space);
        pool.taken.full[level] = in_copy(pool.taken.full[level], memory, space);
    }
    book copy = *market;
    copy.pool = &pool;
    book_incoming incoming = {
        .price_ticks = 1 + (int64_t)(id % 400),
        .leaves_lots = 1 + id % 97,
        .owner = 7,
        .makers_max = 1 + (uint32_t)(id % 29),
        .side = id % 32 == 0 ? BOOK_BUY : BOOK_SELL,
    };
    const uint64_t wanted_lots = incoming.leaves_lots;
    const uint64_t reachable_lots = book_reachable(market, &incoming, wanted_lots, false, NULL);
    static fills seen;
    seen.count = 0;
    const book_listener listener = {.on_fill = note_fill, .context = &seen};
    book_match(&copy, &incoming, &listener);
    CHECK(wanted_lots - incoming.leaves_lots == reachable_lots);
    uint32_t count = 0;
    CHECK(book_check(&copy, &count) == NULL || copy.market != 0 || count == pool.taken.count);
}

static void test_book_keeps_its_invariants(uint64_t seed, uint32_t prices) {
    enum { ORDERS = 300 };
    arena memory = {0};
    const book_pool_plan plan = book_pool_reserve(&memory, &(book_limits){.orders = ORDERS, .books = 2});
    arena space = memory; /* for a copy */
    CHECK(arena_map(&memory) == ZX_OK && arena_map(&space) == ZX_OK);
    book_pool pool;
    book markets[2];
    book_pool_init(&pool, &plan, &memory);
    for (uint32_t index = 0; index < 2; index++) book_init(&markets[index], &pool, index);
    fills seen;
    for (uint64_t id = 1; id < 12000; id++) {
        book *const market = &markets[random_below(&seed, 2)];
        const uint32_t picked = random_below(&seed, ORDERS);
        const bool is_open = slots_is_taken(&pool.taken, picked);
        if (is_open && (random_below(&seed, 100) < 30 || pool.taken.count == ORDERS)) {
            book_remove(&markets[book_market_of(&pool, &pool.orders[picked])], picked);
        } else if (is_open && random_below(&seed, 10) == 0) {
            /* Out of its queue and back, as an amended order. */
            book *const its = &markets[book_market_of(&pool, &pool.orders[picked])];
            const uint8_t side = book_side_of(&pool, &pool.orders[picked]);
            const int64_t price_ticks = book_price_of(&pool, &pool.orders[picked]);
            book_unlink(its, picked);
            CHECK(book_rest(its, picked, side, price_ticks));
        } else if (pool.taken.count < ORDERS) {
            const uint8_t side = random_below(&seed, 2) ? BOOK_BUY : BOOK_SELL;
            const int64_t centre = side == BOOK_BUY ? 0 : prices / 4;
            const int64_t price_ticks = 1 + centre + random_below(&seed, prices);
            enter(market, id, random_below(&seed, 5), side, price_ticks, 1 + random_below(&seed, 9), &seen);
        }
        uint32_t orders = 0;
        for (uint32_t index = 0; index < 2; index++) {
            const char *const broken = book_check(&markets[index], &orders);
            if (broken != NULL) fprintf(stderr, "%s\n", broken);
            CHECK(broken == NULL);
        }
        CHECK(orders == pool.taken.count);
        check_reach(&markets[id % 2], &memory, &space, id);
    }
    arena_unmap(&space);
    arena_unmap(&memory);
}

static void test_icebergs_and_hidden_orders(void) {
    arena memory = {0};
    book_pool pool;
    book market;
    fills seen;
    make_one(&memory, &pool, &market, 8);
    const uint32_t hidden = enter(&market, 1, 1, BOOK_SELL, 100, 2, &seen);
    const uint32_t iceberg = enter(&market, 5, 2, BOOK_SELL, 100, 7, &seen); /* shows 3 at a time */
    const uint32_t plain = enter(&market, 2, 3, BOOK_SELL, 100, 1, &seen);
    const book_level *const level = &pool.levels[pool.orders[plain].level];
    CHECK(level->total_lots == 4 && level->order_count == 3 && level->hidden_count == 1);
    CHECK(level->next == iceberg && level->hidden_head == hidden && level->prev == hidden);

    CHECK(enter(&market, 7, 4, BOOK_BUY, 100, 9, &seen) == ZX_NONE);
    CHECK(seen.count == 5);
    const uint32_t slots_in_turn[] = {iceberg, plain, iceberg, iceberg, hidden};
    const uint64_t lots_in_turn[] = {3, 1, 3, 1, 1};
    for (uint32_t at = 0; at < 5; at++) {
        CHECK(seen.slots[at] == slots_in_turn[at] && seen.lots[at] == lots_in_turn[at]);
    }
    CHECK(level->total_lots == 0 && level->order_count == 1 && pool.orders[hidden].leaves_lots == 1);

    /* Past its time an order stops the match; the caller takes it away. */
    book_set_flags(&pool.orders[hidden], BOOK_TIMED);
    pool.terms[hidden].expire_time_ns = 10;
    const book_listener listener = {.on_fill = note_fill, .context = &seen};
    book_incoming incoming = {.price_ticks = 100, .leaves_lots = 1, .now_ns = 10, .owner = 9, .makers_max = 9};
    CHECK(book_reachable(&market, &incoming, 1, false, NULL) == 0);
    CHECK(book_match(&market, &incoming, &listener) == BOOK_OVERDUE);
    incoming.now_ns = 9;
    CHECK(book_reachable(&market, &incoming, 1, false, NULL) == 1);
    CHECK(book_match(&market, &incoming, &listener) == BOOK_DONE && pool.taken.count == 0);
    arena_unmap(&memory);
}

static void test_book_refuses_a_level_that_would_overflow(void) {
    arena memory = {0};
    book_pool pool;
    book market;
    fills seen;
    make_one(&memory, &pool, &market, 4);
    enter(&market, 1, 1, BOOK_BUY, 1, UINT64_MAX, &seen);
    book_take_slot(&pool, 1);
    pool.orders[1].order_id = 2;
    pool.orders[1].qty_lots = pool.orders[1].leaves_lots = 1;
    CHECK(!book_rest(&market, 1, BOOK_BUY, 1));
    book_free_slot(&pool, 1);
    uint32_t orders = 0;
    CHECK(book_check(&market, &orders) == NULL && orders == 1);
    arena_unmap(&memory);
}

/* ------------------------------------------------------------ windows of levels */

/* Two books of one pool under the same orders, one with windows and one without, hold the same levels; while the market
 * wanders and jumps, orders lie near and far, and sides are emptied now and then. */
static void test_windows_change_nothing(uint64_t seed, uint32_t width, uint32_t jump) {
    enum { ORDERS = 600 };
    arena memory = {0};
    const book_pool_plan plan = book_pool_reserve(&memory, &(book_limits){.orders = 2 * ORDERS, .books = 2, .windowed = 1});
    CHECK(arena_map(&memory) == ZX_OK);
    book_pool pool;
    book with;
    book without;
    book_pool_init(&pool, &plan, &memory);
    book_init(&with, &pool, 0);
    book_use_windows(&with, 0);
    book_init(&without, &pool, 1);
    uint32_t slots_of[ORDERS][2];
    uint32_t count = 0;
    uint32_t moves = 0;
    int64_t centre = 1 << 20;
    for (uint64_t id = 1; id < 30000; id++) {
        if (random_below(&seed, 50) == 0) centre += (int64_t)random_below(&seed, 2 * jump + 1) - jump;
        const bool empties = random_below(&seed, 4000) == 0;
        if (count == ORDERS || empties || (count > 0 && random_below(&seed, 2) == 0)) {
            const uint32_t kept = empties ? 0 : count - 1;
            while (count > kept) {
                const uint32_t picked = random_below(&seed, count);
                book_remove(&with, slots_of[picked][0]);
                book_remove(&without, slots_of[picked][1]);
                memcpy(slots_of[picked], slots_of[--count], sizeof slots_of[0]);
            }
        } else {
            const uint8_t side = random_below(&seed, 2) ? BOOK_BUY : BOOK_SELL;
            const int64_t far = random_below(&seed, 8) == 0 ? 100 * (int64_t)width : width;
            const int64_t away = 1 + (int64_t)random_below(&seed, (uint32_t)far);
            const int64_t price_ticks = side == BOOK_BUY ? centre - away : centre + away;
            if (price_ticks < 1) continue;
            for (uint32_t which = 0; which < 2; which++) {
                const uint32_t slot = book_take_free_slot(&pool);
                pool.orders[slot] = (book_order){.order_id = id, .qty_lots = 1, .leaves_lots = 1, .level = ZX_NONE};
                const int64_t base = with.sides[side].base;
                CHECK(book_rest(which == 0 ? &with : &without, slot, side, price_ticks));
                moves += with.sides[side].base != base;
                slots_of[count][which] = slot;
            }
            count++;
        }
        if (id % 7 != 0) continue;
        uint32_t orders = 0;
        CHECK(book_check_queues(&with, &orders) == NULL && book_check_queues(&without, &orders) == NULL);
        CHECK(orders == 2 * count);
        for (uint8_t side = 0; side < 2; side++) {
            uint32_t at = with.sides[side].best;
            uint32_t other = without.sides[side].best;
            while (at != ZX_NONE && other != ZX_NONE && pool.levels[at].rank == pool.levels[other].rank &&
                   pool.levels[at].order_count == pool.levels[other].order_count) {
                at = book_worse_level(&with, at);
                other = book_worse_level(&without, other);
            }
            CHECK(at == ZX_NONE && other == ZX_NONE);
        }
    }
    CHECK(moves > 5);
    arena_unmap(&memory);
}

/* ------------------------------------------------------------ undo */

enum { UNDONE_ORDERS = 400 };

/* Anything that can be done to a book, at a price near or far. */
static void change_something(book *market, uint64_t id, int64_t centre, uint32_t width, uint64_t *seed) {
    book_pool *const pool = market->pool;
    const uint32_t picked = random_below(seed, UNDONE_ORDERS);
    const uint32_t choice = random_below(seed, 10);
    if (slots_is_taken(&pool->taken, picked)) {
        const book_order *const order = &pool->orders[picked];
        const uint8_t side = book_side_of(pool, order);
        const int64_t price_ticks = book_price_of(pool, order);
        if (choice < 4 || pool->taken.count == UNDONE_ORDERS) {
            book_remove(market, picked);
            return;
        }
        if (choice == 4) {
            book_unlink(market, picked);
            CHECK(book_rest(market, picked, side, price_ticks));
            return;
        }
        if (choice == 5) {
            const uint64_t filled_lots = order->qty_lots - order->leaves_lots;
            book_resize(market, picked, filled_lots + 1 + random_below(seed, 9));
            return;
        }
    }
    if (pool->taken.count == UNDONE_ORDERS) return;
    const uint8_t side = choice % 2 ? BOOK_BUY : BOOK_SELL;
    const uint32_t far = random_below(seed, 8) == 0 ? 100 * width : width;
    const int64_t away = (int64_t)random_below(seed, far) - width / 16;
    const int64_t price_ticks = side == BOOK_BUY ? centre - away : centre + away;
    fills seen;
    enter(market, id, random_below(seed, 5), side, price_ticks, 1 + random_below(seed, 9), &seen);
}

static void test_what_a_book_changed_is_undone(uint64_t seed, uint32_t width, uint32_t window_size) {
    arena memory = {0};
    const size_t book_at = arena_reserve(&memory, 1, sizeof(book));
    const book_pool_plan plan = book_pool_reserve(&memory, &(book_limits){.orders = UNDONE_ORDERS, .books = 1, .windowed = 1});
    const size_t length = memory.size;
    const undo_plan changes_plan = undo_reserve(&memory);
    CHECK(arena_map(&memory) == ZX_OK);
    book *const market = arena_at(&memory, book_at);
    book_pool pool;
    undo changes;
    book_pool_init(&pool, &plan, &memory);
    book_init(market, &pool, 0);
    if (window_size != 0) book_use_windows(market, 0);
    for (uint32_t side = 0; side < 2; side++) market->sides[side].size = window_size;
    undo_init(&changes, &changes_plan, &memory);
    uint8_t *const before = malloc(length);
    int64_t centre = 1 << 24;
    for (uint64_t id = 1; id < 6000; id++) {
        if (random_below(&seed, 30) == 0) centre += (int64_t)random_below(&seed, 2 * width + 1) - width;
        memcpy(before, memory.base, length);
        const book_pool pool_before = pool;
        book_pool_tell(&pool, &changes);
        for (uint32_t change = random_below(&seed, 12); change > 0; change--) {
            change_something(market, id, centre, width, &seed);
        }
        undo_all(&changes);
        pool = pool_before;
        CHECK(memcmp(before, memory.base, length) == 0);
        for (uint32_t change = 0; change < 3; change++) change_something(market, id, centre, width, &seed);
    }
    CHECK(changes.count == 0);
    for (size_t at = 0; at < length / ARENA_ALIGN / 64; at++) CHECK(changes.kept[at] == 0);
    free(before);
    arena_unmap(&memory);
}

static uint32_t window_size(uint32_t windowed) {
    arena memory = {0};
    return book_pool_reserve(&memory, &(book_limits){.orders = 1, .books = windowed, .windowed = windowed}).window_size;
}

static void test_sizes_of_windows(void) {
    CHECK(window_size(0) == 0);
    CHECK(window_size(1) == BOOK_WINDOW_MAX);
    CHECK(window_size(512) == BOOK_WINDOW_MAX);
    CHECK(window_size(513) == BOOK_WINDOW_MAX / 2);
    CHECK(window_size(32768) == BOOK_WINDOW_MIN);
    CHECK(window_size(32769) == 0);
}

int main(void) {
    test_book_trades_by_price_then_time();
    test_book_refuses_a_level_that_would_overflow();
    test_book_keeps_its_invariants(31, 8);
    test_book_keeps_its_invariants(32, 400);
    varied = true;
    test_book_keeps_its_invariants(33, 8);
    test_book_keeps_its_invariants(34, 400);
    test_icebergs_and_hidden_orders();
    test_sizes_of_windows();
    test_windows_change_nothing(61, 50, 30);
    test_windows_change_nothing(62, 3000, 20000);
    test_windows_change_nothing(63, 30000, 300000);
    test_what_a_book_changed_is_undone(71, 8, BOOK_WINDOW_MAX);
    test_what_a_book_changed_is_undone(72, 300, 0);
    test_what_a_book_changed_is_undone(73, 20000, BOOK_WINDOW_MAX);
    for (uint64_t seed = 74; seed < 78; seed++) test_what_a_book_changed_is_undone(seed, 300, BOOK_WINDOW_MIN);
    puts("ok");
    return 0;
}
