"""The message schema as plain records: reads zexchange.xml once, for every emitter.

The reader knows the part of SBE 1.0 that the schema uses and refuses anything else, so that nothing in the
XML can be silently ignored. It also checks what the emitters rely on: offsets without gaps or overlaps and
declared block lengths.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

NAMESPACE = "{http://fixprotocol.io/2016/sbe}"
PRIMITIVE_BYTES = {
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
    "int8": 1, "int16": 2, "int32": 4, "int64": 8,
}  # fmt: skip

# SBE names a group, not the type of its entries. Groups that share a type here have the same entry layout.
ENTRY_NAMES = {
    ("SignedBatch", "commands"): "Command",
    ("OperatorBatch", "commands"): "OperatorCommand",
    ("EstablishmentAck", "shards"): "ShardSession",
    ("Balances", "balances"): "Balance",
    ("OpenOrders", "orders"): "OpenOrder",
    ("BookDepth", "bids"): "Level",
    ("BookDepth", "asks"): "Level",
    ("Trades", "trades"): "TradePrint",
    ("Definitions", "assets"): "AssetDefinition",
    ("Definitions", "markets"): "MarketDefinition",
}


class SchemaError(Exception):
    """The XML uses something the generator does not know, or contradicts itself."""


@dataclass(frozen=True)
class Type:
    """A named simple type: `length` elements of a primitive; more than one element means bytes."""

    name: str
    primitive: str
    length: int
    description: str

    @property
    def size(self) -> int:
        return PRIMITIVE_BYTES[self.primitive] * self.length

    @property
    def reserved(self) -> bool:
        return self.name.startswith("Reserved")


@dataclass(frozen=True)
class Value:
    """One valid value of an enum, or one choice of a set (then `value` is the bit's mask)."""

    name: str
    value: int
    description: str


@dataclass(frozen=True)
class Enum:
    """An enum or, when `flags`, a set."""

    name: str
    primitive: str
    flags: bool
    description: str
    values: tuple[Value, ...]

    @property
    def size(self) -> int:
        return PRIMITIVE_BYTES[self.primitive]

    @property
    def zero(self) -> Value | None:
        return next((value for value in self.values if value.value == 0), None)

    @property
    def mask(self) -> int:
        return sum(value.value for value in self.values) if self.flags else 0

    def value(self, name: str) -> Value:
        return next(value for value in self.values if value.name == name)


@dataclass(frozen=True)
class Field:
    name: str
    number: int
    type: Type | Enum
    offset: int
    description: str

    @property
    def reserved(self) -> bool:
        return isinstance(self.type, Type) and self.type.reserved

    @property
    def is_bytes(self) -> bool:
        return isinstance(self.type, Type) and self.type.length > 1


@dataclass(frozen=True)
class Block:
    """Fixed-size fields: the root block of a message or one entry of a group."""

    name: str
    length: int
    fields: tuple[Field, ...]
    description: str


@dataclass(frozen=True)
class Group:
    name: str
    number: int
    entry: Block
    count_min: int
    count_max: int


@dataclass(frozen=True)
class Data:
    """Variable-length bytes after a u32 length."""

    name: str
    number: int


@dataclass(frozen=True)
class Message:
    name: str
    template_id: int
    description: str
    block: Block
    groups: tuple[Group, ...]
    data: tuple[Data, ...]

    @property
    def flat(self) -> bool:
        return not self.groups and not self.data


@dataclass(frozen=True)
class Schema:
    schema_id: int
    version: int
    semantic_version: str
    types: dict[str, Type]
    enums: dict[str, Enum]
    messages: tuple[Message, ...]

    def message(self, name: str) -> Message:
        return next(message for message in self.messages if message.name == name)

    def entries(self) -> list[Block]:
        """The entry types of all groups, each once, in order of first use."""
        found: dict[str, Block] = {}
        for message in self.messages:
            for group in message.groups:
                known = found.setdefault(group.entry.name, group.entry)
                layouts = [
                    [(f.name, f.type, f.offset) for f in block.fields] for block in (known, group.entry)
                ]
                if layouts[0] != layouts[1]:
                    raise SchemaError(
                        f"{message.name}.{group.name}: not laid out as other entries {known.name}"
                    )
        return list(found.values())


def snake(name: str) -> str:
    """camelCase or CamelCase to snake_case: `priceTicks` to `price_ticks`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def upper(name: str) -> str:
    return snake(name).upper()


def camel(name: str) -> str:
    """camelCase to CamelCase: `unknownKey` to `UnknownKey`."""
    return name[0].upper() + name[1:]


def load(path: Path) -> Schema:
    """Read the schema. Raises SchemaError."""
    root = ElementTree.parse(path).getroot()
    if root.tag != NAMESPACE + "messageSchema" or root.get("byteOrder") != "littleEndian":
        raise SchemaError("not a little-endian SBE messageSchema")
    types: dict[str, Type] = {}
    enums: dict[str, Enum] = {}
    dimensions: dict[str, tuple[int, int]] = {}
    sections = root.findall("types")
    for node in (node for section in sections for node in section):
        name = node.attrib["name"]
        if node.tag == "type":
            types[name] = Type(
                name, _primitive(node), int(node.get("length", "1")), node.get("description", "")
            )
        elif node.tag in ("enum", "set"):
            enums[name] = _enum(node)
        elif node.tag == "composite":
            count = node.find("type[@name='numInGroup']")
            if count is not None:
                dimensions[name] = int(count.get("minValue", "0")), int(count.get("maxValue", "65534"))
        else:
            raise SchemaError(f"unknown element {node.tag}")
    messages = tuple(
        _message(node, types | enums, dimensions) for node in root.findall(NAMESPACE + "message")
    )
    schema = Schema(
        int(root.attrib["id"]),
        int(root.attrib["version"]),
        root.attrib["semanticVersion"],
        types,
        enums,
        messages,
    )
    if len({message.template_id for message in messages}) != len(messages):
        raise SchemaError("a message id is used twice")
    schema.entries()
    return schema


def _primitive(node: ElementTree.Element) -> str:
    primitive = node.get("primitiveType") or node.attrib["encodingType"]
    if primitive not in PRIMITIVE_BYTES:
        raise SchemaError(f"{node.get('name')}: primitive type {primitive} is not supported")
    return primitive


def _enum(node: ElementTree.Element) -> Enum:
    flags = node.tag == "set"
    values = []
    for child in node:
        number = int((child.text or "").strip())
        values.append(
            Value(child.attrib["name"], 1 << number if flags else number, child.get("description", ""))
        )
    if len({value.value for value in values}) != len(values):
        raise SchemaError(f"{node.attrib['name']}: a value is used twice")
    return Enum(node.attrib["name"], _primitive(node), flags, node.get("description", ""), tuple(values))


def _message(
    node: ElementTree.Element, types: dict[str, Type | Enum], dimensions: dict[str, tuple[int, int]]
) -> Message:
    name = node.attrib["name"]
    description = node.get("description", "")
    groups = []
    for group in node.findall("group"):
        entry_name = ENTRY_NAMES.get((name, group.attrib["name"]))
        if entry_name is None:
            raise SchemaError(f"{name}.{group.attrib['name']}: no entry name in ENTRY_NAMES")
        entry = _block(entry_name, group, types)
        if entry.length != int(group.attrib["blockLength"]):
            raise SchemaError(f"{name}.{group.attrib['name']}: blockLength is not {entry.length}")
        count_min, count_max = dimensions[group.attrib["dimensionType"]]
        groups.append(Group(group.attrib["name"], int(group.attrib["id"]), entry, count_min, count_max))
    data = tuple(Data(child.attrib["name"], int(child.attrib["id"])) for child in node.findall("data"))
    unknown = {child.tag for child in node} - {"field", "group", "data"}
    if unknown:
        raise SchemaError(f"{name}: unknown elements {unknown}")
    block = _block(name, node, types)
    if block.length != int(node.attrib["blockLength"]):
        raise SchemaError(f"{name}: blockLength is not {block.length}")
    return Message(name, int(node.attrib["id"]), description, block, tuple(groups), data)


def _block(name: str, node: ElementTree.Element, types: dict[str, Type | Enum]) -> Block:
    fields = []
    offset = 0
    for child in node.findall("field"):
        field = Field(
            child.attrib["name"],
            int(child.attrib["id"]),
            types[child.attrib["type"]],
            int(child.attrib["offset"]),
            child.get("description", ""),
        )
        if field.offset != offset:
            raise SchemaError(f"{name}.{field.name}: offset {field.offset}, expected {offset}")
        offset += field.type.size
        fields.append(field)
    return Block(name, offset, tuple(fields), node.get("description", ""))
