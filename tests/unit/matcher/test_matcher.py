"""The matcher's core: sessions, drains, what is released and when; and its way back from snapshot and log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import FakeClock, FakeStore
from tests.model import kit
from zexchange.engine import Engine
from zexchange.engine_types import Applied, MatchingEngine
from zexchange.limits import ACCOUNT_NONE
from zexchange.log import journal
from zexchange.log.archive import write_segment
from zexchange.log.journal import START, ChainState, EntryId, LogReader, decode_batch, log_key
from zexchange.log.writer import LogWriter, Retry
from zexchange.matcher import link
from zexchange.matcher.core import ANSWERS_PER_DRAIN_MAX, Batch, MatcherCore
from zexchange.matcher.link import Kind, Outbox
from zexchange.matcher.queries import RecentTrades
from zexchange.matcher.recovery import LogUnusable, recover
from zexchange.reference import ReferenceEngine
from zexchange.runtime.paths import DataPaths
from zexchange.verification.replay import Replay
from zexchange.verification.replica import Replica, StoredBatch
from zexchange.verification.snapshot import capture, write_snapshot
from zexchange.wire.framing import MAX_FRAME_BYTES_TO_CLIENT, FrameSplitter
from zexchange.wire.messages import (
    Balances,
    BalancesRequest,
    BookDepth,
    BookRequest,
    Definitions,
    DefinitionsRequest,
    Durability,
    EpochOpen,
    ExecType,
    ExecutionReport,
    GenesisRequest,
    Liquidity,
    Message,
    NotApplied,
    OpenOrders,
    OpenOrdersRequest,
    QueryReject,
    ReasonCode,
    ReportFlags,
    ShardStatus,
    ShardStatusRequest,
    Side,
    Trades,
    TradesRequest,
    WireError,
    decode,
)

GENESIS = kit.small_genesis()
ALICE, BOB, CAROL = (kit.public_key(number) for number in (1, 2, 3))
OPERATOR = kit.OPERATOR_KEY


def check_frame(frame: bytes) -> ReasonCode:
    """As the C function: none for a well-formed SignedBatch or OperatorBatch."""
    try:
        message = decode(frame)
    except WireError as error:
        return error.reason
    return ReasonCode.TEMPLATE_UNKNOWN if isinstance(message, EpochOpen) else ReasonCode.NONE


class Worker:
    """An ingress as the matcher sees it."""

    def __init__(self, shard: Shard, name: bytes, instance: int) -> None:
        self.shard = shard
        self.name = name
        self.outbox = Outbox(instance)
        self.inbox: list[link.Entry] = []
        self.expected_seq = 1
        self.acked = 0

    def send(self, kind: Kind, session_id: int = 0, payload: bytes = b"") -> Worker:
        self.outbox.add(link.entry(kind, session_id, payload))
        return self

    def flush(self) -> None:
        for message in self.outbox.take():
            self.shard.core.receive(self.name, message)

    def hear(self, message: bytes) -> None:
        decoded = link.decode(message)
        if decoded.instance == self.outbox.instance and decoded.seq:
            assert decoded.seq == self.expected_seq
            self.expected_seq += 1
            self.acked = decoded.acked
        self.inbox += decoded.entries

    def frames(self, session_id: int) -> list[Message]:
        """Frames for a session since the last call."""
        kinds = (Kind.FRAME, Kind.REPORTS)
        mine = [e.payload for e in self.inbox if e.kind in kinds and e.session_id == session_id]
        self.inbox = [e for e in self.inbox if e.kind not in kinds or e.session_id != session_id]
        return [decode(frame) for frame in FrameSplitter(MAX_FRAME_BYTES_TO_CLIENT).feed(b"".join(mine))]

    def reports(self, session_id: int) -> list[str]:
        return [kit.line(m) for m in self.frames(session_id) if isinstance(m, ExecutionReport)]

    def opened(self, session_id: int) -> tuple[int, int]:
        (payload,) = [p for kind, sid, p in self.inbox if kind == Kind.OPENED and sid == session_id]
        account_id, report_seq = link.OPENED.unpack(payload)
        return account_id, report_seq


class Shard:
    """A matcher core whose store is a list, with the checks that hold for every drain."""

    def __init__(self, engine: MatchingEngine | None = None, *, max_batch_bytes: int = 65_536) -> None:
        self.engine = engine or ReferenceEngine(GENESIS, 0, track_state=False)
        self.now_ns = kit.START_NS
        self.log: list[bytes] = []
        self.core = MatcherCore(
            self.engine,
            ChainState.genesis(GENESIS.deployment_id),
            1,
            RecentTrades(),
            accounts_max=GENESIS.limits.max_accounts,
            durability=Durability.ALWAYS,
            max_batch_bytes=max_batch_bytes,
        )
        self.workers: dict[bytes, Worker] = {}
        self.log.append(self.core.open_epoch(self.now_ns).raw)

    def worker(self, name: bytes = b"ingress-0", instance: int = 1000) -> Worker:
        worker = self.workers[name] = Worker(self, name, instance)
        return worker

    def drain(self) -> Batch | None:
        for worker in self.workers.values():
            worker.flush()
        self.now_ns += 1_000
        batch = self.core.drain(self.now_ns)
        if batch is not None:
            self.log.append(batch.raw)
        for identity, message in self.core.release():
            self.workers[identity].hear(message)
        return batch

    def run(self) -> int:
        """Drain until nothing is queued; how many batches that took."""
        before = len(self.log)
        self.drain()
        while self.core.pending:
            self.drain()
        return len(self.log) - before

    def check_log(self) -> None:
        """The log replays to the same events and the same book."""
        engine = ReferenceEngine(GENESIS, 0)
        replay = Replay(engine, ChainState.genesis(GENESIS.deployment_id))
        for raw in self.log:
            replay.apply(StoredBatch(decode_batch(raw).id, raw))
        assert engine.next_record_no == self.engine.next_record_no
        assert engine.next_seq == self.engine.next_seq


def sell(worker: Worker, session_id: int, key: bytes, nonce: int, price: int, qty: int = 1) -> None:
    worker.send(Kind.BATCH, session_id, kit.batch(key, nonce, [kit.order(Side.SELL, qty, price)]))


def buy(worker: Worker, session_id: int, key: bytes, nonce: int, price: int, qty: int = 1) -> None:
    worker.send(Kind.BATCH, session_id, kit.batch(key, nonce, [kit.order(Side.BUY, qty, price)]))


@pytest.fixture
def shard() -> Shard:
    return Shard()


@pytest.fixture
def worker(shard: Shard) -> Worker:
    """Session 1 is Alice's (account 1, 1,000 BTC), session 2 Bob's (account 2, 1,000,000 USD), 9 the
    operator's."""
    return funded(shard)


