"""Sessions that HTTP clients log on with their own key: a TCP session at the ingress on behalf of each.

    POST /sessions {public_key}          ──▶ connect, Challenge ──▶ what is to be signed
    POST /sessions/{id} {signature}      ──▶ Establish ──▶ EstablishmentAck ──▶ a token
    POST /orders/batch with the token    ──▶ the signed frame, unchanged ──▶ its reports

The signatures are the client's: this process holds no trader's key, and an order that comes this way is the same frame
in the log as one that came over TCP.

A batch that was written to the connection may be applied, whatever becomes of the connection. So from then on waiting
for it has three ends: reports about every command of it, a NotApplied, or TIMEOUT, which says that the outcome is
unknown; never an error that means that nothing was done.

Logging on costs nothing, so nobody may have so many sessions that there are none for others: by address and by account,
the session that was not used for longest makes room for a new one.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable

from webapp.parsing import batch_of
from webapp.problems import OUTCOME_UNKNOWN, Problem, of_reason, unknown_outcome
from zexchange.limits import ACCOUNT_NONE
from zexchange.wire import signing
from zexchange.wire.answers import answers
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
    ReportFlags,
    Sequence,
    ShardStatus,
    ShardStatusRequest,
    SignedBatch,
    Terminate,
    WireError,
    decode,
)

HEARTBEAT_INTERVAL_MS = 10_000
PENDING_MS = 10_000
"""How long a session may wait for the signature of its logon; the ingress ends it sooner."""
IDLE_MS = 30 * 60 * 1_000
"""A session that was not used for so long is over."""
STRANGER_IDLE_MS = 2 * 60 * 1_000
"""The same while its key has no account: anybody can make such keys."""
ANSWER_TIMEOUT_S = 10.0
ASK_AGAIN_S = 0.1
"""Before a question is put again that the exchange was too busy for."""
SESSIONS_MAX = 1_000
SESSIONS_PER_ADDRESS = 100
SESSIONS_PER_ACCOUNT = 8
"""Of those that are logged on, since anybody can begin a session in the name of a key; half of what matchers take, by
default, of an account."""
PENDING_PER_ADDRESS = 16
"""Of those that wait for a signature."""
PENDING_MAX = 128
"""The same of all addresses. To the ingress all of them come from this one, and it lets in 256, tunnels included."""
_SIGNATURE_END = BODY_OFFSET + signing.SIGNATURE_BYTES
_RECEIVE_BYTES = 65_536


class _Sent:
    """A batch on its way, and what was said of it so far, by the record of the log that it is said of."""

    def __init__(self, batch: SignedBatch) -> None:
        self.future: asyncio.Future[list[Message]] = asyncio.get_running_loop().create_future()
        self.shard = batch.shard
        self.fence_id = 0
        self._commands = batch.commands
        self._records: dict[int, list[list[ExecutionReport]]] = {}

    def hear(self, report: ExecutionReport) -> None:
        """A report with the batch's nonce. It may be about another key's batch: see `answers`."""
        index = report.command_index
        if report.shard != self.shard or index >= len(self._commands):
            return
        record = self._records.setdefault(report.record_no, [[] for _ in self._commands])
        reports = record[index]
        if ReportFlags.DUPLICATE in report.flags:
            if not reports:
                reports.append(report)
        elif answers(self._commands[index], reports, report):
            reports.append(report)

    def end(self) -> None:
        """Everything that the batch caused has been said."""
        whole = [reports for reports in self._records.values() if all(reports)]
        if len(whole) == 1:
            self.settle([report for reports in whole[0] for report in reports])
        elif whole:
            self.fail("another key of the account sent the same with the same nonce")
        else:
            self.fail("the exchange did not say what became of all commands")

    def settle(self, messages: list[Message]) -> None:
        if not self.future.done():
            self.future.set_result(messages)

    def fail(self, why: str) -> None:
        """Nothing more will be said."""
        if not self.future.done():
            self.future.set_exception(unknown_outcome(why))


class ApiSession:
    """One connection to the ingress, logged on by somebody else's key."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        deployment_id: bytes,
        public_key: bytes,
        *,
        address: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`address`: whose it is."""
        self.id = secrets.token_urlsafe(12)
        self.token = secrets.token_urlsafe(32)
        self.public_key = public_key
        self.address = address
        self.account_id: int | None = None
        self.used_at = now()
        self.ended: Problem | None = None
        self.signed = False
        """Its logon is on its way, or done."""
        self.established = False
        self.acknowledged_at_ns = 0
        self._reader = reader
        self._writer = writer
        self._deployment_id = deployment_id
        self._splitter = FrameSplitter(MAX_FRAME_BYTES_TO_CLIENT)
        self._frames: list[bytes] = []
        self._establish = b""
        self._now = now
        self._waiting: dict[int, _Sent] = {}
        """By nonce."""
        self._fences: dict[int, _Sent] = {}
        """By request id."""
        self._last_request_id = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        return bool(self._waiting) or (self.signed and not self.established)

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
        """Send a signed batch; returns reports about every command, or a NotApplied.

        Raises Problem: TIMEOUT when it may have been applied; with any other nothing was sent.
        """
        if self.ended is not None:
            raise self.ended
        batch = batch_of(frame)
        if batch.public_key != self.public_key:
            raise of_reason(ReasonCode.KEY_NOT_OF_SESSION)
        if batch.nonce in self._waiting:
            raise Problem("NONCE_USED", "a batch with this nonce is on its way")
        sent = self._waiting[batch.nonce] = _Sent(batch)
        self.used_at = self._now()
        self._writer.write(frame)
        self._ask(sent)
        try:
            return await asyncio.wait_for(sent.future, ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise unknown_outcome("no answer yet") from None
        finally:
            del self._waiting[batch.nonce]
            self._fences.pop(sent.fence_id, None)

    def _ask(self, sent: _Sent) -> None:
        """The exchange answers the question behind the batch's reports; that is how we know that there are no more."""
        if sent.future.done() or self.ended is not None:
            return
        self._last_request_id += 1
        sent.fence_id = self._last_request_id
        self._fences[sent.fence_id] = sent
        self._writer.write(ShardStatusRequest(request_id=sent.fence_id, shard=sent.shard).encode())

    def close(self) -> None:
        """The session is over."""
        if self.ended is None:
            self._end(Problem("UNAUTHORIZED", "the session is over"))
        if self._task is not None:
            self._task.cancel()
        self._writer.close()

    async def _run(self) -> None:
        try:
            await self._converse()
        finally:
            if self.ended is None:
                self._end(Problem("SERVER_BUSY", "the connection to the ingress broke"))

    async def _converse(self) -> None:
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
                self._waiting[message.nonce].settle([message])
            case ExecutionReport():
                if self.account_id is None and message.account_id != ACCOUNT_NONE:
                    self.account_id = message.account_id
                if message.nonce in self._waiting:
                    self._waiting[message.nonce].hear(message)
            case ShardStatus() if message.request_id in self._fences:
                self._fences.pop(message.request_id).end()
            case QueryReject() if message.request_id in self._fences:
                # Refused before the matcher: it says nothing about the batch, which may still wait there.
                asyncio.get_running_loop().call_later(
                    ASK_AGAIN_S, self._ask, self._fences.pop(message.request_id)
                )
            case Terminate():
                self._end(of_reason(message.reason))
            case _:
                pass

    def _end(self, problem: Problem) -> None:
        """For what is asked from now on; what was sent before may have been applied."""
        self.ended = problem
        for sent in self._waiting.values():
            sent.fail(f"the session ended meanwhile ({problem})")

    async def _next(self, timeout_s: float = ANSWER_TIMEOUT_S) -> Message:
        """Raises Problem when the connection ends, TimeoutError."""
        try:
            while not self._frames:
                data = await asyncio.wait_for(self._reader.read(_RECEIVE_BYTES), timeout_s)
                if not data:
                    raise Problem("SERVER_BUSY", "the ingress closed the connection")
                self._frames += self._splitter.feed(data)
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
        self._beginning: Counter[str] = Counter()
        """By address: connections that are being made."""

    def __len__(self) -> int:
        return len(self._by_id)

    async def begin(self, public_key: bytes, address: str = "") -> tuple[ApiSession, bytes]:
        """A session that waits for its logon, and what its owner is to sign. Raises Problem."""
        self.sweep()
        self._make_room(address)
        self._beginning[address] += 1
        try:
            session = await self._connect(public_key, address)
            try:
                to_sign = await session.challenged()
            except (TimeoutError, OSError):
                session.close()
                raise Problem("TIMEOUT", "order entry does not answer") from None
            except Problem:
                session.close()
                raise
        finally:
            self._beginning[address] -= 1
            if not self._beginning[address]:
                del self._beginning[address]
        self._by_id[session.id] = session
        return session, to_sign

    async def _connect(self, public_key: bytes, address: str) -> ApiSession:
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            raise Problem("SERVER_BUSY", f"order entry does not answer: {error}") from None
        return ApiSession(reader, writer, self._deployment_id, public_key, address=address, now=self._now)

    def _make_room(self, address: str) -> None:
        """For one more session of this address: of those that its own has too many of, else of the address that has
        most. Raises Problem."""
        everyone = list(self._by_id.values())
        pending = [one for one in everyone if not one.established]
        for found, per_address, in_all in (
            (pending, PENDING_PER_ADDRESS, PENDING_MAX),
            (everyone, SESSIONS_PER_ADDRESS, SESSIONS_MAX),
        ):
            counts = Counter(one.address for one in found) + self._beginning
            own, giver = counts[address], address
            if own < per_address:
                if counts.total() < in_all:
                    continue
                heaviest, most = counts.most_common(1)[0]
                giver = heaviest if most > own + 1 else address
            if not self._displace(one for one in found if one.address == giver):
                if giver == address and own:
                    raise Problem("TOO_MANY_CONNECTIONS", f"too many sessions of {address}")
                raise Problem("SERVER_BUSY", "too many sessions")

    def _displace(self, among: Iterable[ApiSession]) -> bool:
        """End the one that was not used for longest; first those whose key has no account, and none that waits for an
        answer. False if there is none."""
        idle = [one for one in among if not one.busy]
        if not idle:
            return False
        self._drop(min(idle, key=lambda one: (one.account_id is not None, one.used_at)))
        return True

    async def log_on(self, session_id: str, signature: bytes) -> ApiSession:
        """Raises Problem."""
        session = self._by_id.get(session_id)
        if session is None or session.signed:
            raise Problem("NOT_FOUND", "no session of this id waits for a signature")
        if len(signature) != signing.SIGNATURE_BYTES:
            raise Problem("BAD_REQUEST", "a signature is 64 bytes", field="signature")
        session.signed = True
        try:
            await session.log_on(signature)
        except (TimeoutError, OSError):
            self._drop(session)
            raise Problem(OUTCOME_UNKNOWN, "order entry does not answer") from None
        except Problem:
            self._drop(session)
            raise
        session.used_at = self._now()
        self._by_token[session.token] = session
        others = [one for one in self._by_token.values() if one is not session and _same_owner(one, session)]
        if len(others) >= SESSIONS_PER_ACCOUNT and not self._displace(others):
            self._drop(session)
            raise Problem(
                "TOO_MANY_CONNECTIONS", "too many sessions of this account, and all of them at work"
            )
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
            limit_ms = PENDING_MS
            if session.established:
                limit_ms = STRANGER_IDLE_MS if session.account_id is None else IDLE_MS
            if session.ended is not None or (now - session.used_at) * 1_000 > limit_ms:
                self._drop(session)

    def close(self) -> None:
        for session in list(self._by_id.values()):
            self._drop(session)

    def _drop(self, session: ApiSession) -> None:
        session.close()
        self._by_id.pop(session.id, None)
        self._by_token.pop(session.token, None)


def _same_owner(one: ApiSession, other: ApiSession) -> bool:
    """Whether both are of one key, or of keys of one account."""
    return one.public_key == other.public_key or (
        one.account_id is not None and one.account_id == other.account_id
    )
