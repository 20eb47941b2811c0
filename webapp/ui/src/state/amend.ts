// Amending an open order: what may be changed of it, and the command, or what is wrong, by the rules of docs/rules.md,
// section 6. Fields that are not changed are sent as 0, which keeps them.

import type { Book } from '../market/book';
import { formatUnits } from '../market/decimal';
import { NO_COMMAND } from '../market/commands';
import { readTrail, readTrigger } from '../market/draft';
import type { Available, Conditions } from '../market/draft';
import type { Market } from '../market/market';
import { awaitsAuction, collects, refusal } from '../market/phase';
import { orderKey } from '../net/api';
import type { Order } from '../net/api';
import type { Command, OrderOptions, SelfTradePrevention } from '../wire/messages';
import { camel, trailText } from './terms';

export type AmendField = 'price' | 'size' | 'trigger' | 'display' | 'expiry';

export interface Edit {
  readonly id: string;
  price: string;
  size: string;
  /** Trigger price, or a trailing order's distance. */
  trigger: string;
  display: string;
  /** As a field for date and time writes it. */
  expiry: string;
  /** What is wrong with it, once it was to be sent. */
  problem: string | null;
}

const staysOpen = (order: Order): boolean => order.time_in_force !== 'ioc' && order.time_in_force !== 'fok';

/** Whether the exchange lets this be changed of the order. */
export function mayAmend(order: Order, field: AmendField): boolean {
  switch (field) {
    case 'trigger':
      return order.trigger === 'trailing' ? trailText(order) !== '' : Boolean(order.trigger);
    case 'display':
      return !order.hidden && staysOpen(order) && order.type !== 'market';
    case 'expiry':
      return order.time_in_force === 'gtd';
    default:
      return true;
  }
}

/** A time as a field for date and time writes it. */
export function timeField(time: string, utc: boolean): string {
  const ms = Date.parse(time);
  if (Number.isNaN(ms)) return '';
  const date = new Date(ms);
  return new Date(ms - (utc ? 0 : date.getTimezoneOffset() * 60_000)).toISOString().slice(0, 19);
}

export function editOf(order: Order, utc: boolean): Edit {
  return {
    id: orderKey(order), price: order.price, size: order.qty, trigger: order.trigger === 'trailing' ? trailText(order) : (order.trigger_price ?? ''), display: order.display_qty ?? '',
    expiry: timeField(order.expire_time ?? '', utc), problem: null,
  };
}

const preventionOf = (order: Order): SelfTradePrevention => (camel(order.self_trade_prevention ?? '') || 'cancelNewest') as SelfTradePrevention;

export type Amended = { problem: string } | { command: Command; keepsPlace: boolean };

