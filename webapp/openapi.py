"""OpenAPI 3.1 of the REST API and AsyncAPI 3.0 of the feed, generated from the structs, and a page that shows them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from webapp import account, feed, log_download, rest
from webapp.candles import INTERVALS_S
from webapp.http import Handler
from webapp.problems import ProblemBody
from webapp.views import (
    AssetView,
    BalanceView,
    BookView,
    CandleView,
    CheckpointView,
    FillView,
    LevelRow,
    MarketView,
    OrderView,
    TickerView,
    TradeView,
)
from zexchange import __version__
from zexchange.verification.balance_proof import BalanceProof

_REF = "#/components/schemas/{name}"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One call: what it takes and gives."""

    method: str
    path: str
    summary: str
    reply: Any
    status: int = 200
    body: Any = None
    query: Sequence[tuple[str, str, dict[str, Any]]] = ()
    private: bool = False
    session_only: bool = False
    """Of private ones: a signed request is not enough."""


_SIGNED_REQUEST = (
    ("key", "Zx-Key", "The account's public key in hex."),
    ("time", "Zx-Timestamp", "Milliseconds since 1970."),
    ("nonce", "Zx-Nonce", "8 to 64 characters that no other request of the minute has."),
    ("signature", "Zx-Signature", "Of this one request, in hex: see docs/web.md."),
)


