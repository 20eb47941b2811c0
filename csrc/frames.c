#include "frames.h"

#define SIGNATURE_BYTES 64u
#define TAG_BYTES 16u
#define DEPLOYMENT_ID_BYTES 32u

static const uint8_t batch_tag[TAG_BYTES] = "zx.v1/batch";

/* ------------------------------------------------------------ checks */

static bool is_allowed(uint16_t allowed_values, uint8_t value) {
    return value < 16 && (allowed_values >> value & 1) != 0;
}

static int check_command(const uint8_t *at) {
    struct zx_command command;
    memcpy(&command, at, sizeof command);
    if ((command.options & ~ZX_ORDER_OPTIONS_ALL) != 0) return ZX_REASON_RESERVED_BITS_SET;
    if (command.kind == 0 || command.kind > ZX_COMMAND_KIND_MAX) return ZX_REASON_ENUM_VALUE_UNKNOWN;
    const struct zx_command_rule *const rule = &zx_command_rules[command.kind];
    if (!is_allowed(rule->side, command.side) || !is_allowed(rule->order_type, command.order_type) ||
        !is_allowed(rule->time_in_force, command.time_in_force) ||
        !is_allowed(rule->self_trade_prevention, command.self_trade_prevention) ||
        !is_allowed(rule->trigger, command.trigger)) {
        return ZX_REASON_ENUM_VALUE_UNKNOWN;
    }
    if ((rule->options_zero && command.options != 0) || (rule->sizes_no_zero && command.sizes_no != 0) ||
        (rule->client_order_id_zero && command.client_order_id != 0) ||
        (rule->order_id_zero && command.order_id != 0) ||
        (rule->price_ticks_zero && command.price_ticks != 0) ||
        (rule->qty_lots_zero && command.qty_lots != 0) ||
        (rule->trail_ppm_zero && command.trail_ppm != 0) ||
        (rule->display_qty_lots_zero && command.display_qty_lots != 0) ||
        (rule->min_qty_lots_zero && command.min_qty_lots != 0) ||
        (rule->trigger_ticks_zero && command.trigger_ticks != 0) ||
        (rule->expire_time_ns_zero && command.expire_time_ns != 0) ||
        (rule->max_notional_zero && command.max_notional != 0)) {
        return ZX_REASON_ENUM_VALUE_UNKNOWN;
    }
    return ZX_REASON_NONE;
}

static int check_operator_command(const uint8_t *at) {
    static const uint8_t no_key[sizeof((struct zx_operator_command *)0)->new_public_key];
    static const uint8_t no_symbol[sizeof((struct zx_operator_command *)0)->symbol];
    struct zx_operator_command command;
    memcpy(&command, at, sizeof command);
    if (command.reserved1 != 0 || command.reserved2 != 0 || command.reserved3 != 0 || command.reserved4 != 0) {
        return ZX_REASON_RESERVED_BITS_SET;
    }
    if (command.kind == 0 || command.kind > ZX_OPERATOR_COMMAND_KIND_MAX) return ZX_REASON_ENUM_VALUE_UNKNOWN;
    const struct zx_operator_command_rule *const rule = &zx_operator_command_rules[command.kind];
    if (!is_allowed(rule->market_state, command.market_state)) return ZX_REASON_ENUM_VALUE_UNKNOWN;
    if ((rule->market_id_zero && command.market_id != 0) ||
        (rule->account_id_zero && command.account_id != 0) || (rule->amount_zero && command.amount != 0) ||
        (rule->asset_id_zero && command.asset_id != 0) ||
        (rule->trade_group_zero && command.trade_group != 0) ||
        (rule->price_ticks_zero && command.price_ticks != 0) ||
        (rule->until_ns_zero && command.until_ns != 0) || (rule->qty_lots_zero && command.qty_lots != 0) ||
        (rule->orders_max_zero && command.orders_max != 0) ||
        (rule->dynamic_band_ppm_zero && command.dynamic_band_ppm != 0) ||
        (rule->static_band_ppm_zero && command.static_band_ppm != 0) ||
        (rule->fee_discount_ppm_zero && command.fee_discount_ppm != 0) ||
        (rule->orders_per_second_zero && command.orders_per_second != 0) ||
        (rule->quote_asset_id_zero && command.quote_asset_id != 0) ||
        (rule->base_units_per_lot_zero && command.base_units_per_lot != 0) ||
        (rule->quote_units_per_tick_lot_zero && command.quote_units_per_tick_lot != 0) ||
        (rule->maker_fee_ppm_zero && command.maker_fee_ppm != 0) ||
        (rule->taker_fee_ppm_zero && command.taker_fee_ppm != 0) ||
        (rule->decimals_zero && command.decimals != 0) ||
        (rule->symbol_zero && memcmp(command.symbol, no_symbol, sizeof no_symbol) != 0) ||
        (rule->new_public_key_zero && memcmp(command.new_public_key, no_key, sizeof no_key) != 0)) {
        return ZX_REASON_ENUM_VALUE_UNKNOWN;
    }
    return ZX_REASON_NONE;
}

