#define _GNU_SOURCE /* the clocks */

#include "bookbench.h"

#include <time.h>

#define CHUNK 64u
#define RING 65536u /* trades; a power of two */

uint64_t bookbench_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void run_lob(lob *target, const lob_command *commands, size_t count, bookbench_result *result) {
    size_t at = 0;
    while (at < count) {
        const size_t wanted = count - at < CHUNK ? count - at : CHUNK;
        at += lob_apply(target, commands + at, wanted);
        result->events += target->event_count;
    }
}

int bookbench_lob(
    const lob_command *commands, size_t count, size_t first, uint32_t orders_max, hdr *latency,
    bookbench_result *result
) {
    *result = (bookbench_result){0};
    lob *target;
    const int error = lob_create(orders_max, &target);
    if (error != ZX_OK) return error;
    run_lob(target, commands, first, result);
    result->events = 0;
    if (latency == NULL) {
        const uint64_t begun_ns = bookbench_now_ns();
        run_lob(target, commands + first, count - first, result);
        result->elapsed_ns = bookbench_now_ns() - begun_ns;
    } else {
        for (size_t at = first; at < count; at++) {
            const uint64_t begun_ns = bookbench_now_ns();
            lob_apply(target, commands + at, 1);
            hdr_record(latency, bookbench_now_ns() - begun_ns);
            result->events += target->event_count;
            for (uint32_t event = 0; event < target->event_count; event++) {
                result->trades += target->events[event].kind == LOB_TRADE;
            }
        }
    }
    result->resting = lob_count(target);
    lob_destroy(target);
    return ZX_OK;
}

/* ------------------------------------------------------------ the other library */

typedef struct trade_ring {
    uint8_t trades[RING][40];
    uint64_t count;
} trade_ring;

static trade_ring ring;

static void on_trade(const void *trade, void *context) {
    trade_ring *const to = context;
    memcpy(to->trades[to->count++ % RING], trade, sizeof to->trades[0]);
}

void bookbench_peer_apply(const bookbench_peer *peer, void *target, const lob_command *command) {
    const int32_t side = command->side == BOOK_BUY; /* it counts the other way round */
    uint32_t filled = 0;
    switch (command->kind) {
    case LOB_CANCEL:
        peer->cancel(target, command->order_id);
        return;
    case LOB_AMEND:
        if (peer->cancel(target, command->order_id) != 0) return;
        break;
    default:
        break;
    }
    const uint32_t qty = (uint32_t)command->qty_lots;
    if (command->order_type == LOB_MARKET) {
        peer->market(target, side, command->order_id, qty, &filled);
        return;
    }
    peer->limit(target, side, command->order_id, qty, (uint64_t)command->price_ticks, &filled);
    if (command->kind == LOB_NEW && command->time_in_force == LOB_IOC && filled < qty) {
        peer->cancel(target, command->order_id);
    }
}

void *bookbench_peer_create(const bookbench_peer *peer) {
    void *const target = peer->create();
    if (target != NULL) peer->set_callback(target, on_trade, &ring);
    return target;
}

uint64_t bookbench_peer_trades(void) {
    return ring.count;
}

int bookbench_peer_run(
    const bookbench_peer *peer, const lob_command *commands, size_t count, size_t first, hdr *latency,
    bookbench_result *result
) {
    *result = (bookbench_result){0};
    void *const target = bookbench_peer_create(peer);
    if (target == NULL) return ZX_ERROR_MEMORY;
    for (size_t at = 0; at < first; at++) bookbench_peer_apply(peer, target, &commands[at]);
    const uint64_t before = ring.count;
    if (latency == NULL) {
        const uint64_t begun_ns = bookbench_now_ns();
        for (size_t at = first; at < count; at++) bookbench_peer_apply(peer, target, &commands[at]);
        result->elapsed_ns = bookbench_now_ns() - begun_ns;
    } else {
        for (size_t at = first; at < count; at++) {
            const uint64_t begun_ns = bookbench_now_ns();
            bookbench_peer_apply(peer, target, &commands[at]);
            hdr_record(latency, bookbench_now_ns() - begun_ns);
        }
    }
    result->trades = result->events = ring.count - before;
    peer->destroy(target);
    return ZX_OK;
}
