"""Open-loop load of really signed orders over TCP against a really running exchange.

    floor ─▶ fill books ─▶ sign ahead ─▶ [generator process ══TCP══ exchange] ─▶ floor ─▶ stop ─▶ verify the log
                                          noise, CPU and memory are watched

Latency counts from the time an order was meant to leave. A run counts only if the generator kept up, every command
had exactly one outcome, the log that is left verifies, and the machine was quiet. The exchange is one that is started
for the run; one that runs already is a matter of perf/running.py, which uses the same parts.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec
from nacl.signing import SigningKey

from perf.floor import Floor, floor_parts, measure_floor
from perf.generator import Generator, Job, Outcome
from perf.histogram import Histogram, write_log
from perf.machine import NoiseMeter, describe_machine
from perf.results import Fsync, LoadResult, Second, Stage
from perf.usage import ExchangeUse
from perf.workload import build_plan, due_times_ns, resting_commands, trading_commands
from zexchange.client import Client
from zexchange.client.keys import load_key
from zexchange.genesis import DEFAULT_ASSETS, DEFAULT_MARKETS, EngineLimits, Genesis, MarketSpec
from zexchange.runtime.deployment import create_deployment
from zexchange.runtime.exchange_info import Endpoint
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.running import RunningExchange
from zexchange.verification.checkpoint import CheckpointLeaf, CheckpointReader

LATE_SHARE_MAX = 0.01
FLOOR_ROUNDS = 300
_DEPOSIT = Decimal(50_000_000_000)
_RESTING_BATCH = 64
_RESTING_MAKERS = 8
_RESTING_WINDOW = 4
_MAX_RATE_HEADROOM = 40_000
"""Frames a second to sign ahead for a run without a rate: more than two cores can verify."""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `rate` counts commands per second; None: as fast as answers come, with `window` frames per trader."""

    traders: int = 4
    duration_s: float = 30.0
    rate: float | None = 3049.0
    window: int = 32
    batch: int = 1
    markets: int = 1
    resting: int = 0
    arrivals: Literal["poisson", "constant"] = "poisson"
    fsync: Fsync = "always"
    pin: Literal["auto", "off"] = "auto"
    seed: int = 1
    settings: tuple[tuple[str, str], ...] = ()
    """Further settings of the exchange: section.key and text."""
    data: str = ""
    """Folder of an exchange that runs already; of these three at most one. All empty: start one for the run."""
    connect: tuple[str, int] | None = None
    """Address of one that runs already."""
    operator_key: str = ""
    """Key file that opens and funds accounts at that address."""
    demo_url: str = ""
    """Of the trading page of a demo, which opens accounts with play money for anybody."""
    verify: bool = True
    floor_rounds: int = FLOOR_ROUNDS
    hlog: str = ""
    """File for a standard HdrHistogram log; none if empty."""

    @property
    def command_line(self) -> str:
        """How to run it again."""
        words = ["python -m perf load"]
        if self.data:
            words.append(f"--data {shlex.quote(self.data)}")
        if self.connect is not None:
            words.append(f"--connect {Endpoint(*self.connect)}")
        if self.operator_key:
            words.append(f"--operator-key {shlex.quote(self.operator_key)}")
        if self.demo_url:
            words.append(f"--demo-url {shlex.quote(self.demo_url)}")
        words += [
            f"--num-traders {self.traders}",
            f"--duration-secs {self.duration_s:g}",
        ]
        words.append("--max" if self.rate is None else f"--rate {self.rate:g}")
        if self.rate is None:
            words.append(f"--window {self.window}")
        for flag, value, default in (
            ("batch", self.batch, 1),
            ("markets", self.markets, 1),
            ("resting", self.resting, 0),
            ("arrivals", self.arrivals, "poisson"),
            ("fsync", self.fsync, "always"),
            ("pin", self.pin, "auto"),
            ("seed", self.seed, 1),
        ):
            if value != default:
                words.append(f"--{flag} {value}")
        words += [f"--setting {key}={text}" for key, text in self.settings]
        return " ".join(words)


