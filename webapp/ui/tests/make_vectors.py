"""Writes webapp/ui/tests/unit/vectors.json: proofs and notes by the Python code, for the TypeScript that checks them.

python webapp/ui/tests/make_vectors.py    (tests/webapp/test_page.py fails when the file is stale)
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from nacl.signing import SigningKey  # noqa: E402

from zexchange.reference.encoding import NO_ENTRY, _account_leaf  # noqa: E402
from zexchange.reference.state import Account, Balance  # noqa: E402
from zexchange.verification.checkpoint import CheckpointLeaf, ShardTip  # noqa: E402
from zexchange.verification.merkle import (  # noqa: E402
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root,
)
from zexchange.verification.note import NoteKey, TreeHead, sign_note  # noqa: E402

OUTPUT = Path(__file__).resolve().parent / "unit" / "vectors.json"
SIZES = (1, 2, 3, 5, 8, 13, 21)
NAME = "golden/settlement"
ACCOUNT_ID = 5


def merkle() -> dict[str, object]:
    """Every inclusion and consistency proof of some small trees."""
    leaves = [f"leaf {number}".encode() for number in range(max(SIZES))]
    hashes = [leaf_hash(leaf) for leaf in leaves]
    return {
        "leaves": [leaf.hex() for leaf in leaves],
        "roots": {str(size): root(hashes[:size]).hex() for size in SIZES},
        "inclusion": [
            {"index": index, "size": size, "hashes": [h.hex() for h in inclusion_proof(hashes[:size], index)]}
            for size in SIZES
            for index in range(size)
        ],
        "consistency": [
            {"old": old, "new": new, "hashes": [h.hex() for h in consistency_proof(hashes[:new], old)]}
            for new in SIZES
            for old in SIZES
            if old <= new
        ],
    }


def state() -> dict[str, object]:
    """One account, its leaf by the reference engine, in a state tree of seven subtrees, and the path from it."""
    data = _account_leaf(
        Account(
            account_id=ACCOUNT_ID, report_seq=12,
            balances={1: Balance(150_000_000, 25_000_000), 2: Balance(9_876_543_210, 1)},
            fee_discount_ppm=250_000, trade_group=3, orders_max=40, orders_per_second=5,
            rate_second=1_700_000_000, rate_count=2,
        )
    )  # fmt: skip
    leaves = [NO_ENTRY] * 7
    leaves[ACCOUNT_ID] = data
    hashes = [leaf_hash(leaf) for leaf in leaves]
    subtrees = [
        (root(hashes), len(hashes)) if number == 1 else (root([leaf_hash(NO_ENTRY)]), 1)
        for number in range(7)
    ]
    tops = [
        leaf_hash(struct.pack("<4sIQ", b"ZXT1", number, count) + subtree)
        for number, (subtree, count) in enumerate(subtrees)
    ]
    return {
        "account_id": ACCOUNT_ID,
        "leaf": data.hex(),
        "no_entry": {
            "account_id": ACCOUNT_ID - 1, "leaf": NO_ENTRY.hex(),
            "hashes": [h.hex() for h in inclusion_proof(hashes, ACCOUNT_ID - 1)],
        },
        "hashes": [h.hex() for h in inclusion_proof(hashes, ACCOUNT_ID)],
        "subtrees": [{"leaves": str(count), "root": subtree.hex()} for subtree, count in subtrees],
        "state_root": root(tops).hex(),
    }  # fmt: skip


def checkpoints(state_root: str) -> dict[str, object]:
    """A run of signed checkpoints over a log of a few records."""
    key = SigningKey(hashlib.sha256(b"settlement key of the page's vectors").digest())
    records = [f"record {number}".encode() for number in range(24)]
    hashes = [leaf_hash(record) for record in records]
    tree, previous, entries, leaf_hashes = CompactRange(), bytes(32), [], []
    for number in range(12):
        size = 2 * number + 2
        tip = ShardTip(
            shard=0, log_size=size, log_root=root(hashes[:size]),
            chain=hashlib.sha256(bytes([number])).digest(), state_root=bytes.fromhex(state_root),
        )  # fmt: skip
        leaf = CheckpointLeaf(
            n=number, time_ns=1_700_000_000_000_000_000 + number, previous_leaf_hash=previous, shards=(tip,)
        ).encode()
        previous = leaf_hash(leaf)
        leaf_hashes.append(previous)
        tree.append(previous)
        note = sign_note(TreeHead(NAME, tree.size, tree.root()).text(), NAME, key).decode()
        entries.append({"number": number, "leaf": base64.b64encode(leaf).decode(), "note": note})
    return {
        "name": NAME,
        "public_key": bytes(key.verify_key).hex(),
        "verifier_key": str(NoteKey(NAME, bytes(key.verify_key))),
        "entries": entries,
        "leaf_hashes": [one.hex() for one in leaf_hashes],
        "records": [record.hex() for record in records],
        "record_proof": {
            "record_no": 5, "checkpoint": 7, "log_size": 16,
            "hashes": [h.hex() for h in inclusion_proof(hashes[:16], 5)],
        },
    }  # fmt: skip


def vectors() -> str:
    """The text of vectors.json."""
    account = state()
    return json.dumps(
        {
            "merkle": merkle(),
            "state": account,
            "checkpoints": checkpoints(str(account["state_root"])),
            "crc32": [
                {"text": text, "crc": zlib.crc32(text.encode())}
                for text in ("", "|", "60000.00:0.5000,59999.50:1|60000.50:2")
            ],
        },
        indent=1,
    ) + "\n"  # fmt: skip


if __name__ == "__main__":
    OUTPUT.write_text(vectors(), encoding="utf-8")
