"""Damaged snapshots: both engines refuse the same ones, and never more than refuse."""

from __future__ import annotations

from random import Random

import pytest

from tests.model.duel import snapshot_entries
from tests.model.kit import EngineClass, engine_named, funded_shard, order, small_genesis
from tests.model.stream import SHARD, run
from zexchange.engine_types import SnapshotInvalid
from zexchange.genesis import Genesis
from zexchange.wire.messages import Side


def damaged(snapshot: bytes, random: Random) -> bytes:
    """Bits flipped, a number made extreme, a piece cut, doubled or moved, two entries swapped."""
    work = bytearray(snapshot)
    kind = random.randrange(6)
    if kind <= 1:
        for _ in range(random.choice((1, 1, 2))):
            work[random.randrange(len(work))] ^= 1 << random.randrange(8)
    elif kind == 2:
        at = random.randrange(len(work) - 8)
        work[at : at + 8] = random.choice((b"\xff" * 8, bytes(8), bytes(7) + b"\x80", b"\xff" * 7 + b"\x7f"))
    elif kind == 3:
        at, length = random.randrange(len(work)), random.randrange(1, 200)
        work[at : at + length] = random.choice((b"", bytes(work[at : at + length]) * 2))
    elif kind == 4:
        first, second = random.randrange(len(work)), random.randrange(len(work))
        work[first : first + 8], work[second : second + 8] = (
            work[second : second + 8],
            work[first : first + 8],
        )
    else:
        entries = snapshot_entries(snapshot)
        first, second = random.randrange(len(entries)), random.randrange(len(entries))
        entries[first], entries[second] = entries[second], entries[first]
        body = (len(data).to_bytes(4, "little") + data for _, _, data in entries)
        return snapshot[:64] + b"".join(body)
    return bytes(work)


def verdict(engine: EngineClass, genesis: Genesis, snapshot: bytes) -> str | None:
    """The state root, or None if the snapshot is refused."""
    try:
        restored = engine.restore(genesis, SHARD, snapshot)
    except SnapshotInvalid:
        return None
    assert restored.snapshot() == snapshot, "only canonical snapshots may be accepted"
    restored.check()
    return restored.state_root().hex()


@pytest.mark.parametrize("seed", range(1, 5))
def test_engines_refuse_the_same_snapshots(seed: int) -> None:
    duel = run(seed, 500)
    snapshot, random = duel.subject.snapshot(), Random(seed)
    accepted = 0
    for _ in range(400):
        broken = damaged(snapshot, random)
        verdicts = [verdict(engine_named(name), duel.genesis, broken) for name in ("c", "reference")]
        assert verdicts[0] == verdicts[1], f"seed {seed}: {verdicts}"
        accepted += verdicts[0] is not None and broken != snapshot
    # What is accepted is the snapshot of another possible state, and so has another root.
    assert accepted < 300


@pytest.mark.parametrize("name", ["c", "reference"])
@pytest.mark.parametrize("at", [4, 12, 28], ids=["order id", "client order id", "priority"])
def test_orders_that_share_a_number_are_refused(name: str, at: int) -> None:
    """Two orders of one account at one price; all holds are as they should be."""
    engine_class = engine_named(name)
    shard = funded_shard(engine_class)
    shard.send(1, *(order(Side.BUY, 1, 10, client_order_id=client_id) for client_id in (5, 6)))
    snapshot = bytearray(shard.engine.snapshot())
    first, second = (
        snapshot.index(data) for subtree, _, data in snapshot_entries(bytes(snapshot)) if subtree == 5
    )
    snapshot[second + at : second + at + 8] = snapshot[first + at : first + at + 8]
    with pytest.raises(SnapshotInvalid):
        engine_class.restore(small_genesis(), 0, bytes(snapshot))
