"""The command `zexchange`.

Conventions for every command:

* The module of a command is imported only when the command is named (`COMMANDS`); a module imports what is
  slow to import (msgspec, zmq, redis, nacl) inside its functions or through its own lazy helpers. `zexchange
  --help` < 150 ms.
* Every command takes `--data DIR` and `--config FILE` (`options.common_options`), and `--json` if it prints
  data (`options.json_option`, `output.print_json`). Groups are nouns, their commands verbs. Help starts with
  an example.
* Data goes to stdout, messages to stderr. No spinner and no colour unless a terminal is watching; NO_COLOR is
  honoured.
* Exit codes are those of `exits.py`. An exception with an `exit_code` attribute (CommandFailed, the SDK's
  errors) is printed as one line; SettingError and click's usage errors exit with 2; any other exception is a
  bug and shows its trace.
"""

import difflib
import sys
from importlib import import_module
from typing import Any, NamedTuple

import click

from zexchange.cli import exits


class LazyCommand(NamedTuple):
    """Where a command lives, and its line in `--help`. A hidden one is started by other commands, not by
    people."""

    target: str
    summary: str
    hidden: bool = False


COMMANDS: dict[str, LazyCommand] = {
    "up": LazyCommand("zexchange.cli.deployment:up", "Start the whole exchange here and watch over it."),
    "init": LazyCommand("zexchange.cli.deployment:init", "Create a deployment: genesis file and fresh keys."),
    "status": LazyCommand(
        "zexchange.cli.deployment:status", "Show what runs, how far it is, and what it promises."
    ),
    "keys": LazyCommand("zexchange.cli.keys:keys", "Make and show signing keys."),
    "user": LazyCommand("zexchange.cli.operator:user", "Open accounts and register keys (operator)."),
    "deposit": LazyCommand("zexchange.cli.operator:deposit", "Credit an account (operator)."),
    "withdraw": LazyCommand("zexchange.cli.operator:withdraw", "Debit an account (operator)."),
    "market": LazyCommand(
        "zexchange.cli.operator:market", "List markets; add, open, close or halt one (operator)."
    ),
    "asset": LazyCommand("zexchange.cli.definitions:asset", "List assets; add one (operator)."),
    "order": LazyCommand("zexchange.cli.trading:order", "Buy, sell, amend, cancel and list orders."),
    "balance": LazyCommand("zexchange.cli.trading:balance", "Show the balances of an account."),
    "book": LazyCommand("zexchange.cli.trading:book", "Show the order book of a market."),
    "trades": LazyCommand("zexchange.cli.trading:trades", "Show the last trades of a market."),
    "bots": LazyCommand("zexchange.cli.bots:bots", "Trade with play money on a demo, to have a market."),
    "replay": LazyCommand(
        "zexchange.cli.replay:replay", "Drive an exchange with recorded order flow and compare its book."
    ),
    "verify": LazyCommand(
        "zexchange.cli.verify:verify", "Replay the log and compare every root with what was signed."
    ),
    "download": LazyCommand(
        "zexchange.cli.download:download", "Copy the log of an exchange over HTTP, to verify it."
    ),
    "proof": LazyCommand(
        "zexchange.cli.proof:proof", "Check what a signed checkpoint says about your account."
    ),
    "ingress": LazyCommand("zexchange.cli.processes:ingress", "Run an ingress worker.", hidden=True),
    "matcher": LazyCommand("zexchange.cli.processes:matcher", "Run the matcher of a shard.", hidden=True),
    "web": LazyCommand("zexchange.cli.processes:web", "Run the web process.", hidden=True),
    "settlement": LazyCommand("zexchange.cli.verify:settlement", "Run the settlement process.", hidden=True),
}


class LazyGroup(click.Group):
    """A group that imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        module_name, _, attribute = lazy.target.partition(":")
        command = getattr(import_module(module_name), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{lazy.target} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            visible = [name for name, lazy in COMMANDS.items() if not lazy.hidden]
            near = difflib.get_close_matches(args[0], visible, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, lazy.summary) for name, lazy in COMMANDS.items() if not lazy.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=lazy.summary)
            for name, lazy in COMMANDS.items()
            if name.startswith(incomplete) and not lazy.hidden
        ]
        return names if incomplete[:1] != "-" else click.Command.shell_complete(self, ctx, incomplete)


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from zexchange import __version__

    click.echo(f"zexchange {__version__}")
    ctx.exit()


@click.command(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def cli() -> None:
    """A verifiable central limit order book exchange.

    \b
    zexchange up                               start an exchange in ./data
    zexchange order buy BTC-USD 0.5 60000      place an order
    zexchange verify                           check everything that happened

    Every command takes --data DIR, the folder of the deployment, and --config FILE.
    """


def main() -> None:
    """Entry point: runs the command and ends the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command and return its exit code (exits.py)."""
    try:
        result = cli.main(args=arguments, prog_name="zexchange", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return exits.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nothing more can be said
        return exits.FAILURE
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        click.echo(f"error: {error}", err=True)
        return code
    return result if isinstance(result, int) else exits.OK


def exit_code_of(error: Exception) -> int | None:
    """The exit code that belongs to an expected error; None for a bug."""
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return code
    from zexchange.client import errors
    from zexchange.strict_toml import SettingError

    if isinstance(error, errors.RejectedBase):
        return exits.REJECTED
    if isinstance(error, (errors.ConnectFailed, errors.Disconnected, errors.NoAnswer, errors.NoExchange)):
        return exits.CANNOT_CONNECT
    if isinstance(error, errors.ZexchangeError):
        return exits.FAILURE
    if isinstance(error, SettingError):
        return exits.USAGE
    if isinstance(error, OSError):
        return exits.FAILURE
    return None
