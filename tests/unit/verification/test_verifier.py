"""The full verification: agrees with an honest exchange, and names the record in every forged one."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest
from nacl.signing import SigningKey

from tests.log_builder import SETTLEMENT, LogBuilder, StreamsStore, built_log, signed_genesis
from tests.model.kit import EngineClass, engine_named
from tests.settling import SETTINGS, Settling
from zexchange.genesis import Genesis, parse_genesis
from zexchange.log import journal
from zexchange.log.archive import segments
from zexchange.log.journal import EntryId, log_key
from zexchange.reference import ReferenceEngine
from zexchange.runtime.paths import DataPaths
from zexchange.settlement.publication import CHECKPOINTS_KEY
from zexchange.verification.checkpoint import (
    CheckpointJournal,
    CheckpointLeaf,
    CheckpointReader,
    LastSigned,
    SignedCheckpoint,
    encode_entry,
    origin_of,
)
from zexchange.verification.merkle import CompactRange, leaf_hash
from zexchange.verification.note import NoteInvalid, TreeHead, sign_note
from zexchange.verification.replica import Mismatch, SignatureCheck, verify_signatures
from zexchange.verification.verifier import (
    CheckpointMismatch,
    Report,
    kept_checkpoint,
    verify,
    verify_signatures_plainly,
)


class Exchange(NamedTuple):
    """What an exchange has left behind."""

    paths: DataPaths
    genesis: Genesis
    store: StreamsStore
    builder: LogBuilder
    settling: Settling

    def verify(
        self,
        engine_class: EngineClass = ReferenceEngine,
        check_signatures: SignatureCheck = verify_signatures_plainly,
    ) -> Report:
        return verify(self.paths, self.store, self.genesis, engine_class, check_signatures=check_signatures)

    def mismatch(self) -> Mismatch:
        with pytest.raises(Mismatch) as caught:
            self.verify()
        assert str(caught.value.record_no) in str(caught.value)
        return caught.value

    def checkpoints(self) -> list[SignedCheckpoint]:
        with open(self.paths.checkpoints_log, "rb") as file:
            return list(CheckpointReader(file, self.genesis.shards))

    def resign(self, change: Callable[[CheckpointLeaf], CheckpointLeaf], n: int) -> None:
        """Forges checkpoint n with the real key, and all that follow, so that signatures, tree and links are
        right.
        """
        leaves = [CheckpointLeaf.decode(one.leaf, index) for index, one in enumerate(self.checkpoints())]
        leaves[n] = change(leaves[n])
        tree, previous, entries = CompactRange(), bytes(32), []
        origin = origin_of(self.genesis.name)
        for leaf in leaves:
            data = msgspec.structs.replace(leaf, previous_leaf_hash=previous).encode()
            previous = leaf_hash(data)
            tree.append(previous)
            note = sign_note(TreeHead(origin, tree.size, tree.root()).text(), origin, SETTLEMENT)
            entries.append(encode_entry(SignedCheckpoint(data, note)))
        self.paths.checkpoints_log.write_bytes(b"".join(entries))
        last = LastSigned(size=tree.size, root=tree.root().hex(), leaf=data.hex())
        self.paths.last_signed.write_bytes(msgspec.json.encode(last))
        self.store.streams.pop(CHECKPOINTS_KEY)


def exchange(paths: DataPaths, seconds: int, shards: int = 1, archived: bool = False) -> Exchange:
    """A log of some seconds: a batch of three records in each, and a checkpoint behind it."""
    genesis = signed_genesis(shards)
    store = StreamsStore()
    quiet = msgspec.structs.replace(SETTINGS, segment_every_records=2**40)
    settling = Settling(paths, genesis, store, SETTINGS if archived else quiet)
    builders = [LogBuilder(genesis, store, shard) for shard in range(shards)]
    settling.start()
    settling.second()
    for builder in builders:
        builder.open_epoch()
        builder.fund()
    for second in range(seconds):
        builders[second % shards].trade()
        settling.second()
    settling.stop()
    return Exchange(paths, genesis, store, builders[0], settling)


@pytest.fixture
def small(paths: DataPaths) -> Exchange:
    """Records 1 to 19 in the log, nothing archived; checkpoints of the sizes 1, 8, 11, 14, 17, 20, 20."""
    return exchange(paths, 5)


@pytest.fixture
def archived(paths: DataPaths) -> Exchange:
    """Records 1 to 94, most of them only in segments."""
    made = exchange(paths, 30, archived=True)
    assert len(segments(paths, 0)) > 3
    assert not made.store.entries(log_key(0))[0][0].endswith("-0")
    return made


@pytest.mark.parametrize("engine", ["reference", "c"])
def test_an_honest_exchange(archived: Exchange, engine: str) -> None:
    check = verify_signatures if engine == "c" else verify_signatures_plainly
    report = archived.verify(engine_named(engine), check)
    assert report.records == 94 == report.covered_records
    assert report.commands == archived.builder.engine.next_seq - 1
    assert report.trades == archived.builder.engine.next_trade_id - 1 > 0
    assert report.checkpoints == 32
    assert report.compared_roots == 31
    assert report.shards[0].state_root == archived.builder.engine.state_root()
    assert report.deployment_id == archived.genesis.deployment_id


def test_several_shards(paths: DataPaths) -> None:
    made = exchange(paths, 12, shards=3, archived=True)
    report = made.verify()
    assert report.records == 3 * (4 + 12)
    assert [shard.records for shard in report.shards] == [16, 16, 16]


def test_before_the_first_record(paths: DataPaths) -> None:
    genesis = signed_genesis()
    made = Exchange(
        paths,
        genesis,
        StreamsStore(),
        LogBuilder(genesis, StreamsStore()),
        Settling(paths, genesis, StreamsStore()),
    )
    report = made.verify()
    assert (report.records, report.checkpoints) == (0, 0)


def test_while_the_exchange_runs(small: Exchange) -> None:
    """Records and checkpoints that come later, or are half written, disturb nobody."""
    small.builder.trade()
    assert small.verify().records == 22
    small.settling.start()
    small.settling.second()
    whole = small.paths.checkpoints_log.read_bytes()
    entry = len(encode_entry(small.checkpoints()[-1]))
    assert small.verify().checkpoints == 8
    small.store.streams[CHECKPOINTS_KEY].pop()
    for cut in (0, 1, 100, entry - 1, entry):
        small.paths.checkpoints_log.write_bytes(whole[: len(whole) - cut])
        assert small.verify().checkpoints == (8 if cut == 0 else 7)
    small.settling.kill()


def test_progress_is_told(small: Exchange) -> None:
    told: list[tuple[int, int, int]] = []
    verify(
        small.paths,
        small.store,
        small.genesis,
        ReferenceEngine,
        check_signatures=verify_signatures_plainly,
        progress=lambda *step: told.append(step),
    )
    assert told[-1] == (0, 19, 19)


# ------------------------------------------------------------ the log


def test_one_flipped_byte_in_a_frame(small: Exchange) -> None:
    entry_id = small.builder.ids[3]
    whole = small.store.raw(0, entry_id)
    frames = list(journal.iter_frames(journal.decode_batch(whole).body))
    start = journal.BATCH_HEADER_BYTES
    for index, frame in enumerate(frames):
        for offset in range(0, len(frame), 5):
            raw = bytearray(whole)
            raw[start + offset] ^= 0x02
            small.store.set_raw(0, entry_id, bytes(raw))
            assert small.mismatch().record_no == entry_id.record_no + index
        start += len(frame)


def test_a_dropped_batch(small: Exchange) -> None:
    for entry_id in small.builder.ids:
        stream = list(small.store.streams[log_key(0)])
        small.store.drop(0, entry_id)
        assert small.mismatch().record_no == entry_id.record_no
        small.store.streams[log_key(0)] = stream


def test_two_swapped_batches(small: Exchange) -> None:
    one, two = small.builder.ids[3:5]
    raw_one, raw_two = small.store.raw(0, one), small.store.raw(0, two)
    small.store.set_raw(0, one, raw_two)
    small.store.set_raw(0, two, raw_one)
    assert small.mismatch().record_no == one.record_no


def test_a_removed_tail(small: Exchange) -> None:
    for entry_id in small.builder.ids[:-3:-1]:
        small.store.drop(0, entry_id)
        error = small.mismatch()
        assert error.record_no == entry_id.record_no
        assert isinstance(error, CheckpointMismatch)
    small.store.streams[log_key(0)].clear()
    assert small.mismatch().record_no == 1


def test_a_rewritten_history(small: Exchange) -> None:
    """The operator rewrites a batch, and chain and checksums of all that follow: only the checkpoints show
    it.
    """
    other = StreamsStore()
    builder = LogBuilder(small.genesis, other)
    builder.open_epoch()
    builder.fund()
    builder.trade(2)
    builder.trade(2)
    builder.trade(1)
    assert builder.state.next_record_no == small.builder.state.next_record_no
    small.store.streams[log_key(0)] = other.streams[log_key(0)]
    error = small.mismatch()
    assert "checkpoint" in error.what
    assert error.record_no == 10


def test_a_truncated_log_is_no_shorter_exchange(small: Exchange) -> None:
    """Also when the newest checkpoints are gone with it, `last_signed.json` tells."""
    small.store.drop(0, small.builder.ids[-1])
    entries = [encode_entry(one) for one in small.checkpoints()]
    small.paths.checkpoints_log.write_bytes(b"".join(entries[:-2]))
    assert small.mismatch().what.endswith("size in last_signed.json") or "copy" in small.mismatch().what


# ------------------------------------------------------------ the archive


def test_an_altered_segment(archived: Exchange) -> None:
    for ref in segments(archived.paths, 0)[:3]:
        whole = ref.path.read_bytes()
        for position in (0, 50, 120, len(whole) // 2, len(whole) - 40, len(whole) - 1):
            changed = bytearray(whole)
            changed[position] ^= 0x40
            ref.path.write_bytes(changed)
            assert ref.first_record_no <= archived.mismatch().record_no <= ref.last_record_no
        ref.path.write_bytes(whole)


def test_a_missing_segment(archived: Exchange) -> None:
    ref = segments(archived.paths, 0)[1]
    ref.path.unlink()
    assert archived.mismatch().record_no == ref.first_record_no


def test_a_segment_that_was_sealed_again(archived: Exchange) -> None:
    """Signatures are not forged, but a batch is left out and the file's numbers and hash made to fit."""
    ref = segments(archived.paths, 0)[0]
    whole = ref.path.read_bytes()
    head = 92
    (length,) = struct.unpack_from("<I", whole, head)
    content = whole[:head] + whole[head + 4 + length : -32]
    ref.path.write_bytes(content + hashlib.sha256(content).digest())
    assert archived.mismatch().record_no == 1


