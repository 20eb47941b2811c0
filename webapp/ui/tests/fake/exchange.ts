// A small exchange for development and tests of the page: synthetic order flow, a book that takes orders, a log with real
// Merkle trees and signed checkpoints. It speaks the interface of the real server and shares no code with it; rules that the
// page does not depend on (nonce windows, holds of several orders) are left out.

import * as ed from '@noble/ed25519';
import { sha256, sha512 } from '@noble/hashes/sha2.js';
import { crc32 } from '../../src/market/crc32';
import { Market } from '../../src/market/market';
import type { MarketInfo } from '../../src/market/market';
import { phaseOf } from '../../src/market/phase';
import type { Phase } from '../../src/market/phase';
import { keyId } from '../../src/verification/note';
import { concat, toBase64, toHex, utf8, viewOf } from '../../src/wire/bytes';
import { decode, encode } from '../../src/wire/codec';
import type { Command, ExecutionReport, ReasonCode } from '../../src/wire/messages';

ed.hashes.sha512 = sha512;

export const DEPLOYMENT_ID = sha256(utf8('fake deployment'));
const SETTLEMENT_SEED = sha256(utf8('fake settlement'));
export const SETTLEMENT_KEY = ed.getPublicKey(SETTLEMENT_SEED);
export const ORIGIN = 'fake/settlement';

export const ASSETS = [
  { asset_id: 1, symbol: 'BTC', decimals: 8 },
  { asset_id: 2, symbol: 'USD', decimals: 6 },
  { asset_id: 3, symbol: 'ETH', decimals: 8 },
  { asset_id: 4, symbol: 'AAPL', decimals: 4 },
];

const info = (market_id: number, base: string, base_decimals: number, tick_size: string, lot_size: string): MarketInfo => ({
  market_id, symbol: `${base}-USD`, shard: 0, base_asset_id: ASSETS.find((one) => one.symbol === base)!.asset_id, quote_asset_id: 2, base, quote: 'USD', base_decimals,
  quote_decimals: 6, tick_size, lot_size, maker_fee_ppm: 100, taker_fee_ppm: 250, state: 'continuous',
});
export const MARKETS = [info(1, 'BTC', 8, '0.5', '0.0001'), info(2, 'ETH', 8, '0.05', '0.001'), info(3, 'AAPL', 4, '0.01', '1')];

const leafHash = (data: Uint8Array): Uint8Array => sha256(concat(Uint8Array.of(0), data));
const nodeHash = (left: Uint8Array, right: Uint8Array): Uint8Array => sha256(concat(Uint8Array.of(1), left, right));
const split = (size: number): number => 2 ** Math.floor(Math.log2(size - 1));

/** A Merkle tree that remembers the roots of its perfect subtrees. */
export class Tree {
  readonly leaves: Uint8Array[] = [];
  #perfect = new Map<string, Uint8Array>();

  add(data: Uint8Array): void {
    this.leaves.push(leafHash(data));
  }

  root(from = 0, to = this.leaves.length): Uint8Array {
    const size = to - from;
    if (size === 0) return sha256(new Uint8Array(0));
    if (size === 1) return this.leaves[from]!;
    const key = `${from}-${to}`;
    const known = this.#perfect.get(key);
    if (known) return known;
    const at = from + split(size);
    const hash = nodeHash(this.root(from, at), this.root(at, to));
    if ((size & (size - 1)) === 0) this.#perfect.set(key, hash);
    return hash;
  }

  inclusion(index: number, to: number, from = 0): Uint8Array[] {
    if (to - from === 1) return [];
    const at = from + split(to - from);
    return index < at ? [...this.inclusion(index, at, from), this.root(at, to)] : [...this.inclusion(index, to, at), this.root(from, at)];
  }

  consistency(old: number, to: number, from = 0, known = true): Uint8Array[] {
    if (old === to - from) return known ? [] : [this.root(from, to)];
    const at = from + split(to - from);
    return old <= at - from
      ? [...this.consistency(old, at, from, known), this.root(at, to)]
      : [...this.consistency(old - (at - from), to, at, false), this.root(from, at)];
  }
}

