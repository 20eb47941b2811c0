"""`settlement/store`: where the log of this deployment was last, for those who look for it when nothing runs.

One line: `embedded`, or the address of the external store without user, password and options. Settlement
writes it when it has redone the log of that store. A copy that was downloaded says `archive`: all of the log is there.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from zexchange.runtime import durable
from zexchange.runtime.paths import DataPaths

__all__ = ["ARCHIVE", "EMBEDDED", "mark_copy", "record_store", "recorded_store"]

EMBEDDED = "embedded"
ARCHIVE = "archive"


def record_store(paths: DataPaths, url: str) -> None:
    """Writes down that the log is in the store at `url`, "" for the embedded one. Raises OSError."""
    place = _without_secrets(url) if url else EMBEDDED
    if recorded_store(paths) != place:
        durable.write_file(_file(paths), [place.encode() + b"\n"])


def mark_copy(paths: DataPaths) -> None:
    """Writes down that this is a copy without a store. Raises OSError."""
    if recorded_store(paths) != ARCHIVE:
        durable.write_file(_file(paths), [ARCHIVE.encode() + b"\n"])


def recorded_store(paths: DataPaths) -> str | None:
    """What was written down last, None if nothing was. Raises OSError."""
    try:
        return _file(paths).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _file(paths: DataPaths) -> Path:
    return paths.settlement / "store"


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
