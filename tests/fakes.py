"""Stand-ins for what lies outside the pure cores: a store with streams, a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis.exceptions

Fields = dict[bytes, bytes]
Id = tuple[int, int]


def parse_id(text: str | bytes) -> Id:
    """A stream id as the pair of numbers by which Redis orders it."""
    ms, _, seq = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(ms), int(seq or 0)


class FakeStore:
    """Streams in memory with Redis' rules: an explicit XADD id must be above the last one ever given,
    trimmed or not.

    Answers `execute_command` as redis-py's client does, for XADD, XRANGE, XREVRANGE, XREAD, XLEN, XTRIM
    MINID, INFO (whatever is in `info`) and BGREWRITEAOF. A fault put into `faults` is used up by the next XADD:

        "lost"    the command is not carried out, and the connection breaks
        "unheard" the command is carried out, and the connection breaks before the reply
        "late"    the connection breaks; the command is carried out after the next reading of the tip
        "stale"   the connection breaks; the command is carried out right before the next XADD
        other     the text of the error reply; nothing is carried out
    """

    def __init__(self) -> None:
        self.streams: dict[str, list[tuple[Id, Fields]]] = {}
        self.last_ids: dict[str, Id] = {}
        self.faults: list[str] = []
        self.commands: list[tuple[Any, ...]] = []
        self.info: dict[str, int] = {}
        self.after_read: list[Callable[[], object]] = []
        self.before_add: list[Callable[[], object]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.commands.append(args)
        name = str(args[0]).upper()
        return getattr(self, f"_{name.lower()}")(*args[1:])

    def entries(self, key: str) -> list[tuple[str, Fields]]:
        """All entries of a stream as (id, fields)."""
        return [(f"{ms}-{seq}", fields) for (ms, seq), fields in self.streams.get(key, [])]

    def replace(self, key: str, entry_id: str, field: bytes, value: bytes) -> None:
        """Tamper with a stored entry."""
        wanted = parse_id(entry_id)
        stream = self.streams[key]
        place = next(index for index, (found, _) in enumerate(stream) if found == wanted)
        stream[place] = (wanted, {field: value})

    def _xadd(self, key: str, entry_id: str | bytes, *pairs: str | bytes) -> bytes:
        for action in self.before_add:
            action()
        self.before_add.clear()
        fault = self.faults.pop(0) if self.faults else ""
        if fault in ("late", "stale"):
            pending = self.after_read if fault == "late" else self.before_add
            pending.append(lambda: self._quietly_add(key, entry_id, pairs))
        if fault in ("lost", "late", "stale"):
            raise redis.exceptions.TimeoutError("no answer")
        if fault and fault != "unheard":
            raise redis.exceptions.ResponseError(fault)
        reply = self._add(key, entry_id, pairs)
        if fault == "unheard":
            raise redis.exceptions.ConnectionError("connection closed")
        return reply

    def _add(self, key: str, entry_id: str | bytes, pairs: tuple[str | bytes, ...]) -> bytes:
        wanted = parse_id(entry_id)
        if wanted <= self.last_ids.get(key, (0, 0)):
            raise redis.exceptions.ResponseError(
                "The ID specified in XADD is equal or smaller than the target stream top item"
            )
        raw = [item if isinstance(item, bytes) else item.encode() for item in pairs]
        self.streams.setdefault(key, []).append((wanted, dict(zip(raw[::2], raw[1::2], strict=True))))
        self.last_ids[key] = wanted
        return f"{wanted[0]}-{wanted[1]}".encode()

    def _quietly_add(self, key: str, entry_id: str | bytes, pairs: tuple[str | bytes, ...]) -> None:
        try:
            self._add(key, entry_id, pairs)
        except redis.exceptions.ResponseError:
            pass  # nobody listens on the broken connection any more

    def _rows(self, key: str, low: str | bytes, high: str | bytes) -> list[tuple[bytes, Fields]]:
        def bound(text: str | bytes, open_end: Id) -> tuple[Id, bool]:
            text = text.decode() if isinstance(text, bytes) else str(text)
            if text in "-+":
                return open_end, False
            return parse_id(text.removeprefix("(")), text.startswith("(")

        (lowest, above), (highest, below) = bound(low, (0, 0)), bound(high, (2**64, 0))
        return [
            (f"{found[0]}-{found[1]}".encode(), fields)
            for found, fields in self.streams.get(key, [])
            if (lowest < found or (lowest == found and not above))
            and (found < highest or (found == highest and not below))
        ]

    def _xrange(self, key: str, low: str, high: str, *count: Any) -> list[tuple[bytes, Fields]]:
        rows = self._rows(key, low, high)
        return rows[: int(count[1])] if count else rows

    def _xrevrange(self, key: str, high: str, low: str, *count: Any) -> list[tuple[bytes, Fields]]:
        rows = self._rows(key, low, high)[::-1]
        rows = rows[: int(count[1])] if count else rows
        for action in self.after_read:
            action()
        self.after_read.clear()
        return rows

    def _xread(self, *args: Any) -> list[list[Any]]:
        options = list(args)
        at = options.index("STREAMS")
        count = int(options[options.index("COUNT") + 1]) if "COUNT" in options[:at] else None
        key, after = options[at + 1], options[at + 2]
        rows = self._rows(key, f"({after}", "+")[:count]
        return [[key.encode(), rows]] if rows else []

    def _info(self) -> dict[str, int]:
        return self.info

    def _bgrewriteaof(self) -> bytes:
        return b"Background append only file rewriting started"

    def _xlen(self, key: str) -> int:
        return len(self.streams.get(key, []))

    def _xtrim(self, key: str, strategy: str, *args: Any) -> int:
        assert strategy.upper() == "MINID"
        lowest = parse_id(str(args[-1]))
        before = self.streams.get(key, [])
        self.streams[key] = [row for row in before if row[0] >= lowest]
        return len(before) - len(self.streams[key])


class FakeClock:
    """Time that passes only when told."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self.now_ns = now_ns
        self.pauses_ms: list[int] = []

    def ms(self) -> int:
        return self.now_ns // 1_000_000

    def ns(self) -> int:
        return self.now_ns

    def pause_ms(self, pause_ms: int) -> None:
        self.pauses_ms.append(pause_ms)
        self.now_ns += pause_ms * 1_000_000