def funded(shard: Shard) -> Worker:
    worker = shard.worker()
    commands = [
        kit.open_account(ALICE, 1),
        kit.open_account(BOB, 2),
        kit.deposit(1, 2, 1_000),
        kit.deposit(2, 1, 1_000_000),
    ]
    worker.send(Kind.OPEN, 9, OPERATOR)
    worker.send(Kind.BATCH, 9, kit.batch(OPERATOR, 1, commands))
    shard.run()
    worker.send(Kind.OPEN, 1, ALICE).send(Kind.OPEN, 2, BOB)
    shard.run()
    for session_id in (1, 2, 9):
        worker.frames(session_id)
    return worker


# ------------------------------------------------ sessions and reports
# ------------------------------------------------


def test_epoch_is_opened_with_the_tip(shard: Shard) -> None:
    batch = decode_batch(shard.log[0])
    (frame,) = journal.iter_frames(batch.body)
    opening = decode(frame)
    assert isinstance(opening, EpochOpen)
    assert (opening.epoch, opening.tip_epoch, opening.tip_record_no) == (1, 0, 0)
    assert opening.tip_chain == GENESIS.deployment_id
    assert batch.id == EntryId(1, 1)


def test_session_learns_account_and_last_report(shard: Shard, worker: Worker) -> None:
    assert worker.opened(1) == (1, 1)
    worker.send(Kind.OPEN, 5, CAROL).send(Kind.OPEN, 6, ALICE)
    shard.run()
    assert worker.opened(5) == (ACCOUNT_NONE, 0)
    assert worker.opened(6) == (1, 1)


def test_reports_go_to_all_sessions_of_the_account_and_to_no_other(shard: Shard, worker: Worker) -> None:
    other = shard.worker(b"ingress-1", 5)
    other.send(Kind.OPEN, 1, ALICE)
    sell(worker, 1, ALICE, 1, 100)
    shard.run()
    buy(worker, 2, BOB, 1, 100)
    shard.run()
    first, again = worker.reports(1), other.reports(1)
    assert first[1:] == again[-1:]
    assert [text.split()[1] for text in first] == ["new", "trade"]
    assert [text.split()[1] for text in worker.reports(2)] == ["new", "trade"]
    assert worker.reports(9) == []
    shard.check_log()


def test_closed_session_gets_nothing_more(shard: Shard, worker: Worker) -> None:
    worker.send(Kind.CLOSE, 1).send(Kind.CLOSE, 1)
    sell(worker, 7, ALICE, 1, 100)
    shard.run()
    assert worker.inbox[-1][0] != Kind.FRAME
    assert shard.core.sessions == 2


def test_unknown_key_is_answered_to_the_sender_alone(shard: Shard, worker: Worker) -> None:
    worker.send(Kind.OPEN, 5, CAROL).send(Kind.OPEN, 6, CAROL)
    sell(worker, 1, ALICE, 1, 100)
    buy(worker, 5, CAROL, 1, 90)
    shard.run()
    (report,) = worker.frames(5)
    assert isinstance(report, ExecutionReport)
    assert (report.account_id, report.reason) == (ACCOUNT_NONE, ReasonCode.UNKNOWN_KEY)
    assert worker.frames(6) == []
    assert len(worker.frames(1)) == 1


