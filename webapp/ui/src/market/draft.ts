// What the order form holds, and everything that follows from it before anything is sent: the order in integers, what it
// costs, and each rule of the market that it breaks, by field. The order of the rules is that of
// docs/rules.md, section 5; what only the exchange can know is left to it.

import type { SelfTradePrevention, TimeInForce, Trigger } from '../wire/messages';
import { ceilDiv, formatUnits, grouped, parseDecimal } from './decimal';
import { INTEGER_MAX } from './market';
import type { Market, Side } from './market';
import type { Book } from './book';
import { awaitsAuction, collects, refusal } from './phase';

export type { SelfTradePrevention, TimeInForce };
export type OrderKind = 'limit' | 'market' | 'stop' | 'stop_limit' | 'trailing_stop' | 'take_profit';

export interface Draft {
  side: Side;
  type: OrderKind;
  price: string;
  size: string;
  /** The asset that `size` counts. */
  unit: 'base' | 'quote';
  tif: TimeInForce;
  /** GTD: as a field for date and time writes it. */
  expiry: string;
  postOnly: boolean;
  slide: boolean;
  /** Orders at market: how far from the best or the trigger price a fill may be, in hundredths of a percent. */
  protectionBps: number;
  /** What a stop or take-profit order waits for. */
  trigger: string;
  /** How far a trailing order stays behind. */
  trail: string;
  trailUnit: 'percent' | 'price';
  onReference: boolean;
  display: string;
  hidden: boolean;
  minimum: string;
  selfTrade: SelfTradePrevention;
  /** A limit order's pair: a stop at `pairTrigger`, and one cancels the other. */
  paired: boolean;
  pairTrigger: string;
}

export const EMPTY_DRAFT: Draft = {
  side: 'buy', type: 'limit', price: '', size: '', unit: 'base', tif: 'gtc', expiry: '', postOnly: false, slide: false, protectionBps: 100, trigger: '', trail: '',
  trailUnit: 'percent', onReference: false, display: '', hidden: false, minimum: '', selfTrade: 'cancelNewest', paired: false, pairTrigger: '',
};

export interface Available {
  /** Base units of the base asset and of the quote asset. */
  base: bigint;
  quote: bigint;
}

/** What the market is like at the moment, besides its book. */
export interface Conditions {
  state: string;
  lastTicks: bigint | null;
  referenceTicks: bigint | null;
  nowMs: number;
  /** Own open orders in the market. */
  openOrders: number;
  /** Whether times are typed in UTC, not in local time. */
  utc: boolean;
}

export type Field = 'price' | 'size' | 'tif' | 'expiry' | 'trigger' | 'trail' | 'display' | 'minimum' | 'pair' | 'form';

export interface Assessment {
  /** By field; empty when the order may be sent. */
  problems: Partial<Record<Field, string>>;
  /** Worth knowing, and no reason not to send. */
  warning: string | null;
  /** Limit, or worst price. */
  ticks: bigint | null;
  lots: bigint | null;
  triggerTicks: bigint;
  trailPpm: number;
  displayLots: bigint;
  minLots: bigint;
  expireNs: bigint;
  /** Market buys by amount: the most that is spent. */
  maxNotional: bigint;
  /** The stop of a pair. */
  pair: { triggerTicks: bigint; ticks: bigint } | null;
  /** Base units of the quote asset. */
  notional: bigint | null;
  fee: bigint | null;
  /** Base units of the asset that is spent. */
  hold: bigint | null;
  /** Market orders: mean price of the fills that the book offers now, in ticks, rounded. */
  meanTicks: bigint | null;
  /** Where a trailing order's trigger would be now. */
  startTicks: bigint | null;
  /** Whether some of it would trade at once. */
  takes: boolean;
}

const BPS = 10_000n;
const PPM = 1_000_000n;
/** Further from the best price than this many hundredths of a percent, a limit order is probably a slip. */
const FAR_BPS = 1000n;
const TRIGGERS: Partial<Record<OrderKind, Trigger>> = { stop: 'stop', stop_limit: 'stop', trailing_stop: 'trailing', take_profit: 'takeProfit' };

