"""Commands that use an exchange: user, deposit, withdraw, market, order, balance, book, trades."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zexchange.cli import exits
from zexchange.cli.keys import default_key, key_path
from zexchange.cli.options import json_option
from zexchange.cli.output import message, print_json, print_table
from zexchange.cli.session import OPERATOR_KEY, Where, decimal, key_option, plain, session, session_options

if TYPE_CHECKING:
    from zexchange.client import Client, Deposited, Order, OrderResult, Withdrawn


_ID = click.IntRange(1, 2**64 - 1)
_SECONDS = click.FloatRange(min=0, min_open=True, max=1e9)
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
    """List markets; open, close or halt one.

    \b
    zexchange market list
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
                "tick_size": found.tick_size,
                "lot_size": found.lot_size,
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
@click.argument("state", type=click.Choice(["continuous", "halted", "closed"]))
@json_option
@session_options
def set_state(
    symbol: str,
    state: str,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Let a market trade (continuous), or only cancel (halted, closed); signed with the operator's key.

    \b
    zexchange market set-state BTC-USD halted
    """
    with session(Where(data, connect, OPERATOR_KEY)) as client:
        done = client.set_market_state(symbol, state)  # type: ignore[arg-type]  # click has checked it
    if as_json:
        print_json({"market": done.market, "state": done.state})
        return
    click.echo(f"{done.market} {done.state}")


# ---------------------------------------------------------------- orders


@click.group()
def order() -> None:
    """Buy, sell, amend, cancel and list orders.

    \b
    zexchange order buy BTC-USD 0.5 64000 --key alice
    zexchange order list --key alice
    zexchange order cancel 17 --key alice
    """


def _time_in_force(tif: str | None, expires: float | None, market_order: bool) -> str:
    if expires is not None:
        return "gtd"
    return tif or ("ioc" if market_order else "gtc")


def _enter_command(side: str) -> click.Command:
    """`order buy` and `order sell`: the same command twice."""

    @click.argument("symbol", metavar="MARKET")
    @click.argument("quantity", type=decimal)
    @click.argument("price_argument", metavar="[PRICE]", type=decimal, required=False)
    @click.option("--price", type=decimal, default=None, help="Limit price; the same as PRICE.")
    @click.option("--market-order", is_flag=True, help="Trade at once at the best prices; needs --protect.")
    @click.option("--protect", type=decimal, default=None, help="Worst price a market order may trade at.")
    @click.option(
        "--tif",
        type=click.Choice(["gtc", "day", "ioc", "fok"]),
        default=None,
        help="Good till cancelled (default), till midnight UTC, immediate or cancel, fill or kill.",
    )
    @click.option("--expires", type=_SECONDS, default=None, help="Cancel what is left after so many seconds.")
    @click.option("--post-only", is_flag=True, help="Refuse the order if it would trade on entry.")
    @click.option("--slide", is_flag=True, help="With --post-only: take the next price that does not trade.")
    @click.option("--display", type=decimal, default=None, help="Iceberg: show so much at a time.")
    @click.option("--hidden", is_flag=True, help="Show nothing.")
    @click.option(
        "--min", "minimum", type=decimal, default=None, help="With --tif ioc: fill at least so much."
    )
    @click.option(
        "--spend", type=decimal, default=None, help="Market buy: spend at most so much, fees included."
    )
    @click.option("--stop", type=decimal, default=None, help="Wait until the price comes here against you.")
    @click.option(
        "--take-profit", type=decimal, default=None, help="Wait until the price comes here for you."
    )
    @click.option(
        "--trail", type=decimal, default=None, help="A stop that follows the price at this distance."
    )
    @click.option("--on-reference", is_flag=True, help="Wait for the operator's reference price, not trades.")
    @click.option(
        "--stp",
        type=click.Choice(["cancel_newest", "cancel_oldest", "cancel_both", "decrement"]),
        default="cancel_newest",
        help="What happens instead of a trade with your own account.",
    )
    @click.option("--client-order-id", type=_ID, default=None, help="Your own number for the order.")
    @key_option
    @json_option
    @session_options
    def enter(
        symbol: str,
        quantity: Decimal,
        price_argument: Decimal | None,
        price: Decimal | None,
        market_order: bool,
        protect: Decimal | None,
        tif: str | None,
        expires: float | None,
        post_only: bool,
        slide: bool,
        display: Decimal | None,
        hidden: bool,
        minimum: Decimal | None,
        spend: Decimal | None,
        stop: Decimal | None,
        take_profit: Decimal | None,
        trail: Decimal | None,
        on_reference: bool,
        stp: str,
        client_order_id: int | None,
        key: str,
        data: Path,
        config_file: Path | None,
        connect: tuple[str, int] | None,
        as_json: bool,
    ) -> None:
        if price is not None and price_argument is not None:
            raise click.UsageError("the price is given twice")
        limit = price if price is not None else price_argument
        if market_order:
            if limit is not None or (protect is None and spend is None):
                raise click.UsageError(
                    "a market order has no price; say the worst one with --protect, or what to --spend at most"
                )
            limit = protect
        elif limit is None:
            raise click.UsageError("give a price, or --market-order --protect PRICE")
        elif protect is not None or spend is not None:
            raise click.UsageError("--protect and --spend go with --market-order")
        triggers = {"stop": stop, "take_profit": take_profit, "trailing": trail}
        chosen = [name for name, price_of_it in triggers.items() if price_of_it is not None]
        if len(chosen) > 1:
            raise click.UsageError("an order waits for one thing: --stop, --take-profit or --trail")
        if expires is not None and tif is not None:
            raise click.UsageError("--expires is a time in force of its own")
        from zexchange.client import NewOrder
        from zexchange.client.rejections import Rejected

        command = NewOrder(
            market=symbol,
            side=side,  # type: ignore[arg-type]
            quantity=quantity,
            price=limit,
            order_type="market" if market_order else "limit",
            time_in_force=_time_in_force(tif, expires, market_order),  # type: ignore[arg-type]
            expire_time_ns=None if expires is None else time.time_ns() + round(expires * 1e9),
            post_only=post_only,
            slide=slide,
            display=display,
            hidden=hidden,
            min_quantity=minimum,
            max_notional=spend,
            trigger=chosen[0] if chosen else None,  # type: ignore[arg-type]
            trigger_price=stop if stop is not None else take_profit,
            trail=trail,
            on_reference=on_reference,
            self_trade_prevention=stp,  # type: ignore[arg-type]
            client_order_id=client_order_id,
        )
        with session(Where(data, connect, key)) as client:
            (outcome,) = client.submit([command])
            if isinstance(outcome, Rejected):
                raise outcome
            _print_order(client, outcome, as_json)  # type: ignore[arg-type]

    enter.__doc__ = f"""Enter an order to {side}. QUANTITY is of the base asset, PRICE in the quote asset.

    \b
    zexchange order {side} BTC-USD 0.5 64000 --key alice
    zexchange order {side} BTC-USD 0.5 --market-order --protect 64100 --key alice
    zexchange order {side} BTC-USD 0.5 64000 --stop 63000 --expires 3600 --key alice
    zexchange order {side} BTC-USD 0.5 64000 --display 0.05 --key alice
    """
    return click.command(side)(enter)


buy = _enter_command("buy")
sell = _enter_command("sell")
order.add_command(buy)
order.add_command(sell)


@order.command()
@click.argument("order_id", type=_ID, required=False)
@click.option("--client-order-id", type=_ID, default=None, help="Name the order by your own number.")
@click.option("--all", "everything", is_flag=True, help="Cancel every open order.")
@click.option("--market", "symbol", default=None, metavar="MARKET", help="With --all: only of this market.")
@click.option("--side", type=click.Choice(["buy", "sell"]), default=None, help="With --all: only this side.")
@key_option
@json_option
@session_options
def cancel(
    order_id: int | None,
    client_order_id: int | None,
    everything: bool,
    symbol: str | None,
    side: str | None,
    key: str,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Cancel one order, or all of them.

    \b
    zexchange order cancel 17 --key alice
    zexchange order cancel --all --market BTC-USD --key alice
    """
    named = order_id is not None or client_order_id is not None
    if named == everything:
        raise click.UsageError("name an order, or say --all")
    if side is not None and not everything:
        raise click.UsageError("--side goes with --all")
    with session(Where(data, connect, key)) as client:
        if everything:
            count = client.cancel_all(symbol, side)  # type: ignore[arg-type]
            if as_json:
                print_json({"cancelled": count})
            else:
                click.echo(f"{count} cancelled")
            return
        done = client.cancel(order_id=order_id, client_order_id=client_order_id, market=symbol)
    if as_json:
        print_json(done)
        return
    rest = "" if done.cancelled is None else f"  {plain(done.cancelled)} {done.market} taken away"
    click.echo(f"order {done.order_id}  cancelled{rest}, {plain(done.filled)} filled before")


@order.command()
@click.argument("order_id", type=_ID, required=False)
@click.option("--client-order-id", type=_ID, default=None, help="Name the order by your own number.")
@click.option("--price", type=decimal, default=None, help="New price.")
@click.option("--quantity", type=decimal, default=None, help="New total quantity, fills included.")
@click.option("--post-only", is_flag=True, help="Refuse the change if the order would trade.")
@click.option("--market", "symbol", default=None, metavar="MARKET", help="Its market: saves a look-up.")
@key_option
@json_option
@session_options
def amend(
    order_id: int | None,
    client_order_id: int | None,
    price: Decimal | None,
    quantity: Decimal | None,
    post_only: bool,
    symbol: str | None,
    key: str,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Change price, total quantity or both. Only a smaller quantity at the same price keeps the place in the queue.

    \b
    zexchange order amend 17 --price 63990 --key alice
    zexchange order amend 17 --quantity 0.2 --key alice
    """
    if order_id is None and client_order_id is None:
        raise click.UsageError("name an order")
    if price is None and quantity is None:
        raise click.UsageError("give --price, --quantity or both")
    with session(Where(data, connect, key)) as client:
        done = client.amend(
            order_id,
            client_order_id=client_order_id,
            price=price,
            quantity=quantity,
            post_only=post_only,
            market=symbol,
        )
        _print_order(client, done, as_json)


@order.command("list")
@click.option("--market", "symbol", default=None, metavar="MARKET", help="Only of this market.")
@key_option
@json_option
@session_options
def list_orders(
    symbol: str | None,
    key: str,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """List the open orders of the account, oldest first.

    \b
    zexchange order list --key alice
    """
    with session(Where(data, connect, key)) as client:
        orders = client.open_orders(symbol)
    if as_json:
        print_json(orders)
        return
    if not orders:
        message("no open orders")
        return
    print_table(
        ("ORDER", "CLIENT ID", "MARKET", "SIDE", "PRICE", "QUANTITY", "FILLED", "OPEN", "TERMS"),
        [
            (
                one.order_id,
                one.client_order_id or "-",
                one.market,
                one.side,
                plain(one.price),
                plain(one.quantity),
                plain(one.filled),
                plain(one.remaining),
                _terms(one) or "-",
            )
            for one in orders
        ],
        right=(0, 1, 4, 5, 6, 7),
    )


def _terms(order: Order) -> str:
    """What an order has besides price and quantity."""
    parts = []
    if order.trigger is not None:
        at = "" if order.trigger_price is None else f" {plain(order.trigger_price)}"
        parts.append(f"{order.trigger}{at}")
    if order.display is not None:
        parts.append(f"shows {plain(order.display)}")
    if order.hidden:
        parts.append("hidden")
    if order.expire_time_ns is not None:
        parts.append(order.time_in_force)
    if order.is_paired:
        parts.append("paired")
    return ", ".join(parts)


# ---------------------------------------------------------------- looking


@click.command()
@key_option
@json_option
@session_options
def balance(
    key: str, data: Path, config_file: Path | None, connect: tuple[str, int] | None, as_json: bool
) -> None:
    """Show the balances of the key's account.

    \b
    zexchange balance --key alice
    """
    with session(Where(data, connect, key)) as client:
        rows = client.balances()
        account_id = client.account_id
    if as_json:
        print_json(
            {
                "account_id": account_id,
                "balances": [
                    {"asset": row.asset, "available": row.available, "held": row.held, "total": row.total}
                    for row in rows
                ],
            }
        )
        return
    if not rows:
        message(f"account {account_id} holds nothing; fund it: zexchange deposit {account_id} ASSET AMOUNT")
        return
    print_table(
        ("ASSET", "AVAILABLE", "HELD", "TOTAL"),
        [(row.asset, plain(row.available), plain(row.held), plain(row.total)) for row in rows],
        right=(1, 2, 3),
    )


@click.command()
@click.argument("symbol", metavar="MARKET")
@click.option("--levels", type=click.IntRange(1, 500), default=10, show_default=True, help="Levels a side.")
@json_option
@session_options
def book(
    symbol: str,
    levels: int,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Show the order book of a market, best prices in the middle.

    \b
    zexchange book BTC-USD
    zexchange book BTC-USD --levels 50 --json
    """
    with session(Where(data, connect, None)) as client:
        found = client.book(symbol, levels)
    if as_json:
        print_json(found)
        return
    message(f"{found.market} {found.state}")
    rows: list[tuple[str, str, str, int]] = []
    for side, side_levels in (("sell", tuple(reversed(found.asks))), ("buy", found.bids)):
        rows += [(side, plain(level.price), plain(level.quantity), level.orders) for level in side_levels]
    if not rows:
        message("the book is empty")
        return
    print_table(("SIDE", "PRICE", "QUANTITY", "ORDERS"), rows, right=(1, 2, 3))


@click.command()
@click.argument("symbol", metavar="MARKET")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="At most so many.")
@json_option
@session_options
def trades(
    symbol: str,
    limit: int,
    data: Path,
    config_file: Path | None,
    connect: tuple[str, int] | None,
    as_json: bool,
) -> None:
    """Show the last trades of a market, newest first.

    \b
    zexchange trades BTC-USD
    """
    with session(Where(data, connect, None)) as client:
        found = client.trades(symbol, limit)
    if as_json:
        print_json(found)
        return
    if not found:
        message("no trades yet")
        return
    print_table(
        ("TRADE", "TIME", "TAKER", "PRICE", "QUANTITY"),
        [
            (one.trade_id, utc(one.time_ns), one.taker_side, plain(one.price), plain(one.quantity))
            for one in found
        ],
        right=(0, 3, 4),
    )


# ---------------------------------------------------------------- parts


def utc(time_ns: int) -> str:
    """RFC 3339 with microseconds."""
    from datetime import UTC, datetime

    seconds, rest_ns = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"


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


def _print_order(client: Client, result: OrderResult, as_json: bool) -> None:
    if as_json:
        import msgspec

        print_json({**msgspec.structs.asdict(result), "average_price": result.average_price})
        return
    found = next(market for market in client.markets if market.symbol == result.market)
    quote = client.genesis.asset(found.quote_asset_id).symbol
    words = [f"order {result.order_id}"]
    if result.side is not None and result.quantity is not None and result.price is not None:
        words.append(f"{result.side} {plain(result.quantity)} {result.market} at {plain(result.price)}")
    state = f"{result.status}, filled {plain(result.filled)}, open {plain(result.remaining)}"
    words.append(state if result.reason is None else f"{state} ({result.reason})")
    click.echo("  ".join(words))
    for fill in result.fills:
        click.echo(
            f"  trade {fill.trade_id}  {plain(fill.quantity)} at {plain(fill.price)}  fee {plain(fill.fee)} {quote}"
        )
    if result.duplicate:
        message("the connection was lost on the way: the figures are right, fills may be missing above")
