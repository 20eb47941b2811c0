"""Sans-IO sessions: the life of one connection, on the server's and on the client's side.

A session is handed bytes, frames and the time; it hands back events and bytes to send. It opens no socket
and reads no clock: `now_ms` is any clock that never goes back, `server_time_ns` and the random challenge
come from the shell.

Theory of operation. One table, `TRANSITIONS`, holds every legal move: (state, who sends, which message) to
the next state. Both sides keep a copy of the same state and move it by the same table, for what they send
and for what they receive:

    CONNECTED    --Challenge (server)-->            CHALLENGED
    CHALLENGED   --Establish (client)-->            ESTABLISHING
    ESTABLISHING --EstablishmentAck (server)-->     ESTABLISHED
    any of these --EstablishmentReject (server)-->  ENDED
    ESTABLISHED  --batch, query, Sequence (client)-->                       ESTABLISHED
    ESTABLISHED  --report, answer, NotApplied, Sequence (server)-->         ESTABLISHED
    any          --Terminate (either)-->            ENDED

A move that is not in the table raises and leaves the session as it was: `LocalProtocolError` when we tried
it (a bug on our side), `RemoteProtocolError` when the peer did; then `terminate(error.reason, now_ms)` and
close. Nothing else is raised. A frame that is refused without ending the session (malformed batch, wrong
key, unknown shard) is answered with NotApplied or QueryReject by the session itself and comes back as a
`FrameRefused` event.

Server, in a shell:

    session = ServerSession(
        settings, deployment_id=..., shards=..., challenge=os.urandom(32), server_time_ns=..., now_ms=...
    )
    for frame in session.feed(data, now_ms):          # cuts frames, watches for unfinished ones
        event = session.receive(frame, now_ms)        # None: nothing for the caller to do
        # EstablishRequested -> session.acknowledge(shards, ...) once the matchers said what the key's
        #                       account is, or session.reject(reason, now_ms)
        # BatchReceived      -> its signature is NOT verified yet: verify in bulk, then route it,
        #                       or session.strike(nonce, now_ms)
        # QueryReceived      -> route it, answer with session.send(answer_frame, now_ms)
        # FrameRefused       -> already answered; for counters
        # SessionEnded       -> flush take_output() and close
    ended = session.tick(now_ms)                      # at session.next_deadline_ms(): heartbeats and timeouts
    socket.send(session.take_output())

Client: `ClientSession(settings, key=..., deployment_id=... or None)`; `feed`, `receive`, `send`, `tick`,
`take_output` alike. It answers the challenge by itself; events are `Established`, `MessageReceived`,
`SessionEnded`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable
from enum import Enum
from typing import TypeAlias

import msgspec
from nacl.signing import SigningKey

from zexchange.wire import signing
from zexchange.wire.framing import MAX_FRAME_BYTES, MAX_FRAME_BYTES_TO_CLIENT, FrameSplitter
from zexchange.wire.messages import (
    MESSAGES,
    Balances,
    BalancesRequest,
    BookDepth,
    BookRequest,
    Buffer,
    Challenge,
    Definitions,
    DefinitionsRequest,
    Durability,
    Establish,
    EstablishmentAck,
    EstablishmentReject,
    ExecutionReport,
    Genesis,
    GenesisRequest,
    Message,
    NotApplied,
    OpenOrders,
    OpenOrdersRequest,
    OperatorBatch,
    QueryReject,
    ReasonCode,
    Sequence,
    SessionOptions,
    ShardSession,
    ShardStatus,
    ShardStatusRequest,
    SignedBatch,
    Terminate,
    Trades,
    TradesRequest,
    WireError,
    decode,
    execution_report_frame_prefix,
    template_of,
)

HEARTBEAT_INTERVAL_MS_MIN = 100
HEARTBEAT_INTERVAL_MS_MAX = 60_000
HEARTBEAT_INTERVALS_MISSED = 3
"""A peer silent for this many intervals is gone: one lost to jitter, one to a pause, the third is proof."""

QUERY_ENTRIES_MAX = 500
REPORT_FRAME_BYTES = len(execution_report_frame_prefix) + ExecutionReport.BLOCK_LENGTH
ACCOUNT_NONE = 2**64 - 1

_BATCH_KEY = slice(78, 110)
_BATCH_NONCE_SHARD = struct.Struct("<QH")
_BATCH_NONCE_OFFSET = 110


class State(Enum):
    """Where a connection is in its life."""

    CONNECTED = "connected"
    CHALLENGED = "challenged"
    ESTABLISHING = "establishing"
    ESTABLISHED = "established"
    ENDED = "ended"


class Role(Enum):
    """Who sends."""

    CLIENT = "client"
    SERVER = "server"


Query: TypeAlias = (
    GenesisRequest
    | BalancesRequest
    | OpenOrdersRequest
    | BookRequest
    | TradesRequest
    | ShardStatusRequest
    | DefinitionsRequest
)
QUERIES: tuple[type[Message], ...] = (
    GenesisRequest,
    BalancesRequest,
    OpenOrdersRequest,
    BookRequest,
    TradesRequest,
    ShardStatusRequest,
    DefinitionsRequest,
)
BATCHES: tuple[type[Message], ...] = (SignedBatch, OperatorBatch)
ANSWERS: tuple[type[Message], ...] = (
    ExecutionReport,
    NotApplied,
    Genesis,
    Balances,
    OpenOrders,
    BookDepth,
    Trades,
    ShardStatus,
    Definitions,
    QueryReject,
)

TRANSITIONS: dict[State, dict[tuple[Role, type[Message]], State]] = {
    State.CONNECTED: {
        (Role.SERVER, Challenge): State.CHALLENGED,
        (Role.SERVER, EstablishmentReject): State.ENDED,
    },
    State.CHALLENGED: {
        (Role.CLIENT, Establish): State.ESTABLISHING,
        (Role.SERVER, EstablishmentReject): State.ENDED,
    },
    State.ESTABLISHING: {
        (Role.SERVER, EstablishmentAck): State.ESTABLISHED,
        (Role.SERVER, EstablishmentReject): State.ENDED,
    },
    State.ESTABLISHED: {
        **{(Role.CLIENT, message): State.ESTABLISHED for message in (*BATCHES, *QUERIES, Sequence)},
        **{(Role.SERVER, message): State.ESTABLISHED for message in (*ANSWERS, Sequence)},
    },
    State.ENDED: {},
}
for _state in (State.CONNECTED, State.CHALLENGED, State.ESTABLISHING, State.ESTABLISHED):
    for _role in Role:
        TRANSITIONS[_state][_role, Terminate] = State.ENDED

CLIENT_MESSAGES = frozenset(
    message for moves in TRANSITIONS.values() for role, message in moves if role is Role.CLIENT
)
SERVER_MESSAGES = frozenset(
    message for moves in TRANSITIONS.values() for role, message in moves if role is Role.SERVER
)


class ProtocolError(Exception):
    """A move the protocol does not allow; the session is unchanged. `reason`: what a Terminate would say."""

    def __init__(self, reason: ReasonCode, detail: str) -> None:
        self.reason = reason
        super().__init__(f"{detail} ({reason.name})")


class LocalProtocolError(ProtocolError):
    """We tried it: a bug on our side. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer did it: answer with `terminate(error.reason, now_ms)` and close."""


class EstablishRequested(msgspec.Struct, frozen=True):
    """Server: a client proved that it holds `public_key`. Answer with acknowledge() or reject()."""

    public_key: bytes
    heartbeat_interval_ms: int
    last_report_seq: int


class BatchReceived(msgspec.Struct, frozen=True):
    """Server: a well-formed batch of the session's key for a known shard. Its signature is NOT verified."""

    frame: bytes
    nonce: int
    shard: int


