#define _GNU_SOURCE /* epoll_pwait2, MSG_NOSIGNAL */

#include "loadgen.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define RECEIVE_BYTES (UINT32_C(1) << 18)
#define IOV_MAX_USED 64u
#define HEARTBEAT_NS UINT64_C(15000000000)
#define IDLE_NS UINT64_C(100000000)
#define ENVELOPE_BYTES 14u

typedef struct trader {
    uint64_t *frames;     /* which of the plan are its, in order */
    uint64_t count;
    uint64_t released;    /* of these, due */
    uint64_t sent;        /* of these, with the kernel */
    uint64_t answered;    /* of these, with all their outcomes */
    uint64_t written_ns;  /* when something was last sent */
    uint32_t partial;     /* bytes of frames[sent] that are with the kernel already */
    uint32_t pending;     /* bytes in `buffer` */
    bool blocked;         /* waiting for room to write */
    uint8_t *buffer;      /* RECEIVE_BYTES: what was received and is no whole frame yet */
} trader;

typedef struct run {
    const loadgen_plan *plan;
    loadgen_result *result;
    trader *traders;
    uint64_t *sent_ns;    /* by frame */
    uint64_t *due_ns;     /* by frame; with a window: when it left */
    uint8_t *outcomes;    /* by command: 1 if it has one */
    uint16_t *left;       /* by frame: commands without an outcome */
    uint64_t start_ns;
    uint64_t open_frames; /* sent, with outcomes missing */
    int epoll_fd;
} run;

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t elapsed(const run *self) {
    return clock_ns(CLOCK_MONOTONIC) - self->start_ns;
}

static uint64_t load_u64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static int fail(run *self, int error, int reason) {
    self->result->reason = reason;
    return error;
}

/* ------------------------------------------------------------ sending */

static void note_sent(run *self, trader *of, uint64_t now_ns) {
    const uint64_t frame = of->frames[of->sent];
    self->sent_ns[frame] = now_ns;
    if (self->plan->window > 0) self->due_ns[frame] = now_ns;
    const uint64_t due_ns = self->due_ns[frame];
    const uint64_t late_ns = now_ns > due_ns ? now_ns - due_ns : 0;
    hdr_record(self->result->lateness, late_ns);
    self->result->late += late_ns > self->plan->late_ns;
    self->result->sent++;
    self->open_frames++;
    of->sent++;
    of->partial = 0;
}

static int watch(run *self, uint32_t index, bool blocked) {
    trader *const of = &self->traders[index];
    if (of->blocked == blocked) return LOADGEN_OK;
    of->blocked = blocked;
    struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0u), .data.u32 = index};
    if (epoll_ctl(self->epoll_fd, EPOLL_CTL_MOD, self->plan->fds[index], &event) != 0) {
        return fail(self, LOADGEN_SYSTEM, errno);
    }
    return LOADGEN_OK;
}

/* Sends what is due, as far as the kernel takes it. */
static int flush(run *self, uint32_t index) {
    const loadgen_plan *const plan = self->plan;
    trader *const of = &self->traders[index];
    while (of->sent < of->released) {
        struct iovec parts[IOV_MAX_USED];
        uint32_t count = 0;
        for (uint64_t at = of->sent; at < of->released && count < IOV_MAX_USED; at++, count++) {
            const uint64_t frame = of->frames[at];
            const uint32_t skip = count == 0 ? of->partial : 0;
            parts[count].iov_base = (void *)(uintptr_t)(plan->frames + plan->offsets[frame] + skip);
            parts[count].iov_len = plan->lengths[frame] - skip;
        }
        const struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
        /* A frame counts as sent when the kernel is given it: an answer may come before the call returns. */
        const uint64_t now_ns = elapsed(self);
        const ssize_t sent = sendmsg(plan->fds[index], &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) return watch(self, index, true);
            return fail(self, LOADGEN_CLOSED, errno);
        }
        of->written_ns = now_ns;
        uint64_t taken = (uint64_t)sent;
        for (uint32_t part = 0; part < count; part++) {
            if (taken < parts[part].iov_len) {
                of->partial += (uint32_t)taken;
                break;
            }
            taken -= parts[part].iov_len;
            note_sent(self, of, now_ns);
        }
    }
    return watch(self, index, false);
}

