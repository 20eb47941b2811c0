"""Proofs of balances: made by the engine in C, checked from their bytes against roots that a settlement with the
reference engine has signed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey

from tests.fakes import FakeClock
from tests.log_builder import SETTLEMENT, LogBuilder, StreamsStore, built_log, signed_genesis
from tests.model.kit import open_account
from tests.settling import Settling
from webapp.checkpoint_states import IDLE_S, CheckpointStates
from webapp.settlement_log import SettlementLog
from zexchange.genesis import Genesis
from zexchange.log.journal import log_key
from zexchange.runtime.paths import DataPaths
from zexchange.verification.balance_proof import (
    BalanceProofInvalid,
    ProvenAccount,
    make_balance_proof,
    verify_balance_proof,
)
from zexchange.verification.checkpoint import CheckpointLeaf, origin_of
from zexchange.verification.note import NoteKey
from zexchange.verification.replica import Mismatch

SHARDS = 2
KEY = NoteKey(origin_of("test"), bytes(SETTLEMENT.verify_key))
ALICE, NOBODY, BEYOND = 1, 9, 15


class Deployment:
    """Two shards with a busy log each, of which settlement has signed some; proofs of what it signed last."""

    def __init__(self, root: Path) -> None:
        self.genesis: Genesis = signed_genesis(SHARDS)
        self.paths = DataPaths(root)
        self.store = StreamsStore()
        self.builders = [built_log(self.genesis, self.store, shard=shard) for shard in range(SHARDS)]
        self.settling = Settling(self.paths, self.genesis, self.store)
        self.settling.start()
        self.clock = FakeClock()
        self.states = CheckpointStates(self.paths, self.genesis, self.store, lambda: self.clock.ms() / 1_000)

    def proof(self, account_id: int) -> bytes:
        log = SettlementLog(self.paths.checkpoints_log, SHARDS)
        log.poll()
        number = len(log) - 1
        checkpoint = log.get(number)
        found = self.states.account(account_id, CheckpointLeaf.decode(checkpoint.leaf, number))
        hashes = log.tree.inclusion_proof(number, number + 1)
        return msgspec.json.encode(make_balance_proof(account_id, number, checkpoint, hashes, found))


@pytest.fixture
def deployment(tmp_path: Path) -> Any:
    deployment = Deployment(tmp_path)
    yield deployment
    deployment.settling.kill()


def _amounts(account: ProvenAccount) -> list[list[tuple[int, int, int]]]:
    return [[(one.asset_id, one.available, one.held) for one in shard.balances] for shard in account.shards]


def _of_engine(builder: LogBuilder, account_id: int) -> list[tuple[int, int, int]]:
    return [(one.asset_id, one.available, one.held) for one in builder.engine.balances(account_id)]


def test_it_proves_the_balances_of_every_shard(deployment: Deployment) -> None:
    deployment.settling.second()
    for account_id in range(4):
        proven = verify_balance_proof(deployment.proof(account_id), KEY, account_id)
        assert _amounts(proven) == [_of_engine(one, account_id) for one in deployment.builders]
        assert all(shard.is_open for shard in proven.shards)
    total = verify_balance_proof(deployment.proof(ALICE), KEY, ALICE).balances()
    assert total[1].available == sum(
        one.available
        for builder in deployment.builders
        for one in builder.engine.balances(ALICE)
        if one.asset_id == 1
    )


def test_it_is_of_the_checkpoint_though_the_log_goes_on(deployment: Deployment) -> None:
    deployment.settling.second()
    signed = [_of_engine(one, ALICE) for one in deployment.builders]
    for builder in deployment.builders:
        builder.trade()
    proven = verify_balance_proof(deployment.proof(ALICE), KEY, ALICE)
    assert _amounts(proven) == signed
    deployment.settling.second()
    later = verify_balance_proof(deployment.proof(ALICE), KEY, ALICE)
    assert later.checkpoint == proven.checkpoint + 1
    assert _amounts(later) == [_of_engine(one, ALICE) for one in deployment.builders] != signed


def test_it_begins_with_the_newest_snapshot(deployment: Deployment) -> None:
    """Nothing of the log that a snapshot covers is read."""
    for _ in range(30):
        for builder in deployment.builders:
            builder.trade()
        deployment.settling.second()
    newest = max(int(path.name.split(".")[0]) for path in deployment.paths.snapshots(0).iterdir())
    deployment.proof(ALICE)
    deployment.store.commands.clear()
    deployment.clock.pause_ms(int(IDLE_S * 1_000) + 1)
    deployment.states.sweep()
    proven = verify_balance_proof(deployment.proof(ALICE), KEY, ALICE)
    assert _amounts(proven) == [_of_engine(one, ALICE) for one in deployment.builders]
    oldest_only = 4  # entries of a look at where the log begins
    reads = [
        one
        for one in deployment.store.commands
        if one[:2] == ("XRANGE", log_key(0)) and one[-1] != oldest_only
    ]
    assert reads
    assert all(int(one[2].rpartition("-")[2]) >= newest - 1 for one in reads)


def test_accounts_that_are_not_open_are_proved_to_have_nothing(deployment: Deployment) -> None:
    builder = deployment.builders[0]
    builder.append(builder.operator(open_account(bytes(SigningKey(bytes(32)).verify_key), NOBODY + 1)))
    deployment.settling.second()
    for account_id in (NOBODY, BEYOND):
        proven = verify_balance_proof(deployment.proof(account_id), KEY, account_id)
        assert not any(shard.is_open or shard.balances for shard in proven.shards)
        assert proven.balances() == {}


def test_a_log_that_does_not_give_what_was_signed_is_noticed(deployment: Deployment) -> None:
    deployment.settling.second()
    log = SettlementLog(deployment.paths.checkpoints_log, SHARDS)
    log.poll()
    leaf = CheckpointLeaf.decode(log.get(0).leaf, 0)
    wrong = msgspec.structs.replace(
        leaf, shards=tuple(msgspec.structs.replace(tip, state_root=bytes(32)) for tip in leaf.shards)
    )
    with pytest.raises(Mismatch, match="state root"):
        deployment.states.account(ALICE, wrong)
    deployment.states.account(ALICE, leaf)  # what was in doubt was thrown away


def test_every_altered_byte_is_noticed(deployment: Deployment) -> None:
    deployment.settling.second()
    proof = deployment.proof(ALICE)
    verify_balance_proof(proof, KEY, ALICE)
    for position in range(len(proof)):
        for bit in (0, 5):
            altered = bytearray(proof)
            altered[position] ^= 1 << bit
            with pytest.raises(BalanceProofInvalid):
                verify_balance_proof(bytes(altered), KEY, ALICE)


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: proof["shards"].pop(),
        lambda proof: proof["shards"].reverse(),
        lambda proof: proof["shards"].append(proof["shards"][0]),
        lambda proof: proof["shards"][0].update(leaf=None),
        lambda proof: proof["shards"][0].update(leaf=None, hashes=[]),
        lambda proof: proof["shards"][0].update(leaf=proof["shards"][1]["leaf"]),
        lambda proof: proof["shards"][0]["subtrees"].pop(),
        lambda proof: proof["shards"][0]["hashes"].append("00" * 32),
        lambda proof: proof["shards"][0]["hashes"].pop(),
        lambda proof: proof["hashes"].append("00" * 32),
        lambda proof: proof["shards"][0]["subtrees"][1].update(leaves="1"),
        lambda proof: proof.update(account_id="2"),
        lambda proof: proof.update(checkpoint="1"),
        lambda proof: proof.update(extra=1),
        lambda proof: proof.update(leaf=base64.b64encode(b"ZXC1").decode()),
        lambda proof: proof.update(leaf="?"),
    ],
)
def test_what_is_put_together_from_parts_is_refused(
    deployment: Deployment, change: Callable[[Any], object]
) -> None:
    for builder in deployment.builders[:1]:
        builder.trade()
    deployment.settling.second()
    proof = msgspec.json.decode(deployment.proof(ALICE))
    change(proof)
    with pytest.raises(BalanceProofInvalid):
        verify_balance_proof(msgspec.json.encode(proof), KEY, ALICE)


def test_another_account_or_another_key_is_refused(deployment: Deployment) -> None:
    deployment.settling.second()
    proof = deployment.proof(ALICE)
    with pytest.raises(BalanceProofInvalid, match="about account 1"):
        verify_balance_proof(proof, KEY, 2)
    with pytest.raises(BalanceProofInvalid):
        verify_balance_proof(proof, NoteKey(KEY.name, bytes(32)), ALICE)
    with pytest.raises(BalanceProofInvalid, match="no proof"):
        verify_balance_proof(b"[]", KEY, ALICE)
