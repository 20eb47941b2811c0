"""The matcher's shell: messages in, one batch in flight, releases out.

    ROUTER, or an ingress in the same thread ─▶ MatcherCore.receive      as they come
    MatcherCore.drain ─▶ Appender.begin                                  whenever no batch is in flight
    Appender.on_landed ─▶ releases ─▶ ROUTER, or the ingress             only then

While the store syncs a batch to disk, what arrives is queued; that becomes the next batch. There is no timer and
nothing to tune: the batch grows with the load.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import zmq

from zexchange.limits import LINK_MESSAGE_BYTES_MAX
from zexchange.matcher.appender import Appender
from zexchange.matcher.core import MatcherCore, Release
from zexchange.matcher.link import LinkMessageInvalid
from zexchange.matcher.sealing import NativeSeal
from zexchange.runtime.figures import Figure, Figures
from zexchange.runtime.reactor import Reactor
from zexchange.runtime.stages import ACKNOWLEDGE, APPEND, BUS, MATCH, PUBLISH, StageTimes

_QUEUE_MESSAGES = 4_096
"""High-water mark of the socket, per ingress and direction. Ingress workers stop well before, by bytes not
acknowledged."""

_RECEIVES_PER_TURN = 256
"""Messages taken from the socket before the next drain: a batch is full long before, unless they hold
queries only."""

_LONGEST_WAIT_MS = 60_000

_TELL_INTERVAL_MS = 100
"""Between two looks at the queues; pings of the ingress workers make a turn at least twice a second."""


class RouterSocket:
    """The socket that ingress workers connect to; its folder is private, and the lock was taken before.

    Its descriptor is edge-triggered: after every send and receive it must be looked at again.
    """

    def __init__(self, address: str) -> None:
        self._context = zmq.Context(io_threads=1)
        socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, _QUEUE_MESSAGES)
        socket.setsockopt(zmq.RCVHWM, _QUEUE_MESSAGES)
        socket.setsockopt(zmq.SNDTIMEO, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, LINK_MESSAGE_BYTES_MAX)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket = socket
        try:
            socket.bind(address)
        except BaseException:
            self.close()
            raise
        self.fd: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]

    def receive(self) -> list[bytes] | None:
        """The parts of one message, or None when there is none."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def send(self, release: Release) -> None:
        """Raises zmq.Again when the ingress does not take its messages, ZMQError(EHOSTUNREACH) when it is
        gone."""
        self._socket.send_multipart(release, zmq.NOBLOCK)

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class MatcherLoop:
    """One shard in a reactor. `turn` comes after every `Reactor.poll`."""

    def __init__(
        self,
        core: MatcherCore,
        reactor: Reactor,
        router: RouterSocket,
        max_queued: int,
        log: logging.Logger,
        figures: Figures,
        times: StageTimes | None = None,
    ) -> None:
        """`max_queued`: frames that may wait. `figures` are told how many do, `times` counts what the stages take."""
        self._core = core
        self._router = router
        self.max_queued = max_queued
        self._log = log
        self._figures = figures
        self._tell_at_ms = 0
        self._times = times
        self._begun_ns = 0
        self.busy = False
        """A batch is on its way to the disk."""
        self._direct: tuple[bytes, Callable[[memoryview], None]] | None = None
        self._local: dict[bytes, Callable[[bytes], None]] = {}
        self._held: deque[Release] = deque()
        """Of an ingress in this thread, while the core has no room; a router holds its own."""
        self._look = True
        """The router may hold a message, whatever its descriptor says."""
        reactor.watch(router.fd, self._on_router)

    def append_with(self, appender: Appender) -> None:
        """The appender, whose `on_landed` is `landed`; must be called before anything else."""
        self.appender = appender

    def settle(self, reply: bytes) -> None:
        """A batch that an ingress in this thread has had applied and sent is in doubt; `reply` is what the store
        said."""
        seal = self._core.seal
        assert isinstance(seal, NativeSeal)
        batch, first_record_no, _, events = seal.last()
        self._core.applied_elsewhere(first_record_no, events)
        self.busy = True
        self.appender.settle(first_record_no, batch, reply)

    @property
    def core(self) -> MatcherCore:
        """For an ingress in this thread, which puts frames into its inbox."""
        return self._core

    @property
    def has_room(self) -> bool:
        """Whether more may be queued, behind all that came before it."""
        return not self._held and self._core_has_room

    @property
    def holds(self) -> bool:
        """Messages of an ingress in this thread wait for room."""
        return bool(self._held)

    @property
    def _core_has_room(self) -> bool:
        return self._core.queued < self.max_queued and self._core.has_room

    def hear_directly(self, identity: bytes, hear: Callable[[memoryview], None]) -> None:
        """Give the reports of one ingress in this thread to `hear`, as `MatcherCore.release` does."""
        self._direct = identity, hear

    def connect(self, identity: bytes, hear: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Link an ingress in this thread: returns what takes its messages; ours go to `hear`."""
        self._local[identity] = hear

        def deliver(message: bytes) -> None:
            if not self.has_room:
                self._held.append((identity, message))
            else:
                self._receive(identity, message)

        return deliver

    def wait_ms(self, now_ms: int) -> int:
        """How long there is nothing to do if nothing arrives."""
        if (self._look or self._held) and self._core_has_room:
            return 0
        if not self.busy:
            return 0 if self._core.pending else self._due_in_ms()
        deadline_ms = self.appender.deadline_ms()
        return _LONGEST_WAIT_MS if deadline_ms is None else max(0, deadline_ms - now_ms)

    def turn(self, now_ms: int, *, accept: bool = True) -> None:
        """Take what has arrived; send the next batch if none is in flight and `accept`."""
        self._turn(now_ms, accept)
        if now_ms >= self._tell_at_ms:
            self._tell_at_ms = now_ms + _TELL_INTERVAL_MS
            frames = len(self._core.inbox)
            self._figures.set(Figure.QUEUED_FRAMES, frames)
            self._figures.set(Figure.QUEUED_OTHERS, self._core.queued - frames + len(self._held))
            self._figures.set(Figure.BATCHES_IN_FLIGHT, self.busy)

    def _turn(self, now_ms: int, accept: bool) -> None:
        while self._held and self._core_has_room:
            self._receive(*self._held.popleft())
        if self._look:
            self._drain_router()
        if self.busy:
            self.appender.tick(now_ms)
            return
        if accept and not self._core.pending and self._due_in_ms() == 0:
            self._core.let_time_pass()
        while accept and self._core.pending:
            begun_ns = time.monotonic_ns()
            batch = self._core.drain(time.time_ns())
            if batch is None:
                self._release()
                continue
            self.busy = True
            if self._times is not None:
                self._begun_ns = time.monotonic_ns()
                self._times.add(MATCH, self._begun_ns - begun_ns)
                self._times.add_waits(self._core.inbox.handle, begun_ns, BUS)
            self.appender.begin(batch.first_record_no, batch.raw, now_ms)
            if self.busy:
                return

    def _due_in_ms(self) -> int:
        """How long until something happens although nothing arrives, rounded up."""
        due_ns = self._core.next_due_ns
        if due_ns is None:
            return _LONGEST_WAIT_MS
        return min(_LONGEST_WAIT_MS, max(0, -((time.time_ns() - due_ns) // 1_000_000)))

    def landed(self) -> None:
        """The batch in flight is on disk: only now may anyone hear of it."""
        self.busy = False
        if self._times is None:
            self._release()
            return
        landed_ns = time.monotonic_ns()
        self._times.add(APPEND, landed_ns - self._begun_ns)
        self._release()
        released_ns = time.monotonic_ns()
        self._times.add(PUBLISH, released_ns - landed_ns)
        self._times.add_waits(self._core.inbox.handle, released_ns, ACKNOWLEDGE)

    def _on_router(self, _events: int) -> None:
        self._look = True

    def _drain_router(self) -> None:
        for _ in range(_RECEIVES_PER_TURN):
            if not self.has_room:
                return
            parts = self._router.receive()
            if parts is None:
                self._look = False
                return
            try:
                identity, message = parts
            except ValueError:
                self._log.error("a link message was dropped", extra={"zx": {"parts": len(parts)}})
                continue
            self._receive(identity, message)

    def _receive(self, identity: bytes, message: bytes) -> None:
        try:
            self._core.receive(identity, message)
        except LinkMessageInvalid as error:
            self._log.error("a link message was dropped", extra={"zx": {"error": str(error)}})

    def _release(self) -> None:
        if self._direct is None:
            releases = self._core.release()
        else:
            identity, hear_reports = self._direct
            releases = self._core.release(self._core.link_number(identity), hear_reports)
        self._send(releases)

    def send_releases(self) -> None:
        """Send what is released already."""
        self._send(self._core.outgoing())

    def _send(self, releases: list[Release]) -> None:
        for release in releases:
            identity, message = release
            hear = self._local.get(identity)
            if hear is not None:
                hear(message)
                continue
            self._look = True
            try:
                self._router.send(release)
            except zmq.Again:
                # The ingress does not take its messages. It will see the gap in their numbers and end its
                # sessions.
                self._figures.add(Figure.LINK_DROPS)
                self._log.error("an ingress does not keep up", extra={"zx": {"ingress": repr(identity)}})
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._core.lost(identity)
                self._log.warning("an ingress is gone", extra={"zx": {"ingress": repr(identity)}})
