import { describe, expect, it } from 'vitest';
import { Book } from '../../src/market/book';
import { crc32 } from '../../src/market/crc32';
import { commandsOf, summaryOf } from '../../src/market/commands';
import { EMPTY_DRAFT, assess, bandTicks, mayHaveMinimum, tifOf, tifsOf, waitsAbove } from '../../src/market/draft';
import type { Assessment, Conditions, Draft } from '../../src/market/draft';
import { Market } from '../../src/market/market';
import type { MarketInfo } from '../../src/market/market';

const INFO: MarketInfo = {
  market_id: 1, symbol: 'BTC-USD', shard: 0, base_asset_id: 1, quote_asset_id: 2, base: 'BTC', quote: 'USD', base_decimals: 8, quote_decimals: 6, tick_size: '0.50',
  lot_size: '0.0001', maker_fee_ppm: 100, taker_fee_ppm: 250, state: 'continuous',
};
const market = new Market(INFO);
const RICH = { base: 10n ** 12n, quote: 10n ** 15n };
/** Last trade at 60,000.00, reference price at 59,000.00, the first day of 2026. */
const NOW: Conditions = { state: 'continuous', lastTicks: 120_000n, referenceTicks: 118_000n, nowMs: Date.UTC(2026, 0, 1), openOrders: 0, utc: true };

/** Bids 60000.00 and 59999.50, asks 60000.50 and 60001.00. */
function book(): Book {
  const made = new Book('0.50', '0.0001');
  made.apply({
    type: 'snapshot', seq: '1', bids: [['60000.00', '1.0000', 1], ['59999.50', '2.0000', 1]], asks: [['60000.50', '0.5000', 1], ['60001.00', '3.0000', 4]],
    checksum: crc32('60000.00:1.0000,59999.50:2.0000|60000.50:0.5000,60001.00:3.0000'),
  });
  return made;
}

const draftOf = (change: Partial<Draft>): Draft => ({ ...EMPTY_DRAFT, price: '59000', size: '0.1', ...change });
const assessed = (change: Partial<Draft>, now: Partial<Conditions> = {}, info: Partial<MarketInfo> = {}): Assessment =>
  assess(draftOf(change), new Market({ ...INFO, ...info }), book(), RICH, { ...NOW, ...now });

function commands(change: Partial<Draft>) {
  const found = assessed(change);
  expect(found.problems).toEqual({});
  let id = 40n;
  return commandsOf(draftOf(change), found, market, () => ++id);
}

