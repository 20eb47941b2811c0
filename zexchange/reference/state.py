"""The state of a shard as plain objects (docs/rules.md section 2)."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from dataclasses import dataclass, field

from zexchange.genesis import Asset, Genesis
from zexchange.genesis import Market as MarketDefinition
from zexchange.wire.messages import (
    ExecType,
    MarketState,
    OrderType,
    ReasonCode,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Trigger,
)

__all__ = ["Account", "Balance", "Key", "Market", "Order", "Outcome", "State", "genesis_state"]


@dataclass(slots=True, eq=False)
class Balance:
    """Base units of one asset of one account."""

    available: int = 0
    held: int = 0


@dataclass(slots=True, eq=False)
class Order:
    """An order. While it is open, `leaves_lots + cum_qty_lots = qty_lots`.

    It rests in a queue, or waits for its trigger or its auction and is in no queue. Once it rests its type, trigger and
    self-trade prevention are those of any resting order: what they said was for the time when it came to the book.
    """

    order_id: int
    client_order_id: int
    account_id: int
    market_id: int
    side: Side
    price_ticks: int
    qty_lots: int
    leaves_lots: int
    cum_qty_lots: int
    priority_no: int = 0
    """Its place: lower comes first, in its queue or among the waiting orders of the same trigger price or auction."""
    order_type: OrderType = OrderType.LIMIT
    time_in_force: TimeInForce = TimeInForce.GTC
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.NONE
    is_hidden: bool = False
    display_lots: int = 0
    """An iceberg's quantity shown at a time; 0 if it is none."""
    shown_lots: int = 0
    """What is left of the slice that an iceberg shows."""
    expire_time_ns: int = 0
    """0 if it does not expire."""
    trigger: Trigger = Trigger.NONE
    """What it waits for; none once it rests."""
    awaits_auction: bool = False
    """Whether it waits for the market to collect for its auction."""
    on_reference: bool = False
    """Whether it waits for the reference price instead of trades."""
    trigger_ticks: int = 0
    """Price that it waits for; 0 while a trailing order has none."""
    trail_ticks: int = 0
    trail_ppm: int = 0
    best_ticks: int = 0
    """Of a trailing order: the best price for it since it was entered; 0 if there was none."""
    pair_id: int = 0
    """Order id of the other of a pair; 0 if it is alone."""
    is_by_notional: bool = False
    """Whether it is a market order with a maximum notional, which holds that instead of its worst case."""
    notional_left: int = 0
    """What such an order may still spend."""

    @property
    def has_trigger(self) -> bool:
        """Whether it waits for a price."""
        return self.trigger is not Trigger.NONE

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a price or for its auction."""
        return self.has_trigger or self.awaits_auction

    @property
    def is_for_auction(self) -> bool:
        """Whether it trades in one auction only."""
        return self.time_in_force in (TimeInForce.AT_THE_OPEN, TimeInForce.AT_THE_CLOSE)

    @property
    def is_plain(self) -> bool:
        """Whether nothing but price and quantity makes it up."""
        return not (
            self.is_hidden
            or self.display_lots
            or self.expire_time_ns
            or self.is_waiting
            or self.pair_id
            or self.is_for_auction
        )

    @property
    def triggers_upwards(self) -> bool:
        """Whether it waits for a price at or above its trigger price, not at or below."""
        return (self.side is Side.BUY) is not (self.trigger is Trigger.TAKE_PROFIT)

    @property
    def tradable_lots(self) -> int:
        """What the next fill may take of it at most."""
        return self.shown_lots if self.display_lots else self.leaves_lots

    @property
    def visible_lots(self) -> int:
        """What the depth shows of it."""
        return 0 if self.is_hidden else self.tradable_lots

    def by_priority(self) -> tuple[int, bool, int]:
        """Sort key within one side of a book: best price first, what is shown before what is hidden, first come."""
        price = -self.price_ticks if self.side is Side.BUY else self.price_ticks
        return price, self.is_hidden, self.priority_no


@dataclass(slots=True, eq=False)
class Account:
    account_id: int
    report_seq: int = 0
    balances: dict[int, Balance] = field(default_factory=dict)
    """By asset id. Once created a balance exists for ever."""
    orders: dict[int, Order] = field(default_factory=dict)
    """Open orders, by order id."""
    fee_discount_ppm: int = 0
    trade_group: int = 0
    """Accounts of one group do not trade with each other; 0 is none."""
    orders_max: int = 0
    """Most open orders; 0 is no limit of its own."""
    orders_per_second: int = 0
    """Most new orders and amends in a second of log time; 0 is no limit."""
    rate_second: int = 0
    """The last second of log time in which one counted."""
    rate_count: int = 0
    """How many have counted in it."""


@dataclass(slots=True, eq=False)
class Key:
    key_index: int
    public_key: bytes
    account_id: int
    highest_nonce: int = 0
    used_nonces: set[int] = field(default_factory=lambda: {0})
    """Those of the window `(highest - 1024, highest]` that were used."""


@dataclass(slots=True, eq=False)
class Market:
    definition: MarketDefinition
    state: MarketState = MarketState.CONTINUOUS
    buys: list[Order] = field(default_factory=list)
    """Resting buy orders in priority order: highest price first, then lowest `priority_no`."""
    sells: list[Order] = field(default_factory=list)
    """Resting sell orders in priority order: lowest price first, then lowest `priority_no`."""
    waiting: list[Order] = field(default_factory=list)
    """Orders that wait for their trigger or for their auction, by order id."""
    last_ticks: int = 0
    """Price of the last trade; 0 before the first."""
    reference_ticks: int = 0
    """The operator's reference price; 0 before the first."""

    until_ns: int = 0
    """Log time at which the state ends by itself; 0 for never."""
    next_state: MarketState = MarketState.NONE
    """While it is uncrossing: the state that follows."""
    is_called_off: bool = False
    """While it is uncrossing: no auction is executed."""
    auction_ticks: int = 0
    """The price at which it trades; 0 before it is found."""
    notional_max: int = 0
    qty_lots_max: int = 0
    orders_max: int = 0
    """Limits of an order, and of the open orders of an account; 0 is no limit."""
    interruption_ns: int = 0
    dynamic_band_ppm: int = 0
    static_band_ppm: int = 0
    defined_record_no: int = 0
    """Record that added it, or gave it the sizes it has; 0 is the genesis record."""

    @property
    def is_empty(self) -> bool:
        """Whether no order rests or waits in it."""
        return not (self.buys or self.sells or self.waiting)

    def trigger_price_ticks(self, on_reference: bool) -> int:
        """The price that orders of this kind wait for; 0 if there is none yet."""
        return self.reference_ticks if on_reference else self.last_ticks

    def queue(self, side: Side) -> list[Order]:
        """The resting orders of this side."""
        return self.buys if side is Side.BUY else self.sells

    def opposite_queue(self, side: Side) -> list[Order]:
        """The resting orders that an order of this side trades with."""
        return self.sells if side is Side.BUY else self.buys


