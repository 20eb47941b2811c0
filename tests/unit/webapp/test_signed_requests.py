"""Single signed requests: who asks, once."""

from __future__ import annotations

from typing import Any

import pytest
from nacl.signing import SigningKey

from webapp import signed_requests
from webapp.problems import Problem
from webapp.signed_requests import WINDOW_MS, SignedRequests
from zexchange.wire.signing import request_signed_bytes

DEPLOYMENT_ID = bytes(range(32))
KEY = SigningKey(bytes([7]) * 32)
BEGUN_MS = 1_800_000_000_000


class Server:
    """What checks, with its clock in our hand; account 5 has the key."""

    def __init__(self) -> None:
        self.now_ms = BEGUN_MS
        self.requests = SignedRequests(DEPLOYMENT_ID, lambda: self.now_ms)

    def ask(self, headers: dict[str, str], **changed: Any) -> int:
        request = {"method": "GET", "path": "/api/v1/orders", "query": "limit=5", "body": b"", **changed}
        account_of = {bytes(KEY.verify_key): 5}.get
        return self.requests.account(**request, headers=headers, account_of=account_of)

    def refusal(self, headers: dict[str, str], **changed: Any) -> tuple[str, int, str]:
        with pytest.raises(Problem) as raised:
            self.ask(headers, **changed)
        return raised.value.code, raised.value.status, raised.value.field


def signed(time_ms: int, nonce: str = "nonce-01", key: SigningKey = KEY, **changed: Any) -> dict[str, str]:
    request = {"method": "GET", "path": "/api/v1/orders", "query": "limit=5", "body": b"", **changed}
    deployment_id = request.pop("deployment_id", DEPLOYMENT_ID)
    message = request_signed_bytes(deployment_id, **request, timestamp_ms=time_ms, nonce=nonce)
    return {
        "Zx-Key": bytes(key.verify_key).hex(),
        "Zx-Timestamp": str(time_ms),
        "Zx-Nonce": nonce,
        "Zx-Signature": key.sign(message).signature.hex(),
    }


def test_who_signs_is_who_asks() -> None:
    server = Server()
    assert server.ask(signed(BEGUN_MS)) == 5
    assert server.ask(signed(BEGUN_MS, "nonce-02", body=b"{}"), body=b"{}") == 5


def test_it_is_documented_byte_by_byte() -> None:
    expected = (
        b"zx.v1/request\0\0\0"
        + DEPLOYMENT_ID
        + b"GET\n/api/v1/fills\ncursor=a%20b\n1800000000000\nnonce-01\n"
        + b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    found = request_signed_bytes(
        DEPLOYMENT_ID, "GET", "/api/v1/fills", "cursor=a%20b", b"", BEGUN_MS, "nonce-01"
    )
    assert found == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "POST"},
        {"path": "/api/v1/balances"},
        {"query": "limit=6"},
        {"query": ""},
        {"body": b"{}"},
    ],
    ids=str,
)
def test_a_signature_is_good_for_nothing_else(changed: dict[str, Any]) -> None:
    refusal = Server().refusal(signed(BEGUN_MS), **changed)
    assert refusal == ("REQUEST_SIGNATURE_INVALID", 401, "Zx-Signature")


def test_every_bit_of_a_signature_counts() -> None:
    server = Server()
    headers = signed(BEGUN_MS)
    signature = bytes.fromhex(headers["Zx-Signature"])
    for at in range(len(signature)):
        forged = bytearray(signature)
        forged[at] ^= 1 << at % 8
        assert server.refusal(headers | {"Zx-Signature": forged.hex()})[0] == "REQUEST_SIGNATURE_INVALID"
    other = bytes(SigningKey(bytes([8]) * 32).verify_key).hex()
    assert server.refusal(headers | {"Zx-Key": other})[0] == "REQUEST_SIGNATURE_INVALID"
    elsewhere = signed(BEGUN_MS, deployment_id=bytes(32))
    assert server.refusal(elsewhere)[0] == "REQUEST_SIGNATURE_INVALID"
    assert server.ask(headers) == 5, "what was refused uses up no nonce"


def test_the_same_request_is_answered_once() -> None:
    server = Server()
    headers = signed(BEGUN_MS + WINDOW_MS)
    assert server.ask(headers) == 5
    assert server.refusal(headers) == ("REQUEST_REPLAYED", 401, "Zx-Nonce")
    # As long as its time is good, and behind that its time is not good.
    server.now_ms = BEGUN_MS + 2 * WINDOW_MS
    assert server.refusal(headers)[0] == "REQUEST_REPLAYED"
    server.now_ms += 1
    assert server.refusal(headers) == ("REQUEST_EXPIRED", 401, "Zx-Timestamp")
    assert server.ask(signed(server.now_ms)) == 5, "its nonce may be used again"


def test_nothing_from_before_the_process_is_good_after_it() -> None:
    server = Server()
    server.now_ms += 10
    assert server.refusal(signed(BEGUN_MS - 1))[0] == "REQUEST_EXPIRED"
    assert server.ask(signed(BEGUN_MS)) == 5
    assert server.refusal(signed(server.now_ms + WINDOW_MS + 1, "nonce-02"))[0] == "REQUEST_EXPIRED"


def test_keys_without_an_account_cost_no_memory() -> None:
    server = Server()
    stranger = SigningKey(bytes([9]) * 32)
    for _ in range(2):
        assert server.refusal(signed(BEGUN_MS, key=stranger))[0] == "UNKNOWN_KEY"


def test_there_is_an_end_to_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_requests, "NONCES_MAX", 3)
    server = Server()
    for number in range(3):
        server.ask(signed(BEGUN_MS, f"nonce-{number:02}"))
    assert server.refusal(signed(BEGUN_MS, "nonce-99"))[0] == "SERVER_BUSY"
    server.now_ms += WINDOW_MS + 1
    assert server.ask(signed(server.now_ms, "nonce-99")) == 5


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Zx-Key", ""),
        ("Zx-Key", "00" * 31),
        ("Zx-Key", "xy" * 32),
        ("Zx-Signature", "xy"),
        ("Zx-Nonce", "short"),
        ("Zx-Nonce", "n" * 65),
        ("Zx-Nonce", "nonce 01"),
        ("Zx-Timestamp", ""),
        ("Zx-Timestamp", "1.8e12"),
        ("Zx-Timestamp", "18000000000000"),
    ],
)
def test_what_is_malformed_names_the_header(header: str, value: str) -> None:
    assert Server().refusal(signed(BEGUN_MS) | {header: value}) == ("BAD_REQUEST", 400, header)
