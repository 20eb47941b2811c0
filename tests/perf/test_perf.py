"""The measuring tools at tiny sizes: they run, they count right, and none of their times is asserted."""

from __future__ import annotations

import re
import socket
import threading
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from nacl.signing import SigningKey

from perf.__main__ import main, median_run
from perf.bench import cases, markdown, table
from perf.compare import NotComparable, check_comparable, compare
from perf.generator import Job, Outcome, run
from perf.histogram import Histogram, samples_of, write_log
from perf.load import LoadOptions, problems_of, run_load
from perf.machine import NoiseMeter, judge, parse_stat
from perf.native import ffi, lib
from perf.order_flows import FLOWS
from perf.report import headline_of, html_page, write_report
from perf.results import LoadResult, Stage, load_result, save, stage_medians
from perf.sweep import SweepResult, best_of, knee_of
from perf.workload import (
    MIDDLE_TICKS,
    Plan,
    build_plan,
    due_times_ns,
    resting_commands,
    trading_commands,
)
from zexchange.book import EVENT_DTYPE, Book, EventKind
from zexchange.runtime.stages import STAGES
from zexchange.wire.messages import (
    CommandKind,
    ExecType,
    ExecutionReport,
    NotApplied,
    ReasonCode,
    Sequence,
    Side,
    SignedBatch,
    decode,
)
from zexchange.wire.signing import verify_batch

KEYS = [SigningKey(bytes([number]) * 32) for number in (1, 2)]


def command(*arguments: str) -> tuple[int, Any]:
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, msgspec.json.decode(result.stdout)


# --- histogram ----------------------------------------------------------------------------------------------


def test_histogram_agrees_with_hdrhistogram() -> None:
    random = Random(7)
    ours, theirs = Histogram(), HdrHistogram(1, 60_000_000_000, 3)
    for _ in range(5_000):
        value = int(random.lognormvariate(12, 3)) + 1
        ours.record(value)
        theirs.record_value(min(value, 60_000_000_000))
    assert ours.total == theirs.total_count
    again = HdrHistogram.decode(ours.encoded().encode("ascii"))
    for percentile in (10, 50, 90, 99, 99.9, 100):
        expected = theirs.get_value_at_percentile(percentile)
        assert again.get_value_at_percentile(percentile) == pytest.approx(expected, rel=2e-3)
    found = ours.percentiles()
    assert found.p50_us * 1000 == pytest.approx(theirs.get_value_at_percentile(50), rel=2e-3)
    assert found.p999_us * 1000 == pytest.approx(theirs.get_value_at_percentile(99.9), rel=2e-3)
    copy = Histogram.from_bytes(ours.to_bytes())
    assert (copy.counts(), copy.total, copy.max_ns) == (ours.counts(), ours.total, ours.max_ns)


def test_percentiles_are_by_nearest_rank() -> None:
    found = samples_of([number * 1000 for number in range(1, 1001)])
    assert found.p50_us == pytest.approx(500, rel=1e-3)
    assert found.p999_us == pytest.approx(999, rel=1e-3)
    assert found.max_us == 1000
    assert samples_of([7000]).p50_us == samples_of([7000]).p999_us == 7
    with pytest.raises(ValueError, match="no samples"):
        Histogram().percentiles()


def test_log_is_read_by_the_standard_reader(tmp_path: Path) -> None:
    seconds = []
    for value in (1_000, 2_000_000):
        histogram = Histogram()
        histogram.record(value)
        seconds.append(histogram)
    write_log(tmp_path / "run.hlog", seconds, 1_700_000_000.0)
    reader = HistogramLogReader(str(tmp_path / "run.hlog"), HdrHistogram(1, 60_000_000_000, 3))
    first, second = reader.get_next_interval_histogram(), reader.get_next_interval_histogram()
    assert (first.total_count, second.total_count) == (1, 1)
    assert second.get_max_value() == pytest.approx(2_000_000, rel=1e-3)
    assert reader.get_next_interval_histogram() is None
    reader.close()


# --- workload -----------------------------------------------------------------------------------------------


def small_plan(count: int = 40, batch: int = 2) -> Plan:
    commands = [trading_commands(count * batch, [1, 2], number) for number in range(len(KEYS))]
    due_ns = due_times_ns(count, 200, True, 3)
    return build_plan(KEYS, bytes(32), commands, due_ns, shard=0, batch=batch, first_nonce=10)


