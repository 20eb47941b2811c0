"""Command `replay`: drive an exchange with recorded order flow and compare its book with the recorded one."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zexchange.cli import exits
from zexchange.cli.options import json_option, port_base_option
from zexchange.cli.output import is_terminal, message, print_json, print_table
from zexchange.cli.session import session_options

if TYPE_CHECKING:
    from zexchange.replay.driver import ReplayReport
    from zexchange.replay.lobster import Message

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_BAR_CHARS = 30
_REDRAW_S = 0.1
_MISMATCHES_SHOWN = 5


@click.group()
def replay() -> None:
    """Drive an exchange with recorded order flow and compare its book with the recorded one.

    \b
    zexchange replay lobster MESSAGES.csv --orderbook BOOK.csv
    """


@replay.command()
@click.argument("messages", type=_FILE)
@click.option("--orderbook", type=_FILE, required=True, help="The book after each message.")
@click.option(
    "--market",
    "symbol",
    default=None,
    metavar="MARKET",
    help="Market to use; the one that fits best by default.",
)
@port_base_option
@json_option
@session_options
def lobster(
    messages: Path,
    orderbook: Path,
    symbol: str | None,
    port_base: int | None,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> int:
    """Replay a LOBSTER message file and compare the depth with its order book file after every message.

    \b
    zexchange replay lobster MESSAGES.csv --orderbook BOOK.csv --data ./replay
    zexchange replay lobster MESSAGES.csv --orderbook BOOK.csv --connect 127.0.0.1:9000 --market AAPL-USD
    zexchange verify --data ./replay

    Without --connect an exchange is started for the purpose in the data folder, which stays for `zexchange verify`; a
    folder without a deployment gets one with a single stock market. Orders are signed by two fresh accounts, one for
    each side of liquidity; the operator's key in the data folder opens and funds them. What is left of the orders is
    cancelled at the end.

    Levels that the file shows without a message (they come into view from beyond its last level) are seeded and counted
    as revealed_levels. Exit code 5 if any row differs.
    """
    from zexchange.replay.driver import check_files
    from zexchange.replay.exchange import prepare_folder, replay_on, temporary_exchange
    from zexchange.replay.lobster import LobsterError, read_book, read_messages
    from zexchange.runtime.paths import DataPaths
    from zexchange.runtime.running import NotRunning

    paths = DataPaths(data)
    progress = _Progress()
    try:
        recorded, rows = read_messages(messages), read_book(orderbook)
        check_files(recorded, rows)
        progress.total = len(recorded)
        if connect is not None:
            report = replay_on(connect, paths.operator_key, recorded, rows, symbol, progress)
        else:
            if prepare_folder(paths):
                message(f"new deployment with one stock market in {paths.root}")
            with temporary_exchange(paths, config_file, port_base) as exchange:
                address = (exchange.host, exchange.port)
                report = replay_on(address, paths.operator_key, recorded, rows, symbol, progress)
    except (LobsterError, NotRunning) as error:
        raise exits.CommandFailed(str(error)) from None
    finally:
        progress.end()
    _print_report(report, as_json)
    return exits.OK if report.mismatched == 0 else exits.MISMATCH


class _Progress:
    """A bar on stderr with position and rate, for somebody who watches; nothing otherwise."""

    def __init__(self) -> None:
        self.total = 0
        self._shown = is_terminal()
        self._started = time.monotonic()
        self._drawn = 0.0

    def __call__(self, row: int, recorded: Message) -> None:
        """A row is done."""
        now = time.monotonic()
        if row == 1:
            self._started = now
        if not self._shown or (now - self._drawn < _REDRAW_S and row < self.total):
            return
        self._drawn = now
        rate = (row - 1) / (now - self._started) if now > self._started else 0.0
        filled = _BAR_CHARS * row // self.total
        bar = "#" * filled + "-" * (_BAR_CHARS - filled)
        sys.stderr.write(
            f"\r[{bar}] {row:,}/{self.total:,} rows  {rate:,.0f} rows/s  {_clock(recorded.time)} "
        )
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the bar's line."""
        if self._drawn:
            sys.stderr.write("\n")


def _clock(seconds_text: str) -> str:
    """Seconds after midnight as a time of day."""
    try:
        seconds = int(seconds_text.partition(".")[0])
    except ValueError:
        return seconds_text
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _print_report(report: ReplayReport, as_json: bool) -> None:
    for mismatch in report.first_mismatches[:_MISMATCHES_SHOWN]:
        for problem in mismatch.problems:
            message(f"row {mismatch.row}: {problem}")
        for difference in mismatch.differences:
            expected, found = difference.expected or "no level", difference.found or "no level"
            message(
                f"row {mismatch.row}: {difference.side} level {difference.level}: file {expected}, exchange {found}"
            )
    if report.mismatched > _MISMATCHES_SHOWN:
        message(f"... and {report.mismatched - _MISMATCHES_SHOWN} more rows that differ")
    if as_json:
        print_json(report)
        return
    rate = report.rows / report.seconds if report.seconds else 0.0
    lines = [
        ("rows", f"{report.rows:,}", "events of the file, each compared level by level"),
        ("matched", f"{report.matched:,}", ""),
        ("mismatched", f"{report.mismatched:,}", ""),
        ("revealed levels", f"{report.revealed_levels:,}", "came into view without a message; seeded"),
        ("vanished levels", f"{report.vanished_levels:,}", "went out of view for good; withdrawn"),
        ("orders", f"{report.orders:,}", "entered, signed, over TCP"),
        (
            "trades",
            f"{report.trades:,}",
            "each against the very order that the file names" if not report.mismatched else "",
        ),
        ("cancels", f"{report.cancels:,}", ""),
        ("amends", f"{report.amends:,}", ""),
        ("ignored", f"{report.ignored:,}", "hidden executions and auctions: not in the visible book"),
        ("seconds", f"{report.seconds:.3f}", f"{rate:,.0f} rows/s"),
    ]
    print_table((report.market, "", ""), lines, right=(1,))
