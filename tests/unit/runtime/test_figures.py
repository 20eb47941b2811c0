"""Figures in shared memory: what one process counts is what another one reads, while both run."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from zexchange.native import lib
from zexchange.runtime.figures import (
    FIGURES_FD_ENV,
    READ_FIGURES_ENV,
    Figure,
    FigureMemory,
    FigureReader,
    own_figures,
)
from zexchange.runtime.stages import BOUNDS_NS, COUNTED, MATCH, VERIFY, StageTimes


@pytest.fixture
def memory() -> Iterator[FigureMemory]:
    made = FigureMemory(["store", "matcher-0", "ingress-1", "web", "bots"])
    yield made
    made.close()


@pytest.fixture
def reader(memory: FigureMemory, monkeypatch: pytest.MonkeyPatch) -> FigureReader:
    """As the web process gets it; a reader closes what it was handed, so it gets copies."""
    told = memory.environment("web")[READ_FIGURES_ENV]
    pairs = [one.split("=") for one in told.split(",")]
    monkeypatch.setenv(READ_FIGURES_ENV, ",".join(f"{name}={os.dup(int(fd))}" for name, fd in pairs))
    return FigureReader()


_COUNTING = """
import sys
from zexchange.runtime.figures import Figure, own_figures
from zexchange.runtime.stages import MATCH

figures = own_figures()
figures.add(Figure.SIGNATURES_GOOD, 3)
figures.add(Figure.SIGNATURES_GOOD)
figures.set(Figure.QUEUED_FRAMES, 7)
for duration_ns in (1_000, 5_000, 9_000):
    figures.stages.add(MATCH, duration_ns)
print("counted", flush=True)
sys.stdin.readline()
"""


def _counting(memory: FigureMemory, name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _COUNTING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **memory.environment(name)},
        pass_fds=memory.descriptors(name),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def test_what_a_process_counts_is_read_while_it_runs_and_begins_anew_with_the_next(
    memory: FigureMemory, reader: FigureReader
) -> None:
    assert reader.read() == {}, "nobody has begun"
    for _ in range(2):
        process = _counting(memory, "matcher-0")
        found = reader.read()
        assert set(found) == {"matcher-0"}
        figures = found["matcher-0"]
        assert figures[Figure.SIGNATURES_GOOD] == 4
        assert figures[Figure.QUEUED_FRAMES] == 7
        assert figures.stages.summary()["match"].count == 3
        assert figures.stages.summary()["match"].mean_us == 5.0
        process.kill()
        process.communicate()
    assert set(reader.read()) == {"matcher-0"}, "what was counted last is still there"


def test_only_those_that_count_get_memory_and_only_the_web_process_all_of_it(memory: FigureMemory) -> None:
    assert len(memory.descriptors("matcher-0")) == len(memory.descriptors("ingress-1")) == 1
    assert len(memory.descriptors("web")) == 2
    for name in ("store", "bots", "settlement"):
        assert memory.descriptors(name) == ()
        assert memory.environment(name) == {}
    assert set(memory.environment("matcher-0")) == {FIGURES_FD_ENV}
    assert set(memory.environment("web")) == {READ_FIGURES_ENV}


def test_who_reads_cannot_write_and_nobody_can_take_the_memory_away(memory: FigureMemory) -> None:
    (counted,) = memory.descriptors("matcher-0")
    for descriptor in memory.descriptors("web"):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(descriptor, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(descriptor, mmap.PAGESIZE)
    for size in (0, os.fstat(counted).st_size + mmap.PAGESIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(counted, size)


def test_figures_of_another_version_are_not_read(
    memory: FigureMemory, reader: FigureReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FIGURES_FD_ENV, str(os.dup(memory.descriptors("ingress-1")[0])))
    figures = own_figures()
    assert FIGURES_FD_ENV not in os.environ, "no child of ours counts there too"
    assert set(reader.read()) == {"ingress-1"}
    figures.handle.format = lib.FIGURES_FORMAT + 1
    assert reader.read() == {}


def test_process_that_nobody_supervises_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FIGURES_FD_ENV, raising=False)
    monkeypatch.delenv(READ_FIGURES_ENV, raising=False)
    figures = own_figures()
    figures.add(Figure.SESSIONS, 2)
    assert figures[Figure.SESSIONS] == 2
    assert FigureReader().read() == {}


def test_histogram_counts_each_duration_on_the_right_side_of_every_bound() -> None:
    times = StageTimes()
    for bound in BOUNDS_NS:
        times.add(MATCH, bound - 1)
        times.add(MATCH, bound)
    assert times.below(MATCH, BOUNDS_NS) == [2 * index + 1 for index in range(len(BOUNDS_NS))]
    assert times.count(MATCH) == 2 * len(BOUNDS_NS)
    assert times.below(VERIFY, BOUNDS_NS) == [0] * len(BOUNDS_NS)
    assert times.total_s(MATCH) == pytest.approx(sum(2 * bound - 1 for bound in BOUNDS_NS) / 1e9)


def test_percentiles_are_known_to_six_percent() -> None:
    times = StageTimes()
    for number in range(1, 1_001):
        times.add(VERIFY, number * 1_000)
    for share in (0.001, 0.5, 0.9, 0.99, 1.0):
        exact_us = share * 1_000
        assert exact_us * 0.93 <= times.percentile_us(VERIFY, share) <= exact_us
    assert list(times.summary()) == [COUNTED[VERIFY]]


def test_what_was_counted_in_between_is_the_difference_also_of_a_process_that_began_anew() -> None:
    before, now = StageTimes(), StageTimes()
    for _ in range(5):
        before.add(MATCH, 1_000)
        now.add(MATCH, 1_000)
    now.add(MATCH, 64_000)
    between = StageTimes()
    between.gather(now, before)
    assert between.count(MATCH) == 1
    assert between.percentile_us(MATCH, 0.5) == pytest.approx(64.0, rel=0.06)
    assert between.total_s(MATCH) == 64e-6
    anew = StageTimes()
    anew.add(MATCH, 2_000)
    between.gather(anew, now)
    assert between.count(MATCH) == 2, "all that the new process counted"
