"""Matching (docs/rules.md sections 5 and 6): what happens between orders, and how an order ends."""

from __future__ import annotations

import bisect

from zexchange import limits
from zexchange.genesis import Market as MarketDefinition
from zexchange.reference.amounts import PPM, discounted_ppm, fee, held_asset, notional, order_hold, rebate
from zexchange.reference.reports import CommandContext, Reporter
from zexchange.reference.state import Market, Order, State
from zexchange.wire.messages import (
    ExecType,
    Liquidity,
    MarketState,
    ReasonCode,
    SelfTradePrevention,
    Side,
)

__all__ = ["Matching", "crosses", "would_trade"]


class Matching:
    """Trades an order with a book, and ends orders."""

    def __init__(self, state: State, reporter: Reporter) -> None:
        self._state = state
        self._reporter = reporter

    # ------------------------------------------------------------------ trading

    def match(self, context: CommandContext, market: Market, taker: Order) -> int:
        """Trades an order that is in no queue while prices agree and quantity is left.

        Returns how many resting orders it used. An order that may not go on is ended here; if a price band stops it the
        market has gone into an auction.
        """
        opposite = market.opposite_queue(taker.side)
        limit_ticks = _limit_within_bands(market, taker)
        makers = 0
        while taker.leaves_lots and opposite and would_trade(market, taker.side, taker.price_ticks):
            maker = opposite[0]
            is_overdue = self.is_overdue(maker)
            is_own = self.is_same_owner(maker, taker)
            if not (is_overdue or is_own or crosses(taker.side, limit_ticks, maker.price_ticks)):
                self._interrupt(context, market)
                return makers
            if is_own and not is_overdue and _gives_way(taker):
                self.end_taker(context, taker, ReasonCode.SELF_TRADE, ExecType.SELF_TRADE_PREVENTED)
                return makers
            if makers == limits.MAKERS_PER_COMMAND_MAX:
                self.end_taker(context, taker, ReasonCode.MATCH_LIMIT)
                return makers
            if is_overdue:
                self.end_resting(context, maker, ReasonCode.ORDER_EXPIRED, ExecType.EXPIRED)
            elif is_own:
                self._prevent(context, maker, taker)
            elif not self._fill(context, market, maker, taker):
                self.end_taker(context, taker, ReasonCode.MAX_NOTIONAL_REACHED)
                return makers
            makers += 1
        if taker.leaves_lots == 0:
            self._release_notional(taker)
        return makers

    def _interrupt(self, context: CommandContext, market: Market) -> None:
        """The next trade would leave the price band: the market goes into an auction."""
        market.state = MarketState.AUCTION
        until_ns = min(self._state.log_time_ns + market.interruption_ns, limits.TIME_NS_MAX)
        market.until_ns = until_ns if market.interruption_ns else 0
        self._reporter.report(
            context,
            limits.OPERATOR_ACCOUNT_ID,
            ExecType.MARKET_STATE_SET,
            market_id=market.definition.market_id,
            market_state=market.state,
        )

    def is_same_owner(self, first: Order, second: Order) -> bool:
        """Whether the orders must not trade with each other: of one account, or of one group of accounts."""
        if first.account_id == second.account_id:
            return True
        group = self._state.accounts[first.account_id].trade_group
        return group != 0 and group == self._state.accounts[second.account_id].trade_group

    def is_overdue(self, order: Order) -> bool:
        """Whether its time is over; it does not trade any more, even before it is reported as expired."""
        return 0 < order.expire_time_ns <= self._state.log_time_ns

    def reachable_lots(self, market: Market, taker: Order, wanted_lots: int) -> int:
        """How much of `wanted_lots` the order would fill at once. Changes nothing."""
        queue = [
            (maker, maker.tradable_lots, maker.leaves_lots) for maker in market.opposite_queue(taker.side)
        ]
        limit_ticks = _limit_within_bands(market, taker)
        reached_lots = makers = 0
        cancelled: set[int] = set()  # each order on the way cancels the other of its pair
        while queue and reached_lots < wanted_lots:
            maker, tradable_lots, leaves_lots = queue.pop(0)
            if not crosses(taker.side, limit_ticks, maker.price_ticks):
                break
            if maker.order_id in cancelled:
                continue
            passes_over = self.is_overdue(maker)
            if self.is_same_owner(maker, taker) and not passes_over:
                if taker.self_trade_prevention is not SelfTradePrevention.CANCEL_OLDEST:
                    break
                passes_over = True
            if makers == limits.MAKERS_PER_COMMAND_MAX:
                break
            makers += 1
            cancelled.add(maker.pair_id)
            if passes_over:
                continue
            reached_lots += tradable_lots
            leaves_lots -= tradable_lots
            if leaves_lots:  # an iceberg's next slice: behind what is shown at its price
                behind = [
                    other.price_ticks == maker.price_ticks and not other.is_hidden for other, _, _ in queue
                ]
                queue.insert(sum(behind), (maker, min(maker.display_lots, leaves_lots), leaves_lots))
        return min(reached_lots, wanted_lots)

    def _fill(self, context: CommandContext, market: Market, maker: Order, taker: Order) -> bool:
        """One trade, at the maker's price. False, and nothing has changed, if the taker cannot pay for a lot."""
        definition = market.definition
        qty_lots, price_ticks = min(taker.leaves_lots, maker.tradable_lots), maker.price_ticks
        if taker.is_by_notional:
            ppm = self._ppm(taker, definition.taker_fee_ppm)
            qty_lots = min(qty_lots, _affordable_lots(definition, price_ticks, taker.notional_left, ppm))
            if qty_lots == 0:
                return False
        trade_id = self._state.next_trade_id
        self._state.next_trade_id += 1
        taker_fee = fee(definition, price_ticks, qty_lots, self._ppm(taker, definition.taker_fee_ppm))
        if definition.maker_fee_ppm < 0:
            maker_fee = -rebate(definition, price_ticks, qty_lots, taker_fee)
        else:
            maker_fee = fee(definition, price_ticks, qty_lots, self._ppm(maker, definition.maker_fee_ppm))

        self._settle_side(definition, maker, price_ticks, qty_lots, maker_fee)
        self._settle_side(definition, taker, price_ticks, qty_lots, taker_fee)
        operator = self._state.accounts[limits.OPERATOR_ACCOUNT_ID]
        operator.balances[definition.quote_asset_id].available += maker_fee + taker_fee
        market.last_ticks = price_ticks
        self._shrink(market, maker, qty_lots)
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
        self.end_pair(context, maker)
        self.end_pair(context, taker)
        return True

    def fill_in_auction(
        self, context: CommandContext, market: Market, buy: Order, sell: Order, price_ticks: int
    ) -> None:
        """One trade of two resting orders, at the auction's price. Both pay the maker's fee; nobody gets a rebate."""
        definition = market.definition
        qty_lots = min(buy.leaves_lots, sell.leaves_lots)
        trade_id = self._state.next_trade_id
        self._state.next_trade_id += 1
        market.last_ticks = price_ticks
        fees = [
            fee(definition, price_ticks, qty_lots, self._ppm(order, max(0, definition.maker_fee_ppm)))
            for order in (buy, sell)
        ]
        operator = self._state.accounts[limits.OPERATOR_ACCOUNT_ID]
        operator.balances[definition.quote_asset_id].available += sum(fees)
        for order, its_fee in zip((buy, sell), fees, strict=True):
            self._settle_side(definition, order, price_ticks, qty_lots, its_fee)
            self._shrink(market, order, qty_lots)
            self._reporter.report_order(
                context,
                order,
                ExecType.TRADE,
                last_price_ticks=price_ticks,
                last_qty_lots=qty_lots,
                fee=its_fee,
                trade_id=trade_id,
                liquidity=Liquidity.AUCTION,
            )
        self.end_pair(context, buy)
        self.end_pair(context, sell)

    def _shrink(self, market: Market, order: Order, qty_lots: int) -> None:
        """A resting order was filled: it is gone, or an iceberg shows its next slice."""
        if order.leaves_lots == 0:
            market.queue(order.side).remove(order)
            self._state.free_slot(order)
        elif order.display_lots:
            order.shown_lots -= min(qty_lots, order.shown_lots)
            if order.shown_lots == 0:
                market.queue(order.side).remove(order)
                self.enqueue(market, order)

    def _ppm(self, order: Order, ppm: int) -> int:
        return discounted_ppm(ppm, self._state.accounts[order.account_id].fee_discount_ppm)

    def _settle_side(
        self, definition: MarketDefinition, order: Order, price_ticks: int, qty_lots: int, its_fee: int
    ) -> None:
        """Moves the money of one side of a fill; what the hold has beyond the cost is returned."""
        balances = self._state.accounts[order.account_id].balances
        base, quote = balances[definition.base_asset_id], balances[definition.quote_asset_id]
        value = notional(definition, price_ticks, qty_lots)
        if order.is_by_notional:
            quote.held -= value + its_fee
            order.notional_left -= value + its_fee
            base.available += qty_lots * definition.base_units_per_lot
        elif order.side is Side.BUY:
            hold = order_hold(definition, order.side, order.price_ticks, qty_lots)
            quote.held -= hold
            quote.available += hold - (value + its_fee)
            base.available += qty_lots * definition.base_units_per_lot
        else:
            base.held -= order_hold(definition, order.side, order.price_ticks, qty_lots)
            quote.available += value - its_fee
        order.leaves_lots -= qty_lots
        order.cum_qty_lots += qty_lots

    # ------------------------------------------------------------------ self-trade prevention

    def _prevent(self, context: CommandContext, maker: Order, taker: Order) -> None:
        """Meets a resting order of its own account, in a mode in which that one gives way."""
        if taker.self_trade_prevention is not SelfTradePrevention.DECREMENT:
            self.end_resting(context, maker, ReasonCode.SELF_TRADE, ExecType.SELF_TRADE_PREVENTED)
            if taker.self_trade_prevention is SelfTradePrevention.CANCEL_BOTH:
                self.end_taker(context, taker, ReasonCode.SELF_TRADE, ExecType.SELF_TRADE_PREVENTED)
            return
        both_lots = min(maker.leaves_lots, taker.leaves_lots)
        for order in (maker, taker):
            self._release(order, both_lots)
            order.leaves_lots -= both_lots
            order.qty_lots -= both_lots
            order.shown_lots = min(order.shown_lots, order.leaves_lots)
            if order is maker and order.leaves_lots == 0:
                self._take_away(order)
            self._reporter.report_order(
                context,
                order,
                ExecType.SELF_TRADE_PREVENTED,
                last_qty_lots=both_lots,
                reason=ReasonCode.SELF_TRADE,
            )
            if order.leaves_lots == 0:
                self._release_notional(order)
                self.end_pair(context, order)

    # ------------------------------------------------------------------ ending orders

    def end_taker(
        self,
        context: CommandContext,
        order: Order,
        reason: ReasonCode,
        exec_type: ExecType = ExecType.CANCELLED,
    ) -> int:
        """Ends an order that is in no queue: releases its hold, reports it, returns the report's number."""
        self._release(order, order.leaves_lots)
        self._release_notional(order)
        removed_lots, order.leaves_lots = order.leaves_lots, 0
        report_seq = self._reporter.report_order(
            context, order, exec_type, last_qty_lots=removed_lots, reason=reason
        )
        self.end_pair(context, order)
        return report_seq

    def end_resting(
        self,
        context: CommandContext,
        order: Order,
        reason: ReasonCode,
        exec_type: ExecType = ExecType.CANCELLED,
    ) -> int:
        """Ends an open order, resting or waiting. Returns the report's number."""
        self._take_away(order)
        return self.end_taker(context, order, reason, exec_type)

    def end_pair(self, context: CommandContext, order: Order) -> None:
        """One cancels other: the order traded, was triggered or ended, so the other of its pair ends."""
        if not order.pair_id:
            return
        other = self._state.accounts[order.account_id].orders[order.pair_id]
        order.pair_id = other.pair_id = 0
        self.end_resting(context, other, ReasonCode.ONE_CANCELS_OTHER)

    def enqueue(self, market: Market, order: Order) -> None:
        """To the back of its level; an iceberg shows its next slice."""
        order.priority_no = self._state.take_priority_no()
        order.shown_lots = min(order.display_lots, order.leaves_lots)
        bisect.insort(market.queue(order.side), order, key=Order.by_priority)

    def _take_away(self, order: Order) -> None:
        """Out of its queue and its slot."""
        market = self._state.markets[order.market_id]
        (market.waiting if order.is_waiting else market.queue(order.side)).remove(order)
        self._state.free_slot(order)

    def _release(self, order: Order, qty_lots: int) -> None:
        """Gives back what so many lots of the order hold."""
        if order.is_by_notional:
            return
        definition = self._state.markets[order.market_id].definition
        hold = order_hold(definition, order.side, order.price_ticks, qty_lots)
        balance = self._state.accounts[order.account_id].balances[held_asset(definition, order.side)]
        balance.held -= hold
        balance.available += hold

    def _release_notional(self, order: Order) -> None:
        if order.is_by_notional:
            definition = self._state.markets[order.market_id].definition
            balance = self._state.accounts[order.account_id].balances[definition.quote_asset_id]
            balance.held -= order.notional_left
            balance.available += order.notional_left
            order.notional_left = 0


