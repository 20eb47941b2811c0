"""Load on an exchange that runs already, by somebody who has no more than its users and its operator have.

    find it ─▶ refuse, or ─▶ accounts: open, empty, fund ─▶ the run of perf/load.py ─▶ cancel, take back ─▶ verify

Accounts are opened and funded by signed commands of the operator, whose key is in the data folder or is given; on a
demo without that key by what the trading page offers anybody. A trader's key is made from the operator's key and the
trader's number. So a later run finds the same accounts, cancels first what a run that was killed has left, and accounts
do not pile up, although none can ever be closed. At the end no order of the run is open, and what was deposited is
withdrawn but for the fees.

Prices are around the middle of the book as it is. Where its spread is wider than the band of the run, the run trades
with itself alone; else it trades with others as well, and says so.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec
from nacl.signing import SigningKey

from perf.floor import measure_floor
from perf.generator import GeneratorFailed
from perf.load import (
    LoadOptions,
    Measured,
    Target,
    Told,
    checkpoint_times_ns,
    frame_count,
    log_verifies,
    maker_count,
    measure,
    resting_per_maker,
    result_of,
    say,
)
from perf.results import Fsync, LoadResult
from perf.workload import BAND_TICKS, MIDDLE_TICKS, RESTING_LEVELS
from zexchange.cli import exits
from zexchange.client import Client, Rejected, ZexchangeError
from zexchange.client.errors import KeyFileError
from zexchange.client.keys import load_key
from zexchange.genesis import Genesis, Market
from zexchange.runtime.exchange_info import ExchangeInfo, is_supervised, read_exchange, take_lock
from zexchange.runtime.paths import DataPaths

Reason = Literal[
    "no-exchange",
    "cannot-connect",
    "load-running",
    "no-operator-key",
    "wrong-operator-key",
    "no-demo",
    "too-few-markets",
    "market-not-open",
    "price-too-low",
    "funds",
    "refused",
    "run-failed",
]
_EXIT_CODES: Mapping[Reason, int] = {
    "no-exchange": exits.CANNOT_CONNECT,
    "cannot-connect": exits.CANNOT_CONNECT,
    "refused": exits.REJECTED,
}
_LOCK = "load"
_KEY_TAG = b"zexchange/perf/load\0"
_FIRST_MAKER = 1_000_000
"""Number of the first account whose orders rest beforehand; traders count from 0."""
_REST_TICKS = 2 * BAND_TICKS + RESTING_LEVELS
"""How far from the middle an order of a run can be."""
_HTTP_TIMEOUT_S = 30.0


class CannotLoad(RuntimeError):
    """There can be no run, or it came to nothing; what was begun has been taken back. `reason` is for programs."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.exit_code = _EXIT_CODES.get(reason, exits.FAILURE)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the exchange is, and what may be done there."""

    host: str
    port: int
    operator_key: SigningKey | None
    demo_url: str = ""
    info: ExchangeInfo | None = None
    """None if there is only an address."""

    def client(self, key: SigningKey) -> Client:
        """Raises what Client raises."""
        deployment_id = None if self.info is None else self.info.deployment_id
        return Client(self.host, self.port, key=key, deployment_id=deployment_id)


def run_on_running(options: LoadOptions) -> LoadResult:
    """One run against the exchange that `data` or `connect` names. Raises CannotLoad."""
    place = find_place(options)
    try:
        with _alone(options), tempfile.TemporaryDirectory(prefix="zx-perf-") as name:
            return _run(options, place, Path(name))
    except Rejected as error:
        raise CannotLoad("refused", f"the exchange refuses: {error} [{error.reason.name.lower()}]") from error
    except ZexchangeError as error:
        raise CannotLoad("cannot-connect", str(error)) from error