class QueryReceived(msgspec.Struct, frozen=True):
    """Server: a query for a known shard within its limits."""

    query: Query


class FrameRefused(msgspec.Struct, frozen=True):
    """Server: a frame was refused and the refusal is in the output; the session goes on."""

    reason: ReasonCode
    nonce: int = 0


class Established(msgspec.Struct, frozen=True):
    """Client: the server accepted the logon."""

    ack: EstablishmentAck


class MessageReceived(msgspec.Struct, frozen=True):
    """Client: a report, a refusal or an answer."""

    message: Message


class SessionEnded(msgspec.Struct, frozen=True):
    """The session is over; flush the output and close. `by_peer`: the peer said so."""

    reason: ReasonCode
    by_peer: bool


ScannedBatch: TypeAlias = tuple[int, int, bytes]
"""Nonce, shard and frame of a batch: what `BatchReceived` says of it."""
ScanBatches: TypeAlias = Callable[[bytes, bytes, int], tuple[list[ScannedBatch], int]]
"""(stream, public key, number of shards) to the batches at its start and their length: `frames.scan_batches`."""

ServerEvent: TypeAlias = EstablishRequested | BatchReceived | QueryReceived | FrameRefused | SessionEnded
ClientEvent: TypeAlias = Established | MessageReceived | SessionEnded


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a session. Times in milliseconds."""

    establish_timeout_ms: int = 3000
    """From connecting to the EstablishmentAck."""
    frame_timeout_ms: int = 1000
    """From the first byte of a frame to its last: an honest client writes a frame at once."""
    max_strikes: int = 3
    """Bad signatures until the session ends; each one costs the server a verification."""
    heartbeat_interval_ms: int = 10_000
    """Client: the interval it asks for."""


def _check_batch(frame: bytes) -> ReasonCode:
    try:
        decode(frame)
    except WireError as error:
        return error.reason
    return ReasonCode.NONE


class _Session:
    """What both sides share: state, framing, output, heartbeats and timeouts."""

    role: Role
    peer: Role

    def __init__(self, settings: SessionSettings, max_frame_bytes: int, now_ms: int) -> None:
        self.settings = settings
        self.state = State.CONNECTED
        self.heartbeat_interval_ms = 0
        self._splitter = FrameSplitter(max_frame_bytes)
        self._output: list[bytes] = []
        self._messages_sent = 0
        self._sent_ms = now_ms
        self._received_ms = now_ms
        self._connected_ms = now_ms
        self._frame_begun_ms: int | None = None

    def feed(self, data: Buffer, now_ms: int) -> list[bytes]:
        """Cut received bytes into frames for receive().

        Raises RemoteProtocolError once the stream is no longer framed; frames before that point are
        returned first, and then tick() ends the session at once.
        """
        try:
            frames = self._splitter.feed(data)
        except WireError as error:
            raise RemoteProtocolError(error.reason, str(error)) from None
        if not self._splitter.pending_bytes:
            self._frame_begun_ms = None
        elif frames or self._frame_begun_ms is None:
            self._frame_begun_ms = now_ms
        return frames

    @property
    def has_output(self) -> bool:
        """`take_output` has something."""
        return bool(self._output)

    def take_output(self) -> bytes:
        """Everything to be sent since the last call."""
        if not self._output:
            return b""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def terminate(self, reason: ReasonCode, now_ms: int) -> SessionEnded:
        """End the session with a Terminate; no effect once it has ended."""
        if self.state is not State.ENDED:
            self._send(Terminate(reason=reason), now_ms)
        return SessionEnded(reason, by_peer=False)

    def next_deadline_ms(self) -> int | None:
        """When tick() has something to do at the latest; None once the session has ended."""
        if self.state is State.ENDED:
            return None
        deadlines = [deadline for deadline, _ in self._timeouts()]
        if self.state is State.ESTABLISHED:
            deadlines.append(self._sent_ms + self.heartbeat_interval_ms)
        return min(deadlines)

    def tick(self, now_ms: int) -> SessionEnded | None:
        """Send a heartbeat if one is due; end the session if the peer is too late with something."""
        if self.state is State.ENDED:
            return None
        for deadline_ms, reason in self._timeouts():
            if now_ms >= deadline_ms:
                return self.terminate(reason, now_ms)
        if self.state is State.ESTABLISHED and now_ms >= self._sent_ms + self.heartbeat_interval_ms:
            self._send(Sequence(next_seq_no=self._messages_sent + 1), now_ms)
        return None

    def _timeouts(self) -> Iterable[tuple[int, ReasonCode]]:
        if self._splitter.error is not ReasonCode.NONE:
            yield self._received_ms, self._splitter.error
        if self._frame_begun_ms is not None:
            yield self._frame_begun_ms + self.settings.frame_timeout_ms, ReasonCode.FRAME_TIMEOUT
        if self.state is State.ESTABLISHED:
            silence_ms = HEARTBEAT_INTERVALS_MISSED * self.heartbeat_interval_ms
            yield self._received_ms + silence_ms, ReasonCode.HEARTBEAT_TIMEOUT
        else:
            yield self._connected_ms + self.settings.establish_timeout_ms, ReasonCode.ESTABLISH_TIMEOUT

    def _next_state(self, role: Role, message: type[Message]) -> State | None:
        return TRANSITIONS[self.state].get((role, message))

    def _send(self, message: Message, now_ms: int) -> None:
        self._send_frame(type(message), message.encode(), now_ms)

    def _send_frame(self, message: type[Message], frame: bytes, now_ms: int) -> None:
        state = self._next_state(self.role, message)
        if state is None:
            raise LocalProtocolError(
                _misplaced(self.state, message),
                f"a {self.role.value} cannot send {message.__name__} when {self.state.value}",
            )
        self.state = state
        self._output.append(frame)
        self._sent_ms = now_ms
        if message in BATCHES or message in QUERIES or message in ANSWERS:
            self._messages_sent += 1

    def _accept(self, message: type[Message]) -> State:
        """The state after the peer's message; the caller sets it when the content is accepted too."""
        state = self._next_state(self.peer, message)
        if state is None:
            raise RemoteProtocolError(
                _misplaced(self.state, message),
                f"a {self.peer.value} cannot send {message.__name__} when {self.state.value}",
            )
        return state

    def _heard(self, now_ms: int) -> None:
        self._received_ms = now_ms


