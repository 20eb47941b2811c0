"""The drain in one call gives the bytes that the journal's own encoding gives."""

from __future__ import annotations

from random import Random

from tests.model import kit
from zexchange.engine import Engine
from zexchange.engine_types import Applied
from zexchange.log import journal
from zexchange.log.journal import ChainState
from zexchange.matcher import link
from zexchange.matcher.inbox import NO_LINK, Inbox
from zexchange.matcher.link import Kind, Outbox
from zexchange.matcher.sealing import NativeSeal, seal_with
from zexchange.reference import ReferenceEngine
from zexchange.wire.messages import Side

GENESIS = kit.small_genesis()


class ThroughPython(ReferenceEngine):
    """Not the engine in C, so sealed step by step."""


def test_native_and_stepwise_give_the_same_batches() -> None:
    random = Random(3)
    chain = ChainState.genesis(GENESIS.deployment_id).chain
    native = seal_with(Engine(GENESIS, 0, track_state=False), 5, chain)
    stepwise = seal_with(ThroughPython(GENESIS, 0, track_state=False), 5, chain)
    assert isinstance(native, NativeSeal)
    assert not isinstance(stepwise, NativeSeal)
    nonce = 0
    state = ChainState(5, 1, 1, chain, 0)
    now_ns = kit.START_NS
    for _ in range(120):
        frames = []
        for _ in range(random.randrange(1, 20)):
            nonce += 1
            key = kit.public_key(random.randrange(1, 4))
            frames.append(
                kit.batch(
                    key,
                    now_ns // 1000 + nonce,
                    [kit.order(Side.BUY, 1, random.randrange(90, 110))] * random.randrange(1, 5),
                )
            )
        now_ns += random.choice([-5, 0, 1_000])
        ours, theirs = native.apply(b"".join(frames), now_ns), stepwise.apply(b"".join(frames), now_ns)
        assert ours == theirs
        batch = journal.decode_batch(ours.batch, shard=0)
        journal.check_follows(state, batch)
        assert batch.events_hash == journal.events_hash(ours.events)
        state = state.after(batch)


def test_largest_batch_has_the_right_checksum() -> None:
    chain = ChainState.genesis(GENESIS.deployment_id).chain
    seal = seal_with(Engine(GENESIS, 0, track_state=False), 1, chain)
    body = b""
    nonce = 0
    while True:
        nonce += 1
        frame = kit.batch(kit.public_key(9), nonce, [kit.order(Side.BUY, 1, 100)] * 64)
        if len(body) + len(frame) > journal.MAX_BODY_BYTES:
            break
        body += frame
    sealed = seal.apply(body, kit.START_NS)
    assert journal.decode_batch(sealed.batch).body == body[: len(journal.decode_batch(sealed.batch).body)]


class FewAtATime(ReferenceEngine):
    """Has room for two frames only."""

    def apply(self, body: bytes | memoryview, log_time_ns: int) -> Applied:
        frames = list(journal.iter_frames(bytes(body)))
        return super().apply(b"".join(frames[:2]), log_time_ns)


def test_what_the_engine_has_no_room_for_stays_in_the_inbox() -> None:
    inbox = Inbox()
    outbox = Outbox(1)
    for number in range(1, 6):
        outbox.add(
            link.entry(
                Kind.BATCH, number, kit.batch(kit.public_key(1), number, [kit.order(Side.BUY, 1, 100)])
            )
        )
    inbox.receive(1, outbox.take()[0])
    seal = seal_with(FewAtATime(GENESIS, 0, track_state=False), 1, bytes(32))
    counts = []
    while len(inbox):
        inbox.take(len(inbox), 60_000, NO_LINK, [])
        counts.append(seal.apply_taken(inbox, kit.START_NS).records)
    assert counts == [2, 2, 1]
