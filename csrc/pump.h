/*
 * pump.h: the loop of a process that is ingress and matcher in one thread, as far as nothing special happens.
 *
 *     epoll ─▶ client socket ─▶ recv ─▶ express ─▶ one call to verify ─▶ inbox ┐
 *       │                                                                      ▼ whenever no batch is in flight
 *       │                                                    seal: engine, events hash, chain ─▶ XADD ─▶ store's socket
 *       └─▶ store's socket ─▶ exactly the reply that means yes ─▶ routes ─▶ send to the client sockets
 *
 * Everything else is the caller's: pump_run() returns when it meets it, and says what it was. New connections,
 * logons, queries, heartbeats, malformed frames, bad signatures, partial frames, clients that do not read, reports
 * for ingress workers elsewhere, trouble with the store: all of that is decided in Python, by the same cores that
 * serve processes on their own. The pump decides nothing: it is the shell of express, inbox, seal and routes, and
 * the one file here that knows descriptors. An order that takes this way meets no interpreter, whose code and data
 * would have left the caches since the last order: that made two thirds of the time an order took beyond its
 * verification.
 *
 * Only sessions that pump_add() named take it. One of them can be held: its input while a frame of it is unfinished,
 * its output while earlier output is unsent. Not thread safe.
 */
#ifndef ZX_PUMP_H
#define ZX_PUMP_H

#include "arena.h"
#include "base.h"
#include "engine.h"
#include "express.h"
#include "figures.h"
#include "idmap.h"
#include "inbox.h"
#include "routes.h"
#include "seal.h"
#include "verifiers.h"

#define PUMP_FDS_MAX 65536u       /* descriptors from here on are the caller's */
#define PUMP_EVENTS_MAX 64u       /* descriptors dealt with between two looks */
#define PUMP_RECEIVE_BYTES 65536u /* read from one client at a time */
#define PUMP_VERIFY_MIN 32u       /* frames that are verified without waiting for more of the same look */
#define PUMP_REPLY_BYTES 256u
#define PUMP_REQUEST_BYTES (SEAL_BATCH_BYTES_MAX + 256u)
#define PUMP_TAPE_TRADES 4096u
#define PUMP_KEY_BYTES 64u
#define PUMP_HANDOFF_BYTES (UINT64_C(2) * ROUTES_OUT_BYTES)

/* What the caller has to deal with; several at once are possible. */
enum pump_attention {
    PUMP_EVENTS = 1,   /* `events`: descriptors that are not the pump's, or not now */
    PUMP_REST = 2,     /* `rest_bytes` at `rest`: from `rest_fd`, not batches; the session's */
    PUMP_REFUSED = 4,  /* not all signatures are good: everything is still in `express` */
    PUMP_HANDOFF = 8,  /* `handoff`: runs of entries that the caller is to send */
    PUMP_STORE = 16,   /* the store did not say yes: `reply`; the batch is in `seal`. Nothing is in flight any more */
    PUMP_TRADES = 32,  /* the tape is nearly full */
    PUMP_TURN = 64,    /* it is the caller's turn to have something applied: the pump may not, and nothing is in flight */
    PUMP_KEYS = 128,   /* the batch that is on disk has registered keys: the caller binds the sessions of these to their
                        * accounts, and the next pump_run() begins with its reports */
};

typedef struct pump_event {
    int32_t fd;
    uint32_t events; /* as epoll gives them */
} pump_event;

typedef struct pump_peer {
    uint64_t session_id;
    uint64_t received_ms; /* when its last batch came */
    uint64_t sent_ms;     /* when reports were last sent to it */
    uint64_t sent_bytes;  /* of its reports, handed off or not, since the caller set this to 0 */
    uint8_t public_key[32];
    uint8_t active;
    uint8_t input_held;
    uint8_t output_held;
    uint8_t reserved[5];
} pump_peer;

_Static_assert(sizeof(pump_peer) == 72, "no padding");

/* What the pump works with; all of it is the caller's. */
typedef struct pump_parts {
    engine *shard;
    express *express;
    inbox *inbox;
    routes *routes;
    seal *seal;
    verifiers *verifiers;
    figures *figures;
    stages *stages; /* those of `figures`, or NULL: the stages are not counted */
    zx_sign_open sign_open;
    const uint8_t *deployment_id;
    const char *log_key;   /* key of the stream */
    uint64_t timeout_ms;   /* for a reply of the store */
    uint32_t body_max;     /* bytes of frames in one batch */
    uint32_t queued_max;   /* frames in the inbox */
    uint32_t shard_number;
    int32_t epoll_fd;
} pump_parts;

typedef struct pump {
    pump_parts parts;
    uint32_t link;     /* number of the worker's link, for inbox and routes; ZX_NONE before it is known */
    int32_t store_fd;  /* -1 while the caller speaks to the store */
    uint8_t may_queue; /* the caller has nothing that must come before what is read */
    uint8_t may_seal;  /* the caller has nothing that must come before what is in the inbox */
    uint8_t waits;     /* a batch of the caller is in flight */
    uint8_t in_flight; /* a batch of ours is on its way */
    uint8_t landing;   /* it is on disk, and its reports are going out */
    uint32_t event_count;
    pump_event events[PUMP_EVENTS_MAX];
    int32_t rest_fd;
    uint32_t rest_bytes;
    uint8_t *rest;           /* in `buffer` */
    uint8_t *handoff;        /* link u32, length u32, entries; again and again */
    uint64_t handoff_bytes;
    uint8_t *tape;           /* blocks of taker trades that were released, and of markets that got other sizes, oldest first */
    uint32_t tape_trades;
    uint32_t reply_bytes;
    uint8_t reply[PUMP_REPLY_BYTES];
    uint32_t expected_bytes;
    uint8_t expected[PUMP_REPLY_BYTES];
    uint32_t request_bytes;  /* of the request in flight */
    uint32_t request_sent;   /* of these, taken by the kernel */
    uint8_t *request;
    uint64_t landed_batches; /* since pump_create() */
    uint64_t landed_first_record_no; /* of the last batch that landed here */
    uint32_t landed_bytes;           /* of that batch */
    uint32_t added;          /* frames put into the inbox during the last pump_run() */
    uint8_t *landed;         /* that batch */
    uint64_t deadline_ms;    /* for the reply; monotonic */
    uint64_t landing_at;     /* events of the landing batch that are dealt with */
    uint8_t *buffer;         /* PUMP_RECEIVE_BYTES */
    pump_peer *peers;        /* by descriptor */
    idmap by_session;        /* session id to descriptor */
    uint64_t sent_ns;        /* when the request went out */
    arena memory;
} pump;

/* Returns ZX_OK or ZX_ERROR_MEMORY. The parts must outlive it. */
int pump_create(const pump_parts *parts, pump **out);
void pump_destroy(pump *self);

/* An established session takes the quick way from now on. Returns false, and nothing happens, for a descriptor of
 * PUMP_FDS_MAX or more. */
bool pump_add(pump *self, int32_t fd, uint64_t session_id, const uint8_t *public_key);

/* It does not any more; nothing happens if it did not. */
void pump_remove(pump *self, int32_t fd);

/* Works for at most `wait_ms` while nothing needs the caller, and not again before it has dealt with what is
 * returned: any of enum pump_attention, 0 when the time is over or a signal came. */
uint32_t pump_run(pump *self, int wait_ms);

#endif
