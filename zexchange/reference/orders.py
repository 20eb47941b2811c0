"""Orders (docs/rules.md sections 5 and 6): new order, matching, fills, cancel, amend, cancel all."""

from __future__ import annotations

import bisect

from zexchange import limits
from zexchange.genesis import Market as MarketDefinition
from zexchange.reference.amounts import credited_asset, fee, held_asset, notional, order_hold
from zexchange.reference.reports import CommandContext, Rejection, Reporter
from zexchange.reference.state import Account, Balance, Market, Order, Outcome, State
from zexchange.wire.messages import (
    Command,
    CommandKind,
    ExecType,
    Liquidity,
    MarketState,
    OrderOptions,
    OrderType,
    ReasonCode,
    Side,
    TimeInForce,
)

__all__ = ["OrderRules"]


class OrderRules:
    """The commands of traders."""

    def __init__(self, state: State, reporter: Reporter) -> None:
        self._state = state
        self._reporter = reporter

    def apply(self, context: CommandContext, command: Command) -> Outcome:
        """Applies one command and returns its answer. Raises Rejection, and then nothing has changed."""
        if command.kind is CommandKind.NEW:
            return self._new_order(context, command)
        if command.kind is CommandKind.CANCEL:
            return self._cancel(context, command)
        if command.kind is CommandKind.AMEND:
            return self._amend(context, command)
        return self._cancel_all(context, command)

    # ------------------------------------------------------------------ section 5: new order

    def _new_order(self, context: CommandContext, command: Command) -> Outcome:
        state = self._state
        account = state.accounts[context.account_id]
        side, price_ticks, qty_lots = command.side, command.price_ticks, command.qty_lots
        is_gtc = command.time_in_force is TimeInForce.GTC
        is_market_order = command.order_type is OrderType.MARKET
        is_post_only = OrderOptions.POST_ONLY in command.options

        market = state.markets.get(command.market_id)
        if market is None:
            raise Rejection(ReasonCode.UNKNOWN_MARKET)  # 1
        definition = market.definition
        _require_continuous(market)  # 2
        if not 1 <= price_ticks <= limits.PRICE_TICKS_MAX:
            raise Rejection(ReasonCode.PRICE_TICKS_OUT_OF_RANGE)  # 3
        if not 1 <= qty_lots <= limits.QTY_LOTS_MAX:
            raise Rejection(ReasonCode.QTY_LOTS_OUT_OF_RANGE)  # 4
        if is_market_order and is_gtc:
            raise Rejection(ReasonCode.MARKET_ORDER_CANNOT_REST)  # 5
        if is_post_only and (is_market_order or not is_gtc):
            raise Rejection(ReasonCode.POST_ONLY_MUST_REST)  # 6
        _require_no_overflow(definition, side, price_ticks, qty_lots)  # 7
        if command.client_order_id and command.client_order_id in _client_order_ids(account):
            raise Rejection(ReasonCode.CLIENT_ORDER_ID_IN_USE)  # 8
        if is_gtc and len(state.open_orders()) >= state.genesis.limits.max_orders:
            raise Rejection(ReasonCode.ORDER_POOL_FULL)  # 9
        hold = order_hold(definition, side, price_ticks, qty_lots)
        paying = account.balances.get(held_asset(definition, side))
        if paying is None or hold > paying.available:
            raise Rejection(ReasonCode.INSUFFICIENT_FUNDS)  # 10
        credited = credited_asset(definition, side)
        if credited not in account.balances and state.balance_pool_is_full():
            raise Rejection(ReasonCode.BALANCE_POOL_FULL)  # 11
        if is_post_only and _would_trade(market, side, price_ticks):
            raise Rejection(ReasonCode.POST_ONLY_WOULD_CROSS)  # 12
        if command.time_in_force is TimeInForce.FOK and not _is_fillable(market, account, command):
            raise Rejection(ReasonCode.FOK_NOT_FILLABLE)  # 13

        account.balances.setdefault(credited, Balance())
        paying.available -= hold
        paying.held += hold
        order = Order(
            order_id=context.seq,
            client_order_id=command.client_order_id,
            account_id=account.account_id,
            market_id=command.market_id,
            side=side,
            price_ticks=price_ticks,
            qty_lots=qty_lots,
            leaves_lots=qty_lots,
            cum_qty_lots=0,
            priority_seq=context.seq,
        )
        report_seq = self._reporter.report_order(context, order, ExecType.NEW)
        self._match(context, market, order)
        if order.leaves_lots and is_gtc:
            state.take_slot(order)
            _enqueue(market, order)
        elif order.leaves_lots:
            self._cancel_leaves(context, order, ReasonCode.IMMEDIATE_REMAINDER)
        return self._reporter.order_outcome(context, report_seq, ExecType.NEW, order)

    def _match(self, context: CommandContext, market: Market, taker: Order) -> None:
        """Trades the order, which is in no queue, while prices agree and quantity is left."""
        opposite = market.opposite_queue(taker.side)
        makers_filled = 0
        while (
            taker.leaves_lots
            and opposite
            and _crosses(taker.side, taker.price_ticks, opposite[0].price_ticks)
        ):
            maker = opposite[0]
            if maker.account_id == taker.account_id:
                self._cancel_leaves(context, taker, ReasonCode.SELF_TRADE, ExecType.SELF_TRADE_PREVENTED)
                return
            if makers_filled == limits.MAKERS_PER_COMMAND_MAX:
                self._cancel_leaves(context, taker, ReasonCode.MATCH_LIMIT)
                return
            self._fill(context, market, maker, taker)
            makers_filled += 1

    def _fill(self, context: CommandContext, market: Market, maker: Order, taker: Order) -> None:
        """One trade, at the maker's price."""
        definition = market.definition
        qty_lots, price_ticks = min(taker.leaves_lots, maker.leaves_lots), maker.price_ticks
        trade_id = self._state.next_trade_id
        self._state.next_trade_id += 1
        maker_fee = fee(definition, price_ticks, qty_lots, definition.maker_fee_ppm)
        taker_fee = fee(definition, price_ticks, qty_lots, definition.taker_fee_ppm)

        self._settle_side(definition, maker, price_ticks, qty_lots, maker_fee)
        self._settle_side(definition, taker, price_ticks, qty_lots, taker_fee)
        operator = self._state.accounts[limits.OPERATOR_ACCOUNT_ID]
        operator.balances[definition.quote_asset_id].available += maker_fee + taker_fee
        if maker.leaves_lots == 0:
            market.queue(maker.side).remove(maker)
            self._state.free_slot(maker)

        for order, its_fee, liquidity in (
            (maker, maker_fee, Liquidity.MAKER),
            (taker, taker_fee, Liquidity.TAKER),
        ):
            self._reporter.report_order(
                context,
                order,
                ExecType.TRADE,
                last_price_ticks=price_ticks,
                last_qty_lots=qty_lots,
                fee=its_fee,
                trade_id=trade_id,
                liquidity=liquidity,
            )

    def _settle_side(
        self, definition: MarketDefinition, order: Order, price_ticks: int, qty_lots: int, its_fee: int
    ) -> None:
        """Moves the money of one side of a fill; what the hold has beyond the cost is returned."""
        balances = self._state.accounts[order.account_id].balances
        base, quote = balances[definition.base_asset_id], balances[definition.quote_asset_id]
        hold = order_hold(definition, order.side, order.price_ticks, qty_lots)
        value = notional(definition, price_ticks, qty_lots)
        if order.side is Side.BUY:
            quote.held -= hold
            quote.available += hold - (value + its_fee)
            base.available += qty_lots * definition.base_units_per_lot
        else:
            base.held -= hold
            quote.available += value - its_fee
        order.leaves_lots -= qty_lots
        order.cum_qty_lots += qty_lots

    def _cancel_leaves(
        self,
        context: CommandContext,
        order: Order,
        reason: ReasonCode,
        exec_type: ExecType = ExecType.CANCELLED,
    ) -> int:
        """Ends an order that is in no queue: releases its hold, reports it, returns the report's number."""
        definition = self._state.markets[order.market_id].definition
        hold = order_hold(definition, order.side, order.price_ticks, order.leaves_lots)
        balance = self._state.accounts[order.account_id].balances[held_asset(definition, order.side)]
        balance.held -= hold
        balance.available += hold
        removed_lots, order.leaves_lots = order.leaves_lots, 0
        return self._reporter.report_order(
            context, order, exec_type, last_qty_lots=removed_lots, reason=reason
        )

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
        return self._cancel_resting(context, order, ReasonCode.CANCELLED_BY_USER)

    def _cancel_resting(self, context: CommandContext, order: Order, reason: ReasonCode) -> Outcome:
        self._state.markets[order.market_id].queue(order.side).remove(order)
        self._state.free_slot(order)
        report_seq = self._cancel_leaves(context, order, reason)
        return self._reporter.order_outcome(context, report_seq, ExecType.CANCELLED, order, reason)

    def _amend(self, context: CommandContext, command: Command) -> Outcome:
        order = self._named_order(context, command)
        market = self._state.markets[order.market_id]
        definition = market.definition
        _require_continuous(market)
        if not 0 <= command.price_ticks <= limits.PRICE_TICKS_MAX:
            raise Rejection(ReasonCode.PRICE_TICKS_OUT_OF_RANGE)
        if not 0 <= command.qty_lots <= limits.QTY_LOTS_MAX:
            raise Rejection(ReasonCode.QTY_LOTS_OUT_OF_RANGE)
        new_price_ticks = command.price_ticks or order.price_ticks
        new_qty_lots = command.qty_lots or order.qty_lots
        if new_qty_lots <= order.cum_qty_lots:
            return self._cancel_resting(context, order, ReasonCode.AMENDED_BELOW_FILLED)

        new_leaves_lots = new_qty_lots - order.cum_qty_lots
        _require_no_overflow(definition, order.side, new_price_ticks, new_leaves_lots)
        balance = self._state.accounts[order.account_id].balances[held_asset(definition, order.side)]
        old_hold = order_hold(definition, order.side, order.price_ticks, order.leaves_lots)
        new_hold = order_hold(definition, order.side, new_price_ticks, new_leaves_lots)
        if new_hold - old_hold > balance.available:
            raise Rejection(ReasonCode.INSUFFICIENT_FUNDS)
        keeps_place = new_price_ticks == order.price_ticks and new_qty_lots <= order.qty_lots
        if (
            OrderOptions.POST_ONLY in command.options
            and not keeps_place
            and _would_trade(market, order.side, new_price_ticks)
        ):
            raise Rejection(ReasonCode.POST_ONLY_WOULD_CROSS)

        if not keeps_place:
            market.queue(order.side).remove(order)
        balance.available -= new_hold - old_hold
        balance.held += new_hold - old_hold
        order.price_ticks, order.qty_lots, order.leaves_lots = new_price_ticks, new_qty_lots, new_leaves_lots
        report_seq = self._reporter.report_order(context, order, ExecType.REPLACED)
        if not keeps_place:
            self._match(context, market, order)
            if order.leaves_lots:
                order.priority_seq = context.seq
                _enqueue(market, order)
            else:
                self._state.free_slot(order)
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
            self._cancel_resting(context, order, ReasonCode.MASS_CANCEL)
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


