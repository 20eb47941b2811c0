"""The pure part of the LOBSTER replay: reading, deriving orders, comparing; driven against a naive book."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import shared_data
from zexchange.replay.lobster import (
    Action,
    BookRow,
    Cancel,
    Difference,
    Kind,
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
    parse_book,
    parse_messages,
    read_book,
    read_messages,
)
from zexchange.replay.synthetic import synthetic_flow


class NaiveBook:
    """Price-time priority in lists: what an exchange makes of the actions."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow
        self.orders: list[OwnOrder] = []  # copies, in order of arrival
        self.next_id = 1
        self.fills: list[tuple[int, int]] = []  # order id, size
        self.wrong_makers: list[str] = []
        self.halted = False

    def do(self, action: Action) -> None:
        match action:
            case Place(order=order):
                assert not self.halted, "nothing is entered while the market is halted"
                copy = OwnOrder(
                    order.number, order.side, order.price, order.total, order.leaves, self.next_id
                )
                self.next_id += 1
                self.orders.append(copy)
                self.shadow.placed(order, copy.order_id)
            case Reduce(order=order, total=total):
                found = self.find(order.order_id)
                found.leaves -= found.total - total
                found.total = total
                assert found.leaves > 0
            case Cancel(order=order):
                self.orders.remove(self.find(order.order_id))
            case Take():
                assert not self.halted, "nothing is entered while the market is halted"
                self.take(action)
            case SetState(state=state):
                self.halted = state == "halted"

    def find(self, order_id: int) -> OwnOrder:
        (found,) = [order for order in self.orders if order.order_id == order_id]
        return found

    def take(self, action: Take) -> None:
        left = action.size
        sign = 1 if action.side == "buy" else -1
        makers = [
            order
            for order in self.orders
            if order.side != action.side and sign * order.price <= sign * action.price
        ]
        for maker in sorted(makers, key=lambda order: sign * order.price):  # stable: oldest first
            size = min(left, maker.leaves)
            if size == 0:
                break
            if maker.order_id not in {order.order_id for order in action.makers}:
                self.wrong_makers.append(f"{maker.number} at {action.price}")
            left -= size
            maker.leaves -= size
            if maker.leaves == 0:
                self.orders.remove(maker)
            self.fills.append((maker.order_id, size))
            self.shadow.filled(maker.order_id, size)
        assert left == 0, "an execution of the file is always filled completely"

    def depth(self, side: SideName, levels: int) -> list[tuple[int, int]]:
        sizes: dict[int, int] = {}
        for order in self.orders:
            if order.side == side:
                sizes[order.price] = sizes.get(order.price, 0) + order.leaves
        return sorted(sizes.items(), reverse=side == "buy")[:levels]


def play(
    messages: Sequence[Message], rows: Sequence[BookRow]
) -> tuple[list[list[Difference]], Shadow, NaiveBook]:
    """The same steps as zexchange.replay.driver, without an exchange."""
    shadow = Shadow()
    book = NaiveBook(shadow)
    for action in shadow.opening(messages[0], rows[0]):
        book.do(action)
    differences = []
    for index, (message, row) in enumerate(zip(messages, rows, strict=True)):
        if index or message.kind is Kind.NEW:
            for action in shadow.actions(message):
                book.do(action)
        if index:
            for action in shadow.reveal(rows[index - 1], row):
                book.do(action)
        differences.append(compare(row, book.depth("buy", row.depth), book.depth("sell", row.depth)))
        for side in ("buy", "sell"):
            assert list(shadow.depth(side, 100)) == book.depth(side, 100), (
                f"shadow and book differ after row {index + 1}"
            )
    return differences, shadow, book


