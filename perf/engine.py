"""The engine alone: the book beside other books, and a shard with ledger and events, on one core.

Flows are made from fixed seeds (perf/order_flows.py) and applied from memory. Each figure is taken several times, by
turns with the others, and the median counts. Another library takes part if it is installed where this runs, or in the
environment that `--peers` names; none of them is needed, and none is part of the product.
"""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from nacl.signing import SigningKey

from perf import order_flows
from perf.histogram import Histogram
from perf.machine import describe_machine
from perf.native import ffi, lib
from perf.order_flows import FLOWS, Flow
from perf.results import Machine
from perf.workload import SigningJob, sign_frames, trading_commands
from zexchange.book import COMMAND_DTYPE, EVENT_DTYPE, Book, EventKind, Side
from zexchange.engine import Engine
from zexchange.genesis import DEFAULT_ASSETS, EngineLimits, MarketSpec, build_genesis, parse_genesis
from zexchange.limits import COMMANDS_PER_BATCH_MAX
from zexchange.wire.messages import OperatorBatch, OperatorCommand, OperatorCommandKind

LEDGER_RATE = 3_000_000.0
MIX_RATIO, OTHER_RATIO = 4.0, 3.0
LIQUIBOOK_RATIO = 20.0
MEMORY_ORDERS = 1_000_000
_PYTHON_COMMANDS = 50_000


class BookFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One flow through one book. Percentiles include two readings of the clock."""

    flow: str
    library: str
    commands: int
    commands_per_s: float
    p50_ns: float
    p99_ns: float
    p999_ns: float
    trades: int


class EngineResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="engine"):
    """Medians over `runs`."""

    runs: int
    books: tuple[BookFigures, ...]
    ledger_per_s: float
    """Commands through a shard with ledger and events, 64 per frame, one market."""
    ledger_many_markets_per_s: float
    """The same over 21,000 markets."""
    python_per_s: float
    """`Book.submit` one call at a time."""
    python_batched_per_s: float
    """The same orders by `Book.apply`, 1,000 at a time, driven from Python."""
    liquibook_per_s: float | None
    """The same orders through PyPI's liquibook; None where it is not installed."""
    bytes_per_order: float
    """Resident memory that a million resting orders add, their ids included."""
    peers: tuple[str, ...]
    machine: Machine


def run_engine(count: int, runs: int, peers: Path | None, say: Callable[[str], None]) -> EngineResult:
    """Take all figures over flows of `count` commands. `peers`: a Python that has other libraries installed."""
    say("making order flows")
    flows = [make(count) for make in FLOWS.values()]
    orderly = _orderly(peers)
    rates: dict[tuple[str, str], list[float]] = {}
    single, python, liquibook = _ledger_flow(1, count), _python_orders(), None
    many = _ledger_flow(order_flows.MARKETS, count)
    ledger: list[float] = []
    ledger_many: list[float] = []
    python_rates: list[float] = []
    batched_rates: list[float] = []
    liquibook_rates: list[float] = []
    for run in range(runs):
        say(f"run {run + 1} of {runs}")
        for flow in flows:
            rates.setdefault((flow.name, "zexchange"), []).append(_rate(flow, None))
            if orderly is not None:
                rates.setdefault((flow.name, "orderly-chaos"), []).append(_rate(flow, orderly))
        ledger.append(_ledger_rate(*single))
        ledger_many.append(_ledger_rate(*many))
        python_rates.append(_python_rate(python))
        batched_rates.append(_batched_rate(python))
        liquibook = _liquibook_rate(peers, python)
        if liquibook is not None:
            liquibook_rates.append(liquibook)
    books = []
    for flow in flows:
        for library, peer in (("zexchange", None), ("orderly-chaos", orderly)):
            if (flow.name, library) in rates:
                books.append(_figures(flow, library, peer, statistics.median(rates[flow.name, library])))
    return EngineResult(
        runs=runs,
        books=tuple(books),
        ledger_per_s=statistics.median(ledger),
        ledger_many_markets_per_s=statistics.median(ledger_many),
        python_per_s=statistics.median(python_rates),
        python_batched_per_s=statistics.median(batched_rates),
        liquibook_per_s=statistics.median(liquibook_rates) if liquibook_rates else None,
        bytes_per_order=_bytes_per_order(),
        peers=tuple(name for name, found in (("orderly-chaos", orderly), ("liquibook", liquibook)) if found),
        machine=describe_machine(),
    )


