// The order book of one market as the feed describes it: a snapshot, then updates, each proved to follow the last by
// `prev_seq` and to have been applied rightly by a CRC-32 over the top ten levels. A book that fails either check is stale
// until the next snapshot; it keeps its last levels, so that the page can show them greyed.
//
// Levels are integers: ticks and lots up to 2^53-1, which a number holds exactly.

import { crc32 } from './crc32';
import { decimalsOf } from './decimal';
import { mayBeCrossed } from './phase';
import type { Phase } from './phase';

export type LevelRow = readonly [price: string, qty: string, orders: number];

/** An update holds of the phase what changed. */
export interface BookMessage extends Partial<Phase> {
  readonly type: 'snapshot' | 'update';
  readonly seq: string;
  readonly prev_seq?: string;
  /** Number of the last command that is in it, if the server says so. */
  readonly command_seq?: string;
  readonly bids: readonly LevelRow[];
  readonly asks: readonly LevelRow[];
  readonly checksum: number;
}

export interface Level {
  readonly ticks: number;
  lots: number;
  orders: number;
  readonly price: string;
  qty: string;
}

export interface Swept {
  readonly worstTicks: bigint;
  readonly tickLots: bigint;
  readonly lots: bigint;
}

export type BookFault = 'gap' | 'checksum' | 'crossed';

const CHECKED_LEVELS = 10;

/** Reads decimal strings as multiples of a step, without floats. */
export class Scale {
  readonly #decimals: number;
  readonly #step: number;

  constructor(step: string) {
    this.#decimals = decimalsOf(step);
    this.#step = Number(step.replace('.', '').slice(0, step.indexOf('.') < 0 ? undefined : step.indexOf('.') + this.#decimals));
  }

