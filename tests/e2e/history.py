"""What traders know and what the log says: the history of a run on the clients' side, and the judge of it.

A `Trader` is a thread with one account, on raw sessions: it keeps a window of signed batches in flight,
writes down what it was told, and comes back after every lost session and sends again what was not answered.
For each batch it knows one of three things:

    acknowledged   at least one report of it came: it must be in the log, applied once, with that result
    refused        it was sent once and answered with NotApplied: it must not be in the log
    unknown        no answer: it may be in the log; after it was sent again there is exactly one outcome

`Market.judge` decides from the histories and the log alone, which it replays from genesis.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter

import msgspec
from nacl.signing import SigningKey

from tests.e2e.conftest import Exchange
from zexchange.config import Config
from zexchange.engine import Engine
from zexchange.genesis import load_genesis
from zexchange.limits import EXECUTION_REPORT_BYTES, QUERY_LIMIT_MAX
from zexchange.log.history import LogHistory
from zexchange.log.journal import LogBatch, decode_batch, iter_frames
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.store import open_store
from zexchange.wire.messages import (
    Balance,
    Balances,
    BalancesRequest,
    Command,
    CommandKind,
    ExecutionReport,
    Message,
    NotApplied,
    OpenOrder,
    OpenOrders,
    OpenOrdersRequest,
    OrderOptions,
    OrderType,
    ReasonCode,
    ReportFlags,
    SelfTradePrevention,
    Side,
    SignedBatch,
    TimeInForce,
)
from zexchange.wire.session import ClientSession, Established, MessageReceived, SessionEnded, SessionSettings
from zexchange.wire.signing import sign_batch

WINDOW = 8
"""Batches in flight of one trader."""
SOCKET_TIMEOUT_S = 60.0
PAUSE_S = 0.01
"""Between two tries to connect, and after a refusal because the exchange is busy."""
MARKET_ID = 1


class Sent(msgspec.Struct):
    """One signed batch, as its sender knows it."""

    frame: bytes
    commands: int
    sends: int = 0
    acknowledged: bool = False
    complete: bool = False
    refused: bool = False


class SessionLost(Exception):
    """The session is over, by whichever side."""


class Session:
    """One logon of one key over a blocking socket."""

    def __init__(self, address: tuple[str, int], key: SigningKey) -> None:
        self._session = ClientSession(
            SessionSettings(heartbeat_interval_ms=60_000), key=key, deployment_id=None, now_ms=0
        )
        try:
            self._socket = socket.create_connection(address, timeout=SOCKET_TIMEOUT_S)
        except OSError as error:
            raise SessionLost(str(error)) from error
        self._messages: list[Message] = []
        try:
            while self._session.ack is None:
                self.send(self._session.take_output())
                self._messages += self._events()
        except BaseException:
            self._socket.close()
            raise
        self.deployment_id = self._session.deployment_id or b""
        self.report_seq = self._session.ack.shards[0].report_seq

    def send(self, data: bytes) -> None:
        """Raises SessionLost."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise SessionLost(str(error)) from error

    def receive(self) -> list[Message]:
        """What came next, at least one message. Raises SessionLost."""
        while not self._messages:
            self._messages += self._events()
        messages, self._messages = self._messages, []
        return messages

    def close(self) -> None:
        self._socket.close()

    def _events(self) -> list[Message]:
        try:
            data = self._socket.recv(65_536)
        except OSError as error:
            raise SessionLost(str(error)) from error
        if not data:
            raise SessionLost("closed")
        messages: list[Message] = []
        for frame in self._session.feed(data, 0):
            event = self._session.receive(frame, 0)
            if isinstance(event, MessageReceived):
                messages.append(event.message)
            elif isinstance(event, SessionEnded) and not messages:
                raise SessionLost(event.reason.name)
            elif isinstance(event, SessionEnded):
                break  # what came before counts; the next read finds the end of the stream
            else:
                assert event is None or isinstance(event, Established)
        return messages


