"""`zexchange up --demo`: bots make a market that can be stopped and started again, and leave nothing behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

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


def test_bots_are_for_a_demo_only(tmp_path: Path, command: Command) -> None:
    assert command("init", "--data", tmp_path / "data", "--name", "real")[0] == 0
    with pytest.raises(NotRunning, match=r"is no demo.*without --demo"):
        RunningExchange(tmp_path / "data", demo=True).start()
