"""The supervisor: its decisions with made-up time, and its shell over stub processes and a real store."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.conftest import REPOSITORY
from zexchange.limits import STOP_GRACE_MS
from zexchange.runtime.exchange_info import ExchangeInfo, is_supervised, read_exchange
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.pinning import PinningPlan, auto_workers, physical_cores, pinning_plan, usable_cpus
from zexchange.runtime.process import EXIT_FENCED, EXIT_REFUSED, EXIT_STORE
from zexchange.runtime.running import free_port_base
from zexchange.runtime.supervision import (
    BACKOFF_FIRST_MS,
    BACKOFF_MAX_MS,
    FENCED_PAUSE_MS,
    STABLE_MS,
    START_ATTEMPTS,
    Action,
    AllReady,
    Finished,
    GiveUp,
    Note,
    ProcessSpec,
    Signal,
    Start,
    State,
    Supervision,
    describe_exit,
    exchange_specs,
)
from zexchange.runtime.supervisor import Supervisor
from zexchange.runtime.wakeups import WakeUps

# --- decisions ----------------------------------------------------------------------------------------------


def started(core: Supervision, now_ms: int = 0) -> Supervision:
    """Bring everything up."""
    actions = core.tick(now_ms)
    while starts := [action.name for action in actions if isinstance(action, Start)]:
        actions = [one for name in starts for one in core.became_ready(name, now_ms)]
    assert core.ever_ready
    return core


def exchange(shards: int = 1, workers: int = 2) -> Supervision:
    return Supervision(exchange_specs(range(shards), workers, embedded_store=True))


def kinds(actions: list[Action]) -> list[type]:
    return [type(action) for action in actions]


def test_the_store_comes_first_and_order_entry_last() -> None:
    core = exchange(shards=2, workers=1)
    assert core.tick(0) == [Start("store")]
    assert core.tick(1) == []
    assert core.became_ready("store", 2) == [Start("settlement"), Start("matcher-0"), Start("matcher-1")]
    assert core.became_ready("matcher-1", 3) == []
    assert core.became_ready("settlement", 3) == []
    assert core.waiting_for() == ["matcher-0", "ingress-0"]
    assert core.became_ready("matcher-0", 4) == [Start("ingress-0")]
    assert core.became_ready("ingress-0", 5) == [AllReady()]
    assert core.waiting_for() == []


def test_a_store_elsewhere_is_not_started() -> None:
    core = Supervision(exchange_specs([0], 1, embedded_store=False))
    assert core.tick(0) == [Start("settlement"), Start("matcher-0")]


def test_what_dies_is_started_again_with_growing_pauses_and_nothing_else_is_touched() -> None:
    core = started(exchange())
    now_ms, pause_ms = 1_000, BACKOFF_FIRST_MS
    for _ in range(12):
        note, *rest = core.exited("matcher-0", -9, now_ms)
        assert isinstance(note, Note)
        assert note.problem
        assert note.text == f"matcher-0 was killed by SIGKILL; it is started again in {pause_ms / 1000:g} s"
        assert rest == []
        assert core.next_deadline_ms() == now_ms + pause_ms
        assert core.tick(now_ms + pause_ms - 1) == []
        now_ms += pause_ms
        assert core.tick(now_ms) == [Start("matcher-0")]
        assert core.became_ready("matcher-0", now_ms) == [Note("matcher-0", "matcher-0 is ready again")]
        pause_ms = min(pause_ms * 2, BACKOFF_MAX_MS)
    assert core.restarts("matcher-0") == 12
    assert all(core.state(name) is State.READY for name in ("store", "settlement", "ingress-0", "ingress-1"))


def test_a_process_that_was_stable_starts_with_the_first_pause_again() -> None:
    core = started(exchange())
    for now_ms in (10, 1_000, 2_000):
        core.exited("settlement", 1, now_ms)
        core.tick(now_ms + 900)
        core.became_ready("settlement", now_ms + 900)
    core.exited("settlement", 1, 2_900 + STABLE_MS)
    assert core.next_deadline_ms() == 2_900 + STABLE_MS + BACKOFF_FIRST_MS


def test_a_process_waits_for_what_it_needs_also_when_it_is_started_again() -> None:
    core = started(exchange())
    core.exited("store", -9, 0)
    core.exited("matcher-0", 1, 0)
    assert core.tick(BACKOFF_FIRST_MS) == [Start("store")]
    assert core.tick(10 * BACKOFF_FIRST_MS) == []
    actions = core.became_ready("store", 10 * BACKOFF_FIRST_MS)
    assert actions == [Note("store", "store is ready again"), Start("matcher-0")]


def test_a_fenced_matcher_is_left_alone_for_a_while() -> None:
    core = started(exchange())
    core.exited("matcher-0", EXIT_FENCED, 0)
    assert core.next_deadline_ms() == FENCED_PAUSE_MS


def test_a_plan_is_carried_out_on_the_process() -> None:
    cpu = sorted(os.sched_getaffinity(0))[-1]
    shell = SimpleNamespace(_pinning=PinningPlan(cpus={"matcher-0": (cpu,)}, reason="test"), _log=None)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        Supervisor._pin(shell, "store", child.pid)  # type: ignore[arg-type]
        assert os.sched_getaffinity(child.pid) == os.sched_getaffinity(0)
        Supervisor._pin(shell, "matcher-0", child.pid)  # type: ignore[arg-type]
        assert os.sched_getaffinity(child.pid) == {cpu}
        child.kill()


def test_every_exit_status_has_its_words() -> None:
    assert describe_exit(EXIT_STORE) == "ended because the store did not come round"
    assert describe_exit(EXIT_REFUSED) == "refuses to run"
    assert describe_exit(EXIT_FENCED) == "was fenced by another matcher of its shard"
    assert describe_exit(1) == "ended with status 1"
    assert describe_exit(-signal.SIGSEGV) == "was killed by SIGSEGV"


def test_a_removed_cause_means_no_pause() -> None:
    core = started(exchange())
    core.exited("store", 1, 0)
    assert core.retry_now("store", 5) == [Start("store")]


def test_a_refusal_at_the_first_start_ends_it() -> None:
    core = exchange()
    core.tick(0)
    core.became_ready("store", 0)
    give_up, *rest = core.exited("matcher-0", EXIT_REFUSED, 10)
    assert give_up == GiveUp("matcher-0", "matcher-0 refuses to run")
    assert rest == [Signal("settlement", signal.SIGTERM)]
    assert core.exited("settlement", 0, 20) == [Signal("store", signal.SIGTERM)]
    assert core.exited("store", 0, 30) == [Finished()]


def test_a_first_start_is_given_up_after_some_attempts() -> None:
    core = exchange()
    now_ms = 0
    for attempt in range(1, START_ATTEMPTS + 1):
        assert Start("store") in core.tick(now_ms)
        actions = core.exited("store", 1, now_ms)
        if attempt < START_ATTEMPTS:
            assert kinds(actions) == [Note]
            now_ms += BACKOFF_MAX_MS
    assert kinds(actions) == [GiveUp, Finished]


def test_a_refusal_later_leaves_the_rest_running() -> None:
    core = started(exchange())
    (note,) = core.exited("settlement", EXIT_REFUSED, 10)
    assert isinstance(note, Note)
    assert "not started again" in note.text
    assert core.state("settlement") is State.REFUSED
    assert core.tick(10**9) == []
    assert not core.stopping


def test_stop_goes_stage_by_stage() -> None:
    core = started(exchange())
    assert core.stop(0) == [Signal("ingress-0", signal.SIGTERM), Signal("ingress-1", signal.SIGTERM)]
    assert core.stop(1) == []
    assert core.exited("ingress-1", 0, 2) == []
    assert core.exited("ingress-0", 0, 3) == [Signal("matcher-0", signal.SIGTERM)]
    assert core.exited("matcher-0", 0, 4) == [Signal("settlement", signal.SIGTERM)]
    assert core.exited("settlement", 0, 5) == [Signal("store", signal.SIGTERM)]
    assert core.exited("store", 0, 6) == [Finished()]


def test_what_does_not_stop_is_killed() -> None:
    core = started(exchange(workers=1))
    core.stop(0)
    assert core.tick(STOP_GRACE_MS - 1) == []
    note, kill = core.tick(STOP_GRACE_MS)
    assert isinstance(note, Note)
    assert kill == Signal("ingress-0", signal.SIGKILL)
    assert core.tick(10 * STOP_GRACE_MS) == []


def test_what_dies_during_the_stop_stays_down() -> None:
    core = started(exchange(workers=1))
    core.stop(0)
    assert core.exited("store", -9, 1) == []
    assert core.exited("ingress-0", 0, 2) == [Signal("matcher-0", signal.SIGTERM)]
    assert core.tick(10_000_000) != [Start("store")]


def test_a_stop_while_starting_starts_nothing_more() -> None:
    core = exchange()
    core.tick(0)
    assert core.stop(1) == [Signal("store", signal.SIGTERM)]
    assert core.became_ready("store", 2) == []
    assert core.exited("store", 0, 3) == [Finished()]


def test_force_kills_all_at_once() -> None:
    core = started(exchange(workers=1))
    core.stop(0)
    kill = core.force()
    assert {action.name for action in kill if isinstance(action, Signal)} == {
        "store", "settlement", "matcher-0", "ingress-0",
    }  # fmt: skip
    assert all(isinstance(action, Signal) and action.number is signal.SIGKILL for action in kill)
    for name in ("store", "settlement", "matcher-0"):
        assert core.exited(name, -9, 1) == []
    assert core.exited("ingress-0", -9, 1) == [Finished()]


def test_a_specification_must_be_sound() -> None:
    with pytest.raises(AssertionError, match="every need"):
        Supervision([ProcessSpec(name="a", stop_stage=0, needs=("b",))])
    with pytest.raises(AssertionError, match="unique"):
        Supervision([ProcessSpec(name="a", stop_stage=0), ProcessSpec(name="a", stop_stage=1)])


# --- pinning ------------------------------------------------------------------------------------------------


def cores(count: int) -> list[tuple[int, ...]]:
    return [(cpu, cpu + count) for cpu in range(count)]


def test_nothing_is_pinned_on_a_small_machine_or_when_off() -> None:
    assert pinning_plan("auto", cores(3), ["matcher-0"], ["ingress-0"]).cpus == {}
    assert (
        pinning_plan("auto", cores(1), ["matcher-0"], []).reason
        == "nothing: 1 physical core, 4 are needed for one core each"
    )
    assert pinning_plan("off", cores(64), ["matcher-0"], ["ingress-0"]).cpus == {}


def test_with_few_cores_it_depends_on_what_waking_another_core_costs() -> None:
    def plan(count: int, other_core_us: float) -> PinningPlan:
        wakeups = WakeUps(same_core_us=20, other_core_us=other_core_us)
        return pinning_plan("auto", cores(count), ["matcher-0", "matcher-1"], ["ingress-1"], wakeups)

    assert plan(2, 25).cpus == {}
    assert "25 us on another" in plan(2, 25).reason
    dear = plan(3, 60)
    assert dear.cpus["matcher-0"] == dear.cpus["matcher-1"] == dear.cpus["store"] == (2, 5)
    assert dear.cpus["settlement"] == dear.cpus["ingress-1"] == (0, 1, 3, 4)
    assert "60 us on another" in dear.reason
    assert plan(1, 60).cpus == {}


def test_wake_ups_are_measured_and_leave_everything_as_it_was() -> None:
    """In a process of its own: measuring forks, which one with threads should not do."""
    program = """if True:
        import os
        from zexchange.runtime.wakeups import measure_wakeups
        usable = os.sched_getaffinity(0)
        found = measure_wakeups(min(usable), max(usable))
        assert found.same_core_us > 0 and found.ratio > 0
        assert os.sched_getaffinity(0) == usable
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            print("nothing left")
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "nothing left\n", done.stderr


