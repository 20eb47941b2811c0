"""`zexchange up --demo`: bots make a market that can be stopped and started again, and leave nothing behind."""

from __future__ import annotations

import os
import signal
from decimal import Decimal
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from tests.e2e.conftest import Command, Exchange
from tests.e2e.test_web import Site
from zexchange.runtime.running import NotRunning, RunningExchange, wait_for

pytestmark = pytest.mark.timeout(180)

MARKETS = ("BTC-USD", "ETH-USD", "AAPL-USD")


def books_have_orders(exchange: Exchange) -> list[bool]:
    with exchange.client() as client:
        return [bool(client.book(market).bids and client.book(market).asks) for market in MARKETS]


def test_bots_trade_stop_and_go_on(tmp_path: Path) -> None:
    with RunningExchange(tmp_path / "data", settings={"web.enabled": "true"}, demo=True) as running:
        exchange = Exchange(running)
        site = Site(exchange)
        wait_for(lambda: all(books_have_orders(exchange)), 30, "the bots do not quote")
        site.eventually("/trades/BTC-USD", lambda reply: bool(reply["trades"]))
        assert site.get("/demo/bots") == {"present": True, "running": True}
        stopped = site.call("POST", "/api/v1/demo/bots", {"running": False})
        assert stopped[:2] == (200, {"present": True, "running": False})
        wait_for(lambda: not any(books_have_orders(exchange)), 30, "their orders stay")
        assert site.call("POST", "/api/v1/demo/bots", {"running": True})[0] == 200
        wait_for(lambda: all(books_have_orders(exchange)), 30, "the bots do not go on")
        with exchange.client("bots-maker") as maker:
            resting = {order.order_id for order in maker.open_orders()}
            os.kill(running.pids()["bots"], signal.SIGKILL)
            wait_for(
                lambda: not resting & {order.order_id for order in maker.open_orders()},
                60,
                "what a killed bot left is still there",
            )
        assert running.stop() == 0


def test_what_is_added_at_run_time_is_traded_too_and_demo_accounts_have_it(tmp_path: Path) -> None:
    with RunningExchange(tmp_path / "data", settings={"web.enabled": "true"}, demo=True) as running:
        exchange = Exchange(running)
        site = Site(exchange)
        old, new = SigningKey.generate(), SigningKey.generate()

        def demo_account(key: SigningKey) -> dict[str, str]:
            """What it has of each asset, once the replica knows of its last deposit."""
            body = {"public_key": bytes(key.verify_key).hex()}
            status, reply, _ = site.call("POST", "/api/v1/demo/account", body)
            assert status == 201, reply
            token, account_id = site.log_on(key)
            assert account_id == reply["account_id"]
            names = len(site.get("/assets")["assets"])
            balances = site.eventually("/balances", lambda found: len(found["balances"]) == names, token)
            return {one["asset"]: one["total"] for one in balances["balances"]}

        assert demo_account(old)["USD"] == "1000000.000000"
        assert site.call("POST", "/assets", {"symbol": "GOLD", "decimals": 4}, admin=True)[0] == 201
        assert site.call("POST", "/assets", {"symbol": "DUST", "decimals": 18}, admin=True)[0] == 201
        terms = {
            "symbol": "GOLD-USD",
            "base": "GOLD",
            "quote": "USD",
            "tick_size": "0.05",
            "lot_size": "0.001",
        }
        assert site.call("POST", "/markets", terms, admin=True)[0] == 201
        site.eventually("/book/GOLD-USD", lambda book: len(book["bids"]) > 5 and len(book["asks"]) > 5)
        site.eventually("/trades/GOLD-USD", lambda reply: bool(reply["trades"]))
        for key in (old, new, old):
            funds = demo_account(key)
            assert (funds["GOLD"], funds["USD"]) == ("100.0000", "1000000.000000"), "given once"
            assert funds["DUST"].startswith("0.0000922"), "there is not more of it to go round"

        # Bots leave a market that is closed, so that its sizes can be changed, and come back.
        close = {"state": "closed"}
        assert site.call("POST", "/markets/GOLD-USD/state", close, admin=True)[0] == 200
        sizes = {"tick_size": "0.5", "lot_size": "0.01"}
        wait_for(
            lambda: site.call("POST", "/markets/GOLD-USD/sizes", sizes, admin=True)[0] == 200,
            30,
            "their orders stay in a closed market",
        )
        state = {"state": "continuous"}
        assert site.call("POST", "/markets/GOLD-USD/state", state, admin=True)[0] == 200
        book = site.eventually("/book/GOLD-USD", lambda book: len(book["bids"]) > 5 and len(book["asks"]) > 5)
        assert all(Decimal(price) % Decimal("0.5") == 0 for price, _, _ in book["bids"] + book["asks"])
        assert running.stop() == 0


def test_bots_are_for_a_demo_only(tmp_path: Path, command: Command) -> None:
    assert command("init", "--data", tmp_path / "data", "--name", "real")[0] == 0
    with pytest.raises(NotRunning, match=r"is no demo.*without --demo"):
        RunningExchange(tmp_path / "data", demo=True).start()
