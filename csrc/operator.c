/* operator.c: commands of the operator (docs/rules.md section 8). */

#include "reports.h"

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

static int set_market_state(engine *self, const struct zx_operator_command *command) {
    engine_market *const market = engine_find_market(self, command->market_id);
    if (market == NULL) return ZX_REASON_UNKNOWN_MARKET;
    market->state = command->market_state;
    touch(self, TREE_MARKETS, (uint32_t)(market - self->markets));
    struct zx_execution_report *const report =
        report_to(self, ENGINE_OPERATOR_ACCOUNT, ZX_EXEC_TYPE_MARKET_STATE_SET);
    report->market_id = command->market_id;
    report->market_state = command->market_state;
    report_answer(self, report, 0);
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
    default:
        return set_market_state(self, command);
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
