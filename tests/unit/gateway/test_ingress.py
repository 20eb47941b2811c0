"""The ingress core: what clients send, what reaches the matchers, what is refused with which reason. Time is
given."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from nacl.signing import SigningKey

from gateway.admission import AdmissionLimits
from gateway.ingress import (
    FRAMES_PER_VISIT,
    VERIFIED_PER_TURN_MAX,
    WAITING_MAX,
    Connection,
    Ingress,
    IngressSettings,
)
from gateway.links import QUERIES_IN_FLIGHT_MAX, ShardLink
from tests.model import kit
from zexchange.frames import scan_batches
from zexchange.limits import ACCOUNT_NONE
from zexchange.matcher import link
from zexchange.matcher.link import Entry, Kind
from zexchange.wire import signing
from zexchange.wire.framing import FrameSplitter
from zexchange.wire.messages import (
    BalancesRequest,
    BookRequest,
    Challenge,
    DefinitionsRequest,
    Durability,
    EpochOpen,
    Establish,
    EstablishmentAck,
    EstablishmentReject,
    ExecutionReport,
    Genesis,
    GenesisRequest,
    Message,
    NotApplied,
    OpenOrdersRequest,
    OperatorBatch,
    OperatorCommand,
    OperatorCommandKind,
    QueryReject,
    ReasonCode,
    SessionOptions,
    ShardStatus,
    ShardStatusRequest,
    Side,
    SignedBatch,
    Terminate,
    TradesRequest,
    WireError,
    decode,
)
from zexchange.wire.messages import Sequence as Heartbeat
from zexchange.wire.session import SessionSettings

GENESIS = kit.small_genesis()
ALICE = SigningKey(b"a" * 32)
MALLORY = SigningKey(b"m" * 32)
HEARTBEAT_MS = 10_000
SETTINGS = IngressSettings(
    session=SessionSettings(establish_timeout_ms=3_000, frame_timeout_ms=1_000, max_strikes=3),
    max_in_flight_bytes=100_000,
)


def check_frame(frame: bytes) -> ReasonCode:
    try:
        decode(frame)
    except WireError as error:
        return error.reason
    return ReasonCode.NONE


class Bench:
    """An ingress, a matcher that answers nothing but logons and pings, and clients."""

    def __init__(self, settings: IngressSettings = SETTINGS, *, join: bool = True) -> None:
        self.now_ms = 1_000_000
        self.link = ShardLink(0, 500, settings.max_in_flight_bytes)
        self.verified: list[int] = []
        self.ingress = Ingress(
            settings,
            GENESIS,
            [self.link],
            verify=self.verify,
            check_batch=check_frame,
            scan_batches=scan_batches,
        )
        self.seen: list[Entry] = []
        self.instance = self.matcher_seq = self.matcher_seen = 0
        self.answering = True
        self.accounts: dict[bytes, tuple[int, int]] = {bytes(ALICE.verify_key): (7, 40)}
        if join:
            self.turn()
            self.turn()

    def verify(self, frames: Sequence[bytes], deployment_id: bytes) -> list[bool]:
        self.verified.append(len(frames))
        verdicts = []
        for frame in frames:
            try:
                signing.verify_batch(frame, deployment_id)
                verdicts.append(True)
            except WireError:
                verdicts.append(False)
        return verdicts

    def turn(self) -> list[Connection]:
        """One loop turn: timers, then out to the matcher, whose answers come in at the next turn's begin."""
        self.ingress.tick(self.now_ms)
        touched = self.ingress.end_turn(self.now_ms)
        for connection in touched:
            client = connection.handle
            if isinstance(client, Client):
                client.hear(connection.session.take_output())
        answers: list[bytes] = []
        while self.link.unsent:
            decoded = link.decode(self.link.unsent.popleft())
            if decoded.instance != self.instance:
                self.instance, self.matcher_seq = decoded.instance, 0
            self.matcher_seen = decoded.seq
            for entry in decoded.entries:
                if entry.kind == Kind.PING:
                    answers.append(link.entry(Kind.PONG, 0, link.PONG.pack(1)))
                elif entry.kind == Kind.OPEN:
                    opened = self.accounts.get(entry.payload, (ACCOUNT_NONE, 0))
                    answers.append(link.entry(Kind.OPENED, entry.session_id, link.OPENED.pack(*opened)))
                    self.seen.append(entry)
                else:
                    self.seen.append(entry)
        if answers and self.answering:
            self.say(*answers)
        return touched

    def say(self, *entries: bytes) -> None:
        self.matcher_seq += 1
        header = link.HEADER.pack(self.instance, self.matcher_seq, self.matcher_seen)
        self.ingress.link_message(0, header + b"".join(entries), server_time_ns=5, now_ms=self.now_ms)

    def client(self, key: SigningKey = ALICE, ip: str = "10.0.0.1", *, logon: bool = True) -> Client:
        client = Client(self, key, ip)
        self.turn()
        if logon and client.connection is not None:
            client.logon()
        return client

    def batches(self) -> list[bytes]:
        """Batch frames the matcher has received since the last call."""
        found = [entry.payload for entry in self.seen if entry.kind == Kind.BATCH]
        self.seen = [entry for entry in self.seen if entry.kind != Kind.BATCH]
        return found

    def kinds(self) -> list[Kind]:
        found = [Kind(entry.kind) for entry in self.seen]
        self.seen.clear()
        return found


