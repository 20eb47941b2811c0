"""The client without its socket: requests in flight, what answers them, and when to connect, resend and give up.

No socket, clock, thread or random number in here. The shell (_connection.py) hands in bytes and the time, and takes
bytes out:

    core.connected(at)                    a connection was made
    core.receive(data, at)                bytes arrived; finishes requests, collects events
    core.lost(why, at, jitter)            the connection is gone; core.connect_at_ms says when to try again
    core.tick(at)                         at core.next_deadline_ms() or later
    core.take_output()                    bytes to send

Exactly once. A signed batch stays pending until every command in it has its answer. When the connection is lost and
made again, every pending batch is sent again with the same bytes; its nonce makes the exchange answer a batch it has
applied already with the original outcome (flag `duplicate`) and change nothing. Only if no answer comes before the
deadline is the outcome unknown, and the error carries the frame for another try.

When is an answer complete? All reports of one batch to one session arrive in order. The answer to a command is
complete with a refusal, a cancellation, nothing left to fill, or the first report of a later command of the batch.
What remains is an order that may rest: `new`, then any number of fills, then silence. So when the last command of a
batch may rest after trading, the core sends a ShardStatusRequest right behind the batch, as a fence: the exchange
answers it after the batch's reports. It travels with the batch, so it costs no time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from nacl.signing import SigningKey

from zexchange.client.errors import (
    ConnectFailed,
    DeploymentMismatch,
    Disconnected,
    NoAnswer,
    OutcomeUnknown,
    ProtocolViolation,
    ZexchangeError,
)
from zexchange.client.rejections import NonceUsed, rejection_for
from zexchange.definitions import Definitions
from zexchange.genesis import Genesis, GenesisError, parse_genesis
from zexchange.limits import ACCOUNT_NONE, QUERY_LIMIT_MAX
from zexchange.wire import messages as wire
from zexchange.wire.answers import answers
from zexchange.wire.messages import (
    CommandKind,
    ExecType,
    ExecutionReport,
    OrderOptions,
    ReasonCode,
    ReportFlags,
    TimeInForce,
    Trigger,
)
from zexchange.wire.session import (
    ClientSession,
    Established,
    MessageReceived,
    Query,
    RemoteProtocolError,
    SessionEnded,
    SessionSettings,
    State,
)
from zexchange.wire.signing import sign_batch

__all__ = ["AnyBatch", "BatchRequest", "Core", "Gap", "Instant", "Phase", "QueryRequest", "Request"]

RECONNECT_FIRST_MS = 100
RECONNECT_LAST_MS = 10_000
RESEND_BUSY_MS = 100
"""Pause before a batch that may have been applied is offered again to a busy exchange."""

# Ended like this, the next connection would end the same way.
_HOPELESS = frozenset(
    {
        ReasonCode.SCHEMA_UNKNOWN,
        ReasonCode.VERSION_UNSUPPORTED,
        ReasonCode.SIGNATURE_INVALID,
        ReasonCode.TOO_MANY_STRIKES,
        ReasonCode.DEPLOYMENT_MISMATCH,
        ReasonCode.HEARTBEAT_INTERVAL_INVALID,
        ReasonCode.CANCEL_ON_DISCONNECT_UNAVAILABLE,
    }
)
# The outcome of a nonce is no longer kept: after a resend this says nothing about the first try.
_FORGOTTEN = frozenset({ReasonCode.NONCE_TOO_OLD, ReasonCode.NONCE_USED})
_LAST_WORDS = frozenset({ExecType.REJECTED, ExecType.CANCELLED, ExecType.MASS_CANCELLED})
_MAY_GO_ON = frozenset({ExecType.NEW, ExecType.REPLACED, ExecType.TRADE, ExecType.SELF_TRADE_PREVENTED})
_ABOUT_ORDERS = frozenset(
    {
        ExecType.NEW,
        ExecType.REPLACED,
        ExecType.CANCELLED,
        ExecType.EXPIRED,
        ExecType.TRADE,
        ExecType.SELF_TRADE_PREVENTED,
        ExecType.TRIGGERED,
    }
)
_U32_MAX = 2**32 - 1
_RESTS = frozenset({TimeInForce.GTC, TimeInForce.DAY, TimeInForce.GTD})
_FOR_AUCTIONS = frozenset({TimeInForce.AT_THE_OPEN, TimeInForce.AT_THE_CLOSE})
"""Orders that trade in an auction only, so never on entry."""


class Instant(NamedTuple):
    """A moment, on two clocks."""

    mono_ms: int  # never goes back; for deadlines
    wall_ns: int  # since 1970; for nonces


class Phase(Enum):
    """Where the client is."""

    WAITING = "waiting"  # no connection; the next try is due at connect_at_ms
    LOGGING_ON = "logging on"  # connected, session not established or genesis not there yet
    READY = "ready"
    ENDED = "ended"  # closed, or failed for good


class Gap(NamedTuple):
    """Reports `first` to `last` of the account on `shard` did not reach this client."""

    shard: int
    first: int
    last: int


class Request:
    """Something sent that wants an answer. `done` is set last; then either `error` is set or the answer is complete."""

    def __init__(self, frame: bytes, deadline_ms: int, timeout_ms: int) -> None:
        self.frame = frame
        self.deadline_ms = deadline_ms
        self.timeout_ms = timeout_ms
        self.sends = 0
        self.done = False
        self.error: ZexchangeError | None = None


C = TypeVar("C", wire.Command, wire.OperatorCommand)


class BatchRequest(Request, Generic[C]):
    """A signed batch: `reports[i]` are the reports that answer command i, in order."""

    def __init__(
        self,
        frame: bytes,
        nonce: int,
        shard: int,
        commands: Sequence[C],
        deadline_ms: int,
        timeout_ms: int,
        *,
        resent: bool,
    ) -> None:
        super().__init__(frame, deadline_ms, timeout_ms)
        self.nonce = nonce
        self.shard = shard
        self.commands: Sequence[C] = commands
        self.reports: list[list[ExecutionReport]] = [[] for _ in commands]
        self.complete = [False] * len(commands)
        self.fence_id = 0  # request id of its fence, 0 if it has none
        self.resend_at_ms: int | None = None  # the exchange was busy: try again then
        self.fence_at_ms: int | None = None  # likewise, for its fence alone
        # A frame from an earlier client may have been applied already, however often this one sent it.
        self.resent = resent


AnyBatch: TypeAlias = BatchRequest[wire.Command] | BatchRequest[wire.OperatorCommand]


class QueryRequest(Request):
    """A query, or the fence of a batch."""

    def __init__(
        self, frame: bytes, request_id: int, deadline_ms: int, timeout_ms: int, fenced: int = 0
    ) -> None:
        super().__init__(frame, deadline_ms, timeout_ms)
        self.request_id = request_id
        self.answer: wire.Message | None = None
        self.fenced_nonce = fenced  # nonce of the batch it is the fence of, 0 for a plain query


class LearnRequest(QueryRequest):
    """Asks a shard, page by page, for what was defined since it was last asked."""

    def __init__(self, query: wire.DefinitionsRequest, deadline_ms: int, timeout_ms: int) -> None:
        super().__init__(query.encode(), query.request_id, deadline_ms, timeout_ms)
        self.query = query
        self.next_record_no = 0  # as of the first page


class Core:
    """One client: one key, one connection at a time, any number of requests."""

    def __init__(
        self,
        key: SigningKey,
        *,
        deployment_id: bytes | None = None,
        heartbeat_interval_ms: int = 5_000,
        establish_timeout_ms: int = 5_000,
        at: Instant,
    ) -> None:
        """`deployment_id` pins the deployment; None trusts the first one and holds on to it."""
        self._key = key
        self.public_key = bytes(key.verify_key)
        self.deployment_id = deployment_id
        self.genesis: Genesis | None = None
        self.ack: wire.EstablishmentAck | None = None
        self.phase = Phase.WAITING
        self._at = at  # when bytes came last
        self.connect_at_ms = at.mono_ms
        self.attempts = 0  # failed in a row
        self.failure: ZexchangeError | None = None  # why it ended, or why the last connection did
        self._settings = SessionSettings(
            heartbeat_interval_ms=heartbeat_interval_ms,
            establish_timeout_ms=establish_timeout_ms,
            frame_timeout_ms=establish_timeout_ms,  # a genesis file of megabytes is one frame
        )
        self._session: ClientSession | None = None
        self._batches: dict[int, AnyBatch] = {}
        self._queries: dict[int, QueryRequest] = {}
        self._order: dict[int, Request] = {}  # id(request) -> request, in the order they were made
        self._last_nonce = 0
        self._last_request_id = 0
        self._clock_offset_ns = 0
        self._report_seq: dict[int, int] = {}  # per shard; missing until the first is known
        self._account_id: int | None = None
        self._events: deque[ExecutionReport | Gap] = deque()
        self.definitions: Definitions | None = None
        self._learned_record_no: dict[int, int] = {}  # per shard; definitions are those of all records below
        self._assets_learned: dict[
            int, int
        ] = {}  # per shard: assets that it has told of, or that the genesis has
        self._logon: list[LearnRequest] = []  # what must be known before the session is ready
        self._looking: dict[int, LearnRequest] = {}  # per shard: why events wait

    # ---------------------------------------------------------------- connection

    def connected(self, at: Instant) -> None:
        """A connection was made: log on."""
        if self.phase is Phase.ENDED:
            return
        self._session = ClientSession(
            self._settings,
            key=self._key,
            deployment_id=self.deployment_id,
            now_ms=at.mono_ms,
            last_report_seq=max(self._report_seq.values(), default=0),
        )
        self.phase = Phase.LOGGING_ON

    def lost(self, why: ZexchangeError | str, at: Instant, jitter: float) -> None:
        """The connection could not be made, or is gone.

        `jitter` in [0, 1) spreads the clients of a restarted exchange over time.
        """
        if self.phase is Phase.ENDED:
            return
        self._session = None
        self.phase = Phase.WAITING
        self.failure = why if isinstance(why, ZexchangeError) else ConnectFailed(why)
        self.attempts += 1
        pause_ms = min(RECONNECT_LAST_MS, RECONNECT_FIRST_MS * 2 ** min(self.attempts - 1, 20))
        self.connect_at_ms = at.mono_ms + int(pause_ms * (0.5 + jitter / 2))

    def receive(self, data: bytes, at: Instant) -> None:
        """Take bytes. Raises ZexchangeError when the connection must be closed; then call lost()."""
        self._at = at
        session = self._session
        if session is None:
            return
        try:
            frames = session.feed(data, at.mono_ms)
            for frame in frames:
                event = session.receive(frame, at.mono_ms)
                if isinstance(event, Established):
                    self._established(event.ack, at)
                elif isinstance(event, MessageReceived):
                    self._message(event.message, at)
                elif isinstance(event, SessionEnded):
                    raise self._session_ended(event.reason, at)
        except RemoteProtocolError as error:
            session.terminate(error.reason, at.mono_ms)
            if error.reason is ReasonCode.DEPLOYMENT_MISMATCH:
                raise self.fail(
                    DeploymentMismatch(
                        f"this is another deployment than the expected {(self.deployment_id or b'').hex()}"
                    ),
                ) from None
            raise ProtocolViolation(f"the exchange broke the protocol: {error}") from error

    def tick(self, at: Instant) -> None:
        """Heartbeats, timeouts, resends. Raises ZexchangeError when the connection must be closed; then call lost()."""
        self.expire(at)
        session = self._session
        if session is None:
            return
        if self.phase is Phase.LOGGING_ON and any(request.error is not None for request in self._logon):
            raise ConnectFailed("the exchange does not say what its markets are")
        if self.phase is Phase.READY:
            for batch in list(self._batches.values()):
                if batch.resend_at_ms is not None and at.mono_ms >= batch.resend_at_ms:
                    batch.resend_at_ms = None
                    self._transmit(batch, at)
                    self._fence(batch, at)
                if batch.fence_at_ms is not None and at.mono_ms >= batch.fence_at_ms:
                    self._fence(batch, at)
        ended = session.tick(at.mono_ms)
        if ended is not None:
            raise ConnectFailed(f"the exchange was silent for too long ({ended.reason.name.lower()})")

    def expire(self, at: Instant) -> None:
        """Finish the requests whose time is up."""
        for request in [r for r in self._order.values() if at.mono_ms >= r.deadline_ms]:
            self._time_out(request)

    def next_deadline_ms(self) -> int | None:
        """When tick(), or a new connection, is due at the latest; None: nothing is."""
        deadlines = [request.deadline_ms for request in self._order.values()]
        for batch in self._batches.values():
            deadlines += [due_ms for due_ms in (batch.resend_at_ms, batch.fence_at_ms) if due_ms is not None]
        if self._session is not None:
            session_deadline_ms = self._session.next_deadline_ms()
            if session_deadline_ms is not None:
                deadlines.append(session_deadline_ms)
        elif self.phase is Phase.WAITING:
            deadlines.append(self.connect_at_ms)
        return min(deadlines, default=None)

    def take_output(self) -> bytes:
        """Bytes to send since the last call."""
        return self._session.take_output() if self._session is not None else b""

    def take_events(self) -> list[ExecutionReport | Gap]:
        """Reports that answer nothing of ours, and gaps, since the last call.

        One about something that was added or changed meanwhile waits until that is known, and so do those behind it.
        """
        events: list[ExecutionReport | Gap] = []
        while self._events and not self._is_strange(self._events[0]):
            events.append(self._events.popleft())
        return events

    def _is_strange(self, event: ExecutionReport | Gap) -> bool:
        """Whether it is about something not known yet; then that is being asked for."""
        definitions = self.definitions
        if definitions is None or isinstance(event, Gap):
            return False
        if event.record_no < self._learned_record_no.get(event.shard, 0):
            return False  # what is not known now will not be
        is_known = event.exec_type not in _ABOUT_ORDERS or (
            definitions.sized(event.market_id, event.sizes_no) is not None
        )
        if is_known and (event.asset_id == 0 or definitions.asset(event.asset_id) is not None):
            return False
        looking = self._looking.get(event.shard)
        if looking is None or (looking.done and self.phase is Phase.READY):
            self._looking[event.shard] = self.learn(
                event.shard, self._settings.establish_timeout_ms, self._at
            )
        return True

    def close(self, at: Instant) -> None:
        """End the session; what is pending fails."""
        if self.phase is Phase.ENDED:
            return
        if self._session is not None and self._session.state is State.ESTABLISHED:
            self._session.terminate(ReasonCode.CLIENT_REQUEST, at.mono_ms)
        self.fail(Disconnected("the client was closed"))

    def fail(self, error: ZexchangeError) -> ZexchangeError:
        """End for good; everything pending fails."""
        self.phase = Phase.ENDED
        self.failure = error
        for request in list(self._order.values()):
            if isinstance(request, BatchRequest) and (request.sends or request.resent):
                self._finish(request, _outcome_unknown(request, str(error)))
            else:
                self._finish(request, error)
        return error

    @property
    def account_id(self) -> int | None:
        """The account of the key; None while it is not registered."""
        return self._account_id

    # ---------------------------------------------------------------- requests

    def submit(
        self,
        shard: int,
        commands: Sequence[C],
        timeout_ms: int,
        at: Instant,
        flags: wire.BatchFlags = wire.BatchFlags.NONE,
    ) -> BatchRequest[C]:
        """Sign 1 to 64 commands as one batch and send it, now or as soon as there is a connection. Only a batch of
        a trader has flags.

        Raises the failure if the client has ended, Disconnected if it never was connected.
        """
        deployment_id = self._usable()
        nonce = max((at.wall_ns + self._clock_offset_ns) // 1000, self._last_nonce + 1)
        self._last_nonce = nonce
        # Signed here, in the order of the nonces: a nonce more than 1,024 below the highest is refused.
        if isinstance(commands[0], wire.Command):
            batch: wire.SignedBatch | wire.OperatorBatch = wire.SignedBatch(
                nonce=nonce, shard=shard, flags=flags, commands=list(commands)
            )
        else:
            batch = wire.OperatorBatch(nonce=nonce, shard=shard, commands=list(commands))
        frame = sign_batch(batch, self._key, deployment_id)
        return self._send_batch(frame, nonce, shard, commands, timeout_ms, at, resent=False)

    def resubmit(self, frame: bytes, timeout_ms: int, at: Instant) -> AnyBatch:
        """Send the frame of an earlier batch again. Raises ValueError if it is none of this key."""
        self._usable()
        batch = wire.decode(frame)
        if (
            not isinstance(batch, wire.SignedBatch | wire.OperatorBatch)
            or batch.public_key != self.public_key
        ):
            raise ValueError("the frame is not a batch that was signed with this client's key")
        pending = self._batches.get(batch.nonce)
        if pending is not None:
            return pending
        if isinstance(batch, wire.SignedBatch):
            return self._send_batch(
                frame, batch.nonce, batch.shard, batch.commands, timeout_ms, at, resent=True
            )
        return self._send_batch(frame, batch.nonce, batch.shard, batch.commands, timeout_ms, at, resent=True)

    def ask(self, query: Query, timeout_ms: int, at: Instant, *, fenced: int = 0) -> QueryRequest:
        """Send a query; its request id is set here."""
        if self.failure is not None and self.phase is Phase.ENDED:
            raise self.failure
        self._last_request_id += 1
        query.request_id = self._last_request_id
        request = QueryRequest(query.encode(), query.request_id, at.mono_ms + timeout_ms, timeout_ms, fenced)
        self._queries[request.request_id] = request
        self._order[id(request)] = request
        if self.phase is Phase.READY or (
            isinstance(query, wire.GenesisRequest) and self.phase is Phase.LOGGING_ON
        ):
            self._transmit(request, at)
        return request

    def learn(self, shard: int, timeout_ms: int, at: Instant) -> LearnRequest:
        """Ask a shard for assets and markets that were added or changed since it last said; done when all are known."""
        assert self.genesis is not None, "definitions are asked for behind the genesis file"
        if self.phase is Phase.ENDED and self.failure is not None:
            raise self.failure
        self._last_request_id += 1
        query = wire.DefinitionsRequest(
            request_id=self._last_request_id,
            since_record_no=self._learned_record_no.get(shard, 1),
            first_asset=self._assets_learned.get(shard, len(self.genesis.assets)),
            shard=shard,
            limit=QUERY_LIMIT_MAX,
        )
        request = LearnRequest(query, at.mono_ms + timeout_ms, timeout_ms)
        self._queries[request.request_id] = request
        self._order[id(request)] = request
        if self.phase in (Phase.READY, Phase.LOGGING_ON):
            self._transmit(request, at)
        return request

    def _usable(self) -> bytes:
        if self.phase is Phase.ENDED and self.failure is not None:
            raise self.failure
        if self.deployment_id is None:
            raise Disconnected("the client never was connected")
        return self.deployment_id

    def _send_batch(
        self,
        frame: bytes,
        nonce: int,
        shard: int,
        commands: Sequence[C],
        timeout_ms: int,
        at: Instant,
        *,
        resent: bool,
    ) -> BatchRequest[C]:
        request = BatchRequest(
            frame, nonce, shard, commands, at.mono_ms + timeout_ms, timeout_ms, resent=resent
        )
        self._batches[nonce] = request
        self._order[id(request)] = request
        if self.phase is Phase.READY:
            self._transmit(request, at)
        self._fence(request, at)
        return request

    def _fence(self, batch: AnyBatch, at: Instant) -> None:
        """Send the batch's fence, if it needs one; an earlier one no longer counts."""
        batch.fence_at_ms = None
        if _needs_fence(batch.commands[-1]):
            timeout_ms = max(1, batch.deadline_ms - at.mono_ms)
            fence = self.ask(wire.ShardStatusRequest(shard=batch.shard), timeout_ms, at, fenced=batch.nonce)
            batch.fence_id = fence.request_id

    def _transmit(self, request: Request, at: Instant) -> None:
        assert self._session is not None
        request.sends += 1
        self._session.send(request.frame, at.mono_ms)

    # ---------------------------------------------------------------- what arrives

    def _established(self, ack: wire.EstablishmentAck, at: Instant) -> None:
        assert self._session is not None
        assert self._session.deployment_id is not None
        self.ack = ack
        self.deployment_id = self._session.deployment_id
        # The nonce follows the exchange's clock, so that a client with a wrong one is not locked out.
        self._clock_offset_ns = ack.server_time_ns - at.wall_ns
        for shard in ack.shards:
            if shard.account_id == ACCOUNT_NONE:
                continue
            self._account_id = shard.account_id
            known = self._report_seq.get(shard.shard)
            if known is not None and shard.report_seq > known:
                self._events.append(Gap(shard.shard, known + 1, shard.report_seq))
            self._report_seq[shard.shard] = max(shard.report_seq, known or 0)
        if self.genesis is None:
            self.ask(wire.GenesisRequest(), self._settings.establish_timeout_ms, at)
        else:
            self._learn_all(at)

    def _learn_all(self, at: Instant) -> None:
        """Ask every shard what it has defined; the session is ready when all have answered."""
        for request in self._logon:  # of an earlier connection
            if not request.done:
                self._finish(request, Disconnected("the connection was lost"))
        assert self.ack is not None
        self._logon = [
            self.learn(shard.shard, self._settings.establish_timeout_ms, at) for shard in self.ack.shards
        ]

    def _learn(self, message: wire.Definitions, at: Instant) -> None:
        """One page of what a shard has defined."""
        request = self._queries.get(message.request_id)
        if not isinstance(request, LearnRequest) or self.definitions is None:
            return  # it has timed out meanwhile
        query = request.query
        shard = query.shard
        self.definitions.learn(shard, message.assets, message.markets)
        told = query.first_asset + len(message.assets)
        if message.assets:
            self._assets_learned[shard] = max(told, self._assets_learned.get(shard, 0))
        request.next_record_no = request.next_record_no or message.next_record_no
        if message.next_asset or message.next_market:
            self._queries.pop(query.request_id)
            self._last_request_id += 1
            query.request_id = request.request_id = self._last_request_id
            query.first_asset = message.next_asset or _U32_MAX
            query.first_market = message.next_market or _U32_MAX
            request.frame = query.encode()
            self._queries[request.request_id] = request
            self._transmit(request, at)
            return
        known = self._learned_record_no.get(shard, 0)
        self._learned_record_no[shard] = max(known, request.next_record_no)
        request.answer = message
        self._finish(request)
        if self.phase is Phase.LOGGING_ON and all(one.done and one.error is None for one in self._logon):
            self._ready(at)

    def _ready(self, at: Instant) -> None:
        self.phase = Phase.READY
        self.attempts = 0
        self.failure = None
        for request in list(self._order.values()):
            self._transmit(request, at)

    def _message(self, message: wire.Message, at: Instant) -> None:
        match message:
            case ExecutionReport():
                self._report(message)
            case wire.Genesis():
                self._genesis_arrived(message, at)
            case wire.NotApplied():
                self._not_applied(message, at)
            case wire.Definitions():
                self._learn(message, at)
            case wire.QueryReject():
                query = self._queries.get(message.request_id)
                if query in self._logon and self.phase is Phase.LOGGING_ON:
                    raise ConnectFailed(
                        f"the exchange does not say what its markets are: {message.reason.name}"
                    )
                if query is not None:
                    self._finish(query, rejection_for(message.reason)(message))
                    fenced = self._batches.get(query.fenced_nonce)
                    if fenced is not None and fenced.fence_id == query.request_id:
                        fenced.fence_at_ms = at.mono_ms + RESEND_BUSY_MS
            case wire.Balances() | wire.OpenOrders() | wire.BookDepth() | wire.Trades() | wire.ShardStatus():
                self._answer(message, message.request_id)

    def _genesis_arrived(self, message: wire.Genesis, at: Instant) -> None:
        query = self._queries.get(message.request_id)
        if query is not None:
            query.answer = message
            self._finish(query)
        if self.genesis is not None:
            return
        try:
            genesis = parse_genesis(bytes(message.genesis), "genesis of the exchange")
        except GenesisError as error:
            raise self.fail(
                DeploymentMismatch(f"the exchange's genesis file is not valid: {error}")
            ) from error
        if genesis.deployment_id != self.deployment_id:
            raise self.fail(
                DeploymentMismatch("the exchange's genesis file does not hash to its deployment id")
            )
        self.genesis = genesis
        self.definitions = Definitions(genesis)
        self._learn_all(at)

    def _answer(self, message: wire.Message, request_id: int) -> None:
        query = self._queries.get(request_id)
        if query is None:
            return  # it has timed out meanwhile
        query.answer = message
        fenced = self._batches.get(query.fenced_nonce) if query.fenced_nonce else None
        self._finish(query)
        if fenced is not None and fenced.fence_id == request_id:
            # Everything the batch caused has been said: what was answered at all is answered completely.
            fenced.fence_id = 0
            for index, reports in enumerate(fenced.reports):
                if reports:
                    fenced.complete[index] = True
            self._finish_batch_if_complete(fenced)

    def _report(self, report: ExecutionReport) -> None:
        self._count_report(report)
        batch = self._batches.get(report.nonce) if report.nonce else None
        if batch is None:
            # A duplicate repeats what was said before, to a batch that has timed out since or that is not ours.
            if ReportFlags.DUPLICATE not in report.flags:
                self._events.append(report)
            return
        index = report.command_index
        if index >= len(batch.commands):
            raise ProtocolViolation(f"a report names command {index} of a batch of {len(batch.commands)}")
        first_try = batch.sends == 1 and not batch.resent
        if ReportFlags.DUPLICATE in report.flags and first_try:
            self._finish(
                batch,
                NonceUsed(
                    report,
                    "Another program uses the same key at the same time; give each its own registered key.",
                ),
            )
            return
        if report.exec_type is ExecType.REJECTED and report.reason in _FORGOTTEN and not first_try:
            self._finish(
                batch,
                _outcome_unknown(batch, "the exchange no longer keeps the outcome of the batch", final=True),
            )
            return
        duplicate = ReportFlags.DUPLICATE in report.flags
        if batch.complete[index] and duplicate:
            return  # answered before the connection was lost
        if not duplicate and (batch.complete[index] or not _answers(batch, index, report)):
            # Another key of the account used the same nonce, which counts per key: reports do not name the key.
            self._events.append(report)
            return
        batch.reports[index].append(report)
        # Reports are in order: one about a later command ends the earlier ones.
        for earlier in range(index):
            if batch.reports[earlier]:
                batch.complete[earlier] = True
        batch.complete[index] = _is_last(batch.commands[index], report)
        self._finish_batch_if_complete(batch)

    def _count_report(self, report: ExecutionReport) -> None:
        """Notice reports that are missing between two connections or, should it ever happen, within one."""
        if report.report_seq == 0 or ReportFlags.DUPLICATE in report.flags:
            return
        if report.account_id != ACCOUNT_NONE:
            self._account_id = report.account_id
        known = self._report_seq.get(report.shard)
        if known is not None and report.report_seq > known + 1:
            self._events.append(Gap(report.shard, known + 1, report.report_seq - 1))
        self._report_seq[report.shard] = max(report.report_seq, known or 0)

    def _not_applied(self, message: wire.NotApplied, at: Instant) -> None:
        batch = self._batches.get(message.nonce)
        if batch is None:
            return
        if message.reason is ReasonCode.SERVER_BUSY and (batch.sends > 1 or batch.resent):
            # Not applied this time says nothing about the first time.
            batch.resend_at_ms = at.mono_ms + RESEND_BUSY_MS
            return
        self._finish(batch, rejection_for(message.reason)(message))

    def _session_ended(self, reason: ReasonCode, at: Instant) -> ZexchangeError:
        if reason is ReasonCode.DEPLOYMENT_MISMATCH:
            return self.fail(DeploymentMismatch("the exchange says that this is another deployment"))
        text = wire.REASON_DESCRIPTIONS.get(reason, reason.name)
        error = ConnectFailed(f"the exchange ended the session: {text}")
        return self.fail(error) if reason in _HOPELESS else error

    # ---------------------------------------------------------------- ends of requests

    def _finish_batch_if_complete(self, batch: AnyBatch) -> None:
        if all(batch.complete):
            self._finish(batch)

    def _finish(self, request: Request, error: ZexchangeError | None = None) -> None:
        self._order.pop(id(request), None)
        if isinstance(request, BatchRequest):
            self._batches.pop(request.nonce, None)
        elif isinstance(request, QueryRequest):
            self._queries.pop(request.request_id, None)
        request.error = error
        request.done = True

    def _time_out(self, request: Request) -> None:
        seconds = f"{request.timeout_ms / 1000:g} s"
        if isinstance(request, BatchRequest) and (request.sends or request.resent):
            self._finish(request, _outcome_unknown(request, f"no answer within {seconds}"))
        elif request.sends:
            self._finish(request, NoAnswer(f"the exchange did not answer within {seconds}; ask again"))
        else:
            why = f": {self.failure}" if self.failure is not None else ""
            self._finish(request, Disconnected(f"no connection for {seconds}, nothing was sent{why}"))


