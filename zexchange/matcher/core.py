"""The matcher without sockets, store and clock: link messages in, one log batch and the messages that wait
for it out.

A drain takes what has arrived, in order of arrival, until a batch is full, and gives all of it to the engine
in one call. What leaves the matcher because of a drain, reports and answers alike, is what `release` returns,
and the shell calls that only after the store has the drain's batch. So nobody ever learns of a state that
could still be lost. One batch is in flight at a time: between drain and release the state does not change.

An ingress in the same thread may put verified frames into `inbox` itself, hear its reports without a link message
(`release`), or do all of that alone as long as nothing else is waiting (`only_direct`); everything else it says and
hears in link messages, like any other.

Order of a query and commands in one drain: the answer shows the effect of every command of the same session
that came before it and of none that came after. Against commands of other sessions a query may be answered
at any one point of the drain, as if they had arrived a moment earlier or later; it costs no batch of its own.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from zexchange.engine_types import MatchingEngine
from zexchange.limits import ACCOUNT_NONE, EXECUTION_REPORT_BYTES
from zexchange.log import journal
from zexchange.log.journal import ChainState
from zexchange.matcher import link
from zexchange.matcher.inbox import FRAMES, NO_LINK, REFUSED, Inbox
from zexchange.matcher.link import Kind
from zexchange.matcher.queries import QueryDesk, RecentTrades
from zexchange.matcher.routes import Routes, RoutesFull
from zexchange.matcher.sealing import seal_with
from zexchange.wire.messages import (
    BalancesRequest,
    BookRequest,
    DefinitionsRequest,
    Durability,
    EpochOpen,
    ExecType,
    NotApplied,
    OpenOrdersRequest,
    ReasonCode,
    ShardStatusRequest,
    TimePassed,
    TradesRequest,
    WireError,
    decode,
)

ANSWERS_PER_DRAIN_MAX = 128
"""Queries and logons answered with one drain: an answer can take a tenth of a millisecond, and orders wait
meanwhile."""

_TIME_PASSED = TimePassed().encode()
_EXEC_TYPE_OFFSET = 157
_BINDS_KEYS = (int(ExecType.ACCOUNT_OPENED), int(ExecType.KEY_REGISTERED))
_ASKS = frozenset({int(Kind.OPEN), int(Kind.QUERY)})
_ACK = 0
"""In the queue, behind the last entry of a message: everything of this message has been dealt with."""

Release = tuple[bytes, bytes]
"""Identity of an ingress, message for it."""


class Batch(NamedTuple):
    """One batch for the log."""

    first_record_no: int
    raw: bytes


class _Session:
    __slots__ = ("account_id", "public_key", "slot")

    def __init__(self, slot: int, public_key: bytes) -> None:
        self.slot = slot
        self.public_key = public_key
        self.account_id: int | None = None


class _Link:
    __slots__ = ("acked", "alive", "identity", "next_seq", "number", "outbox", "sessions")

    def __init__(self, number: int, identity: bytes, instance: int) -> None:
        self.number = number
        self.identity = identity
        self.outbox = link.Outbox(instance)
        self.next_seq = 1
        self.acked = 0
        self.sessions: dict[int, _Session] = {}
        self.alive = True


_Item = tuple[_Link, int, int, bytes]
"""Link, kind, session id (of `_ACK`: sequence number; of FRAMES: how many), payload."""


class MatcherCore:
    """One shard. `state` and `engine` come from recovery; `open_epoch` comes first, then `receive` and
    `drain`.

    Frames are checked when they come in: an ingress has made sure that they are well-formed, and a matcher that
    is to apply them makes sure again, since a frame in the log cannot be taken back.
    """

    def __init__(
        self,
        engine: MatchingEngine,
        state: ChainState,
        epoch: int,
        trades: RecentTrades,
        *,
        accounts_max: int,
        durability: Durability,
        max_batch_bytes: int = journal.MAX_BATCH_BYTES,
        max_sessions_per_account: int = 16,
    ) -> None:
        """`max_sessions_per_account`: each of them is sent every report of the account. A key without an account may
        have as many."""
        self._engine = engine
        self._epoch = epoch
        self._tip = state
        self._direct_frames = 0
        """Frames at the end of the inbox that are in no item of the queue, which is then empty."""
        self._direct_link: _Link | None = None
        """Over which they count as sent."""
        self._drained: tuple[list[_Item], bytes, int] | None = None
        """Of the batch in flight: what is to be handled with it, its events, its first record."""
        self.seal = seal_with(engine, epoch, state.chain)
        self._trades = trades
        self.inbox = Inbox()
        self.max_body_bytes = max_batch_bytes - journal.BATCH_HEADER_BYTES - journal.BATCH_TRAILER_BYTES
        self._desk = QueryDesk(engine, trades, lambda: epoch, durability)
        self._queue: deque[_Item] = deque()
        self._links: dict[bytes, _Link] = {}
        self._by_number: dict[int, _Link] = {}
        self._next_link = 0
        self.routes = Routes(accounts_max)
        self._time_passes = False
        """The next record only moves log time."""
        self._unbound: dict[bytes, list[_Session]] = {}
        self._sessions_of: Counter[int] = Counter()
        """Sessions by account."""
        self._max_sessions_per_account = max_sessions_per_account
        self._unknown: list[Release] = []

    @property
    def queued(self) -> int:
        """Frames and other entries received and not dealt with: the shell stops receiving while there are too
        many."""
        return len(self._queue) + len(self.inbox)

    @property
    def has_room(self) -> bool:
        """`receive` may be called."""
        return self.inbox.has_room

    @property
    def pending(self) -> bool:
        """A drain has something to do."""
        return bool(self._direct_frames or self._queue or self._unknown or self._time_passes)

    @property
    def next_due_ns(self) -> int | None:
        """Time from which on `let_time_pass` makes something happen: 0 if it would at once; None if nothing is ahead.

        Log time may be ahead of the clock, and what may happen at the next record does not wait for the clock.
        """
        due_ns = self._engine.next_due_ns
        return 0 if due_ns is not None and due_ns <= self._engine.log_time_ns + 1 else due_ns

    def let_time_pass(self) -> None:
        """The next drain is a record that only moves log time."""
        self._time_passes = True

    @property
    def sessions(self) -> int:
        return len(self.routes)

    def open_epoch(self, now_ns: int) -> Batch:
        """The batch that opens our epoch, naming the tip behind which it begins."""
        frame = EpochOpen(
            epoch=self._epoch,
            tip_epoch=self._tip.epoch,
            tip_record_no=self._tip.next_record_no - 1,
            tip_chain=self._tip.chain,
        ).encode()
        sealed = self.seal.apply(frame, now_ns)
        return Batch(sealed.first_record_no, sealed.batch)

    def receive(self, identity: bytes, message: bytes) -> None:
        """Queue the entries of one link message; only while there is room. Raises `LinkMessageInvalid`; then
        nothing of it was taken."""
        instance, seq, _ = link.header(message)
        of = self._links.get(identity)
        if of is None or of.outbox.instance != instance:
            if seq != 1:
                self._answer_unknown(identity, instance)
                return
            if of is not None:
                self._drop(of)
            of = _Link(self._next_link, identity, instance)
            self._next_link += 1
            self._links[identity] = self._by_number[of.number] = of
        elif seq != of.next_seq:
            self._drop(of)
            self._answer_unknown(identity, instance)
            return
        queue = self._queue
        if self._direct_frames:
            assert self._direct_link is not None
            queue.append((self._direct_link, FRAMES, self._direct_frames, b""))
            self._direct_frames = 0
        for kind, session_id, payload, count in self.inbox.receive(of.number, message):
            if kind == FRAMES:
                queue.append((of, FRAMES, count, b""))
            elif kind == REFUSED:
                queue.append((of, REFUSED, session_id, NotApplied(reason=ReasonCode(count)).encode()))
            else:
                queue.append((of, kind, session_id, payload))
        of.next_seq = seq + 1
        queue.append((of, _ACK, seq, b""))

    def lost(self, identity: bytes) -> None:
        """The ingress cannot be reached any more: forget its sessions."""
        of = self._links.get(identity)
        if of is not None:
            self._drop(of)

    def link_number(self, identity: bytes) -> int | None:
        """The number under which `inbox` and reports know an ingress; None before its first message."""
        of = self._links.get(identity)
        return None if of is None else of.number

    @property
    def only_direct(self) -> bool:
        """Nothing but frames of the ingress in this thread is waiting: the ingress may have them applied, and hand
        out their reports, itself. Before the reports of a batch that registers keys it calls `keys_registered`."""
        return not (self._queue or self._unknown or self._time_passes)

    def direct_frames_added(self, identity: bytes, count: int) -> None:
        """The one ingress in this thread has put so many well-formed, verified frames into the inbox.

        If nothing else was waiting it may have had frames applied, too.
        """
        if self._queue:
            if count:
                self._queue.append((self._links[identity], FRAMES, count, b""))
        else:
            self._direct_frames = len(self.inbox)
            self._direct_link = self._links.get(identity)

    def applied_elsewhere(self, first_record_no: int, events: bytes) -> None:
        """A batch that the ingress in this thread has had applied, and which is now to be released here."""
        assert self._drained is None, "one batch is in flight at a time"
        self._drained = [], events, first_record_no

    def saw_trades(self, events: bytes) -> None:
        """Trades of batches that were released elsewhere."""
        self._trades.observe(events)

    def add_reports(self, number: int, entries: memoryview) -> None:
        """REPORTS entries for the link with this number, of batches that were released elsewhere."""
        of = self._by_number.get(number)
        if of is not None:
            of.outbox.add(bytes(entries))

    def drain(self, now_ns: int) -> Batch | None:
        """Deal with what is queued, up to one full batch. `now_ns`: wall clock, used as log time if it
        advances.

        Without a batch nothing has to be waited for: `release` may be called at once. It must be called before
        the next drain.
        """
        assert self._drained is None, "one batch is in flight at a time"
        if self._time_passes:
            self._time_passes = False
            self.inbox.commit(0)  # no frame of it is in this batch
            batch, first_record_no, _, events = self.seal.apply(_TIME_PASSED, now_ns)
            self._drained = [], events, first_record_no
            return Batch(first_record_no, batch)
        inbox = self.inbox
        direct = self._direct_frames
        if direct:
            taken: list[_Item] = []
            frames = inbox.take(direct, self.max_body_bytes, NO_LINK, [])
        else:
            taken = self._take()
            frames = inbox.taken
        if not frames:
            self._drained = taken, b"", 0
            return None
        batch, first_record_no, applied, events = self.seal.apply_taken(inbox, now_ns)
        if direct:
            self._direct_frames = direct - applied
        elif applied < frames:
            taken = self._put_back(taken, applied)
        self._drained = taken, events, first_record_no
        return Batch(first_record_no, batch)

    def release(
        self, direct: int | None = None, hear: Callable[[memoryview], None] | None = None
    ) -> list[Release]:
        """What may leave now that the batch of the last drain is durable.

        `hear` gets the REPORTS entries of the link with the number `direct` beforehand, in views that are valid
        during the call.
        """
        drained, self._drained = self._drained, None
        if drained is not None:
            taken, events, first_record_no = drained
            if events:
                self._report(events, first_record_no, direct, hear)
            for item in taken:
                if item[1] != FRAMES:
                    self._handle(item)
        return self.outgoing()

    def outgoing(self) -> list[Release]:
        """What is in the outboxes; all of it may leave."""
        releases, self._unknown = self._unknown, []
        for of in self._links.values():
            if of.outbox:
                releases += [(of.identity, message) for message in of.outbox.take(of.acked)]
        return releases

    def _take(self) -> list[_Item]:
        """Put frames for the next batch into the inbox's body; returns all items to finish with it. What comes
        before any frame is handled here."""
        inbox = self.inbox
        taken: list[_Item] = []
        answers = 0
        frames = False
        asked: list[tuple[int, int]] = []
        queue = self._queue
        while queue:
            item = queue[0]
            of, kind, session_id, _ = item
            if kind == FRAMES:
                count = session_id
                # Of a link's sessions, those that asked something before: what they send next comes after the
                # answer.
                sessions = [asker for number, asker in asked if number == of.number] if asked else []
                took = inbox.take(count, self.max_body_bytes, of.number, sessions)
                if took:
                    frames = True
                    taken.append((of, FRAMES, took, b""))
                if took < count:
                    queue[0] = (of, FRAMES, count - took, b"")
                    break
            else:
                if kind in _ASKS:
                    if answers == ANSWERS_PER_DRAIN_MAX:
                        break
                    answers += 1
                if not frames:
                    self._handle(item)
                else:
                    taken.append(item)
                    if kind != _ACK:
                        asked.append((of.number, session_id))
            queue.popleft()
        return taken

    def _put_back(self, taken: list[_Item], applied: int) -> list[_Item]:
        """Return what comes behind the first `applied` frames to the head of the queue; the engine had no
        more room."""
        for index, (of, kind, count, _) in enumerate(taken):
            if kind != FRAMES:
                continue
            if applied < count:
                rest = [(of, FRAMES, count - applied, b""), *taken[index + 1 :]]
                self._queue.extendleft(reversed(rest))
                return [*taken[:index], (of, FRAMES, applied, b"")] if applied else taken[:index]
            applied -= count
        return taken

    def _report(
        self,
        events: bytes,
        first_record_no: int,
        direct: int | None,
        hear: Callable[[memoryview], None] | None,
    ) -> None:
        """Hand every event to the sessions of its account; to its sender alone if the key has no account."""
        if self._unbound:
            exec_types = events[_EXEC_TYPE_OFFSET::EXECUTION_REPORT_BYTES]
            if any(exec_type in exec_types for exec_type in _BINDS_KEYS):
                self.keys_registered()
        self._trades.observe(events)
        by_number = self._by_number
        for number, entries in self.routes.collect(events, self.inbox.origins, first_record_no):
            of = by_number.get(number)
            # Not past what waits in the outbox: answers to what was asked before.
            if hear is not None and number == direct and not (of is not None and of.outbox):
                hear(entries)
            elif of is not None:  # else the sender's ingress is gone
                of.outbox.add(bytes(entries))

    def _handle(self, item: _Item) -> None:
        """Deal with anything but a batch."""
        of, kind, session_id, payload = item
        if not of.alive:
            return
        if kind == _ACK:
            of.acked = session_id
        elif kind == Kind.OPEN:
            self._open(of, session_id, payload)
        elif kind == Kind.CLOSE:
            self._close(of, session_id)
        elif kind == Kind.QUERY:
            self._query(of, session_id, payload)
        elif kind == REFUSED:
            self._to_session(of, session_id, payload)
        elif kind == Kind.PING:
            of.outbox.add(link.entry(Kind.PONG, 0, link.PONG.pack(self._epoch)))

    def _open(self, of: _Link, session_id: int, public_key: bytes) -> None:
        self._close(of, session_id)
        account_id = self._engine.account_of_key(public_key)
        unbound = self._unbound.get(public_key, ())
        there = len(unbound) if account_id is None else self._sessions_of[account_id]
        if there >= self._max_sessions_per_account:
            rejected = link.REJECTED.pack(ReasonCode.SESSION_LIMIT)
            of.outbox.add(link.entry(Kind.REJECTED, session_id, rejected))
            return
        try:
            slot = self.routes.add(of.number, session_id)
        except RoutesFull:
            return  # the logon stays unanswered, and the ingress ends it in time
        session = of.sessions[session_id] = _Session(slot, public_key)
        report_seq = 0
        if account_id is None:
            self._unbound.setdefault(public_key, []).append(session)
        else:
            self._bind(session, account_id)
            report_seq = self._engine.report_seq(account_id)
        opened = link.OPENED.pack(ACCOUNT_NONE if account_id is None else account_id, report_seq)
        of.outbox.add(link.entry(Kind.OPENED, session_id, opened))

    def _bind(self, session: _Session, account_id: int) -> None:
        session.account_id = account_id
        self._sessions_of[account_id] += 1
        self.routes.bind(session.slot, account_id)

    def keys_registered(self) -> None:
        """A durable batch has registered keys: sessions that were there before get their account's reports from now
        on, those of this batch among them."""
        for public_key in list(self._unbound):
            account_id = self._engine.account_of_key(public_key)
            if account_id is not None:
                for session in self._unbound.pop(public_key):
                    self._bind(session, account_id)

    def _close(self, of: _Link, session_id: int) -> None:
        session = of.sessions.pop(session_id, None)
        if session is None:
            return
        self.routes.remove(session.slot)
        if session.account_id is None:
            others = [other for other in self._unbound[session.public_key] if other is not session]
            if others:
                self._unbound[session.public_key] = others
            else:
                del self._unbound[session.public_key]
        elif self._sessions_of[session.account_id] == 1:
            del self._sessions_of[session.account_id]
        else:
            self._sessions_of[session.account_id] -= 1

    def _query(self, of: _Link, session_id: int, frame: bytes) -> None:
        session = of.sessions.get(session_id)
        if session is None:
            return
        try:
            query = decode(frame)
        except WireError as error:
            self._to_session(of, session_id, NotApplied(reason=error.reason).encode())
            return
        if not isinstance(
            query,
            BalancesRequest
            | OpenOrdersRequest
            | BookRequest
            | TradesRequest
            | ShardStatusRequest
            | DefinitionsRequest,
        ):
            self._to_session(of, session_id, NotApplied(reason=ReasonCode.TEMPLATE_UNKNOWN).encode())
            return
        self._to_session(of, session_id, self._desk.answer(query, session.account_id).encode())

    def _to_session(self, of: _Link, session_id: int, frame: bytes) -> None:
        if session_id in of.sessions:
            of.outbox.add(link.entry(Kind.FRAME, session_id, frame))

    def _answer_unknown(self, identity: bytes, instance: int) -> None:
        header = link.HEADER.pack(instance, 0, 0)
        self._unknown.append((identity, header + link.entry(Kind.UNKNOWN)))

    def _drop(self, of: _Link) -> None:
        for session_id in list(of.sessions):
            self._close(of, session_id)
        of.alive = False
        del self._links[of.identity]
        del self._by_number[of.number]