  read(text: string): number {
    const dot = text.indexOf('.');
    if (dot < 0) return Number(text + '0'.repeat(this.#decimals)) / this.#step;
    const fraction = text.slice(dot + 1);
    const padded = fraction.length < this.#decimals ? fraction + '0'.repeat(this.#decimals - fraction.length) : fraction.slice(0, this.#decimals);
    return Number(text.slice(0, dot) + padded) / this.#step;
  }
}

/** One side, best first. */
class BookSide {
  readonly levels: Level[] = [];

  constructor(readonly descending: boolean) {}

  /** Where a level at `ticks` is or would be. */
  position(ticks: number): number {
    let low = 0;
    let high = this.levels.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = this.levels[middle]!.ticks;
      if (this.descending ? other > ticks : other < ticks) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  set(ticks: number, lots: number, orders: number, price: string, qty: string): void {
    const at = this.position(ticks);
    const found = this.levels[at];
    if (found && found.ticks === ticks) {
      if (lots === 0) this.levels.splice(at, 1);
      else {
        found.lots = lots;
        found.orders = orders;
        found.qty = qty;
      }
    } else if (lots !== 0) this.levels.splice(at, 0, { ticks, lots, orders, price, qty });
  }
}

export class Book {
  readonly #bids = new BookSide(true);
  readonly #asks = new BookSide(false);
  readonly #prices: Scale;
  readonly #sizes: Scale;
  /** Number of the last message that was applied and whose checksum was right. */
  seq = '';
  /** Command up to which the book was verified; `seq` where the server does not say. */
  verifiedSeq = '';
  /** False until a snapshot, and from a fault until the next one. */
  synced = false;
  fault: BookFault | null = null;
  /** Of the market: while orders are collected for an auction the book may be crossed. */
  state = '';
  /** Grows with every change: what was drawn last is compared with it. */
  version = 0;

  constructor(tickSize: string, lotSize: string) {
    this.#prices = new Scale(tickSize);
    this.#sizes = new Scale(lotSize);
  }

  get bids(): readonly Level[] {
    return this.#bids.levels;
  }

  get asks(): readonly Level[] {
    return this.#asks.levels;
  }

  /** Applies one message; false if the book is stale after it and a snapshot has to be asked for. */
  apply(message: BookMessage): boolean {
    if (message.type === 'snapshot') {
      this.#bids.levels.length = 0;
      this.#asks.levels.length = 0;
    } else {
      if (!this.synced) return false;
      if (message.prev_seq !== this.seq) return this.#fail('gap');
    }
    this.version += 1;
    this.state = message.state ?? this.state;
    this.#applySide(this.#bids, message.bids);
    this.#applySide(this.#asks, message.asks);
    if (this.checksum() !== message.checksum) return this.#fail('checksum');
    const [bid, ask] = [this.bids[0], this.asks[0]];
    if (bid && ask && bid.ticks >= ask.ticks && !mayBeCrossed(this.state)) return this.#fail('crossed');
    this.seq = message.seq;
    this.verifiedSeq = message.command_seq ?? message.seq;
    this.synced = true;
    this.fault = null;
    return true;
  }

  /** Marks the book as not to be traded on: the connection is gone or a message is missing. */
  invalidate(): void {
    this.synced = false;
    this.version += 1;
  }

  #fail(fault: BookFault): false {
    this.synced = false;
    this.fault = fault;
    this.version += 1;
    return false;
  }

  #applySide(side: BookSide, rows: readonly LevelRow[]): void {
    for (const [price, qty, orders] of rows) side.set(this.#prices.read(price), this.#sizes.read(qty), orders, price, qty);
  }

  /** CRC-32 over the top ten levels of each side: `price:qty` joined by commas, bids, a bar, asks. */
  checksum(): number {
    return crc32(topText(this.bids) + '|' + topText(this.asks));
  }

  /** The worst price, in ticks, of taking `lots` from the opposite side, and what it costs in tick-lots; null: not enough. */
  sweep(side: 'buy' | 'sell', lots: bigint): Swept | null {
    let left = lots;
    let tickLots = 0n;
    for (const level of side === 'buy' ? this.asks : this.bids) {
      const taken = left < BigInt(level.lots) ? left : BigInt(level.lots);
      tickLots += taken * BigInt(level.ticks);
      left -= taken;
      if (left === 0n) return { worstTicks: BigInt(level.ticks), tickLots, lots };
    }
    return null;
  }

  /** The same of buying for `units` of the quote asset; null if there is not so much to buy, or not one lot. */
  spend(units: bigint, unitsPerTickLot: bigint): Swept | null {
    let [left, lots, tickLots, worstTicks] = [units / unitsPerTickLot, 0n, 0n, 0n];
    for (const level of this.asks) {
      const ticks = BigInt(level.ticks);
      const most = left / ticks;
      const taken = most < BigInt(level.lots) ? most : BigInt(level.lots);
      lots += taken;
      tickLots += taken * ticks;
      left -= taken * ticks;
      if (taken) worstTicks = ticks;
      if (taken < BigInt(level.lots)) return lots ? { worstTicks, tickLots, lots } : null;
    }
    return null;
  }
}

function topText(levels: readonly Level[]): string {
  let text = '';
  for (let index = 0; index < CHECKED_LEVELS && index < levels.length; index++) {
    const level = levels[index]!;
    text += (index ? ',' : '') + level.price + ':' + level.qty;
  }
  return text;
}

/** Taking everything up to a price: how much that is, its mean price in ticks, and how much worse than the best price the mean is. */
export function takingTo(levels: readonly Level[], ticks: number, asks: boolean): { lots: number; meanTicks: number; slippageBps: number } | null {
  const best = levels[0];
  let [lots, tickLots] = [0, 0];
  for (const level of levels) {
    if (asks ? level.ticks > ticks : level.ticks < ticks) break;
    lots += level.lots;
    tickLots += level.lots * level.ticks;
  }
  if (!best || !lots) return null;
  const meanTicks = tickLots / lots;
  return { lots, meanTicks, slippageBps: (Math.abs(meanTicks - best.ticks) / best.ticks) * 10_000 };
}

export interface Grouped {
  readonly ticks: number;
  readonly lots: number;
  readonly total: number;
}

/** The best `count` levels gathered into multiples of `step` ticks, with running totals. Bids round down, asks up. */
export function groupLevels(levels: readonly Level[], step: number, roundUp: boolean, count: number): Grouped[] {
  const rows: Grouped[] = [];
  let ticks = -1;
  let lots = 0;
  let total = 0;
  for (const level of levels) {
    const at = roundUp ? Math.ceil(level.ticks / step) * step : Math.floor(level.ticks / step) * step;
    if (at !== ticks) {
      if (ticks >= 0) {
        rows.push({ ticks, lots, total });
        if (rows.length === count) return rows;
      }
      ticks = at;
      lots = 0;
    }
    lots += level.lots;
    total += level.lots;
  }
  if (ticks >= 0) rows.push({ ticks, lots, total });
  return rows;
}
