"""The integers of reports and answers as the SDK's typed results, and refusals as exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, TypeAlias

from zexchange.client._commands import Catalogue
from zexchange.client._core import Gap
from zexchange.client.errors import ProtocolViolation
from zexchange.client.rejections import Rejected, UnknownAsset, UnknownMarket, rejection_for
from zexchange.client.types import (
    AccountOpened,
    AccountRulesSet,
    AssetAdded,
    CancelAllResult,
    CancelResult,
    Deposited,
    Event,
    Fill,
    KeyRegistered,
    MarketAdded,
    MarketRulesSet,
    MarketSizesSet,
    MarketStateName,
    MarketStateSet,
    MissedReports,
    Order,
    OrderResult,
    OrderStatus,
    OrderUpdate,
    ReferencePriceSet,
    SideName,
    TimeInForceName,
    Trade,
    TriggerName,
    Withdrawn,
)
from zexchange.client.units import lots_to_quantity, ticks_to_price, units_to_amount
from zexchange.genesis import Market, decode_symbol
from zexchange.wire import messages as wire
from zexchange.wire.messages import (
    CommandKind,
    ExecType,
    ExecutionReport,
    Liquidity,
    MarketState,
    OperatorCommandKind,
    OrderOptions,
    OrderType,
    ReasonCode,
    ReportFlags,
    Side,
    TimeInForce,
    Trigger,
)

__all__ = ["OperatorOutcome", "Outcome", "Results"]

Outcome: TypeAlias = OrderResult | CancelResult | CancelAllResult | Rejected
OperatorOutcome: TypeAlias = (
    AccountOpened
    | AccountRulesSet
    | KeyRegistered
    | Deposited
    | Withdrawn
    | MarketStateSet
    | MarketRulesSet
    | ReferencePriceSet
    | AssetAdded
    | MarketAdded
    | MarketSizesSet
    | Rejected
)

_SIDES: dict[Side, SideName] = {Side.BUY: "buy", Side.SELL: "sell"}
_TIMES_IN_FORCE: dict[TimeInForce, TimeInForceName] = {
    TimeInForce.GTC: "gtc",
    TimeInForce.IOC: "ioc",
    TimeInForce.FOK: "fok",
    TimeInForce.DAY: "day",
    TimeInForce.GTD: "gtd",
    TimeInForce.AT_THE_OPEN: "at_the_open",
    TimeInForce.AT_THE_CLOSE: "at_the_close",
}
_TRIGGERS: dict[Trigger, TriggerName] = {
    Trigger.STOP: "stop",
    Trigger.TAKE_PROFIT: "take_profit",
    Trigger.TRAILING: "trailing",
}
_STATES: dict[MarketState, MarketStateName] = {
    MarketState.CLOSED: "closed",
    MarketState.CONTINUOUS: "continuous",
    MarketState.HALTED: "halted",
    MarketState.PRE_OPEN: "pre_open",
    MarketState.AUCTION: "auction",
    MarketState.CLOSING_AUCTION: "closing_auction",
    MarketState.POST_ONLY: "post_only",
    MarketState.EXPIRED: "expired",
    MarketState.UNCROSSING: "uncrossing",
}
_LIQUIDITIES: dict[Liquidity, Literal["maker", "taker", "auction"]] = {
    Liquidity.MAKER: "maker",
    Liquidity.TAKER: "taker",
    Liquidity.AUCTION: "auction",
}
_UPDATES: dict[
    ExecType,
    Literal["new", "rejected", "replaced", "cancelled", "expired", "triggered", "self_trade_prevented"],
] = {
    ExecType.NEW: "new",
    ExecType.REJECTED: "rejected",
    ExecType.REPLACED: "replaced",
    ExecType.CANCELLED: "cancelled",
    ExecType.EXPIRED: "expired",
    ExecType.TRIGGERED: "triggered",
    ExecType.SELF_TRADE_PREVENTED: "self_trade_prevented",
}


class Results:
    """Translates with the markets and assets of one deployment."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    # ---------------------------------------------------------------- answers to commands

    def outcome(self, command: wire.Command, reports: Sequence[ExecutionReport]) -> Outcome:
        """What became of a trader's command; a refusal is returned, not raised."""
        first = reports[0]
        if first.exec_type is ExecType.REJECTED:
            return rejection_for(first.reason)(first)
        if command.kind is CommandKind.CANCEL_ALL:
            return self._cancel_all(reports)
        if command.kind is CommandKind.CANCEL:
            return self._cancelled(first)
        return self._order(command, reports)

    def operator_outcome(
        self, command: wire.OperatorCommand, reports: Sequence[ExecutionReport]
    ) -> OperatorOutcome:
        """What became of an operator's command; a refusal is returned, not raised."""
        report = reports[-1]
        if report.exec_type is ExecType.REJECTED:
            return rejection_for(report.reason)(report)
        duplicate = ReportFlags.DUPLICATE in report.flags
        account_id = report.target_account_id
        match command.kind:
            case OperatorCommandKind.OPEN_ACCOUNT:
                return AccountOpened(account_id=account_id, report_seq=report.report_seq, duplicate=duplicate)
            case OperatorCommandKind.REGISTER_KEY:
                return KeyRegistered(
                    account_id=command.account_id, report_seq=report.report_seq, duplicate=duplicate
                )
            case OperatorCommandKind.DEPOSIT | OperatorCommandKind.WITHDRAW:
                asset = self._catalogue.asset(command.asset_id)
                kind = Deposited if command.kind is OperatorCommandKind.DEPOSIT else Withdrawn
                return kind(
                    account_id=command.account_id,
                    asset=asset.symbol,
                    amount=units_to_amount(asset, command.amount),
                    report_seq=report.report_seq,
                    duplicate=duplicate,
                )
            case OperatorCommandKind.SET_MARKET_STATE:
                return MarketStateSet(
                    market=self._catalogue.market(command.market_id).symbol,
                    state=state_name(command.market_state if duplicate else report.market_state),
                    report_seq=report.report_seq,
                    duplicate=duplicate,
                )
            case OperatorCommandKind.SET_REFERENCE_PRICE:
                market = self._catalogue.market(command.market_id)
                return ReferencePriceSet(
                    market=market.symbol,
                    price=ticks_to_price(market, command.price_ticks),
                    report_seq=report.report_seq,
                    duplicate=duplicate,
                )
            case OperatorCommandKind.SET_MARKET_RULES:
                return MarketRulesSet(
                    market=self._catalogue.market(command.market_id).symbol,
                    report_seq=report.report_seq,
                    duplicate=duplicate,
                )
            case OperatorCommandKind.SET_ACCOUNT_RULES:
                return AccountRulesSet(
                    account_id=command.account_id, report_seq=report.report_seq, duplicate=duplicate
                )
            case OperatorCommandKind.ADD_ASSET:
                return AssetAdded(
                    asset_id=command.asset_id,
                    asset=decode_symbol(command.symbol),
                    shard=report.shard,
                    report_seq=report.report_seq,
                    duplicate=duplicate,
                )
            case OperatorCommandKind.ADD_MARKET:
                return MarketAdded(
                    market_id=command.market_id,
                    market=decode_symbol(command.symbol),
                    shard=report.shard,
                    report_seq=report.report_seq,
                    duplicate=duplicate,
                )
            case OperatorCommandKind.SET_MARKET_SIZES:
                return MarketSizesSet(
                    market_id=command.market_id,
                    shard=report.shard,
                    report_seq=report.report_seq,
                    duplicate=duplicate,
                )

    def _order(self, command: wire.Command, reports: Sequence[ExecutionReport]) -> OrderResult:
        """A new or amended order: the first report names it, the last says how it stands, in between are fills."""
        first, last = reports[0], reports[-1]
        duplicate = ReportFlags.DUPLICATE in last.flags
        market = self._catalogue.sized(first.market_id, command.sizes_no)
        # A duplicate's report has neither side nor price nor quantity; a new order's are those of the command.
        told = next((report for report in reports if report.side is not Side.NONE), None)
        side, price_ticks, qty_lots = Side.NONE, 0, 0
        if told is not None:
            side, price_ticks, qty_lots = told.side, told.price_ticks, told.qty_lots
        elif command.kind is CommandKind.NEW:
            side, price_ticks, qty_lots = command.side, command.price_ticks, command.qty_lots
        # What is cancelled is no longer open, but was not filled either.
        gone = last.exec_type in (ExecType.CANCELLED, ExecType.SELF_TRADE_PREVENTED)
        status: OrderStatus = "open"
        if last.leaves_lots == 0:
            status = "cancelled" if gone or (qty_lots and last.cum_qty_lots < qty_lots) else "filled"
        return OrderResult(
            order_id=first.order_id,
            client_order_id=first.client_order_id,
            market=market.symbol,
            side=_SIDES.get(side),
            price=ticks_to_price(market, price_ticks) if price_ticks else None,
            quantity=lots_to_quantity(market, qty_lots) if qty_lots else None,
            filled=lots_to_quantity(market, last.cum_qty_lots),
            remaining=lots_to_quantity(market, last.leaves_lots),
            status=status,
            reason=reason_name(last.reason),
            fills=tuple(self.fill(report) for report in reports if report.exec_type is ExecType.TRADE),
            time_ns=last.log_time_ns,
            report_seq=first.report_seq,
            duplicate=duplicate,
        )

    def _cancelled(self, report: ExecutionReport) -> CancelResult:
        duplicate = ReportFlags.DUPLICATE in report.flags
        if duplicate:  # does not say by which sizes it counts
            market = self._catalogue.market(report.market_id)
        else:
            market = self._catalogue.sized(report.market_id, report.sizes_no)
        return CancelResult(
            order_id=report.order_id,
            client_order_id=report.client_order_id,
            market=market.symbol,
            filled=lots_to_quantity(market, report.cum_qty_lots),
            cancelled=None if duplicate else lots_to_quantity(market, report.last_qty_lots),
            time_ns=report.log_time_ns,
            report_seq=report.report_seq,
            duplicate=duplicate,
        )

    def _cancel_all(self, reports: Sequence[ExecutionReport]) -> CancelAllResult:
        last = reports[-1]
        duplicate = ReportFlags.DUPLICATE in last.flags
        return CancelAllResult(
            cancelled=None if duplicate else last.qty_lots,
            still_open=last.leaves_lots,
            order_ids=tuple(report.order_id for report in reports if report.exec_type is ExecType.CANCELLED),
            duplicate=duplicate,
        )

    # ---------------------------------------------------------------- events

    def event(self, report: ExecutionReport | Gap) -> Event | None:
        """An unsolicited report; None for those that tell the account nothing, or of what nobody knows."""
        if isinstance(report, Gap):
            return MissedReports(shard=report.shard, first=report.first, last=report.last)
        try:
            return self._event(report)
        except (UnknownMarket, UnknownAsset):
            return None

    def _event(self, report: ExecutionReport) -> Event | None:
        match report.exec_type:
            case ExecType.TRADE:
                return self.fill(report)
            case ExecType.DEPOSITED | ExecType.WITHDRAWN:
                asset = self._catalogue.asset(report.asset_id)
                kind = Deposited if report.exec_type is ExecType.DEPOSITED else Withdrawn
                return kind(
                    account_id=report.target_account_id,
                    asset=asset.symbol,
                    amount=units_to_amount(asset, report.amount),
                    report_seq=report.report_seq,
                )
        update = _UPDATES.get(report.exec_type)
        if update is None or report.market_id == 0:
            return None
        market = self._catalogue.sized(report.market_id, report.sizes_no)
        return OrderUpdate(
            kind=update,
            order_id=report.order_id,
            client_order_id=report.client_order_id,
            market=market.symbol,
            side=_SIDES.get(report.side),
            price=ticks_to_price(market, report.price_ticks),
            quantity=lots_to_quantity(market, report.qty_lots),
            remaining=lots_to_quantity(market, report.leaves_lots),
            filled=lots_to_quantity(market, report.cum_qty_lots),
            reason=reason_name(report.reason),
            time_ns=report.log_time_ns,
            report_seq=report.report_seq,
        )

    def fill(self, report: ExecutionReport) -> Fill:
        """One fill of an order of the account."""
        market = self._catalogue.sized(report.market_id, report.sizes_no)
        return Fill(
            trade_id=report.trade_id,
            order_id=report.order_id,
            client_order_id=report.client_order_id,
            market=market.symbol,
            side=side_name(report.side),
            price=ticks_to_price(market, report.last_price_ticks),
            quantity=lots_to_quantity(market, report.last_qty_lots),
            fee=units_to_amount(self._catalogue.asset(market.quote_asset_id), report.fee),
            liquidity=_LIQUIDITIES[report.liquidity],
            remaining=lots_to_quantity(market, report.leaves_lots),
            time_ns=report.log_time_ns,
            report_seq=report.report_seq,
        )

    # ---------------------------------------------------------------- answers to queries

    def open_order(self, order: wire.OpenOrder) -> Order:
        """A row of the open orders."""
        market = self._catalogue.market(order.market_id)
        return Order(
            order_id=order.order_id,
            client_order_id=order.client_order_id,
            market=market.symbol,
            side=side_name(order.side),
            price=ticks_to_price(market, order.price_ticks),
            quantity=lots_to_quantity(market, order.qty_lots),
            remaining=lots_to_quantity(market, order.leaves_lots),
            order_type="market" if order.order_type is OrderType.MARKET else "limit",
            time_in_force=_TIMES_IN_FORCE[order.time_in_force],
            hidden=OrderOptions.HIDDEN in order.options,
            display=lots_to_quantity(market, order.display_qty_lots) if order.display_qty_lots else None,
            trigger=_TRIGGERS.get(order.trigger),
            trigger_price=ticks_to_price(market, order.trigger_ticks) if order.trigger_ticks else None,
            expire_time_ns=order.expire_time_ns or None,
            is_paired=OrderOptions.OCO_WITH_PREVIOUS in order.options,
        )

    def trade(self, market: Market, trade: wire.TradePrint) -> Trade:
        """A row of the last trades."""
        return Trade(
            trade_id=trade.trade_id,
            price=ticks_to_price(market, trade.price_ticks),
            quantity=lots_to_quantity(market, trade.qty_lots),
            taker_side=_SIDES.get(trade.taker_side),
            time_ns=trade.log_time_ns,
        )

    def level(self, market: Market, level: wire.Level) -> tuple[Decimal, Decimal, int]:
        """Price, quantity and number of orders of a level."""
        return (
            ticks_to_price(market, level.price_ticks),
            lots_to_quantity(market, level.qty_lots),
            level.orders,
        )

    def amount(self, asset_id: int, units: int) -> Decimal:
        """Base units of an asset as an amount."""
        return units_to_amount(self._catalogue.asset(asset_id), units)


def side_name(side: Side) -> SideName:
    """The wire's side as a word. Raises ProtocolViolation for none."""
    name = _SIDES.get(side)
    if name is None:
        raise ProtocolViolation("the exchange named an order without a side")
    return name


def state_name(state: MarketState) -> MarketStateName:
    """The wire's market state as a word. Raises ProtocolViolation for none."""
    name = _STATES.get(state)
    if name is None:
        raise ProtocolViolation("the exchange named a market without a state")
    return name


def reason_name(reason: ReasonCode) -> str | None:
    """A reason as a word such as "immediate_remainder"; None for no reason."""
    return None if reason is ReasonCode.NONE else reason.name.lower()