class Client:
    """Bytes on one connection."""

    def __init__(self, bench: Bench, key: SigningKey, ip: str) -> None:
        self.bench = bench
        self.key = key
        self.splitter = FrameSplitter(2**24)
        self.heard: list[Message] = []
        made = bench.ingress.connected(ip, challenge=b"c" * 32, server_time_ns=3, now_ms=bench.now_ms)
        self.connection: Connection | None = None
        if isinstance(made, bytes):
            self.hear(made)
        else:
            self.connection = made
            made.handle = self

    @property
    def live(self) -> Connection:
        assert self.connection is not None
        return self.connection

    def hear(self, data: bytes) -> None:
        self.heard += [decode(frame) for frame in self.splitter.feed(data)]

    def send(self, data: bytes) -> None:
        self.bench.ingress.received(self.live, data, server_time_ns=4, now_ms=self.bench.now_ms)

    def exchange(self, data: bytes = b"") -> list[Message]:
        """Send, let a turn pass, and say what came back."""
        if data:
            self.send(data)
        self.bench.turn()
        self.bench.turn()
        heard, self.heard = self.heard, []
        return heard

    def establish(self, **fields: int) -> bytes:
        establish = Establish(challenge=b"c" * 32, heartbeat_interval_ms=HEARTBEAT_MS)
        for name, value in fields.items():
            setattr(establish, name, value)
        return signing.sign_establish(establish, self.key, GENESIS.deployment_id)

    def logon(self) -> EstablishmentAck:
        assert isinstance(self.heard.pop(0), Challenge)
        (ack,) = self.exchange(self.establish())
        assert isinstance(ack, EstablishmentAck)
        return ack

    def order(self, nonce: int, key: SigningKey | None = None, shard: int = 0) -> bytes:
        batch = SignedBatch(nonce=nonce, shard=shard, commands=[kit.order(Side.BUY, 1, 100)])
        return signing.sign_batch(batch, key or self.key, GENESIS.deployment_id)


def forged(frame: bytes) -> bytes:
    """The frame with another signature."""
    return frame[:20] + bytes([frame[20] ^ 1]) + frame[21:]


@pytest.fixture
def bench() -> Bench:
    return Bench()


# ------------------------------------------------ logon ------------------------------------------------


def test_logon_asks_the_matcher_and_tells_the_client(bench: Bench) -> None:
    client = Client(bench, ALICE, "10.0.0.1")
    bench.turn()
    (challenge,) = client.heard
    assert challenge == Challenge(deployment_id=GENESIS.deployment_id, challenge=b"c" * 32, server_time_ns=3)
    ack = client.logon()
    assert [(s.shard, s.account_id, s.report_seq) for s in ack.shards] == [(0, 7, 40)]
    assert (ack.heartbeat_interval_ms, ack.durability) == (HEARTBEAT_MS, 1)
    (opened,) = bench.seen
    assert (opened.kind, opened.payload) == (Kind.OPEN, bytes(ALICE.verify_key))


def test_unregistered_key_may_log_on(bench: Bench) -> None:
    client = Client(bench, MALLORY, "10.0.0.1")
    bench.turn()
    assert client.logon().shards[0].account_id == ACCOUNT_NONE


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"options": SessionOptions.CANCEL_ON_DISCONNECT}, ReasonCode.CANCEL_ON_DISCONNECT_UNAVAILABLE),
        ({"heartbeat_interval_ms": 99}, ReasonCode.HEARTBEAT_INTERVAL_INVALID),
        ({"heartbeat_interval_ms": 60_001}, ReasonCode.HEARTBEAT_INTERVAL_INVALID),
        ({"challenge": b"d" * 32}, ReasonCode.SIGNATURE_INVALID),
    ],
)
def test_bad_logon_is_rejected(bench: Bench, fields: dict[str, int], reason: ReasonCode) -> None:
    client = bench.client(logon=False)
    client.heard.clear()
    assert client.exchange(client.establish(**fields)) == [EstablishmentReject(reason=reason)]
    assert client.live.ended is reason
    assert bench.kinds() == []


def test_logon_signed_by_another_key_is_rejected(bench: Bench) -> None:
    client = bench.client(logon=False)
    client.heard.clear()
    assert client.exchange(forged(client.establish())) == [
        EstablishmentReject(reason=ReasonCode.SIGNATURE_INVALID)
    ]


def test_logon_without_a_matcher_is_told_to_come_back() -> None:
    bench = Bench(join=False)
    client = bench.client(logon=False)
    client.heard.clear()
    bench.link.joined = False
    assert client.exchange(client.establish())[0] == EstablishmentReject(reason=ReasonCode.SERVER_BUSY)


def test_logon_the_matcher_never_answers_times_out(bench: Bench) -> None:
    bench.answering = False
    client = bench.client(logon=False)
    client.heard.clear()
    assert client.exchange(client.establish()) == []
    bench.now_ms += 3_000
    assert client.exchange() == [Terminate(reason=ReasonCode.ESTABLISH_TIMEOUT)]
    assert bench.kinds() == [Kind.OPEN, Kind.CLOSE]


