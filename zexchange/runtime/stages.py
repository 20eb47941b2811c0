"""How long the stages of an order's way take: the Python face of csrc/stages.h.

A process counts them in its figures (`zexchange.runtime.figures`), where others see them while it runs, and leaves a
summary in `run/stages-<process>.json` when it stops; unless `measurement.stages` is off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from zexchange.native import ffi, lib

STAGES = ("verify", "bus", "match", "append", "publish")
"""What an order goes through, one after the other, in the order of `enum stage`."""
COUNTED = (*STAGES, "acknowledge", "visible")
"""With spans over several of them: from verified to acknowledged, and from the log time to the web process."""
assert len(COUNTED) == lib.STAGE_COUNT
VERIFY, BUS, MATCH, APPEND, PUBLISH, ACKNOWLEDGE, VISIBLE = range(len(COUNTED))

BOUNDS_NS = tuple(base << shift for shift in range(20) for base in (1_024, 1_536))
"""Upper bounds of histograms for the outside: 1 us to 0.8 s, two for each power of two. Buckets begin there, so
nothing is counted on the wrong side."""


class StageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Of one stage, per turn of the loop; of bus and acknowledge, per frame. Percentiles are known to 6 %."""

    count: int
    mean_us: float
    p50_us: float
    p99_us: float
    max_us: float


class StageTimes:
    """The counts of one process, or a copy of them."""

    def __init__(self, handle: Any = None, keeps: object = None) -> None:
        """`handle`: a `stages *` in memory that `keeps` keeps; None: memory of its own."""
        self.handle: Any = ffi.new("stages *") if handle is None else handle
        """`stages *` for other calls into C; valid as long as this object."""
        self._keeps = keeps

    def add(self, stage: int, duration_ns: int) -> None:
        """Count one more. `stage` is one of the constants of this module."""
        lib.stages_add(self.handle, stage, duration_ns)

    def add_waits(self, inbox: Any, until_ns: int, stage: int) -> None:
        """Count how long it was for each frame of the batch made last out of this `inbox *` from its verification until
        now. Times are of the monotonic clock, which all processes of a machine share."""
        lib.inbox_count_waits(inbox, until_ns, self.handle, stage)

    def gather(self, now: StageTimes, before: StageTimes) -> None:
        """Add what a process has counted between two copies."""
        lib.stages_gather(self.handle, now.handle, before.handle)

    def count(self, stage: int) -> int:
        """How many were counted."""
        return int(lib.stages_count(self.handle, stage))

    def total_s(self, stage: int) -> float:
        """How long they took together."""
        return float(self.handle.total_ns[stage]) / 1e9

    def below(self, stage: int, bounds_ns: Sequence[int]) -> list[int]:
        """How many took less than each of these, which are to be where buckets begin (`BOUNDS_NS`)."""
        return [int(lib.stages_below(self.handle, stage, bound)) for bound in bounds_ns]

    def percentile_us(self, stage: int, share: float) -> float:
        """Known to 6 %; of a stage that happened."""
        rank = max(1, -int(-share * self.count(stage) // 1))
        return float(lib.stages_at_rank_ns(self.handle, stage, rank)) / 1000

    def summary(self) -> dict[str, StageSummary]:
        """By stage; stages that never happened are left out."""
        return {
            name: StageSummary(
                count=count,
                mean_us=self.handle.total_ns[stage] / count / 1000,
                p50_us=self.percentile_us(stage, 0.5),
                p99_us=self.percentile_us(stage, 0.99),
                max_us=self.handle.max_ns[stage] / 1000,
            )
            for stage, name in enumerate(COUNTED)
            if (count := self.count(stage))
        }

    def write(self, path: Path, process: str) -> None:
        """Leave the summary for whoever measures."""
        path.write_bytes(msgspec.json.encode({"process": process, "stages": self.summary()}))
