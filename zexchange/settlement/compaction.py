"""Compaction of the store's append-only file: without it the file keeps every batch that was ever trimmed.

The file is rewritten on command, after the log was trimmed, because only then is there something to gain; the
store's own trigger is off (store.py), as it would come in the middle of a load. Durability is not touched: while
a child of the store writes the new base, the store goes on appending and syncing, and a rewrite that fails
or is killed leaves the old files in force.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from zexchange.log.stream import StreamClient, command

__all__ = ["compact", "worth_rewriting"]

REWRITE_FLOOR_BYTES = 256 * 1024 * 1024
"""Below this a rewrite saves nothing that matters."""


def worth_rewriting(info: Mapping[str, Any]) -> bool:
    """Whether the file is more than twice what the store holds in memory, and no rewrite is under way.

    `info` is the store's INFO. The size at the last rewrite is no measure: a restart forgets it.
    """
    if info.get("aof_rewrite_in_progress") or info.get("aof_rewrite_scheduled"):
        return False
    size, held = int(info.get("aof_current_size", 0)), int(info.get("used_memory", 0))
    return size >= REWRITE_FLOOR_BYTES and size > 2 * held


def compact(client: StreamClient, log: logging.Logger) -> bool:
    """Start a rewrite if it is worth it; True if one was started.

    Raises StoreUnavailable, and StoreRefused where the store does not let us.
    """
    if not worth_rewriting(command(client, "INFO")):
        return False
    command(client, "BGREWRITEAOF")
    log.info("the store's file is being compacted")
    return True
