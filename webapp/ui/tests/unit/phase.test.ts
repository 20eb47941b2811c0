import { describe, expect, it } from 'vitest';
import { Book } from '../../src/market/book';
import { crc32 } from '../../src/market/crc32';
import { awaitsAuction, collects, countdown, mayBeCrossed, phaseAfter, phaseOf, refusal, stateIs, stateName, stateTakes, takesOrders } from '../../src/market/phase';
import type { Wish } from '../../src/market/phase';

const STATES = ['closed', 'pre_open', 'auction', 'continuous', 'closing_auction', 'halted', 'post_only', 'expired', 'uncrossing'];

it('every state has a name and says what it takes', () => {
  for (const state of STATES) {
    expect(stateName(state), state).toBeTruthy();
    expect(stateIs(state), state).not.toMatch(/_/);
    expect(stateTakes(state), state).toMatch(/\.$/);
  }
  expect(STATES.filter(takesOrders)).toEqual(['pre_open', 'auction', 'continuous', 'closing_auction', 'post_only']);
  expect(STATES.filter(collects)).toEqual(['pre_open', 'auction', 'closing_auction', 'uncrossing']);
  expect(STATES.filter(mayBeCrossed)).toEqual(STATES.filter((state) => state !== 'continuous' && state !== 'post_only'));
  expect(STATES.filter((state) => !awaitsAuction(state, 'at_the_open'))).toEqual(['pre_open', 'auction']);
  expect(STATES.filter((state) => !awaitsAuction(state, 'atTheClose'))).toEqual(['closing_auction']);
  expect(awaitsAuction('closed', 'gtc')).toBe(false);
});

it('a message tells only what changed', () => {
  const first = phaseAfter(phaseOf('continuous'), { state: 'auction', until: '2026-01-01T00:01:00Z', indicative_price: '60000' });
  expect(first).toEqual({ state: 'auction', until: '2026-01-01T00:01:00Z', reference_price: '', indicative_price: '60000', indicative_qty: '' });
  expect(phaseAfter(first, { indicative_price: '' })).toMatchObject({ state: 'auction', indicative_price: '' });
  expect(phaseAfter(first, { state: 'auction' })).toBe(first);
  expect(phaseAfter(first, {})).toBe(first);
});

describe('what a state refuses', () => {
  const wish: Wish = { tif: 'gtc', isMarket: false, hasTrigger: false, postOnly: false };
  /** By the table of docs/rules.md, section 8: which of five orders each state takes. */
  const orders: Record<string, Wish> = {
    resting: wish, immediate: { ...wish, tif: 'ioc' }, market: { ...wish, tif: 'ioc', isMarket: true }, postOnly: { ...wish, postOnly: true }, stop: { ...wish, tif: 'ioc', isMarket: true, hasTrigger: true },
    open: { ...wish, tif: 'atTheOpen' }, close: { ...wish, tif: 'atTheClose' },
  };
  it.each([
    ['continuous', 'resting immediate market postOnly stop close'],
    ['pre_open', 'resting stop open close'],
    ['auction', 'resting stop open close'],
    ['closing_auction', 'resting stop close'],
    ['post_only', 'resting postOnly stop close'],
    ['halted', ''],
    ['closed', 'open'],
    ['expired', ''],
    ['uncrossing', ''],
  ])('%s takes: %s', (state, taken) => {
    expect(Object.keys(orders).filter((name) => refusal('BTC-USD', state, orders[name]!) === null).join(' ')).toBe(taken);
  });

  it('says why', () => {
    expect(refusal('BTC-USD', 'halted', wish)).toEqual({ field: 'form', text: 'BTC-USD is halted: only cancels are accepted.' });
    expect(refusal('BTC-USD', 'auction', orders.market!)!.text).toBe('BTC-USD is in an auction: no market orders, only orders that stay.');
  });
});

it('counts down', () => {
  expect([0, -5, 999, 65_000, 3_600_000, 7_325_001].map(countdown)).toEqual(['0:00', '0:00', '0:01', '1:05', '1:00:00', '2:02:06']);
});

describe('a crossed book', () => {
  const crossed = (state: string) => {
    const book = new Book('0.5', '0.0001');
    const applied = book.apply({
      type: 'snapshot', seq: '1', bids: [['60001.0', '1.0000', 1]], asks: [['60000.0', '1.0000', 1]], checksum: crc32('60001.0:1.0000|60000.0:1.0000'), state,
    });
    return { applied, book };
  };
  it.each(['pre_open', 'auction', 'closing_auction', 'uncrossing', 'halted', 'closed'])('is right while the market is %s', (state) => {
    expect(crossed(state).applied).toBe(true);
  });
  it('is wrong once the market is continuous', () => {
    expect(crossed('continuous').applied).toBe(false);
    const { book } = crossed('auction');
    expect(book.apply({ type: 'update', seq: '2', prev_seq: '1', bids: [], asks: [], checksum: crc32('60001.0:1.0000|60000.0:1.0000'), state: 'continuous' })).toBe(false);
    expect(book.fault).toBe('crossed');
  });
});
