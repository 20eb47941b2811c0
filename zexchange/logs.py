"""Logging: JSON lines into the process's file, plain text on the terminal.

A line has `ts` (RFC 3339, UTC, microseconds), `level`, `process`, `event` (the message) and whatever the
caller passed as `extra={"zx": {...}}`. Nothing of the matching path logs per order.
"""

import logging
import logging.handlers
import sys
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


def log_to_file(process: str, path: Path, level: str, max_file_bytes: int, kept_files: int) -> logging.Logger:
    """Send everything under the logger `zexchange`, `gateway` and warnings of others to `path`; return the
    process's logger."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=max_file_bytes, backupCount=kept_files, encoding="utf-8"
    )
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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter())
    handler.setLevel(LEVELS[level])
    logging.getLogger(ROOT).addHandler(handler)


def tail(path: Path, lines: int, since: int = 0, max_bytes: int = 16_384) -> list[str]:
    """The last lines of a log file from offset `since` on, JSON lines shortened to level and event.

    Empty if there is no file. A file that is shorter than `since` was rotated and is read from its start.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(since if since <= size else 0, size - max_bytes))
            raw = file.read().decode("utf-8", "replace").splitlines()[-lines:]
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
