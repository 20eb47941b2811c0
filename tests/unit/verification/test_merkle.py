"""RFC 6962 trees: published vectors, every tree up to 70 leaves, and proofs broken in every small way."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import shared_data
from zexchange.verification import merkle
from zexchange.verification.merkle import CompactRange, ProofInvalid

SIZES = range(71)

# The leaves and tree heads every Certificate Transparency implementation is tested with.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOT_OF_8 = bytes.fromhex("5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328")


def leaves_of(size: int) -> list[bytes]:
    return [merkle.leaf_hash(b"leaf %d" % index) for index in range(size)]


def recursive_root(leaf_hashes: list[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1, word for word."""
    if not leaf_hashes:
        return hashlib.sha256(b"").digest()
    if len(leaf_hashes) == 1:
        return leaf_hashes[0]
    split = 1
    while split * 2 < len(leaf_hashes):
        split *= 2
    left, right = recursive_root(leaf_hashes[:split]), recursive_root(leaf_hashes[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def breakages(proof: list[bytes]) -> Iterator[list[bytes]]:
    """The proof with one bit flipped, an element removed, added, doubled, cut, swapped."""
    for at in range(len(proof)):
        yield [*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]]
        yield [*proof[:at], proof[at][:-1] + bytes([proof[at][-1] ^ 0x80]), *proof[at + 1 :]]
        yield [*proof[:at], proof[at][:31], *proof[at + 1 :]]
        yield [*proof[:at], proof[at] + b"\x00", *proof[at + 1 :]]
        yield [*proof[:at], b"", *proof[at + 1 :]]
        yield [*proof[:at], *proof[at + 1 :]]
        yield [*proof[:at], proof[at], *proof[at:]]
    yield [*proof, bytes(32)]
    yield [bytes(32), *proof]
    yield [*proof, merkle.EMPTY_ROOT]
    if len(proof) > 1 and proof[0] != proof[-1]:
        yield [proof[-1], *proof[1:-1], proof[0]]


def refused(verify: Callable[..., object], *arguments: Any) -> None:
    with pytest.raises(ProofInvalid):
        verify(*arguments)


def test_known_tree_head() -> None:
    assert merkle.root([merkle.leaf_hash(leaf) for leaf in CT_LEAVES]) == CT_ROOT_OF_8
    assert merkle.root([]) == merkle.EMPTY_ROOT == hashlib.sha256(b"").digest()
    assert merkle.leaf_hash(b"") == hashlib.sha256(b"\x00").digest()


@pytest.mark.parametrize("size", SIZES)
def test_root_and_compact_range_follow_the_definition(size: int) -> None:
    leaves = leaves_of(size)
    compact = CompactRange()
    for leaf in leaves:
        compact.append(leaf)
    assert merkle.root(leaves) == compact.root() == recursive_root(leaves)
    assert compact.size == size
    assert len(compact.hashes) == size.bit_count()
    restored = CompactRange(compact.size, compact.hashes)
    restored.append(merkle.leaf_hash(b"one more"))
    assert restored.root() == recursive_root([*leaves, merkle.leaf_hash(b"one more")])
    assert compact.root() == recursive_root(leaves), "a restored range is independent of its origin"


@pytest.mark.parametrize("size", SIZES)
def test_inclusion_of_every_leaf(size: int) -> None:
    leaves = leaves_of(size)
    root = merkle.root(leaves)
    for index, leaf in enumerate(leaves):
        proof = merkle.inclusion_proof(leaves, index)
        merkle.verify_inclusion(leaf, index, size, proof, root)
        refused(merkle.verify_inclusion, merkle.leaf_hash(b"other"), index, size, proof, root)
        refused(merkle.verify_inclusion, leaf, index, size, proof, merkle.leaf_hash(b"other"))
        for other_index in {index - 1, index + 1, index ^ 1, size} - {index}:
            refused(merkle.verify_inclusion, leaf, other_index, size, proof, root)


@pytest.mark.parametrize("size", SIZES)
def test_consistency_of_every_prefix(size: int) -> None:
    leaves = leaves_of(size)
    root = merkle.root(leaves)
    for old_size in range(size + 1):
        old_root = merkle.root(leaves[:old_size])
        proof = merkle.consistency_proof(leaves, old_size)
        merkle.verify_consistency(old_size, old_root, size, root, proof)
        if old_size > 0:
            refused(merkle.verify_consistency, old_size, merkle.leaf_hash(b"other"), size, root, proof)
        if 0 < old_size < size:
            refused(merkle.verify_consistency, old_size, old_root, size, merkle.leaf_hash(b"other"), proof)
            refused(merkle.verify_consistency, old_size, root, size, old_root, proof)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 31, 33, 64, 70])