# ------------------------------------------------------------ the book


def _call(flow: Flow, peer: Any, latency: Any) -> Any:
    result = ffi.new("bookbench_result *")
    commands = ffi.cast("lob_command *", ffi.from_buffer(flow.commands))
    size = len(flow.commands), flow.first
    if flow.markets is None and peer is None:
        error = lib.bookbench_lob(commands, *size, flow.orders_max, latency, result)
    elif flow.markets is None:
        error = lib.bookbench_peer_run(peer, commands, *size, latency, result)
    else:
        markets = ffi.cast("uint32_t *", ffi.from_buffer(flow.markets))
        if peer is None:
            error = lib.shardbench_run(
                commands, markets, *size, flow.market_count, flow.orders_max, latency, result
            )
        else:
            error = lib.shardbench_peer_run(
                peer, commands, markets, *size, flow.market_count, latency, result
            )
    if result.refused:
        raise AssertionError(f"{result.refused} commands of {flow.name} were refused")
    if error:
        raise MemoryError(f"the benchmark of {flow.name} has no memory (error {error})")
    return result


def _rate(flow: Flow, peer: Any) -> float:
    """Commands per second."""
    result = _call(flow, peer, ffi.NULL)
    return float((len(flow.commands) - flow.first) / result.elapsed_ns * 1e9)


def _figures(flow: Flow, library: str, peer: Any, rate: float) -> BookFigures:
    latency = Histogram()
    result = _call(flow, peer, latency.handle)
    found = latency.percentiles()
    return BookFigures(
        flow=flow.name,
        library=library,
        commands=len(flow.commands) - flow.first,
        commands_per_s=rate,
        p50_ns=found.p50_us * 1000,
        p99_ns=found.p99_us * 1000,
        p999_ns=found.p999_us * 1000,
        trades=result.trades,
    )


def _python_of(peers: Path | None) -> str:
    return sys.executable if peers is None else str(peers)


