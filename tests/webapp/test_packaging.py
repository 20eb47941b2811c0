"""Wheels and source distributions carry the built page, and an installed wheel has it where the web process looks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "node_modules", ".node", "build", "dist", "data", "data-*", "*.egg-info", "__pycache__",
    "*.so", ".*_cache",
)  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a page, as if it had been built."""
    tree = tmp_path_factory.mktemp("packaging") / "zexchange"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    assets = tree / "webapp" / "ui" / "dist" / "assets"
    assets.mkdir(parents=True)
    (assets.parent / "index.html").write_text("<!doctype html>", encoding="utf-8")
    (assets / "index-1.js").write_text("export {};", encoding="utf-8")
    (tree / "webapp" / "ui" / "node_modules" / "big").mkdir(parents=True)
    (tree / "webapp" / "ui" / "node_modules" / "big" / "index.js").write_text("", encoding="utf-8")
    return tree


def run(tree: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_installed_wheel_has_the_page(tree: Path, tmp_path: Path) -> None:
    pip = ("-m", "pip", "--disable-pip-version-check", "--no-input")
    run(tree, *pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), ".")
    (wheel,) = tmp_path.glob("*.whl")
    run(tree, *pip, "install", "-q", "--no-deps", "--target", str(tmp_path / "installed"), str(wheel))
    found = run(
        tmp_path,
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})\n"
        "from webapp import process; print(process._PAGE)",
    )
    page = Path(found.strip())
    assert page.is_relative_to(tmp_path / "installed")
    assert (page / "index.html").is_file()
    assert (page / "assets" / "index-1.js").is_file()


@pytest.mark.timeout(120)
def test_source_distribution_has_the_page_and_its_sources(tree: Path) -> None:
    run(tree, "setup.py", "-q", "sdist", "--formats", "gztar")
    (archive,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"webapp/ui/dist/index.html", "webapp/ui/dist/assets/index-1.js"} <= names
    assert {
        "webapp/ui/package-lock.json",
        "webapp/ui/.npmrc",
        "webapp/ui/src/main.tsx",
        "scripts/build-page",
    } <= names
    assert not any("node_modules" in name for name in names)
