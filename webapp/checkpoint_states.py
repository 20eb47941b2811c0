"""The state exactly as a signed checkpoint has it, for proofs of balances.

    snapshot below the checkpoint ──log, up to the checkpoint's size──▶ engine with a state tree ──▶ account's path

The replica that everything else is asked of is no use here: it stands at the end of the log, where nothing is
signed yet, and which size settlement signs next is not known in advance. So there is a second engine per shard,
which only moves when a proof is wanted, and only to the newest checkpoint.

What a proof costs is bounded: settlement leaves a snapshot every `settlement.snapshot_every_records`, so the first
one reads a snapshot and replays at most that many records and a checkpoint's worth; those after it replay what was
signed since. Keeping a state tree in the follower would cost every batch its hashes whether anybody asks or not,
and still stand at the wrong place. The engines are let go when nobody has asked for a while.

Not thread safe: `web` gives it a thread of its own, so that a long replay keeps nobody waiting but those who want a
proof."""

from __future__ import annotations

from collections.abc import Callable

from zexchange.engine import Engine
from zexchange.engine_types import AccountInState
from zexchange.genesis import Genesis
from zexchange.log.history import LogHistory
from zexchange.log.journal import ChainState
from zexchange.log.stream import StreamClient
from zexchange.runtime.paths import DataPaths
from zexchange.verification.checkpoint import CheckpointLeaf, ShardTip
from zexchange.verification.replay import Replay
from zexchange.verification.replica import Mismatch
from zexchange.verification.snapshot import newest_valid, snapshot_numbers

__all__ = ["IDLE_S", "CheckpointStates"]

IDLE_S = 600.0
"""Without a question for so long the engines are let go."""
_CHUNK_BATCHES = 64


class CheckpointStates:
    """One engine per shard that stands at a checkpoint."""

    def __init__(
        self, paths: DataPaths, genesis: Genesis, client: StreamClient, now: Callable[[], float]
    ) -> None:
        self._paths = paths
        self._genesis = genesis
        self._client = client
        self._now = now
        self._replays: dict[int, Replay] = {}
        self._asked_at = 0.0

    def account(self, account_id: int, checkpoint: CheckpointLeaf) -> list[AccountInState]:
        """An account in the state of every shard as this checkpoint signs it, by ascending shard.

        Raises Mismatch or BatchInvalid if the log does not give what was signed, StoreUnavailable, StoreRefused,
        OSError."""
        self._asked_at = self._now()
        found = []
        for tip in checkpoint.shards:
            try:
                engine = self._at(tip)
            except BaseException:
                self._replays.pop(tip.shard, None)
                raise
            found.append(engine.prove_account(account_id))
        return found

    def sweep(self) -> None:
        """Lets the engines go if nobody asks."""
        if self._now() - self._asked_at > IDLE_S:
            self._replays.clear()

    def _at(self, tip: ShardTip) -> Engine:
        """The engine of a shard, at this position."""
        replay = self._replays.get(tip.shard)
        reached = 0 if replay is None else replay.state.next_record_no
        if (
            replay is None
            or reached > tip.log_size
            or self._has_snapshot_between(tip.shard, reached, tip.log_size)
        ):
            # First the memory of the old one: an engine may be large.
            del replay
            self._replays.pop(tip.shard, None)
            replay = self._replays[tip.shard] = self._restored(tip)
        state = replay.state
        if state.next_record_no < tip.log_size:
            history = LogHistory(self._paths, self._client, tip.shard)
            for chunk in history.chunks(state.next_record_no, state.epoch, count=_CHUNK_BATCHES):
                for stored in chunk:
                    if stored.id.record_no < tip.log_size:
                        replay.apply(stored)
                if replay.state.next_record_no >= tip.log_size:
                    break
        engine, state = replay.engine, replay.state
        assert isinstance(engine, Engine)
        for what, expected, found in (
            ("log size", tip.log_size, state.next_record_no),
            ("chain", tip.chain, state.chain),
            ("state root", tip.state_root, engine.state_root()),
        ):
            if expected != found:
                raise Mismatch(tip.shard, tip.log_size - 1, f"{what} of the checkpoint", expected, found)
        return engine

    def _has_snapshot_between(self, shard: int, reached: int, log_size: int) -> bool:
        return any(reached < number <= log_size for number in snapshot_numbers(self._paths, shard))

    def _restored(self, tip: ShardTip) -> Replay:
        """From the newest snapshot that is not beyond the checkpoint, or from the beginning."""
        found = newest_valid(self._paths, self._genesis, tip.shard, Engine, at_most=tip.log_size)
        if found is None:
            engine = Engine(self._genesis, tip.shard)
            return Replay(engine, ChainState.genesis(self._genesis.deployment_id))
        restored, header = found
        position = ChainState(
            header.epoch, header.next_record_no, header.next_seq, header.chain, restored.log_time_ns
        )
        return Replay(restored, position)
