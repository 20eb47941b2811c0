/*
 * broken.c: whatever breaks in an engine, engine_check() notices.
 *
 * Replays a stream from a file. Now and then each field of the state is given wrong values, one at a time, and the
 * check is asked; a value that cannot be told from a right one (a lower report number, say) is none of its business,
 * but each field must be noticed at least once, or it is not checked at all. Prints the fields that were tried, those
 * that were noticed, and every sentence that was said; the caller compares.
 */

#include <stddef.h>

#include "lob.h"
#include "state.h"
#include "stream.h"

enum kind {
    INDEX,  /* of something, or ZX_NONE: another that exists */
    AMOUNT, /* 64 bits: near, zero, huge */
    COUNT,  /* 32 bits: one more, one less */
    SMALL,  /* a byte: any */
    WORD,   /* 32 bits: near, zero, huge; nothing is found by it */
};

typedef struct field {
    const char *name;
    enum kind kind;
    size_t at; /* in its struct */
} field;

#define F(type, member, kind) {#type "." #member, kind, offsetof(type, member)}

static const field of_order[] = {
    F(book_order, order_id, AMOUNT),   F(book_order, client_order_id, AMOUNT), F(book_order, priority_no, AMOUNT),
    F(book_order, qty_lots, AMOUNT),   F(book_order, leaves_lots, AMOUNT),     F(book_order, next, INDEX),
    F(book_order, prev, INDEX),        F(book_order, owner_next, INDEX),       F(book_order, owner_prev, INDEX),
    F(book_order, level, INDEX),
};
static const field of_level[] = {
    F(book_level, rank, AMOUNT),       F(book_level, total_lots, AMOUNT), F(book_level, order_count, COUNT),
    F(book_level, next, INDEX),        F(book_level, prev, INDEX),        F(book_level, market, COUNT),
    F(book_level, side, COUNT),        F(book_level, hidden_count, COUNT), F(book_level, word, AMOUNT),
    F(book_level, bit, AMOUNT),
};
static const field of_side[] = {F(book_side, best_rank, AMOUNT), F(book_side, best, INDEX)};
static const field of_tree[] = {F(ranks, root, INDEX), F(ranks, first, INDEX), F(ranks, height, WORD)};
static const field of_node[] = {
    {"ranks_node.keys[0]", AMOUNT, offsetof(ranks_node, keys[0])},
    {"ranks_node.keys[14]", AMOUNT, offsetof(ranks_node, keys[14])},
    {"ranks_node.values[0]", INDEX, offsetof(ranks_node, values[0])},
    F(ranks_node, count, COUNT),
    F(ranks_node, next, INDEX),
};
static const field of_pool[] = {
    F(book_pool, free_levels.used, INDEX), F(book_pool, free_levels.ready, INDEX), F(book_pool, far.free, INDEX),
    F(book_pool, far.fresh, INDEX),
};
static const field of_ids[] = {F(ids, others.count, COUNT)};
static const field of_place[] = {{"ids.places", INDEX, 0}};
static const field of_any_slot[] = {F(book_pool, free_slots.used, INDEX), F(book_pool, free_slots.ready, INDEX)};
static const field of_free_level[] = {{"free_levels.numbers", INDEX, 0}};
static const field of_free_slot[] = {{"free_slots.numbers", INDEX, 0}};
static const field of_book_terms[] = {
    F(book_terms, display_lots, AMOUNT), F(book_terms, shown_lots, AMOUNT), F(book_terms, expire_time_ns, AMOUNT),
};
static const field of_terms[] = {
    F(engine_terms, price_ticks, AMOUNT),  F(engine_terms, trail_ticks, AMOUNT), F(engine_terms, best_ticks, AMOUNT),
    F(engine_terms, trail_ppm, WORD),      F(engine_terms, market, COUNT),       F(engine_terms, pair, INDEX),
    F(engine_terms, heap_at, INDEX),       F(engine_terms, list_next, INDEX),    F(engine_terms, side, SMALL),
    F(engine_terms, order_type, SMALL),    F(engine_terms, time_in_force, SMALL),
    F(engine_terms, self_trade_prevention, SMALL), F(engine_terms, trigger, SMALL), F(engine_terms, on_reference, SMALL),
    F(engine_terms, is_hidden, SMALL),     F(engine_terms, is_iceberg, SMALL),
};
static const field of_market[] = {
    F(engine_market, quote_units_per_tick_lot, AMOUNT), F(engine_market, base_units_per_lot, AMOUNT),
    F(engine_market, quote_asset, COUNT),      F(engine_market, base_asset, COUNT),
    F(engine_market, state, WORD),             F(engine_market, last_ticks, AMOUNT),
    F(engine_market, reference_ticks, AMOUNT), F(engine_market, waiting_count, COUNT),
    F(engine_market, trailing_count, COUNT),   F(engine_market, trailing_head, INDEX),
    F(engine_market, until_ns, AMOUNT),        F(engine_market, auction_ticks, AMOUNT),
    F(engine_market, notional_max, AMOUNT),    F(engine_market, qty_lots_max, AMOUNT),
    F(engine_market, interruption_ns, AMOUNT), F(engine_market, next_state, COUNT),
    F(engine_market, dynamic_band_ppm, WORD),  F(engine_market, static_band_ppm, WORD),
    F(engine_market, called_off, COUNT),       F(engine_market, for_auctions.sides[0].best, INDEX),
    F(engine_market, for_auctions.sides[1].best, INDEX),
    F(engine_market, auction_head, INDEX),     F(engine_market, book.sides[0].kept_words, AMOUNT),
    F(engine_market, book.sides[0].base, AMOUNT), F(engine_market, book.kept[0], COUNT),
    F(engine_market, book.kept[1], COUNT),     F(engine_market, book.sides[1].kept_words, AMOUNT),
    F(engine_market, market_id, WORD),         F(engine_market, symbol, AMOUNT),
    F(engine_market, maker_fee_ppm, WORD),     F(engine_market, taker_fee_ppm, WORD),
    F(engine_market, fee_balance, COUNT),      F(engine_market, sizes_no, WORD),
};
static const field of_account[] = {
    F(ledger_account, first_balance, INDEX), F(ledger_account, balance_count, COUNT),
    F(ledger_account, order_head, INDEX),    F(ledger_account, order_tail, INDEX),
    F(ledger_account, order_count, COUNT),   F(ledger_account, opened, COUNT),
};
static const field of_balance[] = {
    F(ledger_balance, available, AMOUNT), F(ledger_balance, held, AMOUNT),
    F(ledger_balance, account, COUNT),    F(ledger_balance, next, INDEX),
};
static const field of_key[] = {
    F(ledger_key, public_key, AMOUNT), F(ledger_key, highest_nonce, AMOUNT), F(ledger_key, account, WORD),
};
static const field of_rules[] = {
    F(engine_account_rules, fee_discount_ppm, WORD),  F(engine_account_rules, orders_max, WORD),
    F(engine_account_rules, orders_per_second, WORD), F(engine_account_rules, rate_count, WORD),
    F(engine_account_rules, rate_second, AMOUNT),
};
static const field of_outcome[] = {
    F(engine_outcome, nonce, AMOUNT), F(engine_outcome, key_index, COUNT), F(engine_outcome, command_index, SMALL),
};
static const field of_lane[] = {
    F(lane, account, COUNT), F(lane, market, COUNT), F(lane, side, COUNT),
    F(lane, count, COUNT),   F(lane, head, INDEX),   F(lane, tail, INDEX),
};
static const field of_link[] = {
    F(lane_link, lane, INDEX), F(lane_link, next, INDEX), F(lane_link, prev, INDEX),
};
static const field of_engine[] = {
    F(engine, next_seq, AMOUNT),
    F(engine, pool.next_priority_no, AMOUNT),
    F(engine, pool.taken.count, COUNT),
    F(engine, by_id.count, COUNT),
    F(engine, outcome_map.count, COUNT),
    F(engine, lanes.map.count, COUNT),
    F(engine, ledger.account_count, COUNT),
    F(engine, ledger.key_count, COUNT),
    F(engine, ledger.balance_count, COUNT),
    F(engine, ledger.asset_count, COUNT),
    F(engine, market_count, COUNT),
    F(engine, expiry_count, COUNT),
    F(engine, rule_count, COUNT),
    F(engine, outcomes_count, AMOUNT),
    F(engine, next_market_end_ns, AMOUNT),
};
static const field of_amount[] = {{"ledger.supplies", AMOUNT, 0}};
static const field of_word[] = {{"engine.expiry_heap", INDEX, 0}};
static const field of_window[] = {{"book_side.words", AMOUNT, 0}};
static const field of_window_level[] = {{"book_side.entries", WORD, 0}};
static const field of_defined[] = {{"engine.market_defined", AMOUNT, 0}};
static const field of_asset_id[] = {{"ledger.asset_ids", WORD, 0}};
static const field of_asset_symbol[] = {{"ledger.asset_symbols", AMOUNT, 0}};
static const field of_asset_decimals[] = {{"ledger.asset_decimals", SMALL, 0}};
static const field of_group[] = {{"engine.trade_groups", WORD, 0}};

