"""What happens by itself (docs/rules.md section 7): orders expire, and waiting orders are triggered."""

from __future__ import annotations

from zexchange import limits
from zexchange.reference.amounts import PPM, ceil_div
from zexchange.reference.matching import Matching
from zexchange.reference.reports import CommandContext, Reporter
from zexchange.reference.state import Market, Order, State
from zexchange.wire.messages import (
    ExecType,
    MarketState,
    OrderType,
    ReasonCode,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Trigger,
)

__all__ = ["Triggers", "is_met", "remainder_reason", "stays_open"]


class Triggers:
    """Orders that wait, and what time and prices do to them."""

    def __init__(self, state: State, reporter: Reporter, matching: Matching) -> None:
        self._state = state
        self._reporter = reporter
        self._matching = matching

    # ------------------------------------------------------------------ time

    def expire(self, context: CommandContext) -> None:
        """Ends the orders whose time is over, those that were due first before the others, up to the limit."""
        for _ in range(limits.EXPIRIES_PER_RECORD_MAX):
            overdue = [order for order in self._state.open_orders() if self._matching.is_overdue(order)]
            if not overdue:
                return
            first = min(overdue, key=lambda order: (order.expire_time_ns, order.order_id))
            self._matching.end_resting(context, first, ReasonCode.ORDER_EXPIRED, ExecType.EXPIRED)

    # ------------------------------------------------------------------ waiting

    def wait(self, market: Market, order: Order) -> None:
        """An order that has a slot begins to wait, at the end of those with the same trigger price."""
        market.waiting.append(order)
        market.waiting.sort(key=lambda waiting: waiting.order_id)
        if order.trigger is Trigger.TRAILING:
            self._follow(order, market.trigger_price_ticks(order.on_reference))
        else:
            order.priority_no = self._state.take_priority_no()

    def follow_price(self, market: Market, *, on_reference: bool) -> int:
        """Trailing orders move their trigger prices after the price that they follow, oldest first.

        Returns for how many it is the best price so far.
        """
        price_ticks, followed = market.trigger_price_ticks(on_reference), 0
        for order in market.waiting:
            if order.trigger is Trigger.TRAILING and order.on_reference is on_reference:
                best_before = order.best_ticks
                self._follow(order, price_ticks)
                followed += order.best_ticks != best_before
        return followed

    def follow_anew(self, order: Order) -> None:
        """The distance of a trailing order has changed."""
        best_ticks, order.best_ticks, order.trigger_ticks = order.best_ticks, 0, 0
        self._follow(order, best_ticks)

    def _follow(self, order: Order, price_ticks: int) -> None:
        """If the price is the best so far the trigger price moves, and the order to the back of its like."""
        is_sell = order.side is Side.SELL
        if price_ticks == 0:
            order.priority_no = 0
            return
        if order.best_ticks and (
            price_ticks <= order.best_ticks if is_sell else price_ticks >= order.best_ticks
        ):
            return
        order.best_ticks = price_ticks
        distance_ticks = order.trail_ticks or ceil_div(price_ticks * order.trail_ppm, PPM)
        trigger_ticks = price_ticks - distance_ticks if is_sell else price_ticks + distance_ticks
        if not 1 <= trigger_ticks <= limits.PRICE_TICKS_MAX:
            order.trigger_ticks = order.priority_no = 0  # no such price: it waits for a better one
        elif trigger_ticks != order.trigger_ticks:
            order.trigger_ticks = trigger_ticks
            order.priority_no = self._state.take_priority_no()

    # ------------------------------------------------------------------ triggering

    def is_anything_due(self) -> bool:
        """Whether the limits kept a waiting order from being triggered."""
        return any(
            market.state is MarketState.CONTINUOUS and _next_due(market) is not None
            for market in self._state.markets.values()
        )

    def run(self, context: CommandContext) -> None:
        """Triggers what is due, first by market, in a loop until nothing more is, up to the limits."""
        triggered = touched = 0  # makers and trailing orders
        for market in self._state.markets.values():
            while market.state is MarketState.CONTINUOUS:
                order = _next_due(market)
                if order is None:
                    break
                if triggered == limits.TRIGGERED_PER_COMMAND_MAX or touched >= limits.MAKERS_PER_COMMAND_MAX:
                    return
                touched += self._trigger(context, market, order)
                triggered += 1

    def _trigger(self, context: CommandContext, market: Market, order: Order) -> int:
        """The order comes to the book, or ends if it is past its time. Returns how many orders it touched.

        Those are resting ones that it used, and trailing ones for which its last trade is the best price so far.
        """
        if self._matching.is_overdue(order):
            self._matching.end_resting(context, order, ReasonCode.ORDER_EXPIRED, ExecType.EXPIRED)
            return 0
        market.waiting.remove(order)
        order_type, order.order_type = order.order_type, OrderType.LIMIT
        order.trigger, order.on_reference, order.trigger_ticks = Trigger.NONE, False, 0
        order.trail_ticks = order.trail_ppm = order.best_ticks = order.priority_no = 0
        self._reporter.report_order(context, order, ExecType.TRIGGERED)
        self._matching.end_pair(context, order)
        touched = 0
        fillable_lots = order.leaves_lots
        if order.time_in_force is TimeInForce.FOK:
            fillable_lots = self._matching.reachable_lots(market, order, order.leaves_lots)
        if fillable_lots < order.leaves_lots:
            self._matching.end_taker(context, order, ReasonCode.FOK_NOT_FILLABLE)
        else:
            traded_before = self._state.next_trade_id
            touched = self._matching.match(context, market, order)
            if self._state.next_trade_id > traded_before:
                touched += self.follow_price(market, on_reference=False)
        if order.leaves_lots and order_type is OrderType.LIMIT and stays_open(order.time_in_force):
            order.self_trade_prevention = SelfTradePrevention.NONE
            self._matching.enqueue(market, order)
        else:
            if order.leaves_lots:
                self._matching.end_taker(context, order, remainder_reason(market))
            self._state.free_slot(order)
        return touched


def stays_open(time_in_force: TimeInForce) -> bool:
    """Whether what is not filled at once rests."""
    return time_in_force not in (TimeInForce.IOC, TimeInForce.FOK)


def remainder_reason(market: Market) -> ReasonCode:
    """Why what is left of an order that does not stay open ends."""
    is_interrupted = market.state is MarketState.AUCTION
    return ReasonCode.PRICE_BAND if is_interrupted else ReasonCode.IMMEDIATE_REMAINDER


def is_met(order: Order, price_ticks: int) -> bool:
    """Whether what the order waits for is there; not while there is no price, or no trigger price."""
    if price_ticks == 0 or order.trigger_ticks == 0:
        return False
    if order.triggers_upwards:
        return price_ticks >= order.trigger_ticks
    return price_ticks <= order.trigger_ticks


def _next_due(market: Market) -> Order | None:
    """The waiting order that comes first of those that are due.

    Those that wait for trades before those that wait for the reference price; those for a rising price first,
    lowest trigger price first, then those for a falling one, highest first; then first come.
    """
    due = [order for order in market.waiting if is_met(order, market.trigger_price_ticks(order.on_reference))]
    return min(
        due,
        key=lambda order: (
            order.on_reference,
            not order.triggers_upwards,
            order.trigger_ticks if order.triggers_upwards else -order.trigger_ticks,
            order.priority_no,
        ),
        default=None,
    )
