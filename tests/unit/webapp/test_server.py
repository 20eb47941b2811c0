"""The HTTP server and what all handlers share, over real sockets: what is too large, too slow, or too many."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pytest
import tornado.web
from tornado.testing import bind_unused_port
from tornado.websocket import websocket_connect

from tests.unit.webapp.test_feed import World
from tests.unit.webapp.test_sockets import turn
from webapp.context import Metrics
from webapp.feed import Feed
from webapp.http import Handler, NotFound
from webapp.limits import Connections, Proxies, RateLimit
from webapp.process import PageHandler, tell_stats
from webapp.server import ADMIN_MAX, BODY_BYTES_MAX, BODY_READ_BYTES_MAX, BODY_TIMEOUT_S, Server, Shares
from webapp.sockets import FeedSocket
from webapp.status import MetricsHandler
from zexchange.runtime.descriptors import UNLIMITED, descriptor_limit


class Thing(msgspec.Struct):
    text: str = ""


class EchoHandler(Handler):
    route = "echo"

    def get(self) -> None:
        self.reply({"text": ""})

    def post(self) -> None:
        self.reply(self.json(Thing))


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    def code(self) -> str:
        return str(json.loads(self.content)["code"])


class Peer:
    """A client that sends what the test writes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, head: str, body: bytes = b"") -> Answer:
        self.writer.write(f"{head}\r\nHost: localhost\r\n\r\n".encode("latin-1") + body)
        return await self.answer()

    async def answer(self) -> Answer:
        first, *rest = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in rest)}
        content = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(first.split()[1]), headers, content)

    async def is_closed(self) -> bool:
        return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


class Site:
    """A server with small limits."""

    def __init__(self, page: Path, admitted: Connections, proxies: Proxies, body_timeout: float) -> None:
        self.admitted = admitted
        self.metrics = Metrics()
        web = SimpleNamespace(
            rate_limit=RateLimit(100),
            page_limit=RateLimit(3, name="page"),
            connections=Connections(100),
            proxies=proxies,
            metrics=self.metrics,
            origins=frozenset(),
            page=page,
            feed=World().feed,
            follower=SimpleNamespace(caught_up=True),
        )
        self.web = web
        shared = {"web": web}
        application = tornado.web.Application(
            [
                ("/echo", EchoHandler, shared),
                ("/ws", FeedSocket, shared),
                ("/metrics", MetricsHandler, shared),
                ("/api/.*", NotFound, shared),
                ("/(.*)", PageHandler, shared),
            ],
            log_function=lambda _handler: None,
        )
        self.http = Server(application, admitted=admitted, proxies=proxies, body_timeout=body_timeout)
        listener, self.port = bind_unused_port()
        self.http.add_socket(listener)

    async def peer(self) -> Peer:
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port))

    async def until(self, condition: Any) -> None:
        while not condition():
            await turn()

    def counted(self) -> dict[tuple[str, str, str], float]:
        """Requests by method, route and status."""
        return {
            (one.labels["method"], one.labels["route"], one.labels["status"]): one.value
            for family in self.metrics.requests.collect()
            for one in family.samples
            if one.name.endswith("_total")
        }


@asynccontextmanager
async def serving(
    *,
    page: Path = Path("/nonexistent"),
    per_address: int = 10,
    trusted: tuple[str, ...] = (),
    body_timeout: float = BODY_TIMEOUT_S,
) -> AsyncIterator[Site]:
    site = Site(page, Connections(per_address), Proxies(trusted), body_timeout)
    try:
        yield site
    finally:
        site.http.stop()
        await site.http.close_all_connections()


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


def text_of(length: int) -> bytes:
    """A body of so many bytes."""
    return b'{"text": "' + b"x" * (length - 12) + b'"}'


