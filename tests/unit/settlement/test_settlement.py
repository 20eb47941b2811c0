"""Settlement: what it signs, what it leaves behind, and when it stops for good."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import pytest
from nacl.signing import SigningKey

from tests.log_builder import LogBuilder, StreamsStore, built_log, signed_genesis
from tests.settling import SETTINGS, Settling
from zexchange.genesis import Genesis
from zexchange.log import journal
from zexchange.log.archive import (
    SegmentRef,
    archive_digest,
    read_segment,
    segment_hash,
    segments,
    write_segment,
)
from zexchange.log.journal import log_key
from zexchange.reference import ReferenceEngine
from zexchange.runtime.paths import DataPaths
from zexchange.settlement import process as settlement
from zexchange.settlement.process import LogRegressed, Settlement
from zexchange.settlement.publication import CHECKPOINTS_KEY
from zexchange.verification.checkpoint import (
    CheckpointInvalid,
    CheckpointLeaf,
    CheckpointReader,
    LastSigned,
    SignedCheckpoint,
    SigningRefused,
    encode_entry,
)
from zexchange.verification.merkle import CompactRange, leaf_hash
from zexchange.verification.replica import Mismatch
from zexchange.verification.snapshot import capture, snapshot_numbers, write_snapshot


@pytest.fixture(scope="module")
def genesis() -> Genesis:
    return signed_genesis()


@pytest.fixture
def store() -> StreamsStore:
    return StreamsStore()


@pytest.fixture
def builder(genesis: Genesis, store: StreamsStore) -> LogBuilder:
    """Records 1 to 16."""
    return built_log(genesis, store)


@pytest.fixture
def settling(paths: DataPaths, genesis: Genesis, store: StreamsStore) -> Iterator[Settling]:
    settling = Settling(paths, genesis, store)
    yield settling
    settling.kill()


def signed_leaves(settling: Settling) -> list[CheckpointLeaf]:
    reader = CheckpointReader(
        io.BytesIO(settling.paths.checkpoints_log.read_bytes()), settling.genesis.shards
    )
    return [CheckpointLeaf.decode(one.leaf, n) for n, one in enumerate(reader)]


def signed_digest(settling: Settling) -> bytes:
    return signed_leaves(settling)[-1].archive_digest


def digest_of(ref: SegmentRef) -> bytes:
    """Archive digest of an archive of one shard with this newest segment."""
    return archive_digest([(0, ref.last_record_no, segment_hash(ref))])


def sizes(settling: Settling) -> list[int]:
    return [leaf.shards[0].log_size for leaf in signed_leaves(settling)]


def in_file(settling: Settling) -> list[SignedCheckpoint]:
    file = io.BytesIO(settling.paths.checkpoints_log.read_bytes())
    return list(CheckpointReader(file, settling.genesis.shards))


def in_store(store: StreamsStore) -> list[SignedCheckpoint]:
    return [
        SignedCheckpoint(fields[b"leaf"], fields[b"note"]) for _, fields in store.entries(CHECKPOINTS_KEY)
    ]


def test_a_checkpoint_every_second_also_of_an_idle_log(settling: Settling, store: StreamsStore) -> None:
    settling.start()
    assert settling.now.tick() == 1, "the first is signed at once"
    assert settling.now.tick() == 0
    for _ in range(3):
        assert settling.second() == 1
    assert sizes(settling) == [1, 1, 1, 1], "record 0 is the genesis record"
    assert in_store(store) == in_file(settling)
    assert [entry_id for entry_id, _ in store.entries(CHECKPOINTS_KEY)] == ["1-0", "2-0", "3-0", "4-0"]


def test_what_was_replayed_is_signed(settling: Settling, genesis: Genesis, store: StreamsStore) -> None:
    settling.start()
    settling.second()
    builder = built_log(genesis, store)
    settling.second()
    builder.trade()
    settling.second()
    tip = signed_leaves(settling)[-1].shards[0]
    assert sizes(settling) == [1, 17, 20]
    assert tip.chain == builder.state.chain
    assert tip.state_root == builder.engine.state_root()


def test_it_says_whether_the_log_may_have_more(
    settling: Settling, genesis: Genesis, store: StreamsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rests at the end of the log only, never in a backlog."""
    settling.start()
    monkeypatch.setattr(settlement, "READ_COUNT", 4)
    built_log(genesis, store)
    assert settling.now.follow(1) > 0
    assert settling.now.behind
    while settling.now.follow(1):
        pass
    assert not settling.now.behind


