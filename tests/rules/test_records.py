"""The rule book as scenarios: nonces, duplicates, operator commands, records, state. Both engines must pass.

A report reads `account: what #order side quantity@price open filled ...`, see `tests.model.kit.line`.
"""

from __future__ import annotations

import pytest

from tests.model.kit import (
    OPERATOR_KEY,
    START_NS,
    EngineClass,
    Shard,
    amend,
    batch,
    cancel,
    cancel_all,
    decode_events,
    deposit,
    epoch_open,
    line,
    market_rules,
    market_state,
    open_account,
    order,
    public_key,
    reference_price,
    register_key,
    rest,
    small_genesis,
    withdraw,
)
from tests.rules.names import ALICE, BOB, BTC, BUY, CAROL, SELL, USD, NewShard
from zexchange.engine_types import MalformedFrame, MarketTerms, OrderTerms, SnapshotInvalid
from zexchange.genesis import EngineLimits, MarketSpec
from zexchange.wire.messages import (
    ExecType,
    MarketState,
    OrderOptions,
    OrderType,
    ReasonCode,
    ReportFlags,
    SelfTradePrevention,
    Sequence,
    Side,
    TimeInForce,
    Trigger,
)

# ------------------------------------------------------------------ nonces and duplicates


def test_a_resent_batch_is_answered_with_the_same_outcome(shard: Shard) -> None:
    rest(shard, BOB, SELL, 2, 100)
    commands = (order(BUY, 5, 100, client_order_id=8), cancel(999), cancel_all())
    original = shard.reports(ALICE, *commands, nonce=500)
    root_seq, root_record = shard.engine.next_seq, shard.engine.next_record_no
    again = shard.reports(ALICE, *commands, nonce=500)
    assert (shard.engine.next_seq, shard.engine.next_record_no) == (root_seq, root_record + 1)
    answers = [original[0], original[3], original[5]]
    assert [one.exec_type for one in again] == [ExecType.NEW, ExecType.REJECTED, ExecType.MASS_CANCELLED]
    for answer, repeated in zip(answers, again, strict=True):
        assert repeated.flags == ReportFlags.DUPLICATE
        assert repeated.log_time_ns == shard.now_ns
        assert repeated.side is Side.NONE
        assert repeated.qty_lots == repeated.price_ticks == repeated.last_qty_lots == 0
        for name in ("account_id", "report_seq", "seq", "record_no", "nonce", "order_id", "client_order_id"):
            assert getattr(repeated, name) == getattr(answer, name)
        for name in ("market_id", "reason", "command_index", "shard"):
            assert getattr(repeated, name) == getattr(answer, name)
    assert (again[0].leaves_lots, again[0].cum_qty_lots) == (3, 2), "as after the command, not before"
    assert shard.engine.report_seq(ALICE) == original[-1].report_seq


def test_duplicates_of_operator_commands_name_the_account(shard: Shard) -> None:
    shard.operator(open_account(public_key(9)), deposit(77, USD, 1), nonce=900)
    opened, refused = shard.operator(open_account(public_key(9)), deposit(77, USD, 1), nonce=900)
    assert opened == "0: account_opened for 4 again"
    assert refused == "0: rejected for 77 because unknown_account again"


def test_a_duplicate_needs_only_key_and_nonce(shard: Shard) -> None:
    rest(shard, ALICE, BUY, 1, 1)
    nonce = shard.nonce
    frame = batch(public_key(ALICE), nonce, [deposit(1, 1, 1)])
    assert line(shard.apply(frame)[0]).endswith("again")
    frame = batch(public_key(ALICE), nonce, [deposit(1, 1, 1)], shard=3)
    assert [line(one) for one in shard.apply(frame)] == ["1: rejected for 1 1 of asset 1 because wrong_shard"]


def test_outcomes_leave_the_cache_by_whole_batches(shard: Shard) -> None:
    assert shard.engine.next_seq == 13
    for nonce in (101, 102):
        shard.send(ALICE, *[cancel_all()] * 30, nonce=nonce)
    assert len(shard.send(ALICE, cancel_all(), nonce=101)) == 30
    shard.send(ALICE, *[cancel_all()] * 5, nonce=103)
    refused = shard.reports(ALICE, cancel_all(), cancel_all(), nonce=101)
    assert [report.reason for report in refused] == [ReasonCode.NONCE_USED] * 2
    assert len(shard.send(ALICE, cancel_all(), nonce=102)) == 30
    shard.send(ALICE, *[cancel_all()] * 64, nonce=104)
    assert shard.send(ALICE, cancel_all(), nonce=103)[0].endswith("nonce_used")
    assert len(shard.send(ALICE, cancel_all(), nonce=104)) == 64


