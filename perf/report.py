"""One page about a set of runs: self-contained HTML, the charts as PNGs beside it, and a Markdown table."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from perf import charts
from perf.charts import label_of
from perf.results import LoadResult, shown, stage_medians
from perf.sweep import SweepResult

_STYLE = """
:root { color-scheme: light dark;
  --text: #111827; --muted: #6b7280; --line: #e5e7eb; --back: #ffffff; --warn: #b91c1c; }
@media (prefers-color-scheme: dark) {
  :root { --text: #f3f4f6; --muted: #9ca3af; --line: #374151; --back: #111827; --warn: #fca5a5; }
}
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
p.muted, td.muted { color: var(--muted); } .warn { color: var(--warn); font-weight: 600; }
.headline { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1rem 0; }
.headline div { min-width: 7rem; }
.headline b { display: block; font-size: 1.6rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.wrap { white-space: normal; } td.number, th.number { text-align: right; }
img { width: 100%; height: auto; background: #ffffff; border-radius: 6px; } code { font-size: .85em; }
"""

_UNKNOWN = "not known from outside"
_LOG = {True: "verified", False: "<span class=warn>does not verify</span>", None: "not looked at"}

Chart = tuple[str, str, bytes]
"""File name, heading, PNG."""


def write_report(runs: Sequence[LoadResult], sweeps: Sequence[SweepResult], out: Path) -> Path:
    """Write `index.html`, PNGs and `table.md` into a folder; returns the page's path. Raises ValueError without
    any result, OSError."""
    everything = [*runs, *(point for one in sweeps for point in one.points)]
    if not everything:
        raise ValueError("no results to report on")
    shown = one_of_each(runs or everything)
    made = make_charts(shown, sweeps)
    out.mkdir(parents=True, exist_ok=True)
    for name, _, png in made:
        (out / name).write_bytes(png)
    (out / "table.md").write_text(markdown_table(everything) + "\n", encoding="utf-8")
    page = out / "index.html"
    page.write_text(html_page(shown, everything, made), encoding="utf-8")
    return page


def one_of_each(runs: Sequence[LoadResult]) -> list[LoadResult]:
    """Of runs that measured the same thing the one with the median p50."""
    by_label: dict[str, list[LoadResult]] = {}
    for run in runs:
        by_label.setdefault(label_of(run), []).append(run)
    return [sorted(same, key=lambda run: run.p50_us)[(len(same) - 1) // 2] for same in by_label.values()]


def make_charts(runs: Sequence[LoadResult], sweeps: Sequence[SweepResult]) -> list[Chart]:
    """The charts that these results allow."""
    made: list[Chart] = [
        ("percentiles.png", "Percentiles", charts.percentile_curve(runs[:6])),
    ]
    if sweeps:
        made.append(("load.png", "Latency over load", charts.latency_over_load(sweeps)))
    longest = max(runs, key=lambda run: run.duration_s)
    if len(longest.seconds) > 1:
        made.append(("time.png", "Latency over time", charts.latency_over_time(longest)))
    if any(run.stages for run in runs):
        made.append(("stages.png", "Stages", charts.stage_breakdown(runs[:6])))
    made.append(("cores.png", "Cores", charts.cpu_by_core(runs[:4])))
    layouts = {run.layout.startswith("off"): run for run in runs if run.layout is not None}
    if len(layouts) > 1:
        pair = [layouts[False], layouts[True]]
        made.append(("pinning.png", "Pinning", charts.pinned_against_unpinned(pair)))
    return made


def headline_of(runs: Sequence[LoadResult]) -> LoadResult | None:
    """The run with the median p50 of those that count, at the rate most of them were made; None if none counts."""
    counted = [run for run in runs if run.counted]
    if not counted:
        return None
    rates = [run.rate_offered for run in counted]
    usual = max(set(rates), key=rates.count)
    same = sorted((run for run in counted if run.rate_offered == usual), key=lambda run: run.p50_us)
    return same[(len(same) - 1) // 2]


def markdown_table(runs: Sequence[LoadResult]) -> str:
    """One row per run, for a document."""
    lines = [
        "| run | answered/s | p50 | p90 | p99 | p99.9 | floor | CPU/order | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {label_of(run)} | {run.orders_per_s:,.0f} | {run.p50_us / 1000:.2f} ms | {run.p90_us / 1000:.2f} ms "
        f"| {run.p99_us / 1000:.2f} ms | {run.p999_us / 1000:.2f} ms | {_us(run.floor_us)} "
        f"| {_us(run.server_cpu_us_per_order)} | {'' if run.counted else 'not counted'} |"
        for run in runs
    ]
    return "\n".join(lines)


def _us(value_us: float | None) -> str:
    return "-" if value_us is None else f"{shown(value_us)} us"


def html_page(runs: Sequence[LoadResult], everything: Sequence[LoadResult], made: Sequence[Chart]) -> str:
    """The whole page; it asks for nothing from anywhere."""
    headline = headline_of(runs)
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>zexchange measurements</title><style>{_STYLE}</style></head><body>",
        "<h1>zexchange measurements</h1>",
        _machine(runs[0]),
    ]
    if headline is None:
        parts.append("<p class=warn>None of these runs counts: see the reasons below.</p>")
    else:
        parts.append(_headline(headline))
    parts.append(_table(everything))
    for name, heading, png in made:
        data = base64.b64encode(png).decode("ascii")
        parts.append(
            f'<h2>{escape(heading)}</h2><img alt="{escape(name)}" src="data:image/png;base64,{data}">'
        )
    parts.append("<h2>Conditions</h2>" + "".join(_conditions(run) for run in runs))
    parts.append("</body></html>")
    return "\n".join(parts)


def _machine(run: LoadResult) -> str:
    machine = run.machine
    return (
        f"<p class=muted>{escape(machine.cpu)}, {machine.cores} cores, kernel {escape(machine.kernel)}, "
        f"Python {escape(machine.python)}, commit <code>{escape(machine.commit)}</code></p>"
    )


def _headline(run: LoadResult) -> str:
    figures = (
        (f"{run.orders_per_s:,.0f}", "orders per second"),
        (f"{run.p50_us / 1000:.2f} ms", "p50"),
        (f"{run.p99_us / 1000:.2f} ms", "p99"),
        (shown(run.ratio_to_floor, ".2f"), "times the floor"),
        (_us(run.server_cpu_us_per_order), "server CPU per order"),
    )
    cells = "".join(f"<div><b>{value}</b>{name}</div>" for value, name in figures)
    return (
        f"<div class=headline>{cells}</div><p class=muted>{escape(label_of(run))}, durability {run.fsync}</p>"
    )


def _table(runs: Sequence[LoadResult]) -> str:
    heads = (
        "run",
        "answered/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "floor us",
        "CPU us/order",
        "counted",
    )
    rows = []
    for run in runs:
        why = "; ".join(text for text in (*run.problems, run.noise.why) if text)
        counted = "yes" if run.counted else f"<span class=warn>no</span>: {escape(why)}"
        numbers = (
            f"{run.orders_per_s:,.0f}",
            *(f"{value / 1000:.2f}" for value in (run.p50_us, run.p90_us, run.p99_us, run.p999_us)),
            shown(run.floor_us),
            shown(run.server_cpu_us_per_order),
        )
        cells = "".join(f"<td class=number>{value}</td>" for value in numbers)
        rows.append(f"<tr><td>{escape(label_of(run))}</td>{cells}<td class=wrap>{counted}</td></tr>")
    head = "".join(
        f"<th{' class=number' if 0 < index < len(heads) - 1 else ''}>{name}</th>"
        for index, name in enumerate(heads)
    )
    return f"<div class=scroll><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _conditions(run: LoadResult) -> str:
    noise, floor = run.noise, run.floor
    lines = (
        ("command", f"<code>{escape(run.command_line)}</code>"),
        ("started", escape(run.started_at)),
        ("commit", f"<code>{escape(run.machine.commit)}</code>"),
        ("pinned", escape(run.layout or _UNKNOWN)),
        (
            "store",
            escape(
                ", ".join(f"{name} {value}" for name, value in (run.store_settings or {}).items()) or _UNKNOWN
            ),
        ),
        (
            "floor",
            f"TCP {floor.tcp_us:,.0f}, verify {floor.verify_us:,.0f}, bus {floor.bus_us:,.0f}, "
            f"append {floor.append_us:,.0f} us"
            if floor is not None
            else _UNKNOWN,
        ),
        ("fdatasync", f"p50 {noise.fdatasync.p50_us:,.0f} us, p99 {noise.fdatasync.p99_us:,.0f} us"),
        ("hiccups", f"p99 {noise.hiccups.p99_us:,.0f} us, largest {noise.hiccups.max_us:,.0f} us"),
        (
            "machine",
            f"{noise.stolen_share:.2%} stolen, others {noise.other_cpu_share:.1%}, load {run.machine.load_1min:.2f}",
        ),
        (
            "generator",
            f"{run.generator_cpu_share:.0%} of a core, late by {run.generator_late_p99_us:,.0f} us at p99",
        ),
        (
            "stages",
            ", ".join(f"{name} {value_us:,.0f}" for name, value_us in stage_medians(run).items())
            + " us at the median"
            if run.stages
            else "not counted",
        ),
        (
            "memory",
            escape(
                ", ".join(f"{name} {size:,.0f} MiB" for name, size in (run.rss_mb or {}).items()) or _UNKNOWN
            ),
        ),
        ("log", _LOG[run.verified]),
    )
    rows = "".join(f"<tr><td class=muted>{name}</td><td class=wrap>{text}</td></tr>" for name, text in lines)
    return f"<h3>{escape(label_of(run))}</h3><div class=scroll><table>{rows}</table></div>"