def test_missed_seconds_are_not_made_up_for(settling: Settling) -> None:
    settling.start()
    settling.second()
    settling.clock.pause_ms(60_000)
    assert settling.now.tick() == 1
    assert settling.now.tick() == 0
    assert 1 <= settling.now.wait_ms() <= 1_000


def test_everysec_signs_only_what_is_old_enough(
    paths: DataPaths, genesis: Genesis, store: StreamsStore, builder: LogBuilder
) -> None:
    settling = Settling(paths, genesis, store, delay_ms=2_500)
    settling.start()
    counts = [settling.second() for _ in range(4)]
    assert counts == [0, 0, 0, 1]
    builder.trade()
    assert [settling.second() for _ in range(3)] == [1, 1, 1]
    assert sizes(settling) == [17, 17, 17, 17]
    settling.second()
    settling.stop()
    assert sizes(settling)[-1] == 20


def test_a_clean_stop_signs_the_rest_and_leaves_a_snapshot(settling: Settling, builder: LogBuilder) -> None:
    settling.start()
    settling.second()
    builder.trade()
    settling.stop()
    assert sizes(settling) == [17, 20]
    assert snapshot_numbers(settling.paths, 0) == [17, 20]
    settling.start()
    settling.stop()
    assert sizes(settling) == [17, 20, 20]
    assert snapshot_numbers(settling.paths, 0) == [17, 20], "nothing has moved"


@pytest.mark.parametrize("snapshots_damaged", [False, True])
def test_a_restart_resumes(settling: Settling, builder: LogBuilder, snapshots_damaged: bool) -> None:
    settling.start()
    for _ in range(3):
        builder.trade()
        settling.second()
    settling.kill()
    if snapshots_damaged:
        for number in snapshot_numbers(settling.paths, 0):
            (settling.paths.snapshots(0) / f"{number:020d}.snap").write_bytes(b"damaged")
    builder.open_epoch()
    builder.trade()
    settling.start()
    settling.second()
    leaves = signed_leaves(settling)
    assert leaves[-1].shards[0].log_size == builder.state.next_record_no
    assert leaves[-1].shards[0].state_root == builder.engine.state_root()
    assert [leaf.n for leaf in leaves] == list(range(len(leaves)))


def test_two_shards(paths: DataPaths, store: StreamsStore) -> None:
    genesis = signed_genesis(shards=2)
    settling = Settling(paths, genesis, store)
    one, two = built_log(genesis, store, shard=0), built_log(genesis, store, batches=1, shard=1)
    settling.start()
    settling.second()
    two.trade()
    settling.second()
    one.trade()
    settling.second()
    assert [[tip.log_size for tip in leaf.shards] for leaf in signed_leaves(settling)] == [
        [17, 8],
        [17, 11],
        [20, 11],
    ]
    settling.stop()
    settling.start()
    settling.stop()


def test_snapshots_segments_and_trimming(
    settling: Settling, builder: LogBuilder, store: StreamsStore
) -> None:
    settling.start()
    settling.second()
    for _ in range(20):
        builder.trade()
        settling.second()
    numbers = snapshot_numbers(settling.paths, 0)
    assert len(numbers) == 2
    refs = segments(settling.paths, 0)
    assert refs[0].first_record_no == 1
    assert all(left.last_record_no + 1 == right.first_record_no for left, right in pairwise(refs))
    first_kept = int(store.entries(log_key(0))[0][0].split("-")[1])
    assert 1 < first_kept <= min(numbers[0], refs[-1].last_record_no + 1) - 3
    assert store.entries(log_key(0))[-1][0] == str(builder.ids[-1])
    settling.kill()
    settling.start()
    settling.second()
    assert sizes(settling)[-1] == builder.state.next_record_no


def test_a_backlog_is_archived_one_segment_after_the_other(
    paths: DataPaths, genesis: Genesis, store: StreamsStore
) -> None:
    settling = Settling(paths, genesis, store)
    builder = built_log(genesis, store, batches=20)
    settling.start()
    lengths = []
    for _ in range(8):
        settling.second()
        lengths.append(len(segments(paths, 0)))
    assert lengths == [1, 2, 3, 4, 5, 5, 5, 5]
    assert segments(paths, 0)[-1].last_record_no <= builder.state.next_record_no - 1
    settling.kill()


