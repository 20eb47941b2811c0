"""The feed without sockets: what subscribers get, in which order, and what happens to one that does not read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.model import kit
from webapp import feed as feed_module
from webapp.decimals import rfc3339
from webapp.entered import EnteredOrders
from webapp.feed import (
    LOGON_COST,
    MESSAGES_BURST,
    MESSAGES_PER_S,
    PRIVATE,
    PUBLIC,
    STALL_MS,
    SUBSCRIPTIONS_MAX,
    Feed,
    Logon,
    Member,
    Topic,
)
from webapp.history import History
from webapp.limits import RateLimit
from webapp.openapi import asyncapi_document
from webapp.problems import Problem
from webapp.settlement_log import SettlementLog
from webapp.views import Views, checksum
from zexchange.definitions import Definitions
from zexchange.engine import Engine
from zexchange.genesis import EngineLimits
from zexchange.wire.messages import (
    MarketState,
    OrderOptions,
    OrderType,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Trigger,
)

ALICE, BOB = kit.public_key(1), kit.public_key(2)
MARKET = "BTC-USD"


class World:
    """A replica whose log the test writes."""

    def __init__(self, engine_limits: EngineLimits | None = None) -> None:
        self.genesis = kit.small_genesis(engine_limits=engine_limits)
        self._engine = Engine(self.genesis, 0, track_state=False)
        self.history = History()
        self.entered = EnteredOrders()
        self.checkpoints = SettlementLog(Path("/nonexistent"), 1)
        self.now_ns = kit.START_NS
        self.definitions = Definitions(self.genesis)
        self.feed = Feed(Views(self.genesis, self.definitions), self, lambda: self.now_ns)
        self._nonce = 0
        self.apply(kit.epoch_open(1))
        operator = [kit.open_account(ALICE), kit.open_account(BOB)]
        operator += [kit.deposit(account, asset, 10**9) for account in (1, 2) for asset in (1, 2)]
        self.apply(kit.batch(kit.OPERATOR_KEY, 1, operator))

    def engine(self, shard: int) -> Engine:
        assert shard == 0
        return self._engine

    def engines(self) -> Mapping[int, Engine]:
        return {0: self._engine}

    def apply(self, frame: bytes) -> None:
        self.now_ns += 1_000_000
        record_no = self._engine.next_record_no
        events = bytes(self._engine.apply(frame, self.now_ns).events)
        self.entered.add(0, events, record_no, [frame])
        touched = self.history.add(0, events)
        if touched.defines:
            assets = self._engine.assets(len(self.definitions.assets), 99)
            self.feed.learned(self.definitions.learn(0, assets, self._engine.markets(record_no, 0, 99)[0]))
        self.feed.touch(touched)

    def order(self, key: bytes, side: Side, qty: int, price: int) -> None:
        self._nonce += 1
        self.apply(kit.batch(key, self._nonce, [kit.order(side, qty, price)]))

    def tick(self, now_ms: int = 0) -> list[Member]:
        return self.feed.tick(now_ms)


class Client:
    """Reads everything, unless it is busy."""

    def __init__(self, world: World) -> None:
        self.busy = False
        self.heard: list[Any] = []
        self.world = world
        self.member = world.feed.connect(self, "test")

    def send(self, message: bytes) -> None:
        assert not self.busy, "sent to a client that does not read"
        self.heard.append(json.loads(message))

    def ask(self, **request: Any) -> None:
        assert self.say(json.dumps(request), 0.0), "closed"

    def say(self, text: str, now_s: float) -> bool:
        return self.world.feed.handle(self.member, text, _log_on, now_s)

    def subscribe(self, channel: str, market: str = "", interval: str = "") -> Any:
        wanted = {"channel": channel, "market": market, "interval": interval}
        self.ask(op="subscribe", id=1, channels=[{key: value for key, value in wanted.items() if value}])
        return next(one for one in reversed(self.heard) if one.get("op") == "subscribed")["results"][0]

    def take(self) -> list[Any]:
        heard, self.heard = self.heard, []
        return heard


def _log_on(_member: Member, logon: Logon) -> int:
    if logon.signature != "good":
        raise Problem("SIGNATURE_INVALID")
    return 1 if logon.public_key == "alice" else 2


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def client(world: World) -> Client:
    made = Client(world)
    assert made.take()[0]["op"] == "hello"
    return made


class Book:
    """A client's copy of a book, kept by what it is sent."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[str, list[Any]]] = {}
        self.seq = ""

    def hear(self, message: Any) -> None:
        if message["type"] == "snapshot":
            self.sides = {"bids": {}, "asks": {}}
        else:
            assert message["prev_seq"] == self.seq, "a message is missing"
        self.seq = message["seq"]
        for side, rows in self.sides.items():
            for row in message[side]:
                if row[1] == "0":
                    del rows[row[0]]
                else:
                    rows[row[0]] = row
        assert checksum(*self.best()) == message["checksum"]

    def best(self) -> tuple[list[Any], list[Any]]:
        bids = sorted(self.sides["bids"].values(), key=lambda row: -int(row[0]))
        return bids, sorted(self.sides["asks"].values(), key=lambda row: int(row[0]))


