/* pieces.c: the data structures of the engine against the simplest thing that does the same. The book is in books.c. */

#define _DEFAULT_SOURCE /* mincore */

#include <string.h>
#include <sys/mman.h>

#include "book.h"
#include "definitions.h"
#include "engine.h"
#include "figures.h"
#include "idmap.h"
#include "ids.h"
#include "kit.h"
#include "lanes.h"
#include "merkle.h"
#include "ranks.h"
#include "ready.h"
#include "slots.h"
#include "spares.h"
#include "undo.h"

/* The slot that would be taken next, or ZX_NONE. */
static uint32_t next_to_take(slots *set) {
    if (set->count == set->capacity) return ZX_NONE;
    const uint32_t slot = slots_take_lowest(set);
    slots_free(set, slot);
    return slot;
}

static void test_slots(uint32_t capacity, uint64_t seed) {
    uint64_t *const words = calloc(slots_words(capacity), sizeof *words);
    bool *const naive = calloc(capacity, sizeof *naive);
    slots set;
    slots_init(&set, capacity, words);
    for (int step = 0; step < 3000; step++) {
        /* Swing between nearly empty and full. */
        const bool take = random_below(&seed, 100) < (step / 500 % 2 ? 20u : 80u);
        uint32_t lowest_free = 0;
        while (lowest_free < capacity && naive[lowest_free]) lowest_free++;
        CHECK(next_to_take(&set) == (lowest_free == capacity ? ZX_NONE : lowest_free));
        const uint32_t picked = random_below(&seed, capacity);
        if (take && lowest_free < capacity) {
            slots_take(&set, lowest_free);
            naive[lowest_free] = true;
        } else if (naive[picked]) {
            slots_free(&set, picked);
            naive[picked] = false;
        }
        uint32_t highest = ZX_NONE;
        uint32_t next = ZX_NONE;
        uint32_t count = 0;
        for (uint32_t slot = 0; slot < capacity; slot++) {
            if (!naive[slot]) continue;
            highest = slot;
            count++;
            if (slot >= picked && next == ZX_NONE) next = slot;
        }
        CHECK(set.count == count);
        CHECK(slots_highest_taken(&set) == highest);
        CHECK(slots_next_taken(&set, picked) == next);
        CHECK(slots_is_taken(&set, picked) == naive[picked]);
    }
    free(words);
    free(naive);
}

static void test_slots_are_given_lowest_first_until_all_are_taken(void) {
    const uint32_t capacity = 64 * 64 + 3;
    uint64_t *const words = calloc(slots_words(capacity), sizeof *words);
    slots set;
    slots_init(&set, capacity, words);
    for (uint32_t slot = 0; slot < capacity; slot++) {
        CHECK(next_to_take(&set) == slot);
        slots_take(&set, slot);
    }
    CHECK(next_to_take(&set) == ZX_NONE);
    slots_free(&set, 4000);
    CHECK(next_to_take(&set) == 4000);
    free(words);
}

/* Several words of full[1]: the lowest free slot wanders from one to the other, and past them to where none is. */
static void test_slots_of_many_words(uint32_t capacity, uint64_t seed) {
    uint64_t *const words = calloc(slots_words(capacity), sizeof *words);
    bool *const naive = calloc(capacity, sizeof *naive);
    uint32_t lowest_free = 0;
    uint32_t times_full = 0;
    slots set;
    slots_init(&set, capacity, words);
    for (uint32_t step = 0; step < 12 * capacity; step++) {
        const bool grows = step / (2 * capacity) % 2 == 0;
        const bool is_low = random_below(&seed, 4) == 0 && lowest_free > 0;
        const uint32_t picked = is_low ? lowest_free - 1 : random_below(&seed, capacity);
        if (random_below(&seed, 100) < (grows ? 90u : 20u) && set.count < capacity) {
            uint32_t slot = picked;
            if (naive[picked]) {
                slot = slots_take_lowest(&set);
                CHECK(slot == lowest_free);
            } else {
                slots_take(&set, slot);
            }
            naive[slot] = true;
            while (lowest_free < capacity && naive[lowest_free]) lowest_free++;
        } else if (naive[picked]) {
            slots_free(&set, picked);
            naive[picked] = false;
            if (picked < lowest_free) lowest_free = picked;
        }
        times_full += set.count == capacity;
        CHECK(next_to_take(&set) == (lowest_free == capacity ? ZX_NONE : lowest_free));
        if (step % 256 != 0) continue;
        uint32_t next = picked;
        while (next < capacity && !naive[next]) next++;
        CHECK(slots_next_taken(&set, picked) == (next == capacity ? ZX_NONE : next));
    }
    CHECK(times_full > 10);
    free(words);
    free(naive);
}