def test_nonce_window_edges(shard: Shard) -> None:
    def reason(nonce: int) -> str:
        frame = batch(public_key(ALICE), nonce, [cancel_all()])
        (report,) = shard.apply(frame)
        return report.reason.name.lower()

    assert reason(0) == "nonce_used", "every key starts with nonce 0 used"
    assert reason(5_000) == "none"
    assert reason(5_000 - 1_024) == "nonce_too_old"
    assert reason(5_000 - 1_023) == "none"
    assert reason(4_999) == "none"
    assert reason(5_001) == "none"
    assert reason(5_001 - 1_024) == "none", "answered from the cache"
    for nonce in range(5_002, 5_066):
        assert reason(nonce) == "none"
    assert reason(5_000) == "nonce_used"
    assert reason(5_065 - 1_024) == "nonce_too_old"
    assert reason(5_066 - 1_024) == "none"
    assert reason(90_000) == "none"
    assert reason(90_000 - 1_023) == "none", "used bits of the old window are gone"
    assert reason(5_000) == "nonce_too_old"


def test_nonce_too_new(shard: Shard) -> None:
    limit = (shard.now_ns + 1_000) // 1_000 + 10_000_000
    frame = batch(public_key(ALICE), limit + 1, [cancel_all(1, BUY)])
    (report,) = shard.apply(frame)
    assert (report.reason, report.report_seq, report.nonce) == (ReasonCode.NONCE_TOO_NEW, 0, limit + 1)
    assert (report.market_id, report.side) == (1, BUY)
    frame = batch(public_key(ALICE), limit + 1, [cancel_all()])
    (report,) = shard.apply(frame)
    assert report.exec_type is ExecType.MASS_CANCELLED, "a microsecond later it is not too new"
    for nonce in (2**64 - 1, 2**64 - 1_024, 2**63):
        (report,) = shard.apply(batch(public_key(ALICE), nonce, [cancel_all()]))
        assert report.reason is ReasonCode.NONCE_TOO_NEW


def test_refused_batches_change_only_numbers(shard: Shard) -> None:
    before = shard.engine.report_seq(ALICE)
    for key, shard_number, command, reason, who in (
        (public_key(ALICE), 1, cancel_all(), ReasonCode.WRONG_SHARD, ALICE),
        (public_key(99), 1, cancel_all(), ReasonCode.WRONG_SHARD, 2**64 - 1),
        (public_key(99), 0, cancel_all(), ReasonCode.UNKNOWN_KEY, 2**64 - 1),
        (public_key(ALICE), 0, deposit(1, 1, 1), ReasonCode.OPERATOR_ONLY, ALICE),
        (OPERATOR_KEY, 0, cancel_all(), ReasonCode.TRADERS_ONLY, 0),
    ):
        seq, record_no, nonce = shard.engine.next_seq, shard.engine.next_record_no, shard.next_nonce()
        reports = shard.apply(batch(key, nonce, [command, command], shard=shard_number))
        assert [report.reason for report in reports] == [reason] * 2
        assert [report.seq for report in reports] == [seq, seq + 1]
        assert [report.command_index for report in reports] == [0, 1]
        for report in reports:
            assert (report.account_id, report.report_seq, report.nonce) == (who, 0, nonce)
            assert (report.record_no, report.exec_type) == (record_no, ExecType.REJECTED)
        assert (shard.engine.next_seq, shard.engine.next_record_no) == (seq + 2, record_no + 1)
    assert shard.engine.report_seq(ALICE) == before
    assert shard.send(ALICE, cancel_all(), nonce=shard.nonce - 1)[0].startswith("1: mass"), "nonce still free"


def test_every_key_has_its_own_nonces(shard: Shard) -> None:
    shard.operator(register_key(public_key(50), ALICE))
    for key in (public_key(ALICE), public_key(50)):
        (report,) = shard.apply(batch(key, 700, [cancel_all()]))
        assert (report.account_id, report.exec_type) == (ALICE, ExecType.MASS_CANCELLED)
    assert shard.engine.account_of_key(public_key(50)) == ALICE
    assert shard.engine.account_of_key(public_key(51)) is None


