"""The archive: the log in files, so that the store need not keep it for ever.

    archive/<shard>/<first record_no>-<last record_no>.seg

    "ZXG1" | version u32 | shard u16 | 0 u16 | first record_no u64 | last record_no u64 |
    chain_before[32] | chain_after[32]
    then for each batch: length u32 | batch
    then SHA-256 of everything before

A segment is written under another name, synced, renamed, its folder synced, and then read again from the file
and checked before anything of the log may be trimmed.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from zexchange.log import journal
from zexchange.log.journal import BatchInvalid, EntryId, log_key
from zexchange.log.stream import StreamClient, command
from zexchange.runtime import durable
from zexchange.runtime.paths import DataPaths
from zexchange.verification.checkpoint import ZERO_HASH
from zexchange.verification.replica import StoredBatch

__all__ = [
    "SegmentEnd",
    "SegmentInvalid",
    "SegmentRef",
    "archive_digest",
    "check_segment",
    "read_segment",
    "segment_hash",
    "segments",
    "trim_log",
    "write_segment",
]

MAGIC = b"ZXG1"
VERSION = 1
HASH_BYTES = 32
_HEAD = struct.Struct("<4sIHHQQ32s32s")
_U32 = struct.Struct("<I")
_BATCH_ID = struct.Struct("<QQ")
_BATCH_ID_OFFSET = 8
_DIGEST_ITEM = struct.Struct("<HQ32s")
_NAME = re.compile(r"([0-9]{20})-([0-9]{20})\.seg")


class SegmentInvalid(ValueError):
    """A segment file that is not what it was; `record_no` is the first record that cannot be trusted."""

    def __init__(self, path: Path, record_no: int, detail: str) -> None:
        super().__init__(f"{path}: record {record_no}: {detail}")
        self.path = path
        self.record_no = record_no
        self.detail = detail


class SegmentRef(Struct, frozen=True, order=True):
    """A segment file by its name. What it holds is checked when it is read."""

    first_record_no: int
    last_record_no: int
    path: Path
    shard: int


class SegmentEnd(Struct, frozen=True):
    """What a checked segment ends with."""

    last_record_no: int
    epoch: int
    chain: bytes
    segment_hash: bytes


def segments(paths: DataPaths, shard: int) -> list[SegmentRef]:
    """The shard's segments by their names, oldest first."""
    folder = paths.archive(shard)
    if not folder.is_dir():
        return []
    matches = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(
        SegmentRef(int(match[1]), int(match[2]), folder / match[0], shard)
        for match in matches
        if match is not None
    )


def write_segment(paths: DataPaths, shard: int, batches: Sequence[StoredBatch]) -> SegmentRef:
    """Writes consecutive batches, which a replica has verified, as one segment, and checks the file.

    Raises ValueError for no batches, BatchInvalid for one that cannot be decoded, SegmentInvalid if the file
    read back is not what was written, OSError.
    """
    first = journal.decode_batch(batches[0].raw, shard=shard)
    last = journal.decode_batch(batches[-1].raw, shard=shard)
    head = _HEAD.pack(
        MAGIC,
        VERSION,
        shard,
        0,
        first.first_record_no,
        last.next_record_no - 1,
        first.chain_before,
        last.chain_after,
    )
    parts = [head]
    for batch in batches:
        parts += [_U32.pack(len(batch.raw)), batch.raw]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    folder = paths.archive(shard)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{first.first_record_no:020d}-{last.next_record_no - 1:020d}.seg"
    ref = SegmentRef(first.first_record_no, last.next_record_no - 1, folder / name, shard)
    durable.write_file(ref.path, [*parts, digest.digest()])
    check_segment(ref)
    return ref


