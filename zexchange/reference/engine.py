"""The reference engine: a record after the other (docs/rules.md section 3), and what can be asked of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Self

from zexchange import limits
from zexchange.engine_types import Applied, Counts, Depth, InvariantBroken, MalformedFrame, SnapshotInvalid
from zexchange.genesis import Genesis
from zexchange.reference import encoding
from zexchange.reference.check import check_state
from zexchange.reference.operator_commands import OperatorRules
from zexchange.reference.orders import OrderRules
from zexchange.reference.reports import CommandContext, Rejection, Reporter, rejected_fields
from zexchange.reference.state import Key, Order, Outcome, State, genesis_state
from zexchange.wire.messages import (
    FRAME_HEADER_BYTES,
    Balance,
    Command,
    EpochOpen,
    ExecType,
    Level,
    OpenOrder,
    OperatorBatch,
    OperatorCommand,
    ReasonCode,
    ReportFlags,
    SignedBatch,
    WireError,
    decode,
)

__all__ = ["ReferenceEngine"]

Batch = SignedBatch | OperatorBatch


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
        self._orders = OrderRules(state, self._reporter)
        self._operator = OperatorRules(state, self._reporter)

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
            if not isinstance(message, EpochOpen):
                self._apply_batch(message)
            self._state.next_record_no += 1
            consumed_bytes = end
        return Applied(
            consumed_bytes=consumed_bytes,
            records=self._state.next_record_no - first_record_no,
            commands=self._state.next_seq - first_seq,
            events=self._reporter.take_events(),
        )

    def _has_room(self, message: Batch | EpochOpen) -> bool:
        """Whether the worst that a frame can cause fits behind the events that are there already."""
        if isinstance(message, EpochOpen):
            return True
        worst = len(message.commands) * limits.REPORTS_PER_COMMAND_MAX * limits.EXECUTION_REPORT_BYTES
        return self._reporter.events_bytes + worst <= limits.EVENTS_BYTES_MAX

    def _apply_batch(self, batch: Batch) -> None:
        key = self._state.key(batch.public_key)
        reason = self._batch_refusal(batch, key)
        if reason is not None:
            self._refuse_batch(batch, key, reason)
            return
        assert key is not None, "an unknown key is a refusal"
        if (key.key_index, batch.nonce) in self._state.cached_batches:
            self._repeat_outcomes(key, batch.nonce)
            return
        _use_nonce(key, batch.nonce)
        commands: Sequence[Command | OperatorCommand] = batch.commands
        outcomes = [
            self._apply_command(self._context(batch, key, index), command)
            for index, command in enumerate(commands)
        ]
        self._cache_outcomes(key, batch.nonce, outcomes)

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
        """Applies one command and returns its answer."""
        try:
            if isinstance(command, OperatorCommand):
                return self._operator.apply(context, command)
            return self._orders.apply(context, command)
        except Rejection as rejection:
            return self._reporter.reject(context, command, rejection.reason)

    # ------------------------------------------------------------------ state, queries

    def state_root(self) -> bytes:
        """32 bytes (formats.md section 3). RuntimeError when made with `track_state=False`."""
        if not self._track_state:
            raise RuntimeError("this engine was made without a state tree")
        return encoding.state_root(self._state)

    def snapshot(self) -> bytes:
        """The canonical engine snapshot (formats.md section 4)."""
        return encoding.encode_snapshot(self._state)

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
        return Depth(
            state=market.state, bids=_levels(market.buys, levels), asks=_levels(market.sells, levels)
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
                priority_seq=order.priority_seq,
                market_id=order.market_id,
                side=order.side,
            )
            for order in orders
            if order.order_id > after_order_id and market_id in (0, order.market_id)
        ][:limit]

    def counts(self) -> Counts:
        """How full the pools are."""
        state = self._state
        return Counts(
            open_orders=len(state.open_orders()),
            accounts=len(state.accounts),
            keys=len(state.keys),
            balances=state.balance_count(),
        )

    def supply(self, asset_id: int) -> int:
        """Deposits less withdrawals, in base units. Raises KeyError when there is no such asset."""
        return self._state.supply[asset_id]

    def check(self) -> None:
        """Walks every standing truth. Raises InvariantBroken."""
        check_state(self._state)


def _messages(body: bytes) -> Iterator[tuple[Batch | EpochOpen, int]]:
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
        if not isinstance(message, SignedBatch | OperatorBatch | EpochOpen):
            raise MalformedFrame(offset, f"{type(message).__name__} is not a record of the log")
        yield message, end
        offset = end


def _use_nonce(key: Key, nonce: int) -> None:
    key.highest_nonce = max(key.highest_nonce, nonce)
    lowest_kept = key.highest_nonce - limits.NONCE_WINDOW + 1
    key.used_nonces = {used for used in key.used_nonces | {nonce} if used >= lowest_kept}


def _levels(queue: list[Order], levels: int) -> list[Level]:
    """Orders in priority order, summed by price."""
    grouped = itertools.groupby(queue, key=lambda order: order.price_ticks)
    result = []
    for price_ticks, orders in itertools.islice(grouped, levels):
        open_lots = [order.leaves_lots for order in orders]
        result.append(Level(price_ticks=price_ticks, qty_lots=sum(open_lots), orders=len(open_lots)))
    return result
