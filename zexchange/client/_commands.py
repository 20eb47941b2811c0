"""The typed commands of the SDK as commands of the wire, checked against the genesis file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar, assert_never

from zexchange.client.errors import MarketNeeded
from zexchange.client.rejections import UnknownAsset, UnknownMarket
from zexchange.client.types import AmendOrder, CancelAll, CancelOrder, Command, NewOrder, SideName
from zexchange.client.units import price_to_ticks, quantity_to_lots
from zexchange.wire.messages import Command as WireCommand
from zexchange.wire.messages import (
    CommandKind,
    OrderOptions,
    OrderType,
    SelfTradePrevention,
    Side,
    TimeInForce,
)

if TYPE_CHECKING:
    from zexchange.genesis import Asset, Genesis, Market

__all__ = ["Catalogue", "side_of", "wire_command"]

T = TypeVar("T")

_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_TIMES_IN_FORCE = {"gtc": TimeInForce.GTC, "ioc": TimeInForce.IOC, "fok": TimeInForce.FOK}
_ORDER_TYPES = {"limit": OrderType.LIMIT, "market": OrderType.MARKET}
_ID_MAX = 2**64 - 1


class Catalogue:
    """Markets and assets of a deployment, by symbol and by id: a genesis may have tens of thousands of them."""

    def __init__(self, genesis: Genesis) -> None:
        self.genesis = genesis
        self._markets: dict[str | int, Market] = {}
        self._assets: dict[str | int, Asset] = {}
        for market in genesis.markets:
            self._markets[market.symbol] = self._markets[market.market_id] = market
        for asset in genesis.assets:
            self._assets[asset.symbol] = self._assets[asset.asset_id] = asset

    def market(self, key: str | int) -> Market:
        """The market with this symbol or id. Raises UnknownMarket."""
        found = self._markets.get(key)
        if found is None:
            raise UnknownMarket(
                detail=f"{key!r} is none of {_some(market.symbol for market in self.genesis.markets)}"
            )
        return found

    def asset(self, key: str | int) -> Asset:
        """The asset with this symbol or id. Raises UnknownAsset."""
        found = self._assets.get(key)
        if found is None:
            raise UnknownAsset(
                detail=f"{key!r} is none of {_some(asset.symbol for asset in self.genesis.assets)}"
            )
        return found

    def shard_of(self, market: str | None) -> int:
        """The shard of a market; without one, the only shard. Raises MarketNeeded if there are several."""
        if market is not None:
            return self.market(market).shard
        if self.genesis.shards != 1:
            raise MarketNeeded(
                "the deployment has several shards and order ids are per shard: name the market too"
            )
        return 0


def wire_command(catalogue: Catalogue, command: Command) -> tuple[int, WireCommand]:
    """(shard, wire command). Raises TypeError, ValueError and the rejections that the client finds itself."""
    match command:
        case NewOrder():
            market = catalogue.market(command.market)
            return market.shard, WireCommand(
                kind=CommandKind.NEW,
                side=side_of(command.side),
                order_type=_choice(_ORDER_TYPES, command.order_type, "order_type"),
                time_in_force=_choice(_TIMES_IN_FORCE, command.time_in_force, "time_in_force"),
                self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
                options=OrderOptions.POST_ONLY if command.post_only else OrderOptions.NONE,
                market_id=market.market_id,
                client_order_id=_id(command.client_order_id, "client_order_id"),
                price_ticks=price_to_ticks(market, command.price),
                qty_lots=quantity_to_lots(market, command.quantity),
            )
        case CancelOrder():
            order_id, client_order_id = _order_ids(command.order_id, command.client_order_id)
            return catalogue.shard_of(command.market), WireCommand(
                kind=CommandKind.CANCEL,
                market_id=catalogue.market(command.market).market_id if command.market is not None else 0,
                order_id=order_id,
                client_order_id=client_order_id,
            )
        case AmendOrder():
            order_id, client_order_id = _order_ids(command.order_id, command.client_order_id)
            if command.price is None and command.quantity is None:
                raise ValueError("an amend changes the price, the quantity or both")
            if command.market is None:
                raise MarketNeeded("an amend in a batch names its market: price and quantity depend on it")
            market = catalogue.market(command.market)
            return market.shard, WireCommand(
                kind=CommandKind.AMEND,
                self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
                options=OrderOptions.POST_ONLY if command.post_only else OrderOptions.NONE,
                market_id=market.market_id,
                order_id=order_id,
                client_order_id=client_order_id,
                price_ticks=0 if command.price is None else price_to_ticks(market, command.price),
                qty_lots=0 if command.quantity is None else quantity_to_lots(market, command.quantity),
            )
        case CancelAll():
            return catalogue.shard_of(command.market), WireCommand(
                kind=CommandKind.CANCEL_ALL,
                side=Side.NONE if command.side is None else side_of(command.side),
                market_id=catalogue.market(command.market).market_id if command.market is not None else 0,
            )
    assert_never(command)


def side_of(side: SideName) -> Side:
    """The wire's side. Raises ValueError."""
    return _choice(_SIDES, side, "side")


def _choice(choices: dict[str, T], value: str, name: str) -> T:
    try:
        return choices[value]
    except (KeyError, TypeError):
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}") from None


def _id(value: int | None, name: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not 1 <= value <= _ID_MAX:
        raise ValueError(f"{name} must be in 1 to 2^64-1, not {value}")
    return value


def _order_ids(order_id: int | None, client_order_id: int | None) -> tuple[int, int]:
    if order_id is None and client_order_id is None:
        raise ValueError("name the order by order_id or by client_order_id")
    return _id(order_id, "order_id"), _id(client_order_id, "client_order_id")


def _some(names: Iterable[str], most: int = 8) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
