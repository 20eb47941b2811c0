"""What goes into the client and what comes out of it: plain records with decimals, no integers of the wire.

Quantities are in units of the market's base asset, prices in quote per base, amounts and fees in whole units of their
asset. All are exact decimals. Times are nanoseconds since 1970-01-01 UTC, as stamped by the exchange.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

from zexchange.client.units import DecimalLike

__all__ = [
    "AccountOpened",
    "AccountRulesSet",
    "AmendOrder",
    "AssetAdded",
    "BalanceRow",
    "BookLevel",
    "BookSnapshot",
    "CancelAll",
    "CancelAllResult",
    "CancelOrder",
    "CancelResult",
    "Command",
    "Deposited",
    "Event",
    "Fill",
    "KeyRegistered",
    "MarketAdded",
    "MarketRulesSet",
    "MarketSizesSet",
    "MarketStateName",
    "MarketStateSet",
    "MissedReports",
    "NewOrder",
    "Order",
    "OrderResult",
    "OrderStatus",
    "OrderUpdate",
    "ReferencePriceSet",
    "SelfTradePreventionName",
    "ShardState",
    "SideName",
    "Status",
    "TimeInForceName",
    "Trade",
    "TriggerName",
    "Withdrawn",
]

SideName: TypeAlias = Literal["buy", "sell"]
TimeInForceName: TypeAlias = Literal["gtc", "ioc", "fok", "day", "gtd", "at_the_open", "at_the_close"]
TriggerName: TypeAlias = Literal["stop", "take_profit", "trailing"]
SelfTradePreventionName: TypeAlias = Literal["cancel_newest", "cancel_oldest", "cancel_both", "decrement"]
MarketStateName: TypeAlias = Literal[
    "closed",
    "continuous",
    "halted",
    "pre_open",
    "auction",
    "closing_auction",
    "post_only",
    "expired",
    "uncrossing",
]
# open: rests in the book, perhaps partly filled. filled: all of it. cancelled: what was not filled is gone.
OrderStatus: TypeAlias = Literal["open", "filled", "cancelled"]


# ---------------------------------------------------------------- commands, for Client.submit


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Enter an order.

    `order_type` "market" makes `price` the protection price: no fill is worse, nothing rests. With `max_notional`, the
    most a market buy spends in the quote asset, fees included, the price may be left out.

    `time_in_force` "at_the_open" and "at_the_close" are for one auction. An order that is entered before waits for it,
    out of the book: an `OrderUpdate` of kind "triggered" tells when it has come to it.
    """

    market: str
    side: SideName
    quantity: DecimalLike
    price: DecimalLike | None = None
    order_type: Literal["limit", "market"] = "limit"
    time_in_force: TimeInForceName = "gtc"
    post_only: bool = False
    slide: bool = False  # with post_only: take the next price that does not trade instead of being refused
    client_order_id: int | None = None
    self_trade_prevention: SelfTradePreventionName = "cancel_newest"
    hidden: bool = False
    display: DecimalLike | None = None  # quantity shown at a time
    min_quantity: DecimalLike | None = None  # of an "ioc" order: refuse it if less can be filled
    max_notional: DecimalLike | None = None
    expire_time_ns: int | None = None  # of a "gtd" order
    trigger: TriggerName | None = None
    trigger_price: DecimalLike | None = None
    trail: DecimalLike | None = None  # of a "trailing" order: distance from the best price,
    trail_ppm: int | None = None  # or in parts per million of it
    on_reference: bool = False  # wait for the operator's reference price instead of trades
    oco_with_previous: bool = False  # one cancels other: pair it with the order before it in the same batch


class CancelOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Cancel one order, named by either id. `market` is needed only when the deployment has several shards."""

    order_id: int | None = None
    client_order_id: int | None = None
    market: str | None = None


class AmendOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Change an order; None keeps what is there. `quantity` is the intended total, fills included."""

    order_id: int | None = None
    client_order_id: int | None = None
    price: DecimalLike | None = None
    quantity: DecimalLike | None = None
    display: DecimalLike | None = None
    trigger_price: DecimalLike | None = None
    trail: DecimalLike | None = None
    trail_ppm: int | None = None
    expire_time_ns: int | None = None
    post_only: bool = False
    slide: bool = False
    self_trade_prevention: SelfTradePreventionName = "cancel_newest"
    market: str | None = None


class CancelAll(msgspec.Struct, frozen=True, kw_only=True):
    """Cancel up to 1,024 of the account's orders, of one market or side if named."""

    market: str | None = None
    side: SideName | None = None


Command: TypeAlias = NewOrder | CancelOrder | AmendOrder | CancelAll


# ---------------------------------------------------------------- results


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """One fill of one of the account's orders."""

    trade_id: int
    order_id: int
    client_order_id: int
    market: str
    side: SideName
    price: Decimal
    quantity: Decimal
    fee: Decimal  # in the quote asset; negative: a rebate
    liquidity: Literal["maker", "taker", "auction"]
    remaining: Decimal  # of the order, after this fill
    time_ns: int
    report_seq: int


class OrderResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a new or amended order, up to the moment it was answered.

    `duplicate` is true when the connection was lost and the exchange answered the resent order with its original
    outcome: all figures are right, but `fills` holds only those received before the connection was lost.
    """

    order_id: int
    client_order_id: int
    market: str
    side: SideName | None  # None after an amend whose answer was a duplicate
    price: Decimal | None  # likewise
    quantity: Decimal | None  # likewise
    filled: Decimal
    remaining: Decimal
    status: OrderStatus
    reason: str | None  # why the remainder was cancelled, such as "immediate_remainder"
    fills: tuple[Fill, ...]
    time_ns: int
    report_seq: int
    duplicate: bool = False

    @property
    def average_price(self) -> Decimal | None:
        """Average price of the fills, to 28 digits; None without fills."""
        filled = sum((fill.quantity for fill in self.fills), Decimal(0))
        if not filled:
            return None
        return sum((fill.price * fill.quantity for fill in self.fills), Decimal(0)) / filled


class CancelResult(msgspec.Struct, frozen=True, kw_only=True):
    """One order was cancelled by its owner."""

    order_id: int
    client_order_id: int
    market: str
    filled: Decimal
    cancelled: Decimal | None  # quantity taken away; None if the answer was a duplicate
    time_ns: int
    report_seq: int
    duplicate: bool = False


class CancelAllResult(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a cancel-all."""

    cancelled: int | None  # orders; None if the answer was a duplicate
    still_open: int  # matching orders left; above 0 only when there were more than 1,024
    order_ids: tuple[int, ...]
    duplicate: bool = False


class AccountOpened(msgspec.Struct, frozen=True, kw_only=True):
    """An account exists now."""

    account_id: int
    report_seq: int
    duplicate: bool = False


class KeyRegistered(msgspec.Struct, frozen=True, kw_only=True):
    """A key may now sign for the account."""

    account_id: int
    report_seq: int
    duplicate: bool = False


class Deposited(msgspec.Struct, frozen=True, kw_only=True):
    """An amount was credited."""

    account_id: int
    asset: str
    amount: Decimal
    report_seq: int
    duplicate: bool = False


class Withdrawn(msgspec.Struct, frozen=True, kw_only=True):
    """An amount was debited."""

    account_id: int
    asset: str
    amount: Decimal
    report_seq: int
    duplicate: bool = False


class MarketStateSet(msgspec.Struct, frozen=True, kw_only=True):
    """A market is in this state now."""

    market: str
    state: MarketStateName
    report_seq: int
    duplicate: bool = False


class ReferencePriceSet(msgspec.Struct, frozen=True, kw_only=True):
    """A market has this reference price now."""

    market: str
    price: Decimal
    report_seq: int
    duplicate: bool = False


