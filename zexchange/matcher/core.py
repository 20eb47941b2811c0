"""The matcher without sockets, store and clock: link messages in, one log batch and the messages that wait
for it out.

A drain takes what has arrived, in order of arrival, until a batch is full, and gives all of it to the engine
in one call. What leaves the matcher because of a drain, reports and answers alike, comes back as releases,
and the shell sends them only after the store has the drain's batch. So nobody ever learns of a state that
could still be lost.

Order of a query and commands in one drain: the answer shows the effect of every command of the same session
that came before it and of none that came after. Against commands of other sessions a query may be answered
at any one point of the drain, as if they had arrived a moment earlier or later; it costs no batch of its own.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from zexchange.engine_types import MatchingEngine
from zexchange.limits import ACCOUNT_NONE, EXECUTION_REPORT_BYTES
from zexchange.log import journal
from zexchange.log.journal import ChainState
from zexchange.matcher import link
from zexchange.matcher.link import Kind
from zexchange.matcher.queries import QueryDesk, RecentTrades
from zexchange.wire.messages import (
    BalancesRequest,
    BookRequest,
    Durability,
    EpochOpen,
    ExecType,
    NotApplied,
    OpenOrdersRequest,
    ReasonCode,
    ShardStatusRequest,
    TradesRequest,
    WireError,
    decode,
    execution_report_frame_prefix,
)

ANSWERS_PER_DRAIN_MAX = 128
"""Queries and logons answered with one drain: an answer can take a tenth of a millisecond, and orders wait
meanwhile."""

_ROUTE = struct.Struct("<Q16xQ125xB10x")
assert _ROUTE.size == EXECUTION_REPORT_BYTES
_REPORT_FRAME_BYTES = len(execution_report_frame_prefix) + EXECUTION_REPORT_BYTES
_BINDS_KEYS = (ExecType.ACCOUNT_OPENED, ExecType.KEY_REGISTERED)
_ACK = 0
"""In the queue, behind the last entry of a message: everything of this message has been dealt with."""

K = TypeVar("K")

Release = tuple[bytes, bytes]
"""Identity of an ingress, message for it."""


class Drain(NamedTuple):
    """Result of one drain. `batch` is None if no command was in it; then the releases may go out at once."""

    batch: bytes | None
    first_record_no: int
    releases: list[Release]
    more: bool
    """Something is still queued: drain again without waiting for new messages."""


class _Session:
    __slots__ = ("account_id", "link", "public_key", "report_head")

    def __init__(self, of: _Link, session_id: int, public_key: bytes) -> None:
        self.link = of
        self.public_key = public_key
        self.account_id: int | None = None
        self.report_head = (
            link.ENTRY_HEADER.pack(_REPORT_FRAME_BYTES, Kind.FRAME, session_id)
            + execution_report_frame_prefix
        )


class _Link:
    __slots__ = ("acked", "alive", "identity", "next_seq", "outbox", "sessions")

    def __init__(self, identity: bytes, instance: int) -> None:
        self.identity = identity
        self.outbox = link.Outbox(instance)
        self.next_seq = 1
        self.acked = 0
        self.sessions: dict[int, _Session] = {}
        self.alive = True


_Item = tuple[_Link, int, int, bytes]
"""Link, kind, session id (of `_ACK`: sequence number), payload."""


class MatcherCore:
    """One shard. `state` and `engine` come from recovery; `open_epoch` comes first, then `receive` and
    `drain`.

    `check_frame` says whether a frame is a well-formed signed batch: an ingress has made sure, and a matcher
    that is to apply it makes sure again, since a frame in the log cannot be taken back.
    """

    def __init__(
        self,
        engine: MatchingEngine,
        state: ChainState,
        epoch: int,
        trades: RecentTrades,
        *,
        check_frame: Callable[[bytes], ReasonCode],
        durability: Durability,
        max_batch_bytes: int = journal.MAX_BATCH_BYTES,
    ) -> None:
        self._engine = engine
        self._epoch = epoch
        self._tip = state
        self._chain = state.chain
        self._trades = trades
        self._check_frame = check_frame
        self._max_body_bytes = max_batch_bytes - journal.BATCH_HEADER_BYTES - journal.BATCH_TRAILER_BYTES
        self._desk = QueryDesk(engine, trades, lambda: epoch, durability)
        self._queue: deque[_Item] = deque()
        self._links: dict[bytes, _Link] = {}
        self._by_account: dict[int, list[_Session]] = {}
        self._unbound: dict[bytes, list[_Session]] = {}
        self._unknown: list[Release] = []

    @property
    def queued(self) -> int:
        """Entries received and not dealt with: the shell stops receiving while there are too many."""
        return len(self._queue)

    @property
    def sessions(self) -> int:
        return sum(len(of.sessions) for of in self._links.values())

    def open_epoch(self, now_ns: int) -> Drain:
        """The batch that opens our epoch, naming the tip behind which it begins."""
        frame = EpochOpen(
            epoch=self._epoch,
            tip_epoch=self._tip.epoch,
            tip_record_no=self._tip.next_record_no - 1,
            tip_chain=self._tip.chain,
        ).encode()
        batch, first_record_no, _, applied = self._apply(frame, now_ns)
        assert applied == 1
        return Drain(batch, first_record_no, [], False)

    def receive(self, identity: bytes, message: bytes) -> None:
        """Queue the entries of one link message. Raises `LinkMessageInvalid`; then nothing of it was
        taken."""
        decoded = link.decode(message)
        of = self._links.get(identity)
        if of is None or of.outbox.instance != decoded.instance:
            if decoded.seq != 1:
                self._answer_unknown(identity, decoded.instance)
                return
            if of is not None:
                self._drop(of)
            of = self._links[identity] = _Link(identity, decoded.instance)
        elif decoded.seq != of.next_seq:
            self._drop(of)
            self._answer_unknown(identity, decoded.instance)
            return
        of.next_seq = decoded.seq + 1
        self._queue.extend((of, *item) for item in decoded.entries)
        self._queue.append((of, _ACK, decoded.seq, b""))

    def lost(self, identity: bytes) -> None:
        """The ingress cannot be reached any more: forget its sessions."""
        of = self._links.get(identity)
        if of is not None:
            self._drop(of)

    def drain(self, now_ns: int) -> Drain:
        """Deal with what is queued, up to one full batch. `now_ns`: wall clock, used as log time if it
        advances."""
        batch, first_record_no = None, 0
        frames, taken = self._take()
        if frames:
            origins = [item for item in taken if item[1] == Kind.BATCH]
            batch, first_record_no, events, applied = self._apply(b"".join(frames), now_ns)
            if applied < len(frames):
                taken = self._put_back(taken, applied)
            self._report(events, first_record_no, origins)
        for item in taken:
            if item[1] != Kind.BATCH:
                self._handle(item)
        releases, self._unknown = self._unknown, []
        for of in self._links.values():
            if of.outbox:
                releases += [(of.identity, message) for message in of.outbox.take(of.acked)]
        return Drain(batch, first_record_no, releases, bool(self._queue))

    def _take(self) -> tuple[list[bytes], list[_Item]]:
        """Frames for the next batch, and all items to finish with it. What comes before any frame is handled
        here."""
        frames: list[bytes] = []
        taken: list[_Item] = []
        answers = 0
        body_bytes = 0
        asked: set[tuple[bytes, int]] = set()
        queue = self._queue
        while queue:
            item = queue[0]
            of, kind, session_id, payload = item
            if kind == Kind.BATCH:
                if asked and (of.identity, session_id) in asked:
                    break
                reason = self._check_frame(payload)
                if reason != ReasonCode.NONE:
                    self._to_session(of, session_id, NotApplied(reason=reason).encode())
                    queue.popleft()
                    continue
                if body_bytes + len(payload) > self._max_body_bytes:
                    break
                body_bytes += len(payload)
                frames.append(payload)
                taken.append(item)
            else:
                if kind in (Kind.QUERY, Kind.OPEN):
                    if answers == ANSWERS_PER_DRAIN_MAX:
                        break
                    answers += 1
                if not frames:
                    self._handle(item)
                else:
                    taken.append(item)
                    if kind != _ACK:
                        asked.add((of.identity, session_id))
            queue.popleft()
        return frames, taken

    def _put_back(self, taken: list[_Item], applied: int) -> list[_Item]:
        """Return what comes behind the first `applied` frames to the head of the queue; the engine had no
        more room."""
        frames = 0
        for index, item in enumerate(taken):
            if item[1] == Kind.BATCH:
                if frames == applied:
                    self._queue.extendleft(reversed(taken[index:]))
                    return taken[:index]
                frames += 1
        return taken

    def _apply(self, body: bytes, now_ns: int) -> tuple[bytes, int, bytes, int]:
        """The batch, its first record, its events, and how many frames the engine took."""
        engine = self._engine
        first_record_no, first_seq = engine.next_record_no, engine.next_seq
        log_time_ns = max(engine.log_time_ns + 1, now_ns)
        applied = engine.apply(body, log_time_ns)
        assert applied.records > 0, "the event buffer has room for any one frame"
        events = bytes(applied.events)
        batch = journal.encode_batch(
            shard=engine.shard,
            epoch=self._epoch,
            first_record_no=first_record_no,
            first_seq=first_seq,
            count=applied.records,
            log_time_ns=log_time_ns,
            chain_before=self._chain,
            body=body[: applied.consumed_bytes],
            events_hash=journal.events_hash(events),
        )
        self._chain = journal.chain_after_of(batch)
        return batch, first_record_no, events, applied.records

    def _report(self, events: bytes, first_record_no: int, origins: list[_Item]) -> None:
        """Hand every event to the sessions of its account; to its sender alone if the key has no account."""
        routes = list(_ROUTE.iter_unpack(events))
        if self._unbound and any(exec_type in _BINDS_KEYS for _, _, exec_type in routes):
            self._bind_registered()
        self._trades.observe(events)
        by_account = self._by_account
        offset = 0
        for account_id, record_no, _ in routes:
            block = events[offset : offset + EXECUTION_REPORT_BYTES]
            offset += EXECUTION_REPORT_BYTES
            if account_id == ACCOUNT_NONE:
                of, _, session_id, _ = origins[record_no - first_record_no]
                self._to_session(of, session_id, execution_report_frame_prefix + block)
                continue
            for session in by_account.get(account_id, ()):
                session.link.outbox.add(session.report_head + block)

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
        elif kind == Kind.PING:
            of.outbox.add(link.entry(Kind.PONG, 0, link.PONG.pack(self._epoch)))

    def _open(self, of: _Link, session_id: int, public_key: bytes) -> None:
        self._close(of, session_id)
        session = of.sessions[session_id] = _Session(of, session_id, public_key)
        account_id = self._engine.account_of_key(public_key)
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
        self._by_account.setdefault(account_id, []).append(session)

    def _bind_registered(self) -> None:
        """Sessions that were there before their key was registered get their account's reports from now
        on."""
        for public_key in list(self._unbound):
            account_id = self._engine.account_of_key(public_key)
            if account_id is not None:
                for session in self._unbound.pop(public_key):
                    self._bind(session, account_id)

    def _close(self, of: _Link, session_id: int) -> None:
        session = of.sessions.pop(session_id, None)
        if session is None:
            return
        if session.account_id is None:
            _remove(self._unbound, session.public_key, session)
        else:
            _remove(self._by_account, session.account_id, session)

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
            query, BalancesRequest | OpenOrdersRequest | BookRequest | TradesRequest | ShardStatusRequest
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


def _remove(table: dict[K, list[_Session]], key: K, session: _Session) -> None:
    rest = [other for other in table[key] if other is not session]
    if rest:
        table[key] = rest
    else:
        del table[key]
