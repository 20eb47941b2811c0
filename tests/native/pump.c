/*
 * pump.c: the loop of ingress and matcher in one thread, between clients and a store that this program plays.
 *
 * What the pump asks of the kernel comes here (--wrap of the linker): sends and receives may fail or take less than was
 * given, the clock is a variable, and waiting only moves it. So every order of things can be had, and none is a matter
 * of luck. The tables are built small (see test_native.py), so that they can be full.
 */

#define _GNU_SOURCE /* MSG_DONTWAIT and the clocks */

#include "pump.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "kit.h"

#define START_NS UINT64_C(1700000000000000000)
#define TIMEOUT_MS 5000u
#define SHARD 3u
#define LINK 7u
#define ELSEWHERE 8u /* a link of another worker */
#define OPERATOR 0u
#define ALICE 1u
#define BOB 2u
#define CAROL 3u
#define ACCOUNTS 4u
#define REPORT_BYTES ROUTES_REPORT_FRAME_BYTES

/* ------------------------------------------------------------ the kernel */

typedef struct fault {
    int32_t fd;
    int error;      /* or 0: only less is taken */
    size_t at_most; /* bytes */
    uint32_t calls; /* that it concerns */
} fault;

static fault of_send;
static fault of_receive;
static int of_wait;       /* errno of the next epoll_wait() */
static uint64_t clock_at; /* both clocks */
static uint64_t waited_ms;

ssize_t __real_send(int fd, const void *data, size_t length, int flags);
ssize_t __real_recv(int fd, void *data, size_t length, int flags);
int __real_epoll_wait(int epoll, struct epoll_event *ready, int room, int timeout_ms);

ssize_t __wrap_send(int fd, const void *data, size_t length, int flags);
ssize_t __wrap_recv(int fd, void *data, size_t length, int flags);
int __wrap_epoll_wait(int epoll, struct epoll_event *ready, int room, int timeout_ms);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

/* How much of a call is carried out; SIZE_MAX if it fails. */
static size_t length_under(fault *of, int fd, size_t length) {
    if (of->calls == 0 || of->fd != fd) return length;
    of->calls--;
    if (of->error != 0) {
        errno = of->error;
        return SIZE_MAX;
    }
    return length < of->at_most ? length : of->at_most;
}

ssize_t __wrap_send(int fd, const void *data, size_t length, int flags) {
    CHECK((flags & MSG_DONTWAIT) != 0 && (flags & MSG_NOSIGNAL) != 0);
    const size_t allowed = length_under(&of_send, fd, length);
    return allowed == SIZE_MAX ? -1 : __real_send(fd, data, allowed, flags);
}

ssize_t __wrap_recv(int fd, void *data, size_t length, int flags) {
    CHECK((flags & MSG_DONTWAIT) != 0);
    const size_t allowed = length_under(&of_receive, fd, length);
    return allowed == SIZE_MAX ? -1 : __real_recv(fd, data, allowed, flags);
}

int __wrap_epoll_wait(int epoll, struct epoll_event *ready, int room, int timeout_ms) {
    CHECK(timeout_ms >= 0);
    if (of_wait != 0) {
        errno = of_wait;
        of_wait = 0;
        return -1;
    }
    const int count = __real_epoll_wait(epoll, ready, room, 0);
    if (count == 0) {
        clock_at += (uint64_t)timeout_ms * 1000000u;
        waited_ms += (uint64_t)timeout_ms;
    }
    return count;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
    (void)clock;
    now->tv_sec = (time_t)(clock_at / 1000000000u);
    now->tv_nsec = (long)(clock_at % 1000000000u);
    return 0;
}

static int sign_open(
    unsigned char *m, unsigned long long *mlen, const unsigned char *sm, unsigned long long smlen, const unsigned char *pk
) {
    (void)m;
    (void)mlen;
    (void)smlen;
    (void)pk;
    return sm[0] == 0 ? 0 : -1;
}

/* ------------------------------------------------------------ the world around the pump */

typedef struct client {
    int32_t fd;      /* the pump's end */
    int32_t far;     /* the client's */
    uint32_t account;
    uint32_t slot;   /* in routes */
    uint64_t session_id;
    uint64_t nonce;
    uint64_t heard;  /* report_seq of the last report */
    uint8_t key[32];
} client;

typedef struct world {
    pump_parts parts;
    pump *pump;
    stages times;
    figures figures;
    int32_t store; /* the store's end */
    client operator;
    client alice;
    client bob;
} world;

/* What has come of a request to the store. */
static uint8_t request[2 * PUMP_REQUEST_BYTES];
static size_t request_bytes;

static void key_of(uint32_t account, uint8_t *key) {
    memset(key, 0, 32);
    key[0] = (uint8_t)(account + 1);
}

static engine *make_engine(void) {
    static const uint8_t deployment_id[ZX_HASH_BYTES] = {7};
    static uint8_t operator_key[32];
    static const engine_asset_config assets[] = {{.symbol = "USD", .asset_id = 1}, {.symbol = "BTC", .asset_id = 2}};
    static const engine_market_config markets[] = {
        {.symbol = "BTC-USD", .base_units_per_lot = 1, .quote_units_per_tick_lot = 1, .market_id = 1, .base_asset = 1},
    };
    key_of(OPERATOR, operator_key);
    const engine_config config = {
        .deployment_id = deployment_id,
        .operator_public_key = operator_key,
        .assets = assets,
        .markets = markets,
        .sha256 = toy_hash,
        .asset_count = 2,
        .market_count = 1,
        .assets_max = 2,
        .markets_max = 2,
        .accounts_max = ACCOUNTS,
        .keys_max = 8,
        .balances_max = 16,
        .orders_max = 8192,
        .outcomes_max = 4096,
        .shard = SHARD,
    };
    engine *made = NULL;
    CHECK(engine_create(&config, &made) == ZX_OK);
    for (uint32_t account = ALICE; account < ACCOUNTS; account++) {
        struct zx_operator_command commands[3] = {
            {.kind = ZX_OPERATOR_COMMAND_KIND_OPEN_ACCOUNT, .account_id = account},
            {.kind = ZX_OPERATOR_COMMAND_KIND_DEPOSIT, .account_id = account, .asset_id = 1, .amount = 1000000000},
            {.kind = ZX_OPERATOR_COMMAND_KIND_DEPOSIT, .account_id = account, .asset_id = 2, .amount = 1000000000},
        };
        key_of(account, commands[0].new_public_key);
        uint8_t frame[FRAMES_LENGTH_MAX];
        const uint32_t length =
            put_batch(frame, operator_key, account, ZX_OPERATOR_BATCH_TEMPLATE_ID, commands, 3);
        zx_store_u16(frame + ZX_BODY_OFFSET + ZX_SIGNED_BATCH_SHARD_OFFSET, SHARD);
        engine_applied applied;
        CHECK(engine_apply(made, frame, length, START_NS + account, &applied) == ZX_OK);
    }
    return made;
}

