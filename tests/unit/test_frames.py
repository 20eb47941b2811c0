"""Frame checks and signatures in C: every malformation has its reason, every forgery is found."""

from __future__ import annotations

import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from nacl.signing import SigningKey

from zexchange import frames
from zexchange.frames import check_frame, verify_frames, verify_raw
from zexchange.wire import speccheck
from zexchange.wire.messages import (
    Command,
    CommandKind,
    EpochOpen,
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
    TimeInForce,
    TimePassed,
)
from zexchange.wire.signing import sign_batch

DEPLOYMENT_ID = bytes(range(32))
KEY = SigningKey(b"\x07" * 32)

# Offsets in a frame: framing header 6, SBE header 8, root block 108, group header 4, commands.
BODY, GROUP, COMMANDS = 14, 122, 126

NEW = Command(
    kind=CommandKind.NEW,
    side=Side.BUY,
    order_type=OrderType.LIMIT,
    time_in_force=TimeInForce.GTC,
    self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
    options=OrderOptions.POST_ONLY,
    market_id=1,
    client_order_id=5,
    price_ticks=100,
    qty_lots=7,
)
CANCEL = Command(kind=CommandKind.CANCEL, order_id=1, client_order_id=2, market_id=3)
AMEND = Command(
    kind=CommandKind.AMEND,
    self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
    options=OrderOptions.POST_ONLY,
    order_id=1,
    price_ticks=5,
    qty_lots=6,
)
CANCEL_ALL = Command(kind=CommandKind.CANCEL_ALL, side=Side.SELL, market_id=9)
KEY_BYTES = b"\x01" * 32
OPEN = OperatorCommand(kind=OperatorCommandKind.OPEN_ACCOUNT, account_id=4, new_public_key=KEY_BYTES)
REGISTER = OperatorCommand(kind=OperatorCommandKind.REGISTER_KEY, account_id=4, new_public_key=KEY_BYTES)
DEPOSIT = OperatorCommand(kind=OperatorCommandKind.DEPOSIT, account_id=4, asset_id=1, amount=9)
WITHDRAW = OperatorCommand(kind=OperatorCommandKind.WITHDRAW, account_id=4, asset_id=1, amount=9)
HALT = OperatorCommand(
    kind=OperatorCommandKind.SET_MARKET_STATE, market_id=1, market_state=MarketState.HALTED
)
FEED = OperatorCommand(kind=OperatorCommandKind.SET_REFERENCE_PRICE, market_id=1, price_ticks=9)
LIMIT = OperatorCommand(kind=OperatorCommandKind.SET_MARKET_RULES, market_id=1, qty_lots=9)
TREAT = OperatorCommand(kind=OperatorCommandKind.SET_ACCOUNT_RULES, account_id=4, orders_max=9)
ASSET = OperatorCommand(kind=OperatorCommandKind.ADD_ASSET, asset_id=9, symbol=b"X".ljust(32, b"\0"))
MARKET = OperatorCommand(
    kind=OperatorCommandKind.ADD_MARKET,
    market_id=9,
    asset_id=1,
    quote_asset_id=2,
    symbol=b"X".ljust(32, b"\0"),
    base_units_per_lot=1,
    quote_units_per_tick_lot=1,
    maker_fee_ppm=-1,
    taker_fee_ppm=1,
)
SIZES = OperatorCommand(
    kind=OperatorCommandKind.SET_MARKET_SIZES,
    market_id=9,
    base_units_per_lot=1,
    quote_units_per_tick_lot=1,
)


def trader(*commands: Command) -> bytes:
    return SignedBatch(nonce=1, commands=list(commands)).encode()


def operator(*commands: OperatorCommand) -> bytes:
    return OperatorBatch(nonce=1, commands=list(commands)).encode()


def put(frame: bytes, offset: int, *values: int) -> bytes:
    return frame[:offset] + bytes(values) + frame[offset + len(values) :]


def resized(frame: bytes) -> bytes:
    """The framing header tells the truth about the length."""
    return struct.pack(">I", len(frame)) + frame[4:]


