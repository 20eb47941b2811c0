"""Decoders that others wrote, fed with our XML alone, must read the golden frames as we do.

Two packages from PyPI. What they cannot do is stated here and nothing else is left out:

* Both read a `uint8` array (keys, signatures, digests) as its first byte, and `sbe` then takes what follows
  for the next field. So they are given the XML as published for messages without such arrays, and for all
  messages a copy in which every array of 8n bytes is split into n `uint64` fields: a change of names, not of
  one byte.
* `sbe` reads one byte of variable data and cannot encode it, `sbedecoder` does not know variable data: of
  `Genesis.genesis` only the length and the first byte are compared, and only by `sbe`.
* `sbe` 0.4.3 cannot encode a set with the current release of its own dependency `bitstring`; where it
  encodes, sets are declared as the numbers they are.
* Neither knows the framing header, so both start at the SBE header.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import sbe
import sbedecoder

from tests.golden.kit import SCHEMA, GoldenCase, cases, without_text_numbers
from zexchange.wire.messages import FRAME_HEADER_BYTES

CASES = list(cases())
ARRAYS = {
    node.attrib["name"]: int(node.attrib["length"])
    for node in ElementTree.parse(SCHEMA).iter("type")
    if int(node.get("length", "1")) > 1
}
NAMESPACE = "{http://fixprotocol.io/2016/sbe}"
MESSAGES_WITH_ARRAYS = {
    message.attrib["name"]
    for message in ElementTree.parse(SCHEMA).iter(NAMESPACE + "message")
    if any(field.attrib["type"] in ARRAYS for field in message.iter("field"))
}
MESSAGES_WITH_DATA = {"Genesis"}


CHOICES = {
    choice.attrib["name"]: 1 << int(choice.text or "") for choice in ElementTree.parse(SCHEMA).iter("choice")
}
SETS = {node.attrib["name"] for node in ElementTree.parse(SCHEMA).iter("set")}


def schema_without_arrays(*, sets_as_numbers: bool = False) -> bytes:
    """The XML with every byte array split into uint64 fields at the same place."""
    tree = ElementTree.parse(SCHEMA)
    for field in tree.iter("field"):
        if sets_as_numbers and field.attrib["type"] in SETS:
            field.set("type", "U8")
    for block in [*tree.iter(NAMESPACE + "message"), *tree.iter("group")]:
        for position, field in reversed(list(enumerate(block))):
            length = ARRAYS.get(field.get("type", ""))
            if length is None:
                continue
            block.remove(field)
            for word in reversed(range(length // 8)):
                attributes = {
                    "name": f"{field.attrib['name']}{word}",
                    "id": str(1000 * (word + 1) + int(field.attrib["id"])),
                    "type": "U64",
                    "offset": str(int(field.attrib["offset"]) + 8 * word),
                }
                block.insert(position, ElementTree.Element("field", attributes))
    file = io.BytesIO()
    tree.write(file, encoding="utf-8", xml_declaration=True)
    return file.getvalue()


def split_arrays(fields: dict[str, Any]) -> dict[str, Any]:
    """Golden fields as the split XML names them: hex of 8n bytes becomes n numbers."""
    split: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            split[name] = [split_arrays(entry) for entry in value]
        elif isinstance(value, str) and len(value) in (64, 128):
            data = bytes.fromhex(value)
            for word in range(len(data) // 8):
                split[f"{name}{word}"] = int.from_bytes(data[8 * word : 8 * word + 8], "little")
        else:
            split[name] = value
    return split


def expected(case: GoldenCase) -> dict[str, Any]:
    return split_arrays(without_text_numbers(case.fields))


def without_reserved(fields: dict[str, Any]) -> dict[str, Any]:
    """Drop the reserved fields, which the golden files leave out, after checking that they are zero."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            kept[name] = [without_reserved(entry) for entry in value]
        elif name.startswith("reserved") or (name == "flags" and value == 0):
            assert value == 0
        else:
            kept[name] = value
    return kept


@pytest.fixture(scope="module")
def sbe_published() -> Any:
    with SCHEMA.open("rb") as file:
        return sbe.Schema.parse(file)


@pytest.fixture(scope="module")
def sbe_split() -> Any:
    return sbe.Schema.parse(io.BytesIO(schema_without_arrays()))


@pytest.fixture(scope="module")
def sbe_numbers() -> Any:
    return sbe.Schema.parse(io.BytesIO(schema_without_arrays(sets_as_numbers=True)))


