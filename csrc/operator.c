/* operator.c: commands of the operator (docs/rules.md section 8). */

#include "definitions.h"
#include "markets.h"
#include "triggers.h"

static bool is_zero_key(const uint8_t *public_key) {
    static const uint8_t zero[LEDGER_KEY_BYTES];
    return memcmp(public_key, zero, sizeof zero) == 0;
}

/* Reason why the key cannot be registered, or ZX_REASON_NONE. */
static int key_refusal(const engine *self, const uint8_t *public_key) {
    if (ledger_find_key(&self->ledger, public_key) != ZX_NONE) return ZX_REASON_KEY_EXISTS;
    if (self->ledger.key_count == self->ledger.limits.keys) return ZX_REASON_KEY_LIMIT;
    return ZX_REASON_NONE;
}

static void add_key(engine *self, const uint8_t *public_key, uint32_t account_id) {
    touch(self, TREE_KEYS, ledger_add_key(&self->ledger, public_key, account_id));
}

static void answer(engine *self, uint8_t exec_type, uint64_t target_account_id) {
    struct zx_execution_report *const report = report_to(self, ENGINE_OPERATOR_ACCOUNT, exec_type);
    report->target_account_id = target_account_id;
    report_answer(self, report, target_account_id);
}

static int open_account(engine *self, const struct zx_operator_command *command) {
    const uint64_t limit = self->ledger.limits.accounts;
    if (is_zero_key(command->new_public_key)) return ZX_REASON_KEY_INVALID;
    if (command->account_id != 0 && ledger_is_open(&self->ledger, command->account_id)) {
        return ZX_REASON_ACCOUNT_EXISTS;
    }
    const uint64_t account_id =
        command->account_id != 0 ? command->account_id : (uint64_t)self->ledger.highest_account + 1;
    if (account_id >= limit) return ZX_REASON_ACCOUNT_LIMIT;
    const int refusal = key_refusal(self, command->new_public_key);
    if (refusal != ZX_REASON_NONE) return refusal;
    ledger_open_account(&self->ledger, (uint32_t)account_id);
    touch(self, TREE_ACCOUNTS, (uint32_t)account_id);
    add_key(self, command->new_public_key, (uint32_t)account_id);
    answer(self, ZX_EXEC_TYPE_ACCOUNT_OPENED, account_id);
    return ZX_REASON_NONE;
}

static int register_key(engine *self, const struct zx_operator_command *command) {
    if (!ledger_is_open(&self->ledger, command->account_id)) {
        return ZX_REASON_UNKNOWN_ACCOUNT;
    }
    if (is_zero_key(command->new_public_key)) return ZX_REASON_KEY_INVALID;
    const int refusal = key_refusal(self, command->new_public_key);
    if (refusal != ZX_REASON_NONE) return refusal;
    add_key(self, command->new_public_key, (uint32_t)command->account_id);
    answer(self, ZX_EXEC_TYPE_KEY_REGISTERED, command->account_id);
    return ZX_REASON_NONE;
}

/* Reports a transfer to the operator and, unless it is the same, to the account concerned. */
static void answer_transfer(engine *self, const struct zx_operator_command *command, uint8_t exec_type) {
    const uint32_t account_id = (uint32_t)command->account_id;
    const uint32_t told[2] = {ENGINE_OPERATOR_ACCOUNT, account_id};
    const uint32_t tell = account_id == ENGINE_OPERATOR_ACCOUNT ? 1 : 2;
    for (uint32_t index = 0; index < tell; index++) {
        struct zx_execution_report *const report = report_to(self, told[index], exec_type);
        report->target_account_id = account_id;
        report->asset_id = command->asset_id;
        report->amount = command->amount;
        if (index == 0) report_answer(self, report, account_id);
    }
}