static void make_pair(int32_t *ours, int32_t *theirs) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    *ours = pair[0];
    *theirs = pair[1];
}

static void watch(const world *self, int32_t fd, int32_t as, uint32_t events) {
    struct epoll_event wanted = {.events = events, .data.fd = as};
    CHECK(epoll_ctl(self->parts.epoll_fd, EPOLL_CTL_ADD, fd, &wanted) == 0);
}

static void watch_store(const world *self, uint32_t events) {
    struct epoll_event wanted = {.events = events, .data.fd = self->pump->store_fd};
    CHECK(epoll_ctl(self->parts.epoll_fd, EPOLL_CTL_MOD, self->pump->store_fd, &wanted) == 0);
}

static client connect_client(world *self, uint32_t account, uint64_t session_id) {
    client made = {.account = account, .session_id = session_id, .nonce = 1000 * session_id};
    key_of(account, made.key);
    make_pair(&made.fd, &made.far);
    watch(self, made.fd, made.fd, EPOLLIN);
    made.slot = routes_add(self->parts.routes, LINK, session_id);
    CHECK(made.slot != ROUTES_NOBODY);
    routes_bind(self->parts.routes, made.slot, account);
    made.heard = engine_report_seq(self->parts.shard, account);
    CHECK(pump_add(self->pump, made.fd, session_id, made.key));
    return made;
}

static void disconnect(world *self, client *of) {
    routes_remove(self->parts.routes, of->slot);
    pump_remove(self->pump, of->fd);
    close(of->fd);
    close(of->far);
}

static void begin(world *self, bool with_stages) {
    static const uint8_t deployment_id[ZX_HASH_BYTES] = {7};
    *self = (world){
        .parts =
            {
                .shard = make_engine(),
                .seal = calloc(1, sizeof(seal)),
                .sign_open = sign_open,
                .deployment_id = deployment_id,
                .log_key = "zx:{3}:log",
                .timeout_ms = TIMEOUT_MS,
                .body_max = 60000,
                .queued_max = 1000,
                .shard_number = SHARD,
                .epoll_fd = epoll_create1(0),
            },
    };
    CHECK(express_create(&self->parts.express) == ZX_OK && inbox_create(&self->parts.inbox) == ZX_OK);
    CHECK(routes_create(ACCOUNTS, &self->parts.routes) == ZX_OK && verifiers_create(0, &self->parts.verifiers) == ZX_OK);
    self->parts.seal->epoch = 1;
    self->parts.figures = &self->figures;
    if (with_stages) self->parts.stages = &self->times;
    CHECK(pump_create(&self->parts, &self->pump) == ZX_OK);
    clock_at = START_NS + 1000000000u;
    of_send.calls = of_receive.calls = 0;
    waited_ms = 0;
    request_bytes = 0;
    make_pair(&self->pump->store_fd, &self->store);
    watch(self, self->pump->store_fd, self->pump->store_fd, EPOLLIN);
    self->pump->link = LINK;
    self->pump->may_queue = self->pump->may_seal = 1;
    self->operator = connect_client(self, OPERATOR, 10);
    self->alice = connect_client(self, ALICE, 11);
    self->bob = connect_client(self, BOB, 12);
}

static void end(world *self) {
    disconnect(self, &self->operator);
    disconnect(self, &self->alice);
    disconnect(self, &self->bob);
    const char *const broken = engine_check(self->parts.shard);
    CHECK(broken == NULL);
    close(self->pump->store_fd);
    close(self->store);
    close(self->parts.epoll_fd);
    pump_destroy(self->pump);
    verifiers_destroy(self->parts.verifiers);
    routes_destroy(self->parts.routes);
    inbox_destroy(self->parts.inbox);
    express_destroy(self->parts.express);
    engine_destroy(self->parts.shard);
    free(self->parts.seal);
}

/* ------------------------------------------------------------ clients */

static void send_bytes(const client *from, const uint8_t *bytes, size_t length) {
    CHECK(write(from->far, bytes, length) == (ssize_t)length);
}

static uint32_t put_frame(client *from, uint8_t *frame, const void *commands, uint32_t count) {
    const uint16_t template_id =
        from->account == OPERATOR ? ZX_OPERATOR_BATCH_TEMPLATE_ID : ZX_SIGNED_BATCH_TEMPLATE_ID;
    const uint32_t length = put_batch(frame, from->key, ++from->nonce, template_id, commands, count);
    zx_store_u16(frame + ZX_BODY_OFFSET + ZX_SIGNED_BATCH_SHARD_OFFSET, SHARD);
    return length;
}

static void send_batch(client *from, const void *commands, uint32_t count) {
    uint8_t frame[FRAMES_LENGTH_MAX];
    send_bytes(from, frame, put_frame(from, frame, commands, count));
}

static void order(client *from, uint8_t side, uint64_t qty_lots, int64_t price_ticks) {
    const struct zx_command command = limit_order(1, side, qty_lots, price_ticks);
    send_batch(from, &command, 1);
}

