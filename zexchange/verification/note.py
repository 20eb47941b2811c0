"""C2SP signed notes: a text with Ed25519 signature lines, and the tree head of three lines inside such a
text.

    <origin> LF <tree size> LF <base64 root> LF          the text
    LF                                                    a blank line
    "— " <key name> " " base64(key id || signature) LF    one line per signature

The key id is the first four bytes of SHA-256(name || 0x0A || 0x01 || public key). A verifier key is written
`<name>+<key id in hex>+<base64(0x01 || public key)>`. Parsing is strict: one way to write a note, everything
else is refused, so that two readers never disagree about what was signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Self

from msgspec import Struct
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

__all__ = [
    "MAX_SIGNATURES",
    "Note",
    "NoteFault",
    "NoteInvalid",
    "NoteKey",
    "NoteSignature",
    "TreeHead",
    "open_note",
    "sign_note",
]

ED25519_ALGORITHM = 1
KEY_ID_BYTES = 4
SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32
ROOT_BYTES = 32
MAX_SIGNATURES = 16
"""A log and a handful of witnesses sign a note; more lines only cost the verifier time."""
MAX_NOTE_BYTES = 1 << 16
MAX_TREE_SIZE = (1 << 63) - 1
SIGNATURE_PREFIX = "— "


class NoteFault(StrEnum):
    """Why a note is refused."""

    MALFORMED = "malformed"
    AMBIGUOUS_KEY = "ambiguous key"
    INVALID_SIGNATURE = "invalid signature"
    UNVERIFIED = "no verifiable signature"


class NoteInvalid(ValueError):
    """A note, a verifier key or a tree head that is not to be trusted; `fault` says why."""

    def __init__(self, fault: NoteFault, detail: str = "") -> None:
        super().__init__(f"{fault}: {detail}" if detail else str(fault))
        self.fault = fault


class NoteKey(Struct, frozen=True, order=True):
    """A key that verifies notes: its name, and the 32 bytes of an Ed25519 public key."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of the same name apart."""
        hashed = self.name.encode() + b"\n" + bytes([ED25519_ALGORITHM]) + self.public_key
        return hashlib.sha256(hashed).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        encoded = base64.b64encode(bytes([ED25519_ALGORITHM]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the form `str()` writes. Raises NoteInvalid."""
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        blob = _strict_base64(encoded)
        if not _is_name(name) or len(blob) != 1 + PUBLIC_KEY_BYTES or blob[0] != ED25519_ALGORITHM:
            raise NoteInvalid(NoteFault.MALFORMED, "verifier key")
        key = cls(name, blob[1:])
        if key.key_id.hex() != key_id:
            raise NoteInvalid(NoteFault.MALFORMED, "the verifier key's id does not fit its name and key")
        return key


class NoteSignature(Struct, frozen=True):
    """One signature line. `signature` follows the key id; its length depends on the key's algorithm."""

    name: str
    key_id: bytes
    signature: bytes


class Note(Struct, frozen=True):
    """A note of which at least one signature was verified."""

    text: str
    """What was signed, with its final line feed."""
    verified: tuple[NoteSignature, ...]
    unverified: tuple[NoteSignature, ...]
    """Signatures by keys that are not trusted here. They prove nothing."""


class TreeHead(Struct, frozen=True):
    """The text of a checkpoint: exactly three lines, no extensions."""

    origin: str
    size: int
    """Leaves in the tree."""
    root: bytes

    def text(self) -> str:
        """The three lines, each with its line feed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the form `text()` writes and no other. Raises NoteInvalid."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] != "" or not lines[0]:
            raise NoteInvalid(NoteFault.MALFORMED, "a tree head has exactly three lines")
        origin, size_text, root_text, _ = lines
        if not (size_text.isascii() and size_text.isdigit()) or (size_text[0] == "0" and size_text != "0"):
            raise NoteInvalid(NoteFault.MALFORMED, "tree size")
        root = _strict_base64(root_text)
        if len(size_text) > 19 or int(size_text) > MAX_TREE_SIZE or len(root) != ROOT_BYTES:
            raise NoteInvalid(NoteFault.MALFORMED, "tree size or root")
        return cls(origin, int(size_text), root)


def sign_note(text: str, name: str, key: SigningKey) -> bytes:
    """The signed note with this text. Ed25519 is deterministic: the same text gives the same bytes.

    Raises NoteInvalid if the text or the name cannot be written in a note.
    """
    if not _is_name(name):
        raise NoteInvalid(NoteFault.MALFORMED, "key name")
    if not text.endswith("\n") or "\n\n" in text or not _is_printable(text):
        raise NoteInvalid(NoteFault.MALFORMED, "text")
    signed = text.encode()
    blob = NoteKey(name, bytes(key.verify_key)).key_id + key.sign(signed).signature
    return signed + f"\n{SIGNATURE_PREFIX}{name} {base64.b64encode(blob).decode()}\n".encode()


def open_note(note: bytes, trusted: Sequence[NoteKey]) -> Note:
    """Verifies a note with the trusted keys. Raises NoteInvalid unless at least one signature is theirs and
    good.

    A bad signature of a trusted key refuses the note, whatever other signatures say. Repeated lines count
    once.
    """
    text, lines = _split(note)
    verified: list[NoteSignature] = []
    unverified: list[NoteSignature] = []
    seen: set[NoteSignature | tuple[str, bytes]] = set()
    for line in lines:
        found = _signature_line(line)
        keys = [key for key in trusted if key.name == found.name and key.key_id == found.key_id]
        if len(keys) > 1:
            raise NoteInvalid(NoteFault.AMBIGUOUS_KEY, found.name)
        repeated = found if not keys else (found.name, found.key_id)
        if repeated in seen:
            continue
        seen.add(repeated)
        if not keys:
            unverified.append(found)
            continue
        _verify(text, found, keys[0])
        verified.append(found)
    if not verified:
        raise NoteInvalid(NoteFault.UNVERIFIED)
    return Note(text, tuple(verified), tuple(unverified))


def _split(note: bytes) -> tuple[str, list[str]]:
    """The signed text and the signature lines of a note."""
    if len(note) > MAX_NOTE_BYTES:
        raise NoteInvalid(NoteFault.MALFORMED, "too long")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteInvalid(NoteFault.MALFORMED, "not UTF-8") from error
    if not _is_printable(whole):
        raise NoteInvalid(NoteFault.MALFORMED, "control character")
    head, blank_line, signatures = whole.rpartition("\n\n")
    if not blank_line or not signatures.endswith("\n"):
        raise NoteInvalid(NoteFault.MALFORMED, "no signature lines")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteInvalid(NoteFault.MALFORMED, f"more than {MAX_SIGNATURES} signatures")
    return head + "\n", lines


def _signature_line(line: str) -> NoteSignature:
    if not line.startswith(SIGNATURE_PREFIX):
        raise NoteInvalid(NoteFault.MALFORMED, "signature line")
    name, _, encoded = line.removeprefix(SIGNATURE_PREFIX).partition(" ")
    blob = _strict_base64(encoded)
    if not _is_name(name) or len(blob) <= KEY_ID_BYTES:
        raise NoteInvalid(NoteFault.MALFORMED, "signature line")
    return NoteSignature(name, blob[:KEY_ID_BYTES], blob[KEY_ID_BYTES:])


def _verify(text: str, found: NoteSignature, key: NoteKey) -> None:
    if len(found.signature) != SIGNATURE_BYTES:
        raise NoteInvalid(NoteFault.INVALID_SIGNATURE, found.name)
    try:
        VerifyKey(key.public_key).verify(text.encode(), found.signature)
    except BadSignatureError as error:
        raise NoteInvalid(NoteFault.INVALID_SIGNATURE, found.name) from error


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(char.isspace() for char in name)


def _is_printable(text: str) -> bool:
    """No control characters other than the line feed."""
    return all(char >= " " or char == "\n" for char in text)


def _strict_base64(text: str) -> bytes:
    """Decodes canonical base64 with padding. Raises NoteInvalid."""
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteInvalid(NoteFault.MALFORMED, "base64") from error
    if base64.b64encode(blob).decode() != text:
        raise NoteInvalid(NoteFault.MALFORMED, "base64 is not canonical")
    return blob