def _misplaced(state: State, message: type[Message]) -> ReasonCode:
    """Why a known message is not allowed in a state."""
    established = state in (State.ESTABLISHED, State.ENDED) or message is Establish
    return ReasonCode.ALREADY_ESTABLISHED if established else ReasonCode.NOT_ESTABLISHED


class ServerSession(_Session):
    """The server's side of one connection. The Challenge is in the output as soon as it exists."""

    role = Role.SERVER
    peer = Role.CLIENT

    def __init__(
        self,
        settings: SessionSettings,
        *,
        deployment_id: bytes,
        shards: Collection[int],
        challenge: bytes,
        server_time_ns: int,
        now_ms: int,
        check_batch: Callable[[bytes], ReasonCode] = _check_batch,
    ) -> None:
        """`challenge`: 32 random bytes, never used before. `check_batch`: the frame checks of a batch; the
        default is in Python, `zexchange.frames.check_frame` the same in C.
        """
        super().__init__(settings, MAX_FRAME_BYTES, now_ms)
        self.public_key: bytes | None = None
        self.strikes = 0
        self._deployment_id = deployment_id
        self._shards = frozenset(shards)
        self._challenge = challenge
        self._check_batch = check_batch
        self._send(
            Challenge(deployment_id=deployment_id, challenge=challenge, server_time_ns=server_time_ns), now_ms
        )

    def feed_batches(self, data: Buffer, now_ms: int, scan: ScanBatches) -> tuple[list[ScannedBatch], bytes]:
        """The quick way for what clients send nearly always: the batches with which the stream goes on, as
        `BatchReceived` would name them, and the rest, which must be given to `feed`.

        Without an established session the rest is everything.
        """
        if self.state is not State.ESTABLISHED or self.public_key is None:
            return [], bytes(data)
        stream = bytes(self.unfinished(data))
        batches, consumed = scan(stream, self.public_key, len(self._shards))
        if batches:
            self.took_batches(now_ms)
        return batches, stream[consumed:]

    def unfinished(self, data: Buffer) -> Buffer:
        """What was fed before and is not a whole frame yet, with `data` behind it: for a caller that looks for
        batches itself. What it does not take must be fed."""
        return self._splitter.take_pending() + bytes(data) if self._splitter.pending_bytes else data

    def took_batches(self, now_ms: int) -> None:
        """Such a caller has found batches and takes them."""
        self._received_ms = now_ms
        # What is left was begun now: the timeout of an unfinished frame starts anew.
        self._frame_begun_ms = None

    def receive(self, frame: bytes, now_ms: int) -> ServerEvent | None:
        """Take one whole frame. None: nothing for the caller to do. Raises RemoteProtocolError."""
        if self.state is State.ENDED:
            return None
        try:
            message = MESSAGES[template_of(frame)]
            if message not in CLIENT_MESSAGES:
                raise WireError(ReasonCode.TEMPLATE_UNKNOWN, message.__name__)
        except WireError as error:
            return self._refuse(error.reason, now_ms)
        state = self._accept(message)
        if message in BATCHES:
            return self._batch(frame, now_ms)
        try:
            content = decode(frame)
        except WireError as error:
            return self._refuse(error.reason, now_ms)
        self._heard(now_ms)
        if isinstance(content, Establish):
            return self._establish(frame, content, state, now_ms)
        self.state = state
        if isinstance(content, Terminate):
            return SessionEnded(content.reason, by_peer=True)
        if isinstance(content, Query):
            return self._query(content, now_ms)
        return None  # Sequence: being heard is its whole effect

    def acknowledge(
        self, shards: list[ShardSession], *, durability: Durability, server_time_ns: int, now_ms: int
    ) -> None:
        """Accept the logon. `shards`: what each shard knows of the key. Raises LocalProtocolError."""
        self._send(
            EstablishmentAck(
                public_key=self.public_key or bytes(32),
                server_time_ns=server_time_ns,
                heartbeat_interval_ms=self.heartbeat_interval_ms,
                durability=durability,
                shards=shards,
            ),
            now_ms,
        )
        self._heard(now_ms)

    def reject(self, reason: ReasonCode, now_ms: int) -> SessionEnded:
        """Refuse the logon and end the session. Raises LocalProtocolError."""
        self._send(EstablishmentReject(reason=reason), now_ms)
        return SessionEnded(reason, by_peer=False)

    def send(self, frame: bytes, now_ms: int) -> None:
        """Send a report or an answer, encoded. Raises LocalProtocolError."""
        self._send_frame(MESSAGES[template_of(frame)], frame, now_ms)

    def send_reports(self, frames: bytes, now_ms: int) -> None:
        """Send whole ExecutionReport frames, one behind the other. Raises LocalProtocolError."""
        if self.state is not State.ESTABLISHED:
            self._send_frame(ExecutionReport, frames, now_ms)  # raises
        self._output.append(frames)
        self.sent_reports(len(frames), now_ms)

    def served(self, received_ms: int, sent_ms: int, sent_bytes: int) -> None:
        """What a caller did in this session's name: batches taken until `received_ms`, `sent_bytes` of reports
        written until `sent_ms`."""
        if received_ms > self._received_ms:
            self._received_ms = received_ms
        if sent_bytes:
            self.sent_reports(sent_bytes, max(sent_ms, self._sent_ms))

    def kept_waiting(self, now_ms: int) -> None:
        """What the peer has sent is not read yet: its silence is ours."""
        self._received_ms = now_ms
        if self._frame_begun_ms is not None:
            self._frame_begun_ms = now_ms

    @property
    def is_mid_frame(self) -> bool:
        """A frame was begun and is not complete."""
        return self._splitter.pending_bytes > 0

    def sent_reports(self, length: int, now_ms: int) -> None:
        """Note that a caller has written whole ExecutionReport frames of `length` bytes in all by itself."""
        self._sent_ms = now_ms
        self._messages_sent += length // REPORT_FRAME_BYTES

    def not_applied(self, nonce: int, reason: ReasonCode, now_ms: int) -> None:
        """Tell the client that a batch did not reach a matcher (SERVER_BUSY). Raises LocalProtocolError."""
        self._send(NotApplied(nonce=nonce, reason=reason, strikes=self.strikes), now_ms)

    def strike(self, nonce: int, now_ms: int) -> SessionEnded | None:
        """The batch with this nonce had a bad signature: answer; end the session if it was one too many."""
        if self.state is State.ENDED:
            return None
        self.strikes += 1
        self.not_applied(nonce, ReasonCode.SIGNATURE_INVALID, now_ms)
        if self.strikes >= self.settings.max_strikes:
            return self.terminate(ReasonCode.TOO_MANY_STRIKES, now_ms)
        return None

    def _establish(self, frame: bytes, establish: Establish, state: State, now_ms: int) -> ServerEvent:
        """Cheap checks first: the signature costs as much as everything else together."""
        reason = ReasonCode.NONE
        interval_ms = establish.heartbeat_interval_ms
        if SessionOptions.CANCEL_ON_DISCONNECT in establish.options:
            reason = ReasonCode.CANCEL_ON_DISCONNECT_UNAVAILABLE
        elif not HEARTBEAT_INTERVAL_MS_MIN <= interval_ms <= HEARTBEAT_INTERVAL_MS_MAX:
            reason = ReasonCode.HEARTBEAT_INTERVAL_INVALID
        elif establish.challenge != self._challenge:
            reason = ReasonCode.SIGNATURE_INVALID
        else:
            try:
                signing.verify_establish(frame, self._deployment_id)
            except WireError as error:
                reason = error.reason
        if reason is not ReasonCode.NONE:
            return self.reject(reason, now_ms)
        self.state = state
        self.public_key = establish.public_key
        self.heartbeat_interval_ms = interval_ms
        return EstablishRequested(establish.public_key, interval_ms, establish.last_report_seq)

    def _batch(self, frame: bytes, now_ms: int) -> ServerEvent:
        reason = self._check_batch(frame)
        if reason is not ReasonCode.NONE:
            return self._refuse(reason, now_ms)
        self._heard(now_ms)
        nonce, shard = _BATCH_NONCE_SHARD.unpack_from(frame, _BATCH_NONCE_OFFSET)
        if frame[_BATCH_KEY] != self.public_key:
            return self._refuse(ReasonCode.KEY_NOT_OF_SESSION, now_ms, nonce)
        if shard not in self._shards:
            return self._refuse(ReasonCode.SHARD_UNKNOWN, now_ms, nonce)
        return BatchReceived(frame, nonce, shard)

    def _query(self, query: Query, now_ms: int) -> ServerEvent:
        reason = ReasonCode.NONE
        shard = getattr(query, "shard", None)
        entries = getattr(query, "levels", getattr(query, "limit", 1))
        if shard is not None and shard not in self._shards:
            reason = ReasonCode.SHARD_UNKNOWN
        elif not 1 <= entries <= QUERY_ENTRIES_MAX:
            reason = ReasonCode.QUERY_LIMIT_INVALID
        if reason is ReasonCode.NONE:
            return QueryReceived(query)
        self._send(QueryReject(request_id=query.request_id, reason=reason), now_ms)
        return FrameRefused(reason)

    def _refuse(self, reason: ReasonCode, now_ms: int, nonce: int = 0) -> FrameRefused:
        """Answer a bad frame. Before the session is established nobody is owed an answer: it ends."""
        if self.state is not State.ESTABLISHED:
            raise RemoteProtocolError(reason, f"malformed frame when {self.state.value}")
        self._heard(now_ms)
        self.not_applied(nonce, reason, now_ms)
        return FrameRefused(reason, nonce)


