"""Reads scenario files and runs them. See the package for what they look like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.model import kit
from tests.model.kit import OPERATOR_KEY, EngineClass, Shard, line, public_key
from zexchange.genesis import AssetSpec, EngineLimits, MarketSpec, decode_symbol
from zexchange.wire.messages import (
    BatchFlags,
    Command,
    ExecutionReport,
    MarketState,
    OperatorCommand,
    OrderOptions,
    OrderType,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Trigger,
)

FOLDER = Path(__file__).parent
ACCOUNTS = {"alice": 1, "bob": 2, "carol": 3, "dave": 4}
NAMES = {number: name for name, number in ACCOUNTS.items()} | {0: "operator"}
ASSETS = {"USD": 1, "BTC": 2, "ETH": 3, "DUST": 4, "GOLD": 9}
MONEY = 100_000
_UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "d": 86_400_000_000_000}
_FLAGS: dict[str, dict[str, Any]] = {
    "ioc": {"tif": TimeInForce.IOC},
    "fok": {"tif": TimeInForce.FOK},
    "day": {"tif": TimeInForce.DAY},
    "market": {"order_type": OrderType.MARKET},
    "open": {"tif": TimeInForce.AT_THE_OPEN},
    "close": {"tif": TimeInForce.AT_THE_CLOSE},
    "newest": {"stp": SelfTradePrevention.CANCEL_NEWEST},
    "oldest": {"stp": SelfTradePrevention.CANCEL_OLDEST},
    "both": {"stp": SelfTradePrevention.CANCEL_BOTH},
    "decrement": {"stp": SelfTradePrevention.DECREMENT},
}
_OPTIONS = {
    "post-only": OrderOptions.POST_ONLY,
    "slide": OrderOptions.SLIDE,
    "hidden": OrderOptions.HIDDEN,
    "on-reference": OrderOptions.ON_REFERENCE,
    "oco": OrderOptions.OCO_WITH_PREVIOUS,
}
_NUMBERS = {
    "display": "display_qty_lots",
    "min": "min_qty_lots",
    "spend": "max_notional",
    "ppm": "trail_ppm",
    "trigger": "trigger_ticks",
    "price": "price_ticks",
    "qty": "qty_lots",
    "id": "client_order_id",
    "in": "market_id",
    "sizes": "sizes_no",
}
_RULES = {
    "dynamic": "dynamic_band_ppm",
    "static": "static_band_ppm",
    "interruption": "until_ns",
    "qty": "qty_lots",
    "notional": "amount",
    "orders": "orders_max",
    "discount": "fee_discount_ppm",
    "group": "trade_group",
    "rate": "orders_per_second",
}
_TRIGGERS = {"stop": Trigger.STOP, "take": Trigger.TAKE_PROFIT, "trail": Trigger.TRAILING}


@dataclass
class Step:
    """One line that does something, and the lines that must be said."""

    text: str
    expected: list[str] = field(default_factory=list)


@dataclass
class Scenario:
    file: str
    title: str
    steps: list[Step] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.file}: {self.title}"


def read(path: Path) -> list[Scenario]:
    """The scenarios of a file."""
    scenarios: list[Scenario] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        if text.startswith("== "):
            scenarios.append(Scenario(path.stem, text[3:]))
        elif text.startswith("> "):
            scenarios[-1].steps[-1].expected.append(text[2:])
        elif text and not text.startswith("#"):
            scenarios[-1].steps.append(Step(text))
    return scenarios


def files() -> Iterator[Path]:
    return iter(sorted(FOLDER.glob("*.txt")))


class World:
    """One engine, in which the lines of a scenario happen."""

    def __init__(self, engine_class: EngineClass) -> None:
        limits = EngineLimits(
            max_accounts=6,
            max_keys=8,
            max_balances=18,
            max_orders=12,
            max_outcomes=256,
            max_markets=6,
            max_assets=6,
        )
        genesis = kit.small_genesis(
            engine_limits=limits,
            assets=(
                AssetSpec(id=1, symbol="USD", decimals=0),
                AssetSpec(id=2, symbol="BTC", decimals=0),
                AssetSpec(id=3, symbol="ETH", decimals=0),
                AssetSpec(id=4, symbol="DUST", decimals=18),
            ),
            markets=(
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
                MarketSpec(
                    id=4,
                    symbol="ETH-BTC",
                    base="ETH",
                    quote="BTC",
                    tick_size="1",
                    lot_size="1",
                    maker_fee_ppm=-2_000,
                    taker_fee_ppm=5_000,
                ),
                MarketSpec(id=3, symbol="BTC-DUST", base="BTC", quote="DUST", tick_size="1", lot_size="1"),
            ),
        )
        self.shard = Shard.funded(engine_class(genesis, 0), accounts=3, amount=MONEY)
        self.shard.operator(kit.open_account(public_key(4)))
        self.orders: dict[str, int] = {}
        self.last_frame = b""

    def run(self, text: str) -> list[str]:
        """What is said after a line. Raises ValueError for a line that means nothing."""
        who, _, rest = text.partition(" ")
        if who == "count":
            return _counted(self.run(rest))
        if text == "again":
            return self._lines(self.shard.apply(self.last_frame))
        if who == "book":
            return self._book(int(rest or 1))
        if who == "money":
            return self._money(rest)
        if who == "open":
            return self._open(rest)
        if who == "wait":
            self.shard.now_ns += _span_ns(rest) - 1_000
            return self._lines(self.shard.apply(kit.time_passed()))
        key = OPERATOR_KEY if who == "operator" else public_key(ACCOUNTS.get(who, 99))
        terms: dict[str, Any] = {}
        nonce = self.shard.next_nonce()
        while (word := rest.split(" ", 1)[0]) in ("all", "shard", "nonce"):
            rest = rest.removeprefix(word).lstrip()
            if word == "all":
                terms["flags"] = BatchFlags.ALL_OR_NOTHING
                continue
            number, rest = rest.split(" ", 1)
            if word == "shard":
                terms["shard"] = int(number)
            else:
                nonce = int(number)
        is_operators = who == "operator"
        if rest.startswith(("as-operator ", "as-trader ")):
            is_operators = rest.startswith("as-operator ")
            rest = rest.split(" ", 1)[1]
        if is_operators:
            orders = [self._operator(one.split()) for one in rest.split(";")]
            return self._send(kit.batch(key, nonce, orders, **terms))
        labels: list[str] = []
        parts = [self._labelled(one.strip(), labels) for one in rest.split(";") for _ in range(_times(one))]
        first_seq = self.shard.engine.next_seq
        for index, label in enumerate(labels):
            if label:
                self.orders[label] = first_seq + index
        commands = [self._command(part.split()) for part in parts]
        return self._send(kit.batch(key, nonce, commands, **terms))

    def _send(self, frame: bytes) -> list[str]:
        self.last_frame = frame
        return self._lines(self.shard.apply(frame))

    def _labelled(self, text: str, labels: list[str]) -> str:
        text = re.sub(r"^\d+ times ", "", text)
        found = re.match(r"(\w+): (.*)", text)
        labels.append(found[1] if found else "")
        return found[2] if found else text

    def _command(self, words: list[str]) -> Command:
        kind = words.pop(0)
        if kind in ("buy", "sell"):
            qty_lots, _, price_ticks = words.pop(0).partition("@")
            terms = self._terms(words)
            return kit.order(Side[kind.upper()], int(qty_lots), int(price_ticks), **terms)
        if kind == "cancel-all":
            side = Side[words.pop().upper()] if words and words[-1] in ("buy", "sell") else Side.NONE
            return kit.cancel_all(int(words[1]) if words else 0, side)
        name = words.pop(0)
        order_id = self.orders[name] if name in self.orders else int(name)
        if kind == "cancel":
            return kit.cancel(order_id, **self._terms(words))
        if kind == "amend":
            return kit.amend(order_id, **self._terms(words))
        raise ValueError(f"no command is called {kind}")

    def _terms(self, words: list[str]) -> dict[str, Any]:
        terms: dict[str, Any] = {}
        while words:
            word = words.pop(0)
            if word in _FLAGS:
                terms |= _FLAGS[word]
            elif word in _OPTIONS:
                terms["options"] = terms.get("options", OrderOptions.NONE) | _OPTIONS[word]
            elif word in _TRIGGERS:
                terms |= {"trigger": _TRIGGERS[word], "trigger_ticks": int(words.pop(0))}
            elif word == "gtd":
                terms |= {"tif": TimeInForce.GTD, "expire_time_ns": self._time_ns(words.pop(0))}
            elif word == "expires":
                terms["expire_time_ns"] = self._time_ns(words.pop(0))
            elif word in _NUMBERS:
                terms[_NUMBERS[word]] = int(words.pop(0))
            else:
                raise ValueError(f"no term is called {word}")
        return terms

    def _time_ns(self, span: str) -> int:
        return self.shard.now_ns + 1_000 + _span_ns(span)

    def _operator(self, words: list[str]) -> OperatorCommand:
        kind = words.pop(0)
        if kind == "state":
            state = MarketState[words[1].upper().replace("-", "_")]
            return kit.market_state(int(words[0]), state, self._time_ns(words[3]) if words[2:] else 0)
        if kind == "reference":
            return kit.reference_price(int(words[0]), int(words[1]))
        if kind == "rules":
            rules = dict(zip(words[1::2], words[2::2], strict=True))
            numbers = {_RULES[name]: _number(value) for name, value in rules.items()}
            if words[0] in ACCOUNTS or words[0] == "account":
                return kit.account_rules(ACCOUNTS.get(words[0], 77), **numbers)
            return kit.market_rules(int(words[0]), **numbers)
        if kind == "asset":
            return kit.add_asset(int(words[0]), words[1].encode(), int(words[2]))
        if kind == "market":
            base, quote = (ASSETS[word] if word in ASSETS else int(word) for word in words[2:4])
            fees = dict(zip(words[6::2], words[7::2], strict=True))
            return kit.add_market(
                int(words[0]),
                words[1].encode(),
                base,
                quote,
                lot=int(words[4]),
                tick=int(words[5]),
                maker_fee_ppm=int(fees.get("maker", 0)),
                taker_fee_ppm=int(fees.get("taker", 0)),
            )
        if kind == "sizes":
            return kit.market_sizes(int(words[0]), int(words[1]), int(words[2]))
        if kind == "deposit":
            return kit.deposit(_account(words[0]), int(words[1]), int(words[2]))
        if kind == "withdraw":
            return kit.withdraw(_account(words[0]), int(words[1]), int(words[2]))
        if kind == "account":
            return kit.open_account(_key(words[2]), int(words[0]))
        if kind == "key":
            return kit.register_key(_key(words[1]), _account(words[0]))
        raise ValueError(f"no operator's command is called {kind}")

    # -------------------------------------------------------------- what is said

    def _lines(self, reports: list[ExecutionReport]) -> list[str]:
        names = {f"#{number}": name for name, number in self.orders.items()}
        said = []
        for report in reports:
            who, _, rest = line(report).partition(": ")
            words = [names.get(word, word) for word in rest.split(" ")]
            name = NAMES.get(int(who), who) if who.isdigit() else who
            said.append(f"{name}: {' '.join(words)}")
        return said

    def _book(self, market_id: int) -> list[str]:
        depth = self.shard.engine.depth(market_id, 20)
        sides = []
        for side, levels in (("bids", depth.bids), ("asks", depth.asks)):
            if levels:
                shown = (f"{one.qty_lots}@{one.price_ticks}/{one.orders}" for one in levels)
                sides.append(f"{side} {' '.join(shown)}")
        if depth.indicative_price_ticks:
            sides.append(f"would trade {depth.indicative_qty_lots}@{depth.indicative_price_ticks}")
        return [*(sides or ["empty"]), depth.state.name.lower()]

    def _money(self, who: str) -> list[str]:
        assets = {one.asset_id: decode_symbol(one.symbol) for one in self.shard.engine.assets(0, 9)}
        balances = self.shard.engine.balances(0 if who == "operator" else ACCOUNTS[who])
        return [
            f"{assets[one.asset_id]} {one.available}" + (f" held {one.held}" if one.held else "")
            for one in balances
            if one.available != MONEY or one.held
        ]

    def _open(self, who: str) -> list[str]:
        names = {number: name for name, number in self.orders.items()}
        return [
            " ".join(
                part
                for part in (
                    names.get(one.order_id, f"#{one.order_id}"),
                    one.side.name.lower(),
                    f"{one.leaves_lots} of {one.qty_lots}@{one.price_ticks}",
                    f"{one.trigger.name.lower()} {one.trigger_ticks}" if one.trigger else "",
                    f"display {one.display_qty_lots}" if one.display_qty_lots else "",
                    "expires" if one.expire_time_ns else "",
                    "hidden" if OrderOptions.HIDDEN in one.options else "",
                    "paired" if OrderOptions.OCO_WITH_PREVIOUS in one.options else "",
                )
                if part
            )
            for one in self.shard.engine.open_orders(ACCOUNTS[who], 0, 0, 100)
        ] or ["none"]


def _counted(said: list[str]) -> list[str]:
    """How often each kind of line was said, in the order of first ones: who, what and why."""
    kinds = [re.sub(r"^(\w+: \w+).*?( because \w+)?$", r"\1\2", text) for text in said]
    return [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]


def _times(text: str) -> int:
    found = re.match(r"(\d+) times ", text.strip())
    return int(found[1]) if found else 1


def _account(text: str) -> int:
    return ACCOUNTS[text] if text in ACCOUNTS else int(text)


def _key(text: str) -> bytes:
    return bytes(32) if text == "none" else public_key(int(text))


def _number(text: str) -> int:
    return int(text) if text.isdigit() else _span_ns(text)


def _span_ns(text: str) -> int:
    found = re.fullmatch(r"(-?\d+)(ns|us|ms|s|d)", text)
    if found is None:
        raise ValueError(f"{text} is no span of time")
    return int(found[1]) * _UNITS_NS[found[2]]
