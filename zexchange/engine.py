"""The matching engine in C, as a `MatchingEngine`: one shard, its markets and its ledger.

The rules are docs/rules.md; csrc/engine.h says how the C side is made. An engine belongs to one thread. All
its memory is reserved when it is made and touched as it is used: an engine for millions of orders starts small.
"""

from __future__ import annotations

import secrets
from typing import Any, Self

from zexchange.engine_types import (
    AccountInState,
    Applied,
    Counts,
    Depth,
    InvariantBroken,
    MalformedFrame,
    MarketTerms,
    OrderTerms,
    SnapshotInvalid,
    Subtree,
)
from zexchange.genesis import Genesis, encode_symbol
from zexchange.native import ffi, lib, sha256
from zexchange.wire.messages import (
    AssetDefinition,
    Balance,
    Level,
    MarketDefinition,
    MarketState,
    OpenOrder,
    OrderOptions,
    OrderType,
    ReasonCode,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Trigger,
)

__all__ = ["Engine"]

PUBLIC_KEY_BYTES = 32
ROOT_BYTES = 32
U64_MAX = 2**64 - 1


class Engine:
    """Implements `zexchange.engine_types.MatchingEngine`; what a method promises is written there."""

    def __init__(self, genesis: Genesis, shard: int, *, track_state: bool = True) -> None:
        """The shard in its genesis state. ValueError if the genesis has no such shard or too small limits."""
        if not 0 <= shard < genesis.shards:
            raise ValueError(f"shard {shard}: the genesis file has {genesis.shards}")
        self._genesis = genesis
        self._shard = shard
        self._tracked = track_state
        self._markets_max = genesis.markets_max(shard)
        self._handle = _create(genesis, shard, track_state)
        self._applied = ffi.new("engine_applied *")
        handle = self._handle
        # Views of the events keep this pointer alive, and it keeps the engine alive.
        self._events = ffi.gc(handle.events, lambda _events: handle)

    @property
    def shard(self) -> int:
        return self._shard

    @property
    def handle(self) -> Any:
        """`engine *` for other calls into C; valid as long as this object."""
        return self._handle

    @property
    def next_record_no(self) -> int:
        return int(self._handle.next_record_no)

    @property
    def next_seq(self) -> int:
        return int(self._handle.next_seq)

    @property
    def next_trade_id(self) -> int:
        return int(self._handle.next_trade_id)

    @property
    def log_time_ns(self) -> int:
        return int(self._handle.log_time_ns)

    @property
    def next_due_ns(self) -> int | None:
        """Log time from which on something happens without a command; None if nothing is ahead."""
        due_ns = int(lib.engine_next_due_ns(self._handle))
        return None if due_ns == U64_MAX else due_ns

    def apply(self, body: bytes | memoryview, log_time_ns: int) -> Applied:
        """Applies concatenated frames at one log time; `events` are valid until the next call."""
        applied = self._applied
        if not 0 < log_time_ns <= U64_MAX:
            raise ValueError(f"log time {log_time_ns} does not fit in 64 bits")
        error = lib.engine_apply(
            self._handle, ffi.from_buffer("uint8_t[]", body), len(body), log_time_ns, applied
        )
        if error == lib.ZX_ERROR_TIME:
            raise ValueError(f"log time {log_time_ns} is not above {self.log_time_ns}")
        if error == lib.ZX_ERROR_MALFORMED_FRAME:
            raise MalformedFrame(applied.consumed_bytes, ReasonCode(applied.reason).name)
        return Applied(
            consumed_bytes=applied.consumed_bytes,
            records=applied.records,
            commands=applied.commands,
            events=memoryview(ffi.buffer(self._events, applied.events_bytes)).toreadonly(),
        )

    def state_root(self) -> bytes:
        """32 bytes. Hashes what changed since the last call."""
        root = ffi.new("uint8_t[]", ROOT_BYTES)
        if lib.state_root(self._handle, root) == lib.ZX_ERROR_NOT_TRACKED:
            raise RuntimeError("this engine was made without a state tree")
        return bytes(ffi.buffer(root))

    def prove_account(self, account_id: int) -> AccountInState:
        """What the state root says about an account, and what leads there. Hashes what changed since the last call."""
        proof = ffi.new("state_account_proof *")
        if lib.state_prove_account(self._handle, account_id, proof) == lib.ZX_ERROR_NOT_TRACKED:
            raise RuntimeError("this engine was made without a state tree")
        return AccountInState(
            leaf=None if proof.leaf == ffi.NULL else bytes(ffi.buffer(proof.leaf, proof.leaf_bytes)),
            path=tuple(bytes(ffi.buffer(proof.path[step])) for step in range(proof.path_count)),
            subtrees=tuple(
                Subtree(int(count), bytes(ffi.buffer(root)))
                for count, root in zip(proof.counts, proof.roots, strict=True)
            ),
        )

    def snapshot(self) -> bytes:
        """The canonical snapshot (docs/formats.md section 4)."""
        snapshot = bytearray(lib.state_snapshot_size(self._handle))
        lib.state_snapshot(self._handle, ffi.from_buffer("uint8_t[]", snapshot))
        return bytes(snapshot)

    def make_ready(self, orders: int) -> None:
        lib.ready_make(self._handle, min(orders, self._genesis.limits.max_orders))

    @classmethod
    def restore(cls, genesis: Genesis, shard: int, snapshot: bytes, *, track_state: bool = True) -> Self:
        """An engine in the state of a snapshot. Raises SnapshotInvalid."""
        engine = cls(genesis, shard, track_state=track_state)
        why = ffi.new("const char **")
        bytes_of_snapshot = ffi.from_buffer("uint8_t[]", snapshot)
        if lib.state_restore(engine._handle, bytes_of_snapshot, len(snapshot), why) != lib.ZX_OK:
            raise SnapshotInvalid(
                f"not a snapshot of shard {shard} of this deployment: {ffi.string(why[0]).decode()}"
            )
        return engine

    def depth(self, market_id: int, levels: int) -> Depth:
        """The best levels of both sides. Raises KeyError when the shard has no such market."""
        state = lib.engine_market_state(self._handle, market_id)
        if state == 0:
            raise KeyError(f"shard {self._shard} has no market {market_id}")
        indicated = lib.engine_indicated(self._handle, market_id)
        return Depth(
            indicative_price_ticks=indicated.price_ticks,
            indicative_qty_lots=indicated.qty_lots,
            state=MarketState(state),
            bids=self._levels(market_id, Side.BUY, levels),
            asks=self._levels(market_id, Side.SELL, levels),
        )

    def market_terms(self, market_id: int) -> MarketTerms:
        """What is laid down for a market. Raises KeyError when the shard has no such market."""
        if lib.engine_market_state(self._handle, market_id) == 0:
            raise KeyError(f"shard {self._shard} has no market {market_id}")
        terms = lib.engine_terms_of(self._handle, market_id)
        return MarketTerms(
            until_ns=terms.until_ns,
            last_ticks=terms.last_ticks,
            reference_ticks=terms.reference_ticks,
            qty_lots_max=terms.qty_lots_max,
            notional_max=terms.notional_max,
            orders_max=terms.orders_max,
            dynamic_band_ppm=terms.dynamic_band_ppm,
            static_band_ppm=terms.static_band_ppm,
        )

    def account_of_key(self, public_key: bytes) -> int | None:
        """The account of a key of 32 bytes, or None."""
        if len(public_key) != PUBLIC_KEY_BYTES:
            return None
        account_id = int(lib.engine_account_of_key(self._handle, public_key))
        return None if account_id == lib.ZX_ACCOUNT_NONE else account_id

    def report_seq(self, account_id: int) -> int:
        """Number of the account's last report, 0 if there is none."""
        return int(lib.engine_report_seq(self._handle, account_id))

    def balances(self, account_id: int) -> list[Balance]:
        """The account's balances by ascending asset id."""
        room = self._genesis.assets_max
        found = ffi.new("struct zx_balance[]", room)
        count = lib.engine_balances(self._handle, account_id, room, found)
        return [
            Balance(asset_id=one.asset_id, available=one.available, held=one.held)
            for one in ffi.unpack(found, count)
        ]

    def open_orders(
        self, account_id: int, market_id: int, after_order_id: int, limit: int
    ) -> list[OpenOrder]:
        """At most `limit` open orders with a larger id, ascending."""
        room = min(limit, int(lib.engine_count(self._handle).open_orders))
        found = ffi.new("struct zx_open_order[]", room)
        count = lib.engine_open_orders(self._handle, account_id, market_id, after_order_id, room, found)
        return [
            OpenOrder(
                order_id=one.order_id,
                client_order_id=one.client_order_id,
                price_ticks=one.price_ticks,
                qty_lots=one.qty_lots,
                leaves_lots=one.leaves_lots,
                priority_no=one.priority_no,
                market_id=one.market_id,
                side=Side(one.side),
                order_type=OrderType(one.order_type),
                time_in_force=TimeInForce(one.time_in_force),
                trigger=Trigger(one.trigger),
                display_qty_lots=one.display_qty_lots,
                trigger_ticks=one.trigger_ticks,
                expire_time_ns=one.expire_time_ns,
                options=OrderOptions(one.options),
            )
            for one in ffi.unpack(found, count)
        ]

    def order_terms(self, order_id: int) -> OrderTerms:
        """What `open_orders` does not say of an order; nothing if it is not open."""
        terms = lib.engine_terms_of_order(self._handle, order_id)
        return OrderTerms(
            pair_order_id=terms.pair_order_id,
            trail_ticks=terms.trail_ticks,
            trail_ppm=terms.trail_ppm,
            self_trade_prevention=SelfTradePrevention(terms.self_trade_prevention),
        )

    def counts(self) -> Counts:
        """How full the pools are."""
        counts = lib.engine_count(self._handle)
        return Counts(
            open_orders=counts.open_orders,
            accounts=counts.accounts,
            keys=counts.keys,
            balances=counts.balances,
        )

    def assets(self, first: int, limit: int) -> list[AssetDefinition]:
        """At most `limit` assets from position `first` on."""
        room = max(0, min(limit, self._genesis.assets_max - first))
        found = ffi.new("struct zx_asset_definition[]", room)
        count = lib.engine_assets(self._handle, first, room, found)
        return [
            AssetDefinition(
                symbol=bytes(ffi.buffer(one.symbol)), asset_id=one.asset_id, decimals=one.decimals
            )
            for one in found[0:count]
        ]

    def markets(self, since_record_no: int, first: int, limit: int) -> tuple[list[MarketDefinition], int]:
        """At most `limit` markets that were defined by this record or a later one, and where to go on."""
        room = max(0, min(limit, self._markets_max - first))
        found = ffi.new("struct zx_market_definition[]", room)
        position = ffi.new("uint32_t *", first)
        count = lib.engine_markets(self._handle, since_record_no, position, room, found)
        markets = [
            MarketDefinition(
                symbol=bytes(ffi.buffer(one.symbol)),
                base_units_per_lot=one.base_units_per_lot,
                quote_units_per_tick_lot=one.quote_units_per_tick_lot,
                defined_record_no=one.defined_record_no,
                market_id=one.market_id,
                base_asset_id=one.base_asset_id,
                quote_asset_id=one.quote_asset_id,
                maker_fee_ppm=one.maker_fee_ppm,
                taker_fee_ppm=one.taker_fee_ppm,
                sizes_no=one.sizes_no,
            )
            for one in found[0:count]
        ]
        return markets, int(position[0])

    def supply(self, asset_id: int) -> int:
        """Deposits less withdrawals, in base units. Raises KeyError when there is no such asset."""
        supply = int(lib.engine_supply(self._handle, asset_id))
        if supply == U64_MAX:
            raise KeyError(f"shard {self._shard} has no asset {asset_id}")
        return supply

    def check(self) -> None:
        """Walks every standing truth. Raises InvariantBroken."""
        broken = lib.engine_check(self._handle)
        if broken != ffi.NULL:
            raise InvariantBroken(ffi.string(broken).decode())

    def _levels(self, market_id: int, side: Side, levels: int) -> list[Level]:
        room = min(levels, int(lib.engine_count(self._handle).open_orders))
        found = ffi.new("struct zx_level[]", room)
        count = lib.engine_depth(self._handle, market_id, side, room, found)
        return [
            Level(price_ticks=one.price_ticks, qty_lots=one.qty_lots, orders=one.orders)
            for one in ffi.unpack(found, count)
        ]


