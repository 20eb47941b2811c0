import { describe, expect, it } from 'vitest';
import { Book } from '../../src/market/book';
import { crc32 } from '../../src/market/crc32';
import type { Conditions } from '../../src/market/draft';
import { Market } from '../../src/market/market';
import type { MarketInfo } from '../../src/market/market';
import type { Order } from '../../src/net/api';
import { amendOf, amendedTerms, editOf, mayAmend, timeField } from '../../src/state/amend';
import type { AmendField, Edit } from '../../src/state/amend';

const INFO: MarketInfo = {
  market_id: 1, symbol: 'BTC-USD', shard: 0, base_asset_id: 1, quote_asset_id: 2, base: 'BTC', quote: 'USD', base_decimals: 8, quote_decimals: 6, tick_size: '0.50',
  lot_size: '0.0001', maker_fee_ppm: 100, taker_fee_ppm: 250, state: 'continuous',
};
const market = new Market(INFO);
const NOW: Conditions = { state: 'continuous', lastTicks: 120_000n, referenceTicks: null, nowMs: Date.UTC(2026, 0, 1), openOrders: 1, utc: true };
const RICH = { base: 10n ** 12n, quote: 10n ** 15n };

function book(): Book {
  const made = new Book('0.50', '0.0001');
  made.apply({ type: 'snapshot', seq: '1', bids: [['60000.00', '1.0000', 1]], asks: [['60000.50', '0.5000', 1]], checksum: crc32('60000.00:1.0000|60000.50:0.5000') });
  return made;
}

const orderOf = (change: Partial<Order> = {}): Order => ({
  order_id: '10', client_order_id: '1', market: 'BTC-USD', side: 'buy', price: '59000.0', qty: '1.0000', leaves_qty: '0.7000', cum_qty: '0.3000', status: 'open',
  time: '2026-01-01T00:00:00Z', record_no: '5', type: 'limit', time_in_force: 'gtc', trigger: '', ...change,
});
const STOP: Partial<Order> = { type: 'market', time_in_force: 'ioc', trigger: 'stop', trigger_price: '61000.0', price: '61610.0', qty: '0.5000', leaves_qty: '0.5000', cum_qty: '0.0000' };

function amend(order: Partial<Order>, edit: Partial<Edit>, now: Partial<Conditions> = {}, available = RICH, info: Partial<MarketInfo> = {}) {
  const one = orderOf(order);
  return amendOf(one, { ...editOf(one, true), ...edit }, new Market({ ...INFO, ...info }), book(), available, { ...NOW, ...now });
}

describe('what may be changed', () => {
  it.each([
    [{}, ['price', 'size', 'display']],
    [{ hidden: true }, ['price', 'size']],
    [{ time_in_force: 'gtd' }, ['price', 'size', 'display', 'expiry']],
    [STOP, ['price', 'size', 'trigger']],
    [{ ...STOP, type: 'limit', time_in_force: 'gtc' }, ['price', 'size', 'trigger', 'display']],
    [{ ...STOP, trigger: 'trailing' }, ['price', 'size']],
    [{ ...STOP, trigger: 'trailing', trail_ppm: 20_000 }, ['price', 'size', 'trigger']],
  ] as [Partial<Order>, AmendField[]][])('of %o', (order, fields) => {
    expect((['price', 'size', 'trigger', 'display', 'expiry'] as const).filter((field) => mayAmend(orderOf(order), field)).sort()).toEqual([...fields].sort());
  });
});

describe('what is sent', () => {
  it('only what changes, and whether the order keeps its place', () => {
    expect(amend({}, { price: '59500' })).toMatchObject({ keepsPlace: false, command: { kind: 'amend', orderId: 10n, marketId: 1, priceTicks: 119_000n, qtyLots: 0n, displayQtyLots: 0n } });
    expect(amend({}, { size: '0.5' })).toMatchObject({ keepsPlace: true, command: { priceTicks: 0n, qtyLots: 5000n } });
    expect(amend({}, { size: '2' })).toMatchObject({ keepsPlace: false, command: { qtyLots: 20_000n } });
    expect(amend({}, { display: '0.1' })).toMatchObject({ keepsPlace: false, command: { displayQtyLots: 1000n } });
    expect(amend({ time_in_force: 'gtd', expire_time: '2026-01-02T00:00:00.000000000Z' }, { expiry: '2026-01-03T00:00:00' })).toMatchObject({
      keepsPlace: true, command: { expireTimeNs: BigInt(Date.UTC(2026, 0, 3)) * 1_000_000n, priceTicks: 0n },
    });
  });

  it('the trigger of an order that waits, in the unit that it has', () => {
    expect(amend(STOP, { trigger: '62000' })).toMatchObject({ keepsPlace: true, command: { triggerTicks: 124_000n, trailPpm: 0, options: [] } });
    expect(amend({ ...STOP, trigger: 'trailing', trail_ppm: 20_000 }, { trigger: '3' })).toMatchObject({ command: { triggerTicks: 0n, trailPpm: 30_000 } });
    expect(amend({ ...STOP, trigger: 'trailing', trail: '500.0' }, { trigger: '600' })).toMatchObject({ command: { triggerTicks: 1200n, trailPpm: 0 } });
  });

  it('options and self-trade prevention as the order had them, options not to a market that collects', () => {
    expect(amend({ post_only: true, slide: true, self_trade_prevention: 'decrement' }, { size: '2' })).toMatchObject({ command: { options: ['postOnly', 'slide'], selfTradePrevention: 'decrement' } });
    expect(amend({ post_only: true }, { size: '2' }, { state: 'auction' })).toMatchObject({ command: { options: [] } });
    expect(amend(STOP, { size: '0.4' })).toMatchObject({ command: { options: [], selfTradePrevention: 'cancelNewest' } });
  });
});

