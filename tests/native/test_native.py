"""The C sources under the address and undefined-behaviour sanitizers, without Python in the process.

`pieces.c` tests the data structures alone. `replay.c` replays generated streams with every check on, restores
snapshots, whole and damaged, and must see the same events as the extension does. `broken.c` breaks the state of an
engine in every way, and the check must notice.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from random import Random

import pytest

from tests.model.duel import Duel, Step
from tests.model.kit import engine_named
from tests.model.stream import SHARD, Stream, stream_genesis
from zexchange.engine import Engine
from zexchange.engine_types import MalformedFrame
from zexchange.genesis import Genesis, encode_symbol

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "csrc"
FLAGS = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
if "ZX_COVERAGE" in os.environ:  # see scripts/coverage
    SANITIZE = ["--coverage", "-O0", "-Wno-maybe-uninitialized"]
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs, and `replay-colliding` whose hashes have two bits; all with sanitizers."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = Path("build/native") if "ZX_COVERAGE" in os.environ else tmp_path_factory.mktemp("native")
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    if subprocess.run([compiler, *SANITIZE, probe, "-o", folder / "probe"], capture_output=True).returncode:
        pytest.skip(f"{compiler} has no sanitizers")
    sources = sorted(CSRC.glob("*.c"))
    for name, program, defines in (
        ("pieces", "pieces", []),
        ("replay", "replay", []),
        ("replay-colliding", "replay", ["-DIDMAP_HASH_MASK=3"]),
        ("broken", "broken", []),
        ("undo", "undo", []),
    ):
        command: list[str | Path] = [compiler, *FLAGS, *SANITIZE, *defines, f"-I{CSRC}"]
        objects = [folder / f"{source.stem}{''.join(defines)}.o" for source in sources]
        for source, built in zip(sources, objects, strict=True):
            if not built.exists():
                subprocess.run([*command, "-c", source, "-o", built], check=True)
        subprocess.run([*command, HERE / f"{program}.c", *objects, "-o", folder / name], check=True)
    return folder


def run(*command: str | Path) -> str:
    """Output of a program that must end well."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


def test_data_structures(build: Path) -> None:
    assert run(build / "pieces") == "ok"


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
    assert run(build / "replay-colliding", file, "1") == expected, (
        "an equal hash was taken for the same thing"
    )


@pytest.mark.parametrize("flags", [["-O0"], ["-O3", "-march=native", "-flto"]], ids=" ".join)
def test_neither_optimisation_nor_process_decides_anything(tmp_path: Path, flags: list[str]) -> None:
    genesis, steps = stream_of(4, False, 3_000)
    file = written(tmp_path, genesis, steps)
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    sources = [HERE / "replay.c", *sorted(CSRC.glob("*.c"))]
    subprocess.run(
        [compiler, "-std=c11", *flags, f"-I{CSRC}", *sources, "-o", tmp_path / "replay"], check=True
    )
    assert run(tmp_path / "replay", file, "77") == outcome(genesis, steps)


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
    checks = ("book", "check", "definitions", "lanes", "ledger", "levels", "lob", "markets", "triggers")
    source = "".join((CSRC / f"{name}.c").read_text() for name in checks)
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
    for spread in "01":
        assert int(run(build / "undo", file, spread).split()[0]) > 100


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
    engine = Engine(genesis, SHARD, track_state=False)
    digest = FNV_OFFSET
    for body, log_time_ns in steps:
        try:
            events = bytes(engine.apply(body, log_time_ns).events)
        except MalformedFrame:
            continue
        for byte in events:
            digest = (digest ^ byte) * FNV_PRIME % 2**64
    return f"{engine.next_record_no} {engine.next_seq} {engine.next_trade_id} {digest:016x}"


def test_example_of_the_book_alone(build: Path, tmp_path: Path) -> None:
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
    names = ("arena", "base", "book", "idmap", "levels", "lob", "slots", "undo")
    objects = [build / f"{name}.o" for name in names]
    compiler = shutil.which(os.environ.get("CC", "cc"))
    assert compiler is not None
    command = [compiler, *FLAGS, *SANITIZE, f"-I{CSRC}", program, *objects, "-o", tmp_path / "example"]
    subprocess.run(command, check=True)
    assert run(tmp_path / "example").splitlines() == [
        "0 1 101 5",
        "0 2 102 3",
        "2 2 101 3",
        "3 1 0 2",
    ]