/* What was said, and which fields were noticed; few enough to look through. */
static const char *said[256];
static size_t said_count;
static const char *noticed[256];
static size_t noticed_count;
static const char *tried[256];
static size_t tried_count;

static void remember(const char **list, size_t *count, const char *text) {
    for (size_t at = 0; at < *count; at++) {
        if (strcmp(list[at], text) == 0) return;
    }
    CHECK(*count < 256);
    list[(*count)++] = text;
}

typedef const char *check_function(const void *subject);

static const char *check_engine(const void *subject) {
    return engine_check(subject);
}

static const char *check_lob(const void *subject) {
    return lob_check(subject);
}

static void ask(check_function *check, const void *subject, const char *name) {
    const char *const broken = check(subject);
    if (broken == NULL) return;
    remember(said, &said_count, broken);
    remember(noticed, &noticed_count, name);
}

/* Gives a field wrong values, asks after each, and puts the right one back. */
static void poke(
    check_function *check, const void *subject, const field *which, void *element, uint32_t bound, uint64_t *random
) {
    uint8_t *const at = (uint8_t *)element + which->at;
    remember(tried, &tried_count, which->name);
    if (which->kind == SMALL) {
        const uint8_t right = *at;
        const uint8_t values[] = {(uint8_t)(right ^ 1), 0, (uint8_t)(right + 1), (uint8_t)random_below(random, 256)};
        for (size_t value = 0; value < sizeof values; value++) {
            *at = values[value];
            ask(check, subject, which->name);
        }
        *at = right;
    } else if (which->kind == AMOUNT) {
        uint64_t right;
        memcpy(&right, at, 8);
        const uint64_t values[] = {right - 1, right + 1, 0, right | UINT64_C(1) << 62, UINT64_MAX, right + 50};
        for (size_t value = 0; value < sizeof values / 8; value++) {
            memcpy(at, &values[value], 8);
            ask(check, subject, which->name);
        }
        memcpy(at, &right, 8);
    } else {
        uint32_t right;
        memcpy(&right, at, 4);
        uint32_t values[] = {right + 1, right - 1, 0, UINT32_MAX - 1};
        size_t count = which->kind == COUNT ? (right > 0 ? 2 : 1) : 4;
        if (which->kind == INDEX) {
            values[0] = ZX_NONE;
            values[1] = bound > 0 ? random_below(random, bound) : ZX_NONE;
            values[2] = 0;
            count = 3;
        }
        for (size_t value = 0; value < count; value++) {
            memcpy(at, &values[value], 4);
            ask(check, subject, which->name);
        }
        memcpy(at, &right, 4);
    }
}

