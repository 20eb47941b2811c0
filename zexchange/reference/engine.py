"""The reference engine: a record after the other (docs/rules.md section 3), and what can be asked of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Self

from zexchange import limits
from zexchange.engine_types import (
    Applied,
    Counts,
    Depth,
    InvariantBroken,
    MalformedFrame,
    MarketTerms,
    OrderTerms,
    SnapshotInvalid,
)
from zexchange.genesis import Genesis, encode_symbol
from zexchange.reference import encoding
from zexchange.reference.check import check_state
from zexchange.reference.markets import Markets, auction_of
from zexchange.reference.matching import Matching
from zexchange.reference.operator_commands import OperatorRules
from zexchange.reference.orders import OrderRules
from zexchange.reference.reports import CommandContext, Rejection, Reporter, rejected_fields
from zexchange.reference.state import Key, Market, Order, Outcome, State, genesis_state
from zexchange.reference.triggers import Triggers
from zexchange.wire.messages import (
    FRAME_HEADER_BYTES,
    AssetDefinition,
    Balance,
    BatchFlags,
    Command,
    EpochOpen,
    ExecType,
    Level,
    MarketDefinition,
    MarketState,
    OpenOrder,
    OperatorBatch,
    OperatorCommand,
    OrderOptions,
    ReasonCode,
    ReportFlags,
    SignedBatch,
    TimePassed,
    WireError,
    decode,
)

__all__ = ["ReferenceEngine"]

END_OF_TIME_NS = 2**64 - 1
Batch = SignedBatch | OperatorBatch
Record = Batch | EpochOpen | TimePassed


class ReferenceEngine:
    """One shard. Satisfies `zexchange.engine_types.MatchingEngine`."""

    def __init__(self, genesis: Genesis, shard: int, *, track_state: bool = True) -> None:
        if not 0 <= shard < genesis.shards:
            raise ValueError(f"the genesis has no shard {shard}")
        self._track_state = track_state
        self._use_state(genesis_state(genesis, shard))
        if self._state.balance_count() > genesis.limits.max_balances:
            raise ValueError("max_balances does not cover the operator's balances, one per quote asset")

    def _use_state(self, state: State) -> None:
        self._state = state
        self._reporter = Reporter(state)
        matching = Matching(state, self._reporter)
        self._triggers = Triggers(state, self._reporter, matching)
        self._markets = Markets(state, self._reporter, matching, self._triggers)
        self._orders = OrderRules(state, self._reporter, matching, self._triggers, self._markets)
        self._operator = OperatorRules(state, self._reporter, self._markets, self._triggers)

    @property
    def shard(self) -> int:
        return self._state.shard

    @property
    def next_record_no(self) -> int:
        return self._state.next_record_no

    @property
    def next_seq(self) -> int:
        return self._state.next_seq

    @property
    def next_trade_id(self) -> int:
        return self._state.next_trade_id

    @property
    def log_time_ns(self) -> int:
        return self._state.log_time_ns

    @property
    def next_due_ns(self) -> int | None:
        """See `MatchingEngine.next_due_ns`."""
        if self._triggers.is_anything_due() or self._markets.is_anything_due():
            return self._state.log_time_ns + 1
        times = [order.expire_time_ns for order in self._state.open_orders() if order.expire_time_ns]
        times += [market.until_ns for market in self._state.markets.values() if market.until_ns]
        first_ns = min(times, default=END_OF_TIME_NS)
        return None if first_ns == END_OF_TIME_NS else first_ns

    # -------------------------------------------------------------- section 3: a record

    def apply(self, body: bytes | memoryview, log_time_ns: int) -> Applied:
        """See `MatchingEngine.apply`."""
        if not self._state.log_time_ns < log_time_ns < 2**64:
            raise ValueError(f"log time {log_time_ns} is not above {self._state.log_time_ns}")
        self._reporter.take_events()  # those before a malformed frame were not collected
        first_record_no, first_seq = self._state.next_record_no, self._state.next_seq
        consumed_bytes = 0
        for message, end in _messages(bytes(body)):
            if not self._has_room(message):
                break
            self._state.log_time_ns = log_time_ns
            self._triggers.expire(self._context_of_time())
            self._markets.end_states(self._context_of_time())
            if isinstance(message, EpochOpen | TimePassed) or not self._apply_batch(message):
                self._go_on(self._context_of_time())
            self._state.next_record_no += 1
            consumed_bytes = end
        return Applied(
            consumed_bytes=consumed_bytes,
            records=self._state.next_record_no - first_record_no,
            commands=self._state.next_seq - first_seq,
            events=self._reporter.take_events(),
        )

    def _has_room(self, message: Record) -> bool:
        """Whether the worst that a frame can cause fits behind the events that are there already."""
        commands = 1 if isinstance(message, EpochOpen | TimePassed) else len(message.commands)
        reports = commands * limits.REPORTS_PER_COMMAND_MAX + limits.REPORTS_OF_TIME_MAX
        worst = reports * limits.EXECUTION_REPORT_BYTES
        return self._reporter.events_bytes + worst <= limits.EVENTS_BYTES_MAX

    def _apply_batch(self, batch: Batch) -> bool:
        """Whether its commands were applied; not if it was refused or seen before."""
        key = self._state.key(batch.public_key)
        reason = self._batch_refusal(batch, key)
        if reason is not None:
            self._refuse_batch(batch, key, reason)
            return False
        assert key is not None, "an unknown key is a refusal"
        if (key.key_index, batch.nonce) in self._state.cached_batches:
            self._repeat_outcomes(key, batch.nonce)
            return False
        _use_nonce(key, batch.nonce)
        self._orders.previous_order_id = 0
        if isinstance(batch, SignedBatch) and BatchFlags.ALL_OR_NOTHING in batch.flags:
            outcomes = self._apply_all_or_nothing(batch, key)
        else:
            commands: Sequence[Command | OperatorCommand] = batch.commands
            outcomes = [
                self._apply_command(self._context(batch, key, index), command)
                for index, command in enumerate(commands)
            ]
        key = self._state.keys[key.key_index]  # another object if the state was put back
        self._cache_outcomes(key, batch.nonce, outcomes)
        return True

    def _apply_all_or_nothing(self, batch: SignedBatch, key: Key) -> list[Outcome]:
        """All commands, or the answers of a batch of which one was refused; then what they trigger."""
        before, events_before = self._state.copied(), self._reporter.events_bytes
        outcomes: list[Outcome] = []
        try:
            for index, command in enumerate(batch.commands):
                outcomes.append(self._orders.apply(self._context(batch, key, index), command))
                reports = (self._reporter.events_bytes - events_before) // limits.EXECUTION_REPORT_BYTES
                if reports > limits.ALL_OR_NOTHING_REPORTS_MAX:
                    raise Rejection(ReasonCode.BATCH_TOO_LARGE)
        except Rejection as rejection:
            self._state.become(before)
            self._reporter.drop_events(events_before)
            key = self._state.keys[key.key_index]
            outcomes = [
                self._reporter.reject(
                    self._context(batch, key, at),
                    command,
                    rejection.reason if at == index else ReasonCode.BATCH_REFUSED,
                )
                for at, command in enumerate(batch.commands)
            ]
        self._go_on(self._context_of_time(len(batch.commands) - 1))
        return outcomes

    def _batch_refusal(self, batch: Batch, key: Key | None) -> ReasonCode | None:
        """The first of the checks that fails, or None if the batch is a duplicate or is to be applied."""
        if batch.shard != self._state.shard:
            return ReasonCode.WRONG_SHARD
        if key is None:
            return ReasonCode.UNKNOWN_KEY
        if (key.key_index, batch.nonce) in self._state.cached_batches:
            return None
        if batch.nonce + limits.NONCE_WINDOW <= key.highest_nonce:
            return ReasonCode.NONCE_TOO_OLD
        if batch.nonce in key.used_nonces:
            return ReasonCode.NONCE_USED
        if batch.nonce > self._state.log_time_ns // 1000 + limits.NONCE_AHEAD_US:
            return ReasonCode.NONCE_TOO_NEW
        if isinstance(batch, OperatorBatch) and key.account_id != limits.OPERATOR_ACCOUNT_ID:
            return ReasonCode.OPERATOR_ONLY
        if isinstance(batch, SignedBatch) and key.account_id == limits.OPERATOR_ACCOUNT_ID:
            return ReasonCode.TRADERS_ONLY
        return None

    def _refuse_batch(self, batch: Batch, key: Key | None, reason: ReasonCode) -> None:
        """One `rejected` for each command, outside the numbering of the account's reports."""
        commands: Sequence[Command | OperatorCommand] = batch.commands
        for index, command in enumerate(commands):
            self._reporter.emit(
                account_id=limits.ACCOUNT_NONE if key is None else key.account_id,
                seq=self._state.next_seq,
                record_no=self._state.next_record_no,
                nonce=batch.nonce,
                command_index=index,
                exec_type=ExecType.REJECTED,
                reason=reason,
                **rejected_fields(command),
            )
            self._state.next_seq += 1

    def _repeat_outcomes(self, key: Key, nonce: int) -> None:
        """Section 4, a duplicate's reports. Changes nothing."""
        for outcome in self._state.cached_batches[key.key_index, nonce]:
            of_operator = key.account_id == limits.OPERATOR_ACCOUNT_ID
            self._reporter.emit(
                account_id=key.account_id,
                report_seq=outcome.report_seq,
                seq=outcome.seq,
                record_no=outcome.record_no,
                nonce=nonce,
                order_id=0 if of_operator else outcome.order_id,
                target_account_id=outcome.order_id if of_operator else 0,
                client_order_id=outcome.client_order_id,
                market_id=outcome.market_id,
                leaves_lots=outcome.leaves_lots,
                cum_qty_lots=outcome.cum_qty_lots,
                reason=outcome.reason,
                command_index=outcome.command_index,
                exec_type=outcome.exec_type,
                flags=ReportFlags.DUPLICATE,
            )

    def _cache_outcomes(self, key: Key, nonce: int, outcomes: list[Outcome]) -> None:
        """Removes the oldest batches until this one fits, then adds it."""
        state, max_outcomes = self._state, self._state.genesis.limits.max_outcomes
        while state.outcomes_count + len(outcomes) > max_outcomes:
            state.outcomes_count -= len(state.cached_batches.pop(next(iter(state.cached_batches))))
        state.cached_batches[key.key_index, nonce] = outcomes
        state.outcomes_count += len(outcomes)
        for outcome in outcomes:
            position = state.outcomes_head % max_outcomes
            state.ring[position : position + 1] = [outcome]
            state.outcomes_head += 1

    def _context(self, batch: Batch, key: Key, command_index: int) -> CommandContext:
        """Gives the next command its number."""
        seq = self._state.next_seq
        self._state.next_seq += 1
        return CommandContext(
            record_no=self._state.next_record_no,
            seq=seq,
            nonce=batch.nonce,
            command_index=command_index,
            account_id=key.account_id,
            key=key,
        )

    def _apply_command(self, context: CommandContext, command: Command | OperatorCommand) -> Outcome:
        """Applies one command, then what it triggers, and returns its answer."""
        try:
            if isinstance(command, OperatorCommand):
                outcome = self._operator.apply(context, command)
            else:
                outcome = self._orders.apply(context, command)
        except Rejection as rejection:
            outcome = self._reporter.reject(context, command, rejection.reason)
        self._go_on(self._context_of_time(context.command_index))
        return outcome

    def _go_on(self, context: CommandContext) -> None:
        """What the command before has set going: auctions are executed, then waiting orders triggered."""
        self._markets.run(context)
        self._triggers.run(context)

    def _context_of_time(self, command_index: int = 0) -> CommandContext:
        """Of what nobody sent: it comes behind the last command that has a number."""
        return CommandContext(
            record_no=self._state.next_record_no,
            seq=self._state.next_seq - 1,
            nonce=0,
            command_index=command_index,
            account_id=limits.ACCOUNT_NONE,
            key=None,
        )

    # ------------------------------------------------------------------ state, queries

    def state_root(self) -> bytes:
        """32 bytes (formats.md section 3). RuntimeError when made with `track_state=False`."""
        if not self._track_state:
            raise RuntimeError("this engine was made without a state tree")
        return encoding.state_root(self._state)

    def snapshot(self) -> bytes:
        """The canonical engine snapshot (formats.md section 4)."""
        return encoding.encode_snapshot(self._state)

    def make_ready(self, orders: int) -> None:
        """Its memory is Python's."""

    @classmethod
    def restore(cls, genesis: Genesis, shard: int, snapshot: bytes, *, track_state: bool = True) -> Self:
        """An engine in the state of the snapshot. Raises SnapshotInvalid."""
        engine = cls(genesis, shard, track_state=track_state)
        engine._use_state(encoding.decode_snapshot(genesis, shard, bytes(snapshot)))
        try:
            engine.check()
        except InvariantBroken as error:
            raise SnapshotInvalid(str(error)) from error
        return engine

    def depth(self, market_id: int, levels: int) -> Depth:
        """The best `levels` levels of each side. Raises KeyError when the shard has no such market."""
        market = self._state.markets[market_id]
        collects = market.state in (MarketState.AUCTION, MarketState.CLOSING_AUCTION)
        indicated = auction_of(market) if collects else None
        return Depth(
            state=market.state,
            bids=_levels(market.buys, levels),
            asks=_levels(market.sells, levels),
            indicative_price_ticks=0 if indicated is None else indicated.price_ticks,
            indicative_qty_lots=0 if indicated is None else indicated.qty_lots,
        )

    def market_terms(self, market_id: int) -> MarketTerms:
        """What is laid down for a market. Raises KeyError when the shard has no such market."""
        market = self._state.markets[market_id]
        return MarketTerms(
            until_ns=market.until_ns,
            last_ticks=market.last_ticks,
            reference_ticks=market.reference_ticks,
            qty_lots_max=market.qty_lots_max,
            notional_max=market.notional_max,
            orders_max=market.orders_max,
            dynamic_band_ppm=market.dynamic_band_ppm,
            static_band_ppm=market.static_band_ppm,
        )

    def account_of_key(self, public_key: bytes) -> int | None:
        """The account the key belongs to, or None."""
        key = self._state.key(public_key)
        return None if key is None else key.account_id

    def report_seq(self, account_id: int) -> int:
        """Number of the account's last report; 0 if it has none or is not open."""
        account = self._state.accounts.get(account_id)
        return 0 if account is None else account.report_seq

    def balances(self, account_id: int) -> list[Balance]:
        """By ascending asset id; empty if the account is not open."""
        account = self._state.accounts.get(account_id)
        return [
            Balance(asset_id=asset_id, available=balance.available, held=balance.held)
            for asset_id, balance in sorted(account.balances.items() if account else ())
        ]

    def open_orders(
        self, account_id: int, market_id: int, after_order_id: int, limit: int
    ) -> list[OpenOrder]:
        """At most `limit` open orders with a larger id, ascending; of all markets if `market_id` is 0."""
        account = self._state.accounts.get(account_id)
        orders = sorted(account.orders.values() if account else (), key=lambda order: order.order_id)
        return [
            OpenOrder(
                order_id=order.order_id,
                client_order_id=order.client_order_id,
                price_ticks=order.price_ticks,
                qty_lots=order.qty_lots,
                leaves_lots=order.leaves_lots,
                priority_no=order.priority_no,
                market_id=order.market_id,
                side=order.side,
                order_type=order.order_type,
                time_in_force=order.time_in_force,
                trigger=order.trigger,
                display_qty_lots=order.display_lots,
                trigger_ticks=order.trigger_ticks,
                expire_time_ns=order.expire_time_ns,
                options=_options(order),
            )
            for order in orders
            if order.order_id > after_order_id and market_id in (0, order.market_id)
        ][:limit]

    def order_terms(self, order_id: int) -> OrderTerms:
        """What `open_orders` does not say of an order; nothing if it is not open."""
        order = next((one for one in self._state.open_orders() if one.order_id == order_id), None)
        if order is None:
            return OrderTerms()
        if not order.is_waiting:
            return OrderTerms(pair_order_id=order.pair_id)
        return OrderTerms(
            pair_order_id=order.pair_id,
            trail_ticks=order.trail_ticks,
            trail_ppm=order.trail_ppm,
            self_trade_prevention=order.self_trade_prevention,
        )

    def counts(self) -> Counts:
        """How full the pools are."""
        state = self._state
        return Counts(
            open_orders=len(state.open_orders()),
            accounts=len(state.accounts),
            keys=len(state.keys),
            balances=state.balance_count(),
        )

    def assets(self, first: int, limit: int) -> list[AssetDefinition]:
        """See `MatchingEngine.assets`."""
        return [
            AssetDefinition(
                symbol=encode_symbol(asset.symbol), asset_id=asset.asset_id, decimals=asset.decimals
            )
            for asset in itertools.islice(self._state.assets.values(), first, first + limit)
        ]

    def markets(self, since_record_no: int, first: int, limit: int) -> tuple[list[MarketDefinition], int]:
        """See `MatchingEngine.markets`."""
        found: list[MarketDefinition] = []
        for position, market in enumerate(self._state.markets.values()):
            if position < first:
                continue
            if len(found) == limit:
                return found, position
            if market.defined_record_no >= since_record_no:
                found.append(_definition(market))
        return found, 0

    def supply(self, asset_id: int) -> int:
        """Deposits less withdrawals, in base units. Raises KeyError when there is no such asset."""
        return self._state.supply[asset_id]

    def check(self) -> None:
        """Walks every standing truth. Raises InvariantBroken."""
        check_state(self._state)