def read_segment(ref: SegmentRef) -> Iterator[StoredBatch]:
    """The batches of a segment, as bytes.

    Header, lengths and, behind the last batch, the hash are checked; the batches are not. Raises
    SegmentInvalid, OSError.
    """
    digest = hashlib.sha256()
    next_record_no = ref.first_record_no
    with open(ref.path, "rb") as file:
        left = file.seek(0, 2) - _HEAD.size - HASH_BYTES
        file.seek(0)
        head = file.read(_HEAD.size)
        if left < 0:
            raise SegmentInvalid(ref.path, next_record_no, "too short")
        magic, version, shard, reserved, first, last, chain_before, chain_after = _HEAD.unpack(head)
        if (magic, version, shard, reserved) != (MAGIC, VERSION, ref.shard, 0):
            raise SegmentInvalid(ref.path, next_record_no, "magic, version, shard or reserved field")
        if (first, last) != (ref.first_record_no, ref.last_record_no):
            raise SegmentInvalid(ref.path, next_record_no, f"the header names records {first} to {last}")
        digest.update(head)
        found_before, found_after = chain_before, chain_before
        while left > 0:
            length_field = file.read(_U32.size) if left >= _U32.size else b""
            length = _U32.unpack(length_field)[0] if length_field else 0
            left -= _U32.size + length
            if left < 0 or length < journal.BATCH_HEADER_BYTES + journal.BATCH_TRAILER_BYTES:
                raise SegmentInvalid(ref.path, next_record_no, "length of a batch")
            raw = file.read(length)
            digest.update(length_field)
            digest.update(raw)
            batch_id = EntryId(*_BATCH_ID.unpack_from(raw, _BATCH_ID_OFFSET))
            if next_record_no == ref.first_record_no:
                found_before = raw[48:80]
            found_after = journal.chain_after_of(raw)
            yield StoredBatch(batch_id, raw)
            next_record_no = batch_id.record_no + max(1, int.from_bytes(raw[32:36], "little"))
        stored_hash = file.read(HASH_BYTES)
    if stored_hash != digest.digest():
        raise SegmentInvalid(ref.path, ref.first_record_no, "the hash of the file does not fit")
    if next_record_no != ref.last_record_no + 1:
        raise SegmentInvalid(ref.path, next_record_no, f"the segment ends before record {ref.last_record_no}")
    if (found_before, found_after) != (chain_before, chain_after):
        raise SegmentInvalid(
            ref.path, ref.first_record_no, "the chain values of the header are not those of the batches"
        )


def check_segment(ref: SegmentRef) -> SegmentEnd:
    """Reads a segment from its file and checks every batch and that they form one chain. Raises
    SegmentInvalid, OSError.
    """
    record_no, epoch, chain = ref.first_record_no, 0, None
    for stored in read_segment(ref):
        try:
            batch = journal.decode_batch(stored.raw, shard=ref.shard)
        except BatchInvalid as error:
            raise SegmentInvalid(ref.path, record_no, error.reason) from error
        if batch.first_record_no != record_no or (chain is not None and batch.chain_before != chain):
            raise SegmentInvalid(ref.path, record_no, "the batches are not consecutive")
        record_no, epoch, chain = batch.next_record_no, batch.epoch, batch.chain_after
    if chain is None:
        raise SegmentInvalid(ref.path, record_no, "no batches")
    return SegmentEnd(ref.last_record_no, epoch, chain, segment_hash(ref))


def segment_hash(ref: SegmentRef) -> bytes:
    """The hash that ends the file, as stored. Raises SegmentInvalid if the file is too short, OSError."""
    with open(ref.path, "rb") as file:
        size = file.seek(0, 2)
        if size < _HEAD.size + HASH_BYTES:
            raise SegmentInvalid(ref.path, ref.first_record_no, "too short")
        file.seek(size - HASH_BYTES)
        return file.read(HASH_BYTES)


def archive_digest(newest: Sequence[tuple[int, int, bytes]]) -> bytes:
    """What a checkpoint says about the archive: SHA-256 over (shard u16, last record_no u64, hash of the
    newest segment).

    `newest` has one such triple for each shard that has a segment, by ascending shard; zero if it is empty.
    """
    if not newest:
        return ZERO_HASH
    return hashlib.sha256(b"".join(_DIGEST_ITEM.pack(*item) for item in newest)).digest()


def trim_log(client: StreamClient, shard: int, keep_from: EntryId) -> int:
    """Removes all entries with an ID below `keep_from` from the shard's log; returns how many.

    `keep_from` must be the ID of a batch that is there, so that the newest entry always stays. Raises
    StoreUnavailable, StoreRefused.
    """
    removed = command(client, "XTRIM", log_key(shard), "MINID", str(keep_from))
    return int(removed)
