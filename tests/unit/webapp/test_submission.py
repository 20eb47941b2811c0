"""Batches with client order ids: nothing is done twice, and others are told so. A real engine behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from tests.model import kit
from webapp import submission
from webapp.history import History
from webapp.problems import Problem
from webapp.submission import Submission, Submitted
from zexchange.engine import Engine
from zexchange.limits import EXECUTION_REPORT_BYTES
from zexchange.wire.messages import (
    Command,
    ExecType,
    ExecutionReport,
    Message,
    NotApplied,
    ReasonCode,
    Side,
    SignedBatch,
    TimeInForce,
    decode,
)

ALICE = kit.public_key(1)


class World:
    """An exchange, and the web process's replica of it, which is only as far as it has to be."""

    def __init__(self) -> None:
        self.engine = Engine(kit.small_genesis(), 0, track_state=False)
        self.history = History()
        self.frames: dict[int, bytes] = {}
        self.sent = 0
        self.silent = False
        """Batches get lost."""
        self.fails_after: Callable[[], BaseException] | None = None
        """Batches are applied, and what is raised then."""
        self.busy = False
        self._unseen: list[bytes] = []
        self._seen_record_no = 0
        self._now_ns = kit.START_NS
        self.submission = Submission(self)
        self.apply(kit.epoch_open(1))
        operator = [kit.open_account(ALICE), kit.deposit(1, 1, 10**9), kit.deposit(1, 2, 10**9)]
        self.apply(kit.batch(kit.OPERATOR_KEY, 1, operator))
        self.catch_up()

    def apply(self, frame: bytes) -> list[ExecutionReport]:
        self.frames[self.engine.next_record_no] = frame
        self._now_ns += 1_000_000
        events = bytes(self.engine.apply(frame, self._now_ns).events)
        self._unseen.append(events)
        return [
            ExecutionReport.decode_block(events, offset)
            for offset in range(0, len(events), EXECUTION_REPORT_BYTES)
        ]

    def catch_up(self) -> None:
        for events in self._unseen:
            self.history.add(0, events)
        self._unseen.clear()
        self._seen_record_no = self.engine.next_record_no - 1

    def restart(self) -> None:
        """The web process forgets, and reads the log."""
        self.submission = Submission(self)
        self.catch_up()

    async def reached(self, shard: int, record_no: int) -> None:
        if record_no > self._seen_record_no:
            await asyncio.sleep(0)
            self.catch_up()

    async def frame(self, shard: int, record_no: int) -> bytes:
        return self.frames[record_no]

    async def send(self, frame: bytes) -> Sequence[Message]:
        await asyncio.sleep(0)
        if self.silent:
            raise Problem("TIMEOUT")
        self.sent += 1
        batch = decode(frame)
        assert isinstance(batch, SignedBatch)
        if self.busy:
            return [NotApplied(nonce=batch.nonce, reason=ReasonCode.SERVER_BUSY)]
        if self.fails_after is not None:
            self.apply(frame)
            raise self.fails_after()
        return [one for one in self.apply(frame) if one.nonce == batch.nonce]

    async def submit(self, nonce: int, *commands: Command) -> Submitted:
        frame = kit.batch(ALICE, nonce, list(commands))
        batch = decode(frame)
        assert isinstance(batch, SignedBatch)
        return await self.submission.submit(1, batch, frame, self.send)

    async def refusal(self, nonce: int, *commands: Command) -> tuple[str, int, str]:
        with pytest.raises(Problem) as raised:
            await self.submit(nonce, *commands)
        return raised.value.code, raised.value.status, raised.value.field


def buy(client_order_id: int, qty: int = 5, **terms: object) -> Command:
    return kit.order(Side.BUY, qty, 100, client_order_id=client_order_id, **terms)  # type: ignore[arg-type]


def sell(qty: int) -> Command:
    return kit.order(Side.SELL, qty, 100)


def kinds(done: Submitted) -> list[ExecType]:
    return [one.exec_type for one in done.messages if isinstance(one, ExecutionReport)]


REUSED = ("CLIENT_ORDER_ID_REUSED", 409, "client_order_id")


def test_the_same_orders_are_entered_once() -> None:
    async def main() -> None:
        world = World()
        first = await world.submit(1, buy(7), buy(8, 3))
        again = await world.submit(2, buy(7), buy(8, 3))
        assert (first.repeated, again.repeated, again.nonce) == (False, True, 1)
        assert [one.order_id for one in again.messages] == [one.order_id for one in first.messages]
        assert world.sent == 1
        assert world.engine.counts().open_orders == 2

    asyncio.run(main())


def test_an_order_that_is_no_longer_open_is_not_entered_again() -> None:
    async def main() -> None:
        world = World()
        world.apply(kit.batch(kit.OPERATOR_KEY, 2, [kit.open_account(kit.public_key(2))]))
        world.apply(kit.batch(kit.OPERATOR_KEY, 3, [kit.deposit(2, 2, 10**9)]))
        world.apply(kit.batch(kit.public_key(2), 1, [sell(5)]))
        first = await world.submit(1, buy(7, tif=TimeInForce.IOC))
        assert kinds(first) == [ExecType.NEW, ExecType.TRADE]
        again = await world.submit(2, buy(7, tif=TimeInForce.IOC))
        assert again.repeated
        assert list(again.messages) == list(first.messages)

    asyncio.run(main())


