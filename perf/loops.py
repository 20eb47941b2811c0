"""What a loop costs: the same echo by a plain epoll loop and by asyncio, at the rate of orders.

    generator ──TCP, one order's frame──▶ echo ──one report's frame──▶ generator

Each echo is a process of its own that does nothing else, so what differs is what the loop does between the kernel and
its caller. They are measured by turns, with the same pauses between two frames; processor time is that of the
echo alone. uvloop takes part where it is installed; it is not part of the product.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import multiprocessing
import select
import socket
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from random import Random

import msgspec
from nacl.signing import SigningKey

from perf.floor import order_frame
from perf.histogram import samples_of
from perf.machine import describe_machine
from perf.results import Machine
from zexchange.wire.messages import ExecutionReport

LOOPS = ("epoll", "asyncio", "uvloop")
_SESSIONS = 4
_TIMEOUT_S = 30.0  # an echo that has ended does not answer


class LoopCost(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the runs of one loop."""

    loop: str
    p50_us: float
    """From the frame's send to its answer's arrival."""
    p99_us: float
    cpu_us_per_frame: float
    """User and system time of the echo."""


class LoopCosts(msgspec.Struct, frozen=True, kw_only=True):
    """All loops that are installed."""

    rate: float
    loops: tuple[LoopCost, ...]
    machine: Machine


def measure_loops(rate: float, duration_s: float, runs: int) -> LoopCosts:
    """Measure each loop `runs` times by turns, at `rate` frames a second for `duration_s` seconds."""
    request, reply = order_frame(SigningKey.generate(), 1), ExecutionReport().encode()
    names = [name for name in LOOPS if name == "epoll" or importlib.util.find_spec(name) is not None]
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for run in range(runs):
        for name in names:
            found[name].append(_measure(name, request, reply, rate, duration_s, seed=run))
    return LoopCosts(
        rate=rate,
        loops=tuple(
            LoopCost(loop=name, p50_us=p50_us, p99_us=p99_us, cpu_us_per_frame=cpu_us)
            for name in names
            for p50_us, p99_us, cpu_us in [map(statistics.median, zip(*found[name], strict=True))]
        ),
        machine=describe_machine(),
    )


def _measure(
    name: str, request: bytes, reply: bytes, rate: float, duration_s: float, seed: int
) -> tuple[float, float, float]:
    """p50 and p99 in microseconds, and the echo's processor time per frame."""
    serve = _serve_epoll if name == "epoll" else partial(_serve_asyncio, name)
    pipe, theirs = multiprocessing.Pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        echo = multiprocessing.get_context("fork").Process(
            target=serve, args=(listener, theirs, len(request), reply), daemon=True
        )
        echo.start()
        sessions = [socket.create_connection(listener.getsockname()) for _ in range(_SESSIONS)]
        try:
            for session in sessions:
                session.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                session.settimeout(_TIMEOUT_S)
            samples_ns = _ask(sessions, request, len(reply), rate, duration_s, Random(seed))
        finally:
            for session in sessions:
                session.close()
        cpu_s = pipe.recv()
        echo.join()
    samples = samples_of(samples_ns)
    return samples.p50_us, samples.p99_us, cpu_s / len(samples_ns) * 1e6


def _ask(
    sessions: list[socket.socket],
    request: bytes,
    reply_bytes: int,
    rate: float,
    duration_s: float,
    random: Random,
) -> list[int]:
    """Nanoseconds of each round trip. One at a time: what is compared is the way of a frame, not a queue."""
    samples_ns = []
    due_s = time.perf_counter()
    end_s = due_s + duration_s
    while due_s < end_s:
        time.sleep(max(0.0, due_s - time.perf_counter()))
        session = random.choice(sessions)
        begun_ns = time.perf_counter_ns()
        session.sendall(request)
        left = reply_bytes
        while left > 0:
            received = len(session.recv(left))
            if received == 0:
                raise ConnectionError("the echo closed the connection")
            left -= received
        samples_ns.append(time.perf_counter_ns() - begun_ns)
        due_s += random.expovariate(rate)
    return samples_ns


def _serve_epoll(listener: socket.socket, pipe: Connection, request_bytes: int, reply: bytes) -> None:
    connections: dict[int, tuple[socket.socket, bytearray]] = {}
    poller = select.epoll()
    for _ in range(_SESSIONS):
        connection, _address = listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections[connection.fileno()] = (connection, bytearray())
        poller.register(connection, select.EPOLLIN)
    begun_s = time.process_time()
    while connections:
        for number, _events in poller.poll():
            connection, buffer = connections[number]
            chunk = connection.recv(65_536)
            if not chunk:
                poller.unregister(number)
                del connections[number]
                connection.close()
                continue
            buffer += chunk
            while len(buffer) >= request_bytes:
                del buffer[:request_bytes]
                connection.send(reply)
    pipe.send(time.process_time() - begun_s)


class _Echo(asyncio.Protocol):
    def __init__(self, request_bytes: int, reply: bytes, lost: Callable[[], None]) -> None:
        self._request_bytes, self._reply, self._lost = request_bytes, reply, lost
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= self._request_bytes:
            del self._buffer[: self._request_bytes]
            self._transport.write(self._reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


def _serve_asyncio(
    name: str, listener: socket.socket, pipe: Connection, request_bytes: int, reply: bytes
) -> None:
    async def serve() -> float:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        left = _SESSIONS

        def lost() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                over.set()

        server = await loop.create_server(lambda: _Echo(request_bytes, reply, lost), sock=listener)
        begun_s = time.process_time()
        await over.wait()
        spent_s = time.process_time() - begun_s
        server.close()
        return spent_s

    factory = importlib.import_module("uvloop").new_event_loop if name == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        pipe.send(runner.run(serve()))
