/* check.c: engine_check(), the standing truths of a shard (docs/rules.md section 9), but for those that its parts check
 * themselves. */
#include "definitions.h"
#include "engine.h"
#include "markets.h"
#include "state.h"
#include "trading.h"
#include "triggers.h"

/* What an order has besides price and quantity, and its pair. */
static const char *check_terms(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    const engine_terms *const terms = &self->terms[slot];
    const uint8_t time_in_force = trading_time_in_force_of(self, slot);
    const bool has_trigger = trading_has_trigger(order);
    const bool expires = time_in_force == ZX_TIME_IN_FORCE_DAY || time_in_force == ZX_TIME_IN_FORCE_GTD;
    if (time_in_force == ZX_TIME_IN_FORCE_NONE || time_in_force > ZX_TIME_IN_FORCE_MAX ||
        expires != ((order->flags & BOOK_TIMED) != 0)) {
        return "an order's time in force is wrong";
    }
    if (expires && (terms->heap_at >= self->expiry_count || self->expiry_heap[terms->heap_at] != slot ||
                    self->pool.terms[slot].expire_time_ns == 0)) {
        return "an order that expires is not found among those";
    }
    const bool is_partly_shown = trading_is_hidden(self, slot) || trading_display_of(self, slot) != 0;
    if (is_partly_shown && !trading_stays_open(time_in_force)) return "an order that never rests hides";
    if (trading_is_hidden(self, slot) && trading_display_of(self, slot) != 0) return "a hidden order is shown";
    if (trading_is_for_auction(time_in_force) != ((order->flags & ORDER_AUCTION) != 0)) {
        return "an order for an auction is not known as one";
    }
    if (has_trigger) {
        const bool is_trailing = terms->trigger == ZX_TRIGGER_TRAILING;
        if (is_trailing != ((terms->trail_ticks != 0) != (terms->trail_ppm != 0)) ||
            (!is_trailing && terms->best_ticks != 0) || terms->trail_ppm >= 1000000 || terms->trail_ticks < 0 ||
            terms->trail_ticks > ZX_TICKS_MAX || terms->best_ticks < 0) {
            return "a waiting order's distance is wrong";
        }
        if (terms->is_iceberg > 1 || terms->is_hidden > 1 ||
            (terms->is_iceberg && self->pool.terms[slot].display_lots == 0)) {
            return "what a waiting order will show is wrong";
        }
        if (terms->order_type != ZX_ORDER_TYPE_LIMIT && terms->order_type != ZX_ORDER_TYPE_MARKET) {
            return "a waiting order has no type";
        }
        if (terms->self_trade_prevention == 0 || terms->self_trade_prevention > ZX_SELF_TRADE_PREVENTION_MAX) {
            return "a waiting order does not say how it comes";
        }
    }
    if (order->flags & ORDER_PAIRED) {
        const uint32_t other = terms->pair;
        if (other == slot || !slots_is_taken(&self->pool.taken, other) ||
            !(self->pool.orders[other].flags & ORDER_PAIRED) || self->terms[other].pair != slot ||
            self->pool.orders[other].owner != order->owner ||
            trading_market_of(self, other) != trading_market_of(self, slot) ||
            trading_side_of(self, other) != trading_side_of(self, slot)) {
            return "an order and its pair do not agree";
        }
    }
    return NULL;
}

/* The expiries are a heap; the waiting orders of a market are counted, and its trailing ones listed by age. */
static const char *check_triggers(const engine *self) {
    for (uint32_t at = 0; at < self->expiry_count; at++) {
        const uint32_t slot = self->expiry_heap[at];
        if (!slots_is_taken(&self->pool.taken, slot)) return "an order that expires is gone";
        const uint32_t before = self->expiry_heap[at > 0 ? (at - 1) / 2 : 0];
        if (self->pool.terms[slot].expire_time_ns < self->pool.terms[before].expire_time_ns) {
            return "the orders that expire are not sorted";
        }
    }
    for (uint32_t index = 0; index < self->market_count; index++) {
        const engine_market *const market = &self->markets[index];
        uint32_t queued = 0;
        for (uint32_t on_reference = 0; on_reference < 2; on_reference++) {
            const char *const broken = book_check_queues(&market->stops[on_reference], &queued);
            if (broken != NULL) return broken;
        }
        uint32_t trailing = 0;
        uint32_t without_price = 0;
        uint64_t order_id = 0;
        for (uint32_t slot = market->trailing_head; slot != ZX_NONE; slot = self->terms[slot].list_next) {
            const book_order *const order = &self->pool.orders[slot];
            if (!slots_is_taken(&self->pool.taken, slot) || order->order_id <= order_id ||
                !(order->flags & ORDER_WAITING) || self->terms[slot].trigger != ZX_TRIGGER_TRAILING ||
                self->terms[slot].market != index) {
                return "a market's trailing orders are not in order";
            }
            order_id = order->order_id;
            without_price += order->level == ZX_NONE;
            trailing++;
        }
        if (trailing != market->trailing_count || trailing > ENGINE_TRAILING_MAX ||
            market->waiting_count != queued + without_price) {
            return "a market's waiting orders are miscounted";
        }
        if (market->last_ticks < 0 || market->last_ticks > ZX_TICKS_MAX || market->reference_ticks < 0 ||
            market->reference_ticks > ZX_TICKS_MAX) {
            return "a market's price is out of range";
        }
    }
    return NULL;
}