def test_book_is_kept_by_snapshot_and_differences(world: World, client: Client) -> None:
    world.order(ALICE, Side.BUY, 5, 99)
    assert client.subscribe("book", MARKET)["ok"]
    book = Book()
    book.hear(client.take()[-1])
    for step in range(60):
        side = Side.BUY if step % 2 else Side.SELL
        world.order(ALICE if step % 3 else BOB, side, 1 + step % 4, 100 + step % 5 - (step % 2) * 3)
        if step % 4 == 0:
            world.tick()
    world.tick()
    for message in client.take():
        book.hear(message)
    depth = world.engine(0).depth(1, 100)
    assert [(int(row[0]), int(row[1]), row[2]) for row in book.best()[0]] == [
        (one.price_ticks, one.qty_lots, one.orders) for one in depth.bids
    ]
    assert [int(row[0]) for row in book.best()[1]] == [one.price_ticks for one in depth.asks]
    world.tick()
    assert client.take() == [], "nothing has changed"


def test_a_slow_client_gets_a_snapshot_and_nobody_else_notices(world: World, client: Client) -> None:
    other = Client(world)
    for one in (client, other):
        one.subscribe("book", MARKET)
        one.take()
    client.busy = True
    for price in range(90, 95):
        world.order(ALICE, Side.BUY, 1, price)
        world.tick()
    assert [message["type"] for message in other.take()] == ["update"] * 5
    assert client.take() == []
    assert world.feed.waiting() == (1, 1)
    client.busy = False
    world.tick()
    (message,) = client.take()
    assert message["type"] == "snapshot"
    assert [row[0] for row in message["bids"]] == ["94", "93", "92", "91", "90"]
    world.order(ALICE, Side.BUY, 1, 95)
    world.tick()
    (update,) = client.take()
    assert (update["type"], update["prev_seq"]) == ("update", message["seq"])
    assert world.feed.conflated == 5


def test_a_client_that_does_not_read_for_ten_seconds_is_named(world: World, client: Client) -> None:
    assert world.feed.waiting() == (0, 0)
    client.busy = True
    assert world.tick(1_000) == []
    assert world.feed.waiting() == (1, 0)
    assert world.tick(1_000 + STALL_MS - 1) == []
    assert world.feed.dropped == 0
    assert world.tick(1_000 + STALL_MS) == [client.member]
    assert world.tick(1_000 + STALL_MS) == [client.member], "until it is gone"
    assert world.feed.dropped == 1
    client.busy = False
    assert world.tick(1_000 + STALL_MS + 1) == []
    client.busy = True
    assert world.tick(1_000 + 2 * STALL_MS) == []


