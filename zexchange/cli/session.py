"""What commands that talk to an exchange share: their options, the connection, and helpful words about refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from zexchange.cli import exits
from zexchange.cli.keys import DEFAULT_KEY, KEY_VARIABLE, key_path
from zexchange.cli.options import common_options

if TYPE_CHECKING:
    from nacl.signing import SigningKey

    from zexchange.client import Client

F = TypeVar("F", bound=Callable[..., Any])

OPERATOR_KEY = "operator"


class Where(NamedTuple):
    """Which exchange, and who asks. `key` is a name, a path, or None for anybody."""

    data: Path
    connect: tuple[str, int] | None
    key: str | None


def host_port(value: str) -> tuple[str, int]:
    """The type of an option that is an address."""
    host, separator, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 127.0.0.1:9000")
    return host, int(port)


def decimal(value: str) -> Decimal:
    """The type of an argument that is a price, a quantity or an amount."""
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise click.BadParameter(f"{value!r} is not a decimal number")
    return number


def connect_option(command: F) -> F:
    """`--connect HOST:PORT`, passed as `connect`; None means the exchange that runs in the data folder."""
    return click.option(
        "--connect",
        type=host_port,
        metavar="HOST:PORT",
        default=None,
        help="Address of the exchange; the default is the one that runs in the data folder.",
    )(command)


def session_options(command: F) -> F:
    """`--connect`, `--data`, `--config`."""
    return connect_option(common_options(command))


def key_option(command: F) -> F:
    """`--key NAME`, passed as `key`."""
    return click.option(
        "--key",
        envvar=KEY_VARIABLE,
        default=DEFAULT_KEY,
        show_default="default, or ZX_KEY",
        metavar="NAME",
        help="Key to sign with: a name in the folder's keys/, or a path.",
    )(command)


@contextmanager
def session(where: Where) -> Iterator[Client]:
    """A client for the block. Refusals become one line with the reason's name, its number, and what to do about it."""
    from zexchange.client.rejections import Rejected

    try:
        with open_client(where) as client:
            yield client
    except Rejected as error:
        reason = error.reason
        text = f"{error} [{reason.name.lower()}, {reason.value}]"
        hint = _HINTS.get(reason.name, "")
        if where.key in (None, OPERATOR_KEY) and "{key}" in hint:
            hint = ""  # it is about a trader's key
        raise exits.CommandFailed(
            f"{text}\n{hint.format(key=where.key)}" if hint else text, exits.REJECTED
        ) from None


def open_client(where: Where) -> Client:
    """Connect. Raises what Client raises."""
    from zexchange.client import Client

    key = signing_key(where)
    if where.connect is None:
        return Client.local(where.data, key)
    host, port = where.connect
    return Client(host, port, key=key)


def signing_key(where: Where) -> SigningKey | Path:
    """The key to sign with, or its file; for anybody a fresh one, because a session has to be somebody's.

    The file is not read here: that no exchange runs in the data folder matters more than that there is no key in it.
    """
    from nacl.signing import SigningKey

    return SigningKey.generate() if where.key is None else key_path(where.data, where.key)


def plain(value: Decimal) -> str:
    """A decimal as people write it: no exponent."""
    return format(value, "f")


_HINTS = {
    "UNKNOWN_KEY": "the key has no account yet: zexchange user open {key}",
    "INSUFFICIENT_FUNDS": "see what there is with: zexchange balance --key {key}",
    "UNKNOWN_ORDER": "open orders: zexchange order list --key {key}",
    "CLIENT_ORDER_ID_IN_USE": "leave it out, or choose one that no open order has",
    "OPERATOR_ONLY": "operator commands are signed with keys/operator.key of the deployment's folder",
    "NONCE_TOO_NEW": "this machine's clock and the exchange's differ by more than ten seconds",
    "MARKET_HALTED": "the operator can open it again: zexchange market set-state MARKET continuous",
    "MARKET_CLOSED": "the operator can open it again: zexchange market set-state MARKET continuous",
}
