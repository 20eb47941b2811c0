"""What the log said so far, as the page and the API show it: trades, candles, and each account's reports. Pure.

Fed with the events of every batch, in order, by shard. Books, open orders and balances are not here: they are asked
of the replica engine, which has them exactly.
"""

from __future__ import annotations

import struct
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from webapp.candles import CandleSet
from zexchange.limits import ACCOUNT_NONE, EXECUTION_REPORT_BYTES
from zexchange.wire.messages import ExecType, ExecutionReport, Liquidity, ReportFlags, Side

TRADES_KEPT = 1_000
"""Of each market."""
REPORTS_KEPT = 5_000
"""Of each account and shard."""

_CLIENT_ORDER_ID_OFFSET = 56
_EXEC_TYPE_OFFSET = 157
_SIDE_OFFSET = 158
_LIQUIDITY_OFFSET = 159
_FLAGS_OFFSET = 160
_ADDRESSED = struct.Struct("<Q136xI20x")
_TRADE = struct.Struct("<24xQQ56xqQ8xQ16xI10xB9x")
assert _ADDRESSED.size == _TRADE.size == EXECUTION_REPORT_BYTES
_IS_TRADE, _IS_TAKER, _IS_AUCTION = int(ExecType.TRADE), int(Liquidity.TAKER), int(Liquidity.AUCTION)
_IS_NEW, _IS_DUPLICATE = int(ExecType.NEW), int(ReportFlags.DUPLICATE)
_IS_RESIZED = int(ExecType.MARKET_SIZES_SET)
_DEFINES = bytes((ExecType.ASSET_ADDED, ExecType.MARKET_ADDED, ExecType.MARKET_SIZES_SET))
_RULES = bytes((ExecType.MARKET_STATE_SET, ExecType.MARKET_RULES_SET))


class MarketTrade(Struct, frozen=True, gc=False):
    """One trade as everybody may see it; `number` counts the market's trades from 1."""

    number: int
    trade_id: int
    record_no: int
    time_ns: int
    price_ticks: int
    qty_lots: int
    taker_side: Side
    """None of a trade in an auction."""


class MarketHistory:
    """Trades and candles of one market."""

    def __init__(self) -> None:
        self.trades: deque[MarketTrade] = deque(maxlen=TRADES_KEPT)
        self.count = 0
        self.candles = CandleSet()

    def begin_anew(self) -> None:
        """The market has other sizes: what was traded before counts other ticks and lots."""
        self.trades.clear()
        self.candles = CandleSet()

    def add(self, event: bytes) -> None:
        """A trade's report: the taker's, or in an auction the buyer's."""
        record_no, time_ns, price_ticks, qty_lots, trade_id, _, side = _TRADE.unpack(event)
        if event[_LIQUIDITY_OFFSET] == _IS_AUCTION:
            side = Side.NONE
        self.count += 1
        self.trades.append(
            MarketTrade(self.count, trade_id, record_no, time_ns, price_ticks, qty_lots, Side(side))
        )
        self.candles.add(time_ns, price_ticks, qty_lots)

    def after(self, number: int) -> list[MarketTrade]:
        """Trades with a larger number that are still kept, oldest first."""
        wanted = min(self.count - number, len(self.trades))
        return [self.trades[index] for index in range(len(self.trades) - wanted, len(self.trades))]


class Touched(NamedTuple):
    """Whom and what the events of a batch concern."""

    accounts: set[int]
    markets: set[int]
    defines: bool = False
    """Whether assets or markets were added or changed."""
    rules: bool = False
    """Whether that, or the state or the rules of a market."""


