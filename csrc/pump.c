#define _GNU_SOURCE /* MSG_NOSIGNAL and the clocks */

#include "pump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RUN_HEADER_BYTES 8u

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t now_ms(void) {
    return clock_ns(CLOCK_MONOTONIC) / 1000000u;
}

/* ------------------------------------------------------------ creation and sessions */

int pump_create(const pump_parts *parts, pump **out) {
    pump *const self = calloc(1, sizeof *self);
    if (self == NULL) return ZX_ERROR_MEMORY;
    const size_t handoff_at = arena_reserve(&self->memory, PUMP_HANDOFF_BYTES, 1);
    const size_t tape_at = arena_reserve(&self->memory, PUMP_TAPE_TRADES, ENGINE_REPORT_BYTES);
    const size_t request_at = arena_reserve(&self->memory, PUMP_REQUEST_BYTES, 1);
    const size_t landed_at = arena_reserve(&self->memory, SEAL_BATCH_BYTES_MAX, 1);
    const size_t buffer_at = arena_reserve(&self->memory, PUMP_RECEIVE_BYTES, 1);
    const size_t peers_at = arena_reserve(&self->memory, PUMP_FDS_MAX, sizeof(pump_peer));
    const size_t entries_at = arena_reserve(&self->memory, idmap_entries(PUMP_FDS_MAX), sizeof(idmap_entry));
    if (arena_map(&self->memory) != ZX_OK) {
        free(self);
        return ZX_ERROR_MEMORY;
    }
    self->parts = *parts;
    self->link = ZX_NONE;
    self->store_fd = -1;
    self->handoff = arena_at(&self->memory, handoff_at);
    self->tape = arena_at(&self->memory, tape_at);
    self->request = arena_at(&self->memory, request_at);
    self->landed = arena_at(&self->memory, landed_at);
    self->buffer = arena_at(&self->memory, buffer_at);
    self->peers = arena_at(&self->memory, peers_at);
    idmap_init(&self->by_session, PUMP_FDS_MAX, arena_at(&self->memory, entries_at));
    *out = self;
    return ZX_OK;
}

void pump_destroy(pump *self) {
    arena_unmap(&self->memory);
    free(self);
}

static uint64_t session_hash(uint64_t session_id) {
    return idmap_hash(0, session_id, 0); /* we number the sessions ourselves: nobody chooses them */
}

/* The peer of a session that takes the quick way, or NULL; `*fd` is its descriptor. */
static pump_peer *find_peer(const pump *self, uint64_t session_id, int32_t *fd) {
    idmap_cursor cursor;
    uint32_t found = idmap_first(&self->by_session, session_hash(session_id), &cursor);
    for (; found != ZX_NONE; found = idmap_next(&self->by_session, &cursor)) {
        if (self->peers[found].session_id == session_id) {
            *fd = (int32_t)found;
            return &self->peers[found];
        }
    }
    return NULL;
}

bool pump_add(pump *self, int32_t fd, uint64_t session_id, const uint8_t *public_key) {
    if (fd < 0 || (uint32_t)fd >= PUMP_FDS_MAX) return false;
    pump_peer *const peer = &self->peers[fd];
    ZX_ASSERT(!peer->active);
    *peer = (pump_peer){.session_id = session_id, .active = 1};
    memcpy(peer->public_key, public_key, sizeof peer->public_key);
    idmap_insert(&self->by_session, session_hash(session_id), (uint32_t)fd);
    return true;
}

void pump_remove(pump *self, int32_t fd) {
    if (fd < 0 || (uint32_t)fd >= PUMP_FDS_MAX || !self->peers[fd].active) return;
    idmap_remove(&self->by_session, session_hash(self->peers[fd].session_id), (uint32_t)fd);
    self->peers[fd].active = 0;
}

/* ------------------------------------------------------------ to the store */

/* Returns when the stage ended; 0 if nobody measures. */
static uint64_t count_stage(const pump *self, enum stage stage, uint64_t begun_ns) {
    if (self->parts.stages == NULL) return 0;
    const uint64_t ended_ns = clock_ns(CLOCK_MONOTONIC);
    stages_add(self->parts.stages, stage, ended_ns - begun_ns);
    return ended_ns;
}