def run_load(options: LoadOptions) -> LoadResult:
    """One run against an exchange that is started for it. Raises GeneratorFailed, NotRunning and the SDK's
    errors. Against one that runs already: what perf/running.py does and raises."""
    if options.data or options.connect is not None:
        from perf.running import run_on_running

        return run_on_running(options)
    with tempfile.TemporaryDirectory(prefix="zx-perf-") as name:
        folder = Path(name)
        paths = DataPaths(folder / "data")
        genesis = _deployment(paths, options)
        settings = {
            "store.fsync": options.fsync,
            "pinning.mode": options.pin,
            "measurement.stages": "true",
            **dict(options.settings),
        }
        floors = [measure_floor(fsync=options.fsync, rounds=options.floor_rounds)]
        exchange = RunningExchange(paths.root, settings=settings)
        with exchange:
            info = exchange.info
            target = Target(
                host=exchange.host,
                port=exchange.port,
                genesis=genesis,
                market_ids=tuple(market.market_id for market in genesis.markets),
                pids=exchange.pids,
                supervisor_pid=exchange.pid,
                # Where the plan keeps cores free for matching, the generator stays off them like everything else.
                cpus=info.processes["settlement"].cpus,
            )
            keys = [SigningKey.generate() for _ in range(options.traders)]
            makers = [SigningKey.generate() for _ in range(maker_count(options))]
            _fund(exchange, load_key(paths.operator_key), [*keys, *makers], genesis)
            measured = measure(target, keys, makers, options, folder)
        floors.append(measure_floor(fsync=options.fsync, rounds=options.floor_rounds))
        return result_of(
            options,
            measured,
            floors,
            Told(
                fsync=options.fsync,
                layout=info.pinning,
                store_settings={
                    "appendonly": "yes",
                    "appendfsync": options.fsync,
                    "store": "embedded Valkey",
                },
                stages=_stages(paths),
                checkpoint_times_ns=checkpoint_times_ns(paths, genesis.shards),
                verified=log_verifies(paths.root) if options.verify else None,
            ),
        )


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An exchange, and where in it to trade."""

    host: str
    port: int
    genesis: Genesis
    market_ids: tuple[int, ...]
    """All of one shard."""
    shard: int = 0
    middles: dict[int, int] = {}
    """Price to trade around, in ticks, of the markets for which it is not MIDDLE_TICKS."""
    pids: Callable[[], Mapping[str, int]] | None = None
    """Its processes by name; None if they are on another machine, for all we know."""
    supervisor_pid: int | None = None
    cpus: tuple[int, ...] = ()
    """Where the generator may run; anywhere if empty."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an exchange beside what was measured; None where it is not known."""

    fsync: Fsync
    layout: str | None = None
    store_settings: dict[str, str] | None = None
    stages: tuple[Stage, ...] | None = None
    checkpoint_times_ns: Sequence[int] | None = None
    verified: bool | None = None
    target: Literal["own", "data", "connect"] = "own"
    left_orders: int | None = None
    problems: tuple[str, ...] = ()


class Measured(msgspec.Struct, frozen=True):
    """What was seen during the run."""

    outcome: Outcome
    use: ExchangeUse | None
    meter: NoiseMeter
    rss_mb: dict[str, float] | None
    rss_by_second: list[float]
    """Empty if nothing is known of the processes."""
    resting: int
    started_at: str


def _deployment(paths: DataPaths, options: LoadOptions) -> Genesis:
    """A deployment whose tables fit the run."""
    first = DEFAULT_MARKETS[0]
    markets = tuple(
        MarketSpec(
            id=number + 1,
            symbol=f"M{number + 1}-{first.quote}" if number else first.symbol,
            base=first.base,
            quote=first.quote,
            tick_size=first.tick_size,
            lot_size=first.lot_size,
            maker_fee_ppm=first.maker_fee_ppm,
            taker_fee_ppm=first.taker_fee_ppm,
        )
        for number in range(options.markets)
    )
    limits = EngineLimits(max_orders=max(4_194_304, options.resting + 1_048_576))
    return create_deployment(
        paths, name="demo/load", assets=DEFAULT_ASSETS, markets=markets, engine_limits=limits
    )


