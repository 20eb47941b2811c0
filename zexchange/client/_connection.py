"""The shell around the core: one socket, one thread, the clock, and the lock that callers wait on.

All socket work happens in one background thread, except that a caller who submits something tries to send it at once,
which saves the hand-over. Nothing here knows what a request means.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from zexchange.client._core import Core, Gap, Instant, Phase, Request
from zexchange.client.errors import ConnectFailed, ZexchangeError
from zexchange.wire.messages import ExecutionReport

__all__ = ["Clock", "Connection", "Connector", "tcp_connector"]

RECEIVE_BYTES = 256 * 1024
GRACE_MS = 100
"""How long after its deadline a request still waits for the thread, which may hold the answer already."""

R = TypeVar("R", bound=Request)
T = TypeVar("T")

Connector = Callable[[], socket.socket]
"""Makes one connection, or raises OSError. Tests hand in one end of a socket pair."""


class Clock:
    """The system's clocks; tests hand in another."""

    def now(self) -> Instant:
        """This moment."""
        return Instant(time.monotonic_ns() // 1_000_000, time.time_ns())


def tcp_connector(host: str, port: int, timeout_ms: int) -> Connector:
    """Connections to an address."""

    def connect() -> socket.socket:
        connection = socket.create_connection((host, port), timeout=timeout_ms / 1000)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an order must not wait for company
        return connection

    return connect


class Connection:
    """Keeps one session alive in a background thread until it is closed."""

    def __init__(
        self,
        core: Core,
        connector: Connector,
        clock: Clock,
        on_events: Callable[[list[ExecutionReport | Gap]], None],
    ) -> None:
        """`on_events` is called under the lock, before any later answer is handed out: it must not wait."""
        self._core = core
        self._connector = connector
        self._clock = clock
        self._on_events = on_events
        # Guards core, socket and unsent bytes. Notified whenever a request may be done or the phase changed.
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._unsent = b""
        self._closing = False
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._jitter = random.Random()
        self._pid = os.getpid()
        self._connecting = False
        self._thread = threading.Thread(target=self._run, name="zexchange-client", daemon=True)
        self._thread.start()

    def wait_ready(self) -> None:
        """Return when the first session is ready. Raises ZexchangeError as soon as the first try has failed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._core.phase in (Phase.READY, Phase.ENDED) or self._core.attempts > 0
            )
            if self._core.phase is not Phase.READY:
                raise self._core.failure or ConnectFailed("the client was closed")

    def start(self, make: Callable[[Core, Instant], R]) -> R:
        """Make a request in the core and send it, now or when there is a connection.

        Raises ZexchangeError in a process that was forked off: it has neither the thread nor a session of its own.
        """
        self._check_process()
        with self._changed:
            request = make(self._core, self._clock.now())
            self._send()
        self._wake()
        return request

    def wait(self, request: R) -> R:
        """Return the request when it is done. Raises its error."""
        with self._changed:
            while not request.done:
                left_ms = request.deadline_ms + GRACE_MS - self._clock.now().mono_ms
                if left_ms > 0:
                    self._changed.wait(left_ms / 1000)
                else:  # the thread is held up, perhaps by a connection that takes its time
                    self._core.expire(self._clock.now())
        if request.error is not None:
            raise request.error
        return request

    def read(self, look: Callable[[Core], T]) -> T:
        """Look at the core under the lock. Raises ZexchangeError like start()."""
        self._check_process()
        with self._changed:
            return look(self._core)

    def poke(self) -> None:
        """Have the background thread look at the clock again."""
        self._wake()

    def close(self) -> None:
        """End the session and the thread. Requests that wait fail."""
        if os.getpid() != self._pid:
            return  # the session is the parent's, and so may be the lock
        with self._changed:
            if not self._closing:
                self._closing = True
                self._core.close(self._clock.now())
                self._send()
                self._changed.notify_all()
            connecting = self._connecting
        self._wake()
        if not connecting:  # else it may take seconds; the thread ends by itself after that
            self._thread.join()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ZexchangeError("the client was made before a fork; make one in each process")

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_receiver, selectors.EVENT_READ)
                while not self._ended():
                    self._turn(selector)
        except BaseException as error:
            # A bug: nobody may wait for ever because of it.
            with self._changed:
                self._core.fail(ZexchangeError(f"the client's thread died: {error!r}"))
            raise
        finally:
            with self._changed:
                self._drop_socket()
                self._closing = True
                self._changed.notify_all()
            self._wake_receiver.close()
            self._wake_sender.close()

    def _turn(self, selector: selectors.BaseSelector) -> None:
        """One turn of the loop: connect if due, wait for something, handle it."""
        with self._changed:
            at = self._clock.now()
            self._connecting = self._core.phase is Phase.WAITING and at.mono_ms >= self._core.connect_at_ms
        if self._connecting:
            self._connect()
        with self._changed:
            self._connecting = False
            connection = self._socket
            deadline_ms = self._core.next_deadline_ms()
            at = self._clock.now()
            if connection is not None:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
                selector.register(connection, events)
        timeout_s = None if deadline_ms is None else max(0, deadline_ms - at.mono_ms) / 1000
        try:
            ready = {key.fileobj for key, _ in selector.select(timeout_s)}
        finally:
            if connection is not None:
                selector.unregister(connection)
        if self._wake_receiver in ready:
            self._drain_wakes()
        with self._changed:
            if connection is not None and connection in ready:
                self._receive(connection)
            self._guard(lambda: self._core.tick(self._clock.now()))
            # Under the lock: who gets an answer must find the events that came before it.
            reports = self._core.take_events()
            self._send()  # behind that: an event may have to wait for the answer to a question
            if reports:
                self._on_events(reports)
            self._changed.notify_all()

    def _connect(self) -> None:
        """Not under the lock: it may take seconds."""
        try:
            connection = self._connector()
        except OSError as error:
            with self._changed:
                at = self._clock.now()
                self._core.lost(f"no connection: {error}", at, self._jitter.random())
            return
        connection.setblocking(False)
        with self._changed:
            if self._closing:
                connection.close()
                return
            self._socket = connection
            self._core.connected(self._clock.now())

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(f"the connection broke: {error}")
            return
        if not data:
            self._lose("the exchange closed the connection")
            return
        self._guard(lambda: self._core.receive(data, self._clock.now()))

    def _guard(self, step: Callable[[], None]) -> None:
        """Run a step of the core; its errors mean that the connection is to be closed."""
        try:
            step()
        except ZexchangeError as error:
            self._lose(error)

    def _send(self) -> None:
        """Send what the core has, as far as the socket takes it; the rest when it is writable again."""
        self._unsent += self._core.take_output()
        connection = self._socket
        if connection is None or not self._unsent:
            return
        try:
            sent = connection.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            # The connection is broken. What the exchange said before may still be unread, so the reader finds out.
            self._unsent = b""
            return
        self._unsent = self._unsent[sent:]

    def _lose(self, why: ZexchangeError | str) -> None:
        self._unsent += self._core.take_output()  # a Terminate, perhaps: best effort
        if self._socket is not None and self._unsent:
            try:
                self._socket.send(self._unsent)
            except OSError:
                pass  # it is being closed anyway
        self._drop_socket()
        self._core.lost(why, self._clock.now(), self._jitter.random())

    def _drop_socket(self) -> None:
        self._unsent = b""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ended(self) -> bool:
        with self._changed:
            return self._closing or self._core.phase is Phase.ENDED

    def _wake(self) -> None:
        try:
            self._wake_sender.send(b"w")
        except (BlockingIOError, OSError):
            pass  # a wake-up is under way already, or the thread has ended

    def _drain_wakes(self) -> None:
        try:
            while self._wake_receiver.recv(4096):
                pass
        except (BlockingIOError, InterruptedError):
            pass
