"""Proofs of balances: what a signed checkpoint says about one account, checked from the bytes alone.

    note ──signature──▶ root of the settlement log ◀──hashes── checkpoint's leaf ──▶ state root of each shard
    state root ◀── seven subtrees, of which the accounts' ◀──hashes── the account's leaf: its balances

A proof is made by whoever has the engine in the state of the checkpoint, and is JSON, so that it can be kept and
handed on. Whoever checks it needs the settlement key and the number of the account. Nothing in a proof is said
twice: a byte that is altered is noticed. Pure, and without our C.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from zexchange.engine_types import AccountInState
from zexchange.verification.checkpoint import CheckpointInvalid, CheckpointLeaf, ShardTip, SignedCheckpoint
from zexchange.verification.merkle import ProofInvalid, leaf_hash, root, verify_inclusion
from zexchange.verification.note import NoteInvalid, NoteKey, TreeHead, open_note
from zexchange.wire.messages import Balance

__all__ = [
    "BalanceProof",
    "BalanceProofInvalid",
    "ProvenAccount",
    "ProvenShard",
    "ShardBalanceProof",
    "SubtreeProof",
    "make_balance_proof",
    "verify_balance_proof",
]

_SUBTREES = 7
_ACCOUNTS = 1
_TOP_LEAF = struct.Struct("<4sIQ32s")
_ACCOUNT = struct.Struct("<4sQQIIIIIQI4x")
_BALANCE = struct.Struct("<IQQ")
_NO_ENTRY = b"ZXN1"
_HASH_BYTES = 32
_NUMBER_MAX = 2**63 - 1


class BalanceProofInvalid(ValueError):
    """A proof that proves nothing; the text says where it fails."""


class SubtreeProof(Struct, frozen=True, forbid_unknown_fields=True):
    """One subtree of a state tree: how many leaves it has, and its root in hex."""

    leaves: str
    root: str


class ShardBalanceProof(Struct, frozen=True, forbid_unknown_fields=True):
    """What one shard's state says about the account. `leaf` is base64, or null where the accounts' subtree ends
    before it; `hashes` (hex, lowest first) lead from the leaf to the root of `subtrees[1]`, and the roots of all
    seven, in the order of the state tree, to the shard's `state_root` in the checkpoint."""

    shard: int
    leaf: str | None
    hashes: Sequence[str]
    subtrees: Sequence[SubtreeProof]


class BalanceProof(Struct, frozen=True, forbid_unknown_fields=True):
    """What a signed checkpoint says about an account. `note` is the checkpoint as it was signed, `leaf` its leaf in
    base64, and `hashes` (hex) lead from that to the root in the note."""

    account_id: str
    checkpoint: str
    note: str
    leaf: str
    hashes: Sequence[str]
    shards: Sequence[ShardBalanceProof]


class ProvenShard(Struct, frozen=True, kw_only=True):
    """The account in one shard, as of record `log_size - 1`."""

    shard: int
    log_size: int
    is_open: bool
    report_seq: int
    balances: tuple[Balance, ...]


class ProvenAccount(Struct, frozen=True, kw_only=True):
    """What was proved."""

    account_id: int
    checkpoint: int
    time_ns: int
    """Of the checkpoint, by settlement's clock."""
    shards: tuple[ProvenShard, ...]

    def balances(self) -> dict[int, Balance]:
        """By asset, over all shards, ascending."""
        total: dict[int, Balance] = {}
        for shard in self.shards:
            for one in shard.balances:
                so_far = total.get(one.asset_id, Balance(asset_id=one.asset_id))
                total[one.asset_id] = Balance(
                    asset_id=one.asset_id,
                    available=so_far.available + one.available,
                    held=so_far.held + one.held,
                )
        return dict(sorted(total.items()))


def make_balance_proof(
    account_id: int,
    number: int,
    checkpoint: SignedCheckpoint,
    hashes: Sequence[bytes],
    found: Sequence[AccountInState],
) -> BalanceProof:
    """The proof for checkpoint `number`: `hashes` lead from its leaf to the root in its note, `found` is the
    account in the state of every shard, ascending."""
    return BalanceProof(
        account_id=str(account_id),
        checkpoint=str(number),
        note=checkpoint.note.decode(),
        leaf=_base64(checkpoint.leaf),
        hashes=[one.hex() for one in hashes],
        shards=[
            ShardBalanceProof(
                shard=shard,
                leaf=None if one.leaf is None else _base64(one.leaf),
                hashes=[step.hex() for step in one.path],
                subtrees=[SubtreeProof(str(tree.leaves), tree.root.hex()) for tree in one.subtrees],
            )
            for shard, one in enumerate(found)
        ],
    )


