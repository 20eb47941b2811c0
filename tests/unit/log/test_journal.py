"""The log: its bytes, how a reader follows it, and the protocol that keeps one writer the only one."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterable

import pytest

from tests.fakes import FakeClock, FakeStore
from zexchange.config import Config
from zexchange.log import journal
from zexchange.log.journal import (
    START,
    BatchInvalid,
    ChainState,
    EntryId,
    LogBatch,
    LogReader,
    chain_after_of,
    check_follows,
    decode_batch,
    encode_batch,
    events_hash,
    iter_frames,
    log_key,
)
from zexchange.log.stream import StoreRefused, StoreUnavailable, one_connection
from zexchange.log.writer import Fenced, LogEmpty, LogWriter, Retry
from zexchange.runtime.paths import DataPaths
from zexchange.runtime.store import EmbeddedStore, open_store
from zexchange.wire.messages import EpochOpen, Sequence

DEPLOYMENT = bytes(range(32))
GENESIS = ChainState.genesis(DEPLOYMENT)
KEY = log_key(0)


def frame(number: int) -> bytes:
    """Any well-framed message will do for the log."""
    return Sequence(next_seq_no=number).encode()


def opening(state: ChainState, epoch: int) -> bytes:
    return EpochOpen(
        epoch=epoch, tip_epoch=state.epoch, tip_record_no=state.next_record_no - 1, tip_chain=state.chain
    ).encode()


def batch_after(
    state: ChainState, body: bytes, *, epoch: int | None = None, time_ns: int | None = None
) -> bytes:
    return encode_batch(
        shard=0,
        epoch=epoch or state.epoch,
        first_record_no=state.next_record_no,
        first_seq=state.next_seq or 1,
        count=sum(1 for _ in iter_frames(body)),
        log_time_ns=time_ns or state.log_time_ns + 1,
        chain_before=state.chain,
        body=body,
        events_hash=events_hash(b""),
    )


def follow(state: ChainState, raw: bytes) -> ChainState:
    batch = decode_batch(raw)
    check_follows(state, batch)
    return state.after(batch, state.next_seq)


def follow_all(raws: Iterable[bytes]) -> ChainState:
    state = GENESIS
    for raw in raws:
        state = follow(state, raw)
    return state


def make_log(batches: int) -> list[bytes]:
    """Epoch 1, opened, with so many batches of two frames."""
    raws = [batch_after(GENESIS, opening(GENESIS, 1), epoch=1)]
    state = follow(GENESIS, raws[0])
    for number in range(batches):
        raws.append(batch_after(state, frame(2 * number) + frame(2 * number + 1)))
        state = follow(state, raws[-1])
    return raws


# ------------------------------------------------ bytes ------------------------------------------------


def test_batch_is_laid_out_as_documented() -> None:
    body = frame(1) + frame(2)
    raw = encode_batch(
        shard=3,
        epoch=4,
        first_record_no=5,
        first_seq=6,
        count=2,
        log_time_ns=7,
        chain_before=DEPLOYMENT,
        body=body,
        events_hash=bytes(32),
    )
    assert raw[:4] == b"ZXB1"
    assert struct.unpack_from("<HHQQQIIQ", raw, 4) == (1, 3, 4, 5, 6, 2, len(body), 7)
    assert raw[48:80] == DEPLOYMENT
    assert raw[80 : 80 + len(body)] == body
    assert len(raw) == 80 + len(body) + 68
    assert raw[-4:] == zlib.crc32(raw[:-4]).to_bytes(4, "little")
    assert chain_after_of(raw) == raw[-36:-4] == journal.chain_hash(DEPLOYMENT, raw[:-36])


def test_decode_gives_back_what_was_encoded() -> None:
    raw = make_log(1)[1]
    batch = decode_batch(memoryview(raw), shard=0)
    assert (batch.epoch, batch.first_record_no, batch.count, batch.next_record_no) == (1, 2, 2, 4)
    assert list(iter_frames(batch.body)) == [frame(0), frame(1)]
    assert batch.raw == raw
    assert batch.id == EntryId(1, 2)


def test_flip_of_any_bit_is_detected() -> None:
    raw = make_log(1)[1]
    for position in range(len(raw)):
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[position] ^= 1 << bit
            with pytest.raises(BatchInvalid):
                decode_batch(damaged)


def test_flip_under_a_right_checksum_is_detected() -> None:
    """Every field is bound by the chain value, not only by the CRC that anybody can recompute."""
    raw = make_log(1)[1]
    for position in range(len(raw) - 4):
        damaged = bytearray(raw[:-4])
        damaged[position] ^= 1
        damaged += zlib.crc32(damaged).to_bytes(4, "little")
        with pytest.raises(BatchInvalid):
            decode_batch(damaged)


def test_every_truncation_and_extension_is_detected() -> None:
    raw = make_log(1)[1]
    for length in range(len(raw)):
        with pytest.raises(BatchInvalid):
            decode_batch(raw[:length])
    with pytest.raises(BatchInvalid):
        decode_batch(raw + b"\0")


def test_batch_that_is_too_large_is_refused_on_both_sides() -> None:
    with pytest.raises(ValueError, match="at most"):
        batch_after(GENESIS, frame(1) * (journal.MAX_BODY_BYTES // len(frame(1)) + 1), epoch=1)
    with pytest.raises(BatchInvalid, match="larger"):
        decode_batch(bytes(journal.MAX_BATCH_BYTES + 1))


def test_body_whose_frames_do_not_add_up_is_refused() -> None:
    for body, count in ((frame(1), 2), (frame(1) + b"\0" * 5, 1), (frame(1)[:-1], 1), (b"", 0)):
        with pytest.raises(BatchInvalid) as caught:
            decode_batch(
                encode_batch(
                    shard=0,
                    epoch=1,
                    first_record_no=10,
                    first_seq=1,
                    count=count,
                    log_time_ns=1,
                    chain_before=DEPLOYMENT,
                    body=body,
                    events_hash=bytes(32),
                )
            )
        assert caught.value.record_no in (10, 11)


def test_batch_of_another_shard_is_refused() -> None:
    with pytest.raises(BatchInvalid, match="shard"):
        decode_batch(make_log(0)[0], shard=1)


# ------------------------------------------------ chain ------------------------------------------------


def test_log_follows_from_genesis() -> None:
    state = GENESIS
    for raw in make_log(3):
        state = follow(state, raw)
    assert state.next_record_no == 8


def test_dropped_swapped_and_repeated_batches_are_detected() -> None:
    first, second, third, fourth = make_log(3)
    for order in (
        (first, third),
        (first, third, second),
        (first, second, second),
        (second,),
        (first, fourth),
    ):
        with pytest.raises(BatchInvalid) as caught:
            follow_all(order)
        assert caught.value.record_no is not None


def test_log_time_must_advance() -> None:
    state = follow(GENESIS, batch_after(GENESIS, opening(GENESIS, 1), epoch=1, time_ns=50))
    with pytest.raises(BatchInvalid, match="log time"):
        follow(state, batch_after(state, frame(1), time_ns=50))


def test_seq_must_continue_where_it_is_known() -> None:
    state = follow(GENESIS, make_log(0)[0])
    raw = batch_after(state, frame(1))
    with pytest.raises(BatchInvalid, match="seq"):
        check_follows(ChainState(1, 2, 5, state.chain, state.log_time_ns), decode_batch(raw))
    check_follows(ChainState(1, 2, None, state.chain, state.log_time_ns), decode_batch(raw))


def test_epoch_must_be_opened_with_the_true_tip() -> None:
    state = GENESIS
    for raw in make_log(2):
        state = follow(state, raw)
    follow(state, batch_after(state, opening(state, 3) + frame(1), epoch=3))
    with pytest.raises(BatchInvalid, match="opening record"):
        follow(state, batch_after(state, frame(1), epoch=2))
    for wrong in (
        ChainState(0, state.next_record_no, 1, state.chain),
        ChainState(1, state.next_record_no - 1, 1, state.chain),
        ChainState(1, state.next_record_no, 1, bytes(32)),
    ):
        with pytest.raises(BatchInvalid, match="another tip"):
            follow(state, batch_after(state, opening(wrong, 2), epoch=2))
    with pytest.raises(BatchInvalid, match="another tip"):
        follow(state, batch_after(state, opening(state, 3), epoch=2))
    with pytest.raises(BatchInvalid, match="middle"):
        follow(state, batch_after(state, frame(1) + opening(state, 1)))
    with pytest.raises(BatchInvalid, match="middle"):
        follow(state, batch_after(state, opening(state, 2) + opening(state, 2), epoch=2))


def test_epoch_never_goes_back() -> None:
    state = follow(GENESIS, batch_after(GENESIS, opening(GENESIS, 2), epoch=2))
    with pytest.raises(BatchInvalid, match="epoch 1"):
        follow(state, batch_after(state, frame(1), epoch=1))


# ------------------------------------------------ reading ------------------------------------------------


def stored_log(batches: int) -> FakeStore:
    store = FakeStore()
    store.execute_command("XADD", KEY, "1-0", "m", b"1")
    for raw in make_log(batches):
        store.execute_command("XADD", KEY, str(decode_batch(raw).id), "b", raw)
    return store


@pytest.mark.parametrize("block_ms", [None, 10])
def test_reader_pages_through_markers_and_batches(block_ms: int | None) -> None:
    reader = LogReader(stored_log(3), 0)
    seen = []
    after = START
    while entries := reader.read(after, 2, block_ms):
        seen += entries
        after = entries[-1].id
    assert [str(entry.id) for entry in seen] == ["1-0", "1-1", "1-2", "1-4", "1-6"]
    assert [entry.is_marker for entry in seen] == [True, False, False, False, False]
    first, tip = reader.first(), reader.tip()
    assert first == seen[0]
    assert tip == seen[-1]


def test_reader_of_an_empty_log_finds_nothing() -> None:
    reader = LogReader(FakeStore(), 0)
    assert reader.read(START, 10) == reader.read(START, 10, 5) == []
    assert reader.first() is reader.tip() is None


@pytest.mark.parametrize(
    ("entry_id", "field", "value"),
    [
        ("1-0", b"m", b"2"),
        ("1-0", b"x", b"1"),
        ("1-1", b"m", b"1"),
        ("1-1", b"b", b"short"),
        ("1-2", b"b", make_log(0)[0]),
    ],
)
def test_reader_refuses_what_is_no_entry_of_the_log(entry_id: str, field: bytes, value: bytes) -> None:
    store = stored_log(1)
    store.replace(KEY, entry_id, field, value)
    with pytest.raises(BatchInvalid):
        LogReader(store, 0).read(START, 10)


# ------------------------------------------------ writing ------------------------------------------------


class Writer:
    """A writer with the log state that a matcher keeps beside it."""

    def __init__(self, store: FakeStore, *, give_up_after_ms: int = 10_000) -> None:
        self.clock = FakeClock()
        retry = Retry(clock_ms=self.clock.ms, pause_ms=self.clock.pause_ms, give_up_after_ms=give_up_after_ms)
        self.log = LogWriter(store, 0, retry)
        self.store = store
        self.acknowledged: list[bytes] = []
        self.state = GENESIS

    def start(self, *, allow_empty: bool = True) -> Writer:
        self.log.take_over(allow_empty=allow_empty)
        for entry in LogReader(self.store, 0).read(START, 1000):
            if entry.batch is not None:
                self.state = follow(self.state, entry.batch.raw)
        self.write(opening(self.state, self.log.epoch))
        return self

    def write(self, body: bytes) -> bytes:
        raw = batch_after(self.state, body, epoch=self.log.epoch)
        self.log.append(self.state.next_record_no, raw)
        self.acknowledged.append(raw)
        self.state = follow(self.state, raw)
        return raw


def stored(store: FakeStore) -> list[LogBatch]:
    """All batches, checked from genesis."""
    state, batches = GENESIS, []
    for entry in LogReader(store, 0).read(START, 1000):
        if entry.batch is not None:
            state = follow(state, entry.batch.raw)
            batches.append(entry.batch)
    return batches


def assert_acknowledged_once(store: FakeStore, *writers: Writer) -> None:
    found = [batch.raw for batch in stored(store)]
    for writer in writers:
        for raw in writer.acknowledged:
            assert found.count(raw) == 1


def test_empty_log_needs_permission() -> None:
    store = FakeStore()
    with pytest.raises(LogEmpty):
        Writer(store).log.take_over()
    assert store.entries(KEY) == []
    Writer(store).start()
    assert [entry_id for entry_id, _ in store.entries(KEY)] == ["1-0", "1-1"]


def test_each_start_opens_the_next_epoch_behind_the_tip() -> None:
    store = FakeStore()
    first = Writer(store).start()
    first.write(frame(1) + frame(2))
    second = Writer(store).start(allow_empty=False)
    second.write(frame(3))
    assert [entry_id for entry_id, _ in store.entries(KEY)] == ["1-0", "1-1", "1-2", "2-0", "2-4", "2-5"]
    assert_acknowledged_once(store, first, second)


def test_start_that_never_opened_its_epoch_is_stepped_over() -> None:
    store = FakeStore()
    Writer(store).start()
    Writer(store).log.take_over()
    third = Writer(store).start()
    assert third.log.epoch == 3
    assert [batch.epoch for batch in stored(store)] == [1, 3]


def test_stale_writer_is_refused_by_the_store_and_told() -> None:
    store = FakeStore()
    stale = Writer(store).start()
    stale.write(frame(1))
    fresh = Writer(store)
    fresh.log.take_over()
    with pytest.raises(Fenced):
        stale.write(frame(2) * 50)
    assert len(stored(store)) == 2


def test_stale_writer_is_refused_after_the_new_one_wrote() -> None:
    store = FakeStore()
    stale = Writer(store).start()
    fresh = Writer(store).start()
    fresh.write(frame(1))
    with pytest.raises(Fenced):
        stale.write(frame(2))
    assert_acknowledged_once(store, stale, fresh)


def test_two_writers_taking_over_at_once_one_is_fenced() -> None:
    store = FakeStore()
    Writer(store).start()
    loser = Writer(store)
    store.before_add.append(lambda: store._add(KEY, "2-0", ("m", "2")))
    with pytest.raises(Fenced):
        loser.log.take_over()


FAULTS = [
    ["lost"],
    ["unheard"],
    ["late"],
    ["stale"],
    ["lost", "lost", "unheard"],
    ["late", "late", "stale"],
    ["stale", "unheard"],
    ["OOM command not allowed when used memory > 'maxmemory'."],
    ["MISCONF Errors writing to the AOF file: No space left on device", "lost"],
    ["LOADING the dataset is in memory", "unheard"],
    ["READONLY You can't write against a read only replica.", "late"],
]


@pytest.mark.parametrize("faults", FAULTS, ids=lambda faults: "+".join(text.split()[0] for text in faults))
@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_trouble_in_any_position_leaves_every_batch_exactly_once(faults: list[str], position: int) -> None:
    """Position 0 is the opening of the epoch, the others are ordinary batches."""
    store = FakeStore()
    writer = Writer(store)
    writer.log.take_over(allow_empty=True)
    if position == 0:
        store.faults = list(faults)
    writer.write(opening(writer.state, writer.log.epoch))
    for number in (1, 2, 3):
        if position == number:
            store.faults = list(faults)
        writer.write(frame(number))
    writer.write(frame(9))  # what a broken connection still held has arrived by now
    assert not store.faults
    assert [batch.raw for batch in stored(store)] == writer.acknowledged
    assert writer.clock.pauses_ms


@pytest.mark.parametrize("faults", [["lost"], ["unheard"], ["late"], ["stale"], ["OOM no room"]])
def test_trouble_with_the_marker_ends_with_one_owner(faults: list[str]) -> None:
    store = FakeStore()
    old = Writer(store).start()
    store.faults = list(faults)
    new = Writer(store)
    try:
        new.start()
    except Fenced:
        return  # its own marker came late and looked like a rival's: it ends, and starts again
    new.write(frame(1))
    with pytest.raises(Fenced):
        old.write(frame(2))
    assert_acknowledged_once(store, old, new)


def test_store_that_stays_away_is_given_up_and_nothing_is_acknowledged() -> None:
    store = FakeStore()
    writer = Writer(store, give_up_after_ms=1_000).start()
    store.faults = ["lost"] * 1_000
    with pytest.raises(StoreUnavailable):
        writer.write(frame(1))
    assert len(writer.acknowledged) == 1
    assert sum(writer.clock.pauses_ms) <= 1_000


def test_store_that_refuses_is_given_up_with_the_batch_unskipped() -> None:
    store = FakeStore()
    writer = Writer(store, give_up_after_ms=1_000).start()
    store.faults = ["OOM no room"] * 1_000
    with pytest.raises(StoreRefused, match="OOM"):
        writer.write(frame(1))
    tried = {args[2] for args in store.commands if args[0] == "XADD"}
    assert tried == {"1-0", "1-1", "1-2"}


def test_log_that_lost_its_end_is_noticed_at_the_next_doubt() -> None:
    store = FakeStore()
    writer = Writer(store).start()
    writer.write(frame(1))
    store.faults = ["lost"]
    store.after_read.append(lambda: None)
    store.streams[KEY].pop()
    with pytest.raises(Fenced):
        writer.write(frame(2))


def test_tip_with_our_id_but_other_bytes_is_not_ours() -> None:
    store = FakeStore()
    writer = Writer(store).start()
    other = batch_after(writer.state, frame(7))
    store.faults = ["lost"]
    store.before_add.append(lambda: store._add(KEY, "1-2", ("b", other)))
    with pytest.raises(Fenced):
        writer.write(frame(8))


def test_only_single_commands_reach_the_log() -> None:
    """A transaction, script or pipeline would go on behind a refused append."""
    store = FakeStore()
    store.faults = ["", "", "lost", "unheard"]
    Writer(store).start().write(frame(1))
    assert {args[0] for args in store.commands} <= {"XADD", "XREVRANGE", "XRANGE"}


# ------------------------------------------------ the real store
# ------------------------------------------------


def test_writer_and_reader_on_the_embedded_store(paths: DataPaths) -> None:
    config = Config()
    store = EmbeddedStore(paths, config)
    store.start()
    try:
        store.wait_ready()
        client, reader = open_store(paths, config), LogReader(open_store(paths, config), 0)
        clock = FakeClock()
        retry = Retry(clock_ms=clock.ms, pause_ms=clock.pause_ms)
        with pytest.raises(LogEmpty):
            LogWriter(client, 0, retry).take_over()
        state = GENESIS
        old = LogWriter(client, 0, retry)
        old.take_over(allow_empty=True)
        for body in (opening(state, 1), frame(1) + frame(2), frame(3)):
            raw = batch_after(state, body, epoch=1)
            old.append(state.next_record_no, raw)
            state = follow(state, raw)
        new = LogWriter(client, 0, retry)
        assert new.take_over() == EntryId(2, 0)
        with pytest.raises(Fenced):
            old.append(state.next_record_no, batch_after(state, frame(4)))
        new.append(state.next_record_no, batch_after(state, opening(state, 2), epoch=2))
        for block_ms in (None, 50):
            entries = reader.read(START, 100, block_ms)
            assert [str(entry.id) for entry in entries] == ["1-0", "1-1", "1-2", "1-4", "2-0", "2-5"]
            assert reader.read(entries[-1].id, 100, block_ms) == []
        tip = reader.tip()
        assert tip is not None
        assert tip.id == EntryId(2, 5)
        client.config_set("maxmemory", 1)
        refused = follow(state, batch_after(state, opening(state, 2), epoch=2))
        with pytest.raises(StoreRefused, match=r"maxmemory|OOM"):
            new.append(refused.next_record_no, batch_after(refused, frame(5)))
        client.config_set("maxmemory", 0)
    finally:
        store.stop()
    with pytest.raises(StoreUnavailable):
        reader.read(START, 1)


def test_store_that_comes_back_with_less_is_noticed_by_the_very_next_append(paths: DataPaths) -> None:
    """Nothing was in flight when it went: the lost connection alone must make the writer look at the tip."""
    config, clock = Config(), FakeClock()
    store = EmbeddedStore(paths, config)
    store.start()
    try:
        store.wait_ready()
        writer = LogWriter(
            one_connection(open_store(paths, config)), 0, Retry(clock_ms=clock.ms, pause_ms=clock.pause_ms)
        )
        writer.take_over(allow_empty=True)
        raw = batch_after(GENESIS, opening(GENESIS, 1), epoch=1)
        writer.append(1, raw)
        store.stop()
        shutil.rmtree(paths.store)
        paths.create()
        store.start()
        store.wait_ready()
        state = follow(GENESIS, raw)
        with pytest.raises(Fenced, match="empty"):
            writer.append(state.next_record_no, batch_after(state, frame(1)))
    finally:
        store.stop()
