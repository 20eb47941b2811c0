"""The quick way for orders where ingress and matcher share a thread: bytes of a client to the matcher's queue, and
its reports to the socket, without a link message in between (csrc/express.h).

Only whole, good batches of established sessions take it; whatever else a session says goes through `Ingress`,
and the order of what one session says is kept: `receive` is used only while nothing of the turn waits in
`Ingress`, and its turn ends before that of `Ingress`. Pure, like `Ingress`.
"""

from __future__ import annotations

from typing import Any

from gateway.ingress import Connection
from zexchange.frames import DEPLOYMENT_ID_BYTES, Verifiers
from zexchange.matcher.core import MatcherCore
from zexchange.native import ffi, lib, sign_open
from zexchange.wire.messages import Buffer
from zexchange.wire.session import State

_NONCE = slice(110, 118)
"""Of a batch frame."""


Refused = tuple[int, int, bytes, bool]
"""Session id, nonce, frame and verdict of one batch."""


class Express:
    """Between one ingress worker and the matcher of `shard` in its thread."""

    def __init__(
        self, core: MatcherCore, identity: bytes, shard: int, deployment_id: bytes, verifiers: Verifiers
    ) -> None:
        """`identity`: of the worker, as the matcher knows it."""
        assert len(deployment_id) == DEPLOYMENT_ID_BYTES
        out = ffi.new("express **")
        if lib.express_create(out) != lib.ZX_OK:
            raise MemoryError("the frames of a turn could not be reserved")
        self._handle = ffi.gc(out[0], lib.express_destroy)
        self._core = core
        self.identity = identity
        self._shard = shard
        self.deployment_id = deployment_id
        self.verifiers = verifiers
        self._link: int | None = None

    @property
    def handle(self) -> Any:
        """`express *` for other calls into C; valid as long as this object."""
        return self._handle

    def receive(self, connection: Connection, data: Buffer, now_ms: int) -> Buffer:
        """Take the batches that an established session's bytes begin with; returns what `Ingress` is to get."""
        session = connection.session
        public_key = session.public_key
        if session.state is not State.ESTABLISHED or public_key is None:
            return data
        stream = session.unfinished(data)
        taken = lib.express_receive(
            self._handle, connection.session_id, public_key, self._shard, ffi.from_buffer(stream), len(stream)
        )
        if taken:
            session.took_batches(now_ms)
        return stream[taken:]

    @property
    def pending(self) -> bool:
        """Something was taken in this turn."""
        return bool(self._handle.pending)

    def verify(self) -> bool:
        """Verify what was taken in this turn: True if all of it is good. Then `pass_on` it, else `take_refused`."""
        return not lib.express_verify(self._handle, self.verifiers.handle, sign_open, self.deployment_id)

    def pass_on(self, verified_ns: int) -> int:
        """Queue for the matcher what is verified and good; returns how many. `verified_ns`: when that was found, 0 if
        nobody measures."""
        if self._link is None:
            self._link = self._core.link_number(self.identity)
            assert self._link is not None, "sessions are opened over the link"
        count = int(self._handle.pending)
        lib.express_pass_on(self._handle, self._core.inbox.handle, self._link, verified_ns)
        self._core.direct_frames_added(self.identity, count)
        return count

    def take_refused(self) -> list[Refused]:
        """What was verified and not queued, because not all of it is good."""
        handle = self._handle
        found = []
        offset = 0
        for index in range(handle.pending):
            frame = ffi.unpack(ffi.cast("char *", handle.frames + offset), handle.lengths[index])
            offset += len(frame)
            nonce = int.from_bytes(frame[_NONCE], "little")
            found.append((handle.sessions[index], nonce, frame, handle.verdicts[index] == 1))
        lib.express_clear(handle)
        return found
