"""What all handlers share: the replica, the feed, sessions, the operator, and figures about the process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Histogram

from webapp.feed import Feed
from webapp.follower import Follower
from webapp.limits import Connections, Proxies, RateLimit
from webapp.log_files import LogFiles
from webapp.operator import Operator
from webapp.orders import Orders
from webapp.problems import Problem
from webapp.sessions import ApiSessions
from webapp.signed_requests import SignedRequests
from webapp.submission import Submission
from webapp.views import Views
from zexchange.config import Config
from zexchange.genesis import Genesis, Market
from zexchange.runtime.figures import FigureReader
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.stages import StageTimes


class Metrics:
    """What is counted about requests; gauges are computed when they are asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "zexchange_http_requests_total",
            "HTTP requests.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "zexchange_http_request_seconds",
            "How long HTTP requests took.",
            ("route",),
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
        )
        self.orders = Counter(
            "zexchange_api_orders_total",
            "Commands submitted over HTTP, by outcome.",
            ("outcome",),
            registry=self.registry,
        )


class Web(Struct, frozen=True, kw_only=True):
    """The shared parts."""

    paths: DataPaths
    genesis: Genesis
    config: Config
    views: Views
    follower: Follower
    feed: Feed
    orders: Orders
    log_files: LogFiles
    sessions: ApiSessions
    submission: Submission
    signed_requests: SignedRequests
    operator: Operator | None
    """None where this process has no operator key: then there is no admin API."""
    metrics: Metrics
    figures: FigureReader
    """Those of the other processes."""
    times: StageTimes
    """Counted here."""
    rate_limit: RateLimit
    page_limit: RateLimit
    """Of the page and its files."""
    connections: Connections
    """WebSockets."""
    proxies: Proxies
    page: Path | None
    """Folder of the built page."""
    origins: frozenset[str]
    """Origins that may open WebSockets and write."""

    @property
    def demo(self) -> bool:
        """Whether anybody may have an account with play money."""
        return self.operator is not None and self.genesis.name.startswith("demo")

    def market(self, symbol: str) -> Market:
        """Raises Problem."""
        market = self.views.by_symbol.get(symbol)
        if market is None:
            raise Problem("UNKNOWN_MARKET", f"no market {symbol!r}", field="market")
        return market

    def account_of_key(self, public_key: bytes) -> int | None:
        """Whose key it is, as far as the log was followed."""
        for engine in self.follower.engines().values():
            account_id = engine.account_of_key(public_key)
            if account_id is not None:
                return account_id
        return None

    def not_ready(self) -> Mapping[str, str]:
        """What is missing before this process can answer, by name."""
        missing = {}
        if not self.follower.caught_up:
            missing["replica"] = "still replaying the log"
        if not self.follower.store_answers:
            missing["store"] = "does not answer"
        elif time.monotonic_ns() - self.follower.read_at_ns > 5_000_000_000:
            missing["replica"] = "more than five seconds behind the log"
        if not self.follower.checkpoints:
            missing["checkpoints"] = "none was signed yet"
        return missing
