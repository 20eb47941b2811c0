"""Requests that are signed one by one, by who has no session: who asks, and that nobody asks twice. Pure.

    Zx-Key: <public key>   Zx-Timestamp: <ms since 1970>   Zx-Nonce: <8 to 64 characters>   Zx-Signature: <signature>

The signature covers deployment, method, path, query, body, time and nonce, so what is overheard is worth nothing for
any other request. The same one is refused for as long as its time would be good: its nonce is remembered until then.
What was signed before this process began is refused too, as what was used then is forgotten.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping

from webapp.parsing import hex_of, key_of
from webapp.problems import Problem
from zexchange.wire import signing
from zexchange.wire.messages import WireError

WINDOW_MS = 30_000
"""A request is good until its time is so far from ours, before or after."""
NONCES_MAX = 200_000
"""Requests in twice the window, of all accounts together; some 40 MB."""
_NONCE = re.compile(r"[A-Za-z0-9_-]{8,64}")
_TIMESTAMP = re.compile(r"[0-9]{13}")

AccountOf = Callable[[bytes], int | None]
"""The account of a key."""


class SignedRequests:
    """Checks them, and remembers which there were."""

    def __init__(self, deployment_id: bytes, now_ms: Callable[[], int]) -> None:
        self._deployment_id = deployment_id
        self._now_ms = now_ms
        self._begun_ms = now_ms()
        self._used: set[tuple[bytes, str]] = set()
        self._expiry: list[tuple[int, bytes, str]] = []

    def account(
        self,
        method: str,
        path: str,
        query: str,
        body: bytes,
        headers: Mapping[str, str],
        account_of: AccountOf,
    ) -> int:
        """Whose request it is. `path` and `query` are as they were sent. Raises Problem."""
        key = key_of(headers.get("Zx-Key", ""), "Zx-Key")
        signature = hex_of(headers.get("Zx-Signature", ""), "Zx-Signature")
        nonce, time_text = headers.get("Zx-Nonce", ""), headers.get("Zx-Timestamp", "")
        if not _NONCE.fullmatch(nonce):
            raise Problem("BAD_REQUEST", "8 to 64 of A-Z, a-z, 0-9, _ and -", field="Zx-Nonce")
        if not _TIMESTAMP.fullmatch(time_text):
            raise Problem("BAD_REQUEST", "milliseconds since 1970, 13 digits", field="Zx-Timestamp")
        time_ms, now_ms = int(time_text), self._now_ms()
        if abs(time_ms - now_ms) > WINDOW_MS or time_ms < self._begun_ms:
            raise Problem(
                "REQUEST_EXPIRED",
                f"signed at {time_ms}, and now it is {now_ms}: sign it again; more than {WINDOW_MS} ms apart, or signed"
                f" before the server began at {self._begun_ms}",
                field="Zx-Timestamp",
            )
        signed = signing.request_signed_bytes(self._deployment_id, method, path, query, body, time_ms, nonce)
        try:
            signing.verify_raw(signature, signed, key)
        except WireError:
            raise Problem(
                "REQUEST_SIGNATURE_INVALID",
                "the signature is not that of this request: method, path, query, body, time and nonce",
                field="Zx-Signature",
            ) from None
        account_id = account_of(key)
        if account_id is None:
            # Before its nonce is remembered: keys without an account cost nothing, so there may be any number.
            raise Problem("UNKNOWN_KEY", "the key has no account yet", field="Zx-Key")
        self._use(key, nonce, time_ms, now_ms)
        return account_id

    def _use(self, key: bytes, nonce: str, time_ms: int, now_ms: int) -> None:
        while self._expiry and self._expiry[0][0] < now_ms:
            _, *used = heapq.heappop(self._expiry)
            self._used.discard((used[0], used[1]))
        if (key, nonce) in self._used:
            raise Problem("REQUEST_REPLAYED", "a request with this nonce was answered", field="Zx-Nonce")
        if len(self._used) >= NONCES_MAX:
            raise Problem("SERVER_BUSY", "too many signed requests: log on instead")
        self._used.add((key, nonce))
        heapq.heappush(self._expiry, (time_ms + WINDOW_MS, key, nonce))
