"""The charts of a report, as PNG bytes. One style for all; nothing is drawn that was not measured."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from perf.results import LoadResult, stage_medians
from perf.sweep import SweepResult
from zexchange.runtime.stages import STAGES

COLORS = ("#2563eb", "#ea580c", "#16a34a", "#9333ea", "#0891b2", "#be123c")
_PERCENTILES = (0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999)


def label_of(result: LoadResult) -> str:
    """What tells a run from the others, short."""
    rate = f"{result.rate_offered:,.0f}/s" if result.rate_offered else "max"
    words = [rate, result.fsync]
    if result.batch > 1:
        words.append(f"batches of {result.batch}")
    if result.resting_orders:
        words.append(f"{result.resting_orders / 1e6:g}M resting")
    if result.target != "own":
        words.append("running exchange")
    if "--pin off" in result.command_line:
        words.append("unpinned")
    if not result.counted:
        words.append("(not counted)")
    return " ".join(words)


def _figure() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.2), dpi=130, layout="constrained")
    axes.grid(True, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()


def _milliseconds(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def percentile_curve(results: Sequence[LoadResult]) -> bytes:
    """Latency by percentile; the axis stretches towards 100 % as HdrHistogram's plots do."""
    from hdrh.histogram import HdrHistogram

    figure, axes = _figure()
    for number, result in enumerate(results):
        histogram = HdrHistogram.decode(result.histogram.encode("ascii"))
        xs, ys = [], []
        for share in _PERCENTILES:
            if (1 - share) * result.orders_answered < 1 and share > 0:
                break
            xs.append(1 / (1 - share))
            ys.append(histogram.get_value_at_percentile(share * 100) / 1e6)
        axes.plot(
            xs, ys, marker="o", markersize=3, color=COLORS[number % len(COLORS)], label=label_of(result)
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [share for share in _PERCENTILES if share in (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)]
    axes.set_xticks([1 / (1 - share) for share in ticks])
    axes.set_xticklabels(["min" if share == 0 else f"{share * 100:g} %" for share in ticks])
    axes.minorticks_off()
    _milliseconds(axes.yaxis)
    axes.set_xlabel("percentile")
    axes.set_ylabel("latency, ms")
    axes.set_title("Latency by percentile, from the intended send time", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def latency_over_load(sweeps: Sequence[SweepResult]) -> bytes:
    """p50 and p99 against what was offered."""
    figure, axes = _figure()
    for number, one in enumerate(sweeps):
        color = COLORS[number % len(COLORS)]
        points = [point for point in one.points if point.rate_offered]
        rates = [point.rate_offered for point in points]
        axes.plot(
            rates, [p.p50_us / 1000 for p in points], marker="o", color=color, label=f"p50, {points[0].fsync}"
        )
        axes.plot(
            rates,
            [p.p99_us / 1000 for p in points],
            marker="s",
            linestyle="--",
            color=color,
            label=f"p99, {points[0].fsync}",
        )
        if one.knee_rate:
            axes.axvline(one.knee_rate, color="#9ca3af", linewidth=1, linestyle=":")
            axes.annotate(
                "knee", (one.knee_rate, axes.get_ylim()[1]), fontsize=8, color="#6b7280", ha="right", va="top"
            )
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    _milliseconds(axes.yaxis)
    axes.set_xlabel("offered commands per second")
    axes.set_ylabel("latency, ms")
    axes.set_title("Latency over offered load", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def latency_over_time(result: LoadResult) -> bytes:
    """p50, p99 and the largest of each second, with the checkpoints that settlement signed meanwhile."""
    figure, axes = _figure()
    seconds = [second.at_s for second in result.seconds]
    for name, color, values in (
        ("max", COLORS[5], [second.max_us / 1000 for second in result.seconds]),
        ("p99", COLORS[1], [second.p99_us / 1000 for second in result.seconds]),
        ("p50", COLORS[0], [second.p50_us / 1000 for second in result.seconds]),
    ):
        axes.plot(seconds, values, marker=".", color=color, label=name)
    checkpoints_at_s = result.checkpoints_at_s or ()
    if len(checkpoints_at_s) <= 120:
        for number, at_s in enumerate(checkpoints_at_s):
            axes.axvline(
                at_s, color="#9ca3af", linewidth=0.7, linestyle=":", label=None if number else "checkpoint"
            )
    axes.set_yscale("log")
    _milliseconds(axes.yaxis)
    axes.set_xlabel("seconds from the start")
    axes.set_ylabel("latency, ms")
    axes.set_title(f"Latency over time, {label_of(result)}", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8, ncols=4)
    return _png(figure)


def stage_breakdown(results: Sequence[LoadResult]) -> bytes:
    """Medians of the stages that the exchange counted, run by run."""
    figure, axes = _figure()
    shown = [result for result in results if result.stages]
    named: set[str] = set()
    for row, result in enumerate(shown):
        left = 0.0
        for name, value_us in stage_medians(result).items():
            axes.barh(
                row,
                value_us,
                left=left,
                color=COLORS[STAGES.index(name)],
                label=None if name in named else name,
            )
            named.add(name)
            if value_us > 20:
                axes.text(
                    left + value_us / 2,
                    row,
                    f"{value_us:,.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white",
                )
            left += value_us
    axes.set_yticks(range(len(shown)))
    axes.set_yticklabels([label_of(result) for result in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("us, median per turn of the loop; of the bus, per order")
    axes.set_title("Where the time goes", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return _png(figure)


def cpu_by_core(results: Sequence[LoadResult]) -> bytes:
    """How busy each core was."""
    figure, axes = _figure()
    labels = []
    row = 0
    for result in results:
        for core in result.cores:
            left = 0.0
            for name, share, color in (
                ("user", core.user, COLORS[0]),
                ("system", core.system, COLORS[1]),
                ("stolen", core.stolen, COLORS[5]),
                ("idle", core.idle, "#e5e7eb"),
            ):
                axes.barh(row, share * 100, left=left, color=color, label=name if row == 0 else None)
                left += share * 100
            labels.append(f"{label_of(result)}, CPU {core.cpu}")
            row += 1
    axes.set_yticks(range(row))
    axes.set_yticklabels(labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the run")
    axes.set_title("Use of the cores, generator included", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return _png(figure)


def pinned_against_unpinned(results: Sequence[LoadResult]) -> bytes:
    """Percentiles of runs that differ in how processes were laid on cores."""
    figure, axes = _figure()
    names = ("p50_us", "p90_us", "p99_us", "p999_us")
    width = 0.8 / len(results)
    for number, result in enumerate(results):
        values = [getattr(result, name) / 1000 for name in names]
        places = [index + number * width for index in range(len(names))]
        bars = axes.bar(
            places, values, width=width * 0.95, color=COLORS[number % len(COLORS)], label=label_of(result)
        )
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(names))])
    axes.set_xticklabels(["p50", "p90", "p99", "p99.9"])
    axes.set_ylabel("latency, ms")
    axes.set_title("Pinned against unpinned", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)
