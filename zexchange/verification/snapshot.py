"""Snapshot files: a shard's whole state at one record number, so that a restart need not replay from genesis.

    "ZXF1" | version u32 | shard u16 | 0 u16 | next_record_no u64 | next_seq u64 | epoch u64 | chain[32] |
    state_root[32] | frontier count u32 | frontier hashes[32 each] | engine length u64 | engine snapshot |
    SHA-256 of everything before

A file is either whole and right or ignored: the reader recomputes the hash, restores the engine and
recomputes the state root, and takes an older file if anything differs. It never repairs.
"""

from __future__ import annotations

import hashlib
import logging
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from zexchange.engine_types import MatchingEngine, SnapshotInvalid
from zexchange.genesis import Genesis
from zexchange.log.journal import ChainState
from zexchange.runtime import durable
from zexchange.runtime.paths import DataPaths
from zexchange.verification.checkpoint import CheckpointLeaf, read_last_signed
from zexchange.verification.merkle import CompactRange, ProofInvalid
from zexchange.verification.replica import EngineClass, Replica, SignatureCheck, verify_signatures

__all__ = [
    "SnapshotFileInvalid",
    "SnapshotHeader",
    "capture",
    "known_floor",
    "newest_valid",
    "read_snapshot",
    "replica_from",
    "snapshot_numbers",
    "write_snapshot",
]

MAGIC = b"ZXF1"
VERSION = 1
HASH_BYTES = 32
_HEAD = struct.Struct("<4sIHHQQQ32s32sI")
_U64 = struct.Struct("<Q")
_NAME = re.compile(r"([0-9]{20})\.snap")
_SEGMENT_NAME = re.compile(r"([0-9]{20})-([0-9]{20})\.seg")
_log = logging.getLogger("zexchange.verification.snapshot")


class SnapshotFileInvalid(ValueError):
    """A snapshot file that must not be used."""


class SnapshotHeader(Struct, frozen=True, kw_only=True):
    """Everything in a snapshot file but the engine's state, as of behind record `next_record_no - 1`."""

    shard: int
    next_record_no: int
    next_seq: int
    epoch: int
    chain: bytes
    state_root: bytes
    frontier: tuple[bytes, ...]


def capture(replica: Replica) -> tuple[SnapshotHeader, bytes]:
    """Header and engine snapshot of a replica's present position, to be written now or later."""
    position, tip = replica.position, replica.tip()
    header = SnapshotHeader(
        shard=replica.shard,
        next_record_no=position.next_record_no,
        next_seq=replica.engine.next_seq,
        epoch=position.epoch,
        chain=position.chain,
        state_root=tip.state_root,
        frontier=tuple(replica.frontier),
    )
    return header, replica.engine.snapshot()


def write_snapshot(paths: DataPaths, header: SnapshotHeader, engine_snapshot: bytes) -> Path:
    """Writes the file durably and returns its path. Raises OSError."""
    head = _HEAD.pack(
        MAGIC,
        VERSION,
        header.shard,
        0,
        header.next_record_no,
        header.next_seq,
        header.epoch,
        header.chain,
        header.state_root,
        len(header.frontier),
    )
    parts = [head, *header.frontier, _U64.pack(len(engine_snapshot)), engine_snapshot]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    folder = paths.snapshots(header.shard)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{header.next_record_no:020d}.snap"
    durable.write_file(path, [*parts, digest.digest()])
    return path


def read_snapshot(path: Path) -> tuple[SnapshotHeader, bytes]:
    """Header and engine snapshot of a file whose hash, sizes and name fit.

    The state root is not recomputed here. Raises SnapshotFileInvalid, OSError.
    """
    data = path.read_bytes()
    if len(data) < _HEAD.size + _U64.size + HASH_BYTES:
        raise SnapshotFileInvalid("too short")
    if hashlib.sha256(memoryview(data)[:-HASH_BYTES]).digest() != data[-HASH_BYTES:]:
        raise SnapshotFileInvalid("the hash does not fit")
    magic, version, shard, reserved, next_record_no, next_seq, epoch, chain, state_root, count = (
        _HEAD.unpack_from(data)
    )
    if magic != MAGIC or version != VERSION or reserved != 0:
        raise SnapshotFileInvalid("magic, version or reserved field")
    frontier_end = _HEAD.size + count * HASH_BYTES
    engine_start = frontier_end + _U64.size
    if engine_start > len(data) - HASH_BYTES or count != next_record_no.bit_count():
        raise SnapshotFileInvalid("number of frontier hashes")
    if _U64.unpack_from(data, frontier_end)[0] != len(data) - HASH_BYTES - engine_start:
        raise SnapshotFileInvalid("length of the engine snapshot")
    if path.name != f"{next_record_no:020d}.snap":
        raise SnapshotFileInvalid(f"the file holds record {next_record_no}")
    header = SnapshotHeader(
        shard=shard,
        next_record_no=next_record_no,
        next_seq=next_seq,
        epoch=epoch,
        chain=chain,
        state_root=state_root,
        frontier=tuple(
            data[start : start + HASH_BYTES] for start in range(_HEAD.size, frontier_end, HASH_BYTES)
        ),
    )
    return header, data[engine_start:-HASH_BYTES]