/* `count` frames of one command each, in one piece; the one at `forged` has a bad signature. */
static void orders(client *from, uint32_t count, uint32_t forged) {
    static uint8_t frames[PUMP_RECEIVE_BYTES];
    const struct zx_command command = limit_order(1, ZX_SIDE_BUY, 1, 50);
    size_t length = 0;
    for (uint32_t index = 0; index < count; index++) {
        uint8_t *const frame = frames + length;
        length += put_frame(from, frame, &command, 1);
        CHECK(length <= sizeof frames);
        if (index == forged) frame[ZX_BODY_OFFSET] = 1;
    }
    send_bytes(from, frames, length);
}

/* Looks at whole reports: they are the client's next ones, none is missing and none comes twice. */
static uint32_t hear(client *self, const uint8_t *bytes, size_t length) {
    CHECK(length % REPORT_BYTES == 0);
    for (size_t at = 0; at < length; at += REPORT_BYTES) {
        struct zx_execution_report report;
        memcpy(&report, bytes + at + ROUTES_FRAME_HEAD_BYTES, sizeof report);
        CHECK(zx_load_u16(bytes + at + 8) == ZX_EXECUTION_REPORT_TEMPLATE_ID);
        CHECK(report.account_id == self->account && report.report_seq == ++self->heard);
    }
    return (uint32_t)(length / REPORT_BYTES);
}

static uint8_t stream[1 << 22];

/* Everything that has come to a client, behind what is in `stream` already. */
static size_t receive(const client *self, size_t at) {
    for (ssize_t got; (got = __real_recv(self->far, stream + at, sizeof stream - at, 0)) > 0;) at += (size_t)got;
    return at;
}

static uint32_t reports(client *self) {
    return hear(self, stream, receive(self, 0));
}

/* What is handed off for a session of a link, behind what is in `stream` already. */
static size_t handed_off(const world *self, uint32_t link, uint64_t session_id, size_t to) {
    for (uint64_t at = 0; at < self->pump->handoff_bytes;) {
        const uint32_t run_link = zx_load_u32(self->pump->handoff + at);
        const uint64_t run_end = at + 8 + zx_load_u32(self->pump->handoff + at + 4);
        for (at += 8; at < run_end;) {
            const uint8_t *const entry = self->pump->handoff + at;
            const uint32_t payload = zx_load_u32(entry);
            CHECK(entry[4] == ROUTES_ENTRY_KIND_REPORTS);
            if (run_link == link && zx_load_u64(entry + 5) == session_id) {
                CHECK(to + payload <= sizeof stream);
                memcpy(stream + to, entry + ROUTES_ENTRY_HEADER_BYTES, payload);
                to += payload;
            }
            at += ROUTES_ENTRY_HEADER_BYTES + payload;
        }
        CHECK(at == run_end);
    }
    return to;
}

/* ------------------------------------------------------------ the store */

static char asked_id[48]; /* of the last request */

/* Reads what has come, and returns whether it is one whole request, of the batch that was sealed last. */
static bool is_asked(const world *self) {
    for (ssize_t got; (got = __real_recv(self->store, request + request_bytes, sizeof request - request_bytes, 0)) > 0;) {
        request_bytes += (size_t)got;
    }
    if (request_bytes == 0) return false;
    const seal *const sealed = self->parts.seal;
    snprintf(
        asked_id, sizeof asked_id, "%llu-%llu", (unsigned long long)sealed->epoch,
        (unsigned long long)sealed->first_record_no
    );
    char head[256];
    const size_t head_bytes = (size_t)snprintf(
        head, sizeof head, "*5\r\n$4\r\nXADD\r\n$10\r\nzx:{3}:log\r\n$%zu\r\n%s\r\n$1\r\nb\r\n$%u\r\n", strlen(asked_id),
        asked_id, sealed->batch_bytes
    );
    const size_t wanted = head_bytes + sealed->batch_bytes + 2;
    CHECK(request_bytes <= wanted);
    CHECK(memcmp(request, head, request_bytes < head_bytes ? request_bytes : head_bytes) == 0);
    if (request_bytes < wanted) return false;
    CHECK(memcmp(request + head_bytes, sealed->batch, sealed->batch_bytes) == 0);
    CHECK(memcmp(request + wanted - 2, "\r\n", 2) == 0);
    request_bytes = 0;
    return true;
}

static void say(const world *self, const char *reply) {
    CHECK(write(self->store, reply, strlen(reply)) == (ssize_t)strlen(reply));
}

static void say_yes(const world *self) {
    char reply[96];
    snprintf(reply, sizeof reply, "$%zu\r\n%s\r\n", strlen(asked_id), asked_id);
    say(self, reply);
}

static uint32_t look(world *self) {
    return pump_run(self->pump, 0);
}

/* Everything that was sent is applied and on disk, and its reports are with the clients. */
static void settle(world *self) {
    for (int turn = 0; turn < 100; turn++) {
        CHECK(look(self) == 0);
        if (is_asked(self)) say_yes(self);
        else if (!self->pump->in_flight) return;
    }
    CHECK(!"it settles");
}

/* An order of Alice's is on its way to the store, which has got all of it. */
static void begin_append(world *self) {
    order(&self->alice, ZX_SIDE_BUY, 1, 50);
    CHECK(look(self) == 0 && self->pump->in_flight && is_asked(self));
}

/* ------------------------------------------------------------ from a client to the store and back */

static void test_order_goes_in_and_its_report_comes_out(bool with_stages) {
    world self;
    begin(&self, with_stages);
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    CHECK(look(&self) == 0);
    CHECK(self.pump->added == 1 && self.pump->in_flight && self.pump->landed_batches == 0);
    CHECK(is_asked(&self));
    CHECK(look(&self) == 0 && reports(&self.alice) == 0); /* nobody hears before it is on disk */
    CHECK(self.pump->added == 0);
    clock_at += 3000000;
    say_yes(&self);
    CHECK(look(&self) == 0 && !self.pump->in_flight);
    CHECK(reports(&self.alice) == 1 && reports(&self.bob) == 0);
    CHECK(self.pump->landed_batches == 1 && self.pump->landed_first_record_no == self.parts.seal->first_record_no);
    CHECK(self.pump->landed_bytes == self.parts.seal->batch_bytes);
    CHECK(memcmp(self.pump->landed, self.parts.seal->batch, self.pump->landed_bytes) == 0);
    const pump_peer *const peer = &self.pump->peers[self.alice.fd];
    CHECK(peer->sent_bytes == REPORT_BYTES && peer->sent_ms == clock_at / 1000000 && peer->received_ms < peer->sent_ms);
    CHECK(self.times.total_ns[STAGE_APPEND] == (with_stages ? 3000000u : 0u));
    CHECK(self.pump->tape_trades == 0);
    end(&self);
}

