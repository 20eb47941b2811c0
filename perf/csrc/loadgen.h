/*
 * loadgen.h: sends signed frames when they are due, and measures when the exchange answers.
 *
 *     frames, signed ahead     due times          traders (sockets, logged on already)
 *     [f0][f1][f2][f3]...      0, 0.3, 0.7 ms     f0 -> 0, f1 -> 1, f2 -> 2 ...
 *
 * Open loop: a frame leaves when it is due, whether or not earlier ones were answered, and its latency counts from
 * then; a stall, of the exchange or of this loop, is charged to all that it delays. With `window` it is closed: each
 * trader keeps so many frames on their way, due when they leave. The loop sleeps until a frame is due or a socket is
 * ready; it never spins.
 *
 * The outcome of a command is the first report that answers it: New, Rejected or MassCancelled with its nonce and
 * index. Every command must have exactly one; what is missing or doubled is counted. Nonces of frames are consecutive.
 * One call, one thread; nothing is allocated while it runs.
 */
#ifndef PERF_LOADGEN_H
#define PERF_LOADGEN_H

#include <stdint.h>

#include "hdr.h"

#define LOADGEN_TRADERS_MAX 512u

enum loadgen_error {
    LOADGEN_OK = 0,
    LOADGEN_CLOSED = -1,    /* the exchange closed a session */
    LOADGEN_TERMINATED = -2, /* it ended one with a Terminate: `reason` */
    LOADGEN_PROTOCOL = -3,  /* it sent what is no frame */
    LOADGEN_SYSTEM = -4,    /* a system call failed: `reason` is errno */
    LOADGEN_MEMORY = -5,
};

typedef struct loadgen_plan {
    const uint8_t *frames;     /* one behind the other */
    const uint64_t *offsets;   /* of each frame */
    const uint32_t *lengths;
    const uint64_t *due_ns;    /* from the start, ascending; not read with a window */
    const uint16_t *traders;   /* who sends it */
    const int32_t *fds;        /* socket of each trader, non-blocking */
    const uint8_t *heartbeat;  /* a Sequence frame */
    uint64_t frame_count;
    uint64_t first_nonce;      /* of frame 0 */
    uint64_t duration_ns;      /* with a window: begin no further frame after this; else only for the seconds */
    uint64_t drain_ns;         /* how long to wait for answers behind the last frame */
    uint64_t late_ns;          /* a frame that leaves later than this after it was due is late */
    uint32_t heartbeat_bytes;
    uint32_t trader_count;
    uint32_t commands;         /* in each frame */
    uint32_t window;           /* frames on their way per trader; 0 for an open loop */
    uint32_t seconds;          /* histograms in `by_second` */
    uint32_t reserved;
} loadgen_plan;

typedef struct loadgen_result {
    hdr *latency;       /* from when a command was due to its outcome */
    hdr *service;       /* from when it left */
    hdr *lateness;      /* of frames */
    hdr *by_second;     /* latency, by the second in which the command was due */
    uint64_t sent;      /* frames */
    uint64_t answered;  /* commands with an outcome */
    uint64_t accepted;  /* New and MassCancelled */
    uint64_t rejected;
    uint64_t not_applied; /* commands in frames that were answered NotApplied */
    uint64_t doubled;   /* outcomes beyond the first of a command */
    uint64_t foreign;   /* answers to something that was not sent */
    uint64_t trades;    /* fills of our takers */
    uint64_t reports;   /* all */
    uint64_t late;      /* frames */
    uint64_t elapsed_ns; /* from the start to the last outcome */
    uint64_t start_wall_ns; /* wall clock at the start */
    int32_t reason;
    int32_t reserved;
} loadgen_result;

/* Runs the plan. The caller has zeroed the histograms. */
int loadgen_run(const loadgen_plan *plan, loadgen_result *result);

/* Sleeps `interval_ns` again and again until `*stop` is not 0, and records how much later than that it woke up. */
void hiccup_run(hdr *self, uint64_t interval_ns, const volatile int32_t *stop);

#endif
