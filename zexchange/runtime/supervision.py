"""The supervisor's decisions, without processes, sockets or clocks: what to start, when again, and when all
is ready.

    WAITING ──needs ready──▶ STARTING ──ready──▶ READY
       ▲                        │ exit             │ exit
       └──────pause over────────┴───── BACKOFF ◀───┘
    a process that ends with EXIT_REFUSED is REFUSED: it stays down until somebody decides
    stop(): stages in order, each SIGTERM, then SIGKILL after the grace; STOPPED

Time comes in as milliseconds of any monotonic clock. Every method returns the actions to carry out, in order.
"""

import enum
import signal
from collections.abc import Iterable, Sequence

import msgspec

from zexchange.limits import STOP_GRACE_MS
from zexchange.runtime.process import EXIT_FENCED, EXIT_REFUSED, EXIT_STORE

BACKOFF_FIRST_MS = 100
"""First pause before a restart: a single crash costs almost nothing."""
BACKOFF_MAX_MS = 10_000
"""Longest pause: a process that cannot run is tried six times a minute."""
FENCED_PAUSE_MS = 5_000
"""Shortest pause after a matcher was fenced: whoever took its shard over is left in peace long enough to be
noticed."""
STABLE_MS = 30_000
"""A process that was ready this long starts again with the first pause."""
START_ATTEMPTS = 3
"""Exits before the exchange was ever ready after which starting is given up: at a first start somebody is
watching."""

assert BACKOFF_FIRST_MS < BACKOFF_MAX_MS < STABLE_MS, "a crash loop must never look stable"


class State(enum.Enum):
    """Of one process."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    REFUSED = "refused"
    STOPPING = "stopping"
    STOPPED = "stopped"


RUNNING = frozenset({State.STARTING, State.READY, State.STOPPING})
"""States in which the process exists."""


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process. It is started when all of `needs` are ready, and stopped with its `stop_stage`, lowest
    first."""

    name: str
    stop_stage: int
    needs: tuple[str, ...] = ()


class Start(msgspec.Struct, frozen=True):
    """Start the process."""

    name: str


class Signal(msgspec.Struct, frozen=True):
    """Send the process a signal."""

    name: str
    number: signal.Signals


class Note(msgspec.Struct, frozen=True):
    """Tell the operator. `problem` notes are warnings, and come with the tail of the process's log."""

    name: str
    text: str
    problem: bool = False


class AllReady(msgspec.Struct, frozen=True):
    """Every process is ready for the first time: orders are accepted."""


class GiveUp(msgspec.Struct, frozen=True):
    """The exchange cannot start; stop() has been decided already."""

    name: str
    text: str


class Finished(msgspec.Struct, frozen=True):
    """Every process has ended."""


Action = Start | Signal | Note | AllReady | GiveUp | Finished


class _Process:
    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.state = State.WAITING
        self.deadline_ms: int | None = None  # BACKOFF: next start; STOPPING: SIGKILL
        self.ready_since_ms = 0
        self.pause_ms = BACKOFF_FIRST_MS
        self.exits_before_ready = 0
        self.restarts = 0
        self.was_ready = False