def test_logon_that_the_matcher_rejects_is_over(bench: Bench) -> None:
    bench.answering = False
    client = bench.client(logon=False)
    client.heard.clear()
    assert client.exchange(client.establish()) == []
    rejected = link.entry(Kind.REJECTED, client.live.session_id, link.REJECTED.pack(ReasonCode.SESSION_LIMIT))
    bench.say(rejected, rejected)
    assert client.exchange() == [EstablishmentReject(reason=ReasonCode.SESSION_LIMIT)]
    assert client.live.ended is ReasonCode.SESSION_LIMIT
    assert bench.kinds() == [Kind.OPEN, Kind.CLOSE]


def test_connection_without_logon_times_out(bench: Bench) -> None:
    client = bench.client(logon=False)
    client.heard.clear()
    bench.now_ms += 2_999
    assert client.exchange() == []
    bench.now_ms += 1
    assert client.exchange() == [Terminate(reason=ReasonCode.ESTABLISH_TIMEOUT)]


def test_one_connection_too_many_is_refused() -> None:
    bench = Bench(IngressSettings(admission=AdmissionLimits(max_sessions=1)))
    first = bench.client()
    second = bench.client()
    assert second.connection is None
    assert second.heard == [EstablishmentReject(reason=ReasonCode.SESSION_LIMIT)]
    bench.ingress.disconnected(first.live)
    assert bench.client().connection is not None


def test_connections_that_say_nothing_make_room_for_those_that_come_behind_them() -> None:
    bench = Bench(IngressSettings(admission=AdmissionLimits(max_unestablished_per_ip=2)))
    silent = [bench.client(MALLORY, logon=False) for _ in range(2)]
    alice = bench.client(logon=False)
    silent[0].heard.pop(0)
    assert silent[0].heard == [EstablishmentReject(reason=ReasonCode.SESSION_LIMIT)]
    assert silent[0].live.evicted
    bench.ingress.disconnected(silent[0].live)
    assert bench.ingress.counters.refused_connections == 1
    bench.answering = False
    alice.heard.clear()
    alice.exchange(alice.establish())
    late = [bench.client(MALLORY, logon=False) for _ in range(2)]
    assert alice.live.ended is None, "it has proved its key"
    assert silent[1].live.evicted
    assert late[0].live.evicted
    assert late[1].live.ended is None
    opened = link.entry(Kind.OPENED, alice.live.session_id, link.OPENED.pack(7, 40))
    bench.say(opened)
    assert isinstance(alice.exchange()[0], EstablishmentAck)
    for client in (*silent[1:], *late, alice):
        bench.ingress.disconnected(client.live)
    assert bench.ingress.connections == bench.ingress._admission.connections == 0
    assert bench.ingress._admission._unestablished.total == 0


# ------------------------------------------------ batches ------------------------------------------------


def test_signed_batch_reaches_the_matcher_as_it_came(bench: Bench) -> None:
    client = bench.client()
    frame = client.order(1)
    assert client.exchange(frame) == []
    assert bench.batches() == [frame]


def test_all_batches_of_a_turn_are_verified_in_one_call(bench: Bench) -> None:
    first, second = bench.client(), bench.client(MALLORY)
    frames = [first.order(1), first.order(2), second.order(3)]
    bench.verified.clear()
    first.send(frames[0] + frames[1])
    second.send(frames[2])
    bench.turn()
    assert bench.verified == [3]
    assert bench.batches() == frames


@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
def test_fragments_make_the_same_frames(bench: Bench, chunk: int) -> None:
    client = bench.client()
    frames = [client.order(1), client.order(2)]
    stream = b"".join(frames)
    for start in range(0, len(stream), chunk):
        client.send(stream[start : start + chunk])
        bench.turn()
    assert bench.batches() == frames
    assert client.exchange() == []


def test_bad_signatures_are_strikes_and_the_third_ends_the_session(bench: Bench) -> None:
    client = bench.client()
    for strikes in (1, 2):
        assert client.exchange(forged(client.order(strikes))) == [
            NotApplied(nonce=strikes, reason=ReasonCode.SIGNATURE_INVALID, strikes=strikes)
        ]
    good = client.order(9)
    assert client.exchange(good) == []
    assert bench.batches() == [good]
    third, end = client.exchange(forged(client.order(3)) + client.order(4))
    assert third == NotApplied(nonce=3, reason=ReasonCode.SIGNATURE_INVALID, strikes=3)
    assert end == Terminate(reason=ReasonCode.TOO_MANY_STRIKES)
    assert bench.batches() == []
    assert client.live.ended is ReasonCode.TOO_MANY_STRIKES
    assert bench.ingress.counters.bad_signatures == 3
    again = bench.client(logon=False)
    again.heard.clear()
    assert again.exchange(again.establish()) == [EstablishmentReject(reason=ReasonCode.TOO_MANY_STRIKES)]
    bench.now_ms += 1_000
    bench.client()


def test_batch_of_another_key_or_shard_is_not_applied(bench: Bench) -> None:
    client = bench.client()
    assert client.exchange(client.order(5, MALLORY)) == [
        NotApplied(nonce=5, reason=ReasonCode.KEY_NOT_OF_SESSION)
    ]
    assert client.exchange(client.order(6, shard=1)) == [NotApplied(nonce=6, reason=ReasonCode.SHARD_UNKNOWN)]
    assert bench.batches() == []
    assert bench.verified == []


