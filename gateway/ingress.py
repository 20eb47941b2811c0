"""The ingress without sockets: bytes of clients and messages of matchers in, bytes for both out.

One loop turn of the shell: `received` for every readable connection, `link_message` for what the matchers
sent, `tick`, `end_turn`. All batches that became complete in the turn are verified together, in one call
into C, and then go to their shards in one message each. Cheap checks come first and the signature last,
because it costs more than all the rest.

What a session has said and nobody has dealt with is bounded, and so is what is done in a turn: sessions that wait
take turns, and who has enough waiting is not read from (`Connection.full`) until that is done. So a session that
sends more than can be dealt with slows itself down and nobody else. Queries on their way to a matcher are few,
since what others send to it queues behind them.

What is refused here is not in the log: framing faults end the connection with Terminate, other malformed
frames, keys and shards that are not the session's are answered with NotApplied, a bad signature counts a
strike as well.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from gateway.admission import Admission, AdmissionLimits
from gateway.links import LinkBroken, ShardLink
from zexchange.genesis import Genesis
from zexchange.matcher.link import OPENED, REJECTED, Entry, Kind
from zexchange.wire import messages
from zexchange.wire.messages import (
    Buffer,
    Durability,
    EstablishmentReject,
    QueryReject,
    ReasonCode,
    ShardSession,
)
from zexchange.wire.session import (
    BatchReceived,
    EstablishRequested,
    Query,
    QueryReceived,
    RemoteProtocolError,
    ScanBatches,
    ServerSession,
    SessionEnded,
    SessionSettings,
    State,
)

VERIFIED_PER_TURN_MAX = 64
"""Batches verified in one call: some milliseconds of work on one core. Answers that arrive meanwhile wait."""

WAITING_MAX = 64
"""Batches and queries of one session with which nothing more is read of it: what one turn deals with, so that the
quota slows nobody down who is alone."""

FRAMES_PER_VISIT = 64
"""Frames looked at, other than batches at the start of what came, until the other sessions get their turn."""

_CHUNK_BYTES = 1_024
"""Cut into frames at a time: some 34 queries."""

Verify = Callable[[Sequence[bytes], bytes], Sequence[bool]]
"""(batch frames, deployment id) to one verdict per frame, as `zexchange.frames.verify_frames`."""


class IngressSettings(msgspec.Struct, frozen=True, kw_only=True):
    session: SessionSettings = SessionSettings()
    admission: AdmissionLimits = AdmissionLimits()
    max_in_flight_bytes: int = 8 * 1024 * 1024
    """Sent to a matcher and not dealt with yet, per shard; beyond it the answer is serverBusy."""
    durability: Durability = Durability.ALWAYS


class IngressCounters(msgspec.Struct):
    """What happened since the start."""

    connections: int = 0
    refused_connections: int = 0
    batches: int = 0
    bad_signatures: int = 0
    refused_frames: int = 0
    busy: int = 0


class Connection:
    """One client connection, made by `Ingress.connected`. The shell may keep its own things in `handle`."""

    __slots__ = (
        "early",
        "ended",
        "established",
        "evicted",
        "handle",
        "ip",
        "on_shards",
        "opened",
        "queued",
        "scheduled_ms",
        "session",
        "session_id",
        "stopped",
        "unread",
        "waiting",
    )

    def __init__(self, session_id: int, ip: str, session: ServerSession) -> None:
        self.session_id = session_id
        self.ip = ip
        self.session = session
        self.opened: dict[int, ShardSession] | None = None
        """From the logon until every matcher has answered: what they have said so far, by shard."""
        self.early: list[Entry] = []
        """What came from the shards that answered the logon first: the client gets them behind the
        acknowledgement."""
        self.on_shards = False
        """The matchers know the session."""
        self.established = False
        self.evicted = False
        """It made room for another one before it logged on: close it at once."""
        self.ended: ReasonCode | None = None
        """Set when the session is over: flush what is left and close."""
        self.scheduled_ms = 0
        self.handle: object = None
        self.unread = b""
        """Received and not looked at: at most what was read at once and an unfinished frame."""
        self.waiting: deque[tuple[int, int, bytes | Query]] = deque()
        """For the matchers: shard, nonce (of a batch), frame of a batch or query."""
        self.queued = False
        """Among those that wait for a turn."""
        self.stopped = False
        """The shell does not read, or not the quick way, because of what waits: it is told when nothing does."""

    @property
    def has_backlog(self) -> bool:
        """Something it said waits: what it says next comes behind that."""
        return bool(self.waiting or self.unread)

    @property
    def full(self) -> bool:
        """So much waits that nothing more is to be read."""
        return bool(self.unread) or len(self.waiting) >= WAITING_MAX


_Pending = tuple[Connection, int, int, bytes | Query]
"""Something of this turn for a matcher: who sent it, shard, nonce (of a batch), frame of a batch or query."""


class Ingress:
    """One ingress worker. Not thread-safe."""

    def __init__(
        self,
        settings: IngressSettings,
        genesis: Genesis,
        links: Sequence[ShardLink],
        *,
        verify: Verify,
        check_batch: Callable[[bytes], ReasonCode],
        scan_batches: ScanBatches,
    ) -> None:
        """`links`: one per shard, in order of shards."""
        self._settings = settings
        self._genesis = genesis
        self._links = links
        self._verify = verify
        self._check_batch = check_batch
        self._scan_batches = scan_batches
        self._shards = range(len(links))
        self._shard_of_market = {market.market_id: market.shard for market in genesis.markets}
        self._admission = Admission(settings.admission)
        self._connections: dict[int, Connection] = {}
        self._next_session_id = 1
        self._ready: deque[Connection] = deque()
        """Sessions with something that can be dealt with, in the order of their turns."""
        self._stalled: list[deque[Connection]] = [deque() for _ in links]
        """By shard: sessions whose next query must wait until queries before it are answered."""
        self._waiting = 0
        """Batches and queries of all sessions that wait."""
        self._deadlines: list[tuple[int, int]] = []
        self._touched: dict[int, Connection] = {}
        self._told_genesis: dict[int, Connection] = {}
        """Sessions with the genesis file in the output of what they were read last."""
        self.counters = IngressCounters()
        self.verified_ns = 0
        """Set by whoever verifies and measures: when the batches of this turn were verified, by the monotonic clock."""
        self.before_tick: Callable[[Connection], None] = lambda _connection: None
        """Called before a session is asked what is due: tells it what was done in its name elsewhere."""

    @property
    def connections(self) -> int:
        return len(self._connections)

    def connected(self, ip: str, *, challenge: bytes, server_time_ns: int, now_ms: int) -> Connection | bytes:
        """A new connection, or the frame to send before closing it at once if it is one too many."""
        self.counters.connections += 1
        oldest = self._admission.crowded_out(ip)
        if oldest is not None:
            self._evict(self._connections[oldest], now_ms)
        reason = self._admission.connected(ip, self._next_session_id)
        if reason is not ReasonCode.NONE:
            self.counters.refused_connections += 1
            return EstablishmentReject(reason=reason).encode()
        session = ServerSession(
            self._settings.session,
            deployment_id=self._genesis.deployment_id,
            shards=self._shards,
            challenge=challenge,
            server_time_ns=server_time_ns,
            now_ms=now_ms,
            check_batch=self._check_batch,
        )
        connection = Connection(self._next_session_id, ip, session)
        self._next_session_id += 1
        self._connections[connection.session_id] = connection
        self._touch(connection)
        return connection

    def received(self, connection: Connection, data: Buffer, *, server_time_ns: int, now_ms: int) -> None:
        """Bytes of a client. What becomes of them shows at `end_turn`."""
        if connection.ended is not None:
            return
        if connection.has_backlog:
            connection.unread += data
            return
        connection.unread = bytes(data)
        self._look_at(connection, now_ms)
        self._queue(connection)

    def disconnected(self, connection: Connection) -> None:
        """The connection is closed, by whichever side. Call once for every connection."""
        self._leave_shards(connection)
        connection.unread = b""
        if connection.ended is None:
            connection.ended = ReasonCode.NONE
        del self._connections[connection.session_id]
        self._touched.pop(connection.session_id, None)
        self._admission.disconnected(
            connection.ip,
            connection.session_id,
            unestablished=not (connection.established or connection.evicted),
        )
        connection.handle = None

    def link_message(self, shard: int, message: bytes, *, server_time_ns: int, now_ms: int) -> None:
        """One message of a matcher."""
        try:
            entries = self._links[shard].received(message)
        except LinkBroken:
            self._end_all(ReasonCode.SHARD_RESTARTED, now_ms)
            return
        for entry in entries:
            connection = self._connections.get(entry.session_id)
            if connection is None or connection.ended is not None:
                continue
            if entry.kind == Kind.OPENED:
                self._opened(connection, shard, entry, server_time_ns, now_ms)
            elif entry.kind == Kind.REJECTED:
                self._rejected(connection, entry, now_ms)
            elif connection.opened is not None:
                connection.early.append(entry)
            elif connection.session.state is State.ESTABLISHED:
                _pass_on(connection.session, entry, now_ms)
            self._touched[connection.session_id] = connection

    def tick(self, now_ms: int) -> None:
        """Heartbeats and timeouts that are due."""
        for link in self._links:
            link.tick(now_ms)
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now_ms:
            at_ms, session_id = heapq.heappop(deadlines)
            connection = self._connections.get(session_id)
            if connection is None or connection.scheduled_ms != at_ms or connection.ended is not None:
                continue
            connection.scheduled_ms = 0
            self.before_tick(connection)
            if connection.has_backlog:
                connection.session.kept_waiting(now_ms)
            ended = connection.session.tick(now_ms)
            if ended is not None:
                self._end(connection, ended.reason)
            self._touch(connection)

    def next_deadline_ms(self) -> int:
        """When `tick` is needed at the latest."""
        deadline_ms = min(link.next_deadline_ms() for link in self._links)
        return min(deadline_ms, self._deadlines[0][0]) if self._deadlines else deadline_ms

    @property
    def pending(self) -> bool:
        """`end_turn` has left something that the next turn can deal with."""
        return bool(self._ready) or any(
            stalled and link.query_room for link, stalled in zip(self._links, self._stalled, strict=True)
        )

    @property
    def waiting(self) -> int:
        """How many batches and queries wait."""
        return self._waiting

    def connection(self, session_id: int) -> Connection | None:
        """The connection with this number, while it is there."""
        return self._connections.get(session_id)

    def hear_report(self, connection: Connection, frames: bytes, now_ms: int) -> None:
        """Reports that did not come in a link message and cannot be written at once."""
        if connection.opened is not None:
            connection.early.append(Entry(Kind.REPORTS, connection.session_id, frames))
        elif connection.session.state is State.ESTABLISHED:
            connection.session.send_reports(frames, now_ms)
            self._touched[connection.session_id] = connection

    def verified(self, shard: int, batches: Iterable[tuple[int, int, bytes, bool]], now_ms: int) -> None:
        """Batches for one shard that somebody else has verified: (session id, nonce, frame, verdict)."""
        known = [
            (connection, shard, nonce, frame, good)
            for session_id, nonce, frame, good in batches
            if (connection := self._connections.get(session_id)) is not None
        ]
        self._hand_on([item[:4] for item in known], iter([item[4] for item in known]), now_ms)

    def touched(self) -> list[Connection]:
        """Connections with something to do: output to take from their session, or an end to carry out."""
        if not self._touched:
            return []
        touched, self._touched = list(self._touched.values()), {}
        return touched

    def end_turn(self, now_ms: int) -> list[Connection]:
        """Verify and forward what came in this turn, up to VERIFIED_PER_TURN_MAX batches and queries.

        Returns `touched()`. The messages for the matchers are in the links.
        """
        for link, stalled in zip(self._links, self._stalled, strict=True):
            for _ in range(min(len(stalled), link.query_room)):
                self._ready.append(stalled.popleft())
        if self._ready:
            self._forward(self._take_turns(now_ms), now_ms)
        for link in self._links:
            link.end_turn(self.verified_ns)
        self.verified_ns = 0
        if self._told_genesis:
            self._told_genesis = {key: told for key, told in self._told_genesis.items() if told.unread}
        return self.touched()

    def slow_consumer(self, connection: Connection, now_ms: int) -> None:
        """The client does not read: end the session; its last words are then in the session's output."""
        connection.session.take_output()
        self._end(connection, connection.session.terminate(ReasonCode.SLOW_CONSUMER, now_ms).reason)

    def shut_down(self, now_ms: int) -> None:
        """End all sessions because the server is stopping."""
        self._end_all(ReasonCode.SERVER_SHUTDOWN, now_ms)

    def _evict(self, connection: Connection, now_ms: int) -> None:
        self.counters.refused_connections += 1
        connection.evicted = True
        self._admission.evicted(connection.ip, connection.session_id)
        self._touched[connection.session_id] = connection
        if connection.ended is None:
            self._end(connection, connection.session.reject(ReasonCode.SESSION_LIMIT, now_ms).reason)

    def _queue(self, connection: Connection) -> None:
        """Have it wait for a turn if it needs one."""
        if connection.has_backlog and not connection.queued:
            connection.queued = True
            self._ready.append(connection)

    def _look_at(self, connection: Connection, now_ms: int) -> int:
        """Cut what was received into frames and see what they say, as far as it is the session's turn. Returns how
        many frames were looked at; batches at the start are cheap and do not count."""
        session = connection.session
        batches, rest = session.feed_batches(connection.unread, now_ms, self._scan_batches)
        connection.unread = b""
        for nonce, shard, frame in batches:
            self._wait(connection, shard, nonce, frame)
        if not rest:
            return 0  # being heard moves deadlines only further away
        looked_at = offset = 0
        try:
            while offset < len(rest) and looked_at < FRAMES_PER_VISIT:
                frames = session.feed(rest[offset : offset + _CHUNK_BYTES], now_ms)
                offset += _CHUNK_BYTES
                while frames:
                    looked_at += len(frames)
                    for frame in frames:
                        event = session.receive(frame, now_ms)
                        if event is not None:
                            self._event(connection, event, now_ms)
                        if session.state is State.ENDED:
                            return looked_at
                    # A fault behind these frames shows now, not when the next bytes come.
                    frames = session.feed(b"", now_ms)
            connection.unread = rest[offset:]
        except RemoteProtocolError as error:
            self.counters.refused_frames += 1
            self._end(connection, session.terminate(error.reason, now_ms).reason)
        self._touch(connection)
        return looked_at

    def _wait(self, connection: Connection, shard: int, nonce: int, item: bytes | Query) -> None:
        connection.waiting.append((shard, nonce, item))
        self._waiting += 1

    def _take_turns(self, now_ms: int) -> list[_Pending]:
        """What the sessions that wait get dealt with in this turn: each its share, one behind the other."""
        ready, taken = self._ready, list[_Pending]()
        room = VERIFIED_PER_TURN_MAX
        share = max(1, room // len(ready))
        asked = [0] * len(self._links)
        while ready and room > 0:
            connection = ready.popleft()
            connection.queued = False
            if connection.unread and len(connection.waiting) < WAITING_MAX:
                room -= self._look_at(connection, now_ms)
            waiting = connection.waiting
            count = 0
            stalled: int | None = None
            while waiting and count < min(share, room):
                shard, nonce, item = waiting[0]
                if not isinstance(item, bytes) and connection.ended is None:
                    if asked[shard] >= self._links[shard].query_room:
                        stalled = shard
                        break
                    asked[shard] += 1
                waiting.popleft()
                self._waiting -= 1
                count += 1
                taken.append((connection, shard, nonce, item))
            room -= count
            if connection.ended is not None:
                # It had its turn; who is gone, or was told to go, is not owed another.
                self._waiting -= len(waiting)
                waiting.clear()
                connection.unread = b""
            elif stalled is not None:
                connection.queued = True
                self._stalled[stalled].append(connection)
            elif connection.has_backlog:
                self._queue(connection)
            elif connection.stopped:
                connection.session.kept_waiting(now_ms)
                self._touched[connection.session_id] = connection
        return taken

    def _event(self, connection: Connection, event: object, now_ms: int) -> None:
        match event:
            case BatchReceived():
                self._wait(connection, event.shard, event.nonce, event.frame)
            case QueryReceived():
                self._query(connection, event.query, now_ms)
            case EstablishRequested():
                self._logon(connection, event.public_key, now_ms)
            case SessionEnded():
                self._end(connection, event.reason)
            case _:
                self.counters.refused_frames += 1

    def _logon(self, connection: Connection, public_key: bytes, now_ms: int) -> None:
        reason = self._admission.logon(public_key, now_ms)
        if reason is ReasonCode.NONE and not all(not link.busy for link in self._links):
            reason = ReasonCode.SERVER_BUSY
        if reason is not ReasonCode.NONE:
            self._end(connection, connection.session.reject(reason, now_ms).reason)
            return
        self._admission.proved(connection.ip, connection.session_id)
        connection.opened = {}
        connection.on_shards = True
        for link in self._links:
            link.add(Kind.OPEN, connection.session_id, public_key)

    def _opened(
        self, connection: Connection, shard: int, entry: Entry, server_time_ns: int, now_ms: int
    ) -> None:
        """One matcher has opened the session; when all have, the client is told."""
        if connection.opened is None:
            return
        account_id, report_seq = OPENED.unpack(entry.payload)
        connection.opened[shard] = ShardSession(shard=shard, account_id=account_id, report_seq=report_seq)
        if len(connection.opened) < len(self._links):
            return
        shards = [connection.opened[number] for number in self._shards]
        connection.opened = None
        connection.established = True
        self._admission.established(connection.ip)
        connection.session.acknowledge(
            shards, durability=self._settings.durability, server_time_ns=server_time_ns, now_ms=now_ms
        )
        for early in connection.early:
            _pass_on(connection.session, early, now_ms)
        connection.early.clear()
        self._touch(connection)

    def _rejected(self, connection: Connection, entry: Entry, now_ms: int) -> None:
        """One matcher does not take the session: the logon is over, and the others forget it."""
        if connection.opened is None:
            return
        connection.opened = None
        connection.early.clear()
        reason = ReasonCode(REJECTED.unpack(entry.payload)[0])
        self._end(connection, connection.session.reject(reason, now_ms).reason)

    def _query(self, connection: Connection, query: Query, now_ms: int) -> None:
        if isinstance(query, messages.GenesisRequest):
            if connection.session_id in self._told_genesis:
                # A few bytes ask for megabytes: whoever asks again before it was sent gets nothing more.
                self._refuse_query(connection, query, ReasonCode.SERVER_BUSY, now_ms)
                return
            self._told_genesis[connection.session_id] = connection
            answer = messages.Genesis(request_id=query.request_id, genesis=self._genesis.raw)
            connection.session.send(answer.encode(), now_ms)
            return
        if isinstance(query, messages.BookRequest | messages.TradesRequest):
            # Of a market that was added later the client knows the shard, from where it knows the market.
            shard = self._shard_of_market.get(query.market_id, query.shard)
        else:
            shard = query.shard
        self._wait(connection, shard, 0, query)

    def _refuse_query(self, connection: Connection, query: Query, reason: ReasonCode, now_ms: int) -> None:
        connection.session.send(QueryReject(request_id=query.request_id, reason=reason).encode(), now_ms)

    def _forward(self, pending: list[_Pending], now_ms: int) -> None:
        """Verify all batches in one call; then hand on, session by session in the order they came."""
        frames = [item for _, _, _, item in pending if type(item) is bytes]
        verdicts = iter(self._verify(frames, self._genesis.deployment_id) if frames else ())
        self._hand_on(pending, verdicts, now_ms)

    def _hand_on(self, pending: Sequence[_Pending], verdicts: Iterator[bool], now_ms: int) -> None:
        struck_out: set[int] = set()
        for connection, shard, nonce, item in pending:
            link = self._links[shard]
            if not isinstance(item, bytes):
                if connection.ended is None:
                    self._forward_query(connection, link, item, now_ms)
                continue
            self.counters.batches += 1
            good = next(verdicts)
            if struck_out and connection.session_id in struck_out:
                continue
            if not good:
                if self._strike(connection, nonce, now_ms):
                    struck_out.add(connection.session_id)
            elif not link.busy:
                # Even if the session ended in this very turn: what was sent before still counts.
                link.add(Kind.BATCH, connection.session_id, item)
            elif connection.ended is None:
                self.counters.busy += 1
                connection.session.not_applied(nonce, ReasonCode.SERVER_BUSY, now_ms)
                self._touched[connection.session_id] = connection

    def _forward_query(self, connection: Connection, link: ShardLink, query: Query, now_ms: int) -> None:
        if link.busy:
            self.counters.busy += 1
            self._touched[connection.session_id] = connection
            self._refuse_query(connection, query, ReasonCode.SERVER_BUSY, now_ms)
        else:
            link.add(Kind.QUERY, connection.session_id, query.encode())

    def _strike(self, connection: Connection, nonce: int, now_ms: int) -> bool:
        """Count a bad signature; True if the session is over, by this or before."""
        self.counters.bad_signatures += 1
        self._touched[connection.session_id] = connection
        ended = connection.session.strike(nonce, now_ms)
        if ended is not None:
            self._admission.struck_out(connection.session.public_key or b"", now_ms)
            self._end(connection, ended.reason)
        return connection.ended is not None

    def _end(self, connection: Connection, reason: ReasonCode) -> None:
        """The session is over; its last words are in its output, the shell sends them and closes."""
        if connection.ended is None:
            connection.ended = reason
            self._leave_shards(connection)
        self._touched[connection.session_id] = connection

    def _end_all(self, reason: ReasonCode, now_ms: int) -> None:
        for connection in list(self._connections.values()):
            if connection.ended is None:
                self._end(connection, connection.session.terminate(reason, now_ms).reason)

    def _leave_shards(self, connection: Connection) -> None:
        if connection.on_shards:
            connection.on_shards = False
            for link in self._links:
                link.add(Kind.CLOSE, connection.session_id)

    def _touch(self, connection: Connection) -> None:
        """Have the shell look at the connection at the end of the turn, and plan its next deadline."""
        self._touched[connection.session_id] = connection
        deadline_ms = connection.session.next_deadline_ms()
        if deadline_ms is not None and (
            connection.scheduled_ms == 0 or deadline_ms < connection.scheduled_ms
        ):
            connection.scheduled_ms = deadline_ms
            heapq.heappush(self._deadlines, (deadline_ms, connection.session_id))


def _pass_on(session: ServerSession, entry: Entry, now_ms: int) -> None:
    if entry.kind == Kind.REPORTS:
        session.send_reports(entry.payload, now_ms)
    else:
        session.send(entry.payload, now_ms)