/** `book` is null and `now` without prices for a market that is not shown: the exchange then says what is wrong. */
export function amendOf(order: Order, edit: Edit, market: Market, book: Book | null, available: Available | null, now: Conditions): Amended {
  const { info } = market;
  const waits = Boolean(order.trigger);
  const price = market.readPrice(edit.price);
  if ('problem' in price) return price;
  const size = market.readSize(edit.size);
  if ('problem' in size) return size;
  const [wasTicks, wasLots, filled] = [market.ticksOf(order.price), market.lotsOf(order.qty), market.lotsOf(order.cum_qty)];
  const awaits = awaitsAuction(now.state, order.time_in_force ?? 'gtc');
  const posts = Boolean(order.post_only) && !waits && !collects(now.state);
  const refused = refusal(market.symbol, now.state, { tif: order.time_in_force ?? 'gtc', isMarket: order.type === 'market', hasTrigger: waits, postOnly: posts });
  if (refused?.field === 'form') return { problem: refused.text };
  const options: OrderOptions[] = posts ? ['postOnly', ...(order.slide ? (['slide'] as const) : [])] : [];
  const command: Command = {
    ...NO_COMMAND, kind: 'amend', selfTradePrevention: preventionOf(order), options, sizesNo: market.sizesNo, marketId: info.market_id, orderId: BigInt(order.order_id),
    priceTicks: price.ticks === wasTicks ? 0n : price.ticks, qtyLots: size.lots === wasLots ? 0n : size.lots,
  };
  if (mayAmend(order, 'trigger') && edit.trigger.trim() !== editOf(order, true).trigger) {
    if (order.trigger === 'trailing') {
      const read = readTrail({ trail: edit.trigger, trailUnit: order.trail_ppm ? 'percent' : 'price' }, market);
      if ('problem' in read) return read;
      [command.triggerTicks, command.trailPpm] = [read.ticks, read.ppm];
    } else {
      const read = readTrigger(edit.trigger, order.trigger === 'take_profit' ? 'takeProfit' : 'stop', order.side, now.lastTicks, market);
      if ('problem' in read) return { problem: `Trigger: ${read.problem}` };
      command.triggerTicks = read.ticks;
    }
  }
  if (size.lots <= filled) return { problem: `${market.sizeText(filled)} ${info.base} are filled already: the size counts them too.` };
  const wasDisplay = market.lotsOf(order.display_qty || '0');
  let displayLots = wasDisplay;
  if (mayAmend(order, 'display') && edit.display.trim()) {
    const read = market.readSize(edit.display);
    if ('problem' in read) return { problem: `Shown: ${read.problem}` };
    displayLots = read.lots;
    if (displayLots !== wasDisplay) command.displayQtyLots = displayLots;
  } else if (wasDisplay && mayAmend(order, 'display')) return { problem: `To show all of it, show ${edit.size}.` };
  if (displayLots > size.lots) return { problem: 'It cannot show more than its size.' };
  if (mayAmend(order, 'expiry') && edit.expiry !== timeField(order.expire_time ?? '', now.utc)) {
    const ms = Date.parse(edit.expiry + (now.utc ? 'Z' : ''));
    if (Number.isNaN(ms)) return { problem: 'Enter a date and a time.' };
    if (ms <= now.nowMs) return { problem: 'That is over: the time must be ahead.' };
    command.expireTimeNs = BigInt(ms) * 1_000_000n;
  }
  if (!command.priceTicks && !command.qtyLots && !command.triggerTicks && !command.trailPpm && !command.displayQtyLots && !command.expireTimeNs) return { problem: 'Nothing is changed.' };
  const leaves = size.lots - filled;
  if (market.overflows(order.side, price.ticks, leaves)) return { problem: 'The order is larger than the exchange can hold.' };
  if (market.lotsMax && size.lots > market.lotsMax) return { problem: `The market takes at most ${market.sizeText(market.lotsMax)} ${info.base} in an order.` };
  if (market.notionalMax && market.notional(price.ticks, size.lots) > market.notionalMax) return { problem: `The market takes at most ${market.quoteText(market.notionalMax, 2)} ${info.quote} in an order.` };
  const more = market.hold(order.side, price.ticks, leaves) - market.hold(order.side, wasTicks, market.lotsOf(order.leaves_qty));
  const has = order.side === 'buy' ? available?.quote : available?.base;
  if (has !== undefined && more > has) {
    const [decimals, asset] = order.side === 'buy' ? [info.quote_decimals, info.quote] : [info.base_decimals, info.base];
    return { problem: `Needs ${formatUnits(more, decimals)} ${asset} more; available are ${formatUnits(has, decimals)}.` };
  }
  const keepsPlace = waits || (!command.priceTicks && size.lots <= wasLots && displayLots === wasDisplay);
  const best = order.side === 'buy' ? book?.asks[0] : book?.bids[0];
  const crosses = best !== undefined && !collects(now.state) && !awaits && (order.side === 'buy' ? price.ticks >= BigInt(best.ticks) : price.ticks <= BigInt(best.ticks));
  if (!keepsPlace && crosses && ((posts && !order.slide) || now.state === 'post_only'))
    return { problem: `${posts ? 'Post-only' : `${market.symbol} is post-only: this`} would trade: price ${order.side === 'buy' ? 'below' : 'above'} ${market.priceText(BigInt(best.ticks))}.` };
  return { command, keepsPlace };
}

/** What an amend that was accepted makes of the order's terms: reports tell of price and quantity alone. */
export function amendedTerms(command: Command, market: Market, order: Partial<Order> | undefined): Partial<Order> {
  return {
    ...(command.displayQtyLots ? { display_qty: market.sizeText(command.displayQtyLots) } : {}),
    ...(command.expireTimeNs ? { expire_time: new Date(Number(command.expireTimeNs / 1_000_000n)).toISOString() } : {}),
    ...(order?.trigger === 'trailing'
      ? command.trailPpm || command.triggerTicks
        ? { trail: command.triggerTicks ? market.priceText(command.triggerTicks) : '', trail_ppm: command.trailPpm }
        : {}
      : command.triggerTicks
        ? { trigger_price: market.priceText(command.triggerTicks) }
        : {}),
  };
}
