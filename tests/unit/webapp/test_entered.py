"""The terms that orders were entered with, found in the batches of the log."""

from __future__ import annotations

import pytest

from tests.model import kit
from webapp import entered
from webapp.entered import EnteredOrders
from zexchange.engine import Engine
from zexchange.wire.messages import Command, OrderOptions, Side

ALICE, BOB = kit.public_key(1), kit.public_key(2)
PAIRED = OrderOptions.OCO_WITH_PREVIOUS


class World:
    def __init__(self) -> None:
        self.engine = Engine(kit.small_genesis(), 0, track_state=False)
        self.entered = EnteredOrders()
        self._now_ns = kit.START_NS
        operator = [kit.open_account(ALICE), kit.open_account(BOB)]
        operator += [kit.deposit(account, asset, 1_000) for account in (1, 2) for asset in (1, 2)]
        self.apply(kit.epoch_open(1), kit.batch(kit.OPERATOR_KEY, 1, operator))

    def apply(self, *frames: bytes) -> int:
        """One batch of the log; returns the seq of its first command."""
        self._now_ns += 1_000_000
        first_record_no, first_seq = self.engine.next_record_no, self.engine.next_seq
        events = bytes(self.engine.apply(b"".join(frames), self._now_ns).events)
        self.entered.add(0, events, first_record_no, frames)
        return first_seq

    def of(self, account_id: int, seq: int) -> Command | None:
        return self.entered.command(account_id, 0, seq)


@pytest.fixture
def world() -> World:
    return World()


def test_every_order_of_a_batch_of_the_log_has_its_own_command(world: World) -> None:
    of_alice = [kit.order(Side.BUY, 1, 10, post_only=True), kit.cancel(99), kit.order(Side.BUY, 2, 20)]
    of_bob = [kit.order(Side.SELL, 3, 30, client_order_id=5), kit.order(Side.SELL, 10**6, 30)]
    first = world.apply(kit.batch(ALICE, 1, of_alice), kit.batch(BOB, 1, of_bob))
    assert world.of(1, first) == of_alice[0]
    assert world.of(1, first + 1) is None, "a cancel enters nothing"
    assert world.of(1, first + 2) == of_alice[2]
    assert world.of(2, first + 3) == of_bob[0]
    assert world.of(2, first + 4) == of_bob[1], "refused: nobody has as much"
    assert world.of(1, first + 3) is None, "that is somebody else's"


def test_both_orders_of_a_pair_say_so_unless_the_second_is_refused(world: World) -> None:
    pair = [kit.order(Side.BUY, 1, 10), kit.order(Side.BUY, 1, 12, options=PAIRED)]
    first = world.apply(kit.batch(ALICE, 1, pair))
    for seq in (first, first + 1):
        command = world.of(1, seq)
        assert command is not None
        assert command.options == PAIRED
    alone = [kit.order(Side.BUY, 1, 10), kit.order(Side.SELL, 1, 90, options=PAIRED)]
    first = world.apply(kit.batch(ALICE, 2, alone))
    assert world.of(1, first) == alone[0]


def test_a_batch_that_comes_again_changes_nothing(world: World) -> None:
    frame = kit.batch(ALICE, 1, [kit.order(Side.BUY, 1, 10, post_only=True)])
    first = world.apply(frame)
    world.apply(kit.batch(BOB, 1, [kit.cancel(7)]), frame)
    command = world.of(1, first)
    assert command is not None
    assert command.options == OrderOptions.POST_ONLY


def test_the_oldest_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entered, "REPORTS_KEPT", 3)
    orders = [kit.order(Side.BUY, 1, price) for price in range(10, 15)]
    first = world.apply(kit.batch(ALICE, 1, orders))
    assert [world.of(1, first + at) is not None for at in range(5)] == [False, False, True, True, True]
