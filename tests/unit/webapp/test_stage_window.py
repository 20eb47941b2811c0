"""The latencies of the operations view: of the last seconds, over all processes, whatever the processes do."""

from __future__ import annotations

from typing import Any

import pytest

from webapp.status import WINDOW_S, StageWindow
from zexchange.runtime.stages import MATCH, VERIFY, StageTimes


class Process:
    def __init__(self) -> None:
        self.times = StageTimes()

    def copy(self) -> StageTimes:
        made = StageTimes()
        made.gather(self.times, StageTimes())
        return made

    def count(self, stage: int, *durations_us: int) -> None:
        for duration_us in durations_us:
            self.times.add(stage, duration_us * 1_000)


def stage(window: StageWindow, name: str) -> dict[str, Any]:
    (found,) = [one for one in window.figures() if one["stage"] == name]
    return found


def test_what_was_counted_before_the_first_look_is_left_out() -> None:
    window, process = StageWindow(), Process()
    assert window.figures() == []
    process.count(MATCH, 100_000, 100_000)
    window.add({"matcher-0": process.copy()})
    nothing = {"stage": "match", "per_s": 0.0, "p50_us": None, "p90_us": None, "p99_us": None}
    assert window.figures() == [nothing]
    process.count(MATCH, 100, 100)
    window.add({"matcher-0": process.copy()})
    assert stage(window, "match")["per_s"] == 2
    assert stage(window, "match")["p99_us"] == pytest.approx(100, rel=0.07)


def test_processes_are_put_together_and_one_that_began_later_counts_whole() -> None:
    window, first, second = StageWindow(), Process(), Process()
    window.add({"ingress-0": first.copy()})
    first.count(VERIFY, *[10] * 9)
    second.count(VERIFY, 1_000)
    window.add({"ingress-0": first.copy(), "ingress-1": second.copy()})
    assert [one["stage"] for one in window.figures()] == ["verify"]
    found = stage(window, "verify")
    assert found["per_s"] == 10
    assert found["p90_us"] == pytest.approx(10, rel=0.07)
    assert found["p99_us"] == pytest.approx(1_000, rel=0.07)
    window.add({"ingress-0": first.copy(), "ingress-1": Process().copy()})
    assert stage(window, "verify")["per_s"] == 5, "a process that begins anew takes nothing away"


def test_window_forgets_what_is_older() -> None:
    window, process = StageWindow(), Process()
    window.add({"matcher-0": process.copy()})
    process.count(MATCH, 50)
    window.add({"matcher-0": process.copy()})
    for _ in range(WINDOW_S - 1):
        window.add({"matcher-0": process.copy()})
    assert stage(window, "match")["per_s"] == round(1 / WINDOW_S, 1)
    window.add({"matcher-0": process.copy()})
    assert stage(window, "match")["p50_us"] is None
