/*
 * stream.h: a generated stream of records, as tests/native/test_native.py writes it into a file.
 *
 * Little-endian: u16 shard, u16 asset count, u32 market count, u32 accounts, keys, balances, orders, outcomes, assets,
 * markets; deployment id[32]; operator key[32]; assets and markets (see read_config); then steps:
 * u64 log time, u32 length, body.
 */
#ifndef ZX_TESTS_STREAM_H
#define ZX_TESTS_STREAM_H

#include <string.h>

#include "engine.h"
#include "kit.h"

typedef struct input {
    const uint8_t *at;
    const uint8_t *end;
} input;

static const uint8_t *take(input *from, size_t length) {
    CHECK((size_t)(from->end - from->at) >= length);
    const uint8_t *const bytes = from->at;
    from->at += length;
    return bytes;
}

static uint32_t take_u32(input *from) {
    return zx_load_u32(take(from, 4));
}

static uint64_t take_u64(input *from) {
    return zx_load_u64(take(from, 8));
}

static engine_config read_config(input *from, uint64_t hash_seed) {
    engine_config config = {.sha256 = toy_hash, .tracked = 1, .hash_seed = hash_seed};
    config.shard = zx_load_u16(take(from, 2));
    config.asset_count = zx_load_u16(take(from, 2));
    config.market_count = take_u32(from);
    config.accounts_max = take_u32(from);
    config.keys_max = take_u32(from);
    config.balances_max = take_u32(from);
    config.orders_max = take_u32(from);
    config.outcomes_max = take_u32(from);
    config.assets_max = take_u32(from);
    config.markets_max = take_u32(from);
    config.deployment_id = take(from, 32);
    config.operator_public_key = take(from, 32);
    engine_asset_config *const assets = calloc(config.asset_count, sizeof *assets);
    for (uint32_t index = 0; index < config.asset_count; index++) {
        assets[index].asset_id = take_u32(from);
        assets[index].decimals = take_u32(from);
        memcpy(assets[index].symbol, take(from, ENGINE_SYMBOL_BYTES), ENGINE_SYMBOL_BYTES);
    }
    config.assets = assets;
    engine_market_config *const markets = calloc(config.market_count, sizeof *markets);
    for (uint32_t index = 0; index < config.market_count; index++) {
        markets[index].base_units_per_lot = take_u64(from);
        markets[index].quote_units_per_tick_lot = take_u64(from);
        markets[index].market_id = take_u32(from);
        markets[index].base_asset = take_u32(from);
        markets[index].quote_asset = take_u32(from);
        markets[index].maker_fee_ppm = take_u32(from);
        markets[index].taker_fee_ppm = take_u32(from);
        memcpy(markets[index].symbol, take(from, ENGINE_SYMBOL_BYTES), ENGINE_SYMBOL_BYTES);
    }
    config.markets = markets;
    return config;
}

static engine *make(const engine_config *config) {
    engine *made = NULL;
    CHECK(engine_create(config, &made) == ZX_OK);
    return made;
}

static uint8_t *read_file(const char *path, size_t *length) {
    FILE *const file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    *length = (size_t)ftell(file);
    CHECK(fseek(file, 0, SEEK_SET) == 0);
    uint8_t *const bytes = malloc(*length + 1);
    CHECK(fread(bytes, 1, *length, file) == *length);
    fclose(file);
    return bytes;
}

/* Applies the next step of the stream; returns what engine_apply() says. */
static inline int apply_step(engine *self, input *from, engine_applied *applied) {
    const uint64_t log_time_ns = take_u64(from);
    const uint32_t length = take_u32(from);
    uint8_t *const body = malloc(length > 0 ? length : 1); /* of the exact size, so that a sanitizer sees the end */
    memcpy(body, take(from, length), length);
    const int error = engine_apply(self, body, length, log_time_ns, applied);
    CHECK(error == ZX_OK || error == ZX_ERROR_MALFORMED_FRAME);
    free(body);
    return error;
}

#endif
