"""What the API and the feed send, as msgspec structs, and how they are made from the replica. Pure.

Decimals and 64-bit numbers are strings, times RFC 3339 with nanoseconds. Clients ignore fields they do not know.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from webapp.candles import Candle, CandleSet
from webapp.decimals import Units, rfc3339, scaled
from webapp.history import MarketTrade
from zexchange.definitions import Definitions
from zexchange.engine import Engine
from zexchange.engine_types import Depth, MarketTerms, OrderTerms
from zexchange.genesis import Genesis, Market
from zexchange.verification.checkpoint import CheckpointLeaf, SignedCheckpoint
from zexchange.wire.messages import (
    Balance,
    Command,
    ExecType,
    ExecutionReport,
    Level,
    OpenOrder,
    OrderOptions,
    SelfTradePrevention,
    Side,
    Trigger,
)

CHECKSUM_LEVELS = 10
LevelRow = tuple[str, str, int]
"""Price, quantity, orders."""

SIDE_NAMES = {Side.BUY: "buy", Side.SELL: "sell"}


class MarketView(msgspec.Struct, frozen=True, kw_only=True):
    """A market and its rules."""

    market_id: int
    symbol: str
    shard: int
    base_asset_id: int
    quote_asset_id: int
    base: str
    quote: str
    base_decimals: int
    quote_decimals: int
    tick_size: str
    lot_size: str
    base_units_per_lot: str
    quote_units_per_tick_lot: str
    maker_fee_ppm: int
    taker_fee_ppm: int
    sizes_no: int
    """How often tick and lot size have changed; commands name it modulo 256."""
    state: str
    max_qty: str = ""
    """Of an order, as `max_notional` in the quote asset; empty if there is no limit."""
    max_notional: str = ""
    max_open_orders: int = 0
    """Of an account in this market; 0 if there is no limit."""
    dynamic_band_ppm: int = 0
    """How far a trade may be from the last one, and `static_band_ppm` from the reference price; 0 if anywhere."""
    static_band_ppm: int = 0


class AssetView(msgspec.Struct, frozen=True, kw_only=True):
    """An asset; its base unit is 10^-decimals."""

    asset_id: int
    symbol: str
    decimals: int


class TickerView(msgspec.Struct, frozen=True, kw_only=True):
    """A market at a glance; figures of 24 hours are null without a trade."""

    market: str
    last: str | None
    bid: str | None
    ask: str | None
    open_24h: str | None
    high_24h: str | None
    low_24h: str | None
    change_ppm: int | None
    volume_24h: str
    quote_volume_24h: str


class BookView(msgspec.Struct, frozen=True, kw_only=True):
    """The best levels of both sides, best first. `seq` is the number of the last command in it."""

    market: str
    seq: str
    time: str
    bids: Sequence[LevelRow]
    asks: Sequence[LevelRow]
    checksum: int
    state: str = ""
    until: str = ""
    """When the state ends by itself; empty if it does not."""
    reference_price: str = ""
    """The operator's, or empty."""
    indicative_price: str = ""
    """What an auction would trade at now; empty if nothing, or if none is on."""
    indicative_qty: str = ""


class TradeView(msgspec.Struct, frozen=True, kw_only=True):
    """A trade; `side` is the taker's, and empty in an auction."""

    trade_id: str
    market: str
    price: str
    qty: str
    side: str
    time: str
    record_no: str


class CandleView(msgspec.Struct, frozen=True, kw_only=True):
    """One interval, from `time` on."""

    time: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    trades: int


