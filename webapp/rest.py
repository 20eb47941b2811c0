"""REST, `/api/v1`: what everybody may see, and what an account sees of itself."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from webapp.candles import INTERVALS_S
from webapp.decimals import rfc3339
from webapp.http import Handler
from webapp.problems import Problem, of_reason
from webapp.views import (
    AssetView,
    BalanceView,
    CandleView,
    CheckpointView,
    FillView,
    MarketView,
    OrderView,
    TickerView,
    TradeView,
)
from zexchange import __version__, limits
from zexchange.log.stream import StoreRefused, StoreUnavailable
from zexchange.runtime.exchange_info import read_exchange
from zexchange.verification.balance_proof import make_balance_proof
from zexchange.verification.checkpoint import CheckpointLeaf, origin_of
from zexchange.wire import signing
from zexchange.wire.messages import (
    ExecType,
    ExecutionReport,
    Message,
    NotApplied,
    ReasonCode,
    SignedBatch,
    WireError,
    decode,
    template_of,
)

ORDER_KINDS = frozenset(
    {
        ExecType.NEW,
        ExecType.REJECTED,
        ExecType.REPLACED,
        ExecType.CANCELLED,
        ExecType.EXPIRED,
        ExecType.TRADE,
        ExecType.SELF_TRADE_PREVENTED,
        ExecType.TRIGGERED,
    }
)
FILL_KINDS = frozenset({ExecType.TRADE})
_FRAME_TYPE = "application/octet-stream"


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


class DemoBotsRequest(msgspec.Struct, frozen=True):
    running: bool


class DemoBotsReply(msgspec.Struct, frozen=True, kw_only=True):
    """`present`: the exchange was started with them."""

    present: bool
    running: bool


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


class OrdersReply(msgspec.Struct, frozen=True):
    orders: Sequence[OrderView]
    next_cursor: str | None = None


class FillsReply(msgspec.Struct, frozen=True):
    fills: Sequence[FillView]
    next_cursor: str | None = None


class BalancesReply(msgspec.Struct, frozen=True):
    account_id: str
    balances: Sequence[BalanceView]


PublicKeyHex = Annotated[
    str, Meta(pattern="^[0-9a-fA-F]{64}$", description="an Ed25519 public key as 64 hex digits")
]
SignatureHex = Annotated[
    str, Meta(pattern="^[0-9a-fA-F]{128}$", description="an Ed25519 signature as 128 hex digits")
]


class SessionRequest(msgspec.Struct, frozen=True):
    """Whose session it is to be."""

    public_key: PublicKeyHex


class SessionPrepared(msgspec.Struct, frozen=True):
    """`to_sign`: base64 of the bytes to sign with the key (Ed25519), for POST /sessions/{session_id}."""

    session_id: str
    to_sign: str
    deployment_id: str


class SessionSignature(msgspec.Struct, frozen=True):
    """Over what was to be signed."""

    signature: SignatureHex


class SessionReply(msgspec.Struct, frozen=True):
    """`token` goes into `Authorization: Bearer`. `account_id` is null while the key has no account."""

    token: str
    account_id: str | None


class BatchRequest(msgspec.Struct, frozen=True):
    """The frame of a SignedBatch in base64."""

    batch: str


class CommandOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one command. `accepted` false: `code` says why; nothing of it was done."""

    index: int
    accepted: bool
    code: str = ""
    duplicate: bool = False
    order: OrderView | None = None
    fills: Sequence[FillView] = ()
    cancelled: int = 0


class BatchReply(msgspec.Struct, frozen=True):
    """`nonce` names the batch; `valid` is what `validate_only` asks for."""

    nonce: str
    outcomes: Sequence[CommandOutcome]
    valid: bool = True


class DemoRequest(msgspec.Struct, frozen=True):
    """Whose account it is to be."""

    public_key: PublicKeyHex


class AccountReply(msgspec.Struct, frozen=True):
    account_id: str


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


class ReadyHandler(Handler):
    """Base of those that need the replica."""

    def prepare(self) -> None:
        super().prepare()
        if not self.web.follower.caught_up:
            raise Problem("NOT_READY", "still replaying the log")


