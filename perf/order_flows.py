"""Order flows for benchmarks of the book, from fixed seeds, as records of zexchange.book.COMMAND_DTYPE.

Each is made against a real book, so that what is cancelled and amended rests at that moment.
"""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from zexchange.book import COMMAND_DTYPE, Book, Side

MARKETS = 21_000
MIX_ORDERS = 1_000
MIX_SLOTS = 750
_ORDERS_PER_MARKET = 10
_NEW, _CANCEL, _AMEND = 0, 1, 2
_LIMIT, _GTC, _IOC = 0, 0, 1


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """Commands; those before `first` only fill the book."""

    name: str
    commands: Any
    first: int
    orders_max: int
    markets: Any = None
    """Market of each command, below `market_count`; None where there is but one."""
    market_count: int = 1


class _Writer:
    """Applies commands to a book while it writes them down."""

    def __init__(self, orders_max: int, seed: int) -> None:
        self.rows: list[tuple[int, int, int, int, int, int, int]] = []
        self.book = Book(max_orders=orders_max)
        self.random = random.Random(seed)
        self.resting: list[int] = []
        self.where: dict[int, int] = {}
        self.orders: dict[int, tuple[int, int]] = {}
        """Side and price of what rests."""
        self._next_id = 1

    def new(self, side: int, price: int, qty: int, ioc: bool = False) -> None:
        order_id = self._next_id
        self._next_id += 1
        self._row(order_id, price, qty, _NEW, side, _IOC if ioc else _GTC)
        name = "buy" if side == Side.BUY else "sell"
        events = self.book.submit(order_id, name, price, qty, tif="ioc" if ioc else "gtc")  # type: ignore[arg-type]
        self._after(events, order_id, side, price, rests=not ioc, leaves=qty)

    def cancel(self, order_id: int) -> None:
        self._row(order_id, 0, 0, _CANCEL, self.orders[order_id][0], _GTC)
        self.book.cancel(order_id)
        self._gone(order_id)

    def amend(self, order_id: int, price: int, qty: int) -> None:
        side = self.orders[order_id][0]
        self._row(order_id, price, qty, _AMEND, side, _GTC)
        events = self.book.amend(order_id, price_ticks=price, qty_lots=qty)
        self._gone(order_id)
        self._after(events, order_id, side, price, rests=True, leaves=qty)

    def any_resting(self) -> int:
        return self.resting[self.random.randrange(len(self.resting))]

    def array(self) -> Any:
        commands = np.zeros(len(self.rows), np.dtype(COMMAND_DTYPE))
        columns = list(zip(*self.rows, strict=True))
        names = ("order_id", "price_ticks", "qty_lots", "kind", "side", "time_in_force", "order_type")
        for name, values in zip(names, columns, strict=True):
            commands[name] = values
        return commands

    def _row(self, order_id: int, price: int, qty: int, kind: int, side: int, tif: int) -> None:
        self.rows.append((order_id, price, qty, kind, side, tif, _LIMIT))

    def _after(
        self, events: list[Any], order_id: int, side: int, price: int, *, rests: bool, leaves: int
    ) -> None:
        for event in events:
            maker = getattr(event, "maker_order_id", None)
            if maker is None:
                continue
            leaves -= event.qty_lots
            if not self.book.rests(maker):
                self._gone(maker)
        if rests and leaves > 0 and self.book.rests(order_id):
            self.where[order_id] = len(self.resting)
            self.resting.append(order_id)
            self.orders[order_id] = (side, price)

    def _gone(self, order_id: int) -> None:
        at = self.where.pop(order_id, None)
        if at is None:
            return
        last = self.resting.pop()
        if last != order_id:
            self.resting[at] = last
            self.where[last] = at
        del self.orders[order_id]