static int deposit(engine *self, const struct zx_operator_command *command) {
    if (!ledger_is_open(&self->ledger, command->account_id)) {
        return ZX_REASON_UNKNOWN_ACCOUNT;
    }
    const uint32_t asset = ledger_find_asset(&self->ledger, command->asset_id);
    if (asset == ZX_NONE) return ZX_REASON_UNKNOWN_ASSET;
    if (command->amount < 1 || command->amount > ZX_AMOUNT_MAX) {
        return ZX_REASON_AMOUNT_OUT_OF_RANGE;
    }
    if (command->amount > ZX_AMOUNT_MAX - self->ledger.supplies[asset]) {
        return ZX_REASON_SUPPLY_OVERFLOW;
    }
    const uint32_t account_id = (uint32_t)command->account_id;
    const uint32_t balance = ledger_make_balance(&self->ledger, account_id, asset);
    if (balance == ZX_NONE) return ZX_REASON_BALANCE_POOL_FULL;
    ledger_credit(&self->ledger, balance, command->amount);
    self->ledger.supplies[asset] += command->amount;
    touch(self, TREE_ASSETS, asset);
    answer_transfer(self, command, ZX_EXEC_TYPE_DEPOSITED);
    return ZX_REASON_NONE;
}

static int withdraw(engine *self, const struct zx_operator_command *command) {
    if (!ledger_is_open(&self->ledger, command->account_id)) {
        return ZX_REASON_UNKNOWN_ACCOUNT;
    }
    const uint32_t asset = ledger_find_asset(&self->ledger, command->asset_id);
    if (asset == ZX_NONE) return ZX_REASON_UNKNOWN_ASSET;
    if (command->amount < 1 || command->amount > ZX_AMOUNT_MAX) {
        return ZX_REASON_AMOUNT_OUT_OF_RANGE;
    }
    const uint32_t balance = ledger_find_balance(&self->ledger, (uint32_t)command->account_id, asset);
    if (balance == ZX_NONE || self->ledger.balances[balance].available < command->amount) {
        return ZX_REASON_INSUFFICIENT_FUNDS;
    }
    ledger_debit(&self->ledger, balance, command->amount);
    ZX_ASSERT(self->ledger.supplies[asset] >= command->amount);
    self->ledger.supplies[asset] -= command->amount;
    touch(self, TREE_ASSETS, asset);
    answer_transfer(self, command, ZX_EXEC_TYPE_WITHDRAWN);
    return ZX_REASON_NONE;
}

static struct zx_execution_report *answer_for_market(
    engine *self, const struct zx_operator_command *command, uint8_t exec_type
) {
    struct zx_execution_report *const report = report_to(self, ENGINE_OPERATOR_ACCOUNT, exec_type);
    report->market_id = command->market_id;
    report_answer(self, report, 0);
    return report;
}

static int set_market_state(engine *self, const struct zx_operator_command *command) {
    engine_market *const market = engine_find_market(self, command->market_id);
    if (market == NULL) return ZX_REASON_UNKNOWN_MARKET;
    if (!markets_may_go(market->state, command->market_state)) return ZX_REASON_MARKET_TRANSITION_ILLEGAL;
    if (command->until_ns != 0 && (markets_after(command->market_state) == ZX_MARKET_STATE_NONE ||
                                   command->until_ns <= self->log_time_ns)) {
        return ZX_REASON_UNTIL_INVALID;
    }
    markets_enter(self, market, command->market_state, command->until_ns);
    answer_for_market(self, command, ZX_EXEC_TYPE_MARKET_STATE_SET)->market_state = (uint8_t)market->state;
    return ZX_REASON_NONE;
}

static int set_reference_price(engine *self, const struct zx_operator_command *command) {
    engine_market *const market = engine_find_market(self, command->market_id);
    if (market == NULL) return ZX_REASON_UNKNOWN_MARKET;
    if (command->price_ticks < 1 || command->price_ticks > ZX_TICKS_MAX) {
        return ZX_REASON_PRICE_TICKS_OUT_OF_RANGE;
    }
    market->reference_ticks = command->price_ticks;
    touch(self, TREE_MARKETS, (uint32_t)(market - self->markets));
    triggers_price_moved(self, market, true);
    answer_for_market(self, command, ZX_EXEC_TYPE_REFERENCE_PRICE_SET)->price_ticks = command->price_ticks;
    return ZX_REASON_NONE;
}

