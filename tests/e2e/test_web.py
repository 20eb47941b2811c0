"""The web process of a running exchange: REST, admin calls, sessions, the feed, and the tunnel."""

from __future__ import annotations

import asyncio
import base64
import json
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.e2e.conftest import MARKET, Exchange
from webapp.feed import LOGON_TAG
from webapp.views import checksum
from zexchange.cli.main import run
from zexchange.runtime.running import RunningExchange, wait_for
from zexchange.runtime.stages import COUNTED
from zexchange.verification.balance_proof import verify_balance_proof
from zexchange.verification.checkpoint import CheckpointLeaf, origin_of
from zexchange.verification.merkle import leaf_hash, verify_consistency, verify_inclusion
from zexchange.verification.note import NoteKey, TreeHead, open_note
from zexchange.wire.messages import Challenge, OperatorBatch, SignedBatch, decode
from zexchange.wire.session import ClientSession, Established, SessionSettings
from zexchange.wire.signing import request_signed_bytes, sign_batch

pytestmark = pytest.mark.timeout(120)


class Site:
    """The web process, as its users see it."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        info = exchange.running.info
        assert info.web is not None
        assert info.admin is not None
        self.port, self.admin_port = info.web.port, info.admin.port

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        admin: bool = False,
        token: str = "",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body as JSON if it is, and headers."""
        url = f"http://127.0.0.1:{self.admin_port if admin else self.port}{path}"
        sent = dict(headers or {})
        data = None
        if isinstance(body, bytes):
            data = body
        elif body is not None:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        if token:
            sent["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(url, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                status, content, found = reply.status, reply.read(), reply.headers
        except urllib.error.HTTPError as error:
            status, content, found = error.code, error.read(), error.headers
        parsed = json.loads(content) if content and "json" in found.get("Content-Type", "") else content
        return status, parsed, {name.lower(): value for name, value in found.items()}

    def get(self, path: str, token: str = "") -> Any:
        """The body of a reply that must be good."""
        status, body, _ = self.call("GET", f"/api/v1{path}", token=token)
        assert status == 200, body
        return body

    def eventually(self, path: str, condition: Callable[[Any], bool], token: str = "") -> Any:
        """What is shown follows the log: a moment later it is there."""
        found: list[Any] = []

        def holds() -> bool:
            found[:] = [self.get(path, token)]
            return condition(found[0])

        wait_for(holds, 20, f"{path} does not come to show it")
        return found[0]

    def log_on(self, key: SigningKey) -> tuple[str, str | None]:
        """Token and account of a session over HTTP."""
        status, prepared, _ = self.call(
            "POST", "/api/v1/sessions", {"public_key": bytes(key.verify_key).hex()}
        )
        assert status == 201, prepared
        signature = key.sign(base64.b64decode(prepared["to_sign"])).signature.hex()
        status, session, _ = self.call(
            "POST", f"/api/v1/sessions/{prepared['session_id']}", {"signature": signature}
        )
        assert status == 200, session
        return session["token"], session["account_id"]

    def batch(self, key: SigningKey, nonce: int, *commands: Any) -> bytes:
        deployment_id = bytes.fromhex(self.get("/version")["deployment_id"])
        return sign_batch(SignedBatch(nonce=nonce, commands=list(commands)), key, deployment_id)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("web") / "data"
    with RunningExchange(data, settings={"web.enabled": "true"}) as running:
        yield Site(Exchange(running))


def test_admin_calls_work_from_curl_as_documented(site: Site) -> None:
    commands = (
        "curl -s -X POST http://127.0.0.1:9090/users",
        """curl -s -X POST http://127.0.0.1:9090/deposit -H "Content-Type: application/json" """
        """-d '{"user_id": 1, "asset_id": 1, "amount": "10000.0"}'""",
    )
    replies = []
    for command in commands:
        words = shlex.split(command.replace("9090", str(site.admin_port)))
        replies.append(json.loads(subprocess.run(words, capture_output=True, check=True).stdout))
    assert replies[0]["user_id"] == 1
    assert replies[1] == {"user_id": 1, "asset_id": 1, "asset": "USD", "amount": "10000.000000"}
    as_strings = {"user_id": "1", "asset_id": "1", "amount": "2.5"}
    assert site.call("POST", "/withdraw", as_strings, admin=True)[1] == replies[1] | {"amount": "2.500000"}
    assert site.call("POST", "/deposit", as_strings, admin=True)[0] == 200
    key = SigningKey(bytes.fromhex(replies[0]["private_key"]))
    assert bytes(key.verify_key).hex() == replies[0]["public_key"]
    token, account_id = site.log_on(key)
    assert account_id == "1"
    found = site.eventually("/balances", lambda body: body["balances"], token)
    assert found["balances"][0] == {
        "asset_id": 1,
        "asset": "USD",
        "total": "10000.000000",
        "held": "0.000000",
        "available": "10000.000000",
        "shards": [{"shard": 0, "held": "0.000000", "available": "10000.000000"}],
    }


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "field"),
    [
        ("/deposit", {"user_id": 999_999, "asset_id": 1, "amount": "1"}, 404, "UNKNOWN_ACCOUNT", ""),
        ("/deposit", {"user_id": 1, "asset_id": 77, "amount": "1"}, 404, "UNKNOWN_ASSET", "asset_id"),
        ("/deposit", {"user_id": 1, "asset_id": 1, "amount": "0.0000001"}, 422, "AMOUNT_TOO_PRECISE", ""),
        ("/deposit", {"user_id": 1, "asset_id": 1, "amount": "much"}, 400, "BAD_REQUEST", "amount"),
        ("/deposit", {"user_id": 1, "asset_id": 1, "amount": "1_000"}, 400, "BAD_REQUEST", "amount"),
        ("/deposit", {"user_id": 1, "asset_id": 1, "amount": " 5 "}, 400, "BAD_REQUEST", "amount"),
        ("/withdraw", {"user_id": 1, "asset_id": 1, "amount": "\u0665"}, 400, "BAD_REQUEST", "amount"),
        ("/markets/BTC-USD/sizes", {"tick_size": "1e3", "lot_size": "1"}, 400, "BAD_REQUEST", "tick_size"),
        ("/deposit", {"user_id": -1, "asset_id": 1, "amount": "1"}, 400, "BAD_REQUEST", "user_id"),
        ("/deposit", {"user_id": 1, "asset_id": 1}, 400, "BAD_REQUEST", "amount"),
        ("/deposit", {"user_id": 1, "asset_id": 1, "amount": 10}, 400, "BAD_REQUEST", "amount"),
        ("/withdraw", {"user_id": 0, "asset_id": 1, "amount": "1"}, 422, "INSUFFICIENT_FUNDS", ""),
        ("/users", {"public_key": "ab"}, 400, "BAD_REQUEST", "public_key"),
        ("/users", {"public_key": "xy"}, 400, "BAD_REQUEST", "public_key"),
        ("/markets/NO-SUCH/state", {"state": "halted"}, 404, "UNKNOWN_MARKET", "market"),
        (f"/markets/{MARKET}/state", {"state": "asleep"}, 400, "BAD_REQUEST", "state"),
    ],
)
def test_wrong_admin_calls_say_what_is_wrong(
    site: Site, path: str, body: Any, status: int, code: str, field: str
) -> None:
    found_status, problem, headers = site.call("POST", path, body, admin=True)
    assert (found_status, problem["code"], problem.get("field", "")) == (status, code, field)
    assert headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == headers["x-request-id"]


