/*
 * fuzz_engine.c: arbitrary bytes as commands of traders and of the operator, as raw frames and as passing time.
 *
 * Most bytes choose among small numbers, so that orders meet: prices of a few ticks, quantities of a few lots, orders that
 * exist. What comes out is checked by walking every standing truth after each record, and by going on from a snapshot
 * now and then. Any disagreement ends the process, as a sanitizer's finding does.
 *
 * With clang it is a libFuzzer target; fuzz_main.c runs the same on files and on random bytes with any compiler.
 */

#include <string.h>

#include "../native/commands.h"
#include "../native/kit.h"
#include "engine.h"
#include "frames.h"
#include "state.h"

#define START_NS UINT64_C(1700000000000000000)
#define TRADERS 3u
#define RECORDS_MAX 400u

typedef struct input {
    const uint8_t *at;
    const uint8_t *end;
} input;

static uint8_t take(input *from) {
    return from->at < from->end ? *from->at++ : 0;
}

static uint64_t choose(input *from, const uint64_t *values, uint32_t count) {
    return values[take(from) % count];
}

typedef struct world {
    engine *shard;
    engine_config config;
    uint64_t now_ns;
    uint64_t nonce;
} world;

static const uint32_t asset_ids[] = {1, 2, 3};
static const engine_asset_config assets[] = {
    {.symbol = "A", .asset_id = 1}, {.symbol = "B", .asset_id = 2, .decimals = 1}, {.symbol = "C", .asset_id = 3}};
static const engine_market_config markets[] = {
    {.symbol = "B-A", .base_units_per_lot = 1, .quote_units_per_tick_lot = 1, .market_id = 1, .base_asset = 1, .quote_asset = 0},
    {.symbol = "C-A",
     .base_units_per_lot = 4,
     .quote_units_per_tick_lot = 2,
     .market_id = 2,
     .base_asset = 2,
     .quote_asset = 0,
     .maker_fee_ppm = -1000,
     .taker_fee_ppm = 2500},
};
static const uint8_t deployment_id[ZX_HASH_BYTES] = {7};

static void key_of(uint32_t account, uint8_t key[LEDGER_KEY_BYTES]) {
    memset(key, 0, LEDGER_KEY_BYTES);
    key[0] = (uint8_t)(account + 1);
}

static engine *make(const engine_config *config) {
    engine *made = NULL;
    CHECK(engine_create(config, &made) == ZX_OK);
    return made;
}

/* ------------------------------------------------------------ applying */

static void check(const engine *self) {
    const char *const broken = engine_check(self);
    if (broken != NULL) fprintf(stderr, "%s\n", broken);
    CHECK(broken == NULL);
}

static void apply(world *self, const uint8_t *body, size_t length) {
    engine_applied applied;
    const int error = engine_apply(self->shard, body, length, ++self->now_ns, &applied);
    CHECK(error == ZX_OK || error == ZX_ERROR_MALFORMED_FRAME);
    CHECK(applied.consumed_bytes <= length && applied.events_bytes % ENGINE_REPORT_BYTES == 0);
    check(self->shard);
}

/* The engine goes on from its own snapshot, with the same root. */
static void restore(world *self) {
    const size_t length = state_snapshot_size(self->shard);
    uint8_t *const snapshot = malloc(length);
    state_snapshot(self->shard, snapshot);
    uint8_t before[ZX_HASH_BYTES];
    uint8_t after[ZX_HASH_BYTES];
    CHECK(state_root(self->shard, before) == ZX_OK);
    const uint64_t due_ns = engine_next_due_ns(self->shard);
    engine_destroy(self->shard);
    self->shard = make(&self->config);
    const char *why = NULL;
    const int error = state_restore(self->shard, snapshot, length, &why);
    if (error != ZX_OK) fprintf(stderr, "%s\n", why);
    CHECK(error == ZX_OK);
    CHECK(state_root(self->shard, after) == ZX_OK && memcmp(before, after, sizeof before) == 0);
    CHECK(engine_next_due_ns(self->shard) == due_ns);
    free(snapshot);
}

/* ------------------------------------------------------------ frames */

static void apply_batch(world *self, uint32_t account, uint16_t template_id, const void *commands, uint32_t count) {
    static uint8_t frame[FRAMES_LENGTH_MAX];
    uint8_t key[LEDGER_KEY_BYTES];
    key_of(account, key);
    apply(self, frame, put_batch(frame, key, ++self->nonce, template_id, commands, count));
}

static void pass_time(world *self) {
    uint8_t frame[ZX_TIME_PASSED_FRAME_BYTES] = {0};
    put_header(frame, sizeof frame, ZX_TIME_PASSED_BLOCK_LENGTH, ZX_TIME_PASSED_TEMPLATE_ID);
    apply(self, frame, sizeof frame);
}

/* ------------------------------------------------------------ commands from bytes */

/* Few bits are set in it. */
static uint8_t take_sparse(input *from) {
    const uint8_t first = take(from);
    return first & take(from) & 0xff;
}