class History:
    """All markets and accounts of a deployment."""

    def __init__(self) -> None:
        self.markets: defaultdict[int, MarketHistory] = defaultdict(MarketHistory)
        self.events = 0
        self._reports: dict[tuple[int, int], deque[bytes]] = {}

    def add(self, shard: int, events: bytes) -> Touched:
        """The events of one batch."""
        size = EXECUTION_REPORT_BYTES
        exec_types = events[_EXEC_TYPE_OFFSET::size]
        liquidities = events[_LIQUIDITY_OFFSET::size]
        defines = any(kind in exec_types for kind in _DEFINES)
        resized = exec_types.find(_IS_RESIZED) if defines else -1
        index = exec_types.find(_IS_TRADE)
        while index >= 0 or resized >= 0:
            if index < 0 or 0 <= resized < index:
                event = events[resized * size : (resized + 1) * size]
                self.markets[_ADDRESSED.unpack(event)[1]].begin_anew()
                resized = exec_types.find(_IS_RESIZED, resized + 1)
                continue
            event = events[index * size : (index + 1) * size]
            is_buyer_in_auction = liquidities[index] == _IS_AUCTION and event[_SIDE_OFFSET] == Side.BUY
            if liquidities[index] == _IS_TAKER or is_buyer_in_auction:
                self.markets[_TRADE.unpack(event)[5]].add(event)
            index = exec_types.find(_IS_TRADE, index + 1)
        touched = Touched(set(), set(), defines, defines or any(kind in exec_types for kind in _RULES))
        reports = self._reports
        offset = 0
        flags = events[_FLAGS_OFFSET::size]
        for (account_id, market_id), flag in zip(_ADDRESSED.iter_unpack(events), flags, strict=True):
            touched.markets.add(market_id)
            # What repeats an outcome, as a batch came twice, tells nothing new, and under its old number.
            if account_id != ACCOUNT_NONE and not flag & _IS_DUPLICATE:
                touched.accounts.add(account_id)
                kept = reports.get((shard, account_id))
                if kept is None:
                    kept = reports[shard, account_id] = deque(maxlen=REPORTS_KEPT)
                kept.append(events[offset : offset + size])
            offset += size
        self.events += len(exec_types)
        return touched

    def reports(
        self,
        account_id: int,
        shards: Iterable[int],
        kinds: frozenset[ExecType],
        before: dict[int, int],
        limit: int,
    ) -> list[ExecutionReport]:
        """The newest reports of these kinds, newest first by log time; of each shard only those with a `report_seq`
        below `before[shard]`, where that names one."""
        found: list[ExecutionReport] = []
        wanted = bytes(sorted(int(kind) for kind in kinds))
        for shard in shards:
            taken = 0
            below = before.get(shard)
            for event in reversed(self._reports.get((shard, account_id), ())):
                if event[_EXEC_TYPE_OFFSET] not in wanted:
                    continue
                report = ExecutionReport.decode_block(event)
                if below is not None and report.report_seq >= below:
                    continue
                found.append(report)
                taken += 1
                if taken == limit:
                    break
        found.sort(key=lambda one: (one.log_time_ns, one.shard, one.report_seq), reverse=True)
        return found[:limit]

    def reports_after(self, account_id: int, shard: int, report_seq: int) -> list[ExecutionReport]:
        """Reports with a larger number that are still kept, oldest first."""
        found: list[ExecutionReport] = []
        for event in reversed(self._reports.get((shard, account_id), ())):
            report = ExecutionReport.decode_block(event)
            if report.report_seq <= report_seq:
                break
            found.append(report)
        return found[::-1]

    def order_entered(self, account_id: int, shard: int, client_order_id: int) -> ExecutionReport | None:
        """The report about the newest order of this client order id that came into the book or traded at once."""
        wanted = client_order_id.to_bytes(8, "little")
        end = _CLIENT_ORDER_ID_OFFSET + len(wanted)
        for event in reversed(self._reports.get((shard, account_id), ())):
            if event[_EXEC_TYPE_OFFSET] == _IS_NEW and event[_CLIENT_ORDER_ID_OFFSET:end] == wanted:
                return ExecutionReport.decode_block(event)
        return None

    def reports_of_record(self, account_id: int, shard: int, record_no: int) -> list[ExecutionReport]:
        """What the account was told of one record, oldest first."""
        found: list[ExecutionReport] = []
        for event in reversed(self._reports.get((shard, account_id), ())):
            report = ExecutionReport.decode_block(event)
            if report.record_no < record_no:
                break
            if report.record_no == record_no:
                found.append(report)
        return found[::-1]
