"""The execution log: its bytes, its chain, and how to read it.

One stream per shard. An entry is a batch (formats.md, section 2) or the marker that opens a writer's epoch.
Everything here but `LogReader` is a pure function of bytes; `LogReader` talks to a store through the one
method of `StreamClient`.

    id  <epoch>-0                 field m: a writer took over; outside the chain
    id  <epoch>-<first record>    field b: one batch, at most 64 KiB

    chain_n = H(tag || chain_{n-1} || H(batch from magic to events_hash)),  chain_{-1} = deployment id
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from zexchange import limits
from zexchange.log.stream import StreamClient, command

BATCH_MAGIC = b"ZXB1"
BATCH_VERSION = 1
MAX_BATCH_BYTES = limits.LOG_BATCH_BYTES_MAX

_HEADER = struct.Struct("<4sHHQQQIIQ32s")
_FRAMING = struct.Struct(">IH")
_ENCODING_TYPE = 0xEB50
_SMALLEST_FRAME_BYTES = limits.FRAME_HEADER_BYTES + limits.SBE_HEADER_BYTES
_DIGEST_BYTES = 32

BATCH_HEADER_BYTES = _HEADER.size
BATCH_TRAILER_BYTES = 2 * _DIGEST_BYTES + 4
MAX_BODY_BYTES = limits.LOG_BODY_BYTES_MAX

_CHAIN_TAG = b"zx.v1/chain".ljust(16, b"\0")
_EVENTS_TAG = b"zx.v1/events".ljust(16, b"\0")

_BATCH_FIELD = b"b"
_MARKER_FIELD = b"m"

_EPOCH_OPEN_TEMPLATE = 3
_TEMPLATE_OFFSET = 8
_TEMPLATE = struct.Struct("<H")
_EPOCH_OPEN = struct.Struct("<QQQ32s")
_EPOCH_OPEN_OFFSET = 14
_EPOCH_OPEN_FRAME_BYTES = _EPOCH_OPEN_OFFSET + _EPOCH_OPEN.size

assert BATCH_HEADER_BYTES == limits.LOG_BATCH_HEADER_BYTES
assert BATCH_TRAILER_BYTES == limits.LOG_BATCH_TRAILER_BYTES


class BatchInvalid(ValueError):
    """A batch is not what the format or the chain demands. `record_no` names its first record where that is
    known."""

    def __init__(self, reason: str, record_no: int | None = None) -> None:
        super().__init__(reason if record_no is None else f"record {record_no}: {reason}")
        self.reason = reason
        self.record_no = record_no


class EntryId(NamedTuple):
    """A stream ID. Compares as Redis compares. `record_no` 0 is the epoch's marker."""

    epoch: int
    record_no: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.record_no}"

    @classmethod
    def parse(cls, text: bytes | str) -> EntryId:
        """Raises `ValueError` if `text` is not two decimal numbers joined by a dash."""
        epoch, dash, record_no = (text.decode("ascii") if isinstance(text, bytes) else text).partition("-")
        if not dash:
            raise ValueError(f"not a stream id: {text!r}")
        return cls(int(epoch), int(record_no))


START = EntryId(0, 0)
"""Before every entry."""


class LogBatch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One decoded batch. `body` is the concatenated frames; `raw` the whole batch as stored."""

    shard: int
    epoch: int
    first_record_no: int
    first_seq: int
    count: int
    log_time_ns: int
    chain_before: bytes
    body: bytes
    events_hash: bytes
    chain_after: bytes
    raw: bytes

    @property
    def id(self) -> EntryId:
        return EntryId(self.epoch, self.first_record_no)

    @property
    def next_record_no(self) -> int:
        return self.first_record_no + self.count


class LogEntry(msgspec.Struct, frozen=True):
    """One stream entry; `batch` is None for a marker."""

    id: EntryId
    batch: LogBatch | None

    @property
    def is_marker(self) -> bool:
        return self.batch is None


class ChainState(msgspec.Struct, frozen=True):
    """How far a reader of the log is.

    `epoch` is that of the last batch, 0 if there was none. `next_seq` is None where no engine runs along:
    how many commands a batch consumed is known only to an engine, because duplicates take no number.
    `log_time_ns` is that of the last batch.
    """

    epoch: int
    next_record_no: int
    next_seq: int | None
    chain: bytes
    log_time_ns: int = 0

    @classmethod
    def genesis(cls, deployment_id: bytes) -> ChainState:
        """Before the first batch: record 0 is the genesis record, so the first frame will be record 1."""
        return cls(epoch=0, next_record_no=1, next_seq=1, chain=deployment_id, log_time_ns=0)

    def after(self, batch: LogBatch, next_seq: int | None = None) -> ChainState:
        """The state behind `batch`, which the caller has checked with `check_follows`."""
        return ChainState(batch.epoch, batch.next_record_no, next_seq, batch.chain_after, batch.log_time_ns)


def log_key(shard: int) -> str:
    """Key of the shard's log; the braces keep it in one slot of a cluster."""
    return f"zx:{{{shard}}}:log"


