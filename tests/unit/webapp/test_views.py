"""What is sent about balances, which an account has on every shard."""

from __future__ import annotations

from tests.model import kit
from webapp.views import ShardBalanceView, Views
from zexchange.definitions import Definitions
from zexchange.wire.messages import Balance


def test_balances_are_summed_and_told_by_shard() -> None:
    genesis = kit.small_genesis()
    views = Views(genesis, Definitions(genesis))
    first = [
        Balance(asset_id=1, available=5, held=1),
        Balance(asset_id=2, available=9, held=0),
        Balance(asset_id=77, available=1, held=0),  # another shard has its symbol for another asset
    ]
    usd, btc = views.balances({0: first, 1: [Balance(asset_id=1, available=7, held=0)]})
    assert (usd.total, usd.held, usd.available) == ("13", "1", "12")
    assert usd.shards == [
        ShardBalanceView(shard=0, held="1", available="5"),
        ShardBalanceView(shard=1, held="0", available="7"),
    ]
    assert (btc.asset_id, btc.total) == (2, "9")
    assert [one.shard for one in btc.shards] == [0]
