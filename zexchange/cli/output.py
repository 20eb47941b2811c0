"""What commands print: data on stdout, messages on stderr; JSON in one place.

`print_json` writes exactly one JSON document with keys in the order given. Decimals, bytes and paths become
strings, so that no reader rounds a price.
"""

import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click


def print_json(value: Any) -> None:
    """One JSON document and a newline on stdout. Structs, dataclasses, enums, Decimal, bytes (as hex) and
    Path are understood."""
    import msgspec

    def plain(other: Any) -> Any:
        if isinstance(other, Path):
            return str(other)
        raise TypeError(f"cannot print {type(other).__name__} as JSON")

    encoded = msgspec.json.encode(
        _hex_bytes(msgspec.to_builtins(value, builtin_types=(bytes, Decimal), enc_hook=plain))
    )
    click.echo(msgspec.json.format(encoded, indent=2).decode())


def _hex_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return {key: _hex_bytes(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hex_bytes(item) for item in value]
    return value


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()
) -> None:
    """Columns padded to their widest cell; those whose index is in `right` are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        parts = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(parts).rstrip())


def message(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    click.echo(text, err=True)


def is_terminal() -> bool:
    """True if somebody is watching: progress is drawn only then."""
    return sys.stderr.isatty()
