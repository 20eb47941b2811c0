"""Loads the golden vectors and turns decoded messages into the same plain form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import msgspec

PROTOCOL = Path(__file__).resolve().parents[2] / "protocol"
GOLDEN = PROTOCOL / "golden"
SCHEMA = PROTOCOL / "zexchange.xml"


@dataclass(frozen=True)
class GoldenCase:
    """One frozen frame and what it means."""

    message: str
    template_id: int
    description: str
    frame: bytes
    fields: dict[str, Any]
    deployment_id: bytes
    seed: bytes

    def __str__(self) -> str:
        return f"{self.message}: {self.description}"


def cases() -> Iterator[GoldenCase]:
    """Every frame of every golden file."""
    for path in sorted(GOLDEN.glob("*.json")):
        file = json.loads(path.read_text(encoding="utf-8"))
        for case in file["cases"]:
            yield GoldenCase(
                file["message"],
                file["templateId"],
                case["description"],
                bytes.fromhex(case["frame"]),
                case["fields"],
                bytes.fromhex(file.get("deploymentId", "")),
                bytes.fromhex(file.get("seed", "")),
            )


def camel_case(name: str) -> str:
    head, *tail = name.lower().split("_")
    return head + "".join(word.capitalize() for word in tail)


def plain(record: msgspec.Struct) -> dict[str, Any]:
    """A record as the golden files write it."""
    return {camel_case(name): _plain_value(getattr(record, name)) for name in record.__struct_fields__}


def _plain_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntFlag):
        return [camel_case(choice.name or "") for choice in value]
    if isinstance(value, IntEnum):
        return camel_case(value.name)
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return int(value)


def without_text_numbers(fields: Any) -> Any:
    """The fields with 64-bit integers as numbers again."""
    if isinstance(fields, dict):
        return {name: _number(value) for name, value in fields.items()}
    return fields


_BYTE_LENGTHS = {64, 128}


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [without_text_numbers(entry) for entry in value]
    is_number = isinstance(value, str) and value.isdigit() and len(value) not in _BYTE_LENGTHS
    return int(value) if is_number else value
