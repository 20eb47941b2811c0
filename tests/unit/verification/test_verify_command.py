"""`zexchange verify` on a real store: stopped, running, and with a batch gone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.log_builder import LogBuilder, built_log, signed_genesis
from tests.settling import Settling
from zexchange.cli import exits, main
from zexchange.config import Config
from zexchange.log.journal import log_key
from zexchange.runtime.aof_repair import newest_incremental_file
from zexchange.runtime.exchange_info import SUPERVISOR_LOCK, Endpoint, ExchangeInfo, take_lock, write_exchange
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.store import EmbeddedStore, open_store
from zexchange.settlement.store_record import record_store, recorded_store

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
    assert (result["records"], result["checkpoints"], result["covered_records"]) == (16, 2, 16)
    assert (result["uncovered_records"], result["warnings"]) == (0, [])
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


def running(paths: DataPaths, store_url: str) -> ExchangeInfo:
    """What run/exchange.json says of an exchange on that store."""
    return ExchangeInfo(
        pid=1,
        version="1",
        started_at="",
        data=str(paths.root),
        name="demo",
        deployment_id="",
        shards=1,
        tcp=Endpoint("127.0.0.1", 9000),
        store_url=store_url,
        durability="always",
        pinning="",
        colocated=False,
        processes={},
    )


def test_the_store_of_the_running_exchange_is_used(
    deployment: LogBuilder, paths: DataPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here it is that of the folder under another name: what counts is that the name is taken."""
    elsewhere = tmp_path / "external.sock"
    with embedded(paths):
        elsewhere.symlink_to(paths.store_socket)
        assert verified(paths, capsys, "--store-url", f"unix://{elsewhere}")[0] == exits.OK
        lock = take_lock(paths.lock(SUPERVISOR_LOCK))
        assert lock is not None
        for url in (f"unix://{elsewhere}", f"unix://{paths.store_socket}"):
            write_exchange(paths, running(paths, url))
            assert verified(paths, capsys)[0] == exits.OK
        write_exchange(paths, running(paths, f"unix://{tmp_path}/nobody.sock"))
        assert verified(paths, capsys)[0] == exits.CANNOT_CONNECT
        os.close(lock)


def test_a_stopped_exchange_with_its_log_elsewhere(
    deployment: LogBuilder, paths: DataPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    record_store(paths, "redis://auditor:secret@example.org:6379/3?password=secret")
    assert recorded_store(paths) == "redis://example.org:6379/3"
    assert main.run(["verify", "--data", str(paths.root)]) == exits.FAILURE
    said = capsys.readouterr().err
    assert "redis://example.org:6379/3" in said
    assert "--store-url" in said
    assert verified(paths, capsys, "--store-url", "")[0] == exits.OK, "the user knows better"
    record_store(paths, "")
    assert verified(paths, capsys)[0] == exits.OK


def test_an_empty_store_is_not_taken_for_the_log(
    deployment: LogBuilder, paths: DataPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(paths.store)
    assert main.run(["verify", "--data", str(paths.root)]) == exits.FAILURE
    assert "--store-url" in capsys.readouterr().err
    assert list(paths.store.iterdir()) == [], "no store was started on it"


def test_a_torn_file_is_left_as_it_is(
    deployment: LogBuilder, paths: DataPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    file = newest_incremental_file(paths.store)
    whole = file.read_bytes()
    file.write_bytes(whole + b"*3\r\n$4\r\nXADD\r\n$5\r\nhal")
    torn = file.read_bytes()
    assert main.run(["verify", "--data", str(paths.root)]) == exits.FAILURE
    assert "start the exchange once" in capsys.readouterr().err
    assert file.read_bytes() == torn
    assert not (paths.store / "torn").exists()
    file.write_bytes(b"rubbish" + whole)
    assert main.run(["verify", "--data", str(paths.root)]) == exits.CANNOT_CONNECT
    assert file.read_bytes() == b"rubbish" + whole


def test_without_checkpoints_it_warns(
    paths: DataPaths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    genesis = signed_genesis()
    paths.genesis.write_bytes(genesis.raw)
    with embedded(paths) as client:
        built_log(genesis, client)  # type: ignore[arg-type]
    assert main.run(["verify", "--data", str(paths.root), "--reference", "--json"]) == exits.OK
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["checkpoints"], result["covered_records"], result["uncovered_records"]) == (0, 0, 16)
    assert result["newest_checkpoint"] is None
    assert len(result["warnings"]) == 1
    assert f"warning: {result['warnings'][0]}" in err
    assert "everything agrees" not in verified(paths, capsys)[1]


def test_kept_checkpoints(
    deployment: LogBuilder, paths: DataPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, other = tmp_path / "kept.note", tmp_path / "other.note"
    note = json.loads(verified(paths, capsys, "--json")[1])["newest_checkpoint"]
    kept.write_text(note, encoding="utf-8")
    assert verified(paths, capsys, "--checkpoint", str(kept))[0] == exits.OK
    other.write_text(note.replace("\n2\n", "\n3\n"), encoding="utf-8")
    flags = ["--checkpoint", str(kept), "--checkpoint", str(other)]
    code, out = verified(paths, capsys, *flags, "--json")
    assert code == exits.MISMATCH, "another text than was signed"
    assert json.loads(out)["mismatch"]["what"] == f"signature of {other}"
    other.write_text("just a file", encoding="utf-8")
    assert verified(paths, capsys, *flags)[0] == exits.FAILURE
    other.unlink()
    assert verified(paths, capsys, *flags)[0] == exits.USAGE


def test_a_log_that_was_put_back_below_a_kept_checkpoint(
    deployment: LogBuilder, paths: DataPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier, kept = tmp_path / "earlier", tmp_path / "kept.note"
    shutil.copytree(paths.root, earlier, symlinks=True)
    with embedded(paths) as client:
        settling = Settling(paths, signed_genesis(), client)  # type: ignore[arg-type]
        settling.start()
        settling.second()
        settling.stop()
    note = json.loads(verified(paths, capsys, "--json")[1])["newest_checkpoint"]
    kept.write_text(note, encoding="utf-8")
    assert verified(DataPaths(earlier), capsys)[0] == exits.OK, "it is consistent in itself"
    code, out = verified(DataPaths(earlier), capsys, "--checkpoint", str(kept), "--json")
    assert code == exits.MISMATCH
    assert str(kept) in json.loads(out)["mismatch"]["expected"]


def test_a_genesis_file_that_was_edited(
    deployment: LogBuilder, paths: DataPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.genesis.write_bytes(paths.genesis.read_bytes() + b"# a remark\n")
    code, out = verified(paths, capsys, "--json")
    found = json.loads(out)["mismatch"]
    assert (code, found["shard"], found["record_no"]) == (exits.MISMATCH, 0, 1)
    assert found["found"] == signed_genesis().deployment_id.hex()
    assert "genesis.toml" in found["hint"]
