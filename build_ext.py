"""Builds the C engine, csrc/, into the extension module `zexchange._native`, and the load generator, perf/csrc/, into
`perf._native`, which stays in the source tree and is never packaged.

    python build_ext.py                  into zexchange/ and perf/, for work in the source tree
    python build_ext.py engine           only the engine; or perf: only the load generator
    ZX_BUILD=debug python build_ext.py   one of MODES below; release if it is not set

Packaging builds the same through `cffi_modules=["build_ext.py:ffibuilder"]`. What Python may see of the engine
is csrc/cdef.h, a real header that is only read here. The version of the package and a hash of the sources are
baked in, so that a stale build cannot be imported: see zexchange/native.py.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
PERF_CSRC = ROOT / "perf" / "csrc"

sys.path.insert(0, str(ROOT))  # an isolated build does not have the project on its path
from zexchange.source_hash import source_hash  # noqa: E402

MODES = {
    "release": (["-O2", "-g", "-flto", "-fvisibility=hidden"], ["-O2", "-flto"]),
    "debug": (["-O0", "-g3"], []),
    "asan": (
        ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        ["-fsanitize=address,undefined"],
    ),
    # Not -O0: what is compiled into its callers would be counted there with the ways that their constants rule out.
    "coverage": (["-O1", "-g", "--coverage"], ["--coverage"]),
}

# Reports are cleared and copied as a whole. By default GCC does that with string instructions, which take some thirty
# cycles before the first byte. Only for release, and only where the compiler knows them.
WHOLES = [
    f"-m{which}-strategy=unrolled_loop:512:noalign,libcall:-1:noalign" for which in ("memset", "memcpy")
]

# Ours must be free of warnings. What cffi generates is compiled by the same command and is not ours to change: the
# strictest are switched off after our headers, in the part that it writes.
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"]

GENERATED_PREAMBLE = """
#include "engine.h"
#include "express.h"
#include "frames.h"
#include "frontier.h"
#include "inbox.h"
#include "intake.h"
#include "lob.h"
#include "pump.h"
#include "ready.h"
#include "routes.h"
#include "seal.h"
#include "sha256.h"
#include "state.h"
#include "verifiers.h"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
"""


# The parts of the engine that it drives by itself, without the exchange.
PERF_ENGINE_SOURCES = (
    "arena.c",
    "base.c",
    "book.c",
    "idmap.c",
    "ids.c",
    "levels.c",
    "lob.c",
    "queues.c",
    "ranks.c",
    "slots.c",
    "undo.c",
)

PERF_PREAMBLE = """
#include "bookbench.h"
#include "loadgen.h"
#include "shardbench.h"
static const char *perf_source_hash(void) { return PERF_SOURCE_HASH; }
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
"""


def package_version() -> str:
    """`__version__` of the package, read and not imported."""
    text = (ROOT / "zexchange" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("zexchange/__init__.py has no __version__")
    return found[1]


def baked_in(mode: str) -> str:
    """A file that is newer than the last build if mode or version changed since: setuptools compares only times."""
    stamp = ROOT / "build" / "baked-in"
    wanted = f"{mode} {package_version()}\n"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(wanted, encoding="utf-8")
    return "build/baked-in"


def accepted(flags: list[str]) -> list[str]:
    """The flags, or none if the compiler does not know them."""
    try:
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        asked = subprocess.run(
            [*compiler, *flags, "-Werror", "-E", "-x", "c", os.devnull], capture_output=True, check=False
        )
    except (OSError, ValueError):
        return []
    return flags if asked.returncode == 0 else []


def flags_of(mode: str) -> tuple[list[str], list[str]]:
    """Flags to compile and to link with, for one of MODES."""
    if mode not in MODES:
        raise SystemExit(f"ZX_BUILD={mode}: must be one of {', '.join(MODES)}")
    compile_flags, link_flags = MODES[mode]
    wholes = accepted(WHOLES) if mode == "release" else []
    return [*compile_flags, *wholes], [*link_flags, *wholes]


def make_ffibuilder(mode: str) -> FFI:
    """The builder of the extension, for one of MODES."""
    compile_flags, link_flags = flags_of(mode)
    builder = FFI()
    builder.cdef((CSRC / "cdef.h").read_text(encoding="utf-8"))
    builder.set_source(
        "zexchange._native",
        GENERATED_PREAMBLE,
        sources=[f"csrc/{path.name}" for path in sorted(CSRC.glob("*.c"))],
        depends=[*(f"csrc/{path.name}" for path in sorted(CSRC.glob("*.h"))), "build_ext.py", baked_in(mode)],
        include_dirs=["csrc"],
        define_macros=[
            ("ZX_BUILD_VERSION", f'"{package_version()}"'),
            ("ZX_BUILD_SOURCE_HASH", f'"{source_hash(CSRC)}"'),
            ("ZX_BUILD_MODE", f'"{mode}"'),
        ],
        extra_compile_args=[*STRICT, *compile_flags],
        extra_link_args=link_flags,
    )
    return builder


def make_perf_ffibuilder(mode: str) -> FFI:
    """The builder of the load generator's extension."""
    compile_flags, link_flags = flags_of(mode)
    builder = FFI()
    builder.cdef((PERF_CSRC / "cdef.h").read_text(encoding="utf-8"))
    builder.set_source(
        "perf._native",
        PERF_PREAMBLE,
        sources=[
            *(f"perf/csrc/{path.name}" for path in sorted(PERF_CSRC.glob("*.c"))),
            *(f"csrc/{name}" for name in PERF_ENGINE_SOURCES),
        ],
        depends=[
            *(f"perf/csrc/{path.name}" for path in sorted(PERF_CSRC.glob("*.h"))),
            *(f"csrc/{path.name}" for path in sorted(CSRC.glob("*.h"))),
        ],
        include_dirs=["csrc", "perf/csrc"],
        define_macros=[
            ("PERF_SOURCE_HASH", f'"{source_hash(PERF_CSRC)}"'),
            ("ZX_BUILD_VERSION", f'"{package_version()}"'),
            ("ZX_BUILD_SOURCE_HASH", f'"{source_hash(CSRC)}"'),
            ("ZX_BUILD_MODE", f'"{mode}"'),
        ],
        extra_compile_args=[*STRICT, *compile_flags],
        extra_link_args=link_flags,
    )
    return builder


perf_ffibuilder = make_perf_ffibuilder(os.environ.get("ZX_BUILD", "release")) if PERF_CSRC.is_dir() else None
ffibuilder = make_ffibuilder(os.environ.get("ZX_BUILD", "release"))


def main() -> None:
    """Builds in place; object files go to build/."""
    from setuptools import setup

    os.chdir(ROOT)
    modules = {"engine": "build_ext.py:ffibuilder", "perf": "build_ext.py:perf_ffibuilder"}
    only = sys.argv[1] if sys.argv[1:2] and sys.argv[1] in modules else None
    arguments = sys.argv[2:] if only else sys.argv[1:]
    setup(
        name="zexchange",
        cffi_modules=[modules[only]] if only else list(modules.values()),
        script_args=["--quiet", "build_ext", "--inplace", "--force", *arguments],
    )


if __name__ == "__main__":
    main()
