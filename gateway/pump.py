"""The loop of a process that is ingress and matcher in one thread: csrc/pump.h, and what it leaves to Python.

The pump works alone while orders come in and reports go out. What it hands over is dealt with by the same cores
and shells as in processes of their own, and the state they share is brought up to date before they are called.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, Protocol

from gateway.express import Express, Refused
from zexchange.limits import EXECUTION_REPORT_BYTES
from zexchange.log.journal import log_key
from zexchange.matcher.loop import MatcherLoop
from zexchange.matcher.sealing import NativeSeal
from zexchange.native import ffi, lib, sign_open
from zexchange.runtime.figures import Figures
from zexchange.runtime.reactor import Reactor
from zexchange.runtime.stages import StageTimes

_RUN_HEADER = struct.Struct("<II")
_NO_LINK = 2**32 - 1


class PeerTimes(NamedTuple):
    """What the pump did with a session that Python keeps the time of. Milliseconds of the monotonic clock."""

    received_ms: int
    sent_ms: int
    sent_bytes: int
    """Of reports, since this was last asked."""


class PumpHost(Protocol):
    """The server whose sessions the pump serves."""

    def pump_rest(self, fd: int, data: bytes) -> None:
        """Bytes of a session that are not batches."""

    def pump_refused(self, batches: list[Refused]) -> None:
        """Batches of one turn of which at least one has a bad signature."""

    def pump_reports(self, entries: memoryview) -> None:
        """REPORTS entries that could not be written at once, in order; those of pumped sessions are counted."""


class Pump:
    """One worker's and one matcher's loop. `poll` in place of `Reactor.poll`."""

    def __init__(
        self,
        reactor: Reactor,
        host: PumpHost,
        matcher: MatcherLoop,
        express: Express,
        *,
        shard: int,
        timeout_ms: int,
        figures: Figures,
        times: StageTimes | None,
    ) -> None:
        """`figures` are told what is waiting; `times`, those of `figures`, count what the stages take."""
        core = matcher.core
        seal = core.seal
        assert isinstance(seal, NativeSeal), "the pump needs the engine in C"
        self._reactor = reactor
        self._host = host
        self._matcher = matcher
        self._express = express
        self._landed = 0
        self._kept = (
            core,
            express,
            figures,
            ffi.new("char[]", log_key(shard).encode("ascii")),
            ffi.new("uint8_t[]", express.deployment_id),
        )
        """What the pump points to."""
        parts = ffi.new("pump_parts *")
        parts.shard = seal.engine_handle
        parts.seal = seal.handle
        parts.express = express.handle
        parts.inbox = core.inbox.handle
        parts.routes = core.routes.handle
        parts.verifiers = express.verifiers.handle
        parts.figures = figures.handle
        parts.stages = ffi.NULL if times is None else times.handle
        parts.sign_open = sign_open
        parts.log_key = self._kept[3]
        parts.deployment_id = self._kept[4]
        parts.timeout_ms = timeout_ms
        parts.body_max = core.max_body_bytes
        parts.queued_max = matcher.max_queued
        parts.shard_number = shard
        parts.epoll_fd = reactor.fileno()
        out = ffi.new("pump **")
        if lib.pump_create(parts, out) != lib.ZX_OK:
            raise MemoryError("the pump's buffers could not be reserved")
        self._handle: Any = ffi.gc(out[0], lib.pump_destroy)

    def add(self, fd: int, session_id: int, public_key: bytes) -> bool:
        """An established session takes the quick way from now on; False if its descriptor is too large."""
        return bool(lib.pump_add(self._handle, fd, session_id, public_key))

    def remove(self, fd: int) -> None:
        """It does not any more."""
        lib.pump_remove(self._handle, fd)

    def hold(self, fd: int, *, input: bool, output: bool) -> None:
        """Leave the session's input, or its output, to Python for now."""
        peer = self._handle.peers[fd]
        peer.input_held = input
        peer.output_held = output

    def times_of(self, fd: int) -> PeerTimes:
        """When the session was last heard of and written to."""
        peer = self._handle.peers[fd]
        times = PeerTimes(peer.received_ms, peer.sent_ms, peer.sent_bytes)
        peer.sent_bytes = 0
        return times

    def poll(self, wait_ms: int, *, accept: bool) -> None:
        """Work until something is for Python, at most for `wait_ms`, and deal with that. `accept`: seal batches."""
        handle, matcher, core = self._handle, self._matcher, self._matcher.core
        link = core.link_number(self._express.identity)
        handle.link = _NO_LINK if link is None else link
        handle.store_fd = matcher.appender.fd
        handle.may_queue = not matcher.holds
        handle.may_seal = accept and core.only_direct and not matcher.appender.busy
        handle.waits = matcher.appender.busy
        attention = lib.pump_run(handle, min(wait_ms, 60_000))
        core.direct_frames_added(self._express.identity, handle.added)
        if handle.landed_batches != self._landed:
            self._landed = handle.landed_batches
            batch = ffi.buffer(handle.landed, handle.landed_bytes)[:]
            matcher.appender.landed_elsewhere(handle.landed_first_record_no, batch)
        if handle.tape_trades:
            core.saw_trades(ffi.buffer(handle.tape, handle.tape_trades * EXECUTION_REPORT_BYTES)[:])
            handle.tape_trades = 0
        matcher.busy = bool(handle.in_flight) or matcher.appender.busy
        if attention:
            self._attend(attention)

    def _attend(self, attention: int) -> None:
        handle = self._handle
        # Copied first: what is called may run into the same buffers.
        events = [(event.fd, event.events) for event in handle.events[0 : handle.event_count]]
        rest = ffi.buffer(handle.rest, handle.rest_bytes)[:] if attention & lib.PUMP_REST else b""
        if attention & lib.PUMP_KEYS:
            self._matcher.core.keys_registered()
        if attention & lib.PUMP_HANDOFF:
            self._hand_off()
        if attention & lib.PUMP_REFUSED:
            self._host.pump_refused(self._express.take_refused())
        if attention & lib.PUMP_STORE:
            self._matcher.settle(ffi.buffer(handle.reply, handle.reply_bytes)[:])
        if rest:
            self._host.pump_rest(handle.rest_fd, rest)
        for fd, happened in events:
            self._reactor.dispatch(fd, happened)

    def _hand_off(self) -> None:
        handle = self._handle
        runs = memoryview(ffi.buffer(handle.handoff, handle.handoff_bytes))
        offset = 0
        while offset < len(runs):
            link, length = _RUN_HEADER.unpack_from(runs, offset)
            offset += _RUN_HEADER.size
            entries = runs[offset : offset + length]
            offset += length
            if link == handle.link:
                self._host.pump_reports(entries)
            else:
                self._matcher.core.add_reports(link, entries)
        self._matcher.send_releases()
