"""Settings of the processes: typed, with one place for each default.

A value is taken from the first of these that has it: a command-line flag, the environment variable
`ZX__SECTION__KEY`, the configuration file, the default written here. `config.toml` in the repository lists
every setting with its default, its unit and its reason; a test keeps it equal to this module. What defines a
deployment (markets, keys, limits of the engine) is not a setting: it is in the genesis file.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from zexchange import limits
from zexchange.strict_toml import SettingError, bad_value, build, convert, read_toml_file, unknown_key

ENV_PREFIX = "ZX__"
DEFAULT_FILE = Path("config.toml")

ConfigError = SettingError
"""Raised for every wrong setting; the message names file (or variable or flag), key and allowed values."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections."""


class ExchangeSection(_Section, frozen=True):
    """Where the exchange listens."""

    host: Annotated[
        str, Meta(min_length=1, extra_json_schema={"description": "an address or host name of this machine"})
    ] = "127.0.0.1"
    port_base: Annotated[int, Meta(ge=1, le=limits.PORT_BASE_MAX)] = limits.PORT_BASE


class StoreSection(_Section, frozen=True):
    """The execution log's store."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^$|^(redis|rediss|valkey|valkeys|unix)://.+$",
            extra_json_schema={
                "description": '"" for the embedded store, or redis://, rediss://, valkey://, valkeys:// or '
                "unix:// and an address"
            },
        ),
    ] = ""
    fsync: Literal["always", "everysec"] = "always"
    timeout_ms: Annotated[int, Meta(ge=100, le=600_000)] = 5_000
    start_timeout_ms: Annotated[int, Meta(ge=1_000, le=3_600_000)] = 120_000
    maxmemory_bytes: Annotated[int, Meta(ge=0, le=2**50)] = 0


class IngressSection(_Section, frozen=True):
    """Order entry: workers, sessions and their limits."""

    workers: Literal["auto"] | Annotated[int, Meta(ge=1, le=limits.INGRESS_WORKERS_MAX)] = "auto"
    colocate: Literal["auto", "on", "off"] = "auto"
    verify_threads: Literal["auto"] | Annotated[int, Meta(ge=0, le=limits.VERIFY_THREADS_MAX)] = "auto"
    max_sessions: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    establish_timeout_ms: Annotated[int, Meta(ge=100, le=600_000)] = 3_000
    frame_timeout_ms: Annotated[int, Meta(ge=100, le=600_000)] = 1_000
    send_buffer_bytes: Annotated[int, Meta(ge=4_096, le=64 * 1024 * 1024)] = 262_144
    max_strikes: Annotated[int, Meta(ge=1, le=255)] = 3
    max_sessions_per_ip: Annotated[int, Meta(ge=1, le=1_000_000)] = 4_096
    strike_penalty_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 1_000
    max_in_flight_bytes: Annotated[int, Meta(ge=limits.LINK_MESSAGE_BYTES_MAX, le=2**30)] = 8_388_608


class MatcherSection(_Section, frozen=True):
    """The matching process of a shard."""

    max_batch_bytes: Annotated[int, Meta(ge=2 * limits.MAX_FRAME_BYTES, le=limits.LOG_BATCH_BYTES_MAX)] = (
        limits.LOG_BATCH_BYTES_MAX
    )
    max_queued_frames: Annotated[int, Meta(ge=64, le=1_000_000)] = 16_384
    max_sessions_per_account: Annotated[int, Meta(ge=1, le=65_536)] = 16
    store_give_up_ms: Annotated[int, Meta(ge=1_000, le=3_600_000)] = 30_000
    ready_orders: Annotated[int, Meta(ge=0, le=limits.ORDERS_MAX)] = 65_536


class SettlementSection(_Section, frozen=True):
    """Checkpoints, snapshots and the archive."""

    checkpoint_interval_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 1_000
    snapshot_every_records: Annotated[int, Meta(ge=1, le=2**40)] = 100_000
    segment_every_records: Annotated[int, Meta(ge=1, le=2**40)] = 100_000
    verify_signatures: Literal["auto", "on", "off"] = "auto"
    kept_snapshots: Annotated[int, Meta(ge=1, le=1_000)] = 3
    kept_log_records: Annotated[int, Meta(ge=0, le=2**40)] = 10_000
    published_checkpoints: Annotated[int, Meta(ge=1, le=2**31)] = 86_400


class WebSection(_Section, frozen=True):
    """REST, WebSockets, the trading page, and the admin API."""

    enabled: bool = True
    host: Annotated[
        str, Meta(min_length=1, extra_json_schema={"description": "an address or host name of this machine"})
    ] = "127.0.0.1"
    port: Literal["auto"] | Annotated[int, Meta(ge=1, le=65_535)] = "auto"
    admin_host: Annotated[
        str, Meta(min_length=1, extra_json_schema={"description": "an address or host name of this machine"})
    ] = "127.0.0.1"
    admin_port: Literal["auto"] | Annotated[int, Meta(ge=1, le=65_535)] = "auto"
    admin_token: Annotated[
        str,
        Meta(
            pattern=r"^$|^[\x21-\x7e]{16,256}$",
            extra_json_schema={"description": '"" or 16 to 256 printable characters without spaces'},
        ),
    ] = ""
    origins: list[str] = []
    trusted_proxies: list[str] = []
    requests_per_minute: Annotated[int, Meta(ge=1, le=10_000_000)] = 1_200
    connections_per_address: Annotated[int, Meta(ge=1, le=5_000)] = 100
    publish_log: bool = True


class PinningSection(_Section, frozen=True):
    """Which process runs on which core."""

    mode: Literal["auto", "off"] = "auto"


class LoggingSection(_Section, frozen=True):
    """What the processes write to their log files."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    max_file_bytes: Annotated[int, Meta(ge=65_536, le=2**40)] = 67_108_864
    kept_files: Annotated[int, Meta(ge=1, le=1_000)] = 4