def test_operator_batch_passes_like_any_other(bench: Bench) -> None:
    client = bench.client()
    command = OperatorCommand(kind=OperatorCommandKind.DEPOSIT, account_id=1, asset_id=1, amount=5)
    frame = signing.sign_batch(OperatorBatch(nonce=1, commands=[command]), ALICE, GENESIS.deployment_id)
    assert client.exchange(frame) == []
    assert bench.batches() == [frame]


def test_full_queue_to_the_matcher_is_answered_with_busy(bench: Bench) -> None:
    client = bench.client()
    bench.link._max_in_flight_bytes = 1
    client.exchange(client.order(1))
    bench.answering = False
    assert len(bench.batches()) == 1
    assert client.exchange(client.order(2)) == [NotApplied(nonce=2, reason=ReasonCode.SERVER_BUSY)]
    busy = client.exchange(BookRequest(request_id=3, market_id=1, levels=5).encode())
    assert busy == [QueryReject(request_id=3, reason=ReasonCode.SERVER_BUSY)]
    assert bench.batches() == []
    assert bench.ingress.counters.busy == 2


def test_batch_sent_right_before_leaving_still_counts(bench: Bench) -> None:
    client = bench.client()
    frame = client.order(1)
    client.send(frame + Terminate(reason=ReasonCode.CLIENT_REQUEST).encode())
    bench.ingress.disconnected(client.live)
    bench.turn()
    assert bench.batches() == [frame]
    assert Kind.CLOSE in bench.kinds()


# ------------------------------------------------ malformed frames
# ------------------------------------------------


def patched(frame: bytes, offset: int, value: bytes) -> bytes:
    return frame[:offset] + value + frame[offset + len(value) :]


def resized(frame: bytes) -> bytes:
    """The frame with the framing length it really has."""
    return patched(frame, 0, len(frame).to_bytes(4, "big"))


ORDER = signing.sign_batch(
    SignedBatch(nonce=77, commands=[kit.order(Side.BUY, 1, 100)]), ALICE, GENESIS.deployment_id
)
GROUP_OFFSET = 14 + 108
COMMAND_OFFSET = GROUP_OFFSET + 4

MALFORMED = {
    "schema": (patched(ORDER, 10, b"\x01\x00"), ReasonCode.SCHEMA_UNKNOWN),
    "version": (patched(ORDER, 12, b"\x02\x00"), ReasonCode.VERSION_UNSUPPORTED),
    "template of nobody": (patched(ORDER, 8, b"\xff\x7f"), ReasonCode.TEMPLATE_UNKNOWN),
    "template of the server": (ExecutionReport().encode(), ReasonCode.TEMPLATE_UNKNOWN),
    "epoch open": (EpochOpen(epoch=2).encode(), ReasonCode.TEMPLATE_UNKNOWN),
    "block length": (patched(ORDER, 6, b"\x6d\x00"), ReasonCode.BLOCK_LENGTH_INVALID),
    "entry length": (patched(ORDER, GROUP_OFFSET, b"\x31\x00"), ReasonCode.GROUP_SIZE_INVALID),
    "no commands": (
        resized(patched(ORDER, GROUP_OFFSET + 2, b"\x00\x00")[:COMMAND_OFFSET]),
        ReasonCode.COMMAND_COUNT_INVALID,
    ),
    "65 commands": (
        resized(patched(ORDER, GROUP_OFFSET + 2, b"\x41\x00") + ORDER[COMMAND_OFFSET:] * 64),
        ReasonCode.COMMAND_COUNT_INVALID,
    ),
    "trailing byte": (resized(ORDER + b"\0"), ReasonCode.TRAILING_BYTES),
    "one byte short": (resized(ORDER[:-1]), ReasonCode.FRAME_TRUNCATED),
    "reserved byte": (patched(ORDER, 121, b"\x01"), ReasonCode.RESERVED_BITS_SET),
    "batch flag": (patched(ORDER, 120, b"\x02"), ReasonCode.RESERVED_BITS_SET),
    "order option": (patched(ORDER, COMMAND_OFFSET + 5, b"\x20"), ReasonCode.RESERVED_BITS_SET),
    "side": (patched(ORDER, COMMAND_OFFSET + 1, b"\x03"), ReasonCode.ENUM_VALUE_UNKNOWN),
    "command kind": (patched(ORDER, COMMAND_OFFSET, b"\x09"), ReasonCode.ENUM_VALUE_UNKNOWN),
    "query too long": (resized(GenesisRequest().encode() + b"\0"), ReasonCode.TRAILING_BYTES),
    "query too short": (resized(GenesisRequest().encode()[:-1]), ReasonCode.FRAME_TRUNCATED),
    "query reserved": (
        patched(ShardStatusRequest().encode(), 14 + 10, b"\x01"),
        ReasonCode.RESERVED_BITS_SET,
    ),
}


