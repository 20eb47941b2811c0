"""The engines agree at length; with test_stream.py, on more than 200,000 commands."""

from __future__ import annotations

import pytest

from tests.model.stream import run

pytestmark = pytest.mark.slow

COMMANDS = 11_000
SEEDS = range(100, 117)


@pytest.mark.parametrize("seed", SEEDS)
def test_engines_agree_at_length(seed: int) -> None:
    """Every fourth stream has pools deep enough for the bounds on the work of one command."""
    duel = run(seed, COMMANDS, deep=seed % 4 == 0)
    assert duel.commands >= COMMANDS
