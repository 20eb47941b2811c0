"""Fills the generated parts of docs/protocol.md, between `<!-- generated: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rules import COMMAND_RULES
from schema import Block, Data, Enum, Field, Message, Schema, SchemaError

_REGION = re.compile(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def emit_page(schema: Schema, page: str) -> str:
    """The page with every region filled afresh. Raises SchemaError for a region that no emitter fills."""
    emitters = {"types": _types, "enums": _enums, "messages": _messages, "reasons": _reasons, "rules": _rules}

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name not in emitters:
            raise SchemaError(f"docs/protocol.md: no generated part is called {name}")
        return f"<!-- generated: {name} -->\n\n{emitters[name](schema).strip()}\n\n<!-- end -->"

    return _REGION.sub(fill, page)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _types(schema: Schema) -> str:
    rows = []
    for kind in schema.types.values():
        shape = kind.primitive if kind.length == 1 else f"{kind.length} bytes"
        rows.append((f"`{kind.name}`", shape, str(kind.size), kind.description))
    return _table(("Type", "Encoding", "Bytes", "Notes"), rows)


def _enums(schema: Schema) -> str:
    parts = []
    for enum in schema.enums.values():
        if enum.name == "ReasonCode":
            continue
        title = f"**{enum.name}**, {'set of bits in ' if enum.flags else ''}{enum.primitive}"
        parts.append(title + (f": {enum.description}" if enum.description else "") + "\n")
        if not enum.values:
            continue
        if enum.flags:
            rows = [(f"`{v.name}`", f"bit {v.value.bit_length() - 1}", v.description) for v in enum.values]
        else:
            rows = [(f"`{v.name}`", str(v.value), v.description) for v in enum.values]
        parts.append(_table(("Name", "Value", "Notes"), rows))
    return "\n".join(parts)


def _reasons(schema: Schema) -> str:
    rows = [(str(v.value), f"`{v.name}`", v.description) for v in schema.enums["ReasonCode"].values]
    return _table(("Code", "Name", "Meaning"), rows)


def _rules(schema: Schema) -> str:
    parts = []
    for block in schema.entries():
        rules = COMMAND_RULES.get(block.name)
        if rules is None:
            continue
        names = [field.name for field in block.fields if not field.reserved and field.name != "kind"]
        rows = []
        for rule in rules:
            cells = [f"`{rule.kind}`"]
            for name in names:
                if name in rule.allowed:
                    cells.append(", ".join(rule.allowed[name]))
                else:
                    cells.append("0" if name in rule.zero else "any")
            rows.append(tuple(cells))
        parts.append(_table(("kind", *(f"`{name}`" for name in names)), rows))
    return "\n".join(parts)


def _field_row(field: Field) -> tuple[str, ...]:
    note = field.description
    if not note and not isinstance(field.type, Enum):
        note = field.type.description
    return (str(field.offset), str(field.type.size), f"`{field.name}`", field.type.name, note)


_FIELD_HEAD = ("Offset", "Bytes", "Name", "Type", "Notes")


def _fields(block: Block) -> str:
    return _table(_FIELD_HEAD, [_field_row(field) for field in block.fields])


def _messages(schema: Schema) -> str:
    return "\n".join(_message(message) for message in schema.messages)


def _message(message: Message) -> str:
    parts = [f"### {message.name} ({message.template_id})\n"]
    if message.description:
        parts.append(f"{message.description}.\n")
    size = f"Root block of {message.block.length} bytes"
    if message.flat:
        size += f"; the frame is {14 + message.block.length} bytes"
    parts += [size + ".\n", _fields(message.block)]
    for group in message.groups:
        counts = f", {group.count_min} to {group.count_max} entries" if group.count_min else ""
        parts.append(f"Group `{group.name}`{counts}, {group.entry.length} bytes each:\n")
        parts.append(_fields(group.entry))
    parts += [_data(data) for data in message.data]
    return "\n".join(parts)


def _data(data: Data) -> str:
    return f"Variable data `{data.name}`: u32 length, then that many bytes.\n"
