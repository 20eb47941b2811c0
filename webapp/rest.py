"""REST, `/api/v1`: what everybody may see."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from webapp.candles import INTERVALS_S
from webapp.decimals import rfc3339
from webapp.http import Handler, ReadyHandler
from webapp.parsing import whole_of
from webapp.problems import Problem
from webapp.views import (
    AssetView,
    CandleView,
    CheckpointView,
    MarketView,
    TickerView,
    TradeView,
)
from zexchange import __version__, limits
from zexchange.log.stream import StoreRefused, StoreUnavailable
from zexchange.verification.checkpoint import CheckpointLeaf, origin_of

# ------------------------------------------------------------ bodies


class TimeReply(msgspec.Struct, frozen=True):
    time: str


class VersionReply(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    name: str
    deployment_id: str
    demo: bool
    operator_public_key: str
    settlement_public_key: str
    checkpoint_origin: str


class LimitsReply(msgspec.Struct, frozen=True, kw_only=True):
    price_ticks_max: str
    qty_lots_max: str
    amount_max: str
    commands_per_batch_max: int
    frame_bytes_max: int
    fee_ppm_max: int
    requests_per_minute: int
    book_levels_max: int


class MarketsReply(msgspec.Struct, frozen=True):
    markets: Sequence[MarketView]


class AssetsReply(msgspec.Struct, frozen=True):
    assets: Sequence[AssetView]


class TickersReply(msgspec.Struct, frozen=True):
    tickers: Sequence[TickerView]


class TradesReply(msgspec.Struct, frozen=True):
    trades: Sequence[TradeView]


class CandlesReply(msgspec.Struct, frozen=True):
    candles: Sequence[CandleView]


class CheckpointsReply(msgspec.Struct, frozen=True):
    checkpoints: Sequence[CheckpointView]


class ConsistencyReply(msgspec.Struct, frozen=True):
    """RFC 6962 consistency proof between two sizes of the settlement log; hashes in hex."""

    old: str
    new: str
    hashes: Sequence[str]


class InclusionReply(msgspec.Struct, frozen=True):
    """RFC 6962 inclusion proof of a checkpoint's leaf; hashes in hex, the leaf in base64."""

    index: str
    size: str
    leaf: str
    hashes: Sequence[str]


class RecordReply(msgspec.Struct, frozen=True):
    """`hashes` lead from the leaf of the frame (base64) to the shard's `log_root` in the checkpoint."""

    record_no: str
    frame: str
    checkpoint: str
    log_size: str
    hashes: Sequence[str]


# ------------------------------------------------------------ public


class TimeHandler(Handler):
    """GET /time"""

    def get(self) -> None:
        self.reply(TimeReply(rfc3339(time.time_ns())))


class VersionHandler(Handler):
    """GET /version"""

    def get(self) -> None:
        genesis = self.web.genesis
        self.reply(
            VersionReply(
                version=__version__,
                name=genesis.name,
                deployment_id=genesis.deployment_id.hex(),
                demo=self.web.demo,
                operator_public_key=genesis.operator_public_key.hex(),
                settlement_public_key=genesis.settlement_public_key.hex(),
                checkpoint_origin=origin_of(genesis.name),
            )
        )


class LimitsHandler(Handler):
    """GET /limits"""

    def get(self) -> None:
        self.reply(
            LimitsReply(
                price_ticks_max=str(limits.PRICE_TICKS_MAX),
                qty_lots_max=str(limits.QTY_LOTS_MAX),
                amount_max=str(limits.AMOUNT_MAX),
                commands_per_batch_max=limits.COMMANDS_PER_BATCH_MAX,
                frame_bytes_max=limits.MAX_FRAME_BYTES,
                fee_ppm_max=limits.FEE_PPM_MAX,
                requests_per_minute=self.web.rate_limit.per_window,
                book_levels_max=limits.QUERY_LIMIT_MAX,
            )
        )


class MarketsHandler(ReadyHandler):
    """GET /markets"""

    def get(self) -> None:
        self.reply(
            MarketsReply(
                [
                    self.web.views.market(one.market_id, self.web.follower.engine(one.shard))
                    for one in self.web.views.markets
                ]
            )
        )


class AssetsHandler(Handler):
    """GET /assets"""

    def get(self) -> None:
        self.reply(AssetsReply(self.web.views.assets()))


class TickerHandler(ReadyHandler):
    """GET /ticker"""

    def get(self) -> None:
        self.reply(TickersReply([self.web.feed.ticker(one.market_id) for one in self.web.views.markets]))


class BookHandler(ReadyHandler):
    """GET /book/{market}"""

    def get(self, symbol: str) -> None:
        market = self.web.market(symbol)
        levels = self.number("levels", 50, 1, limits.QUERY_LIMIT_MAX)
        engine = self.web.follower.engine(market.shard)
        depth, terms = engine.depth(market.market_id, levels), engine.market_terms(market.market_id)
        seq, time_ns = engine.next_seq - 1, engine.log_time_ns
        self.reply(self.web.views.book(market.market_id, depth, terms, seq, time_ns))


class TradesHandler(ReadyHandler):
    """GET /trades/{market}"""

    def get(self, symbol: str) -> None:
        market = self.web.market(symbol)
        limit = self.number("limit", 100, 1, 1_000)
        history = self.web.follower.history.markets[market.market_id]
        newest = history.after(max(0, history.count - limit))
        self.reply(TradesReply([self.web.views.trade(market.market_id, one) for one in reversed(newest)]))


