"""The rule book's bounds on the work of one command or record: what is left goes on, in order, with the next."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.kit import Shard, amend, cancel, cancel_all, market_state, order, time_passed
from tests.rules.names import ALICE, BOB, BTC, BUY, CAROL, IOC, SELL, USD, NewShard
from zexchange.wire.messages import (
    BatchFlags,
    Command,
    ExecType,
    ExecutionReport,
    MarketState,
    OrderOptions,
    ReasonCode,
    SelfTradePrevention,
    TimeInForce,
    Trigger,
)

LIMIT = 1_024
TRIGGERED_MAX = 64


@pytest.fixture
def wide(new_shard: NewShard) -> Shard:
    """A shard with room for a few thousand orders."""
    return new_shard(max_orders=2_400, max_outcomes=8_192, amount=1_000_000_000)


def send_many(shard: Shard, account_id: int, commands: list[Command]) -> list[ExecutionReport]:
    """Sends commands in as few batches as they fit in."""
    reports: list[ExecutionReport] = []
    for first in range(0, len(commands), 64):
        reports += shard.reports(account_id, *commands[first : first + 64])
    return reports


def is_due(shard: Shard) -> bool:
    """Whether there is something left to do without a command."""
    due_ns = shard.engine.next_due_ns
    return due_ns is not None and due_ns <= shard.now_ns + 1


def state_of(shard: Shard) -> MarketState:
    return shard.engine.depth(1, 1).state


def of_type(reports: list[ExecutionReport], exec_type: ExecType) -> list[ExecutionReport]:
    return [one for one in reports if one.exec_type is exec_type]


def test_orders_that_end_in_an_auction_do_not_find_its_price_anew(wide: Shard) -> None:
    """All of one owner's bids end on an older sale of one lot, 1,024 steps after each command."""
    wide.operator(market_state(1, MarketState.AUCTION))
    send_many(wide, ALICE, [order(SELL, 1, 10)])
    send_many(wide, ALICE, [order(BUY, 1, price) for price in range(20, 20 + LIMIT + 1)])
    send_many(wide, BOB, [order(BUY, 1, 15)])
    ended = wide.operator(market_state(1, MarketState.CONTINUOUS))
    assert sum("self_trade_prevented" in one for one in ended) == LIMIT
    rest = wide.apply(time_passed())
    assert len(of_type(rest, ExecType.SELF_TRADE_PREVENTED)) == 1
    trades = of_type(rest, ExecType.TRADE)
    assert [(one.account_id, one.last_price_ticks) for one in trades] == [(BOB, 15), (ALICE, 15)]
    assert wide.book() == ([], [])


def test_a_depth_passes_over_1024_prices_with_hidden_orders_alone(wide: Shard) -> None:
    send_many(wide, ALICE, [order(BUY, 1, 50)])
    send_many(wide, ALICE, [order(BUY, 1, 100 + at, options=OrderOptions.HIDDEN) for at in range(LIMIT)])
    assert wide.book() == ([(50, 1, 1)], [])
    send_many(wide, ALICE, [order(BUY, 1, 100)])
    assert wide.book() == ([(100, 1, 1), (50, 1, 1)], [])
    send_many(wide, ALICE, [order(BUY, 1, 60 + at, options=OrderOptions.HIDDEN) for at in range(2)])
    assert wide.book() == ([(100, 1, 1)], [])


def enter_one_that_expires_late(shard: Shard, price_ticks: int, **terms: Any) -> tuple[int, int]:
    """A sale of Bob's that 1,024 other orders of the same time stand before; its id, and that time."""
    until_ns = shard.now_ns + 10**9
    until: dict[str, Any] = {"tif": TimeInForce.GTD, "expire_time_ns": until_ns}
    send_many(shard, BOB, [order(SELL, 1, 500, **until)] * LIMIT)
    (entered,) = shard.reports(BOB, order(SELL, 1, price_ticks, **until, **terms))
    return entered.order_id, until_ns