def test_public_calls(site: Site) -> None:
    maker = site.exchange.account("web-maker", BTC="10")
    assert maker
    site.exchange.account("web-taker", USD="1000000")
    with site.exchange.client("web-maker") as client:
        client.sell(MARKET, "2", "50000")
        client.sell(MARKET, "1", "50001.5")
    with site.exchange.client("web-taker") as client:
        client.buy(MARKET, "0.5", "50000")
        client.buy(MARKET, "1", "49000")
    book = site.eventually(f"/book/{MARKET}", lambda body: body["bids"])
    assert book["bids"] == [["49000.00", "1.0000", 1]]
    assert book["asks"] == [["50000.00", "1.5000", 1], ["50001.50", "1.0000", 1]]
    assert book["checksum"] == checksum(
        [tuple(row) for row in book["bids"]], [tuple(row) for row in book["asks"]]
    )
    (trade,) = site.get(f"/trades/{MARKET}?limit=5")["trades"]
    assert (trade["price"], trade["qty"], trade["side"]) == ("50000.00", "0.5000", "buy")
    candle = site.get(f"/candles/{MARKET}?interval=1m")["candles"][-1]
    assert (candle["open"], candle["close"], candle["volume"], candle["trades"]) == (
        "50000.00",
        "50000.00",
        "0.5000",
        1,
    )
    ticker = next(one for one in site.get("/ticker")["tickers"] if one["market"] == MARKET)
    assert (ticker["last"], ticker["bid"], ticker["ask"]) == ("50000.00", "49000.00", "50000.00")
    assert (ticker["volume_24h"], ticker["quote_volume_24h"]) == ("0.5000", "25000.000000")
    markets = site.get("/markets")["markets"]
    assert [(one["symbol"], one["state"], one["tick_size"]) for one in markets[:1]] == [
        (
            MARKET,
            "continuous",
            "0.01",
        )
    ]
    assert site.get("/limits")["commands_per_batch_max"] == 64
    assert site.get("/assets")["assets"][0] == {"asset_id": 1, "symbol": "USD", "decimals": 6}


