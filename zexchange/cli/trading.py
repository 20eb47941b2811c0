"""Commands of traders, and what anybody may look at: order, balance, book, trades."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zexchange.cli.options import json_option
from zexchange.cli.output import message, print_json, print_table
from zexchange.cli.session import Where, decimal, key_option, plain, session, session_options

if TYPE_CHECKING:
    from zexchange.client import Client, Order, OrderResult


_ID = click.IntRange(1, 2**64 - 1)
_SECONDS = click.FloatRange(min=0, min_open=True, max=1e9)
_PPM = click.IntRange(0, 999_999)
_MARKET_STATES = (
    "continuous",
    "halted",
    "closed",
    "pre-open",
    "auction",
    "closing-auction",
    "post-only",
    "expired",
)
_shard_option = click.option(
    "--shard",
    type=click.IntRange(0, 1023),
    default=0,
    show_default=True,
    help="Funds are held per shard; `market list` shows which one a market is on.",
)


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
        type=click.Choice(["gtc", "day", "ioc", "fok", "at_the_open", "at_the_close"]),
        default=None,
        help="Good till cancelled (default), till midnight UTC, immediate or cancel, fill or kill, for an auction.",
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


def _print_order(client: Client, result: OrderResult, as_json: bool) -> None:
    if as_json:
        import msgspec

        print_json({**msgspec.structs.asdict(result), "average_price": result.average_price})
        return
    found = client.market(result.market)
    quote = client.asset(found.quote_asset_id).symbol
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