/* An order by itself, its place in the maps, and its hold, which is added to the sum of its balance. */
static const char *check_order(const engine *self, uint32_t slot) {
    const book_order *const order = &self->pool.orders[slot];
    const bool is_waiting = (order->flags & ORDER_WAITING) != 0;
    if (is_waiting) {
        const char *const broken =
            trading_has_trigger(order) ? triggers_check(self, slot) : markets_check_waiting(self, slot);
        if (broken != NULL) return broken;
    } else if (order->level == ZX_NONE) {
        return "an open order rests nowhere";
    }
    if (order->order_id == 0 || order->order_id >= self->next_seq ||
        order->priority_no >= self->pool.next_priority_no || (order->level != ZX_NONE && order->priority_no == 0)) {
        return "an order's numbers are out of range";
    }
    if (order->qty_lots > ZX_LOTS_MAX || order->leaves_lots == 0 || order->leaves_lots > order->qty_lots) {
        return "an order's quantities are out of range";
    }
    const int64_t price_ticks = trading_price_of(self, slot);
    if (price_ticks < 1 || price_ticks > ZX_TICKS_MAX) return "an order's price is out of range";
    const char *const broken = check_terms(self, slot);
    if (broken != NULL) return broken;
    if (order->owner == ENGINE_OPERATOR_ACCOUNT || !ledger_is_open(&self->ledger, order->owner)) {
        return "an order belongs to no trader";
    }
    if (engine_find_order(self, order->order_id) != slot) return "an order is not found by its id";
    if (order->client_order_id != 0 &&
        engine_find_client_order(self, order->owner, order->client_order_id) != slot) {
        return "an order is not found by its client's id";
    }
    if (trading_hold_of(self, slot) == UINT64_MAX) return "an order's hold does not fit in 63 bits";
    return NULL;
}

static uint32_t held_asset(const engine *self, uint32_t slot) {
    const engine_market *const market = &self->markets[trading_market_of(self, slot)];
    return trading_hold_asset(market, trading_side_of(self, slot));
}

/* What is held of each balance of an account is the sum of the holds of its orders. */
static const char *check_holds(const engine *self, const ledger_account *account) {
    zx_u128 *const sums = self->ledger.sums;
    for (uint32_t index = account->first_balance; index != ZX_NONE;
         index = self->ledger.balances[index].next) {
        sums[self->ledger.balances[index].asset] = 0;
    }
    for (uint32_t slot = account->order_head; slot != ZX_NONE; slot = self->pool.orders[slot].owner_next) {
        const uint32_t asset = held_asset(self, slot);
        if (ledger_find_balance(&self->ledger, self->pool.orders[slot].owner, asset) == ZX_NONE) {
            return "an order holds of a balance that does not exist";
        }
        sums[asset] += trading_hold_of(self, slot);
    }
    for (uint32_t index = account->first_balance; index != ZX_NONE;
         index = self->ledger.balances[index].next) {
        const ledger_balance *const balance = &self->ledger.balances[index];
        if (sums[balance->asset] != balance->held) return "a balance is not held for the account's orders";
    }
    return NULL;
}

/* The list of an account's orders and their holds. */
static const char *check_account(const engine *self, uint32_t account_id) {
    const ledger_account *const account = &self->ledger.accounts[account_id];
    uint32_t count = 0;
    uint32_t prev = ZX_NONE;
    for (uint32_t slot = account->order_head; slot != ZX_NONE; slot = self->pool.orders[slot].owner_next) {
        const book_order *const order = &self->pool.orders[slot];
        if (!slots_is_taken(&self->pool.taken, slot) || order->owner != account_id ||
            order->owner_prev != prev) {
            return "the links of an account's orders do not agree";
        }
        if (prev != ZX_NONE && self->pool.orders[prev].order_id >= order->order_id) {
            return "an account's orders are not sorted";
        }
        prev = slot;
        if (++count > account->order_count) return "an account has more orders than it says";
    }
    if (account->order_tail != prev || account->order_count != count) {
        return "an account's list of orders is wrong";
    }
    for (uint8_t side = 0; side < 2; side++) {
        const lane *const of_side = lanes_find(&self->lanes, account_id, LANES_EVERY_MARKET, side);
        count -= of_side == NULL ? 0 : of_side->count;
    }
    if (count != 0) return "an account's lanes do not hold its orders";
    return check_holds(self, account);
}