def test_private_channels_need_a_logon_and_show_one_account_only(world: World, client: Client) -> None:
    assert client.subscribe("orders")["error"]["code"] == "UNAUTHORIZED"
    client.ask(op="logon", id=3, public_key="alice", signature="bad")
    assert client.take()[-1]["error"]["code"] == "SIGNATURE_INVALID"
    assert client.subscribe("fills")["error"]["code"] == "UNAUTHORIZED"
    client.ask(op="logon", id=4, public_key="alice", signature="good")
    assert client.take()[-1] == {"op": "logon", "id": 4, "ok": True, "account_id": "1"}
    world.order(ALICE, Side.SELL, 5, 100)
    for channel in ("orders", "fills", "balances"):
        assert client.subscribe(channel)["ok"]
    snapshots = {one["channel"]: one for one in client.take() if "channel" in one}
    assert [one["leaves_qty"] for one in snapshots["orders"]["orders"]] == ["5"]
    assert snapshots["fills"]["fills"] == []
    world.order(BOB, Side.SELL, 1, 200)
    world.tick()
    assert client.take() == [], "another account's business"
    world.order(BOB, Side.BUY, 2, 100)
    world.tick()
    updates = {one["channel"]: one for one in client.take()}
    assert [(one["leaves_qty"], one["status"]) for one in updates["orders"]["orders"]] == [("3", "open")]
    assert [(one["qty"], one["liquidity"]) for one in updates["fills"]["fills"]] == [("2", "maker")]
    assert updates["balances"]["balances"][1]["held"] == "3"


def test_trades_candles_and_ticker(world: World, client: Client) -> None:
    for channel, interval in (("trades", ""), ("candles", "1m"), ("ticker", "")):
        assert client.subscribe(channel, "" if channel == "ticker" else MARKET, interval)["ok"]
    client.take()
    world.order(ALICE, Side.SELL, 5, 100)
    world.order(BOB, Side.BUY, 2, 100)
    world.order(BOB, Side.BUY, 1, 100)
    world.tick()
    updates = {one["channel"]: one for one in client.take()}
    assert [one["qty"] for one in updates["trades"]["trades"]] == ["1", "2"]
    assert updates["candles"]["candles"][-1]["volume"] == "3"
    assert next(one for one in updates["ticker"]["tickers"] if one["market"] == MARKET)["last"] == "100"
    later = Client(world)
    later.take()
    later.subscribe("trades", MARKET)
    assert [one["qty"] for one in later.take()[-1]["trades"]] == ["1", "2"]


def test_an_auction_is_told_with_the_book(world: World, client: Client) -> None:
    client.subscribe("book", MARKET)
    client.subscribe("trades", MARKET)
    snapshot = next(one for one in client.take() if one.get("channel") == "book")
    assert (snapshot["state"], snapshot["until"], snapshot["indicative_price"]) == ("continuous", "", "")
    until_ns = world.now_ns + 60_000_000_000
    world.apply(kit.batch(kit.OPERATOR_KEY, 2, [kit.market_state(1, MarketState.AUCTION, until_ns)]))
    world.tick()
    (update,) = client.take()
    assert (update["state"], update["until"], update["bids"]) == ("auction", rfc3339(until_ns), [])
    world.order(ALICE, Side.BUY, 5, 101)
    world.order(BOB, Side.SELL, 3, 99)
    world.tick()
    (update,) = client.take()
    assert (update["indicative_price"], update["indicative_qty"]) != ("", "")
    assert "state" not in update
    world.apply(kit.batch(kit.OPERATOR_KEY, 3, [kit.market_state(1, MarketState.CONTINUOUS)]))
    world.tick()
    heard = {one["channel"]: one for one in client.take()}
    assert (heard["book"]["state"], heard["book"]["indicative_price"]) == ("continuous", "")
    assert [(one["qty"], one["side"]) for one in heard["trades"]["trades"]] == [("3", "")]


