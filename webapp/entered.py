"""With which terms orders were entered, read from the batches of the log. Pure.

Reports repeat an order's price and quantity, and the engine keeps what it needs to go on. What else was asked for, such
as that an order must not take, only its command says. So the commands of new orders are kept as they stand in the log,
as many of each account and shard as there are reports.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from webapp.history import REPORTS_KEPT
from zexchange.limits import EXECUTION_REPORT_BYTES
from zexchange.wire.messages import (
    BODY_OFFSET,
    GROUP_HEADER_BYTES,
    Command,
    CommandKind,
    ExecType,
    OrderOptions,
    ReportFlags,
    SignedBatch,
)

_EXEC_TYPE_OFFSET = 157
_EVENT = struct.Struct("<Q8xQQ124xBBxxB7x")
"""Account, seq and record of the command, its place in the batch, what became of it, flags."""
assert _EVENT.size == EXECUTION_REPORT_BYTES
_ENTERS = (int(ExecType.NEW), int(ExecType.REJECTED))
_TEMPLATE_ID_OFFSET = 8
_COMMANDS_OFFSET = BODY_OFFSET + SignedBatch.BLOCK_LENGTH + GROUP_HEADER_BYTES
_COMMAND_BYTES = Command.BLOCK_LENGTH
_OPTIONS_OFFSET = 5
_IS_NEW, _IS_DUPLICATE = int(CommandKind.NEW), int(ReportFlags.DUPLICATE)
_PAIRS = int(OrderOptions.OCO_WITH_PREVIOUS)


class EnteredOrders:
    """Commands of new orders, taken or refused, by account, shard and `seq`, which is the number of an order."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], dict[int, bytes]] = {}

    def add(self, shard: int, events: bytes, first_record_no: int, frames: Sequence[bytes]) -> None:
        """A batch of the log: its events, and its frames, of which the first has this record number."""
        exec_types = events[_EXEC_TYPE_OFFSET::EXECUTION_REPORT_BYTES]
        for kind in _ENTERS:
            at = exec_types.find(kind)
            while at >= 0:
                self._take(shard, events, at * EXECUTION_REPORT_BYTES, first_record_no, frames)
                at = exec_types.find(kind, at + 1)

    def _take(
        self, shard: int, events: bytes, offset: int, first_record_no: int, frames: Sequence[bytes]
    ) -> None:
        account_id, seq, record_no, index, kind, flags = _EVENT.unpack_from(events, offset)
        if flags & _IS_DUPLICATE:
            return  # told again, under the record of then
        frame = frames[record_no - first_record_no]
        begin = _COMMANDS_OFFSET + index * _COMMAND_BYTES
        if frame[_TEMPLATE_ID_OFFSET] != SignedBatch.TEMPLATE_ID or frame[begin] != _IS_NEW:
            return
        kept = self._blocks.get((shard, account_id))
        if kept is None:
            kept = self._blocks[shard, account_id] = {}
        block = frame[begin : begin + _COMMAND_BYTES]
        kept[seq] = block
        if block[_OPTIONS_OFFSET] & _PAIRS and kind == _ENTERS[0] and (other := kept.get(seq - 1)):
            options = other[_OPTIONS_OFFSET] | _PAIRS
            kept[seq - 1] = other[:_OPTIONS_OFFSET] + bytes((options,)) + other[_OPTIONS_OFFSET + 1 :]
        if len(kept) > REPORTS_KEPT:
            del kept[next(iter(kept))]

    def command(self, account_id: int, shard: int, seq: int) -> Command | None:
        """The command that entered an order, or was refused; both orders of a pair say that they are of one. None if it
        is not known any more."""
        block = self._blocks.get((shard, account_id), {}).get(seq)
        return None if block is None else Command.decode_block(block)
