"""The commands of traders (docs/rules.md sections 5 and 6): new order, cancel, amend, cancel all."""

from __future__ import annotations

from zexchange import limits
from zexchange.genesis import Market as MarketDefinition
from zexchange.reference.amounts import credited_asset, held_asset, notional, order_hold
from zexchange.reference.markets import COLLECTS_FOR, Markets
from zexchange.reference.matching import Matching, would_trade
from zexchange.reference.reports import CommandContext, Rejection, Reporter
from zexchange.reference.state import Account, Balance, Market, Order, Outcome, State
from zexchange.reference.triggers import Triggers, is_met, remainder_reason, stays_open
from zexchange.wire.messages import (
    Command,
    CommandKind,
    ExecType,
    MarketState,
    OrderOptions,
    OrderType,
    ReasonCode,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Trigger,
)

__all__ = ["OrderRules"]

DAY_NS = 86_400_000_000_000
AMEND_OPTIONS = OrderOptions.POST_ONLY | OrderOptions.SLIDE


class OrderRules:
    """The commands of traders."""

    def __init__(
        self, state: State, reporter: Reporter, matching: Matching, triggers: Triggers, markets: Markets
    ) -> None:
        self._state = state
        self._reporter = reporter
        self._matching = matching
        self._triggers = triggers
        self._markets = markets
        self.previous_order_id = 0
        """The order that the command before entered, in the same batch; 0 if it entered none."""

    def apply(self, context: CommandContext, command: Command) -> Outcome:
        """Applies one command and returns its answer. Raises Rejection, and then nothing has changed."""
        previous_order_id, self.previous_order_id = self.previous_order_id, 0
        if command.kind is CommandKind.NEW:
            outcome = self._new_order(context, command, previous_order_id)
            self.previous_order_id = context.seq
            return outcome
        if command.kind is CommandKind.CANCEL:
            return self._cancel(context, command)
        if command.kind is CommandKind.AMEND:
            return self._amend(context, command)
        return self._cancel_all(context, command)

    # ------------------------------------------------------------------ section 5: new order

    def _new_order(self, context: CommandContext, command: Command, previous_order_id: int) -> Outcome:
        state = self._state
        account = state.accounts[context.account_id]
        market = state.markets.get(command.market_id)
        if market is None:
            raise Rejection(ReasonCode.UNKNOWN_MARKET)  # 1
        definition = market.definition
        _require_sizes_known(market, command)  # 1
        _require_state_allows(market, command)  # 2
        is_by_notional = command.max_notional != 0
        if not (0 if is_by_notional else 1) <= command.price_ticks <= limits.PRICE_TICKS_MAX:
            raise Rejection(ReasonCode.PRICE_TICKS_OUT_OF_RANGE)  # 3
        if not 1 <= command.qty_lots <= limits.QTY_LOTS_MAX:
            raise Rejection(ReasonCode.QTY_LOTS_OUT_OF_RANGE)  # 4
        _require_terms_fit(command)  # 5 to 10
        expire_time_ns = self._expire_time_ns(command)  # 11
        paired = self._pair(context, command, previous_order_id)  # 12
        slides = OrderOptions.SLIDE in command.options
        price_ticks = command.price_ticks or limits.PRICE_TICKS_MAX
        if slides and would_trade(market, command.side, price_ticks):
            price_ticks = _slid_price(market, command.side) or price_ticks
        order = Order(
            order_id=context.seq,
            client_order_id=command.client_order_id,
            account_id=account.account_id,
            market_id=command.market_id,
            side=command.side,
            price_ticks=price_ticks,
            qty_lots=command.qty_lots,
            leaves_lots=command.qty_lots,
            cum_qty_lots=0,
            order_type=command.order_type,
            time_in_force=command.time_in_force,
            self_trade_prevention=command.self_trade_prevention,
            is_hidden=OrderOptions.HIDDEN in command.options,
            display_lots=command.display_qty_lots,
            expire_time_ns=expire_time_ns,
            trigger=command.trigger,
            awaits_auction=_must_wait(market, command.time_in_force),
            on_reference=OrderOptions.ON_REFERENCE in command.options,
            trigger_ticks=0 if command.trigger is Trigger.TRAILING else command.trigger_ticks,
            trail_ticks=command.trigger_ticks if command.trigger is Trigger.TRAILING else 0,
            trail_ppm=command.trail_ppm,
            is_by_notional=is_by_notional,
            notional_left=command.max_notional,
        )
        may_stay = order.is_waiting or stays_open(command.time_in_force)
        hold = command.max_notional
        if not is_by_notional:
            _require_no_overflow(definition, order.side, price_ticks, order.qty_lots)  # 13
            hold = order_hold(definition, order.side, price_ticks, order.qty_lots)
        value = command.max_notional or notional(definition, price_ticks, order.qty_lots)
        _require_size_allowed(market, order.qty_lots, value)  # 13
        if command.client_order_id and command.client_order_id in _client_order_ids(account):
            raise Rejection(ReasonCode.CLIENT_ORDER_ID_IN_USE)  # 14
        if may_stay and len(state.open_orders()) >= state.genesis.limits.max_orders:
            raise Rejection(ReasonCode.ORDER_POOL_FULL)  # 15
        if command.trigger is Trigger.TRAILING and _trailing_count(market) >= limits.TRAILING_PER_MARKET_MAX:
            raise Rejection(ReasonCode.TRAILING_LIMIT)  # 16
        if may_stay:
            _require_room_for_order(account, market)  # 16
        self._require_rate(account)  # 16
        paying = account.balances.get(held_asset(definition, order.side))
        if paying is None or hold > paying.available:
            raise Rejection(ReasonCode.INSUFFICIENT_FUNDS)  # 17
        credited = credited_asset(definition, order.side)
        if credited not in account.balances and state.balance_pool_is_full():
            raise Rejection(ReasonCode.BALANCE_POOL_FULL)  # 18
        if order.is_waiting and is_met(order, market.trigger_price_ticks(order.on_reference)):
            raise Rejection(ReasonCode.TRIGGER_MET)  # 19
        is_post_only = OrderOptions.POST_ONLY in command.options or (
            market.state is MarketState.POST_ONLY and not order.is_waiting
        )
        if is_post_only and would_trade(market, order.side, price_ticks):
            raise Rejection(ReasonCode.POST_ONLY_WOULD_CROSS)  # 20
        self._require_fillable(market, order, command.min_qty_lots)  # 21

        self._count_order(account)
        account.balances.setdefault(credited, Balance())
        paying.available -= hold
        paying.held += hold
        if paired is not None:
            order.pair_id, paired.pair_id = paired.order_id, order.order_id
        if order.has_trigger:
            report_seq = self._reporter.report_order(context, order, ExecType.NEW)
            state.take_slot(order)
            self._triggers.wait(market, order)
            return self._reporter.order_outcome(context, report_seq, ExecType.NEW, order)
        order.order_type = OrderType.LIMIT
        if order.awaits_auction:
            report_seq = self._reporter.report_order(context, order, ExecType.NEW)
            state.take_slot(order)
            self._markets.wait(market, order)
            return self._reporter.order_outcome(context, report_seq, ExecType.NEW, order)
        report_seq = self._reporter.report_order(context, order, ExecType.NEW)
        self._trade(context, market, order)
        if order.leaves_lots and may_stay:
            state.take_slot(order)
            self._rest(market, order)
        elif order.leaves_lots:
            self._matching.end_taker(context, order, remainder_reason(market))
        return self._reporter.order_outcome(context, report_seq, ExecType.NEW, order)

    def _expire_time_ns(self, command: Command) -> int:
        """When the order expires; 0 if it does not. Raises Rejection."""
        now_ns = self._state.log_time_ns
        if command.time_in_force is TimeInForce.GTD:
            if command.expire_time_ns <= now_ns:
                raise Rejection(ReasonCode.EXPIRY_INVALID)
            return command.expire_time_ns
        if command.expire_time_ns:
            raise Rejection(ReasonCode.EXPIRY_INVALID)
        if command.time_in_force is not TimeInForce.DAY:
            return 0
        midnight_ns = (now_ns // DAY_NS + 1) * DAY_NS
        if midnight_ns >= 2**64:
            raise Rejection(ReasonCode.EXPIRY_INVALID)
        return midnight_ns

    def _pair(self, context: CommandContext, command: Command, previous_order_id: int) -> Order | None:
        """The order that this one is to be paired with, if any. Raises Rejection."""
        if OrderOptions.OCO_WITH_PREVIOUS not in command.options:
            return None
        other = self._state.accounts[context.account_id].orders.get(previous_order_id)
        if (
            other is None
            or other.pair_id
            or (other.market_id, other.side) != (command.market_id, command.side)
            or not (command.trigger is not Trigger.NONE or stays_open(command.time_in_force))
        ):
            raise Rejection(ReasonCode.OCO_INVALID)
        return other

    def _require_fillable(self, market: Market, order: Order, min_qty_lots: int) -> None:
        """Rule 21: what has to be filled at once is there."""
        if order.is_waiting:
            return
        if order.time_in_force is TimeInForce.FOK:
            if self._matching.reachable_lots(market, order, order.qty_lots) < order.qty_lots:
                raise Rejection(ReasonCode.FOK_NOT_FILLABLE)
        elif self._matching.reachable_lots(market, order, min_qty_lots) < min_qty_lots:
            raise Rejection(ReasonCode.MIN_QTY_NOT_FILLABLE)

    def _require_rate(self, account: Account) -> None:
        """The account may still send a new order or an amend in this second. Raises Rejection."""
        second = self._state.log_time_ns // 1_000_000_000
        counted = account.rate_count if account.rate_second == second else 0
        if account.orders_per_second and counted >= account.orders_per_second:
            raise Rejection(ReasonCode.ORDER_RATE_LIMIT)

    def _count_order(self, account: Account) -> None:
        """Only for an account that has a limit."""
        if not account.orders_per_second:
            return
        second = self._state.log_time_ns // 1_000_000_000
        if account.rate_second != second:
            account.rate_second, account.rate_count = second, 0
        account.rate_count += 1

    def _trade(self, context: CommandContext, market: Market, order: Order) -> None:
        """An order comes to the book; trailing orders follow the last price. Unless the market trades it only rests."""
        if market.state is not MarketState.CONTINUOUS:
            return
        first_trade_id = self._state.next_trade_id
        self._matching.match(context, market, order)
        if self._state.next_trade_id > first_trade_id:
            self._triggers.follow_price(market, on_reference=False)

    def _rest(self, market: Market, order: Order) -> None:
        order.self_trade_prevention = SelfTradePrevention.NONE
        self._matching.enqueue(market, order)

    # -------------------------------------------------------------- section 6: cancel, amend, cancel all

    def _named_order(self, context: CommandContext, command: Command) -> Order:
        """The sender's open order that a cancel or amend names. Raises Rejection."""
        for order in self._state.accounts[context.account_id].orders.values():
            if command.order_id == 0 and command.client_order_id == 0:
                break
            if command.order_id not in (0, order.order_id):
                continue
            if command.client_order_id not in (0, order.client_order_id):
                continue
            if command.market_id not in (0, order.market_id):
                continue
            return order
        raise Rejection(ReasonCode.UNKNOWN_ORDER)

    def _cancel(self, context: CommandContext, command: Command) -> Outcome:
        order = self._named_order(context, command)
        return self._cancel_open(context, order, ReasonCode.CANCELLED_BY_USER)

    def _cancel_open(self, context: CommandContext, order: Order, reason: ReasonCode) -> Outcome:
        report_seq = self._matching.end_resting(context, order, reason)
        return self._reporter.order_outcome(context, report_seq, ExecType.CANCELLED, order, reason)

    def _amend(self, context: CommandContext, command: Command) -> Outcome:
        order = self._named_order(context, command)
        if self._matching.is_overdue(order):
            raise Rejection(ReasonCode.UNKNOWN_ORDER)
        market = self._state.markets[order.market_id]
        definition = market.definition
        _require_sizes_known(market, command)
        if not (order.awaits_auction and market.state is MarketState.CLOSED):
            _require_open(market)
        _require_amendable(order, command)
        if command.options and market.state in COLLECTS_FOR:
            raise Rejection(ReasonCode.MARKET_NOT_CONTINUOUS)
        if not 0 <= command.price_ticks <= limits.PRICE_TICKS_MAX:
            raise Rejection(ReasonCode.PRICE_TICKS_OUT_OF_RANGE)
        if not 0 <= command.qty_lots <= limits.QTY_LOTS_MAX:
            raise Rejection(ReasonCode.QTY_LOTS_OUT_OF_RANGE)
        if OrderOptions.SLIDE in command.options and OrderOptions.POST_ONLY not in command.options:
            raise Rejection(ReasonCode.SLIDE_WITHOUT_POST_ONLY)
        new_price_ticks = command.price_ticks or order.price_ticks
        new_qty_lots = command.qty_lots or order.qty_lots
        new_display_lots = command.display_qty_lots or order.display_lots
        if new_qty_lots <= order.cum_qty_lots:
            return self._cancel_open(context, order, ReasonCode.AMENDED_BELOW_FILLED)
        if command.display_qty_lots > new_qty_lots:
            raise Rejection(ReasonCode.DISPLAY_INVALID)
        if 0 < command.expire_time_ns <= self._state.log_time_ns:
            raise Rejection(ReasonCode.EXPIRY_INVALID)
        slides = OrderOptions.SLIDE in command.options
        if slides and would_trade(market, order.side, new_price_ticks):
            new_price_ticks = _slid_price(market, order.side) or new_price_ticks

        new_leaves_lots = new_qty_lots - order.cum_qty_lots
        _require_no_overflow(definition, order.side, new_price_ticks, new_leaves_lots)
        _require_size_allowed(market, new_qty_lots, notional(definition, new_price_ticks, new_qty_lots))
        account = self._state.accounts[order.account_id]
        self._require_rate(account)
        balance = self._state.accounts[order.account_id].balances[held_asset(definition, order.side)]
        old_hold = order_hold(definition, order.side, order.price_ticks, order.leaves_lots)
        new_hold = order_hold(definition, order.side, new_price_ticks, new_leaves_lots)
        if new_hold - old_hold > balance.available:
            raise Rejection(ReasonCode.INSUFFICIENT_FUNDS)
        moves_trigger = command.trigger_ticks or command.trail_ppm
        if moves_trigger and order.trigger is not Trigger.TRAILING:
            old_trigger_ticks, order.trigger_ticks = order.trigger_ticks, command.trigger_ticks
            met = is_met(order, market.trigger_price_ticks(order.on_reference))
            order.trigger_ticks = old_trigger_ticks
            if met:
                raise Rejection(ReasonCode.TRIGGER_MET)
        is_smaller = (
            new_price_ticks == order.price_ticks
            and new_qty_lots <= order.qty_lots
            and new_display_lots == order.display_lots
        )
        keeps_place = order.is_waiting or is_smaller
        if (
            (OrderOptions.POST_ONLY in command.options or market.state is MarketState.POST_ONLY)
            and not keeps_place
            and would_trade(market, order.side, new_price_ticks)
        ):
            raise Rejection(ReasonCode.POST_ONLY_WOULD_CROSS)

        self._count_order(account)
        if not keeps_place:
            market.queue(order.side).remove(order)
        balance.available -= new_hold - old_hold
        balance.held += new_hold - old_hold
        order.price_ticks, order.qty_lots, order.leaves_lots = new_price_ticks, new_qty_lots, new_leaves_lots
        order.display_lots = new_display_lots
        order.shown_lots = min(order.shown_lots, new_leaves_lots)
        order.expire_time_ns = command.expire_time_ns or order.expire_time_ns
        if moves_trigger and order.trigger is Trigger.TRAILING:
            order.trail_ticks, order.trail_ppm = command.trigger_ticks, command.trail_ppm
            self._triggers.follow_anew(order)
        elif moves_trigger:
            order.trigger_ticks = command.trigger_ticks
            order.priority_no = self._state.take_priority_no()
        elif order.awaits_auction and not is_smaller:
            order.priority_no = self._state.take_priority_no()
        report_seq = self._reporter.report_order(context, order, ExecType.REPLACED)
        if not keeps_place:
            order.self_trade_prevention = command.self_trade_prevention
            self._trade(context, market, order)
            if order.leaves_lots:
                self._rest(market, order)
            else:
                self._state.free_slot(order)
        elif order.has_trigger:
            order.self_trade_prevention = command.self_trade_prevention
        return self._reporter.order_outcome(context, report_seq, ExecType.REPLACED, order)

    def _cancel_all(self, context: CommandContext, command: Command) -> Outcome:
        if command.market_id and command.market_id not in self._state.markets:
            raise Rejection(ReasonCode.UNKNOWN_MARKET)
        account = self._state.accounts[context.account_id]
        matching = [
            order
            for order in sorted(account.orders.values(), key=lambda order: order.order_id)
            if command.market_id in (0, order.market_id) and command.side in (Side.NONE, order.side)
        ]
        cancelled = matching[: limits.MAKERS_PER_COMMAND_MAX]
        for order in cancelled:
            if order.pair_id:  # the other is cancelled in its turn
                account.orders[order.pair_id].pair_id = 0
                order.pair_id = 0
            self._cancel_open(context, order, ReasonCode.MASS_CANCEL)
        still_open = len(matching) - len(cancelled)
        report_seq = self._reporter.report(
            context,
            account.account_id,
            ExecType.MASS_CANCELLED,
            market_id=command.market_id,
            side=command.side,
            qty_lots=len(cancelled),
            leaves_lots=still_open,
        )
        return self._reporter.outcome(
            context, report_seq, ExecType.MASS_CANCELLED, market_id=command.market_id, leaves_lots=still_open
        )


_ONLY_CANCELS = {
    MarketState.CLOSED: ReasonCode.MARKET_CLOSED,
    MarketState.HALTED: ReasonCode.MARKET_HALTED,
    MarketState.EXPIRED: ReasonCode.MARKET_EXPIRED,
    MarketState.UNCROSSING: ReasonCode.MARKET_UNCROSSING,
}


def _require_open(market: Market) -> None:
    if market.state in _ONLY_CANCELS:
        raise Rejection(_ONLY_CANCELS[market.state])


def _require_sizes_known(market: Market, command: Command) -> None:
    """Prices and quantities of the command count the ticks and lots that the market has now. Raises Rejection."""
    if command.sizes_no != market.definition.sizes_no % 256:
        raise Rejection(ReasonCode.SIZES_CHANGED)


def _require_state_allows(market: Market, command: Command) -> None:
    """Section 5, rule 2: what the state of the market allows. Raises Rejection."""
    state, time_in_force = market.state, command.time_in_force
    is_for_open = time_in_force is TimeInForce.AT_THE_OPEN
    if is_for_open and state is MarketState.CLOSED:
        return
    _require_open(market)
    if is_for_open and COLLECTS_FOR.get(state) is not TimeInForce.AT_THE_OPEN:
        raise Rejection(ReasonCode.NOT_IN_AUCTION)
    if command.trigger is not Trigger.NONE or _must_wait(market, time_in_force):
        return
    may_rest = stays_open(time_in_force)
    if state in COLLECTS_FOR and (not may_rest or OrderOptions.POST_ONLY in command.options):
        raise Rejection(ReasonCode.MARKET_NOT_CONTINUOUS)
    if state is MarketState.POST_ONLY and not may_rest:
        raise Rejection(ReasonCode.MARKET_POST_ONLY)


def _require_size_allowed(market: Market, qty_lots: int, value: int) -> None:
    if market.qty_lots_max and qty_lots > market.qty_lots_max:
        raise Rejection(ReasonCode.ORDER_TOO_LARGE)
    if market.notional_max and value > market.notional_max:
        raise Rejection(ReasonCode.NOTIONAL_TOO_LARGE)


def _require_room_for_order(account: Account, market: Market) -> None:
    in_market = sum(order.market_id == market.definition.market_id for order in account.orders.values())
    if market.orders_max and in_market >= market.orders_max:
        raise Rejection(ReasonCode.OPEN_ORDERS_LIMIT)
    if account.orders_max and len(account.orders) >= account.orders_max:
        raise Rejection(ReasonCode.OPEN_ORDERS_LIMIT)


def _require_terms_fit(command: Command) -> None:
    """Section 5, rules 5 to 10: the terms of a new order fit together. Raises Rejection."""
    options = command.options
    is_market_order = command.order_type is OrderType.MARKET
    is_waiting = command.trigger is not Trigger.NONE
    may_rest = stays_open(command.time_in_force)
    is_post_only, is_hidden = OrderOptions.POST_ONLY in options, OrderOptions.HIDDEN in options
    is_for_auction = command.time_in_force in (TimeInForce.AT_THE_OPEN, TimeInForce.AT_THE_CLOSE)
    if is_market_order and may_rest and not is_for_auction:
        raise Rejection(ReasonCode.MARKET_ORDER_CANNOT_REST)  # 5
    if is_post_only and (is_market_order or not may_rest or is_waiting or is_for_auction):
        raise Rejection(ReasonCode.POST_ONLY_MUST_REST)  # 6
    if OrderOptions.SLIDE in options and not is_post_only:
        raise Rejection(ReasonCode.SLIDE_WITHOUT_POST_ONLY)  # 6
    if (
        command.display_qty_lots > command.qty_lots
        or (is_hidden and command.display_qty_lots)
        or ((is_hidden or command.display_qty_lots) and not may_rest)
    ):
        raise Rejection(ReasonCode.DISPLAY_INVALID)  # 7
    if command.min_qty_lots and (
        command.time_in_force is not TimeInForce.IOC
        or command.min_qty_lots > command.qty_lots
        or is_waiting
        or command.max_notional
    ):
        raise Rejection(ReasonCode.MIN_QTY_INVALID)  # 8
    if command.max_notional and (
        not is_market_order
        or command.side is not Side.BUY
        or command.time_in_force is not TimeInForce.IOC
        or is_waiting
        or command.max_notional > limits.AMOUNT_MAX
    ):
        raise Rejection(ReasonCode.MAX_NOTIONAL_INVALID)  # 9
    if command.trigger is Trigger.NONE:
        is_sound = not (command.trigger_ticks or command.trail_ppm or OrderOptions.ON_REFERENCE in options)
    elif command.trigger is Trigger.TRAILING and command.trail_ppm:
        is_sound = command.trail_ppm < limits.PPM and command.trigger_ticks == 0
    else:
        is_sound = 1 <= command.trigger_ticks <= limits.PRICE_TICKS_MAX and command.trail_ppm == 0
    if not is_sound or (is_waiting and is_for_auction):
        raise Rejection(ReasonCode.TRIGGER_INVALID)  # 10


def _require_amendable(order: Order, command: Command) -> None:
    """What the amend changes the order has. Raises Rejection."""
    is_trailing = order.trigger is Trigger.TRAILING
    if (
        command.options & ~AMEND_OPTIONS
        or (command.options and order.is_waiting)
        or (command.display_qty_lots and (order.is_hidden or not stays_open(order.time_in_force)))
        or (command.expire_time_ns and order.time_in_force is not TimeInForce.GTD)
        or (command.trigger_ticks and not order.has_trigger)
        or (command.trail_ppm and not is_trailing)
        or (command.trigger_ticks and is_trailing and not order.trail_ticks)
        or (command.trail_ppm and not order.trail_ppm)
    ):
        raise Rejection(ReasonCode.AMEND_INVALID)
    if not 0 <= command.trigger_ticks <= limits.PRICE_TICKS_MAX or command.trail_ppm >= limits.PPM:
        raise Rejection(ReasonCode.TRIGGER_INVALID)


def _require_no_overflow(
    definition: MarketDefinition, side: Side, price_ticks: int, leaves_lots: int
) -> None:
    """Neither the hold nor what a sale brings may be beyond 63 bits."""
    worst = order_hold(definition, side, price_ticks, leaves_lots)
    if side is Side.SELL:
        worst = max(worst, notional(definition, price_ticks, leaves_lots))
    if worst > limits.AMOUNT_MAX:
        raise Rejection(ReasonCode.NOTIONAL_OVERFLOW)


def _must_wait(market: Market, time_in_force: TimeInForce) -> bool:
    """Whether an order is for an auction for which the market does not collect yet."""
    is_for_auction = time_in_force in (TimeInForce.AT_THE_OPEN, TimeInForce.AT_THE_CLOSE)
    return is_for_auction and COLLECTS_FOR.get(market.state) is not time_in_force


def _client_order_ids(account: Account) -> set[int]:
    return {order.client_order_id for order in account.orders.values()}


def _trailing_count(market: Market) -> int:
    return sum(order.trigger is Trigger.TRAILING for order in market.waiting)


def _slid_price(market: Market, side: Side) -> int:
    """The best price that does not trade with the best opposite order; 0 if there is none."""
    best_ticks = market.opposite_queue(side)[0].price_ticks
    price_ticks = best_ticks - 1 if side is Side.BUY else best_ticks + 1
    return price_ticks if 1 <= price_ticks <= limits.PRICE_TICKS_MAX else 0
