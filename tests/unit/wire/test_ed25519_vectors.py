"""Published Ed25519 vectors through every verifier of the product: one rule, one row of verdicts, everywhere.

Add a verifier to `RAW_VERIFIERS` (any message) or `BATCH_VERIFIERS` (whole frames) and every vector runs
through it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from nacl.signing import SigningKey

from tests.conftest import shared_data
from zexchange import frames
from zexchange.verification import replica, verifier
from zexchange.wire import signing, speccheck
from zexchange.wire.messages import Command, CommandKind, Establish, ReasonCode, SignedBatch, WireError

RawVerifier = Callable[[bytes, bytes, bytes], bool]
BatchVerifier = Callable[[bytes, bytes], bool]


def accepts(verify: Callable[..., Any]) -> Callable[..., bool]:
    """Turn a verifier that raises into one that answers; one that answers stays as it is."""

    def verdict(*arguments: bytes) -> bool:
        try:
            answer = verify(*arguments)
        except WireError as error:
            if error.reason is not ReasonCode.SIGNATURE_INVALID:
                raise
            return False
        return answer is None or bool(answer)

    return verdict


def bulk(verify: Callable[[list[bytes], bytes], Sequence[bool]]) -> BatchVerifier:
    """Put a frame between two that are not signed: its verdict must not depend on its neighbours."""

    def verdict(frame: bytes, deployment_id: bytes) -> bool:
        unsigned = SignedBatch(commands=[Command(kind=CommandKind.CANCEL_ALL)]).encode()
        first, answer, last = verify([unsigned, frame, unsigned], deployment_id)
        assert not first
        assert not last
        return answer

    return verdict


RAW_VERIFIERS: dict[str, RawVerifier] = {
    "SDK and logon": accepts(signing.verify_raw),
    "C": frames.verify_raw,
}
BATCH_VERIFIERS: dict[str, BatchVerifier] = {
    "SDK": accepts(signing.verify_batch),
    "ingress": bulk(frames.verify_frames),
    "settlement": bulk(replica.verify_signatures),
    "verifier": bulk(verifier.ParallelSignatures(2)),
    "verifier with the reference": bulk(verifier.verify_signatures_plainly),
}


@dataclass(frozen=True)
class Vector:
    """One signature and whether it is valid under our rule."""

    name: str
    public_key: bytes
    message: bytes
    signature: bytes
    valid: bool

    def __str__(self) -> str:
        return self.name


def load(name: str) -> Any:
    return json.loads((shared_data("vectors") / "ed25519" / name).read_text(encoding="utf-8"))


def wycheproof() -> Iterator[Vector]:
    for group in load("wycheproof_ed25519_test.json")["testGroups"]:
        for test in group["tests"]:
            yield Vector(
                f"wycheproof {test['tcId']}",
                bytes.fromhex(group["publicKey"]["pk"]),
                bytes.fromhex(test["msg"]),
                bytes.fromhex(test["sig"]),
                test["result"] == "valid",
            )


def rfc8032() -> Iterator[Vector]:
    for test in load("rfc8032_ed25519.json"):
        yield Vector(
            f"RFC 8032 {test['name']}",
            bytes.fromhex(test["public"]),
            bytes.fromhex(test["message"]),
            bytes.fromhex(test["signature"]),
            True,
        )


def speccheck_vectors() -> Iterator[Vector]:
    for number, case in enumerate(load("speccheck_cases.json")):
        yield Vector(
            f"speccheck {number}",
            bytes.fromhex(case["pub_key"]),
            bytes.fromhex(case["message"]),
            bytes.fromhex(case["signature"]),
            load("speccheck_expected.json")["published"]["LibSodium"][number] == "V",
        )


def as_batch(vector: Vector) -> bytes:
    """A well-formed frame that carries the vector's key and signature."""
    command = Command(kind=CommandKind.CANCEL_ALL)
    batch = SignedBatch(nonce=1, public_key=vector.public_key, commands=[command])
    frame = batch.encode()
    return frame[:14] + vector.signature + frame[78:]


@pytest.mark.parametrize("verifier", RAW_VERIFIERS)
@pytest.mark.parametrize(
    "source", [wycheproof, rfc8032, speccheck_vectors], ids=lambda source: source.__name__
)
def test_verdicts(verifier: str, source: Callable[[], Iterator[Vector]]) -> None:
    vectors = list(source())
    assert len(vectors) == {"wycheproof": 151, "rfc8032": 5, "speccheck_vectors": 12}[source.__name__]
    wrong = [
        vector.name
        for vector in vectors
        if RAW_VERIFIERS[verifier](vector.signature, vector.message, vector.public_key) != vector.valid
    ]
    assert wrong == []