def test_every_row_of_the_real_sample_matches() -> None:
    folder = shared_data("lobster")
    messages = read_messages(folder / "AAPL_2012-06-21_message_10.first999.csv")
    rows = read_book(folder / "AAPL_2012-06-21_orderbook_10.first999.csv")

    differences, shadow, book = play(messages, rows)

    assert len(rows) == 999
    assert [index + 1 for index, found in enumerate(differences) if found] == []
    assert book.wrong_makers == []
    assert len(book.fills) == 98
    assert (shadow.revealed_levels, shadow.vanished_levels, shadow.unknown_events) == (12, 2, 0)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("levels", [1, 5])
def test_every_row_of_a_synthetic_flow_matches(seed: int, levels: int) -> None:
    flow = synthetic_flow(seed, rows=250, levels=levels)
    messages, rows = list(parse_messages(flow.messages)), list(parse_book(flow.book))

    differences, shadow, book = play(messages, rows)

    assert [index + 1 for index, found in enumerate(differences) if found] == []
    assert book.wrong_makers == []
    assert len(book.fills) == flow.executions > 0
    assert shadow.unknown_events == 0


def test_synthetic_flows_contain_what_is_hard() -> None:
    kinds: set[Kind] = set()
    revealed = vanished = 0
    for seed in range(12):
        flow = synthetic_flow(seed, rows=250)
        messages = list(parse_messages(flow.messages))
        _, shadow, _ = play(messages, list(parse_book(flow.book)))
        kinds |= {message.kind for message in messages}
        revealed += shadow.revealed_levels
        vanished += shadow.vanished_levels
    assert kinds == set(Kind) - {Kind.CROSS}
    assert revealed > 0
    assert vanished > 0


def test_the_same_seed_gives_the_same_flow() -> None:
    assert synthetic_flow(3, rows=50) == synthetic_flow(3, rows=50)
    assert synthetic_flow(3, rows=50) != synthetic_flow(4, rows=50)


# ---------------------------------------------------------------- single rules


def rows_of(*lines: str) -> list[BookRow]:
    return list(parse_book(list(lines)))


def message(kind: Kind, number: int, size: int, price: int, side: SideName) -> Message:
    return Message("34200.0", kind, number, size, price, side)


def test_the_opening_book_is_the_first_row_without_its_own_new_order() -> None:
    (row,) = rows_of("110,5,100,30,120,7,90,4")
    shadow = Shadow()
    shadow.opening(message(Kind.NEW, 1, 10, 100, "buy"), row)
    assert shadow.depth("buy", 5) == ((100, 20), (90, 4))
    assert shadow.depth("sell", 5) == ((110, 5), (120, 7))


def test_a_first_event_that_is_no_new_order_is_in_the_opening_book_already() -> None:
    (row,) = rows_of("110,5,100,30")
    shadow = Shadow()
    shadow.opening(message(Kind.DELETE, 1, 10, 100, "buy"), row)
    assert shadow.depth("buy", 5) == ((100, 30),)


def test_a_reduction_of_an_unknown_order_is_taken_from_the_seed() -> None:
    (row,) = rows_of("110,5,100,30")
    shadow = Shadow()
    shadow.opening(message(Kind.DELETE, 1, 10, 100, "buy"), row)
    shadow.actions(message(Kind.NEW, 7, 3, 100, "buy"))
    (action,) = shadow.actions(message(Kind.REDUCE, 999, 10, 100, "buy"))
    assert isinstance(action, Reduce)
    assert (action.order.number, action.total) == (None, 20)
    (action,) = shadow.actions(message(Kind.DELETE, 998, 20, 100, "buy"))
    assert isinstance(action, Cancel)
    assert action.order.number is None
    assert shadow.depth("buy", 5) == ((100, 3),)


def test_an_execution_comes_from_the_other_side_and_names_its_maker() -> None:
    (row,) = rows_of("110,5,100,30")
    shadow = Shadow()
    shadow.opening(message(Kind.DELETE, 1, 10, 100, "buy"), row)
    shadow.actions(message(Kind.NEW, 7, 3, 99, "buy"))
    (action,) = shadow.actions(message(Kind.EXECUTE, 7, 2, 99, "buy"))
    assert isinstance(action, Take)
    assert (action.side, action.price, action.size) == ("sell", 99, 2)
    assert [order.number for order in action.makers] == [7]


