"""What the fuzzer has found so far, and a few random inputs, under sanitizers and with any compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "csrc"
FLAGS = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target as a program that reads files."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    program = tmp_path_factory.mktemp("fuzz") / "fuzz"
    sources = [*sorted(HERE.glob("*.c")), *sorted(CSRC.glob("*.c"))]
    command = [compiler, *FLAGS, *SANITIZE, f"-I{CSRC}", *sources, "-o", program]
    built = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized" in built.stderr or "cannot find -l" in built.stderr:
        pytest.skip(f"{compiler} has no sanitizers")
    assert built.returncode == 0, built.stderr
    return program


def test_the_corpus(fuzz: Path) -> None:
    corpus = sorted((HERE / "corpus").iterdir())
    assert len(corpus) > 50
    done = subprocess.run([fuzz, *corpus], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("seed", [1, 2])
def test_random_bytes(fuzz: Path, seed: int) -> None:
    done = subprocess.run([fuzz, "--random", "300", str(seed)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_a_defect_is_found(tmp_path: Path) -> None:
    """A canary: an engine that forgets a unit of a hold ends the program."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    broken = tmp_path / "csrc"
    shutil.copytree(CSRC, broken)
    trading = broken / "trading.c"
    text = trading.read_text()
    needle = "ledger_settle_hold(&self->ledger, balance, trading_hold_of(self, slot), 0);"
    assert needle in text
    trading.write_text(text.replace(needle, needle.replace("slot), 0)", "slot), 1)")))
    program = tmp_path / "fuzz"
    sources = [*sorted(HERE.glob("*.c")), *sorted(broken.glob("*.c"))]
    subprocess.run([compiler, "-std=c11", "-O1", f"-I{broken}", *sources, "-o", program], check=True)
    done = subprocess.run([program, "--random", "50", "1"], capture_output=True, text=True)
    assert done.returncode != 0
