"""Appending without waiting: yes, no, half an answer, a broken connection, nothing in time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes import FakeClock, FakeStore
from zexchange.log.writer import Fenced, LogWriter, Retry
from zexchange.matcher.appender import Appender
from zexchange.runtime.reactor import Reactor

KEY = "zx:{0}:log"


class Connection:
    """What the appender uses of redis-py's connection: its socket, until it is disconnected."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock: socket.socket | None = sock

    def disconnect(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = None


class Bench:
    """An appender whose quick way is a socket pair and whose careful way is a FakeStore."""

    def __init__(self) -> None:
        self.store = FakeStore()
        clock = FakeClock()
        self.writer = LogWriter(self.store, 0, Retry(clock_ms=clock.ms, pause_ms=clock.pause_ms))
        self.writer.take_over(allow_empty=True)
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.connection = Connection(ours)
        self.reactor = Reactor()
        self.landed = 0
        client: Any = type("Client", (), {"connection": self.connection})()
        self.appender = Appender(self.reactor, self.writer, client, 5_000, self._on_landed)

    def _on_landed(self) -> None:
        self.landed += 1

    def poll_until_landed(self, count: int) -> None:
        while self.landed < count:
            self.reactor.poll(1_000)

    def close(self) -> None:
        self.appender.close()
        self.connection.disconnect()
        self.theirs.close()
        self.reactor.close()

    def added(self) -> list[tuple[str, dict[bytes, bytes]]]:
        return [(entry_id, fields) for entry_id, fields in self.store.entries(KEY) if b"b" in fields]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_request_is_one_command_and_only_its_reply_means_yes(bench: Bench) -> None:
    bench.appender.begin(7, b"batch\r\nbytes", 0)
    assert bench.theirs.recv(4096) == (
        b"*5\r\n$4\r\nXADD\r\n$10\r\nzx:{0}:log\r\n$3\r\n1-7\r\n$1\r\nb\r\n$12\r\nbatch\r\nbytes\r\n"
    )
    assert bench.appender.busy
    assert bench.appender.fd == -1
    bench.theirs.send(b"$3\r\n1-")
    bench.reactor.poll(100)
    assert bench.landed == 0
    bench.theirs.send(b"7\r\n")
    bench.poll_until_landed(1)
    assert not bench.appender.busy
    assert bench.appender.fd >= 0


@pytest.mark.parametrize("reply", [b"-OOM command not allowed\r\n", b"-LOADING wait\r\n"])
def test_refusal_is_settled_by_sending_the_same_bytes_again(bench: Bench, reply: bytes) -> None:
    bench.appender.begin(1, b"one", 0)
    bench.theirs.send(reply)
    bench.poll_until_landed(1)
    assert bench.added() == [("1-1", {b"b": b"one"})]


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("trouble", ["closed", "another reply", "timeout"])
def test_doubt_is_settled_by_the_tip(bench: Bench, trouble: str, arrived: bool) -> None:
    bench.appender.begin(1, b"one", 0)
    if arrived:
        bench.store.execute_command("XADD", KEY, "1-1", "b", b"one")
    if trouble == "closed":
        bench.theirs.close()
    elif trouble == "another reply":
        bench.theirs.send(b"$3\r\n1-9\r\n")
    else:
        assert bench.appender.deadline_ms() == 5_000
        bench.appender.tick(4_999)
        assert bench.appender.deadline_ms() == 5_000
        bench.appender.tick(5_000)
    bench.poll_until_landed(1)
    assert bench.added() == [("1-1", {b"b": b"one"})]
    # The connection is gone: the next one goes the careful way, too, and after the tip was read.
    bench.appender.begin(2, b"two", 0)
    bench.poll_until_landed(2)
    assert [entry_id for entry_id, _ in bench.added()] == ["1-1", "1-2"]


def test_store_that_went_away_while_idle_is_looked_at_before_it_gets_more(bench: Bench) -> None:
    bench.appender.begin(1, b"one", 0)
    bench.store.execute_command("XADD", KEY, "1-1", "b", b"one")
    bench.theirs.send(b"$3\r\n1-1\r\n")
    bench.poll_until_landed(1)
    bench.theirs.close()
    bench.reactor.poll(100)
    assert bench.appender.fd == -1
    bench.store.streams[KEY].pop()  # it came back with less
    bench.appender.begin(2, b"two", 0)
    with pytest.raises(Fenced):
        bench.poll_until_landed(2)


def test_batch_that_somebody_else_sent_is_settled_the_same_way(bench: Bench) -> None:
    bench.store.execute_command("XADD", KEY, "1-1", "b", b"one")
    bench.appender.landed_elsewhere(1, b"one")
    bench.appender.settle(2, b"two", b"")
    bench.poll_until_landed(1)
    assert [entry_id for entry_id, _ in bench.added()] == ["1-1", "1-2"]