static int beat(run *self, uint64_t now_ns) {
    for (uint32_t index = 0; index < self->plan->trader_count; index++) {
        trader *const of = &self->traders[index];
        /* Written behind `now_ns`, which was read before: then there is no need. */
        if (now_ns < of->written_ns + HEARTBEAT_NS || of->partial > 0 || of->blocked) continue;
        of->written_ns = now_ns;
        if (send(
                self->plan->fds[index], self->plan->heartbeat, self->plan->heartbeat_bytes,
                MSG_NOSIGNAL | MSG_DONTWAIT
            ) != (ssize_t)self->plan->heartbeat_bytes) {
            return fail(self, LOADGEN_CLOSED, errno);
        }
    }
    return LOADGEN_OK;
}

/* ------------------------------------------------------------ receiving */

static void note_outcome(run *self, trader *of, uint64_t frame, uint32_t command, uint64_t now_ns) {
    loadgen_result *const result = self->result;
    uint8_t *const outcome = &self->outcomes[frame * self->plan->commands + command];
    if (*outcome != 0) {
        result->doubled++;
        return;
    }
    *outcome = 1;
    result->answered++;
    const uint64_t due_ns = self->due_ns[frame];
    const uint64_t latency_ns = now_ns > due_ns ? now_ns - due_ns : 0;
    hdr_record(result->latency, latency_ns);
    hdr_record(result->service, now_ns > self->sent_ns[frame] ? now_ns - self->sent_ns[frame] : 0);
    const uint64_t second = due_ns / UINT64_C(1000000000);
    if (second < self->plan->seconds) hdr_record(&result->by_second[second], latency_ns);
    if (--self->left[frame] == 0) {
        self->open_frames--;
        of->answered++;
    }
    result->elapsed_ns = now_ns;
}

/* Whose answer it is; false for a nonce that was not sent. */
static bool find_frame(const run *self, uint64_t nonce, uint64_t *frame) {
    *frame = nonce - self->plan->first_nonce;
    return *frame < self->plan->frame_count && self->sent_ns[*frame] != UINT64_MAX;
}

static int take_frame(run *self, uint32_t index, const uint8_t *frame, uint64_t now_ns) {
    loadgen_result *const result = self->result;
    trader *const of = &self->traders[index];
    const uint8_t *const block = frame + ENVELOPE_BYTES;
    uint64_t number;
    switch ((uint32_t)frame[8] | (uint32_t)frame[9] << 8) {
    case ZX_EXECUTION_REPORT_TEMPLATE_ID: {
        result->reports++;
        const uint8_t exec_type = block[ZX_EXECUTION_REPORT_EXEC_TYPE_OFFSET];
        const uint64_t nonce = load_u64(block + ZX_EXECUTION_REPORT_NONCE_OFFSET);
        if (exec_type == ZX_EXEC_TYPE_TRADE) {
            result->trades += block[ZX_EXECUTION_REPORT_LIQUIDITY_OFFSET] == ZX_LIQUIDITY_TAKER;
            return LOADGEN_OK;
        }
        if (exec_type != ZX_EXEC_TYPE_NEW && exec_type != ZX_EXEC_TYPE_REJECTED &&
            exec_type != ZX_EXEC_TYPE_MASS_CANCELLED) {
            return LOADGEN_OK;
        }
        const uint8_t command = block[ZX_EXECUTION_REPORT_COMMAND_INDEX_OFFSET];
        if (!find_frame(self, nonce, &number) || command >= self->plan->commands) {
            result->foreign++;
            return LOADGEN_OK;
        }
        if (exec_type == ZX_EXEC_TYPE_REJECTED) result->rejected++;
        else result->accepted++;
        note_outcome(self, of, number, command, now_ns);
        return LOADGEN_OK;
    }
    case ZX_NOT_APPLIED_TEMPLATE_ID:
        if (!find_frame(self, load_u64(block), &number)) {
            result->foreign++;
            return LOADGEN_OK;
        }
        result->not_applied += self->plan->commands;
        for (uint32_t command = 0; command < self->plan->commands; command++) {
            note_outcome(self, of, number, command, now_ns);
        }
        return LOADGEN_OK;
    case ZX_TERMINATE_TEMPLATE_ID:
        return fail(self, LOADGEN_TERMINATED, block[0] | block[1] << 8);
    default:
        return LOADGEN_OK; /* heartbeats */
    }
}

