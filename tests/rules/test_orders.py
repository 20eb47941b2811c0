"""The rule book as scenarios: a book, commands, and the reports they must cause. Both engines must pass.

A report reads `account: what #order side quantity@price open filled ...`, see `tests.model.kit.line`.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.model.kit import (
    Shard,
    amend,
    cancel,
    cancel_all,
    deposit,
    market_state,
    open_account,
    order,
    public_key,
    rest,
)
from tests.rules.names import ALICE, BIG, BOB, BTC, BUY, CAROL, ETH, FOK, IOC, SELL, USD, NewShard
from zexchange.wire.messages import (
    Command,
    ExecType,
    MarketState,
    OrderType,
    ReasonCode,
    Side,
    TimeInForce,
)

# ------------------------------------------------------------------ new orders and matching


def test_an_order_that_does_not_cross_rests(shard: Shard) -> None:
    assert shard.send(ALICE, order(BUY, 5, 100)) == ["1: new #13 buy 5@100 open 5 filled 0"]
    assert shard.book() == ([(100, 5, 1)], [])
    assert shard.money(ALICE)[USD] == (999_500, 500)


def test_price_then_time_priority(shard: Shard) -> None:
    first = rest(shard, ALICE, SELL, 2, 101)
    second = rest(shard, BOB, SELL, 2, 101)
    best = rest(shard, BOB, SELL, 2, 100)
    taker = shard.engine.next_seq
    assert shard.send(CAROL, order(BUY, 5, 101)) == [
        f"3: new #{taker} buy 5@101 open 5 filled 0",
        f"2: trade #{best} sell 2@100 open 0 filled 2 last 2 at 100 maker",
        f"3: trade #{taker} buy 5@101 open 3 filled 2 last 2 at 100 taker",
        f"1: trade #{first} sell 2@101 open 0 filled 2 last 2 at 101 maker",
        f"3: trade #{taker} buy 5@101 open 1 filled 4 last 2 at 101 taker",
        f"2: trade #{second} sell 2@101 open 1 filled 1 last 1 at 101 maker",
        f"3: trade #{taker} buy 5@101 open 0 filled 5 last 1 at 101 taker",
    ]
    assert shard.book() == ([], [(101, 1, 1)])


def test_buyer_pays_the_makers_price_and_gets_the_rest_of_the_hold_back(shard: Shard) -> None:
    rest(shard, ALICE, SELL, 3, 90)
    shard.send(BOB, order(BUY, 3, 100))
    assert shard.money(BOB) == {USD: (1_000_000 - 270, 0), BTC: (1_000_003, 0), ETH: (1_000_000, 0)}
    assert shard.money(ALICE) == {USD: (1_000_270, 0), BTC: (999_997, 0), ETH: (1_000_000, 0)}


def test_remainder_rests_at_its_limit(shard: Shard) -> None:
    rest(shard, ALICE, SELL, 3, 90)
    shard.send(BOB, order(BUY, 5, 100))
    assert shard.book() == ([(100, 2, 1)], [])
    assert shard.money(BOB)[USD] == (1_000_000 - 270 - 200, 200)


def test_ioc_remainder_is_cancelled(shard: Shard) -> None:
    maker = rest(shard, ALICE, SELL, 3, 90)
    taker = shard.engine.next_seq
    assert shard.send(BOB, order(BUY, 5, 100, tif=IOC)) == [
        f"2: new #{taker} buy 5@100 open 5 filled 0",
        f"1: trade #{maker} sell 3@90 open 0 filled 3 last 3 at 90 maker",
        f"2: trade #{taker} buy 5@100 open 2 filled 3 last 3 at 90 taker",
        f"2: cancelled #{taker} buy 5@100 open 0 filled 3 last 2 because immediate_remainder",
    ]
    assert shard.book() == ([], [])
    assert shard.money(BOB)[USD] == (1_000_000 - 270, 0)


def test_ioc_on_an_empty_book(shard: Shard) -> None:
    taker = shard.engine.next_seq
    assert shard.send(BOB, order(SELL, 5, 100, tif=IOC)) == [
        f"2: new #{taker} sell 5@100 open 5 filled 0",
        f"2: cancelled #{taker} sell 5@100 last 5 because immediate_remainder",
    ]


def test_market_order_stops_at_its_protection_price(shard: Shard) -> None:
    rest(shard, ALICE, SELL, 1, 90)
    rest(shard, ALICE, SELL, 1, 95)
    reports = shard.send(BOB, order(BUY, 5, 94, order_type=OrderType.MARKET, tif=IOC))
    assert [report.split()[1] for report in reports] == ["new", "trade", "trade", "cancelled"]
    assert shard.book() == ([], [(95, 1, 1)])


@pytest.mark.parametrize("tif", [IOC, FOK])
def test_market_order_may_be_immediate_or_fill_or_kill(shard: Shard, tif: TimeInForce) -> None:
    rest(shard, ALICE, SELL, 5, 90)
    reports = shard.send(BOB, order(BUY, 5, 94, order_type=OrderType.MARKET, tif=tif))
    assert [report.split()[1] for report in reports] == ["new", "trade", "trade"]


def test_self_trade_cancels_the_rest_of_the_incoming_order(shard: Shard) -> None:
    rest(shard, ALICE, SELL, 2, 90)
    own = rest(shard, BOB, SELL, 2, 91)
    taker = shard.engine.next_seq
    assert shard.send(BOB, order(BUY, 5, 100))[-1] == (
        f"2: self_trade_prevented #{taker} buy 5@100 open 0 filled 2 last 3 because self_trade"
    )
    assert shard.book() == ([], [(91, 2, 1)])
    assert shard.send(BOB, cancel(own))[0].startswith("2: cancelled")
    assert shard.money(BOB)[USD] == (1_000_000 - 180, 0)


def test_fok_fills_completely_or_not_at_all(shard: Shard) -> None:
    rest(shard, ALICE, SELL, 2, 90)
    rest(shard, ALICE, SELL, 2, 91)
    rest(shard, ALICE, SELL, 2, 93)
    assert shard.send(BOB, order(BUY, 5, 92, tif=FOK)) == [
        "2: rejected buy 5@92 because fok_not_fillable",
    ]
    assert shard.book() == ([], [(90, 2, 1), (91, 2, 1), (93, 2, 1)])
    assert shard.money(BOB)[USD] == (1_000_000, 0)
    reports = shard.send(BOB, order(BUY, 4, 92, tif=FOK))
    assert reports[-1].endswith("open 0 filled 4 last 2 at 91 taker")


def test_fok_counts_nothing_from_its_own_order_on(shard: Shard) -> None:
    rest(shard, ALICE, SELL, 2, 90)
    rest(shard, BOB, SELL, 1, 91)
    rest(shard, ALICE, SELL, 9, 92)
    assert shard.send(BOB, order(BUY, 3, 95, tif=FOK)) == ["2: rejected buy 3@95 because fok_not_fillable"]
    assert shard.send(BOB, order(BUY, 2, 95, tif=FOK))[-1].endswith("open 0 filled 2 last 2 at 90 taker")


def test_post_only_is_refused_if_it_would_trade_even_with_its_own_account(shard: Shard) -> None:
    rest(shard, ALICE, SELL, 2, 90)
    for account_id in (ALICE, BOB):
        assert shard.send(account_id, order(BUY, 1, 90, post_only=True)) == [
            f"{account_id}: rejected buy 1@90 because post_only_would_cross"
        ]
    assert shard.send(BOB, order(BUY, 1, 89, post_only=True))[0].startswith("2: new")


def offer_one_by_one(shard: Shard, lots: int) -> None:
    """So many orders of Alice's, of one lot each at 100."""
    for done in range(0, lots, 64):
        shard.send(ALICE, *[order(SELL, 1, 100)] * min(64, lots - done))