def test_an_event_about_an_order_that_cannot_be_known_is_counted() -> None:
    (row,) = rows_of("110,5,100,30")
    shadow = Shadow()
    shadow.opening(message(Kind.DELETE, 1, 10, 100, "buy"), row)
    assert shadow.actions(message(Kind.DELETE, 5, 1, 42, "buy")) == []
    assert shadow.unknown_events == 1


def test_halts_set_the_markets_state() -> None:
    shadow = Shadow()
    assert shadow.actions(message(Kind.HALT, 0, 0, -1, "sell")) == [SetState("halted")]
    assert shadow.actions(message(Kind.HALT, 0, 0, 0, "sell")) == [SetState("continuous")]
    assert shadow.actions(message(Kind.HALT, 0, 0, 1, "sell")) == [SetState("continuous")]


def test_only_levels_beyond_the_last_view_are_revealed() -> None:
    before, after = rows_of("110,5,100,30,120,7,90,4", "110,5,100,30,120,8,80,9")
    shadow = Shadow()
    shadow.opening(message(Kind.DELETE, 1, 10, 100, "buy"), before)
    actions = shadow.reveal(before, after)
    # Bid 80 is deeper than anything seen: revealed. Ask 120 was in view: its change would need a message.
    assert [(a.order.side, a.order.price, a.order.leaves) for a in actions if isinstance(a, Place)] == [
        ("buy", 80, 9)
    ]
    assert shadow.revealed_levels == 1


def test_a_side_with_room_left_reveals_nothing() -> None:
    before, after = rows_of("110,5,100,30,9999999999,0,-9999999999,0", "110,5,100,30,120,8,80,9")
    shadow = Shadow()
    shadow.opening(message(Kind.DELETE, 1, 10, 100, "buy"), before)
    assert shadow.reveal(before, after) == []
    assert compare(after, shadow.depth("buy", 2), shadow.depth("sell", 2)) == [
        Difference("buy", 2, (80, 9), None),
        Difference("sell", 2, (120, 8), None),
    ]


def test_an_empty_level_is_no_level() -> None:
    (row,) = rows_of("9999999999,0,100,30,9999999999,0,-9999999999,0")
    assert row == BookRow(bids=((100, 30),), asks=(), depth=2)


@pytest.mark.parametrize(
    "line",
    [
        "34200.1,1,5,10,100",
        "34200.1,8,5,10,100,1",
        "34200.1,1,5,10,100,2",
        "34200.1,1,5,0,100,1",
        "34200.1,1,x,1,100,1",
        "34200.1,1,-5,1,100,1",
        "34200.1,1,18446744073709551616,1,100,1",
        "34200.1,1,5,9007199254740992,100,1",
        "34200.1,4,5,1,9007199254740992,1",
        "34200.1,3,5,1,-1,1",
    ],
)
def test_bad_messages_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(LobsterError, match="line 2"):
        list(parse_messages(["34200.0,1,5,10,100,1", line]))


@pytest.mark.parametrize(
    "line",
    [
        "1,2,3",
        "110,5,100,30,120,7,90,4",
        "x,5,100,30",
        "110,0,100,30",
        "110,5,-100,30",
        "110,9007199254740992,100,30",
        "9007199254740992,1,100,30",
    ],
)
def test_bad_book_rows_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(LobsterError, match="line 2"):
        list(parse_book(["110,5,100,30", line]))


def test_files_are_read(tmp_path: Path) -> None:
    flow = synthetic_flow(1, rows=20)
    (tmp_path / "m.csv").write_text("\n".join(flow.messages) + "\n")
    (tmp_path / "b.csv").write_text("\n".join(flow.book) + "\n")
    assert read_messages(tmp_path / "m.csv") == list(parse_messages(flow.messages))
    assert read_book(tmp_path / "b.csv") == list(parse_book(flow.book))
