"""Open-loop load of really signed orders over TCP against a really running exchange.

    floor ─▶ fill books ─▶ sign ahead ─▶ [generator process ══TCP══ exchange] ─▶ floor ─▶ stop ─▶ verify the log
                                          noise, CPU and memory are watched

Latency counts from the time an order was meant to leave. A run counts only if the generator kept up, every command
had exactly one outcome, the log that is left verifies, and the machine was quiet.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
    verify: bool = True
    floor_rounds: int = FLOOR_ROUNDS
    hlog: str = ""
    """File for a standard HdrHistogram log; none if empty."""

    @property
    def command_line(self) -> str:
        """How to run it again."""
        words = [
            "python -m perf load",
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
    errors."""
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
            measured = _measure(exchange, genesis, options, folder)
            layout = exchange.info.pinning
        floors.append(measure_floor(fsync=options.fsync, rounds=options.floor_rounds))
        verified = _verify(paths.root) if options.verify else True
        return _result(options, measured, floors, paths, layout, verified)


class _Measured(msgspec.Struct, frozen=True):
    """What was seen during the run."""

    outcome: Outcome
    use: ExchangeUse
    meter: NoiseMeter
    rss_mb: dict[str, float]
    rss_by_second: list[float]
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


def _measure(exchange: RunningExchange, genesis: Genesis, options: LoadOptions, folder: Path) -> _Measured:
    operator_key = load_key(exchange.paths.operator_key)
    keys = [SigningKey.generate() for _ in range(options.traders)]
    makers = [SigningKey.generate() for _ in range(_RESTING_MAKERS if options.resting else 0)]
    _fund(exchange, operator_key, [*keys, *makers], genesis)
    market_ids = [market.market_id for market in genesis.markets]
    resting = _fill(exchange, genesis, makers, market_ids, options, folder) if options.resting else 0
    job = _job(exchange, genesis, keys, market_ids, options)
    use = ExchangeUse(exchange.pids)
    # Where the plan keeps cores free for matching, the generator stays off them like everything else.
    cpus = exchange.info.processes["settlement"].cpus
    rss_by_second: list[float] = []
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    with (
        Generator(job, folder, cpus) as generator,
        NoiseMeter(folder, lambda: {*use.pids, exchange.pid, generator.pid}) as meter,
    ):
        use.begin()
        generator.go()
        while True:
            rss_by_second.append(sum(use.rss_mb().values()))
            if generator.finished(1.0):
                break
        use.end()
        rss_mb = use.rss_mb()
        outcome = generator.outcome()
    return _Measured(outcome, use, meter, rss_mb, rss_by_second, resting, started_at)


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


