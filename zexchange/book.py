"""An order book with a matching engine, to embed: no accounts' money, no signatures, no exchange around it.

    from zexchange.book import Book

    book = Book()
    book.submit(1, "sell", 101, 5)
    book.submit(2, "buy", 102, 3)       # [Accepted(2, ...), Trade(maker_order_id=1, taker_order_id=2, 101, 3)]
    book.depth(5)                       # ([], [(101, 2, 1)])

The engine is the one of the exchange (csrc/book.h), behind csrc/lob.h, which has the rules. Prices are ticks and
quantities lots, whole numbers from 1 to 2^53-1. One call takes a microsecond or two; `apply` takes millions of
commands in buffers that NumPy understands. docs/book.md shows both.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from msgspec import Struct

from zexchange.native import ffi, lib

__all__ = [
    "COMMAND_BYTES",
    "COMMAND_DTYPE",
    "EVENT_BYTES",
    "EVENT_DTYPE",
    "Accepted",
    "Amended",
    "Book",
    "Cancelled",
    "CommandKind",
    "Event",
    "EventKind",
    "Order",
    "OrderType",
    "Reason",
    "Rejected",
    "SelfTradePrevention",
    "Side",
    "Terms",
    "TimeInForce",
    "Trade",
]

U64_MAX = 2**64 - 1
TICKS_MAX = LOTS_MAX = 2**53 - 1
ACCOUNT_MAX = 2**26 - 1
ORDERS_MAX: int = lib.LOB_ORDERS_MAX
_EVENTS_BESIDE_ORDERS: int = lib.LOB_EVENTS_BESIDE_ORDERS
_do = lib.lob_do

COMMAND_BYTES = 40
COMMAND_DTYPE: list[tuple[str, str] | tuple[str, str, tuple[int]]] = [
    ("order_id", "<u8"),
    ("price_ticks", "<i8"),
    ("qty_lots", "<u8"),
    ("account", "<u4"),
    ("kind", "u1"),
    ("side", "u1"),
    ("order_type", "u1"),
    ("time_in_force", "u1"),
    ("stp", "u1"),
    ("post_only", "u1"),
    ("reserved", "u1", (6,)),
]
"""For `numpy.dtype`: one command of `Book.apply`, 40 bytes. Values of the small fields are those of the enums below."""
EVENT_BYTES = 40
EVENT_DTYPE: list[tuple[str, str]] = [
    ("order_id", "<u8"),
    ("maker_order_id", "<u8"),
    ("price_ticks", "<i8"),
    ("qty_lots", "<u8"),
    ("command", "<u4"),
    ("kind", "u1"),
    ("reason", "u1"),
    ("side", "u1"),
    ("reserved", "u1"),
]
"""For `numpy.dtype`: one event of `Book.apply`, 40 bytes; `command` is the index of the command that caused it."""


class CommandKind(IntEnum):
    """What a command asks for."""

    NEW = 0
    CANCEL = 1
    AMEND = 2


class Side(IntEnum):
    """Of an order."""

    BUY = 0
    SELL = 1


class OrderType(IntEnum):
    """Of a new order."""

    LIMIT = 0
    MARKET = 1


class TimeInForce(IntEnum):
    """How long an order may rest."""

    GTC = 0
    IOC = 1
    FOK = 2


class SelfTradePrevention(IntEnum):
    """What happens when an order meets one of its own account."""

    NONE = 0
    CANCEL_NEWEST = 1
    CANCEL_OLDEST = 2
    CANCEL_BOTH = 3
    DECREMENT = 4


class EventKind(IntEnum):
    """What an event says."""

    ACCEPTED = 0
    REJECTED = 1
    TRADE = 2
    CANCELLED = 3
    AMENDED = 4


class Reason(IntEnum):
    """Why an order was rejected (1 to 9, in order of precedence) or cancelled (10 to 14).

    From 101 on: `submit` rejected its terms, before the book was asked.
    """

    NONE = 0
    MALFORMED = 1
    PRICE_OUT_OF_RANGE = 2
    QTY_OUT_OF_RANGE = 3
    POST_ONLY_MUST_REST = 4
    ORDER_ID_IN_USE = 5
    UNKNOWN_ORDER = 6
    BOOK_FULL = 7
    POST_ONLY_WOULD_CROSS = 8
    FOK_NOT_FILLABLE = 9
    REQUESTED = 10
    IMMEDIATE_REMAINDER = 11
    SELF_TRADE = 12
    AMENDED_BELOW_FILLED = 13
    LEVEL_FULL = 14
    NEEDS_EXCHANGE = 101
    """The book alone has no such orders: the exchange has."""
    SLIDE_WITHOUT_POST_ONLY = 102
    MIN_QTY_INVALID = 103
    """A minimum above the quantity, or of an order that may rest or is fill-or-kill."""
    MIN_QTY_NOT_FILLABLE = 104


class Accepted(Struct, frozen=True, gc=False):
    """A new order is valid; what it trades comes next. `price_ticks` 0: a market order at any price."""

    order_id: int
    price_ticks: int
    qty_lots: int


class Rejected(Struct, frozen=True, gc=False):
    """A command was refused and has changed nothing."""

    order_id: int
    reason: Reason


class Trade(Struct, frozen=True, gc=False):
    """At the maker's price."""

    maker_order_id: int
    taker_order_id: int
    price_ticks: int
    qty_lots: int