/* The rules of accounts are counted, in range, and not the operator's. */
static const char *check_rules(const engine *self) {
    uint32_t count = 0;
    for (uint32_t id = 0; id <= self->ledger.highest_account; id++) {
        const engine_account_rules *const rules = &self->account_rules[id];
        if (rules->fee_discount_ppm > ENGINE_PPM) return "an account's discount is out of range";
        if (rules->orders_per_second == 0 && (rules->rate_second != 0 || rules->rate_count != 0)) {
            return "an account without a limit is counted";
        }
        count += engine_has_rules(self, id);
    }
    if (engine_has_rules(self, ENGINE_OPERATOR_ACCOUNT)) return "the operator has rules";
    return count == self->rule_count ? NULL : "accounts with rules are miscounted";
}

static const char *check_outcomes(const engine *self) {
    if (self->outcomes_count > self->outcomes_head || self->outcomes_count > self->outcomes_max) {
        return "more outcomes are cached than there are";
    }
    uint32_t batches = 0;
    for (uint64_t ordinal = self->outcomes_head - self->outcomes_count; ordinal < self->outcomes_head;
         ordinal++) {
        const uint32_t position = engine_outcome_position(self, ordinal);
        const engine_outcome *const outcome = &self->outcomes[position];
        if (outcome->command_index != 0) {
            if (batches == 0) return "the oldest cached batch lost its first outcome";
            const engine_outcome *const before = &self->outcomes[engine_outcome_position(self, ordinal - 1)];
            if (before->key_index != outcome->key_index || before->nonce != outcome->nonce ||
                before->command_index + 1 != outcome->command_index) {
                return "the outcomes of a batch are not in order";
            }
            continue;
        }
        batches++;
        if (engine_find_outcome(self, outcome->key_index, outcome->nonce) != position) {
            return "a cached batch is not found";
        }
    }
    return batches == self->outcome_map.count ? NULL : "batches are found that are not cached";
}

const char *engine_check(const engine *self) {
    const char *broken = ledger_check(&self->ledger);
    if (broken == NULL) broken = definitions_check(self);
    if (broken != NULL) return broken;
    uint32_t resting = 0;
    uint32_t awaiting = 0;
    for (uint32_t index = 0; index < self->market_count; index++) {
        broken = book_check_queues(&self->markets[index].book, &resting);
        if (broken == NULL) broken = book_check_queues(&self->markets[index].for_auctions, &awaiting);
        if (broken == NULL) broken = markets_check(self, index);
        if (broken != NULL) return broken;
    }
    broken = book_pool_check(&self->pool);
    if (broken == NULL) broken = ids_check(&self->by_id);
    if (broken == NULL) broken = check_triggers(self);
    if (broken == NULL) broken = check_rules(self);
    if (broken != NULL) return broken;
    uint32_t taken = 0;
    uint32_t timed = 0;
    uint32_t for_auctions = 0;
    uint32_t lanes_found = 0;
    uint32_t slot = slots_next_taken(&self->pool.taken, 0);
    for (; slot != ZX_NONE; slot = slots_next_taken(&self->pool.taken, slot + 1)) {
        taken++;
        broken = check_order(self, slot);
        if (broken != NULL) return broken;
        broken = lanes_check(
            &self->lanes, self->pool.orders, slot, trading_market_of(self, slot), trading_side_of(self, slot),
            &lanes_found
        );
        if (broken != NULL) return broken;
        const uint32_t flags = self->pool.orders[slot].flags;
        timed += (flags & BOOK_TIMED) != 0;
        for_auctions += (flags & (ORDER_AUCTION | ORDER_WAITING)) == ORDER_AUCTION;
        resting += (flags & ORDER_WAITING) != 0;
        awaiting -= trading_awaits_auction(&self->pool.orders[slot]);
    }
    if (timed != self->expiry_count) return "orders that expire are miscounted";
    for (uint32_t index = 0; index < self->market_count; index++) {
        uint32_t listed_slot = self->markets[index].auction_head;
        for (; listed_slot != ZX_NONE; listed_slot = self->terms[listed_slot].list_next) for_auctions--;
    }
    if (for_auctions != 0 || awaiting != 0) return "orders for auctions are miscounted";
    if (lanes_found != self->lanes.map.count) return "a lane is left without orders";
    if (taken != self->pool.taken.count || taken != resting || taken != self->by_id.count) {
        return "orders are lost between slots, books and maps";
    }
    uint64_t listed = 0;
    for (uint32_t id = 0; id <= self->ledger.highest_account; id++) {
        if (!ledger_is_open(&self->ledger, id)) continue;
        broken = check_account(self, id);
        if (broken != NULL) return broken;
        listed += self->ledger.accounts[id].order_count;
    }
    if (listed != taken) return "orders are lost between accounts and slots";
    return check_outcomes(self);
}