#define POKE_ALL(check, subject, fields, element, bound) \
    for (size_t which = 0; which < sizeof(fields) / sizeof *(fields); which++) { \
        poke(check, subject, &(fields)[which], element, bound, random); \
    }

/* The owner and the flags share a word. */
static void poke_bits(check_function *check, const void *subject, book_order *order) {
    const book_order right = *order;
    remember(tried, &tried_count, "book_order.flags");
    remember(tried, &tried_count, "book_order.owner");
    for (uint32_t bit = 0; bit < 32 - BOOK_OWNER_BITS; bit++) {
        order->flags = (right.flags ^ 1u << bit) & ((1u << (32 - BOOK_OWNER_BITS)) - 1);
        ask(check, subject, "book_order.flags");
    }
    order->flags = right.flags;
    for (uint32_t owner = 0; owner < 3; owner++) {
        book_set_owner(order, owner);
        ask(check, subject, "book_order.owner");
    }
    *order = right;
}

static bool has_order(const book_pool *pool, uint32_t slot) {
    if (pool->free_slots.numbers == NULL) return slots_is_taken(&pool->taken, slot);
    return slot < pool->free_slots.ready && pool->orders[slot].level != ZX_NONE;
}

/* One of the numbers that are free, if there are any. */
static void poke_free(
    check_function *check, const void *subject, const field *which, spares *free, uint32_t bound, uint64_t *random
) {
    if (free->numbers == NULL || free->used == free->ready) return;
    poke(check, subject, which, &free->numbers[free->used + random_below(random, free->ready - free->used)], bound, random);
}