/* An open order of the account, or some number. */
static uint64_t some_order(const world *self, input *from, uint32_t account) {
    uint32_t slot = self->shard->ledger.accounts[account].order_head;
    for (uint32_t steps = take(from) % 8; steps > 0 && slot != ZX_NONE; steps--) {
        slot = self->shard->pool.orders[slot].owner_next;
    }
    return slot == ZX_NONE ? take(from) : self->shard->pool.orders[slot].order_id;
}

static struct zx_command trader_command(world *self, input *from, uint32_t account) {
    static const uint64_t steps[] = {1, 1000, 1000000, 5000000000, 0, UINT64_MAX};
    static const uint64_t sizes[] = {1, 1, 2, 3, 5, 9, 40, 2, 4, 0, UINT64_C(1) << 53};
    static const uint64_t times_in_force[] = {1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 7};
    struct zx_command command = {.kind = (uint8_t)(1 + take(from) % 8)};
    if (command.kind > ZX_COMMAND_KIND_MAX) command.kind = ZX_COMMAND_KIND_NEW;
    const bool is_new = command.kind == ZX_COMMAND_KIND_NEW;
    const bool is_amend = command.kind == ZX_COMMAND_KIND_AMEND;
    command.market_id = is_new ? 1 + take(from) % 2 + (take(from) % 32 == 0) : take(from) % 6;
    if (is_new || command.kind == ZX_COMMAND_KIND_CANCEL_ALL) command.side = take(from) % 3;
    if (is_new) {
        command.side = (uint8_t)(1 + command.side % 2);
        command.order_type = take(from) % 8 == 0 ? ZX_ORDER_TYPE_MARKET : ZX_ORDER_TYPE_LIMIT;
        command.time_in_force = (uint8_t)choose(from, times_in_force, 16);
        if (take(from) % 4 == 0) command.trigger = take(from) % 4;
        if (take(from) % 4 == 0) command.client_order_id = take(from) % 6;
    } else if (command.kind != ZX_COMMAND_KIND_CANCEL_ALL) {
        command.market_id = take(from) % 8 == 0 ? command.market_id : 0;
        command.order_id = some_order(self, from, account);
        command.client_order_id = take(from) % 16 == 0;
    }
    if (!is_new && !is_amend) return command;
    command.self_trade_prevention = (uint8_t)(1 + take(from) % ZX_SELF_TRADE_PREVENTION_MAX);
    command.options = take_sparse(from) & take_sparse(from) & ZX_ORDER_OPTIONS_ALL;
    command.price_ticks = take(from) % 16;
    command.qty_lots = choose(from, sizes, 11);
    const uint8_t has = take_sparse(from);
    if (has & 1) command.display_qty_lots = choose(from, sizes, 11);
    if (has & 2 || command.trigger != ZX_TRIGGER_NONE) command.trigger_ticks = take(from) % 16;
    if (has & 4) command.trail_ppm = (uint32_t)take(from) * 4000;
    if ((has & 136) == 136 || command.time_in_force == ZX_TIME_IN_FORCE_GTD) {
        command.expire_time_ns = self->now_ns + choose(from, steps, 6);
    }
    if (is_new && (has & 16 || has & 128)) command.min_qty_lots = choose(from, sizes, 11);
    if (is_new && (has & 96) == 96) command.max_notional = take(from);
    return command;
}

static struct zx_operator_command operator_command(world *self, input *from) {
    static const uint64_t steps[] = {0, 0, 1, 1000000, 3000000000};
    static const uint64_t sizes[] = {0, 0, 1, 5, 40, 400};
    static const uint64_t states[] = {2, 2, 2, 2, 5, 5, 6, 7, 4, 3, 1, 8};
    struct zx_operator_command command = {.kind = (uint8_t)(1 + take(from) % ZX_OPERATOR_COMMAND_KIND_MAX)};
    const uint64_t step_ns = choose(from, steps, 5);
    switch (command.kind) {
    case ZX_OPERATOR_COMMAND_KIND_OPEN_ACCOUNT:
    case ZX_OPERATOR_COMMAND_KIND_REGISTER_KEY:
        command.account_id = take(from) % 6;
        key_of(take(from) % 8, command.new_public_key);
        break;
    case ZX_OPERATOR_COMMAND_KIND_DEPOSIT:
    case ZX_OPERATOR_COMMAND_KIND_WITHDRAW:
        command.account_id = take(from) % 6;
        command.asset_id = take(from) % 5;
        command.amount = take(from);
        break;
    case ZX_OPERATOR_COMMAND_KIND_SET_MARKET_STATE:
        command.market_id = take(from) % 4;
        command.market_state = (uint8_t)choose(from, states, 12);
        command.until_ns = step_ns == 0 ? 0 : self->now_ns + step_ns;
        break;
    case ZX_OPERATOR_COMMAND_KIND_SET_REFERENCE_PRICE:
        command.market_id = take(from) % 4;
        command.price_ticks = take(from) % 24;
        break;
    case ZX_OPERATOR_COMMAND_KIND_SET_MARKET_RULES:
        command.market_id = take(from) % 4;
        command.dynamic_band_ppm = (uint32_t)take(from) * 4000;
        command.static_band_ppm = (uint32_t)take(from) * 4000;
        command.qty_lots = choose(from, sizes, 6);
        command.amount = choose(from, sizes, 6);
        command.orders_max = (uint32_t)choose(from, sizes, 6);
        command.until_ns = step_ns;
        break;
    case ZX_OPERATOR_COMMAND_KIND_ADD_ASSET:
        command.asset_id = take(from) % 7;
        command.symbol[0] = (uint8_t)('A' + take(from) % 7);
        command.decimals = take(from) % 20;
        break;
    case ZX_OPERATOR_COMMAND_KIND_ADD_MARKET:
        command.market_id = take(from) % 6;
        command.symbol[take(from) % 32 == 0] = (uint8_t)('A' + take(from) % 8);
        command.asset_id = take(from) % 7;
        command.quote_asset_id = take(from) % 7;
        command.base_units_per_lot = choose(from, sizes, 6);
        command.quote_units_per_tick_lot = choose(from, sizes, 6);
        command.taker_fee_ppm = (uint32_t)take(from) * 100;
        command.maker_fee_ppm = ((int32_t)take(from) - 128) * 100;
        break;
    case ZX_OPERATOR_COMMAND_KIND_SET_MARKET_SIZES:
        command.market_id = take(from) % 6;
        command.base_units_per_lot = choose(from, sizes, 6);
        command.quote_units_per_tick_lot = choose(from, sizes, 6);
        break;
    default:
        command.account_id = take(from) % 6;
        command.fee_discount_ppm = (uint32_t)take(from) * 4000;
        command.trade_group = take(from) % 3;
        command.orders_max = (uint32_t)choose(from, sizes, 6);
        command.orders_per_second = (uint32_t)choose(from, sizes, 6);
        break;
    }
    return command;
}