static uint64_t begin_stage(const pump *self) {
    return self->parts.stages == NULL ? 0 : clock_ns(CLOCK_MONOTONIC);
}

/* Sends what the kernel takes. Returns false when the connection is broken. */
static bool send_request(pump *self) {
    while (self->request_sent < self->request_bytes) {
        const ssize_t sent = send(
            self->store_fd, self->request + self->request_sent, self->request_bytes - self->request_sent,
            MSG_NOSIGNAL | MSG_DONTWAIT
        );
        if (sent < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN;
        }
        self->request_sent += (uint32_t)sent;
    }
    return true;
}

static void write_request(pump *self) {
    const seal *const sealed = self->parts.seal;
    char id[48];
    const int id_bytes = snprintf(
        id, sizeof id, "%llu-%llu", (unsigned long long)sealed->epoch,
        (unsigned long long)sealed->first_record_no
    );
    const int head = snprintf(
        (char *)self->request, 256, "*5\r\n$4\r\nXADD\r\n$%zu\r\n%s\r\n$%d\r\n%s\r\n$1\r\nb\r\n$%u\r\n",
        strlen(self->parts.log_key), self->parts.log_key, id_bytes, id, sealed->batch_bytes
    );
    ZX_ASSERT(head > 0 && head < 250);
    memcpy(self->request + head, sealed->batch, sealed->batch_bytes);
    memcpy(self->request + (uint32_t)head + sealed->batch_bytes, "\r\n", 2);
    self->request_bytes = (uint32_t)head + sealed->batch_bytes + 2;
    self->request_sent = 0;
    self->reply_bytes = 0;
    self->expected_bytes =
        (uint32_t)snprintf((char *)self->expected, PUMP_REPLY_BYTES, "$%d\r\n%s\r\n", id_bytes, id);
}

/* Says what is waiting, before the loop sleeps. */
static void tell_queues(const pump *self) {
    figures_set(self->parts.figures, FIGURE_QUEUED_FRAMES, self->parts.inbox->frames);
    figures_set(self->parts.figures, FIGURE_BATCHES_IN_FLIGHT, self->in_flight || self->waits);
}

/* Applies what is in the inbox and sends the batch. Returns attention. */
static uint32_t seal_and_send(pump *self) {
    if (self->in_flight || !self->may_seal || self->store_fd < 0 || self->parts.inbox->frames == 0) return 0;
    const uint64_t begun_ns = begin_stage(self);
    inbox_take(self->parts.inbox, self->parts.inbox->frames, self->parts.body_max, ZX_NONE, NULL, 0);
    const uint64_t wall_ns = clock_ns(CLOCK_REALTIME);
    const uint64_t last_ns = self->parts.shard->log_time_ns;
    const int error = seal_apply_taken(
        self->parts.seal, self->parts.shard, self->parts.inbox, wall_ns > last_ns ? wall_ns : last_ns + 1
    );
    ZX_ASSERT(error == ZX_OK); /* frames in the inbox are well-formed */
    write_request(self);
    self->in_flight = 1;
    self->sent_ns = clock_ns(CLOCK_MONOTONIC);
    if (self->parts.stages != NULL) {
        stages_add(self->parts.stages, STAGE_MATCH, self->sent_ns - begun_ns);
        inbox_count_waits(self->parts.inbox, begun_ns, self->parts.stages, STAGE_BUS);
    }
    self->deadline_ms = self->sent_ns / 1000000u + self->parts.timeout_ms;
    if (send_request(self)) return 0;
    self->in_flight = 0;
    return PUMP_STORE;
}

/* ------------------------------------------------------------ from the store to the clients */

static void hand_off(pump *self, uint32_t link, const uint8_t *entries, uint32_t length) {
    ZX_ASSERT(self->handoff_bytes + RUN_HEADER_BYTES + length <= PUMP_HANDOFF_BYTES);
    uint8_t *const at = self->handoff + self->handoff_bytes;
    zx_store_u32(at, link);
    zx_store_u32(at + 4, length);
    memcpy(at + RUN_HEADER_BYTES, entries, length);
    self->handoff_bytes += RUN_HEADER_BYTES + length;
}

