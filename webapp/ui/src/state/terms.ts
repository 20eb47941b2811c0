// The terms of an order, from a command, and in words. Pure.

import { formatExact } from '../market/decimal';
import type { Market } from '../market/market';
import type { Order } from '../net/api';
import { REASON_DESCRIPTIONS } from '../wire/messages';
import type { Command, ReasonCode } from '../wire/messages';

/** RFC 3339 with nanoseconds, as the feed writes times. */
export function timeOfNs(ns: bigint): string {
  const seconds = new Date(Number(ns / 1_000_000n)).toISOString().slice(0, 19);
  return `${seconds}.${(ns % 1_000_000_000n).toString().padStart(9, '0')}Z`;
}

/** The distance of a trailing order, as its field takes it. */
export const trailText = (order: Partial<Order>): string => (order.trail_ppm ? formatExact(BigInt(order.trail_ppm), 4) : (order.trail ?? ''));

export const snake = (name: string): string => (name === 'none' ? '' : name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));

/** The terms of a new order, as the feed tells them of an open one. */
export function termsOf(command: Command, market: Market, paired: boolean): Partial<Order> {
  const trailing = command.trigger === 'trailing';
  return {
    type: command.orderType,
    time_in_force: snake(command.timeInForce),
    trigger: snake(command.trigger),
    trigger_price: command.triggerTicks && !trailing ? market.priceText(command.triggerTicks) : '',
    display_qty: command.displayQtyLots ? market.sizeText(command.displayQtyLots) : '',
    expire_time: command.expireTimeNs ? timeOfNs(command.expireTimeNs) : '',
    hidden: command.options.includes('hidden'),
    paired,
    post_only: command.options.includes('postOnly'),
    slide: command.options.includes('slide'),
    self_trade_prevention: snake(command.selfTradePrevention),
    on_reference: command.options.includes('onReference'),
    min_qty: command.minQtyLots ? market.sizeText(command.minQtyLots) : '',
    max_notional: command.maxNotional ? market.quoteText(command.maxNotional) : '',
    trail: trailing && command.triggerTicks ? market.priceText(command.triggerTicks) : '',
    trail_ppm: command.trailPpm,
  };
}

const OUTCOMES: Readonly<Record<string, string>> = {
  SELF_TRADE: 'self-trade prevented',
  IMMEDIATE_REMAINDER: 'rest cancelled',
  ONE_CANCELS_OTHER: 'cancelled by its pair',
  AUCTION_REMAINDER: 'rest cancelled after the auction',
  MAX_NOTIONAL_REACHED: 'amount spent',
  PRICE_BAND: 'cancelled at the price band',
  FOK_NOT_FILLABLE: 'not fillable',
  MATCH_LIMIT: 'cancelled at the match limit',
  AMENDED_BELOW_FILLED: 'amended to what was filled',
};

export const camel = (name: string): string => name.toLowerCase().replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

/** How an order ended, in words. */
export function outcomeOf(order: Order): string {
  const how = (order.status === 'filled' ? '' : OUTCOMES[order.reason ?? '']) || (order.status === 'rejected' ? 'refused' : order.status.replace(/_/g, ' '));
  const triggered = order.triggered || (order.status === 'filled' && Boolean(order.trigger));
  return triggered && !order.time_in_force?.startsWith('at_the_') ? `triggered, ${how}` : how;
}

/** Why it ended so, in a sentence; empty if nobody has to ask. */
export function whyOf(order: Order): string {
  if (order.status === 'filled' || !order.reason || order.reason === 'CANCELLED_BY_USER') return '';
  return REASON_DESCRIPTIONS[camel(order.reason) as ReasonCode] ?? '';
}

const TIFS: Readonly<Record<string, string>> = { ioc: 'immediate', fok: 'fill or kill', day: 'day', gtd: 'till date', at_the_open: 'at the open', at_the_close: 'at the close' };

/** What kind of order it is, in words. */
export function kindOf(order: Order): string {
  const type = order.type || 'limit';
  const kind = { stop: type === 'limit' ? 'stop limit' : 'stop', take_profit: 'take profit', trailing: 'trailing stop' }[order.trigger ?? ''] ?? type;
  const extras = [
    (type === 'market' && order.time_in_force === 'ioc' ? '' : TIFS[order.time_in_force ?? '']) ?? '', order.post_only ? (order.slide ? 'post-only, slides' : 'post-only') : '',
    order.display_qty ? 'iceberg' : '', order.hidden ? 'hidden' : '', order.on_reference && order.trigger ? 'on reference' : '', order.paired ? 'pair' : '',
  ];
  return [kind, ...extras.filter(Boolean)].join(' · ');
}

/** What its kind does not say, as a sentence; empty if there is nothing. */
export function fineTerms(order: Order): string {
  const prevention = order.self_trade_prevention ?? '';
  const terms = [
    order.pair_order_id && `one cancels the other: order ${order.pair_order_id}`, order.min_qty && `at least ${order.min_qty}`, order.max_notional && `for at most ${order.max_notional}`,
    prevention && prevention !== 'cancel_newest' && `self-trade: ${prevention.replace('_', ' ')}`,
  ];
  return terms.filter(Boolean).join('; ');
}
