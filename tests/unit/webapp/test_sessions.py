"""Sessions over HTTP, with an ingress that does what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nacl.signing import SigningKey

from webapp import sessions
from webapp.problems import Problem
from webapp.sessions import ApiSession, ApiSessions
from zexchange.wire import signing
from zexchange.wire.framing import MAX_FRAME_BYTES, FrameSplitter
from zexchange.wire.messages import (
    Challenge,
    Durability,
    Establish,
    EstablishmentAck,
    ExecutionReport,
    Message,
    Sequence,
    ShardSession,
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
        self.connections: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.append(task)
        splitter = FrameSplitter(MAX_FRAME_BYTES)
        writer.write(Challenge(challenge=bytes(32), deployment_id=DEPLOYMENT_ID).encode())
        chatter: asyncio.Task[None] | None = None
        while data := await reader.read(65_536):
            for frame in splitter.feed(data):
                message = decode(frame)
                if isinstance(message, Establish):
                    signing.verify_establish(frame, DEPLOYMENT_ID)
                    shard = ShardSession(shard=0, account_id=5)
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
async def serving(ingress: Ingress) -> AsyncIterator[ApiSessions]:
    server = await asyncio.start_server(ingress.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    found = ApiSessions(host, port, DEPLOYMENT_ID)
    try:
        yield found
    finally:
        found.close()
        server.close()
        await asyncio.gather(*ingress.connections, return_exceptions=True)


async def logged_on(found: ApiSessions) -> ApiSession:
    session, to_sign = await found.begin(PUBLIC_KEY)
    return await found.log_on(session.id, KEY.sign(to_sign).signature)


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
            await ApiSessions("127.0.0.1", port, DEPLOYMENT_ID).begin(PUBLIC_KEY)
        assert refused.value.code == "SERVER_BUSY"

    asyncio.run(main())