def test_match_limit(new_shard: NewShard) -> None:
    shard = new_shard(amount=BIG, max_orders=2_000)
    offer_one_by_one(shard, 1_040)
    assert shard.book() == ([], [(100, 1_040, 1_040)])
    assert shard.send(BOB, order(BUY, 1_025, 100, tif=FOK)) == [
        "2: rejected buy 1025@100 because fok_not_fillable"
    ]
    taker = shard.engine.next_seq
    reports = shard.send(BOB, order(BUY, 1_030, 101))
    assert len(reports) == 1 + 2 * 1_024 + 1
    assert reports[-1] == (
        f"2: cancelled #{taker} buy 1030@101 open 0 filled 1024 last 6 because match_limit"
    )
    assert shard.book() == ([], [(100, 16, 16)])
    assert shard.money(BOB)[USD] == (BIG - 102_400, 0)


def test_exactly_the_match_limit_is_filled(new_shard: NewShard) -> None:
    shard = new_shard(amount=BIG, max_orders=2_000)
    offer_one_by_one(shard, 1_024)
    rest(shard, BOB, SELL, 1, 100)
    taker = shard.engine.next_seq
    assert shard.send(BOB, order(BUY, 1_024, 100, tif=FOK))[-1] == (
        f"2: trade #{taker} buy 1024@100 open 0 filled 1024 last 1 at 100 taker"
    )


