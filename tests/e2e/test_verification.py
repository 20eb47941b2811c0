"""What an auditor and an operator see around checkpoints: an archive that is not whole, a key that is gone, a
store that is not the configured one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Command, Exchange, as_json
from zexchange.cli import exits
from zexchange.config import Config
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.running import NotRunning, RunningExchange
from zexchange.runtime.store import server_binary, server_command
from zexchange.settlement.store_record import recorded_store

pytestmark = pytest.mark.timeout(300)

ARCHIVING = {
    "settlement.checkpoint_interval_ms": "100",
    "settlement.segment_every_records": "2",
    "settlement.snapshot_every_records": "2",
}


def refusal(data: Path, settings: dict[str, str]) -> str:
    """What `up` says when it does not start."""
    running = RunningExchange(data, settings=settings)
    with pytest.raises(NotRunning) as raised:
        running.start()
    return str(raised.value)


def test_nothing_is_signed_without_the_archive_or_the_key(data: Path, command: Command) -> None:
    paths = DataPaths(data)
    with RunningExchange(data, settings=ARCHIVING) as running:
        exchange = Exchange(running)
        exchange.account("alice", USD="1", BTC="1", ETH="1")
    with RunningExchange(data, settings=ARCHIVING):
        pass  # signs over what the first one archived when it stopped
    assert recorded_store(paths) == "embedded"

    elsewhere = data / "elsewhere"
    signed = paths.checkpoints_log.stat().st_size
    paths.archive(0).rename(elsewhere)
    said = refusal(data, ARCHIVING)
    assert "the segment of shard 0 that begins with record 1 is missing; restore archive/" in said
    elsewhere.rename(paths.archive(0))

    key = paths.settlement_key.read_bytes()
    paths.settlement_key.unlink()
    said = refusal(data, ARCHIVING)
    assert "restore it from the backup: a new key would not be the one" in said
    assert "Traceback" not in said
    paths.settlement_key.write_bytes(key)
    paths.settlement_key.chmod(0o644)
    assert "chmod 600" in refusal(data, ARCHIVING)
    paths.settlement_key.chmod(0o600)
    assert paths.checkpoints_log.stat().st_size == signed

    with RunningExchange(data, settings=ARCHIVING):
        pass
    code, out, err = command("verify", "--data", data, "--json")
    assert code == exits.OK, err
    assert as_json(out)["covered_records"] >= 4


def test_the_log_is_looked_for_where_it_is(data: Path, command: Command, tmp_path: Path) -> None:
    elsewhere = DataPaths(tmp_path / "external")
    elsewhere.create()
    server = subprocess.Popen(
        server_command(elsewhere, Config(), server_binary()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"unix://{elsewhere.store_socket}"
    try:
        with RunningExchange(data, settings={"store.url": url}):
            code, out, err = command("verify", "--data", data, "--json")
            assert (code, as_json(out)["records"]) == (exits.OK, 1), err
        code, out, err = command("verify", "--data", data)
        assert code == exits.FAILURE, "not a mismatch"
        assert f"the exchange ran on {url}; name that store with --store-url" in err
        code, out, err = command("verify", "--data", data, "--store-url", url, "--json")
        assert (code, as_json(out)["covered_records"]) == (exits.OK, 1), err
    finally:
        server.terminate()
        server.wait()
