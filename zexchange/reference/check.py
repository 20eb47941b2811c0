"""The standing truths of the rule book (docs/rules.md section 9), walked over the whole state."""

from __future__ import annotations

import itertools

from zexchange import limits
from zexchange.engine_types import InvariantBroken
from zexchange.genesis import encode_symbol, sizes_of
from zexchange.reference.amounts import held_asset, order_hold
from zexchange.reference.definitions import fees_are_sound, symbol_of
from zexchange.reference.markets import COLLECTS_FOR, ENDS, MISSED
from zexchange.reference.state import Balance, Market, Order, State
from zexchange.reference.triggers import stays_open
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

__all__ = ["check_state"]


def check_state(state: State) -> None:
    """Walks every standing truth. Raises InvariantBroken."""
    _check_money(state)
    orders = state.open_orders()
    for market in state.markets.values():
        _check_queues(market)
    for order in orders:
        _truth(0 < order.leaves_lots <= order.qty_lots, f"order {order.order_id}: leaves")
        _truth(order.leaves_lots + order.cum_qty_lots == order.qty_lots, f"order {order.order_id}: filled")
        _truth(1 <= order.price_ticks <= limits.PRICE_TICKS_MAX, f"order {order.order_id}: price")
        _truth(order.qty_lots <= limits.QTY_LOTS_MAX, f"order {order.order_id}: quantity")
        _truth(1 <= order.order_id < state.next_seq, f"order {order.order_id}: number")
        has_place = not order.has_trigger or order.trigger_ticks > 0
        _truth(
            (1 if has_place else 0) <= order.priority_no < (state.next_priority_no if has_place else 1),
            f"order {order.order_id}: priority",
        )
        _check_terms(state, order)
        owner = state.accounts[order.account_id]
        _truth(owner.orders.get(order.order_id) is order, f"order {order.order_id}: not found by its id")
        _truth(owner.account_id != limits.OPERATOR_ACCOUNT_ID, f"order {order.order_id}: of the operator")
    queued = sum(
        len(market.buys) + len(market.sells) + len(market.waiting) for market in state.markets.values()
    )
    owned = sum(len(account.orders) for account in state.accounts.values())
    _truth(len(orders) == queued == owned, "orders are lost between slots, queues and accounts")
    _truth(len({order.order_id for order in orders}) == len(orders), "an order id twice")
    for account in state.accounts.values():
        _truth(account.fee_discount_ppm <= limits.PPM, f"account {account.account_id}: discount")
        has_rules = account.fee_discount_ppm or account.trade_group or account.orders_max
        is_operator = account.account_id == limits.OPERATOR_ACCOUNT_ID
        _truth(not (is_operator and (has_rules or account.orders_per_second)), "the operator has rules")
        _truth(
            account.orders_per_second > 0 or account.rate_second == account.rate_count == 0,
            f"account {account.account_id}: counted without a limit",
        )
        named = [order.client_order_id for order in account.orders.values() if order.client_order_id]
        _truth(len(named) == len(set(named)), f"account {account.account_id}: a client order id twice")
    _check_pools(state)
    _check_definitions(state)


def _check_definitions(state: State) -> None:
    """Standing truth 7: assets and markets are defined."""
    for table, symbols in (
        (state.assets, [asset.symbol for asset in state.assets.values()]),
        (state.markets, [market.definition.symbol for market in state.markets.values()]),
    ):
        _truth(0 not in table, "an id is 0")
        _truth(len(set(symbols)) == len(table), "a symbol twice")
        _truth(all(symbol_of(encode_symbol(symbol)) == symbol for symbol in symbols), "a symbol is none")
    _truth(list(state.assets) == list(state.supply), "an asset without supply")
    _truth(len(state.assets) <= state.genesis.assets_max, "more assets than allowed")
    _truth(len(state.markets) <= state.genesis.markets_max(state.shard), "more markets than allowed")
    for asset in state.assets.values():
        _truth(asset.decimals <= limits.ASSET_DECIMALS_MAX, f"asset {asset.asset_id}: decimals")
    for market_id, market in state.markets.items():
        one, where = market.definition, f"market {market_id}"
        _truth(one.market_id == market_id, f"{where}: it has another id")
        _truth(one.base_asset_id != one.quote_asset_id, f"{where}: assets")
        base, quote = state.assets[one.base_asset_id], state.assets[one.quote_asset_id]
        sizes = sizes_of(base, quote, one.base_units_per_lot, one.quote_units_per_tick_lot)
        _truth(sizes == (one.tick_size, one.lot_size), f"{where}: sizes")
        _truth(fees_are_sound(one.maker_fee_ppm, one.taker_fee_ppm), f"{where}: fees")
        _truth(market.defined_record_no < state.next_record_no, f"{where}: defined at no time")
        _truth(market.defined_record_no > 0 or one.sizes_no == 0, f"{where}: defined at no time")