static void test_store_answers_in_pieces(void) {
    world self;
    begin(&self, true);
    begin_append(&self);
    order(&self.bob, ZX_SIDE_BUY, 1, 49);
    char reply[96];
    const int length = snprintf(reply, sizeof reply, "$%zu\r\n%s\r\n", strlen(asked_id), asked_id);
    for (int at = 0; at < length; at++) {
        CHECK(look(&self) == 0 && reports(&self.alice) == 0 && !is_asked(&self));
        CHECK(write(self.store, reply + at, 1) == 1);
    }
    CHECK(look(&self) == 0 && reports(&self.alice) == 1);
    CHECK(is_asked(&self)); /* the next batch went out in the same look */
    say_yes(&self);
    CHECK(look(&self) == 0 && reports(&self.bob) == 1);
    end(&self);
}

static void test_store_that_does_not_say_yes_is_the_callers(void) {
    static const char *const replies[] = {"-ERR no\r\n", "$3\r\n9-9\r\n", "$3\r\n1-9\r\n"};
    for (size_t index = 0; index < sizeof replies / sizeof replies[0]; index++) {
        world self;
        begin(&self, true);
        begin_append(&self);
        say(&self, replies[index]);
        CHECK(look(&self) == PUMP_STORE && !self.pump->in_flight && self.pump->landed_batches == 0);
        CHECK(self.pump->reply_bytes == strlen(replies[index]));
        CHECK(memcmp(self.pump->reply, replies[index], self.pump->reply_bytes) == 0);
        CHECK(reports(&self.alice) == 0);
        end(&self);
    }
}

static void test_store_that_says_more_than_yes_is_the_callers(void) {
    world self;
    begin(&self, true);
    begin_append(&self);
    say_yes(&self);
    say(&self, "+");
    CHECK(look(&self) == PUMP_STORE && !self.pump->in_flight && reports(&self.alice) == 0);
    end(&self);
}

static void test_store_that_is_gone(void) {
    world self;
    begin(&self, true);
    begin_append(&self);
    shutdown(self.store, SHUT_RDWR);
    CHECK(look(&self) == PUMP_STORE && !self.pump->in_flight && self.pump->reply_bytes == 0);
    end(&self);
    begin(&self, true);
    begin_append(&self);
    say_yes(&self);
    of_receive = (fault){.fd = self.pump->store_fd, .error = ECONNRESET, .calls = 1};
    CHECK(look(&self) == PUMP_STORE && !self.pump->in_flight && reports(&self.alice) == 0);
    end(&self);
}

static void test_reply_that_is_not_there_yet_is_waited_for(int error) {
    world self;
    begin(&self, true);
    begin_append(&self);
    say_yes(&self);
    of_receive = (fault){.fd = self.pump->store_fd, .error = error, .calls = 1};
    CHECK(look(&self) == 0 && self.pump->in_flight && reports(&self.alice) == 0);
    CHECK(look(&self) == 0 && !self.pump->in_flight && reports(&self.alice) == 1);
    end(&self);
}

static void test_store_that_is_silent(void) {
    world self;
    begin(&self, true);
    begin_append(&self);
    CHECK(pump_run(self.pump, 1000) == 0 && waited_ms == 1000);
    CHECK(pump_run(self.pump, 60000) == PUMP_STORE && waited_ms == TIMEOUT_MS);
    CHECK(!self.pump->in_flight && self.pump->reply_bytes == 0 && reports(&self.alice) == 0);
    end(&self);
}

static void test_request_that_the_kernel_takes_in_pieces(void) {
    world self;
    begin(&self, true);
    of_send = (fault){.fd = self.pump->store_fd, .at_most = 20, .calls = 2};
    begin_append(&self); /* it sends until the kernel takes nothing */
    say_yes(&self);
    CHECK(look(&self) == 0 && reports(&self.alice) == 1);
    end(&self);
}

static void test_request_that_the_kernel_does_not_take_at_once(int error) {
    world self;
    begin(&self, true);
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    of_send = (fault){.fd = self.pump->store_fd, .error = error, .calls = 1};
    CHECK(look(&self) == 0 && self.pump->in_flight && !is_asked(&self));
    CHECK(look(&self) == 0 && !is_asked(&self)); /* nobody has said that there is room */
    watch_store(&self, EPOLLIN | EPOLLOUT);
    CHECK(look(&self) == 0 && is_asked(&self));
    watch_store(&self, EPOLLIN);
    say_yes(&self);
    CHECK(look(&self) == 0 && reports(&self.alice) == 1);
    end(&self);
}

static void test_signal_while_sending_changes_nothing(void) {
    world self;
    begin(&self, true);
    of_send = (fault){.fd = self.pump->store_fd, .error = EINTR, .calls = 3};
    begin_append(&self);
    CHECK(of_send.calls == 0);
    say_yes(&self);
    CHECK(look(&self) == 0 && reports(&self.alice) == 1);
    end(&self);
}

static void test_connection_that_breaks_while_the_request_goes_out(void) {
    world self;
    begin(&self, true);
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    of_send = (fault){.fd = self.pump->store_fd, .error = EPIPE, .calls = 1};
    CHECK(look(&self) == PUMP_STORE && !self.pump->in_flight);
    end(&self);
    begin(&self, true);
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    of_send = (fault){.fd = self.pump->store_fd, .error = EAGAIN, .calls = 1};
    CHECK(look(&self) == 0 && self.pump->in_flight);
    watch_store(&self, EPOLLIN | EPOLLOUT);
    of_send = (fault){.fd = self.pump->store_fd, .error = EPIPE, .calls = 1};
    order(&self.bob, ZX_SIDE_BUY, 1, 49);
    CHECK(look(&self) == (PUMP_STORE | PUMP_TURN) && !self.pump->in_flight);
    CHECK(self.parts.inbox->frames == 1); /* Bob's waits for what the caller makes of it */
    end(&self);
}

