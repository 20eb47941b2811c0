"""`zexchange verify` on a real store: stopped, running, and with a batch gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.log_builder import LogBuilder, built_log, signed_genesis
from tests.settling import Settling
from zexchange.cli import exits, main
from zexchange.config import Config
from zexchange.exchange_info import SUPERVISOR_LOCK, take_lock
from zexchange.journal import log_key
from zexchange.paths import DataPaths
from zexchange.store import EmbeddedStore, open_store

CONFIG = Config()


@contextmanager
def embedded(paths: DataPaths) -> Iterator[redis.Redis]:
    """The store of a folder, for a while."""
    store, client = EmbeddedStore(paths, CONFIG), open_store(paths, CONFIG)
    store.start()
    try:
        store.wait_ready()
        yield client
    finally:
        client.close()
        store.stop()


@pytest.fixture
def deployment(paths: DataPaths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LogBuilder:
    """A folder with 16 records in its store's file, some of them archived, and their checkpoints."""
    monkeypatch.chdir(tmp_path)  # no configuration file from the working directory
    genesis = signed_genesis()
    paths.genesis.write_bytes(genesis.raw)
    with embedded(paths) as client:
        builder = built_log(genesis, client)  # type: ignore[arg-type]
        settling = Settling(paths, genesis, client)  # type: ignore[arg-type]
        settling.start()
        settling.second()
        settling.stop()
    return builder


def verified(paths: DataPaths, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    """Exit code and standard output."""
    code = main.run(["verify", "--data", str(paths.root), "--reference", *flags])
    return code, capsys.readouterr().out


def test_a_stopped_exchange(
    deployment: LogBuilder, paths: DataPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = verified(paths, capsys, "--json")
    result = json.loads(out)
    assert (code, result["ok"], result["engine"]) == (exits.OK, True, "reference")
    assert (result["records"], result["checkpoints"], result["records_signed"]) == (16, 2, 16)
    assert result["shards"][0]["state_root"] == deployment.engine.state_root().hex()
    code, out = verified(paths, capsys)
    assert code == exits.OK
    assert "everything agrees" in out


def test_a_running_exchange(
    deployment: LogBuilder, paths: DataPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = take_lock(paths.lock(SUPERVISOR_LOCK))
    assert lock is not None
    with embedded(paths):
        assert verified(paths, capsys)[0] == exits.OK
    code, _ = verified(paths, capsys)
    assert code == exits.CANNOT_CONNECT, "somebody holds the lock, but there is no store"


def test_a_dropped_batch(
    deployment: LogBuilder, paths: DataPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    with embedded(paths) as client:
        assert client.xdel(log_key(0), str(deployment.ids[-2])) == 1
    code, out = verified(paths, capsys, "--json")
    result = json.loads(out)
    assert (code, result["ok"]) == (exits.MISMATCH, False)
    assert result["mismatch"]["record_no"] == deployment.ids[-2].record_no
    assert main.run(["verify", "--data", str(paths.root), "--reference"]) == exits.MISMATCH
    assert f"record {deployment.ids[-2].record_no}" in capsys.readouterr().err


def test_an_empty_folder(paths: DataPaths, capsys: pytest.CaptureFixture[str]) -> None:
    assert verified(paths, capsys)[0] == exits.FAILURE