# ------------------------------------------------------------------ operator commands


def test_operator_commands_and_their_refusals(new_shard: NewShard) -> None:
    shard = new_shard(accounts=0, max_accounts=8, max_keys=5)
    zero, key = bytes(32), public_key
    assert shard.operator(open_account(key(1), 5)) == ["0: account_opened for 5"]
    assert shard.operator(open_account(zero, 5)) == ["0: rejected for 5 because key_invalid"]
    assert shard.operator(open_account(key(1), 5)) == ["0: rejected for 5 because account_exists"]
    assert shard.operator(open_account(key(1), 8)) == ["0: rejected for 8 because account_limit"]
    assert shard.operator(open_account(key(1), 2**64 - 1))[0].endswith("account_limit")
    assert shard.operator(open_account(key(1), 4)) == ["0: rejected for 4 because key_exists"]
    assert shard.operator(open_account(OPERATOR_KEY, 4)) == ["0: rejected for 4 because key_exists"]
    assert shard.operator(open_account(key(2))) == ["0: account_opened for 6"]
    assert shard.operator(open_account(key(3), 2)) == ["0: account_opened for 2"]
    assert shard.operator(open_account(key(4))) == ["0: account_opened for 7"]
    assert shard.operator(open_account(key(5))) == ["0: rejected because account_limit"]
    assert shard.operator(open_account(key(5), 3)) == ["0: rejected for 3 because key_limit"]
    assert shard.operator(register_key(zero, 9)) == ["0: rejected for 9 because unknown_account"]
    assert shard.operator(register_key(zero, 5)) == ["0: rejected for 5 because key_invalid"]
    assert shard.operator(register_key(key(1), 5)) == ["0: rejected for 5 because key_exists"]
    assert shard.operator(register_key(key(6), 5)) == ["0: rejected for 5 because key_limit"]
    assert shard.operator(market_state(9, MarketState.CLOSED)) == [
        "0: rejected market 9 closed because unknown_market"
    ]
    counts = shard.engine.counts()
    assert (counts.accounts, counts.keys, counts.balances, counts.open_orders) == (5, 5, 1, 0)


def test_keys_can_be_registered_for_the_operator_too(shard: Shard) -> None:
    assert shard.operator(register_key(public_key(70), 0)) == ["0: key_registered for 0"]
    (report,) = shard.apply(batch(public_key(70), 1, [deposit(0, USD, 5)]))
    assert line(report) == "0: deposited for 0 5 of asset 1"
    assert shard.money(0)[USD] == (5, 0)


def test_deposits_and_withdrawals(shard: Shard) -> None:
    assert shard.operator(deposit(ALICE, USD, 5), withdraw(ALICE, USD, 7)) == [
        "0: deposited for 1 5 of asset 1",
        "1: deposited for 1 5 of asset 1",
        "0: withdrawn for 1 7 of asset 1",
        "1: withdrawn for 1 7 of asset 1",
    ]
    assert shard.engine.supply(USD) == 3_000_000 - 2
    rest(shard, ALICE, BUY, 1, 1_000)
    top = 2**63 - 1
    for command, reason in (
        (deposit(9, 99, 0), "unknown_account"),
        (deposit(ALICE, 99, 0), "unknown_asset"),
        (deposit(ALICE, USD, 0), "amount_out_of_range"),
        (deposit(ALICE, USD, 2**63), "amount_out_of_range"),
        (deposit(ALICE, USD, top), "supply_overflow"),
        (deposit(ALICE, USD, top - 2_999_998 + 1), "supply_overflow"),
        (withdraw(9, 99, 0), "unknown_account"),
        (withdraw(ALICE, 99, 0), "unknown_asset"),
        (withdraw(ALICE, USD, 0), "amount_out_of_range"),
        (withdraw(ALICE, USD, 2**63), "amount_out_of_range"),
        (withdraw(ALICE, USD, 998_999), "insufficient_funds"),
        (withdraw(0, BTC, 1), "insufficient_funds"),
    ):
        (report,) = shard.apply(batch(OPERATOR_KEY, shard.next_nonce(), [command]))
        assert (report.exec_type, report.reason.name.lower()) == (ExecType.REJECTED, reason)
        assert (report.target_account_id, report.asset_id) == (command.account_id, command.asset_id)
        assert report.amount == command.amount
    assert shard.operator(deposit(ALICE, USD, top - 2_999_998))[0].startswith("0: deposited")
    assert shard.operator(withdraw(ALICE, USD, top - 2_999_998 + 998_998))[0].startswith("0: withdrawn")
    assert shard.money(ALICE)[USD] == (0, 1_000)