static int receive(run *self, uint32_t index) {
    trader *const of = &self->traders[index];
    const ssize_t got =
        recv(self->plan->fds[index], of->buffer + of->pending, RECEIVE_BYTES - of->pending, MSG_DONTWAIT);
    if (got < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return LOADGEN_OK;
        return fail(self, LOADGEN_CLOSED, errno);
    }
    if (got == 0) return fail(self, LOADGEN_CLOSED, 0);
    const uint64_t now_ns = elapsed(self);
    const uint32_t length = of->pending + (uint32_t)got;
    uint32_t at = 0;
    while (length - at >= ENVELOPE_BYTES) {
        const uint8_t *const frame = of->buffer + at;
        const uint32_t stated =
            (uint32_t)frame[0] << 24 | (uint32_t)frame[1] << 16 | (uint32_t)frame[2] << 8 | frame[3];
        if (stated < ENVELOPE_BYTES || stated > RECEIVE_BYTES) return fail(self, LOADGEN_PROTOCOL, 0);
        if (stated > length - at) break;
        const int error = take_frame(self, index, frame, now_ns);
        if (error != LOADGEN_OK) return error;
        at += stated;
    }
    of->pending = length - at;
    memmove(of->buffer, of->buffer + at, of->pending);
    return LOADGEN_OK;
}

/* ------------------------------------------------------------ the loop */

/* Releases what is due at `now_ns`; returns when the next frame is, or UINT64_MAX. */
static int release(run *self, uint64_t *position, uint64_t now_ns, uint64_t *next_ns) {
    const loadgen_plan *const plan = self->plan;
    *next_ns = UINT64_MAX;
    if (plan->window == 0) {
        while (*position < plan->frame_count) {
            if (self->due_ns[*position] > now_ns) {
                *next_ns = self->due_ns[*position];
                break;
            }
            const uint32_t index = plan->traders[*position];
            self->traders[index].released++;
            (*position)++;
            const int error = flush(self, index);
            if (error != LOADGEN_OK) return error;
            now_ns = elapsed(self);
        }
        return LOADGEN_OK;
    }
    for (uint32_t index = 0; index < plan->trader_count && now_ns < plan->duration_ns; index++) {
        trader *const of = &self->traders[index];
        const uint64_t most = of->answered + plan->window < of->count ? of->answered + plan->window : of->count;
        if (of->released >= most) continue;
        of->released = most;
        const int error = flush(self, index);
        if (error != LOADGEN_OK) return error;
    }
    return LOADGEN_OK;
}

static bool all_sent(const run *self, uint64_t position, uint64_t now_ns) {
    if (self->plan->window == 0 && position < self->plan->frame_count) return false;
    bool finished = self->plan->window == 0 || now_ns >= self->plan->duration_ns;
    bool sent = true;
    bool exhausted = true;
    for (uint32_t index = 0; index < self->plan->trader_count; index++) {
        const trader *const of = &self->traders[index];
        sent = sent && of->sent == of->released;
        exhausted = exhausted && of->released == of->count;
    }
    return sent && (finished || exhausted);
}

static int loop(run *self) {
    uint64_t position = 0;
    uint64_t drain_until_ns = 0;
    for (;;) {
        uint64_t next_ns;
        uint64_t now_ns = elapsed(self);
        int error = release(self, &position, now_ns, &next_ns);
        if (error == LOADGEN_OK) error = beat(self, now_ns);
        if (error != LOADGEN_OK) return error;
        now_ns = elapsed(self);
        if (all_sent(self, position, now_ns)) {
            if (self->open_frames == 0) return LOADGEN_OK;
            if (drain_until_ns == 0) drain_until_ns = now_ns + self->plan->drain_ns;
            if (now_ns >= drain_until_ns) return LOADGEN_OK;
        }
        uint64_t sleep_ns = next_ns > now_ns ? next_ns - now_ns : 0;
        if (next_ns == UINT64_MAX || sleep_ns > IDLE_NS) sleep_ns = IDLE_NS;
        const struct timespec timeout = {
            .tv_sec = (time_t)(sleep_ns / UINT64_C(1000000000)),
            .tv_nsec = (long)(sleep_ns % UINT64_C(1000000000)),
        };
        struct epoll_event ready[64];
        const int count = epoll_pwait2(self->epoll_fd, ready, 64, &timeout, NULL);
        if (count < 0 && errno != EINTR) return fail(self, LOADGEN_SYSTEM, errno);
        for (int index = 0; index < count; index++) {
            const uint32_t of = ready[index].data.u32;
            if ((ready[index].events & EPOLLOUT) != 0) error = flush(self, of);
            if (error == LOADGEN_OK && (ready[index].events & ~(uint32_t)EPOLLOUT) != 0) {
                error = receive(self, of);
            }
            if (error != LOADGEN_OK) return error;
        }
    }
}

