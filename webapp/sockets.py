"""WebSockets: the feed, and the tunnel to order entry."""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from functools import lru_cache
from typing import Any

import msgspec
import tornado.websocket
from tornado.iostream import IOStream, StreamClosedError

from webapp.context import Web
from webapp.feed import LOGON_TAG, Feed, Logon, Member
from webapp.http import address_of
from webapp.parsing import hex_of, key_of
from webapp.problems import Problem
from zexchange import __version__
from zexchange.wire import signing
from zexchange.wire.messages import WireError

MESSAGE_BYTES_MAX = 65_536
TUNNEL_BUFFER_BYTES = 1_048_576
_READ_BYTES = 65_536
_POLICY_VIOLATION, _TRY_AGAIN = 1008, 1013
_RETRY_S = 10


class _Socket(tornado.websocket.WebSocketHandler):
    def initialize(self, web: Web) -> None:
        self.web = web

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """The handshake; refused with a problem document where there are too many already."""
        address, retry_s = address_of(self.web, self.request), _RETRY_S
        try:
            allowed, _, reset_s = self.web.rate_limit.take(address, time.monotonic())
            if not allowed:
                retry_s = reset_s
                raise Problem("RATE_LIMITED", f"at most {self.web.rate_limit.per_window} requests a minute")
            self.web.connections.take(address)
        except Problem as problem:
            self.set_status(problem.status)
            self.set_header("Content-Type", "application/problem+json")
            self.set_header("Retry-After", str(retry_s))
            self.finish(msgspec.json.encode(problem.body(secrets.token_hex(8))))
            return
        try:
            await super().get(*args, **kwargs)  # until the connection is over
        finally:
            self.web.connections.release(address)

    def check_origin(self, origin: str) -> bool:
        return origin in self.web.origins

    def get_compression_options(self) -> dict[str, Any] | None:
        return None  # what is sent is small, and sent to many


class FeedSocket(_Socket):
    """/ws"""

    _member: Member | None = None
    _leaving: asyncio.Future[None] | None = None
    """What was sent last, while it has not left."""

    @property
    def busy(self) -> bool:
        """The kernel has no room: what was sent last has not left yet."""
        stream = self._stream()
        return stream is not None and stream.writing()

    def send(self, message: bytes) -> None:
        stream = self._stream()
        if stream is None:
            return
        frame = _text_frame(message)
        sent = 0
        if not stream.writing():
            # Straight to the kernel: the framework's way costs three times as much, for each of a thousand readers.
            try:
                sent = stream.socket.send(frame)
            except BlockingIOError:
                pass
            except OSError:
                return  # reading says so next, and on_close comes
        if sent < len(frame):
            try:
                self._leaving = stream.write(frame[sent:])
                self._leaving.add_done_callback(_looked_at)
            except StreamClosedError:
                pass  # on_close comes

    def _stream(self) -> IOStream | None:
        connection = self.ws_connection
        if not isinstance(connection, tornado.websocket.WebSocketProtocol13) or connection.client_terminated:
            return None
        stream = connection.stream
        return None if stream.closed() or not isinstance(stream, IOStream) else stream

    def open(self, *_args: str, **_kwargs: str) -> None:
        self.set_nodelay(True)
        self._member = self.web.feed.connect(self, __version__)

    async def on_message(self, message: str | bytes) -> None:
        if self.busy and self._leaving is not None:
            # Who does not read the answers asks for nothing more: nothing is read from it meanwhile.
            await asyncio.wait([self._leaving])
        if self._member is None:
            return
        if isinstance(message, bytes):
            self.close(_POLICY_VIOLATION, "JSON text is wanted")
            return
        if not self.web.follower.caught_up:
            self.close(_TRY_AGAIN, "still replaying the log")
            return
        if not self.web.feed.handle(self._member, message, self._log_on, time.monotonic()):
            self.close(_POLICY_VIOLATION, "too many messages")
            self.on_close()  # what it goes on sending until the connection has ended is not looked at

    def on_close(self) -> None:
        if self._member is not None:
            self.web.feed.disconnect(self._member)
            self._member = None

    def _log_on(self, member: Member, logon: Logon) -> int:
        key = key_of(logon.public_key)
        signature = hex_of(logon.signature, "signature")
        signed = LOGON_TAG + self.web.genesis.deployment_id + member.challenge
        try:
            signing.verify_raw(signature, signed, key)
        except WireError as error:
            raise Problem(error.reason.name) from None
        account_id = self.web.account_of_key(key)
        if account_id is None:
            raise Problem("UNKNOWN_KEY", "the key has no account")
        return account_id


class TunnelSocket(_Socket):
    """/ws/session: the bytes of a TCP session at the ingress, both ways, in binary messages."""

    _writer: asyncio.StreamWriter | None = None
    _task: asyncio.Task[None] | None = None

    async def open(self, *_args: str, **_kwargs: str) -> None:
        self.set_nodelay(True)
        config = self.web.config
        try:
            reader, self._writer = await asyncio.open_connection(config.exchange.host, config.tcp_port)
        except OSError:
            self.close(_TRY_AGAIN, "order entry does not answer")
            return
        self._task = asyncio.create_task(self._pump(reader))

    def on_message(self, message: str | bytes) -> None:
        writer = self._writer
        if writer is None:
            return
        if not isinstance(message, bytes):
            self.close(_POLICY_VIOLATION, "binary messages are wanted")
            return
        if writer.transport.get_write_buffer_size() > TUNNEL_BUFFER_BYTES:
            self.close(_TRY_AGAIN, "order entry does not keep up")
            return
        writer.write(message)

    def on_close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            self._writer.close()

    async def _pump(self, reader: asyncio.StreamReader) -> None:
        """What order entry says, at the pace at which the client takes it."""
        try:
            while data := await reader.read(_READ_BYTES):
                await self.write_message(data, binary=True)
        except (OSError, tornado.websocket.WebSocketClosedError, StreamClosedError):
            pass
        self.close(1000, "the session is over")


def publish(feed: Feed, now_ms: int) -> None:
    """Send to everybody what has changed, and close those that have not read for too long."""
    for member in feed.tick(now_ms):
        client = member.client
        assert isinstance(client, FeedSocket)
        client.close(_TRY_AGAIN, "too slow")


@lru_cache(maxsize=64)
def _text_frame(message: bytes) -> bytes:
    """A text message of a server (RFC 6455, section 5.2), made once for all who get it."""
    length = len(message)
    if length < 126:
        head = struct.pack("!BB", 0x81, length)
    elif length < 65_536:
        head = struct.pack("!BBH", 0x81, 126, length)
    else:
        head = struct.pack("!BBQ", 0x81, 127, length)
    return head + message


def _looked_at(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()  # a client that went away meanwhile is no error
