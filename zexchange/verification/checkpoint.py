"""Checkpoints: the leaves of the settlement log, the file that holds them, and the rule for signing the next
one.

The settlement log is an RFC 6962 tree with one leaf per checkpoint (docs/formats.md section 6). A checkpoint
of number n is the signed tree head of the n + 1 leaves 0 to n. `checkpoints.log` holds each leaf with its
note:

    leaf length u32 | leaf | note length u32 | note | crc32 u32 of everything before it in the entry

The promise is that no two different checkpoints of one size ever exist. It rests on an order of steps: the
leaf that is about to be signed goes to `last_signed.json` and is durable there before the key is used.
Ed25519 is deterministic, so after a crash between the two the same leaf gives the same note, and that is the
only thing that is signed then.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Self

import msgspec
from msgspec import Struct
from nacl.signing import SigningKey

from zexchange.runtime import durable
from zexchange.verification.merkle import CompactRange, leaf_hash
from zexchange.verification.note import NoteInvalid, NoteKey, TreeHead, open_note, sign_note

__all__ = [
    "ZERO_HASH",
    "CheckpointInvalid",
    "CheckpointJournal",
    "CheckpointLeaf",
    "CheckpointLogCorrupt",
    "CheckpointReader",
    "LastSigned",
    "ShardTip",
    "SignedCheckpoint",
    "SigningRefused",
    "check_follows",
    "origin_of",
    "read_last_signed",
    "verify_note",
]

LEAF_MAGIC = b"ZXC1"
ZERO_HASH = bytes(32)
MAX_NOTE_BYTES = 1024
"""Three short lines and one signature; a length above this in the file is damage, not a note."""
_LEAF_HEAD = struct.Struct("<4sQQ32sH")
_LEAF_SHARD = struct.Struct("<HQ32s32s32s")
_LEAF_TAIL = struct.Struct("<32s32s")
_U32 = struct.Struct("<I")


class CheckpointInvalid(ValueError):
    """A checkpoint that is malformed or does not follow the one before it.

    `n` is its number, `what` names the field; `expected` and `found` are printable values.
    """

    def __init__(self, n: int, what: str, expected: object, found: object) -> None:
        super().__init__(
            f"checkpoint {n}: {what}: expected {_printable(expected)}, found {_printable(found)}"
        )
        self.n = n
        self.what = what
        self.expected = _printable(expected)
        self.found = _printable(found)


class CheckpointLogCorrupt(ValueError):
    """`checkpoints.log` is damaged other than by an unfinished last entry."""

    def __init__(self, n: int, offset: int, detail: str) -> None:
        super().__init__(f"checkpoints.log: entry {n} at byte {offset}: {detail}")
        self.n = n
        self.offset = offset
        self.detail = detail


class SigningRefused(RuntimeError):
    """Signing could break the promise of one checkpoint per size, so nothing is signed."""


class ShardTip(Struct, frozen=True, kw_only=True):
    """What a checkpoint says about one shard: all hashes are of the state after `log_size` records."""

    shard: int
    log_size: int
    """Leaves of the execution tree: the number of the next record."""
    log_root: bytes
    chain: bytes
    state_root: bytes


class CheckpointLeaf(Struct, frozen=True, kw_only=True):
    """One leaf of the settlement log."""

    n: int
    time_ns: int
    """Nanoseconds since 1970 UTC by the settlement's clock; grows from leaf to leaf."""
    previous_leaf_hash: bytes
    shards: tuple[ShardTip, ...]
    archive_digest: bytes = ZERO_HASH
    attestation_hash: bytes = ZERO_HASH

    def encode(self) -> bytes:
        """The leaf data."""
        return b"".join(
            (
                _LEAF_HEAD.pack(LEAF_MAGIC, self.n, self.time_ns, self.previous_leaf_hash, len(self.shards)),
                *(
                    _LEAF_SHARD.pack(tip.shard, tip.log_size, tip.log_root, tip.chain, tip.state_root)
                    for tip in self.shards
                ),
                _LEAF_TAIL.pack(self.archive_digest, self.attestation_hash),
            )
        )

    @classmethod
    def decode(cls, data: bytes, n: int) -> Self:
        """Reads leaf number `n`. Raises CheckpointInvalid for any byte out of place."""
        if len(data) < _LEAF_HEAD.size:
            raise CheckpointInvalid(n, "leaf length in bytes", f"at least {_LEAF_HEAD.size}", len(data))
        magic, number, time_ns, previous, count = _LEAF_HEAD.unpack_from(data)
        if magic != LEAF_MAGIC:
            raise CheckpointInvalid(n, "leaf magic", LEAF_MAGIC, magic)
        if len(data) != leaf_length(count):
            raise CheckpointInvalid(n, "leaf length in bytes", leaf_length(count), len(data))
        if number != n:
            raise CheckpointInvalid(n, "number", n, number)
        tips = []
        for index in range(count):
            shard, size, log_root, chain, state_root = _LEAF_SHARD.unpack_from(
                data, _LEAF_HEAD.size + index * _LEAF_SHARD.size
            )
            tips.append(
                ShardTip(shard=shard, log_size=size, log_root=log_root, chain=chain, state_root=state_root)
            )
        if any(left.shard >= right.shard for left, right in pairwise(tips)):
            raise CheckpointInvalid(n, "shards", "ascending", [tip.shard for tip in tips])
        archive_digest, attestation_hash = _LEAF_TAIL.unpack_from(data, len(data) - _LEAF_TAIL.size)
        return cls(
            n=n,
            time_ns=time_ns,
            previous_leaf_hash=previous,
            shards=tuple(tips),
            archive_digest=archive_digest,
            attestation_hash=attestation_hash,
        )


