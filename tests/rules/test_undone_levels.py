"""What a refused all-or-nothing batch did to levels outside the window of a book is undone."""

from __future__ import annotations

from tests.model.kit import cancel, engine_named, funded_shard, order
from tests.rules.names import ALICE, SELL
from zexchange.wire.messages import BatchFlags


def test_a_level_that_took_the_place_of_another_in_the_tree_goes_back() -> None:
    shard = funded_shard(engine_named("c"), max_orders=64, amount=10**12)
    shard.reports(ALICE, *[order(SELL, 1, 100_000 + at) for at in range(10)])  # all in the window
    root, left, right, heir = 90_000, 80_000, 120_000, 110_000  # outside of it, on both sides
    ids = {}
    for price_ticks in (root, left, right, heir):
        [report] = shard.reports(ALICE, order(SELL, 1, price_ticks))
        ids[price_ticks] = report.order_id
    shard.reports(ALICE, cancel(ids[root]), cancel(999_999), flags=BatchFlags.ALL_OR_NOTHING)
    shard.engine.check()
    [report] = shard.reports(ALICE, order(SELL, 1, 115_000))
    assert report.leaves_lots == 1
