"""Checks of frames in C: are they well-formed, are they signed? The fast twin of `zexchange.wire`.

`check_frame` gives the same verdicts as `zexchange.wire.messages.decode`, `verify_frames` the same as
`zexchange.wire.signing.verify_batch`. Both are pure functions of bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zexchange.native import ffi, lib, sign_open
from zexchange.wire import speccheck
from zexchange.wire.messages import ReasonCode

__all__ = ["Verifiers", "check_frame", "scan_batches", "self_test", "verify_frames", "verify_raw"]

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


_SCANNED_MAX = 512
_scanned = ffi.new("intake_batch[]", _SCANNED_MAX)
"""Scratch of `scan_batches`: filled and read in one call."""


def scan_batches(data: bytes, public_key: bytes, shards: int) -> tuple[list[tuple[int, int, bytes]], int]:
    """(nonce, shard, frame) of the batches at the start of what a client sent, and how many bytes they take.

    They are whole, well-formed, of the key of 32 bytes, for a shard below `shards`, and their signatures are NOT
    checked. The first byte that is not counted begins something else: another message, a fault, or the first
    part of a frame. See csrc/intake.h. Not for several threads.
    """
    scanned = lib.intake_scan(data, len(data), public_key, shards, _scanned, _SCANNED_MAX)
    count = scanned.found
    if count == 1:
        found = _scanned[0]
        return [
            (found.nonce, found.shard, data[found.offset : found.offset + found.length])
        ], scanned.consumed
    batches = [
        (found.nonce, found.shard, data[found.offset : found.offset + found.length])
        for found in ffi.unpack(_scanned, count)
    ]
    return batches, scanned.consumed


class Verifiers:
    """`verify_frames` with the help of threads; see csrc/verifiers.h. Used by one thread at a time."""

    def __init__(self, helpers: int) -> None:
        """Starts `helpers` threads, which end with this object. Raises ValueError, MemoryError."""
        if not 0 <= helpers <= lib.VERIFIERS_HELPERS_MAX:
            raise ValueError(f"{helpers} helpers: 0 to {lib.VERIFIERS_HELPERS_MAX}")
        out = ffi.new("verifiers **")
        if lib.verifiers_create(helpers, out) != lib.ZX_OK:
            raise MemoryError("the threads that verify cannot be started")
        self._handle = ffi.gc(out[0], lib.verifiers_destroy)

    @property
    def handle(self) -> Any:
        """`verifiers *` for other calls into C; valid as long as this object."""
        return self._handle

    def verify(self, frames: Sequence[bytes], deployment_id: bytes) -> list[bool]:
        """As `verify_frames`, for at most 4,096 frames."""
        if len(deployment_id) != DEPLOYMENT_ID_BYTES:
            raise ValueError(f"a deployment id is {DEPLOYMENT_ID_BYTES} bytes, not {len(deployment_id)}")
        count = len(frames)
        if count > lib.VERIFIERS_FRAMES_MAX:
            raise ValueError(f"{count} frames in one call, at most {lib.VERIFIERS_FRAMES_MAX}")
        verdicts = bytearray(count)
        lib.verifiers_run(
            self._handle,
            sign_open,
            deployment_id,
            b"".join(frames),
            [len(frame) for frame in frames],
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
