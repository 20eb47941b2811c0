"""Commands of the operator: user, deposit, withdraw, market; signed with the operator's key."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zexchange.cli import exits
from zexchange.cli.definitions import MARKET_STATES, add_market, set_market_sizes
from zexchange.cli.keys import default_key, key_path
from zexchange.cli.options import json_option
from zexchange.cli.output import message, print_json, print_table
from zexchange.cli.session import OPERATOR_KEY, Where, decimal, plain, session, session_options

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from zexchange.client import Deposited, Withdrawn


_ID = click.IntRange(1, 2**64 - 1)
_SECONDS = click.FloatRange(min=0, min_open=True, max=1e9)
_PPM = click.IntRange(0, 999_999)
_shard_option = click.option(
    "--shard",
    type=click.IntRange(0, 1023),
    default=0,
    show_default=True,
    help="Funds are held per shard; `market list` shows which one a market is on.",
)


# ---------------------------------------------------------------- operator


@click.group()
def user() -> None:
    """Open accounts and register keys; signed with the operator's key.

    \b
    zexchange user open alice
    """


@user.command("set-rules")
@click.argument("account_id", type=click.IntRange(1, 2**24 - 1))
@click.option(
    "--fee-discount", type=click.IntRange(0, 1_000_000), default=0, help="Ppm of each fee not taken."
)
@click.option(
    "--group", type=click.IntRange(0, 2**32 - 1), default=0, help="Its accounts do not trade together."
)
@click.option("--max-orders", type=click.IntRange(0, 2**32 - 1), default=0, help="Open orders on the shard.")
@click.option(
    "--max-rate", type=click.IntRange(0, 2**32 - 1), default=0, help="New orders and amends a second."
)
@_shard_option
@json_option
@session_options
def set_account_rules(
    account_id: int,
    fee_discount: int,
    group: int,
    max_orders: int,
    max_rate: int,
    shard: int,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Fee discount, trade group and limits of an account, all of them anew: what is left out is none.

    \b
    zexchange user set-rules 7 --fee-discount 250000 --max-rate 100
    """
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        done = client.set_account_rules(
            account_id,
            fee_discount_ppm=fee_discount,
            trade_group=group,
            max_open_orders=max_orders,
            max_orders_per_second=max_rate,
            shard=shard,
        )
    if as_json:
        print_json({"account_id": done.account_id})
        return
    click.echo(f"account {done.account_id} has new rules")