def rejected(worker: Worker, session_id: int) -> list[ReasonCode]:
    found = [e.payload for e in worker.inbox if e.kind == Kind.REJECTED and e.session_id == session_id]
    return [ReasonCode(link.REJECTED.unpack(payload)[0]) for payload in found]


def test_sessions_of_one_account_are_limited_over_all_workers_and_keys(shard: Shard, worker: Worker) -> None:
    other = shard.worker(b"ingress-1", 2_000)
    worker.send(Kind.BATCH, 9, kit.batch(OPERATOR, 2, [kit.register_key(kit.public_key(8), 1)]))
    shard.run()
    there = len(shard.core._links[worker.name].sessions)
    limit = 16
    for session_id in range(100, 100 + limit - 1):  # and Alice's session 1
        worker.send(Kind.OPEN, session_id, ALICE)
    shard.run()
    assert shard.core.sessions == there + limit - 1
    other.send(Kind.OPEN, 5, ALICE).send(Kind.OPEN, 6, kit.public_key(8)).send(Kind.OPEN, 7, BOB)
    other.send(Kind.CLOSE, 5).send(Kind.CLOSE, 6)  # as an ingress does with who was not let in
    shard.run()
    assert rejected(other, 5) == rejected(other, 6) == [ReasonCode.SESSION_LIMIT]
    assert other.opened(7)[0] == 2
    assert shard.core.sessions == there + limit
    worker.send(Kind.CLOSE, 100)
    shard.run()
    other.send(Kind.OPEN, 8, kit.public_key(8)).send(Kind.OPEN, 9, ALICE)
    shard.run()
    assert other.opened(8)[0] == 1
    assert rejected(other, 9) == [ReasonCode.SESSION_LIMIT]
    shard.core.lost(worker.name)
    other.send(Kind.OPEN, 10, ALICE)
    shard.run()
    assert other.opened(10)[0] == 1


def test_sessions_of_one_key_without_an_account_are_limited(shard: Shard, worker: Worker) -> None:
    for session_id in range(100, 117):
        worker.send(Kind.OPEN, session_id, CAROL)
    worker.send(Kind.OPEN, 117, kit.public_key(8))
    shard.run()
    assert rejected(worker, 116) == [ReasonCode.SESSION_LIMIT]
    assert worker.opened(115)[0] == worker.opened(117)[0] == ACCOUNT_NONE
    worker.send(Kind.CLOSE, 100).send(Kind.OPEN, 118, CAROL)
    shard.run()
    assert worker.opened(118)[0] == ACCOUNT_NONE
    # They count for the account that the key gets.
    worker.send(Kind.BATCH, 9, kit.batch(OPERATOR, 2, [kit.open_account(CAROL, 3)]))
    shard.run()
    worker.send(Kind.OPEN, 119, CAROL)
    shard.run()
    assert rejected(worker, 119) == [ReasonCode.SESSION_LIMIT]


def test_session_is_bound_when_its_key_is_registered(shard: Shard, worker: Worker) -> None:
    worker.send(Kind.OPEN, 5, CAROL)
    shard.run()
    commands = [kit.open_account(CAROL, 3), kit.deposit(3, 1, 500)]
    worker.send(Kind.BATCH, 9, kit.batch(OPERATOR, 2, commands))
    shard.run()
    assert worker.reports(5) == ["3: deposited for 3 500 of asset 1"]
    worker.send(Kind.BATCH, 9, kit.batch(OPERATOR, 3, [kit.register_key(kit.public_key(8), 3)]))
    worker.send(Kind.OPEN, 6, kit.public_key(8))
    buy(worker, 5, CAROL, 1, 7)
    shard.run()
    shard.run()
    assert [text.split()[1] for text in worker.reports(5)] == ["new"]
    buy(worker, 5, CAROL, 2, 8)
    shard.run()
    assert len(worker.reports(5)) == len(worker.reports(6)) == 1


def test_duplicate_is_answered_with_its_original_outcome(shard: Shard, worker: Worker) -> None:
    sell(worker, 1, ALICE, 1, 100)
    shard.run()
    sell(worker, 1, ALICE, 1, 100)
    shard.run()
    first, second = worker.frames(1)
    assert isinstance(first, ExecutionReport)
    assert isinstance(second, ExecutionReport)
    assert ReportFlags.DUPLICATE in second.flags
    assert (first.seq, first.report_seq, first.order_id) == (second.seq, second.report_seq, second.order_id)
    shard.check_log()


def test_log_time_never_goes_back(shard: Shard, worker: Worker) -> None:
    sell(worker, 1, ALICE, 1, 100)
    shard.now_ns -= 3_600_000_000_000
    shard.run()
    times = [decode_batch(raw).log_time_ns for raw in shard.log]
    assert times == sorted(set(times))
    assert times[-1] == times[-2] + 1


