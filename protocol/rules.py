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
_NO_STATE = {"marketState": _NONE}
_RULES = (
    "tradeGroup",
    "priceTicks",
    "untilNs",
    "qtyLots",
    "ordersMax",
    "dynamicBandPpm",
    "staticBandPpm",
    "feeDiscountPpm",
    "ordersPerSecond",
)
_DEFINITION = (
    "quoteAssetId",
    "symbol",
    "baseUnitsPerLot",
    "quoteUnitsPerTickLot",
    "makerFeePpm",
    "takerFeePpm",
    "decimals",
)
"""What a new asset or market is."""


def _without(*used: str) -> tuple[str, ...]:
    """The fields of rules that a kind does not use."""
    return tuple(name for name in _RULES if name not in used)


_TERMS = ("trailPpm", "displayQtyLots", "minQtyLots", "triggerTicks", "expireTimeNs", "maxNotional")

COMMAND_RULES = {
    "Command": (
        CommandRule(
            "new",
            {
                "side": ("buy", "sell"),
                "orderType": ("limit", "market"),
                "timeInForce": ("gtc", "ioc", "fok", "day", "gtd", "atTheOpen", "atTheClose"),
                "selfTradePrevention": _STP,
                "trigger": ("none", "stop", "takeProfit", "trailing"),
            },
            ("orderId",),
        ),
        CommandRule(
            "cancel",
            {"side": _NONE, **_NOT_AN_ORDER, "selfTradePrevention": _NONE},
            ("options", "sizesNo", "priceTicks", "qtyLots", *_TERMS),
        ),
        CommandRule(
            "amend",
            {"side": _NONE, **_NOT_AN_ORDER, "selfTradePrevention": _STP},
            ("minQtyLots", "maxNotional"),
        ),
        CommandRule(
            "cancelAll",
            {"side": ("none", "buy", "sell"), **_NOT_AN_ORDER, "selfTradePrevention": _NONE},
            ("options", "sizesNo", "clientOrderId", "orderId", "priceTicks", "qtyLots", *_TERMS),
        ),
    ),
    "OperatorCommand": (
        CommandRule("openAccount", _NO_STATE, ("marketId", "amount", "assetId", *_RULES, *_DEFINITION)),
        CommandRule("registerKey", _NO_STATE, ("marketId", "amount", "assetId", *_RULES, *_DEFINITION)),
        CommandRule("deposit", _NO_STATE, ("marketId", "newPublicKey", *_RULES, *_DEFINITION)),
        CommandRule("withdraw", _NO_STATE, ("marketId", "newPublicKey", *_RULES, *_DEFINITION)),
        CommandRule(
            "setMarketState",
            {
                "marketState": (
                    "closed",
                    "continuous",
                    "halted",
                    "preOpen",
                    "auction",
                    "closingAuction",
                    "postOnly",
                    "expired",
                )
            },
            ("accountId", "amount", "assetId", "newPublicKey", *_without("untilNs"), *_DEFINITION),
        ),
        CommandRule(
            "setReferencePrice",
            _NO_STATE,
            ("accountId", "amount", "assetId", "newPublicKey", *_without("priceTicks"), *_DEFINITION),
        ),
        CommandRule(
            "setMarketRules",
            _NO_STATE,
            (
                "accountId",
                "assetId",
                "newPublicKey",
                *_without("untilNs", "qtyLots", "ordersMax", "dynamicBandPpm", "staticBandPpm"),
                *_DEFINITION,
            ),
        ),
        CommandRule(
            "setAccountRules",
            _NO_STATE,
            (
                "marketId",
                "amount",
                "assetId",
                "newPublicKey",
                *_without("tradeGroup", "ordersMax", "feeDiscountPpm", "ordersPerSecond"),
                *_DEFINITION,
            ),
        ),
        CommandRule(
            "addAsset",
            _NO_STATE,
            (
                "marketId",
                "accountId",
                "amount",
                "newPublicKey",
                *_RULES,
                *(name for name in _DEFINITION if name not in ("symbol", "decimals")),
            ),
        ),
        CommandRule(
            "addMarket",
            _NO_STATE,
            ("accountId", "amount", "newPublicKey", *_RULES, "decimals"),
        ),
        CommandRule(
            "setMarketSizes",
            _NO_STATE,
            (
                "accountId",
                "amount",
                "assetId",
                "newPublicKey",
                *_RULES,
                *(n for n in _DEFINITION if n not in ("baseUnitsPerLot", "quoteUnitsPerTickLot")),
            ),
        ),
    ),
}