/* One order of three, so that each step takes no longer than it must, and each that is hidden: they are rare. */
static void poke_pool(check_function *check, const void *subject, book_pool *pool, uint64_t *random) {
    const uint32_t end = pool->levels_end;
    for (uint32_t slot = 0; slot < pool->capacity; slot++) {
        if (!has_order(pool, slot)) continue;
        book_order *const order = &pool->orders[slot];
        if (random_below(random, 3) != 0 && !(order->flags & BOOK_HIDDEN)) continue;
        POKE_ALL(check, subject, of_order, order, end)
        POKE_ALL(check, subject, of_book_terms, &pool->terms[slot], end)
        poke_bits(check, subject, order);
        if (order->level != ZX_NONE) POKE_ALL(check, subject, of_level, &pool->levels[order->level], end)
    }
    POKE_ALL(check, subject, of_pool, pool, end)
    if (pool->free_slots.numbers != NULL) POKE_ALL(check, subject, of_any_slot, pool, end)
    poke_free(check, subject, of_free_level, &pool->free_levels, end, random);
    poke_free(check, subject, of_free_slot, &pool->free_slots, pool->capacity, random);
    const spares *const levels = &pool->free_levels;
    const uint32_t any = levels->first + random_below(random, levels->ready + 1);
    if (any < levels->first + levels->ready) POKE_ALL(check, subject, of_level, &pool->levels[any], end)
}

/* Where an order is found by its id, or could be. */
static void poke_ids(check_function *check, const void *subject, ids *by_id, uint64_t *random) {
    POKE_ALL(check, subject, of_ids, by_id, 1)
    POKE_ALL(check, subject, of_place, &by_id->places[random_below(random, by_id->mask + 1)], by_id->others.limit)
}

/* Where the levels of a side are found. */
static void poke_side(check_function *check, const void *subject, book *book, uint8_t side, uint64_t *random) {
    const book_pool *const pool = book->pool;
    book_side *const its = &book->sides[side];
    POKE_ALL(check, subject, of_side, its, pool->levels_end)
    POKE_ALL(check, subject, of_tree, &its->far, pool->far.capacity)
    if (its->far.root == ZX_NONE) return;
    POKE_ALL(check, subject, of_node, &pool->far.nodes[its->far.root], pool->levels_end)
    POKE_ALL(check, subject, of_node, &pool->far.nodes[its->far.first], pool->levels_end)
}

