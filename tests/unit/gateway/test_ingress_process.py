"""The ingress as a process: what it checks before it serves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zexchange.config import Config
from zexchange.runtime.deployment import create_deployment
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.process import EXIT_REFUSED, EXIT_STORE
from zexchange.runtime.store import EmbeddedStore, open_store


@pytest.fixture
def deployment(paths: DataPaths) -> DataPaths:
    create_deployment(paths)
    return paths


def run(paths: DataPaths) -> tuple[int, str]:
    """Run a worker that must not stay; its exit status and its log."""
    command = [sys.executable, "-m", "zexchange", "ingress", "0", "--data", str(paths.root)]
    ended = subprocess.run(command, timeout=60, check=False)
    return ended.returncode, paths.log("ingress-0").read_text()


@pytest.mark.parametrize(
    ("setting", "value"), [("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru")]
)
def test_unsafe_store_is_refused_by_name(deployment: DataPaths, setting: str, value: str) -> None:
    store = EmbeddedStore(deployment, Config())
    store.start()
    try:
        store.wait_ready()
        client = open_store(deployment, Config())
        client.config_set(setting, value)
        client.close()
        status, log = run(deployment)
    finally:
        store.stop()
    assert status == EXIT_REFUSED
    assert f"the store's setting '{setting}' is '{value}'" in log


def test_store_that_is_away_is_a_reason_to_try_again(deployment: DataPaths) -> None:
    status, log = run(deployment)
    assert status == EXIT_STORE
    assert "the store does not answer" in log
    assert "Traceback" not in log
