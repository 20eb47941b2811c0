"""Following checkpoints.log while it grows, and the proofs that are served from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from webapp import settlement_log
from webapp.settlement_log import SettlementLog
from zexchange.verification.checkpoint import (
    ZERO_HASH,
    CheckpointLeaf,
    CheckpointLogCorrupt,
    ShardTip,
    SignedCheckpoint,
    encode_entry,
)


def checkpoint(number: int) -> SignedCheckpoint:
    tip = ShardTip(shard=0, log_size=1, log_root=ZERO_HASH, chain=ZERO_HASH, state_root=ZERO_HASH)
    leaf = CheckpointLeaf(n=number, time_ns=1 + number, previous_leaf_hash=ZERO_HASH, shards=(tip,))
    return SignedCheckpoint(leaf.encode(), b"note %d" % number)


def test_grows_with_the_file_and_reads_old_entries_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement_log, "KEPT", 4)
    path = tmp_path / "checkpoints.log"
    log = SettlementLog(path, 1)
    assert log.poll() == []
    with pytest.raises(IndexError):
        log.get(0)
    written = b""
    for number in range(12):
        entry = encode_entry(checkpoint(number))
        path.write_bytes(written + entry[:50])  # a write that is not whole yet
        assert log.poll() == []
        written += entry
        path.write_bytes(written)
        assert log.poll() == [checkpoint(number)]
        assert log.poll() == []
    assert [log.get(number) for number in range(12)] == [checkpoint(number) for number in range(12)]
    assert log.tree.size == len(log) == 12
    again = SettlementLog(path, 1)
    assert len(again.poll()) == 12
    assert again.tree.root(12) == log.tree.root(12)


def test_damage_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.log"
    raw = bytearray(encode_entry(checkpoint(0)))
    raw[-10] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointLogCorrupt):
        SettlementLog(path, 1).poll()


def test_pages_hold_whole_entries_and_lead_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.log"
    entries = [encode_entry(checkpoint(number)) for number in range(12)]
    path.write_bytes(b"".join(entries))
    log = SettlementLog(path, 1)
    log.poll()
    for bytes_max in (1, len(entries[0]), 3 * len(entries[0]), 10_000):
        first, pages = 0, []
        while first < len(log):
            page, following = log.raw(first, bytes_max)
            assert len(page) <= max(bytes_max, len(entries[first]))
            assert following > first
            pages.append(page)
            first = following
        assert b"".join(pages) == b"".join(entries)
    assert log.raw(12, 100) == (b"", 12)