static int check_batch(
    const uint8_t *frame, size_t length, uint32_t entry_length, uint32_t count_max, uint8_t flags,
    int (*check)(const uint8_t *at)
) {
    const uint8_t *const group = frame + ZX_BODY_OFFSET + ZX_SIGNED_BATCH_BLOCK_LENGTH;
    const uint8_t *const commands = group + ZX_GROUP_HEADER_BYTES;
    const size_t head = (size_t)(commands - frame);
    if (length < head) return ZX_REASON_FRAME_TRUNCATED;
    if (zx_load_u16(group) != entry_length) return ZX_REASON_GROUP_SIZE_INVALID;
    const uint32_t count = zx_load_u16(group + 2);
    if (count < 1 || count > count_max) return ZX_REASON_COMMAND_COUNT_INVALID;
    if (length < head + (size_t)count * entry_length) return ZX_REASON_FRAME_TRUNCATED;
    if (length > head + (size_t)count * entry_length) return ZX_REASON_TRAILING_BYTES;
    struct zx_signed_batch batch;
    memcpy(&batch, frame + ZX_BODY_OFFSET, ZX_SIGNED_BATCH_BLOCK_LENGTH);
    if ((batch.flags & ~flags) != 0 || batch.reserved != 0) return ZX_REASON_RESERVED_BITS_SET;
    for (uint32_t index = 0; index < count; index++) {
        const int reason = check(commands + (size_t)index * entry_length);
        if (reason != ZX_REASON_NONE) return reason;
    }
    return ZX_REASON_NONE;
}