@pytest.mark.parametrize(
    "frame",
    [
        trader(NEW),
        trader(CANCEL),
        trader(AMEND),
        trader(CANCEL_ALL),
        trader(*[NEW, CANCEL, AMEND, CANCEL_ALL] * 16),
        operator(OPEN),
        operator(REGISTER),
        operator(DEPOSIT),
        operator(WITHDRAW),
        operator(HALT),
        operator(*[OPEN, DEPOSIT] * 32),
    ],
    ids=len,
)
def test_well_formed(frame: bytes) -> None:
    assert check_frame(frame) is ReasonCode.NONE
    assert check_frame(bytearray(frame)) is ReasonCode.NONE
    assert check_frame(memoryview(frame)) is ReasonCode.NONE


FRAME = trader(NEW, CANCEL)
SECOND = COMMANDS + 88
MALFORMED: dict[str, tuple[bytes, ReasonCode]] = {
    "nothing": (b"", ReasonCode.FRAME_LENGTH_INVALID),
    "no whole header": (resized(FRAME[:13]), ReasonCode.FRAME_LENGTH_INVALID),
    "length says more": (put(FRAME, 3, FRAME[3] + 1), ReasonCode.FRAME_LENGTH_INVALID),
    "length says less": (put(FRAME, 3, FRAME[3] - 1), ReasonCode.FRAME_LENGTH_INVALID),
    "encoding type": (put(FRAME, 5, 0x51), ReasonCode.ENCODING_TYPE_UNKNOWN),
    "schema": (put(FRAME, 10, 1), ReasonCode.SCHEMA_UNKNOWN),
    "version": (put(FRAME, 12, 2), ReasonCode.VERSION_UNSUPPORTED),
    "no template": (put(FRAME, 8, 99), ReasonCode.TEMPLATE_UNKNOWN),
    "a template of the session": (Sequence(next_seq_no=1).encode(), ReasonCode.TEMPLATE_UNKNOWN),
    "a template of the log": (EpochOpen(epoch=1).encode(), ReasonCode.TEMPLATE_UNKNOWN),
    "block length": (put(FRAME, 6, 107), ReasonCode.BLOCK_LENGTH_INVALID),
    "only headers": (resized(FRAME[:BODY]), ReasonCode.FRAME_TRUNCATED),
    "no group": (resized(FRAME[:GROUP]), ReasonCode.FRAME_TRUNCATED),
    "half a group header": (resized(FRAME[: GROUP + 2]), ReasonCode.FRAME_TRUNCATED),
    "entry length": (put(FRAME, GROUP, 64), ReasonCode.GROUP_SIZE_INVALID),
    "no command": (put(FRAME, GROUP + 2, 0), ReasonCode.COMMAND_COUNT_INVALID),
    "65 commands": (put(FRAME, GROUP + 2, 65), ReasonCode.COMMAND_COUNT_INVALID),
    "a command short": (resized(FRAME[:-1]), ReasonCode.FRAME_TRUNCATED),
    "a command more than said": (put(FRAME, GROUP + 2, 1), ReasonCode.TRAILING_BYTES),
    "a byte more": (resized(FRAME + b"\0"), ReasonCode.TRAILING_BYTES),
    "flags": (put(FRAME, BODY + 106, 2), ReasonCode.RESERVED_BITS_SET),
    "reserved of the batch": (put(FRAME, BODY + 107, 1), ReasonCode.RESERVED_BITS_SET),
    "another template of the log": (TimePassed().encode(), ReasonCode.TEMPLATE_UNKNOWN),
    "undefined option": (put(FRAME, COMMANDS + 5, 32), ReasonCode.RESERVED_BITS_SET),
    "undefined option of the second command": (put(FRAME, SECOND + 5, 32), ReasonCode.RESERVED_BITS_SET),
    "no kind": (put(FRAME, COMMANDS, 0), ReasonCode.ENUM_VALUE_UNKNOWN),
    "unknown kind": (put(FRAME, COMMANDS, 5), ReasonCode.ENUM_VALUE_UNKNOWN),
    "reserved1 of an operator's command": (
        put(operator(OPEN), COMMANDS + 2, 1),
        ReasonCode.RESERVED_BITS_SET,
    ),
    "reserved2 of an operator's command": (
        put(operator(OPEN), COMMANDS + 169, 1),
        ReasonCode.RESERVED_BITS_SET,
    ),
    "reserved3 of an operator's command": (
        put(operator(OPEN), COMMANDS + 171, 1),
        ReasonCode.RESERVED_BITS_SET,
    ),
    "reserved4 of an operator's command": (
        put(operator(OPEN), COMMANDS + 175, 1),
        ReasonCode.RESERVED_BITS_SET,
    ),
    "no kind of an operator's command": (put(operator(OPEN), COMMANDS, 0), ReasonCode.ENUM_VALUE_UNKNOWN),
    "unknown kind of an operator's command": (
        put(operator(OPEN), COMMANDS, 9),
        ReasonCode.ENUM_VALUE_UNKNOWN,
    ),
}


