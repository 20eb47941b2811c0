/*
 * routes.h: which sessions hear of which report. Turns the events of one batch into entries for the links.
 *
 *     events (168-byte blocks)          accounts            sessions                      out
 *     [account 7 ...] [account 9 ...]   7 -> s2 -> s5       s2: link 0, session 41        [entry s2: 2 reports]
 *     [account 7 ...]                   9 -> s1             s5: link 1, session 3         [entry s1: 1 report ]
 *                                                                                         [entry s5: 2 reports]
 *
 * A report goes to every session of its account; a report to a key that has no account goes, in an entry of its
 * own and before the others, to the session that sent the frame, its origin. Reports of one session stand together in one entry, in the order of their
 * events, each as a whole ExecutionReport frame; an entry holds at most ROUTES_REPORTS_PER_ENTRY_MAX. An entry
 * begins with the header of a link message's entry (zexchange/matcher/link.py):
 *
 *     u32 length of what follows the header | u8 kind | u64 session id
 *
 * Cost: two steps per report and session, no search. All memory is reserved by routes_create() and touched as
 * it is used. Not thread safe: one thread owns it.
 */
#ifndef ZX_ROUTES_H
#define ZX_ROUTES_H

#include "arena.h"
#include "base.h"
#include "inbox.h"
#include "wire.h"

#define ROUTES_ENTRY_HEADER_BYTES 13u
#define ROUTES_ENTRY_KIND_REPORTS 68u
#define ROUTES_FRAME_HEAD_BYTES 14u /* framing header and SBE header */
#define ROUTES_REPORT_FRAME_BYTES (ROUTES_FRAME_HEAD_BYTES + ZX_EXECUTION_REPORT_BLOCK_LENGTH)
#define ROUTES_REPORTS_PER_ENTRY_MAX 1024u
#define ROUTES_RUN_BYTES_MAX (UINT32_C(512) << 10) /* so that it fits in one link message */
#ifndef ROUTES_SESSIONS_MAX /* tests build with few of them */
#define ROUTES_SESSIONS_MAX (UINT32_C(1) << 20)
#endif
#define ROUTES_NOBODY 0u /* a slot that no session has: zero, so that fresh memory is an empty table */

/* A call stops behind the event that fills this much, so that memory stays in the caches. */
#define ROUTES_OUT_BYTES_SOFT (UINT64_C(1) << 20)
/* Room for it and one more event that every session hears of. */
#define ROUTES_OUT_BYTES \
    (ROUTES_OUT_BYTES_SOFT + (uint64_t)ROUTES_SESSIONS_MAX * (ROUTES_ENTRY_HEADER_BYTES + ROUTES_REPORT_FRAME_BYTES))

typedef struct routes_session {
    uint64_t session_id; /* as its ingress numbers it */
    uint64_t at;         /* while collecting: where its next report is written */
    uint32_t link;       /* the caller's number of its link */
    uint32_t account;    /* ZX_NONE while its key has no account */
    uint32_t next;       /* of the same account, later; in a free session: the next free one */
    uint32_t prev;       /* of the same account, earlier */
    uint32_t reports;    /* while collecting: reports in this call; 0 otherwise */
    uint32_t written;    /* while collecting: of these, written */
} routes_session;

_Static_assert(sizeof(routes_session) == 40, "no padding");

/* Entries in the output that lie one behind the other and are for the same link. */
typedef struct routes_run {
    uint64_t offset; /* in the output */
    uint32_t length; /* at most ROUTES_RUN_BYTES_MAX, headers included */
    uint32_t link;
} routes_run;

typedef struct routes {
    uint8_t *out;            /* entries one behind the other */
    routes_run *runs;        /* where they are */
    routes_session *sessions;
    uint32_t *first;         /* by account: its oldest session, or ROUTES_NOBODY */
    uint32_t *last;          /* by account: its newest session, or ROUTES_NOBODY */
    uint32_t *touched;       /* while collecting: sessions with reports, in the order they came up */
    uint32_t accounts_max;
    uint32_t free;           /* first of the sessions given back, or ROUTES_NOBODY */
    uint32_t fresh;          /* sessions from here on were never used */
    uint32_t count;          /* sessions in use */
    uint8_t frame_head[ROUTES_FRAME_HEAD_BYTES]; /* in front of every report */
    arena memory;
} routes;

typedef struct routes_collected {
    uint64_t events; /* dealt with, from the first */
    uint64_t runs;   /* in routes.runs */
} routes_collected;

/* Makes an empty table for accounts 0 to accounts_max - 1. Returns ZX_OK or ZX_ERROR_MEMORY. */
int routes_create(uint32_t accounts_max, routes **out);

void routes_destroy(routes *self);

/* Adds a session that hears of nothing but its own frames until routes_bind(). Returns its slot, or
 * ROUTES_NOBODY when all are in use. */
uint32_t routes_add(routes *self, uint32_t link, uint64_t session_id);

/* From now on the session hears of the account's reports. It must not be bound already. */
void routes_bind(routes *self, uint32_t slot, uint64_t account_id);

void routes_remove(routes *self, uint32_t slot);

/* Writes the entries for `count` event blocks. `origins[record_no - first_record_no]` says who sent the record.
 * Stops early when the output is full enough; call again with the rest. */
routes_collected routes_collect(
    routes *self, const uint8_t *events, uint64_t count, const inbox_origin *origins, uint64_t first_record_no
);

#endif