@pytest.mark.parametrize("name", list(MALFORMED))
def test_malformed_frame_is_not_applied_and_the_session_goes_on(bench: Bench, name: str) -> None:
    frame, reason = MALFORMED[name]
    client = bench.client()
    (answer,) = client.exchange(frame)
    assert isinstance(answer, NotApplied)
    assert answer.reason is reason
    assert answer.strikes == 0
    assert bench.verified == []
    assert bench.batches() == []
    assert client.exchange(ORDER) == []
    assert bench.batches() == [ORDER]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\0\xeb\x50", ReasonCode.FRAME_LENGTH_INVALID),
        (b"\0\0\0\x0d\xeb\x50", ReasonCode.FRAME_LENGTH_INVALID),
        (b"\0\0\x2e\x01\xeb\x50", ReasonCode.FRAME_LENGTH_INVALID),
        (b"\xff\xff\xff\xff\xeb\x50", ReasonCode.FRAME_LENGTH_INVALID),
        (b"GET / ", ReasonCode.FRAME_LENGTH_INVALID),
        (b"\0\0\0\x20\x50\xeb", ReasonCode.ENCODING_TYPE_UNKNOWN),
    ],
)
def test_broken_framing_ends_the_connection(bench: Bench, data: bytes, reason: ReasonCode) -> None:
    client = bench.client()
    frame = client.order(1)
    assert client.exchange(frame + data) == [Terminate(reason=reason)]
    assert client.live.ended is reason
    assert bench.batches() == [frame]  # what came before the fault still counts
    assert Kind.CLOSE in bench.kinds()
    assert client.exchange(frame) == []
    assert bench.batches() == []


@pytest.mark.parametrize("early", [ORDER, GenesisRequest().encode(), Heartbeat(next_seq_no=1).encode()])
def test_nothing_but_a_logon_is_accepted_first(bench: Bench, early: bytes) -> None:
    client = bench.client(logon=False)
    client.heard.clear()
    assert client.exchange(early) == [Terminate(reason=ReasonCode.NOT_ESTABLISHED)]
    assert bench.batches() == []


def test_second_logon_ends_the_session(bench: Bench) -> None:
    client = bench.client()
    assert client.exchange(client.establish()) == [Terminate(reason=ReasonCode.ALREADY_ESTABLISHED)]


def test_no_flipped_bit_of_a_batch_is_accepted(bench: Bench) -> None:
    """Every bit is bound by framing, header, frame checks or signature."""
    patient = SessionSettings(max_strikes=255)
    for position in range(len(ORDER)):
        bench = bench if position % 16 else Bench(IngressSettings(session=patient))
        client = bench.client()
        for bit in (0, 3, 7):
            if client.live.ended is not None:
                client = bench.client()
            client.exchange(patched(ORDER, position, bytes([ORDER[position] ^ 1 << bit])))
        bench.ingress.disconnected(client.live)
        assert bench.batches() == []


# ------------------------------------------------ queries ------------------------------------------------


def test_genesis_is_answered_here(bench: Bench) -> None:
    client = bench.client(MALLORY)
    bench.kinds()
    assert client.exchange(GenesisRequest(request_id=5).encode()) == [
        Genesis(request_id=5, genesis=GENESIS.raw)
    ]
    assert bench.kinds() == []


def test_flood_of_genesis_requests_is_not_answered_with_a_flood(bench: Bench) -> None:
    client, other = bench.client(MALLORY), bench.client(ALICE)
    other.send(GenesisRequest(request_id=1).encode())
    flood = b"".join(GenesisRequest(request_id=number).encode() for number in range(1, 1_001))
    told = client.exchange(flood)
    while bench.ingress.pending:
        told += client.exchange()
    assert told[0] == Genesis(request_id=1, genesis=GENESIS.raw)
    assert told[1:] == [
        QueryReject(request_id=number, reason=ReasonCode.SERVER_BUSY) for number in range(2, 1_001)
    ]
    assert client.exchange(GenesisRequest(request_id=5).encode()) == [
        Genesis(request_id=5, genesis=GENESIS.raw)
    ]
    assert other.heard == [Genesis(request_id=1, genesis=GENESIS.raw)]


def test_queries_go_to_the_matcher_behind_the_batches_sent_before(bench: Bench) -> None:
    client = bench.client()
    bench.seen.clear()
    queries = [
        BalancesRequest(request_id=1).encode(),
        OpenOrdersRequest(request_id=2, limit=5).encode(),
        BookRequest(request_id=3, market_id=2, levels=5).encode(),
        TradesRequest(request_id=4, market_id=1, limit=5).encode(),
        ShardStatusRequest(request_id=5).encode(),
        DefinitionsRequest(request_id=6, limit=5).encode(),
        BookRequest(request_id=7, market_id=99, levels=5).encode(),  # it may have been added
    ]
    first, second = client.order(1), client.order(2)
    assert client.exchange(first + b"".join(queries) + second) == []
    assert [entry.payload for entry in bench.seen] == [first, *queries, second]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (BalancesRequest(request_id=6, shard=1), ReasonCode.SHARD_UNKNOWN),
        (BookRequest(request_id=6, market_id=99, levels=5, shard=1), ReasonCode.SHARD_UNKNOWN),
        (BookRequest(request_id=6, market_id=1, levels=0), ReasonCode.QUERY_LIMIT_INVALID),
        (TradesRequest(request_id=6, market_id=1, limit=501), ReasonCode.QUERY_LIMIT_INVALID),
    ],
)
def test_impossible_query_is_refused_here(bench: Bench, query: BookRequest, reason: ReasonCode) -> None:
    client = bench.client()
    bench.kinds()
    assert client.exchange(query.encode()) == [QueryReject(request_id=6, reason=reason)]
    assert bench.kinds() == []