def find_place(options: LoadOptions) -> Place:
    """The exchange as `data` or `connect` names it. Raises CannotLoad."""
    if options.connect is not None:
        if not options.operator_key and not options.demo_url:
            raise CannotLoad(
                "no-operator-key",
                "accounts have to be opened and funded: give --operator-key FILE, or --demo-url of a demo's page",
            )
        host, port = options.connect
        key = _operator_key(Path(options.operator_key)) if options.operator_key else None
        return Place(host=host, port=port, operator_key=key, demo_url=options.demo_url)
    paths = DataPaths(Path(options.data))
    info = read_exchange(paths)
    if info is None:
        state = "is starting or stopping" if is_supervised(paths) else "does not run"
        raise CannotLoad("no-exchange", f"the exchange in {paths.root} {state}")
    key_file = Path(options.operator_key) if options.operator_key else paths.operator_key
    demo_url = options.demo_url
    if not demo_url and info.web is not None and info.name.startswith("demo"):
        host = f"[{info.web.reachable_host}]" if ":" in info.web.reachable_host else info.web.reachable_host
        demo_url = f"http://{host}:{info.web.port}"
    if key_file.exists() or not demo_url or options.operator_key:
        key, demo_url = _operator_key(key_file), ""
    else:
        key = None
    return Place(
        host=info.tcp.reachable_host, port=info.tcp.port, operator_key=key, demo_url=demo_url, info=info
    )


def _operator_key(file: Path) -> SigningKey:
    try:
        return load_key(file)
    except KeyFileError as error:
        raise CannotLoad(
            "no-operator-key", f"accounts are opened and funded by the operator: {error}"
        ) from error


@contextmanager
def _alone(options: LoadOptions) -> Iterator[None]:
    """One run at a time on a data folder: two would trade with the same accounts."""
    if not options.data:
        yield
        return
    path = DataPaths(Path(options.data)).lock(_LOCK)
    lock = take_lock(path)
    if lock is None:
        raise CannotLoad("load-running", f"another run is at work on this exchange; it holds {path}")
    try:
        yield
    finally:
        os.close(lock)


def _run(options: LoadOptions, place: Place, folder: Path) -> LoadResult:
    with place.client(place.operator_key or SigningKey.generate()) as client:
        genesis = client.genesis
        if (
            place.operator_key is not None
            and bytes(place.operator_key.verify_key) != genesis.operator_public_key
        ):
            raise CannotLoad("wrong-operator-key", f"the key is not that of the operator of {genesis.name}")
        fsync: Fsync = "always" if client.status().shards[0].durability == "always" else "everysec"
        markets = markets_for(genesis, options.markets)
        middles = {market.market_id: middle_of(client, market, options) for market in markets}
    floors = []
    if place.info is not None:
        floors.append(measure_floor(fsync=fsync, rounds=options.floor_rounds))
    accounts = Accounts(place, genesis, markets[0].shard)
    with accounts.cleaned():
        keys = accounts.open(options.traders, 0, needs_of(genesis, markets, middles, *trader_share(options)))
        makers = accounts.open(
            maker_count(options),
            _FIRST_MAKER,
            needs_of(genesis, markets, middles, resting_per_maker(options), _REST_TICKS),
        )
        measured = _measure(options, _target(place, genesis, markets, middles), keys, makers, folder)
    told = Told(
        fsync=fsync,
        target="data" if options.data else "connect",
        left_orders=accounts.left_orders,
        problems=tuple(accounts.problems),
    )
    if place.info is not None:
        paths = DataPaths(Path(options.data))
        floors.append(measure_floor(fsync=fsync, rounds=options.floor_rounds))
        verified = (
            log_verifies(paths.root, place.info.processes["settlement"].cpus) if options.verify else None
        )
        told = msgspec.structs.replace(
            told,
            layout=place.info.pinning,
            checkpoint_times_ns=checkpoint_times_ns(paths, genesis.shards),
            verified=verified,
        )
    return result_of(options, measured, floors, told)


def _target(place: Place, genesis: Genesis, markets: Sequence[Market], middles: dict[int, int]) -> Target:
    info = place.info
    return Target(
        host=place.host,
        port=place.port,
        genesis=genesis,
        market_ids=tuple(market.market_id for market in markets),
        shard=markets[0].shard,
        middles=middles,
        pids=None
        if info is None
        else lambda: {name: one.pid for name, one in info.processes.items() if one.pid is not None},
        supervisor_pid=None if info is None else info.pid,
        cpus=() if info is None else info.processes["settlement"].cpus,
    )


