"""Compaction of the store's file: when it is worth it, and that nothing acknowledged is lost by it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
import redis.exceptions

from tests.fakes import FakeStore
from zexchange.config import Config
from zexchange.log.journal import log_key
from zexchange.log.stream import IdRefused, StoreRefused, command
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.store import EmbeddedStore, open_store
from zexchange.settlement import compaction
from zexchange.settlement.compaction import compact, worth_rewriting

LOG = logging.getLogger("test")
LARGE = compaction.REWRITE_FLOOR_BYTES
ENTRIES, KEPT = 400, 10


@pytest.fixture
def store(paths: DataPaths) -> Iterator[EmbeddedStore]:
    embedded = EmbeddedStore(paths, Config())
    embedded.start()
    try:
        embedded.wait_ready()
        yield embedded
    finally:
        embedded.stop()


@pytest.mark.parametrize(
    ("info", "worth"),
    [
        ({"aof_current_size": LARGE, "used_memory": LARGE // 3}, True),
        ({"aof_current_size": LARGE - 1, "used_memory": 1}, False),
        ({"aof_current_size": 3 * LARGE, "used_memory": 2 * LARGE}, False),
        ({"aof_current_size": LARGE, "used_memory": 1, "aof_rewrite_in_progress": 1}, False),
        ({"aof_current_size": LARGE, "used_memory": 1, "aof_rewrite_scheduled": 1}, False),
        ({}, False),
    ],
)
def test_only_a_large_file_of_little_is_rewritten(info: dict[str, int], worth: bool) -> None:
    fake = FakeStore()
    fake.info = info
    assert worth_rewriting(info) is worth
    assert compact(fake, LOG) is worth
    assert (("BGREWRITEAOF",) in fake.commands) is worth


def test_a_store_that_does_not_let_us_says_so() -> None:
    class Managed(FakeStore):
        def _bgrewriteaof(self) -> bytes:
            raise redis.exceptions.ResponseError("NOPERM")

    managed = Managed()
    managed.info = {"aof_current_size": LARGE}
    with pytest.raises(StoreRefused, match="NOPERM"):
        compact(managed, LOG)


def filled(client: redis.Redis) -> list[object]:
    """A log of 8 MB of which 200 kB are left; returns what is left."""
    for number in range(1, ENTRIES + 1):
        command(client, "XADD", log_key(0), f"1-{number}", "b", bytes([number % 256]) * 20_000)
    command(client, "XTRIM", log_key(0), "MINID", f"1-{ENTRIES - KEPT + 1}")
    left: list[object] = command(client, "XRANGE", log_key(0), "-", "+")
    assert len(left) == KEPT
    return left


@pytest.mark.parametrize("killed_meanwhile", [False, True])
def test_what_was_acknowledged_survives_a_rewrite(
    paths: DataPaths, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, killed_meanwhile: bool
) -> None:
    monkeypatch.setattr(compaction, "REWRITE_FLOOR_BYTES", 1)
    pause = threading.Event()
    with open_store(paths, Config()) as client:
        left = filled(client)
        assert compact(client, LOG)
        # Appends go on while it runs.
        command(client, "XADD", log_key(0), f"1-{ENTRIES + 1}", "b", b"meanwhile")
        left.append((f"1-{ENTRIES + 1}".encode(), {b"b": b"meanwhile"}))
        while not killed_meanwhile and command(client, "INFO")["aof_rewrite_in_progress"]:
            pause.wait(0.01)
        size = command(client, "INFO")["aof_current_size"]
        assert killed_meanwhile or size < 1_000_000
    assert store._process is not None
    store._process.kill()
    store._process.wait()
    while not store.is_free():  # the child that was writing may live a little longer
        pause.wait(0.01)
    store.start()
    store.wait_ready()
    with open_store(paths, Config()) as client:
        assert command(client, "XRANGE", log_key(0), "-", "+") == left
        with pytest.raises(IdRefused):
            command(client, "XADD", log_key(0), f"1-{ENTRIES + 1}", "b", b"again")