class MarketsHandler(ReadyHandler):
    """GET /markets"""

    def get(self) -> None:
        self.reply(
            MarketsReply(
                [
                    self.web.views.market(
                        one.market_id, self.web.follower.engine(one.shard).depth(one.market_id, 0).state
                    )
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
        depth = engine.depth(market.market_id, levels)
        self.reply(self.web.views.book(market.market_id, depth, engine.next_seq - 1, engine.log_time_ns))


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


# ------------------------------------------------------------ of one account


class BalanceProofHandler(ReadyHandler):
    """GET /proofs/balance: the account of the session, in the state that the newest checkpoint signs"""

    async def get(self) -> None:
        account_id = self.account()
        follower = self.web.follower
        known = follower.checkpoints
        if not known:
            raise Problem("NOT_READY", "no checkpoint was signed yet")
        number = len(known) - 1
        checkpoint = known.get(number)
        hashes = known.tree.inclusion_proof(number, number + 1)
        try:
            found = await follower.account_at(account_id, CheckpointLeaf.decode(checkpoint.leaf, number))
        except (StoreUnavailable, StoreRefused) as error:
            raise Problem("NOT_READY", str(error)) from error
        self.reply(make_balance_proof(account_id, number, checkpoint, hashes, found))


class SessionsHandler(Handler):
    """POST /sessions"""

    async def post(self) -> None:
        key = key_of(self.json(SessionRequest).public_key)
        session, to_sign = await self.web.sessions.begin(key)
        self.reply(
            SessionPrepared(
                session.id,
                base64.b64encode(to_sign).decode("ascii"),
                self.web.genesis.deployment_id.hex(),
            ),
            201,
        )


class SessionHandler(Handler):
    """POST /sessions/{id}; DELETE /sessions/current"""

    async def post(self, session_id: str) -> None:
        signature = hex_of(self.json(SessionSignature).signature, "signature")
        session = await self.web.sessions.log_on(session_id, signature)
        account = None if session.account_id is None else str(session.account_id)
        self.reply(SessionReply(session.token, account))

    def delete(self, _session_id: str) -> None:
        self.web.sessions.end(self.session())
        self.set_status(204)
        self.finish()


class OrdersHandler(ReadyHandler):
    """GET /orders: those that are open"""

    def get(self) -> None:
        account_id = self.account()
        limit = self.number("limit", 100, 1, 1_000)
        cursor = cursor_of(self.get_query_argument("cursor", ""))
        found: list[OrderView] = []
        after: dict[int, int] = {}
        for shard, engine in self.web.follower.engines().items():
            room = limit - len(found)
            if room == 0:
                after[shard] = cursor.get(shard, 0)
                continue
            orders = engine.open_orders(account_id, 0, cursor.get(shard, 0), room)
            found += [self.web.views.open_order(one) for one in orders]
            after[shard] = orders[-1].order_id if orders else cursor.get(shard, 0)
        self.reply(OrdersReply(found, cursor_text(after) if len(found) == limit else None))


class OrderHistoryHandler(ReadyHandler):
    """GET /orders/history: reports about orders, newest first"""

    def get(self) -> None:
        reports, cursor = newest_reports(self, ORDER_KINDS)
        views = [self.web.views.order(one) for one in reports]
        self.reply(OrdersReply([one for one in views if one is not None], cursor))


class FillsHandler(ReadyHandler):
    """GET /fills: newest first"""

    def get(self) -> None:
        reports, cursor = newest_reports(self, FILL_KINDS)
        self.reply(FillsReply(self.web.views.fills(reports), cursor))


class BalancesHandler(ReadyHandler):
    """GET /balances"""

    def get(self) -> None:
        account_id = self.account()
        of_shards = [engine.balances(account_id) for engine in self.web.follower.engines().values()]
        self.reply(BalancesReply(str(account_id), self.web.views.balances(of_shards)))


class BatchHandler(ReadyHandler):
    """POST /orders/batch"""

    async def post(self) -> None:
        session = self.session()
        frame = self._frame()
        if self.get_query_argument("validate_only", "false") == "true":
            self.reply(self._validated(frame))
            return
        messages = await session.submit(frame)
        batch = decode(frame)
        assert isinstance(batch, SignedBatch)
        if len(messages) == 1 and isinstance(messages[0], NotApplied):
            raise of_reason(messages[0].reason)
        outcomes = self._outcomes(len(batch.commands), messages)
        for one in outcomes:
            self.web.metrics.orders.labels(one.code or "ACCEPTED").inc()
        self.reply(BatchReply(str(batch.nonce), outcomes))

    def _frame(self) -> bytes:
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip()
        if media_type == _FRAME_TYPE:
            return self.request.body
        try:
            return base64.b64decode(self.json(BatchRequest).batch, validate=True)
        except binascii.Error as error:
            raise Problem("BAD_REQUEST", f"batch is no base64: {error}", field="batch") from None

    def _validated(self, frame: bytes) -> BatchReply:
        """What can be said without applying: frame, signature, key, markets and their states."""
        try:
            if template_of(frame) != SignedBatch.TEMPLATE_ID:
                raise Problem("BAD_REQUEST", "the body is not a SignedBatch frame")
            batch = decode(frame)
            signing.verify_batch(frame, self.web.genesis.deployment_id)
        except WireError as error:
            raise of_reason(error.reason, str(error)) from None
        assert isinstance(batch, SignedBatch)
        engine = self.web.follower.engines().get(batch.shard)
        if engine is None:
            raise of_reason(ReasonCode.SHARD_UNKNOWN)
        if engine.account_of_key(batch.public_key) is None:
            raise of_reason(ReasonCode.UNKNOWN_KEY)
        outcomes = []
        for index, command in enumerate(batch.commands):
            code = ""
            if command.market_id:
                try:
                    state = engine.depth(command.market_id, 0).state
                except KeyError:
                    code = ReasonCode.UNKNOWN_MARKET.name
                else:
                    code = "" if state.name == "CONTINUOUS" else f"MARKET_{state.name}"
            outcomes.append(CommandOutcome(index=index, accepted=not code, code=code))
        return BatchReply(str(batch.nonce), outcomes, all(one.accepted for one in outcomes))

    def _outcomes(self, commands: int, messages: Sequence[Message]) -> list[CommandOutcome]:
        by_index: list[list[ExecutionReport]] = [[] for _ in range(commands)]
        for message in messages:
            if isinstance(message, ExecutionReport) and message.command_index < commands:
                by_index[message.command_index].append(message)
        return [self._outcome(index, reports) for index, reports in enumerate(by_index)]

    def _outcome(self, index: int, reports: Sequence[ExecutionReport]) -> CommandOutcome:
        if not reports:
            return CommandOutcome(index=index, accepted=False, code="TIMEOUT")
        first = reports[0]
        is_mass = reports[-1].exec_type is ExecType.MASS_CANCELLED
        # Not what the command did to other orders of the account.
        own = reports if is_mass else [one for one in reports if one.order_id == first.order_id]
        last = own[-1]
        rejected = first.exec_type is ExecType.REJECTED
        views = self.web.views
        return CommandOutcome(
            index=index,
            accepted=not rejected,
            code=first.reason.name if rejected else "",
            duplicate=bool(first.flags),
            order=views.order(last) if last.order_id or rejected else None,
            fills=views.fills(one for one in own if one.exec_type is ExecType.TRADE and one.side),
            cancelled=last.qty_lots if is_mass else 0,
        )


class DemoAccountHandler(Handler):
    """POST /demo/account: an account with play money, on a demo deployment"""

    async def post(self) -> None:
        if not self.web.demo or self.web.operator is None:
            raise Problem("FORBIDDEN", "this is not a demo deployment")
        key = key_of(self.json(DemoRequest).public_key)
        self.reply(AccountReply(str(await self.web.operator.open_demo_account(key))), 201)


class DemoBotsHandler(Handler):
    """GET and POST /demo/bots: whether the bots of a demo trade"""

    def get(self) -> None:
        self.reply(self._state())

    def post(self) -> None:
        if not self._state().present:
            raise Problem("FORBIDDEN", "this exchange was not started with bots (zexchange up --demo)")
        paused = self.web.paths.bots_paused
        if self.json(DemoBotsRequest).running:
            paused.unlink(missing_ok=True)
        else:
            paused.touch(mode=0o600)
        self.reply(self._state())

    def _state(self) -> DemoBotsReply:
        info = read_exchange(self.web.paths)
        present = self.web.demo and info is not None and "bots" in info.processes
        return DemoBotsReply(present=present, running=present and not self.web.paths.bots_paused.exists())


# ------------------------------------------------------------ helpers


def whole_of(text: str) -> int:
    """A number in a path; -1 for what is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1


def key_of(text: str) -> bytes:
    """A public key in hex. Raises Problem."""
    key = hex_of(text, "public_key")
    if len(key) != signing.PUBLIC_KEY_BYTES:
        raise Problem("BAD_REQUEST", "a public key is 64 hex digits", field="public_key")
    return key


def hex_of(text: str, field: str) -> bytes:
    """Raises Problem."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Problem("BAD_REQUEST", f"{field} is not hex", field=field) from None


def cursor_of(text: str) -> dict[int, int]:
    """An opaque cursor: a number per shard. Raises Problem."""
    if not text:
        return {}
    try:
        return msgspec.msgpack.decode(base64.urlsafe_b64decode(text), type=dict[int, int])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise Problem("BAD_REQUEST", "the cursor is not one of ours", field="cursor") from None


def cursor_text(numbers: dict[int, int]) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(numbers)).decode("ascii")


def newest_reports(handler: Handler, kinds: frozenset[ExecType]) -> tuple[list[ExecutionReport], str | None]:
    """A page of an account's reports, and the cursor of the next."""
    account_id = handler.account()
    limit = handler.number("limit", 100, 1, 1_000)
    before = cursor_of(handler.get_query_argument("cursor", ""))
    history = handler.web.follower.history
    reports = history.reports(account_id, handler.web.follower.engines(), kinds, before, limit)
    for report in reports:
        before[report.shard] = min(report.report_seq, before.get(report.shard, report.report_seq))
    return reports, cursor_text(before) if len(reports) == limit else None


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
        "/proofs/balance": BalanceProofHandler,
        "/sessions": SessionsHandler,
        "/sessions/([^/]+)": SessionHandler,
        "/orders": OrdersHandler,
        "/orders/history": OrderHistoryHandler,
        "/orders/batch": BatchHandler,
        "/fills": FillsHandler,
        "/balances": BalancesHandler,
        "/demo/account": DemoAccountHandler,
        "/demo/bots": DemoBotsHandler,
    }
    return list(found.items())
