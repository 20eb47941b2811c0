"""The C engine and the reference agree on seeded streams, and the streams go everywhere."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.model.duel import Divergence, Duel
from tests.model.stream import (
    EXEC_TYPES_IN_USE,
    REASONS_OF_THE_ENGINE,
    SHARD,
    Stream,
    run,
    shrunk,
    stream_genesis,
)
from zexchange.limits import NONCE_WINDOW
from zexchange.reference import ReferenceEngine
from zexchange.reference.markets import Markets
from zexchange.reference.matching import Matching
from zexchange.reference.operator_commands import OperatorRules
from zexchange.reference.orders import OrderRules
from zexchange.reference.state import Key, Market, Order, State
from zexchange.reference.triggers import Triggers
from zexchange.wire.messages import MarketState, ReasonCode, TimeInForce

RUNS = [(seed, 1_800, False) for seed in range(1, 14)] + [(seed, 4_500, True) for seed in range(2)]
"""(seed, commands, deep): some 32,000 commands."""


def test_engines_agree_everywhere() -> None:
    reasons: set[ReasonCode] = set()
    exec_types: set[int] = set()
    duplicates = malformed = 0
    for seed, commands, deep in RUNS:
        duel = run(seed, commands, deep=deep)
        reasons |= set(duel.reasons)
        exec_types |= set(duel.exec_types)
        duplicates += duel.duplicates
        malformed += duel.malformed
    assert not REASONS_OF_THE_ENGINE - reasons, "the generator has gone blind"
    assert not EXEC_TYPES_IN_USE - exec_types, "the generator has gone blind"
    assert duplicates > 100
    assert malformed > 20


class ReleasesTooLittle(Matching):
    """Forgets one unit of the hold when an order is cancelled."""

    def end_taker(self, context: Any, order: Order, *arguments: Any) -> int:
        account = self._state.accounts[order.account_id]
        number = super().end_taker(context, order, *arguments)
        for balance in account.balances.values():
            if balance.available:
                balance.available -= 1
                balance.held += 1
                break
        return number


class KeepsSlicesInFront(Matching):
    """The next slice of an iceberg keeps the place of the one before."""

    def enqueue(self, market: Market, order: Order) -> None:
        number = order.priority_no
        super().enqueue(market, order)
        if number and order.display_lots:
            market.queue(order.side).remove(order)
            order.priority_no = number
            bisect.insort(market.queue(order.side), order, key=Order.by_priority)


class ForgetsPairs(Matching):
    """One does not cancel other."""

    def end_pair(self, context: Any, order: Order) -> None:
        if order.pair_id:
            self._state.accounts[order.account_id].orders[order.pair_id].pair_id = order.pair_id = 0


class LetsOverdueTrade(Matching):
    """An order trades until it is reported as expired."""

    def is_overdue(self, order: Order) -> bool:
        return super().is_overdue(order) and self._state.next_seq % 2 == 0


class KeepsPriority(OrderRules):
    """An amend to more does not go to the back of its level."""

    def _amend(self, context: Any, command: Any) -> Any:
        orders = self._state.accounts[context.account_id].orders
        places = {order_id: order.priority_no for order_id, order in orders.items()}
        outcome = super()._amend(context, command)
        order = orders.get(outcome.order_id)
        if order is not None and order.order_id in places:
            order.priority_no = places[order.order_id]
        return outcome


class FollowsBackwards(Triggers):
    """A trailing order follows the price both ways."""

    def follow_price(self, market: Market, *, on_reference: bool) -> None:
        for order in market.waiting:
            order.best_ticks = 0
        super().follow_price(market, on_reference=on_reference)


class ForgetsOrdersForAuctions(Markets):
    """What was only for an auction rests on when that is over."""

    def run(self, context: Any) -> None:
        for market in self._state.markets.values():
            for order in (*market.buys, *market.sells):
                if market.state is MarketState.UNCROSSING and order.is_for_auction:
                    order.time_in_force = TimeInForce.GTC
        super().run(context)


class BringsTheNewestFirst(Markets):
    """Those that wait for an auction come to the book in the wrong order."""

    def wait(self, market: Market, order: Order) -> None:
        super().wait(market, order)
        waiting = [one for one in market.waiting if one.awaits_auction]
        numbers = sorted((one.priority_no for one in waiting), reverse=True)
        for one, number in zip(waiting, numbers, strict=True):
            one.priority_no = number


class TradesBeyondBands(Matching):
    """A price band stops nobody."""

    def match(self, context: Any, market: Market, taker: Order) -> int:
        ppm, market.dynamic_band_ppm = market.dynamic_band_ppm, 0
        makers = super().match(context, market, taker)
        market.dynamic_band_ppm = ppm
        return makers


def with_defect(
    matching: type[Matching] = Matching,
    orders: type[OrderRules] = OrderRules,
    triggers: type[Triggers] = Triggers,
    markets: type[Markets] = Markets,
) -> type[ReferenceEngine]:
    """A reference engine with some other rules."""

    class Defective(ReferenceEngine):
        def _use_state(self, state: State) -> None:
            super()._use_state(state)
            made = matching(state, self._reporter)
            self._triggers = triggers(state, self._reporter, made)
            self._markets = markets(state, self._reporter, made, self._triggers)
            self._orders = orders(state, self._reporter, made, self._triggers, self._markets)
            self._operator = OperatorRules(state, self._reporter, self._markets, self._triggers)

    return Defective


def forgets_nonces() -> type[ReferenceEngine]:
    """An engine whose nonce window is one too short."""

    class Defective(ReferenceEngine):
        def _batch_refusal(self, batch: Any, key: Key | None) -> ReasonCode | None:
            reason = super()._batch_refusal(batch, key)
            edge = key is not None and batch.nonce + NONCE_WINDOW - 1 == key.highest_nonce
            return ReasonCode.NONCE_TOO_OLD if edge and reason is ReasonCode.NONCE_USED else reason

    return Defective


@pytest.mark.parametrize(
    "defective",
    [
        lambda: with_defect(ReleasesTooLittle),
        lambda: with_defect(KeepsSlicesInFront),
        lambda: with_defect(ForgetsPairs),
        lambda: with_defect(LetsOverdueTrade),
        lambda: with_defect(orders=KeepsPriority),
        lambda: with_defect(triggers=FollowsBackwards),
        lambda: with_defect(markets=ForgetsOrdersForAuctions),
        lambda: with_defect(markets=BringsTheNewestFirst),
        lambda: with_defect(TradesBeyondBands),
        forgets_nonces,
    ],
    ids=[
        "hold",
        "slices",
        "pairs",
        "overdue",
        "priority",
        "trailing",
        "auctions",
        "waiting",
        "bands",
        "nonce",
    ],
)
def test_a_defect_is_found(defective: Callable[[], type[ReferenceEngine]]) -> None:
    """Canaries: if these pass unnoticed, so would a real defect."""

    def run_some() -> None:
        for seed in range(20):
            run(seed, 2_000, classes=[defective(), ReferenceEngine])

    with pytest.raises(Divergence, match="seed"):
        run_some()


def test_a_divergence_can_be_shrunk() -> None:
    random = Random(1)
    genesis = stream_genesis(random, deep=False)
    duel = Duel(genesis, SHARD, [with_defect(ReleasesTooLittle), ReferenceEngine])
    stream = Stream(duel, random)

    def run_some() -> None:
        stream.begin()
        while duel.commands < 2_000:
            stream.step()

    with pytest.raises(Divergence):
        run_some()
    steps = shrunk(duel)
    assert sum(line.startswith("at ") for line in steps) < 10