@pytest.mark.parametrize(("frame", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(frame: bytes, reason: ReasonCode) -> None:
    assert check_frame(frame) is reason


SIDE, ORDER_TYPE, TIF, STP, OPTIONS, SIZES_NO = 1, 2, 3, 4, 5, 7
MARKET_ID, CLIENT_ORDER_ID, ORDER_ID, PRICE, QTY = 8, 16, 24, 32, 40
TRIGGER, TRAIL_PPM, DISPLAY, MIN_QTY, TRIGGER_TICKS, EXPIRE, NOTIONAL = 6, 12, 48, 56, 64, 72, 80
TERMS = dict.fromkeys((TRAIL_PPM, DISPLAY, MIN_QTY, TRIGGER_TICKS, EXPIRE, NOTIONAL), (1,))
NOT_ALLOWED: dict[str, tuple[bytes, dict[int, tuple[int, ...]]]] = {
    "new": (
        trader(NEW),
        {SIDE: (0, 3), ORDER_TYPE: (0, 3), TIF: (0, 8), STP: (0, 5), TRIGGER: (4,), ORDER_ID: (1,)},
    ),
    "cancel": (
        trader(CANCEL),
        {SIDE: (1, 3), ORDER_TYPE: (1, 9), TIF: (1,), STP: (1,), OPTIONS: (1,), PRICE: (1,), QTY: (1,)}
        | {TRIGGER: (1,), SIZES_NO: (1,)}
        | TERMS,
    ),
    "amend": (
        trader(AMEND),
        {SIDE: (1,), ORDER_TYPE: (2,), TIF: (3,), STP: (0, 5), TRIGGER: (1,), MIN_QTY: (1,), NOTIONAL: (1,)},
    ),
    "cancel all": (
        trader(CANCEL_ALL),
        {SIDE: (3, 255), ORDER_TYPE: (1,), TIF: (1,), STP: (1,), OPTIONS: (1,)}
        | {CLIENT_ORDER_ID: (1,), ORDER_ID: (1,), PRICE: (1,), QTY: (1,), TRIGGER: (1,), SIZES_NO: (1,)}
        | TERMS,
    ),
}
MARKET_STATE, OPERATOR_MARKET_ID, ACCOUNT_ID, AMOUNT, ASSET_ID, NEW_KEY = 1, 4, 8, 16, 24, 32
GROUP_ID, REFERENCE, UNTIL, QTY_MAX, ORDERS_MAX, DYNAMIC, STATIC, DISCOUNT, RATE = (
    28,
    64,
    72,
    80,
    88,
    92,
    96,
    100,
    104,
)
QUOTE_ID, SYMBOL, LOT, TICK, MAKER_FEE, TAKER_FEE, DECIMALS = 108, 112, 144, 152, 160, 164, 168
DEFINITION = {QUOTE_ID, SYMBOL, SYMBOL + 31, LOT, TICK, MAKER_FEE, TAKER_FEE, DECIMALS}
RULES = DEFINITION | {GROUP_ID, REFERENCE, UNTIL, QTY_MAX, ORDERS_MAX, DYNAMIC, STATIC, DISCOUNT, RATE}


def none_of(*offsets: int, but: frozenset[int] = frozenset()) -> dict[int, tuple[int, ...]]:
    """These fields and those of rules must be zero, but for some of the latter."""
    return dict.fromkeys((*offsets, *sorted(RULES - but)), (1,))


NOT_ALLOWED_TO_OPERATORS: dict[str, tuple[bytes, dict[int, tuple[int, ...]]]] = {
    "open account": (operator(OPEN), none_of(MARKET_STATE, OPERATOR_MARKET_ID, AMOUNT, ASSET_ID)),
    "register key": (operator(REGISTER), none_of(MARKET_STATE, OPERATOR_MARKET_ID, AMOUNT, ASSET_ID)),
    "deposit": (operator(DEPOSIT), none_of(MARKET_STATE, OPERATOR_MARKET_ID, NEW_KEY, NEW_KEY + 31)),
    "withdraw": (operator(WITHDRAW), none_of(MARKET_STATE, OPERATOR_MARKET_ID, NEW_KEY)),
    "set market state": (
        operator(HALT),
        {MARKET_STATE: (0, 9, 15, 16, 255)}
        | none_of(ACCOUNT_ID, AMOUNT, ASSET_ID, NEW_KEY, but=frozenset({UNTIL})),
    ),
    "set reference price": (
        operator(FEED),
        none_of(MARKET_STATE, ACCOUNT_ID, AMOUNT, ASSET_ID, NEW_KEY, but=frozenset({REFERENCE})),
    ),
    "set market rules": (
        operator(LIMIT),
        none_of(
            MARKET_STATE,
            ACCOUNT_ID,
            ASSET_ID,
            NEW_KEY,
            but=frozenset({UNTIL, QTY_MAX, ORDERS_MAX, DYNAMIC, STATIC}),
        ),
    ),
    "add asset": (
        operator(ASSET),
        none_of(
            MARKET_STATE,
            OPERATOR_MARKET_ID,
            ACCOUNT_ID,
            AMOUNT,
            NEW_KEY,
            but=frozenset({SYMBOL, SYMBOL + 31, DECIMALS}),
        ),
    ),
    "add market": (
        operator(MARKET),
        none_of(MARKET_STATE, ACCOUNT_ID, AMOUNT, NEW_KEY, but=frozenset({*DEFINITION} - {DECIMALS})),
    ),
    "set market sizes": (
        operator(SIZES),
        none_of(MARKET_STATE, ACCOUNT_ID, AMOUNT, ASSET_ID, NEW_KEY, but=frozenset({LOT, TICK})),
    ),
    "set account rules": (
        operator(TREAT),
        none_of(
            MARKET_STATE,
            OPERATOR_MARKET_ID,
            AMOUNT,
            ASSET_ID,
            NEW_KEY,
            but=frozenset({GROUP_ID, ORDERS_MAX, DISCOUNT, RATE}),
        ),
    ),
}
FIELDS = [
    pytest.param(put(frame, COMMANDS + offset, value), id=f"{kind}, byte {offset} is {value}")
    for kind, (frame, fields) in (NOT_ALLOWED | NOT_ALLOWED_TO_OPERATORS).items()
    for offset, values in fields.items()
    for value in values
]


@pytest.mark.parametrize("frame", FIELDS)
def test_fields_that_a_kind_of_command_does_not_allow(frame: bytes) -> None:
    assert check_frame(frame) is ReasonCode.ENUM_VALUE_UNKNOWN


def test_the_first_failing_check_gives_the_reason() -> None:
    """Faults are added from the last check to the first; each one hides those before."""
    faults: list[tuple[Callable[[bytes], bytes], ReasonCode]] = [
        (lambda frame: put(frame, COMMANDS + SIDE, 9), ReasonCode.ENUM_VALUE_UNKNOWN),
        (lambda frame: put(frame, COMMANDS + 5, 64), ReasonCode.RESERVED_BITS_SET),
        (lambda frame: resized(frame + b"\0"), ReasonCode.TRAILING_BYTES),
        (lambda frame: resized(frame[:-2]), ReasonCode.FRAME_TRUNCATED),
        (lambda frame: put(frame, GROUP + 2, 0), ReasonCode.COMMAND_COUNT_INVALID),
        (lambda frame: put(frame, GROUP, 1), ReasonCode.GROUP_SIZE_INVALID),
        (lambda frame: put(frame, 6, 1), ReasonCode.BLOCK_LENGTH_INVALID),
        (lambda frame: put(frame, 8, 99), ReasonCode.TEMPLATE_UNKNOWN),
        (lambda frame: put(frame, 12, 9), ReasonCode.VERSION_UNSUPPORTED),
        (lambda frame: put(frame, 10, 9), ReasonCode.SCHEMA_UNKNOWN),
        (lambda frame: put(frame, 4, 0), ReasonCode.ENCODING_TYPE_UNKNOWN),
        (lambda frame: put(frame, 0, 1), ReasonCode.FRAME_LENGTH_INVALID),
    ]
    frame = FRAME
    for damage, reason in faults:
        frame = damage(frame)
        assert check_frame(frame) is reason


# ------------------------------------------------------------------ signatures


def signed(count: int) -> list[bytes]:
    batches = [SignedBatch(nonce=nonce, commands=[NEW]) for nonce in range(count)]
    return [sign_batch(one, KEY, DEPLOYMENT_ID) for one in batches]


def test_signed_frames_verify() -> None:
    full = OperatorBatch(nonce=1, commands=[OPEN] * 64)
    assert verify_frames([*signed(3), sign_batch(full, KEY, DEPLOYMENT_ID)], DEPLOYMENT_ID) == [True] * 4
    assert verify_frames([], DEPLOYMENT_ID) == []


def test_one_forgery_among_many_is_found() -> None:
    batches = signed(5)
    batches[2] = put(batches[2], COMMANDS + QTY, 8)
    assert verify_frames(batches, DEPLOYMENT_ID) == [True, True, False, True, True]


def test_every_byte_that_is_signed_counts() -> None:
    [frame] = signed(1)
    for position in range(6, len(frame)):  # the framing header is not signed; it is checked
        assert verify_frames([put(frame, position, frame[position] ^ 1)], DEPLOYMENT_ID) == [False], position


def test_nothing_is_valid_in_another_deployment() -> None:
    assert verify_frames(signed(1), bytes(32)) == [False]
    with pytest.raises(ValueError, match="32 bytes"):
        verify_frames(signed(1), DEPLOYMENT_ID[:31])


@pytest.mark.parametrize("length", [0, 1, 14, 121, 4223, 5000])
def test_what_cannot_be_a_batch_is_not_signed(length: int) -> None:
    before, after = signed(2)
    assert verify_frames([before, bytes(length), after], DEPLOYMENT_ID) == [True, False, True]


def test_threads_may_verify_at_once() -> None:
    batches = signed(20)
    with ThreadPoolExecutor(4) as pool:
        verdicts = pool.map(lambda _: verify_frames(batches, DEPLOYMENT_ID), range(8))
    assert all(verdict == [True] * 20 for verdict in verdicts)


def test_verify_raw() -> None:
    message = b"anything"
    signature, public_key = KEY.sign(message).signature, bytes(KEY.verify_key)
    assert verify_raw(signature, message, public_key)
    assert not verify_raw(signature, message + b"!", public_key)
    assert not verify_raw(signature[:63], message, public_key)
    assert not verify_raw(signature, message, public_key + b"\0")


def test_self_test_knows_libsodiums_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    frames.self_test()
    monkeypatch.setattr(speccheck, "LIBSODIUM_ROW", speccheck.LIBSODIUM_ROW.replace("X", "V"))
    with pytest.raises(RuntimeError, match="refusing to run"):
        frames.self_test()
