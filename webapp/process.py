"""The web process: one thread, one event loop, around the follower, the feed and the handlers."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import logging
import mimetypes
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import tornado.netutil
import tornado.web

from webapp import account, admin, log_download, openapi, rest, status
from webapp.context import Metrics, Web
from webapp.feed import Feed
from webapp.follower import Follower
from webapp.history import Touched
from webapp.http import PATH_CHARS_SHOWN, Handler, NotFound
from webapp.limits import Connections, Proxies, RateLimit
from webapp.log_files import LogFiles
from webapp.operator import Operator
from webapp.orders import Orders
from webapp.problems import Problem
from webapp.server import ADMIN_MAX, Server, Shares
from webapp.sessions import ApiSessions
from webapp.signed_requests import SignedRequests
from webapp.sockets import MESSAGE_BYTES_MAX, FeedSocket, TunnelSocket, publish
from webapp.status import OperationsView
from webapp.submission import Submission
from webapp.views import Views
from zexchange.client.errors import KeyFileError
from zexchange.client.keys import load_key
from zexchange.config import Config
from zexchange.definitions import Definitions
from zexchange.runtime.descriptors import descriptor_limit
from zexchange.runtime.figures import FigureReader
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.ports import Port, PortUnavailable, unavailable, web_ports
from zexchange.runtime.process import ProcessContext, Refused, process_context
from zexchange.runtime.store import open_store
from zexchange.verification.checkpoint import SignedCheckpoint
from zexchange.wire import signing

NICE = 10
"""Of this process: trading comes first."""
TICK_S = 0.05
"""Between two looks for what the feed's subscribers have not seen: 20 times a second."""
_TICKS_PER_SECOND = 20
_PAGE = Path(__file__).parent / "ui" / "dist"
_BUILD_COMMAND = "scripts/build-page"
PAGE_REQUESTS = 10
"""Times `web.requests_per_minute`, for the page's files."""
_DAY_S = 86_400
_YEAR_S = 365 * _DAY_S


class PageHandler(Handler):
    """The built page and its files; `/` is index.html."""

    route = "page"

    def limit(self) -> RateLimit:
        return self.web.page_limit

    def get(self, name: str) -> None:
        page = self.web.page
        if page is None:
            self.set_status(503)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"The trading page is not built. In the repository: {_BUILD_COMMAND}\n")
            return
        path = _file_of(page, name or "index.html")
        if path is None:
            raise Problem("NOT_FOUND", self.request.path[:PATH_CHARS_SHOWN])
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        self.set_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        # Names of assets hold their hash: what has one never changes.
        fixed = path.parent.name == "assets"
        self.set_header("Cache-Control", f"public, max-age={_YEAR_S}, immutable" if fixed else "no-cache")
        content = path.read_bytes()
        self.set_header("Vary", "Accept-Encoding")
        if "gzip" in self.request.headers.get("Accept-Encoding", "") and len(content) > 1_000:
            content = _zipped(path, content)
            self.set_header("Content-Encoding", "gzip")
        self.finish(content)

    def head(self, name: str) -> None:
        self.get(name)


def _file_of(page: Path, name: str) -> Path | None:
    """A file of the page; None where there is none, or the name cannot be one."""
    try:
        path = (page / name).resolve()
        return path if path.is_relative_to(page) and path.is_file() else None
    except (ValueError, OSError):
        return None


_zipped_files: dict[tuple[Path, int], bytes] = {}


def _zipped(path: Path, content: bytes) -> bytes:
    key = (path, path.stat().st_mtime_ns)
    if key not in _zipped_files:
        _zipped_files[key] = gzip.compress(content, mtime=0)
    return _zipped_files[key]


def run(data: Path, config_file: Path | None, overrides: dict[str, str]) -> None:
    """Run the web process until it is asked to stop. Raises SystemExit with the reason's exit status."""
    with process_context("web", data, config_file, overrides) as context:
        _check_admin(context.config)
        signing.self_test()
        os.nice(NICE)
        asyncio.run(_serve(context))


