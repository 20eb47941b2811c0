"""The embeddable book: against a model that is nothing but lists, rule by rule, and in batches."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zexchange.book import (
    COMMAND_BYTES,
    COMMAND_DTYPE,
    EVENT_BYTES,
    EVENT_DTYPE,
    Accepted,
    Amended,
    Book,
    Cancelled,
    Event,
    EventKind,
    Order,
    Reason,
    Rejected,
    Trade,
)

LOTS_MAX = 2**53 - 1


class Resting:
    """One order of the model."""

    def __init__(self, order_id: int, side: str, price: int, qty: int, leaves: int, account: int) -> None:
        self.order_id, self.side, self.price, self.qty, self.leaves = order_id, side, price, qty, leaves
        self.account = account


class Model:
    """The rules in the plainest way: one list per side, in order of priority."""

    def __init__(self, max_orders: int) -> None:
        self.max_orders = max_orders
        self.sides: dict[str, list[Resting]] = {"buy": [], "sell": []}

    def find(self, order_id: int) -> Resting | None:
        return next((one for side in self.sides.values() for one in side if one.order_id == order_id), None)

    def agrees(self, side: str, price: int | None, maker: Resting) -> bool:
        return price is None or (maker.price <= price if side == "buy" else maker.price >= price)

    def insert(self, order: Resting) -> None:
        queue = self.sides[order.side]
        sign = -1 if order.side == "buy" else 1
        at = next((n for n, one in enumerate(queue) if sign * one.price > sign * order.price), len(queue))
        queue.insert(at, order)

    def match(
        self,
        events: list[Event],
        order_id: int,
        side: str,
        price: int | None,
        leaves: int,
        account: int,
        stp: str,
    ) -> tuple[int, int, bool]:
        """What is left, what was lost to decrements, and whether it goes on."""
        other = self.sides["sell" if side == "buy" else "buy"]
        lost = 0
        while leaves and other and self.agrees(side, price, other[0]):
            maker = other[0]
            if account and stp != "none" and maker.account == account:
                if stp == "decrement":
                    both = min(leaves, maker.leaves)
                    leaves -= both
                    lost += both
                    if maker.leaves == both:
                        events.append(Cancelled(maker.order_id, Reason.SELF_TRADE, both))
                        other.pop(0)
                    else:
                        maker.leaves -= both
                        maker.qty -= both
                        events.append(Amended(maker.order_id, maker.price, maker.qty))
                    if leaves == 0:
                        events.append(Cancelled(order_id, Reason.SELF_TRADE, both))
                        return 0, lost, False
                    continue
                if stp in ("cancel_oldest", "cancel_both"):
                    events.append(Cancelled(maker.order_id, Reason.SELF_TRADE, maker.leaves))
                    other.pop(0)
                    if stp == "cancel_oldest":
                        continue
                events.append(Cancelled(order_id, Reason.SELF_TRADE, leaves))
                return leaves, lost, False
            fill = min(leaves, maker.leaves)
            events.append(Trade(maker.order_id, order_id, maker.price, fill))
            leaves -= fill
            maker.leaves -= fill
            if maker.leaves == 0:
                other.pop(0)
        return leaves, lost, True

    def fillable(self, side: str, price: int | None, qty: int, account: int, stp: str) -> bool:
        for maker in self.sides["sell" if side == "buy" else "buy"]:
            if not self.agrees(side, price, maker):
                break
            if account and stp != "none" and maker.account == account:
                if stp == "cancel_oldest":
                    continue
                return False
            qty -= maker.leaves
            if qty <= 0:
                return True
        return False

    def submit(
        self,
        order_id: int,
        side: str,
        price: int | None,
        qty: int,
        order_type: str,
        tif: str,
        post_only: bool,
        account: int,
        stp: str,
    ) -> list[Event]:
        rests = order_type == "limit" and tif == "gtc"
        other = self.sides["sell" if side == "buy" else "buy"]
        reason = Reason.NONE
        if not (price is None and order_type == "market") and not (
            price is not None and 1 <= price <= LOTS_MAX
        ):
            reason = Reason.PRICE_OUT_OF_RANGE
        elif not 1 <= qty <= LOTS_MAX:
            reason = Reason.QTY_OUT_OF_RANGE
        elif post_only and not rests:
            reason = Reason.POST_ONLY_MUST_REST
        elif self.find(order_id):
            reason = Reason.ORDER_ID_IN_USE
        elif rests and len(self.sides["buy"]) + len(self.sides["sell"]) == self.max_orders:
            reason = Reason.BOOK_FULL
        elif post_only and other and self.agrees(side, price, other[0]):
            reason = Reason.POST_ONLY_WOULD_CROSS
        elif tif == "fok" and not self.fillable(side, price, qty, account, stp):
            reason = Reason.FOK_NOT_FILLABLE
        if reason:
            return [Rejected(order_id, reason)]
        events: list[Event] = [Accepted(order_id, price or 0, qty)]
        leaves, lost, goes_on = self.match(events, order_id, side, price, qty, account, stp)
        if goes_on and leaves:
            if rests:
                assert price is not None
                if lost:
                    events.append(Amended(order_id, price, qty - lost))
                self.insert(Resting(order_id, side, price, qty - lost, leaves, account))
            else:
                events.append(Cancelled(order_id, Reason.IMMEDIATE_REMAINDER, leaves))
        return events

    def cancel(self, order_id: int) -> list[Event]:
        order = self.find(order_id)
        if order is None:
            return [Rejected(order_id, Reason.UNKNOWN_ORDER)]
        self.sides[order.side].remove(order)
        return [Cancelled(order_id, Reason.REQUESTED, order.leaves)]

    def amend(self, order_id: int, price: int | None, qty: int | None, stp: str) -> list[Event]:
        if price is not None and not 1 <= price <= LOTS_MAX:
            return [Rejected(order_id, Reason.PRICE_OUT_OF_RANGE)]
        if qty is not None and not 1 <= qty <= LOTS_MAX:
            return [Rejected(order_id, Reason.QTY_OUT_OF_RANGE)]
        order = self.find(order_id)
        if order is None:
            return [Rejected(order_id, Reason.UNKNOWN_ORDER)]
        new_price, new_qty = price or order.price, qty or order.qty
        filled = order.qty - order.leaves
        if new_qty <= filled:
            self.sides[order.side].remove(order)
            return [Cancelled(order_id, Reason.AMENDED_BELOW_FILLED, order.leaves)]
        events: list[Event] = [Amended(order_id, new_price, new_qty)]
        if new_price == order.price and new_qty <= order.qty:
            order.leaves -= order.qty - new_qty
            order.qty = new_qty
            return events
        self.sides[order.side].remove(order)
        leaves, lost, goes_on = self.match(
            events, order_id, order.side, new_price, new_qty - filled, order.account, stp
        )
        if goes_on and leaves:
            if lost:
                events.append(Amended(order_id, new_price, new_qty - lost))
            self.insert(Resting(order_id, order.side, new_price, new_qty - lost, leaves, order.account))
        return events


MAX_ORDERS = 12
IDS = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 100, 2**63, 2**64 - 1])
PRICES = st.one_of(st.integers(95, 105), st.sampled_from([1, 2**53 - 1, 2**53, 0, -1]))
QTYS = st.one_of(st.integers(1, 9), st.sampled_from([1, 2**53 - 1, 2**53, 0]))
STPS = st.sampled_from(["none", "cancel_newest", "cancel_oldest", "cancel_both", "decrement"])


class BookMachine(RuleBasedStateMachine):
    """Book and model are given the same commands, and must say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.book, self.model = Book(max_orders=MAX_ORDERS), Model(MAX_ORDERS)

    @rule(
        order_id=IDS,
        side=st.sampled_from(["buy", "sell"]),
        price=PRICES,
        qty=QTYS,
        order_type=st.sampled_from(["limit", "limit", "limit", "market"]),
        tif=st.sampled_from(["gtc", "gtc", "ioc", "fok"]),
        post_only=st.sampled_from([False, False, True]),
        account=st.integers(0, 2),
        stp=STPS,
    )
    def submit(self, **order: Any) -> None:
        price = None if order["order_type"] == "market" and order["price"] == 95 else order["price"]
        if order["order_type"] == "market" and price == 0:
            price = 1  # 0 is "any" in a command
        found = self.book.submit(
            order["order_id"],
            order["side"],
            price,
            order["qty"],
            order_type=order["order_type"],
            tif=order["tif"],
            post_only=order["post_only"],
            account=order["account"],
            stp=order["stp"],
        )
        assert found == self.model.submit(
            order["order_id"],
            order["side"],
            price,
            order["qty"],
            order["order_type"],
            order["tif"],
            order["post_only"],
            order["account"],
            order["stp"],
        )

    @rule(order_id=IDS)
    def cancel(self, order_id: int) -> None:
        assert self.book.cancel(order_id) == self.model.cancel(order_id)

    @rule(order_id=IDS, price=st.none() | PRICES, qty=st.none() | QTYS, stp=STPS)
    def amend(self, order_id: int, price: int | None, qty: int | None, stp: Any) -> None:
        found = self.book.amend(order_id, price_ticks=price, qty_lots=qty, stp=stp)
        assert found == self.model.amend(order_id, price, qty, stp)

    @invariant()
    def same(self) -> None:
        self.book.check()
        for side in ("buy", "sell"):
            expected = [
                Order(one.order_id, one.price, one.qty, one.leaves, one.account)
                for one in self.model.sides[side]
            ]
            assert self.book.orders(side) == expected  # type: ignore[arg-type]
        bids, asks = self.book.depth(100)
        assert self.book.best_bid == (bids[0][0] if bids else None)
        assert self.book.best_ask == (asks[0][0] if asks else None)
        for levels, side in ((bids, "buy"), (asks, "sell")):
            summed: dict[int, list[int]] = {}
            for one in self.model.sides[side]:
                row = summed.setdefault(one.price, [0, 0])
                row[0] += one.leaves
                row[1] += 1
            assert levels == [(price, qty, count) for price, (qty, count) in summed.items()]