def test_the_log_and_its_copy_in_the_archive(archived: Exchange) -> None:
    """A batch that both have is compared, so a change in either is found."""
    first = EntryId.parse(archived.store.entries(log_key(0))[0][0])
    raw = bytearray(archived.store.raw(0, first))
    raw[100] ^= 1
    archived.store.set_raw(0, first, bytes(raw))
    assert archived.mismatch().record_no == first.record_no


# ------------------------------------------------------------ the checkpoints


def test_every_byte_of_the_checkpoints_counts(small: Exchange) -> None:
    whole = small.paths.checkpoints_log.read_bytes()
    for position in range(0, len(whole), 41):
        changed = bytearray(whole)
        changed[position] ^= 0x01
        small.paths.checkpoints_log.write_bytes(changed)
        error = small.mismatch()
        assert isinstance(error, CheckpointMismatch)
        assert error.n == position // (len(whole) // 7)


@pytest.mark.parametrize("field", ["log_root", "chain", "state_root"])
def test_a_root_that_the_exchange_forged(small: Exchange, field: str) -> None:
    """Everything about the checkpoint is right but one root of the shard."""

    def change(leaf: CheckpointLeaf) -> CheckpointLeaf:
        tip = msgspec.structs.replace(leaf.shards[0], **{field: bytes(32)})
        return msgspec.structs.replace(leaf, shards=(tip,))

    small.resign(change, 3)
    error = small.mismatch()
    assert error.record_no == 13
    assert error.what == f"{field.replace('_', ' ')} of checkpoint 3"