# ------------------------------------------------ floods ------------------------------------------------


def status_requests(first: int, count: int) -> bytes:
    return b"".join(ShardStatusRequest(request_id=first + number).encode() for number in range(count))


def answer_queries(bench: Bench) -> list[int]:
    """Answer what queries the matcher has received since the last call; returns their request ids."""
    asked = [entry for entry in bench.seen if entry.kind == Kind.QUERY]
    bench.seen = [entry for entry in bench.seen if entry.kind != Kind.QUERY]
    found = []
    for question in asked:
        query = decode(question.payload)
        assert isinstance(query, ShardStatusRequest)
        found.append(query.request_id)
        answer = ShardStatus(request_id=query.request_id, durability=Durability.ALWAYS).encode()
        bench.say(link.entry(Kind.FRAME, question.session_id, answer))
    return found


def test_flood_of_queries_leaves_the_others_their_turn(bench: Bench) -> None:
    mallory, alice = bench.client(MALLORY), bench.client()
    bench.seen.clear()
    mallory.send(status_requests(0, 2_000))
    assert mallory.live.full
    frame = alice.order(1)
    assert alice.exchange(frame) == []
    assert bench.batches() == [frame]
    asked = answer_queries(bench)
    assert len(asked) == QUERIES_IN_FLIGHT_MAX
    while bench.ingress.pending:
        assert bench.ingress.waiting <= WAITING_MAX + 2 * FRAMES_PER_VISIT
        bench.turn()
        asked += answer_queries(bench)
    assert asked == list(range(2_000))
    assert not mallory.live.has_backlog
    assert bench.ingress.waiting == 0


def test_queries_wait_for_the_answers_to_those_before_them(bench: Bench) -> None:
    mallory, alice = bench.client(MALLORY), bench.client()
    bench.seen.clear()
    mallory.send(status_requests(0, WAITING_MAX))
    alice.send(status_requests(1_000, 1))
    bench.turn()
    assert len([entry for entry in bench.seen if entry.kind == Kind.QUERY]) == QUERIES_IN_FLIGHT_MAX
    assert not bench.ingress.pending, "nothing to do until the matcher answers"
    refused = NotApplied(nonce=9, reason=ReasonCode.COMMAND_COUNT_INVALID).encode()
    bench.say(link.entry(Kind.FRAME, mallory.live.session_id, refused))
    assert not bench.ingress.pending, "that was no answer to a query"
    first = answer_queries(bench)
    assert bench.ingress.pending
    bench.turn()
    second = answer_queries(bench)
    assert sorted(first + second) == [*range(WAITING_MAX - 1), 1_000]
    assert 1_000 in first + second, "one of many does not wait for all of them"


def test_queries_of_who_left_make_room_when_they_are_answered(bench: Bench) -> None:
    mallory, alice = bench.client(MALLORY), bench.client()
    bench.seen.clear()
    mallory.send(status_requests(0, 2_000))
    bench.turn()
    bench.ingress.disconnected(mallory.live)
    alice.send(status_requests(5_000, 1))
    bench.turn()
    assert answer_queries(bench) == list(range(QUERIES_IN_FLIGHT_MAX))
    bench.turn()
    assert answer_queries(bench) == [5_000], "what nobody is there to hear is not asked"
    assert bench.ingress.waiting == 0
    assert not bench.ingress.pending


def test_lost_link_forgets_the_queries_on_it(bench: Bench) -> None:
    mallory = bench.client(MALLORY)
    mallory.exchange(status_requests(0, 2_000))
    unknown = link.HEADER.pack(bench.instance, 0, 0) + link.entry(Kind.UNKNOWN)
    bench.ingress.link_message(0, unknown, server_time_ns=5, now_ms=bench.now_ms)
    bench.now_ms += 500
    bench.turn()
    assert bench.ingress.waiting == 0
    alice = bench.client()
    bench.seen.clear()
    alice.exchange(status_requests(0, 1))
    assert answer_queries(bench) == [0]


def test_flood_of_batches_leaves_the_others_their_turn(bench: Bench) -> None:
    mallory, alice = bench.client(MALLORY), bench.client()
    flood = [mallory.order(nonce) for nonce in range(1, 301)]
    mallory.send(b"".join(flood))
    assert mallory.live.full
    bench.turn()
    frame = alice.order(1)
    alice.send(frame)
    bench.batches()
    bench.turn()
    assert frame in bench.batches()
    assert max(bench.verified) <= VERIFIED_PER_TURN_MAX


def test_sessions_that_wait_take_turns_in_equal_shares(bench: Bench) -> None:
    clients = [bench.client(SigningKey(bytes([number]) * 32)) for number in range(1, 5)]
    for client in clients:
        client.send(b"".join(client.order(nonce) for nonce in range(1, 101)))
    bench.turn()
    keys = [frame[78:110] for frame in bench.batches()]
    share = VERIFIED_PER_TURN_MAX // 4
    assert keys == [bytes(client.key.verify_key) for client in clients for _ in range(share)]