@pytest.fixture(scope="module")
def sbedecoder_published() -> Any:
    return sbedecoder_schema(SCHEMA)


@pytest.fixture(scope="module")
def sbedecoder_split(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("schema") / "split.xml"
    path.write_bytes(schema_without_arrays())
    return sbedecoder_schema(path)


def sbedecoder_schema(path: Path) -> Any:
    schema = sbedecoder.SBESchema()
    schema.parse(str(path))
    return schema


def read_with_sbe(schema: Any, case: GoldenCase) -> dict[str, Any]:
    decoded = schema.decode(case.frame[FRAME_HEADER_BYTES:])
    assert decoded.message_name == case.message
    return without_reserved(decoded.value)


def read_with_sbedecoder(schema: Any, case: GoldenCase) -> dict[str, Any]:
    message = sbedecoder.SBEMessage.parse_message(schema, case.frame[FRAME_HEADER_BYTES:])
    assert message.name == case.message
    fields = {
        field.original_name: sbedecoder_value(field)
        for field in message.fields
        if field.original_name not in ("blockLength", "templateId", "schemaId", "version")
    }
    for group in message.groups:
        fields[group.original_name] = [
            {field.original_name: sbedecoder_value(field) for field in entry.fields}
            for entry in group.repeating_groups
        ]
    return without_reserved(fields)


def sbedecoder_value(field: Any) -> Any:
    if isinstance(field, sbedecoder.message.EnumMessageField):
        return field.enumerant
    if isinstance(field, sbedecoder.message.SetMessageField):
        return [name for name in field.value.split(", ") if name]
    return field.value


AS_PUBLISHED = [case for case in CASES if case.message not in MESSAGES_WITH_ARRAYS | MESSAGES_WITH_DATA]
FIXED_AND_GROUPS = [case for case in CASES if case.message not in MESSAGES_WITH_DATA]


def test_the_messages_that_need_a_split_schema() -> None:
    assert {
        "SignedBatch",
        "OperatorBatch",
        "EpochOpen",
        "Challenge",
        "Establish",
        "EstablishmentAck",
        "Definitions",
    } == MESSAGES_WITH_ARRAYS


@pytest.mark.parametrize("case", AS_PUBLISHED, ids=str)
def test_sbe_reads_the_published_schema(case: GoldenCase, sbe_published: Any) -> None:
    assert read_with_sbe(sbe_published, case) == expected(case)


@pytest.mark.parametrize("case", FIXED_AND_GROUPS, ids=str)
def test_sbe_reads_every_byte(case: GoldenCase, sbe_split: Any) -> None:
    assert read_with_sbe(sbe_split, case) == expected(case)


@pytest.mark.parametrize("case", FIXED_AND_GROUPS, ids=str)
def test_sbe_writes_the_same_bytes(case: GoldenCase, sbe_numbers: Any) -> None:
    message = sbe_numbers.messages[case.template_id]
    fields = for_encoding(message, expected(case))
    assert sbe_numbers.encode(message, fields) == case.frame[FRAME_HEADER_BYTES:]


def for_encoding(block: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """Put the reserved fields back, as zero, and turn sets into numbers."""
    full: dict[str, Any] = {}
    for field in block.fields:
        value = fields.get(field.name, 0)
        if isinstance(field, sbe.Group):
            full[field.name] = [for_encoding(field, entry) for entry in value]
        elif isinstance(value, list):
            full[field.name] = sum(CHOICES[name] for name in value)
        else:
            full[field.name] = value
    return full


def test_sbe_reads_the_length_of_variable_data(sbe_published: Any) -> None:
    (case,) = (case for case in CASES if case.message == "Genesis")
    fields = read_with_sbe(sbe_published, case)
    genesis = bytes.fromhex(case.fields["genesis"])
    assert fields["requestId"] == int(case.fields["requestId"])
    assert fields["genesis"] == {"length": len(genesis), "varData": genesis[0]}


@pytest.mark.parametrize("case", AS_PUBLISHED, ids=str)
def test_sbedecoder_reads_the_published_schema(case: GoldenCase, sbedecoder_published: Any) -> None:
    assert read_with_sbedecoder(sbedecoder_published, case) == expected(case)


@pytest.mark.parametrize("case", FIXED_AND_GROUPS, ids=str)
def test_sbedecoder_reads_every_byte(case: GoldenCase, sbedecoder_split: Any) -> None:
    assert read_with_sbedecoder(sbedecoder_split, case) == expected(case)
