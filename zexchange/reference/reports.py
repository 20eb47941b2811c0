"""Reports and outcomes (docs/rules.md sections 3 and 4): how a command is answered."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from zexchange import limits
from zexchange.reference.state import Key, Order, Outcome, State
from zexchange.wire.messages import Command, ExecType, ExecutionReport, OperatorCommand, ReasonCode

__all__ = ["CommandContext", "Rejection", "Reporter", "rejected_fields"]


class Rejection(Exception):
    """A command is refused: nothing was changed by it."""

    def __init__(self, reason: ReasonCode) -> None:
        super().__init__(reason.name)
        self.reason = reason


class CommandContext(Struct, frozen=True, kw_only=True):
    """What every report caused by one command has in common."""

    record_no: int
    seq: int
    nonce: int
    command_index: int
    account_id: int
    """The sender's account; `limits.ACCOUNT_NONE` of what nobody sent."""
    key: Key | None
    """The sender's key."""


class Reporter:
    """Numbers the reports of each account and collects the event blocks of the records being applied."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._events: list[bytes] = []

    @property
    def events_bytes(self) -> int:
        """Length of what `take_events` would return."""
        return len(self._events) * limits.EXECUTION_REPORT_BYTES

    def take_events(self) -> bytes:
        """The event blocks since the last call, concatenated."""
        events, self._events = self._events, []
        return b"".join(events)

    def drop_events(self, events_bytes: int) -> None:
        """Keeps only the first so many bytes of what `take_events` would return."""
        del self._events[events_bytes // limits.EXECUTION_REPORT_BYTES :]

    def emit(self, **fields: Any) -> None:
        report = ExecutionReport(shard=self._state.shard, log_time_ns=self._state.log_time_ns, **fields)
        self._events.append(report.encode_block())

    def report(self, context: CommandContext, account_id: int, exec_type: ExecType, **fields: Any) -> int:
        """Emits the next report of an account and returns its number."""
        account = self._state.accounts[account_id]
        account.report_seq += 1
        self.emit(
            account_id=account_id,
            report_seq=account.report_seq,
            seq=context.seq,
            record_no=context.record_no,
            nonce=context.nonce if account_id == context.account_id else 0,
            command_index=context.command_index,
            exec_type=exec_type,
            **fields,
        )
        return account.report_seq

    def reject(
        self, context: CommandContext, command: Command | OperatorCommand, reason: ReasonCode
    ) -> Outcome:
        """Answers a command that changed nothing."""
        fields = rejected_fields(command)
        report_seq = self.report(context, context.account_id, ExecType.REJECTED, reason=reason, **fields)
        named_id = fields["target_account_id"] if isinstance(command, OperatorCommand) else fields["order_id"]
        return self.outcome(
            context,
            report_seq,
            ExecType.REJECTED,
            order_id=named_id,
            client_order_id=fields.get("client_order_id", 0),
            market_id=fields["market_id"],
            reason=reason,
        )

    def report_order(self, context: CommandContext, order: Order, exec_type: ExecType, **fields: Any) -> int:
        return self.report(
            context,
            order.account_id,
            exec_type,
            order_id=order.order_id,
            client_order_id=order.client_order_id,
            market_id=order.market_id,
            side=order.side,
            price_ticks=order.price_ticks,
            qty_lots=order.qty_lots,
            leaves_lots=order.leaves_lots,
            cum_qty_lots=order.cum_qty_lots,
            sizes_no=self._state.markets[order.market_id].definition.sizes_no % 256,
            **fields,
        )

    def outcome(
        self, context: CommandContext, report_seq: int, exec_type: ExecType, **fields: Any
    ) -> Outcome:
        values: dict[str, Any] = {
            "order_id": 0,
            "client_order_id": 0,
            "leaves_lots": 0,
            "cum_qty_lots": 0,
            "market_id": 0,
            "reason": ReasonCode.NONE,
        }
        assert context.key is not None, "what nobody sent is no answer"
        return Outcome(
            key_index=context.key.key_index,
            nonce=context.nonce,
            seq=context.seq,
            record_no=context.record_no,
            report_seq=report_seq,
            exec_type=exec_type,
            command_index=context.command_index,
            **(values | fields),
        )

    def order_outcome(
        self,
        context: CommandContext,
        report_seq: int,
        exec_type: ExecType,
        order: Order,
        reason: ReasonCode = ReasonCode.NONE,
    ) -> Outcome:
        """The answer to a command about an order, with the order as it is after the command."""
        return self.outcome(
            context,
            report_seq,
            exec_type,
            order_id=order.order_id,
            client_order_id=order.client_order_id,
            market_id=order.market_id,
            leaves_lots=order.leaves_lots,
            cum_qty_lots=order.cum_qty_lots,
            reason=reason,
        )


def rejected_fields(command: Command | OperatorCommand) -> dict[str, Any]:
    """What a rejection repeats of the command. Fields that its kind does not use are zero."""
    if isinstance(command, OperatorCommand):
        return {
            "target_account_id": command.account_id,
            "amount": command.amount,
            "asset_id": command.asset_id,
            "market_id": command.market_id,
            "market_state": command.market_state,
        }
    return {
        "order_id": command.order_id,
        "client_order_id": command.client_order_id,
        "market_id": command.market_id,
        "sizes_no": command.sizes_no,
        "side": command.side,
        "price_ticks": command.price_ticks,
        "qty_lots": command.qty_lots,
    }
