"""The ports that an exchange listens at: which process wants which, and whether they can be had.

`reserve_ports` is asked before anything is started, so that a port that is taken is one sentence and not the end of a
process that was started in vain.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import psutil

from zexchange.config import Config


class Port(NamedTuple):
    """What one process of the exchange listens at."""

    process: str
    use: str
    host: str
    number: int
    host_setting: str
    remedy: str
    """What to change so that it is another number."""

    @property
    def owner(self) -> str:
        """Who needs it, and what for."""
        return f"{self.process} needs it for {self.use}"


class PortUnavailable(RuntimeError):
    """A port cannot be had. The message is one sentence: which port, of which process, and what to change."""

    def __init__(self, port: Port, message: str) -> None:
        super().__init__(message)
        self.port = port


class PortTaken(PortUnavailable):
    """Somebody else listens there, another exchange is starting there, or two of our own want it."""


_BASE = "choose another with --port-base"


def ports_of(config: Config) -> list[Port]:
    """All of them, order entry first."""
    entry = Port("ingress", "order entry", config.exchange.host, config.tcp_port, "exchange.host", _BASE)
    return [entry, *web_ports(config)] if config.web.enabled else [entry]


def web_ports(config: Config) -> tuple[Port, Port]:
    """Of the web process: page and public interface, and the operator's."""

    def remedy(setting: str, value: object) -> str:
        return f"{_BASE}, or set {setting}" if value == "auto" else f"set another {setting}"

    web = config.web
    return (
        Port("web", "the trading page", web.host, config.web_port, "web.host", remedy("web.port", web.port)),
        Port(
            "web",
            "the admin API",
            web.admin_host,
            config.admin_port,
            "web.admin_host",
            remedy("web.admin_port", web.admin_port),
        ),
    )


@contextmanager
def reserve_ports(config: Config) -> Iterator[None]:
    """Make sure that nobody else listens there, and that no other exchange will meanwhile. Raises PortUnavailable."""
    with ExitStack() as held:
        wanted: dict[tuple[str, int], Port] = {}
        for port in ports_of(config):
            other = wanted.setdefault((port.host, port.number), port)
            if other is not port:
                raise PortTaken(
                    port,
                    f"port {port.number} on {port.host} cannot be both {other.use} ({other.process}) and {port.use} "
                    f"({port.process}): {port.remedy}",
                )
            reservation = _reserve(port)
            if reservation is not None:
                held.enter_context(reservation)
        yield


def _reserve(port: Port) -> socket.socket | None:
    """Holds the port against other exchanges until the result is closed.

    Ingress workers share the port by SO_REUSEPORT, so two exchanges of one user could share it as well if
    both looked before either listened: a client would reach one or the other. What is held against that is a
    name in the abstract namespace of unix sockets, which the kernel keeps as long as the process lives (None
    where there is no such namespace).
    """
    try:
        found = socket.getaddrinfo(port.host, port.number, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PortUnavailable(
            port,
            f"the address {port.host!r} is unknown ({error.strerror}), and {port.process} is to listen there for "
            f"{port.use}: set {port.host_setting} to one of this machine",
        ) from None
    family, kind, protocol, _name, address = found[0]
    reservation: socket.socket | None = None
    if sys.platform.startswith("linux"):
        reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            reservation.bind(f"\0zexchange/{address[0]}/{port.number}")
        except OSError as error:
            reservation.close()
            if error.errno == errno.EADDRINUSE:
                raise taken(port) from None
            raise
    try:
        _check_free(port, family, kind, protocol, address)
    except BaseException:
        if reservation is not None:
            reservation.close()
        raise
    return reservation


def _check_free(port: Port, family: int, kind: int, protocol: int, address: tuple[Any, ...]) -> None:
    """Raise PortUnavailable if somebody listens there, even with SO_REUSEPORT, or the address is not ours."""
    with socket.socket(family, kind, protocol) as probe:
        # Ignore connections that are merely closing.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise unavailable(port, error) from None


def unavailable(port: Port, error: OSError) -> PortUnavailable:
    """What listening failed with, in a sentence."""
    if error.errno == errno.EADDRINUSE:
        return taken(port)
    if error.errno == errno.EACCES:
        return PortUnavailable(
            port, f"port {port.number} needs privileges; {port.owner}: {port.remedy}, above 1024"
        )
    return PortUnavailable(
        port,
        f"cannot listen on {port.host}:{port.number} ({error.strerror}); {port.owner}: set {port.host_setting} to an "
        "address of this machine",
    )


def taken(port: Port) -> PortTaken:
    """Somebody is there already."""
    holder = _holder(port.number)
    by = "" if holder is None else f" by {holder.name} (pid {holder.pid})"
    return PortTaken(port, f"port {port.number} on {port.host} is in use{by}; {port.owner}: {port.remedy}")


class _Holder(NamedTuple):
    pid: int
    name: str


def _holder(number: int) -> _Holder | None:
    """Who listens there, if we may know."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == number and one.pid:
                return _Holder(one.pid, psutil.Process(one.pid).name())
    except (psutil.Error, OSError):
        pass
    return None
