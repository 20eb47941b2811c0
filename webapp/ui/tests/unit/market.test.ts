import { describe, expect, it } from 'vitest';
import { Book, Scale, groupLevels, takingTo } from '../../src/market/book';
import type { BookMessage, LevelRow } from '../../src/market/book';
import { crc32 } from '../../src/market/crc32';
import { compact, formatExact, formatUnits, grouped, parseDecimal } from '../../src/market/decimal';
import { EMPTY_DRAFT, assess, lotsForPercent, protectionTicks } from '../../src/market/draft';
import type { Draft } from '../../src/market/draft';
import { Market } from '../../src/market/market';

const market = new Market({
  market_id: 1, symbol: 'BTC-USD', shard: 0, base_asset_id: 1, quote_asset_id: 2, base: 'BTC', quote: 'USD',
  base_decimals: 8, quote_decimals: 6, tick_size: '0.50', lot_size: '0.0001', maker_fee_ppm: 100, taker_fee_ppm: 250, state: 'continuous',
});

describe('decimals', () => {
  it.each([
    ['1.5', 2, 150n], ['1.50', 1, 15n], ['.5', 1, 5n], ['7.', 0, 7n], ['9007199254740993.01', 2, 900719925474099301n],
    ['', 2, null], ['.', 2, null], ['1.234', 2, null], ['-1', 2, null], ['1e3', 2, null], ['0x10', 0, null],
  ])('%s with %i decimals', (text, decimals, units) => {
    expect(parseDecimal(text, decimals)).toBe(units);
  });

  it('writes what it reads', () => {
    expect(formatUnits(5n, 3)).toBe('0.005');
    expect(formatUnits(-1234n, 2)).toBe('-12.34');
    expect(formatUnits(123456n, 4, 2)).toBe('12.34');
    expect(formatExact(1500n, 3)).toBe('1.5');
    expect(formatExact(2000n, 3)).toBe('2');
    expect(formatExact(2000n, 0)).toBe('2000');
    expect(grouped('1234567.1234')).toBe('1,234,567.1234');
    expect(compact('2500000')).toBe('2.50M');
    expect(compact('25000')).toBe('25.00K');
  });
});

describe('market', () => {
  it('has the scales of the genesis file', () => {
    expect(market.baseUnitsPerLot).toBe(10_000n);
    expect(market.quoteUnitsPerTickLot).toBe(50n);
    expect(market.priceText(120_001n)).toBe('60000.5');
    expect(market.sizeText(15n)).toBe('0.0015');
  });

  it.each([
    ['60000.5', { ticks: 120_001n }],
    ['60000.50', { ticks: 120_001n }],
    ['60000.25', { problem: 'Prices move in steps of 0.50 USD: 60000.0 or 60000.5.' }],
    ['', { problem: 'Enter a price.' }],
    ['abc', { problem: 'Enter a number.' }],
  ])('reads the price %j', (text, read) => {
    expect(market.readPrice(text)).toEqual(read);
  });

  it('explains sizes off the lot', () => {
    expect(market.readSize('0.00015')).toEqual({ problem: 'Sizes move in steps of 0.0001 BTC: 0.0001 or 0.0002.' });
    expect(market.readSize('0.00001')).toEqual({ problem: 'Sizes move in steps of 0.0001 BTC: 0.0001.' });
    expect(market.readSize('0')).toHaveProperty('problem');
    expect(market.readQuoteSize('1000', 120_000n)).toEqual({ lots: 166n, units: 1_000_000_000n });
    expect(market.readQuoteSize('5', 120_000n)).toHaveProperty('problem');
  });

  it('holds notional and the worst fee, rounded up', () => {
    expect(market.notional(120_000n, 10_000n)).toBe(60_000_000_000n);
    expect(market.fee(120_001n, 1n, 250)).toBe(1501n);
    expect(market.unitHold(120_001n)).toBe(6_000_050n + 1501n);
    expect(market.affordableLots('buy', 120_000n, 60_015_000n)).toBe(10n);
    expect(market.affordableLots('sell', 120_000n, 25_000n)).toBe(2n);
    expect(market.overflows('buy', 2n ** 53n - 1n, 2n ** 53n - 1n)).toBe(true);
  });
});

