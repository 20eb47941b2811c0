"""Operator commands (docs/rules.md section 8): accounts, keys, deposits, withdrawals, assets, markets, their states."""

from __future__ import annotations

from typing import Any

from zexchange import limits
from zexchange.reference.definitions import add_asset, add_market, set_market_sizes
from zexchange.reference.markets import ENDS, TRANSITIONS, Markets
from zexchange.reference.reports import CommandContext, Rejection, Reporter
from zexchange.reference.state import Account, Balance, Key, Market, Outcome, State
from zexchange.reference.triggers import Triggers
from zexchange.wire.messages import ExecType, MarketState, OperatorCommand, OperatorCommandKind, ReasonCode

__all__ = ["OperatorRules"]

NO_PUBLIC_KEY = bytes(32)


class OperatorRules:
    """The commands of the operator."""

    def __init__(self, state: State, reporter: Reporter, markets: Markets, triggers: Triggers) -> None:
        self._state = state
        self._reporter = reporter
        self._markets = markets
        self._triggers = triggers

    def apply(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        """Applies one command and returns its answer. Raises Rejection, and then nothing has changed."""
        if command.kind is OperatorCommandKind.OPEN_ACCOUNT:
            return self._open_account(context, command)
        if command.kind is OperatorCommandKind.REGISTER_KEY:
            return self._register_key(context, command)
        if command.kind is OperatorCommandKind.DEPOSIT:
            return self._deposit(context, command)
        if command.kind is OperatorCommandKind.WITHDRAW:
            return self._withdraw(context, command)
        if command.kind is OperatorCommandKind.SET_MARKET_STATE:
            return self._set_market_state(context, command)
        if command.kind is OperatorCommandKind.SET_REFERENCE_PRICE:
            return self._set_reference_price(context, command)
        if command.kind is OperatorCommandKind.SET_MARKET_RULES:
            return self._set_market_rules(context, command)
        if command.kind is OperatorCommandKind.SET_ACCOUNT_RULES:
            return self._set_account_rules(context, command)
        if command.kind is OperatorCommandKind.ADD_ASSET:
            return self._add_asset(context, command)
        if command.kind is OperatorCommandKind.ADD_MARKET:
            return self._add_market(context, command)
        return self._set_market_sizes(context, command)

    def _answer(
        self, context: CommandContext, exec_type: ExecType, target_account_id: int = 0, **fields: Any
    ) -> Outcome:
        """Reports an operator command's effect to account 0."""
        report_seq = self._reporter.report(
            context, context.account_id, exec_type, target_account_id=target_account_id, **fields
        )
        return self._reporter.outcome(
            context, report_seq, exec_type, order_id=target_account_id, market_id=fields.get("market_id", 0)
        )

    def _open_account(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        state = self._state
        if command.new_public_key == NO_PUBLIC_KEY:
            raise Rejection(ReasonCode.KEY_INVALID)
        account_id = command.account_id
        if account_id and account_id in state.accounts:
            raise Rejection(ReasonCode.ACCOUNT_EXISTS)
        if account_id == 0:
            account_id = max(state.accounts) + 1
        if account_id >= state.genesis.limits.max_accounts:
            raise Rejection(ReasonCode.ACCOUNT_LIMIT)
        self._require_key_fits(command.new_public_key)
        state.accounts[account_id] = Account(account_id)
        self._add_key(command.new_public_key, account_id)
        return self._answer(context, ExecType.ACCOUNT_OPENED, account_id)

    def _register_key(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        self._require_account(command.account_id)
        if command.new_public_key == NO_PUBLIC_KEY:
            raise Rejection(ReasonCode.KEY_INVALID)
        self._require_key_fits(command.new_public_key)
        self._add_key(command.new_public_key, command.account_id)
        return self._answer(context, ExecType.KEY_REGISTERED, command.account_id)

    def _deposit(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        state, asset_id, amount = self._state, command.asset_id, command.amount
        account = self._require_transfer(command)
        if state.supply[asset_id] + amount > limits.AMOUNT_MAX:
            raise Rejection(ReasonCode.SUPPLY_OVERFLOW)
        if asset_id not in account.balances and state.balance_pool_is_full():
            raise Rejection(ReasonCode.BALANCE_POOL_FULL)
        account.balances.setdefault(asset_id, Balance()).available += amount
        state.supply[asset_id] += amount
        return self._answer_transfer(context, command, ExecType.DEPOSITED)

    def _withdraw(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        account = self._require_transfer(command)
        balance = account.balances.get(command.asset_id)
        if balance is None or command.amount > balance.available:
            raise Rejection(ReasonCode.INSUFFICIENT_FUNDS)
        balance.available -= command.amount
        self._state.supply[command.asset_id] -= command.amount
        return self._answer_transfer(context, command, ExecType.WITHDRAWN)

    def _require_transfer(self, command: OperatorCommand) -> Account:
        """The checks that deposits and withdrawals share, in order."""
        account = self._require_account(command.account_id)
        if command.asset_id not in self._state.supply:
            raise Rejection(ReasonCode.UNKNOWN_ASSET)
        if not 1 <= command.amount <= limits.AMOUNT_MAX:
            raise Rejection(ReasonCode.AMOUNT_OUT_OF_RANGE)
        return account

    def _answer_transfer(
        self, context: CommandContext, command: OperatorCommand, exec_type: ExecType
    ) -> Outcome:
        """To account 0, then to the account concerned unless it is the same."""
        fields = {"asset_id": command.asset_id, "amount": command.amount}
        outcome = self._answer(context, exec_type, command.account_id, **fields)
        if command.account_id != limits.OPERATOR_ACCOUNT_ID:
            self._reporter.report(
                context, command.account_id, exec_type, target_account_id=command.account_id, **fields
            )
        return outcome

    def _set_market_state(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        market = self._require_market(command.market_id)
        wanted = command.market_state
        stays = market.state is wanted and market.state is not MarketState.UNCROSSING
        if not stays and wanted not in TRANSITIONS[market.state]:
            raise Rejection(ReasonCode.MARKET_TRANSITION_ILLEGAL)
        if command.until_ns and (wanted not in ENDS or command.until_ns <= self._state.log_time_ns):
            raise Rejection(ReasonCode.UNTIL_INVALID)
        self._markets.enter(market, wanted, command.until_ns)
        return self._answer(
            context,
            ExecType.MARKET_STATE_SET,
            market_id=command.market_id,
            market_state=market.state,
        )

    def _set_reference_price(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        market = self._require_market(command.market_id)
        if not 1 <= command.price_ticks <= limits.PRICE_TICKS_MAX:
            raise Rejection(ReasonCode.PRICE_TICKS_OUT_OF_RANGE)
        market.reference_ticks = command.price_ticks
        self._triggers.follow_price(market, on_reference=True)
        return self._answer(
            context,
            ExecType.REFERENCE_PRICE_SET,
            market_id=command.market_id,
            price_ticks=command.price_ticks,
        )

    def _set_market_rules(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        market = self._require_market(command.market_id)
        if (
            max(command.dynamic_band_ppm, command.static_band_ppm) >= limits.PPM
            or command.qty_lots > limits.QTY_LOTS_MAX
            or command.amount > limits.AMOUNT_MAX
            or command.until_ns > limits.INTERRUPTION_NS_MAX
        ):
            raise Rejection(ReasonCode.RULES_INVALID)
        market.dynamic_band_ppm, market.static_band_ppm = command.dynamic_band_ppm, command.static_band_ppm
        market.qty_lots_max, market.notional_max = command.qty_lots, command.amount
        market.orders_max, market.interruption_ns = command.orders_max, command.until_ns
        return self._answer(context, ExecType.MARKET_RULES_SET, market_id=command.market_id)

    def _set_account_rules(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        account = self._require_account(command.account_id)
        if command.account_id == limits.OPERATOR_ACCOUNT_ID or command.fee_discount_ppm > limits.PPM:
            raise Rejection(ReasonCode.RULES_INVALID)
        account.fee_discount_ppm, account.trade_group = command.fee_discount_ppm, command.trade_group
        account.orders_max, account.orders_per_second = command.orders_max, command.orders_per_second
        account.rate_second = account.rate_count = 0
        return self._answer(context, ExecType.ACCOUNT_RULES_SET, command.account_id)

    def _add_asset(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        add_asset(self._state, command)
        return self._answer(context, ExecType.ASSET_ADDED, asset_id=command.asset_id)

    def _add_market(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        market = add_market(self._state, command)
        return self._answer(
            context, ExecType.MARKET_ADDED, market_id=command.market_id, market_state=market.state
        )

    def _set_market_sizes(self, context: CommandContext, command: OperatorCommand) -> Outcome:
        market = self._require_market(command.market_id)
        set_market_sizes(self._state, market, command)
        return self._answer(
            context,
            ExecType.MARKET_SIZES_SET,
            market_id=command.market_id,
            sizes_no=market.definition.sizes_no % 256,
        )

    def _require_market(self, market_id: int) -> Market:
        market = self._state.markets.get(market_id)
        if market is None:
            raise Rejection(ReasonCode.UNKNOWN_MARKET)
        return market

    def _require_account(self, account_id: int) -> Account:
        account = self._state.accounts.get(account_id)
        if account is None:
            raise Rejection(ReasonCode.UNKNOWN_ACCOUNT)
        return account

    def _require_key_fits(self, public_key: bytes) -> None:
        if self._state.key(public_key) is not None:
            raise Rejection(ReasonCode.KEY_EXISTS)
        if len(self._state.keys) >= self._state.genesis.limits.max_keys:
            raise Rejection(ReasonCode.KEY_LIMIT)

    def _add_key(self, public_key: bytes, account_id: int) -> None:
        self._state.keys.append(Key(len(self._state.keys), public_key, account_id))
