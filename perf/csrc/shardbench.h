/*
 * shardbench.h: commands for many markets through one pool of books, or through as many books of another library.
 *
 *     lob_command[], market of each ──┬──▶ book.h: one pool, a book per market, ids.h     reports into a ring
 *                                     └──▶ a book of the other library per market         trades into a ring
 *
 * What bookbench.h does for one market, by the same functions of the other library. Ours is what whoever builds a shard on
 * book.h would write: it looks its orders up by id, and asks for what the next commands need before it applies them.
 */
#ifndef PERF_SHARDBENCH_H
#define PERF_SHARDBENCH_H

#include "bookbench.h"

/* Commands as in lob.h, new, cancel and amend, of limit orders without accounts; `markets` are below `market_count`. The first
 * `first` commands are applied before the clock starts. `latency`: NULL, or where each command's time goes. Returns ZX_OK or
 * ZX_ERROR_MEMORY. */
int shardbench_run(
    const lob_command *commands, const uint32_t *markets, size_t count, size_t first, uint32_t market_count,
    uint32_t orders_max, hdr *latency, bookbench_result *result
);
int shardbench_peer_run(
    const bookbench_peer *peer, const lob_command *commands, const uint32_t *markets, size_t count, size_t first,
    uint32_t market_count, hdr *latency, bookbench_result *result
);

#endif