def frames_of(plan: Plan) -> list[bytes]:
    offsets, lengths = array("Q", plan.offsets), array("I", plan.lengths)
    return [plan.frames[at : at + size] for at, size in zip(offsets, lengths, strict=True)]


def test_plan_is_signed_ordered_and_repeatable() -> None:
    plan = small_plan()
    assert plan == small_plan()
    due_ns = array("Q", plan.due_ns)
    assert list(due_ns) == sorted(due_ns)
    for number, frame in enumerate(frames_of(plan)):
        verify_batch(frame, bytes(32))
        batch = decode(frame)
        assert isinstance(batch, SignedBatch)
        assert batch.nonce == 10 + number
        assert batch.public_key == bytes(KEYS[number % 2].verify_key)
        assert len(batch.commands) == 2
    assert len(due_times_ns(50, 100, False, 1)) == 50
    assert due_times_ns(3, 100, False, 1).tolist() == [10_000_000, 20_000_000, 30_000_000]


def test_many_frames_are_signed_by_several_processes_in_order() -> None:
    count = 2_500
    commands = [trading_commands(count, [1], number) for number in range(2)]
    due_ns = due_times_ns(count, 1e6, False, 0)
    plan = build_plan(KEYS, bytes(32), commands, due_ns, shard=0, batch=1, first_nonce=1, processes=2)
    frames = frames_of(plan)
    for number in (0, 1, 1_999, 2_000, 2_499):
        verify_batch(frames[number], bytes(32))
        assert decode(frames[number]).nonce == number + 1  # type: ignore[union-attr]


def test_resting_orders_are_out_of_reach_and_spread() -> None:
    frame = build_plan(
        KEYS[:1],
        bytes(32),
        [resting_commands(64, [1, 2], 0)],
        array("Q", [0]),
        shard=0,
        batch=64,
        first_nonce=1,
    ).frames
    batch = decode(frame)
    assert isinstance(batch, SignedBatch)
    assert {one.kind for one in batch.commands} == {CommandKind.NEW}
    assert {one.market_id for one in batch.commands} == {1, 2}
    for one in batch.commands:
        away = one.price_ticks - MIDDLE_TICKS
        assert (away > 50) if one.side is Side.SELL else (away < -50)


# --- the generator, against an exchange that does what it is told ------------------------------------------


def answered_by(
    answer: Callable[[SignedBatch], list[bytes]], *, frames: int = 40, window: int = 0
) -> Outcome:
    """Run the generator with both its sessions on socket pairs, and `answer` at the other ends."""
    plan = small_plan(frames)
    ours, theirs = zip(*(socket.socketpair() for _ in KEYS), strict=True)
    threads = [threading.Thread(target=_serve, args=(sock, answer)) for sock in theirs]
    for thread in threads:
        thread.start()
    for sock in ours:
        sock.setblocking(False)
    job = Job(
        host="",
        port=0,
        deployment_id=bytes(32),
        keys=[bytes(key) for key in KEYS],
        plan=plan,
        duration_ns=10**9,
        window=window,
        drain_ns=50_000_000,
    )
    try:
        return run(job, list(ours))
    finally:
        for sock in ours:
            sock.close()
        for thread in threads:
            thread.join()


def _serve(sock: socket.socket, answer: Callable[[SignedBatch], list[bytes]]) -> None:
    pending = b""
    with sock, suppress(ConnectionError):  # a run that ends with an error does not read to the end
        while data := sock.recv(65_536):
            pending += data
            while len(pending) >= 6 and len(pending) >= (size := int.from_bytes(pending[:4], "big")):
                batch = decode(pending[:size])
                pending = pending[size:]
                if isinstance(batch, SignedBatch):
                    sock.sendall(b"".join(answer(batch)))


def reports(batch: SignedBatch) -> list[bytes]:
    """What an exchange says to a batch of which everything rests."""
    return [
        ExecutionReport(nonce=batch.nonce, command_index=index, exec_type=ExecType.NEW).encode()
        for index in range(len(batch.commands))
    ]


