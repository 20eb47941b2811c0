"""What a matching engine is: the interface of the C engine and the reference, their results and errors.

Both `zexchange.engine.Engine` (C) and `zexchange.reference.ReferenceEngine` (plain Python) satisfy
`MatchingEngine`, so that the matcher, the settlement replica, the verifier and the tests can run with either.
"""

from __future__ import annotations

from typing import Protocol, Self

from msgspec import Struct

from zexchange.genesis import Genesis
from zexchange.wire.messages import (
    AssetDefinition,
    Balance,
    Level,
    MarketDefinition,
    MarketState,
    OpenOrder,
    SelfTradePrevention,
)

__all__ = [
    "AccountInState",
    "Applied",
    "Counts",
    "Depth",
    "InvariantBroken",
    "MalformedFrame",
    "MatchingEngine",
    "SnapshotInvalid",
    "Subtree",
]


class MalformedFrame(ValueError):
    """A frame in the body of a batch is not well-formed; nothing of that frame was applied.

    `offset` is where the frame begins in the body. The frames before it have been applied.
    """

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(f"malformed frame at byte {offset}: {detail}")
        self.offset = offset
        self.detail = detail


class SnapshotInvalid(ValueError):
    """The bytes are not an engine snapshot of this deployment and shard."""


class InvariantBroken(AssertionError):
    """A standing truth of the rule book (section 9) does not hold: the engine must not go on."""


class Applied(Struct, frozen=True, kw_only=True):
    """What one call of `apply` did."""

    consumed_bytes: int
    """Length of the frames that were applied; less than the body's if the events of the rest had no room."""
    records: int
    """Frames applied."""
    commands: int
    """By how much `seq` moved: commands, except those of duplicates."""
    events: memoryview | bytes
    """The event blocks, 168 bytes each. Of the C engine: valid until the next call of `apply`."""


class Depth(Struct, frozen=True, kw_only=True):
    """The best levels of one market, best first on both sides."""

    state: MarketState
    bids: list[Level]
    asks: list[Level]
    indicative_price_ticks: int = 0
    """What an auction would trade at now; 0 if nothing, or if none is on."""
    indicative_qty_lots: int = 0


class MarketTerms(Struct, frozen=True, kw_only=True):
    """How long a market stays as it is, and what it takes; each 0 if there is none."""

    until_ns: int
    """Log time at which its state ends by itself."""
    last_ticks: int
    reference_ticks: int
    qty_lots_max: int
    """Of an order, as `notional_max`."""
    notional_max: int
    orders_max: int
    """Open orders of an account in this market."""
    dynamic_band_ppm: int
    """How far a trade may be from the last one, and `static_band_ppm` from the reference price."""
    static_band_ppm: int


class OrderTerms(Struct, frozen=True, kw_only=True):
    """What an open order has that `OpenOrder` does not say; each 0 if there is none."""

    pair_order_id: int = 0
    """The other of its pair."""
    trail_ticks: int = 0
    """Trailing: the distance; 0 if it is in `trail_ppm`."""
    trail_ppm: int = 0
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.NONE
    """While it waits; one that rests has none."""


class Counts(Struct, frozen=True, kw_only=True):
    """How full the pools of a shard are."""

    open_orders: int
    accounts: int
    """Opened accounts, the operator's included."""
    keys: int
    balances: int


class Subtree(Struct, frozen=True):
    """One of the seven subtrees of the state tree."""

    leaves: int
    root: bytes


class AccountInState(Struct, frozen=True, kw_only=True):
    """What a state root says about an account, and what leads from there to the root."""

    leaf: bytes | None
    """Its data; None beyond the last leaf of the accounts: such an account is not open."""
    path: tuple[bytes, ...]
    """RFC 6962's audit path from the leaf to the root of the accounts, lowest first."""
    subtrees: tuple[Subtree, ...]


class MatchingEngine(Protocol):
    """One shard: its markets, its ledger, its keys. Pure: no clock, no socket, no randomness.

    Constructed by `Engine(genesis, shard, *, track_state=True)`. With `track_state=False` no state tree is
    kept and `state_root` raises RuntimeError.
    """

    @property
    def shard(self) -> int: ...

    @property
    def next_record_no(self) -> int: ...

    @property
    def next_seq(self) -> int: ...

    @property
    def next_trade_id(self) -> int: ...

    @property
    def log_time_ns(self) -> int:
        """Log time of the last batch applied, in nanoseconds since 1970 UTC; 0 before the first."""
        ...

    @property
    def next_due_ns(self) -> int | None:
        """Log time from which on something happens without a command, and a record is needed to let it happen.

        An order expires, or more waiting orders are due than one command may trigger. None if nothing is ahead.
        """
        ...

    def apply(self, body: bytes | memoryview, log_time_ns: int) -> Applied:
        """Applies concatenated frames (SignedBatch, OperatorBatch, EpochOpen, TimePassed), all at the same log time.

        The signatures were checked before. `log_time_ns` must be above `self.log_time_ns`, else ValueError
        and nothing changes. Raises MalformedFrame for a frame that is not well-formed: nothing of that frame
        is applied. Applies as many whole frames as the event buffer has worst-case room for; see
        `Applied.consumed_bytes`.
        """
        ...

    def state_root(self) -> bytes:
        """32 bytes: the root of the state tree (docs/formats.md section 3)."""
        ...

    def snapshot(self) -> bytes:
        """The canonical engine snapshot (docs/formats.md section 4)."""
        ...

    def make_ready(self, orders: int) -> None:
        """Makes the memory that so many open orders need ready, so that hardly any waits for it.

        Takes about a tenth of a second per gigabyte, at about a kilobyte per order. Changes nothing else.
        """
        ...

    @classmethod
    def restore(cls, genesis: Genesis, shard: int, snapshot: bytes, *, track_state: bool = True) -> Self:
        """An engine in the state the snapshot describes. Raises SnapshotInvalid."""
        ...

    def depth(self, market_id: int, levels: int) -> Depth:
        """The best `levels` levels of each side. Raises KeyError when the shard has no such market."""
        ...

    def market_terms(self, market_id: int) -> MarketTerms:
        """What is laid down for a market. Raises KeyError when the shard has no such market."""
        ...

    def account_of_key(self, public_key: bytes) -> int | None: ...

    def report_seq(self, account_id: int) -> int:
        """Number of the account's last report; 0 if it has none or is not open."""
        ...

    def balances(self, account_id: int) -> list[Balance]:
        """The account's balances by ascending asset id; empty if it is not open."""
        ...

    def open_orders(
        self, account_id: int, market_id: int, after_order_id: int, limit: int
    ) -> list[OpenOrder]:
        """At most `limit` open orders with a larger id, ascending; of all markets if `market_id` is 0."""
        ...

    def order_terms(self, order_id: int) -> OrderTerms:
        """What `open_orders` does not say of an order; nothing if it is not open."""
        ...

    def counts(self) -> Counts: ...

    def assets(self, first: int, limit: int) -> list[AssetDefinition]:
        """At most `limit` assets from position `first` on: those of the genesis file, then those added."""
        ...

    def markets(self, since_record_no: int, first: int, limit: int) -> tuple[list[MarketDefinition], int]:
        """Markets from position `first` on, and the position to go on from, 0 at the end.

        At most `limit`, of those that were added, or got their sizes, by record `since_record_no` or a later one.
        """
        ...

    def supply(self, asset_id: int) -> int:
        """Deposits less withdrawals, in base units. Raises KeyError when the shard has no such asset."""
        ...

    def check(self) -> None:
        """Walks every standing truth of the rule book. Raises InvariantBroken."""
        ...