def _whole(low: int, high: int, default: int | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": high}
    return schema | ({} if default is None else {"default": default})


_LIMIT = ("limit", "Most entries.", _whole(1, 1_000, 100))
_CURSOR = ("cursor", "`next_cursor` of the page before.", {"type": "string"})

OPERATIONS: tuple[Operation, ...] = (
    Operation(method="get", path="/time", summary="The server's clock", reply=rest.TimeReply),
    Operation(method="get", path="/version", summary="What runs here", reply=rest.VersionReply),
    Operation(method="get", path="/limits", summary="Limits of numbers and requests", reply=rest.LimitsReply),
    Operation(method="get", path="/markets", summary="Markets and their rules", reply=rest.MarketsReply),
    Operation(method="get", path="/assets", summary="Assets", reply=rest.AssetsReply),
    Operation(method="get", path="/ticker", summary="All markets at a glance", reply=rest.TickersReply),
    Operation(
        method="get",
        path="/book/{market}",
        summary="Depth of a market",
        reply=BookView,
        query=[("levels", "Most levels of each side.", _whole(1, 500, 50))],
    ),
    Operation(
        method="get", path="/trades/{market}", summary="Newest trades", reply=rest.TradesReply, query=[_LIMIT]
    ),
    Operation(
        method="get",
        path="/candles/{market}",
        summary="Candles, oldest first",
        reply=rest.CandlesReply,
        query=[
            ("interval", "Length.", {"type": "string", "enum": list(INTERVALS_S), "default": "1m"}),
            ("limit", "Most candles.", _whole(1, 4_000, 500)),
        ],
    ),
    Operation(
        method="get",
        path="/checkpoints",
        summary="Checkpoints, newest first",
        reply=rest.CheckpointsReply,
        query=[
            ("limit", "Most entries.", _whole(1, 1_000, 20)),
            ("before", "Only smaller numbers.", _whole(0, 2**63 - 1)),
        ],
    ),
    Operation(
        method="get",
        path="/checkpoints/{number}",
        summary="One checkpoint, or `latest`",
        reply=CheckpointView,
    ),
    Operation(
        method="get",
        path="/proofs/consistency",
        summary="That one size of the settlement log continues another",
        reply=rest.ConsistencyReply,
        query=[
            ("old", "Smaller size.", _whole(1, 2**63 - 1)),
            ("new", "Larger size.", _whole(1, 2**63 - 1)),
        ],
    ),
    Operation(
        method="get",
        path="/proofs/checkpoint/{number}",
        summary="That a checkpoint is in the settlement log",
        reply=rest.InclusionReply,
        query=[("size", "Size of the log.", _whole(1, 2**63 - 1))],
    ),
    Operation(
        method="get",
        path="/proofs/record/{shard}/{record_no}",
        summary="That a record is in the log that the newest checkpoint signs",
        reply=rest.RecordReply,
    ),
    Operation(
        method="get",
        path="/proofs/balance",
        summary="What the newest checkpoint says about the account",
        reply=BalanceProof,
        private=True,
    ),
    Operation(
        method="get",
        path="/log",
        summary="How much of the log there is to fetch",
        reply=log_download.LogReply,
    ),
    Operation(method="get", path="/log/genesis", summary="The genesis file", reply=bytes),
    Operation(
        method="get",
        path="/log/checkpoints",
        summary="Checkpoints with their leaves, as checkpoints.log has them",
        reply=bytes,
        query=[("from", "Number of the first.", _whole(0, 2**63 - 1, 0))],
    ),
    Operation(
        method="get",
        path="/log/{shard}/segments",
        summary="Archived segments, oldest first",
        reply=log_download.SegmentsReply,
        query=[("after", "Only those that begin behind this record.", _whole(0, 2**63 - 1, 0)), _LIMIT],
    ),
    Operation(
        method="get",
        path="/log/{shard}/segments/{first_record_no}",
        summary="A segment, or with Range a part of it",
        reply=bytes,
    ),
    Operation(
        method="get",
        path="/log/{shard}/batches",
        summary="Batches of the log, each behind its length; Zx-Next says where the next page begins",
        reply=bytes,
        query=[("from", "Record with which the first batch begins.", _whole(1, 2**63 - 1, 1))],
    ),
    Operation(
        method="post",
        path="/sessions",
        summary="Begin to log on with a key",
        body=account.SessionRequest,
        reply=account.SessionPrepared,
        status=201,
    ),
    Operation(
        method="post",
        path="/sessions/{session_id}",
        summary="Log on with the signature",
        body=account.SessionSignature,
        reply=account.SessionReply,
    ),
    Operation(
        method="delete",
        path="/sessions/{session_id}",
        summary="Log off (the token says which session)",
        session_only=True,
        reply=None,
        status=204,
        private=True,
    ),
    Operation(
        method="get",
        path="/orders",
        summary="Open orders",
        reply=account.OrdersReply,
        query=[_LIMIT, _CURSOR],
        private=True,
    ),
    Operation(
        method="get",
        path="/orders/history",
        summary="Reports about orders, newest first",
        reply=account.OrdersReply,
        query=[_LIMIT, _CURSOR],
        private=True,
    ),
    Operation(
        method="post",
        path="/orders/batch",
        summary="Submit a signed batch (as JSON, or its frame as application/octet-stream)",
        session_only=True,
        body=account.BatchRequest,
        reply=account.BatchReply,
        query=[("validate_only", "Check it and apply nothing.", {"type": "boolean", "default": False})],
        private=True,
    ),
    Operation(
        method="get",
        path="/fills",
        summary="Fills, newest first",
        reply=account.FillsReply,
        query=[_LIMIT, _CURSOR],
        private=True,
    ),
    Operation(method="get", path="/balances", summary="Balances", reply=account.BalancesReply, private=True),
    Operation(
        method="post",
        path="/demo/account",
        summary="An account with play money (demo deployments only)",
        body=account.DemoRequest,
        reply=account.AccountReply,
        status=201,
    ),
    Operation(
        method="get",
        path="/demo/bots",
        summary="Whether bots with play money trade (demo deployments only)",
        reply=account.DemoBotsReply,
    ),
    Operation(
        method="post",
        path="/demo/bots",
        summary="Stops the bots, or lets them go on (demo deployments only)",
        body=account.DemoBotsRequest,
        reply=account.DemoBotsReply,
    ),
)


@cache
def openapi_document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    types = [
        one
        for operation in OPERATIONS
        for one in (operation.reply, operation.body)
        if one is not None and one is not bytes
    ]
    schemas, components = msgspec.json.schema_components([*types, ProblemBody], ref_template=_REF)
    components = _modern(components)
    by_type = dict(zip([*types, ProblemBody], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "zexchange",
            "version": __version__,
            "description": "A verifiable central limit order book exchange. Decimals and 64-bit numbers are strings.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/api/v1"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "session": {"type": "http", "scheme": "bearer"},
                **{
                    name: {"type": "apiKey", "in": "header", "name": header, "description": text}
                    for name, header, text in _SIGNED_REQUEST
                },
            },
        },
    }


