"""Start of a process: what keeps it down for good and what is worth another try."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from zexchange import process
from zexchange.process import EXIT_REFUSED, process_context


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, 1),
        (errno.EMFILE, 1),
        (errno.EIO, 1),
        (errno.EACCES, EXIT_REFUSED),
        (errno.EROFS, EXIT_REFUSED),
    ],
)
def test_a_full_disk_passes_and_a_forbidden_folder_does_not(
    data: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(number, "cannot be opened")

    monkeypatch.setattr(process, "log_to_file", fail)
    with pytest.raises(SystemExit) as ended, process_context("matcher-0", data):
        raise AssertionError("must not begin")
    assert ended.value.code == status
