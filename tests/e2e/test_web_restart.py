"""What the web process knows after it was killed: everything, as the log has it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from nacl.signing import SigningKey

from tests.e2e.conftest import MARKET, Exchange
from tests.e2e.test_web import Site
from tests.model.kit import order
from zexchange.runtime.exchange_info import read_exchange
from zexchange.runtime.running import RunningExchange, wait_for
from zexchange.wire.messages import Side

pytestmark = pytest.mark.timeout(120)

PUBLIC = (f"/trades/{MARKET}", f"/candles/{MARKET}?interval=1s", f"/candles/{MARKET}?interval=1d", "/ticker")
PRIVATE = ("/orders", "/orders/history", "/fills", "/balances")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("restarted") / "data"
    with RunningExchange(data, settings={"web.enabled": "true"}) as running:
        yield Site(Exchange(running))


def _pid(site: Site) -> int:
    info = read_exchange(site.exchange.running.paths)
    assert info is not None
    pid = info.processes["web"].pid
    return pid or 0


def _restart(site: Site) -> None:
    """Kill the web process, and wait for the next one."""
    before = _pid(site)
    os.kill(before, signal.SIGKILL)

    def is_back() -> bool:
        try:
            return _pid(site) not in (0, before) and site.call("GET", "/readyz")[0] == 200
        except OSError:
            return False

    wait_for(is_back, 30, "the web process does not come back")


def _submit(site: Site, key: SigningKey, token: str, nonce: int, *commands: Any) -> tuple[int, Any]:
    status, body, _ = site.call(
        "POST",
        "/api/v1/orders/batch",
        site.batch(key, nonce, *commands),
        token=token,
        headers={"Content-Type": "application/octet-stream"},
    )
    return status, body


def test_histories_are_there_again(site: Site) -> None:
    site.exchange.account("maker", BTC="10")
    site.exchange.account("taker", USD="1000000")
    with site.exchange.client("maker") as maker, site.exchange.client("taker") as taker:
        for step in range(5):
            maker.sell(MARKET, "0.1", str(50_000 + step))
            taker.buy(MARKET, "0.05", str(50_000 + step))
        taker.buy(MARKET, "1", "40000")
    keys = [site.exchange.key(name) for name in ("maker", "taker")]

    def shown() -> list[Any]:
        found = [site.get(path) for path in PUBLIC]
        for key in keys:
            token, _ = site.log_on(key)
            found += [site.get(path, token) for path in PRIVATE]
        return found

    site.eventually(f"/book/{MARKET}", lambda body: body["bids"])
    before = shown()
    assert len(before[0]["trades"]) == 5
    _restart(site)
    assert shown() == before


def test_an_order_is_entered_once_though_the_server_was_killed_in_between(site: Site) -> None:
    site.exchange.account("once", USD="100000")
    key = site.exchange.key("once")
    wanted = order(Side.BUY, 10, 100_000, client_order_id=77)
    token, _ = site.log_on(key)
    status, first = _submit(site, key, token, 1_000, wanted)
    assert status == 200, first
    status, again = _submit(site, key, token, 1_001, wanted)
    assert (status, again["nonce"]) == (200, "1000")
    assert again["outcomes"] == [first["outcomes"][0] | {"duplicate": True}]
    status, problem = _submit(site, key, token, 1_002, order(Side.BUY, 11, 100_000, client_order_id=77))
    assert (status, problem["code"], problem["field"]) == (409, "CLIENT_ORDER_ID_REUSED", "client_order_id")

    _restart(site)
    token, _ = site.log_on(key)
    status, later = _submit(site, key, token, 1_003, wanted)
    assert (status, later) == (200, again)
    status, problem = _submit(site, key, token, 1_004, order(Side.SELL, 10, 100_000, client_order_id=77))
    assert (status, problem["code"]) == (409, "CLIENT_ORDER_ID_REUSED")
    assert len(site.get("/orders", token)["orders"]) == 1