def test_children_are_told_what_the_supervisor_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cpus() == os.sched_getaffinity(0)
    monkeypatch.setenv("ZX_USABLE_CPUS", "0,3-4")
    assert usable_cpus() == {0, 3, 4}
    assert sorted(cpu for core in physical_cores(Path("/nowhere")) for cpu in core) == [0, 3, 4]


def test_matchers_come_first_and_each_has_its_core() -> None:
    plan = pinning_plan("auto", cores(8), ["matcher-0", "matcher-1"], ["ingress-0", "ingress-1"])
    assert plan.cpus["matcher-0"] == (1, 9)
    assert plan.cpus["matcher-1"] == (2, 10)
    assert plan.cpus["ingress-0"] == (3, 11)
    assert plan.cpus["ingress-1"] == (4, 12)
    assert plan.cpus["store"] == (5, 13)
    assert plan.cpus["settlement"] == (0, 6, 7, 8, 14, 15)


def test_what_finds_no_core_shares_the_rest() -> None:
    plan = pinning_plan("auto", cores(4), ["matcher-0", "matcher-1"], ["ingress-0"])
    assert plan.cpus["matcher-1"] == (2, 6)
    assert plan.cpus["ingress-0"] == plan.cpus["store"] == (0, 3, 4, 7)
    assert "ingress-0 share the rest" in plan.reason


