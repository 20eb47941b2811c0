"""The output of an exchange that runs as a child: read at all times, whatever its amount."""

from __future__ import annotations

import os

from zexchange.runtime.running import _Output

PATIENCE_S = 60.0
LINE = b"12:00:00 nothing of interest\n"


def test_a_chatty_child_is_never_held_up() -> None:
    """More than any pipe holds is written here, by the thread that would have to read it."""
    read_end, write_end = os.pipe()
    output = _Output(read_end)
    with os.fdopen(write_end, "wb", buffering=0) as child:
        for _ in range(10_000):
            child.write(LINE)
        child.write(b"ready 127.0.0.1:9000\n")
        assert output.wait_ready(PATIENCE_S)
        for _ in range(100_000):
            child.write(LINE)
        child.write(b"stopped\n")
    output.join(PATIENCE_S)
    text = output.text()
    assert "\nready 127.0.0.1:9000\n" in text
    assert text.endswith("stopped\n")
    assert len(text) < 3 * output.KEPT_BYTES


def test_a_child_that_ends_early_is_not_ready() -> None:
    read_end, write_end = os.pipe()
    output = _Output(read_end)
    os.write(write_end, b"error: not ready\nready without an end of line")
    os.close(write_end)
    assert not output.wait_ready(PATIENCE_S)
    assert output.text().startswith("error: ")