def test_a_checkpoint_inside_a_batch(small: Exchange) -> None:
    def change(leaf: CheckpointLeaf) -> CheckpointLeaf:
        tip = msgspec.structs.replace(leaf.shards[0], log_size=13)
        return msgspec.structs.replace(leaf, shards=(tip,))

    small.resign(change, 3)
    assert "inside" in str(small.mismatch())


def test_more_than_the_log_has(small: Exchange) -> None:
    def change(leaf: CheckpointLeaf) -> CheckpointLeaf:
        tip = msgspec.structs.replace(leaf.shards[0], log_size=10_000)
        return msgspec.structs.replace(leaf, shards=(tip,))

    small.resign(change, 6)
    error = small.mismatch()
    assert error.record_no == 20
    assert "9999" in str(error)


def test_times_and_digests(small: Exchange) -> None:
    for changes, what in (
        ({"time_ns": 1}, "time"),
        ({"archive_digest": b"x" * 32}, "archive digest"),
        ({"attestation_hash": b"x" * 32}, "attestation"),
    ):
        stream = small.store.streams[CHECKPOINTS_KEY][:]
        whole = small.paths.checkpoints_log.read_bytes(), small.paths.last_signed.read_bytes()
        small.resign(lambda leaf, changes=changes: msgspec.structs.replace(leaf, **changes), 3)  # type: ignore[misc]
        assert what in small.mismatch().what
        small.paths.checkpoints_log.write_bytes(whole[0])
        small.paths.last_signed.write_bytes(whole[1])
        small.store.streams[CHECKPOINTS_KEY] = stream


