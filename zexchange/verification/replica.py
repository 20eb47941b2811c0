"""A replica of one shard: redoes the log batch by batch and compares everything that can be compared.

Pure: stored batches come in, a mismatch or a position comes out. Settlement runs it behind the live log, the
verifier runs it from genesis with either engine. For every batch it checks, in this order: size, checksum and
framing; the stream ID against the batch; that record numbers, chain, log time and epochs continue without a
hole, and that an opening record names the true tip; every signature; then it applies the frames and compares
the events hash and `seq`. The first difference is a `Mismatch` that names the record. After a mismatch a
replica must not be used any more.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from msgspec import Struct

from zexchange.engine_types import MalformedFrame, MatchingEngine
from zexchange.genesis import Genesis
from zexchange.log import journal
from zexchange.log.journal import BatchInvalid, ChainState, EntryId, LogBatch
from zexchange.verification.checkpoint import ShardTip
from zexchange.verification.merkle import CompactRange, leaf_hash
from zexchange.wire.messages import OperatorBatch, SignedBatch

if TYPE_CHECKING:
    from zexchange.verification.quick_replay import QuickReplay

__all__ = [
    "EngineClass",
    "Mismatch",
    "Replica",
    "SignatureCheck",
    "StoredBatch",
    "genesis_record",
    "verify_signatures",
]

SignatureCheck = Callable[[Sequence[bytes], bytes], Sequence[bool]]
"""(frames, deployment id) to one verdict per frame."""


@runtime_checkable
class EarlyCheck(Protocol):
    """A signature check that can work while its caller does something else."""

    def begin(self, frames: Sequence[bytes], deployment_id: bytes) -> Callable[[], Sequence[bool]]:
        """Returns at once what waits for the verdicts."""
        ...


_CHECKS_AHEAD = 2
_GROUP_BYTES = 256 * 1024
"""Of batches whose signatures are checked together: about a thousand."""

OTHER_DEPLOYMENT = (
    "the log belongs to another deployment, or the genesis file was changed afterwards: restore genesis.toml"
)
"""The chain begins with the deployment id, which is the hash of the genesis file."""
_COUNT = struct.Struct("<I")
_COUNT_OFFSET = 32
_TEMPLATE_ID = struct.Struct("<H")
_TEMPLATE_ID_OFFSET = 8
_SIGNED_TEMPLATE_IDS = (SignedBatch.TEMPLATE_ID, OperatorBatch.TEMPLATE_ID)


class Mismatch(Exception):
    """What the log or a checkpoint says is not what replaying gives. `record_no` is the first record that
    differs.

    Where only a whole batch can be compared (chain, events hash) it is the first record of that batch. `hint`
    says what may have happened where that is known.
    """

    def __init__(
        self, shard: int, record_no: int, what: str, expected: object, found: object, hint: str = ""
    ) -> None:
        self.shard = shard
        self.record_no = record_no
        self.what = what
        self.expected = expected.hex() if isinstance(expected, bytes) else str(expected)
        self.found = found.hex() if isinstance(found, bytes) else str(found)
        self.hint = hint
        super().__init__(
            f"shard {shard}: record {record_no}: {what}: expected {self.expected}, found {self.found}"
            + (f"; {hint}" if hint else "")
        )


class StoredBatch(Struct, frozen=True):
    """One batch as it was found: where, and its bytes, not yet looked at."""

    id: EntryId
    raw: bytes


class EngineClass(Protocol):
    """The class of an engine: `zexchange.engine.Engine` or `zexchange.reference.ReferenceEngine`."""

    def __call__(self, genesis: Genesis, shard: int, *, track_state: bool = True) -> MatchingEngine: ...

    def restore(
        self, genesis: Genesis, shard: int, snapshot: bytes, *, track_state: bool = True
    ) -> MatchingEngine: ...


def verify_signatures(frames: Sequence[bytes], deployment_id: bytes) -> Sequence[bool]:
    """The verdict on each SignedBatch or OperatorBatch frame: one call into C for all of them."""
    from zexchange.frames import verify_frames

    return verify_frames(frames, deployment_id)


def genesis_record(genesis: Genesis) -> bytes:
    """Data of leaf 0 of every execution tree."""
    return b"zx.v1/genesis\0" + genesis.raw


class Replica:
    """One shard replayed up to some batch boundary."""

    def __init__(
        self,
        genesis: Genesis,
        engine: MatchingEngine,
        position: ChainState,
        log_tree: CompactRange,
        check_signatures: SignatureCheck | None,
    ) -> None:
        """`position` and `log_tree` are those of the engine's state; None as `check_signatures` skips that
        check.
        """
        if log_tree.size != position.next_record_no or engine.next_record_no != position.next_record_no:
            raise ValueError("engine, log position and log tree are of different sizes")
        self.engine = engine
        self._genesis = genesis
        self._position = position
        self._log_tree = log_tree
        self._check_signatures = check_signatures
        self._tip: ShardTip | None = None
        self._quick: QuickReplay | None = None
        """Where the engine is the one in C: the way for batches that are as they should be."""
        self._quick_is_ahead = False
        if hasattr(engine, "handle"):
            # Not imported with the module: with the reference engine none of our C is loaded.
            from zexchange.verification.quick_replay import QuickReplay

            self._quick = QuickReplay(engine.handle)
            self._quick.begin(position, log_tree)

    @classmethod
    def at_genesis(
        cls,
        genesis: Genesis,
        shard: int,
        engine_class: EngineClass,
        check_signatures: SignatureCheck | None = verify_signatures,
    ) -> Self:
        """Before the first batch: the log holds only the genesis record."""
        log_tree = CompactRange()
        log_tree.append(leaf_hash(genesis_record(genesis)))
        engine = engine_class(genesis, shard)
        return cls(genesis, engine, ChainState.genesis(genesis.deployment_id), log_tree, check_signatures)

    @property
    def shard(self) -> int:
        return self.engine.shard

    @property
    def position(self) -> ChainState:
        """Behind the last batch applied."""
        self._catch_up()
        return self._position

    @property
    def frontier(self) -> list[bytes]:
        """Compact range of the execution tree: roots of its perfect subtrees, largest first."""
        self._catch_up()
        return self._log_tree.hashes

    def tip(self) -> ShardTip:
        """What a checkpoint says about this position. Costs two roots the first time, nothing until the log
        grows.
        """
        position = self.position
        if self._tip is None or self._tip.log_size != position.next_record_no:
            self._tip = ShardTip(
                shard=self.shard,
                log_size=position.next_record_no,
                log_root=self._log_tree.root(),
                chain=position.chain,
                state_root=self.engine.state_root(),
            )
        return self._tip

    def apply(self, batches: Iterable[StoredBatch], after_each: Callable[[], None] | None = None) -> int:
        """Redoes `batches`, which come next in the log, and returns how many records they held.

        The signatures of all of them are checked together, so a few dozen batches at a time are cheapest.
        `after_each` is called at every batch boundary. Raises Mismatch; the batches before it have been
        applied.
        """
        if self._quick is not None:
            return self._apply_quickly(self._quick, batches, after_each)
        return self._apply(batches, after_each)

    def _apply_quickly(
        self, quick: QuickReplay, batches: Iterable[StoredBatch], after_each: Callable[[], None] | None
    ) -> int:
        """Batch by batch; those that open an epoch, and those with which something is wrong, the careful way."""
        if self._check_signatures is None:
            return self._redo_quickly(quick, batches, after_each)
        groups = list(_grouped(batches))
        # What comes next is checked while this is redone, and what comes then is waiting, by a check that can.
        checks = deque(map(self._begin_check, groups[:_CHECKS_AHEAD]))
        records = 0
        for number, group in enumerate(groups):
            is_good = checks.popleft()()
            checks += map(self._begin_check, groups[number + _CHECKS_AHEAD : number + _CHECKS_AHEAD + 1])
            if not is_good:
                self._catch_up()
                rest = [stored for later in groups[number:] for stored in later]
                records += self._apply(rest, after_each)
                quick.begin(self._position, self._log_tree)
                break
            records += self._redo_quickly(quick, group, after_each)
        return records

    def _redo_quickly(
        self, quick: QuickReplay, batches: Iterable[StoredBatch], after_each: Callable[[], None] | None
    ) -> int:
        records = 0
        for stored in batches:
            outcome = quick.redo(stored.id.epoch, stored.id.record_no, stored.raw)
            if outcome is None:
                raise self._diverged(stored, quick.ours())
            if outcome:
                self._quick_is_ahead = True
                records += _COUNT.unpack_from(stored.raw, _COUNT_OFFSET)[0]
                if after_each is not None:
                    after_each()
                continue
            self._catch_up()
            records += self._apply([stored], after_each)
            quick.begin(self._position, self._log_tree)
        return records

    def _begin_check(self, batches: Sequence[StoredBatch]) -> Callable[[], bool]:
        """Returns what tells, once it is known, whether all signatures verify. A batch that cannot be read as far
        as that says no."""
        frames: list[bytes] = []
        try:
            for stored in batches:
                frames += journal.iter_frames(
                    stored.raw[journal.BATCH_HEADER_BYTES : -journal.BATCH_TRAILER_BYTES]
                )
        except (BatchInvalid, struct.error):
            return lambda: False
        deployment_id = self._genesis.deployment_id
        signed = [frame for frame in frames if _is_signed(frame)]
        if not signed:
            return lambda: True
        check: object = self._check_signatures
        if isinstance(check, EarlyCheck):
            verdicts = check.begin(signed, deployment_id)
            return lambda: _all_good(verdicts(), len(signed))
        assert self._check_signatures is not None
        good = _all_good(self._check_signatures(signed, deployment_id), len(signed))
        return lambda: good

    def _catch_up(self) -> None:
        if self._quick_is_ahead and self._quick is not None:
            self._quick_is_ahead = False
            self._position = self._quick.position()
            self._log_tree = self._quick.log_tree()

    def _diverged(self, stored: StoredBatch, ours: bytes) -> Mismatch:
        """What is wrong with a batch that came out as `ours`. Our engine is behind it already; that the batch
        comes next was checked before."""
        header = journal.batch_header(stored.raw)
        before = ChainState(
            header.epoch, header.first_record_no, None, header.chain_before, header.log_time_ns - 1
        )
        try:
            batch, _ = self._open(stored, before)
        except Mismatch as error:
            return error
        first = batch.first_record_no
        own = journal.decode_batch(ours)
        for what, expected, found in (
            ("first seq", own.first_seq, batch.first_seq),
            ("records of one batch", own.count, batch.count),
            ("events hash", own.events_hash, batch.events_hash),
        ):
            if expected != found:
                record_no = first + own.count if what == "records of one batch" else first
                return Mismatch(self.shard, record_no, what, expected, found)
        raise RuntimeError("a batch that is as it should be was taken for another")

    def _apply(self, batches: Iterable[StoredBatch], after_each: Callable[[], None] | None) -> int:
        checked: list[tuple[LogBatch, list[bytes]]] = []
        broken: Mismatch | None = None
        ahead = self._position
        for stored in batches:
            try:
                batch, frames = self._open(stored, ahead)
            except Mismatch as error:
                broken = error
                break
            checked.append((batch, frames))
            ahead = ahead.after(batch)
        bad_record_no = self._first_bad_signature(checked)
        records = 0
        for batch, frames in checked:
            if bad_record_no is not None and bad_record_no < batch.next_record_no:
                raise Mismatch(self.shard, bad_record_no, "signature", "valid", "invalid")
            self._redo(batch, frames)
            records += batch.count
            if after_each is not None:
                after_each()
        if broken is not None:
            raise broken
        return records

    def compare(self, tip: ShardTip, source: str) -> None:
        """Compares what `source`, say "checkpoint 7", claims about this position. Raises Mismatch."""
        own = self.tip()
        if tip.log_size == 1 and tip.chain != own.chain:
            raise Mismatch(self.shard, 1, f"chain of {source}", own.chain, tip.chain, OTHER_DEPLOYMENT)
        for what, expected, found in (
            ("log root", own.log_root, tip.log_root),
            ("chain", own.chain, tip.chain),
            ("state root", own.state_root, tip.state_root),
        ):
            if expected != found:
                raise Mismatch(self.shard, tip.log_size - 1, f"{what} of {source}", expected, found)

    def _open(self, stored: StoredBatch, position: ChainState) -> tuple[LogBatch, list[bytes]]:
        """Decodes a batch and checks that it comes next at `position`."""
        record_no = position.next_record_no
        try:
            batch = journal.decode_batch(stored.raw, shard=self.shard)
        except BatchInvalid as error:
            raise self._damaged(stored.raw, record_no, error) from error
        for what, expected, found in (
            ("next record", record_no, batch.first_record_no),
            ("stream ID", batch.id, stored.id),
            ("chain before", position.chain, batch.chain_before),
        ):
            if expected != found:
                other = what == "chain before" and record_no == 1
                raise Mismatch(
                    self.shard, record_no, what, expected, found, OTHER_DEPLOYMENT if other else ""
                )
        try:
            journal.check_follows(position, batch)
        except BatchInvalid as error:
            raise Mismatch(
                self.shard, error.record_no or record_no, "batch", "the next of the log", error.reason
            ) from error
        return batch, list(journal.iter_frames(batch.body))

    def _damaged(self, raw: bytes, record_no: int, error: BatchInvalid) -> Mismatch:
        """The mismatch for a batch that cannot be decoded: names the frame that was changed, if signatures
        tell.
        """
        frames: list[bytes] = []
        whole = True
        try:
            for frame in journal.iter_frames(raw[journal.BATCH_HEADER_BYTES : -journal.BATCH_TRAILER_BYTES]):
                frames.append(frame)
        except (BatchInvalid, struct.error):
            whole = False
        bad = self._bad_frames(frames)
        index = bad[0] if bad else len(frames)
        if bad or (not whole and frames):
            return Mismatch(self.shard, record_no + index, "frame", "as it was signed", error.reason)
        return Mismatch(self.shard, record_no, "batch", "intact", error.reason)

    def _first_bad_signature(self, checked: list[tuple[LogBatch, list[bytes]]]) -> int | None:
        """Number of the first record whose signature does not verify."""
        if self._check_signatures is None or not checked:
            return None
        bad = self._bad_frames([frame for _, frames in checked for frame in frames])
        return checked[0][0].first_record_no + bad[0] if bad else None

    def _bad_frames(self, frames: list[bytes]) -> list[int]:
        """Indexes of the signed frames whose signature does not verify."""
        check = self._check_signatures
        if check is None:
            return []
        signed = [index for index, frame in enumerate(frames) if _is_signed(frame)]
        if not signed:
            return []
        verdicts = check([frames[index] for index in signed], self._genesis.deployment_id)
        _all_good(verdicts, len(signed))
        return [index for index, good in zip(signed, verdicts, strict=True) if not good]

    def _redo(self, batch: LogBatch, frames: list[bytes]) -> None:
        """Applies a checked batch and compares what the engine makes of it."""
        first, next_seq = batch.first_record_no, self.engine.next_seq
        if batch.first_seq != next_seq:
            raise Mismatch(self.shard, first, "first seq", next_seq, batch.first_seq)
        try:
            applied = self.engine.apply(batch.body, batch.log_time_ns)
        except MalformedFrame as error:
            record_no = first + sum(1 for _ in journal.iter_frames(batch.body[: error.offset]))
            raise Mismatch(self.shard, record_no, "frame", "well-formed", error.detail) from error
        if applied.consumed_bytes != len(batch.body) or applied.records != batch.count:
            # The matcher ends a batch where its event buffer might not hold the next frame's events.
            raise Mismatch(
                self.shard, first + applied.records, "records of one batch", applied.records, batch.count
            )
        found = journal.events_hash(applied.events)
        if found != batch.events_hash:
            raise Mismatch(self.shard, first, "events hash", found, batch.events_hash)
        for frame in frames:
            self._log_tree.append(leaf_hash(frame))
        self._position = self._position.after(batch, self.engine.next_seq)
        if self.engine.next_record_no != batch.next_record_no:
            raise RuntimeError("the engine counts records differently")


def _all_good(verdicts: Sequence[bool], expected: int) -> bool:
    if len(verdicts) != expected:
        raise RuntimeError("the signature check gave another number of verdicts than there were frames")
    return all(verdicts)


def _grouped(batches: Iterable[StoredBatch]) -> Iterator[list[StoredBatch]]:
    """Groups that are large enough to share a check of theirs among cores."""
    group: list[StoredBatch] = []
    size = 0
    for stored in batches:
        group.append(stored)
        size += len(stored.raw)
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _is_signed(frame: bytes) -> bool:
    """Whether somebody sent the frame; the others are the matcher's own."""
    template_id: int = _TEMPLATE_ID.unpack_from(frame, _TEMPLATE_ID_OFFSET)[0]
    return template_id in _SIGNED_TEMPLATE_IDS
