"""Which sessions hear of which report: the Python face of csrc/routes.h. Pure.

A session is known by the slot that `add` gave it; slot `NOBODY` is no session.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zexchange.limits import EXECUTION_REPORT_BYTES
from zexchange.native import ffi, lib

NOBODY: int = lib.ROUTES_NOBODY
REPORT_FRAME_BYTES: int = lib.ROUTES_REPORT_FRAME_BYTES
"""One ExecutionReport with its headers."""


class RoutesFull(RuntimeError):
    """No further session can be added."""


class Routes:
    """The sessions of one matcher. `link` is the caller's number of the link that a session runs over."""

    def __init__(self, accounts_max: int) -> None:
        """`accounts_max`: account ids are below it."""
        out = ffi.new("routes **")
        if lib.routes_create(accounts_max, out) != lib.ZX_OK:
            raise MemoryError("the table of sessions could not be reserved")
        self._handle = ffi.gc(out[0], lib.routes_destroy)
        self._out = memoryview(ffi.buffer(self._handle.out, lib.ROUTES_OUT_BYTES))

    @property
    def handle(self) -> Any:
        """`routes *` for other calls into C; valid as long as this object."""
        return self._handle

    def __len__(self) -> int:
        return int(self._handle.count)

    def add(self, link: int, session_id: int) -> int:
        """A session without an account; returns its slot. Raises RoutesFull."""
        slot = int(lib.routes_add(self._handle, link, session_id))
        if slot == NOBODY:
            raise RoutesFull("no room for another session")
        return slot

    def bind(self, slot: int, account_id: int) -> None:
        """The session hears of the account's reports from now on."""
        lib.routes_bind(self._handle, slot, account_id)

    def remove(self, slot: int) -> None:
        """The session is gone."""
        lib.routes_remove(self._handle, slot)

    def collect(self, events: bytes, origins: Any, first_record_no: int) -> Iterator[tuple[int, memoryview]]:
        """(link, encoded REPORTS entries) for the sessions that hear of these event blocks. A view is valid
        until the next step of the iteration.

        `origins`: the `inbox_origin` of every record, from `Inbox.origins`.
        """
        handle = self._handle
        count = len(events) // EXECUTION_REPORT_BYTES
        start = ffi.from_buffer("uint8_t[]", events)
        done = 0
        while done < count:
            collected = lib.routes_collect(
                handle, start + done * EXECUTION_REPORT_BYTES, count - done, origins, first_record_no
            )
            for index in range(collected.runs):
                run = handle.runs[index]
                yield run.link, self._out[run.offset : run.offset + run.length]
            done += collected.events
