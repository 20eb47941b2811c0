"""Is it alive, is it ready, and how is it doing: /livez, /readyz, /metrics, and the figures of the operations view."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, generate_latest

from webapp.context import Web
from webapp.exporter import Exporter, checkpoint_age_s, processes_of, unsigned_records
from webapp.http import Handler
from zexchange.runtime.exchange_info import read_exchange
from zexchange.runtime.figures import Figure, Figures
from zexchange.runtime.stages import COUNTED, StageTimes

WINDOW_S = 10
"""What the latencies of the operations view are about."""

_NOTHING = StageTimes()


class LiveHandler(Handler):
    """GET /livez"""

    limited = False

    def get(self) -> None:
        self.reply({"status": "alive"})


class ReadyzHandler(Handler):
    """GET /readyz: 503 names what is not ready"""

    limited = False

    def get(self) -> None:
        missing = self.web.not_ready()
        self.reply(
            {"status": "not ready" if missing else "ready", "missing": missing}, 503 if missing else 200
        )


class MetricsHandler(Handler):
    """GET /metrics, for Prometheus"""

    def get(self) -> None:
        registry = CollectorRegistry()
        registry.register(Exporter(self.web))
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(generate_latest(registry) + generate_latest(self.web.metrics.registry))


class StageWindow:
    """How long the stages took during the last seconds, in all processes together."""

    def __init__(self) -> None:
        self._before: dict[str, StageTimes] | None = None
        self._seconds: deque[StageTimes] = deque(maxlen=WINDOW_S)

    def add(self, now: Mapping[str, StageTimes]) -> None:
        """What the processes have counted so far, once a second. The first time only shows where they begin."""
        before, self._before = self._before, dict(now)
        if before is None:
            return
        second = StageTimes()
        for name, times in now.items():
            second.gather(times, before.get(name, _NOTHING))
        self._seconds.append(second)

    def figures(self) -> list[dict[str, Any]]:
        """In the order of an order's way, stages that have ever happened; percentiles are None of one that did not
        lately."""
        ever, times = StageTimes(), StageTimes()
        for process in (self._before or {}).values():
            ever.gather(process, _NOTHING)
        for second in self._seconds:
            times.gather(second, _NOTHING)
        found = []
        for stage, name in enumerate(COUNTED):
            if not ever.count(stage):
                continue
            count = times.count(stage)
            one: dict[str, Any] = {"stage": name, "per_s": round(count / max(1, len(self._seconds)), 1)}
            for share in (50, 90, 99):
                one[f"p{share}_us"] = round(times.percentile_us(stage, share / 100), 1) if count else None
            found.append(one)
        return found


class OperationsView:
    """Figures per second out of totals."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._before: tuple[float, int, int, dict[str, float]] | None = None
        self._window = StageWindow()
        psutil.cpu_percent(percpu=True)

    def figures(self) -> dict[str, Any]:
        """What happened since the last call."""
        web = self._web
        engines = web.follower.engines()
        records = sum(engine.next_record_no - 1 for engine in engines.values())
        commands = sum(engine.next_seq - 1 for engine in engines.values())
        now_s = time.monotonic()
        processes = processes_of(read_exchange(web.paths))
        told = web.figures.read()
        self._window.add({name: one.stages for name, one in told.items()} | {"web": _copy(web.times)})
        cpu_s = {name: one["cpu_s"] for name, one in processes.items()}
        before, self._before = self._before, (now_s, records, commands, cpu_s)
        elapsed_s = max(1e-3, now_s - before[0]) if before else 1.0
        age_s = checkpoint_age_s(web)
        return {
            "records": str(records),
            "commands": str(commands),
            "records_per_s": round((records - before[1]) / elapsed_s, 1) if before else 0,
            "commands_per_s": round((commands - before[2]) / elapsed_s, 1) if before else 0,
            "checkpoint_age_ms": None if age_s is None else round(age_s * 1000),
            "checkpoints": str(len(web.follower.checkpoints)),
            # From the log time of a batch to its being seen here, durable and replayed: of those since the last call.
            "latency_us": self._latency_us(),
            "stages": self._window.figures(),
            "queues": self._queues(told),
            "ws_clients": web.feed.clients,
            "cpus": psutil.cpu_percent(percpu=True),
            "shards": [
                {
                    "shard": shard,
                    "markets": [one.symbol for one in web.views.markets if one.shard == shard],
                    "records": str(engine.next_record_no - 1),
                    "open_orders": engine.counts().open_orders,
                    "trades": str(engine.next_trade_id - 1),
                }
                for shard, engine in engines.items()
            ],
            "processes": [
                {
                    "name": name,
                    "state": one["state"],
                    "restarts": one["restarts"],
                    "cpus": one["cpus"],
                    "rss_mb": round(one["rss"] / 2**20),
                    "cpu_share": round(
                        max(0.0, one["cpu_s"] - before[3].get(name, one["cpu_s"])) / elapsed_s, 3
                    )
                    if before
                    else 0,
                }
                for name, one in processes.items()
            ],
        }

    def _queues(self, told: Mapping[str, Figures]) -> dict[str, int]:
        """What waits, in all processes together."""

        def of_all(figure: Figure) -> int:
            return sum(one[figure] for one in told.values())

        waiting = self._web.feed.waiting()
        return {
            "unverified_frames": of_all(Figure.UNVERIFIED_FRAMES),
            "matcher_frames": of_all(Figure.QUEUED_FRAMES),
            "matcher_questions": of_all(Figure.QUEUED_OTHERS),
            "batches_in_flight": of_all(Figure.BATCHES_IN_FLIGHT),
            "link_bytes": of_all(Figure.LINK_BYTES),
            "unsent_bytes": of_all(Figure.UNSENT_BYTES),
            "unsigned_records": sum(unsigned_records(self._web).values()),
            "ws_clients_waiting": waiting.clients,
            "sessions": of_all(Figure.SESSIONS),
        }

    def _latency_us(self) -> dict[str, int] | None:
        seen = sorted(self._web.follower.visible_ns)
        self._web.follower.visible_ns.clear()
        if not seen:
            return None
        return {
            name: seen[min(len(seen) - 1, int(share * len(seen)))] // 1_000
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
        }


def _copy(times: StageTimes) -> StageTimes:
    copy = StageTimes()
    copy.gather(times, _NOTHING)
    return copy


def routes() -> list[tuple[str, Any]]:
    """Path and handler."""
    return [("/livez", LiveHandler), ("/readyz", ReadyzHandler), ("/metrics", MetricsHandler)]