def _check_admin(config: Config) -> None:
    """Raises Refused."""
    if not is_loopback(config.web.admin_host) and not config.web.admin_token:
        raise Refused(
            f"the admin API on {config.web.admin_host} needs a token: set ZX__WEB__ADMIN_TOKEN, or keep it on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


async def _serve(context: ProcessContext) -> None:
    config = context.config
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_reader(context.stop_fd, stopped.set)
    shares = Shares.of(descriptor_limit(context.log))
    web = _build(context, shares)
    try:
        public, private = applications(web)
        page_port, admin_port = web_ports(config)
        servers = [
            _listen(public, page_port, Connections(shares.http_per_address, shares.http), web.proxies),
            _listen(private, admin_port, Connections(ADMIN_MAX, ADMIN_MAX), web.proxies),
        ]
    except PortUnavailable as error:
        raise Refused(str(error)) from None
    if web.page is None:
        context.log.warning("the trading page is not built", extra={"zx": {"command": _BUILD_COMMAND}})
    tasks = [
        asyncio.create_task(web.follower.run(), name="follower"),
        asyncio.create_task(_tick(context, web), name="feed"),
        asyncio.create_task(stopped.wait(), name="stop"),
    ]
    try:
        while not stopped.is_set():
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                tasks.remove(task)
                task.result()  # what went wrong in it goes wrong here
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            server.stop()
            await server.close_all_connections()
        web.sessions.close()
        web.follower.close()
        web.log_files.close()
        if web.operator is not None:
            web.operator.close()
        loop.remove_reader(context.stop_fd)


async def _tick(context: ProcessContext, web: Web) -> None:
    """The feed's clock; the first time that the replica is at the end of the log, `ready` is announced."""
    view = OperationsView(web)
    ticks = 0
    due = time.monotonic()
    while True:
        # At fixed times, however long it takes to send to all; what cannot be kept is left out.
        due = max(due + TICK_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        if not web.follower.caught_up:
            continue
        context.ready(port=context.config.web_port, admin_port=context.config.admin_port)
        publish(web.feed, time.monotonic_ns() // 1_000_000)
        ticks += 1
        if ticks % _TICKS_PER_SECOND == 0:
            web.feed.heartbeat()
            tell_stats(web.feed, view, context.log)
            web.sessions.sweep()
            web.follower.sweep()


class _View(Protocol):
    def figures(self) -> dict[str, Any]: ...


def tell_stats(feed: Feed, view: _View, log: logging.Logger) -> None:
    """The figures of this second. They are read from files: where none can be opened they are left out, and the feed
    goes on."""
    try:
        figures = view.figures()
    except OSError as error:
        log.warning("the figures of the operations view cannot be read", extra={"zx": {"reason": str(error)}})
        return
    feed.tell_stats(figures)


def _build(context: ProcessContext, shares: Shares) -> Web:
    paths, genesis, config = context.paths, context.genesis, context.config
    feeds: list[Feed] = []

    def on_change(_shard: int, touched: Touched) -> None:
        feeds[0].touch(touched)

    times = context.figures.stages
    follower = Follower(paths, genesis, config, context.log, on_change, times)
    views = Views(genesis, follower.definitions)
    feed = Feed(views, follower, time.time_ns)
    follower.on_definitions = feed.learned
    feeds.append(feed)

    def on_checkpoints(new: Sequence[SignedCheckpoint]) -> None:
        feed.tell_checkpoints(len(follower.checkpoints) - len(new), new)

    follower.on_checkpoints = on_checkpoints
    host, port = config.exchange.host, config.tcp_port
    page = _PAGE.resolve() if (_PAGE / "index.html").is_file() else None
    return Web(
        paths=paths,
        genesis=genesis,
        config=config,
        views=views,
        follower=follower,
        feed=feed,
        orders=Orders(views, follower),
        log_files=LogFiles(paths, open_store(paths, config)),
        sessions=ApiSessions(host, port, genesis.deployment_id),
        submission=Submission(follower),
        signed_requests=SignedRequests(genesis.deployment_id, lambda: time.time_ns() // 1_000_000),
        operator=_operator(context, paths, follower.definitions),
        metrics=Metrics(),
        figures=FigureReader(),
        times=times,
        rate_limit=RateLimit(config.web.requests_per_minute),
        page_limit=RateLimit(PAGE_REQUESTS * config.web.requests_per_minute, name="page"),
        connections=Connections(config.web.connections_per_address, shares.websockets),
        proxies=_proxies(config),
        page=page,
        origins=origins(config),
    )


def _operator(context: ProcessContext, paths: DataPaths, definitions: Definitions) -> Operator | None:
    config = context.config
    try:
        key = load_key(paths.operator_key)
    except (KeyFileError, OSError) as error:
        context.log.warning("no operator key: no admin API", extra={"zx": {"reason": str(error)}})
        return None
    return Operator(config.exchange.host, config.tcp_port, key, context.genesis, definitions)


def _proxies(config: Config) -> Proxies:
    """Raises Refused."""
    try:
        return Proxies(config.web.trusted_proxies)
    except ValueError as error:
        raise Refused(f"web.trusted_proxies: {error}") from None


def origins(config: Config) -> frozenset[str]:
    """The page's own origin, by every name of it, and those of the configuration."""
    own = {f"http://{host}:{config.web_port}" for host in (config.web.host, "localhost", "127.0.0.1")}
    return frozenset(own | set(config.web.origins))


def applications(web: Web) -> tuple[tornado.web.Application, tornado.web.Application]:
    """The public one and the operator's."""
    shared = {"web": web}
    routes = (*rest.routes(), *account.routes(), *log_download.routes())
    api = [(f"/api/v1{path}", handler, shared) for path, handler in routes]
    public: list[Any] = [
        *api,
        *[(path, handler, shared) for path, handler in (*status.routes(), *openapi.routes())],
        ("/ws", FeedSocket, shared),
        ("/ws/session", TunnelSocket, shared),
        ("/api/.*", NotFound, shared),
        ("/(.*)", PageHandler, shared),
    ]
    private: list[Any] = [(path, handler, shared) for path, handler in (*admin.routes(), *status.routes())]
    settings: dict[str, Any] = {
        "default_handler_class": NotFound,
        "default_handler_args": shared,
        "websocket_max_message_size": MESSAGE_BYTES_MAX,
        "log_function": lambda _handler: None,
    }
    return tornado.web.Application(public, **settings), tornado.web.Application(private, **settings)


def _listen(
    application: tornado.web.Application, port: Port, admitted: Connections, proxies: Proxies
) -> Server:
    """Raises PortUnavailable."""
    server = Server(application, admitted=admitted, proxies=proxies)
    try:
        server.add_sockets(tornado.netutil.bind_sockets(port.number, port.host))
    except OSError as error:
        raise unavailable(port, error) from error
    return server