def test_malformed_frame_never_reaches_the_engine(shard: Shard, worker: Worker) -> None:
    """An ingress has refused it; if not, one session hears of it and the others are served."""
    good = kit.batch(ALICE, 1, [kit.order(Side.SELL, 1, 100)])
    for bad in (good[:-1], EpochOpen(epoch=9).encode(), good[:121] + b"\xff" + good[122:], b""):
        worker.send(Kind.BATCH, 2, bad)
    worker.send(Kind.BATCH, 1, good)
    assert shard.run() == 1
    answers = worker.frames(2)
    assert [type(message) for message in answers] == [NotApplied] * 4
    assert len(worker.frames(1)) == 1
    shard.check_log()


# ------------------------------------------------ drains ------------------------------------------------


def test_everything_queued_becomes_one_batch(shard: Shard, worker: Worker) -> None:
    for nonce in range(1, 51):
        sell(worker, 1, ALICE, nonce, 100 + nonce)
    assert shard.run() == 1
    assert decode_batch(shard.log[-1]).count == 50
    assert len(worker.frames(1)) == 50


def test_nothing_queued_is_no_batch(shard: Shard, worker: Worker) -> None:
    assert shard.drain() is None
    assert not shard.core.pending


def test_what_does_not_fit_waits_for_the_next_drain() -> None:
    frame_bytes = len(kit.batch(ALICE, 1, [kit.order(Side.SELL, 1, 1)]))
    setup = len(kit.batch(OPERATOR, 1, [kit.open_account(ALICE, 1)] * 4))
    limit = max(3 * frame_bytes, setup) + 148
    shard = Shard(max_batch_bytes=limit)
    worker = funded(shard)
    for nonce in range(1, 11):
        sell(worker, 1, ALICE, nonce, 100 + nonce)
    per_batch = (limit - 148) // frame_bytes
    assert shard.run() == -(-10 // per_batch)
    assert all(len(raw) <= limit for raw in shard.log)
    orders = [report.nonce for report in worker.frames(1) if isinstance(report, ExecutionReport)]
    assert orders == list(range(1, 11))
    shard.check_log()


def test_full_batch_is_64_kib_at_most(shard: Shard, worker: Worker) -> None:
    frame = kit.batch(ALICE, 5_000, [kit.cancel(1)] * 64)
    count = journal.MAX_BODY_BYTES // len(frame) + 1
    for nonce in range(count):
        worker.send(Kind.BATCH, 1, kit.batch(ALICE, nonce + 1, [kit.cancel(1)] * 64))
    assert shard.run() == 2
    assert len(shard.log[-2]) <= journal.MAX_BATCH_BYTES < len(shard.log[-2]) + len(frame)
    assert decode_batch(shard.log[-1]).count == 1


class FewAtATime(ReferenceEngine):
    """An engine whose event buffer has room for two frames."""

    def apply(self, body: bytes | memoryview, log_time_ns: int) -> Applied:
        frames = list(journal.iter_frames(body))
        return super().apply(b"".join(frames[:2]), log_time_ns)


def test_frames_the_engine_has_no_room_for_keep_their_place() -> None:
    shard = Shard(FewAtATime(GENESIS, 0, track_state=False))
    worker = funded(shard)
    for nonce in range(1, 6):
        sell(worker, 1, ALICE, nonce, 100 + nonce)
        worker.send(Kind.QUERY, 2, BookRequest(request_id=nonce, market_id=1, levels=10).encode())
        worker.send(Kind.PING)
    assert shard.run() == 3
    assert [m.nonce for m in worker.frames(1) if isinstance(m, ExecutionReport)] == [1, 2, 3, 4, 5]
    answers = [message for message in worker.frames(2) if isinstance(message, BookDepth)]
    assert [answer.request_id for answer in answers] == [1, 2, 3, 4, 5]
    assert all(len(answer.asks) >= answer.request_id for answer in answers)
    assert sum(kind == Kind.PONG for kind, _, _ in worker.inbox) == 5
    shard.check_log()


# ------------------------------------------------ queries ------------------------------------------------


def test_query_sees_what_its_session_sent_before_and_nothing_after(shard: Shard, worker: Worker) -> None:
    ask = BalancesRequest(request_id=1, shard=0).encode()
    sell(worker, 1, ALICE, 1, 100, qty=10)
    worker.send(Kind.QUERY, 1, ask)
    sell(worker, 1, ALICE, 2, 100, qty=10)
    worker.send(Kind.QUERY, 1, ask)
    assert shard.run() == 2
    held = []
    for message in worker.frames(1):
        if isinstance(message, Balances):
            held.append({balance.asset_id: balance.held for balance in message.balances}[2])
        else:
            held.append(-1)
    assert held == [-1, 10, -1, 20]


def test_queries_of_others_do_not_split_the_batch(shard: Shard, worker: Worker) -> None:
    for nonce in range(1, 11):
        sell(worker, 1, ALICE, nonce, 100 + nonce)
        worker.send(Kind.QUERY, 2, BookRequest(request_id=nonce, market_id=1, levels=5).encode())
    assert shard.run() == 1
    assert len(worker.frames(2)) == 10


def test_answer_is_released_with_the_batch_whose_state_it_shows(shard: Shard, worker: Worker) -> None:
    """Whoever holds a drain's releases back until its batch is stored shows nobody what could still be
    lost."""
    sell(worker, 1, ALICE, 1, 100)
    worker.send(Kind.QUERY, 2, BookRequest(request_id=1, market_id=1, levels=5).encode())
    worker.flush()
    batch = shard.core.drain(shard.now_ns + 1)
    assert batch is not None
    for _, message in shard.core.release():
        worker.hear(message)
    (answer,) = worker.frames(2)
    assert isinstance(answer, BookDepth)
    assert answer.next_record_no == decode_batch(batch.raw).next_record_no
    assert len(answer.asks) == 1


def test_queries_alone_make_no_batch_and_are_bounded_per_drain(shard: Shard, worker: Worker) -> None:
    for number in range(ANSWERS_PER_DRAIN_MAX + 5):
        worker.send(Kind.QUERY, 1, ShardStatusRequest(request_id=number, shard=0).encode())
    assert shard.drain() is None
    assert shard.core.pending
    assert len(worker.frames(1)) == ANSWERS_PER_DRAIN_MAX
    assert shard.run() == 0
    assert len(worker.frames(1)) == 5


def test_all_queries_are_answered(shard: Shard, worker: Worker) -> None:
    sell(worker, 1, ALICE, 1, 100, qty=10)
    buy(worker, 2, BOB, 1, 100, qty=4)
    sell(worker, 1, ALICE, 2, 101, qty=5)
    shard.run()
    worker.frames(1)
    for query in (
        OpenOrdersRequest(request_id=1, shard=0, market_id=1, limit=1),
        OpenOrdersRequest(request_id=2, shard=0, market_id=0, limit=500, after_order_id=0),
        BookRequest(request_id=3, market_id=1, levels=1),
        TradesRequest(request_id=4, market_id=1, limit=500),
        ShardStatusRequest(request_id=5, shard=0),
    ):
        worker.send(Kind.QUERY, 1, query.encode())
    shard.run()
    page, orders, book, trades, status = worker.frames(1)
    assert isinstance(page, OpenOrders)
    assert isinstance(orders, OpenOrders)
    assert isinstance(book, BookDepth)
    assert isinstance(trades, Trades)
    assert isinstance(status, ShardStatus)
    assert [order.leaves_lots for order in orders.orders] == [6, 5]
    assert page.orders == orders.orders[:1]
    assert [(level.price_ticks, level.qty_lots, level.orders) for level in book.asks] == [(100, 6, 1)]
    assert [(t.price_ticks, t.qty_lots, t.taker_side, t.trade_id) for t in trades.trades] == [
        (100, 4, Side.BUY, 1)
    ]
    assert (status.epoch, status.open_orders, status.accounts, status.trades) == (1, 2, 3, 1)
    assert status.next_record_no == shard.engine.next_record_no == trades.next_record_no


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (BalancesRequest(request_id=7, shard=0), ReasonCode.UNKNOWN_KEY),
        (OpenOrdersRequest(request_id=7, shard=0, limit=5), ReasonCode.UNKNOWN_KEY),
        (BookRequest(request_id=7, market_id=9, levels=5), ReasonCode.UNKNOWN_MARKET),
        (TradesRequest(request_id=7, market_id=9, limit=5), ReasonCode.UNKNOWN_MARKET),
        (BookRequest(request_id=7, market_id=1, levels=501), ReasonCode.QUERY_LIMIT_INVALID),
        (TradesRequest(request_id=7, market_id=1, limit=0), ReasonCode.QUERY_LIMIT_INVALID),
        (ShardStatusRequest(request_id=7, shard=1), ReasonCode.SHARD_UNKNOWN),
    ],
)
def test_query_that_cannot_be_answered_is_refused(
    shard: Shard, worker: Worker, query: BookRequest, reason: ReasonCode
) -> None:
    worker.send(Kind.OPEN, 5, CAROL).send(Kind.QUERY, 5, query.encode())
    shard.run()
    assert worker.frames(5) == [QueryReject(request_id=7, reason=reason)]


