"""How long the stages of an order's way take in this process: the Python face of csrc/stages.h.

With `measurement.stages` a process counts them and leaves `run/stages-<process>.json` when it stops.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from zexchange.native import ffi, lib

STAGES = ("verify", "bus", "match", "append", "publish")
"""In the order of `enum stage`."""
assert len(STAGES) == lib.STAGE_COUNT


class StageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Of one stage, per turn of the loop; of the bus, per frame. Percentiles are known to 6 %."""

    count: int
    mean_us: float
    p50_us: float
    p99_us: float
    max_us: float


class StageTimes:
    """The counts of one process."""

    def __init__(self) -> None:
        self.handle: Any = ffi.new("stages *")
        """`stages *` for other calls into C; valid as long as this object."""

    def add(self, stage: str, duration_ns: int) -> None:
        """Count one more."""
        lib.stages_add(self.handle, STAGES.index(stage), duration_ns)

    def add_waits(self, inbox: Any, taken_ns: int) -> None:
        """Count the bus: how long the frames of the batch made last had waited, since they were verified, until the
        matcher took them out of this `inbox *`. Times are of the monotonic clock, which all processes of a
        machine share."""
        lib.inbox_count_waits(inbox, taken_ns, self.handle)

    def summary(self) -> dict[str, StageSummary]:
        """By stage; stages that never happened are left out."""
        found = {}
        for index, name in enumerate(STAGES):
            counts = ffi.unpack(self.handle.counts[index], lib.STAGES_BUCKETS)
            count = sum(counts)
            if count:
                found[name] = StageSummary(
                    count=count,
                    mean_us=self.handle.total_ns[index] / count / 1000,
                    p50_us=_percentile_us(counts, count, 0.5),
                    p99_us=_percentile_us(counts, count, 0.99),
                    max_us=self.handle.max_ns[index] / 1000,
                )
        return found

    def write(self, path: Path, process: str) -> None:
        """Leave the summary for whoever measures."""
        path.write_bytes(msgspec.json.encode({"process": process, "stages": self.summary()}))


def _percentile_us(counts: list[int], total: int, share: float) -> float:
    seen = 0
    for bucket, count in enumerate(counts):
        seen += count
        if seen >= share * total:
            return float(lib.stages_floor_ns(bucket)) / 1000
    raise AssertionError("the counts do not add up")
