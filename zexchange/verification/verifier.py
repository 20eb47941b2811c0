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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from msgspec import Struct

from zexchange.genesis import Genesis
from zexchange.log.archive import segments
from zexchange.log.history import LogHistory, StreamCursor
from zexchange.log.stream import StreamClient
from zexchange.runtime.paths import DataPaths
from zexchange.settlement.archive_check import ArchiveDigests
from zexchange.settlement.publication import published, published_size
from zexchange.verification.checkpoint import (
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
from zexchange.verification.merkle import CompactRange, leaf_hash
from zexchange.verification.note import NoteFault, NoteInvalid, NoteKey, TreeHead, open_note
from zexchange.verification.replica import EngineClass, Mismatch, Replica, SignatureCheck, verify_signatures
from zexchange.verification.snapshot import snapshot_numbers

__all__ = [
    "CHUNK_BATCHES",
    "CheckpointMismatch",
    "ParallelSignatures",
    "Progress",
    "Report",
    "ShardReport",
    "kept_checkpoint",
    "verify",
    "verify_signatures_plainly",
]

CHUNK_BATCHES = 64
PAGE = 256
SLICE_FRAMES = 64
"""Fewest frames worth handing to another thread: 4 ms of work."""
SLICES_PER_THREAD = 4

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
    newest_note: bytes
    """The newest checkpoint as it was signed; empty if there is none. Worth keeping somewhere else."""
    warnings: tuple[str, ...]
    """What was not compared with anything signed, though nothing differs."""
    shards: tuple[ShardReport, ...]

    @property
    def uncovered_records(self) -> int:
        """Records beyond the newest checkpoint."""
        return self.records - self.covered_records


class _Claims(Struct):
    """What the checkpoints say, up to the first that is not good."""

    count: int
    tips: dict[int, list[tuple[int, ShardTip]]]
    """Per shard, for each distinct log size, the first checkpoint of that size and its tip."""
    problem: CheckpointMismatch | None
    newest_note: bytes = b""


class ParallelSignatures:
    """`verify_signatures` on all cores: the C function releases the interpreter's lock."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads)

    def __call__(self, frames: Sequence[bytes], deployment_id: bytes) -> list[bool]:
        return self.begin(frames, deployment_id)()

    def begin(self, frames: Sequence[bytes], deployment_id: bytes) -> Callable[[], list[bool]]:
        """Returns at once what waits for the verdicts."""
        # Several slices per thread: one that loses its core for a while must not keep all others waiting.
        size = max(SLICE_FRAMES, -(-len(frames) // (SLICES_PER_THREAD * self._threads)))
        slices = [frames[start : start + size] for start in range(0, len(frames), size)]
        verdicts = self._pool.map(lambda part: verify_signatures(part, deployment_id), slices)
        return lambda: [good for part in verdicts for good in part]

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
    kept: Mapping[str, TreeHead] | None = None,
) -> Report:
    """Verifies everything up to the end that the log has when this is called.

    The exchange may be running. `kept` are checkpoints from elsewhere, by the names to report them with: the
    settlement log must contain them. Raises Mismatch for the first difference, StoreUnavailable,
    StoreRefused, OSError.
    """
    # Looked for first: while the exchange runs a checkpoint may come, and these behind it.
    traces = _traces_of_checkpoints(paths, genesis.shards)
    claims = _read_checkpoints(paths, client, genesis, kept or {})
    if claims.count == 0 and claims.problem is None and traces is not None:
        shard, what = traces
        claims.problem = CheckpointMismatch(
            0, shard, 1, "checkpoints", f"at least one, as there are {what}", "none"
        )
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
        newest_note=claims.newest_note,
        warnings=("there is no checkpoint: nothing was compared with anything signed",)
        if claims.count == 0
        else (),
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


def kept_checkpoint(name: str, note: bytes, genesis: Genesis) -> TreeHead:
    """Opens a checkpoint that was kept elsewhere, for `verify`.

    Raises NoteInvalid if it is none, Mismatch if it is not signed by the key that the genesis file names.
    """
    key = NoteKey(origin_of(genesis.name), genesis.settlement_public_key)
    try:
        head = TreeHead.parse(open_note(note, [key]).text)
    except NoteInvalid as error:
        if error.fault is NoteFault.MALFORMED:
            raise
        raise Mismatch(0, 0, f"signature of {name}", f"that of {key}", error) from error
    if head.origin != key.name:
        raise Mismatch(0, 0, f"origin of {name}", key.name, head.origin)
    return head


def _traces_of_checkpoints(paths: DataPaths, shard_count: int) -> tuple[int, str] | None:
    """(shard, what) of something that is only ever written behind a checkpoint; None if there is nothing."""
    for shard in range(shard_count):
        if segments(paths, shard):
            return shard, "archived segments"
        if snapshot_numbers(paths, shard):
            return shard, "snapshots"
    return None


def _read_checkpoints(
    paths: DataPaths, client: StreamClient, genesis: Genesis, kept: Mapping[str, TreeHead]
) -> _Claims:
    """Checks all checkpoints by themselves. The first that is not good becomes `problem`, with those before
    it kept.
    """
    claims = _Claims(0, {shard: [] for shard in range(genesis.shards)}, None)
    try:
        last_signed = read_last_signed(paths.last_signed)
        roots: dict[int, bytes | None] = {head.size: None for head in kept.values()}
        torn = _follow(paths, client, genesis, claims, last_signed, published_size(client), roots)
        _check_end(claims.count, torn, last_signed, read_last_signed(paths.last_signed))
        _check_kept(claims.count, roots, kept)
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
    roots: dict[int, bytes | None],
) -> bool:
    """Reads `checkpoints.log` beside the store's copy, and fills `claims`; True if an unfinished entry ends
    it. `roots` gets the roots of the tree sizes that it names.

    `last_signed` and `newest_published` were read before: while settlement works the file is ahead of them.
    """
    key = NoteKey(origin_of(genesis.name), genesis.settlement_public_key)
    tree = CompactRange()
    copies = _published_up_to(client, newest_published)
    copy = next(copies, None)
    previous: CheckpointLeaf | None = None
    archived = ArchiveDigests(paths, genesis.shards)
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
                if tree.size in roots:
                    roots[tree.size] = root
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
                claims.count, claims.newest_note = n + 1, checkpoint.note
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


def _check_kept(count: int, roots: Mapping[int, bytes | None], kept: Mapping[str, TreeHead]) -> None:
    """Checks that the checkpoints kept elsewhere are among ours. Raises CheckpointInvalid."""
    for name, head in kept.items():
        if head.size > count:
            raise CheckpointInvalid(
                count, "size of the settlement log", f"at least {head.size}, as in {name}", count
            )
        if roots[head.size] != head.root:
            raise CheckpointInvalid(head.size - 1, f"root in {name}", roots[head.size], head.root)


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
