"""Assets and markets that the operator adds to a running exchange: traded at once, and after a restart; by the command
line and by the admin API, through the SDK, REST and the feed; and verified from the log alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.conftest import Command, Exchange, verify
from tests.e2e.test_web import Site, feed_of
from zexchange.client import Client, NewOrder
from zexchange.client.rejections import SizesChanged
from zexchange.genesis import load_genesis
from zexchange.runtime.running import RunningExchange

pytestmark = pytest.mark.timeout(240)


@contextmanager
def started(data: Path) -> Iterator[Exchange]:
    settings = {"web.enabled": "true", "settlement.snapshot_every_records": "5"}
    with RunningExchange(data, settings=settings) as running:
        yield Exchange(running)


def trade(seller: Client, buyer: Client, market: str, quantity: str, price: str) -> None:
    seller.sell(market, quantity, price)
    bought = buyer.buy(market, quantity, price)
    assert (bought.status, bought.fills[0].price) == ("filled", Decimal(price))


def test_new_markets_need_no_restart_and_survive_one(data: Path, command: Command) -> None:
    with started(data) as exchange:
        site = Site(exchange)
        exchange.account("alice", USD="100000")
        exchange.account("bob", USD="100000")
        where = ("--data", data)
        with exchange.client("alice") as alice, exchange.client("bob") as bob:
            code, out, err = command("asset", "add", "GOLD", "--decimals", "4", *where)
            assert (code, out) == (0, "asset 5 GOLD added on shard 0\n"), err
            assert command("deposit", "alice", "GOLD", "50", *where)[0] == 0
            words = ("GOLD-USD", "GOLD", "USD", "--tick", "0.05", "--lot", "0.001", "--taker-fee", "500")
            code, out, err = command("market", "add", *words, *where)
            assert (code, out) == (0, "market 4 GOLD-USD added on shard 0, continuous\n"), err
            trade(alice, bob, "GOLD-USD", "1.5", "1900.05")

            admin = {"symbol": "SALT", "decimals": 0}
            status, added, _ = site.call("POST", "/assets", admin, admin=True)
            assert (status, added) == (201, {"asset_id": 6, "symbol": "SALT", "decimals": 0})
            funds = {"user_id": 2, "asset_id": 6, "amount": "1000"}
            assert site.call("POST", "/deposit", funds, admin=True)[0] == 200
            terms = {
                "symbol": "SALT-GOLD",
                "base": "SALT",
                "quote": "GOLD",
                "tick_size": "0.0001",
                "lot_size": "1",
            }
            status, added, _ = site.call("POST", "/markets", {**terms, "state": "closed"}, admin=True)
            assert (status, added["market_id"], added["tick_size"]) == (201, 5, "0.0001")
            alice.refresh()
            assert (alice.markets[-1].symbol, alice.assets[-1].symbol) == ("SALT-GOLD", "SALT")
            state = {"state": "continuous"}
            assert site.call("POST", "/markets/SALT-GOLD/state", state, admin=True)[0] == 200
            trade(bob, alice, "SALT-GOLD", "100", "0.0123")

            status, problem, _ = site.call("POST", "/markets", terms, admin=True)
            assert (status, problem["code"]) == (409, "SYMBOL_IN_USE")
            wrong = {**terms, "symbol": "SALT-USD", "tick_size": "0.00001"}
            status, problem, _ = site.call("POST", "/markets", wrong, admin=True)
            assert (status, problem["code"]) == (422, "SIZES_INVALID")

        names = [one["symbol"] for one in site.get("/markets")["markets"]]
        assert names[-2:] == ["GOLD-USD", "SALT-GOLD"]
        assert site.get("/assets")["assets"][-1] == {"asset_id": 6, "symbol": "SALT", "decimals": 0}
        found = site.eventually("/trades/SALT-GOLD", lambda body: body["trades"])
        assert (found["trades"][0]["price"], found["trades"][0]["qty"]) == ("0.0123", "100")
        tickers = {one["market"]: one for one in site.get("/ticker")["tickers"]}
        assert tickers["GOLD-USD"]["last"] == "1900.05"
        token, _ = site.log_on(exchange.key("alice"))
        fills = site.eventually("/fills", lambda body: len(body["fills"]) == 2, token)["fills"]
        assert {one["market"] for one in fills} == {"GOLD-USD", "SALT-GOLD"}
        assert exchange.running.stop() == 0
    verify(command, data)

    with started(data) as exchange:
        site = Site(exchange)
        with exchange.client("alice") as alice, exchange.client("bob") as bob:
            assert [one.symbol for one in alice.markets][-2:] == ["GOLD-USD", "SALT-GOLD"]
            trade(alice, bob, "GOLD-USD", "0.25", "1901")
            trade(bob, alice, "SALT-GOLD", "10", "0.0124")

            alice.cancel_all()
            for words in (
                ("market", "set-state", "GOLD-USD", "closed"),
                ("market", "set-sizes", "GOLD-USD", "--tick", "0.5", "--lot", "0.01"),
                ("market", "set-state", "GOLD-USD", "continuous"),
            ):
                code, out, err = command(*words, "--data", data)
                assert code == 0, out + err
            (outcome,) = alice.submit([NewOrder(market="GOLD-USD", side="sell", quantity=1, price="1900.5")])
            assert isinstance(outcome, SizesChanged), "what was made for the sizes of before does not trade"
            trade(alice, bob, "GOLD-USD", "1.25", "1900.5")
            assert [one.price for one in bob.trades("GOLD-USD")] == [Decimal("1900.5")]
        fills = site.eventually("/trades/GOLD-USD", lambda body: body["trades"])["trades"]
        assert [(one["price"], one["qty"]) for one in fills] == [("1900.5", "1.25")]
        info = {one["symbol"]: one for one in site.get("/markets")["markets"]}["GOLD-USD"]
        assert (info["tick_size"], info["lot_size"], info["sizes_no"]) == ("0.5", "0.01", 1)
        token, _ = site.log_on(exchange.key("bob"))
        mine = site.eventually("/fills", lambda body: len(body["fills"]) == 5, token)["fills"]
        gold = [(one["price"], one["qty"]) for one in mine if one["market"] == "GOLD-USD"]
        assert gold == [("1900.5", "1.25"), ("1901.00", "0.250"), ("1900.05", "1.500")], "each as it was made"
        genesis = load_genesis(exchange.running.paths.genesis)
        assert len(genesis.markets) == 3, "the genesis file is what it was"
        assert exchange.running.stop() == 0
    verify(command, data)


def test_the_feed_of_a_new_market(data: Path) -> None:
    with started(data) as exchange:
        site = Site(exchange)
        exchange.account("alice", USD="100000", AAPL="100")

        async def main() -> None:
            async with feed_of(site) as feed:
                with exchange.client() as operator, exchange.client("alice") as alice:
                    assert (await feed.subscribe({"channel": "definitions"}))[0]["ok"]
                    known = await feed.until(lambda one: one.get("channel") == "definitions")
                    assert [one["symbol"] for one in known["markets"]] == ["BTC-USD", "ETH-USD", "AAPL-USD"]
                    operator.add_market("AAPL-BTC", "AAPL", "BTC", tick_size="0.0001", lot_size="1")
                    added = await feed.until(lambda one: one.get("type") == "update")
                    assert [one["symbol"] for one in added["markets"]] == ["AAPL-BTC"]
                    alice.sell("AAPL-BTC", 3, "0.02")
                    site.eventually("/book/AAPL-BTC", lambda body: body["asks"])
                    (result,) = await feed.subscribe({"channel": "book", "market": "AAPL-BTC"})
                    assert result["ok"], result
                    first = await feed.until(lambda one: one.get("channel") == "book")
                    assert (first["market"], first["asks"]) == ("AAPL-BTC", [["0.0200", "3", 1]])
                    alice.sell("AAPL-BTC", 2, "0.0201")
                    second = await feed.until(
                        lambda one: (one.get("channel"), one.get("type")) == ("book", "update")
                    )
                    assert second["asks"] == [["0.0201", "2", 1]]

        asyncio.run(main())
