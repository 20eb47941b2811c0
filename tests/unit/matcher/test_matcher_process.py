"""The matcher as a process: its lock, its epochs, and the ways in which it refuses to trade."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import msgspec
import pytest
import zmq
from nacl.signing import SigningKey

from tests.model import kit
from zexchange.config import Config
from zexchange.genesis import EngineLimits, Genesis, build_genesis, parse_genesis
from zexchange.log.journal import START, LogEntry, LogReader, log_key
from zexchange.log.stream import command
from zexchange.matcher import link
from zexchange.matcher.link import Kind, Outbox
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.process import EXIT_FENCED, EXIT_REFUSED, READY_FD_ENV
from zexchange.runtime.store import EmbeddedStore, open_store
from zexchange.wire import signing
from zexchange.wire.framing import MAX_FRAME_BYTES_TO_CLIENT, FrameSplitter
from zexchange.wire.messages import ExecType, ExecutionReport, OperatorBatch, decode

OPERATOR = SigningKey(b"o" * 32)
LIMITS = EngineLimits(max_accounts=64, max_keys=64, max_balances=256, max_orders=4_096, max_outcomes=1_024)
PATIENCE_MS = 20_000


class Deployment:
    """A data folder with a running store; matchers are started one by one."""

    def __init__(self, paths: DataPaths) -> None:
        self.paths = paths
        self.config = Config()
        raw = build_genesis(
            "test/matcher", bytes(OPERATOR.verify_key), bytes(OPERATOR.verify_key), engine_limits=LIMITS
        )
        paths.genesis.write_bytes(raw)
        self.genesis: Genesis = parse_genesis(raw)
        self.allow_empty()
        self.store = EmbeddedStore(paths, self.config)
        self.start_store()
        self.matchers: list[subprocess.Popen[bytes]] = []
        self.zmq = zmq.Context()
        self.worker: Ingress | None = None

    def allow_empty(self) -> None:
        token = self.paths.init_token(0)
        token.parent.mkdir(exist_ok=True)
        token.touch()

    def start_store(self) -> None:
        self.store.start()
        self.store.wait_ready()

    def matcher(self) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
        """A started matcher and what it said when it was ready; nothing if it ended instead."""
        read_fd, write_fd = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "zexchange", "matcher", "0", "--data", str(self.paths.root)],
            env=os.environ | {READY_FD_ENV: str(write_fd)},
            pass_fds=(write_fd,),
            stderr=subprocess.DEVNULL,
        )
        os.close(write_fd)
        self.matchers.append(process)
        with os.fdopen(read_fd, "rb") as ready:
            line = ready.readline()
        if not line:
            process.wait()
        return process, msgspec.json.decode(line) if line else {}

    def ingress(self, instance: int) -> Ingress:
        """The ingress worker, which begins anew; two of one name would take each other's messages."""
        self.leave()
        assert any(one.poll() is None for one in self.matchers), said(self.paths)
        self.worker = Ingress(self, instance)
        return self.worker

    def leave(self) -> None:
        if self.worker is not None:
            self.worker.socket.close(linger=0)
        self.worker = None

    def entries(self) -> list[LogEntry]:
        return LogReader(open_store(self.paths, self.config), 0).read(START, 1_000)

    def close(self) -> None:
        for process in self.matchers:
            process.kill()
            process.wait()
        self.store.stop()
        self.leave()
        self.zmq.term()


class Ingress:
    """An ingress worker reduced to one session of the operator's key."""

    def __init__(self, deployment: Deployment, instance: int) -> None:
        self.deployment = deployment
        self.socket = deployment.zmq.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, b"ingress-0")
        self.socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        self.socket.connect(deployment.paths.matcher_address(0))
        self.reports: list[ExecutionReport] = []
        self.outbox = Outbox(instance)
        self.outbox.add(link.entry(Kind.OPEN, 1, bytes(OPERATOR.verify_key)))

    def deposit(self, nonce: int) -> None:
        batch = OperatorBatch(nonce=nonce, commands=[kit.deposit(0, 1, 5)])
        frame = signing.sign_batch(batch, OPERATOR, self.deployment.genesis.deployment_id)
        self.outbox.add(link.entry(Kind.BATCH, 1, frame))
        for message in self.outbox.take():
            self.socket.send(message)

    def report(self) -> ExecutionReport:
        while not self.reports:
            for entry in link.decode(self.socket.recv()).entries:
                if entry.kind == Kind.REPORTS:
                    for frame in FrameSplitter(MAX_FRAME_BYTES_TO_CLIENT).feed(entry.payload):
                        report = decode(frame)
                        assert isinstance(report, ExecutionReport)
                        self.reports.append(report)
        return self.reports.pop(0)


@pytest.fixture
def deployment(paths: DataPaths) -> Iterator[Deployment]:
    made = Deployment(paths)
    yield made
    made.close()


def said(paths: DataPaths) -> str:
    return paths.log("matcher-0").read_text()