def _modern(schema: Any) -> Any:
    """Tuples as arrays of what any of their places may hold: readers of any JSON Schema agree on that."""
    if isinstance(schema, list):
        return [_modern(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _modern(one) for name, one in schema.items()}
    places = found.pop("prefixItems", None)
    if places is not None:
        found["items"] = {"anyOf": [one for at, one in enumerate(places) if one not in places[:at]]}
    return found


def _operation(operation: Operation, by_type: dict[Any, Any]) -> dict[str, Any]:
    problem = {
        "description": "A problem document.",
        "content": {"application/problem+json": {"schema": by_type[ProblemBody]}},
    }
    success: dict[str, Any] = {"description": operation.summary}
    if operation.reply is bytes:
        success["content"] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    elif operation.reply is not None:
        success["content"] = {"application/json": {"schema": by_type[operation.reply]}}
    parameters: list[dict[str, Any]] = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": schema}
        for name, text, schema in operation.query
    ]
    found: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method}{operation.path.title()}".translate(str.maketrans("", "", "/{}_")),
        "parameters": parameters,
        "responses": {str(operation.status): success, "4XX": problem, "5XX": problem},
    }
    if operation.body is not None:
        content = {"application/json": {"schema": by_type[operation.body]}}
        if operation.body is account.BatchRequest:
            content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
        found["requestBody"] = {"required": True, "content": content}
    if operation.private:
        found["security"] = [{"session": []}]
        if not operation.session_only:
            found["security"].append({name: [] for name, _, _ in _SIGNED_REQUEST})
    return found


_CHANNELS = {
    "book": "The best 100 levels of each side of a market: absolute quantities, 0 removes.",
    "trades": "Trades of a market, newest first.",
    "candles": "Candles of a market and interval; the last one is live.",
    "ticker": "All markets at a glance.",
    "definitions": "Assets, and markets with their rules and states; an update has those that are new or changed.",
    "checkpoints": "Signed checkpoints.",
    "stats": "Figures for operators, once a second.",
    "orders": "After logon: the account's orders; a snapshot that does not have all open ones is `truncated`.",
    "fills": "After logon: the account's fills.",
    "balances": "After logon: the account's balances.",
}
_CONTENTS: dict[str, dict[str, Any]] = {
    "book": {
        "time": str,
        "command_seq": str,
        "bids": Sequence[LevelRow],
        "asks": Sequence[LevelRow],
        "checksum": int,
        **dict.fromkeys(("state", "until", "reference_price", "indicative_price", "indicative_qty"), str),
    },
    "trades": {"trades": Sequence[TradeView]},
    "candles": {"candles": Sequence[CandleView]},
    "ticker": {"tickers": Sequence[TickerView]},
    "definitions": {"assets": Sequence[AssetView], "markets": Sequence[MarketView]},
    "checkpoints": {"checkpoints": Sequence[CheckpointView]},
    "stats": {},
    "orders": {"orders": Sequence[OrderView], "truncated": bool},
    "fills": {"fills": Sequence[FillView]},
    "balances": {"balances": Sequence[BalanceView]},
}
"""What a message of a channel has besides the envelope."""
_OF_A_MARKET = ("book", "trades", "candles")


