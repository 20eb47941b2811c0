"""Building blocks of the engine tests: a small genesis, unsigned batches, events as readable lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, Self

from zexchange.engine_types import MatchingEngine
from zexchange.genesis import (
    AssetSpec,
    EngineLimits,
    Genesis,
    MarketSpec,
    build_genesis,
    encode_symbol,
    parse_genesis,
)
from zexchange.limits import ACCOUNT_NONE, EXECUTION_REPORT_BYTES
from zexchange.reference import ReferenceEngine
from zexchange.wire.messages import (
    BatchFlags,
    Command,
    CommandKind,
    EpochOpen,
    ExecType,
    ExecutionReport,
    Liquidity,
    MarketState,
    OperatorBatch,
    OperatorCommand,
    OperatorCommandKind,
    OrderOptions,
    OrderType,
    ReasonCode,
    ReportFlags,
    SelfTradePrevention,
    Side,
    SignedBatch,
    TimeInForce,
    TimePassed,
)

OPERATOR_KEY = b"operator".ljust(32, b"\x01")
START_NS = 1_700_000_000_000_000_000


class EngineClass(Protocol):
    """What both engines' classes can do."""

    def __call__(self, genesis: Genesis, shard: int, *, track_state: bool = True) -> MatchingEngine: ...

    def restore(
        self, genesis: Genesis, shard: int, snapshot: bytes, *, track_state: bool = True
    ) -> MatchingEngine: ...


def engine_named(name: str) -> EngineClass:
    """The implementation called "c" or "reference"."""
    if name == "reference":
        return ReferenceEngine
    from zexchange.engine import Engine  # late: the reference can be tested before the C engine is built

    return Engine


def public_key(number: int) -> bytes:
    """A public key that is easy to tell from others. Engines verify no signature, so any 32 bytes will do."""
    return b"key %d" % number + b"\x00" * (32 - len(b"key %d" % number))


def small_genesis(
    *,
    markets: Iterable[MarketSpec] | None = None,
    assets: Iterable[AssetSpec] | None = None,
    engine_limits: EngineLimits | None = None,
    shards: int = 1,
) -> Genesis:
    """A deployment in which one lot costs one unit per tick.

    Market 1, BTC-USD, is free of fees. Market 2, ETH-USD, costs makers 1,000 and takers 2,500 ppm. USD, BTC,
    ETH are the assets 1, 2, 3; ten base units of ETH are one lot.
    """
    return parse_genesis(
        build_genesis(
            "test/model",
            OPERATOR_KEY,
            bytes(31) + b"\x02",
            assets=assets
            or (
                AssetSpec(id=1, symbol="USD", decimals=0),
                AssetSpec(id=2, symbol="BTC", decimals=0),
                AssetSpec(id=3, symbol="ETH", decimals=1),
            ),
            markets=markets
            or (
                MarketSpec(id=1, symbol="BTC-USD", base="BTC", quote="USD", tick_size="1", lot_size="1"),
                MarketSpec(
                    id=2,
                    symbol="ETH-USD",
                    base="ETH",
                    quote="USD",
                    tick_size="1",
                    lot_size="1",
                    maker_fee_ppm=1_000,
                    taker_fee_ppm=2_500,
                ),
            ),
            engine_limits=engine_limits
            or EngineLimits(max_accounts=16, max_keys=32, max_balances=64, max_orders=64, max_outcomes=64),
            shards=shards,
        )
    )


# ------------------------------------------------------------------ commands


def order(
    side: Side,
    qty_lots: int,
    price_ticks: int,
    *,
    market_id: int = 1,
    tif: TimeInForce = TimeInForce.GTC,
    order_type: OrderType = OrderType.LIMIT,
    stp: SelfTradePrevention = SelfTradePrevention.CANCEL_NEWEST,
    client_order_id: int = 0,
    post_only: bool = False,
    options: OrderOptions = OrderOptions.NONE,
    **terms: Any,
) -> Command:
    """A new order; `terms` are further fields of the command."""
    return Command(
        kind=CommandKind.NEW,
        side=side,
        order_type=order_type,
        time_in_force=tif,
        self_trade_prevention=stp,
        options=options | (OrderOptions.POST_ONLY if post_only else OrderOptions.NONE),
        market_id=market_id,
        client_order_id=client_order_id,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
        **terms,
    )


