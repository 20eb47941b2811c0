"""Latency against offered load: the knee, and the highest rate that keeps a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from perf.results import LoadResult

SUSTAINED_SHARE = 0.99
"""Of the offered commands that must be answered while they are offered."""
KNEE_RISE = 2.0
"""The knee is the highest rate whose p50 is below so many times the lowest rate's."""


class SweepResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="sweep"):
    """Load runs by ascending rate."""

    bound_us: float
    points: tuple[LoadResult, ...]
    knee_rate: float
    """Offered commands per second; 0 if there is no valid run."""
    best_rate: float
    """The highest offered rate that was sustained with p99 below the bound; 0 if none was."""


def sweep(rates: Sequence[float], bound_us: float, run: Callable[[float], LoadResult]) -> SweepResult:
    """One run at each rate, lowest first."""
    points = tuple(run(rate) for rate in sorted(rates))
    return SweepResult(
        bound_us=bound_us, points=points, knee_rate=knee_of(points), best_rate=best_of(points, bound_us)
    )


def is_sustained(result: LoadResult) -> bool:
    """It was valid and answers kept pace with what was offered."""
    return result.valid and result.orders_per_s >= SUSTAINED_SHARE * result.rate_offered


def knee_of(points: Sequence[LoadResult]) -> float:
    """Up to which rate latency stays what it is at a low rate."""
    good = [point for point in points if is_sustained(point)]
    if not good:
        return 0.0
    lowest_us = min(point.p50_us for point in good)
    below = [point.rate_offered for point in good if point.p50_us <= KNEE_RISE * lowest_us]
    return max(below)


def best_of(points: Sequence[LoadResult], bound_us: float) -> float:
    """The highest rate that was sustained with p99 below the bound."""
    return max(
        (point.rate_offered for point in points if is_sustained(point) and point.p99_us <= bound_us),
        default=0.0,
    )
