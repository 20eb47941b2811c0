"""Nothing decides but the stream: not the process, its hash seed, or how records were put together into batches.

That hash seed of the engine, optimisation and compiler decide nothing is shown by tests/native.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.model import kit
from tests.model.kit import engine_named
from tests.model.stream import run
from zexchange.engine_types import MatchingEngine
from zexchange.genesis import EngineLimits, Genesis
from zexchange.limits import EXECUTION_REPORT_BYTES
from zexchange.wire.messages import (
    BatchFlags,
    Command,
    OrderOptions,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Trigger,
)

LOG_TIME = slice(32, 40)  # of a report: docs/formats.md
TRADERS = (1, 2, 3)
LIMITS = EngineLimits(max_accounts=8, max_keys=8, max_balances=32, max_orders=256, max_outcomes=512)


def frames() -> list[bytes]:
    """Opening, and a thousand batches of all kinds of orders that do not look at the clock."""
    random, found, nonce = Random(23), [], 0
    for trader in TRADERS:
        commands = [kit.open_account(kit.public_key(trader), trader)]
        commands += [kit.deposit(trader, asset, 10**7) for asset in (1, 2, 3)]
        nonce += 1
        found.append(kit.batch(kit.OPERATOR_KEY, nonce, commands))
    for _ in range(1_000):
        nonce += 1
        commands_of_it = [_command(random) for _ in range(random.choice((1, 1, 2, 5)))]
        flags = random.choice((BatchFlags.NONE, BatchFlags.NONE, BatchFlags.ALL_OR_NOTHING))
        key = kit.public_key(random.choice(TRADERS))
        found.append(kit.batch(key, nonce, commands_of_it, flags=flags))
    return found


def _command(random: Random) -> Command:
    kind, market = random.randrange(12), random.choice((1, 2))
    if kind == 0:
        return kit.cancel_all(market, random.choice((Side.NONE, Side.BUY)))
    if kind < 3:
        return kit.cancel(client_order_id=random.randrange(1, 60))
    if kind < 5:
        return kit.amend(
            client_order_id=random.randrange(1, 60),
            price_ticks=random.randrange(90, 110),
            qty_lots=random.randrange(1, 30),
        )
    triggered = random.randrange(4) == 0
    return kit.order(
        random.choice((Side.BUY, Side.SELL)),
        random.randrange(1, 30),
        random.randrange(92, 108),
        market_id=market,
        tif=random.choice((TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK)),
        stp=random.choice([one for one in SelfTradePrevention if one]),
        client_order_id=random.randrange(1, 60),
        options=random.choice((OrderOptions.NONE, OrderOptions.NONE, OrderOptions.HIDDEN)),
        trigger=Trigger.STOP if triggered else Trigger.NONE,
        trigger_ticks=random.randrange(92, 108) if triggered else 0,
    )


def outcome(engine: MatchingEngine, stream: list[bytes], batches: list[int]) -> tuple[bytes, bytes]:
    """Events without their log times, and the root behind the last batch; it is always at the same time."""
    events, at, end_ns = bytearray(), 0, kit.START_NS + 10**9
    for number, size in enumerate(batches):
        is_last = number == len(batches) - 1
        applied = engine.apply(b"".join(stream[at : at + size]), end_ns if is_last else kit.START_NS + number)
        assert applied.records == size
        events += applied.events
        at += size
    assert at == len(stream)
    for start in range(0, len(events), EXECUTION_REPORT_BYTES):
        report = memoryview(events)[start : start + EXECUTION_REPORT_BYTES]
        report[LOG_TIME] = bytes(8)
    return bytes(events), engine.state_root()


@pytest.mark.parametrize("name", ["c", "reference"])
def test_records_may_be_put_together_in_any_way(name: str) -> None:
    stream, random = frames(), Random(5)
    genesis: Genesis = kit.small_genesis(engine_limits=LIMITS)
    expected = outcome(engine_named("c")(genesis, 0), stream, [1] * len(stream))
    assert len(expected[0]) > 2_000 * EXECUTION_REPORT_BYTES
    for largest in (3, 40):
        sizes: list[int] = []
        while sum(sizes) < len(stream):
            sizes.append(min(random.randrange(1, largest + 1), len(stream) - sum(sizes)))
        assert outcome(engine_named(name)(genesis, 0), stream, sizes) == expected


def test_another_process_with_another_hash_seed_comes_to_the_same() -> None:
    """Python's, that is: the reference keeps its state in dictionaries."""
    script = "from tests.model.stream import run; duel = run(9, 1_000, deep=False); print(duel.fingerprint())"
    expected = run(9, 1_000, deep=False).fingerprint()
    for seed in ("1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == expected, done.stderr[-2000:]
