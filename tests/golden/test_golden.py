"""Frozen frames: our codec reads them, writes them back byte for byte, and refuses every damaged copy."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest
from nacl.signing import SigningKey

from tests.golden.kit import GOLDEN, PROTOCOL, GoldenCase, cases, plain, without_text_numbers
from zexchange.wire import signing
from zexchange.wire.messages import (
    MESSAGES,
    Establish,
    OperatorBatch,
    ReasonCode,
    SignedBatch,
    WireError,
    decode,
)

CASES = list(cases())


def with_length(frame: bytes) -> bytes:
    """The frame with its framing header corrected to its length."""
    return struct.pack(">I", len(frame)) + frame[4:]


def test_every_message_has_a_golden_file() -> None:
    assert {case.message for case in CASES} == {message.__name__ for message in MESSAGES.values()}
    assert len(list(GOLDEN.glob("*.json"))) == len(MESSAGES)


def test_generated_files_and_vectors_are_up_to_date() -> None:
    check = subprocess.run(
        [sys.executable, str(PROTOCOL / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize("case", CASES, ids=str)
class TestGoldenFrame:
    def test_decodes_to_its_fields(self, case: GoldenCase) -> None:
        message = decode(case.frame)
        assert type(message).__name__ == case.message
        assert case.template_id == message.TEMPLATE_ID
        assert plain(message) == without_text_numbers(case.fields)

    def test_encodes_to_the_same_bytes(self, case: GoldenCase) -> None:
        assert decode(case.frame).encode() == case.frame

    def test_decodes_from_any_buffer(self, case: GoldenCase) -> None:
        assert decode(memoryview(case.frame)) == decode(bytearray(case.frame)) == decode(case.frame)

    def test_a_flipped_byte_is_refused_or_means_something_else(self, case: GoldenCase) -> None:
        original = decode(case.frame)
        for position in range(len(case.frame)):
            for mask in (0x01, 0x80, 0xFF):
                damaged = bytearray(case.frame)
                damaged[position] ^= mask
                try:
                    message = decode(damaged)
                except WireError:
                    continue
                assert message != original, f"byte {position} is not read"
                assert message.encode() == damaged, f"byte {position} is not written"

    def test_a_truncated_frame_is_refused(self, case: GoldenCase) -> None:
        for length in range(len(case.frame)):
            with pytest.raises(WireError) as refused:
                decode(case.frame[:length])
            assert refused.value.reason is ReasonCode.FRAME_LENGTH_INVALID

    def test_a_truncated_message_is_refused_although_its_frame_is_whole(self, case: GoldenCase) -> None:
        for length in range(14, len(case.frame)):
            with pytest.raises(WireError) as refused:
                decode(with_length(case.frame[:length]))
            assert refused.value.reason is ReasonCode.FRAME_TRUNCATED

    def test_a_longer_frame_is_refused(self, case: GoldenCase) -> None:
        with pytest.raises(WireError) as refused:
            decode(with_length(case.frame + b"\0"))
        assert refused.value.reason is ReasonCode.TRAILING_BYTES


SIGNED = [case for case in CASES if case.seed]


@pytest.mark.parametrize("case", SIGNED, ids=str)
class TestGoldenSignature:
    def verify(self, frame: bytes, deployment_id: bytes) -> None:
        if isinstance(decode(frame), Establish):
            signing.verify_establish(frame, deployment_id)
        else:
            signing.verify_batch(frame, deployment_id)

    def test_verifies(self, case: GoldenCase) -> None:
        self.verify(case.frame, case.deployment_id)

    def test_signing_gives_the_same_frame(self, case: GoldenCase) -> None:
        message = decode(case.frame)
        assert isinstance(message, SignedBatch | OperatorBatch | Establish)
        message.signature = bytes(64)
        message.public_key = bytes(32)
        key = SigningKey(case.seed)
        if isinstance(message, Establish):
            frame = signing.sign_establish(message, key, case.deployment_id)
        else:
            frame = signing.sign_batch(message, key, case.deployment_id)
        assert frame == case.frame

    def test_is_worth_nothing_in_another_deployment(self, case: GoldenCase) -> None:
        with pytest.raises(WireError, match="signature"):
            self.verify(case.frame, bytes(32))

    def test_covers_every_byte_behind_the_framing_header(self, case: GoldenCase) -> None:
        for position in range(14, min(len(case.frame), 300)):
            damaged = bytearray(case.frame)
            damaged[position] ^= 0x01
            verify = signing.verify_establish if case.message == "Establish" else signing.verify_batch
            with pytest.raises(WireError) as refused:
                verify(damaged, case.deployment_id)
            assert refused.value.reason is ReasonCode.SIGNATURE_INVALID


def test_every_signed_message_has_a_signed_vector() -> None:
    assert {case.message for case in SIGNED} == {"SignedBatch", "OperatorBatch", "Establish"}
