"""Cutting a torn last command off the store's append-only file.

A kill in the middle of a write can leave the beginning of one command at the end of the file. Nobody was told
that this command succeeded, because the store answers after the write and its fdatasync; but with
`aof-load-truncated no` the store rightly refuses to start, since it cannot know that. This module does what
an operator would do with the store's own checker, and no more:

* only the newest incremental file is touched, and only if everything before the tail is whole commands;
* only a proper prefix of one command, no longer than the exchange's longest, is cut: any other damage (zero
  padding, flipped bytes, an open transaction) is left alone and reported;
* the bytes cut off are kept, synced, in `store/torn/<file>.<offset>` before the file is shortened: file and
  tail together are the original.

Whether acknowledged data is missing is decided afterwards by the journal: its chain must still reach the last
checkpoint and snapshot.

Cost: one pass over the file's command headers through a memory map; payloads are skipped.
"""

import mmap
import os
from pathlib import Path
from typing import NamedTuple

from zexchange.limits import LOG_BATCH_BYTES_MAX
from zexchange.runtime.paths import private_dir

_MANIFEST = "appendonlydir/appendonly.aof.manifest"
_HEADER_BYTES_MAX = 32
"""Longest `*<count>` or `$<length>` line: a u64 has 20 digits."""


TORN_BYTES_MAX = 2 * LOG_BATCH_BYTES_MAX
"""Longest tail that is cut: the longest command is one batch of the log and a few words."""


class Damaged(ValueError):
    """The file is damaged in a way that must not be repaired here; the message says how and where."""


class Repair(NamedTuple):
    """What was cut: `cut_bytes` from `offset` of `file`, kept in `kept`."""

    file: Path
    offset: int
    cut_bytes: int
    kept: Path


class _Swallowed(Exception):
    """What follows an incomplete command parses as whole commands up to the end of the file."""


class _Incomplete(Exception):
    """The file ends inside a command that is well-formed so far."""


def repair_torn_tail(store_dir: Path) -> Repair | None:
    """Cut an incomplete last command; None if the newest file ends with a whole command.

    Raises Damaged for any other damage and OSError when a file cannot be read or written. The store must not
    be running.
    """
    file = newest_incremental_file(store_dir)
    size = file.stat().st_size
    offset = whole_commands_end(file)
    if offset == size:
        return None
    if size - offset > TORN_BYTES_MAX:
        raise Damaged(f"{file} is damaged at byte {offset:,}: no command is as long as what follows")
    kept = _keep_tail(store_dir, file, offset)
    with file.open("r+b") as writable:
        writable.truncate(offset)
        os.fsync(writable.fileno())
    return Repair(file, offset, size - offset, kept)


def newest_incremental_file(store_dir: Path) -> Path:
    """The file that the store appends to, from its manifest. Raises Damaged."""
    manifest = store_dir / _MANIFEST
    newest = (-1, "")
    for line in manifest.read_text(encoding="utf-8").splitlines():
        words = line.split()
        fields = dict(zip(words[::2], words[1::2], strict=False))
        if fields.get("type") == "i" and "file" in fields:
            newest = max(newest, (int(fields.get("seq", "0")), fields["file"]))
    if newest[0] < 0:
        raise Damaged(f"{manifest} names no incremental file")
    if "/" in newest[1]:
        raise Damaged(f"{manifest} names a file outside its folder")
    return manifest.parent / newest[1]


def whole_commands_end(file: Path) -> int:
    """Offset of the end of the last whole command. Raises Damaged if what precedes or follows it is not what
    a torn write leaves."""
    if file.stat().st_size == 0:
        return 0
    with file.open("rb") as readable, mmap.mmap(readable.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = 0
        while position < len(data):
            try:
                position = _command_end(data, position, file)
            except _Incomplete:
                _check_nothing_swallowed(data, position, file)
                break
        return position


def _check_nothing_swallowed(data: mmap.mmap, start: int, file: Path) -> None:
    """Raise Damaged if whole commands follow inside what looks like an incomplete one: then its length was
    altered."""
    begin = data.find(b"\r\n*", max(start, len(data) - TORN_BYTES_MAX))
    while begin >= 0:
        position = begin + 2
        try:
            while position < len(data):
                position = _command_end(data, position, file)
            raise _Swallowed
        except _Swallowed:
            raise Damaged(
                f"{file} is damaged at byte {start:,}: a length there covers whole commands that follow"
            ) from None
        except (Damaged, _Incomplete):
            begin = data.find(b"\r\n*", begin + 1)


def _command_end(data: mmap.mmap, start: int, file: Path) -> int:
    count, position = _header(data, start, b"*", file)
    for index in range(count):
        length, position = _header(data, position, b"$", file)
        end = position + length
        if index == 0 and data[position:end].upper() in (b"MULTI", b"EXEC"):
            raise Damaged(f"{file} holds a transaction at byte {start:,}; the exchange never writes one")
        if end + 2 > len(data):
            if end < len(data) and data[end : end + 1] != b"\r":
                raise Damaged(f"{file} is damaged at byte {end:,}: no end of line")
            raise _Incomplete
        if data[end : end + 2] != b"\r\n":
            raise Damaged(f"{file} is damaged at byte {end:,}: no end of line")
        position = end + 2
    return position


def _header(data: mmap.mmap, start: int, marker: bytes, file: Path) -> tuple[int, int]:
    """The number of a `*` or `$` line at `start`, and the offset behind it."""
    line = data[start : start + _HEADER_BYTES_MAX]
    if not line:
        raise _Incomplete
    end = line.find(b"\r\n")
    number = line[1:end] if end >= 0 else line[1:].removesuffix(b"\r")
    if line[:1] != marker or not (number.isdigit() or (not number and end < 0)):
        raise Damaged(
            f"{file} is damaged at byte {start:,}: "
            f"{bytes(line[:8])!r} where {marker.decode()!r} and a number should be"
        )
    if end >= 0:
        return int(number), start + end + 2
    if start + len(line) < len(data):
        raise Damaged(f"{file} is damaged at byte {start:,}: a number without end")
    raise _Incomplete


def _keep_tail(store_dir: Path, file: Path, offset: int) -> Path:
    folder = store_dir / "torn"
    private_dir(folder)
    kept = folder / f"{file.name}.{offset}"
    with file.open("rb") as readable:
        readable.seek(offset)
        tail = readable.read()
    with kept.open("wb") as writable:
        writable.write(tail)
        writable.flush()
        os.fsync(writable.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return kept
