"""What an operator can do: the methods of `Client` for accounts, funds, assets and markets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from nacl.signing import VerifyKey

from zexchange.client._commands import Catalogue
from zexchange.client._results import OperatorOutcome
from zexchange.client.errors import ProtocolViolation
from zexchange.client.rejections import (
    AccountLimit,
    AssetExists,
    MarketExists,
    ShardUnknown,
    SizesInvalid,
    SymbolInUse,
    SymbolInvalid,
    UnknownAccount,
)
from zexchange.client.types import (
    AccountOpened,
    AccountRulesSet,
    AssetAdded,
    Deposited,
    KeyRegistered,
    MarketAdded,
    MarketRulesSet,
    MarketSizesSet,
    MarketStateName,
    MarketStateSet,
    ReferencePriceSet,
    Withdrawn,
)
from zexchange.client.units import DecimalLike, amount_to_units, price_to_ticks, quantity_to_lots, to_decimal
from zexchange.genesis import Asset, Genesis, GenesisError, encode_symbol, units_of
from zexchange.limits import ACCOUNT_NONE
from zexchange.wire import messages as wire
from zexchange.wire.messages import MarketState, OperatorCommandKind
from zexchange.wire.signing import PUBLIC_KEY_BYTES

__all__ = ["OperatorCalls", "expect"]

T = TypeVar("T")

_STATES = {
    state.name.lower(): state
    for state in MarketState
    if state not in (MarketState.NONE, MarketState.UNCROSSING)
}


class OperatorCalls:
    """Needs an operator's key; with any other every call raises OperatorOnly."""

    genesis: Genesis
    _catalogue: Catalogue

    def _operate_all(self, commands: list[wire.OperatorCommand], shard: int) -> list[OperatorOutcome]:
        """One batch; raises the first refusal."""
        raise NotImplementedError

    def _refresh(self) -> None:
        """Learn what markets and assets there are now."""
        raise NotImplementedError

    def _operate(self, command: wire.OperatorCommand, shard: int) -> OperatorOutcome:
        return self._operate_all([command], shard)[0]

    def open_account(
        self,
        public_key: bytes | str | VerifyKey,
        account_id: int | None = None,
        *,
        shards: Iterable[int] | None = None,
    ) -> AccountOpened:
        """Operator: open an account for a key, on every shard. Raises AccountExists, KeyExists, OperatorOnly, ...

        `shards`: only on those, to complete a call that failed half-way; then `account_id` is that of the others.
        """
        key = _public_key(public_key)
        if account_id is not None and not 1 <= account_id < ACCOUNT_NONE:
            raise AccountLimit(detail=f"{account_id} is no number for an account")
        opened: AccountOpened | None = None
        for shard in range(self.genesis.shards) if shards is None else shards:
            self._shard(shard)
            wanted = (account_id or 0) if opened is None else opened.account_id
            command = wire.OperatorCommand(
                kind=OperatorCommandKind.OPEN_ACCOUNT, account_id=wanted, new_public_key=key
            )
            result = expect(self._operate(command, shard), AccountOpened)
            opened = opened or result
        if opened is None:
            raise ValueError("at least one shard is to be named")
        return opened

    def register_key(self, account_id: int, public_key: bytes | str | VerifyKey) -> KeyRegistered:
        """Operator: let another key sign for an account, on every shard. Raises KeyExists, UnknownAccount, ..."""
        command = wire.OperatorCommand(
            kind=OperatorCommandKind.REGISTER_KEY,
            account_id=_account(account_id),
            new_public_key=_public_key(public_key),
        )
        results = [
            expect(self._operate(command, shard), KeyRegistered) for shard in range(self.genesis.shards)
        ]
        return results[0]

    def deposit(self, account_id: int, asset: str, amount: DecimalLike, *, shard: int = 0) -> Deposited:
        """Operator: credit an account on one shard. Raises UnknownAccount, AmountTooPrecise, SupplyOverflow, ..."""
        return expect(self._move(OperatorCommandKind.DEPOSIT, account_id, asset, amount, shard), Deposited)

    def withdraw(self, account_id: int, asset: str, amount: DecimalLike, *, shard: int = 0) -> Withdrawn:
        """Operator: debit an account on one shard. Raises InsufficientFunds, ..."""
        return expect(self._move(OperatorCommandKind.WITHDRAW, account_id, asset, amount, shard), Withdrawn)

    def set_market_state(
        self, market: str, state: MarketStateName, *, until_ns: int | None = None
    ) -> MarketStateSet:
        """Operator: bring a market to a state; pre-open, auctions and halts may end by themselves at `until_ns`.

        The result's state is "uncrossing" when an auction has to be executed first, or orders for one come or end.
        Raises MarketTransitionIllegal, UntilInvalid.
        """
        found = self._catalogue.market(market)
        if state not in _STATES:
            raise ValueError(f"state must be one of {', '.join(_STATES)}, not {state!r}")
        command = wire.OperatorCommand(
            kind=OperatorCommandKind.SET_MARKET_STATE,
            market_id=found.market_id,
            market_state=_STATES[state],
            until_ns=until_ns or 0,
        )
        return expect(self._operate(command, found.shard), MarketStateSet)

    def set_reference_price(self, market: str, price: DecimalLike) -> ReferencePriceSet:
        """Operator: feed the price that orders with `on_reference` wait for, the centre of the static band."""
        found = self._catalogue.market(market)
        command = wire.OperatorCommand(
            kind=OperatorCommandKind.SET_REFERENCE_PRICE,
            market_id=found.market_id,
            price_ticks=price_to_ticks(found, price),
        )
        return expect(self._operate(command, found.shard), ReferencePriceSet)

    def set_market_rules(
        self,
        market: str,
        *,
        dynamic_band_ppm: int = 0,
        static_band_ppm: int = 0,
        interruption_ns: int = 0,
        max_quantity: DecimalLike | None = None,
        max_notional: DecimalLike | None = None,
        max_open_orders: int = 0,
    ) -> MarketRulesSet:
        """Operator: price bands, and limits of an order and of an account's open orders; what is left out is none.

        A trade that would leave a band brings the market into an auction, for `interruption_ns` or until told.
        """
        found = self._catalogue.market(market)
        quote = self._catalogue.asset(found.quote_asset_id)
        command = wire.OperatorCommand(
            kind=OperatorCommandKind.SET_MARKET_RULES,
            market_id=found.market_id,
            dynamic_band_ppm=dynamic_band_ppm,
            static_band_ppm=static_band_ppm,
            until_ns=interruption_ns,
            qty_lots=0 if max_quantity is None else quantity_to_lots(found, max_quantity),
            amount=0 if max_notional is None else amount_to_units(quote, max_notional),
            orders_max=max_open_orders,
        )
        return expect(self._operate(command, found.shard), MarketRulesSet)

    def set_account_rules(
        self,
        account_id: int,
        *,
        fee_discount_ppm: int = 0,
        trade_group: int = 0,
        max_open_orders: int = 0,
        max_orders_per_second: int = 0,
        shard: int = 0,
    ) -> AccountRulesSet:
        """Operator: fee discount, group of accounts that do not trade with each other, and limits of an account."""
        command = wire.OperatorCommand(
            kind=OperatorCommandKind.SET_ACCOUNT_RULES,
            account_id=account_id,
            fee_discount_ppm=fee_discount_ppm,
            trade_group=trade_group,
            orders_max=max_open_orders,
            orders_per_second=max_orders_per_second,
        )
        return expect(self._operate(command, shard), AccountRulesSet)

    # ---------------------------------------------------------------- assets and markets

    def add_asset(
        self,
        asset: str,
        decimals: int,
        *,
        asset_id: int | None = None,
        shards: Iterable[int] | None = None,
    ) -> list[AssetAdded]:
        """Operator: another asset, on every shard or on those named. Raises AssetExists, SymbolInUse, AssetLimit, ...

        Without `asset_id` the next free one is taken. A shard that has this very asset already is passed over, so a
        call that failed half-way can be repeated; the result names the others.
        """
        self._refresh()
        field = _symbol(asset)
        assets = self._catalogue.assets
        known = next((one for one in assets if one.symbol == asset), None)
        if known is not None and (known.decimals != decimals or asset_id not in (None, known.asset_id)):
            raise SymbolInUse(detail=f"{asset} is asset {known.asset_id} and has {known.decimals} decimals")
        if asset_id is None:
            asset_id = max(one.asset_id for one in assets) + 1 if known is None else known.asset_id
        named = next((one for one in assets if one.asset_id == asset_id), None)
        if named is not None and named != known:
            raise AssetExists(detail=f"{asset_id} is {named.symbol}")
        command = wire.OperatorCommand(
            kind=OperatorCommandKind.ADD_ASSET, asset_id=asset_id, symbol=field, decimals=decimals
        )
        added: list[AssetAdded] = []
        for shard in range(self.genesis.shards) if shards is None else shards:
            try:
                added.append(expect(self._operate(command, self._shard(shard)), AssetAdded))
            except AssetExists:
                if known is None:
                    raise
        return added

    def add_market(
        self,
        market: str,
        base: str,
        quote: str,
        *,
        tick_size: DecimalLike,
        lot_size: DecimalLike,
        maker_fee_ppm: int = 0,
        taker_fee_ppm: int = 0,
        market_id: int | None = None,
        shard: int = 0,
        state: MarketStateName = "continuous",
    ) -> MarketAdded:
        """Operator: another market on a shard, which is then brought to `state`; "closed" leaves it as it begins.

        Without `market_id` the next free one is taken. Raises MarketExists, SymbolInUse, UnknownAsset, SizesInvalid,
        FeesInvalid, MarketLimit, ...
        """
        if state not in _STATES:
            raise ValueError(f"state must be one of {', '.join(_STATES)}, not {state!r}")
        self._refresh()
        field = _symbol(market)
        markets = self._catalogue.markets
        taken = next((one for one in markets if one.symbol == market), None)
        if taken is not None:
            raise SymbolInUse(detail=f"{market} is market {taken.market_id} on shard {taken.shard}")
        if market_id is None:
            market_id = max((one.market_id for one in markets), default=0) + 1
        named = next((one for one in markets if one.market_id == market_id), None)
        if named is not None:
            raise MarketExists(detail=f"{market_id} is {named.symbol} on shard {named.shard}")
        base_asset, quote_asset = self._catalogue.asset(base), self._catalogue.asset(quote)
        lot, tick = _units(base_asset, quote_asset, tick_size, lot_size)
        commands = [
            wire.OperatorCommand(
                kind=OperatorCommandKind.ADD_MARKET,
                market_id=market_id,
                symbol=field,
                asset_id=base_asset.asset_id,
                quote_asset_id=quote_asset.asset_id,
                base_units_per_lot=lot,
                quote_units_per_tick_lot=tick,
                maker_fee_ppm=maker_fee_ppm,
                taker_fee_ppm=taker_fee_ppm,
            )
        ]
        if state != "closed":
            commands.append(
                wire.OperatorCommand(
                    kind=OperatorCommandKind.SET_MARKET_STATE,
                    market_id=market_id,
                    market_state=_STATES[state],
                )
            )
        return expect(self._operate_all(commands, self._shard(shard))[0], MarketAdded)

    def set_market_sizes(
        self, market: str, *, tick_size: DecimalLike, lot_size: DecimalLike
    ) -> MarketSizesSet:
        """Operator: another tick and lot size for a market that is closed and empty.

        Its last and reference price and its largest quantity are forgotten; orders made for the sizes before are
        refused. Raises MarketNotClosed, MarketNotEmpty, SizesInvalid.
        """
        found = self._catalogue.market(market)
        lot, tick = _units(
            self._catalogue.asset(found.base_asset_id),
            self._catalogue.asset(found.quote_asset_id),
            tick_size,
            lot_size,
        )
        command = wire.OperatorCommand(
            kind=OperatorCommandKind.SET_MARKET_SIZES,
            market_id=found.market_id,
            base_units_per_lot=lot,
            quote_units_per_tick_lot=tick,
        )
        return expect(self._operate(command, found.shard), MarketSizesSet)

    def _shard(self, shard: int) -> int:
        if shard not in range(self.genesis.shards):
            raise ShardUnknown(detail=f"{shard} is none of 0 to {self.genesis.shards - 1}")
        return shard

    def _move(
        self, kind: OperatorCommandKind, account_id: int, asset: str, amount: DecimalLike, shard: int
    ) -> OperatorOutcome:
        found = self._catalogue.asset(asset)
        self._shard(shard)
        command = wire.OperatorCommand(
            kind=kind,
            account_id=_account(account_id),
            asset_id=found.asset_id,
            amount=amount_to_units(found, amount),
        )
        return self._operate(command, shard)


