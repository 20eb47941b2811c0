"""The stored batches of one shard, from any record on: first out of archived segments, then out of the
store's stream.

The log is trimmed behind the archive, also while somebody reads it. So at every step the stream is preferred,
and a segment is read only for what the stream no longer has. Batches come out as bytes: checking them is the
replica's work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from zexchange.log.archive import SegmentInvalid, SegmentRef, read_segment, segments
from zexchange.log.journal import EntryId, log_key
from zexchange.log.stream import StreamClient, command
from zexchange.runtime.paths import DataPaths
from zexchange.verification.replica import Mismatch, StoredBatch

__all__ = ["LogHistory", "StreamCursor", "read_streams"]

START = EntryId(0, 0)


class _Trimmed(Exception):
    """The stream no longer has the next batch: it was archived and trimmed while we read."""


class StreamCursor:
    """Reads one shard's stream forward; `after` is the ID of the last entry seen, markers included."""

    def __init__(self, client: StreamClient, shard: int, after: EntryId = START) -> None:
        self._client = client
        self._shard = shard
        self.after = after

    def read(self, count: int) -> list[StoredBatch]:
        """The next batches; none at the end. Raises Mismatch, StoreUnavailable, StoreRefused."""
        while True:
            rows = command(
                self._client, "XRANGE", log_key(self._shard), f"({self.after}", "+", "COUNT", count
            )
            if not rows:
                return []
            self.after, batches = parse_rows(self._shard, rows)
            if batches:
                return batches

    def first(self) -> StoredBatch | None:
        """The oldest batch of the stream, wherever the cursor is."""
        cursor = StreamCursor(self._client, self._shard)
        batches = cursor.read(4)
        return batches[0] if batches else None

    def tip(self) -> StoredBatch | None:
        """The newest batch of the stream, wherever the cursor is."""
        newest = "+"
        while True:
            rows = command(self._client, "XREVRANGE", log_key(self._shard), newest, "-", "COUNT", 4)
            if not rows:
                return None
            last, batches = parse_rows(self._shard, rows)
            if batches:
                return batches[0]
            newest = f"({last}"


class LogHistory:
    """Iterates over all stored batches of one shard in order.

    With `compare_copies` a batch that both the stream and a segment hold must be the same in both.
    """

    def __init__(
        self, paths: DataPaths, client: StreamClient, shard: int, *, compare_copies: bool = False
    ) -> None:
        self._paths = paths
        self._client = client
        self._shard = shard
        self._compare_copies = compare_copies

    def chunks(
        self, next_record_no: int, epoch: int, *, until: EntryId | None = None, count: int = 64
    ) -> Iterator[list[StoredBatch]]:
        """Batches from `next_record_no` on, about `count` at a time; `epoch` is that of the batch before (0:
        none).

        `until` is the last batch wanted; without it the end of the stream as it is when it is reached. Raises
        Mismatch for what no replica could see: a record that is nowhere, or two copies that differ.
        """
        while until is None or next_record_no <= until.record_no:
            cursor = StreamCursor(self._client, self._shard)
            oldest = cursor.first()
            if oldest is not None and oldest.id.record_no <= next_record_no:
                source = self._from_stream(cursor, next_record_no, epoch, until, count)
            else:
                stop_at = None if oldest is None else oldest.id.record_no
                ref = self._covering(next_record_no)
                if ref is None:
                    if oldest is None:
                        return
                    raise Mismatch(
                        self._shard, next_record_no, "record", "in the log or the archive", "missing"
                    )
                source = self._from_segment(ref, next_record_no, stop_at, until, count)
            progressed = False
            try:
                for chunk in source:
                    yield chunk
                    progressed = True
                    epoch, next_record_no = chunk[-1].id.epoch, _record_no_after(chunk[-1])
            except _Trimmed:
                continue  # what is gone from the stream is in a segment now
            if not progressed:
                return

    def _from_stream(
        self, cursor: StreamCursor, next_record_no: int, epoch: int, until: EntryId | None, count: int
    ) -> Iterator[list[StoredBatch]]:
        """Ends at the end of the stream or behind `until`. Raises _Trimmed where the log was trimmed
        meanwhile.
        """
        # The next batch is the next record of the same epoch or the first record of a later one.
        cursor.after = EntryId(epoch, next_record_no - 1)
        copies = self._copies(next_record_no)
        while chunk := cursor.read(count):
            if chunk[0].id.record_no > next_record_no:
                oldest = cursor.first()
                if oldest is None or oldest.id.record_no > next_record_no:
                    raise _Trimmed
            wanted = [batch for batch in chunk if until is None or batch.id <= until]
            different: Mismatch | None = None
            for index, batch in enumerate(wanted):
                different = self._compare(batch, next(copies, None))
                if different is not None:
                    # What came before is replayed first: it may hold an earlier difference.
                    wanted = wanted[:index]
                    break
            if wanted:
                yield wanted
                next_record_no = _record_no_after(wanted[-1])
            if different is not None:
                raise different
            if len(wanted) < len(chunk):
                return
        if (left := next(copies, None)) is not None:
            raise Mismatch(
                self._shard, left.id.record_no, "record", "in the log, as in the archive", "missing"
            )

    def _from_segment(
        self, ref: SegmentRef, next_record_no: int, stop_at: int | None, until: EntryId | None, count: int
    ) -> Iterator[list[StoredBatch]]:
        """Batches of one segment below `stop_at`, where the stream begins."""
        chunk: list[StoredBatch] = []
        try:
            for batch in read_segment(ref):
                if stop_at is not None and batch.id.record_no >= stop_at:
                    break
                if batch.id.record_no < next_record_no:
                    continue
                if until is not None and batch.id > until:
                    break
                chunk.append(batch)
                if len(chunk) == count:
                    yield chunk
                    chunk = []
        except SegmentInvalid as error:
            # What came before the damage is replayed first: it may hold an earlier difference.
            if chunk:
                yield chunk
            raise self._damaged(error) from error
        if chunk:
            yield chunk

    def _copies(self, next_record_no: int) -> Iterator[StoredBatch]:
        """Archived batches from `next_record_no` on: copies of what the stream still holds."""
        if not self._compare_copies:
            return
        for ref in segments(self._paths, self._shard):
            if ref.last_record_no < next_record_no:
                continue
            try:
                for batch in read_segment(ref):
                    if batch.id.record_no >= next_record_no:
                        yield batch
            except SegmentInvalid as error:
                raise self._damaged(error) from error

    def _compare(self, batch: StoredBatch, copy: StoredBatch | None) -> Mismatch | None:
        """The mismatch if the log's batch and its archived copy differ."""
        if copy is None or copy == batch:
            return None
        record_no = min(batch.id.record_no, copy.id.record_no)
        return Mismatch(
            self._shard,
            record_no,
            "batch in the archive",
            f"that of the log, {batch.id}, with hash {hashlib.sha256(batch.raw).hexdigest()}",
            f"{copy.id} with hash {hashlib.sha256(copy.raw).hexdigest()}",
        )

    def _covering(self, record_no: int) -> SegmentRef | None:
        for ref in segments(self._paths, self._shard):
            if ref.first_record_no <= record_no <= ref.last_record_no:
                return ref
        return None

    def _damaged(self, error: SegmentInvalid) -> Mismatch:
        return Mismatch(self._shard, error.record_no, f"segment {error.path.name}", "intact", error.detail)


