"""The built page in front of a running exchange: webapp/ui/tests/live, run from here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import MARKET, Exchange
from tests.webapp.test_page import CHROMIUM, built, missing, run
from zexchange.runtime.running import RunningExchange

__all__ = ["built"]


def make_market(exchange: Exchange) -> None:
    """A last trade at 50,000, and orders of one account on both sides."""
    exchange.account("maker", BTC="100", USD="10000000")
    exchange.account("other", BTC="1", USD="100000")
    with exchange.client("maker") as maker, exchange.client("other") as other:
        maker.sell(MARKET, "0.1", "50000")
        other.buy(MARKET, "0.1", "50000")
        for step in range(1, 21):
            maker.sell(MARKET, "1", str(50_000 + step * 5))
            maker.buy(MARKET, "1", str(50_000 - step * 5))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_page_in_front_of_an_exchange(built: dict[str, str], tmp_path: Path) -> None:
    if CHROMIUM is None:
        missing("no Chromium: apt-get install -y chromium")
    with RunningExchange(tmp_path / "data", settings={"web.enabled": "true"}) as running:
        exchange = Exchange(running)
        make_market(exchange)
        info = running.info
        assert info.web is not None
        assert info.admin is not None
        where = {
            "ZX_LIVE_WEB": f"http://localhost:{info.web.port}",
            "ZX_LIVE_ADMIN": f"http://127.0.0.1:{info.admin.port}",
            "ZX_LIVE_DATA": str(exchange.data),
        }
        run(["npm", "run", "--silent", "test:live"], {**built, **where, "CHROMIUM": CHROMIUM or ""}, 380)