TestBook = BookMachine.TestCase
TestBook.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


def test_example_of_the_module() -> None:
    book = Book()
    assert book.submit(1, "sell", 101, 5) == [Accepted(1, 101, 5)]
    assert book.submit(2, "buy", 102, 3) == [Accepted(2, 102, 3), Trade(1, 2, 101, 3)]
    assert book.depth(5) == ([], [(101, 2, 1)])
    assert len(book) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda book: book.submit(1, "hold", 1, 1),
        lambda book: book.submit(1, "buy", 1, 1, tif="later"),
        lambda book: book.submit(1, "buy", 1, 1, order_type="stop"),
        lambda book: book.submit(1, "buy", 1, 1, stp="pray"),
        lambda book: book.submit(-1, "buy", 1, 1),
        lambda book: book.submit(2**64, "buy", 1, 1),
        lambda book: book.submit(1, "buy", 1, 1, account=2**32),
        lambda book: book.cancel(-1),
        lambda book: book.amend(1, price_ticks=1, stp="pray"),
        lambda book: book.orders("both"),
        lambda book: Book(max_orders=0),
        lambda book: Book(max_orders=2**26 + 1),
        lambda book: book.apply(b"x", bytearray(EVENT_BYTES)),
        lambda book: book.apply(b"", bytearray(1)),
    ],
)
def test_what_is_no_command_raises_and_changes_nothing(call: Any) -> None:
    book = Book(max_orders=4)
    book.submit(9, "buy", 5, 5)
    with pytest.raises(ValueError):
        call(book)
    assert book.orders("buy") == [Order(9, 5, 5, 5, 0)]


