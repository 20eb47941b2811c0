"""Integers of the exchange as decimal strings and as times of day, exactly and quickly. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from zexchange.genesis import Asset, Market

_BILLION = 1_000_000_000


def scaled(value: int, digits: int) -> str:
    """`value` / 10^`digits` with exactly so many decimals."""
    if digits == 0:
        return str(value)
    sign, text = ("-", str(-value)) if value < 0 else ("", str(value))
    text = text.rjust(digits + 1, "0")
    return f"{sign}{text[:-digits]}.{text[-digits:]}"


def rfc3339(time_ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC, with nine digits of a second."""
    seconds, rest = divmod(time_ns, _BILLION)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


class Step:
    """Multiples of a tick or lot size as decimals."""

    __slots__ = ("digits", "size")

    def __init__(self, step: Decimal) -> None:
        _, digits, exponent = step.as_tuple()
        assert isinstance(exponent, int), "a size is finite"
        self.digits = max(0, -exponent)
        """Decimals."""
        # By hand: a tick may have more digits than the context of decimals keeps.
        self.size = int("".join(map(str, digits))) * 10 ** max(0, exponent)
        """In units of the last decimal."""

    def text(self, multiples: int) -> str:
        return scaled(multiples * self.size, self.digits)


class Units:
    """How the numbers of one market are written."""

    __slots__ = ("base", "market", "price", "quantity", "quote")

    def __init__(self, market: Market, assets: Mapping[int, Asset]) -> None:
        self.market = market
        self.base = assets[market.base_asset_id]
        self.quote = assets[market.quote_asset_id]
        self.price = Step(market.tick_size)
        self.quantity = Step(market.lot_size)

    def quote_amount(self, units: int) -> str:
        """Base units of the quote asset."""
        return scaled(units, self.quote.decimals)

    def notional(self, ticks_times_lots: int) -> str:
        """A sum of price ticks times quantity lots, in the quote asset."""
        return scaled(ticks_times_lots * self.market.quote_units_per_tick_lot, self.quote.decimals)
