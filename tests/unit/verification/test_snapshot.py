"""Snapshot files: the same state comes back, or the file is ignored."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from tests.log_builder import SETTLEMENT, LogBuilder, StreamsStore, built_log, signed_genesis
from zexchange.genesis import Genesis
from zexchange.log.history import StreamCursor
from zexchange.reference import ReferenceEngine
from zexchange.runtime.paths import DataPaths
from zexchange.verification.checkpoint import CheckpointJournal, SigningRefused
from zexchange.verification.replica import Replica
from zexchange.verification.snapshot import (
    SnapshotFileInvalid,
    capture,
    known_floor,
    newest_valid,
    read_snapshot,
    replica_from,
    snapshot_numbers,
    write_snapshot,
)
from zexchange.verification.verifier import verify_signatures_plainly


@pytest.fixture(scope="module")
def genesis() -> Genesis:
    return signed_genesis()


@pytest.fixture
def builder(genesis: Genesis) -> LogBuilder:
    return built_log(genesis, StreamsStore())


@pytest.fixture
def replica(genesis: Genesis, builder: LogBuilder) -> Replica:
    replica = Replica.at_genesis(genesis, 0, ReferenceEngine, verify_signatures_plainly)
    replica.apply(StreamCursor(builder.store, 0).read(100))
    return replica


@pytest.fixture
def written(paths: DataPaths, replica: Replica) -> Path:
    return write_snapshot(paths, *capture(replica))


def test_a_replica_goes_on_from_a_snapshot(
    paths: DataPaths, genesis: Genesis, builder: LogBuilder, replica: Replica, written: Path
) -> None:
    found = newest_valid(paths, genesis, 0, ReferenceEngine)
    assert found is not None
    engine, header = found
    resumed = replica_from(genesis, engine, header, verify_signatures_plainly)
    assert resumed.position == replica.position
    assert resumed.tip() == replica.tip()
    builder.open_epoch()
    builder.trade(2)
    cursor = StreamCursor(builder.store, 0, builder.ids[-4])
    batches = cursor.read(100)
    resumed.apply(batches)
    replica.apply(batches)
    assert resumed.tip() == replica.tip()
    assert resumed.position == replica.position


def test_an_engine_without_a_state_tree(paths: DataPaths, genesis: Genesis, written: Path) -> None:
    found = newest_valid(paths, genesis, 0, ReferenceEngine, track_state=False)
    assert found is not None
    with pytest.raises(RuntimeError):
        found[0].state_root()


def test_no_byte_of_a_snapshot_may_change(
    paths: DataPaths, genesis: Genesis, written: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = written.read_bytes()
    for position in range(0, len(whole), 11):
        changed = bytearray(whole)
        changed[position] ^= 0x20
        written.write_bytes(changed)
        with pytest.raises(SnapshotFileInvalid):
            read_snapshot(written)
    with caplog.at_level(logging.WARNING, "zexchange.verification.snapshot"):
        assert newest_valid(paths, genesis, 0, ReferenceEngine) is None
    assert "snapshot ignored" in caplog.text
    assert written.read_bytes() == bytes(changed), "a damaged file is never repaired"


def test_no_part_of_a_snapshot_is_a_snapshot(written: Path) -> None:
    whole = written.read_bytes()
    for length in [*range(200), len(whole) - 33, len(whole) - 1]:
        written.write_bytes(whole[:length])
        with pytest.raises(SnapshotFileInvalid):
            read_snapshot(written)
    written.write_bytes(whole + b"\x00")
    with pytest.raises(SnapshotFileInvalid):
        read_snapshot(written)


def test_the_newest_valid_one_is_taken(
    paths: DataPaths, genesis: Genesis, builder: LogBuilder, replica: Replica, written: Path
) -> None:
    builder.trade()
    replica.apply(StreamCursor(builder.store, 0, builder.ids[-2]).read(100))
    newer = write_snapshot(paths, *capture(replica))
    older_number, newer_number = snapshot_numbers(paths, 0)
    assert (older_number, newer_number) == (int(written.stem), int(newer.stem))

    def found(**options: int) -> int | None:
        valid = newest_valid(paths, genesis, 0, ReferenceEngine, **options)  # type: ignore[arg-type]
        return None if valid is None else valid[1].next_record_no

    assert found() == newer_number
    assert found(at_most=newer_number - 1) == older_number
    assert found(at_most=1) is None
    one, two = written.read_bytes(), newer.read_bytes()
    newer.write_bytes(one)
    written.write_bytes(two)
    assert found() is None, "swapped files"
    written.write_bytes(one)
    assert found() == older_number


def test_a_snapshot_of_another_state_with_a_right_hash(
    paths: DataPaths, genesis: Genesis, replica: Replica
) -> None:
    """The state root is recomputed, not believed."""
    header, engine_snapshot = capture(replica)
    for changes in (
        {"state_root": bytes(32)},
        {"next_seq": 1},
        {"shard": 1},
    ):
        wrong = msgspec.structs.replace(header, **changes)
        write_snapshot(paths, wrong, engine_snapshot)
        assert newest_valid(paths, genesis, 0, ReferenceEngine) is None
        (paths.snapshots(wrong.shard) / f"{header.next_record_no:020d}.snap").unlink()


def test_a_snapshot_of_another_deployment(paths: DataPaths, written: Path) -> None:
    assert newest_valid(paths, signed_genesis(shards=2), 0, ReferenceEngine) is None


def test_known_floor(paths: DataPaths, genesis: Genesis, replica: Replica) -> None:
    assert known_floor(paths, 0) == 0
    path = write_snapshot(paths, *capture(replica))
    last_record_no = replica.position.next_record_no - 1
    assert known_floor(paths, 0) == last_record_no
    path.write_bytes(b"damaged")
    assert known_floor(paths, 0) == last_record_no, "a name is enough"
    path.unlink()
    with CheckpointJournal(paths.settlement, genesis.name, 1, SETTLEMENT) as journal:
        journal.sign(journal.next_leaf(1, (replica.tip(),)))
    assert known_floor(paths, 0) == last_record_no
    folder = paths.archive(0)
    folder.mkdir(parents=True)
    (folder / f"{1:020d}-{999:020d}.seg").write_bytes(b"")
    assert known_floor(paths, 0) == 999
    paths.last_signed.write_bytes(b"{")
    with pytest.raises(SigningRefused):
        known_floor(paths, 0)