export const triggerOf = (draft: Draft): Trigger => TRIGGERS[draft.type] ?? 'none';
/** Whether it has a price of its own; other orders take the best there are, down to a worst price. */
export const hasLimit = (draft: Draft): boolean => draft.type === 'limit' || draft.type === 'stop_limit';

/** Times in force that the type may have. */
export function tifsOf(draft: Draft): readonly TimeInForce[] {
  if (!hasLimit(draft)) return ['ioc', 'fok'];
  return draft.type === 'limit' ? ['gtc', 'day', 'gtd', 'ioc', 'fok', 'atTheOpen', 'atTheClose'] : ['gtc', 'day', 'gtd', 'ioc', 'fok'];
}

export function tifOf(draft: Draft): TimeInForce {
  const allowed = tifsOf(draft);
  return allowed.includes(draft.tif) ? draft.tif : allowed[0]!;
}

/** Whether it stays in the book; only such an order is hidden, shown in part, or one of a pair. */
export const stays = (draft: Draft): boolean => !['ioc', 'fok'].includes(tifOf(draft));
export const mayPost = (draft: Draft): boolean => draft.type === 'limit';
export const maySpend = (draft: Draft): boolean => draft.type === 'market' && draft.side === 'buy' && draft.unit === 'quote' && tifOf(draft) === 'ioc';
export const mayHaveMinimum = (draft: Draft): boolean => triggerOf(draft) === 'none' && tifOf(draft) === 'ioc' && !maySpend(draft);
const isPaired = (draft: Draft): boolean => draft.paired && draft.type === 'limit' && stays(draft);

/** Moved by `bps` against the side, to a whole tick inwards. */
function guarded(ticks: bigint, side: Side, bps: number): bigint {
  const moved = side === 'buy' ? (ticks * (BPS + BigInt(bps))) / BPS : ceilDiv(ticks * (BPS - BigInt(bps)), BPS);
  return moved > INTEGER_MAX ? INTEGER_MAX : moved < 1n ? 1n : moved;
}

/** The protection price of a market order: the best price moved by `bps`, to a whole tick inwards. Null without a book. */
export function protectionTicks(book: Book, side: Side, bps: number): bigint | null {
  const best = side === 'buy' ? book.asks[0] : book.bids[0];
  return best ? guarded(BigInt(best.ticks), side, bps) : null;
}

/** The price that an order is reckoned with: the one typed, or the worst one. */
export function draftTicks(draft: Draft, market: Market, book: Book): bigint | null {
  if (hasLimit(draft)) {
    const read = market.readPrice(draft.price);
    return 'ticks' in read ? read.ticks : null;
  }
  const read = market.readPrice(draft.trigger);
  if (draft.type !== 'market' && draft.type !== 'trailing_stop') return 'ticks' in read ? guarded(read.ticks, draft.side, draft.protectionBps) : null;
  return protectionTicks(book, draft.side, draft.protectionBps);
}