describe('what each type sends', () => {
  it('limit', () => {
    expect(commands({})).toEqual([
      {
        kind: 'new', side: 'buy', orderType: 'limit', timeInForce: 'gtc', selfTradePrevention: 'cancelNewest', options: [], trigger: 'none', sizesNo: 0, marketId: 1, clientOrderId: 41n,
        orderId: 0n, priceTicks: 118_000n, qtyLots: 1000n, displayQtyLots: 0n, minQtyLots: 0n, triggerTicks: 0n, trailPpm: 0, expireTimeNs: 0n, maxNotional: 0n,
      },
    ]);
  });

  it('market, with the worst price that is shown', () => {
    expect(commands({ type: 'market' })).toMatchObject([{ orderType: 'market', timeInForce: 'ioc', priceTicks: 121_201n, qtyLots: 1000n, maxNotional: 0n }]);
  });

  it('market for an amount: the fee is in it, and the size is no limit', () => {
    const [command] = commands({ type: 'market', unit: 'quote', size: '1000' });
    expect(command).toMatchObject({ orderType: 'market', maxNotional: 1_000_000_000n, priceTicks: 121_201n });
    expect(command!.qtyLots).toBeGreaterThan(166n);
    const found = assessed({ type: 'market', unit: 'quote', size: '1000' });
    expect(found).toMatchObject({ hold: 1_000_000_000n, notional: 1_000_000_000n, fee: 249_938n, meanTicks: 120_001n });
  });

  it('a sale for an amount is for the lots that it makes', () => {
    expect(commands({ type: 'market', side: 'sell', unit: 'quote', size: '1000' })).toMatchObject([{ maxNotional: 0n, qtyLots: 168n }]);
  });

  it('stop', () => {
    expect(commands({ type: 'stop', trigger: '61000' })).toMatchObject([{ orderType: 'market', timeInForce: 'ioc', trigger: 'stop', triggerTicks: 122_000n, priceTicks: 123_220n }]);
  });

  it('stop limit', () => {
    expect(commands({ type: 'stop_limit', side: 'sell', trigger: '58000', price: '57900', tif: 'day' })).toMatchObject([
      { orderType: 'limit', timeInForce: 'day', trigger: 'stop', triggerTicks: 116_000n, priceTicks: 115_800n },
    ]);
  });

  it('take profit', () => {
    expect(commands({ type: 'take_profit', side: 'sell', trigger: '65000' })).toMatchObject([{ orderType: 'market', trigger: 'takeProfit', triggerTicks: 130_000n, priceTicks: 128_700n }]);
  });

  it('trailing by an amount and by parts per million', () => {
    expect(commands({ type: 'trailing_stop', side: 'sell', trail: '500', trailUnit: 'price' })).toMatchObject([{ trigger: 'trailing', triggerTicks: 1000n, trailPpm: 0, priceTicks: 117_810n }]);
    expect(commands({ type: 'trailing_stop', side: 'buy', trail: '1.25' })).toMatchObject([{ trigger: 'trailing', triggerTicks: 0n, trailPpm: 12_500, priceTicks: 122_715n }]);
    expect(assessed({ type: 'trailing_stop', side: 'buy', trail: '1.25' }).startTicks).toBe(121_500n);
  });

  it('following the reference price', () => {
    expect(commands({ type: 'stop', side: 'sell', trigger: '58500', onReference: true })).toMatchObject([{ options: ['onReference'], triggerTicks: 117_000n }]);
    expect(assessed({ type: 'stop', trigger: '61000', onReference: true }, { referenceTicks: null }).problems.trigger).toMatch(/reference price/);
  });

  it('iceberg and hidden', () => {
    expect(commands({ display: '0.02' })).toMatchObject([{ displayQtyLots: 200n, options: [] }]);
    expect(commands({ hidden: true })).toMatchObject([{ displayQtyLots: 0n, options: ['hidden'] }]);
  });

  it('at least a minimum, or nothing', () => {
    expect(commands({ tif: 'ioc', price: '60000.5', minimum: '0.05' })).toMatchObject([{ timeInForce: 'ioc', minQtyLots: 500n }]);
  });

  it('post-only, refused or sliding', () => {
    expect(commands({ postOnly: true })).toMatchObject([{ options: ['postOnly'] }]);
    expect(commands({ postOnly: true, slide: true, price: '60001' })).toMatchObject([{ options: ['postOnly', 'slide'], priceTicks: 120_002n }]);
    expect(assessed({ postOnly: true, slide: true, price: '60001' }).warning).toMatch(/slides to 60,000.0/);
  });

  it.each(['cancelNewest', 'cancelOldest', 'cancelBoth', 'decrement'] as const)('self-trade prevention: %s', (selfTrade) => {
    expect(commands({ selfTrade })).toMatchObject([{ selfTradePrevention: selfTrade }]);
  });

  it('till a date, typed in UTC', () => {
    expect(commands({ tif: 'gtd', expiry: '2026-01-02T12:00:00' })).toMatchObject([{ timeInForce: 'gtd', expireTimeNs: BigInt(Date.UTC(2026, 0, 2, 12)) * 1_000_000n }]);
  });

  it('a pair: the second cancels with the first, and both are held', () => {
    const [first, second] = commands({ side: 'sell', price: '61000', paired: true, pairTrigger: '59000' });
    expect(first).toMatchObject({ trigger: 'none', options: [], clientOrderId: 41n });
    expect(second).toMatchObject({ orderType: 'market', trigger: 'stop', triggerTicks: 118_000n, priceTicks: 116_820n, qtyLots: 1000n, options: ['ocoWithPrevious'], clientOrderId: 42n });
    expect(assessed({ side: 'sell', price: '61000', paired: true, pairTrigger: '59000' }).hold).toBe(2n * 1000n * 10_000n);
  });

  it('what does not belong to the type is not sent', () => {
    const leftOver = { price: '1', postOnly: true, hidden: true, display: '9', minimum: '', paired: true, pairTrigger: 'x', expiry: 'x' };
    expect(commands({ ...leftOver, type: 'stop', trigger: '61000' })).toMatchObject([{ options: [], displayQtyLots: 0n, expireTimeNs: 0n }]);
  });
});

