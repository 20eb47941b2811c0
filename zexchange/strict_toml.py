"""TOML tables into msgspec structs, strictly: every error names the source, the key and what is allowed.

msgspec alone stops at the first bad value with a JSON path; whoever edits a configuration needs the file, the
dotted key, the value found, the allowed ones and, for a misspelt key, the likely one.
"""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect as msgspec_inspect

S = TypeVar("S", bound=msgspec.Struct)


class SettingError(ValueError):
    """A key or value that the file, variable or flag may not hold. The message is one sentence for the
    operator."""

    def __init__(self, source: str, key: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source
        self.key = key


def read_toml(raw: bytes, source: str) -> dict[str, Any]:
    """Parse TOML. Raises SettingError with line and column when it is not TOML."""
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(source, "", f"not valid TOML: {error}") from None


def read_toml_file(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The file's bytes and its tables. Raises SettingError when it cannot be read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingError(str(path), "", f"cannot be read: {error.strerror}") from None
    return raw, read_toml(raw, str(path))


def unknown_key(source: str, key: str, allowed: list[str]) -> SettingError:
    """The error for a key that does not exist, with the nearest one that does."""
    leaf = key.rpartition(".")[2]
    near = difflib.get_close_matches(leaf, allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return SettingError(
        source, key, f"unknown key {key!r}{hint} (allowed here: {', '.join(sorted(allowed))})"
    )


def build(cls: type[S], table: Mapping[str, Any], source: str, prefix: str = "") -> S:
    """Decode `table` into `cls`. Raises SettingError for unknown or missing keys and wrong values."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(cls)}
    for key in table:
        if key not in fields:
            raise unknown_key(source, prefix + key, list(fields))
    values: dict[str, Any] = {}
    for name, field in fields.items():
        key = prefix + name
        if name not in table:
            if field.required:
                raise SettingError(
                    source, key, f"key {key!r} is missing (allowed: {allowed_values(field.type)})"
                )
            continue
        values[field.name] = convert(field.type, table[name], source, key)
    return cls(**values)


def convert(kind: Any, value: Any, source: str, key: str) -> Any:
    """Decode one value. Structs and arrays of structs are walked, so that errors name the exact key."""
    info = msgspec_inspect.type_info(kind)
    if isinstance(info, msgspec_inspect.StructType):
        if not isinstance(value, dict):
            raise SettingError(source, key, f"{key!r} must be a table")
        return build(info.cls, value, source, key + ".")
    if isinstance(info, msgspec_inspect.VarTupleType) and isinstance(
        info.item_type, msgspec_inspect.StructType
    ):
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise SettingError(source, key, f"{key!r} must be an array of tables ([[{key}]])")
        return tuple(
            build(info.item_type.cls, item, source, f"{key}[{index}].") for index, item in enumerate(value)
        )
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise bad_value(kind, value, source, key) from None


def bad_value(kind: Any, value: Any, source: str, key: str) -> SettingError:
    """The error for a value of the wrong type or outside the allowed ones."""
    return SettingError(source, key, f"key {key!r} cannot be {value!r} (allowed: {allowed_values(kind)})")


def allowed_values(kind: Any) -> str:
    """Say in words what a field of this type may hold."""
    return _describe(msgspec_inspect.type_info(kind))


def _describe(info: Any) -> str:
    match info:
        case msgspec_inspect.Metadata(type=inner, extra_json_schema=schema):
            described = (schema or {}).get("description")
            return str(described) if described else _describe(inner)
        case msgspec_inspect.LiteralType(values=values):
            return " or ".join(f'"{value}"' for value in values)
        case msgspec_inspect.UnionType(types=types):
            return " or ".join(_describe(inner) for inner in types)
        case msgspec_inspect.BoolType():
            return "true or false"
        case msgspec_inspect.IntType(ge=ge, le=le):
            if ge is not None and le is not None:
                return f"a whole number from {ge:,} to {le:,}"
            return "a whole number" if ge is None else f"a whole number of at least {ge:,}"
        case msgspec_inspect.StrType(pattern=pattern):
            return "a string" if pattern is None else f"a string that matches {pattern}"
        case msgspec_inspect.DecimalType():
            return 'a decimal number as a string, such as "0.01"'
        case msgspec_inspect.StructType():
            return "a table"
        case msgspec_inspect.VarTupleType(item_type=item):
            return f"an array of {_describe(item)}"
        case _:
            return type(info).__name__.removesuffix("Type").lower()
