"""A copy of everything that verification needs, made by somebody who has nothing but HTTP.

    /log/genesis, /log/checkpoints, /log/{shard}/segments, /log/{shard}/batches ──▶ a folder ──▶ zexchange verify

The folder is laid out as that of the exchange, but the whole log is in `archive/`: what the exchange has in its store
becomes further segments, one for each page. Nothing is believed here: that the copy is whole and what was signed is for
`verify` to say. Calling it again fetches what has been added.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import msgspec

from zexchange.genesis import Genesis, load_genesis
from zexchange.log.archive import SegmentInvalid, SegmentRef, check_segment, segments, write_segment
from zexchange.log.journal import BatchInvalid, EntryId
from zexchange.runtime import durable
from zexchange.runtime.paths import DataPaths
from zexchange.settlement.store_record import ARCHIVE, mark_copy, recorded_store
from zexchange.verification.checkpoint import CheckpointLogCorrupt, CheckpointReader, LastSigned
from zexchange.verification.merkle import CompactRange, leaf_hash
from zexchange.verification.replica import StoredBatch

__all__ = ["DownloadFailed", "Downloaded", "download"]

Fetch = Callable[[str], tuple[bytes, Mapping[str, str]]]
"""Path and query below /api/v1 to body and headers, whose names are in lower case. Raises DownloadFailed."""

_NEXT = "zx-next"
_U32 = struct.Struct("<I")
_BATCH_ID = struct.Struct("<QQ")
_BATCH_ID_OFFSET = 8
_PAGE_SEGMENTS = 1_000


class DownloadFailed(Exception):
    """The server does not give what was asked for, or something else than what it promised."""


class _Segment(msgspec.Struct, frozen=True):
    first_record_no: str
    last_record_no: str
    sha256: str


class _Segments(msgspec.Struct, frozen=True):
    segments: Sequence[_Segment]
    next_after: str | None = None


class Downloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What the copy has now."""

    deployment: str
    deployment_id: str
    checkpoints: int
    records: int


def download(fetch: Fetch, paths: DataPaths) -> Downloaded:
    """Makes the copy in this folder, or adds to it what has happened since. Raises DownloadFailed, OSError."""
    if paths.genesis.exists() and recorded_store(paths) != ARCHIVE:
        raise DownloadFailed(f"{paths.root} is the folder of an exchange, not a copy: choose another one")
    genesis = _fetch_genesis(fetch, paths)
    mark_copy(paths)
    # First: what they cover is in the log that is fetched behind them.
    checkpoints = _fetch_checkpoints(fetch, paths, genesis)
    records = sum(_fetch_log(fetch, paths, shard) for shard in range(genesis.shards))
    return Downloaded(
        deployment=genesis.name,
        deployment_id=genesis.deployment_id.hex(),
        checkpoints=checkpoints,
        records=records,
    )


def _fetch_genesis(fetch: Fetch, paths: DataPaths) -> Genesis:
    raw, _ = fetch("/log/genesis")
    paths.settlement.mkdir(parents=True, exist_ok=True)
    if paths.genesis.exists():
        if paths.genesis.read_bytes() != raw:
            raise DownloadFailed(f"{paths.root} is a copy of another deployment")
    else:
        durable.write_file(paths.genesis, [raw])
    return load_genesis(paths.genesis)


def _fetch_checkpoints(fetch: Fetch, paths: DataPaths, genesis: Genesis) -> int:
    """Adds those that are new; returns how many there are."""
    parts = [paths.checkpoints_log.read_bytes()] if paths.checkpoints_log.exists() else []
    tree, newest = CompactRange(), b""
    content = b"".join(parts)
    while True:
        reader = CheckpointReader(BytesIO(content), genesis.shards)
        try:
            for checkpoint in reader:
                newest = checkpoint.leaf
                tree.append(leaf_hash(newest))
        except CheckpointLogCorrupt as error:
            raise DownloadFailed(f"checkpoints: {error}") from None
        if reader.torn:
            raise DownloadFailed("the checkpoints end inside one")
        content, _ = fetch(f"/log/checkpoints?from={tree.size}")
        if not content:
            break
        parts.append(content)
    durable.write_file(paths.checkpoints_log, parts)
    if tree.size:
        # Nothing is about to be signed here: the last that was signed is the last there is.
        signed = LastSigned(size=tree.size, root=tree.root().hex(), leaf=newest.hex())
        durable.write_file(paths.last_signed, [msgspec.json.encode(signed)])
    return tree.size


