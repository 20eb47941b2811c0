// What the order form holds, and everything that follows from it before anything is sent: the order in integers, what it
// costs, and each rule of the market that it breaks, by field.

import { formatUnits } from './decimal';
import { INTEGER_MAX } from './market';
import type { Market, Side } from './market';
import type { Book } from './book';

export type TimeInForce = 'gtc' | 'ioc' | 'fok';

export interface Draft {
  side: Side;
  type: string;
  price: string;
  size: string;
  /** The asset that `size` counts. */
  unit: 'base' | 'quote';
  tif: TimeInForce;
  postOnly: boolean;
  /** Market orders: how far from the best price a fill may be, in hundredths of a percent. */
  protectionBps: number;
}

export interface Available {
  /** Base units of the base asset and of the quote asset. */
  base: bigint;
  quote: bigint;
}

export interface Assessment {
  /** By field; empty when the order may be sent. */
  problems: Partial<Record<'price' | 'size' | 'tif' | 'form', string>>;
  /** Worth knowing, and no reason not to send. */
  warning: string | null;
  ticks: bigint | null;
  lots: bigint | null;
  /** Base units of the quote asset. */
  notional: bigint | null;
  fee: bigint | null;
  /** Base units of the asset that is spent. */
  hold: bigint | null;
  /** Market orders: mean price of the fills that the book offers now, in ticks, rounded. */
  meanTicks: bigint | null;
  /** Whether some of it would trade at once. */
  takes: boolean;
}

const BPS = 10_000n;
/** Further from the best price than this many hundredths of a percent, a limit order is probably a slip. */
const FAR_BPS = 1000n;

/** The protection price of a market order: the best price moved by `bps`, to a whole tick inwards. Null without a book. */
export function protectionTicks(book: Book, side: Side, bps: number): bigint | null {
  const best = side === 'buy' ? book.asks[0] : book.bids[0];
  if (!best) return null;
  const ticks = BigInt(best.ticks);
  if (side === 'buy') {
    const most = (ticks * (BPS + BigInt(bps))) / BPS;
    return most > INTEGER_MAX ? INTEGER_MAX : most;
  }
  const least = (ticks * (BPS - BigInt(bps)) + BPS - 1n) / BPS;
  return least < 1n ? 1n : least;
}

/** The price that an order is reckoned with: the one typed, or the protection price. */
export function draftTicks(draft: Draft, market: Market, book: Book): bigint | null {
  if (draft.type === 'market') return protectionTicks(book, draft.side, draft.protectionBps);
  const read = market.readPrice(draft.price);
  return 'ticks' in read ? read.ticks : null;
}

export function assess(draft: Draft, market: Market, book: Book, available: Available | null): Assessment {
  const found: Assessment = {
    problems: {}, warning: null, ticks: null, lots: null, notional: null, fee: null, hold: null, meanTicks: null, takes: false,
  };
  const { problems } = found;
  const { info } = market;
  if (draft.type === 'market') {
    found.ticks = protectionTicks(book, draft.side, draft.protectionBps);
    if (found.ticks === null) problems.price = draft.side === 'buy' ? 'Nobody is selling now.' : 'Nobody is buying now.';
  } else {
    const read = market.readPrice(draft.price);
    if ('problem' in read) problems.price = read.problem;
    else found.ticks = read.ticks;
  }
  if (draft.unit === 'base') {
    const read = market.readSize(draft.size);
    if ('problem' in read) problems.size = read.problem;
    else found.lots = read.lots;
  } else if (found.ticks !== null) {
    const read = market.readQuoteSize(draft.size, found.ticks);
    if ('problem' in read) problems.size = read.problem;
    else found.lots = read.lots;
  }
  if (info.state !== 'continuous') problems.form = `${market.symbol} is ${info.state}: only cancels are accepted.`;
  else if (!book.synced) problems.form = 'The order book is being synchronised.';
  if (draft.postOnly && draft.type === 'limit' && draft.tif !== 'gtc') problems.tif = 'A post-only order must be good till cancelled.';

  const { ticks, lots } = found;
  if (ticks === null) return found;
  const best = draft.side === 'buy' ? book.asks[0] : book.bids[0];
  const crosses = best !== undefined && (draft.side === 'buy' ? ticks >= BigInt(best.ticks) : ticks <= BigInt(best.ticks));
  found.takes = crosses && !draft.postOnly;
  if (crosses && draft.postOnly && draft.type === 'limit') {
    const text = market.priceText(BigInt(best.ticks));
    problems.price = draft.side === 'buy' ? `Post-only would trade: price below ${text}.` : `Post-only would trade: price above ${text}.`;
  }
  if (best && draft.type === 'limit') {
    const away = draft.side === 'buy' ? ticks - BigInt(best.ticks) : BigInt(best.ticks) - ticks;
    if (away * BPS > BigInt(best.ticks) * FAR_BPS)
      found.warning = `This is more than 10 % ${draft.side === 'buy' ? 'above the best ask' : 'below the best bid'}; it trades at resting prices.`;
  }
  if (lots === null) return found;
  if (market.overflows(draft.side, ticks, lots)) {
    problems.size = 'The order is larger than the exchange can hold.';
    return found;
  }
  found.notional = market.notional(ticks, lots);
  found.hold = market.hold(draft.side, ticks, lots);
  found.fee = market.fee(ticks, lots, found.takes ? info.taker_fee_ppm : info.maker_fee_ppm);
  if (draft.type === 'market') {
    const swept = book.sweep(draft.side, lots);
    if (!swept) found.warning = 'The visible book holds less than this; the rest is cancelled.';
    else {
      found.meanTicks = (swept.tickLots + lots / 2n) / lots;
      const worse = draft.side === 'buy' ? swept.worstTicks > ticks : swept.worstTicks < ticks;
      if (worse) found.warning = `The book reaches past the worst price; what is left is cancelled.`;
      if (!worse) found.notional = swept.tickLots * market.quoteUnitsPerTickLot;
    }
  }
  if (available) {
    const has = draft.side === 'buy' ? available.quote : available.base;
    if (found.hold > has) {
      const [decimals, asset] = draft.side === 'buy' ? [info.quote_decimals, info.quote] : [info.base_decimals, info.base];
      problems.size = `Needs ${formatUnits(found.hold, decimals)} ${asset}; available are ${formatUnits(has, decimals)}.`;
    }
  }
  return found;
}

/** The size for a share of what is available, in lots. */
export function lotsForPercent(draft: Draft, market: Market, book: Book, available: Available, percent: number): bigint {
  const ticks = draftTicks(draft, market, book);
  if (ticks === null && draft.side === 'buy') return 0n;
  const has = draft.side === 'buy' ? available.quote : available.base;
  return market.affordableLots(draft.side, ticks ?? 1n, (has * BigInt(percent)) / 100n);
}