class ShardTipView(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says about a shard; hashes in hex."""

    shard: int
    log_size: str
    log_root: str
    chain: str
    state_root: str


class CheckpointView(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint: `note` is the signed note, `leaf` the base64 of the leaf that it was signed with."""

    number: str
    time: str
    note: str
    leaf: str
    shards: Sequence[ShardTipView]


class OrderView(msgspec.Struct, frozen=True, kw_only=True):
    """An order. `status` is open, filled, cancelled, expired or rejected.

    What it has besides price and quantity is that of now while it is open, and afterwards what it was entered with.
    `type` is empty where that is not known any more."""

    order_id: str
    client_order_id: str
    market: str
    side: str
    price: str
    qty: str
    leaves_qty: str
    cum_qty: str
    status: str
    reason: str = ""
    time: str = ""
    record_no: str = ""
    seq: str = ""
    type: str = ""
    time_in_force: str = ""
    trigger: str = ""
    """What it waits for: stop, take_profit or trailing; of an open order empty once it rests."""
    trigger_price: str = ""
    trail: str = ""
    """Of a trailing order: its distance as a price; empty if it is in `trail_ppm`, in millionths of the price."""
    trail_ppm: int = 0
    on_reference: bool = False
    """It waits for the reference price, not for trades."""
    display_qty: str = ""
    min_qty: str = ""
    max_notional: str = ""
    """Most that it spends, in the quote asset."""
    expire_time: str = ""
    hidden: bool = False
    post_only: bool | None = None
    """As it was entered, like `slide`; null where that is not known any more."""
    slide: bool | None = None
    self_trade_prevention: str = ""
    """cancel_newest, cancel_oldest, cancel_both or decrement; empty where it is not known any more."""
    paired: bool = False
    """One cancels other."""
    pair_order_id: str = ""
    """The other one, while both are open."""


class FillView(msgspec.Struct, frozen=True, kw_only=True):
    """One fill of one of the account's orders; `fee` in the quote asset."""

    trade_id: str
    order_id: str
    client_order_id: str
    market: str
    side: str
    price: str
    qty: str
    fee: str
    liquidity: str
    time: str
    record_no: str
    seq: str


class ShardBalanceView(msgspec.Struct, frozen=True, kw_only=True):
    """What of it is on one shard: orders in its markets can use no other."""

    shard: int
    held: str
    available: str


class BalanceView(msgspec.Struct, frozen=True, kw_only=True):
    """An account's amount of one asset, over all shards."""

    asset_id: int
    asset: str
    total: str
    held: str
    available: str
    shards: Sequence[ShardBalanceView]


class Views:
    """Makes them for one deployment."""

    def __init__(self, genesis: Genesis, definitions: Definitions) -> None:
        self.genesis = genesis
        self._definitions = definitions
        self.units: dict[int, Units] = {}
        self.by_symbol: dict[str, Market] = {}
        self.learned(definitions.markets.values())

    @property
    def markets(self) -> list[Market]:
        """As they are now: those of the genesis file, then those added."""
        return list(self._definitions.markets.values())

    def learned(self, markets: Iterable[Market]) -> None:
        """These are new, or have other sizes."""
        for market in markets:
            self.units[market.market_id] = Units(market, self._definitions.assets)
            self.by_symbol[market.symbol] = market

    def _units_of(self, report: ExecutionReport) -> Units | None:
        """By which the numbers of a report count; None if it is of no market."""
        units = self.units.get(report.market_id)
        if units is None or units.market.sizes_no % 256 == report.sizes_no:
            return units
        former = self._definitions.sized(report.market_id, report.sizes_no)
        return units if former is None else Units(former, self._definitions.assets)

    def market(self, market_id: int, engine: Engine) -> MarketView:
        """As the engine of its shard has it."""
        state, terms = engine.depth(market_id, 0).state, engine.market_terms(market_id)
        units = self.units[market_id]
        market = units.market
        return MarketView(
            market_id=market_id,
            symbol=market.symbol,
            shard=market.shard,
            base_asset_id=market.base_asset_id,
            quote_asset_id=market.quote_asset_id,
            base=units.base.symbol,
            quote=units.quote.symbol,
            base_decimals=units.base.decimals,
            quote_decimals=units.quote.decimals,
            tick_size=f"{market.tick_size:f}",
            lot_size=f"{market.lot_size:f}",
            base_units_per_lot=str(market.base_units_per_lot),
            quote_units_per_tick_lot=str(market.quote_units_per_tick_lot),
            maker_fee_ppm=market.maker_fee_ppm,
            taker_fee_ppm=market.taker_fee_ppm,
            sizes_no=market.sizes_no,
            state=state.name.lower(),
            max_qty=units.quantity.text(terms.qty_lots_max) if terms.qty_lots_max else "",
            max_notional=units.quote_amount(terms.notional_max) if terms.notional_max else "",
            max_open_orders=terms.orders_max,
            dynamic_band_ppm=terms.dynamic_band_ppm,
            static_band_ppm=terms.static_band_ppm,
        )

    def assets(self) -> list[AssetView]:
        return [
            AssetView(asset_id=one.asset_id, symbol=one.symbol, decimals=one.decimals)
            for one in self._definitions.assets.values()
        ]

    def ticker(
        self, market_id: int, depth: Depth, candles: CandleSet, last: int | None, now_ns: int
    ) -> TickerView:
        units = self.units[market_id]
        day = candles.day(now_ns)

        def price(ticks: int | None) -> str | None:
            return None if ticks is None else units.price.text(ticks)

        change = None
        if last is not None and day.open_ticks:
            change = (last - day.open_ticks) * 1_000_000 // day.open_ticks
        return TickerView(
            market=units.market.symbol,
            last=price(last),
            bid=price(depth.bids[0].price_ticks if depth.bids else None),
            ask=price(depth.asks[0].price_ticks if depth.asks else None),
            open_24h=price(day.open_ticks),
            high_24h=price(day.high_ticks),
            low_24h=price(day.low_ticks),
            change_ppm=change,
            volume_24h=units.quantity.text(day.volume_lots),
            quote_volume_24h=units.notional(day.notional),
        )

    def levels(self, market_id: int, levels: Sequence[Level]) -> list[LevelRow]:
        units = self.units[market_id]
        price, quantity = units.price.text, units.quantity.text
        return [(price(one.price_ticks), quantity(one.qty_lots), one.orders) for one in levels]

    def book(self, market_id: int, depth: Depth, terms: MarketTerms, seq: int, time_ns: int) -> BookView:
        bids, asks = self.levels(market_id, depth.bids), self.levels(market_id, depth.asks)
        return BookView(
            market=self.units[market_id].market.symbol,
            seq=str(seq),
            time=rfc3339(time_ns),
            bids=bids,
            asks=asks,
            checksum=checksum(bids, asks),
            **self.phase(market_id, depth, terms),
        )

    def phase(self, market_id: int, depth: Depth, terms: MarketTerms) -> dict[str, str]:
        """What a book has besides levels: the market's state and what goes with it."""
        units = self.units[market_id]
        indicated = depth.indicative_price_ticks
        return {
            "state": depth.state.name.lower(),
            "until": rfc3339(terms.until_ns) if terms.until_ns else "",
            "reference_price": units.price.text(terms.reference_ticks) if terms.reference_ticks else "",
            "indicative_price": units.price.text(indicated) if indicated else "",
            "indicative_qty": units.quantity.text(depth.indicative_qty_lots) if indicated else "",
        }

    def trade(self, market_id: int, one: MarketTrade) -> TradeView:
        units = self.units[market_id]
        return TradeView(
            trade_id=str(one.trade_id),
            market=units.market.symbol,
            price=units.price.text(one.price_ticks),
            qty=units.quantity.text(one.qty_lots),
            side=SIDE_NAMES.get(one.taker_side, ""),
            time=rfc3339(one.time_ns),
            record_no=str(one.record_no),
        )

    def candle(self, market_id: int, one: Candle) -> CandleView:
        units = self.units[market_id]
        price = units.price.text
        return CandleView(
            time=rfc3339(one.begin_s * 1_000_000_000),
            open=price(one.open_ticks),
            high=price(one.high_ticks),
            low=price(one.low_ticks),
            close=price(one.close_ticks),
            volume=units.quantity.text(one.volume_lots),
            trades=one.trades,
        )

    def checkpoint(self, number: int, one: SignedCheckpoint) -> CheckpointView:
        leaf = CheckpointLeaf.decode(one.leaf, number)
        return CheckpointView(
            number=str(number),
            time=rfc3339(leaf.time_ns),
            note=one.note.decode("utf-8"),
            leaf=base64.b64encode(one.leaf).decode("ascii"),
            shards=[
                ShardTipView(
                    shard=tip.shard,
                    log_size=str(tip.log_size),
                    log_root=tip.log_root.hex(),
                    chain=tip.chain.hex(),
                    state_root=tip.state_root.hex(),
                )
                for tip in leaf.shards
            ],
        )

    def open_order(self, one: OpenOrder, terms: OrderTerms, entered: Command | None) -> OrderView:
        """As the engine has it; `entered` is the command that entered it, if that is known."""
        prevention = terms.self_trade_prevention or (entered.self_trade_prevention if entered else 0)
        units = self.units[one.market_id]
        return OrderView(
            order_id=str(one.order_id),
            client_order_id=str(one.client_order_id),
            market=units.market.symbol,
            side=SIDE_NAMES[one.side],
            price=units.price.text(one.price_ticks),
            qty=units.quantity.text(one.qty_lots),
            leaves_qty=units.quantity.text(one.leaves_lots),
            cum_qty=units.quantity.text(one.qty_lots - one.leaves_lots),
            status="open",
            type=one.order_type.name.lower(),
            time_in_force=one.time_in_force.name.lower(),
            trigger=one.trigger.name.lower() if one.trigger else "",
            trigger_price=units.price.text(one.trigger_ticks) if one.trigger_ticks else "",
            trail=units.price.text(terms.trail_ticks) if terms.trail_ticks else "",
            trail_ppm=terms.trail_ppm,
            on_reference=OrderOptions.ON_REFERENCE in one.options,
            display_qty=units.quantity.text(one.display_qty_lots) if one.display_qty_lots else "",
            expire_time=rfc3339(one.expire_time_ns) if one.expire_time_ns else "",
            hidden=OrderOptions.HIDDEN in one.options,
            post_only=None if entered is None else OrderOptions.POST_ONLY in entered.options,
            slide=None if entered is None else OrderOptions.SLIDE in entered.options,
            self_trade_prevention=SelfTradePrevention(prevention).name.lower() if prevention else "",
            paired=OrderOptions.OCO_WITH_PREVIOUS in one.options,
            pair_order_id=str(terms.pair_order_id) if terms.pair_order_id else "",
        )

    def order(self, report: ExecutionReport, entered: Command | None) -> OrderView | None:
        """What a report says about an order, with the terms of the command that entered it; None if about none."""
        units = self._units_of(report)
        status = _order_status(report)
        if units is None or status is None:
            return None
        return OrderView(
            order_id=str(report.order_id),
            client_order_id=str(report.client_order_id),
            market=units.market.symbol,
            side=SIDE_NAMES.get(report.side, ""),
            price=units.price.text(report.price_ticks),
            qty=units.quantity.text(report.qty_lots),
            leaves_qty=units.quantity.text(report.leaves_lots),
            cum_qty=units.quantity.text(report.cum_qty_lots),
            status=status,
            reason="" if report.reason == 0 else report.reason.name,
            time=rfc3339(report.log_time_ns),
            record_no=str(report.record_no),
            seq=str(report.seq),
            **({} if entered is None else _terms(units, entered)),
        )

    def fills(self, reports: Iterable[ExecutionReport]) -> list[FillView]:
        """Of reports of trades; not those in a market whose id another shard had first."""
        return [
            self._fill(report, units) for report in reports if (units := self._units_of(report)) is not None
        ]

    def _fill(self, report: ExecutionReport, units: Units) -> FillView:
        return FillView(
            trade_id=str(report.trade_id),
            order_id=str(report.order_id),
            client_order_id=str(report.client_order_id),
            market=units.market.symbol,
            side=SIDE_NAMES[report.side],
            price=units.price.text(report.last_price_ticks),
            qty=units.quantity.text(report.last_qty_lots),
            fee=units.quote_amount(report.fee),
            liquidity=report.liquidity.name.lower(),
            time=rfc3339(report.log_time_ns),
            record_no=str(report.record_no),
            seq=str(report.seq),
        )

    def balances(self, of_shards: Mapping[int, Sequence[Balance]]) -> list[BalanceView]:
        """Summed over the shards, and of each."""
        by_asset: dict[int, dict[int, Balance]] = {}
        for shard, balances in of_shards.items():
            for one in balances:
                by_asset.setdefault(one.asset_id, {})[shard] = one
        found = []
        for asset_id, on_shards in sorted(by_asset.items()):
            asset = self._definitions.assets.get(asset_id)
            if asset is None:
                continue  # another shard has its symbol for another asset
            available = sum(one.available for one in on_shards.values())
            held = sum(one.held for one in on_shards.values())
            found.append(
                BalanceView(
                    asset_id=asset_id,
                    asset=asset.symbol,
                    total=scaled(available + held, asset.decimals),
                    held=scaled(held, asset.decimals),
                    available=scaled(available, asset.decimals),
                    shards=[
                        ShardBalanceView(
                            shard=shard,
                            held=scaled(one.held, asset.decimals),
                            available=scaled(one.available, asset.decimals),
                        )
                        for shard, one in on_shards.items()
                    ],
                )
            )
        return found


def checksum(bids: Sequence[LevelRow], asks: Sequence[LevelRow]) -> int:
    """CRC-32 over the top ten levels: `price:qty` with commas, bids from the best, `|`, asks from the best."""
    sides = (",".join(f"{row[0]}:{row[1]}" for row in side[:CHECKSUM_LEVELS]) for side in (bids, asks))
    return zlib.crc32("|".join(sides).encode("ascii"))


def _terms(units: Units, entered: Command) -> dict[str, Any]:
    """Of an OrderView: what the command asks for besides price and quantity."""
    price, quantity = units.price.text, units.quantity.text
    trails = entered.trigger is Trigger.TRAILING
    ticks = entered.trigger_ticks
    return {
        "type": entered.order_type.name.lower(),
        "time_in_force": entered.time_in_force.name.lower(),
        "trigger": entered.trigger.name.lower() if entered.trigger else "",
        "trigger_price": price(ticks) if ticks and not trails else "",
        "trail": price(ticks) if ticks and trails else "",
        "trail_ppm": entered.trail_ppm,
        "on_reference": OrderOptions.ON_REFERENCE in entered.options,
        "display_qty": quantity(entered.display_qty_lots) if entered.display_qty_lots else "",
        "min_qty": quantity(entered.min_qty_lots) if entered.min_qty_lots else "",
        "max_notional": units.quote_amount(entered.max_notional) if entered.max_notional else "",
        "expire_time": rfc3339(entered.expire_time_ns) if entered.expire_time_ns else "",
        "hidden": OrderOptions.HIDDEN in entered.options,
        "post_only": OrderOptions.POST_ONLY in entered.options,
        "slide": OrderOptions.SLIDE in entered.options,
        "self_trade_prevention": entered.self_trade_prevention.name.lower(),
        "paired": OrderOptions.OCO_WITH_PREVIOUS in entered.options,
    }


def _order_status(report: ExecutionReport) -> str | None:
    match report.exec_type:
        case ExecType.NEW | ExecType.REPLACED | ExecType.TRADE | ExecType.TRIGGERED:
            return "open" if report.leaves_lots else "filled"
        case ExecType.CANCELLED | ExecType.SELF_TRADE_PREVENTED:
            return "open" if report.leaves_lots else "cancelled"
        case ExecType.EXPIRED:
            return "expired"
        case ExecType.REJECTED:
            return "rejected"
        case _:
            return None
