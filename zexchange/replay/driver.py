"""Carrying out a LOBSTER replay against a running exchange: three sessions, signed orders, one comparison per row.

One account owns every resting buy order, another every resting sell order. An execution of a resting sell order is an
immediate-or-cancel buy of the first account, and the other way round, so maker and taker are never the same account.
The third session is the operator's: it halts the market when the file does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING

import msgspec

from zexchange.client import AmendOrder, CancelOrder, Client, Command, Fill, NewOrder, OrderResult, Rejected
from zexchange.replay.lobster import (
    Action,
    BookRow,
    Cancel,
    Difference,
    Kind,
    Level,
    LobsterError,
    Message,
    OwnOrder,
    Place,
    Reduce,
    SetState,
    Shadow,
    SideName,
    Take,
    compare,
)

if TYPE_CHECKING:
    from zexchange.genesis import Market

__all__ = [
    "Funds",
    "Mismatch",
    "Replay",
    "ReplayReport",
    "check_files",
    "find_market",
    "funds_needed",
]

PRICE_UNIT = Decimal("0.0001")
MISMATCHES_KEPT = 20
BATCH = 64


class Mismatch(msgspec.Struct, frozen=True):
    """A row that did not come out as in the file. `row` counts from 1."""

    row: int
    problems: tuple[str, ...]  # an order refused, a fill against another order
    differences: tuple[Difference, ...]


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a replay."""

    rows: int
    matched: int
    mismatched: int
    revealed_levels: int  # came into view without a message, and were seeded or corrected
    orders: int  # orders entered, seeds included
    trades: int
    seconds: float
    vanished_levels: int  # went while out of view, and were withdrawn
    cancels: int
    amends: int
    ignored: int  # hidden executions and auctions: they do not change the visible book
    unknown_events: int  # about an order that is neither in the file nor in the opening book
    market: str
    first_mismatches: tuple[Mismatch, ...]


class Funds(msgspec.Struct, frozen=True):
    """What the two accounts need at most."""

    quote: Decimal  # of the buying account
    base: Decimal  # of the selling account


def check_files(messages: Sequence[Message], rows: Sequence[BookRow]) -> None:
    """Raises LobsterError if the two files do not belong together, or hold nothing."""
    if len(messages) != len(rows):
        raise LobsterError(
            f"{len(messages)} messages, but {len(rows)} rows of the book: one of each per event"
        )
    if not messages:
        raise LobsterError("the files are empty")


def funds_needed(messages: Sequence[Message], rows: Sequence[BookRow], market: Market) -> Funds:
    """Enough for every order of the replay to be open at once; never too little, usually far too much."""
    quote_units = base = 0
    for message in messages:
        if message.kind in (Kind.NEW, Kind.EXECUTE):
            quote_units += message.price * message.size
            base += message.size
    before: set[Level] = set()
    for row in rows:
        shown = {*row.bids, *row.asks}
        for price, size in shown - before:
            quote_units += price * size
            base += size
        before = shown
    worst_fee = Decimal(max(market.maker_fee_ppm, market.taker_fee_ppm)) / 1_000_000
    quote = (quote_units * PRICE_UNIT * (1 + worst_fee)).quantize(Decimal(1), rounding=ROUND_UP)
    # One more unit of quote per order pays for every rounding of a fee.
    return Funds(quote + len(messages) + len(rows), Decimal(base))


def find_market(
    client: Client, symbol: str | None, messages: Sequence[Message], rows: Sequence[BookRow]
) -> Market:
    """The market to replay in: the named one, or the one that fits best. Raises LobsterError.

    It fits when every price and size of the files is a multiple of its steps, and its book is empty. Of several that
    fit it is the one with the largest lot: the files count whole shares, not parts of a coin.
    """
    if symbol is not None:
        market = client.market(symbol) if symbol in {m.symbol for m in client.markets} else None
        if market is None:
            raise LobsterError(
                f"no market {symbol!r}; there are {', '.join(m.symbol for m in client.markets)}"
            )
        problem = _why_not(client, market, messages, rows)
        if problem is not None:
            raise LobsterError(f"{market.symbol} cannot be used: {problem}")
        return market
    problems = {market.symbol: _why_not(client, market, messages, rows) for market in client.markets}
    fitting = [market for market in client.markets if problems[market.symbol] is None]
    if not fitting:
        raise LobsterError("no market fits: " + "; ".join(f"{name}: {why}" for name, why in problems.items()))
    return max(fitting, key=lambda market: market.lot_size)