static bool prepare(run *self) {
    const loadgen_plan *const plan = self->plan;
    self->traders = calloc(plan->trader_count, sizeof *self->traders);
    self->sent_ns = malloc((plan->frame_count + 1) * sizeof *self->sent_ns);
    self->due_ns = malloc((plan->frame_count + 1) * sizeof *self->due_ns);
    self->outcomes = calloc(plan->frame_count + 1, plan->commands);
    self->left = malloc((plan->frame_count + 1) * sizeof *self->left);
    if (self->traders == NULL || self->sent_ns == NULL || self->due_ns == NULL || self->outcomes == NULL ||
        self->left == NULL) {
        return false;
    }
    for (uint64_t frame = 0; frame < plan->frame_count; frame++) {
        self->sent_ns[frame] = UINT64_MAX;
        self->due_ns[frame] = plan->window == 0 ? plan->due_ns[frame] : 0;
        self->left[frame] = (uint16_t)plan->commands;
        self->traders[plan->traders[frame]].count++;
    }
    for (uint32_t index = 0; index < plan->trader_count; index++) {
        trader *const of = &self->traders[index];
        of->frames = malloc((of->count + 1) * sizeof *of->frames);
        of->buffer = malloc(RECEIVE_BYTES);
        if (of->frames == NULL || of->buffer == NULL) return false;
        of->count = 0;
    }
    for (uint64_t frame = 0; frame < plan->frame_count; frame++) {
        trader *const of = &self->traders[plan->traders[frame]];
        of->frames[of->count++] = frame;
    }
    return true;
}

static void clean_up(run *self) {
    for (uint32_t index = 0; self->traders != NULL && index < self->plan->trader_count; index++) {
        free(self->traders[index].frames);
        free(self->traders[index].buffer);
    }
    free(self->traders);
    free(self->sent_ns);
    free(self->due_ns);
    free(self->outcomes);
    free(self->left);
    if (self->epoll_fd >= 0) close(self->epoll_fd);
}

int loadgen_run(const loadgen_plan *plan, loadgen_result *result) {
    run self = {.plan = plan, .result = result, .epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    int error = self.epoll_fd < 0 ? LOADGEN_SYSTEM : prepare(&self) ? LOADGEN_OK : LOADGEN_MEMORY;
    for (uint32_t index = 0; error == LOADGEN_OK && index < plan->trader_count; index++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
        if (epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, plan->fds[index], &event) != 0) {
            error = fail(&self, LOADGEN_SYSTEM, errno);
        }
    }
    if (error == LOADGEN_OK) {
        /* Else the kernel may let us sleep 50 us longer than we asked. */
        prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
        result->start_wall_ns = clock_ns(CLOCK_REALTIME);
        self.start_ns = clock_ns(CLOCK_MONOTONIC);
        error = loop(&self);
    }
    clean_up(&self);
    return error;
}

/* ------------------------------------------------------------ hiccups */

void hiccup_run(hdr *self, uint64_t interval_ns, const volatile int32_t *stop) {
    const struct timespec interval = {.tv_sec = 0, .tv_nsec = (long)interval_ns};
    while (*stop == 0) {
        const uint64_t begun_ns = clock_ns(CLOCK_MONOTONIC);
        clock_nanosleep(CLOCK_MONOTONIC, 0, &interval, NULL);
        const uint64_t slept_ns = clock_ns(CLOCK_MONOTONIC) - begun_ns;
        hdr_record(self, slept_ns > interval_ns ? slept_ns - interval_ns : 0);
    }
}
