"""Both shells over real sockets: the ingress server and the matcher's loop, each in a thread, with a log in
memory."""

from __future__ import annotations

import errno
import gc
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
import pytest
from nacl.signing import SigningKey

from gateway import server
from tests.model import kit
from zexchange.config import Config
from zexchange.engine import Engine
from zexchange.genesis import EngineLimits, build_genesis, parse_genesis
from zexchange.log.journal import ChainState
from zexchange.matcher import process as matcher
from zexchange.matcher.core import MatcherCore
from zexchange.matcher.loop import MatcherLoop, RouterSocket
from zexchange.matcher.queries import RecentTrades
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.process import ProcessContext
from zexchange.runtime.reactor import Reactor
from zexchange.wire import signing
from zexchange.wire.framing import FrameSplitter
from zexchange.wire.messages import (
    Durability,
    EstablishmentReject,
    ExecutionReport,
    GenesisRequest,
    Message,
    NotApplied,
    OperatorBatch,
    ReasonCode,
    ShardStatus,
    ShardStatusRequest,
    Side,
    SignedBatch,
    decode,
)
from zexchange.wire.session import ClientSession, MessageReceived, SessionEnded, SessionSettings

OPERATOR = SigningKey(b"o" * 32)
ALICE = SigningKey(b"a" * 32)
LIMITS = EngineLimits(max_accounts=64, max_keys=64, max_balances=256, max_orders=4_096, max_outcomes=1_024)
GENESIS = parse_genesis(
    build_genesis("test/server", bytes(OPERATOR.verify_key), bytes(OPERATOR.verify_key), engine_limits=LIMITS)
)
PATIENCE_S = 20
"""Only bounds how long a broken test hangs; nothing is measured."""


class AtOnce:
    """An appender whose store is a list."""

    def __init__(self, log: list[bytes], on_landed: Callable[[], None]) -> None:
        self.log = log
        self.on_landed = on_landed

    def begin(self, first_record_no: int, batch: bytes, now_ms: int) -> None:
        self.log.append(batch)
        self.on_landed()

    def deadline_ms(self) -> None:
        return None


class Exchange:
    """One matcher and one ingress worker on the paths' sockets."""

    def __init__(self, paths: DataPaths, port: int, *, send_buffer_bytes: int = 262_144) -> None:
        config = Config()
        self.paths = paths
        self.config = msgspec.structs.replace(
            config,
            exchange=msgspec.structs.replace(config.exchange, port_base=port),
            ingress=msgspec.structs.replace(config.ingress, send_buffer_bytes=send_buffer_bytes),
        )
        self.log: list[bytes] = []
        self.failures: list[BaseException] = []
        self.clients: list[Client] = []
        self.engine = Engine(GENESIS, 0, track_state=False)
        self.epoch = 0
        self.state = ChainState.genesis(GENESIS.deployment_id)
        self._stop_matcher: Callable[[], None] = lambda: None
        self.start_matcher()
        context = self._context("ingress-0")
        self.ready = threading.Event()
        cast(Any, context).ready = lambda **_: self.ready.set()
        self._stop_ingress = self._start(lambda: self._run_ingress(context), context)
        assert self.ready.wait(PATIENCE_S)

    def _run_ingress(self, context: ProcessContext) -> None:
        reactor = Reactor()
        reactor.watch(context.stop_fd, lambda _events: None)
        with server.serving(context, reactor, 0) as self.server:
            self.ingress = self.server._ingress
            server.loop(context, reactor, self.server)
        reactor.close()

    def start_matcher(self) -> None:
        """A matcher of the next epoch on the same engine: what recovery would give."""
        self.epoch += 1
        core = MatcherCore(
            self.engine,
            self.state,
            self.epoch,
            RecentTrades(),
            accounts_max=GENESIS.limits.max_accounts,
            durability=Durability.ALWAYS,
        )
        context = self._context("matcher-0")

        def serve() -> None:
            reactor = Reactor()
            reactor.watch(context.stop_fd, lambda _events: None)
            router = RouterSocket(self.paths.matcher_address(0))
            loop = MatcherLoop(core, reactor, router, 16_384, context.log, context.figures)
            loop.append_with(cast(Any, AtOnce(self.log, loop.landed)))
            self.log.append(core.open_epoch(kit.START_NS).raw)
            matcher._serve(context, loop, reactor, None)
            router.close()
            reactor.close()

        self._stop_matcher = self._start(serve, context)

    def stop_matcher(self) -> None:
        self._stop_matcher()
        self._stop_matcher = lambda: None

    def close(self) -> None:
        for client in self.clients:
            client.sock.close()
        self._stop_ingress()
        self.stop_matcher()
        assert not self.failures

    def _context(self, name: str) -> ProcessContext:
        return ProcessContext(name, self.paths, self.config, GENESIS, logging.getLogger(name))

    def _start(self, target: Callable[[], None], context: ProcessContext) -> Callable[[], None]:
        def run() -> None:
            try:
                target()
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def stop() -> None:
            context.stop()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
            context.close()

        return stop

    def client(self, key: SigningKey, *, receive_bytes: int = 0) -> Client:
        """A client that is closed with the exchange."""
        client = Client(self.server.address, key, receive_bytes=receive_bytes)
        self.clients.append(client)
        return client


