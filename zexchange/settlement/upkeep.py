"""What settlement does behind a signed checkpoint: prune snapshots, archive the log, trim it, and have the store
compact its file.

The order is what makes it safe: a snapshot is written at a position that was signed; a segment holds nothing
beyond one, and is read back and checked; the log is trimmed only below both the archive and the oldest
snapshot that is kept, and a margin more. So a shard can always be recovered from any of its snapshots and the
log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from zexchange.config import SettlementSection
from zexchange.log import journal
from zexchange.log.archive import (
    SegmentEnd,
    SegmentRef,
    archive_digest,
    check_segment,
    read_segment,
    segments,
    trim_log,
    write_segment,
)
from zexchange.log.history import StreamCursor
from zexchange.log.journal import BatchInvalid, EntryId, LogBatch
from zexchange.log.stream import StoreRefused, StoreUnavailable, StreamClient
from zexchange.runtime import durable
from zexchange.runtime.paths import DataPaths
from zexchange.settlement.compaction import compact
from zexchange.verification.checkpoint import ShardTip
from zexchange.verification.replica import Mismatch, StoredBatch
from zexchange.verification.snapshot import SnapshotHeader, snapshot_numbers, write_snapshot

__all__ = ["Upkeep"]

READ_COUNT = 64


class Upkeep:
    """Snapshots, archive and trimming of all shards of one data folder. One owner at a time: the settlement
    process.
    """

    def __init__(
        self,
        paths: DataPaths,
        client: StreamClient,
        shard_count: int,
        deployment_id: bytes,
        settings: SettlementSection,
        log: logging.Logger,
    ) -> None:
        """Removes unfinished files and checks the newest segment of each shard. Raises SegmentInvalid,
        OSError.
        """
        self._paths = paths
        self._client = client
        self._settings = settings
        self._log = log
        self._genesis = SegmentEnd(0, 0, deployment_id, b"")
        self._archived: dict[int, SegmentEnd] = {}
        for shard in range(shard_count):
            for folder in (paths.snapshots(shard), paths.archive(shard)):
                durable.remove_leftovers(folder)
            refs = segments(paths, shard)
            if refs:
                self._archived[shard] = check_segment(refs[-1])

    def archive_digest(self) -> bytes:
        """What the next checkpoint says about the archive."""
        return archive_digest(
            [(shard, end.last_record_no, end.segment_hash) for shard, end in sorted(self._archived.items())]
        )

    def write_snapshot(self, header: SnapshotHeader, engine_snapshot: bytes) -> None:
        """Writes a snapshot of a signed position and removes the oldest beyond `kept_snapshots`. Raises
        OSError.
        """
        path = write_snapshot(self._paths, header, engine_snapshot)
        self._log.info("snapshot", extra={"zx": {"shard": header.shard, "path": str(path)}})
        numbers = snapshot_numbers(self._paths, header.shard)
        for number in numbers[: -self._settings.kept_snapshots]:
            (path.parent / f"{number:020d}.snap").unlink(missing_ok=True)

    def archive_one(self, signed: Sequence[ShardTip]) -> SegmentRef | None:
        """Writes at most one segment, of the shard that is furthest behind, and trims that shard's log.

        `signed` are the tips of the newest checkpoint. One segment per checkpoint, so that the archive
        digests of a chain of checkpoints can be followed. Raises Mismatch if the log is not what was
        verified, SegmentInvalid, StoreUnavailable, StoreRefused, OSError.
        """
        due = [
            (tip.log_size - 1 - self._end(tip.shard).last_record_no, tip)
            for tip in signed
            if tip.log_size - 1 - self._end(tip.shard).last_record_no >= self._settings.segment_every_records
        ]
        if not due:
            return None
        tip = max(due, key=lambda item: (item[0], -item[1].shard))[1]
        ref = write_segment(self._paths, tip.shard, self._unarchived(tip))
        self._archived[tip.shard] = check_segment(ref)
        self._log.info("segment", extra={"zx": {"shard": tip.shard, "path": str(ref.path)}})
        self.trim(tip.shard)
        return ref

    def trim(self, shard: int) -> int:
        """Trims the shard's log as far as archive, snapshots and margin allow; returns the number of entries
        removed.

        Raises SegmentInvalid, StoreUnavailable, StoreRefused, OSError.
        """
        snapshots = snapshot_numbers(self._paths, shard)
        if shard not in self._archived or not snapshots:
            return 0
        below = min(self._end(shard).last_record_no + 1, snapshots[0]) - self._settings.kept_log_records
        keep_from: EntryId | None = None
        for ref in segments(self._paths, shard):
            if not ref.first_record_no <= below <= ref.last_record_no:
                continue
            for batch in read_segment(ref):
                if batch.id.record_no <= below:
                    keep_from = batch.id
        if keep_from is None:
            return 0
        removed = trim_log(self._client, shard, keep_from)
        if removed:
            self._log.info(
                "log trimmed", extra={"zx": {"shard": shard, "keep_from": str(keep_from), "removed": removed}}
            )
            self._compact()
        return removed

    def _compact(self) -> None:
        try:
            compact(self._client, self._log)
        except (StoreUnavailable, StoreRefused) as error:
            # The log is as safe as before, only larger; the next trim tries again.
            self._log.warning("the store's file was not compacted", extra={"zx": {"reason": str(error)}})

    def _end(self, shard: int) -> SegmentEnd:
        return self._archived.get(shard, self._genesis)

    def _unarchived(self, tip: ShardTip) -> list[StoredBatch]:
        """The batches of the next segment, read from the stream. None of them is beyond the signed tip.

        Should somebody have changed the log since it was replayed, the chain breaks here, or in the next
        segment at the latest: what follows was written behind the true chain.
        """
        end = self._end(tip.shard)
        record_no, chain = end.last_record_no + 1, end.chain
        wanted: list[StoredBatch] = []
        enough = min(record_no + self._settings.segment_every_records, tip.log_size)
        cursor = StreamCursor(self._client, tip.shard, EntryId(end.epoch, end.last_record_no))
        while record_no < enough:
            chunk = cursor.read(READ_COUNT)
            if not chunk:
                raise Mismatch(tip.shard, record_no, "record to archive", "in the log", "missing")
            for stored in chunk:
                if record_no >= enough:
                    break
                batch = _next_batch(tip.shard, stored, record_no, chain)
                wanted.append(stored)
                record_no, chain = batch.next_record_no, batch.chain_after
        if record_no > tip.log_size or (record_no == tip.log_size and chain != tip.chain):
            raise Mismatch(tip.shard, tip.log_size - 1, "chain of the log to archive", tip.chain, chain)
        return wanted


def _next_batch(shard: int, stored: StoredBatch, record_no: int, chain: bytes) -> LogBatch:
    """Decodes the batch that must begin with `record_no` behind `chain`. Raises Mismatch."""
    try:
        batch = journal.decode_batch(stored.raw, shard=shard)
    except BatchInvalid as error:
        raise Mismatch(shard, record_no, "batch to archive", "intact", error.reason) from error
    if batch.first_record_no != record_no:
        raise Mismatch(shard, record_no, "record to archive", record_no, batch.first_record_no)
    if batch.chain_before != chain:
        raise Mismatch(shard, record_no, "chain before", chain, batch.chain_before)
    return batch
