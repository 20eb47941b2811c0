"""The client's core without sockets or threads: exactly-once over lost connections, ends of answers, deadlines."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.unit.client.fake_exchange import (
    ALICE,
    BOB,
    OPERATOR,
    START_NS,
    FakeConnection,
    FakeExchange,
    funded,
    small_genesis,
)
from zexchange.client._core import RECONNECT_LAST_MS, BatchRequest, Core, Gap, Instant, Phase
from zexchange.client.errors import (
    ConnectFailed,
    DeploymentMismatch,
    Disconnected,
    NoAnswer,
    OutcomeUnknown,
    ZexchangeError,
)
from zexchange.client.rejections import NonceUsed, ServerBusy
from zexchange.wire.messages import (
    Command,
    CommandKind,
    ExecType,
    OrderOptions,
    OrderType,
    ReasonCode,
    ReportFlags,
    SelfTradePrevention,
    ShardStatusRequest,
    Side,
    TimeInForce,
    decode,
)

TIMEOUT_MS = 10_000


class Rig:
    """A core and a fake exchange, with a wire between them that moves only when told, and a clock likewise."""

    def __init__(self, exchange: FakeExchange, core_key: object = ALICE, **settings: object) -> None:
        self.exchange = exchange
        self.ms = 0
        self.core = Core(core_key, at=self.at, **settings)  # type: ignore[arg-type]
        self.connection: FakeConnection | None = None

    @property
    def at(self) -> Instant:
        return Instant(self.ms, START_NS + self.ms * 1_000_000)

    def connect(self) -> None:
        self.core.connected(self.at)
        self.connection = self.exchange.connect()
        self.pump()

    def pump(self) -> None:
        """Move bytes both ways until nothing moves any more, or the connection is gone."""
        assert self.connection is not None
        self.exchange.now_ms = self.ms
        while True:
            up = self.core.take_output()
            if up:
                self.exchange.receive(self.connection, up)
            down = self.exchange.output(self.connection)
            if down:
                try:
                    self.core.receive(down, self.at)
                except ZexchangeError as error:
                    self.core.lost(error, self.at, 0.0)
                    return
            if not self.connection.open:
                self.lose()
                return
            if not up and not down:
                return

    def lose(self) -> None:
        self.core.lost("the cable was cut", self.at, 0.0)

    def pass_time(self, ms: int) -> None:
        self.ms += ms
        try:
            self.core.tick(self.at)
        except ZexchangeError as error:
            self.core.lost(error, self.at, 0.0)

    def submit(self, *commands: Command) -> BatchRequest[Command]:
        return self.core.submit(0, commands, TIMEOUT_MS, self.at)


def order(
    side: Side,
    price_ticks: int,
    qty_lots: int,
    tif: TimeInForce = TimeInForce.GTC,
    *,
    post_only: bool = False,
    client_order_id: int = 0,
) -> Command:
    return Command(
        kind=CommandKind.NEW,
        side=side,
        order_type=OrderType.LIMIT,
        time_in_force=tif,
        self_trade_prevention=SelfTradePrevention.CANCEL_NEWEST,
        options=OrderOptions.POST_ONLY if post_only else OrderOptions.NONE,
        market_id=1,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
        client_order_id=client_order_id,
    )


def cancel(order_id: int) -> Command:
    return Command(kind=CommandKind.CANCEL, order_id=order_id)


CANCEL_ALL = Command(kind=CommandKind.CANCEL_ALL)


@pytest.fixture
def exchange() -> FakeExchange:
    exchange = FakeExchange()
    funded(exchange, ALICE, BOB)
    return exchange


@pytest.fixture
def rig(exchange: FakeExchange) -> Rig:
    rig = Rig(exchange)
    rig.connect()
    return rig


@pytest.fixture
def bob(exchange: FakeExchange) -> Rig:
    rig = Rig(exchange, BOB)
    rig.connect()
    return rig


def kinds(reports: Sequence[object]) -> list[ExecType]:
    return [report.exec_type for report in reports]  # type: ignore[attr-defined]


# ---------------------------------------------------------------- logging on


def test_it_logs_on_and_checks_the_genesis(rig: Rig) -> None:
    assert rig.core.phase is Phase.READY
    assert rig.core.genesis == rig.exchange.genesis
    assert rig.core.account_id == 1


def test_a_genesis_that_does_not_hash_to_the_deployment_id_is_refused(exchange: FakeExchange) -> None:
    exchange.genesis_sent = small_genesis((1, 1)).raw
    rig = Rig(exchange)
    rig.connect()
    assert rig.core.phase is Phase.ENDED
    assert isinstance(rig.core.failure, DeploymentMismatch)


def test_a_pinned_deployment_must_be_met(exchange: FakeExchange) -> None:
    rig = Rig(exchange, deployment_id=bytes(32))
    rig.connect()
    assert rig.core.phase is Phase.ENDED
    assert isinstance(rig.core.failure, DeploymentMismatch)


def test_a_later_connection_must_be_the_same_deployment(rig: Rig) -> None:
    rig.lose()
    rig.exchange = FakeExchange(small_genesis((1, 1)))
    rig.connect()
    assert rig.core.phase is Phase.ENDED
    assert isinstance(rig.core.failure, DeploymentMismatch)


def test_pauses_between_tries_grow_to_a_limit(exchange: FakeExchange) -> None:
    rig = Rig(exchange)
    pauses = []
    for _ in range(12):
        rig.lose()
        pauses.append(rig.core.connect_at_ms - rig.ms)
    assert pauses == sorted(pauses)
    assert pauses[0] < 1000
    assert pauses[-1] == RECONNECT_LAST_MS // 2  # with jitter 0
    rig.core.lost("again", rig.at, 0.999)
    assert RECONNECT_LAST_MS // 2 < rig.core.connect_at_ms - rig.ms <= RECONNECT_LAST_MS


# ---------------------------------------------------------------- when an answer is complete


def test_a_resting_order_is_complete_at_its_fence(rig: Rig) -> None:
    batch = rig.submit(order(Side.BUY, 100, 1))
    rig.pump()
    assert batch.done
    assert kinds(batch.reports[0]) == [ExecType.NEW]
    assert isinstance(rig.connection.seen[-1], ShardStatusRequest)  # type: ignore[union-attr]


def test_an_order_that_trades_and_rests_has_all_its_fills(rig: Rig, bob: Rig) -> None:
    for price in (100, 101, 102):
        bob.submit(order(Side.SELL, price, 2))
    bob.pump()
    batch = rig.submit(order(Side.BUY, 101, 10))
    rig.pump()
    assert kinds(batch.reports[0]) == [ExecType.NEW, ExecType.TRADE, ExecType.TRADE]
    assert batch.reports[0][-1].leaves_lots == 6


@pytest.mark.parametrize(
    "command",
    [
        order(Side.BUY, 100, 1, TimeInForce.IOC),
        order(Side.BUY, 100, 1, TimeInForce.FOK),
        order(Side.BUY, 100, 1, TimeInForce.AT_THE_CLOSE),
        order(Side.BUY, 100, 1, post_only=True),
        cancel(999),
        CANCEL_ALL,
    ],
)
def test_commands_with_a_last_word_need_no_fence(rig: Rig, command: Command) -> None:
    batch = rig.submit(command)
    rig.pump()
    assert batch.done
    assert isinstance(rig.connection.seen[-1], bytes)  # type: ignore[union-attr]


def test_a_filled_order_does_not_wait_for_its_fence(rig: Rig, bob: Rig) -> None:
    bob.submit(order(Side.SELL, 100, 5))
    bob.pump()
    rig.exchange.refuse_queries = [ReasonCode.SERVER_BUSY]
    batch = rig.submit(order(Side.BUY, 100, 5))
    rig.pump()
    assert batch.done
    assert batch.reports[0][-1].leaves_lots == 0


def test_a_refused_fence_is_sent_again(rig: Rig) -> None:
    rig.exchange.refuse_queries = [ReasonCode.SERVER_BUSY]
    batch = rig.submit(order(Side.BUY, 100, 5))
    rig.pump()
    assert not batch.done
    rig.pass_time(200)
    rig.pump()
    assert batch.done
    assert batch.error is None


def test_a_batch_has_one_answer_per_command(rig: Rig, bob: Rig) -> None:
    bob.submit(order(Side.SELL, 100, 3))
    bob.pump()
    batch = rig.submit(
        order(Side.BUY, 100, 5, client_order_id=7), order(Side.BUY, 50, 1), cancel(12345), CANCEL_ALL
    )
    rig.pump()
    assert [kinds(reports) for reports in batch.reports] == [
        [ExecType.NEW, ExecType.TRADE],
        [ExecType.NEW],
        [ExecType.REJECTED],
        [ExecType.CANCELLED, ExecType.CANCELLED, ExecType.MASS_CANCELLED],
    ]


def test_a_whole_batch_refused_answers_every_command(exchange: FakeExchange) -> None:
    rig = Rig(exchange, OPERATOR)
    rig.connect()
    batch = rig.submit(order(Side.BUY, 100, 1), order(Side.BUY, 100, 1))
    rig.pump()
    assert [report.reason for reports in batch.reports for report in reports] == [ReasonCode.TRADERS_ONLY] * 2


def test_a_key_without_account_is_told_so(exchange: FakeExchange) -> None:
    from nacl.signing import SigningKey

    rig = Rig(exchange, SigningKey(bytes([9]) * 32))
    rig.connect()
    assert rig.core.account_id is None
    batch = rig.submit(order(Side.BUY, 100, 1))
    rig.pump()
    assert batch.reports[0][0].reason is ReasonCode.UNKNOWN_KEY


# ---------------------------------------------------------------- lost connections


@pytest.mark.parametrize("drop", ["before", "after"])
def test_an_unanswered_batch_is_sent_again_with_the_same_bytes(rig: Rig, drop: str) -> None:
    rig.exchange.drop_next = drop
    batch = rig.submit(order(Side.BUY, 100, 5, client_order_id=7))
    rig.pump()
    assert rig.core.phase is Phase.WAITING
    assert not batch.done
    rig.connect()
    assert batch.done
    assert batch.error is None
    # Applied before the loss: the second time is answered as a duplicate; else it was applied the second time.
    applied = rig.exchange.applied[2:]  # after the two of `funded`
    assert len(applied) == (2 if drop == "after" else 1)
    assert set(applied) == {batch.frame}
    assert (ReportFlags.DUPLICATE in batch.reports[0][0].flags) == (drop == "after")
    assert rig.exchange.engine.counts().open_orders == 1


def test_answers_that_came_before_the_loss_are_kept(rig: Rig, bob: Rig) -> None:
    """The report arrives, the fence does not: the fills must not be lost to the duplicate's shorter answer."""
    bob.submit(order(Side.SELL, 100, 2))
    bob.pump()
    rig.exchange.refuse_queries = [ReasonCode.SERVER_BUSY]
    batch = rig.submit(order(Side.BUY, 100, 5))
    rig.pump()
    assert not batch.done
    rig.lose()
    rig.connect()
    assert batch.done
    assert kinds(batch.reports[0]) == [ExecType.NEW, ExecType.TRADE, ExecType.NEW]
    last = batch.reports[0][-1]
    assert (last.cum_qty_lots, last.leaves_lots, last.flags) == (2, 3, ReportFlags.DUPLICATE)


