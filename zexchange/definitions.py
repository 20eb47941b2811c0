"""Assets and markets of a deployment as they are now: the genesis file's, and what the operator has added or changed.

A shard knows only its own. What two shards say about one id or symbol should be the same; where it is not, the first
that was learned stands, the genesis file before all: a market and an asset never change their meaning for a client
that knows them.
"""

from __future__ import annotations

from collections.abc import Iterable

from zexchange.genesis import Asset, Genesis, Market, decode_symbol, sizes_of
from zexchange.wire.messages import AssetDefinition, MarketDefinition

__all__ = ["Definitions", "asset_of", "market_of"]


def asset_of(definition: AssetDefinition) -> Asset:
    """An asset as the wire defines it."""
    return Asset(
        asset_id=definition.asset_id,
        symbol=decode_symbol(definition.symbol),
        decimals=definition.decimals,
    )


def market_of(definition: MarketDefinition, base: Asset, quote: Asset, shard: int) -> Market:
    """A market as the wire defines it. ValueError if its amounts make no tick size, which no shard lets happen."""
    sizes = sizes_of(base, quote, definition.base_units_per_lot, definition.quote_units_per_tick_lot)
    if sizes is None:
        raise ValueError(f"market {definition.market_id} has no tick size")
    return Market(
        market_id=definition.market_id,
        symbol=decode_symbol(definition.symbol),
        base_asset_id=base.asset_id,
        quote_asset_id=quote.asset_id,
        tick_size=sizes[0],
        lot_size=sizes[1],
        base_units_per_lot=definition.base_units_per_lot,
        quote_units_per_tick_lot=definition.quote_units_per_tick_lot,
        maker_fee_ppm=definition.maker_fee_ppm,
        taker_fee_ppm=definition.taker_fee_ppm,
        shard=shard,
        sizes_no=definition.sizes_no,
    )


class Definitions:
    """By id and by symbol. Ids are in the order of the genesis file, then of learning."""

    def __init__(self, genesis: Genesis) -> None:
        self.assets: dict[int, Asset] = {asset.asset_id: asset for asset in genesis.assets}
        self.markets: dict[int, Market] = {market.market_id: market for market in genesis.markets}
        self._asset_symbols = {asset.symbol: asset.asset_id for asset in genesis.assets}
        self._market_symbols = {market.symbol: market.market_id for market in genesis.markets}
        self._former: dict[tuple[int, int], Market] = {}
        """By market id and sizes_no modulo 256: markets as they were."""
        self.foreign: set[tuple[int, int]] = set()
        """(shard, market id) of markets that contradict what was known before, and are left out."""

    def market(self, key: str | int) -> Market | None:
        """The market with this symbol or id."""
        market_id = self._market_symbols.get(key) if isinstance(key, str) else key
        return None if market_id is None else self.markets.get(market_id)

    def sized(self, market_id: int, sizes_no: int) -> Market | None:
        """The market with the sizes of this number, modulo 256, if it is known with them."""
        market = self.markets.get(market_id)
        if market is None or market.sizes_no % 256 == sizes_no:
            return market
        return self._former.get((market_id, sizes_no))

    def asset(self, key: str | int) -> Asset | None:
        """The asset with this symbol or id."""
        asset_id = self._asset_symbols.get(key) if isinstance(key, str) else key
        return None if asset_id is None else self.assets.get(asset_id)

    def markets_of(self, shard: int) -> list[Market]:
        return [market for market in self.markets.values() if market.shard == shard]

    def learn(
        self, shard: int, assets: Iterable[AssetDefinition], markets: Iterable[MarketDefinition]
    ) -> list[Market]:
        """Take in what a shard says. Returns the markets that are new or have other sizes than before."""
        for told in assets:
            asset = asset_of(told)
            if asset.asset_id not in self.assets and asset.symbol not in self._asset_symbols:
                self.assets[asset.asset_id] = asset
                self._asset_symbols[asset.symbol] = asset.asset_id
        learned: list[Market] = []
        for one in markets:
            base, quote = self.assets.get(one.base_asset_id), self.assets.get(one.quote_asset_id)
            known = self.markets.get(one.market_id)
            symbol = decode_symbol(one.symbol)
            named = self._market_symbols.get(symbol, one.market_id)
            contradicts = named != one.market_id or (
                known is not None and (known.shard, known.symbol) != (shard, symbol)
            )
            if base is None or quote is None or contradicts:
                self.foreign.add((shard, one.market_id))
                continue
            market = market_of(one, base, quote, shard)
            if market != known:
                if known is not None:
                    self._former[known.market_id, known.sizes_no % 256] = known
                self.markets[market.market_id] = market
                self._market_symbols[symbol] = market.market_id
                learned.append(market)
        return learned
