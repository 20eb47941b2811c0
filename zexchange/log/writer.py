"""The only writer of a shard's log, and what keeps it the only one.

A writer takes over by adding the marker `(E+1)-0` behind the tip's epoch E: from that instant the store
itself refuses every ID of an older epoch, so a stale writer, however late its commands arrive, cannot add
anything. Then it replays, then it opens the epoch with a record that names the true tip, and from there on
exactly one batch is in flight. Commands are sent one by one: a transaction, a script or a pipeline would go
on behind a refused append and leave a hole.

When the store does not answer, an append may or may not have happened. The tip decides:

    the tip is our batch, byte for byte     it happened: acknowledged
    the tip is the entry before it          it did not: the same bytes are sent again
    anything else                           somebody took over: Fenced

An append that the store refuses (memory, disk, read-only) is repeated with the same bytes, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from zexchange.log.journal import EntryId, log_key
from zexchange.log.stream import IdRefused, StoreRefused, StoreUnavailable, StreamClient, command

T = TypeVar("T")


class Fenced(Exception):
    """Another writer has taken over the shard, or the log is not the one we wrote: this process must end
    now."""


class LogEmpty(Exception):
    """The log has no entry and nothing allows to begin one: most likely it is the wrong store, or an emptied
    one."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How long a command is tried again. Clock and pause come from the caller, so that tests need neither.

    `pause_ms` may raise to give up early, as it should when the process is asked to stop.
    """

    clock_ms: Callable[[], int]
    pause_ms: Callable[[int], None]
    first_pause_ms: int = 5
    longest_pause_ms: int = 1_000
    give_up_after_ms: int = 30_000


class LogWriter:
    """Writes one shard's log. Not thread-safe; `append` returns only when the batch is durable.

    The client must not replace a broken connection silently (redis-py's pool does): a store that came back
    with less than it had would be written on unnoticed. `take_over` first; then, with the log replayed up to
    `marker`, `append` batch after batch.
    """

    def __init__(self, client: StreamClient, shard: int, retry: Retry) -> None:
        self._client = client
        self._key = log_key(shard)
        self._shard = shard
        self._retry = retry
        self._tip: tuple[EntryId, Any] | None = None
        self.marker: EntryId | None = None

    @property
    def epoch(self) -> int:
        """Ours, from 1. Only after `take_over`."""
        assert self.marker is not None
        return self.marker.epoch

    def take_over(self, *, allow_empty: bool = False) -> EntryId:
        """Write the marker of a new epoch and return its id; nobody with an older epoch can append any more.

        Raises `LogEmpty` unless the log has entries or `allow_empty`; `Fenced` when another writer takes
        over at the same time; `StoreUnavailable` or `StoreRefused` when the store does not come round in
        time.
        """
        return self._patiently(lambda: self._take_over(allow_empty))

    def append(self, first_record_no: int, batch: bytes, *, in_doubt: bool = False) -> None:
        """Append one batch of our epoch; when this returns the store has it. Otherwise it may or may not.

        `in_doubt`: the batch was sent already, by `request`, and may have arrived. Raises `Fenced`,
        `StoreUnavailable` or `StoreRefused`; after any of them the writer must not be used again.
        """
        assert self._tip is not None, "take_over comes first"
        entry_id = EntryId(self.epoch, first_record_no)
        fields = {b"b": batch}

        def attempt() -> None:
            nonlocal in_doubt
            if in_doubt and self._landed(entry_id, fields):
                return
            try:
                command(self._client, "XADD", self._key, str(entry_id), "b", batch)
            except StoreUnavailable:
                in_doubt = True
                raise
            except IdRefused:
                # An earlier attempt of ours may have arrived after we looked at the tip, or the client
                # library repeated it.
                if not self._landed(entry_id, fields):
                    raise self._fenced(f"the store refuses the id {entry_id}") from None

        self._patiently(attempt)
        self.landed(first_record_no, batch)

    def request(self, first_record_no: int, batch: bytes) -> tuple[bytes, bytes]:
        """The same append as bytes for the store's socket, and the reply that means it is done.

        For a caller that does not wait: it sends the request, and on exactly this reply calls `landed`; on
        anything else it calls `append`, with `in_doubt` unless the store said no.
        """
        assert self._tip is not None, "take_over comes first"
        entry_id = b"%d-%d" % (self.epoch, first_record_no)
        key = self._key.encode("ascii")
        request = b"*5\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$1\r\nb\r\n$%d\r\n%b\r\n" % (
            *(len(key), key),
            *(len(entry_id), entry_id),
            *(len(batch), batch),
        )
        return request, b"$%d\r\n%b\r\n" % (len(entry_id), entry_id)

    def landed(self, first_record_no: int, batch: bytes) -> None:
        """The batch of the last `request` is in the log."""
        self._tip = (EntryId(self.epoch, first_record_no), {b"b": batch})

    def _take_over(self, allow_empty: bool) -> EntryId:
        tip = self._read_tip()
        if tip is None and not allow_empty:
            raise LogEmpty(f"the log {self._key} is empty")
        # After a marker in doubt this steps over it: whoever wrote it, the next epoch is above it.
        marker = EntryId(tip[0].epoch + 1 if tip else 1, 0)
        text = str(marker.epoch).encode("ascii")
        try:
            command(self._client, "XADD", self._key, str(marker), "m", text)
        except IdRefused as error:
            raise self._fenced(f"another writer opened epoch {marker.epoch} first") from error
        self.marker = marker
        self._tip = (marker, {b"m": text})
        return marker

    def _landed(self, entry_id: EntryId, fields: dict[bytes, bytes]) -> bool:
        """Whether the tip is this entry (True) or the one before it (False). Raises `Fenced` if it is
        neither."""
        tip = self._read_tip()
        if tip == (entry_id, fields):
            return True
        if tip == self._tip:
            return False
        found = "empty" if tip is None else f"at {tip[0]}"
        raise self._fenced(
            f"the log is {found} where {entry_id} was to follow {self._tip[0] if self._tip else 'nothing'}"
        )

    def _read_tip(self) -> tuple[EntryId, Any] | None:
        rows = command(self._client, "XREVRANGE", self._key, "+", "-", "COUNT", 1)
        if not rows:
            return None
        entry_id, fields = rows[0]
        return EntryId.parse(entry_id), fields

    def _fenced(self, why: str) -> Fenced:
        return Fenced(f"shard {self._shard}: fenced: {why}")

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Run `attempt` until it ends otherwise than by trouble with the store, or time is up."""
        retry = self._retry
        give_up_at_ms = retry.clock_ms() + retry.give_up_after_ms
        pause_ms = retry.first_pause_ms
        while True:
            try:
                return attempt()
            except (StoreUnavailable, StoreRefused):
                if retry.clock_ms() + pause_ms > give_up_at_ms:
                    raise
            retry.pause_ms(pause_ms)
            pause_ms = min(2 * pause_ms, retry.longest_pause_ms)
