/* commands.h: frames of batches, as clients send them. The signature is all zeros: whoever checks it here says so. */
#ifndef ZX_TESTS_COMMANDS_H
#define ZX_TESTS_COMMANDS_H

#include <string.h>

#include "frames.h"

#define COMMANDS_OFFSET (ZX_BODY_OFFSET + ZX_SIGNED_BATCH_BLOCK_LENGTH + ZX_GROUP_HEADER_BYTES)

static inline void put_header(uint8_t *frame, size_t length, uint16_t block_length, uint16_t template_id) {
    frame[0] = (uint8_t)(length >> 24);
    frame[1] = (uint8_t)(length >> 16);
    frame[2] = (uint8_t)(length >> 8);
    frame[3] = (uint8_t)length;
    frame[4] = ZX_ENCODING_TYPE >> 8;
    frame[5] = ZX_ENCODING_TYPE & 0xff;
    zx_store_u16(frame + 6, block_length);
    zx_store_u16(frame + 8, template_id);
    zx_store_u16(frame + 10, ZX_SCHEMA_ID);
    zx_store_u16(frame + 12, ZX_SCHEMA_VERSION);
}

/* Writes a batch of `count` commands, of an operator or a trader; returns its length. */
static inline uint32_t put_batch(
    uint8_t *frame, const uint8_t *public_key, uint64_t nonce, uint16_t template_id, const void *commands, uint32_t count
) {
    const uint16_t entry_length = template_id == ZX_OPERATOR_BATCH_TEMPLATE_ID ? ZX_OPERATOR_COMMAND_BLOCK_LENGTH
                                                                             : ZX_COMMAND_BLOCK_LENGTH;
    struct zx_signed_batch batch = {.nonce = nonce};
    memcpy(batch.public_key, public_key, sizeof batch.public_key);
    const uint32_t length = COMMANDS_OFFSET + count * entry_length;
    put_header(frame, length, ZX_SIGNED_BATCH_BLOCK_LENGTH, template_id);
    memcpy(frame + ZX_BODY_OFFSET, &batch, ZX_SIGNED_BATCH_BLOCK_LENGTH);
    zx_store_u16(frame + COMMANDS_OFFSET - 4, entry_length);
    zx_store_u16(frame + COMMANDS_OFFSET - 2, (uint16_t)count);
    memcpy(frame + COMMANDS_OFFSET, commands, (size_t)count * entry_length);
    return length;
}

/* A limit order that stays until it is cancelled. */
static inline struct zx_command limit_order(uint32_t market_id, uint8_t side, uint64_t qty_lots, int64_t price_ticks) {
    return (struct zx_command){
        .kind = ZX_COMMAND_KIND_NEW,
        .side = side,
        .order_type = ZX_ORDER_TYPE_LIMIT,
        .time_in_force = ZX_TIME_IN_FORCE_GTC,
        .self_trade_prevention = ZX_SELF_TRADE_PREVENTION_CANCEL_NEWEST,
        .market_id = market_id,
        .price_ticks = price_ticks,
        .qty_lots = qty_lots,
    };
}

#endif
