"""Is it alive, is it ready, and how is it doing: /livez, /readyz, /metrics, and the figures of the operations view."""

from __future__ import annotations

import time
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from webapp.context import Web
from webapp.http import Handler
from zexchange import __version__
from zexchange.runtime.exchange_info import read_exchange
from zexchange.verification.checkpoint import CheckpointLeaf


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

    limited = False

    def get(self) -> None:
        registry = CollectorRegistry()

        def gauge(name: str, text: str, value: float, **labels: str) -> None:
            found = gauges.get(name)
            if found is None:
                found = gauges[name] = Gauge(f"zexchange_{name}", text, tuple(labels), registry=registry)
            (found.labels(**labels) if labels else found).set(value)

        gauges: dict[str, Gauge] = {}
        web = self.web
        gauge(
            "build_info",
            "Version and deployment.",
            1,
            version=__version__,
            deployment=web.genesis.deployment_id.hex(),
        )
        gauge("ready", "1 when this process can answer.", not web.not_ready())
        gauge("websocket_clients", "Clients of the feed.", web.feed.clients)
        gauge("websocket_messages_sent", "Messages sent to clients of the feed.", web.feed.sent)
        gauge("websocket_messages_conflated", "Messages that slow clients did not get.", web.feed.conflated)
        gauge("api_sessions", "Sessions logged on over HTTP.", len(web.sessions))
        gauge("events", "Reports seen since the start of this process.", web.follower.history.events)
        for shard, engine in web.follower.engines().items():
            counts = engine.counts()
            label = {"shard": str(shard)}
            gauge("records", "Records in the log.", engine.next_record_no - 1, **label)
            gauge("commands", "Commands applied.", engine.next_seq - 1, **label)
            gauge("trades", "Trades.", engine.next_trade_id - 1, **label)
            gauge("open_orders", "Orders resting in books.", counts.open_orders, **label)
            gauge("accounts", "Accounts.", counts.accounts, **label)
        age_s = checkpoint_age_s(web)
        if age_s is not None:
            gauge("checkpoint_age_seconds", "Since the newest checkpoint was signed.", age_s)
            gauge("checkpoints", "Checkpoints signed.", len(web.follower.checkpoints))
        for name, process in processes_of(web).items():
            gauge("process_up", "1 when the process is ready.", process["state"] == "ready", process=name)
            gauge("process_restarts", "How often it was started again.", process["restarts"], process=name)
            gauge("process_rss_bytes", "Resident memory.", process["rss"], process=name)
            gauge("process_cpu_seconds", "Processor time used.", process["cpu_s"], process=name)
            for cpu in process["cpus"]:
                gauge("process_pinned", "1 for each core it is pinned to.", 1, process=name, cpu=str(cpu))
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(generate_latest(registry) + generate_latest(web.metrics.registry))


def checkpoint_age_s(web: Web) -> float | None:
    """Since the newest checkpoint was signed; None before the first."""
    known = web.follower.checkpoints
    if not known:
        return None
    leaf = CheckpointLeaf.decode(known.get(len(known) - 1).leaf, len(known) - 1)
    return max(0.0, (time.time_ns() - leaf.time_ns) / 1e9)


def processes_of(web: Web) -> dict[str, dict[str, Any]]:
    """The processes of the exchange, if it was started here."""
    info = read_exchange(web.paths)
    found: dict[str, dict[str, Any]] = {}
    for name, process in ({} if info is None else info.processes).items():
        rss, cpu_s = 0, 0.0
        if process.pid is not None:
            try:
                with (one := psutil.Process(process.pid)).oneshot():
                    rss = one.memory_info().rss
                    times = one.cpu_times()
                    cpu_s = times.user + times.system
            except psutil.Error:
                pass
        found[name] = {
            "state": process.state,
            "restarts": process.restarts,
            "cpus": list(process.cpus),
            "rss": rss,
            "cpu_s": cpu_s,
        }
    return found


class OperationsView:
    """Figures per second out of totals."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._before: tuple[float, int, int, dict[str, float]] | None = None
        psutil.cpu_percent(percpu=True)

    def figures(self) -> dict[str, Any]:
        """What happened since the last call."""
        web = self._web
        engines = web.follower.engines()
        records = sum(engine.next_record_no - 1 for engine in engines.values())
        commands = sum(engine.next_seq - 1 for engine in engines.values())
        now_s = time.monotonic()
        processes = processes_of(web)
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

    def _latency_us(self) -> dict[str, int] | None:
        seen = sorted(self._web.follower.visible_ns)
        self._web.follower.visible_ns.clear()
        if not seen:
            return None
        return {
            name: seen[min(len(seen) - 1, int(share * len(seen)))] // 1_000
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
        }


def routes() -> list[tuple[str, Any]]:
    """Path and handler."""
    return [("/livez", LiveHandler), ("/readyz", ReadyzHandler), ("/metrics", MetricsHandler)]