def test_definitions_follow_what_the_operator_does(world: World, client: Client) -> None:
    client.subscribe("definitions")
    snapshot = client.take()[-1]
    assert [one["symbol"] for one in snapshot["markets"]] == [one.symbol for one in world.genesis.markets]
    assert [one["symbol"] for one in snapshot["assets"]] == [one.symbol for one in world.genesis.assets]
    asset_id = 1 + max(one.asset_id for one in world.genesis.assets)
    market_id = 1 + max(one.market_id for one in world.genesis.markets)
    added = [kit.add_asset(asset_id, "GOLD", 2), kit.add_market(market_id, "GOLD-BTC", asset_id, 2, lot=10)]
    world.apply(kit.batch(kit.OPERATOR_KEY, 2, added))
    world.tick()
    (update,) = client.take()
    assert (update["type"], update["prev_seq"]) == ("update", snapshot["seq"])
    assert update["assets"] == [{"asset_id": asset_id, "symbol": "GOLD", "decimals": 2}]
    assert [(one["symbol"], one["lot_size"], one["state"]) for one in update["markets"]] == [
        ("GOLD-BTC", "0.1", "closed")
    ]
    assert client.subscribe("book", "GOLD-BTC")["ok"]
    client.take()
    states = [kit.market_rules(market_id, qty_lots=50), kit.market_state(market_id, MarketState.CONTINUOUS)]
    world.apply(kit.batch(kit.OPERATOR_KEY, 3, states))
    world.tick()
    definitions, book = client.take()
    assert [(one["state"], one["max_qty"]) for one in definitions["markets"]] == [("continuous", "5.0")]
    assert (definitions["assets"], book["state"]) == ([], "continuous")
    world.order(ALICE, Side.BUY, 5, 99)
    world.tick()
    assert client.take() == [], "orders define nothing"


def test_a_market_with_other_sizes_is_told_anew(world: World, client: Client) -> None:
    for channel in ("book", "trades", "definitions"):
        client.subscribe(channel, "" if channel == "definitions" else MARKET)
    client.subscribe("candles", MARKET, "1m")
    world.order(ALICE, Side.SELL, 2, 100)
    world.order(BOB, Side.BUY, 2, 100)
    world.tick()
    client.take()
    closed = [kit.market_state(1, MarketState.CLOSED), kit.market_sizes(1, 5, 7)]
    client.busy = True
    world.apply(kit.batch(kit.OPERATOR_KEY, 2, closed))
    world.tick()
    client.busy = False
    other = Client(world)
    other.subscribe("book", MARKET)
    other.take()
    world.tick()
    heard = client.take()
    assert [one["channel"] for one in heard] == ["definitions", "book", "trades", "candles"]
    assert {one["type"] for one in heard} == {"snapshot"}
    market = next(one for one in heard[0]["markets"] if one["symbol"] == MARKET)
    assert (market["sizes_no"], market["lot_size"]) == (1, "5")
    assert (heard[2]["trades"], heard[3]["candles"]) == ([], []), "they counted in other sizes"
    world.apply(kit.batch(kit.OPERATOR_KEY, 3, [kit.market_sizes(1, 10, 70)]))
    world.tick()
    assert [(one["channel"], one["type"]) for one in client.take()] == [
        ("definitions", "update"),
        *((channel, "snapshot") for channel in ("book", "trades", "candles")),
    ]
    assert [one["type"] for one in other.take()] == ["snapshot"]


def test_every_message_is_as_asyncapi_describes_it(world: World, client: Client) -> None:
    document = asyncapi_document()
    client.ask(op="logon", id=1, public_key="alice", signature="good")
    client.take()
    for channel in PUBLIC + PRIVATE:
        narrowed = channel in ("book", "trades", "candles")
        assert client.subscribe(channel, MARKET if narrowed else "", "1m" if channel == "candles" else "")[
            "ok"
        ]
    world.order(ALICE, Side.SELL, 5, 100)
    world.order(BOB, Side.BUY, 2, 100)
    world.apply(kit.batch(kit.OPERATOR_KEY, 2, [kit.market_rules(1, qty_lots=50)]))
    world.feed.tell_stats({"commands": "1"})
    world.tick()
    heard = [one for one in client.take() if "channel" in one]
    kinds = {(one["channel"], one["type"]) for one in heard}
    assert kinds >= {(one, "update") for one in (*PUBLIC, *PRIVATE) if one != "checkpoints"}
    for message in heard:
        payload = document["components"]["messages"][message["channel"]]["payload"]
        jsonschema_rs.validate({**payload, "components": document["components"]}, message)
        assert set(message) <= set(payload["properties"]) or message["channel"] == "stats"


