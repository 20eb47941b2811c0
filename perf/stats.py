"""Exact percentiles of recorded samples, and a description of the machine they were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec


class Percentiles(msgspec.Struct, frozen=True):
    """Percentiles of a set of samples, in microseconds."""

    samples: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float


def percentiles(samples_ns: Sequence[int]) -> Percentiles:
    """Percentiles by the nearest-rank rule. Raises ValueError when there is no sample."""
    if not samples_ns:
        raise ValueError("no samples")
    ordered = sorted(samples_ns)

    def rank_us(per_mille: int) -> float:
        index = max(0, -(-len(ordered) * per_mille // 1000) - 1)
        return ordered[index] / 1000

    return Percentiles(
        samples=len(ordered),
        p50_us=rank_us(500),
        p90_us=rank_us(900),
        p99_us=rank_us(990),
        p999_us=rank_us(999),
        max_us=ordered[-1] / 1000,
    )


class Machine(msgspec.Struct, frozen=True):
    """Where and from what a figure was measured."""

    commit: str
    cpu: str
    cores: int
    kernel: str
    python: str
    load_1min: float


def describe_machine() -> Machine:
    """Commit of the working tree (with `+` when it has changes), processor, cores, kernel and load."""
    return Machine(
        commit=_commit(),
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        kernel=platform.release(),
        python=platform.python_version(),
        load_1min=os.getloadavg()[0],
    )


def _commit() -> str:
    root = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
