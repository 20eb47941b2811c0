// Own orders and fills from two sources: the feed's private channels and the execution reports of the session. Both say the
// same; whichever comes first is shown, and a later record wins.

import type { Market } from '../market/market';
import { orderKey } from '../net/api';
import type { Fill, Order } from '../net/api';
import type { ExecutionReport } from '../wire/messages';
import { fills, openOrders, ordersTruncated, pastOrders } from './store';
import { snake, timeOfNs } from './terms';

const PAST_MAX = 500;
const FILLS_MAX = 500;
const GONE = new Set(['filled', 'cancelled', 'canceled', 'rejected', 'expired']);

const isZero = (decimal: string): boolean => /^0*\.?0*$/.test(decimal);
export const isOpen = (order: Order): boolean => !GONE.has(order.status) && !isZero(order.leaves_qty);

/** `truncated`: of a snapshot, that it does not have all open orders. */
export function takeOrders(orders: readonly Order[], replace: boolean, truncated = false): void {
  if (replace) ordersTruncated.value = truncated;
  const open = new Map(replace ? [] : openOrders.value);
  const gone: Order[] = [];
  for (const order of orders) {
    const known = open.get(orderKey(order));
    // A refusal says nothing about an order that is open: what was refused is a new order, a cancel or an amend.
    if (order.order_id === '0' || order.status === 'rejected') continue;
    // The two sources race; an older record must not undo a newer one.
    if (known && order.record_no && BigInt(known.record_no || '0') > BigInt(order.record_no)) continue;
    if (isOpen(order)) {
      if (!known && pastOrders.value.some((past) => pastKey(past) === orderKey(order))) continue;
      open.set(orderKey(order), completed(order, known ?? openOrders.value.get(orderKey(order))));
    } else {
      open.delete(orderKey(order));
      gone.push(completed(order, known));
    }
  }
  openOrders.value = open;
  if (gone.length) addPast(gone);
}

const TERMS = [
  'type', 'time_in_force', 'trigger', 'trigger_price', 'trail', 'trail_ppm', 'on_reference', 'display_qty', 'min_qty', 'max_notional', 'expire_time', 'hidden', 'post_only', 'slide',
  'self_trade_prevention', 'paired', 'pair_order_id',
] as const;
/** Which the exchange itself forgets before the order has ended. */
const FORGOTTEN = ['post_only', 'slide', 'self_trade_prevention'] as const;

/** What one source says, with what only the other one knows. */
function completed(order: Order, known: Order | undefined): Order {
  if (!known) return order;
  const said = { ...order };
  if (!order.type) for (const name of TERMS) delete said[name];
  for (const name of FORGOTTEN) if (said[name] === null || said[name] === '') delete said[name];
  if (!order.reason) delete said.reason;
  const triggered = known.triggered || order.triggered || (Boolean(known.trigger) && order.type !== undefined && order.type !== '' && !order.trigger);
  return { ...known, ...said, ...(triggered ? { triggered } : {}), time: known.time || order.time, record_no: order.record_no || known.record_no };
}

/** Whether a report is about an order: a refused cancel or amend has no side, and its order may still be open. */
const isOfOrder = (one: Order): boolean => (one.status === 'rejected' ? Boolean(one.side) && one.order_id === '0' : one.order_id !== '0');

/** Of reports, newest first: how each order stands, with the time at which it was entered. */
export function currentOf(reports: readonly Order[]): Map<string, Order> {
  const newest = new Map<string, Order>();
  for (const one of reports) {
    if (!isOfOrder(one)) continue;
    const key = pastKey(one);
    // The last one that is met is the oldest: when the order was entered.
    newest.set(key, { ...(newest.get(key) ?? one), time: one.time });
  }
  return newest;
}

/** Reports about orders, newest first. */
export function takeHistory(reports: readonly Order[]): void {
  const newest = currentOf(reports);
  const open = new Map(openOrders.value);
  for (const [id, order] of newest) {
    const known = open.get(id);
    if (known && isOpen(order)) open.set(id, { ...known, time: order.time, record_no: known.record_no || order.record_no });
  }
  openOrders.value = open;
  addPast([...newest.values()].filter((order) => !isOpen(order)));
}

/** A new order that was refused: it has no number, and is in the history alone. */
export const takeRefused = (order: Order): void => addPast([order]);

