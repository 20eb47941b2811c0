"""The whole path through the SDK: accounts, deposits, trades, stop, start again, verify; and what a user of the SDK
notices of killed processes: nothing. (test_kills.py judges the same below the SDK, report by report.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs

from tests.e2e.conftest import MARKET, Command, Exchange, verify
from zexchange.client import (
    CancelAll,
    Client,
    MarketClosed,
    MarketNeeded,
    NewOrder,
    OrderResult,
    OutcomeUnknown,
    new_key,
)
from zexchange.client.types import Fill, OrderUpdate
from zexchange.runtime.running import RunningExchange
from zexchange.wire.messages import Command as WireCommand
from zexchange.wire.messages import (
    CommandKind,
    OrderType,
    SelfTradePrevention,
    Side,
    SignedBatch,
    TimeInForce,
)
from zexchange.wire.signing import sign_batch

pytestmark = pytest.mark.timeout(300)


@contextmanager
def started(data: Path, settings: dict[str, str] | None = None) -> Iterator[Exchange]:
    with RunningExchange(data, settings=settings) as running:
        yield Exchange(running)


def _state(exchange: Exchange) -> dict[str, object]:
    """All that must survive a stop, as the accounts see it. (The list of last trades is kept in memory only.)"""
    found: dict[str, object] = {}
    for name in ("alice", "bob"):
        with exchange.client(name) as client:
            found[name] = (client.account_id, client.balances(), client.open_orders())
            book = client.book(MARKET)
            found["book"] = (book.state, book.bids, book.asks)
            shard = client.status().shards[0]
            found["counts"] = (shard.open_orders, shard.accounts, shard.trades, shard.next_seq)
    with exchange.client() as operator:
        found["operator"] = (operator.account_id, operator.balances())
    return found


def test_open_deposit_trade_stop_start_verify(data: Path, command: Command) -> None:
    with started(data) as exchange:
        exchange.account("alice", USD="100000")
        exchange.account("bob", BTC="2", USD="1000")
        with exchange.client("alice") as alice, exchange.client("bob") as bob:
            alice.buy(MARKET, "0.5", "60000", client_order_id=1)
            sold = bob.sell(MARKET, "0.2", "59000")
            assert (sold.status, sold.fills[0].price, sold.fills[0].fee) == ("filled", 60_000, Decimal("6"))
            alice.buy(MARKET, "0.1", "58000")
            bob.sell(MARKET, "0.3", "61000", post_only=True)
            # A batch by hand, so that the same bytes can be sent after the restart.
            key = exchange.key("bob")
            nonce = time.time_ns() // 1000
            order = WireCommand(
                kind=CommandKind.NEW,
                side=Side.SELL,
                order_type=OrderType.LIMIT,
                time_in_force=TimeInForce.GTC,
                self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
                market_id=1,
                price_ticks=6_200_000,
                qty_lots=10,
                client_order_id=77,
            )
            frame = sign_batch(SignedBatch(nonce=nonce, commands=[order]), key, bob.deployment_id)
            once = OutcomeUnknown("by hand", nonce=nonce, shard=0, frame=frame)
            (first,) = bob.resolve(once)
            assert isinstance(first, OrderResult)
            assert not first.duplicate
        before = _state(exchange)
        assert exchange.running.stop() == 0
    verify(command, data)

    with started(data) as exchange:
        assert _state(exchange) == before
        with exchange.client("bob") as bob:
            (again,) = bob.resolve(once)
            assert isinstance(again, OrderResult)
            assert again.duplicate
            assert (again.order_id, again.client_order_id) == (first.order_id, 77)
            assert again.report_seq == first.report_seq
            bob.cancel(client_order_id=77)
        with exchange.client("alice") as alice:
            assert alice.cancel_all() == 2
            assert {row.held for row in alice.balances()} == {Decimal(0)}
    verify(command, data)


class _Load:
    """Orders without a pause in a thread of their own; every answer is kept."""

    def __init__(self, exchange: Exchange) -> None:
        self.results: list[OrderResult] = []
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._enough = threading.Condition()
        self._client = exchange.client("alice", timeout_ms=120_000)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Load:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def wait_for(self, more: int) -> None:
        """Return when so many more orders were answered."""
        with self._enough:
            wanted = len(self.results) + more
            self._enough.wait_for(lambda: len(self.results) >= wanted or self.errors)
        assert not self.errors, self.errors

    def _run(self) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                number += 1
                result = self._client.buy(MARKET, "0.0001", 100 + number % 50, client_order_id=number)
                with self._enough:
                    self.results.append(result)
                    self._enough.notify_all()
        except BaseException as error:
            with self._enough:
                self.errors.append(error)
                self._enough.notify_all()


@pytest.mark.parametrize("process", ["matcher-0", "ingress-0", "settlement", "store"])
def test_kill_9_under_load_loses_and_doubles_nothing(data: Path, process: str, command: Command) -> None:
    with started(data, {"ingress.colocate": "off"}) as exchange:
        exchange.account("alice", USD="1000000")
        with _Load(exchange) as load:
            for _ in range(2):
                load.wait_for(30)
                old_pid = exchange.running.kill(process)
                exchange.running.wait_until_replaced(process, old_pid)
                load.wait_for(30)
        assert not load.errors
        with exchange.client("alice") as alice:
            orders = alice.open_orders()
        # Exactly the acknowledged orders are open, each once.
        assert [order.order_id for order in orders] == [result.order_id for result in load.results]
        assert [order.client_order_id for order in orders] == list(range(1, len(orders) + 1))
    verify(command, data)


def test_killed_altogether_it_comes_back_as_acknowledged(data: Path, command: Command) -> None:
    with started(data) as exchange:
        exchange.account("alice", USD="100000")
        exchange.account("bob", BTC="1")
        with exchange.client("alice") as alice, exchange.client("bob") as bob:
            alice.buy(MARKET, "0.5", "60000")
            bob.sell(MARKET, "0.2", "60000")
        before = _state(exchange)
        exchange.running.crash()
    with started(data) as exchange:
        assert _state(exchange) == before
    verify(command, data)


def test_two_exchanges_side_by_side_are_apart(tmp_path: Path) -> None:
    with started(tmp_path / "one") as one, started(tmp_path / "two") as two:
        one.account("alice", USD="10")
        key = one.key("alice")
        with one.client(key) as here, two.client(key) as there:
            assert here.account_id == 1
            assert there.account_id is None
            assert here.deployment_id != there.deployment_id


def test_client_local_finds_the_exchange(exchange: Exchange) -> None:
    exchange.account("local", USD="10")
    with Client.local(exchange.data, "local") as client:
        assert [(row.asset, row.total) for row in client.balances()] == [("USD", 10)]


def test_a_maker_is_told_of_its_fill(exchange: Exchange) -> None:
    exchange.account("maker", BTC="1")
    exchange.account("taker", USD="100000")
    with exchange.client("maker") as maker, exchange.client("taker") as taker:
        order = maker.sell(MARKET, "0.5", "50000", client_order_id=5)
        result = taker.market_buy(MARKET, "0.5", protection_price="50000")
        fill = next(maker.events())
        assert (fill.order_id, fill.trade_id) == (order.order_id, result.fills[0].trade_id)  # type: ignore[union-attr]


@pytest.mark.parametrize("colocate", ["on", "off"])
def test_what_happens_by_itself(data: Path, colocate: str, command: Command) -> None:
    """Nobody sends anything, and an order expires; somebody trades, and orders of others are triggered and end."""
    with started(data, {"ingress.colocate": colocate, "ingress.workers": "1"}) as exchange:
        exchange.account("maker", BTC="2", USD="200000")
        exchange.account("taker", USD="200000")
        with exchange.client("maker") as maker, exchange.client("taker") as taker:
            soon = maker.enter(
                NewOrder(
                    market=MARKET,
                    side="sell",
                    quantity="0.1",
                    price="70000",
                    time_in_force="gtd",
                    expire_time_ns=time.time_ns() + 200_000_000,
                    display="0.01",
                )
            )
            expired = next(maker.events())
            assert isinstance(expired, OrderUpdate)
            assert (expired.kind, expired.order_id, expired.reason) == (
                "expired",
                soon.order_id,
                "order_expired",
            )

            stop = NewOrder(market=MARKET, side="sell", quantity="0.1", price="40000", trigger="stop")
            bracket = maker.submit(
                [
                    NewOrder(market=MARKET, side="sell", quantity="0.1", price="60000"),
                    structs.replace(stop, trigger_price="45000", oco_with_previous=True),
                ]
            )
            take_profit, stop_loss = (one for one in bracket if isinstance(one, OrderResult))
            assert [order.is_paired for order in maker.open_orders()] == [True, True]
            bought = taker.market_buy(MARKET, "0.04", protection_price="60000")
            assert bought.filled == Decimal("0.04")
            kinds = [next(maker.events()) for _ in range(2)]
            assert isinstance(kinds[0], Fill)
            assert kinds[0].order_id == take_profit.order_id
            assert isinstance(kinds[1], OrderUpdate)
            assert (kinds[1].order_id, kinds[1].reason) == (stop_loss.order_id, "one_cancels_other")

            waits = maker.enter(structs.replace(stop, trigger_price="59000"))
            (order,) = maker.open_orders()[1:]
            assert (order.trigger, order.trigger_price) == ("stop", 59000)
            maker.buy(MARKET, "0.01", "58000")
            taker.enter(NewOrder(market=MARKET, side="buy", quantity="0.06", price="60000"))
            with exchange.client("taker") as again:
                again.sell(MARKET, "0.01", "58000")
            told = [next(maker.events()) for _ in range(3)]
            assert [getattr(one, "kind", "fill") for one in told] == ["fill", "fill", "triggered"]
            assert isinstance(told[2], OrderUpdate)
            assert told[2].order_id == waits.order_id
    verify(command, data)


def test_a_day_that_opens_and_closes_with_auctions(data: Path, command: Command) -> None:
    """Orders for both auctions are entered before them, and wait out of the book."""
    with started(data) as exchange:
        exchange.account("seller", BTC="2")
        exchange.account("buyer", USD="200000")
        with (
            exchange.client() as operator,
            exchange.client("seller") as seller,
            exchange.client("buyer") as buyer,
        ):
            operator.set_market_state(MARKET, "closed")
            offer = NewOrder(
                market=MARKET, side="sell", quantity="0.2", price="50000", time_in_force="at_the_open"
            )
            wish = NewOrder(
                market=MARKET, side="buy", quantity="0.1", price="51000", time_in_force="at_the_open"
            )
            opening = seller.enter(offer)
            buyer.enter(wish)
            with pytest.raises(MarketClosed):
                seller.enter(structs.replace(offer, time_in_force="at_the_close"))
            assert operator.set_market_state(MARKET, "auction").state == "uncrossing"
            book = operator.book(MARKET)
            assert (book.indicative_price, book.indicative_quantity) == (50000, Decimal("0.1"))
            operator.set_market_state(MARKET, "continuous")
            told = [next(seller.events()) for _ in range(3)]
            assert [getattr(one, "kind", "fill") for one in told] == ["triggered", "fill", "cancelled"]
            assert isinstance(told[2], OrderUpdate)
            assert (told[2].order_id, told[2].reason) == (opening.order_id, "auction_remainder")

            closing = structs.replace(offer, time_in_force="at_the_close", order_type="market", price="40000")
            seller.enter(closing)
            (waits,) = seller.open_orders()
            assert (waits.time_in_force, waits.price) == ("at_the_close", 40000)
            buyer.enter(structs.replace(wish, time_in_force="at_the_close", quantity="0.3"))
            book = operator.book(MARKET)
            assert (book.bids, book.asks) == ((), ())
            operator.set_market_state(MARKET, "closing_auction")
            operator.set_market_state(MARKET, "closed")
            told = [next(seller.events()) for _ in range(2)]
            assert isinstance(told[1], Fill)
            assert (told[1].quantity, told[1].price) == (Decimal("0.2"), 50000)
            assert [seller.open_orders(), buyer.open_orders()] == [[], []]
            assert all(row.held == 0 for client in (seller, buyer) for row in client.balances())
    verify(command, data)


def test_a_second_key_of_an_account_trades_for_it(exchange: Exchange) -> None:
    account_id = exchange.account("owner", USD="1000")
    laptop = new_key(exchange.running.paths.key("laptop"))
    with exchange.client() as operator:
        operator.register_key(account_id, laptop.verify_key)
    with exchange.client("owner") as owner, exchange.client(laptop) as other:
        order = other.buy(MARKET, "0.01", "100")
        update = next(owner.events())
        assert update.order_id == order.order_id  # type: ignore[union-attr]
        assert owner.cancel(order_id=order.order_id).order_id == order.order_id


def test_two_shards(data: Path, command: Command) -> None:
    assert command("init", "--data", data, "--shards", 2)[0] == 0
    with started(data) as exchange:
        account_id = exchange.account("alice", USD="1000")
        with exchange.client() as operator:
            operator.deposit(account_id, "USD", "500", shard=1)
        with exchange.client("alice") as alice:
            assert [market.shard for market in alice.markets] == [0, 1, 0]
            first = alice.buy("BTC-USD", "0.01", "100")
            second = alice.buy("ETH-USD", "0.01", "100")
            assert [order.market for order in alice.open_orders()] == ["BTC-USD", "ETH-USD"]
            (usd,) = [row for row in alice.balances() if row.asset == "USD"]
            assert usd.total == 1500
            with pytest.raises(MarketNeeded):
                alice.cancel(order_id=first.order_id)
            with pytest.raises(MarketNeeded):  # the other shard may have an order of the same number
                alice.amend(second.order_id, price="101")
            with pytest.raises(ValueError, match="one shard"):
                alice.submit([CancelAll(market="BTC-USD"), CancelAll(market="ETH-USD")])
            alice.cancel(order_id=second.order_id, market="ETH-USD")
            assert [shard.open_orders for shard in alice.status().shards] == [1, 0]
            assert alice.cancel_all() == 1
    verify(command, data)


@pytest.mark.parametrize("colocate", ["on", "off"])
def test_every_worker_reaches_every_shard(data: Path, colocate: str, command: Command) -> None:
    """One worker beside a matcher and one on its own, or both on their own; the kernel spreads the sessions."""
    assert command("init", "--data", data, "--shards", 2)[0] == 0
    with started(data, {"ingress.colocate": colocate, "ingress.workers": "2"}) as exchange:
        account_id = exchange.account("alice", USD="1000")
        with exchange.client() as operator:
            operator.deposit(account_id, "USD", "1000", shard=1)
        with ExitStack() as stack:
            sessions = [stack.enter_context(exchange.client("alice")) for _ in range(6)]
            for session in sessions:
                for market in ("BTC-USD", "ETH-USD"):
                    order = session.buy(market, "0.01", "100")
                    for other in sessions:
                        if other is not session:
                            assert next(other.events()).order_id == order.order_id  # type: ignore[union-attr]
            assert [shard.open_orders for shard in sessions[0].status().shards] == [6, 6]
            assert sessions[-1].cancel_all() == 12
    verify(command, data)
