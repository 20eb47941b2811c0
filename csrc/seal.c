#include "seal.h"

#include "frames.h"

#define TAG_BYTES 16u
#define CHAIN_OFFSET 48u

static const uint8_t chain_tag[TAG_BYTES] = "zx.v1/chain";

/* ------------------------------------------------------------ CRC-32 as zlib computes it, eight bytes a step */

static uint32_t crc_tables[8][256];

static void make_crc_tables(void) {
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = value;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (UINT32_C(0xedb88320) & (0u - (crc & 1u)));
        crc_tables[0][value] = crc;
    }
    for (uint32_t value = 0; value < 256; value++) {
        for (int step = 1; step < 8; step++) {
            const uint32_t before = crc_tables[step - 1][value];
            crc_tables[step][value] = (before >> 8) ^ crc_tables[0][before & 0xff];
        }
    }
}

static uint32_t crc32_of(const uint8_t *data, size_t length) {
    if (crc_tables[0][1] == 0) make_crc_tables();
    uint32_t crc = UINT32_MAX;
    for (; length >= 8; length -= 8, data += 8) {
        const uint32_t low = crc ^ zx_load_u32(data);
        const uint32_t high = zx_load_u32(data + 4);
        crc = crc_tables[7][low & 0xff] ^ crc_tables[6][low >> 8 & 0xff] ^ crc_tables[5][low >> 16 & 0xff] ^
              crc_tables[4][low >> 24] ^ crc_tables[3][high & 0xff] ^ crc_tables[2][high >> 8 & 0xff] ^
              crc_tables[1][high >> 16 & 0xff] ^ crc_tables[0][high >> 24];
    }
    for (; length > 0; length--, data++) crc = (crc >> 8) ^ crc_tables[0][(crc ^ *data) & 0xff];
    return ~crc;
}

/* ------------------------------------------------------------ batches */

static void write_header(
    uint8_t *at, const engine *shard, const seal *self, const engine_applied *applied, uint64_t first_record_no,
    uint64_t first_seq, uint64_t log_time_ns
) {
    memcpy(at, "ZXB1", 4);
    zx_store_u16(at + 4, 1);
    zx_store_u16(at + 6, shard->shard);
    zx_store_u64(at + 8, self->epoch);
    zx_store_u64(at + 16, first_record_no);
    zx_store_u64(at + 24, first_seq);
    zx_store_u32(at + 32, (uint32_t)applied->records);
    zx_store_u32(at + 36, (uint32_t)applied->consumed_bytes);
    zx_store_u64(at + 40, log_time_ns);
    memcpy(at + CHAIN_OFFSET, self->chain, ZX_HASH_BYTES);
}

int seal_apply(seal *self, engine *shard, const uint8_t *body, size_t length, uint64_t log_time_ns) {
    ZX_ASSERT(length <= SEAL_BATCH_BYTES_MAX - SEAL_HEADER_BYTES - SEAL_TRAILER_BYTES);
    const uint64_t first_record_no = shard->next_record_no;
    const uint64_t first_seq = shard->next_seq;
    engine_applied applied;
    const int error = engine_apply(shard, body, length, log_time_ns, &applied);
    if (error != ZX_OK) return error;
    ZX_ASSERT(applied.records > 0); /* the event buffer has room for any one frame */

    uint8_t *at = self->batch;
    write_header(at, shard, self, &applied, first_record_no, first_seq, log_time_ns);
    at += SEAL_HEADER_BYTES;
    memcpy(at, body, applied.consumed_bytes);
    at += applied.consumed_bytes;
    shard->sha256(at, shard->events - ENGINE_EVENTS_TAG_BYTES, ENGINE_EVENTS_TAG_BYTES + applied.events_bytes);
    at += ZX_HASH_BYTES;
    uint8_t link[TAG_BYTES + 2 * ZX_HASH_BYTES];
    memcpy(link, chain_tag, TAG_BYTES);
    memcpy(link + TAG_BYTES, self->chain, ZX_HASH_BYTES);
    shard->sha256(link + TAG_BYTES + ZX_HASH_BYTES, self->batch, (unsigned long long)(at - self->batch));
    shard->sha256(self->chain, link, sizeof link);
    memcpy(at, self->chain, ZX_HASH_BYTES);
    at += ZX_HASH_BYTES;
    zx_store_u32(at, crc32_of(self->batch, (size_t)(at - self->batch)));
    at += 4;

    self->first_record_no = first_record_no;
    self->events_bytes = applied.events_bytes;
    self->records = (uint32_t)applied.records;
    self->batch_bytes = (uint32_t)(at - self->batch);
    return ZX_OK;
}

int seal_apply_taken(seal *self, engine *shard, inbox *from, uint64_t log_time_ns) {
    const int error = seal_apply(self, shard, from->body, from->body_bytes, log_time_ns);
    inbox_commit(from, error == ZX_OK ? self->records : 0);
    return error;
}

/* Whether `body` is whole frames, none of which opens an epoch. */
static bool is_plain_body(const uint8_t *body, size_t length) {
    for (size_t at = 0; at < length;) {
        const size_t rest = length - at;
        if (rest < ZX_BODY_OFFSET) return false;
        const uint8_t *const frame = body + at;
        const size_t frame_length =
            (size_t)frame[0] << 24 | (size_t)frame[1] << 16 | (size_t)frame[2] << 8 | frame[3];
        if (frame_length > rest || frames_check(frame, frame_length, true) != ZX_REASON_NONE) return false;
        if (frames_template(frame) == ZX_EPOCH_OPEN_TEMPLATE_ID) return false;
        at += frame_length;
    }
    return length > 0;
}

int seal_replay(
    seal *self, engine *shard, uint64_t id_epoch, uint64_t id_record_no, const uint8_t *batch, size_t length
) {
    if (length < SEAL_HEADER_BYTES + SEAL_TRAILER_BYTES || length > SEAL_BATCH_BYTES_MAX) {
        return ZX_ERROR_NOT_NEXT;
    }
    const size_t body_bytes = length - SEAL_HEADER_BYTES - SEAL_TRAILER_BYTES;
    const uint64_t log_time_ns = zx_load_u64(batch + 40);
    if (id_epoch != self->epoch || id_record_no != shard->next_record_no ||
        zx_load_u64(batch + 8) != id_epoch || zx_load_u64(batch + 16) != id_record_no ||
        zx_load_u32(batch + 36) != body_bytes || log_time_ns <= shard->log_time_ns ||
        memcmp(batch + CHAIN_OFFSET, self->chain, ZX_HASH_BYTES) != 0 ||
        !is_plain_body(batch + SEAL_HEADER_BYTES, body_bytes)) {
        return ZX_ERROR_NOT_NEXT;
    }
    const int error = seal_apply(self, shard, batch + SEAL_HEADER_BYTES, body_bytes, log_time_ns);
    ZX_ASSERT(error == ZX_OK); /* frames and log time were checked */
    const bool same = self->batch_bytes == length && memcmp(self->batch, batch, length) == 0;
    return same ? ZX_OK : ZX_ERROR_DIVERGED;
}