static int set_market_rules(engine *self, const struct zx_operator_command *command) {
    engine_market *const market = engine_find_market(self, command->market_id);
    if (market == NULL) return ZX_REASON_UNKNOWN_MARKET;
    if (command->dynamic_band_ppm >= ENGINE_PPM || command->static_band_ppm >= ENGINE_PPM ||
        command->qty_lots > ZX_LOTS_MAX || command->amount > ZX_AMOUNT_MAX ||
        command->until_ns > ENGINE_INTERRUPTION_NS_MAX) {
        return ZX_REASON_RULES_INVALID;
    }
    market->dynamic_band_ppm = command->dynamic_band_ppm;
    market->static_band_ppm = command->static_band_ppm;
    market->qty_lots_max = command->qty_lots;
    market->notional_max = command->amount;
    market->orders_max = command->orders_max;
    market->interruption_ns = command->until_ns;
    touch(self, TREE_MARKETS, (uint32_t)(market - self->markets));
    answer_for_market(self, command, ZX_EXEC_TYPE_MARKET_RULES_SET);
    return ZX_REASON_NONE;
}

static int set_account_rules(engine *self, const struct zx_operator_command *command) {
    if (!ledger_is_open(&self->ledger, command->account_id)) return ZX_REASON_UNKNOWN_ACCOUNT;
    if (command->account_id == ENGINE_OPERATOR_ACCOUNT || command->fee_discount_ppm > ENGINE_PPM) {
        return ZX_REASON_RULES_INVALID;
    }
    self->rule_count -= engine_has_rules(self, command->account_id);
    self->account_rules[command->account_id] = (engine_account_rules){
        .fee_discount_ppm = command->fee_discount_ppm,
        .orders_max = command->orders_max,
        .orders_per_second = command->orders_per_second,
    };
    self->trade_groups[command->account_id] = command->trade_group;
    self->rule_count += engine_has_rules(self, command->account_id);
    touch(self, TREE_ACCOUNTS, (uint32_t)command->account_id);
    answer(self, ZX_EXEC_TYPE_ACCOUNT_RULES_SET, command->account_id);
    return ZX_REASON_NONE;
}

static int add_asset(engine *self, const struct zx_operator_command *command) {
    engine_asset_config asset = {.asset_id = command->asset_id, .decimals = command->decimals};
    memcpy(asset.symbol, command->symbol, sizeof asset.symbol);
    const int refusal = definitions_asset_refusal(self, &asset);
    if (refusal != ZX_REASON_NONE) return refusal;
    definitions_add_asset(self, &asset);
    touch(self, TREE_ASSETS, self->ledger.asset_count - 1);
    struct zx_execution_report *const report =
        report_to(self, ENGINE_OPERATOR_ACCOUNT, ZX_EXEC_TYPE_ASSET_ADDED);
    report->asset_id = command->asset_id;
    report_answer(self, report, 0);
    return ZX_REASON_NONE;
}

static int add_market(engine *self, const struct zx_operator_command *command) {
    engine_market_config definition = {
        .base_units_per_lot = command->base_units_per_lot,
        .quote_units_per_tick_lot = command->quote_units_per_tick_lot,
        .market_id = command->market_id,
        .base_asset = ledger_find_asset(&self->ledger, command->asset_id),
        .quote_asset = ledger_find_asset(&self->ledger, command->quote_asset_id),
        .maker_fee_ppm = command->maker_fee_ppm,
        .taker_fee_ppm = command->taker_fee_ppm,
    };
    memcpy(definition.symbol, command->symbol, sizeof definition.symbol);
    const int refusal = definitions_market_refusal(self, &definition);
    if (refusal != ZX_REASON_NONE) return refusal;
    engine_market *const market = definitions_add_market(self, &definition, ZX_MARKET_STATE_CLOSED);
    self->market_defined[market - self->markets] = self->command.record_no;
    touch(self, TREE_MARKETS, (uint32_t)(market - self->markets));
    answer_for_market(self, command, ZX_EXEC_TYPE_MARKET_ADDED)->market_state = (uint8_t)market->state;
    return ZX_REASON_NONE;
}