int frames_check(const uint8_t *frame, size_t length, bool from_log) {
    if (length < ZX_BODY_OFFSET) return ZX_REASON_FRAME_LENGTH_INVALID;
    const uint32_t stated =
        (uint32_t)frame[0] << 24 | (uint32_t)frame[1] << 16 | (uint32_t)frame[2] << 8 | frame[3];
    if (stated != length) return ZX_REASON_FRAME_LENGTH_INVALID;
    if (((uint32_t)frame[4] << 8 | frame[5]) != ZX_ENCODING_TYPE) return ZX_REASON_ENCODING_TYPE_UNKNOWN;
    const uint8_t *const header = frame + ZX_FRAME_HEADER_BYTES;
    const uint32_t block_length = zx_load_u16(header);
    const uint32_t template_id = zx_load_u16(header + 2);
    if (zx_load_u16(header + 4) != ZX_SCHEMA_ID) return ZX_REASON_SCHEMA_UNKNOWN;
    if (zx_load_u16(header + 6) != ZX_SCHEMA_VERSION) return ZX_REASON_VERSION_UNSUPPORTED;
    switch (template_id) {
    case ZX_SIGNED_BATCH_TEMPLATE_ID:
        if (block_length != ZX_SIGNED_BATCH_BLOCK_LENGTH) return ZX_REASON_BLOCK_LENGTH_INVALID;
        return check_batch(
            frame, length, ZX_COMMAND_BLOCK_LENGTH, ZX_SIGNED_BATCH_COMMANDS_MAX,
            ZX_BATCH_FLAGS_ALL, check_command
        );
    case ZX_OPERATOR_BATCH_TEMPLATE_ID:
        if (block_length != ZX_OPERATOR_BATCH_BLOCK_LENGTH) return ZX_REASON_BLOCK_LENGTH_INVALID;
        return check_batch(
            frame, length, ZX_OPERATOR_COMMAND_BLOCK_LENGTH, ZX_OPERATOR_BATCH_COMMANDS_MAX,
            0, check_operator_command
        );
    case ZX_EPOCH_OPEN_TEMPLATE_ID:
        if (!from_log) return ZX_REASON_TEMPLATE_UNKNOWN;
        if (block_length != ZX_EPOCH_OPEN_BLOCK_LENGTH) return ZX_REASON_BLOCK_LENGTH_INVALID;
        if (length < ZX_EPOCH_OPEN_FRAME_BYTES) return ZX_REASON_FRAME_TRUNCATED;
        if (length > ZX_EPOCH_OPEN_FRAME_BYTES) return ZX_REASON_TRAILING_BYTES;
        return ZX_REASON_NONE;
    case ZX_TIME_PASSED_TEMPLATE_ID:
        if (!from_log) return ZX_REASON_TEMPLATE_UNKNOWN;
        if (block_length != ZX_TIME_PASSED_BLOCK_LENGTH) return ZX_REASON_BLOCK_LENGTH_INVALID;
        if (length < ZX_TIME_PASSED_FRAME_BYTES) return ZX_REASON_FRAME_TRUNCATED;
        if (length > ZX_TIME_PASSED_FRAME_BYTES) return ZX_REASON_TRAILING_BYTES;
        if (zx_load_u64(frame + ZX_BODY_OFFSET) != 0) return ZX_REASON_RESERVED_BITS_SET;
        return ZX_REASON_NONE;
    default:
        return ZX_REASON_TEMPLATE_UNKNOWN;
    }
}

/* ------------------------------------------------------------ signatures */

/* crypto_sign_open wants signature || message in one piece. */
static bool verify_frame(
    zx_sign_open sign_open, const uint8_t *deployment_id, const uint8_t *frame, uint32_t length
) {
    static const size_t after_signature = ZX_BODY_OFFSET + SIGNATURE_BYTES;
    if (length < ZX_BODY_OFFSET + ZX_SIGNED_BATCH_BLOCK_LENGTH || length > FRAMES_LENGTH_MAX) return false;
    uint8_t message[SIGNATURE_BYTES + TAG_BYTES + DEPLOYMENT_ID_BYTES + FRAMES_LENGTH_MAX];
    uint8_t *at = message;
    memcpy(at, frame + ZX_BODY_OFFSET, SIGNATURE_BYTES);
    at += SIGNATURE_BYTES;
    memcpy(at, batch_tag, TAG_BYTES);
    at += TAG_BYTES;
    memcpy(at, deployment_id, DEPLOYMENT_ID_BYTES);
    at += DEPLOYMENT_ID_BYTES;
    memcpy(at, frame + ZX_FRAME_HEADER_BYTES, ZX_MESSAGE_HEADER_BYTES);
    at += ZX_MESSAGE_HEADER_BYTES;
    memcpy(at, frame + after_signature, length - after_signature);
    at += length - after_signature;
    const uint8_t *const public_key = frame + ZX_BODY_OFFSET + ZX_SIGNED_BATCH_PUBLIC_KEY_OFFSET;
    return sign_open(NULL, NULL, message, (unsigned long long)(at - message), public_key) == 0;
}

size_t frames_verify(
    zx_sign_open sign_open, const uint8_t *deployment_id, const uint8_t *frames, const uint32_t *lengths,
    size_t count, uint8_t *verdicts
) {
    size_t valid = 0;
    const uint8_t *frame = frames;
    for (size_t index = 0; index < count; index++) {
        verdicts[index] = verify_frame(sign_open, deployment_id, frame, lengths[index]);
        valid += verdicts[index];
        frame += lengths[index];
    }
    return valid;
}