def test_an_amend_does_not_find_an_order_past_its_time(wide: Shard) -> None:
    order_id, until_ns = enter_one_that_expires_late(wide, 400)
    wide.reports(ALICE, order(BUY, 1, 100))
    wide.now_ns = until_ns
    reports = wide.reports(
        BOB,
        amend(order_id, price_ticks=100),
        amend(order_id, expire_time_ns=until_ns + 10**9),
        cancel(order_id),
    )
    assert len(of_type(reports, ExecType.EXPIRED)) == LIMIT
    unknown, cancelled = ReasonCode.UNKNOWN_ORDER, ReasonCode.CANCELLED_BY_USER
    assert [one.reason for one in reports[LIMIT:]] == [unknown, unknown, cancelled]


def test_an_order_past_its_time_expires_instead_of_being_triggered(wide: Shard) -> None:
    order_id, until_ns = enter_one_that_expires_late(wide, 1, trigger=Trigger.STOP, trigger_ticks=90)
    wide.reports(ALICE, order(BUY, 1, 90), order(BUY, 1, 80))
    wide.now_ns = until_ns
    reports = wide.reports(BOB, order(SELL, 1, 90))
    assert len(of_type(reports, ExecType.EXPIRED)) == LIMIT + 1
    assert (reports[-1].order_id, reports[-1].exec_type) == (order_id, ExecType.EXPIRED)
    assert len(of_type(reports, ExecType.TRADE)) == 2
    assert wide.book() == ([(80, 1, 1)], [])


