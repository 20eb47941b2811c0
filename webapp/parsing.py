"""Text of paths, queries and bodies as what it stands for. Pure."""

from __future__ import annotations

import base64
import binascii
import re

import msgspec

from webapp.problems import Problem, of_reason
from zexchange.wire import signing
from zexchange.wire.messages import SignedBatch, WireError, decode, template_of

_SHOWN_CHARS = 40
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?")
_DECIMAL_CHARS_MAX = 100
_U64_MAX = 2**64 - 1


def whole_of(text: str) -> int:
    """A number in a path; -1 for what is none, or is not the one way to write it."""
    if not text.isascii() or not text.isdecimal() or len(text) >= 20 or (text[0] == "0" and text != "0"):
        return -1
    return int(text)


def decimal_of(text: str, field: str) -> str:
    """A decimal as the API writes them: digits, with one dot in between or none. Raises Problem."""
    if len(text) > _DECIMAL_CHARS_MAX or not _DECIMAL.fullmatch(text):
        raise Problem(
            "BAD_REQUEST", f"{field} is digits with at most one dot, not {shown(text)}", field=field
        )
    return text


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
    strange = Problem("BAD_REQUEST", "the cursor is not one of ours", field="cursor")
    try:
        numbers = msgspec.msgpack.decode(base64.urlsafe_b64decode(text), type=dict[int, int])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise strange from None
    if not all(0 <= number <= _U64_MAX for pair in numbers.items() for number in pair):
        raise strange
    return numbers


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
