"""Redoing batches with the engine in C, where all is well: one call per batch (csrc/seal.h, seal_replay).

The batch is sealed anew from its frames and log time and must come out byte for byte. That is all that a replica
checks but signatures, and all that a matcher checks that recovers. What does not come out is for them to explain, in
Python, step by step.
"""

from __future__ import annotations

from typing import Any

from zexchange.log import journal
from zexchange.log.journal import ChainState
from zexchange.native import ffi, lib, sha256
from zexchange.verification.merkle import CompactRange

_DIGEST_BYTES = 32


class QuickReplay:
    """Follows one engine. `begin` before the first batch and whenever somebody else has moved the engine."""

    def __init__(self, engine_handle: Any) -> None:
        """`engine_handle`: that of a `zexchange.engine.Engine`, which must outlive this object."""
        self._shard = engine_handle
        self._seal: Any = ffi.new("seal *")
        self._frontier: Any = ffi.new("frontier *")
        self._keeps_tree = True

    def begin(self, position: ChainState, log_tree: CompactRange | None) -> None:
        """Where the engine is. `log_tree`: the execution tree so far, if it is to be kept."""
        self._seal.epoch = position.epoch
        ffi.memmove(self._seal.chain, position.chain, _DIGEST_BYTES)
        self._keeps_tree = log_tree is not None
        if log_tree is None:
            return
        self._frontier.size = log_tree.size
        for index, one in enumerate(log_tree.hashes):
            ffi.memmove(self._frontier.hashes[index], one, _DIGEST_BYTES)

    def redo(self, epoch: int, record_no: int, raw: bytes) -> bool | None:
        """True: the batch with this ID came out as it is. False: it is not plainly the next one, and nothing was
        done. None: it came out differently; the engine must not be used any more."""
        outcome = lib.seal_replay(self._seal, self._shard, epoch, record_no, raw, len(raw))
        if outcome == lib.ZX_OK:
            if not self._keeps_tree:
                return True
            seal = self._seal
            lib.frontier_append_frames(
                self._frontier,
                seal.batch + journal.BATCH_HEADER_BYTES,
                len(raw) - journal.BATCH_HEADER_BYTES - journal.BATCH_TRAILER_BYTES,
                sha256,
            )
            return True
        return False if outcome == lib.ZX_ERROR_NOT_NEXT else None

    def events(self) -> bytes:
        """The event blocks of the last batch."""
        return bytes(ffi.buffer(self._shard.events, self._seal.events_bytes))

    def ours(self) -> bytes:
        """After None: the batch as it came out."""
        return bytes(ffi.buffer(self._seal.batch)[: self._seal.batch_bytes])

    def position(self) -> ChainState:
        """Behind the last batch."""
        shard, seal = self._shard, self._seal
        return ChainState(
            seal.epoch,
            shard.next_record_no,
            shard.next_seq,
            ffi.buffer(seal.chain)[:],
            shard.log_time_ns,
        )

    def log_tree(self) -> CompactRange:
        """The execution tree behind the last batch."""
        size = self._frontier.size
        return CompactRange(
            size, [ffi.buffer(self._frontier.hashes[index])[:] for index in range(size.bit_count())]
        )
