"""The operator's hand for the admin API: the SDK with the operator's key, one call after the other, in a thread.

A command that was sent and not answered may have been applied, and must not be made again under another nonce. So its
signed bytes are kept and sent again, which tells what became of it and applies nothing twice, before anything else is
sent: behind a higher nonce they would no longer be taken. Of what moves money or opens an account the outcome is then
kept for the next call that asks for the same. All of this is lost with the process, so the error says that the call
is not to be repeated blindly.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from nacl.signing import SigningKey

from webapp.problems import OUTCOME_UNKNOWN, Problem
from zexchange.client import (
    AccountOpened,
    Client,
    Deposited,
    OutcomeUnknown,
    Rejected,
    Withdrawn,
    ZexchangeError,
)
from zexchange.client.rejections import KeyExists
from zexchange.definitions import Definitions
from zexchange.genesis import Asset, Genesis, Market
from zexchange.limits import AMOUNT_MAX
from zexchange.wire.messages import Balance, ExecutionReport

T = TypeVar("T")

DEMO_FUNDS = {True: 1_000_000, False: 100}
"""Of a quote asset, and of another, for an account on a demo; in units of the asset."""
_SUPPLY_SHARE = 100_000
"""No more than this part of what there can be of an asset."""
REMEMBERED_MAX = 10_000
"""Outcomes that were not told, accounts that are not open on all shards, gifts: so many of each."""


class KeyTaken(Problem):
    """The key has an account. Who has read the log up to this record knows which."""

    def __init__(self, detail: str, shard: int, record_no: int) -> None:
        super().__init__("KEY_EXISTS", detail)
        self.shard = shard
        self.record_no = record_no


class EngineView(Protocol):
    """What is asked of the replica of a shard."""

    def account_of_key(self, public_key: bytes) -> int | None: ...

    def balances(self, account_id: int) -> Collection[Balance]: ...


class Replica(Protocol):
    """What the log says; the follower."""

    def engines(self) -> Mapping[int, EngineView]: ...

    async def reached(self, shard: int, record_no: int) -> None: ...


class Moved(NamedTuple):
    """What was deposited or withdrawn; `repeated` if it was by an earlier call, of which that was not known."""

    outcome: Deposited | Withdrawn
    repeated: bool


class _Waiting(ZexchangeError):
    """An earlier command is not answered yet, and nothing was sent."""


class _Remembered(OrderedDict[Hashable, T]):
    """The newest entries."""

    def keep(self, key: Hashable, value: T) -> None:
        self[key] = value
        if len(self) > REMEMBERED_MAX:
            self.popitem(last=False)


class Operator:
    """Admin calls as signed commands. All methods raise Problem."""

    def __init__(
        self,
        host: str,
        port: int,
        key: SigningKey,
        genesis: Genesis,
        definitions: Definitions,
        connect: Callable[[], Client] | None = None,
    ) -> None:
        """`connect`: instead of TCP, for tests."""
        self._connect = connect or (lambda: Client(host, port, key=key))
        self._genesis = genesis
        self._definitions = definitions
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="operator")
        # Everything from here on is touched in the thread alone.
        self._client: Client | None = None
        self._unknown: tuple[Hashable, OutcomeUnknown] | None = None
        """What was asked for last, if nobody answered; None for what is not to be told later."""
        self._settled: _Remembered[Any] = _Remembered()
        """What became of such commands, by what was asked for."""
        self._half_open: _Remembered[dict[int, int]] = _Remembered()
        """By key: on which shards it has an account, and which, where opening it came to no end."""
        self._given: _Remembered[None] = _Remembered()
        """Play money, by account, shard and asset: the replica sees it a moment later."""
        self._spare_keys: list[SigningKey] = []
        """Made here, and nobody was told: they may have accounts."""

    async def open_account(self, public_key: bytes, replica: Replica | None = None) -> int:
        """Returns the account's id. Raises KeyTaken. With a replica it is opened on the shards that lack it."""
        known = {} if replica is None else _accounts(replica, public_key)
        if len(known) == self._genesis.shards:
            known = {}  # the exchange may say so
        return await self._call(lambda client: self._open(client, public_key, known))

    async def open_new_account(self) -> tuple[SigningKey, int]:
        """An account for a key that is made here."""

        def open_new(client: Client) -> tuple[SigningKey, int]:
            # One that an earlier call has made, who never heard of it, is as good as new.
            key = self._spare_keys.pop() if self._spare_keys else SigningKey.generate()
            public_key = bytes(key.verify_key)
            try:
                return key, self._open(client, public_key, {})
            except ZexchangeError:
                if public_key in self._half_open:
                    self._spare_keys.append(key)
                raise

        return await self._call(open_new)

    async def open_demo_account(self, public_key: bytes, replica: Replica) -> int:
        """An account with play money, or play money of assets that the account has never had. May be repeated."""
        try:
            account_id = await self._demo_account(public_key, replica)
            has = {
                (shard, one.asset_id)
                for shard, engine in replica.engines().items()
                for one in engine.balances(account_id)
            }
            await self._give_play_money(account_id, has)
        except Problem as problem:
            if problem.code == OUTCOME_UNKNOWN:
                problem.retryable = True
            raise
        return account_id

    async def _demo_account(self, public_key: bytes, replica: Replica) -> int:
        known = _accounts(replica, public_key)
        if len(known) == self._genesis.shards:
            return next(iter(known.values()))
        try:
            return await self._call(lambda client: self._open(client, public_key, known))
        except KeyTaken as taken:
            try:
                await replica.reached(taken.shard, taken.record_no)
            except TimeoutError:
                raise Problem(
                    "NOT_READY", "the log is not followed far enough to know this account"
                ) from None
        known = _accounts(replica, public_key)
        return await self._call(lambda client: self._open(client, public_key, known))

    async def deposit(self, account_id: int, asset_id: int, amount: str, shard: int) -> Moved:
        return await self._move(Client.deposit, account_id, asset_id, amount, shard)

    async def withdraw(self, account_id: int, asset_id: int, amount: str, shard: int) -> Moved:
        return await self._move(Client.withdraw, account_id, asset_id, amount, shard)

    async def set_market_state(self, symbol: str, state: Any) -> Any:
        return await self._change(
            lambda client: client.set_market_state(symbol, state), UNKNOWN_MARKET="market"
        )

    async def add_asset(self, symbol: str, decimals: int, asset_id: int | None) -> Asset:
        """On every shard."""

        def add(client: Client) -> Asset:
            client.add_asset(symbol, decimals, asset_id=asset_id)
            return client.asset(symbol)

        return await self._change(add)

    async def add_market(self, symbol: str, base: str, quote: str, **terms: Any) -> Market:
        def add(client: Client) -> Market:
            client.add_market(symbol, base, quote, **terms)
            return client.market(symbol)

        return await self._change(add)

    async def set_market_sizes(self, symbol: str, tick_size: str, lot_size: str) -> Market:
        def resize(client: Client) -> Market:
            client.set_market_sizes(symbol, tick_size=tick_size, lot_size=lot_size)
            return client.market(symbol)

        return await self._change(resize, UNKNOWN_MARKET="market")

    async def _change(self, change: Callable[[Client], T], **fields: str) -> T:
        """Made twice it is refused, or changes nothing: its outcome is not kept for the next call."""
        return await self._call(lambda client: self._once(client, None, lambda: change(client))[0], **fields)

    async def _give_play_money(self, account_id: int, has: Collection[tuple[int, int]]) -> None:
        """Funds in every asset, on every shard; but for those (shard, asset id) that the account has had."""
        quotes = {market.quote_asset_id for market in self._definitions.markets.values()}
        for shard in range(self._genesis.shards):
            for asset in list(self._definitions.assets.values()):
                if (shard, asset.asset_id) in has:
                    continue
                most = Decimal(AMOUNT_MAX // _SUPPLY_SHARE).scaleb(-asset.decimals)
                amount = min(Decimal(DEMO_FUNDS[asset.asset_id in quotes]), most)
                try:
                    await self._call(partial(self._give, account_id, asset.symbol, amount, shard))
                except Problem as problem:
                    if problem.code != "UNKNOWN_ASSET":  # one that was added may be missing on some shard
                        raise

    def close(self) -> None:
        self._executor.shutdown()
        if self._client is not None:
            self._client.close()

    # ---------------------------------------------------------------- in the thread

    def _open(self, client: Client, public_key: bytes, known: Mapping[int, int]) -> int:
        """On the shards that lack the account, of which none is known and none was opened before."""
        half_open = self._half_open.pop(public_key, {})
        opened = {**half_open, **known}
        account_id = next(iter(opened.values()), None)
        try:
            for shard in range(self._genesis.shards):
                if shard in opened:
                    continue
                done, _ = self._once(
                    client,
                    ("open_account", public_key, shard),
                    partial(client.open_account, public_key, account_id, shards=[shard]),
                )
                assert isinstance(done, AccountOpened)
                account_id = opened[shard] = done.account_id
        except ZexchangeError as error:
            if opened or (isinstance(error, OutcomeUnknown) and not error.final):
                self._half_open.keep(public_key, opened)
            raise
        assert account_id is not None, "a deployment has at least one shard"
        return account_id

    def _give(self, account_id: int, asset: str, amount: Decimal, shard: int, client: Client) -> None:
        gift = ("play money", account_id, asset, shard)
        if gift in self._given:
            return
        self._once(client, gift, lambda: client.deposit(account_id, asset, amount, shard=shard))
        self._given.keep(gift, None)

    async def _move(
        self,
        move: Callable[..., Deposited | Withdrawn],
        account_id: int,
        asset_id: int,
        amount: str,
        shard: int,
    ) -> Moved:
        def work(client: Client) -> Moved:
            asset = client.asset(asset_id).symbol
            asked = (move.__name__, account_id, asset_id, Decimal(amount), shard)
            done, repeated = self._once(
                client, asked, lambda: move(client, account_id, asset, amount, shard=shard)
            )
            assert isinstance(done, Deposited | Withdrawn)
            return Moved(done, repeated)

        return await self._call(work, UNKNOWN_ASSET="asset_id")

    def _once(self, client: Client, asked: Hashable, call: Callable[[], T]) -> tuple[T, bool]:
        """The outcome of the call; if nobody answered an earlier one for the same, what became of that, and True."""
        self._settle(client, asked)
        if asked is not None and asked in self._settled:
            outcome = self._settled.pop(asked)
            if isinstance(outcome, ZexchangeError):
                raise outcome
            return outcome, True
        try:
            return call(), False
        except OutcomeUnknown as error:
            self._unknown = asked, error
            raise

    def _settle(self, client: Client, asked: Hashable) -> None:
        """Find out what became of the command that nobody answered. Raises OutcomeUnknown, _Waiting."""
        if self._unknown is None:
            return
        before, unknown = self._unknown
        outcome: object
        try:
            outcome = client.resolve(unknown)[0]
        except Rejected as rejected:
            outcome = rejected
        except OutcomeUnknown as error:
            if not error.final:
                if before is not None and before == asked:
                    raise
                raise _Waiting(f"an earlier command is not answered yet: {error}") from None
            outcome = error
        self._unknown = None
        if before is not None:
            self._settled.keep(before, outcome)

    async def _call(self, call: Callable[[Client], T], **fields: str) -> T:
        """`fields`: which field of the request a reason is about."""

        def work() -> T:
            if self._client is None:
                self._client = self._connect()
            return call(self._client)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except Rejected as error:
            if isinstance(error, KeyExists) and isinstance(error.report, ExecutionReport):
                raise KeyTaken(str(error), error.report.shard, error.report.record_no) from None
            name = error.reason.name
            raise Problem(name, str(error), field=fields.get(name, "")) from None
        except OutcomeUnknown as error:
            raise Problem(OUTCOME_UNKNOWN, _advice(error), retryable=False) from None
        except ZexchangeError as error:
            raise Problem("SERVER_BUSY", str(error)) from None
        except (TypeError, ValueError) as error:
            raise Problem("BAD_REQUEST", str(error)) from None


def _accounts(replica: Replica, public_key: bytes) -> dict[int, int]:
    """By shard, as far as the log was followed."""
    found = {shard: engine.account_of_key(public_key) for shard, engine in replica.engines().items()}
    return {shard: account_id for shard, account_id in found.items() if account_id is not None}


def _advice(error: OutcomeUnknown) -> str:
    if error.final:
        return "it may have been done, and the exchange no longer knows: look at what there is before you call again"
    return (
        "no answer, and it may have been done. As long as this process runs, the next call that asks for the same tells"
        " what became of this one, and does nothing twice"
    )