def test_cores_are_read_from_the_machine(tmp_path: Path) -> None:
    usable = os.sched_getaffinity(0)
    assert sorted(cpu for core in physical_cores() for cpu in core) == sorted(usable)
    topology = tmp_path / f"cpu{min(usable)}" / "topology"
    topology.mkdir(parents=True)
    (topology / "thread_siblings_list").write_text(
        ",".join(map(str, sorted(usable))) + "\n", encoding="ascii"
    )
    assert physical_cores(tmp_path)[0][0] == min(usable)


def test_auto_workers() -> None:
    assert [auto_workers(count, 1) for count in (1, 2, 4, 8)] == [1, 1, 1, 5]


# --- the shell, over stub processes -------------------------------------------------------------------------


class Stub:
    """A supervisor of stub processes; its output is read line by line, which is how the tests wait."""

    def __init__(self, data: Path, *settings: str) -> None:
        self.paths = DataPaths(data)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.runtime.stub_exchange", str(self.paths.root), *settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
        )
        self.lines: list[str] = []

    def wait_for(self, text: str) -> str:
        """Read up to the line that holds `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if text in line:
                return line.rstrip()
        raise AssertionError(f"{text!r} was not printed:\n" + "\n".join(self.lines))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.result()

    def result(self) -> int:
        assert self.process.stdout is not None
        self.lines += [line.rstrip() for line in self.process.stdout]
        self.process.stdout.close()
        return self.process.wait()

    @property
    def info(self) -> ExchangeInfo:
        info = read_exchange(self.paths)
        assert info is not None
        return info

    def pid(self, name: str) -> int:
        pid = self.info.processes[name].pid
        assert pid is not None
        return pid


StartStub = Callable[..., Stub]


@pytest.fixture
def start(data: Path) -> Iterator[StartStub]:
    stubs: list[Stub] = []
    settings = (f"exchange.port_base={free_port_base()}", "ingress.workers=1", "ingress.colocate=off")

    def start_stub(*more: str) -> Stub:
        stub = Stub(data, *settings, *more)
        stubs.append(stub)
        return stub

    yield start_stub
    for stub in stubs:
        if stub.process.poll() is None:
            stub.process.kill()
        stub.process.wait()
        if stub.process.stdout is not None:
            stub.process.stdout.close()


def is_alive(process: psutil.Process) -> bool:
    """False also for a process that has ended but was not waited for yet: its parent is gone."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def touch(data: Path, name: str) -> None:
    data.mkdir(exist_ok=True)
    (data / name).touch()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_start_and_stop_leave_nothing_behind(start: StartStub, data: Path, number: signal.Signals) -> None:
    stub = start()
    stub.wait_for("ready 127.0.0.1:")
    names = ["store", "settlement", "matcher-0", "matcher-1", "ingress-0", "web"]
    assert list(stub.info.processes) == names
    processes = [psutil.Process(stub.pid(name)) for name in names]
    assert stub.end(number) == 0
    assert not any(process.is_running() for process in processes)
    stopped = (data / "stopped").read_text().split()
    assert set(stopped[:2]) == {"ingress-0", "web"}
    assert set(stopped[2:4]) == {"matcher-0", "matcher-1"}
    assert stopped[4:] == ["settlement"]
    assert not stub.paths.exchange_json.exists()
    assert not is_supervised(stub.paths)
    assert [entry.name for entry in stub.paths.run.iterdir() if entry.suffix != ".lock"] == []