def cancel(order_id: int = 0, *, client_order_id: int = 0, market_id: int = 0) -> Command:
    """Cancels one order."""
    return Command(
        kind=CommandKind.CANCEL, order_id=order_id, client_order_id=client_order_id, market_id=market_id
    )


def amend(
    order_id: int = 0,
    *,
    price_ticks: int = 0,
    qty_lots: int = 0,
    client_order_id: int = 0,
    market_id: int = 0,
    stp: SelfTradePrevention = SelfTradePrevention.CANCEL_NEWEST,
    post_only: bool = False,
    options: OrderOptions = OrderOptions.NONE,
    **terms: Any,
) -> Command:
    """Changes an order; 0 keeps what it has. `terms` are further fields of the command."""
    return Command(
        kind=CommandKind.AMEND,
        self_trade_prevention=stp,
        options=options | (OrderOptions.POST_ONLY if post_only else OrderOptions.NONE),
        **terms,
        order_id=order_id,
        client_order_id=client_order_id,
        market_id=market_id,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
    )


def cancel_all(market_id: int = 0, side: Side = Side.NONE) -> Command:
    """Cancels all orders, of a market or a side if named."""
    return Command(kind=CommandKind.CANCEL_ALL, market_id=market_id, side=side)


def open_account(key: bytes, account_id: int = 0) -> OperatorCommand:
    """Opens an account with its first key."""
    return OperatorCommand(kind=OperatorCommandKind.OPEN_ACCOUNT, account_id=account_id, new_public_key=key)


def register_key(key: bytes, account_id: int) -> OperatorCommand:
    """Another key of an account."""
    return OperatorCommand(kind=OperatorCommandKind.REGISTER_KEY, account_id=account_id, new_public_key=key)


def deposit(account_id: int, asset_id: int, amount: int) -> OperatorCommand:
    """Credits base units."""
    return OperatorCommand(
        kind=OperatorCommandKind.DEPOSIT, account_id=account_id, asset_id=asset_id, amount=amount
    )


def withdraw(account_id: int, asset_id: int, amount: int) -> OperatorCommand:
    """Debits base units."""
    return OperatorCommand(
        kind=OperatorCommandKind.WITHDRAW, account_id=account_id, asset_id=asset_id, amount=amount
    )


def market_state(market_id: int, state: MarketState, until_ns: int = 0) -> OperatorCommand:
    """Brings a market to a state."""
    return OperatorCommand(
        kind=OperatorCommandKind.SET_MARKET_STATE,
        market_id=market_id,
        market_state=state,
        until_ns=until_ns,
    )


def reference_price(market_id: int, price_ticks: int) -> OperatorCommand:
    """Feeds a market's reference price."""
    return OperatorCommand(
        kind=OperatorCommandKind.SET_REFERENCE_PRICE, market_id=market_id, price_ticks=price_ticks
    )


def market_rules(market_id: int, **rules: int) -> OperatorCommand:
    """Bands and limits of a market, all of them anew."""
    return OperatorCommand(kind=OperatorCommandKind.SET_MARKET_RULES, market_id=market_id, **rules)


def account_rules(account_id: int, **rules: int) -> OperatorCommand:
    """Discount, group and limits of an account, all of them anew."""
    return OperatorCommand(kind=OperatorCommandKind.SET_ACCOUNT_RULES, account_id=account_id, **rules)


def add_asset(asset_id: int, symbol: str | bytes, decimals: int = 0) -> OperatorCommand:
    """Another asset."""
    return OperatorCommand(
        kind=OperatorCommandKind.ADD_ASSET, asset_id=asset_id, symbol=symbol_field(symbol), decimals=decimals
    )