/* What is in the inbox when the caller has dealt with the store goes out first, and may fail again. */
static void test_next_batch_goes_out_before_anything_is_read(void) {
    world self;
    begin(&self, true);
    begin_append(&self);
    order(&self.bob, ZX_SIDE_BUY, 1, 49);
    CHECK(look(&self) == 0 && self.parts.inbox->frames == 1);
    say(&self, "-ERR no\r\n");
    CHECK(look(&self) == (PUMP_STORE | PUMP_TURN) && self.parts.inbox->frames == 1);
    of_send = (fault){.fd = self.pump->store_fd, .error = EPIPE, .calls = 1};
    CHECK(look(&self) == PUMP_STORE && self.parts.inbox->frames == 0);
    end(&self);
}

/* ------------------------------------------------------------ reports that cannot be sent as they are */

static void test_trade_is_heard_of_on_both_sides(void) {
    world self;
    begin(&self, true);
    order(&self.alice, ZX_SIDE_SELL, 2, 100);
    settle(&self);
    order(&self.bob, ZX_SIDE_BUY, 1, 100);
    settle(&self);
    CHECK(reports(&self.alice) == 2 && reports(&self.bob) == 2);
    CHECK(self.pump->tape_trades == 1);
    struct zx_execution_report trade;
    memcpy(&trade, self.pump->tape, sizeof trade);
    CHECK(trade.account_id == BOB && trade.exec_type == ZX_EXEC_TYPE_TRADE && trade.last_price_ticks == 100);
    end(&self);
}

static void test_reports_for_others_are_handed_off(void) {
    world self;
    begin(&self, true);
    /* Alice is here twice more: over another worker's link, and with a session that went the careful way. */
    const uint32_t elsewhere = routes_add(self.parts.routes, ELSEWHERE, 11);
    const uint32_t unknown = routes_add(self.parts.routes, LINK, 99);
    routes_bind(self.parts.routes, elsewhere, ALICE);
    routes_bind(self.parts.routes, unknown, ALICE);
    client twin = self.alice;
    client third = self.alice;
    begin_append(&self);
    say_yes(&self);
    CHECK(look(&self) == PUMP_HANDOFF && !self.pump->in_flight);
    CHECK(reports(&self.alice) == 1);
    CHECK(hear(&twin, stream, handed_off(&self, ELSEWHERE, 11, 0)) == 1);
    CHECK(hear(&third, stream, handed_off(&self, LINK, 99, 0)) == 1);
    CHECK(look(&self) == 0 && self.pump->handoff_bytes == 0);
    end(&self);
}

static void test_reports_behind_unsent_ones_are_handed_off(void) {
    world self;
    begin(&self, true);
    self.pump->peers[self.alice.fd].output_held = 1;
    begin_append(&self);
    say_yes(&self);
    CHECK(look(&self) == PUMP_HANDOFF);
    CHECK(receive(&self.alice, 0) == 0 && self.pump->peers[self.alice.fd].sent_bytes == REPORT_BYTES);
    CHECK(hear(&self.alice, stream, handed_off(&self, LINK, 11, 0)) == 1);
    end(&self);
}

/* What the kernel does not take of a report, and everything behind it, is the caller's. */
static void test_client_whose_socket_is_full(int error, size_t at_most) {
    world self;
    begin(&self, true);
    const struct zx_command three[3] = {
        limit_order(1, ZX_SIDE_BUY, 1, 50), limit_order(1, ZX_SIDE_BUY, 1, 49), limit_order(1, ZX_SIDE_BUY, 1, 48)
    };
    send_batch(&self.alice, three, 3);
    CHECK(look(&self) == 0 && is_asked(&self));
    say_yes(&self);
    of_send = (fault){.fd = self.alice.fd, .error = error, .at_most = at_most, .calls = 1};
    CHECK(look(&self) == PUMP_HANDOFF && self.pump->peers[self.alice.fd].output_held);
    size_t length = receive(&self.alice, 0);
    CHECK(length == (error != 0 ? 0 : at_most));
    length = handed_off(&self, LINK, 11, length);
    CHECK(hear(&self.alice, stream, length) == 3);
    end(&self);
}

static void test_client_that_is_gone_hears_nothing(void) {
    world self;
    begin(&self, true);
    begin_append(&self);
    say_yes(&self);
    of_send = (fault){.fd = self.alice.fd, .error = EPIPE, .calls = 1};
    CHECK(look(&self) == 0 && self.pump->handoff_bytes == 0 && !self.pump->peers[self.alice.fd].output_held);
    end(&self);
}

/* Who had no account may have one now, and then hears of this very batch. */
static void test_reports_of_a_batch_that_registers_a_key_wait_for_the_caller(void) {
    world self;
    begin(&self, true);
    struct zx_operator_command command = {.kind = ZX_OPERATOR_COMMAND_KIND_REGISTER_KEY, .account_id = ALICE};
    key_of(9, command.new_public_key);
    send_batch(&self.operator, &command, 1);
    CHECK(look(&self) == 0 && is_asked(&self));
    say_yes(&self);
    CHECK(look(&self) == PUMP_KEYS && self.pump->landed_batches == 1);
    CHECK(self.pump->in_flight && reports(&self.operator) == 0);
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    CHECK(look(&self) == 0 && reports(&self.operator) == 1);
    settle(&self);
    CHECK(reports(&self.alice) == 1);
    end(&self);
}