class CandlesHandler(ReadyHandler):
    """GET /candles/{market}"""

    def get(self, symbol: str) -> None:
        market = self.web.market(symbol)
        interval = self.get_query_argument("interval", "1m")
        if interval not in INTERVALS_S:
            raise Problem("BAD_REQUEST", f"interval is one of {', '.join(INTERVALS_S)}", field="interval")
        limit = self.number("limit", 500, 1, 4_000)
        candles = self.web.follower.history.markets[market.market_id].candles.newest(interval, limit)
        self.reply(CandlesReply([self.web.views.candle(market.market_id, one) for one in candles]))


class CheckpointsHandler(Handler):
    """GET /checkpoints"""

    def get(self) -> None:
        known = self.web.follower.checkpoints
        limit = self.number("limit", 20, 1, 1_000)
        before = self.number("before", len(known), 0, 2**63 - 1)
        last = min(before, len(known))
        self.reply(
            CheckpointsReply(
                [self.web.views.checkpoint(n, known.get(n)) for n in range(max(0, last - limit), last)][::-1]
            )
        )


class CheckpointHandler(Handler):
    """GET /checkpoints/{n}, or `latest`"""

    def get(self, name: str) -> None:
        known = self.web.follower.checkpoints
        number = (
            len(known) - 1 if name == "latest" else int(name) if name.isdecimal() and len(name) < 20 else -1
        )
        if not 0 <= number < len(known):
            raise Problem("NOT_FOUND", f"no checkpoint {name}")
        self.reply(self.web.views.checkpoint(number, known.get(number)))


class ConsistencyHandler(Handler):
    """GET /proofs/consistency?old=&new= of the settlement log"""

    def get(self) -> None:
        known = self.web.follower.checkpoints
        if not known:
            raise Problem("NOT_READY", "no checkpoint was signed yet")
        new = self.number("new", len(known), 1, len(known))
        old = self.number("old", new, 1, new)
        proof = known.tree.consistency_proof(old, new)
        self.reply(ConsistencyReply(str(old), str(new), [one.hex() for one in proof]))


class InclusionHandler(Handler):
    """GET /proofs/checkpoint/{n}?size= of the settlement log"""

    def get(self, name: str) -> None:
        known = self.web.follower.checkpoints
        if not known:
            raise Problem("NOT_READY", "no checkpoint was signed yet")
        size = self.number("size", len(known), 1, len(known))
        if not name.isdecimal() or len(name) > 19 or int(name) >= min(size, len(known)):
            raise Problem("NOT_FOUND", f"no checkpoint {name} below size {size}")
        index = int(name)
        proof = known.tree.inclusion_proof(index, size)
        leaf = base64.b64encode(known.get(index).leaf).decode("ascii")
        self.reply(InclusionReply(str(index), str(size), leaf, [one.hex() for one in proof]))


class RecordHandler(Handler):
    """GET /proofs/record/{shard}/{record_no}: in the log as the newest checkpoint signs it"""

    async def get(self, shard_name: str, record_name: str) -> None:
        if not self.web.config.web.publish_log:
            raise Problem("FORBIDDEN", "this exchange does not publish its log (web.publish_log)")
        follower = self.web.follower
        known = follower.checkpoints
        shard, record_no = whole_of(shard_name), whole_of(record_name)
        records = follower.records.get(shard)
        if records is None or record_no < 1:
            raise Problem("NOT_FOUND", f"no record {record_name} of shard {shard_name}")
        if not known:
            raise Problem("NOT_READY", "no checkpoint was signed yet")
        number = len(known) - 1
        log_size = CheckpointLeaf.decode(known.get(number).leaf, number).shards[shard].log_size
        if record_no >= log_size:
            raise Problem("NOT_FOUND", f"no checkpoint covers record {record_no} yet")
        if records.size < log_size:
            raise Problem("NOT_READY", "the log was not read from its beginning: no proofs of records")
        try:
            frame = await follower.frame(shard, record_no)
        except (StoreUnavailable, StoreRefused) as error:
            raise Problem("NOT_READY", str(error)) from error
        hashes = [one.hex() for one in records.tree.inclusion_proof(record_no, log_size)]
        encoded = base64.b64encode(frame).decode("ascii")
        self.reply(RecordReply(str(record_no), encoded, str(number), str(log_size), hashes))


def routes() -> list[tuple[str, type[Handler]]]:
    """Path and handler, below /api/v1."""
    found: dict[str, Any] = {
        "/time": TimeHandler,
        "/version": VersionHandler,
        "/limits": LimitsHandler,
        "/markets": MarketsHandler,
        "/assets": AssetsHandler,
        "/ticker": TickerHandler,
        "/book/([^/]+)": BookHandler,
        "/trades/([^/]+)": TradesHandler,
        "/candles/([^/]+)": CandlesHandler,
        "/checkpoints": CheckpointsHandler,
        "/checkpoints/([^/]+)": CheckpointHandler,
        "/proofs/consistency": ConsistencyHandler,
        "/proofs/checkpoint/([^/]+)": InclusionHandler,
        "/proofs/record/([^/]+)/([^/]+)": RecordHandler,
    }
    return list(found.items())
