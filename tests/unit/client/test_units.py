"""Decimals to integers and back: exact or refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.fake_exchange import small_genesis
from zexchange.client.rejections import (
    AmountOutOfRange,
    AmountTooPrecise,
    PriceOffTick,
    PriceTicksOutOfRange,
    QtyLotsOutOfRange,
    QuantityOffLot,
)
from zexchange.client.units import (
    amount_to_units,
    lots_to_quantity,
    price_to_ticks,
    quantity_to_lots,
    ticks_to_price,
    units_to_amount,
)
from zexchange.limits import AMOUNT_MAX, PRICE_TICKS_MAX, QTY_LOTS_MAX

GENESIS = small_genesis()
BTC = GENESIS.market("BTC-USD")
USD = GENESIS.asset("USD")


def test_decimals_strings_and_ints_are_taken() -> None:
    assert price_to_ticks(BTC, "64000.01") == 6_400_001
    assert price_to_ticks(BTC, Decimal("64000.010")) == 6_400_001
    assert price_to_ticks(BTC, 64_000) == 6_400_000
    assert price_to_ticks(BTC, Decimal("6.4E+4")) == 6_400_000
    assert quantity_to_lots(BTC, "0.0001") == 1
    assert amount_to_units(USD, "1.5") == 1_500_000


def test_results_have_the_decimals_of_the_step() -> None:
    assert str(ticks_to_price(BTC, 6_400_000)) == "64000.00"
    assert str(lots_to_quantity(BTC, 5000)) == "0.5000"
    assert str(units_to_amount(USD, 1)) == "0.000001"


@pytest.mark.parametrize("value", [0.1, True, None, b"1", [1]])
def test_floats_and_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="must be a Decimal"):
        price_to_ticks(BTC, value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["x", "", "NaN", "Infinity", "1,5"])
def test_what_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ValueError):
        price_to_ticks(BTC, value)


@pytest.mark.parametrize("value", ["0.005", "64000.001", "1e-1000000", "0." + "3" * 200])
def test_prices_off_the_tick_are_refused(value: str) -> None:
    with pytest.raises(PriceOffTick):
        price_to_ticks(BTC, value)


@pytest.mark.parametrize("value", [0, -1, "-0.01", "1e1000000", "90071992547409.92"])
def test_prices_out_of_range_are_refused(value: str | int) -> None:
    with pytest.raises(PriceTicksOutOfRange):
        price_to_ticks(BTC, value)


def test_quantities_and_amounts_have_their_own_refusals() -> None:
    with pytest.raises(QuantityOffLot, match=r"BTC-USD's lot size 0\.0001"):
        quantity_to_lots(BTC, "0.00015")
    with pytest.raises(QtyLotsOutOfRange):
        quantity_to_lots(BTC, 0)
    with pytest.raises(AmountTooPrecise, match="USD's 6 decimals"):
        amount_to_units(USD, "0.0000001")
    with pytest.raises(AmountOutOfRange):
        amount_to_units(USD, "9223372036854.775808")
    assert amount_to_units(USD, "9223372036854.775807") == AMOUNT_MAX


@given(st.integers(1, PRICE_TICKS_MAX), st.integers(1, QTY_LOTS_MAX), st.integers(1, AMOUNT_MAX))
def test_there_and_back_again(ticks: int, lots: int, units: int) -> None:
    assert price_to_ticks(BTC, ticks_to_price(BTC, ticks)) == ticks
    assert quantity_to_lots(BTC, lots_to_quantity(BTC, lots)) == lots
    assert amount_to_units(USD, units_to_amount(USD, units)) == units
    assert price_to_ticks(BTC, str(ticks_to_price(BTC, ticks))) == ticks