def test_only_what_was_killed_is_replaced(start: StartStub) -> None:
    stub = start()
    stub.wait_for("ready 127.0.0.1:")
    before = {name: stub.pid(name) for name in stub.info.processes}
    os.kill(before["matcher-1"], signal.SIGKILL)
    assert "matcher-1 was killed by SIGKILL" in stub.wait_for("matcher-1 was killed")
    stub.wait_for("matcher-1 is ready again")
    os.kill(before["store"], signal.SIGKILL)
    stub.wait_for("store is ready again")
    assert stub.end() == 0
    assert {line for line in stub.lines if "was killed" in line} == {
        line for line in stub.lines if "matcher-1 was" in line or "store was" in line
    }


def test_a_full_disk_does_not_take_the_exchange_down(start: StartStub) -> None:
    stub = start()
    stub.wait_for("ready 127.0.0.1:")
    pid = stub.pid("matcher-1")
    in_the_way = stub.paths.exchange_json.with_suffix(".json.tmp")  # as if there were no room for it
    while not in_the_way.is_dir():
        with contextlib.suppress(FileExistsError):  # it is just being written; then it is renamed
            in_the_way.mkdir()
    os.kill(pid, signal.SIGKILL)
    stub.wait_for("exchange.json is out of date")
    stub.wait_for("matcher-1 is ready again")
    in_the_way.rmdir()
    stub.wait_for("exchange.json is written again")
    assert stub.info.processes["matcher-1"].restarts == 1
    assert stub.end() == 0
    assert sum("out of date" in line for line in stub.lines) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_without_room_for_logs_stops_nothing(start: StartStub, paths: DataPaths) -> None:
    for name in ("supervisor", "settlement", "matcher-0", "matcher-1", "ingress-0"):
        paths.log(name).symlink_to("/dev/full")
        paths.output(name).symlink_to("/dev/full")
    stub = start()
    stub.wait_for("ready 127.0.0.1:")
    os.kill(stub.pid("matcher-1"), signal.SIGKILL)
    stub.wait_for("matcher-1 is ready again")
    assert stub.end() == 0
    assert not any("Logging error" in line or "Traceback" in line for line in stub.lines)