def maker_count(options: LoadOptions) -> int:
    """Accounts whose orders rest beforehand."""
    return _RESTING_MAKERS if options.resting else 0


def frame_count(options: LoadOptions) -> int:
    """Frames of the measured part."""
    return max(options.traders, round(_frames_per_s(options) * options.duration_s))


def resting_per_maker(options: LoadOptions) -> int:
    """Orders that each maker rests: whole frames."""
    return -(-options.resting // (_RESTING_MAKERS * _RESTING_BATCH)) * _RESTING_BATCH


def measure(
    target: Target,
    keys: Sequence[SigningKey],
    makers: Sequence[SigningKey],
    options: LoadOptions,
    folder: Path,
) -> Measured:
    """Rest what is to rest, then trade, with the keys of accounts that have what that takes."""
    resting = _fill(target, makers, options, folder) if options.resting else 0
    job = _job(target, keys, options)
    use = None if target.pids is None else ExchangeUse(target.pids)
    supervisor = set() if target.supervisor_pid is None else {target.supervisor_pid}
    rss_mb: dict[str, float] | None = None
    rss_by_second: list[float] = []
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    with (
        Generator(job, folder, target.cpus) as generator,
        NoiseMeter(folder, lambda: {*(() if use is None else use.pids), *supervisor, generator.pid}) as meter,
    ):
        if use is not None:
            use.begin()
        generator.go()
        while True:
            if use is not None:
                rss_by_second.append(sum(use.rss_mb().values()))
            if generator.finished(1.0):
                break
        if use is not None:
            use.end()
            rss_mb = use.rss_mb()
        outcome = generator.outcome()
    return Measured(outcome, use, meter, rss_mb, rss_by_second, resting, started_at)


def _fund(
    exchange: RunningExchange, operator_key: SigningKey, keys: Sequence[SigningKey], genesis: Genesis
) -> None:
    market = genesis.markets[0]
    with Client(exchange.host, exchange.port, key=operator_key) as operator:
        for key in keys:
            account_id = operator.open_account(bytes(key.verify_key)).account_id
            for asset_id in (market.base_asset_id, market.quote_asset_id):
                asset = genesis.asset(asset_id)
                operator.deposit(account_id, asset.symbol, min(_DEPOSIT, _largest(asset.decimals)))


def _largest(decimals: int) -> Decimal:
    """An amount that leaves room for a hundred accounts below 2^63 base units."""
    return Decimal(2**56 // 10**decimals)


def _fill(target: Target, makers: Sequence[SigningKey], options: LoadOptions, folder: Path) -> int:
    """Rest so many orders that nothing reaches; returns how many rest."""
    per_maker = -(-options.resting // len(makers))
    frames = -(-per_maker // _RESTING_BATCH) * len(makers)
    say(f"resting {options.resting:,} orders in {len(target.market_ids)} market(s)")
    rested = 0
    # In portions, so that the signed frames of ten million orders need not be in memory at once.
    portion = 20_000 // len(makers) * len(makers)
    per_portion = portion // len(makers) * _RESTING_BATCH
    for begin in range(0, frames, portion):
        count = min(portion, frames - begin)
        done = begin // len(makers) * _RESTING_BATCH
        commands = [
            resting_commands(per_portion, target.market_ids, number * per_maker + done, target.middles)
            for number in range(len(makers))
        ]
        job = Job(
            host=target.host,
            port=target.port,
            deployment_id=target.genesis.deployment_id,
            keys=[bytes(key) for key in makers],
            plan=build_plan(
                makers,
                target.genesis.deployment_id,
                commands,
                due_times_ns(count, 1e6, False, 0),
                shard=target.shard,
                batch=_RESTING_BATCH,
                first_nonce=time.time_ns() // 1000,
            ),
            duration_ns=3600 * 10**9,
            window=_RESTING_WINDOW,
            drain_ns=120 * 10**9,
        )
        with Generator(job, folder) as generator:
            generator.go()
            while not generator.finished(1.0):
                pass
            outcome = generator.outcome()
        if outcome.error or outcome.accepted != count * _RESTING_BATCH:
            raise RuntimeError(
                f"the books could not be filled: {outcome.accepted:,} of {count * _RESTING_BATCH:,} orders "
                f"were accepted, error {outcome.error}"
            )
        rested += outcome.accepted
    return rested


def _frames_per_s(options: LoadOptions) -> float:
    if options.rate is None:
        return _MAX_RATE_HEADROOM / min(options.batch, 8)
    return options.rate / options.batch


def _job(target: Target, keys: Sequence[SigningKey], options: LoadOptions) -> Job:
    count = frame_count(options)
    say(f"signing {count:,} frames ahead")
    commands: list[Iterator[bytes]] = [
        trading_commands(
            count * options.batch, target.market_ids, options.seed * 1_000 + number, target.middles
        )
        for number in range(options.traders)
    ]
    due_ns = due_times_ns(count, _frames_per_s(options), options.arrivals == "poisson", options.seed)
    # Behind the clock by as much as signing takes, and never ahead of it while they are sent.
    plan = build_plan(
        keys,
        target.genesis.deployment_id,
        commands,
        due_ns,
        shard=target.shard,
        batch=options.batch,
        first_nonce=time.time_ns() // 1000,
    )
    return Job(
        host=target.host,
        port=target.port,
        deployment_id=target.genesis.deployment_id,
        keys=[bytes(key) for key in keys],
        plan=plan,
        duration_ns=round(options.duration_s * 1e9),
        window=options.window if options.rate is None else 0,
    )


def log_verifies(data: Path, behind_others_on: Collection[int] | None = None) -> bool:
    """Whether `zexchange verify` passes on what the run left.

    `behind_others_on`: where an exchange is at work, the processors on which to give way at once to whatever else wakes
    up; all of them if empty. A nice value would not do: it counts within a session only, and the exchange has
    its own.
    """
    command = [sys.executable, "-m", "zexchange", "verify", "--data", str(data), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            if behind_others_on is not None:
                _step_behind(process.pid, behind_others_on)
            said, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        say(f"verify exits with {process.returncode}: {said}")
    return process.returncode == 0


def _step_behind(pid: int, cpus: Collection[int]) -> None:
    """What the process starts from here on does the same. It has hardly begun."""
    try:
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        if cpus:
            os.sched_setaffinity(pid, cpus)
    except ProcessLookupError:
        pass  # it has ended already; its status tells why


def result_of(options: LoadOptions, measured: Measured, floors: Sequence[Floor], told: Told) -> LoadResult:
    """Everything in one record. No `floors`: it is not known what the steps cost there."""
    outcome = measured.outcome
    latency = Histogram.from_bytes(outcome.latency)
    commands = outcome.frames_sent * options.batch
    lateness = Histogram.from_bytes(outcome.lateness)
    kept_up = outcome.late_frames <= outcome.frames_sent * LATE_SHARE_MAX
    problems = problems_of(outcome, commands, kept_up=kept_up, verified=told.verified)
    problems += told.problems
    if not latency.total:
        raise RuntimeError("no command was answered: " + "; ".join(problems))
    noise = measured.meter.noise()
    parts = floor_parts(floors) if floors else None
    floor_us = None if parts is None else parts.tcp_us + parts.verify_us + parts.bus_us + parts.append_us
    by_second = [Histogram.from_bytes(raw) for raw in outcome.by_second]
    start_s = outcome.start_wall_ns / 1e9
    if options.hlog:
        write_log(Path(options.hlog), by_second, start_s)
    found = latency.percentiles()
    processes = None
    if measured.use is not None and measured.rss_mb is not None:
        processes = measured.use.per_order(outcome.answered, measured.rss_mb)
    elapsed_s = outcome.elapsed_ns / 1e9
    return LoadResult(
        valid=not problems,
        counted=not problems and noise.quiet,
        problems=tuple(problems),
        command_line=options.command_line,
        started_at=measured.started_at,
        rate_offered=options.rate or 0.0,
        orders_per_s=outcome.answered / elapsed_s,
        orders_sent=commands,
        orders_answered=outcome.answered,
        orders_accepted=outcome.accepted,
        orders_rejected=outcome.rejected,
        not_applied=outcome.not_applied,
        trades=outcome.trades,
        traders=options.traders,
        batch=options.batch,
        markets=options.markets,
        resting_orders=measured.resting,
        duration_s=elapsed_s,
        arrivals=options.arrivals if options.rate is not None else "max",
        fsync=told.fsync,
        p50_us=found.p50_us,
        p90_us=found.p90_us,
        p99_us=found.p99_us,
        p999_us=found.p999_us,
        max_us=found.max_us,
        service_time=Histogram.from_bytes(outcome.service).percentiles(),
        floor_us=floor_us,
        floor=parts,
        verify_us=None if parts is None else parts.verify_us,
        ratio_to_floor=None if floor_us is None else found.p50_us / floor_us,
        server_cpu_us_per_order=None
        if processes is None
        else sum(one.user_us_per_order + one.system_us_per_order for one in processes),
        processes=processes,
        rss_mb=measured.rss_mb,
        stages=told.stages,
        seconds=tuple(
            _second(number, histogram, measured.rss_by_second) for number, histogram in enumerate(by_second)
        ),
        cores=measured.meter.cores(),
        checkpoints_at_s=None
        if told.checkpoint_times_ns is None
        else tuple(
            at_s for at_ns in told.checkpoint_times_ns if 0 <= (at_s := at_ns / 1e9 - start_s) <= elapsed_s
        ),
        generator_cpu_share=outcome.cpu_s / elapsed_s,
        generator_kept_up=kept_up,
        generator_late_p99_us=lateness.percentiles().p99_us,
        layout=told.layout,
        store_settings=told.store_settings,
        verified=told.verified,
        histogram=latency.encoded(),
        noise=noise,
        machine=describe_machine(),
        target=told.target,
        left_orders=told.left_orders,
    )


def problems_of(outcome: Outcome, commands: int, *, kept_up: bool, verified: bool | None) -> list[str]:
    """Why a run is not valid, in sentences; `commands` were sent. `verified` is None if nobody looked."""
    problems = []
    if outcome.error:
        problems.append(f"a session ended during the run (error {outcome.error}, reason {outcome.reason})")
    if not kept_up:
        problems.append(f"the generator fell behind: {outcome.late_frames:,} frames left late")
    if outcome.answered != commands:
        problems.append(f"{commands - outcome.answered:,} of {commands:,} commands had no outcome")
    if outcome.doubled:
        problems.append(f"{outcome.doubled:,} commands had more than one outcome")
    if outcome.foreign:
        problems.append(f"{outcome.foreign:,} outcomes are of commands that were not sent")
    if outcome.not_applied:
        problems.append(f"{outcome.not_applied:,} commands were refused before they reached a matcher")
    if verified is False:
        problems.append("the log that the run left does not verify")
    return problems


def _second(number: int, histogram: Histogram, rss_mb: Sequence[float]) -> Second:
    found = histogram.percentiles()
    return Second(
        at_s=number,
        answered=found.samples,
        p50_us=found.p50_us,
        p99_us=found.p99_us,
        max_us=found.max_us,
        rss_mb=rss_mb[min(number, len(rss_mb) - 1)] if rss_mb else None,
    )


def _stages(paths: DataPaths) -> tuple[Stage, ...]:
    """What the processes counted, if they did."""
    found = []
    for path in sorted(paths.run.glob("stages-*.json")):
        told = msgspec.json.decode(path.read_bytes())
        found += [
            Stage(process=told["process"], name=name, **stage) for name, stage in told["stages"].items()
        ]
    return tuple(found)


def checkpoint_times_ns(paths: DataPaths, shards: int) -> list[int]:
    """When each checkpoint was signed."""
    with (paths.settlement / "checkpoints.log").open("rb") as file:
        return [
            CheckpointLeaf.decode(one.leaf, number).time_ns
            for number, one in enumerate(CheckpointReader(file, shard_count=shards))
        ]


def say(text: str) -> None:
    """A line for whoever watches."""
    print(text, file=sys.stderr, flush=True)


def settings_of(pairs: Sequence[str]) -> Mapping[str, str]:
    """`section.key=text` pairs. Raises ValueError."""
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or "." not in key:
            raise ValueError(f"{pair!r} is not section.key=value")
        found[key] = text
    return found