def _check_terms(state: State, order: Order) -> None:
    """Standing truth 6: the terms of an open order fit together, and with its pair."""
    where = f"order {order.order_id}"
    may_rest = stays_open(order.time_in_force)
    _truth(may_rest or order.is_waiting, f"{where}: it should be gone")
    _truth(not (order.is_for_auction and order.has_trigger), f"{where}: it waits for two things")
    _truth(order.is_for_auction or not order.awaits_auction, f"{where}: it waits for no auction")
    expires = order.time_in_force in (TimeInForce.DAY, TimeInForce.GTD)
    _truth((order.expire_time_ns > 0) is expires, f"{where}: expiry")
    _truth(order.side is not Side.NONE and order.order_type is not OrderType.NONE, f"{where}: side, type")
    slice_max = 0 if order.is_waiting else min(order.display_lots, order.leaves_lots)
    _truth(order.shown_lots <= slice_max, f"{where}: shows too much")
    _truth(order.is_waiting or (order.shown_lots > 0) is (order.display_lots > 0), f"{where}: shows nothing")
    _truth(not (order.is_hidden and order.display_lots), f"{where}: hidden and shown")
    _truth((order.is_hidden or order.display_lots == 0) or may_rest, f"{where}: hidden or shown in part")
    is_trailing = order.trigger is Trigger.TRAILING
    _truth(is_trailing is (bool(order.trail_ticks) is not bool(order.trail_ppm)), f"{where}: distance")
    _truth(order.trail_ppm < limits.PPM and order.trail_ticks <= limits.PRICE_TICKS_MAX, f"{where}: distance")
    _truth(order.best_ticks <= (limits.PRICE_TICKS_MAX if is_trailing else 0), f"{where}: follows a price")
    _truth(order.has_trigger or not (order.trigger_ticks or order.on_reference), f"{where}: trigger")
    _truth(
        (0 if is_trailing or not order.has_trigger else 1) <= order.trigger_ticks <= limits.PRICE_TICKS_MAX,
        f"{where}: trigger price",
    )
    is_terse = order.order_type is OrderType.LIMIT and order.self_trade_prevention is SelfTradePrevention.NONE
    _truth(is_terse or order.has_trigger, f"{where}: it rests and still says how it came")
    says_how = order.self_trade_prevention is not SelfTradePrevention.NONE
    _truth(says_how or not order.has_trigger, f"{where}: it waits and does not say how it comes")
    if order.pair_id:
        other = state.accounts[order.account_id].orders.get(order.pair_id)
        _truth(other is not None and other is not order, f"{where}: its pair is gone")
        assert other is not None
        _truth(other.pair_id == order.order_id, f"{where}: its pair has another pair")
        _truth(
            (other.market_id, other.side) == (order.market_id, order.side), f"{where}: pair of another side"
        )


def _check_money(state: State) -> None:
    for asset_id, supply in state.supply.items():
        total = 0
        for account in state.accounts.values():
            balance = account.balances.get(asset_id, Balance())
            where = f"account {account.account_id}, asset {asset_id}"
            _truth(balance.available >= 0 and balance.held >= 0, f"{where}: negative")
            total += balance.available + balance.held
            holds = 0
            for order in account.orders.values():
                definition = state.markets[order.market_id].definition
                if held_asset(definition, order.side) == asset_id:
                    holds += order_hold(definition, order.side, order.price_ticks, order.leaves_lots)
            _truth(holds == balance.held, f"{where}: held {balance.held} instead of {holds}")
        _truth(
            total == supply <= limits.AMOUNT_MAX, f"asset {asset_id}: {total} exist of a supply of {supply}"
        )


def _check_market(market: Market) -> None:
    """The state of a market and its rules fit together."""
    where = f"market {market.definition.market_id}"
    executes = market.state is MarketState.UNCROSSING
    _truth(market.state is not MarketState.NONE, f"{where}: no state")
    opens = market.next_state in (MarketState.CONTINUOUS, MarketState.POST_ONLY)
    may_execute = opens or market.next_state is MarketState.CLOSED
    may_follow = market.next_state not in (MarketState.NONE, MarketState.HALTED, MarketState.UNCROSSING)
    _truth(may_follow if executes else market.next_state is MarketState.NONE, f"{where}: next state")
    _truth(executes or not market.is_called_off, f"{where}: nothing to call off")
    _truth(market.is_called_off or may_execute or not executes, f"{where}: no auction to execute")
    _truth(
        (executes and not market.is_called_off) or market.auction_ticks == 0,
        f"{where}: a price without an auction",
    )
    _truth(market.auction_ticks <= limits.PRICE_TICKS_MAX, f"{where}: price of its auction")
    lasting = market.next_state if executes else market.state
    _truth(market.until_ns == 0 or lasting in ENDS, f"{where}: it cannot end")
    _truth(max(market.dynamic_band_ppm, market.static_band_ppm) < limits.PPM, f"{where}: bands")
    _truth(market.qty_lots_max <= limits.QTY_LOTS_MAX, f"{where}: largest quantity")
    _truth(market.notional_max <= limits.AMOUNT_MAX, f"{where}: largest notional")
    _truth(market.interruption_ns <= limits.INTERRUPTION_NS_MAX, f"{where}: interruption")
    _check_auction_orders(market)