def add_market(
    market_id: int,
    symbol: str | bytes,
    base: int,
    quote: int,
    *,
    lot: int = 1,
    tick: int = 1,
    maker_fee_ppm: int = 0,
    taker_fee_ppm: int = 0,
) -> OperatorCommand:
    """Another market, of these assets: base units per lot, quote units per tick and lot."""
    return OperatorCommand(
        kind=OperatorCommandKind.ADD_MARKET,
        market_id=market_id,
        symbol=symbol_field(symbol),
        asset_id=base,
        quote_asset_id=quote,
        base_units_per_lot=lot,
        quote_units_per_tick_lot=tick,
        maker_fee_ppm=maker_fee_ppm,
        taker_fee_ppm=taker_fee_ppm,
    )


def market_sizes(market_id: int, lot: int, tick: int) -> OperatorCommand:
    """Other sizes for a market."""
    return OperatorCommand(
        kind=OperatorCommandKind.SET_MARKET_SIZES,
        market_id=market_id,
        base_units_per_lot=lot,
        quote_units_per_tick_lot=tick,
    )


def symbol_field(symbol: str | bytes) -> bytes:
    """A symbol in its field; bytes are taken as they are, so that tests can say what is no symbol."""
    return encode_symbol(symbol) if isinstance(symbol, str) else symbol.ljust(32, b"\0")


def batch(
    key: bytes,
    nonce: int,
    commands: Sequence[Command | OperatorCommand],
    shard: int = 0,
    flags: BatchFlags = BatchFlags.NONE,
) -> bytes:
    """The frame of a batch with a zero signature. Flags are a trader's only."""
    if isinstance(commands[0], OperatorCommand):
        operator_commands = [one for one in commands if isinstance(one, OperatorCommand)]
        return OperatorBatch(public_key=key, nonce=nonce, shard=shard, commands=operator_commands).encode()
    trader_commands = [one for one in commands if isinstance(one, Command)]
    return SignedBatch(
        public_key=key, nonce=nonce, shard=shard, flags=flags, commands=trader_commands
    ).encode()


def time_passed() -> bytes:
    """The frame of a record that only moves time."""
    return TimePassed().encode()


def epoch_open(epoch: int) -> bytes:
    """The frame of a writer's first record."""
    return EpochOpen(epoch=epoch).encode()


# ------------------------------------------------------------------ events


def decode_events(events: bytes | memoryview) -> list[ExecutionReport]:
    """The event blocks as reports."""
    return [
        ExecutionReport.decode_block(events, offset)
        for offset in range(0, len(events), EXECUTION_REPORT_BYTES)
    ]


def line(report: ExecutionReport) -> str:
    """A report as a line; numbers that tests of the rules rarely look at are left out."""
    who = "nobody" if report.account_id == ACCOUNT_NONE else f"{report.account_id}"
    parts = [f"{who}: {report.exec_type.name.lower()}"]
    if report.order_id:
        parts.append(f"#{report.order_id}")
    if report.client_order_id:
        parts.append(f"'{report.client_order_id}'")
    if report.side is not Side.NONE:
        parts.append(report.side.name.lower())
    if report.qty_lots or report.price_ticks:
        parts.append(f"{report.qty_lots}@{report.price_ticks}")
    if report.leaves_lots or report.cum_qty_lots:
        parts.append(f"open {report.leaves_lots} filled {report.cum_qty_lots}")
    if report.last_qty_lots:
        parts.append(f"last {report.last_qty_lots}")
    if report.last_price_ticks:
        parts.append(f"at {report.last_price_ticks}")
    if report.liquidity is not Liquidity.NONE:
        parts.append(report.liquidity.name.lower())
    if report.fee:
        parts.append(f"fee {report.fee}")
    if report.exec_type in OPERATOR_ANSWERS or report.target_account_id:
        parts.append(f"for {report.target_account_id}")
    if report.amount:
        parts.append(f"{report.amount} of asset {report.asset_id}")
    if report.exec_type is ExecType.ASSET_ADDED:
        parts.append(f"asset {report.asset_id}")
    if report.market_state:
        parts.append(f"market {report.market_id} {report.market_state.name.lower()}")
    if report.reason is not ReasonCode.NONE:
        parts.append(f"because {report.reason.name.lower()}")
    if ReportFlags.DUPLICATE in report.flags:
        parts.append("again")
    return " ".join(parts)


