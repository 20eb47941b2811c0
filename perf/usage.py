"""What the processes of an exchange use while a run goes on: processor time, memory, processors allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import psutil

from perf.results import ProcessUse

_MIB = 1024 * 1024


class ExchangeUse:
    """Processor time from `begin` to `end`, and memory whenever it is asked."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        """`pids`: processes by name, as `RunningExchange.pids`."""
        self._processes = {name: psutil.Process(pid) for name, pid in pids().items()}
        self._cpus: dict[str, tuple[int, ...]] = {}
        self._before: dict[str, tuple[float, float]] = {}
        self._after: dict[str, tuple[float, float]] = {}

    @property
    def pids(self) -> set[int]:
        """Of all processes."""
        return {process.pid for process in self._processes.values()}

    def begin(self) -> None:
        """The measured part begins."""
        self._cpus = {name: tuple(process.cpu_affinity()) for name, process in self._processes.items()}
        self._before = self._times()

    def end(self) -> None:
        """It ends."""
        self._after = self._times()

    def rss_mb(self) -> dict[str, float]:
        """Resident memory by process, now."""
        return {name: process.memory_info().rss / _MIB for name, process in self._processes.items()}

    def per_order(self, orders: int, rss_mb: Mapping[str, float]) -> tuple[ProcessUse, ...]:
        """What each process used per order."""
        return tuple(
            ProcessUse(
                name=name,
                user_us_per_order=(self._after[name][0] - user) / max(orders, 1) * 1e6,
                system_us_per_order=(self._after[name][1] - system) / max(orders, 1) * 1e6,
                rss_mb=rss_mb[name],
                cpus=self._cpus[name],
            )
            for name, (user, system) in self._before.items()
        )

    def _times(self) -> dict[str, tuple[float, float]]:
        return {
            name: ((times := process.cpu_times()).user, times.system)
            for name, process in self._processes.items()
        }