/* Sends the reports of one entry to its session, or hands off what cannot be sent now. */
static void send_reports(pump *self, uint8_t *entry, uint32_t length, uint64_t at_ms) {
    int32_t fd;
    pump_peer *const peer = find_peer(self, zx_load_u64(entry + 5), &fd);
    const uint8_t *const reports = entry + ROUTES_ENTRY_HEADER_BYTES;
    const uint32_t bytes = length - ROUTES_ENTRY_HEADER_BYTES;
    if (peer != NULL) peer->sent_bytes += bytes;
    if (peer == NULL || peer->output_held) {
        hand_off(self, self->link, entry, length);
        return;
    }
    ssize_t sent = send(fd, reports, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR) return; /* gone: reading says so */
        sent = 0;
    }
    peer->sent_ms = at_ms;
    if ((uint32_t)sent < bytes) {
        /* What is left may begin in the middle of a report: the caller writes it as it is, and first. */
        peer->output_held = 1;
        uint8_t *const rest = entry + (uint32_t)sent;
        memmove(rest, entry, ROUTES_ENTRY_HEADER_BYTES);
        const uint32_t left = bytes - (uint32_t)sent;
        zx_store_u32(rest, left);
        hand_off(self, self->link, rest, ROUTES_ENTRY_HEADER_BYTES + left);
    }
}

/* Of the two reports of a trade the taker's, or in an auction the buyer's, is the one that is kept. */
static bool stands_for_trade(const uint8_t *event) {
    if (event[ZX_EXECUTION_REPORT_EXEC_TYPE_OFFSET] != ZX_EXEC_TYPE_TRADE) return false;
    const uint8_t liquidity = event[ZX_EXECUTION_REPORT_LIQUIDITY_OFFSET];
    return liquidity == ZX_LIQUIDITY_TAKER ||
           (liquidity == ZX_LIQUIDITY_AUCTION && event[ZX_EXECUTION_REPORT_SIDE_OFFSET] == ZX_SIDE_BUY);
}

/* Whether sessions may have an account from now on that had none. Only an operator's batch does that. */
static bool registers_keys(const uint8_t *events, uint64_t count) {
    for (uint64_t index = 0; index < count; index++) {
        const uint8_t exec_type = events[index * ENGINE_REPORT_BYTES + ZX_EXECUTION_REPORT_EXEC_TYPE_OFFSET];
        if (exec_type == ZX_EXEC_TYPE_ACCOUNT_OPENED || exec_type == ZX_EXEC_TYPE_KEY_REGISTERED) return true;
    }
    return false;
}

/* Keeps the trades for whoever asks for them. */
static bool record_trades(pump *self, const uint8_t *events, uint64_t count) {
    for (uint64_t index = 0; index < count; index++) {
        const uint8_t *const event = events + index * ENGINE_REPORT_BYTES;
        const bool ends_tape = event[ZX_EXECUTION_REPORT_EXEC_TYPE_OFFSET] == ZX_EXEC_TYPE_MARKET_SIZES_SET;
        if (!ends_tape && !stands_for_trade(event)) continue;
        memcpy(self->tape + (size_t)self->tape_trades * ENGINE_REPORT_BYTES, event, ENGINE_REPORT_BYTES);
        /* Of more than the tape holds the newest are kept at its end; nobody asks for so many. */
        if (self->tape_trades + 1 < PUMP_TAPE_TRADES) self->tape_trades++;
    }
    return self->tape_trades > PUMP_TAPE_TRADES / 2;
}

