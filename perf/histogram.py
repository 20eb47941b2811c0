"""Histograms that are counted in C (perf/csrc/hdr.h), their percentiles, and the formats of HdrHistogram."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perf.native import ffi, lib
from perf.results import Percentiles

VALUE_MAX_NS: int = lib.HDR_VALUE_MAX
_DIGITS = 3
_HIGHEST_NS = 60_000_000_000


class Histogram:
    """Counts of durations in nanoseconds, known to one part in a thousand."""

    def __init__(self, counts: Sequence[int] = (), max_ns: int = 0) -> None:
        """Empty, or with these counts in the layout of hdr.h."""
        self.handle: Any = ffi.new("hdr *")
        """`hdr *` for calls into C; valid as long as this object."""
        for index, count in enumerate(counts):
            if count:
                self.handle.counts[index] = count
        self.handle.total = sum(counts)
        self.handle.max_ns = max_ns

    @classmethod
    def from_bytes(cls, raw: bytes) -> Histogram:
        """What `to_bytes` gave."""
        numbers = array("Q", raw)
        return cls(numbers[1:], numbers[0])

    def to_bytes(self) -> bytes:
        """All counts, for another process of the same machine."""
        return array("Q", [self.handle.max_ns, *self.counts()]).tobytes()

    @property
    def total(self) -> int:
        """Values recorded."""
        return int(self.handle.total)

    @property
    def max_ns(self) -> int:
        """The largest."""
        return int(self.handle.max_ns)

    def record(self, value_ns: int) -> None:
        """Count one value of at least 0."""
        lib.hdr_record(self.handle, min(value_ns, VALUE_MAX_NS))

    def counts(self) -> list[int]:
        """In the layout of hdr.h."""
        return list(ffi.unpack(self.handle.counts, lib.HDR_COUNTS))

    def percentiles(self) -> Percentiles:
        """By the nearest-rank rule, to one part in a thousand. Raises ValueError when it is empty."""
        total = self.total
        if not total:
            raise ValueError("no samples")
        wanted = [(-(-total * per_mille // 1000)) for per_mille in (500, 900, 990, 999)]
        found: list[float] = []
        seen = 0
        for index, count in enumerate(self.counts()):
            seen += count
            while len(found) < len(wanted) and seen >= wanted[len(found)]:
                found.append(min(int(lib.hdr_value(index)), self.max_ns) / 1000)
        p50_us, p90_us, p99_us, p999_us = found
        return Percentiles(total, p50_us, p90_us, p99_us, p999_us, self.max_ns / 1000)

    def standard(self) -> Any:
        """As an `hdrh.histogram.HdrHistogram` of 1 ns to 60 s with three digits."""
        from hdrh.histogram import HdrHistogram

        made = HdrHistogram(1, _HIGHEST_NS, _DIGITS)
        for index, count in enumerate(self.counts()):
            if count:
                made.record_value(min(max(int(lib.hdr_value(index)), 1), _HIGHEST_NS), count)
        return made

    def encoded(self) -> str:
        """HdrHistogram V2, compressed, base64."""
        return bytes(self.standard().encode()).decode("ascii")


def write_log(path: Path, seconds: Sequence[Histogram], start_s: float) -> None:
    """A standard HdrHistogram log: one interval per second, from `start_s` (seconds since 1970)."""
    from hdrh.log import HistogramLogWriter

    with path.open("w", encoding="ascii") as file:
        writer = HistogramLogWriter(file)
        writer.output_log_format_version()
        writer.output_comment("[zexchange load; latency in ns from the intended send time]")
        # In the words of the format; the library's own method for this line does not work.
        writer.output_comment(f"[StartTime: {start_s:.3f} (seconds since epoch)]")
        writer.output_legend()
        for second, histogram in enumerate(seconds):
            standard = histogram.standard()
            standard.set_start_time_stamp((start_s + second) * 1000)
            standard.set_end_time_stamp((start_s + second + 1) * 1000)
            writer.output_interval_histogram(standard)


def samples_of(values_ns: Sequence[int]) -> Percentiles:
    """Percentiles of a few samples. Raises ValueError when there are none."""
    histogram = Histogram()
    for value_ns in values_ns:
        histogram.record(value_ns)
    return histogram.percentiles()


assert sys.byteorder == "little", "the layouts of C are read as they are"
