/*
 * undo.c: replays a stream of records from a file; before each, tries the commands of its batches and undoes them.
 *
 * After that every byte of the engine must be what it was: whoever changes something without saying so before is found. The
 * stream is then applied, so that the next attempt begins somewhere else. Prints how many attempts there were and how many
 * lines of memory they changed at most.
 */

#include "attempt.h"
#include "frames.h"
#include "reports.h"
#include "stream.h"

/* A copy of what an attempt may change: from behind the events to where the undo keeps its own, and the struct. The outcomes
 * are left out: the engine makes room for them before an attempt and writes them again after it. */
typedef struct image {
    uint8_t *memory;
    size_t length;
    engine self;
} image;

static uint8_t *image_begin(const engine *self) {
    return self->events + ENGINE_EVENTS_BYTES;
}

static image take_image(const engine *self) {
    image made = {.length = (size_t)((uint8_t *)self->before - image_begin(self)), .self = *self};
    made.memory = malloc(made.length);
    memcpy(made.memory, image_begin(self), made.length);
    return made;
}

static void compare(engine *self, image *before) {
    const size_t outcomes = (size_t)((uint8_t *)self->outcomes - image_begin(self));
    memcpy(self->outcomes, before->memory + outcomes, self->outcomes_max * sizeof *self->outcomes);
    for (size_t at = 0; at < before->length; at++) {
        if (before->memory[at] == image_begin(self)[at]) continue;
        fprintf(stderr, "byte %zu behind the events: orders at %td, levels at %td, terms at %td, markets at %td\n", at,
                (uint8_t *)self->pool.orders - image_begin(self), (uint8_t *)self->pool.levels - image_begin(self),
                (uint8_t *)self->terms - image_begin(self), (uint8_t *)self->markets - image_begin(self));
        CHECK(before->memory[at] == image_begin(self)[at]);
    }
    CHECK(memcmp(&before->self, self, sizeof *self) == 0);
    free(before->memory);
}

static uint32_t lines_max;

/* Spreads the prices of new orders, so that there are many levels. */
static void spread(uint8_t *frame, uint64_t *random) {
    if (frames_template(frame) != ZX_SIGNED_BATCH_TEMPLATE_ID) return;
    uint8_t *const commands = frame + (frames_commands(frame) - frame);
    for (uint32_t index = 0; index < frames_command_count(frame); index++) {
        struct zx_command command;
        memcpy(&command, commands + (size_t)index * sizeof command, sizeof command);
        if (command.kind != ZX_COMMAND_KIND_NEW || command.price_ticks < 1 || command.price_ticks > 40) continue;
        command.price_ticks = command.price_ticks * 8 + random_below(random, 16);
        if (command.trigger_ticks > 0 && command.trigger_ticks <= 40) {
            command.trigger_ticks = command.trigger_ticks * 8 + random_below(random, 16);
        }
        memcpy(commands + (size_t)index * sizeof command, &command, sizeof command);
    }
}

/* Tries the commands of one frame as apply_batch() would. Returns whether it was one. */
static bool attempt(engine *self, const uint8_t *frame) {
    struct zx_signed_batch batch;
    memcpy(&batch, frame + ZX_BODY_OFFSET, ZX_SIGNED_BATCH_BLOCK_LENGTH);
    const uint32_t key = ledger_find_key(&self->ledger, batch.public_key);
    if (frames_template(frame) != ZX_SIGNED_BATCH_TEMPLATE_ID || key == ZX_NONE) return false;
    const uint64_t account = self->ledger.keys[key].account;
    if (account == ENGINE_OPERATOR_ACCOUNT) return false;
    self->command = (engine_command){
        .record_no = self->next_record_no, .nonce = batch.nonce, .account = account, .key_index = key};
    self->events_used = 0;
    const uint32_t count = frames_command_count(frame);
    image before = take_image(self);
    attempt_begin(self);
    for (uint32_t index = 0; index < count && self->events_used <= ATTEMPT_REPORTS_MAX * ENGINE_REPORT_BYTES; index++) {
        struct zx_command command;
        memcpy(&command, frames_commands(frame) + (size_t)index * sizeof command, sizeof command);
        self->command.seq = self->next_seq++;
        self->command.index = (uint8_t)index;
        orders_apply(self, &command); /* refused or not: the one behind it is tried too */
    }
    if (self->changes.count > lines_max) lines_max = self->changes.count;
    attempt_undo(self);
    compare(self, &before);
    return true;
}

int main(int count, char **arguments) {
    CHECK(count == 3); /* file, 1 to spread prices */
    size_t length;
    uint8_t *const bytes = read_file(arguments[1], &length);
    input from = {.at = bytes, .end = bytes + length};
    engine_config config = read_config(&from, 99);
    config.tracked = 0;
    engine *const self = make(&config);
    uint32_t attempts = 0;
    uint64_t random = 4711;
    while (from.at < from.end) {
        const uint64_t log_time_ns = take_u64(&from);
        const uint32_t body_length = take_u32(&from);
        uint8_t *const body = bytes + (take(&from, body_length) - bytes);
        for (uint32_t at = 0; at + ZX_FRAME_HEADER_BYTES < body_length;) {
            const uint32_t frame_length =
                (uint32_t)body[at] << 24 | (uint32_t)body[at + 1] << 16 | (uint32_t)body[at + 2] << 8 | body[at + 3];
            if (frame_length > body_length - at || frames_check(body + at, frame_length, true) != ZX_REASON_NONE) break;
            if (arguments[2][0] == '1') spread(body + at, &random);
            attempts += attempt(self, body + at);
            at += frame_length;
        }
        engine_applied applied;
        engine_apply(self, body, body_length, log_time_ns, &applied);
    }
    const char *const broken = engine_check(self);
    CHECK(broken == NULL);
    printf("%u attempts, at most %u lines\n", attempts, lines_max);
    engine_destroy(self);
    free((void *)config.assets);
    free((void *)config.markets);
    free(bytes);
    return 0;
}