@user.command("open")
@click.argument("name", required=False)
@click.option("--key", "key_name", default=None, metavar="NAME", help="Key of the account; the same as NAME.")
@click.option(
    "--public-key", default=None, metavar="HEX", help="Public key, if the private one is elsewhere."
)
@click.option(
    "--account-id", type=click.IntRange(1, 2**24 - 1), default=None, help="The next free one by default."
)
@json_option
@session_options
def open_account(
    name: str | None,
    key_name: str | None,
    public_key: str | None,
    account_id: int | None,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Open an account for a key.

    \b
    zexchange user open alice
    zexchange user open --public-key 3b6a27bc...
    """
    if name and key_name and name != key_name:
        raise click.UsageError("NAME and --key name two keys")
    name = name or key_name
    if name and public_key:
        raise click.UsageError("name a key or give --public-key HEX, not both")
    if not public_key:
        name = name or default_key()
    raw = _public_key(data, name, public_key)
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        opened = client.open_account(raw, account_id)
    if as_json:
        print_json({"account_id": opened.account_id, "public_key": raw})
        return
    click.echo(f"account {opened.account_id}")
    message(f"fund it: zexchange deposit {name or opened.account_id} ASSET AMOUNT")


@user.command("add-key")
@click.argument("account")
@click.argument("name", required=False)
@click.option(
    "--public-key", default=None, metavar="HEX", help="Public key, if the private one is elsewhere."
)
@json_option
@session_options
def add_key(
    account: str,
    name: str | None,
    public_key: str | None,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Let another key sign for an account, which is named by number or by a key of it.

    \b
    zexchange user add-key alice alice-laptop
    """
    if (name is None) == (public_key is None):
        raise click.UsageError("name a key, or give --public-key HEX")
    raw = _public_key(data, name, public_key)
    account_id = _account_id(data, connect, account)
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        client.register_key(account_id, raw)
    if as_json:
        print_json({"account_id": account_id, "public_key": raw})
        return
    click.echo(f"account {account_id}")


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="[ACCOUNT] ASSET AMOUNT")
@click.option(
    "--key", "key_name", default=None, metavar="NAME", help="A key of the account, instead of ACCOUNT."
)
@_shard_option
@json_option
@session_options
def deposit(
    what: tuple[str, ...],
    key_name: str | None,
    shard: int,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Credit an account; signed with the operator's key. ACCOUNT is a number or the name of a key.

    \b
    zexchange deposit alice USD 100000
    zexchange deposit 7 BTC 1.5
    """
    account, asset, amount = _transfer(what, key_name)
    account_id = _account_id(data, connect, account)
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        _print_transfer(client.deposit(account_id, asset, amount, shard=shard), "deposited", as_json)


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="[ACCOUNT] ASSET AMOUNT")
@click.option(
    "--key", "key_name", default=None, metavar="NAME", help="A key of the account, instead of ACCOUNT."
)
@_shard_option
@json_option
@session_options
def withdraw(
    what: tuple[str, ...],
    key_name: str | None,
    shard: int,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Debit an account; signed with the operator's key. ACCOUNT is a number or the name of a key.

    \b
    zexchange withdraw alice USD 500
    """
    account, asset, amount = _transfer(what, key_name)
    account_id = _account_id(data, connect, account)
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        _print_transfer(client.withdraw(account_id, asset, amount, shard=shard), "withdrawn", as_json)


@click.group()
def market() -> None:
    """List markets; add, open, close or halt one.

    \b
    zexchange market list
    zexchange market add GOLD-USD GOLD USD --tick 0.01 --lot 0.001
    zexchange market set-state BTC-USD halted
    """


@market.command("list")
@json_option
@session_options
def list_markets(
    data: Path, config_file: Path | None, connect: tuple[str, int] | None, as_json: bool
) -> None:
    """List the markets with their state, steps and fees.

    \b
    zexchange market list
    """
    with session(Where(data, connect, None)) as client:
        rows = [
            {
                "market": found.symbol,
                "state": client.book(found.symbol, levels=1).state,
                "tick_size": plain(found.tick_size),
                "lot_size": plain(found.lot_size),
                "maker_fee_ppm": found.maker_fee_ppm,
                "taker_fee_ppm": found.taker_fee_ppm,
                "shard": found.shard,
            }
            for found in client.markets
        ]
    if as_json:
        print_json(rows)
        return
    header = ("MARKET", "STATE", "TICK", "LOT", "MAKER PPM", "TAKER PPM", "SHARD")
    print_table(header, [tuple(row.values()) for row in rows], right=range(2, 7))


@market.command("set-state")
@click.argument("symbol", metavar="MARKET")
@click.argument("state", type=click.Choice(MARKET_STATES))
@click.option("--for", "seconds", type=_SECONDS, default=None, help="Ends by itself after so many seconds.")
@json_option
@session_options
def set_state(
    symbol: str,
    state: str,
    seconds: float | None,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Bring a market to a state; signed with the operator's key.

    A continuous market trades; a halted or closed one takes only cancels; pre-open and auctions collect orders. Which
    state may follow which is in docs/rules.md.

    \b
    zexchange market set-state BTC-USD halted
    zexchange market set-state BTC-USD auction --for 300
    """
    until_ns = None if seconds is None else time.time_ns() + round(seconds * 1e9)
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        done = client.set_market_state(symbol, state.replace("-", "_"), until_ns=until_ns)  # type: ignore[arg-type]
    if as_json:
        print_json({"market": done.market, "state": done.state})
        return
    click.echo(f"{done.market} {done.state}")


@market.command("set-reference")
@click.argument("symbol", metavar="MARKET")
@click.argument("price", type=decimal)
@json_option
@session_options
def set_reference(
    symbol: str,
    price: Decimal,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Feed a market's reference price: stops may wait for it, and the static band is around it.

    \b
    zexchange market set-reference BTC-USD 64000
    """
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        done = client.set_reference_price(symbol, price)
    if as_json:
        print_json({"market": done.market, "price": done.price})
        return
    click.echo(f"{done.market} reference price {plain(done.price)}")


@market.command("set-rules")
@click.argument("symbol", metavar="MARKET")
@click.option("--dynamic-band", type=_PPM, default=0, help="Ppm that a trade may be from the last one.")
@click.option("--static-band", type=_PPM, default=0, help="Ppm that a trade may be from the reference price.")
@click.option("--interruption", type=_SECONDS, default=None, help="How long an auction after a band lasts.")
@click.option("--max-quantity", type=decimal, default=None, help="Of an order.")
@click.option("--max-notional", type=decimal, default=None, help="Of an order, in the quote asset.")
@click.option("--max-orders", type=click.IntRange(0, 2**32 - 1), default=0, help="Open orders of an account.")
@json_option
@session_options
def set_rules(
    symbol: str,
    dynamic_band: int,
    static_band: int,
    interruption: float | None,
    max_quantity: Decimal | None,
    max_notional: Decimal | None,
    max_orders: int,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Price bands and limits of a market, all of them anew: what is left out is none.

    \b
    zexchange market set-rules BTC-USD --dynamic-band 50000 --interruption 120
    """
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        done = client.set_market_rules(
            symbol,
            dynamic_band_ppm=dynamic_band,
            static_band_ppm=static_band,
            interruption_ns=0 if interruption is None else round(interruption * 1e9),
            max_quantity=max_quantity,
            max_notional=max_notional,
            max_open_orders=max_orders,
        )
    if as_json:
        print_json({"market": done.market})
        return
    click.echo(f"{done.market} has new rules")


market.add_command(add_market)
market.add_command(set_market_sizes)


# ---------------------------------------------------------------- parts


def _public_key(data: Path, name: str | None, public_key: str | None) -> bytes:
    from zexchange.client.keys import load_key

    if name is not None:
        return bytes(load_key(key_path(data, name)).verify_key)
    try:
        raw = bytes.fromhex(public_key or "")
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise click.BadParameter("a public key is 64 hexadecimal characters", param_hint="--public-key")
    return raw


def _account_id(data: Path, connect: tuple[str, int] | None, account: str) -> int:
    """An account's number: given as such, or that of a key, which the exchange is asked for."""
    if account.isascii() and account.isdigit():
        return int(account)
    with session(Where(data, connect, account)) as client:
        if client.account_id is None:
            raise exits.CommandFailed(
                f"key {account!r} has no account yet: zexchange user open {account}", exits.REJECTED
            )
        return client.account_id


def _transfer(what: tuple[str, ...], key_name: str | None) -> tuple[str, str, Decimal]:
    """(account, asset, amount) of a deposit or withdrawal."""
    words = what if key_name is None and len(what) == 3 else (key_name or default_key(), *what)
    if len(words) != 3:
        raise click.UsageError("say ACCOUNT ASSET AMOUNT, or --key NAME ASSET AMOUNT")
    account, asset, amount = words
    return account, asset, decimal(amount)


def _print_transfer(done: Deposited | Withdrawn, verb: str, as_json: bool) -> None:
    if as_json:
        print_json({"account_id": done.account_id, "asset": done.asset, "amount": done.amount})
        return
    click.echo(f"{verb} {plain(done.amount)} {done.asset}, account {done.account_id}")
