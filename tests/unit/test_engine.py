"""What is special about the engine in C: its event buffer, its memory, its build, its numbers at the edge.

The rules themselves are tested in tests/rules and tests/model, with both engines.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Sequence

import psutil
import pytest

from tests.model.kit import (
    OPERATOR_KEY,
    START_NS,
    Shard,
    amend,
    batch,
    cancel_all,
    deposit,
    epoch_open,
    market_state,
    open_account,
    order,
    public_key,
    small_genesis,
)
from zexchange import limits, native
from zexchange.engine import Engine
from zexchange.engine_types import InvariantBroken, MalformedFrame, MatchingEngine, SnapshotInvalid
from zexchange.genesis import EngineLimits, MarketSpec
from zexchange.limits import (
    AMOUNT_MAX,
    COMMANDS_PER_BATCH_MAX,
    EVENTS_BYTES_MAX,
    EXECUTION_REPORT_BYTES,
    MAKERS_PER_COMMAND_MAX,
    PRICE_TICKS_MAX,
    QTY_LOTS_MAX,
    REPORTS_OF_TIME_MAX,
    REPORTS_PER_COMMAND_MAX,
)
from zexchange.reference import ReferenceEngine
from zexchange.wire.messages import Command, MarketState, ReasonCode, Side, TimeInForce

BUY, SELL, IOC = Side.BUY, Side.SELL, TimeInForce.IOC
BTC, ETH = 2, 3
ALICE, BOB = 1, 2
MIB = 1 << 20


@pytest.fixture
def shard() -> Shard:
    """Two traders with a million of everything."""
    return Shard.funded(Engine(small_genesis(), 0), accounts=2)


def test_it_is_a_matching_engine() -> None:
    engine: MatchingEngine = Engine(small_genesis(), 0)
    assert (engine.shard, engine.next_record_no, engine.next_seq, engine.next_trade_id) == (0, 1, 1, 1)
    assert engine.log_time_ns == 0


# ------------------------------------------------------------------ events


def test_events_outlive_the_engine_but_not_the_next_apply() -> None:
    engine = Engine(small_genesis(), 0)
    events = engine.apply(batch(OPERATOR_KEY, 1, [open_account(public_key(1))]), START_NS).events
    assert isinstance(events, memoryview)
    assert events.readonly
    first = bytes(events)
    engine.apply(batch(OPERATOR_KEY, 2, [open_account(public_key(2))]), START_NS + 1)
    assert bytes(events) != first
    last = bytes(events)
    del engine
    gc.collect()
    assert bytes(events) == last


def test_an_empty_body_changes_nothing() -> None:
    engine = Engine(small_genesis(), 0)
    applied = engine.apply(b"", START_NS)
    assert (applied.consumed_bytes, applied.records, bytes(applied.events)) == (0, 0, b"")
    assert engine.log_time_ns == 0


def test_a_body_may_be_any_buffer() -> None:
    frame = batch(OPERATOR_KEY, 1, [open_account(public_key(1))])
    for body in (frame, memoryview(frame), memoryview(bytearray(frame))):
        engine = Engine(small_genesis(), 0)
        assert engine.apply(body, START_NS).consumed_bytes == len(frame)


def deep_book(makers: int) -> tuple[Engine, int]:
    """An engine with so many resting orders of Alice, a multiple of 16,384, and its log time."""
    engine_limits = EngineLimits(
        max_accounts=4, max_keys=4, max_balances=16, max_orders=makers, max_outcomes=1_024
    )
    engine = Engine(small_genesis(engine_limits=engine_limits), 0)
    now_ns = Shard.funded(engine, accounts=2).now_ns
    resting = [order(SELL, 1, 1)] * COMMANDS_PER_BATCH_MAX
    for first in range(0, makers // COMMANDS_PER_BATCH_MAX, 256):
        body = b"".join(batch(public_key(ALICE), 100 + first + at, resting) for at in range(256))
        now_ns += 1
        assert engine.apply(body, now_ns).consumed_bytes == len(body)
    assert engine.counts().open_orders == makers
    return engine, now_ns


def test_apply_stops_before_a_record_whose_events_might_not_fit() -> None:
    """A batch of 64 commands might cause 146 MB of events, and these cause 22 MB each; the buffer has 192 MiB."""
    batches, commands = 4, COMMANDS_PER_BATCH_MAX
    engine, now_ns = deep_book(batches * commands * MAKERS_PER_COMMAND_MAX)
    before = engine.snapshot()
    taking = [order(BUY, MAKERS_PER_COMMAND_MAX, 1, tif=IOC)] * commands
    frames = [batch(public_key(BOB), 100 + nonce, taking) for nonce in range(batches)]
    body = b"".join(frames)
    first = engine.apply(body, now_ns + 1)
    assert (first.records, first.commands) == (3, 3 * commands)
    assert first.consumed_bytes == len(body) - len(frames[-1])
    assert len(first.events) == 3 * commands * (2 * MAKERS_PER_COMMAND_MAX + 1) * EXECUTION_REPORT_BYTES
    first_events = hashlib.sha256(first.events).digest()
    rest = engine.apply(body[first.consumed_bytes :], now_ns + 2)
    assert rest.records == 1
    assert engine.counts().open_orders == 0
    engine.check()

    # What was taken is a batch of the log: taken whole when it is replayed, with the same events and state.
    replay = Engine.restore(engine._genesis, 0, before)
    again = replay.apply(body[: first.consumed_bytes], now_ns + 1)
    assert again.consumed_bytes == first.consumed_bytes
    assert hashlib.sha256(again.events).digest() == first_events
    assert replay.apply(body[first.consumed_bytes :], now_ns + 2).events == rest.events
    assert (replay.snapshot(), replay.state_root()) == (engine.snapshot(), engine.state_root())


def test_what_follows_a_full_event_buffer_is_looked_at_by_the_next_call() -> None:
    """Small frames still fit behind large ones; the first that might not ends the call, and all behind it."""
    commands = COMMANDS_PER_BATCH_MAX
    engine, now_ns = deep_book(3 * commands * MAKERS_PER_COMMAND_MAX)
    taking = [order(BUY, MAKERS_PER_COMMAND_MAX, 1, tif=IOC)] * commands
    frames = [batch(public_key(BOB), 100 + nonce, taking) for nonce in range(3)]
    small = batch(public_key(ALICE), 9_000, [cancel_all()])
    large = batch(public_key(ALICE), 9_001, [cancel_all()] * commands)
    body = b"".join((*frames, small, epoch_open(2), frames[0], large))
    applied = engine.apply(body + b"nonsense", now_ns + 1)
    # The resent frame is answered with 64 reports and yet counts as what it would cause if it were new.
    assert (applied.records, applied.consumed_bytes) == (
        5,
        sum(map(len, frames)) + len(small + epoch_open(2)),
    )
    rest = body[applied.consumed_bytes :]
    applied = engine.apply(rest, now_ns + 2)
    assert (applied.records, applied.commands) == (2, commands)
    with pytest.raises(MalformedFrame) as caught:
        engine.apply(b"nonsense", now_ns + 3)
    assert caught.value.offset == 0


def test_the_reference_has_the_same_room_for_events() -> None:
    assert native.lib.ENGINE_EVENTS_BYTES == EVENTS_BYTES_MAX
    assert native.lib.ENGINE_REPORTS_PER_COMMAND_MAX == REPORTS_PER_COMMAND_MAX
    assert native.lib.ENGINE_REPORTS_OF_TIME_MAX == REPORTS_OF_TIME_MAX


def test_the_reference_stops_before_a_record_whose_events_might_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With room for the worst of a batch of two commands and one report more."""
    worst = 2 * REPORTS_PER_COMMAND_MAX + REPORTS_OF_TIME_MAX
    shard = Shard.funded(ReferenceEngine(small_genesis(), 0), accounts=2)
    monkeypatch.setattr(limits, "EVENTS_BYTES_MAX", (worst + 1) * EXECUTION_REPORT_BYTES)
    one, two = [order(BUY, 1, 1)], [order(BUY, 1, 1)] * 2
    frames = [
        batch(public_key(ALICE), 100 + at, commands) for at, commands in enumerate((one, two, one, two))
    ]
    body = epoch_open(1) + b"".join(frames)
    taken = []
    while body:
        shard.now_ns += 1
        applied = shard.engine.apply(body, shard.now_ns)
        taken.append((applied.records, applied.commands, len(applied.events) // EXECUTION_REPORT_BYTES))
        body = body[applied.consumed_bytes :]
    assert taken == [(4, 4, 4), (1, 2, 2)]


# ------------------------------------------------------------------ memory, limits


def test_an_engine_of_default_size_starts_small() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    engines = [Engine(small_genesis(engine_limits=EngineLimits()), 0) for _ in range(4)]
    for engine in engines:
        engine.state_root()
        engine.check()
    assert process.memory_info().rss - before < 64 * MIB


def test_a_genesis_with_fewer_balances_than_quote_assets_is_refused() -> None:
    markets = [
        MarketSpec(id=1, symbol="BTC-USD", base="BTC", quote="USD", tick_size="1", lot_size="1"),
        MarketSpec(id=2, symbol="USD-BTC", base="USD", quote="BTC", tick_size="1", lot_size="1"),
        MarketSpec(id=3, symbol="USD-ETH", base="USD", quote="ETH", tick_size="1", lot_size="1"),
    ]
    engine_limits = EngineLimits(max_accounts=4, max_keys=4, max_balances=2, max_orders=4, max_outcomes=64)
    with pytest.raises(ValueError, match="do not fit together"):
        Engine(small_genesis(markets=markets, engine_limits=engine_limits), 0)


@pytest.mark.parametrize("shard_number", [-1, 1])
def test_a_shard_that_does_not_exist_is_refused(shard_number: int) -> None:
    with pytest.raises(ValueError, match="the genesis file has 1"):
        Engine(small_genesis(), shard_number)


@pytest.mark.parametrize("log_time_ns", [0, -1, 2**64])
def test_log_times_outside_64_bits_are_refused(log_time_ns: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Engine(small_genesis(), 0).apply(b"", log_time_ns)


# ------------------------------------------------------------------ numbers at the edge


@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize(
    ("units", "price_ticks", "qty_lots", "ppm"),
    [
        (1, PRICE_TICKS_MAX, 1024, 0),  # 2^63 - 2^10
        (1, PRICE_TICKS_MAX, 1025, 0),  # too much
        (1, 1, QTY_LOTS_MAX, 1_000_000),
        (1, 2**10, QTY_LOTS_MAX, 0),
        (1, 2**10, QTY_LOTS_MAX, 1),  # too much to buy: the fee of a lot is rounded up to one
        (AMOUNT_MAX, 1, 1, 0),  # exactly 2^63 - 1
        (AMOUNT_MAX, 1, 1, 1),
        (AMOUNT_MAX, 2, 1, 0),
        (AMOUNT_MAX, PRICE_TICKS_MAX, QTY_LOTS_MAX, 1_000_000),
        (2**62 - 1, 1, 1, 1_000_000),  # 2^63 - 2
        (2**62, 1, 1, 1_000_000),  # 2^63
        (999_999_999_989, 7, 1_000_003, 333),
    ],
)
def test_holds_up_to_63_bits_are_exact(
    units: int, price_ticks: int, qty_lots: int, ppm: int, side: Side
) -> None:
    """`units` base units of the quote asset, which has one decimal, are one lot at one tick."""
    market = MarketSpec(
        id=1,
        symbol="BTC-ETH",
        base="BTC",
        quote="ETH",
        tick_size=f"{units // 10}.{units % 10}",
        lot_size="1",
        taker_fee_ppm=ppm,
    )
    engine = Engine(small_genesis(markets=[market]), 0)
    shard = Shard(engine)
    shard.operator(
        open_account(public_key(ALICE)), deposit(ALICE, BTC, AMOUNT_MAX), deposit(ALICE, ETH, AMOUNT_MAX)
    )
    value = price_ticks * units
    hold = qty_lots * (value + -(-value * ppm // 1_000_000)) if side is BUY else qty_lots
    worst = hold if side is BUY else max(hold, qty_lots * value)
    [report] = shard.reports(ALICE, order(side, qty_lots, price_ticks))
    assert report.reason is (ReasonCode.NOTIONAL_OVERFLOW if worst > AMOUNT_MAX else ReasonCode.NONE)
    held = {balance.asset_id: balance.held for balance in engine.balances(ALICE)}
    assert held[ETH if side is BUY else BTC] == (hold if worst <= AMOUNT_MAX else 0)


# ------------------------------------------------------------------ snapshots, checks


def busy(shard: Shard) -> Shard:
    """Orders on both sides, some filled in part, some amended; outcomes; both accounts traded."""
    orders: Sequence[Command] = [order(BUY, 5, 90 + at, client_order_id=at + 1) for at in range(10)]
    shard.send(ALICE, *orders)
    shard.send(BOB, order(SELL, 12, 97), order(SELL, 3, 110), order(SELL, 3, 110))
    shard.send(BOB, amend(shard.engine.next_seq - 1, qty_lots=9))
    shard.send(ALICE, amend(client_order_id=2, price_ticks=95))
    return shard


def test_every_damaged_byte_of_a_snapshot_is_noticed(shard: Shard) -> None:
    """By restore, or, where the bytes still describe a state, by the root, which commits to all of them."""
    engine = busy(shard).engine
    snapshot, root = engine.snapshot(), engine.state_root()
    for position in range(0, len(snapshot), 5):
        damaged = bytearray(snapshot)
        damaged[position] ^= 1 << position % 8
        try:
            restored = Engine.restore(small_genesis(), 0, bytes(damaged))
        except SnapshotInvalid:
            continue
        restored.check()
        assert restored.snapshot() == damaged
        assert restored.state_root() != root


def test_a_truncated_snapshot_is_refused(shard: Shard) -> None:
    snapshot = busy(shard).engine.snapshot()
    for length in range(0, len(snapshot), 7):
        with pytest.raises(SnapshotInvalid):
            Engine.restore(small_genesis(), 0, snapshot[:length])


def test_the_root_follows_orders_that_come_and_go(shard: Shard) -> None:
    """The tree is updated where something changed; a restored engine computes it from nothing."""
    for round_no in range(6):
        shard.send(ALICE, *(order(BUY, 1, 10 + at) for at in range(5 + 3 * round_no)))
        assert (
            shard.engine.state_root()
            == Engine.restore(small_genesis(), 0, shard.engine.snapshot()).state_root()
        )
        shard.send(BOB, order(SELL, 2 + round_no, 1, tif=IOC))
        assert (
            shard.engine.state_root()
            == Engine.restore(small_genesis(), 0, shard.engine.snapshot()).state_root()
        )
        shard.send(ALICE, cancel_all())
        assert (
            shard.engine.state_root()
            == Engine.restore(small_genesis(), 0, shard.engine.snapshot()).state_root()
        )


def test_check_is_not_blind(shard: Shard) -> None:
    """Behind the back of the rules: orders from the future."""
    engine = busy(shard).engine
    assert isinstance(engine, Engine)
    engine.check()
    engine._handle.next_seq = 1
    with pytest.raises(InvariantBroken, match="an order's numbers are out of range"):
        engine.check()


# ------------------------------------------------------------------ build


def test_a_stale_build_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    native._check_build()
    monkeypatch.setattr(native, "source_hash", lambda _folder: "something else")
    with pytest.raises(ImportError, match=r"older than its sources.*make setup"):
        native._check_build()


def test_a_build_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "__version__", "0.0.0")
    with pytest.raises(ImportError, match="make setup"):
        native._check_build()


def test_an_indication_looks_at_no_more_than_4096_levels() -> None:
    """So that asking for the depth of a market in an auction costs little, however much would trade."""
    room = EngineLimits(max_accounts=4, max_keys=4, max_balances=8, max_orders=6_000, max_outcomes=64)
    shard = Shard.funded(Engine(small_genesis(engine_limits=room), 0), accounts=2, amount=10**9)
    shard.operator(market_state(1, MarketState.AUCTION))
    bids = [order(BUY, 1, 100 + price) for price in range(4_160)]
    for first in range(0, len(bids), COMMANDS_PER_BATCH_MAX):
        shard.reports(ALICE, *bids[first : first + COMMANDS_PER_BATCH_MAX])
    (sale,) = shard.reports(BOB, order(SELL, 4_095, 1))
    depth = shard.engine.depth(1, 1)
    assert (depth.indicative_price_ticks, depth.indicative_qty_lots) == (165, 4_095)
    shard.reports(BOB, amend(sale.order_id, qty_lots=4_096))
    depth = shard.engine.depth(1, 1)
    assert (depth.indicative_price_ticks, depth.indicative_qty_lots) == (0, 0)
    shard.reports(BOB, amend(sale.order_id, qty_lots=4_095, display_qty_lots=1), *[order(SELL, 1, 1)] * 2)
    depth = shard.engine.depth(1, 1)
    assert (depth.indicative_price_ticks, depth.indicative_qty_lots) == (0, 0)
    trades = " ".join(shard.operator(market_state(1, MarketState.CONTINUOUS)))
    assert "at 163 auction" in trades
