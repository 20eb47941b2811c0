/*
 * reports.h: how commands are answered (docs/rules.md section 4), shared by the files that make up the engine.
 *
 * A report is a struct zx_execution_report, written in place at the end of the event buffer: no copy, no
 * padding, every byte set. The answer to a command is also kept as its outcome.
 */
#ifndef ZX_REPORTS_H
#define ZX_REPORTS_H

#include "engine.h"

/* Names an order in a report. */
typedef struct order_face {
    uint64_t order_id;
    uint64_t client_order_id;
    int64_t price_ticks;
    uint64_t qty_lots;
    uint64_t leaves_lots;
    uint64_t cum_qty_lots;
    uint32_t market_id;
    uint8_t side; /* enum zx_side */
    uint8_t sizes_no; /* of the market, modulo 256 */
    uint8_t reserved[2]; /* zero */
} order_face;

static inline void touch(engine *self, enum engine_tree tree, uint32_t leaf) {
    if (self->tracked) merkle_mark(&self->trees[tree], leaf);
}

/* To be called before something of an order, a market or an account is changed here: what the layers below change, they see
 * to themselves. */
static inline void before_order(engine *self, uint32_t slot) {
    if (__builtin_expect(self->undo == NULL, 1)) return;
    undo_keep(self->undo, &self->pool.orders[slot], sizeof(book_order));
    undo_keep(self->undo, &self->pool.terms[slot], sizeof(book_terms));
    undo_keep(self->undo, &self->terms[slot], sizeof(engine_terms));
}

static inline void before_market(engine *self, const engine_market *market) {
    undo_before(self->undo, market, sizeof *market);
}

static inline void before_account(engine *self, uint64_t account_id) {
    if (__builtin_expect(self->undo == NULL, 1)) return;
    undo_keep(self->undo, &self->ledger.accounts[account_id], sizeof(ledger_account));
    undo_keep(self->undo, &self->account_rules[account_id], sizeof(engine_account_rules));
}

/* A report that is not numbered: part of a refused batch or of a duplicate. */
static inline struct zx_execution_report *report_unnumbered(
    engine *self, uint64_t account_id, uint8_t exec_type
) {
    ZX_ASSERT(self->events_used + ENGINE_REPORT_BYTES <= ENGINE_EVENTS_BYTES);
    struct zx_execution_report *const report =
        (struct zx_execution_report *)(self->events + self->events_used);
    self->events_used += ENGINE_REPORT_BYTES;
    const engine_command *const command = &self->command;
    *report = (struct zx_execution_report){
        .account_id = account_id,
        .seq = command->seq,
        .record_no = command->record_no,
        .log_time_ns = self->log_time_ns,
        .nonce = account_id == command->account ? command->nonce : 0,
        .shard = self->shard,
        .command_index = command->index,
        .exec_type = exec_type,
    };
    return report;
}

/* The account's next report. */
static inline struct zx_execution_report *report_to(engine *self, uint32_t account_id, uint8_t exec_type) {
    struct zx_execution_report *const report = report_unnumbered(self, account_id, exec_type);
    before_account(self, account_id);
    report->report_seq = ++self->ledger.accounts[account_id].report_seq;
    touch(self, TREE_ACCOUNTS, account_id);
    return report;
}

static inline void report_order(struct zx_execution_report *report, const order_face *order) {
    report->order_id = order->order_id;
    report->client_order_id = order->client_order_id;
    report->price_ticks = order->price_ticks;
    report->qty_lots = order->qty_lots;
    report->leaves_lots = order->leaves_lots;
    report->cum_qty_lots = order->cum_qty_lots;
    report->market_id = order->market_id;
    report->sizes_no = order->sizes_no;
    report->side = order->side;
}

/* Keeps a report as the outcome of the current command. `named_id` is the order id, or the operator's target
 * account. The leaves and filled quantity are taken from `report` too; a caller that trades afterwards corrects
 * them in the outcome. */
engine_outcome *report_answer(engine *self, const struct zx_execution_report *report, uint64_t named_id);

/* What a rejection repeats of a command; shared by single rejections and refused batches. */
void report_rejected_command(
    struct zx_execution_report *report, const struct zx_command *command, int reason
);
void report_rejected_operator_command(
    struct zx_execution_report *report, const struct zx_operator_command *command, int reason
);

/* Applies and answers a command of a trader, or returns the reason for refusing it and has changed nothing: then it is still to
 * be answered, by orders_refuse(). */
int orders_apply(engine *self, const struct zx_command *command);
void orders_refuse(engine *self, const struct zx_command *command, int reason);

/* Applies and answers a command of the operator. */
void operator_apply(engine *self, const struct zx_operator_command *command);

#endif