/** Orders have the number of the command that entered them; of a refused one there is only the command's. */
const commandNo = (order: Order): bigint => BigInt(order.order_id === '0' ? order.seq || '0' : order.order_id);
/** By time; what the same moment entered by the number. */
export const newestFirst = (left: Order, right: Order): number => (right.time > left.time ? 1 : right.time < left.time ? -1 : Number(commandNo(right) - commandNo(left)));
/** Tells orders in the history apart. */
export const pastKey = (order: Order): string => (order.order_id === '0' ? `refused ${order.market} ${order.seq ?? ''}` : orderKey(order));

function addPast(orders: readonly Order[]): void {
  const past = new Map(pastOrders.value.map((order) => [pastKey(order), order]));
  for (const order of orders) {
    const known = past.get(pastKey(order));
    if (!known || BigInt(known.record_no || '0') <= BigInt(order.record_no || '0')) past.set(pastKey(order), completed(order, known));
  }
  pastOrders.value = [...past.values()].sort(newestFirst).slice(0, PAST_MAX);
}

export const fillKey = (fill: Fill): string => `${fill.market}/${fill.trade_id}/${fill.liquidity}`;

export function takeFills(taken: readonly Fill[]): void {
  const all = new Map(fills.value.map((fill) => [fillKey(fill), fill]));
  for (const fill of taken) all.set(fillKey(fill), fill);
  fills.value = [...all.values()].sort((left, right) => (right.time > left.time ? 1 : right.time < left.time ? -1 : Number(BigInt(right.trade_id) - BigInt(left.trade_id)))).slice(0, FILLS_MAX);
}

/** The order that a report is about, as it is after it; `known` adds what a report does not repeat. */
export function orderOfReport(report: ExecutionReport, market: Market, known: Partial<Order> | undefined): Order | null {
  if (report.orderId === 0n) return null;
  const leaves = report.leavesLots;
  const ends = report.execType === 'cancelled' || report.execType === 'selfTradePrevented';
  const status = report.execType === 'expired' ? 'expired' : leaves ? 'open' : ends ? 'cancelled' : 'filled';
  const { price: _price, status: _status, reason: _reason, ...terms } = known ?? {};
  return {
    ...terms,
    ...(report.execType === 'triggered' ? { trigger: '', trigger_price: '', triggered: true } : {}),
    ...(report.reason === 'none' ? {} : { reason: snake(report.reason).toUpperCase() }),
    order_id: String(report.orderId),
    client_order_id: String(report.clientOrderId),
    market: market.symbol,
    side: report.side === 'sell' ? 'sell' : 'buy',
    price: market.priceText(report.priceTicks),
    qty: market.sizeText(report.qtyLots),
    leaves_qty: market.sizeText(leaves),
    cum_qty: market.sizeText(report.cumQtyLots),
    status,
    time: known?.time || timeOfNs(report.logTimeNs),
    record_no: String(report.recordNo),
  };
}

/** The order that a refusal is about, with what was asked for. */
export function refusedOf(report: ExecutionReport, market: Market, asked: Partial<Order> | undefined): Order {
  return {
    ...asked, order_id: '0', client_order_id: String(report.clientOrderId), seq: String(report.seq), market: market.symbol, side: report.side === 'sell' ? 'sell' : 'buy',
    price: market.priceText(report.priceTicks), qty: market.sizeText(report.qtyLots), leaves_qty: market.sizeText(0n), cum_qty: market.sizeText(0n), status: 'rejected',
    reason: snake(report.reason).toUpperCase(), time: timeOfNs(report.logTimeNs), record_no: String(report.recordNo),
  };
}

export function fillOfReport(report: ExecutionReport, market: Market): Fill {
  return {
    trade_id: String(report.tradeId),
    order_id: String(report.orderId),
    client_order_id: String(report.clientOrderId),
    market: market.symbol,
    side: report.side === 'sell' ? 'sell' : 'buy',
    price: market.priceText(report.lastPriceTicks),
    qty: market.sizeText(report.lastQtyLots),
    fee: market.quoteText(report.fee),
    liquidity: report.liquidity === 'none' ? 'taker' : report.liquidity,
    time: timeOfNs(report.logTimeNs),
    record_no: String(report.recordNo),
    seq: String(report.seq),
  };
}
