"""Sessions: the whole life of a connection without a socket, every illegal move, every timeout."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
from nacl.signing import SigningKey

import zexchange.wire
from zexchange.wire import signing
from zexchange.wire.messages import (
    BalancesRequest,
    BookRequest,
    Challenge,
    Command,
    CommandKind,
    Durability,
    Establish,
    EstablishmentAck,
    EstablishmentReject,
    ExecutionReport,
    GenesisRequest,
    Message,
    NotApplied,
    OpenOrdersRequest,
    OperatorBatch,
    OperatorCommand,
    OperatorCommandKind,
    QueryReject,
    ReasonCode,
    Sequence,
    SessionOptions,
    ShardSession,
    ShardStatus,
    ShardStatusRequest,
    SignedBatch,
    Terminate,
    TradesRequest,
    decode,
)
from zexchange.wire.session import (
    CLIENT_MESSAGES,
    SERVER_MESSAGES,
    TRANSITIONS,
    BatchReceived,
    ClientSession,
    Established,
    EstablishRequested,
    FrameRefused,
    LocalProtocolError,
    MessageReceived,
    QueryReceived,
    RemoteProtocolError,
    Role,
    ServerSession,
    SessionEnded,
    SessionSettings,
    State,
)

KEY = SigningKey(bytes(range(32)))
OTHER_KEY = SigningKey(bytes(32))
DEPLOYMENT_ID = b"d" * 32
CHALLENGE = b"c" * 32
SETTINGS = SessionSettings(heartbeat_interval_ms=1000)
SHARDS = [ShardSession(shard=0, account_id=5, report_seq=9)]


def server_session(now_ms: int = 0) -> ServerSession:
    return ServerSession(
        SETTINGS,
        deployment_id=DEPLOYMENT_ID,
        shards=[0, 3],
        challenge=CHALLENGE,
        server_time_ns=17,
        now_ms=now_ms,
    )


def client_session(now_ms: int = 0, deployment_id: bytes | None = DEPLOYMENT_ID) -> ClientSession:
    return ClientSession(SETTINGS, key=KEY, deployment_id=deployment_id, now_ms=now_ms)


def frames_of(session: ServerSession | ClientSession) -> list[Message]:
    """What the session wants to send, decoded."""
    output = session.take_output()
    messages = []
    while output:
        length = int.from_bytes(output[:4], "big")
        messages.append(decode(output[:length]))
        output = output[length:]
    return messages


def established(now_ms: int = 0) -> tuple[ServerSession, ClientSession]:
    """Both sides of one connection, logged on, outputs empty."""
    server, client = server_session(now_ms), client_session(now_ms)
    for frame in client.feed(server.take_output(), now_ms):
        assert client.receive(frame, now_ms) is None
    for frame in server.feed(client.take_output(), now_ms):
        assert server.receive(frame, now_ms) == EstablishRequested(bytes(KEY.verify_key), 1000, 0)
    server.acknowledge(SHARDS, durability=Durability.ALWAYS, server_time_ns=18, now_ms=now_ms)
    for frame in client.feed(server.take_output(), now_ms):
        event = client.receive(frame, now_ms)
        assert isinstance(event, Established)
        assert event.ack.shards == SHARDS
    assert server.state is client.state is State.ESTABLISHED
    return server, client


def batch(nonce: int = 1, shard: int = 0, key: SigningKey = KEY) -> bytes:
    commands = [Command(kind=CommandKind.CANCEL_ALL)]
    return signing.sign_batch(SignedBatch(nonce=nonce, shard=shard, commands=commands), key, DEPLOYMENT_ID)


def establish(**changes: object) -> bytes:
    fields = {"challenge": CHALLENGE, "heartbeat_interval_ms": 1000, **changes}
    return signing.sign_establish(Establish(**fields), KEY, DEPLOYMENT_ID)  # type: ignore[arg-type]


def template_id(message: type[Message]) -> int:
    return message.TEMPLATE_ID


def one_of_each() -> dict[type[Message], Message]:
    """The plainest well-formed message of every type."""
    given: list[Message] = [
        SignedBatch(commands=[Command(kind=CommandKind.CANCEL_ALL)]),
        OperatorBatch(commands=[OperatorCommand(kind=OperatorCommandKind.DEPOSIT)]),
        EstablishmentAck(public_key=bytes(KEY.verify_key), durability=Durability.ALWAYS),
        ShardStatus(durability=Durability.ALWAYS),
    ]
    each = {type(message): message for message in given}
    for message in CLIENT_MESSAGES | SERVER_MESSAGES:
        if message not in each:
            each[message] = message()  # type: ignore[call-arg]
    return each


EACH = one_of_each()


class TestLogon:
    def test_whole_life(self) -> None:
        server, client = established()
        client.send(batch(nonce=7), 1)
        (frame,) = server.feed(client.take_output(), 1)
        assert server.receive(frame, 1) == BatchReceived(frame, nonce=7, shard=0)
        server.send(ExecutionReport(nonce=7).encode(), 2)
        (frame,) = client.feed(server.take_output(), 2)
        assert client.receive(frame, 2) == MessageReceived(ExecutionReport(nonce=7))
        assert client.terminate(ReasonCode.CLIENT_REQUEST, 3) == SessionEnded(
            ReasonCode.CLIENT_REQUEST, by_peer=False
        )
        (frame,) = server.feed(client.take_output(), 3)
        assert server.receive(frame, 3) == SessionEnded(ReasonCode.CLIENT_REQUEST, by_peer=True)
        assert server.state is client.state is State.ENDED

    def test_challenge_comes_first(self) -> None:
        assert frames_of(server_session()) == [
            Challenge(deployment_id=DEPLOYMENT_ID, challenge=CHALLENGE, server_time_ns=17)
        ]

    @pytest.mark.parametrize(
        ("frame", "reason"),
        [
            (
                establish(options=SessionOptions.CANCEL_ON_DISCONNECT),
                ReasonCode.CANCEL_ON_DISCONNECT_UNAVAILABLE,
            ),
            (establish(heartbeat_interval_ms=99), ReasonCode.HEARTBEAT_INTERVAL_INVALID),
            (establish(heartbeat_interval_ms=60_001), ReasonCode.HEARTBEAT_INTERVAL_INVALID),
            (establish(challenge=bytes(32)), ReasonCode.SIGNATURE_INVALID),
            (establish()[:-1] + b"\1", ReasonCode.SIGNATURE_INVALID),
            (
                signing.sign_establish(
                    Establish(challenge=CHALLENGE, heartbeat_interval_ms=1000), KEY, bytes(32)
                ),
                ReasonCode.SIGNATURE_INVALID,
            ),
        ],
    )
    def test_refused(self, frame: bytes, reason: ReasonCode) -> None:
        server = server_session()
        server.take_output()
        assert server.receive(frame, 0) == SessionEnded(reason, by_peer=False)
        assert frames_of(server) == [EstablishmentReject(reason=reason)]
        assert server.state is State.ENDED
        assert server.public_key is None

    def test_client_sees_the_refusal(self) -> None:
        client = client_session()
        client.receive(Challenge(deployment_id=DEPLOYMENT_ID).encode(), 0)
        refused = EstablishmentReject(reason=ReasonCode.SESSION_LIMIT).encode()
        assert client.receive(refused, 0) == SessionEnded(ReasonCode.SESSION_LIMIT, by_peer=True)

    def test_server_may_refuse_while_establishing(self) -> None:
        server = server_session()
        server.receive(establish(), 0)
        assert server.reject(ReasonCode.SERVER_BUSY, 0) == SessionEnded(ReasonCode.SERVER_BUSY, by_peer=False)
        with pytest.raises(LocalProtocolError):
            server.acknowledge(SHARDS, durability=Durability.ALWAYS, server_time_ns=0, now_ms=0)

    def test_client_refuses_another_deployment(self) -> None:
        client = client_session()
        with pytest.raises(RemoteProtocolError) as error:
            client.receive(Challenge(deployment_id=bytes(32)).encode(), 0)
        assert error.value.reason is ReasonCode.DEPLOYMENT_MISMATCH
        assert client.state is State.CONNECTED

    def test_client_without_expectation_takes_the_servers_deployment(self) -> None:
        client = client_session(deployment_id=None)
        client.receive(Challenge(deployment_id=b"x" * 32, challenge=CHALLENGE).encode(), 0)
        assert client.deployment_id == b"x" * 32
        signing.verify_establish(client.take_output(), b"x" * 32)

    def test_client_refuses_an_ack_for_another_key(self) -> None:
        client = client_session()
        client.receive(Challenge(deployment_id=DEPLOYMENT_ID).encode(), 0)
        ack = EstablishmentAck(public_key=bytes(32), durability=Durability.ALWAYS)
        with pytest.raises(RemoteProtocolError) as error:
            client.receive(ack.encode(), 0)
        assert error.value.reason is ReasonCode.KEY_NOT_OF_SESSION
        assert client.state is State.ESTABLISHING


class TestRefusedFrames:
    @pytest.mark.parametrize(
        ("frame", "reason", "nonce"),
        [
            (batch(nonce=7, key=OTHER_KEY), ReasonCode.KEY_NOT_OF_SESSION, 7),
            (batch(nonce=7, shard=1), ReasonCode.SHARD_UNKNOWN, 7),
            (batch()[:-1] + b"\1", ReasonCode.ENUM_VALUE_UNKNOWN, 0),
            (ExecutionReport().encode(), ReasonCode.TEMPLATE_UNKNOWN, 0),
            (batch()[:8] + b"\xff\xff" + batch()[10:], ReasonCode.TEMPLATE_UNKNOWN, 0),
            (Sequence().encode()[:12] + b"\x09\0" + bytes(8), ReasonCode.VERSION_UNSUPPORTED, 0),
        ],
    )
    def test_are_answered_and_the_session_goes_on(self, frame: bytes, reason: ReasonCode, nonce: int) -> None:
        server, _ = established()
        assert server.receive(frame, 0) == FrameRefused(reason, nonce)
        assert frames_of(server) == [NotApplied(nonce=nonce, reason=reason)]
        assert server.state is State.ESTABLISHED

    @pytest.mark.parametrize(
        ("query", "reason"),
        [
            (BalancesRequest(request_id=8, shard=1), ReasonCode.SHARD_UNKNOWN),
            (ShardStatusRequest(request_id=8, shard=2), ReasonCode.SHARD_UNKNOWN),
            (OpenOrdersRequest(request_id=8, shard=1, limit=1), ReasonCode.SHARD_UNKNOWN),
            (OpenOrdersRequest(request_id=8, shard=0, limit=0), ReasonCode.QUERY_LIMIT_INVALID),
            (OpenOrdersRequest(request_id=8, shard=0, limit=501), ReasonCode.QUERY_LIMIT_INVALID),
            (BookRequest(request_id=8, market_id=1, levels=0), ReasonCode.QUERY_LIMIT_INVALID),
            (TradesRequest(request_id=8, market_id=1, limit=501), ReasonCode.QUERY_LIMIT_INVALID),
        ],
    )
    def test_queries(
        self,
        query: BalancesRequest | ShardStatusRequest | OpenOrdersRequest | BookRequest | TradesRequest,
        reason: ReasonCode,
    ) -> None:
        server, client = established()
        client.send(query, 0)
        assert server.receive(client.take_output(), 0) == FrameRefused(reason)
        assert frames_of(server) == [QueryReject(request_id=8, reason=reason)]

    @pytest.mark.parametrize(
        "query",
        [
            GenesisRequest(request_id=1),
            BalancesRequest(shard=3),
            BookRequest(levels=500),
            TradesRequest(limit=1),
            OpenOrdersRequest(shard=0, limit=500),
            ShardStatusRequest(shard=3),
        ],
    )
    def test_good_queries_are_handed_up(self, query: GenesisRequest) -> None:
        server, client = established()
        client.send(query, 0)
        assert server.receive(client.take_output(), 0) == QueryReceived(query)
        assert server.take_output() == b""

    def test_busy(self) -> None:
        server, _ = established()
        server.not_applied(7, ReasonCode.SERVER_BUSY, 0)
        assert frames_of(server) == [NotApplied(nonce=7, reason=ReasonCode.SERVER_BUSY)]

    def test_three_strikes(self) -> None:
        server, _ = established()
        assert server.strike(1, 0) is None
        assert server.strike(2, 0) is None
        assert server.strike(3, 0) == SessionEnded(ReasonCode.TOO_MANY_STRIKES, by_peer=False)
        invalid = ReasonCode.SIGNATURE_INVALID
        assert frames_of(server) == [
            NotApplied(nonce=1, reason=invalid, strikes=1),
            NotApplied(nonce=2, reason=invalid, strikes=2),
            NotApplied(nonce=3, reason=invalid, strikes=3),
            Terminate(reason=ReasonCode.TOO_MANY_STRIKES),
        ]
        assert server.strike(4, 0) is None
        assert server.take_output() == b""

    def test_a_malformed_frame_before_the_logon_ends_it(self) -> None:
        server = server_session()
        with pytest.raises(RemoteProtocolError) as error:
            server.receive(Sequence().encode()[:-1], 0)
        assert error.value.reason is ReasonCode.FRAME_LENGTH_INVALID


class TestIllegalMoves:
    def server_in(self, state: State) -> ServerSession:
        if state is State.ESTABLISHED:
            return established()[0]
        server = server_session()
        if state is State.ESTABLISHING:
            server.receive(establish(), 0)
        if state is State.ENDED:
            server.terminate(ReasonCode.SERVER_SHUTDOWN, 0)
        return server

    def client_in(self, state: State) -> ClientSession:
        if state is State.ESTABLISHED:
            return established()[1]
        client = client_session()
        if state in (State.CHALLENGED, State.ESTABLISHING):
            client.receive(Challenge(deployment_id=DEPLOYMENT_ID, challenge=CHALLENGE).encode(), 0)
        if state is State.ENDED:
            client.terminate(ReasonCode.CLIENT_REQUEST, 0)
        return client

    SERVER_STATES = (State.CHALLENGED, State.ESTABLISHING, State.ESTABLISHED)
    CLIENT_STATES = (State.CONNECTED, State.ESTABLISHING, State.ESTABLISHED)

    @pytest.mark.parametrize(
        ("state", "message"),
        list(itertools.product(SERVER_STATES, sorted(CLIENT_MESSAGES, key=template_id))),
    )
    def test_server_receives(self, state: State, message: type[Message]) -> None:
        server = self.server_in(state)
        server.take_output()
        if (Role.CLIENT, message) in TRANSITIONS[state]:
            server.receive(EACH[message].encode(), 0)
            return
        with pytest.raises(RemoteProtocolError) as error:
            server.receive(EACH[message].encode(), 0)
        is_logon = message is Establish
        assert error.value.reason is (
            ReasonCode.ALREADY_ESTABLISHED if is_logon else ReasonCode.NOT_ESTABLISHED
        )
        assert server.state is state
        assert server.take_output() == b""

    @pytest.mark.parametrize(
        ("state", "message"),
        list(itertools.product(CLIENT_STATES, sorted(SERVER_MESSAGES, key=template_id))),
    )
    def test_client_receives(self, state: State, message: type[Message]) -> None:
        client = self.client_in(state)
        client.take_output()
        if (Role.SERVER, message) in TRANSITIONS[state]:
            if message is Challenge:
                return  # the deployment of an empty Challenge is another one
            client.receive(EACH[message].encode(), 0)
            return
        with pytest.raises(RemoteProtocolError):
            client.receive(EACH[message].encode(), 0)
        assert client.state is state
        assert client.take_output() == b""

    @pytest.mark.parametrize("state", [State.CONNECTED, State.ESTABLISHING, State.ENDED])
    def test_client_cannot_send_before_or_after(self, state: State) -> None:
        client = self.client_in(state)
        client.take_output()
        with pytest.raises(LocalProtocolError):
            client.send(batch(), 0)
        assert client.state is state
        assert client.take_output() == b""

    @pytest.mark.parametrize("state", [State.CHALLENGED, State.ESTABLISHING, State.ENDED])
    def test_server_cannot_report_before_or_after(self, state: State) -> None:
        server = self.server_in(state)
        server.take_output()
        with pytest.raises(LocalProtocolError):
            server.send(ExecutionReport().encode(), 0)
        assert server.state is state
        assert server.take_output() == b""

    def test_client_refuses_a_clients_message(self) -> None:
        client = established()[1]
        with pytest.raises(RemoteProtocolError) as error:
            client.receive(batch(), 0)
        assert error.value.reason is ReasonCode.TEMPLATE_UNKNOWN

    def test_client_refuses_garbage(self) -> None:
        client = established()[1]
        with pytest.raises(RemoteProtocolError):
            client.receive(b"x" * 20, 0)

    def test_nothing_happens_after_the_end(self) -> None:
        server, client = self.server_in(State.ENDED), self.client_in(State.ENDED)
        server.take_output()
        client.take_output()
        assert server.receive(batch(), 0) is None
        assert client.receive(ExecutionReport().encode(), 0) is None
        assert server.tick(10**9) is None
        assert server.next_deadline_ms() is None
        assert server.terminate(ReasonCode.SERVER_SHUTDOWN, 0).reason is ReasonCode.SERVER_SHUTDOWN
        assert server.take_output() == b""

    def test_epoch_open_is_nobodys_message(self) -> None:
        assert "EpochOpen" not in {message.__name__ for message in CLIENT_MESSAGES | SERVER_MESSAGES}


class TestTime:
    def test_establish_timeout(self) -> None:
        for session in (server_session(100), client_session(100)):
            assert session.next_deadline_ms() == 3100
            assert session.tick(3099) is None
            assert session.tick(3100) == SessionEnded(ReasonCode.ESTABLISH_TIMEOUT, by_peer=False)

    def test_establish_timeout_runs_until_the_acknowledgement(self) -> None:
        server = server_session()
        server.take_output()
        server.receive(establish(), 2000)
        assert server.tick(2999) is None
        assert server.take_output() == b"", "no heartbeat before the acknowledgement"
        assert server.tick(3000) == SessionEnded(ReasonCode.ESTABLISH_TIMEOUT, by_peer=False)

    def test_frame_timeout(self) -> None:
        server, client = established()
        client.send(batch(), 0)
        data = client.take_output()
        assert server.feed(data[:10], 500) == []
        server.feed(data[10:20], 1400)
        assert server.tick(1499) is None
        assert server.tick(1500) == SessionEnded(ReasonCode.FRAME_TIMEOUT, by_peer=False)

    def test_a_finished_frame_stops_the_frame_timeout(self) -> None:
        server, client = established()
        client.send(batch(), 0)
        data = client.take_output()
        server.feed(data[:10], 500)
        assert len(server.feed(data[10:] + data[:5], 1400)) == 1
        assert server.tick(1500) is None
        assert len(server.feed(data[5:], 2300)) == 1
        assert server.tick(2399) is None

    def test_heartbeats_both_ways_keep_a_quiet_session_alive(self) -> None:
        server, client = established()
        for now_ms in range(250, 20_000, 250):
            assert server.tick(now_ms) is None
            assert client.tick(now_ms) is None
            for frame in client.feed(server.take_output(), now_ms):
                assert client.receive(frame, now_ms) is None
            for frame in server.feed(client.take_output(), now_ms):
                assert server.receive(frame, now_ms) is None

    def test_heartbeat_counts_application_messages(self) -> None:
        server, client = established()
        server.send_reports(ExecutionReport().encode() * 4, 500)
        server.send(ExecutionReport().encode(), 600)
        server.take_output()
        assert server.next_deadline_ms() == 1600
        assert server.tick(1599) is None
        assert server.take_output() == b""
        server.tick(1600)
        assert frames_of(server) == [Sequence(next_seq_no=6)]
        client.send(batch(), 0)
        client.take_output()
        client.tick(1000)
        assert frames_of(client) == [Sequence(next_seq_no=2)]

    def test_a_silent_peer_is_dropped(self) -> None:
        server, client = established()
        for session in (server, client):
            assert session.tick(2999) is None
            assert session.tick(3000) == SessionEnded(ReasonCode.HEARTBEAT_TIMEOUT, by_peer=False)
            assert frames_of(session)[-1] == Terminate(reason=ReasonCode.HEARTBEAT_TIMEOUT)

    def test_a_trickle_of_bytes_is_not_a_sign_of_life(self) -> None:
        server, _ = established()
        server.feed(batch()[:3], 2900)
        assert server.tick(3000) == SessionEnded(ReasonCode.HEARTBEAT_TIMEOUT, by_peer=False)

    def test_a_broken_stream_ends_the_session(self) -> None:
        server, _ = established()
        with pytest.raises(RemoteProtocolError) as error:
            server.feed(b"GET / HTTP/1.1", 0)
        assert error.value.reason is ReasonCode.FRAME_LENGTH_INVALID
        assert server.state is State.ESTABLISHED
        server.terminate(error.value.reason, 0)
        assert frames_of(server) == [Terminate(reason=ReasonCode.FRAME_LENGTH_INVALID)]

    def test_frames_before_a_broken_header_are_handed_up_first(self) -> None:
        server, _ = established()
        (frame,) = server.feed(batch() + bytes(6), 10)
        assert isinstance(server.receive(frame, 10), BatchReceived)
        assert server.tick(10) == SessionEnded(ReasonCode.FRAME_LENGTH_INVALID, by_peer=False)


def test_the_wire_package_is_pure() -> None:
    """No socket, loop, clock or random source may be imported in zexchange/wire."""
    forbidden = {
        "socket",
        "select",
        "selectors",
        "asyncio",
        "time",
        "datetime",
        "random",
        "secrets",
        "os",
        "zmq",
    }
    for path in Path(zexchange.wire.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not forbidden & {name.split(".")[0] for name in names}, path
