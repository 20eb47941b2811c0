"""Candles, figures of a day, trades and reports, against sums made by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.model import kit
from webapp.candles import INTERVALS_S, SECOND_NS, CandleSet
from webapp.history import REPORTS_KEPT, History
from zexchange.engine import Engine
from zexchange.wire.messages import ExecType, Side

ALICE, BOB = kit.public_key(1), kit.public_key(2)


def test_candles_of_all_intervals() -> None:
    candles = CandleSet()
    for time_s, price, qty in ((59, 100, 1), (60, 110, 2), (61, 90, 3), (119, 95, 4), (120, 99, 5)):
        candles.add(time_s * SECOND_NS + 5, price, qty)
    minutes = candles.newest("1m", 10)
    assert [
        (one.begin_s, one.open_ticks, one.high_ticks, one.low_ticks, one.close_ticks) for one in minutes
    ] == [
        (0, 100, 100, 100, 100),
        (60, 110, 110, 90, 95),
        (120, 99, 99, 99, 99),
    ]
    assert [(one.volume_lots, one.trades) for one in minutes] == [(1, 1), (9, 3), (5, 1)]
    assert minutes[1].notional == 110 * 2 + 90 * 3 + 95 * 4
    assert [one.begin_s for one in candles.since("1m", 60)] == [60, 120]
    assert [one.begin_s for one in candles.newest("1s", 2)] == [119, 120]
    assert len(candles.newest("1d", 9)) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 200_000), st.integers(1, 2**53 - 1), st.integers(1, 2**40)), max_size=60
    )
)
def test_every_interval_says_the_same(trades: list[tuple[int, int, int]]) -> None:
    trades.sort()
    candles = CandleSet()
    for time_s, price, qty in trades:
        candles.add(time_s * SECOND_NS, price, qty)
    for name, length_s in INTERVALS_S.items():
        found = candles.newest(name, 10**6)
        expected: dict[int, list[tuple[int, int]]] = {}
        for time_s, price, qty in trades:
            expected.setdefault(time_s // length_s * length_s, []).append((price, qty))
        assert [one.begin_s for one in found] == sorted(expected)[-len(found) :]
        for one in found:
            prices = [price for price, _ in expected[one.begin_s]]
            assert (one.open_ticks, one.close_ticks) == (prices[0], prices[-1])
            assert (one.high_ticks, one.low_ticks) == (max(prices), min(prices))
            assert one.volume_lots == sum(qty for _, qty in expected[one.begin_s])
    if trades:
        now_s = trades[-1][0]
        first_minute = now_s // 60 - 1_439
        within = [(price, qty) for time_s, price, qty in trades if time_s // 60 >= first_minute]
        day = candles.day(now_s * SECOND_NS)
        assert (day.open_ticks, day.volume_lots) == (within[0][0], sum(qty for _, qty in within))
        assert day.notional == sum(price * qty for price, qty in within)


def test_a_day_without_trades_is_empty() -> None:
    candles = CandleSet()
    candles.add(0, 5, 5)
    day = candles.day(2 * 86_400 * SECOND_NS)
    assert (day.open_ticks, day.volume_lots) == (None, 0)


def traded_history() -> tuple[History, int]:
    """Two accounts trade ten times."""
    genesis = kit.small_genesis()
    engine = Engine(genesis, 0, track_state=False)
    history = History()
    now_ns = kit.START_NS

    def apply(*frames: bytes) -> None:
        nonlocal now_ns
        now_ns += SECOND_NS
        history.add(0, bytes(engine.apply(b"".join(frames), now_ns).events))

    apply(kit.epoch_open(1))
    operator = [kit.open_account(ALICE), kit.open_account(BOB)]
    operator += [kit.deposit(account, asset, 10**9) for account in (1, 2) for asset in (1, 2)]
    apply(kit.batch(kit.OPERATOR_KEY, 1, operator))
    for nonce in range(1, 11):
        apply(kit.batch(ALICE, nonce, [kit.order(Side.SELL, 2, 100 + nonce)]))
        apply(kit.batch(BOB, nonce, [kit.order(Side.BUY, 2, 100 + nonce)]))
    return history, 10


def test_trades_are_numbered_per_market_and_newest_are_kept() -> None:
    history, count = traded_history()
    market = history.markets[1]
    assert [one.number for one in market.trades] == list(range(1, count + 1))
    assert [one.price_ticks for one in market.after(7)] == [108, 109, 110]
    assert market.after(count) == []
    assert {one.taker_side for one in market.trades} == {Side.BUY}
    assert history.markets[2].count == 0


def test_reports_are_paged_without_gap_or_repetition() -> None:
    history, count = traded_history()
    seen: list[int] = []
    before: dict[int, int] = {}
    while True:
        page = history.reports(1, [0], frozenset({ExecType.TRADE}), before, 3)
        if not page:
            break
        seen += [one.report_seq for one in page]
        before[0] = page[-1].report_seq
    assert len(seen) == count
    assert seen == sorted(set(seen), reverse=True)
    newest = history.reports(1, [0], frozenset({ExecType.TRADE}), {}, 1)[0]
    assert (
        next(one.report_seq for one in history.reports_after(1, 0, newest.report_seq - 1))
        == newest.report_seq
    )
    assert history.reports(99, [0], frozenset({ExecType.TRADE}), {}, 5) == []
    assert count < REPORTS_KEPT
