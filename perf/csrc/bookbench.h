/*
 * bookbench.h: the same commands through one book or another, timed around the loop or around each command.
 *
 *     lob_command[] ──┬──▶ lob_apply(), 64 at a time       csrc/lob.h, reports into its ring of events
 *                     └──▶ functions of another library    by address, trades into a ring by its callback
 *
 * The other library is driven by the C interface of PyPI's orderly-chaos: limit, market (immediate), cancel. An amend is a
 * cancel and a new order there, as its documentation says. Timing one command costs two readings of the clock, some 40 ns,
 * which are part of each figure; the loop is timed without them.
 */
#ifndef PERF_BOOKBENCH_H
#define PERF_BOOKBENCH_H

#include "hdr.h"
#include "lob.h"

/* Functions of the other library; signatures as in its header. */
typedef struct bookbench_peer {
    void *(*create)(void);
    void (*destroy)(void *target);
    int32_t (*set_callback)(void *target, void (*callback)(const void *trade, void *context), void *context);
    int32_t (*limit)(void *target, int32_t side, uint64_t order_id, uint32_t qty, uint64_t price, uint32_t *filled);
    int32_t (*market)(void *target, int32_t side, uint64_t order_id, uint32_t qty, uint32_t *filled);
    int32_t (*cancel)(void *target, uint64_t order_id);
} bookbench_peer;

typedef struct bookbench_result {
    uint64_t elapsed_ns; /* of the loop; 0 when each command was timed */
    uint64_t events;     /* reports, or trades of the other library */
    uint64_t trades;
    uint64_t refused; /* of ours, of many markets: commands; a flow has none */
    uint64_t resting; /* orders at the end */
} bookbench_result;

/* `first` commands are applied before the clock starts. `latency`: NULL, or where each command's time goes. Returns ZX_OK
 * or the error of lob_create(). */
int bookbench_lob(
    const lob_command *commands, size_t count, size_t first, uint32_t orders_max, hdr *latency,
    bookbench_result *result
);
int bookbench_peer_run(
    const bookbench_peer *peer, const lob_command *commands, size_t count, size_t first, hdr *latency,
    bookbench_result *result
);

/* ---- what is used for many markets too: shardbench.h */

/* A book of the other library, whose trades go into a ring; NULL if it has no memory. */
void *bookbench_peer_create(const bookbench_peer *peer);
void bookbench_peer_apply(const bookbench_peer *peer, void *target, const lob_command *command);

/* Trades of all its books so far. */
uint64_t bookbench_peer_trades(void);

uint64_t bookbench_now_ns(void);

#endif