def _definition(market: Market) -> MarketDefinition:
    one = market.definition
    return MarketDefinition(
        symbol=encode_symbol(one.symbol),
        base_units_per_lot=one.base_units_per_lot,
        quote_units_per_tick_lot=one.quote_units_per_tick_lot,
        defined_record_no=market.defined_record_no,
        market_id=one.market_id,
        base_asset_id=one.base_asset_id,
        quote_asset_id=one.quote_asset_id,
        maker_fee_ppm=one.maker_fee_ppm,
        taker_fee_ppm=one.taker_fee_ppm,
        sizes_no=one.sizes_no,
    )


def _messages(body: bytes) -> Iterator[tuple[Record, int]]:
    """The frames of a body, decoded one by one, each with the offset behind it.

    Raises MalformedFrame when it comes to a bad one.
    """
    offset = 0
    while offset < len(body):
        end = offset + int.from_bytes(body[offset : offset + 4], "big")
        if end < offset + FRAME_HEADER_BYTES or end > len(body):
            raise MalformedFrame(offset, "its length is impossible")
        try:
            message = decode(body[offset:end])
        except WireError as error:
            raise MalformedFrame(offset, str(error)) from error
        if not isinstance(message, SignedBatch | OperatorBatch | EpochOpen | TimePassed):
            raise MalformedFrame(offset, f"{type(message).__name__} is not a record of the log")
        yield message, end
        offset = end


def _use_nonce(key: Key, nonce: int) -> None:
    key.highest_nonce = max(key.highest_nonce, nonce)
    lowest_kept = key.highest_nonce - limits.NONCE_WINDOW + 1
    key.used_nonces = {used for used in key.used_nonces | {nonce} if used >= lowest_kept}


def _options(order: Order) -> OrderOptions:
    """The options that an open order still has."""
    options = OrderOptions(0)
    if order.is_hidden:
        options |= OrderOptions.HIDDEN
    if order.on_reference:
        options |= OrderOptions.ON_REFERENCE
    if order.pair_id:
        options |= OrderOptions.OCO_WITH_PREVIOUS
    return options


def _levels(queue: list[Order], levels: int) -> list[Level]:
    """What is shown of orders in priority order, summed by price."""
    result: list[Level] = []
    skipped = 0
    for price_ticks, orders in itertools.groupby(queue, key=lambda order: order.price_ticks):
        if len(result) == levels or skipped > limits.DEPTH_SKIPPED_MAX:
            break
        lots = [order.visible_lots for order in orders if not order.is_hidden]
        if lots:
            result.append(Level(price_ticks=price_ticks, qty_lots=sum(lots), orders=len(lots)))
        else:
            skipped += 1
    return result
