"""The HTTP server: Tornado's, with an end to how many connections there are and to what it reads of a body.

A WebSocket counts here until its handshake is done; from then on it is one of `limits.Connections` of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, NamedTuple, cast

import tornado.httpserver
from tornado.http1connection import HTTP1ServerConnection
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError

from webapp.limits import CONNECTIONS_MAX, Connections, Proxies
from webapp.problems import Problem

BODY_BYTES_MAX = 65_536
BODY_READ_BYTES_MAX = 8_388_608
"""A body up to here is read, and dropped, so that the client hears why; one that says it is larger is not read."""
BODY_TIMEOUT_S = 15.0
IDLE_TIMEOUT_S = 60.0
"""For a request's head, and between requests."""
HTTP_MAX = 2_048
"""Connections of all addresses together, WebSockets apart."""
HTTP_PER_ADDRESS = 256
ADMIN_MAX = 64
_RESERVED = 256
"""Descriptors for files, the store, and the admin API."""
_RETRY_S = 10


class Shares(NamedTuple):
    """Of the descriptors that this process may have."""

    http: int
    http_per_address: int
    websockets: int

    @classmethod
    def of(cls, descriptors: int) -> Shares:
        """As many as wanted, or what there is room for. A tunnel has two, and sessions over HTTP want some too."""
        spare = max(6, descriptors - _RESERVED)
        http = min(HTTP_MAX, spare // 6)
        return cls(http, min(HTTP_PER_ADDRESS, max(1, http // 4)), min(CONNECTIONS_MAX, spare // 3))


class Server(tornado.httpserver.HTTPServer):
    """Refuses connections beyond what `admitted` allows, and lets clients finish bodies that are too large."""

    def initialize(  # type: ignore[override]
        self,
        application: Any,
        *,
        admitted: Connections,
        proxies: Proxies,
        body_timeout: float = BODY_TIMEOUT_S,
    ) -> None:
        self._admitted = admitted
        self._proxies = proxies
        super().initialize(
            application,
            max_body_size=BODY_READ_BYTES_MAX,
            max_buffer_size=4 * BODY_BYTES_MAX,
            idle_connection_timeout=IDLE_TIMEOUT_S,
            body_timeout=body_timeout,
        )

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        try:
            # Everybody behind a proxy that we trust comes from its address.
            self._admitted.take(address[0], alone=not self._proxies.is_trusted(address[0]))
        except Problem as problem:
            _refuse(stream, problem)
            return
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        super().on_close(server_conn)
        context: Any = cast(HTTP1ServerConnection, server_conn).context
        self._admitted.release(context.address[0])

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return _Trimmed(super().start_request(server_conn, request_conn))


class _Trimmed(HTTPMessageDelegate):
    """Keeps no more of a body than shows that it is too large."""

    def __init__(self, delegate: HTTPMessageDelegate) -> None:
        self._delegate = delegate
        self._kept = 0

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        return self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        kept = chunk[: BODY_BYTES_MAX + 1 - self._kept]
        self._kept += len(kept)
        return self._delegate.data_received(kept) if kept else None

    def finish(self) -> None:
        self._delegate.finish()

    def on_connection_close(self) -> None:
        self._delegate.on_connection_close()


def _refuse(stream: IOStream, problem: Problem) -> None:
    head = (
        f"HTTP/1.1 {problem.status} {problem.code}\r\nConnection: close\r\nContent-Length: 0\r\n"
        f"Retry-After: {_RETRY_S}\r\n\r\n"
    )
    try:
        stream.write(head.encode("ascii"))
    except StreamClosedError:
        pass
    stream.close()
