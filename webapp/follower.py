"""Follows the logs of all shards behind the exchange: a replica engine per shard, and the history of what it said.

    store ──XREAD, in a thread──▶ batches ──▶ Replay ──events──▶ History ──▶ on_change

Nothing is asked of the matchers, so nothing here can slow trading down; and whatever is shown is on disk. The engines
and the history belong to the event loop's thread; only reading the store happens in another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import redis.exceptions

from webapp.checkpoint_states import CheckpointStates
from webapp.entered import EnteredOrders
from webapp.history import History, Touched
from webapp.outcomes import Outcomes
from webapp.records import RecordTree
from webapp.settlement_log import SettlementLog
from zexchange.config import Config
from zexchange.definitions import Definitions
from zexchange.engine import Engine
from zexchange.engine_types import AccountInState
from zexchange.genesis import Genesis, Market
from zexchange.limits import ASSETS_MAX, MARKETS_MAX
from zexchange.log.history import LogHistory, read_streams
from zexchange.log.journal import BatchInvalid, ChainState, EntryId, LogReader
from zexchange.log.stream import StoreRefused, StoreUnavailable
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.process import Refused
from zexchange.runtime.stages import VISIBLE, StageTimes
from zexchange.runtime.store import check_store_settings, open_store
from zexchange.verification.checkpoint import CheckpointLeaf, CheckpointLogCorrupt, SignedCheckpoint
from zexchange.verification.replay import Replay
from zexchange.verification.replica import Mismatch, StoredBatch
from zexchange.verification.snapshot import newest_valid

HISTORY_RECORDS = 2_000_000
"""A log of at most so many records is replayed from its beginning, so that candles and histories are whole; of a
longer one the part behind the newest snapshot."""

_BLOCK_MS = 200
_READ_COUNT = 64
_TURN_NS = 20_000_000
"""Longest replay between two looks at the clients."""
_RETRY_S = 0.5
_REACHED_TIMEOUT_S = 5.0

T = TypeVar("T")

OnChange = Callable[[int, Touched], None]
"""(shard, whom and what it concerns) of one batch."""


class Follower:
    """Engines, history and checkpoints of a deployment, as of the end of the log or a moment before."""

    def __init__(
        self,
        paths: DataPaths,
        genesis: Genesis,
        config: Config,
        log: logging.Logger,
        on_change: OnChange,
        times: StageTimes,
    ) -> None:
        """`times` counts how long it was until a batch was visible here."""
        self._paths = paths
        self._genesis = genesis
        self._config = config
        self._log = log
        self._on_change = on_change
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._client = open_store(paths, config)
        self._prover = ThreadPoolExecutor(1, thread_name_prefix="proofs")
        self._prover_client = open_store(paths, config)
        self._states = CheckpointStates(paths, genesis, self._prover_client, time.monotonic)
        self._replays: dict[int, Replay] = {}
        self._times = times
        self.history = History()
        self.outcomes = Outcomes()
        self.entered = EnteredOrders()
        self.definitions = Definitions(genesis)
        self._learned: dict[int, tuple[int, int]] = {}
        """By shard: how many of its assets are known, and markets as of which record."""
        self.on_definitions: Callable[[Sequence[Market]], None] = lambda _markets: None
        """Called with markets that are new or have other sizes, before anybody hears of what happens in them."""
        self.checkpoints = SettlementLog(paths.checkpoints_log, genesis.shards)
        self.records = {shard: RecordTree(genesis, shard) for shard in range(genesis.shards)}
        self.on_checkpoints: Callable[[Sequence[SignedCheckpoint]], None] = lambda _new: None
        self._awaited: list[tuple[int, int, asyncio.Future[None]]] = []
        self.visible_ns: deque[int] = deque(maxlen=4_096)
        """Of the newest batches: from the log time to when they were seen here."""
        self.caught_up = False
        self.store_answers = False
        self.read_at_ns = 0
        """Monotonic; when the end of the log was last reached."""

    def engine(self, shard: int) -> Engine:
        """The replica of a shard, for questions. Raises KeyError before it exists."""
        engine = self._replays[shard].engine
        assert isinstance(engine, Engine)
        return engine

    def engines(self) -> dict[int, Engine]:
        return {shard: self.engine(shard) for shard in self._replays}

    def close(self) -> None:
        """Releases the store and the thread."""
        self._executor.shutdown()
        self._prover.shutdown(cancel_futures=True)
        self._client.close()
        self._prover_client.close()

    async def run(self) -> None:
        """Follows until it is cancelled. Raises Refused when the log cannot be what the exchange wrote."""
        try:
            while True:
                try:
                    await self._in_thread(
                        lambda: check_store_settings(self._client, self._config.store.fsync)
                    )
                    await self._follow()
                except (
                    StoreUnavailable,
                    StoreRefused,
                    redis.exceptions.RedisError,
                    OSError,
                ) as error:
                    if self.store_answers:
                        self._log.warning("the store does not answer", extra={"zx": {"reason": str(error)}})
                    self.store_answers = False
                    await asyncio.sleep(_RETRY_S)
        except (Mismatch, BatchInvalid, CheckpointLogCorrupt) as error:
            raise Refused(f"the log cannot be followed: {error}") from error

    async def _follow(self) -> None:
        for shard in range(self._genesis.shards):
            if shard not in self._replays:
                self._replays[shard] = await self._start(shard)
                self._learn(shard)
            replay = self._replays[shard]
            state = replay.state
            chunks = LogHistory(self._paths, self._client, shard).chunks(
                state.next_record_no, state.epoch, count=_READ_COUNT
            )
            while chunk := await self._in_thread(partial(next, chunks, None)):
                await self._apply(shard, chunk)
        while True:
            cursors = {shard: _cursor(replay.state) for shard, replay in self._replays.items()}
            found = await self._in_thread(
                partial(read_streams, self._client, cursors, _READ_COUNT, _BLOCK_MS)
            )
            self.store_answers = True
            for shard, (_, batches) in found.items():
                await self._apply(shard, batches)
            await self._read_checkpoints()
            if not any(2 * len(batches) > _READ_COUNT for _, batches in found.values()):
                self.read_at_ns = time.monotonic_ns()
                if not self.caught_up:
                    self.caught_up = True
                    self._log.info(
                        "caught up",
                        extra={
                            "zx": {
                                str(shard): replay.state.next_record_no - 1
                                for shard, replay in self._replays.items()
                            }
                        },
                    )

    async def _start(self, shard: int) -> Replay:
        """From the beginning, or from the newest snapshot if the log is long."""
        tip = await self._in_thread(lambda: LogReader(self._client, shard).last_batch(_END))
        if tip is not None and tip.next_record_no > HISTORY_RECORDS:
            found = await self._in_thread(
                lambda: newest_valid(self._paths, self._genesis, shard, Engine, track_state=False)
            )
            if found is not None:
                engine, header = found
                self.records[shard].begin(header.next_record_no, header.epoch)
                return Replay(
                    engine,
                    ChainState(
                        header.epoch,
                        header.next_record_no,
                        header.next_seq,
                        header.chain,
                        engine.log_time_ns,
                    ),
                )
        engine = Engine(self._genesis, shard, track_state=False)
        return Replay(engine, ChainState.genesis(self._genesis.deployment_id))

    async def _apply(self, shard: int, batches: Sequence[StoredBatch]) -> None:
        replay = self._replays[shard]
        begun_ns = time.monotonic_ns()
        for stored in batches:
            if stored.id.record_no < replay.state.next_record_no:
                continue  # seen before the store went away
            frames = self.records[shard].add(stored)
            events = replay.apply(stored)
            self.entered.add(shard, events, stored.id.record_no, frames)
            self.outcomes.add(shard, events)
            touched = self.history.add(shard, events)
            if touched.defines:
                self._learn(shard)
            self._on_change(shard, touched)
            self._arrived(shard, replay.state.next_record_no)
            if self.caught_up:
                visible_ns = max(0, time.time_ns() - replay.engine.log_time_ns)
                self.visible_ns.append(visible_ns)
                self._times.add(VISIBLE, visible_ns)
            if time.monotonic_ns() - begun_ns > _TURN_NS:
                await asyncio.sleep(0)
                begun_ns = time.monotonic_ns()

    async def reached(self, shard: int, record_no: int) -> None:
        """Returns when the replica has this record. Raises TimeoutError if that takes too long."""
        if self._replays[shard].state.next_record_no > record_no:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((shard, record_no, future))
        await asyncio.wait_for(future, _REACHED_TIMEOUT_S)

    def _arrived(self, shard: int, next_record_no: int) -> None:
        left = []
        for one in self._awaited:
            if one[0] == shard and one[1] < next_record_no:
                if not one[2].done():
                    one[2].set_result(None)
            elif not one[2].done():
                left.append(one)
        self._awaited = left

    def _learn(self, shard: int) -> None:
        """Take in what the shard has defined since the last look."""
        engine = self._replays[shard].engine
        assets_known, since_record_no = self._learned.get(shard, (len(self._genesis.assets), 1))
        assets = engine.assets(assets_known, ASSETS_MAX)
        markets, _ = engine.markets(since_record_no, 0, MARKETS_MAX)
        self._learned[shard] = assets_known + len(assets), engine.next_record_no
        self.on_definitions(self.definitions.learn(shard, assets, markets))

    async def _read_checkpoints(self) -> None:
        new = await self._in_thread(self.checkpoints.poll)
        if new:
            self.on_checkpoints(new)

    async def frame(self, shard: int, record_no: int) -> bytes:
        """The signed frame that is this record. Raises KeyError, Mismatch, StoreUnavailable, StoreRefused."""
        records = self.records[shard]
        return await self._in_thread(lambda: records.frame(record_no, self._paths, self._client))

    async def account_at(self, account_id: int, checkpoint: CheckpointLeaf) -> list[AccountInState]:
        """An account in the state of every shard as a checkpoint signs it. Raises as `CheckpointStates.account`."""
        call = partial(self._states.account, account_id, checkpoint)
        return await asyncio.get_running_loop().run_in_executor(self._prover, call)

    def sweep(self) -> None:
        """Lets go what nobody has asked for in a while."""
        self._prover.submit(self._states.sweep)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _cursor(state: ChainState) -> EntryId:
    return EntryId(state.epoch, state.next_record_no - 1)


_END = EntryId(2**63 - 1, 2**63 - 1)
