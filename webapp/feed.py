"""The WebSocket feed: who has subscribed to what, snapshots, deltas, and what a slow reader gets. Pure.

    Follower ──touched──▶ Feed ──tick, 20 times a second──▶ one message per topic, encoded once ──▶ its subscribers

A topic is a channel and what it is narrowed to. Its state is what all subscribers have seen; a tick makes the
difference to now, gives it the next `seq` and sends it. A client whose last message has not left yet gets nothing:
the topics it misses are remembered, and once it reads again it gets a snapshot of each. So it gets fewer, fuller
messages, and nobody else notices.

What a client may ask for is bounded: its messages and subscriptions are paid out of an allowance, a snapshot is made
once for all who ask before the next update, and none is sent to a client that has not read the one before.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
from msgspec import Meta

from webapp.candles import INTERVALS_S
from webapp.decimals import rfc3339
from webapp.entered import EnteredOrders
from webapp.history import History, Touched
from webapp.limits import Allowance
from webapp.orders import Orders
from webapp.problems import Problem
from webapp.views import AssetView, LevelRow, MarketView, Views, checksum
from zexchange.engine import Engine
from zexchange.genesis import Market
from zexchange.verification.checkpoint import SignedCheckpoint
from zexchange.wire.messages import ExecType, ExecutionReport

BOOK_LEVELS = 100
"""Of each side: a level beyond them is not sent, and one that falls behind them is removed."""
SNAPSHOT_TRADES = 100
SNAPSHOT_CANDLES = 500
SNAPSHOT_CHECKPOINTS = 20
SNAPSHOT_FILLS = 100
SNAPSHOT_ORDERS = 2_000
"""Over all shards, the oldest of each first; a snapshot that leaves some out says so."""
SUBSCRIPTIONS_MAX = 64
"""Of a client, and in one message."""
MESSAGES_BURST, MESSAGES_PER_S = 300, 20
"""What a client may spend: a message costs 1, each subscription in it 1 more, a logon LOGON_COST."""
LOGON_COST = 20
_NAME_CHARS_MAX = 32
_ERROR_CHARS_MAX = 200
STALL_MS = 10_000
"""A client that does not read for so long is closed."""

PUBLIC = ("book", "trades", "candles", "ticker", "definitions", "checkpoints", "stats")
PRIVATE = ("orders", "fills", "balances")

encode = msgspec.json.encode


class Topic(NamedTuple):
    """`market_id` and `account_id` are 0 and `interval` is empty where they do not narrow the channel."""

    channel: str
    market_id: int = 0
    interval: str = ""
    account_id: int = 0


Name: TypeAlias = Annotated[str, Meta(max_length=_NAME_CHARS_MAX)]


class ChannelRequest(msgspec.Struct, frozen=True):
    """One subscription as a client asks for it."""

    channel: Name
    market: Name = ""
    interval: Name = ""


Channels: TypeAlias = Annotated[Sequence[ChannelRequest], Meta(max_length=SUBSCRIPTIONS_MAX)]


class Subscribe(msgspec.Struct, frozen=True, tag_field="op", tag="subscribe"):
    channels: Channels
    id: int = 0


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="op", tag="unsubscribe"):
    channels: Channels
    id: int = 0


class Logon(msgspec.Struct, frozen=True, tag_field="op", tag="logon"):
    """`signature` is over `LOGON_TAG`, the deployment id and the challenge of the hello; both in hex."""

    public_key: str
    signature: str
    id: int = 0


class Ping(msgspec.Struct, frozen=True, tag_field="op", tag="ping"):
    id: int = 0


Request: TypeAlias = Subscribe | Unsubscribe | Logon | Ping
LOGON_TAG = b"zx.v1/feed".ljust(16, b"\0")


class Checkpoints(Protocol):
    """All that were signed, by number."""

    def __len__(self) -> int: ...

    def get(self, number: int) -> SignedCheckpoint: ...


class Source(Protocol):
    """What is shown; the follower."""

    @property
    def history(self) -> History: ...

    @property
    def entered(self) -> EnteredOrders: ...

    @property
    def checkpoints(self) -> Checkpoints: ...

    def engine(self, shard: int) -> Engine: ...

    def engines(self) -> Mapping[int, Engine]: ...


class Client(Protocol):
    """One connection."""

    @property
    def busy(self) -> bool:
        """What was sent last has not left yet."""

    def send(self, message: bytes) -> None: ...


class Member:
    """What the feed knows of a client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.challenge = secrets.token_bytes(32)
        self.account_id: int | None = None
        self.topics: set[Topic] = set()
        self.missed: dict[Topic, None] = {}
        """The longest missed first."""
        self.allowance = Allowance(MESSAGES_BURST, MESSAGES_PER_S)
        self.busy_since_ms: int | None = None
        self.stalled = False


