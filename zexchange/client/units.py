"""Decimals of people to integers of the exchange, and back, exactly.

The exchange knows ticks, lots and base units. Everything here is exact: a decimal that is not a whole number of them
is refused with the reason's own exception, never rounded. Floats are refused, because ``0.1`` is not a tenth.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import TYPE_CHECKING, TypeAlias

from zexchange.client.rejections import (
    AmountOutOfRange,
    AmountTooPrecise,
    PriceOffTick,
    PriceTicksOutOfRange,
    QtyLotsOutOfRange,
    QuantityOffLot,
)
from zexchange.limits import AMOUNT_MAX, PRICE_TICKS_MAX, QTY_LOTS_MAX

if TYPE_CHECKING:
    from zexchange.genesis import Asset, Market

__all__ = [
    "DecimalLike",
    "amount_to_units",
    "lots_to_quantity",
    "price_to_ticks",
    "quantity_to_lots",
    "ticks_to_price",
    "to_decimal",
    "units_to_amount",
]

DecimalLike: TypeAlias = Decimal | str | int

# 2^64 base units times any tick, lot or decimals of a genesis file have far fewer digits than this. Whatever does not
# fit raises Inexact instead of being rounded.
_EXACT = Context(prec=100, Emax=999, Emin=-999, traps=[Inexact, InvalidOperation])


def to_decimal(value: DecimalLike, name: str = "value") -> Decimal:
    """`value` as a finite decimal. Raises TypeError for floats and other types, ValueError for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (Decimal, str, int)):
        raise TypeError(
            f"{name} must be a Decimal, a string or an int, not {type(value).__name__}: {value!r}"
        )
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{name} is not a decimal number: {value!r}") from None
    if not number.is_finite():
        raise ValueError(f"{name} must be finite: {value!r}")
    return number


def price_to_ticks(market: Market, price: DecimalLike) -> int:
    """A price in quote per base as ticks of `market`. Raises PriceOffTick, PriceTicksOutOfRange."""
    ticks = _whole(to_decimal(price, "price"), market.tick_size)
    if ticks is None:
        raise PriceOffTick(
            detail=f"price {price} is not a multiple of {market.symbol}'s tick size {market.tick_size}"
        )
    if not 1 <= ticks <= PRICE_TICKS_MAX:
        raise PriceTicksOutOfRange(
            detail=f"price {price} is outside {market.tick_size} to {PRICE_TICKS_MAX} ticks of {market.symbol}"
        )
    return ticks


def ticks_to_price(market: Market, price_ticks: int) -> Decimal:
    """Ticks as a price, with as many decimals as the tick size has."""
    return _EXACT.multiply(market.tick_size, Decimal(price_ticks))


def quantity_to_lots(market: Market, quantity: DecimalLike) -> int:
    """A quantity of the base asset as lots of `market`. Raises QuantityOffLot, QtyLotsOutOfRange."""
    lots = _whole(to_decimal(quantity, "quantity"), market.lot_size)
    if lots is None:
        raise QuantityOffLot(
            detail=f"quantity {quantity} is not a multiple of {market.symbol}'s lot size {market.lot_size}"
        )
    if not 1 <= lots <= QTY_LOTS_MAX:
        raise QtyLotsOutOfRange(
            detail=f"quantity {quantity} is outside {market.lot_size} to {QTY_LOTS_MAX} lots of {market.symbol}"
        )
    return lots


def lots_to_quantity(market: Market, qty_lots: int) -> Decimal:
    """Lots as a quantity, with as many decimals as the lot size has."""
    return _EXACT.multiply(market.lot_size, Decimal(qty_lots))


def amount_to_units(asset: Asset, amount: DecimalLike) -> int:
    """An amount of `asset` as base units. Raises AmountTooPrecise, AmountOutOfRange."""
    units = _whole(to_decimal(amount, "amount"), Decimal(1).scaleb(-asset.decimals))
    if units is None:
        raise AmountTooPrecise(
            detail=f"amount {amount} has more than {asset.symbol}'s {asset.decimals} decimals"
        )
    if not 1 <= units <= AMOUNT_MAX:
        raise AmountOutOfRange(
            detail=f"amount {amount} {asset.symbol} is outside 1 to {AMOUNT_MAX} base units"
        )
    return units


def units_to_amount(asset: Asset, units: int) -> Decimal:
    """Base units as an amount, with as many decimals as the asset has."""
    return _EXACT.multiply(Decimal(1).scaleb(-asset.decimals), Decimal(units))


def _whole(value: Decimal, step: Decimal) -> int | None:
    """How many `step` make up `value`, or None if that is no whole number (or has absurdly many digits)."""
    # An exponent of a million is a legal decimal; the shortcut keeps it from becoming an integer of a million digits.
    if value and abs(value.adjusted()) > 60:
        return None if value.adjusted() < 0 else AMOUNT_MAX + 1
    try:
        quotient = _EXACT.divide(value, step)
    except (Inexact, InvalidOperation):
        return None
    return int(quotient) if quotient == quotient.to_integral_value() else None
