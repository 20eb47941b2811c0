"""Key files: one Ed25519 private key as 64 hexadecimal characters, readable by its owner only."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from nacl.signing import SigningKey

from zexchange.client.errors import KeyFileError

__all__ = ["load_key", "new_key"]

_HEX_CHARS = 64
_KEY_TEXT = re.compile(rb"[0-9a-fA-F]{64}\s*")
# A key file holds 65 bytes. Reading a little more is enough to see that a file is something else.
_READ_BYTES_MAX = 256


def load_key(path: str | Path) -> SigningKey:
    """The private key in the file at `path`.

    Raises KeyFileError if the file is missing, is not a plain file, can be read or written by group or others, or does
    not hold exactly 64 hexadecimal characters.
    """
    path = Path(path)
    try:
        # The mode is read from the open file, so that what is checked is what is read.
        # Non-blocking: a pipe put in the key's place must not hang the program.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyFileError(f"no key file {path}; make one with: zexchange keys new {path.stem}") from None
    except OSError as error:
        raise KeyFileError(f"cannot read key file {path}: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is not a plain file")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise KeyFileError(
                f"key file {path} is open to other users (mode {mode:04o}); run: chmod 600 {path}"
            )
        text = os.read(fd, _READ_BYTES_MAX)
    finally:
        os.close(fd)
    if not _KEY_TEXT.fullmatch(text):
        # The content is never shown: it may be most of a key.
        raise KeyFileError(f"key file {path} does not hold exactly {_HEX_CHARS} hexadecimal characters")
    return SigningKey(bytes.fromhex(text.decode("ascii")))


def new_key(path: str | Path) -> SigningKey:
    """Make a fresh private key and write it to `path` with mode 0600; a missing folder is made with mode 0700.

    Raises KeyFileError if the file exists already (a key is never overwritten) or cannot be written.
    """
    path = Path(path)
    key = SigningKey.generate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise KeyFileError(
            f"key file {path} exists already and is not overwritten; choose another name"
        ) from None
    except OSError as error:
        raise KeyFileError(f"cannot write key file {path}: {error.strerror}") from error
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, 0o600)  # whatever the umask says
        file.write(bytes(key).hex().encode("ascii") + b"\n")
        file.flush()
        os.fsync(fd)
    return key