static bool is_empty(const engine_market *market) {
    return market->book.sides[BOOK_BUY].best == ZX_NONE && market->book.sides[BOOK_SELL].best == ZX_NONE &&
           market->waiting_count == 0 && market->for_auctions.sides[BOOK_BUY].best == ZX_NONE &&
           market->for_auctions.sides[BOOK_SELL].best == ZX_NONE;
}

/* Prices and quantities from before would mean something else: nothing that counts ticks or lots is kept. */
static int set_market_sizes(engine *self, const struct zx_operator_command *command) {
    engine_market *const market = engine_find_market(self, command->market_id);
    if (market == NULL) return ZX_REASON_UNKNOWN_MARKET;
    if (market->state != ZX_MARKET_STATE_CLOSED) return ZX_REASON_MARKET_NOT_CLOSED;
    if (!is_empty(market)) return ZX_REASON_MARKET_NOT_EMPTY;
    if (!definitions_sizes_are_sound(
            self->ledger.asset_decimals[market->base_asset], self->ledger.asset_decimals[market->quote_asset],
            command->base_units_per_lot, command->quote_units_per_tick_lot
        )) {
        return ZX_REASON_SIZES_INVALID;
    }
    definitions_set_sizes(market, command->base_units_per_lot, command->quote_units_per_tick_lot);
    market->sizes_no++;
    self->market_defined[market - self->markets] = self->command.record_no;
    market->last_ticks = 0;
    market->reference_ticks = 0;
    market->qty_lots_max = 0;
    touch(self, TREE_MARKETS, (uint32_t)(market - self->markets));
    answer_for_market(self, command, ZX_EXEC_TYPE_MARKET_SIZES_SET)->sizes_no = (uint8_t)market->sizes_no;
    return ZX_REASON_NONE;
}

/* Applies and answers a command, or returns the reason for refusing it and has changed nothing. */
static int apply(engine *self, const struct zx_operator_command *command) {
    switch (command->kind) {
    case ZX_OPERATOR_COMMAND_KIND_OPEN_ACCOUNT:
        return open_account(self, command);
    case ZX_OPERATOR_COMMAND_KIND_REGISTER_KEY:
        return register_key(self, command);
    case ZX_OPERATOR_COMMAND_KIND_DEPOSIT:
        return deposit(self, command);
    case ZX_OPERATOR_COMMAND_KIND_WITHDRAW:
        return withdraw(self, command);
    case ZX_OPERATOR_COMMAND_KIND_SET_MARKET_STATE:
        return set_market_state(self, command);
    case ZX_OPERATOR_COMMAND_KIND_SET_REFERENCE_PRICE:
        return set_reference_price(self, command);
    case ZX_OPERATOR_COMMAND_KIND_SET_MARKET_RULES:
        return set_market_rules(self, command);
    case ZX_OPERATOR_COMMAND_KIND_SET_ACCOUNT_RULES:
        return set_account_rules(self, command);
    case ZX_OPERATOR_COMMAND_KIND_ADD_ASSET:
        return add_asset(self, command);
    case ZX_OPERATOR_COMMAND_KIND_ADD_MARKET:
        return add_market(self, command);
    default:
        return set_market_sizes(self, command);
    }
}

void operator_apply(engine *self, const struct zx_operator_command *command) {
    const int reason = apply(self, command);
    if (reason == ZX_REASON_NONE) return;
    struct zx_execution_report *const report =
        report_to(self, ENGINE_OPERATOR_ACCOUNT, ZX_EXEC_TYPE_REJECTED);
    report_rejected_operator_command(report, command, reason);
    report_answer(self, report, command->account_id);
}
