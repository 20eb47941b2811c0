"""The C extension, refused when it is stale, and the two functions of libsodium that are handed to it.

`ffi` and `lib` are those of `zexchange._native`. A version that is not the package's, or sources that changed
since the extension was built, raise ImportError: an old engine must never run by accident.
"""

from pathlib import Path
from typing import Any

from nacl._sodium import ffi as _sodium_ffi
from nacl._sodium import lib as _sodium_lib

from zexchange import __version__
from zexchange.source_hash import source_hash

try:
    import zexchange._native as _native
except ImportError as error:
    raise ImportError(f"the C engine is not built; run `make setup` ({error})") from error

__all__ = ["ffi", "lib", "sha256", "sign_open"]

ffi: Any = _native.ffi
lib: Any = _native.lib

_CSRC = Path(__file__).resolve().parent.parent / "csrc"


def _text(value: Any) -> str:
    return bytes(ffi.string(value)).decode()


def _check_build() -> None:
    version = _text(lib.zx_build_version())
    if version != __version__:
        raise ImportError(
            f"the C engine was built for version {version}, this is {__version__}; run `make setup`"
        )
    # In an installed package there are no sources to compare with.
    if (_CSRC / "cdef.h").is_file() and source_hash(_CSRC) != _text(lib.zx_build_source_hash()):
        raise ImportError(f"the C engine is older than its sources in {_CSRC}; run `make setup`")


def _sodium(name: str, c_type: str) -> Any:
    """A function of PyNaCl's libsodium as a pointer that our extension can call."""
    address = _sodium_ffi.cast("uintptr_t", _sodium_ffi.addressof(_sodium_lib, name))
    return ffi.cast(c_type, int(address))


_check_build()

sha256: Any = lib.sha256_of_processor() or _sodium("crypto_hash_sha256", "zx_sha256")
"""int (*)(unsigned char *out, const unsigned char *in, unsigned long long length): the processor's own if it has
one, else libsodium's"""

sign_open: Any = _sodium("crypto_sign_open", "zx_sign_open")
"""int (*)(m, mlen, sm, smlen, public key); m and mlen may be NULL"""
