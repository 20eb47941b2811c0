"""How many files and sockets this process may have open."""

from __future__ import annotations

import logging

UNLIMITED = 2**31


def descriptor_limit(log: logging.Logger) -> int:
    """The limit, raised as far as this process may."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as error:
            log.warning("the limit on open files stays", extra={"zx": {"limit": soft, "error": str(error)}})
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft
