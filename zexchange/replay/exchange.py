"""Where a LOBSTER replay runs: an exchange for the purpose, or one that runs already, with two fresh accounts on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nacl.signing import SigningKey

from zexchange.client import Client, ZexchangeError, load_key
from zexchange.genesis import AssetSpec, EngineLimits, MarketSpec
from zexchange.replay.driver import Replay, ReplayReport, check_files, find_market, funds_needed
from zexchange.replay.lobster import BookRow, LobsterError, Message
from zexchange.runtime.paths import DataPaths

if TYPE_CHECKING:
    from zexchange.runtime.running import RunningExchange

__all__ = ["REPLAY_ASSETS", "REPLAY_MARKETS", "prepare_folder", "replay_on", "temporary_exchange"]

REPLAY_ASSETS = (
    AssetSpec(id=1, symbol="USD", decimals=6),
    AssetSpec(id=2, symbol="AAPL", decimals=0),
)
REPLAY_MARKETS = (
    # The tick is the unit of the files, so that every price they can hold fits. No fees: only the book is compared.
    MarketSpec(id=1, symbol="AAPL-USD", base="AAPL", quote="USD", tick_size="0.0001", lot_size="1"),
)
REPLAY_LIMITS = EngineLimits(
    max_accounts=1024, max_keys=1024, max_balances=4096, max_orders=1_048_576, max_outcomes=65_536
)


def prepare_folder(paths: DataPaths) -> bool:
    """Make a deployment with one stock market if the folder has none; True if it was made."""
    from zexchange.runtime.deployment import create_deployment

    if paths.genesis.exists():
        return False
    create_deployment(
        paths, name="replay", assets=REPLAY_ASSETS, markets=REPLAY_MARKETS, engine_limits=REPLAY_LIMITS
    )
    return True


@contextmanager
def temporary_exchange(
    paths: DataPaths, config_file: Path | None, port_base: int | None
) -> Iterator[RunningExchange]:
    """An exchange that runs in the folder for the block; the folder stays. Raises NotRunning, LobsterError."""
    from zexchange.runtime.exchange_info import is_supervised, read_exchange
    from zexchange.runtime.running import RunningExchange

    if is_supervised(paths):
        info = read_exchange(paths)
        address = "HOST:PORT" if info is None else f"{info.tcp.host}:{info.tcp.port}"
        raise LobsterError(
            f"an exchange runs in {paths.root} already; replay into it with --connect {address}"
        )
    with RunningExchange(paths.root, port_base=port_base, config_file=config_file) as exchange:
        yield exchange


def replay_on(
    address: tuple[str, int],
    operator_key: Path,
    messages: Sequence[Message],
    rows: Sequence[BookRow],
    symbol: str | None = None,
    on_row: Callable[[int, Message], None] = lambda _row, _message: None,
) -> ReplayReport:
    """Open and fund two accounts with fresh keys, replay, and cancel what is left of their orders.

    Raises LobsterError and what the client raises.
    """
    check_files(messages, rows)
    host, port = address
    with ExitStack() as stack:
        operator = stack.enter_context(Client(host, port, key=load_key(operator_key)))
        market = find_market(operator, symbol, messages, rows)
        funds = funds_needed(messages, rows, market)
        sessions = []
        for asset_id, amount in ((market.quote_asset_id, funds.quote), (market.base_asset_id, funds.base)):
            key = SigningKey.generate()
            account = operator.open_account(key.verify_key)
            asset = operator.asset(asset_id).symbol
            if amount:  # nothing, if the files hold no order
                operator.deposit(account.account_id, asset, amount, shard=market.shard)
            sessions.append(
                stack.enter_context(Client(host, port, key=key, deployment_id=operator.deployment_id))
            )
        buyer, seller = sessions
        replay = Replay(buyer, seller, operator, market, messages, rows)
        try:
            report = replay.run(on_row)
        except BaseException:
            with suppress(ZexchangeError):  # why the replay ended is what matters
                replay.clear()
            raise
        replay.clear()
        return report
