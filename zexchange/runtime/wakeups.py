"""What it costs on this machine to wake a process: on the same core, and on another one that is idle.

On a virtual machine the second may cost several times the first, since an idle core has to be woken by the
hypervisor. Where cores are few that decides which processes share one: see zexchange/runtime/pinning.py.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import time
from collections.abc import Callable

import msgspec

ROUNDS = 64
_PAUSE_S = 0.0003
"""Between two rounds: long enough for a core to go idle, as it does between two orders."""


class WakeUps(msgspec.Struct, frozen=True):
    """Medians of a message to another process and back, in microseconds."""

    same_core_us: float
    other_core_us: float

    @property
    def ratio(self) -> float:
        """How many times the same core the other one costs."""
        return self.other_core_us / self.same_core_us


def measure_wakeups(cpu: int, other_cpu: int) -> WakeUps:
    """Takes some 60 ms and two short-lived processes. Raises OSError where processes cannot be pinned."""
    return WakeUps(_round_trip_us(cpu, cpu), _round_trip_us(cpu, other_cpu))


def _round_trip_us(cpu: int, peer_cpu: int) -> float:
    """Must be called while the process has one thread: it forks."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        _child(lambda: _echo(ours, theirs, peer_cpu))
    theirs.close()
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
        samples_us = []
        for _ in range(ROUNDS):
            time.sleep(_PAUSE_S)
            begun_ns = time.perf_counter_ns()
            ours.send(b"?")
            if not ours.recv(1):
                raise OSError(f"no process can be pinned to CPU {peer_cpu}")
            samples_us.append((time.perf_counter_ns() - begun_ns) / 1000)
        return statistics.median(samples_us)
    finally:
        os.sched_setaffinity(0, before)
        ours.close()
        os.waitpid(child, 0)


def _child(work: Callable[[], None]) -> None:
    """Run `work` and end, without anything of the parent's that should happen once."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        work()
    finally:
        os._exit(0)


def _echo(ours: socket.socket, theirs: socket.socket, cpu: int) -> None:
    ours.close()
    os.sched_setaffinity(0, {cpu})
    while theirs.recv(1):
        theirs.send(b"!")