def snapshot_numbers(paths: DataPaths, shard: int) -> list[int]:
    """`next_record_no` of the shard's snapshots by their names, oldest first; the files may be damaged."""
    return [number for number, _ in reversed(list(_newest_first(paths, shard)))]


def newest_valid(
    paths: DataPaths,
    genesis: Genesis,
    shard: int,
    engine_class: EngineClass,
    *,
    track_state: bool = True,
    at_most: int | None = None,
) -> tuple[MatchingEngine, SnapshotHeader] | None:
    """The engine of the newest valid snapshot, or None if there is none. Damaged files are logged and passed
    over.

    `at_most`: only snapshots whose `next_record_no` is not above it. `track_state` is that of the engine
    returned; the check of the state root always runs an engine that tracks it.
    """
    for number, path in _newest_first(paths, shard):
        if at_most is not None and number > at_most:
            continue
        try:
            header, data = read_snapshot(path)
            if header.shard != shard:
                raise SnapshotFileInvalid(f"the file is of shard {header.shard}")
            engine = _restore(genesis, header, data, engine_class)
            if not track_state:
                engine = engine_class.restore(genesis, shard, data, track_state=False)
        except (SnapshotFileInvalid, SnapshotInvalid, OSError) as error:
            _log.warning("snapshot ignored", extra={"zx": {"path": str(path), "reason": str(error)}})
            continue
        return engine, header
    return None


def replica_from(
    genesis: Genesis,
    engine: MatchingEngine,
    header: SnapshotHeader,
    check_signatures: SignatureCheck | None = verify_signatures,
) -> Replica:
    """A replica that goes on from a snapshot `newest_valid` returned."""
    position = ChainState(
        epoch=header.epoch,
        next_record_no=header.next_record_no,
        next_seq=header.next_seq,
        chain=header.chain,
        log_time_ns=engine.log_time_ns,
    )
    log_tree = CompactRange(header.next_record_no, header.frontier)
    return Replica(genesis, engine, position, log_tree, check_signatures)


def known_floor(paths: DataPaths, shard: int) -> int:
    """The highest record number that snapshots, segments or checkpoints know of; 0 if none does.

    A log whose tip is below it has lost records: nobody may trade on it. Names count even if the file is
    damaged: a floor that is too high stops a shard, one that is too low loses acknowledged orders. Raises
    SigningRefused or CheckpointInvalid if `last_signed.json` is damaged.
    """
    floor = max((number - 1 for number, _ in _newest_first(paths, shard)), default=0)
    for match in _names(paths.archive(shard), _SEGMENT_NAME):
        floor = max(floor, int(match[2]))
    last_signed = read_last_signed(paths.last_signed)
    if last_signed is not None:
        leaf = CheckpointLeaf.decode(bytes.fromhex(last_signed.leaf), last_signed.size - 1)
        for tip in leaf.shards:
            if tip.shard == shard:
                floor = max(floor, tip.log_size - 1)
    return floor


def _restore(
    genesis: Genesis, header: SnapshotHeader, data: bytes, engine_class: EngineClass
) -> MatchingEngine:
    """An engine in the snapshot's state, whose root and numbers are those of the header."""
    engine = engine_class.restore(genesis, header.shard, data)
    if (engine.next_record_no, engine.next_seq) != (header.next_record_no, header.next_seq):
        raise SnapshotFileInvalid("the engine's numbers are not those of the header")
    if engine.state_root() != header.state_root:
        raise SnapshotFileInvalid("the state root does not fit")
    try:
        CompactRange(header.next_record_no, header.frontier)
    except ProofInvalid as error:
        raise SnapshotFileInvalid(str(error)) from error
    return engine


def _newest_first(paths: DataPaths, shard: int) -> Iterator[tuple[int, Path]]:
    folder = paths.snapshots(shard)
    numbers = sorted((int(match[1]) for match in _names(folder, _NAME)), reverse=True)
    for number in numbers:
        yield number, folder / f"{number:020d}.snap"


def _names(folder: Path, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    if folder.is_dir():
        for path in folder.iterdir():
            if match := pattern.fullmatch(path.name):
                yield match