describe('rules, by field', () => {
  const rules: [string, Partial<Draft>, keyof Assessment['problems'], RegExp][] = [
    ['no trigger', { type: 'stop' }, 'trigger', /Enter a price/],
    ['a stop buy below the price', { type: 'stop', trigger: '59000' }, 'trigger', /above 60,000/],
    ['a stop sale above the price', { type: 'stop', side: 'sell', trigger: '61000' }, 'trigger', /below 60,000/],
    ['a take-profit sale below the price', { type: 'take_profit', side: 'sell', trigger: '59000' }, 'trigger', /above 60,000/],
    ['a trigger off the tick', { type: 'stop', trigger: '61000.1' }, 'trigger', /steps of 0.50/],
    ['no distance', { type: 'trailing_stop' }, 'trail', /Enter a distance/],
    ['a distance of everything', { type: 'trailing_stop', trail: '100' }, 'trail', /below 100 %/],
    ['a distance that is too fine', { type: 'trailing_stop', trail: '0.00001' }, 'trail', /four decimals/],
    ['further behind than there are prices', { type: 'trailing_stop', side: 'sell', trail: '60000', trailUnit: 'price' }, 'trail', /no price/],
    ['a stop limit without limit', { type: 'stop_limit', trigger: '61000', price: '' }, 'price', /Enter a price/],
    ['showing more than there is', { display: '0.2' }, 'display', /more than its size/],
    ['shown in part and hidden', { display: '0.02', hidden: true }, 'display', /not both/],
    ['a minimum above the size', { tif: 'ioc', price: '60000.5', minimum: '0.2' }, 'minimum', /above the size/],
    ['no date', { tif: 'gtd' }, 'expiry', /Enter a date/],
    ['a date that is over', { tif: 'gtd', expiry: '2025-12-31T23:59:59' }, 'expiry', /ahead/],
    ['at the open of a continuous market', { tif: 'atTheOpen' }, 'tif', /pre-open or in an auction/],
    ['a pair without stop', { paired: true }, 'pair', /Enter a price/],
    ['a pair that would trade at once', { paired: true, price: '60001', pairTrigger: '62000' }, 'pair', /trade at once/],
  ];
  it.each(rules)('%s', (_, change, field, text) => {
    expect(assessed(change).problems[field]).toMatch(text);
  });

  it('a trailing order needs a price to follow', () => {
    expect(assessed({ type: 'trailing_stop', trail: '1' }, { lastTicks: null }).problems.trail).toMatch(/Nothing has traded/);
  });

  it.each([
    ['quantity', { max_qty: '0.0500' }, /at most 0.0500 BTC/],
    ['notional', { max_notional: '1000' }, /at most 1,000.00 USD/],
  ])('the market limits the %s', (_, info, text) => {
    expect(assessed({}, {}, info).problems.size).toMatch(text);
  });

  it('the market limits open orders, of which a pair is two', () => {
    expect(assessed({}, { openOrders: 3 }, { max_open_orders: 3 }).problems.form).toMatch(/allows 3/);
    expect(assessed({ paired: true, pairTrigger: '62000' }, { openOrders: 2 }, { max_open_orders: 3 }).problems.form).toMatch(/allows 3/);
    expect(assessed({ tif: 'ioc' }, { openOrders: 3 }, { max_open_orders: 3 }).problems.form).toBeUndefined();
  });
});

describe('by the state of the market', () => {
  it.each([
    ['halted', {}, 'form'], ['closed', {}, 'form'], ['expired', {}, 'form'], ['uncrossing', {}, 'form'], ['auction', { type: 'market' as const }, 'form'],
    ['auction', { tif: 'ioc' as const }, 'tif'], ['pre_open', { postOnly: true }, 'tif'], ['post_only', { tif: 'fok' as const }, 'tif'], ['post_only', { price: '60000.5' }, 'price'],
    ['closing_auction', { tif: 'atTheOpen' as const }, 'tif'],
  ] as [string, Partial<Draft>, keyof Assessment['problems']][])('%s refuses %o', (state, change, field) => {
    expect(Object.keys(assessed(change, { state }).problems)).toEqual([field]);
  });

  it.each([
    ['pre_open', { tif: 'atTheOpen' }], ['closed', { tif: 'atTheOpen' }], ['auction', { price: '60001' }], ['continuous', { tif: 'atTheClose', price: '60001' }], ['auction', { tif: 'atTheClose' }], ['closing_auction', { tif: 'atTheClose' }], ['post_only', {}], ['auction', { type: 'stop', trigger: '61000' }],
  ] as [string, Partial<Draft>][])('%s takes %o', (state, change) => {
    const found = assessed(change, { state });
    expect(found.problems).toEqual({});
    expect(found.takes).toBe(false);
  });
});