/* A frame of raw bytes; mostly with the length that it says. */
static void apply_raw(world *self, input *from) {
    size_t length = take(from);
    const size_t rest = (size_t)(from->end - from->at);
    if (length > rest) length = rest;
    uint8_t *const frame = malloc(length > 0 ? length : 1); /* of the exact size, so that a sanitizer sees the end */
    memcpy(frame, from->at, length);
    from->at += length;
    if (length >= 4 && take(from) % 4 != 0) {
        memset(frame, 0, 3);
        frame[3] = (uint8_t)length;
    }
    frames_check(frame, length, take(from) % 2 != 0);
    apply(self, frame, length);
    free(frame);
}

/* ------------------------------------------------------------ a run */

static void begin(world *self) {
    static uint8_t operator_key[LEDGER_KEY_BYTES];
    key_of(ENGINE_OPERATOR_ACCOUNT, operator_key);
    self->config = (engine_config){
        .deployment_id = deployment_id,
        .operator_public_key = operator_key,
        .assets = assets,
        .markets = markets,
        .sha256 = toy_hash,
        .hash_seed = 5,
        .asset_count = 3,
        .market_count = 2,
        .assets_max = 5,
        .markets_max = 4,
        .accounts_max = 5,
        .keys_max = 6,
        .balances_max = 12,
        .orders_max = 24,
        .outcomes_max = 64,
        .tracked = 1,
    };
    self->shard = make(&self->config);
    for (uint32_t account = 1; account <= TRADERS; account++) {
        struct zx_operator_command commands[4] = {
            {.kind = ZX_OPERATOR_COMMAND_KIND_OPEN_ACCOUNT, .account_id = account},
        };
        key_of(account, commands[0].new_public_key);
        for (uint32_t asset = 0; asset < 3; asset++) {
            commands[1 + asset] = (struct zx_operator_command){
                .kind = ZX_OPERATOR_COMMAND_KIND_DEPOSIT,
                .account_id = account,
                .asset_id = asset_ids[asset],
                .amount = 2000,
            };
        }
        apply_batch(self, ENGINE_OPERATOR_ACCOUNT, ZX_OPERATOR_BATCH_TEMPLATE_ID, commands, 4);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input from = {.at = data, .end = data + size};
    world self = {.now_ns = START_NS, .nonce = START_NS / 1000};
    begin(&self);
    for (uint32_t record = 0; record < RECORDS_MAX && from.at < from.end; record++) {
        const uint8_t what = take(&from);
        if (what < 200) {
            struct zx_command commands[4];
            const uint32_t count = 1 + (what & 3);
            const uint32_t account = 1 + what / 4 % TRADERS;
            for (uint32_t index = 0; index < count; index++) {
                commands[index] = trader_command(&self, &from, account);
            }
            apply_batch(&self, account, ZX_SIGNED_BATCH_TEMPLATE_ID, commands, count);
        } else if (what < 230) {
            const struct zx_operator_command command = operator_command(&self, &from);
            apply_batch(&self, ENGINE_OPERATOR_ACCOUNT, ZX_OPERATOR_BATCH_TEMPLATE_ID, &command, 1);
        } else if (what < 240) {
            self.now_ns += (uint64_t)take(&from) * 50000000;
            pass_time(&self);
        } else if (what < 248) {
            restore(&self);
        } else {
            apply_raw(&self, &from);
        }
    }
    restore(&self);
    check(self.shard);
    engine_destroy(self.shard);
    return 0;
}
