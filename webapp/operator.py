"""The operator's hand for the admin API: the SDK with the operator's key, one call after the other, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, TypeVar

from nacl.signing import SigningKey

from webapp.problems import Problem
from zexchange.client import Client, Rejected, ZexchangeError
from zexchange.definitions import Definitions
from zexchange.genesis import Asset, Genesis, Market
from zexchange.limits import AMOUNT_MAX

T = TypeVar("T")

DEMO_FUNDS = {True: 1_000_000, False: 100}
"""Of a quote asset, and of another, for an account on a demo; in units of the asset."""
_SUPPLY_SHARE = 100_000
"""No more than this part of what there can be of an asset."""


class Operator:
    """Admin calls as signed commands. All methods raise Problem."""

    def __init__(
        self, host: str, port: int, key: SigningKey, genesis: Genesis, definitions: Definitions
    ) -> None:
        self._host = host
        self._port = port
        self._key = key
        self._genesis = genesis
        self._definitions = definitions
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="operator")
        self._client: Client | None = None

    async def open_account(self, public_key: bytes) -> int:
        """Returns the account's id."""
        return await self._call(lambda client: client.open_account(public_key).account_id)

    async def deposit(self, account_id: int, asset_id: int, amount: str, shard: int) -> Any:
        return await self._call(
            lambda client: client.deposit(account_id, client.asset(asset_id).symbol, amount, shard=shard),
            UNKNOWN_ASSET="asset_id",
        )

    async def withdraw(self, account_id: int, asset_id: int, amount: str, shard: int) -> Any:
        return await self._call(
            lambda client: client.withdraw(account_id, client.asset(asset_id).symbol, amount, shard=shard),
            UNKNOWN_ASSET="asset_id",
        )

    async def set_market_state(self, symbol: str, state: Any) -> Any:
        return await self._call(
            lambda client: client.set_market_state(symbol, state), UNKNOWN_MARKET="market"
        )

    async def add_asset(self, symbol: str, decimals: int, asset_id: int | None) -> Asset:
        """On every shard."""

        def add(client: Client) -> Asset:
            client.add_asset(symbol, decimals, asset_id=asset_id)
            return client.asset(symbol)

        return await self._call(add)

    async def add_market(self, symbol: str, base: str, quote: str, **terms: Any) -> Market:
        def add(client: Client) -> Market:
            client.add_market(symbol, base, quote, **terms)
            return client.market(symbol)

        return await self._call(add)

    async def set_market_sizes(self, symbol: str, tick_size: str, lot_size: str) -> Market:
        def resize(client: Client) -> Market:
            client.set_market_sizes(symbol, tick_size=tick_size, lot_size=lot_size)
            return client.market(symbol)

        return await self._call(resize, UNKNOWN_MARKET="market")

    async def give_play_money(self, account_id: int, has: Collection[tuple[int, int]]) -> None:
        """Funds in every asset, on every shard; but for those (shard, asset id) that the account has had."""
        quotes = {market.quote_asset_id for market in self._definitions.markets.values()}
        for shard in range(self._genesis.shards):
            for asset in list(self._definitions.assets.values()):
                if (shard, asset.asset_id) in has:
                    continue
                most = Decimal(AMOUNT_MAX // _SUPPLY_SHARE).scaleb(-asset.decimals)
                amount = min(Decimal(DEMO_FUNDS[asset.asset_id in quotes]), most)
                try:
                    await self.deposit(account_id, asset.asset_id, f"{amount:f}", shard)
                except Problem as problem:
                    if problem.code != "UNKNOWN_ASSET":  # one that was added may be missing on some shard
                        raise

    def close(self) -> None:
        self._executor.shutdown()
        if self._client is not None:
            self._client.close()

    async def _call(self, call: Callable[[Client], T], **fields: str) -> T:
        """`fields`: which field of the request a reason is about."""

        def work() -> T:
            if self._client is None:
                self._client = Client(self._host, self._port, key=self._key)
            return call(self._client)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except Rejected as error:
            name = error.reason.name
            raise Problem(name, str(error), field=fields.get(name, "")) from None
        except ZexchangeError as error:
            raise Problem("SERVER_BUSY", str(error)) from None
        except (TypeError, ValueError) as error:
            raise Problem("BAD_REQUEST", str(error)) from None
