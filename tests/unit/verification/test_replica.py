"""The replica: accepts the log as written, and names the record in every log that was changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.log_builder import LogBuilder, StreamsStore, built_log, signed_genesis
from tests.model.kit import engine_named, order
from zexchange.genesis import Genesis
from zexchange.log import journal
from zexchange.log.history import StreamCursor
from zexchange.log.journal import BATCH_HEADER_BYTES, LogBatch, log_key
from zexchange.reference import ReferenceEngine
from zexchange.verification.merkle import leaf_hash
from zexchange.verification.merkle import root as tree_root
from zexchange.verification.replica import (
    Mismatch,
    Replica,
    SignatureCheck,
    StoredBatch,
    genesis_record,
    verify_signatures,
)
from zexchange.verification.verifier import ParallelSignatures, verify_signatures_plainly
from zexchange.wire.messages import EpochOpen, Side


@pytest.fixture(scope="module")
def genesis() -> Genesis:
    return signed_genesis()


@pytest.fixture
def builder(genesis: Genesis) -> LogBuilder:
    return built_log(genesis, StreamsStore())


def batches_of(builder: LogBuilder) -> list[StoredBatch]:
    return StreamCursor(builder.store, builder.shard).read(10_000)


def replayed(
    builder: LogBuilder,
    batches: list[StoredBatch] | None = None,
    check: SignatureCheck | None = verify_signatures_plainly,
) -> Replica:
    replica = Replica.at_genesis(builder.genesis, builder.shard, ReferenceEngine, check)
    replica.apply(batches_of(builder) if batches is None else batches)
    return replica


def resealed(batch: LogBatch, **changes: object) -> bytes:
    """The batch with some fields changed, and chain and checksum made to fit."""
    fields = {name: getattr(batch, name) for name in batch.__struct_fields__}
    del fields["chain_after"], fields["raw"]
    return journal.encode_batch(**(fields | changes))


def test_a_whole_log(builder: LogBuilder) -> None:
    builder.open_epoch()
    builder.trade(2)
    replica = replayed(builder)
    batches = [journal.decode_batch(one.raw) for one in batches_of(builder)]
    frames = [frame for batch in batches for frame in journal.iter_frames(batch.body)]
    tip = replica.tip()
    assert tip.log_size == 1 + len(frames) == builder.state.next_record_no
    assert tip.log_root == tree_root(map(leaf_hash, [genesis_record(builder.genesis), *frames]))
    assert tip.chain == builder.state.chain
    assert tip.state_root == builder.engine.state_root()
    assert replica.position.epoch == 2


def test_signatures_are_the_same_on_every_path(builder: LogBuilder) -> None:
    """C in one call, C on several threads, and plain Python give the same verdicts."""
    frames = [
        frame
        for stored in batches_of(builder)
        for frame in journal.iter_frames(journal.decode_batch(stored.raw).body)
        if len(frame) != 14 + EpochOpen.BLOCK_LENGTH
    ]
    for position in (14, 40, 80, 118, 150):
        changed = bytearray(frames[4])
        changed[position] ^= 1
        frames.append(bytes(changed))
    identity = builder.genesis.deployment_id
    expected = verify_signatures_plainly(frames, identity)
    assert expected == [True] * (len(frames) - 5) + [False] * 5
    assert list(verify_signatures(frames, identity)) == expected
    with ParallelSignatures(3) as parallel:
        assert parallel(frames * 20, identity) == expected * 20
        assert parallel([], identity) == []


def test_every_flipped_byte_is_found_and_named(builder: LogBuilder) -> None:
    """Whichever byte of a stored batch is changed, the mismatch names a record of that batch."""
    batches = batches_of(builder)
    target = journal.decode_batch(batches[2].raw)
    frames = list(journal.iter_frames(target.body))
    ends = [BATCH_HEADER_BYTES + sum(map(len, frames[: index + 1])) for index in range(len(frames))]
    replica_at = [batches[0], batches[1]]
    for position in range(0, len(target.raw), 7):
        changed = bytearray(target.raw)
        changed[position] ^= 0x04
        replica = Replica.at_genesis(builder.genesis, 0, ReferenceEngine, None)
        replica.apply(replica_at)
        replica._check_signatures = verify_signatures_plainly
        with pytest.raises(Mismatch) as caught:
            replica.apply([StoredBatch(batches[2].id, bytes(changed)), *batches[3:]])
        expected = target.first_record_no
        if BATCH_HEADER_BYTES <= position < ends[-1]:
            expected += next(index for index, end in enumerate(ends) if position < end)
        assert caught.value.record_no == expected, f"byte {position}"


def test_a_flipped_byte_with_chain_and_checksum_made_to_fit(builder: LogBuilder) -> None:
    """Only the signature can show it."""
    batches = batches_of(builder)
    target = journal.decode_batch(batches[-1].raw)
    body = bytearray(target.body)
    body[-3] ^= 1
    batches[-1] = StoredBatch(target.id, resealed(target, body=bytes(body)))
    with pytest.raises(Mismatch) as caught:
        replayed(builder, batches)
    assert caught.value.record_no == target.next_record_no - 1
    assert caught.value.what == "signature"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"events_hash": bytes(32)}, "events hash"),
        ({"log_time_ns": 1}, "batch"),
        ({"first_seq": 99}, "first seq"),
        ({"first_record_no": 5}, "next record"),
        ({"chain_before": bytes(32)}, "chain before"),
        ({"epoch": 9}, "batch"),
    ],
)
def test_every_field_of_a_resealed_batch_is_compared(
    builder: LogBuilder, changes: dict[str, object], what: str
) -> None:
    batches = batches_of(builder)
    target = journal.decode_batch(batches[-1].raw)
    raw = resealed(target, **changes)
    batches[-1] = StoredBatch(journal.decode_batch(raw).id, raw)
    with pytest.raises(Mismatch) as caught:
        replayed(builder, batches)
    assert (caught.value.record_no, caught.value.what) == (target.first_record_no, what)


def test_the_stream_id_must_be_that_of_the_batch(builder: LogBuilder) -> None:
    batches = batches_of(builder)
    batches[-1] = StoredBatch(journal.EntryId(1, batches[-1].id.record_no + 1), batches[-1].raw)
    with pytest.raises(Mismatch, match="stream ID"):
        replayed(builder, batches)


def test_another_shards_batch(genesis: Genesis) -> None:
    two = signed_genesis(shards=2)
    builder = built_log(two, StreamsStore(), shard=1)
    replica = Replica.at_genesis(two, 0, ReferenceEngine, verify_signatures_plainly)
    with pytest.raises(Mismatch) as caught:
        replica.apply(batches_of(builder))
    assert caught.value.record_no == 1


def drop(batches: list[StoredBatch]) -> None:
    del batches[3]


def swap(batches: list[StoredBatch]) -> None:
    batches[3], batches[4] = (
        StoredBatch(batches[3].id, batches[4].raw),
        StoredBatch(batches[4].id, batches[3].raw),
    )


def reorder(batches: list[StoredBatch]) -> None:
    batches[3], batches[4] = batches[4], batches[3]


def repeat(batches: list[StoredBatch]) -> None:
    batches.insert(3, batches[2])


@pytest.mark.parametrize("tamper", [drop, swap, reorder, repeat])
def test_the_order_of_batches(builder: LogBuilder, tamper: Callable[[list[StoredBatch]], None]) -> None:
    batches = batches_of(builder)
    expected = batches[3].id.record_no
    tamper(batches)
    with pytest.raises(Mismatch) as caught:
        replayed(builder, batches)
    assert caught.value.record_no == expected


def test_batches_before_the_difference_are_applied(builder: LogBuilder) -> None:
    batches = batches_of(builder)
    del batches[3]
    replica = Replica.at_genesis(builder.genesis, 0, ReferenceEngine, verify_signatures_plainly)
    boundaries = []
    with pytest.raises(Mismatch):
        replica.apply(batches, lambda: boundaries.append(replica.position.next_record_no))
    assert boundaries == [2, 5, 8]


@pytest.mark.parametrize("field", ["epoch", "tip_epoch", "tip_record_no", "tip_chain"])
def test_the_opening_record_names_the_true_tip(builder: LogBuilder, field: str) -> None:
    builder.epoch = 2
    opening = EpochOpen(
        epoch=2, tip_epoch=1, tip_record_no=builder.state.next_record_no - 1, tip_chain=builder.state.chain
    )
    setattr(opening, field, bytes(32) if field == "tip_chain" else getattr(opening, field) + 1)
    record_no = builder.append(opening.encode()).record_no
    with pytest.raises(Mismatch) as caught:
        replayed(builder)
    assert caught.value.record_no == record_no


def test_an_epoch_is_opened_once_and_only_by_its_first_record(builder: LogBuilder) -> None:
    builder.append(builder.trader(0, order(Side.BUY, 1, 1)), EpochOpen(epoch=1).encode())
    with pytest.raises(Mismatch, match="epoch"):
        replayed(builder)


def test_an_epoch_must_be_opened(builder: LogBuilder) -> None:
    builder.epoch = 2
    builder.trade()
    with pytest.raises(Mismatch, match="epoch 2"):
        replayed(builder)


def test_without_the_signature_check(builder: LogBuilder) -> None:
    frame = bytearray(builder.trader(0, order(Side.BUY, 1, 1)))
    frame[20] ^= 1
    builder.append(bytes(frame))
    assert replayed(builder, check=None).position.next_record_no == builder.state.next_record_no
    with pytest.raises(Mismatch, match="signature"):
        replayed(builder)


def test_a_stream_entry_that_is_no_batch(builder: LogBuilder) -> None:
    builder.store.execute_command("XADD", log_key(0), "1-999", "x", "y")
    with pytest.raises(Mismatch, match="neither"):
        batches_of(builder)


def test_both_engines_agree(builder: LogBuilder) -> None:
    builder.trade(20)
    replica = Replica.at_genesis(builder.genesis, 0, engine_named("c"), verify_signatures)
    assert replica.apply(batches_of(builder)) == builder.state.next_record_no - 1
    assert replica.tip() == replayed(builder).tip()
