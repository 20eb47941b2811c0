"""What redoing the log costs: replay with and without signatures, a checkpoint, a restart.

    workload ─▶ engine in C, sealed as a matcher seals ─▶ log in memory ─▶ replica, as settlement and verifier run it
                                                                     └───▶ store ─▶ an exchange that restarts on it

The log is made once; each figure is taken several times, and the median counts. The rate of signature checks is set
against that of libsodium alone, on all cores, measured in the same run and by turns.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from perf.machine import describe_machine
from perf.results import Machine
from perf.workload import SigningJob, sign_frames, trading_commands
from zexchange.client.keys import load_key
from zexchange.config import Config
from zexchange.engine import Engine
from zexchange.frames import verify_frames
from zexchange.genesis import Genesis
from zexchange.limits import COMMANDS_PER_BATCH_MAX, LOG_BODY_BYTES_MAX
from zexchange.log.journal import ChainState, EntryId, decode_batch, iter_frames
from zexchange.log.writer import LogWriter, Retry
from zexchange.matcher.sealing import NativeSeal
from zexchange.runtime.deployment import create_deployment
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.pinning import usable_cpus
from zexchange.runtime.running import RunningExchange
from zexchange.runtime.store import EmbeddedStore, open_store
from zexchange.verification.replica import Replica, SignatureCheck, StoredBatch
from zexchange.verification.verifier import CHUNK_BATCHES, ParallelSignatures
from zexchange.wire.messages import (
    Command,
    CommandKind,
    EpochOpen,
    OperatorBatch,
    OperatorCommand,
    OperatorCommandKind,
    OrderType,
    SelfTradePrevention,
    Side,
    SignedBatch,
    TimeInForce,
)
from zexchange.wire.signing import sign_batch

REPLAY_RATE = 1_000_000.0
SIGNATURES_SHARE = 0.9
CHECKPOINT_MS = 100.0
RESTART_S = 3.0
CHANGED = 10_000

_TRADERS = 4
_PORTION = 50_000
"""Frames that are made at a time."""
_START_NS = 1_700_000_000_000_000_000
_LOG_TIME_STEP_NS = 1_000_000
_AMOUNT = 2**50
"""Of each asset, for each account: enough for everything, and far from any limit."""


class VerifyResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="verify"):
    """Medians over `runs`. Rates are per second; a record is one signed frame."""

    runs: int
    records: int
    """In each log of single commands."""
    replay_single_per_s: float
    """Commands, one per record, without signatures."""
    replay_batched_per_s: float
    """Commands, 64 per record, without signatures."""
    signed_records: int
    replay_signed_per_s: float
    """Records with one signature and one command each, all cores."""
    libsodium_per_s: float
    """Verifications alone, all cores."""
    signed_share: float
    """The former over the latter."""
    checkpoint_changed: int
    """Accounts and orders that changed since the last checkpoint."""
    checkpoint_ms: float
    """The roots of log and state after that."""
    restart_records: int
    restart_s: float
    """From starting the exchange to its being ready, with so many records behind the last snapshot."""
    restart_empty_s: float
    """The same with an empty log: processes, store and connections alone."""
    machine: Machine


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much is replayed."""

    records: int = 300_000
    signed_records: int = 20_000
    changed: int = CHANGED
    restart_records: int = 1_000_000
    runs: int = 3


