"""The admin API: the operator's commands over HTTP. Each becomes a command in the log, signed with the operator's key.

On loopback it trusts whoever reaches it, as the key file on the same machine would; elsewhere every request carries
`Authorization: Bearer` with the token of web.admin_token.
"""

from __future__ import annotations

import hmac
from typing import Any

import msgspec
from nacl.signing import SigningKey

from webapp.http import Handler
from webapp.operator import Operator
from webapp.problems import Problem
from webapp.rest import key_of
from zexchange.client.types import MarketStateName
from zexchange.limits import ID_MAX


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


class FundsReply(msgspec.Struct, frozen=True):
    user_id: int
    asset_id: int
    asset: str
    amount: str


class MarketStateRequest(msgspec.Struct, frozen=True):
    state: MarketStateName


class MarketStateReply(msgspec.Struct, frozen=True):
    market: str
    state: str


class AdminHandler(Handler):
    """Base: who may call, and by what operator."""

    limited = False

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
            self.reply(UserReply(await self.operator().open_account(key), key.hex()), 201)
            return
        if not self.web.demo:
            raise Problem(
                "BAD_REQUEST", "public_key is wanted: only a demo makes keys for others", field="public_key"
            )
        made = SigningKey.generate()
        public_key = bytes(made.verify_key)
        user_id = await self.operator().open_account(public_key)
        self.reply(UserReply(user_id, public_key.hex(), bytes(made).hex()), 201)


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
        done = await call(request.user_id, request.asset_id, request.amount, request.shard)
        self.reply(FundsReply(request.user_id, request.asset_id, done.asset, str(done.amount)))


class MarketStateHandler(AdminHandler):
    """POST /markets/{symbol}/state"""

    async def post(self, symbol: str) -> None:
        market = self.web.market(symbol)
        request = self.json(MarketStateRequest)
        done = await self.operator().set_market_state(market.symbol, request.state)
        self.reply(MarketStateReply(market.symbol, done.state))


def routes() -> list[tuple[str, Any]]:
    """Path and handler."""
    return [
        ("/users", UsersHandler),
        ("/deposit", FundsHandler),
        ("/withdraw", FundsHandler),
        ("/markets/([^/]+)/state", MarketStateHandler),
    ]
