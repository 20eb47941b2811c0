"""Sessions that HTTP clients log on with their own key: a TCP session at the ingress on behalf of each.

    POST /sessions {public_key}          ──▶ connect, Challenge ──▶ what is to be signed
    POST /sessions/{id} {signature}      ──▶ Establish ──▶ EstablishmentAck ──▶ a token
    POST /orders/batch with the token    ──▶ the signed frame, unchanged ──▶ its reports

The signatures are the client's: this process holds no trader's key, and an order that comes this way is the same frame
in the log as one that came over TCP.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from webapp.parsing import batch_of
from webapp.problems import Problem, of_reason
from zexchange.limits import ACCOUNT_NONE
from zexchange.wire import signing
from zexchange.wire.framing import MAX_FRAME_BYTES_TO_CLIENT, FrameSplitter
from zexchange.wire.messages import (
    BODY_OFFSET,
    Challenge,
    Establish,
    EstablishmentAck,
    EstablishmentReject,
    ExecutionReport,
    Message,
    NotApplied,
    QueryReject,
    ReasonCode,
    Sequence,
    ShardStatus,
    ShardStatusRequest,
    Terminate,
    WireError,
    decode,
)

HEARTBEAT_INTERVAL_MS = 10_000
PENDING_MS = 30_000
"""How long a session may wait for the signature of its logon; the ingress ends it sooner."""
IDLE_MS = 30 * 60 * 1_000
"""A session that was not used for so long is over."""
ANSWER_TIMEOUT_S = 10.0
SESSIONS_MAX = 1_000
_SIGNATURE_END = BODY_OFFSET + signing.SIGNATURE_BYTES
_RECEIVE_BYTES = 65_536
_TIMEOUT = "TIMEOUT"


class ApiSession:
    """One connection to the ingress, logged on by somebody else's key."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        deployment_id: bytes,
        public_key: bytes,
    ) -> None:
        self.id = secrets.token_urlsafe(12)
        self.token = secrets.token_urlsafe(32)
        self.public_key = public_key
        self.account_id: int | None = None
        self.used_at = time.monotonic()
        self.ended: Problem | None = None
        self.established = False
        self.acknowledged_at_ns = 0
        self._reader = reader
        self._writer = writer
        self._deployment_id = deployment_id
        self._splitter = FrameSplitter(MAX_FRAME_BYTES_TO_CLIENT)
        self._frames: list[bytes] = []
        self._establish = b""
        self._waiting: dict[int, tuple[asyncio.Future[list[Message]], list[Message]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def challenged(self) -> bytes:
        """What the client is to sign to log on. Raises Problem."""
        message = await self._next()
        if not isinstance(message, Challenge):
            raise self._refused(message)
        establish = Establish(
            public_key=self.public_key,
            challenge=message.challenge,
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
        )
        self._establish = establish.encode()
        return signing.establish_signed_bytes(self._establish, self._deployment_id)

    async def log_on(self, signature: bytes) -> None:
        """Raises Problem."""
        frame = self._establish[:BODY_OFFSET] + signature + self._establish[_SIGNATURE_END:]
        self._writer.write(frame)
        message = await self._next()
        if not isinstance(message, EstablishmentAck):
            raise self._refused(message)
        known = [shard.account_id for shard in message.shards if shard.account_id != ACCOUNT_NONE]
        self.account_id = known[0] if known else None
        self.established = True
        self._task = asyncio.create_task(self._run())

    async def submit(self, frame: bytes) -> list[Message]:
        """Send a signed batch; returns one report per command, or a NotApplied. Raises Problem."""
        if self.ended is not None:
            raise self.ended
        batch = batch_of(frame)
        if batch.public_key != self.public_key:
            raise of_reason(ReasonCode.KEY_NOT_OF_SESSION)
        if batch.nonce in self._waiting:
            raise Problem("NONCE_USED", "a batch with this nonce is on its way")
        future: asyncio.Future[list[Message]] = asyncio.get_running_loop().create_future()
        self._waiting[batch.nonce] = (future, [])
        self.used_at = time.monotonic()
        # The exchange answers the question behind the batch's reports; that is how we know that there are no more.
        self._writer.write(frame + ShardStatusRequest(request_id=batch.nonce, shard=batch.shard).encode())
        try:
            return await asyncio.wait_for(future, ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise Problem(
                _TIMEOUT, "no answer yet: send the same bytes again, which changes nothing twice"
            ) from None
        finally:
            self._waiting.pop(batch.nonce, None)

    def close(self) -> None:
        """The session is over."""
        if self.ended is None:
            self.ended = Problem("UNAUTHORIZED", "the session is over")
        if self._task is not None:
            self._task.cancel()
        self._writer.close()

    async def _run(self) -> None:
        """Reads reports, and says twice per interval that we are here, however much there is to read."""
        interval_s = HEARTBEAT_INTERVAL_MS / 2_000
        due = time.monotonic() + interval_s
        while self.ended is None:
            if time.monotonic() >= due:
                due = time.monotonic() + interval_s
                self._writer.write(Sequence().encode())
            try:
                self._heard(await self._next(max(0.0, due - time.monotonic())))
            except TimeoutError:
                continue
            except (Problem, OSError) as error:
                over = Problem("SERVER_BUSY", f"the connection to the ingress broke: {error}")
                self._end(error if isinstance(error, Problem) else over)
                return

    def _heard(self, message: Message) -> None:
        match message:
            case NotApplied() if message.nonce in self._waiting:
                self._answer(message.nonce, [message])
            case ExecutionReport() if message.nonce in self._waiting:
                self._waiting[message.nonce][1].append(message)
            case ShardStatus() | QueryReject() if message.request_id in self._waiting:
                # The fence: everything that the batch caused has been said.
                self._answer(message.request_id, self._waiting[message.request_id][1])
            case Terminate():
                self._end(of_reason(message.reason))
            case _:
                pass

    def _answer(self, nonce: int, reports: list[Message]) -> None:
        future = self._waiting[nonce][0]
        if not future.done():
            future.set_result(reports)

    def _end(self, problem: Problem) -> None:
        self.ended = problem
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(problem)

    async def _next(self, timeout_s: float = ANSWER_TIMEOUT_S) -> Message:
        """Raises Problem when the connection ends, TimeoutError."""
        while not self._frames:
            data = await asyncio.wait_for(self._reader.read(_RECEIVE_BYTES), timeout_s)
            if not data:
                raise Problem("SERVER_BUSY", "the ingress closed the connection")
            self._frames += self._splitter.feed(data)
        try:
            return decode(self._frames.pop(0))
        except WireError as error:
            raise Problem("INTERNAL", f"the ingress sent what is no message: {error}") from None

    def _refused(self, message: Message) -> Problem:
        reason = getattr(message, "reason", ReasonCode.SERVER_BUSY)
        if isinstance(message, EstablishmentReject | Terminate) and isinstance(reason, ReasonCode):
            return of_reason(reason)
        return Problem("INTERNAL", f"the ingress sent {type(message).__name__}")


class ApiSessions:
    """All of them."""

    def __init__(
        self, host: str, port: int, deployment_id: bytes, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._host = host
        self._port = port
        self._deployment_id = deployment_id
        self._now = now
        self._by_id: dict[str, ApiSession] = {}
        self._by_token: dict[str, ApiSession] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    async def begin(self, public_key: bytes) -> tuple[ApiSession, bytes]:
        """A session that waits for its logon, and what its owner is to sign. Raises Problem."""
        self.sweep()
        if len(self._by_id) >= SESSIONS_MAX:
            raise Problem("SERVER_BUSY", "too many sessions")
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            raise Problem("SERVER_BUSY", f"order entry does not answer: {error}") from None
        session = ApiSession(reader, writer, self._deployment_id, public_key)
        try:
            to_sign = await session.challenged()
        except (TimeoutError, OSError):
            session.close()
            raise Problem(_TIMEOUT, "order entry does not answer") from None
        except Problem:
            session.close()
            raise
        self._by_id[session.id] = session
        return session, to_sign

    async def log_on(self, session_id: str, signature: bytes) -> ApiSession:
        """Raises Problem."""
        session = self._by_id.get(session_id)
        if session is None or session.established:
            raise Problem("NOT_FOUND", "no session of this id waits for a signature")
        if len(signature) != signing.SIGNATURE_BYTES:
            raise Problem("BAD_REQUEST", "a signature is 64 bytes", field="signature")
        try:
            await session.log_on(signature)
        except (TimeoutError, OSError):
            self._drop(session)
            raise Problem(_TIMEOUT, "order entry does not answer") from None
        except Problem:
            self._drop(session)
            raise
        session.used_at = self._now()
        self._by_token[session.token] = session
        return session

    def of_token(self, token: str) -> ApiSession:
        """Raises Problem."""
        session = self._by_token.get(token)
        if session is not None and session.ended is not None:
            self._drop(session)
            session = None
        if session is None:
            raise Problem("UNAUTHORIZED", "log on first: POST /api/v1/sessions")
        session.used_at = self._now()
        return session

    def end(self, session: ApiSession) -> None:
        """Its owner logs off."""
        self._drop(session)

    def sweep(self) -> None:
        """End those that nobody uses."""
        now = self._now()
        for session in list(self._by_id.values()):
            limit_ms = IDLE_MS if session.established else PENDING_MS
            if session.ended is not None or (now - session.used_at) * 1_000 > limit_ms:
                self._drop(session)

    def close(self) -> None:
        for session in list(self._by_id.values()):
            self._drop(session)

    def _drop(self, session: ApiSession) -> None:
        session.close()
        self._by_id.pop(session.id, None)
        self._by_token.pop(session.token, None)
