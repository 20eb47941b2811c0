"""Commands for key files: keys new, keys show, keys list."""

import os
from pathlib import Path

import click

from zexchange.cli.options import common_options, json_option
from zexchange.cli.output import message, print_json, print_table

DEFAULT_KEY = "default"
KEY_VARIABLE = "ZX_KEY"

name_argument = click.argument("name", envvar=KEY_VARIABLE, default=DEFAULT_KEY)
"""`NAME`; the same default as `--key` has."""


@click.group()
def keys() -> None:
    """Make and show signing keys.

    \b
    zexchange keys new alice
    zexchange keys show alice

    Keys are files in the deployment's folder, keys/NAME.key, that only you can read. Whoever has the file can trade.
    """


@keys.command()
@name_argument
@json_option
@common_options
def new(name: str, data: Path, config_file: Path | None, as_json: bool) -> None:
    """Make a fresh key; an existing one is never overwritten. NAME is `default` if you give none.

    \b
    zexchange keys new
    zexchange keys new alice
    """
    from zexchange.client.keys import new_key

    path = key_path(data, name)
    public_key = bytes(new_key(path).verify_key)
    if as_json:
        print_json({"name": name, "path": path, "public_key": public_key})
        return
    click.echo(public_key.hex())
    message(f"private key in {path}: keep it secret, and a copy safe")
    message(f"an account for it: zexchange user open {name}")


@keys.command()
@name_argument
@json_option
@common_options
def show(name: str, data: Path, config_file: Path | None, as_json: bool) -> None:
    """Show a key's public half; the private one is never printed.

    \b
    zexchange keys show alice
    """
    from zexchange.client.keys import load_key

    path = key_path(data, name)
    public_key = bytes(load_key(path).verify_key)
    if as_json:
        print_json({"name": name, "path": path, "public_key": public_key})
        return
    click.echo(public_key.hex())


@keys.command("list")
@json_option
@common_options
def list_keys(data: Path, config_file: Path | None, as_json: bool) -> None:
    """List the keys in the deployment's folder.

    \b
    zexchange keys list
    """
    from zexchange.client.errors import KeyFileError
    from zexchange.client.keys import load_key
    from zexchange.runtime.paths import DataPaths

    rows: list[tuple[str, Path, bytes]] = []
    for path in sorted(DataPaths(data).keys.glob("*.key")):
        try:
            rows.append((path.stem, path, bytes(load_key(path).verify_key)))
        except KeyFileError as error:
            message(f"warning: {error}")
    if as_json:
        print_json([{"name": name, "path": path, "public_key": public} for name, path, public in rows])
        return
    print_table(("NAME", "PUBLIC KEY"), [(name, public.hex()) for name, _path, public in rows])


def default_key() -> str:
    """The name of the key that is meant when none is given."""
    return os.environ.get(KEY_VARIABLE) or DEFAULT_KEY


def key_path(data: Path, name: str) -> Path:
    """The file of a key: a path if it has a slash or ends in .key, else NAME.key in the deployment's folder."""
    from zexchange.runtime.paths import DataPaths

    if "/" in name or name.endswith(".key"):
        return Path(name).expanduser()
    if name in ("", ".", "..") or name.startswith("-"):
        raise click.BadParameter(f"{name!r} is not a name for a key")
    return DataPaths(data).key(name)
