"""A replica that redoes batches in one call each finds what the careful way finds, and says the same."""

from __future__ import annotations

import pytest

from tests.log_builder import LogBuilder, StreamsStore, built_log, signed_genesis
from tests.unit.verification.test_replica import batches_of, resealed
from zexchange.engine import Engine
from zexchange.log import journal
from zexchange.log.journal import EntryId
from zexchange.reference import ReferenceEngine
from zexchange.verification.replica import (
    EngineClass,
    Mismatch,
    Replica,
    SignatureCheck,
    StoredBatch,
    verify_signatures,
)


@pytest.fixture(scope="module")
def builder() -> LogBuilder:
    """Two epochs, several batches in each."""
    built = built_log(signed_genesis(), StreamsStore())
    built.open_epoch()
    built.trade(3)
    return built


@pytest.fixture(params=["without signatures", "with signatures"])
def check(request: pytest.FixtureRequest) -> SignatureCheck | None:
    return verify_signatures if request.param == "with signatures" else None


def outcome(
    builder: LogBuilder, engine: EngineClass, batches: list[StoredBatch], check: SignatureCheck | None
) -> object:
    """The tip, or the mismatch in words."""
    replica = Replica.at_genesis(builder.genesis, 0, engine, check)
    boundaries: list[int] = []
    try:
        records = replica.apply(batches, lambda: boundaries.append(replica.position.next_record_no))
    except Mismatch as error:
        return str(error), error.record_no, boundaries
    return replica.tip(), records, replica.frontier, replica.position, boundaries


def test_a_whole_log_gives_the_same_position_and_roots(
    builder: LogBuilder, check: SignatureCheck | None
) -> None:
    batches = batches_of(builder)
    quick = Replica.at_genesis(builder.genesis, 0, Engine, check)
    assert quick._quick is not None
    assert outcome(builder, Engine, batches, check) == outcome(builder, ReferenceEngine, batches, check)
    for cut in range(len(batches)):
        assert outcome(builder, Engine, batches[:cut], check) == outcome(
            builder, ReferenceEngine, batches[:cut], check
        )


def test_every_flipped_byte_is_found_and_said_alike(
    builder: LogBuilder, check: SignatureCheck | None
) -> None:
    batches = batches_of(builder)
    for target in (2, len(batches) - 2):
        raw = batches[target].raw
        for position in range(0, len(raw), 5):
            changed = bytearray(raw)
            changed[position] ^= 0x04
            tampered = [
                *batches[:target],
                StoredBatch(batches[target].id, bytes(changed)),
                *batches[target + 1 :],
            ]
            found = outcome(builder, Engine, tampered, check)
            assert isinstance(found, tuple)
            assert isinstance(found[0], str), f"byte {position} of batch {target} was not noticed"
            assert found == outcome(builder, ReferenceEngine, tampered, check), (
                f"byte {position} of batch {target}"
            )


@pytest.mark.parametrize(
    "change",
    [
        {"first_seq": 9_999},
        {"events_hash": bytes(32)},
        {"log_time_ns": 1},
        {"epoch": 7},
        {"first_record_no": 9_999},
        {"shard": 1},
        {"chain_before": bytes(32)},
        {"count": 77},
    ],
)
def test_field_changed_with_chain_and_checksum_made_to_fit(
    builder: LogBuilder, check: SignatureCheck | None, change: dict[str, object]
) -> None:
    batches = batches_of(builder)
    target = len(batches) - 2
    batch = journal.decode_batch(batches[target].raw)
    batches[target] = StoredBatch(batches[target].id, resealed(batch, **change))
    found = outcome(builder, Engine, batches, check)
    assert found == outcome(builder, ReferenceEngine, batches, check)
    assert isinstance(found, tuple)
    assert isinstance(found[0], str)


def test_frames_changed_with_everything_made_to_fit(
    builder: LogBuilder, check: SignatureCheck | None
) -> None:
    batches = batches_of(builder)
    target = len(batches) - 2
    batch = journal.decode_batch(batches[target].raw)
    opening = journal.decode_batch(next(one.raw for one in batches if one.id.epoch == 2))
    malformed = bytearray(batch.body)
    malformed[-1] ^= 0xFF
    for body in (bytes(malformed), batch.body + opening.body, batch.body[:-1] + b"\0"):
        frames = sum(1 for _ in journal.iter_frames(body))
        changed = [*batches]
        changed[target] = StoredBatch(batch.id, resealed(batch, body=body, count=frames))
        assert outcome(builder, Engine, changed, check) == outcome(builder, ReferenceEngine, changed, check)


def test_dropped_swapped_and_renamed_batches(builder: LogBuilder, check: SignatureCheck | None) -> None:
    batches = batches_of(builder)
    renamed = StoredBatch(EntryId(9, batches[3].id.record_no), batches[3].raw)
    for changed in (
        [*batches[:2], *batches[3:]],
        [*batches[:2], batches[3], batches[2], *batches[4:]],
        [*batches[:3], batches[2], *batches[3:]],
        [*batches[:3], renamed, *batches[4:]],
        [*batches[:3], StoredBatch(batches[3].id, b""), *batches[4:]],
        [*batches[:3], StoredBatch(batches[3].id, batches[3].raw * 200), *batches[4:]],
    ):
        assert outcome(builder, Engine, changed, check) == outcome(builder, ReferenceEngine, changed, check)
