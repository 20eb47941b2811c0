"""The admin API: the operator's commands over HTTP. Each becomes a command in the log, signed with the operator's key.

On loopback it trusts whoever reaches it, as the key file on the same machine would; elsewhere every request carries
`Authorization: Bearer` with the token of web.admin_token.
"""

from __future__ import annotations

import hmac
from typing import Any

import msgspec

from webapp.http import Handler
from webapp.operator import Operator
from webapp.parsing import decimal_of, key_of
from webapp.problems import Problem
from zexchange.client.types import MarketStateName
from zexchange.genesis import Market
from zexchange.limits import ASSET_DECIMALS_MAX, FEE_PPM_MAX, ID_MAX


class UserRequest(msgspec.Struct, frozen=True):
    """Without a public key (hex) a key pair is made, on a demo deployment."""

    public_key: str = ""


class UserReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """`private_key` is the seed in hex, of a key pair that was made: it is nowhere else."""

    user_id: int
    public_key: str
    private_key: str = ""


class FundsRequest(msgspec.Struct, frozen=True):
    """`amount` in units of the asset, as a decimal."""

    user_id: int
    asset_id: int
    amount: str
    shard: int = 0


class FundsReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """`repeated`: an earlier call for the same has done it, which was answered with TIMEOUT; this one did nothing."""

    user_id: int
    asset_id: int
    asset: str
    amount: str
    repeated: bool = False


class MarketStateRequest(msgspec.Struct, frozen=True):
    state: MarketStateName


class MarketStateReply(msgspec.Struct, frozen=True):
    market: str
    state: str


class AssetRequest(msgspec.Struct, frozen=True):
    """Without an id the next free one is taken. An asset that some shards have already is added on the others."""

    symbol: str
    decimals: int
    asset_id: int | None = None


class AssetReply(msgspec.Struct, frozen=True):
    asset_id: int
    symbol: str
    decimals: int


class MarketRequest(msgspec.Struct, frozen=True):
    """Sizes are decimals: the price step in the quote asset, the quantity step in the base asset."""

    symbol: str
    base: str
    quote: str
    tick_size: str
    lot_size: str
    maker_fee_ppm: int = 0
    taker_fee_ppm: int = 0
    market_id: int | None = None
    shard: int = 0
    state: MarketStateName = "continuous"


class MarketReply(msgspec.Struct, frozen=True):
    """`sizes_no`: how often tick and lot size have changed."""

    market_id: int
    symbol: str
    shard: int
    tick_size: str
    lot_size: str
    sizes_no: int


class SizesRequest(msgspec.Struct, frozen=True):
    tick_size: str
    lot_size: str


class AdminHandler(Handler):
    """Base: who may call, and by what operator. Ids are taken as numbers and as strings, as the API writes them."""

    limited = False
    lax = True

    def prepare(self) -> None:
        super().prepare()
        token = self.web.config.web.admin_token
        if token:
            _, _, given = self.request.headers.get("Authorization", "").partition(" ")
            if not hmac.compare_digest(given.strip().encode(), token.encode()):
                self._stand(**{"WWW-Authenticate": 'Bearer realm="zexchange admin"'})
                raise Problem("UNAUTHORIZED", "the operator's token is wanted")

    def operator(self) -> Operator:
        """Raises Problem."""
        if self.web.operator is None:
            raise Problem("FORBIDDEN", "this process has no operator key")
        return self.web.operator


class UsersHandler(AdminHandler):
    """POST /users"""

    async def post(self) -> None:
        # curl -X POST without a body names no type of it.
        request = self.json(UserRequest) if self.request.body else UserRequest()
        if request.public_key:
            key = key_of(request.public_key)
            user_id = await self.operator().open_account(key, self.web.follower)
            self.reply(UserReply(user_id, key.hex()), 201)
            return
        if not self.web.demo:
            raise Problem(
                "BAD_REQUEST", "public_key is wanted: only a demo makes keys for others", field="public_key"
            )
        made, user_id = await self.operator().open_new_account()
        self.reply(UserReply(user_id, bytes(made.verify_key).hex(), bytes(made).hex()), 201)