class Trader(threading.Thread):
    """One account that trades until it is told to finish; then it has no open question left."""

    def __init__(self, exchange: Exchange, name: str, account_id: int, seed: int) -> None:
        super().__init__(name=name)
        self.key = exchange.key(name)
        self.account_id = account_id
        self.sent: dict[int, Sent] = {}
        self.reports: list[ExecutionReport] = []
        self.duplicates: list[ExecutionReport] = []
        self.sessions = 0
        self.resent = 0
        self.failure: BaseException | None = None
        self.changed = threading.Condition()
        self.acknowledged = 0
        self._address = exchange.address
        self._random = random.Random(seed)
        self._finish = threading.Event()
        self._pause = threading.Event()
        self._nonce = time.time_ns() // 1000
        self._in_flight: list[int] = []
        self._again: list[int] = []
        self._seen_report_seq = 0
        self._busy = False

    def finish(self) -> None:
        """Send nothing new, settle what is open, and end."""
        self._finish.set()

    def run(self) -> None:
        try:
            while not self._is_done():
                try:
                    self._one_session()
                except SessionLost:
                    self._again = sorted({*self._again, *self._in_flight})
                    self._in_flight = []
                    self._pause.wait(PAUSE_S)
        except BaseException as error:
            self.failure = error
        finally:
            with self.changed:
                self.changed.notify_all()

    def _is_done(self) -> bool:
        return self._finish.is_set() and not self._again and not self._in_flight

    def _one_session(self) -> None:
        session = Session(self._address, self.key)
        try:
            self.sessions += 1
            # Numbers go on where they were: nothing that we were told of is undone.
            assert session.report_seq >= self._seen_report_seq, "reports that were seen are gone"
            self._seen_report_seq = session.report_seq
            while True:
                self._fill(session)
                if not self._in_flight:
                    return
                for message in session.receive():
                    self._take(message)
                if self._busy:
                    self._busy = False
                    self._pause.wait(PAUSE_S)
        finally:
            session.close()

    def _fill(self, session: Session) -> None:
        while len(self._in_flight) < WINDOW:
            if self._again:
                nonce = self._again.pop(0)
                self.resent += 1
            elif self._finish.is_set():
                return
            else:
                nonce = self._new_batch(session.deployment_id)
            self._in_flight.append(nonce)
            self.sent[nonce].sends += 1
            session.send(self.sent[nonce].frame)

    def _take(self, message: Message) -> None:
        if isinstance(message, ExecutionReport):
            self._report(message)
        elif isinstance(message, NotApplied):
            assert message.reason is ReasonCode.SERVER_BUSY, message
            self._busy = True
            self._in_flight.remove(message.nonce)
            sent = self.sent[message.nonce]
            if sent.sends == 1:
                sent.refused = True
            else:
                self._again.append(message.nonce)
        else:
            raise AssertionError(f"unexpected {message}")

    def _report(self, report: ExecutionReport) -> None:
        assert report.account_id == self.account_id
        if ReportFlags.DUPLICATE in report.flags:
            self.duplicates.append(report)
        else:
            self.reports.append(report)
            if report.report_seq:
                # Within a session no report is missing, and none comes twice.
                assert report.report_seq == self._seen_report_seq + 1, "a report was lost or came twice"
                self._seen_report_seq = report.report_seq
        if report.nonce not in self._in_flight:
            return
        sent = self.sent[report.nonce]
        if not sent.acknowledged:
            sent.acknowledged = True
            with self.changed:
                self.acknowledged += 1
                self.changed.notify_all()
        if report.command_index == sent.commands - 1:
            sent.complete = True
            self._in_flight.remove(report.nonce)

    def _new_batch(self, deployment_id: bytes) -> int:
        self._nonce += 1
        commands = [self._command() for _ in range(self._random.choice((1, 1, 1, 2, 5)))]
        batch = SignedBatch(nonce=self._nonce, commands=commands)
        self.sent[self._nonce] = Sent(sign_batch(batch, self.key, deployment_id), len(commands))
        return self._nonce

    def _command(self) -> Command:
        draw = self._random
        if draw.random() < 0.25 and self.reports:
            return Command(kind=CommandKind.CANCEL, order_id=draw.choice(self.reports[-50:]).order_id or 1)
        if draw.random() < 0.01:
            return Command(kind=CommandKind.CANCEL_ALL)
        return Command(
            kind=CommandKind.NEW,
            side=draw.choice((Side.BUY, Side.SELL)),
            order_type=OrderType.LIMIT,
            time_in_force=draw.choice((TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC)),
            self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
            options=OrderOptions.NONE,
            market_id=MARKET_ID,
            price_ticks=10_000 + draw.randint(-5, 5),
            qty_lots=draw.randint(1, 9),
        )


