"""Orders with all their terms: what a report says, what the engine knows, and what was asked for. Pure."""

from __future__ import annotations

from typing import Protocol

import msgspec

from webapp.entered import EnteredOrders
from webapp.views import OrderView, Views
from zexchange.engine import Engine
from zexchange.wire.messages import ExecutionReport, OpenOrder


class Known(Protocol):
    """The follower."""

    @property
    def entered(self) -> EnteredOrders: ...

    def engine(self, shard: int) -> Engine: ...


class Orders:
    """Makes what is sent about orders."""

    def __init__(self, views: Views, known: Known) -> None:
        self._views = views
        self._known = known

    def opened(self, account_id: int, shard: int, one: OpenOrder) -> OrderView:
        """An open order as it is now."""
        terms = self._known.engine(shard).order_terms(one.order_id)
        entered = self._known.entered.command(account_id, shard, one.order_id)
        return self._views.open_order(one, terms, entered)

    def reported(self, report: ExecutionReport) -> OrderView | None:
        """As the report says, with the terms that it was entered with; None if it is about no order."""
        seq = report.order_id or report.seq
        return self._views.order(report, self._known.entered.command(report.account_id, report.shard, seq))

    def updated(self, report: ExecutionReport) -> OrderView | None:
        """As the report says; an order that is open with its terms of now."""
        told = self.reported(report)
        if told is None or told.status != "open":
            return told
        engine = self._known.engine(report.shard)
        found = engine.open_orders(report.account_id, report.market_id, report.order_id - 1, 1)
        if not found or found[0].order_id != report.order_id:
            return told
        opened = self.opened(report.account_id, report.shard, found[0])
        return msgspec.structs.replace(
            opened, reason=told.reason, time=told.time, record_no=told.record_no, seq=told.seq
        )