def test_public_queries_need_no_account(shard: Shard, worker: Worker) -> None:
    worker.send(Kind.OPEN, 5, CAROL)
    for query in (
        BookRequest(request_id=1, market_id=1, levels=5),
        TradesRequest(request_id=2, market_id=1, limit=5),
        ShardStatusRequest(request_id=3, shard=0),
    ):
        worker.send(Kind.QUERY, 5, query.encode())
    shard.run()
    assert [type(message) for message in worker.frames(5)] == [BookDepth, Trades, ShardStatus]


def test_query_of_a_known_account_in_an_unknown_market_is_refused(shard: Shard, worker: Worker) -> None:
    worker.send(Kind.QUERY, 1, OpenOrdersRequest(request_id=1, shard=0, market_id=9, limit=5).encode())
    worker.send(Kind.QUERY, 1, GenesisRequest(request_id=1).encode())
    worker.send(Kind.QUERY, 1, b"garbage")
    worker.send(Kind.QUERY, 77, ShardStatusRequest(request_id=1).encode())
    shard.run()
    refused, *others = worker.frames(1)
    assert refused == QueryReject(request_id=1, reason=ReasonCode.UNKNOWN_MARKET)
    assert [type(message) for message in others] == [NotApplied, NotApplied]


def test_recent_trades_are_bounded_and_newest_first() -> None:
    trades = RecentTrades(limit=3)
    for number in range(1, 6):
        maker, taker = (
            ExecutionReport(
                exec_type=ExecType.TRADE, liquidity=liquidity, side=Side.SELL, market_id=1, trade_id=number
            )
            for liquidity in (Liquidity.MAKER, Liquidity.TAKER)
        )
        trades.observe(maker.encode()[14:] + taker.encode()[14:])
    assert [trade.trade_id for trade in trades.newest(1, 10)] == [5, 4, 3]
    assert [trade.trade_id for trade in trades.newest(1, 1)] == [5]


