"""Frames that wait for the matcher and the body of the next batch: the Python face of csrc/inbox.h. Pure."""

from __future__ import annotations

from typing import Any

from zexchange.matcher.link import LinkMessageInvalid
from zexchange.native import ffi, lib

FRAMES: int = lib.INBOX_FRAMES
"""Item: `count` frames of one link are in the queue."""
REFUSED: int = lib.INBOX_REFUSED
"""Item: a frame that is no well-formed batch; `count` is the ReasonCode. It is not in the queue."""


NO_LINK = 2**32 - 1
"""Number of no link."""

Item = tuple[int, int, bytes, int]
"""Entries of one link message, in order: kind (FRAMES, REFUSED or that of the entry), session id, payload,
count."""


class Inbox:
    """Not thread-safe."""

    def __init__(self) -> None:
        out = ffi.new("inbox **")
        if lib.inbox_create(out) != lib.ZX_OK:
            raise MemoryError("the queue of frames could not be reserved")
        self._handle = ffi.gc(out[0], lib.inbox_destroy)
        self._body = ffi.buffer(self._handle.body, lib.INBOX_BODY_BYTES_MAX)
        self.origins: Any = self._handle.origins
        """Who sent the frames of the body, by their place in it."""

    @property
    def handle(self) -> Any:
        """`inbox *` for other calls into C; valid as long as this object."""
        return self._handle

    def __len__(self) -> int:
        """Frames in the queue, those of the body included."""
        return int(self._handle.frames)

    @property
    def has_room(self) -> bool:
        """Whether any link message fits."""
        return bool(lib.inbox_has_room(self._handle))

    def receive(self, link: int, message: bytes) -> list[Item]:
        """Take in one link message; needs room. Raises LinkMessageInvalid; then nothing of it was taken."""
        handle = self._handle
        found = lib.inbox_receive(handle, link, message, len(message))
        if found < 0:
            raise LinkMessageInvalid(
                f"a link message of {len(message)} bytes does not hold whole, known entries"
            )
        items = []
        for index in range(found):
            item = handle.items[index]
            kind = item.kind
            if kind == FRAMES:
                items.append((kind, 0, b"", item.count))
            else:
                payload = message[item.offset : item.offset + item.length]
                items.append((kind, item.session_id, payload, item.count))
        return items

    def take(self, frames_max: int, body_max: int, link: int, asked: list[int]) -> int:
        """Add frames to the body, in order, until it would exceed `body_max` bytes or the next one is of `link`
        and one of these sessions. Returns how many; `frames_max` if nothing stopped it."""
        return int(lib.inbox_take(self._handle, frames_max, body_max, link, asked or ffi.NULL, len(asked)))

    @property
    def taken(self) -> int:
        """Frames in the body."""
        return int(self._handle.taken)

    def body(self) -> bytes:
        """The frames that were taken."""
        return bytes(self._body[: self._handle.body_bytes])

    def commit(self, applied: int) -> None:
        """The first `applied` frames of the body are done with; the others are in the queue again."""
        lib.inbox_commit(self._handle, applied)