def test_every_command_has_exactly_one_outcome() -> None:
    trade = ExecutionReport(nonce=0, exec_type=ExecType.TRADE).encode()
    outcome = answered_by(lambda batch: [Sequence(next_seq_no=1).encode(), *reports(batch), trade])
    assert (outcome.error, outcome.frames_sent, outcome.answered, outcome.accepted) == (0, 40, 80, 80)
    assert (outcome.doubled, outcome.foreign, outcome.not_applied) == (0, 0, 0)
    assert Histogram.from_bytes(outcome.latency).total == 80
    assert sum(Histogram.from_bytes(raw).total for raw in outcome.by_second) == 80
    assert problems_of(outcome, 80, kept_up=True, verified=True) == []


def test_dropped_doubled_foreign_and_refused_outcomes_make_a_run_invalid() -> None:
    def wrong(batch: SignedBatch) -> list[bytes]:
        match batch.nonce:
            case 11:
                return reports(batch)[:1]
            case 12:
                return [*reports(batch), reports(batch)[0]]
            case 13:
                return [*reports(batch), ExecutionReport(nonce=999, exec_type=ExecType.NEW).encode()]
            case 14:
                return [NotApplied(nonce=14, reason=ReasonCode.SERVER_BUSY).encode()]
            case 15:
                return [r.replace(b"", b"") for r in reports(batch)]
        return reports(batch)

    outcome = answered_by(wrong)
    assert (outcome.answered, outcome.doubled, outcome.foreign, outcome.not_applied) == (79, 1, 1, 2)
    said = "; ".join(problems_of(outcome, 80, kept_up=False, verified=False))
    for part in (
        "1 of 80 commands had no outcome",
        "1 commands had more than one",
        "1 outcomes are of commands that were not sent",
        "2 commands were refused before",
        "fell behind",
        "does not verify",
    ):
        assert part in said


def test_window_bounds_what_is_on_its_way() -> None:
    outcome = answered_by(reports, window=3)
    assert (outcome.frames_sent, outcome.answered) == (40, 80)
    silent = answered_by(lambda _batch: [], window=3)
    assert (silent.frames_sent, silent.answered) == (6, 0)


def test_session_that_is_closed_ends_the_run() -> None:
    outcome = answered_by(lambda batch: [b"\0" * 14] if batch.nonce == 20 else reports(batch))
    assert outcome.error != 0
    assert "a session ended" in problems_of(outcome, 80, kept_up=True, verified=True)[0]


# --- the machine --------------------------------------------------------------------------------------------


def test_noise_meter_sees_the_machine(tmp_path: Path) -> None:
    with NoiseMeter(tmp_path, list) as meter:
        sum(range(200_000))
    noise = meter.noise()
    assert noise.fdatasync.samples == 120
    assert 0 <= noise.stolen_share <= 1
    assert noise.hiccups.samples > 0
    assert {core.cpu for core in meter.cores()}
    assert list(tmp_path.iterdir()) == []


def test_stolen_time_and_busy_neighbours_are_not_quiet() -> None:
    some = samples_of([1_000])
    assert judge(stolen_share=0.01, other_cpu_share=0.05, hiccups=some, fdatasync=some).quiet
    stolen = judge(stolen_share=0.02, other_cpu_share=0.0, hiccups=some, fdatasync=some)
    assert not stolen.quiet
    assert "stolen" in stolen.why
    assert not judge(stolen_share=0.0, other_cpu_share=0.2, hiccups=some, fdatasync=some).quiet
    times = parse_stat("cpu  10 1 5 100 4 1 1 7 0 0\ncpu0 10 1 5 100 4 1 1 7 0 0\nctxt 5\n")
    assert times["cpu"] == (11, 7, 104, 7)
    assert times["cpu"].total == 129


# --- whole runs ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result() -> LoadResult:
    """One tiny run against a real exchange."""
    return run_load(LoadOptions(traders=2, duration_s=0.5, rate=100, resting=512, floor_rounds=5))


def test_load_counts_every_order(result: LoadResult) -> None:
    assert result.orders_sent == result.orders_answered == result.orders_accepted == 50
    assert result.orders_rejected == result.not_applied == 0
    assert result.verified
    assert result.valid == (result.problems == ())
    assert result.resting_orders == 512
    assert result.floor_us == pytest.approx(sum(msgspec.structs.astuple(result.floor)))
    assert (
        set(result.rss_mb) == {one.name for one in result.processes} >= {"store", "settlement", "matcher-0"}
    )
    assert {stage.name for stage in result.stages} == {*STAGES, "acknowledge"}
    by_name = {stage.name: stage for stage in result.stages}
    assert by_name["bus"].count == by_name["acknowledge"].count >= 50, "of every frame"
    assert sum(second.answered for second in result.seconds) == 50
    assert result.arrivals == "poisson"
    assert result.fsync == "always"