@pytest.mark.parametrize(
    ("path", "status", "code", "field"),
    [
        ("/book/NO-SUCH", 404, "UNKNOWN_MARKET", "market"),
        (f"/book/{MARKET}?levels=0", 400, "BAD_REQUEST", "levels"),
        (f"/book/{MARKET}?levels=x", 400, "BAD_REQUEST", "levels"),
        (f"/candles/{MARKET}?interval=2m", 400, "BAD_REQUEST", "interval"),
        ("/checkpoints/999999999", 404, "NOT_FOUND", ""),
        ("/orders", 401, "UNAUTHORIZED", ""),
        ("/nothing", 404, "NOT_FOUND", ""),
    ],
)
def test_wrong_calls_say_what_is_wrong(site: Site, path: str, status: int, code: str, field: str) -> None:
    found_status, problem, headers = site.call("GET", f"/api/v1{path}")
    assert (found_status, problem["code"], problem.get("field", "")) == (status, code, field)
    assert headers["content-type"] == "application/problem+json"


def test_a_cursor_is_one_of_ours(site: Site) -> None:
    site.exchange.account("pager", USD="1")
    token, _ = site.log_on(site.exchange.key("pager"))
    for path in ("/orders", "/orders/history", "/fills"):
        for numbers in ({0: -1}, {-1: 0}, {0: -(2**63)}):
            status, problem, _ = site.call("GET", f"/api/v1{path}?cursor={_cursor(numbers)}", token=token)
            assert (status, problem["code"], problem["field"]) == (400, "BAD_REQUEST", "cursor")
        site.get(f"{path}?cursor={_cursor({0: 2**64 - 1})}", token)


def _cursor(numbers: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(numbers)).decode()