@pytest.mark.parametrize("wrong", [1.5, "1", None])
def test_wrong_types_raise(wrong: Any) -> None:
    book = Book(max_orders=4)
    for call in (
        lambda: book.submit(wrong, "buy", 1, 1),
        lambda: book.submit(1, "buy", 1, wrong),
        lambda: book.cancel(wrong),
        lambda: Book(max_orders=wrong),
    ):
        with pytest.raises(TypeError):
            call()
    assert len(book) == 0


def test_numbers_that_fit_nowhere_are_refused_by_name() -> None:
    book = Book(max_orders=4)
    assert book.submit(1, "buy", 2**70, 1) == [Rejected(1, Reason.PRICE_OUT_OF_RANGE)]
    assert book.submit(1, "buy", 1, 2**70) == [Rejected(1, Reason.QTY_OUT_OF_RANGE)]
    assert book.submit(1, "buy", 1, -5) == [Rejected(1, Reason.QTY_OUT_OF_RANGE)]
    assert book.amend(1, qty_lots=-5) == [Rejected(1, Reason.QTY_OUT_OF_RANGE)]


def test_levels_hold_what_fits_and_the_rest_is_cancelled() -> None:
    book = Book(max_orders=4_096)
    for order_id in range(2_048):
        book.submit(order_id, "buy", 7, LOTS_MAX)
    assert book.submit(5_000, "buy", 7, LOTS_MAX)[-1] == Cancelled(5_000, Reason.LEVEL_FULL, LOTS_MAX)
    assert len(book) == 2_048
    book.check()


