"""How much one address may ask for, and which address that is."""

from __future__ import annotations

import pytest

from webapp.limits import Allowance, Connections, Proxies
from webapp.problems import Problem


def refusal(connections: Connections, address: str) -> tuple[str, int]:
    with pytest.raises(Problem) as raised:
        connections.take(address)
    assert raised.value.body("").retryable
    return raised.value.code, raised.value.status


def test_an_address_has_so_many_connections_and_no_more() -> None:
    connections = Connections(2)
    for _ in range(2):
        connections.take("10.0.0.1")
    assert refusal(connections, "10.0.0.1") == ("TOO_MANY_CONNECTIONS", 429)
    connections.take("10.0.0.2")
    assert connections.count == 3
    connections.release("10.0.0.1")
    connections.take("10.0.0.1")
    assert refusal(connections, "10.0.0.1") == ("TOO_MANY_CONNECTIONS", 429)


def test_there_is_an_end_for_all_together() -> None:
    connections = Connections(2, in_all=3)
    for address in ("a", "a", "b"):
        connections.take(address)
    assert refusal(connections, "c") == ("SERVER_BUSY", 503)
    connections.release("b")
    connections.take("c")
    for address in ("a", "a", "c"):
        connections.release(address)
    assert connections.count == 0
    assert not connections._open, "addresses without a connection take no memory"


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded_for", "client"),
    [
        ([], "10.0.0.1", "1.2.3.4", "10.0.0.1"),
        (["10.0.0.1"], "10.0.0.1", "1.2.3.4", "1.2.3.4"),
        (["10.0.0.1"], "10.0.0.1", "", "10.0.0.1"),
        (["10.0.0.1"], "10.0.0.2", "1.2.3.4", "10.0.0.2"),
        (["10.0.0.0/8"], "10.0.0.1", "6.6.6.6, 1.2.3.4, 10.9.9.9", "1.2.3.4"),
        (["10.0.0.0/8"], "10.0.0.1", "10.0.0.3", "10.0.0.3"),
        (["::1"], "::1", "not an address, 2001:db8::1", "2001:db8::1"),
        (["::1"], "::1", "not an address", "not an address"),
    ],
)
def test_a_trusted_proxy_says_whose_request_it_is(
    trusted: list[str], peer: str, forwarded_for: str, client: str
) -> None:
    assert Proxies(trusted).client(peer, forwarded_for) == client


def test_what_is_no_address_cannot_be_trusted() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        Proxies(["proxy.example"])


def test_an_allowance_fills_up_with_time_and_no_further() -> None:
    allowance = Allowance(burst=10, per_s=2)
    assert allowance.take(8, 100.0)
    assert not allowance.take(3, 100.0), "what is refused costs nothing"
    assert allowance.take(3, 100.5)
    assert not allowance.take(1, 100.5)
    assert not allowance.take(1, 99.0), "a clock that goes back gives nothing"
    assert allowance.take(10, 1_000.0)
    assert not allowance.take(1, 1_000.0)
