"""What texts of requests stand for, and which stand for nothing."""

from __future__ import annotations

import base64

import msgspec
import pytest

from webapp.parsing import cursor_of, cursor_text, decimal_of
from webapp.problems import Problem


@pytest.mark.parametrize("text", ["0", "5", "007", "1000.50", "0.00000001", "9" * 100])
def test_decimals(text: str) -> None:
    assert decimal_of(text, "amount") == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ".",
            "1.",
            ".5",
            "1.2.3",
            "1,5",
            "1_000",
            " 5 ",
            "5\n",
            "+5",
            "-5",
            "1e3",
            "NaN",
            "Infinity",
            "0x10",
        ),
        *("\u0665", "\uff15", "5\u0660", "\u00b2", "9" * 101),
    ],
)
def test_what_is_no_decimal(text: str) -> None:
    with pytest.raises(Problem) as raised:
        decimal_of(text, "amount")
    assert (raised.value.code, raised.value.field) == ("BAD_REQUEST", "amount")


def _cursor(numbers: object) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(numbers)).decode()


@pytest.mark.parametrize("numbers", [{}, {0: 0}, {0: 7, 1: 2**64 - 1}])
def test_cursors(numbers: dict[int, int]) -> None:
    assert cursor_of(cursor_text(numbers)) == numbers
    assert cursor_of("") == {}


@pytest.mark.parametrize(
    "text",
    [
        *map(
            _cursor, ({0: -1}, {-1: 0}, {0: -(2**63)}, {0: 1, 1: -1}, {0: "1"}, {0: 1.0}, {0: True}, [1], 5)
        ),
        *("x", "AAAA", "\u0661", "\0"),
    ],
)
def test_what_is_no_cursor(text: str) -> None:
    with pytest.raises(Problem) as raised:
        cursor_of(text)
    assert (raised.value.code, raised.value.field) == ("BAD_REQUEST", "cursor")
