"""The full verification: redo everything from the genesis file and compare it with everything that was stored
and signed.

Nothing is taken from the exchange but the log, its archive, the checkpoints and the two public keys in the
genesis file; no snapshot is used. For each shard the log is replayed from record 1, with the C engine or with
the reference, and at the size of every checkpoint its log root, chain and state root are compared. The
checkpoints themselves are checked first: signatures, the tree over them, links, times, the archive digest,
and that the store's copy says the same.

The first difference is raised as `Mismatch`. A log that is damaged is reported before a checkpoint that is,
because it names the exact record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from msgspec import Struct

from zexchange.archive import SegmentInvalid, archive_digest, segment_hash, segments
from zexchange.checkpoint import (
    ZERO_HASH,
    CheckpointInvalid,
    CheckpointLeaf,
    CheckpointLogCorrupt,
    CheckpointReader,
    LastSigned,
    ShardTip,
    SignedCheckpoint,
    SigningRefused,
    check_follows,
    origin_of,
    read_last_signed,
    verify_note,
)
from zexchange.genesis import Genesis
from zexchange.history import LogHistory, StreamCursor
from zexchange.log_store import StreamClient
from zexchange.merkle import CompactRange, leaf_hash
from zexchange.note import NoteKey
from zexchange.paths import DataPaths
from zexchange.publication import published, published_size
from zexchange.replica import EngineClass, Mismatch, Replica, SignatureCheck, verify_signatures

__all__ = [
    "CheckpointMismatch",
    "ParallelSignatures",
    "Progress",
    "Report",
    "ShardReport",
    "verify",
    "verify_signatures_plainly",
]

CHUNK_BATCHES = 64
PAGE = 256
SLICE_FRAMES = 64
"""Fewest frames worth handing to another thread: 4 ms of work."""

Progress = Callable[[int, int, int], None]
"""(shard, records redone, records in all), called about every 64 batches."""


class CheckpointMismatch(Mismatch):
    """A checkpoint that is not what it must be. `record_no` is the first record that no good checkpoint
    covers.
    """

    def __init__(
        self, n: int, shard: int, record_no: int, what: str, expected: object, found: object
    ) -> None:
        super().__init__(shard, record_no, f"checkpoint {n}: {what}", expected, found)
        self.n = n


class ShardReport(Struct, frozen=True, kw_only=True):
    """What replaying one shard gave."""

    shard: int
    records: int
    commands: int
    trades: int
    epochs: int
    log_root: bytes
    chain: bytes
    state_root: bytes


class Report(Struct, frozen=True, kw_only=True):
    """What was verified: everything agrees."""

    deployment_id: bytes
    records: int
    commands: int
    trades: int
    checkpoints: int
    compared_roots: int
    """Positions of a shard at which the roots of one or more checkpoints were compared."""
    covered_records: int
    """Records that the last checkpoint covers; those behind it were replayed but are not signed yet."""
    shards: tuple[ShardReport, ...]


class _Claims(Struct):
    """What the checkpoints say, up to the first that is not good."""

    count: int
    tips: dict[int, list[tuple[int, ShardTip]]]
    """Per shard, for each distinct log size, the first checkpoint of that size and its tip."""
    problem: CheckpointMismatch | None


class ParallelSignatures:
    """`verify_signatures` on all cores: the C function releases the interpreter's lock."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads)

    def __call__(self, frames: Sequence[bytes], deployment_id: bytes) -> list[bool]:
        size = max(SLICE_FRAMES, -(-len(frames) // self._threads))
        slices = [frames[start : start + size] for start in range(0, len(frames), size)]
        verdicts = self._pool.map(lambda part: verify_signatures(part, deployment_id), slices)
        return [good for part in verdicts for good in part]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def verify_signatures_plainly(frames: Sequence[bytes], deployment_id: bytes) -> list[bool]:
    """The same verdicts without any C of ours: each frame is decoded in Python and handed to libsodium by
    PyNaCl.
    """
    from zexchange.wire.messages import WireError
    from zexchange.wire.signing import verify_batch

    verdicts = []
    for frame in frames:
        try:
            verify_batch(frame, deployment_id)
            verdicts.append(True)
        except WireError:
            verdicts.append(False)
    return verdicts


def verify(
    paths: DataPaths,
    client: StreamClient,
    genesis: Genesis,
    engine_class: EngineClass,
    *,
    check_signatures: SignatureCheck = verify_signatures,
    progress: Progress = lambda shard, done, total: None,
) -> Report:
    """Verifies everything up to the end that the log has when this is called.

    The exchange may be running. Raises Mismatch for the first difference, StoreUnavailable, StoreRefused,
    OSError.
    """
    claims = _read_checkpoints(paths, client, genesis)
    reports = []
    for shard in range(genesis.shards):
        replica = _replay(paths, client, genesis, engine_class, shard, claims, check_signatures, progress)
        tip, engine = replica.tip(), replica.engine
        reports.append(
            ShardReport(
                shard=shard,
                records=tip.log_size - 1,
                commands=engine.next_seq - 1,
                trades=engine.next_trade_id - 1,
                epochs=replica.position.epoch,
                log_root=tip.log_root,
                chain=tip.chain,
                state_root=tip.state_root,
            )
        )
    if claims.problem is not None:
        raise claims.problem
    return Report(
        deployment_id=genesis.deployment_id,
        records=sum(report.records for report in reports),
        commands=sum(report.commands for report in reports),
        trades=sum(report.trades for report in reports),
        checkpoints=claims.count,
        compared_roots=sum(len(tips) for tips in claims.tips.values()),
        covered_records=sum(tips[-1][1].log_size - 1 for tips in claims.tips.values() if tips),
        shards=tuple(reports),
    )


def _replay(
    paths: DataPaths,
    client: StreamClient,
    genesis: Genesis,
    engine_class: EngineClass,
    shard: int,
    claims: _Claims,
    check_signatures: SignatureCheck,
    progress: Progress,
) -> Replica:
    """Redoes one shard and compares every checkpoint's claims about it. Raises Mismatch."""
    replica = Replica.at_genesis(genesis, shard, engine_class, check_signatures)
    waiting = iter(claims.tips[shard])
    n, claim = next(waiting, (0, None))

    def compare() -> None:
        nonlocal n, claim
        size = replica.position.next_record_no
        if claim is not None and claim.log_size == size:
            replica.compare(claim, f"checkpoint {n}")
            n, claim = next(waiting, (0, None))
        if claim is not None and claim.log_size < size:
            raise CheckpointMismatch(
                n, shard, claim.log_size, "log size", "the end of a batch", f"{claim.log_size}, inside one"
            )

    compare()
    # The checkpoints were read before, so every record that they cover is below this tip, or lost.
    newest = StreamCursor(client, shard).tip()
    history = LogHistory(paths, client, shard, compare_copies=True)
    total = 0 if newest is None else newest.id.record_no
    for chunk in history.chunks(1, 0, until=None if newest is None else newest.id, count=CHUNK_BATCHES):
        replica.apply(chunk, compare)
        progress(shard, replica.position.next_record_no - 1, max(total, replica.position.next_record_no - 1))
    if claim is not None:
        missing = replica.position.next_record_no
        raise CheckpointMismatch(
            n, shard, missing, "records of the log", claim.log_size - 1, f"{missing - 1}, the rest is missing"
        )
    return replica


def _read_checkpoints(paths: DataPaths, client: StreamClient, genesis: Genesis) -> _Claims:
    """Checks all checkpoints by themselves. The first that is not good becomes `problem`, with those before
    it kept.
    """
    claims = _Claims(0, {shard: [] for shard in range(genesis.shards)}, None)
    try:
        last_signed = read_last_signed(paths.last_signed)
        torn = _follow(paths, client, genesis, claims, last_signed, published_size(client))
        _check_end(claims.count, torn, last_signed, read_last_signed(paths.last_signed))
    except (CheckpointInvalid, CheckpointLogCorrupt, SigningRefused) as error:
        shard, record_no = _first_uncovered(claims)
        if isinstance(error, CheckpointInvalid):
            n, what, expected, found = error.n, error.what, error.expected, error.found
        else:
            n, what, expected, found = claims.count, "stored checkpoint", "intact", str(error)
        claims.problem = CheckpointMismatch(n, shard, record_no, what, expected, found)
    return claims


def _follow(
    paths: DataPaths,
    client: StreamClient,
    genesis: Genesis,
    claims: _Claims,
    last_signed: LastSigned | None,
    newest_published: int,
) -> bool:
    """Reads `checkpoints.log` beside the store's copy, and fills `claims`; True if an unfinished entry ends
    it.

    `last_signed` and `newest_published` were read before: while settlement works the file is ahead of them.
    """
    key = NoteKey(origin_of(genesis.name), genesis.settlement_public_key)
    tree = CompactRange()
    copies = _published_up_to(client, newest_published)
    copy = next(copies, None)
    previous: CheckpointLeaf | None = None
    archived = _ArchiveDigests(paths, genesis.shards)
    torn = False
    if paths.checkpoints_log.exists():
        with open(paths.checkpoints_log, "rb") as file:
            reader = CheckpointReader(file, genesis.shards)
            for checkpoint in reader:
                n = tree.size
                leaf = CheckpointLeaf.decode(checkpoint.leaf, n)
                check_follows(previous, leaf, genesis.shards)
                tree.append(leaf_hash(checkpoint.leaf))
                root = tree.root()
                verify_note(checkpoint, key, n, root)
                archived.check(leaf)
                if last_signed is not None and last_signed.size == n + 1 and last_signed.root != root.hex():
                    raise CheckpointInvalid(n, "root in last_signed.json", root, last_signed.root)
                while copy is not None and copy[0] < n + 1:
                    copy = next(copies, None)
                if copy is not None and copy[0] == n + 1 and copy[1] != checkpoint:
                    raise CheckpointInvalid(n, "copy in the store", "that of checkpoints.log", "another")
                for tip in leaf.shards:
                    tips = claims.tips[tip.shard]
                    if not tips or tips[-1][1].log_size != tip.log_size:
                        tips.append((n, tip))
                claims.count = n + 1
                previous = leaf
            torn = reader.torn
    if newest_published > claims.count:
        raise CheckpointInvalid(
            claims.count, "copy in the store", f"at most {claims.count} checkpoints", newest_published
        )
    return torn


def _check_end(count: int, torn: bool, before: LastSigned | None, after: LastSigned | None) -> None:
    """Compares where the file ends with `last_signed.json`, read before and after the file.

    Settlement records what it will sign, signs, and only then appends: the record may be one ahead. Raises
    CheckpointInvalid.
    """
    least = 0 if before is None else before.size - 1
    most = 0 if after is None else after.size
    if not least <= count <= most:
        raise CheckpointInvalid(count, "size in last_signed.json", f"{count} or {count + 1}", most)
    if torn and most <= count:
        raise CheckpointInvalid(count, "end of checkpoints.log", "a whole entry", "an unfinished one")


def _published_up_to(client: StreamClient, newest_size: int) -> Iterator[tuple[int, SignedCheckpoint]]:
    """The store's copies up to that tree size, page by page."""
    size = 0
    while size < newest_size:
        page = published(client, size, PAGE)
        if not page:
            return
        for size, checkpoint in page:
            if size > newest_size:
                return
            yield size, checkpoint


def _first_uncovered(claims: _Claims) -> tuple[int, int]:
    """(shard, record) where the good checkpoints end: of the first shard."""
    tips = claims.tips[0]
    return 0, tips[-1][1].log_size if tips else 1


class _ArchiveDigests:
    """Follows the archive digests of a chain of checkpoints: from one to the next at most one segment is
    added.
    """

    def __init__(self, paths: DataPaths, shard_count: int) -> None:
        self._paths = paths
        self._shard_count = shard_count
        self._digest = ZERO_HASH
        self._newest: dict[int, tuple[int, bytes]] = {}

    def check(self, leaf: CheckpointLeaf) -> None:
        """Raises CheckpointInvalid if the leaf's digest is not that of the archive as it was then."""
        if leaf.archive_digest == self._digest:
            return
        for shard in range(self._shard_count):
            reached = self._newest[shard][0] if shard in self._newest else 0
            following = next(
                (ref for ref in segments(self._paths, shard) if ref.first_record_no == reached + 1), None
            )
            if following is None or following.last_record_no >= leaf.shards[shard].log_size:
                continue
            try:
                candidate = {**self._newest, shard: (following.last_record_no, segment_hash(following))}
            except SegmentInvalid:
                continue
            digest = archive_digest([(each, *candidate[each]) for each in sorted(candidate)])
            if digest == leaf.archive_digest:
                self._digest, self._newest = digest, candidate
                return
        raise CheckpointInvalid(leaf.n, "archive digest", "that of the segments", leaf.archive_digest)
