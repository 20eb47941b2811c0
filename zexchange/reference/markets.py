"""Markets (docs/rules.md section 8): states, price bands, auctions."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from zexchange import limits
from zexchange.reference.matching import Matching
from zexchange.reference.reports import CommandContext, Reporter
from zexchange.reference.state import Market, Order, State
from zexchange.reference.triggers import Triggers
from zexchange.wire.messages import ExecType, MarketState, ReasonCode, SelfTradePrevention, TimeInForce

__all__ = ["COLLECTS_FOR", "ENDS", "MISSED", "TRANSITIONS", "Auction", "Markets", "auction_of", "is_crossed"]

_CLOSED, _OPEN, _HALTED = MarketState.CLOSED, MarketState.CONTINUOUS, MarketState.HALTED
_PRE_OPEN, _AUCTION = MarketState.PRE_OPEN, MarketState.AUCTION
_CLOSING, _POST_ONLY = MarketState.CLOSING_AUCTION, MarketState.POST_ONLY

TRANSITIONS = {
    _CLOSED: {_PRE_OPEN, _AUCTION, _OPEN, _POST_ONLY, _HALTED, MarketState.EXPIRED},
    _PRE_OPEN: {_AUCTION, _HALTED, _CLOSED},
    _AUCTION: {_OPEN, _POST_ONLY, _HALTED, _CLOSED},
    _OPEN: {_AUCTION, _CLOSING, _HALTED, _POST_ONLY, _CLOSED},
    _CLOSING: {_HALTED, _CLOSED},
    _HALTED: {_PRE_OPEN, _AUCTION, _OPEN, _CLOSING, _POST_ONLY, _CLOSED},
    _POST_ONLY: {_OPEN, _AUCTION, _CLOSING, _HALTED, _CLOSED},
    MarketState.EXPIRED: set(),
    MarketState.UNCROSSING: set(),
}
"""The states that an operator can bring a market to. To the state it is in always, but for `UNCROSSING`."""

ENDS = {_PRE_OPEN: _AUCTION, _AUCTION: _OPEN, _CLOSING: _CLOSED, _HALTED: _OPEN}
"""States that end by themselves when they have a time, and what follows."""

COLLECTS_FOR = {
    _PRE_OPEN: TimeInForce.AT_THE_OPEN,
    _AUCTION: TimeInForce.AT_THE_OPEN,
    _CLOSING: TimeInForce.AT_THE_CLOSE,
}
"""States in which orders rest without trading, and what the auction is for."""

MISSED = {
    _OPEN: {TimeInForce.AT_THE_OPEN},
    _POST_ONLY: {TimeInForce.AT_THE_OPEN},
    _CLOSING: {TimeInForce.AT_THE_OPEN},
    _CLOSED: {TimeInForce.AT_THE_CLOSE},
    MarketState.EXPIRED: {TimeInForce.AT_THE_OPEN, TimeInForce.AT_THE_CLOSE},
}
"""The auctions that are over in a state: nobody waits for them."""


class Auction(NamedTuple):
    """What an auction would trade."""

    price_ticks: int
    qty_lots: int


class Markets:
    """States of markets, and what happens when they change."""

    def __init__(self, state: State, reporter: Reporter, matching: Matching, triggers: Triggers) -> None:
        self._state = state
        self._reporter = reporter
        self._matching = matching
        self._triggers = triggers

    def enter(self, market: Market, state: MarketState, until_ns: int) -> None:
        """The market comes to a state: by way of uncrossing if anything is to be done before."""
        leaves_auction = (market.state, state) in (
            (_AUCTION, _OPEN),
            (_AUCTION, _POST_ONLY),
            (_CLOSING, _CLOSED),
        )
        opens = state in (_OPEN, _POST_ONLY)
        for_auctions = _for_auctions(market)
        has_orders_for_open = any(order.time_in_force is TimeInForce.AT_THE_OPEN for order in for_auctions)
        executes = leaves_auction or (opens and (is_crossed(market) or has_orders_for_open))
        market.until_ns = until_ns
        if state is _HALTED:  # everything stays where it is
            market.state = state
            return
        market.state, market.next_state = MarketState.UNCROSSING, state
        market.is_called_off = not executes
        if not executes and _next_move(market) is None:
            self._arrive(market)

    def end_states(self, context: CommandContext) -> None:
        """Ends the states whose time is over, in the order of the genesis file, up to the limit."""
        over = [
            market
            for market in self._state.markets.values()
            if 0 < market.until_ns <= self._state.log_time_ns and market.state is not MarketState.UNCROSSING
        ]
        for market in over[: limits.MARKET_ENDS_PER_RECORD_MAX]:
            self.enter(market, ENDS[market.state], 0)
            self._report_state(context, market)

    def is_anything_due(self) -> bool:
        """Whether the limits kept a market from coming to its next state."""
        return any(market.state is MarketState.UNCROSSING for market in self._state.markets.values())

    def wait(self, market: Market, order: Order) -> None:
        """An order that has a slot begins to wait for its auction, behind all others."""
        order.self_trade_prevention = SelfTradePrevention.NONE
        order.priority_no = self._state.take_priority_no()
        market.waiting.append(order)

    def _arrive(self, market: Market) -> None:
        market.state, market.next_state, market.is_called_off = market.next_state, MarketState.NONE, False

    # ------------------------------------------------------------------ between two states

    def run(self, context: CommandContext) -> None:
        """Brings markets to their next states, one after the other, up to the limit of steps."""
        steps = 0
        for market in self._state.markets.values():
            first_trade_id = self._state.next_trade_id
            while market.state is MarketState.UNCROSSING and steps < limits.AUCTION_STEPS_PER_COMMAND_MAX:
                self._step(context, market)
                steps += 1
            if self._state.next_trade_id > first_trade_id:
                self._triggers.follow_price(market, on_reference=False)

    def _step(self, context: CommandContext, market: Market) -> None:
        """One fill, an order that comes or ends, or the next state."""
        move = _next_move(market)
        if move is not None and not move.is_last:
            self._move(context, market, move)
            return
        if not market.is_called_off and self._execute(context, market):
            return
        if move is not None:
            self._move(context, market, move)
            return
        self._arrive(market)
        self._report_state(context, market)

    def _move(self, context: CommandContext, market: Market, move: Move) -> None:
        """An order for an auction ends, or comes to the book."""
        order = move.order
        if move.ends:
            self._matching.end_resting(context, order, ReasonCode.AUCTION_REMAINDER)
            return
        market.waiting.remove(order)
        order.awaits_auction = False
        self._reporter.report_order(context, order, ExecType.TRIGGERED)
        self._matching.enqueue(market, order)

    def _execute(self, context: CommandContext, market: Market) -> bool:
        """One fill, or the end of one order. False if nothing trades any more."""
        if not is_crossed(market):
            market.auction_ticks = 0
            return False
        if not market.auction_ticks:
            found = auction_of(market)
            assert found is not None, "the book is crossed"
            market.auction_ticks = found.price_ticks
        buy, sell = market.buys[0], market.sells[0]
        market.auction_ticks = min(max(market.auction_ticks, sell.price_ticks), buy.price_ticks)
        self._trade(context, market, buy, sell)
        return True

    def _trade(self, context: CommandContext, market: Market, buy: Order, sell: Order) -> None:
        """The two orders that come first meet."""
        for order in (buy, sell):
            if self._matching.is_overdue(order):
                self._matching.end_resting(context, order, ReasonCode.ORDER_EXPIRED, ExecType.EXPIRED)
                return
        if self._matching.is_same_owner(buy, sell):
            newer = max(buy, sell, key=lambda order: order.priority_no)
            self._matching.end_resting(context, newer, ReasonCode.SELF_TRADE, ExecType.SELF_TRADE_PREVENTED)
            return
        self._matching.fill_in_auction(context, market, buy, sell, market.auction_ticks)

    def _report_state(self, context: CommandContext, market: Market) -> None:
        self._reporter.report(
            context,
            limits.OPERATOR_ACCOUNT_ID,
            ExecType.MARKET_STATE_SET,
            market_id=market.definition.market_id,
            market_state=market.state,
        )


class Move(NamedTuple):
    """What happens next to an order for an auction while its market is uncrossing."""

    order: Order
    ends: bool
    """Or else it comes to the book."""
    is_last: bool
    """It happens behind the execution."""


def _next_move(market: Market) -> Move | None:
    """The next of the orders for auctions that ends or comes to the book; None if all are where they belong."""
    collects_for = COLLECTS_FOR.get(market.next_state)
    executed = None
    if not market.is_called_off:
        executed = TimeInForce.AT_THE_CLOSE if market.next_state is _CLOSED else TimeInForce.AT_THE_OPEN
    belongs = collects_for or executed
    orders = sorted(_for_auctions(market), key=lambda order: order.priority_no)
    resting = [order for order in orders if not order.awaits_auction]
    waiting = [order for order in orders if order.awaits_auction]
    missed = MISSED.get(market.next_state, set())
    for found, ends, is_last in (
        ([order for order in resting if order.time_in_force is not belongs], True, False),
        ([order for order in waiting if order.time_in_force is belongs], False, False),
        ([order for order in resting if order.time_in_force is not collects_for], True, True),
        ([order for order in waiting if order.time_in_force in missed], True, True),
    ):
        if found:
            return Move(found[0], ends, is_last)
    return None


def _for_auctions(market: Market) -> list[Order]:
    """The orders for auctions, in the book or waiting."""
    return [order for order in (*market.buys, *market.sells, *market.waiting) if order.is_for_auction]


def is_crossed(market: Market) -> bool:
    """Whether orders could trade with each other; they can only while a market does not trade."""
    return bool(market.buys and market.sells) and (market.buys[0].price_ticks >= market.sells[0].price_ticks)


def auction_of(market: Market) -> Auction | None:
    """What an auction would trade now; None if nothing.

    The price at which most is traded; of those the one that leaves least on one side; of those the nearest to the last
    trade, or to the reference price if there was no trade; of those the lowest.
    """
    if not is_crossed(market):
        return None
    lowest, highest = market.sells[0].price_ticks, market.buys[0].price_ticks
    orders = (*market.buys, *market.sells)
    levels = sorted({order.price_ticks for order in orders if lowest <= order.price_ticks <= highest})
    ranges = [(price, price) for price in levels]
    ranges += [(low + 1, high - 1) for low, high in itertools.pairwise(levels) if high - low > 1]
    reference_ticks = market.last_ticks or market.reference_ticks
    best: tuple[tuple[int, int, int, int], Auction] | None = None
    for low, high in ranges:
        price_ticks = min(max(reference_ticks, low), high)
        wanted = sum(order.leaves_lots for order in market.buys if order.price_ticks >= price_ticks)
        offered = sum(order.leaves_lots for order in market.sells if order.price_ticks <= price_ticks)
        rank = (
            -min(wanted, offered),
            abs(wanted - offered),
            abs(price_ticks - reference_ticks),
            price_ticks,
        )
        if best is None or rank < best[0]:
            best = rank, Auction(price_ticks, min(wanted, offered))
    assert best is not None, "a crossed book has levels"
    return best[1]