class MarketRulesSet(msgspec.Struct, frozen=True, kw_only=True):
    """A market has other bands and limits now."""

    market: str
    report_seq: int
    duplicate: bool = False


class AssetAdded(msgspec.Struct, frozen=True, kw_only=True):
    """A shard has another asset now."""

    asset_id: int
    asset: str
    shard: int
    report_seq: int
    duplicate: bool = False


class MarketAdded(msgspec.Struct, frozen=True, kw_only=True):
    """A shard has another market now; it is closed."""

    market_id: int
    market: str
    shard: int
    report_seq: int
    duplicate: bool = False


class MarketSizesSet(msgspec.Struct, frozen=True, kw_only=True):
    """A market has another tick and lot size now."""

    market_id: int
    shard: int
    report_seq: int
    duplicate: bool = False


class AccountRulesSet(msgspec.Struct, frozen=True, kw_only=True):
    """An account has another discount, group and limits now."""

    account_id: int
    report_seq: int
    duplicate: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An open order."""

    order_id: int
    client_order_id: int
    market: str
    side: SideName
    price: Decimal
    quantity: Decimal
    remaining: Decimal
    order_type: Literal["limit", "market"] = "limit"
    time_in_force: TimeInForceName = "gtc"
    hidden: bool = False
    display: Decimal | None = None
    trigger: TriggerName | None = None  # what it waits for; None once it rests
    trigger_price: Decimal | None = None  # None while a trailing order has none yet
    expire_time_ns: int | None = None
    is_paired: bool = False  # one cancels other

    @property
    def filled(self) -> Decimal:
        """Quantity filled so far."""
        return self.quantity - self.remaining


class BalanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """The account's balance of one asset, over all shards."""

    asset: str
    available: Decimal
    held: Decimal

    @property
    def total(self) -> Decimal:
        """What the account owns, held for open orders or not."""
        return self.available + self.held


class BookLevel(msgspec.Struct, frozen=True):
    """All open quantity at one price."""

    price: Decimal
    quantity: Decimal
    orders: int


class BookSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Depth of one market, best levels first, as of all records below `next_record_no`."""

    market: str
    state: MarketStateName
    next_record_no: int
    bids: tuple[BookLevel, ...]
    asks: tuple[BookLevel, ...]
    indicative_price: Decimal | None = None  # what an auction would trade at now
    indicative_quantity: Decimal | None = None


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """One trade of a market, as everybody sees it."""

    trade_id: int
    price: Decimal
    quantity: Decimal
    taker_side: SideName | None  # None in an auction
    time_ns: int


class ShardState(msgspec.Struct, frozen=True, kw_only=True):
    """How far one shard is."""

    shard: int
    epoch: int
    next_record_no: int
    next_seq: int
    log_time_ns: int
    open_orders: int
    accounts: int
    trades: int
    durability: Literal["always", "every_second"]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange as this session sees it."""

    deployment_id: str  # hexadecimal
    name: str
    public_key: str  # hexadecimal; the session's
    account_id: int | None  # None while the key is not registered
    shards: tuple[ShardState, ...]


# ---------------------------------------------------------------- unsolicited events


class OrderUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened to an order of the account that this client did not ask for.

    Another session of the account did, or it happened by itself: it expired, was triggered, or ended with its pair.
    """

    kind: Literal["new", "rejected", "replaced", "cancelled", "expired", "triggered", "self_trade_prevented"]
    order_id: int
    client_order_id: int
    market: str
    side: SideName | None  # None when a cancel or an amend was refused
    price: Decimal
    quantity: Decimal
    remaining: Decimal
    filled: Decimal
    reason: str | None
    time_ns: int
    report_seq: int


class MissedReports(msgspec.Struct, frozen=True, kw_only=True):
    """Reports `first` to `last` of the account were sent while this client was not connected: ask how things stand."""

    shard: int
    first: int
    last: int


Event: TypeAlias = Fill | OrderUpdate | Deposited | Withdrawn | MissedReports