def _measure(
    options: LoadOptions,
    target: Target,
    keys: Sequence[SigningKey],
    makers: Sequence[SigningKey],
    folder: Path,
) -> Measured:
    """Raises CannotLoad if there is nothing to tell."""
    import psutil

    try:
        measured = measure(target, keys, makers, options, folder)
    except psutil.NoSuchProcess as error:
        raise CannotLoad("run-failed", f"a process of the exchange ended during the run: {error}") from error
    except (GeneratorFailed, RuntimeError) as error:
        raise CannotLoad("run-failed", str(error)) from error
    if not measured.outcome.answered:
        raise CannotLoad("run-failed", f"no command was answered (error {measured.outcome.error})")
    return measured


# ---------------------------------------------------------------- what to trade


def markets_for(genesis: Genesis, count: int) -> tuple[Market, ...]:
    """The first markets of the first shard that has any: one frame goes to one shard. Raises CannotLoad."""
    found = genesis.markets_of(genesis.markets[0].shard)
    if count > len(found):
        raise CannotLoad(
            "too-few-markets", f"{count} markets are wanted, and {genesis.name} has {len(found)} on a shard"
        )
    return found[:count]


def middle_of(client: Client, market: Market, options: LoadOptions) -> int:
    """The price in ticks to trade around; tells if others will be met. Raises CannotLoad if the market is not open."""
    book = client.book(market.symbol, 1)
    if book.state != "continuous":
        raise CannotLoad("market-not-open", f"{market.symbol} is {book.state}: no order is taken there")
    bid = _ticks(book.bids[0].price, market) if book.bids else None
    ask = _ticks(book.asks[0].price, market) if book.asks else None
    if bid is not None and ask is not None:
        middle = (bid + ask) // 2
        if ask - bid <= 2 * BAND_TICKS + 1:
            say(
                f"{market.symbol}: others have orders within the band of prices; some trades will be with them"
            )
    elif bid is not None:
        middle = bid + BAND_TICKS + 1
    elif ask is not None:
        middle = ask - BAND_TICKS - 1
    else:
        trades = client.trades(market.symbol, 1)
        middle = _ticks(trades[0].price, market) if trades else MIDDLE_TICKS
    away = _REST_TICKS if options.resting else BAND_TICKS
    if middle <= away:
        raise CannotLoad(
            "price-too-low",
            f"{market.symbol} trades at {middle} ticks, and the run needs prices {away:,} ticks below that",
        )
    return middle


def _ticks(price: Decimal, market: Market) -> int:
    return int(price / market.tick_size)


