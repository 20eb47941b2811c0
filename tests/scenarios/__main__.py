"""Fills in what the engines say: `python -m tests.scenarios --write`.

Only where both say the same, and only steps behind which nothing is written yet; `--all` writes every step anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.model.kit import engine_named
from tests.scenarios.language import World, files


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__)
    parser.add_argument("--write", action="store_true", required=True)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    for path in files():
        _write(path, options.all)


def _write(path: Path, everything: bool) -> None:
    written: list[str] = []
    worlds: list[World] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, text in enumerate(lines):
        if text.startswith("> ") and everything:
            continue
        written.append(text)
        if text.startswith("== "):
            worlds = [World(engine_named(name)) for name in ("reference", "c")]
        elif text and not text.startswith(("#", "> ")):
            try:
                first, second = (world.run(text) for world in worlds)
            except (ValueError, KeyError, IndexError, AssertionError) as error:
                raise SystemExit(f"{path.name}:{number + 1}: {text}: {error!r}") from error
            if first != second:
                raise SystemExit(f"{path.name}:{number + 1}: the engines disagree: {first} and {second}")
            has_answer = number + 1 < len(lines) and lines[number + 1].startswith("> ")
            if everything or not has_answer:
                written += [f"> {said}" for said in first]
    path.write_text("\n".join(written) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
