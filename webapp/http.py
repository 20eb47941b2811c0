"""What every HTTP handler does: errors as problem documents, limits, headers, JSON of msgspec structs."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any, TypeVar

import msgspec
import tornado.web
from tornado.httputil import HTTPServerRequest

from webapp.context import Web
from webapp.limits import RateLimit
from webapp.problems import Problem
from webapp.server import BODY_BYTES_MAX
from webapp.sessions import ApiSession

T = TypeVar("T")

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PATH_CHARS_SHOWN = 200
_WRITES = ("POST", "PUT", "DELETE", "PATCH")
_AT_FIELD = re.compile(r"(?:required field `|at `\$\.)([^`]+)`$")
"""Which field a validation error names: one that is wrong, or missing."""
log = logging.getLogger("zexchange.web")


class Handler(tornado.web.RequestHandler):
    """Base of all handlers. `route` names it in metrics."""

    web: Web
    route = ""
    limited = True

    def initialize(self, web: Web) -> None:
        self.web = web
        self.request_id = secrets.token_hex(8)
        self._begun_s = time.monotonic()
        self._standing = {"X-Request-Id": self.request_id}

    def set_default_headers(self) -> None:
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    def prepare(self) -> None:
        self._stand()
        if self.limited:
            limit = self.limit()
            address = address_of(self.web, self.request)
            allowed, left, reset_s = limit.take(address, time.monotonic())
            self._stand(
                **{
                    "RateLimit-Policy": f'"{limit.name}";q={limit.per_window};w={limit.window_s:.0f}',
                    "RateLimit": f'"{limit.name}";r={left};t={reset_s}',
                }
            )
            if not allowed:
                self._stand(**{"Retry-After": str(reset_s)})
                raise Problem(
                    "RATE_LIMITED", f"at most {limit.per_window} requests in {limit.window_s:.0f} s"
                )
        if len(self.request.body) > BODY_BYTES_MAX:
            raise Problem("PAYLOAD_TOO_LARGE", f"a body has at most {BODY_BYTES_MAX} bytes")
        if self.request.method in _WRITES:
            self._check_origin()

    def limit(self) -> RateLimit:
        """Which one this counts for."""
        return self.web.rate_limit

    def _stand(self, **headers: str) -> None:
        """Set headers that an error keeps."""
        self._standing |= headers
        for name, value in self._standing.items():
            self.set_header(name, value)

    def _check_origin(self) -> None:
        """A browser names the page that a write comes from: only ours may. Others name none."""
        origin = self.request.headers.get("Origin")
        if origin is not None and origin not in self.web.origins:
            raise Problem("FORBIDDEN", f"writes from {origin} are not allowed; see web.origins")

    # ------------------------------------------------------------ in

    lax = False
    """Whether numbers may be written as strings."""

    def json(self, kind: type[T]) -> T:
        """The body as a struct. Raises Problem."""
        media_type = self.request.headers.get("Content-Type", "application/json").partition(";")[0].strip()
        if media_type != "application/json":
            raise Problem("UNSUPPORTED_MEDIA_TYPE", f"application/json is wanted, not {media_type}")
        try:
            return msgspec.json.decode(self.request.body or b"{}", type=kind, strict=not self.lax)
        except msgspec.ValidationError as error:
            text = str(error)
            named = _AT_FIELD.search(text)
            raise Problem("BAD_REQUEST", text, field=named[1] if named else "") from None
        except RecursionError:
            raise Problem("BAD_REQUEST", "the body is nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem("BAD_REQUEST", f"the body is no JSON: {error}") from None

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number of the query. Raises Problem."""
        text = self.get_query_argument(name, None)
        if text is None:
            return default
        if not text.isascii() or not text.isdecimal() or len(text) > 20 or not low <= int(text) <= high:
            raise Problem("BAD_REQUEST", f"{name} is a whole number from {low} to {high}", field=name)
        return int(text)

    def session(self) -> ApiSession:
        """Of the bearer token. Raises Problem."""
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            self._stand(**{"WWW-Authenticate": 'Bearer realm="zexchange"'})
            raise Problem("UNAUTHORIZED", "log on first: POST /api/v1/sessions")
        return self.web.sessions.of_token(token.strip())

    def account(self) -> int:
        """Of the signature of this request, or of the session. Raises Problem."""
        request = self.request
        if "Zx-Signature" in request.headers:
            return self.web.signed_requests.account(
                request.method or "",
                request.path,
                request.query,
                request.body,
                request.headers,
                self.web.account_of_key,
            )
        session = self.session()
        if session.account_id is None:
            session.account_id = self.web.account_of_key(session.public_key)
        if session.account_id is None:
            raise Problem("UNKNOWN_KEY", "the key has no account yet")
        return session.account_id

    # ------------------------------------------------------------ out

    def reply(self, content: Any, status: int = 200) -> None:
        """JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(msgspec.json.encode(content))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, Problem):
            problem = error
        elif isinstance(error, tornado.web.MissingArgumentError):
            problem = Problem("BAD_REQUEST", str(error), field=error.arg_name)
        else:
            code = {400: "BAD_REQUEST", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(
                status_code, "INTERNAL"
            )
            detail = "" if code == "INTERNAL" else str(getattr(error, "log_message", "") or "")
            problem = Problem(code, detail)
        if problem.code == "METHOD_NOT_ALLOWED":
            self._stand(Allow=", ".join(self._methods()))
        self.set_status(problem.status)
        self._stand()
        self.set_header("Content-Type", "application/problem+json")
        self.set_header("Cache-Control", "no-store")
        self.finish(msgspec.json.encode(problem.body(self.request_id)))

    def _methods(self) -> list[str]:
        """Those that this handler answers."""
        base = tornado.web.RequestHandler
        return [
            name
            for name in self.SUPPORTED_METHODS
            if getattr(type(self), name.lower()) is not getattr(base, name.lower())
        ]

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, Problem | tornado.web.HTTPError):
            return
        log.error(
            "request %s failed",
            self.request_id,
            exc_info=(typ, value, tb),
            extra={"zx": {"path": self.request.path}},
        )

    def on_finish(self) -> None:
        route = self.route or type(self).__name__
        metrics = self.web.metrics
        # Anybody can make up a method, and each would be counted for ever.
        method = self.request.method
        label = method if method in self.SUPPORTED_METHODS else "other"
        metrics.requests.labels(label, route, str(self.get_status())).inc()
        metrics.request_seconds.labels(route).observe(time.monotonic() - self._begun_s)


class ReadyHandler(Handler):
    """Base of those that need the replica."""

    def prepare(self) -> None:
        super().prepare()
        if not self.web.follower.caught_up:
            raise Problem("NOT_READY", "still replaying the log")


def address_of(web: Web, request: HTTPServerRequest) -> str:
    """Whose request it is."""
    return web.proxies.client(request.remote_ip or "", request.headers.get("X-Forwarded-For", ""))


class NotFound(Handler):
    """Whatever is nowhere."""

    route = "not found"

    def prepare(self) -> None:
        super().prepare()
        raise Problem("NOT_FOUND", self.request.path[:PATH_CHARS_SHOWN])