def test_more_sessions_than_a_turn_deals_with_are_dealt_with_in_turn(bench: Bench) -> None:
    count = VERIFIED_PER_TURN_MAX + 10
    clients = [bench.client(SigningKey(number.to_bytes(32, "big"))) for number in range(1, count + 1)]
    for client in clients:
        client.send(client.order(1) + client.order(2))
    bench.turn()
    bench.turn()
    heard = {frame[78:110] for frame in bench.batches()}
    assert heard == {bytes(client.key.verify_key) for client in clients}


def test_flood_of_malformed_frames_is_looked_at_in_turns(bench: Bench) -> None:
    mallory, alice = bench.client(MALLORY), bench.client()
    frame, reason = MALFORMED["template of the server"]
    count = 40 * FRAMES_PER_VISIT
    mallory.send(frame * count)
    first = mallory.exchange()
    assert first == [NotApplied(reason=reason)] * len(first)
    assert 0 < len(first) < count // 2
    assert mallory.live.full
    good = alice.order(1)
    alice.exchange(good)
    assert bench.batches() == [good]
    heard = len(first) + len(mallory.heard)
    mallory.heard.clear()
    while bench.ingress.pending:
        heard += len(mallory.exchange())
    assert heard == count


def test_order_of_what_a_session_says_survives_the_wait(bench: Bench) -> None:
    client = bench.client()
    bench.seen.clear()
    said = [
        frame
        for nonce in range(1, 101)
        for frame in (client.order(nonce), ShardStatusRequest(request_id=nonce).encode())
    ]
    client.send(b"".join(said))
    assert client.live.full
    client.send(b"".join(said[:1]))  # what was read already comes behind what waits
    heard: list[bytes] = []
    while bench.ingress.pending:
        bench.turn()
        heard += [entry.payload for entry in bench.seen if entry.kind in (Kind.BATCH, Kind.QUERY)]
        answer_queries(bench)
        bench.seen.clear()
    assert heard == [*said, said[0]]


def test_who_is_not_read_is_told_when_nothing_waits_and_is_not_silent(bench: Bench) -> None:
    client = bench.client()
    client.send(status_requests(0, WAITING_MAX))
    client.live.stopped = True  # as a shell does that stops reading
    for _ in range(4):
        bench.now_ms += HEARTBEAT_MS
        assert client.live not in bench.turn() or client.live.has_backlog
        assert client.live.ended is None
    answer_queries(bench)
    assert client.live in bench.turn()
    assert not client.live.full
    bench.now_ms += 3 * HEARTBEAT_MS - 1
    bench.turn()
    assert client.live.ended is None
    bench.now_ms += 1
    bench.turn()
    assert client.live.ended is ReasonCode.HEARTBEAT_TIMEOUT


def test_frame_is_not_late_while_it_is_ours_to_read_on(bench: Bench) -> None:
    client = bench.client()
    client.send(status_requests(0, 3 * WAITING_MAX) + ORDER[:50])
    for _ in range(5):
        bench.now_ms += 1_000
        bench.turn()
    assert client.live.ended is None
    asked = answer_queries(bench)
    while bench.ingress.pending:
        bench.turn()
        asked += answer_queries(bench)
    assert len(asked) == 3 * WAITING_MAX
    bench.now_ms += 999
    bench.turn()
    assert client.live.ended is None
    bench.now_ms += 1
    bench.turn()
    assert client.live.ended is ReasonCode.FRAME_TIMEOUT


def test_who_ends_gets_one_more_turn_for_batches_and_none_for_the_rest(bench: Bench) -> None:
    client = bench.client()
    flood = [client.order(nonce) for nonce in range(1, 301)]
    client.send(b"".join(flood))
    bench.ingress.disconnected(client.live)
    bench.turn()
    assert bench.batches() == flood[:VERIFIED_PER_TURN_MAX]
    assert bench.ingress.waiting == 0
    bench.turn()
    assert bench.batches() == []


# ------------------------------------------------ matchers ------------------------------------------------


def test_frames_of_the_matcher_reach_their_session_only(bench: Bench) -> None:
    one, two = bench.client(), bench.client(MALLORY)
    report = ExecutionReport(account_id=7, report_seq=41)
    bench.say(
        link.entry(Kind.FRAME, one.live.session_id, report.encode()),
        link.entry(Kind.FRAME, 999, report.encode()),
    )
    assert one.exchange() == [report]
    assert two.exchange() == []


def test_report_of_a_shard_that_answers_first_waits_for_the_logon() -> None:
    links = [ShardLink(shard, 10, 100_000) for shard in (0, 1)]
    genesis = kit.small_genesis(shards=2)
    ingress = Ingress(
        SETTINGS,
        genesis,
        links,
        verify=lambda frames, _: [],
        check_batch=check_frame,
        scan_batches=scan_batches,
    )
    for end in links:
        end.joined = True
    made = ingress.connected("ip", challenge=b"c" * 32, server_time_ns=1, now_ms=0)
    assert isinstance(made, Connection)
    establish = Establish(challenge=b"c" * 32, heartbeat_interval_ms=HEARTBEAT_MS)
    frame = signing.sign_establish(establish, ALICE, genesis.deployment_id)
    ingress.received(made, frame, server_time_ns=1, now_ms=0)
    made.session.take_output()
    report = ExecutionReport(account_id=7, report_seq=41).encode()
    opened = link.entry(Kind.OPENED, made.session_id, link.OPENED.pack(7, 40))
    header = link.HEADER.pack(10, 1, 0)
    early = header + opened + link.entry(Kind.FRAME, made.session_id, report)
    ingress.link_message(0, early, server_time_ns=1, now_ms=0)
    assert made.session.take_output() == b""
    ingress.link_message(1, header + opened, server_time_ns=1, now_ms=0)
    ack, late = FrameSplitter(2**24).feed(made.session.take_output())
    assert isinstance(decode(ack), EstablishmentAck)
    assert late == report


