"""The Python SDK: place orders, read the book, know what happened.

    from zexchange.client import Client

    with Client.local(key="alice") as client:
        result = client.buy("BTC-USD", "0.5", "64000")
        print(result.status, result.filled, client.balances())

Everything public is here; names are loaded when they are first used, so that a program that only reads a key file does
not pay for the rest. Refusals are exceptions, one class per reason code: those a trader meets are here, all of them
are in `zexchange.client.rejections`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zexchange.client._results import OperatorOutcome, Outcome
    from zexchange.client.client import Client
    from zexchange.client.errors import (
        ConnectFailed,
        DeploymentMismatch,
        Disconnected,
        EventsLost,
        KeyFileError,
        MarketNeeded,
        NoAnswer,
        NoExchange,
        OutcomeUnknown,
        ProtocolViolation,
        ZexchangeError,
    )
    from zexchange.client.keys import load_key, new_key
    from zexchange.client.rejections import (
        AmountTooPrecise,
        ClientOrderIdInUse,
        FokNotFillable,
        InsufficientFunds,
        MarketClosed,
        MarketHalted,
        PostOnlyWouldCross,
        PriceOffTick,
        QuantityOffLot,
        Rejected,
        ServerBusy,
        UnknownKey,
        UnknownMarket,
        UnknownOrder,
    )
    from zexchange.client.types import (
        AccountOpened,
        AmendOrder,
        AssetAdded,
        BalanceRow,
        BookLevel,
        BookSnapshot,
        CancelAll,
        CancelAllResult,
        CancelOrder,
        CancelResult,
        Command,
        Deposited,
        Event,
        Fill,
        KeyRegistered,
        MarketAdded,
        MarketSizesSet,
        MarketStateSet,
        MissedReports,
        NewOrder,
        Order,
        OrderResult,
        OrderUpdate,
        ShardState,
        Status,
        Trade,
        Withdrawn,
    )

__all__ = [
    "AccountOpened",
    "AmendOrder",
    "AmountTooPrecise",
    "AssetAdded",
    "BalanceRow",
    "BookLevel",
    "BookSnapshot",
    "CancelAll",
    "CancelAllResult",
    "CancelOrder",
    "CancelResult",
    "Client",
    "ClientOrderIdInUse",
    "Command",
    "ConnectFailed",
    "Deposited",
    "DeploymentMismatch",
    "Disconnected",
    "Event",
    "EventsLost",
    "Fill",
    "FokNotFillable",
    "InsufficientFunds",
    "KeyFileError",
    "KeyRegistered",
    "MarketAdded",
    "MarketClosed",
    "MarketHalted",
    "MarketNeeded",
    "MarketSizesSet",
    "MarketStateSet",
    "MissedReports",
    "NewOrder",
    "NoAnswer",
    "NoExchange",
    "OperatorOutcome",
    "Order",
    "OrderResult",
    "OrderUpdate",
    "Outcome",
    "OutcomeUnknown",
    "PostOnlyWouldCross",
    "PriceOffTick",
    "ProtocolViolation",
    "QuantityOffLot",
    "Rejected",
    "ServerBusy",
    "ShardState",
    "Status",
    "Trade",
    "UnknownKey",
    "UnknownMarket",
    "UnknownOrder",
    "Withdrawn",
    "ZexchangeError",
    "load_key",
    "new_key",
]

_HOMES = {
    "Client": "client",
    "OperatorOutcome": "_results",
    "Outcome": "_results",
    "load_key": "keys",
    "new_key": "keys",
}
_SEARCHED = ("errors", "types", "rejections")


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = (_HOMES[name],) if name in _HOMES else _SEARCHED
    for home in homes:
        module = import_module(f"{__name__}.{home}")
        if hasattr(module, name):
            globals()[name] = getattr(module, name)
            return globals()[name]
    raise AttributeError(f"module {__name__!r} lists {name!r} but does not define it")


def __dir__() -> list[str]:
    return list(__all__)