def test_stages_are_counted_on_both_sides_of_the_bus() -> None:
    settings = (("ingress.colocate", "off"), ("ingress.workers", "2"))
    options = LoadOptions(traders=2, duration_s=0.5, rate=100, settings=settings, floor_rounds=5)
    result = run_load(options)
    assert result.orders_answered == 50
    by_process = {(stage.process, stage.name): stage for stage in result.stages}
    assert {name for process, name in by_process if process == "matcher-0"} == {*STAGES, "acknowledge"} - {
        "verify"
    }
    assert {name for process, name in by_process if process.startswith("ingress-")} == {"verify"}
    assert by_process["matcher-0", "bus"].count >= 50
    assert set(stage_medians(result)) == set(STAGES)


def test_stages_of_several_processes_count_by_how_often_they_happened(result: LoadResult) -> None:
    def stage(process: str, name: str, count: int, p50_us: float) -> Stage:
        return Stage(
            process=process, name=name, count=count, mean_us=1.0, p50_us=p50_us, p99_us=1.0, max_us=1.0
        )

    shown = made(
        result,
        stages=(
            stage("matcher-0", "match", 5, 7.0),
            stage("ingress-0", "verify", 30, 60.0),
            stage("ingress-1", "verify", 10, 100.0),
            stage("matcher-0", "bus", 40, 9.0),
        ),
    )
    assert list(stage_medians(shown).items()) == [("verify", 70.0), ("bus", 9.0), ("match", 7.0)]
    assert "verify 70, bus 9, match 7 us at the median" in html_page([shown], [shown], [])
    assert "<td class=wrap>not counted</td>" in html_page([made(result, stages=())], [shown], [])


