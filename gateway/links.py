"""The ingress end of the links to the matchers: `ShardLink` is the pure part, a `Carrier` moves its messages.

`ZmqCarrier` reaches a matcher in another process, `LocalCarrier` one in the same thread.

A link is joined when the matcher answers the first PING of an instance with a PONG. From then on both
directions are numbered (zexchange/matcher/link.py). When the matcher does not know the instance, or a number is
missing, the link begins a new instance, and the ingress ends all sessions: their clients come back and send
again what was not answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import zmq

from zexchange.limits import LINK_MESSAGE_BYTES_MAX
from zexchange.matcher import link
from zexchange.matcher.link import Entry, Kind, LinkMessageInvalid
from zexchange.runtime.reactor import Reactor
from zexchange.wire.messages import NotApplied

PING_INTERVAL_MS = 500
"""How often a link is probed: a matcher that restarted is noticed within this time even if nobody trades."""

QUERIES_IN_FLIGHT_MAX = 32
"""Queries that a matcher has to answer at a time for one worker: an answer can take a tenth of a millisecond, and
orders queue behind it."""

_TEMPLATE_ID = slice(8, 10)
_NOT_APPLIED = NotApplied.TEMPLATE_ID.to_bytes(2, "little")

_QUEUE_MESSAGES = 4_096
_FOR_SESSIONS = frozenset({int(Kind.OPENED), int(Kind.FRAME), int(Kind.REPORTS), int(Kind.REJECTED)})


class LinkBroken(Exception):
    """The matcher has lost what it knew of us, or we lost a message of its. The link has begun anew."""


class ShardLink:
    """One link as a state machine: entries in, numbered messages out, and the other way round."""

    def __init__(self, shard: int, instance: int, max_in_flight_bytes: int) -> None:
        """`instance`: random, so that no matcher can know it from an earlier ingress."""
        self.shard = shard
        self.joined = False
        self.epoch = 0
        self.unsent: deque[bytes] = deque()
        self._next_ping_ms = 0
        self._max_in_flight_bytes = max_in_flight_bytes
        self._begin(instance)

    @property
    def busy(self) -> bool:
        """The matcher is not there or does not keep up: refuse logons, batches and queries."""
        return not self.joined or bool(self.unsent) or self._in_flight_bytes >= self._max_in_flight_bytes

    @property
    def in_flight_bytes(self) -> int:
        """Of messages that the matcher has not dealt with."""
        return self._in_flight_bytes

    @property
    def query_room(self) -> int:
        """How many more queries may be added now; none is lost but with the link."""
        return QUERIES_IN_FLIGHT_MAX - self._queries

    def add(self, kind: Kind, session_id: int, payload: bytes = b"") -> None:
        """Queue an entry for the next message."""
        if kind == Kind.QUERY:
            self._queries += 1
        self._outbox.add(link.entry(kind, session_id, payload))

    def end_turn(self, verified_ns: int = 0) -> None:
        """Put what was added into messages; the shell sends `unsent`. `verified_ns`: when the batches among it were
        verified, 0 if nobody measures."""
        for message in self._outbox.take(verified_ns):
            self.unsent.append(message)
            self._in_flight_bytes += len(message)
            self._in_flight.append((self._outbox.next_seq - 1, len(message)))

    def tick(self, now_ms: int) -> None:
        """Probe the link if it is time."""
        if now_ms >= self._next_ping_ms:
            self._next_ping_ms = now_ms + PING_INTERVAL_MS
            if not self.unsent:
                self.add(Kind.PING, 0)

    def next_deadline_ms(self) -> int:
        return self._next_ping_ms

    def received(self, message: bytes) -> list[Entry]:
        """OPENED, REJECTED, FRAME and REPORTS entries of one message of the matcher, in order.

        Raises `LinkBroken` when the sessions over this link are lost; the link has then begun a new instance.
        """
        try:
            decoded = link.decode(message)
        except LinkMessageInvalid as error:
            raise self._broken(str(error)) from error
        if decoded.instance != self._outbox.instance:
            return []
        if any(item.kind == Kind.UNKNOWN for item in decoded.entries):
            raise self._broken("the matcher does not know this link")
        if decoded.seq != self._next_seq:
            raise self._broken(f"message {self._next_seq} was expected, {decoded.seq} came")
        self._next_seq += 1
        while self._in_flight and self._in_flight[0][0] <= decoded.acked:
            self._in_flight_bytes -= self._in_flight.popleft()[1]
        entries = []
        for item in decoded.entries:
            if item.kind == Kind.PONG:
                self.joined = True
                (self.epoch,) = link.PONG.unpack(item.payload)
            elif item.kind in _FOR_SESSIONS:
                entries.append(item)
                if item.kind == Kind.FRAME and self._queries and item.payload[_TEMPLATE_ID] != _NOT_APPLIED:
                    self._queries -= 1
        return entries

    def _broken(self, why: str) -> LinkBroken:
        self._begin(self._outbox.instance + 1)
        return LinkBroken(f"shard {self.shard}: {why}")

    def _begin(self, instance: int) -> None:
        self.joined = False
        self.unsent.clear()
        self._outbox = link.Outbox(instance & (2**64 - 1))
        self._next_seq = 1
        self._in_flight: deque[tuple[int, int]] = deque()
        self._in_flight_bytes = 0
        self._queries = 0
        """Without an answer: each gets exactly one, which is a frame of its session, as a refused batch is."""
        self._next_ping_ms = 0


class Carrier(Protocol):
    """Takes messages to one matcher and brings its own."""

    def send(self, unsent: deque[bytes]) -> None:
        """Send from the front of `unsent` as far as possible now."""

    def receive(self, at_most: int) -> list[bytes]:
        """Messages that have arrived, up to `at_most`."""

    def readable(self) -> bool:
        """Whether `receive` may have something. Must be asked before sleeping."""

    def close(self) -> None:
        """Nothing is sent or received after this."""


class LocalCarrier:
    """To a matcher in the same thread, by a call: nothing to copy, nobody to wake."""

    def __init__(self, connect: Callable[[Callable[[bytes], None]], Callable[[bytes], None]]) -> None:
        """`connect` is given what hears the matcher, and returns what the matcher hears."""
        self._arrived: deque[bytes] = deque()
        self._deliver = connect(self._arrived.append)

    def send(self, unsent: deque[bytes]) -> None:
        while unsent:
            self._deliver(unsent.popleft())

    def receive(self, at_most: int) -> list[bytes]:
        return [self._arrived.popleft() for _ in range(min(at_most, len(self._arrived)))]

    def readable(self) -> bool:
        return bool(self._arrived)

    def close(self) -> None:
        self._deliver = self._drop

    @staticmethod
    def _drop(message: bytes) -> None:
        """Where messages go that nobody will read any more."""


class ZmqCarrier:
    """The DEALER socket of one link.

    Its descriptor is edge-triggered: it becomes readable only when something changed since we last looked. So
    it is looked at when it says so and after everything we did with it, and not otherwise: each look costs a
    system call.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], reactor: Reactor, identity: bytes, address: str
    ) -> None:
        socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, identity)
        socket.setsockopt(zmq.LINGER, 0)
        # Without a matcher nothing may be queued: a message is sent to one that is there, or kept and
        # counted by us.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.SNDHWM, _QUEUE_MESSAGES)
        socket.setsockopt(zmq.RCVHWM, _QUEUE_MESSAGES)
        socket.setsockopt(zmq.SNDTIMEO, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 10)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1_000)
        socket.setsockopt(zmq.MAXMSGSIZE, LINK_MESSAGE_BYTES_MAX)
        socket.connect(address)
        self._socket = socket
        self._look = True
        self._reactor = reactor
        self._fd: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]
        reactor.watch(self._fd, self._on_change)

    def send(self, unsent: deque[bytes]) -> None:
        while unsent:
            self._look = True
            try:
                self._socket.send(unsent[0], zmq.NOBLOCK)
            except zmq.Again:
                return
            unsent.popleft()

    def receive(self, at_most: int) -> list[bytes]:
        messages: list[bytes] = []
        while self._look and len(messages) < at_most:
            try:
                messages.append(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                self._look = False
        return messages

    def readable(self) -> bool:
        if self._look:
            events = self._socket.getsockopt(zmq.EVENTS)
            assert isinstance(events, int)
            self._look = bool(events & zmq.POLLIN)
        return self._look

    def close(self) -> None:
        self._reactor.forget(self._fd)
        self._socket.close()

    def _on_change(self, _events: int) -> None:
        self._look = True
