"""The conventions of the command line: lazy imports, options that every command has, exit codes, suggestions."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from zexchange import __version__
from zexchange.cli import exits
from zexchange.cli.main import COMMANDS, cli, exit_code_of, run
from zexchange.client.errors import ConnectFailed, KeyFileError, NoExchange, RejectedBase, ZexchangeError
from zexchange.genesis import load_genesis
from zexchange.runtime.paths import DataPaths
from zexchange.strict_toml import SettingError


def leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from leaves(found, f"{name} {child}")
    else:
        yield name, command


def all_leaves() -> list[tuple[str, click.Command]]:
    context = click.Context(cli)
    found = []
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        found += list(leaves(command, name))
    return found


def options_of(command: click.Command) -> set[str]:
    return {flag for parameter in command.params for flag in parameter.opts}


@pytest.mark.parametrize(
    ("name", "command"), all_leaves(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_has_the_shared_options(name: str, command: click.Command) -> None:
    assert {"--data", "--config"} <= options_of(command)
    if not command.hidden and name != "up":
        assert "--json" in options_of(command)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_registry_agrees_with_the_commands(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.hidden == COMMANDS[name].hidden
    assert command.help


def test_help_imports_nothing_slow() -> None:
    """What `--help` imports is what it costs: click and the standard library, nothing else."""
    program = (
        "import sys\n"
        "from zexchange.cli.main import run\n"
        "assert run(['--help']) == 0\n"
        "slow = {'msgspec', 'zmq', 'redis', 'nacl', 'psutil', 'cffi', 'asyncio', 'zexchange.client'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    visible = [name for name, lazy in COMMANDS.items() if not lazy.hidden]
    assert all(f"\n  {name} " in shown.stdout for name in visible)
    assert "ingress" not in shown.stdout


def test_an_unknown_command_is_a_usage_error_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ordr"]) == exits.USAGE
    assert "No such command 'ordr'. Did you mean 'order'?" in capsys.readouterr().err
    assert run(["xyzzy"]) == exits.USAGE
    assert "Did you mean" not in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == exits.OK
    assert capsys.readouterr().out == f"zexchange {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exits.CommandFailed("no"), exits.FAILURE),
        (exits.CommandFailed("no", exits.MISMATCH), exits.MISMATCH),
        (SettingError("config.toml", "a.b", "wrong"), exits.USAGE),
        (RejectedBase("refused"), exits.REJECTED),
        (ConnectFailed("nobody"), exits.CANNOT_CONNECT),
        (NoExchange("nobody"), exits.CANNOT_CONNECT),
        (KeyFileError("missing"), exits.FAILURE),
        (ZexchangeError("other"), exits.FAILURE),
        (PermissionError("denied"), exits.FAILURE),
        (RuntimeError("a bug"), None),
    ],
)
def test_exit_codes(error: Exception, code: int | None) -> None:
    assert exit_code_of(error) == code


def test_init_then_status_of_an_exchange_that_does_not_run(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "--data", str(data), "--name", "venue-1", "--json"]) == exits.OK
    made = json.loads(capsys.readouterr().out)
    assert made["name"] == "venue-1"
    assert made["markets"] == ["BTC-USD", "ETH-USD", "AAPL-USD"]
    assert len(made["deployment_id"]) == 64
    assert run(["init", "--data", str(data)]) == exits.FAILURE
    assert "never overwritten" in capsys.readouterr().err
    assert run(["status", "--data", str(data), "--json"]) == exits.CANNOT_CONNECT
    assert json.loads(capsys.readouterr().out)["running"] is False
    assert run(["status", "--data", str(data)]) == exits.CANNOT_CONNECT
    assert "start it with: " in capsys.readouterr().err


def test_init_takes_markets_from_a_file(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
assets = [{id = 1, symbol = "EUR", decimals = 6}, {id = 2, symbol = "GOLD", decimals = 3}]
markets = [{id = 7, symbol = "GOLD-EUR", base = "GOLD", quote = "EUR", tick_size = "0.01", lot_size = "0.001"}]
limits = {max_orders = 100}
"""
    file = tmp_path / "venue.toml"
    file.write_text(text.replace('quote = "EUR"', 'quote = "USD"'), encoding="utf-8")
    arguments = ["init", "--data", str(data), "--markets", str(file), "--json"]
    assert run(arguments) == exits.USAGE
    assert f"error: {file}: key 'markets[0].quote' cannot be 'USD'" in capsys.readouterr().err
    assert not data.exists()
    file.write_text(text, encoding="utf-8")
    assert run(arguments) == exits.OK
    assert json.loads(capsys.readouterr().out)["markets"] == ["GOLD-EUR"]
    genesis = load_genesis(DataPaths(data).genesis)
    assert (genesis.market(7).symbol, genesis.limits.max_orders) == ("GOLD-EUR", 100)


def test_help_says_only_what_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == exits.OK
    assert "order buy BTC-USD 0.5 60000 " in capsys.readouterr().out
    assert run(["up", "--help"]) == exits.OK
    shown = " ".join(capsys.readouterr().out.split())
    assert "Order entry listens on N; the ports up to N + 99 are reserved for the deployment." in shown
    assert "administration" not in shown


def test_a_wrong_setting_is_a_usage_error(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["up", "--data", str(data), "--workers", "many"]) == exits.USAGE
    assert "flag --workers: key 'ingress.workers' cannot be 'many'" in capsys.readouterr().err
    file = data.parent / "other.toml"
    file.write_text("[store]\nfsnc = 1\n", encoding="utf-8")
    assert run(["up", "--data", str(data), "--config", str(file)]) == exits.USAGE
    assert f"{file}: unknown key 'store.fsnc'; did you mean 'fsync'?" in capsys.readouterr().err
    assert not data.exists()
