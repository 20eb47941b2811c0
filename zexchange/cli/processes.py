"""Hidden commands that are processes of the exchange: `zexchange ingress [WORKER]`, `zexchange matcher SHARD`,
`zexchange web`.

The supervisor starts them; by hand they are useful to run one process of an exchange under a debugger.
"""

from pathlib import Path

import click

from zexchange.cli.options import common_options


@click.command(hidden=True)
@common_options
@click.argument("worker", type=click.IntRange(0), default=0)
def ingress(data: Path, config_file: Path | None, worker: int) -> None:
    """Run ingress worker number WORKER (from 0): order entry over TCP."""
    from gateway.server import run

    run(worker, data, config_file, {})


@click.command(hidden=True)
@common_options
@click.option(
    "--ingress",
    "worker",
    type=click.IntRange(0),
    default=None,
    help="Also run this ingress worker in its thread.",
)
@click.argument("shard", type=click.IntRange(0))
def matcher(data: Path, config_file: Path | None, worker: int | None, shard: int) -> None:
    """Run the matcher of SHARD."""
    from zexchange.matcher.process import run

    if worker is None:
        run(shard, data, config_file, {})
        return
    from gateway.server import make_companion

    run(shard, data, config_file, {}, make_companion(worker))


@click.command(hidden=True)
@common_options
def web(data: Path, config_file: Path | None) -> None:
    """Run the web process: page, REST, WebSockets, admin API."""
    from webapp.process import run

    run(data, config_file, {})