def test_orders_over_http_are_signed_by_their_owner(site: Site) -> None:
    from tests.model.kit import order
    from zexchange.wire.messages import Side

    site.exchange.account("web-http", USD="100000")
    key = site.exchange.key("web-http")
    token, _ = site.log_on(key)
    first_order = order(Side.BUY, 10, 100_000, post_only=True)
    frame = site.batch(key, 1_000, first_order, order(Side.BUY, 10**10, 100_000))
    status, checked, _ = site.call(
        "POST",
        "/api/v1/orders/batch?validate_only=true",
        {"batch": base64.b64encode(frame).decode()},
        token=token,
    )
    assert (status, checked["valid"]) == (200, True)
    status, reply, _ = site.call(
        "POST",
        "/api/v1/orders/batch",
        frame,
        token=token,
        headers={"Content-Type": "application/octet-stream"},
    )
    assert status == 200, reply
    first, second = reply["outcomes"]
    assert (first["accepted"], first["order"]["status"], first["order"]["price"]) == (True, "open", "1000.00")
    assert (second["accepted"], second["code"]) == (False, "INSUFFICIENT_FUNDS")
    again = site.call(
        "POST", "/api/v1/orders/batch", {"batch": base64.b64encode(frame).decode()}, token=token
    )[1]
    assert again["outcomes"][0]["duplicate"]
    assert again["outcomes"][0]["order"]["order_id"] == first["order"]["order_id"]
    shown = site.eventually("/orders", lambda body: body["orders"], token)
    assert [one["order_id"] for one in shown["orders"]] == [first["order"]["order_id"]]
    for told in (first["order"], shown["orders"][0], site.get("/orders/history", token)["orders"][-1]):
        assert (told["type"], told["time_in_force"], told["post_only"]) == ("limit", "gtc", True)
        assert (told["slide"], told["self_trade_prevention"], told["pair_order_id"]) == (
            False,
            "cancel_newest",
            "",
        )
    history = site.get("/orders/history?limit=1", token)
    assert history["orders"][0]["status"] in ("rejected", "open")
    assert len(site.get(f"/orders/history?limit=5&cursor={history['next_cursor']}", token)["orders"]) >= 1
    forged = bytearray(frame)
    forged[200] ^= 1
    assert site.call(
        "POST",
        "/api/v1/orders/batch?validate_only=true",
        {"batch": base64.b64encode(forged).decode()},
        token=token,
    )[1]["code"] in ("SIGNATURE_INVALID", "RESERVED_BITS_SET", "ENUM_VALUE_UNKNOWN")
    other = SigningKey.generate()
    status, problem, _ = site.call(
        "POST",
        "/api/v1/orders/batch",
        {"batch": base64.b64encode(site.batch(other, 1, order(Side.BUY, 1, 1))).decode()},
        token=token,
    )
    assert (status, problem["code"]) == (422, "KEY_NOT_OF_SESSION")
    assert site.call("DELETE", "/api/v1/sessions/current", token=token)[0] == 204
    assert site.call("GET", "/api/v1/orders", token=token)[0] == 401


def test_a_signed_request_needs_no_session(site: Site) -> None:
    account_id = site.exchange.account("web-signer", USD="25")
    key = site.exchange.key("web-signer")

    def headers(path: str, query: str, nonce: str) -> dict[str, str]:
        now_ms = time.time_ns() // 1_000_000
        deployment_id = bytes.fromhex(site.get("/version")["deployment_id"])
        message = request_signed_bytes(deployment_id, "GET", path, query, b"", now_ms, nonce)
        return {
            "Zx-Key": bytes(key.verify_key).hex(),
            "Zx-Timestamp": str(now_ms),
            "Zx-Nonce": nonce,
            "Zx-Signature": key.sign(message).signature.hex(),
        }

    paths = ("/balances", "/orders", "/orders/history", "/fills", "/proofs/balance")
    token, _ = site.log_on(key)
    site.eventually("/balances", lambda body: body["balances"], token)
    for number, path in enumerate(paths):
        sent = headers(f"/api/v1{path}", "limit=7", f"nonce-{number:04}")
        status, body, _ = site.call("GET", f"/api/v1{path}?limit=7", headers=sent)
        assert status == 200, body
        if path == "/balances":
            assert body["account_id"] == str(account_id)
        status, problem, _ = site.call("GET", f"/api/v1{path}?limit=7", headers=sent)
        assert (status, problem["code"], problem["field"]) == (401, "REQUEST_REPLAYED", "Zx-Nonce")
    sent = headers("/api/v1/fills", "limit=7", "nonce-again")
    status, problem, _ = site.call("GET", "/api/v1/fills?limit=8", headers=sent)
    assert (status, problem["code"]) == (401, "REQUEST_SIGNATURE_INVALID")