def _why_not(
    client: Client, market: Market, messages: Sequence[Message], rows: Sequence[BookRow]
) -> str | None:
    prices = {message.price for message in messages if message.kind <= Kind.EXECUTE}
    prices |= {price for row in rows for price, _ in (*row.bids, *row.asks)}
    off_tick = next((price for price in sorted(prices) if price * PRICE_UNIT % market.tick_size), None)
    if off_tick is not None:
        return f"price {off_tick * PRICE_UNIT} is not a multiple of its tick size {market.tick_size}"
    sizes = {message.size for message in messages if message.kind <= Kind.EXECUTE}
    off_lot = next((size for size in sorted(sizes) if size % market.lot_size), None)
    if off_lot is not None:
        return f"size {off_lot} is not a multiple of its lot size {market.lot_size}"
    book = client.book(market.symbol, levels=1)
    if book.bids or book.asks:
        return "its book is not empty (use another data folder, or another market)"
    return None


class Replay:
    """One replay; `run` does all of it. The three clients stay the caller's."""

    def __init__(
        self,
        buyer: Client,
        seller: Client,
        operator: Client,
        market: Market,
        messages: Sequence[Message],
        rows: Sequence[BookRow],
    ) -> None:
        """`buyer` and `seller` are sessions of two funded accounts.

        Raises LobsterError if the files do not belong together.
        """
        check_files(messages, rows)
        self._clients: dict[SideName, Client] = {"buy": buyer, "sell": seller}
        self._operator = operator
        self._symbol = market.symbol
        self._messages = messages
        self._rows = rows
        self._shadow = Shadow()
        self._orders = self._trades = self._cancels = self._amends = self._ignored = 0
        self._problems: list[str] = []

    def run(self, on_row: Callable[[int, Message], None] = lambda _row, _message: None) -> ReplayReport:
        """Play every row. `on_row(rows done, message)` is called after each."""
        started = time.monotonic()
        matched = 0
        mismatches: list[Mismatch] = []
        first = self._messages[0]
        self._place_all(self._shadow.opening(first, self._rows[0]))
        for index, (message, row) in enumerate(zip(self._messages, self._rows, strict=True)):
            # A first event other than a new order is contained in the first row already; see Shadow.opening.
            if index or first.kind is Kind.NEW:
                self._play(message)
            if index:
                for action in self._shadow.reveal(self._rows[index - 1], row):
                    self._do(action)
            differences = self._compare(row)
            problems, self._problems = self._problems, []
            if differences or problems:
                mismatches.append(Mismatch(index + 1, tuple(problems), tuple(differences)))
            else:
                matched += 1
            on_row(index + 1, message)
        return ReplayReport(
            rows=len(self._rows),
            matched=matched,
            mismatched=len(mismatches),
            revealed_levels=self._shadow.revealed_levels,
            orders=self._orders,
            trades=self._trades,
            seconds=round(time.monotonic() - started, 3),
            vanished_levels=self._shadow.vanished_levels,
            cancels=self._cancels,
            amends=self._amends,
            ignored=self._ignored,
            unknown_events=self._shadow.unknown_events,
            market=self._symbol,
            first_mismatches=tuple(mismatches[:MISMATCHES_KEPT]),
        )

    def clear(self) -> None:
        """Leave the market as it was found: open, and without orders of ours, which nobody could cancel later."""
        for client in self._clients.values():
            client.cancel_all(self._symbol)
        if self._shadow.halted:
            self._operator.set_market_state(self._symbol, "continuous")

    def _play(self, message: Message) -> None:
        if message.kind in (Kind.EXECUTE_HIDDEN, Kind.CROSS):
            self._ignored += 1
        for action in self._shadow.actions(message):
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Place(order=order):
                self._place_all([action])
            case Reduce(order=order, total=total):
                self._amends += 1
                amend = AmendOrder(order_id=order.order_id, quantity=total, market=self._symbol)
                self._submit(order.side, [amend])
            case Cancel(order=order):
                self._cancels += 1
                self._submit(order.side, [CancelOrder(order_id=order.order_id, market=self._symbol)])
            case Take():
                self._take(action)
            case SetState(state=state):
                self._operator.set_market_state(self._symbol, state)

    def _place_all(self, actions: Sequence[Action]) -> None:
        """Enter limit orders, in batches where there are many."""
        orders = [action.order for action in actions if isinstance(action, Place)]
        for side in self._clients:
            own = [order for order in orders if order.side == side]
            for start in range(0, len(own), BATCH):
                chunk = own[start : start + BATCH]
                results = self._submit(side, [self._new(order) for order in chunk])
                for order, result in zip(chunk, results, strict=True):
                    if isinstance(result, OrderResult):
                        self._shadow.placed(order, result.order_id)
                        if result.fills:
                            self._problems.append(f"a new order at {order.price} traded on entry")
                    else:
                        self._shadow.refused(order)
                self._orders += len(chunk)

    def _new(self, order: OwnOrder) -> NewOrder:
        return NewOrder(
            market=self._symbol,
            side=order.side,
            quantity=order.leaves,
            price=order.price * PRICE_UNIT,
            client_order_id=order.number or None,
        )

    def _take(self, action: Take) -> None:
        """Send the incoming order; its fills must be against the very orders that the file names."""
        command = NewOrder(
            market=self._symbol,
            side=action.side,
            quantity=action.size,
            price=action.price * PRICE_UNIT,
            time_in_force="ioc",
        )
        self._orders += 1
        (result,) = self._submit(action.side, [command])
        if not isinstance(result, OrderResult):
            return
        if result.filled != action.size:
            self._problems.append(f"{result.filled} of {action.size} filled at {action.price}")
        trade_ids = {fill.trade_id for fill in result.fills}
        self._trades += len(trade_ids)
        makers = {order.order_id: order for order in action.makers}
        for fill in self._maker_fills("sell" if action.side == "buy" else "buy", trade_ids):
            maker = makers.get(fill.order_id)
            if maker is None:
                wanted = (
                    ", ".join(str(order.number or "seed") for order in action.makers) or "an unknown order"
                )
                got = fill.client_order_id or "a seed"
                self._problems.append(f"the fill at {action.price} was against {got} instead of {wanted}")
            elif maker.number is not None and fill.client_order_id != maker.number:
                self._problems.append(
                    f"the maker's report names {fill.client_order_id} instead of {maker.number}"
                )
            self._shadow.filled(fill.order_id, int(fill.quantity))

    def _maker_fills(self, side: SideName, trade_ids: set[int]) -> list[Fill]:
        """The maker's reports of these trades. A query behind them makes sure that they have arrived."""
        client = self._clients[side]
        client.status()
        fills = [event for event in client.events(0) if isinstance(event, Fill)]
        if {fill.trade_id for fill in fills} != trade_ids:
            self._problems.append("maker and taker were not told of the same trades")
        return fills

    def _submit(self, side: SideName, commands: list[Command]) -> Sequence[object]:
        outcomes = self._clients[side].submit(commands)
        for command, outcome in zip(commands, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                self._problems.append(f"{type(command).__name__} refused: {outcome.reason.name.lower()}")
        return outcomes

    def _compare(self, row: BookRow) -> list[Difference]:
        book = self._clients["buy"].book(self._symbol, levels=row.depth)
        bids, asks = (
            [(int(level.price / PRICE_UNIT), int(level.quantity)) for level in side]
            for side in (book.bids, book.asks)
        )
        return compare(row, bids, asks)
