"""The extension that build_ext.py makes of csrc/: what is in it, csrc/cdef.h says."""

from typing import Any

ffi: Any
lib: Any