def test_own_order_after_the_match_limit_is_a_self_trade(new_shard: NewShard) -> None:
    shard = new_shard(amount=BIG, max_orders=2_000)
    offer_one_by_one(shard, 1_024)
    rest(shard, BOB, SELL, 1, 100)
    assert shard.send(BOB, order(BUY, 1_025, 100))[-1].endswith("last 1 because self_trade")


# ------------------------------------------------------------------ refusals of new orders, in order


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (order(BUY, 0, 0, market_id=9), "unknown_market"),
        (order(BUY, 0, 0), "price_ticks_out_of_range"),
        (order(BUY, 0, -5), "price_ticks_out_of_range"),
        (order(BUY, 0, 2**53), "price_ticks_out_of_range"),
        (order(BUY, 0, 1), "qty_lots_out_of_range"),
        (order(BUY, 2**53, 1), "qty_lots_out_of_range"),
        (order(BUY, 2**64 - 1, 1), "qty_lots_out_of_range"),
        (order(BUY, 2**53 - 1, 2**53 - 1, order_type=OrderType.MARKET), "market_order_cannot_rest"),
        (
            order(BUY, 2**53 - 1, 2**53 - 1, order_type=OrderType.MARKET, post_only=True),
            "market_order_cannot_rest",
        ),
        (order(BUY, 2**53 - 1, 2**53 - 1, post_only=True, tif=IOC), "post_only_must_rest"),
        (order(BUY, 2**53 - 1, 2**53 - 1, post_only=True, tif=FOK), "post_only_must_rest"),
        (order(BUY, 1, 1, order_type=OrderType.MARKET, post_only=True, tif=IOC), "post_only_must_rest"),
        (order(BUY, 2**53 - 1, 2**53 - 1, client_order_id=7), "notional_overflow"),
        (order(SELL, 2**53 - 1, 2**53 - 1, client_order_id=7), "notional_overflow"),
        (order(SELL, 2**53 - 1, 1_025, client_order_id=7), "notional_overflow"),
        (order(SELL, 2**53 - 1, 1_024, client_order_id=7), "client_order_id_in_use"),
        (order(BUY, 1_024, 2**53 - 1, client_order_id=7), "client_order_id_in_use"),
        (order(BUY, 1_024, 2**53 - 1), "order_pool_full"),
        (order(BUY, 1_024, 2**53 - 1, tif=IOC), "insufficient_funds"),
        (order(BUY, 1_000_001, 1, tif=IOC), "insufficient_funds"),
        (order(BUY, 999_901, 1, tif=FOK), "insufficient_funds"),
        (order(BUY, 999_900, 1, tif=FOK), "fok_not_fillable"),
    ],
)
def test_refusals_of_a_new_order(new_shard: NewShard, command: object, reason: str) -> None:
    shard = new_shard(max_orders=1)
    shard.send(ALICE, order(BUY, 1, 100, client_order_id=7))
    (report,) = shard.reports(ALICE, command)  # type: ignore[arg-type]
    assert report.exec_type is ExecType.REJECTED
    assert report.reason.name.lower() == reason
    assert report.order_id == report.leaves_lots == report.cum_qty_lots == 0
    assert report.report_seq == shard.engine.report_seq(ALICE)
    assert shard.money(ALICE)[USD] == (999_900, 100)


