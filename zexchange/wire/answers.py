"""Which report answers which command, where reports alone do not say it. Pure.

Reports name the nonce of the batch that caused them, and nonces count per key, but reports go to every session of the
account and do not name the key. So when two keys of an account use the same nonce at the same time, each hears what
became of the other's batch too. What a report repeats of its order tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from zexchange.wire.messages import Command, CommandKind, ExecType, ExecutionReport, OrderOptions

_SAME = ("market_id", "side", "qty_lots", "client_order_id")
"""What a report repeats of a new order."""


def answers(command: Command, before: Sequence[ExecutionReport], report: ExecutionReport) -> bool:
    """Can `report` be about `command`, going by what it says of the order? `before` are those that are."""
    if command.kind is CommandKind.CANCEL_ALL:
        return True
    if before:
        return report.order_id == before[0].order_id
    if command.kind is CommandKind.NEW:
        # Otherwise the exchange has chosen the price.
        keeps_price = report.exec_type is not ExecType.NEW or (
            OrderOptions.SLIDE not in command.options and command.price_ticks != 0
        )
        names = (*_SAME, "price_ticks") if keeps_price else _SAME
        return report.exec_type in (ExecType.NEW, ExecType.REJECTED) and all(
            getattr(report, name) == getattr(command, name) for name in names
        )
    if command.order_id:
        return report.order_id == command.order_id
    return report.client_order_id == command.client_order_id