describe('what is wrong, in words', () => {
  const rules: [string, Partial<Order>, Partial<Edit>, RegExp][] = [
    ['nothing', {}, {}, /Nothing is changed/],
    ['a price off the tick', {}, { price: '59000.1' }, /steps of 0.50/],
    ['a size off the lot', {}, { size: '0.00001' }, /steps of 0.0001/],
    ['no more than is filled', {}, { size: '0.3' }, /0.3000 BTC are filled already/],
    ['showing more than there is', {}, { display: '1.5' }, /more than its size/],
    ['showing everything by an empty field', { display_qty: '0.1000' }, { display: '' }, /To show all of it/],
    ['a trigger that is met', STOP, { trigger: '59000' }, /above 60,000/],
    ['a distance of everything', { ...STOP, trigger: 'trailing', trail_ppm: 20_000 }, { trigger: '100' }, /below 100 %/],
    ['an end that is over', { time_in_force: 'gtd', expire_time: '2026-01-02T00:00:00Z' }, { expiry: '2025-12-31T00:00:00' }, /ahead/],
    ['post-only that would trade', { post_only: true }, { price: '60000.5' }, /Post-only would trade: price below 60000.5/],
  ];
  it.each(rules)('%s', (_, order, edit, text) => {
    expect(amend(order, edit)).toMatchObject({ problem: expect.stringMatching(text) as string });
  });

  it('more than the balance covers, of which the old hold is a part', () => {
    expect(amend({}, { price: '59500' }, {}, { base: 0n, quote: 0n })).toMatchObject({ problem: expect.stringMatching(/^Needs 350\.091000 USD more; available are 0/) as string });
    expect(amend({}, { size: '0.5' }, {}, { base: 0n, quote: 0n })).toHaveProperty('command');
  });

  it.each([['halted', /only cancels/], ['closed', /only cancels/]])('a market that is %s', (state, text) => {
    expect(amend({}, { size: '0.5' }, { state })).toMatchObject({ problem: expect.stringMatching(text) as string });
  });

  it('the limits of the market', () => {
    expect(amend({}, { size: '2' }, {}, RICH, { max_qty: '1.5000' })).toMatchObject({ problem: expect.stringMatching(/at most 1.5000 BTC/) as string });
    expect(amend({}, { size: '2' }, {}, RICH, { max_notional: '60000' })).toMatchObject({ problem: expect.stringMatching(/at most 60000.00 USD/) as string });
  });

  it('trading in a post-only market', () => {
    expect(amend({}, { price: '60001' }, { state: 'post_only' })).toMatchObject({ problem: expect.stringMatching(/BTC-USD is post-only/) as string });
    expect(amend({}, { price: '60001' })).toHaveProperty('command');
  });
});

it('an accepted amend changes the terms that no report repeats', () => {
  const terms = (order: Partial<Order>, edit: Partial<Edit>) => {
    const found = amend(order, edit);
    return 'command' in found ? amendedTerms(found.command, market, orderOf(order)) : found;
  };
  expect(terms({}, { display: '0.1', size: '2' })).toEqual({ display_qty: '0.1000' });
  expect(terms(STOP, { trigger: '62000' })).toEqual({ trigger_price: '62000.0' });
  expect(terms({ ...STOP, trigger: 'trailing', trail_ppm: 20_000 }, { trigger: '2.5' })).toEqual({ trail: '', trail_ppm: 25_000 });
  expect(terms({ time_in_force: 'gtd', expire_time: '2026-01-02T00:00:00Z' }, { expiry: '2026-01-03T00:00:00' })).toEqual({ expire_time: '2026-01-03T00:00:00.000Z' });
});

it('times as a field writes them', () => {
  expect(timeField('2026-01-02T03:04:05.123456789Z', true)).toBe('2026-01-02T03:04:05');
  const local = timeField('2026-01-02T03:04:05Z', false);
  expect(Date.parse(local)).toBe(Date.UTC(2026, 0, 2, 3, 4, 5));
  expect(timeField('', true)).toBe('');
});
