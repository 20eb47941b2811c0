"""Every scenario runs against both implementations of the rules."""

from __future__ import annotations

from functools import partial

import pytest

from tests.model.kit import EngineClass, Shard, engine_named, funded_shard
from tests.rules.names import NewShard


@pytest.fixture(params=["reference", "c"])
def engine_class(request: pytest.FixtureRequest) -> EngineClass:
    return engine_named(request.param)


@pytest.fixture
def new_shard(engine_class: EngineClass) -> NewShard:
    """Makes a shard with funded accounts; keyword arguments are limits of the engine."""
    return partial(funded_shard, engine_class)


@pytest.fixture
def shard(new_shard: NewShard) -> Shard:
    return new_shard()
