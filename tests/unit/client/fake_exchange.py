"""An exchange in memory for tests of the client: server sessions of the wire package around the reference engine.

`FakeExchange` is pure: `connect`, `receive`, `output`, `hang_up`. `Served` puts it behind socket pairs for the
threaded client. Faults are armed by tests: `drop_next = "before" | "after"` breaks the connection that brings the next
batch, before or after it is applied; `refuse_next` answers the next batches with NotApplied; `mute` swallows what
would be sent.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable

from nacl.signing import SigningKey

from zexchange.genesis import AssetSpec, EngineLimits, Genesis, MarketSpec, build_genesis, parse_genesis
from zexchange.limits import ACCOUNT_NONE, EXECUTION_REPORT_BYTES
from zexchange.matcher.queries import QueryDesk, RecentTrades
from zexchange.reference import ReferenceEngine
from zexchange.wire.messages import (
    Durability,
    ExecutionReport,
    GenesisRequest,
    Message,
    QueryReject,
    ReasonCode,
    ShardSession,
    execution_report_frame_prefix,
)
from zexchange.wire.messages import Genesis as GenesisAnswer
from zexchange.wire.session import (
    BatchReceived,
    EstablishRequested,
    QueryReceived,
    RemoteProtocolError,
    ServerSession,
    SessionEnded,
    SessionSettings,
)
from zexchange.wire.signing import verify_batch

OPERATOR = SigningKey(bytes([1]) * 32)
SETTLEMENT = SigningKey(bytes([2]) * 32)
ALICE = SigningKey(bytes([3]) * 32)
BOB = SigningKey(bytes([4]) * 32)
START_NS = 1_700_000_000_000_000_000


def small_genesis(fees: tuple[int, int] = (0, 0)) -> Genesis:
    """Two markets on one shard, with small tables."""
    raw = build_genesis(
        "test",
        bytes(OPERATOR.verify_key),
        bytes(SETTLEMENT.verify_key),
        assets=[
            AssetSpec(id=1, symbol="USD", decimals=6),
            AssetSpec(id=2, symbol="BTC", decimals=8),
            AssetSpec(id=3, symbol="AAPL", decimals=0),
        ],
        markets=[
            MarketSpec(
                id=1, symbol="BTC-USD", base="BTC", quote="USD", tick_size="0.01", lot_size="0.0001",
                maker_fee_ppm=fees[0], taker_fee_ppm=fees[1],
            ),
            MarketSpec(id=2, symbol="AAPL-USD", base="AAPL", quote="USD", tick_size="0.0001", lot_size="1"),
        ],
        engine_limits=EngineLimits(
            max_accounts=16, max_keys=16, max_balances=64, max_orders=2048, max_outcomes=4096
        ),
    )  # fmt: skip
    return parse_genesis(raw)


class FakeConnection:
    """One connection on the exchange's side."""

    def __init__(self, session: ServerSession) -> None:
        self.session = session
        self.account_id: int | None = None
        self.open = True
        self.seen: list[Message | bytes] = []  # batches as frames, queries as messages


class FakeExchange:
    """One shard. Every call is made with the time; nothing happens in between."""

    def __init__(self, genesis: Genesis | None = None) -> None:
        self.genesis = genesis or small_genesis()
        self.engine = ReferenceEngine(self.genesis, 0, track_state=False)
        self.trades = RecentTrades()
        self.desk = QueryDesk(self.engine, self.trades, lambda: 1, Durability.ALWAYS)
        self.connections: list[FakeConnection] = []
        self.wall_ns = START_NS
        self.now_ms = 0
        self.applied: list[bytes] = []
        self.drop_next: str | None = None
        self.refuse_next: list[ReasonCode] = []
        self.refuse_queries: list[ReasonCode] = []
        self.genesis_sent = self.genesis.raw
        self.mute = False
        self._challenges = itertools.count(1)

    def connect(self) -> FakeConnection:
        """A client has connected."""
        session = ServerSession(
            SessionSettings(),
            deployment_id=self.genesis.deployment_id,
            shards=range(self.genesis.shards),
            challenge=next(self._challenges).to_bytes(32, "big"),
            server_time_ns=self.wall_ns,
            now_ms=self.now_ms,
        )
        connection = FakeConnection(session)
        self.connections.append(connection)
        return connection

    def receive(self, connection: FakeConnection, data: bytes) -> None:
        """Bytes from a client."""
        try:
            for frame in connection.session.feed(data, self.now_ms):
                if connection.open:
                    self._event(connection, connection.session.receive(frame, self.now_ms))
        except RemoteProtocolError as error:
            connection.session.terminate(error.reason, self.now_ms)
            connection.open = False

    def output(self, connection: FakeConnection) -> bytes:
        """Bytes for a client."""
        data = connection.session.take_output()
        return b"" if self.mute else data

    def hang_up(self, connection: FakeConnection, reason: ReasonCode | None = None) -> None:
        """Break the connection, with a Terminate or without a word."""
        if reason is not None:
            connection.session.terminate(reason, self.now_ms)
        connection.open = False

    def apply(self, frame: bytes, sender: FakeConnection | None = None) -> None:
        """Apply a batch and send the reports to the accounts' sessions."""
        self.wall_ns = max(self.wall_ns, self.engine.log_time_ns) + 1000
        self.applied.append(frame)
        events = bytes(self.engine.apply(frame, self.wall_ns).events)
        self.trades.observe(events)
        for connection in self.connections:  # a key may have been registered just now
            if connection.session.public_key is not None:
                connection.account_id = self.engine.account_of_key(connection.session.public_key)
        for offset in range(0, len(events), EXECUTION_REPORT_BYTES):
            block = events[offset : offset + EXECUTION_REPORT_BYTES]
            account_id = ExecutionReport.decode_block(block).account_id
            for connection in self.connections:
                hears = (
                    connection is sender
                    if account_id == ACCOUNT_NONE
                    else connection.account_id == account_id
                )
                if hears and connection.open:
                    connection.session.send(execution_report_frame_prefix + block, self.now_ms)

    def _event(self, connection: FakeConnection, event: object) -> None:
        session = connection.session
        match event:
            case EstablishRequested(public_key=key):
                account_id = connection.account_id = self.engine.account_of_key(key)
                shard = ShardSession(shard=0, account_id=ACCOUNT_NONE)
                if account_id is not None:
                    report_seq = self.engine.report_seq(account_id)
                    shard = ShardSession(shard=0, account_id=account_id, report_seq=report_seq)
                session.acknowledge(
                    [shard], durability=Durability.ALWAYS, server_time_ns=self.wall_ns, now_ms=self.now_ms
                )
            case BatchReceived(frame=frame, nonce=nonce):
                connection.seen.append(frame)
                verify_batch(frame, self.genesis.deployment_id)
                if self.refuse_next:
                    session.not_applied(nonce, self.refuse_next.pop(0), self.now_ms)
                    return
                drop, self.drop_next = self.drop_next, None
                if drop != "before":
                    if drop == "after":
                        connection.open = False
                    self.apply(frame, connection)
                if drop is not None:
                    connection.open = False
            case QueryReceived(query=query):
                connection.seen.append(query)
                if self.refuse_queries:
                    reject = QueryReject(request_id=query.request_id, reason=self.refuse_queries.pop(0))
                    session.send(reject.encode(), self.now_ms)
                elif isinstance(query, GenesisRequest):
                    answer = GenesisAnswer(request_id=query.request_id, genesis=self.genesis_sent)
                    session.send(answer.encode(), self.now_ms)
                else:
                    session.send(self.desk.answer(query, connection.account_id).encode(), self.now_ms)
            case SessionEnded():
                connection.open = False


