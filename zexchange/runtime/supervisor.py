"""Runs a whole exchange on one machine: the thin shell around `supervision.Supervision`.

It owns processes, pipes, signals and the clock; what to do it asks the core. Everything ends with it:
children get SIGTERM from the kernel when it dies, and they hold an inherited lock, so a successor waits until
they are really gone.
"""

import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import psutil

from zexchange import __version__
from zexchange.config import Config, environment_of
from zexchange.genesis import Genesis
from zexchange.runtime.exchange_info import (
    SUPERVISOR_LOCK,
    Endpoint,
    ExchangeInfo,
    ProcessInfo,
    lock_owner,
    take_lock,
    write_exchange,
)
from zexchange.runtime.figures import FigureMemory
from zexchange.runtime.logs import begin_output, bound_output, log_to_file, log_to_terminal, tail
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.pinning import (
    CORES_NEEDED,
    USABLE_CPUS_ENV,
    auto_workers,
    colocated,
    physical_cores,
    pinning_plan,
    usable_cpus,
)
from zexchange.runtime.ports import PortUnavailable, reserve_ports
from zexchange.runtime.process import EXIT_REFUSED, PARENT_PID_ENV, READY_FD_ENV, die_with_parent
from zexchange.runtime.store import FOREIGN_ADVICE, EmbeddedStore, StoreDamaged, StoreFailed, store_url
from zexchange.runtime.supervision import (
    Action,
    AllReady,
    Finished,
    GiveUp,
    Note,
    Signal,
    Start,
    State,
    Supervision,
    exchange_specs,
)
from zexchange.runtime.wakeups import WakeUps, measure_wakeups

CHILDREN_LOCK = "children"
CHILDREN_GONE_TIMEOUT_S = 15.0
"""How long a successor waits for the processes of a killed exchange: the grace of a stop, three times."""
STORE_PROBE_S = 0.02
"""Pause between two questions whether the store has loaded its file."""
WAITING_NOTE_S = 5.0
"""Pause between two lines that say what a slow start waits for."""
PUBLISH_AGAIN_S = 1.0
"""Pause before exchange.json is written again when it could not be."""
OUTPUT_CHECK_S = 60.0
"""Pause between two looks at the size of what the processes print; they hardly print anything."""
TAIL_LINES = 8


class CannotStart(RuntimeError):
    """The exchange cannot be started here; one sentence with the reason and the remedy."""


