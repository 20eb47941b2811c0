"""Segments, the history over archive and log, and trimming: nothing is lost and nothing altered goes
unnoticed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.log_builder import LogBuilder, StreamsStore, built_log, signed_genesis
from zexchange.genesis import Genesis
from zexchange.log.archive import (
    SegmentInvalid,
    SegmentRef,
    archive_digest,
    check_segment,
    read_segment,
    segment_hash,
    segments,
    trim_log,
    write_segment,
)
from zexchange.log.history import LogHistory, StreamCursor
from zexchange.log.journal import log_key
from zexchange.runtime.paths import DataPaths
from zexchange.verification.checkpoint import ZERO_HASH
from zexchange.verification.replica import Mismatch, StoredBatch


@pytest.fixture(scope="module")
def genesis() -> Genesis:
    return signed_genesis()


@pytest.fixture
def builder(genesis: Genesis) -> LogBuilder:
    """Eight batches: records 1, 2 to 4, 5 to 7 and so on."""
    return built_log(genesis, StreamsStore(), batches=6)


@pytest.fixture
def batches(builder: LogBuilder) -> list[StoredBatch]:
    return StreamCursor(builder.store, 0).read(100)


@pytest.fixture
def segment(paths: DataPaths, batches: list[StoredBatch]) -> SegmentRef:
    """Records 1 to 13."""
    return write_segment(paths, 0, batches[:5])


def everything(history: LogHistory, next_record_no: int = 1, epoch: int = 0) -> list[StoredBatch]:
    return [batch for chunk in history.chunks(next_record_no, epoch, count=2) for batch in chunk]


def test_a_segment_reads_back(paths: DataPaths, batches: list[StoredBatch], segment: SegmentRef) -> None:
    assert segment.path.name == f"{1:020d}-{13:020d}.seg"
    assert segments(paths, 0) == [segment]
    assert list(read_segment(segment)) == batches[:5]
    end = check_segment(segment)
    assert (end.last_record_no, end.epoch) == (13, 1)
    assert end.segment_hash == segment_hash(segment) == segment.path.read_bytes()[-32:]


def test_no_byte_of_a_segment_may_change(segment: SegmentRef) -> None:
    whole = segment.path.read_bytes()
    for position in range(0, len(whole), 13):
        changed = bytearray(whole)
        changed[position] ^= 0x08
        segment.path.write_bytes(changed)
        with pytest.raises(SegmentInvalid):
            check_segment(segment)


def test_no_part_of_a_segment_is_a_segment(segment: SegmentRef) -> None:
    whole = segment.path.read_bytes()
    for length in [*range(0, len(whole), 17), len(whole) - 1]:
        segment.path.write_bytes(whole[:length])
        with pytest.raises(SegmentInvalid):
            check_segment(segment)
    segment.path.write_bytes(whole + b"\x00" * 40)
    with pytest.raises(SegmentInvalid):
        check_segment(segment)


def test_only_consecutive_batches_make_a_segment(paths: DataPaths, batches: list[StoredBatch]) -> None:
    for wrong in ([batches[0], batches[2]], [batches[1], batches[0]]):
        with pytest.raises(SegmentInvalid):
            write_segment(paths, 0, wrong)


def test_a_segment_under_another_name(segment: SegmentRef) -> None:
    other = segment.path.with_name(f"{2:020d}-{13:020d}.seg")
    segment.path.rename(other)
    with pytest.raises(SegmentInvalid):
        check_segment(SegmentRef(2, 13, other, 0))
    with pytest.raises(SegmentInvalid):
        check_segment(SegmentRef(1, 13, other, 1))


def test_archive_digest() -> None:
    assert archive_digest([]) == ZERO_HASH
    one = archive_digest([(0, 13, b"h" * 32)])
    assert one != archive_digest([(0, 14, b"h" * 32)]) != archive_digest([(1, 13, b"h" * 32)])


def test_history_is_the_stream_where_nothing_was_trimmed(
    paths: DataPaths, builder: LogBuilder, batches: list[StoredBatch], segment: SegmentRef
) -> None:
    for compare in (False, True):
        history = LogHistory(paths, builder.store, 0, compare_copies=compare)
        assert everything(history) == batches
        assert everything(history, 5, 1) == batches[2:]
        assert [
            one for chunk in history.chunks(1, 0, until=batches[3].id, count=3) for one in chunk
        ] == batches[:4]


@pytest.mark.parametrize("kept", range(6))
def test_history_joins_archive_and_stream(
    paths: DataPaths, builder: LogBuilder, batches: list[StoredBatch], segment: SegmentRef, kept: int
) -> None:
    builder.open_epoch()
    builder.trade(2)
    expected = StreamCursor(builder.store, 0).read(100)
    trim_log(builder.store, 0, batches[kept].id)
    history = LogHistory(paths, builder.store, 0, compare_copies=True)
    assert everything(history) == expected


def test_history_while_the_log_is_trimmed(
    paths: DataPaths, builder: LogBuilder, batches: list[StoredBatch], segment: SegmentRef
) -> None:
    """What disappears from the stream under the reader is found in the archive."""
    found: list[StoredBatch] = []
    for chunk in LogHistory(paths, builder.store, 0, compare_copies=True).chunks(1, 0, count=1):
        found += chunk
        if len(found) == 2:
            trim_log(builder.store, 0, batches[4].id)
    assert found == batches


def test_history_of_an_empty_log(paths: DataPaths) -> None:
    assert everything(LogHistory(paths, StreamsStore(), 0)) == []


def test_history_with_a_hole(paths: DataPaths, builder: LogBuilder, batches: list[StoredBatch]) -> None:
    write_segment(paths, 0, batches[:3])
    trim_log(builder.store, 0, batches[5].id)
    with pytest.raises(Mismatch) as caught:
        everything(LogHistory(paths, builder.store, 0))
    assert caught.value.record_no == batches[3].id.record_no


def test_copies_that_differ(
    paths: DataPaths, builder: LogBuilder, batches: list[StoredBatch], segment: SegmentRef
) -> None:
    raw = bytearray(batches[3].raw)
    raw[100] ^= 1
    builder.store.set_raw(0, batches[3].id, bytes(raw))
    assert everything(LogHistory(paths, builder.store, 0))[3].raw == bytes(raw)
    with pytest.raises(Mismatch) as caught:
        everything(LogHistory(paths, builder.store, 0, compare_copies=True))
    assert caught.value.record_no == batches[3].id.record_no


def test_a_log_that_lost_what_the_archive_has(
    paths: DataPaths, builder: LogBuilder, batches: list[StoredBatch], segment: SegmentRef
) -> None:
    for batch in batches[3:]:
        builder.store.drop(0, batch.id)
    with pytest.raises(Mismatch) as caught:
        everything(LogHistory(paths, builder.store, 0, compare_copies=True))
    assert caught.value.record_no == batches[3].id.record_no


def test_a_damaged_segment_is_named(
    paths: DataPaths, builder: LogBuilder, batches: list[StoredBatch], segment: SegmentRef
) -> None:
    trim_log(builder.store, 0, batches[4].id)
    whole = segment.path.read_bytes()
    segment.path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Mismatch, match=segment.path.name) as caught:
        everything(LogHistory(paths, builder.store, 0, compare_copies=True))
    assert caught.value.record_no == 1


def test_the_tip_skips_markers(builder: LogBuilder, batches: list[StoredBatch]) -> None:
    for epoch in range(2, 9):
        builder.store.execute_command("XADD", log_key(0), f"{epoch}-0", "m", str(epoch))
    cursor = StreamCursor(builder.store, 0)
    assert cursor.tip() == batches[-1]
    assert cursor.first() == batches[0]
    assert StreamCursor(StreamsStore(), 0).tip() is None


def test_no_unfinished_segment_is_seen(paths: DataPaths, segment: SegmentRef) -> None:
    Path(f"{segment.path}.tmp").write_bytes(b"half")
    assert segments(paths, 0) == [segment]
