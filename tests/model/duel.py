"""Two engines under the same frames: whatever one says, the other must say, byte for byte.

A `Duel` applies each body to the C engine and to the reference, compares events, numbers, state roots and
pools, lets both check themselves, and checks the standing truths of docs/rules.md section 9 from the outside
as well.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tests.model.kit import EngineClass, decode_events, engine_named, line
from zexchange.definitions import asset_of, market_of
from zexchange.engine_types import Applied, MalformedFrame, MatchingEngine
from zexchange.genesis import Genesis
from zexchange.reference.amounts import held_asset, order_hold
from zexchange.wire.messages import (
    Command,
    EpochOpen,
    ExecType,
    ExecutionReport,
    Liquidity,
    MarketState,
    OperatorCommand,
    ReasonCode,
    ReportFlags,
    Side,
    TimePassed,
    WireError,
    decode,
)

Step = tuple[bytes, int]
"""A body and its log time in nanoseconds."""

_OF_ORDERS = {
    ExecType.NEW,
    ExecType.REPLACED,
    ExecType.CANCELLED,
    ExecType.EXPIRED,
    ExecType.TRADE,
    ExecType.SELF_TRADE_PREVENTED,
    ExecType.TRIGGERED,
}


@dataclass
class Asked:
    """What became of the quantity of an order, by the reports about it."""

    qty_lots: int
    """As the last report says it; a decrement lowers it."""
    asked_lots: int
    """When it was entered, and by amends since."""
    filled_lots: int = 0
    prevented_lots: int = 0
    cancelled_lots: int = 0


class Divergence(AssertionError):
    """The engines disagree, or one of them broke a standing truth."""


class Duel:
    """Both engines of one shard, and what was seen of them so far."""

    def __init__(
        self, genesis: Genesis, shard: int = 0, classes: Sequence[EngineClass] | None = None
    ) -> None:
        self.genesis = genesis
        self.shard = shard
        self.classes = list(classes or (engine_named("c"), engine_named("reference")))
        self.engines: list[MatchingEngine] = [one(genesis, shard) for one in self.classes]
        self.steps: list[Step] = []
        self.reasons: Counter[ReasonCode] = Counter()
        self.exec_types: Counter[ExecType] = Counter()
        self.duplicates = 0
        self.malformed = 0
        self.commands = 0
        self._events = hashlib.sha256()
        self._last_report_seq: dict[int, int] = defaultdict(int)
        self._asked: dict[int, Asked] = {}

    @property
    def subject(self) -> MatchingEngine:
        """The engine under test: the first."""
        return self.engines[0]

    def apply(self, body: bytes, log_time_ns: int) -> list[ExecutionReport]:
        """One body; what the subject has no room for is given to it again a nanosecond later."""
        reports: list[ExecutionReport] = []
        while body:
            self.steps.append((body, log_time_ns))
            consumed, fresh = self._apply_once(body, log_time_ns)
            reports += fresh
            if consumed == 0:
                break
            self.steps[-1] = body[:consumed], log_time_ns
            body, log_time_ns = body[consumed:], log_time_ns + 1
        return reports

    def _apply_once(self, body: bytes, log_time_ns: int) -> tuple[int, list[ExecutionReport]]:
        results: list[Applied | int] = []
        for engine in self.engines:
            try:
                applied = engine.apply(body, log_time_ns)
            except MalformedFrame as error:
                results.append(error.offset)
                continue
            results.append(applied)
        first = results[0]
        if isinstance(first, int):
            self._require(all(other == first for other in results), body, f"malformed or not: {results}")
            self.malformed += 1
            self._compare_state(body)
            self._forget_report_numbers()
            return 0, []
        self._require(first.consumed_bytes > 0, body, "nothing was applied")
        events = bytes(first.events)
        self._events.update(events)
        reports = decode_events(events)
        for other in results[1:]:
            if isinstance(other, int):
                raise Divergence(self._story(body, f"only the second finds byte {other} malformed"))
            if bytes(other.events) != events:
                theirs = decode_events(other.events)
                raise Divergence(self._story(body, "events differ", event_diff(reports, theirs)))
            same = (first.consumed_bytes, first.records, first.commands)
            theirs_same = (other.consumed_bytes, other.records, other.commands)
            self._require(same == theirs_same, body, f"applied {same} and {theirs_same}")
        self.commands += first.commands
        self._compare_state(body)
        self._count(body, reports)
        return first.consumed_bytes, reports

    def _compare_state(self, body: bytes) -> None:
        for number, engine in enumerate(self.engines):
            try:
                engine.check()
            except AssertionError as error:
                raise Divergence(
                    self._story(body, f"engine {number} finds itself broken: {error}")
                ) from error
        for what, seen in (
            ("numbers", [numbers(engine) for engine in self.engines]),
            ("times of what is due", [engine.next_due_ns for engine in self.engines]),
            ("pools", [engine.counts() for engine in self.engines]),
            ("state roots", [engine.state_root().hex() for engine in self.engines]),
        ):
            if any(other != seen[0] for other in seen[1:]):
                snapshots = [engine.snapshot() for engine in self.engines]
                detail = [f"{what}: {one}" for one in seen]
                raise Divergence(
                    self._story(body, f"{what} differ", detail + snapshot_diff(snapshots[0], snapshots[-1]))
                )

    def _count(self, body: bytes, reports: list[ExecutionReport]) -> None:
        """Coverage, and the truths that can be seen in the reports alone."""
        for report in reports:
            self.reasons[report.reason] += 1
            self.exec_types[report.exec_type] += 1
            if ReportFlags.DUPLICATE in report.flags:
                self.duplicates += 1
            elif report.report_seq:
                expected = self._last_report_seq[report.account_id] + 1
                self._require(
                    report.report_seq == expected,
                    body,
                    f"report {report.report_seq} of account {report.account_id} instead of {expected}",
                )
                self._last_report_seq[report.account_id] = expected
                if report.exec_type in _OF_ORDERS:
                    self._follow(body, report)
        trades = [report for report in reports if report.exec_type is ExecType.TRADE]
        for maker, taker in zip(trades[::2], trades[1::2], strict=True):
            in_auction = maker.liquidity is taker.liquidity is Liquidity.AUCTION
            if in_auction:
                self._require(maker.side is Side.BUY, body, "the buyer's report comes first")
                inside = taker.price_ticks <= maker.last_price_ticks <= maker.price_ticks
                self._require(inside, body, "an auction's price beyond a limit")
            else:
                self._require(maker.liquidity is Liquidity.MAKER, body, "the maker's report comes first")
                self._require(taker.liquidity is Liquidity.TAKER, body, "the taker's report comes second")
                same = maker.last_price_ticks == maker.price_ticks
                self._require(same, body, "not the maker's price")
            self._require(maker.account_id != taker.account_id, body, "an account traded with itself")
            self._require(maker.side is not taker.side, body, "a trade of two orders of one side")
            self._require(maker.trade_id == taker.trade_id, body, "two numbers for one trade")
            self._require(maker.fee + taker.fee >= 0, body, "a rebate above what the taker pays")

    def _follow(self, body: bytes, report: ExecutionReport) -> None:
        """Filled, prevented, cancelled and open are together what was asked for, after each report."""
        if report.exec_type is ExecType.NEW:
            self._asked[report.order_id] = Asked(report.qty_lots, report.qty_lots)
        order = self._asked.get(report.order_id)
        if order is None:  # its beginning was lost with a malformed frame
            return
        if report.exec_type is ExecType.REPLACED:
            order.asked_lots += report.qty_lots - order.qty_lots
        elif report.exec_type is ExecType.TRADE:
            order.filled_lots += report.last_qty_lots
        elif report.exec_type is ExecType.SELF_TRADE_PREVENTED:
            order.prevented_lots += report.last_qty_lots
        else:
            order.cancelled_lots += report.last_qty_lots
        order.qty_lots = report.qty_lots
        gone = order.filled_lots + order.prevented_lots + order.cancelled_lots
        self._require(
            order.asked_lots == gone + report.leaves_lots, body, "quantity of an order was made or lost"
        )
        self._require(order.filled_lots == report.cum_qty_lots, body, "an order's fills are miscounted")
        if report.leaves_lots == 0 and report.exec_type is not ExecType.NEW:
            del self._asked[report.order_id]

    def _forget_report_numbers(self) -> None:
        """After a malformed frame the events of the frames before it are not to be had."""
        for account_id in range(self.genesis.limits.max_accounts):
            self._last_report_seq[account_id] = self.subject.report_seq(account_id)
        self._asked.clear()

    def check_from_outside(self) -> None:
        """The standing truths, by queries alone."""
        engine = self.subject
        limits = self.genesis.limits
        listed = [one.markets(0, 0, 1_000) for one in self.engines]
        self._require(all(other == listed[0] for other in listed), b"", "definitions of markets differ")
        named = [one.assets(0, 1_000) for one in self.engines]
        self._require(all(other == named[0] for other in named), b"", "definitions of assets differ")
        assets = {one.asset_id: asset_of(one) for one in named[0]}
        markets = {
            one.market_id: market_of(one, assets[one.base_asset_id], assets[one.quote_asset_id], self.shard)
            for one in listed[0][0]
        }
        totals: Counter[int] = Counter()
        for account_id in range(limits.max_accounts):
            orders = engine.open_orders(account_id, 0, 0, limits.max_orders)
            holds: Counter[int] = Counter()
            for order in orders:
                market = markets[order.market_id]
                hold = order_hold(market, order.side, order.price_ticks, order.leaves_lots)
                holds[held_asset(market, order.side)] += hold
                self._require(0 < order.leaves_lots <= order.qty_lots, b"", "leaves out of range")
                terms = [one.order_terms(order.order_id) for one in self.engines]
                self._require(all(one == terms[0] for one in terms), b"", "terms of an order differ")
            for balance in engine.balances(account_id):
                totals[balance.asset_id] += balance.available + balance.held
                self._require(holds[balance.asset_id] == balance.held, b"", f"holds of account {account_id}")
                holds.pop(balance.asset_id, None)
            self._require(not +holds, b"", f"account {account_id} holds an asset it has not")
        for asset_id in assets:
            self._require(totals[asset_id] == engine.supply(asset_id), b"", "money was made or lost")
        for market_id in markets:
            depths = [one.depth(market_id, limits.max_orders) for one in self.engines]
            self._require(all(depth == depths[0] for depth in depths), b"", "depths differ")
            laid_down = [one.market_terms(market_id) for one in self.engines]
            self._require(all(one == laid_down[0] for one in laid_down), b"", "terms of a market differ")
            bids = [level.price_ticks for level in depths[0].bids]
            asks = [level.price_ticks for level in depths[0].asks]
            self._require(bids == sorted(set(bids), reverse=True), b"", "bids out of order")
            self._require(asks == sorted(set(asks)), b"", "asks out of order")
            may_trade = depths[0].state in (MarketState.CONTINUOUS, MarketState.POST_ONLY)
            self._require(not (may_trade and bids and asks) or bids[0] < asks[0], b"", "the book is crossed")

    def restore(self) -> None:
        """Both engines go on from the snapshot of the other; snapshots must be the same bytes."""
        snapshots = [engine.snapshot() for engine in self.engines]
        if any(other != snapshots[0] for other in snapshots):
            raise Divergence(self._story(b"", "snapshots differ", snapshot_diff(snapshots[0], snapshots[-1])))
        root = self.subject.state_root()
        self.engines = [one.restore(self.genesis, self.shard, snapshots[0]) for one in self.classes]
        for engine in self.engines:
            self._require(engine.snapshot() == snapshots[0], b"", "a restored engine has another snapshot")
            self._require(engine.state_root() == root, b"", "a restored engine has another root")
            engine.check()

    def check_replay(self) -> None:
        """Fresh engines under the same bodies, without and with a state tree, come to the same events and state.

        Here the state root is asked for only now and then, and no engine is restored on the way.
        """
        for track_state in (False, True):
            engine = self.classes[0](self.genesis, self.shard, track_state=track_state)
            events = hashlib.sha256()
            for number, (body, log_time_ns) in enumerate(self.steps):
                try:
                    events.update(engine.apply(body, log_time_ns).events)
                except MalformedFrame:
                    continue
                if track_state and number % 17 == 0:
                    engine.state_root()
            self._require(events.digest() == self._events.digest(), b"", "a replay has other events")
            self._require(engine.snapshot() == self.subject.snapshot(), b"", "a replay has another snapshot")
            if track_state:
                same_root = engine.state_root() == self.subject.state_root()
                self._require(same_root, b"", "a replay has another root")

    def fingerprint(self) -> str:
        """Numbers, hash of all events, and state root."""
        root = self.subject.state_root().hex()
        return f"{numbers(self.subject)} {self._events.hexdigest()} {root}"

    def _require(self, holds: bool, body: bytes, otherwise: str) -> None:
        if not holds:
            raise Divergence(self._story(body, otherwise))

    def _story(self, body: bytes, what: str, detail: Sequence[str] = ()) -> str:
        step = f"{what} in step {len(self.steps)}, record {self.subject.next_record_no - 1}"
        return "\n".join([step, *detail, "the body:", *describe(body)])


def numbers(engine: MatchingEngine) -> tuple[int, int, int, int]:
    """Record number, seq, trade id and log time."""
    return engine.next_record_no, engine.next_seq, engine.next_trade_id, engine.log_time_ns


def describe(body: bytes) -> list[str]:
    """The frames of a body, readable."""
    lines: list[str] = []
    offset = 0
    while offset < len(body):
        length = int.from_bytes(body[offset : offset + 4], "big")
        try:
            message = decode(body[offset : offset + length])
        except WireError as error:
            return [*lines, f"  malformed at byte {offset}: {error}"]
        if isinstance(message, EpochOpen | TimePassed):
            lines.append(f"  {message}")
        else:
            key, nonce = getattr(message, "public_key", b""), getattr(message, "nonce", 0)
            lines.append(f"  {type(message).__name__} {key.rstrip(bytes(1))!r} nonce {nonce}")
            for index, command in enumerate(getattr(message, "commands", [])):
                lines.append(f"    {index}: {_brief(command)}")
        offset += max(length, 6)
    return lines


def _brief(command: Command | OperatorCommand) -> str:
    """The fields that are not zero."""
    parts = [command.kind.name]
    for name in command.__struct_fields__[1:]:
        value = getattr(command, name)
        if isinstance(value, bytes):
            value = value.rstrip(bytes(1))
        if value:
            parts.append(f"{name}={value.name if isinstance(value, Enum) else value!r}")
    return " ".join(parts)


def event_diff(ours: list[ExecutionReport], theirs: list[ExecutionReport]) -> list[str]:
    """The first reports that differ, with two before, and the fields in which they do."""
    same = 0
    while same < min(len(ours), len(theirs)) and ours[same] == theirs[same]:
        same += 1
    lines = [f"  both   {line(report)}" for report in ours[max(0, same - 2) : same]]
    lines += [f"  first  {line(report)}" for report in ours[same : same + 3]]
    lines += [f"  second {line(report)}" for report in theirs[same : same + 3]]
    if same < min(len(ours), len(theirs)):
        for name in ExecutionReport.__struct_fields__:
            first, second = getattr(ours[same], name), getattr(theirs[same], name)
            if first != second:
                lines.append(f"  {name}: {first!r} and {second!r}")
    return [f"{len(ours)} and {len(theirs)} events, the first {same} are the same", *lines]


def snapshot_entries(snapshot: bytes) -> list[tuple[int, int, bytes]]:
    """(subtree, index, leaf data) of every entry of an engine snapshot."""
    counts = [int.from_bytes(snapshot[8 + 8 * k : 16 + 8 * k], "little") for k in range(7)]
    entries, offset = [], 64
    for subtree, count in enumerate(counts):
        for index in range(count):
            length = int.from_bytes(snapshot[offset : offset + 4], "little")
            entries.append((subtree, index, snapshot[offset + 4 : offset + 4 + length]))
            offset += 4 + length
    return entries


def snapshot_diff(ours: bytes, theirs: bytes) -> list[str]:
    """Leaves that differ, at most five."""
    names = ("meta", "account", "key", "market", "asset", "order slot", "outcome")
    first = {(subtree, index): data for subtree, index, data in snapshot_entries(ours)}
    second = {(subtree, index): data for subtree, index, data in snapshot_entries(theirs)}
    lines = []
    for place in sorted(first.keys() | second.keys()):
        if first.get(place) != second.get(place):
            lines.append(f"  {names[place[0]]} {place[1]}:")
            lines += [f"    {data.hex() if data else None}" for data in (first.get(place), second.get(place))]
    return lines[:15] or ["  the snapshots are the same"]


def shrink(genesis: Genesis, shard: int, steps: Sequence[Step], classes: Sequence[EngineClass]) -> list[Step]:
    """Fewer steps that still end in a divergence: pieces are left out, large ones first, while it lasts."""

    def diverges(candidate: Sequence[Step]) -> bool:
        duel = Duel(genesis, shard, classes)
        try:
            for body, log_time_ns in candidate:
                duel.apply(body, log_time_ns)
        except Divergence:
            return True
        return False

    kept, size = list(steps), max(1, len(steps) // 2)
    while True:
        at = 0
        while at < len(kept):
            candidate = kept[:at] + kept[at + size :]
            if candidate and diverges(candidate):
                kept = candidate
            else:
                at += size
        if size == 1:
            return kept
        size = max(1, size // 2)