def test_result_can_be_saved_compared_and_reported(result: LoadResult, tmp_path: Path) -> None:
    save(result, tmp_path / "a.json")
    assert load_result(tmp_path / "a.json") == result
    save(msgspec.structs.replace(result, p99_us=result.p99_us * 2), tmp_path / "b.json")
    exit_code, lines = command("compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert exit_code == 1
    assert {line["figure"]: line["verdict"] for line in lines}["p99_us"] == "WORSE"
    assert command("compare", str(tmp_path / "a.json"), str(tmp_path / "a.json"))[0] == 0
    save(msgspec.structs.replace(result, fsync="everysec"), tmp_path / "c.json")
    refused = CliRunner().invoke(main, ["compare", str(tmp_path / "a.json"), str(tmp_path / "c.json")])
    assert refused.exit_code == 2
    assert "differ in fsync" in refused.output


@pytest.fixture
def fewer_markets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A genesis file with 21,000 markets takes seconds to make."""
    monkeypatch.setattr("perf.order_flows.MARKETS", 300)


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_markets")
def test_bench_runs_every_case_at_tiny_sizes() -> None:
    exit_code, found = command("bench", "--smoke")
    assert exit_code == 0
    names = {figure["name"] for figure in found["figures"]}
    assert "highest single-signed rate, always" in names
    assert {"replay with signatures, all cores", "4 readers of a book sent 20 times a second"} <= names
    assert all(run["valid"] or run["problems"] for runs in found["runs"].values() for run in runs)


def test_verify_takes_all_figures_at_tiny_sizes() -> None:
    exit_code, found = command(
        "verify", "--records", "64", "--signed-records", "64", "--restart-records", "128", "--repeat", "1"
    )
    assert exit_code == 0
    assert min(value for name, value in found.items() if name.endswith(("_per_s", "_s", "_ms"))) > 0
    assert found["restart_records"] == 128


def test_floor_measures_four_steps() -> None:
    exit_code, found = command("floor", "--rounds", "20", "--fsync", "everysec")
    assert exit_code == 0
    steps = [found[step]["p50_us"] for step in ("tcp", "verify", "bus", "append")]
    assert all(step > 0 for step in steps)
    assert found["floor_p50_us"] == pytest.approx(sum(steps))


def test_loops_measures_both_loops() -> None:
    exit_code, found = command("loops", "--rate", "500", "--duration-secs", "0.1", "--repeat", "1")
    assert exit_code == 0
    assert {one["loop"] for one in found["loops"]} >= {"epoll", "asyncio"}
    assert all(one["p99_us"] >= one["p50_us"] > 0 and one["cpu_us_per_frame"] > 0 for one in found["loops"])


def test_command_line_of_a_run_repeats_it() -> None:
    options = LoadOptions(rate=None, batch=8, fsync="everysec", settings=(("ingress.workers", "2"),))
    assert options.command_line == (
        "python -m perf load --num-traders 4 --duration-secs 30 --max --window 32 --batch 8 --fsync everysec"
        " --setting ingress.workers=2"
    )
    refused = CliRunner().invoke(main, ["load", "--setting", "nonsense"])
    assert refused.exit_code == 2
    assert "section.key=value" in refused.output


# --- what is concluded from results -------------------------------------------------------------------------


def made(result: LoadResult, **changes: Any) -> LoadResult:
    quiet = msgspec.structs.replace(result.noise, quiet=True, why="")
    base = {"valid": True, "counted": True, "problems": (), "noise": quiet, "rate_offered": 3049.0}
    return msgspec.structs.replace(result, **(base | changes))


def test_medians_are_compared_and_small_changes_are_none(result: LoadResult) -> None:
    a = [made(result, p50_us=value) for value in (100.0, 110.0, 900.0)]
    b = [made(result, p50_us=value) for value in (90.0, 112.0, 115.0)]
    assert {line.figure: line.verdict for line in compare(a, b, 0.05)}["p50_us"] == "same"
    faster = [made(result, p50_us=80.0, orders_per_s=result.orders_per_s * 0.5)]
    verdicts = {line.figure: line.verdict for line in compare(a, faster, 0.05)}
    assert (verdicts["p50_us"], verdicts["orders_per_s"]) == ("better", "WORSE")
    with pytest.raises(NotComparable, match="batch"):
        check_comparable([made(result), made(result, batch=64)])


def test_table_holds_budgets_against_medians_of_what_counts(result: LoadResult) -> None:
    noise = msgspec.structs.replace(result.noise, quiet=False, why="busy")
    good = made(result, p50_us=600.0, p99_us=1500.0, ratio_to_floor=1.2, server_cpu_us_per_order=200.0)
    busy = made(result, p50_us=9e9, counted=False, noise=noise)
    rows = {row.name + row.budget: row for row in table({"always": (good, busy, good), "max": (busy,)})}
    assert rows["p50 at 3,049/s, always< 1.04 ms"].met is True
    assert rows["p50 at 3,049/s, always<= 1.3 x floor"].met is True
    assert rows["p99 at 3,049/s, always<= 1.57 ms"].runs == 2
    assert rows["highest single-signed rate, always>= 10,000/s"].met is None
    slow = table({"always": (made(result, p50_us=2_000.0, ratio_to_floor=4.0),)})
    assert [row.verdict for row in slow[:2]] == ["not met", "not met"]
    assert "not counted" in markdown(list(rows.values()))
    assert {case.name for case in cases(long=True)} > {case.name for case in cases(long=False)}


def test_knee_and_best_rate(result: LoadResult) -> None:
    def at(
        rate: float, p50_us: float, p99_us: float, answered: float = 1.0, *, valid: bool = True
    ) -> LoadResult:
        return made(
            result, rate_offered=rate, p50_us=p50_us, p99_us=p99_us, orders_per_s=rate * answered, valid=valid
        )

    points = [at(1_000, 100, 200), at(2_000, 150, 400), at(4_000, 250, 900), at(8_000, 900, 5_000, 0.8)]
    assert knee_of(points) == 2_000
    assert best_of(points, 1_000) == 4_000
    assert best_of(points, 300) == 1_000
    assert best_of([at(1_000, 100, 200, valid=False)], 1_000) == 0
    assert knee_of([]) == 0


def test_median_run_prefers_what_counts(result: LoadResult) -> None:
    runs = [made(result, p50_us=value) for value in (3.0, 1.0, 2.0)]
    assert median_run(runs).p50_us == 2.0
    assert median_run([*runs, made(result, p50_us=0.5, counted=False)]).p50_us == 2.0


def test_report_is_one_page_that_asks_for_nothing(result: LoadResult, tmp_path: Path) -> None:
    seconds = tuple(msgspec.structs.replace(result.seconds[0], at_s=number) for number in range(3))
    good = made(result, seconds=seconds, layout="matchers and <store>")
    unpinned = made(result, layout="off (pinning.mode)", command_line="python -m perf load --pin off")
    bad = made(result, counted=False, problems=("one <b>order</b> had no outcome",), p50_us=0.001)
    sweep = SweepResult(
        bound_us=1_000, points=(good, made(result, rate_offered=6_000.0)), knee_rate=3_049, best_rate=0
    )
    page = write_report([good, unpinned, bad], [sweep], tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:|url\(|@import|<script", text)
    names = {path.name for path in (tmp_path / "report").iterdir()}
    charts = {"percentiles.png", "load.png", "time.png", "stages.png", "cores.png", "pinning.png"}
    assert names == charts | {"index.html", "table.md"}
    assert text.count("data:image/png;base64,") == len(charts)
    assert "one &lt;b&gt;order&lt;/b&gt; had no outcome" in text
    assert "&lt;store&gt;" in text
    assert "not counted" in (tmp_path / "report" / "table.md").read_text()
    headline = headline_of([good, bad])
    assert headline is not None
    assert headline.p50_us == good.p50_us
    assert headline_of([bad]) is None
    with pytest.raises(ValueError, match="no results"):
        write_report([], [], tmp_path)


@pytest.mark.usefixtures("fewer_markets")
def test_engine_takes_all_figures_at_tiny_sizes() -> None:
    exit_code, found = command("engine", "--commands", "1000", "--repeat", "1")
    assert exit_code == 0
    assert {one["flow"] for one in found["books"]} == {
        "mix",
        "equity",
        "build and cancel",
        "sweep",
        "sparse",
        "many markets",
    }
    assert all(one["commands_per_s"] > 0 for one in found["books"])
    assert found["ledger_per_s"] > 0


@pytest.mark.parametrize("name", ["mix", "equity", "build and cancel", "sweep", "sparse"])
def test_order_flows_are_what_they_say(name: str) -> None:
    flow = FLOWS[name](2_000)
    book = Book(max_orders=flow.orders_max)
    events = np.zeros(100_000, np.dtype(EVENT_DTYPE))
    applied, written = book.apply(flow.commands[: flow.first], events)
    assert applied == flow.first
    resting = len(book)
    applied, written = book.apply(flow.commands[flow.first :], events)
    assert applied == len(flow.commands) - flow.first
    kinds = np.bincount(events["kind"][:written], minlength=5)
    assert kinds[EventKind.REJECTED] == 0, "a flow cancels and amends what rests"
    trades = kinds[EventKind.TRADE] / applied
    if name == "mix":
        assert 900 <= resting <= 1_100
        assert 0.02 < trades < 0.2
    if name == "sweep":
        assert trades > 0.9
    if name == "build and cancel":
        assert len(book) == 0
    book.check()


@pytest.mark.usefixtures("fewer_markets")
def test_many_markets_in_one_pool_do_what_a_book_each_does() -> None:
    flow = FLOWS["many markets"](2_000)
    books = [Book(max_orders=64) for _ in range(flow.market_count)]
    events = np.zeros(1_000, np.dtype(EVENT_DTYPE))
    trades = 0
    for at, market in enumerate(flow.markets):
        _, written = books[market].apply(flow.commands[at : at + 1], events)
        kinds = list(events["kind"][:written])
        assert EventKind.REJECTED not in kinds
        if at >= flow.first:
            trades += kinds.count(EventKind.TRADE)
    found = ffi.new("bookbench_result *")
    error = lib.shardbench_run(
        ffi.cast("lob_command *", ffi.from_buffer(flow.commands)),
        ffi.cast("uint32_t *", ffi.from_buffer(flow.markets)),
        len(flow.commands),
        flow.first,
        flow.market_count,
        flow.orders_max,
        ffi.NULL,
        found,
    )
    assert error == 0
    assert (found.trades, found.refused) == (trades, 0)
    assert found.resting == sum(len(book) for book in books)
    assert trades > 50


def test_web_counts_what_readers_get() -> None:
    exit_code, found = command(
        "web", "--clients", "5", "--duration-secs", "1", "--amends", "20", "--levels", "5"
    )
    assert exit_code == 0
    assert found["clients"] == 5
    assert found["tick_to_client"]["samples"] > 0
    assert found["messages_per_client_s"] > 0