def _fill(
    exchange: RunningExchange,
    genesis: Genesis,
    makers: Sequence[SigningKey],
    market_ids: Sequence[int],
    options: LoadOptions,
    folder: Path,
) -> int:
    """Rest so many orders that nothing reaches; returns how many rest."""
    per_maker = -(-options.resting // len(makers))
    frames = -(-per_maker // _RESTING_BATCH) * len(makers)
    _say(f"resting {options.resting:,} orders in {len(market_ids)} market(s)")
    rested = 0
    # In portions, so that the signed frames of ten million orders need not be in memory at once.
    portion = 20_000 // len(makers) * len(makers)
    per_portion = portion // len(makers) * _RESTING_BATCH
    for begin in range(0, frames, portion):
        count = min(portion, frames - begin)
        done = begin // len(makers) * _RESTING_BATCH
        commands = [
            resting_commands(per_portion, market_ids, number * per_maker + done)
            for number in range(len(makers))
        ]
        job = Job(
            host=exchange.host,
            port=exchange.port,
            deployment_id=genesis.deployment_id,
            keys=[bytes(key) for key in makers],
            plan=build_plan(
                makers,
                genesis.deployment_id,
                commands,
                due_times_ns(count, 1e6, False, 0),
                shard=0,
                batch=_RESTING_BATCH,
                first_nonce=time.time_ns() // 1000 - count,
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


def _job(
    exchange: RunningExchange,
    genesis: Genesis,
    keys: Sequence[SigningKey],
    market_ids: Sequence[int],
    options: LoadOptions,
) -> Job:
    rate = options.rate
    frames_per_s = _MAX_RATE_HEADROOM / min(options.batch, 8) if rate is None else rate / options.batch
    count = max(options.traders, round(frames_per_s * options.duration_s))
    _say(f"signing {count:,} frames ahead")
    commands: list[Iterator[bytes]] = [
        trading_commands(count * options.batch, market_ids, options.seed * 1_000 + number)
        for number in range(options.traders)
    ]
    due_ns = due_times_ns(count, frames_per_s, options.arrivals == "poisson", options.seed)
    # Behind the clock by as much as signing takes, and never ahead of it while they are sent.
    plan = build_plan(
        keys,
        genesis.deployment_id,
        commands,
        due_ns,
        shard=0,
        batch=options.batch,
        first_nonce=time.time_ns() // 1000,
    )
    return Job(
        host=exchange.host,
        port=exchange.port,
        deployment_id=genesis.deployment_id,
        keys=[bytes(key) for key in keys],
        plan=plan,
        duration_ns=round(options.duration_s * 1e9),
        window=options.window if rate is None else 0,
    )


def _verify(data: Path) -> bool:
    """`zexchange verify` on what the run left."""
    command = [sys.executable, "-m", "zexchange", "verify", "--data", str(data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        _say(f"verify exits with {done.returncode}: {done.stdout}{done.stderr}")
    return done.returncode == 0


def _result(
    options: LoadOptions,
    measured: _Measured,
    floors: Sequence[Floor],
    paths: DataPaths,
    layout: str,
    verified: bool,
) -> LoadResult:
    outcome = measured.outcome
    latency = Histogram.from_bytes(outcome.latency)
    commands = outcome.frames_sent * options.batch
    lateness = Histogram.from_bytes(outcome.lateness)
    kept_up = outcome.late_frames <= outcome.frames_sent * LATE_SHARE_MAX
    problems = problems_of(outcome, commands, kept_up=kept_up, verified=verified)
    if not latency.total:
        raise RuntimeError("no command was answered: " + "; ".join(problems))
    noise = measured.meter.noise()
    parts = floor_parts(floors)
    floor_us = parts.tcp_us + parts.verify_us + parts.bus_us + parts.append_us
    by_second = [Histogram.from_bytes(raw) for raw in outcome.by_second]
    start_s = outcome.start_wall_ns / 1e9
    if options.hlog:
        write_log(Path(options.hlog), by_second, start_s)
    found = latency.percentiles()
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
        fsync=options.fsync,
        p50_us=found.p50_us,
        p90_us=found.p90_us,
        p99_us=found.p99_us,
        p999_us=found.p999_us,
        max_us=found.max_us,
        service_time=Histogram.from_bytes(outcome.service).percentiles(),
        floor_us=floor_us,
        floor=parts,
        verify_us=parts.verify_us,
        ratio_to_floor=found.p50_us / floor_us,
        server_cpu_us_per_order=sum(one.user_us_per_order + one.system_us_per_order for one in processes),
        processes=processes,
        rss_mb=measured.rss_mb,
        stages=_stages(paths),
        seconds=tuple(
            _second(number, histogram, measured.rss_by_second) for number, histogram in enumerate(by_second)
        ),
        cores=measured.meter.cores(),
        checkpoints_at_s=tuple(
            at_s for at_ns in _checkpoint_times_ns(paths) if 0 <= (at_s := at_ns / 1e9 - start_s) <= elapsed_s
        ),
        generator_cpu_share=outcome.cpu_s / elapsed_s,
        generator_kept_up=kept_up,
        generator_late_p99_us=lateness.percentiles().p99_us,
        layout=layout,
        store_settings={"appendonly": "yes", "appendfsync": options.fsync, "store": "embedded Valkey"},
        verified=verified,
        histogram=latency.encoded(),
        noise=noise,
        machine=describe_machine(),
    )


def problems_of(outcome: Outcome, commands: int, *, kept_up: bool, verified: bool) -> list[str]:
    """Why a run is not valid, in sentences; `commands` were sent."""
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
    if not verified:
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
        rss_mb=rss_mb[min(number, len(rss_mb) - 1)],
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


def _checkpoint_times_ns(paths: DataPaths) -> list[int]:
    """When each checkpoint was signed."""
    with (paths.settlement / "checkpoints.log").open("rb") as file:
        return [
            CheckpointLeaf.decode(one.leaf, number).time_ns
            for number, one in enumerate(CheckpointReader(file, shard_count=1))
        ]


def _say(text: str) -> None:
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
