"""Settlement: follows the log with a replica per shard, and signs what it has verified.

Once per interval it signs a checkpoint of the tips of all shards, also when nothing has happened; every so
many records it writes a snapshot and a segment of the archive behind it. It signs nothing past what it has
replayed, and the moment a batch, a signature or an events hash is not what replaying gives, or the log is
shorter than what was signed, it stops for good and says which record it was.

`SettlementCore` is pure. `Settlement` adds files, store and clock, all handed in; `run` is the process.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct
from nacl.signing import SigningKey

from zexchange.config import Config, SettlementSection
from zexchange.genesis import Genesis
from zexchange.log import journal
from zexchange.log.archive import SegmentInvalid
from zexchange.log.history import LogHistory, StreamCursor, read_streams
from zexchange.log.journal import BatchInvalid, EntryId
from zexchange.log.stream import StoreRefused, StoreUnavailable, StreamClient
from zexchange.runtime import durable
from zexchange.runtime.exchange_info import take_lock
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.pinning import CORES_NEEDED, physical_cores
from zexchange.runtime.process import ProcessContext, Refused
from zexchange.settlement.archive_check import require_archive
from zexchange.settlement.publication import CheckpointStream
from zexchange.settlement.store_record import record_store
from zexchange.settlement.upkeep import Upkeep
from zexchange.verification.checkpoint import (
    CheckpointInvalid,
    CheckpointJournal,
    CheckpointLogCorrupt,
    ShardTip,
    SigningRefused,
)
from zexchange.verification.replica import (
    EngineClass,
    Mismatch,
    Replica,
    SignatureCheck,
    StoredBatch,
    verify_signatures,
)
from zexchange.verification.snapshot import (
    SnapshotHeader,
    capture,
    newest_valid,
    replica_from,
    snapshot_numbers,
)

__all__ = ["LogRegressed", "Settlement", "SettlementCore", "run"]

READ_COUNT = 64
"""Batches per read: at 64 KiB each 4 MiB, and enough frames for one call to verify them all."""
BLOCK_MS = 200
"""Longest wait for the log, so that a request to stop is noticed soon."""
REST_MS = 20
"""Pause after each read that reached the end of the log. Chasing every batch as it is written takes the store and
a core from the matcher just when it wants to answer: with two cores that doubled the median latency. Longer
pauses make longer bursts of work, which show in the 99th percentile."""
RETRY_MS = 100
"""Pause before a store that is away is asked again."""
EVERYSEC_DELAY_MS = 2_500
"""With `everysec` the store may lose two seconds on a power cut; what is signed must be older."""
NICE = 10
"""How much less urgent than trading: settlement works in bursts, and where it shares a core an order must not wait
for the end of one. It still gets a tenth of a core that is busy all the time."""
SETTLEMENT_LOCK = "settlement"


class LogRegressed(Exception):
    """The log of a shard does not reach what was signed or replayed before: it went backwards."""

    def __init__(self, shard: int, known: int, found: int) -> None:
        super().__init__(
            f"shard {shard}: the log went backwards: it ends with record {found}, but record {known} is known"
        )
        self.shard = shard
        self.known = known
        self.found = found


class SettlementCore:
    """The replicas of all shards, and the tips of the last checkpoint that they still have to pass."""

    def __init__(self, replicas: Sequence[Replica], signed: Sequence[ShardTip]) -> None:
        """`signed` are the tips of the newest checkpoint. A replica must not be beyond its tip. Raises
        Mismatch.
        """
        self.replicas = {replica.shard: replica for replica in replicas}
        self._unconfirmed = {tip.shard: tip for tip in signed}
        for replica in replicas:
            self._confirm(replica)

    def apply(self, shard: int, batches: Sequence[StoredBatch]) -> int:
        """Redoes the next batches of a shard; returns the number of records. Raises Mismatch."""
        replica = self.replicas[shard]
        return replica.apply(batches, lambda: self._confirm(replica))

    def unconfirmed(self) -> list[ShardTip]:
        """Signed tips that the replicas have not reached yet. Nothing may be signed while there are any."""
        return list(self._unconfirmed.values())

    def tips(self) -> tuple[ShardTip, ...]:
        """Where the replicas are, by ascending shard."""
        return tuple(self.replicas[shard].tip() for shard in sorted(self.replicas))

    def _confirm(self, replica: Replica) -> None:
        """What was signed must be what this replay gives."""
        tip = self._unconfirmed.get(replica.shard)
        if tip is None:
            return
        next_record_no = replica.position.next_record_no
        if next_record_no < tip.log_size:
            return
        if next_record_no > tip.log_size:
            raise Mismatch(
                replica.shard,
                tip.log_size,
                "first record behind the last checkpoint",
                "a batch begins",
                "none does",
            )
        replica.compare(tip, "the last checkpoint")
        del self._unconfirmed[replica.shard]


class _Observed(Struct, frozen=True):
    """Tips seen at one instant, to be signed once the store cannot lose them any more."""

    tips: tuple[ShardTip, ...]
    at_ms: int
    snapshots: tuple[tuple[SnapshotHeader, bytes], ...]


class Settlement:
    """Follows, signs and keeps. The caller owns the loop: `recover()` once, then `follow()` and `tick()` by
    turns.
    """

    def __init__(
        self,
        paths: DataPaths,
        genesis: Genesis,
        key: SigningKey,
        settings: SettlementSection,
        client: StreamClient,
        engine_class: EngineClass,
        *,
        delay_ms: int = 0,
        check_signatures: SignatureCheck | None = verify_signatures,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        log: logging.Logger | None = None,
    ) -> None:
        """`delay_ms`: how old a tip must be before it is signed. `check_signatures` None leaves the signatures to
        the ingress workers.

        Opens the files: raises CheckpointLogCorrupt, CheckpointInvalid, SigningRefused (also if a part of the
        archive is missing), SegmentInvalid, OSError.
        """
        if bytes(key.verify_key) != genesis.settlement_public_key:
            raise SigningRefused(
                "the settlement key is not the one that the genesis file names: restore it from the backup"
            )
        self._paths = paths
        self._genesis = genesis
        self._settings = settings
        self._client = client
        self._engine_class = engine_class
        self._delay_ms = delay_ms
        self._check_signatures = check_signatures
        self._now_ns = now_ns
        self._monotonic_ms = monotonic_ms
        self._log = log or logging.getLogger("zexchange.settlement.process")
        self._core = SettlementCore([], [])
        self._observed: deque[_Observed] = deque()
        self._signed: deque[_Observed] = deque()
        self.behind = False
        """The last `follow` found so much that the log probably holds more."""
        self._due_ms = 0
        self._snapshot_at: dict[int, int] = {}
        self._upkeep = Upkeep(paths, client, genesis.shards, genesis.deployment_id, settings, self._log)
        durable.remove_leftovers(paths.settlement)
        self._journal = CheckpointJournal(paths.settlement, genesis.name, genesis.shards, key)
        try:
            require_archive(paths, genesis.shards, self._journal.last)
        except BaseException:
            self._journal.close()
            raise
        self._stream = CheckpointStream(client, settings.published_checkpoints)
        if self._journal.truncated_bytes:
            self._log.warning(
                "unfinished checkpoint cut off", extra={"zx": {"bytes": self._journal.truncated_bytes}}
            )

    def close(self) -> None:
        self._journal.close()

    @property
    def checkpoints(self) -> int:
        """Number of checkpoints signed."""
        return self._journal.size

    def recover(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Brings the replicas from their newest snapshots to the end of the log. False if it was asked to
        stop.

        May be called again after it raised StoreUnavailable or StoreRefused. Raises Mismatch, LogRegressed,
        SigningRefused.
        """
        self._stream.reconcile(self._journal.log_path, self._genesis.shards)
        last = self._journal.last
        signed = () if last is None else last.shards
        if last is None and any(
            snapshot_numbers(self._paths, shard) for shard in range(self._genesis.shards)
        ):
            raise SigningRefused("there are snapshots but no checkpoints: the settlement folder was lost")
        core = SettlementCore([self._replica(shard, signed) for shard in range(self._genesis.shards)], signed)
        for shard, replica in core.replicas.items():
            begin = replica.position
            history = LogHistory(self._paths, self._client, shard)
            for chunk in history.chunks(begin.next_record_no, begin.epoch, count=READ_COUNT):
                core.apply(shard, chunk)
                if stopping():
                    return False
            self._log.info(
                "recovered",
                extra={
                    "zx": {
                        "shard": shard,
                        "from_record": begin.next_record_no,
                        "next_record": replica.position.next_record_no,
                    }
                },
            )
        for tip in core.unconfirmed():
            reached = core.replicas[tip.shard].position.next_record_no - 1
            raise LogRegressed(tip.shard, tip.log_size - 1, reached)
        self._core = core
        self._due_ms = self._monotonic_ms()
        self.check_log()
        return True

    def check_log(self) -> None:
        """Checks that each log still ends with what was replayed, or goes on behind it: after every
        reconnection.

        Raises LogRegressed, Mismatch, StoreUnavailable, StoreRefused.
        """
        for shard, replica in self._core.replicas.items():
            position = replica.position
            stored = StreamCursor(self._client, shard).tip()
            if stored is None:
                if position.next_record_no > 1:
                    raise LogRegressed(shard, position.next_record_no - 1, 0)
                continue
            try:
                batch = journal.decode_batch(stored.raw, shard=shard)
            except BatchInvalid as error:
                raise Mismatch(shard, stored.id.record_no, "newest batch", "intact", error.reason) from error
            if batch.next_record_no < position.next_record_no:
                raise LogRegressed(shard, position.next_record_no - 1, batch.next_record_no - 1)
            if batch.next_record_no == position.next_record_no and batch.chain_after != position.chain:
                raise Mismatch(shard, batch.first_record_no, "chain", position.chain, batch.chain_after)

    def follow(self, block_ms: int) -> int:
        """Waits for news of the log and redoes them; returns the number of records.

        Raises Mismatch, StoreUnavailable, StoreRefused.
        """
        cursors = {shard: _cursor(replica) for shard, replica in self._core.replicas.items()}
        found = read_streams(self._client, cursors, READ_COUNT, block_ms)
        # Markers count in a read too, so a full one may hold a few batches less.
        self.behind = any(2 * len(batches) > READ_COUNT for _, batches in found.values())
        records = 0
        for shard, (_, batches) in found.items():
            if batches:
                records += self._core.apply(shard, batches)
        return records

    def wait_ms(self) -> int:
        """Milliseconds until `tick` has something to do, at least 1 and at most BLOCK_MS."""
        return min(max(self._due_ms - self._monotonic_ms(), 1), BLOCK_MS)

    def tick(self) -> int:
        """Signs what is due; returns the number of checkpoints signed.

        A store that is away delays publication, archive and trimming, not the signing. Raises SigningRefused,
        Mismatch, SegmentInvalid, OSError.
        """
        now_ms = self._monotonic_ms()
        if now_ms >= self._due_ms:
            interval_ms = self._settings.checkpoint_interval_ms
            self._due_ms = max(self._due_ms + interval_ms, now_ms + interval_ms // 2)
            self._observed.append(self._observe(now_ms, self._settings.snapshot_every_records))
        signed = 0
        while self._observed and now_ms - self._observed[0].at_ms >= self._delay_ms:
            self._sign(self._observed.popleft())
            signed += 1
        return signed

    def keep(self) -> None:
        """Writes the snapshots that belong to what was signed, and archives below it.

        Raises as `tick`.
        """
        while self._signed:
            observed = self._signed.popleft()
            for header, engine_snapshot in observed.snapshots:
                self._upkeep.write_snapshot(header, engine_snapshot)
            try:
                self._upkeep.archive_one(observed.tips)
            except (StoreUnavailable, StoreRefused) as error:
                self._log.warning("nothing archived", extra={"zx": {"reason": str(error)}})

    def finish(self) -> None:
        """On a clean stop: redoes the rest of the log, signs it and leaves a snapshot of every shard that has
        moved.

        Where tips must be old before they are signed (`delay_ms`) this is left to the next start. Raises as
        `follow` and `tick`.
        """
        try:
            while self.follow(1):
                pass
            self.check_log()
        except (StoreUnavailable, StoreRefused) as error:
            self._log.warning("the store is gone already", extra={"zx": {"reason": str(error)}})
        if self._delay_ms == 0:
            self._sign(self._observe(self._monotonic_ms(), 1))
            self.keep()

    def _replica(self, shard: int, signed: Sequence[ShardTip]) -> Replica:
        """From the newest snapshot that is not beyond what was signed, or from genesis."""
        at_most = next((tip.log_size for tip in signed if tip.shard == shard), 1)
        found = newest_valid(self._paths, self._genesis, shard, self._engine_class, at_most=at_most)
        if found is None:
            self._snapshot_at[shard] = 1
            return Replica.at_genesis(self._genesis, shard, self._engine_class, self._check_signatures)
        engine, header = found
        self._snapshot_at[shard] = header.next_record_no
        return replica_from(self._genesis, engine, header, self._check_signatures)

    def _observe(self, now_ms: int, snapshot_every_records: int) -> _Observed:
        """The tips as they are now, and a snapshot of each shard that has moved far enough since its last."""
        tips = self._core.tips()
        snapshots = []
        for tip in tips:
            if tip.log_size - self._snapshot_at[tip.shard] >= snapshot_every_records:
                snapshots.append(capture(self._core.replicas[tip.shard]))
                self._snapshot_at[tip.shard] = tip.log_size
        return _Observed(tips, now_ms, tuple(snapshots))

    def _sign(self, observed: _Observed) -> None:
        leaf = self._journal.next_leaf(self._now_ns(), observed.tips, self._upkeep.archive_digest())
        checkpoint = self._journal.sign(leaf)
        try:
            self._stream.publish(self._journal.size, checkpoint)
        except (StoreUnavailable, StoreRefused) as error:
            self._log.warning(
                "checkpoint not published yet", extra={"zx": {"n": leaf.n, "reason": str(error)}}
            )
        self._signed.append(observed)


def run(context: ProcessContext) -> None:
    """The settlement process, until it is asked to stop. Raises Refused when somebody must look at it."""
    from zexchange import frames
    from zexchange.engine import Engine
    from zexchange.wire import signing

    frames.self_test()
    signing.self_test()
    os.nice(NICE)
    paths, config = context.paths, context.config
    lock = take_lock(paths.lock(SETTLEMENT_LOCK))
    if lock is None:
        raise Refused(f"another settlement process signs for {paths.root}")
    try:
        key = _load_settlement_key(paths.settlement_key)
        _settle_until_stopped(context, config, key, Engine)
    except Mismatch as error:
        context.log.error(
            "MISMATCH: nothing is signed any more",
            extra={
                "zx": {
                    "shard": error.shard,
                    "record_no": error.record_no,
                    "what": error.what,
                    "expected": error.expected,
                    "found": error.found,
                }
            },
        )
        raise Refused(f"mismatch: {error}; nothing is signed any more") from error
    except LogRegressed as error:
        raise Refused(f"{error}; nothing is signed any more") from error
    except (CheckpointInvalid, CheckpointLogCorrupt, SegmentInvalid, SigningRefused) as error:
        raise Refused(f"{error}; nothing is signed any more") from error
    finally:
        os.close(lock)


def verifies_again(config: Config, cores: int) -> bool:
    """Whether every signature is verified a second time before a checkpoint is signed.

    By default where a core is spare for it: with few cores it would cost trading as much as all of trading costs.
    """
    setting = config.settlement.verify_signatures
    return setting == "on" or (setting == "auto" and cores >= CORES_NEEDED)


def _load_settlement_key(path: Path) -> SigningKey:
    """Raises Refused: no other key will do, so there is no point in trying again."""
    from zexchange.client.errors import KeyFileError
    from zexchange.client.keys import load_key

    only = "restore it from the backup: a new key would not be the one that the genesis file names"
    if not path.exists():
        raise Refused(f"no key file {path}; {only}")
    try:
        return load_key(path)
    except KeyFileError as error:
        # Of a key that is there and open to others the message says how to close it.
        raise Refused(str(error) if "chmod" in str(error) else f"{error}; {only}") from None


def _settle_until_stopped(
    context: ProcessContext, config: Config, key: SigningKey, engine_class: EngineClass
) -> None:
    from zexchange.runtime.store import check_store_settings, open_store

    client = open_store(context.paths, config)
    settlement = Settlement(
        context.paths,
        context.genesis,
        key,
        config.settlement,
        client,
        engine_class,
        delay_ms=0 if config.store.fsync == "always" else EVERYSEC_DELAY_MS,
        check_signatures=verify_signatures if verifies_again(config, len(physical_cores())) else None,
        log=context.log,
    )
    try:
        connected = recovered = False
        while not context.stopping:
            try:
                if not connected:
                    _ask(lambda: check_store_settings(client, config.store.fsync))
                    if not recovered:
                        recovered = settlement.recover(lambda: context.stopping)
                        if recovered:
                            record_store(context.paths, config.store.url)
                        continue
                    settlement.check_log()
                    connected = True
                # A wait as long as the client's patience would look like a store that is away.
                followed = settlement.follow(min(settlement.wait_ms(), config.store.timeout_ms // 2))
                if followed and not settlement.behind:
                    rest_ms = min(settlement.wait_ms(), REST_MS)
                    select.select([context.stop_fd], [], [], rest_ms / 1000)
            except (StoreUnavailable, StoreRefused) as error:
                if connected or not recovered:
                    context.log.warning("the store does not answer", extra={"zx": {"reason": str(error)}})
                connected = False
                select.select([context.stop_fd], [], [], RETRY_MS / 1000)
            if recovered:
                settlement.tick()
                # Before the rest: after a start with much to replay there is much to archive.
                context.ready(checkpoints=settlement.checkpoints)
                settlement.keep()
        if recovered:
            settlement.finish()
    finally:
        settlement.close()
        client.close()


def _ask(call: Callable[[], None]) -> None:
    """Runs a call that lets redis-py's errors pass, with ours instead."""
    import redis.exceptions

    try:
        call()
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise StoreUnavailable(str(error)) from error


def _cursor(replica: Replica) -> EntryId:
    """Behind the last batch of the replica, before whatever comes next: in its epoch or a later one."""
    position = replica.position
    return EntryId(position.epoch, position.next_record_no - 1)