class Client:
    """A blocking client made of the wire package alone."""

    def __init__(self, address: tuple[str, int], key: SigningKey, *, receive_bytes: int = 0) -> None:
        self.key = key
        self.sock = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(address)
        self.session = ClientSession(
            SessionSettings(), key=key, deployment_id=GENESIS.deployment_id, now_ms=0
        )
        self.events: list[object] = []
        while self.session.ack is None and not self.events:
            self.pump()

    def pump(self) -> bool:
        """Read once; False at the end of the stream."""
        data = self.sock.recv(65_536)
        for frame in self.session.feed(data, 0):
            event = self.session.receive(frame, 0)
            if event is not None and not hasattr(event, "ack"):
                self.events.append(event)
        self.sock.sendall(self.session.take_output())
        return bool(data)

    def next(self) -> Message:
        while not self.events:
            assert self.pump(), "the server has closed"
        event = self.events.pop(0)
        assert isinstance(event, MessageReceived), event
        return event.message

    def ended(self) -> ReasonCode:
        """Read to the end of the stream; the reason the server gave last."""
        while self.pump():
            pass
        last = self.events[-1]
        assert isinstance(last, SessionEnded), last
        return last.reason

    def order(self, nonce: int, price: int = 100) -> bytes:
        batch = SignedBatch(nonce=nonce, commands=[kit.order(Side.BUY, 1, price)])
        return signing.sign_batch(batch, self.key, GENESIS.deployment_id)

    def fund(self, key: SigningKey) -> None:
        """As the operator: account 1 with money."""
        commands = [kit.open_account(bytes(key.verify_key), 1), kit.deposit(1, 1, 10**15)]
        self.sock.sendall(
            signing.sign_batch(OperatorBatch(nonce=1, commands=commands), self.key, GENESIS.deployment_id)
        )
        assert isinstance(self.next(), ExecutionReport)
        assert isinstance(self.next(), ExecutionReport)


@pytest.fixture
def exchange(paths: DataPaths, port_base: int) -> Iterator[Exchange]:
    running = Exchange(paths, port_base, send_buffer_bytes=4_096)
    yield running
    running.close()
    gc.unfreeze()
    gc.enable()


def test_order_goes_through_both_shells_and_back(exchange: Exchange) -> None:
    operator = exchange.client(OPERATOR)
    operator.fund(ALICE)
    alice = exchange.client(ALICE)
    for byte in alice.order(1):
        alice.sock.sendall(bytes([byte]))
    report = alice.next()
    assert isinstance(report, ExecutionReport)
    assert (report.account_id, report.nonce, report.order_id) == (1, 1, 3)
    assert len(exchange.log) == 3
    alice.sock.sendall(b"".join(alice.order(nonce) for nonce in range(2, 102)))
    assert [m.nonce for m in (alice.next() for _ in range(100)) if isinstance(m, ExecutionReport)] == list(
        range(2, 102)
    )
    operator.sock.sendall(ShardStatusRequest(request_id=9).encode())
    status = operator.next()
    assert isinstance(status, ShardStatus)
    assert (status.request_id, status.open_orders) == (9, 101)