def events_hash(events: bytes | memoryview) -> bytes:
    """Hash of the 168-byte event blocks of one batch, concatenated."""
    digest = hashlib.sha256(_EVENTS_TAG)
    digest.update(events)
    return digest.digest()


def chain_hash(before: bytes, batch_to_events_hash: bytes | memoryview) -> bytes:
    """Chain value behind a batch, from the value before it and its bytes from magic to events_hash,
    inclusive."""
    inner = hashlib.sha256(batch_to_events_hash).digest()
    return hashlib.sha256(_CHAIN_TAG + before + inner).digest()


def iter_frames(body: bytes | memoryview) -> Iterator[bytes]:
    """The frames of a batch body, in order. Raises `BatchInvalid` where the framing does not add up."""
    view = memoryview(body)
    offset, end = 0, len(view)
    while offset < end:
        length = _frame_length(view, offset, end)
        yield bytes(view[offset : offset + length])
        offset += length


def encode_batch(
    *,
    shard: int,
    epoch: int,
    first_record_no: int,
    first_seq: int,
    count: int,
    log_time_ns: int,
    chain_before: bytes,
    body: bytes,
    events_hash: bytes,
) -> bytes:
    """The whole batch. Raises `ValueError` if it would be larger than `MAX_BATCH_BYTES` or a digest is not
    32 bytes."""
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a batch body holds at most {MAX_BODY_BYTES} bytes, not {len(body)}")
    if len(chain_before) != _DIGEST_BYTES or len(events_hash) != _DIGEST_BYTES:
        raise ValueError("digests are 32 bytes")
    header = _HEADER.pack(
        BATCH_MAGIC,
        BATCH_VERSION,
        shard,
        epoch,
        first_record_no,
        first_seq,
        count,
        len(body),
        log_time_ns,
        chain_before,
    )
    hashed = b"".join((header, body, events_hash))
    covered = hashed + chain_hash(chain_before, hashed)
    return covered + zlib.crc32(covered).to_bytes(4, "little")


class BatchHeader(NamedTuple):
    """The first fields of a batch, as they stand there and unchecked."""

    magic: bytes
    version: int
    shard: int
    epoch: int
    first_record_no: int
    first_seq: int
    records: int
    body_bytes: int
    log_time_ns: int
    chain_before: bytes


def batch_header(raw: bytes) -> BatchHeader:
    """Raises struct.error for fewer bytes than a header."""
    return BatchHeader._make(_HEADER.unpack_from(raw))


def chain_after_of(raw: bytes) -> bytes:
    """The chain value behind a batch that `encode_batch` made, without decoding it."""
    return raw[-4 - _DIGEST_BYTES : -4]


