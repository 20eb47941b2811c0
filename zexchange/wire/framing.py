"""Cuts a byte stream into frames by the Simple Open Framing Header, without ever holding more than one
frame's worth.

A frame is `u32 big-endian length of the whole frame || u16 big-endian 0xEB50 || SBE message`. The splitter
looks at nothing behind the framing header; `zexchange.wire.messages.decode` checks the rest.
"""

from __future__ import annotations

import struct

from zexchange.wire.messages import (
    BODY_OFFSET,
    ENCODING_TYPE,
    FRAME_HEADER_BYTES,
    GROUP_HEADER_BYTES,
    Buffer,
    OperatorBatch,
    OperatorCommand,
    ReasonCode,
    WireError,
)

__all__ = [
    "COMMANDS_PER_BATCH_MAX",
    "FRAME_HEADER_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_FRAME_BYTES_TO_CLIENT",
    "MIN_FRAME_BYTES",
    "FrameSplitter",
]

COMMANDS_PER_BATCH_MAX = 64

MIN_FRAME_BYTES = BODY_OFFSET
"""Framing header and SBE header: shorter than that is no message."""

MAX_FRAME_BYTES = 11_776
"""Client to server. The largest message a client may send is an OperatorBatch of 64 commands, 11,390 bytes;
rounded up to a multiple of 512 so that a later version can append a few fields without every peer changing
its limit."""

MAX_FRAME_BYTES_TO_CLIENT = 16 * 1024 * 1024
"""Server to client. The largest answer is the genesis file: about 5 MB for 21,000 markets."""

_LARGEST_BATCH_BYTES = (
    BODY_OFFSET
    + OperatorBatch.BLOCK_LENGTH
    + GROUP_HEADER_BYTES
    + COMMANDS_PER_BATCH_MAX * OperatorCommand.BLOCK_LENGTH
)
assert _LARGEST_BATCH_BYTES <= MAX_FRAME_BYTES

_FRAME_HEADER = struct.Struct(">IH")


class FrameSplitter:
    """Feed it what arrives; it hands back whole frames, headers included.

    Both headers' checks run as soon as six bytes are there, so a hostile length is refused before anything
    is kept. After an error the stream has no frame boundary any more: every later call raises the same
    error.
    """

    __slots__ = ("_error", "_max_frame_bytes", "_pending")

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        if max_frame_bytes < MIN_FRAME_BYTES:
            raise ValueError(f"max_frame_bytes must be at least {MIN_FRAME_BYTES}")
        self._max_frame_bytes = max_frame_bytes
        self._pending = b""
        self._error: tuple[ReasonCode, str] | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that was begun and is not complete."""
        return len(self._pending)

    def take_pending(self) -> bytes:
        """The bytes of the unfinished frame; they must be fed again, with what follows them."""
        pending, self._pending = self._pending, b""
        return pending

    @property
    def error(self) -> ReasonCode:
        """Why the stream cannot be cut any further; NONE while it can."""
        return self._error[0] if self._error is not None else ReasonCode.NONE

    def feed(self, data: Buffer) -> list[bytes]:
        """The frames that `data` completes, in order.

        Raises WireError(FRAME_LENGTH_INVALID | ENCODING_TYPE_UNKNOWN). If whole frames stand before the bad
        header they are returned first, and the next call raises: what was sent before the error still
        counts.
        """
        if self._error is not None:
            raise WireError(*self._error)
        stream = self._pending + data if self._pending else bytes(data)
        frames: list[bytes] = []
        offset = 0
        available = len(stream)
        while available - offset >= FRAME_HEADER_BYTES:
            length, encoding_type = _FRAME_HEADER.unpack_from(stream, offset)
            if not MIN_FRAME_BYTES <= length <= self._max_frame_bytes:
                self._error = ReasonCode.FRAME_LENGTH_INVALID, f"{length} bytes"
            elif encoding_type != ENCODING_TYPE:
                self._error = ReasonCode.ENCODING_TYPE_UNKNOWN, f"{encoding_type:#06x}"
            if self._error is not None:
                self._pending = b""
                if frames:
                    return frames
                raise WireError(*self._error)
            if available - offset < length:
                break
            frames.append(stream[offset : offset + length])
            offset += length
        self._pending = stream[offset:]
        return frames
