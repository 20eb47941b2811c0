"""Merkle trees of RFC 6962 (Certificate Transparency) with SHA-256: roots, proofs, compact ranges.

A leaf hashes as `H(0x00 || data)`, an inner node as `H(0x01 || left || right)`, the empty tree as `H("")`. A
tree of n leaves is split at the largest power of two below n, so a lone right subtree is promoted unchanged.

Every hash that comes from outside is checked for its length: a verifier that does not accepts forged proofs
whose "hashes" have another length. `verify_inclusion` and `verify_consistency` return nothing and raise
`ProofInvalid`, so that a caller cannot forget to look at a result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "CompactRange",
    "ProofInvalid",
    "StoredTree",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


class ProofInvalid(ValueError):
    """A proof does not prove what it claims, or a hash, an index or a size in it is impossible."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf with this data, 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of the inner node over two subtree hashes. Raises ProofInvalid when one has not 32 bytes."""
    _require_hash(left, "left")
    _require_hash(right, "right")
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """Root of the tree over these leaf hashes (not leaf data), `EMPTY_ROOT` for none."""
    compact = CompactRange()
    for one in leaf_hashes:
        compact.append(one)
    return compact.root()


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Audit path of leaf `index` in the tree over all the leaf hashes, from the leaf upwards.

    Raises ProofInvalid when there is no such leaf.
    """
    size = len(leaf_hashes)
    if not 0 <= index < size:
        raise ProofInvalid(f"no leaf {index} in a tree of {size}")
    if size == 1:
        return []
    split = _split_point(size)
    if index < split:
        return [*inclusion_proof(leaf_hashes[:split], index), root(leaf_hashes[split:])]
    return [*inclusion_proof(leaf_hashes[split:], index - split), root(leaf_hashes[:split])]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], tree_root: bytes) -> None:
    """Checks that `leaf` (a leaf hash) is leaf `index` of the tree of `size` leaves with this root.

    Raises ProofInvalid.
    """
    _require_hash(leaf, "leaf hash")
    _require_hash(tree_root, "root")
    _require_hashes(proof)
    if not 0 <= index < size:
        raise ProofInvalid(f"no leaf {index} in a tree of {size}")
    # RFC 9162, section 2.1.3.2. `node` and `last` are the positions of the leaf's ancestor and of the last
    # node on the same level; a node without a sibling moves up without consuming an element of the proof.
    node, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofInvalid("the proof is too long")
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while node != 0 and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofInvalid("the proof is too short")
    if computed != tree_root:
        raise ProofInvalid("the proof leads to another root")


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """Proof that the tree of the first `old_size` leaves is a prefix of the tree over all of them.

    Empty when the sizes are equal or the old tree is empty. Raises ProofInvalid when `old_size` is out of
    range.
    """
    size = len(leaf_hashes)
    if not 0 <= old_size <= size:
        raise ProofInvalid(f"a tree of {size} leaves has no prefix of {old_size}")
    if old_size in (0, size):
        return []
    return _subproof(leaf_hashes, old_size, old_root_known=True)


def _subproof(leaf_hashes: Sequence[bytes], old_size: int, *, old_root_known: bool) -> list[bytes]:
    """SUBPROOF of RFC 9162, section 2.1.4.1; `old_root_known`: this subtree is the whole old tree."""
    size = len(leaf_hashes)
    if old_size == size:
        return [] if old_root_known else [root(leaf_hashes)]
    split = _split_point(size)
    if old_size <= split:
        left = _subproof(leaf_hashes[:split], old_size, old_root_known=old_root_known)
        return [*left, root(leaf_hashes[split:])]
    right = _subproof(leaf_hashes[split:], old_size - split, old_root_known=False)
    return [*right, root(leaf_hashes[:split])]


def verify_consistency(
    old_size: int, old_root: bytes, size: int, tree_root: bytes, proof: Sequence[bytes]
) -> None:
    """Checks that (old_size, old_root) is a prefix of the tree (size, tree_root). Raises ProofInvalid.

    An empty old tree is a prefix of every tree: its root must be `EMPTY_ROOT` and its proof empty.
    """
    if not 0 <= old_size <= size:
        raise ProofInvalid(f"a tree of {size} leaves has no prefix of {old_size}")
    if old_size in (0, size) and proof:
        raise ProofInvalid("the proof is too long")
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise ProofInvalid("the old tree is empty but its root is not that of the empty tree")
    if old_size == size:
        # Nothing is hashed, so the two roots are compared as they are.
        if old_root != tree_root:
            raise ProofInvalid("two roots for one size")
        return
    _require_hash(old_root, "old root")
    _require_hash(tree_root, "root")
    _require_hashes(proof)
    if old_size == 0:
        return
    if not proof:
        raise ProofInvalid("the proof is too short")
    # RFC 9162, section 2.1.4.2.
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    computed_old = computed_new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofInvalid("the proof is too long")
        if node & 1 or node == last:
            computed_old = node_hash(sibling, computed_old)
            computed_new = node_hash(sibling, computed_new)
            while node != 0 and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            computed_new = node_hash(computed_new, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofInvalid("the proof is too short")
    if computed_old != old_root:
        raise ProofInvalid("the proof leads to another old root")
    if computed_new != tree_root:
        raise ProofInvalid("the proof leads to another root")


class CompactRange:
    """A growing tree of which only the roots of its perfect subtrees are kept, largest first.

    Appending costs amortised one hash, the root at most log2(size); `hashes` and `size` restore it.
    """

    __slots__ = ("_hashes", "_size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """An empty range, or the one of `size` leaves with these subtree roots, largest first.

        Raises ProofInvalid when their number does not fit the size.
        """
        if size < 0 or len(hashes) != size.bit_count():
            raise ProofInvalid(f"{len(hashes)} subtree roots cannot make a tree of {size} leaves")
        _require_hashes(hashes)
        self._size = size
        self._hashes = list(hashes)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    @property
    def hashes(self) -> list[bytes]:
        """Roots of the perfect subtrees, largest first."""
        return list(self._hashes)

    def append(self, leaf: bytes) -> None:
        """Adds a leaf hash. Raises ProofInvalid when it has not 32 bytes."""
        _require_hash(leaf, "leaf hash")
        # The new leaf completes one perfect subtree for every trailing one bit of the size, as a carry does.
        computed, size = leaf, self._size
        while size & 1:
            computed = node_hash(self._hashes.pop(), computed)
            size >>= 1
        self._hashes.append(computed)
        self._size += 1

    def root(self) -> bytes:
        """Root of the tree, `EMPTY_ROOT` if there is no leaf."""
        if not self._hashes:
            return EMPTY_ROOT
        computed = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            computed = node_hash(left, computed)
        return computed


class StoredTree:
    """A tree that only grows and keeps all nodes of its complete subtrees: proofs of any size it had take
    O(log² n) instead of hashing everything again. 64 bytes per leaf.
    """

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]

    @property
    def size(self) -> int:
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> None:
        """Adds a leaf hash."""
        _require_hash(leaf, "leaf hash")
        self._levels[0] += leaf
        level, count = 0, self.size
        while count & 1 == 0:
            nodes = self._levels[level]
            if level + 1 == len(self._levels):
                self._levels.append(bytearray())
            left, right = nodes[-2 * HASH_BYTES : -HASH_BYTES], nodes[-HASH_BYTES:]
            self._levels[level + 1] += node_hash(bytes(left), bytes(right))
            level, count = level + 1, count >> 1

    def root(self, size: int) -> bytes:
        """Root of the first `size` leaves. Raises ProofInvalid when there are fewer."""
        self._require_size(size)
        return self._range_root(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """As the function of this name, over the first `size` leaves. Raises ProofInvalid."""
        self._require_size(size)
        if not 0 <= index < size:
            raise ProofInvalid(f"no leaf {index} in a tree of {size}")
        proof: list[bytes] = []
        begin, end = 0, size
        while end - begin > 1:
            split = begin + _split_point(end - begin)
            if index < split:
                proof.append(self._range_root(split, end))
                end = split
            else:
                proof.append(self._range_root(begin, split))
                begin = split
        return proof[::-1]

    def consistency_proof(self, old_size: int, size: int) -> list[bytes]:
        """As the function of this name, over the first `size` leaves. Raises ProofInvalid."""
        self._require_size(size)
        if not 0 <= old_size <= size:
            raise ProofInvalid(f"a tree of {size} leaves has no prefix of {old_size}")
        if old_size in (0, size):
            return []
        proof: list[bytes] = []
        begin, end = 0, size
        while end != old_size:
            split = begin + _split_point(end - begin)
            if old_size <= split:
                proof.append(self._range_root(split, end))
                end = split
            else:
                proof.append(self._range_root(begin, split))
                begin = split
        if begin:
            proof.append(self._range_root(begin, end))
        return proof[::-1]

    def _range_root(self, begin: int, end: int) -> bytes:
        """Root of a subtree; a complete one is kept."""
        size = end - begin
        if size & (size - 1) == 0:
            level = size.bit_length() - 1
            position = (begin >> level) * HASH_BYTES
            return bytes(self._levels[level][position : position + HASH_BYTES])
        split = begin + _split_point(size)
        return node_hash(self._range_root(begin, split), self._range_root(split, end))

    def _require_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise ProofInvalid(f"a tree of {self.size} leaves has no prefix of {size}")


def _split_point(size: int) -> int:
    """Largest power of two below `size`, which must be at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _require_hash(value: bytes, name: str) -> None:
    if len(value) != HASH_BYTES:
        raise ProofInvalid(f"{name}: {len(value)} bytes instead of {HASH_BYTES}")


def _require_hashes(values: Sequence[bytes]) -> None:
    for number, value in enumerate(values):
        _require_hash(value, f"hash {number}")