def decode_batch(raw: bytes | bytearray | memoryview, *, shard: int | None = None) -> LogBatch:
    """Decode and check everything that one batch can show alone: sizes, CRC, chain, framing of the frames,
    their count.

    Raises `BatchInvalid`. `shard`: also refuse a batch of another shard.
    """
    raw = bytes(raw)
    if len(raw) < BATCH_HEADER_BYTES + BATCH_TRAILER_BYTES:
        raise BatchInvalid(f"a batch of {len(raw)} bytes is shorter than its header and trailer")
    if len(raw) > MAX_BATCH_BYTES:
        raise BatchInvalid(f"a batch of {len(raw)} bytes is larger than {MAX_BATCH_BYTES}")
    (
        magic,
        version,
        of_shard,
        epoch,
        first_record_no,
        first_seq,
        count,
        body_bytes,
        log_time_ns,
        chain_before,
    ) = _HEADER.unpack_from(raw)
    if magic != BATCH_MAGIC:
        raise BatchInvalid(f"magic is {magic!r}, not {BATCH_MAGIC!r}")
    if zlib.crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
        raise BatchInvalid("the checksum does not match", first_record_no)
    if version != BATCH_VERSION:
        raise BatchInvalid(f"version {version} is not {BATCH_VERSION}", first_record_no)
    if shard is not None and of_shard != shard:
        raise BatchInvalid(f"the batch is of shard {of_shard}, not {shard}", first_record_no)
    body_end = BATCH_HEADER_BYTES + body_bytes
    if len(raw) != body_end + BATCH_TRAILER_BYTES:
        raise BatchInvalid("body length and batch length disagree", first_record_no)
    if epoch == 0 or first_record_no == 0 or first_seq == 0:
        raise BatchInvalid("epochs, records and commands of the log are numbered from 1", first_record_no)
    hashed_end = body_end + _DIGEST_BYTES
    chain_after = raw[hashed_end : hashed_end + _DIGEST_BYTES]
    if chain_after != chain_hash(chain_before, memoryview(raw)[:hashed_end]):
        raise BatchInvalid("the chain value does not match the batch", first_record_no)
    body = raw[BATCH_HEADER_BYTES:body_end]
    frames = _count_frames(body, first_record_no)
    if frames != count or count == 0:
        raise BatchInvalid(f"the batch says {count} records and holds {frames} frames", first_record_no)
    return LogBatch(
        shard=of_shard,
        epoch=epoch,
        first_record_no=first_record_no,
        first_seq=first_seq,
        count=count,
        log_time_ns=log_time_ns,
        chain_before=chain_before,
        body=body,
        events_hash=raw[body_end:hashed_end],
        chain_after=chain_after,
        raw=raw,
    )


def check_follows(state: ChainState, batch: LogBatch) -> None:
    """Raise `BatchInvalid`, naming the record, unless `batch` is the one that comes next after `state`.

    Checks numbers, chain, log time and that an epoch is opened, by its first record and only there, with the
    true tip.
    """
    record_no = batch.first_record_no
    if record_no != state.next_record_no:
        raise BatchInvalid(
            f"record {state.next_record_no} was expected, the batch begins with {record_no}", record_no
        )
    if batch.chain_before != state.chain:
        raise BatchInvalid("the batch does not continue the chain", record_no)
    if state.next_seq is not None and batch.first_seq != state.next_seq:
        raise BatchInvalid(
            f"seq {state.next_seq} was expected, the batch begins with {batch.first_seq}", record_no
        )
    if batch.log_time_ns <= state.log_time_ns:
        raise BatchInvalid("log time does not advance", record_no)
    if batch.epoch < state.epoch:
        raise BatchInvalid(f"epoch {batch.epoch} comes after epoch {state.epoch}", record_no)
    body = batch.body
    offset = 0
    if batch.epoch > state.epoch:
        offset = _check_epoch_open(state, batch)
    while offset < len(body):
        if _TEMPLATE.unpack_from(body, offset + _TEMPLATE_OFFSET)[0] == _EPOCH_OPEN_TEMPLATE:
            raise BatchInvalid("an epoch is opened in the middle of another", record_no)
        offset += _FRAMING.unpack_from(body, offset)[0]


def _check_epoch_open(state: ChainState, batch: LogBatch) -> int:
    """Offset behind the EpochOpen frame."""
    body, record_no = batch.body, batch.first_record_no
    length: int = _FRAMING.unpack_from(body)[0]
    if (
        _TEMPLATE.unpack_from(body, _TEMPLATE_OFFSET)[0] != _EPOCH_OPEN_TEMPLATE
        or length != _EPOCH_OPEN_FRAME_BYTES
    ):
        raise BatchInvalid(f"epoch {batch.epoch} does not begin with its opening record", record_no)
    named = _EPOCH_OPEN.unpack_from(body, _EPOCH_OPEN_OFFSET)
    if named != (batch.epoch, state.epoch, state.next_record_no - 1, state.chain):
        raise BatchInvalid(f"the opening record of epoch {batch.epoch} names another tip", record_no)
    return length