def test_restarted_matcher_ends_all_sessions_and_lets_them_return(bench: Bench) -> None:
    one, two = bench.client(), bench.client(logon=False)
    two.heard.clear()
    unknown = link.HEADER.pack(bench.instance, 0, 0) + link.entry(Kind.UNKNOWN)
    bench.ingress.link_message(0, unknown, server_time_ns=5, now_ms=bench.now_ms)
    assert one.exchange() == [Terminate(reason=ReasonCode.SHARD_RESTARTED)]
    assert two.exchange() == [Terminate(reason=ReasonCode.SHARD_RESTARTED)]
    bench.now_ms += 500
    bench.turn()
    bench.client()


def test_lost_message_of_the_matcher_ends_all_sessions(bench: Bench) -> None:
    client = bench.client()
    bench.matcher_seq += 1
    bench.say(link.entry(Kind.FRAME, client.live.session_id, ExecutionReport().encode()))
    assert client.exchange() == [Terminate(reason=ReasonCode.SHARD_RESTARTED)]


def test_matcher_is_told_when_a_client_leaves_once(bench: Bench) -> None:
    client = bench.client()
    bench.kinds()
    client.exchange(Terminate(reason=ReasonCode.CLIENT_REQUEST).encode())
    assert client.live.ended is ReasonCode.CLIENT_REQUEST
    bench.ingress.disconnected(client.live)
    bench.turn()
    assert bench.kinds() == [Kind.CLOSE]
    assert bench.ingress.connections == 0


# ------------------------------------------------ time ------------------------------------------------


def test_frame_that_is_begun_must_be_finished(bench: Bench) -> None:
    client = bench.client()
    client.send(ORDER[:50])
    assert client.exchange() == []
    bench.now_ms += 999
    assert client.exchange() == []
    bench.now_ms += 1
    assert client.exchange() == [Terminate(reason=ReasonCode.FRAME_TIMEOUT)]
    assert bench.batches() == []


def test_client_that_leaves_in_the_middle_of_a_frame_costs_nothing(bench: Bench) -> None:
    for length in range(1, len(ORDER)):
        client = bench.client()
        client.send(ORDER[:length])
        bench.turn()
        bench.ingress.disconnected(client.live)
    assert bench.batches() == []
    assert bench.ingress.connections == 0
    bench.client().exchange(ORDER)
    assert bench.batches() == [ORDER]


def test_heartbeats_flow_and_silence_ends_the_session(bench: Bench) -> None:
    client = bench.client()
    for _ in range(5):
        bench.now_ms += HEARTBEAT_MS
        assert client.exchange(Heartbeat(next_seq_no=1).encode()) == [Heartbeat(next_seq_no=1)]
    bench.now_ms += HEARTBEAT_MS
    assert client.exchange() == [Heartbeat(next_seq_no=1)]
    bench.now_ms += HEARTBEAT_MS
    assert client.exchange() == [Heartbeat(next_seq_no=1)]
    bench.now_ms += HEARTBEAT_MS
    assert client.exchange() == [Terminate(reason=ReasonCode.HEARTBEAT_TIMEOUT)]


def test_next_deadline_never_lies_behind_what_is_due(bench: Bench) -> None:
    client = bench.client()
    client.send(ORDER[:5])
    bench.turn()
    bench.link._next_ping_ms = bench.now_ms + 10**9
    assert bench.ingress.next_deadline_ms() == bench.now_ms + 1_000


def test_stop_tells_everybody(bench: Bench) -> None:
    client = bench.client()
    bench.ingress.shut_down(bench.now_ms)
    assert client.exchange() == [Terminate(reason=ReasonCode.SERVER_SHUTDOWN)]


def test_slow_consumer_is_ended_with_its_reason(bench: Bench) -> None:
    client = bench.client()
    bench.say(link.entry(Kind.FRAME, client.live.session_id, ExecutionReport().encode()))
    bench.ingress.slow_consumer(client.live, bench.now_ms)
    assert client.exchange() == [Terminate(reason=ReasonCode.SLOW_CONSUMER)]
    assert client.live.ended is ReasonCode.SLOW_CONSUMER


def test_messages_of_a_turn_say_when_its_batches_were_verified(bench: Bench) -> None:
    times_ns = []
    for verified_ns in (77, None):
        if verified_ns is not None:
            bench.ingress.verified_ns = verified_ns
        bench.link.add(Kind.CLOSE, 1)
        bench.ingress.end_turn(bench.now_ms)
        times_ns.append(link.header(bench.link.unsent.pop())[2])
    assert times_ns == [77, 0]
