"""Command `bots`: traders with play money, so that a demo has a market. `zexchange up --demo` runs it as a process."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zexchange.cli import exits
from zexchange.cli.options import json_option
from zexchange.cli.output import message, print_json
from zexchange.cli.session import OPERATOR_KEY, Where, open_client, session_options

if TYPE_CHECKING:
    from nacl.signing import SigningKey

    from zexchange.client import Client
    from zexchange.runtime.paths import DataPaths

_FUNDS = {True: "100000000000", False: "1000000000"}
"""Of a quote asset, and of another; in units of the asset."""
_IDS_PER_MARKET = 2**40
_PAUSE_CHECK_S = 0.25
"""How often bots that pause look whether they may go on."""


@click.command()
@click.option(
    "--steps", type=click.IntRange(0), default=0, help="End after so many steps; 0 goes on until Ctrl-C."
)
@click.option(
    "--rate", type=click.FloatRange(0.1, 1_000), default=4.0, show_default=True, help="Steps a second."
)
@click.option(
    "--seed", type=int, default=None, help="Seed of what they do; another one each time without it."
)
@json_option
@session_options
def bots(
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    steps: int,
    rate: float,
    seed: int | None,
    as_json: bool,
) -> None:
    """Trade with play money in every market of a demo, until Ctrl-C, so that there is something to see.

    \b
    zexchange bots
    zexchange bots --rate 20

    They trade with the keys bots-maker and bots-taker of the data folder, which get accounts and play money. What they
    left in the books the last time is cancelled first. `zexchange up --demo` starts them with the exchange.
    """
    from zexchange.client import Client
    from zexchange.runtime.paths import DataPaths

    paths = DataPaths(data)
    with _runner(data, config_file) as runner:
        with open_client(Where(data, connect, OPERATOR_KEY)) as operator:
            genesis = operator.genesis
            if not genesis.name.startswith("demo"):
                raise exits.CommandFailed(f"{genesis.name!r} is no demo: bots trade with play money only")
            keys = [_key_with_money(paths, name, operator) for name in ("bots-maker", "bots-taker")]
        message(f"trading {len(genesis.markets)} markets; Ctrl-C ends it")
        maker, taker = (
            Client.local(data, key) if connect is None else Client(*connect, key=key) for key in keys
        )
        with maker, taker:
            maker.cancel_all()
            runner.ready()
            begun = int(time.time()) if seed is None else seed
            done = _trade(runner, maker, taker, begun, steps, rate, paths.bots_paused)
    if as_json:
        print_json({"markets": len(genesis.markets), "steps": done})
    else:
        click.echo(f"{done:,} steps")


class _Runner:
    """How the command learns that it is to end: by a signal, alone or as a process of an exchange."""

    def __init__(
        self, stopping: Callable[[], bool], wait: Callable[[float], object], ready: Callable[[], None]
    ) -> None:
        self.stopping = stopping
        self.wait = wait
        self.ready = ready


@contextmanager
def _runner(data: Path, config_file: Path | None) -> Iterator[_Runner]:
    from zexchange.runtime.process import READY_FD_ENV, process_context

    if READY_FD_ENV in os.environ:
        with process_context("bots", data, config_file) as context:
            yield _Runner(
                lambda: context.stopping,
                lambda seconds: select.select([context.stop_fd], [], [], seconds),
                context.ready,
            )
        return
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopping.set())
    yield _Runner(stopping.is_set, stopping.wait, lambda: None)


def _key_with_money(paths: DataPaths, name: str, operator: Client) -> SigningKey:
    """The key with this name, made if there is none; its account has play money of every asset."""
    from zexchange.client import Rejected, load_key, new_key
    from zexchange.client.rejections import KeyExists

    file = paths.key(name)
    key = load_key(file) if file.exists() else new_key(file)
    genesis = operator.genesis
    try:
        account_id = operator.open_account(key.verify_key).account_id
    except KeyExists:
        return key
    quotes = {market.quote_asset_id for market in genesis.markets}
    for asset in genesis.assets:
        for shard in range(genesis.shards):
            try:
                operator.deposit(account_id, asset.symbol, _FUNDS[asset.asset_id in quotes], shard=shard)
            except Rejected as refusal:
                message(f"no {asset.symbol} for account {account_id}: {refusal}")
    return key


def _trade(
    runner: _Runner, maker: Client, taker: Client, seed: int, steps: int, rate: float, paused: Path
) -> int:
    """Trades every market step by step until it is to end; while the file `paused` exists there is no order of theirs.
    Returns the number of steps."""
    from zexchange.replay.bots import Bots

    genesis = maker.genesis
    next_seed, done = seed, 0
    flows: list[Bots] = []
    while not runner.stopping() and (steps == 0 or done < steps):
        if paused.exists():
            if flows:
                maker.cancel_all()
                flows = []
            runner.wait(_PAUSE_CHECK_S)
            continue
        if not flows:
            flows = [
                Bots(
                    market,
                    genesis.asset(market.base_asset_id).symbol,
                    next_seed + at,
                    1 + at * _IDS_PER_MARKET,
                )
                for at, market in enumerate(maker.markets[: len(genesis.markets)])  # with the sizes of now
            ]
            next_seed += len(flows)
        for flow in flows:
            maker.submit(flow.quote())
            orders = flow.take()
            if orders:
                taker.submit(orders)
        done += 1
        runner.wait(1 / rate)
    maker.cancel_all()
    return done
