"""Answers to queries, computed from the engine's state by the matcher. Pure."""

from __future__ import annotations

import struct
from collections import defaultdict, deque
from collections.abc import Callable

from zexchange.engine_types import MatchingEngine
from zexchange.limits import ACCOUNT_NONE, EXECUTION_REPORT_BYTES, QUERY_LIMIT_MAX
from zexchange.wire.messages import (
    Balances,
    BalancesRequest,
    BookDepth,
    BookRequest,
    Definitions,
    DefinitionsRequest,
    Durability,
    ExecType,
    Liquidity,
    OpenOrders,
    OpenOrdersRequest,
    QueryReject,
    ReasonCode,
    ShardStatus,
    ShardStatusRequest,
    Side,
    TradePrint,
    Trades,
    TradesRequest,
)

Query = (
    BalancesRequest
    | OpenOrdersRequest
    | BookRequest
    | TradesRequest
    | ShardStatusRequest
    | DefinitionsRequest
)
Answer = Balances | OpenOrders | BookDepth | Trades | ShardStatus | Definitions | QueryReject

_EXEC_TYPE_OFFSET = 157
_SIDE_OFFSET = 158
_LIQUIDITY_OFFSET = 159
_MARKET_ID_OFFSET = 144
_MARKET_ID = struct.Struct("<I")
_PRINT = struct.Struct("<32xQ56xqQ8xQ30xB9x")
assert _PRINT.size == EXECUTION_REPORT_BYTES
_TRADE = int(ExecType.TRADE)
_SIZES_SET = int(ExecType.MARKET_SIZES_SET)
_TAKER, _AUCTION, _BUY = int(Liquidity.TAKER), int(Liquidity.AUCTION), int(Side.BUY)
"""One of the two reports of a trade is kept: the taker's, or in an auction the buyer's."""


class RecentTrades:
    """The last trades of every market of a shard, newest last. Memory only: rebuilt from what is replayed.

    Kept as the event blocks they came in: most are pushed out again before anybody asks. A market that gets other
    sizes begins anew: what was traded before counts other ticks and lots.
    """

    def __init__(self, limit: int = QUERY_LIMIT_MAX) -> None:
        self._by_market: dict[int, deque[bytes]] = defaultdict(lambda: deque(maxlen=limit))

    def observe(self, events: bytes | memoryview) -> None:
        """Take in the events of a batch."""
        events = bytes(events)
        exec_types = events[_EXEC_TYPE_OFFSET::EXECUTION_REPORT_BYTES]
        begin = 0
        resized = exec_types.find(_SIZES_SET)
        while resized >= 0:
            self._observe_trades(events[begin * EXECUTION_REPORT_BYTES : resized * EXECUTION_REPORT_BYTES])
            offset = resized * EXECUTION_REPORT_BYTES + _MARKET_ID_OFFSET
            self._by_market.pop(_MARKET_ID.unpack_from(events, offset)[0], None)
            begin = resized + 1
            resized = exec_types.find(_SIZES_SET, begin)
        self._observe_trades(events[begin * EXECUTION_REPORT_BYTES :] if begin else events)

    def _observe_trades(self, events: bytes) -> None:
        exec_types = events[_EXEC_TYPE_OFFSET::EXECUTION_REPORT_BYTES]
        if _TRADE not in exec_types:
            return
        sides_of_trades = events[_LIQUIDITY_OFFSET::EXECUTION_REPORT_BYTES]
        index = exec_types.find(_TRADE)
        while index >= 0:
            if sides_of_trades[index] == _TAKER or (
                sides_of_trades[index] == _AUCTION
                and events[index * EXECUTION_REPORT_BYTES + _SIDE_OFFSET] == _BUY
            ):
                offset = index * EXECUTION_REPORT_BYTES
                block = events[offset : offset + EXECUTION_REPORT_BYTES]
                self._by_market[_MARKET_ID.unpack_from(block, _MARKET_ID_OFFSET)[0]].append(block)
            index = exec_types.find(_TRADE, index + 1)

    def newest(self, market_id: int, limit: int) -> list[TradePrint]:
        """Newest first."""
        trades = self._by_market.get(market_id, ())
        return [_print_of(trades[-1 - index]) for index in range(min(limit, len(trades)))]


def _print_of(block: bytes) -> TradePrint:
    log_time_ns, price_ticks, qty_lots, trade_id, side = _PRINT.unpack(block)
    if block[_LIQUIDITY_OFFSET] == _AUCTION:
        side = Side.NONE
    return TradePrint(
        trade_id=trade_id,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
        log_time_ns=log_time_ns,
        taker_side=Side(side),
    )


