"""What all tests share: data outside the repository, folders, ports, and the check that no process is left
behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from zexchange.config import ENV_PREFIX
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.running import free_port_base

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA_ENV = "ZX_SHARED_DATA"


def shared_data(name: str) -> Path:
    """A file or folder of the shared test data; skips the test with the reason when it is not at hand.

    The data (signature vectors, Merkle vectors, a sample of recorded order flow) are not part of the
    repository. They are looked for in the folder that ZX_SHARED_DATA names, else in ../shared/data beside the
    repository.
    """
    folder = Path(os.environ.get(SHARED_DATA_ENV) or REPOSITORY.parent / "shared" / "data")
    found = folder / name
    if not found.exists():
        pytest.skip(
            f"needs test data that are not part of the repository: {found} is not there; "
            f"if you have them, set {SHARED_DATA_ENV} to their folder"
        )
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first: what is given out to the last worker should be short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data folder."""
    return tmp_path / "data"


@pytest.fixture
def paths(data: Path) -> DataPaths:
    """Paths of an empty data folder, its folders made."""
    found = DataPaths(data)
    found.create()
    return found


@pytest.fixture
def port_base() -> int:
    """A port_base whose ports are free."""
    return free_port_base()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings in the developer's environment must not change what a test sees."""
    for name in list(os.environ):
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test whose processes outlive it: children of this process, and whatever works in its temporary
    folder."""
    before = _children()
    # Asked for now, so that the folder is there, under its name, until we have looked.
    folder = str(request.getfixturevalue("tmp_path")) if "tmp_path" in request.fixturenames else None
    yield
    left = [psutil.Process(pid) for pid in _children() - before if psutil.pid_exists(pid)]
    if folder is not None:
        left += _working_in(folder, before)
    alive = [process for process in left if _is_alive(process)]
    _gone, alive = psutil.wait_procs(alive, timeout=2)  # those already told to end may need a moment
    names = [f"{process.pid} {_command_line(process)}" for process in alive]
    for process in alive:
        process.kill()
    assert not names, f"processes left behind: {names}"


def _children() -> set[int]:
    """Pids of our children, without a walk over all processes: this runs twice for every test."""
    try:
        return {
            int(word)
            for file in Path("/proc/self/task").glob("*/children")
            for word in file.read_text(encoding="ascii").split()
        }
    except OSError:
        return {child.pid for child in psutil.Process().children()}


def _working_in(folder: str, before: set[int]) -> list[psutil.Process]:
    """Orphans: processes that name the folder in their command line and are no children of ours."""
    found = []
    for process in psutil.process_iter(["pid", "ppid", "cmdline"]):
        command = process.info["cmdline"] or []
        orphan = process.info["ppid"] == 1 and process.info["pid"] not in before
        if orphan and any(folder in word for word in command):
            found.append(process)
    return found


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return "(gone)"
