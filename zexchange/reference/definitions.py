"""Assets and markets of a shard (docs/rules.md section 8): what they are, and how they are added and changed."""

from __future__ import annotations

import re

from msgspec import structs

from zexchange import limits
from zexchange.genesis import SYMBOL_PATTERN, Asset, decode_symbol, encode_symbol, sizes_of
from zexchange.genesis import Market as MarketDefinition
from zexchange.reference.reports import Rejection
from zexchange.reference.state import Balance, Market, State
from zexchange.wire.messages import MarketState, OperatorCommand, ReasonCode

__all__ = [
    "add_asset",
    "add_market",
    "fees_are_sound",
    "read_asset",
    "read_market",
    "set_market_sizes",
    "symbol_of",
]


def symbol_of(field: bytes) -> str | None:
    """The symbol in a field of 32 bytes; None if it is none."""
    try:
        symbol = decode_symbol(field)
    except ValueError:
        return None
    if re.fullmatch(SYMBOL_PATTERN, symbol) is None or encode_symbol(symbol) != field:
        return None
    return symbol


def fees_are_sound(maker_fee_ppm: int, taker_fee_ppm: int) -> bool:
    return -taker_fee_ppm <= maker_fee_ppm <= limits.FEE_PPM_MAX and taker_fee_ppm <= limits.FEE_PPM_MAX


def add_asset(state: State, command: OperatorCommand) -> None:
    """Raises Rejection, and then nothing has changed."""
    asset = read_asset(state, command.asset_id, command.symbol, command.decimals)
    state.assets[asset.asset_id] = asset
    state.supply[asset.asset_id] = 0


def read_asset(state: State, asset_id: int, symbol_field: bytes, decimals: int) -> Asset:
    """An asset that can be added. Raises Rejection."""
    if asset_id == 0:
        raise Rejection(ReasonCode.ID_INVALID)
    if asset_id in state.assets:
        raise Rejection(ReasonCode.ASSET_EXISTS)
    symbol = symbol_of(symbol_field)
    if symbol is None:
        raise Rejection(ReasonCode.SYMBOL_INVALID)
    if any(asset.symbol == symbol for asset in state.assets.values()):
        raise Rejection(ReasonCode.SYMBOL_IN_USE)
    if decimals > limits.ASSET_DECIMALS_MAX:
        raise Rejection(ReasonCode.DECIMALS_INVALID)
    if len(state.assets) >= state.genesis.assets_max:
        raise Rejection(ReasonCode.ASSET_LIMIT)
    return Asset(asset_id=asset_id, symbol=symbol, decimals=decimals)


def add_market(state: State, command: OperatorCommand) -> Market:
    """The new market, which is closed. Raises Rejection, and then nothing has changed."""
    definition = read_market(
        state,
        command.market_id,
        command.symbol,
        (command.asset_id, command.quote_asset_id),
        (command.base_units_per_lot, command.quote_units_per_tick_lot),
        (command.maker_fee_ppm, command.taker_fee_ppm),
    )
    market = Market(definition, state=MarketState.CLOSED, defined_record_no=state.next_record_no)
    state.markets[command.market_id] = market
    state.accounts[limits.OPERATOR_ACCOUNT_ID].balances.setdefault(definition.quote_asset_id, Balance())
    return market


def read_market(
    state: State,
    market_id: int,
    symbol_field: bytes,
    assets: tuple[int, int],
    units: tuple[int, int],
    fees: tuple[int, int],
) -> MarketDefinition:
    """A market that can be added; pairs are base and quote, maker and taker. Raises Rejection."""
    if market_id == 0:
        raise Rejection(ReasonCode.ID_INVALID)
    if market_id in state.markets:
        raise Rejection(ReasonCode.MARKET_EXISTS)
    symbol = symbol_of(symbol_field)
    if symbol is None:
        raise Rejection(ReasonCode.SYMBOL_INVALID)
    if any(market.definition.symbol == symbol for market in state.markets.values()):
        raise Rejection(ReasonCode.SYMBOL_IN_USE)
    if not all(asset_id in state.assets for asset_id in assets):
        raise Rejection(ReasonCode.UNKNOWN_ASSET)
    base, quote = (state.assets[asset_id] for asset_id in assets)
    if base is quote:
        raise Rejection(ReasonCode.MARKET_ASSETS_INVALID)
    sizes = sizes_of(base, quote, *units)
    if sizes is None:
        raise Rejection(ReasonCode.SIZES_INVALID)
    if not fees_are_sound(*fees):
        raise Rejection(ReasonCode.FEES_INVALID)
    if len(state.markets) >= state.genesis.markets_max(state.shard):
        raise Rejection(ReasonCode.MARKET_LIMIT)
    fee_balances = state.accounts[limits.OPERATOR_ACCOUNT_ID].balances
    if quote.asset_id not in fee_balances and state.balance_pool_is_full():
        raise Rejection(ReasonCode.BALANCE_POOL_FULL)
    return MarketDefinition(
        market_id=market_id,
        symbol=symbol,
        base_asset_id=base.asset_id,
        quote_asset_id=quote.asset_id,
        tick_size=sizes[0],
        lot_size=sizes[1],
        base_units_per_lot=units[0],
        quote_units_per_tick_lot=units[1],
        maker_fee_ppm=fees[0],
        taker_fee_ppm=fees[1],
        shard=state.shard,
    )


def set_market_sizes(state: State, market: Market, command: OperatorCommand) -> None:
    """Raises Rejection, and then nothing has changed.

    Prices and quantities from before would mean something else: nothing that counts ticks or lots is kept.
    """
    if market.state is not MarketState.CLOSED:
        raise Rejection(ReasonCode.MARKET_NOT_CLOSED)
    if not market.is_empty:
        raise Rejection(ReasonCode.MARKET_NOT_EMPTY)
    units = command.base_units_per_lot, command.quote_units_per_tick_lot
    definition = with_sizes(state, market.definition, units)
    if definition is None:
        raise Rejection(ReasonCode.SIZES_INVALID)
    market.definition = structs.replace(definition, sizes_no=definition.sizes_no + 1)
    market.defined_record_no = state.next_record_no
    market.last_ticks = market.reference_ticks = market.qty_lots_max = 0


def with_sizes(state: State, definition: MarketDefinition, units: tuple[int, int]) -> MarketDefinition | None:
    """The market with these base units per lot and quote units per tick and lot; None if they cannot be."""
    sizes = sizes_of(state.assets[definition.base_asset_id], state.assets[definition.quote_asset_id], *units)
    if sizes is None:
        return None
    return structs.replace(
        definition,
        tick_size=sizes[0],
        lot_size=sizes[1],
        base_units_per_lot=units[0],
        quote_units_per_tick_lot=units[1],
    )
