"""The typed commands of the SDK as commands of the wire, checked against the markets and assets that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar, assert_never

from zexchange.client.errors import MarketNeeded
from zexchange.client.rejections import UnknownAsset, UnknownMarket
from zexchange.client.types import AmendOrder, CancelAll, CancelOrder, Command, NewOrder, SideName
from zexchange.client.units import DecimalLike, amount_to_units, price_to_ticks, quantity_to_lots
from zexchange.limits import PPM
from zexchange.wire.messages import Command as WireCommand
from zexchange.wire.messages import (
    CommandKind,
    OrderOptions,
    OrderType,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Trigger,
)

if TYPE_CHECKING:
    from zexchange.definitions import Definitions
    from zexchange.genesis import Asset, Genesis, Market

__all__ = ["Catalogue", "side_of", "wire_command"]

T = TypeVar("T")

_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_TIMES_IN_FORCE = {one.name.lower(): one for one in TimeInForce if one}
_TRIGGERS = {one.name.lower(): one for one in Trigger if one}
_PREVENTIONS = {one.name.lower(): one for one in SelfTradePrevention if one}
_ORDER_TYPES = {"limit": OrderType.LIMIT, "market": OrderType.MARKET}
_OPTIONS = {
    "post_only": OrderOptions.POST_ONLY,
    "slide": OrderOptions.SLIDE,
    "hidden": OrderOptions.HIDDEN,
    "on_reference": OrderOptions.ON_REFERENCE,
    "oco_with_previous": OrderOptions.OCO_WITH_PREVIOUS,
}
_ID_MAX = 2**64 - 1


class Catalogue:
    """Markets and assets of a deployment, by symbol and by id. One that is not known may have been added meanwhile."""

    def __init__(
        self, genesis: Genesis, definitions: Definitions, refresh: Callable[[], None] = lambda: None
    ) -> None:
        """`refresh` is called to learn what is new, before something counts as unknown."""
        self.genesis = genesis
        self._definitions = definitions
        self._refresh = refresh

    @property
    def markets(self) -> tuple[Market, ...]:
        return tuple(self._definitions.markets.values())

    @property
    def assets(self) -> tuple[Asset, ...]:
        return tuple(self._definitions.assets.values())

    def market(self, key: str | int) -> Market:
        """The market with this symbol or id. Raises UnknownMarket."""
        found = self._definitions.market(key)
        if found is None:
            self._refresh()
            found = self._definitions.market(key)
        if found is None:
            raise UnknownMarket(detail=f"{key!r} is none of {_some(one.symbol for one in self.markets)}")
        return found

    def sized(self, market_id: int, sizes_no: int) -> Market:
        """The market as of some sizes; as it is now if it is not known with them. Raises UnknownMarket."""
        return self._definitions.sized(market_id, sizes_no % 256) or self.market(market_id)

    def asset(self, key: str | int) -> Asset:
        """The asset with this symbol or id. Raises UnknownAsset."""
        found = self._definitions.asset(key)
        if found is None:
            self._refresh()
            found = self._definitions.asset(key)
        if found is None:
            raise UnknownAsset(detail=f"{key!r} is none of {_some(one.symbol for one in self.assets)}")
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
                self_trade_prevention=_prevention(command.self_trade_prevention),
                options=_options(command),
                trigger=Trigger.NONE if command.trigger is None else _trigger(command.trigger),
                sizes_no=market.sizes_no % 256,
                market_id=market.market_id,
                client_order_id=_id(command.client_order_id, "client_order_id"),
                price_ticks=_price(market, command),
                qty_lots=quantity_to_lots(market, command.quantity),
                display_qty_lots=_lots(market, command.display),
                min_qty_lots=_lots(market, command.min_quantity),
                max_notional=_notional(catalogue, market, command.max_notional),
                expire_time_ns=_id(command.expire_time_ns, "expire_time_ns"),
                trigger_ticks=_trigger_ticks(market, command.trigger_price, command.trail),
                trail_ppm=_ppm(command.trail_ppm),
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
            names = ("price", "quantity", "display", "trigger_price", "trail", "trail_ppm", "expire_time_ns")
            if all(getattr(command, name) is None for name in names):
                raise ValueError(f"an amend changes something: {', '.join(names)}")
            if command.market is None:
                raise MarketNeeded("an amend in a batch names its market: price and quantity depend on it")
            market = catalogue.market(command.market)
            return market.shard, WireCommand(
                kind=CommandKind.AMEND,
                self_trade_prevention=_prevention(command.self_trade_prevention),
                options=_options(command),
                sizes_no=market.sizes_no % 256,
                market_id=market.market_id,
                order_id=order_id,
                client_order_id=client_order_id,
                price_ticks=0 if command.price is None else price_to_ticks(market, command.price),
                qty_lots=_lots(market, command.quantity),
                display_qty_lots=_lots(market, command.display),
                expire_time_ns=_id(command.expire_time_ns, "expire_time_ns"),
                trigger_ticks=_trigger_ticks(market, command.trigger_price, command.trail),
                trail_ppm=_ppm(command.trail_ppm),
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


def _prevention(name: str) -> SelfTradePrevention:
    return _choice(_PREVENTIONS, name, "self_trade_prevention")


def _trigger(name: str) -> Trigger:
    return _choice(_TRIGGERS, name, "trigger")


def _options(command: NewOrder | AmendOrder) -> OrderOptions:
    options = OrderOptions.NONE
    for name, option in _OPTIONS.items():
        if getattr(command, name, False):
            options |= option
    return options


def _price(market: Market, command: NewOrder) -> int:
    """The price in ticks; 0 for a market buy that has a maximum notional instead."""
    if command.price is not None:
        return price_to_ticks(market, command.price)
    if command.max_notional is None:
        raise ValueError("an order needs a price; only a market buy with max_notional can do without")
    return 0


def _lots(market: Market, quantity: DecimalLike | None) -> int:
    return 0 if quantity is None else quantity_to_lots(market, quantity)


def _notional(catalogue: Catalogue, market: Market, amount: DecimalLike | None) -> int:
    return 0 if amount is None else amount_to_units(catalogue.asset(market.quote_asset_id), amount)


def _trigger_ticks(market: Market, trigger_price: DecimalLike | None, trail: DecimalLike | None) -> int:
    """A trigger price, or the distance of a trailing order, in ticks."""
    if trigger_price is not None and trail is not None:
        raise ValueError("trail is for trailing orders, and trigger_price for the others")
    price = trigger_price if trail is None else trail
    return 0 if price is None else price_to_ticks(market, price)


def _ppm(value: int | None) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"trail_ppm must be an int, not {type(value).__name__}")
    if not 1 <= value < PPM:
        raise ValueError(f"trail_ppm must be in 1 to {PPM - 1}, not {value}")
    return value


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