def mix(count: int) -> Flow:
    """9 % GTC, 3 % IOC, 6 % cancel, 82 % amend on about 1,000 resting orders in 750 price slots; some 6 % trade."""
    writer = _Writer(4_096, seed=1)
    middle, half = 100_000, MIX_SLOTS // 2
    chance = writer.random.random

    def price(side: int) -> int:
        # A triangle around a spread of a few ticks: most orders away from the middle, a few beyond it.
        away = round(abs(chance() + chance() - 1) * half) - 12
        return middle - away if side == Side.BUY else middle + away

    while len(writer.resting) < MIX_ORDERS:
        side = writer.random.getrandbits(1)
        writer.new(side, price(side), 1 + writer.random.randrange(100))
    first = len(writer.rows)
    while len(writer.rows) - first < count:
        dice = chance()
        side = writer.random.getrandbits(1)
        wanted = len(writer.resting) < MIX_ORDERS
        if dice < (0.15 if wanted else 0.06):
            writer.new(side, price(side), 1 + writer.random.randrange(100))
        elif dice < 0.15:
            writer.cancel(writer.any_resting())
        elif dice < 0.18:
            at = middle + 40 if side == Side.BUY else middle - 40
            writer.new(side, at, 1 + writer.random.randrange(150), ioc=True)
        else:
            order_id = writer.any_resting()
            writer.amend(order_id, price(writer.orders[order_id][0]), 1 + writer.random.randrange(100))
    return Flow(name="mix", commands=writer.array(), first=first, orders_max=4_096)


def equity(count: int) -> Flow:
    """A random walk of the middle, depth by a power law, 95 % of orders cancelled, 15 % IOC, 20 % amends."""
    writer = _Writer(65_536, seed=2)
    generator = writer.random
    middle = 1_000_000.0

    def away() -> int:
        return min(5_000, int(generator.paretovariate(1.2)))

    while len(writer.resting) < 5_000:
        side = generator.getrandbits(1)
        writer.new(side, int(middle) + (-away() if side == Side.BUY else away()), 100)
    first = len(writer.rows)
    while len(writer.rows) - first < count:
        middle *= 1 + generator.gauss(0, 1e-7)
        dice = generator.random()
        side = generator.getrandbits(1)
        if dice < 0.15:
            at = int(middle) + (3 if side == Side.BUY else -3)
            writer.new(side, at, 1 + generator.randrange(200), ioc=True)
        elif dice < 0.35:
            order_id = writer.any_resting()
            own = writer.orders[order_id][0]
            writer.amend(order_id, int(middle) + (-away() if own == Side.BUY else away()), 100)
        elif dice < 0.675 or len(writer.resting) < 1_000:
            writer.new(
                side, int(middle) + (-away() if side == Side.BUY else away()), 1 + generator.randrange(300)
            )
        else:
            writer.cancel(writer.any_resting())
    return Flow(name="equity", commands=writer.array(), first=first, orders_max=65_536)


def build_and_cancel(count: int, levels: int = 10_000) -> Flow:
    """Half of the commands rest orders over so many levels, half cancel them in random order."""
    orders = count // 2
    generator = np.random.default_rng(3)
    commands = np.zeros(2 * orders, np.dtype(COMMAND_DTYPE))
    side = generator.integers(0, 2, orders)
    away = generator.integers(1, levels // 2 + 1, orders)
    commands["order_id"][:orders] = np.arange(1, orders + 1)
    commands["side"][:orders] = side
    commands["price_ticks"][:orders] = np.where(side == Side.BUY, 1_000_000 - away, 1_000_000 + away)
    commands["qty_lots"][:orders] = 10
    commands["kind"][orders:] = _CANCEL
    commands["order_id"][orders:] = generator.permutation(np.arange(1, orders + 1))
    return Flow(name="build and cancel", commands=commands, first=0, orders_max=orders)


def sweep(count: int, levels: int = 20) -> Flow:
    """By turns: so many levels are refilled with an order each, and one immediate order sweeps them."""
    rounds = max(1, count // (levels + 1))
    commands = np.zeros(rounds * (levels + 1), np.dtype(COMMAND_DTYPE))
    shaped = commands.reshape(rounds, levels + 1)
    shaped["order_id"] = np.arange(1, commands.size + 1).reshape(shaped.shape)
    taker_side = np.arange(rounds) % 2
    shaped["side"] = (1 - taker_side)[:, None]
    shaped["side"][:, -1] = taker_side
    away = np.arange(1, levels + 1)
    shaped["price_ticks"][:, :-1] = np.where(
        (taker_side == Side.BUY)[:, None], 1_000_000 + away, 1_000_000 - away
    )
    shaped["price_ticks"][:, -1] = np.where(taker_side == Side.BUY, 1_000_000 + levels, 1_000_000 - levels)
    shaped["qty_lots"][:, :-1] = 5
    shaped["qty_lots"][:, -1] = 5 * levels
    shaped["time_in_force"][:, -1] = _IOC
    return Flow(name="sweep", commands=commands, first=0, orders_max=4_096)


def sparse(count: int) -> Flow:
    """Orders anywhere in the range of prices, and as many cancels, on about 10,000 that rest."""
    generator = np.random.default_rng(4)
    resting = 10_000
    commands = np.zeros(resting + count, np.dtype(COMMAND_DTYPE))
    news = np.arange(resting + count)
    is_cancel = np.zeros(resting + count, bool)
    is_cancel[resting::2] = True
    commands["kind"] = np.where(is_cancel, _CANCEL, _NEW)
    numbers = np.cumsum(~is_cancel)
    # A cancel takes the order that has rested longest; prices are random, so that is any place in the book.
    commands["order_id"] = np.where(is_cancel, np.cumsum(is_cancel), numbers)
    side = generator.integers(0, 2, news.size)
    low = generator.integers(1, 2**52, news.size)
    high = generator.integers(2**52, 2**53 - 1, news.size)
    commands["side"] = side
    commands["price_ticks"] = np.where(side == Side.BUY, low, high)
    commands["qty_lots"] = 7
    return Flow(name="sparse", commands=commands, first=resting, orders_max=65_536)


class _Queues:
    """What rests in one market, by side: (price, negated for buys; when it came; id; quantity), sorted."""

    def __init__(self) -> None:
        self.sides: tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int, int]]] = ([], [])

    def __len__(self) -> int:
        return len(self.sides[0]) + len(self.sides[1])

    def pick(self, index: int) -> tuple[int, int]:
        """Side and place of one of its orders."""
        buys = len(self.sides[Side.BUY])
        return (Side.BUY, index) if index < buys else (Side.SELL, index - buys)