def test_pending_batches_are_sent_again_in_their_order(rig: Rig) -> None:
    rig.exchange.mute = True
    first, second = rig.submit(order(Side.BUY, 100, 1)), rig.submit(order(Side.BUY, 101, 1))
    rig.pump()
    rig.lose()
    rig.exchange.mute = False
    rig.connect()
    frames = [seen for seen in rig.connection.seen if isinstance(seen, bytes)]  # type: ignore[union-attr]
    assert frames == [first.frame, second.frame]
    assert first.done
    assert second.done
    assert rig.exchange.engine.counts().open_orders == 2


def test_a_batch_made_without_connection_is_sent_when_there_is_one(rig: Rig) -> None:
    rig.lose()
    batch = rig.submit(order(Side.BUY, 100, 1))
    rig.connect()
    assert batch.done
    assert ReportFlags.DUPLICATE not in batch.reports[0][0].flags


def test_a_terminated_session_is_made_again(rig: Rig) -> None:
    assert rig.connection is not None
    rig.exchange.hang_up(rig.connection, ReasonCode.SHARD_RESTARTED)
    rig.pump()
    assert rig.core.phase is Phase.WAITING
    rig.connect()
    assert rig.core.phase is Phase.READY


def test_too_many_strikes_is_the_end(rig: Rig) -> None:
    assert rig.connection is not None
    rig.exchange.hang_up(rig.connection, ReasonCode.TOO_MANY_STRIKES)
    rig.pump()
    assert rig.core.phase is Phase.ENDED
    with pytest.raises(ConnectFailed):
        rig.submit(order(Side.BUY, 100, 1))


