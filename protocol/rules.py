"""What each kind of command allows in its fields: the part of the frame checks that SBE cannot express.

One table, from which the Python codec, the C header and the protocol document are written. For each kind it
names the enum values allowed and the numeric fields that must be zero; a field it does not name is free.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CommandRule:
    """Rules for one kind; `allowed`: enum field to the names of its allowed values; `zero`: field names."""

    kind: str
    allowed: dict[str, tuple[str, ...]]
    zero: tuple[str, ...]


_NONE = ("none",)
_STP = ("cancelNewest", "cancelOldest", "cancelBoth", "decrement")
_NOT_AN_ORDER = {"orderType": _NONE, "timeInForce": _NONE, "trigger": _NONE}
_TERMS = ("trailPpm", "displayQtyLots", "minQtyLots", "triggerTicks", "expireTimeNs", "maxNotional")

COMMAND_RULES = {
    "Command": (
        CommandRule(
            "new",
            {
                "side": ("buy", "sell"),
                "orderType": ("limit", "market"),
                "timeInForce": ("gtc", "ioc", "fok", "day", "gtd"),
                "selfTradePrevention": _STP,
                "trigger": ("none", "stop", "takeProfit", "trailing"),
            },
            ("orderId",),
        ),
        CommandRule(
            "cancel",
            {"side": _NONE, **_NOT_AN_ORDER, "selfTradePrevention": _NONE},
            ("options", "priceTicks", "qtyLots", *_TERMS),
        ),
        CommandRule(
            "amend",
            {"side": _NONE, **_NOT_AN_ORDER, "selfTradePrevention": _STP},
            ("minQtyLots", "maxNotional"),
        ),
        CommandRule(
            "cancelAll",
            {"side": ("none", "buy", "sell"), **_NOT_AN_ORDER, "selfTradePrevention": _NONE},
            ("options", "clientOrderId", "orderId", "priceTicks", "qtyLots", *_TERMS),
        ),
    ),
    "OperatorCommand": (
        CommandRule("openAccount", {"marketState": _NONE}, ("marketId", "amount", "assetId")),
        CommandRule("registerKey", {"marketState": _NONE}, ("marketId", "amount", "assetId")),
        CommandRule("deposit", {"marketState": _NONE}, ("marketId", "newPublicKey")),
        CommandRule("withdraw", {"marketState": _NONE}, ("marketId", "newPublicKey")),
        CommandRule(
            "setMarketState",
            {"marketState": ("closed", "continuous", "halted")},
            ("accountId", "amount", "assetId", "newPublicKey"),
        ),
    ),
}
