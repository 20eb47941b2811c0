"""The command line against a real exchange: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Command, Exchange, as_json
from zexchange.runtime.running import RunningExchange

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def traders(exchange: Exchange) -> Exchange:
    """Two funded accounts made by the commands themselves."""
    from zexchange.cli.main import run

    for name, asset, amount in (("alice", "USD", "100000"), ("bob", "BTC", "10")):
        for words in (["keys", "new", name], ["user", "open", name], ["deposit", name, asset, amount]):
            assert run([*words, "--data", str(exchange.data)]) == 0
    return exchange


def test_a_first_order_as_the_screen_says(traders: Exchange, command: Command) -> None:
    data = ("--data", traders.data)
    code, out, err = command("order", "buy", "BTC-USD", "0.5", "60000", "--key", "alice", *data)
    assert (code, err) == (0, "")
    assert out.startswith("order ")
    assert "buy 0.5000 BTC-USD at 60000.00  open, filled 0.0000, open 0.5000" in out

    code, out, err = command("book", "BTC-USD", *data)
    assert code == 0
    assert out.splitlines()[0].split() == ["SIDE", "PRICE", "QUANTITY", "ORDERS"]
    assert ["buy", "60000.00", "0.5000", "1"] in [line.split() for line in out.splitlines()]
    assert err == "BTC-USD continuous\n"

    code, out, err = command("order", "sell", "BTC-USD", "0.2", "--price", "60000", "--key", "bob", *data)
    assert code == 0
    assert "filled 0.2000" in out
    assert "fee 6.000000 USD" in out

    code, out, _ = command("trades", "BTC-USD", *data)
    assert out.splitlines()[1].split()[2:] == ["sell", "60000.00", "0.2000"]
    code, out, _ = command("balance", "--key", "bob", *data)
    assert ["USD", "11994.000000", "0.000000", "11994.000000"] in [line.split() for line in out.splitlines()]
    code, out, _ = command("order", "cancel", "--all", "--key", "alice", *data)
    assert (code, out) == (0, "1 cancelled\n")


def test_json_everywhere(traders: Exchange, command: Command) -> None:
    data = ("--json", "--data", traders.data)

    def ask(*words: object) -> Any:
        code, out, err = command(*words, *data)
        assert (code, err) == (0, ""), err
        return as_json(out)

    order = ask("order", "buy", "BTC-USD", "0.1", "100", "--client-order-id", 9, "--key", "alice")
    assert (order["status"], order["price"], order["fills"], order["average_price"]) == (
        "open",
        "100.00",
        [],
        None,
    )
    amended = ask("order", "amend", order["order_id"], "--quantity", "0.05", "--key", "alice")
    assert amended["remaining"] == "0.0500"
    (listed,) = ask("order", "list", "--key", "alice")
    assert (listed["order_id"], listed["quantity"]) == (order["order_id"], "0.0500")
    cancelled = ask("order", "cancel", "--client-order-id", 9, "--key", "alice")
    assert cancelled["cancelled"] == "0.0500"
    assert ask("order", "cancel", "--all", "--key", "alice") == {"cancelled": 0}
    balance = ask("balance", "--key", "alice")
    assert balance["account_id"] == 1
    book = ask("book", "ETH-USD")
    assert book == {
        "market": "ETH-USD",
        "state": "continuous",
        "next_record_no": book["next_record_no"],
        "bids": [],
        "asks": [],
        "indicative_price": None,
        "indicative_quantity": None,
    }
    assert ask("trades", "ETH-USD") == []
    markets = ask("market", "list")
    assert [market["market"] for market in markets] == ["BTC-USD", "ETH-USD", "AAPL-USD"]
    assert ask("withdraw", "alice", "USD", "1.5") == {"account_id": 1, "asset": "USD", "amount": "1.500000"}
    assert ask("deposit", "--key", "alice", "USD", "1.5") == {
        "account_id": 1,
        "asset": "USD",
        "amount": "1.500000",
    }
    assert ask("market", "set-reference", "ETH-USD", "3000") == {"market": "ETH-USD", "price": "3000.00"}
    rules = ask(
        "market", "set-rules", "ETH-USD", "--dynamic-band", 50_000, "--interruption", 2, "--max-orders", 9
    )
    assert rules == {"market": "ETH-USD"}
    assert ask("user", "set-rules", 1, "--fee-discount", 250_000, "--max-rate", 100) == {"account_id": 1}
    halted = ask("market", "set-state", "AAPL-USD", "halted", "--for", 0.2)
    assert halted == {"market": "AAPL-USD", "state": "halted"}
    stop = ask("order", "buy", "ETH-USD", "0.1", "3100", "--stop", "3050", "--expires", 600, "--key", "alice")
    assert (stop["status"], stop["filled"]) == ("open", "0.000")
    (waiting,) = ask("order", "list", "--key", "alice")
    assert (waiting["trigger"], waiting["trigger_price"], waiting["time_in_force"]) == (
        "stop",
        "3050.00",
        "gtd",
    )
    assert ask("order", "cancel", "--all", "--key", "alice") == {"cancelled": 1}
    keys = ask("keys", "list")
    assert {key["name"] for key in keys} >= {"alice", "bob", "operator", "settlement"}
    opened = ask("user", "open", "--public-key", "ab" * 32, "--account-id", 40)
    assert opened == {"account_id": 40, "public_key": "ab" * 32}
    ask("keys", "new", "alice-laptop")
    assert ask("user", "add-key", "alice", "alice-laptop") == {
        "account_id": 1,
        "public_key": ask("keys", "show", "alice-laptop")["public_key"],
    }


def test_the_default_key_needs_no_name(
    traders: Exchange, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ("--data", traders.data)
    monkeypatch.setenv("ZX_KEY", "dora")
    for words in (
        ["keys", "new"],
        ["user", "open"],
        ["deposit", "USD", "100"],
        ["order", "buy", "ETH-USD", "0.01", "1000"],
        ["order", "cancel", "--all"],
    ):
        assert command(*words, *data)[0] == 0, words
    assert command("balance", *data) == command("balance", "--key", "dora", *data)


def test_halting_a_market(traders: Exchange, command: Command) -> None:
    data = ("--data", traders.data)
    assert command("market", "set-state", "ETH-USD", "halted", *data)[:2] == (0, "ETH-USD halted\n")
    code, out, err = command("order", "buy", "ETH-USD", "1", "10", "--key", "alice", *data)
    assert (code, out) == (4, "")
    assert "[market_halted, 303]" in err
    assert command("market", "set-state", "ETH-USD", "continuous", *data)[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["order", "buy", "BTC-USD", "1000", "64000", "--key", "alice"], 4, "insufficient_funds, 311"),
        (["order", "buy", "BTC-USD", "1", "64000.001", "--key", "alice"], 4, "price_off_tick, 501"),
        (["order", "buy", "DOGE-USD", "1", "1", "--key", "alice"], 4, "BTC-USD, ETH-USD, AAPL-USD"),
        (["order", "cancel", "999999", "--key", "alice"], 4, "zexchange order list --key alice"),
        (["balance", "--key", "operator", "--connect", "127.0.0.1:1"], 3, "cannot connect to 127.0.0.1:1"),
        (["balance", "--key", "nobody"], 1, "zexchange keys new nobody"),
        (["keys", "new", "alice"], 1, "not overwritten"),
        (["deposit", "USD"], 2, "ACCOUNT ASSET AMOUNT"),
        (["deposit", "alice", "USD"], 2, "not a decimal number"),
        (["deposit", "USD", "1"], 1, "zexchange keys new default"),
        (["deposit", "99999999999999999999", "USD", "1"], 4, "unknown_account, 401"),
        (["user", "add-key", "99999999999999999999", "alice"], 4, "unknown_account, 401"),
        (["deposit", "alice", "USD", "0.0000001"], 4, "amount_too_precise, 503"),
        (["order", "buy", "BTC-USD", "x", "1"], 2, "not a decimal number"),
        (["order", "buy", "BTC-USD", "1"], 2, "give a price"),
        (["order", "buy", "BTC-USD", "1", "--market-order"], 2, "--protect"),
        (["order", "cancel"], 2, "name an order"),
        (["user", "open"], 1, "zexchange keys new default"),
        (["user", "open", "alice", "--public-key", "00" * 32], 2, "not both"),
        (["book", "BTC-USD", "--connect", "nowhere"], 2, "HOST:PORT"),
        (["user", "open", "alice"], 4, "key_exists, 405"),
    ],
)
def test_errors_say_what_to_do_and_how_it_ended(
    traders: Exchange, command: Command, words: list[str], code: int, says: str
) -> None:
    ended, out, err = command(*words, "--data", traders.data)
    assert (ended, out) == (code, "")
    assert says in err
    assert "Traceback" not in err


def test_a_key_without_account_is_told_how_to_get_one(traders: Exchange, command: Command) -> None:
    command("keys", "new", "carol", "--data", traders.data)
    code, _, err = command("balance", "--key", "carol", "--data", traders.data)
    assert code == 4
    assert "zexchange user open carol" in err


@pytest.mark.parametrize(
    "words",
    [
        ["book", "BTC-USD"],
        ["balance"],
        ["order", "buy", "BTC-USD", "1", "1"],
        ["order", "cancel", "1", "--json"],
        ["deposit", "7", "USD", "1"],
    ],
)
def test_nothing_runs(tmp_path: Path, command: Command, words: list[str]) -> None:
    code, out, err = command(*words, "--data", tmp_path)
    assert (code, out) == (3, "")
    assert "zexchange up" in err


def test_a_hint_about_a_traders_key_is_not_given_to_the_operator(traders: Exchange, command: Command) -> None:
    code, _, err = command("withdraw", "alice", "USD", "100000000", "--data", traders.data)
    assert (code, "insufficient_funds" in err, "operator" in err) == (4, True, False)


def test_as_a_program_of_its_own(traders: Exchange) -> None:
    command = [sys.executable, "-m", "zexchange", "book", "BTC-USD", "--json", "--data", str(traders.data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["market"] == "BTC-USD"


def test_bots_make_a_market_of_a_demo(exchange: Exchange, command: Command) -> None:
    code, out, err = command("bots", "--data", exchange.data, "--steps", 12, "--rate", 1000, "--seed", 1)
    assert code == 0, err
    assert out == "12 steps\n"
    with exchange.client() as client:
        for market in ("BTC-USD", "ETH-USD", "AAPL-USD"):
            assert client.trades(market, limit=5), market
            assert client.book(market).bids == client.book(market).asks == ()


def test_bots_trade_on_a_demo_only(tmp_path: Path, command: Command) -> None:
    assert command("init", "--data", tmp_path / "data", "--name", "real")[0] == 0
    with RunningExchange(tmp_path / "data"):
        code, _, err = command("bots", "--data", tmp_path / "data", "--steps", 1)
    assert code == 1
    assert "no demo" in err
