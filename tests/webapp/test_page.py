"""The trading page: its own tests, run from here so that one suite covers everything.

What needs Node or Chromium is skipped where there is none, with the command that installs it. Continuous integration
installs Chromium first (.ci/run).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "webapp" / "ui"
NODE_MIN = (20, 19)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def missing(reason: str) -> None:
    """Skip, and say what is missing."""
    pytest.skip(reason)


def node_environment() -> dict[str, str] | None:
    """An environment whose PATH begins with a Node that is new enough; None if there is none."""
    for folder in (None, PAGE / ".node" / "bin"):
        path = os.environ["PATH"] if folder is None else f"{folder}{os.pathsep}{os.environ['PATH']}"
        node = shutil.which("node", path=path)
        if node is None or shutil.which("npm", path=path) is None:
            continue
        version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
        if tuple(int(part) for part in version.strip().lstrip("v").split(".")[:2]) >= NODE_MIN:
            return {**os.environ, "PATH": path}
    return None


def run(command: list[str], environment: dict[str, str], timeout_s: float) -> None:
    """Run it in the page's folder; its output is the failure."""
    done = subprocess.run(
        command, cwd=PAGE, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built() -> dict[str, str]:
    """The page, built, and its development packages; the environment to run them in."""
    done = subprocess.run([ROOT / "scripts" / "build-page"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing(f"scripts/build-page cannot build the page here: {done.stderr[-300:]}")
    environment = node_environment()
    if environment is None:
        missing("no Node 20.19 or newer: scripts/build-page takes one from PyPI when webapp/ui/dist is gone")
        raise AssertionError
    if not (PAGE / "node_modules" / ".bin" / "vitest").exists():
        installed = subprocess.run(
            ["npm", "ci"], cwd=PAGE, env=environment, capture_output=True, text=True, check=False
        )
        if installed.returncode != 0:
            missing(f"npm ci failed: {installed.stderr[-300:]}")
    return environment


def test_vectors_are_those_of_the_python_code() -> None:
    spec = importlib.util.spec_from_file_location("make_vectors", PAGE / "tests" / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.OUTPUT.read_text(encoding="utf-8") == module.vectors(), (
        "stale: python webapp/ui/tests/make_vectors.py"
    )


def test_lock_file_names_hashes_and_no_addresses() -> None:
    text = (PAGE / "package-lock.json").read_text(encoding="utf-8")
    assert "://" not in text
    packages = json.loads(text)["packages"]
    for name, package in packages.items():
        if name:
            assert "integrity" in package, name
            assert "resolved" not in package, name


@pytest.mark.timeout(180)
def test_types(built: dict[str, str]) -> None:
    run(["npm", "run", "--silent", "check"], built, 170)


@pytest.mark.timeout(180)
def test_units(built: dict[str, str]) -> None:
    run(["npm", "run", "--silent", "test"], built, 170)


def test_first_load_is_within_its_budget(built: dict[str, str]) -> None:
    run(["node", "scripts/budget.mjs"], built, 30)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_a_browser(built: dict[str, str]) -> None:
    if CHROMIUM is None:
        missing("no Chromium: apt-get install -y chromium")
    run(["npm", "run", "--silent", "test:browser"], {**built, "CHROMIUM": CHROMIUM or ""}, 590)
