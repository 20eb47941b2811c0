"""The documents are true: what they tell the reader to type works, their links lead somewhere, and no command is
missing.

A fenced block that follows the line `<!-- test: shell -->` or `<!-- test: python -->` is run against a real exchange
whose data folder is ./data, as a reader would have it. The blocks of a document run in its order, in one folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from zexchange.cli.main import COMMANDS, cli
from zexchange.runtime.running import RunningExchange

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
LINKING = [*DOCUMENTS, REPOSITORY / "CHANGELOG.md", REPOSITORY / "SECURITY.md"]
BLOCK_TIMEOUT_S = 100

_MARK = re.compile(r"<!-- test: (\w+) -->")
_FENCE = re.compile(r"(```+|~~~+)\s*(\w*)")
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"#{1,6}\s+(.+?)\s*#*")


class Block(NamedTuple):
    """A block to run: `kind` is `shell` or `python`, `line` that of its first line in the document."""

    kind: str
    line: int
    text: str


class Document(NamedTuple):
    """A document taken apart: its blocks to run, and its lines outside all fences, by number."""

    blocks: list[Block]
    prose: dict[int, str]


def read(path: Path) -> Document:
    """Take a document apart. Raises ValueError for a mark that no block follows, or of an unknown kind."""
    blocks: list[Block] = []
    prose: dict[int, str] = {}
    kind: str | None = None
    fence = ""
    begin = 0
    inside: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if fence:
            if line.strip() == fence:
                if kind is not None:
                    blocks.append(Block(kind, begin, "\n".join(inside) + "\n"))
                kind, fence = None, ""
            else:
                inside.append(line)
            continue
        if opened := _FENCE.match(line):
            fence, begin, inside = opened[1], number + 1, []
        elif marked := _MARK.fullmatch(line.strip()):
            kind = marked[1]
            if kind not in ("shell", "python"):
                raise ValueError(f"{path.name}:{number}: blocks of the kind {kind!r} cannot be run")
        else:
            prose[number] = line
            if line.strip() and kind is not None:
                raise ValueError(f"{path.name}:{number}: no block follows the mark")
    if fence or kind is not None:
        raise ValueError(f"{path.name}: a fence or a mark is left open")
    return Document(blocks, prose)


def slugs(path: Path) -> set[str]:
    """The anchors of a document's headings, as they are made on the pages of a repository."""
    seen: dict[str, int] = {}
    found = set()
    for line in read(path).prose.values():
        heading = _HEADING.fullmatch(line)
        if heading is None:
            continue
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def command_names() -> Iterator[str]:
    """Every command that does something, with its full name, hidden ones too."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from (f"{name} {child}" for child in command.list_commands(context))
        else:
            yield name


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if read(path).blocks], ids=lambda path: path.name
)
def test_the_examples_work(path: Path, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    assert (tmp_path / ".venv" / "bin" / "zexchange").exists(), "the package is installed in this environment"
    with RunningExchange(tmp_path / "data", settings={"web.enabled": "true"}):
        for block in read(path).blocks:
            program = [sys.executable, "-c"] if block.kind == "python" else ["bash", "-eu", "-c"]
            done = subprocess.run(
                [*program, block.text],
                stdin=subprocess.DEVNULL,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": "", "PYTHONUTF8": "1"},
                capture_output=True,
                encoding="utf-8",
                timeout=BLOCK_TIMEOUT_S,
                check=False,
            )
            assert done.returncode == 0, (
                f"{path.name}:{block.line} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
            )


@pytest.mark.parametrize("path", LINKING, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    dead = []
    for number, line in read(path).prose.items():
        for target in _LINK.findall(re.sub(r"`[^`]*`", "", line)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            if not file.exists() or (anchor and anchor not in slugs(file)):
                dead.append(f"{path.name}:{number}: {target}")
    assert not dead


@pytest.mark.parametrize("name", list(command_names()))
def test_the_command_table_has_every_command(name: str) -> None:
    assert f"\n| `zexchange {name}` |" in (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_command_table_has_no_other_command() -> None:
    text = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `zexchange ([a-z -]+)` \|", text, re.MULTILINE)) == set(command_names())


def test_the_readme_and_three_documents_have_examples() -> None:
    """The marks are found: a misspelt one would silently test nothing."""
    with_examples = {path.name for path in DOCUMENTS if read(path).blocks}
    assert {"README.md", "operations.md", "security.md", "verification.md"} <= with_examples