def test_trades_of_other_sizes_are_not_listed() -> None:
    def trade(number: int, market_id: int) -> bytes:
        report = ExecutionReport(
            exec_type=ExecType.TRADE,
            liquidity=Liquidity.TAKER,
            side=Side.SELL,
            market_id=market_id,
            trade_id=number,
        )
        return report.encode()[14:]

    trades = RecentTrades()
    resized = ExecutionReport(exec_type=ExecType.MARKET_SIZES_SET, market_id=1).encode()[14:]
    trades.observe(trade(1, 1) + trade(2, 2) + resized + trade(3, 1) + resized + trade(4, 1) + trade(5, 2))
    assert [one.trade_id for one in trades.newest(1, 10)] == [4]
    assert [one.trade_id for one in trades.newest(2, 10)] == [5, 2]
    trades.observe(resized)
    assert trades.newest(1, 10) == []


def test_definitions_are_told_in_pages(shard: Shard, worker: Worker) -> None:
    for number in (5, 6, 7):
        added = [kit.add_asset(number, f"A{number}"), kit.add_market(number, f"M{number}", number, 1)]
        worker.send(Kind.BATCH, 9, kit.batch(OPERATOR, number, added))
        shard.run()

    def ask(since_record_no: int, first_asset: int, first_market: int, limit: int) -> Definitions:
        query = DefinitionsRequest(
            request_id=1,
            since_record_no=since_record_no,
            first_asset=first_asset,
            first_market=first_market,
            limit=limit,
        )
        worker.send(Kind.QUERY, 1, query.encode())
        shard.run()
        (answer,) = worker.frames(1)
        assert isinstance(answer, Definitions)
        return answer

    genesis_assets = len(shard.engine.assets(0, 99)) - 3
    page = ask(1, genesis_assets, 0, 2)
    assert [one.asset_id for one in page.assets] == [5, 6]
    assert [one.market_id for one in page.markets] == [5, 6]
    assert page.next_asset == genesis_assets + 2
    last = ask(1, page.next_asset, page.next_market, 2)
    assert ([one.asset_id for one in last.assets], [one.market_id for one in last.markets]) == ([7], [7])
    assert (last.next_asset, last.next_market) == (0, 0)
    since = last.markets[0].defined_record_no
    assert [one.market_id for one in ask(since, 0, 0, 500).markets] == [7]
    assert ask(last.next_record_no, 2**32 - 1, 2**32 - 1, 500).markets == []


# ------------------------------------------------ links ------------------------------------------------


def test_ping_is_answered_with_the_epoch_and_acknowledges(shard: Shard, worker: Worker) -> None:
    worker.send(Kind.PING)
    shard.run()
    assert (Kind.PONG, 0, link.PONG.pack(1)) in worker.inbox
    assert worker.acked == worker.outbox.next_seq - 1


def test_link_the_matcher_does_not_know_is_told(shard: Shard) -> None:
    worker = shard.worker(b"ingress-3", 50)
    worker.outbox.next_seq = 7
    worker.send(Kind.OPEN, 1, ALICE)
    shard.run()
    assert worker.inbox == [(Kind.UNKNOWN, 0, b"")]
    assert shard.core.sessions == 0


def test_gap_in_a_link_ends_its_sessions(shard: Shard, worker: Worker) -> None:
    worker.outbox.next_seq += 1
    sell(worker, 1, ALICE, 1, 100)
    assert shard.run() == 0
    assert worker.inbox[-1][0] == Kind.UNKNOWN
    assert shard.core.sessions == 0


def test_ingress_that_begins_anew_replaces_its_old_sessions(shard: Shard, worker: Worker) -> None:
    sell(worker, 1, ALICE, 1, 100)
    worker.flush()
    fresh = shard.worker(worker.name, 2_000)
    fresh.send(Kind.OPEN, 1, BOB)
    shard.run()
    assert shard.core.sessions == 1
    assert fresh.opened(1) == (2, 1)
    assert fresh.frames(1) == []


