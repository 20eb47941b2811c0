"""Short names that keep the scenarios readable."""

from __future__ import annotations

from collections.abc import Callable

from tests.model.kit import Shard
from zexchange.wire.messages import Side, TimeInForce

BUY, SELL = Side.BUY, Side.SELL
IOC, FOK = TimeInForce.IOC, TimeInForce.FOK
USD, BTC, ETH = 1, 2, 3
ALICE, BOB, CAROL = 1, 2, 3
BIG = 10_000_000

NewShard = Callable[..., Shard]