describe('warnings', () => {
  it('fill or kill that the book does not fill', () => {
    expect(assessed({ tif: 'fok', price: '60000.5', size: '1' }).warning).toMatch(/does not fill all/);
    expect(assessed({ tif: 'fok', price: '60000.5' }).warning).toBeNull();
  });

  it('a minimum that the book does not fill', () => {
    expect(assessed({ tif: 'ioc', price: '60000.5', size: '2', minimum: '1' }).warning).toMatch(/does not fill the minimum/);
  });

  it('a trade outside the price band, the narrower of the two', () => {
    expect(bandTicks(new Market({ ...INFO, dynamic_band_ppm: 10_000 }), 'buy', NOW)).toBe(121_200n);
    expect(bandTicks(new Market({ ...INFO, dynamic_band_ppm: 10_000, static_band_ppm: 20_000 }), 'buy', NOW)).toBe(120_360n);
    expect(bandTicks(new Market({ ...INFO, dynamic_band_ppm: 10_000, static_band_ppm: 1_000 }), 'sell', NOW)).toBe(118_800n);
    expect(bandTicks(market, 'buy', NOW)).toBeNull();
    expect(assessed({ price: '60001', size: '1' }, {}, { dynamic_band_ppm: 5 }).warning).toMatch(/leaves the price band/);
  });
});

it('times in force by type', () => {
  expect(tifsOf(draftOf({}))).toEqual(['gtc', 'day', 'gtd', 'ioc', 'fok', 'atTheOpen', 'atTheClose']);
  expect(tifsOf(draftOf({ type: 'stop_limit' }))).toEqual(['gtc', 'day', 'gtd', 'ioc', 'fok']);
  for (const type of ['market', 'stop', 'take_profit', 'trailing_stop'] as const) expect(tifsOf(draftOf({ type }))).toEqual(['ioc', 'fok']);
  expect(tifOf(draftOf({ type: 'market', tif: 'gtd' }))).toBe('ioc');
  expect([mayHaveMinimum(draftOf({ tif: 'ioc' })), mayHaveMinimum(draftOf({ tif: 'fok' })), mayHaveMinimum(draftOf({ type: 'stop' }))]).toEqual([true, false, false]);
  expect([waitsAbove('stop', 'buy'), waitsAbove('stop', 'sell'), waitsAbove('takeProfit', 'buy'), waitsAbove('takeProfit', 'sell')]).toEqual([true, false, false, true]);
});

it.each([
  [{}, 'Buy 0.1000 BTC at 59,000.0'],
  [{ type: 'market' }, 'Buy 0.1000 BTC at market, worst price 60,600.5'],
  [{ type: 'market', unit: 'quote', size: '1000' }, 'Buy for at most 1,000.00 USD at market, worst price 60,600.5'],
  [{ type: 'stop', side: 'sell', trigger: '59000' }, 'Sell 0.1000 BTC at market, worst price 58,410.0, once the price falls to 59,000.0'],
  [{ type: 'stop_limit', trigger: '61000', price: '61100' }, 'Buy 0.1000 BTC at 61,100.0, once the price rises to 61,000.0'],
  [{ type: 'trailing_stop', side: 'sell', trail: '2' }, 'Sell 0.1000 BTC at market once the price falls 2 % from its highest'],
  [{ side: 'sell', price: '61000', paired: true, pairTrigger: '59000' }, 'Sell 0.1000 BTC at 61,000.0, or at market once the price falls to 59,000.0'],
] as [Partial<Draft>, string][])('in words: %o', (change, text) => {
  expect(summaryOf(draftOf(change), assessed(change), market)).toBe(text);
});
