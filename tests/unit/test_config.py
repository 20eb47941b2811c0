"""Settings: precedence, errors, and that config.toml says what the code does."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from tests.conftest import REPOSITORY
from zexchange.config import SECTIONS, Config, ConfigError, environment_of, load_config, section_fields

CONFIG_TOML = REPOSITORY / "config.toml"


def test_config_toml_equals_the_defaults() -> None:
    table = tomllib.loads(CONFIG_TOML.read_text(encoding="utf-8"))
    assert table == msgspec.to_builtins(Config())
    assert load_config(CONFIG_TOML, environ={}) == Config()


def test_config_toml_explains_every_setting() -> None:
    lines = CONFIG_TOML.read_text(encoding="utf-8").splitlines()
    settings = [index for index, line in enumerate(lines) if line and line[0].isalpha()]
    assert len(settings) == sum(len(section_fields(section)) for section in SECTIONS)
    for index in settings:
        assert lines[index - 1].startswith("# "), f"no reason above {lines[index]!r}"


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "zx.toml"
    file.write_text("[exchange]\nport_base = 9001\n", encoding="utf-8")
    environ = {"ZX__EXCHANGE__PORT_BASE": "9002", "UNRELATED": "x"}
    flags = {"exchange.port_base": "9003"}
    assert load_config(None, environ={}).exchange.port_base == 9000
    assert load_config(file, environ={}).exchange.port_base == 9001
    assert load_config(file, environ=environ).exchange.port_base == 9002
    assert load_config(file, flags, environ).exchange.port_base == 9003


def test_the_file_of_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text('[store]\nfsync = "everysec"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_config(environ={}).store.fsync == "everysec"


def test_ports_follow_the_port_base() -> None:
    config = load_config(None, {"exchange.port_base": "9200"}, {})
    assert config.tcp_port == 9200


@pytest.mark.parametrize(
    ("text", "value"),
    [("auto", "auto"), ("4", 4)],
)
def test_text_of_a_variable_becomes_the_type_of_the_setting(text: str, value: object) -> None:
    assert load_config(None, environ={"ZX__INGRESS__WORKERS": text}).ingress.workers == value


def test_booleans_and_digits_in_variables() -> None:
    environ = {"ZX__MEASUREMENT__STAGES": "false", "ZX__EXCHANGE__HOST": "10"}
    config = load_config(None, environ=environ)
    assert config.measurement.stages is False
    assert config.exchange.host == "10"


def test_overrides_reach_children_through_their_environment() -> None:
    overrides = {"exchange.port_base": "9100", "store.fsync": "everysec"}
    environ = environment_of(overrides)
    assert environ == {"ZX__EXCHANGE__PORT_BASE": "9100", "ZX__STORE__FSYNC": "everysec"}
    assert load_config(None, environ=environ) == load_config(None, overrides, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[stor]\n", "{file}: unknown key 'stor'; did you mean 'store'?"),
        (
            "[store]\nfsnc = 1\n",
            "{file}: unknown key 'store.fsnc'; did you mean 'fsync'? (allowed here: fsync, ",
        ),
        (
            '[store]\nfsync = "no"\n',
            "{file}: key 'store.fsync' cannot be 'no' (allowed: \"always\" or \"everysec\")",
        ),
        (
            '[store]\nurl = "http://x"\n',
            "{file}: key 'store.url' cannot be 'http://x' (allowed: \"\" for the embedded",
        ),
        (
            "[exchange]\nport_base = 70000\n",
            "{file}: key 'exchange.port_base' cannot be 70000 (allowed: a whole number",
        ),
        (
            '[exchange]\nport_base = "9000"\n',
            "{file}: key 'exchange.port_base' cannot be '9000' (allowed: a whole num",
        ),
        ("[exchange]\nport_base = 9000.0\n", "{file}: key 'exchange.port_base' cannot be 9000.0"),
        (
            "[measurement]\nstages = 1\n",
            "{file}: key 'measurement.stages' cannot be 1 (allowed: true",
        ),
        (
            "[ingress]\nworkers = 0\n",
            "{file}: key 'ingress.workers' cannot be 0 (allowed: \"auto\" or a whole number from 1",
        ),
        ("exchange = 3\n", "{file}: 'exchange' must be a table"),
        ("[exchange\n", "{file}: not valid TOML: "),
    ],
)
def test_errors_name_file_key_and_allowed_values(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "zx.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_config(file, environ={})
    assert str(raised.value).startswith(message.format(file=file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        load_config(tmp_path / "absent.toml", environ={})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ZX__STORE__FSNC", "always", "environment variable ZX__STORE__FSNC: unknown key 'store.fsnc'"),
        ("ZX__SHOP__FSYNC", "always", "environment variable ZX__SHOP__FSYNC: unknown key 'shop'"),
        (
            "ZX__EXCHANGE__PORT_BASE",
            "many",
            "environment variable ZX__EXCHANGE__PORT_BASE: key 'exchange.port_base'",
        ),
        (
            "ZX__MEASUREMENT__STAGES",
            "1",
            "environment variable ZX__MEASUREMENT__STAGES: key",
        ),
    ],
)
def test_errors_name_the_variable(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(None, environ={name: value})
    assert str(raised.value).startswith(message)
