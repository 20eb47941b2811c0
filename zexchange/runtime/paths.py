"""Where everything of one deployment lives inside its data folder.

<data>/genesis.toml            the deployment: markets, assets, limits, public keys
<data>/keys/*.key              Ed25519 seeds, 64 hex digits and a newline, mode 0600
<data>/store/                  append-only file of the embedded store
<data>/snapshots/<shard>/      engine snapshots
<data>/archive/<shard>/        verified segments of the log
<data>/settlement/             checkpoints.log, last_signed.json, store (which store the log is in)
<data>/logs/<process>.jsonl    JSON lines; <process>.out holds what it wrote to stdout and stderr
<data>/init/<shard>            one-time token: an empty log is accepted only while it exists
<data>/run/                    locks, exchange.json and, if the path is short enough, the unix sockets
"""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from zexchange.limits import SOCKET_DIR_CHARS_MAX

PRIVATE_DIR_MODE = 0o700
DEFAULT_DATA = Path("data")


class UnsafeFolder(OSError):
    """A folder for sockets or keys belongs to somebody else or is open to others."""


@dataclass(frozen=True)
class DataPaths:
    """Paths of one data folder. Building one touches nothing; `create()` makes the folders."""

    data: Path
    root: Path = field(init=False)
    """The data folder as an absolute path without symbolic links."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.data).expanduser().resolve())

    @property
    def genesis(self) -> Path:
        return self.root / "genesis.toml"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    def key(self, name: str) -> Path:
        return self.keys / f"{name}.key"

    @property
    def operator_key(self) -> Path:
        return self.key("operator")

    @property
    def settlement_key(self) -> Path:
        return self.key("settlement")

    @property
    def store(self) -> Path:
        return self.root / "store"

    def snapshots(self, shard: int) -> Path:
        return self.root / "snapshots" / str(shard)

    def archive(self, shard: int) -> Path:
        return self.root / "archive" / str(shard)

    @property
    def settlement(self) -> Path:
        return self.root / "settlement"

    @property
    def checkpoints_log(self) -> Path:
        return self.settlement / "checkpoints.log"

    @property
    def last_signed(self) -> Path:
        return self.settlement / "last_signed.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.jsonl"

    def output(self, process: str) -> Path:
        """What the process wrote to stdout and stderr: empty unless it crashed before or outside its log."""
        return self.logs / f"{process}.out"

    def init_token(self, shard: int) -> Path:
        return self.root / "init" / str(shard)

    @property
    def run(self) -> Path:
        """Locks and exchange.json: always inside the data folder, so that two exchanges cannot share one."""
        return self.root / "run"

    @property
    def exchange_json(self) -> Path:
        return self.run / "exchange.json"

    @property
    def bots_paused(self) -> Path:
        """While this file is there the bots of a demo do nothing."""
        return self.run / "bots.paused"

    def stages(self, name: str) -> Path:
        """What a process counted of its stages until it stopped, unless it was not to."""
        return self.run / f"stages-{name}.json"

    def lock(self, name: str) -> Path:
        return self.run / f"{name}.lock"

    @property
    def runtime_dir(self) -> Path:
        """Folder of the unix sockets: `run/`, or a private one under the temporary folder when that path is
        too long."""
        if len(os.fsencode(self.run)) <= SOCKET_DIR_CHARS_MAX:
            return self.run
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"zexchange-{os.getuid()}-{digest}"

    @property
    def store_socket(self) -> Path:
        return self.runtime_dir / "store.sock"

    def matcher_socket(self, shard: int) -> Path:
        """Path of the shard's ZeroMQ socket; the address is `ipc://` and this path."""
        return self.runtime_dir / f"matcher-{shard}.ipc"

    def matcher_address(self, shard: int) -> str:
        return f"ipc://{self.matcher_socket(shard)}"

    def create(self) -> None:
        """Make the folders that every process expects; those with secrets or sockets are 0700.

        Raises UnsafeFolder when one of these exists and is not ours alone.
        """
        for folder in (self.root, self.logs, self.settlement):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in {self.keys, self.store, self.run, self.runtime_dir}:
            private_dir(folder)

    def remove_runtime(self) -> None:
        """Remove the sockets, and their folder when it is outside the data folder."""
        folder = self.runtime_dir
        if not folder.is_dir():
            return
        for entry in folder.iterdir():
            if stat.S_ISSOCK(entry.lstat().st_mode):
                entry.unlink(missing_ok=True)
        if folder != self.run:
            try:
                folder.rmdir()
            except OSError:
                pass  # somebody else's file is in it: not ours to remove


def private_dir(folder: Path) -> None:
    """Make `folder` with mode 0700, or raise UnsafeFolder if it exists and others own or may enter it."""
    try:
        folder.mkdir(mode=PRIVATE_DIR_MODE, parents=True)
    except FileExistsError:
        pass
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise UnsafeFolder(
            f"{folder} must be a folder that belongs to you; remove it or choose another data folder"
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        folder.chmod(PRIVATE_DIR_MODE)
