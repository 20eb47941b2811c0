"""Start of a process: what keeps it down for good and what is worth another try."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from zexchange.runtime import process
from zexchange.runtime.deployment import create_deployment
from zexchange.runtime.logs import tail
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.process import EXIT_REFUSED, process_context


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


def test_a_full_disk_needs_no_trace(data: Path) -> None:
    """It may be met anywhere, any number of times, and the operator has to find one sentence."""
    create_deployment(DataPaths(data))
    with pytest.raises(SystemExit) as ended, process_context("matcher-0", data):
        raise OSError(errno.ENOSPC, "No space left on device", "last_signed.json")
    assert ended.value.code == 1
    (line,) = [line for line in tail(DataPaths(data).log("matcher-0"), 5) if line.startswith("error")]
    assert line == "error: [Errno 28] No space left on device: 'last_signed.json'"
