"""Writes everything that follows from the schema: run it after every change of protocol/zexchange.xml.

    python protocol/generate.py            write the generated files
    python protocol/generate.py --check    exit 1 if one of them is stale, and name it
    python protocol/generate.py --golden   also rewrite the golden vectors (see protocol/golden/README.md)

Output depends on the schema and protocol/rules.py alone, so two runs are identical. Golden vectors are
compared by --check but only rewritten on request: when one changes, bytes on the wire have changed, and
somebody must mean it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

from emit_c import emit_header  # noqa: E402
from emit_docs import emit_page  # noqa: E402
from emit_python import emit_messages, emit_rejections  # noqa: E402
from emit_typescript import emit_typescript  # noqa: E402
from schema import load  # noqa: E402


def generated() -> dict[Path, str]:
    """Every generated file and its text."""
    schema = load(HERE / "zexchange.xml")
    page = ROOT / "docs" / "protocol.md"
    return {
        ROOT / "zexchange" / "wire" / "messages.py": emit_messages(schema),
        ROOT / "zexchange" / "client" / "rejections.py": emit_rejections(schema),
        ROOT / "csrc" / "wire.h": emit_header(schema),
        ROOT / "webapp" / "ui" / "src" / "wire" / "messages.ts": emit_typescript(schema),
        page: emit_page(schema, page.read_text(encoding="utf-8")),
    }


def vectors() -> dict[Path, str]:
    """Every golden file and its text. Imports the generated codec, so that must be up to date."""
    from golden.make import vector_files

    return {HERE / "golden" / name: text for name, text in vector_files(load(HERE / "zexchange.xml")).items()}


def differing(files: dict[Path, str]) -> list[Path]:
    """The files whose text on disk is another."""
    return [
        path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def write(files: dict[Path, str]) -> None:
    """Write what differs and say so."""
    for path in differing(files):
        path.write_text(files[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    parser.add_argument("--golden", action="store_true", help="also rewrite protocol/golden/*.json")
    options = parser.parse_args(arguments)
    if options.check:
        stale = differing(generated()) or differing(vectors())
        for path in stale:
            print(f"stale: {path.relative_to(ROOT)} (run python protocol/generate.py)", file=sys.stderr)
        return 1 if stale else 0
    write(generated())
    if options.golden:
        write(vectors())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
