"""The messages between an ingress worker and a matcher: pure encoding, decoding and bookkeeping.

ZeroMQ queues but does not promise delivery: what sits in a dead peer's queue is gone, a full queue drops. So
each direction of a link is numbered, and a gap ends the sessions that run over the link (their clients come
back, send again what was not answered, and the nonce makes that exactly once).

A message is one part:

    instance u64    drawn by the ingress when it begins or begins anew; the matcher repeats it
    seq u64         from 1 in each direction of each instance
    acked u64       matcher to ingress: last message of the ingress that was dealt with completely.
                    Ingress to matcher, in its place: when the batches were verified, in ns of the machine's monotonic
                    clock, 0 if nobody measures; only for the count of stages
    entries         length u32 (of the payload), kind u8, session id u64, payload

| To the matcher | Payload | From the matcher | Payload |
|---|---|---|---|
| OPEN | public key [32] | OPENED | account id u64, report_seq u64 |
| CLOSE | | FRAME | a frame for the session |
| BATCH | a SignedBatch or OperatorBatch frame | REPORTS | ExecutionReport frames for the session |
| QUERY | a query frame | PONG | epoch u64 |
| PING | | UNKNOWN | (the matcher does not know this instance: it restarted, or a message was lost) |
| | | REJECTED | reason u16: in place of OPENED; the matcher does not know the session |

PING, PONG and UNKNOWN belong to the link: their session id is 0.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from zexchange.limits import LINK_MESSAGE_BYTES_MAX

HEADER = struct.Struct("<QQQ")
ENTRY_HEADER = struct.Struct("<IBQ")
OPENED = struct.Struct("<QQ")
PONG = struct.Struct("<Q")
REJECTED = struct.Struct("<H")
_HEADER_BYTES = HEADER.size
_ENTRY_HEADER_BYTES = ENTRY_HEADER.size
PUBLIC_KEY_BYTES = 32


class Kind(IntEnum):
    """What an entry is. Numbers from 64 come from the matcher."""

    OPEN = 1
    CLOSE = 2
    BATCH = 3
    QUERY = 4
    PING = 5
    OPENED = 64
    FRAME = 65
    PONG = 66
    UNKNOWN = 67
    REPORTS = 68
    REJECTED = 69


_PAYLOAD_BYTES: dict[int, int | None] = {
    Kind.OPEN: PUBLIC_KEY_BYTES,
    Kind.CLOSE: 0,
    Kind.BATCH: None,
    Kind.QUERY: None,
    Kind.PING: 0,
    Kind.OPENED: OPENED.size,
    Kind.FRAME: None,
    Kind.PONG: PONG.size,
    Kind.UNKNOWN: 0,
    Kind.REPORTS: None,
    Kind.REJECTED: REJECTED.size,
}
"""Exact length of the payload by kind; None where it varies."""


class LinkMessageInvalid(ValueError):
    """A message between our own processes is not what it must be: versions differ, or one of them is
    defective."""


class Entry(NamedTuple):
    kind: int
    session_id: int
    payload: bytes


class Message(NamedTuple):
    instance: int
    seq: int
    acked: int
    entries: list[Entry]


def entry(kind: Kind, session_id: int = 0, payload: bytes = b"") -> bytes:
    """One encoded entry."""
    return ENTRY_HEADER.pack(len(payload), kind, session_id) + payload


def header(message: bytes) -> tuple[int, int, int]:
    """Instance, seq, acked. Raises `LinkMessageInvalid`."""
    if not _HEADER_BYTES <= len(message) <= LINK_MESSAGE_BYTES_MAX:
        raise LinkMessageInvalid(f"a link message of {len(message)} bytes")
    return HEADER.unpack_from(message)


def decode(raw: bytes) -> Message:
    """Raises `LinkMessageInvalid` for anything but whole, known entries."""
    instance, seq, acked = header(raw)
    end = len(raw)
    entries = []
    offset = _HEADER_BYTES
    while offset < end:
        if end - offset < _ENTRY_HEADER_BYTES:
            raise LinkMessageInvalid(f"{end - offset} bytes are left behind the last entry")
        length, kind, session_id = ENTRY_HEADER.unpack_from(raw, offset)
        offset += _ENTRY_HEADER_BYTES
        expected = _PAYLOAD_BYTES.get(kind, -1)
        if length > end - offset or (expected is not None and length != expected):
            raise LinkMessageInvalid(f"an entry of kind {kind} with {length} bytes")
        entries.append(Entry(kind, session_id, raw[offset : offset + length]))
        offset += length
    return Message(instance, seq, acked, entries)


class Outbox:
    """Collects entries for one direction of one link and cuts them into numbered messages of bounded size."""

    def __init__(self, instance: int) -> None:
        self.instance = instance
        self.next_seq = 1
        self._parts: list[bytes] = []

    def add(self, encoded_entry: bytes) -> None:
        self._parts.append(encoded_entry)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def take(self, third: int = 0) -> list[bytes]:
        """The messages that hold everything added since the last call; usually one, none if nothing was
        added. `third`: what the header holds behind `seq`, which depends on the direction."""
        if not self._parts:
            return []
        messages: list[bytes] = []
        chunk: list[bytes] = []
        size = HEADER.size
        for part in self._parts:
            if size + len(part) > LINK_MESSAGE_BYTES_MAX:
                messages.append(self._message(chunk, third))
                chunk, size = [], HEADER.size
            chunk.append(part)
            size += len(part)
        messages.append(self._message(chunk, third))
        self._parts.clear()
        return messages

    def _message(self, chunk: list[bytes], third: int) -> bytes:
        header = HEADER.pack(self.instance, self.next_seq, third)
        self.next_seq += 1
        return header + b"".join(chunk)
