"""What a process says about itself while it runs: the Python face of csrc/figures.h.

    supervisor   memory = FigureMemory(["matcher-0", "ingress-1"])
    ingress-1    context.figures.add(Figure.SIGNATURES_GOOD, 3)
    web          FigureReader().read() -> {"ingress-1": Figures, ...}, copies of this moment

The memory is anonymous and shared: the supervisor hands a descriptor of it to the process that counts and to the web
process that reads, which cannot write there; and nobody can make it shorter, which would end whoever counts in it.
It is gone with the last of them, and nothing is left in the data folder. A process that nobody supervises counts for
itself.
"""

from __future__ import annotations

import enum
import fcntl
import mmap
import os
from collections.abc import Iterable, Mapping
from typing import Any

from zexchange.native import ffi, lib
from zexchange.runtime.stages import StageTimes

FIGURES_FD_ENV = "ZX_FIGURES_FD"
"""Descriptor of the memory in which this process counts."""
READ_FIGURES_ENV = "ZX_READ_FIGURES"
"""Of the web process: `name=descriptor` of all others, joined by commas."""
READER = "web"


class Figure(enum.IntEnum):
    """In the order of `enum figure`, where each is explained."""

    SIGNATURES_GOOD = 0
    SIGNATURES_BAD = 1
    CONNECTIONS = 2
    CONNECTIONS_REFUSED = 3
    FRAMES_REFUSED = 4
    BATCHES_BUSY = 5
    SLOW_CONSUMERS = 6
    LINK_DROPS = 7
    SESSIONS = 8
    UNVERIFIED_FRAMES = 9
    LINK_BYTES = 10
    UNSENT_BYTES = 11
    QUEUED_FRAMES = 12
    QUEUED_OTHERS = 13
    BATCHES_IN_FLIGHT = 14


assert len(Figure) == lib.FIGURE_COUNT

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_BYTES = -(-ffi.sizeof("figures") // mmap.PAGESIZE) * mmap.PAGESIZE


class Figures:
    """One process's, or a copy of them."""

    def __init__(self, handle: Any = None, keeps: object = None) -> None:
        """`handle`: a `figures *` in memory that `keeps` keeps; None: memory of its own."""
        self.handle: Any = ffi.new("figures *") if handle is None else handle
        """`figures *` for other calls into C; valid as long as this object."""
        self._keeps = keeps
        self.stages = StageTimes(ffi.addressof(self.handle, "stages"), self)

    def set(self, figure: Figure, value: int) -> None:
        """It is so much now."""
        lib.figures_set(self.handle, figure, value)

    def add(self, figure: Figure, more: int = 1) -> None:
        """So many more."""
        lib.figures_add(self.handle, figure, more)

    def __getitem__(self, figure: Figure) -> int:
        return int(self.handle.values[figure])


def own_figures() -> Figures:
    """Those of this process, empty: for others to read, if the supervisor wants them to."""
    text = os.environ.pop(FIGURES_FD_ENV, "")
    if not text:
        return Figures()
    descriptor = int(text)
    memory = mmap.mmap(descriptor, _BYTES)
    os.close(descriptor)
    figures = Figures(ffi.cast("figures *", ffi.from_buffer(memory)), memory)
    lib.figures_begin(figures.handle)
    return figures


class FigureReader:
    """The figures of the other processes, as they are at any moment."""

    def __init__(self) -> None:
        """Takes over what the supervisor has handed to this process; without a supervisor there is nothing to read."""
        self._counted: dict[str, Any] = {}
        for part in filter(None, os.environ.pop(READ_FIGURES_ENV, "").split(",")):
            name, _, descriptor = part.partition("=")
            self.add(name, int(descriptor))

    def add(self, name: str, descriptor: int) -> None:
        """Read this memory, too; the descriptor is closed."""
        memory = mmap.mmap(descriptor, _BYTES, prot=mmap.PROT_READ)
        os.close(descriptor)
        self._counted[name] = ffi.from_buffer(memory)

    def read(self) -> dict[str, Figures]:
        """Copies, by process; without those that have not begun, or count what we do not understand."""
        found = {}
        for name, memory in self._counted.items():
            copy = Figures()
            if lib.figures_read(copy.handle, ffi.cast("figures *", memory)):
                found[name] = copy
        return found


class FigureMemory:
    """Of all processes that count, in the hands of the supervisor."""

    def __init__(self, names: Iterable[str]) -> None:
        """Raises OSError."""
        self._counted: dict[str, int] = {}
        self._read: dict[str, int] = {}
        """The same memory, through descriptors that cannot write."""
        for name in names:
            if not name.startswith(("matcher-", "ingress-")):
                continue
            descriptor = os.memfd_create(f"zexchange-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            self._counted[name] = descriptor
            os.ftruncate(descriptor, _BYTES)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self._read[name] = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)

    def descriptors(self, name: str) -> tuple[int, ...]:
        """What the process is to inherit."""
        if name == READER:
            return tuple(self._read.values())
        return (self._counted[name],) if name in self._counted else ()

    def environment(self, name: str) -> Mapping[str, str]:
        """What it is to be told about that."""
        if name == READER:
            shared = (f"{one}={descriptor}" for one, descriptor in self._read.items())
            return {READ_FIGURES_ENV: ",".join(shared)}
        return {FIGURES_FD_ENV: str(self._counted[name])} if name in self._counted else {}

    def close(self) -> None:
        for descriptor in (*self._counted.values(), *self._read.values()):
            os.close(descriptor)
        self._counted.clear()
        self._read.clear()
