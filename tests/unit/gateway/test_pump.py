"""The loop in C between real sockets: clients at one end, a store that says what the test wants at the other."""

from __future__ import annotations

import logging
import re
import socket
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import zmq
from nacl.signing import SigningKey

from gateway import server
from tests.fakes import FakeClock, FakeStore
from tests.model import kit
from zexchange.config import Config
from zexchange.engine import Engine
from zexchange.genesis import EngineLimits, build_genesis, parse_genesis
from zexchange.log.journal import ChainState, EntryId, decode_batch, iter_frames
from zexchange.log.writer import LogWriter, Retry
from zexchange.matcher.appender import Appender
from zexchange.matcher.core import MatcherCore
from zexchange.matcher.link import Kind, Outbox, entry
from zexchange.matcher.loop import MatcherLoop, RouterSocket
from zexchange.matcher.queries import RecentTrades
from zexchange.runtime.figures import Figure
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.process import ProcessContext
from zexchange.runtime.reactor import Reactor
from zexchange.runtime.stages import COUNTED
from zexchange.wire import signing
from zexchange.wire.messages import (
    Balances,
    BalancesRequest,
    Durability,
    ExecType,
    ExecutionReport,
    Message,
    NotApplied,
    OperatorBatch,
    ReasonCode,
    ShardStatus,
    ShardStatusRequest,
    Side,
    SignedBatch,
    Trades,
    TradesRequest,
)
from zexchange.wire.session import (
    ClientSession,
    MessageReceived,
    SessionEnded,
    SessionSettings,
)

OPERATOR = SigningKey(b"o" * 32)
ALICE, BOB = SigningKey(b"a" * 32), SigningKey(b"b" * 32)
LIMITS = EngineLimits(max_accounts=64, max_keys=64, max_balances=256, max_orders=4_096, max_outcomes=1_024)
GENESIS = parse_genesis(
    build_genesis("test/pump", bytes(OPERATOR.verify_key), bytes(OPERATOR.verify_key), engine_limits=LIMITS)
)
_REQUEST = re.compile(
    rb"\*5\r\n\$4\r\nXADD\r\n\$\d+\r\n[^\r]+\r\n\$\d+\r\n(\d+-\d+)\r\n\$1\r\nb\r\n\$(\d+)\r\n"
)


class Shard:
    """Ingress and matcher in this thread, stepped by hand."""

    def __init__(self, paths: DataPaths, port: int, max_queued: int = 16_384) -> None:
        config = Config()
        config = msgspec.structs.replace(
            config, exchange=msgspec.structs.replace(config.exchange, port_base=port)
        )
        self.context = ProcessContext("matcher-0", paths, config, GENESIS, logging.getLogger("pump"))
        self.reactor = Reactor()
        self.store = FakeStore()
        clock = FakeClock()
        writer = LogWriter(self.store, 0, Retry(clock_ms=clock.ms, pause_ms=clock.pause_ms))
        writer.take_over(allow_empty=True)
        self.core = MatcherCore(
            Engine(GENESIS, 0, track_state=False),
            ChainState.genesis(GENESIS.deployment_id),
            writer.epoch,
            RecentTrades(),
            accounts_max=LIMITS.max_accounts,
            durability=Durability.ALWAYS,
        )
        opening = self.core.open_epoch(kit.START_NS)
        writer.append(opening.first_record_no, opening.raw)
        self.router = RouterSocket(paths.matcher_address(0))
        self.times = self.context.figures.stages
        self.loop = MatcherLoop(
            self.core,
            self.reactor,
            self.router,
            max_queued,
            self.context.log,
            self.context.figures,
            self.times,
        )
        ours, self.wire = socket.socketpair()
        ours.setblocking(False)
        self.wire.settimeout(10)
        self.connection = SimpleNamespace(_sock=ours, disconnect=self._disconnect)
        client = cast(Any, SimpleNamespace(connection=self.connection))
        self.appender = Appender(self.reactor, writer, client, 5_000, self.loop.landed)
        self.loop.append_with(self.appender)
        self._serving = server.make_companion(0)(self.context, self.reactor, self.loop, 0)
        self.companion = cast(server.Server, self._serving.__enter__())
        self.received = b""
        self.clients: list[Client] = []
        self.answering = True
        self.ids: list[str] = []
        self.steps(4)  # the worker joins its matcher

    def _disconnect(self) -> None:
        if self.connection._sock is not None:
            self.connection._sock.close()
        self.connection._sock = None

    def step(self) -> None:
        """One turn of the process's loop, without waiting, and of the store if it answers."""
        self.companion.poll(0, accept=True)
        self.loop.turn(0)
        self.companion.turn()
        self.loop.turn(0)
        if self.answering:
            self.answer()
        for client in self.clients:
            client.read()

    def steps(self, count: int = 12) -> None:
        for _ in range(count):
            self.step()

    def answer(self) -> None:
        """Carry out the append that is on the wire, if one is whole."""
        for entry_id, batch in self.requests():
            self.store.execute_command("XADD", "zx:{0}:log", entry_id, "b", batch)
            self.wire.send(b"$%d\r\n%b\r\n" % (len(entry_id), entry_id.encode()))

    def requests(self) -> list[tuple[str, bytes]]:
        """Appends that have arrived at the store and were not taken yet."""
        self.wire.setblocking(False)
        try:
            while data := self.wire.recv(1 << 20):
                self.received += data
        except BlockingIOError:
            pass
        found = []
        while (head := _REQUEST.match(self.received)) and len(self.received) >= head.end() + int(head[2]) + 2:
            end = head.end() + int(head[2])
            found.append((head[1].decode(), self.received[head.end() : end]))
            self.received = self.received[end + 2 :]
            self.ids.append(found[-1][0])
        return found

    def logged(self) -> list[bytes]:
        """Frames in the log, in order."""
        batches = [fields[b"b"] for _, fields in self.store.entries("zx:{0}:log") if b"b" in fields]
        return [frame for raw in batches for frame in iter_frames(decode_batch(raw).body)]

    def client(self, key: SigningKey) -> Client:
        made = Client(self, key)
        self.clients.append(made)
        self.steps()
        assert made.session.ack is not None
        return made

    def close(self) -> None:
        for client in self.clients:
            client.sock.close()
        self._serving.__exit__(None, None, None)
        self.appender.close()
        self._disconnect()
        self.wire.close()
        self.router.close()
        self.reactor.close()
        self.context.close()


