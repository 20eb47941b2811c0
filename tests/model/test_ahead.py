"""A shard so wide that the C engine fetches ahead what the next commands of a batch need: it decides nothing."""

from __future__ import annotations

from random import Random

from tests.model import kit
from tests.model.duel import Duel
from zexchange.genesis import EngineLimits, MarketSpec
from zexchange.wire.messages import Command, ExecType, ReasonCode, Side

MARKETS = 300  # it begins with more than 256
TRADERS = (1, 2)
WILD = (0, -1, 2**53, 2**63 - 1, 1 - 2**63, -(2**63))


def test_batches_on_a_wide_shard() -> None:
    genesis = kit.small_genesis(
        markets=[
            MarketSpec(
                id=number,
                symbol=f"M{number}",
                base="BTC",
                quote="USD",
                tick_size="1",
                lot_size="1",
                taker_fee_ppm=500,
            )
            for number in range(1, MARKETS + 1)
        ],
        engine_limits=EngineLimits(
            max_accounts=8, max_keys=8, max_balances=32, max_orders=2_000, max_outcomes=256
        ),
    )
    duel, random = Duel(genesis), Random(17)
    now_ns, nonce = kit.START_NS, 1
    for trader in TRADERS:
        commands = [
            kit.open_account(kit.public_key(trader), trader),
            kit.deposit(trader, 1, 10**9),
            kit.deposit(trader, 2, 10**9),
        ]
        nonce, now_ns = nonce + 1, now_ns + 1_000
        duel.apply(kit.batch(kit.OPERATOR_KEY, nonce, commands), now_ns)
    # Per trader: orders that were open at some time, by id, and client order ids.
    seen: dict[int, list[int]] = {trader: [] for trader in TRADERS}

    def command(trader: int, number: int) -> Command:
        named = random.choice(seen[trader]) if seen[trader] else 0
        kind = random.randrange(10)
        if kind < 5 or not named:
            return kit.order(
                random.choice((Side.BUY, Side.SELL)),
                random.randrange(1, 5),
                # What is fetched ahead is fetched before anybody has looked at the price.
                random.choice(WILD) if random.randrange(4) == 0 else random.randrange(95, 106),
                # Some markets are busy and have several levels, most have none, and some are not there.
                market_id=random.choice((1, 2, 3, random.randrange(1, MARKETS + 3))),
                client_order_id=random.choice((0, 1 + number % 50)),
            )
        if kind < 7:
            return kit.cancel(named)
        if kind < 9:
            return kit.amend(named, price_ticks=random.randrange(95, 106), qty_lots=random.randrange(1, 9))
        return kit.cancel(client_order_id=1 + random.randrange(50))

    for number in range(60):
        trader = random.choice(TRADERS)
        commands = [
            command(trader, number * 64 + index) for index in range(random.choice((1, 5, 9, 13, 64, 64)))
        ]
        nonce, now_ns = nonce + 1, now_ns + 1_000
        reports = duel.apply(kit.batch(kit.public_key(trader), nonce, commands), now_ns)
        for report in reports:
            if report.exec_type is ExecType.NEW and report.reason is ReasonCode.NONE:
                seen[report.account_id].append(report.order_id)
    assert {ExecType.NEW, ExecType.TRADE, ExecType.REPLACED, ExecType.CANCELLED} <= set(duel.exec_types)
    assert duel.subject.counts().open_orders > 100
