"""The ingress server: one worker, one thread, plain epoll over clients and links.

    clients ==TCP==> epoll -> recv_into -> Ingress ... one call to verify ... -> carrier ==> matchers, and back

Workers share the port by SO_REUSEPORT: the kernel spreads connections among them. A worker is a process of its
own, or, where cores are few, a companion in the thread of a matcher.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import zmq

from gateway.admission import AdmissionLimits
from gateway.express import Express
from gateway.express import Refused as Refused_
from gateway.ingress import Connection, Ingress, IngressSettings
from gateway.links import Carrier, LocalCarrier, ShardLink, ZmqCarrier
from gateway.pump import Pump
from zexchange.config import Config
from zexchange.frames import Verifiers
from zexchange.log.stream import StoreRefused, StoreUnavailable
from zexchange.matcher.link import ENTRY_HEADER
from zexchange.matcher.loop import MatcherLoop
from zexchange.matcher.process import Companion, MakeCompanion
from zexchange.runtime.descriptors import descriptor_limit
from zexchange.runtime.figures import Figure
from zexchange.runtime.pinning import physical_cores, usable_cpus
from zexchange.runtime.process import EXIT_STORE, ProcessContext, Refused, process_context
from zexchange.runtime.reactor import Reactor
from zexchange.runtime.stages import VERIFY, StageTimes
from zexchange.runtime.store import check_store, durability
from zexchange.wire import signing
from zexchange.wire.messages import Buffer
from zexchange.wire.session import SessionSettings

_ACCEPTS_PER_TURN = 64
"""Connections accepted before those that are there get their turn."""

_RECEIVE_BYTES = 65_536
_LINK_MESSAGES_PER_TURN = 64
_TELL_INTERVAL_MS = 100
"""Between two times that the figures are brought up to date; the links' pings make a turn at least twice a second."""
_LAST_WORDS_MS = 1_000
"""How long a connection that is over may take to read its last message: closing at once would reset it
unread."""

VERIFY_THREADS_MAX = 7
"""Most helpers that `auto` starts: with eight at it, verification is no longer what a worker waits for."""

_DESCRIPTORS_RESERVED = 64
"""Left for links, files and the store when the limit on open files bounds the sessions."""


class _Peer:
    """The shell's side of a connection."""

    __slots__ = ("closing_at_ms", "connection", "full", "pumped", "queue", "queued_bytes", "sock", "writing")

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self.sock = sock
        self.connection = connection
        self.queue: deque[memoryview] = deque()
        """What the kernel did not take yet; each chunk ends with a frame."""
        self.queued_bytes = 0
        self.writing = False
        """Whether epoll watches for room to write."""
        self.full = False
        """Nothing is read: epoll does not watch for input."""
        self.pumped = False
        """The pump serves it."""
        self.closing_at_ms: int | None = None
        """The session is over: read and forget until the peer closes, at the latest now."""


class Local(NamedTuple):
    """The matcher in the same thread, and the quick way to it."""

    shard: int
    matcher: MatcherLoop
    express: Express


