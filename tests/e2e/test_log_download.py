"""The log over HTTP: fetched by somebody who has nothing else, and verified."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import MARKET, Command, Exchange, as_json, verify
from tests.e2e.test_web import Site
from zexchange.log.archive import check_segment, segments
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.running import RunningExchange, wait_for

pytestmark = pytest.mark.timeout(240)

SETTINGS = {
    "web.enabled": "true",
    "settlement.checkpoint_interval_ms": "100",
    "settlement.segment_every_records": "8",
    "settlement.kept_log_records": "4",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("audited") / "data"
    with RunningExchange(data, settings=SETTINGS) as running:
        exchange = Exchange(running)
        exchange.account("seller", BTC="100")
        exchange.account("buyer", USD="1000000")
        site = Site(exchange)
        _trade(site, 12)
        yield site


def _trade(site: Site, times: int) -> None:
    with site.exchange.client("seller") as seller, site.exchange.client("buyer") as buyer:
        for _ in range(times):
            seller.sell(MARKET, "0.01", "50000")
            buyer.buy(MARKET, "0.01", "50000")


def _settled(site: Site) -> None:
    """Everything is signed, and some of it is archived."""

    def holds() -> bool:
        (shard,) = site.get("/log")["shards"]
        return int(shard["segments"]) > 0 and shard["records"] == shard["signed_records"]

    wait_for(holds, 30, "the log is not signed and archived")


def _fetch(url: str, file: Path, *options: str) -> str:
    """As an auditor's script would: returns the headers."""
    command = ["curl", "-sS", "--fail-with-body", "-D", "-", "-o", str(file), *options, url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.lower()


def test_a_copy_that_came_by_http_verifies(site: Site, tmp_path: Path, command: Command) -> None:
    _settled(site)
    url, copy = f"http://127.0.0.1:{site.port}", tmp_path / "copy"
    code, out, err = command("download", url, "--data", copy, "--json")
    assert code == 0, err
    first = as_json(out)
    assert first["deployment_id"] == site.get("/version")["deployment_id"]
    verify(command, copy)

    _trade(site, 12)
    _settled(site)
    code, out, err = command("download", url, "--data", copy)
    assert code == 0, err
    assert "fetched" in out
    code, out, err = command("verify", "--data", copy, "--json")
    assert code == 0, err
    found = as_json(out)
    assert found["records"] > first["records"]
    assert found["covered_records"] > first["records"]
    # Archived since: what had been behind the archive was put in its place.
    refs = segments(DataPaths(copy), 0)
    assert [one.first_record_no for one in refs[1:]] == [one.last_record_no + 1 for one in refs[:-1]]

    damaged = bytearray(refs[0].path.read_bytes())
    damaged[200] ^= 1
    refs[0].path.write_bytes(damaged)
    code, _, err = command("verify", "--data", copy)
    assert code == 5
    assert "MISMATCH: shard 0: record" in err


def test_what_is_final_may_be_kept_and_fetched_in_parts(site: Site, tmp_path: Path) -> None:
    _settled(site)
    base = f"http://127.0.0.1:{site.port}/api/v1/log"
    whole, part, rest = tmp_path / "whole.seg", tmp_path / "part", tmp_path / "rest"
    one = site.get("/log/0/segments?limit=1")["segments"][0]
    headers = _fetch(f"{base}/0/segments/1", whole)
    assert "immutable" in headers
    assert f'etag: "{one["sha256"]}"' in headers
    content = whole.read_bytes()
    assert len(content) == int(one["bytes"])
    assert hashlib.sha256(content[:-32]).hexdigest() == one["sha256"]
    assert "206" in _fetch(f"{base}/0/segments/1", part, "-r", "0-99").splitlines()[0]
    assert f"content-range: bytes 100-{len(content) - 1}/{len(content)}" in _fetch(
        f"{base}/0/segments/1", rest, "-r", "100-"
    )
    assert part.read_bytes() + rest.read_bytes() == content
    assert (
        "304"
        in _fetch(f"{base}/0/segments/1", rest, "-H", f'If-None-Match: "{one["sha256"]}"').splitlines()[0]
    )
    status, problem, found = site.call(
        "GET", "/api/v1/log/0/segments/1", headers={"Range": f"bytes={len(content)}-"}
    )
    assert (status, problem["code"], found["content-range"]) == (
        416,
        "RANGE_NOT_SATISFIABLE",
        f"bytes */{len(content)}",
    )
    ref = segments(site.exchange.running.paths, 0)[0]
    check_segment(ref)
    assert ref.path.read_bytes() == content
    # The same batches, wherever they are: in the archive as behind it.
    _, batches, found = site.call("GET", "/api/v1/log/0/batches?from=1")
    assert content[92:-32] == batches[: len(content) - 124]
    assert found["cache-control"] == "no-cache"
    assert found["zx-next"] == str(int(site.get("/log")["shards"][0]["records"]) + 1)
    status, empty, again = site.call("GET", f"/api/v1/log/0/batches?from={found['zx-next']}")
    assert (status, empty, again["zx-next"]) == (200, b"", found["zx-next"])


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/log/7/segments", 404, "SHARD_UNKNOWN"),
        ("/log/0/segments/2", 404, "NOT_FOUND"),
        ("/log/0/segments/..%2f..%2fgenesis.toml", 404, "NOT_FOUND"),
        ("/log/0/batches?from=0", 400, "BAD_REQUEST"),
        ("/log/0/batches?from=1000000", 404, "NOT_FOUND"),
        ("/log/checkpoints?from=1000000000", 404, "NOT_FOUND"),
    ],
)
def test_what_is_not_there_is_named(site: Site, path: str, status: int, code: str) -> None:
    found, problem, _ = site.call("GET", f"/api/v1{path}")
    assert (found, problem["code"]) == (status, code)


