"""Commands of the operator about what is traded: `asset`, `market add`, `market set-sizes`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import click

from zexchange.cli.options import json_option
from zexchange.cli.output import message, print_json, print_table
from zexchange.cli.session import OPERATOR_KEY, Where, decimal, plain, session, session_options

MARKET_STATES = (
    "continuous",
    "halted",
    "closed",
    "pre-open",
    "auction",
    "closing-auction",
    "post-only",
    "expired",
)
_ID = click.IntRange(1, 2**32 - 1)
_FEE = click.IntRange(0, 1_000_000)
_SHARD = click.IntRange(0, 1023)


@click.group()
def asset() -> None:
    """List assets; add one.

    \b
    zexchange asset list
    zexchange asset add GOLD --decimals 4
    """


@asset.command("list")
@json_option
@session_options
def list_assets(data: Path, config_file: Path | None, connect: tuple[str, int] | None, as_json: bool) -> None:
    """List the assets. One base unit is 10^-DECIMALS.

    \b
    zexchange asset list
    """
    with session(Where(data, connect, None)) as client:
        rows = [
            {"asset": one.symbol, "asset_id": one.asset_id, "decimals": one.decimals} for one in client.assets
        ]
    if as_json:
        print_json(rows)
        return
    print_table(("ASSET", "ID", "DECIMALS"), [tuple(row.values()) for row in rows], right=(1, 2))


@asset.command("add")
@click.argument("symbol", metavar="ASSET")
@click.option("--decimals", type=click.IntRange(0, 18), required=True, help="One base unit is 10^-DECIMALS.")
@click.option("--id", "asset_id", type=_ID, default=None, help="The next free one by default.")
@click.option("--shard", "shards", type=_SHARD, multiple=True, help="All by default; may be repeated.")
@json_option
@session_options
def add_asset(
    symbol: str,
    decimals: int,
    asset_id: int | None,
    shards: tuple[int, ...],
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Add an asset on every shard; signed with the operator's key.

    A shard that has it already is passed over, so the command can be repeated if it failed half-way.

    \b
    zexchange asset add GOLD --decimals 4
    """
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        added = client.add_asset(symbol, decimals, asset_id=asset_id, shards=shards or None)
        found = client.asset(symbol)
    on = [one.shard for one in added]
    if as_json:
        print_json(
            {"asset": found.symbol, "asset_id": found.asset_id, "decimals": found.decimals, "added_on": on}
        )
        return
    where = f"added on shard {', '.join(map(str, on))}" if on else "was there already"
    click.echo(f"asset {found.asset_id} {found.symbol} {where}")
    message(f"list it: zexchange market add {found.symbol}-USD {found.symbol} USD --tick TICK --lot LOT")


@click.command("add")
@click.argument("symbol", metavar="MARKET")
@click.argument("base")
@click.argument("quote")
@click.option("--tick", type=decimal, required=True, help="Price step, in QUOTE for one BASE.")
@click.option("--lot", type=decimal, required=True, help="Quantity step, in BASE.")
@click.option(
    "--maker-fee", type=click.IntRange(-1_000_000, 1_000_000), default=0, help="Ppm; negative: a rebate."
)
@click.option("--taker-fee", type=_FEE, default=0, help="Ppm of the traded value.")
@click.option("--id", "market_id", type=_ID, default=None, help="The next free one by default.")
@click.option("--shard", type=_SHARD, default=0, show_default=True, help="Where it is traded.")
@click.option(
    "--state",
    type=click.Choice(MARKET_STATES),
    default="continuous",
    show_default=True,
    help="What it is brought to; `closed` leaves time to lay down rules first.",
)
@json_option
@session_options
def add_market(
    symbol: str,
    base: str,
    quote: str,
    tick: Decimal,
    lot: Decimal,
    maker_fee: int,
    taker_fee: int,
    market_id: int | None,
    shard: int,
    state: str,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Add a market and open it; signed with the operator's key. It can be traded at once, without any restart.

    \b
    zexchange market add GOLD-USD GOLD USD --tick 0.01 --lot 0.001 --taker-fee 500
    zexchange market add GOLD-USD GOLD USD --tick 0.01 --lot 0.001 --state closed
    """
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        added = client.add_market(
            symbol,
            base,
            quote,
            tick_size=tick,
            lot_size=lot,
            maker_fee_ppm=maker_fee,
            taker_fee_ppm=taker_fee,
            market_id=market_id,
            shard=shard,
            state=state.replace("-", "_"),  # type: ignore[arg-type]
        )
    if as_json:
        print_json(
            {"market": added.market, "market_id": added.market_id, "shard": added.shard, "state": state}
        )
        return
    click.echo(f"market {added.market_id} {added.market} added on shard {added.shard}, {state}")


@click.command("set-sizes")
@click.argument("symbol", metavar="MARKET")
@click.option("--tick", type=decimal, required=True, help="Price step, in the quote asset.")
@click.option("--lot", type=decimal, required=True, help="Quantity step, in the base asset.")
@json_option
@session_options
def set_market_sizes(
    symbol: str,
    tick: Decimal,
    lot: Decimal,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Change tick and lot of a market that is closed and has no orders; signed with the operator's key.

    Its last and reference price and its largest quantity are forgotten. Orders that were made for the sizes before are
    refused.

    \b
    zexchange market set-state BTC-USD closed
    zexchange market set-sizes BTC-USD --tick 0.5 --lot 0.001
    """
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        client.set_market_sizes(symbol, tick_size=tick, lot_size=lot)
        found = client.market(symbol)
    if as_json:
        print_json(
            {"market": found.symbol, "tick_size": plain(found.tick_size), "lot_size": plain(found.lot_size)}
        )
        return
    click.echo(f"{found.symbol} tick {plain(found.tick_size)}, lot {plain(found.lot_size)}")
