"""Checkpoints in the store: the stream `zx:checkpoints`, where everybody else reads them.

The file `checkpoints.log` is the truth and always ahead. After a crash or while the store was away the stream
may lack the last ones: they are sent again from the file, in order. A stream that holds another checkpoint
than the file, or one more, means that somebody else signs: that is refused.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from zexchange.log.journal import EntryId
from zexchange.log.stream import IdRefused, StreamClient, command
from zexchange.verification.checkpoint import CheckpointReader, SignedCheckpoint, SigningRefused

__all__ = ["CHECKPOINTS_KEY", "CheckpointStream", "published", "published_size"]

CHECKPOINTS_KEY = "zx:checkpoints"
TRIM_EVERY = 256
"""The stream is trimmed once in so many checkpoints, as every command on the store costs a sync."""


class CheckpointStream:
    """The publishing side. `publish` queues and sends; what could not be sent is sent by the next `flush`."""

    def __init__(self, client: StreamClient, kept: int) -> None:
        """`kept`: about how many checkpoints stay in the stream."""
        self._client = client
        self._kept = kept
        self._waiting: deque[tuple[int, SignedCheckpoint]] = deque()
        self._last_sent: tuple[int, SignedCheckpoint] | None = None
        self._known_size: int | None = None

    def reconcile(self, log_path: Path, shard_count: int) -> int:
        """Queues what the file holds and the stream does not; returns how many. Call it once, before
        `publish`.

        Raises SigningRefused if the two contradict each other, StoreUnavailable, StoreRefused.
        """
        size = published_size(self._client)
        self._waiting.clear()
        self._last_sent = None
        with open(log_path, "rb") as file:
            reader = CheckpointReader(file, shard_count)
            for checkpoint in reader:
                if reader.count == size:
                    self._last_sent = (size, checkpoint)
                elif reader.count > size:
                    self._waiting.append((reader.count, checkpoint))
                    if len(self._waiting) > self._kept:
                        self._waiting.popleft()
        self._require_same()
        self._known_size = size
        return len(self._waiting)

    def publish(self, size: int, checkpoint: SignedCheckpoint) -> None:
        """Sends the checkpoint of this tree size, behind those that wait. Raises as `flush`."""
        self._waiting.append((size, checkpoint))
        self.flush()

    def flush(self) -> None:
        """Sends what waits. Raises StoreUnavailable or StoreRefused; then it still waits."""
        if self._waiting and self._known_size is None:
            self._resume()
        while self._waiting:
            size, checkpoint = self._waiting[0]
            # Until the reply is there nobody knows whether the store has it.
            self._known_size = None
            try:
                command(
                    self._client,
                    *("XADD", CHECKPOINTS_KEY, f"{size}-0", "leaf", checkpoint.leaf, "note", checkpoint.note),
                )
            except IdRefused as error:
                raise SigningRefused(
                    f"{CHECKPOINTS_KEY} holds a checkpoint of size {size} or more: {error}"
                ) from error
            self._known_size = size
            self._last_sent = self._waiting.popleft()
            if size % TRIM_EVERY == 0 and size > self._kept:
                command(self._client, "XTRIM", CHECKPOINTS_KEY, "MINID", f"{size - self._kept + 1}-0")

    def _resume(self) -> None:
        """Finds out which of the waiting checkpoints the store has after all."""
        size = published_size(self._client)
        while self._waiting and self._waiting[0][0] <= size:
            self._last_sent = self._waiting.popleft()
        self._require_same()
        self._known_size = size

    def _require_same(self) -> None:
        """The newest entry of the stream must be the one the file has."""
        found = _newest(self._client)
        if found is not None and found != self._last_sent:
            raise SigningRefused(
                f"{CHECKPOINTS_KEY} holds a checkpoint of size {found[0]} that checkpoints.log does not have"
            )


def published_size(client: StreamClient) -> int:
    """Tree size of the newest checkpoint in the stream, 0 if there is none. Raises StoreUnavailable,
    StoreRefused.
    """
    newest = _newest(client)
    return 0 if newest is None else newest[0]


def published(client: StreamClient, after_size: int, count: int) -> list[tuple[int, SignedCheckpoint]]:
    """Up to `count` checkpoints of the stream with a larger tree size, in order.

    Raises SigningRefused for an entry that is none, StoreUnavailable, StoreRefused.
    """
    rows = command(client, "XRANGE", CHECKPOINTS_KEY, f"({after_size}-0", "+", "COUNT", count)
    return [_entry(row) for row in rows]


def _newest(client: StreamClient) -> tuple[int, SignedCheckpoint] | None:
    rows = command(client, "XREVRANGE", CHECKPOINTS_KEY, "+", "-", "COUNT", 1)
    return _entry(rows[0]) if rows else None


def _entry(row: tuple[bytes, dict[bytes, bytes]]) -> tuple[int, SignedCheckpoint]:
    entry_id, fields = EntryId.parse(row[0]), row[1]
    if set(fields) != {b"leaf", b"note"} or entry_id.record_no != 0:
        raise SigningRefused(f"entry {entry_id} of {CHECKPOINTS_KEY} is no checkpoint")
    return entry_id.epoch, SignedCheckpoint(fields[b"leaf"], fields[b"note"])