def test_trailing_orders_that_move_count_as_makers_of_what_is_triggered(wide: Shard) -> None:
    send_many(wide, BOB, [order(SELL, 1, 1_000 + step) for step in range(5)])
    wide.reports(ALICE, order(BUY, 1, 1_000, tif=IOC))
    distance = {"trigger": Trigger.TRAILING, "trigger_ticks": 500}
    send_many(wide, BOB, [order(SELL, 1, 1, **distance)] * (LIMIT // 2))
    # Each of these trades a tick higher, which triggers the next.
    stops = [order(BUY, 1, 2_000, trigger=Trigger.STOP, trigger_ticks=1_000 + step) for step in range(1, 4)]
    wide.reports(ALICE, *stops)
    first = wide.reports(ALICE, order(BUY, 1, 1_001, tif=IOC))
    assert len(of_type(first, ExecType.TRIGGERED)) == 2, "the trade of the command itself does not count"
    assert is_due(wide)
    rest = wide.apply(time_passed())
    assert len(of_type(rest, ExecType.TRIGGERED)) == 1
    assert not is_due(wide)


def test_makers_that_self_trade_prevention_ends_are_counted(wide: Shard) -> None:
    send_many(wide, ALICE, [order(SELL, 1, 100)] * (LIMIT + 2))
    reports = wide.reports(ALICE, order(BUY, 1, 100, stp=SelfTradePrevention.CANCEL_OLDEST))
    assert len(of_type(reports, ExecType.SELF_TRADE_PREVENTED)) == LIMIT
    assert reports[-1].reason is ReasonCode.MATCH_LIMIT
    assert wide.book() == ([], [(100, 2, 2)])


def test_an_all_or_nothing_batch_causes_so_many_reports(wide: Shard) -> None:
    send_many(wide, BOB, [order(SELL, 1, 100)] * (2 * LIMIT + 3))
    taking = [order(BUY, LIMIT, 100, tif=IOC), order(BUY, LIMIT - 1, 100, tif=IOC)]
    refused = wide.reports(ALICE, *taking, order(BUY, 1, 100, tif=IOC), flags=BatchFlags.ALL_OR_NOTHING)
    reasons = [one.reason for one in refused]
    assert reasons == [ReasonCode.BATCH_REFUSED, ReasonCode.BATCH_REFUSED, ReasonCode.BATCH_TOO_LARGE]
    assert wide.book() == ([], [(100, 2 * LIMIT + 3, 2 * LIMIT + 3)])
    done = wide.reports(ALICE, *taking, flags=BatchFlags.ALL_OR_NOTHING)
    assert len(done) == 4 * LIMIT == 4_096
    assert wide.book() == ([], [(100, 4, 4)])


def test_a_record_expires_so_many_orders_and_the_next_the_rest(wide: Shard) -> None:
    until_ns = wide.now_ns + 1_000_000_000
    terms = {"tif": TimeInForce.GTD, "expire_time_ns": until_ns}
    entered = send_many(wide, BOB, [order(SELL, 1, 100, **terms) for _ in range(LIMIT + 3)])
    wide.now_ns = until_ns
    expired = wide.apply(time_passed())
    assert [one.order_id for one in expired] == [one.order_id for one in entered[:LIMIT]]
    assert {one.exec_type for one in expired} == {ExecType.EXPIRED}
    assert wide.book() == ([], [(100, 3, 3)])
    assert is_due(wide), "the rest is due at once"


def test_what_is_past_its_time_and_still_there_is_not_traded(wide: Shard) -> None:
    until_ns = wide.now_ns + 1_000_000_000
    terms = {"tif": TimeInForce.GTD, "expire_time_ns": until_ns}
    entered = send_many(wide, BOB, [order(SELL, 1, 100, **terms) for _ in range(LIMIT + 3)])
    wide.now_ns = until_ns
    reports = wide.reports(ALICE, order(BUY, 5, 100, tif=IOC))
    assert [one.order_id for one in of_type(reports, ExecType.EXPIRED)] == [one.order_id for one in entered]
    assert reports[-1].reason is ReasonCode.IMMEDIATE_REMAINDER
    assert wide.money(BOB)[BTC] == (1_000_000_000, 0)


def stop_sale(trigger_ticks: int) -> Command:
    return order(SELL, 1, 1, trigger=Trigger.STOP, trigger_ticks=trigger_ticks)


def test_a_command_triggers_so_many_orders_and_a_record_the_rest(wide: Shard) -> None:
    send_many(wide, BOB, [stop_sale(90)] * (2 * TRIGGERED_MAX + 5))
    wide.reports(BOB, order(SELL, 1, 90))
    reports = wide.reports(ALICE, order(BUY, 1, 90))
    assert len(of_type(reports, ExecType.TRIGGERED)) == TRIGGERED_MAX
    assert is_due(wide)
    assert len(of_type(wide.apply(time_passed()), ExecType.TRIGGERED)) == TRIGGERED_MAX
    assert len(of_type(wide.apply(time_passed()), ExecType.TRIGGERED)) == 5
    assert wide.apply(time_passed()) == []


def test_triggered_orders_share_a_bound_on_makers(wide: Shard) -> None:
    """The first uses every maker of the bound; the second waits for the next record."""
    send_many(wide, ALICE, [order(BUY, 1, 80)] * (LIMIT + 4))
    sale = {"trigger": Trigger.STOP, "trigger_ticks": 90}
    wide.reports(BOB, order(SELL, LIMIT, 80, **sale), order(SELL, 2, 80, **sale))
    wide.reports(BOB, order(SELL, 1, 90))
    reports = wide.reports(CAROL, order(BUY, 1, 90))
    assert len(of_type(reports, ExecType.TRIGGERED)) == 1
    assert wide.book() == ([(80, 4, 4)], [])
    assert len(of_type(wide.apply(time_passed()), ExecType.TRIGGERED)) == 1
    assert wide.book() == ([(80, 2, 2)], [])


def test_a_market_has_so_many_trailing_orders(wide: Shard) -> None:
    wide.reports(BOB, order(SELL, 1, 100))
    wide.reports(ALICE, order(BUY, 1, 100))
    trailing = order(SELL, 1, 1, trigger=Trigger.TRAILING, trigger_ticks=10)
    entered = send_many(wide, BOB, [trailing] * LIMIT)
    assert {one.exec_type for one in entered} == {ExecType.NEW}
    (refused,) = wide.reports(BOB, trailing)
    assert (refused.exec_type, refused.reason) == (ExecType.REJECTED, ReasonCode.TRAILING_LIMIT)
    (other,) = wide.reports(BOB, order(SELL, 1, 1, market_id=2, trigger=Trigger.TRAILING, trigger_ticks=10))
    assert other.exec_type is ExecType.NEW
    _, again = wide.reports(BOB, cancel(entered[7].order_id), trailing)
    assert again.exec_type is ExecType.NEW


def test_an_auction_is_executed_in_steps(wide: Shard) -> None:
    """While it goes on the market takes cancels alone, and each command or record takes it further."""
    wide.operator(market_state(1, MarketState.AUCTION))
    pairs = LIMIT + 40
    send_many(wide, ALICE, [order(BUY, 1, 100)] * pairs)
    send_many(wide, BOB, [order(SELL, 1, 100)] * pairs)
    answers = wide.operator(market_state(1, MarketState.CONTINUOUS))
    assert any("uncrossing" in one for one in answers)
    assert state_of(wide) is MarketState.UNCROSSING
    assert is_due(wide)
    assert wide.book() == ([(100, 40, 40)], [(100, 40, 40)])

    refused, *_ = wide.reports(CAROL, order(BUY, 1, 100))
    assert refused.reason is ReasonCode.MARKET_UNCROSSING
    assert state_of(wide) is MarketState.CONTINUOUS, "the command took the auction to its end"
    assert wide.book() == ([], [])
    assert wide.money(ALICE)[USD] == (1_000_000_000 - 100 * pairs, 0)


def test_orders_come_to_an_auction_in_steps(wide: Shard) -> None:
    """Until all are there the market takes cancels alone; then it is in its auction, for as long as was asked for."""
    waiting = LIMIT + 40
    send_many(wide, ALICE, [order(BUY, 1, 100, tif=TimeInForce.AT_THE_CLOSE)] * waiting)
    assert wide.book() == ([], [])
    held = wide.money(ALICE)[USD][1]
    assert held == 100 * waiting
    until_ns = wide.now_ns + 60_000_000_000
    wide.operator(market_state(1, MarketState.CLOSING_AUCTION, until_ns))
    assert state_of(wide) is MarketState.UNCROSSING
    assert is_due(wide)
    assert wide.book() == ([(100, LIMIT, LIMIT)], [])
    (refused, *came) = wide.reports(BOB, order(SELL, 1, 100, tif=TimeInForce.AT_THE_CLOSE))
    assert refused.reason is ReasonCode.MARKET_UNCROSSING
    assert [one.exec_type for one in came] == [ExecType.TRIGGERED] * 40 + [ExecType.MARKET_STATE_SET]
    assert state_of(wide) is MarketState.CLOSING_AUCTION
    assert wide.engine.next_due_ns == until_ns
    assert wide.money(ALICE)[USD][1] == held


def test_orders_that_missed_their_auction_end_in_steps(wide: Shard) -> None:
    send_many(wide, ALICE, [order(BUY, 1, 100, tif=TimeInForce.AT_THE_CLOSE)] * (LIMIT + 6))
    wide.operator(market_state(1, MarketState.CLOSED))
    assert state_of(wide) is MarketState.UNCROSSING
    assert is_due(wide)
    ended = wide.apply(time_passed())
    assert [one.reason for one in ended] == [ReasonCode.AUCTION_REMAINDER] * 6 + [ReasonCode.NONE]
    assert state_of(wide) is MarketState.CLOSED
    assert wide.money(ALICE)[USD] == (1_000_000_000, 0)


def test_an_auction_goes_on_with_time_alone(wide: Shard) -> None:
    wide.operator(market_state(1, MarketState.AUCTION))
    send_many(wide, ALICE, [order(BUY, 1, 100)] * (LIMIT + 6))
    bids = wide.engine.open_orders(ALICE, 0, 0, 2_400)
    send_many(wide, BOB, [order(SELL, 1, 100)] * (LIMIT + 6))
    wide.operator(market_state(1, MarketState.CONTINUOUS))
    assert wide.reports(ALICE, cancel(bids[-1].order_id))[0].exec_type is ExecType.CANCELLED
    assert state_of(wide) is MarketState.CONTINUOUS
    assert wide.book() == ([], [(100, 1, 1)])


def test_a_pair_that_a_mass_cancel_divides_is_one_no_longer(wide: Shard) -> None:
    send_many(wide, BOB, [order(SELL, 1, 100)])
    pairs = [order(SELL, 1, 100), order(SELL, 1, 101, options=OrderOptions.OCO_WITH_PREVIOUS)]
    entered = send_many(wide, BOB, pairs * (LIMIT // 2))
    assert wide.reports(BOB, cancel_all())[-1].leaves_lots == 1
    (left,) = wide.engine.open_orders(BOB, 0, 0, 10)
    assert left.order_id == entered[-1].order_id
    traded = wide.reports(ALICE, order(BUY, 1, 101))
    assert not of_type(traded, ExecType.CANCELLED)