@pytest.mark.parametrize(
    ("state", "reason"), [(MarketState.CLOSED, "market_closed"), (MarketState.HALTED, "market_halted")]
)
def test_only_cancels_while_a_market_is_not_continuous(shard: Shard, state: MarketState, reason: str) -> None:
    first, second = rest(shard, ALICE, BUY, 1, 100), rest(shard, ALICE, BUY, 1, 99)
    assert shard.operator(market_state(1, state)) == [f"0: market_state_set market 1 {state.name.lower()}"]
    assert shard.send(ALICE, order(BUY, 0, 0))[0].endswith(reason)
    assert shard.send(ALICE, amend(first, price_ticks=-1))[0].endswith(reason)
    assert shard.send(ALICE, amend(77, price_ticks=-1))[0].endswith("unknown_order")
    assert shard.send(ALICE, cancel(first))[0].startswith("1: cancelled")
    assert shard.send(ALICE, cancel_all())[0].startswith(f"1: cancelled #{second}")
    assert rest(shard, ALICE, BUY, 1, 100, market_id=2)
    assert shard.engine.depth(1, 5).state is state
    shard.operator(market_state(1, MarketState.CONTINUOUS))
    assert shard.send(ALICE, order(BUY, 1, 1))[0].startswith("1: new")


def test_client_order_id_is_free_again_when_the_order_is_gone(shard: Shard) -> None:
    shard.send(ALICE, order(BUY, 1, 100, client_order_id=7))
    again = order(BUY, 1, 100, client_order_id=7, market_id=2)
    assert shard.send(ALICE, again)[0].endswith("client_order_id_in_use")
    assert shard.send(BOB, again)[0].startswith("2: new")
    shard.send(BOB, order(SELL, 1, 100))
    assert shard.send(ALICE, again)[0].startswith("1: new")


def test_balance_pool_full(new_shard: NewShard) -> None:
    shard = new_shard(accounts=0, max_balances=3)
    shard.operator(open_account(public_key(1)), deposit(1, USD, 1_000))
    shard.operator(open_account(public_key(2)), deposit(2, USD, 1_000))
    assert shard.operator(deposit(2, BTC, 1)) == ["0: rejected for 2 1 of asset 2 because balance_pool_full"]
    assert shard.send(ALICE, order(BUY, 1, 1_001))[0].endswith("insufficient_funds")
    assert shard.send(ALICE, order(BUY, 1, 1, post_only=True))[0].endswith("balance_pool_full")
    assert shard.operator(deposit(2, USD, 1))[0].startswith("0: deposited")


def test_an_accepted_order_creates_the_balance_it_may_credit(new_shard: NewShard) -> None:
    shard = new_shard(accounts=0)
    shard.operator(open_account(public_key(1)), deposit(1, USD, 1_000))
    assert shard.send(ALICE, order(BUY, 1, 1, tif=FOK))[0].endswith("fok_not_fillable")
    assert shard.money(ALICE) == {USD: (1_000, 0)}
    shard.send(ALICE, order(BUY, 1, 1, tif=IOC))
    assert shard.money(ALICE) == {USD: (1_000, 0), BTC: (0, 0)}


# ------------------------------------------------------------------ fees


def test_fees_round_up_per_fill_and_go_to_the_operator(shard: Shard) -> None:
    rest(shard, ALICE, SELL, 3, 10, market_id=2)
    shard.send(BOB, order(BUY, 1, 10, market_id=2))
    reports = shard.send(BOB, order(BUY, 2, 10, market_id=2))
    assert reports[1].endswith("last 2 at 10 maker fee 1")
    assert reports[2].endswith("last 2 at 10 taker fee 1")
    assert shard.money(ALICE) == {USD: (1_000_000 + 30 - 2, 0), BTC: (1_000_000, 0), ETH: (999_970, 0)}
    assert shard.money(BOB) == {USD: (1_000_000 - 30 - 2, 0), BTC: (1_000_000, 0), ETH: (1_000_030, 0)}
    assert shard.money(0)[USD] == (4, 0)


def test_fees_are_exact_where_they_need_no_rounding(shard: Shard) -> None:
    rest(shard, ALICE, BUY, 40, 1_000, market_id=2)
    assert shard.money(ALICE)[USD][1] == 40 * (1_000 + 3), "per lot: price and the worse fee, rounded up"
    reports = shard.send(BOB, order(SELL, 40, 1_000, market_id=2))
    assert reports[1].endswith("fee 40")
    assert reports[2].endswith("fee 100")
    assert shard.money(ALICE)[USD] == (1_000_000 - 40_040, 0)
    assert shard.money(BOB)[USD] == (1_000_000 + 39_900, 0)