/* Auctions have no taker: the buyer's report of each trade stands for it. New sizes of a market are on the tape too. */
static void test_tape_of_an_auction(void) {
    world self;
    begin(&self, true);
    struct zx_operator_command command = {
        .kind = ZX_OPERATOR_COMMAND_KIND_SET_MARKET_STATE, .market_id = 1, .market_state = ZX_MARKET_STATE_AUCTION
    };
    send_batch(&self.operator, &command, 1);
    settle(&self);
    order(&self.alice, ZX_SIDE_SELL, 2, 90);
    settle(&self);
    order(&self.bob, ZX_SIDE_BUY, 2, 110);
    settle(&self);
    CHECK(self.pump->tape_trades == 0);
    command.market_state = ZX_MARKET_STATE_CONTINUOUS;
    send_batch(&self.operator, &command, 1);
    settle(&self);
    CHECK(self.pump->tape_trades == 1);
    struct zx_execution_report trade;
    memcpy(&trade, self.pump->tape, sizeof trade);
    CHECK(trade.side == ZX_SIDE_BUY && trade.liquidity == ZX_LIQUIDITY_AUCTION && trade.last_qty_lots == 2);
    command.market_state = ZX_MARKET_STATE_CLOSED;
    send_batch(&self.operator, &command, 1);
    const struct zx_operator_command sizes = {
        .kind = ZX_OPERATOR_COMMAND_KIND_SET_MARKET_SIZES,
        .market_id = 1,
        .base_units_per_lot = 10,
        .quote_units_per_tick_lot = 10,
    };
    send_batch(&self.operator, &sizes, 1);
    settle(&self);
    CHECK(self.pump->tape_trades == 2);
    memcpy(&trade, self.pump->tape + ENGINE_REPORT_BYTES, sizeof trade);
    CHECK(trade.exec_type == ZX_EXEC_TYPE_MARKET_SIZES_SET);
    end(&self);
}

/* More trades than the tape holds: the caller is told in time, and if it does not listen the newest is kept. */
static void test_tape_that_is_full(void) {
    world self;
    begin(&self, true);
    struct zx_command commands[64];
    for (uint32_t index = 0; index < 64; index++) commands[index] = limit_order(1, ZX_SIDE_SELL, 1, 100 + index);
    for (uint32_t round = 0; round < 66; round++) {
        send_batch(&self.alice, commands, 64);
        settle(&self);
        CHECK(reports(&self.alice) == 64);
    }
    for (uint32_t round = 0; round < 66; round++) {
        order(&self.bob, ZX_SIDE_BUY, 64, 163);
        CHECK((look(&self) & ~(uint32_t)PUMP_TRADES) == 0 && is_asked(&self));
        say_yes(&self);
        const uint32_t attention = look(&self);
        CHECK(reports(&self.alice) == 64 && reports(&self.bob) == 1 + 64);
        CHECK(attention == (64 * (round + 1) > PUMP_TAPE_TRADES / 2 ? PUMP_TRADES : 0u));
        CHECK(self.pump->tape_trades <= PUMP_TAPE_TRADES);
    }
    CHECK(self.pump->tape_trades == PUMP_TAPE_TRADES - 1);
    struct zx_execution_report newest;
    memcpy(&newest, self.pump->tape + (PUMP_TAPE_TRADES - 1) * (size_t)ENGINE_REPORT_BYTES, sizeof newest);
    CHECK(newest.trade_id == self.parts.shard->next_trade_id - 1);
    end(&self);
}

/* There is room to hand off so much; the rest of the batch lands when the caller has taken it. */
static void test_landing_goes_on_when_there_is_room_again(void) {
    world self;
    begin(&self, true);
    uint32_t others[ROUTES_SESSIONS_MAX];
    uint32_t count = 0;
    for (;; count++) {
        others[count] = routes_add(self.parts.routes, ELSEWHERE, 100 + count);
        if (others[count] == ROUTES_NOBODY) break; /* the table is full */
        routes_bind(self.parts.routes, others[count], ALICE);
    }
    CHECK(count == ROUTES_SESSIONS_MAX - 1 - 3); /* the first is nobody's; three are the clients' */
    client twin = self.alice;
    struct zx_command commands[64];
    for (uint32_t index = 0; index < 64; index++) commands[index] = limit_order(1, ZX_SIDE_BUY, 1, 50);
    for (int round = 0; round < 4; round++) send_batch(&self.alice, commands, 64);
    CHECK(look(&self) == 0 && is_asked(&self));
    say_yes(&self);
    /* Behind the batch that is landing, nothing else goes out. */
    order(&self.bob, ZX_SIDE_BUY, 1, 49);
    uint32_t turns = 0;
    size_t length = 0;
    do {
        CHECK(look(&self) == PUMP_HANDOFF && !is_asked(&self));
        length = handed_off(&self, ELSEWHERE, 100, length);
        turns++;
    } while (self.pump->landing && turns < 100);
    CHECK(turns > 2 && turns < 100);
    CHECK(hear(&twin, stream, length) == 4 * 64 && reports(&self.alice) == 4 * 64);
    settle(&self);
    CHECK(reports(&self.bob) == 1);
    for (uint32_t index = 0; index < count; index++) routes_remove(self.parts.routes, others[index]);
    end(&self);
}

/* ------------------------------------------------------------ what is not the pump's, or not now */

static void expect_event(world *self, int32_t fd, uint32_t events) {
    CHECK(look(self) == PUMP_EVENTS && self->pump->event_count == 1);
    CHECK(self->pump->events[0].fd == fd && self->pump->events[0].events == events);
    CHECK(self->parts.inbox->frames == 0 && self->parts.express->pending == 0);
}

