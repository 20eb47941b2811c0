"""Commands that check: `verify`, and the hidden `settlement`, the process that checks all the time."""

import os
import subprocess
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
    from zexchange.config import Config
    from zexchange.genesis import Genesis
    from zexchange.log.stream import StreamClient
    from zexchange.runtime.paths import DataPaths
    from zexchange.runtime.store import EmbeddedStore
    from zexchange.verification.note import TreeHead
    from zexchange.verification.replica import Mismatch
    from zexchange.verification.verifier import Report

_START_STEP_S = 0.01
"""Pause between two questions whether the store has loaded its file."""


@click.command()
@click.option(
    "--reference",
    is_flag=True,
    help="Replay with the engine in plain Python: slow, and no C of ours takes part.",
)
@click.option(
    "--checkpoint",
    "kept_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A checkpoint that was kept elsewhere; the log must contain it. May be repeated.",
)
@click.option(
    "--store-url",
    default=None,
    help="The store that holds the log, if it is not the one that the exchange uses now.",
)
@json_option
@common_options
def verify(
    data: Path,
    config_file: Path | None,
    as_json: bool,
    reference: bool,
    kept_files: tuple[Path, ...],
    store_url: str | None,
) -> int:
    """Redo everything from the genesis file and compare it with what was signed.

    \b
    zexchange verify
    zexchange verify --reference --json
    zexchange verify --checkpoint last-month.note

    Checks every record of the log and its archive (numbers, checksums, hash chain, signatures), replays it,
    and compares the events of every batch and the roots of every checkpoint. Works while the exchange runs
    and when it is stopped, and repairs nothing. Exits with 0 if everything agrees, and with 5 if anything
    differs; then it names the first record that does.
    """
    from zexchange.genesis import load_genesis
    from zexchange.log.stream import StoreRefused, StoreUnavailable
    from zexchange.runtime.paths import DataPaths
    from zexchange.verification.replica import Mismatch

    paths = DataPaths(data)
    config = _config(paths, config_file, store_url)
    if not paths.genesis.is_file():
        raise exits.CommandFailed(f"there is no deployment in {paths.root}")
    genesis = load_genesis(paths.genesis)
    engine_name = "reference" if reference else "c"
    begin_ns = time.monotonic_ns()
    report: Report | None = None
    mismatch: Mismatch | None = None
    try:
        kept = _kept_checkpoints(kept_files, genesis)
        with reading_store(paths, config, named=store_url is not None) as client, _progress_bar() as progress:
            report = _verified(paths, client, genesis, reference, progress, kept)
    except Mismatch as error:
        mismatch = error
    except (StoreUnavailable, StoreRefused) as error:
        raise exits.CommandFailed(f"the store does not answer: {error}", exits.CANNOT_CONNECT) from None
    seconds = (time.monotonic_ns() - begin_ns) / 1e9
    if as_json:
        print_json(_as_json(genesis, engine_name, seconds, report, mismatch))
    elif report is not None:
        _print_report(genesis, engine_name, seconds, report)
    for warning in report.warnings if report is not None else ():
        message(f"warning: {warning}")
    if mismatch is not None:
        message(f"MISMATCH: {mismatch}")
        return exits.MISMATCH
    return exits.OK


@click.command(hidden=True)
@common_options
def settlement(data: Path, config_file: Path | None) -> None:
    """Run the settlement process: replay the log, sign checkpoints, write snapshots and the archive."""
    from zexchange.runtime.process import process_context
    from zexchange.settlement.process import run

    with process_context("settlement", data, config_file) as context:
        run(context)


def _config(paths: "DataPaths", config_file: Path | None, store_url: str | None) -> "Config":
    """The settings, with the store that is named, or else that of the exchange which runs in the folder."""
    from zexchange.config import load_config
    from zexchange.runtime.exchange_info import read_exchange

    if store_url is None and (info := read_exchange(paths)) is not None:
        store_url = "" if info.store_url == f"unix://{paths.store_socket}" else info.store_url
    return load_config(config_file, None if store_url is None else {"store.url": store_url})


def _kept_checkpoints(files: tuple[Path, ...], genesis: "Genesis") -> "dict[str, TreeHead]":
    """The checkpoints in these files, by their paths. Raises Mismatch if another key has signed one."""
    from zexchange.verification.note import NoteInvalid
    from zexchange.verification.verifier import kept_checkpoint

    kept = {}
    for file in files:
        try:
            kept[str(file)] = kept_checkpoint(str(file), file.read_bytes(), genesis)
        except NoteInvalid as error:
            raise exits.CommandFailed(f"{file} is no checkpoint: {error}") from None
    return kept