class Server:
    """Sockets and clock around one `Ingress`, in a reactor: `turn` comes after every `Reactor.poll`."""

    def __init__(
        self,
        context: ProcessContext,
        reactor: Reactor,
        ingress: Ingress,
        links: Sequence[ShardLink],
        carriers: Sequence[Carrier],
        local: Local | None = None,
    ) -> None:
        """`links` and `carriers`: one each per shard. `local`: the quick way to the matcher in this thread. Raises
        OSError when it cannot listen."""
        self._context = context
        self._log = context.log
        self._reactor = reactor
        self._ingress = ingress
        self._figures, self._times = context.figures, context.times
        self._tell_at_ms = 0
        self._unsent_bytes = 0
        """Of all peers."""
        self._slow_consumers = 0
        self._links = links
        self._carriers = carriers
        self._local = local
        self._pump: Pump | None = None
        if local is not None:
            local.matcher.hear_directly(local.express.identity, self._hear_directly)
            self._pump = Pump(
                reactor,
                self,
                local.matcher,
                local.express,
                shard=local.shard,
                timeout_ms=context.config.store.timeout_ms,
                figures=context.figures,
                times=context.times,
            )
            ingress.before_tick = self._tell_session
        self._send_buffer_bytes = context.config.ingress.send_buffer_bytes
        self._peers: dict[int, _Peer] = {}
        self._closing: dict[int, _Peer] = {}
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._view = memoryview(self._buffer)
        self._announced = False
        self._listener = _listen(context.config.exchange.host, context.config.tcp_port)
        self._reserve_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        reactor.watch(self._listener.fileno(), self._accept)

    def wait_ms(self, now_ms: int) -> int:
        """How long there is nothing to do if nothing arrives; asks the carriers, so it comes last before
        sleeping."""
        if self._ingress.pending:
            return 0
        for carrier in self._carriers:
            if carrier.readable():
                return 0
        deadline_ms = self._ingress.next_deadline_ms()
        if self._closing:
            deadline_ms = min(deadline_ms, min(peer.closing_at_ms or 0 for peer in self._closing.values()))
        return max(0, deadline_ms - now_ms)

    def poll(self, wait_ms: int, *, accept: bool) -> None:
        """In place of `Reactor.poll`, where there is a matcher in this thread."""
        assert self._pump is not None
        self._hear_local()
        self._pump.poll(wait_ms, accept=accept)

    def pump_rest(self, fd: int, data: bytes) -> None:
        peer = self._peers.get(fd)
        if peer is not None and peer.closing_at_ms is None:
            self._received(peer, data)

    def pump_refused(self, batches: list[Refused_]) -> None:
        local = self._local
        assert local is not None
        if self._times is not None:
            self._ingress.verified_ns = time.monotonic_ns()
        good = sum(verdict for _, _, _, verdict in batches)
        self._figures.add(Figure.SIGNATURES_GOOD, good)
        self._figures.add(Figure.SIGNATURES_BAD, len(batches) - good)
        self._ingress.verified(local.shard, batches, _now_ms())

    def pump_reports(self, entries: memoryview) -> None:
        offset, end = 0, len(entries)
        while offset < end:
            length, _, session_id = ENTRY_HEADER.unpack_from(entries, offset)
            offset += ENTRY_HEADER.size
            data = bytes(entries[offset : offset + length])
            offset += length
            connection = self._ingress.connection(session_id)
            if connection is None or connection.ended is not None:
                continue
            peer = connection.handle
            if isinstance(peer, _Peer) and peer.pumped:
                self._queue(peer, data)
                self._flush(peer)
            else:
                self._ingress.hear_report(connection, data, _now_ms())

    def turn(self) -> None:
        """Pass on what the matchers sent, then verify and forward what the clients sent.

        The first time that all matchers have answered, `ready` is announced.
        """
        now_ms = _now_ms()
        for link, carrier in zip(self._links, self._carriers, strict=True):
            self._hear(link, carrier, now_ms)
        # Reports go out before anything is verified: they have waited longest.
        self._flush_touched(self._ingress.touched())
        if self._local is not None and self._local.express.pending:
            self._verify_local(self._local)
        self._ingress.tick(now_ms)
        self._flush_touched(self._ingress.end_turn(now_ms))
        for link, carrier in zip(self._links, self._carriers, strict=True):
            if link.unsent:
                carrier.send(link.unsent)
        if self._closing:
            now_ms = _now_ms()
            for peer in [p for p in self._closing.values() if (p.closing_at_ms or 0) <= now_ms]:
                self._close(peer)
        if not self._announced and all(link.joined for link in self._links):
            self._announced = True
            host, port = self.address
            self._context.ready(host=host, port=port)
        if now_ms >= self._tell_at_ms:
            self._tell_at_ms = now_ms + _TELL_INTERVAL_MS
            self._tell()

    def _tell(self) -> None:
        """How this worker is doing, for the web process."""
        tell, counters = self._figures.set, self._ingress.counters
        tell(Figure.CONNECTIONS, counters.connections)
        tell(Figure.CONNECTIONS_REFUSED, counters.refused_connections)
        tell(Figure.FRAMES_REFUSED, counters.refused_frames)
        tell(Figure.BATCHES_BUSY, counters.busy)
        tell(Figure.SLOW_CONSUMERS, self._slow_consumers)
        tell(Figure.SESSIONS, self._ingress.connections)
        tell(Figure.UNVERIFIED_FRAMES, self._ingress.waiting)
        tell(Figure.LINK_BYTES, sum(link.in_flight_bytes for link in self._links))
        tell(Figure.UNSENT_BYTES, self._unsent_bytes)

    def close(self) -> None:
        """Tell all clients that the server stops, and close."""
        self._ingress.shut_down(_now_ms())
        self._flush_touched(self._ingress.end_turn(_now_ms()))
        for link, carrier in zip(self._links, self._carriers, strict=True):
            carrier.send(link.unsent)
        for peer in list(self._peers.values()):
            self._close(peer)
        self._reactor.forget(self._listener.fileno())
        self._listener.close()
        for carrier in self._carriers:
            carrier.close()
        if self._reserve_fd >= 0:
            os.close(self._reserve_fd)
        self._log.info("counters", extra={"zx": msgspec.structs.asdict(self._ingress.counters)})

    def _verify_local(self, local: Local) -> None:
        """Verify what came the quick way and pass it on; one by one if not all of it is good."""
        express, times = local.express, self._times
        begun_ns = time.monotonic_ns() if times is not None else 0
        good = express.verify()
        verified_ns = 0
        if times is not None:
            verified_ns = time.monotonic_ns()
            times.add(VERIFY, verified_ns - begun_ns)
        if good:
            self._figures.add(Figure.SIGNATURES_GOOD, express.pass_on(verified_ns))
        else:
            self.pump_refused(express.take_refused())

    def _hear(self, link: ShardLink, carrier: Carrier, now_ms: int) -> None:
        for message in carrier.receive(_LINK_MESSAGES_PER_TURN):
            self._ingress.link_message(link.shard, message, server_time_ns=time.time_ns(), now_ms=now_ms)

    def _hear_local(self) -> None:
        """Write what the matcher in this thread has said by messages: what it says directly comes after that."""
        assert self._local is not None
        shard = self._local.shard
        if self._carriers[shard].readable():
            while self._carriers[shard].readable():
                self._hear(self._links[shard], self._carriers[shard], _now_ms())
            self._flush_touched(self._ingress.touched())

    def _flush_touched(self, touched: list[Connection]) -> None:
        for connection in touched:
            peer = connection.handle
            if isinstance(peer, _Peer):
                self._flush(peer)

    def _accept(self, _events: int) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Anything else is trouble of that one connection, which accept() reports as its own.
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._shed()
                return
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:  # gone already
                sock.close()
                continue
            connection = self._ingress.connected(
                address[0], challenge=os.urandom(32), server_time_ns=time.time_ns(), now_ms=_now_ms()
            )
            if isinstance(connection, bytes):
                _send_once(sock, connection)
                sock.close()
                continue
            peer = _Peer(sock, connection)
            connection.handle = peer
            self._peers[sock.fileno()] = peer
            self._reactor.watch(sock.fileno(), partial(self._on_peer, peer))

    def _on_peer(self, peer: _Peer, events: int) -> None:
        if peer.full and events & (select.EPOLLHUP | select.EPOLLERR):
            self._close(peer)  # gone, and told by epoll again and again
        elif events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read(peer)
        if events & select.EPOLLOUT and peer.sock.fileno() >= 0:
            self._write(peer)
            self._hold(peer)

    def _shed(self) -> None:
        """No descriptor left: use the reserved one to take the next connection and close it, so the queue
        moves on."""
        self._log.error("out of file descriptors: a connection was refused")
        if self._reserve_fd >= 0:
            os.close(self._reserve_fd)
            self._reserve_fd = -1
        try:
            self._listener.accept()[0].close()
        except OSError:
            pass  # it went away by itself
        try:
            self._reserve_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass  # somebody was faster; the next time we try without

    def _read(self, peer: _Peer) -> None:
        try:
            count = peer.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count == 0:
            self._close(peer)
        elif peer.closing_at_ms is None:
            self._received(peer, self._view[:count])

    def _received(self, peer: _Peer, data: Buffer) -> None:
        now_ms = _now_ms()
        local = self._local
        if local is not None and not peer.connection.has_backlog and local.matcher.has_room:
            data = local.express.receive(peer.connection, data, now_ms)
        if data:
            self._ingress.received(peer.connection, data, server_time_ns=time.time_ns(), now_ms=now_ms)
        self._hold(peer)

    def _hold(self, peer: _Peer) -> None:
        """Read from this peer as its session says, and tell the pump what it may do for it."""
        pump, connection = self._pump, peer.connection
        full = connection.ended is None and connection.full
        # Not past what waits, wherever it is read.
        connection.stopped = full or (pump is not None and connection.has_backlog)
        if full != peer.full:
            peer.full = full
            self._watch(peer)
        if pump is None:
            return
        fd = peer.sock.fileno()
        if connection.ended is not None or peer.closing_at_ms is not None:
            if peer.pumped:
                peer.pumped = False
                pump.remove(fd)
            return
        if not peer.pumped and connection.established:
            public_key = connection.session.public_key
            assert public_key is not None
            peer.pumped = pump.add(fd, connection.session_id, public_key)
        if peer.pumped:
            pump.hold(
                fd, input=connection.has_backlog or connection.session.is_mid_frame, output=bool(peer.queue)
            )

    def _tell_session(self, connection: Connection) -> None:
        peer = connection.handle
        if self._pump is not None and isinstance(peer, _Peer) and peer.pumped:
            connection.session.served(*self._pump.times_of(peer.sock.fileno()))

    def _hear_directly(self, entries: memoryview) -> None:
        """Reports of the matcher in this thread: from its buffer to the sockets."""
        self._hear_local()
        now_ms = _now_ms()
        offset, end = 0, len(entries)
        while offset < end:
            length, _, session_id = ENTRY_HEADER.unpack_from(entries, offset)
            offset += ENTRY_HEADER.size
            frames = entries[offset : offset + length]
            offset += length
            connection = self._ingress.connection(session_id)
            if connection is None or connection.ended is not None:
                continue
            peer = connection.handle
            if (
                not isinstance(peer, _Peer)
                or peer.queue
                or connection.opened is not None
                or connection.session.has_output
            ):
                self._ingress.hear_report(connection, bytes(frames), now_ms)
                continue
            connection.session.sent_reports(length, now_ms)
            try:
                sent = peer.sock.send(frames)
            except BlockingIOError:
                sent = 0
            except OSError:
                continue  # the peer is gone; reading says so next, and closes
            if sent < length:
                self._queue(peer, bytes(frames[sent:]))

    def _flush(self, peer: _Peer) -> None:
        """Send what the session has to say; carry out its end."""
        self._queue(peer, peer.connection.session.take_output())
        if peer.queued_bytes > self._send_buffer_bytes and len(peer.queue) > 1 and peer.closing_at_ms is None:
            self._slow_consumers += 1
            self._ingress.slow_consumer(peer.connection, _now_ms())
            # Nobody waits for the rest, but a frame that was begun must be finished for the last one to be
            # read.
            while len(peer.queue) > 1:
                self._unsent(peer, -len(peer.queue.pop()))
            self._queue(peer, peer.connection.session.take_output())
        if peer.connection.evicted:
            self._close(peer)  # the room is needed
            return
        if peer.connection.ended is not None and peer.closing_at_ms is None:
            peer.closing_at_ms = _now_ms() + _LAST_WORDS_MS
            self._closing[peer.sock.fileno()] = peer
            self._say_no_more(peer)
        self._hold(peer)

    def _say_no_more(self, peer: _Peer) -> None:
        """All said: tell the peer, which then reads our last words and closes."""
        if peer.queue:
            return
        try:
            peer.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer was faster

    def _queue(self, peer: _Peer, data: bytes) -> None:
        if not data:
            return
        peer.queue.append(memoryview(data))
        self._unsent(peer, len(data))
        if not peer.writing:
            self._write(peer)

    def _unsent(self, peer: _Peer, more: int) -> None:
        peer.queued_bytes += more
        self._unsent_bytes += more

    def _write(self, peer: _Peer) -> None:
        queue = peer.queue
        try:
            while queue:
                sent = peer.sock.send(queue[0])
                self._unsent(peer, -sent)
                if sent < len(queue[0]):
                    queue[0] = queue[0][sent:]
                    break
                queue.popleft()
        except BlockingIOError:
            pass
        except OSError:
            # The peer is gone; reading says so next, and closes.
            queue.clear()
            self._unsent(peer, -peer.queued_bytes)
        if bool(queue) != peer.writing:
            peer.writing = bool(queue)
            self._watch(peer)
            if not queue and peer.closing_at_ms is not None:
                self._say_no_more(peer)

    def _watch(self, peer: _Peer) -> None:
        self._reactor.change(
            peer.sock.fileno(),
            (0 if peer.full else select.EPOLLIN) | (select.EPOLLOUT if peer.writing else 0),
        )

    def _close(self, peer: _Peer) -> None:
        fd = peer.sock.fileno()
        if peer.pumped and self._pump is not None:
            self._pump.remove(fd)
        del self._peers[fd]
        self._closing.pop(fd, None)
        self._reactor.forget(fd)
        peer.sock.close()
        peer.queue.clear()
        self._unsent(peer, -peer.queued_bytes)
        self._ingress.disconnected(peer.connection)