def test_holds_are_zero_after_draining(shard: Shard) -> None:
    for price_ticks in (7, 9, 11, 13):
        rest(shard, ALICE, BUY, 3, price_ticks, market_id=2)
        rest(shard, BOB, SELL, 5, price_ticks + 20, market_id=2)
    for qty_lots in (1, 1, 2, 4):
        shard.send(CAROL, order(SELL, qty_lots, 7, market_id=2, tif=IOC))
        shard.send(CAROL, order(BUY, qty_lots, 40, market_id=2, tif=IOC))
    shard.send(ALICE, cancel_all())
    shard.send(BOB, cancel_all())
    assert shard.engine.counts().open_orders == 0
    assert all(held == 0 for account in range(4) for _, held in shard.money(account).values())
    for asset_id in (USD, BTC, ETH):
        total = sum(shard.money(account).get(asset_id, (0, 0))[0] for account in range(4))
        assert total == shard.engine.supply(asset_id) == 3_000_000


# ------------------------------------------------------------------ cancel


def test_cancel_by_either_id(shard: Shard) -> None:
    first = rest(shard, ALICE, BUY, 1, 100)
    assert shard.send(ALICE, cancel(first)) == [
        f"1: cancelled #{first} buy 1@100 last 1 because cancelled_by_user"
    ]
    shard.send(ALICE, order(BUY, 1, 100, client_order_id=5))
    assert shard.send(ALICE, cancel(client_order_id=5))[0].endswith("last 1 because cancelled_by_user")
    assert shard.money(ALICE)[USD] == (1_000_000, 0)


def test_cancel_shows_what_was_filled(shard: Shard) -> None:
    first = rest(shard, ALICE, BUY, 5, 100)
    shard.send(BOB, order(SELL, 2, 100))
    assert shard.send(ALICE, cancel(first)) == [
        f"1: cancelled #{first} buy 5@100 open 0 filled 2 last 3 because cancelled_by_user"
    ]


def test_unknown_orders(shard: Shard) -> None:
    shard.send(ALICE, order(BUY, 1, 100, client_order_id=5))
    own = shard.engine.next_seq - 1
    other = rest(shard, BOB, BUY, 1, 100)
    for command in (
        cancel(other),
        cancel(own, client_order_id=6),
        cancel(other, client_order_id=5),
        cancel(own, market_id=2),
        cancel(client_order_id=5, market_id=2),
        cancel(client_order_id=6),
        cancel(),
        amend(other, qty_lots=1),
        amend(qty_lots=1),
        amend(own + 99, qty_lots=1),
    ):
        (report,) = shard.reports(ALICE, command)
        assert report.reason is ReasonCode.UNKNOWN_ORDER
        assert (report.order_id, report.client_order_id) == (command.order_id, command.client_order_id)
        assert (report.qty_lots, report.market_id) == (command.qty_lots, command.market_id)
    assert shard.send(ALICE, cancel(own, client_order_id=5, market_id=1))[0].startswith("1: cancelled")


def test_cancel_all_filters_by_market_and_side(shard: Shard) -> None:
    ids = [
        rest(shard, ALICE, BUY, 1, 90),
        rest(shard, ALICE, SELL, 1, 110),
        rest(shard, ALICE, BUY, 1, 90, market_id=2),
        rest(shard, ALICE, BUY, 1, 91),
        rest(shard, BOB, BUY, 1, 91),
    ]
    assert shard.send(ALICE, cancel_all(1, BUY)) == [
        f"1: cancelled #{ids[0]} buy 1@90 last 1 because mass_cancel",
        f"1: cancelled #{ids[3]} buy 1@91 last 1 because mass_cancel",
        "1: mass_cancelled buy 2@0",
    ]
    assert shard.send(ALICE, cancel_all(9)) == ["1: rejected because unknown_market"]
    assert shard.send(ALICE, cancel_all(2)) == [
        f"1: cancelled #{ids[2]} buy 1@90 last 1 because mass_cancel",
        "1: mass_cancelled 1@0",
    ]
    assert shard.send(ALICE, cancel_all())[-1] == "1: mass_cancelled 1@0"
    assert shard.send(ALICE, cancel_all()) == ["1: mass_cancelled"]
    assert shard.engine.counts().open_orders == 1


@pytest.mark.parametrize("everything", [cancel_all(), cancel_all(1), cancel_all(1, SELL)])
def test_cancel_all_cancels_at_most_1024(new_shard: NewShard, everything: Command) -> None:
    shard = new_shard(amount=BIG, max_orders=2_000)
    offer_one_by_one(shard, 1_030)
    reports = shard.reports(ALICE, everything)
    assert len(reports) == 1_025
    assert (reports[-1].qty_lots, reports[-1].leaves_lots) == (1_024, 6)
    assert [report.order_id for report in reports[:-1]] == sorted(report.order_id for report in reports[:-1])
    reports = shard.reports(ALICE, everything)
    assert (reports[-1].qty_lots, reports[-1].leaves_lots) == (6, 0)