def test_last_words_are_read_before_the_connection_closes(exchange: Exchange) -> None:
    alice = exchange.client(ALICE)
    alice.sock.sendall(b"\0\0\0\0\0\0" + b"more that nobody reads" * 1_000)
    assert alice.ended() is ReasonCode.FRAME_LENGTH_INVALID
    alice = exchange.client(ALICE)
    frame = alice.order(1)
    forged = frame[:20] + bytes([frame[20] ^ 1]) + frame[21:]
    alice.sock.sendall(forged * 5)
    assert alice.ended() is ReasonCode.TOO_MANY_STRIKES
    assert [event.message for event in alice.events if isinstance(event, MessageReceived)] == [
        NotApplied(nonce=1, reason=ReasonCode.SIGNATURE_INVALID, strikes=strikes) for strikes in (1, 2, 3)
    ]


def test_client_that_does_not_read_is_ended_and_others_are_served(exchange: Exchange) -> None:
    slow = exchange.client(ALICE, receive_bytes=4_096)
    (connection,) = exchange.ingress._connections.values()
    requests = GenesisRequest().encode() * 100
    while connection.ended is None:
        slow.sock.sendall(requests)
    exchange.client(OPERATOR).fund(ALICE)
    assert slow.ended() is ReasonCode.SLOW_CONSUMER


def test_silent_connections_are_closed_for_those_that_come_behind_them(exchange: Exchange) -> None:
    limits = exchange.ingress._admission._limits
    silent = []
    for _ in range(limits.max_unestablished_per_ip + 1):
        sock = socket.create_connection(exchange.server.address)
        sock.settimeout(PATIENCE_S)
        silent.append(sock)
        assert sock.recv(4_096), "the challenge"
    told = b""
    while data := silent[0].recv(4_096):
        told += data
    (frame,) = FrameSplitter().feed(told)
    assert decode(frame) == EstablishmentReject(reason=ReasonCode.SESSION_LIMIT)
    operator = exchange.client(OPERATOR)
    assert operator.session.ack is not None
    for sock in silent:
        sock.close()


def test_matcher_that_restarts_ends_the_sessions_which_come_back(exchange: Exchange) -> None:
    operator = exchange.client(OPERATOR)
    operator.fund(ALICE)
    exchange.stop_matcher()
    exchange.state = ChainState.genesis(GENESIS.deployment_id)
    exchange.start_matcher()
    assert operator.ended() is ReasonCode.SHARD_RESTARTED
    while True:
        alice = exchange.client(ALICE)
        if alice.session.ack is not None:
            break
        assert alice.ended() is ReasonCode.SERVER_BUSY
    assert alice.session.ack.shards[0].account_id == 1


@pytest.mark.parametrize("number", [errno.EPROTO, errno.ENETUNREACH, errno.ECONNABORTED, errno.ENOBUFS])
def test_connection_that_broke_before_it_was_accepted_harms_nobody(exchange: Exchange, number: int) -> None:
    listener = exchange.server._listener
    broken = iter([OSError(number, "broken")])

    class Broken:
        """The listener, with one connection that is gone when its turn comes."""

        def accept(self) -> tuple[socket.socket, Any]:
            for error in broken:
                raise error
            return listener.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(listener, name)

    cast(Any, exchange.server)._listener = Broken()
    exchange.client(OPERATOR)
    assert next(broken, None) is None


def test_without_descriptors_the_next_connection_is_refused_and_the_queue_moves_on(
    exchange: Exchange,
) -> None:
    listener = exchange.server._listener
    full = iter([OSError(errno.EMFILE, "too many open files")])

    class Full:
        """The listener, once without a descriptor to spare."""

        def accept(self) -> tuple[socket.socket, Any]:
            for error in full:
                raise error
            return listener.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(listener, name)

    cast(Any, exchange.server)._listener = Full()
    refused = socket.create_connection(exchange.server.address)
    refused.settimeout(PATIENCE_S)
    assert refused.recv(100) == b""
    refused.close()
    exchange.client(OPERATOR)


def test_stop_tells_clients_why(exchange: Exchange) -> None:
    alice = exchange.client(ALICE)
    exchange._stop_ingress()
    exchange._stop_ingress = lambda: None
    assert alice.events or alice.pump()
    assert alice.events == [SessionEnded(ReasonCode.SERVER_SHUTDOWN, True)]
