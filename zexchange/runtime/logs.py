"""Logging: JSON lines into the process's file, plain text on the terminal.

A line has `ts` (RFC 3339, UTC, microseconds), `level`, `process`, `event` (the message) and whatever the
caller passed as `extra={"zx": {...}}`. Nothing of the matching path logs per order.

A record that cannot be written (full disk, closed terminal) is dropped and counted, and never disturbs the
process; when writing works again, one line says how many are missing.
"""

import logging
import os
import shutil
import sys
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
ROOT = "zexchange"


class JsonFormatter(logging.Formatter):
    """One JSON object per record."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="microseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "process": self._process,
            "event": record.getMessage(),
        }
        extra = getattr(record, "zx", None)
        if isinstance(extra, dict):
            line.update(extra)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return self._encoder.encode(line).decode()


class TextFormatter(logging.Formatter):
    """Time, level when it is worse than info, and the message."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        text = f"{clock} {level}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class DroppingHandler(logging.Handler, ABC):
    """Writes records with `write()`; those that fail are dropped and counted, and told of when it works
    again."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0
        self._reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if self.dropped:
                lost = f"log records that could not be written: {self.dropped} ({self._reason})"
                self.write(self.format(logging.LogRecord(ROOT, logging.WARNING, "", 0, lost, None, None)))
                self.dropped = 0
            self.write(text)
        except Exception as error:  # whatever it is: nobody's work may end because it cannot be described
            self.dropped += 1
            self._reason = str(error) or type(error).__name__

    @abstractmethod
    def write(self, text: str) -> None:
        """Write one record, a newline behind it. Raises OSError if any of it could not be written."""


class FileHandler(DroppingHandler):
    """Appends to a file, one write() a record, and rotates it: FILE, FILE.1, ... FILE.<kept>."""

    def __init__(self, path: Path, max_bytes: int, kept: int) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._torn = False
        self._size = 0
        self._descriptor = -1
        self._open()  # here, so that a folder that cannot be written is told at the start

    def write(self, text: str) -> None:
        line = text.encode("utf-8", "replace") + b"\n"
        if self._descriptor >= 0 and self._size and self._size + len(line) > self._max_bytes:
            self._close()
            self._rotate()
        if self._descriptor < 0:
            self._open()
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self._descriptor, line)
        except OSError:
            self._close()  # opened anew for the next record: the file may have been moved
            raise
        self._size += written
        self._torn = written < len(line)
        if self._torn:
            raise OSError(f"only {written} of {len(line)} bytes were written")

    def close(self) -> None:
        self._close()
        super().close()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._size = os.fstat(self._descriptor).st_size

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _rotate(self) -> None:
        for number in range(self._kept, 0, -1):
            older = _numbered(self._path, number - 1) if number > 1 else self._path
            if older.exists():
                older.replace(_numbered(self._path, number))
        self._torn = False


class TerminalHandler(DroppingHandler):
    """Writes to stderr."""

    def write(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def log_to_file(process: str, path: Path, level: str, max_file_bytes: int, kept_files: int) -> logging.Logger:
    """Send everything under the logger `zexchange`, `gateway` and warnings of others to `path`; return the
    process's logger. Raises OSError if the file cannot be opened."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = FileHandler(path, max_file_bytes, kept_files)
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in (ROOT, "gateway"):
        logging.getLogger(name).setLevel(LEVELS[level])
    logging.captureWarnings(True)
    return logging.getLogger(f"{ROOT}.{process}")


def log_to_terminal(level: str = "info") -> None:
    """Also write text to stderr: for the one process that owns the terminal."""
    handler = TerminalHandler()
    handler.setFormatter(TextFormatter())
    handler.setLevel(LEVELS[level])
    logging.getLogger(ROOT).addHandler(handler)


def begin_output(path: Path) -> None:
    """Keep what earlier processes wrote there as FILE.1, in place of what was there; nobody may be writing.

    Raises nothing: a file that cannot be moved is continued.
    """
    try:
        if path.stat().st_size:
            path.replace(_numbered(path, 1))
    except OSError:
        pass


def bound_output(path: Path, max_bytes: int) -> bool:
    """Empty the file if it is longer than `max_bytes`, its content moved to FILE.1; True if it was.

    For a file that a process has open for appending: the file stays the same and only becomes shorter. What
    is written while it is copied may be lost; all of it is if there is no room for the copy.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
        try:
            shutil.copyfile(path, _numbered(path, 1))
        except OSError:
            _numbered(path, 1).unlink(missing_ok=True)  # half a copy only takes room
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def tail(path: Path, lines: int, since: int = 0, max_bytes: int = 16_384) -> list[str]:
    """The last lines of a log file from offset `since` on, JSON lines shortened to level and event.

    Empty if there is no file. A file that is shorter than `since` was rotated and is read from its start.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(since if since <= size else 0, size - max_bytes))
            raw = file.read(max_bytes).decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []
    return [_readable(line) for line in raw if line.strip()]


def _readable(line: str) -> str:
    try:
        record = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return line
    if not isinstance(record, dict) or "event" not in record:
        return line
    text = f"{record.get('level', '')}: {record['event']}"
    if "error" in record:
        text += "\n    " + str(record["error"]).strip().replace("\n", "\n    ")
    return text