@pytest.mark.parametrize("market_id", [0, 1, 2])
@pytest.mark.parametrize("side", list(Side))
def test_cancel_all_goes_by_order_id_through_sides_and_markets(
    new_shard: NewShard, market_id: int, side: Side
) -> None:
    """Of 1,600 orders, both sides and markets mixed, some gone again and some amended."""
    shard = new_shard(amount=BIG, max_orders=2_000)
    random = Random(f"{market_id} {side}")
    for _ in range(25):
        orders = [
            order(BUY, 2, 90, market_id=random.choice((1, 1, 2)))
            if random.random() < 0.5
            else order(SELL, 2, 110, market_id=random.choice((1, 1, 2)))
            for _ in range(64)
        ]
        shard.send(ALICE, *orders)
        shard.send(BOB, order(BUY, 1, 80), order(SELL, 1, 120))
    mine = shard.engine.open_orders(ALICE, 0, 0, 2_000)
    shard.send(ALICE, *(cancel(one.order_id) for one in random.sample(mine, 60)))
    shard.send(ALICE, *(amend(one.order_id, qty_lots=3) for one in random.sample(mine, 60)))
    mine = shard.engine.open_orders(ALICE, 0, 0, 2_000)
    matching = [
        one.order_id for one in mine if market_id in (0, one.market_id) and side in (Side.NONE, one.side)
    ]
    assert len(matching) > 200
    while True:
        *cancelled, answer = shard.reports(ALICE, cancel_all(market_id, side))
        assert [report.order_id for report in cancelled] == matching[:1_024]
        del matching[:1_024]
        assert (answer.qty_lots, answer.leaves_lots) == (len(cancelled), len(matching))
        if not matching:
            break
    left = shard.engine.open_orders(ALICE, 0, 0, 2_000)
    assert not [one for one in left if market_id in (0, one.market_id) and side in (Side.NONE, one.side)]
    assert len(shard.engine.open_orders(BOB, 0, 0, 100)) == 50


# ------------------------------------------------------------------ amend


def test_amend_to_less_keeps_the_place(shard: Shard) -> None:
    first, second = rest(shard, ALICE, BUY, 5, 100), rest(shard, BOB, BUY, 5, 100)
    assert shard.send(ALICE, amend(first, qty_lots=2)) == [f"1: replaced #{first} buy 2@100 open 2 filled 0"]
    assert shard.money(ALICE)[USD] == (999_800, 200)
    reports = shard.send(CAROL, order(SELL, 3, 100))
    assert [report.split()[2] for report in reports[1::2]] == [f"#{first}", f"#{second}"]


@pytest.mark.parametrize(("price_ticks", "qty_lots"), [(0, 6), (101, 0), (101, 1)])
def test_amend_to_more_or_another_price_loses_the_place(
    shard: Shard, price_ticks: int, qty_lots: int
) -> None:
    first, second = rest(shard, ALICE, BUY, 5, 100), rest(shard, BOB, BUY, 5, 100)
    (report,) = shard.reports(ALICE, amend(first, price_ticks=price_ticks, qty_lots=qty_lots))
    assert (report.exec_type, report.order_id) == (ExecType.REPLACED, first)
    assert shard.engine.open_orders(ALICE, 0, 0, 10)[0].priority_no == 3
    shard.send(ALICE, amend(first, price_ticks=100))
    reports = shard.send(CAROL, order(SELL, 1, 100))
    assert reports[1].split()[2] == f"#{second}"


def test_amend_that_changes_nothing_keeps_the_place(shard: Shard) -> None:
    first = rest(shard, ALICE, BUY, 5, 100)
    for command in (amend(first), amend(first, price_ticks=100), amend(first, price_ticks=100, qty_lots=5)):
        assert shard.send(ALICE, command) == [f"1: replaced #{first} buy 5@100 open 5 filled 0"]
    assert shard.engine.open_orders(ALICE, 0, 0, 10)[0].priority_no == 1


