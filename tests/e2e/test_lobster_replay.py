"""The LOBSTER replay on a real exchange: every row must match, and what was logged must verify."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import shared_data
from tests.e2e.conftest import Command, as_json, verify
from zexchange.paths import DataPaths
from zexchange.replay.exchange import prepare_folder
from zexchange.replay.synthetic import SyntheticFlow, synthetic_flow
from zexchange.running import RunningExchange

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def flow(tmp_path: Path) -> SyntheticFlow:
    """A small flow of our own, written to m.csv and b.csv."""
    flow = synthetic_flow(seed=5, rows=150)
    (tmp_path / "m.csv").write_text("\n".join(flow.messages) + "\n")
    (tmp_path / "b.csv").write_text("\n".join(flow.book) + "\n")
    return flow


def test_the_real_sample_matches_row_by_row(data: Path, command: Command) -> None:
    folder = shared_data("lobster")
    code, out, _ = command(
        "replay",
        "lobster",
        folder / "AAPL_2012-06-21_message_10.first999.csv",
        "--orderbook",
        folder / "AAPL_2012-06-21_orderbook_10.first999.csv",
        "--data",
        data,
        "--json",
    )
    report = as_json(out)
    assert (code, report["first_mismatches"]) == (0, [])
    assert (report["rows"], report["matched"], report["mismatched"]) == (999, 999, 0)
    assert (report["trades"], report["ignored"], report["revealed_levels"]) == (98, 61, 12)
    assert list(report)[:7] == [
        "rows",
        "matched",
        "mismatched",
        "revealed_levels",
        "orders",
        "trades",
        "seconds",
    ]
    verify(command, data)


def test_a_synthetic_flow_matches_row_by_row(
    tmp_path: Path, data: Path, flow: SyntheticFlow, command: Command
) -> None:
    files = (tmp_path / "m.csv", "--orderbook", tmp_path / "b.csv", "--data", data)
    code, out, err = command("replay", "lobster", *files, "--json")
    report = as_json(out)
    assert (code, report["first_mismatches"]) == (0, []), err
    assert (report["rows"], report["matched"]) == (len(flow.messages), len(flow.messages))
    assert report["trades"] == flow.executions > 0
    assert report["revealed_levels"] > 0
    verify(command, data)

    # The book is no longer empty: a second replay into the same market would compare nonsense.
    code, out, err = command("replay", "lobster", *files)
    assert (code, out) == (1, "")
    assert "its book is not empty" in err


def test_differences_are_found_and_end_with_5(tmp_path: Path, flow: SyntheticFlow, command: Command) -> None:
    cells = flow.book[70].split(",")
    cells[1] = str(int(cells[1]) + 1)
    book = [*flow.book[:70], ",".join(cells), *flow.book[71:]]
    (tmp_path / "b.csv").write_text("\n".join(book) + "\n")
    paths = DataPaths(tmp_path / "data")
    prepare_folder(paths)
    with RunningExchange(paths.root) as running:
        code, out, err = command(
            "replay",
            "lobster",
            tmp_path / "m.csv",
            "--orderbook",
            tmp_path / "b.csv",
            "--data",
            paths.root,
            "--connect",
            f"{running.host}:{running.port}",
            "--market",
            "AAPL-USD",
        )
    assert code == 5
    assert "row 71: sell level 1: file" in err
    assert ["mismatched", "1"] in [line.split()[:2] for line in out.splitlines()]


def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, data: Path, flow: SyntheticFlow, command: Command
) -> None:
    (tmp_path / "b.csv").write_text("\n".join(flow.book[:-1]) + "\n")
    code, _, err = command(
        "replay", "lobster", tmp_path / "m.csv", "--orderbook", tmp_path / "b.csv", "--data", data
    )
    assert code == 1
    assert "one of each per event" in err


def test_a_market_whose_steps_do_not_fit_is_refused(
    tmp_path: Path, data: Path, flow: SyntheticFlow, command: Command
) -> None:
    messages = [line.replace("1000", "1001") for line in flow.messages]
    (tmp_path / "m.csv").write_text("\n".join(messages) + "\n")
    command("init", "--data", data)
    code, _, err = command(
        "replay", "lobster", tmp_path / "m.csv", "--orderbook", tmp_path / "b.csv", "--data", data
    )
    assert code == 1
    assert "AAPL-USD: price" in err
    assert "tick size 0.01" in err