class SignedCheckpoint(Struct, frozen=True):
    """Leaf data and signed note, as stored and published."""

    leaf: bytes
    note: bytes


class LastSigned(Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of `last_signed.json`: the one leaf that may be signed for this size. Hashes are in hex."""

    size: int
    """Leaves of the settlement log with this one."""
    root: str
    leaf: str


def leaf_length(shard_count: int) -> int:
    """Bytes of leaf data for that many shards."""
    return _LEAF_HEAD.size + shard_count * _LEAF_SHARD.size + _LEAF_TAIL.size


def origin_of(genesis_name: str) -> str:
    """First line of a checkpoint and name of the settlement key."""
    return f"{genesis_name}/settlement"


def check_follows(previous: CheckpointLeaf | None, leaf: CheckpointLeaf, shard_count: int) -> None:
    """Checks that `leaf` may come after `previous` (none: that it may be the first). Raises
    CheckpointInvalid.

    The hashes of a shard whose log has not grown must be the same; that a log which has grown extends the
    earlier one is proved by replaying it.
    """
    n = leaf.n
    shards = [tip.shard for tip in leaf.shards]
    if shards != list(range(shard_count)):
        raise CheckpointInvalid(n, "shards", list(range(shard_count)), shards)
    expected_n, expected_hash = (
        (0, ZERO_HASH) if previous is None else (previous.n + 1, leaf_hash(previous.encode()))
    )
    if n != expected_n:
        raise CheckpointInvalid(n, "number", expected_n, n)
    if leaf.previous_leaf_hash != expected_hash:
        raise CheckpointInvalid(n, "previous leaf hash", expected_hash, leaf.previous_leaf_hash)
    if leaf.attestation_hash != ZERO_HASH:
        raise CheckpointInvalid(n, "attestation hash", ZERO_HASH, leaf.attestation_hash)
    if previous is None:
        return
    if leaf.time_ns <= previous.time_ns:
        raise CheckpointInvalid(n, "time in ns", f"more than {previous.time_ns}", leaf.time_ns)
    for before, after in zip(previous.shards, leaf.shards, strict=True):
        if after.log_size < before.log_size:
            what = f"log size of shard {after.shard}"
            raise CheckpointInvalid(n, what, f"at least {before.log_size}", after.log_size)
        if after.log_size == before.log_size and after != before:
            raise CheckpointInvalid(n, f"roots of shard {after.shard} at an unchanged size", before, after)


def verify_note(checkpoint: SignedCheckpoint, key: NoteKey, n: int, root: bytes) -> None:
    """Checks that the note is `key`'s signature over the tree of n + 1 leaves with this root.

    Raises CheckpointInvalid.
    """
    try:
        head = TreeHead.parse(open_note(checkpoint.note, [key]).text)
    except NoteInvalid as error:
        raise CheckpointInvalid(n, "note", "a valid note", str(error)) from error
    for what, expected, found in (
        ("origin", key.name, head.origin),
        ("tree size", n + 1, head.size),
        ("settlement root", root, head.root),
    ):
        if expected != found:
            raise CheckpointInvalid(n, what, expected, found)


class CheckpointReader:
    """Iterates over the entries of a `checkpoints.log`, from a file opened for reading in binary mode.

    After the last whole entry, `end` is the byte where it ends and `torn` says whether an unfinished entry
    follows. Raises CheckpointLogCorrupt at an entry that is whole but damaged.
    """

    def __init__(self, file: BinaryIO, shard_count: int) -> None:
        self._file = file
        self._leaf_length = leaf_length(shard_count)
        self.count = 0
        self.end = 0
        self.torn = False

    def __iter__(self) -> Iterator[SignedCheckpoint]:
        while (checkpoint := self._next()) is not None:
            yield checkpoint

    def _next(self) -> SignedCheckpoint | None:
        head = self._file.read(_U32.size + self._leaf_length + _U32.size)
        if not head:
            return None
        if len(head) >= _U32.size:
            self._require_length("leaf", _U32.unpack_from(head)[0], self._leaf_length, self._leaf_length)
        if len(head) < _U32.size + self._leaf_length + _U32.size:
            self.torn = True
            return None
        note_length = _U32.unpack_from(head, _U32.size + self._leaf_length)[0]
        self._require_length("note", note_length, 1, MAX_NOTE_BYTES)
        tail = self._file.read(note_length + _U32.size)
        if len(tail) < note_length + _U32.size:
            self.torn = True
            return None
        entry, crc = head + tail[:note_length], _U32.unpack_from(tail, note_length)[0]
        if zlib.crc32(entry) != crc:
            raise CheckpointLogCorrupt(self.count, self.end, "the checksum does not fit")
        self.count += 1
        self.end += len(head) + len(tail)
        return SignedCheckpoint(head[_U32.size : _U32.size + self._leaf_length], tail[:note_length])

    def _require_length(self, name: str, length: int, least: int, most: int) -> None:
        if not least <= length <= most:
            raise CheckpointLogCorrupt(self.count, self.end, f"impossible {name} length {length}")


def encode_entry(checkpoint: SignedCheckpoint) -> bytes:
    """One entry of `checkpoints.log`."""
    entry = b"".join(
        (_U32.pack(len(checkpoint.leaf)), checkpoint.leaf, _U32.pack(len(checkpoint.note)), checkpoint.note)
    )
    return entry + _U32.pack(zlib.crc32(entry))


def read_last_signed(path: Path) -> LastSigned | None:
    """Contents of `last_signed.json`, None if there is none. Raises SigningRefused if it is damaged."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = msgspec.json.decode(raw, type=LastSigned)
        bytes.fromhex(found.root), bytes.fromhex(found.leaf)
    except (msgspec.DecodeError, ValueError) as error:
        raise SigningRefused(f"{path} is damaged: {error}") from error
    return found


class CheckpointJournal:
    """The settlement's own record of what it has signed: `checkpoints.log` and `last_signed.json`.

    Opening it reads the whole log once, cuts off an unfinished last entry, and finishes a checkpoint that was
    about to be signed when the process ended. `sign` is the only place where the settlement key is used.
    """

    def __init__(self, folder: Path, genesis_name: str, shard_count: int, key: SigningKey) -> None:
        """Raises CheckpointLogCorrupt, CheckpointInvalid, SigningRefused, OSError."""
        self._key = key
        self._note_key = NoteKey(origin_of(genesis_name), bytes(key.verify_key))
        self._shard_count = shard_count
        self._last_signed_path = folder / "last_signed.json"
        self._tree = CompactRange()
        self.last: CheckpointLeaf | None = None
        """The newest checkpoint's leaf."""
        self.log_path = folder / "checkpoints.log"
        self.truncated_bytes = 0
        """Length of the unfinished entry that was cut off when opening."""
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.log_path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            durable.sync_folder(folder)
            self._load()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def size(self) -> int:
        """Number of checkpoints."""
        return self._tree.size

    def next_leaf(
        self, now_ns: int, shards: tuple[ShardTip, ...], archive_digest: bytes = ZERO_HASH
    ) -> CheckpointLeaf:
        """The leaf that would come next. Its time is `now_ns`, or 1 ns after the last one's if the clock went
        back.
        """
        previous = self.last
        return CheckpointLeaf(
            n=self.size,
            time_ns=now_ns if previous is None else max(now_ns, previous.time_ns + 1),
            previous_leaf_hash=ZERO_HASH if previous is None else leaf_hash(previous.encode()),
            shards=shards,
            archive_digest=archive_digest,
        )

    def sign(self, leaf: CheckpointLeaf) -> SignedCheckpoint:
        """Signs the next checkpoint and stores it durably.

        Raises SigningRefused if it does not follow the last one signed; then nothing was written.
        """
        try:
            check_follows(self.last, leaf, self._shard_count)
        except CheckpointInvalid as error:
            raise SigningRefused(str(error)) from error
        # Read again, not remembered: another process that signs with the same folder must not go unnoticed.
        last_signed = read_last_signed(self._last_signed_path)
        self._require_state(last_signed, self.size)
        data = leaf.encode()
        grown = CompactRange(self._tree.size, self._tree.hashes)
        grown.append(leaf_hash(data))
        intent = LastSigned(size=grown.size, root=grown.root().hex(), leaf=data.hex())
        durable.write_file(self._last_signed_path, [msgspec.json.encode(intent)])
        return self._finish(leaf, data, grown)

    def _finish(self, leaf: CheckpointLeaf, data: bytes, grown: CompactRange) -> SignedCheckpoint:
        """Signs what `last_signed.json` already names, and appends it."""
        text = TreeHead(self._note_key.name, grown.size, grown.root()).text()
        checkpoint = SignedCheckpoint(data, sign_note(text, self._note_key.name, self._key))
        entry = encode_entry(checkpoint)
        written = os.write(self._descriptor, entry)
        if written != len(entry):
            raise OSError(f"{self.log_path}: only {written} of {len(entry)} bytes were written")
        os.fdatasync(self._descriptor)
        self._tree = grown
        self.last = leaf
        return checkpoint

    def _load(self) -> None:
        newest: SignedCheckpoint | None = None
        with open(self.log_path, "rb") as file:
            reader = CheckpointReader(file, self._shard_count)
            for checkpoint in reader:
                leaf = CheckpointLeaf.decode(checkpoint.leaf, self.size)
                check_follows(self.last, leaf, self._shard_count)
                self._tree.append(leaf_hash(checkpoint.leaf))
                self.last = leaf
                newest = checkpoint
        if newest is not None:
            verify_note(newest, self._note_key, self.size - 1, self._tree.root())
        last_signed = read_last_signed(self._last_signed_path)
        pending = last_signed is not None and last_signed.size == self.size + 1
        if not pending:
            self._require_state(last_signed, self.size)
            if reader.torn:
                # A torn entry means that its leaf was recorded first; without that this is damage, not a
                # crash.
                raise CheckpointLogCorrupt(
                    self.size, reader.end, "bytes behind the last entry that was signed"
                )
        if reader.torn:
            self.truncated_bytes = self.log_path.stat().st_size - reader.end
            os.ftruncate(self._descriptor, reader.end)
            os.fsync(self._descriptor)
        if last_signed is not None and pending:
            self._resume(last_signed)

    def _resume(self, intent: LastSigned) -> None:
        """Signs the leaf that was about to be signed when the process ended."""
        data = bytes.fromhex(intent.leaf)
        leaf = CheckpointLeaf.decode(data, self.size)
        check_follows(self.last, leaf, self._shard_count)
        grown = CompactRange(self._tree.size, self._tree.hashes)
        grown.append(leaf_hash(data))
        if grown.root().hex() != intent.root:
            raise SigningRefused(f"{self._last_signed_path}: its root is not that of its leaf")
        self._finish(leaf, data, grown)

    def _require_state(self, last_signed: LastSigned | None, size: int) -> None:
        """What was recorded as signed must be the tree as it stands."""
        if last_signed is None:
            if size != 0:
                raise SigningRefused(f"{self._last_signed_path} is missing although {size} checkpoints exist")
        elif (last_signed.size, last_signed.root) != (size, self._tree.root().hex()):
            raise SigningRefused(
                f"{self._last_signed_path} says that size {last_signed.size} with root {last_signed.root} was"
                f" signed, but checkpoints.log has size {size} with root {self._tree.root().hex()}"
            )


def _printable(value: object) -> str:
    if isinstance(value, ShardTip):
        return f"log root {value.log_root.hex()}, chain {value.chain.hex()}, state {value.state_root.hex()}"
    return value.hex() if isinstance(value, bytes) else str(value)
