"""LOBSTER files: reading them, turning their events into orders, and comparing depth. Pure: no socket, no clock.

A LOBSTER message file holds one event per row, the order book file the best levels of both sides after each event.
The events name orders by number. This module decides which order of ours each event is about:

* An order that arrives in the file (type 1) is entered under its own number.
* What rested before the first row has numbers that never arrive. The opening book is seeded from the first row, one
  order without a number per level; an event with an unknown number at that price is about the seed.
* An execution (type 4) is an incoming immediate-or-cancel order of the opposite side, which must be filled by that
  very order.
* The files show a fixed number of levels. When a level goes, the one that moves up into view may be one that nothing
  has told of, or one that changed while it was out of view. Only such levels, deeper than all that was visible one row
  before, are brought in line without a message: `Shadow.reveal`. Everything that was visible must follow from the
  messages alone.

Prices are integers of 0.0001 of the quote currency and sizes are whole shares, as in the files.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from zexchange.limits import PRICE_TICKS_MAX, QTY_LOTS_MAX

__all__ = [
    "Action",
    "BookRow",
    "Cancel",
    "Difference",
    "Kind",
    "LobsterError",
    "Message",
    "OwnOrder",
    "Place",
    "Reduce",
    "SetState",
    "Shadow",
    "SideName",
    "Take",
    "compare",
    "parse_book",
    "parse_messages",
    "read_book",
    "read_messages",
]

SideName: TypeAlias = Literal["buy", "sell"]
Level: TypeAlias = tuple[int, int]  # price, size

_EMPTY_PRICE = 9_999_999_999  # asks; bids have the negative
_COLUMNS_PER_LEVEL = 4
CLIENT_ORDER_ID_MAX = 2**64 - 1
_MESSAGE_COLUMNS = 6


class LobsterError(ValueError):
    """A file is not in LOBSTER's format; the text names file, line and what is wrong."""


class Kind(IntEnum):
    """Event types of the message file."""

    NEW = 1
    REDUCE = 2  # size is the part taken away
    DELETE = 3
    EXECUTE = 4
    EXECUTE_HIDDEN = 5  # does not change the visible book
    CROSS = 6  # auction; does not change the visible book
    HALT = 7  # price -1: halted, 0: quoting resumes, 1: trading resumes


class Message(msgspec.Struct, frozen=True):
    """One row of the message file. `side` is that of the resting order."""

    time: str  # seconds after midnight, as written
    kind: Kind
    number: int
    size: int
    price: int
    side: SideName


class BookRow(msgspec.Struct, frozen=True):
    """One row of the order book file: the visible levels, best first, without the padding of empty ones."""

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    depth: int  # levels the file has room for, per side

    def side(self, side: SideName) -> tuple[Level, ...]:
        """The levels of one side."""
        return self.bids if side == "buy" else self.asks


# ---------------------------------------------------------------- reading


def read_messages(path: Path) -> list[Message]:
    """All rows of a message file. Raises LobsterError, OSError."""
    with path.open(encoding="ascii", errors="replace") as lines:
        return list(parse_messages(lines, str(path)))


def read_book(path: Path) -> list[BookRow]:
    """All rows of an order book file. Raises LobsterError, OSError."""
    with path.open(encoding="ascii", errors="replace") as lines:
        return list(parse_book(lines, str(path)))


def parse_messages(lines: Iterator[str] | Sequence[str], source: str = "messages") -> Iterator[Message]:
    """Rows of a message file, checked."""
    for line_no, line in _rows(lines):
        cells = line.split(",")
        where = f"{source}, line {line_no}"
        if len(cells) < _MESSAGE_COLUMNS:
            raise LobsterError(f"{where}: {len(cells)} columns; a message has {_MESSAGE_COLUMNS}")
        kind_no, number, size, price, direction = (
            _integer(cell, where) for cell in cells[1:_MESSAGE_COLUMNS]
        )
        try:
            kind = Kind(kind_no)
        except ValueError:
            raise LobsterError(f"{where}: event type {kind_no} is not one of 1 to 7") from None
        if direction not in (1, -1):
            raise LobsterError(f"{where}: direction {direction} is neither 1 nor -1")
        if kind <= Kind.EXECUTE and not (1 <= size <= QTY_LOTS_MAX and 1 <= price <= PRICE_TICKS_MAX):
            raise LobsterError(f"{where}: size and price must be positive, and below 2^53")
        if not 0 <= number <= CLIENT_ORDER_ID_MAX:
            raise LobsterError(f"{where}: order number {number} is not in 0 to 2^64-1")
        yield Message(cells[0], kind, number, size, price, "buy" if direction == 1 else "sell")