interface Resting {
  orderId: bigint;
  clientOrderId: bigint;
  side: 'buy' | 'sell';
  ticks: bigint;
  lots: bigint;
  leaves: bigint;
  type: string;
  postOnly: boolean;
  time: string;
  /** The command that entered it: its terms. */
  terms: Command;
  /** For a trigger; it is not in the book yet. */
  waits: boolean;
  triggerTicks: bigint;
  displayLots: bigint;
  expireNs: bigint;
  trail: { ticks: bigint; ppm: number };
  pairId: bigint | null;
}

interface Level {
  lots: number;
  orders: number;
}

export interface Bar {
  time: string;
  open: string;
  high: string;
  low: string;
  close: string;
  volume: string;
  trades: number;
}

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
export const nowText = (ms = Date.now()): string => new Date(ms).toISOString().replace('Z', '000000Z');

/** Repeatable noise. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Levels of a side that are kept; the farthest goes. */
const LEVELS_MAX = 150;

export class FakeMarket {
  readonly market: Market;
  readonly bids = new Map<number, Level>();
  readonly asks = new Map<number, Level>();
  readonly resting = new Map<bigint, Resting>();
  readonly trades: Record<string, unknown>[] = [];
  readonly changed = new Map<string, [string, string, number]>();
  readonly bars = new Map<number, Bar>();
  phase: Phase = phaseOf('continuous');
  phaseChanged: Partial<Phase> = {};
  mid: number;
  seq = 1000n;
  readonly #random: () => number;

  constructor(
    readonly info: MarketInfo,
    midPrice: number,
  ) {
    this.market = new Market(info);
    this.mid = Math.round(midPrice / Number(info.tick_size));
    this.#random = random(info.market_id * 7919);
    for (let away = 1; away <= 120; away++) {
      this.#put(this.bids, 'b', this.mid - away, this.#size(away));
      this.#put(this.asks, 'a', this.mid + away, this.#size(away));
    }
    this.#history();
    this.changed.clear();
  }

