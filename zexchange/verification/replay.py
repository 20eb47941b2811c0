"""Following a log without trees and signatures: for a matcher that recovers, and for whoever shows what happened.

Batches come in, events come out; each batch must follow the one before, and give the events that it says it gave.
Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zexchange.engine_types import MalformedFrame, MatchingEngine
from zexchange.log import journal
from zexchange.log.journal import BatchInvalid, ChainState, LogBatch
from zexchange.verification.replica import StoredBatch

if TYPE_CHECKING:
    from zexchange.verification.quick_replay import QuickReplay

__all__ = ["Replay"]


class Replay:
    """Applies batches that follow one another, and compares what the engine makes of them with what they say."""

    def __init__(self, engine: MatchingEngine, state: ChainState) -> None:
        self.engine = engine
        self._state = state
        self._quick: QuickReplay | None = None
        self._quick_is_ahead = False
        if hasattr(engine, "handle"):
            # Not imported with the module: with the reference engine none of our C is loaded.
            from zexchange.verification.quick_replay import QuickReplay

            self._quick = QuickReplay(engine.handle)
            self._quick.begin(state, None)

    @property
    def state(self) -> ChainState:
        """Behind the last batch."""
        if self._quick_is_ahead and self._quick is not None:
            self._quick_is_ahead = False
            self._state = self._quick.position()
        return self._state

    def apply(self, stored: StoredBatch) -> bytes:
        """Apply the next batch; returns its events. Raises `BatchInvalid`; the engine must then not be used any
        more."""
        quick = self._quick
        if quick is not None:
            outcome = quick.redo(stored.id.epoch, stored.id.record_no, stored.raw)
            if outcome:
                self._quick_is_ahead = True
                return quick.events()
            if outcome is None:
                _decoded(stored, self.engine.shard)
                raise BatchInvalid("replaying gives other events than were recorded", stored.id.record_no)
        self._state, events = self._apply(self.state, _decoded(stored, self.engine.shard))
        if quick is not None:
            quick.begin(self._state, None)
        return events

    def _apply(self, state: ChainState, batch: LogBatch) -> tuple[ChainState, bytes]:
        journal.check_follows(state, batch)
        try:
            applied = self.engine.apply(batch.body, batch.log_time_ns)
        except MalformedFrame as error:
            raise BatchInvalid(f"malformed frame: {error}", batch.first_record_no) from error
        if applied.records != batch.count:
            raise BatchInvalid(
                f"the engine takes {applied.records} of {batch.count} records at once", batch.first_record_no
            )
        events = bytes(applied.events)
        if journal.events_hash(events) != batch.events_hash:
            raise BatchInvalid("replaying gives other events than were recorded", batch.first_record_no)
        return state.after(batch, self.engine.next_seq), events


def _decoded(stored: StoredBatch, shard: int) -> LogBatch:
    """Raises `BatchInvalid`."""
    try:
        batch = journal.decode_batch(stored.raw, shard=shard)
    except BatchInvalid as error:
        raise BatchInvalid(error.reason, error.record_no or stored.id.record_no) from None
    if batch.id != stored.id:
        raise BatchInvalid(f"entry {stored.id} holds the batch {batch.id}", stored.id.record_no)
    return batch