static void test_descriptors_that_are_the_callers(void) {
    world self;
    begin(&self, true);
    int32_t listener;
    int32_t other;
    make_pair(&listener, &other);
    CHECK(write(other, "x", 1) == 1);
    watch(&self, listener, listener, EPOLLIN); /* never added */
    expect_event(&self, listener, EPOLLIN);
    close(listener);
    close(other);
    make_pair(&listener, &other);
    CHECK(write(other, "x", 1) == 1);
    watch(&self, listener, (int32_t)PUMP_FDS_MAX, EPOLLIN); /* has a number beyond the pump's table */
    expect_event(&self, PUMP_FDS_MAX, EPOLLIN);
    close(listener);
    close(other);
    CHECK(!pump_add(self.pump, (int32_t)PUMP_FDS_MAX, 5, self.alice.key) && !pump_add(self.pump, -1, 5, self.alice.key));
    pump_remove(self.pump, (int32_t)PUMP_FDS_MAX);
    pump_remove(self.pump, -1);
    pump_remove(self.pump, self.store); /* was never added */

    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    self.pump->peers[self.alice.fd].input_held = 1;
    expect_event(&self, self.alice.fd, EPOLLIN);
    self.pump->peers[self.alice.fd].input_held = 0;
    self.pump->link = ZX_NONE;
    expect_event(&self, self.alice.fd, EPOLLIN);
    self.pump->link = LINK;
    self.pump->may_queue = 0;
    expect_event(&self, self.alice.fd, EPOLLIN);
    self.pump->may_queue = 1;
    settle(&self); /* it was not lost */
    CHECK(reports(&self.alice) == 1);
    shutdown(self.alice.far, SHUT_RDWR);
    expect_event(&self, self.alice.fd, EPOLLIN | EPOLLHUP);
    end(&self);
}

static void test_client_that_ends_or_fails(void) {
    world self;
    begin(&self, true);
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    of_receive = (fault){.fd = self.alice.fd, .at_most = 0, .calls = 1}; /* the end of its stream */
    expect_event(&self, self.alice.fd, EPOLLIN);
    of_receive = (fault){.fd = self.alice.fd, .error = ECONNRESET, .calls = 1};
    expect_event(&self, self.alice.fd, EPOLLIN);
    static const int nothing_now[] = {EAGAIN, EINTR};
    for (int index = 0; index < 2; index++) {
        of_receive = (fault){.fd = self.alice.fd, .error = nothing_now[index], .calls = 1};
        CHECK(look(&self) == 0 && self.pump->event_count == 0 && self.parts.inbox->frames == 0);
    }
    settle(&self);
    CHECK(reports(&self.alice) == 1);
    end(&self);
}

static void test_queue_that_is_long_enough(void) {
    world self;
    begin(&self, true);
    self.pump->may_seal = 0; /* so nothing leaves it */
    self.pump->waits = 1;    /* for a batch of the caller */
    orders(&self.alice, 5, ZX_NONE);
    self.pump->parts.queued_max = 5;
    CHECK(look(&self) == 0 && self.parts.inbox->frames == 5);
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    CHECK(look(&self) == PUMP_EVENTS && self.pump->events[0].fd == self.alice.fd);
    self.pump->waits = 0;
    self.pump->may_seal = 1;
    self.pump->parts.queued_max = 1000;
    settle(&self);
    CHECK(reports(&self.alice) == 6);
    end(&self);
}

static void test_inbox_without_room_for_a_message(void) {
    world self;
    begin(&self, true);
    uint8_t frame[FRAMES_LENGTH_MAX];
    struct zx_command commands[64];
    for (uint32_t index = 0; index < 64; index++) commands[index] = limit_order(1, ZX_SIDE_BUY, 1, 50);
    client nobody = {.account = CAROL};
    const uint32_t length = put_frame(&nobody, frame, commands, 64);
    while (inbox_has_room(self.parts.inbox)) inbox_add(self.parts.inbox, LINK, 1, 0, frame, length);
    self.pump->parts.queued_max = UINT32_MAX;
    self.pump->waits = 1;
    self.pump->may_seal = 0;
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    CHECK(look(&self) == PUMP_EVENTS && self.pump->events[0].fd == self.alice.fd);
    end(&self);
}

static void test_what_is_no_batch_goes_to_the_session(void) {
    world self;
    begin(&self, true);
    uint8_t frame[FRAMES_LENGTH_MAX];
    const struct zx_command command = limit_order(1, ZX_SIDE_BUY, 1, 50);
    const uint32_t length = put_frame(&self.alice, frame, &command, 1);
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    send_bytes(&self.alice, frame, length - 7); /* unfinished */
    order(&self.bob, ZX_SIDE_BUY, 1, 49);
    CHECK(look(&self) == PUMP_REST && self.pump->rest_fd == self.alice.fd);
    CHECK(self.pump->rest_bytes == length - 7 && memcmp(self.pump->rest, frame, length - 7) == 0);
    CHECK(self.pump->in_flight && self.pump->added == 1); /* what was whole is on its way; Bob is not read in this look */
    CHECK(is_asked(&self));
    say_yes(&self);
    settle(&self);
    CHECK(reports(&self.alice) == 1 && reports(&self.bob) == 1);

    put_frame(&self.bob, frame, &command, 1);
    zx_store_u16(frame + ZX_BODY_OFFSET + ZX_SIGNED_BATCH_SHARD_OFFSET, SHARD - 1); /* another shard's */
    send_bytes(&self.bob, frame, length);
    CHECK(look(&self) == PUMP_REST && self.pump->rest_fd == self.bob.fd && self.pump->rest_bytes == length);
    end(&self);
}

static void test_bad_signature_is_the_callers(void) {
    world self;
    begin(&self, true);
    orders(&self.alice, 3, 2);
    CHECK(look(&self) == PUMP_REFUSED && self.parts.express->pending == 3 && self.parts.inbox->frames == 0);
    CHECK(self.parts.express->verdicts[0] == 1 && self.parts.express->verdicts[2] == 0 && self.pump->added == 0);
    const uint32_t length = self.parts.express->lengths[0];
    express_clear(self.parts.express);

    /* Among so many that they are verified while there is more to read: the rest is the session's. */
    orders(&self.alice, EXPRESS_PENDING_MAX + 3, 5);
    order(&self.bob, ZX_SIDE_BUY, 1, 49);
    CHECK(look(&self) == (PUMP_REFUSED | PUMP_REST) && self.parts.express->pending == EXPRESS_PENDING_MAX);
    CHECK(self.pump->rest_bytes == 3 * length && !self.pump->in_flight);
    express_clear(self.parts.express);
    settle(&self); /* Bob's was not read before */
    CHECK(reports(&self.alice) == 0 && reports(&self.bob) == 1);
    end(&self);
}