def trader_share(options: LoadOptions) -> tuple[int, int]:
    """Commands of one trader at most, and how far from the middle their prices are."""
    return -(-frame_count(options) // options.traders) * options.batch, BAND_TICKS


def needs_of(
    genesis: Genesis, markets: Sequence[Market], middles: Mapping[int, int], commands: int, away_ticks: int
) -> dict[str, Decimal]:
    """What an account needs of each asset if all its commands went to the dearest side of the dearest market."""
    units: dict[int, int] = {}
    for market in markets:
        notional = market.quote_units_per_tick_lot * (middles[market.market_id] + away_ticks)
        fee = -(-notional * max(market.maker_fee_ppm, market.taker_fee_ppm) // 1_000_000)
        for asset_id, cost in (
            (market.quote_asset_id, notional + fee + 1),
            (market.base_asset_id, market.base_units_per_lot),
        ):
            units[asset_id] = max(units.get(asset_id, 0), commands * cost)
    return {
        asset.symbol: Decimal(units[asset.asset_id]).scaleb(-asset.decimals)
        for asset in genesis.assets
        if asset.asset_id in units
    }


# ---------------------------------------------------------------- accounts


def key_of(operator_key: SigningKey, number: int) -> SigningKey:
    """The key of an account of runs: the same for the same operator and number, and known to the operator only."""
    secret = hashlib.sha256(_KEY_TAG + bytes(operator_key) + number.to_bytes(8, "little")).digest()
    return SigningKey(secret)


class Accounts:
    """The accounts of a run, on one shard."""

    def __init__(self, place: Place, genesis: Genesis, shard: int) -> None:
        self._place = place
        self._genesis = genesis
        self._shard = shard
        self._keys: list[SigningKey] = []
        self.left_orders: int | None = None
        """After the end: orders that are still open; None if that could not be asked."""
        self.problems: list[str] = []
        """What could not be taken back, in sentences."""

    def open(self, count: int, first: int, needs: Mapping[str, Decimal]) -> list[SigningKey]:
        """Accounts with what is needed, none of whose orders is open. Raises CannotLoad and what Client raises."""
        with ExitStack() as stack:
            operator_key = self._place.operator_key
            operator = None if operator_key is None else stack.enter_context(self._place.client(operator_key))
            opened = []
            for number in range(first, first + count):
                key = SigningKey.generate() if operator_key is None else key_of(operator_key, number)
                # From here on it is ours to clean up, whatever happens.
                self._keys.append(key)
                opened.append(key)
                self._prepare(key, operator, needs)
        return opened

    def _prepare(self, key: SigningKey, operator: Client | None, needs: Mapping[str, Decimal]) -> None:
        public_key = bytes(key.verify_key)
        if operator is None:
            open_demo_account(self._place.demo_url, public_key)
        with self._place.client(key) as client:
            account_id = client.account_id
            if account_id is None and operator is not None:
                account_id = operator.open_account(public_key).account_id
            elif account_id is not None:
                client.cancel_all()
            else:
                raise CannotLoad(
                    "no-demo", f"the page at {self._place.demo_url} opened the account on another exchange"
                )
            have = {row.asset: row.available for row in client.balances()}
        for asset, amount in needs.items():
            missing = amount - have.get(asset, Decimal(0))
            if missing <= 0:
                continue
            if operator is None:
                raise CannotLoad(
                    "funds",
                    f"the run needs {amount:f} {asset} per account, and an account on this demo gets "
                    f"{have.get(asset, Decimal(0)):f}; a shorter or slower run, or more traders, need less",
                )
            try:
                operator.deposit(account_id, asset, missing, shard=self._shard)
            except Rejected as error:
                raise CannotLoad(
                    "funds", f"{missing:f} {asset} could not be deposited for account {account_id}: {error}"
                ) from error

    @contextmanager
    def cleaned(self) -> Iterator[None]:
        """Take everything back at the end of the block, however it ends."""
        try:
            yield
        finally:
            self._clean()
            for problem in self.problems:
                say(problem)

    def _clean(self) -> None:
        left: int | None
        try:
            left = 0
            with ExitStack() as stack:
                operator_key = self._place.operator_key
                operator = (
                    None if operator_key is None else stack.enter_context(self._place.client(operator_key))
                )
                for key in self._keys:
                    left += self._clean_one(key, operator)
        except ZexchangeError as error:
            left = None
            self.problems.append(
                f"the orders of the run may still be open ({error}); the next run with the operator's key cancels them"
                if self._place.operator_key is not None
                else f"the orders of the run may still be open: {error}"
            )
        if left:
            self.problems.append(f"{left:,} orders of the run are still open")
        self.left_orders = left

    def _clean_one(self, key: SigningKey, operator: Client | None) -> int:
        with self._place.client(key) as client:
            account_id = client.account_id
            if account_id is None:
                return 0  # it was never opened
            client.cancel_all()
            still_open = len(client.open_orders())
            balances = client.balances()
        if operator is not None:
            for row in balances:
                if row.available <= 0:
                    continue
                try:
                    operator.withdraw(account_id, row.asset, row.available, shard=self._shard)
                except Rejected as error:
                    self.problems.append(
                        f"{row.available:f} {row.asset} of account {account_id} could not be withdrawn: {error}"
                    )
        return still_open


def open_demo_account(url: str, public_key: bytes) -> None:
    """What the page's "Open a demo account" does. Raises CannotLoad."""
    request = urllib.request.Request(
        f"{url.rstrip('/')}/api/v1/demo/account",
        json.dumps({"public_key": public_key.hex()}).encode(),
        {"Content-Type": "application/json"},
    )
    if not request.full_url.startswith(("http://", "https://")):
        raise CannotLoad("no-demo", f"{url!r} is no address of a page, such as http://127.0.0.1:3000")
    try:
        with urllib.request.urlopen(request, timeout=_HTTP_TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        said = error.read().decode("utf-8", "replace")
        raise CannotLoad("no-demo", f"{url} opens no account: {error.code} {said}") from error
    except (OSError, http.client.HTTPException) as error:
        raise CannotLoad("no-demo", f"no account could be opened at {url}: {error}") from error