class Client:
    def __init__(self, shard: Shard, key: SigningKey) -> None:
        self.key = key
        self.sock = socket.create_connection(shard.companion.address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.session = ClientSession(
            SessionSettings(), key=key, deployment_id=GENESIS.deployment_id, now_ms=0
        )
        self.heard: list[Message] = []
        self.ended: SessionEnded | None = None
        self.reading = True

    def read(self) -> None:
        if not self.reading:
            return
        try:
            data = self.sock.recv(1 << 20)
        except (BlockingIOError, ConnectionError):
            data = b""
        for frame in self.session.feed(data, 0) if data else ():
            event = self.session.receive(frame, 0)
            if isinstance(event, MessageReceived):
                self.heard.append(event.message)
            elif isinstance(event, SessionEnded):
                self.ended = event
        if output := self.session.take_output():
            self.sock.sendall(output)

    def batch(self, nonce: int, *commands: Any) -> bytes:
        kind = OperatorBatch if self.key is OPERATOR else SignedBatch
        return signing.sign_batch(kind(nonce=nonce, commands=list(commands)), self.key, GENESIS.deployment_id)

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def reports(self) -> list[tuple[int, ExecType]]:
        found = [(m.nonce, m.exec_type) for m in self.heard if isinstance(m, ExecutionReport)]
        self.heard = [m for m in self.heard if not isinstance(m, ExecutionReport)]
        return found


@pytest.fixture
def shard(paths: DataPaths, port_base: int) -> Iterator[Shard]:
    made = Shard(paths, port_base)
    yield made
    made.close()


def open_accounts(shard: Shard) -> Client:
    """Give Alice and Bob plenty of everything; returns Alice, with a session that the pump serves."""
    operator = shard.client(OPERATOR)
    for nonce, key in enumerate((ALICE, BOB), start=1):
        operator.send(operator.batch(nonce, kit.open_account(bytes(key.verify_key))))
        shard.steps()
    for nonce, (account, asset) in enumerate(((1, 1), (1, 2), (2, 1), (2, 2)), start=10):
        operator.send(operator.batch(nonce, kit.deposit(account, asset, 10**15)))
        shard.steps()
    made = shard.client(ALICE)
    shard.ids.clear()
    return made


@pytest.fixture
def alice(shard: Shard) -> Client:
    return open_accounts(shard)


def buy(client: Client, nonce: int, price: int = 100) -> bytes:
    return client.batch(nonce, kit.order(Side.BUY, 1, price))


def pumped_batches(shard: Shard) -> int:
    """Batches of the log that the loop in C has written by itself."""
    assert shard.companion._pump is not None
    return int(shard.companion._pump._handle.landed_batches)


def test_order_goes_in_and_its_report_comes_out(shard: Shard, alice: Client) -> None:
    turns = shard.core.seal.last().first_record_no  # type: ignore[attr-defined]
    alice.send(buy(alice, 1))
    shard.steps()
    assert alice.reports() == [(1, ExecType.NEW)]
    assert len(shard.ids) == 1
    assert EntryId.parse(shard.ids[0]).record_no > turns
    assert set(shard.times.summary()) == set(COUNTED) - {"visible"}


def test_wait_of_every_frame_for_the_matcher_is_counted_once(shard: Shard, alice: Client) -> None:
    def waits() -> int:
        told = shard.times.summary()
        assert told["acknowledge"].count == told["bus"].count, "and so is the time until it was answered"
        return told["bus"].count

    before = waits()
    assert before > 0, "the operator's batches came by a message"
    alice.send(*[buy(alice, nonce) for nonce in (1, 2, 3)])
    shard.steps()
    assert waits() == before + 3
    shard.core.let_time_pass()
    shard.steps()
    assert waits() == before + 3, "a batch that only moves time has none of them"
    forged = bytearray(buy(alice, 5))
    forged[20] ^= 1
    alice.send(buy(alice, 4), bytes(forged), buy(alice, 6))  # the good ones go by a message
    shard.steps()
    assert len(alice.reports()) == 5
    assert waits() == before + 5


def test_figures_say_what_was_verified_and_what_waits(shard: Shard, alice: Client) -> None:
    figures = shard.context.figures
    good = figures[Figure.SIGNATURES_GOOD]
    assert good == 6, "accounts and deposits"
    alice.send(buy(alice, 1))
    shard.steps()
    forged = bytearray(buy(alice, 2))
    forged[20] ^= 1
    alice.send(bytes(forged), buy(alice, 3))
    shard.steps()
    assert figures[Figure.SIGNATURES_GOOD] == good + 2
    assert figures[Figure.SIGNATURES_BAD] == 1
    assert figures[Figure.BATCHES_IN_FLIGHT] == figures[Figure.QUEUED_FRAMES] == 0
    shard.answering = False
    alice.send(buy(alice, 4))
    shard.steps()
    alice.send(buy(alice, 5), buy(alice, 6))
    shard.steps()
    assert figures[Figure.BATCHES_IN_FLIGHT] == 1
    assert figures[Figure.QUEUED_FRAMES] == 2
    shard.answering = True
    shard.steps()
    assert figures[Figure.BATCHES_IN_FLIGHT] == figures[Figure.QUEUED_FRAMES] == 0
    assert figures[Figure.SIGNATURES_GOOD] == good + 5


def test_messages_that_another_worker_does_not_take_are_counted(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_release: object) -> None:
        raise zmq.Again

    monkeypatch.setattr(shard.router, "send", full)
    outbox = Outbox(7)
    outbox.add(entry(Kind.PING))
    (ping,) = outbox.take()
    shard.core.receive(b"ingress-9", ping)
    shard.steps()
    assert shard.context.figures[Figure.LINK_DROPS] == 1


def test_nobody_hears_before_the_store_says_yes(shard: Shard, alice: Client) -> None:
    shard.answering = False
    alice.send(buy(alice, 1))
    shard.steps()
    assert len(shard.requests()) == 1
    alice.send(buy(alice, 2), buy(alice, 3))
    shard.steps()
    assert alice.reports() == []
    assert shard.requests() == []  # one batch is in flight at a time
    shard.wire.send(b"$3\r\n")
    shard.steps()
    assert alice.reports() == []
    (in_flight,) = shard.ids
    shard.wire.send(in_flight.encode() + b"\r\n")
    shard.steps()
    assert alice.reports() == [(1, ExecType.NEW)]
    ((_, second),) = shard.requests()
    assert decode_batch(second).count == 2


def test_trades_reach_both_sides_and_whoever_asks_for_them(shard: Shard, alice: Client) -> None:
    bob = shard.client(BOB)
    alice.send(alice.batch(1, kit.order(Side.SELL, 1, 100)))
    shard.steps()
    bob.send(buy(bob, 1))
    shard.steps()
    assert ExecType.TRADE in {kind for _, kind in alice.reports()}
    assert (1, ExecType.NEW) in bob.reports()
    bob.send(TradesRequest(request_id=5, market_id=1, limit=10).encode())
    shard.steps()
    (answer,) = [m for m in bob.heard if isinstance(m, Trades)]
    assert [one.price_ticks for one in answer.trades] == [100]


def test_frame_in_pieces_is_put_together(shard: Shard, alice: Client) -> None:
    stream = buy(alice, 1) + buy(alice, 2) + buy(alice, 3)
    for start in range(0, len(stream), 50):
        alice.send(stream[start : start + 50])
        shard.step()
    shard.steps()
    assert alice.reports() == [(1, ExecType.NEW), (2, ExecType.NEW), (3, ExecType.NEW)]
    alice.send(buy(alice, 4))
    shard.steps()
    assert alice.reports() == [(4, ExecType.NEW)]


def test_query_between_batches_sees_what_came_before_it_and_nothing_after(
    shard: Shard, alice: Client
) -> None:
    ask = BalancesRequest(request_id=1, shard=0).encode()
    alice.send(buy(alice, 1), ask, buy(alice, 2), ask, buy(alice, 3))
    shard.steps(30)
    held = [
        {one.asset_id: one.held for one in m.balances}[1] if isinstance(m, Balances) else "report"
        for m in alice.heard
        if isinstance(m, Balances | ExecutionReport)
    ]
    first, second = [one for one in held if one != "report"]
    assert held == ["report", first, "report", second, "report"]
    assert isinstance(first, int)
    assert second == 2 * first > 0


def test_bad_signature_is_a_strike_and_the_good_ones_count(shard: Shard, alice: Client) -> None:
    forged = bytearray(buy(alice, 2))
    forged[20] ^= 1
    alice.send(buy(alice, 1), bytes(forged), buy(alice, 3))
    shard.steps()
    assert alice.reports() == [(1, ExecType.NEW), (3, ExecType.NEW)]
    (refused,) = [m for m in alice.heard if isinstance(m, NotApplied)]
    assert (refused.nonce, refused.reason, refused.strikes) == (2, ReasonCode.SIGNATURE_INVALID, 1)
    assert bytes(forged) not in shard.logged()


def test_frames_behind_the_last_strike_are_not_applied(shard: Shard, alice: Client) -> None:
    forged = []
    for nonce in (1, 2, 3):
        frame = bytearray(buy(alice, nonce))
        frame[20] ^= 1
        forged.append(bytes(frame))
    last = buy(alice, 4)
    alice.send(*forged, last)
    shard.steps()
    assert alice.ended is not None
    assert alice.ended.reason is ReasonCode.TOO_MANY_STRIKES
    assert last not in shard.logged()


def test_client_that_does_not_read_gets_everything_once_it_does(shard: Shard, alice: Client) -> None:
    bob = shard.client(BOB)
    alice.reading = False
    alice.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    for peer in shard.companion._peers.values():
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    nonce = 0
    for _ in range(16):
        frames = []
        for _ in range(2):
            nonce += 1
            frames.append(alice.batch(nonce, *[kit.order(Side.BUY, 1, 50)] * 40))
        alice.send(*frames)
        shard.steps(4)
    shard.companion._tell()
    assert shard.context.figures[Figure.UNSENT_BYTES] > 0
    bob.send(buy(bob, 1, 40))
    shard.steps()
    assert bob.reports() == [(1, ExecType.NEW)]
    alice.reading = True
    numbers: list[int] = []
    while len(numbers) < 40 * nonce:
        shard.step()
        numbers += [number for number, _ in alice.reports()]
    assert numbers == [n for n in range(1, nonce + 1) for _ in range(40)]
    shard.companion._tell()
    assert shard.context.figures[Figure.UNSENT_BYTES] == 0
    assert shard.context.figures[Figure.SESSIONS] == 3


@pytest.mark.parametrize("arrived", [True, False])
def test_store_that_breaks_off_is_asked_again(shard: Shard, alice: Client, arrived: bool) -> None:
    shard.answering = False
    alice.send(buy(alice, 1))
    shard.steps()
    ((entry_id, batch),) = shard.requests()
    if arrived:
        shard.store.execute_command("XADD", "zx:{0}:log", entry_id, "b", batch)
    shard.wire.close()
    while not (found := alice.reports()):
        shard.step()
    assert found == [(1, ExecType.NEW)]
    assert len([one for one in shard.logged() if one == buy(alice, 1)]) == 1
    # From now on everything goes the careful way; nothing is lost by that.
    alice.send(buy(alice, 2))
    while not (found := alice.reports()):
        shard.step()
    assert found == [(2, ExecType.NEW)]


def test_descriptor_of_a_closed_session_can_be_used_again(shard: Shard, alice: Client) -> None:
    bob = shard.client(BOB)
    alice.sock.close()
    shard.clients.remove(alice)
    shard.steps()
    again = shard.client(ALICE)
    bob.send(buy(bob, 1))
    again.send(buy(again, 7))
    shard.steps()
    assert again.reports() == [(7, ExecType.NEW)]
    assert bob.reports() == [(1, ExecType.NEW)]


def test_session_of_an_unknown_key_takes_the_quick_way_from_nobody(shard: Shard, alice: Client) -> None:
    carol = shard.client(SigningKey(b"c" * 32))
    assert shard.core.only_direct
    before = pumped_batches(shard)
    alice.send(buy(alice, 1))
    shard.steps()
    assert alice.reports() == [(1, ExecType.NEW)]
    assert pumped_batches(shard) == before + 1
    carol.send(buy(carol, 1))
    shard.steps()
    assert carol.reports() == [(1, ExecType.REJECTED)]
    assert alice.reports() == []
    assert pumped_batches(shard) == before + 2


def test_session_hears_of_the_account_that_its_key_gets(shard: Shard, alice: Client) -> None:
    carols = [shard.client(SigningKey(b"c" * 32)) for _ in range(2)]
    operator = shard.client(OPERATOR)
    before = pumped_batches(shard)
    opening = kit.open_account(bytes(carols[0].key.verify_key))
    operator.send(operator.batch(21, opening, kit.deposit(3, 1, 10**6)))
    shard.steps()
    assert pumped_batches(shard) == before + 1
    assert [carol.reports() for carol in carols] == [[(0, ExecType.DEPOSITED)]] * 2, "of the very batch"
    carols[0].send(buy(carols[0], 22))
    shard.steps()
    assert [carol.reports() for carol in carols] == [[(22, ExecType.NEW)]] * 2
    assert alice.reports() == []
    assert pumped_batches(shard) == before + 2


def test_flood_of_queries_leaves_the_others_their_turn(shard: Shard, alice: Client) -> None:
    """What was not read stays in the kernel, and orders go their quick way past it."""
    mallory = shard.client(SigningKey(b"m" * 32))
    mallory.sock.setblocking(True)
    asked = 1_500
    mallory.send(*[ShardStatusRequest(request_id=number).encode() for number in range(asked)])
    mallory.sock.setblocking(False)
    key = bytes(mallory.key.verify_key)
    (peer,) = [p for p in shard.companion._peers.values() if p.connection.session.public_key == key]
    shard.companion.poll(0, accept=True)
    assert peer.full
    mallory.send(ShardStatusRequest(request_id=asked).encode())
    alice.send(buy(alice, 1))
    shard.steps(3)
    assert alice.reports() == [(1, ExecType.NEW)]
    assert len(mallory.heard) < asked // 4
    assert peer.full
    unread = len(peer.connection.unread)
    shard.step()
    assert len(peer.connection.unread) <= unread, "nothing is read to what waits"
    shard.steps(4 * asked // 32)
    assert [m.request_id for m in mallory.heard if isinstance(m, ShardStatus)] == list(range(asked + 1))
    assert not peer.full
    assert not peer.connection.stopped
    mallory.send(buy(mallory, 1))
    before = pumped_batches(shard)
    shard.steps()
    assert pumped_batches(shard) == before + 1, "it takes the quick way again"


def test_who_is_gone_while_it_is_not_read_is_forgotten(shard: Shard, alice: Client) -> None:
    mallory = shard.client(SigningKey(b"m" * 32))
    mallory.send(*[ShardStatusRequest(request_id=number).encode() for number in range(500)])
    shard.companion.poll(0, accept=True)
    sessions = shard.companion._ingress.connections
    assert any(peer.full for peer in shard.companion._peers.values())
    # A reset: epoll tells it again and again, whether it is asked for input or not.
    mallory.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    mallory.sock.close()
    shard.clients.remove(mallory)
    shard.steps(3)
    assert shard.companion._ingress.connections == sessions - 1
    assert shard.companion._ingress.waiting == 0
    assert not shard.companion._ingress.pending
    alice.send(buy(alice, 1))
    shard.steps()
    assert alice.reports() == [(1, ExecType.NEW)]


def test_order_is_kept_when_the_queue_is_full(paths: DataPaths, port_base: int) -> None:
    shard = Shard(paths, port_base, max_queued=4)
    try:
        alice = open_accounts(shard)
        shard.answering = False
        for first in range(1, 41, 2):
            alice.send(buy(alice, first), buy(alice, first + 1))
            shard.step()
        assert shard.loop.holds  # some went by a message, and wait for room
        # The pump makes room with the answer, and has more to read in the same turn.
        shard.answer()
        alice.send(buy(alice, 41), buy(alice, 42))
        shard.answering = True
        numbers: list[int] = []
        while len(numbers) < 42:
            shard.step()
            numbers += [number for number, _ in alice.reports()]
        assert numbers == list(range(1, 43))
    finally:
        shard.close()
