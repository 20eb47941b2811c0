"""Seeded command streams that go everywhere: into every refusal, full pools, crosses, resends, nonsense.

The generator looks at the reference engine's state to name orders that exist; everything else comes from one
`random.Random(seed)`, so that a seed is a complete description of a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.model import kit
from tests.model.duel import Divergence, Duel, describe, shrink
from tests.model.kit import OPERATOR_KEY, START_NS, EngineClass
from zexchange.genesis import AssetSpec, EngineLimits, Genesis, MarketSpec
from zexchange.limits import AMOUNT_MAX, PRICE_TICKS_MAX, QTY_LOTS_MAX
from zexchange.wire.messages import (
    BatchFlags,
    Command,
    CommandKind,
    ExecType,
    MarketState,
    OpenOrder,
    OperatorCommand,
    OrderOptions,
    OrderType,
    ReasonCode,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Trigger,
)

STRANGE_PRICES = (0, -1, 1, 2, PRICE_TICKS_MAX, PRICE_TICKS_MAX + 1, 2**63 - 1, -(2**63), 2**31, 9_223_372)
STRANGE_QUANTITIES = (0, 1, 1_024, 1_025, QTY_LOTS_MAX, QTY_LOTS_MAX + 1, 2**63 - 1, 2**64 - 1, 2**32)
STRANGE_AMOUNTS = (0, 1, AMOUNT_MAX, AMOUNT_MAX + 1, AMOUNT_MAX - 1_000_000, 2**64 - 1, 2**62)
STRANGE_IDS = (0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
UNKNOWN_MARKETS = (4, 9, 2**32 - 1)
MORE_MARKETS = (11, 12, 13)
"""That may be added on the way; there is room for one."""
MORE_ASSETS = (21, 22, 23)
"""Likewise."""
STRANGE_SYMBOLS = (b"", b"x", b"-A", b"A\0B", b"A B", b"FREE\xff", b"FREE", b"USD", bytes(range(65, 97)))

SHARD = 1
"""The shard under test: not 0, so that a forgotten shard number shows."""

REASONS_OF_THE_ENGINE = {reason for reason in ReasonCode if 200 <= reason < 500}
EXEC_TYPES_IN_USE = set(ExecType) - {ExecType.NONE, ExecType.RESTATED}


def fees(random: Random) -> dict[str, int]:
    """Of a market; makers may get a rebate up to the taker's fee."""
    ppm = (0, 1, 333, 2_500, 10_000, 999_999, 1_000_000)
    taker_ppm = random.choice(ppm)
    maker_ppm = -random.choice((taker_ppm, taker_ppm // 2)) if random.random() < 0.3 else random.choice(ppm)
    return {"maker_fee_ppm": maker_ppm, "taker_fee_ppm": taker_ppm}


def stream_genesis(random: Random, *, deep: bool) -> Genesis:
    """Three markets on the shard and one elsewhere. Pools are tiny, or deep enough for the 1,024 limits."""
    engine_limits = EngineLimits(
        max_accounts=random.randint(5, 9),
        max_keys=random.randint(8, 12),
        max_balances=64 if deep else random.randint(12, 16),
        max_orders=2_300 if deep else random.randint(4, 40),
        max_outcomes=random.choice((64, 65, 100, 128, 200)),
        max_markets=4,
        max_assets=5,
    )
    return kit.small_genesis(
        assets=(
            AssetSpec(id=10, symbol="USD", decimals=0),
            AssetSpec(id=3, symbol="BTC", decimals=0),
            AssetSpec(id=7, symbol="ETH", decimals=2),
            AssetSpec(id=5, symbol="YEN", decimals=18),
        ),
        markets=(
            MarketSpec(id=4, symbol="ELSEWHERE", base="BTC", quote="YEN", tick_size="1", lot_size="1"),
            MarketSpec(
                id=2, symbol="FREE", base="BTC", quote="USD", tick_size="1", lot_size="1", shard=SHARD
            ),
            MarketSpec(
                id=1,
                symbol="FEES",
                base="ETH",
                quote="USD",
                tick_size="2",
                lot_size="0.5",
                **fees(random),
                shard=SHARD,
            ),
            MarketSpec(
                id=8,
                symbol="HUGE",
                base="BTC",
                quote="ETH",
                tick_size="0.01" if deep else random.choice(("0.01", "1000000", "92233720368547758.07")),
                lot_size="1",
                **fees(random),
                shard=SHARD,
            ),
        ),
        engine_limits=engine_limits,
        shards=2,
    )


@dataclass
class Stream:
    """Generates bodies for a duel and applies them."""

    duel: Duel
    random: Random
    now_ns: int = START_NS
    keys: list[bytes] = field(default_factory=list)
    """Public keys that were offered for registration."""
    nonces: dict[bytes, int] = field(default_factory=dict)
    """Highest nonce sent by key."""
    used_nonces: dict[bytes, list[int]] = field(default_factory=dict)
    """All of them, by key, oldest first."""
    nonces_to_try: dict[bytes, int] = field(default_factory=dict)
    """A nonce at the edge of the window, by key."""
    sent: list[bytes] = field(default_factory=list)
    """Frames to send again."""

    # -------------------------------------------------------------- picking

    def maybe(self, probability: float) -> bool:
        return self.random.random() < probability

    def market_id(self) -> int:
        if self.maybe(0.03):
            return self.random.choice(UNKNOWN_MARKETS)
        return self.random.choice((2, 2, 2, 1, 1, 1, 8, 8, *MORE_MARKETS[:2]))

    def side(self) -> Side:
        return self.random.choice((Side.BUY, Side.SELL))

    def price(self, side: Side) -> int:
        if self.maybe(0.04):
            return self.random.choice(STRANGE_PRICES)
        # Buyers and sellers overlap by a few ticks: some orders rest, some trade.
        return self.random.randint(6, 12) if side is Side.BUY else self.random.randint(9, 15)

    def qty(self) -> int:
        if self.maybe(0.04):
            return self.random.choice(STRANGE_QUANTITIES)
        return self.random.choice((1, 1, 2, 3, 5, 8, 20))

    def account_id(self) -> int:
        if self.maybe(0.06):
            return self.random.choice((*STRANGE_IDS, self.duel.genesis.limits.max_accounts))
        return self.random.randint(0, self.duel.genesis.limits.max_accounts - 1)

    def own_order(self, key: bytes) -> OpenOrder | None:
        account_id = self.duel.subject.account_of_key(key)
        orders = [] if account_id is None else self.duel.subject.open_orders(account_id, 0, 0, 100)
        return self.random.choice(orders) if orders else None

    # -------------------------------------------------------------- trader commands

    def options(self) -> OrderOptions:
        """Mostly none; post-only more often than the others, and slide mostly with it."""
        options = OrderOptions.NONE
        if self.maybe(0.1):
            options |= OrderOptions.POST_ONLY
            if self.maybe(0.4):
                options |= OrderOptions.SLIDE
        for option, probability in (
            (OrderOptions.SLIDE, 0.005),
            (OrderOptions.HIDDEN, 0.06),
            (OrderOptions.ON_REFERENCE, 0.01),
            (OrderOptions.OCO_WITH_PREVIOUS, 0.01),
        ):
            if self.maybe(probability):
                options |= option
        return options

    def stp(self) -> SelfTradePrevention:
        return self.random.choice(tuple(SelfTradePrevention)[1:])

    def terms(self, tif: TimeInForce, qty_lots: int) -> dict[str, Any]:
        """Display, minimum, expiry, trigger and maximum notional of a new order: mostly few, mostly sound."""
        terms: dict[str, Any] = {}
        may_rest = tif in (TimeInForce.GTC, TimeInForce.DAY, TimeInForce.GTD)
        if self.maybe(0.2 if may_rest else 0.01):
            display_lots = self.random.choice((1, 1, 2, 3, 30))
            terms["display_qty_lots"] = display_lots if self.maybe(0.05) else min(display_lots, qty_lots)
        if self.maybe(0.3 if tif is TimeInForce.IOC else 0.01):
            terms["min_qty_lots"] = self.random.choice((1, 2, 5, 30))
        if (tif is TimeInForce.GTD and self.maybe(0.97)) or self.maybe(0.01):
            terms["expire_time_ns"] = self.expire_time_ns()
        if self.maybe(0.2):
            terms["trigger"] = self.random.choice(tuple(Trigger)[1:])
            if terms["trigger"] is Trigger.TRAILING and self.maybe(0.5):
                terms["trail_ppm"] = self.random.choice((1, 50_000, 200_000, 999_999, 1_000_000))
            else:
                is_distance = terms["trigger"] is Trigger.TRAILING
                terms["trigger_ticks"] = self.random.randint(1, 3) if is_distance else self.trigger_ticks()
        elif self.maybe(0.02):
            terms[self.random.choice(("trigger_ticks", "trail_ppm"))] = 5
        if self.maybe(0.01):
            terms["trail_ppm"] = 7
        return terms

    def trigger_ticks(self) -> int:
        return self.random.choice(STRANGE_PRICES) if self.maybe(0.04) else self.random.randint(7, 14)

    def expire_time_ns(self) -> int:
        steps = (1, 1_000, 100_000, 20_000_000, 30_000_000_000, 10**15, -1, 0)
        return self.random.choice((2**64 - 1, *[self.now_ns + step for step in steps]))

    def new_order(self) -> Command:
        side = self.side()
        tif = self.random.choice(
            (
                *[TimeInForce.GTC] * 6,
                *[TimeInForce.IOC] * 2,
                *[TimeInForce.FOK] * 2,
                *[TimeInForce.DAY] * 2,
                *[TimeInForce.GTD] * 2,
                TimeInForce.AT_THE_OPEN,
            )
        )
        if self.maybe(0.08):
            tif = TimeInForce.AT_THE_CLOSE
        if self.maybe(0.05):
            return kit.order(
                side if self.maybe(0.05) else Side.BUY,
                self.qty(),
                self.price(side) if self.maybe(0.5) else 0,
                market_id=self.market_id(),
                tif=TimeInForce.IOC if self.maybe(0.95) else tif,
                order_type=OrderType.MARKET if self.maybe(0.97) else OrderType.LIMIT,
                stp=self.stp(),
                max_notional=self.amount(),
            )
        is_market = self.maybe(0.1)
        if is_market and self.maybe(0.8):
            tif = self.random.choice((TimeInForce.IOC, TimeInForce.FOK))
        qty_lots = self.qty()
        return kit.order(
            side,
            qty_lots,
            self.price(side),
            market_id=self.market_id(),
            tif=tif,
            order_type=OrderType.MARKET if is_market else OrderType.LIMIT,
            stp=self.stp(),
            client_order_id=self.random.choice((0, 0, 0, 1, 2, 3, 4, 2**64 - 1)),
            options=self.options(),
            **self.terms(tif, qty_lots),
        )

    def pair(self) -> list[Command]:
        """Two orders that cancel each other, mostly: they may not fit together, or one may trade at once."""
        first = self.new_order()
        first.options &= ~OrderOptions.OCO_WITH_PREVIOUS
        second = self.new_order()
        second.options |= OrderOptions.OCO_WITH_PREVIOUS
        if self.maybe(0.9):
            second.side, second.market_id = first.side, first.market_id
        return [first, second]

    def names(self, key: bytes) -> dict[str, int]:
        """How a cancel or amend names its order: mostly right, by either id or both."""
        order = self.own_order(key)
        if order is None or self.maybe(0.1):
            some_seq = self.random.randint(1, self.duel.subject.next_seq)
            return {
                "order_id": self.random.choice((0, some_seq, *STRANGE_IDS)),
                "client_order_id": self.random.choice((0, 1, 2, 3, 99)),
                "market_id": self.random.choice((0, 0, 1, 2, 9)),
            }
        by_client_id = bool(order.client_order_id) and self.maybe(0.4)
        return {
            "order_id": 0 if by_client_id else order.order_id,
            "client_order_id": order.client_order_id if by_client_id or self.maybe(0.3) else 0,
            "market_id": order.market_id if self.maybe(0.3) else 0,
        }

    def amend(self, key: bytes) -> Command:
        price = 0 if self.maybe(0.4) else self.price(self.side())
        qty = 0 if self.maybe(0.3) else self.qty()
        terms: dict[str, Any] = {}
        for name, probability in (
            ("display_qty_lots", 0.1),
            ("expire_time_ns", 0.06),
            ("trigger_ticks", 0.1),
            ("trail_ppm", 0.05),
        ):
            if self.maybe(probability):
                terms[name] = {
                    "display_qty_lots": self.random.choice((1, 2, 3, 50)),
                    "expire_time_ns": self.expire_time_ns(),
                    "trigger_ticks": self.trigger_ticks(),
                    "trail_ppm": self.random.choice((1, 100_000, 999_999, 1_000_000)),
                }[name]
        options = OrderOptions.NONE
        if self.maybe(0.15):
            options = OrderOptions.POST_ONLY | (OrderOptions.SLIDE if self.maybe(0.5) else 0)
        elif self.maybe(0.02):
            options = self.random.choice(tuple(OrderOptions))
        return kit.amend(
            **self.names(key), price_ticks=price, qty_lots=qty, stp=self.stp(), options=options, **terms
        )

    def cancel_all(self) -> Command:
        market_id = 0 if self.maybe(0.4) else self.market_id()
        return kit.cancel_all(market_id, self.random.choice((Side.NONE, Side.BUY, Side.SELL)))

    def sizes(self) -> dict[int, int]:
        """How often the sizes of each market have changed."""
        return {one.market_id: one.sizes_no % 256 for one in self.duel.subject.markets(1, 0, 10)[0]}

    def trader_command(self, key: bytes) -> Command:
        """Mostly for the sizes that the market has."""
        command = self.some_trader_command(key)
        if command.kind in (CommandKind.NEW, CommandKind.AMEND) and self.maybe(0.98):
            market_id = command.market_id
            if command.kind is CommandKind.AMEND:
                account_id = self.duel.subject.account_of_key(key) or 0
                for order in self.duel.subject.open_orders(account_id, 0, 0, 3_000):
                    is_named = order.client_order_id == command.client_order_id
                    if order.order_id == command.order_id or (command.order_id == 0 and is_named):
                        market_id = order.market_id
            command.sizes_no = self.sizes().get(market_id, 0)
        return command

    def some_trader_command(self, key: bytes) -> Command:
        kind = self.random.random()
        if kind < 0.62 or (kind < 0.95 and self.own_order(key) is None):
            return self.new_order()
        if kind < 0.76:
            return kit.cancel(**self.names(key))
        if kind < 0.975:
            return self.amend(key)
        return self.cancel_all()

    # -------------------------------------------------------------- operator commands

    def operator_command(self) -> OperatorCommand:
        kind = self.random.random()
        asset_id = self.asset_id()
        if self.maybe(0.12):
            return self.definition()
        if kind < 0.12:
            return kit.open_account(self.some_key(), 0 if self.maybe(0.5) else self.account_id())
        if kind < 0.22:
            return kit.register_key(self.some_key(), self.account_id())
        if kind < 0.72:
            return kit.deposit(self.account_id(), asset_id, self.amount())
        if kind < 0.84:
            return kit.withdraw(self.account_id(), asset_id, self.amount())
        if kind < 0.91:
            return self.set_market_state()
        if kind < 0.94:
            price_ticks = self.random.choice((*STRANGE_PRICES, 0)) if self.maybe(0.05) else 0
            return kit.reference_price(self.market_id(), price_ticks or self.random.randint(7, 14))
        return self.market_rules() if kind < 0.985 else self.account_rules()

    def asset_id(self) -> int:
        return self.random.choice((10, 10, 3, 7, 5, 6, *MORE_ASSETS[:2])) if self.maybe(0.98) else 0

    def symbol(self, number: int) -> str | bytes:
        return self.random.choice(STRANGE_SYMBOLS) if self.maybe(0.25) else f"S{number}"

    def units(self) -> tuple[int, int]:
        """Base units per lot, quote units per tick and lot."""
        if self.maybe(0.08):
            return self.random.choice(STRANGE_AMOUNTS), self.random.choice(STRANGE_AMOUNTS)
        return self.random.choice(((1, 1), (1, 2), (2, 4), (4, 2), (3, 1), (5, 1), (1, 1)))

    def definition(self) -> OperatorCommand:
        """Another asset or market, or other sizes: mostly what cannot be."""
        choose = self.random.choice
        kind = self.random.random()
        if kind < 0.3:
            asset_id = choose((*MORE_ASSETS, 10, 0))
            return kit.add_asset(asset_id, self.symbol(asset_id), choose((0, 0, 1, 2, 18, 19, 255)))
        lot, tick = self.units()
        if kind < 0.75:
            market_id = choose((*MORE_MARKETS, *MORE_MARKETS, 2, 0))
            charged = choose(({}, {}, fees(self.random), {"maker_fee_ppm": -1}, {"taker_fee_ppm": 1_000_001}))
            base, quote = choose((3, 7, self.asset_id())), choose((10, 10, 5, self.asset_id()))
            symbol = self.symbol(market_id)
            return kit.add_market(market_id, symbol, base, quote, lot=lot, tick=tick, **charged)
        return kit.market_sizes(self.market_id(), lot, tick)

    def set_market_state(self) -> OperatorCommand:
        """Mostly towards trading; sometimes with a time at which it ends by itself."""
        states = [state for state in MarketState if state not in (MarketState.NONE, MarketState.UNCROSSING)]
        market_id = self.market_id()
        states.remove(MarketState.EXPIRED)
        if market_id == 8 and self.maybe(0.25):
            states = [MarketState.CLOSED, MarketState.EXPIRED]
            return kit.market_state(market_id, self.random.choice(states))
        often = [MarketState.CONTINUOUS] * 6 + [MarketState.AUCTION] * 2 + [MarketState.CLOSING_AUCTION]
        state = self.random.choice((*states, *often))
        until_ns = self.expire_time_ns() if self.maybe(0.3) else 0
        return kit.market_state(market_id, state, until_ns)

    def market_rules(self) -> OperatorCommand:
        """Bands and limits: mostly none or wide."""
        choose = self.random.choice
        return kit.market_rules(
            self.market_id(),
            dynamic_band_ppm=choose((0, 50_000, 100_000, 150_000, 300_000, 999_999, 1_000_000)),
            static_band_ppm=choose((0, 0, 0, 200_000, 400_000, 2**32 - 1)),
            qty_lots=choose((0, 0, 8, 100, QTY_LOTS_MAX, QTY_LOTS_MAX + 1)),
            amount=choose((0, 0, 200, 5_000, AMOUNT_MAX, AMOUNT_MAX + 1)),
            orders_max=choose((0, 0, 0, 2, 50)),
            until_ns=choose((0, 1, 1_000_000, 30_000_000_000, 86_400 * 10**9, 86_400 * 10**9 + 1)),
        )

    def account_rules(self) -> OperatorCommand:
        choose = self.random.choice
        return kit.account_rules(
            self.account_id(),
            fee_discount_ppm=choose((0, 1, 333_333, 1_000_000, 1_000_001)),
            trade_group=choose((0, 0, 1, 1, 2)),
            orders_max=choose((0, 0, 0, 3, 30)),
            orders_per_second=choose((0, 0, 0, 1, 4, 100)),
        )

    def some_key(self) -> bytes:
        """A new key mostly; sometimes a known one, the operator's, or zeros."""
        if self.maybe(0.06):
            return bytes(32)
        if self.keys and self.maybe(0.15):
            return self.random.choice((*self.keys, OPERATOR_KEY))
        key = kit.public_key(len(self.keys))
        self.keys.append(key)
        return key

    def amount(self) -> int:
        if self.maybe(0.06):
            return self.random.choice(STRANGE_AMOUNTS)
        return self.random.choice((10, 100, 1_000, 20_000))

    # -------------------------------------------------------------- frames

    def nonce(self, key: bytes) -> int:
        """Mostly the next one; now and then one from the past, the far future, or a leap."""
        highest = self.nonces.get(key, 0)
        past = self.used_nonces.setdefault(key, [])
        if past and self.maybe(0.03):
            # To the edge of the window: an old nonce comes to lie just inside or just outside of it, and is
            # tried.
            old = past[self.random.randrange(-min(len(past), 80), 0)]
            leap = old + self.random.choice((1_022, 1_023, 1_024, 1_025))
            if leap > highest:
                self.nonces[key] = leap
                self.nonces_to_try[key] = old
                return leap
        if key in self.nonces_to_try and self.maybe(0.5):
            return self.nonces_to_try.pop(key)
        choice = self.random.random()
        if choice < 0.05:
            return max(0, highest - self.random.choice((0, 1, 2, 10, 1_022, 1_023, 1_024, 1_025, 5_000)))
        if choice < 0.06:
            return self.random.choice((0, 2**64 - 1, 2**64 - 1_024, 2**63))
        if choice < 0.07:
            limit = self.now_ns // 1_000 + 10_000_000
            self.nonces[key] = limit
            return limit + self.random.randint(-1, 1)
        step = self.random.choice((2, 3, 63, 64, 1_023, 1_024, 1_025, 3_000)) if choice < 0.12 else 1
        nonce = highest + step
        self.nonces[key] = nonce
        past.append(nonce)
        return nonce

    def trader_key(self) -> bytes:
        """Mostly a registered one."""
        owner = self.duel.subject.account_of_key
        registered = [key for key in self.keys if owner(key)]
        return self.random.choice(registered if registered and self.maybe(0.95) else self.keys)

    def batch_size(self) -> int:
        choice = self.random.random()
        if choice < 0.55:
            return 1
        return self.random.randint(2, 6) if choice < 0.97 else self.random.randint(7, 64)

    def frame(self) -> bytes:
        """One frame of some kind, mostly a trader's."""
        choice = self.random.random()
        if self.sent and choice < 0.06:
            return self.random.choice(self.sent[-40:])
        if choice < 0.065:
            return kit.epoch_open(self.random.randint(1, 99))
        if choice < 0.085:
            return kit.time_passed()
        is_operator = choice < 0.21 or not self.keys
        key = OPERATOR_KEY if is_operator else self.trader_key()
        if self.maybe(0.01):
            is_operator = not is_operator
        shard = SHARD if self.maybe(0.985) else self.random.choice((0, 2, 65_535))
        size = self.batch_size()
        commands: Sequence[Command] | Sequence[OperatorCommand]
        if is_operator:
            commands = [self.operator_command() for _ in range(size)]
        else:
            commands = [self.trader_command(key) for _ in range(size)]
            if size > 1 and self.maybe(0.3):
                commands[:2] = self.pair()
        flags = BatchFlags.ALL_OR_NOTHING if not is_operator and self.maybe(0.15) else BatchFlags.NONE
        frame = kit.batch(key, self.nonce(key), commands, shard, flags)
        self.sent.append(frame)
        return frame

    def damaged(self, frame: bytes) -> bytes:
        """The frame with a byte changed, cut or added. It may still be well-formed."""
        damage = self.random.randrange(4)
        if damage == 0:
            return frame[: self.random.randrange(1, len(frame))]
        if damage == 1:
            return frame + bytes(self.random.randrange(1, 9))
        at = self.random.randrange(len(frame)) if damage == 2 else self.random.randrange(min(len(frame), 200))
        return frame[:at] + bytes([frame[at] ^ 1 << self.random.randrange(8)]) + frame[at + 1 :]

    # -------------------------------------------------------------- steps

    def tick(self) -> int:
        self.now_ns += self.random.choice((1, 2, 999, 1_000, 50_000, 2_000_000, 11_000_000_000))
        return self.now_ns

    def apply(self, body: bytes) -> None:
        self.duel.apply(body, self.tick())
        self.now_ns = max(self.now_ns, self.duel.subject.log_time_ns)

    def step(self) -> None:
        """One body of one or a few frames, and now and then an inspection."""
        frames = [self.frame() for _ in range(1 if self.maybe(0.7) else self.random.randint(2, 6))]
        if self.maybe(0.03):
            frames[-1] = self.damaged(frames[-1])
        self.apply(b"".join(frames))
        if self.maybe(0.05):
            if self.maybe(0.3):
                self.resize()
            self.reopen_markets()
        if self.maybe(0.05):
            self.duel.check_from_outside()
        if self.maybe(0.02):
            self.duel.restore()

    def operator(self, *commands: OperatorCommand) -> None:
        self.nonces[OPERATOR_KEY] = self.nonces.get(OPERATOR_KEY, 0) + 1
        self.apply(kit.batch(OPERATOR_KEY, self.nonces[OPERATOR_KEY], commands, SHARD))

    def trader(self, key: bytes, *commands: Command, flags: BatchFlags = BatchFlags.NONE) -> None:
        """For the sizes that the markets have."""
        sizes = self.sizes()
        for command in commands:
            if command.kind is CommandKind.NEW:
                command.sizes_no = sizes.get(command.market_id, 0)
            elif command.kind is CommandKind.AMEND:
                command.sizes_no = sizes.get(2, 0)
        self.nonces[key] = self.nonces.get(key, 0) + 1
        self.apply(kit.batch(key, self.nonces[key], commands, SHARD, flags))

    def reopen_markets(self) -> None:
        """All that can come to trade again; a pre-open market by its auction, whose execution may take long."""
        market_ids = [one.market_id for one in self.duel.subject.markets(0, 0, 10)[0]]
        for market_id in market_ids:
            states = (MarketState.AUCTION, MarketState.HALTED, MarketState.CONTINUOUS)
            self.operator(*(kit.market_state(market_id, state) for state in states))
            if self.maybe(0.4):
                self.operator(kit.market_rules(market_id))
        while any(self.duel.subject.depth(id, 0).state is MarketState.UNCROSSING for id in market_ids):
            self.apply(kit.time_passed())

    def resize(self) -> None:
        """Closes a market, cancels what is open in it, and gives it other sizes; sometimes something is open still."""
        market_id = self.market_id()
        self.operator(kit.market_state(market_id, MarketState.CLOSED))
        if self.maybe(0.9):
            for key in dict.fromkeys(key for key in self.keys if self.duel.subject.account_of_key(key)):
                self.trader(key, *[kit.cancel_all(market_id)] * 3)
        lot, tick = self.units()
        self.operator(kit.market_sizes(market_id, lot, tick), kit.reference_price(market_id, 10))

    def begin(self) -> None:
        """Three accounts with money; the last may be without some asset when balances run out."""
        for account_id in (1, 2, 3):
            key = kit.public_key(len(self.keys))
            self.keys.append(key)
            deposits = [kit.deposit(account_id, asset_id, 100_000) for asset_id in (10, 3, 7)]
            self.operator(kit.open_account(key, account_id), *deposits)

    def deepen(self) -> None:
        """What reaches the bounds on the work of one command."""
        self.deep_book()
        self.deep_waiting()
        self.deep_auction()
        self.deep_orders_for_auctions()

    def clear(self) -> None:
        """No rules, no orders, money for all three accounts, and markets that trade."""
        self.operator(*(kit.market_rules(market_id) for market_id in (1, 2, 8)))
        self.operator(*(kit.account_rules(account_id) for account_id in (1, 2, 3)))
        self.reopen_markets()
        self.operator(*(kit.deposit(account, asset, 10**6) for account in (1, 2, 3) for asset in (10, 3)))
        for key in self.keys[:3]:
            self.trader(key, *[kit.cancel_all()] * 3)

    def deep_book(self) -> None:
        """More than 1,024 resting orders, then commands that reach the limits of one command."""
        maker, taker, other = self.keys[:3]
        self.clear()
        side, opposite = self.random.choice(((Side.BUY, Side.SELL), (Side.SELL, Side.BUY)))
        resting = kit.order(side, 1, 10, market_id=2)
        for _ in range(17):
            self.trader(maker, *[resting] * 64)
        self.trader(other, resting)
        sizes = (1_024, 1_025, 1_024 + 64, 5_000)
        tif = self.random.choice((TimeInForce.FOK, TimeInForce.IOC, TimeInForce.GTC))
        self.trader(
            taker,
            kit.order(opposite, 1_025, 10, market_id=2, tif=TimeInForce.FOK),
            kit.order(opposite, self.random.choice(sizes), 10, market_id=2, tif=tif),
        )
        for _ in range(16):
            self.trader(maker, *[kit.order(side, 1, self.random.randint(9, 10), market_id=2)] * 64)
        self.trader(other, kit.order(opposite, 1_088, 9 if side is Side.BUY else 11, market_id=2))
        for _ in range(17):
            self.trader(maker, *[resting] * 64)
        far = 500 if side is Side.BUY else 1
        self.trader(taker, kit.order(opposite, 1, far, market_id=2, client_order_id=77))
        self.trader(taker, kit.amend(client_order_id=77, price_ticks=10, qty_lots=1_500))
        everything = self.random.choice(
            (kit.cancel_all(), kit.cancel_all(2), kit.cancel_all(2, side), kit.cancel_all(0, side))
        )
        self.trader(maker, *[resting] * 64)
        self.trader(maker, *[everything] * 3)
        for key in (maker, taker, other):
            self.trader(key, kit.cancel_all())
        self.trader(maker, kit.order(side, 4_000, 10, market_id=2, display_qty_lots=1))
        taking = kit.order(opposite, 1_024, 10, market_id=2, tif=TimeInForce.IOC)
        for count in (3, 1):
            self.trader(taker, *[taking] * count, flags=BatchFlags.ALL_OR_NOTHING)
        self.operator(kit.account_rules(2, orders_per_second=1))
        self.trader(taker, resting, resting, resting)
        self.operator(kit.account_rules(2))

    def deep_waiting(self) -> None:
        """More orders that wait or expire than one command or record may handle, and slices without end."""
        maker, taker, other = self.keys[:3]
        self.clear()
        ioc, gtd = TimeInForce.IOC, TimeInForce.GTD
        resting = kit.order(Side.SELL, 1, 10, market_id=2)
        trailing = kit.order(Side.BUY, 1, 20, market_id=2, trigger=Trigger.TRAILING, trigger_ticks=3)
        for _ in range(16):
            self.trader(other, *[trailing] * 64)
        self.trader(other, trailing)
        self.trader(maker, resting)
        self.trader(taker, kit.order(Side.BUY, 1, 10, market_id=2, tif=ioc))
        for price_ticks in (9, 8, 11):
            self.trader(maker, kit.order(Side.SELL, 1, price_ticks, market_id=2))
            self.trader(taker, kit.order(Side.BUY, 1, price_ticks, market_id=2, tif=ioc))
        for _ in range(3):
            self.apply(kit.time_passed())
        self.trader(other, kit.cancel_all(), kit.cancel_all())

        stop = kit.order(Side.BUY, 1, 20, market_id=2, trigger=Trigger.STOP, trigger_ticks=12)
        for _ in range(2):
            self.trader(other, *[stop] * 64)
        for _ in range(2):
            self.trader(maker, *[kit.order(Side.SELL, 1, 13, market_id=2)] * 64)
        self.trader(taker, kit.order(Side.BUY, 1, 13, market_id=2, tif=ioc), kit.cancel_all())
        self.apply(kit.time_passed())
        self.duel.restore()
        self.apply(kit.time_passed())

        due_ns = self.now_ns + 10**12
        for _ in range(17):
            orders = kit.order(Side.SELL, 1, 14, market_id=2, tif=gtd, expire_time_ns=due_ns)
            self.trader(maker, *[orders] * 64)
        self.now_ns = due_ns
        sizes = self.random.choice((1, 200)), self.random.choice((TimeInForce.FOK, ioc, TimeInForce.GTC))
        self.trader(taker, kit.order(Side.BUY, sizes[0], 14, market_id=2, tif=sizes[1]))
        self.duel.restore()
        self.apply(kit.time_passed())

        slices = kit.order(Side.SELL, 600, 15, market_id=2, display_qty_lots=1)
        self.trader(maker, slices, slices, kit.order(Side.SELL, 5, 15, market_id=2))
        fok = [
            kit.order(Side.BUY, qty_lots, 15, market_id=2, tif=TimeInForce.FOK)
            for qty_lots in (1_029, 1_028, 1_027)
        ]
        self.trader(taker, *fok)
        self.trader(maker, slices, slices, slices)
        self.trader(taker, kit.order(Side.BUY, 1_100, 15, market_id=2))
        for key in (maker, taker, other):
            self.trader(key, kit.cancel_all())

    def deep_auction(self) -> None:
        """An auction that takes more steps than one command may: it goes on with the records that follow."""
        maker, taker, other = self.keys[:3]
        self.clear()
        self.operator(kit.market_state(2, MarketState.AUCTION))
        for _ in range(16):
            self.trader(maker, *[kit.order(Side.SELL, 1, self.random.randint(8, 9), market_id=2)] * 64)
            self.trader(
                taker,
                kit.order(Side.BUY, 70, self.random.randint(9, 12), market_id=2, display_qty_lots=1),
                kit.order(Side.SELL, 3, 9, market_id=2),
                *[kit.order(Side.BUY, 1, self.random.randint(7, 9), market_id=2, tif=TimeInForce.AT_THE_OPEN)]
                * 40,
            )
        self.duel.restore()
        self.operator(kit.market_state(2, MarketState.CONTINUOUS))
        self.duel.restore()
        self.trader(other, kit.order(Side.BUY, 1, 9, market_id=2), kit.cancel_all())
        self.operator(kit.market_state(1, MarketState.AUCTION))
        self.trader(maker, kit.cancel_all())
        for _ in range(4):
            self.apply(kit.time_passed())
        self.duel.restore()
        for key in (maker, taker, other):
            self.trader(key, kit.cancel_all(), kit.cancel_all())

    def wait_for_auction(self, tif: TimeInForce, batches: int) -> None:
        """So many times 64 orders that wait for their auction, some amended, an iceberg and a hidden one."""
        maker, taker, other = self.keys[:3]
        for number in range(batches):
            side, key = (Side.SELL, maker) if number % 2 else (Side.BUY, taker)
            self.trader(key, *[kit.order(side, 1, self.random.randint(8, 11), market_id=2, tif=tif)] * 64)
        self.trader(
            other,
            kit.order(Side.SELL, 9, 9, market_id=2, tif=tif, display_qty_lots=2, client_order_id=91),
            kit.order(Side.BUY, 3, 11, market_id=2, tif=tif, options=OrderOptions.HIDDEN),
            kit.amend(client_order_id=91, qty_lots=self.random.choice((8, 9, 10))),
        )

    def pass_time(self) -> None:
        """Until no market is between two states, and from a snapshot in the middle."""
        self.duel.restore()
        while self.duel.subject.depth(2, 0).state is MarketState.UNCROSSING:
            self.trader(self.keys[2], kit.order(Side.BUY, 1, 9, market_id=2, tif=TimeInForce.AT_THE_CLOSE))
            self.apply(kit.time_passed())

    def deep_orders_for_auctions(self) -> None:
        """More orders for an auction than may come to the book, or end, after one command."""
        self.clear()
        states, at_the_open, at_the_close = MarketState, TimeInForce.AT_THE_OPEN, TimeInForce.AT_THE_CLOSE
        self.wait_for_auction(at_the_close, 18)
        self.operator(kit.market_state(2, states.CLOSING_AUCTION, self.now_ns + 20_000_000))
        self.pass_time()
        self.now_ns += self.random.choice((0, 20_000_000))
        self.operator(kit.market_state(2, states.CLOSED))
        self.pass_time()
        self.wait_for_auction(at_the_open, 17)
        first, then = self.random.choice(
            (
                (states.PRE_OPEN, states.CLOSED),
                (states.HALTED, states.CLOSING_AUCTION),
                (states.AUCTION, states.HALTED),
            )
        )
        for state in (first, then, states.CLOSED):
            self.operator(kit.market_state(2, state))
            self.pass_time()
        self.wait_for_auction(at_the_open, 17)
        self.operator(kit.market_state(2, self.random.choice((states.CONTINUOUS, states.POST_ONLY))))
        self.pass_time()
        self.wait_for_auction(at_the_close, 17)
        for state in self.random.choice(
            (
                (states.CLOSED,),
                (states.CLOSING_AUCTION, states.HALTED, states.CONTINUOUS),
                (states.HALTED, states.AUCTION, states.CONTINUOUS, states.CLOSED),
            )
        ):
            self.operator(kit.market_state(2, state))
            self.pass_time()
        for key in self.keys[:3]:
            self.trader(key, *[kit.cancel_all()] * 3)

    def end(self) -> None:
        """A market is over."""
        self.operator(*(kit.market_state(8, state) for state in (MarketState.CLOSED, MarketState.EXPIRED)))
        self.trader(self.keys[0], kit.order(Side.BUY, 1, 10, market_id=8), kit.cancel_all(8))


def run(
    seed: int, commands: int, *, deep: bool = False, classes: Sequence[EngineClass] | None = None
) -> Duel:
    """Runs the stream of this seed for so many commands. Raises Divergence, which names the seed."""
    random = Random(seed)
    genesis = stream_genesis(random, deep=deep)
    stream = Stream(Duel(genesis, SHARD, classes), random)
    try:
        stream.begin()
        if deep:
            stream.deepen()
        while stream.duel.commands < commands:
            stream.step()
        stream.end()
        stream.duel.check_from_outside()
        stream.duel.check_replay()
        stream.duel.restore()
    except Divergence as divergence:
        where = f"seed {seed}, {commands} commands, {'deep' if deep else 'tiny'} pools"
        raise Divergence(f"{where}: {divergence}") from divergence
    return stream.duel


def shrunk(duel: Duel) -> list[str]:
    """The shortest way found to the divergence of this duel, readable."""
    lines = []
    for body, log_time_ns in shrink(duel.genesis, duel.shard, duel.steps, duel.classes):
        lines += [f"at {log_time_ns}:", *describe(body)]
    return lines