def commands_of(count: int, seed: int) -> Any:
    """A mix of commands on about a hundred orders."""
    random = np.random.default_rng(seed)
    commands = np.zeros(count, np.dtype(COMMAND_DTYPE))
    commands["order_id"] = random.integers(0, 120, count)
    commands["kind"] = random.choice([0, 1, 2, 9], count, p=[0.6, 0.15, 0.24, 0.01])
    commands["side"] = random.integers(0, 2, count)
    commands["price_ticks"] = random.integers(95, 106, count)
    commands["qty_lots"] = random.integers(1, 20, count)
    commands["time_in_force"] = random.choice([0, 1, 2], count, p=[0.8, 0.1, 0.1])
    commands["account"] = random.integers(0, 3, count)
    commands["stp"] = random.integers(0, 5, count)
    return commands


@pytest.mark.parametrize("room", [130, 1_000, 100_000])
def test_batches_say_what_single_calls_say(room: int) -> None:
    commands = commands_of(5_000, seed=room)
    one_by_one, batched = Book(max_orders=120), Book(max_orders=120)
    expected = []
    single = bytearray(EVENT_BYTES * 200)
    for index in range(len(commands)):
        applied, written = one_by_one.apply(commands[index : index + 1], single)
        assert applied == 1
        expected += [
            (
                *struct.unpack_from("<QQqQ", single, at * EVENT_BYTES),
                *single[at * EVENT_BYTES + 36 : at * EVENT_BYTES + 39],
            )
            for at in range(written)
        ]
    found = []
    events = np.zeros(room, np.dtype(EVENT_DTYPE))
    done = 0
    while done < len(commands):
        applied, written = batched.apply(commands[done:], events)
        assert applied > 0
        assert written <= room
        assert all(events["command"][:written] < applied)
        found += [
            tuple(
                int(one[name])
                for name in (
                    "order_id",
                    "maker_order_id",
                    "price_ticks",
                    "qty_lots",
                    "kind",
                    "reason",
                    "side",
                )
            )
            for one in events[:written]
        ]
        done += applied
    assert found == expected
    assert batched.orders("buy") == one_by_one.orders("buy")
    batched.check()


FULL_AT = 40
NAMES = {
    "side": ["buy", "sell"],
    "order_type": ["limit", "market"],
    "time_in_force": ["gtc", "ioc", "fok"],
    "stp": ["none", "cancel_newest", "cancel_oldest", "cancel_both", "decrement"],
    "post_only": [False, True],
}