class ClientSession(_Session):
    """The client's side of one connection. It answers the Challenge with a signed Establish by itself."""

    role = Role.CLIENT
    peer = Role.SERVER

    def __init__(
        self,
        settings: SessionSettings,
        *,
        key: SigningKey,
        deployment_id: bytes | None,
        now_ms: int,
        last_report_seq: int = 0,
    ) -> None:
        """`deployment_id`: the deployment the client means to talk to; None accepts what the server names."""
        super().__init__(settings, MAX_FRAME_BYTES_TO_CLIENT, now_ms)
        self.deployment_id = deployment_id
        self.ack: EstablishmentAck | None = None
        self._key = key
        self._last_report_seq = last_report_seq

    def receive(self, frame: bytes, now_ms: int) -> ClientEvent | None:
        """Take one whole frame. None: nothing for the caller to do. Raises RemoteProtocolError."""
        if self.state is State.ENDED:
            return None
        try:
            message = decode(frame)
        except WireError as error:
            raise RemoteProtocolError(error.reason, str(error)) from None
        if type(message) not in SERVER_MESSAGES:
            raise RemoteProtocolError(ReasonCode.TEMPLATE_UNKNOWN, type(message).__name__)
        state = self._accept(type(message))
        if isinstance(message, Challenge) and self.deployment_id not in (None, message.deployment_id):
            raise RemoteProtocolError(ReasonCode.DEPLOYMENT_MISMATCH, message.deployment_id.hex())
        if isinstance(message, EstablishmentAck) and message.public_key != bytes(self._key.verify_key):
            raise RemoteProtocolError(ReasonCode.KEY_NOT_OF_SESSION, message.public_key.hex())
        self.state = state
        self._heard(now_ms)
        if isinstance(message, Challenge):
            self._establish(message, now_ms)
            return None
        if isinstance(message, EstablishmentAck):
            self.ack = message
            self.heartbeat_interval_ms = message.heartbeat_interval_ms
            return Established(message)
        if isinstance(message, EstablishmentReject | Terminate):
            return SessionEnded(message.reason, by_peer=True)
        if isinstance(message, Sequence):
            return None
        return MessageReceived(message)

    def send(self, message: Query | bytes, now_ms: int) -> None:
        """Send a query, or the frame of a signed batch. Raises LocalProtocolError."""
        if isinstance(message, bytes):
            self._send_frame(MESSAGES[template_of(message)], message, now_ms)
        else:
            self._send(message, now_ms)

    def _establish(self, challenge: Challenge, now_ms: int) -> None:
        self.deployment_id = challenge.deployment_id
        establish = Establish(
            challenge=challenge.challenge,
            heartbeat_interval_ms=self.settings.heartbeat_interval_ms,
            last_report_seq=self._last_report_seq,
        )
        frame = signing.sign_establish(establish, self._key, challenge.deployment_id)
        self._send_frame(Establish, frame, now_ms)