def test_amend_counts_what_is_filled(shard: Shard) -> None:
    first = rest(shard, ALICE, BUY, 5, 100)
    shard.send(BOB, order(SELL, 2, 100))
    assert shard.send(ALICE, amend(first, qty_lots=4)) == [f"1: replaced #{first} buy 4@100 open 2 filled 2"]
    assert shard.money(ALICE)[USD] == (1_000_000 - 400, 200)


@pytest.mark.parametrize("qty_lots", [1, 2])
def test_amend_below_what_is_filled_cancels(shard: Shard, qty_lots: int) -> None:
    first = rest(shard, ALICE, BUY, 5, 100)
    shard.send(BOB, order(SELL, 2, 100))
    assert shard.send(ALICE, amend(first, price_ticks=99, qty_lots=qty_lots)) == [
        f"1: cancelled #{first} buy 5@100 open 0 filled 2 last 3 because amended_below_filled"
    ]
    assert shard.money(ALICE)[USD] == (999_800, 0)


def test_amend_into_a_cross_trades_as_taker_and_keeps_its_slot(shard: Shard) -> None:
    first = rest(shard, ALICE, BUY, 5, 100)
    maker = rest(shard, BOB, SELL, 2, 103)
    assert shard.send(ALICE, amend(first, price_ticks=105)) == [
        f"1: replaced #{first} buy 5@105 open 5 filled 0",
        f"2: trade #{maker} sell 2@103 open 0 filled 2 last 2 at 103 maker",
        f"1: trade #{first} buy 5@105 open 3 filled 2 last 2 at 103 taker",
    ]
    assert shard.book() == ([(105, 3, 1)], [])
    assert shard.money(ALICE)[USD] == (1_000_000 - 206 - 315, 315)


def test_amend_into_its_own_account_cancels_the_rest(shard: Shard) -> None:
    first = rest(shard, ALICE, BUY, 5, 100)
    rest(shard, BOB, SELL, 1, 102)
    rest(shard, ALICE, SELL, 2, 103)
    reports = shard.send(ALICE, amend(first, price_ticks=105))
    assert reports[-1] == (
        f"1: self_trade_prevented #{first} buy 5@105 open 0 filled 1 last 4 because self_trade"
    )
    assert shard.money(ALICE)[USD] == (1_000_000 - 102, 0)
    assert shard.send(ALICE, cancel(first))[0].endswith("unknown_order")


def test_amend_that_fills_completely_frees_the_slot(new_shard: NewShard) -> None:
    shard = new_shard(max_orders=2)
    first = rest(shard, ALICE, BUY, 5, 100)
    rest(shard, BOB, SELL, 5, 103)
    assert shard.send(CAROL, order(BUY, 1, 1))[0].endswith("order_pool_full")
    assert shard.send(ALICE, amend(first, price_ticks=103))[-1].endswith("filled 5 last 5 at 103 taker")
    assert shard.engine.counts().open_orders == 0
    assert shard.send(CAROL, order(BUY, 1, 1))[0].startswith("3: new")


def test_refusals_of_an_amend(new_shard: NewShard) -> None:
    shard = new_shard(amount=1_000)
    first = rest(shard, ALICE, BUY, 5, 100)
    rest(shard, BOB, SELL, 5, 103)
    for command, reason in (
        (amend(first, price_ticks=-1, qty_lots=2**60), "price_ticks_out_of_range"),
        (amend(first, price_ticks=2**53, qty_lots=2**60), "price_ticks_out_of_range"),
        (amend(first, price_ticks=103, qty_lots=2**53, post_only=True), "qty_lots_out_of_range"),
        (amend(first, price_ticks=2**53 - 1, qty_lots=2**53 - 1), "notional_overflow"),
        (amend(first, price_ticks=201, post_only=True), "insufficient_funds"),
        (amend(first, qty_lots=11), "insufficient_funds"),
        (amend(first, price_ticks=103, post_only=True), "post_only_would_cross"),
    ):
        (report,) = shard.reports(ALICE, command)
        assert (report.exec_type, report.reason.name.lower()) == (ExecType.REJECTED, reason)
        assert (report.price_ticks, report.qty_lots) == (command.price_ticks, command.qty_lots)
        assert (report.order_id, report.side, report.market_id) == (first, Side.NONE, 0)
    assert shard.send(ALICE, amend(first, qty_lots=10))[0].startswith("1: replaced"), "the old hold counts"
    last = amend(first, price_ticks=102, qty_lots=1, post_only=True)
    assert shard.send(ALICE, last)[0].startswith("1: replaced")
