"""The commands beside `load` and `floor`: `sweep`, `engine`, `loops`, `verify`, `web`, `compare`, `bench`,
`report`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
import msgspec

from perf.results import LoadResult, load_result, shown
from zexchange.cli.options import json_option
from zexchange.cli.output import message, print_json, print_table

RATES = (500, 1_000, 2_000, 3_049, 5_000, 7_500, 10_000, 12_500, 15_000)


@click.command()
@click.option("--rates", default=",".join(map(str, RATES)), show_default=True, help="Commands per second.")
@click.option("--bound-us", type=click.FloatRange(1), default=5_000.0, show_default=True, help="For p99.")
@click.option("--duration-secs", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True)
@click.option("--fsync", type=click.Choice(["always", "everysec"]), default="always", show_default=True)
@click.option("--batch", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--save", "save_to", type=click.Path(path_type=Path), default=None)
@json_option
def sweep(
    rates: str,
    bound_us: float,
    duration_secs: float,
    fsync: Literal["always", "everysec"],
    batch: int,
    save_to: Path | None,
    as_json: bool,
) -> None:
    """Latency against offered load, the knee, and the highest rate with p99 under a bound."""
    from perf.load import LoadOptions, run_load
    from perf.results import save
    from perf.sweep import sweep as run_sweep

    try:
        wanted = [float(rate) for rate in rates.split(",")]
    except ValueError:
        raise click.BadParameter("numbers with commas between them", param_hint="--rates") from None

    def run(rate: float) -> LoadResult:
        return run_load(LoadOptions(rate=rate, duration_s=duration_secs, fsync=fsync, batch=batch))

    result = run_sweep(wanted, bound_us, run)
    if save_to is not None:
        save(result, save_to)
    if as_json:
        print_json(result)
        return
    print_table(
        ("offered/s", "answered/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "CPU us/order", ""),
        [
            (
                f"{one.rate_offered:,.0f}",
                f"{one.orders_per_s:,.0f}",
                f"{one.p50_us:,.0f}",
                f"{one.p90_us:,.0f}",
                f"{one.p99_us:,.0f}",
                f"{one.p999_us:,.0f}",
                shown(one.server_cpu_us_per_order),
                "" if one.counted else "not counted",
            )
            for one in result.points
        ],
        right=(0, 1, 2, 3, 4, 5, 6),
    )
    click.echo(
        f"knee at {result.knee_rate:,.0f}/s; p99 stays under {bound_us:,.0f} us up to {result.best_rate:,.0f}/s"
    )


@click.command()
@click.argument("a", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("b", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--a", "more_a", type=click.Path(exists=True, path_type=Path), multiple=True, help="Another run of A."
)
@click.option(
    "--b", "more_b", type=click.Path(exists=True, path_type=Path), multiple=True, help="Another run of B."
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 10),
    default=0.05,
    show_default=True,
    help="Share by which a figure may be worse.",
)
@click.option("--force", is_flag=True, help="Compare runs that measured different things.")
@json_option
def compare(
    a: Path,
    b: Path,
    more_a: tuple[Path, ...],
    more_b: tuple[Path, ...],
    threshold: float,
    force: bool,
    as_json: bool,
) -> None:
    """Two saved load results side by side; exits with 1 if B is worse than A in any figure."""
    from perf.compare import NotComparable, check_comparable
    from perf.compare import compare as compare_results

    before = [_read(path) for path in (a, *more_a)]
    after = [_read(path) for path in (b, *more_b)]
    try:
        check_comparable([*before, *after])
    except NotComparable as error:
        if not force:
            message(f"{error}; --force compares them all the same")
            raise SystemExit(2) from None
    for result in (*before, *after):
        if not result.counted:
            why = "; ".join([*result.problems, result.noise.why])
            message(f"warning: the run of {result.started_at} is not counted: {why}")
    lines = compare_results(before, after, threshold)
    if as_json:
        print_json(lines)
    else:
        print_table(
            ("figure", "A", "B", "B/A", ""),
            [
                (one.figure, f"{one.a:,.1f}", f"{one.b:,.1f}", f"{one.ratio:.3f}", one.verdict)
                for one in lines
            ],
            right=(1, 2, 3),
        )
    if any(one.verdict == "WORSE" for one in lines):
        raise SystemExit(1)


@click.command()
@click.option(
    "--long",
    "long_form",
    is_flag=True,
    help="Five runs of 30 s each, ten million orders, ten minutes: about an hour.",
)
@click.option("--smoke", is_flag=True, help="Tiny sizes: shows that it works, measures nothing.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table as Markdown.")
@click.option(
    "--save",
    "save_to",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder for every run as JSON.",
)
@json_option
def bench(long_form: bool, smoke: bool, as_markdown: bool, save_to: Path | None, as_json: bool) -> None:
    """Everything that has a budget, in one table. The short form takes under five minutes."""
    from perf.bench import cases, markdown, other_figures, run_bench, smoke_cases
    from perf.load import run_load

    if save_to is not None:
        save_to.mkdir(parents=True, exist_ok=True)
    what = smoke_cases() if smoke else cases(long=long_form)
    result = run_bench(what, run_load, message, save_to)
    size: Literal["smoke", "short", "long"] = "smoke" if smoke else "long" if long_form else "short"
    result = msgspec.structs.replace(result, figures=(*result.figures, *other_figures(size, message)))
    if as_json:
        print_json(result)
    elif as_markdown:
        click.echo(markdown(result.figures))
    else:
        print_table(
            ("figure", "budget", "measured", "ratio to floor", "runs", ""),
            [
                (f.name, f.budget, f.measured, f.ratio_to_floor, str(f.runs), f.verdict)
                for f in result.figures
            ],
        )


@click.command()
@click.option(
    "--rate", type=click.FloatRange(1, 100_000), default=3_049.0, show_default=True, help="Frames a second."
)
@click.option("--duration-secs", type=click.FloatRange(0.05, 600), default=5.0, show_default=True)
@click.option(
    "--repeat", type=click.IntRange(1, 100), default=5, show_default=True, help="Runs; medians count."
)
@json_option
def loops(rate: float, duration_secs: float, repeat: int, as_json: bool) -> None:
    """What a plain epoll loop and asyncio cost per frame, side by side."""
    from perf.loops import measure_loops

    result = measure_loops(rate, duration_secs, repeat)
    if as_json:
        print_json(result)
        return
    message(f"{result.machine.cpu}, {result.machine.cores} cores, commit {result.machine.commit}")
    print_table(
        ("loop", "p50 us", "p99 us", "CPU us/frame"),
        [
            (one.loop, f"{one.p50_us:,.0f}", f"{one.p99_us:,.0f}", f"{one.cpu_us_per_frame:,.1f}")
            for one in result.loops
        ],
        right=(1, 2, 3),
    )


@click.command()
@click.option("--commands", "count", type=click.IntRange(100, 20_000_000), default=400_000, show_default=True)
@click.option(
    "--repeat", type=click.IntRange(1, 100), default=5, show_default=True, help="Runs; medians count."
)
@click.option(
    "--peers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="A Python in which orderly-chaos and liquibook are installed, to measure them beside ours.",
)
@json_option
def engine(count: int, repeat: int, peers: Path | None, as_json: bool) -> None:
    """The book alone on six order flows, beside other books, and the engine with its ledger.

    \b
    python -m venv /tmp/peers && /tmp/peers/bin/pip install orderly-chaos liquibook
    python -m perf engine --peers /tmp/peers/bin/python
    """
    from perf.engine import budgets, run_engine

    result = run_engine(count, repeat, peers, message)
    if as_json:
        print_json(result)
        return
    print_table(
        ("flow", "library", "commands/s", "p50 ns", "p99 ns", "p99.9 ns"),
        [
            (
                one.flow,
                one.library,
                f"{one.commands_per_s:,.0f}",
                f"{one.p50_ns:,.0f}",
                f"{one.p99_ns:,.0f}",
                f"{one.p999_ns:,.0f}",
            )
            for one in result.books
        ],
        right=(2, 3, 4, 5),
    )
    print_table(("figure", "budget", "measured", ""), budgets(result))


@click.command()
@click.option("--records", type=click.IntRange(16, 10_000_000), default=300_000, show_default=True)
@click.option("--signed-records", type=click.IntRange(1, 1_000_000), default=20_000, show_default=True)
@click.option("--restart-records", type=click.IntRange(1, 10_000_000), default=1_000_000, show_default=True)
@click.option(
    "--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs; medians count."
)
@json_option
def verify(records: int, signed_records: int, restart_records: int, repeat: int, as_json: bool) -> None:
    """Replay with and without signatures, a checkpoint, a restart."""
    from perf.verify import Sizes, budgets, run_verify

    sizes = Sizes(
        records=min(records, restart_records),
        signed_records=signed_records,
        restart_records=restart_records,
        runs=repeat,
    )
    result = run_verify(sizes, message)
    if as_json:
        print_json(result)
        return
    print_table(
        ("figure", "budget", "measured", ""),
        [
            (name, budget, measured, "met" if met else "NOT MET")
            for name, budget, measured, met in budgets(result)
        ],
    )


@click.command()
@click.argument(
    "results", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("perf/reports"), show_default=True
)
def report(results: tuple[Path, ...], out: Path) -> None:
    """One self-contained HTML page, PNGs and a Markdown table from saved results and sweeps."""
    from perf.report import write_report
    from perf.sweep import SweepResult

    runs: list[LoadResult] = []
    sweeps: list[SweepResult] = []
    for path in results:
        found = msgspec.json.decode(path.read_bytes(), type=LoadResult | SweepResult)
        if isinstance(found, SweepResult):
            sweeps.append(found)
        else:
            runs.append(found)
    click.echo(write_report(runs, sweeps, out))


def _read(path: Path) -> LoadResult:
    try:
        return load_result(path)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        message(f"{path} is no saved load result: {error}")
        raise SystemExit(2) from None


@click.command()
@click.option("--clients", type=click.IntRange(1, 20_000), default=1_000, show_default=True)
@click.option("--duration-secs", type=click.FloatRange(0.5, 3600), default=10.0, show_default=True)
@click.option(
    "--amends", type=click.FloatRange(1, 10_000), default=40.0, show_default=True, help="Changes per second."
)
@click.option(
    "--levels", type=click.IntRange(1, 500), default=100, show_default=True, help="Orders on each side."
)
@json_option
def web(clients: int, duration_secs: float, amends: float, levels: int, as_json: bool) -> None:
    """Readers of the live book: CPU per reader, and how late changes reach them."""
    from perf.web import run_web_load

    result = run_web_load(clients, duration_secs, amends, levels)
    if as_json:
        print_json(result)
        return
    late = result.tick_to_client
    click.echo(
        f"{result.clients:,} clients, {result.messages_per_client_s:.1f} book messages/s each, "
        f"{result.messages_per_s:,.0f}/s in all"
    )
    click.echo(
        f"web process: {result.web_cpu_share:.0%} of a core, {result.web_cpu_us_per_client_s:,.0f} us of it "
        f"per client and second, {result.web_rss_mb:.0f} MiB"
    )
    click.echo(
        f"log time to client: p50 {late.p50_us / 1000:.1f} ms, p90 {late.p90_us / 1000:.1f}, "
        f"p99 {late.p99_us / 1000:.1f}, p99.9 {late.p999_us / 1000:.1f}, most {late.max_us / 1000:.1f}"
    )
