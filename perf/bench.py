"""Everything that has a budget, in one table: `make bench`.

The table is made from load results by pure functions; `run_bench` makes the results. Runs of different figures
alternate, so that a noisy minute does not fall on one of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from perf.load import LoadOptions
from perf.results import LoadResult, save

REFERENCE_RATE = 3049.0
REFERENCE_P50_US = 1040.0
REFERENCE_P99_US = 1570.0
EVERYSEC_P50_US = 700.0
FLOOR_RATIO = 1.3
CPU_US = 220.0
CPU_RATIO = 1.6
SINGLE_RATE = 10_000.0
BATCH_RATE = 150_000.0
BATCH_P99_US = 20_000.0
RESTING_CHANGE = 1.10
DRIFT_CHANGE = 1.20

RunLoad = Callable[[LoadOptions], LoadResult]


READERS_RATE = 18.0
"""Of the 20 book messages a second that a reader of the feed may get: what each of a thousand gets at least."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. `met` is None when no run counted: the machine was busy."""

    name: str
    budget: str
    measured: str
    ratio_to_floor: str = ""
    met: bool | None
    runs: int
    """That were counted."""

    @property
    def verdict(self) -> str:
        return "not counted" if self.met is None else "met" if self.met else "not met"


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The table and the runs behind it."""

    figures: tuple[Figure, ...]
    runs: dict[str, tuple[LoadResult, ...]]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is run for some figures, and how often."""

    name: str
    options: LoadOptions
    repeats: int


def cases(*, long: bool) -> list[Case]:
    """The runs of the short form, about four minutes, or of the long one."""
    seconds = 30.0 if long else 4.0
    repeats = 5 if long else 3
    found = [
        Case(name="always", options=LoadOptions(duration_s=seconds, rate=REFERENCE_RATE), repeats=repeats),
        Case(
            name="everysec",
            options=LoadOptions(duration_s=seconds, rate=REFERENCE_RATE, fsync="everysec"),
            repeats=repeats,
        ),
        Case(name="max", options=LoadOptions(duration_s=min(seconds, 10), rate=None), repeats=repeats),
        Case(
            name="batches",
            options=LoadOptions(duration_s=seconds, rate=BATCH_RATE, batch=64),
            repeats=repeats,
        ),
        Case(
            name="million",
            options=LoadOptions(duration_s=seconds, rate=REFERENCE_RATE, resting=1_000_000),
            repeats=repeats if long else 1,
        ),
    ]
    if long:
        found.append(
            Case(
                name="ten million",
                options=LoadOptions(duration_s=seconds, rate=REFERENCE_RATE, resting=10_000_000, markets=10),
                repeats=1,
            )
        )
        found.append(Case(name="ten minutes", options=LoadOptions(duration_s=600.0, rate=5_000.0), repeats=1))
    return found


def smoke_cases() -> list[Case]:
    """The same at sizes that only show that it works."""
    return [
        Case(
            name=case.name,
            options=msgspec.structs.replace(
                case.options,
                duration_s=0.4,
                rate=None if case.options.rate is None else 200.0,
                resting=min(case.options.resting, 512),
                floor_rounds=5,
                verify=case.name == "always",
            ),
            repeats=1,
        )
        for case in cases(long=False)
    ]


def run_bench(
    what: Sequence[Case], run: RunLoad, say: Callable[[str], None], save_to: Path | None = None
) -> BenchResult:
    """Run all cases by turns and make the table."""
    runs: dict[str, list[LoadResult]] = {case.name: [] for case in what}
    for turn in range(max(case.repeats for case in what)):
        for case in what:
            if turn >= case.repeats:
                continue
            result = run(case.options)
            runs[case.name].append(result)
            say(
                f"{case.name}: {result.orders_per_s:,.0f}/s, p50 {result.p50_us:,.0f} us, p99 {result.p99_us:,.0f} us"
                + (
                    ""
                    if result.counted
                    else f" (not counted: {'; '.join([*result.problems, result.noise.why])})"
                )
            )
            if save_to is not None:
                save(result, save_to / f"{case.name.replace(' ', '-')}-{turn + 1}.json")
    kept = {name: tuple(found) for name, found in runs.items()}
    return BenchResult(figures=tuple(table(kept)), runs=kept)