def test_reports_missed_while_away_are_noticed(rig: Rig, bob: Rig) -> None:
    batch = rig.submit(order(Side.BUY, 100, 5))
    rig.pump()
    seen = batch.reports[0][0].report_seq
    assert rig.connection is not None
    rig.exchange.hang_up(rig.connection)
    rig.pump()
    bob.submit(order(Side.SELL, 100, 2, TimeInForce.IOC))
    bob.pump()
    rig.connect()
    assert rig.core.take_events() == [Gap(0, seen + 1, seen + 1)]


# ---------------------------------------------------------------- deadlines


def test_an_unanswered_batch_has_an_unknown_outcome(rig: Rig) -> None:
    rig.exchange.mute = True
    batch = rig.submit(order(Side.BUY, 100, 5))
    rig.pump()
    rig.pass_time(TIMEOUT_MS)
    assert isinstance(batch.error, OutcomeUnknown)
    assert (batch.error.nonce, batch.error.frame) == (batch.nonce, batch.frame)
    assert "resolve" in str(batch.error)

    rig.exchange.mute = False
    again = rig.core.resubmit(batch.error.frame, TIMEOUT_MS, rig.at)
    rig.pump()
    assert again.done
    assert again.error is None
    assert ReportFlags.DUPLICATE in again.reports[0][0].flags
    assert rig.exchange.engine.counts().open_orders == 1


