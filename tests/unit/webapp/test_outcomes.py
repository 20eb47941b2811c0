"""Outcomes by the way a batch came and by reason."""

from __future__ import annotations

import pytest

from webapp import outcomes
from webapp.outcomes import Outcomes
from zexchange.wire.messages import ExecType, ExecutionReport, ReasonCode, ReportFlags


def event(
    kind: ExecType,
    nonce: int,
    *,
    account_id: int = 1,
    reason: ReasonCode = ReasonCode.NONE,
    repeated: bool = False,
) -> bytes:
    flags = ReportFlags.DUPLICATE if repeated else ReportFlags.NONE
    report = ExecutionReport(account_id=account_id, nonce=nonce, exec_type=kind, reason=reason, flags=flags)
    return report.encode_block()


def test_orders_are_counted_by_transport_and_reason() -> None:
    counted = Outcomes()
    counted.submitted(1, 0, 77)
    refused = ReasonCode.INSUFFICIENT_FUNDS
    counted.add(
        0,
        event(ExecType.NEW, 77)
        + event(ExecType.TRADE, 77)
        + event(ExecType.REJECTED, 77, reason=refused)
        + event(ExecType.NEW, 78)
        + event(ExecType.NEW, 77, account_id=2)
        + event(ExecType.CANCELLED, 78)
        + event(ExecType.REJECTED, 79, reason=ReasonCode.UNKNOWN_MARKET),
    )
    counted.add(1, event(ExecType.NEW, 77))
    assert counted.counts == {
        ("http", "ACCEPTED"): 1,
        ("http", "INSUFFICIENT_FUNDS"): 1,
        ("tcp", "ACCEPTED"): 3,
        ("tcp", "UNKNOWN_MARKET"): 1,
    }


def test_what_repeats_an_outcome_counts_nothing() -> None:
    counted = Outcomes()
    counted.add(
        0,
        event(ExecType.NEW, 1, repeated=True)
        + event(ExecType.REJECTED, 1, reason=ReasonCode.UNKNOWN_MARKET, repeated=True),
    )
    assert not counted.counts


def test_only_the_newest_batches_over_http_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "REMEMBERED_MAX", 2)
    counted = Outcomes()
    for nonce in (1, 2, 3):
        counted.submitted(1, 0, nonce)
    counted.add(0, b"".join(event(ExecType.NEW, nonce) for nonce in (1, 2, 3)))
    assert counted.counts == {("http", "ACCEPTED"): 2, ("tcp", "ACCEPTED"): 1}
