"""/metrics of running exchanges: what it says is what was done, and all that dashboard and alerts ask for is there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import webapp
from tests.e2e.conftest import MARKET, Exchange
from tests.e2e.test_web import Site
from tests.model.kit import order
from zexchange.client import ConnectFailed, InsufficientFunds
from zexchange.runtime.running import RunningExchange, wait_for
from zexchange.runtime.stages import BOUNDS_NS, COUNTED
from zexchange.wire.messages import Side

pytestmark = pytest.mark.timeout(240)
MONITORING = Path(webapp.__file__).parent / "monitoring"
ROOT = Path(webapp.__file__).parent.parent


class Metrics:
    """One answer of /metrics."""

    def __init__(self, site: Site) -> None:
        status, text, _ = site.call("GET", "/metrics")
        assert status == 200
        self.families = {one.name: one for one in text_string_to_metric_families(text.decode())}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """Sum over everything with these labels; 0 if there is none."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def values_of(self, name: str, label: str) -> set[str]:
        return {sample.labels[label] for sample in self.samples if sample.name == name}


def eventually(site: Site, condition: Callable[[Metrics], bool], failure: str) -> Metrics:
    """Figures come a moment after what they are about."""
    found: list[Metrics] = []

    def holds() -> bool:
        found[:] = [Metrics(site)]
        return condition(found[0])

    wait_for(holds, 20, failure)
    return found[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("metrics") / "data"
    settings = {"web.enabled": "true", "ingress.colocate": "on"}
    with RunningExchange(data, settings=settings) as running:
        site = Site(Exchange(running))
        site.exchange.account("measured", USD="100000")
        yield site


def _over_http(site: Site, nonce: int) -> None:
    key = site.exchange.key("measured")
    token, _ = site.log_on(key)
    frame = site.batch(
        key,
        nonce,
        order(Side.BUY, 10, 100_000),
        order(Side.BUY, 10, 100_000),
        order(Side.BUY, 10**10, 100_000),
    )
    headers = {"Content-Type": "application/octet-stream"}
    for _ in range(2):  # the second one changes nothing, and counts nothing
        status, reply, _ = site.call("POST", "/api/v1/orders/batch", frame, token=token, headers=headers)
        assert status == 200, reply


def test_orders_are_counted_by_the_way_they_came_and_by_reason(site: Site) -> None:
    def orders(found: Metrics, transport: str, reason: str) -> float:
        return found.total("zexchange_orders_total", transport=transport, reason=reason)

    before = Metrics(site)
    _over_http(site, 1_000)
    with site.exchange.client("measured") as client:
        client.buy(MARKET, "0.01", "100")
        with pytest.raises(InsufficientFunds):
            client.buy(MARKET, "100", "10000")
    expected = {
        ("http", "ACCEPTED"): 2,
        ("http", "INSUFFICIENT_FUNDS"): 1,
        ("tcp", "ACCEPTED"): 1,
        ("tcp", "INSUFFICIENT_FUNDS"): 1,
    }

    def counted(found: Metrics) -> bool:
        return {key: orders(found, *key) - orders(before, *key) for key in expected} == expected

    eventually(site, counted, "the orders are not counted as they were entered")


def test_stages_are_histograms_of_what_was_done_since_the_start(site: Site) -> None:
    before = Metrics(site)
    with site.exchange.client("measured") as client:
        for _ in range(20):
            client.buy(MARKET, "0.01", "100")

    def acknowledged(found: Metrics) -> float:
        return found.total("zexchange_stage_seconds_count", stage="acknowledge")

    found = eventually(
        site, lambda now: acknowledged(now) >= acknowledged(before) + 20, "the orders are not counted"
    )
    assert found.families["zexchange_stage_seconds"].type == "histogram"
    assert found.values_of("zexchange_stage_seconds_count", "stage") == set(COUNTED)
    assert found.values_of("zexchange_stage_seconds_count", "process") == {"matcher-0", "web"}
    good = found.total("zexchange_signatures_total", result="good")
    assert good >= found.total("zexchange_stage_seconds_count", stage="bus") >= 20
    for stage in COUNTED:
        buckets = [
            (float(sample.labels["le"]), sample.value)
            for sample in found.samples
            if sample.name == "zexchange_stage_seconds_bucket" and sample.labels["stage"] == stage
        ]
        bounds, counts = [bound for bound, _ in buckets], [count for _, count in buckets]
        assert bounds == [pytest.approx(bound / 1e9) for bound in BOUNDS_NS] + [float("inf")]
        assert counts == sorted(counts)
        count = found.total("zexchange_stage_seconds_count", stage=stage)
        assert counts[-1] == count > 0
        total_s = found.total("zexchange_stage_seconds_sum", stage=stage)
        below = [0.0, *counts]
        least_s = sum((below[n + 1] - below[n]) * ([0, *bounds][n]) for n in range(len(bounds)))
        assert least_s <= total_s, "every duration is at least the bound below its bucket"


def test_queues_and_lags_are_told_and_empty_when_nothing_is_going_on(site: Site) -> None:
    def settled(found: Metrics) -> bool:
        return (
            found.total("zexchange_settlement_lag_records") == 0
            and found.total("zexchange_queue_depth") == 0
            and found.total("zexchange_batches_in_flight") == 0
        )

    found = eventually(site, settled, "the queues do not become empty")
    assert found.values_of("zexchange_queue_depth", "queue") == {"matcher", "questions", "verification"}
    assert found.values_of("zexchange_settlement_lag_records", "shard") == {"0"}
    assert found.total("zexchange_session_unsent_bytes") == 0
    assert 0 <= found.total("zexchange_replica_lag_seconds") < 20

    def sessions(at: Metrics) -> float:
        return at.total("zexchange_sessions")

    def accepted(at: Metrics) -> float:
        return at.total("zexchange_connections_total", result="accepted")

    # A session of an earlier test may still be counted at first.
    with site.exchange.client("measured"):
        more = eventually(
            site,
            lambda now: sessions(now) >= 1 and accepted(now) > accepted(found),
            "the session is not counted",
        )
    eventually(site, lambda now: sessions(now) < sessions(more), "the session is counted for ever")


def test_dashboard_and_alerts_ask_for_figures_that_there_are(site: Site) -> None:
    site.call("GET", "/api/v1/time")
    _over_http(site, 2_000)
    with site.exchange.client("measured") as client:
        client.buy(MARKET, "0.01", "100")
    # The histograms of the whole way, and the checkpoint, come a moment later.
    found = eventually(
        site,
        lambda now: (
            {"zexchange_orders_total", "zexchange_checkpoint_age_seconds"}
            <= {sample.name for sample in now.samples}
        ),
        "there are no orders or checkpoints",
    )
    labels: dict[str, set[str]] = {}
    for sample in found.samples:
        labels.setdefault(sample.name, set()).update(sample.labels)
    for file in ("grafana.json", "alerts.yml"):
        text = (MONITORING / file).read_text(encoding="utf-8")
        asked = re.findall(r"(zexchange_\w+)(?:\{([^}]*)\})?", text.replace('\\"', '"'))
        assert len(asked) > 5
        for name, matchers in asked:
            if name == "zexchange":
                continue
            assert name in labels, f"{file} asks for {name}"
            for label, value in re.findall(r'(\w+)="([^"]*)"', matchers):
                assert label in labels[name], f"{file}: {name} has no label {label}"
                # What a request was answered with is there once one was.
                if label != "status":
                    assert value in found.values_of(name, label), f"{file}: no {name} with {label} {value}"
    for label in re.findall(r"by \(([\w, ]+)\)", (MONITORING / "grafana.json").read_text(encoding="utf-8")):
        for one in label.split(", "):
            assert any(one in found for found in labels.values()), f"nothing has the label {one}"


def test_dashboard_panels_do_not_overlap_and_have_a_unit_and_a_name() -> None:
    dashboard = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        assert all(target["expr"] for target in panel["targets"])
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken.get((x, y))}"
                taken[x, y] = panel["title"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_alerts_are_rules_that_prometheus_takes() -> None:
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[sm]", rule["for"])
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith((".", "it."))
        assert re.search(r"(==|>) \d+(\.\d+)?$", rule["expr"]), "it compares with a number"
        for opening, closing in ("()", "{}", "[]"):
            assert rule["expr"].count(opening) == rule["expr"].count(closing)


def test_every_metric_is_in_the_documentation(site: Site) -> None:
    text = (ROOT / "docs" / "web.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(\w+)`", text[text.index("## Monitoring") : text.index("| Alert |")]))
    for family in Metrics(site).families.values():
        assert family.name.startswith("zexchange_")
        name = family.name.removeprefix("zexchange_")
        if name.endswith("_created"):
            continue  # when counting began, which the client library adds
        assert {name, f"{name}_total"} & documented, f"{name} is not in docs/web.md"
        assert family.documentation.endswith("."), f"{name} is not explained"