def stream_of(count: int, seed: int, model: Model) -> tuple[Any, list[list[Event]]]:
    """New orders whose ids count up, most of them without options, cancels and amends of what rests, and some commands
    that make no sense, in a book that is full at times; and what the model says of each."""
    random = Random(seed)
    commands = np.zeros(count, np.dtype(COMMAND_DTYPE))
    expected = []
    for number, command in enumerate(commands, start=1):
        resting = [one.order_id for side in model.sides.values() for one in side]
        fullness = len(resting) / model.max_orders
        kind = 0 if random.random() < 0.75 - 0.2 * fullness else random.choice((1, 2, 2))
        side, away = random.randrange(2), random.randrange(-2, 9)
        command["kind"] = kind
        command["order_id"] = number if kind == 0 else random.choice([0, number, *resting])
        command["side"] = side
        command["price_ticks"] = 100 - away if side == 0 else 100 + away
        command["qty_lots"] = random.randrange(1, 20)
        command["account"] = random.randrange(3)
        for name in ("order_type", "time_in_force", "stp", "post_only"):
            if (kind == 0 and random.random() < 0.2) or (kind == 2 and name == "stp"):
                command[name] = random.randrange(len(NAMES[name]))
        if random.random() < 0.02:
            name, low, high = random.choice(
                [("price_ticks", -1, 2), ("qty_lots", 0, 1), *((name, 0, 256) for name in NAMES)]
            )
            wild = random.randrange(low, high)
            command[name] = (
                wild if high < 256 else random.choice((wild, wild | 1 << random.randrange(8), 128))
            )
        expected.append(by_model(model, command))
    return commands, expected


def by_model(model: Model, command: Any) -> list[Event]:
    order_id, price, qty = (int(command[name]) for name in ("order_id", "price_ticks", "qty_lots"))
    kind, stp = int(command["kind"]), int(command["stp"])
    if kind == 1:
        return model.cancel(order_id)
    looked_at = NAMES if kind == 0 else ("stp",)
    if any(command[name] >= len(NAMES[name]) for name in looked_at):
        return [Rejected(order_id, Reason.MALFORMED)]
    if kind == 2:
        return model.amend(order_id, price or None, qty or None, NAMES["stp"][stp])
    side, order_type, tif, _, post_only = (NAMES[name][int(command[name])] for name in NAMES)
    any_price = order_type == "market" and price == 0
    return model.submit(
        order_id,
        side,
        None if any_price else price,
        qty,
        order_type,
        "ioc" if order_type == "market" and tif == "gtc" else tif,
        post_only,
        int(command["account"]),
        NAMES["stp"][stp],
    )


def decoded(event: Any) -> Event:
    order_id, maker, price, qty = (
        int(event[name]) for name in ("order_id", "maker_order_id", "price_ticks", "qty_lots")
    )
    reason = Reason(int(event["reason"]))
    match EventKind(int(event["kind"])):
        case EventKind.ACCEPTED:
            return Accepted(order_id, price, qty)
        case EventKind.REJECTED:
            return Rejected(order_id, reason)
        case EventKind.TRADE:
            return Trade(maker, order_id, price, qty)
        case EventKind.CANCELLED:
            return Cancelled(order_id, reason, qty)
        case EventKind.AMENDED:
            return Amended(order_id, price, qty)


@pytest.mark.parametrize("first_id", [None, 2**64 - 1])
def test_model_says_the_same_of_a_stream(first_id: int | None) -> None:
    """`first_id`: of an order that rests all the time, so that no other id is above all before it."""
    books, model = {chunk: Book(max_orders=FULL_AT) for chunk in (1, 64)}, Model(FULL_AT)
    if first_id is not None:
        for book in books.values():
            book.submit(first_id, "buy", 1, 1)
        model.submit(first_id, "buy", 1, 1, "limit", "gtc", False, 0, "none")
    commands, expected = stream_of(12_000, 5, model)
    events = np.zeros(2_000, np.dtype(EVENT_DTYPE))
    for chunk, book in books.items():
        for begin in range(0, len(commands), chunk):
            said = expected[begin : begin + chunk]
            applied, written = book.apply(commands[begin : begin + chunk], events)
            assert applied == len(said)
            found = [(int(one["command"]), decoded(one)) for one in events[:written]]
            assert found == [(at, event) for at, its in enumerate(said) for event in its]
        book.check()
    reasons = {getattr(event, "reason", Reason.NONE) for its in expected for event in its}
    missed = {reason for reason in Reason if reason < Reason.NEEDS_EXCHANGE} - reasons
    assert missed == {Reason.LEVEL_FULL, Reason.ORDER_ID_IN_USE}