def test_a_batch_that_never_left_was_certainly_not_applied(rig: Rig) -> None:
    rig.lose()
    batch = rig.submit(order(Side.BUY, 100, 5))
    rig.pass_time(TIMEOUT_MS)
    assert isinstance(batch.error, Disconnected)
    rig.connect()
    assert rig.exchange.engine.counts().open_orders == 0


def test_an_unanswered_query_is_only_that(rig: Rig) -> None:
    rig.exchange.mute = True
    query = rig.core.ask(ShardStatusRequest(), TIMEOUT_MS, rig.at)
    rig.pump()
    rig.pass_time(TIMEOUT_MS)
    assert isinstance(query.error, NoAnswer)


def test_a_silent_exchange_is_given_up_and_connected_again(rig: Rig) -> None:
    rig.exchange.mute = True
    for _ in range(4):
        rig.pass_time(5_000)
        if rig.core.phase is Phase.READY:
            rig.pump()
    assert rig.core.phase is Phase.WAITING


def test_heartbeats_keep_a_quiet_session_alive(rig: Rig) -> None:
    assert rig.connection is not None
    for _ in range(20):
        rig.pass_time(5_000)
        rig.exchange.now_ms = rig.ms
        assert rig.connection.session.tick(rig.ms) is None
        rig.pump()
    assert rig.core.phase is Phase.READY


def test_closing_says_goodbye_and_fails_what_waits(rig: Rig) -> None:
    rig.exchange.mute = True
    batch = rig.submit(order(Side.BUY, 100, 5))
    query = rig.core.ask(ShardStatusRequest(), TIMEOUT_MS, rig.at)
    rig.pump()
    rig.core.close(rig.at)
    assert isinstance(batch.error, OutcomeUnknown)
    assert isinstance(query.error, Disconnected)
    assert decode(rig.core.take_output()).reason is ReasonCode.CLIENT_REQUEST  # type: ignore[union-attr]
    with pytest.raises(Disconnected, match="closed"):
        rig.submit(order(Side.BUY, 100, 1))


# ---------------------------------------------------------------- nonces, refusals before the matcher


def test_nonces_grow_even_if_the_clock_does_not(rig: Rig) -> None:
    nonces = [rig.submit(order(Side.BUY, 100, 1)).nonce for _ in range(3)]
    rig.ms -= 1
    nonces.append(rig.submit(order(Side.BUY, 100, 1)).nonce)
    assert nonces == list(range(nonces[0], nonces[0] + 4))


