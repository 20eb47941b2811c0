"""`/api/v1/log`: everything that `zexchange verify` needs, as bytes, for auditors who have nothing but HTTP.

    genesis ── checkpoints ── archived segments ── batches behind them

What is served are the bytes that are stored, in the formats of docs/formats.md, so that whoever fetches them checks
exactly what was signed. Nothing in the log is secret from the exchange's point of view: orders are signed, not
encrypted, and no key but public ones is in it. But it shows everybody's orders, hidden ones too, the moment they
are matched; `web.publish_log` turns it off.

An answer that cannot change any more says so: a segment, and a page of batches or checkpoints that is full and signed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from webapp.http import Handler
from webapp.log_files import PAGE_BYTES
from webapp.parsing import shown, whole_of
from webapp.problems import Problem
from zexchange.log.archive import SegmentInvalid, SegmentRef, segment_hash
from zexchange.log.stream import StoreRefused, StoreUnavailable
from zexchange.verification.checkpoint import CheckpointLeaf
from zexchange.verification.replica import Mismatch

NEXT_HEADER = "Zx-Next"
"""Number of the record or checkpoint with which the next page begins."""
_CHUNK_BYTES = 262_144
_IMMUTABLE = "public, max-age=31536000, immutable"
_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")


class LogShardView(msgspec.Struct, frozen=True, kw_only=True):
    """The log of one shard. `signed_records` is how many records the newest checkpoint covers; those up to
    `archived_records` are in segments."""

    shard: int
    records: str
    signed_records: str
    archived_records: str
    segments: int


class LogReply(msgspec.Struct, frozen=True):
    """How much there is to fetch."""

    deployment_id: str
    checkpoints: str
    shards: Sequence[LogShardView]


class SegmentView(msgspec.Struct, frozen=True, kw_only=True):
    """An archived segment; `sha256` is the hash that ends the file, over everything before it."""

    first_record_no: str
    last_record_no: str
    bytes: str
    sha256: str


class SegmentsReply(msgspec.Struct, frozen=True):
    """Oldest first; `next_after` goes into `after` for the next page."""

    segments: Sequence[SegmentView]
    next_after: str | None = None


class PublishedHandler(Handler):
    """Base: only where the log is published."""

    def prepare(self) -> None:
        super().prepare()
        if not self.web.config.web.publish_log:
            raise Problem("FORBIDDEN", "this exchange does not publish its log (web.publish_log)")

    def shard(self, name: str) -> int:
        """Raises Problem."""
        shard = whole_of(name)
        if not 0 <= shard < self.web.genesis.shards:
            raise Problem("SHARD_UNKNOWN", f"no shard {shown(name)}", field="shard")
        return shard

    def signed_size(self, shard: int) -> int:
        """Records that the newest checkpoint covers, the genesis record included; 0 before the first checkpoint."""
        known = self.web.follower.checkpoints
        if not known:
            return 0
        number = len(known) - 1
        return CheckpointLeaf.decode(known.get(number).leaf, number).shards[shard].log_size

    def reply_bytes(self, content: bytes, *, final: bool) -> None:
        """Bytes, which may be kept for ever if they are final."""
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Cache-Control", _IMMUTABLE if final else "no-cache")
        self.finish(content)


class LogHandler(PublishedHandler):
    """GET /log"""

    def get(self) -> None:
        follower = self.web.follower
        shards = []
        for shard, engine in follower.engines().items():
            archived = self.web.log_files.segments(shard)
            shards.append(
                LogShardView(
                    shard=shard,
                    records=str(engine.next_record_no - 1),
                    signed_records=str(max(1, self.signed_size(shard)) - 1),
                    archived_records=str(archived[-1].last_record_no if archived else 0),
                    segments=len(archived),
                )
            )
        deployment_id = self.web.genesis.deployment_id.hex()
        self.reply(LogReply(deployment_id, str(len(follower.checkpoints)), shards))


class GenesisHandler(PublishedHandler):
    """GET /log/genesis"""

    def get(self) -> None:
        self.reply_bytes(self.web.genesis.raw, final=True)


class CheckpointBytesHandler(PublishedHandler):
    """GET /log/checkpoints?from="""

    def get(self) -> None:
        known = self.web.follower.checkpoints
        first = self.number("from", 0, 0, 2**63 - 1)
        if first > len(known):
            raise Problem("NOT_FOUND", f"there are {len(known)} checkpoints", field="from")
        content, following = known.raw(first, PAGE_BYTES)
        self.set_header(NEXT_HEADER, str(following))
        self.reply_bytes(content, final=following < len(known))


class SegmentsHandler(PublishedHandler):
    """GET /log/{shard}/segments?after=&limit="""

    def get(self, shard_name: str) -> None:
        shard = self.shard(shard_name)
        after = self.number("after", 0, 0, 2**63 - 1)
        limit = self.number("limit", 100, 1, 1_000)
        found = [one for one in self.web.log_files.segments(shard) if one.first_record_no > after]
        views = [
            SegmentView(
                first_record_no=str(one.first_record_no),
                last_record_no=str(one.last_record_no),
                bytes=str(one.path.stat().st_size),
                sha256=_hash_of(one).hex(),
            )
            for one in found[:limit]
        ]
        self.reply(SegmentsReply(views, views[-1].last_record_no if len(found) > limit else None))


class SegmentHandler(PublishedHandler):
    """GET /log/{shard}/segments/{first_record_no}: the file, or a range of its bytes"""

    async def get(self, shard_name: str, record_name: str) -> None:
        shard, record_no = self.shard(shard_name), whole_of(record_name)
        refs = (one for one in self.web.log_files.segments(shard) if one.first_record_no == record_no)
        ref = next(refs, None)
        if ref is None:
            raise Problem(
                "NOT_FOUND",
                f"no segment of shard {shard} begins with record {shown(record_name)}",
                field="first_record_no",
            )
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Cache-Control", _IMMUTABLE)
        self.set_header("Accept-Ranges", "bytes")
        self.set_header("ETag", f'"{_hash_of(ref).hex()}"')
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
            return
        size = ref.path.stat().st_size
        begin, end = self._range(size)
        self.set_header("Content-Length", str(end - begin))
        with ref.path.open("rb") as file:
            file.seek(begin)
            while begin < end:
                part = file.read(min(_CHUNK_BYTES, end - begin))
                begin += len(part)
                self.write(part)
                await self.flush()  # at the pace of who reads it
        self.finish()

    def _range(self, size: int) -> tuple[int, int]:
        """First byte and the one behind the last. What is no single range of bytes is ignored, as RFC 9110 allows."""
        match = _RANGE.fullmatch(self.request.headers.get("Range", ""))
        if match is None or self.request.headers.get("If-Range", self._etag()) != self._etag():
            return 0, size
        begin = int(match[1])
        end = min(size, int(match[2]) + 1) if match[2] else size
        if begin >= end:
            self._stand(**{"Content-Range": f"bytes */{size}"})
            raise Problem("RANGE_NOT_SATISFIABLE", f"the segment has {size} bytes")
        self.set_status(206)
        self.set_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        return begin, end

    def _etag(self) -> str:
        return self._headers.get("ETag", "")


class BatchesHandler(PublishedHandler):
    """GET /log/{shard}/batches?from="""

    async def get(self, shard_name: str) -> None:
        shard = self.shard(shard_name)
        first = self.number("from", 1, 1, 2**63 - 1)
        end = self.web.follower.engine(shard).next_record_no
        if first > end:
            raise Problem("NOT_FOUND", f"there is no record {first} yet", field="from")
        epoch = self.web.follower.records[shard].epoch_before(first)
        try:
            content, following, is_full = await self.web.log_files.page(shard, first, epoch)
        except KeyError as error:
            raise Problem("NOT_FOUND", str(error.args[0]), field="from") from None
        except (Mismatch, SegmentInvalid) as error:
            raise Problem("INTERNAL", f"the stored log is not whole: {error}") from None
        except (StoreUnavailable, StoreRefused) as error:
            raise Problem("NOT_READY", str(error)) from error
        self.set_header(NEXT_HEADER, str(following))
        self.reply_bytes(content, final=is_full and following <= self.signed_size(shard))


def _hash_of(ref: SegmentRef) -> bytes:
    """Raises Problem."""
    try:
        return segment_hash(ref)
    except SegmentInvalid as error:
        raise Problem("INTERNAL", f"the archive is not whole: {error}") from None


def routes() -> list[tuple[str, Any]]:
    """Path and handler, below /api/v1."""
    return [
        ("/log", LogHandler),
        ("/log/genesis", GenesisHandler),
        ("/log/checkpoints", CheckpointBytesHandler),
        ("/log/([^/]+)/segments", SegmentsHandler),
        ("/log/([^/]+)/segments/([^/]+)", SegmentHandler),
        ("/log/([^/]+)/batches", BatchesHandler),
    ]