def test_a_body_that_is_too_large_is_answered_and_the_connection_goes_on() -> None:
    async def main() -> None:
        async with serving() as site:
            peer = await site.peer()
            for length, status in (
                (BODY_BYTES_MAX, 200),
                (BODY_BYTES_MAX + 1, 413),
                (1_000_000, 413),
                (BODY_READ_BYTES_MAX, 413),
            ):
                answer = await peer.ask(f"POST /echo HTTP/1.1\r\nContent-Length: {length}", text_of(length))
                assert answer.status == status, length
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.code() == "PAYLOAD_TOO_LARGE"
            chunk = text_of(BODY_BYTES_MAX)
            chunks = (f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n") * 5 + b"0\r\n\r\n"
            answer = await peer.ask("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked", chunks)
            assert (answer.status, answer.code()) == (413, "PAYLOAD_TOO_LARGE")
            assert (await peer.ask("GET /echo HTTP/1.1")).status == 200
            peer.close()

    run(main)


def test_of_a_body_that_is_too_large_little_is_kept() -> None:
    kept = []

    class KeepingHandler(EchoHandler):
        def prepare(self) -> None:
            kept.append(len(self.request.body))
            super().prepare()

    async def main() -> None:
        async with serving() as site:
            application = site.http.request_callback
            assert isinstance(application, tornado.web.Application)
            application.add_handlers(".*", [("/kept", KeepingHandler, {"web": site.web})])
            peer = await site.peer()
            answer = await peer.ask("POST /kept HTTP/1.1\r\nContent-Length: 2000000", bytes(2_000_000))
            assert (answer.status, kept) == (413, [BODY_BYTES_MAX + 1])
            peer.close()

    run(main)


def test_a_body_that_never_ends_is_not_waited_for() -> None:
    async def main() -> None:
        async with serving(body_timeout=0.0) as site:
            peer = await site.peer()
            peer.writer.write(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
            assert await peer.is_closed()
            peer.close()
            await site.until(lambda: site.admitted.count == 0)
        async with serving() as site:
            assert site.http.conn_params.body_timeout == BODY_TIMEOUT_S

    run(main)


def test_an_address_has_so_many_connections_and_is_told_so() -> None:
    async def main() -> None:
        async with serving(per_address=2) as site:
            first, second, third = [await site.peer() for _ in range(3)]
            for peer in (first, second):
                assert (await peer.ask("GET /echo HTTP/1.1")).status == 200
            answer = await third.answer()
            assert (answer.status, answer.headers["retry-after"]) == (429, "10")
            assert await third.is_closed()
            first.close()
            await site.until(lambda: site.admitted.count == 1)
            fourth = await site.peer()
            assert (await fourth.ask("GET /echo HTTP/1.1")).status == 200
            for peer in (second, third, fourth):
                peer.close()
            await site.until(lambda: site.admitted.count == 0)

    run(main)


def test_clients_of_a_trusted_proxy_do_not_count_as_one() -> None:
    async def main() -> None:
        async with serving(per_address=1, trusted=("127.0.0.1",)) as site:
            peers = [await site.peer() for _ in range(3)]
            for peer in peers:
                assert (await peer.ask("GET /echo HTTP/1.1")).status == 200
            assert site.admitted.count == 3
            for peer in peers:
                peer.close()

    run(main)


def test_a_websocket_is_no_http_connection_once_it_is_open() -> None:
    async def main() -> None:
        async with serving(per_address=1) as site:
            sockets = []
            for _ in range(3):
                sockets.append(await websocket_connect(f"ws://127.0.0.1:{site.port}/ws"))
                await site.until(lambda: site.admitted.count == 0)
            assert site.web.feed.clients == 3
            for one in sockets:
                one.close()
            await site.until(lambda: site.web.feed.clients == 0)
            assert site.web.connections.count == 0

    run(main)


def test_methods_that_somebody_made_up_are_counted_as_one() -> None:
    async def main() -> None:
        async with serving() as site:
            peer = await site.peer()
            for number in range(5):
                answer = await peer.ask(f"MADE{number} /echo HTTP/1.1\r\nContent-Length: 0")
                assert (answer.status, answer.code()) == (405, "METHOD_NOT_ALLOWED")
            await peer.ask("GET /echo HTTP/1.1")
            assert site.counted() == {("other", "echo", "405"): 5, ("GET", "echo", "200"): 1}
            peer.close()

    run(main)


def test_json_that_is_nested_too_deeply_is_a_bad_request() -> None:
    async def main() -> None:
        async with serving() as site:
            peer = await site.peer()
            depth = 20_000
            body = b'{"other": ' + b"[" * depth + b"]" * depth + b"}"
            answer = await peer.ask(f"POST /echo HTTP/1.1\r\nContent-Length: {len(body)}", body)
            assert (answer.status, answer.code()) == (400, "BAD_REQUEST")
            peer.close()

    run(main)


def test_a_name_that_no_file_can_have_is_not_found(tmp_path: Path) -> None:
    page = tmp_path.resolve()
    (page / "index.html").write_text("here")

    async def main() -> None:
        for path in ("%00", "x" * 300, "../" * 5 + "etc/passwd", "a/" * 3_000):
            async with serving(page=page) as site:
                peer = await site.peer()
                answer = await peer.ask(f"GET /{path} HTTP/1.1")
                assert (answer.status, answer.code()) == (404, "NOT_FOUND"), path
                assert len(answer.content) < 1_000
                assert (await peer.ask("GET / HTTP/1.1")).content == b"here"
                peer.close()

    run(main)


def test_files_of_the_page_have_a_limit_of_their_own(tmp_path: Path) -> None:
    page = tmp_path.resolve()
    (page / "index.html").write_text("here")

    async def main() -> None:
        async with serving(page=page) as site:
            peer = await site.peer()
            answers = [await peer.ask("GET / HTTP/1.1") for _ in range(4)]
            assert [one.status for one in answers] == [200, 200, 200, 429]
            assert answers[0].headers["ratelimit-policy"] == '"page";q=3;w=60'
            assert (await peer.ask("GET /echo HTTP/1.1")).status == 200
            peer.close()

    run(main)


@pytest.mark.parametrize("path", ["/metrics", "/api/nowhere"])
def test_nothing_is_done_for_an_address_that_has_asked_too_often(path: str) -> None:
    async def main() -> None:
        async with serving() as site:
            site.web.rate_limit = RateLimit(1)
            peer = await site.peer()
            assert (await peer.ask("GET /echo HTTP/1.1")).status == 200
            answer = await peer.ask(f"GET {path} HTTP/1.1")
            assert (answer.status, answer.code()) == (429, "RATE_LIMITED")
            answer = await peer.ask(
                "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            )
            assert (answer.status, answer.code()) == (429, "RATE_LIMITED")
            assert 0 < int(answer.headers["retry-after"]) <= 60
            peer.close()

    run(main)


@pytest.mark.parametrize("descriptors", [256, 1_024, 4_096, 65_536, UNLIMITED])
def test_connections_leave_descriptors_for_files(descriptors: int) -> None:
    shares = Shares.of(descriptors)
    assert 1 <= shares.http_per_address <= shares.http
    assert shares.websockets >= 1
    if descriptors > 256:
        # Each WebSocket may be a tunnel, which has a connection of its own to order entry.
        assert shares.http + 2 * shares.websockets + ADMIN_MAX < descriptors
    if descriptors >= 65_536:
        assert shares == (2_048, 256, 5_000)


@pytest.mark.parametrize(
    ("limits", "refused", "found", "asked"),
    [
        ((1_024, 4_096), False, 4_096, [(4_096, 4_096)]),
        ((1_024, 4_096), True, 1_024, [(4_096, 4_096)]),
        ((4_096, 4_096), False, 4_096, []),
        ((1_024, resource.RLIM_INFINITY), False, UNLIMITED, [(resource.RLIM_INFINITY,) * 2]),
    ],
)
def test_the_limit_of_descriptors_is_raised_as_far_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], refused: bool, found: int, asked: list[Any]
) -> None:
    heard = []

    def setrlimit(_which: int, wanted: tuple[int, int]) -> None:
        heard.append(wanted)
        if refused:
            raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert descriptor_limit(logging.getLogger("tests")) == found
    assert heard == asked


def test_figures_that_cannot_be_read_do_not_end_the_feed(caplog: pytest.LogCaptureFixture) -> None:
    class View:
        broken = True

        def figures(self) -> dict[str, Any]:
            if self.broken:
                raise OSError(errno.EMFILE, "Too many open files")
            return {"records": "1"}

    feed: Feed = World().feed
    view, log = View(), logging.getLogger("tests")
    tell_stats(feed, view, log)
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert feed._stats == {}
    view.broken = False
    tell_stats(feed, view, log)
    assert feed._stats == {"records": "1"}
