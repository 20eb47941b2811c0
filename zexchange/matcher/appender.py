"""Appends to the log without waiting for the store: what lets one thread verify orders while the disk is busy.

    begin ──request──▶ store's socket ──▶ exactly the reply that means yes ──▶ on_landed
                                      └─▶ anything else, or nothing in time ──▶ a thread settles it

One batch is in flight at a time. The way without trouble is one write and one read on the connection that the
writer has made. Trouble is settled by `LogWriter.append`, which may take as long as the operator allows, in a
thread of its own, so that sessions are served meanwhile. Over TLS every append goes that way.
"""

from __future__ import annotations

import os
import select
import ssl
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from zexchange.log.writer import LogWriter
from zexchange.runtime.reactor import Reactor

_REPLY_BYTES_MAX = 4_096
"""An error reply is a line; what is longer is no reply of a store."""


class _InFlight(NamedTuple):
    first_record_no: int
    batch: bytes
    expected_reply: bytes
    deadline_ms: int


class Appender:
    """One batch at a time into one shard's log. Lives in the thread of its reactor."""

    def __init__(
        self, reactor: Reactor, writer: LogWriter, client: Any, timeout_ms: int, on_landed: Callable[[], None]
    ) -> None:
        """`client`: the writer's, from `one_connection`; nobody else uses its connection from now on.

        `on_landed` is called, from the reactor, when the store has the batch. What goes wrong for good
        (`Fenced`, `StoreUnavailable`, `StoreRefused`) is raised there too, out of `Reactor.poll`.
        """
        self._reactor = reactor
        self._writer = writer
        self._connection = client.connection
        self._timeout_ms = timeout_ms
        self._on_landed = on_landed
        self._in_flight: _InFlight | None = None
        self._unsent = memoryview(b"")
        self._reply = b""
        self._fd = -1
        self._writing = False
        self._in_doubt = False
        """The connection broke: what the store holds now is to be looked at before it gets anything."""
        self._settler: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._settled_fd, self._settled_write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        reactor.watch(self._settled_fd, self._on_settled)
        self._watch()

    @property
    def fd(self) -> int:
        """The store's socket while nothing is in flight, for somebody else who appends; -1 if he must not."""
        return self._fd if self._in_flight is None else -1

    def landed_elsewhere(self, first_record_no: int, batch: bytes) -> None:
        """Somebody else has appended this batch over `fd`: the newest of the log, as far as we know."""
        self._writer.landed(first_record_no, batch)

    def settle(self, first_record_no: int, batch: bytes, reply: bytes) -> None:
        """Somebody else has sent this batch over `fd`, and `reply` is not the one that means yes; `on_landed` says
        when the store has it."""
        assert self._in_flight is None, "one batch is in flight at a time"
        self._in_flight = _InFlight(first_record_no, batch, b"", 0)
        refused = reply.startswith(b"-") and reply.endswith(b"\r\n")
        self._settle(in_doubt=not refused)

    @property
    def busy(self) -> bool:
        """A batch is in flight."""
        return self._in_flight is not None

    def begin(self, first_record_no: int, batch: bytes, now_ms: int) -> None:
        """Send one batch; `on_landed` says when the store has it."""
        assert self._in_flight is None, "one batch is in flight at a time"
        request, expected_reply = self._writer.request(first_record_no, batch)
        self._in_flight = _InFlight(first_record_no, batch, expected_reply, now_ms + self._timeout_ms)
        self._reply = b""
        if self._fd < 0:
            self._settle(in_doubt=self._in_doubt)
            return
        self._unsent = memoryview(request)
        self._send()

    def deadline_ms(self) -> int | None:
        """When `tick` is needed at the latest."""
        if self._in_flight is None or self._settler is not None:
            return None
        return self._in_flight.deadline_ms

    def tick(self, now_ms: int) -> None:
        """Give up waiting for a reply that is overdue: the tip of the log will tell."""
        deadline_ms = self.deadline_ms()
        if deadline_ms is not None and now_ms >= deadline_ms:
            self._settle(in_doubt=True)

    def close(self) -> None:
        """Wait for what is being settled, which ends when the process is asked to stop; give up the rest."""
        if self._settler is not None:
            self._settler.join()
            self._settler = None
        self._unwatch()
        self._reactor.forget(self._settled_fd)
        os.close(self._settled_fd)
        os.close(self._settled_write_fd)

    def _watch(self) -> None:
        """Watch the connection's socket, which is another one after every reconnection."""
        sock = self._connection._sock
        if sock is not None and not isinstance(sock, ssl.SSLSocket):
            self._fd = sock.fileno()
            self._reactor.watch(self._fd, self._on_store)

    def _unwatch(self) -> None:
        if self._fd >= 0:
            self._reactor.forget(self._fd)
            self._fd = -1
            self._writing = False

    def _send(self) -> None:
        try:
            # Not through the socket object: one with a timeout asks poll() before every call.
            self._unsent = self._unsent[os.write(self._fd, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._settle(in_doubt=True)
            return
        if bool(self._unsent) != self._writing:
            self._writing = bool(self._unsent)
            self._reactor.change(self._fd, select.EPOLLIN | (select.EPOLLOUT if self._writing else 0))

    def _on_store(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._send()
        if not events & ~select.EPOLLOUT or self._fd < 0:
            return
        try:
            data = os.read(self._fd, _REPLY_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self._reply += data
        in_flight = self._in_flight
        if in_flight is None:
            self._lost()  # nothing was asked
        elif self._reply == in_flight.expected_reply:
            self._landed(in_flight)
        elif self._reply.startswith(b"-") and self._reply.endswith(b"\r\n"):
            self._settle(in_doubt=False)
        elif not in_flight.expected_reply.startswith(self._reply) and not self._reply.startswith(b"-"):
            self._settle(in_doubt=True)

    def _lost(self) -> None:
        """The connection is gone or out of step: with the next batch the tip is looked at first."""
        if self._in_flight is not None:
            self._settle(in_doubt=True)
        else:
            self._unwatch()
            self._connection.disconnect()
            self._in_doubt = True

    def _landed(self, in_flight: _InFlight) -> None:
        self._writer.landed(in_flight.first_record_no, in_flight.batch)
        self._in_flight = None
        self._on_landed()

    def _settle(self, *, in_doubt: bool) -> None:
        """Have a thread find out, or send again; `_on_settled` goes on from there."""
        in_flight = self._in_flight
        assert in_flight is not None
        self._unwatch()
        self._unsent = memoryview(b"")
        if in_doubt:
            self._connection.disconnect()

        def settle() -> None:
            try:
                self._writer.append(in_flight.first_record_no, in_flight.batch, in_doubt=in_doubt)
            except BaseException as error:
                self._failure = error
            os.write(self._settled_write_fd, b"s")

        self._settler = threading.Thread(target=settle, name="log-settler", daemon=True)
        self._settler.start()

    def _on_settled(self, _events: int) -> None:
        os.read(self._settled_fd, 16)
        assert self._settler is not None
        self._settler.join()
        self._settler = None
        if self._failure is not None:
            raise self._failure
        self._in_flight = None
        self._in_doubt = False
        self._watch()
        self._on_landed()
