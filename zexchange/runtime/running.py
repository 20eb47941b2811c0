"""A whole exchange as a child of this process: for tests, for `zexchange replay`, for measurements.

    with RunningExchange(data, port_base=free_port_base()) as exchange:
        client = Client(exchange.host, exchange.port, ...)
        exchange.kill("matcher-0")
        exchange.wait_until_replaced("matcher-0", old_pid)

It is started as anybody would, by `zexchange up`, and gets SIGTERM from the kernel when this process dies.
Start it from a thread that lives as long as the exchange: the kernel watches the thread.
"""

import atexit
import functools
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from zexchange.limits import PORT_BASE_MAX, PORT_OFFSET_ADMIN, PORT_OFFSET_TCP, PORT_OFFSET_WEB
from zexchange.runtime.exchange_info import ExchangeInfo, read_exchange
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.process import PARENT_PID_ENV

START_TIMEOUT_S = 120.0
"""Ample: a start takes about a second, on a busy machine some more, and a long log has to be replayed."""
STOP_TIMEOUT_S = 60.0
"""Four stages with their graces, three times over."""
_POLL_S = 0.02
_REST_S = 10.0
"""For the rest of the output of a supervisor that has ended: it is in the pipe already."""


class NotRunning(RuntimeError):
    """The exchange did not start, or ended by itself; the message holds the last of its output."""


class _Output:
    """What a child prints, read by a thread of its own: a pipe that nobody reads would stop the child.

    The first and the last `KEPT_BYTES` are kept.
    """

    KEPT_BYTES = 1_048_576

    def __init__(self, descriptor: int) -> None:
        """Takes the descriptor over and closes it at the end."""
        self._descriptor = descriptor
        self._first = bytearray()
        self._last = bytearray()
        self._ready = False
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="exchange-output", daemon=True)
        self._thread.start()

    def text(self) -> str:
        with self._changed:
            return (self._first + self._last).decode("utf-8", "replace")

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait for a line that starts with `ready`; False if it does not come, or the output ends first."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended, timeout_s)
            return self._ready

    def join(self, timeout_s: float) -> None:
        """Wait until all of it was read."""
        self._thread.join(timeout_s)

    def _read(self) -> None:
        try:
            while data := os.read(self._descriptor, 65_536):
                with self._changed:
                    self._take(data)
                    self._changed.notify_all()
        finally:
            os.close(self._descriptor)
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _take(self, data: bytes) -> None:
        if len(self._first) < self.KEPT_BYTES:
            self._first += data
            if not self._ready:
                self._ready = any(line.startswith(b"ready") for line in self._first.split(b"\n")[:-1])
        else:
            self._last += data
            del self._last[: -self.KEPT_BYTES]


class RunningExchange:
    """An exchange in a folder; see the module. Also usable without `with`: start(), then stop()."""

    def __init__(
        self,
        data: Path | str,
        *,
        port_base: int | None = None,
        config_file: Path | None = None,
        settings: Mapping[str, str] | None = None,
        demo: bool = False,
    ) -> None:
        """`settings` maps `section.key` to text, as flags would; `port_base` None takes free ports; `demo`: with bots.

        Without a web process, unless the settings enable it.
        """
        self.paths = DataPaths(Path(data))
        self.port_base = free_port_base() if port_base is None else port_base
        self.host = "127.0.0.1"
        self.port = self.port_base + PORT_OFFSET_TCP
        self._config_file = config_file
        self._demo = demo
        self._settings = {"web.enabled": "false", **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._output: _Output | None = None

    def __enter__(self) -> "RunningExchange":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Pid of the supervisor. Raises NotRunning."""
        if self._process is None:
            raise NotRunning("the exchange was not started")
        return self._process.pid

    @property
    def output(self) -> str:
        """What it printed so far, stdout and stderr together."""
        return "" if self._output is None else self._output.text()

    @property
    def info(self) -> ExchangeInfo:
        """run/exchange.json as it is now. Raises NotRunning when nothing runs."""
        info = read_exchange(self.paths)
        if info is None:
            raise NotRunning(f"nothing runs in {self.paths.root}")
        return info

    def pids(self) -> dict[str, int]:
        """Pids of the processes by name."""
        return {name: process.pid for name, process in self.info.processes.items() if process.pid is not None}

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start and wait for the line `ready`. Raises NotRunning with the output if it does not come."""
        from zexchange.config import environment_of

        command = [sys.executable, "-m", "zexchange", "up", "--data", str(self.paths.root)]
        command += ["--port-base", str(self.port_base), *(["--demo"] if self._demo else [])]
        if self._config_file is not None:
            command += ["--config", str(self._config_file)]
        read_end, write_end = os.pipe()
        self._output = _Output(read_end)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment_of(self._settings), PARENT_PID_ENV: str(os.getpid())},
            )
        finally:
            os.close(write_end)
        if not self._output.wait_ready(timeout_s):
            self.stop()
            raise NotRunning(f"the exchange in {self.paths.root} did not start:\n{self.output}")

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Stop it as `kill PID` does and return its exit code; 0 if it was not running."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise NotRunning(f"the exchange in {self.paths.root} did not stop:\n{self.output}") from None
        self._read_rest()
        return process.returncode

    def crash(self) -> None:
        """kill -9 of the supervisor; everything else ends by itself. Returns when all of it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        children = list(self.pids().values())
        process.kill()
        process.wait()
        wait_for(
            lambda: not any(_exists(pid) for pid in children), STOP_TIMEOUT_S, "its processes are still there"
        )
        self._read_rest()

    def _read_rest(self) -> None:
        if self._output is not None:
            self._output.join(_REST_S)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send one of its processes a signal; returns the pid it had."""
        pid = self.pids()[name]
        os.kill(pid, number)
        return pid

    def wait_until_replaced(self, name: str, old_pid: int, timeout_s: float = START_TIMEOUT_S) -> int:
        """Wait until the process runs again under another pid and is ready; returns the new pid."""

        def replaced() -> bool:
            info = read_exchange(self.paths)
            if info is None:
                return False
            process = info.processes[name]
            return process.pid not in (None, old_pid) and process.state == "ready"

        wait_for(replaced, timeout_s, f"{name} was not started again")
        return self.pids()[name]


@functools.cache
def _own_port_bases() -> Iterator[int]:
    """Bases that no other process of this machine is given, by turns for ever.

    Of a thousand ports, which a socket with a name in Linux' abstract namespace stands for until this process ends.
    """
    thousands = range(10_000, min(32_000, PORT_BASE_MAX - 1_000), 1_000)
    for first in random.sample(thousands, len(thousands)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0zexchange-ports-{first}")
        except OSError:
            claim.close()
            continue
        atexit.register(claim.close)
        return itertools.cycle(range(first, first + 1_000, 100))
    raise OSError("too many processes want ports on 127.0.0.1")


def free_port_base() -> int:
    """A port_base whose ports are free, below the range that the kernel gives to outgoing connections."""
    for base in itertools.islice(_own_port_bases(), 10):
        if all(_is_free(base + offset) for offset in (PORT_OFFSET_TCP, PORT_OFFSET_WEB, PORT_OFFSET_ADMIN)):
            return base
    raise OSError("no free ports on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the exchange does: connections that have ended a moment ago do not keep it from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _exists(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], timeout_s: float, failure: str) -> None:
    """Look again and again until the condition holds. Raises NotRunning with `failure`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise NotRunning(failure)
        time.sleep(_POLL_S)
