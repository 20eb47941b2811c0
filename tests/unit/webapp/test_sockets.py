"""WebSockets over real sockets, with the clock in the test's hand."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import tornado.httpserver
import tornado.web
from tornado.httpclient import HTTPClientError
from tornado.testing import bind_unused_port
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.unit.webapp.test_feed import World
from webapp.feed import MESSAGES_BURST, STALL_MS, Feed, Member
from webapp.limits import Connections, Proxies, RateLimit
from webapp.sockets import FeedSocket, publish

HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SUBSCRIBE = json.dumps({"op": "subscribe", "channels": [{"channel": "stats"}]})
LARGE = "x" * 500_000
"""So much in each message that what the kernel keeps for a reader is soon full."""


class Server:
    """The feed of a world, served."""

    def __init__(self, per_address: int) -> None:
        self.feed: Feed = World().feed
        self.connections = Connections(per_address)
        follower = SimpleNamespace(caught_up=True)
        self.web = SimpleNamespace(
            feed=self.feed,
            follower=follower,
            origins=frozenset(),
            connections=self.connections,
            proxies=Proxies([]),
            rate_limit=RateLimit(100),
        )
        listener, self.port = bind_unused_port()
        application = tornado.web.Application([("/ws", FeedSocket, {"web": self.web})])
        self.http = tornado.httpserver.HTTPServer(application)
        self.http.add_socket(listener)

    async def reader(self) -> Reader:
        return Reader(await websocket_connect(f"ws://127.0.0.1:{self.port}/ws"))

    async def until(self, condition: Any) -> None:
        """Lets everybody have turns until it holds."""
        while not condition():
            await turn()


class Reader:
    """A client that reads whatever comes."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection

    async def next(self, **wanted: Any) -> Any:
        while True:
            text = await self.connection.read_message()
            assert text is not None, f"closed with {self.connection.close_code}"
            message = json.loads(text)
            if wanted.items() <= message.items():
                return message

    async def close(self) -> None:
        self.connection.close()
        while await self.connection.read_message() is not None:
            pass


@asynccontextmanager
async def serving(per_address: int = 10) -> AsyncIterator[Server]:
    server = Server(per_address)
    try:
        yield server
    finally:
        server.http.stop()
        await server.http.close_all_connections()


async def turn() -> None:
    await asyncio.sleep(0)


def masked_text(text: str) -> bytes:
    """A short text message as a client sends it (RFC 6455), with a mask of zeros."""
    payload = text.encode()
    assert len(payload) < 126
    return struct.pack("!BB4x", 0x81, 0x80 | len(payload)) + payload


async def read_frames(reader: asyncio.StreamReader) -> list[tuple[int, bytes]]:
    """Opcode and payload of everything that comes until the end."""
    await reader.readuntil(b"\r\n\r\n")
    found = []
    while True:
        try:
            opcode, length = await reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await reader.readexactly(8))
            found.append((opcode & 0x0F, await reader.readexactly(length)))
        except asyncio.IncompleteReadError:
            return found
        if found[-1][0] == 8:
            return found