class Served:
    """A FakeExchange behind socket pairs: one thread per connection, one lock around the exchange."""

    def __init__(self, exchange: FakeExchange | None = None) -> None:
        self.exchange = exchange or FakeExchange()
        self.lock = threading.Lock()
        self.refuse_connections = 0
        self._sockets: dict[int, tuple[FakeConnection, socket.socket]] = {}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.drop_all()
        for thread in self._threads:
            thread.join()

    def connector(self) -> socket.socket:
        """Hand this to Client(connector=...)."""
        with self.lock:
            if self.refuse_connections:
                self.refuse_connections -= 1
                raise ConnectionRefusedError("connection refused")
            ours, theirs = socket.socketpair()
            connection = self.exchange.connect()
            self._sockets[id(connection)] = (connection, ours)
        thread = threading.Thread(target=self._serve, args=(connection, ours), daemon=True)
        thread.start()
        self._threads.append(thread)
        return theirs

    def do(self, action: Callable[[FakeExchange], None]) -> None:
        """Do something with the exchange, then send what it has to say."""
        with self.lock:
            action(self.exchange)
            self._flush()

    def drop_all(self, reason: ReasonCode | None = None) -> None:
        """Break every connection."""
        with self.lock:
            for connection, _ in list(self._sockets.values()):
                self.exchange.hang_up(connection, reason)
            self._flush()

    def _serve(self, connection: FakeConnection, ours: socket.socket) -> None:
        with self.lock:
            self._flush()
        while True:
            try:
                data = ours.recv(65_536)
            except OSError:
                data = b""
            with self.lock:
                if data:
                    self.exchange.receive(connection, data)
                else:
                    connection.open = False
                self._flush()
                if not connection.open:
                    ours.close()
                    return

    def _flush(self) -> None:
        for key, (connection, ours) in list(self._sockets.items()):
            data = self.exchange.output(connection)
            try:
                if data:
                    ours.sendall(data)
                if not connection.open:
                    ours.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client went first
            if not connection.open:
                del self._sockets[key]


def funded(exchange: FakeExchange, *keys: SigningKey) -> None:
    """Open accounts 1, 2, ... for the keys and deposit a million USD, 100 BTC and 100,000 AAPL each."""
    from zexchange.wire.messages import OperatorBatch, OperatorCommand, OperatorCommandKind
    from zexchange.wire.signing import sign_batch

    for index, key in enumerate(keys, 1):
        commands = [
            OperatorCommand(
                kind=OperatorCommandKind.OPEN_ACCOUNT, account_id=index, new_public_key=bytes(key.verify_key)
            )
        ]
        commands += [
            OperatorCommand(
                kind=OperatorCommandKind.DEPOSIT, account_id=index, asset_id=asset_id, amount=amount
            )
            for asset_id, amount in ((1, 10**12), (2, 10**10), (3, 10**5))
        ]
        batch = OperatorBatch(nonce=START_NS // 1000 - 1000 + index, commands=commands)
        exchange.apply(sign_batch(batch, OPERATOR, exchange.genesis.deployment_id))
