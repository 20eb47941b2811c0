"""Command `bots`: traders with play money, so that a demo has a market. `zexchange up --demo` runs it as a process."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zexchange.cli import exits
from zexchange.cli.options import json_option
from zexchange.cli.output import message, print_json
from zexchange.cli.session import OPERATOR_KEY, Where, open_client, session_options
from zexchange.limits import AMOUNT_MAX

if TYPE_CHECKING:
    from nacl.signing import SigningKey

    from zexchange.client import Client
    from zexchange.genesis import Market
    from zexchange.replay.bots import Bots
    from zexchange.runtime.paths import DataPaths

_FUNDS = {True: 100_000_000_000, False: 1_000_000_000}
"""Of a quote asset, and of another; in units of the asset."""
_SUPPLY_SHARE = 20
"""No more than this part of what there can be of an asset."""
_IDS_PER_MARKET = 2**40
_PAUSE_CHECK_S = 0.25
"""How often bots that pause look whether they may go on."""
_LOOK_S = 1.0
"""How often bots that trade look for new markets and other sizes."""


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
    left in the books the last time is cancelled first. Markets that are added meanwhile are traded too.
    `zexchange up --demo` starts them with the exchange.
    """
    from zexchange.client import Client
    from zexchange.runtime.paths import DataPaths

    paths = DataPaths(data)
    with _runner(data, config_file) as runner:
        with open_client(Where(data, connect, OPERATOR_KEY)) as operator:
            genesis = operator.genesis
            if not genesis.name.startswith("demo"):
                raise exits.CommandFailed(f"{genesis.name!r} is no demo: bots trade with play money only")
            keys = [_key_with_account(paths, name, operator) for name in ("bots-maker", "bots-taker")]
        maker, taker = (
            Client.local(data, key) if connect is None else Client(*connect, key=key) for key in keys
        )
        with maker, taker:
            maker.cancel_all()
            begun = int(time.time()) if seed is None else seed
            trading = _Trading(maker, taker, lambda: open_client(Where(data, connect, OPERATOR_KEY)), begun)
            trading.look()
            message(f"trading {len(trading.flows)} markets; Ctrl-C ends it")
            runner.ready()
            done = trading.run(runner, steps, rate, paths.bots_paused)
    if as_json:
        print_json({"markets": len(maker.markets), "steps": done})
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


def _key_with_account(paths: DataPaths, name: str, operator: Client) -> SigningKey:
    """The key with this name, made if there is none; it has an account."""
    from zexchange.client import load_key, new_key
    from zexchange.client.rejections import KeyExists

    file = paths.key(name)
    key = load_key(file) if file.exists() else new_key(file)
    with suppress(KeyExists):
        operator.open_account(key.verify_key)
    return key


class _Trading:
    """A maker and a taker in every market that there is."""

    def __init__(self, maker: Client, taker: Client, open_operator: Callable[[], Client], seed: int) -> None:
        self._maker = maker
        self._taker = taker
        self._open_operator = open_operator
        self._next_seed = seed
        self.flows: dict[int, Bots] = {}
        """By market id."""
        self._resting: set[int] = set()
        """Markets that take no orders now."""

    def run(self, runner: _Runner, steps: int, rate: float, paused: Path) -> int:
        """Step by step until it is to end; while the file `paused` exists there is no order of theirs. Returns the
        number of steps."""
        steps_between_looks = max(1, round(_LOOK_S * rate))
        done = 0
        while not runner.stopping() and (steps == 0 or done < steps):
            if paused.exists():
                if self.flows:
                    self._maker.cancel_all()
                    self.flows = {}
                runner.wait(_PAUSE_CHECK_S)
                continue
            if done % steps_between_looks == 0 or not self.flows:
                self.look()
            for flow in self.flows.values():
                if flow.market.market_id not in self._resting:
                    self._step(flow)
            done += 1
            runner.wait(1 / rate)
        self._maker.cancel_all()
        return done

    def look(self) -> None:
        """What is there to be traded now; play money for it where there is none."""
        from zexchange.replay.bots import Bots

        for one in (self._maker, self._taker):
            one.refresh()
        self._resting.clear()
        new = [market for market in self._maker.markets if market.market_id not in self.flows]
        if new:
            self._fund()
        for at, market in enumerate(self._maker.markets):
            flow = self.flows.get(market.market_id)
            if flow is None:
                middle = self._price(market)
                self.flows[market.market_id] = Bots(market, middle, self._next_seed, 1 + at * _IDS_PER_MARKET)
                self._next_seed += 1
            else:
                flow.market = market

    def _step(self, flow: Bots) -> None:
        from zexchange.client import Rejected

        outcomes = self._maker.submit(flow.quote())
        if all(isinstance(one, Rejected) for one in outcomes):
            # The market is closed or halted, or has other sizes: nothing is left in it, and it is tried again later.
            self._maker.cancel_all(flow.market.symbol)
            flow.forget()
            self._resting.add(flow.market.market_id)
            return
        orders = flow.take()
        if orders:
            self._taker.submit(orders)

    def _price(self, market: Market) -> Decimal:
        """Where it stands: there may be orders of others."""
        from zexchange.replay.bots import start_price

        trades = self._maker.trades(market.symbol, 1)
        if trades:
            return trades[0].price
        book = self._maker.book(market.symbol, 1)
        best = [side[0].price for side in (book.bids, book.asks) if side]
        if best:
            return sum(best, Decimal(0)) / len(best)
        return start_price(market, self._maker.asset(market.base_asset_id).symbol)

    def _fund(self) -> None:
        """Play money of every asset of which a bot has none."""
        from zexchange.client import Rejected

        quotes = {market.quote_asset_id for market in self._maker.markets}
        wanted = []
        for one in (self._maker, self._taker):
            has = {row.asset for row in one.balances()}
            wanted += [(one.account_id, asset) for asset in one.assets if asset.symbol not in has]
        if not wanted:
            return
        with self._open_operator() as operator:
            for account_id, asset in wanted:
                if account_id is None:
                    continue
                most = Decimal(AMOUNT_MAX // _SUPPLY_SHARE).scaleb(-asset.decimals)
                amount = min(Decimal(_FUNDS[asset.asset_id in quotes]), most)
                for shard in range(operator.genesis.shards):
                    try:
                        operator.deposit(account_id, asset.symbol, amount, shard=shard)
                    except Rejected as refusal:
                        message(f"no {asset.symbol} for account {account_id}: {refusal}")
