"""Log files: what is written, what is dropped when nothing can be, and that they stay small."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zexchange.runtime.logs import (
    FileHandler,
    JsonFormatter,
    TerminalHandler,
    begin_output,
    bound_output,
    tail,
)

FULL = Path("/dev/full")
"""A device on which every write fails as on a full disk."""

needs_full_device = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger that reaches only the handlers that a test gives it."""
    found = logging.getLogger("tests.logs")
    found.propagate = False
    found.setLevel(logging.INFO)
    yield found
    for handler in list(found.handlers):
        found.removeHandler(handler)
        handler.close()


def to_file(logger: logging.Logger, path: Path, max_bytes: int = 1 << 20, kept: int = 2) -> FileHandler:
    handler = FileHandler(path, max_bytes, kept)
    handler.setFormatter(JsonFormatter("matcher-0"))
    logger.addHandler(handler)
    return handler


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@needs_full_device
def test_a_full_disk_drops_records_and_says_so_once_afterwards(
    logger: logging.Logger, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "matcher-0.jsonl"
    path.symlink_to(FULL)
    handler = to_file(logger, path)
    for _ in range(3):
        logger.info("nobody will read this")
    assert handler.dropped == 3
    path.unlink()
    logger.info("there is room again")
    logger.info("and still is")
    notice, *rest = lines(path)
    assert notice["level"] == "warning"
    assert notice["event"] == "log records that could not be written: 3 ([Errno 28] No space left on device)"
    assert [line["event"] for line in rest] == ["there is room again", "and still is"]
    assert capfd.readouterr() == ("", "")


def test_a_terminal_that_is_gone_is_no_reason_for_a_trace(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Gone:
        def write(self, _text: str) -> None:
            raise BrokenPipeError

    logger.addHandler(TerminalHandler())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Gone())
        logger.info("unseen")
    logger.info("seen")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == ["log records that could not be written: 1 (BrokenPipeError)", "seen"]


def test_a_record_that_cannot_be_described_ends_nothing(
    logger: logging.Logger, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "matcher-0.jsonl"
    handler = to_file(logger, path)
    # Handed over directly: the test runner's own handlers would object first.
    handler.handle(logging.LogRecord("tests", logging.INFO, "", 0, "%d orders", ("many",), None))
    logger.info("next")
    assert "log records that could not be written: 1" in lines(path)[0]["event"]
    assert capfd.readouterr() == ("", "")


def test_files_rotate_by_size_and_few_are_kept(logger: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "matcher-0.jsonl"
    to_file(logger, path, max_bytes=1_000, kept=2)
    for number in range(100):
        logger.info("record %d", number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [path.name, path.name + ".1", path.name + ".2"]
    assert all(file.stat().st_size <= 1_000 for file in files)
    kept = [line["event"] for file in reversed(files) for line in lines(file)]
    assert kept == [f"record {number}" for number in range(100 - len(kept), 100)]


def test_a_file_is_continued(logger: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "matcher-0.jsonl"
    path.write_text('{"event": "earlier"}\n', encoding="utf-8")
    to_file(logger, path)
    logger.warning("later")
    assert tail(path, 5) == [": earlier", "warning: later"]


def test_of_what_processes_print_the_previous_run_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.out"
    begin_output(path)
    assert list(tmp_path.iterdir()) == []
    for run in ("first", "second", "third"):
        begin_output(path)
        path.write_text(run, encoding="ascii")
    begin_output(path)
    begin_output(path)  # nothing was printed meanwhile
    assert not path.exists()
    assert (tmp_path / "store.out.1").read_text(encoding="ascii") == "third"


def test_what_a_running_process_prints_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "store.out"
    assert not bound_output(path, 10)
    with path.open("ab", buffering=0) as process:
        process.write(b"0123456789")
        assert not bound_output(path, 10)
        process.write(b"a")
        assert bound_output(path, 10)
        process.write(b"b")
    assert path.read_bytes() == b"b"
    assert (tmp_path / "store.out.1").read_bytes() == b"0123456789a"


def test_without_room_for_a_copy_the_file_is_emptied_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "store.out"
    path.write_bytes(b"x" * 100)
    (tmp_path / "store.out.1").symlink_to(FULL)
    assert bound_output(path, 10)
    assert path.read_bytes() == b""
    assert [file.name for file in tmp_path.iterdir()] == ["store.out"]
