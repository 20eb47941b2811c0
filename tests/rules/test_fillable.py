"""Fill or kill, and a minimum: what is promised is filled, whatever the resting orders do to each other."""

from __future__ import annotations

import random

import pytest

from tests.model.kit import EngineClass, Shard, funded_shard, order
from tests.rules.names import ALICE, BOB, BUY, CAROL, FOK, IOC, SELL, NewShard
from zexchange.wire.messages import (
    BatchFlags,
    Command,
    ExecType,
    ExecutionReport,
    OrderOptions,
    ReasonCode,
    SelfTradePrevention,
    TimeInForce,
    Trigger,
)

PAIR = OrderOptions.OCO_WITH_PREVIOUS
HIDDEN = OrderOptions.HIDDEN
OLDEST = SelfTradePrevention.CANCEL_OLDEST


def filled_lots(reports: list[ExecutionReport]) -> int:
    """What the order of the last command filled."""
    trades = [one for one in reports if one.exec_type is ExecType.TRADE and one.account_id == ALICE]
    return sum(one.last_qty_lots for one in trades)


def reason_of(reports: list[ExecutionReport]) -> ReasonCode:
    return reports[0].reason


@pytest.mark.parametrize("second_price", [100, 101])
def test_both_of_a_pair_do_not_fill(shard: Shard, second_price: int) -> None:
    shard.reports(BOB, order(SELL, 5, 100), order(SELL, 5, second_price, options=PAIR))
    reports = shard.reports(ALICE, order(BUY, 6, 101, tif=FOK))
    assert reason_of(reports) is ReasonCode.FOK_NOT_FILLABLE
    reports = shard.reports(ALICE, order(BUY, 10, 101, tif=IOC, min_qty_lots=6))
    assert reason_of(reports) is ReasonCode.MIN_QTY_NOT_FILLABLE
    assert filled_lots(shard.reports(ALICE, order(BUY, 5, 101, tif=FOK))) == 5


def test_all_or_nothing_is_refused(shard: Shard) -> None:
    shard.reports(BOB, order(SELL, 5, 100), order(SELL, 5, 101, options=PAIR))
    reports = shard.reports(
        ALICE, order(BUY, 1, 50), order(BUY, 10, 101, tif=FOK), flags=BatchFlags.ALL_OR_NOTHING
    )
    assert [one.reason for one in reports] == [ReasonCode.BATCH_REFUSED, ReasonCode.FOK_NOT_FILLABLE]


def test_the_first_of_a_pair_counts_whichever_was_entered_first(shard: Shard) -> None:
    shard.reports(BOB, order(SELL, 5, 101), order(SELL, 3, 100, options=PAIR))
    shard.reports(CAROL, order(SELL, 2, 101))
    assert reason_of(shard.reports(ALICE, order(BUY, 6, 101, tif=FOK))) is ReasonCode.FOK_NOT_FILLABLE
    assert filled_lots(shard.reports(ALICE, order(BUY, 5, 101, tif=FOK))) == 5


def test_a_pair_that_waits_takes_nothing_away(shard: Shard) -> None:
    shard.reports(
        BOB, order(SELL, 5, 100), order(SELL, 5, 50, trigger=Trigger.STOP, trigger_ticks=60, options=PAIR)
    )
    assert filled_lots(shard.reports(ALICE, order(BUY, 5, 101, tif=FOK))) == 5


def test_a_hidden_order_is_taken_away_by_the_shown_one(shard: Shard) -> None:
    shard.reports(BOB, order(SELL, 5, 100, options=HIDDEN), order(SELL, 3, 100, options=PAIR))
    assert reason_of(shard.reports(ALICE, order(BUY, 4, 101, tif=FOK))) is ReasonCode.FOK_NOT_FILLABLE
    assert filled_lots(shard.reports(ALICE, order(BUY, 3, 101, tif=FOK))) == 3


def test_an_iceberg_takes_the_other_away_with_its_first_slice(shard: Shard) -> None:
    shard.reports(BOB, order(SELL, 5, 100, display_qty_lots=1), order(SELL, 9, 100, options=PAIR))
    assert reason_of(shard.reports(ALICE, order(BUY, 6, 101, tif=FOK))) is ReasonCode.FOK_NOT_FILLABLE
    assert filled_lots(shard.reports(ALICE, order(BUY, 5, 101, tif=FOK))) == 5


def test_an_own_order_that_is_passed_over_takes_the_other_away(shard: Shard) -> None:
    shard.reports(ALICE, order(SELL, 5, 100), order(SELL, 5, 101, options=PAIR))
    shard.reports(BOB, order(SELL, 5, 102))
    assert filled_lots(shard.reports(ALICE, order(BUY, 5, 102, tif=FOK, stp=OLDEST))) == 5
    assert shard.book() == ([], [])


def test_makers_that_are_taken_away_are_not_counted(new_shard: NewShard) -> None:
    shard = new_shard(max_orders=2_400, max_outcomes=8_192, amount=10**9)
    pair = [order(SELL, 1, 100), order(SELL, 1, 101, options=PAIR)]
    for _ in range(1_024 * 2 // 64):
        shard.reports(BOB, *pair * 32)
    assert reason_of(shard.reports(ALICE, order(BUY, 1_025, 101, tif=FOK))) is ReasonCode.FOK_NOT_FILLABLE
    assert filled_lots(shard.reports(ALICE, order(BUY, 1_024, 101, tif=FOK))) == 1_024


def random_sale(choose: random.Random, options: OrderOptions) -> Command:
    qty_lots, kind = choose.randint(1, 9), choose.randrange(4)
    return order(
        SELL,
        qty_lots,
        choose.randint(100, 103),
        options=options | (HIDDEN if kind == 0 else OrderOptions.NONE),
        display_qty_lots=choose.randint(1, qty_lots) if kind == 1 else 0,
    )


def fills(engine_class: EngineClass, seed: int, qty_lots: int, tif: TimeInForce) -> tuple[int, ReasonCode]:
    """What an order would fill of a random book, and the reason of its answer."""
    choose = random.Random(seed)
    shard = funded_shard(engine_class)
    for _ in range(8):
        commands = [random_sale(choose, OrderOptions.NONE)]
        if choose.random() < 0.8:
            commands.append(random_sale(choose, PAIR))
        shard.reports(choose.choice((ALICE, BOB, CAROL)), *commands)
    reports = shard.reports(ALICE, order(BUY, qty_lots, 103, tif=tif, stp=OLDEST))
    return filled_lots(reports), reason_of(reports)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_promised_is_what_is_filled(engine_class: EngineClass, seed: int) -> None:
    """Of random books: fill or kill fills just what an immediate order fills, and of one lot more nothing."""
    possible, _ = fills(engine_class, seed, 200, IOC)
    assert possible > 0
    assert fills(engine_class, seed, possible, FOK) == (possible, ReasonCode.NONE)
    assert fills(engine_class, seed, possible + 1, FOK) == (0, ReasonCode.FOK_NOT_FILLABLE)