def expect(outcome: object, kind: type[T]) -> T:
    """The outcome, which must be of this kind; anything else is not an answer to what was asked."""
    if not isinstance(outcome, kind):
        raise ProtocolViolation(
            f"the exchange answered with {type(outcome).__name__} instead of {kind.__name__}"
        )
    return outcome


def _account(account_id: int) -> int:
    """An account's number that the wire can carry. Raises UnknownAccount: no account has another."""
    if not 0 <= account_id < ACCOUNT_NONE:
        raise UnknownAccount(detail=f"{account_id} is no number of an account")
    return account_id


def _public_key(key: bytes | str | VerifyKey) -> bytes:
    raw = bytes.fromhex(key) if isinstance(key, str) else bytes(key)
    if len(raw) != PUBLIC_KEY_BYTES:
        raise ValueError(f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(raw)}")
    return raw


def _symbol(symbol: str) -> bytes:
    """In its field. Raises SymbolInvalid; whether it is one otherwise is for the exchange to say."""
    try:
        return encode_symbol(symbol)
    except ValueError as error:
        raise SymbolInvalid(detail=str(error)) from None


def _units(base: Asset, quote: Asset, tick_size: DecimalLike, lot_size: DecimalLike) -> tuple[int, int]:
    """Base units per lot, quote units per tick and lot. Raises SizesInvalid."""
    tick, lot = to_decimal(tick_size, "tick_size"), to_decimal(lot_size, "lot_size")
    if not (tick > 0 and lot > 0):
        raise SizesInvalid(detail="tick and lot size are above zero")
    try:
        return units_of(base, quote, tick, lot)
    except GenesisError as error:
        raise SizesInvalid(detail=str(error)) from None
