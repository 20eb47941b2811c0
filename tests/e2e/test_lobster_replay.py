"""The LOBSTER replay on a real exchange: every row must match, and what was logged must verify."""

from __future__ import annotations

from pathlib import Path

import pytest
from nacl.signing import SigningKey

from tests.conftest import shared_data
from tests.e2e.conftest import Command, as_json, verify
from zexchange.client import Client, load_key
from zexchange.replay.exchange import prepare_folder
from zexchange.replay.synthetic import SyntheticFlow, synthetic_flow
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.running import RunningExchange

ALICE = SigningKey(bytes([3]) * 32)

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

    # The market was left as it was found: it can be done again.
    code, out, err = command("replay", "lobster", *files)
    assert (code, err) == (0, ""), out


def test_a_deployment_with_several_markets_needs_no_option(
    tmp_path: Path, data: Path, flow: SyntheticFlow, command: Command
) -> None:
    files = (tmp_path / "m.csv", "--orderbook", tmp_path / "b.csv")
    with RunningExchange(data) as running:  # makes a deployment with the three default markets
        code, _, err = command("replay", "lobster", *files, "--data", data)
        assert (code, f"--connect {running.host}:{running.port}" in err) == (1, True)
        connect = ("--connect", f"{running.host}:{running.port}")
        with Client(running.host, running.port, key=load_key(running.paths.operator_key)) as operator:
            account_id = operator.open_account(bytes(ALICE.verify_key)).account_id
            operator.deposit(account_id, "USD", 100)
        with Client(running.host, running.port, key=ALICE) as alice:
            alice.buy("AAPL-USD", 1, 1)
            code, out, err = command(
                "replay", "lobster", *files, "--data", data, *connect, "--market", "AAPL-USD"
            )
            assert (code, out) == (1, "")
            assert "its book is not empty" in err
            alice.cancel_all()
    code, out, err = command("replay", "lobster", *files, "--data", data, "--json")
    report = as_json(out)
    assert (code, report["mismatched"], report["market"]) == (0, 0, "AAPL-USD"), err


def test_a_replay_that_ends_in_a_halt_leaves_the_market_open(
    tmp_path: Path, data: Path, flow: SyntheticFlow, command: Command
) -> None:
    halt = next(row for row, line in enumerate(flow.messages, 1) if line.split(",")[1] == "7")
    (tmp_path / "m.csv").write_text("\n".join(flow.messages[:halt]) + "\n")
    (tmp_path / "b.csv").write_text("\n".join(flow.book[:halt]) + "\n")
    prepare_folder(DataPaths(data))
    with RunningExchange(data) as running:
        code, _, err = command(
            *("replay", "lobster", tmp_path / "m.csv", "--orderbook", tmp_path / "b.csv"),
            *("--data", data, "--connect", f"{running.host}:{running.port}"),
        )
        assert code == 0, err
        with Client(running.host, running.port, key=ALICE) as anybody:
            book = anybody.book("AAPL-USD")
    assert (book.state, book.bids, book.asks) == ("continuous", (), ())


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


def test_orders_that_the_exchange_refuses_are_differences(
    tmp_path: Path, data: Path, flow: SyntheticFlow, command: Command
) -> None:
    """A number that comes twice, and a halt of which the file says nothing else: refusals, not a crash."""
    new = next(row for row, line in enumerate(flow.messages) if row and line.split(",")[1] == "1")
    messages = [*flow.messages[: new + 1], *flow.messages[new:]]
    book = [*flow.book[: new + 1], *flow.book[new:]]
    messages[100] = messages[100].split(",")[0] + ",7,0,0,-1,-1"
    (tmp_path / "m.csv").write_text("\n".join(messages) + "\n")
    (tmp_path / "b.csv").write_text("\n".join(book) + "\n")
    files = (tmp_path / "m.csv", "--orderbook", tmp_path / "b.csv", "--data", data)
    code, out, err = command("replay", "lobster", *files, "--json")
    assert code == 5
    problems = [problem for row in as_json(out)["first_mismatches"] for problem in row["problems"]]
    assert problems[0] == "NewOrder refused: client_order_id_in_use"
    assert "NewOrder refused: market_halted" in problems
    assert f"row {new + 2}: NewOrder refused" in err
    verify(command, data)


@pytest.mark.parametrize(
    ("messages", "rows", "says"), [(150, 149, "one of each per event"), (0, 0, "the files are empty")]
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, data: Path, flow: SyntheticFlow, command: Command, messages: int, rows: int, says: str
) -> None:
    (tmp_path / "m.csv").write_text("\n".join(flow.messages[:messages]))
    (tmp_path / "b.csv").write_text("\n".join(flow.book[:rows]))
    code, _, err = command(
        "replay", "lobster", tmp_path / "m.csv", "--orderbook", tmp_path / "b.csv", "--data", data
    )
    assert code == 1
    assert says in err
    assert not data.exists()  # found before anything was started


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
