"""From a body of frames to the batch that the log gets: apply, hash the events, chain.

`seal_with` gives the quick way for the engine in C, one call for all of it (csrc/seal.h), and for any other engine the
same steps one by one. Both give the same bytes; a test compares them. Pure.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from zexchange.engine import Engine
from zexchange.engine_types import MatchingEngine
from zexchange.log import journal
from zexchange.matcher.inbox import Inbox
from zexchange.native import ffi, lib


class Sealed(NamedTuple):
    """One batch. `records` is how many frames of the body are in it, at least one."""

    batch: bytes
    first_record_no: int
    records: int
    events: bytes
    """The event blocks, 168 bytes each."""


class Seal(Protocol):
    """Keeps the chain from batch to batch."""

    def apply(self, body: bytes, now_ns: int) -> Sealed:
        """Applies whole, well-formed frames. Log time is `now_ns`, or just behind the last batch if that is
        later."""

    def apply_taken(self, inbox: Inbox, now_ns: int) -> Sealed:
        """The same for the frames taken from an inbox; those that were applied leave it."""


def seal_with(engine: MatchingEngine, epoch: int, chain: bytes) -> Seal:
    """The seal of one writer: `chain` is that of the tip, `epoch` the writer's own."""
    if isinstance(engine, Engine):
        return NativeSeal(engine, epoch, chain)
    return _StepwiseSeal(engine, epoch, chain)


class NativeSeal:
    """The quick way; its parts can be used by other calls into C."""

    def __init__(self, engine: Engine, epoch: int, chain: bytes) -> None:
        self._engine = engine
        self._shard = self.engine_handle = engine.handle
        self._seal = self.handle = ffi.new("seal *")
        self._seal.epoch = epoch
        ffi.memmove(self._seal.chain, chain, len(chain))
        self._batch = ffi.buffer(self._seal.batch)
        self._events = ffi.buffer(self._shard.events, lib.ENGINE_EVENTS_BYTES)

    def apply(self, body: bytes, now_ns: int) -> Sealed:
        shard = self._shard
        return self._sealed(
            lib.seal_apply(self._seal, shard, body, len(body), max(shard.log_time_ns + 1, now_ns))
        )

    def apply_taken(self, inbox: Inbox, now_ns: int) -> Sealed:
        shard = self._shard
        return self._sealed(
            lib.seal_apply_taken(self._seal, shard, inbox.handle, max(shard.log_time_ns + 1, now_ns))
        )

    def _sealed(self, error: int) -> Sealed:
        assert error == lib.ZX_OK, f"error {error} for frames that were checked"
        return self.last()

    def last(self) -> Sealed:
        """The last batch, until something else is applied."""
        seal = self._seal
        return Sealed(
            self._batch[: seal.batch_bytes],
            seal.first_record_no,
            seal.records,
            self._events[: seal.events_bytes],
        )


class _StepwiseSeal:
    def __init__(self, engine: MatchingEngine, epoch: int, chain: bytes) -> None:
        self._engine = engine
        self._epoch = epoch
        self._chain = chain

    def apply(self, body: bytes, now_ns: int) -> Sealed:
        engine = self._engine
        first_record_no, first_seq = engine.next_record_no, engine.next_seq
        log_time_ns = max(engine.log_time_ns + 1, now_ns)
        applied = engine.apply(body, log_time_ns)
        assert applied.records > 0, "the event buffer has room for any one frame"
        events = bytes(applied.events)
        batch = journal.encode_batch(
            shard=engine.shard,
            epoch=self._epoch,
            first_record_no=first_record_no,
            first_seq=first_seq,
            count=applied.records,
            log_time_ns=log_time_ns,
            chain_before=self._chain,
            body=body[: applied.consumed_bytes],
            events_hash=journal.events_hash(events),
        )
        self._chain = journal.chain_after_of(batch)
        return Sealed(batch, first_record_no, applied.records, events)

    def apply_taken(self, inbox: Inbox, now_ns: int) -> Sealed:
        sealed = self.apply(inbox.body(), now_ns)
        inbox.commit(sealed.records)
        return sealed