def many_markets(count: int) -> Flow:
    """Some ten orders in each of MARKETS markets: 44 % new, 41 % cancel, 10 % amend, 5 % take the best order."""
    market_count = MARKETS
    generator = random.Random(5)
    queues = [_Queues() for _ in range(market_count)]
    rows: list[tuple[int, int, int, int, int, int]] = []
    markets: list[int] = []
    middle = 100_000

    def rest(queue: _Queues, order_id: int, side: int, not_at: int = 0) -> tuple[int, int]:
        price, qty = not_at, 1 + generator.randrange(100)
        while price == not_at:
            away = 1 + generator.randrange(8)
            price = middle - away if side == Side.BUY else middle + away
        insort(queue.sides[side], (price if side == Side.SELL else -price, len(rows), order_id, qty))
        return price, qty

    def write(
        market: int, order_id: int, price: int, qty: int, kind: int, side: int, tif: int = _GTC
    ) -> None:
        rows.append((order_id, price, qty, kind, side, tif))
        markets.append(market)

    order_id = 0
    first = market_count * _ORDERS_PER_MARKET
    for number in range(first + count):
        market = number % market_count if number < first else generator.randrange(market_count)
        queue = queues[market]
        dice = generator.random()
        if number < first or len(queue) < _ORDERS_PER_MARKET // 2 or dice < 0.44:
            order_id += 1
            side = generator.getrandbits(1)
            write(market, order_id, *rest(queue, order_id, side), _NEW, side)
            continue
        side, place = queue.pick(generator.randrange(len(queue)))
        if dice < 0.85:
            write(market, queue.sides[side].pop(place)[2], 0, 0, _CANCEL, side)
        elif dice < 0.95:
            rank, _, amended, _ = queue.sides[side].pop(place)
            write(market, amended, *rest(queue, amended, side, not_at=abs(rank)), _AMEND, side)
        else:
            rank, _, _, qty = queue.sides[side].pop(0)
            order_id += 1
            write(market, order_id, abs(rank), qty, _NEW, side ^ 1, _IOC)
    commands = np.zeros(len(rows), np.dtype(COMMAND_DTYPE))
    names = ("order_id", "price_ticks", "qty_lots", "kind", "side", "time_in_force")
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        commands[name] = values
    return Flow(
        name="many markets",
        commands=commands,
        first=first,
        orders_max=2 * first,
        markets=np.array(markets, np.uint32),
        market_count=market_count,
    )


FLOWS: dict[str, Callable[[int], Flow]] = {
    "mix": mix,
    "equity": equity,
    "build and cancel": build_and_cancel,
    "sweep": sweep,
    "sparse": sparse,
    "many markets": many_markets,
}
