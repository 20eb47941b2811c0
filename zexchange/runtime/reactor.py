"""One thread's descriptors and what to do when they are ready: epoll, and nothing else.

A process that plays several roles in one thread gives all of them the same reactor. Handlers get the events
(`select.EPOLLIN` and so on) and must not block.
"""

from __future__ import annotations

import select
from collections.abc import Callable

Handler = Callable[[int], None]


class Reactor:
    """Not thread-safe. Level-triggered."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}

    def watch(self, fd: int, handler: Handler, events: int = select.EPOLLIN) -> None:
        """Call `handler` whenever one of `events` holds for `fd`, which must not be watched yet."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Watch `fd` for other events."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching; before `fd` is closed."""
        self._epoll.unregister(fd)
        del self._handlers[fd]

    def poll(self, wait_ms: int) -> None:
        """Wait for at most `wait_ms` (0: not at all) and call the handlers of what is ready."""
        handlers = self._handlers
        for fd, events in self._epoll.poll(wait_ms / 1000 if wait_ms > 0 else 0):
            # A handler before it in this round may have closed it.
            handler = handlers.get(fd)
            if handler is not None:
                handler(events)

    def fileno(self) -> int:
        """The epoll descriptor, for somebody who polls in our place and calls `dispatch`."""
        return self._epoll.fileno()

    def dispatch(self, fd: int, events: int) -> None:
        """Call the handler of `fd`, if it is still watched."""
        handler = self._handlers.get(fd)
        if handler is not None:
            handler(events)

    def close(self) -> None:
        self._epoll.close()
