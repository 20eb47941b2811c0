"""What the traders of a load run send: signed ahead, from a fixed seed, with the time each order is to leave.

Orders are good-till-cancelled limit orders of one lot on both sides of one market, priced evenly within a
band around a fixed middle, so that about half of them trade when they arrive and half rest.
"""

from __future__ import annotations

import random

import msgspec
from nacl.signing import SigningKey

from zexchange.wire.messages import (
    Command,
    CommandKind,
    OrderType,
    SelfTradePrevention,
    Side,
    SignedBatch,
    TimeInForce,
)
from zexchange.wire.signing import sign_batch

MIDDLE_TICKS = 5_000_000
BAND_TICKS = 50


class PlannedOrder(msgspec.Struct, frozen=True, gc=False):
    """One signed order and when it is meant to be sent, in ns from the start of the run."""

    due_ns: int
    nonce: int
    frame: bytes


def plan(
    keys: list[SigningKey],
    deployment_id: bytes,
    *,
    market_id: int,
    shard: int,
    rate: float,
    duration_s: float,
    poisson: bool,
    first_nonce: int,
    seed: int,
) -> list[list[PlannedOrder]]:
    """One list of orders per key, each by `due_ns`: together `rate` a second for `duration_s` seconds.

    Nonces count up from `first_nonce` (microseconds): never ahead of the time of sending, so none is too new.
    """
    generator = random.Random(seed)
    plans: list[list[PlannedOrder]] = [[] for _ in keys]
    interval_ns = 1e9 / rate
    due_ns = 0.0
    index = 0
    while True:
        due_ns += generator.expovariate(1.0) * interval_ns if poisson else interval_ns
        if due_ns >= duration_s * 1e9:
            return plans
        trader = index % len(keys)
        nonce = first_nonce + index
        command = Command(
            kind=CommandKind.NEW,
            side=generator.choice((Side.BUY, Side.SELL)),
            order_type=OrderType.LIMIT,
            time_in_force=TimeInForce.GTC,
            self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
            market_id=market_id,
            price_ticks=MIDDLE_TICKS + generator.randint(-BAND_TICKS, BAND_TICKS),
            qty_lots=1,
        )
        batch = SignedBatch(nonce=nonce, shard=shard, commands=[command])
        frame = sign_batch(batch, keys[trader], deployment_id)
        plans[trader].append(PlannedOrder(due_ns=round(due_ns), nonce=nonce, frame=frame))
        index += 1
