"""How much one address may ask for: requests in a minute, and connections at a time; and one WebSocket. Pure."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable

from webapp.problems import Problem

CONNECTIONS_MAX = 5_000
"""WebSockets of all addresses together, where there are descriptors for so many."""
WINDOW_S = 60.0
_ADDRESSES_MAX = 10_000


class RateLimit:
    """Requests per address, in fixed windows. Pure."""

    def __init__(self, per_window: int, window_s: float = WINDOW_S, name: str = "default") -> None:
        self.name = name
        """In the headers that tell of it."""
        self.per_window = per_window
        self.window_s = window_s
        self._used: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, address: str, now_s: float) -> tuple[bool, int, int]:
        """Whether one more is allowed; how many are left, and in how many seconds there are all of them again."""
        begun_s, used = self._used.pop(address, (now_s, 0))
        if now_s - begun_s >= self.window_s:
            begun_s, used = now_s, 0
        used += 1
        self._used[address] = (begun_s, used)
        if len(self._used) > _ADDRESSES_MAX:
            self._used.popitem(last=False)
        reset_s = max(1, round(begun_s + self.window_s - now_s))
        return used <= self.per_window, max(0, self.per_window - used), reset_s


class Allowance:
    """What one client may spend: `burst` at once, and `per_s` more each second. Pure."""

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = burst
        self._at_s: float | None = None

    def take(self, cost: float, now_s: float) -> bool:
        """Whether there is so much left; it is spent then."""
        if self._at_s is not None:
            self._left = min(self._burst, self._left + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if cost > self._left:
            return False
        self._left -= cost
        return True


class Connections:
    """Connections that are open, by address."""

    def __init__(self, per_address: int, in_all: int = CONNECTIONS_MAX) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._open: dict[str, int] = {}
        self.count = 0

    def take(self, address: str, *, alone: bool = True) -> None:
        """One more; `alone`: the address is one client's, so its limit counts. Raises Problem."""
        if self.count >= self._in_all:
            raise Problem("SERVER_BUSY", f"at most {self._in_all} connections")
        found = self._open.get(address, 0)
        if alone and found >= self._per_address:
            raise Problem(
                "TOO_MANY_CONNECTIONS",
                f"at most {self._per_address} connections of {address} (web.connections_per_address)",
            )
        self._open[address] = found + 1
        self.count += 1

    def release(self, address: str) -> None:
        """One of them has ended."""
        left = self._open[address] - 1
        if left:
            self._open[address] = left
        else:
            del self._open[address]
        self.count -= 1


class Proxies:
    """Who may say on whose behalf a request comes."""

    def __init__(self, trusted: Iterable[str]) -> None:
        """Addresses or networks. Raises ValueError."""
        self._trusted = [ipaddress.ip_network(one) for one in trusted]

    def client(self, peer: str, forwarded_for: str) -> str:
        """Whose request it is: the peer's, or that of the nearest in X-Forwarded-For whom we do not trust to say so."""
        hops = [one.strip() for one in forwarded_for.split(",") if one.strip()]
        address = peer
        while hops and self.is_trusted(address):
            address = hops.pop()
        return address

    def is_trusted(self, address: str) -> bool:
        """Whether it is a proxy's that may say so."""
        if not self._trusted:
            return False
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in one for one in self._trusted)