def test_ingress_that_is_gone_is_forgotten(shard: Shard, worker: Worker) -> None:
    shard.core.lost(worker.name)
    shard.core.lost(b"never seen")
    assert shard.core.sessions == 0
    sell(worker, 1, ALICE, 1, 100)
    assert shard.run() == 0


def test_message_that_cannot_be_read_changes_nothing(shard: Shard, worker: Worker) -> None:
    with pytest.raises(link.LinkMessageInvalid):
        shard.core.receive(worker.name, b"?")
    sell(worker, 1, ALICE, 1, 100)
    assert shard.run() == 1


# ------------------------------------------------ recovery ------------------------------------------------


@pytest.fixture(params=["reference", "c"])
def engine_class(request: pytest.FixtureRequest) -> kit.EngineClass:
    return kit.engine_named(request.param)


def store_of(shard: Shard) -> FakeStore:
    """The shard's log in a store, with the marker of the next epoch."""
    store = FakeStore()
    store.execute_command("XADD", log_key(0), "1-0", "m", b"1")
    for raw in shard.log:
        store.execute_command("XADD", log_key(0), str(decode_batch(raw).id), "b", raw)
    clock = FakeClock()
    LogWriter(store, 0, Retry(clock_ms=clock.ms, pause_ms=clock.pause_ms)).take_over()
    return store


def traded() -> Shard:
    shard = Shard()
    worker = funded(shard)
    for nonce in range(1, 6):
        sell(worker, 1, ALICE, nonce, 100 + nonce, qty=3)
        shard.run()
        buy(worker, 2, BOB, nonce, 100 + nonce, qty=1)
        shard.run()
    return shard


def replica_at(shard: Shard, batches: int) -> Replica:
    replica = Replica.at_genesis(GENESIS, 0, ReferenceEngine, None)
    replica.apply(StoredBatch(decode_batch(raw).id, raw) for raw in shard.log[:batches])
    return replica


@pytest.mark.parametrize("snapshot_after", [None, 5])
def test_memory_is_made_ready_before_the_log_is_replayed(
    paths: DataPaths, monkeypatch: pytest.MonkeyPatch, snapshot_after: int | None
) -> None:
    shard = traded()
    if snapshot_after is not None:
        write_snapshot(paths, *capture(replica_at(shard, snapshot_after)))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        Engine, "make_ready", lambda engine, orders: asked.append((orders, engine.next_record_no))
    )
    recover(paths, GENESIS, 0, Engine, store_of(shard), EntryId(2, 0), ready_orders=77)
    [(orders, record_no)] = asked
    assert orders == 77
    assert record_no < shard.engine.next_record_no


@pytest.mark.parametrize("snapshot_after", [None, 1, 5, 12])
def test_state_is_back_from_snapshot_and_log(
    paths: DataPaths, engine_class: kit.EngineClass, snapshot_after: int | None
) -> None:
    shard = traded()
    if snapshot_after is not None:
        write_snapshot(paths, *capture(replica_at(shard, snapshot_after)))
    found = recover(paths, GENESIS, 0, engine_class, store_of(shard), EntryId(2, 0))
    assert found.engine.snapshot() == shard.engine.snapshot()
    assert found.state.chain == decode_batch(shard.log[-1]).chain_after
    assert found.state.epoch == 1
    assert (found.state.next_record_no, found.state.next_seq) == (
        shard.engine.next_record_no,
        shard.engine.next_seq,
    )
    if snapshot_after is None:
        assert len(found.trades.newest(1, 500)) == 5


def test_trimmed_log_without_archive_needs_the_snapshot(
    paths: DataPaths, engine_class: kit.EngineClass
) -> None:
    shard = traded()
    store = store_of(shard)
    cut = decode_batch(shard.log[5])
    store.execute_command("XTRIM", log_key(0), "MINID", str(cut.id))
    with pytest.raises(LogUnusable, match="missing"):
        recover(paths, GENESIS, 0, engine_class, store, EntryId(2, 0))
    write_snapshot(paths, *capture(replica_at(shard, 6)))
    found = recover(paths, GENESIS, 0, engine_class, store, EntryId(2, 0))
    assert found.engine.snapshot() == shard.engine.snapshot()


def archived(paths: DataPaths, shard: Shard, batches: int) -> Path:
    stored = [StoredBatch(decode_batch(raw).id, raw) for raw in shard.log[:batches]]
    return write_segment(paths, 0, stored).path


@pytest.mark.parametrize("snapshot_after", [None, 1, 3])
def test_what_was_trimmed_comes_from_the_archive(
    paths: DataPaths, engine_class: kit.EngineClass, snapshot_after: int | None
) -> None:
    """With no snapshot, or only old ones, the shard comes back all the same."""
    shard = traded()
    store = store_of(shard)
    archived(paths, shard, 6)
    store.execute_command("XTRIM", log_key(0), "MINID", str(decode_batch(shard.log[5]).id))
    if snapshot_after is not None:
        write_snapshot(paths, *capture(replica_at(shard, snapshot_after)))
    found = recover(paths, GENESIS, 0, engine_class, store, EntryId(2, 0))
    assert found.engine.snapshot() == shard.engine.snapshot()
    assert found.state.chain == decode_batch(shard.log[-1]).chain_after


