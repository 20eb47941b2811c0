"""Exit codes, in one place, and the exception that carries one.

Any exception with an integer attribute `exit_code` that leaves a command is printed as one line, `error:
<message>`, and ends the program with that code. Commands raise `CommandFailed` or let the SDK's exceptions
pass.
"""

from typing import Final

OK: Final = 0
FAILURE: Final = 1
"""It did not work: a file is missing, a port is taken, the disk is full."""
USAGE: Final = 2
"""The command line, a variable or a setting is wrong."""
CANNOT_CONNECT: Final = 3
"""Nothing answers at the exchange's address."""
REJECTED: Final = 4
"""The exchange refused; the reason is printed."""
MISMATCH: Final = 5
"""Verification found a difference."""
INTERRUPTED: Final = 130
"""Ctrl-C."""


class CommandFailed(Exception):
    """Ends the command with a sentence for the user and an exit code."""

    def __init__(self, message: str, exit_code: int = FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