def test_an_open_order_is_told_with_what_its_reports_do_not_repeat(world: World, client: Client) -> None:
    client.ask(op="logon", id=1, public_key="alice", signature="good")
    client.subscribe("orders")
    client.take()
    stop = kit.order(
        Side.SELL, 4, 90, trigger=Trigger.STOP, trigger_ticks=95,
        tif=TimeInForce.GTD, expire_time_ns=world.now_ns + 60_000_000_000,
    )  # fmt: skip
    world.apply(kit.batch(ALICE, 1_000, [stop, kit.order(Side.BUY, 9, 80, display_qty_lots=2)]))
    world.tick()
    told = client.take()[0]["orders"]
    assert [(one["trigger"], one["trigger_price"], one["display_qty"]) for one in told] == [
        ("stop", "95", ""),
        ("", "", "2"),
    ]
    assert told[0]["expire_time"] == rfc3339(stop.expire_time_ns)
    assert all(one["record_no"] and one["time"] for one in told)


def terms_of(order: Any) -> dict[str, Any]:
    """Those that are not what every order has."""
    plain = {
        "time_in_force": "gtc",
        "self_trade_prevention": "cancel_newest",
        "post_only": False,
        "slide": False,
    }
    names = ("order_id", "client_order_id", "market", "price", "qty", "leaves_qty", "cum_qty", "time", "seq")
    return {
        name: value
        for name, value in order.items()
        if name not in (*names, "record_no", "side", "reason")
        and value not in ("", 0, False, plain.get(name))
    } | {name: order[name] for name in ("post_only", "slide") if order[name] is not False}


def test_every_term_of_an_order_is_told_to_a_client_that_comes_later(world: World, client: Client) -> None:
    world.order(ALICE, Side.SELL, 1, 100)
    world.order(BOB, Side.BUY, 1, 100)
    entered = [
        kit.order(Side.BUY, 1, 60, options=OrderOptions.POST_ONLY | OrderOptions.SLIDE),
        kit.order(Side.BUY, 2, 61, stp=SelfTradePrevention.DECREMENT, options=OrderOptions.HIDDEN),
        kit.order(
            Side.SELL, 3, 40, order_type=OrderType.MARKET, tif=TimeInForce.IOC, trigger=Trigger.TRAILING,
            trail_ppm=25_000, stp=SelfTradePrevention.CANCEL_BOTH,
        ),
        kit.order(
            Side.SELL, 3, 40, order_type=OrderType.MARKET, tif=TimeInForce.IOC, trigger=Trigger.TRAILING,
            trigger_ticks=7,
        ),
        kit.order(Side.SELL, 4, 150),
        kit.order(
            Side.SELL, 4, 70, order_type=OrderType.MARKET, tif=TimeInForce.IOC, trigger=Trigger.STOP,
            trigger_ticks=80, options=OrderOptions.OCO_WITH_PREVIOUS,
        ),
        kit.order(Side.BUY, 5, 30, trigger=Trigger.TAKE_PROFIT, trigger_ticks=50, options=OrderOptions.ON_REFERENCE),
        kit.order(Side.BUY, 9, 90, tif=TimeInForce.IOC, min_qty_lots=2, client_order_id=77),
    ]  # fmt: skip
    world.apply(kit.batch(ALICE, 1_000, entered))
    world.apply(kit.batch(ALICE, 1_000, entered))  # once more: it is answered as before, and changes nothing
    world.tick()
    client.ask(op="logon", id=1, public_key="alice", signature="good")
    client.subscribe("orders")
    told = client.take()[-1]["orders"]
    pair = [one["order_id"] for one in told if one["paired"]]
    limit = {"type": "limit", "status": "open"}
    at_market = {"type": "market", "status": "open", "time_in_force": "ioc"}
    trailing = {**at_market, "trigger": "trailing"}
    assert [terms_of(one) for one in told] == [
        {**limit, "post_only": True, "slide": True},
        {**limit, "hidden": True, "self_trade_prevention": "decrement"},
        {**trailing, "trigger_price": "97", "trail_ppm": 25_000, "self_trade_prevention": "cancel_both"},
        {**trailing, "trigger_price": "93", "trail": "7"},
        {**limit, "paired": True, "pair_order_id": pair[1]},
        {**at_market, "trigger": "stop", "trigger_price": "80", "paired": True, "pair_order_id": pair[0]},
        {**limit, "trigger": "take_profit", "trigger_price": "50", "on_reference": True},
    ]  # fmt: skip
    world.apply(kit.batch(ALICE, 1_001, entered[-1:]))
    world.tick()
    (refused,) = client.take()[0]["orders"]
    assert (refused["status"], refused["min_qty"], refused["time_in_force"]) == ("rejected", "2", "ioc")