def _check_auction_orders(market: Market) -> None:
    """Standing truth 7: orders for auctions are where the state of their market lets them be."""
    where = f"market {market.definition.market_id}"
    resting = {order.time_in_force for order in (*market.buys, *market.sells) if order.is_for_auction}
    waiting = {order.time_in_force for order in market.waiting if order.awaits_auction}
    _truth(len(resting) <= 1, f"{where}: orders for two auctions in the book")
    if market.state is MarketState.UNCROSSING:
        return
    if market.state is not MarketState.HALTED:
        collected = COLLECTS_FOR.get(market.state)
        _truth(resting <= {collected}, f"{where}: orders for an auction in the book")
        _truth(collected not in waiting, f"{where}: orders wait for their auction while it is on")
    _truth(not waiting & MISSED.get(market.state, set()), f"{where}: orders wait for an auction that is over")


def _check_queues(market: Market) -> None:
    _check_market(market)
    for price_ticks in (market.last_ticks, market.reference_ticks):
        _truth(price_ticks <= limits.PRICE_TICKS_MAX, f"market {market.definition.market_id}: price")
    for side, queue in ((Side.BUY, market.buys), (Side.SELL, market.sells)):
        keys = [order.by_priority() for order in queue]
        where = f"market {market.definition.market_id}"
        _truth(all(before < after for before, after in itertools.pairwise(keys)), f"{where}: queue order")
        _truth(all(order.side is side for order in queue), f"{where}: an order on the wrong side")
        _truth(
            all(order.market_id == market.definition.market_id for order in queue),
            f"{where}: an order of another market",
        )
    if market.buys and market.sells and market.state in (MarketState.CONTINUOUS, MarketState.POST_ONLY):
        _truth(market.buys[0].price_ticks < market.sells[0].price_ticks, f"{where}: the book is crossed")


def _check_pools(state: State) -> None:
    allowed = state.genesis.limits
    _truth(len(state.open_orders()) <= allowed.max_orders, "more orders than slots")
    _truth(len(state.keys) <= allowed.max_keys, "more keys than allowed")
    _truth(max(state.accounts) < allowed.max_accounts, "an account id beyond the limit")
    _truth(state.balance_count() <= allowed.max_balances, "more balances than allowed")
    operator = state.keys[0]
    _truth(operator.public_key == state.genesis.operator_public_key, "key 0 is not the genesis operator's")
    _truth(operator.account_id == limits.OPERATOR_ACCOUNT_ID, "the operator's key is another account's")
    for market in state.markets.values():
        trailing = sum(order.trigger is Trigger.TRAILING for order in market.waiting)
        _truth(trailing <= limits.TRAILING_PER_MARKET_MAX, f"market {market.definition.market_id}: trailing")
        has_fees = market.definition.quote_asset_id in state.accounts[0].balances
        _truth(has_fees, f"market {market.definition.market_id}: no balance for its fees")
    _truth(
        min(state.next_record_no, state.next_seq, state.next_trade_id, state.next_priority_no) >= 1,
        "a number starts below 1",
    )
    cached = sum(len(batch) for batch in state.cached_batches.values())
    _truth(state.outcomes_count == cached, "cached outcomes miscounted")
    _truth(state.outcomes_count <= len(state.ring) <= allowed.max_outcomes, "more outcomes than kept")
    _truth(len({key.public_key for key in state.keys}) == len(state.keys), "a public key twice")
    for outcome in state.ring:
        code = outcome.reason
        answers = code is ReasonCode.NONE or is_answer(code)
        _truth(answers and outcome.exec_type is not ExecType.NONE, f"outcome of seq {outcome.seq}: no answer")
    for index, key in enumerate(state.keys):
        _truth(key.key_index == index and key.account_id in state.accounts, f"key {index}: misplaced")
        window = range(max(0, key.highest_nonce - limits.NONCE_WINDOW + 1), key.highest_nonce + 1)
        _truth(key.highest_nonce in key.used_nonces, f"key {index}: the highest nonce is unused")
        _truth(all(nonce in window for nonce in key.used_nonces), f"key {index}: nonces outside the window")


def is_answer(code: ReasonCode) -> bool:
    """Whether a command can be answered with this reason."""
    return 300 < code < 500


def _truth(holds: bool, what: str) -> None:
    if not holds:
        raise InvariantBroken(what)