def read_streams(
    client: StreamClient, cursors: dict[int, EntryId], count: int, block_ms: int
) -> dict[int, tuple[EntryId, list[StoredBatch]]]:
    """Waits up to `block_ms` for new entries in the logs of these shards, behind the given IDs.

    Returns, for each shard with news, the ID of its last entry and its batches. Raises Mismatch,
    StoreUnavailable, StoreRefused.
    """
    keys = {log_key(shard): shard for shard in cursors}
    reply = command(
        client,
        *("XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS"),
        *keys,
        *(str(after) for after in cursors.values()),
    )
    found = {}
    for key, rows in _streams(reply):
        shard = keys[key.decode() if isinstance(key, bytes) else key]
        if rows:
            found[shard] = parse_rows(shard, rows)
    return found


def parse_rows(shard: int, rows: Any) -> tuple[EntryId, list[StoredBatch]]:
    """ID of the last row, and the batches in the rows of a stream. Raises Mismatch for an entry that is
    neither.
    """
    last = START
    batches = []
    for raw_id, fields in rows:
        last = EntryId.parse(raw_id)
        if list(fields) == [b"b"]:
            batches.append(StoredBatch(last, fields[b"b"]))
        elif fields != {b"m": str(last.epoch).encode()} or last.record_no != 0:
            raise Mismatch(
                shard, last.record_no, f"entry {last} of the stream", "a batch or a marker", "neither"
            )
    return last, batches


def _streams(reply: Any) -> Iterator[tuple[bytes | str, Any]]:
    """(key, rows) of an XREAD reply: a list of pairs, or in the newer protocol a mapping to a list of row
    lists.
    """
    if not reply:
        return
    for key, rows in reply.items() if isinstance(reply, dict) else reply:
        nested = (
            bool(rows)
            and isinstance(rows[0], list)
            and bool(rows[0])
            and isinstance(rows[0][0], tuple | list)
        )
        yield key, rows[0] if nested else rows


def _record_no_after(batch: StoredBatch) -> int:
    """Number of the record behind a batch, by its own header."""
    count = int.from_bytes(batch.raw[32:36], "little")
    return batch.id.record_no + max(count, 1)