def table(runs: dict[str, tuple[LoadResult, ...]]) -> list[Figure]:
    """The rows that these runs allow."""
    figures: list[Figure] = []
    always = _counted(runs, "always")
    if "always" in runs:
        figures += _at_reference_rate("always", always, REFERENCE_P50_US)
        figures.append(
            _figure(
                "p99 at 3,049/s, always", f"<= {_ms(REFERENCE_P99_US)}", always, "p99_us", REFERENCE_P99_US
            )
        )
        figures.append(
            _figure(
                "server CPU per order at 3,049/s",
                f"<= {CPU_US:.0f} us",
                always,
                "server_cpu_us_per_order",
                CPU_US,
                unit=_us,
            )
        )
    if "everysec" in runs:
        everysec = _counted(runs, "everysec")
        figures += _at_reference_rate("everysec", everysec, EVERYSEC_P50_US)
        figures.append(
            _figure(
                "p99 at 3,049/s, everysec",
                f"<= {_ms(REFERENCE_P99_US)}",
                everysec,
                "p99_us",
                REFERENCE_P99_US,
            )
        )
    if "max" in runs:
        figures += _saturated(_counted(runs, "max"))
    if "batches" in runs:
        figures += _batches(_counted(runs, "batches"))
    for name, label in (("million", "1 million"), ("ten million", "10 million")):
        if name in runs:
            figures += _resting(label, _counted(runs, name), always)
    if "ten minutes" in runs:
        figures += _drift(_counted(runs, "ten minutes"))
    return figures


def other_figures(size: Literal["smoke", "short", "long"], say: Callable[[str], None]) -> list[Figure]:
    """The rows of what is measured without a load run: engine, replay, and readers of the feed."""
    from perf import engine, verify, web

    commands, repeats = {"smoke": (500, 1), "short": (100_000, 1), "long": (1_000_000, 5)}[size]
    figures = [
        Figure(
            name=name,
            budget=budget,
            measured=measured,
            met={"met": True, "NOT MET": False}.get(verdict),
            runs=repeats,
        )
        for name, budget, measured, verdict in engine.budgets(engine.run_engine(commands, repeats, None, say))
        # Without another library beside it there is nothing to hold the book against.
        if verdict
    ]
    sizes = {
        "smoke": verify.Sizes(records=64, signed_records=64, restart_records=128, runs=1),
        "short": verify.Sizes(records=200_000, signed_records=10_000, runs=1),
        "long": verify.Sizes(),
    }[size]
    figures += [
        Figure(name=name, budget=budget, measured=measured, met=met, runs=sizes.runs)
        for name, budget, measured, met in verify.budgets(verify.run_verify(sizes, say))
    ]
    clients, duration_s = {"smoke": (4, 1.0), "short": (1_000, 5.0), "long": (1_000, 30.0)}[size]
    say(f"{clients:,} readers of the feed")
    readers = web.run_web_load(clients, duration_s, 40.0, 100)
    late = readers.tick_to_client
    figures.append(
        Figure(
            name=f"{readers.clients:,} readers of a book sent 20 times a second",
            budget=f">= {READERS_RATE:.0f} messages/s each",
            measured=f"{readers.messages_per_client_s:.1f}/s each, {readers.web_cpu_share:.0%} of a core, log time to "
            f"client p50 {_ms(late.p50_us)}, p99 {_ms(late.p99_us)}",
            met=readers.messages_per_client_s >= READERS_RATE,
            runs=1,
        )
    )
    return figures


def _counted(runs: dict[str, tuple[LoadResult, ...]], name: str) -> list[LoadResult]:
    return [result for result in runs.get(name, ()) if result.counted]


def _median(results: Sequence[LoadResult], field: str) -> float:
    return statistics.median(float(getattr(result, field)) for result in results)


def _us(value: float) -> str:
    return f"{value:,.0f} us"


def _ms(value_us: float) -> str:
    return f"{value_us / 1000:.2f} ms"


def _figure(
    name: str,
    budget: str,
    results: Sequence[LoadResult],
    field: str,
    limit: float,
    *,
    unit: Callable[[float], str] = _ms,
) -> Figure:
    """A field that must not exceed a limit."""
    if not results:
        return Figure(name=name, budget=budget, measured="-", met=None, runs=0)
    value = _median(results, field)
    ratio = ""
    if field == "p50_us":
        ratio = f"{_median(results, 'ratio_to_floor'):.2f}"
    return Figure(
        name=name,
        budget=budget,
        measured=unit(value),
        ratio_to_floor=ratio,
        met=value <= limit,
        runs=len(results),
    )


