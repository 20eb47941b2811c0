import { beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { meanTicks } from '../../src/market/decimal';
import { Market } from '../../src/market/market';
import { QueueEstimate } from '../../src/market/queue';
import { allPages } from '../../src/net/api';
import type { Fill, Order } from '../../src/net/api';
import { fineTerms, kindOf, outcomeOf, whyOf } from '../../src/state/terms';
import type { ExecutionReport } from '../../src/wire/messages';

// The store keeps settings, which need a browser.
vi.stubGlobal('localStorage', { getItem: () => null, setItem: () => undefined });
vi.stubGlobal('matchMedia', () => ({ matches: true, addEventListener: () => undefined }));
vi.stubGlobal('document', { documentElement: { dataset: {} } });

let orders: typeof import('../../src/state/orders');
let store: typeof import('../../src/state/store');
beforeAll(async () => {
  orders = await import('../../src/state/orders');
  store = await import('../../src/state/store');
});
beforeEach(() => {
  store.openOrders.value = new Map();
  store.pastOrders.value = [];
  store.fills.value = [];
});

const order = (change: Partial<Order> = {}): Order => ({
  order_id: '10', client_order_id: '1', market: 'BTC-USD', side: 'buy', price: '60000', qty: '1', leaves_qty: '1', cum_qty: '0', status: 'open', time: '2026-01-01T00:00:00Z',
  record_no: '5', ...change,
});

describe('own orders from two sources', () => {
  it('an older record does not undo a newer one', () => {
    orders.takeOrders([order({ record_no: '7', leaves_qty: '0.5' })], false);
    orders.takeOrders([order({ record_no: '6' })], false);
    expect(store.openOrders.value.get('BTC-USD 10')!.leaves_qty).toBe('0.5');
  });

  it('a snapshot without all of them is said to be one until there is another', () => {
    orders.takeOrders([order()], true, true);
    orders.takeOrders([order({ order_id: '11' })], false);
    expect(store.ordersTruncated.value).toBe(true);
    orders.takeOrders([order()], true);
    expect(store.ordersTruncated.value).toBe(false);
  });

  it('one that is gone stays gone, and is in the history', () => {
    orders.takeOrders([order(), order({ order_id: '11' })], true);
    orders.takeOrders([order({ status: 'cancelled', record_no: '8', leaves_qty: '0' })], false);
    orders.takeOrders([order()], false);
    expect([...store.openOrders.value.keys()]).toEqual(['BTC-USD 11']);
    expect(store.pastOrders.value.map((one) => [one.order_id, one.status])).toEqual([['10', 'cancelled']]);
  });

  it('a snapshot without times keeps what a report said', () => {
    orders.takeOrders([order({ type: 'limit', post_only: true })], false);
    orders.takeOrders([order({ time: '', record_no: '' })], true);
    expect(store.openOrders.value.get('BTC-USD 10')).toMatchObject({ time: '2026-01-01T00:00:00Z', record_no: '5', post_only: true });
  });

  it('what the exchange has forgotten about an order is kept', () => {
    orders.takeOrders([order({ type: 'limit', post_only: true, slide: false, self_trade_prevention: 'decrement', paired: true })], false);
    orders.takeOrders([order({ type: 'limit', post_only: null, slide: null, self_trade_prevention: '', paired: false, record_no: '9' })], false);
    expect(store.openOrders.value.get('BTC-USD 10')).toMatchObject({ post_only: true, slide: false, self_trade_prevention: 'decrement', paired: false });
  });

  it('history completes open orders and fills the past, newest report first', () => {
    orders.takeOrders([order({ time: '', record_no: '' })], true);
    orders.takeHistory([
      order({ order_id: '9', status: 'filled', leaves_qty: '0', record_no: '6' }),
      order({ record_no: '5' }),
      order({ order_id: '9', record_no: '4' }),
      order({ order_id: '0', status: 'rejected', side: '' as 'buy' }),
    ]);
    expect(store.openOrders.value.get('BTC-USD 10')!.record_no).toBe('5');
    expect(store.pastOrders.value.map((one) => one.order_id)).toEqual(['9']);
  });

  it('a refused cancel or amend leaves its order open', () => {
    orders.takeOrders([order()], false);
    orders.takeOrders([order({ order_id: '0', status: 'rejected' }), order({ status: 'rejected', record_no: '9', leaves_qty: '0' })], false);
    orders.takeHistory([order({ status: 'rejected', record_no: '9', leaves_qty: '0', side: '' as 'buy' })]);
    expect([...store.openOrders.value.keys()]).toEqual(['BTC-USD 10']);
    expect(store.pastOrders.value).toEqual([]);
  });

  it('a refused order is in the history, once, in its place', () => {
    const refused = order({ order_id: '0', status: 'rejected', reason: 'INSUFFICIENT_FUNDS', seq: '12', leaves_qty: '0' });
    orders.takeOrders([order({ order_id: '11', status: 'filled', leaves_qty: '0' }), order({ order_id: '13', status: 'filled', leaves_qty: '0' })], false);
    orders.takeRefused(refused);
    orders.takeHistory([refused]);
    expect(store.pastOrders.value.map((one) => one.order_id)).toEqual(['13', '0', '11']);
  });

  it('an order that was triggered says so to its end', () => {
    orders.takeOrders([order({ type: 'market', trigger: 'stop', trigger_price: '61000' })], false);
    orders.takeOrders([order({ record_no: '6', type: 'market', trigger: '', trigger_price: '' })], false);
    expect(store.openOrders.value.get('BTC-USD 10')).toMatchObject({ trigger: '', triggered: true });
    orders.takeOrders([order({ record_no: '7', status: 'filled', leaves_qty: '0', type: '' })], false);
    expect(outcomeOf(store.pastOrders.value[0]!)).toBe('triggered, filled');
  });

  it('orders of two shards may have the same number', () => {
    orders.takeOrders([order(), order({ market: 'ETH-USD' })], true);
    orders.takeOrders([order({ market: 'ETH-USD', status: 'cancelled', leaves_qty: '0', record_no: '6' })], false);
    expect([...store.openOrders.value.keys()]).toEqual(['BTC-USD 10']);
    orders.takeHistory([order({ market: 'AAPL-USD', status: 'filled', leaves_qty: '0', time: '2026-01-03T00:00:00Z', record_no: '9' }), order({ market: 'AAPL-USD', time: '2026-01-02T00:00:00Z' })]);
    expect(store.pastOrders.value.map((one) => [one.market, one.status, one.time.slice(0, 10)])).toEqual([
      ['AAPL-USD', 'filled', '2026-01-02'],
      ['ETH-USD', 'cancelled', '2026-01-01'],
    ]);
  });

  it('the same fill counts once', () => {
    const fill: Fill = { trade_id: '3', order_id: '10', market: 'BTC-USD', side: 'buy', price: '1', qty: '1', fee: '0', liquidity: 'maker', time: '2', record_no: '1', seq: '1' };
    orders.takeFills([fill]);
    orders.takeFills([fill, { ...fill, trade_id: '4', time: '3' }]);
    expect(store.fills.value.map((one) => one.trade_id)).toEqual(['4', '3']);
  });
});

it('pages are asked for until there is none left', async () => {
  const asked: string[] = [];
  const counts: number[] = [];
  const pages = [['a', 'b'], ['c'], []].map((rows, at) => ({ rows, next_cursor: at < 2 ? `${at}=` : null }));
  const get = (path: string) => {
    asked.push(path);
    return Promise.resolve(pages[asked.length - 1] as never);
  };
  expect(await allPages<string>(get, '/fills', 'rows', (rows) => counts.push(rows))).toEqual(['a', 'b', 'c']);
  expect(asked).toEqual(['/fills?limit=1000', '/fills?limit=1000&cursor=0%3D', '/fills?limit=1000&cursor=1%3D']);
  expect(counts).toEqual([2, 3, 3]);
});

it('of reports the newest of each order is how it stands', () => {
  const reports = [
    order({ order_id: '9', status: 'rejected', leaves_qty: '0' }), order({ order_id: '9', status: 'open', leaves_qty: '0.5' }), order({ order_id: '8', status: 'filled', leaves_qty: '0' }),
    order({ order_id: '8' }), order({ order_id: '0', status: 'rejected', seq: '7' }), order({ order_id: '0', status: 'rejected', side: '' as 'buy', seq: '6' }),
  ];
  expect([...orders.currentOf(reports).values()].map((one) => [one.order_id, one.status])).toEqual([['9', 'open'], ['8', 'filled'], ['0', 'rejected']]);
});

it('a report becomes an order and a fill in decimals', () => {
  const market = new Market({
    market_id: 1, symbol: 'BTC-USD', shard: 0, base_asset_id: 1, quote_asset_id: 2, base: 'BTC', quote: 'USD', base_decimals: 8, quote_decimals: 6, tick_size: '0.50',
    lot_size: '0.0001', maker_fee_ppm: 100, taker_fee_ppm: 250, state: 'continuous',
  });
  const report = {
    message: 'ExecutionReport', execType: 'trade', orderId: 10n, clientOrderId: 4n, side: 'sell', priceTicks: 120_001n, qtyLots: 100n, leavesLots: 40n, cumQtyLots: 60n,
    lastPriceTicks: 120_002n, lastQtyLots: 60n, fee: 1_500_000n, tradeId: 77n, liquidity: 'taker', logTimeNs: 1_700_000_000_123_456_789n, recordNo: 12n, seq: 30n, reason: 'none',
  } as ExecutionReport;
  expect(orders.orderOfReport(report, market, { type: 'limit' })).toMatchObject({ status: 'open', side: 'sell', price: '60000.5', qty: '0.0100', leaves_qty: '0.0040', type: 'limit' });
  expect(orders.orderOfReport({ ...report, execType: 'cancelled', leavesLots: 0n }, market, undefined)).toMatchObject({ status: 'cancelled' });
  expect(orders.fillOfReport(report, market)).toMatchObject({ price: '60001.0', qty: '0.0060', fee: '1.500000', time: '2023-11-14T22:13:20.123456789Z', record_no: '12' });
});

it.each([
  [{ status: 'filled', reason: 'SELF_TRADE' }, 'filled', ''],
  [{ status: 'cancelled', reason: 'CANCELLED_BY_USER' }, 'cancelled', ''],
  [{ status: 'cancelled', reason: 'SELF_TRADE' }, 'self-trade prevented', /own|account/],
  [{ status: 'cancelled', reason: 'IMMEDIATE_REMAINDER' }, 'rest cancelled', /./],
  [{ status: 'expired', reason: 'ORDER_EXPIRED' }, 'expired', /./],
  [{ status: 'rejected', reason: 'INSUFFICIENT_FUNDS' }, 'refused', /balance/],
  [{ status: 'cancelled', reason: 'FOK_NOT_FILLABLE', triggered: true }, 'triggered, not fillable', /./],
  [{ status: 'filled', type: 'market', trigger: 'stop' }, 'triggered, filled', ''],
  [{ status: 'cancelled', reason: 'ONE_CANCELS_OTHER' }, 'cancelled by its pair', /./],
] as [Partial<Order>, string, string | RegExp][])('an order that ended as %o', (change, outcome, why) => {
  expect(outcomeOf(order(change))).toBe(outcome);
  if (why === '') expect(whyOf(order(change))).toBe('');
  else expect(whyOf(order(change))).toMatch(why);
});

it.each([
  [{ type: 'limit', time_in_force: 'gtc' }, 'limit'],
  [{ type: 'limit', trigger: 'stop', time_in_force: 'day' }, 'stop limit · day'],
  [{ type: 'market', trigger: 'stop', time_in_force: 'ioc' }, 'stop'],
  [{ type: 'market', trigger: 'trailing', time_in_force: 'fok' }, 'trailing stop · fill or kill'],
  [{ type: 'limit', time_in_force: 'gtd', display_qty: '0.1', post_only: true }, 'limit · till date · post-only · iceberg'],
  [{ type: 'limit', hidden: true, paired: true }, 'limit · hidden · pair'],
  [{ type: 'limit', post_only: true, slide: true }, 'limit · post-only, slides'],
  [{ type: 'market', trigger: 'take_profit', time_in_force: 'ioc', on_reference: true }, 'take profit · on reference'],
] as [Partial<Order>, string][])('the kind of %o', (change, kind) => {
  expect(kindOf(order(change))).toBe(kind);
});

it('what is said about one order has one toast, and all of it is in the activity', () => {
  store.notify('info', 'Order accepted', '', 'order 1');
  store.notify('info', 'Order accepted', '', 'order 2');
  store.notify('good', 'Partly filled', '', 'order 1');
  store.notify('info', 'Something else');
  store.notify('good', 'Order filled', '', 'order 1');
  expect(store.toasts.value.map((one) => [one.text, one.about])).toEqual([['Order accepted', 'order 2'], ['Something else', ''], ['Order filled', 'order 1']]);
  expect(store.activity.value.length).toBe(5);
  for (const one of store.toasts.value) store.dismiss(one.id);
});

it('a mean price is weighed and rounded to a tick', () => {
  expect(meanTicks([])).toBe(0n);
  expect(meanTicks([[100n, 1n], [104n, 3n]])).toBe(103n);
  expect(meanTicks([[1n, 1n], [2n, 1n]])).toBe(2n);
});

it('what the kind of an order does not say', () => {
  expect(fineTerms(order({ type: 'limit', self_trade_prevention: 'cancel_newest', post_only: true }))).toBe('');
  expect(fineTerms(order({ pair_order_id: '12', min_qty: '0.5', self_trade_prevention: 'cancel_both' }))).toBe(
    'one cancels the other: order 12; at least 0.5; self-trade: cancel both',
  );
});

it('the estimate of the queue ahead only shrinks while an order keeps its price', () => {
  const queue = new QueueEstimate();
  expect(queue.estimate('1', 100, 5, 25)).toBe(20);
  expect(queue.estimate('1', 100, 5, 60)).toBe(20);
  expect(queue.estimate('1', 100, 5, 12)).toBe(7);
  expect(queue.estimate('1', 101, 5, 30)).toBe(25);
  queue.keep(new Set());
  expect(queue.estimate('1', 101, 5, 60)).toBe(55);
});
