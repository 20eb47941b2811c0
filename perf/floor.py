"""The floor: what the four unavoidable steps of an acknowledged order cost on this machine.

    client ──TCP──▶ echo      one loopback round trip, an order's frame there and a report's frame back
    verify                    one libsodium Ed25519 verification of an order's signed bytes, called from C
    dealer ──ipc──▶ router    one ZeroMQ round trip with the same sizes
    append ──unix─▶ store     one durable append of a one-record batch to the embedded store

Each step is timed alone, from one process, with its peer in another. The floor of a percentile is the sum of
the four.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import zmq
from nacl.signing import SigningKey

from perf.histogram import samples_of
from perf.machine import describe_machine
from perf.results import FloorParts, Machine, Percentiles
from zexchange.config import Config, StoreSection
from zexchange.frames import verify_frames
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.store import EmbeddedStore
from zexchange.wire.messages import (
    Command,
    CommandKind,
    ExecutionReport,
    OrderType,
    Side,
    SignedBatch,
    TimeInForce,
)
from zexchange.wire.signing import sign_batch

_DEPLOYMENT_ID = bytes(32)
_BATCH_OVERHEAD_BYTES = 80 + 68
_WARM_UP = 200

Fsync: TypeAlias = Literal["always", "everysec"]


class Floor(msgspec.Struct, frozen=True):
    """The four steps and their sum, in microseconds."""

    fsync: str
    tcp: Percentiles
    verify: Percentiles
    bus: Percentiles
    append: Percentiles
    floor_p50_us: float
    floor_p99_us: float
    machine: Machine


def order_frame(key: SigningKey, nonce: int) -> bytes:
    """A signed batch of one limit order, as a trader sends it."""
    command = Command(
        kind=CommandKind.NEW,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.GTC,
        market_id=1,
        client_order_id=nonce,
        price_ticks=5_000_000,
        qty_lots=10,
    )
    return sign_batch(SignedBatch(nonce=nonce, commands=[command]), key, _DEPLOYMENT_ID)


def measure_floor(*, fsync: Fsync = "always", rounds: int = 2_000) -> Floor:
    """Measure all four steps `rounds` times each. `fsync` is `always` or `everysec`."""
    request = order_frame(SigningKey.generate(), 1)
    reply = ExecutionReport().encode()
    tcp = _measure_tcp(request, reply, rounds)
    verify = _measure_verify(request, rounds)
    bus = _measure_bus(request, reply, rounds)
    append = _measure_append(len(request) + _BATCH_OVERHEAD_BYTES, fsync, rounds)
    steps = (tcp, verify, bus, append)
    return Floor(
        fsync=fsync,
        tcp=tcp,
        verify=verify,
        bus=bus,
        append=append,
        floor_p50_us=sum(step.p50_us for step in steps),
        floor_p99_us=sum(step.p99_us for step in steps),
        machine=describe_machine(),
    )


def floor_parts(floors: Sequence[Floor]) -> FloorParts:
    """The four steps, p50 of each: the median over several measurements."""

    def middle(p50s_us: list[float]) -> float:
        return statistics.median(p50s_us)

    return FloorParts(
        tcp_us=middle([floor.tcp.p50_us for floor in floors]),
        verify_us=middle([floor.verify.p50_us for floor in floors]),
        bus_us=middle([floor.bus.p50_us for floor in floors]),
        append_us=middle([floor.append.p50_us for floor in floors]),
    )


def _timed(step: Callable[[], object], rounds: int) -> Percentiles:
    for _ in range(min(_WARM_UP, rounds)):
        step()
    samples_ns = []
    for _ in range(rounds):
        started_ns = time.perf_counter_ns()
        step()
        samples_ns.append(time.perf_counter_ns() - started_ns)
    return samples_of(samples_ns)


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        chunk = connection.recv(length - len(received))
        if not chunk:
            raise ConnectionError("the peer closed the connection")
        received += chunk
    return received


def _tcp_peer(listener: socket.socket, request_bytes: int, reply: bytes) -> None:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while True:
            _receive_exactly(connection, request_bytes)
            connection.sendall(reply)
    except ConnectionError:
        pass


def _measure_tcp(request: bytes, reply: bytes, rounds: int) -> Percentiles:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        _peer_process(_tcp_peer, listener, len(request), reply),
        socket.create_connection(listener.getsockname()) as connection,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def round_trip() -> None:
            connection.sendall(request)
            _receive_exactly(connection, len(reply))

        return _timed(round_trip, rounds)


def _measure_verify(request: bytes, rounds: int) -> Percentiles:
    frames = [request]
    if verify_frames(frames, _DEPLOYMENT_ID) != [True]:
        raise RuntimeError("the signature made for the measurement does not verify")
    return _timed(lambda: verify_frames(frames, _DEPLOYMENT_ID), rounds)


def _bus_peer(address: str, reply: bytes, stop: bytes) -> None:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    router.bind(address)
    while True:
        identity, message = router.recv_multipart()
        if message == stop:
            break
        router.send_multipart([identity, reply])
    context.destroy(linger=0)


def _measure_bus(request: bytes, reply: bytes, rounds: int) -> Percentiles:
    stop = b"stop"
    with tempfile.TemporaryDirectory(prefix="zx-floor-") as folder:
        address = f"ipc://{folder}/bus"
        with _peer_process(_bus_peer, address, reply, stop):
            context = zmq.Context()
            dealer = context.socket(zmq.DEALER)
            dealer.linger = 1000
            dealer.connect(address)

            def round_trip() -> None:
                dealer.send(request)
                dealer.recv()

            try:
                return _timed(round_trip, rounds)
            finally:
                dealer.send(stop)
                context.destroy(linger=1000)


class _peer_process:
    """A forked peer that ends with the block."""

    def __init__(self, target: Callable[..., None], *args: object) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=target, args=args, daemon=True)

    def __enter__(self) -> None:
        self._process.start()

    def __exit__(self, *_: object) -> None:
        self._process.join(timeout=2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _measure_append(payload_bytes: int, fsync: Fsync, rounds: int) -> Percentiles:
    payload = os.urandom(payload_bytes)
    command = b"*5\r\n$4\r\nXADD\r\n$1\r\nf\r\n$1\r\n*\r\n$1\r\nb\r\n$%d\r\n%s\r\n"
    request = command % (payload_bytes, payload)
    with tempfile.TemporaryDirectory(prefix="zx-floor-") as folder:
        paths = DataPaths(Path(folder))
        paths.create()
        store = EmbeddedStore(paths, Config(store=StoreSection(fsync=fsync)))
        store.start()
        try:
            store.wait_ready()
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(paths.store_socket))

                def append() -> None:
                    connection.sendall(request)
                    reply = connection.recv(256)
                    if not reply.startswith(b"$"):
                        raise RuntimeError(f"the store refused the append: {reply!r}")

                return _timed(append, rounds)
        finally:
            store.stop()
