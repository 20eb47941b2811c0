"""Errors as RFC 9457 problem documents, with the stable reason names of the wire protocol. Pure."""

from __future__ import annotations

import msgspec

from zexchange.wire.messages import ReasonCode

OUTCOME_UNKNOWN = "TIMEOUT"
"""No answer, and what was sent cannot be taken back."""
_RETRYABLE = frozenset(
    {
        "SERVER_BUSY",
        "NOT_READY",
        "RATE_LIMITED",
        "TIMEOUT",
        "TOO_MANY_CONNECTIONS",
        "SESSION_LIMIT",
        "SHARD_RESTARTED",
        "SERVER_SHUTDOWN",
    }
)

STATUS: dict[str, int] = {
    "BAD_REQUEST": 400,
    "UNAUTHORIZED": 401,
    "REQUEST_EXPIRED": 401,
    "REQUEST_REPLAYED": 401,
    "REQUEST_SIGNATURE_INVALID": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "UNKNOWN_MARKET": 404,
    "UNKNOWN_ASSET": 404,
    "UNKNOWN_ACCOUNT": 404,
    "SHARD_UNKNOWN": 404,
    "METHOD_NOT_ALLOWED": 405,
    "ACCOUNT_EXISTS": 409,
    "ASSET_EXISTS": 409,
    "MARKET_EXISTS": 409,
    "SYMBOL_IN_USE": 409,
    "KEY_EXISTS": 409,
    "CLIENT_ORDER_ID_REUSED": 409,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "RANGE_NOT_SATISFIABLE": 416,
    "RATE_LIMITED": 429,
    "TOO_MANY_CONNECTIONS": 429,
    "INTERNAL": 500,
    "SERVER_BUSY": 503,
    "NOT_READY": 503,
    "SESSION_LIMIT": 503,
    "SHARD_RESTARTED": 503,
    "SERVER_SHUTDOWN": 503,
    "TIMEOUT": 504,
}
"""HTTP status of a code; 422 for every other: the request was understood and refused."""


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`application/problem+json`. `code` is stable; `field` names what of the request was wrong."""

    type: str
    title: str
    status: int
    code: str
    retryable: bool
    detail: str = ""
    field: str = ""
    request_id: str = ""


class Problem(Exception):
    """A request that is refused. `retryable`: whether the very same may be sent again, if not what its code says."""

    def __init__(
        self, code: str, detail: str = "", *, field: str = "", retryable: bool | None = None
    ) -> None:
        super().__init__(detail or code)
        self.code = code
        self.detail = detail
        self.field = field
        self.retryable = code in _RETRYABLE if retryable is None else retryable
        self.status = STATUS.get(code, 422)

    def body(self, request_id: str) -> ProblemBody:
        """As it is sent."""
        return ProblemBody(
            type=f"urn:zexchange:problem:{self.code.lower().replace('_', '-')}",
            title=self.code.replace("_", " ").capitalize(),
            status=self.status,
            code=self.code,
            retryable=self.retryable,
            detail=self.detail,
            field=self.field,
            request_id=request_id,
        )


def unknown_outcome(why: str) -> Problem:
    """A signed batch may have been applied, or may be yet. Its bytes may be sent again, and nothing else."""
    return Problem(OUTCOME_UNKNOWN, f"{why}: send the same bytes again, which changes nothing twice")


def of_reason(reason: ReasonCode, detail: str = "") -> Problem:
    """The problem for a reason of the wire protocol."""
    return Problem(reason.name, detail)