static void test_idmap(uint64_t seed, uint32_t hash_values) {
    enum { LIMIT = 200 };
    idmap_entry *const entries = calloc(idmap_entries(LIMIT), sizeof *entries);
    uint64_t hashes[LIMIT];
    bool present[LIMIT] = {false};
    idmap map;
    idmap_init(&map, LIMIT, entries);
    for (int step = 0; step < 20000; step++) {
        const uint32_t index = random_below(&seed, LIMIT);
        if (present[index]) {
            idmap_remove(&map, hashes[index], index);
            present[index] = false;
        } else {
            /* Few hash values: many equal ones, and runs that wrap around the end. */
            hashes[index] = (uint64_t)random_below(&seed, hash_values) * 7 + (map.mask - 3);
            idmap_insert(&map, hashes[index], index);
            present[index] = true;
        }
        const uint32_t wanted = random_below(&seed, LIMIT);
        bool found = false;
        if (present[wanted]) {
            idmap_cursor cursor;
            uint32_t candidate = idmap_first(&map, hashes[wanted], &cursor);
            for (; candidate != ZX_NONE; candidate = idmap_next(&map, &cursor)) {
                CHECK(present[candidate] && (uint32_t)hashes[candidate] == (uint32_t)hashes[wanted]);
                found = found || candidate == wanted;
            }
            CHECK(found);
        }
    }
    for (uint32_t index = 0; index < LIMIT; index++) {
        if (present[index]) idmap_remove(&map, hashes[index], index);
    }
    CHECK(map.count == 0);
    for (uint32_t at = 0; at <= map.mask; at++) CHECK(entries[at].taken == 0);
    free(entries);
}

/* ------------------------------------------------------------ ranks */

enum { RANKED_MAX = 600, RANK_TREES_MAX = 40 };

typedef struct ranked {
    int64_t rank;
    uint32_t value;
} ranked;

/* Some trees of one pool, and what is in each of them, sorted. */
typedef struct forest {
    ranks_pool pool;
    ranks trees[RANK_TREES_MAX];
    ranked model[RANK_TREES_MAX][RANKED_MAX];
    uint32_t counts[RANK_TREES_MAX];
    uint32_t total;
} forest;

static uint32_t nodes_below(const ranks_pool *pool, uint32_t index, uint32_t height) {
    const ranks_node *const node = &pool->nodes[index];
    uint32_t found = 1;
    for (uint32_t child = 0; height > 0 && child < node->count; child++) {
        found += nodes_below(pool, node->values[child], height - 1);
    }
    return found;
}

/* No node is lost, and there are no more of them than are reserved for what is in the trees now. */
static void count_nodes(const forest *of, uint32_t trees) {
    uint32_t used = 0;
    uint32_t free_count = 0;
    for (uint32_t tree = 0; tree < trees; tree++) {
        if (of->trees[tree].root != ZX_NONE) used += nodes_below(&of->pool, of->trees[tree].root, of->trees[tree].height);
    }
    for (uint32_t node = of->pool.free; node != ZX_NONE; node = of->pool.nodes[node].next) free_count++;
    CHECK(used + free_count == of->pool.fresh);
    CHECK(used <= ranks_nodes(of->total, trees));
}

/* Where a rank is in the model of a tree, or would be. */
static uint32_t position_of(const forest *of, uint32_t tree, int64_t rank) {
    uint32_t at = 0;
    while (at < of->counts[tree] && of->model[tree][at].rank < rank) at++;
    return at;
}

static void ask_tree(const forest *of, uint32_t tree, int64_t rank) {
    const ranked *const model = of->model[tree];
    const uint32_t count = of->counts[tree];
    const uint32_t at = position_of(of, tree, rank);
    const bool is_there = at < count && model[at].rank == rank;
    const uint32_t above = at + is_there;
    uint32_t entries = 0;
    ranks_place place;
    CHECK(ranks_check(&of->pool, &of->trees[tree], ZX_NONE, &entries) == NULL && entries == count);
    CHECK(ranks_first(&of->pool, &of->trees[tree]) == (count > 0 ? model[0].value : ZX_NONE));
    CHECK(ranks_find(&of->pool, &of->trees[tree], rank) == (is_there ? model[at].value : ZX_NONE));
    CHECK(ranks_above(&of->pool, &of->trees[tree], rank) == (above < count ? model[above].value : ZX_NONE));
    ranks_seek(&of->pool, &of->trees[tree], rank, &place);
    CHECK(place.value == (is_there ? model[at].value : ZX_NONE));
}