def test_reports_to_others_carry_no_nonce(shard: Shard) -> None:
    rest(shard, ALICE, SELL, 1, 100)
    before = shard.engine.report_seq(ALICE)
    new, maker, taker = shard.reports(BOB, order(BUY, 1, 100))
    assert (new.nonce, maker.nonce, taker.nonce) == (shard.nonce, 0, shard.nonce)
    assert (maker.report_seq, maker.seq, maker.command_index) == (before + 1, new.seq, 0)
    assert maker.trade_id == taker.trade_id == shard.engine.next_trade_id - 1
    to_operator, to_alice = shard.apply(batch(OPERATOR_KEY, shard.next_nonce(), [deposit(ALICE, USD, 1)]))
    assert (to_operator.nonce, to_alice.nonce) == (shard.nonce, 0)


# ------------------------------------------------------------------ records, time, state


def test_epoch_open_moves_only_record_and_time(shard: Shard) -> None:
    seq, record_no = shard.engine.next_seq, shard.engine.next_record_no
    assert shard.apply(epoch_open(2)) == []
    assert (shard.engine.next_seq, shard.engine.next_record_no) == (seq, record_no + 1)
    assert shard.engine.log_time_ns == shard.now_ns


def test_log_time_must_move_forward(shard: Shard) -> None:
    frame = batch(public_key(ALICE), shard.next_nonce(), [cancel_all()])
    root = shard.engine.state_root()
    for log_time_ns in (shard.now_ns, shard.now_ns - 1, 0):
        with pytest.raises(ValueError, match="time"):
            shard.engine.apply(frame, log_time_ns)
    assert shard.engine.state_root() == root


def test_malformed_frames_are_not_applied(shard: Shard) -> None:
    good = batch(public_key(ALICE), shard.next_nonce(), [cancel_all()])
    root = shard.engine.state_root()
    for bad in (good[:-1], good[:10], b"\x00\x00\x00\x00" + good[4:], Sequence().encode()):
        with pytest.raises(MalformedFrame) as caught:
            shard.engine.apply(bad, shard.now_ns + 1)
        assert caught.value.offset == 0
        assert shard.engine.state_root() == root
    with pytest.raises(MalformedFrame) as caught:
        shard.engine.apply(good + good[:-1], shard.now_ns + 1)
    assert caught.value.offset == len(good)


def test_several_frames_share_a_log_time(shard: Shard) -> None:
    frames = [batch(public_key(who), shard.next_nonce(), [cancel_all()]) for who in (ALICE, BOB)]
    applied = shard.engine.apply(memoryview(b"".join([epoch_open(1), *frames])), shard.now_ns + 5)
    reports = decode_events(applied.events)
    assert (applied.records, applied.commands) == (3, 2)
    assert [report.log_time_ns for report in reports] == [shard.now_ns + 5] * 2
    assert reports[1].record_no == reports[0].record_no + 1 == shard.engine.next_record_no - 1


def test_an_order_takes_the_lowest_free_slot(shard: Shard) -> None:
    ids = [rest(shard, ALICE, BUY, 1, price_ticks) for price_ticks in (10, 11, 12, 13)]
    shard.send(ALICE, cancel(ids[2]), cancel(ids[0]))
    new_id = rest(shard, BOB, BUY, 1, 5)
    assert slots(shard) == [new_id, ids[1], 0, ids[3]]
    shard.send(ALICE, amend(ids[3], price_ticks=20))
    assert slots(shard) == [new_id, ids[1], 0, ids[3]]
    shard.send(ALICE, cancel(ids[3]))
    assert slots(shard) == [new_id, ids[1]]