def test_a_checkpoint_of_another_key(small: Exchange) -> None:
    tip = CheckpointLeaf.decode(small.checkpoints()[0].leaf, 0).shards[0]
    small.paths.checkpoints_log.unlink()
    small.paths.last_signed.unlink()
    small.store.streams.pop(CHECKPOINTS_KEY)
    with CheckpointJournal(small.paths.settlement, "test", 1, SigningKey(bytes(32))) as forger:
        forger.sign(forger.next_leaf(1, (tip,)))
    error = small.mismatch()
    assert isinstance(error, CheckpointMismatch)
    assert (error.n, error.record_no) == (0, 1)
    assert "note" in error.what


def test_the_stores_copy(small: Exchange) -> None:
    stream = small.store.streams[CHECKPOINTS_KEY]
    whole = stream[:]
    entry_id, fields = stream[2]
    stream[2] = (entry_id, {**fields, b"note": fields[b"note"] + b"x"})
    assert "copy in the store" in small.mismatch().what
    stream[2] = (entry_id, {b"leaf": fields[b"leaf"]})
    small.mismatch()
    small.store.streams[CHECKPOINTS_KEY] = [*whole, ((99, 0), whole[-1][1])]
    assert "copy in the store" in small.mismatch().what
    small.store.streams[CHECKPOINTS_KEY] = whole[3:]
    assert small.verify().checkpoints == 7, "the stream is trimmed"