def run(worker: int, data: Path, config_file: Path | None, overrides: dict[str, str]) -> None:
    """Run one ingress worker until it is asked to stop. Raises SystemExit with the reason's exit status."""
    with (
        process_context(f"ingress-{worker}", data, config_file, overrides) as context,
        ExitStack() as cleanup,
    ):
        try:
            check_store(context.paths, context.config)  # what the acknowledgement of a logon promises
        except (StoreUnavailable, StoreRefused) as error:
            context.log.error("the store does not answer: %s", error)
            raise SystemExit(EXIT_STORE) from None
        reactor = Reactor()
        cleanup.callback(reactor.close)
        reactor.watch(context.stop_fd, lambda _events: None)
        if context.times is not None:
            cleanup.callback(context.times.write, context.paths.stages(context.name), context.name)
        server = cleanup.enter_context(serving(context, reactor, worker))
        # The loop makes no reference cycles; a collection would only delay everybody.
        gc.collect()
        gc.freeze()
        gc.disable()
        loop(context, reactor, server)


def loop(context: ProcessContext, reactor: Reactor, server: Server) -> None:
    """Turn by turn until asked to stop."""
    while not context.stopping:
        reactor.poll(server.wait_ms(_now_ms()))
        server.turn()


@contextmanager
def serving(
    context: ProcessContext,
    reactor: Reactor,
    worker: int,
    matcher: tuple[int, MatcherLoop] | None = None,
) -> Iterator[Server]:
    """The server of one worker, closed at the end with all it has opened.

    `matcher`: shard and loop of a matcher in this thread; the others are reached over ZeroMQ. Raises Refused.
    """
    from zexchange import frames

    try:
        signing.self_test()
        frames.self_test()
    except RuntimeError as error:
        raise Refused(f"signatures are not judged as the other processes judge them: {error}") from error
    settings = ingress_settings(context.config, descriptor_limit(context.log))
    shards = range(context.genesis.shards)
    links = [
        ShardLink(shard, int.from_bytes(os.urandom(8), "little"), settings.max_in_flight_bytes)
        for shard in shards
    ]
    verifiers = _verifiers(verify_threads(context.config, has_company=matcher is not None))

    def verify_counted(batches: Sequence[bytes], deployment_id: bytes) -> Sequence[bool]:
        verdicts = verify_timed(context.times, batches, deployment_id)
        good = sum(verdicts)
        context.figures.add(Figure.SIGNATURES_GOOD, good)
        context.figures.add(Figure.SIGNATURES_BAD, len(verdicts) - good)
        return verdicts

    def verify_timed(
        times: StageTimes | None, batches: Sequence[bytes], deployment_id: bytes
    ) -> Sequence[bool]:
        if times is None:
            return verifiers.verify(batches, deployment_id)
        begun_ns = time.monotonic_ns()
        verdicts = verifiers.verify(batches, deployment_id)
        ingress.verified_ns = time.monotonic_ns()
        times.add(VERIFY, ingress.verified_ns - begun_ns)
        return verdicts

    ingress = Ingress(
        settings,
        context.genesis,
        links,
        verify=verify_counted,
        check_batch=frames.check_frame,
        scan_batches=frames.scan_batches,
    )
    identity = f"ingress-{worker}".encode("ascii")
    local = None
    if matcher is not None:
        shard, loop = matcher
        express = Express(loop.core, identity, shard, context.genesis.deployment_id, verifiers)
        local = Local(shard, loop, express)
    # Its thread is started with the first socket: none where all matchers are in this thread.
    zmq_context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    carriers: list[Carrier] = [
        LocalCarrier(partial(local.matcher.connect, identity))
        if local is not None and local.shard == shard
        else ZmqCarrier(zmq_context, reactor, identity, context.paths.matcher_address(shard))
        for shard in shards
    ]
    try:
        server = Server(context, reactor, ingress, links, carriers, local)
    except OSError as error:
        for carrier in carriers:
            carrier.close()
        zmq_context.term()
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        exchange = context.config.exchange
        raise Refused(
            f"cannot listen on {exchange.host}:{context.config.tcp_port}: {error.strerror}"
        ) from error
    try:
        yield server
    finally:
        server.close()
        zmq_context.term()