@dataclass(slots=True, frozen=True)
class Outcome:
    """The answer to one command, kept to answer duplicates.

    Of operator commands `order_id` is the target account. The fields are in the order of the leaf.
    """

    key_index: int
    nonce: int
    seq: int
    record_no: int
    report_seq: int
    order_id: int
    client_order_id: int
    leaves_lots: int
    cum_qty_lots: int
    market_id: int
    reason: ReasonCode
    exec_type: ExecType
    command_index: int


@dataclass(slots=True, eq=False)
class State:
    """Everything a shard knows."""

    genesis: Genesis
    shard: int
    next_record_no: int
    next_seq: int
    next_trade_id: int
    next_priority_no: int
    log_time_ns: int
    accounts: dict[int, Account]
    keys: list[Key]
    markets: dict[int, Market]
    """The shard's markets, in the order of the genesis file; behind them those that were added, oldest first."""
    assets: dict[int, Asset]
    """By asset id, in the same order."""
    supply: dict[int, int]
    """Base units by asset id, in the same order."""
    slots: list[Order | None]
    """Open orders by slot. The last slot of the list is always taken."""
    ring: list[Outcome]
    """Outcomes by ring position, removed ones included until they are overwritten."""
    outcomes_head: int
    """Outcomes ever written."""
    cached_batches: dict[tuple[int, int], list[Outcome]]
    """The outcome cache: (key index, nonce) to the outcomes of that batch; oldest batch first."""
    outcomes_count: int
    """Outcomes still in the cache."""

    def copied(self) -> State:
        """One that does not change with this one."""
        unchanging = [self.genesis, *self.ring, *(market.definition for market in self.markets.values())]
        unchanging += itertools.chain.from_iterable(self.cached_batches.values())
        return copy.deepcopy(self, {id(one): one for one in unchanging})

    def become(self, other: State) -> None:
        """Takes over what the other is; that must not be used any more."""
        for one in dataclasses.fields(self):
            setattr(self, one.name, getattr(other, one.name))

    def open_orders(self) -> list[Order]:
        """All open orders, in slot order."""
        return [order for order in self.slots if order is not None]

    def take_slot(self, order: Order) -> None:
        """Makes the order one of the open orders, in the lowest free slot."""
        slot = self.slots.index(None) if None in self.slots else len(self.slots)
        self.slots[slot : slot + 1] = [order]
        self.accounts[order.account_id].orders[order.order_id] = order

    def free_slot(self, order: Order) -> None:
        """The order is no longer one of the open orders."""
        self.slots[self.slots.index(order)] = None
        while self.slots and self.slots[-1] is None:
            self.slots.pop()
        del self.accounts[order.account_id].orders[order.order_id]

    def key(self, public_key: bytes) -> Key | None:
        """The registered key, or None."""
        return next((key for key in self.keys if key.public_key == public_key), None)

    def take_priority_no(self) -> int:
        """The next place in any queue."""
        self.next_priority_no += 1
        return self.next_priority_no - 1

    def balance_count(self) -> int:
        """Balances that exist, of all accounts."""
        return sum(len(account.balances) for account in self.accounts.values())

    def balance_pool_is_full(self) -> bool:
        return self.balance_count() >= self.genesis.limits.max_balances


def genesis_state(genesis: Genesis, shard: int) -> State:
    """The state before the first record: the operator's account and key, every market continuous."""
    markets = {one.market_id: Market(one) for one in genesis.markets if one.shard == shard}
    operator = Account(account_id=0)
    for market in markets.values():
        operator.balances.setdefault(market.definition.quote_asset_id, Balance())
    return State(
        genesis=genesis,
        shard=shard,
        next_record_no=1,
        next_seq=1,
        next_trade_id=1,
        next_priority_no=1,
        log_time_ns=0,
        accounts={0: operator},
        keys=[Key(key_index=0, public_key=genesis.operator_public_key, account_id=0)],
        markets=markets,
        assets={asset.asset_id: asset for asset in genesis.assets},
        supply={asset.asset_id: 0 for asset in genesis.assets},
        slots=[],
        ring=[],
        outcomes_head=0,
        cached_batches={},
        outcomes_count=0,
    )