class Market:
    """Traders with money, and what they were told; see the module.

    with Market(exchange) as market:
        market.wait_for(100)            # batches acknowledged from now on, of each trader
        ...                             # harm
    market.judge()
    """

    def __init__(self, exchange: Exchange, traders: int = 3) -> None:
        self._exchange = exchange
        self.traders = [
            Trader(exchange, name, exchange.account(name, USD="10000", BTC="1"), seed)
            for seed, name in enumerate(("alice", "bob", "carol")[:traders])
        ]

    def __enter__(self) -> Market:
        for trader in self.traders:
            trader.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        for trader in self.traders:
            trader.finish()
        for trader in self.traders:
            trader.join()

    def wait_for(self, more: int) -> None:
        """Return when so many more batches of every trader were acknowledged."""
        wanted = {trader: trader.acknowledged + more for trader in self.traders}
        for trader, count in wanted.items():
            with trader.changed:
                trader.changed.wait_for(lambda: trader.acknowledged >= count or trader.failure)  # noqa: B023
            if trader.failure is not None:
                raise trader.failure

    @property
    def resent(self) -> int:
        """Batches sent again because their outcome was unknown."""
        return sum(trader.resent for trader in self.traders)

    def judge(self) -> None:
        """Compare every history with the log, and the state that the log gives with what the exchange says
        now."""
        for trader in self.traders:
            if trader.failure is not None:
                raise trader.failure
        log = Replayed(self._exchange.running.paths)
        for trader in self.traders:
            _judge(trader, log)
            session = Session(self._exchange.address, trader.key)
            try:
                assert session.report_seq == log.engine.report_seq(trader.account_id)
                assert _balances(session) == log.engine.balances(trader.account_id)
                found = _open_orders(session)
                assert found == log.engine.open_orders(trader.account_id, 0, 0, len(found) + 1)
            finally:
                session.close()


class Replayed:
    """The log of shard 0, redone from genesis."""

    def __init__(self, paths: DataPaths) -> None:
        self.engine = Engine(load_genesis(paths.genesis), 0, track_state=False)
        self.records: dict[bytes, list[int]] = {}
        """By frame, the records that hold it."""
        self.applied: set[int] = set()
        """Records that were no duplicates."""
        self.events: Counter[bytes] = Counter()
        self.originals: dict[tuple[int, int], ExecutionReport] = {}
        """By account and report number."""
        client = open_store(paths, Config())
        try:
            for chunk in LogHistory(paths, client, 0).chunks(1, 0):
                for stored in chunk:
                    self._apply(decode_batch(stored.raw, shard=0))
        finally:
            client.close()

    def _apply(self, batch: LogBatch) -> None:
        for record_no, frame in enumerate(iter_frames(batch.body), batch.first_record_no):
            self.records.setdefault(frame, []).append(record_no)
        events = self.engine.apply(batch.body, batch.log_time_ns).events
        for offset in range(0, len(events), EXECUTION_REPORT_BYTES):
            block = bytes(events[offset : offset + EXECUTION_REPORT_BYTES])
            report = ExecutionReport.decode_block(block)
            self.events[block] += 1
            if ReportFlags.DUPLICATE not in report.flags:
                self.applied.add(report.record_no)
                self.originals[report.account_id, report.report_seq] = report


def _judge(trader: Trader, log: Replayed) -> None:
    told = Counter(report.encode_block() for report in (*trader.reports, *trader.duplicates))
    assert not told - log.events, "the trader was told of something that is not in the log"
    for sent in trader.sent.values():
        records = log.records.get(sent.frame, [])
        assert len(records) <= sent.sends
        applied = sum(record_no in log.applied for record_no in records)
        assert sent.acknowledged is not sent.refused, "a batch is left without an outcome"
        assert applied == (1 if sent.acknowledged else 0)
        assert sent.acknowledged or not records
    for again in trader.duplicates:
        first = log.originals[again.account_id, again.report_seq]
        for field in ("seq", "record_no", "nonce", "command_index", "exec_type", "reason", "order_id"):
            assert getattr(again, field) == getattr(first, field), field


def _balances(session: Session) -> list[Balance]:
    session.send(BalancesRequest(request_id=1).encode())
    (answer,) = session.receive()
    assert isinstance(answer, Balances)
    return answer.balances


def _open_orders(session: Session) -> list[OpenOrder]:
    orders: list[OpenOrder] = []
    while True:
        after_order_id = orders[-1].order_id if orders else 0
        query = OpenOrdersRequest(request_id=2, after_order_id=after_order_id, limit=QUERY_LIMIT_MAX)
        session.send(query.encode())
        (answer,) = session.receive()
        assert isinstance(answer, OpenOrders)
        orders += answer.orders
        if len(answer.orders) < QUERY_LIMIT_MAX:
            return orders
