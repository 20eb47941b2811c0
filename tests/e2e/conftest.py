"""A real exchange for end-to-end tests: every process, the embedded store, TCP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from zexchange.cli.main import run
from zexchange.client import Client, load_key, new_key
from zexchange.runtime.running import RunningExchange

MARKET = "BTC-USD"


class Exchange:
    """A running exchange and short ways to use it."""

    def __init__(self, running: RunningExchange) -> None:
        self.running = running
        self.data = running.paths.root

    @property
    def address(self) -> tuple[str, int]:
        return self.running.host, self.running.port

    def client(self, key: SigningKey | str = "operator", **options: Any) -> Client:
        """A session of a key, or of the key file with this name."""
        return Client(*self.address, key=self.key(key) if isinstance(key, str) else key, **options)

    def key(self, name: str) -> SigningKey:
        return load_key(self.running.paths.key(name))

    def account(self, name: str, **amounts: str) -> int:
        """Make a key, open an account for it, deposit; returns the account's number."""
        key = new_key(self.running.paths.key(name))
        with self.client() as operator:
            account_id = operator.open_account(key.verify_key).account_id
            for asset, amount in amounts.items():
                operator.deposit(account_id, asset, amount)
        return account_id


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """One exchange for a module's tests; each opens its own accounts."""
    with RunningExchange(tmp_path_factory.mktemp("exchange") / "data") as running:
        yield Exchange(running)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a `zexchange` command; returns exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def verify(command: Command, data: Path) -> None:
    """`zexchange verify` with both engines; both must agree with everything that was signed."""
    for flags in ([], ["--reference"]):
        code, out, err = command("verify", "--data", data, *flags)
        assert code == 0, f"verify {flags}: {out}{err}"


def as_json(text: str) -> Any:
    """What a command printed with --json: exactly one document."""
    return json.loads(text)