class Supervisor:
    """One exchange, from `run()` to its end. Must be used in the main thread: it owns the signals."""

    def __init__(
        self,
        paths: DataPaths,
        config: Config,
        genesis: Genesis,
        *,
        config_file: Path | None = None,
        overrides: Mapping[str, str] | None = None,
        on_ready: Callable[[ExchangeInfo], None] = lambda _info: None,
        child_command: Callable[[str], list[str]] | None = None,
        demo: bool = False,
    ) -> None:
        self._paths = paths
        self._config = config
        self._genesis = genesis
        self._config_file = config_file
        self._overrides = dict(overrides or {})
        self._on_ready = on_ready
        self._child_command = child_command or self._zexchange_command
        cores = physical_cores()
        chosen = config.ingress.workers
        workers = auto_workers(len(cores), genesis.shards) if chosen == "auto" else chosen
        self._colocated = colocated(config.ingress.colocate, len(cores))
        specs = exchange_specs(
            range(genesis.shards),
            workers,
            not config.store.url,
            colocated=self._colocated,
            web=config.web.enabled,
            demo=demo,
        )
        self._names = [spec.name for spec in specs]
        self._core = Supervision(specs)
        self._pinning = pinning_plan(
            config.pinning.mode,
            cores,
            [name for name in self._names if name.startswith("matcher-")],
            [name for name in self._names if name.startswith("ingress-")],
            _wakeups(config.pinning.mode, cores),
        )
        self._store = EmbeddedStore(paths, config)
        self._figures = FigureMemory(self._names)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._ready_fds: dict[int, str] = {}
        self._log_starts: dict[str, tuple[int, int]] = {}
        self._selector = selectors.DefaultSelector()
        self._log = logging.getLogger("zexchange.runtime.supervisor")
        self._children_lock = -1
        self._publish_at: float | None = None  # monotonic; None if exchange.json is as it should be
        self._outputs_checked_at = time.monotonic()
        self._exit_code = 0
        self._finished = False
        self._stop_requests = 0
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def run(self) -> int:
        """Start everything, watch until asked to stop, stop everything. Returns the exit code.

        Raises CannotStart before anything was started.
        """
        die_with_parent(signal.SIGTERM)
        paths, section = self._paths, self._config.logging
        paths.create()
        lock = take_lock(paths.lock(SUPERVISOR_LOCK))
        if lock is None:
            owner = lock_owner(paths.lock(SUPERVISOR_LOCK)) or "unknown"
            raise CannotStart(
                f"an exchange already runs in {paths.root} (pid {owner}); stop it, or use another --data"
            )
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        reservation = ExitStack()
        previous: dict[int, object] = {}
        try:
            self._log = log_to_file(
                "supervisor",
                paths.log("supervisor"),
                section.level,
                section.max_file_bytes,
                section.kept_files,
            )
            log_to_terminal()
            self._children_lock = self._wait_for_children_of_predecessor()
            try:
                reservation.enter_context(reserve_ports(self._config))
            except PortUnavailable as error:
                raise CannotStart(str(error)) from error
            for name in self._names:
                begin_output(paths.output(name))
            paths.exchange_json.unlink(missing_ok=True)
            paths.bots_paused.unlink(missing_ok=True)
            paths.remove_runtime()
            paths.create()
            previous_wakeup = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
            for watched in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
                previous[watched] = signal.signal(watched, self._on_signal)
            self._selector.register(wake_read, selectors.EVENT_READ)
            try:
                self._loop(wake_read)
            finally:
                self._kill_survivors()
                for number, handler in previous.items():
                    signal.signal(number, handler)  # type: ignore[arg-type]
                signal.set_wakeup_fd(previous_wakeup)
        finally:
            paths.exchange_json.unlink(missing_ok=True)
            paths.remove_runtime()
            self._selector.close()
            reservation.close()
            for descriptor in (wake_read, wake_write, lock, self._children_lock):
                if descriptor >= 0:
                    os.close(descriptor)
            self._figures.close()
        return self._exit_code

    # --- loop -----------------------------------------------------------------------------------------------

    def _loop(self, wake_read: int) -> None:
        started = noted = time.monotonic()
        self._do(self._core.tick(_now_ms()))
        while not self._finished:
            for key, _events in self._selector.select(self._timeout_s()):
                if key.fd == wake_read:
                    _drain(wake_read)
                else:
                    self._read_ready(key.fd)
            self._handle_stop_requests()
            self._reap()
            self._probe_store()
            self._do(self._core.tick(_now_ms()))
            now = time.monotonic()
            if self._publish_at is not None and now >= self._publish_at:
                self._publish()
            self._bound_outputs(now)
            if not self._core.ever_ready and not self._core.stopping and now - noted >= WAITING_NOTE_S:
                noted = now
                self._log.info("waiting for %s (%d s)", ", ".join(self._core.waiting_for()), now - started)

    def _timeout_s(self) -> float:
        timeout = WAITING_NOTE_S
        deadline_ms = self._core.next_deadline_ms()
        if deadline_ms is not None:
            timeout = min(timeout, max(0.0, (deadline_ms - _now_ms()) / 1000))
        if self._store_starting():
            timeout = min(timeout, STORE_PROBE_S)
        if self._publish_at is not None:
            timeout = min(timeout, PUBLISH_AGAIN_S)
        return timeout

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._stop_requests += 1

    def _handle_stop_requests(self) -> None:
        if self._stop_requests == 0:
            return
        requests, self._stop_requests = self._stop_requests, 0
        if not self._core.stopping:
            self._log.info("stopping (again to force)")
            self._do(self._core.stop(_now_ms()))
            requests -= 1
        if requests > 0 and not self._finished:
            self._log.warning("forced to stop")
            self._exit_code = 130
            self._do(self._core.force())

    def _reap(self) -> None:
        for name, child in list(self._children.items()):
            status = child.poll()
            if status is None:
                continue
            del self._children[name]
            for descriptor in [fd for fd, owner in self._ready_fds.items() if owner == name]:
                self._close_ready(descriptor)
            repaired = False
            if name == "store" and not self._core.stopping:
                try:
                    repaired = self._store.repair_if_torn() is not None
                except StoreDamaged as error:
                    self._log.error("%s", error)
                    status = EXIT_REFUSED  # another try would find the same
            self._do(self._core.exited(name, status, _now_ms()))
            if repaired:
                self._do(self._core.retry_now("store", _now_ms()))
            if self._core.ever_ready and not self._core.stopping:
                self._publish()

    def _probe_store(self) -> None:
        if self._store_starting() and self._store.is_ready():
            self._became_ready("store")

    def _bound_outputs(self, now: float) -> None:
        if now - self._outputs_checked_at < OUTPUT_CHECK_S:
            return
        self._outputs_checked_at = now
        for name in self._names:
            if bound_output(self._paths.output(name), self._config.logging.max_file_bytes):
                self._log.info("%s was full and begins anew", self._paths.output(name))

    def _store_starting(self) -> bool:
        return "store" in self._children and self._core.state("store") is State.STARTING

    def _became_ready(self, name: str) -> None:
        self._do(self._core.became_ready(name, _now_ms()))
        if self._core.ever_ready:
            self._publish()

    def _read_ready(self, descriptor: int) -> None:
        name = self._ready_fds[descriptor]
        line = os.read(descriptor, 65_536)
        self._close_ready(descriptor)
        if line:
            self._became_ready(name)

    def _close_ready(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)
        del self._ready_fds[descriptor]

    # --- actions --------------------------------------------------------------------------------------------

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start(name):
                    self._start(name)
                case Signal(name, number):
                    child = self._children.get(name)
                    if child is not None:
                        child.send_signal(number)
                case Note(name, text, problem):
                    self._note(name, text, problem)
                case AllReady():
                    self._publish()
                    self._tell_ready()
                case GiveUp(name, text):
                    self._exit_code = 1
                    self._log.error("the exchange cannot start: %s", self._with_tail(name, text))
                case Finished():
                    self._finished = True
                    self._log.info("stopped")

    def _start(self, name: str) -> None:
        self._log_starts[name] = (_size(self._paths.log(name)), _size(self._paths.output(name)))
        try:
            environment = self._child_environment()
            child = (
                self._store.start(environment) if name == "store" else self._start_child(name, environment)
            )
        except (OSError, StoreFailed) as error:
            self._log.error("%s cannot be started: %s", name, error)
            self._do(self._core.exited(name, 1, _now_ms()))
            return
        self._children[name] = child
        self._pin(name, child.pid)
        self._log.debug("started %s", name, extra={"zx": {"pid": child.pid}})

    def _start_child(self, name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        environment[READY_FD_ENV] = str(ready_write)
        environment[PARENT_PID_ENV] = str(os.getpid())
        environment.update(self._figures.environment(name))
        try:
            with self._paths.output(name).open("ab") as output:
                child = subprocess.Popen(
                    self._child_command(name),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(ready_write, self._children_lock, *self._figures.descriptors(name)),
                    start_new_session=True,  # Ctrl-C in the terminal is ours to handle
                    env=environment,
                )
        except BaseException:
            os.close(ready_read)
            raise
        finally:
            os.close(ready_write)
        self._selector.register(ready_read, selectors.EVENT_READ)
        self._ready_fds[ready_read] = name
        return child

    def _zexchange_command(self, name: str) -> list[str]:
        """Command line of a child: `matcher-0` is `zexchange matcher 0`."""
        role, _, index = name.partition("-")
        command = [sys.executable, "-m", "zexchange", role, *([index] if index else [])]
        if self._colocated and name == "matcher-0":
            command += ["--ingress", "0"]
        if name == "bots":
            entry = Endpoint(self._config.exchange.host, self._config.tcp_port)
            command += ["--connect", str(Endpoint(entry.reachable_host, entry.port))]
        command += ["--data", str(self._paths.root)]
        if self._config_file is not None:
            command += ["--config", str(self._config_file.resolve())]
        return command

    def _child_environment(self) -> dict[str, str]:
        environment = {
            name: text for name, text in os.environ.items() if name not in (READY_FD_ENV, PARENT_PID_ENV)
        }
        environment.update(environment_of(self._overrides))
        environment[USABLE_CPUS_ENV] = ",".join(map(str, sorted(usable_cpus())))
        return environment

    def _pin(self, name: str, pid: int) -> None:
        cpus = self._pinning.cpus.get(name)
        if not cpus:
            return
        try:
            psutil.Process(pid).cpu_affinity(list(cpus))
        except (psutil.Error, OSError, AttributeError) as error:
            self._log.warning("%s cannot be pinned to CPU %s: %s", name, ",".join(map(str, cpus)), error)

    def _note(self, name: str, text: str, problem: bool) -> None:
        if problem:
            self._log.warning("%s", self._with_tail(name, text))
        else:
            self._log.info("%s", text)

    def _with_tail(self, name: str, text: str) -> str:
        """`text` and what the process itself said went wrong, if it said anything since it was started."""
        log, output = self._paths.log(name), self._paths.output(name)
        log_start, output_start = self._log_starts.get(name, (0, 0))
        said = [line for line in tail(log, TAIL_LINES, log_start) if line.startswith(("error", "warning"))]
        printed = tail(output, TAIL_LINES, output_start)
        if name == "store":  # " # " is its mark for warnings and errors
            printed = [line for line in printed if " # " in line and FOREIGN_ADVICE not in line]
        # A process without a log of its own at the end may have said the same to both.
        printed = [line for line in printed if not any(line.strip() in one for one in said)]
        lines = said[-2:] + printed
        if not lines:
            return text
        indented = "\n".join(lines).replace("\n", "\n    ")
        return f"{text}\n    {indented}\n    (more in {self._paths.logs}/{name}.*)"

    def _info(self) -> ExchangeInfo:
        return ExchangeInfo(
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            data=str(self._paths.root),
            name=self._genesis.name,
            deployment_id=self._genesis.deployment_id.hex(),
            shards=self._genesis.shards,
            tcp=Endpoint(self._config.exchange.host, self._config.tcp_port),
            web=Endpoint(self._config.web.host, self._config.web_port) if self._config.web.enabled else None,
            admin=Endpoint(self._config.web.admin_host, self._config.admin_port)
            if self._config.web.enabled
            else None,
            store_url=store_url(self._paths, self._config),
            durability=self._config.store.fsync,
            pinning=self._pinning.reason,
            colocated=self._colocated,
            processes={
                name: ProcessInfo(
                    pid=self._children[name].pid if name in self._children else None,
                    state=self._core.state(name).value,
                    restarts=self._core.restarts(name),
                    cpus=self._pinning.cpus.get(name, ()),
                )
                for name in self._names
            },
        )

    def _publish(self) -> None:
        """Write exchange.json, or try again later: a full disk is no reason to take the exchange down."""
        try:
            write_exchange(self._paths, self._info())
        except OSError as error:
            if self._publish_at is None:
                self._log.error("%s is out of date: %s", self._paths.exchange_json, error)
            self._publish_at = time.monotonic() + PUBLISH_AGAIN_S
            return
        if self._publish_at is not None:
            self._log.info("%s is written again", self._paths.exchange_json)
            self._publish_at = None

    def _tell_ready(self) -> None:
        try:
            self._on_ready(self._info())
        except OSError as error:  # whoever reads our output is gone, or it goes to a full disk
            self._log.warning("the start screen cannot be printed: %s", error)

    # --- before and after -----------------------------------------------------------------------------------

    def _wait_for_children_of_predecessor(self) -> int:
        path = self._paths.lock(CHILDREN_LOCK)
        deadline = time.monotonic() + CHILDREN_GONE_TIMEOUT_S
        noted = False
        while True:
            descriptor = take_lock(path)
            if descriptor is not None and (self._config.store.url or self._store.is_free()):
                return descriptor
            if descriptor is not None:
                os.close(descriptor)
            if not noted:
                self._log.info("waiting for processes of an earlier exchange to end")
                noted = True
            if time.monotonic() >= deadline:
                pids = ", ".join(str(pid) for pid in processes_of(self._paths)) or "unknown"
                raise CannotStart(
                    f"processes of an earlier exchange in {self._paths.root} do not end: "
                    f"stop them (pid {pids})"
                )
            time.sleep(0.05)  # a lock has no descriptor to wait on

    def _kill_survivors(self) -> None:
        """Only after an error in this class itself: nothing may outlive it."""
        for child in self._children.values():
            child.kill()
        for child in self._children.values():
            child.wait()
        for descriptor in list(self._ready_fds):
            self._close_ready(descriptor)


def processes_of(paths: DataPaths) -> list[int]:
    """Pids of processes whose command line names this data folder, ours excepted."""
    root, store = str(paths.root), str(paths.store)
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = process.info["cmdline"] or []
        if process.info["pid"] != os.getpid() and (root in command or store in command):
            found.append(int(process.info["pid"]))
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        pass


def _wakeups(mode: str, cores: Sequence[tuple[int, ...]]) -> WakeUps | None:
    """What waking a process costs, where the plan depends on it."""
    if mode == "off" or not 2 <= len(cores) < CORES_NEEDED:
        return None
    try:
        return measure_wakeups(cores[-1][0], cores[0][0])
    except OSError:
        return None