/* Adds a rank, or takes it away if it is there. */
static void flip(forest *of, uint32_t tree, int64_t rank, uint32_t value) {
    ranked *const at = &of->model[tree][position_of(of, tree, rank)];
    ranked *const end = &of->model[tree][of->counts[tree]];
    ranks_place place;
    ranks_seek(&of->pool, &of->trees[tree], rank, &place);
    if (at < end && at->rank == rank) {
        ranks_remove(&of->pool, &of->trees[tree], &place);
        memmove(at, at + 1, (size_t)(end - at - 1) * sizeof *at);
        of->counts[tree]--;
        of->total--;
    } else {
        ranks_insert(&of->pool, &of->trees[tree], &place, rank, value);
        memmove(at + 1, at, (size_t)(end - at) * sizeof *at);
        *at = (ranked){.rank = rank, .value = value};
        of->counts[tree]++;
        of->total++;
    }
}

enum rank_order { RANKS_AT_RANDOM, RANKS_ASCEND, RANKS_DESCEND };

/* One more change of a tree: mostly additions while it grows, else mostly removals. */
static void grow_or_shrink(
    forest *of, uint32_t tree, enum rank_order order, bool grows, uint32_t limit, uint32_t step, uint64_t *seed
) {
    const bool adds = random_below(seed, 100) < (grows ? 85u : 15u);
    const uint32_t count = of->counts[tree];
    if (!adds && count > 0) {
        const uint32_t at = order == RANKS_ASCEND ? 0 : order == RANKS_DESCEND ? count - 1 : random_below(seed, count);
        flip(of, tree, of->model[tree][at].rank, step);
        return;
    }
    if (of->total == limit) return;
    const int64_t ranks_of[] = {(int64_t)random_below(seed, 4 * limit) - 2 * limit, step, -(int64_t)step};
    const int64_t rank = ranks_of[order];
    const uint32_t at = position_of(of, tree, rank);
    if (at == count || of->model[tree][at].rank != rank) flip(of, tree, rank, step);
}

static void test_ranks(uint64_t seed, uint32_t limit, uint32_t trees, enum rank_order order) {
    enum { STEPS = 4000, SWINGS = 6 };
    arena memory = {0};
    const uint32_t capacity = ranks_nodes(limit, trees);
    const size_t nodes_at = arena_reserve(&memory, capacity, sizeof(ranks_node));
    const size_t length = memory.size;
    const undo_plan changes_plan = undo_reserve(&memory);
    CHECK(arena_map(&memory) == ZX_OK);
    undo changes;
    undo_init(&changes, &changes_plan, &memory);
    uint8_t *const before = malloc(length);
    forest *const of = calloc(2, sizeof *of);
    ranks_pool_init(&of->pool, capacity, arena_at(&memory, nodes_at));
    for (uint32_t tree = 0; tree < trees; tree++) ranks_init(&of->trees[tree]);
    for (uint32_t step = 1; step <= STEPS; step++) {
        const bool grows = step / (STEPS / SWINGS) % 2 == 0;
        const uint32_t tree = random_below(&seed, trees);
        if (step % 16 == 0) {
            of[1] = of[0];
            memcpy(before, memory.base, length);
            of->pool.undo = &changes;
            for (uint32_t change = random_below(&seed, 60); change > 0; change--) {
                grow_or_shrink(of, random_below(&seed, trees), order, change % 3 > 0, limit, STEPS + change, &seed);
            }
            undo_all(&changes);
            of[0] = of[1];
            CHECK(memcmp(before, memory.base, length) == 0);
        }
        grow_or_shrink(of, tree, order, grows, limit, step, &seed);
        ask_tree(of, tree, (int64_t)random_below(&seed, 4 * limit) - 2 * limit);
        if (of->counts[tree] > 0) ask_tree(of, tree, of->model[tree][random_below(&seed, of->counts[tree])].rank);
        if (step % 16 == 0) count_nodes(of, trees);
    }
    for (uint32_t tree = 0; tree < trees; tree++) {
        while (of->counts[tree] > 0) flip(of, tree, of->model[tree][of->counts[tree] / 2].rank, 0);
        CHECK(of->trees[tree].root == ZX_NONE && of->trees[tree].height == 0);
    }
    count_nodes(of, trees);
    free(of);
    free(before);
    arena_unmap(&memory);
}

/* ------------------------------------------------------------ ids */