def test_an_order_that_has_ended_is_told_with_the_terms_it_was_entered_with(
    world: World, client: Client
) -> None:
    client.ask(op="logon", id=1, public_key="alice", signature="good")
    client.subscribe("orders")
    client.take()
    world.apply(kit.batch(ALICE, 1_000, [kit.order(Side.BUY, 9, 80, display_qty_lots=2, post_only=True)]))
    world.tick()
    (opened,) = client.take()[0]["orders"]
    world.apply(kit.batch(ALICE, 1_001, [kit.cancel(int(opened["order_id"]))]))
    world.tick()
    (ended,) = client.take()[0]["orders"]
    told = ("status", "type", "time_in_force", "display_qty", "post_only")
    assert [ended[name] for name in told] == ["cancelled", "limit", "gtc", "2", True]


def test_a_refused_amend_hides_nothing_that_happened_to_its_order(world: World, client: Client) -> None:
    client.ask(op="logon", id=1, public_key="alice", signature="good")
    client.subscribe("orders")
    world.apply(kit.batch(ALICE, 1_000, [kit.order(Side.BUY, 9, 80)]))
    world.tick()
    order_id = client.take()[-1]["orders"][0]["order_id"]
    world.order(BOB, Side.SELL, 4, 80)
    world.apply(kit.batch(ALICE, 1_001, [kit.amend(int(order_id), market_id=1, qty_lots=10**8)]))
    world.tick()
    told = client.take()[0]["orders"]
    assert [(one["order_id"], one["status"]) for one in told] == [(order_id, "open"), (order_id, "rejected")]
    assert (told[0]["leaves_qty"], told[0]["cum_qty"]) == ("5", "4")
    assert told[1]["reason"] == "INSUFFICIENT_FUNDS"


def test_terms_that_are_not_known_any_more_are_not_made_up(world: World, client: Client) -> None:
    world.apply(kit.batch(ALICE, 1_000, [kit.order(Side.BUY, 9, 80, display_qty_lots=2, post_only=True)]))
    world.entered.__init__()  # type: ignore[misc]
    client.ask(op="logon", id=1, public_key="alice", signature="good")
    client.subscribe("orders")
    (told,) = client.take()[-1]["orders"]
    assert (told["display_qty"], told["post_only"], told["self_trade_prevention"]) == ("2", None, "")


def test_wrong_subscriptions_fail_alone_and_there_is_a_limit(world: World, client: Client) -> None:
    client.ask(
        op="subscribe",
        id=7,
        channels=[
            {"channel": "book", "market": MARKET},
            {"channel": "weather"},
            {"channel": "candles", "market": MARKET, "interval": "2m"},
        ],
    )
    results = client.take()[0]["results"]
    assert [one["ok"] for one in results] == [True, False, False]
    assert [one["error"]["field"] for one in results[1:]] == ["channel", "interval"]
    client.member.topics |= {Topic("x", number) for number in range(SUBSCRIPTIONS_MAX)}
    assert client.subscribe("ticker")["error"]["code"] == "RATE_LIMITED"


def test_unsubscribed_and_gone_clients_get_nothing(world: World, client: Client) -> None:
    client.subscribe("book", MARKET)
    other = Client(world)
    other.subscribe("book", MARKET)
    client.ask(op="unsubscribe", id=2, channels=[{"channel": "book", "market": MARKET}])
    world.feed.disconnect(other.member)
    client.take()
    other.take()
    world.order(ALICE, Side.BUY, 1, 50)
    world.tick()
    world.feed.heartbeat()
    assert [one.get("op") for one in client.take()] == ["heartbeat"]
    assert other.take() == []
    assert world.feed.clients == 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Topic]:
    """Of which topics a snapshot was made."""
    found: list[Topic] = []
    whole = Feed._whole

    def counting(feed: Feed, topic: Topic) -> dict[str, Any]:
        found.append(topic)
        return whole(feed, topic)

    monkeypatch.setattr(Feed, "_whole", counting)
    return found