/* Defects of more than one field, that agree with each other. */
static void break_lists(engine *self) {
    book_order *const orders = self->pool.orders;
    for (uint32_t id = 1; id <= self->ledger.highest_account; id++) {
        ledger_account *const account = &self->ledger.accounts[id];
        if (!account->opened || account->order_count < 2) continue;
        const ledger_account right = *account;
        const uint32_t first = account->order_head;
        const uint32_t second = orders[first].owner_next;
        const book_order right_first = orders[first];
        const book_order right_second = orders[second];
        /* The first two change places. */
        const uint32_t third = orders[second].owner_next;
        account->order_head = second;
        orders[second].owner_prev = ZX_NONE;
        orders[second].owner_next = first;
        orders[first].owner_prev = second;
        orders[first].owner_next = third;
        if (third == ZX_NONE) {
            account->order_tail = first;
        } else {
            orders[third].owner_prev = first;
        }
        ask(check_engine, self, "account's list, not sorted");
        if (third != ZX_NONE) orders[third].owner_prev = second;
        orders[first] = right_first;
        orders[second] = right_second;
        *account = right;
        /* The first is forgotten. */
        account->order_head = second;
        account->order_count--;
        orders[second].owner_prev = ZX_NONE;
        ask(check_engine, self, "account's list, one is missing");
        orders[second] = right_second;
        *account = right;
    }
    for (uint32_t index = 0; index < self->market_count; index++) {
        engine_market *const market = &self->markets[index];
        const engine_market right = *market;
        market->state = ZX_MARKET_STATE_CONTINUOUS; /* with what was collected for an auction */
        market->until_ns = 0;
        ask(check_engine, self, "a market's state");
        *market = right;
        book *const book = &market->book;
        book_level *const levels = self->pool.levels;
        for (uint8_t side = 0; side < 2; side++) {
            book_side *const its = &market->for_auctions.sides[side];
            if (its->best == ZX_NONE) continue;
            /* Those that wait for an auction wait at another price. */
            const int64_t rank = its->best_rank;
            int64_t *const key = &self->pool.far.nodes[its->far.first].keys[0];
            its->best_rank = levels[its->best].rank = *key = 2 * rank;
            ask(check_engine, self, "a market's queue for an auction");
            its->best_rank = levels[its->best].rank = *key = rank;
        }
        for (uint8_t side = 0; side < 2; side++) {
            const uint32_t best = book->sides[side].best;
            for (uint32_t at = best; at != ZX_NONE; at = book_worse_level(book, at)) {
                const uint32_t hidden = levels[at].hidden_head;
                const uint32_t head = levels[at].next;
                if (levels[at].hidden_count == 0 || hidden == head) continue;
                /* The first order hides instead of the first hidden one. */
                book_set_flags(&orders[head], BOOK_HIDDEN);
                book_clear_flags(&orders[hidden], BOOK_HIDDEN);
                levels[at].hidden_head = head;
                ask(check_engine, self, "a level's hidden orders");
                book_clear_flags(&orders[head], BOOK_HIDDEN);
                book_set_flags(&orders[hidden], BOOK_HIDDEN);
                levels[at].hidden_head = hidden;
            }
            const uint32_t second = best == ZX_NONE ? ZX_NONE : book_worse_level(book, best);
            if (second == ZX_NONE) continue;
            /* The second best level is taken for the best. */
            book->sides[side].best = second;
            book->sides[side].best_rank = levels[second].rank;
            ask(check_engine, self, "a side's best level");
            book->sides[side].best = best;
            book->sides[side].best_rank = levels[best].rank;
        }
    }
}

/* Takes an order out of its queue, and stops: the engine is good for nothing afterwards. */
static void lose_an_order(engine *self) {
    for (uint32_t index = 0; index < self->market_count; index++) {
        book *const book = &self->markets[index].book;
        if (book->sides[0].best == ZX_NONE) continue;
        book_unlink(book, self->pool.levels[book->sides[0].best].next);
        ask(check_engine, self, "queue");
        return;
    }
}