def _create(genesis: Genesis, shard: int, track_state: bool) -> Any:
    """A new engine in C that is destroyed with the last reference to it."""
    positions = {asset.asset_id: position for position, asset in enumerate(genesis.assets)}
    markets = genesis.markets_of(shard)
    market_configs = ffi.new("engine_market_config[]", len(markets))
    for config, market in zip(market_configs, markets, strict=True):
        config.market_id = market.market_id
        config.base_asset = positions[market.base_asset_id]
        config.quote_asset = positions[market.quote_asset_id]
        config.base_units_per_lot = market.base_units_per_lot
        config.quote_units_per_tick_lot = market.quote_units_per_tick_lot
        config.maker_fee_ppm = market.maker_fee_ppm
        config.taker_fee_ppm = market.taker_fee_ppm
        config.symbol = encode_symbol(market.symbol)
    asset_configs = ffi.new("engine_asset_config[]", len(genesis.assets))
    for asset_config, asset in zip(asset_configs, genesis.assets, strict=True):
        asset_config.asset_id = asset.asset_id
        asset_config.decimals = asset.decimals
        asset_config.symbol = encode_symbol(asset.symbol)
    deployment_id = ffi.new("uint8_t[]", genesis.deployment_id)
    operator_public_key = ffi.new("uint8_t[]", genesis.operator_public_key)
    config = ffi.new("engine_config *")
    config.deployment_id = deployment_id
    config.operator_public_key = operator_public_key
    config.assets = asset_configs
    config.markets = market_configs
    config.sha256 = sha256
    # Nothing the engine answers depends on it; it keeps clients from choosing ids that collide in hash maps.
    config.hash_seed = secrets.randbits(64)
    config.asset_count = len(positions)
    config.market_count = len(markets)
    config.assets_max = genesis.assets_max
    config.markets_max = genesis.markets_max(shard)
    config.accounts_max = genesis.limits.max_accounts
    config.keys_max = genesis.limits.max_keys
    config.balances_max = genesis.limits.max_balances
    config.orders_max = genesis.limits.max_orders
    config.outcomes_max = genesis.limits.max_outcomes
    config.shard = shard
    config.tracked = track_state
    out = ffi.new("engine **")
    error = lib.engine_create(config, out)
    if error == lib.ZX_ERROR_MEMORY:
        raise MemoryError("the tables of the engine could not be reserved")
    if error != lib.ZX_OK:
        raise ValueError(f"the genesis file and its limits do not fit together for shard {shard}")
    return ffi.gc(out[0], lib.engine_destroy)
