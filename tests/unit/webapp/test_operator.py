"""Calls of the operator that nobody answers: nothing is done twice, and nothing is lost. The exchange is in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from nacl.signing import SigningKey

from tests.unit.client.fake_exchange import (
    ALICE,
    BOB,
    OPERATOR,
    START_NS,
    FakeExchange,
    Served,
    funded,
    small_genesis,
)
from webapp import operator as operator_module
from webapp.operator import Operator
from webapp.problems import Problem
from zexchange.client import AccountOpened, Client, Disconnected, OutcomeUnknown, Rejected
from zexchange.client._connection import Clock
from zexchange.client._core import Instant
from zexchange.client.rejections import rejection_for
from zexchange.definitions import Definitions
from zexchange.reference import ReferenceEngine
from zexchange.wire.messages import Balance, ExecType, ReasonCode

USD, BTC, AAPL = 1, 2, 3
NEW_KEY = bytes(SigningKey(bytes([7]) * 32).verify_key)


class HandClock(Clock):
    """The system's clocks, and the test may move one of them forward."""

    ahead_ms = 0

    def now(self) -> Instant:
        now = super().now()
        return Instant(now.mono_ms + self.ahead_ms, now.wall_ns)


TIMEOUT_MS = 10_000


class World:
    """The exchange, the operator, and a replica that sees what it is shown."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.exchange = served.exchange
        genesis = self.exchange.genesis
        self.clock = HandClock()
        self.client = Client(
            key=OPERATOR,
            connector=served.connector,
            clock=self.clock,
            timeout_ms=TIMEOUT_MS,
            heartbeat_interval_ms=60_000,
        )
        self.operator = Operator("", 0, OPERATOR, genesis, Definitions(genesis), lambda: self.client)
        self.seen = 0
        self.replica_engine = ReferenceEngine(genesis, 0, track_state=False)
        self.awaited: list[tuple[int, int]] = []

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(call)

    def refusal(self, call: Coroutine[Any, Any, Any]) -> tuple[str, int, bool]:
        with pytest.raises(Problem) as raised:
            self.run(call)
        body = raised.value.body("")
        return body.code, body.status, body.retryable

    @contextmanager
    def unanswered(self, *, answers: int = 0, lost: bool = False) -> Iterator[None]:
        """After so many answers batches get none, and the time is up; `lost`: nor are they applied."""
        apply = self.exchange.apply
        left = itertools.count(answers, -1)

        def stall(frame: bytes, sender: Any = None) -> None:
            silent = next(left) <= 0
            if not (silent and lost):
                apply(frame, sender)
            if silent:
                self.exchange.mute = True
                self.clock.ahead_ms += TIMEOUT_MS + 1
                self.client._connection.poke()

        with self.served.lock:
            self.exchange.apply = stall  # type: ignore[method-assign]
        try:
            yield
        finally:
            with self.served.lock:
                self.exchange.apply = apply  # type: ignore[method-assign]
                self.exchange.mute = False

    def batches(self) -> list[bytes]:
        """All that arrived."""
        return [
            one
            for connection in self.exchange.connections
            for one in connection.seen
            if isinstance(one, bytes)
        ]

    def balance(self, account_id: int, asset_id: int) -> int:
        found = {one.asset_id: one.available for one in self.exchange.engine.balances(account_id)}
        return found.get(asset_id, 0)

    def catch_up(self) -> None:
        for frame in self.exchange.applied[self.seen :]:
            self.seen += 1
            self.replica_engine.apply(frame, START_NS + 1_000 * self.seen)

    def engines(self) -> Mapping[int, Any]:
        return {0: self.replica_engine}

    async def reached(self, shard: int, record_no: int) -> None:
        self.awaited.append((shard, record_no))
        self.catch_up()


@pytest.fixture
def world() -> Iterator[World]:
    exchange = FakeExchange()
    funded(exchange, ALICE, BOB)
    with Served(exchange) as served:
        world = World(served)
        world.catch_up()
        yield world
        world.operator.close()


UNKNOWN = ("TIMEOUT", 504, False)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(("move", "sign"), [("deposit", 1), ("withdraw", -1)])
def test_money_moves_once_however_often_nobody_answers(
    world: World, move: str, sign: int, lost: bool, times: int
) -> None:
    before = world.balance(1, USD)
    call: Callable[..., Any] = getattr(world.operator, move)
    for _ in range(times):
        with world.unanswered(lost=lost):
            assert world.refusal(call(1, USD, "1000", 0)) == UNKNOWN
    done, repeated = world.run(call(1, USD, "1000.0", 0))
    assert (done.asset, done.amount, repeated) == ("USD", 1000, True)
    assert world.balance(1, USD) == before + sign * 1000 * 10**6
    # That is settled: the next call is a new one.
    assert not world.run(call(1, USD, "1000", 0)).repeated
    assert world.balance(1, USD) == before + sign * 2000 * 10**6


def test_other_calls_are_not_taken_for_the_one_without_an_answer(world: World) -> None:
    before = world.balance(1, USD)
    with world.unanswered():
        assert world.refusal(world.operator.deposit(1, USD, "1000", 0)) == UNKNOWN
    assert not world.run(world.operator.deposit(1, USD, "1001", 0)).repeated
    assert not world.run(world.operator.deposit(2, USD, "1000", 0)).repeated
    assert not world.run(world.operator.withdraw(1, USD, "1000", 0)).repeated
    assert world.balance(1, USD) == before + 1001 * 10**6
    assert world.run(world.operator.deposit(1, USD, "1000", 0)).repeated
    assert world.balance(1, USD) == before + 1001 * 10**6


@pytest.mark.parametrize("lost", [False, True])
def test_nothing_else_is_sent_before_that_is_known(world: World, lost: bool) -> None:
    with world.unanswered(lost=lost):
        assert world.refusal(world.operator.set_market_state("BTC-USD", "halted")) == UNKNOWN
        sent = len(world.batches())
        assert world.refusal(world.operator.deposit(1, USD, "1", 0)) == ("SERVER_BUSY", 503, True)
        again = world.batches()[sent:]
    assert again == world.batches()[sent - 1 : sent], "the same bytes, and no others"
    before = world.balance(1, USD)
    assert not world.run(world.operator.deposit(1, USD, "1", 0)).repeated
    assert world.balance(1, USD) == before + 10**6
    # And it was settled first; a market is brought to a state again and again, so that is done each time.
    for state in ("continuous", "halted"):
        assert world.run(world.operator.set_market_state("BTC-USD", state)).state == state


def test_a_refusal_that_nobody_heard_is_told_later(world: World) -> None:
    with world.unanswered():
        assert world.refusal(world.operator.withdraw(1, AAPL, "200000", 0)) == UNKNOWN
    for _ in range(2):
        assert world.refusal(world.operator.withdraw(1, AAPL, "200000", 0))[0] == "INSUFFICIENT_FUNDS"


def test_what_was_certainly_not_done_may_be_tried_again(world: World) -> None:
    before = world.balance(1, USD)
    world.exchange.refuse_next = [ReasonCode.SERVER_BUSY]
    assert world.refusal(world.operator.deposit(1, USD, "1", 0)) == ("SERVER_BUSY", 503, True)
    assert not world.run(world.operator.deposit(1, USD, "1", 0)).repeated
    assert world.balance(1, USD) == before + 10**6


def test_what_the_exchange_no_longer_knows_does_not_stand_in_the_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.unanswered():
        assert world.refusal(world.operator.deposit(1, USD, "1", 0)) == UNKNOWN
    with monkeypatch.context() as patch:
        engine = world.exchange.engine
        apply = engine.apply

        def forgetful(frame: bytes, now_ns: int) -> Any:
            applied = apply(frame, now_ns)
            report = bytearray(applied.events)
            report[152:154] = int(ReasonCode.NONCE_USED).to_bytes(2, "little")
            report[157], report[160] = ExecType.REJECTED, 0
            return type("Applied", (), {"events": bytes(report)})

        patch.setattr(engine, "apply", forgetful)
        assert world.refusal(world.operator.deposit(1, USD, "1", 0)) == UNKNOWN
    assert not world.run(world.operator.deposit(1, USD, "1", 0)).repeated


def test_only_so_much_is_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_module, "REMEMBERED_MAX", 2)
    for number, amount in enumerate(("1", "2", "3", "4")):
        with world.unanswered(answers=min(number, 1)):  # about the one before
            assert world.refusal(world.operator.deposit(1, USD, amount, 0)) == UNKNOWN
    told = [world.run(world.operator.deposit(1, USD, amount, 0)).repeated for amount in ("4", "3", "2", "1")]
    assert told == [True, True, False, False]


@pytest.mark.parametrize("lost", [False, True])
def test_an_account_is_opened_once(world: World, lost: bool) -> None:
    with world.unanswered(lost=lost):
        assert world.refusal(world.operator.open_account(NEW_KEY, world)) == UNKNOWN
    assert world.run(world.operator.open_account(NEW_KEY, world)) == 3
    for _ in range(2):
        assert world.refusal(world.operator.open_account(NEW_KEY, world)) == ("KEY_EXISTS", 409, False)
        world.catch_up()


@pytest.mark.parametrize("lost", [False, True])
def test_the_key_of_an_account_that_exists_is_not_lost(world: World, lost: bool) -> None:
    with world.unanswered(lost=lost):
        assert world.refusal(world.operator.open_new_account()) == UNKNOWN
    key, account_id = world.run(world.operator.open_new_account())
    assert account_id == 3
    assert world.exchange.engine.account_of_key(bytes(key.verify_key)) == 3
    other, account_id = world.run(world.operator.open_new_account())
    assert (account_id, other == key) == (4, False)


FUNDS = {USD: 1_000_000 * 10**6, BTC: 100 * 10**8, AAPL: 100}


def funds(engine: Any, account_id: int) -> dict[int, int]:
    balances: Collection[Balance] = engine.balances(account_id)
    return {one.asset_id: one.available for one in balances}


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("sees", [False, True], ids=["replica behind", "replica there"])
@pytest.mark.parametrize("answers", range(4))
def test_a_demo_account_has_its_funds_in_the_end(world: World, answers: int, sees: bool, lost: bool) -> None:
    """The account is opened and funded in four commands; from one of them on nobody answers at first."""
    operator = world.operator
    with world.unanswered(answers=answers, lost=lost):
        assert world.refusal(operator.open_demo_account(NEW_KEY, world)) == ("TIMEOUT", 504, True)
    if sees:
        world.catch_up()
    for _ in range(2):
        assert world.run(operator.open_demo_account(NEW_KEY, world)) == 3
        assert funds(world.exchange.engine, 3) == FUNDS


def test_a_demo_account_that_another_process_opened_gets_its_funds(world: World) -> None:
    world.client.open_account(NEW_KEY)
    world.client.deposit(3, "USD", "5")
    assert world.run(world.operator.open_demo_account(NEW_KEY, world)) == 3
    assert world.awaited == [(0, world.exchange.engine.next_record_no - 3)], "the record that said so"
    assert funds(world.exchange.engine, 3) == FUNDS | {USD: 5 * 10**6}


def test_two_who_ask_at_the_same_time_get_one_account(world: World) -> None:
    async def both() -> list[int]:
        return await asyncio.gather(*(world.operator.open_demo_account(NEW_KEY, world) for _ in range(2)))

    assert world.run(both()) == [3, 3]
    assert funds(world.exchange.engine, 3) == FUNDS


def test_what_was_opened_on_some_shards_is_opened_on_the_others() -> None:
    opened: list[tuple[int, int | None]] = []
    failures = [OutcomeUnknown("no answer", nonce=1, shard=1, frame=b""), Disconnected("gone")]

    class TwoShards:
        """Answers about the first shard, and about the second when there is no failure left."""

        def open_account(self, _key: bytes, account_id: int | None, *, shards: list[int]) -> AccountOpened:
            opened.append((shards[0], account_id))
            if shards == [1] and failures:
                raise failures.pop(0)
            return AccountOpened(account_id=9, report_seq=1)

        def resolve(self, _unknown: OutcomeUnknown) -> list[Rejected]:
            return [rejection_for(ReasonCode.SERVER_BUSY)()]

    genesis: Any = SimpleNamespace(shards=2)
    client: Any = TwoShards()
    operator = Operator("", 0, OPERATOR, genesis, Definitions(small_genesis()), lambda: client)
    codes = []
    for _ in range(3):
        with pytest.raises(Problem) as raised:
            asyncio.run(operator.open_new_account())
        codes.append(raised.value.code)
    assert codes == ["TIMEOUT", "SERVER_BUSY", "SERVER_BUSY"]
    _, account_id = asyncio.run(operator.open_new_account())
    assert (account_id, opened) == (9, [(0, None), (1, 9), (1, 9), (1, 9)])
    operator._client = None
    operator.close()
