"""Processes killed while orders flow: nothing acknowledged is lost, nothing is applied twice.

What counts as lost is decided in tests/e2e/history.py, from what the traders were told and from the log.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.e2e.conftest import Command, Exchange
from tests.e2e.history import Market
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.running import RunningExchange
from zexchange.verification.snapshot import snapshot_numbers

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

BEFORE, AFTER = 60, 30
"""Batches of every trader that are acknowledged before and after each harm."""
OFTEN = {"settlement.checkpoint_interval_ms": "100", "settlement.snapshot_every_records": "100"}
IMPATIENT = {"store.timeout_ms": "200"}
PATIENCE_S = 60.0


def verified(command: Command, data: Path, *flags: str) -> None:
    """The full verification, from genesis, agrees with everything that was signed."""
    code, out, err = command("verify", "--data", data, *flags)
    assert code == 0, f"{out}{err}"


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("what was waited for did not happen")


def hang_store(running: RunningExchange) -> None:
    """Stop the store in the middle of its work, and return when the matcher has waited for it in vain."""
    waiting = "the store does not answer; trying again"
    tries = len(logged(running.paths, "matcher-0", waiting))
    running.kill("store", signal.SIGSTOP)
    wait_until(lambda: len(logged(running.paths, "matcher-0", waiting)) >= tries + 2)


def logged(paths: DataPaths, process: str, event: str) -> list[dict[str, Any]]:
    """Lines of this event in the log of a process, oldest first."""
    lines = paths.log(process).read_bytes().splitlines()
    found = [msgspec.json.decode(line) for line in lines]
    return [line for line in found if line["event"] == event]


@pytest.mark.parametrize(
    ("colocate", "process"),
    [
        *(("off", process) for process in ("matcher-0", "settlement", "ingress-0", "store")),
        *(("on", process) for process in ("matcher-0", "store")),
    ],
)
def test_process_killed_while_orders_flow(data: Path, colocate: str, process: str, command: Command) -> None:
    with RunningExchange(data, settings={"ingress.colocate": colocate}) as running:
        market = Market(Exchange(running))
        with market:
            for _ in range(2):
                market.wait_for(BEFORE)
                old_pid = running.kill(process)
                running.wait_until_replaced(process, old_pid)
                market.wait_for(AFTER)
        market.judge()
        # These two lose the sessions, and every trader has something in flight all the time.
        assert (market.resent > 0) == (process in ("matcher-0", "ingress-0"))
    verified(command, data, *(["--reference"] if process == "matcher-0" else []))
    verified(command, data)


def test_supervisor_killed_while_orders_flow(data: Path, command: Command) -> None:
    with RunningExchange(data) as running:
        market = Market(Exchange(running))
        with market:
            market.wait_for(BEFORE)
            running.crash()
            running.start()
            market.wait_for(AFTER)
        market.judge()
    verified(command, data)


def test_everything_killed_at_once(data: Path, command: Command) -> None:
    """As a power cut, but for what the kernel has not written."""
    with RunningExchange(data) as running:
        market = Market(Exchange(running))
        with market:
            market.wait_for(BEFORE)
            os.kill(running.pid, signal.SIGSTOP)  # so that it replaces nobody
            for pid in running.pids().values():
                os.kill(pid, signal.SIGKILL)
            running.crash()
            running.start()
            market.wait_for(AFTER)
        market.judge()
    verified(command, data)


def test_stop_and_start_while_orders_flow(data: Path, command: Command) -> None:
    with RunningExchange(data) as running:
        market = Market(Exchange(running))
        with market:
            market.wait_for(BEFORE)
            assert running.stop() == 0
            verified(command, data)
            running.start()
            market.wait_for(AFTER)
        market.judge()
    verified(command, data)


def test_store_that_hangs_delays_and_loses_nothing(data: Path, command: Command) -> None:
    """The reply to an append comes too late: the writer looks at the tip, and goes on with the same epoch."""
    with RunningExchange(data, settings=IMPATIENT) as running:
        market = Market(Exchange(running))
        with market:
            market.wait_for(BEFORE)
            pids = running.pids()
            for _ in range(2):
                hang_store(running)
                running.kill("store", signal.SIGCONT)
                market.wait_for(AFTER)
            assert running.pids() == pids
        market.judge()
        assert market.resent == 0
    verified(command, data)


def test_nothing_is_acknowledged_while_the_store_hangs(data: Path, command: Command) -> None:
    """The batch in flight dies with store and matcher: whoever had been told of it would have been lied to."""
    with RunningExchange(data, settings=IMPATIENT) as running:
        market = Market(Exchange(running))
        with market:
            for _ in range(2):
                market.wait_for(BEFORE)
                hang_store(running)
                old = {name: running.kill(name) for name in ("store", "matcher-0")}
                for name, pid in old.items():
                    running.wait_until_replaced(name, pid)
                market.wait_for(AFTER)
        market.judge()
        assert market.resent > 0
    verified(command, data)


def test_recovery_from_snapshot_and_log(data: Path, command: Command) -> None:
    with RunningExchange(data, settings=OFTEN) as running:
        market = Market(Exchange(running))
        with market:
            for _ in range(2):
                kept = len(logged(running.paths, "settlement", "snapshot"))
                market.wait_for(BEFORE)
                wait_until(lambda: len(logged(running.paths, "settlement", "snapshot")) > kept)  # noqa: B023
                running.kill("settlement", signal.SIGSTOP)  # no snapshot of what comes now
                market.wait_for(AFTER)
                for process in ("matcher-0", "settlement"):
                    old_pid = running.kill(process)
                    running.wait_until_replaced(process, old_pid)
                market.wait_for(AFTER)
        market.judge()
        for line in logged(running.paths, "matcher-0", "recovered")[1:]:
            assert 0 < line["replayed"] < line["next_record_no"] - 1
    verified(command, data)


def test_corrupt_newest_snapshot_is_passed_over(data: Path, command: Command) -> None:
    with RunningExchange(data, settings=OFTEN) as running, ExitStack() as restarted:
        market = Market(Exchange(running))
        with market:
            wait_until(lambda: len(snapshot_numbers(running.paths, 0)) >= 2)
            running.crash()
            older, newest = snapshot_numbers(running.paths, 0)[-2:]
            file = running.paths.snapshots(0) / f"{newest:020d}.snap"
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
            # Without new snapshots: settlement could replace the corrupt one before the matcher looks.
            restarted.enter_context(RunningExchange(data, port_base=running.port_base))
            market.wait_for(AFTER)
        market.judge()
        for process in ("matcher-0", "settlement"):
            assert logged(running.paths, process, "snapshot ignored")
        recovered = logged(running.paths, "matcher-0", "recovered")[-1]
        assert recovered["next_record_no"] - recovered["replayed"] == older
    verified(command, data)