/* Orders by id, some of whose ids have the same low bits, against a look at all of them. */
static void test_ids(uint64_t seed, uint32_t limit, uint32_t shift) {
    enum { LIMIT_MAX = 64 };
    arena memory = {0};
    const ids_plan plan = ids_reserve(&memory, limit);
    const size_t length = memory.size;
    const undo_plan changes_plan = undo_reserve(&memory);
    CHECK(arena_map(&memory) == ZX_OK);
    undo changes;
    undo_init(&changes, &changes_plan, &memory);
    uint8_t *const before = malloc(length);
    book_order orders[LIMIT_MAX] = {{0}};
    bool present[LIMIT_MAX] = {false};
    ids map;
    ids_init(&map, &plan, &memory, orders, seed);
    uint32_t others_most = 0;
    for (uint64_t id = 0; id < 20000; id++) {
        const uint64_t newest = id << shift;
        const bool is_tried = id % 3 == 0;
        const ids map_before = map;
        if (is_tried) memcpy(before, memory.base, length);
        if (is_tried) ids_tell(&map, &changes);
        const uint32_t slot = random_below(&seed, limit);
        const uint64_t former = orders[slot].order_id;
        if (present[slot]) {
            ids_remove(&map, former, slot, false);
        } else {
            orders[slot].order_id = newest;
            ids_add(&map, newest, slot, false);
        }
        present[slot] = !present[slot];
        if (is_tried) {
            undo_all(&changes);
            CHECK(memcmp(before, memory.base, length) == 0);
            map = map_before;
            present[slot] = !present[slot];
            if (!present[slot]) orders[slot].order_id = 0;
        }
        uint32_t count = 0;
        for (uint32_t at = 0; at < limit; at++) {
            count += present[at];
            CHECK(!present[at] || ids_find(&map, orders[at].order_id) == at);
        }
        CHECK(map.count == count);
        const uint64_t gone = present[slot] ? newest + 1 : former;
        uint32_t found = ZX_NONE;
        for (uint32_t at = 0; at < limit; at++) {
            if (present[at] && orders[at].order_id == gone) found = at;
        }
        CHECK(ids_find(&map, gone) == found);
        if (map.others.count > others_most) others_most = map.others.count;
    }
    CHECK(shift == 0 || others_most >= limit / 3);
    for (uint32_t slot = 0; slot < limit; slot++) {
        if (present[slot]) ids_remove(&map, orders[slot].order_id, slot, false);
    }
    CHECK(map.count == 0 && map.others.count == 0);
    for (size_t at = 0; at < length; at++) CHECK(memory.base[at] == 0);
    free(before);
    arena_unmap(&memory);
}

/* ------------------------------------------------------------ lanes */

enum { LANE_ORDERS = 40, LANE_ACCOUNTS = 3, LANE_MARKETS = 4 };

typedef struct lane_model {
    book_order orders[LANE_ORDERS]; /* order_id is 0 while the slot is free */
    uint32_t markets[LANE_ORDERS];
    uint8_t sides[LANE_ORDERS];
} lane_model;

/* Slot of the model's order that belongs to a lane and has the lowest id above `after`, or ZX_NONE. */
static uint32_t next_of_model(
    const lane_model *model, uint32_t account, uint32_t market, uint8_t side, uint64_t after
) {
    uint32_t found = ZX_NONE;
    for (uint32_t slot = 0; slot < LANE_ORDERS; slot++) {
        const book_order *const order = &model->orders[slot];
        if (order->order_id <= after || order->owner != account || model->sides[slot] != side) continue;
        if (market != LANES_EVERY_MARKET && model->markets[slot] != market) continue;
        if (found == ZX_NONE || order->order_id < model->orders[found].order_id) found = slot;
    }
    return found;
}

static void compare_lane(
    const lanes *tested, const lane_model *model, uint32_t account, uint32_t market, uint8_t side
) {
    const lane *const found = lanes_find(tested, account, market, side);
    uint32_t slot = found == NULL ? ZX_NONE : found->head;
    uint32_t count = 0;
    uint64_t after = 0;
    for (;; slot = lanes_next(tested, slot, market), count++) {
        const uint32_t expected = next_of_model(model, account, market, side, after);
        CHECK(slot == expected);
        if (slot == ZX_NONE) break;
        after = model->orders[slot].order_id;
    }
    CHECK(count == (found == NULL ? 0 : found->count));
}

