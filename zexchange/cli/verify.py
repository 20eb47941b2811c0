"""Commands that check: `verify`, and the hidden `settlement`, the process that checks all the time."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zexchange.cli import exits
from zexchange.cli.options import common_options, json_option
from zexchange.cli.output import is_terminal, message, print_json

if TYPE_CHECKING:
    import redis

    from zexchange.config import Config
    from zexchange.genesis import Genesis
    from zexchange.paths import DataPaths
    from zexchange.replica import Mismatch
    from zexchange.verifier import Report


@click.command()
@click.option(
    "--reference",
    is_flag=True,
    help="Replay with the engine in plain Python: slow, and no C of ours takes part.",
)
@json_option
@common_options
def verify(data: Path, config_file: Path | None, as_json: bool, reference: bool) -> int:
    """Redo everything from the genesis file and compare it with what was signed.

    \b
    zexchange verify
    zexchange verify --reference --json

    Checks every record of the log and its archive (numbers, checksums, hash chain, signatures), replays it,
    and compares the events of every batch and the roots of every checkpoint. Works while the exchange runs
    and when it is stopped. Exits with 0 if everything agrees, and with 5 if anything differs; then it names
    the first record that does.
    """
    from zexchange.config import load_config
    from zexchange.genesis import load_genesis
    from zexchange.log_store import StoreRefused, StoreUnavailable
    from zexchange.paths import DataPaths
    from zexchange.replica import Mismatch

    config = load_config(config_file)
    paths = DataPaths(data)
    if not paths.genesis.is_file():
        raise exits.CommandFailed(f"there is no deployment in {paths.root}")
    genesis = load_genesis(paths.genesis)
    engine_name = "reference" if reference else "c"
    begin_ns = time.monotonic_ns()
    report: Report | None = None
    mismatch: Mismatch | None = None
    try:
        with reading_store(paths, config) as client, _progress_bar() as progress:
            report = _verified(paths, client, genesis, reference, progress)
    except Mismatch as error:
        mismatch = error
    except (StoreUnavailable, StoreRefused) as error:
        raise exits.CommandFailed(f"the store does not answer: {error}", exits.CANNOT_CONNECT) from None
    seconds = (time.monotonic_ns() - begin_ns) / 1e9
    if as_json:
        print_json(_as_json(genesis, engine_name, seconds, report, mismatch))
    elif report is not None:
        _print_report(genesis, engine_name, seconds, report)
    if mismatch is not None:
        message(f"MISMATCH: {mismatch}")
        return exits.MISMATCH
    return exits.OK


@click.command(hidden=True)
@common_options
def settlement(data: Path, config_file: Path | None) -> None:
    """Run the settlement process: replay the log, sign checkpoints, write snapshots and the archive."""
    from zexchange.process import process_context
    from zexchange.settlement import run

    with process_context("settlement", data, config_file) as context:
        run(context)


@contextmanager
def reading_store(paths: "DataPaths", config: "Config") -> "Iterator[redis.Redis]":
    """A client of the deployment's store; the embedded one is started for the time of reading if nothing
    runs.

    Holds the supervisor's lock as long as the store is ours, so that no exchange starts on it meanwhile.
    """
    from zexchange.exchange_info import SUPERVISOR_LOCK, take_lock
    from zexchange.log_store import StoreUnavailable
    from zexchange.store import EmbeddedStore, StoreFailed, open_store

    client = open_store(paths, config)
    paths.create()
    lock = None if config.store.url else take_lock(paths.lock(SUPERVISOR_LOCK))
    try:
        if lock is None:
            yield client
            return
        store = EmbeddedStore(paths, config)
        try:
            store.start()
            store.wait_ready()
        except StoreFailed as error:
            store.stop()
            raise StoreUnavailable(str(error)) from None
        try:
            yield client
        finally:
            client.close()
            store.stop()
    finally:
        client.close()
        if lock is not None:
            os.close(lock)


def _verified(
    paths: "DataPaths",
    client: "redis.Redis",
    genesis: "Genesis",
    reference: bool,
    progress: Callable[[int, int, int], None],
) -> "Report":
    """Self-tests, then the verification with the engine asked for. Raises Mismatch."""
    from zexchange import verifier
    from zexchange.wire import signing

    signing.self_test()
    if reference:
        from zexchange.reference import ReferenceEngine

        return verifier.verify(
            paths,
            client,
            genesis,
            ReferenceEngine,
            check_signatures=verifier.verify_signatures_plainly,
            progress=progress,
        )
    from zexchange import frames
    from zexchange.engine import Engine

    frames.self_test()
    with verifier.ParallelSignatures() as check_signatures:
        return verifier.verify(
            paths, client, genesis, Engine, check_signatures=check_signatures, progress=progress
        )


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int, int], None]]:
    """Draws how far the replay is if somebody watches; otherwise draws nothing."""
    if not is_terminal():
        yield lambda shard, done, total: None
        return
    bars: dict[int, Any] = {}

    def draw(shard: int, done: int, total: int) -> None:
        bar = bars.get(shard)
        if bar is None:
            for finished in bars.values():
                finished.render_finish()
            bar = bars[shard] = click.progressbar(
                length=total, label=f"shard {shard}", show_pos=True, file=sys.stderr
            )
        bar.length = max(total, done)
        bar.update(done - bar.pos)

    try:
        yield draw
    finally:
        for bar in bars.values():
            bar.render_finish()


def _as_json(
    genesis: "Genesis", engine_name: str, seconds: float, report: "Report | None", mismatch: "Mismatch | None"
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ok": mismatch is None,
        "deployment": genesis.name,
        "deployment_id": genesis.deployment_id,
        "engine": engine_name,
        "seconds": round(seconds, 3),
    }
    if report is not None:
        result |= {
            "records": report.records,
            "commands": report.commands,
            "trades": report.trades,
            "checkpoints": report.checkpoints,
            "compared_roots": report.compared_roots,
            "records_signed": report.covered_records,
            "records_per_second": round(report.records / seconds),
            "shards": list(report.shards),
        }
    if mismatch is not None:
        result["mismatch"] = {
            "shard": mismatch.shard,
            "record_no": mismatch.record_no,
            "checkpoint": getattr(mismatch, "n", None),
            "what": mismatch.what,
            "expected": mismatch.expected,
            "found": mismatch.found,
        }
    return result


def _print_report(genesis: "Genesis", engine_name: str, seconds: float, report: "Report") -> None:
    engine_text = "the reference engine" if engine_name == "reference" else "the C engine"
    click.echo(f"deployment   {genesis.name}, id {genesis.deployment_id.hex()}")
    click.echo(
        f"replayed     {report.records:,} records, {report.commands:,} commands, {report.trades:,} trades"
        f" with {engine_text}"
    )
    click.echo(
        f"checkpoints  {report.checkpoints:,}, covering {report.covered_records:,} records;"
        f" roots compared at {report.compared_roots:,} positions"
    )
    for shard in report.shards:
        click.echo(f"shard {shard.shard:<6} log root    {shard.log_root.hex()}")
        click.echo(f"             state root  {shard.state_root.hex()}")
    rate = report.records / seconds
    click.echo(f"verified     everything agrees ({seconds:.2f} s, {rate:,.0f} records/s)")