def test_logon_with_a_bad_signature_is_refused(site: Site) -> None:
    key = SigningKey.generate()
    _, prepared, _ = site.call("POST", "/api/v1/sessions", {"public_key": bytes(key.verify_key).hex()})
    status, problem, _ = site.call(
        "POST", f"/api/v1/sessions/{prepared['session_id']}", {"signature": "00" * 64}
    )
    assert (status, problem["code"]) == (422, "SIGNATURE_INVALID")


def test_demo_account_has_funds(site: Site) -> None:
    key = SigningKey.generate()
    status, reply, _ = site.call("POST", "/api/v1/demo/account", {"public_key": bytes(key.verify_key).hex()})
    assert status == 201, reply
    token, account_id = site.log_on(key)
    assert account_id == reply["account_id"]
    found = site.eventually("/balances", lambda body: len(body["balances"]) > 1, token)
    assert {one["asset"] for one in found["balances"]} >= {"USD", "BTC"}


def test_checkpoints_can_be_checked_with_what_is_served(site: Site) -> None:
    version = site.get("/version")
    newest = site.eventually("/checkpoints/latest", lambda body: int(body["number"]) >= 2)
    key = NoteKey(version["checkpoint_origin"], bytes.fromhex(version["settlement_public_key"]))
    head = TreeHead.parse(open_note(newest["note"].encode(), [key]).text)
    assert head.origin == origin_of("demo")
    size = int(newest["number"]) + 1
    assert head.size == size
    leaf = base64.b64decode(newest["leaf"])
    assert CheckpointLeaf.decode(leaf, size - 1).shards[0].log_size == int(newest["shards"][0]["log_size"])
    proof = site.get(f"/proofs/checkpoint/{size - 1}?size={size}")
    hashes = [bytes.fromhex(one) for one in proof["hashes"]]
    verify_inclusion(leaf_hash(leaf), size - 1, size, hashes, head.root)
    old = site.get("/checkpoints/1")
    old_head = TreeHead.parse(open_note(old["note"].encode(), [key]).text)
    consistency = site.get(f"/proofs/consistency?old=2&new={size}")
    verify_consistency(
        2, old_head.root, size, head.root, [bytes.fromhex(one) for one in consistency["hashes"]]
    )


def test_a_record_is_proved_to_be_in_the_log(site: Site) -> None:
    site.call("POST", "/users", admin=True)
    site.eventually("/checkpoints/latest", lambda body: int(body["shards"][0]["log_size"]) > 2)
    proof = site.get("/proofs/record/0/2")
    tip = site.get(f"/checkpoints/{proof['checkpoint']}")["shards"][0]
    assert tip["log_size"] == proof["log_size"]
    frame = base64.b64decode(proof["frame"])
    assert isinstance(decode(frame), OperatorBatch)
    hashes = [bytes.fromhex(one) for one in proof["hashes"]]
    verify_inclusion(leaf_hash(frame), 2, int(tip["log_size"]), hashes, bytes.fromhex(tip["log_root"]))
    for path in ("0/0", "0/999999999", "7/1", "0/x"):
        status, problem, _ = site.call("GET", f"/api/v1/proofs/record/{path}")
        assert (status, problem["code"]) == (404, "NOT_FOUND")


