"""The stored log for auditors: archived segments, and batches page by page."""

from __future__ import annotations

import asyncio
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from zexchange.log.archive import SegmentRef, segments
from zexchange.log.history import LogHistory, StreamCursor
from zexchange.log.stream import StreamClient
from zexchange.runtime.paths import DataPaths
from zexchange.verification.replica import StoredBatch

PAGE_BYTES = 1_048_576
"""Most bytes of batches or checkpoints in one answer; a segment is fetched in ranges by who wants less of it."""
_READ_BATCHES = 64
_U32 = struct.Struct("<I")


class LogFiles:
    """Reads the log in a thread of its own, so that an auditor keeps nobody waiting but other auditors."""

    def __init__(self, paths: DataPaths, client: StreamClient) -> None:
        self._paths = paths
        self._client = client
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="audit")

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def segments(self, shard: int) -> list[SegmentRef]:
        """Oldest first."""
        return segments(self._paths, shard)

    async def page(self, shard: int, first_record_no: int, epoch: int | None) -> tuple[bytes, int, bool]:
        """Batches from that record on, each behind its length; number of the record behind them; and whether more did
        not fit. `epoch` is that of the batch before, if it is known. Raises KeyError if no batch begins there,
        Mismatch, StoreUnavailable, StoreRefused, OSError."""
        call = partial(self._page, shard, first_record_no, epoch)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _page(self, shard: int, first_record_no: int, epoch: int | None) -> tuple[bytes, int, bool]:
        parts: list[bytes] = []
        size, next_record_no = 0, first_record_no
        begin, before = first_record_no, epoch
        if before is None:
            # Where in the stream it is nobody knows: from its beginning, unless a segment has it.
            begin, before = self._begin(shard, first_record_no), 0
        for chunk in LogHistory(self._paths, self._client, shard).chunks(begin, before, count=_READ_BATCHES):
            for stored in chunk:
                if stored.id.record_no < first_record_no:
                    continue
                if stored.id.record_no != next_record_no:
                    raise KeyError(f"no batch begins with record {next_record_no}")
                if size + _U32.size + len(stored.raw) > PAGE_BYTES:
                    return b"".join(parts), next_record_no, True
                parts += [_U32.pack(len(stored.raw)), stored.raw]
                size += _U32.size + len(stored.raw)
                next_record_no = _next_of(stored)
        return b"".join(parts), next_record_no, False

    def _begin(self, shard: int, first_record_no: int) -> int:
        if any(one.first_record_no <= first_record_no <= one.last_record_no for one in self.segments(shard)):
            return first_record_no
        oldest = StreamCursor(self._client, shard).first()
        return first_record_no if oldest is None else min(first_record_no, oldest.id.record_no)


def _next_of(stored: StoredBatch) -> int:
    """Number of the record behind a batch, by its own header."""
    return stored.id.record_no + max(1, int.from_bytes(stored.raw[32:36], "little"))
