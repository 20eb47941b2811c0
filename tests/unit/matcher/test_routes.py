"""Who hears of what: the table in C against the plainest thing that does the same."""

from __future__ import annotations

from random import Random
from typing import Any

from zexchange.limits import ACCOUNT_NONE
from zexchange.matcher.link import ENTRY_HEADER, Kind
from zexchange.matcher.routes import REPORT_FRAME_BYTES, Routes
from zexchange.native import ffi
from zexchange.wire.messages import ExecutionReport

ACCOUNTS = 12


def event(account_id: int, record_no: int, number: int) -> bytes:
    return ExecutionReport(account_id=account_id, record_no=record_no, report_seq=number).encode()


def block(report: bytes) -> bytes:
    return report[14:]


def origins(pairs: list[tuple[int, int]]) -> Any:
    made = ffi.new("inbox_origin[]", max(len(pairs), 1))
    for index, (number, session_id) in enumerate(pairs):
        made[index].link, made[index].session_id = number, session_id
    return made


def heard(
    routes: Routes, reports: list[bytes], senders: list[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """Frames by (link, session)."""
    found: dict[tuple[int, int], bytes] = {}
    events = b"".join(block(one) for one in reports)
    for number, entries in routes.collect(events, origins(senders), 100):
        at = 0
        while at < len(entries):
            length, kind, session_id = ENTRY_HEADER.unpack_from(entries, at)
            at += ENTRY_HEADER.size
            assert kind == Kind.REPORTS
            assert 0 < length <= 1024 * REPORT_FRAME_BYTES
            key = number, session_id
            found[key] = found.get(key, b"") + bytes(entries[at : at + length])
            at += length
    return found


def test_random_sessions_and_events_against_a_plain_model() -> None:
    random = Random(11)
    routes = Routes(ACCOUNTS)
    model: dict[int, tuple[int, int, int | None]] = {}  # slot: link, session, account
    next_session = 1
    for _ in range(400):
        action = random.randrange(4)
        if action == 0 or not model:
            number = random.randrange(3)
            model[routes.add(number, next_session)] = number, next_session, None
            next_session += 1
        elif action == 1:
            unbound = [slot for slot, (_, _, account) in model.items() if account is None]
            if unbound:
                slot, account = random.choice(unbound), random.randrange(ACCOUNTS)
                routes.bind(slot, account)
                model[slot] = (*model[slot][:2], account)
        elif action == 2:
            slot = random.choice(list(model))
            routes.remove(slot)
            del model[slot]
        senders = [(random.randrange(3), 5_000 + index) for index in range(4)]
        reports, expected = [], {}
        for number in range(random.randrange(30)):
            account = ACCOUNT_NONE if random.randrange(8) == 0 else random.randrange(ACCOUNTS)
            record = random.randrange(4)
            report = event(account, 100 + record, number)
            reports.append(report)
            if account == ACCOUNT_NONE:
                expected[senders[record]] = expected.get(senders[record], b"") + report
                continue
            for link_number, session_id, bound in model.values():
                if bound == account:
                    key = link_number, session_id
                    expected[key] = expected.get(key, b"") + report
        assert heard(routes, reports, senders) == expected
        assert len(routes) == len(model)


def test_many_reports_are_cut_into_entries_and_calls_that_stay_small() -> None:
    routes = Routes(ACCOUNTS)
    for session_id in (1, 2, 3):
        routes.bind(routes.add(session_id % 2, session_id), 4)
    routes.bind(routes.add(0, 9), 5)
    reports = [event(4 if number % 3 else 5, 100, number) for number in range(5_000)]
    found = heard(routes, reports, [(0, 0)])
    expected = b"".join(report for number, report in enumerate(reports) if number % 3)
    assert found[1, 1] == found[0, 2] == found[1, 3] == expected
    assert found[0, 9] == b"".join(report for number, report in enumerate(reports) if not number % 3)


def test_slots_are_used_again() -> None:
    routes = Routes(ACCOUNTS)
    first = routes.add(0, 1)
    routes.bind(first, 3)
    routes.remove(first)
    second = routes.add(0, 2)
    assert second == first
    assert heard(routes, [event(3, 100, 1)], [(0, 0)]) == {}
    routes.bind(second, 3)
    assert list(heard(routes, [event(3, 100, 1)], [(0, 0)])) == [(0, 2)]