class FundsHandler(AdminHandler):
    """POST /deposit and POST /withdraw"""

    async def post(self) -> None:
        request = self.json(FundsRequest)
        for field, value in (("user_id", request.user_id), ("asset_id", request.asset_id)):
            if not 0 <= value <= ID_MAX:
                raise Problem("BAD_REQUEST", f"{field} is a number from 0 to {ID_MAX}", field=field)
        if not 0 <= request.shard < self.web.genesis.shards:
            raise Problem("SHARD_UNKNOWN", f"no shard {request.shard}", field="shard")
        operator = self.operator()
        call = operator.deposit if self.request.path == "/deposit" else operator.withdraw
        amount = decimal_of(request.amount, "amount")
        done, repeated = await call(request.user_id, request.asset_id, amount, request.shard)
        self.reply(FundsReply(request.user_id, request.asset_id, done.asset, str(done.amount), repeated))


class MarketStateHandler(AdminHandler):
    """POST /markets/{symbol}/state"""

    async def post(self, symbol: str) -> None:
        request = self.json(MarketStateRequest)
        done = await self.operator().set_market_state(symbol, request.state)
        self.reply(MarketStateReply(done.market, done.state))


class AssetsHandler(AdminHandler):
    """POST /assets"""

    async def post(self) -> None:
        request = self.json(AssetRequest)
        if not 0 <= request.decimals <= ASSET_DECIMALS_MAX:
            raise Problem("DECIMALS_INVALID", f"decimals are 0 to {ASSET_DECIMALS_MAX}", field="decimals")
        _check_id(request.asset_id, "asset_id")
        asset = await self.operator().add_asset(request.symbol, request.decimals, request.asset_id)
        self.reply(AssetReply(asset.asset_id, asset.symbol, asset.decimals), 201)


class MarketsHandler(AdminHandler):
    """POST /markets"""

    async def post(self) -> None:
        request = self.json(MarketRequest)
        _check_id(request.market_id, "market_id")
        for field, least, value in (
            ("maker_fee_ppm", -FEE_PPM_MAX, request.maker_fee_ppm),
            ("taker_fee_ppm", 0, request.taker_fee_ppm),
        ):
            if not least <= value <= FEE_PPM_MAX:
                raise Problem("FEES_INVALID", f"{field} is {least} to {FEE_PPM_MAX}", field=field)
        market = await self.operator().add_market(
            request.symbol,
            request.base,
            request.quote,
            tick_size=decimal_of(request.tick_size, "tick_size"),
            lot_size=decimal_of(request.lot_size, "lot_size"),
            maker_fee_ppm=request.maker_fee_ppm,
            taker_fee_ppm=request.taker_fee_ppm,
            market_id=request.market_id,
            shard=request.shard,
            state=request.state,
        )
        self.reply(_market_reply(market), 201)


class MarketSizesHandler(AdminHandler):
    """POST /markets/{symbol}/sizes"""

    async def post(self, symbol: str) -> None:
        request = self.json(SizesRequest)
        tick_size = decimal_of(request.tick_size, "tick_size")
        lot_size = decimal_of(request.lot_size, "lot_size")
        market = await self.operator().set_market_sizes(symbol, tick_size, lot_size)
        self.reply(_market_reply(market))


def _check_id(number: int | None, field: str) -> None:
    if number is not None and not 1 <= number <= ID_MAX:
        raise Problem("ID_INVALID", f"{field} is a number from 1 to {ID_MAX}", field=field)


def _market_reply(market: Market) -> MarketReply:
    return MarketReply(
        market_id=market.market_id,
        symbol=market.symbol,
        shard=market.shard,
        tick_size=f"{market.tick_size:f}",
        lot_size=f"{market.lot_size:f}",
        sizes_no=market.sizes_no,
    )


def routes() -> list[tuple[str, Any]]:
    """Path and handler."""
    return [
        ("/users", UsersHandler),
        ("/deposit", FundsHandler),
        ("/withdraw", FundsHandler),
        ("/assets", AssetsHandler),
        ("/markets", MarketsHandler),
        ("/markets/([^/]+)/state", MarketStateHandler),
        ("/markets/([^/]+)/sizes", MarketSizesHandler),
    ]
