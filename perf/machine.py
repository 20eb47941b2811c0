"""What the machine is, and what it did to a measurement: stolen time, hiccups, the disk, other processes."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psutil

from perf.histogram import Histogram, samples_of
from perf.native import ffi, lib
from perf.results import CoreUse, Machine, Noise, Percentiles

STOLEN_SHARE_MAX = 0.01
OTHERS_SHARE_MAX = 0.05
_HICCUP_INTERVAL_NS = 1_000_000
_SYNCS = 60
_PAGE = 4096


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


def sync_times_ns(folder: Path, count: int = _SYNCS) -> list[int]:
    """How long an overwrite of 4 KiB with fdatasync takes on the disk of a folder, `count` times."""
    path = folder / "sync-probe"
    block = os.urandom(_PAGE)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(64 * _PAGE), 0)
        os.fsync(descriptor)
        times = []
        for number in range(count):
            begun_ns = time.perf_counter_ns()
            os.pwrite(descriptor, block, number % 64 * _PAGE)
            os.fdatasync(descriptor)
            times.append(time.perf_counter_ns() - begun_ns)
        return times
    finally:
        os.close(descriptor)
        path.unlink()


class _CpuTimes(NamedTuple):
    """Of one CPU, in clock ticks since the start of the machine."""

    user: int
    system: int
    idle: int
    stolen: int

    @property
    def total(self) -> int:
        return sum(self)


def parse_stat(text: str) -> dict[str, _CpuTimes]:
    """/proc/stat as times by `cpu`, `cpu0`, `cpu1` ..."""
    found = {}
    for line in text.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu"):
            user, nice, system, idle, iowait, irq, softirq, stolen = map(int, fields[:8])
            found[name] = _CpuTimes(user + nice, system + irq + softirq, idle + iowait, stolen)
    return found


class NoiseMeter:
    """Around the measured part of a run: `with NoiseMeter(folder, pids) as meter: ...`, then `noise`, `cores`.

    `own_pids` tells the processes that belong to the run, asked at both ends; this process belongs to it anyway.
    """

    def __init__(self, folder: Path, own_pids: Callable[[], Collection[int]]) -> None:
        self._folder = folder
        self._own_pids = own_pids
        self._hiccups = Histogram()
        self._stop = ffi.new("int32_t *")
        self._syncs: list[int] = []

    def __enter__(self) -> NoiseMeter:
        self._syncs += sync_times_ns(self._folder)
        self._thread = threading.Thread(
            target=lib.hiccup_run, args=(self._hiccups.handle, _HICCUP_INTERVAL_NS, self._stop), daemon=True
        )
        self._thread.start()
        self._before, self._others_before = _stat(), self._others()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._after, self._others_after = _stat(), self._others()
        self._stop[0] = 1
        self._thread.join()
        self._syncs += sync_times_ns(self._folder)

    def noise(self) -> Noise:
        """What happened meanwhile."""
        before, after = self._before["cpu"], self._after["cpu"]
        total = max(after.total - before.total, 1)
        others_s = sum(
            max(0.0, seconds - self._others_before.get(pid, seconds))
            for pid, seconds in self._others_after.items()
        )
        hertz = os.sysconf("SC_CLK_TCK")
        return judge(
            stolen_share=(after.stolen - before.stolen) / total,
            other_cpu_share=others_s * hertz / total,
            hiccups=self._hiccups.percentiles(),
            fdatasync=samples_of(self._syncs),
        )

    def cores(self) -> tuple[CoreUse, ...]:
        """How busy each core was."""
        found = []
        for name, after in self._after.items():
            before = self._before.get(name)
            if name == "cpu" or before is None:
                continue
            total = max(after.total - before.total, 1)
            found.append(
                CoreUse(
                    cpu=int(name.removeprefix("cpu")),
                    user=(after.user - before.user) / total,
                    system=(after.system - before.system) / total,
                    stolen=(after.stolen - before.stolen) / total,
                    idle=(after.idle - before.idle) / total,
                )
            )
        return tuple(found)

    def _others(self) -> dict[int, float]:
        """CPU seconds of every process that is not part of the run."""
        own = {os.getpid(), *self._own_pids()}
        found = {}
        for process in psutil.process_iter():
            if process.pid in own:
                continue
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            found[process.pid] = times.user + times.system
        return found


def judge(
    *, stolen_share: float, other_cpu_share: float, hiccups: Percentiles, fdatasync: Percentiles
) -> Noise:
    """The verdict whether a machine was quiet."""
    why = []
    if stolen_share > STOLEN_SHARE_MAX:
        why.append(f"{stolen_share:.1%} of the time was stolen by the hypervisor")
    if other_cpu_share > OTHERS_SHARE_MAX:
        why.append(f"other processes used {other_cpu_share:.1%} of the time")
    return Noise(
        stolen_share=stolen_share,
        other_cpu_share=other_cpu_share,
        hiccups=hiccups,
        fdatasync=fdatasync,
        quiet=not why,
        why="; ".join(why),
    )


def _stat() -> dict[str, _CpuTimes]:
    return parse_stat(Path("/proc/stat").read_text(encoding="ascii"))


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
