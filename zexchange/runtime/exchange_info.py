"""`run/exchange.json`: what runs in a data folder and where it listens.

The supervisor writes it when orders are accepted, again whenever a process was replaced, and removes it at
the end. It is believed only while the supervisor's lock is held, so the file of a killed exchange misleads
nobody.

`store_url` is the whole address of the store, a password included, so that other commands of the same user
find the store however the exchange was told of it: the file is 0600, in a folder that is 0700. To show the
address use `store.shown_url`, to connect `store.open_store_of`.
"""

import fcntl
import os
from pathlib import Path

import msgspec

from zexchange.runtime.paths import DataPaths

SUPERVISOR_LOCK = "supervisor"
PRIVATE_FILE_MODE = 0o600


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One process: `state` as in supervision.State, `cpus` empty when it is not pinned."""

    pid: int | None
    state: str
    restarts: int
    cpus: tuple[int, ...] = ()


class Endpoint(msgspec.Struct, frozen=True):
    """A TCP address."""

    host: str
    port: int

    @property
    def reachable_host(self) -> str:
        """The host to connect to from this machine: one that listens everywhere is reached at the loopback address."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ExchangeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The running exchange. `deployment_id` is hex; `durability` is "always" or "everysec"; `store_url` may
    hold a password. `web` and `admin` are None without a web process. `colocated`: one ingress worker is in the
    process of the first matcher."""

    pid: int
    version: str
    started_at: str
    data: str
    name: str
    deployment_id: str
    shards: int
    tcp: Endpoint
    web: Endpoint | None = None
    admin: Endpoint | None = None
    store_url: str
    durability: str
    pinning: str
    colocated: bool
    processes: dict[str, ProcessInfo]


def write_exchange(paths: DataPaths, info: ExchangeInfo) -> None:
    """Replace the file in one step, so that a reader sees the old or the new one. Raises OSError."""
    temporary = paths.exchange_json.with_suffix(".json.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, PRIVATE_FILE_MODE)  # it may have been left behind by something else
        file.write(msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n")
    temporary.replace(paths.exchange_json)


def read_exchange(paths: DataPaths) -> ExchangeInfo | None:
    """What runs here now; None if nothing does, or it is not ready yet."""
    if not is_supervised(paths):
        return None
    try:
        return msgspec.json.decode(paths.exchange_json.read_bytes(), type=ExchangeInfo)
    except (OSError, msgspec.MsgspecError):
        return None


def is_supervised(paths: DataPaths) -> bool:
    """True if a supervisor holds the lock of this folder."""
    return lock_owner(paths.lock(SUPERVISOR_LOCK)) is not None


def lock_owner(path: Path) -> str | None:
    """The pid written in a lock file that somebody holds ("unknown" if none is); None if it is free."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
    finally:
        os.close(descriptor)


def take_lock(path: Path) -> int | None:
    """Take the lock and write our pid into it; the descriptor holds it. None if somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
