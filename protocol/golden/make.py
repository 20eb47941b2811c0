"""Makes the golden vectors: for every message of the schema at least one frame with known fields.

Run by `python protocol/generate.py --golden`. Deterministic: fixed keys, fixed deployment, no clock. The
values are chosen so that no two neighbouring fields are equal and the high bytes of wide fields are in use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec
from nacl.signing import SigningKey
from schema import Block, Enum, Schema, snake

from zexchange.wire import messages as wire
from zexchange.wire.signing import sign_batch, sign_establish

TRADER = SigningKey(bytes(range(32)))
OPERATOR = SigningKey(bytes(range(32, 64)))
GENESIS = b'name = "golden"\n'
DEPLOYMENT_ID = hashlib.sha256(b"zx.v1/genesis\0" + GENESIS).digest()
CHALLENGE = hashlib.sha256(b"golden challenge").digest()
CHAIN = hashlib.sha256(b"golden chain").digest()
TIME_NS = 1_700_000_000_123_456_789
TIME_US = TIME_NS // 1000
BIG = 2**53 - 1

Case = tuple[str, "wire.Message | bytes"]


def _commands() -> list[wire.Command]:
    return [
        wire.Command(
            kind=wire.CommandKind.NEW,
            side=wire.Side.SELL,
            order_type=wire.OrderType.LIMIT,
            time_in_force=wire.TimeInForce.GTC,
            self_trade_prevention=wire.SelfTradePrevention.CANCEL_NEWEST,
            options=wire.OrderOptions.POST_ONLY,
            market_id=7,
            client_order_id=2**64 - 2,
            price_ticks=BIG,
            qty_lots=BIG - 1,
        ),
        wire.Command(kind=wire.CommandKind.CANCEL, market_id=7, client_order_id=12, order_id=2**40 + 3),
        wire.Command(
            kind=wire.CommandKind.AMEND,
            self_trade_prevention=wire.SelfTradePrevention.CANCEL_NEWEST,
            market_id=8,
            order_id=2**40 + 4,
            price_ticks=6_543_210,
            qty_lots=1_234,
        ),
        wire.Command(kind=wire.CommandKind.CANCEL_ALL, side=wire.Side.BUY, market_id=9),
    ]


def _order(number: int) -> wire.Command:
    return wire.Command(
        kind=wire.CommandKind.NEW,
        side=wire.Side.BUY if number % 2 else wire.Side.SELL,
        order_type=wire.OrderType.MARKET if number % 3 else wire.OrderType.LIMIT,
        time_in_force=wire.TimeInForce.FOK if number % 5 else wire.TimeInForce.IOC,
        self_trade_prevention=wire.SelfTradePrevention.CANCEL_NEWEST,
        market_id=1 + number,
        client_order_id=1000 + number,
        price_ticks=5_000_000 + number,
        qty_lots=1 + number,
    )


def _full() -> list[wire.Command]:
    order = msgspec.structs.replace(
        _order(15),
        time_in_force=wire.TimeInForce.GTD,
        self_trade_prevention=wire.SelfTradePrevention.DECREMENT,
        options=wire.OrderOptions(0b11111),
        trigger=wire.Trigger.TRAILING,
        trail_ppm=50_000,
        display_qty_lots=2**40 + 1,
        min_qty_lots=2**41 + 2,
        trigger_ticks=2**42 + 3,
        expire_time_ns=TIME_NS + 4,
        max_notional=2**63 - 1,
        sizes_no=255,
    )
    amend = wire.Command(
        kind=wire.CommandKind.AMEND,
        self_trade_prevention=wire.SelfTradePrevention.CANCEL_BOTH,
        options=wire.OrderOptions.POST_ONLY | wire.OrderOptions.SLIDE,
        sizes_no=129,
        trail_ppm=60_000,
        market_id=9,
        client_order_id=1009,
        order_id=2**44,
        price_ticks=2**45 + 5,
        qty_lots=2**46 + 6,
        display_qty_lots=2**47 + 7,
        trigger_ticks=2**48 + 8,
        expire_time_ns=TIME_NS + 9,
    )
    return [order, amend]


def _operator_commands() -> list[wire.OperatorCommand]:
    kind = wire.OperatorCommandKind
    key = bytes(TRADER.verify_key)
    return [
        wire.OperatorCommand(kind=kind.OPEN_ACCOUNT, account_id=41, new_public_key=key),
        wire.OperatorCommand(kind=kind.REGISTER_KEY, account_id=42, new_public_key=bytes(range(100, 132))),
        wire.OperatorCommand(kind=kind.DEPOSIT, account_id=43, amount=2**63 - 1, asset_id=3),
        wire.OperatorCommand(kind=kind.WITHDRAW, account_id=44, amount=1_000_001, asset_id=4),
        wire.OperatorCommand(
            kind=kind.SET_MARKET_STATE,
            market_state=wire.MarketState.CLOSING_AUCTION,
            market_id=2**32 - 2,
            until_ns=TIME_NS + 5,
        ),
        wire.OperatorCommand(kind=kind.SET_REFERENCE_PRICE, market_id=2**31 + 1, price_ticks=2**53 - 3),
        wire.OperatorCommand(
            kind=kind.SET_MARKET_RULES,
            market_id=2**31 + 2,
            amount=2**62 + 1,
            until_ns=2**40 + 2,
            qty_lots=2**50 + 3,
            orders_max=2**31 + 4,
            dynamic_band_ppm=50_001,
            static_band_ppm=200_002,
        ),
        wire.OperatorCommand(
            kind=kind.SET_ACCOUNT_RULES,
            account_id=2**33 + 1,
            trade_group=2**31 + 5,
            orders_max=2**31 + 6,
            fee_discount_ppm=250_003,
            orders_per_second=2**31 + 7,
        ),
        wire.OperatorCommand(kind=kind.ADD_ASSET, asset_id=2**31 + 8, symbol=_symbol("GOLD.9"), decimals=18),
        wire.OperatorCommand(
            kind=kind.ADD_MARKET,
            market_id=2**31 + 9,
            asset_id=2**31 + 8,
            quote_asset_id=2**31 + 10,
            symbol=_symbol("A-SYMBOL-OF-THIRTY-TWO_LETTERS.X"),
            base_units_per_lot=2**60 + 11,
            quote_units_per_tick_lot=2**61 + 12,
            maker_fee_ppm=-200,
            taker_fee_ppm=500,
        ),
        wire.OperatorCommand(
            kind=kind.SET_MARKET_SIZES,
            market_id=2**31 + 9,
            base_units_per_lot=2**62 + 13,
            quote_units_per_tick_lot=2**59 + 14,
        ),
    ]


def _symbol(text: str) -> bytes:
    return text.encode("ascii").ljust(32, b"\0")


def _trader_batch(
    nonce: int, commands: list[wire.Command], flags: wire.BatchFlags = wire.BatchFlags.NONE
) -> bytes:
    batch = wire.SignedBatch(nonce=nonce, shard=3, flags=flags, commands=commands)
    return sign_batch(batch, TRADER, DEPLOYMENT_ID)


def _commands_cases() -> Iterator[Case]:
    yield "one order", _trader_batch(TIME_US, [_order(2)])
    yield "one command of each kind", _trader_batch(TIME_US + 1, _commands())
    yield "an order with every field, and an amend with every field", _trader_batch(TIME_US + 2, _full())
    yield (
        "two orders of which all or nothing is to happen",
        _trader_batch(TIME_US + 3, [_order(2), _order(3)], wire.BatchFlags.ALL_OR_NOTHING),
    )
    yield "64 commands, the most", _trader_batch(2**64 - 1, [_order(number) for number in range(64)])
    batch = wire.OperatorBatch(nonce=TIME_US, shard=65535, commands=_operator_commands())
    yield "one command of each kind", sign_batch(batch, OPERATOR, DEPLOYMENT_ID)
    yield (
        "the epoch after a known tip",
        wire.EpochOpen(epoch=2**33, tip_epoch=2**33 - 1, tip_record_no=987_654_321, tip_chain=CHAIN),
    )
    yield "the first epoch of a shard", wire.EpochOpen(epoch=1, tip_chain=DEPLOYMENT_ID)
    yield "time passes", wire.TimePassed()


def _session_cases() -> Iterator[Case]:
    yield (
        "a challenge",
        wire.Challenge(deployment_id=DEPLOYMENT_ID, challenge=CHALLENGE, server_time_ns=TIME_NS),
    )
    establish = wire.Establish(challenge=CHALLENGE, heartbeat_interval_ms=10_000, last_report_seq=2**41)
    yield "a logon", sign_establish(establish, TRADER, DEPLOYMENT_ID)
    yield (
        "two shards, the key is registered on one",
        wire.EstablishmentAck(
            public_key=bytes(TRADER.verify_key),
            server_time_ns=TIME_NS + 1,
            heartbeat_interval_ms=10_000,
            durability=wire.Durability.ALWAYS,
            shards=[
                wire.ShardSession(shard=0, account_id=41, report_seq=2**41),
                wire.ShardSession(shard=1, account_id=2**64 - 1),
            ],
        ),
    )
    yield "a refused logon", wire.EstablishmentReject(reason=wire.ReasonCode.SIGNATURE_INVALID)
    yield "a heartbeat", wire.Sequence(next_seq_no=2**42 + 1)
    yield (
        "the second bad signature",
        wire.NotApplied(nonce=TIME_US, reason=wire.ReasonCode.SIGNATURE_INVALID, strikes=2),
    )
    yield "the server stops", wire.Terminate(reason=wire.ReasonCode.SERVER_SHUTDOWN)


def _report_cases() -> Iterator[Case]:
    common: dict[str, Any] = {"record_no": 2**43 + 4, "log_time_ns": TIME_NS, "shard": 3}
    yield (
        "a fill, every field in use",
        wire.ExecutionReport(
            **common,
            account_id=41,
            report_seq=2**41 + 1,
            seq=2**42 + 2,
            nonce=TIME_US,
            order_id=2**40 + 5,
            client_order_id=2**64 - 2,
            price_ticks=6_543_210,
            qty_lots=900,
            leaves_lots=500,
            cum_qty_lots=400,
            last_price_ticks=6_543_209,
            last_qty_lots=300,
            fee=123_456,
            trade_id=2**39 + 6,
            target_account_id=43,
            amount=2**62 + 7,
            market_id=7,
            asset_id=8,
            reason=wire.ReasonCode.SELF_TRADE,
            command_index=63,
            exec_type=wire.ExecType.TRADE,
            side=wire.Side.SELL,
            liquidity=wire.Liquidity.TAKER,
            flags=wire.ReportFlags.DUPLICATE,
            market_state=wire.MarketState.CONTINUOUS,
            sizes_no=254,
        ),
    )
    yield (
        "a refused batch of an unknown key",
        wire.ExecutionReport(
            **common,
            account_id=2**64 - 1,
            seq=9,
            nonce=TIME_US,
            reason=wire.ReasonCode.UNKNOWN_KEY,
            exec_type=wire.ExecType.REJECTED,
        ),
    )


def _query_cases() -> Iterator[Case]:
    request_id = 2**63 + 5
    record_no = 2**43 + 4
    levels = [wire.Level(price_ticks=100 + n, qty_lots=200 + n, orders=300 + n) for n in range(5)]
    yield "a query", wire.GenesisRequest(request_id=request_id)
    yield "a genesis file", wire.Genesis(request_id=request_id, genesis=GENESIS)
    yield "a query", wire.BalancesRequest(request_id=request_id, shard=3)
    yield (
        "two balances",
        wire.Balances(
            request_id=request_id,
            account_id=41,
            next_record_no=record_no,
            balances=[
                wire.Balance(asset_id=1, available=2**62, held=77),
                wire.Balance(asset_id=2, available=0, held=2**63 - 1),
            ],
        ),
    )
    yield "no balance", wire.Balances(request_id=request_id, account_id=42, next_record_no=record_no)
    yield (
        "a query",
        wire.OpenOrdersRequest(request_id=request_id, after_order_id=2**40, market_id=7, shard=3, limit=500),
    )
    yield (
        "one order",
        wire.OpenOrders(
            request_id=request_id,
            account_id=41,
            next_record_no=record_no,
            orders=[
                wire.OpenOrder(
                    order_id=2**40 + 5,
                    client_order_id=1001,
                    price_ticks=6_543_210,
                    qty_lots=900,
                    leaves_lots=500,
                    priority_no=2**40 + 6,
                    market_id=7,
                    side=wire.Side.BUY,
                    order_type=wire.OrderType.MARKET,
                    time_in_force=wire.TimeInForce.FOK,
                    trigger=wire.Trigger.TRAILING,
                    display_qty_lots=30,
                    trigger_ticks=6_500_000,
                    expire_time_ns=TIME_NS,
                    options=wire.OrderOptions.ON_REFERENCE | wire.OrderOptions.OCO_WITH_PREVIOUS,
                )
            ],
        ),
    )
    yield "a query", wire.BookRequest(request_id=request_id, market_id=7, levels=10, shard=3)
    yield (
        "two bids, three asks",
        wire.BookDepth(
            request_id=request_id,
            next_record_no=record_no,
            market_id=7,
            market_state=wire.MarketState.AUCTION,
            indicative_price_ticks=2**51 + 7,
            indicative_qty_lots=2**52 + 8,
            bids=levels[:2],
            asks=levels[2:],
        ),
    )
    yield "a query", wire.TradesRequest(request_id=request_id, market_id=7, limit=1, shard=2)
    yield (
        "two trades",
        wire.Trades(
            request_id=request_id,
            next_record_no=record_no,
            market_id=7,
            trades=[
                wire.TradePrint(
                    trade_id=2**39 + n,
                    price_ticks=100 + n,
                    qty_lots=200 + n,
                    log_time_ns=TIME_NS - n,
                    taker_side=side,
                )
                for n, side in enumerate((wire.Side.BUY, wire.Side.SELL))
            ],
        ),
    )
    yield "a query", wire.ShardStatusRequest(request_id=request_id, shard=3)
    yield (
        "a shard at work",
        wire.ShardStatus(
            request_id=request_id,
            epoch=2**33,
            next_record_no=record_no,
            next_seq=2**44 + 1,
            log_time_ns=TIME_NS,
            open_orders=10_000_000,
            accounts=65_536,
            trades=2**39 + 2,
            shard=3,
            durability=wire.Durability.EVERY_SECOND,
        ),
    )
    yield (
        "a refused query",
        wire.QueryReject(request_id=request_id, reason=wire.ReasonCode.QUERY_LIMIT_INVALID),
    )
    yield (
        "a query",
        wire.DefinitionsRequest(
            request_id=request_id,
            since_record_no=record_no,
            first_asset=2**31 + 1,
            first_market=2**31 + 2,
            shard=3,
            limit=500,
        ),
    )
    yield (
        "an asset and a market",
        wire.Definitions(
            request_id=request_id,
            next_record_no=record_no,
            next_asset=2**31 + 3,
            next_market=2**31 + 4,
            shard=3,
            assets=[wire.AssetDefinition(symbol=_symbol("GOLD.9"), asset_id=2**31 + 8, decimals=18)],
            markets=[
                wire.MarketDefinition(
                    symbol=_symbol("GOLD.9-USD"),
                    base_units_per_lot=2**60 + 11,
                    quote_units_per_tick_lot=2**61 + 12,
                    defined_record_no=2**43 + 3,
                    market_id=2**31 + 9,
                    base_asset_id=2**31 + 8,
                    quote_asset_id=2**31 + 10,
                    maker_fee_ppm=-200,
                    taker_fee_ppm=500,
                    sizes_no=258,
                )
            ],
        ),
    )
    yield "nothing", wire.Definitions(request_id=request_id, next_record_no=record_no)


def vectors(schema: Schema) -> dict[str, dict[str, Any]]:
    """Contents of each golden file by message name."""
    files: dict[str, dict[str, Any]] = {}
    for cases in (_commands_cases(), _session_cases(), _report_cases(), _query_cases()):
        for description, content in cases:
            frame = content if isinstance(content, bytes) else content.encode()
            message = wire.decode(frame)
            name = type(message).__name__
            file = files.setdefault(
                name,
                {
                    "message": name,
                    "templateId": message.TEMPLATE_ID,
                    "schemaVersion": schema.version,
                    "cases": [],
                },
            )
            if hasattr(message, "signature"):
                file["deploymentId"] = DEPLOYMENT_ID.hex()
                file["seed"] = bytes(OPERATOR if name == "OperatorBatch" else TRADER).hex()
            case = {"description": description, "fields": _fields(schema, message), "frame": frame.hex()}
            file["cases"].append(case)
    return files


def _fields(schema: Schema, message: wire.Message) -> dict[str, Any]:
    """The fields under their names in the schema, as JSON can carry them (see README.md)."""
    layout = schema.message(type(message).__name__)
    fields = _block(layout.block, message)
    for group in layout.groups:
        entries = getattr(message, snake(group.name))
        fields[group.name] = [_block(group.entry, entry) for entry in entries]
    for data in layout.data:
        fields[data.name] = getattr(message, snake(data.name)).hex()
    return fields


def _block(block: Block, record: object) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for field in block.fields:
        if field.reserved:
            continue
        value = getattr(record, snake(field.name))
        if field.is_bytes:
            fields[field.name] = value.hex()
        elif isinstance(field.type, Enum) and field.type.flags:
            fields[field.name] = [choice.name for choice in field.type.values if value & choice.value]
        elif isinstance(field.type, Enum):
            fields[field.name] = next(valid.name for valid in field.type.values if valid.value == value)
        else:
            fields[field.name] = str(value) if field.type.size == 8 else value
    return fields


def vector_files(schema: Schema) -> dict[str, str]:
    """File name and text of every golden file, one per message."""
    return {
        f"{snake(name)}.json": json.dumps(content, indent=2) + "\n"
        for name, content in vectors(schema).items()
    }
