"""Proofs that a record is in the log of a shard: its execution tree (docs/formats.md), and where each record is.

The tree needs every record from the first. Where the replica begins with a snapshot, because the log is long, it stays
empty and there are no proofs; where records are is known from there on. 64 bytes of memory per record.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from zexchange.genesis import Genesis
from zexchange.log import journal
from zexchange.log.history import LogHistory
from zexchange.log.journal import EntryId
from zexchange.log.stream import StreamClient
from zexchange.runtime.paths import DataPaths
from zexchange.verification.merkle import StoredTree, leaf_hash
from zexchange.verification.replica import StoredBatch, genesis_record

__all__ = ["RecordTree"]


class RecordTree:
    """The execution tree of one shard. `add` and `tree` belong to one thread; `frame` may be asked for in another."""

    def __init__(self, genesis: Genesis, shard: int) -> None:
        self._shard = shard
        self.tree = StoredTree()
        self.tree.append(leaf_hash(genesis_record(genesis)))
        self._firsts = array("Q")
        self._epochs = array("Q")
        self._begin = EntryId(0, 1)
        self._next = 1

    @property
    def size(self) -> int:
        """Leaves of the tree."""
        return self.tree.size

    def begin(self, record_no: int, epoch: int) -> None:
        """The first batch that is added begins with this record, and the one before it was of this epoch."""
        self._begin = EntryId(epoch, record_no)
        self._next = record_no

    def add(self, stored: StoredBatch) -> list[bytes]:
        """The next batch, in order. Returns its frames."""
        self._firsts.append(stored.id.record_no)
        self._epochs.append(stored.id.epoch)
        frames = _frames(stored)
        self._next = stored.id.record_no + len(frames)
        if stored.id.record_no == self.tree.size:
            for frame in frames:
                self.tree.append(leaf_hash(frame))
        return frames

    def epoch_before(self, record_no: int) -> int | None:
        """Epoch of the batch before the one that begins with this record, 0 if there is none; None if unknown."""
        if not self._begin.record_no <= record_no <= self._next:
            return None
        at = bisect_right(self._firsts, record_no - 1) - 1
        return self._epochs[at] if at >= 0 else self._begin.epoch

    def frame(self, record_no: int, paths: DataPaths, client: StreamClient) -> bytes:
        """The signed frame that is this record. Raises KeyError, Mismatch, StoreUnavailable, StoreRefused."""
        at = bisect_right(self._firsts, record_no) - 1
        if at < 0 or record_no >= self._next:
            raise KeyError(f"record {record_no}")
        first, epoch = self._firsts[at], self._epochs[at]
        before = self._epochs[at - 1] if at else self._begin.epoch
        history = LogHistory(paths, client, self._shard)
        for chunk in history.chunks(first, before, until=EntryId(epoch, first), count=1):
            return _frames(chunk[0])[record_no - first]
        raise KeyError(f"record {record_no}")


def _frames(stored: StoredBatch) -> list[bytes]:
    body = stored.raw[journal.BATCH_HEADER_BYTES : -journal.BATCH_TRAILER_BYTES]
    return list(journal.iter_frames(body))
