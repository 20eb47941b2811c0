"""Ed25519 signatures of batches and logons: what is signed, how it is signed, how it is verified.

    signed bytes = tag[16] || deployment_id[32] || SBE header[8] || everything behind the signature field

The signature is the first field of the root block, so what it covers is one contiguous run of the frame.
The tag keeps a signed logon from being passed off as a batch, the deployment id keeps either from being
valid anywhere else.

All verification goes through libsodium (PyNaCl's), whose rule is: S < L, canonical and not small-order A
and R, no cofactor. `self_test()` proves that this is the rule in force.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

import nacl.bindings
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey

from zexchange.wire.messages import (
    BODY_OFFSET,
    FRAME_HEADER_BYTES,
    Buffer,
    Establish,
    OperatorBatch,
    ReasonCode,
    SignedBatch,
    WireError,
    template_of,
)
from zexchange.wire.speccheck import CASES, LIBSODIUM_ROW

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32
DEPLOYMENT_ID_BYTES = 32

TAG_BATCH = b"zx.v1/batch".ljust(16, b"\0")
TAG_LOGON = b"zx.v1/logon".ljust(16, b"\0")
TAG_REQUEST = b"zx.v1/request".ljust(16, b"\0")

_SIGNATURE_END = BODY_OFFSET + SIGNATURE_BYTES
_PUBLIC_KEY_END = _SIGNATURE_END + PUBLIC_KEY_BYTES

Verifier: TypeAlias = Callable[[bytes, bytes, bytes], None]
"""(signature, message, public_key): returns if valid, else raises WireError(SIGNATURE_INVALID)."""


def batch_signed_bytes(frame: Buffer, deployment_id: bytes) -> bytes:
    """What the signature of a SignedBatch or OperatorBatch frame covers."""
    return _signed_bytes(TAG_BATCH, frame, deployment_id)


def establish_signed_bytes(frame: Buffer, deployment_id: bytes) -> bytes:
    """What the signature of an Establish frame covers."""
    return _signed_bytes(TAG_LOGON, frame, deployment_id)


def request_signed_bytes(
    deployment_id: bytes, method: str, path: str, query: str, body: bytes, timestamp_ms: int, nonce: str
) -> bytes:
    """What the signature of a single HTTP request covers (docs/web.md); path and query as sent, without the "?"."""
    lines = (method, path, query, str(timestamp_ms), nonce, hashlib.sha256(body).hexdigest())
    return TAG_REQUEST + deployment_id + "\n".join(lines).encode()


def sign_batch(batch: SignedBatch | OperatorBatch, key: SigningKey, deployment_id: bytes) -> bytes:
    """Put `key`'s public key and signature into `batch` and return the frame. Raises EncodeError."""
    return _sign(TAG_BATCH, batch, key, deployment_id)


def sign_establish(establish: Establish, key: SigningKey, deployment_id: bytes) -> bytes:
    """Put `key`'s public key and signature into `establish` and return the frame. Raises EncodeError."""
    return _sign(TAG_LOGON, establish, key, deployment_id)


def verify_batch(frame: Buffer, deployment_id: bytes) -> None:
    """Check the signature of a SignedBatch or OperatorBatch frame with the public key inside it.

    Raises WireError(SIGNATURE_INVALID); WireError with another reason if the frame is none of these two
    messages. It does not check the commands: see `zexchange.wire.messages.decode`.
    """
    if template_of(frame) not in (SignedBatch.TEMPLATE_ID, OperatorBatch.TEMPLATE_ID):
        raise WireError(ReasonCode.TEMPLATE_UNKNOWN, "not a signed batch")
    _verify(TAG_BATCH, frame, deployment_id)


def verify_establish(frame: Buffer, deployment_id: bytes) -> None:
    """Check the signature of an Establish frame by the public key inside it. Raises as verify_batch."""
    if template_of(frame) != Establish.TEMPLATE_ID:
        raise WireError(ReasonCode.TEMPLATE_UNKNOWN, "not an Establish")
    _verify(TAG_LOGON, frame, deployment_id)


def verify_raw(signature: bytes, message: bytes, public_key: bytes) -> None:
    """Check a signature over any message. Raises WireError(SIGNATURE_INVALID), wrong lengths included."""
    if len(signature) != SIGNATURE_BYTES or len(public_key) != PUBLIC_KEY_BYTES:
        raise WireError(ReasonCode.SIGNATURE_INVALID, "wrong length")
    try:
        nacl.bindings.crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        raise WireError(ReasonCode.SIGNATURE_INVALID) from None


def self_test(verify: Verifier = verify_raw) -> None:
    """Run the ed25519-speccheck cases through a verifier. Raises RuntimeError unless its row is libsodium's.

    Every process that verifies calls this before it starts to serve.
    """
    row = "".join(_verdict(verify, case.signature, case.message, case.public_key) for case in CASES)
    if row != LIBSODIUM_ROW:
        raise RuntimeError(
            f"the Ed25519 verifier accepts other signatures than this exchange does: verdicts {row}, "
            f"expected {LIBSODIUM_ROW}; refusing to run"
        )


def _verdict(verify: Verifier, signature: bytes, message: bytes, public_key: bytes) -> str:
    try:
        verify(signature, message, public_key)
    except WireError:
        return "X"
    return "V"


def _signed_bytes(tag: bytes, frame: Buffer, deployment_id: bytes) -> bytes:
    if len(deployment_id) != DEPLOYMENT_ID_BYTES:
        raise ValueError(f"deployment id: {len(deployment_id)} bytes, must be {DEPLOYMENT_ID_BYTES}")
    return b"".join(
        (tag, deployment_id, frame[FRAME_HEADER_BYTES:BODY_OFFSET], frame[_SIGNATURE_END:]),
    )


def _sign(
    tag: bytes, message: SignedBatch | OperatorBatch | Establish, key: SigningKey, deployment_id: bytes
) -> bytes:
    message.public_key = bytes(key.verify_key)
    message.signature = bytes(SIGNATURE_BYTES)
    frame = message.encode()
    message.signature = key.sign(_signed_bytes(tag, frame, deployment_id)).signature
    return frame[:BODY_OFFSET] + message.signature + frame[_SIGNATURE_END:]


def _verify(tag: bytes, frame: Buffer, deployment_id: bytes) -> None:
    if len(frame) < _PUBLIC_KEY_END:
        raise WireError(ReasonCode.FRAME_TRUNCATED)
    signature = bytes(frame[BODY_OFFSET:_SIGNATURE_END])
    public_key = bytes(frame[_SIGNATURE_END:_PUBLIC_KEY_END])
    verify_raw(signature, _signed_bytes(tag, frame, deployment_id), public_key)
