"""Sessions over HTTP, with an ingress that does what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from nacl.signing import SigningKey

from tests.model import kit
from webapp import sessions
from webapp.problems import Problem
from webapp.sessions import ApiSession, ApiSessions
from zexchange.limits import ACCOUNT_NONE
from zexchange.wire import signing
from zexchange.wire.framing import MAX_FRAME_BYTES, FrameSplitter
from zexchange.wire.messages import (
    Challenge,
    Command,
    Durability,
    Establish,
    EstablishmentAck,
    EstablishmentReject,
    ExecType,
    ExecutionReport,
    Message,
    NotApplied,
    QueryReject,
    ReasonCode,
    ReportFlags,
    Sequence,
    ShardSession,
    ShardStatus,
    ShardStatusRequest,
    Side,
    SignedBatch,
    Terminate,
    decode,
)

DEPLOYMENT_ID = bytes(32)
KEY = SigningKey(bytes([7]) * 32)
PUBLIC_KEY = bytes(KEY.verify_key)


class Ingress:
    """Establishes every session; what a client sends after that is in `heard`."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.arrived = asyncio.Event()
        self.chatty = False
        """Send reports all the time."""
        self.account_id = 5
        self.refusal: ReasonCode | None = None
        """Why nobody is let in."""
        self.connections: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.append(task)
        splitter = FrameSplitter(MAX_FRAME_BYTES)
        if self.refusal is not None:
            writer.write(EstablishmentReject(reason=self.refusal).encode())
            writer.close()
            return
        writer.write(Challenge(challenge=bytes(32), deployment_id=DEPLOYMENT_ID).encode())
        chatter: asyncio.Task[None] | None = None
        while data := await reader.read(65_536):
            for frame in splitter.feed(data):
                message = decode(frame)
                if isinstance(message, Establish):
                    signing.verify_establish(frame, DEPLOYMENT_ID)
                    shard = ShardSession(shard=0, account_id=self.account_id)
                    writer.write(
                        EstablishmentAck(
                            public_key=message.public_key, durability=Durability.ALWAYS, shards=[shard]
                        ).encode()
                    )
                    if self.chatty:
                        chatter = asyncio.create_task(self._chat(writer))
                    continue
                self.heard.append(message)
                self.arrived.set()
        if chatter is not None:
            chatter.cancel()
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass  # the client has gone in the middle of what we said

    async def _chat(self, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(ExecutionReport(account_id=5, report_seq=1).encode())
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(ingress: Ingress, now: Callable[[], float] = lambda: 0.0) -> AsyncIterator[ApiSessions]:
    server = await asyncio.start_server(ingress.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    found = ApiSessions(host, port, DEPLOYMENT_ID, now)
    try:
        yield found
    finally:
        found.close()
        server.close()
        await asyncio.gather(*ingress.connections, return_exceptions=True)


async def logged_on(found: ApiSessions, address: str = "192.0.2.1", key: SigningKey = KEY) -> ApiSession:
    session, to_sign = await found.begin(bytes(key.verify_key), address)
    return await found.log_on(session.id, key.sign(to_sign).signature)


@pytest.mark.parametrize("chatty", [False, True])
def test_says_that_it_is_there_however_much_it_hears(monkeypatch: pytest.MonkeyPatch, chatty: bool) -> None:
    monkeypatch.setattr(sessions, "HEARTBEAT_INTERVAL_MS", 100)

    async def main() -> None:
        ingress = Ingress()
        ingress.chatty = chatty
        async with serving(ingress) as found:
            session = await logged_on(found)
            assert session.account_id == 5
            for _ in range(3):
                ingress.arrived.clear()
                await asyncio.wait_for(ingress.arrived.wait(), 10)
            assert all(isinstance(message, Sequence) for message in ingress.heard)

    asyncio.run(main())


def test_sessions_that_are_over_are_forgotten() -> None:
    async def main() -> None:
        async with serving(Ingress()) as found:
            session = await logged_on(found)
            assert found.of_token(session.token) is session
            found.end(session)
            with pytest.raises(Problem, match="log on first"):
                found.of_token(session.token)
            assert len(found) == 0

    asyncio.run(main())


def test_without_an_ingress_it_says_so() -> None:
    async def main() -> None:
        async with serving(Ingress()) as found:
            port = found._port
        with pytest.raises(Problem) as refused:
            await ApiSessions("127.0.0.1", port, DEPLOYMENT_ID).begin(PUBLIC_KEY, "192.0.2.1")
        assert refused.value.code == "SERVER_BUSY"

    asyncio.run(main())


# ---------------------------------------------------------------- batches


class Wire:
    """A session whose connection is in the test's hands."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        self.session = ApiSession(self.reader, self, DEPLOYMENT_ID, PUBLIC_KEY)  # type: ignore[arg-type]
        self.sent: list[Message] = []
        self._splitter = FrameSplitter(MAX_FRAME_BYTES)

    def write(self, data: bytes) -> None:
        self.sent += [decode(frame) for frame in self._splitter.feed(data)]

    def close(self) -> None:
        pass

    async def begin(self, *commands: Command, nonce: int = 9) -> asyncio.Task[list[Message]]:
        """Log on, if that is not done, and send a batch."""
        if not self.session.established:
            self.say(
                Challenge(challenge=bytes(32), deployment_id=DEPLOYMENT_ID),
                EstablishmentAck(public_key=PUBLIC_KEY, durability=Durability.ALWAYS),
            )
            to_sign = await self.session.challenged()
            await self.session.log_on(KEY.sign(to_sign).signature)
            self.sent.clear()
        batch = SignedBatch(nonce=nonce, commands=list(commands))
        task = asyncio.create_task(self.session.submit(signing.sign_batch(batch, KEY, DEPLOYMENT_ID)))
        await settled()
        return task

    def say(self, *messages: Message) -> None:
        for message in messages:
            self.reader.feed_data(message.encode())

    def fences(self) -> list[int]:
        return [one.request_id for one in self.sent if isinstance(one, ShardStatusRequest)]

    def fence(self) -> ShardStatus:
        """The answer to the last question."""
        return ShardStatus(request_id=self.fences()[-1], durability=Durability.ALWAYS)


async def settled() -> None:
    """Everybody has done what there is to do."""
    for _ in range(20):
        await asyncio.sleep(0)


async def unknown(task: asyncio.Task[list[Message]]) -> str:
    """What is said of a batch whose outcome is unknown."""
    with pytest.raises(Problem) as raised:
        await task
    assert (raised.value.code, raised.value.status) == ("TIMEOUT", 504)
    assert "the same bytes" in raised.value.detail
    return raised.value.detail


BUY = kit.order(Side.BUY, 5, 100, client_order_id=77)


def report(index: int = 0, record_no: int = 3, **fields: object) -> ExecutionReport:
    """BUY was taken, unless the fields say something else."""
    about: dict[str, object] = {
        "exec_type": ExecType.NEW,
        "market_id": BUY.market_id,
        "side": BUY.side,
        "qty_lots": BUY.qty_lots,
        "client_order_id": BUY.client_order_id,
        "price_ticks": BUY.price_ticks,
        "order_id": 12,
    }
    return ExecutionReport(
        account_id=5,
        nonce=9,
        record_no=record_no,
        command_index=index,
        **(about | fields),  # type: ignore[arg-type]
    )


def test_a_batch_is_answered_with_what_comes_before_its_fence() -> None:
    async def main() -> None:
        wire = Wire()
        task = await wire.begin(BUY)
        assert [type(one) for one in wire.sent] == [SignedBatch, ShardStatusRequest]
        trade = report(exec_type=ExecType.TRADE, last_qty_lots=5)
        wire.say(report(), trade)
        await settled()
        assert not task.done()
        wire.say(wire.fence(), report(exec_type=ExecType.CANCELLED))
        assert await task == [report(), trade]
        assert wire.session.account_id == 5, "which was not known at the logon"

    asyncio.run(main())


@pytest.mark.parametrize(
    "end",
    [
        lambda wire: wire.reader.feed_eof(),
        lambda wire: wire.reader.set_exception(ConnectionResetError("reset by peer")),
        lambda wire: wire.say(Terminate(reason=ReasonCode.SHARD_RESTARTED)),
        lambda wire: wire.say(Terminate(reason=ReasonCode.SERVER_SHUTDOWN)),
        lambda wire: wire.say(Terminate(reason=ReasonCode.SERVER_BUSY)),
        lambda wire: wire.reader.feed_data(b"no frame" * 100),
        lambda wire: wire.session.close(),
    ],
    ids=["end", "reset", "restart", "shutdown", "busy", "nonsense", "logoff"],
)
@pytest.mark.parametrize("heard", [[], [report()]], ids=["nothing heard", "a report heard"])
def test_a_batch_whose_session_ends_may_have_been_applied(
    end: Callable[[Wire], None], heard: list[Message]
) -> None:
    async def main() -> None:
        wire = Wire()
        task = await wire.begin(BUY)
        wire.say(*heard)
        await settled()
        end(wire)
        await unknown(task)
        sent = len(wire.sent)
        with pytest.raises(Problem) as raised:
            await wire.session.submit(
                signing.sign_batch(SignedBatch(nonce=10, commands=[BUY]), KEY, DEPLOYMENT_ID)
            )
        assert raised.value.code != "TIMEOUT", "nothing was sent"
        await settled()
        reading = wire.session._task
        assert reading is not None
        assert reading.cancelled() or (reading.done() and reading.exception() is None)
        assert len(wire.sent) == sent

    asyncio.run(main())


def test_a_batch_that_nobody_answers_may_have_been_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ANSWER_TIMEOUT_S", 0.0)

    async def main() -> None:
        wire = Wire()
        await unknown(await wire.begin(BUY))
        # What was asked then says nothing of the next try.
        old = wire.fence()
        monkeypatch.setattr(sessions, "ANSWER_TIMEOUT_S", 10.0)
        task = await wire.begin(BUY)
        wire.say(old)
        await settled()
        assert not task.done()
        wire.say(report(), wire.fence())
        assert await task == [report()]

    asyncio.run(main())


def test_only_a_refusal_of_the_batch_is_one() -> None:
    async def main() -> None:
        wire = Wire()
        task = await wire.begin(BUY)
        refusal = NotApplied(nonce=9, reason=ReasonCode.SERVER_BUSY)
        wire.say(NotApplied(nonce=8, reason=ReasonCode.SERVER_BUSY), refusal)
        assert await task == [refusal]

    asyncio.run(main())


def test_a_question_that_is_refused_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ASK_AGAIN_S", 0.0)

    async def main() -> None:
        wire = Wire()
        task = await wire.begin(BUY)
        for _ in range(3):
            asked = wire.fences()
            wire.say(QueryReject(request_id=asked[-1], reason=ReasonCode.SERVER_BUSY))
            await settled()
            assert not task.done(), "the batch may still wait at the matcher"
            assert len(wire.fences()) == len(asked) + 1
        wire.say(report(), wire.fence())
        assert await task == [report()]
        assert len([one for one in wire.sent if isinstance(one, SignedBatch)]) == 1

    asyncio.run(main())


@pytest.mark.parametrize("told", [[], [report(0)], [report(1)]], ids=["nothing", "the first", "the second"])
def test_without_a_report_about_every_command_the_outcome_is_unknown(told: list[Message]) -> None:
    async def main() -> None:
        wire = Wire()
        task = await wire.begin(BUY, BUY)
        wire.say(*told, wire.fence())
        assert "all commands" in await unknown(task)

    asyncio.run(main())


OTHERS = {
    "a cancel that was refused": report(
        record_no=2,
        exec_type=ExecType.REJECTED,
        side=Side.NONE,
        qty_lots=0,
        price_ticks=0,
        client_order_id=12345,
    ),
    "another order": report(record_no=2, qty_lots=6, order_id=11),
    "a fill": report(record_no=2, exec_type=ExecType.TRADE, order_id=11),
    "more commands": report(1, record_no=2, order_id=11),
    "another shard": report(record_no=3, shard=1, order_id=11),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_what_another_key_of_the_account_did_is_not_the_answer(other: ExecutionReport, first: bool) -> None:
    async def main() -> None:
        wire = Wire()
        task = await wire.begin(BUY)
        wire.say(*((other, report()) if first else (report(), other)), wire.fence())
        assert await task == [report()]

    asyncio.run(main())


def test_what_cannot_be_told_from_what_another_key_did_is_asked_for_again() -> None:
    async def main() -> None:
        wire = Wire()
        task = await wire.begin(BUY)
        wire.say(report(record_no=2, order_id=11), report(), wire.fence())
        assert "another key" in await unknown(task)
        task = await wire.begin(BUY)
        again = report(flags=ReportFlags.DUPLICATE, side=Side.NONE, qty_lots=0, price_ticks=0)
        wire.say(again, wire.fence())
        assert await task == [again]

    asyncio.run(main())


def test_what_the_command_did_to_other_orders_is_not_its_outcome() -> None:
    async def main() -> None:
        wire = Wire()
        task = await wire.begin(BUY, kit.cancel_all())
        prevented = report(exec_type=ExecType.CANCELLED, order_id=4)
        all_of_it = [report(1, exec_type=kind) for kind in (ExecType.CANCELLED, ExecType.MASS_CANCELLED)]
        wire.say(report(), prevented, *all_of_it, wire.fence())
        assert await task == [report(), *all_of_it]

    asyncio.run(main())


# ---------------------------------------------------------------- how many


class Now:
    """A clock in the test's hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


HERE, THERE = "192.0.2.1", "192.0.2.2"


def keys(count: int) -> list[SigningKey]:
    return [SigningKey(bytes([number]) * 32) for number in range(1, count + 1)]


def there(found: ApiSessions, *all_of_them: ApiSession) -> list[bool]:
    """Which of them still are."""
    return [session.id in found._by_id for session in all_of_them]


def test_an_address_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_PER_ADDRESS", 3)

    async def main() -> None:
        async with serving(Ingress(), Now()) as found:
            first, second, third, fourth = [await logged_on(found, HERE, key) for key in keys(4)]
            assert there(found, first, second, third, fourth) == [False, True, True, True]
            found.of_token(second.token)
            other = await logged_on(found, THERE)
            fifth = await logged_on(found, HERE)
            assert there(found, second, third, fourth, fifth, other) == [True, False, True, True, True]

    asyncio.run(main())


def test_the_address_with_most_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 4)

    async def main() -> None:
        async with serving(Ingress(), Now()) as found:
            heavy = [await logged_on(found, HERE, key) for key in keys(4)]
            for number in (1, 2):
                light = await logged_on(found, THERE)
                assert there(found, *heavy) == [index >= number for index in range(4)]
            # Now both have two: who wants a third gives up one of its own.
            another = await logged_on(found, THERE)
            assert there(found, *heavy[2:]) == [True, True]
            assert len(found) == 4
            assert there(found, light, another) == [True, True]
            for number in (3, 4):
                await logged_on(found, f"192.0.2.{number}")
            with pytest.raises(Problem, match="too many sessions") as refused:
                await found.begin(PUBLIC_KEY, "192.0.2.5")
            assert (refused.value.code, refused.value.status) == ("SERVER_BUSY", 503)

    asyncio.run(main())


def test_keys_without_an_account_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_PER_ADDRESS", 3)

    async def main() -> None:
        ingress, now = Ingress(), Now()
        async with serving(ingress, now) as found:
            trader = await logged_on(found)
            ingress.account_id = ACCOUNT_NONE
            strangers = [await logged_on(found, HERE, key) for key in keys(3)]
            assert there(found, trader, *strangers) == [True, False, True, True]
            now.now_s += sessions.STRANGER_IDLE_MS / 1_000
            found.sweep()
            assert there(found, trader, *strangers) == [True, False, False, False]
            now.now_s += sessions.IDLE_MS / 1_000
            found.sweep()
            assert len(found) == 0

    asyncio.run(main())


def test_a_session_that_waits_for_an_answer_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_PER_ADDRESS", 1)

    async def main() -> None:
        async with serving(Ingress(), Now()) as found:
            session = await logged_on(found)
            batch = SignedBatch(nonce=9, commands=[BUY])
            task = asyncio.create_task(session.submit(signing.sign_batch(batch, KEY, DEPLOYMENT_ID)))
            await settled()
            with pytest.raises(Problem) as refused:
                await logged_on(found)
            assert (refused.value.code, refused.value.status) == ("TOO_MANY_CONNECTIONS", 429)
            found.end(session)
            await unknown(task)
            await logged_on(found)

    asyncio.run(main())


def test_an_account_has_only_so_many_and_others_cannot_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_PER_ACCOUNT", 2)

    async def main() -> None:
        async with serving(Ingress(), Now()) as found:
            own = [await logged_on(found, f"192.0.2.{number}") for number in range(2)]
            for number in range(5):  # whoever begins in its name has not shown that the key is his
                await found.begin(PUBLIC_KEY, f"198.51.100.{number}")
            assert there(found, *own) == [True, True]
            own.append(await logged_on(found, HERE))
            assert there(found, *own) == [False, True, True]
            own.append(await logged_on(found, HERE, keys(1)[0]))  # another key of the account
            assert there(found, *own) == [False, False, True, True]

    asyncio.run(main())


def test_those_that_wait_for_a_signature_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PENDING_PER_ADDRESS", 3)
    monkeypatch.setattr(sessions, "PENDING_MAX", 4)

    async def main() -> None:
        now = Now()
        async with serving(Ingress(), now) as found:
            trader = await logged_on(found, HERE)
            begun = [(await found.begin(PUBLIC_KEY, HERE))[0] for _ in range(4)]
            assert there(found, trader, *begun) == [True, False, True, True, True]
            others = [(await found.begin(PUBLIC_KEY, THERE))[0] for _ in range(2)]
            assert there(found, *begun, *others) == [False, False, True, True, True, True]
            session, to_sign = await found.begin(PUBLIC_KEY, "192.0.2.3")
            assert (await found.log_on(session.id, KEY.sign(to_sign).signature)).established
            now.now_s += sessions.PENDING_MS / 1_000
            found.sweep()
            assert len(found) == 2

    asyncio.run(main())


def test_connections_that_are_being_made_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PENDING_PER_ADDRESS", 2)

    async def main() -> None:
        async with serving(Ingress(), Now()) as found:
            begun = await asyncio.gather(
                *(found.begin(PUBLIC_KEY, HERE) for _ in range(5)), return_exceptions=True
            )
            codes = [one.code for one in begun if isinstance(one, Problem)]
            assert codes == ["TOO_MANY_CONNECTIONS"] * 3
            await logged_on(found, THERE)

    asyncio.run(main())


def test_a_logon_is_answered_once() -> None:
    async def main() -> None:
        async with serving(Ingress()) as found:
            session, to_sign = await found.begin(PUBLIC_KEY, HERE)
            signature = KEY.sign(to_sign).signature
            done = await asyncio.gather(
                *(found.log_on(session.id, signature) for _ in range(2)), return_exceptions=True
            )
            assert done[0] is session
            assert isinstance(done[1], Problem)
            assert done[1].code == "NOT_FOUND"

    asyncio.run(main())


def test_when_order_entry_is_full_it_may_be_tried_again() -> None:
    async def main() -> None:
        ingress = Ingress()
        ingress.refusal = ReasonCode.SESSION_LIMIT
        async with serving(ingress) as found:
            with pytest.raises(Problem) as refused:
                await found.begin(PUBLIC_KEY, HERE)
            body = refused.value.body("")
            assert (body.code, body.status, body.retryable) == ("SESSION_LIMIT", 503, True)
            assert len(found) == 0

    asyncio.run(main())
