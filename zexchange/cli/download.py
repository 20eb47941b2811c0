"""`zexchange download`: a copy of the log of an exchange that is reached by HTTP, to verify it."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from zexchange.cli import exits
from zexchange.cli.options import common_options, json_option
from zexchange.cli.output import print_json

_TIMEOUT_S = 60
_TRIES = 5


@click.command()
@click.argument("url")
@json_option
@common_options
def download(url: str, data: Path, config_file: Path | None, as_json: bool) -> int:
    """Fetch genesis file, checkpoints and log of an exchange into a folder, for `zexchange verify`.

    \b
    zexchange download http://exchange.example:3000 --data ./audit
    zexchange verify --data ./audit

    Repeated, it fetches what has been added. It checks only that what arrives is whole: compare the deployment id
    with one from elsewhere, and let `verify` do the rest.
    """
    from zexchange.runtime.paths import DataPaths
    from zexchange.verification.download import DownloadFailed, download

    try:
        found = download(fetcher(url.rstrip("/"), time.sleep), DataPaths(data))
    except DownloadFailed as error:
        raise exits.CommandFailed(str(error)) from None
    except urllib.error.URLError as error:
        raise exits.CommandFailed(f"{url} does not answer: {error.reason}", exits.CANNOT_CONNECT) from None
    if as_json:
        print_json(found)
    else:
        click.echo(f"deployment   {found.deployment}, id {found.deployment_id}")
        click.echo(f"fetched      {found.records} records, {found.checkpoints} checkpoints")
        click.echo(f"next         zexchange verify --data {data}")
    return exits.OK


def fetcher(base: str, sleep: Callable[[float], None]) -> Callable[[str], tuple[bytes, Mapping[str, str]]]:
    """Gets what is below /api/v1, as slowly as the server wants. Raises DownloadFailed, URLError."""
    from zexchange.verification.download import DownloadFailed

    def fetch(path: str) -> tuple[bytes, Mapping[str, str]]:
        for _ in range(_TRIES):
            try:
                with urllib.request.urlopen(f"{base}/api/v1{path}", timeout=_TIMEOUT_S) as reply:
                    return reply.read(), {name.lower(): value for name, value in reply.headers.items()}
            except urllib.error.HTTPError as error:
                wait = error.headers.get("Retry-After", "")
                if error.code != 429 or not wait.isdecimal():
                    text = error.read(1_000).decode("utf-8", "replace")
                    raise DownloadFailed(f"{path}: {error.code} {error.reason}: {text}") from None
                sleep(int(wait))
        raise DownloadFailed(f"{path}: the server still wants us to wait")

    return fetch
