"""Start-up and stop of one process of the exchange; the same for ingress, matcher and settlement.

    with process_context("matcher-0", data, config_file) as context:
        engine = ...                            # context.genesis, context.config, context.paths, context.log
        context.ready(epoch=7)                  # once, when the process does its work
        while not context.stopping:
            poll([..., context.stop_fd])        # readable as soon as the process is asked to stop

What it promises:

* The configuration and the genesis file are loaded and checked before the block runs.
* `logs/<name>.jsonl` receives the process's log.
* SIGTERM and SIGINT ask to stop: `stopping` becomes true and `stop_fd` readable (and stays readable). Nothing
  is raised.
* The process gets SIGTERM when its parent dies, even by kill -9, if the supervisor started it.
* `figures` is memory that the web process reads while this one runs, if the supervisor started both.
* `ready(**info)` writes one JSON line to the descriptor in ZX_READY_FD, if there is one, and closes it.
* An exception that leaves the block is logged. `Refused` becomes exit status 78: the supervisor reports it
  and does not start the process again. Any other becomes exit status 1: it is started again, with growing
  pauses.
"""

import ctypes
import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import msgspec

from zexchange.config import Config, load_config
from zexchange.genesis import Genesis, load_genesis
from zexchange.runtime.figures import Figures, own_figures
from zexchange.runtime.logs import log_to_file
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.stages import StageTimes
from zexchange.strict_toml import SettingError

READY_FD_ENV = "ZX_READY_FD"
PARENT_PID_ENV = "ZX_PARENT_PID"
EXIT_STORE = 69
"""Exit status of a matcher when the store did not come round in time (EX_UNAVAILABLE of sysexits.h)."""

EXIT_REFUSED = 78
"""Exit status of a process that must not run until somebody decides (EX_CONFIG of sysexits.h)."""

EXIT_FENCED = 79
"""Exit status of a matcher whose shard another matcher has taken over: starting it again at once would only
fence that one in turn."""

_PR_SET_PDEATHSIG = 1
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_PASSING_TROUBLE = _NO_ROOM | {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
"""Errors at start that say nothing about the deployment: worth another try."""


class Refused(Exception):
    """The process must not run like this (unsafe store, log that went backwards, wrong key); restarting does
    not help.

    The message is one sentence for the operator.
    """


class ProcessContext:
    """What a process is given; see the module."""

    def __init__(
        self,
        name: str,
        paths: DataPaths,
        config: Config,
        genesis: Genesis,
        log: logging.Logger,
        figures: Figures | None = None,
    ) -> None:
        self.name = name
        self.paths = paths
        self.config = config
        self.genesis = genesis
        self.log = log
        self.figures = figures or Figures()
        """Where the process says how it is doing."""
        self.stopping = False
        self._ready_sent = False
        self.stop_fd, self._stop_write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    @property
    def times(self) -> StageTimes | None:
        """Where it counts how long the stages take; None if it is not to."""
        return self.figures.stages if self.config.measurement.stages else None

    def ready(self, **info: Any) -> None:
        """Say that the process does its work. `info` must be JSON; calls after the first do nothing."""
        if self._ready_sent:
            return
        self._ready_sent = True
        self.log.info("ready", extra={"zx": info})
        fd_text = os.environ.pop(READY_FD_ENV, "")
        if fd_text:
            fd = int(fd_text)
            try:
                os.write(fd, msgspec.json.encode(info) + b"\n")
            finally:
                os.close(fd)

    def stop(self) -> None:
        """Ask the process to stop, as SIGTERM does."""
        if not self.stopping:
            self.stopping = True
            os.write(self._stop_write_fd, b"s")

    def close(self) -> None:
        """Release the descriptors; process_context() calls it."""
        os.close(self.stop_fd)
        os.close(self._stop_write_fd)


@contextmanager
def process_context(
    name: str,
    data: Path | str,
    config_file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Iterator[ProcessContext]:
    """Everything a process needs, from its start to its end; see the module."""
    die_with_parent(signal.SIGTERM)
    paths = DataPaths(Path(data))
    try:
        paths.create()
        config = load_config(config_file, overrides)
        section = config.logging
        log = log_to_file(name, paths.log(name), section.level, section.max_file_bytes, section.kept_files)
        genesis = load_genesis(paths.genesis)
    except (SettingError, OSError) as error:
        print(f"zexchange {name}: {error}", file=sys.stderr)
        passes = isinstance(error, OSError) and error.errno in _PASSING_TROUBLE
        raise SystemExit(1 if passes else EXIT_REFUSED) from None
    context = ProcessContext(name, paths, config, genesis, log, own_figures())

    def asked_to_stop(_number: int, _frame: FrameType | None) -> None:
        context.stop()

    previous = {number: signal.signal(number, asked_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    log.info("starting", extra={"zx": {"pid": os.getpid()}})
    try:
        yield context
        log.info("stopped")
    except Refused as error:
        log.error(str(error))
        raise SystemExit(EXIT_REFUSED) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            log.error("%s", error)  # where it happened is of no interest: it may happen anywhere
            raise SystemExit(1) from None
        log.exception("%s: %s", type(error).__name__, error)
        raise SystemExit(1) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        context.close()
        logging.shutdown()


def die_with_parent(death_signal: signal.Signals, expected_parent: int | None = None) -> None:
    """Have the kernel send us `death_signal` when the parent dies. Does nothing for a process nobody
    supervises.

    `expected_parent` None takes the pid from ZX_PARENT_PID. If that parent is gone already the process ends
    at once.
    """
    if expected_parent is None:
        text = os.environ.pop(PARENT_PID_ENV, "")
        if not text:
            return
        expected_parent = int(text)
    set_death_signal(death_signal)
    if os.getppid() != expected_parent:
        _end_now()


def set_death_signal(death_signal: signal.Signals) -> None:
    """prctl(PR_SET_PDEATHSIG) on Linux; other systems have no such call and rely on the supervisor's stop."""
    if _prctl is not None and _prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _end_now() -> NoReturn:
    os._exit(1)


def _find_prctl() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None, use_errno=True).prctl
    function.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    function.restype = ctypes.c_int
    return function


_prctl = _find_prctl()
