"""The load generator in a process of its own: `python -m perf.generator JOB RESULT PARENT_PID`.

It logs its sessions on, says `ready` on stdout, waits for a line on stdin, and then makes one call into C
(perf/csrc/loadgen.h), without the interpreter's lock. What it measured goes into the file RESULT.
It ends with its parent, however that ends: nobody would count what it sends from then on.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from perf.histogram import Histogram
from perf.native import ffi, lib
from perf.workload import Plan
from zexchange.runtime.process import die_with_parent
from zexchange.wire.messages import Sequence
from zexchange.wire.session import ClientSession, Established, SessionEnded, SessionSettings

_HEARTBEAT_MS = 60_000
_RECEIVE_BYTES = 65_536


class Job(msgspec.Struct):
    """What to send, and to whom. Times in nanoseconds."""

    host: str
    port: int
    deployment_id: bytes
    keys: list[bytes]
    plan: Plan
    duration_ns: int
    window: int = 0
    """Frames on their way per trader; 0: open loop."""
    drain_ns: int = 10_000_000_000
    late_ns: int = 5_000_000


class Outcome(msgspec.Struct):
    """What came of it. Counts are of commands, except where it says frames."""

    error: int
    reason: int
    frames_sent: int
    answered: int
    accepted: int
    rejected: int
    not_applied: int
    doubled: int
    foreign: int
    trades: int
    late_frames: int
    elapsed_ns: int
    start_wall_ns: int
    cpu_s: float
    latency: bytes
    service: bytes
    lateness: bytes
    by_second: list[bytes]


class GeneratorFailed(RuntimeError):
    """The generator process ended without a result; the message holds what it printed."""


class Generator:
    """One generator process: start it, `go`, then `outcome`. Ends with the block."""

    def __init__(self, job: Job, folder: Path, cpus: Collection[int] = ()) -> None:
        """`cpus`: where it may run; anywhere if empty."""
        self._cpus = cpus
        self._job_file = folder / "job"
        self._result_file = folder / "outcome"
        self._job_file.write_bytes(pickle.dumps(job))
        self._result_file.unlink(missing_ok=True)

    def __enter__(self) -> Generator:
        command = [sys.executable, "-m", "perf.generator", str(self._job_file), str(self._result_file)]
        command.append(str(os.getpid()))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).resolve().parent.parent,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise self._failed()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def go(self) -> None:
        """Start sending."""
        if self._cpus:
            os.sched_setaffinity(self._process.pid, self._cpus)
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def finished(self, wait_s: float) -> bool:
        """Wait for at most so long; True when it has ended."""
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def outcome(self) -> Outcome:
        """After `finished`. Raises GeneratorFailed."""
        if not self._result_file.exists():
            raise self._failed()
        found = pickle.loads(self._result_file.read_bytes())  # noqa: S301  (our own process wrote it)
        assert isinstance(found, Outcome)
        return found

    def _failed(self) -> GeneratorFailed:
        assert self._process.stderr is not None
        self._process.kill()
        return GeneratorFailed(f"the load generator failed:\n{self._process.stderr.read()}")


def _log_on(host: str, port: int, key: bytes, deployment_id: bytes) -> socket.socket:
    """A connection with an established session. Raises ConnectionError."""
    sock = socket.create_connection((host, port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    session = ClientSession(
        SessionSettings(heartbeat_interval_ms=_HEARTBEAT_MS),
        key=SigningKey(key),
        deployment_id=deployment_id,
        now_ms=_now_ms(),
    )
    while True:
        data = sock.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the exchange closed the connection during logon")
        for frame in session.feed(data, _now_ms()):
            event = session.receive(frame, _now_ms())
            if isinstance(event, Established):
                sock.setblocking(False)
                return sock
            if isinstance(event, SessionEnded):
                raise ConnectionError(f"logon refused: {event.reason.name}")
        sock.sendall(session.take_output())


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def run(job: Job, sockets: list[socket.socket]) -> Outcome:
    """Send the plan over established sessions, one per key."""
    plan = job.plan
    seconds = max(1, job.duration_ns // 1_000_000_000 + 1)
    latency, service, lateness = Histogram(), Histogram(), Histogram()
    by_second = ffi.new("hdr[]", seconds)
    heartbeat = Sequence(next_seq_no=0).encode()
    kept = {
        "frames": ffi.from_buffer("uint8_t[]", plan.frames),
        "offsets": ffi.from_buffer("uint64_t[]", plan.offsets),
        "lengths": ffi.from_buffer("uint32_t[]", plan.lengths),
        "due_ns": ffi.from_buffer("uint64_t[]", plan.due_ns),
        "traders": ffi.from_buffer("uint16_t[]", plan.traders),
        "fds": ffi.new("int32_t[]", [sock.fileno() for sock in sockets]),
        "heartbeat": ffi.from_buffer("uint8_t[]", heartbeat),
    }
    c_plan = ffi.new("loadgen_plan *")
    for name, pointer in kept.items():
        setattr(c_plan, name, pointer)
    c_plan.frame_count = plan.count
    c_plan.first_nonce = plan.first_nonce
    c_plan.duration_ns = job.duration_ns
    c_plan.drain_ns = job.drain_ns
    c_plan.late_ns = job.late_ns
    c_plan.heartbeat_bytes = len(heartbeat)
    c_plan.trader_count = len(sockets)
    c_plan.commands = plan.commands
    c_plan.window = job.window
    c_plan.seconds = seconds
    result = ffi.new("loadgen_result *")
    result.latency, result.service, result.lateness = latency.handle, service.handle, lateness.handle
    result.by_second = by_second
    before_s = _cpu_s()
    error = lib.loadgen_run(c_plan, result)
    return Outcome(
        error=error,
        reason=result.reason,
        frames_sent=result.sent,
        answered=result.answered,
        accepted=result.accepted,
        rejected=result.rejected,
        not_applied=result.not_applied,
        doubled=result.doubled,
        foreign=result.foreign,
        trades=result.trades,
        late_frames=result.late,
        elapsed_ns=result.elapsed_ns,
        start_wall_ns=result.start_wall_ns,
        cpu_s=_cpu_s() - before_s,
        latency=latency.to_bytes(),
        service=service.to_bytes(),
        lateness=lateness.to_bytes(),
        by_second=[
            Histogram(ffi.unpack(one.counts, lib.HDR_COUNTS), one.max_ns).to_bytes()
            for one in by_second
            if one.total
        ],
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(job_file: str, result_file: str, parent_pid: str) -> None:
    """What the process does."""
    die_with_parent(signal.SIGTERM, int(parent_pid))
    job = pickle.loads(Path(job_file).read_bytes())  # noqa: S301  (our own process wrote it)
    assert isinstance(job, Job)
    sockets = [_log_on(job.host, job.port, key, job.deployment_id) for key in job.keys]
    print("ready", flush=True)
    sys.stdin.readline()
    outcome = run(job, sockets)
    for sock in sockets:
        sock.close()
    temporary = Path(result_file + ".tmp")
    temporary.write_bytes(pickle.dumps(outcome))
    os.replace(temporary, result_file)


if __name__ == "__main__":
    # By its real name, so that what is pickled is of the same classes on both sides.
    from perf.generator import main as generator_main

    generator_main(*sys.argv[1:])
