"""Text of paths, queries and bodies as what it stands for. Pure."""

from __future__ import annotations

import base64
import binascii

import msgspec

from webapp.problems import Problem, of_reason
from zexchange.wire import signing
from zexchange.wire.messages import SignedBatch, WireError, decode, template_of

_SHOWN_CHARS = 40


def whole_of(text: str) -> int:
    """A number in a path; -1 for what is none, or is not the one way to write it."""
    if not text.isascii() or not text.isdecimal() or len(text) >= 20 or (text[0] == "0" and text != "0"):
        return -1
    return int(text)


def shown(text: str) -> str:
    """What a client sent, short enough to be repeated to it."""
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...")


def key_of(text: str, field: str = "public_key") -> bytes:
    """A public key in hex. Raises Problem."""
    key = hex_of(text, field)
    if len(key) != signing.PUBLIC_KEY_BYTES:
        raise Problem("BAD_REQUEST", "a public key is 64 hex digits", field=field)
    return key


def hex_of(text: str, field: str) -> bytes:
    """Raises Problem."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Problem("BAD_REQUEST", f"{field} is not hex", field=field) from None


def cursor_of(text: str) -> dict[int, int]:
    """An opaque cursor: a number per shard. Raises Problem."""
    if not text:
        return {}
    try:
        return msgspec.msgpack.decode(base64.urlsafe_b64decode(text), type=dict[int, int])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise Problem("BAD_REQUEST", "the cursor is not one of ours", field="cursor") from None


def cursor_text(numbers: dict[int, int]) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(numbers)).decode("ascii")


def batch_of(frame: bytes) -> SignedBatch:
    """A frame as the batch that it must be. Raises Problem."""
    try:
        if template_of(frame) != SignedBatch.TEMPLATE_ID:
            raise Problem("BAD_REQUEST", "the body is not a SignedBatch frame")
        batch = decode(frame)
    except WireError as error:
        raise of_reason(error.reason, str(error)) from None
    assert isinstance(batch, SignedBatch)
    return batch
