"""What an operator sees: two exchanges on one port, a settlement that refuses, a store with a password."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Command, Exchange, as_json
from zexchange.cli import exits
from zexchange.client import new_key
from zexchange.config import Config
from zexchange.runtime.exchange_info import read_exchange
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.running import NotRunning, RunningExchange, free_port_base, wait_for
from zexchange.runtime.store import server_binary, server_command

PASSWORD = "s3cret"
PATIENCE_S = 60.0


def test_the_port_of_a_running_exchange_is_refused_to_another(exchange: Exchange, tmp_path: Path) -> None:
    """Its workers would share the port otherwise: both set SO_REUSEPORT."""
    port = exchange.running.port
    second = RunningExchange(tmp_path / "other", port_base=port)
    with pytest.raises(NotRunning) as raised:
        second.start()
    (said,) = [line for line in str(raised.value).splitlines() if line.startswith("error:")]
    assert said.startswith(f"error: port {port} on 127.0.0.1 is in use")
    assert said.endswith("; ingress needs it for order entry: choose another with --port-base")
    assert "Traceback" not in str(raised.value)
    with exchange.client() as client:
        assert client.status().shards


def test_ports_of_the_web_process_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    base = free_port_base()
    for offset, setting, use in (
        (30, "web.port", "the trading page"),
        (90, "web.admin_port", "the admin API"),
    ):
        port = base + offset
        with socket.create_server(("127.0.0.1", port)):
            exchange = RunningExchange(tmp_path / setting, port_base=base, settings={"web.enabled": "true"})
            with pytest.raises(NotRunning) as raised:
                exchange.start()
        text = str(raised.value)
        assert f"error: port {port} on 127.0.0.1 is in use" in text
        assert f"; web needs it for {use}: choose another with --port-base, or set {setting}\n" in text + "\n"
        assert "Traceback" not in text
        assert not (tmp_path / setting / "logs" / "matcher-0.jsonl").exists()


def test_status_of_a_settlement_that_refuses(data: Path, command: Command) -> None:
    with RunningExchange(data) as running:
        code, _out, _err = command("status", "--data", data)
        assert code == exits.OK
        running.paths.settlement_key.unlink()
        new_key(running.paths.settlement_key)
        running.kill("settlement")
        wait_for(
            lambda: running.info.processes["settlement"].state == "refused", PATIENCE_S, "it does not refuse"
        )
        code, out, _err = command("status", "--data", data)
        assert code == exits.FAILURE
        (line,) = [line for line in out.splitlines() if line.startswith("settlement")]
        assert "refused" in line.split()
        assert "OPEN ORDERS" in out  # everything else is still shown
        code, out, _err = command("status", "--data", data, "--json")
        assert code == exits.FAILURE
        shown = as_json(out)
        assert shown["healthy"] is False
        assert shown["processes"]["settlement"]["state"] == "refused"
        assert shown["processes"]["matcher-0"]["state"] == "ready"


def test_status_of_a_process_that_is_gone(data: Path, command: Command) -> None:
    with RunningExchange(data) as running:
        # Nobody is told of the death of a child as long as the supervisor stands still.
        os.kill(running.pid, signal.SIGSTOP)
        try:
            pid = running.kill("settlement")
            wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, PATIENCE_S, "it lives on")
            code, out, _err = command("status", "--data", data)
        finally:
            os.kill(running.pid, signal.SIGCONT)
        assert code == exits.FAILURE
        (line,) = [line for line in out.splitlines() if line.startswith("settlement")]
        assert "dead" in line.split()


def test_the_password_of_a_store_is_not_shown(data: Path, tmp_path: Path, command: Command) -> None:
    other = DataPaths(tmp_path / "store")
    other.create()
    server = subprocess.Popen(
        [*server_command(other, Config(), server_binary()), "--requirepass", PASSWORD],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(other.store_socket.exists, PATIENCE_S, "the store does not listen")
        url = f"unix://:{PASSWORD}@{other.store_socket}"
        with RunningExchange(data, settings={"store.url": url}) as running:
            code, out, err = command("status", "--data", data)
            assert code == exits.OK
            assert f"store unix://:***@{other.store_socket}" in out
            wait_for(
                lambda: as_json(command("status", "--data", data, "--json")[1])["checkpoint"] is not None,
                PATIENCE_S,
                "the store is not found without being named",
            )
            _code, as_text, _err = command("status", "--data", data, "--json")
            info = read_exchange(running.paths)
            assert info is not None
            assert info.store_url == url
            assert running.paths.exchange_json.stat().st_mode & 0o777 == 0o600
        logs = "".join(file.read_text(encoding="utf-8") for file in running.paths.logs.iterdir())
        assert PASSWORD not in out + err + as_text + running.output + logs
        assert f"store         unix://:***@{other.store_socket}" in running.output
    finally:
        server.terminate()
        server.wait()