def _require_continuous(market: Market) -> None:
    if market.state is MarketState.CLOSED:
        raise Rejection(ReasonCode.MARKET_CLOSED)
    if market.state is MarketState.HALTED:
        raise Rejection(ReasonCode.MARKET_HALTED)


def _require_no_overflow(
    definition: MarketDefinition, side: Side, price_ticks: int, leaves_lots: int
) -> None:
    """Section 5, rule 7: neither the hold nor what a sale brings may be beyond 63 bits."""
    worst = order_hold(definition, side, price_ticks, leaves_lots)
    if side is Side.SELL:
        worst = max(worst, notional(definition, price_ticks, leaves_lots))
    if worst > limits.AMOUNT_MAX:
        raise Rejection(ReasonCode.NOTIONAL_OVERFLOW)


def _client_order_ids(account: Account) -> set[int]:
    return {order.client_order_id for order in account.orders.values()}


def _enqueue(market: Market, order: Order) -> None:
    """To the back of its level."""
    bisect.insort(market.queue(order.side), order, key=Order.by_priority)


def _crosses(side: Side, price_ticks: int, resting_price_ticks: int) -> bool:
    """Whether an order of this side and limit trades with a resting order of the other side."""
    return resting_price_ticks <= price_ticks if side is Side.BUY else resting_price_ticks >= price_ticks


def _would_trade(market: Market, side: Side, price_ticks: int) -> bool:
    """Whether the best opposite price is within the limit, whoever owns it."""
    opposite = market.opposite_queue(side)
    return bool(opposite) and _crosses(side, price_ticks, opposite[0].price_ticks)


def _is_fillable(market: Market, account: Account, command: Command) -> bool:
    """Section 5, rule 13: whether a fill-or-kill order reaches its quantity."""
    reached_lots = 0
    for resting in market.opposite_queue(command.side)[: limits.MAKERS_PER_COMMAND_MAX]:
        if not _crosses(command.side, command.price_ticks, resting.price_ticks):
            return False
        if resting.account_id == account.account_id:
            return False
        reached_lots += resting.leaves_lots
        if reached_lots >= command.qty_lots:
            return True
    return False