def test_matcher_starts_once_stops_and_starts_again(deployment: Deployment) -> None:
    process, ready = deployment.matcher()
    assert ready == {"shard": 0, "epoch": 1}
    assert not deployment.paths.init_token(0).exists()
    twin, nothing = deployment.matcher()
    assert nothing == {}
    assert twin.wait() == EXIT_REFUSED
    assert "another matcher" in said(deployment.paths)
    ingress = deployment.ingress(1)
    ingress.deposit(1)
    assert ingress.report().exec_type is ExecType.DEPOSITED
    ingress.socket.close(linger=0)  # else it is back first, and the next of its name is not heard
    process.terminate()
    assert process.wait() == 0
    _, ready = deployment.matcher()
    assert ready == {"shard": 0, "epoch": 2}
    again = deployment.ingress(2)
    again.deposit(1)
    assert again.report().flags.name == "DUPLICATE"
    assert [str(entry.id) for entry in deployment.entries()] == ["1-0", "1-1", "1-2", "2-0", "2-3", "2-4"]


def test_matcher_killed_at_any_moment_is_succeeded_by_the_next(deployment: Deployment) -> None:
    acknowledged = 0
    for life in range(1, 5):
        process, ready = deployment.matcher()
        assert ready["epoch"] == life
        ingress = deployment.ingress(life)
        for nonce in range(acknowledged + 1, acknowledged + 21):
            ingress.deposit(nonce)
        for _ in range(5 * life):
            report = ingress.report()
            assert report.exec_type is ExecType.DEPOSITED
            acknowledged = max(acknowledged, report.nonce)
        process.kill()
        process.wait()
    deployment.matcher()
    batches = [entry.batch for entry in deployment.entries() if entry.batch is not None]
    assert sum(batch.count for batch in batches) >= acknowledged
    assert [batch.epoch for batch in batches] == sorted(batch.epoch for batch in batches)


def test_fenced_matcher_ends_with_its_own_status(deployment: Deployment) -> None:
    process, _ = deployment.matcher()
    command(open_store(deployment.paths, deployment.config), "XADD", log_key(0), "2-0", "m", "2")
    ingress = deployment.ingress(1)
    ingress.deposit(1)
    assert process.wait(PATIENCE_MS / 1_000) == EXIT_FENCED
    assert "fenced" in said(deployment.paths)
    assert [str(entry.id) for entry in deployment.entries()] == ["1-0", "1-1", "2-0"]


def empty_the_store(deployment: Deployment) -> None:
    shutil.rmtree(deployment.paths.store)
    deployment.paths.create()


def drop_the_last_batch(deployment: Deployment) -> None:
    """As after a failover to a replica that lagged; a snapshot knows better."""
    deployment.start_store()
    client = open_store(deployment.paths, deployment.config)
    (last, _), *_ = command(client, "XREVRANGE", log_key(0), "+", "-", "COUNT", 1)
    command(client, "XDEL", log_key(0), last)
    folder = deployment.paths.snapshots(0)
    folder.mkdir(parents=True)
    (folder / f"{3:020d}.snap").touch()
    deployment.store.stop()


def swap_a_byte(deployment: Deployment) -> None:
    """The store loads it without a word."""
    (file,) = deployment.paths.store.rglob("*.incr.aof")
    data = bytearray(file.read_bytes())
    data[data.rindex(b"ZXB1") + 100] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (empty_the_store, "is empty"),
        (drop_the_last_batch, "went backwards"),
        (swap_a_byte, "cannot be replayed"),
    ],
)
def test_matcher_never_trades_on_a_log_that_lost_something(
    deployment: Deployment, damage: Callable[[Deployment], None], complaint: str
) -> None:
    process, _ = deployment.matcher()
    ingress = deployment.ingress(1)
    ingress.deposit(1)
    ingress.report()
    process.terminate()
    process.wait()
    deployment.store.stop()
    damage(deployment)
    deployment.start_store()
    process, ready = deployment.matcher()
    assert ready == {}
    assert process.wait() == EXIT_REFUSED
    assert complaint in said(deployment.paths)


def test_store_that_is_killed_and_comes_back_loses_nothing(deployment: Deployment) -> None:
    deployment.matcher()
    ingress = deployment.ingress(1)
    acknowledged = 0
    for _ in range(3):
        for nonce in range(acknowledged + 1, acknowledged + 11):
            ingress.deposit(nonce)
        assert deployment.store.pid is not None
        os.kill(deployment.store.pid, 9)
        deployment.store.stop()
        deployment.start_store()
        for _ in range(10):
            acknowledged += 1
            assert ingress.report().nonce == acknowledged
    frames = sum(entry.batch.count for entry in deployment.entries() if entry.batch is not None)
    assert frames == 1 + acknowledged


def test_unsafe_store_is_refused(deployment: Deployment) -> None:
    open_store(deployment.paths, deployment.config).config_set("appendfsync", "no")
    process, ready = deployment.matcher()
    assert ready == {}
    assert process.wait() == EXIT_REFUSED
    assert "appendfsync" in said(deployment.paths)
