"""The codec's frame checks: each reason by name, in the documented order, and the limits of encode()."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zexchange.client import rejections
from zexchange.wire.messages import (
    EXECUTION_REPORT_BLOCK_LENGTH,
    REASON_DESCRIPTIONS,
    Command,
    CommandKind,
    EncodeError,
    ExecutionReport,
    MarketState,
    OperatorBatch,
    OperatorCommand,
    OperatorCommandKind,
    OrderOptions,
    OrderType,
    ReasonCode,
    SelfTradePrevention,
    Sequence,
    Side,
    SignedBatch,
    Terminate,
    TimeInForce,
    WireError,
    decode,
    execution_report_frame_prefix,
)

NEW = Command(
    kind=CommandKind.NEW,
    side=Side.BUY,
    order_type=OrderType.LIMIT,
    time_in_force=TimeInForce.GTC,
    self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
    market_id=1,
    price_ticks=100,
    qty_lots=1,
)
CANCEL = Command(kind=CommandKind.CANCEL, order_id=7)
AMEND = Command(
    kind=CommandKind.AMEND, self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST, order_id=7, qty_lots=2
)
CANCEL_ALL = Command(kind=CommandKind.CANCEL_ALL)
FRAME = SignedBatch(nonce=1, commands=[NEW]).encode()
ENTRY = 126  # of the first command: framing 6, header 8, root block 108, group header 4


def refusal(frame: bytes) -> ReasonCode:
    with pytest.raises(WireError) as refused:
        decode(frame)
    return refused.value.reason


def patched(offset: int, fmt: str, *values: int, frame: bytes = FRAME) -> bytes:
    data = bytearray(frame)
    struct.pack_into(fmt, data, offset, *values)
    return bytes(data)


def resized(frame: bytes) -> bytes:
    return struct.pack(">I", len(frame)) + frame[4:]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", ReasonCode.FRAME_LENGTH_INVALID),
        (FRAME[:13], ReasonCode.FRAME_LENGTH_INVALID),
        (patched(0, ">I", len(FRAME) + 1), ReasonCode.FRAME_LENGTH_INVALID),
        (patched(4, ">H", 0x50EB), ReasonCode.ENCODING_TYPE_UNKNOWN),
        (patched(10, "<H", 1), ReasonCode.SCHEMA_UNKNOWN),
        (patched(12, "<H", 2), ReasonCode.VERSION_UNSUPPORTED),
        (patched(8, "<H", 999), ReasonCode.TEMPLATE_UNKNOWN),
        (patched(6, "<H", 109), ReasonCode.BLOCK_LENGTH_INVALID),
        (patched(122, "<H", 47), ReasonCode.GROUP_SIZE_INVALID),
        (patched(124, "<H", 0), ReasonCode.COMMAND_COUNT_INVALID),
        (patched(124, "<H", 65), ReasonCode.COMMAND_COUNT_INVALID),
        (resized(FRAME + b"\0"), ReasonCode.TRAILING_BYTES),
        (patched(124, "<H", 2), ReasonCode.FRAME_TRUNCATED),
        (resized(FRAME[:124]), ReasonCode.FRAME_TRUNCATED),
        (patched(120, "<B", 2), ReasonCode.RESERVED_BITS_SET),
        (patched(121, "<B", 1), ReasonCode.RESERVED_BITS_SET),
        (patched(ENTRY + 5, "<B", 32), ReasonCode.RESERVED_BITS_SET),
        (patched(ENTRY + 6, "<B", 4), ReasonCode.ENUM_VALUE_UNKNOWN),
        (patched(ENTRY, "<B", 9), ReasonCode.ENUM_VALUE_UNKNOWN),
        (patched(ENTRY + 1, "<B", 3), ReasonCode.ENUM_VALUE_UNKNOWN),
    ],
)
def test_each_malformation_has_its_reason(frame: bytes, reason: ReasonCode) -> None:
    assert refusal(frame) is reason


def test_the_first_failing_check_names_the_reason() -> None:
    """Damage every part of a frame, then repair it from the front: reasons come in the documented order."""
    repairs = [
        (0, ">I", len(FRAME), 5),
        (4, ">H", 0xEB50, 0),
        (10, "<H", 22616, 0),
        (12, "<H", 1, 0),
        (8, "<H", 1, 999),
        (6, "<H", 108, 0),
        (122, "<H", 88, 0),
        (124, "<H", 1, 0),
        (121, "<B", 0, 1),
        (ENTRY + 5, "<B", 0, 32),
        (ENTRY, "<B", 1, 0),
    ]
    frame = FRAME
    for offset, fmt, _, bad in repairs:
        frame = patched(offset, fmt, bad, frame=frame)
    reasons = []
    for offset, fmt, good, _ in repairs:
        reasons.append(refusal(frame))
        frame = patched(offset, fmt, good, frame=frame)
    assert frame == FRAME
    assert reasons == [
        ReasonCode.FRAME_LENGTH_INVALID,
        ReasonCode.ENCODING_TYPE_UNKNOWN,
        ReasonCode.SCHEMA_UNKNOWN,
        ReasonCode.VERSION_UNSUPPORTED,
        ReasonCode.TEMPLATE_UNKNOWN,
        ReasonCode.BLOCK_LENGTH_INVALID,
        ReasonCode.GROUP_SIZE_INVALID,
        ReasonCode.COMMAND_COUNT_INVALID,
        ReasonCode.RESERVED_BITS_SET,
        ReasonCode.RESERVED_BITS_SET,
        ReasonCode.ENUM_VALUE_UNKNOWN,
    ]


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        (NEW, {"side": Side.NONE}),
        (NEW, {"order_type": OrderType.NONE}),
        (NEW, {"time_in_force": TimeInForce.NONE}),
        (NEW, {"self_trade_prevention": SelfTradePrevention.NONE}),
        (NEW, {"order_id": 1}),
        (CANCEL, {"side": Side.BUY}),
        (CANCEL, {"order_type": OrderType.LIMIT}),
        (CANCEL, {"time_in_force": TimeInForce.IOC}),
        (CANCEL, {"self_trade_prevention": SelfTradePrevention.CANCEL_NEWEST}),
        (CANCEL, {"options": OrderOptions.POST_ONLY}),
        (CANCEL, {"price_ticks": 1}),
        (CANCEL, {"qty_lots": 1}),
        (AMEND, {"side": Side.SELL}),
        (AMEND, {"order_type": OrderType.MARKET}),
        (AMEND, {"time_in_force": TimeInForce.GTC}),
        (AMEND, {"self_trade_prevention": SelfTradePrevention.NONE}),
        (CANCEL_ALL, {"options": OrderOptions.POST_ONLY}),
        (CANCEL_ALL, {"client_order_id": 1}),
        (CANCEL_ALL, {"order_id": 1}),
        (CANCEL_ALL, {"price_ticks": -1}),
        (CANCEL_ALL, {"qty_lots": 1}),
    ],
)
def test_a_command_may_not_fill_fields_of_another_kind(command: Command, changes: dict[str, int]) -> None:
    assert decode(SignedBatch(commands=[command]).encode()) == SignedBatch(commands=[command])
    wrong = msgspec.structs.replace(command, **changes)
    assert refusal(SignedBatch(commands=[command, wrong]).encode()) is ReasonCode.ENUM_VALUE_UNKNOWN


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (OperatorCommandKind.OPEN_ACCOUNT, {"market_id": 1}),
        (OperatorCommandKind.OPEN_ACCOUNT, {"amount": 1}),
        (OperatorCommandKind.REGISTER_KEY, {"asset_id": 1}),
        (OperatorCommandKind.REGISTER_KEY, {"market_state": MarketState.CLOSED}),
        (OperatorCommandKind.DEPOSIT, {"market_id": 1}),
        (OperatorCommandKind.DEPOSIT, {"new_public_key": b"\1" * 32}),
        (OperatorCommandKind.WITHDRAW, {"new_public_key": bytes(31) + b"\1"}),
        (OperatorCommandKind.SET_MARKET_STATE, {"market_state": MarketState.NONE}),
        (OperatorCommandKind.SET_MARKET_STATE, {"market_state": MarketState.CLOSED, "account_id": 1}),
        (OperatorCommandKind.SET_MARKET_STATE, {"market_state": MarketState.CLOSED, "amount": 1}),
        (OperatorCommandKind.SET_MARKET_STATE, {"market_state": MarketState.CLOSED, "asset_id": 1}),
    ],
)
def test_an_operator_command_may_not_fill_fields_of_another_kind(
    kind: OperatorCommandKind, fields: dict[str, int]
) -> None:
    wrong = OperatorCommand(kind=kind, **fields)  # type: ignore[arg-type]
    assert refusal(OperatorBatch(commands=[wrong]).encode()) is ReasonCode.ENUM_VALUE_UNKNOWN


def test_encode_refuses_what_its_fields_cannot_hold() -> None:
    for message in (
        Sequence(next_seq_no=-1),
        Sequence(next_seq_no=2**64),
        SignedBatch(commands=[]),
        SignedBatch(commands=[NEW] * 65),
        SignedBatch(public_key=bytes(31), commands=[NEW]),
        SignedBatch(commands=[Command(kind=CommandKind.CANCEL, price_ticks=2**63)]),
    ):
        with pytest.raises(EncodeError):
            message.encode()


def test_a_report_frame_is_its_prefix_and_the_event_block() -> None:
    report = ExecutionReport(account_id=5, report_seq=6, fee=7)
    block = report.encode_block()
    assert len(block) == EXECUTION_REPORT_BLOCK_LENGTH == ExecutionReport.BLOCK_LENGTH
    assert execution_report_frame_prefix + block == report.encode()
    assert ExecutionReport.decode_block(b"xy" + block + b"z", 2) == report
    with pytest.raises(WireError):
        ExecutionReport.decode_block(block, 1)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    """The one invariant: decode() returns a message that encodes to the same bytes, or raises WireError."""
    for frame in (data, resized(FRAME[:14] + data), resized(Terminate().encode()[:14] + data)):
        try:
            message = decode(frame)
        except WireError:
            continue
        assert message.encode() == frame


def test_every_reason_has_a_description_and_an_exception() -> None:
    for reason in ReasonCode:
        assert REASON_DESCRIPTIONS[reason].endswith(".")
        rejection = rejections.rejection_for(reason)
        assert issubclass(rejection, rejections.Rejected)
        assert rejection.reason is reason
        assert REASON_DESCRIPTIONS[reason] in str(rejection())
    assert rejections.rejection_for(ReasonCode.UNKNOWN_KEY) is rejections.UnknownKey


def test_a_rejection_carries_its_report() -> None:
    report = ExecutionReport(reason=ReasonCode.INSUFFICIENT_FUNDS)
    with pytest.raises(rejections.InsufficientFunds) as raised:
        raise rejections.rejection_for(report.reason)(report, "order 7")
    assert raised.value.report is report
    assert str(raised.value).endswith("order 7")
