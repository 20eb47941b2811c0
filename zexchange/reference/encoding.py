"""Canonical bytes of the state: leaves, state root, engine snapshot (docs/formats.md sections 3 and 4).

Everything is little-endian and unsigned.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from msgspec import structs

from zexchange import limits
from zexchange.engine_types import SnapshotInvalid
from zexchange.genesis import Asset, Genesis, encode_symbol
from zexchange.reference.definitions import read_asset, read_market, with_sizes
from zexchange.reference.reports import Rejection
from zexchange.reference.state import Account, Balance, Key, Market, Order, Outcome, State, genesis_state
from zexchange.verification import merkle
from zexchange.wire.messages import (
    ExecType,
    MarketState,
    OrderType,
    ReasonCode,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Trigger,
)

__all__ = ["decode_snapshot", "encode_snapshot", "state_root"]

NO_ENTRY = b"ZXN1"
SNAPSHOT_HEADER = struct.Struct("<4sI7Q")
SNAPSHOT_VERSION = 1
TOP_LEAF = struct.Struct("<4sIQ32s")
META = struct.Struct("<4s32sHHQQQQQQQ")
ACCOUNT = struct.Struct("<4sQQIIIIIQI4x")
ACCOUNT_BALANCE = struct.Struct("<IQQ")
KEY = struct.Struct("<4sI32sQQ128s")
MARKET = struct.Struct("<4sIIIIQQiIQQQQQQQIIIIIIQ32s")
ASSET = struct.Struct("<4sIQI4x32s")
ORDER = struct.Struct("<4sQQQQQQQII")
ORDER_TERMS = struct.Struct("<QQQQQQQIBBBBBBB5x")
OUTCOME = struct.Struct("<4sIQQQQQQQQIHBB")


# ------------------------------------------------------------------ leaves (formats.md section 3)


def _subtrees(state: State) -> list[list[bytes]]:
    """The leaf data of the seven subtrees, in the order of the table."""
    account_count = max(state.accounts) + 1
    accounts = [state.accounts.get(account_id) for account_id in range(account_count)]
    return [
        [_meta_leaf(state)],
        [NO_ENTRY if account is None else _account_leaf(account) for account in accounts],
        [_key_leaf(key) for key in state.keys],
        [_market_leaf(market) for market in state.markets.values()],
        [_asset_leaf(asset, state.supply[asset.asset_id]) for asset in state.assets.values()],
        [NO_ENTRY if order is None else _order_leaf(order) for order in state.slots],
        [_outcome_leaf(outcome) for outcome in state.ring],
    ]


def _meta_leaf(state: State) -> bytes:
    return META.pack(
        b"ZXE1",
        state.genesis.deployment_id,
        state.shard,
        0,
        state.next_record_no,
        state.next_seq,
        state.next_trade_id,
        state.next_priority_no,
        state.log_time_ns,
        state.outcomes_head,
        state.outcomes_count,
    )


def _account_leaf(account: Account) -> bytes:
    head = ACCOUNT.pack(
        b"ZXA1",
        account.account_id,
        account.report_seq,
        len(account.balances),
        account.fee_discount_ppm,
        account.trade_group,
        account.orders_max,
        account.orders_per_second,
        account.rate_second,
        account.rate_count,
    )
    balances = [
        ACCOUNT_BALANCE.pack(asset_id, balance.available, balance.held)
        for asset_id, balance in sorted(account.balances.items())
    ]
    return head + b"".join(balances)


def _key_leaf(key: Key) -> bytes:
    window = bytearray(limits.NONCE_WINDOW // 8)
    for nonce in key.used_nonces:
        bit = nonce % limits.NONCE_WINDOW
        window[bit // 8] |= 1 << (bit % 8)
    return KEY.pack(b"ZXK1", key.key_index, key.public_key, key.account_id, key.highest_nonce, bytes(window))


def _market_leaf(market: Market) -> bytes:
    definition = market.definition
    return MARKET.pack(
        b"ZXM1",
        definition.market_id,
        definition.base_asset_id,
        definition.quote_asset_id,
        market.state,
        definition.base_units_per_lot,
        definition.quote_units_per_tick_lot,
        definition.maker_fee_ppm,
        definition.taker_fee_ppm,
        market.last_ticks,
        market.reference_ticks,
        market.until_ns,
        market.auction_ticks,
        market.notional_max,
        market.qty_lots_max,
        market.interruption_ns,
        market.next_state,
        market.orders_max,
        market.dynamic_band_ppm,
        market.static_band_ppm,
        definition.sizes_no,
        market.is_called_off,
        market.defined_record_no,
        encode_symbol(definition.symbol),
    )


def _asset_leaf(asset: Asset, supply: int) -> bytes:
    return ASSET.pack(b"ZXS1", asset.asset_id, supply, asset.decimals, encode_symbol(asset.symbol))


def _order_leaf(order: Order) -> bytes:
    head = ORDER.pack(
        b"ZXO1" if order.is_plain else b"ZXO2",
        order.order_id,
        order.client_order_id,
        order.account_id,
        order.priority_no,
        order.price_ticks,
        order.qty_lots,
        order.leaves_lots,
        order.market_id,
        order.side,
    )
    if order.is_plain:
        return head
    return head + ORDER_TERMS.pack(
        order.display_lots,
        order.shown_lots,
        order.expire_time_ns,
        order.trigger_ticks,
        order.trail_ticks,
        order.best_ticks,
        order.pair_id,
        order.trail_ppm,
        order.order_type,
        order.time_in_force,
        order.self_trade_prevention,
        order.trigger,
        order.is_hidden,
        order.on_reference,
        order.awaits_auction,
    )


def _outcome_leaf(outcome: Outcome) -> bytes:
    return OUTCOME.pack(
        b"ZXR1",
        outcome.key_index,
        outcome.nonce,
        outcome.seq,
        outcome.record_no,
        outcome.report_seq,
        outcome.order_id,
        outcome.client_order_id,
        outcome.leaves_lots,
        outcome.cum_qty_lots,
        outcome.market_id,
        outcome.reason,
        outcome.exec_type,
        outcome.command_index,
    )


def state_root(state: State) -> bytes:
    """Root of the top tree, 32 bytes."""
    top = merkle.CompactRange()
    for number, leaves in enumerate(_subtrees(state)):
        subtree_root = merkle.root(map(merkle.leaf_hash, leaves))
        top.append(merkle.leaf_hash(TOP_LEAF.pack(b"ZXT1", number, len(leaves), subtree_root)))
    return top.root()


# ------------------------------------------------------------------ snapshot (formats.md section 4)


def encode_snapshot(state: State) -> bytes:
    """The canonical snapshot: counts, then the leaf data of all subtrees, each with its length."""
    subtrees = _subtrees(state)
    parts = [SNAPSHOT_HEADER.pack(b"ZXP1", SNAPSHOT_VERSION, *map(len, subtrees))]
    for leaves in subtrees:
        for data in leaves:
            parts += (struct.pack("<I", len(data)), data)
    return b"".join(parts)


def decode_snapshot(genesis: Genesis, shard: int, snapshot: bytes) -> State:
    """The state a snapshot describes. Raises SnapshotInvalid when it is not the canonical one of any state.

    Only the form is checked here; whether the state obeys the standing truths is for the engine to check.
    """
    state = genesis_state(genesis, shard)
    meta, accounts, keys, markets, assets, orders, outcomes = _split_snapshot(snapshot)
    try:
        outcomes_count = _read_meta(state, meta)
        _read_assets(state, assets)  # before the balances that name them
        state.accounts = dict(_read_accounts(state, accounts))
        state.keys = [_read_key(state, data) for data in keys]
        _read_markets(state, markets)
        state.slots = [None if data == NO_ENTRY else _read_order(state, data) for data in orders]
        _rebuild_queues(state)
        state.ring = [_read_outcome(data) for data in outcomes]
        _rebuild_cache(state, outcomes_count)
        canonical = encode_snapshot(state)
    except (struct.error, ValueError, KeyError, IndexError, Rejection) as error:
        raise SnapshotInvalid(f"not a snapshot of shard {shard} of this deployment: {error!r}") from error
    if canonical != snapshot:
        # Covers tags, reserved bytes, the order of entries, definitions other than those of the genesis.
        raise SnapshotInvalid(f"not the canonical snapshot of a state of shard {shard} of this deployment")
    return state


def _split_snapshot(snapshot: bytes) -> list[list[bytes]]:
    """The leaf data of the seven subtrees."""
    if len(snapshot) < SNAPSHOT_HEADER.size:
        raise SnapshotInvalid("the snapshot is shorter than its header")
    magic, version, *counts = SNAPSHOT_HEADER.unpack_from(snapshot)
    if magic != b"ZXP1" or version != SNAPSHOT_VERSION:
        raise SnapshotInvalid("not an engine snapshot of a version we read")
    if counts[0] != 1 or min(counts[1], counts[2]) < 1:
        raise SnapshotInvalid("a snapshot without meta, operator account or operator key")
    offset = SNAPSHOT_HEADER.size

    def leaves(count: int) -> Iterator[bytes]:
        nonlocal offset
        for _ in range(count):
            start = offset + 4
            end = start + int.from_bytes(snapshot[offset:start], "little")
            if start > len(snapshot) or end > len(snapshot):
                raise SnapshotInvalid("the snapshot is truncated")
            offset = end
            yield snapshot[start:end]

    subtrees = [list(leaves(count)) for count in counts]
    if offset != len(snapshot):
        raise SnapshotInvalid("bytes after the last entry of the snapshot")
    return subtrees


def _read_meta(state: State, meta: list[bytes]) -> int:
    """Fills the counters; returns how many outcomes are in the cache."""
    numbers = META.unpack(meta[0])
    state.next_record_no, state.next_seq, state.next_trade_id, state.next_priority_no = numbers[4:8]
    state.log_time_ns, state.outcomes_head = numbers[8:10]
    return int(numbers[10])


def _read_accounts(state: State, leaves: list[bytes]) -> Iterator[tuple[int, Account]]:
    for account_id, data in enumerate(leaves):
        if data == NO_ENTRY:
            continue
        _, own_id, report_seq, _, *rules = ACCOUNT.unpack_from(data)
        _require(own_id == account_id, "an account in another's place")
        account = Account(account_id, report_seq)
        account.fee_discount_ppm, account.trade_group, account.orders_max = rules[:3]
        account.orders_per_second, account.rate_second, account.rate_count = rules[3:]
        for asset_id, available, held in ACCOUNT_BALANCE.iter_unpack(data[ACCOUNT.size :]):
            _require(asset_id in state.supply, "a balance of an unknown asset")
            account.balances[asset_id] = Balance(available, held)
        yield account_id, account


def _read_key(state: State, data: bytes) -> Key:
    _, key_index, public_key, account_id, highest, window = KEY.unpack(data)
    used = set()
    for nonce in range(max(0, highest - limits.NONCE_WINDOW + 1), highest + 1):
        bit = nonce % limits.NONCE_WINDOW
        if window[bit // 8] >> (bit % 8) & 1:
            used.add(nonce)
    _require(account_id in state.accounts, "a key of an account that is not open")
    return Key(key_index, public_key, account_id, highest, used)


def _read_assets(state: State, leaves: list[bytes]) -> None:
    """Supplies, and the assets that were added."""
    _require(len(leaves) >= len(state.assets), "assets are missing")
    for position, data in enumerate(leaves):
        _, asset_id, supply, decimals, symbol = ASSET.unpack(data)
        if position == len(state.assets):
            state.assets[asset_id] = read_asset(state, asset_id, symbol, decimals)
        _require(asset_id in state.assets, "an asset in another's place")
        state.supply[asset_id] = supply


def _read_markets(state: State, leaves: list[bytes]) -> None:
    """The markets that were added, and of all what may change."""
    _require(len(leaves) >= len(state.markets), "markets are missing")
    for position, data in enumerate(leaves):
        values = MARKET.unpack(data)
        market_id, units = values[1], values[5:7]
        if position == len(state.markets):
            definition = read_market(state, market_id, values[23], values[2:4], units, values[7:9])
            state.markets[market_id] = Market(definition)
        market = state.markets[market_id]
        sized = with_sizes(state, market.definition, units)
        if sized is None:
            raise SnapshotInvalid("a market of impossible sizes")
        market.definition = structs.replace(sized, sizes_no=values[20])
        market.defined_record_no = values[22]
        _read_market(market, values)


def _read_market(market: Market, values: tuple[Any, ...]) -> None:
    """State, prices and rules."""
    market.state = MarketState(values[4])
    market.last_ticks, market.reference_ticks, market.until_ns, market.auction_ticks = values[9:13]
    market.notional_max, market.qty_lots_max, market.interruption_ns = values[13:16]
    market.next_state = MarketState(values[16])
    market.orders_max, market.dynamic_band_ppm, market.static_band_ppm = values[17:20]
    market.is_called_off = bool(values[21])


def _read_order(state: State, data: bytes) -> Order:
    _, order_id, client_order_id, account_id, priority_no, price, qty, leaves, market_id, side = (
        ORDER.unpack_from(data)
    )
    _require(market_id in state.markets, "an order of an unknown market")
    order = Order(
        order_id=order_id,
        client_order_id=client_order_id,
        account_id=account_id,
        market_id=market_id,
        side=Side(side),
        price_ticks=price,
        qty_lots=qty,
        leaves_lots=leaves,
        cum_qty_lots=qty - leaves,
        priority_no=priority_no,
    )
    if len(data) > ORDER.size:
        order_type, time_in_force, self_trade_prevention, trigger, *flags = _read_terms(
            order, data[ORDER.size :]
        )
        order.order_type, order.time_in_force = OrderType(order_type), TimeInForce(time_in_force)
        order.self_trade_prevention = SelfTradePrevention(self_trade_prevention)
        order.trigger = Trigger(trigger)
        order.is_hidden, order.on_reference, order.awaits_auction = map(bool, flags)
    state.accounts[account_id].orders[order_id] = order
    return order


def _read_terms(order: Order, data: bytes) -> tuple[int, ...]:
    """Fills in the numbers of the terms and returns the rest of them."""
    values = ORDER_TERMS.unpack(data)
    order.display_lots, order.shown_lots, order.expire_time_ns, order.trigger_ticks = values[:4]
    order.trail_ticks, order.best_ticks, order.pair_id, order.trail_ppm = values[4:8]
    return values[8:]


def _rebuild_queues(state: State) -> None:
    _require(not state.slots or state.slots[-1] is not None, "the last slot is free")
    for order in state.open_orders():
        market = state.markets[order.market_id]
        (market.waiting if order.is_waiting else market.queue(order.side)).append(order)
    for market in state.markets.values():
        market.buys.sort(key=Order.by_priority)
        market.sells.sort(key=Order.by_priority)
        market.waiting.sort(key=lambda order: order.order_id)
    for account in state.accounts.values():
        account.orders = dict(sorted(account.orders.items()))


def _read_outcome(data: bytes) -> Outcome:
    names = [field.name for field in fields(Outcome)]
    values = dict(zip(names, OUTCOME.unpack(data)[1:], strict=True))
    values["reason"], values["exec_type"] = ReasonCode(values["reason"]), ExecType(values["exec_type"])
    return Outcome(**values)


def _rebuild_cache(state: State, outcomes_count: int) -> None:
    """Groups the newest outcomes by batch, oldest batch first."""
    max_outcomes = state.genesis.limits.max_outcomes
    _require(all(one.key_index < len(state.keys) for one in state.ring), "an outcome of an unknown key")
    _require(len(state.ring) == min(state.outcomes_head, max_outcomes), "a ring of the wrong length")
    _require(outcomes_count <= len(state.ring), "more outcomes cached than kept")
    state.outcomes_count = outcomes_count
    for ordinal in range(state.outcomes_head - outcomes_count, state.outcomes_head):
        outcome = state.ring[ordinal % max_outcomes]
        batch = state.cached_batches.setdefault((outcome.key_index, outcome.nonce), [])
        is_newest = batch is next(reversed(state.cached_batches.values()))
        _require(
            is_newest and outcome.command_index == len(batch), "the outcomes of a batch are not in order"
        )
        batch.append(outcome)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SnapshotInvalid(otherwise)