/* Sends the reports of the batch that is on disk, as far as there is room for what must be handed off. */
static uint32_t land(pump *self, uint64_t begun_ns) {
    const seal *const sealed = self->parts.seal;
    const uint64_t count = sealed->events_bytes / ENGINE_REPORT_BYTES;
    const uint64_t at_ms = begun_ns / 1000000u;
    uint32_t attention = 0;
    while (self->landing_at < count) {
        if (self->handoff_bytes > ROUTES_OUT_BYTES - ROUTES_OUT_BYTES_SOFT) return PUMP_HANDOFF;
        const uint8_t *const events = self->parts.shard->events + self->landing_at * ENGINE_REPORT_BYTES;
        const routes_collected found = routes_collect(
            self->parts.routes, events, count - self->landing_at, self->parts.inbox->origins,
            sealed->first_record_no
        );
        for (uint64_t index = 0; index < found.runs; index++) {
            const routes_run *const run = &self->parts.routes->runs[index];
            uint8_t *const entries = self->parts.routes->out + run->offset;
            if (run->link != self->link) {
                hand_off(self, run->link, entries, run->length);
                continue;
            }
            for (uint32_t at = 0; at < run->length;) {
                const uint32_t length = ROUTES_ENTRY_HEADER_BYTES + zx_load_u32(entries + at);
                send_reports(self, entries + at, length, at_ms);
                at += length;
            }
        }
        if (record_trades(self, events, found.events)) attention |= PUMP_TRADES;
        self->landing_at += found.events;
    }
    self->landing = 0;
    self->in_flight = 0;
    const uint64_t ended_ns = count_stage(self, STAGE_PUBLISH, begun_ns);
    if (self->parts.stages != NULL) {
        inbox_count_waits(self->parts.inbox, ended_ns, self->parts.stages, STAGE_ACKNOWLEDGE);
    }
    return attention | (self->handoff_bytes > 0 ? PUMP_HANDOFF : 0u);
}

static uint32_t read_reply(pump *self) {
    const ssize_t got = recv(
        self->store_fd, self->reply + self->reply_bytes, PUMP_REPLY_BYTES - self->reply_bytes, MSG_DONTWAIT
    );
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got > 0) self->reply_bytes += (uint32_t)got;
    const bool as_expected = got > 0 && self->reply_bytes <= self->expected_bytes &&
                             memcmp(self->reply, self->expected, self->reply_bytes) == 0;
    if (!as_expected) {
        self->in_flight = 0;
        return PUMP_STORE;
    }
    if (self->reply_bytes < self->expected_bytes) return 0;
    const uint64_t said_ns = clock_ns(CLOCK_MONOTONIC);
    if (self->parts.stages != NULL) stages_add(self->parts.stages, STAGE_APPEND, said_ns - self->sent_ns);
    const seal *const sealed = self->parts.seal;
    self->landed_batches++;
    self->landed_first_record_no = sealed->first_record_no;
    self->landed_bytes = sealed->batch_bytes;
    memcpy(self->landed, sealed->batch, sealed->batch_bytes);
    self->landing = 1;
    self->landing_at = 0;
    if (registers_keys(self->parts.shard->events, sealed->events_bytes / ENGINE_REPORT_BYTES)) return PUMP_KEYS;
    return land(self, said_ns);
}

/* ------------------------------------------------------------ from the clients */

static uint32_t verify(pump *self) {
    express *const pending = self->parts.express;
    const uint32_t count = pending->pending;
    if (count == 0) return 0;
    const uint64_t begun_ns = begin_stage(self);
    const uint32_t bad =
        express_verify(pending, self->parts.verifiers, self->parts.sign_open, self->parts.deployment_id);
    const uint64_t verified_ns = count_stage(self, STAGE_VERIFY, begun_ns);
    if (bad > 0) return PUMP_REFUSED;
    express_pass_on(pending, self->parts.inbox, self->link, verified_ns);
    figures_add(self->parts.figures, FIGURE_SIGNATURES_GOOD, count);
    self->added += count;
    return 0;
}

/* Whether the pump may read from this client now. */
static bool is_ours(const pump *self, int32_t fd, uint32_t events) {
    return (uint32_t)fd < PUMP_FDS_MAX && self->peers[fd].active && !self->peers[fd].input_held &&
           events == EPOLLIN && self->link != ZX_NONE && self->may_queue &&
           self->parts.inbox->frames < self->parts.queued_max &&
           inbox_has_room(self->parts.inbox);
}