BAD_NAMES = (
    "0",
    "2",  # is a record, but no segment begins with it
    "9999999999999999999",
    "99999999999999999999",
    "-1",
    "+1",
    "01",
    "1.0",
    "1e0",
    "0x1",
    "1%20",
    "%201",
    "1%00",
    "%EF%BC%91",  # a full-width 1
    "%D9%A1",  # an Arabic one
    "%FF",
    "00000000000000000001.seg",
    "..",
    "%2e%2e",
    "..%2f..%2fgenesis.toml",
    "%2fetc%2fpasswd",
    "1%2f",
    "1%3fx",
    "9" * 5_000,
    "a" * 5_000,
)


@pytest.mark.parametrize("name", BAD_NAMES, ids=[name[:24] for name in BAD_NAMES])
def test_bad_name_of_a_segment_is_a_problem_document(site: Site, name: str) -> None:
    """Whatever is asked for, the answer is no file, and says what was wrong in the one form that errors have."""
    _settled(site)
    for path, field in ((f"0/segments/{name}", "first_record_no"), (f"{name}/segments/1", "shard")):
        if field == "shard" and name == "0":
            continue
        status, problem, headers = site.call("GET", f"/api/v1/log/{path}")
        assert headers["content-type"] == "application/problem+json"
        if name == "%FF":  # no text at all
            expected = (400, "BAD_REQUEST", "urn:zexchange:problem:bad-request")
        elif field == "shard":
            expected = (404, "SHARD_UNKNOWN", "urn:zexchange:problem:shard-unknown")
        else:
            expected = (404, "NOT_FOUND", "urn:zexchange:problem:not-found")
        assert (status, problem["code"], problem["type"]) == expected
        assert problem["status"] == status
        assert problem["retryable"] is False
        assert problem["title"]
        assert problem["request_id"]
        assert len(problem["detail"]) < 200
        if name != "%FF":
            assert problem["field"] == field
        assert "etag" not in headers
        assert headers["cache-control"] == "no-store"


def test_segment_has_one_name_and_its_neighbours_none(site: Site) -> None:
    _settled(site)
    shown = site.get("/log/0/segments?limit=1000")["segments"]
    starts = {int(one["first_record_no"]) for one in shown}
    for number in range(1, int(shown[-1]["last_record_no"]) + 2):
        status, _, headers = site.call("GET", f"/api/v1/log/0/segments/{number}")
        if number in starts:
            assert (status, headers["content-type"]) == (200, "application/octet-stream")
        elif number <= int(shown[-1]["last_record_no"]):
            assert (status, headers["content-type"]) == (404, "application/problem+json")


def test_a_log_that_is_not_published_is_not_served(tmp_path: Path, command: Command) -> None:
    settings = {"web.enabled": "true", "web.publish_log": "false"}
    with RunningExchange(tmp_path / "data", settings=settings) as running:
        site = Site(Exchange(running))
        for path in ("/log", "/log/genesis", "/log/0/batches", "/proofs/record/0/1"):
            status, problem, _ = site.call("GET", f"/api/v1{path}")
            assert (status, problem["code"]) == (403, "FORBIDDEN")
        code, _, err = command("download", f"http://127.0.0.1:{site.port}", "--data", tmp_path / "copy")
        assert code == 1
        assert "403" in err
        code, _, err = command("download", f"http://127.0.0.1:{site.port}", "--data", tmp_path / "data")
        assert code == 1
        assert "choose another one" in err
