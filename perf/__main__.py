"""`python -m perf`: what the exchange does on this machine, and what the machine itself costs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import click

from zexchange.cli.options import json_option
from zexchange.cli.output import message, print_json, print_table

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
    type=click.FloatRange(1, 1_000_000),
    default=3049.0,
    show_default=True,
    help="Orders per second, all traders.",
)
@click.option("--arrivals", type=click.Choice(["poisson", "constant"]), default="poisson", show_default=True)
@click.option("--fsync", type=click.Choice(["always", "everysec"]), default="always", show_default=True)
@click.option("--market", default="BTC-USD", show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the order flow.")
@json_option
def load(
    num_traders: int,
    duration_secs: float,
    rate: float,
    arrivals: str,
    fsync: str,
    market: str,
    seed: int,
    as_json: bool,
) -> None:
    """Open-loop load of signed orders on a temporary exchange; order to durable acknowledgement."""
    from perf.load import run_load
    from zexchange.client.keys import load_key
    from zexchange.runtime.running import RunningExchange

    with (
        tempfile.TemporaryDirectory(prefix="zx-perf-") as folder,
        RunningExchange(Path(folder) / "data", settings={"store.fsync": fsync}) as exchange,
    ):
        result = run_load(
            exchange.host,
            exchange.port,
            load_key(exchange.paths.operator_key),
            traders=num_traders,
            duration_s=duration_secs,
            rate=rate,
            poisson=arrivals == "poisson",
            market=market,
            seed=seed,
        )
    if as_json:
        print_json(result)
    else:
        message(f"{result.machine.cpu}, {result.machine.cores} cores, commit {result.machine.commit}")
        print_table(
            ("", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us"),
            [
                (name, *(f"{value:,.0f}" for value in (p.p50_us, p.p90_us, p.p99_us, p.p999_us, p.max_us)))
                for name, p in (("from due time", result.latency), ("from sending", result.service_time))
            ],
            right=(1, 2, 3, 4, 5),
        )
        click.echo(
            f"{result.orders_per_s:,.0f} orders/s answered of {result.rate_offered:,.0f} offered"
            f" ({result.arrivals} arrivals), durability {result.durability}"
        )
        click.echo(
            f"{result.orders_answered:,} of {result.orders_sent:,} orders answered, {result.trades:,} trades"
        )
        pace = "kept up" if result.kept_up else "FELL BEHIND"
        click.echo(f"generator: {result.generator_cpu_share:.0%} of a core, {pace}")
        click.echo(REFERENCE)
    if not result.valid:
        message("this run does not count: the generator fell behind or orders went unanswered")
        raise SystemExit(1)


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


if __name__ == "__main__":
    main()
