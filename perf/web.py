"""Readers of the live feed: what they cost the web process, and how late a change reaches them.

    writer ──TCP──▶ exchange ──log──▶ web process ══ N WebSockets ══▶ readers (a process of their own, one epoll)

The writer amends one order so often that every publication of the book has news. Each book message names the log time
of the last record in it; a reader compares that with the clock when it receives the message. So what is measured goes
from the matcher's stamp to the reader's socket: log, following it, waiting for the next publication, sending to all.
"""

from __future__ import annotations

import base64
import multiprocessing
import os
import re
import resource
import select
import socket
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from perf.histogram import samples_of
from perf.machine import describe_machine
from perf.results import Machine, Percentiles
from perf.usage import ExchangeUse
from zexchange.client import Client, load_key
from zexchange.runtime.running import RunningExchange

__all__ = ["WebLoadResult", "run_web_load"]

MARKET = "BTC-USD"
SETTINGS = {"web.enabled": "true", "web.connections_per_address": "5000", "web.requests_per_minute": "100000"}
DAY_NS = 86_400 * 1_000_000_000
WARM_UP_S = 1.0
CONNECT_TIMEOUT_S = 60.0
_TIME = re.compile(rb'"time":"[^T"]+T(\d\d):(\d\d):(\d\d)\.(\d{9})Z"')


class WebLoadResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="web"):
    """One run. `tick_to_client`: from log time to the reader's socket."""

    clients: int
    duration_s: float
    book_interval_ms: int
    amends_per_s: float
    messages_per_s: float
    """Book messages received, all readers together."""
    messages_per_client_s: float
    web_cpu_share: float
    """Of one core, user and system."""
    web_cpu_us_per_client_s: float
    """Processor time of the web process per reader and second."""
    web_rss_mb: float
    tick_to_client: Percentiles
    machine: Machine


def run_web_load(clients: int, duration_s: float, amends_per_s: float, levels: int) -> WebLoadResult:
    """An exchange of its own, `levels` orders a side in its book, and so many readers."""
    raise_descriptor_limit(clients + 256)
    # Forked before there is any thread, and told later where to go.
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    readers = context.Process(target=_read_all, args=(clients, theirs), daemon=True)
    readers.start()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="zx-perf-") as folder,
            RunningExchange(Path(folder) / "data", settings=SETTINGS) as exchange,
        ):
            return _measure(exchange, ours, clients, duration_s, amends_per_s, levels)
    finally:
        readers.kill()
        readers.join()


def _measure(
    exchange: RunningExchange,
    readers: Connection,
    clients: int,
    duration_s: float,
    amends_per_s: float,
    levels: int,
) -> WebLoadResult:
    web = exchange.info.web
    assert web is not None, "it was started with a web process"
    writer = _Writer(exchange, levels, amends_per_s)
    try:
        readers.send((web.host, web.port))
        if not readers.poll(CONNECT_TIMEOUT_S) or readers.recv() != "connected":
            raise RuntimeError("the readers could not connect")
        writer.start()
        time.sleep(WARM_UP_S)
        use = ExchangeUse(exchange.pids)
        readers.send("begin")
        use.begin()
        amends, began = writer.amends, time.monotonic()
        time.sleep(duration_s)
        use.end()
        readers.send("end")
        passed = time.monotonic() - began
        amended = writer.amends - amends
        samples: list[int] = readers.recv()
        rss_mb = use.rss_mb()
    finally:
        writer.stop()
    (used,) = [one for one in use.per_order(1, rss_mb) if one.name == "web"]
    cpu_us = used.user_us_per_order + used.system_us_per_order
    return WebLoadResult(
        clients=clients,
        duration_s=passed,
        book_interval_ms=50,
        amends_per_s=amended / passed,
        messages_per_s=len(samples) / passed,
        messages_per_client_s=len(samples) / passed / clients,
        web_cpu_share=cpu_us / passed / 1e6,
        web_cpu_us_per_client_s=cpu_us / passed / clients,
        web_rss_mb=used.rss_mb,
        tick_to_client=samples_of(samples),
        machine=describe_machine(),
    )


class _Writer:
    """Moves one order up and down, in a thread."""

    def __init__(self, exchange: RunningExchange, levels: int, amends_per_s: float) -> None:
        self.amends = 0
        key = SigningKey.generate()
        address = (exchange.host, exchange.port)
        with Client(*address, key=load_key(exchange.paths.operator_key)) as operator:
            account_id = operator.open_account(key.verify_key).account_id
            operator.deposit(account_id, "USD", "1000000000")
            operator.deposit(account_id, "BTC", "1000000")
        self._client = Client(*address, key=key)
        for level in range(levels):
            self._client.buy(MARKET, "0.5", f"{40_000 - level}")
            self._client.sell(MARKET, "0.5", f"{40_010 + level}")
        self._order_id = self._client.buy(MARKET, "1", "40001").order_id
        self._pause_s = 1 / amends_per_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._client.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            self.amends += 1
            self._client.amend(order_id=self._order_id, market=MARKET, quantity=f"{1 + self.amends % 2000}")
            due = max(due + self._pause_s, time.monotonic())
            self._stopping.wait(due - time.monotonic())


def raise_descriptor_limit(wanted: int) -> None:
    """Raises RuntimeError where so many open files are not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise RuntimeError(f"{wanted} open files are needed, {hard} are allowed: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# ---------------------------------------------------------------- the readers' process


def _read_all(clients: int, commands: Connection) -> None:
    """Connects and subscribes so many readers; between "begin" and "end" notes how late each book message is."""
    raise_descriptor_limit(clients + 256)
    host, port = commands.recv()
    epoll = select.epoll()
    sockets = {}
    for _ in range(clients):
        connection = _subscribed(host, port)
        sockets[connection.fileno()] = connection
        epoll.register(connection.fileno(), select.EPOLLIN)
    epoll.register(commands.fileno(), select.EPOLLIN)
    commands.send("connected")
    samples: list[int] = []
    measuring = False
    while True:
        for fd, _ in epoll.poll():
            if fd == commands.fileno():
                if commands.recv() == "end":
                    commands.send(samples)
                    return
                measuring = True
                continue
            data = sockets[fd].recv(262_144)
            if not data:
                commands.send("closed")
                return
            now_ns = time.time_ns() % DAY_NS
            if measuring:
                samples.extend(_ages(data, now_ns))


def _ages(data: bytes, now_ns: int) -> list[int]:
    """How long ago the log times of the book messages in `data` were, in nanoseconds."""
    ages = []
    for line in data.split(b'"channel":"book"')[1:]:
        found = _TIME.search(line)
        if found is not None:
            hours, minutes, seconds, nanoseconds = map(int, found.groups())
            then_ns = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000_000 + nanoseconds
            ages.append((now_ns - then_ns) % DAY_NS)
    return ages


def _subscribed(host: str, port: int) -> socket.socket:
    """A WebSocket that has asked for the book."""
    connection = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(4_096)
    if b" 101 " not in answer.partition(b"\r\n")[0]:
        raise RuntimeError(f"no WebSocket: {answer[:200]!r}")
    text = msgspec.json.encode(
        {"op": "subscribe", "id": 1, "channels": [{"channel": "book", "market": MARKET}]}
    )
    # A mask of zeros is a mask: the text stays as it is.
    connection.sendall(bytes((0x81, 0x80 | len(text))) + bytes(4) + text)
    connection.settimeout(None)
    return connection
