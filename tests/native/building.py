"""Programs of C for tests, compiled under the address and undefined-behaviour sanitizers.

Objects are kept in build/tests, named after everything they are made of, so that they are compiled once, whoever asks
first. For scripts/coverage they are instrumented instead.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CSRC = ROOT / "csrc"
FLAGS = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer", f"-I{CSRC}"]
KEPT_S = 7 * 24 * 3600
COVERAGE = "ZX_COVERAGE" in os.environ
SANITIZE = (
    ["--coverage", "-O1", "-Wno-maybe-uninitialized"]
    if COVERAGE
    else ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
)


@cache
def compiler() -> str:
    """The C compiler; skips the test where there is none, or none with sanitizers."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None:
        pytest.skip("there is no C compiler")
    if COVERAGE:
        return found  # and no notes of a probe beside those of csrc/
    probe = subprocess.run(
        [found, *SANITIZE, "-x", "c", "-", "-o", os.devnull],
        input="int main(void) { return 0; }\n",
        capture_output=True,
        text=True,
    )
    if probe.returncode:
        pytest.skip(f"{found} has no sanitizers")
    return found


def build_program(
    program: Path,
    sources: Sequence[Path],
    *,
    defines: Sequence[str] = (),
    link: Sequence[str] = (),
    csrc: Sequence[Path] | None = None,
) -> Path:
    """Compile `sources` with all of csrc/, or what of it is named, and link them to `program`."""
    command = [compiler(), *FLAGS, *SANITIZE, *defines]
    version = subprocess.run([command[0], "--version"], capture_output=True, check=True).stdout
    headers = b"".join(path.read_bytes() for path in sorted([*CSRC.glob("*.h"), *HERE.glob("*.h")]))
    folder = ROOT / "build" / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [*sources, *(sorted(CSRC.glob("*.c")) if csrc is None else csrc)]
    objects = {
        source: folder / f"{source.stem}-{_hash(command, version, headers, source.read_bytes())}.o"
        for source in wanted
    }
    # In an order of its own: of two processes that build at the same time each finds what the other has done.
    missing = [source for source in wanted if not _is_there(objects[source])]
    Random(os.getpid()).shuffle(missing)
    for source in missing:
        if objects[source].exists():
            continue
        unfinished = objects[source].with_suffix(f".{os.getpid()}.o")
        subprocess.run([*command, "-c", source, "-o", unfinished], check=True)
        unfinished.rename(objects[source])
    _forget_old(folder)
    subprocess.run([*command, *objects.values(), *link, "-o", program], check=True)
    return program


def wrap(*names: str) -> list[str]:
    """Options for the linker by which a program has calls of these functions to itself."""
    return [f"-Wl,--wrap={name}" for name in names]


def run(*command: str | Path) -> str:
    """Output of a program that must end well."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


def _hash(command: Sequence[str], *contents: bytes) -> str:
    digest = hashlib.sha256(" ".join(command).encode())
    for one in contents:
        digest.update(one)
    return digest.hexdigest()[:24]


def _is_there(built: Path) -> bool:
    try:
        os.utime(built)
    except FileNotFoundError:
        return False
    return True


def _forget_old(folder: Path) -> None:
    for path in folder.iterdir():
        if path.stat().st_mtime < time.time() - KEPT_S:
            path.unlink(missing_ok=True)