class MeasurementSection(_Section, frozen=True):
    """What the processes count about themselves."""

    stages: bool = True


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. `source` is the file they came from, None when there was none."""

    exchange: ExchangeSection = ExchangeSection()
    store: StoreSection = StoreSection()
    ingress: IngressSection = IngressSection()
    matcher: MatcherSection = MatcherSection()
    settlement: SettlementSection = SettlementSection()
    web: WebSection = WebSection()
    pinning: PinningSection = PinningSection()
    logging: LoggingSection = LoggingSection()
    measurement: MeasurementSection = MeasurementSection()

    @property
    def tcp_port(self) -> int:
        """Port of order entry."""
        return self.exchange.port_base + limits.PORT_OFFSET_TCP

    @property
    def web_port(self) -> int:
        """Port of the page, REST and WebSockets."""
        if self.web.port != "auto":
            return self.web.port
        base = self.exchange.port_base
        return limits.WEB_PORT if base == limits.PORT_BASE else base + limits.PORT_OFFSET_WEB

    @property
    def admin_port(self) -> int:
        """Port of the admin API."""
        if self.web.admin_port != "auto":
            return self.web.admin_port
        return self.exchange.port_base + limits.PORT_OFFSET_ADMIN


SECTIONS: tuple[str, ...] = tuple(field.name for field in msgspec.structs.fields(Config))


def section_fields(section: str) -> dict[str, msgspec.structs.FieldInfo]:
    """The settings of one section by name."""
    kind = type(getattr(Config(), section))
    return {field.name: field for field in msgspec.structs.fields(kind)}


def load_config(
    path: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Settings from flags, environment, file and defaults, in this order of precedence.

    `path` None reads `config.toml` of the working directory if there is one. `overrides` maps `section.key`
    to the text given on the command line. Raises ConfigError.
    """
    table: dict[str, Any] = {}
    source = "defaults"
    if path is None and DEFAULT_FILE.is_file():
        path = DEFAULT_FILE
    if path is not None:
        source = str(path)
        _, table = read_toml_file(path)
    config = build(Config, table, source)
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(ENV_PREFIX):
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            config = _with(config, key, text, f"environment variable {name}")
    for key, text in (overrides or {}).items():
        config = _with(config, key, text, f"flag --{key.rpartition('.')[2].replace('_', '-')}")
    return config


def environment_of(overrides: Mapping[str, str]) -> dict[str, str]:
    """The same overrides as environment variables, for child processes."""
    return {ENV_PREFIX + key.upper().replace(".", "__"): text for key, text in overrides.items()}


def _with(config: Config, key: str, text: str, source: str) -> Config:
    section, _, name = key.partition(".")
    if section not in SECTIONS:
        raise unknown_key(source, section, list(SECTIONS))
    fields = section_fields(section)
    if name not in fields:
        raise unknown_key(source, key, list(fields))
    value = convert(fields[name].type, _parsed(fields[name].type, text, source, key), source, key)
    changed = msgspec.structs.replace(getattr(config, section), **{name: value})
    return msgspec.structs.replace(config, **{section: changed})


def _parsed(kind: Any, text: str, source: str, key: str) -> Any:
    """Text of a flag or variable as the TOML value it stands for."""
    if kind is bool:
        if text not in ("true", "false"):
            raise bad_value(kind, text, source, key)
        return text == "true"
    if kind is not str and re.fullmatch(r"[+-]?[0-9][0-9_]*", text) and not _is_text(kind):
        return int(text)
    return text


def _is_text(kind: Any) -> bool:
    """True if every value of the type is a string."""
    info = msgspec.inspect.type_info(kind)
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    return isinstance(info, msgspec.inspect.StrType)