static void test_lanes(uint64_t seed, uint32_t accounts, uint32_t fullness) {
    arena memory = {0};
    const lanes_plan plan = lanes_reserve(&memory, LANE_ACCOUNTS, LANE_ORDERS);
    CHECK(arena_map(&memory) == ZX_OK);
    lanes tested;
    lanes_init(&tested, &plan, &memory, seed);
    lane_model model = {0};
    for (uint64_t step = 1; step < 20000; step++) {
        const uint32_t slot = random_below(&seed, LANE_ORDERS);
        if (model.orders[slot].order_id != 0) {
            if (random_below(&seed, fullness) == 0) {
                lanes_remove(&tested, slot);
                model.orders[slot].order_id = 0;
            }
        } else {
            model.orders[slot] = (book_order){.order_id = step, .owner = random_below(&seed, accounts)};
            model.markets[slot] = random_below(&seed, LANE_MARKETS);
            model.sides[slot] = (uint8_t)random_below(&seed, 2);
            lanes_add(&tested, slot, model.orders[slot].owner, model.markets[slot], model.sides[slot]);
        }
        uint32_t market_lanes = 0;
        for (uint32_t at = 0; at < LANE_ORDERS; at++) {
            if (model.orders[at].order_id == 0) continue;
            CHECK(
                lanes_check(&tested, model.orders, at, model.markets[at], model.sides[at], &market_lanes) ==
                NULL
            );
        }
        CHECK(market_lanes == tested.map.count);
        const uint32_t account = random_below(&seed, accounts);
        const uint8_t side = (uint8_t)random_below(&seed, 2);
        compare_lane(&tested, &model, account, random_below(&seed, LANE_MARKETS), side);
        compare_lane(&tested, &model, account, LANES_EVERY_MARKET, side);
    }
    arena_unmap(&memory);
}

static void test_lanes_with_every_order_alone(void) {
    enum { ORDERS = 3 };
    arena memory = {0};
    const lanes_plan plan = lanes_reserve(&memory, ORDERS, ORDERS);
    CHECK(arena_map(&memory) == ZX_OK);
    lanes tested;
    lanes_init(&tested, &plan, &memory, 5);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t slot = 0; slot < ORDERS; slot++) lanes_add(&tested, slot, slot, slot + round, BOOK_SELL);
        CHECK(tested.map.count == ORDERS);
        for (uint32_t slot = 0; slot < ORDERS; slot++) lanes_remove(&tested, slot);
        CHECK(tested.map.count == 0);
    }
    arena_unmap(&memory);
}

/* ------------------------------------------------------------ merkle */

typedef struct leaves {
    uint32_t values[300];
} leaves;

static size_t write_leaf(const void *context, uint32_t index, uint8_t *out) {
    const leaves *const from = context;
    zx_store_u32(out, from->values[index]);
    return 1 + from->values[index] % 4;
}

/* RFC 6962 as it is written: split at the largest power of two below the count. */
static void naive_root(const leaves *from, uint32_t first, uint32_t count, uint8_t out[ZX_HASH_BYTES]) {
    uint8_t data[1 + 2 * ZX_HASH_BYTES];
    if (count == 0) {
        toy_hash(out, data, 0);
    } else if (count == 1) {
        const size_t length = write_leaf(from, first, data + 1);
        merkle_leaf_hash(data, length, toy_hash, out);
    } else {
        uint32_t split = 1;
        while (split * 2 < count) split *= 2;
        data[0] = 1;
        naive_root(from, first, split, data + 1);
        naive_root(from, first + split, count - split, data + 1 + ZX_HASH_BYTES);
        toy_hash(out, data, sizeof data);
    }
}

static void test_merkle_over_leaves_that_change_grow_and_shrink(uint64_t seed) {
    static leaves array;
    const uint32_t capacity = sizeof array.values / sizeof array.values[0];
    arena memory = {0};
    const merkle_plan plan = merkle_reserve(&memory, capacity);
    CHECK(arena_map(&memory) == ZX_OK);
    merkle_tree tree;
    merkle_init(&tree, &plan, &memory);
    uint8_t scratch[16];
    const merkle_source source = {
        .leaf = write_leaf, .context = &array, .scratch = scratch, .sha256 = toy_hash
    };
    for (int step = 0; step < 400; step++) {
        for (uint32_t change = random_below(&seed, 10); change > 0; change--) {
            const uint32_t index = random_below(&seed, capacity);
            array.values[index] = (uint32_t)next_random(&seed);
            merkle_mark(&tree, index);
        }
        const uint32_t count = step % 7 == 0 ? 0 : random_below(&seed, capacity + 1);
        uint8_t root[ZX_HASH_BYTES];
        uint8_t expected[ZX_HASH_BYTES];
        merkle_root(&tree, count, &source, root);
        naive_root(&array, 0, count, expected);
        CHECK(memcmp(root, expected, sizeof root) == 0);
    }
    arena_unmap(&memory);
}

/* ------------------------------------------------------------ numbers that are free */