def _fetch_log(fetch: Fetch, paths: DataPaths, shard: int) -> int:
    """Archived segments as they are, and what is behind them as further ones; returns the number of records."""
    folder = paths.archive(shard)
    folder.mkdir(parents=True, exist_ok=True)
    listed = _listed(fetch, shard)
    names = {f"{int(one.first_record_no):020d}-{int(one.last_record_no):020d}.seg": one for one in listed}
    stale = False
    for ref in segments(paths, shard):
        # What was behind the archive and is in it now may be cut otherwise there; then what follows goes too.
        stale = stale or (bool(listed) and ref.first_record_no <= int(listed[-1].last_record_no))
        if ref.path.name not in names and stale:
            ref.path.unlink()
    for name, one in names.items():
        ref = SegmentRef(int(one.first_record_no), int(one.last_record_no), folder / name, shard)
        if not ref.path.exists() or _closing_hash(ref.path) != one.sha256:
            content, _ = fetch(f"/log/{shard}/segments/{one.first_record_no}")
            if hashlib.sha256(content[:-32]).hexdigest() != one.sha256 or content[-32:].hex() != one.sha256:
                raise DownloadFailed(f"segment {name} of shard {shard} is not what was promised")
            durable.write_file(ref.path, [content])
        _check(ref)
    return _fetch_tail(fetch, paths, shard)


def _fetch_tail(fetch: Fetch, paths: DataPaths, shard: int) -> int:
    have = segments(paths, shard)
    next_record_no = have[-1].last_record_no + 1 if have else 1
    while True:
        content, headers = fetch(f"/log/{shard}/batches?from={next_record_no}")
        if not content:
            return next_record_no - 1
        try:
            ref = write_segment(paths, shard, _batches(content))
        except (BatchInvalid, SegmentInvalid) as error:
            raise DownloadFailed(f"record {next_record_no} of shard {shard}: {error}") from None
        if ref.first_record_no != next_record_no or headers.get(_NEXT) != str(ref.last_record_no + 1):
            raise DownloadFailed(f"record {next_record_no} of shard {shard}: another page than was asked for")
        next_record_no = ref.last_record_no + 1


def _listed(fetch: Fetch, shard: int) -> list[_Segment]:
    found: list[_Segment] = []
    after: str | None = "0"
    while after is not None:
        body, _ = fetch(f"/log/{shard}/segments?after={after}&limit={_PAGE_SEGMENTS}")
        try:
            page = msgspec.json.decode(body, type=_Segments)
        except msgspec.MsgspecError as error:
            raise DownloadFailed(f"the list of segments of shard {shard}: {error}") from None
        found += page.segments
        after = page.next_after
    return found


def _batches(content: bytes) -> list[StoredBatch]:
    found = []
    offset = 0
    while offset < len(content):
        (length,) = _U32.unpack_from(content, offset) if offset + _U32.size <= len(content) else (0,)
        raw = content[offset + _U32.size : offset + _U32.size + length]
        if len(raw) != length or length < _BATCH_ID_OFFSET + _BATCH_ID.size:
            raise BatchInvalid("the answer ends inside a batch")
        found.append(StoredBatch(EntryId(*_BATCH_ID.unpack_from(raw, _BATCH_ID_OFFSET)), raw))
        offset += _U32.size + length
    return found


def _check(ref: SegmentRef) -> None:
    try:
        check_segment(ref)
    except SegmentInvalid as error:
        raise DownloadFailed(str(error)) from None


def _closing_hash(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 32))
        return file.read().hex()
