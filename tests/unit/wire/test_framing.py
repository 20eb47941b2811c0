"""The frame splitter: whole, byte by byte, and with a bad header anywhere, it gives the same frames."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zexchange.wire.framing import MAX_FRAME_BYTES, MIN_FRAME_BYTES, FrameSplitter
from zexchange.wire.messages import ReasonCode, Sequence, Terminate, WireError

A = Sequence(next_seq_no=1).encode()
B = Terminate(reason=ReasonCode.CLIENT_REQUEST).encode()


def header(length: int, encoding_type: int = 0xEB50) -> bytes:
    return struct.pack(">IH", length, encoding_type)


def test_whole_frames_in_one_piece() -> None:
    assert FrameSplitter().feed(A + B + A) == [A, B, A]


def test_byte_by_byte() -> None:
    splitter = FrameSplitter()
    frames: list[bytes] = []
    for position, byte in enumerate(A + B):
        assert splitter.pending_bytes == position - len(b"".join(frames))
        frames += splitter.feed(bytes([byte]))
    assert frames == [A, B]
    assert splitter.pending_bytes == 0


@given(st.lists(st.sampled_from([A, B]), max_size=6), st.lists(st.integers(0, 200)))
def test_cuts_do_not_matter(frames: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frames)
    positions = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    splitter = FrameSplitter()
    got = []
    for start, end in itertools.pairwise(positions):
        got += splitter.feed(memoryview(stream)[start:end])
    assert got == frames


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (header(0), ReasonCode.FRAME_LENGTH_INVALID),
        (header(MIN_FRAME_BYTES - 1), ReasonCode.FRAME_LENGTH_INVALID),
        (header(MAX_FRAME_BYTES + 1), ReasonCode.FRAME_LENGTH_INVALID),
        (header(2**32 - 1), ReasonCode.FRAME_LENGTH_INVALID),
        (header(100, 0x50EB), ReasonCode.ENCODING_TYPE_UNKNOWN),
        (b"GET / HTTP/1.1\r\n", ReasonCode.FRAME_LENGTH_INVALID),
    ],
)
def test_a_bad_header_is_refused_at_once_and_for_ever(bad: bytes, reason: ReasonCode) -> None:
    splitter = FrameSplitter()
    for _ in range(2):
        with pytest.raises(WireError) as refused:
            splitter.feed(bad)
        assert refused.value.reason is reason
        assert splitter.error is reason
        assert splitter.pending_bytes == 0
    with pytest.raises(WireError):
        splitter.feed(A)


def test_frames_before_a_bad_header_still_count() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(A + B + header(1)) == [A, B]
    assert splitter.error is ReasonCode.FRAME_LENGTH_INVALID
    with pytest.raises(WireError):
        splitter.feed(b"")


def test_never_holds_more_than_one_frame() -> None:
    splitter = FrameSplitter(max_frame_bytes=100)
    assert splitter.feed(header(100) + bytes(93)) == []
    assert splitter.pending_bytes == 99
    assert splitter.feed(bytes(1)) == [header(100) + bytes(94)]


def test_the_limit_must_allow_a_header() -> None:
    with pytest.raises(ValueError, match="14"):
        FrameSplitter(max_frame_bytes=13)
