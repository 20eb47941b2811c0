"""Who may connect and log on: limits on connections, and a pause for keys that send bad signatures. Pure."""

from __future__ import annotations

from collections import Counter

import msgspec

from zexchange.wire.messages import ReasonCode

PENALTIES_MAX = 65_536
"""Keys remembered as paused. Each has proved itself in a logon, so filling this takes as many key pairs and
strikes."""


class AdmissionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one ingress worker."""

    max_sessions: int = 10_000
    max_sessions_per_ip: int = 4_096
    max_unestablished: int = 1_024
    """Connections that have not logged on: a flood of these must leave room for those that do."""
    max_unestablished_per_ip: int = 256
    """The same from one address, which must leave room for other addresses. The oldest that has not proved a key makes
    room for a new one: behind a proxy, or on loopback, many share an address with whoever only connects."""
    strike_penalty_ms: int = 1_000
    """How long a key is refused after a session of it ended by bad signatures: bounds what it can cost."""


class _Tally:
    """A count by address, and of all."""

    def __init__(self) -> None:
        self.by_ip: Counter[str] = Counter()
        self.total = 0

    def add(self, ip: str) -> None:
        self.by_ip[ip] += 1
        self.total += 1

    def remove(self, ip: str) -> None:
        self.total -= 1
        self.by_ip[ip] -= 1
        if self.by_ip[ip] == 0:
            del self.by_ip[ip]


class Admission:
    """Counts connections from `connected` to `disconnected`."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._open = _Tally()
        self._unestablished = _Tally()
        self._silent: dict[str, dict[int, None]] = {}
        """By address, oldest first: connections that have not proved a key."""
        self._paused_until_ms: dict[bytes, int] = {}

    @property
    def connections(self) -> int:
        return self._open.total

    def crowded_out(self, ip: str) -> int | None:
        """The connection that must be `evicted` for another one of this address to be let in; None if none must, or
        none can."""
        silent = self._silent.get(ip)
        if not silent or self._unestablished.by_ip[ip] < self._limits.max_unestablished_per_ip:
            return None
        return next(iter(silent))

    def evicted(self, ip: str, session_id: int) -> None:
        """It does not count as one that may still log on; until `disconnected` it counts as open."""
        self._no_longer_silent(ip, session_id)
        self._unestablished.remove(ip)

    def connected(self, ip: str, session_id: int) -> ReasonCode:
        """NONE if the connection is let in, and counted; otherwise why not, and it is not counted."""
        limits = self._limits
        if (
            self._open.total >= limits.max_sessions
            or self._open.by_ip[ip] >= limits.max_sessions_per_ip
            or self._unestablished.total >= limits.max_unestablished
            or self._unestablished.by_ip[ip] >= limits.max_unestablished_per_ip
        ):
            return ReasonCode.SESSION_LIMIT
        self._open.add(ip)
        self._unestablished.add(ip)
        self._silent.setdefault(ip, {})[session_id] = None
        return ReasonCode.NONE

    def proved(self, ip: str, session_id: int) -> None:
        """A connection that was let in has proved its key: it is not evicted any more."""
        self._no_longer_silent(ip, session_id)

    def logon(self, public_key: bytes, now_ms: int) -> ReasonCode:
        """NONE if the key may log on now."""
        until_ms = self._paused_until_ms.get(public_key)
        if until_ms is None:
            return ReasonCode.NONE
        if now_ms < until_ms:
            return ReasonCode.TOO_MANY_STRIKES
        del self._paused_until_ms[public_key]
        return ReasonCode.NONE

    def established(self, ip: str) -> None:
        """A connection that was let in has logged on."""
        self._unestablished.remove(ip)

    def struck_out(self, public_key: bytes, now_ms: int) -> None:
        """A session of this key was ended for its bad signatures."""
        if self._limits.strike_penalty_ms == 0:
            return
        if len(self._paused_until_ms) >= PENALTIES_MAX:
            self._paused_until_ms.pop(next(iter(self._paused_until_ms)))
        self._paused_until_ms[public_key] = now_ms + self._limits.strike_penalty_ms

    def disconnected(self, ip: str, session_id: int, *, unestablished: bool) -> None:
        """A connection that was let in is gone. `unestablished`: neither `established` nor `evicted`."""
        self._open.remove(ip)
        if unestablished:
            self._no_longer_silent(ip, session_id)
            self._unestablished.remove(ip)

    def _no_longer_silent(self, ip: str, session_id: int) -> None:
        silent = self._silent.get(ip)
        if silent is not None:
            silent.pop(session_id, None)
            if not silent:
                del self._silent[ip]