@contextmanager
def reading_store(paths: "DataPaths", config: "Config", *, named: bool = False) -> "Iterator[StreamClient]":
    """A client of the deployment's store; the embedded one is started for the time of reading if nothing
    runs. A copy has none.

    Holds the supervisor's lock as long as the store is ours, so that no exchange starts on it meanwhile.
    `named`: the user says that it is this store. Raises CommandFailed if the log cannot be in it, or its file
    needs the repair that a start of the exchange makes.
    """
    from zexchange.log.stream import EmptyStore
    from zexchange.runtime.exchange_info import SUPERVISOR_LOCK, take_lock
    from zexchange.runtime.store import EmbeddedStore, open_store
    from zexchange.settlement.store_record import ARCHIVE, recorded_store

    if not named and recorded_store(paths) == ARCHIVE:
        yield EmptyStore()
        return
    client = open_store(paths, config)
    lock: int | None = None
    try:
        if config.store.url:
            yield client
            return
        paths.create()
        lock = take_lock(paths.lock(SUPERVISOR_LOCK))
        if lock is None:
            yield client
            return
        _require_embedded_log(paths, named)
        store = EmbeddedStore(paths, config)
        try:
            _start_unrepaired(store, paths, config)
            yield client
        finally:
            client.close()
            store.stop()
    finally:
        client.close()
        if lock is not None:
            os.close(lock)


def _require_embedded_log(paths: "DataPaths", named: bool) -> None:
    """Raises CommandFailed if the embedded store cannot hold the log, so that an empty one is not taken for
    it.
    """
    from zexchange.settlement.store_record import EMBEDDED, recorded_store

    place = recorded_store(paths)
    if not named and place not in (None, EMBEDDED):
        raise exits.CommandFailed(
            "the log is not in the embedded store of this folder:"
            f" the exchange ran on {place}; name that store with --store-url"
        )
    signed = any(path.exists() and path.stat().st_size for path in (paths.checkpoints_log, paths.last_signed))
    if signed and not any(paths.store.glob("appendonlydir/*.aof*")):
        raise exits.CommandFailed(
            f"the log is not in the embedded store of this folder: {paths.store} holds no files;"
            " restore them, or name the store that has it with --store-url"
        )


def _start_unrepaired(store: "EmbeddedStore", paths: "DataPaths", config: "Config") -> None:
    """Starts the embedded store and waits until it answers. Unlike a start of the exchange it changes nothing
    in the store's file.

    Raises CommandFailed if that would be needed, StoreUnavailable.
    """
    from zexchange.log.stream import StoreUnavailable
    from zexchange.runtime.store import StoreFailed

    try:
        process = store.start()
    except StoreFailed as error:
        raise StoreUnavailable(str(error)) from None
    left_s = config.store.start_timeout_ms / 1000
    while not store.is_ready():
        try:
            status = process.wait(_START_STEP_S)
        except subprocess.TimeoutExpired:
            left_s -= _START_STEP_S
            if left_s <= 0:
                raise StoreUnavailable("it has not loaded its file in time") from None
            continue
        _explain_file(paths)
        raise StoreUnavailable(f"it ended with status {status}; see {paths.output('store')}")


def _explain_file(paths: "DataPaths") -> None:
    """After the store ended: raises CommandFailed if its file is torn or damaged."""
    from zexchange.runtime.aof_repair import Damaged, newest_incremental_file, whole_commands_end
    from zexchange.runtime.store import StoreDamaged

    try:
        file = newest_incremental_file(paths.store)
        torn = whole_commands_end(file) < file.stat().st_size
    except Damaged as error:
        raise exits.CommandFailed(str(StoreDamaged(paths, str(error))), exits.CANNOT_CONNECT) from None
    except OSError:
        return
    if torn:
        raise exits.CommandFailed(
            "the store's file ends inside a command that was never acknowledged: start the exchange once,"
            " which cuts it off and keeps what it cut, and verify then"
        )


def _verified(
    paths: "DataPaths",
    client: "StreamClient",
    genesis: "Genesis",
    reference: bool,
    progress: Callable[[int, int, int], None],
    kept: "dict[str, TreeHead]",
) -> "Report":
    """Self-tests, then the verification with the engine asked for. Raises Mismatch."""
    from zexchange.verification import verifier
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
            kept=kept,
        )
    from zexchange import frames
    from zexchange.engine import Engine

    frames.self_test()
    with verifier.ParallelSignatures() as check_signatures:
        return verifier.verify(
            paths, client, genesis, Engine, check_signatures=check_signatures, progress=progress, kept=kept
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
            "covered_records": report.covered_records,
            "uncovered_records": report.uncovered_records,
            "newest_checkpoint": report.newest_note.decode() or None,
            "warnings": list(report.warnings),
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
            "hint": mismatch.hint or None,
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
    click.echo(f"unsigned     {report.uncovered_records:,} records beyond the newest checkpoint")
    for shard in report.shards:
        click.echo(f"shard {shard.shard:<6} log root    {shard.log_root.hex()}")
        click.echo(f"             state root  {shard.state_root.hex()}")
    rate = report.records / seconds
    verdict = "everything agrees" if report.checkpoints else "the log agrees with itself; nothing is signed"
    click.echo(f"verified     {verdict} ({seconds:.2f} s, {rate:,.0f} records/s)")