def make_companion(worker: int) -> MakeCompanion:
    """An ingress worker for the thread of a matcher."""

    def make(
        context: ProcessContext,
        reactor: Reactor,
        matcher: MatcherLoop,
        shard: int,
    ) -> AbstractContextManager[Companion]:
        return serving(context, reactor, worker, (shard, matcher))

    return make


def _verifiers(helpers: int) -> Verifiers:
    """Helpers run anywhere, also where this thread is pinned: they are for the cores that it does not use."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, usable_cpus())
    try:
        return Verifiers(helpers)
    finally:
        os.sched_setaffinity(0, mine)


def verify_threads(config: Config, *, has_company: bool) -> int:
    """Threads that help to verify: by default one per core that is left, if the worker is the only one."""
    setting = config.ingress.verify_threads
    if setting != "auto":
        return setting
    return min(VERIFY_THREADS_MAX, len(physical_cores()) - 1) if has_company else 0


def ingress_settings(config: Config, descriptors: int) -> IngressSettings:
    """The settings of one worker, within `descriptors` open files."""
    section = config.ingress
    max_sessions = max(1, min(section.max_sessions, descriptors - _DESCRIPTORS_RESERVED))
    return IngressSettings(
        session=SessionSettings(
            establish_timeout_ms=section.establish_timeout_ms,
            frame_timeout_ms=section.frame_timeout_ms,
            max_strikes=section.max_strikes,
        ),
        admission=AdmissionLimits(
            max_sessions=max_sessions,
            max_sessions_per_ip=section.max_sessions_per_ip,
            max_unestablished=max(64, max_sessions // 10),
            max_unestablished_per_ip=max(16, max_sessions // 40),
            strike_penalty_ms=section.strike_penalty_ms,
        ),
        max_in_flight_bytes=section.max_in_flight_bytes,
        durability=durability(config),
    )


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener


def _send_once(sock: socket.socket, data: bytes) -> None:
    try:
        sock.send(data)
    except OSError:
        pass  # refused anyway


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
