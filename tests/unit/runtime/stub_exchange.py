"""An exchange of stub processes under the real supervisor, for test_supervisor.py.

    python -m tests.unit.runtime.stub_exchange DATA [SECTION.KEY=TEXT ...]        the supervisor
    python -m tests.unit.runtime.stub_exchange DATA --child NAME                  one process

A child looks for files `DATA/<what>-<NAME>`: `refuse` makes it refuse, `crash` fail, `fence` end as a
fenced matcher does, `hang` ignore its stop.
"""

import os
import select
import signal
import sys
from pathlib import Path

from zexchange.config import load_config
from zexchange.genesis import load_genesis
from zexchange.runtime.deployment import create_deployment
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.process import EXIT_FENCED, Refused, process_context
from zexchange.runtime.supervisor import CannotStart, Supervisor


def supervise(data: Path, settings: dict[str, str]) -> int:
    paths = DataPaths(data)
    genesis = load_genesis(paths.genesis) if paths.genesis.exists() else create_deployment(paths, shards=2)
    supervisor = Supervisor(
        paths,
        load_config(None, settings),
        genesis,
        overrides=settings,
        on_ready=lambda info: print("ready", info.tcp, flush=True),
        child_command=lambda name: [
            sys.executable, "-m", "tests.unit.runtime.stub_exchange", str(paths.root), "--child", name,
        ],
    )  # fmt: skip
    try:
        return supervisor.run()
    except CannotStart as error:
        print(f"cannot start: {error}", flush=True)
        return 1


def child(data: Path, name: str) -> None:
    with process_context(name, data) as context:
        if (data / f"refuse-{name}").exists():
            raise Refused("told to refuse")
        if (data / f"crash-{name}").exists():
            raise RuntimeError("told to crash")
        if (data / f"fence-{name}").exists():
            context.log.error("somebody took over")
            print("somebody took over", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_FENCED)
        if (data / f"hang-{name}").exists():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        context.ready(pid=os.getpid())
        while not context.stopping:
            select.select([context.stop_fd], [], [])
        with (data / "stopped").open("a", encoding="ascii") as file:
            file.write(name + "\n")


if __name__ == "__main__":
    if sys.argv[2:3] == ["--child"]:
        child(Path(sys.argv[1]), sys.argv[3])
    else:
        sys.exit(supervise(Path(sys.argv[1]), dict(pair.split("=", 1) for pair in sys.argv[2:])))
