"""The frame checks exist twice, in Python and in C. They must give the same reason for every frame."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden.kit import cases
from zexchange import frames
from zexchange.wire.messages import ReasonCode, WireError, decode

BATCHES = [case.frame for case in cases() if case.message in ("SignedBatch", "OperatorBatch")]
BATCH_TEMPLATES = {1, 2}


def in_python(frame: bytes) -> ReasonCode:
    try:
        message = decode(frame)
    except WireError as error:
        return error.reason
    return ReasonCode.NONE if message.TEMPLATE_ID in BATCH_TEMPLATES else ReasonCode.TEMPLATE_UNKNOWN


def is_batch_header(frame: bytes) -> bool:
    return len(frame) < 10 or struct.unpack_from("<H", frame, 8)[0] in BATCH_TEMPLATES


def resized(frame: bytes) -> bytes:
    return struct.pack(">I", len(frame)) + frame[4:]


@pytest.mark.parametrize("frame", BATCHES, ids=len)
def test_every_byte(frame: bytes) -> None:
    for position in range(min(len(frame), 700)):
        for value in (0, 1, 2, 3, 4, 5, 0x40, 0x80, 0xFF):
            damaged = frame[:position] + bytes([value]) + frame[position + 1 :]
            if is_batch_header(damaged):
                assert frames.check_frame(damaged) == in_python(damaged), (position, value)


@pytest.mark.parametrize("frame", BATCHES, ids=len)
def test_every_length(frame: bytes) -> None:
    for length in range(len(frame)):
        for cut in (frame[:length], resized(frame[:length]) if length >= 4 else b""):
            assert frames.check_frame(cut) == in_python(cut), length
    for tail in (b"\0", bytes(48), bytes(64)):
        assert frames.check_frame(resized(frame + tail)) == ReasonCode.TRAILING_BYTES


@settings(max_examples=500)
@given(
    st.sampled_from(BATCHES),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_several_faults_at_once(frame: bytes, faults: list[tuple[int, int]]) -> None:
    damaged = bytearray(frame)
    for position, value in faults:
        damaged[position % len(frame)] = value
    if is_batch_header(bytes(damaged)):
        assert frames.check_frame(bytes(damaged)) == in_python(bytes(damaged))
