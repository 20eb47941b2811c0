/*
 * alone.c: the book alone under commands of any kind: prices, sides and ids that there cannot be, and some that are alike.
 *
 * Prints a digest of all events. However the book is built, with windows or without, with places for ids or nearly none,
 * fetching ahead or not, and however many commands it is given at once, the digest must be the same.
 */

#include "kit.h"
#include "lob.h"

enum { ORDERS_MAX = 900, FEW_ORDERS = 150, BATCH_MAX = 64, BATCHES = 3000 };

static uint64_t digest = UINT64_C(0xcbf29ce484222325);

static void note(uint64_t value) {
    digest = (digest ^ value) * UINT64_C(0x100000001b3);
}

/* Ids that count up, and ids of which many have the same low bits. */
static uint64_t any_id(uint64_t newest, uint64_t *seed) {
    const uint64_t ends[] = {0, UINT64_MAX, UINT64_C(1) << 63, UINT32_MAX};
    const uint64_t back = newest - random_below(seed, 2 * ORDERS_MAX);
    const uint32_t kind = random_below(seed, 20);
    return kind == 0 ? ends[random_below(seed, 4)] : kind < 7 ? back << 40 | 5 : back;
}

static int64_t any_price(uint8_t side, int64_t centre_ticks, uint64_t *seed) {
    const int64_t ends[] = {0, -1, 1, ZX_TICKS_MAX, ZX_TICKS_MAX + 1, INT64_MAX, INT64_MIN, -INT64_MAX};
    const uint32_t kind = random_below(seed, 40);
    const int64_t away_ticks = (int64_t)random_below(seed, kind < 20 ? 60 : kind < 30 ? 5000 : 5000000) - 6;
    if (kind == 39) return ends[random_below(seed, 8)];
    return side == BOOK_BUY ? centre_ticks - away_ticks : centre_ticks + away_ticks;
}

static lob_command any_command(bool counts_up, uint64_t newest, int64_t centre_ticks, uint64_t *seed) {
    const uint32_t kind = random_below(seed, 50);
    const bool is_odd = random_below(seed, 50) == 0;
    lob_command made = {.side = (uint8_t)random_below(seed, 2)};
    made.kind = kind < 26 ? LOB_NEW : kind < 40 ? LOB_CANCEL : kind < 49 ? LOB_AMEND : (uint8_t)random_below(seed, 256);
    const bool is_newest = made.kind == LOB_NEW && (random_below(seed, 2) || counts_up);
    made.order_id = is_newest ? newest : any_id(newest, seed);
    made.price_ticks = any_price(made.side, centre_ticks, seed);
    made.qty_lots = random_below(seed, 30) == 0 ? ZX_LOTS_MAX : 1 + random_below(seed, 9);
    made.account = random_below(seed, 4);
    made.order_type = random_below(seed, 12) == 0;
    made.time_in_force = random_below(seed, 4) == 0 ? (uint8_t)random_below(seed, 3) : LOB_GTC;
    made.stp = random_below(seed, 2) ? (uint8_t)random_below(seed, 5) : LOB_STP_NONE;
    made.post_only = random_below(seed, 10) == 0;
    uint8_t *const options[] = {&made.side, &made.order_type, &made.time_in_force, &made.stp, &made.post_only};
    if (is_odd) *options[random_below(seed, 5)] = (uint8_t)random_below(seed, 256);
    if (random_below(seed, 100) == 0) made.account = UINT32_MAX;
    if (random_below(seed, 100) == 0) made.qty_lots = random_below(seed, 2) ? 0 : UINT64_MAX;
    return made;
}

/* What is known of one book says nothing of where the ids of another lie. */
static void test_books_have_seeds_of_their_own(void) {
    lob *books[2];
    CHECK(lob_create(1, &books[0]) == ZX_OK && lob_create(1, &books[1]) == ZX_OK);
    CHECK(books[0]->by_id.seed != books[1]->by_id.seed);
    for (uint32_t which = 0; which < 2; which++) lob_destroy(books[which]);
}

/* `counts_up`: the id of each new order is above all before it. */
static void play(bool counts_up, uint32_t orders_max, size_t at_once) {
    uint64_t seed = 91;
    int64_t centre_ticks = 1 << 24;
    uint32_t orders_most = 0;
    uint64_t above_all = 0;
    lob *book;
    CHECK(lob_create(orders_max, &book) == ZX_OK);
    for (uint64_t batch = 0; batch < BATCHES; batch++) {
        lob_command commands[BATCH_MAX];
        if (random_below(&seed, 8) == 0) centre_ticks += (int64_t)random_below(&seed, 6001) - 3000;
        for (size_t at = 0; at < BATCH_MAX; at++) {
            commands[at] = any_command(counts_up, (batch + 100) * BATCH_MAX + at, centre_ticks, &seed);
            above_all += commands[at].kind == LOB_NEW && commands[at].order_id > book->by_id.highest;
        }
        for (size_t applied = 0; applied < BATCH_MAX;) {
            const size_t before = applied;
            const size_t left = BATCH_MAX - applied;
            applied += lob_apply(book, commands + applied, left < at_once ? left : at_once);
            for (uint32_t at = 0; at < book->event_count; at++) {
                const lob_event *const event = &book->events[at];
                note(event->order_id);
                note(event->maker_order_id);
                note((uint64_t)event->price_ticks);
                note(event->qty_lots);
                note(before + event->command);
                note((uint64_t)event->kind << 16 | (uint64_t)event->reason << 8 | event->side);
            }
        }
        if (lob_count(book) > orders_most) orders_most = lob_count(book);
        CHECK(batch % 16 != 0 || lob_check(book) == NULL);
    }
    CHECK(counts_up ? orders_most == orders_max : orders_most > orders_max / 2);
    CHECK((above_all > BATCHES * BATCH_MAX / 3) == counts_up);
    lob_destroy(book);
}

int main(int count, char **arguments) {
    CHECK(count == 2); /* commands at once at most */
    const size_t at_once = (size_t)atoi(arguments[1]);
    test_books_have_seeds_of_their_own();
    play(false, ORDERS_MAX, at_once);
    play(true, FEW_ORDERS, at_once);
    printf("%016llx\n", (unsigned long long)digest);
    return 0;
}