def test_fill_or_kill_counts_as_many_makers_as_it_needs() -> None:
    book = Book(max_orders=1_000)
    for order_id in range(1_000):
        book.submit(order_id, "sell", 7, 1)
    assert book.submit(2_000, "buy", 7, 1_001, tif="fok") == [Rejected(2_000, Reason.FOK_NOT_FILLABLE)]
    assert len(book.submit(2_001, "buy", 7, 1_000, tif="fok")) == 1 + 1_000


def applied_in(chunk: int, commands: Any, book: Book) -> Any:
    """All events of commands that are applied so many at a time."""
    events = np.zeros(60_000, np.dtype(EVENT_DTYPE))
    found = []
    for begin in range(0, len(commands), chunk):
        applied, written = book.apply(commands[begin : begin + chunk], events)
        assert applied == len(commands[begin : begin + chunk])
        found.append(events[:written].copy())
    return np.concatenate(found)


@pytest.mark.parametrize("ids", ["that count up", "that are far apart", "of any kind"])
def test_neither_ids_nor_batches_decide_anything_in_a_large_book(ids: str) -> None:
    """More orders than fit into the cache: what commands will need is fetched ahead, whatever they say."""
    random = np.random.default_rng(5)
    count = 40_000
    commands = commands_of(count, seed=9)
    commands["order_id"] = np.arange(1, count + 1)
    commands["price_ticks"] = np.where(commands["side"] == 0, 1_000, 1_100) + random.integers(-60, 61, count)
    commands["kind"][:30_000] = 0
    commands["time_in_force"][:25_000] = 0
    is_new = commands["kind"] == 0
    commands["order_id"][~is_new] = random.integers(1, count, np.count_nonzero(~is_new))
    wild = random.integers(25_000, count, 200)
    commands["price_ticks"][wild] = random.choice([0, -1, 2**63 - 1, -(2**63), 2**53], 200)
    commands["side"][wild[:50]] = 255
    others = {
        "that count up": np.arange(count + 1, dtype=np.uint64),
        "that are far apart": np.arange(count + 1, dtype=np.uint64) << np.uint64(30),
        "of any kind": random.permutation(np.uint64(2**64 - 1) - np.arange(count + 1, dtype=np.uint64) ** 3),
    }[ids]
    renamed = commands.copy()
    renamed["order_id"] = others[commands["order_id"]]
    first, second = Book(max_orders=35_000), Book(max_orders=35_000)
    expected, found = applied_in(1_000, commands, first), applied_in(7, renamed, second)
    assert len(first) == len(second) > 16_384
    expected["order_id"] = others[expected["order_id"]]
    is_trade = expected["kind"] == EventKind.TRADE
    expected["maker_order_id"][is_trade] = others[expected["maker_order_id"][is_trade]]
    for name in ("order_id", "maker_order_id", "price_ticks", "qty_lots", "kind", "reason", "side"):
        assert np.array_equal(found[name], expected[name]), name
    first.check()
    second.check()


def test_no_room_for_one_command_applies_none() -> None:
    book = Book(max_orders=8)
    command = np.zeros(1, np.dtype(COMMAND_DTYPE))
    command["qty_lots"] = command["price_ticks"] = 1
    assert command.nbytes == COMMAND_BYTES
    assert book.apply(command, bytearray(3 * EVENT_BYTES)) == (0, 0)
    assert book.apply(command, bytearray(4 * EVENT_BYTES)) == (1, 1)
    with pytest.raises(BufferError):
        book.apply(command, bytes(40 * EVENT_BYTES))