class Supervision:
    """State of all processes; see the module."""

    def __init__(self, specs: Sequence[ProcessSpec]) -> None:
        self._processes = {spec.name: _Process(spec) for spec in specs}
        assert len(self._processes) == len(specs), "names are unique"
        for spec in specs:
            assert all(need in self._processes for need in spec.needs), "every need is a process"
        self._ever_ready = False
        self._stopping = False
        self._finished = False

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def ever_ready(self) -> bool:
        """True once AllReady was returned."""
        return self._ever_ready

    def state(self, name: str) -> State:
        return self._processes[name].state

    def restarts(self, name: str) -> int:
        """How often the process was started again."""
        return self._processes[name].restarts

    def waiting_for(self) -> list[str]:
        """Names of the processes that are not ready."""
        return [name for name, process in self._processes.items() if process.state is not State.READY]

    def next_deadline_ms(self) -> int | None:
        """When tick() has something to do, at the latest; None if only events matter."""
        deadlines = [
            process.deadline_ms for process in self._processes.values() if process.deadline_ms is not None
        ]
        return min(deadlines, default=None)

    def tick(self, now_ms: int) -> list[Action]:
        """Do what is due: start what may start, kill what does not stop."""
        actions: list[Action] = []
        for process in self._processes.values():
            due = process.deadline_ms is not None and now_ms >= process.deadline_ms
            if process.state is State.STOPPING and due:
                process.deadline_ms = None
                actions.append(
                    Note(process.spec.name, f"{process.spec.name} does not stop and is killed", True)
                )
                actions.append(Signal(process.spec.name, signal.SIGKILL))
            if self._stopping:
                continue
            if process.state is State.BACKOFF and due:
                process.state, process.deadline_ms = State.WAITING, None
            if process.state is State.WAITING and self._needs_ready(process):
                process.state = State.STARTING
                actions.append(Start(process.spec.name))
        return actions

    def became_ready(self, name: str, now_ms: int) -> list[Action]:
        """The process says that it does its work."""
        process = self._processes[name]
        if process.state is not State.STARTING:
            return []  # it was told to stop in the meantime
        process.state = State.READY
        process.ready_since_ms = now_ms
        actions: list[Action] = []
        if process.was_ready:
            actions.append(Note(name, f"{name} is ready again"))
        process.was_ready = True
        if not self._ever_ready and all(other.state is State.READY for other in self._processes.values()):
            self._ever_ready = True
            actions.append(AllReady())
        return actions + self.tick(now_ms)

    def exited(self, name: str, status: int, now_ms: int) -> list[Action]:
        """The process ended: `status` is its exit status, negative for the signal that killed it."""
        process = self._processes[name]
        if process.state is State.STOPPING or self._stopping:
            process.state, process.deadline_ms = State.STOPPED, None
            return self._next_stage(now_ms)
        if process.state is State.READY and now_ms - process.ready_since_ms >= STABLE_MS:
            process.pause_ms = BACKOFF_FIRST_MS
        if not self._ever_ready:
            process.exits_before_ready += 1
            if status == EXIT_REFUSED or process.exits_before_ready >= START_ATTEMPTS:
                process.state = State.REFUSED
                text = f"{name} {describe_exit(status)}"
                return [GiveUp(name, text), *self.stop(now_ms)]
        elif status == EXIT_REFUSED:
            process.state = State.REFUSED
            text = (
                f"{name} refuses to run and is not started again; correct the cause and restart the exchange"
            )
            return [Note(name, text, True)]
        if status == EXIT_FENCED:
            process.pause_ms = max(process.pause_ms, FENCED_PAUSE_MS)
        process.state = State.BACKOFF
        process.deadline_ms = now_ms + process.pause_ms
        text = f"{name} {describe_exit(status)}; it is started again in {process.pause_ms / 1000:g} s"
        process.pause_ms = min(process.pause_ms * 2, BACKOFF_MAX_MS)
        process.restarts += 1
        return [Note(name, text, True)]

    def retry_now(self, name: str, now_ms: int) -> list[Action]:
        """The cause of the last exit was removed: start again without a pause."""
        process = self._processes[name]
        if process.state is State.BACKOFF:
            process.deadline_ms = now_ms
        return self.tick(now_ms)

    def stop(self, now_ms: int) -> list[Action]:
        """Stop everything, stage after stage; calls after the first do nothing."""
        if self._stopping:
            return []
        self._stopping = True
        for process in self._processes.values():
            if process.state not in RUNNING:
                process.state, process.deadline_ms = State.STOPPED, None
        return self._next_stage(now_ms)

    def force(self) -> list[Action]:
        """Kill everything that still runs."""
        self._stopping = True
        running = [process for process in self._processes.values() if process.state in RUNNING]
        for process in running:
            process.state, process.deadline_ms = State.STOPPING, None
        if not running:
            return self._finish()
        return [Signal(process.spec.name, signal.SIGKILL) for process in running]

    def _next_stage(self, now_ms: int) -> list[Action]:
        running = [process for process in self._processes.values() if process.state in RUNNING]
        if not running:
            return self._finish()
        stage = min(process.spec.stop_stage for process in running)
        actions: list[Action] = []
        for process in running:
            if process.spec.stop_stage == stage and process.state is not State.STOPPING:
                process.state = State.STOPPING
                process.deadline_ms = now_ms + STOP_GRACE_MS
                actions.append(Signal(process.spec.name, signal.SIGTERM))
        return actions

    def _finish(self) -> list[Action]:
        if self._finished:
            return []
        self._finished = True
        return [Finished()]

    def _needs_ready(self, process: _Process) -> bool:
        return all(self._processes[need].state is State.READY for need in process.spec.needs)


def describe_exit(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        known = {
            EXIT_STORE: "ended because the store did not come round",
            EXIT_REFUSED: "refuses to run",
            EXIT_FENCED: "was fenced by another matcher of its shard",
        }
        return known.get(status, f"ended with status {status}")
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def exchange_specs(
    shards: Iterable[int],
    workers: int,
    embedded_store: bool,
    *,
    colocated: bool = False,
    web: bool = False,
    demo: bool = False,
) -> list[ProcessSpec]:
    """The processes of one exchange. Stop order: bots, web and ingress, matchers, settlement, store.

    `colocated`: ingress worker 0 is in the process of the first matcher, which then starts after the other
    matchers and stops before them.
    """
    store = ("store",) if embedded_store else ()
    matchers = [f"matcher-{shard}" for shard in shards]
    with_ingress = matchers[0] if colocated else None
    specs = [ProcessSpec(name="store", stop_stage=3)] if embedded_store else []
    specs.append(ProcessSpec(name="settlement", stop_stage=2, needs=store))
    for name in matchers:
        if name == with_ingress:
            others = tuple(other for other in matchers if other != name)
            specs.append(ProcessSpec(name=name, stop_stage=0, needs=(*store, *others)))
        else:
            specs.append(ProcessSpec(name=name, stop_stage=1, needs=store))
    specs += [
        ProcessSpec(name=f"ingress-{index}", stop_stage=0, needs=tuple(matchers))
        for index in range(1 if colocated else 0, workers)
    ]
    if web:
        specs.append(ProcessSpec(name="web", stop_stage=0, needs=store))
    if demo:
        entries = tuple(
            one.name for one in specs if one.name.startswith("ingress-") or one.name == with_ingress
        )
        specs.append(ProcessSpec(name="bots", stop_stage=-1, needs=entries))
    return specs