def test_a_log_that_was_changed_behind_the_replica_is_not_archived(
    paths: DataPaths, genesis: Genesis, store: StreamsStore
) -> None:
    settling = Settling(paths, genesis, store)
    builder = LogBuilder(genesis, store)
    builder.open_epoch()
    builder.fund()
    settling.start()
    settling.second()
    builder.trade(5)
    while settling.now.follow(1):
        pass
    store.drop(0, builder.ids[2])
    with pytest.raises(Mismatch) as caught:
        settling.second()
    assert caught.value.record_no == builder.ids[2].record_no
    assert segments(paths, 0) == []
    settling.kill()


def test_everything_from_the_archive_when_all_snapshots_are_damaged(
    settling: Settling, builder: LogBuilder
) -> None:
    settling.start()
    for _ in range(20):
        builder.trade()
        settling.second()
    settling.kill()
    for number in snapshot_numbers(settling.paths, 0):
        (settling.paths.snapshots(0) / f"{number:020d}.snap").write_bytes(b"damaged")
    settling.start()
    settling.second()
    assert signed_leaves(settling)[-1].shards[0].state_root == builder.engine.state_root()


def test_a_snapshot_beyond_what_was_signed_is_not_used(settling: Settling, builder: LogBuilder) -> None:
    """Else the tips that were signed would never be compared again."""
    settling.start()
    settling.second()
    builder.trade(5)
    while settling.now.follow(1):
        pass
    write_snapshot(settling.paths, *capture(settling.now._core.replicas[0]))
    settling.kill()
    settling.start()
    assert settling.now._core.unconfirmed() == []
    assert settling.now._snapshot_at[0] == 17


# ------------------------------------------------------------ the store goes away


def test_the_store_is_away_for_a_while(settling: Settling, builder: LogBuilder, store: StreamsStore) -> None:
    settling.start()
    settling.second()
    store.faults = ["lost", "lost"]
    settling.second()
    settling.second()
    assert len(in_file(settling)) == 3, "signing goes on"
    assert len(in_store(store)) == 1
    settling.second()
    assert in_store(store) == in_file(settling)


def test_an_unheard_publication_is_not_repeated(settling: Settling, store: StreamsStore) -> None:
    settling.start()
    settling.second()
    store.faults = ["unheard"]
    settling.second()
    settling.second()
    assert in_store(store) == in_file(settling)
    assert len(in_file(settling)) == 3


def test_a_crash_before_publication(settling: Settling, store: StreamsStore) -> None:
    settling.start()
    settling.second()
    store.faults = ["lost"]
    settling.second()
    settling.kill()
    settling.start()
    settling.second()
    assert in_store(store) == in_file(settling)
    assert len(in_file(settling)) == 3


def test_a_store_that_refuses_for_a_while(settling: Settling, store: StreamsStore) -> None:
    settling.start()
    settling.second()
    store.faults = ["OOM command not allowed when used memory > 'maxmemory'"]
    settling.second()
    settling.second()
    assert in_store(store) == in_file(settling)


def test_a_stream_with_a_checkpoint_that_is_not_ours(settling: Settling, store: StreamsStore) -> None:
    settling.start()
    settling.second()
    settling.kill()
    store.execute_command("XADD", CHECKPOINTS_KEY, "2-0", "leaf", b"other", "note", b"other")
    with pytest.raises(SigningRefused):
        settling.start()