export function assess(draft: Draft, market: Market, book: Book, available: Available | null, now?: Conditions): Assessment {
  const at = now ?? { state: market.info.state, lastTicks: null, referenceTicks: null, nowMs: 0, openOrders: 0, utc: true };
  const found: Assessment = {
    problems: {}, warning: null, ticks: null, lots: null, triggerTicks: 0n, trailPpm: 0, displayLots: 0n, minLots: 0n, expireNs: 0n, maxNotional: 0n, pair: null, notional: null,
    fee: null, hold: null, meanTicks: null, startTicks: null, takes: false,
  };
  const { problems } = found;
  const tif = tifOf(draft);
  const postOnly = draft.postOnly && mayPost(draft);
  const hasTrigger = triggerOf(draft) !== 'none';
  readPrices(draft, market, book, at, found);
  readSizes(draft, market, book, found);
  const refused = refusal(market.symbol, at.state, { tif, isMarket: draft.type === 'market', hasTrigger, postOnly });
  if (refused) problems[refused.field] = refused.text;
  else if (!book.synced) problems.form = 'The order book is being synchronised.';
  if (postOnly && !['gtc', 'day', 'gtd'].includes(tif)) problems.tif ??= 'A post-only order must stay: good till cancelled, for the day, or till a date.';
  if (tif === 'gtd') {
    const ms = Date.parse(draft.expiry + (at.utc ? 'Z' : ''));
    if (Number.isNaN(ms)) problems.expiry = 'Enter a date and a time.';
    else if (ms <= at.nowMs) problems.expiry = 'That is over: the time must be ahead.';
    else found.expireNs = BigInt(ms) * 1_000_000n;
  }
  if (market.openOrdersMax && at.openOrders + (isPaired(draft) ? 1 : 0) >= market.openOrdersMax && (hasTrigger || stays(draft)))
    problems.form ??= `You have ${at.openOrders} open orders here; the market allows ${market.openOrdersMax}.`;
  const { ticks, lots } = found;
  if (ticks === null) return found;

  const best = draft.side === 'buy' ? book.asks[0] : book.bids[0];
  const crosses = best !== undefined && !hasTrigger && !collects(at.state) && !awaitsAuction(at.state, tifOf(draft)) && (draft.side === 'buy' ? ticks >= BigInt(best.ticks) : ticks <= BigInt(best.ticks));
  let reckoned = ticks;
  if (crosses && (postOnly || at.state === 'post_only')) {
    const inside = BigInt(best.ticks) + (draft.side === 'buy' ? -1n : 1n);
    const text = grouped(market.priceText(BigInt(best.ticks)));
    if (postOnly && draft.slide && inside > 0n) {
      reckoned = inside;
      found.warning = `It would trade: it slides to ${grouped(market.priceText(inside))}.`;
    } else problems.price = `${postOnly ? 'Post-only' : `${market.symbol} is post-only: this`} would trade: price ${draft.side === 'buy' ? 'below' : 'above'} ${text}.`;
  } else found.takes = crosses;
  if (found.takes && isPaired(draft)) problems.pair = 'The limit order would trade at once, and a pair needs both to wait.';
  if (best && draft.type === 'limit' && found.takes) {
    const away = draft.side === 'buy' ? ticks - BigInt(best.ticks) : BigInt(best.ticks) - ticks;
    if (away * BPS > BigInt(best.ticks) * FAR_BPS)
      found.warning = `This is more than 10 % ${draft.side === 'buy' ? 'above the best ask' : 'below the best bid'}; it trades at resting prices.`;
  }
  if (lots !== null) reckon(draft, market, book, available, at, found, reckoned, lots);
  return found;
}

/** The limit or worst price, the trigger, and the stop of a pair. */
function readPrices(draft: Draft, market: Market, book: Book, at: Conditions, found: Assessment): void {
  const { problems } = found;
  const trigger = triggerOf(draft);
  const followed = draft.onReference ? at.referenceTicks : at.lastTicks;
  if (draft.onReference && trigger !== 'none' && followed === null) problems.trigger = 'The operator has named no reference price.';
  if (trigger === 'stop' || trigger === 'takeProfit') {
    const read = readTrigger(draft.trigger, trigger, draft.side, followed, market);
    if ('problem' in read) problems.trigger ??= read.problem;
    else found.triggerTicks = found.startTicks = read.ticks;
  } else if (trigger === 'trailing') {
    const distance = readTrail(draft, market);
    if ('problem' in distance) problems.trail = distance.problem;
    else {
      [found.triggerTicks, found.trailPpm] = [distance.ticks, distance.ppm];
      if (followed === null) problems.trail = 'Nothing has traded yet: there is no price to follow.';
      else {
        const behind = distance.ticks || ceilDiv(followed * BigInt(distance.ppm), PPM);
        const start = draft.side === 'buy' ? followed + behind : followed - behind;
        if (start < 1n || start > INTEGER_MAX) problems.trail = 'So far behind there is no price.';
        else found.startTicks = start;
      }
    }
  }
  if (hasLimit(draft)) {
    const read = market.readPrice(draft.price);
    if ('problem' in read) problems.price = read.problem;
    else found.ticks = read.ticks;
  } else if (trigger !== 'none') {
    if (found.startTicks !== null) found.ticks = guarded(found.startTicks, draft.side, draft.protectionBps);
  } else {
    found.ticks = protectionTicks(book, draft.side, draft.protectionBps);
    if (found.ticks === null) problems.price = draft.side === 'buy' ? 'Nobody is selling now.' : 'Nobody is buying now.';
  }
  if (isPaired(draft)) {
    const read = readTrigger(draft.pairTrigger, 'stop', draft.side, at.lastTicks, market);
    if ('problem' in read) problems.pair = read.problem;
    else found.pair = { triggerTicks: read.ticks, ticks: guarded(read.ticks, draft.side, draft.protectionBps) };
  }
}

