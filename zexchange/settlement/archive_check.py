"""Is the archive on disk the one that the checkpoints tell of?

A checkpoint holds a digest of the newest segment of each shard, and at most one segment is added between two
checkpoints. So a chain of checkpoints can be followed from one segment to the next, and whoever signs the
next checkpoint can tell a whole archive from one that lacks a part: signing over such a one would contradict
the checkpoints before it, for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

from zexchange.log.archive import SegmentInvalid, SegmentRef, archive_digest, segment_hash, segments
from zexchange.runtime.paths import DataPaths
from zexchange.verification.checkpoint import (
    ZERO_HASH,
    CheckpointInvalid,
    CheckpointLeaf,
    CheckpointReader,
    SigningRefused,
)

__all__ = ["ArchiveDigests", "require_archive"]

_Newest = dict[int, tuple[int, bytes]]
"""(last record, hash) of the newest segment of each shard that has one."""


class ArchiveDigests:
    """Follows the archive digests of a chain of checkpoints: from one to the next at most one segment is
    added.
    """

    def __init__(self, paths: DataPaths, shard_count: int) -> None:
        self._paths = paths
        self._shards = range(shard_count)
        self._digest = ZERO_HASH
        self._newest: _Newest = {}
        self._listed: dict[int, dict[int, SegmentRef]] = {shard: {} for shard in self._shards}

    def check(self, leaf: CheckpointLeaf) -> None:
        """Raises CheckpointInvalid if the leaf's digest is not that of the archive as it was then."""
        if leaf.archive_digest == self._digest:
            return
        for shard in self._shards:
            following = self.following(shard)
            if following is None or following.last_record_no >= leaf.shards[shard].log_size:
                continue
            try:
                candidate = {**self._newest, shard: (following.last_record_no, segment_hash(following))}
            except SegmentInvalid:
                continue
            if _digest(candidate) == leaf.archive_digest:
                self._digest, self._newest = leaf.archive_digest, candidate
                return
        raise CheckpointInvalid(leaf.n, "archive digest", "that of the segments", leaf.archive_digest)

    def next_record_no(self, shard: int) -> int:
        """First record of the shard behind the segments followed so far."""
        return self._newest[shard][0] + 1 if shard in self._newest else 1

    def following(self, shard: int) -> SegmentRef | None:
        """The shard's segment behind those followed so far, None if there is no file."""
        record_no = self.next_record_no(shard)
        if record_no not in self._listed[shard]:
            # Listed again only when needed: there may be many, and settlement may be adding one.
            self._listed[shard] = {ref.first_record_no: ref for ref in segments(self._paths, shard)}
        return self._listed[shard].get(record_no)


def require_archive(paths: DataPaths, shard_count: int, last: CheckpointLeaf | None) -> None:
    """Checks that nothing is missing from the archive that `last`, the newest checkpoint, covers.

    One segment more is right: it is written behind one checkpoint and signed with the next. What older
    segments hold is not looked at. Raises SigningRefused, which names the segment; SegmentInvalid, OSError.
    """
    archive = {shard: segments(paths, shard) for shard in range(shard_count)}
    if last is None:
        if any(archive.values()):
            raise SigningRefused(
                "there are archived segments but no checkpoints: the settlement folder was lost; restore it"
            )
        return
    for shard, refs in archive.items():
        record_no = 1
        for ref in refs:
            if ref.first_record_no != record_no:
                raise SigningRefused(
                    f"{paths.archive(shard)} lacks the segment that begins with record {record_no}: restore it"
                )
            record_no = ref.last_record_no + 1
    newest = {
        shard: (refs[-1].last_record_no, segment_hash(refs[-1])) for shard, refs in archive.items() if refs
    }
    if last.archive_digest == _digest(newest):
        return
    for shard in newest:
        before = {other: end for other, end in newest.items() if other != shard}
        if len(archive[shard]) > 1:
            before[shard] = (archive[shard][-2].last_record_no, segment_hash(archive[shard][-2]))
        if last.archive_digest == _digest(before):
            return
    raise SigningRefused(f"{_difference(paths, shard_count)}; then start again")


def _digest(newest: Mapping[int, tuple[int, bytes]]) -> bytes:
    return archive_digest([(shard, *newest[shard]) for shard in sorted(newest)])


def _difference(paths: DataPaths, shard_count: int) -> str:
    """What is wrong with the archive, and what to do, told by following all checkpoints."""
    followed = ArchiveDigests(paths, shard_count)
    with open(paths.checkpoints_log, "rb") as file:
        for n, checkpoint in enumerate(CheckpointReader(file, shard_count)):
            try:
                followed.check(CheckpointLeaf.decode(checkpoint.leaf, n))
            except CheckpointInvalid:
                break
        else:
            return (
                f"the archive goes on for more than one segment behind checkpoint {n}, the last one signed:"
                " restore archive/ and settlement/ from one instant"
            )
    missing = [shard for shard in range(shard_count) if followed.following(shard) is None]
    names = " or ".join(
        f"the segment of shard {shard} that begins with record {followed.next_record_no(shard)}"
        for shard in missing or range(shard_count)
    )
    return (
        f"the archive is not the one that checkpoint {n} was signed over: {names} is"
        f" {'missing' if missing else 'another one'}; restore archive/ completely"
    )