/** A message with the right checksum over what the book is then. */
function message(bids: LevelRow[], asks: LevelRow[], top: string, seq: string, previous?: string): BookMessage {
  return { type: previous === undefined ? 'snapshot' : 'update', seq, ...(previous === undefined ? {} : { prev_seq: previous }), bids, asks, checksum: crc32(top) };
}

function book(): Book {
  const made = new Book('0.50', '0.0001');
  const applied = made.apply(
    message([['60000.00', '1.0000', 2], ['59999.50', '2.0000', 1]], [['60000.50', '0.5000', 1], ['60001.00', '3.0000', 4]],
      '60000.00:1.0000,59999.50:2.0000|60000.50:0.5000,60001.00:3.0000', '10'),
  );
  expect(applied).toBe(true);
  return made;
}

describe('book', () => {
  it.each([['0.50', '60000.50', 120001], ['0.01', '0.07', 7], ['1', '42', 42], ['5', '15', 3], ['0.0001', '3', 30000], ['0.5', '9007199254740.5', 18014398509481]])(
    'reads %s steps of %s', (step, text, ticks) => {
      expect(new Scale(step).read(text)).toBe(ticks);
    },
  );

  it('applies updates in order', () => {
    const made = book();
    expect(made.apply(message([['60000.00', '0', 0], ['59998.00', '7.0000', 1]], [['60000.50', '0.2500', 1]],
      '59999.50:2.0000,59998.00:7.0000|60000.50:0.2500,60001.00:3.0000', '12', '10'))).toBe(true);
    expect(made.bids.map((level) => [level.ticks, level.lots])).toEqual([[119999, 20000], [119996, 70000]]);
    expect(made.asks[0]!.lots).toBe(2500);
    expect(made.seq).toBe('12');
  });

  it('a gap makes it stale until the next snapshot', () => {
    const made = book();
    expect(made.apply(message([], [], '', '12', '11'))).toBe(false);
    expect([made.synced, made.fault, made.seq]).toEqual([false, 'gap', '10']);
    expect(made.bids).toHaveLength(2);
    expect(made.apply(message([], [], '60000.00:1.0000,59999.50:2.0000|60000.50:0.5000,60001.00:3.0000', '11', '10'))).toBe(false);
    expect(made.apply(message([], [], '|', '20'))).toBe(true);
    expect([made.synced, made.fault, made.bids.length]).toEqual([true, null, 0]);
  });

  it('a wrong checksum makes it stale', () => {
    const made = book();
    expect(made.apply(message([['59000.00', '1.0000', 1]], [], 'something else', '11', '10'))).toBe(false);
    expect(made.fault).toBe('checksum');
  });

  it('a crossed book is never shown as good', () => {
    const made = new Book('0.50', '0.0001');
    expect(made.apply(message([['60001.00', '1.0000', 1]], [['60000.50', '0.5000', 1]], '60001.00:1.0000|60000.50:0.5000', '1'))).toBe(false);
    expect(made.fault).toBe('crossed');
  });

  it('the checksum covers ten levels a side', () => {
    const rows = Array.from({ length: 12 }, (_, index): LevelRow => [`${100 - index}`, '1', 1]);
    const made = new Book('1', '1');
    expect(made.apply(message(rows, [], rows.slice(0, 10).map((row) => `${row[0]}:1`).join(',') + '|', '1'))).toBe(true);
  });

  it('groups bids down and asks up, with running totals', () => {
    const made = book();
    expect(groupLevels(made.bids, 2, false, 5)).toEqual([{ ticks: 120000, lots: 10000, total: 10000 }, { ticks: 119998, lots: 20000, total: 30000 }]);
    expect(groupLevels(made.asks, 4, true, 5)).toEqual([{ ticks: 120004, lots: 35000, total: 35000 }]);
    expect(groupLevels(made.asks, 1, true, 1)).toEqual([{ ticks: 120001, lots: 5000, total: 5000 }]);
  });

  it('reckons what taking everything up to a price costs', () => {
    const { asks, bids } = book();
    expect(takingTo(asks, 120_001, true)).toEqual({ lots: 5000, meanTicks: 120_001, slippageBps: 0 });
    const all = takingTo(asks, 120_002, true)!;
    expect(all.lots).toBe(35_000);
    expect(all.meanTicks).toBeCloseTo(120_001 + 30 / 35, 6);
    expect(all.slippageBps).toBeCloseTo((30 / 35 / 120_001) * 10_000, 9);
    expect(takingTo(bids, 119_999, false)!.lots).toBe(30_000);
    expect(takingTo(asks, 120_000, true)).toBeNull();
    expect(takingTo([], 1, true)).toBeNull();
  });

  it('sweeps to the worst price', () => {
    expect(book().sweep('buy', 6000n)).toEqual({ worstTicks: 120002n, lots: 6000n, tickLots: 120001n * 5000n + 120002n * 1000n });
    expect(book().sweep('sell', 30001n)).toBeNull();
  });
});