/** Whether a trigger waits for the price to rise to it. */
export const waitsAbove = (trigger: Trigger, side: Side): boolean => (trigger === 'takeProfit') !== (side === 'buy');

export function readTrigger(text: string, trigger: Trigger, side: Side, followed: bigint | null, market: Market): { ticks: bigint } | { problem: string } {
  const read = market.readPrice(text);
  if ('problem' in read) return read;
  const above = waitsAbove(trigger, side);
  if (followed !== null && (above ? followed >= read.ticks : followed <= read.ticks))
    return { problem: `The price is there already: it must be ${above ? 'above' : 'below'} ${grouped(market.priceText(followed))}.` };
  return read;
}

/** A trailing order's distance: in ticks or in parts per million, the other one being 0. */
export function readTrail(draft: Pick<Draft, 'trail' | 'trailUnit'>, market: Market): { ticks: bigint; ppm: number } | { problem: string } {
  if (draft.trailUnit === 'price') {
    const read = market.readPrice(draft.trail);
    return 'problem' in read ? { problem: draft.trail.trim() ? read.problem : 'Enter a distance.' } : { ticks: read.ticks, ppm: 0 };
  }
  const ppm = parseDecimal(draft.trail, 4);
  if (ppm === null) return { problem: draft.trail.trim() ? 'Enter a percentage, with at most four decimals.' : 'Enter a distance.' };
  if (ppm < 1n || ppm >= PPM) return { problem: 'The distance must be above 0 % and below 100 %.' };
  return { ticks: 0n, ppm: Number(ppm) };
}

/** The quantity, or the amount to be spent, and the quantities shown and demanded. */
function readSizes(draft: Draft, market: Market, book: Book, found: Assessment): void {
  const { problems, ticks } = found;
  if (draft.unit === 'base') {
    const read = market.readSize(draft.size);
    if ('problem' in read) problems.size = read.problem;
    else found.lots = read.lots;
  } else if (ticks !== null) {
    const read = market.readQuoteSize(draft.size, ticks);
    if ('problem' in read) problems.size = read.problem;
    else if (maySpend(draft)) {
      found.maxNotional = read.units;
      // Enough to spend all of it even if the price halves meanwhile.
      found.lots = market.cappedLots(read.units / (BigInt(book.asks[0]!.ticks) * market.quoteUnitsPerTickLot) * 2n + 1n);
    } else found.lots = read.lots;
  }
  const { lots } = found;
  if (draft.display && hasLimit(draft) && stays(draft)) {
    const read = market.readSize(draft.display);
    if ('problem' in read) problems.display = read.problem;
    else if (draft.hidden) problems.display = 'An order is hidden or shown in part, not both.';
    else if (lots !== null && read.lots > lots) problems.display = 'It cannot show more than its size.';
    else found.displayLots = read.lots;
  }
  if (draft.minimum && mayHaveMinimum(draft)) {
    const read = market.readSize(draft.minimum);
    if ('problem' in read) problems.minimum = read.problem;
    else if (lots !== null && read.lots > lots) problems.minimum = 'The minimum is above the size.';
    else found.minLots = read.lots;
  }
}

