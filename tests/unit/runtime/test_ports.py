"""Ports that cannot be had: one sentence that says which, of which process, and what to change."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from zexchange.config import Config, load_config
from zexchange.runtime.ports import (
    PortTaken,
    PortUnavailable,
    ports_of,
    reserve_ports,
    unavailable,
)
from zexchange.runtime.running import free_port_base


@pytest.fixture
def base() -> int:
    return free_port_base()


def configured(base: int, **settings: str) -> Config:
    found = {"exchange.port_base": str(base)}
    found |= {name.replace("__", "."): text for name, text in settings.items()}
    return load_config(None, found, {})


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_free_ports_are_no_others() -> None:
    mine = {free_port_base() for _ in range(5)}
    assert len(mine) == 5
    script = "from zexchange.runtime.running import free_port_base; print(free_port_base())"
    other = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert other // 1_000 not in {base // 1_000 for base in mine}


def test_free_ports_are_held_while_they_are_reserved_and_can_be_listened_at(base: int) -> None:
    config = configured(base)
    with reserve_ports(config):
        for port in ports_of(config):
            with socket.create_server((port.host, port.number)):
                pass
        with pytest.raises(PortTaken, match=f"port {base} on 127.0.0.1 is in use; ingress needs it"):
            reserve_ports(config).__enter__()
    with reserve_ports(config):
        pass


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (0, "ingress needs it for order entry: choose another with --port-base"),
        (1, "web needs it for the trading page: choose another with --port-base, or set web.port"),
        (2, "web needs it for the admin API: choose another with --port-base, or set web.admin_port"),
    ],
)
def test_port_that_is_taken_is_named_with_its_process_its_holder_and_the_remedy(
    base: int, index: int, sentence: str
) -> None:
    config = configured(base)
    port = ports_of(config)[index]
    with socket.create_server((port.host, port.number)), pytest.raises(PortTaken) as raised:
        reserve_ports(config).__enter__()
    assert raised.value.port == port
    said = str(raised.value)
    assert said.startswith(f"port {port.number} on 127.0.0.1 is in use by ")
    assert f"(pid {os.getpid()}); {sentence}" in said
    assert "\n" not in said
    # Nothing of the failed attempt is held.
    with reserve_ports(config):
        pass


def test_port_that_was_set_is_to_be_set_anew(base: int, taken: int) -> None:
    with pytest.raises(PortTaken, match=r"for the trading page: set another web\.port$"):
        reserve_ports(configured(base, web__port=str(taken))).__enter__()
    with pytest.raises(PortTaken, match=r"for the admin API: set another web\.admin_port$"):
        reserve_ports(configured(base, web__admin_port=str(taken))).__enter__()


def test_one_port_for_two_uses_is_a_mistake_in_the_settings(base: int) -> None:
    with pytest.raises(PortTaken) as raised:
        reserve_ports(configured(base, web__port=str(base))).__enter__()
    assert str(raised.value) == (
        f"port {base} on 127.0.0.1 cannot be both order entry (ingress) and the trading page (web): "
        "set another web.port"
    )


def test_ports_of_a_web_process_that_is_not_wanted_do_not_matter(base: int, taken: int) -> None:
    with reserve_ports(configured(base, web__enabled="false", web__port=str(taken))):
        pass


def test_address_that_is_not_ours_is_named_with_its_setting(base: int) -> None:
    for setting in ("exchange__host", "web__host", "web__admin_host"):
        with pytest.raises(PortUnavailable) as raised:
            reserve_ports(configured(base, **{setting: "192.0.2.1"})).__enter__()
        assert not isinstance(raised.value, PortTaken)
        assert f"set {setting.replace('__', '.')} to an address of this machine" in str(raised.value)


def test_port_below_1024_needs_privileges(base: int) -> None:
    port = ports_of(configured(base))[1]
    said = str(unavailable(port, PermissionError(errno.EACCES, "Permission denied")))
    assert said.startswith(f"port {port.number} needs privileges; web needs it for the trading page: ")
    assert said.endswith("above 1024")