/* Each is handed out to one at a time, the last that came back first, and those that never were in order. */
static void test_spares(uint64_t seed) {
    enum { FIRST = 40, COUNT = 100 };
    uint32_t numbers[COUNT];
    uint32_t held[COUNT];
    uint32_t back[COUNT];
    bool is_held[COUNT] = {false};
    uint32_t held_count = 0;
    uint32_t back_count = 0;
    uint32_t never = FIRST;
    spares all;
    spares_init(&all, FIRST, COUNT, numbers);
    for (uint32_t step = 0; step < 4000; step++) {
        const bool takes = random_below(&seed, 100) < (step / 400 % 2 ? 30u : 70u);
        if (takes && held_count < COUNT) {
            const uint32_t number = spares_take(&all);
            CHECK(number == (back_count > 0 ? back[--back_count] : never++) && !is_held[number - FIRST]);
            is_held[number - FIRST] = true;
            held[held_count++] = number;
        } else if (!takes && held_count > 0) {
            const uint32_t at = random_below(&seed, held_count);
            spares_give(&all, held[at], false);
            is_held[held[at] - FIRST] = false;
            back[back_count++] = held[at];
            held[at] = held[--held_count];
        }
        CHECK(all.used == held_count && all.ready == never - FIRST);
    }
    CHECK(never == FIRST + COUNT);
}

/* ------------------------------------------------------------ memory made ready */

static size_t resident_pages(const arena *memory) {
    static unsigned char pages[1 << 18];
    const size_t count = (memory->size + 4095) / 4096;
    CHECK(count <= sizeof pages && mincore(memory->base, memory->size, pages) == 0);
    size_t resident = 0;
    for (size_t at = 0; at < count; at++) resident += pages[at] & 1;
    return resident;
}

/* What is asked for is there, what was in it stays, and nothing beyond the arena is touched. */
static void test_memory_is_made_ready(void) {
    arena memory = {0};
    const size_t huge = (size_t)2 << 20;
    arena_reserve(&memory, 4, huge);
    CHECK(arena_map(&memory) == ZX_OK);
    memset(memory.base + huge, 7, 5000);
    const size_t before = resident_pages(&memory);
    arena_make_ready(&memory, memory.base + huge, 0);
    CHECK(resident_pages(&memory) == before);
    arena_make_ready(&memory, memory.base + huge, 1);
    const size_t some = resident_pages(&memory);
    CHECK(some >= huge / 4096 && some < memory.size / 4096);
    arena_make_ready(&memory, memory.base, memory.size);
    CHECK(resident_pages(&memory) == memory.size / 4096);
    for (size_t at = 0; at < memory.size; at++) {
        CHECK(memory.base[at] == (at >= huge && at < huge + 5000 ? 7 : 0));
    }
    arena_unmap(&memory);
}

/* ------------------------------------------------------------ configurations */

static int create_with(const engine_config *config) {
    engine *made = NULL;
    const int error = engine_create(config, &made);
    if (error == ZX_OK) engine_destroy(made);
    return error;
}