class Waiting(NamedTuple):
    """For clients to read: of how many the last message has not left, and how many subscriptions they have missed
    something of."""

    clients: int
    topics: int


class _BookState(msgspec.Struct):
    seq: int
    time_ns: int
    """Log time of the last record in it."""
    bids: dict[str, LevelRow]
    asks: dict[str, LevelRow]
    phase: dict[str, str]
    """The market's state and what goes with it."""


class _Definitions(msgspec.Struct):
    assets: dict[int, AssetView]
    markets: dict[int, MarketView]

    def without(self, before: _Definitions) -> _Definitions:
        """Those that are new or differ."""
        return _Definitions(
            assets={key: one for key, one in self.assets.items() if before.assets.get(key) != one},
            markets={key: one for key, one in self.markets.items() if before.markets.get(key) != one},
        )


Cursor: TypeAlias = dict[int, int]
"""Of private topics: report number last seen, by shard."""


class Feed:
    """All clients and topics."""

    def __init__(self, views: Views, source: Source, now_ns: Callable[[], int]) -> None:
        self._views = views
        self._source = source
        self._orders = Orders(views, source)
        self._now_ns = now_ns
        self._members: dict[int, Member] = {}
        self._subscribers: dict[Topic, set[int]] = {}
        self._state: dict[Topic, Any] = {}
        self._seq: dict[Topic, int] = {}
        self._snapshots: dict[Topic, bytes] = {}
        """Those that were made since the last update of their topic."""
        self._left: set[Topic] = set()
        """Topics that may have nobody any more."""
        self._touched = Touched(set(), set())
        self._redefined = False
        self._resized: set[int] = set()
        self._stats: dict[str, Any] = {}
        self.sent = 0
        self.conflated = 0
        self.dropped = 0
        """Clients that have stalled for too long."""

    @property
    def clients(self) -> int:
        return len(self._members)

    def waiting(self) -> Waiting:
        """How it is at the moment."""
        members = self._members.values()
        return Waiting(sum(one.client.busy for one in members), sum(len(one.missed) for one in members))

    def touch(self, touched: Touched) -> None:
        """Something happened to these."""
        self._touched.accounts.update(touched.accounts)
        self._touched.markets.update(touched.markets)
        self._redefined |= touched.rules

    def learned(self, markets: Iterable[Market]) -> None:
        """These are new, or have other sizes."""
        self._views.learned(markets)
        self._resized.update(market.market_id for market in markets)

    def connect(self, client: Client, version: str) -> Member:
        """A new client; it is greeted."""
        member = Member(client)
        self._members[id(member)] = member
        client.send(
            encode(
                {
                    "op": "hello",
                    "time": rfc3339(self._now_ns()),
                    "version": version,
                    "deployment_id": self._views.genesis.deployment_id.hex(),
                    "challenge": member.challenge.hex(),
                }
            )
        )
        return member

    def disconnect(self, member: Member) -> None:
        """It is gone."""
        for topic in list(member.topics):
            self._leave(member, topic)
        self._members.pop(id(member), None)

    def handle(
        self, member: Member, text: str | bytes, logon: Callable[[Member, Logon], int], now_s: float
    ) -> bool:
        """A client's message; False if it has sent too many and is to be closed. `logon` checks one and returns the
        account, or raises Problem."""
        if not member.allowance.take(1, now_s):
            return self._too_many(member)
        try:
            request = msgspec.json.decode(text, type=Request)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            self._refuse(member, Problem("BAD_REQUEST", str(error)[:_ERROR_CHARS_MAX]))
            return True
        match request:
            case Ping():
                member.client.send(encode({"op": "pong", "id": request.id, "time": rfc3339(self._now_ns())}))
            case Logon():
                if not member.allowance.take(LOGON_COST - 1, now_s):
                    return self._too_many(member)
                try:
                    member.account_id = logon(member, request)
                except Problem as problem:
                    answer: dict[str, Any] = {"ok": False, "error": problem.body("")}
                else:
                    answer = {"ok": True, "account_id": str(member.account_id)}
                member.client.send(encode({"op": "logon", "id": request.id, **answer}))
            case Subscribe() | Unsubscribe():
                if isinstance(request, Subscribe) and not member.allowance.take(len(request.channels), now_s):
                    return self._too_many(member)
                self._change_subscriptions(member, request)
        return True

    def _refuse(self, member: Member, problem: Problem) -> None:
        member.client.send(encode({"op": "error", "error": problem.body("")}))

    def _too_many(self, member: Member) -> bool:
        self._refuse(
            member,
            Problem(
                "RATE_LIMITED",
                f"more than {MESSAGES_BURST} messages and subscriptions, and {MESSAGES_PER_S} a second",
            ),
        )
        return False

    def tick(self, now_ms: int) -> list[Member]:
        """Send what has changed; returns the clients that have stalled for too long."""
        touched = Touched(set(self._touched.accounts), set(self._touched.markets))
        self._touched.accounts.clear()
        self._touched.markets.clear()
        redefined, self._redefined = self._redefined, False
        resized, self._resized = self._resized, set()
        self._let_go()
        definitions = Topic("definitions")
        if redefined and definitions in self._subscribers:
            message = self._update(definitions)  # before the rest, which is read by them
            if message is not None:
                self._publish(definitions, message)
        for topic in list(self._subscribers):
            message = None
            if topic.market_id in resized:
                self._prepare(topic)
                message = self._snapshot(topic)
            elif self._concerns(topic, touched):
                self._snapshots.pop(topic, None)
                message = self._update(topic)
            if message is not None:
                self._publish(topic, message)
        stalled = []
        for member in list(self._members.values()):
            if member.client.busy:
                if member.busy_since_ms is None:
                    member.busy_since_ms = now_ms
                elif now_ms - member.busy_since_ms >= STALL_MS:
                    stalled.append(member)
                    self.dropped += not member.stalled
                    member.stalled = True
                continue
            member.busy_since_ms = None
            if member.missed:
                missed, member.missed = member.missed, {}
                for topic in sorted(missed, key=_after_definitions):
                    self._show(member, topic)
        return stalled

    def heartbeat(self) -> None:
        """To everybody who reads."""
        message = encode({"op": "heartbeat", "time": rfc3339(self._now_ns())})
        for member in self._members.values():
            if not member.client.busy:
                self._send(member, message)

    def tell_stats(self, stats: dict[str, Any]) -> None:
        """What the operations view shows, once a second."""
        self._stats = stats
        topic = Topic("stats")
        if topic in self._subscribers:
            self._publish(topic, self._envelope(topic, "update", stats))

    def tell_checkpoints(self, first: int, new: Sequence[SignedCheckpoint]) -> None:
        """Checkpoints with these numbers were signed."""
        topic = Topic("checkpoints")
        if topic in self._subscribers:
            views = [self._views.checkpoint(first + index, one) for index, one in enumerate(new)]
            self._publish(topic, self._envelope(topic, "update", {"checkpoints": views}))

    # ------------------------------------------------------------ subscriptions

    def _change_subscriptions(self, member: Member, request: Subscribe | Unsubscribe) -> None:
        subscribing = isinstance(request, Subscribe)
        results: list[dict[str, Any]] = []
        joined: dict[Topic, None] = {}
        for wanted in request.channels:
            result: dict[str, Any] = {"channel": wanted.channel, "ok": True}
            if wanted.market:
                result["market"] = wanted.market
            if wanted.interval:
                result["interval"] = wanted.interval
            try:
                topic = self._topic(member, wanted)
                if subscribing:
                    if topic not in member.topics and topic not in joined:
                        if len(member.topics) + len(joined) >= SUBSCRIPTIONS_MAX:
                            raise Problem("RATE_LIMITED", f"at most {SUBSCRIPTIONS_MAX} subscriptions")
                        joined[topic] = None
                else:
                    self._leave(member, topic)
            except Problem as problem:
                result |= {"ok": False, "error": problem.body("")}
            results.append(result)
        op = "subscribed" if subscribing else "unsubscribed"
        self._send(member, encode({"op": op, "id": request.id, "results": results}))
        for topic in joined:
            self._join(member, topic)

    def _topic(self, member: Member, wanted: ChannelRequest) -> Topic:
        channel = wanted.channel
        if channel in PRIVATE:
            if member.account_id is None:
                raise Problem("UNAUTHORIZED", "log on first")
            return Topic(channel, account_id=member.account_id)
        if channel not in PUBLIC:
            raise Problem(
                "NOT_FOUND", f"no channel {channel!r}: {', '.join(PUBLIC + PRIVATE)}", field="channel"
            )
        if channel in ("ticker", "definitions", "checkpoints", "stats"):
            return Topic(channel)
        market = self._views.by_symbol.get(wanted.market)
        if market is None:
            raise Problem("UNKNOWN_MARKET", f"no market {wanted.market!r}", field="market")
        if channel != "candles":
            return Topic(channel, market.market_id)
        if wanted.interval not in INTERVALS_S:
            raise Problem("BAD_REQUEST", f"interval is one of {', '.join(INTERVALS_S)}", field="interval")
        return Topic(channel, market.market_id, wanted.interval)

    def _join(self, member: Member, topic: Topic) -> None:
        if topic not in self._subscribers:
            self._subscribers[topic] = set()
            self._prepare(topic)
        self._subscribers[topic].add(id(member))
        member.topics.add(topic)
        self._show(member, topic)

    def _leave(self, member: Member, topic: Topic) -> None:
        member.topics.discard(topic)
        member.missed.pop(topic, None)
        members = self._subscribers.get(topic)
        if members is None:
            return
        members.discard(id(member))
        if not members:
            self._left.add(topic)

    def _let_go(self) -> None:
        """Of topics that nobody wants. Not before the next tick: who comes and goes has no new state made each time."""
        for topic in self._left:
            if not self._subscribers[topic]:
                del self._subscribers[topic]
                self._state.pop(topic, None)
                self._snapshots.pop(topic, None)
        self._left.clear()
        for topic in [one for one in self._snapshots if not one.market_id]:
            del self._snapshots[topic]  # these depend on more than what is published about them

    def _show(self, member: Member, topic: Topic) -> None:
        """All of a topic, now or when the client has read what is on its way."""
        if member.client.busy:
            member.missed[topic] = None
        else:
            self._send(member, self._snapshot(topic))

    def _publish(self, topic: Topic, message: bytes) -> None:
        for key in self._subscribers[topic]:
            member = self._members[key]
            if member.client.busy or member.missed:
                member.missed[topic] = None
                self.conflated += 1
            else:
                self._send(member, message)

    def _send(self, member: Member, message: bytes) -> None:
        self.sent += 1
        member.client.send(message)

    # ------------------------------------------------------------ topics

    def _concerns(self, topic: Topic, touched: Touched) -> bool:
        if topic.channel == "ticker":
            return bool(touched.markets)
        if topic.channel in PRIVATE:
            return topic.account_id in touched.accounts
        return topic.market_id in touched.markets

    def _prepare(self, topic: Topic) -> None:
        """The state from which the first update differs."""
        self._snapshots.pop(topic, None)
        if topic.channel == "book":
            self._state[topic] = self._book(topic.market_id)
        elif topic.channel == "trades":
            self._state[topic] = self._source.history.markets[topic.market_id].count
        elif topic.channel == "candles":
            newest = self._source.history.markets[topic.market_id].candles.newest(topic.interval, 1)
            self._state[topic] = newest[0].begin_s if newest else 0
        elif topic.channel == "definitions":
            self._state[topic] = self._definitions()
        elif topic.channel == "balances":
            self._state[topic] = self._balances(topic.account_id)
        elif topic.channel in ("orders", "fills"):
            self._state[topic] = {
                shard: engine.report_seq(topic.account_id) for shard, engine in self._source.engines().items()
            }

    def _snapshot(self, topic: Topic) -> bytes:
        """All of it, as of the last update; made once for all who want it."""
        found = self._snapshots.get(topic)
        if found is None:
            found = self._snapshots[topic] = self._envelope(topic, "snapshot", self._whole(topic))
        return found

    def _whole(self, topic: Topic) -> dict[str, Any]:
        views, history = self._views, self._source.history
        content: dict[str, Any]
        match topic.channel:
            case "book":
                state: _BookState = self._state[topic]
                content = self._book_content(list(state.bids.values()), list(state.asks.values()), state)
                content |= state.phase
            case "trades":
                trades = history.markets[topic.market_id].trades
                shown = [one for one in trades if one.number <= self._state[topic]][-SNAPSHOT_TRADES:]
                content = {"trades": [views.trade(topic.market_id, one) for one in reversed(shown)]}
            case "candles":
                candles = history.markets[topic.market_id].candles.newest(topic.interval, SNAPSHOT_CANDLES)
                content = {"candles": [views.candle(topic.market_id, one) for one in candles]}
            case "ticker":
                content = {"tickers": [self.ticker(market.market_id) for market in views.markets]}
            case "definitions":
                content = self._definitions_content(self._state[topic])
            case "checkpoints":
                known = self._source.checkpoints
                first = max(0, len(known) - SNAPSHOT_CHECKPOINTS)
                content = {
                    "checkpoints": [views.checkpoint(n, known.get(n)) for n in range(first, len(known))]
                }
            case "orders":
                content = self._open_orders(topic.account_id)
            case "fills":
                reports = history.reports(
                    topic.account_id, self._source.engines(), _FILLS, self._after_of(topic), SNAPSHOT_FILLS
                )
                content = {"fills": views.fills(reports)}
            case "balances":
                content = {"balances": self._state[topic]}
            case _:
                content = self._stats
        return content

    def _update(self, topic: Topic) -> bytes | None:
        """The difference to what was sent before, which becomes the state; None if there is none."""
        views, history = self._views, self._source.history
        content: dict[str, Any]
        match topic.channel:
            case "book":
                before: _BookState = self._state[topic]
                now = self._state[topic] = self._book(topic.market_id)
                bids, asks = _difference(before.bids, now.bids), _difference(before.asks, now.asks)
                phase = {name: text for name, text in now.phase.items() if text != before.phase[name]}
                if not bids and not asks and not phase:
                    return None
                content = self._book_content(bids, asks, now) | phase
            case "trades":
                market = history.markets[topic.market_id]
                trades = market.after(self._state[topic])
                if not trades:
                    return None
                self._state[topic] = market.count
                content = {"trades": [views.trade(topic.market_id, one) for one in reversed(trades)]}
            case "candles":
                candles = history.markets[topic.market_id].candles.since(topic.interval, self._state[topic])
                if not candles:
                    return None
                self._state[topic] = candles[-1].begin_s
                content = {"candles": [views.candle(topic.market_id, one) for one in candles]}
            case "ticker":
                content = {"tickers": [self.ticker(market.market_id) for market in views.markets]}
            case "definitions":
                known: _Definitions = self._state[topic]
                defined = self._state[topic] = self._definitions()
                changed = defined.without(known)
                if not changed.assets and not changed.markets:
                    return None
                content = self._definitions_content(changed)
            case "orders" | "fills":
                reports = self._new_reports(topic)
                kinds = _FILLS if topic.channel == "fills" else _ORDERS
                reports = [one for one in reports if one.exec_type in kinds]
                if not reports:
                    return None
                if topic.channel == "fills":
                    content = {"fills": views.fills(reversed(reports))}
                else:
                    # A refusal says nothing about the order that was to be amended or cancelled.
                    refusals = [one for one in reports if one.exec_type is ExecType.REJECTED]
                    others = (one for one in reports if one.exec_type is not ExecType.REJECTED)
                    newest = {(one.shard, one.order_id): one for one in others}
                    orders = [self._orders.updated(one) for one in (*newest.values(), *refusals)]
                    content = {"orders": [one for one in orders if one is not None]}
            case "balances":
                balances = self._balances(topic.account_id)
                if balances == self._state[topic]:
                    return None
                self._state[topic] = balances
                content = {"balances": balances}
            case _:
                return None
        return self._envelope(topic, "update", content)

    def _envelope(self, topic: Topic, kind: Literal["snapshot", "update"], content: dict[str, Any]) -> bytes:
        message: dict[str, Any] = {"channel": topic.channel, "type": kind}
        if topic.market_id:
            message["market"] = self._views.units[topic.market_id].market.symbol
        if topic.interval:
            message["interval"] = topic.interval
        seq = self._seq.get(topic, 1)
        if kind == "update":
            message["prev_seq"] = str(seq)
            seq += 1
            self._snapshots.pop(topic, None)
        self._seq[topic] = seq
        message["seq"] = str(seq)
        return encode(message | content)

    # ------------------------------------------------------------ content

    def ticker(self, market_id: int) -> Any:
        """A market at a glance."""
        market = self._views.units[market_id].market
        history = self._source.history.markets[market_id]
        last = history.trades[-1].price_ticks if history.trades else None
        depth = self._source.engine(market.shard).depth(market_id, 1)
        return self._views.ticker(market_id, depth, history.candles, last, self._now_ns())

    def _definitions(self) -> _Definitions:
        views = self._views
        return _Definitions(
            assets={one.asset_id: one for one in views.assets()},
            markets={
                one.market_id: views.market(one.market_id, self._source.engine(one.shard))
                for one in views.markets
            },
        )

    def _definitions_content(self, state: _Definitions) -> dict[str, Any]:
        return {"assets": list(state.assets.values()), "markets": list(state.markets.values())}

    def _book(self, market_id: int) -> _BookState:
        engine = self._source.engine(self._views.units[market_id].market.shard)
        depth = engine.depth(market_id, BOOK_LEVELS)
        return _BookState(
            seq=engine.next_seq - 1,
            time_ns=engine.log_time_ns,
            bids={row[0]: row for row in self._views.levels(market_id, depth.bids)},
            asks={row[0]: row for row in self._views.levels(market_id, depth.asks)},
            phase=self._views.phase(market_id, depth, engine.market_terms(market_id)),
        )

    def _book_content(
        self, bids: Sequence[LevelRow], asks: Sequence[LevelRow], state: _BookState
    ) -> dict[str, Any]:
        return {
            "time": rfc3339(state.time_ns),
            "command_seq": str(state.seq),
            "bids": bids,
            "asks": asks,
            "checksum": checksum(list(state.bids.values()), list(state.asks.values())),
        }

    def _open_orders(self, account_id: int) -> dict[str, Any]:
        found: list[Any] = []
        for shard, engine in self._source.engines().items():
            # One more than is shown tells whether there are more.
            some = engine.open_orders(account_id, 0, 0, SNAPSHOT_ORDERS + 1 - len(found))
            found += [self._orders.opened(account_id, shard, order) for order in some]
        if len(found) > SNAPSHOT_ORDERS:
            return {"orders": found[:SNAPSHOT_ORDERS], "truncated": True}
        return {"orders": found}

    def _balances(self, account_id: int) -> list[Any]:
        return self._views.balances(
            {shard: engine.balances(account_id) for shard, engine in self._source.engines().items()}
        )

    def _new_reports(self, topic: Topic) -> list[ExecutionReport]:
        cursor: Cursor = self._state[topic]
        found: list[ExecutionReport] = []
        for shard, engine in self._source.engines().items():
            found += self._source.history.reports_after(topic.account_id, shard, cursor.get(shard, 0))
            cursor[shard] = engine.report_seq(topic.account_id)
        return found

    def _after_of(self, topic: Topic) -> dict[int, int]:
        return {shard: seq + 1 for shard, seq in self._state[topic].items()}


_FILLS = frozenset({ExecType.TRADE})
_ORDERS = frozenset(
    {
        ExecType.NEW,
        ExecType.REJECTED,
        ExecType.REPLACED,
        ExecType.CANCELLED,
        ExecType.EXPIRED,
        ExecType.TRADE,
        ExecType.SELF_TRADE_PREVENTED,
        ExecType.TRIGGERED,
    }
)


def _after_definitions(topic: Topic) -> bool:
    return topic.channel != "definitions"


def _difference(before: dict[str, LevelRow], now: dict[str, LevelRow]) -> list[LevelRow]:
    """Rows that are new or differ, and rows with quantity 0 for those that are gone."""
    found = [row for price, row in now.items() if before.get(price) != row]
    found += [(price, "0", 0) for price in before if price not in now]
    return found
