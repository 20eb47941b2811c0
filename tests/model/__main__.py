"""Runs seeded streams through both engines: `python -m tests.model --seconds 60 --seed 1`.

Prints the seed, what differed and the shortest way found to it, and exits with 1 when the engines disagree.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from random import Random

from tests.model.duel import Divergence, Duel
from tests.model.stream import EXEC_TYPES_IN_USE, REASONS_OF_THE_ENGINE, SHARD, Stream, shrunk, stream_genesis
from zexchange.wire.messages import ExecType, ReasonCode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="first seed (default: %(default)s)")
    parser.add_argument(
        "--commands", type=int, default=5_000, help="commands per seed (default: %(default)s)"
    )
    parser.add_argument("--no-shrink", action="store_true", help="do not look for a shorter way")
    options = parser.parse_args()

    reasons: Counter[ReasonCode] = Counter()
    exec_types: Counter[ExecType] = Counter()
    commands, seed, end = 0, options.seed, time.monotonic() + options.seconds
    while time.monotonic() < end:
        random, deep = Random(seed), seed % 5 == 0
        duel = Duel(stream_genesis(random, deep=deep), SHARD)
        stream = Stream(duel, random)
        try:
            stream.begin()
            if deep:
                stream.deepen()
            while duel.commands < options.commands and time.monotonic() < end:
                stream.step()
            duel.check_from_outside()
            duel.check_replay()
            duel.restore()
        except Divergence as divergence:
            print(f"seed {seed}: {divergence}")
            if not options.no_shrink:
                print("the shortest way found:", *shrunk(duel), sep="\n")
            return 1
        reasons += duel.reasons
        exec_types += duel.exec_types
        commands += duel.commands
        seed += 1
    print(f"seeds {options.seed} to {seed - 1}: {commands:,} commands, no difference")
    for what, seen in (
        ("reasons", REASONS_OF_THE_ENGINE - set(reasons)),
        ("reports", EXEC_TYPES_IN_USE - set(exec_types)),
    ):
        if seen:
            print(f"never seen {what}:", ", ".join(sorted(one.name for one in seen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