@pytest.mark.parametrize(
    "other",
    [
        [buy(7, 6)],
        [buy(7, tif=TimeInForce.IOC)],
        [buy(7), buy(8)],
        [sell(1), buy(7)],
        [buy(9), buy(7)],
    ],
    ids=["quantity", "terms", "more behind", "more before", "another id"],
)
def test_other_orders_with_an_id_that_was_used_are_refused(other: list[Command]) -> None:
    async def main() -> None:
        world = World()
        await world.submit(1, buy(7))
        assert await world.refusal(2, *other) == REUSED
        assert world.sent == 1
        assert await world.refusal(1, *other) == REUSED, "nor under the same nonce"

    asyncio.run(main())


def test_the_log_knows_after_a_restart() -> None:
    async def main() -> None:
        world = World()
        await world.submit(1, buy(7))
        world.restart()
        assert (await world.submit(2, buy(7))).repeated
        assert await world.refusal(3, buy(7, 6)) == REUSED

    asyncio.run(main())


def test_orders_that_came_another_way_count() -> None:
    async def main() -> None:
        world = World()
        world.apply(kit.batch(ALICE, 1, [buy(7)]))
        world.catch_up()
        assert (await world.submit(2, buy(7))).repeated

    asyncio.run(main())


def test_refused_orders_changed_nothing_and_are_tried_again() -> None:
    async def main() -> None:
        world = World()
        first = await world.submit(1, buy(7, 10**9))
        assert kinds(first) == [ExecType.REJECTED]
        again = await world.submit(2, buy(7, 4))
        assert kinds(again) == [ExecType.NEW]

    asyncio.run(main())


def test_what_comes_at_the_same_time_is_entered_once() -> None:
    async def main() -> None:
        world = World()
        done = await asyncio.gather(*(world.submit(nonce, buy(7)) for nonce in range(1, 6)))
        assert sorted(one.repeated for one in done) == [False, True, True, True, True]
        assert world.sent == 1

    asyncio.run(main())


def test_the_same_bytes_go_to_the_exchange_which_knows_them() -> None:
    async def main() -> None:
        world = World()
        await world.submit(1, buy(7))
        again = await world.submit(1, buy(7))
        assert not again.repeated
        (report,) = again.messages
        assert isinstance(report, ExecutionReport)
        assert report.flags
        assert world.engine.counts().open_orders == 1
        # Repetitions are not news: the history has each report once.
        world.catch_up()
        numbers = [one.report_seq for one in world.history.reports_after(1, 0, 0)]
        assert numbers == sorted(set(numbers))

    asyncio.run(main())


def test_what_nobody_answered_is_not_signed_again_under_another_nonce(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        monkeypatch.setattr(submission, "UNSETTLED_MAX", 2)
        world = World()
        world.silent = True
        assert (await world.refusal(1, buy(7)))[0] == "TIMEOUT"
        world.silent = False
        assert await world.refusal(2, buy(7)) == ("TIMEOUT", 504, "client_order_id")
        assert kinds(await world.submit(1, buy(7))) == [ExecType.NEW]
        assert (await world.submit(2, buy(7))).repeated
        world.silent = True
        for number in (11, 12, 13):
            await world.refusal(number, buy(number))
        world.silent = False
        assert kinds(await world.submit(21, buy(11))) == [ExecType.NEW], "only so many are remembered"

    asyncio.run(main())


@pytest.mark.parametrize(
    "failure", [lambda: Problem("TIMEOUT"), asyncio.CancelledError, lambda: RuntimeError("a bug")]
)
def test_whatever_ends_the_waiting_the_ids_stay_with_the_bytes(failure: Callable[[], BaseException]) -> None:
    async def main() -> None:
        world = World()
        world.fails_after = failure
        with pytest.raises(type(failure())):
            await world.submit(1, buy(7))
        world.fails_after = None
        # The replica has not seen it yet: only what is remembered stands between this and a second order.
        assert await world.refusal(2, buy(7)) == ("TIMEOUT", 504, "client_order_id")
        assert world.sent == 1
        again = await world.submit(1, buy(7))
        assert again.messages[0].flags  # type: ignore[union-attr]
        assert world.engine.counts().open_orders == 1

    asyncio.run(main())


def test_not_applied_the_second_time_says_nothing_about_the_first() -> None:
    async def main() -> None:
        world = World()
        world.fails_after = lambda: Problem("TIMEOUT")
        await world.refusal(1, buy(7))
        world.busy = True
        code, status, _ = await world.refusal(1, buy(7))
        assert (code, status) == ("TIMEOUT", 504)
        world.busy, world.fails_after = False, lambda: Problem("UNAUTHORIZED")
        assert (await world.refusal(2, buy(7)))[0] == "TIMEOUT", "its ids are not free"
        world.fails_after = None
        assert (await world.submit(1, buy(7))).messages[0].flags  # type: ignore[union-attr]

    asyncio.run(main())


def test_what_was_not_applied_may_be_signed_again() -> None:
    async def main() -> None:
        world = World()
        world.busy = True
        (message,) = (await world.submit(1, buy(7))).messages
        assert isinstance(message, NotApplied)
        world.busy = False
        assert kinds(await world.submit(2, buy(7))) == [ExecType.NEW]

    asyncio.run(main())


def test_what_the_log_has_settled_is_not_remembered() -> None:
    async def main() -> None:
        world = World()
        world.fails_after = lambda: Problem("TIMEOUT")
        await world.refusal(1, buy(7))
        world.fails_after = None
        world.catch_up()
        assert (await world.submit(2, buy(7))).repeated
        world.history = History()  # so many reports later
        await world.submit(3, buy(7))
        assert world.sent == 2, "the exchange is asked"

    asyncio.run(main())


def test_without_ids_nothing_is_compared() -> None:
    async def main() -> None:
        world = World()
        for nonce in (1, 2):
            assert kinds(await world.submit(nonce, buy(0))) == [ExecType.NEW]
        assert world.engine.counts().open_orders == 2

    asyncio.run(main())
