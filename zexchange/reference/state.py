"""The state of a shard as plain objects (docs/rules.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from zexchange.genesis import Genesis
from zexchange.genesis import Market as MarketDefinition
from zexchange.wire.messages import ExecType, MarketState, ReasonCode, Side

__all__ = ["Account", "Balance", "Key", "Market", "Order", "Outcome", "State", "genesis_state"]


@dataclass(slots=True, eq=False)
class Balance:
    """Base units of one asset of one account."""

    available: int = 0
    held: int = 0


@dataclass(slots=True, eq=False)
class Order:
    """An order. While it is open, `leaves_lots + cum_qty_lots = qty_lots`."""

    order_id: int
    client_order_id: int
    account_id: int
    market_id: int
    side: Side
    price_ticks: int
    qty_lots: int
    leaves_lots: int
    cum_qty_lots: int
    priority_seq: int

    def by_priority(self) -> tuple[int, int]:
        """Sort key within one side of a book: best price first, then first come."""
        return (-self.price_ticks if self.side is Side.BUY else self.price_ticks), self.priority_seq


@dataclass(slots=True, eq=False)
class Account:
    account_id: int
    report_seq: int = 0
    balances: dict[int, Balance] = field(default_factory=dict)
    """By asset id. Once created a balance exists for ever."""
    orders: dict[int, Order] = field(default_factory=dict)
    """Open orders, by order id."""


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
    """Resting buy orders in priority order: highest price first, then lowest `priority_seq`."""
    sells: list[Order] = field(default_factory=list)
    """Resting sell orders in priority order: lowest price first, then lowest `priority_seq`."""

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
    log_time_ns: int
    accounts: dict[int, Account]
    keys: list[Key]
    markets: dict[int, Market]
    """The shard's markets, in the order of the genesis file."""
    supply: dict[int, int]
    """Base units by asset id, in the order of the genesis file."""
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
        log_time_ns=0,
        accounts={0: operator},
        keys=[Key(key_index=0, public_key=genesis.operator_public_key, account_id=0)],
        markets=markets,
        supply={asset.asset_id: 0 for asset in genesis.assets},
        slots=[],
        ring=[],
        outcomes_head=0,
        cached_batches={},
        outcomes_count=0,
    )