OPERATOR_ANSWERS = {
    ExecType.ACCOUNT_OPENED,
    ExecType.KEY_REGISTERED,
    ExecType.DEPOSITED,
    ExecType.WITHDRAWN,
}


class Shard:
    """An engine with a clock, a nonce counter and accounts that each have the key of their number."""

    def __init__(self, engine: MatchingEngine) -> None:
        self.engine = engine
        self.now_ns = START_NS
        self.nonce = 0

    @classmethod
    def funded(cls, engine: MatchingEngine, accounts: int = 3, amount: int = 1_000_000) -> Self:
        """Accounts 1 to n with so much of each of the assets 1, 2, 3."""
        shard = cls(engine)
        for account_id in range(1, accounts + 1):
            shard.operator(
                open_account(public_key(account_id)),
                *(deposit(account_id, asset_id, amount) for asset_id in (1, 2, 3)),
            )
        return shard

    def next_nonce(self) -> int:
        self.nonce += 1
        return self.nonce

    def apply(self, frame: bytes) -> list[ExecutionReport]:
        """Applies one frame a microsecond later."""
        self.now_ns += 1_000
        applied = self.engine.apply(frame, self.now_ns)
        assert applied.consumed_bytes == len(frame)
        assert applied.records == 1
        reports = decode_events(applied.events)
        self.engine.check()
        return reports

    def reports(
        self,
        account_id: int,
        *commands: Command,
        nonce: int | None = None,
        flags: BatchFlags = BatchFlags.NONE,
    ) -> list[ExecutionReport]:
        """A batch of a trader, by the key with the number of the account."""
        return self.apply(batch(public_key(account_id), nonce or self.next_nonce(), commands, flags=flags))

    def send(self, account_id: int, *commands: Command, nonce: int | None = None) -> list[str]:
        """As `reports`, as lines."""
        return [line(report) for report in self.reports(account_id, *commands, nonce=nonce)]

    def operator(self, *commands: OperatorCommand, nonce: int | None = None) -> list[str]:
        """A batch of the operator."""
        frame = batch(OPERATOR_KEY, nonce or self.next_nonce(), commands)
        return [line(report) for report in self.apply(frame)]

    def book(self, market_id: int = 1) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Bids and asks as (price, lots, orders)."""
        depth = self.engine.depth(market_id, 100)
        bids = [(level.price_ticks, level.qty_lots, level.orders) for level in depth.bids]
        return bids, [(level.price_ticks, level.qty_lots, level.orders) for level in depth.asks]

    def money(self, account_id: int) -> dict[int, tuple[int, int]]:
        """Available and held by asset."""
        return {
            balance.asset_id: (balance.available, balance.held)
            for balance in self.engine.balances(account_id)
        }


def funded_shard(
    engine_class: EngineClass, accounts: int = 3, amount: int = 1_000_000, **engine_limits: int
) -> Shard:
    """A shard of the small genesis with funded accounts; keyword arguments are limits of the engine."""
    sizes = {"max_accounts": 16, "max_keys": 32, "max_balances": 64, "max_orders": 64, "max_outcomes": 64}
    genesis = small_genesis(engine_limits=EngineLimits(**(sizes | engine_limits)))
    return Shard.funded(engine_class(genesis, 0), accounts, amount)


def rest(
    shard: Shard, account_id: int, side: Side, qty_lots: int, price_ticks: int, market_id: int = 1
) -> int:
    """Enters an order that does not trade and returns its id."""
    (report,) = shard.reports(account_id, order(side, qty_lots, price_ticks, market_id=market_id))
    return report.order_id
