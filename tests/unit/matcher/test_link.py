"""Messages between ingress and matcher: encoding, cutting into messages, and both ends' bookkeeping."""

from __future__ import annotations

import pytest

from gateway.links import PING_INTERVAL_MS, LinkBroken, ShardLink
from zexchange.limits import LINK_MESSAGE_BYTES_MAX
from zexchange.matcher import link
from zexchange.matcher.link import Entry, Kind, LinkMessageInvalid, Outbox

KEY = bytes(range(32))
ENTRIES = [
    Entry(Kind.OPEN, 1, KEY),
    Entry(Kind.BATCH, 1, b"frame"),
    Entry(Kind.QUERY, 2**64 - 1, b""),
    Entry(Kind.CLOSE, 1, b""),
    Entry(Kind.PING, 0, b""),
    Entry(Kind.OPENED, 1, link.OPENED.pack(5, 6)),
    Entry(Kind.FRAME, 1, b"report"),
    Entry(Kind.PONG, 0, link.PONG.pack(7)),
    Entry(Kind.UNKNOWN, 0, b""),
]


def message_of(*entries: Entry, instance: int = 9) -> bytes:
    outbox = Outbox(instance)
    for item in entries:
        outbox.add(link.entry(Kind(item.kind), item.session_id, item.payload))
    (message,) = outbox.take(3)
    return message


def test_message_gives_back_what_was_put_in() -> None:
    decoded = link.decode(message_of(*ENTRIES))
    assert (decoded.instance, decoded.seq, decoded.acked) == (9, 1, 3)
    assert decoded.entries == ENTRIES


def test_every_truncation_is_refused_or_a_shorter_message() -> None:
    whole = message_of(*ENTRIES)
    shorter = 0
    for length in range(len(whole)):
        try:
            decoded = link.decode(whole[:length])
        except LinkMessageInvalid:
            continue
        shorter += 1
        assert decoded.entries == ENTRIES[: len(decoded.entries)]
    assert shorter == len(ENTRIES)


@pytest.mark.parametrize(
    "bad",
    [
        link.entry(Kind.OPEN, 1, b"short"),
        link.entry(Kind.CLOSE, 1, b"x"),
        link.entry(Kind.PONG, 0, b""),
        link.ENTRY_HEADER.pack(0, 99, 1),
        link.ENTRY_HEADER.pack(2**32 - 1, Kind.BATCH, 1),
    ],
)
def test_entry_that_is_not_of_its_kind_is_refused(bad: bytes) -> None:
    with pytest.raises(LinkMessageInvalid):
        link.decode(link.HEADER.pack(1, 1, 0) + bad)


def test_outbox_numbers_messages_and_keeps_them_below_the_limit() -> None:
    outbox = Outbox(4)
    assert outbox.take() == []
    payload = bytes(LINK_MESSAGE_BYTES_MAX // 3)
    for _ in range(7):
        outbox.add(link.entry(Kind.BATCH, 1, payload))
    messages = outbox.take()
    assert [link.decode(message).seq for message in messages] == [1, 2, 3, 4]
    assert sum(len(link.decode(message).entries) for message in messages) == 7
    assert all(len(message) <= LINK_MESSAGE_BYTES_MAX for message in messages)
    assert not outbox


# ------------------------------------------------ the ingress end
# ------------------------------------------------


class FakeMatcher:
    """The other end: answers with numbered messages of the instance it has seen last."""

    def __init__(self, epoch: int = 1) -> None:
        self.epoch = epoch
        self.instance = 0
        self.seen = 0
        self.seq = 0

    def take(self, end: ShardLink) -> list[Entry]:
        entries = []
        while end.unsent:
            decoded = link.decode(end.unsent.popleft())
            if decoded.instance != self.instance:
                self.instance, self.seq = decoded.instance, 0
            self.seen = decoded.seq
            entries += decoded.entries
        return entries

    def say(self, *entries: Entry) -> bytes:
        self.seq += 1
        header = link.HEADER.pack(self.instance, self.seq, self.seen)
        return header + b"".join(link.entry(Kind(e.kind), e.session_id, e.payload) for e in entries)

    def pong(self) -> bytes:
        return self.say(Entry(Kind.PONG, 0, link.PONG.pack(self.epoch)))


def joined(max_in_flight_bytes: int = 10_000) -> tuple[ShardLink, FakeMatcher]:
    end, matcher = ShardLink(0, 77, max_in_flight_bytes), FakeMatcher()
    end.tick(0)
    end.end_turn()
    assert [item.kind for item in matcher.take(end)] == [Kind.PING]
    assert end.received(matcher.pong()) == []
    assert end.joined
    return end, matcher


def test_link_is_joined_by_the_first_pong_and_probed_from_then_on() -> None:
    end, matcher = joined()
    assert end.epoch == 1
    end.tick(PING_INTERVAL_MS - 1)
    end.end_turn()
    assert matcher.take(end) == []
    assert end.next_deadline_ms() == PING_INTERVAL_MS
    end.tick(PING_INTERVAL_MS)
    end.end_turn()
    assert [item.kind for item in matcher.take(end)] == [Kind.PING]


def test_pings_do_not_pile_up_while_there_is_no_matcher() -> None:
    end = ShardLink(0, 1, 10_000)
    for now_ms in range(0, 20 * PING_INTERVAL_MS, PING_INTERVAL_MS):
        end.tick(now_ms)
        end.end_turn()
    assert len(end.unsent) == 1
    assert end.busy


def test_frames_and_answers_come_out_in_order() -> None:
    end, matcher = joined()
    opened = Entry(Kind.OPENED, 4, link.OPENED.pack(1, 2))
    frame = Entry(Kind.FRAME, 4, b"r")
    assert end.received(matcher.say(opened, Entry(Kind.PONG, 0, link.PONG.pack(1)), frame)) == [opened, frame]


def test_unacknowledged_bytes_make_the_link_busy_until_acknowledged() -> None:
    end, matcher = joined(max_in_flight_bytes=1_000)
    end.add(Kind.BATCH, 1, bytes(1_200))
    end.end_turn()
    matcher_saw = matcher.take(end)
    assert len(matcher_saw) == 1
    assert end.busy
    end.received(matcher.pong())
    assert not end.busy


def test_message_that_the_socket_did_not_take_makes_the_link_busy() -> None:
    end, _ = joined()
    end.add(Kind.BATCH, 1, b"x")
    end.end_turn()
    assert end.busy


def test_matcher_that_does_not_know_us_begins_the_link_anew() -> None:
    end, matcher = joined()
    unknown = link.HEADER.pack(77, 0, 0) + link.entry(Kind.UNKNOWN)
    with pytest.raises(LinkBroken):
        end.received(unknown)
    assert not end.joined
    assert end.received(unknown) == []  # of the old instance: no news
    end.tick(0)
    end.end_turn()
    matcher.take(end)
    assert (matcher.instance, matcher.seen) == (78, 1)
    end.received(matcher.pong())
    assert end.joined


def test_missing_message_breaks_the_link() -> None:
    end, matcher = joined()
    matcher.say()
    with pytest.raises(LinkBroken, match="expected"):
        end.received(matcher.pong())


def test_garbage_breaks_the_link() -> None:
    end, _ = joined()
    with pytest.raises(LinkBroken):
        end.received(b"?")


def test_message_of_an_earlier_instance_is_ignored() -> None:
    end, matcher = joined()
    matcher.instance = 5
    assert end.received(matcher.say(Entry(Kind.FRAME, 1, b"old"))) == []
