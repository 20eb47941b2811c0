"""Commands for a whole exchange on this machine: init, up, status."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zexchange.cli import exits
from zexchange.cli.options import common_options, json_option, port_base_option
from zexchange.cli.output import message, print_json, print_table

if TYPE_CHECKING:
    from zexchange.config import Config
    from zexchange.genesis import Genesis
    from zexchange.runtime.exchange_info import ExchangeInfo
    from zexchange.runtime.paths import DataPaths

_STATUS_TIMEOUT_MS = 3_000
"""How long `status` waits for order entry: it should answer at once, and somebody is waiting."""


@click.command()
@click.option(
    "--name",
    default="demo",
    show_default=True,
    help="Name of the deployment; part of its checkpoints' origin.",
)
@click.option(
    "--shards",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Matchers; markets that name none go to them in turn.",
)
@click.option(
    "--markets",
    "markets_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE.toml",
    help="Tables [[assets]], [[markets]] and, if wanted, [limits], as in a genesis file.",
    show_default="three markets",
)
@json_option
@common_options
def init(
    data: Path,
    config_file: Path | None,
    as_json: bool,
    name: str,
    shards: int,
    markets_file: Path | None,
) -> None:
    """Create a deployment: a genesis file and fresh keys.

    \b
    zexchange init
    zexchange init --data /srv/exchange --name venue-1 --shards 2 --markets venue.toml

    What defines a deployment is its genesis file: it is never overwritten or edited.
    """
    import msgspec

    from zexchange.genesis import DEFAULT_ASSETS, DEFAULT_MARKETS, MarketsFile, load_markets
    from zexchange.runtime.deployment import DeploymentExists, create_deployment
    from zexchange.runtime.paths import DataPaths

    paths = DataPaths(data)
    if markets_file is not None:
        chosen = load_markets(markets_file, shards)
    else:
        in_turn = (
            msgspec.structs.replace(market, shard=index % shards)
            for index, market in enumerate(DEFAULT_MARKETS)
        )
        chosen = MarketsFile(assets=DEFAULT_ASSETS, markets=tuple(in_turn))
    try:
        genesis = create_deployment(
            paths,
            name=name,
            assets=chosen.assets,
            markets=chosen.markets,
            shards=shards,
            engine_limits=chosen.limits,
        )
    except DeploymentExists as error:
        raise exits.CommandFailed(str(error)) from None
    if as_json:
        print_json(
            {
                "data": paths.root,
                "name": genesis.name,
                "deployment_id": genesis.deployment_id,
                "genesis": paths.genesis,
                "operator_key": paths.operator_key,
                "settlement_key": paths.settlement_key,
                "markets": [market.symbol for market in genesis.markets],
                "shards": genesis.shards,
            }
        )
        return
    click.echo(f"deployment {genesis.name!r} in {paths.root}")
    click.echo(f"  id       {genesis.deployment_id.hex()}")
    click.echo(f"  markets  {', '.join(market.symbol for market in genesis.markets)}")
    click.echo(f"  keys     {paths.operator_key}, {paths.settlement_key}: keep them secret, and a copy safe")
    click.echo(f"start it with: {_command(paths)} up{_data_flag(paths)}")


@click.command()
@port_base_option
@click.option("--host", default=None, help="Address to listen on; the default is loopback only.")
@click.option("--workers", default=None, metavar="N|auto", help="Ingress workers.")
@click.option(
    "--fsync", type=click.Choice(["always", "everysec"]), default=None, help="When the log reaches the disk."
)
@click.option("--store-url", default=None, help="A Redis 7 or Valkey to use instead of the embedded store.")
@click.option("--demo", is_flag=True, help="With bots that trade play money; of a demo deployment only.")
@common_options
def up(
    data: Path,
    config_file: Path | None,
    port_base: int | None,
    host: str | None,
    workers: str | None,
    fsync: str | None,
    store_url: str | None,
    demo: bool,
) -> int:
    """Start the whole exchange here and watch over it until Ctrl-C.

    \b
    zexchange up
    zexchange up --data other --port-base 9200
    zexchange up --demo

    A folder without a deployment gets one first, as `zexchange init` makes it. A line that starts with
    `ready` is printed when, and only when, orders are accepted.
    """
    from zexchange.config import DEFAULT_FILE, load_config
    from zexchange.genesis import load_genesis
    from zexchange.runtime.deployment import create_deployment
    from zexchange.runtime.paths import DataPaths
    from zexchange.runtime.supervisor import CannotStart, Supervisor

    given = {
        "exchange.port_base": port_base,
        "exchange.host": host,
        "ingress.workers": workers,
        "store.fsync": fsync,
        "store.url": store_url,
    }
    overrides = {key: str(value) for key, value in given.items() if value is not None}
    if config_file is None and DEFAULT_FILE.is_file():
        config_file = DEFAULT_FILE
    config = load_config(config_file, overrides)
    paths = DataPaths(data)
    if paths.genesis.exists():
        genesis = load_genesis(paths.genesis)
    else:
        genesis = create_deployment(paths)
        message(f"new deployment {genesis.name!r} in {paths.root}")

    if demo and not genesis.name.startswith("demo"):
        raise exits.CommandFailed(
            f"{genesis.name!r} is no demo: bots trade with play money only; start it without --demo"
        )

    def on_ready(info: "ExchangeInfo") -> None:
        click.echo(screen(info, genesis, paths, config))
        click.echo(f"ready {info.tcp}")
        sys.stdout.flush()

    supervisor = Supervisor(
        paths, config, genesis, config_file=config_file, overrides=overrides, on_ready=on_ready, demo=demo
    )
    try:
        return supervisor.run()
    except CannotStart as error:
        raise exits.CommandFailed(str(error)) from None


def screen(info: "ExchangeInfo", genesis: "Genesis", paths: "DataPaths", config: "Config") -> str:
    """What somebody who has just started an exchange wants to know; one screen."""
    from zexchange.runtime.store import shown_url

    workers = sum(name.startswith("ingress-") for name in info.processes) + info.colocated
    promise = {
        "always": "always: on disk before it is acknowledged",
        "everysec": "everysec: up to a second of acknowledged orders is lost on power failure",
    }[info.durability]
    store = "embedded" if not config.store.url else shown_url(info.store_url)
    pins = [
        f"                {name} on CPU {','.join(map(str, process.cpus))}"
        for name, process in info.processes.items()
        if process.cpus
    ]
    command, flag = _command(paths), _data_flag(paths)
    markets = genesis.markets
    first = markets[0].symbol
    quote = genesis.asset(markets[0].quote_asset_id).symbol
    listed = ", ".join(market.symbol for market in markets[:8]) + (
        f" and {len(markets) - 8} more" if len(markets) > 8 else ""
    )
    sizes = f"{_count(workers, 'worker')}, {_count(info.shards, 'shard')}"
    return "\n".join(
        [
            "",
            f"zexchange {info.version} · {info.name} · deployment {info.deployment_id[:16]}",
            "",
            f"  order entry   {info.tcp}  (SBE over TCP; {sizes})",
            *([f"  trading page  http://{info.web}"] if info.web is not None else []),
            *([f"  admin API     http://{info.admin}"] if info.admin is not None else []),
            f"  markets       {listed}",
            f"  data folder   {paths.root}",
            f"  logs          {paths.logs}",
            f"  store         {store}",
            f"  durability    {promise}",
            f"  pinned        {info.pinning}",
            *pins,
            "",
            "  A first order, in another terminal:",
            f"    {command} keys new alice{flag}",
            f"    {command} user open alice{flag}",
            f"    {command} deposit alice {quote} 100000{flag}",
            f"    {command} order buy {first} 0.5 60000 --key alice{flag}",
            f"    {command} book {first}{flag}",
            "",
            f"  Stop with Ctrl-C, or: kill {info.pid}",
            "",
        ]
    )


@click.command()
@json_option
@common_options
def status(data: Path, config_file: Path | None, as_json: bool) -> int:
    """Show what runs in the data folder, how far it is, and what its acknowledgements promise.

    \b
    zexchange status
    zexchange status --json

    Exit code 0 when every process is ready and order entry answers, 1 when not, 3 when nothing runs there.
    """
    from zexchange.config import load_config
    from zexchange.runtime.exchange_info import is_supervised, read_exchange
    from zexchange.runtime.paths import DataPaths

    paths = DataPaths(data)
    config = load_config(config_file)
    info = read_exchange(paths)
    if info is None:
        starting = is_supervised(paths)
        text = "starts or stops at the moment" if starting else "nothing runs"
        if as_json:
            print_json({"running": False, "starting": starting, "data": paths.root})
        else:
            hint = "" if starting else f"; start it with: {_command(paths)} up{_data_flag(paths)}"
            message(f"{text} in {paths.root}{hint}")
        return exits.CANNOT_CONNECT
    found = _status(info, paths, config)
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    return exits.OK if found["healthy"] else exits.FAILURE


def _status(info: "ExchangeInfo", paths: "DataPaths", config: "Config") -> dict[str, Any]:
    """The answer of `status`, as it is printed with --json."""
    import msgspec

    from zexchange.runtime.store import shown_url

    found: dict[str, Any] = {"running": True, "healthy": False, **msgspec.to_builtins(info)}
    found["tcp"] = str(info.tcp)
    found["store_url"] = shown_url(info.store_url)
    for process in found["processes"].values():
        process["alive"] = process["pid"] is not None and _alive(process["pid"])
        if process["pid"] is not None and not process["alive"]:
            process["state"] = "dead"  # just now: the supervisor has not said so yet
    found["shard_status"] = _shard_status(info)
    ready = all(process["state"] == "ready" for process in found["processes"].values())
    found["healthy"] = ready and bool(found["shard_status"])
    found["checkpoint"] = _last_checkpoint(paths, config, info)
    return found


def _print_status(found: dict[str, Any]) -> None:
    click.echo(f"{found['name']} · deployment {found['deployment_id'][:16]} · up since {found['started_at']}")
    click.echo(f"order entry {found['tcp']}   durability {found['durability']}   store {found['store_url']}")
    checkpoint = found["checkpoint"]
    if checkpoint is None:
        click.echo("checkpoint  none yet")
    else:
        click.echo(f"checkpoint  {checkpoint['number']}, {checkpoint['age_ms'] / 1000:.1f} s old")
    click.echo("")
    rows = [
        (
            name,
            process["pid"] or "-",
            process["state"],
            process["restarts"],
            ",".join(map(str, process["cpus"])) or "any",
        )
        for name, process in found["processes"].items()
    ]
    print_table(("PROCESS", "PID", "STATE", "RESTARTS", "CPU"), rows, right=(1, 3))
    if found["shard_status"]:
        click.echo("")
        print_table(
            ("SHARD", "EPOCH", "RECORDS", "COMMANDS", "OPEN ORDERS", "ACCOUNTS", "TRADES"),
            [
                (
                    one["shard"],
                    one["epoch"],
                    one["next_record_no"] - 1,
                    one["next_seq"] - 1,
                    one["open_orders"],
                    one["accounts"],
                    one["trades"],
                )
                for one in found["shard_status"]
            ],
            right=range(7),
        )


def _alive(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _shard_status(info: "ExchangeInfo") -> list[dict[str, Any]]:
    """What each shard says of itself; nothing if order entry does not answer."""
    import msgspec
    from nacl.signing import SigningKey

    from zexchange.client import Client
    from zexchange.client.errors import ZexchangeError

    try:
        # Any key may ask; a fresh one belongs to nobody.
        with Client.local(info.data, SigningKey.generate(), timeout_ms=_STATUS_TIMEOUT_MS) as client:
            answer: dict[str, Any] = msgspec.to_builtins(client.status())
    except ZexchangeError as error:
        message(f"order entry does not answer: {error}")
        return []
    shards: list[dict[str, Any]] = answer["shards"]
    return shards


def _last_checkpoint(paths: "DataPaths", config: "Config", info: "ExchangeInfo") -> dict[str, int] | None:
    """Number, time and age of the newest published checkpoint; None if there is none or the store does not
    answer."""
    import time

    import redis

    from zexchange.runtime.store import open_store_of

    client = open_store_of(info, paths, config)
    try:
        entries: Any = client.xrevrange("zx:checkpoints", count=1)
    except redis.RedisError:
        return None
    finally:
        client.close()
    if not entries:
        return None
    leaf: bytes = entries[0][1][b"leaf"]
    number = int.from_bytes(leaf[4:12], "little")
    time_ns = int.from_bytes(leaf[12:20], "little")
    return {"number": number, "time_ns": time_ns, "age_ms": max(0, time.time_ns() - time_ns) // 1_000_000}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _command(_paths: "DataPaths") -> str:
    """How to call this program from the shell that the reader has: by name if that finds it, else by path."""
    installed = Path(sys.prefix) / "bin" / "zexchange"
    found = shutil.which("zexchange")
    if found is not None and Path(found).resolve() == installed.resolve():
        return "zexchange"
    if not installed.exists():
        return f"{sys.executable} -m zexchange"
    try:
        return str(installed.relative_to(Path.cwd()))
    except ValueError:
        return str(installed)


def _data_flag(paths: "DataPaths") -> str:
    """`--data DIR` if the folder is not the default one."""
    import shlex

    from zexchange.runtime.paths import DEFAULT_DATA, DataPaths

    return "" if paths.root == DataPaths(DEFAULT_DATA).root else f" --data {shlex.quote(str(paths.root))}"