class Cancelled(Struct, frozen=True, gc=False):
    """What was left of an order, `qty_lots`, is gone."""

    order_id: int
    reason: Reason
    qty_lots: int


class Amended(Struct, frozen=True, gc=False):
    """An order's price and total quantity from now on."""

    order_id: int
    price_ticks: int
    qty_lots: int


class Order(Struct, frozen=True, gc=False):
    """A resting order. `qty_lots` is its total, `leaves_lots` what is still open."""

    order_id: int
    price_ticks: int
    qty_lots: int
    leaves_lots: int
    account: int


Event: TypeAlias = Accepted | Rejected | Trade | Cancelled | Amended
SideName: TypeAlias = Literal["buy", "sell"]
OrderTypeName: TypeAlias = Literal["limit", "market"]
TimeInForceName: TypeAlias = Literal["gtc", "ioc", "fok", "day", "gtd", "at_the_open", "at_the_close"]
"""Behind the first three: rejected, they need a clock or an auction."""
StpName: TypeAlias = Literal["none", "cancel_newest", "cancel_oldest", "cancel_both", "decrement"]

_SIDES: dict[str, int] = {"buy": 0, "sell": 1}
_ORDER_TYPES: dict[str, int] = {"limit": 0, "market": 1}
_TIMES_IN_FORCE: dict[str, int] = {"gtc": 0, "ioc": 1, "fok": 2}
_STPS: dict[str, int] = {"none": 0, "cancel_newest": 1, "cancel_oldest": 2, "cancel_both": 3, "decrement": 4}
_EXCHANGE_TIMES = {"day", "gtd", "at_the_open", "at_the_close"}
_REASONS = list(Reason)
_EVENT = struct.Struct("<QQqQIBBBx")
assert _EVENT.size == EVENT_BYTES


class Terms(TypedDict, total=False):
    """What only some orders have. All but the first two are rejected: NEEDS_EXCHANGE."""

    slide: bool
    """With `post_only`: take the price one tick before the best opposite one instead of being rejected."""
    min_qty_lots: int
    """Of an immediate order: rejected if less would be filled at once."""
    display_lots: int
    hidden: bool
    trigger: Literal["stop", "take_profit", "trailing"]
    trigger_ticks: int
    trail_ticks: int
    trail_ppm: int
    on_reference: bool
    expire_time_ns: int
    max_notional: int


def _event(one: tuple[int, int, int, int, int, int, int, int]) -> Event:
    order_id, maker_order_id, price_ticks, qty_lots, _, kind, reason, _ = one
    if kind == 0:
        return Accepted(order_id, price_ticks, qty_lots)
    if kind == 2:
        return Trade(maker_order_id, order_id, price_ticks, qty_lots)
    if kind == 3:
        return Cancelled(order_id, _REASONS[reason], qty_lots)
    if kind == 4:
        return Amended(order_id, price_ticks, qty_lots)
    return Rejected(order_id, _REASONS[reason])