def test_every_alert_says_what_to_do_in_the_documentation() -> None:
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "web.md").read_text(encoding="utf-8")
    assert alerts
    assert re.findall(r"^\| (Zexchange\w+) \|", text, re.MULTILINE) == alerts


def test_processes_of_their_own_are_told_apart_and_one_that_is_killed_begins_anew(tmp_path: Path) -> None:
    settings = {"web.enabled": "true", "ingress.colocate": "off", "ingress.workers": "1"}
    with RunningExchange(tmp_path / "data", settings=settings) as running:
        site = Site(Exchange(running))
        site.exchange.account("trader", USD="1000")
        stages = {
            "ingress-0": {"verify"},
            "matcher-0": {"bus", "match", "append", "publish", "acknowledge"},
            "web": {"visible"},
        }

        def by_process(found: Metrics) -> dict[str, set[str]]:
            told: dict[str, set[str]] = {}
            for sample in found.samples:
                if sample.name == "zexchange_stage_seconds_count":
                    told.setdefault(sample.labels["process"], set()).add(sample.labels["stage"])
            return told

        def matched(found: Metrics) -> float:
            return found.total("zexchange_stage_seconds_count", process="matcher-0", stage="match")

        before = eventually(site, lambda found: by_process(found) == stages, "the stages are not those")
        good = before.total("zexchange_signatures_total", process="ingress-0", result="good")
        assert matched(before) >= good >= 2
        pid = running.kill("matcher-0")
        running.wait_until_replaced("matcher-0", pid)
        eventually(site, lambda found: matched(found) < matched(before), "the new matcher counts on")

        def deposited() -> bool:
            try:
                with site.exchange.client("operator") as operator:
                    operator.deposit(1, "USD", "1")
            except ConnectFailed:
                return False
            return True

        wait_for(deposited, 30, "the ingress worker does not find the new matcher")
        after = eventually(site, lambda found: matched(found) > 0, "the new matcher does not count")
        assert after.total("zexchange_signatures_total", process="ingress-0", result="good") > good