class QueryDesk:
    """Answers any query about one shard as of now."""

    def __init__(
        self, engine: MatchingEngine, trades: RecentTrades, epoch: Callable[[], int], durability: Durability
    ) -> None:
        self._engine = engine
        self._trades = trades
        self._epoch = epoch
        self._durability = durability

    def answer(self, query: Query, account_id: int | None) -> Answer:
        """`account_id`: that of the asking session's key, None while the key is not registered."""
        reason = self._refusal(query, account_id)
        if reason != ReasonCode.NONE:
            return QueryReject(request_id=query.request_id, reason=reason)
        account = ACCOUNT_NONE if account_id is None else account_id
        match query:
            case BalancesRequest():
                return self._balances(query, account)
            case OpenOrdersRequest():
                return self._open_orders(query, account)
            case BookRequest():
                return self._book(query)
            case TradesRequest():
                return Trades(
                    request_id=query.request_id,
                    next_record_no=self._engine.next_record_no,
                    market_id=query.market_id,
                    trades=self._trades.newest(query.market_id, query.limit),
                )
            case ShardStatusRequest():
                return self._status(query)
            case DefinitionsRequest():
                return self._definitions(query)

    def _refusal(self, query: Query, account_id: int | None) -> ReasonCode:
        match query:
            case BalancesRequest() | ShardStatusRequest() | OpenOrdersRequest() | DefinitionsRequest() if (
                query.shard != self._engine.shard
            ):
                return ReasonCode.SHARD_UNKNOWN
            case BalancesRequest() if account_id is None:
                return ReasonCode.UNKNOWN_KEY
            case OpenOrdersRequest():
                if account_id is None:
                    return ReasonCode.UNKNOWN_KEY
                if query.market_id and not self._has_market(query.market_id):
                    return ReasonCode.UNKNOWN_MARKET
                return _limit_reason(query.limit)
            case BookRequest():
                if not self._has_market(query.market_id):
                    return ReasonCode.UNKNOWN_MARKET
                return _limit_reason(query.levels)
            case DefinitionsRequest():
                return _limit_reason(query.limit)
            case TradesRequest():
                if not self._has_market(query.market_id):
                    return ReasonCode.UNKNOWN_MARKET
                return _limit_reason(query.limit)
        return ReasonCode.NONE

    def _balances(self, query: BalancesRequest, account_id: int) -> Balances:
        return Balances(
            request_id=query.request_id,
            account_id=account_id,
            next_record_no=self._engine.next_record_no,
            balances=self._engine.balances(account_id),
        )

    def _open_orders(self, query: OpenOrdersRequest, account_id: int) -> OpenOrders:
        return OpenOrders(
            request_id=query.request_id,
            account_id=account_id,
            next_record_no=self._engine.next_record_no,
            orders=self._engine.open_orders(account_id, query.market_id, query.after_order_id, query.limit),
        )

    def _book(self, query: BookRequest) -> BookDepth:
        depth = self._engine.depth(query.market_id, query.levels)
        return BookDepth(
            indicative_price_ticks=depth.indicative_price_ticks,
            indicative_qty_lots=depth.indicative_qty_lots,
            request_id=query.request_id,
            next_record_no=self._engine.next_record_no,
            market_id=query.market_id,
            market_state=depth.state,
            bids=depth.bids,
            asks=depth.asks,
        )

    def _has_market(self, market_id: int) -> bool:
        try:
            self._engine.depth(market_id, 0)
        except KeyError:
            return False
        return True

    def _definitions(self, query: DefinitionsRequest) -> Definitions:
        assets = self._engine.assets(query.first_asset, query.limit)
        next_asset = query.first_asset + len(assets)
        markets, next_market = self._engine.markets(query.since_record_no, query.first_market, query.limit)
        return Definitions(
            request_id=query.request_id,
            next_record_no=self._engine.next_record_no,
            next_asset=next_asset if len(assets) == query.limit else 0,
            next_market=next_market,
            shard=query.shard,
            assets=assets,
            markets=markets,
        )

    def _status(self, query: ShardStatusRequest) -> ShardStatus:
        counts = self._engine.counts()
        return ShardStatus(
            request_id=query.request_id,
            epoch=self._epoch(),
            next_record_no=self._engine.next_record_no,
            next_seq=self._engine.next_seq,
            log_time_ns=self._engine.log_time_ns,
            open_orders=counts.open_orders,
            accounts=counts.accounts,
            trades=self._engine.next_trade_id - 1,
            shard=query.shard,
            durability=self._durability,
        )


def _limit_reason(limit: int) -> ReasonCode:
    return ReasonCode.NONE if 1 <= limit <= QUERY_LIMIT_MAX else ReasonCode.QUERY_LIMIT_INVALID