static uint32_t read_client(pump *self, int32_t fd) {
    const ssize_t got = recv(fd, self->buffer, PUMP_RECEIVE_BYTES, MSG_DONTWAIT);
    pump_peer *const peer = &self->peers[fd];
    if (got <= 0) {
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
        self->events[self->event_count++] = (pump_event){.fd = fd, .events = EPOLLIN};
        return PUMP_EVENTS;
    }
    const uint32_t length = (uint32_t)got;
    uint32_t at = 0;
    uint32_t attention = 0;
    while (at < length && attention == 0) {
        const uint32_t taken = express_receive(
            self->parts.express, peer->session_id, peer->public_key, self->parts.shard_number,
            self->buffer + at, length - at
        );
        if (taken == 0) break;
        at += taken;
        peer->received_ms = now_ms();
        if (self->parts.express->pending >= PUMP_VERIFY_MIN) {
            attention |= verify(self);
            if (attention == 0) attention |= seal_and_send(self);
        }
    }
    if (at < length) {
        self->rest_fd = fd;
        self->rest = self->buffer + at;
        self->rest_bytes = length - at;
        attention |= PUMP_REST;
    }
    return attention;
}

uint32_t pump_run(pump *self, int wait_ms) {
    self->event_count = 0;
    self->rest_bytes = 0;
    self->added = 0;
    self->handoff_bytes = 0;
    uint32_t attention = self->landing ? land(self, clock_ns(CLOCK_MONOTONIC)) : 0;
    if (attention == 0) attention = seal_and_send(self);
    uint64_t until_ms = now_ms() + (uint64_t)(wait_ms > 0 ? wait_ms : 0);
    bool waited = false;
    while (attention == 0) {
        const uint64_t at_ms = now_ms();
        if (waited && at_ms >= until_ms) break;
        uint64_t sleep_ms = at_ms < until_ms ? until_ms - at_ms : 0;
        if (self->in_flight) {
            if (at_ms >= self->deadline_ms) {
                self->in_flight = 0;
                return PUMP_STORE;
            }
            if (self->deadline_ms - at_ms < sleep_ms) sleep_ms = self->deadline_ms - at_ms;
        }
        tell_queues(self);
        struct epoll_event ready[PUMP_EVENTS_MAX];
        const int count = epoll_wait(self->parts.epoll_fd, ready, (int)PUMP_EVENTS_MAX, (int)sleep_ms);
        waited = true;
        const bool was_in_flight = self->in_flight;
        if (count < 0) break; /* a signal: the interpreter handles it */
        /* The store first: its reports have waited longest, and the disk should not idle while we verify. */
        for (int index = 0; index < count && self->in_flight; index++) {
            if (ready[index].data.fd != self->store_fd) continue;
            if ((ready[index].events & EPOLLOUT) != 0 && !send_request(self)) {
                self->in_flight = 0;
                attention |= PUMP_STORE;
            } else if ((ready[index].events & ~(uint32_t)EPOLLOUT) != 0) {
                attention |= read_reply(self);
            }
            ready[index].events = 0;
        }
        if ((attention & PUMP_STORE) == 0) attention |= seal_and_send(self);
        for (int index = 0; index < count; index++) {
            const int32_t fd = ready[index].data.fd;
            if (ready[index].events == 0) continue;
            /* One rest at a time; what is not read now is ready again next time. */
            if (is_ours(self, fd, ready[index].events)) {
                if ((attention & (PUMP_REST | PUMP_REFUSED)) == 0) attention |= read_client(self, fd);
            } else {
                self->events[self->event_count++] =
                    (pump_event){.fd = fd, .events = ready[index].events};
                attention |= PUMP_EVENTS;
            }
        }
        if ((attention & PUMP_REFUSED) == 0) attention |= verify(self);
        if ((attention & (PUMP_REFUSED | PUMP_STORE)) == 0) attention |= seal_and_send(self);
        if (was_in_flight && !self->in_flight && !self->may_seal) attention |= PUMP_TURN;
        if (!self->in_flight && !self->waits && self->parts.inbox->frames > 0) attention |= PUMP_TURN;
    }
    tell_queues(self);
    return attention;
}
