"""Options that several commands share, so that they are spelt, described and defaulted once.

@click.command()
@common_options            # data: Path, config_file: Path | None        on EVERY command
@json_option               # as_json: bool                               on every command that prints data
def status(data: Path, config_file: Path | None, as_json: bool) -> None: ...
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from zexchange.limits import PORT_BASE_MAX

F = TypeVar("F", bound=Callable[..., Any])


def data_option(command: F) -> F:
    """`--data DIR`, passed as `data`."""
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("data"),
        show_default="./data",
        help="Folder of the deployment.",
    )(command)


def config_option(command: F) -> F:
    """`--config FILE`, passed as `config_file`; None means config.toml of the working directory, if there is
    one."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        default=None,
        show_default="./config.toml if there is one",
        help="File with settings.",
    )(command)


def common_options(command: F) -> F:
    """`--data` and `--config`: every command has both."""
    return data_option(config_option(command))


def json_option(command: F) -> F:
    """`--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")(
        command
    )


def port_base_option(command: F) -> F:
    """`--port-base N`, passed as `port_base`: order entry listens on N."""
    return click.option(
        "--port-base",
        type=click.IntRange(1, PORT_BASE_MAX),
        default=None,
        help="Order entry listens on N; the ports up to N + 99 are reserved for the deployment.",
    )(command)