def test_who_does_not_read_is_closed_and_nobody_else_notices() -> None:
    async def main() -> None:
        async with serving() as server:
            stalled = socket.socket()
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            stalled.connect(("127.0.0.1", server.port))
            stalled.sendall(HANDSHAKE.encode() + masked_text(SUBSCRIBE))
            await server.until(lambda: server.feed.clients == 1)
            (member,) = server.feed._members.values()
            await server.until(lambda: member.topics)
            good = await server.reader()
            await good.connection.write_message(SUBSCRIBE)
            seq = (await good.next(channel="stats", type="snapshot"))["seq"]

            async def everybody_is_told() -> None:
                nonlocal seq
                server.feed.tell_stats({"text": LARGE})
                update = await good.next(channel="stats")
                assert (update["type"], update["prev_seq"]) == ("update", seq)
                seq = update["seq"]

            while not member.client.busy:
                await everybody_is_told()
            begun_ms = 1_000
            for now_ms in (begun_ms, begun_ms + STALL_MS // 2, begun_ms + STALL_MS - 1):
                publish(server.feed, now_ms)
                await everybody_is_told()
            assert server.feed.clients == 2, "not before its time"
            assert server.feed.conflated >= 3
            publish(server.feed, begun_ms + STALL_MS)
            await everybody_is_told()

            # Only now it reads: what was on its way, then why it was closed.
            reader, writer = await asyncio.open_connection(sock=stalled)
            frames = await read_frames(reader)
            assert frames[-1][0] == 8
            assert struct.unpack_from("!H", frames[-1][1]) == (1013,)
            assert frames[-1][1][2:] == b"too slow"
            writer.close()
            await server.until(lambda: server.feed.clients == 1)
            await everybody_is_told()
            await good.connection.write_message('{"op": "ping", "id": 5}')
            assert (await good.next(op="pong"))["id"] == 5
            await good.close()
            await server.until(lambda: server.connections.count == 0)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_an_address_with_too_many_connections_is_told_so() -> None:
    async def main() -> None:
        async with serving(per_address=2) as server:
            first, second = await server.reader(), await server.reader()
            with pytest.raises(HTTPClientError) as refused:
                await server.reader()
            response = refused.value.response
            assert response is not None
            assert (response.code, response.headers["Content-Type"]) == (429, "application/problem+json")
            assert response.headers["Retry-After"] == "10"
            problem = json.loads(response.body)
            assert (problem["code"], problem["retryable"]) == ("TOO_MANY_CONNECTIONS", True)
            await first.close()
            await server.until(lambda: server.connections.count == 1)
            third = await server.reader()
            for one in (second, third):
                await one.close()
            await server.until(lambda: server.connections.count == 0)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_handshakes_that_fail_hold_no_connection() -> None:
    async def main() -> None:
        async with serving(per_address=1) as server:
            for broken in (
                HANDSHAKE.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
                HANDSHAKE.replace("Version: 13", "Version: 7"),
                HANDSHAKE.replace("Upgrade: websocket", "Upgrade: other"),
                HANDSHAKE.replace("Host: localhost", "Host: localhost\r\nOrigin: https://evil.example"),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(broken.encode())
                assert b" 4" in (await reader.readuntil(b"\r\n"))[:13]
                writer.close()
            await server.until(lambda: server.connections.count == 0)
            await (await server.reader()).close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_who_sends_too_much_is_told_so_and_closed() -> None:
    async def main() -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            subscribe = json.dumps({"op": "subscribe", "channels": [{"channel": "ticker"}] * 64})
            payload = subscribe.encode()
            frame = struct.pack("!BBH4x", 0x81, 0x80 | 126, len(payload)) + payload
            writer.write(HANDSHAKE.encode() + frame * (MESSAGES_BURST // 64 + 20))
            frames = await read_frames(reader)
            assert (frames[-1][0], struct.unpack_from("!H", frames[-1][1])) == (8, (1008,))
            last = json.loads(frames[-2][1])
            assert (last["op"], last["error"]["code"]) == ("error", "RATE_LIMITED")
            told = [json.loads(one) for _, one in frames[:-1]]
            assert sum(one.get("channel") == "ticker" for one in told) == 1
            assert sum(one.get("op") == "error" for one in told) == 1, "once, whatever it goes on sending"
            assert server.feed.clients == 0
            writer.close()
            await server.until(lambda: server.connections.count == 0)
            good = await server.reader()
            await good.connection.write_message(SUBSCRIBE)
            await good.next(channel="stats", type="snapshot")
            await good.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_nothing_more_is_read_from_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving() as server:
            silent = socket.socket()
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            silent.connect(("127.0.0.1", server.port))
            silent.sendall(HANDSHAKE.encode() + masked_text(SUBSCRIBE))
            await server.until(lambda: server.feed.clients == 1)
            (member,) = server.feed._members.values()
            await server.until(lambda: member.topics)
            while not member.client.busy:
                server.feed.tell_stats({"text": LARGE})
                await turn()
            handled = []
            handle = server.feed.handle

            def noting(member: Member, *rest: Any) -> bool:
                handled.append(member)
                return handle(member, *rest)

            monkeypatch.setattr(server.feed, "handle", noting)
            silent.sendall(masked_text('{"op": "ping", "id": 1}') * 5)
            good = await server.reader()
            for _ in range(20):
                await good.connection.write_message('{"op": "ping", "id": 5}')
                await good.next(op="pong")
            assert len(handled) == 20
            assert member not in handled
            reader, writer = await asyncio.open_connection(sock=silent)
            while handled.count(member) < 5:  # now it reads, and is answered
                await reader.read(65_536)
            writer.close()
            await good.close()
            await server.until(lambda: server.connections.count == 0)

    asyncio.run(asyncio.wait_for(main(), 60))