@pytest.mark.parametrize(
    ("side", "price", "expected"), [("buy", 103, 100), ("buy", 100, 100), ("sell", 90, 96), ("sell", 98, 98)]
)
def test_a_post_only_order_slides(side: Any, price: int, expected: int) -> None:
    book = Book(max_orders=8)
    book.submit(1, "sell", 101, 5)
    book.submit(2, "buy", 95, 5)
    assert book.submit(3, side, price, 1, post_only=True, slide=True) == [Accepted(3, expected, 1)]
    book.check()


def test_where_there_is_no_price_to_slide_to_the_order_is_rejected() -> None:
    book = Book(max_orders=8)
    book.submit(1, "sell", 1, 5)
    assert book.submit(2, "buy", 3, 1, post_only=True, slide=True) == [
        Rejected(2, Reason.POST_ONLY_WOULD_CROSS)
    ]
    assert book.submit(2, "buy", 3, 1, slide=True) == [Rejected(2, Reason.SLIDE_WITHOUT_POST_ONLY)]
    assert book.submit(2, "buy", 0, 1, post_only=True, slide=True) == [Rejected(2, Reason.PRICE_OUT_OF_RANGE)]
    assert book.submit(1, "buy", 3, 1, post_only=True, slide=True) == [Rejected(1, Reason.ORDER_ID_IN_USE)]


@pytest.mark.parametrize(
    ("price", "account", "stp", "most"),
    [
        (119, 0, "none", 20),
        (100, 0, "none", 1),
        (None, 0, "none", 40),
        (139, 3, "none", 40),
        (139, 3, "cancel_newest", 9),
        (139, 3, "decrement", 9),
        (139, 3, "cancel_oldest", 39),
    ],
)
def test_a_minimum_is_filled_or_nothing_is(price: int | None, account: int, stp: Any, most: int) -> None:
    """Forty sales of one lot at forty prices, the tenth of them account 3's."""
    for minimum in (most, most + 1):
        book = Book(max_orders=64)
        for number in range(40):
            book.submit(number, "sell", 100 + number, 1, account=3 if number == 9 else 0)
        said = book.submit(
            99, "buy", price, 90, order_type="market", account=account, stp=stp, min_qty_lots=minimum
        )
        if minimum == most:
            filled = sum(one.qty_lots for one in said if isinstance(one, Trade))
            # What lies behind an order that is decremented is not counted on, as with fill or kill.
            assert filled == (39 if stp == "decrement" else most)
        else:
            assert said == [Rejected(99, Reason.MIN_QTY_NOT_FILLABLE)]
            assert len(book) == 40


def test_a_minimum_is_for_immediate_orders() -> None:
    book = Book(max_orders=8)
    for terms in ({"tif": "gtc"}, {"tif": "fok"}, {"tif": "ioc", "min_qty_lots": 6}):
        terms = {"min_qty_lots": 1} | terms
        assert book.submit(1, "buy", 100, 5, **terms) == [Rejected(1, Reason.MIN_QTY_INVALID)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "terms",
    [
        {"hidden": True},
        {"display_lots": 1},
        {"trigger": "stop", "trigger_ticks": 99},
        {"trigger": "trailing", "trail_ppm": 5},
        {"expire_time_ns": 1, "tif": "gtd"},
        {"tif": "day"},
        {"tif": "at_the_open"},
        {"tif": "at_the_close"},
        {"max_notional": 500, "order_type": "market"},
    ],
)
def test_what_only_the_exchange_has_is_rejected(terms: Any) -> None:
    book = Book(max_orders=8)
    assert book.submit(1, "buy", 100, 5, **terms) == [Rejected(1, Reason.NEEDS_EXCHANGE)]
    assert len(book) == 0


def test_terms_that_say_nothing_change_nothing() -> None:
    book = Book(max_orders=8)
    assert book.submit(1, "buy", 100, 5, hidden=False, display_lots=0) == [Accepted(1, 100, 5)]
    with pytest.raises(TypeError, match="shown"):
        book.submit(2, "buy", 100, 5, shown=1)  # type: ignore[call-arg]