def test_a_channel_that_is_named_again_is_no_new_work(
    world: World, client: Client, made: list[Topic]
) -> None:
    book = {"channel": "book", "market": MARKET}
    client.ask(op="subscribe", id=1, channels=[book] * SUBSCRIPTIONS_MAX)
    answer, *snapshots = client.take()
    assert [one["ok"] for one in answer["results"]] == [True] * SUBSCRIPTIONS_MAX
    assert [one["type"] for one in snapshots] == ["snapshot"]
    client.ask(op="subscribe", id=2, channels=[book])
    (answer,) = client.take()
    assert (answer["id"], answer["results"][0]["ok"]) == (2, True)
    assert len(made) == 1


def test_a_message_with_too_many_channels_or_too_long_a_name_is_refused_whole(
    world: World, client: Client, made: list[Topic]
) -> None:
    book = {"channel": "book", "market": MARKET}
    too_many = {"op": "subscribe", "channels": [book] * (SUBSCRIPTIONS_MAX + 1)}
    too_long = {"op": "subscribe", "channels": [book, {"channel": "x" * 50_000}]}
    no_such_op = {"op": "x" * 50_000}
    for message in (too_many, too_long, no_such_op):
        assert client.say(json.dumps(message), 0.0)
        (answer,) = client.take()
        assert (answer["op"], answer["error"]["code"]) == ("error", "BAD_REQUEST")
        assert len(json.dumps(answer)) < 1_000, "it is not repeated to who sent it"
    assert not made
    assert not client.member.topics


def test_json_that_is_nested_too_deeply_is_a_bad_request(world: World, client: Client) -> None:
    depth = 20_000
    assert client.say('{"op": "ping", "other": ' + "[" * depth + "]" * depth + "}", 0.0)
    assert client.take()[0]["error"]["code"] == "BAD_REQUEST"


def test_a_snapshot_is_made_once_for_all_until_something_happens(
    world: World, client: Client, made: list[Topic]
) -> None:
    other = Client(world)
    for one in (client, other):
        one.subscribe("candles", MARKET, "1m")
        one.subscribe("book", MARKET)
    assert sorted(one.channel for one in made) == ["book", "candles"]
    made.clear()
    world.tick()
    Client(world).subscribe("book", MARKET)
    assert made == [], "nothing has happened"
    world.order(ALICE, Side.BUY, 1, 50)
    world.tick()
    late = Client(world)
    late.subscribe("book", MARKET)
    assert [one.channel for one in made] == ["book"]
    assert len(late.take()[-1]["bids"]) == 1


def test_who_comes_and_goes_has_no_work_done_each_time_and_misses_nothing(
    world: World, client: Client, made: list[Topic]
) -> None:
    book, wanted = Book(), [{"channel": "book", "market": MARKET}]
    for turn in range(5):
        world.order(ALICE, Side.BUY, 1, 50 + turn)
        client.ask(op="subscribe", id=1, channels=wanted)
        client.ask(op="unsubscribe", id=2, channels=wanted)
    assert len(made) == 1
    client.subscribe("book", MARKET)
    world.tick()
    world.order(BOB, Side.BUY, 1, 60)
    world.tick()
    for message in client.take():
        if message.get("channel") == "book":
            book.hear(message)
    assert len(book.sides["bids"]) == 6
    client.ask(op="unsubscribe", id=3, channels=wanted)
    world.tick()
    assert not world.feed._subscribers
    assert not world.feed._state
    assert not world.feed._snapshots


def test_messages_are_paid_out_of_an_allowance(world: World, client: Client) -> None:
    ping = json.dumps({"op": "ping"})
    assert all(client.say(ping, 5.0) for _ in range(MESSAGES_BURST))
    assert {one["op"] for one in client.take()} == {"pong"}
    assert not client.say(ping, 5.0)
    (answer,) = client.take()
    assert (answer["op"], answer["error"]["code"], answer["error"]["retryable"]) == (
        "error",
        "RATE_LIMITED",
        True,
    )
    assert [client.say(ping, 6.0) for _ in range(MESSAGES_PER_S + 1)] == [True] * MESSAGES_PER_S + [False]
    assert Client(world).say(ping, 6.0), "others have their own"