def slots(shard: Shard) -> list[int]:
    """Order ids by slot, read from the snapshot."""
    snapshot = shard.engine.snapshot()
    counts = [int.from_bytes(snapshot[8 + 8 * k : 16 + 8 * k], "little") for k in range(7)]
    entries, offset = [], 64
    for _ in range(sum(counts)):
        length = int.from_bytes(snapshot[offset : offset + 4], "little")
        entries.append(snapshot[offset + 4 : offset + 4 + length])
        offset += 4 + length
    first = sum(counts[:5])
    orders = entries[first : first + counts[5]]
    return [0 if entry == b"ZXN1" else int.from_bytes(entry[4:12], "little") for entry in orders]


def test_restored_engine_has_the_same_root_and_future(shard: Shard, engine_class: EngineClass) -> None:
    rest(shard, ALICE, BUY, 5, 100)
    rest(shard, BOB, SELL, 5, 101)
    shard.send(CAROL, order(SELL, 2, 100), nonce=800)
    snapshot, root = shard.engine.snapshot(), shard.engine.state_root()
    restored = engine_class.restore(small_genesis(), 0, snapshot)
    restored.check()
    assert (restored.snapshot(), restored.state_root()) == (snapshot, root)
    for frame in (
        batch(public_key(CAROL), 800, [cancel_all()]),
        batch(public_key(CAROL), 801, [order(BUY, 9, 200), cancel_all()]),
    ):
        shard.now_ns += 1_000
        here = bytes(shard.engine.apply(frame, shard.now_ns).events)
        assert bytes(restored.apply(frame, shard.now_ns).events) == here
        assert restored.state_root() == shard.engine.state_root()


def test_snapshots_of_another_deployment_are_refused(shard: Shard, engine_class: EngineClass) -> None:
    snapshot = shard.engine.snapshot()
    market = MarketSpec(id=7, symbol="X", base="BTC", quote="USD", tick_size="1", lot_size="1")
    other = small_genesis(markets=[market])
    with pytest.raises(SnapshotInvalid):
        engine_class.restore(other, 0, snapshot)
    for broken in (b"", snapshot[:40], snapshot[:-1], snapshot + b"\x00", b"ZXP2" + snapshot[4:]):
        with pytest.raises(SnapshotInvalid):
            engine_class.restore(small_genesis(), 0, broken)


def test_queries(shard: Shard) -> None:
    ids = [rest(shard, ALICE, BUY, 1, 100 - n, market_id=1 + n % 2) for n in range(6)]
    assert [one.order_id for one in shard.engine.open_orders(ALICE, 0, 0, 100)] == ids
    assert [one.order_id for one in shard.engine.open_orders(ALICE, 2, 0, 100)] == ids[1::2]
    assert [one.order_id for one in shard.engine.open_orders(ALICE, 0, ids[1], 2)] == ids[2:4]
    assert [one.order_id for one in shard.engine.open_orders(ALICE, 2, ids[3] - 1, 1)] == [ids[3]]
    assert [one.order_id for one in shard.engine.open_orders(ALICE, 1, ids[3] - 1, 1)] == [ids[4]]
    assert shard.engine.open_orders(14, 0, 0, 100) == []
    assert shard.engine.open_orders(BOB, 0, ids[3] - 1, 100) == []
    assert shard.engine.open_orders(ALICE, 0, 2**64 - 1, 100) == []
    assert shard.engine.balances(14) == []
    assert shard.engine.report_seq(14) == 0
    depth = shard.engine.depth(1, 2)
    bids = [(level.price_ticks, level.qty_lots, level.orders) for level in depth.bids]
    assert bids == [(100, 1, 1), (98, 1, 1)]
    with pytest.raises(KeyError):
        shard.engine.depth(9, 1)
    with pytest.raises(KeyError):
        shard.engine.market_terms(9)
    with pytest.raises(KeyError):
        shard.engine.supply(9)


def test_the_terms_of_a_market(shard: Shard) -> None:
    plain = MarketTerms(
        until_ns=0, last_ticks=0, reference_ticks=0, qty_lots_max=0, notional_max=0, orders_max=0,
        dynamic_band_ppm=0, static_band_ppm=0,
    )  # fmt: skip
    assert shard.engine.market_terms(1) == plain
    until_ns = START_NS + 3_600_000_000_000
    rest(shard, ALICE, SELL, 1, 100)
    shard.send(BOB, order(BUY, 1, 100))
    shard.operator(
        reference_price(1, 90),
        market_rules(1, qty_lots=50, amount=7_000, orders_max=4, dynamic_band_ppm=30, static_band_ppm=60),
        market_state(1, MarketState.AUCTION, until_ns),
    )
    assert shard.engine.market_terms(1) == MarketTerms(
        until_ns=until_ns, last_ticks=100, reference_ticks=90, qty_lots_max=50, notional_max=7_000,
        orders_max=4, dynamic_band_ppm=30, static_band_ppm=60,
    )  # fmt: skip
    assert shard.engine.market_terms(2) == plain


