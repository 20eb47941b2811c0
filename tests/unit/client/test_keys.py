"""Key files: only their owner may read them, and nothing is ever overwritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from zexchange.client import KeyFileError, load_key, new_key


def test_a_new_key_is_64_hex_digits_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "alice.key"
    previous = os.umask(0)
    try:
        key = new_key(path)
    finally:
        os.umask(previous)
    assert path.read_text() == bytes(key).hex() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert bytes(load_key(path)) == bytes(key)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    key = new_key(path)
    with pytest.raises(KeyFileError, match="not overwritten"):
        new_key(path)
    assert bytes(load_key(path)) == bytes(key)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "alice.key"
    new_key(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_key(path)


@pytest.mark.parametrize(
    "text", ["", "ab" * 31, "ab" * 33, "zz" * 32, "ab " * 21 + "a", "ab" * 16 + "\n" + "ab" * 16]
)
def test_anything_but_64_hex_digits_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "alice.key"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(KeyFileError, match="hexadecimal") as caught:
        load_key(path)
    assert not text or text[:8] not in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="zexchange keys new alice"):
        load_key(tmp_path / "alice.key")


def test_a_pipe_or_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.key", 0o600)
    (tmp_path / "folder.key").mkdir(0o700)
    for name in ("pipe.key", "folder.key"):
        with pytest.raises(KeyFileError, match="plain file"):
            load_key(tmp_path / name)
