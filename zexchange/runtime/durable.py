"""Files that are either there completely or not at all, also after a power cut.

The one way to write such a file: temporary name in the same folder, fsync, rename, fsync of the folder.
Without the last step the rename itself may be lost although the data are on disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["TEMPORARY_SUFFIX", "remove_leftovers", "sync_folder", "write_file"]

TEMPORARY_SUFFIX = ".tmp"


def write_file(path: Path, parts: Iterable[bytes], *, mode: int = 0o644) -> None:
    """Writes `parts` one after the other as the file `path`, replacing an older one; durable when it returns.

    Raises OSError; then the old file, or none, is at `path`, and at most a file with `TEMPORARY_SUFFIX`
    beside it.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> list[Path]:
    """Removes what writes that never finished have left in `folder`; returns the removed paths."""
    leftovers = sorted(folder.glob("*" + TEMPORARY_SUFFIX)) if folder.is_dir() else []
    for path in leftovers:
        path.unlink()
    return leftovers