  #size(away: number): number {
    return Math.max(1, Math.round((0.2 + this.#random()) * 400 * (1 + Math.log(away)) * (this.info.lot_size === '1' ? 0.2 : 10)));
  }

  #put(side: Map<number, Level>, name: 'a' | 'b', ticks: number, lots: number): void {
    if (ticks < 1) return;
    if (lots <= 0) side.delete(ticks);
    else side.set(ticks, { lots, orders: 1 + Math.floor(this.#random() * 6) });
    const level = side.get(ticks);
    this.changed.set(`${name}${ticks}`, [this.market.priceText(BigInt(ticks)), level ? this.market.sizeText(BigInt(level.lots)) : '0', level?.orders ?? 0]);
  }

  #history(): void {
    const now = Math.floor(Date.now() / 60_000);
    let price = this.mid * 0.985;
    for (let minute = now - 480; minute < now; minute++) {
      const open = price;
      price += (this.mid - price) * 0.006 + (this.#random() - 0.5) * this.mid * 0.0011;
      const high = Math.max(open, price) + this.#random() * this.mid * 0.0004;
      const low = Math.min(open, price) - this.#random() * this.mid * 0.0004;
      const text = (ticks: number) => this.market.priceText(BigInt(Math.round(ticks)));
      this.bars.set(minute, {
        time: nowText(minute * 60_000), open: text(open), high: text(high), low: text(low), close: text(price),
        volume: this.market.sizeText(BigInt(this.#size(8) * 3)), trades: 20,
      });
    }
  }

  setPhase(change: Partial<Phase>): void {
    this.phase = { ...this.phase, ...change };
    this.phaseChanged = { ...this.phaseChanged, ...change };
  }

  /** Own orders in the book, not those that wait. */
  inBook(): Resting[] {
    return [...this.resting.values()].filter((one) => !one.waits);
  }

  best(side: 'buy' | 'sell'): number | null {
    const ticks = [...(side === 'buy' ? this.bids : this.asks).keys()];
    return ticks.length ? (side === 'buy' ? Math.max(...ticks) : Math.min(...ticks)) : null;
  }

  /** Changes `count` levels near the touch; now and then somebody trades. */
  stir(count: number): void {
    for (let index = 0; index < count; index++) {
      const buy = this.#random() < 0.5;
      const away = 1 + Math.floor(this.#random() ** 2 * 30);
      const best = this.best(buy ? 'buy' : 'sell') ?? this.mid;
      const ticks = buy ? best - away + 1 : best + away - 1;
      const own = this.inBook().filter((one) => Number(one.ticks) === ticks).reduce((lots, one) => lots + Number(one.leaves), 0);
      this.#put(buy ? this.bids : this.asks, buy ? 'b' : 'a', ticks, this.#size(away) + own);
    }
    for (const [side, name] of [[this.bids, 'b'], [this.asks, 'a']] as const)
      if (side.size > LEVELS_MAX) {
        const ticks = [...side.keys()];
        const owned = new Set(this.inBook().map((one) => Number(one.ticks)));
        const far = name === 'b' ? Math.min(...ticks.filter((one) => !owned.has(one))) : Math.max(...ticks.filter((one) => !owned.has(one)));
        this.#put(side, name, far, 0);
      }
  }

  /** Somebody takes a piece of the best level; an emptied level moves the price. */
  trade(): { report: Resting; lots: bigint; ticks: bigint } | null {
    const takerBuys = this.#random() < 0.5 + (this.mid - (this.best('buy') ?? this.mid)) * 0.01;
    const side = takerBuys ? this.asks : this.bids;
    const best = this.best(takerBuys ? 'sell' : 'buy');
    if (best === null) return null;
    const level = side.get(best)!;
    const lots = Math.max(1, Math.min(level.lots, Math.round(this.#size(1) * this.#random())));
    this.print(BigInt(best), BigInt(lots), takerBuys ? 'buy' : 'sell');
    const own = this.inBook().find((one) => Number(one.ticks) === best && (one.side === 'sell') === takerBuys);
    this.#put(side, takerBuys ? 'a' : 'b', best, level.lots - lots);
    if (level.lots - lots <= 0) {
      const [gap, other, name] = takerBuys ? ([1, this.bids, 'b'] as const) : ([-1, this.asks, 'a'] as const);
      this.#put(other, name, best - gap, this.#size(2));
      this.#put(side, takerBuys ? 'a' : 'b', best + gap * 100, this.#size(80));
    }
    if (!own) return null;
    const taken = own.leaves < BigInt(lots) ? own.leaves : BigInt(lots);
    own.leaves -= taken;
    if (own.leaves === 0n) this.resting.delete(own.orderId);
    return { report: own, lots: taken, ticks: BigInt(best) };
  }

  print(ticks: bigint, lots: bigint, side: 'buy' | 'sell'): string {
    this.seq += 1n;
    const price = this.market.priceText(ticks);
    const trade = { trade_id: String(this.seq), market: this.info.symbol, price, qty: this.market.sizeText(lots), side, time: nowText(), record_no: '1' };
    this.trades.unshift(trade);
    this.trades.length = Math.min(this.trades.length, 200);
    const minute = Math.floor(Date.now() / 60_000);
    const bar = this.bars.get(minute);
    if (!bar) this.bars.set(minute, { time: nowText(minute * 60_000), open: price, high: price, low: price, close: price, volume: trade.qty, trades: 1 });
    else {
      bar.close = price;
      if (Number(price) > Number(bar.high)) bar.high = price;
      if (Number(price) < Number(bar.low)) bar.low = price;
      bar.volume = this.market.sizeText(this.market.lotsOf(bar.volume) + lots);
      bar.trades += 1;
    }
    return trade.trade_id;
  }

  lastTicks(): bigint {
    return this.market.ticksOf((this.trades[0]?.price as string | undefined) ?? [...this.bars.values()].at(-1)!.close);
  }

  /** Puts own quantity onto the book or takes it off. */
  shift(side: 'buy' | 'sell', ticks: bigint, lots: bigint): void {
    const levels = side === 'buy' ? this.bids : this.asks;
    this.#put(levels, side === 'buy' ? 'b' : 'a', Number(ticks), (levels.get(Number(ticks))?.lots ?? 0) + Number(lots));
  }

  rows(side: 'buy' | 'sell', count = 200): [string, string, number][] {
    const levels = [...(side === 'buy' ? this.bids : this.asks)].sort(([left], [right]) => (side === 'buy' ? right - left : left - right));
    return levels.slice(0, count).map(([ticks, level]) => [this.market.priceText(BigInt(ticks)), this.market.sizeText(BigInt(level.lots)), level.orders]);
  }

  checksum(): number {
    const side = (name: 'buy' | 'sell') => this.rows(name, 10).map(([price, qty]) => `${price}:${qty}`).join(',');
    return crc32(`${side('buy')}|${side('sell')}`);
  }

  ticker(): Record<string, unknown> {
    const bars = [...this.bars.values()];
    const last = this.trades[0]?.price ?? bars.at(-1)!.close;
    const open = bars[0]!.open;
    return {
      market: this.info.symbol, last, bid: this.rows('buy', 1)[0]?.[0] ?? null, ask: this.rows('sell', 1)[0]?.[0] ?? null, open_24h: open,
      high_24h: String(Math.max(...bars.map((bar) => Number(bar.high)))), low_24h: String(Math.min(...bars.map((bar) => Number(bar.low)))),
      volume_24h: bars.reduce((sum, bar) => sum + Number(bar.volume), 0).toFixed(4), quote_volume_24h: '0',
      change_ppm: Math.round((Number(last) / Number(open) - 1) * 1e6),
    };
  }
}

const EMPTY_REPORT: ExecutionReport = {
  message: 'ExecutionReport', accountId: 0n, reportSeq: 0n, seq: 0n, recordNo: 0n, logTimeNs: 0n, nonce: 0n, orderId: 0n, clientOrderId: 0n, priceTicks: 0n, qtyLots: 0n,
  leavesLots: 0n, cumQtyLots: 0n, lastPriceTicks: 0n, lastQtyLots: 0n, fee: 0n, tradeId: 0n, targetAccountId: 0n, amount: 0n, marketId: 0, assetId: 0, reason: 'none', shard: 0,
  commandIndex: 0, execType: 'none', side: 'none', liquidity: 'none', flags: [], marketState: 'none', sizesNo: 0,
};

export class FakeExchange {
  readonly markets = new Map(MARKETS.map((one, index) => [one.symbol, new FakeMarket(one, [60_000, 3_000, 230][index]!)]));
  /** Account by public key in hex. */
  readonly accounts = new Map<string, bigint>();
  readonly balances = new Map<number, bigint>();
  readonly fills: Record<string, unknown>[] = [];
  /** Those that the feed does not tell any more. */
  olderFills: Record<string, unknown>[] = [];
  readonly log = new Tree();
  readonly frames: Uint8Array[] = [];
  readonly settlement = new Tree();
  readonly leaves: Uint8Array[] = [];
  readonly checkpoints: Record<string, unknown>[] = [];
  /** What each checkpoint committed to of the account: its leaf and the path. */
  readonly proofs: { leaf: Uint8Array; accounts: Tree; subtrees: { leaves: string; root: string }[]; size: number }[] = [];
  tamper = false;
  /** Proofs of balances, or of records, are about something else than what was signed. */
  forged: 'balance' | 'record' | null = null;
  /** The next order is refused: the page itself sends none that would be. */
  refuseNext = false;
  #seq = 100n;
  #reportSeq = 0n;
  #accountId = 6n;

  constructor() {
    this.append(utf8('genesis'));
    for (let index = 0; index < 40; index++) this.append(utf8(`record ${index}`));
  }

  makeOlderFills(count: number): void {
    this.olderFills = Array.from({ length: count }, (_, index) => ({
      trade_id: String(1_000_000 - index), order_id: '1', client_order_id: '0', market: index % 5 ? 'BTC-USD' : 'ETH-USD', side: 'buy', price: '60000.0', qty: '0.0001', fee: '0.000001',
      liquidity: 'maker', time: nowText(Date.UTC(2026, 0, 1) - index * 1000), record_no: '1', seq: '1',
    }));
  }

  /** The markets of now. */
  infos(): MarketInfo[] {
    return [...this.markets.values()].map((fake) => fake.info);
  }

  /** A market that is new, or has other sizes. */
  define(info: MarketInfo, price: number): FakeMarket {
    const fake = new FakeMarket(info, price);
    this.markets.set(info.symbol, fake);
    return fake;
  }

  append(frame: Uint8Array): bigint {
    this.log.add(frame);
    this.frames.push(frame);
    return BigInt(this.frames.length - 1);
  }

  open(publicKey: string): bigint {
    const known = this.accounts.get(publicKey);
    if (known !== undefined) return known;
    // One account at a time: the one before leaves nothing behind.
    this.accounts.clear();
    this.#accountId += 1n;
    this.accounts.set(publicKey, this.#accountId);
    this.fills.length = 0;
    for (const fake of this.markets.values()) {
      for (const order of fake.inBook()) fake.shift(order.side, order.ticks, -order.leaves);
      fake.resting.clear();
    }
    this.balances.set(1, 5n * 10n ** 8n).set(2, 500_000n * 10n ** 6n).set(3, 50n * 10n ** 8n).set(4, 1000n * 10n ** 4n);
    return this.#accountId;
  }

  /** Units of an asset that open orders hold. */
  held(assetId: number): bigint {
    let held = 0n;
    for (const { market, info: one, resting } of this.markets.values())
      for (const order of resting.values())
        if ((order.side === 'buy' ? one.quote_asset_id : one.base_asset_id) === assetId) held += market.hold(order.side, order.ticks, order.leaves);
    return held;
  }

  balanceRows(): Record<string, unknown>[] {
    return ASSETS.map(({ asset_id, symbol, decimals }) => {
      const text = (units: bigint) => {
        const digits = units.toString().padStart(decimals + 1, '0');
        return `${digits.slice(0, -decimals)}.${digits.slice(-decimals)}`;
      };
      const total = this.balances.get(asset_id) ?? 0n;
      const held = this.held(asset_id);
      return { asset: symbol, asset_id, total: text(total), held: text(held), available: text(total - held) };
    });
  }

  orderRow(market: FakeMarket, order: Resting, status = 'open'): Record<string, unknown> {
    const { market: one } = market;
    return {
      order_id: String(order.orderId), client_order_id: String(order.clientOrderId), market: market.info.symbol, side: order.side, type: order.type, time_in_force: snake(order.terms.timeInForce),
      trigger: order.waits ? snake(order.terms.trigger) : '', trigger_price: order.waits ? one.priceText(order.triggerTicks) : '',
      display_qty: order.displayLots ? one.sizeText(order.displayLots) : '', expire_time: order.expireNs ? nowText(Number(order.expireNs / 1_000_000n)) : '',
      trail: order.waits && order.terms.trigger === 'trailing' && order.trail.ticks ? one.priceText(order.trail.ticks) : '', trail_ppm: order.waits ? order.trail.ppm : 0,
      hidden: order.terms.options.includes('hidden'), post_only: order.postOnly, slide: order.terms.options.includes('slide'), on_reference: order.terms.options.includes('onReference'),
      self_trade_prevention: snake(order.terms.selfTradePrevention), min_qty: '', max_notional: '', paired: order.pairId !== null && market.resting.has(order.pairId),
      pair_order_id: order.pairId !== null && market.resting.has(order.pairId) ? String(order.pairId) : '',
      price: one.priceText(order.ticks), qty: one.sizeText(order.lots), leaves_qty: one.sizeText(order.leaves), cum_qty: one.sizeText(order.lots - order.leaves), status,
      time: order.time, record_no: String(this.frames.length - 1),
    };
  }

  openOrders(): Record<string, unknown>[] {
    return [...this.markets.values()].flatMap((market) => [...market.resting.values()].map((order) => this.orderRow(market, order)));
  }

  /** A checkpoint of everything so far, signed. */
  checkpoint(): Record<string, unknown> {
    const number = this.leaves.length;
    const account = concat(utf8('ZXA1'), new Uint8Array(52));
    const view = viewOf(account);
    view.setBigUint64(4, this.#accountId, true);
    const rows = ASSETS.map(({ asset_id }) => {
      const row = new Uint8Array(20);
      const held = this.held(asset_id);
      viewOf(row).setUint32(0, asset_id, true);
      viewOf(row).setBigUint64(4, (this.balances.get(asset_id) ?? 0n) - held, true);
      viewOf(row).setBigUint64(12, held, true);
      return row;
    });
    view.setUint32(20, rows.length, true);
    const accountLeaf = concat(account, ...rows);
    const accounts = new Tree();
    for (let id = 0n; id < this.#accountId; id++) accounts.add(utf8('ZXN1'));
    accounts.add(accountLeaf);
    const top = new Tree();
    const subtrees: { leaves: string; root: string }[] = [];
    for (let index = 0; index < 7; index++) {
      const head = new Uint8Array(16);
      head.set(utf8('ZXT1'));
      viewOf(head).setUint32(4, index, true);
      const [count, root] = index === 1 ? [accounts.leaves.length, accounts.root()] : [1, leafHash(utf8('ZXN1'))];
      viewOf(head).setBigUint64(8, BigInt(count), true);
      top.add(concat(head, root));
      subtrees.push({ leaves: String(count), root: toHex(root) });
    }
    const head = new Uint8Array(54);
    head.set(utf8('ZXC1'));
    const headView = viewOf(head);
    headView.setBigUint64(4, BigInt(number), true);
    headView.setBigUint64(12, BigInt(Date.now()) * 1_000_000n, true);
    if (number) head.set(this.settlement.leaves[number - 1]!, 20);
    headView.setUint16(52, 1, true);
    const tip = new Uint8Array(106);
    const size = this.frames.length;
    viewOf(tip).setBigUint64(2, BigInt(size), true);
    tip.set(this.log.root(0, size), 10);
    tip.set(sha256(utf8(`chain ${number}`)), 42);
    tip.set(top.root(), 74);
    const leaf = concat(head, tip, new Uint8Array(64));
    this.leaves.push(leaf);
    this.settlement.add(leaf);
    this.proofs.push({ leaf: accountLeaf, accounts, subtrees, size });
    const root = this.tamper ? sha256(utf8('another story')) : this.settlement.root();
    const text = `${ORIGIN}\n${number + 1}\n${toBase64(root)}\n`;
    const blob = concat(keyId({ name: ORIGIN, publicKey: SETTLEMENT_KEY }), ed.sign(utf8(text), SETTLEMENT_SEED));
    const shard = { shard: 0, log_size: String(size), log_root: toHex(tip.slice(10, 42)), chain: toHex(tip.slice(42, 74)), state_root: toHex(tip.slice(74, 106)) };
    const made = { number: String(number), time: nowText(), note: `${text}\n— ${ORIGIN} ${toBase64(blob)}\n`, leaf: toBase64(leaf), shards: [shard] };
    this.checkpoints.push(made);
    return made;
  }

  /** Applies a batch; returns its reports. */
  apply(frame: Uint8Array): ExecutionReport[] {
    const batch = decode(frame);
    if (batch.message !== 'SignedBatch') throw new Error('not a batch');
    const accountId = this.accounts.get(toHex(batch.publicKey));
    const recordNo = this.append(frame);
    return batch.commands.flatMap((command, commandIndex) => {
      this.#seq += 1n;
      const common = {
        ...EMPTY_REPORT, recordNo, seq: this.#seq, nonce: batch.nonce, commandIndex, logTimeNs: BigInt(Date.now()) * 1_000_000n, accountId: accountId ?? 2n ** 64n - 1n,
        reportSeq: ++this.#reportSeq, clientOrderId: command.clientOrderId, marketId: command.marketId, priceTicks: command.priceTicks, qtyLots: command.qtyLots, side: command.side,
      };
      if (accountId === undefined) return [{ ...common, execType: 'rejected' as const, reason: 'unknownKey' as ReasonCode, reportSeq: 0n }];
      return this.#command(command, common);
    });
  }

  #command(command: Command, common: ExecutionReport): ExecutionReport[] {
    const rejected = (reason: ReasonCode): ExecutionReport[] => [{ ...common, execType: 'rejected', reason }];
    const gone = (fake: FakeMarket, order: Resting, reason: ReasonCode): ExecutionReport => {
      this.#takeOff(fake, order);
      return this.reportOf(fake, { ...order, leaves: 0n }, { ...common, execType: 'cancelled', reason, lastQtyLots: order.leaves, cumQtyLots: order.lots - order.leaves });
    };
    if (command.kind === 'cancelAll') {
      const reports = [...this.markets.values()]
        .filter((fake) => !command.marketId || fake.info.market_id === command.marketId)
        .flatMap((fake) => [...fake.resting.values()].map((order) => gone(fake, order, 'massCancel')));
      return [...reports, { ...common, execType: 'massCancelled', qtyLots: BigInt(reports.length) }];
    }
    const fake = [...this.markets.values()].find((one) => one.info.market_id === command.marketId);
    if (!fake) return rejected('unknownMarket');
    if (command.kind === 'cancel' || command.kind === 'amend') {
      const order = fake.resting.get(command.orderId);
      if (!order) return rejected('unknownOrder');
      if (command.kind === 'cancel') return [gone(fake, order, 'cancelledByUser')];
      const filled = order.lots - order.leaves;
      if (!order.waits) fake.shift(order.side, order.ticks, -order.leaves);
      order.ticks = command.priceTicks || order.ticks;
      order.lots = command.qtyLots || order.lots;
      order.leaves = order.lots - filled;
      if (order.terms.trigger !== 'trailing') order.triggerTicks = command.triggerTicks || order.triggerTicks;
      else if (command.triggerTicks || command.trailPpm) order.trail = { ticks: command.triggerTicks, ppm: command.trailPpm };
      order.displayLots = command.displayQtyLots || order.displayLots;
      order.expireNs = command.expireTimeNs || order.expireNs;
      if (!order.waits) fake.shift(order.side, order.ticks, order.leaves);
      return [this.reportOf(fake, order, { ...common, execType: 'replaced' })];
    }
    const side = command.side as 'buy' | 'sell';
    // An amount is taken as the lots that it surely pays for.
    const lots = command.maxNotional ? fake.market.affordableLots('buy', command.priceTicks, command.maxNotional) : command.qtyLots;
    const order: Resting = {
      orderId: this.#seq, clientOrderId: command.clientOrderId, side, ticks: command.priceTicks, lots, leaves: lots, type: command.orderType,
      postOnly: command.options.includes('postOnly'), time: nowText(), terms: command, waits: command.trigger !== 'none', displayLots: command.displayQtyLots, expireNs: command.expireTimeNs,
      triggerTicks: this.#firstTrigger(fake, command), trail: { ticks: command.trigger === 'trailing' ? command.triggerTicks : 0n, ppm: command.trailPpm }, pairId: null,
    };
    const other = command.options.includes('ocoWithPrevious') ? fake.resting.get(this.#seq - 1n) : undefined;
    if (other) [order.pairId, other.pairId] = [other.orderId, order.orderId];
    const spent = side === 'buy' ? fake.info.quote_asset_id : fake.info.base_asset_id;
    if (this.refuseNext) {
      this.refuseNext = false;
      return rejected('insufficientFunds');
    }
    if (fake.market.hold(side, order.ticks, order.lots) > (this.balances.get(spent) ?? 0n) - this.held(spent)) return rejected('insufficientFunds');
    const reports = [this.reportOf(fake, order, { ...common, execType: 'new' })];
    if (order.waits) {
      fake.resting.set(order.orderId, order);
      return reports;
    }
    return [...reports, ...this.#toBook(fake, order, common)];
  }

  #takeOff(fake: FakeMarket, order: Resting): void {
    fake.resting.delete(order.orderId);
    if (!order.waits) fake.shift(order.side, order.ticks, -order.leaves);
  }

  #firstTrigger(fake: FakeMarket, command: Command): bigint {
    if (command.trigger !== 'trailing') return command.triggerTicks;
    const last = fake.lastTicks();
    const behind = command.triggerTicks || (last * BigInt(command.trailPpm) + 999_999n) / 1_000_000n;
    return command.side === 'buy' ? last + behind : last - behind;
  }

  /** It trades with the book, and rests or ends. */
  #toBook(fake: FakeMarket, order: Resting, common: ExecutionReport): ExecutionReport[] {
    const { side, terms } = order;
    const reports: ExecutionReport[] = [];
    while (order.leaves > 0n) {
      const best = fake.best(side === 'buy' ? 'sell' : 'buy');
      if (best === null || (side === 'buy' ? BigInt(best) > order.ticks : BigInt(best) < order.ticks)) break;
      const level = (side === 'buy' ? fake.asks : fake.bids).get(best)!;
      const lots = order.leaves < BigInt(level.lots) ? order.leaves : BigInt(level.lots);
      fake.shift(side === 'buy' ? 'sell' : 'buy', BigInt(best), -lots);
      order.leaves -= lots;
      reports.push(this.fill(fake, order, BigInt(best), lots, 'taker', common));
    }
    if (order.leaves > 0n && terms.timeInForce !== 'ioc' && terms.timeInForce !== 'fok') {
      fake.resting.set(order.orderId, order);
      fake.shift(side, order.ticks, order.leaves);
    } else if (order.leaves > 0n)
      reports.push(this.reportOf(fake, { ...order, leaves: 0n }, { ...common, execType: 'cancelled', reason: 'immediateRemainder', lastQtyLots: order.leaves, cumQtyLots: order.lots - order.leaves }));
    return reports;
  }

  /** What happens by itself: nothing of it answers a command. */
  #byItself(): ExecutionReport {
    return { ...EMPTY_REPORT, recordNo: this.append(utf8(`time passed ${this.frames.length}`)), seq: this.#seq, logTimeNs: BigInt(Date.now()) * 1_000_000n, accountId: this.#accountId };
  }

  /** Somebody trades at this price: orders that wait for it come to the book. */
  tradeAt(fake: FakeMarket, ticks: bigint): ExecutionReport[] {
    fake.print(ticks, 1n, 'buy');
    const met = [...fake.resting.values()].filter(
      (order) => order.waits && ((order.terms.trigger === 'takeProfit') !== (order.side === 'buy') ? ticks >= order.triggerTicks : ticks <= order.triggerTicks),
    );
    return met.flatMap((order) => {
      const common = this.#byItself();
      fake.resting.delete(order.orderId);
      order.waits = false;
      return [this.reportOf(fake, order, { ...common, execType: 'triggered', reportSeq: ++this.#reportSeq }), ...this.#toBook(fake, order, common)];
    });
  }

  /** All orders that have a time are past it. */
  expire(): ExecutionReport[] {
    return [...this.markets.values()].flatMap((fake) =>
      [...fake.resting.values()]
        .filter((order) => order.expireNs)
        .map((order) => {
          this.#takeOff(fake, order);
          return this.reportOf(fake, { ...order, leaves: 0n }, { ...this.#byItself(), execType: 'expired', reason: 'orderExpired', reportSeq: ++this.#reportSeq, lastQtyLots: order.leaves });
        }),
    );
  }

  reportOf(fake: FakeMarket, order: Resting, report: ExecutionReport): ExecutionReport {
    return {
      ...report, orderId: order.orderId, clientOrderId: order.clientOrderId, marketId: fake.info.market_id, side: order.side, priceTicks: order.ticks, qtyLots: order.lots,
      leavesLots: order.leaves, cumQtyLots: report.execType === 'cancelled' || report.execType === 'expired' ? report.cumQtyLots : order.lots - order.leaves,
    };
  }

  fill(fake: FakeMarket, order: Resting, ticks: bigint, lots: bigint, liquidity: 'maker' | 'taker', common: ExecutionReport = EMPTY_REPORT): ExecutionReport {
    const { info: one, market } = fake;
    const fee = market.fee(ticks, lots, liquidity === 'maker' ? one.maker_fee_ppm : one.taker_fee_ppm);
    const [base, quote] = [lots * market.baseUnitsPerLot, market.notional(ticks, lots)];
    const move = (assetId: number, units: bigint) => this.balances.set(assetId, (this.balances.get(assetId) ?? 0n) + units);
    move(one.base_asset_id, order.side === 'buy' ? base : -base);
    move(one.quote_asset_id, (order.side === 'buy' ? -quote : quote) - fee);
    const tradeId = liquidity === 'taker' ? fake.print(ticks, lots, order.side) : String(fake.seq);
    const recordNo = BigInt(this.frames.length - 1);
    this.fills.unshift({
      trade_id: tradeId, order_id: String(order.orderId), market: one.symbol, side: order.side, price: market.priceText(ticks), qty: market.sizeText(lots), fee: market.quoteText(fee),
      liquidity, time: nowText(), record_no: String(recordNo), seq: String(this.#seq),
    });
    return this.reportOf(fake, order, {
      ...common, recordNo, accountId: this.#accountId, reportSeq: ++this.#reportSeq, seq: this.#seq, logTimeNs: BigInt(Date.now()) * 1_000_000n, execType: 'trade', lastPriceTicks: ticks,
      lastQtyLots: lots, fee, tradeId: BigInt(tradeId), liquidity, reason: 'none',
    });
  }
}

export { encode };