/* Whatever is out of its range is refused. */
static void test_configurations(void) {
    static const uint8_t bytes[32] = {1};
    static const engine_asset_config assets[] = {{.symbol = "A", .asset_id = 1}, {.symbol = "B", .asset_id = 2}};
    const engine_market_config market = {
        .symbol = "A-B", .base_units_per_lot = 1, .quote_units_per_tick_lot = 1, .market_id = 1, .quote_asset = 1, .taker_fee_ppm = 5,
    };
    const engine_config right = {
        .deployment_id = bytes, .operator_public_key = bytes, .assets = assets, .markets = &market,
        .sha256 = toy_hash, .asset_count = 2, .market_count = 1, .assets_max = 3, .markets_max = 2, .accounts_max = 4, .keys_max = 4, .balances_max = 8,
        .orders_max = 8, .outcomes_max = 64, .tracked = 1,
    };
    CHECK(create_with(&right) == ZX_OK);
    const uint32_t readies[] = {0, 1, 3, 8, UINT32_MAX}; /* of 8 orders */
    for (size_t at = 0; at < sizeof readies / sizeof *readies; at++) {
        engine *made;
        CHECK(engine_create(&right, &made) == ZX_OK);
        const size_t before = resident_pages(&made->memory);
        ready_make(made, readies[at]);
        CHECK((resident_pages(&made->memory) > before) == (readies[at] > 0));
        CHECK(engine_check(made) == NULL);
        engine_destroy(made);
    }
    const size_t limits[] = {
        offsetof(engine_config, accounts_max), offsetof(engine_config, keys_max), offsetof(engine_config, balances_max),
        offsetof(engine_config, orders_max), offsetof(engine_config, outcomes_max), offsetof(engine_config, asset_count),
        offsetof(engine_config, assets_max), offsetof(engine_config, markets_max),
    };
    for (size_t limit = 0; limit < sizeof limits / sizeof *limits; limit++) {
        const uint32_t values[] = {0, (1u << 26) + 1};
        for (size_t value = 0; value < 2; value++) {
            engine_config wrong = right;
            memcpy((uint8_t *)&wrong + limits[limit], &values[value], 4);
            CHECK(create_with(&wrong) == ZX_ERROR_CONFIG);
        }
    }
    engine_config wrong = right;
    wrong.market_count = (1u << 26) + 1;
    CHECK(create_with(&wrong) == ZX_ERROR_CONFIG);
    wrong = right;
    wrong.tracked = 2;
    CHECK(create_with(&wrong) == ZX_ERROR_CONFIG);
    wrong = right;
    wrong.sha256 = NULL;
    CHECK(create_with(&wrong) == ZX_ERROR_CONFIG);
    wrong.tracked = 0;
    CHECK(create_with(&wrong) == ZX_OK);
    wrong = right;
    wrong.market_count = 0;
    CHECK(create_with(&wrong) == ZX_OK);

    engine_market_config markets[11];
    for (size_t at = 0; at < 11; at++) markets[at] = market;
    markets[0].base_asset = 2;
    markets[1].quote_asset = 2;
    markets[2].base_asset = 1;
    markets[3].market_id = 0;
    markets[4].base_units_per_lot = 0;
    markets[5].base_units_per_lot = ZX_AMOUNT_MAX + 1;
    markets[6].quote_units_per_tick_lot = 0;
    markets[7].quote_units_per_tick_lot = ZX_AMOUNT_MAX + 1;
    markets[8].maker_fee_ppm = (int32_t)ENGINE_FEE_PPM_MAX + 1;
    markets[9].taker_fee_ppm = ENGINE_FEE_PPM_MAX + 1;
    markets[10].maker_fee_ppm = -6;
    for (size_t at = 0; at < 11; at++) {
        wrong = right;
        wrong.markets = &markets[at];
        CHECK(create_with(&wrong) == ZX_ERROR_CONFIG);
    }

    engine_asset_config others[2];
    const size_t kinds = 7;
    for (size_t kind = 0; kind < kinds; kind++) {
        memcpy(others, assets, sizeof others);
        if (kind == 0) others[1].asset_id = 1;
        if (kind == 1) others[1].asset_id = 0;
        if (kind == 2) others[1].symbol[0] = 'A';
        if (kind == 3) others[1].symbol[0] = 'b';
        if (kind == 4) others[1].symbol[0] = '-';
        if (kind == 5) others[1].symbol[2] = 'B';
        if (kind == 6) others[1].decimals = 19;
        wrong = right;
        wrong.assets = others;
        CHECK(create_with(&wrong) == ZX_ERROR_CONFIG);
    }
    const engine_market_config twice[2] = {market, market};
    wrong = right;
    wrong.markets = twice;
    wrong.market_count = 2;
    CHECK(create_with(&wrong) == ZX_ERROR_CONFIG);
}

/* The tick that two amounts make is a decimal number of at most 18 decimals. */
static void test_sizes(void) {
    CHECK(definitions_sizes_are_sound(0, 0, 1, 1) && definitions_sizes_are_sound(0, 0, 1, ZX_AMOUNT_MAX));
    CHECK(definitions_sizes_are_sound(0, 0, 1024, 3) && definitions_sizes_are_sound(8, 6, 10000, 1));
    CHECK(!definitions_sizes_are_sound(0, 0, 3, 1) && definitions_sizes_are_sound(0, 0, 3, 6));
    CHECK(!definitions_sizes_are_sound(18, 18, 7, ZX_AMOUNT_MAX - 1));
    CHECK(definitions_sizes_are_sound(18, 18, ZX_AMOUNT_MAX, ZX_AMOUNT_MAX));
    CHECK(definitions_sizes_are_sound(0, 18, 1, 1) && !definitions_sizes_are_sound(0, 18, 10, 1));
    CHECK(definitions_sizes_are_sound(18, 0, UINT64_C(1) << 36, 1));
    CHECK(!definitions_sizes_are_sound(18, 0, UINT64_C(1) << 37, 1));
}

