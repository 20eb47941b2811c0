"""The table of market states, and the price of an auction, against the plainest reading of the rule book."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from random import Random

import pytest

from tests.model.kit import Shard, market_state, order, reference_price
from tests.rules.names import ALICE, BOB, BUY, CAROL, SELL, NewShard
from zexchange.wire.messages import ExecType, MarketState, ReasonCode, TimeInForce

RULES = Path(__file__).parents[2] / "docs" / "rules.md"
PATHS = {
    "closed": ("closed",),
    "pre-open": ("closed", "pre-open"),
    "auction": ("auction",),
    "continuous": ("continuous",),
    "closing auction": ("closing auction",),
    "halted": ("halted",),
    "post-only": ("post-only",),
    "expired": ("closed", "expired"),
}
"""How a market that is continuous comes to each state."""


def state_called(name: str) -> MarketState:
    return MarketState[name.upper().replace("-", "_").replace(" ", "_")]


def table() -> dict[str, dict[str, str]]:
    """The states of section 8: by name the columns `takes`, `trades` and `goes`."""
    rows = re.findall(r"^\| ([a-z -]+) \| (.*) \| (.*) \| (.*) \|$", RULES.read_text(encoding="utf-8"), re.M)
    return {
        name: {"takes": takes, "trades": trades, "goes": goes}
        for name, takes, trades, goes in rows
        if name in PATHS or name == "uncrossing"
    }


def test_every_state_is_in_the_table() -> None:
    states = {state_called(name) for name in table()}
    assert states == set(MarketState) - {MarketState.NONE}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(PATHS, PATHS)))
def test_a_market_goes_where_the_table_lets_it(new_shard: NewShard, before: str, after: str) -> None:
    shard = new_shard()
    for name in PATHS[before]:
        shard.operator(market_state(1, state_called(name)))
    assert shard.engine.depth(1, 0).state is state_called(before)
    answers = shard.operator(market_state(1, state_called(after)))
    allowed = table()[before]["goes"].split(", ")
    if after in allowed or after == before:
        assert shard.engine.depth(1, 0).state is state_called(after)
    else:
        assert answers[0].endswith("because market_transition_illegal")
        assert shard.engine.depth(1, 0).state is state_called(before)


@pytest.mark.parametrize("name", PATHS)
def test_a_market_takes_the_orders_for_auctions_of_the_table(new_shard: NewShard, name: str) -> None:
    """At the open and at the close, as the rows say, by themselves or by the row that they refer to."""
    shard = new_shard()
    for one in PATHS[name]:
        shard.operator(market_state(1, state_called(one)))
    taken = set()
    for tif in (TimeInForce.AT_THE_OPEN, TimeInForce.AT_THE_CLOSE):
        (report,) = shard.reports(ALICE, order(BUY, 1, 50, tif=tif))
        if report.exec_type is ExecType.NEW:
            taken.add(tif)
        else:
            closed = {
                "closed": ReasonCode.MARKET_CLOSED,
                "halted": ReasonCode.MARKET_HALTED,
                "expired": ReasonCode.MARKET_EXPIRED,
            }
            assert report.reason is closed.get(name, ReasonCode.NOT_IN_AUCTION)
    text = table()[name]["takes"]
    if text.startswith("as pre-open"):
        text = text.replace("as pre-open", table()["pre-open"]["takes"])
    expected = set()
    if ("at the open" in text and "none at the open" not in text) and "but those at the open" not in text:
        expected.add(TimeInForce.AT_THE_OPEN)
    if "at the close" in text or "all but" in text:
        expected.add(TimeInForce.AT_THE_CLOSE)
    assert taken == expected


def best_price(
    bids: list[tuple[int, int]], asks: list[tuple[int, int]], centre: int
) -> tuple[int, int] | None:
    """Every price is tried: most is traded, then least is left, then nearest to the centre, then lowest."""
    ranks = []
    for price in range(1, 60):
        wanted = sum(qty for limit, qty in bids if limit >= price)
        offered = sum(qty for limit, qty in asks if limit <= price)
        ranks.append((-min(wanted, offered), abs(wanted - offered), abs(price - centre), price))
    best = min(ranks)
    return None if best[0] == 0 else (best[3], -best[0])


@pytest.mark.parametrize("seed", range(40))
def test_the_price_of_an_auction_is_the_best_of_all_prices(new_shard: NewShard, seed: int) -> None:
    random = Random(seed)
    shard: Shard = new_shard()
    centre = 0
    if random.random() < 0.7:
        centre = random.randint(1, 59)
        shard.operator(reference_price(1, centre))
    if random.random() < 0.5:
        centre = random.randint(1, 59)
        shard.reports(CAROL, order(SELL, 1, centre))
        shard.reports(ALICE, order(BUY, 1, centre))
    shard.operator(market_state(1, MarketState.AUCTION))
    bids: list[tuple[int, int]] = []
    asks: list[tuple[int, int]] = []
    for _ in range(random.randint(2, 9)):
        low = random.randint(5, 45)
        for side, account, orders in ((BUY, ALICE, bids), (SELL, BOB, asks)):
            price, qty = random.randint(low, low + 12), random.randint(1, 4)
            display = 1 if random.random() < 0.2 else 0
            (report,) = shard.reports(account, order(side, qty, price, display_qty_lots=display))
            assert report.exec_type is ExecType.NEW
            orders.append((price, qty))
        depth = shard.engine.depth(1, 50)
        found = (depth.indicative_price_ticks, depth.indicative_qty_lots)
        assert (found if found[0] else None) == best_price(bids, asks, centre)
    shard.operator(market_state(1, MarketState.CONTINUOUS))
    left_bids, left_asks = shard.book()
    assert not (left_bids and left_asks) or left_bids[0][0] < left_asks[0][0]
