"""Signed notes: the published cases, the vector of our own key, and what must be refused."""

from __future__ import annotations

import base64
import json

import pytest
from nacl.signing import SigningKey

from tests.conftest import shared_data
from zexchange.verification.merkle import leaf_hash
from zexchange.verification.merkle import root as tree_root
from zexchange.verification.note import (
    MAX_SIGNATURES,
    NoteFault,
    NoteInvalid,
    NoteKey,
    TreeHead,
    open_note,
    sign_note,
)

KEY = SigningKey(bytes([1]) * 32)
NAME = "clob.example/dev/shard/0"
NOTE = (
    "clob.example/dev/shard/0\n"
    "3\n"
    "rra8/idLcKFPsGel5VeCZNsPqbUa9eC6FZFY8yngbnc=\n"
    "\n"
    "— clob.example/dev/shard/0 "
    "fJ6x/kKNc2uaVtx2gDkSvRLuCQTAZmHdUGPsKbFvkoQhPqoR759s2KcW3DzSYwQWaEjbqolPVcpkkYcVYVmbvwL8pwo=\n"
).encode()
VKEY = "clob.example/dev/shard/0+7c9eb1fe+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"


def test_our_note_is_the_known_one() -> None:
    head = TreeHead(NAME, 3, tree_root(map(leaf_hash, (b"", b"\x00", b"\x10"))))
    assert sign_note(head.text(), NAME, KEY) == NOTE
    assert str(NoteKey(NAME, bytes(KEY.verify_key))) == VKEY
    note = open_note(NOTE, [NoteKey.parse(VKEY)])
    assert TreeHead.parse(note.text) == head
    assert [signature.name for signature in note.verified] == [NAME]


@pytest.mark.parametrize("position", range(len(NOTE)))
def test_no_byte_of_a_note_may_change(position: int) -> None:
    key = NoteKey.parse(VKEY)
    for flip in (0x01, 0x20, 0x80):
        changed = bytearray(NOTE)
        changed[position] ^= flip
        with pytest.raises(NoteInvalid):
            open_note(bytes(changed), [key])


@pytest.mark.parametrize("length", range(len(NOTE)))
def test_no_part_of_a_note_is_a_note(length: int) -> None:
    with pytest.raises(NoteInvalid):
        open_note(NOTE[:length], [NoteKey.parse(VKEY)])


def test_published_notes() -> None:
    published = json.loads(shared_data("vectors/merkle/signed_note_cases.json").read_text())
    for case in published["cases"]:
        note = base64.b64decode(case["note_base64"])
        trusted = [NoteKey.parse(text) for text in case["trusted_keys"]]
        if case["expect"] == "ok":
            opened = open_note(note, trusted)
            assert [one.name for one in opened.verified] == case["verified"], case["name"]
            assert [one.name for one in opened.unverified] == case["unverified"], case["name"]
        else:
            with pytest.raises(NoteInvalid) as refused:
                open_note(note, trusted)
            assert case["expect"] == f"error: {refused.value.fault}", case["name"]


def test_published_keys() -> None:
    published = json.loads(shared_data("vectors/merkle/signed_note_cases.json").read_text())
    for text in published["valid_keys"]:
        assert str(NoteKey.parse(text)) == text
        bad = [text[:end] for end in range(len(text))] + [text[start:] for start in range(1, len(text))]
        bad += [text[:at] + chr(ord(text[at]) + 1) + text[at + 1 :] for at in range(len(text))]
        for changed in bad:
            with pytest.raises(NoteInvalid):
                NoteKey.parse(changed)
    for text in published["invalid_keys"][:2]:
        with pytest.raises(NoteInvalid):
            NoteKey.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n3\n",
        "origin\n3\nAAAA\n",
        f"origin\n03\n{'A' * 43}=\n",
        f"origin\n-3\n{'A' * 43}=\n",
        f"origin\n+3\n{'A' * 43}=\n",
        f"origin\n3 \n{'A' * 43}=\n",
        f"origin\n٣\n{'A' * 43}=\n",
        f"origin\n9223372036854775808\n{'A' * 43}=\n",
        f"origin\n{'9' * 5000}\n{'A' * 43}=\n",
        f"\n3\n{'A' * 43}=\n",
        f"origin\n3\n{'A' * 42}B=\n",
        f"origin\n3\n{'A' * 43}=\nextension\n",
        f"origin\n3\n{'A' * 43}=",
    ],
)
def test_a_tree_head_has_one_form(text: str) -> None:
    with pytest.raises(NoteInvalid):
        TreeHead.parse(text)


def test_signatures_are_counted() -> None:
    lines = NOTE.decode().split("\n\n")
    assert open_note((lines[0] + "\n\n" + lines[1] * MAX_SIGNATURES).encode(), [NoteKey.parse(VKEY)])
    with pytest.raises(NoteInvalid) as refused:
        open_note((lines[0] + "\n\n" + lines[1] * (MAX_SIGNATURES + 1)).encode(), [NoteKey.parse(VKEY)])
    assert refused.value.fault is NoteFault.MALFORMED


@pytest.mark.parametrize(("text", "name"), [("a\n\nb\n", "n"), ("a", "n"), ("a\x00\n", "n"), ("a\n", "n n")])
def test_what_cannot_be_written_is_not_signed(text: str, name: str) -> None:
    with pytest.raises(NoteInvalid):
        sign_note(text, name, KEY)