@cache
def asyncapi_document() -> dict[str, Any]:
    """AsyncAPI 3.0."""
    requests = (feed.Subscribe, feed.Unsubscribe, feed.Logon, feed.Ping)
    contents = [(channel, name, one) for channel, names in _CONTENTS.items() for name, one in names.items()]
    types = [*requests, *(one for _, _, one in contents)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = _modern(list(schemas))
    shown: dict[str, dict[str, Any]] = {channel: {} for channel in _CHANNELS}
    for (channel, content, _), schema in zip(contents, schemas[len(requests) :], strict=True):
        shown[channel][content] = schema
    components = _modern(components)
    messages = {
        one.__name__.lower(): {"name": one.__name__, "payload": schema}
        for one, schema in zip(requests, schemas[: len(requests)], strict=True)
    }
    messages |= {
        name: {
            "name": name,
            "summary": text,
            "payload": {
                "type": "object",
                "required": ["channel", "type", "seq"],
                "properties": {
                    "channel": {"const": name},
                    "type": {"enum": ["snapshot", "update"]},
                    "seq": {"type": "string"},
                    "prev_seq": {"type": "string", "description": "Of updates: `seq` of the message before."},
                    **({"market": {"type": "string"}} if name in _OF_A_MARKET else {}),
                    **({"interval": {"enum": list(INTERVALS_S)}} if name == "candles" else {}),
                    **shown[name],
                },
            },
        }
        for name, text in _CHANNELS.items()
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "zexchange feed", "version": __version__},
        "channels": {
            "feed": {
                "address": "/ws",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "ask": {
                "action": "receive",
                "channel": {"$ref": "#/channels/feed"},
                "messages": [
                    {"$ref": f"#/channels/feed/messages/{one.__name__.lower()}"} for one in requests
                ],
            },
            "tell": {
                "action": "send",
                "channel": {"$ref": "#/channels/feed"},
                "messages": [{"$ref": f"#/channels/feed/messages/{name}"} for name in _CHANNELS],
            },
        },
        "components": {"schemas": components, "messages": messages},
    }


class OpenApiHandler(Handler):
    """GET /openapi.json"""

    def get(self) -> None:
        self.reply(openapi_document())


class AsyncApiHandler(Handler):
    """GET /asyncapi.json"""

    def get(self) -> None:
        self.reply(asyncapi_document())


class DocsHandler(Handler):
    """GET /docs: the calls, their parameters and bodies, without any script"""

    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(_docs_page())


@cache
def _docs_page() -> str:
    document = openapi_document()
    rows = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parameters = "".join(
                f"<li><code>{html.escape(one['name'])}</code> ({one['in']}) {html.escape(one.get('description', ''))}"
                f" <small>{html.escape(_schema_text(one['schema']))}</small></li>"
                for one in operation["parameters"]
            )
            body = (
                operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            )
            reply = next(iter(operation["responses"].values())).get("content", {})
            shown = reply.get("application/json", {}).get("schema")
            rows.append(
                f"<section><h2><b>{method.upper()}</b> /api/v1{html.escape(path)}</h2>"
                f"<p>{html.escape(operation['summary'])}{' (private)' if 'security' in operation else ''}</p>"
                f"<ul>{parameters}</ul>"
                + (f"<p>Body: {_link(body)}</p>" if body else "")
                + (f"<p>Reply: {_link(shown)}</p>" if shown else "")
                + "</section>"
            )
    schemas = "".join(
        f'<section id="{html.escape(name)}"><h3>{html.escape(name)}</h3><p>{html.escape(schema.get("description", ""))}'
        f"</p><pre>{html.escape(_fields_text(schema))}</pre></section>"
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>zexchange API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head><body>'
        f"<h1>zexchange API {__version__}</h1><p>As <a href='/openapi.json'>OpenAPI 3.1</a>; the WebSocket feed as "
        f"<a href='/asyncapi.json'>AsyncAPI 3.0</a>. Errors are RFC 9457 problem documents.</p>{''.join(rows)}"
        f"<h2>Structures</h2>{schemas}</body></html>"
    )


def _link(schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return (
        f'<a href="#{html.escape(name)}">{html.escape(name)}</a>'
        if name
        else html.escape(_schema_text(schema))
    )


def _schema_text(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_schema_text(one) for one in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"array of {_schema_text(schema.get('items') or {'type': 'values'})}"
    text = str(schema.get("type", "value"))
    if "minimum" in schema:
        text += f" {schema['minimum']} to {schema.get('maximum')}"
    return text


def _fields_text(schema: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {_schema_text(one)}" for name, one in schema.get("properties", {}).items())


def routes() -> list[tuple[str, Any]]:
    """Path and handler."""
    return [("/openapi.json", OpenApiHandler), ("/asyncapi.json", AsyncApiHandler), ("/docs", DocsHandler)]