def parse_book(lines: Iterator[str] | Sequence[str], source: str = "book") -> Iterator[BookRow]:
    """Rows of an order book file, checked."""
    columns = 0
    for line_no, line in _rows(lines):
        where = f"{source}, line {line_no}"
        cells = [_integer(cell, where) for cell in line.split(",")]
        columns = columns or len(cells)
        if len(cells) != columns or not cells or len(cells) % _COLUMNS_PER_LEVEL:
            raise LobsterError(
                f"{where}: {len(cells)} columns; every row has the same multiple of {_COLUMNS_PER_LEVEL}"
            )
        asks = _levels(cells[0::4], cells[1::4], _EMPTY_PRICE)
        bids = _levels(cells[2::4], cells[3::4], -_EMPTY_PRICE)
        for levels, sign in ((asks, 1), (bids, -1)):
            prices = [sign * price for price, _ in levels]
            if any(size < 1 for _, size in levels) or any(a >= b for a, b in pairwise(prices)):
                raise LobsterError(f"{where}: levels are not best first with positive sizes")
            if any(not 1 <= price <= PRICE_TICKS_MAX or size > QTY_LOTS_MAX for price, size in levels):
                raise LobsterError(f"{where}: prices must be positive, and prices and sizes below 2^53")
        yield BookRow(bids, asks, columns // _COLUMNS_PER_LEVEL)


def _rows(lines: Iterator[str] | Sequence[str]) -> Iterator[tuple[int, str]]:
    for line_no, line in enumerate(lines, 1):
        text = line.strip()
        if text:
            yield line_no, text


def _integer(cell: str, where: str) -> int:
    try:
        return int(cell)
    except ValueError:
        raise LobsterError(f"{where}: {cell[:40]!r} is not a whole number") from None


def _levels(prices: list[int], sizes: list[int], empty: int) -> tuple[Level, ...]:
    return tuple((price, size) for price, size in zip(prices, sizes, strict=True) if price != empty)


# ---------------------------------------------------------------- actions


@dataclass(eq=False)
class OwnOrder:
    """An order of ours that rests, or is about to. `number` is the file's, None for a seed."""

    number: int | None
    side: SideName
    price: int
    total: int  # intended quantity, fills included
    leaves: int
    order_id: int = 0  # the exchange's, once known


@dataclass(frozen=True)
class Place:
    """Enter `order` as a limit order, good till cancelled."""

    order: OwnOrder


@dataclass(frozen=True)
class Reduce:
    """Amend `order` to this intended total."""

    order: OwnOrder
    total: int


@dataclass(frozen=True)
class Cancel:
    """Cancel `order`."""

    order: OwnOrder


@dataclass(frozen=True)
class Take:
    """Enter an immediate-or-cancel order on `side`; `makers` are the orders that must fill it, first ones first."""

    side: SideName
    price: int
    size: int
    makers: tuple[OwnOrder, ...]


@dataclass(frozen=True)
class SetState:
    """Halt the market, or let it trade again."""

    state: Literal["halted", "continuous"]


Action: TypeAlias = Place | Reduce | Cancel | Take | SetState


# ---------------------------------------------------------------- the shadow book


@dataclass
class Shadow:
    """Our open orders, per side and price in time priority: what the exchange's book should hold.

    The caller carries out every action, in order, and reports what only the exchange knows: the ids of orders
    (`placed`) and the fills of takes (`filled`). The shadow decides what to send; it never replaces the exchange's
    book in a comparison.
    """

    levels: dict[SideName, dict[int, list[OwnOrder]]] = field(default_factory=lambda: {"buy": {}, "sell": {}})
    by_number: dict[int, OwnOrder] = field(default_factory=dict)
    by_order_id: dict[int, OwnOrder] = field(default_factory=dict)
    halted: bool = False
    revealed_levels: int = 0  # levels that came into view without a message, or changed while out of view
    vanished_levels: int = 0  # levels of ours that went while out of view
    unknown_events: int = 0  # events about an order that is neither known nor seeded

    def opening(self, message: Message, row: BookRow) -> list[Action]:
        """The book before the first message: the first row, less the first message if that is a new order.

        Any other first event cannot be undone from its row alone, so then the opening book is the first row itself,
        and the caller must not play the first message.
        """
        actions: list[Action] = []
        for side in _SIDES:
            for price, size in row.side(side):
                if message.kind is Kind.NEW and (side, price) == (message.side, message.price):
                    size -= message.size
                if size > 0:
                    actions.append(self._place(OwnOrder(None, side, price, size, size)))
        return actions

    def actions(self, message: Message) -> list[Action]:
        """What the event asks of the exchange."""
        match message.kind:
            case Kind.NEW:
                order = OwnOrder(message.number, message.side, message.price, message.size, message.size)
                return [self._place(order)]
            case Kind.REDUCE | Kind.DELETE:
                return self._withdraw(message)
            case Kind.EXECUTE:
                return [self._take(message)]
            case Kind.HALT:
                self.halted = message.price == -1
                return [SetState("halted" if self.halted else "continuous")]
            case Kind.EXECUTE_HIDDEN | Kind.CROSS:
                return []

    def reveal(self, before: BookRow, row: BookRow) -> list[Action]:
        """What the row shows, or no longer shows, beyond all that was visible in the row before."""
        actions: list[Action] = []
        for side in _SIDES:
            seen, shown = before.side(side), row.side(side)
            if len(seen) < before.depth:
                continue  # the whole side was visible: nothing can come into view without a message
            sign = -1 if side == "buy" else 1
            edge = sign * seen[-1][0]
            deeper = {price: size for price, size in shown if sign * price > edge}
            for price, size in deeper.items():
                held = sum(order.leaves for order in self.levels[side].get(price, ()))
                if held == size:
                    continue
                self.revealed_levels += 1
                if held < size:
                    actions.append(self._place(OwnOrder(None, side, price, size - held, size - held)))
                else:
                    # Which orders went is not known. The newest are taken: those that stay keep the true priority.
                    actions += self._shrink(list(reversed(self.levels[side][price])), held - size)
            # What is deeper than a full row's last level is out of view again; a shorter row shows the whole side.
            end = sign * shown[-1][0] if len(shown) == row.depth else None
            for price in list(self.levels[side]):
                in_view = edge < sign * price and (end is None or sign * price <= end)
                if in_view and price not in deeper:
                    self.vanished_levels += 1
                    actions += self._shrink(list(self.levels[side][price]), None)
        if self.halted and any(isinstance(action, Place) for action in actions):
            # A halted market takes no orders, but what is only now seen was there before the halt.
            return [SetState("continuous"), *actions, SetState("halted")]
        return actions

    def placed(self, order: OwnOrder, order_id: int) -> None:
        """The exchange accepted the order under this id."""
        order.order_id = order_id
        self.by_order_id[order_id] = order

    def refused(self, order: OwnOrder) -> None:
        """The exchange refused the order: it does not rest, and nothing can be asked of it."""
        self._take_away(order, order.leaves)

    def filled(self, order_id: int, size: int) -> None:
        """The exchange filled `size` of the resting order with this id."""
        order = self.by_order_id.get(order_id)
        if order is not None:
            self._take_away(order, min(size, order.leaves))

    def depth(self, side: SideName, levels: int) -> tuple[Level, ...]:
        """Best levels of one side."""
        prices: list[int] = []
        for price in self.levels[side]:
            insort(prices, -price if side == "buy" else price)
        found = (
            (abs(price), sum(order.leaves for order in self.levels[side][abs(price)])) for price in prices
        )
        return tuple(found)[:levels]

    # -- parts

    def _place(self, order: OwnOrder) -> Place:
        self.levels[order.side].setdefault(order.price, []).append(order)
        if order.number is not None:
            # A number that is in use already stays with the order that has it: the exchange will refuse the second.
            self.by_number.setdefault(order.number, order)
        return Place(order)

    def _meant(self, message: Message) -> list[OwnOrder]:
        """The orders an event can be about: the one with its number, or else the seeds at its price."""
        known = self.by_number.get(message.number)
        if known is not None:
            return [known]
        seeds = [order for order in self.levels[message.side].get(message.price, ()) if order.number is None]
        if not seeds:
            self.unknown_events += 1
        return seeds

    def _withdraw(self, message: Message) -> list[Action]:
        orders = self._meant(message)
        if orders and orders[0].number is not None and message.kind is Kind.DELETE:
            return self._shrink(orders, None)
        return self._shrink(orders, message.size)

    def _take(self, message: Message) -> Take:
        makers = tuple(self._meant(message))
        return Take("sell" if message.side == "buy" else "buy", message.price, message.size, makers)

    def _shrink(self, orders: list[OwnOrder], size: int | None) -> list[Action]:
        """Take `size` (None: everything) from `orders`, first ones first."""
        actions: list[Action] = []
        for order in orders:
            part = order.leaves if size is None else min(size, order.leaves)
            if part == 0:
                break
            if size is not None:
                size -= part
            if part == order.leaves:
                actions.append(Cancel(order))
            else:
                actions.append(Reduce(order, order.total - part))
                order.total -= part
            self._take_away(order, part)
        return actions

    def _take_away(self, order: OwnOrder, size: int) -> None:
        order.leaves -= size
        if order.leaves > 0:
            return
        orders = self.levels[order.side][order.price]
        orders.remove(order)
        if not orders:
            del self.levels[order.side][order.price]
        self.by_order_id.pop(order.order_id, None)
        if order.number is not None and self.by_number.get(order.number) is order:
            del self.by_number[order.number]


_SIDES: tuple[SideName, SideName] = ("buy", "sell")


# ---------------------------------------------------------------- comparing


class Difference(msgspec.Struct, frozen=True):
    """One level that is not as the file says. None: no such level."""

    side: SideName
    level: int  # from 1
    expected: Level | None
    found: Level | None


def compare(row: BookRow, bids: Sequence[Level], asks: Sequence[Level]) -> list[Difference]:
    """Our depth (best first) against a row of the file, level by level."""
    differences = []
    sides: tuple[tuple[SideName, Sequence[Level]], ...] = (("buy", bids), ("sell", asks))
    for side, ours in sides:
        theirs = row.side(side)
        for index in range(row.depth):
            expected = theirs[index] if index < len(theirs) else None
            found = ours[index] if index < len(ours) else None
            if expected != found:
                differences.append(Difference(side, index + 1, expected, found))
    return differences
