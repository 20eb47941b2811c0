"""The C sources under the address and undefined-behaviour sanitizers, without Python in the process.

`pieces.c` tests the data structures alone, `books.c` the book. `pump.c` plays clients, store and kernel
around the loop of a process that is ingress and matcher in one thread. `edges.c` takes memory and threads
away, fills buffers, and asks for what is not there. `replay.c` replays generated streams with every check on,
restores snapshots, whole and damaged, and must see the same events, and come to the same state root, as the
extension does. `broken.c` breaks the state of an engine in every way, and the check must notice. `undo.c`
undoes what it tried, and every byte must be what it was. `alone.c` gives commands of any kind to the book
alone, however it is built.
"""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path
from random import Random

import pytest

from tests.model.duel import Duel, Step
from tests.model.kit import engine_named
from tests.model.stream import SHARD, Stream, stream_genesis
from tests.native.building import CSRC, build_program, compiler, run, wrap
from zexchange.engine import Engine
from zexchange.engine_types import MalformedFrame
from zexchange.genesis import Genesis, encode_symbol
from zexchange.native import lib

pytestmark = pytest.mark.timeout(600)  # it compiles, and that is slow on a busy machine

HERE = Path(__file__).resolve().parent
sha256_of_processor = bool(lib.sha256_of_processor())  # these programs have no other SHA-256
# What lob.c needs.
ALONE = ("arena", "base", "book", "idmap", "ids", "levels", "lob", "queues", "ranks", "slots", "undo")
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs; some with tables so small that they are full, and hashes of two bits, small
    windows, fetching ahead."""
    folder = tmp_path_factory.mktemp("native")
    tight = ["-DIDMAP_HASH_MASK=3", "-DIDS_PLACES_MAX=8", "-DAHEAD_MARKETS=0", "-DROUTES_SESSIONS_MAX=64"]
    tight += ["-DBOOK_WINDOW_MAX=64", "-DFETCH_FROM=0"]
    for name in ("pieces", "books", "replay", "undo", "alone"):
        build_program(folder / name, [HERE / f"{name}.c"])
    # Windows with words that there are not.
    build_program(folder / "broken", [HERE / "broken.c"], defines=["-DBOOK_WINDOW_MAX=1024"])
    for name in ("replay", "undo", "alone"):
        build_program(folder / f"{name}-tight", [HERE / f"{name}.c"], defines=tight)
    alone = [CSRC / f"{name}.c" for name in ALONE]
    build_program(
        folder / "alone-windowless", [HERE / "alone.c"], defines=["-DBOOK_WINDOW_MAX=0"], csrc=alone
    )
    kernel = wrap("send", "recv", "epoll_wait", "clock_gettime")
    build_program(folder / "pump", [HERE / "pump.c"], defines=tight, link=kernel)
    grants = wrap("calloc", "mmap", "munmap", "pthread_create", "pthread_cond_wait")
    build_program(folder / "edges", [HERE / "edges.c"], link=grants)
    return folder


@pytest.mark.parametrize("program", ["pieces", "books", "pump", "edges"])
def test_parts_alone(build: Path, program: str) -> None:
    assert run(build / program) == "ok"


def test_how_a_book_is_built_and_fed_decides_nothing(build: Path) -> None:
    programs = ("alone", "alone-tight", "alone-windowless")
    assert len({run(build / program, at_once) for program in programs for at_once in ("1", "7", "64")}) == 1


@pytest.mark.parametrize(
    ("seed", "deep", "commands"), [(1, False, 3_000), (2, False, 3_000), (3, True, 4_500)]
)
def test_replay_sees_what_the_extension_sees(
    build: Path, tmp_path: Path, seed: int, deep: bool, commands: int
) -> None:
    genesis, steps = stream_of(seed, deep, commands)
    file = written(tmp_path, genesis, steps)
    expected = outcome(genesis, steps)
    assert run(build / "replay", file, "1") == expected
    assert run(build / "replay", file, "987654321") == expected, "the hash seed decided something"
    assert run(build / "replay-tight", file, "1") == expected, "an equal hash was taken for the same thing"


@pytest.mark.parametrize("flags", [["-O0"], ["-O3", "-march=native", "-flto"]], ids=" ".join)
def test_neither_optimisation_nor_process_decides_anything(tmp_path: Path, flags: list[str]) -> None:
    genesis, steps = stream_of(4, False, 3_000)
    file = written(tmp_path, genesis, steps)
    sources = [HERE / "replay.c", *sorted(CSRC.glob("*.c"))]
    subprocess.run(
        [compiler(), "-std=c11", *flags, f"-I{CSRC}", *sources, "-o", tmp_path / "replay"], check=True
    )
    assert run(tmp_path / "replay", file, "77") == outcome(genesis, steps)


@pytest.mark.slow
def test_whatever_breaks_is_noticed(build: Path, tmp_path: Path) -> None:
    """Every sentence that a check can say is said for some defect, and no field of the state goes unchecked."""
    said: set[str] = set()
    for seed in (3, 10, 12):
        said |= set(
            run(build / "broken", written(tmp_path, *stream_of(seed, False, 1_500)), "5").splitlines()
        )
    tried = {line.removeprefix("tried: ") for line in said if line.startswith("tried: ")}
    assert len(tried) > 80
    assert not {name for name in tried if f"noticed: {name}" not in said}
    checks = "book check definitions ids lanes ledger levels lob markets ranks triggers"
    source = "".join((CSRC / f"{name}.c").read_text() for name in checks.split())
    sentences = set(re.findall(r'(?:return|NULL :) "([a-z][^"]+)"', source))
    assert len(sentences) > 80
    needs_many_defects_at_once = {"orders are lost between accounts and slots"}
    assert sentences - said == needs_many_defects_at_once


@pytest.mark.parametrize(
    ("seed", "deep", "commands"), [(1, False, 3_000), (2, False, 3_000), (3, True, 4_500)]
)
def test_an_attempt_that_is_undone_leaves_no_trace(
    build: Path, tmp_path: Path, seed: int, deep: bool, commands: int
) -> None:
    file = written(tmp_path, *stream_of(seed, deep, commands))
    for program in ("undo", "undo-tight"):
        for spread in "01":
            assert int(run(build / program, file, spread).split()[0]) > 100


def written(folder: Path, genesis: Genesis, steps: list[Step]) -> Path:
    """The stream in a file, as stream.h reads it."""
    file = folder / "stream"
    file.write_bytes(
        header(genesis) + b"".join(struct.pack("<QI", time, len(body)) + body for body, time in steps)
    )
    return file


def stream_of(seed: int, deep: bool, commands: int) -> tuple[Genesis, list[Step]]:
    """A generated stream that reaches every rule; the bodies as they were applied, malformed included."""
    random = Random(seed)
    genesis = stream_genesis(random, deep=deep)
    stream = Stream(Duel(genesis, SHARD, [engine_named("c")]), random)
    stream.begin()
    if deep:
        stream.deepen()
    while stream.duel.commands < commands:
        stream.step()
    return genesis, stream.duel.steps


def header(genesis: Genesis) -> bytes:
    """What stream.h reads first."""
    markets = genesis.markets_of(SHARD)
    limits = genesis.limits
    positions = {asset.asset_id: position for position, asset in enumerate(genesis.assets)}
    return b"".join(
        (
            struct.pack("<HHI", SHARD, len(positions), len(markets)),
            struct.pack("<III", limits.max_accounts, limits.max_keys, limits.max_balances),
            struct.pack("<II", limits.max_orders, limits.max_outcomes),
            struct.pack("<II", genesis.assets_max, genesis.markets_max(SHARD)),
            genesis.deployment_id,
            genesis.operator_public_key,
            *(
                struct.pack("<II32s", asset.asset_id, asset.decimals, encode_symbol(asset.symbol))
                for asset in genesis.assets
            ),
            *(
                struct.pack(
                    "<QQIIIiI32s",
                    market.base_units_per_lot,
                    market.quote_units_per_tick_lot,
                    market.market_id,
                    positions[market.base_asset_id],
                    positions[market.quote_asset_id],
                    market.maker_fee_ppm,
                    market.taker_fee_ppm,
                    encode_symbol(market.symbol),
                )
                for market in markets
            ),
        )
    )


def outcome(genesis: Genesis, steps: list[Step]) -> str:
    """What replay.c must print."""
    engine = Engine(genesis, SHARD)
    digest = FNV_OFFSET
    for body, log_time_ns in steps:
        try:
            events = bytes(engine.apply(body, log_time_ns).events)
        except MalformedFrame:
            continue
        for byte in events:
            digest = (digest ^ byte) * FNV_PRIME % 2**64
    root = engine.state_root().hex() if sha256_of_processor else "-"
    return f"{engine.next_record_no} {engine.next_seq} {engine.next_trade_id} {digest:016x} {root}"


def test_example_of_the_book_alone(tmp_path: Path) -> None:
    """The twenty lines on the first page of lob.h, compiled and run as they stand."""
    page = (CSRC / "lob.h").read_text(encoding="utf-8").split("*/")[0]
    lines = [
        line[7:]
        for line in page.splitlines()
        if line.startswith(" *     ") and not line.startswith(" *      ar")
    ]
    begin = next(at for at, line in enumerate(lines) if line.startswith("lob *book;"))
    program = tmp_path / "example.c"
    program.write_text(
        '#include <stdio.h>\n#include "lob.h"\nint main(void) {\n'
        + "\n".join(lines[begin:])
        + "\nreturn 0;\n}\n"
    )
    build_program(tmp_path / "example", [program], csrc=[CSRC / f"{name}.c" for name in ALONE])
    assert run(tmp_path / "example").splitlines() == [
        "0 1 101 5",
        "0 2 102 3",
        "2 2 101 3",
        "3 1 0 2",
    ]
