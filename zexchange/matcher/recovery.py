"""A matcher's way back: newest valid snapshot, then archive and log behind it up to our own marker, checked
batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from zexchange.engine_types import MatchingEngine
from zexchange.genesis import Genesis
from zexchange.log.history import LogHistory
from zexchange.log.journal import BatchInvalid, ChainState, EntryId, LogBatch, LogReader
from zexchange.log.stream import StreamClient
from zexchange.matcher.queries import RecentTrades
from zexchange.runtime.paths import DataPaths
from zexchange.verification.checkpoint import CheckpointInvalid, SigningRefused
from zexchange.verification.replay import Replay
from zexchange.verification.replica import EngineClass, Mismatch
from zexchange.verification.snapshot import known_floor, newest_valid

_EVENTS_KEPT_BYTES = 32 * 1024 * 1024
"""Of what was replayed last, events in which recent trades are looked for."""

ENTRIES_PER_READ = 256
"""At 64 KiB each this is 16 MiB: below any output limit of the store, and enough to hide the round trip."""


class LogUnusable(Exception):
    """The log cannot be what this shard has acknowledged. Trading on it would lose orders, so nobody may."""


class Recovered(Struct):
    """A shard as of the last record before our marker."""

    engine: MatchingEngine
    state: ChainState
    trades: RecentTrades
    replayed: int
    """Records replayed behind the snapshot."""


def recover(
    paths: DataPaths,
    genesis: Genesis,
    shard: int,
    engine_class: EngineClass,
    client: StreamClient,
    marker: EntryId,
    *,
    ready_orders: int = 0,
    stopping: Callable[[], bool] = lambda: False,
) -> Recovered:
    """The state at `marker`, which the caller has just written: nothing can be added below it any more.

    Memory is made ready for `ready_orders` open orders. What the log no longer has is read from the archive:
    without any snapshot, everything. Raises
    `LogUnusable` when both together have a hole or are damaged, or end before what snapshots, checkpoints or
    the archive know of; `StoreUnavailable`, `StoreRefused`; `InterruptedError` as soon as `stopping()` says
    so.
    """
    engine, begin = _starting_point(paths, genesis, shard, engine_class)
    engine.make_ready(ready_orders)
    replay = Replay(engine, begin)
    recent = _RecentEvents()
    begin_record_no = replay.state.next_record_no
    reader = LogReader(client, shard)
    try:
        newest = reader.tip()
        if newest is None or newest.id < marker:
            raise LogUnusable(f"shard {shard}: the marker {marker} is gone from the log")
        last = reader.last_batch(marker)
        if last is not None:
            history = LogHistory(paths, client, shard)
            for chunk in history.chunks(
                replay.state.next_record_no, replay.state.epoch, until=last.id, count=ENTRIES_PER_READ
            ):
                if stopping():
                    raise InterruptedError("asked to stop while replaying the log")
                for stored in chunk:
                    recent.add(replay.apply(stored))
    except (BatchInvalid, Mismatch) as error:
        raise LogUnusable(f"shard {shard}: the log cannot be replayed: {error}") from error
    state = replay.state
    _check_tip(paths, shard, last, state)
    trades = RecentTrades()
    for events in recent.kept:
        trades.observe(events)
    return Recovered(replay.engine, state, trades, state.next_record_no - begin_record_no)


def _starting_point(
    paths: DataPaths, genesis: Genesis, shard: int, engine_class: EngineClass
) -> tuple[MatchingEngine, ChainState]:
    found = newest_valid(paths, genesis, shard, engine_class, track_state=False)
    if found is None:
        engine = engine_class(genesis, shard, track_state=False)
        return engine, ChainState.genesis(genesis.deployment_id)
    engine, header = found
    return engine, ChainState(
        header.epoch, header.next_record_no, header.next_seq, header.chain, engine.log_time_ns
    )


def _check_tip(paths: DataPaths, shard: int, last: LogBatch | None, state: ChainState) -> None:
    """The log must reach as far as anything we ever wrote down, and end where we are."""
    tip = last.next_record_no - 1 if last is not None else 0
    try:
        floor = max(known_floor(paths, shard), state.next_record_no - 1)
    except (SigningRefused, CheckpointInvalid) as error:
        raise LogUnusable(f"shard {shard}: how far the log must reach is not known: {error}") from error
    if tip < floor:
        raise LogUnusable(
            f"shard {shard}: the log went backwards: it ends with record {tip}, but snapshots, checkpoints "
            f"or the archive know record {floor}; restore the store's files first"
        )
    if last is not None and (last.next_record_no, last.chain_after) != (state.next_record_no, state.chain):
        raise LogUnusable(
            f"shard {shard}: the log ends with another record {tip} than what was replayed or the snapshot "
            "knows"
        )


class _RecentEvents:
    """The events of the last batches: to look at all of them for trades would take longer than to make them."""

    def __init__(self) -> None:
        self.kept: deque[bytes] = deque()
        self._bytes = 0

    def add(self, events: bytes) -> None:
        self.kept.append(events)
        self._bytes += len(events)
        while self._bytes - len(self.kept[0]) >= _EVENTS_KEPT_BYTES:
            self._bytes -= len(self.kept.popleft())