@pytest.mark.parametrize("verifier", RAW_VERIFIERS)
def test_a_flipped_bit_anywhere_is_refused(verifier: str) -> None:
    vector = list(rfc8032())[2]
    for position in range(64):
        signature = bytearray(vector.signature)
        signature[position] ^= 0x10
        assert not RAW_VERIFIERS[verifier](bytes(signature), vector.message, vector.public_key)


def test_signing_reproduces_rfc_8032() -> None:
    for test in load("rfc8032_ed25519.json"):
        key = SigningKey(bytes.fromhex(test["secret"]))
        assert bytes(key.verify_key).hex() == test["public"]
        assert key.sign(bytes.fromhex(test["message"])).signature.hex() == test["signature"]


@pytest.mark.parametrize("verifier", BATCH_VERIFIERS)
def test_no_vector_is_valid_through_the_wire(verifier: str) -> None:
    """Vectors sign their own message, never ours: carried by a frame, each must be refused.

    That includes the small-order keys of the speccheck cases, for which lax rules accept one signature over
    every message.
    """
    vectors = [*wycheproof(), *rfc8032(), *speccheck_vectors()]
    carried = [vector for vector in vectors if len(vector.signature) == 64]
    assert len(carried) > 150
    for vector in carried:
        assert not BATCH_VERIFIERS[verifier](as_batch(vector), bytes(32)), vector


@pytest.mark.parametrize("verifier", BATCH_VERIFIERS)
def test_an_honest_frame_is_valid_and_its_malleable_twin_is_not(verifier: str) -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    deployment_id = bytes(range(32))
    for number in range(16):
        batch = SignedBatch(nonce=number, commands=[Command(kind=CommandKind.CANCEL_ALL)])
        frame = signing.sign_batch(batch, SigningKey(bytes([number]) * 32), deployment_id)
        assert BATCH_VERIFIERS[verifier](frame, deployment_id)
        twin_s = int.from_bytes(frame[46:78], "little") + order
        twin = frame[:46] + twin_s.to_bytes(32, "little") + frame[78:]
        assert not BATCH_VERIFIERS[verifier](twin, deployment_id)


def test_the_embedded_cases_are_the_published_ones() -> None:
    published = list(speccheck_vectors())
    assert [(c.message, c.public_key, c.signature) for c in speccheck.CASES] == [
        (v.message, v.public_key, v.signature) for v in published
    ]
    assert "".join("V" if v.valid else "X" for v in published) == speccheck.LIBSODIUM_ROW
    assert [c.condition for c in speccheck.CASES] == load("speccheck_expected.json")["conditions"]


def test_self_test_refuses_a_verifier_with_another_row() -> None:
    signing.self_test()
    with pytest.raises(RuntimeError, match="VVVVVVVVVVVV"):
        signing.self_test(lambda signature, message, public_key: None)


def test_self_test_of_the_bulk_verifier() -> None:
    frames.self_test()


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_the_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(WireError):
        signing.verify_raw(bytes(64), b"", bytes(length))


def test_signed_bytes_name_purpose_deployment_and_content() -> None:
    deployment_id = bytes(range(32))
    frame = SignedBatch(nonce=1, commands=[Command(kind=CommandKind.CANCEL_ALL)]).encode()
    assert (
        signing.batch_signed_bytes(frame, deployment_id)
        == b"zx.v1/batch\0\0\0\0\0" + deployment_id + frame[6:14] + frame[78:]
    )
    logon = Establish().encode()
    assert signing.establish_signed_bytes(logon, deployment_id).startswith(b"zx.v1/logon\0\0\0\0\0")
    with pytest.raises(ValueError, match="32"):
        signing.batch_signed_bytes(frame, bytes(31))


def test_verifiers_refuse_other_messages() -> None:
    key = SigningKey(bytes(32))
    batch = signing.sign_batch(SignedBatch(commands=[Command(kind=CommandKind.CANCEL_ALL)]), key, bytes(32))
    logon = signing.sign_establish(Establish(), key, bytes(32))
    for verify, frame in ((signing.verify_batch, logon), (signing.verify_establish, batch)):
        with pytest.raises(WireError) as refused:
            verify(frame, bytes(32))
        assert refused.value.reason is ReasonCode.TEMPLATE_UNKNOWN
    signing.verify_establish(logon, bytes(32))
