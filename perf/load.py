"""Open-loop load of really signed orders over TCP against a really running exchange.

    planned orders ──at their due time──▶ one TCP session per trader ──▶ exchange ──▶ first report of each

Orders leave when they are due whether or not earlier ones were answered, and latency is counted from the due
time, so that a stall of the exchange (or of this generator) is charged to every order it delays. One thread
sends and receives; it sleeps in select between due times. A run in which it fell behind does not count.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from decimal import Decimal

import msgspec
from nacl.signing import SigningKey

from perf.stats import Machine, Percentiles, describe_machine, percentiles
from perf.workload import PlannedOrder, plan
from zexchange.client import Client
from zexchange.wire.messages import Durability, ExecType, ExecutionReport, NotApplied
from zexchange.wire.session import ClientSession, Established, MessageReceived, SessionEnded, SessionSettings

_RECEIVE_BYTES = 1 << 18
_DRAIN_TIMEOUT_S = 10.0
_LATE_NS = 5_000_000
_LATE_SHARE_MAX = 0.01


class LoadResult(msgspec.Struct, frozen=True):
    """One load run. Latency is from the due time of an order to its first report, durable by then."""

    valid: bool
    kept_up: bool
    rate_offered: float
    orders_per_s: float
    orders_sent: int
    orders_answered: int
    orders_accepted: int
    orders_rejected: int
    not_applied: int
    trades: int
    traders: int
    duration_s: float
    arrivals: str
    durability: str
    latency: Percentiles
    service_time: Percentiles
    generator_cpu_share: float
    machine: Machine


class _Trader:
    """One session and its orders."""

    def __init__(self, host: str, port: int, key: SigningKey, deployment_id: bytes) -> None:
        self.socket = socket.create_connection((host, port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.session = ClientSession(
            SessionSettings(heartbeat_interval_ms=10_000),
            key=key,
            deployment_id=deployment_id,
            now_ms=_now_ms(),
        )
        self.unsent = bytearray()
        self.ended: SessionEnded | None = None

    def establish(self) -> Durability:
        while True:
            data = self.socket.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionError("the exchange closed the connection during logon")
            for frame in self.session.feed(data, _now_ms()):
                event = self.session.receive(frame, _now_ms())
                if isinstance(event, Established):
                    self.socket.setblocking(False)
                    return event.ack.durability
                if isinstance(event, SessionEnded):
                    raise ConnectionError(f"logon refused: {event.reason.name}")
            self.socket.sendall(self.session.take_output())


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class _Run:
    """The state of the open loop: what is due, what is unanswered, what was measured."""

    def __init__(self, traders: list[_Trader], plans: list[list[PlannedOrder]]) -> None:
        self.traders = traders
        self.orders = sorted(
            ((order.due_ns, trader, order) for trader, orders in enumerate(plans) for order in orders),
            key=lambda entry: entry[0],
        )
        self.due_ns = {order.nonce: order.due_ns for _, _, order in self.orders}
        self.sent_ns: dict[int, int] = {}
        self.latency_ns: list[int] = []
        self.service_ns: list[int] = []
        self.accepted = self.rejected = self.not_applied = self.late = 0
        self.trade_ids: set[int] = set()

    @property
    def unanswered(self) -> int:
        return len(self.sent_ns) - len(self.latency_ns)

    def execute(self) -> float:
        """Send everything, wait for the answers; returns seconds from start to the last answer."""
        by_socket = {trader.socket: trader for trader in self.traders}
        start_ns = time.perf_counter_ns()
        last_ns = start_ns
        position = 0
        drain_until_ns = 0
        while position < len(self.orders) or self.unanswered:
            now_ns = time.perf_counter_ns() - start_ns
            position = self._send_due(position, now_ns, start_ns)
            if position < len(self.orders):
                wait_s = max(0.0, (self.orders[position][0] - (time.perf_counter_ns() - start_ns)) / 1e9)
            else:
                drain_until_ns = drain_until_ns or now_ns + int(_DRAIN_TIMEOUT_S * 1e9)
                if now_ns > drain_until_ns:
                    break
                wait_s = 0.1
            # select, because epoll rounds its timeout up to a millisecond and orders would leave late.
            for readable in select.select(list(by_socket), [], [], wait_s)[0]:
                if self._receive(by_socket[readable], start_ns):
                    last_ns = time.perf_counter_ns()
            for trader in self.traders:
                self._flush(trader)
        return (last_ns - start_ns) / 1e9

    def _send_due(self, position: int, now_ns: int, start_ns: int) -> int:
        while position < len(self.orders) and self.orders[position][0] <= now_ns:
            due_ns, index, order = self.orders[position]
            self.traders[index].unsent += order.frame
            self._flush(self.traders[index])
            sent_ns = time.perf_counter_ns() - start_ns
            self.sent_ns[order.nonce] = sent_ns
            self.late += sent_ns - due_ns > _LATE_NS
            position += 1
        return position

    @staticmethod
    def _flush(trader: _Trader) -> None:
        trader.session.tick(_now_ms())
        trader.unsent += trader.session.take_output()
        if trader.unsent:
            try:
                sent = trader.socket.send(trader.unsent)
            except BlockingIOError:
                return
            del trader.unsent[:sent]

    def _receive(self, trader: _Trader, start_ns: int) -> bool:
        data = trader.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the exchange closed a session during the run")
        received_ns = time.perf_counter_ns() - start_ns
        answered = False
        for frame in trader.session.feed(data, _now_ms()):
            event = trader.session.receive(frame, _now_ms())
            if isinstance(event, SessionEnded):
                raise ConnectionError(f"a session was ended during the run: {event.reason.name}")
            if not isinstance(event, MessageReceived):
                continue
            message = event.message
            if isinstance(message, ExecutionReport):
                answered |= self._report(message, received_ns)
            elif isinstance(message, NotApplied):
                self.not_applied += 1
                self._answer(message.nonce, received_ns)
        return answered

    def _report(self, report: ExecutionReport, received_ns: int) -> bool:
        if report.exec_type is ExecType.TRADE:
            self.trade_ids.add(report.trade_id)
        if report.nonce not in self.due_ns or report.exec_type not in (ExecType.NEW, ExecType.REJECTED):
            return False
        self.accepted += report.exec_type is ExecType.NEW
        self.rejected += report.exec_type is ExecType.REJECTED
        self._answer(report.nonce, received_ns)
        return True

    def _answer(self, nonce: int, received_ns: int) -> None:
        self.latency_ns.append(received_ns - self.due_ns[nonce])
        self.service_ns.append(received_ns - self.sent_ns[nonce])


def run_load(
    host: str,
    port: int,
    operator_key: SigningKey,
    *,
    traders: int,
    duration_s: float,
    rate: float,
    poisson: bool,
    market: str,
    seed: int,
) -> LoadResult:
    """Open accounts and deposit through the SDK, sign ahead, run, and wait for every answer.

    Raises ConnectionError when a session breaks during the run, and the SDK's errors before it.
    """
    keys = [SigningKey.generate() for _ in range(traders)]
    with Client(host, port, key=operator_key) as operator:
        genesis = operator.genesis
        traded = genesis.market(market)
        for key in keys:
            account_id = operator.open_account(bytes(key.verify_key)).account_id
            for asset_id in (traded.base_asset_id, traded.quote_asset_id):
                operator.deposit(account_id, genesis.asset(asset_id).symbol, Decimal(1_000_000_000))
    plans = plan(
        keys,
        genesis.deployment_id,
        market_id=traded.market_id,
        shard=traded.shard,
        rate=rate,
        duration_s=duration_s,
        poisson=poisson,
        first_nonce=time.time_ns() // 1000,
        seed=seed,
    )
    sessions = [_Trader(host, port, key, genesis.deployment_id) for key in keys]
    try:
        durability = {session.establish() for session in sessions}.pop()
        run = _Run(sessions, plans)
        cpu_before = _cpu_s()
        elapsed_s = run.execute()
        cpu_share = (_cpu_s() - cpu_before) / elapsed_s
    finally:
        for session in sessions:
            session.socket.close()
    kept_up = run.late <= len(run.orders) * _LATE_SHARE_MAX
    answered = len(run.latency_ns)
    return LoadResult(
        valid=kept_up and answered == len(run.orders) and run.not_applied == 0,
        kept_up=kept_up,
        rate_offered=rate,
        orders_per_s=answered / elapsed_s,
        orders_sent=len(run.sent_ns),
        orders_answered=answered,
        orders_accepted=run.accepted,
        orders_rejected=run.rejected,
        not_applied=run.not_applied,
        trades=len(run.trade_ids),
        traders=traders,
        duration_s=elapsed_s,
        arrivals="poisson" if poisson else "constant",
        durability=durability.name.lower(),
        latency=percentiles(run.latency_ns),
        service_time=percentiles(run.service_ns),
        generator_cpu_share=cpu_share,
        machine=describe_machine(),
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