def _frame_length(body: bytes | memoryview, offset: int, end: int) -> int:
    if end - offset < _SMALLEST_FRAME_BYTES:
        raise BatchInvalid(f"{end - offset} bytes are left behind the last frame")
    length: int
    length, encoding_type = _FRAMING.unpack_from(body, offset)
    if encoding_type != _ENCODING_TYPE or length < _SMALLEST_FRAME_BYTES or length > end - offset:
        raise BatchInvalid(f"no frame at body offset {offset}")
    return length


def _count_frames(body: bytes, first_record_no: int) -> int:
    count, offset, end = 0, 0, len(body)
    try:
        while offset < end:
            offset += _frame_length(body, offset, end)
            count += 1
    except BatchInvalid as error:
        raise BatchInvalid(error.reason, first_record_no + count) from None
    return count


# ------------------------------------------------------- reading a store
# -------------------------------------------------------


class LogReader:
    """Reads one shard's log. Knows nothing of where it is: the caller keeps the last id it has seen."""

    def __init__(self, client: StreamClient, shard: int) -> None:
        self._client = client
        self._shard = shard
        self._key = log_key(shard)

    def read(self, after_id: EntryId, count: int, block_ms: int | None = None) -> list[LogEntry]:
        """Up to `count` entries with a larger id, oldest first; empty when there are none.

        `block_ms`: wait so long for the first one (must be below the client's socket timeout); None returns
        at once. Raises `BatchInvalid` for an entry that is no valid batch or marker, `StoreUnavailable`,
        `StoreRefused`.
        """
        if block_ms is None:
            rows = command(self._client, "XRANGE", self._key, f"({after_id}", "+", "COUNT", count)
        else:
            reply = command(
                self._client, "XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", self._key, str(after_id)
            )
            rows = _only_stream(reply)
        return [self._entry(entry_id, fields) for entry_id, fields in rows]

    def first(self) -> LogEntry | None:
        """The oldest entry that was not trimmed."""
        rows = command(self._client, "XRANGE", self._key, "-", "+", "COUNT", 1)
        return self._entry(*rows[0]) if rows else None

    def tip(self) -> LogEntry | None:
        """The newest entry, or None if the log is empty."""
        rows = command(self._client, "XREVRANGE", self._key, "+", "-", "COUNT", 1)
        return self._entry(*rows[0]) if rows else None

    def last_batch(self, below: EntryId) -> LogBatch | None:
        """The newest batch with an id below this one, or None if the log holds none."""
        while True:
            rows = command(self._client, "XREVRANGE", self._key, f"({below}", "-", "COUNT", 1)
            if not rows:
                return None
            entry = self._entry(*rows[0])
            if entry.batch is not None:
                return entry.batch
            below = entry.id

    def _entry(self, entry_id: bytes | str, fields: dict[bytes, bytes]) -> LogEntry:
        where = EntryId.parse(entry_id)
        if list(fields) == [_MARKER_FIELD]:
            if where.record_no != 0 or fields[_MARKER_FIELD] != str(where.epoch).encode("ascii"):
                raise BatchInvalid(f"entry {where} is no valid marker", where.record_no)
            return LogEntry(where, None)
        if list(fields) != [_BATCH_FIELD]:
            raise BatchInvalid(f"entry {where} is neither batch nor marker", where.record_no)
        try:
            batch = decode_batch(fields[_BATCH_FIELD], shard=self._shard)
        except BatchInvalid as error:
            raise BatchInvalid(
                error.reason, where.record_no if error.record_no is None else error.record_no
            ) from None
        if batch.id != where:
            raise BatchInvalid(f"entry {where} holds the batch {batch.id}", where.record_no)
        return LogEntry(where, batch)


def _only_stream(reply: Any) -> Any:
    """Rows of the one stream in an XREAD reply, which is a list of pairs or a mapping, and nothing after a
    timeout."""
    if not reply:
        return []
    rows = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]
    # One nesting deeper in the newer protocol: a list of row lists.
    return (
        rows[0] if rows and isinstance(rows[0], list) and rows[0] and isinstance(rows[0][0], tuple) else rows
    )