def test_nonces_follow_the_exchanges_clock(exchange: FakeExchange) -> None:
    exchange.wall_ns += 3600 * 10**9
    rig = Rig(exchange)
    rig.connect()
    batch = rig.submit(order(Side.BUY, 100, 1))
    rig.pump()
    assert batch.reports[0][0].exec_type is ExecType.NEW
    assert batch.nonce >= START_NS // 1000 + 3_600_000_000


def test_a_batch_that_did_not_reach_the_matcher_is_refused(rig: Rig) -> None:
    rig.exchange.refuse_next = [ReasonCode.SERVER_BUSY]
    batch = rig.submit(order(Side.BUY, 100, 5))
    rig.pump()
    assert isinstance(batch.error, ServerBusy)


def test_a_busy_exchange_says_nothing_about_the_first_try(rig: Rig) -> None:
    """Applied, connection lost, resent to a busy exchange: that the second try was refused must not be the answer."""
    rig.exchange.drop_next = "after"
    batch = rig.submit(order(Side.BUY, 100, 5))
    rig.pump()
    rig.exchange.refuse_next = [ReasonCode.SERVER_BUSY, ReasonCode.SERVER_BUSY]
    rig.connect()
    assert not batch.done
    for _ in range(2):
        rig.pass_time(200)
        rig.pump()
    assert batch.done
    assert batch.error is None
    assert ReportFlags.DUPLICATE in batch.reports[0][0].flags


def test_a_resent_batch_whose_outcome_is_forgotten_stays_unknown(rig: Rig) -> None:
    rig.exchange.drop_next = "after"
    batch = rig.submit(order(Side.BUY, 100, 5))
    rig.pump()
    other = Rig(rig.exchange)
    other.connect()
    for _ in range(65):  # push the outcome out of the exchange's cache of 4,096
        other.submit(*[CANCEL_ALL] * 64)
        other.pump()
    rig.connect()
    assert isinstance(batch.error, OutcomeUnknown)
    assert "no longer keeps" in str(batch.error)


def test_two_programs_with_one_key_and_one_nonce_are_told(rig: Rig) -> None:
    other = Rig(rig.exchange)
    other.connect()
    first = rig.submit(order(Side.BUY, 100, 5))
    rig.pump()
    # The same microsecond on the exchange's clock.
    other.core._last_nonce = first.nonce - 1
    other.core._clock_offset_ns = -(10**18)
    second = other.submit(order(Side.SELL, 900, 5))
    assert second.nonce == first.nonce
    other.pump()
    assert isinstance(second.error, NonceUsed)
    assert rig.exchange.engine.counts().open_orders == 1


def test_the_order_of_another_session_is_not_taken_for_ours_because_of_its_nonce(rig: Rig) -> None:
    other = Rig(rig.exchange)
    other.connect()
    ours, theirs = rig.submit(order(Side.BUY, 100, 5)), other.submit(order(Side.BUY, 101, 7))
    assert ours.nonce == theirs.nonce
    other.pump()
    assert theirs.done
    assert rig.connection is not None
    rig.core.receive(rig.exchange.output(rig.connection), rig.at)
    assert not ours.done
    assert ours.reports == [[]]
    (event,) = rig.core.take_events()
    assert not isinstance(event, Gap)
    assert (event.exec_type, event.price_ticks) == (ExecType.NEW, 101)


def test_reports_of_other_sessions_of_the_account_are_events(rig: Rig) -> None:
    other = Rig(rig.exchange)
    other.connect()
    other.submit(order(Side.BUY, 100, 5))
    other.pump()
    rig.pump()
    (event,) = rig.core.take_events()
    assert not isinstance(event, Gap)
    assert event.exec_type is ExecType.NEW
    assert other.core.take_events() == []


def test_a_frame_of_another_key_is_not_resubmitted(rig: Rig, bob: Rig) -> None:
    frame = bob.submit(order(Side.BUY, 100, 5)).frame
    with pytest.raises(ValueError, match="not a batch"):
        rig.core.resubmit(frame, TIMEOUT_MS, rig.at)