describe('order form', () => {
  const draft: Draft = { ...EMPTY_DRAFT, price: '60000', size: '0.1' };
  const rich = { base: 10n ** 12n, quote: 10n ** 15n };

  it('reckons a limit order', () => {
    expect(assess(draft, market, book(), rich)).toMatchObject({ problems: {}, ticks: 120_000n, lots: 1000n, notional: 6_000_000_000n, fee: 600_000n, hold: 6_001_500_000n, takes: false });
    expect(assess({ ...draft, price: '60000.5' }, market, book(), rich)).toMatchObject({ takes: true, fee: 1_500_013n });
  });

  it.each([
    ['off the tick', { price: '60000.1' }, 'price'],
    ['off the lot', { size: '0.00001' }, 'size'],
    ['post-only that would trade', { price: '60000.5', postOnly: true }, 'price'],
    ['post-only that cannot rest', { postOnly: true, tif: 'ioc' as const }, 'tif'],
  ])('%s is explained beside its field', (_, change, field) => {
    expect(assess({ ...draft, ...change }, market, book(), rich).problems).toHaveProperty(field);
  });

  it('says what is missing when the balance does not cover it', () => {
    expect(assess(draft, market, book(), { base: 0n, quote: 6_001_499_999n }).problems.size).toBe('Needs 6001.500000 USD; available are 6001.499999.');
    expect(assess(draft, market, book(), { base: 0n, quote: 6_001_500_000n }).problems).toEqual({});
  });

  it('refuses to send on a stale book or a halted market', () => {
    const stale = book();
    stale.invalidate();
    expect(assess(draft, market, stale, rich).problems).toHaveProperty('form');
    expect(assess(draft, new Market({ ...market.info, state: 'halted' }), book(), rich).problems.form).toMatch(/halted/);
  });

  it('a market order shows its worst price and the mean of its fills', () => {
    const order: Draft = { ...draft, type: 'market', size: '0.6' };
    expect(protectionTicks(book(), 'buy', 100)).toBe(121_201n);
    expect(protectionTicks(book(), 'sell', 100)).toBe(118_800n);
    expect(assess(order, market, book(), rich)).toMatchObject({ ticks: 121_201n, meanTicks: 120_001n, warning: null, takes: true });
    expect(assess({ ...order, size: '99' }, market, book(), rich).warning).toMatch(/visible book/);
    expect(assess({ ...order, protectionBps: 0 }, market, book(), rich).warning).toMatch(/worst price/);
  });

  it('warns of a price far through the book', () => {
    expect(assess({ ...draft, price: '70000' }, market, book(), rich).warning).toMatch(/10 %/);
  });

  it('the slider spends a share of what is available, and no more', () => {
    const has = { base: 10n ** 8n, quote: 100_000_000_000n };
    const all = lotsForPercent(draft, market, book(), has, 100);
    expect(market.hold('buy', 120_000n, all)).toBeLessThanOrEqual(has.quote);
    expect(market.hold('buy', 120_000n, all + 1n)).toBeGreaterThan(has.quote);
    expect(lotsForPercent({ ...draft, side: 'sell' }, market, book(), has, 25)).toBe(2500n);
  });
});
