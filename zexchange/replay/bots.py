"""Traders with play money, so that a demo has a market: one makes it, one takes from it. Pure.

The middle of each market is a random walk. The maker quotes levels around it and replaces the oldest on each step; the
taker sends immediate orders that cross the spread.
"""

from __future__ import annotations

import math
import random
from collections import deque
from decimal import Decimal

from zexchange.client import CancelOrder, Command, NewOrder
from zexchange.genesis import Market

_START_PRICES = {"BTC": Decimal(60_000), "ETH": Decimal(3_000), "AAPL": Decimal(200)}
"""In the quote asset, by base asset; anything else begins at 100."""
_START_TICKS_MIN = 500
"""So far from nothing that there are prices on both sides."""

LEVELS = 12
_VOLATILITY = 2.5e-4
"""Of one step, as a share of the price."""
_SPREAD = 1.5e-4
_NOTIONAL = 20_000
"""About what one order is worth, in the quote asset."""


def start_price(market: Market, base: str) -> Decimal:
    """Of a market in which nothing has traded yet."""
    return max(_START_PRICES.get(base, Decimal(100)), market.tick_size * _START_TICKS_MIN)


class Bots:
    """The bots of one market, from a price on. The caller numbers orders: client order ids are from `first_id` on."""

    def __init__(self, market: Market, middle: Decimal, seed: int, first_id: int) -> None:
        self.market = market
        """With the sizes of now: whoever learns of others says so."""
        self._random = random.Random(seed)
        self._middle = float(middle)
        self._resting: dict[str, deque[int]] = {"buy": deque(), "sell": deque()}
        self._next_id = first_id

    def quote(self) -> list[Command]:
        """The maker's next commands: each side loses its oldest orders and gets new ones around the middle."""
        self._middle *= math.exp(self._random.gauss(0, _VOLATILITY))
        commands: list[Command] = []
        spread = self._spread()
        for side, resting in self._resting.items():
            while len(resting) > LEVELS:
                commands.append(CancelOrder(client_order_id=resting.popleft(), market=self.market.symbol))
            for _ in range(2 if resting else LEVELS):
                away = spread / 2 + self._random.expovariate(1 / (4 * spread))
                price = self._middle * (1 - away if side == "buy" else 1 + away)
                commands.append(self._order(side, price, "gtc", post_only=True))
                resting.append(self._next_id)
                self._next_id += 1
        return commands

    def forget(self) -> None:
        """None of the maker's orders is there any more."""
        for resting in self._resting.values():
            resting.clear()

    def take(self) -> list[Command]:
        """The taker's next commands: none, or one order."""
        if self._random.random() < 0.35:
            return []
        side = "buy" if self._random.random() < 0.5 else "sell"
        price = self._middle * (1 + 6 * self._spread() if side == "buy" else 1 - 6 * self._spread())
        return [self._order(side, price, "ioc", post_only=False)]

    def _spread(self) -> float:
        """At least a tick: quotes are to stand apart where ticks are large."""
        return max(_SPREAD, float(self.market.tick_size) / self._middle)

    def _order(self, side: str, price: float, tif: str, *, post_only: bool) -> NewOrder:
        market = self.market
        ticks = max(1, round(price / float(market.tick_size)))
        lots = max(1, round(self._random.uniform(0.05, 1.5) * _NOTIONAL / price / float(market.lot_size)))
        return NewOrder(
            market=market.symbol,
            side="buy" if side == "buy" else "sell",
            quantity=market.lot_size * lots,
            price=market.tick_size * ticks,
            time_in_force="ioc" if tif == "ioc" else "gtc",
            post_only=post_only,
            client_order_id=self._next_id if post_only else None,
        )