def _orderly(peers: Path | None) -> Any:
    """Functions of orderly-chaos; None where it is not installed."""
    script = (
        "import glob, os, importlib.util as u; s = u.find_spec('orderly_chaos'); "
        "print(next(iter(glob.glob(os.path.dirname(s.origin) + '/lib_orderly_chaos*')), '') if s else '')"
    )
    found = subprocess.run([_python_of(peers), "-c", script], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if not path:
        return None
    library = ctypes.CDLL(path)
    _kept.append(library)
    peer = ffi.new("bookbench_peer *")
    for field, name in (
        ("create", "oc_book_new"),
        ("destroy", "oc_book_free"),
        ("set_callback", "oc_book_set_trade_callback"),
        ("limit", "oc_book_limit"),
        ("market", "oc_book_market"),
        ("cancel", "oc_book_cancel"),
    ):
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        setattr(peer, field, ffi.cast(ffi.typeof(getattr(peer, field)), address))
    return peer


_kept: list[ctypes.CDLL] = []


def _bytes_per_order() -> float:
    """In a process of its own: what this one has freed and kept would be counted too."""
    done = subprocess.run(
        [sys.executable, "-c", "from perf.engine import memory_of_a_million; print(memory_of_a_million())"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) / MEMORY_ORDERS


def memory_of_a_million() -> int:
    """Bytes that a million resting orders add to this process, and nothing else."""
    import psutil

    commands = FLOWS["build and cancel"](2 * MEMORY_ORDERS).commands[:MEMORY_ORDERS].copy()
    events = bytearray(b"\xff" * (40 * (MEMORY_ORDERS + 8_000)))
    book = Book(max_orders=MEMORY_ORDERS)
    process = psutil.Process()
    before = process.memory_info().rss
    done = 0
    while done < MEMORY_ORDERS:
        done += book.apply(commands[done : done + 1_000], events)[0]
    added = process.memory_info().rss - before
    if len(book) != MEMORY_ORDERS:
        raise AssertionError(f"{len(book)} of {MEMORY_ORDERS} orders rest")
    return int(added)


# ------------------------------------------------------------ through Python


def _python_orders() -> list[tuple[int, bool, int, int]]:
    """(id, is a buy, price, quantity): a third of them trade."""
    generator = np.random.default_rng(7)
    sides = generator.integers(0, 2, _PYTHON_COMMANDS)
    prices = generator.integers(950, 1_051, _PYTHON_COMMANDS)
    qtys = generator.integers(1, 100, _PYTHON_COMMANDS)
    return [(n + 1, bool(sides[n]), int(prices[n]), int(qtys[n])) for n in range(_PYTHON_COMMANDS)]


def _python_rate(orders: Sequence[tuple[int, bool, int, int]]) -> float:
    book = Book()
    begun_ns = time.perf_counter_ns()
    for order_id, is_buy, price, qty in orders:
        book.submit(order_id, "buy" if is_buy else "sell", price, qty)
    return len(orders) / (time.perf_counter_ns() - begun_ns) * 1e9


def _batched_rate(orders: Sequence[tuple[int, bool, int, int]]) -> float:
    commands = np.zeros(len(orders), np.dtype(COMMAND_DTYPE))
    ids, buys, prices, qtys = zip(*orders, strict=True)
    commands["order_id"], commands["price_ticks"], commands["qty_lots"] = ids, prices, qtys
    commands["side"] = np.where(buys, Side.BUY, Side.SELL)
    events = np.zeros(200_000, np.dtype(EVENT_DTYPE))
    kinds, trade = events["kind"], int(EventKind.TRADE)
    book = Book(max_orders=len(orders))
    trades = 0
    done = 0
    begun_ns = time.perf_counter_ns()
    while done < len(orders):
        applied, written = book.apply(commands[done : done + 1_000], events)
        trades += int(np.count_nonzero(kinds[:written] == trade))
        done += applied
    return len(orders) / (time.perf_counter_ns() - begun_ns) * 1e9


_LIQUIBOOK = """
import sys, time
try:
    import liquibook
except ImportError:
    print("none"); raise SystemExit
orders = [tuple(map(int, line.split())) for line in sys.stdin]
book = liquibook.DepthOrderBook()
kept = []
begun = time.perf_counter_ns()
for order_id, is_buy, price, qty in orders:
    order = liquibook.SimpleOrder(bool(is_buy), price, qty)
    kept.append(order)
    book.add(order)
    book.perform_callbacks()
print(len(orders) / (time.perf_counter_ns() - begun) * 1e9)
"""


def _liquibook_rate(peers: Path | None, orders: Sequence[tuple[int, bool, int, int]]) -> float | None:
    text = "\n".join(f"{n} {int(is_buy)} {price} {qty}" for n, is_buy, price, qty in orders)
    with tempfile.TemporaryDirectory(prefix="zx-perf-") as folder:
        done = subprocess.run(
            [_python_of(peers), "-c", _LIQUIBOOK],
            input=text,
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
    try:
        return float(done.stdout)
    except ValueError:
        return None


# ------------------------------------------------------------ the engine


def _ledger_flow(markets: int, count: int) -> tuple[Any, list[bytes]]:
    """A genesis with so many markets, and frames of 64 commands for four funded accounts."""
    key = SigningKey(bytes(32))
    specs = [
        MarketSpec(
            id=number + 1,
            symbol=f"M{number + 1}-USD",
            base="BTC",
            quote="USD",
            tick_size="0.01",
            lot_size="0.0001",
            maker_fee_ppm=200,
            taker_fee_ppm=500,
        )
        for number in range(markets)
    ]
    limits = EngineLimits(max_accounts=64, max_keys=64, max_balances=256, max_orders=1_048_576)
    public = bytes(key.verify_key)
    genesis = parse_genesis(
        build_genesis(
            "perf/engine", public, public, assets=DEFAULT_ASSETS, markets=specs, engine_limits=limits
        )
    )
    keys = [SigningKey(bytes([1 + number]) * 32) for number in range(4)]
    frames = [_funding(public, keys, (1, 2))]
    per_trader = -(-count // len(keys) // COMMANDS_PER_BATCH_MAX)
    by_trader = []
    market_ids = list(range(1, markets + 1))
    for number, trader in enumerate(keys):
        flow = trading_commands(per_trader * COMMANDS_PER_BATCH_MAX, market_ids, seed=number)
        jobs = [
            (nonce, b"".join(next(flow) for _ in range(COMMANDS_PER_BATCH_MAX)))
            for nonce in range(1, per_trader + 1)
        ]
        by_trader.append(
            sign_frames(
                SigningJob(
                    bytes(trader), genesis.deployment_id, 0, jobs, COMMANDS_PER_BATCH_MAX, signed=False
                )
            )
        )
    frames += [frame for turn in zip(*by_trader, strict=True) for frame in turn]
    return genesis, frames


def _funding(operator: bytes, keys: Sequence[SigningKey], asset_ids: Sequence[int]) -> bytes:
    commands = []
    for account_id, key in enumerate(keys, start=1):
        commands.append(
            OperatorCommand(
                kind=OperatorCommandKind.OPEN_ACCOUNT,
                account_id=account_id,
                new_public_key=bytes(key.verify_key),
            )
        )
        commands += [
            OperatorCommand(
                kind=OperatorCommandKind.DEPOSIT, account_id=account_id, asset_id=asset_id, amount=2**58
            )
            for asset_id in asset_ids
        ]
    return OperatorBatch(public_key=operator, nonce=1, commands=commands).encode()


def _ledger_rate(genesis: Any, frames: Sequence[bytes]) -> float:
    """Commands per second, fourteen frames in a body as a busy matcher has them."""
    engine = Engine(genesis, 0, track_state=False)
    engine.make_ready(genesis.limits.max_orders)
    engine.apply(frames[0], 1_000)
    bodies = [b"".join(frames[at : at + 14]) for at in range(1, len(frames), 14)]
    before = engine.next_seq
    now_ns = 1_000
    begun_ns = time.perf_counter_ns()
    for body in bodies:
        now_ns += 1
        engine.apply(body, now_ns)
    return (engine.next_seq - before) / (time.perf_counter_ns() - begun_ns) * 1e9


def budgets(result: EngineResult) -> list[tuple[str, str, str, str]]:
    """(figure, budget, measured, met or not; empty where there is nothing to compare)."""
    rows: list[tuple[str, str, str, str]] = []
    by = {(one.flow, one.library): one for one in result.books}
    for flow in FLOWS:
        ours, theirs = by[flow, "zexchange"], by.get((flow, "orderly-chaos"))
        wanted = MIX_RATIO if flow == "mix" else OTHER_RATIO
        measured = f"{ours.commands_per_s / 1e6:.1f} M/s"
        verdict = ""
        if theirs is not None:
            ratio = ours.commands_per_s / theirs.commands_per_s
            measured += f", {ratio:.1f} x ({theirs.commands_per_s / 1e6:.1f} M/s)"
            verdict = "met" if ratio >= wanted else "NOT MET"
        rows.append((f"book: {flow}", f">= {wanted:g} x orderly-chaos", measured, verdict))
    for name, rate, budget in (
        ("1,000 orders a call", result.python_batched_per_s, f">= {LIQUIBOOK_RATIO:g} x liquibook"),
        ("one order a call", result.python_per_s, ""),
    ):
        measured, verdict = f"{rate:,.0f}/s", ""
        if result.liquibook_per_s is not None:
            ratio = rate / result.liquibook_per_s
            measured += f", {ratio:.1f} x ({result.liquibook_per_s:,.0f}/s)"
            verdict = ("met" if ratio >= LIQUIBOOK_RATIO else "NOT MET") if budget else ""
        rows.append((f"book: from Python, {name}", budget, measured, verdict))
    for name, rate in (
        ("one market", result.ledger_per_s),
        (f"{order_flows.MARKETS:,} markets", result.ledger_many_markets_per_s),
    ):
        rows.append(
            (
                f"engine with ledger and events, {name}",
                f">= {LEDGER_RATE / 1e6:g} M commands/s",
                f"{rate / 1e6:.2f} M/s",
                "met" if rate >= LEDGER_RATE else "NOT MET",
            )
        )
    rows.append(
        (
            "book: memory per resting order",
            "<= 107 bytes (10 M in 1 GiB)",
            f"{result.bytes_per_order:.0f} bytes",
            "met" if result.bytes_per_order <= 107 else "NOT MET",
        )
    )
    return rows
