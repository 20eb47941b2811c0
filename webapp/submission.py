"""Sends an account's batches, and does nothing twice that has a client order id.

The exchange knows a batch that comes twice by its nonce. Who signs again, because no answer came, has another nonce;
then the client order ids say that it is the same: with the same commands the answer is the original result, and with
others nothing is done. What was done before is looked up in the log, as far as the history of the account goes back,
so it holds over a restart too, and for orders that came another way.

For that the replica has to be as far as the exchange was when it answered last. So the batches of an account go one
after the other, as far as they have client order ids, and wait for the replica in between; that is milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

from webapp.history import History
from webapp.problems import OUTCOME_UNKNOWN, Problem, unknown_outcome
from zexchange.log.stream import StoreRefused, StoreUnavailable
from zexchange.wire.messages import (
    CommandKind,
    ExecutionReport,
    Message,
    NotApplied,
    SignedBatch,
    decode,
)

UNSETTLED_MAX = 10_000
"""Batches without an answer that are remembered, of all accounts."""


class Known(Protocol):
    """What the log says; the follower."""

    @property
    def history(self) -> History: ...

    async def reached(self, shard: int, record_no: int) -> None: ...

    async def frame(self, shard: int, record_no: int) -> bytes: ...


class Submitted(NamedTuple):
    """Reports about a batch; `repeated` if they are those of an earlier one with the same orders."""

    messages: Sequence[Message]
    repeated: bool
    nonce: int


Send = Callable[[bytes], Awaitable[Sequence[Message]]]
"""Submits a frame, and returns its reports. Raises Problem, as `ApiSession.submit` does."""


class Submission:
    """One for all accounts."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._answered: dict[tuple[int, int], int] = {}
        """By account and shard: newest record that a batch was answered with."""
        self._unsettled: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()
        """By account, shard and client order id: the frame that nobody answered."""

    async def submit(self, account_id: int, batch: SignedBatch, frame: bytes, send: Send) -> Submitted:
        """Sends the frame, unless its orders were entered before. Raises Problem."""
        ids = [
            one.client_order_id
            for one in batch.commands
            if one.kind is CommandKind.NEW and one.client_order_id
        ]
        if not ids:
            return Submitted(await send(frame), False, batch.nonce)
        lock = self._locks.get(account_id)
        if lock is None:
            lock = self._locks[account_id] = asyncio.Lock()
        async with lock:
            before = await self._before(account_id, batch, frame, ids)
            if before is not None:
                return before
            keys = [(account_id, batch.shard, one) for one in ids]
            sent_before = any(key in self._unsettled for key in keys)
            # From here on it may be applied, unless somebody says that it was not.
            self._remember(keys, frame)
            try:
                messages = await send(frame)
            except Problem as problem:
                if problem.code != OUTCOME_UNKNOWN and not sent_before:
                    self._forget(keys)
                while len(self._unsettled) > UNSETTLED_MAX:
                    self._unsettled.popitem(last=False)
                raise
            refused = next((one for one in messages if isinstance(one, NotApplied)), None)
            if refused is not None and sent_before:
                raise unknown_outcome(f"not applied this time ({refused.reason.name}), but perhaps before")
            self._forget(keys)
            self._answered[account_id, batch.shard] = max(
                (one.record_no for one in messages if isinstance(one, ExecutionReport)),
                default=self._answered.get((account_id, batch.shard), 0),
            )
            return Submitted(messages, False, batch.nonce)

    async def _before(
        self, account_id: int, batch: SignedBatch, frame: bytes, ids: Sequence[int]
    ) -> Submitted | None:
        """What became of these orders before, None if they are new. Raises Problem if others have their ids."""
        known, shard = self._known, batch.shard
        try:
            await known.reached(shard, self._answered.get((account_id, shard), 0))
        except TimeoutError:
            raise Problem("NOT_READY", "the log is not followed far enough to know these orders") from None
        for one in ids:
            entered = known.history.order_entered(account_id, shard, one)
            if entered is not None:
                try:
                    original_frame = await known.frame(shard, entered.record_no)
                except (StoreUnavailable, StoreRefused) as error:
                    raise Problem("NOT_READY", str(error)) from error
                original = decode(original_frame)
                if self._unsettled.get((account_id, shard, one)) == original_frame:
                    self._forget([(account_id, shard, one)])
                if not isinstance(original, SignedBatch) or _body(original) != _body(batch):
                    raise _reused(one)
                if original.nonce == batch.nonce:
                    return None  # the exchange knows it, and has the original outcome
                told = known.history.reports_of_record(account_id, shard, entered.record_no)
                own = [report for report in told if report.nonce == original.nonce]
                return Submitted(own, True, original.nonce)
            unsettled = self._unsettled.get((account_id, shard, one))
            if unsettled is not None and unsettled != frame:
                raise Problem(
                    "TIMEOUT",
                    f"it is not known yet what became of an order with client_order_id {one}: send the bytes again that"
                    " it was in",
                    field="client_order_id",
                )
        return None

    def _remember(self, keys: Sequence[tuple[int, int, int]], frame: bytes) -> None:
        for key in keys:
            self._unsettled[key] = frame

    def _forget(self, keys: Iterable[tuple[int, int, int]]) -> None:
        for key in keys:
            self._unsettled.pop(key, None)


def _body(batch: SignedBatch) -> tuple[object, ...]:
    """What a batch asks for: all of it but who signed it, and when."""
    return batch.shard, batch.flags, [one.encode_block() for one in batch.commands]


def _reused(client_order_id: int) -> Problem:
    return Problem(
        "CLIENT_ORDER_ID_REUSED",
        f"client_order_id {client_order_id} is that of an earlier order, and the batches differ",
        field="client_order_id",
    )