/** Cost, fee and hold; what the market's limits and the balance do not allow; what the book offers. */
function reckon(draft: Draft, market: Market, book: Book, available: Available | null, at: Conditions, found: Assessment, ticks: bigint, lots: bigint): void {
  const { problems } = found;
  const { info } = market;
  const { side } = draft;
  const spends = found.maxNotional > 0n;
  if (!spends && (market.overflows(side, ticks, lots) || (found.pair && market.overflows(side, found.pair.ticks, lots)))) {
    problems.size = 'The order is larger than the exchange can hold.';
    return;
  }
  found.notional = spends ? found.maxNotional : market.notional(ticks, lots);
  if (market.lotsMax && lots > market.lotsMax) problems.size = `The market takes at most ${market.sizeText(market.lotsMax)} ${info.base} in an order.`;
  else if (market.notionalMax && found.notional > market.notionalMax) problems.size = `The market takes at most ${grouped(market.quoteText(market.notionalMax, 2))} ${info.quote} in an order.`;
  found.hold = spends ? found.maxNotional : market.hold(side, ticks, lots) + (found.pair ? market.hold(side, found.pair.ticks, lots) : 0n);
  const pays = found.takes || (triggerOf(draft) !== 'none' && !hasLimit(draft)) ? info.taker_fee_ppm : Math.max(0, info.maker_fee_ppm);
  // Of what is spent the fee is a part; of other orders it comes on top.
  found.fee = spends ? ceilDiv(found.maxNotional * BigInt(pays), PPM + BigInt(pays)) : market.fee(ticks, lots, pays);
  const sweep = spends ? book.spend(found.maxNotional - found.fee, market.quoteUnitsPerTickLot) : book.sweep(side, lots);
  if (draft.type === 'market') {
    if (!sweep) found.warning = `The visible book holds less than this; ${tifOf(draft) === 'fok' ? 'fill or kill would be refused' : 'the rest is cancelled'}.`;
    else {
      found.meanTicks = (sweep.tickLots + sweep.lots / 2n) / sweep.lots;
      const worse = side === 'buy' ? sweep.worstTicks > ticks : sweep.worstTicks < ticks;
      if (worse) found.warning = `The book reaches past the worst price; what is left is cancelled.`;
      else if (!spends) found.notional = sweep.tickLots * market.quoteUnitsPerTickLot;
    }
  } else if (draft.type === 'limit' && tifOf(draft) === 'fok') {
    const enough = sweep && (side === 'buy' ? sweep.worstTicks <= ticks : sweep.worstTicks >= ticks);
    if (!enough) found.warning = 'The visible book does not fill all of it: fill or kill would be refused.';
  }
  if (found.minLots) {
    const least = book.sweep(side, found.minLots);
    if (!least || (side === 'buy' ? least.worstTicks > ticks : least.worstTicks < ticks)) found.warning = 'The visible book does not fill the minimum: the order would be refused.';
  }
  const band = bandTicks(market, side, at);
  if (found.takes && band !== null && sweep && (side === 'buy' ? sweep.worstTicks > band && ticks > band : sweep.worstTicks < band && ticks < band))
    found.warning = `A trade ${side === 'buy' ? 'above' : 'below'} ${grouped(market.priceText(band))} leaves the price band: the market would go into an auction.`;
  if (available) {
    const has = side === 'buy' ? available.quote : available.base;
    if (found.hold > has) {
      const [decimals, asset] = side === 'buy' ? [info.quote_decimals, info.quote] : [info.base_decimals, info.base];
      problems.size ??= `Needs ${formatUnits(found.hold, decimals)} ${asset}${found.pair ? ' for both' : ''}; available are ${formatUnits(has, decimals)}.`;
    }
  }
}

/** The furthest price at which an incoming order may trade without an interruption; null if any. */
export function bandTicks(market: Market, side: Side, at: Conditions): bigint | null {
  const ends = ([[at.lastTicks, market.info.dynamic_band_ppm], [at.referenceTicks, market.info.static_band_ppm]] as const).flatMap(([centre, ppm]) =>
    centre && ppm ? [side === 'buy' ? centre + (centre * BigInt(ppm)) / PPM : centre - (centre * BigInt(ppm)) / PPM] : [],
  );
  if (!ends.length) return null;
  return ends.reduce((one, other) => ((side === 'buy') === one < other ? one : other));
}

/** The size for a share of what is available, in lots. */
export function lotsForPercent(draft: Draft, market: Market, book: Book, available: Available, percent: number): bigint {
  const ticks = draftTicks(draft, market, book);
  if (ticks === null && draft.side === 'buy') return 0n;
  const has = draft.side === 'buy' ? available.quote : available.base;
  return market.affordableLots(draft.side, ticks ?? 1n, (has * BigInt(percent)) / 100n);
}
