"""Every scenario, against both implementations of the rules."""

from __future__ import annotations

import pytest

from tests.model.kit import engine_named
from tests.scenarios.language import Scenario, World, files, read
from zexchange.wire.messages import ReasonCode

SCENARIOS = [scenario for path in files() for scenario in read(path)]


@pytest.mark.parametrize("engine", ["reference", "c"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_scenario(scenario: Scenario, engine: str) -> None:
    world = World(engine_named(engine))
    for step in scenario.steps:
        assert world.run(step.text) == step.expected, step.text


def test_there_are_scenarios_for_every_reason_of_the_engine() -> None:
    told = "\n".join(text for scenario in SCENARIOS for step in scenario.steps for text in step.expected)
    # These take a thousand orders: tests/rules/test_bounds.py has them, and the model's streams.
    beyond = {"TRAILING_LIMIT", "MARKET_UNCROSSING"}
    reasons = [one.name for one in ReasonCode if 200 < one < 500]
    missing = [name for name in reasons if name not in beyond and f"because {name.lower()}" not in told]
    assert not missing


def test_scenarios_have_names_of_their_own() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(names) == len(set(names))
    assert all(scenario.steps for scenario in SCENARIOS)