def test_the_stream_of_checkpoints_stays_short(
    paths: DataPaths, genesis: Genesis, store: StreamsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zexchange.settlement.publication.TRIM_EVERY", 4)
    settings = msgspec.structs.replace(SETTINGS, published_checkpoints=5)
    settling = Settling(paths, genesis, store, settings)
    settling.start()
    for _ in range(20):
        settling.second()
    assert in_store(store) == in_file(settling)[-5:]
    settling.kill()
    store.streams.clear()
    store.last_ids.clear()
    settling.start()
    assert settling.now.tick() == 1
    assert in_store(store) == in_file(settling)[-6:], "a store that lost its stream gets the newest again"
    settling.kill()


# ------------------------------------------------------------ it stops for good


def test_a_mismatch_stops_it(settling: Settling, builder: LogBuilder, store: StreamsStore) -> None:
    settling.start()
    settling.second()
    record_no = builder.state.next_record_no
    builder.trade()
    raw = bytearray(store.raw(0, builder.ids[-1]))
    raw[90] ^= 1
    store.set_raw(0, builder.ids[-1], bytes(raw))
    before = in_file(settling)
    with pytest.raises(Mismatch) as caught:
        settling.second()
    assert caught.value.record_no == record_no
    settling.kill()
    with pytest.raises(Mismatch):
        settling.start()
    assert in_file(settling) == before


def test_the_log_is_shorter_than_what_was_signed(
    settling: Settling, builder: LogBuilder, store: StreamsStore
) -> None:
    settling.start()
    settling.second()
    settling.kill()
    store.drop(0, builder.ids[-1])
    with pytest.raises(LogRegressed) as caught:
        settling.start()
    assert (caught.value.known, caught.value.found) == (16, 13)
    store.streams.clear()
    with pytest.raises((LogRegressed, SigningRefused)):
        settling.start()


def test_the_log_went_back_while_it_ran(settling: Settling, builder: LogBuilder, store: StreamsStore) -> None:
    settling.start()
    settling.second()
    settling.now.check_log()
    store.drop(0, builder.ids[-1])
    with pytest.raises(LogRegressed):
        settling.now.check_log()
    store.streams[log_key(0)].clear()
    with pytest.raises(LogRegressed):
        settling.now.check_log()


def test_another_log_of_the_same_length(
    paths: DataPaths, genesis: Genesis, settling: Settling, builder: LogBuilder, store: StreamsStore
) -> None:
    """The same records in another order of batches: other roots under the same size."""
    settling.start()
    settling.second()
    other_store = StreamsStore()
    other = LogBuilder(genesis, other_store)
    other.open_epoch()
    other.fund()
    other.trade(2)
    other.trade(2)
    assert other.state.next_record_no == builder.state.next_record_no
    store.streams[log_key(0)] = other_store.streams[log_key(0)]
    with pytest.raises(Mismatch):
        settling.now.check_log()
    settling.kill()
    for number in snapshot_numbers(paths, 0):
        (paths.snapshots(0) / f"{number:020d}.snap").unlink()
    with pytest.raises(Mismatch, match="last checkpoint"):
        settling.start()


def test_a_checkpoint_inside_a_batch(
    settling: Settling, builder: LogBuilder, store: StreamsStore, genesis: Genesis
) -> None:
    settling.start()
    settling.second()
    settling.kill()
    for number in snapshot_numbers(settling.paths, 0):
        (settling.paths.snapshots(0) / f"{number:020d}.snap").unlink()
    frames = [
        frame
        for entry_id in builder.ids[-2:]
        for frame in journal.iter_frames(journal.decode_batch(store.raw(0, entry_id)).body)
    ]
    for entry_id in builder.ids[-2:]:
        store.drop(0, entry_id)
    store.last_ids.clear()
    other = LogBuilder(genesis, StreamsStore())
    other.open_epoch()
    other.fund()
    other.trade(2)
    other.store = store
    other.append(*frames, frames[0])
    with pytest.raises(Mismatch, match="first record behind the last checkpoint"):
        settling.start()


def test_a_lost_settlement_folder_is_not_begun_anew(settling: Settling, builder: LogBuilder) -> None:
    settling.start()
    settling.second()
    settling.kill()
    for path in settling.paths.settlement.iterdir():
        path.unlink()
    with pytest.raises(SigningRefused):
        settling.start()
    settling.store.streams[CHECKPOINTS_KEY].clear()
    with pytest.raises(SigningRefused, match="lost"):
        settling.start()


def archive_of_three(settling: Settling, builder: LogBuilder) -> list[SegmentRef]:
    """Settlement was stopped with three segments and more, all signed."""
    settling.start()
    for _ in range(8):
        builder.trade(4)
        settling.second()
    while signed_digest(settling) != digest_of(segments(settling.paths, 0)[-1]):
        settling.second()
    settling.kill()
    refs = segments(settling.paths, 0)
    assert len(refs) >= 3
    return refs


@pytest.mark.parametrize("index", [0, 1, -1])
def test_it_does_not_sign_without_a_part_of_the_archive(
    settling: Settling, builder: LogBuilder, index: int
) -> None:
    refs = archive_of_three(settling, builder)
    signed = len(in_file(settling))
    raw = refs[index].path.read_bytes()
    refs[index].path.unlink()
    with pytest.raises(SigningRefused) as caught:
        settling.start()
    assert f"begins with record {refs[index].first_record_no}" in str(caught.value)
    assert "restore" in str(caught.value)
    assert len(in_file(settling)) == signed
    refs[index].path.write_bytes(raw)
    settling.start()
    settling.second()
    settling.stop()


def test_it_does_not_sign_without_any_archive(settling: Settling, builder: LogBuilder) -> None:
    archive_of_three(settling, builder)
    kept = settling.paths.root / "elsewhere"
    settling.paths.archive(0).rename(kept)
    with pytest.raises(
        SigningRefused, match=r"shard 0 that begins with record 1 is missing; restore archive/"
    ):
        settling.start()
    kept.rename(settling.paths.archive(0))
    settling.start()
    settling.stop()


def test_it_does_not_sign_over_another_segment(settling: Settling, builder: LogBuilder) -> None:
    refs = archive_of_three(settling, builder)
    batches = list(read_segment(refs[-1]))
    refs[-1].path.unlink()
    write_segment(settling.paths, 0, batches[:-1])
    with pytest.raises(SigningRefused, match=f"begins with record {refs[-1].first_record_no} is another one"):
        settling.start()


def test_one_segment_may_be_ahead_of_the_last_checkpoint(settling: Settling, builder: LogBuilder) -> None:
    """A crash between the writing of a segment and the next checkpoint; two are not a crash."""
    settling.start()
    for _ in range(4):
        builder.trade(4)
        settling.second()
        settling.kill()
        assert signed_digest(settling) != digest_of(segments(settling.paths, 0)[-1])
        settling.start()
    settling.kill()
    refs = segments(settling.paths, 0)
    entries = in_file(settling)
    digests = [CheckpointLeaf.decode(entry.leaf, n).archive_digest for n, entry in enumerate(entries)]
    early = digests.index(digest_of(refs[0])) + 1
    tree = CompactRange()
    for entry in entries[:early]:
        tree.append(leaf_hash(entry.leaf))
    settling.paths.checkpoints_log.write_bytes(b"".join(map(encode_entry, entries[:early])))
    older = LastSigned(size=early, root=tree.root().hex(), leaf=entries[early - 1].leaf.hex())
    settling.paths.last_signed.write_bytes(msgspec.json.encode(older))
    with pytest.raises(SigningRefused, match="more than one segment"):
        settling.start()


def test_an_archive_without_checkpoints(settling: Settling, builder: LogBuilder) -> None:
    archive_of_three(settling, builder)
    shutil.rmtree(settling.paths.settlement)
    settling.store.streams[CHECKPOINTS_KEY].clear()
    with pytest.raises(SigningRefused, match="archived segments but no checkpoints"):
        settling.start()


def test_two_shards_of_which_one_lacks_its_archive(paths: DataPaths, store: StreamsStore) -> None:
    genesis = signed_genesis(2)
    settling = Settling(paths, genesis, store)
    for shard in range(2):
        built_log(genesis, store, shard=shard)
    settling.start()
    for _ in range(4):
        settling.second()
    settling.kill()
    assert segments(paths, 0)
    for ref in segments(paths, 1):
        ref.path.unlink()
    with pytest.raises(SigningRefused, match="shard 1 that begins with record 1 is missing"):
        settling.start()


def test_the_key_must_be_that_of_the_genesis(settling: Settling) -> None:
    with pytest.raises(SigningRefused, match="genesis"):
        Settlement(
            settling.paths,
            settling.genesis,
            SigningKey(bytes([9]) * 32),
            SETTINGS,
            settling.store,
            ReferenceEngine,
        )


def test_a_damaged_checkpoint_file(settling: Settling, builder: LogBuilder) -> None:
    settling.start()
    settling.second()
    settling.second()
    settling.kill()
    raw = bytearray(settling.paths.checkpoints_log.read_bytes())
    raw[20] ^= 1
    settling.paths.checkpoints_log.write_bytes(raw)
    with pytest.raises((ValueError, CheckpointInvalid)):
        settling.start()
