"""Everything that /metrics tells, as Prometheus wants it; made when it is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from zexchange import __version__
from zexchange.runtime.exchange_info import ExchangeInfo, read_exchange
from zexchange.runtime.figures import Figure, Figures
from zexchange.runtime.stages import BOUNDS_NS, COUNTED, StageTimes
from zexchange.verification.checkpoint import CheckpointLeaf

if TYPE_CHECKING:
    from webapp.context import Web

_LE = tuple(f"{bound_ns / 1e9:.12g}" for bound_ns in BOUNDS_NS)


class Families:
    """Metrics under construction: one line each time something is told."""

    def __init__(self) -> None:
        self._made: dict[str, Metric] = {}

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._made.values())

    def gauge(self, name: str, text: str, value: float, **labels: str) -> None:
        """As it is now."""
        made = self._family(GaugeMetricFamily, name, text, labels)
        made.add_metric(list(labels.values()), value)

    def counter(self, name: str, text: str, value: float, **labels: str) -> None:
        """Since whoever counts it began; `_total` is added to the name."""
        made = self._family(CounterMetricFamily, name, text, labels)
        made.add_metric(list(labels.values()), value)

    def stages(self, process: str, times: StageTimes) -> None:
        """Histograms of the stages that happened in a process."""
        for stage, name in enumerate(COUNTED):
            count = times.count(stage)
            if not count:
                continue
            made = self._family(
                HistogramMetricFamily,
                "stage_seconds",
                "How long the stages of an order's way took, per turn of the loop; bus and acknowledge per order.",
                {"process": process, "stage": name},
            )
            below = zip(_LE, times.below(stage, BOUNDS_NS), strict=True)
            made.add_metric([process, name], [*below, ("+Inf", count)], times.total_s(stage))

    def _family(self, kind: Any, name: str, text: str, labels: Mapping[str, str]) -> Any:
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = kind(f"zexchange_{name}", text, labels=list(labels))
        return found


class Exporter(Collector):
    """Reads what the exchange is doing."""

    def __init__(self, web: Web) -> None:
        self._web = web

    def collect(self) -> Iterable[Metric]:
        families, web = Families(), self._web
        info = read_exchange(web.paths)
        _deployment(families, web)
        _log(families, web)
        _feed(families, web)
        for name, process in processes_of(info).items():
            _process(families, name, process)
        for name, figures in web.figures.read().items():
            if name.startswith("matcher-"):
                _matcher(families, name, figures)
            if has_ingress(name, info):
                _ingress(families, name, figures)
            families.stages(name, figures.stages)
        families.stages("web", web.times)
        return families


def has_ingress(name: str, info: ExchangeInfo | None) -> bool:
    """Whether there is an ingress worker in this process."""
    return name.startswith("ingress-") or (name == "matcher-0" and info is not None and info.colocated)


def _deployment(families: Families, web: Web) -> None:
    deployment_id = web.genesis.deployment_id.hex()
    families.gauge("build_info", "Version and deployment.", 1, version=__version__, deployment=deployment_id)
    families.gauge("ready", "1 when this process can answer.", not web.not_ready())
    families.gauge("api_sessions", "Sessions logged on over HTTP.", len(web.sessions))


def _log(families: Families, web: Web) -> None:
    gauge = families.gauge
    gauge("events", "Reports seen since the start of this process.", web.follower.history.events)
    unsigned = unsigned_records(web)
    for shard, engine in web.follower.engines().items():
        counts, label = engine.counts(), {"shard": str(shard)}
        gauge("records", "Records in the log.", engine.next_record_no - 1, **label)
        gauge("commands", "Commands applied.", engine.next_seq - 1, **label)
        gauge("trades", "Trades.", engine.next_trade_id - 1, **label)
        gauge("open_orders", "Orders resting in books.", counts.open_orders, **label)
        gauge("accounts", "Accounts.", counts.accounts, **label)
        gauge(
            "settlement_lag_records",
            "Records that no checkpoint covers yet.",
            unsigned.get(shard, 0),
            **label,
        )
    read_at_ns = web.follower.read_at_ns
    if read_at_ns:
        lag_s = max(0.0, (time.monotonic_ns() - read_at_ns) / 1e9)
        gauge("replica_lag_seconds", "Since this process was last at the end of the log.", lag_s)
    age_s = checkpoint_age_s(web)
    if age_s is not None:
        gauge("checkpoint_age_seconds", "Since the newest checkpoint was signed.", age_s)
        gauge("checkpoints", "Checkpoints signed.", len(web.follower.checkpoints))
    for (transport, reason), count in sorted(web.follower.outcomes.counts.items()):
        families.counter(
            "orders",
            "Orders accepted and commands refused in the log, since this process follows it.",
            count,
            transport=transport,
            reason=reason,
        )


def _feed(families: Families, web: Web) -> None:
    gauge, feed = families.gauge, web.feed
    gauge("websocket_clients", "Clients of the feed.", feed.clients)
    gauge("websocket_messages_sent", "Messages sent to clients of the feed.", feed.sent)
    gauge("websocket_messages_conflated", "Messages that slow clients did not get.", feed.conflated)
    waiting = feed.waiting()
    gauge("websocket_clients_waiting", "Clients whose last message has not left yet.", waiting.clients)
    gauge(
        "websocket_snapshots_waiting",
        "Subscriptions that get a snapshot once their client reads.",
        waiting.topics,
    )
    families.counter("websocket_clients_dropped", "Clients closed because they did not read.", feed.dropped)


def _process(families: Families, name: str, process: Mapping[str, Any]) -> None:
    gauge = families.gauge
    gauge("process_up", "1 when the process is ready.", process["state"] == "ready", process=name)
    gauge("process_restarts", "How often it was started again.", process["restarts"], process=name)
    gauge("process_rss_bytes", "Resident memory.", process["rss"], process=name)
    gauge("process_cpu_seconds", "Processor time used.", process["cpu_s"], process=name)
    for cpu in process["cpus"]:
        gauge("process_pinned", "1 for each core it is pinned to.", 1, process=name, cpu=str(cpu))


_QUEUE = "What waits: frames to be verified, frames for the matcher, and logons and queries for it."


def _matcher(families: Families, name: str, figures: Figures) -> None:
    gauge = families.gauge
    gauge("queue_depth", _QUEUE, figures[Figure.QUEUED_FRAMES], process=name, queue="matcher")
    gauge("queue_depth", _QUEUE, figures[Figure.QUEUED_OTHERS], process=name, queue="questions")
    gauge(
        "batches_in_flight",
        "Batches on their way to the disk.",
        figures[Figure.BATCHES_IN_FLIGHT],
        process=name,
    )
    families.counter(
        "link_messages_dropped",
        "Messages that an ingress worker did not take; it ends its sessions, and they begin anew.",
        figures[Figure.LINK_DROPS],
        process=name,
    )


def _ingress(families: Families, name: str, figures: Figures) -> None:
    gauge, counter = families.gauge, families.counter
    gauge("queue_depth", _QUEUE, figures[Figure.UNVERIFIED_FRAMES], process=name, queue="verification")
    gauge("sessions", "Connections of clients to order entry.", figures[Figure.SESSIONS], process=name)
    gauge(
        "link_unacknowledged_bytes",
        "Sent to matchers and not dealt with; at ingress.max_in_flight_bytes of one the answer is serverBusy.",
        figures[Figure.LINK_BYTES],
        process=name,
    )
    gauge(
        "session_unsent_bytes",
        "For clients that do not read as fast.",
        figures[Figure.UNSENT_BYTES],
        process=name,
    )
    for result, figure in (("good", Figure.SIGNATURES_GOOD), ("bad", Figure.SIGNATURES_BAD)):
        counter("signatures", "Signatures of batches verified.", figures[figure], process=name, result=result)
    refused = figures[Figure.CONNECTIONS_REFUSED]
    text = "Connections to order entry; refused are those beyond the limits."
    counter("connections", text, figures[Figure.CONNECTIONS] - refused, process=name, result="accepted")
    counter("connections", text, refused, process=name, result="refused")
    text = "Frames that did not reach the matcher, though not for their signature."
    counter("frames_refused", text, figures[Figure.FRAMES_REFUSED], process=name, reason="malformed")
    counter("frames_refused", text, figures[Figure.BATCHES_BUSY], process=name, reason="busy")
    counter(
        "slow_consumers",
        "Sessions ended because the client did not read.",
        figures[Figure.SLOW_CONSUMERS],
        process=name,
    )


def checkpoint_age_s(web: Web) -> float | None:
    """Since the newest checkpoint was signed; None before the first."""
    leaf = _newest_leaf(web)
    return None if leaf is None else max(0.0, (time.time_ns() - leaf.time_ns) / 1e9)


def unsigned_records(web: Web) -> dict[int, int]:
    """By shard: records in the log that no checkpoint covers."""
    leaf = _newest_leaf(web)
    return {
        shard: max(0, engine.next_record_no - (1 if leaf is None else max(1, leaf.shards[shard].log_size)))
        for shard, engine in web.follower.engines().items()
    }


def _newest_leaf(web: Web) -> CheckpointLeaf | None:
    known = web.follower.checkpoints
    if not known:
        return None
    return CheckpointLeaf.decode(known.get(len(known) - 1).leaf, len(known) - 1)


def processes_of(info: ExchangeInfo | None) -> dict[str, dict[str, Any]]:
    """The processes of the exchange, if it was started here."""
    found: dict[str, dict[str, Any]] = {}
    for name, process in ({} if info is None else info.processes).items():
        rss, cpu_s = 0, 0.0
        if process.pid is not None:
            try:
                with (one := psutil.Process(process.pid)).oneshot():
                    rss = one.memory_info().rss
                    times = one.cpu_times()
                    cpu_s = times.user + times.system
            except (psutil.Error, OSError):
                pass  # it has just ended, or nothing can be opened
        found[name] = {
            "state": process.state,
            "restarts": process.restarts,
            "cpus": list(process.cpus),
            "rss": rss,
            "cpu_s": cpu_s,
        }
    return found