def test_exchange_json_is_for_its_owner_only(start: StartStub) -> None:
    """It holds the address of the store, and so perhaps a password."""
    stub = start()
    stub.wait_for("ready 127.0.0.1:")
    assert stub.paths.exchange_json.stat().st_mode & 0o777 == 0o600
    assert stub.end() == 0


def test_what_is_said_twice_is_shown_once(start: StartStub, data: Path) -> None:
    stub = start()
    stub.wait_for("ready 127.0.0.1:")
    touch(data, "fence-matcher-0")
    os.kill(stub.pid("matcher-0"), signal.SIGKILL)
    stub.wait_for("matcher-0 was fenced by another matcher of its shard; it is started again in 5 s")
    assert stub.end() == 0
    assert sum("somebody took over" in line for line in stub.lines) == 1


def test_the_output_of_the_previous_run_is_kept(start: StartStub) -> None:
    for _ in range(2):
        stub = start()
        stub.wait_for("ready 127.0.0.1:")
        assert stub.end() == 0
    kept = stub.paths.output("store").with_name("store.out.1")
    for path in (kept, stub.paths.output("store")):
        assert path.read_text(encoding="utf-8").count("Ready to accept connections") == 1


def test_a_killed_supervisor_takes_everything_with_it_and_can_be_followed(start: StartStub) -> None:
    first = start()
    first.wait_for("ready 127.0.0.1:")
    processes = [psutil.Process(first.pid(name)) for name in first.info.processes]
    first.process.kill()
    second = start()  # at once: it has to wait for the others to be gone
    second.wait_for("ready 127.0.0.1:")
    assert not any(is_alive(process) for process in processes)
    assert second.end() == 0


def test_one_supervisor_for_each_folder(start: StartStub) -> None:
    first = start()
    first.wait_for("ready 127.0.0.1:")
    second = start()
    line = second.wait_for("cannot start")
    assert f"an exchange already runs in {first.paths.root} (pid {first.process.pid})" in line
    assert second.result() == 1
    assert first.end() == 0


@pytest.mark.parametrize(
    ("setting", "needs"),
    [
        ("exchange.port_base", "ingress needs it for order entry: choose another with --port-base"),
        ("web.port", "web needs it for the trading page: set another web.port"),
        ("web.admin_port", "web needs it for the admin API: set another web.admin_port"),
    ],
)
def test_a_busy_port_is_one_sentence_and_the_remedy(start: StartStub, setting: str, needs: str) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        stub = start(f"{setting}={port}", "web.enabled=true")
        line = stub.wait_for("cannot start")
        pattern = (
            rf"cannot start: port {port} on 127\.0\.0\.1 is in use( by \S+ \(pid {os.getpid()}\))?; {needs}"
        )
        assert re.fullmatch(pattern, line), line
        assert stub.result() == 1
        assert not any("Traceback" in one for one in stub.lines)