def test_the_log_is_reported_before_the_checkpoints(small: Exchange) -> None:
    raw = bytearray(small.store.raw(0, small.builder.ids[-1]))
    raw[100] ^= 1
    small.store.set_raw(0, small.builder.ids[-1], bytes(raw))
    small.paths.checkpoints_log.write_bytes(b"rubbish")
    assert small.mismatch().record_no == small.builder.ids[-1].record_no


def test_missing_files_of_settlement(small: Exchange) -> None:
    small.paths.last_signed.unlink()
    assert "last_signed" in small.mismatch().what


def test_built_logs_verify_without_checkpoints(paths: DataPaths) -> None:
    genesis, store = signed_genesis(), StreamsStore()
    builder = built_log(genesis, store)
    made = Exchange(paths, genesis, store, builder, Settling(paths, genesis, store))
    report = made.verify()
    assert (report.records, report.covered_records, report.checkpoints) == (16, 0, 0)
    assert report.uncovered_records == 16
    assert "nothing was compared" in report.warnings[0]


@pytest.mark.parametrize("traces", ["archived segments", "snapshots"])
def test_all_checkpoints_removed(paths: DataPaths, traces: str) -> None:
    """Segments and snapshots are only written behind a checkpoint."""
    made = exchange(paths, 12, archived=traces == "archived segments")
    for path in made.paths.settlement.iterdir():
        path.unlink()
    made.store.streams[CHECKPOINTS_KEY].clear()
    found = made.mismatch()
    assert (found.record_no, found.found) == (1, "none")
    assert traces in found.expected


def test_the_genesis_file_was_edited(small: Exchange) -> None:
    """Told at the first checkpoint, which is of a log without records, or else at the first batch."""
    edited = small._replace(genesis=parse_genesis(small.genesis.raw + b"# a remark\n"))
    found = edited.mismatch()
    assert (found.record_no, found.what) == (1, "chain of checkpoint 0")
    assert (found.expected, found.found) == (
        edited.genesis.deployment_id.hex(),
        small.genesis.deployment_id.hex(),
    )
    assert "genesis.toml" in found.hint
    small.paths.checkpoints_log.unlink()
    found = edited.mismatch()
    assert (found.record_no, found.what) == (1, "chain before")
    assert "genesis.toml" in str(found)


def test_kept_checkpoints(small: Exchange) -> None:
    notes = [one.note for one in small.checkpoints()]
    kept = {str(n): kept_checkpoint(str(n), note, small.genesis) for n, note in enumerate(notes)}

    def check(kept: dict[str, TreeHead]) -> Report:
        return verify(
            small.paths,
            small.store,
            small.genesis,
            ReferenceEngine,
            check_signatures=verify_signatures_plainly,
            kept=kept,
        )

    assert check(kept).newest_note == notes[-1]
    forged = msgspec.structs.replace(kept["3"], root=bytes(32))
    with pytest.raises(CheckpointMismatch, match="root in mine") as caught:
        check({**kept, "mine": forged})
    assert (caught.value.n, caught.value.found) == (3, bytes(32).hex())
    with pytest.raises(CheckpointMismatch, match="at least 8, as in later, found 7"):
        check({"later": msgspec.structs.replace(kept["6"], size=8)})
    with pytest.raises(NoteInvalid):
        kept_checkpoint("none", b"rubbish", small.genesis)
    origin = origin_of(small.genesis.name)
    other = sign_note(TreeHead(origin, 1, bytes(32)).text(), origin, SigningKey(bytes(32)))
    with pytest.raises(Mismatch, match="signature of other"):
        kept_checkpoint("other", other, small.genesis)
    with pytest.raises(Mismatch, match="origin of witness"):
        kept_checkpoint(
            "witness",
            sign_note(TreeHead("elsewhere", 1, bytes(32)).text(), origin, SETTLEMENT),
            small.genesis,
        )
