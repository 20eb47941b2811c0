"""The load generator's extension, refused when it is stale."""

from pathlib import Path
from typing import Any

from zexchange.source_hash import source_hash

try:
    import perf._native as _native
except ImportError as error:
    raise ImportError(f"the load generator is not built; run `make setup` ({error})") from error

__all__ = ["ffi", "lib"]

ffi: Any = _native.ffi
lib: Any = _native.lib

_CSRC = Path(__file__).resolve().parent / "csrc"

if source_hash(_CSRC) != bytes(ffi.string(lib.perf_source_hash())).decode():
    raise ImportError(f"the load generator is older than its sources in {_CSRC}; run `make setup`")
