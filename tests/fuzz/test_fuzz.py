"""What the fuzzer has found so far, and a few random inputs, under sanitizers and with any compiler."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.native.building import CSRC, build_program

pytestmark = pytest.mark.timeout(600)  # it compiles, and that is slow on a busy machine

HERE = Path(__file__).resolve().parent
SOURCES = sorted(HERE.glob("*.c"))


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target as a program that reads files."""
    return build_program(tmp_path_factory.mktemp("fuzz") / "fuzz", SOURCES, defines=["-DAHEAD_MARKETS=0"])


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
    trading = CSRC / "trading.c"
    text = trading.read_text()
    needle = "ledger_settle_hold(&self->ledger, balance, trading_hold_of(self, slot), 0);"
    assert needle in text
    broken = tmp_path / "trading.c"
    broken.write_text(text.replace(needle, needle.replace("slot), 0)", "slot), 1)")))
    others = [path for path in sorted(CSRC.glob("*.c")) if path != trading]
    program = build_program(tmp_path / "fuzz", [*SOURCES, broken], csrc=others)
    done = subprocess.run([program, "--random", "50", "1"], capture_output=True, text=True)
    assert done.returncode != 0
