"""Assets and markets that are added, or change their sizes, while clients are connected."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.unit.client.fake_exchange import ALICE, BOB, OPERATOR, Served, funded
from zexchange.client import (
    Client,
    Deposited,
    Fill,
    MarketClosed,
    NewOrder,
    OrderUpdate,
    QuantityOffLot,
    Rejected,
    UnknownMarket,
)
from zexchange.client.rejections import (
    AssetExists,
    MarketExists,
    MarketNotClosed,
    MarketNotEmpty,
    SizesChanged,
    SizesInvalid,
    SymbolInUse,
    SymbolInvalid,
    UnknownAsset,
)
from zexchange.wire.messages import DefinitionsRequest


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as served:
        funded(served.exchange, ALICE, BOB)
        yield served


def client_of(served: Served, key: object) -> Client:
    return Client(key=key, connector=served.connector)  # type: ignore[arg-type]


def test_a_market_that_was_added_is_traded_by_who_is_connected(served: Served) -> None:
    with client_of(served, OPERATOR) as operator, client_of(served, ALICE) as alice:
        (added,) = operator.add_asset("GOLD", 2)
        assert (added.asset_id, added.asset) == (4, "GOLD")
        operator.deposit(1, "GOLD", "12.5")
        event = next(alice.events(timeout_ms=5_000))
        assert isinstance(event, Deposited), "an event of an asset that was not known is not lost"
        assert (event.asset, event.amount) == ("GOLD", Decimal("12.5"))
        market = operator.add_market(
            "GOLD-USD", "GOLD", "USD", tick_size="0.05", lot_size="0.1", taker_fee_ppm=500
        )
        assert (market.market_id, market.market, market.shard) == (3, "GOLD-USD", 0)
        assert alice.sell("GOLD-USD", "1.5", "1800.05").status == "open"
        with client_of(served, BOB) as bob:
            assert [one.symbol for one in bob.markets] == ["BTC-USD", "AAPL-USD", "GOLD-USD"]
            assert bob.market("GOLD-USD").tick_size == Decimal("0.05")
            assert bob.buy("GOLD-USD", "0.5", "1801").filled == Decimal("0.5")
            assert [trade.price for trade in bob.trades("GOLD-USD")] == [Decimal("1800.05")]
            assert bob.book("GOLD-USD").asks[0].quantity == Decimal("1.0")
        assert {row.asset: row.available for row in alice.balances()}["GOLD"] == Decimal("11")


def test_events_of_a_market_that_another_session_of_the_account_trades(served: Served) -> None:
    with client_of(served, OPERATOR) as operator, client_of(served, ALICE) as watching:
        operator.add_market("AAPL-BTC", "AAPL", "BTC", tick_size="0.00000001", lot_size="1")
        with client_of(served, ALICE) as alice:
            alice.sell("AAPL-BTC", 3, "0.002")
            alice.sell("BTC-USD", "1", "64000")
        first, second = (next(watching.events(timeout_ms=5_000)) for _ in range(2))
        assert isinstance(first, OrderUpdate)
        assert isinstance(second, OrderUpdate)
        assert (first.market, first.price, first.quantity) == ("AAPL-BTC", Decimal("0.002"), Decimal(3))
        assert second.market == "BTC-USD"


def test_a_market_may_begin_closed(served: Served) -> None:
    with client_of(served, OPERATOR) as operator, client_of(served, ALICE) as alice:
        operator.add_market("AAPL-BTC", "AAPL", "BTC", tick_size="1", lot_size="1", state="closed")
        with pytest.raises(MarketClosed):
            alice.sell("AAPL-BTC", 3, 1)
        operator.set_market_state("AAPL-BTC", "continuous")
        assert alice.sell("AAPL-BTC", 3, 1).status == "open"


def test_what_cannot_be_added(served: Served) -> None:
    with client_of(served, OPERATOR) as operator:
        assert operator.add_asset("USD", 6) == [], "it is there: nothing to do"
        for wrong, kind in (
            (lambda: operator.add_asset("USD", 5), SymbolInUse),
            (lambda: operator.add_asset("USD", 6, asset_id=9), SymbolInUse),
            (lambda: operator.add_asset("GOLD", 6, asset_id=1), AssetExists),
            (lambda: operator.add_asset("gold", 6), SymbolInvalid),
            (lambda: operator.add_asset("G" * 33, 6), SymbolInvalid),
            (lambda: add(operator, "BTC-USD"), SymbolInUse),
            (lambda: add(operator, market_id=2), MarketExists),
            (lambda: add(operator, base="GOLD"), UnknownAsset),
            (lambda: add(operator, tick_size="0.0000001"), SizesInvalid),
            (lambda: add(operator, lot_size="0"), SizesInvalid),
        ):
            with pytest.raises(kind):
                wrong()
        assert len(operator.markets) == 2


def add(operator: Client, market: str = "AAPL-BTC", base: str = "AAPL", **changed: object) -> None:
    values: dict[str, object] = {"tick_size": "1", "lot_size": "1"} | changed
    operator.add_market(market, base, "BTC" if base != "AAPL" else "USD", **values)  # type: ignore[arg-type]


def test_other_sizes(served: Served) -> None:
    """Nobody's order means another price than was meant, whether or not its sender has heard."""
    with (
        client_of(served, OPERATOR) as operator,
        client_of(served, ALICE) as alice,
        client_of(served, ALICE) as watching,
    ):
        order = alice.sell("BTC-USD", "1", "64000")
        with pytest.raises(MarketNotClosed):
            operator.set_market_sizes("BTC-USD", tick_size="0.5", lot_size="0.01")
        operator.set_market_state("BTC-USD", "closed")
        with pytest.raises(MarketNotEmpty):
            operator.set_market_sizes("BTC-USD", tick_size="0.5", lot_size="0.01")
        alice.cancel(order_id=order.order_id)
        operator.set_market_sizes("BTC-USD", tick_size="0.5", lot_size="0.01")
        assert operator.market("BTC-USD").lot_size == Decimal("0.01")
        operator.set_market_state("BTC-USD", "continuous")
        (outcome,) = alice.submit([NewOrder(market="BTC-USD", side="sell", quantity=1, price=64000)])
        assert isinstance(outcome, SizesChanged)
        order = alice.sell("BTC-USD", "1", "64000")
        assert (order.price, order.quantity) == (Decimal(64000), Decimal(1))
        assert alice.amend(order.order_id, price="64000.5").price == Decimal("64000.5")
        with client_of(served, BOB) as bob:
            bob.buy("BTC-USD", "0.25", "64000.5")
            operator.set_market_state("BTC-USD", "closed")
            alice.cancel_all()
            operator.set_market_sizes("BTC-USD", tick_size="0.1", lot_size="0.05")
            operator.set_market_state("BTC-USD", "continuous")
            assert bob.buy("BTC-USD", "0.05", "63000.1").price == Decimal("63000.1"), "tried again by itself"
            with pytest.raises(QuantityOffLot):
                bob.buy("BTC-USD", "0.01", "63000.1")
        told = [event for event in watching.events(timeout_ms=1_000) if isinstance(event, OrderUpdate | Fill)]
        assert [type(event).__name__ for event in told] == [*["OrderUpdate"] * 5, "Fill", "OrderUpdate"]
        fill = next(event for event in told if isinstance(event, Fill))
        assert isinstance(fill, Fill)
        assert (fill.price, fill.quantity) == (Decimal("64000.5"), Decimal("0.25"))


def test_unknown_stays_unknown(served: Served) -> None:
    with client_of(served, ALICE) as alice:
        with pytest.raises(UnknownMarket):
            alice.buy("XRP-USD", 1, 1)
        asked = [one for one in served.exchange.connections[-1].seen if isinstance(one, DefinitionsRequest)]
        assert len(asked) == 2, "at logon, and before it counts as unknown"
        assert issubclass(UnknownMarket, Rejected)
