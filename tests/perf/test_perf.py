"""The measuring tools at tiny sizes: they run, they count right, and none of their times is asserted."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from nacl.signing import SigningKey

from perf.__main__ import main
from perf.stats import percentiles
from perf.workload import plan
from zexchange.wire.messages import SignedBatch, decode
from zexchange.wire.signing import verify_batch


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, msgspec.json.decode(result.stdout)


def test_percentiles_are_by_nearest_rank() -> None:
    found = percentiles([n * 1000 for n in range(1000, 0, -1)])
    assert (found.p50_us, found.p90_us, found.p99_us, found.p999_us, found.max_us) == (
        500,
        900,
        990,
        999,
        1000,
    )
    assert percentiles([7000]).p50_us == percentiles([7000]).p999_us == 7
    with pytest.raises(ValueError, match="no samples"):
        percentiles([])


def test_plan_is_signed_ordered_and_repeatable() -> None:
    keys = [SigningKey(bytes([n]) * 32) for n in (1, 2)]

    def make(poisson: bool) -> list[list[Any]]:
        return plan(
            keys,
            bytes(32),
            market_id=1,
            shard=0,
            rate=200,
            duration_s=1,
            poisson=poisson,
            first_nonce=10,
            seed=3,
        )

    orders = make(True)
    assert orders == make(True)
    everything = sorted((order for part in orders for order in part), key=lambda order: order.due_ns)
    assert [order.nonce for order in everything] == list(range(10, 10 + len(everything)))
    for key, part in zip(keys, orders, strict=True):
        for order in part:
            verify_batch(order.frame, bytes(32))
            batch = decode(order.frame)
            assert isinstance(batch, SignedBatch)
            assert batch.public_key == bytes(key.verify_key)
            assert batch.nonce == order.nonce
    assert len([order for part in make(False) for order in part]) == 199


def test_load_counts_every_order() -> None:
    exit_code, result = run("load", "--num-traders", "2", "--duration-secs", "0.5", "--rate", "100")
    assert result["orders_sent"] == result["orders_answered"] > 0
    assert result["orders_accepted"] == result["orders_sent"]
    assert result["orders_rejected"] == result["not_applied"] == 0
    assert result["latency"]["samples"] == result["orders_sent"]
    assert result["durability"] == "always"
    assert exit_code == (0 if result["valid"] else 1)


def test_floor_measures_four_steps() -> None:
    exit_code, result = run("floor", "--rounds", "20", "--fsync", "everysec")
    assert exit_code == 0
    steps = [result[step]["p50_us"] for step in ("tcp", "verify", "bus", "append")]
    assert all(step > 0 for step in steps)
    assert result["floor_p50_us"] == pytest.approx(sum(steps))