def test_a_port_has_one_exchange_even_before_it_listens(start: StartStub, tmp_path: Path) -> None:
    """Workers share a port with whoever else of the same user asks for that; the stub's do not listen at all."""
    first = start()
    first.wait_for("ready 127.0.0.1:")
    port = first.info.tcp.port
    second = Stub(tmp_path / "other", f"exchange.port_base={port}", "ingress.workers=1")
    line = second.wait_for("cannot start")
    assert line.startswith(
        f"cannot start: port {port} on 127.0.0.1 is in use; ingress needs it for order entry"
    )
    assert second.result() == 1
    assert first.end() == 0
    third = Stub(tmp_path / "other", f"exchange.port_base={port}", "ingress.workers=1")
    third.wait_for("ready 127.0.0.1:")
    assert third.end() == 0


def test_an_address_of_another_machine_is_refused(start: StartStub) -> None:
    stub = start("exchange.host=192.0.2.1")
    assert "set exchange.host to an address of this machine" in stub.wait_for("cannot start")
    assert stub.result() == 1


def test_a_refusal_at_start_is_told_with_its_reason(start: StartStub, data: Path) -> None:
    touch(data, "refuse-matcher-1")
    stub = start()
    stub.wait_for("the exchange cannot start: matcher-1 refuses to run")
    assert stub.result() == 1
    assert any("told to refuse" in line for line in stub.lines)
    assert not any(line.startswith("ready") for line in stub.lines)


def test_a_crash_at_start_is_tried_again_then_given_up(start: StartStub, data: Path) -> None:
    touch(data, "crash-settlement")
    stub = start()
    stub.wait_for("the exchange cannot start: settlement ended with status 1")
    assert stub.result() == 1
    assert sum("it is started again" in line for line in stub.lines) == START_ATTEMPTS - 1
    assert any("RuntimeError: told to crash" in line for line in stub.lines)


def test_a_second_interrupt_forces(start: StartStub, data: Path) -> None:
    touch(data, "hang-ingress-0")
    stub = start()
    stub.wait_for("ready 127.0.0.1:")
    stub.process.send_signal(signal.SIGINT)
    stub.wait_for("stopping")
    assert stub.end(signal.SIGINT) == 130
    assert not stub.paths.exchange_json.exists()


def test_a_torn_file_of_the_store_is_repaired_and_told(start: StartStub) -> None:
    stub = start()
    stub.wait_for("ready 127.0.0.1:")
    assert stub.end() == 0
    file = stub.paths.store / "appendonlydir" / "appendonly.aof.1.incr.aof"
    with file.open("ab") as writable:
        writable.write(b"*5\r\n$4\r\nXADD\r\n$10\r\nzx:{0")
    stub = start()
    line = stub.wait_for("never acknowledged")
    assert "cut 24 bytes" in line
    stub.wait_for("ready 127.0.0.1:")
    assert stub.end() == 0


def test_a_damaged_file_of_the_store_is_told_with_our_advice(start: StartStub) -> None:
    stub = start()
    stub.wait_for("ready 127.0.0.1:")
    assert stub.end() == 0
    file = stub.paths.store / "appendonlydir" / "appendonly.aof.1.incr.aof"
    with file.open("ab") as writable:
        writable.write(b"\0" * 4096)
    before = file.read_bytes()
    stub = start()
    verdict = stub.wait_for("damaged and were left as they are")
    assert f"{file} is damaged at byte {len(before) - 4096:,}" in verdict
    assert f"restore {stub.paths.store} from a backup" in verdict
    stub.wait_for("the exchange cannot start: store refuses to run")
    assert stub.result() == 1
    assert file.read_bytes() == before
    assert not any("--fix" in line for line in stub.lines)


def test_a_deep_data_folder_gets_its_sockets_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    stub = Stub(deep, f"exchange.port_base={free_port_base()}", "ingress.workers=1")
    stub.wait_for("ready 127.0.0.1:")
    runtime_dir = stub.paths.runtime_dir
    assert runtime_dir != stub.paths.run
    assert runtime_dir.stat().st_mode & 0o777 == 0o700
    assert stub.end() == 0
    assert not runtime_dir.exists()