def _needs_fence(command: wire.Command | wire.OperatorCommand) -> bool:
    """May the command's answer go on after its first report, without a last word? See the top of the module."""
    if not isinstance(command, wire.Command) or OrderOptions.POST_ONLY in command.options:
        return False
    if command.kind is CommandKind.NEW:
        return command.trigger is Trigger.NONE and command.time_in_force in _RESTS
    return command.kind is CommandKind.AMEND


def _answers(batch: AnyBatch, index: int, report: ExecutionReport) -> bool:
    """Can `report` be about command `index`? Those of operator commands go to the operator alone."""
    command = batch.commands[index]
    return not isinstance(command, wire.Command) or answers(command, batch.reports[index], report)


def _is_last(command: wire.Command | wire.OperatorCommand, report: ExecutionReport) -> bool:
    """Is the answer to `command` complete with this report?"""
    if ReportFlags.DUPLICATE in report.flags:
        return True
    if isinstance(command, wire.OperatorCommand):
        return True
    if command.kind is CommandKind.CANCEL_ALL:
        return report.exec_type in (ExecType.MASS_CANCELLED, ExecType.REJECTED)
    if report.exec_type in _LAST_WORDS:
        return True
    if report.exec_type not in _MAY_GO_ON:
        return True
    if command.kind is CommandKind.NEW and (
        command.trigger is not Trigger.NONE or command.time_in_force in _FOR_AUCTIONS
    ):
        return True
    return report.leaves_lots == 0 or OrderOptions.POST_ONLY in command.options


def _outcome_unknown(batch: AnyBatch, why: str, *, final: bool = False) -> OutcomeUnknown:
    advice = (
        "Look at what there is now"
        if final
        else "Client.resolve(error) sends the same bytes again, which cannot apply it twice"
    )
    return OutcomeUnknown(
        f"{why}: the batch with nonce {batch.nonce} may {'' if final else 'or may not '}have been applied. {advice}",
        nonce=batch.nonce,
        shard=batch.shard,
        frame=batch.frame,
        final=final,
    )