def test_the_terms_of_an_order(shard: Shard) -> None:
    rest(shard, ALICE, SELL, 1, 100)
    shard.send(BOB, order(BUY, 1, 100))
    by_ppm, by_ticks = (
        order(
            SELL, 2, 50, order_type=OrderType.MARKET, tif=TimeInForce.IOC, trigger=Trigger.TRAILING,
            stp=SelfTradePrevention.CANCEL_BOTH, **distance,
        )
        for distance in ({"trail_ppm": 50_000}, {"trigger_ticks": 7})
    )  # fmt: skip
    pair = (order(BUY, 3, 90), order(BUY, 3, 95, options=OrderOptions.OCO_WITH_PREVIOUS, tif=TimeInForce.DAY))
    entered = [
        one.order_id for one in shard.reports(BOB, by_ppm, by_ticks, *pair) if one.exec_type is ExecType.NEW
    ]
    ppm_id, ticks_id, first_id, second_id = entered
    terms = shard.engine.order_terms
    both = SelfTradePrevention.CANCEL_BOTH
    assert terms(ppm_id) == OrderTerms(trail_ppm=50_000, self_trade_prevention=both)
    assert terms(ticks_id) == OrderTerms(trail_ticks=7, self_trade_prevention=both)
    assert terms(first_id) == OrderTerms(pair_order_id=second_id)
    assert terms(second_id) == OrderTerms(pair_order_id=first_id)
    shard.send(BOB, amend(ppm_id, trail_ppm=40_000), cancel(first_id))
    assert terms(ppm_id).trail_ppm == 40_000
    assert terms(second_id) == terms(10**9) == OrderTerms(), "gone, and never there"
    # The price falls by more than their distance: they come to the book, and none of it is left.
    rest(shard, ALICE, BUY, 9, 60)
    rest(shard, ALICE, SELL, 1, 70)
    shard.send(BOB, order(BUY, 1, 70))
    assert terms(ppm_id) == terms(ticks_id) == OrderTerms()


def test_limits_that_do_not_hold_the_operators_balances_are_refused(engine_class: EngineClass) -> None:
    pairs = (("USD", "BTC"), ("BTC", "ETH"), ("BTC", "USD"))
    markets = [
        MarketSpec(id=number, symbol=f"{base}-{quote}", base=base, quote=quote, tick_size="1", lot_size="1")
        for number, (base, quote) in enumerate(pairs, start=1)
    ]
    few = EngineLimits(max_accounts=2, max_keys=2, max_balances=2, max_orders=1, max_outcomes=64)
    with pytest.raises(ValueError, match=r"limits|max_balances"):
        engine_class(small_genesis(markets=markets, engine_limits=few), 0)


def test_without_a_state_tree_there_is_no_root(engine_class: EngineClass) -> None:
    engine = engine_class(small_genesis(), 0, track_state=False)
    with pytest.raises(RuntimeError):
        engine.state_root()


def test_a_shard_knows_only_its_own_markets(engine_class: EngineClass) -> None:
    markets = [
        MarketSpec(id=1, symbol="BTC-USD", base="BTC", quote="USD", tick_size="1", lot_size="1"),
        MarketSpec(id=2, symbol="ETH-BTC", base="ETH", quote="BTC", tick_size="1", lot_size="1", shard=1),
    ]
    engine = engine_class(small_genesis(markets=markets, shards=2), 1)
    assert [balance.asset_id for balance in engine.balances(0)] == [BTC]
    closing = [market_state(market_id, MarketState.CLOSED) for market_id in (1, 2)]
    frame = batch(OPERATOR_KEY, 1, closing, 1)
    for _ in range(2):
        reports = decode_events(engine.apply(frame, engine.log_time_ns + START_NS).events)
        assert [report.shard for report in reports] == [1, 1]
        assert [report.reason for report in reports] == [ReasonCode.UNKNOWN_MARKET, ReasonCode.NONE]
    with pytest.raises(ValueError, match="shard"):
        engine_class(small_genesis(), 1)