/* Durations of all magnitudes against a plain list of them. */
static void test_stages_count_what_a_list_holds(uint64_t seed) {
    enum { COUNT = 5000 };
    static uint64_t durations[COUNT];
    static stages counted, copy;
    memset(&counted, 0, sizeof counted);
    uint64_t total_ns = 0;
    for (uint32_t at = 0; at < COUNT; at++) {
        durations[at] = ((uint64_t)random_below(&seed, UINT32_MAX) << 8) >> random_below(&seed, 40);
        stages_add(&counted, STAGE_MATCH, durations[at]);
        total_ns += durations[at];
    }
    stages_read(&copy, &counted);
    CHECK(memcmp(&copy, &counted, sizeof copy) == 0);
    CHECK(stages_count(&copy, STAGE_MATCH) == COUNT && stages_count(&copy, STAGE_BUS) == 0);
    CHECK(copy.total_ns[STAGE_MATCH] == total_ns);
    for (uint32_t power = 0; power < 50; power++) {
        for (uint64_t bound = UINT64_C(16) << power; bound < UINT64_C(32) << power; bound += UINT64_C(1) << power) {
            uint64_t below = 0;
            for (uint32_t at = 0; at < COUNT; at++) below += durations[at] < bound;
            CHECK(stages_below(&copy, STAGE_MATCH, bound) == below);
        }
    }
    for (uint64_t rank = 1; rank <= COUNT; rank += 7) {
        const uint64_t found_ns = stages_at_rank_ns(&copy, STAGE_MATCH, rank);
        uint64_t below = 0;
        uint64_t within = 0;
        for (uint32_t at = 0; at < COUNT; at++) {
            below += durations[at] < found_ns;
            within += stages_bucket(durations[at]) <= stages_bucket(found_ns);
        }
        CHECK(below < rank && rank <= within);
    }
    CHECK(stages_bucket(UINT64_MAX) < STAGES_BUCKETS);
}

/* What was counted between two copies; a count that was read a moment too early takes nothing away. */
static void test_stages_gather_what_is_new(void) {
    static stages before, now, between;
    stages_add(&before, STAGE_APPEND, 100);
    stages_add(&before, STAGE_APPEND, 5000);
    now = before;
    stages_add(&now, STAGE_APPEND, 5000);
    stages_add(&now, STAGE_BUS, 7);
    stages_gather(&between, &now, &before);
    CHECK(stages_count(&between, STAGE_APPEND) == 1 && between.total_ns[STAGE_APPEND] == 5000);
    CHECK(stages_count(&between, STAGE_BUS) == 1);
    now.counts[STAGE_BUS][stages_bucket(7)] = 0;
    now.counts[STAGE_BUS][stages_bucket(8)] = 2;
    before.counts[STAGE_BUS][stages_bucket(7)] = 1;
    stages_gather(&between, &now, &before);
    CHECK(stages_count(&between, STAGE_BUS) == 3);
}

static void test_figures_are_read_once_they_have_begun(void) {
    static figures counted, copy;
    figures_add(&counted, FIGURE_SESSIONS, 5);
    CHECK(!figures_read(&copy, &counted));
    figures_begin(&counted);
    CHECK(figures_read(&copy, &counted) && copy.values[FIGURE_SESSIONS] == 0);
    figures_add(&counted, FIGURE_SIGNATURES_GOOD, 5);
    figures_add(&counted, FIGURE_SIGNATURES_GOOD, 2);
    figures_set(&counted, FIGURE_QUEUED_FRAMES, 9);
    stages_add(&counted.stages, STAGE_VERIFY, 1000);
    CHECK(figures_read(&copy, &counted) && memcmp(&copy, &counted, sizeof copy) == 0);
    CHECK(copy.values[FIGURE_SIGNATURES_GOOD] == 7 && copy.values[FIGURE_QUEUED_FRAMES] == 9);
    counted.format = FIGURES_FORMAT + 1;
    CHECK(!figures_read(&copy, &counted));
}

int main(void) {
    const uint32_t capacities[] = {1, 2, 63, 64, 65, 128, 200};
    for (size_t at = 0; at < sizeof capacities / sizeof capacities[0]; at++) {
        test_slots(capacities[at], 1 + at);
    }
    test_slots_are_given_lowest_first_until_all_are_taken();
    test_slots_of_many_words(2 * 64 * 64, 8);
    test_slots_of_many_words(3 * 64 * 64 + 5, 9);
    test_idmap(11, 3);
    test_idmap(12, 1000);
    for (uint32_t order = RANKS_AT_RANDOM; order <= RANKS_DESCEND; order++) {
        test_ranks(13, 1, 1, order);
        test_ranks(14, RANKS_FANOUT + 1, 1, order);
        test_ranks(15, RANKED_MAX, 1, order);
        test_ranks(16, RANK_TREES_MAX / 2, RANK_TREES_MAX, order);
        test_ranks(17, 300, RANK_TREES_MAX, order);
    }
    test_ids(18, 64, 0);
    test_ids(19, 64, 5);
    test_ids(20, 50, 40);
    test_ids(21, 1, 1);
    test_lanes(41, LANE_ACCOUNTS, 1);
    test_lanes(42, 1, 4);
    test_lanes_with_every_order_alone();
    test_merkle_over_leaves_that_change_grow_and_shrink(21);
    test_spares(57);
    test_memory_is_made_ready();
    test_configurations();
    test_sizes();
    test_stages_count_what_a_list_holds(81);
    test_stages_gather_what_is_new();
    test_figures_are_read_once_they_have_begun();
    puts("ok");
    return 0;
}