class Book:
    """One market. Not for several threads at a time."""

    def __init__(self, *, max_orders: int = 1_048_576) -> None:
        """`max_orders`: resting at once, 1 to 2^26. Memory is reserved up front, on huge pages where the system has
        them; what the first 16,384 orders need is touched at once, the rest when it is used.

        Raises ValueError, MemoryError.
        """
        if isinstance(max_orders, bool) or not isinstance(max_orders, int):
            raise TypeError(f"max_orders is an int, not {type(max_orders).__name__}")
        if not 1 <= max_orders <= ORDERS_MAX:
            raise ValueError(f"max_orders is 1 to {ORDERS_MAX}, not {max_orders}")
        out = ffi.new("lob **")
        if lib.lob_create(max_orders, out) != lib.ZX_OK:
            raise MemoryError("the tables of the book could not be reserved")
        self._lob: Any = ffi.gc(out[0], lib.lob_destroy)
        # The events of the last call; the address does not change.
        self._events = ffi.buffer(self._lob.events, (max_orders + _EVENTS_BESIDE_ORDERS) * EVENT_BYTES)

    def submit(
        self,
        order_id: int,
        side: SideName,
        price_ticks: int | None,
        qty_lots: int,
        *,
        order_type: OrderTypeName = "limit",
        tif: TimeInForceName = "gtc",
        post_only: bool = False,
        account: int = 0,
        stp: StpName = "none",
        **terms: Unpack[Terms],
    ) -> list[Event]:
        """Enter an order; returns what happened, in order.

        `price_ticks` None is any price, for market orders only; with a price that is the worst that one takes. A
        market order never rests, whatever `tif` says. `account`: 0 to 2^26-1, 0 for none; `stp` says what happens
        instead of a trade with the same account. Raises ValueError and TypeError for what is no command; a command
        that is refused gives `Rejected`.
        """
        if terms or tif in _EXCHANGE_TIMES:
            reason, price_ticks = self._with_terms(
                order_id, side, price_ticks, qty_lots, order_type, tif, post_only, account, stp, terms
            )
            if reason is not None:
                return [Rejected(order_id, reason)]
        try:
            events = _do(
                self._lob,
                0,
                order_id,
                _SIDES[side],
                0 if price_ticks is None else price_ticks,
                qty_lots,
                _ORDER_TYPES[order_type],
                _TIMES_IN_FORCE[tif],
                post_only,
                account,
                _STPS[stp],
            )
        except KeyError as error:
            raise ValueError(f"side, order_type, tif or stp: no such value {error}") from None
        except OverflowError:
            return self._out_of_range(order_id, price_ticks, qty_lots, account)
        return self._happened(events)

    def _with_terms(
        self,
        order_id: int,
        side: str,
        price_ticks: int | None,
        qty_lots: int,
        order_type: str,
        tif: str,
        post_only: bool,
        account: int,
        stp: str,
        terms: Terms,
    ) -> tuple[Reason | None, int | None]:
        """Why the terms of an order are rejected, if they are, and its price after sliding."""
        unknown = terms.keys() - Terms.__annotations__.keys()
        if unknown:
            raise TypeError(f"submit has no argument {min(unknown)!r}")
        slides, min_qty_lots = terms.get("slide", False), terms.get("min_qty_lots", 0)
        if tif in _EXCHANGE_TIMES or any(
            value for name, value in terms.items() if name not in ("slide", "min_qty_lots")
        ):
            return Reason.NEEDS_EXCHANGE, price_ticks
        if slides and not post_only:
            return Reason.SLIDE_WITHOUT_POST_ONLY, price_ticks
        is_immediate = tif == "ioc" or (order_type == "market" and tif == "gtc")
        if min_qty_lots and not (is_immediate and 1 <= min_qty_lots <= qty_lots):
            return Reason.MIN_QTY_INVALID, price_ticks
        any_price = price_ticks is None and order_type == "market"
        has_price = any_price or (price_ticks is not None and 1 <= price_ticks <= TICKS_MAX)
        if side not in _SIDES or not has_price or not 1 <= qty_lots <= LOTS_MAX or self.rests(order_id):
            return None, price_ticks  # the book says what is wrong
        if slides and price_ticks is not None:
            best = self.best_ask if side == "buy" else self.best_bid
            if best is not None and (price_ticks >= best if side == "buy" else price_ticks <= best):
                slid = best - 1 if side == "buy" else best + 1
                return None, slid if 1 <= slid <= TICKS_MAX else price_ticks
        if min_qty_lots and self._reaches(side, price_ticks, min_qty_lots, account, stp) < min_qty_lots:
            return Reason.MIN_QTY_NOT_FILLABLE, price_ticks
        return None, price_ticks

    def _reaches(self, side: str, price_ticks: int | None, wanted_lots: int, account: int, stp: str) -> int:
        """How many lots the order would fill at once; it need not count further than what is wanted."""
        is_buy, reached = side == "buy", 0

        def agrees(price: int) -> bool:
            return price_ticks is None or (price <= price_ticks if is_buy else price >= price_ticks)

        if account and stp != "none":
            for order in self.orders("sell" if is_buy else "buy"):
                is_own = order.account == account
                if not agrees(order.price_ticks) or (is_own and stp != "cancel_oldest"):
                    break
                reached += 0 if is_own else order.leaves_lots
            return reached
        levels = 8
        while True:
            found = self.depth(levels)[1 if is_buy else 0]
            reached = sum(lots for price, lots, _ in found if agrees(price))
            if reached >= wanted_lots or len(found) < levels or not agrees(found[-1][0]):
                return reached
            levels *= 4

    def cancel(self, order_id: int) -> list[Event]:
        """Take an order away; rejected if it does not rest."""
        try:
            events = _do(self._lob, 1, order_id, 0, 0, 0, 0, 0, 0, 0, 0)
        except OverflowError:
            raise ValueError(f"order_id is 0 to 2^64-1, not {order_id}") from None
        return self._happened(events)

    def amend(
        self,
        order_id: int,
        *,
        price_ticks: int | None = None,
        qty_lots: int | None = None,
        stp: StpName = "none",
    ) -> list[Event]:
        """Change price, total quantity (what is filled included) or both.

        Less at the same price keeps the order's place; anything else goes to the back of its level, and may trade.
        """
        # 0 means "as it is" in a command; here None does, and 0 is as wrong as any other number out of range.
        price = 0 if price_ticks is None else price_ticks or -1
        qty = 0 if qty_lots is None else qty_lots or U64_MAX
        try:
            events = _do(self._lob, 2, order_id, 0, price, qty, 0, 0, 0, 0, _STPS[stp])
        except KeyError as error:
            raise ValueError(f"stp: no such value {error}") from None
        except OverflowError:
            return self._out_of_range(order_id, price_ticks, qty_lots, 0)
        return self._happened(events)

    def apply(self, commands: Any, events: Any) -> tuple[int, int]:
        """Apply commands of a buffer; returns how many, and how many events were written to the other.

        `commands` holds `COMMAND_DTYPE` records, `events` has room for `EVENT_DTYPE` records: any object with the
        buffer protocol, such as NumPy arrays or bytearrays. Fewer than all commands are applied when `events` is
        full, none when there is not room for the events of one: room for as many events as orders rest and four more
        is always enough. A record that is no command gives an event with reason MALFORMED. Raises ValueError for
        buffers of a wrong size, BufferError for events that cannot be written.
        """
        source = ffi.from_buffer(commands)
        target = ffi.from_buffer(events, require_writable=True)
        if len(source) % COMMAND_BYTES or len(target) % EVENT_BYTES:
            raise ValueError(
                f"commands are records of {COMMAND_BYTES} bytes and events of {EVENT_BYTES}, not "
                f"{len(source)} and {len(target)} bytes in all"
            )
        written = ffi.new("size_t *")
        applied = lib.lob_apply_into(
            self._lob,
            ffi.cast("lob_command *", source),
            len(source) // COMMAND_BYTES,
            ffi.cast("lob_event *", target),
            len(target) // EVENT_BYTES,
            written,
        )
        return int(applied), int(written[0])

    @property
    def best_bid(self) -> int | None:
        """Best price of the buy side, or None."""
        return lib.lob_best(self._lob, 0) or None

    @property
    def best_ask(self) -> int | None:
        """Best price of the sell side, or None."""
        return lib.lob_best(self._lob, 1) or None

    def __len__(self) -> int:
        """Resting orders."""
        return int(lib.lob_count(self._lob))

    def rests(self, order_id: int) -> bool:
        """Whether an order with this id rests. Raises OverflowError for what is no id."""
        return bool(lib.lob_rests(self._lob, order_id))

    def depth(self, levels: int) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """(bids, asks), each a list of (price_ticks, qty_lots, orders) from the best, at most `levels` long."""
        room = min(max(levels, 0), len(self))
        found = ffi.new("lob_level[]", room)
        sides = []
        for side in (0, 1):
            count = lib.lob_depth(self._lob, side, room, found)
            sides.append([(one.price_ticks, one.qty_lots, one.orders) for one in ffi.unpack(found, count)])
        return sides[0], sides[1]

    def orders(self, side: SideName) -> list[Order]:
        """The resting orders of a side in order of priority. Raises ValueError."""
        if side not in _SIDES:
            raise ValueError(f"side is 'buy' or 'sell', not {side!r}")
        found = ffi.new("lob_order[]", len(self))
        count = lib.lob_orders(self._lob, _SIDES[side], len(self), found)
        return [
            Order(one.order_id, one.price_ticks, one.qty_lots, one.leaves_lots, one.account)
            for one in ffi.unpack(found, count)
        ]

    def check(self) -> None:
        """Walk every invariant. Raises AssertionError: the book is broken, which is a defect of ours."""
        broken = lib.lob_check(self._lob)
        if broken != ffi.NULL:
            raise AssertionError(ffi.string(broken).decode())

    def _happened(self, count: int) -> list[Event]:
        if count == 1:
            return [_event(_EVENT.unpack_from(self._events))]
        return [_event(one) for one in _EVENT.iter_unpack(self._events[: count * EVENT_BYTES])]

    def _out_of_range(
        self, order_id: int, price_ticks: int | None, qty_lots: int | None, account: int
    ) -> list[Event]:
        """Numbers that do not fit into a command."""
        if not 0 <= order_id <= U64_MAX:
            raise ValueError(f"order_id is 0 to 2^64-1, not {order_id}")
        if not 0 <= account <= ACCOUNT_MAX:
            raise ValueError(f"account is 0 to 2^26-1, not {account}")
        wrong_price = price_ticks is not None and not -(2**63) <= price_ticks < 2**63
        return [Rejected(order_id, Reason.PRICE_OUT_OF_RANGE if wrong_price else Reason.QTY_OUT_OF_RANGE)]
