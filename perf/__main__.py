"""`python -m perf`: what the exchange does on this machine, and what the machine itself costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource

from perf.commands import bench, compare, engine, loops, report, sweep, verify, web
from perf.results import LoadResult, save, shown
from zexchange.cli.options import json_option
from zexchange.cli.output import message, print_json, print_table
from zexchange.cli.session import host_port

if TYPE_CHECKING:
    from perf.load import LoadOptions

REFERENCE = "reference system: 3,049 orders/s, p50 1.04 ms, p99 1.57 ms (durability not stated)"


@click.group()
def main() -> None:
    """Measure the exchange."""


@main.command()
@click.option(
    "--num-traders", type=click.IntRange(1, 500), default=4, show_default=True, help="TCP sessions."
)
@click.option("--duration-secs", type=click.FloatRange(0.1, 3600), default=30.0, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(1, 10_000_000),
    default=3049.0,
    show_default=True,
    help="Commands per second, all traders together.",
)
@click.option("--max", "as_fast", is_flag=True, help="As fast as answers come, instead of a rate.")
@click.option(
    "--window",
    type=click.IntRange(1, 10_000),
    default=32,
    show_default=True,
    help="With --max: frames on their way per trader.",
)
@click.option(
    "--batch", type=click.IntRange(1, 64), default=1, show_default=True, help="Commands under one signature."
)
@click.option("--markets", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option(
    "--resting",
    type=click.IntRange(0, 20_000_000),
    default=0,
    show_default=True,
    help="Orders that rest in the books beforehand.",
)
@click.option("--arrivals", type=click.Choice(["poisson", "constant"]), default="poisson", show_default=True)
@click.option("--fsync", type=click.Choice(["always", "everysec"]), default="always", show_default=True)
@click.option(
    "--pin",
    type=click.Choice(["auto", "off", "compare"]),
    default="auto",
    show_default=True,
    help="Where processes run; compare does both by turns.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the order flow.")
@click.option(
    "--repeat",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Runs; the one with the median p50 is the result.",
)
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="A setting of the exchange; may be repeated.",
)
@click.option(
    "--save", "save_to", type=click.Path(path_type=Path), default=None, help="Write the result to this file."
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder of an exchange that runs already, on this machine.",
)
@click.option(
    "--connect",
    type=host_port,
    metavar="HOST:PORT",
    default=None,
    help="Address of one that runs anywhere; needs --operator-key or --demo-url.",
)
@click.option(
    "--operator-key",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Key file that opens and funds the accounts; with --data its default is keys/operator.key there.",
)
@click.option(
    "--demo-url",
    default="",
    metavar="URL",
    help="Trading page of a demo, which opens accounts with play money, in place of the operator's key.",
)
@click.option(
    "--verify/--no-verify",
    "with_verify",
    default=True,
    show_default=True,
    help="Redo the whole log after the run.",
)
@click.option("--hlog", default="", help="Write a standard HdrHistogram log to this file.")
@json_option
@click.pass_context
def load(
    context: click.Context,
    num_traders: int,
    duration_secs: float,
    rate: float,
    as_fast: bool,
    window: int,
    batch: int,
    markets: int,
    resting: int,
    arrivals: Literal["poisson", "constant"],
    fsync: Literal["always", "everysec"],
    pin: Literal["auto", "off", "compare"],
    seed: int,
    repeat: int,
    settings: tuple[str, ...],
    save_to: Path | None,
    data: Path | None,
    connect: tuple[str, int] | None,
    operator_key: Path | None,
    demo_url: str,
    with_verify: bool,
    hlog: str,
    as_json: bool,
) -> None:
    """Open-loop load of signed orders; order to durable acknowledgement.

    The exchange is a temporary one, started for the run; or with --data or --connect one that runs already. There the
    run opens and funds accounts of its own, and at the end cancels its orders and withdraws what is left.

    \b
    python -m perf load --num-traders 4 --duration-secs 30
    python -m perf load --max --duration-secs 10
    python -m perf load --rate 150000 --batch 64 --save batches.json
    python -m perf load --data ./data --rate 500
    python -m perf load --connect exchange.example:9000 --operator-key operator.key
    """
    from perf.load import LoadOptions, run_load, settings_of

    _check_target(context, data, connect, operator_key, demo_url)
    try:
        more = tuple(settings_of(settings).items())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--setting") from None
    ways: list[Literal["auto", "off"]] = ["auto", "off"] if pin == "compare" else [pin]
    results: dict[str, list[LoadResult]] = {way: [] for way in ways}
    for _ in range(repeat):
        for way in ways:
            options = LoadOptions(
                traders=num_traders,
                duration_s=duration_secs,
                rate=None if as_fast else rate,
                window=window,
                batch=batch,
                markets=markets,
                resting=resting,
                arrivals=arrivals,
                fsync=fsync,
                pin=way,
                seed=seed,
                settings=more,
                data="" if data is None else str(data),
                connect=connect,
                operator_key="" if operator_key is None else str(operator_key),
                demo_url=demo_url,
                verify=with_verify,
                hlog=hlog,
            )
            results[way].append(_run_or_refuse(run_load, options, as_json))
            if not as_json:
                _print_load(results[way][-1])
    chosen = median_run(results[ways[0]])
    if len(ways) > 1 and not as_json:
        _print_comparison({way: median_run(found) for way, found in results.items()})
    if save_to is not None:
        save(chosen, save_to)
    if as_json:
        print_json(chosen)
    for problem in chosen.problems:
        message(f"this run does not count: {problem}")
    if not chosen.valid:
        raise SystemExit(1)


_OWN_ONLY = ("fsync", "pin", "settings")
"""What only an exchange that is started for the run can be told."""


def _check_target(
    context: click.Context,
    data: Path | None,
    connect: tuple[str, int] | None,
    operator_key: Path | None,
    demo_url: str,
) -> None:
    """Raises UsageError for options that do not go together."""
    if data is not None and connect is not None:
        raise click.UsageError("--data and --connect name one exchange each: give one of them")
    if operator_key is not None and demo_url:
        raise click.UsageError("accounts come from --operator-key or from --demo-url: give one of them")
    if data is None and connect is None:
        if operator_key is not None or demo_url:
            raise click.UsageError(
                "--operator-key and --demo-url are for an exchange that --data or --connect names"
            )
        return
    for name in _OWN_ONLY:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = "setting" if name == "settings" else name
            raise click.UsageError(
                f"--{flag} is for an exchange that is started for the run; this one runs already"
            )


def _run_or_refuse(
    run: Callable[[LoadOptions], LoadResult], options: LoadOptions, as_json: bool
) -> LoadResult:
    """One run; ends the program with the reason if there can be none."""
    from perf.running import CannotLoad

    try:
        return run(options)
    except CannotLoad as error:
        if as_json:
            print_json({"refused": error.reason, "message": str(error)})
        message(f"no load: {error} [{error.reason}]")
        raise SystemExit(error.exit_code) from None


def median_run(results: list[LoadResult]) -> LoadResult:
    """The run with the median p50 among those that count; among all if none does."""
    candidates = [one for one in results if one.counted] or [one for one in results if one.valid] or results
    return sorted(candidates, key=lambda one: one.p50_us)[(len(candidates) - 1) // 2]


def _print_load(result: LoadResult) -> None:
    machine, noise = result.machine, result.noise
    message(f"{machine.cpu}, {machine.cores} cores, kernel {machine.kernel}, commit {machine.commit}")
    message(f"pinned: {result.layout or 'not known from outside'}")
    service = result.service_time
    rows = [
        ("from due time", result.p50_us, result.p90_us, result.p99_us, result.p999_us, result.max_us),
        ("from sending", service.p50_us, service.p90_us, service.p99_us, service.p999_us, service.max_us),
    ]
    print_table(
        ("", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us"),
        [(name, *(f"{value:,.0f}" for value in values)) for name, *values in rows],
        right=(1, 2, 3, 4, 5),
    )
    offered = f"of {result.rate_offered:,.0f} offered" if result.rate_offered else "as fast as answers came"
    click.echo(
        f"{result.orders_per_s:,.0f} orders/s {offered} ({result.arrivals}), fsync {result.fsync}, "
        f"{result.orders_answered:,} answered, {result.trades:,} trades"
    )
    floor = result.floor
    if floor is not None:
        click.echo(
            f"floor {shown(result.floor_us)} us (TCP {floor.tcp_us:,.0f}, verify {floor.verify_us:,.0f}, "
            f"bus {floor.bus_us:,.0f}, append {floor.append_us:,.0f}); p50 is {shown(result.ratio_to_floor, '.2f')} "
            "times it"
        )
    if result.processes is not None:
        used = ", ".join(
            f"{one.name} {one.user_us_per_order + one.system_us_per_order:,.0f}" for one in result.processes
        )
        click.echo(f"server CPU per order: {shown(result.server_cpu_us_per_order)} us ({used})")
    if result.rss_mb is not None:
        memory = ", ".join(f"{name} {size:,.0f}" for name, size in result.rss_mb.items())
        click.echo(f"memory: {memory} MiB")
    click.echo(f"{result.resting_orders:,} orders of the run rested before" + _left(result))
    for stage in result.stages or ():
        click.echo(
            f"  {stage.process} {stage.name}: p50 {stage.p50_us:,.1f} us, p99 {stage.p99_us:,.0f} us, "
            f"{stage.count:,} {'frames' if stage.name == 'bus' else 'turns'}"
        )
    pace = "kept up" if result.generator_kept_up else "FELL BEHIND"
    click.echo(
        f"generator: {result.generator_cpu_share:.0%} of a core, {pace}, "
        f"late by {result.generator_late_p99_us:,.0f} us at p99"
    )
    click.echo(
        f"machine: {noise.stolen_share:.2%} stolen, others {noise.other_cpu_share:.1%}, hiccups p99 "
        f"{noise.hiccups.p99_us:,.0f} us, fdatasync p50 {noise.fdatasync.p50_us:,.0f} us p99 "
        f"{noise.fdatasync.p99_us:,.0f} us; log {_LOG[result.verified]}"
    )
    if not noise.quiet:
        message(f"shown and not counted: {noise.why}")
    click.echo(REFERENCE)


_LOG = {True: "verified", False: "NOT verified", None: "not looked at"}


def _left(result: LoadResult) -> str:
    if result.target == "own":
        return ""
    return (
        ", and how many are still open is not known"
        if result.left_orders is None
        else (f", and {result.left_orders:,} are still open")
    )


def _print_comparison(results: dict[str, LoadResult]) -> None:
    print_table(
        ("pinning", "p50 us", "p90 us", "p99 us", "p99.9 us", "CPU us/order", "layout"),
        [
            (
                way,
                f"{one.p50_us:,.0f}",
                f"{one.p90_us:,.0f}",
                f"{one.p99_us:,.0f}",
                f"{one.p999_us:,.0f}",
                shown(one.server_cpu_us_per_order),
                one.layout or "-",
            )
            for way, one in results.items()
        ],
        right=(1, 2, 3, 4, 5),
    )


@main.command()
@click.option(
    "--rounds", type=click.IntRange(1, 1_000_000), default=2000, show_default=True, help="Samples per step."
)
@click.option("--fsync", type=click.Choice(["always", "everysec"]), default="always", show_default=True)
@json_option
def floor(rounds: int, fsync: Literal["always", "everysec"], as_json: bool) -> None:
    """What the unavoidable steps cost here: TCP, verification, bus, durable append."""
    from perf.floor import measure_floor

    result = measure_floor(fsync=fsync, rounds=rounds)
    if as_json:
        print_json(result)
        return
    message(f"{result.machine.cpu}, {result.machine.cores} cores, commit {result.machine.commit}")
    steps = (
        ("loopback TCP round trip", result.tcp),
        ("one Ed25519 verification", result.verify),
        ("ZeroMQ ipc round trip", result.bus),
        (f"append, fsync {result.fsync}", result.append),
    )
    rows = [(name, f"{step.p50_us:,.0f}", f"{step.p99_us:,.0f}") for name, step in steps]
    rows.append(("floor", f"{result.floor_p50_us:,.0f}", f"{result.floor_p99_us:,.0f}"))
    print_table(("step", "p50 us", "p99 us"), rows, right=(1, 2))


main.add_command(sweep)
main.add_command(compare)
main.add_command(bench)
main.add_command(engine)
main.add_command(loops)
main.add_command(verify)
main.add_command(web)
main.add_command(report)


if __name__ == "__main__":
    main()