def test_subscriptions_and_logons_cost_more(world: World, client: Client) -> None:
    logon = json.dumps({"op": "logon", "public_key": "alice", "signature": "bad"})
    count = MESSAGES_BURST // LOGON_COST
    assert [client.say(logon, 0.0) for _ in range(count + 1)] == [True] * count + [False]
    assert [one["op"] for one in client.take()] == ["logon"] * count + ["error"]

    other = Client(world)
    channels = [{"channel": "ticker"}] * SUBSCRIPTIONS_MAX
    count = MESSAGES_BURST // (1 + SUBSCRIPTIONS_MAX)
    many = json.dumps({"op": "subscribe", "channels": channels})
    assert [other.say(many, 0.0) for _ in range(count + 1)] == [True] * count + [False]


class Narrow(Client):
    """The kernel has room for so many messages."""

    room = 1_000

    def send(self, message: bytes) -> None:
        super().send(message)
        self.room -= 1
        self.busy = self.room == 0

    def reads(self, room: int) -> list[Any]:
        self.room, self.busy = room, False
        return self.take()


def test_no_snapshot_is_made_for_a_client_that_has_not_read_the_one_before(
    world: World, made: list[Topic]
) -> None:
    client = Narrow(world)
    client.reads(2)
    markets = [{"channel": channel, "market": MARKET} for channel in ("book", "trades")]
    client.ask(op="subscribe", id=1, channels=[{"channel": "ticker"}, *markets, {"channel": "definitions"}])
    world.tick()
    assert [one.channel for one in made] == ["ticker"]
    assert [one.get("channel") for one in client.reads(1)] == [None, "ticker"]
    world.order(ALICE, Side.BUY, 1, 50)
    heard = []
    for _ in range(4):
        world.tick()
        heard += client.reads(1)
    assert [(one["channel"], one["type"]) for one in heard] == [
        ("definitions", "snapshot"),
        ("book", "snapshot"),
        ("trades", "snapshot"),
        ("ticker", "snapshot"),
    ]
    assert heard[1]["bids"], "as it is when it is read"
    assert not client.member.missed


def test_a_snapshot_of_orders_has_all_or_says_that_it_has_not(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "SNAPSHOT_ORDERS", 3)
    client.ask(op="logon", public_key="alice", signature="good")
    for count, shown, truncated in ((3, 3, None), (4, 3, True)):
        while world.engine(0).counts().open_orders < count:
            world.order(ALICE, Side.BUY, 1, 50)
        world.tick()
        client.subscribe("orders")
        snapshot = client.take()[-1]
        assert (len(snapshot["orders"]), snapshot.get("truncated")) == (shown, truncated)
        client.ask(op="unsubscribe", id=1, channels=[{"channel": "orders"}])


def test_more_than_a_thousand_orders_are_all_told() -> None:
    limits = EngineLimits(max_accounts=16, max_keys=32, max_balances=64, max_orders=2_048, max_outcomes=64)
    world = World(limits)
    client = Client(world)
    client.ask(op="logon", public_key="alice", signature="good")
    for nonce in range(2, 19):
        world.apply(kit.batch(ALICE, nonce, [kit.order(Side.BUY, 1, 50) for _ in range(64)]))
    assert world.engine(0).counts().open_orders == 17 * 64
    client.subscribe("orders")
    snapshot = client.take()[-1]
    assert (len(snapshot["orders"]), snapshot.get("truncated")) == (17 * 64, None)


def test_requests_of_an_address_are_counted_in_windows() -> None:
    limit = RateLimit(per_window=3, window_s=60)
    assert [limit.take("a", 0)[:2] for _ in range(4)] == [(True, 2), (True, 1), (True, 0), (False, 0)]
    assert limit.take("b", 0)[0]
    assert limit.take("a", 59.0) == (False, 0, 1)
    assert limit.take("a", 60.0) == (True, 2, 60)
