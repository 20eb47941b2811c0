"""REST, `/api/v1`: what an account sees of itself and does, and accounts with play money."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from webapp.http import Handler, ReadyHandler, address_of
from webapp.parsing import batch_of, cursor_of, cursor_text, hex_of, key_of
from webapp.problems import Problem, of_reason
from webapp.submission import Submitted
from webapp.views import BalanceView, FillView, OrderView
from zexchange.log.stream import StoreRefused, StoreUnavailable
from zexchange.runtime.exchange_info import read_exchange
from zexchange.verification.balance_proof import make_balance_proof
from zexchange.verification.checkpoint import CheckpointLeaf
from zexchange.wire import signing
from zexchange.wire.messages import (
    Command,
    CommandKind,
    ExecType,
    ExecutionReport,
    NotApplied,
    ReasonCode,
    SignedBatch,
    WireError,
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


class DemoBotsRequest(msgspec.Struct, frozen=True):
    running: bool


class DemoBotsReply(msgspec.Struct, frozen=True, kw_only=True):
    """`present`: the exchange was started with them."""

    present: bool
    running: bool


# ------------------------------------------------------------ handlers


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
        session, to_sign = await self.web.sessions.begin(key, address_of(self.web, self.request))
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
            found += [self.web.orders.opened(account_id, shard, one) for one in orders]
            after[shard] = orders[-1].order_id if orders else cursor.get(shard, 0)
        self.reply(OrdersReply(found, cursor_text(after) if len(found) == limit else None))


class OrderHistoryHandler(ReadyHandler):
    """GET /orders/history: reports about orders, newest first"""

    def get(self) -> None:
        reports, cursor = newest_reports(self, ORDER_KINDS)
        views = [self.web.orders.reported(one) for one in reports]
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
        engines = self.web.follower.engines()
        of_shards = {shard: engine.balances(account_id) for shard, engine in engines.items()}
        self.reply(BalancesReply(str(account_id), self.web.views.balances(of_shards)))


class BatchHandler(ReadyHandler):
    """POST /orders/batch"""

    async def post(self) -> None:
        session = self.session()
        frame = self._frame()
        if self.get_query_argument("validate_only", "false") == "true":
            self.reply(self._validated(frame))
            return
        batch = self._verified(frame)
        # The exchange may have opened it a moment before the replica sees it.
        account_id = session.account_id
        if account_id is None:
            account_id = session.account_id = self.web.account_of_key(session.public_key)
        if (
            account_id is None
            or batch.public_key != session.public_key
            or batch.shard not in self.web.follower.engines()
        ):
            done = Submitted(await session.submit(frame), False, batch.nonce)  # which says what is wrong
        else:
            self.web.follower.outcomes.submitted(account_id, batch.shard, batch.nonce)
            done = await self.web.submission.submit(account_id, batch, frame, session.submit)
        if len(done.messages) == 1 and isinstance(done.messages[0], NotApplied):
            raise of_reason(done.messages[0].reason)
        outcomes = self._outcomes(batch.commands, done)
        for one in outcomes:
            self.web.metrics.orders.labels(one.code or "ACCEPTED").inc()
        self.reply(BatchReply(str(done.nonce), outcomes))

    def _frame(self) -> bytes:
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip()
        if media_type == _FRAME_TYPE:
            return self.request.body
        try:
            return base64.b64decode(self.json(BatchRequest).batch, validate=True)
        except binascii.Error as error:
            raise Problem("BAD_REQUEST", f"batch is no base64: {error}", field="batch") from None

    def _verified(self, frame: bytes) -> SignedBatch:
        """Raises Problem."""
        batch = batch_of(frame)
        try:
            signing.verify_batch(frame, self.web.genesis.deployment_id)
        except WireError as error:
            raise of_reason(error.reason, str(error)) from None
        return batch

    def _validated(self, frame: bytes) -> BatchReply:
        """What can be said without applying: frame, signature, key, markets and their states."""
        batch = self._verified(frame)
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

    def _outcomes(self, commands: Sequence[Command], done: Submitted) -> list[CommandOutcome]:
        by_index: list[list[ExecutionReport]] = [[] for _ in commands]
        for message in done.messages:
            if isinstance(message, ExecutionReport) and message.command_index < len(commands):
                by_index[message.command_index].append(message)
        return [
            self._outcome(index, command, reports, done.repeated)
            for index, (command, reports) in enumerate(zip(commands, by_index, strict=True))
        ]

    def _outcome(
        self, index: int, command: Command, reports: Sequence[ExecutionReport], repeated: bool
    ) -> CommandOutcome:
        if not reports:
            return CommandOutcome(index=index, accepted=False, code="TIMEOUT")
        first = reports[0]
        is_mass = reports[-1].exec_type is ExecType.MASS_CANCELLED
        # Not what the command did to other orders of the account.
        own = reports if is_mass else [one for one in reports if one.order_id == first.order_id]
        last = own[-1]
        rejected = first.exec_type is ExecType.REJECTED
        views = self.web.views
        entered = command if command.kind is CommandKind.NEW else None
        return CommandOutcome(
            index=index,
            accepted=not rejected,
            code=first.reason.name if rejected else "",
            duplicate=repeated or bool(first.flags),
            order=views.order(last, entered) if last.order_id or rejected else None,
            fills=views.fills(one for one in own if one.exec_type is ExecType.TRADE and one.side),
            cancelled=last.qty_lots if is_mass else 0,
        )


class DemoAccountHandler(ReadyHandler):
    """POST /demo/account: an account with play money, on a demo deployment; for one that is there, play money of assets
    that it has never had"""

    async def post(self) -> None:
        operator = self.web.operator
        if not self.web.demo or operator is None:
            raise Problem("FORBIDDEN", "this is not a demo deployment")
        key = key_of(self.json(DemoRequest).public_key)
        account_id = await operator.open_demo_account(key, self.web.follower)
        self.reply(AccountReply(str(account_id)), 201)


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