def test_broken_proofs_are_refused(size: int) -> None:
    leaves = leaves_of(size)
    root = merkle.root(leaves)
    for index in range(size):
        for broken in breakages(merkle.inclusion_proof(leaves, index)):
            refused(merkle.verify_inclusion, leaves[index], index, size, broken, root)
    for old_size in range(size + 1):
        old_root = merkle.root(leaves[:old_size])
        for broken in breakages(merkle.consistency_proof(leaves, old_size)):
            refused(merkle.verify_consistency, old_size, old_root, size, root, broken)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_hash_lengths_are_checked(length: int) -> None:
    good, bad = bytes(32), bytes(length)
    refused(merkle.verify_inclusion, bad, 0, 1, [], bad)
    refused(merkle.verify_inclusion, good, 0, 1, [], bad)
    refused(merkle.verify_inclusion, good, 0, 2, [bad], good)
    refused(merkle.verify_consistency, 1, bad, 2, good, [good])
    refused(merkle.verify_consistency, 1, good, 2, bad, [good])
    refused(merkle.verify_consistency, 1, good, 2, good, [bad])
    refused(merkle.verify_consistency, 0, merkle.EMPTY_ROOT, 1, bad, [])
    refused(merkle.verify_consistency, 0, bad, 1, good, [])
    refused(merkle.node_hash, good, bad)
    refused(merkle.node_hash, bad, good)
    refused(CompactRange().append, bad)
    refused(CompactRange, 1, [bad])


def test_impossible_sizes_are_refused() -> None:
    refused(merkle.verify_inclusion, bytes(32), 0, 0, [], bytes(32))
    refused(merkle.verify_inclusion, bytes(32), -1, 1, [], bytes(32))
    refused(merkle.verify_consistency, 2, bytes(32), 1, bytes(32), [])
    refused(merkle.verify_consistency, -1, bytes(32), 1, bytes(32), [])
    refused(merkle.verify_consistency, 0, bytes(32), 1, bytes(32), [])
    refused(merkle.verify_consistency, 0, merkle.EMPTY_ROOT, 0, bytes(32), [])
    refused(merkle.inclusion_proof, [], 0)
    refused(merkle.inclusion_proof, leaves_of(3), 3)
    refused(merkle.inclusion_proof, leaves_of(3), -1)
    refused(merkle.consistency_proof, leaves_of(3), 4)
    refused(merkle.consistency_proof, leaves_of(3), -1)
    refused(CompactRange, 3, [bytes(32)])
    refused(CompactRange, -1, [])


def published(name: str) -> Path:
    return shared_data("vectors") / "merkle" / name


def test_published_tree_heads() -> None:
    facts = json.loads(published("rfc6962_tree_heads.json").read_text())
    hashes = [merkle.leaf_hash(bytes.fromhex(text)) for text in facts["leaf_inputs_hex"]]
    assert [one.hex() for one in hashes] == facts["leaf_hashes_hex"]
    for size, expected in enumerate(facts["root_by_size_hex"]):
        assert merkle.root(hashes[:size]).hex() == expected


def verdict(verify: Callable[..., None], *arguments: Any) -> bool:
    try:
        verify(*arguments)
    except ProofInvalid:
        return False
    return True


def decoded(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def test_published_inclusion_proofs() -> None:
    cases = [json.loads(line) for line in published("rfc6962_inclusion.jsonl").read_text().splitlines()]
    assert len(cases) == 98
    for case in cases:
        proof = [decoded(element) for element in case["proof"] or []]
        accepted = verdict(
            merkle.verify_inclusion,
            decoded(case["leafHash"]),
            case["leafIdx"],
            case["treeSize"],
            proof,
            decoded(case["root"]),
        )
        assert accepted is not case["wantErr"], case["case"]


def test_published_consistency_proofs() -> None:
    cases = [json.loads(line) for line in published("rfc6962_consistency.jsonl").read_text().splitlines()]
    assert len(cases) == 98
    for case in cases:
        proof = [decoded(element) for element in case["proof"] or []]
        accepted = verdict(
            merkle.verify_consistency,
            case["size1"],
            decoded(case["root1"]),
            case["size2"],
            decoded(case["root2"]),
            proof,
        )
        assert accepted is not case["wantErr"], case["case"]


def test_stored_tree_proves_what_the_functions_prove() -> None:
    tree = merkle.StoredTree()
    leaves = leaves_of(SIZES[-1])
    for leaf in leaves:
        tree.append(leaf)
    assert tree.size == len(leaves)
    for size in SIZES:
        assert tree.root(size) == merkle.root(leaves[:size])
        for index in range(size):
            assert tree.inclusion_proof(index, size) == merkle.inclusion_proof(leaves[:size], index)
        for old_size in range(size + 1):
            assert tree.consistency_proof(old_size, size) == merkle.consistency_proof(leaves[:size], old_size)


def test_stored_tree_refuses_what_it_does_not_have() -> None:
    tree = merkle.StoredTree()
    tree.append(merkle.leaf_hash(b""))
    for call in (
        lambda: tree.root(2),
        lambda: tree.root(-1),
        lambda: tree.inclusion_proof(1, 1),
        lambda: tree.inclusion_proof(0, 2),
        lambda: tree.consistency_proof(2, 1),
        lambda: tree.append(b"short"),
    ):
        with pytest.raises(ProofInvalid):
            call()
