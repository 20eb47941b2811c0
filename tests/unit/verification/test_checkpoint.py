"""Checkpoints: leaf encoding, the file, and the promise of one checkpoint per size through every crash."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import msgspec
import pytest

from tests.log_builder import OPERATOR, SETTLEMENT
from zexchange.runtime import durable
from zexchange.verification.checkpoint import (
    ZERO_HASH,
    CheckpointInvalid,
    CheckpointJournal,
    CheckpointLeaf,
    CheckpointLogCorrupt,
    CheckpointReader,
    LastSigned,
    ShardTip,
    SignedCheckpoint,
    SigningRefused,
    check_follows,
    encode_entry,
    origin_of,
    read_last_signed,
    verify_note,
)
from zexchange.verification.merkle import CompactRange, leaf_hash
from zexchange.verification.note import NoteKey


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def tip(log_size: int, shard: int = 0, salt: str = "") -> ShardTip:
    return ShardTip(
        shard=shard,
        log_size=log_size,
        log_root=digest(f"log {log_size} {salt}"),
        chain=digest(f"chain {log_size} {salt}"),
        state_root=digest(f"state {log_size} {salt}"),
    )


LEAF = CheckpointLeaf(
    n=7,
    time_ns=1_700_000_000_000_000_123,
    previous_leaf_hash=digest("previous"),
    shards=(tip(10, 0), tip(20, 1)),
    archive_digest=digest("archive"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "settlement"


def opened(folder: Path) -> CheckpointJournal:
    return CheckpointJournal(folder, "test", 1, SETTLEMENT)


def sign(journal: CheckpointJournal, log_size: int, salt: str = "", now_ns: int = 1) -> SignedCheckpoint:
    return journal.sign(journal.next_leaf(now_ns, (tip(log_size, 0, salt),)))


def stored(folder: Path) -> list[SignedCheckpoint]:
    return list(CheckpointReader(io.BytesIO((folder / "checkpoints.log").read_bytes()), 1))


def test_leaf_bytes() -> None:
    data = LEAF.encode()
    assert len(data) == 54 + 2 * 106 + 64
    assert data[:4] == b"ZXC1"
    assert data[4:12] == (7).to_bytes(8, "little")
    assert data[52:54] == (2).to_bytes(2, "little")
    assert data[54:64] == (0).to_bytes(2, "little") + (10).to_bytes(8, "little")
    assert data[-32:] == ZERO_HASH
    assert CheckpointLeaf.decode(data, 7) == LEAF


@pytest.mark.parametrize("length", [0, 3, 53, 54, 117, 329, 331])
def test_a_leaf_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(CheckpointInvalid):
        CheckpointLeaf.decode((LEAF.encode() + b"\x00")[:length], 7)


def test_leaf_fields_are_checked() -> None:
    with pytest.raises(CheckpointInvalid, match="number"):
        CheckpointLeaf.decode(LEAF.encode(), 8)
    with pytest.raises(CheckpointInvalid, match="magic"):
        CheckpointLeaf.decode(b"ZXC2" + LEAF.encode()[4:], 7)
    swapped = msgspec.structs.replace(LEAF, shards=LEAF.shards[::-1])
    with pytest.raises(CheckpointInvalid, match="ascending"):
        CheckpointLeaf.decode(swapped.encode(), 7)


def test_what_may_follow() -> None:
    first = CheckpointLeaf(n=0, time_ns=5, previous_leaf_hash=ZERO_HASH, shards=(tip(10),))
    second = CheckpointLeaf(n=1, time_ns=6, previous_leaf_hash=leaf_hash(first.encode()), shards=(tip(12),))
    check_follows(None, first, 1)
    check_follows(first, second, 1)
    change = msgspec.structs.replace
    for previous, leaf, what in (
        (None, second, "number"),
        (first, change(second, n=2), "number"),
        (first, change(second, previous_leaf_hash=ZERO_HASH), "previous leaf hash"),
        (first, change(second, time_ns=5), "time"),
        (first, change(second, shards=(tip(9),)), "log size"),
        (first, change(second, shards=(tip(10, 0, "other"),)), "unchanged size"),
        (first, change(second, shards=(tip(12), tip(1, 1))), "shards"),
        (first, change(second, attestation_hash=digest("x")), "attestation"),
    ):
        with pytest.raises(CheckpointInvalid, match=what):
            check_follows(previous, leaf, 1)


def test_signing_and_reading_back(folder: Path) -> None:
    with opened(folder) as journal:
        signed = [sign(journal, size) for size in (1, 1, 5, 9)]
        assert journal.size == 4
    assert stored(folder) == signed
    tree = CompactRange()
    key = NoteKey(origin_of("test"), bytes(SETTLEMENT.verify_key))
    for n, checkpoint in enumerate(signed):
        tree.append(leaf_hash(checkpoint.leaf))
        verify_note(checkpoint, key, n, tree.root())
        with pytest.raises(CheckpointInvalid):
            verify_note(checkpoint, key, n + 1, tree.root())
        with pytest.raises(CheckpointInvalid):
            verify_note(checkpoint, NoteKey(key.name, bytes(OPERATOR.verify_key)), n, tree.root())
    with opened(folder) as journal:
        assert journal.size == 4
        assert journal.last is not None
        assert journal.last.shards == (tip(9),)
        sign(journal, 10)


def test_time_never_goes_back(folder: Path) -> None:
    with opened(folder) as journal:
        sign(journal, 1, now_ns=1_000)
        sign(journal, 2, now_ns=10)
        assert journal.last is not None
        assert journal.last.time_ns == 1_001


def test_nothing_inconsistent_is_signed(folder: Path) -> None:
    with opened(folder) as journal:
        sign(journal, 5)
        before = (folder / "checkpoints.log").read_bytes(), (folder / "last_signed.json").read_bytes()
        for log_size, salt in ((4, ""), (5, "other roots")):
            with pytest.raises(SigningRefused):
                sign(journal, log_size, salt)
        leaf = journal.next_leaf(9, (tip(6),))
        with pytest.raises(SigningRefused):
            journal.sign(msgspec.structs.replace(leaf, n=2))
        assert before == (
            (folder / "checkpoints.log").read_bytes(),
            (folder / "last_signed.json").read_bytes(),
        )
        sign(journal, 6)


def test_a_second_signer_with_the_same_folder_is_noticed(folder: Path) -> None:
    with opened(folder) as journal, opened(folder) as twin:
        sign(journal, 5)
        with pytest.raises(SigningRefused):
            sign(twin, 6)


def test_crash_between_intent_and_signature(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the next start would like to sign, the leaf that was recorded is signed first."""
    with opened(folder) as journal:
        sign(journal, 5)
        leaf = journal.next_leaf(77, (tip(6),))
        with monkeypatch.context() as patch:
            patch.setattr("zexchange.verification.checkpoint.sign_note", _crash)
            with pytest.raises(KeyboardInterrupt):
                journal.sign(leaf)
    with opened(folder) as journal:
        assert journal.size == 2
        assert journal.last == leaf
        sign(journal, 7)
    assert [CheckpointLeaf.decode(one.leaf, n).n for n, one in enumerate(stored(folder))] == [0, 1, 2]


