"""Two sets of load results beside each other, with a verdict for each figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

from perf.results import LoadResult

Verdict = Literal["better", "same", "WORSE"]

FIGURES: tuple[tuple[str, bool], ...] = (
    ("p50_us", False),
    ("p90_us", False),
    ("p99_us", False),
    ("p999_us", False),
    ("ratio_to_floor", False),
    ("server_cpu_us_per_order", False),
    ("orders_per_s", True),
)
"""Name of the field, and whether more is better."""

_SAME = ("rate_offered", "fsync", "batch", "traders", "markets", "resting_orders", "arrivals", "target")


class NotComparable(ValueError):
    """The runs did not measure the same thing."""


class Line(msgspec.Struct, frozen=True):
    """One figure: medians of both sides, b / a, and what that means."""

    figure: str
    a: float
    b: float
    ratio: float
    verdict: Verdict


def check_comparable(results: Sequence[LoadResult]) -> None:
    """Raises NotComparable, naming what differs."""
    for name in _SAME:
        values = {str(getattr(result, name)) for result in results}
        if len(values) > 1:
            raise NotComparable(f"the runs differ in {name}: {', '.join(sorted(values))}")


def compare(a: Sequence[LoadResult], b: Sequence[LoadResult], threshold: float) -> list[Line]:
    """Medians against medians. A figure is worse when it is so by more than `threshold`, a share.

    One that some run does not have is left out.
    """
    lines = []
    for figure, more_is_better in FIGURES:
        if any(getattr(result, figure) is None for result in (*a, *b)):
            continue
        before = statistics.median(getattr(result, figure) for result in a)
        after = statistics.median(getattr(result, figure) for result in b)
        ratio = after / before if before else float("inf")
        gain = ratio if more_is_better else 1 / ratio if ratio else float("inf")
        verdict: Verdict = "WORSE" if gain < 1 - threshold else "better" if gain > 1 + threshold else "same"
        lines.append(Line(figure, before, after, ratio, verdict))
    return lines
