"""A log that was altered after it was signed: `zexchange verify` ends with 5 and names the record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import MARKET, Command, Exchange, as_json
from zexchange.cli import exits
from zexchange.config import Config
from zexchange.log import journal
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.running import RunningExchange
from zexchange.runtime.store import EmbeddedStore, open_store

pytestmark = pytest.mark.timeout(300)

Entries = list[tuple[bytes, dict[bytes, bytes]]]
"""The stream as redis-py gives it: (ID, fields), markers included."""


def batches(entries: Entries) -> list[int]:
    """Where in the stream the batches are."""
    return [index for index, (_, fields) in enumerate(entries) if b"b" in fields]


def record_of(entries: Entries, index: int) -> int:
    return journal.decode_batch(entries[index][1][b"b"]).first_record_no


def flip_a_byte_in_a_frame(entries: Entries) -> int:
    index = batches(entries)[-3]
    raw = bytearray(entries[index][1][b"b"])
    raw[journal.BATCH_HEADER_BYTES + 60] ^= 1
    record_no = record_of(entries, index)
    entries[index] = (entries[index][0], {b"b": bytes(raw)})
    return record_no


def drop_a_batch(entries: Entries) -> int:
    index = batches(entries)[-3]
    record_no = record_of(entries, index)
    del entries[index]
    return record_no


def swap_two_batches(entries: Entries) -> int:
    first, second = batches(entries)[-4:-2]
    record_no = record_of(entries, first)
    one, other = entries[first], entries[second]
    entries[first], entries[second] = (one[0], other[1]), (other[0], one[1])
    return record_no


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exchange that traded and was stopped."""
    data = tmp_path_factory.mktemp("tampering") / "data"
    with RunningExchange(data) as running:
        exchange = Exchange(running)
        exchange.account("alice", USD="1000000")
        exchange.account("bob", BTC="10")
        with exchange.client("alice") as alice, exchange.client("bob") as bob:
            for step in range(4):
                alice.buy(MARKET, "0.1", 60_000 + step)
                bob.sell(MARKET, "0.1", 60_000)
    return data


@pytest.mark.parametrize("flags", [(), ("--reference",)], ids=["c", "reference"])
@pytest.mark.parametrize("tamper", [flip_a_byte_in_a_frame, drop_a_batch, swap_two_batches])
def test_the_record_is_named(
    honest: Path, command: Command, tamper: Callable[[Entries], int], flags: tuple[str, ...]
) -> None:
    paths, config = DataPaths(honest), Config()
    assert command("verify", "--data", honest, *flags)[0] == exits.OK
    untouched = {path: path.read_bytes() for path in paths.store.rglob("*") if path.is_file()}
    key = journal.log_key(0)
    store = EmbeddedStore(paths, config)
    store.start()
    try:
        store.wait_ready()
        client = open_store(paths, config)
        entries: Entries = client.xrange(key)
        record_no = tamper(entries)
        client.delete(key)
        for entry_id, fields in entries:
            client.xadd(key, fields, id=entry_id)
        client.close()
    finally:
        store.stop()
    try:
        code, out, _ = command("verify", "--data", honest, "--json", *flags)
        assert (code, as_json(out)["mismatch"]["record_no"]) == (exits.MISMATCH, record_no)
        code, _, err = command("verify", "--data", honest, *flags)
        assert code == exits.MISMATCH
        assert f"record {record_no}" in err
    finally:
        for path, content in untouched.items():
            path.write_bytes(content)
    assert command("verify", "--data", honest, *flags)[0] == exits.OK