def test_a_balance_is_proved_to_be_in_the_signed_state(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account_id = site.exchange.account("web-proof", USD="1250.5", BTC="3")
    token, _ = site.log_on(site.exchange.key("web-proof"))
    version = site.get("/version")
    key = NoteKey(version["checkpoint_origin"], bytes.fromhex(version["settlement_public_key"]))
    site.eventually(
        "/proofs/balance",
        lambda body: verify_balance_proof(json.dumps(body).encode(), key, account_id).balances(),
        token,
    )
    body = site.get("/proofs/balance", token)
    proven = verify_balance_proof(json.dumps(body).encode(), key, account_id)
    assert {one.asset_id: (one.available, one.held) for one in proven.balances().values()} == {
        1: (1_250_500_000, 0),
        2: (300_000_000, 0),
    }
    file = tmp_path / "balance.json"
    file.write_text(json.dumps(body))
    arguments = ["proof", str(file), "--account", str(account_id), "--data", str(site.exchange.data)]
    assert run([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(one["asset"], one["total"]) for one in shown["balances"]] == [
        ("USD", "1250.500000"),
        ("BTC", "3.00000000"),
    ]
    assert run(arguments) == 0
    assert "1250.500000" in capsys.readouterr().out
    body["shards"][0]["hashes"][0] = "00" * 32
    file.write_text(json.dumps(body))
    assert run(arguments) == 5
    assert "proves nothing" in capsys.readouterr().err
    assert site.call("GET", "/api/v1/proofs/balance")[0] == 401


def test_browsers_of_other_sites_cannot_write(site: Site) -> None:
    for admin in (False, True):
        path = "/users" if admin else "/api/v1/sessions"
        status, problem, _ = site.call(
            "POST", path, {"public_key": "00" * 32}, admin=admin, headers={"Origin": "https://evil.example"}
        )
        assert (status, problem["code"]) == (403, "FORBIDDEN")
    status, problem, _ = site.call(
        "POST", "/users", b"{}", admin=True, headers={"Content-Type": "text/plain"}
    )
    assert (status, problem["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_alive_ready_measured_and_documented(site: Site) -> None:
    assert site.call("GET", "/livez")[1] == {"status": "alive"}
    wait_for(lambda: site.call("GET", "/readyz")[0] == 200, 20, "it is not ready")
    metrics = site.call("GET", "/metrics")[1].decode()
    for name in (
        "records",
        "checkpoint_age_seconds",
        "websocket_clients",
        "process_up",
        "http_requests_total",
    ):
        assert f"\nzexchange_{name}" in metrics
    document = site.call("GET", "/openapi.json")[1]
    assert document["openapi"] == "3.1.0"
    for path, operations in document["paths"].items():
        assert path.startswith("/")
        for operation in operations.values():
            assert operation["responses"]
    assert site.call("GET", "/asyncapi.json")[1]["asyncapi"] == "3.0.0"
    assert b"/api/v1/book/{market}" in site.call("GET", "/docs")[1]


# ------------------------------------------------------------ WebSockets


class Feed:
    """One client of /ws."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._connection = connection
        self.hello: Any = None

    async def ask(self, **request: Any) -> None:
        await self._connection.write_message(json.dumps(request))

    async def subscribe(self, *channels: dict[str, str]) -> list[Any]:
        await self.ask(op="subscribe", id=1, channels=channels)
        return (await self.until(lambda one: one.get("op") == "subscribed"))["results"]

    async def until(self, condition: Callable[[Any], bool]) -> Any:
        while True:
            text = await asyncio.wait_for(self._connection.read_message(), 20)
            assert text is not None, "the server closed"
            message = json.loads(text)
            if condition(message):
                return message


async def _closed(connection: WebSocketClientConnection) -> None:
    """Close, and wait until it is."""
    connection.close()
    while await asyncio.wait_for(connection.read_message(), 20) is not None:
        pass


@asynccontextmanager
async def feed_of(site: Site) -> AsyncIterator[Feed]:
    connection = await websocket_connect(f"ws://127.0.0.1:{site.port}/ws")
    feed = Feed(connection)
    feed.hello = await feed.until(lambda one: one.get("op") == "hello")
    yield feed
    await _closed(connection)


def test_feed_tells_what_happens(site: Site) -> None:
    site.exchange.account("feed-maker", ETH="50")
    site.exchange.account("feed-taker", USD="1000000")
    market = "ETH-USD"

    async def main() -> None:
        async with feed_of(site) as feed:
            results = await feed.subscribe(
                {"channel": "book", "market": market},
                {"channel": "book", "market": "NO-SUCH"},
                {"channel": "orders"},
                {"channel": "candles", "market": market, "interval": "1m"},
                {"channel": "trades", "market": market},
            )
            assert [one["ok"] for one in results] == [True, False, False, True, True]
            assert results[1]["error"]["code"] == "UNKNOWN_MARKET"
            assert results[2]["error"]["code"] == "UNAUTHORIZED"
            book = await feed.until(lambda one: one.get("channel") == "book")
            assert book["type"] == "snapshot"
            sides = {side: {row[0]: row for row in book[side]} for side in ("bids", "asks")}
            await asyncio.to_thread(_trade, site, market)
            seq = book["seq"]
            seen: set[str] = set()
            while True:
                message = await feed.until(lambda one: one.get("type") == "update")
                seen.add(message["channel"])
                if message["channel"] == "book":
                    assert message["prev_seq"] == seq
                    seq = message["seq"]
                    for side in ("bids", "asks"):
                        for row in message[side]:
                            if row[1] == "0":
                                del sides[side][row[0]]
                            else:
                                sides[side][row[0]] = row
                    bids = sorted(sides["bids"].values(), key=lambda row: -float(row[0]))
                    asks = sorted(sides["asks"].values(), key=lambda row: float(row[0]))
                    assert checksum(bids, asks) == message["checksum"]
                if message["channel"] == "trades":
                    assert message["trades"][0]["qty"] == "1.500"
                if seen >= {"book", "trades", "candles"} and [row[1] for row in asks] == ["0.500"]:
                    break
            await feed.until(lambda one: one.get("op") == "heartbeat")

    asyncio.run(main())


def _trade(site: Site, market: str) -> None:
    with site.exchange.client("feed-maker") as maker, site.exchange.client("feed-taker") as taker:
        maker.sell(market, "2", "3000")
        taker.buy(market, "1.5", "3000")


def test_account_hears_of_itself_after_a_signed_logon(site: Site) -> None:
    site.exchange.account("feed-owner", USD="1000")
    key = site.exchange.key("feed-owner")

    async def main() -> None:
        async with feed_of(site) as feed:
            deployment_id = bytes.fromhex(feed.hello["deployment_id"])
            signed = LOGON_TAG + deployment_id + bytes.fromhex(feed.hello["challenge"])
            public_key = bytes(key.verify_key).hex()
            await feed.ask(op="logon", id=2, public_key=public_key, signature="00" * 64)
            assert not (await feed.until(lambda one: one.get("op") == "logon"))["ok"]
            await feed.ask(
                op="logon", id=3, public_key=public_key, signature=key.sign(signed).signature.hex()
            )
            answer = await feed.until(lambda one: one.get("op") == "logon")
            assert answer["ok"], answer
            await feed.subscribe({"channel": "orders"}, {"channel": "balances"}, {"channel": "fills"})
            balances = await feed.until(lambda one: one.get("channel") == "balances")
            assert balances["balances"][0]["total"] == "1000.000000"
            result = await asyncio.to_thread(_order, site)
            update = await feed.until(lambda one: one.get("channel") == "orders" and one["type"] == "update")
            assert [(one["order_id"], one["status"]) for one in update["orders"]] == [(str(result), "open")]
            held = await feed.until(lambda one: one.get("channel") == "balances" and one["type"] == "update")
            assert held["balances"][0]["held"] != "0.000000"

    asyncio.run(main())


def _order(site: Site) -> int:
    with site.exchange.client("feed-owner") as client:
        return client.buy(MARKET, "0.01", "100").order_id


def test_operators_see_rates_processes_and_latency(site: Site) -> None:
    async def main() -> None:
        async with feed_of(site) as feed:
            await feed.subscribe({"channel": "stats"})
            await feed.until(lambda one: one.get("channel") == "stats" and "stages" in one)
            await asyncio.to_thread(site.call, "POST", "/users", None, admin=True)
            found = await feed.until(lambda one: one.get("channel") == "stats" and one.get("latency_us"))
            assert found["latency_us"]["p50"] <= found["latency_us"]["p99"]
            found = await feed.until(
                lambda one: (
                    one.get("channel") == "stats"
                    and {stage["stage"] for stage in one["stages"] if stage["per_s"]} == set(COUNTED)
                    and one["queues"]["sessions"] >= 1  # the web process's own, as operator
                )
            )
            assert [stage["stage"] for stage in found["stages"]] == list(COUNTED)
            for stage in found["stages"]:
                assert 0 < stage["p50_us"] <= stage["p90_us"] <= stage["p99_us"]
            assert {"matcher_frames", "batches_in_flight", "unsent_bytes", "unsigned_records"} <= set(
                found["queues"]
            )
            assert {one["name"] for one in found["processes"]} >= {"store", "settlement", "web"}
            assert found["shards"][0]["markets"][0] == MARKET

    asyncio.run(main())


def test_what_is_no_request_is_answered_and_other_origins_are_not(site: Site) -> None:
    async def main() -> None:
        async with feed_of(site) as feed:
            for text in ("{", "[]", '{"op": "fly"}', '{"op":"subscribe","channels":[{"channel":7}]}'):
                await feed._connection.write_message(text)
                answer = await feed.until(lambda one: one.get("op") == "error")
                assert answer["error"]["code"] == "BAD_REQUEST"
            await feed.ask(op="ping", id=9)
            assert (await feed.until(lambda one: one.get("op") == "pong"))["id"] == 9
        for path in ("/ws", "/ws/session"):
            request = HTTPRequest(
                f"ws://127.0.0.1:{site.port}{path}", headers={"Origin": "https://evil.example"}
            )
            with pytest.raises(HTTPClientError) as refused:
                await websocket_connect(request)
            assert refused.value.code == 403

    asyncio.run(main())


def test_tunnel_carries_a_session_unchanged(site: Site) -> None:
    key = SigningKey.generate()

    async def main() -> None:
        connection = await websocket_connect(f"ws://127.0.0.1:{site.port}/ws/session")
        session = ClientSession(SessionSettings(), key=key, deployment_id=None, now_ms=0)
        events: list[Any] = []
        while not any(isinstance(event, Established) for event in events):
            data = await asyncio.wait_for(connection.read_message(), 20)
            assert isinstance(data, bytes)
            for frame in session.feed(data, 0):
                events.append(session.receive(frame, 0))
                if isinstance(decode(frame), Challenge):
                    events.append("challenged")
            if output := session.take_output():
                await connection.write_message(output, binary=True)
        assert events[0] is None
        assert "challenged" in events
        await _closed(connection)

    asyncio.run(main())


@pytest.mark.timeout(240)
def test_the_server_does_what_its_specification_says(tmp_path: Path) -> None:
    """Requests made from openapi.json, good ones and bad ones: every answer must be one that it describes."""
    with RunningExchange(tmp_path / "data", settings={"web.enabled": "true"}) as running:
        site = Site(Exchange(running))
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "schemathesis.cli",
                    "run",
                    f"http://127.0.0.1:{site.port}/openapi.json",
                ),
                *("--phases", "coverage,fuzzing", "--max-examples", "5", "--seed", "1", "--no-color"),
                # What is well-formed may still be refused: a session that is unknown, a key that is taken.
                *("--exclude-checks", "positive_data_acceptance", "--suppress-health-check", "all"),
                # Requests of one address are counted, and 429 is described.
                *("--rate-limit", "1000/m"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
