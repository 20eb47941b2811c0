"""What a measurement says, as data: the JSON that `--json` prints, and what `compare` and `report` read.

Times are microseconds as floats (`_us`), memory is MiB (`_mb`), shares are 0 to 1. Fields may be added at the
end of a struct with a default; none changes its meaning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from zexchange.runtime.stages import STAGES

Fsync = Literal["always", "everysec"]


class Percentiles(msgspec.Struct, frozen=True):
    """Percentiles of a set of samples."""

    samples: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and from what a figure was measured."""

    commit: str
    """Of the working tree, with `+` when it has changes."""
    cpu: str
    cores: int
    kernel: str
    python: str
    load_1min: float
    """Load average when the measurement began."""


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine did meanwhile, measured by a process beside the run."""

    stolen_share: float
    """Of all CPU time during the run, what the hypervisor gave to others."""
    other_cpu_share: float
    """Of all CPU time during the run, what processes that are not part of it used."""
    hiccups: Percentiles
    """How much too late a sleeping thread woke up (as jHiccup measures)."""
    fdatasync: Percentiles
    """One 4 KiB overwrite and fdatasync, just before and just after the run."""
    quiet: bool
    """False when more than 1 % was stolen or others used more than 5 %: then the figures are shown and not
    counted."""
    why: str
    """What was not quiet; empty if it was."""


class FloorParts(msgspec.Struct, frozen=True, kw_only=True):
    """The four unavoidable steps, p50 of each in this run."""

    tcp_us: float
    verify_us: float
    bus_us: float
    append_us: float


class ProcessUse(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of the exchange used during the measured part of the run."""

    name: str
    user_us_per_order: float
    system_us_per_order: float
    rss_mb: float
    """At the end of the run."""
    cpus: tuple[int, ...]
    """Processors it may run on."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """How long one stage of the path took, as the exchange's own processes saw it: per loop turn, and for the bus per
    frame, from the end of its verification until the matcher took it."""

    process: str
    name: str
    """verify, bus, match, append, publish."""
    count: int
    mean_us: float
    p50_us: float
    p99_us: float
    max_us: float


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """One second of the run."""

    at_s: int
    answered: int
    p50_us: float
    p99_us: float
    max_us: float
    rss_mb: float | None
    """Sum over the exchange's processes."""


class CoreUse(msgspec.Struct, frozen=True, kw_only=True):
    """Share of time one core was busy during the run."""

    cpu: int
    user: float
    system: float
    stolen: float
    idle: float


class LoadResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="load"):
    """One load run against a really running exchange. Latency counts from the intended send time.

    What cannot be measured is None: nothing is known of the processes of an exchange that is reached by its address
    only, and an exchange that goes on running has not told what its stages took. Cores, noise and machine are those
    of the generator.
    """

    valid: bool
    """The generator kept up, each command got exactly one outcome, nothing was refused as busy, the log
    verified."""
    counted: bool
    """Valid, and the machine was quiet."""
    problems: tuple[str, ...]
    """Why it is not valid, in sentences."""
    command_line: str
    started_at: str
    """UTC, ISO 8601."""
    rate_offered: float
    """Commands per second; 0 when the generator sent as fast as answers came (`--max`)."""
    orders_per_s: float
    """Commands answered per second."""
    orders_sent: int
    orders_answered: int
    orders_accepted: int
    orders_rejected: int
    not_applied: int
    trades: int
    traders: int
    batch: int
    markets: int
    resting_orders: int
    """The run's own in the books when the measured part began; whatever others have there is not counted."""
    duration_s: float
    arrivals: Literal["poisson", "constant", "max"]
    fsync: Fsync
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    service_time: Percentiles
    """From the actual send time."""
    floor_us: float | None
    floor: FloorParts | None
    verify_us: float | None
    """One libsodium verification, median of this run."""
    ratio_to_floor: float | None
    """p50_us / floor_us."""
    server_cpu_us_per_order: float | None
    """User and system, all processes of the exchange."""
    processes: tuple[ProcessUse, ...] | None
    rss_mb: dict[str, float] | None
    """By process, at the end."""
    stages: tuple[Stage, ...] | None
    seconds: tuple[Second, ...]
    cores: tuple[CoreUse, ...]
    checkpoints_at_s: tuple[float, ...] | None
    """When the settlement signed, in seconds from the start of the measured part."""
    generator_cpu_share: float
    generator_kept_up: bool
    generator_late_p99_us: float
    """How long after its intended time an order left."""
    layout: str | None
    """How processes were laid on cores, in one line."""
    store_settings: dict[str, str] | None
    verified: bool | None
    """`zexchange verify` passed on the log that the run left; None if it was not made."""
    histogram: str
    """Latency, as an HdrHistogram V2 compressed base64 histogram (ns)."""
    noise: Noise
    machine: Machine
    target: Literal["own", "data", "connect"] = "own"
    """An exchange that was started for the run, one that ran already in a data folder, one at an address."""
    left_orders: int | None = None
    """Orders of the run that are still open; None on an exchange that ended with the run."""


def stage_medians(result: LoadResult) -> dict[str, float]:
    """Median of each stage in us, in the order of an order's way; without those that nobody counted. Where several
    processes counted a stage, the mean of theirs by how often each did it."""
    found = {}
    for name in STAGES:
        counted = [stage for stage in result.stages or () if stage.name == name]
        total = sum(stage.count for stage in counted)
        if total:
            found[name] = sum(stage.p50_us * stage.count for stage in counted) / total
    return found


def shown(value: float | None, form: str = ",.0f") -> str:
    """A figure for people; a dash for one that could not be measured."""
    return "-" if value is None else format(value, form)


def save(result: msgspec.Struct, path: Path) -> None:
    """Write a result as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def load_result(path: Path) -> LoadResult:
    """Read a saved load result. Raises msgspec.ValidationError with the path of the bad field."""
    return msgspec.json.decode(path.read_bytes(), type=LoadResult)