def verify_balance_proof(proof: bytes | BalanceProof, key: NoteKey, account_id: int) -> ProvenAccount:
    """Checks a proof (JSON as it was served, or decoded) with the settlement's key; returns what it proves about
    this account.

    Raises BalanceProofInvalid.
    """
    if isinstance(proof, bytes):
        try:
            proof = msgspec.json.decode(proof, type=BalanceProof)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BalanceProofInvalid(f"this is no proof of a balance: {error}") from error
    try:
        return _verified(proof, key, account_id)
    except (NoteInvalid, CheckpointInvalid, ProofInvalid) as error:
        raise BalanceProofInvalid(str(error)) from error


def _verified(proof: BalanceProof, key: NoteKey, account_id: int) -> ProvenAccount:
    if _number(proof.account_id, "account_id") != account_id:
        raise BalanceProofInvalid(f"the proof is about account {proof.account_id}, not {account_id}")
    head = TreeHead.parse(open_note(proof.note.encode(), [key]).text)
    number = _number(proof.checkpoint, "checkpoint")
    if (head.origin, head.size) != (key.name, number + 1):
        raise BalanceProofInvalid(f"the note is not that of checkpoint {number} of {key.name}")
    leaf = _bytes(proof.leaf, "leaf")
    verify_inclusion(leaf_hash(leaf), number, head.size, _hashes(proof.hashes), head.root)
    checkpoint = CheckpointLeaf.decode(leaf, number)
    if [one.shard for one in proof.shards] != [tip.shard for tip in checkpoint.shards]:
        raise BalanceProofInvalid("the proof does not have exactly the shards of the checkpoint")
    return ProvenAccount(
        account_id=account_id,
        checkpoint=number,
        time_ns=checkpoint.time_ns,
        shards=tuple(
            _shard(one, tip, account_id) for one, tip in zip(proof.shards, checkpoint.shards, strict=True)
        ),
    )


def _shard(proof: ShardBalanceProof, tip: ShardTip, account_id: int) -> ProvenShard:
    if len(proof.subtrees) != _SUBTREES:
        raise BalanceProofInvalid(f"shard {tip.shard}: a state tree has {_SUBTREES} subtrees")
    counts = [_number(one.leaves, "leaves") for one in proof.subtrees]
    roots = _hashes([one.root for one in proof.subtrees])
    top = (
        leaf_hash(_TOP_LEAF.pack(b"ZXT1", tree, count, subtree_root))
        for tree, (count, subtree_root) in enumerate(zip(counts, roots, strict=True))
    )
    if root(top) != tip.state_root:
        raise BalanceProofInvalid(f"shard {tip.shard}: the subtrees are not those of the signed state")
    if proof.leaf is None:
        if account_id < counts[_ACCOUNTS] or proof.hashes:
            raise BalanceProofInvalid(f"shard {tip.shard}: the account's leaf is missing")
        return _closed(tip)
    leaf = _bytes(proof.leaf, "leaf")
    verify_inclusion(leaf_hash(leaf), account_id, counts[_ACCOUNTS], _hashes(proof.hashes), roots[_ACCOUNTS])
    if leaf == _NO_ENTRY:
        return _closed(tip)
    # From here on the bytes are what was signed: an error below is the signer's, not the messenger's.
    if len(leaf) < _ACCOUNT.size:
        raise BalanceProofInvalid(f"shard {tip.shard}: the leaf is no account's")
    tag, found_id, report_seq, count, *_ = _ACCOUNT.unpack_from(leaf)
    if (tag, found_id, len(leaf)) != (b"ZXA1", account_id, _ACCOUNT.size + count * _BALANCE.size):
        raise BalanceProofInvalid(f"shard {tip.shard}: the leaf is not that of account {account_id}")
    return ProvenShard(
        shard=tip.shard,
        log_size=tip.log_size,
        is_open=True,
        report_seq=report_seq,
        balances=tuple(
            Balance(asset_id=asset_id, available=available, held=held)
            for asset_id, available, held in _BALANCE.iter_unpack(leaf[_ACCOUNT.size :])
        ),
    )


def _closed(tip: ShardTip) -> ProvenShard:
    return ProvenShard(shard=tip.shard, log_size=tip.log_size, is_open=False, report_seq=0, balances=())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or str(int(text)) != text:
        raise BalanceProofInvalid(f"{what} is no number")
    number = int(text)
    if number > _NUMBER_MAX:
        raise BalanceProofInvalid(f"{what} is too large")
    return number


def _bytes(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = None
    # Also the bits that a decoder ignores: two texts must not mean the same.
    if data is None or _base64(data) != text:
        raise BalanceProofInvalid(f"{what} is no base64")
    return data


def _hashes(texts: Sequence[str]) -> list[bytes]:
    found = []
    for text in texts:
        try:
            one = bytes.fromhex(text)
        except ValueError:
            one = b""
        if len(one) != _HASH_BYTES or one.hex() != text:
            raise BalanceProofInvalid("a hash is 64 lower-case hex digits")
        found.append(one)
    return found
