"""What a broken or hostile client can send over TCP, and what a real exchange makes of it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from nacl.signing import SigningKey

from tests.e2e.conftest import Exchange
from zexchange.wire.messages import (
    Command,
    CommandKind,
    EpochOpen,
    ExecType,
    ExecutionReport,
    Message,
    NotApplied,
    OrderType,
    QueryReject,
    ReasonCode,
    ReportFlags,
    SelfTradePrevention,
    ShardStatus,
    ShardStatusRequest,
    Side,
    SignedBatch,
    Terminate,
    TimeInForce,
    TradesRequest,
)
from zexchange.wire.session import ClientSession, Established, MessageReceived, SessionEnded, SessionSettings
from zexchange.wire.signing import sign_batch

pytestmark = pytest.mark.timeout(120)

TIMEOUT_S = 30.0
COMMANDS = 6 + 8 + 108 + 4  # offset of the first command in a frame


class Raw:
    """A socket with the honest half of a session, and a way to send anything at all."""

    def __init__(self, exchange: Exchange, key: SigningKey) -> None:
        self.key = key
        self.socket = socket.create_connection(exchange.address, timeout=TIMEOUT_S)
        self.session = ClientSession(SessionSettings(), key=key, deployment_id=None, now_ms=0)
        self.messages: list[Message] = []
        self.ended: SessionEnded | None = None

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()

    def establish(self) -> Raw:
        while not isinstance(self.step(), Established):
            pass
        return self

    def step(self) -> object:
        """Read until something happens; None when the exchange has closed."""
        while not self.messages and self.ended is None:
            output = self.session.take_output()
            if output:
                self.socket.sendall(output)
            data = self.socket.recv(65_536)
            if not data:
                return None
            for frame in self.session.feed(data, 0):
                event = self.session.receive(frame, 0)
                if isinstance(event, MessageReceived):
                    self.messages.append(event.message)
                elif isinstance(event, SessionEnded):
                    self.ended = event
                elif event is not None:
                    return event
        return self.messages.pop(0) if self.messages else self.ended

    def is_closed(self) -> bool:
        """Wait for the end of the stream."""
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionResetError:
            pass
        return True

    def batch(
        self, *commands: Command, nonce: int | None = None, shard: int = 0, key: SigningKey | None = None
    ) -> bytes:
        assert self.session.deployment_id is not None
        batch = SignedBatch(
            nonce=time.time_ns() // 1000 if nonce is None else nonce,
            shard=shard,
            commands=list(commands) or [Command(kind=CommandKind.CANCEL, order_id=1)],
        )
        return sign_batch(batch, key or self.key, self.session.deployment_id)

    def ask(self, frame: bytes) -> object:
        self.socket.sendall(frame)
        return self.step()

    def still_works(self) -> bool:
        report = self.ask(self.batch())
        return isinstance(report, ExecutionReport) and report.reason is ReasonCode.UNKNOWN_ORDER


@pytest.fixture(scope="module")
def trader(exchange: Exchange) -> SigningKey:
    exchange.account("trader", USD="1000000", BTC="10")
    return exchange.key("trader")


@pytest.fixture
def raw(exchange: Exchange, trader: SigningKey) -> Iterator[Raw]:
    with Raw(exchange, trader) as raw:
        yield raw.establish()


def put(offset: int, value: int, kind: str = "B") -> Callable[[bytes], bytes]:
    """Overwrite a field of a frame."""

    def change(frame: bytes) -> bytes:
        changed = bytearray(frame)
        struct.pack_into(f"<{kind}", changed, offset, value)
        return bytes(changed)

    return change


def resize(by: int) -> Callable[[bytes], bytes]:
    """Make the frame longer or shorter, with a framing header that agrees."""

    def change(frame: bytes) -> bytes:
        body = frame[6:] + bytes(by) if by > 0 else frame[6:by]
        return struct.pack(">IH", 6 + len(body), 0xEB50) + body

    return change


MALFORMED: dict[str, tuple[Callable[[bytes], bytes], ReasonCode]] = {
    "one byte more": (resize(1), ReasonCode.TRAILING_BYTES),
    "one byte less": (resize(-1), ReasonCode.FRAME_TRUNCATED),
    "a block length of another version": (put(6, 107, "H"), ReasonCode.BLOCK_LENGTH_INVALID),
    "a template nobody knows": (put(8, 999, "H"), ReasonCode.TEMPLATE_UNKNOWN),
    "a report": (lambda _frame: ExecutionReport().encode(), ReasonCode.TEMPLATE_UNKNOWN),
    "a record of the matcher's own": (lambda _frame: EpochOpen().encode(), ReasonCode.TEMPLATE_UNKNOWN),
    "another schema": (put(10, 1, "H"), ReasonCode.SCHEMA_UNKNOWN),
    "a later version": (put(12, 99, "H"), ReasonCode.VERSION_UNSUPPORTED),
    "a reserved byte": (put(6 + 8 + 107, 1), ReasonCode.RESERVED_BITS_SET),
    "an undefined flag": (put(6 + 8 + 106, 2), ReasonCode.RESERVED_BITS_SET),
    "an undefined option of a command": (put(COMMANDS + 5, 64, "B"), ReasonCode.RESERVED_BITS_SET),
    "no command": (put(COMMANDS - 2, 0, "H"), ReasonCode.COMMAND_COUNT_INVALID),
    "65 commands": (put(COMMANDS - 2, 65, "H"), ReasonCode.COMMAND_COUNT_INVALID),
    "commands of another length": (put(COMMANDS - 4, 47, "H"), ReasonCode.GROUP_SIZE_INVALID),
    "a kind nobody knows": (put(COMMANDS, 77), ReasonCode.ENUM_VALUE_UNKNOWN),
    "a cancel with a side": (put(COMMANDS + 1, 1), ReasonCode.ENUM_VALUE_UNKNOWN),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_frame_is_refused_with_its_reason_and_the_session_goes_on(raw: Raw, name: str) -> None:
    change, reason = MALFORMED[name]
    answer = raw.ask(change(raw.batch()))
    assert isinstance(answer, NotApplied)
    assert (answer.reason, answer.strikes) == (reason, 0)
    assert raw.still_works()


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (struct.pack(">IH", 0, 0xEB50), ReasonCode.FRAME_LENGTH_INVALID),
        (struct.pack(">IH", 13, 0xEB50), ReasonCode.FRAME_LENGTH_INVALID),
        (struct.pack(">IH", 2**32 - 1, 0xEB50), ReasonCode.FRAME_LENGTH_INVALID),
        (struct.pack(">IH", 11_777, 0xEB50), ReasonCode.FRAME_LENGTH_INVALID),
        (struct.pack(">IH", 100, 0x5BE0), ReasonCode.ENCODING_TYPE_UNKNOWN),
        (b"GET / HTTP/1.1\r\n\r\n", None),
    ],
)
def test_a_stream_without_frames_is_closed(raw: Raw, header: bytes, reason: ReasonCode | None) -> None:
    ended = raw.ask(header)
    assert isinstance(ended, SessionEnded)
    assert ended.by_peer
    assert reason in (None, ended.reason)
    assert raw.is_closed()


def test_nothing_goes_before_the_logon(exchange: Exchange, trader: SigningKey) -> None:
    with Raw(exchange, trader) as raw:
        batch = SignedBatch(nonce=1, commands=[Command(kind=CommandKind.CANCEL, order_id=1)])
        ended = raw.ask(sign_batch(batch, trader, bytes(32)))
        assert isinstance(ended, SessionEnded)
        assert ended.reason is ReasonCode.NOT_ESTABLISHED
        assert raw.is_closed()


def test_three_bad_signatures_close_the_session(exchange: Exchange) -> None:
    exchange.account("striker")
    with Raw(exchange, exchange.key("striker")) as raw:
        raw.establish()
        strikes = []
        for _ in range(3):
            frame = bytearray(raw.batch())
            frame[20] ^= 1
            answer = raw.ask(bytes(frame))
            assert isinstance(answer, NotApplied)
            assert answer.reason is ReasonCode.SIGNATURE_INVALID
            strikes.append(answer.strikes)
        assert strikes == [1, 2, 3]
        ended = raw.step()
        assert isinstance(ended, SessionEnded)
        assert ended.reason is ReasonCode.TOO_MANY_STRIKES
        assert raw.is_closed()


def test_a_logon_with_a_bad_signature_is_refused(exchange: Exchange) -> None:
    with Raw(exchange, SigningKey.generate()) as raw:
        challenge = raw.socket.recv(65_536)
        for frame in raw.session.feed(challenge, 0):
            raw.session.receive(frame, 0)
        logon = bytearray(raw.session.take_output())
        logon[20] ^= 1
        raw.socket.sendall(logon)
        ended = raw.step()
        assert isinstance(ended, SessionEnded)
        assert ended.reason is ReasonCode.SIGNATURE_INVALID
        assert raw.is_closed()


def test_a_batch_of_another_key_or_for_another_shard(raw: Raw) -> None:
    answer = raw.ask(raw.batch(nonce=5, key=SigningKey.generate()))
    assert isinstance(answer, NotApplied)
    assert (answer.reason, answer.nonce) == (ReasonCode.KEY_NOT_OF_SESSION, 5)
    answer = raw.ask(raw.batch(nonce=6, shard=7))
    assert isinstance(answer, NotApplied)
    assert (answer.reason, answer.nonce) == (ReasonCode.SHARD_UNKNOWN, 6)
    assert raw.still_works()


def test_a_query_for_too_much_is_refused(raw: Raw) -> None:
    answer = raw.ask(TradesRequest(request_id=3, market_id=1, limit=501).encode())
    assert isinstance(answer, QueryReject)
    assert (answer.request_id, answer.reason) == (3, ReasonCode.QUERY_LIMIT_INVALID)
    answer = raw.ask(TradesRequest(request_id=4, market_id=99, limit=1).encode())
    assert isinstance(answer, QueryReject)
    assert answer.reason is ReasonCode.UNKNOWN_MARKET
    assert raw.still_works()


def test_a_client_that_disappears_in_the_middle_of_a_frame_costs_nothing(
    exchange: Exchange, raw: Raw
) -> None:
    frame = raw.batch()
    for cut in (1, 5, 6, 14, 100, len(frame) - 1):
        with Raw(exchange, raw.key) as other:
            other.establish()
            other.socket.sendall(frame[:cut])
    assert raw.still_works()


def test_a_frame_that_is_never_finished_ends_the_session(raw: Raw) -> None:
    ended = raw.ask(raw.batch()[:50])
    assert isinstance(ended, SessionEnded)
    assert ended.reason is ReasonCode.FRAME_TIMEOUT
    assert raw.is_closed()


def test_a_frame_byte_by_byte_is_a_frame(raw: Raw) -> None:
    for byte in raw.batch():
        raw.socket.sendall(bytes([byte]))
    report = raw.step()
    assert isinstance(report, ExecutionReport)
    assert report.reason is ReasonCode.UNKNOWN_ORDER


def test_a_terminate_is_answered_by_closing(raw: Raw) -> None:
    raw.socket.sendall(Terminate(reason=ReasonCode.CLIENT_REQUEST).encode())
    assert raw.is_closed()


# ---------------------------------------------------------------- well-formed, but not acceptable


def new(**fields: int) -> Command:
    values = {"market_id": 1, "price_ticks": 100, "qty_lots": 1, **fields}
    return Command(
        kind=CommandKind.NEW,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.GTC,
        self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
        **values,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (new(market_id=99), ReasonCode.UNKNOWN_MARKET),
        (new(price_ticks=0), ReasonCode.PRICE_TICKS_OUT_OF_RANGE),
        (new(price_ticks=-1), ReasonCode.PRICE_TICKS_OUT_OF_RANGE),
        (new(price_ticks=2**53), ReasonCode.PRICE_TICKS_OUT_OF_RANGE),
        (new(qty_lots=0), ReasonCode.QTY_LOTS_OUT_OF_RANGE),
        (new(qty_lots=2**53), ReasonCode.QTY_LOTS_OUT_OF_RANGE),
        (new(price_ticks=2**53 - 1, qty_lots=2**53 - 1), ReasonCode.NOTIONAL_OVERFLOW),
        (new(price_ticks=10**9, qty_lots=10**6), ReasonCode.INSUFFICIENT_FUNDS),
        (Command(kind=CommandKind.CANCEL, order_id=2**64 - 1), ReasonCode.UNKNOWN_ORDER),
    ],
)
def test_a_refusal_has_its_own_reason(raw: Raw, command: Command, reason: ReasonCode) -> None:
    report = raw.ask(raw.batch(command))
    assert isinstance(report, ExecutionReport)
    assert (report.exec_type, report.reason) == (ExecType.REJECTED, reason)


def test_a_closed_market_takes_only_cancels(exchange: Exchange, raw: Raw) -> None:
    with exchange.client() as operator:
        operator.set_market_state("ETH-USD", "closed")
    report = raw.ask(raw.batch(new(market_id=2)))
    assert isinstance(report, ExecutionReport)
    assert report.reason is ReasonCode.MARKET_CLOSED


def test_an_unknown_key_is_told_so(exchange: Exchange) -> None:
    with Raw(exchange, SigningKey.generate()) as raw:
        report = raw.establish().ask(raw.batch())
        assert isinstance(report, ExecutionReport)
        assert (report.reason, report.account_id, report.report_seq) == (ReasonCode.UNKNOWN_KEY, 2**64 - 1, 0)


def test_a_nonce_counts_once(raw: Raw) -> None:
    frame = raw.batch(new(client_order_id=1), new(client_order_id=2))
    raw.socket.sendall(frame * 3)
    reports = [raw.step() for _ in range(6)]
    assert all(isinstance(report, ExecutionReport) for report in reports)
    first, again = reports[:2], [*reports[2:4], *reports[4:]]
    assert [r.flags for r in first] == [ReportFlags.NONE] * 2  # type: ignore[attr-defined]
    assert [r.flags for r in again] == [ReportFlags.DUPLICATE] * 4  # type: ignore[attr-defined]
    assert {r.order_id for r in again} == {r.order_id for r in first}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("nonce_us", "reason"),
    [(-2_000_000, ReasonCode.NONCE_TOO_OLD), (60_000_000, ReasonCode.NONCE_TOO_NEW)],
)
def test_nonces_far_off_are_refused(raw: Raw, nonce_us: int, reason: ReasonCode) -> None:
    assert raw.still_works()
    report = raw.ask(raw.batch(nonce=time.time_ns() // 1000 + nonce_us))
    assert isinstance(report, ExecutionReport)
    assert report.reason is reason


def test_after_all_that_the_exchange_works(exchange: Exchange, raw: Raw) -> None:
    status = raw.ask(ShardStatusRequest(request_id=1).encode())
    assert isinstance(status, ShardStatus)
    info = exchange.running.info
    assert {process.restarts for process in info.processes.values()} == {0}
    assert {process.state for process in info.processes.values()} == {"ready"}