def _gives_way(taker: Order) -> bool:
    """Whether the order ends when it meets one of its account, and the other stays."""
    return taker.self_trade_prevention is SelfTradePrevention.CANCEL_NEWEST


def _affordable_lots(definition: MarketDefinition, price_ticks: int, amount: int, ppm: int) -> int:
    """The most lots that cost no more than the amount, a fee of so many parts per million included."""
    lot_value = notional(definition, price_ticks, 1)
    return amount * PPM // (lot_value * (PPM + ppm))


def _limit_within_bands(market: Market, order: Order) -> int:
    """The worst price at which the order may trade: its own, or that of a price band.

    The dynamic band is around the last trade before the command, the static one around the reference price.
    """
    limit_ticks = order.price_ticks
    for centre_ticks, ppm in (
        (market.last_ticks, market.dynamic_band_ppm),
        (market.reference_ticks, market.static_band_ppm),
    ):
        if centre_ticks and ppm:
            width_ticks = centre_ticks * ppm // PPM
            if order.side is Side.BUY:
                limit_ticks = min(limit_ticks, centre_ticks + width_ticks)
            else:
                limit_ticks = max(limit_ticks, centre_ticks - width_ticks)
    return limit_ticks


def crosses(side: Side, price_ticks: int, resting_price_ticks: int) -> bool:
    """Whether an order of this side and limit trades with a resting order of the other side."""
    return resting_price_ticks <= price_ticks if side is Side.BUY else resting_price_ticks >= price_ticks


def would_trade(market: Market, side: Side, price_ticks: int) -> bool:
    """Whether the best opposite price is within the limit, whoever owns it."""
    opposite = market.opposite_queue(side)
    return bool(opposite) and crosses(side, price_ticks, opposite[0].price_ticks)
