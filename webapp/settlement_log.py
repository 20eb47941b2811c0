"""The checkpoints as settlement's file has them, with proofs of any two sizes.

`checkpoints.log` is the truth and always ahead of what is published elsewhere, so it is what is followed. In memory are
the tree, where each entry begins, and the newest entries.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from pathlib import Path

from zexchange.verification.checkpoint import CheckpointReader, SignedCheckpoint
from zexchange.verification.merkle import StoredTree, leaf_hash

KEPT = 1_000
"""Newest entries in memory."""


class SettlementLog:
    """Follows the file. Used by one thread at a time."""

    def __init__(self, path: Path, shards: int) -> None:
        self._path = path
        self._shards = shards
        self._begins = array("Q")
        self._end = 0
        self._newest: deque[SignedCheckpoint] = deque(maxlen=KEPT)
        self.tree = StoredTree()

    def __len__(self) -> int:
        return len(self._begins)

    def poll(self) -> list[SignedCheckpoint]:
        """What was added since the last call. Raises CheckpointLogCorrupt, OSError."""
        try:
            if self._path.stat().st_size == self._end:
                return []
        except FileNotFoundError:
            return []
        found: list[SignedCheckpoint] = []
        with self._path.open("rb") as file:
            file.seek(self._end)
            reader = CheckpointReader(file, self._shards)
            begin = 0
            for checkpoint in reader:
                self._begins.append(self._end + begin)
                begin = reader.end
                self.tree.append(leaf_hash(checkpoint.leaf))
                self._newest.append(checkpoint)
                found.append(checkpoint)
            self._end += reader.end
        return found

    def get(self, number: int) -> SignedCheckpoint:
        """Checkpoint `number`. Raises IndexError, OSError."""
        if not 0 <= number < len(self):
            raise IndexError(f"no checkpoint {number}")
        behind = len(self) - number
        if behind <= len(self._newest):
            return self._newest[-behind]
        with self._path.open("rb") as file:
            file.seek(self._begins[number])
            return next(iter(CheckpointReader(file, self._shards)))

    def raw(self, first: int, bytes_max: int) -> tuple[bytes, int]:
        """Whole entries of the file from checkpoint `first` on, at most so many bytes but at least one entry; and the
        number behind them. Raises OSError."""
        if first >= len(self):
            return b"", len(self)
        begin = self._begins[first]
        following = bisect_right(self._begins, begin + bytes_max) - 1
        if self._end - begin <= bytes_max:
            following = len(self)
        following = max(following, first + 1)
        end = self._begins[following] if following < len(self) else self._end
        with self._path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin), following
