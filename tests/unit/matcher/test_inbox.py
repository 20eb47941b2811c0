"""The matcher's queue in C: what comes out is what went in, in order, whatever was malformed in between."""

from __future__ import annotations

from random import Random

import pytest

from tests.model import kit
from zexchange.matcher import link
from zexchange.matcher.inbox import FRAMES, NO_LINK, REFUSED, Inbox
from zexchange.matcher.link import Kind, LinkMessageInvalid, Outbox
from zexchange.runtime.stages import BUS, StageTimes
from zexchange.wire.messages import ReasonCode, Side


def frame(number: int, commands: int = 1) -> bytes:
    return kit.batch(kit.public_key(1), number, [kit.order(Side.BUY, 100 + number % 50, 1)] * commands)


def message(*entries: tuple[Kind, int, bytes], instance: int = 1) -> bytes:
    outbox = Outbox(instance)
    for kind, session_id, payload in entries:
        outbox.add(link.entry(kind, session_id, payload))
    (made,) = outbox.take()
    return made


def test_runs_of_frames_and_everything_else_come_back_in_order() -> None:
    inbox = Inbox()
    bad = frame(3)[:-1]
    items = inbox.receive(
        7,
        message(
            (Kind.BATCH, 1, frame(1)),
            (Kind.BATCH, 2, frame(2)),
            (Kind.QUERY, 1, b"question"),
            (Kind.BATCH, 3, bad),
            (Kind.BATCH, 3, frame(4)),
            (Kind.OPEN, 9, b"k" * 32),
            (Kind.PING, 0, b""),
        ),
    )
    assert items == [
        (FRAMES, 0, b"", 2),
        (Kind.QUERY, 1, b"question", 0),
        (REFUSED, 3, bad, ReasonCode.FRAME_LENGTH_INVALID),
        (FRAMES, 0, b"", 1),
        (Kind.OPEN, 9, b"k" * 32, 0),
        (Kind.PING, 0, b"", 0),
    ]
    assert len(inbox) == 3
    assert inbox.take(3, 60_000, NO_LINK, []) == 3
    assert inbox.body() == frame(1) + frame(2) + frame(4)
    assert [(inbox.origins[n].link, inbox.origins[n].session_id) for n in range(3)] == [
        (7, 1),
        (7, 2),
        (7, 3),
    ]


def test_message_that_is_not_whole_changes_nothing() -> None:
    inbox = Inbox()
    good = message((Kind.BATCH, 1, frame(1)), (Kind.OPEN, 2, b"k" * 32))
    for cut in range(len(good)):
        if cut == 24 or cut == 24 + 13 + len(frame(1)):
            continue  # whole entries: a shorter message
        with pytest.raises(LinkMessageInvalid):
            inbox.receive(1, good[:cut])
    for kind in (Kind.OPENED, Kind.REPORTS, Kind.UNKNOWN):
        with pytest.raises(LinkMessageInvalid):
            inbox.receive(1, message((Kind.BATCH, 1, frame(1)), (kind, 1, b"")))
    with pytest.raises(LinkMessageInvalid):
        inbox.receive(1, message((Kind.OPEN, 1, b"short")))
    assert len(inbox) == 0


def test_body_ends_before_what_does_not_fit_and_what_must_wait() -> None:
    inbox = Inbox()
    inbox.receive(1, message(*((Kind.BATCH, number, frame(number)) for number in range(1, 6))))
    size = len(frame(1))
    assert inbox.take(5, 2 * size + 1, NO_LINK, []) == 2
    inbox.commit(2)
    assert inbox.take(3, 60_000, 1, [4]) == 1
    assert inbox.take(2, 60_000, 2, [4]) == 2  # a session of another link
    assert inbox.taken == 3
    inbox.commit(3)
    assert len(inbox) == 0


def test_frames_that_were_not_applied_are_taken_again() -> None:
    inbox = Inbox()
    inbox.receive(1, message(*((Kind.BATCH, number, frame(number)) for number in range(1, 5))))
    inbox.take(4, 60_000, NO_LINK, [])
    inbox.commit(1)
    assert inbox.take(3, 60_000, NO_LINK, []) == 3
    assert inbox.body() == frame(2) + frame(3) + frame(4)


def test_queue_keeps_its_order_when_its_memory_wraps() -> None:
    random = Random(5)
    inbox, expected = Inbox(), []
    number = 0
    big = [frame(n, commands=64) for n in range(8)]
    for _ in range(600):
        entries = []
        for _ in range(random.randrange(170)):
            number += 1
            entries.append((Kind.BATCH, number, big[number % 8]))
        if entries and inbox.has_room:
            inbox.receive(1, message(*entries))
            expected += [session_id for _, session_id, _ in entries]
        count = inbox.take(min(len(inbox), 150), 65_388, NO_LINK, [])
        assert [inbox.origins[index].session_id for index in range(count)] == expected[:count]
        assert inbox.body() == b"".join(big[session_id % 8] for session_id in expected[:count])
        inbox.commit(count)
        del expected[:count]
    assert not inbox.has_room or len(inbox) == len(expected)


def test_waits_are_counted_for_what_was_applied_and_measured() -> None:
    inbox, times = Inbox(), StageTimes()
    for verified_ns, numbers in ((4_000, (1, 2)), (0, (3,)), (9_000, (4,))):
        outbox = Outbox(1)
        for number in numbers:
            outbox.add(link.entry(Kind.BATCH, number, frame(number)))
        inbox.receive(1, *outbox.take(verified_ns))
    assert inbox.take(4, 60_000, NO_LINK, []) == 4
    inbox.commit(3)
    times.add_waits(inbox.handle, 10_000, BUS)
    assert times.summary()["bus"].count == 2, "nobody measured the third, and the fourth is still waiting"
    assert times.summary()["bus"].max_us == times.summary()["bus"].mean_us == 6.0
    assert inbox.take(1, 60_000, NO_LINK, []) == 1
    inbox.commit(1)
    times.add_waits(inbox.handle, 8_000, BUS)
    assert times.summary()["bus"].count == 3, "a clock that seems to run backwards gives no wait of centuries"
    assert times.summary()["bus"].max_us == 6.0
