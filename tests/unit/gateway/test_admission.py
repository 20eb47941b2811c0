"""Limits on connections, and the pause for keys that send bad signatures."""

from __future__ import annotations

import itertools

from gateway.admission import PENALTIES_MAX, Admission, AdmissionLimits
from zexchange.wire.messages import ReasonCode

KEY = bytes(32)


def limited(**limits: int) -> Admission:
    return Admission(AdmissionLimits(**limits))


SESSION_IDS = itertools.count(1)


def let_in(admission: Admission, *ips: str) -> list[bool]:
    return [admission.connected(ip, next(SESSION_IDS)) is ReasonCode.NONE for ip in ips]


def test_all_sessions_are_bounded() -> None:
    admission = limited(max_sessions=3)
    assert let_in(admission, "a", "b", "c", "d") == [True, True, True, False]
    admission.disconnected("b", 0, unestablished=True)
    assert let_in(admission, "d", "e") == [True, False]
    assert admission.connections == 3


def test_sessions_of_one_address_are_bounded() -> None:
    admission = limited(max_sessions_per_ip=2)
    assert let_in(admission, "a", "a", "a", "b") == [True, True, False, True]
    admission.disconnected("a", 0, unestablished=True)
    assert let_in(admission, "a") == [True]


def test_connections_that_never_log_on_leave_room_for_others() -> None:
    admission = limited(max_unestablished=2)
    assert let_in(admission, "a", "b", "c") == [True, True, False]
    admission.established("a")
    assert let_in(admission, "c", "d") == [True, False]
    admission.disconnected("a", 0, unestablished=False)
    assert let_in(admission, "d") == [False]
    admission.disconnected("b", 0, unestablished=True)
    assert let_in(admission, "d") == [True]


def test_one_address_cannot_keep_others_from_logging_on() -> None:
    admission = limited(max_unestablished=8, max_unestablished_per_ip=2)
    assert let_in(admission, "a", "a", "a", "b") == [True, True, False, True]
    admission.established("a")
    assert let_in(admission, "a", "a") == [True, False]
    admission.disconnected("a", 0, unestablished=True)
    assert let_in(admission, "a", "a") == [True, False]


def test_oldest_of_an_address_that_has_not_proved_a_key_makes_room() -> None:
    admission = limited(max_unestablished_per_ip=3)
    for session_id in (1, 2):
        assert admission.connected("a", session_id) is ReasonCode.NONE
    assert admission.crowded_out("a") is None
    assert admission.connected("a", 3) is ReasonCode.NONE
    assert admission.crowded_out("b") is None
    admission.proved("a", 1)
    assert admission.crowded_out("a") == 2
    admission.evicted("a", 2)
    assert admission.connected("a", 4) is ReasonCode.NONE
    admission.disconnected("a", 2, unestablished=False)
    assert admission.crowded_out("a") == 3
    admission.established("a")
    assert admission.crowded_out("a") is None
    for session_id in (5, 3, 4):
        if session_id == 5:
            assert admission.connected("a", 5) is ReasonCode.NONE
        admission.proved("a", session_id)
    assert admission.crowded_out("a") is None, "all of them have proved one: the next is refused"
    assert admission.connected("a", 6) is ReasonCode.SESSION_LIMIT
    for session_id in (3, 4, 5):
        admission.disconnected("a", session_id, unestablished=True)
    assert let_in(admission, "a", "a", "a", "a") == [True, True, True, False]


def test_key_that_struck_out_is_paused() -> None:
    admission = limited(strike_penalty_ms=1_000)
    assert admission.logon(KEY, 0) is ReasonCode.NONE
    admission.struck_out(KEY, 0)
    assert admission.logon(KEY, 999) is ReasonCode.TOO_MANY_STRIKES
    assert admission.logon(b"other", 999) is ReasonCode.NONE
    assert admission.logon(KEY, 1_000) is ReasonCode.NONE


def test_pause_can_be_off_and_is_bounded_in_memory() -> None:
    off = limited(strike_penalty_ms=0)
    off.struck_out(KEY, 0)
    assert off.logon(KEY, 0) is ReasonCode.NONE
    admission = limited()
    for number in range(PENALTIES_MAX + 1):
        admission.struck_out(number.to_bytes(32, "little"), 0)
    assert admission.logon(bytes(32), 0) is ReasonCode.NONE
    assert admission.logon((1).to_bytes(32, "little"), 0) is ReasonCode.TOO_MANY_STRIKES
