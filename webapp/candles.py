"""Candles of one market out of its trades, and the figures of the last 24 hours. Pure."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

SECOND_NS = 1_000_000_000
INTERVALS_S: dict[str, int] = {"1s": 1, "1m": 60, "5m": 300, "1h": 3_600, "1d": 86_400}
KEPT: dict[str, int] = {"1s": 3_600, "1m": 1_500, "5m": 2_016, "1h": 2_160, "1d": 3_650}
"""Candles that are kept of each interval: of minutes, a day and an hour."""

_DAY_MINUTES = 1_440


class Candle(Struct, gc=False):
    """One interval with at least one trade. `notional` sums price ticks times quantity lots."""

    begin_s: int
    open_ticks: int
    high_ticks: int
    low_ticks: int
    close_ticks: int
    volume_lots: int
    notional: int
    trades: int


class DayFigures(Struct, frozen=True):
    """Of the last 1,440 minutes, the current one included."""

    open_ticks: int | None
    high_ticks: int | None
    low_ticks: int | None
    volume_lots: int
    notional: int


class CandleSet:
    """All intervals of one market. An interval without a trade has no candle."""

    def __init__(self) -> None:
        self._series = {name: deque[Candle](maxlen=KEPT[name]) for name in INTERVALS_S}

    def add(self, time_ns: int, price_ticks: int, qty_lots: int) -> None:
        """One trade; times do not go backwards."""
        time_s = time_ns // SECOND_NS
        notional = price_ticks * qty_lots
        for name, length_s in INTERVALS_S.items():
            begin_s = time_s - time_s % length_s
            series = self._series[name]
            if not series or series[-1].begin_s != begin_s:
                series.append(
                    Candle(begin_s, price_ticks, price_ticks, price_ticks, price_ticks, qty_lots, notional, 1)
                )
                continue
            candle = series[-1]
            candle.high_ticks = max(candle.high_ticks, price_ticks)
            candle.low_ticks = min(candle.low_ticks, price_ticks)
            candle.close_ticks = price_ticks
            candle.volume_lots += qty_lots
            candle.notional += notional
            candle.trades += 1

    def newest(self, interval: str, limit: int) -> list[Candle]:
        """The last `limit` candles, oldest first. Raises KeyError."""
        series = self._series[interval]
        return [series[index] for index in range(max(0, len(series) - limit), len(series))]

    def since(self, interval: str, begin_s: int) -> list[Candle]:
        """The candles that begin at `begin_s` or later, oldest first. Raises KeyError."""
        found: list[Candle] = []
        for candle in reversed(self._series[interval]):
            if candle.begin_s < begin_s:
                break
            found.append(candle)
        return found[::-1]

    def day(self, now_ns: int) -> DayFigures:
        """What happened in the 24 hours up to `now_ns`."""
        minute = now_ns // SECOND_NS // 60 - _DAY_MINUTES + 1
        candles = self.since("1m", minute * 60)
        if not candles:
            return DayFigures(None, None, None, 0, 0)
        return DayFigures(
            open_ticks=candles[0].open_ticks,
            high_ticks=max(candle.high_ticks for candle in candles),
            low_ticks=min(candle.low_ticks for candle in candles),
            volume_lots=sum(candle.volume_lots for candle in candles),
            notional=sum(candle.notional for candle in candles),
        )
