"""A small order flow in LOBSTER format with its expected book, from a seed.

The generator keeps a naive book of its own (lists of orders), far simpler than any engine, and writes what a recorder
with a limited view would have written: only events at visible levels get a row, and the book is cut to the best levels.
So the files contain what is hard about real ones: orders from before the first row, levels that appear or are gone
without a message, partial executions, hidden executions, and a halt.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from zexchange.replay.lobster import SideName

__all__ = ["SyntheticFlow", "synthetic_flow"]

_TICK = 100  # one cent, in units of 0.0001
_MID = 1_000_000  # 100 dollars
_EMPTY = 9_999_999_999


@dataclass
class _Order:
    number: int
    size: int


@dataclass
class SyntheticFlow:
    """Rows of both files, and how many executions of visible orders they hold."""

    messages: list[str] = field(default_factory=list)
    book: list[str] = field(default_factory=list)
    executions: int = 0


class _Generator:
    def __init__(self, seed: int, levels: int) -> None:
        self.random = random.Random(seed)
        self.levels = levels
        self.sides: dict[SideName, dict[int, list[_Order]]] = {"buy": {}, "sell": {}}
        self.flow = SyntheticFlow()
        # Prices that were emptied out of view: an order there later could not be told from the one before it.
        self.gone: set[tuple[SideName, int]] = set()
        self.number = 1000
        self.time_ns = 34_200 * 10**9
        for distance in range(1, levels + 6):
            for side in ("buy", "sell"):
                self._rest(side, _MID - _SIGN[side] * _TICK * 2 * distance)

    def run(self, rows: int) -> SyntheticFlow:
        self._new(at_best=True)
        while len(self.flow.messages) < rows:
            if len(self.flow.messages) == rows // 2:
                self._halt()
            action = self.random.choices(
                [
                    self._new,
                    self._cancel_part,
                    self._cancel_whole,
                    self._execute,
                    self._hidden_execution,
                    self._unseen,
                ],
                weights=[40, 8, 25, 15, 4, 8],
            )[0]
            action()
        return self.flow

    # -- events

    def _halt(self) -> None:
        """Trading stops, an order is cancelled, trading resumes."""
        self._row(7, 0, 0, -1, "sell")
        side: SideName = max(("buy", "sell"), key=lambda name: len(self.sides[name]))
        price = self._prices(side)[0]
        order = self.sides[side][price][0]
        size = order.size
        self._take(side, price, order, size)
        self._row(3, order.number, size, price, side)
        self._row(7, 0, 0, 1, "sell")

    def _new(self, at_best: bool = False) -> None:
        side: SideName = self.random.choice(("buy", "sell"))
        best = self._prices(side)[0]
        distance = 0 if at_best else self.random.randrange(-1, self.levels + 1)
        price = best - _SIGN[side] * _TICK * distance
        other = self._prices("sell" if side == "buy" else "buy")[0]
        if _SIGN[side] * price >= _SIGN[side] * other:
            price = best
        if price in self._prices(side)[self.levels :] or (side, price) in self.gone:
            return  # two unknown orders at one price could not be told apart in the file
        order = self._rest(side, price)
        if self._visible(side, price):
            self._row(1, order.number, order.size, price, side)

    def _cancel_part(self) -> None:
        self._cancel(whole=False)

    def _cancel_whole(self) -> None:
        self._cancel(whole=True)

    def _cancel(self, *, whole: bool) -> None:
        side: SideName = self.random.choice(("buy", "sell"))
        if sum(map(len, self.sides[side].values())) <= self.levels + 2:
            self._new()
            return
        price = self.random.choice(self._prices(side)[: self.levels])
        order = self.random.choice(self.sides[side][price])
        if not whole and order.size == 1:
            return
        size = order.size if whole else self.random.randrange(1, order.size)
        self._take(side, price, order, size)
        self._row(3 if whole else 2, order.number, size, price, side)

    def _execute(self) -> None:
        side: SideName = self.random.choice(("buy", "sell"))
        if len(self.sides[side]) <= self.levels:
            self._new()
            return
        price = self._prices(side)[0]
        order = self.sides[side][price][0]
        size = self.random.choice((order.size, self.random.randint(1, order.size)))
        self._take(side, price, order, size)
        self.flow.executions += 1
        self._row(4, order.number, size, price, side)

    def _hidden_execution(self) -> None:
        self._row(5, 0, self.random.randint(1, 50), _MID + 50, self.random.choice(("buy", "sell")))

    def _unseen(self) -> None:
        """Something out of view: a new level, or the newest order of one goes. No row."""
        side: SideName = self.random.choice(("buy", "sell"))
        prices = self._prices(side)
        if len(prices) < self.levels:
            return  # the whole side is in view
        hidden = prices[self.levels :]
        if hidden and self.random.random() < 0.6:
            price = self.random.choice(hidden)
            order = self.sides[side][price][-1]
            self._take(side, price, order, order.size)
            if price not in self.sides[side]:
                self.gone.add((side, price))
        else:
            price = prices[-1] - _SIGN[side] * _TICK * self.random.randint(1, 3)
            if (side, price) not in self.gone:
                self._rest(side, price)

    # -- parts

    def _rest(self, side: SideName, price: int) -> _Order:
        self.number += 1
        order = _Order(self.number, self.random.randint(1, 300))
        self.sides[side].setdefault(price, []).append(order)
        return order

    def _take(self, side: SideName, price: int, order: _Order, size: int) -> None:
        order.size -= size
        if order.size == 0:
            self.sides[side][price].remove(order)
            if not self.sides[side][price]:
                del self.sides[side][price]

    def _prices(self, side: SideName) -> list[int]:
        """Best first."""
        return sorted(self.sides[side], reverse=side == "buy")

    def _visible(self, side: SideName, price: int) -> bool:
        return price in self._prices(side)[: self.levels]

    def _row(self, kind: int, number: int, size: int, price: int, side: SideName) -> None:
        self.time_ns += self.random.randrange(1, 50_000_000)
        time = f"{self.time_ns // 10**9}.{self.time_ns % 10**9:09d}"
        self.flow.messages.append(f"{time},{kind},{number},{size},{price},{_SIGN[side]}")
        cells: list[int] = []
        asks, bids = self._prices("sell"), self._prices("buy")
        for level in range(self.levels):
            for side_name, prices, empty in (("sell", asks, _EMPTY), ("buy", bids, -_EMPTY)):
                if level < len(prices):
                    orders = self.sides["sell" if side_name == "sell" else "buy"][prices[level]]
                    cells += [prices[level], sum(order.size for order in orders)]
                else:
                    cells += [empty, 0]
        self.flow.book.append(",".join(map(str, cells)))


_SIGN: dict[SideName, int] = {"buy": 1, "sell": -1}


def synthetic_flow(seed: int = 1, rows: int = 300, levels: int = 5) -> SyntheticFlow:
    """`rows` or a few more events with the book after each; the same for the same arguments, on every machine."""
    return _Generator(seed, levels).run(rows)
