"""The blocking client: one key, one session, decimals in and out.

    with Client("127.0.0.1", 9000, key="data/keys/alice.key") as client:
        order = client.buy("BTC-USD", "0.5", "64000", post_only=True)
        client.amend(order.order_id, price="64010")
        client.cancel(order_id=order.order_id)

Every method may be called from any thread. A refused command raises the reason's own exception (`InsufficientFunds`,
`PostOnlyWouldCross`, ...). When the connection is lost it is made again in the background, and what was not answered
is sent again without the danger of a second order. A call returns, or raises, when `timeout_ms` has passed at the
latest.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar

from nacl.signing import SigningKey

from zexchange.client._commands import Catalogue, side_of, wire_command
from zexchange.client._connection import Clock, Connection, Connector, tcp_connector
from zexchange.client._core import AnyBatch, Core, Gap, Instant, LearnRequest
from zexchange.client._operator import OperatorCalls, expect
from zexchange.client._results import OperatorOutcome, Outcome, Results, state_name
from zexchange.client.errors import (
    ConnectFailed,
    EventsLost,
    NoExchange,
    OutcomeUnknown,
    ProtocolViolation,
    ZexchangeError,
)
from zexchange.client.keys import load_key
from zexchange.client.rejections import (
    PriceOffTick,
    QuantityOffLot,
    QueryLimitInvalid,
    Rejected,
    SizesChanged,
    UnknownOrder,
)
from zexchange.client.types import (
    AmendOrder,
    BalanceRow,
    BookLevel,
    BookSnapshot,
    CancelAllResult,
    CancelOrder,
    CancelResult,
    Command,
    Event,
    NewOrder,
    Order,
    OrderResult,
    SelfTradePreventionName,
    ShardState,
    SideName,
    Status,
    TimeInForceName,
    Trade,
)
from zexchange.client.units import DecimalLike
from zexchange.limits import COMMANDS_PER_BATCH_MAX, QUERY_LIMIT_MAX
from zexchange.wire import messages as wire
from zexchange.wire.messages import Durability, ExecutionReport
from zexchange.wire.session import Query

if TYPE_CHECKING:
    from zexchange.genesis import Asset, Genesis, Market

__all__ = ["Client"]

log = logging.getLogger("zexchange.client")

KeyLike: TypeAlias = SigningKey | str | Path
T = TypeVar("T")
A = TypeVar("A", bound=wire.Message)
EVENTS_MAX = 10_000
"""Events kept for `events()`: minutes of a busy account, a few megabytes."""

_DEFINE = frozenset(
    {
        wire.OperatorCommandKind.ADD_ASSET,
        wire.OperatorCommandKind.ADD_MARKET,
        wire.OperatorCommandKind.SET_MARKET_SIZES,
    }
)


class Client(OperatorCalls):
    """One signed session with an exchange; close it, or use it as a context manager.

    `key`            the private key, or the path of its file
    `deployment_id`  hexadecimal or bytes: refuse any other deployment. Without it the first one is trusted: the genesis
                     file it sends must hash to the id it names, and later connections must name the same
    `timeout_ms`     how long a call may take, reconnecting included
    `on_event`       called with every event, in order, in a thread of its own; it may use this client.
                     Without it events are kept for `events()`: the newest `events_max`, older ones are dropped and that
                     is reported as EventsLost
    `connector`      makes the connection instead of TCP, for tests and tunnels
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 9000,
        *,
        key: KeyLike,
        deployment_id: str | bytes | None = None,
        timeout_ms: int = 10_000,
        connect_timeout_ms: int = 5_000,
        heartbeat_interval_ms: int = 5_000,
        on_event: Callable[[Event], None] | None = None,
        events_max: int = EVENTS_MAX,
        connector: Connector | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Connects and logs on. Raises ConnectFailed, DeploymentMismatch, KeyFileError."""
        self._timeout_ms = timeout_ms
        # A callback is promised every event, so nothing is dropped while one is at work.
        self._events: deque[Event] = deque(maxlen=events_max if on_event is None else None)
        self._events_lost = 0
        self._events_changed = threading.Condition()
        self._closed = False
        signing_key = key if isinstance(key, SigningKey) else load_key(key)
        pinned = bytes.fromhex(deployment_id) if isinstance(deployment_id, str) else deployment_id
        clock = clock or Clock()
        core = Core(
            signing_key,
            deployment_id=pinned,
            heartbeat_interval_ms=heartbeat_interval_ms,
            establish_timeout_ms=connect_timeout_ms,
            at=clock.now(),
        )
        self.public_key = core.public_key
        self._early: list[ExecutionReport | Gap] = []
        self._results: Results | None = None
        self._connection = Connection(
            core, connector or tcp_connector(host, port, connect_timeout_ms), clock, self._take_events
        )
        try:
            self._connection.wait_ready()
            genesis, definitions = self._connection.read(lambda core: (core.genesis, core.definitions))
            if genesis is None or definitions is None:
                raise ProtocolViolation("the session is ready without a genesis file")
        except ZexchangeError as error:
            self._connection.close()
            if isinstance(error, ConnectFailed) and connector is None:
                raise ConnectFailed(f"cannot connect to {host}:{port}: {error}") from error
            raise
        except BaseException:
            self._connection.close()
            raise
        self.genesis: Genesis = genesis
        self._catalogue = Catalogue(genesis, definitions, self._refresh)
        self._results = Results(Catalogue(genesis, definitions))  # also used by the thread that must not wait
        self._take_events([])
        self._dispatcher: threading.Thread | None = None
        if on_event is not None:
            # Not the thread of the connection: a callback that waits for a lock, or for this client, would stop it.
            self._dispatcher = threading.Thread(
                target=self._dispatch, args=(on_event,), name="zexchange-events", daemon=True
            )
            self._dispatcher.start()

    @classmethod
    def local(
        cls,
        data: str | Path = "./data",
        key: KeyLike = "default",
        *,
        timeout_ms: int = 10_000,
        on_event: Callable[[Event], None] | None = None,
    ) -> Self:
        """A client of the exchange that runs in the data folder. A `key` without a slash is a name in its `keys/`.

        Raises NoExchange if none runs there, and what the constructor raises.
        """
        from zexchange.runtime.exchange_info import is_supervised, read_exchange
        from zexchange.runtime.paths import DataPaths

        paths = DataPaths(Path(data))
        info = read_exchange(paths)
        if info is None and is_supervised(paths):
            raise NoExchange(
                f"the exchange in {paths.root} is starting or stopping; try again when it says ready"
            )
        if info is None:
            raise NoExchange(f"no exchange runs in {paths.root}; start one with: zexchange up --data {data}")
        if isinstance(key, str) and "/" not in key:
            key = paths.key(key)
        return cls(
            info.tcp.reachable_host,
            info.tcp.port,
            key=key,
            deployment_id=info.deployment_id,
            timeout_ms=timeout_ms,
            on_event=on_event,
        )

    def close(self) -> None:
        """End the session. Calls that wait raise; `events()` ends, and so does `on_event`, after the last event."""
        self._connection.close()
        with self._events_changed:
            self._closed = True
            self._events_changed.notify_all()
        if self._dispatcher not in (None, threading.current_thread()):
            # Not for ever: the callback may wait for a lock that the caller holds.
            self._dispatcher.join(self._timeout_ms / 1000)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.genesis.name} key {self.public_key.hex()[:16]} account {self.account_id}>"

    # ---------------------------------------------------------------- what the exchange is

    @property
    def deployment_id(self) -> bytes:
        """Of the exchange: SHA-256 over its genesis file."""
        return self.genesis.deployment_id

    @property
    def markets(self) -> tuple[Market, ...]:
        """All markets with tick, lot and fees: those of the genesis file, then those that were added."""
        return self._catalogue.markets

    @property
    def assets(self) -> tuple[Asset, ...]:
        """All assets, likewise."""
        return self._catalogue.assets

    def market(self, market: str | int) -> Market:
        """A market by its symbol or id. Raises UnknownMarket."""
        return self._catalogue.market(market)

    def asset(self, asset: str | int) -> Asset:
        """An asset by its symbol or id. Raises UnknownAsset."""
        return self._catalogue.asset(asset)

    def refresh(self) -> None:
        """Learn of assets and markets that were added or changed: `markets` and `assets` are then as of now.

        What is asked for by a name that is not known is looked up anyway.
        """
        self._refresh()

    @property
    def account_id(self) -> int | None:
        """The account of the key; None while the key is not registered."""
        return self._connection.read(lambda core: core.account_id)

    def status(self) -> Status:
        """How far each shard is, and what an acknowledgement promises."""
        shards = []
        for shard in range(self.genesis.shards):
            answer = self._ask(wire.ShardStatusRequest(shard=shard), wire.ShardStatus)
            shards.append(
                ShardState(
                    shard=shard,
                    epoch=answer.epoch,
                    next_record_no=answer.next_record_no,
                    next_seq=answer.next_seq,
                    log_time_ns=answer.log_time_ns,
                    open_orders=answer.open_orders,
                    accounts=answer.accounts,
                    trades=answer.trades,
                    durability="always" if answer.durability is Durability.ALWAYS else "every_second",
                )
            )
        return Status(
            deployment_id=self.deployment_id.hex(),
            name=self.genesis.name,
            public_key=self.public_key.hex(),
            account_id=self.account_id,
            shards=tuple(shards),
        )

    # ---------------------------------------------------------------- orders

    def buy(
        self,
        market: str,
        quantity: DecimalLike,
        price: DecimalLike,
        *,
        time_in_force: TimeInForceName = "gtc",
        post_only: bool = False,
        client_order_id: int | None = None,
    ) -> OrderResult:
        """A limit order to buy. Raises Rejected, OutcomeUnknown, Disconnected."""
        return self._enter(market, "buy", quantity, price, time_in_force, post_only, client_order_id)

    def sell(
        self,
        market: str,
        quantity: DecimalLike,
        price: DecimalLike,
        *,
        time_in_force: TimeInForceName = "gtc",
        post_only: bool = False,
        client_order_id: int | None = None,
    ) -> OrderResult:
        """A limit order to sell. Raises Rejected, OutcomeUnknown, Disconnected."""
        return self._enter(market, "sell", quantity, price, time_in_force, post_only, client_order_id)

    def market_buy(
        self,
        market: str,
        quantity: DecimalLike,
        *,
        protection_price: DecimalLike,
        time_in_force: TimeInForceName = "ioc",
        client_order_id: int | None = None,
    ) -> OrderResult:
        """Buy at once, at no price above `protection_price`; the rest is cancelled ("fok": all or nothing)."""
        return self._enter(
            market, "buy", quantity, protection_price, time_in_force, False, client_order_id, at_market=True
        )

    def market_sell(
        self,
        market: str,
        quantity: DecimalLike,
        *,
        protection_price: DecimalLike,
        time_in_force: TimeInForceName = "ioc",
        client_order_id: int | None = None,
    ) -> OrderResult:
        """Sell at once, at no price below `protection_price`; the rest is cancelled ("fok": all or nothing)."""
        return self._enter(
            market, "sell", quantity, protection_price, time_in_force, False, client_order_id, at_market=True
        )

    def enter(self, order: NewOrder) -> OrderResult:
        """An order of any kind: stops, icebergs, hidden orders, and whatever else `NewOrder` can say.

        Raises Rejected, OutcomeUnknown, Disconnected.
        """
        return expect(self._one(order), OrderResult)

    def cancel(
        self,
        *,
        order_id: int | None = None,
        client_order_id: int | None = None,
        market: str | None = None,
    ) -> CancelResult:
        """Cancel one order by either id. Raises UnknownOrder if the account has no such open order."""
        command = CancelOrder(order_id=order_id, client_order_id=client_order_id, market=market)
        return expect(self._one(command), CancelResult)

    def cancel_all(self, market: str | None = None, side: SideName | None = None) -> int:
        """Cancel every open order, of one market or side if named, and return how many.

        One command cancels at most 1,024, so it is repeated until none is left. An order that another session of the
        account enters meanwhile may be cancelled as well, or not.
        """
        shards = (
            [self._catalogue.shard_of(market)] if market is not None else list(range(self.genesis.shards))
        )
        wire_market_id = 0 if market is None else self._catalogue.market(market).market_id
        cancelled = 0
        for shard in shards:
            command = wire.Command(
                kind=wire.CommandKind.CANCEL_ALL,
                side=wire.Side.NONE if side is None else side_of(side),
                market_id=wire_market_id,
            )
            while True:
                outcome = self._outcomes(self._submit(shard, [command]))[0]
                if isinstance(outcome, Rejected):
                    raise outcome
                result = expect(outcome, CancelAllResult)
                cancelled += result.cancelled or 0
                if result.still_open == 0:
                    break
        return cancelled

    def amend(
        self,
        order_id: int | None = None,
        *,
        client_order_id: int | None = None,
        price: DecimalLike | None = None,
        quantity: DecimalLike | None = None,
        display: DecimalLike | None = None,
        trigger_price: DecimalLike | None = None,
        trail: DecimalLike | None = None,
        trail_ppm: int | None = None,
        expire_time_ns: int | None = None,
        post_only: bool = False,
        slide: bool = False,
        self_trade_prevention: SelfTradePreventionName = "cancel_newest",
        market: str | None = None,
    ) -> OrderResult:
        """Change price, total quantity (fills included), displayed quantity, trigger or expiry; None keeps it.

        A smaller quantity at the same price keeps the order's place in the queue, and so does another expiry; anything
        else loses it. Without `market` the order is looked up first, which takes one more round trip; with several
        shards it is needed.
        """
        if market is None:
            market = self._market_of(order_id, client_order_id)
        command = AmendOrder(
            order_id=order_id,
            client_order_id=client_order_id,
            price=price,
            quantity=quantity,
            display=display,
            trigger_price=trigger_price,
            trail=trail,
            trail_ppm=trail_ppm,
            expire_time_ns=expire_time_ns,
            post_only=post_only,
            slide=slide,
            self_trade_prevention=self_trade_prevention,
            market=market,
        )
        return expect(self._one(command), OrderResult)

    def submit(self, commands: Sequence[Command], *, all_or_nothing: bool = False) -> list[Outcome]:
        """Up to 64 commands for one shard under one signature, applied one after the other. With `all_or_nothing` none
        of them changes anything if one would be refused: that one has its own reason, the others are `BatchRefused`.

        Returns one outcome per command, in order; a refused one is an instance of its exception class, returned and not
        raised. Raises the rejections that this client finds itself (such as PriceOffTick) before anything is sent, and
        ServerBusy and its like if the batch did not reach the matcher.
        """
        if not 1 <= len(commands) <= COMMANDS_PER_BATCH_MAX:
            raise ValueError(f"a batch holds 1 to {COMMANDS_PER_BATCH_MAX} commands, not {len(commands)}")
        translated = [self._wire(command) for command in commands]
        shards = {shard for shard, _ in translated}
        if len(shards) > 1:
            raise ValueError(f"a batch goes to one shard; these commands concern {sorted(shards)}")
        flags = wire.BatchFlags.ALL_OR_NOTHING if all_or_nothing else wire.BatchFlags.NONE
        return self._outcomes(self._submit(shards.pop(), [command for _, command in translated], flags))

    def resolve(self, unknown: OutcomeUnknown) -> list[Outcome] | list[OperatorOutcome]:
        """Find out what became of a batch, by sending the same bytes again, which cannot apply it twice.

        Raises OutcomeUnknown again if there is still no answer, or if the exchange no longer keeps the outcome.
        """
        batch: AnyBatch = self._connection.start(
            lambda core, at: core.resubmit(unknown.frame, self._timeout_ms, at)
        )
        self._connection.wait(batch)
        return self._any_outcomes(batch)

    # ---------------------------------------------------------------- the account

    def open_orders(self, market: str | None = None) -> list[Order]:
        """All open orders of the account, oldest first, of one market if named; asked for in pages."""
        shards = range(self.genesis.shards) if market is None else [self._catalogue.market(market).shard]
        market_id = 0 if market is None else self._catalogue.market(market).market_id
        return [order for shard in shards for order in self._open_orders(shard, market_id)]

    def balances(self) -> list[BalanceRow]:
        """All balances of the account, over all shards, by asset."""
        totals: dict[int, tuple[Decimal, Decimal]] = {}
        for shard in range(self.genesis.shards):
            answer = self._ask(wire.BalancesRequest(shard=shard), wire.Balances)
            for row in answer.balances:
                available, held = totals.get(row.asset_id, (Decimal(0), Decimal(0)))
                totals[row.asset_id] = (
                    available + self._translate.amount(row.asset_id, row.available),
                    held + self._translate.amount(row.asset_id, row.held),
                )
        return [
            BalanceRow(asset=self._catalogue.asset(asset_id).symbol, available=available, held=held)
            for asset_id, (available, held) in sorted(totals.items())
        ]

    # ---------------------------------------------------------------- market data

    def book(self, market: str, levels: int = 10) -> BookSnapshot:
        """Depth of a market, 1 to 500 levels a side. Raises QueryLimitInvalid, UnknownMarket."""
        found = self._catalogue.market(market)
        query = wire.BookRequest(market_id=found.market_id, levels=_query_limit(levels), shard=found.shard)
        answer = self._ask(query, wire.BookDepth)
        translate = self._translate
        indicated = None
        if answer.indicative_price_ticks:
            level = wire.Level(
                price_ticks=answer.indicative_price_ticks, qty_lots=answer.indicative_qty_lots, orders=0
            )
            indicated = translate.level(found, level)
        return BookSnapshot(
            market=found.symbol,
            state=state_name(answer.market_state),
            next_record_no=answer.next_record_no,
            bids=tuple(BookLevel(*translate.level(found, level)) for level in answer.bids),
            asks=tuple(BookLevel(*translate.level(found, level)) for level in answer.asks),
            indicative_price=indicated[0] if indicated else None,
            indicative_quantity=indicated[1] if indicated else None,
        )

    def trades(self, market: str, limit: int = 50) -> list[Trade]:
        """The last trades of a market, newest first, 1 to 500. Raises QueryLimitInvalid, UnknownMarket."""
        found = self._catalogue.market(market)
        query = wire.TradesRequest(market_id=found.market_id, limit=_query_limit(limit), shard=found.shard)
        answer = self._ask(query, wire.Trades)
        return [self._translate.trade(found, trade) for trade in answer.trades]

    # ---------------------------------------------------------------- events

    def events(self, timeout_ms: int | None = None) -> Iterator[Event]:
        """What happens to the account without having been asked for by this client, in order, as it happens.

        Fills of resting orders, deposits, orders of other sessions of the account, and MissedReports after a lost
        connection. Ends when the client is closed, or when nothing comes for `timeout_ms` (0: only what is there).
        Raises EventsLost once if events were dropped because they were not read in time.
        """
        while True:
            with self._events_changed:
                timeout_s = None if timeout_ms is None else timeout_ms / 1000
                self._events_changed.wait_for(
                    lambda: self._events or self._events_lost or self._closed, timeout_s
                )
                if self._events_lost:
                    lost, self._events_lost = self._events_lost, 0
                    raise EventsLost(lost)
                if not self._events:
                    return
                event = self._events.popleft()
            yield event

    # ---------------------------------------------------------------- parts

    @property
    def _translate(self) -> Results:
        assert self._results is not None, "set before the constructor returns"
        return self._results

    def _enter(
        self,
        market: str,
        side: SideName,
        quantity: DecimalLike,
        price: DecimalLike,
        time_in_force: TimeInForceName,
        post_only: bool,
        client_order_id: int | None,
        *,
        at_market: bool = False,
    ) -> OrderResult:
        command = NewOrder(
            market=market,
            side=side,
            quantity=quantity,
            price=price,
            order_type="market" if at_market else "limit",
            time_in_force=time_in_force,
            post_only=post_only,
            client_order_id=client_order_id,
        )
        return expect(self._one(command), OrderResult)

    def _one(self, command: Command) -> OrderResult | CancelResult | CancelAllResult:
        shard, translated = self._wire(command)
        outcome = self._outcomes(self._submit(shard, [translated]))[0]
        if isinstance(outcome, SizesChanged):
            # The decimals that were asked for mean what they meant; only their ticks and lots are others now.
            shard, translated = self._wire(command)
            outcome = self._outcomes(self._submit(shard, [translated]))[0]
        if isinstance(outcome, Rejected):
            raise outcome
        return outcome

    def _wire(self, command: Command) -> tuple[int, wire.Command]:
        try:
            return wire_command(self._catalogue, command)
        except (PriceOffTick, QuantityOffLot) as refusal:
            try:
                self._refresh()  # the market may have other sizes by now
            except ZexchangeError:
                raise refusal from None
        return wire_command(self._catalogue, command)

    def _submit(
        self, shard: int, commands: list[wire.Command], flags: wire.BatchFlags = wire.BatchFlags.NONE
    ) -> AnyBatch:
        batch: AnyBatch = self._connection.start(
            lambda core, at: core.submit(shard, commands, self._timeout_ms, at, flags)
        )
        return self._connection.wait(batch)

    def _outcomes(self, batch: AnyBatch) -> list[Outcome]:
        outcomes = [
            self._translate.outcome(command, reports)
            for command, reports in zip(batch.commands, batch.reports, strict=True)
            if isinstance(command, wire.Command)
        ]
        if any(isinstance(outcome, SizesChanged) for outcome in outcomes):
            self._refresh()  # so that the next order is made for the sizes that the market has now
        return outcomes

    def _any_outcomes(self, batch: AnyBatch) -> list[Outcome] | list[OperatorOutcome]:
        if isinstance(batch.commands[0], wire.Command):
            return self._outcomes(batch)
        return [
            self._translate.operator_outcome(command, reports)
            for command, reports in zip(batch.commands, batch.reports, strict=True)
            if isinstance(command, wire.OperatorCommand)
        ]

    def _operate_all(self, commands: list[wire.OperatorCommand], shard: int) -> list[OperatorOutcome]:
        batch = self._connection.wait(
            self._connection.start(lambda core, at: core.submit(shard, commands, self._timeout_ms, at))
        )
        if any(command.kind in _DEFINE for command in commands):
            self._refresh()
        outcomes = [
            self._translate.operator_outcome(command, reports)
            for command, reports in zip(commands, batch.reports, strict=True)
        ]
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                raise outcome
        return outcomes

    def _refresh(self) -> None:
        shards = range(self.genesis.shards)
        requests = [self._connection.start(partial(self._learn, shard)) for shard in shards]
        for request in requests:
            self._connection.wait(request)

    def _learn(self, shard: int, core: Core, at: Instant) -> LearnRequest:
        return core.learn(shard, self._timeout_ms, at)

    def _ask(self, query: Query, kind: type[A]) -> A:
        request = self._connection.wait(
            self._connection.start(lambda core, at: core.ask(query, self._timeout_ms, at))
        )
        if not isinstance(request.answer, kind):
            raise ProtocolViolation(
                f"{type(query).__name__} was answered with {type(request.answer).__name__}"
            )
        return request.answer

    def _open_orders(self, shard: int, market_id: int) -> Iterator[Order]:
        after_order_id = 0
        while True:
            query = wire.OpenOrdersRequest(
                after_order_id=after_order_id, market_id=market_id, shard=shard, limit=QUERY_LIMIT_MAX
            )
            page = self._ask(query, wire.OpenOrders).orders
            yield from (self._translate.open_order(order) for order in page)
            if len(page) < QUERY_LIMIT_MAX:
                return
            after_order_id = page[-1].order_id

    def _market_of(self, order_id: int | None, client_order_id: int | None) -> str:
        """The market of an open order. Raises MarketNeeded: on another shard another order may have the same id."""
        self._catalogue.shard_of(None)
        if order_id is None and client_order_id is None:
            raise ValueError("name the order by order_id or by client_order_id")
        for order in self.open_orders():
            if order_id in (None, order.order_id) and client_order_id in (None, order.client_order_id):
                return order.market
        raise UnknownOrder()

    def _take_events(self, reports: list[ExecutionReport | Gap]) -> None:
        """From the background thread: translate and keep."""
        with self._events_changed:
            reports = self._early + reports
            if self._results is None:
                self._early = reports  # the constructor has not come far enough to translate them
                return
            self._early = []
            events = [event for event in map(self._results.event, reports) if event is not None]
            if self._events.maxlen is not None:
                room = self._events.maxlen - len(self._events)
                self._events_lost += max(0, len(events) - room)
            self._events.extend(events)
            self._events_changed.notify_all()

    def _dispatch(self, on_event: Callable[[Event], None]) -> None:
        for event in self.events():
            try:
                on_event(event)
            except Exception:
                # The next event must not be missed because of it, and nobody is there to catch it.
                log.exception("on_event failed for %r", event)


def _query_limit(entries: int) -> int:
    if not 1 <= entries <= QUERY_LIMIT_MAX:
        raise QueryLimitInvalid(detail=f"{entries} is not in 1 to {QUERY_LIMIT_MAX}")
    return entries
