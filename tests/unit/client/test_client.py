"""The client as its users see it: typed results, exceptions, events, threads. The exchange is in memory."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from nacl.signing import SigningKey

import zexchange.client as sdk
from tests.unit.client.fake_exchange import ALICE, BOB, OPERATOR, FakeExchange, Served, funded, small_genesis
from zexchange.client import (
    AmendOrder,
    CancelAll,
    CancelOrder,
    Client,
    ConnectFailed,
    DeploymentMismatch,
    Deposited,
    EventsLost,
    Fill,
    MissedReports,
    NewOrder,
    NoExchange,
    OrderUpdate,
    OutcomeUnknown,
    UnknownMarket,
    rejections,
)
from zexchange.client._connection import Clock
from zexchange.client._core import Instant
from zexchange.wire.messages import ExecutionReport, ReasonCode

BTC = "BTC-USD"


@pytest.fixture
def served() -> Iterator[Served]:
    exchange = FakeExchange(small_genesis((200, 500)))
    funded(exchange, ALICE, BOB)
    with Served(exchange) as served:
        yield served


@pytest.fixture
def alice(served: Served) -> Iterator[Client]:
    with Client(key=ALICE, connector=served.connector) as client:
        yield client


@pytest.fixture
def bob(served: Served) -> Iterator[Client]:
    with Client(key=BOB, connector=served.connector) as client:
        yield client


@pytest.fixture
def operator(served: Served) -> Iterator[Client]:
    with Client(key=OPERATOR, connector=served.connector) as client:
        yield client


# ---------------------------------------------------------------- orders


def test_an_order_rests(alice: Client) -> None:
    result = alice.buy(BTC, "0.5", "64000", client_order_id=7)
    assert (result.status, result.filled, result.remaining) == ("open", 0, Decimal("0.5"))
    assert (result.side, result.price, result.quantity) == ("buy", 64_000, Decimal("0.5"))
    assert (result.client_order_id, result.market, result.reason, result.fills) == (7, BTC, None, ())
    assert result.average_price is None
    (order,) = alice.open_orders()
    assert (order.order_id, order.client_order_id, order.filled) == (result.order_id, 7, 0)


def test_an_order_trades_with_both_sides_told(alice: Client, bob: Client) -> None:
    resting = alice.buy(BTC, "0.5", "64000")
    alice.buy(BTC, "0.5", "63000")
    result = bob.sell(BTC, "1.5", "63000")
    assert (result.status, result.filled, result.remaining) == ("open", 1, Decimal("0.5"))
    assert [(fill.price, fill.quantity, fill.liquidity) for fill in result.fills] == [
        (64_000, Decimal("0.5"), "taker"),
        (63_000, Decimal("0.5"), "taker"),
    ]
    assert result.average_price == 63_500
    assert result.fills[0].fee == Decimal("16")  # 500 ppm of 32,000

    alice.status()
    maker, _ = alice.events(0)
    assert isinstance(maker, Fill)
    assert (maker.order_id, maker.trade_id, maker.liquidity) == (
        resting.order_id,
        result.fills[0].trade_id,
        "maker",
    )
    assert maker.fee == Decimal("6.4")
    assert [trade.price for trade in alice.trades(BTC)] == [63_000, 64_000]


def test_immediate_orders(alice: Client, bob: Client) -> None:
    alice.sell(BTC, "0.5", "100")
    part = bob.buy(BTC, "0.8", "100", time_in_force="ioc")
    assert (part.status, part.filled, part.reason) == ("cancelled", Decimal("0.5"), "immediate_remainder")
    alice.sell(BTC, "0.5", "101")
    full = bob.market_buy(BTC, "0.5", protection_price="105")
    assert (full.status, full.fills[0].price) == ("filled", 101)
    with pytest.raises(sdk.FokNotFillable):
        bob.buy(BTC, "1", "200", time_in_force="fok")
    alice.buy(BTC, "0.5", "99")
    assert bob.market_sell(BTC, "0.5", protection_price="98").fills[0].price == 99


def test_self_trade_is_prevented_and_said_so(alice: Client) -> None:
    alice.sell(BTC, "0.5", "100")
    result = alice.buy(BTC, "0.5", "100")
    assert (result.status, result.reason) == ("cancelled", "self_trade")


def test_cancel_by_either_id(alice: Client) -> None:
    first = alice.buy(BTC, "0.5", "100")
    alice.buy(BTC, "0.25", "100", client_order_id=9)
    assert alice.cancel(order_id=first.order_id).cancelled == Decimal("0.5")
    assert alice.cancel(client_order_id=9).cancelled == Decimal("0.25")
    with pytest.raises(sdk.UnknownOrder) as caught:
        alice.cancel(order_id=first.order_id)
    assert caught.value.report is not None
    with pytest.raises(ValueError, match="name the order"):
        alice.cancel()


def test_cancel_all_goes_on_until_none_is_left(alice: Client) -> None:
    alice.buy("AAPL-USD", 1, 1)
    for _ in range(17):  # 1,088 orders: more than one command cancels
        alice.submit([NewOrder(market=BTC, side="buy", quantity="0.0001", price="1")] * 64)
    alice.sell(BTC, "0.5", "100")
    assert alice.cancel_all(BTC, "buy") == 17 * 64
    assert [order.market for order in alice.open_orders()] == ["AAPL-USD", BTC]
    assert alice.cancel_all() == 2


def test_amend(alice: Client, bob: Client) -> None:
    order = alice.buy(BTC, "0.5", "100", client_order_id=3)
    assert alice.amend(order.order_id, quantity="0.25").remaining == Decimal("0.25")
    assert alice.amend(client_order_id=3, price="101").price == 101
    bob.sell(BTC, "0.1", "102")
    crossed = alice.amend(order.order_id, price="102", market=BTC)
    assert (crossed.status, crossed.filled, len(crossed.fills)) == ("open", Decimal("0.1"), 1)
    gone = alice.amend(order.order_id, quantity="0.1")
    assert (gone.status, gone.reason) == ("cancelled", "amended_below_filled")
    with pytest.raises(sdk.UnknownOrder):
        alice.amend(order.order_id, quantity="0.1")


def test_a_batch_has_an_outcome_per_command(alice: Client) -> None:
    outcomes = alice.submit(
        [
            NewOrder(market=BTC, side="buy", quantity="0.5", price="100", client_order_id=5),
            NewOrder(market=BTC, side="buy", quantity="0.5", price="100", client_order_id=5),
            AmendOrder(client_order_id=5, quantity="0.25", market=BTC),
            CancelOrder(client_order_id=5),
            CancelAll(),
        ]
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "OrderResult",
        "ClientOrderIdInUse",
        "OrderResult",
        "CancelResult",
        "CancelAllResult",
    ]


def test_all_or_nothing_of_a_batch(alice: Client) -> None:
    orders = [NewOrder(market=BTC, side="buy", quantity="0.5", price="100") for _ in range(2)]
    outcomes = alice.submit([*orders, CancelOrder(order_id=999, market=BTC)], all_or_nothing=True)
    assert [type(one).__name__ for one in outcomes] == ["BatchRefused", "BatchRefused", "UnknownOrder"]
    assert alice.open_orders() == []
    outcomes = alice.submit(orders, all_or_nothing=True)
    assert [type(one).__name__ for one in outcomes] == ["OrderResult", "OrderResult"]
    assert len(alice.open_orders()) == 2


@pytest.mark.parametrize("count", [0, 65])
def test_a_batch_has_1_to_64_commands(alice: Client, count: int) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        alice.submit([CancelAll()] * count)


def test_wrong_arguments_are_refused_before_anything_is_sent(alice: Client, served: Served) -> None:
    applied = len(served.exchange.applied)
    with pytest.raises(sdk.PriceOffTick):
        alice.buy(BTC, "0.5", "100.001")
    with pytest.raises(sdk.QuantityOffLot):
        alice.buy(BTC, "0.00005", "100")
    with pytest.raises(UnknownMarket, match="BTC-USD, AAPL-USD"):
        alice.buy("DOGE-USD", "0.5", "100")
    with pytest.raises(TypeError, match="float"):
        alice.buy(BTC, 0.5, "100")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="time_in_force must be one of"):
        alice.buy(BTC, "0.5", "100", time_in_force="week")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="client_order_id"):
        alice.buy(BTC, "0.5", "100", client_order_id=0)
    assert len(served.exchange.applied) == applied


# ---------------------------------------------------------------- refusals


def test_refusals_are_the_reasons_own_exceptions(alice: Client, bob: Client, operator: Client) -> None:
    with pytest.raises(sdk.InsufficientFunds):
        alice.buy(BTC, "100", "64000")
    bob.sell(BTC, "1", "100")
    with pytest.raises(sdk.PostOnlyWouldCross):
        alice.buy(BTC, "1", "100", post_only=True)
    with pytest.raises(rejections.PostOnlyMustRest):
        alice.buy(BTC, "1", "100", post_only=True, time_in_force="ioc")
    with pytest.raises(rejections.OperatorOnly):
        alice.deposit(1, "USD", 1)
    with pytest.raises(rejections.TradersOnly):
        operator.buy(BTC, "1", "100")
    operator.set_market_state(BTC, "halted")
    with pytest.raises(sdk.MarketHalted) as caught:
        alice.buy(BTC, "1", "100")
    assert isinstance(caught.value, sdk.ZexchangeError)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("reason", [reason for reason in ReasonCode if reason is not ReasonCode.NONE])
def test_every_reason_has_a_class_of_its_own(reason: ReasonCode) -> None:
    kind = rejections.rejection_for(reason)
    assert kind.reason is reason
    assert issubclass(kind, rejections.Rejected)
    assert issubclass(kind, sdk.ZexchangeError)
    assert str(kind()) == kind.__doc__


# ---------------------------------------------------------------- account, market data, operator


def test_balances_and_book(alice: Client) -> None:
    alice.buy(BTC, "0.5", "100")
    alice.sell(BTC, "0.25", "110")
    usd, btc, aapl = alice.balances()
    assert (usd.asset, usd.held, usd.total) == ("USD", Decimal("50.025"), 1_000_000)
    assert (btc.held, aapl.total) == (Decimal("0.25"), 100_000)
    book = alice.book(BTC)
    assert (book.state, book.market) == ("continuous", BTC)
    assert [(level.price, level.quantity, level.orders) for level in (*book.bids, *book.asks)] == [
        (100, Decimal("0.5"), 1),
        (110, Decimal("0.25"), 1),
    ]
    with pytest.raises(rejections.QueryLimitInvalid):
        alice.book(BTC, levels=501)


def test_open_orders_come_in_pages(alice: Client) -> None:
    for _ in range(9):
        alice.submit([NewOrder(market=BTC, side="buy", quantity="0.0001", price="1")] * 64)
    orders = alice.open_orders(BTC)
    assert len(orders) == 9 * 64
    assert [order.order_id for order in orders] == sorted(order.order_id for order in orders)
    assert alice.open_orders("AAPL-USD") == []


def test_operator_commands(operator: Client, served: Served) -> None:
    carol, laptop = SigningKey(bytes([7]) * 32), SigningKey(bytes([8]) * 32)
    opened = operator.open_account(carol.verify_key)
    assert opened.account_id == 3
    assert operator.register_key(3, bytes(laptop.verify_key).hex()).account_id == 3
    assert operator.deposit(3, "USD", "12.5").amount == Decimal("12.5")
    assert operator.withdraw(3, "USD", "2.5").account_id == 3
    for key in (carol, laptop):
        with Client(key=key, connector=served.connector) as client:
            assert client.account_id == 3
            assert [(row.asset, row.total) for row in client.balances()] == [("USD", 10)]
    with pytest.raises(rejections.AccountExists):
        operator.open_account(bytes(32 * [1]), 3)
    with pytest.raises(sdk.AmountTooPrecise):
        operator.deposit(3, "USD", "0.0000001")


def test_numbers_that_no_message_can_carry_are_refused(operator: Client) -> None:
    key = bytes(SigningKey.generate().verify_key)
    with pytest.raises(rejections.UnknownAccount):
        operator.deposit(2**64, "USD", 1)
    with pytest.raises(rejections.UnknownAccount):
        operator.register_key(-1, key)
    with pytest.raises(rejections.AccountLimit):
        operator.open_account(key, 2**64)
    with pytest.raises(rejections.ShardUnknown):
        operator.withdraw(1, "USD", 1, shard=70_000)
    for limit in (-1, 0, 501, 2**32):
        with pytest.raises(rejections.QueryLimitInvalid):
            operator.book(BTC, limit)
        with pytest.raises(rejections.QueryLimitInvalid):
            operator.trades(BTC, limit)


def test_a_key_that_is_registered_meanwhile_gets_its_account(served: Served, operator: Client) -> None:
    carol = SigningKey(bytes([7]) * 32)
    with Client(key=carol, connector=served.connector) as client:
        assert client.account_id is None
        with pytest.raises(sdk.UnknownKey):
            client.balances()
        operator.open_account(carol.verify_key)
        operator.deposit(3, "USD", 5)
        event = next(client.events())
        assert event == Deposited(account_id=3, asset="USD", amount=Decimal(5), report_seq=1)
        assert client.account_id == 3


def test_status(alice: Client) -> None:
    status = alice.status()
    assert (status.name, status.account_id) == ("test", 1)
    assert status.deployment_id == alice.deployment_id.hex()
    assert status.shards[0].durability == "always"


# ---------------------------------------------------------------- connections


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_lost_connection_is_survived_without_a_second_order(
    alice: Client, served: Served, drop: str
) -> None:
    served.do(lambda exchange: setattr(exchange, "drop_next", drop))
    served.refuse_connections = 1
    result = alice.buy(BTC, "0.5", "100")
    assert result.duplicate == (drop == "after")
    assert (result.status, result.side, result.remaining) == ("open", "buy", Decimal("0.5"))
    assert len(alice.open_orders()) == 1


def test_missed_reports_are_an_event(alice: Client, bob: Client, served: Served) -> None:
    alice.buy(BTC, "0.5", "100")
    bob.status()
    served.refuse_connections = 10**9  # alice stays away
    (own,) = [one for one in served.exchange.connections if one.account_id == 1]
    served.do(lambda exchange: exchange.hang_up(own))
    bob.sell(BTC, "0.5", "100")
    served.refuse_connections = 0
    event = next(alice.events())
    assert isinstance(event, MissedReports)
    assert event.first == event.last
    assert alice.open_orders() == []


def test_the_first_connection_must_succeed(served: Served) -> None:
    served.refuse_connections = 1
    with pytest.raises(ConnectFailed, match="refused"):
        Client(key=ALICE, connector=served.connector)


def test_a_pinned_deployment_must_be_met(served: Served) -> None:
    with pytest.raises(DeploymentMismatch):
        Client(key=ALICE, connector=served.connector, deployment_id="00" * 32)
    pinned = served.exchange.genesis.deployment_id.hex()
    with Client(key=ALICE, connector=served.connector, deployment_id=pinned) as client:
        assert client.deployment_id.hex() == pinned


class HandClock(Clock):
    """Real time plus what the test adds."""

    ahead_ms = 0

    def now(self) -> Instant:
        now = super().now()
        return Instant(now.mono_ms + self.ahead_ms, now.wall_ns)


def test_no_answer_is_an_unknown_outcome_that_can_be_resolved(served: Served) -> None:
    clock = HandClock()
    with Client(key=ALICE, connector=served.connector, clock=clock, timeout_ms=3_600_000) as client:
        served.do(lambda exchange: setattr(exchange, "mute", True))
        applied = len(served.exchange.applied)
        errors: list[BaseException] = []

        def place() -> None:
            try:
                client.buy(BTC, "0.5", "100")
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=place)
        thread.start()
        while len(served.exchange.applied) == applied:
            thread.join(0.001)
        clock.ahead_ms = 3_600_001
        client._connection.poke()
        thread.join()
        (error,) = errors
        assert isinstance(error, OutcomeUnknown)

        served.do(lambda exchange: setattr(exchange, "mute", False))
        (outcome,) = client.resolve(error)
        assert isinstance(outcome, sdk.OrderResult)
        assert outcome.duplicate
        assert len(client.open_orders()) == 1


def test_calls_from_many_threads(alice: Client) -> None:
    results: list[int] = []

    def place(offset: int) -> None:
        for index in range(20):
            results.append(alice.buy(BTC, "0.0001", offset * 100 + index + 1).order_id)

    threads = [threading.Thread(target=place, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 80
    assert len(alice.open_orders()) == 80


def test_a_closed_client_says_so(served: Served) -> None:
    client = Client(key=ALICE, connector=served.connector)
    client.close()
    client.close()
    with pytest.raises(sdk.Disconnected, match="closed"):
        client.buy(BTC, "0.5", "100")
    assert list(client.events()) == []


@pytest.fixture
def stuck(served: Served) -> Iterator[Client]:
    """A client whose connection is gone and whose next attempt to connect never comes to an end."""
    attempts, hanging, let_go = iter(range(9)), threading.Event(), threading.Event()

    def connector() -> socket.socket:
        if next(attempts) == 0:
            return served.connector()
        hanging.set()
        let_go.wait()
        raise OSError("gave up")

    client = Client(key=ALICE, connector=connector, timeout_ms=50)
    try:
        served.drop_all()
        assert hanging.wait(30)
        yield client
    finally:
        let_go.set()
        client.close()


def test_a_call_ends_in_time_while_an_attempt_to_connect_does_not(stuck: Client) -> None:
    with pytest.raises(sdk.Disconnected, match="nothing was sent"):
        stuck.buy(BTC, "0.5", "100")


def test_closing_does_not_wait_for_an_attempt_to_connect(stuck: Client) -> None:
    stuck.close()
    with pytest.raises(sdk.Disconnected, match="closed"):
        stuck.status()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_is_told_and_leaves_the_session_alone(alice: Client) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for use in (alice.status, lambda: alice.account_id):
                with pytest.raises(sdk.ZexchangeError, match="fork"):
                    use()
            alice.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert alice.buy(BTC, "0.5", "100").status == "open"


# ---------------------------------------------------------------- events


def test_orders_of_another_session_are_events(alice: Client, served: Served) -> None:
    with Client(key=ALICE, connector=served.connector) as second:
        order = second.buy(BTC, "0.5", "100")
        second.cancel(order_id=order.order_id)
    events = alice.events()
    new, cancelled = next(events), next(events)
    assert isinstance(new, OrderUpdate)
    assert isinstance(cancelled, OrderUpdate)
    assert (new.kind, new.order_id, new.side) == ("new", order.order_id, "buy")
    assert (cancelled.kind, cancelled.reason) == ("cancelled", "cancelled_by_user")


def test_events_nobody_reads_are_dropped_and_that_is_said(served: Served, operator: Client) -> None:
    with Client(key=ALICE, connector=served.connector, events_max=3) as client:
        for amount in range(1, 6):
            operator.deposit(1, "USD", amount)
        client.status()  # an answer comes after the events before it
        with pytest.raises(EventsLost) as caught:
            next(client.events(0))
        assert caught.value.lost == 2
        kept = [event.amount for event in client.events(0) if isinstance(event, Deposited)]
        assert kept == [3, 4, 5]


def test_a_callback_gets_every_event_and_may_fail(
    served: Served, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[object] = []

    def on_event(event: object) -> None:
        seen.append(event)
        raise ValueError("a bug of the user's")

    with Client(key=ALICE, connector=served.connector, on_event=on_event, events_max=1) as client:
        for amount in range(1, 4):
            operator.deposit(1, "USD", amount)
        client.status()  # an answer comes after the events before it
    assert [event.amount for event in seen if isinstance(event, Deposited)] == [1, 2, 3]
    assert "on_event failed" in caplog.text


def test_a_callback_may_use_the_client_and_may_wait(served: Served, operator: Client) -> None:
    """Neither a callback that places an order nor one that waits for the caller's lock stops the session."""
    lock = threading.Lock()
    placed: list[object] = []
    called, done = threading.Event(), threading.Event()

    def on_event(_event: object) -> None:
        called.set()
        with lock:
            placed.append(client.buy(BTC, "0.5", "100").status)
        done.set()

    with Client(key=ALICE, connector=served.connector, on_event=on_event) as client:
        with lock:
            operator.deposit(1, "USD", 1)
            assert called.wait(30)
            assert client.buy(BTC, "0.5", "100").status == "open"
        assert done.wait(30)
        assert placed == ["open"]
        assert len(client.open_orders()) == 2


def test_a_callback_may_close_the_client(served: Served, operator: Client) -> None:
    closed = threading.Event()

    def on_event(_event: object) -> None:
        client.close()
        closed.set()

    with Client(key=ALICE, connector=served.connector, on_event=on_event) as client:
        operator.deposit(1, "USD", 1)
        assert closed.wait(30)
        with pytest.raises(sdk.Disconnected, match="closed"):
            client.status()


# ---------------------------------------------------------------- the package


def test_every_error_survives_pickling() -> None:
    unknown = OutcomeUnknown("no answer", nonce=7, shard=1, frame=b"frame")
    report = ExecutionReport(order_id=5)
    errors = [unknown, EventsLost(3), sdk.Disconnected("gone")]
    errors += [rejections.rejection_for(reason)(report, "why") for reason in ReasonCode if reason]
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
        assert type(copy) is type(error)
        assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_everything_in_all_can_be_imported() -> None:
    assert sorted(sdk.__all__) == sorted(set(sdk.__all__))
    for name in sdk.__all__:
        assert getattr(sdk, name) is not None
    with pytest.raises(AttributeError):
        _ = sdk.nothing


def test_local_says_when_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(NoExchange, match="zexchange up"):
        Client.local(tmp_path, key=ALICE)
