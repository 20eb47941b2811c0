"""Load on an exchange that runs already: it leaves nothing behind, and says no where it cannot be made."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from click.testing import CliRunner
from nacl.signing import SigningKey

import perf.running
from perf.__main__ import main
from perf.compare import compare
from perf.generator import Job
from perf.load import LoadOptions, run_load
from perf.report import write_report
from perf.results import LoadResult, load_result, save
from perf.running import (
    Accounts,
    CannotLoad,
    Place,
    find_place,
    key_of,
    markets_for,
    middle_of,
    needs_of,
    run_on_running,
)
from perf.workload import BAND_TICKS, MIDDLE_TICKS, build_plan, due_times_ns, trading_commands
from zexchange.client import Client
from zexchange.client.keys import load_key, new_key
from zexchange.genesis import build_genesis, parse_genesis
from zexchange.runtime.exchange_info import take_lock
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.running import RunningExchange

GENESIS = parse_genesis(build_genesis("test/load", b"o" * 32, b"s" * 32))
MARKET = GENESIS.markets[0]


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    """A demo with its page, as `make run` starts it."""
    data = tmp_path_factory.mktemp("running") / "data"
    with RunningExchange(data, settings={"web.enabled": "true"}) as running:
        yield running


@pytest.fixture
def operator(exchange: RunningExchange) -> Iterator[Client]:
    with Client.local(exchange.paths.root, "operator") as client:
        yield client


def options_for(exchange: RunningExchange, **changes: Any) -> LoadOptions:
    base: dict[str, Any] = {"data": str(exchange.paths.root), "traders": 2, "duration_s": 0.5, "rate": 100}
    return LoadOptions(**{**base, "floor_rounds": 5, **changes})


def account_of(exchange: RunningExchange, number: int) -> Client:
    """A session of an account of runs."""
    return Client.local(exchange.paths.root, key_of(load_key(exchange.paths.operator_key), number))


def reason_of(options: LoadOptions) -> str:
    with pytest.raises(CannotLoad) as caught:
        run_load(options)
    assert str(caught.value)
    return caught.value.reason


@pytest.fixture(scope="module")
def result(exchange: RunningExchange) -> LoadResult:
    return run_load(options_for(exchange, resting=512, markets=2))


def test_run_leaves_nothing_and_disturbs_nobody(exchange: RunningExchange, operator: Client) -> None:
    seller_key = SigningKey(b"x" * 32)
    seller_id = operator.open_account(seller_key.verify_key).account_id
    operator.deposit(seller_id, "AAPL", 1)
    before = exchange.info.processes
    with Client.local(exchange.paths.root, seller_key) as seller:
        seller.sell("AAPL-USD", 1, "900")
        found = run_load(options_for(exchange, resting=512, markets=2))
        assert len(seller.open_orders()) == 1, "what others have is left alone"
        seller.cancel_all()
    assert found.orders_sent == found.orders_answered == 50
    assert found.orders_rejected == found.not_applied == 0
    assert found.resting_orders == 512
    assert (found.left_orders, found.verified, found.target) == (0, True, "data")
    assert found.valid == (found.problems == ())
    assert exchange.info.processes == before, (
        "neither the load nor the verification made anything start again"
    )
    for number in (0, 1, 1_000_000):
        with account_of(exchange, number) as account:
            assert account.account_id is not None
            assert account.open_orders() == []
            assert all(row.available == row.held == 0 for row in account.balances())


def test_what_is_known_of_a_running_exchange(exchange: RunningExchange, result: LoadResult) -> None:
    assert result.processes is not None
    assert {one.name for one in result.processes} == set(exchange.pids()) >= {"store", "web", "matcher-0"}
    assert result.rss_mb is not None
    assert result.floor is not None
    assert result.layout == exchange.info.pinning
    assert result.stages is None, "an exchange that goes on running has not told them"
    assert result.store_settings is None
    assert result.command_line.startswith(f"python -m perf load --data {exchange.paths.root} ")


def test_next_run_takes_the_same_accounts_and_cancels_what_a_killed_one_left(
    exchange: RunningExchange, operator: Client, result: LoadResult
) -> None:
    del result  # there was a run before
    with account_of(exchange, 0) as account:
        account_id = account.account_id
        assert account_id is not None
        operator.deposit(account_id, "USD", 1_000)
        account.buy("ETH-USD", "0.1", "100")
        found = run_load(options_for(exchange, verify=False))
        assert account.account_id == account_id
        assert account.open_orders() == []
    assert (found.left_orders, found.verified) == (0, None)


def test_address_alone_tells_nothing_of_the_processes(exchange: RunningExchange, tmp_path: Path) -> None:
    saved = tmp_path / "result.json"
    words = ["--connect", f"127.0.0.1:{exchange.port}", "--operator-key", str(exchange.paths.operator_key)]
    words += ["--num-traders", "2", "--duration-secs", "0.5", "--rate", "100", "--save", str(saved)]
    done = CliRunner().invoke(main, ["load", *words, "--json"])
    found = json.loads(done.stdout)
    assert (found["target"], found["orders_answered"], found["left_orders"]) == ("connect", 50, 0)
    unknown = {"floor", "floor_us", "ratio_to_floor", "verify_us", "server_cpu_us_per_order", "processes"}
    unknown |= {"rss_mb", "stages", "checkpoints_at_s", "layout", "store_settings", "verified"}
    assert {name for name, value in found.items() if value is None} == unknown
    assert all(second["rss_mb"] is None for second in found["seconds"])
    shown = CliRunner().invoke(main, ["load", *words])
    assert "server CPU" not in shown.output
    assert "0 are still open" in shown.output
    kept = load_result(saved)
    page = write_report([kept], [], tmp_path / "report").read_text(encoding="utf-8")
    assert "not known from outside" in page
    assert "not looked at" in page
    assert {line.figure for line in compare([kept], [kept], 0.05)}.isdisjoint(unknown)


def test_demo_without_the_operators_key_gives_accounts(exchange: RunningExchange, tmp_path: Path) -> None:
    web = exchange.info.web
    assert web is not None
    demo_url = f"http://127.0.0.1:{web.port}"
    key_file, away = exchange.paths.operator_key, tmp_path / "operator.key"
    key_file.rename(away)
    try:
        assert find_place(options_for(exchange)).demo_url == demo_url
        found = run_load(options_for(exchange, verify=False))
    finally:
        away.rename(key_file)
    assert (found.orders_answered, found.left_orders) == (50, 0)
    by_address = options_for(
        exchange, data="", connect=("127.0.0.1", exchange.port), demo_url=demo_url, rate=1e6, duration_s=5
    )
    assert reason_of(by_address) == "funds"
    nowhere = msgspec.structs.replace(by_address, demo_url=f"http://127.0.0.1:{exchange.port}/x")
    assert reason_of(nowhere) == "no-demo"
    assert reason_of(msgspec.structs.replace(by_address, demo_url="file:///etc")) == "no-demo"


def test_run_that_fails_takes_back_what_it_has_begun(
    exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_target: Any, keys: list[SigningKey], *_: object) -> None:
        with Client.local(exchange.paths.root, keys[0]) as client:
            client.buy("BTC-USD", "0.001", "40000")
            assert len(client.open_orders()) == 1
        raise RuntimeError("the generator broke")

    monkeypatch.setattr(perf.running, "measure", fails)
    assert reason_of(options_for(exchange)) == "run-failed"
    with account_of(exchange, 0) as account:
        assert account.open_orders() == []
        assert all(row.available == row.held == 0 for row in account.balances())


def test_accounts_that_cannot_be_reached_any_more_are_told(exchange: RunningExchange) -> None:
    key = load_key(exchange.paths.operator_key)
    gone = Place(host="127.0.0.1", port=exchange.port + 50, operator_key=key)
    accounts = Accounts(gone, GENESIS, 0)
    with pytest.raises(KeyError), accounts.cleaned():
        raise KeyError("what went wrong first is what is told")
    assert accounts.left_orders is None
    assert "the next run with the operator's key cancels them" in accounts.problems[0]


def test_refusals_have_a_reason_and_an_exit_code(
    exchange: RunningExchange, operator: Client, tmp_path: Path
) -> None:
    new_key(tmp_path / "other.key")
    assert reason_of(options_for(exchange, data=str(tmp_path))) == "no-exchange"
    assert reason_of(options_for(exchange, markets=100)) == "too-few-markets"
    other = str(tmp_path / "other.key")
    assert reason_of(options_for(exchange, operator_key=other)) == "wrong-operator-key"
    assert reason_of(options_for(exchange, operator_key=str(tmp_path / "none.key"))) == "no-operator-key"
    by_address = options_for(exchange, data="", connect=("127.0.0.1", exchange.port + 50))
    assert reason_of(by_address) == "no-operator-key"
    assert reason_of(msgspec.structs.replace(by_address, operator_key=other)) == "cannot-connect"
    lock = take_lock(exchange.paths.lock("load"))
    assert lock is not None
    with open(lock, closefd=True):
        assert reason_of(options_for(exchange)) == "load-running"
    operator.set_market_state("BTC-USD", "halted")
    try:
        done = CliRunner().invoke(main, ["load", "--data", str(exchange.paths.root), "--json"])
    finally:
        operator.set_market_state("BTC-USD", "continuous")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["refused"] == "market-not-open"
    assert "BTC-USD is halted" in done.stderr
    missing = CliRunner().invoke(main, ["load", "--data", str(tmp_path)])
    assert missing.exit_code == 3
    assert "[no-exchange]" in missing.output


def test_deposits_that_are_refused_are_told(exchange: RunningExchange) -> None:
    huge = options_for(exchange, rate=None, duration_s=3600.0, batch=64, markets=3)
    place = find_place(huge)
    accounts = Accounts(place, GENESIS, 0)
    with pytest.raises(CannotLoad) as caught, accounts.cleaned():
        accounts.open(1, 0, {"USD": Decimal(2**63)})
    assert caught.value.reason in ("funds", "refused")
    assert accounts.left_orders == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--data", ".", "--connect", "127.0.0.1:1"],
        ["--data", ".", "--fsync", "always"],
        ["--data", ".", "--pin", "off"],
        ["--connect", "127.0.0.1:1", "--setting", "web.enabled=false"],
        ["--operator-key", "x"],
        ["--demo-url", "http://127.0.0.1:3000"],
        ["--data", ".", "--operator-key", "x", "--demo-url", "y"],
    ],
)
def test_options_that_do_not_go_together(words: list[str]) -> None:
    done = CliRunner().invoke(main, ["load", *words])
    assert done.exit_code == 2
    assert "Error:" in done.output


# --- what is decided before anything is sent ----------------------------------------------------------------


def book_with(bid: int | None, ask: int | None, last: int | None = None, state: str = "continuous") -> Client:
    """A client of a market whose best prices are these, in ticks."""

    def level(ticks: int | None) -> tuple[Any, ...]:
        return () if ticks is None else (SimpleNamespace(price=ticks * MARKET.tick_size),)

    book = SimpleNamespace(state=state, bids=level(bid), asks=level(ask))
    return cast(Client, SimpleNamespace(book=lambda *_: book, trades=lambda *_: list(level(last))))


@pytest.mark.parametrize(
    ("bid", "ask", "last", "middle"),
    [
        (None, None, None, MIDDLE_TICKS),
        (None, None, 7_000, 7_000),
        (6_000, 6_004, 7_000, 6_002),
        (6_000, 7_000, None, 6_500),
        (6_000, None, None, 6_000 + BAND_TICKS + 1),
        (None, 6_000, None, 6_000 - BAND_TICKS - 1),
    ],
)
def test_prices_are_where_the_market_is_and_meet_nobody_without_need(
    bid: int | None, ask: int | None, last: int | None, middle: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert middle_of(book_with(bid, ask, last), MARKET, LoadOptions()) == middle
    meets = bid is not None and ask is not None and not bid < middle - BAND_TICKS <= middle + BAND_TICKS < ask
    assert ("some trades will be with them" in capsys.readouterr().err) == meets


def test_market_that_is_too_cheap_or_closed_is_refused() -> None:
    with pytest.raises(CannotLoad, match="50 ticks below"):
        middle_of(book_with(None, None, BAND_TICKS), MARKET, LoadOptions())
    with pytest.raises(CannotLoad, match="closed"):
        middle_of(book_with(None, None, None, "closed"), MARKET, LoadOptions())
    with pytest.raises(CannotLoad, match="below that"):
        middle_of(book_with(None, None, 10_000), MARKET, LoadOptions(resting=8))


def test_needs_cover_the_dearest_course_of_a_run() -> None:
    markets = markets_for(GENESIS, 2)
    middles = {market.market_id: 1_000 * market.market_id for market in markets}
    needs = needs_of(GENESIS, markets, middles, 10, 50)
    assert set(needs) == {"USD", "BTC", "ETH"}
    assert needs["BTC"] == 10 * markets[0].lot_size
    dearest = max((middles[market.market_id] + 50) * market.tick_size * market.lot_size for market in markets)
    assert 10 * dearest <= needs["USD"] <= 10 * dearest * 2


def test_keys_are_the_same_again_and_nobody_elses() -> None:
    operator_key = SigningKey(b"1" * 32)
    assert bytes(key_of(operator_key, 3)) == bytes(key_of(operator_key, 3))
    others = {bytes(key_of(SigningKey(b"2" * 32), 3)), bytes(key_of(operator_key, 4)), bytes(operator_key)}
    assert bytes(key_of(operator_key, 3)) not in others


def test_lock_is_given_back(exchange: RunningExchange) -> None:
    with pytest.raises(CannotLoad):
        run_on_running(options_for(exchange, markets=100))
    descriptor = take_lock(DataPaths(exchange.paths.root).lock("load"))
    assert descriptor is not None
    with open(descriptor, closefd=True):
        pass


def test_saved_result_is_read_again(result: LoadResult, tmp_path: Path) -> None:
    save(result, tmp_path / "a.json")
    assert load_result(tmp_path / "a.json") == result


def test_generator_does_not_outlive_the_run(exchange: RunningExchange, tmp_path: Path) -> None:
    """A process starts a generator that would send for a minute, and is killed once it does."""
    keys = [SigningKey.generate()]
    plan = build_plan(
        keys,
        GENESIS.deployment_id,
        [trading_commands(60, [1], 1)],
        due_times_ns(60, 1.0, False, 1),
        shard=0,
        batch=1,
        first_nonce=1,
    )
    job = Job(
        host=exchange.host,
        port=exchange.port,
        deployment_id=parse_genesis(exchange.paths.genesis.read_bytes(), "genesis").deployment_id,
        keys=[bytes(key) for key in keys],
        plan=plan,
        duration_ns=60 * 10**9,
    )
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    starter = (
        "import os, subprocess, sys;"
        f"child = subprocess.Popen([sys.executable, '-m', 'perf.generator', {str(tmp_path / 'job')!r},"
        f" {str(tmp_path / 'outcome')!r}, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE);"
        "child.stdout.readline(); child.stdin.write(b'go\\n'); child.stdin.flush();"
        "print('started', flush=True); child.wait()"
    )
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", starter], **pipes) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline() == "started\n"
        run.kill()
        assert run.stderr.read() == "", "the generator has the other end of this pipe, too"
    assert not (tmp_path / "outcome").exists(), "it would be there if the generator had sent everything"
