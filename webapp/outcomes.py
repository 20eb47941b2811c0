"""What became of commands, counted by the way they came and by reason, out of the events of the log. Pure.

The log does not say how a batch came. Those that this process sends for clients of the HTTP API are remembered;
everything else came over TCP, the page's tunnel included.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict

from zexchange.limits import EXECUTION_REPORT_BYTES
from zexchange.wire.messages import ExecType, ReasonCode, ReportFlags

HTTP, TCP = "http", "tcp"
ACCEPTED = "ACCEPTED"
REMEMBERED_MAX = 10_000
"""Batches over HTTP: more than can be on their way at once."""

_EXEC_TYPE_OFFSET = 157
_FIELDS = struct.Struct("<Q32xQ104xH6xB7x")
"""Account, nonce, reason, flags."""
assert _FIELDS.size == EXECUTION_REPORT_BYTES
_KINDS = (int(ExecType.NEW), int(ExecType.REJECTED))


class Outcomes:
    """Orders that were accepted, and commands that were refused, since the log was followed."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """By transport and reason."""
        self._over_http: OrderedDict[tuple[int, int, int], None] = OrderedDict()

    def submitted(self, account_id: int, shard: int, nonce: int) -> None:
        """This batch comes over HTTP."""
        self._over_http[account_id, shard, nonce] = None
        while len(self._over_http) > REMEMBERED_MAX:
            self._over_http.popitem(last=False)

    def add(self, shard: int, events: bytes) -> None:
        """The events of one batch of the log."""
        size = EXECUTION_REPORT_BYTES
        exec_types = events[_EXEC_TYPE_OFFSET::size]
        for kind in _KINDS:
            index = exec_types.find(kind)
            while index >= 0:
                account_id, nonce, reason, flags = _FIELDS.unpack_from(events, index * size)
                if not flags & ReportFlags.DUPLICATE:
                    transport = HTTP if (account_id, shard, nonce) in self._over_http else TCP
                    name = ACCEPTED if kind == ExecType.NEW else ReasonCode(reason).name
                    self.counts[transport, name] += 1
                index = exec_types.find(kind, index + 1)
