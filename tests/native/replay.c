/*
 * replay.c: replays a stream of records from a file with every check on, and damages snapshots on the way.
 *
 * Prints the counters, a hash over all events, and the state root, which the caller compares with another run; "-" instead of
 * the root if the processor has no SHA-256.
 */

#include "frames.h"
#include "sha256.h"
#include "state.h"
#include "stream.h"

static void check(const engine *self) {
    const char *const broken = engine_check(self);
    if (broken != NULL) fprintf(stderr, "%s\n", broken);
    CHECK(broken == NULL);
}

static uint8_t *snapshot_of(const engine *self, size_t *length) {
    *length = state_snapshot_size(self);
    uint8_t *const snapshot = malloc(*length); /* of the exact size, so that a sanitizer sees the last byte */
    state_snapshot(self, snapshot);
    return snapshot;
}

/* A restored engine has the same snapshot, and its tree, computed from nothing, the same root. */
static void restore_and_compare(const engine_config *config, engine *self) {
    size_t length;
    uint8_t *const snapshot = snapshot_of(self, &length);
    engine *const restored = make(config);
    const char *why = NULL;
    const int error = state_restore(restored, snapshot, length, &why);
    if (error != ZX_OK) fprintf(stderr, "%s\n", why);
    CHECK(error == ZX_OK);
    uint8_t root[ZX_HASH_BYTES];
    uint8_t restored_root[ZX_HASH_BYTES];
    CHECK(state_root(self, root) == ZX_OK && state_root(restored, restored_root) == ZX_OK);
    CHECK(memcmp(root, restored_root, sizeof root) == 0);
    engine_destroy(restored);
    free(snapshot);
}

/* Whatever is done to a snapshot: it is refused, or the engine is in exactly the state that it says. */
static void restore_damaged(const engine_config *config, const engine *self, uint64_t *random) {
    size_t length;
    uint8_t *const snapshot = snapshot_of(self, &length);
    for (int attempt = 0; attempt < 40; attempt++) {
        size_t kept = length;
        if (random_below(random, 5) == 0) kept = random_below(random, (uint32_t)length);
        uint8_t *const damaged = malloc(kept + 1);
        memcpy(damaged, snapshot, kept);
        for (uint32_t flips = random_below(random, 3) + (kept == length); flips > 0 && kept > 0; flips--) {
            const uint32_t at = random_below(random, 2)
                                    ? random_below(random, (uint32_t)kept)
                                    : random_below(random, kept < 400 ? (uint32_t)kept : 400);
            static const uint8_t values[] = {0, 1, 2, 0x7f, 0x80, 0xff};
            damaged[at] = random_below(random, 2) ? (uint8_t)(damaged[at] ^ 1u << random_below(random, 8))
                                                  : values[random_below(random, sizeof values)];
        }
        engine *const restored = make(config);
        const char *why = NULL;
        if (state_restore(restored, damaged, kept, &why) == ZX_OK) {
            check(restored);
            size_t again_length;
            uint8_t *const again = snapshot_of(restored, &again_length);
            CHECK(again_length == kept && memcmp(again, damaged, kept) == 0);
            free(again);
        } else {
            CHECK(why != NULL);
        }
        engine_destroy(restored);
        free(damaged);
    }
    free(snapshot);
}

/* Frames of any length and content are judged without reading beyond them. */
static void check_damaged_frames(const uint8_t *body, size_t length, uint64_t *random) {
    for (int attempt = 0; attempt < 8; attempt++) {
        const size_t kept = random_below(random, (uint32_t)length + 1);
        uint8_t *const frame = malloc(kept > 0 ? kept : 1);
        memcpy(frame, body, kept);
        if (kept >= 4) {
            frame[2] = (uint8_t)(kept >> 8);
            frame[3] = (uint8_t)kept;
        }
        if (kept > 0) frame[random_below(random, (uint32_t)kept)] ^= (uint8_t)(1u << random_below(random, 8));
        frames_check(frame, kept, random_below(random, 2) != 0);
        free(frame);
    }
}

int main(int count, char **arguments) {
    CHECK(count == 3); /* file, hash seed */
    size_t length;
    uint8_t *const bytes = read_file(arguments[1], &length);
    uint64_t random = strtoull(arguments[2], NULL, 10) | 1;
    input from = {.at = bytes, .end = bytes + length};
    engine_config config = read_config(&from, random);
    if (sha256_of_processor() != NULL) config.sha256 = sha256_of_processor();
    engine *const self = make(&config);
    uint64_t events_hash = UINT64_C(0xcbf29ce484222325);
    for (uint32_t step = 0; from.at < from.end; step++) {
        const uint64_t log_time_ns = take_u64(&from);
        const uint32_t body_length = take_u32(&from);
        uint8_t *const body = malloc(body_length > 0 ? body_length : 1);
        memcpy(body, take(&from, body_length), body_length);
        engine_applied applied;
        const int error = engine_apply(self, body, body_length, log_time_ns, &applied);
        CHECK(error == ZX_OK || error == ZX_ERROR_MALFORMED_FRAME);
        CHECK(applied.consumed_bytes == body_length || error != ZX_OK);
        /* Python gets no events of a body that turns out malformed. */
        for (uint64_t at = 0; error == ZX_OK && at < applied.events_bytes; at++) {
            events_hash = (events_hash ^ self->events[at]) * UINT64_C(0x100000001b3);
        }
        check(self);
        if (step % 20 == 0) restore_and_compare(&config, self);
        if (step % 100 == 50) restore_damaged(&config, self, &random);
        if (body_length > 0) check_damaged_frames(body, body_length, &random);
        free(body);
    }
    restore_and_compare(&config, self);
    printf(
        "%llu %llu %llu %016llx ", (unsigned long long)self->next_record_no,
        (unsigned long long)self->next_seq, (unsigned long long)self->next_trade_id,
        (unsigned long long)events_hash
    );
    uint8_t root[ZX_HASH_BYTES];
    CHECK(state_root(self, root) == ZX_OK);
    for (size_t at = 0; sha256_of_processor() != NULL && at < sizeof root; at++) printf("%02x", root[at]);
    puts(sha256_of_processor() != NULL ? "" : "-");
    engine_destroy(self);
    free((void *)config.assets);
    free((void *)config.markets);
    free(bytes);
    return 0;
}