def test_crash_while_the_intent_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder) as journal:
        sign(journal, 5)
        with monkeypatch.context() as patch:
            patch.setattr("zexchange.runtime.durable.os.replace", _crash)
            with pytest.raises(KeyboardInterrupt):
                sign(journal, 6)
    assert durable.remove_leftovers(folder)
    with opened(folder) as journal:
        assert journal.size == 1
        sign(journal, 6, "may differ, as it was never signed")


def test_every_torn_tail_is_finished_with_the_same_bytes(folder: Path) -> None:
    with opened(folder) as journal:
        sign(journal, 5)
        sign(journal, 6)
    path = folder / "checkpoints.log"
    whole = path.read_bytes()
    entry = len(encode_entry(stored(folder)[1]))
    for cut in range(1, entry + 1):
        path.write_bytes(whole[:-cut])
        with opened(folder) as journal:
            assert journal.size == 2
            assert journal.truncated_bytes == (entry - cut)
        assert path.read_bytes() == whole


def test_more_than_the_last_entry_may_not_be_missing(folder: Path) -> None:
    with opened(folder) as journal:
        for size in (5, 6, 7):
            sign(journal, size)
    path = folder / "checkpoints.log"
    whole = path.read_bytes()
    entry = len(encode_entry(stored(folder)[2]))
    for cut in (entry + 1, 2 * entry, len(whole)):
        path.write_bytes(whole[:-cut])
        with pytest.raises(SigningRefused):
            opened(folder)
        assert path.read_bytes() == whole[:-cut], "nothing is truncated when signing is refused"


def test_no_byte_of_the_file_may_change(folder: Path) -> None:
    with opened(folder) as journal:
        for size in (5, 6):
            sign(journal, size)
    path = folder / "checkpoints.log"
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises((CheckpointLogCorrupt, CheckpointInvalid, SigningRefused)):
            opened(folder)
    path.write_bytes(whole + b"\x00")
    with pytest.raises(CheckpointLogCorrupt):
        opened(folder)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b'{"size":1,"root":"zz","leaf":""}', b'{"size":1,"root":"","leaf":"","x":1}']
)
def test_a_damaged_last_signed_stops_everything(folder: Path, raw: bytes) -> None:
    with opened(folder) as journal:
        sign(journal, 5)
    (folder / "last_signed.json").write_bytes(raw)
    with pytest.raises(SigningRefused):
        opened(folder)


def test_a_lost_or_older_last_signed_stops_everything(folder: Path) -> None:
    path = folder / "last_signed.json"
    with opened(folder) as journal:
        sign(journal, 5)
        older = path.read_bytes()
        sign(journal, 6)
    path.write_bytes(older)
    with pytest.raises(SigningRefused):
        opened(folder)
    path.unlink()
    with pytest.raises(SigningRefused, match="missing"):
        opened(folder)
    assert read_last_signed(path) is None


def test_an_intent_whose_root_is_wrong_is_not_signed(folder: Path) -> None:
    with opened(folder) as journal:
        sign(journal, 5)
        leaf = journal.next_leaf(7, (tip(6),)).encode()
    intent = LastSigned(size=2, root=ZERO_HASH.hex(), leaf=leaf.hex())
    (folder / "last_signed.json").write_bytes(msgspec.json.encode(intent))
    with pytest.raises(SigningRefused, match="root"):
        opened(folder)


def _crash(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