def test_damaged_archive_stops_the_shard(paths: DataPaths, engine_class: kit.EngineClass) -> None:
    shard = traded()
    store = store_of(shard)
    segment = archived(paths, shard, 6)
    store.execute_command("XTRIM", log_key(0), "MINID", str(decode_batch(shard.log[5]).id))
    content = bytearray(segment.read_bytes())
    for offset in (5, len(content) // 2):
        segment.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
        with pytest.raises(LogUnusable, match="replayed"):
            recover(paths, GENESIS, 0, engine_class, store, EntryId(2, 0))


@pytest.mark.parametrize("content", [b"{", b'{"size":1,"root":"00","leaf":"00"}'])
def test_without_knowing_what_was_signed_nobody_trades(
    paths: DataPaths, engine_class: kit.EngineClass, content: bytes
) -> None:
    """A damaged file says so once; it is no reason to start again and again."""
    shard = traded()
    paths.last_signed.write_bytes(content)
    with pytest.raises(LogUnusable, match="not known"):
        recover(paths, GENESIS, 0, engine_class, store_of(shard), EntryId(2, 0))


def test_log_that_went_backwards_is_refused(paths: DataPaths, engine_class: kit.EngineClass) -> None:
    shard = traded()
    write_snapshot(paths, *capture(replica_at(shard, len(shard.log))))
    del shard.log[-1]
    with pytest.raises(LogUnusable, match="backwards"):
        recover(paths, GENESIS, 0, engine_class, store_of(shard), EntryId(2, 0))


def test_log_of_another_past_is_refused(paths: DataPaths, engine_class: kit.EngineClass) -> None:
    """As many records as the snapshot knows, but others."""
    shard, other = traded(), Shard()
    other.now_ns += 7
    funded(other)
    while other.engine.next_record_no < shard.engine.next_record_no:
        other.workers[b"ingress-0"].send(
            Kind.BATCH, 1, kit.batch(ALICE, other.engine.next_record_no, [kit.cancel(1)])
        )
        other.run()
    write_snapshot(paths, *capture(replica_at(shard, len(shard.log))))
    with pytest.raises(LogUnusable, match="another record"):
        recover(paths, GENESIS, 0, engine_class, store_of(other), EntryId(2, 0))


def test_damaged_dropped_and_swapped_batches_stop_the_shard(
    paths: DataPaths, engine_class: kit.EngineClass
) -> None:
    shard = traded()
    raws = shard.log
    flipped = bytearray(raws[4])
    flipped[200] ^= 1
    batch = decode_batch(raws[0])
    lying = journal.encode_batch(
        shard=0,
        epoch=1,
        first_record_no=1,
        first_seq=1,
        count=1,
        log_time_ns=batch.log_time_ns,
        chain_before=batch.chain_before,
        body=batch.body,
        events_hash=bytes(32),
    )
    with pytest.raises(journal.BatchInvalid, match="other events"):
        Replay(engine_class(GENESIS, 0), ChainState.genesis(GENESIS.deployment_id)).apply(
            StoredBatch(decode_batch(lying).id, lying)
        )
    store = store_of(shard)
    store.replace(log_key(0), str(decode_batch(raws[4]).id), b"b", bytes(flipped))
    with pytest.raises(LogUnusable):
        recover(paths, GENESIS, 0, engine_class, store, EntryId(2, 0))
    store = store_of(shard)
    del store.streams[log_key(0)][4]
    with pytest.raises(LogUnusable, match="expected"):
        recover(paths, GENESIS, 0, engine_class, store, EntryId(2, 0))


def test_replay_stops_when_asked_and_needs_its_marker(
    paths: DataPaths, engine_class: kit.EngineClass
) -> None:
    shard = traded()
    store = store_of(shard)
    with pytest.raises(InterruptedError):
        recover(paths, GENESIS, 0, engine_class, store, EntryId(2, 0), stopping=lambda: True)
    with pytest.raises(LogUnusable, match="marker"):
        recover(paths, GENESIS, 0, engine_class, store, EntryId(3, 0))


def test_second_life_continues_the_first(paths: DataPaths, engine_class: kit.EngineClass) -> None:
    shard = traded()
    store = store_of(shard)
    found = recover(paths, GENESIS, 0, engine_class, store, EntryId(2, 0))
    core = MatcherCore(
        found.engine,
        found.state,
        2,
        found.trades,
        accounts_max=GENESIS.limits.max_accounts,
        durability=Durability.ALWAYS,
    )
    opening = core.open_epoch(shard.now_ns)
    store.execute_command("XADD", log_key(0), f"2-{opening.first_record_no}", "b", opening.raw)
    batches = [entry.batch for entry in LogReader(store, 0).read(START, 1_000) if entry.batch is not None]
    replica = Replica.at_genesis(GENESIS, 0, ReferenceEngine, None)
    replica.apply(StoredBatch(batch.id, batch.raw) for batch in batches)
    assert replica.position.epoch == 2