def _at_reference_rate(fsync: str, results: Sequence[LoadResult], p50_us: float) -> list[Figure]:
    name = f"p50 at 3,049/s, {fsync}"
    against = Figure(name=name, budget=f"<= {FLOOR_RATIO} x floor", measured="-", met=None, runs=0)
    if results:
        ratio = _median(results, "ratio_to_floor")
        against = Figure(
            name=name,
            budget=f"<= {FLOOR_RATIO} x floor",
            measured=f"{ratio:.2f} x floor ({_us(_median(results, 'floor_us'))})",
            ratio_to_floor=f"{ratio:.2f}",
            met=ratio <= FLOOR_RATIO,
            runs=len(results),
        )
    return [_figure(name, f"< {_ms(p50_us)}", results, "p50_us", p50_us), against]


def _saturated(results: Sequence[LoadResult]) -> list[Figure]:
    rate = Figure(
        name="highest single-signed rate, always",
        budget=f">= {SINGLE_RATE:,.0f}/s",
        measured="-",
        met=None,
        runs=0,
    )
    cpu = Figure(
        name="server CPU per order, saturated",
        budget=f"<= {CPU_RATIO} x verify",
        measured="-",
        met=None,
        runs=0,
    )
    if results:
        orders_per_s = _median(results, "orders_per_s")
        ratio = statistics.median(
            used_us / verify_us
            for one in results
            if (used_us := one.server_cpu_us_per_order) is not None
            and (verify_us := one.verify_us) is not None
        )
        rate = msgspec.structs.replace(
            rate, measured=f"{orders_per_s:,.0f}/s", met=orders_per_s >= SINGLE_RATE, runs=len(results)
        )
        cpu = msgspec.structs.replace(
            cpu,
            measured=f"{_us(_median(results, 'server_cpu_us_per_order'))}, {ratio:.2f} x verify",
            met=ratio <= CPU_RATIO,
            runs=len(results),
        )
    return [rate, cpu]


def _batches(results: Sequence[LoadResult]) -> list[Figure]:
    name = "batches of 64, always"
    p99 = _figure(f"{name}: p99", f"<= {_ms(BATCH_P99_US)}", results, "p99_us", BATCH_P99_US)
    rate = Figure(name=name, budget=f">= {BATCH_RATE:,.0f} commands/s", measured="-", met=None, runs=0)
    if results:
        commands_per_s = _median(results, "orders_per_s")
        rate = msgspec.structs.replace(
            rate,
            measured=f"{commands_per_s:,.0f} commands/s",
            met=commands_per_s >= 0.99 * BATCH_RATE,
            runs=len(results),
        )
    return [rate, p99]


def _resting(label: str, results: Sequence[LoadResult], empty: Sequence[LoadResult]) -> list[Figure]:
    name = f"{label} resting orders: p50 against empty books"
    budget = f"<= {RESTING_CHANGE:.2f} x"
    if not results or not empty:
        return [Figure(name=name, budget=budget, measured="-", met=None, runs=0)]
    ratio = _median(results, "ratio_to_floor") / _median(empty, "ratio_to_floor")
    grown = _matcher_mb(results[0]) - _matcher_mb(empty[0])
    per_order = grown * 1024 * 1024 / results[0].resting_orders
    return [
        Figure(
            name=name,
            budget=budget,
            measured=f"{ratio:.2f} x, {per_order:,.0f} bytes per order in the matcher",
            met=ratio <= RESTING_CHANGE,
            runs=len(results),
        )
    ]


def _matcher_mb(result: LoadResult) -> float:
    assert result.rss_mb is not None, "an exchange of our own"
    return result.rss_mb["matcher-0"]


def _drift(results: Sequence[LoadResult]) -> list[Figure]:
    name = "10 minutes: p99 of the last minute against the second"
    budget = f"<= {DRIFT_CHANGE:.2f} x"
    if not results:
        return [Figure(name=name, budget=budget, measured="-", met=None, runs=0)]
    seconds = results[0].seconds
    second_minute = statistics.median(one.p99_us for one in seconds[60:120])
    last_minute = statistics.median(one.p99_us for one in seconds[-60:])
    memory = (seconds[-1].rss_mb or 0.0) - (seconds[len(seconds) // 2].rss_mb or 0.0)
    ratio = last_minute / second_minute
    return [
        Figure(
            name=name,
            budget=budget,
            measured=f"{ratio:.2f} x; memory {memory:+,.0f} MiB in the second half",
            met=ratio <= DRIFT_CHANGE,
            runs=1,
        )
    ]


def markdown(figures: Sequence[Figure]) -> str:
    """The table for a document."""
    lines = ["| Figure | Budget | Measured | Ratio to floor | |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.name} | {one.budget} | {one.measured} | {one.ratio_to_floor} | {one.verdict} |"
        for one in figures
    ]
    return "\n".join(lines)