static void poke_engine(engine *self, uint64_t *random) {
    const uint32_t orders_max = self->pool.taken.capacity;
    poke_pool(check_engine, self, &self->pool, random);
    poke_ids(check_engine, self, &self->by_id, random);
    break_lists(self);
    for (uint32_t slot = 0; slot < orders_max; slot++) {
        if (!slots_is_taken(&self->pool.taken, slot) || random_below(random, 3) != 0) continue;
        POKE_ALL(check_engine, self, of_terms, &self->terms[slot], orders_max)
        POKE_ALL(check_engine, self, of_link, &self->lanes.links[slot * LANES_PER_ORDER], self->lanes.size)
        POKE_ALL(check_engine, self, of_lane, &self->lanes.pool[self->lanes.links[slot * LANES_PER_ORDER + 1].lane], orders_max)
    }
    for (uint32_t index = 0; index < self->market_count; index++) {
        POKE_ALL(check_engine, self, of_market, &self->markets[index], self->pool.levels_end)
        POKE_ALL(check_engine, self, of_defined, &self->market_defined[index], 1)
        const book_side *const window = &self->markets[index].book.sides[random_below(random, 2)];
        const uint32_t entry = random_below(random, window->size);
        POKE_ALL(check_engine, self, of_window, &window->words[entry / 64], 1)
        POKE_ALL(check_engine, self, of_window_level, &window->entries[entry], 1)
        for (uint8_t side = 0; side < 2; side++) {
            poke_side(check_engine, self, &self->markets[index].book, side, random);
            poke_side(check_engine, self, &self->markets[index].stops[random_below(random, 2)], side, random);
        }
    }
    const uint32_t account = random_below(random, self->ledger.highest_account + 1);
    POKE_ALL(check_engine, self, of_account, &self->ledger.accounts[account], self->ledger.balance_count)
    POKE_ALL(check_engine, self, of_rules, &self->account_rules[account], 1)
    POKE_ALL(check_engine, self, of_group, &self->trade_groups[account], 1)
    POKE_ALL(check_engine, self, of_balance, &self->ledger.balances[random_below(random, self->ledger.balance_count)],
             self->ledger.balance_count)
    POKE_ALL(check_engine, self, of_key, &self->ledger.keys[random_below(random, self->ledger.key_count)], 1)
    const uint32_t asset = random_below(random, self->ledger.asset_count);
    POKE_ALL(check_engine, self, of_amount, &self->ledger.supplies[asset], 1)
    POKE_ALL(check_engine, self, of_asset_id, &self->ledger.asset_ids[asset], 1)
    POKE_ALL(check_engine, self, of_asset_symbol, self->ledger.asset_symbols[asset], 1)
    POKE_ALL(check_engine, self, of_asset_decimals, &self->ledger.asset_decimals[asset], 1)
    if (self->expiry_count > 0) {
        POKE_ALL(check_engine, self, of_word, &self->expiry_heap[random_below(random, self->expiry_count)], orders_max)
    }
    if (self->outcomes_count > 0) {
        const uint64_t ordinal = self->outcomes_head - 1 - random_below(random, (uint32_t)self->outcomes_count);
        POKE_ALL(check_engine, self, of_outcome, &self->outcomes[engine_outcome_position(self, ordinal)], 1)
    }
    POKE_ALL(check_engine, self, of_engine, self, 1)
    CHECK(engine_check(self) == NULL);
}

/* The same for a book alone, with what only lob_check() says. */
static void poke_lob(uint64_t *random) {
    lob *book;
    CHECK(lob_create(64, &book) == ZX_OK);
    for (uint64_t id = 1; id < 400; id++) {
        lob_command command = {.kind = LOB_NEW, .order_id = id, .account = (uint32_t)(1 + id % 3)};
        command.side = (uint8_t)random_below(random, 2);
        command.price_ticks = 100 + (int64_t)random_below(random, 12) - (command.side == 0 ? 6 : 0);
        command.qty_lots = 1 + random_below(random, 9);
        command.order_type = LOB_LIMIT;
        CHECK(lob_apply(book, &command, 1) == 1);
        poke_pool(check_lob, book, &book->pool, random);
        poke_ids(check_lob, book, &book->by_id, random);
        poke_side(check_lob, book, &book->book, (uint8_t)random_below(random, 2), random);
        book->by_id.count++;
        ask(check_lob, book, "lob.by_id.count");
        book->by_id.count--;
        CHECK(lob_check(book) == NULL);
    }
    lob_destroy(book);
}

int main(int count, char **arguments) {
    CHECK(count == 3); /* file, seed */
    size_t length;
    uint8_t *const bytes = read_file(arguments[1], &length);
    uint64_t seed = strtoull(arguments[2], NULL, 10) | 1;
    uint64_t *const random = &seed;
    input from = {.at = bytes, .end = bytes + length};
    const engine_config config = read_config(&from, seed);
    engine *const self = make(&config);
    for (uint32_t step = 0; from.at < from.end; step++) {
        engine_applied applied;
        apply_step(self, &from, &applied);
        if (step % 3 == 0) poke_engine(self, random);
    }
    lose_an_order(self);
    poke_lob(random);
    for (size_t at = 0; at < tried_count; at++) printf("tried: %s\n", tried[at]);
    for (size_t at = 0; at < noticed_count; at++) printf("noticed: %s\n", noticed[at]);
    for (size_t at = 0; at < said_count; at++) printf("%s\n", said[at]);
    engine_destroy(self);
    free((void *)config.assets);
    free((void *)config.markets);
    free(bytes);
    return 0;
}
