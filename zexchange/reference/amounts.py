"""Amounts (docs/rules.md section 1): what a fill is worth, what it costs, what an open order holds.

Amounts are whole base units of an asset.
"""

from __future__ import annotations

from zexchange.genesis import Market as MarketDefinition
from zexchange.wire.messages import Side

__all__ = [
    "credited_asset",
    "discounted_ppm",
    "fee",
    "held_asset",
    "notional",
    "order_hold",
    "rebate",
    "unit_hold",
]

PPM = 1_000_000


def ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def notional(market: MarketDefinition, price_ticks: int, qty_lots: int) -> int:
    """Base units of the quote asset that so many lots at this price are worth."""
    return price_ticks * qty_lots * market.quote_units_per_tick_lot


def fee(market: MarketDefinition, price_ticks: int, qty_lots: int, ppm: int) -> int:
    """Fee of one side of one fill in base units of the quote asset, rounded up."""
    return ceil_div(notional(market, price_ticks, qty_lots) * ppm, PPM)


def discounted_ppm(ppm: int, discount_ppm: int) -> int:
    """What is left of a fee, in parts per million rounded up, for an account with this discount."""
    return ceil_div(ppm * (PPM - discount_ppm), PPM)


def rebate(market: MarketDefinition, price_ticks: int, qty_lots: int, taker_fee: int) -> int:
    """What a market with a negative maker fee pays the maker of a fill: rounded down, never above the taker's fee."""
    return min(notional(market, price_ticks, qty_lots) * -market.maker_fee_ppm // PPM, taker_fee)


def unit_hold(market: MarketDefinition, price_ticks: int) -> int:
    """Base units of the quote asset that a buy order holds for each open lot: price and worst fee."""
    lot_notional = price_ticks * market.quote_units_per_tick_lot
    worst_ppm = max(market.maker_fee_ppm, market.taker_fee_ppm)
    return lot_notional + ceil_div(lot_notional * worst_ppm, PPM)


def order_hold(market: MarketDefinition, side: Side, price_ticks: int, leaves_lots: int) -> int:
    """What an open order holds: of the quote asset if it buys, of the base asset if it sells."""
    if side is Side.BUY:
        return leaves_lots * unit_hold(market, price_ticks)
    return leaves_lots * market.base_units_per_lot


def held_asset(market: MarketDefinition, side: Side) -> int:
    return market.quote_asset_id if side is Side.BUY else market.base_asset_id


def credited_asset(market: MarketDefinition, side: Side) -> int:
    return market.base_asset_id if side is Side.BUY else market.quote_asset_id