def run_verify(sizes: Sizes, say: Callable[[str], None]) -> VerifyResult:
    """Take all figures. Raises NotRunning when the exchange does not restart."""
    with tempfile.TemporaryDirectory(prefix="zx-perf-") as name:
        folder = Path(name)
        paths = DataPaths(folder / "data")
        genesis = create_deployment(paths, name="demo/verify")
        operator = load_key(paths.operator_key)
        say(f"making a log of {sizes.restart_records:,} records")
        singles = make_log(genesis, operator, sizes.restart_records, batch=1)
        some = singles[: -(-len(singles) * sizes.records // sizes.restart_records)]
        batched = make_log(genesis, operator, -(-sizes.records // 16), batch=COMMANDS_PER_BATCH_MAX)
        say(f"signing {sizes.signed_records:,} records")
        signed = make_log(genesis, operator, sizes.signed_records, batch=1, signed=True)
        samples: dict[str, list[float]] = {}

        def take(figure: str, value: float) -> None:
            samples.setdefault(figure, []).append(value)

        with ParallelSignatures() as check:
            for run in range(sizes.runs):
                say(f"run {run + 1} of {sizes.runs}")
                take("single", _replay_rate(genesis, some, None))
                take("batched", _replay_rate(genesis, batched, None))
                take("alone", _libsodium_rate(genesis, signed))
                take("signed", _replay_rate(genesis, signed, check))
                take("checkpoint", _checkpoint_ms(genesis, operator, sizes.changed))
        say("restarting")
        for number in range(sizes.runs):
            take("empty", _restart_s(paths, folder / f"empty-{number}"))
        _store_log(paths, singles)
        for number in range(sizes.runs):
            take("restart", _restart_s(paths, folder / f"copy-{number}"))
        middle = {figure: statistics.median(taken) for figure, taken in samples.items()}
        return VerifyResult(
            runs=sizes.runs,
            records=sizes.records,
            replay_single_per_s=middle["single"],
            replay_batched_per_s=middle["batched"],
            signed_records=sizes.signed_records,
            replay_signed_per_s=middle["signed"],
            libsodium_per_s=middle["alone"],
            signed_share=middle["signed"] / middle["alone"],
            checkpoint_changed=sizes.changed,
            checkpoint_ms=middle["checkpoint"],
            restart_records=sizes.restart_records,
            restart_s=middle["restart"],
            restart_empty_s=middle["empty"],
            machine=describe_machine(),
        )


class LogMaker:
    """Seals frames into batches as a matcher that is never idle does: each as full as it may be."""

    def __init__(self, genesis: Genesis, operator: SigningKey) -> None:
        self.genesis = genesis
        self.batches: list[StoredBatch] = []
        self._operator = operator
        self._operator_nonce = _START_NS // 1000
        self._engine = Engine(genesis, 0, track_state=False)
        start = ChainState.genesis(genesis.deployment_id)
        self._seal = NativeSeal(self._engine, 1, start.chain)
        self._now_ns = _START_NS
        opening = EpochOpen(epoch=1, tip_epoch=0, tip_record_no=0, tip_chain=start.chain)
        self.add([opening.encode()])

    def open_accounts(self, public_keys: Sequence[bytes]) -> None:
        """One account per key, with plenty of the first market's assets."""
        market = self.genesis.markets[0]
        assets = (market.base_asset_id, market.quote_asset_id)
        commands = []
        for account_id, public_key in enumerate(public_keys, start=1):
            commands.append(
                OperatorCommand(
                    kind=OperatorCommandKind.OPEN_ACCOUNT, account_id=account_id, new_public_key=public_key
                )
            )
            commands += [
                OperatorCommand(
                    kind=OperatorCommandKind.DEPOSIT, account_id=account_id, asset_id=asset_id, amount=_AMOUNT
                )
                for asset_id in assets
            ]
        frames = []
        for at in range(0, len(commands), COMMANDS_PER_BATCH_MAX):
            self._operator_nonce += 1
            batch = OperatorBatch(
                nonce=self._operator_nonce, commands=commands[at : at + COMMANDS_PER_BATCH_MAX]
            )
            frames.append(sign_batch(batch, self._operator, self.genesis.deployment_id))
        self.add(frames)

    def add(self, frames: Sequence[bytes]) -> None:
        """Seal them, in as few batches as they fit into."""
        at = 0
        while at < len(frames):
            end, size = at, 0
            while end < len(frames) and size + len(frames[end]) <= LOG_BODY_BYTES_MAX:
                size += len(frames[end])
                end += 1
            self._now_ns += _LOG_TIME_STEP_NS
            sealed = self._seal.apply(b"".join(frames[at:end]), self._now_ns)
            self.batches.append(StoredBatch(EntryId(1, sealed.first_record_no), sealed.batch))
            at += sealed.records


def make_log(
    genesis: Genesis, operator: SigningKey, records: int, *, batch: int, signed: bool = False
) -> list[StoredBatch]:
    """A log of `records` frames with `batch` commands each, by four traders by turns, behind what opens their
    accounts."""
    maker = LogMaker(genesis, operator)
    keys = [SigningKey(bytes([1 + number]) * 32) for number in range(_TRADERS)]
    maker.open_accounts([bytes(key.verify_key) for key in keys])
    market_ids = [genesis.markets[0].market_id]
    flows = [trading_commands(records * batch, market_ids, seed=number) for number in range(_TRADERS)]
    nonce = _START_NS // 1000
    for begin in range(0, records, _PORTION):
        count = min(_PORTION, records - begin) // _TRADERS + 1
        by_trader = []
        for key, flow in zip(keys, flows, strict=True):
            frames = [(nonce + n, b"".join(next(flow) for _ in range(batch))) for n in range(count)]
            by_trader.append(
                sign_frames(SigningJob(bytes(key), genesis.deployment_id, 0, frames, batch, signed))
            )
        nonce += count
        turns = [frame for turn in zip(*by_trader, strict=True) for frame in turn]
        maker.add(turns[: min(_PORTION, records - begin)])
    return maker.batches


def _replay_rate(genesis: Genesis, batches: Sequence[StoredBatch], check: SignatureCheck | None) -> float:
    """Commands per second through a replica that starts from genesis, its last roots included."""
    replica = Replica.at_genesis(genesis, 0, Engine, check)
    begun_ns = time.perf_counter_ns()
    for at in range(0, len(batches), CHUNK_BATCHES):
        replica.apply(batches[at : at + CHUNK_BATCHES])
    replica.tip()
    return (replica.engine.next_seq - 1) / (time.perf_counter_ns() - begun_ns) * 1e9


def _libsodium_rate(genesis: Genesis, batches: Sequence[StoredBatch]) -> float:
    """Verifications per second and nothing else: one call into C per core for its share of the frames."""
    frames = [frame for one in batches[1:] for frame in iter_frames(decode_batch(one.raw).body)]
    cores = len(usable_cpus())
    shares = [frames[core::cores] for core in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        begun_ns = time.perf_counter_ns()
        verdicts = list(pool.map(lambda share: verify_frames(share, genesis.deployment_id), shares))
        took_ns = time.perf_counter_ns() - begun_ns
    if not all(all(share) for share in verdicts):
        raise AssertionError("a signature of our own does not verify")
    return len(frames) / took_ns * 1e9


def _checkpoint_ms(genesis: Genesis, operator: SigningKey, changed: int) -> float:
    """Both roots after one order of each of `changed / 2` accounts, which changes as many accounts and orders."""
    accounts = max(1, changed // 2)
    keys = [number.to_bytes(32, "big") for number in range(1, accounts + 1)]
    maker = LogMaker(genesis, operator)
    maker.open_accounts(keys)
    market_id = genesis.markets[0].market_id
    for count in (1, 2):
        maker.add(
            [
                SignedBatch(
                    public_key=key,
                    nonce=_START_NS // 1000 + count,
                    commands=[
                        Command(
                            kind=CommandKind.NEW,
                            side=Side.BUY,
                            order_type=OrderType.LIMIT,
                            time_in_force=TimeInForce.GTC,
                            self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
                            market_id=market_id,
                            price_ticks=1 + number % 1_000,
                            qty_lots=1,
                        )
                    ],
                ).encode()
                for number, key in enumerate(keys)
            ]
        )
        if count == 1:
            before = len(maker.batches)
    replica = Replica.at_genesis(genesis, 0, Engine, None)
    replica.apply(maker.batches[:before])
    replica.tip()
    replica.apply(maker.batches[before:])
    begun_ns = time.perf_counter_ns()
    replica.tip()
    return (time.perf_counter_ns() - begun_ns) / 1e6


def _store_log(paths: DataPaths, batches: Sequence[StoredBatch]) -> None:
    """Write the log as a matcher does. The store is not asked to sync: it is stopped in good order afterwards."""
    config = Config()
    config = msgspec.structs.replace(config, store=msgspec.structs.replace(config.store, fsync="everysec"))
    store = EmbeddedStore(paths, config)
    store.start()
    try:
        store.wait_ready()
        with open_store(paths, config) as client:
            retry = Retry(clock_ms=lambda: time.monotonic_ns() // 1_000_000, pause_ms=_pause)
            writer = LogWriter(client, 0, retry)
            writer.take_over(allow_empty=True)
            for batch in batches:
                writer.append(batch.id.record_no, batch.raw)
    finally:
        store.stop()


def _pause(pause_ms: int) -> None:
    time.sleep(pause_ms / 1000)


def _restart_s(paths: DataPaths, copy: Path) -> float:
    """Seconds from the start of an exchange on a copy of the folder until it is ready."""
    shutil.copytree(paths.root, copy)
    exchange = RunningExchange(copy, settings={"settlement.verify_signatures": "off"})
    begun_ns = time.perf_counter_ns()
    with exchange:
        took_ns = time.perf_counter_ns() - begun_ns
    shutil.rmtree(copy)
    return took_ns / 1e9


def budgets(result: VerifyResult) -> list[tuple[str, str, str, bool]]:
    """(figure, budget, measured, met)."""
    return [
        (
            "replay without signatures, 64 commands per record",
            f">= {REPLAY_RATE:,.0f} commands/s",
            f"{result.replay_batched_per_s:,.0f} commands/s",
            result.replay_batched_per_s >= REPLAY_RATE,
        ),
        (
            "replay without signatures, one command per record",
            f">= {REPLAY_RATE:,.0f} commands/s",
            f"{result.replay_single_per_s:,.0f} commands/s",
            result.replay_single_per_s >= REPLAY_RATE,
        ),
        (
            "replay with signatures, all cores",
            f">= {SIGNATURES_SHARE} x libsodium alone",
            f"{result.replay_signed_per_s:,.0f} records/s, {result.signed_share:.2f} x",
            result.signed_share >= SIGNATURES_SHARE,
        ),
        (
            f"checkpoint of {result.checkpoint_changed:,} changed accounts and orders",
            f"<= {CHECKPOINT_MS:.0f} ms",
            f"{result.checkpoint_ms:.1f} ms",
            result.checkpoint_ms <= CHECKPOINT_MS,
        ),
        (
            f"restart with {result.restart_records:,} records behind the last snapshot",
            f"<= {RESTART_S:.0f} s",
            f"{result.restart_s:.2f} s, {result.restart_empty_s:.2f} s of it with an empty log",
            result.restart_s <= RESTART_S,
        ),
    ]
