"""Checks of frames in C: are they well-formed, are they signed? The fast twin of `zexchange.wire`.

`check_frame` gives the same verdicts as `zexchange.wire.messages.decode`, `verify_frames` the same as
`zexchange.wire.signing.verify_batch`. Both are pure functions of bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from zexchange.native import ffi, lib, sign_open
from zexchange.wire import speccheck
from zexchange.wire.messages import ReasonCode

__all__ = ["check_frame", "self_test", "verify_frames", "verify_raw"]

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32
DEPLOYMENT_ID_BYTES = 32


def check_frame(frame: bytes | bytearray | memoryview) -> ReasonCode:
    """NONE if `frame` is exactly one well-formed SignedBatch or OperatorBatch, else why not.

    `frame` is a whole frame, framing header included. Neither its signature nor its effect is looked at.
    """
    return ReasonCode(lib.frames_check(ffi.from_buffer("uint8_t[]", frame), len(frame), False))


def verify_frames(frames: Sequence[bytes], deployment_id: bytes) -> list[bool]:
    """Whether each frame is signed by the key it names, for this deployment of 32 bytes.

    One call into C for all of them, without the interpreter lock: threads verify in parallel. A frame too short
    or too long to be a batch is not signed.
    """
    if len(deployment_id) != DEPLOYMENT_ID_BYTES:
        raise ValueError(f"a deployment id is {DEPLOYMENT_ID_BYTES} bytes, not {len(deployment_id)}")
    count = len(frames)
    if not count:
        return []
    verdicts = bytearray(count)
    lib.frames_verify(
        sign_open,
        deployment_id,
        ffi.from_buffer("uint8_t[]", b"".join(frames)),
        ffi.new("uint32_t[]", [len(frame) for frame in frames]),
        count,
        ffi.from_buffer("uint8_t[]", verdicts),
    )
    return [verdict == 1 for verdict in verdicts]


def verify_raw(signature: bytes, message: bytes, public_key: bytes) -> bool:
    """Whether `signature` (64 bytes) over `message` is valid for `public_key` (32 bytes).

    By the function and in the way that `verify_frames` uses. Wrong lengths are not valid.
    """
    if len(signature) != SIGNATURE_BYTES or len(public_key) != PUBLIC_KEY_BYTES:
        return False
    signed = signature + message
    return int(sign_open(ffi.NULL, ffi.NULL, signed, len(signed), public_key)) == 0


def self_test() -> None:
    """Runs the ed25519-speccheck cases through C. Raises RuntimeError unless the verdicts are libsodium's.

    Every process that verifies calls this before it starts to serve.
    """
    row = "".join(
        "V" if verify_raw(case.signature, case.message, case.public_key) else "X" for case in speccheck.CASES
    )
    if row != speccheck.LIBSODIUM_ROW:
        raise RuntimeError(
            f"the Ed25519 verifier in C accepts other signatures than this exchange does: verdicts {row}, "
            f"expected {speccheck.LIBSODIUM_ROW}; refusing to run"
        )