/* Many frames of one client are verified and sealed before all is read. */
static void test_batch_goes_out_while_there_is_more_to_read(void) {
    world self;
    begin(&self, true);
    orders(&self.alice, EXPRESS_PENDING_MAX + PUMP_VERIFY_MIN + 3, ZX_NONE);
    CHECK(look(&self) == 0 && self.parts.seal->records == EXPRESS_PENDING_MAX);
    CHECK(self.parts.inbox->frames == PUMP_VERIFY_MIN + 3 && self.pump->added == EXPRESS_PENDING_MAX + PUMP_VERIFY_MIN + 3);
    CHECK(is_asked(&self));
    say_yes(&self);
    settle(&self);
    CHECK(reports(&self.alice) == EXPRESS_PENDING_MAX + PUMP_VERIFY_MIN + 3);
    end(&self);

    begin(&self, true);
    orders(&self.alice, EXPRESS_PENDING_MAX + 3, ZX_NONE);
    of_send = (fault){.fd = self.pump->store_fd, .error = EPIPE, .calls = 1};
    CHECK(look(&self) == (PUMP_STORE | PUMP_REST)); /* the store broke off with the first of them */
    CHECK(self.parts.seal->records == EXPRESS_PENDING_MAX && self.pump->rest_fd == self.alice.fd);
    end(&self);
}

/* ------------------------------------------------------------ whose turn it is */

static void test_batch_that_the_pump_may_not_seal(void) {
    world self;
    begin(&self, true);
    self.pump->may_seal = 0;
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    CHECK(look(&self) == PUMP_TURN && self.parts.inbox->frames == 1);
    self.pump->waits = 1; /* a batch of the caller is on its way now */
    CHECK(look(&self) == 0);
    self.pump->waits = 0;
    self.pump->may_seal = 1;
    CHECK(look(&self) == 0 && is_asked(&self));
    /* The caller wants something applied behind the batch in flight: it is told when that has landed. */
    self.pump->may_seal = 0;
    say_yes(&self);
    CHECK(look(&self) == PUMP_TURN && reports(&self.alice) == 1);
    end(&self);
}

static void test_store_that_the_caller_speaks_to(void) {
    world self;
    begin(&self, true);
    const int32_t store = self.pump->store_fd;
    self.pump->store_fd = -1;
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    CHECK(look(&self) == PUMP_TURN && !self.pump->in_flight && self.parts.inbox->frames == 1);
    self.pump->store_fd = store;
    settle(&self);
    CHECK(reports(&self.alice) == 1);
    say(&self, "nobody has asked");
    CHECK(look(&self) == PUMP_EVENTS && self.pump->events[0].fd == store); /* nothing is in flight */
    end(&self);
}

static void test_waiting(void) {
    world self;
    begin(&self, true);
    CHECK(pump_run(self.pump, 250) == 0 && waited_ms == 250);
    CHECK(pump_run(self.pump, -1) == 0 && waited_ms == 250);
    of_wait = EINTR;
    CHECK(pump_run(self.pump, 250) == 0 && waited_ms == 250); /* a signal: the interpreter handles it */
    order(&self.alice, ZX_SIDE_BUY, 1, 50);
    CHECK(pump_run(self.pump, 250) == 0 && waited_ms == 500 && self.pump->in_flight);
    CHECK(is_asked(&self));
    end(&self);
}

/* Log time moves forward even when the clock does not. */
static void test_clock_that_stands_still(void) {
    world self;
    begin(&self, true);
    clock_at = START_NS;
    for (uint32_t round = 0; round < 3; round++) {
        const uint64_t before_ns = self.parts.shard->log_time_ns;
        order(&self.alice, ZX_SIDE_BUY, 1, 50);
        settle(&self);
        CHECK(self.parts.shard->log_time_ns == before_ns + 1);
    }
    CHECK(reports(&self.alice) == 3);
    end(&self);
}

int main(void) {
    test_order_goes_in_and_its_report_comes_out(true);
    test_order_goes_in_and_its_report_comes_out(false);
    test_store_answers_in_pieces();
    test_store_that_does_not_say_yes_is_the_callers();
    test_store_that_says_more_than_yes_is_the_callers();
    test_store_that_is_gone();
    test_reply_that_is_not_there_yet_is_waited_for(EAGAIN);
    test_reply_that_is_not_there_yet_is_waited_for(EINTR);
    test_store_that_is_silent();
    test_request_that_the_kernel_takes_in_pieces();
    test_request_that_the_kernel_does_not_take_at_once(EAGAIN);
    test_signal_while_sending_changes_nothing();
    test_connection_that_breaks_while_the_request_goes_out();
    test_next_batch_goes_out_before_anything_is_read();
    test_trade_is_heard_of_on_both_sides();
    test_reports_for_others_are_handed_off();
    test_reports_behind_unsent_ones_are_handed_off();
    test_client_whose_socket_is_full(EAGAIN, 0);
    test_client_whose_socket_is_full(EINTR, 0);
    test_client_whose_socket_is_full(0, REPORT_BYTES + 5);
    test_client_whose_socket_is_full(0, 2 * REPORT_BYTES);
    test_client_that_is_gone_hears_nothing();
    test_reports_of_a_batch_that_registers_a_key_wait_for_the_caller();
    test_tape_of_an_auction();
    test_tape_that_is_full();
    test_landing_goes_on_when_there_is_room_again();
    test_descriptors_that_are_the_callers();
    test_client_that_ends_or_fails();
    test_queue_that_is_long_enough();
    test_inbox_without_room_for_a_message();
    test_what_is_no_batch_goes_to_the_session();
    test_bad_signature_is_the_callers();
    test_batch_goes_out_while_there_is_more_to_read();
    test_batch_that_the_pump_may_not_seal();
    test_store_that_the_caller_speaks_to();
    test_waiting();
    test_clock_that_stands_still();
    puts("ok");
    return 0;
}
