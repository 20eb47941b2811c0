"""Command `bots`: traders with play money, so that a demo has a market."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import click

from zexchange.cli import exits
from zexchange.cli.options import json_option
from zexchange.cli.output import message, print_json
from zexchange.cli.session import OPERATOR_KEY, Where, open_client, session_options

_FUNDS = {True: "100000000000", False: "1000000000"}
"""Of a quote asset, and of another; in units of the asset."""
_IDS_PER_MARKET = 2**40


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
    """
    from nacl.signing import SigningKey

    from zexchange.client import Client, Rejected
    from zexchange.replay.bots import Bots

    def session_of(key: SigningKey) -> Client:
        return Client.local(data, key) if connect is None else Client(*connect, key=key)

    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopping.set())
    keys = [SigningKey.generate() for _ in range(2)]
    with open_client(Where(data, connect, OPERATOR_KEY)) as operator:
        genesis = operator.genesis
        if not genesis.name.startswith("demo"):
            raise exits.CommandFailed(f"{genesis.name!r} is no demo: bots trade with play money only")
        markets, assets = operator.markets, {asset.asset_id: asset for asset in operator.assets}
        quotes = {market.quote_asset_id for market in markets}
        for key in keys:
            account_id = operator.open_account(key.verify_key).account_id
            for asset in assets.values():
                amount = _FUNDS[asset.asset_id in quotes]
                for shard in range(genesis.shards):
                    try:
                        operator.deposit(account_id, asset.symbol, amount, shard=shard)
                    except Rejected as refusal:
                        message(f"no {asset.symbol} for account {account_id}: {refusal}")
    begun = int(time.time()) if seed is None else seed
    flows = [
        Bots(market, assets[market.base_asset_id].symbol, begun + at, 1 + at * _IDS_PER_MARKET)
        for at, market in enumerate(markets)
    ]
    message(f"trading {len(flows)} markets; Ctrl-C ends it")
    with session_of(keys[0]) as maker, session_of(keys[1]) as taker:
        done = 0
        while not stopping.is_set() and (steps == 0 or done < steps):
            for flow in flows:
                maker.submit(flow.quote())
                orders = flow.take()
                if orders:
                    taker.submit(orders)
            done += 1
            stopping.wait(1 / rate)
        maker.cancel_all()
    if as_json:
        print_json({"markets": len(flows), "steps": done})
    else:
        click.echo(f"{done:,} steps")
