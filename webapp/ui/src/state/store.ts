// What the panels show, as signals. Changes come from controller.ts alone.

import { computed, signal } from '@preact/signals';
import type { Signer } from '../keys/keystore';
import { EMPTY_DRAFT } from '../market/draft';
import type { Draft } from '../market/draft';
import type { Market } from '../market/market';
import { phaseOf } from '../market/phase';
import type { Phase } from '../market/phase';
import type { Asset, Balance, Bots, Fill, Order, Ticker, Version } from '../net/api';
import type { FeedState } from '../net/feed';
import type { PreparedBatch, TradingState } from '../net/trading';
import type { VerifiedCheckpoint } from '../verification/light';
import type { CommittedBalance } from '../verification/leaves';
import { settings } from './settings';

export const version = signal<Version | null>(null);
export const markets = signal<ReadonlyMap<string, Market>>(new Map());
export const assets = signal<readonly Asset[]>([]);
export const tickers = signal<ReadonlyMap<string, Ticker>>(new Map());
export const symbol = signal('');
export const market = computed(() => markets.value.get(symbol.value) ?? null);
export const bootError = signal<string | null>(null);

export const feedState = signal<FeedState>('connecting');
export const tradingState = signal<TradingState>('off');
export const tradingReason = signal<string | null>(null);
/** Whether the book on screen may be traded on, and why not. */
export const bookState = signal<'loading' | 'synced' | 'gap' | 'checksum' | 'crossed' | 'offline'>('loading');

export const signer = signal<Signer | null>(null);
export const guardedKeys = signal(true);
/** Seed of a key that was just made, for its backup; null once that is done or declined. */
export const freshSeed = signal<Uint8Array | null>(null);
export const accountId = signal<bigint | null>(null);

/** By order id; open orders only. */
export const openOrders = signal<ReadonlyMap<string, Order>>(new Map());
/** Whether there are more open orders than the feed tells at once. */
export const ordersTruncated = signal(false);
/** Orders that are gone, newest first. */
export const pastOrders = signal<readonly Order[]>([]);
/** Newest first. */
export const fills = signal<readonly Fill[]>([]);
export const balances = signal<readonly Balance[]>([]);

/** State of the market that is shown, and what goes with it. */
export const phase = signal<Phase>(phaseOf(''));
export const draft = signal<Draft>(EMPTY_DRAFT);
/** Grows a few times a second while the book moves: what is reckoned from the book is reckoned again. */
export const bookTick = signal(0);

export interface Review {
  readonly title: string;
  readonly prepared: PreparedBatch;
  readonly symbol: string;
}
export const review = signal<Review | null>(null);

export interface Notice {
  readonly id: number;
  readonly kind: 'good' | 'info' | 'bad';
  readonly text: string;
  readonly detail: string;
  readonly time: number;
  /** What it is about: a later one about the same replaces the toast. */
  readonly about: string;
}
export const activity = signal<readonly Notice[]>([]);
export const toasts = signal<readonly Notice[]>([]);

const TOAST_MS = 6000;
const TOASTS_MAX = 4;
const ACTIVITY_MAX = 300;
let noticeId = 0;

export function notify(kind: Notice['kind'], text: string, detail = '', about = ''): void {
  const notice = { id: ++noticeId, kind, text, detail, time: Date.now(), about };
  activity.value = [notice, ...activity.value].slice(0, ACTIVITY_MAX);
  toasts.value = [...toasts.value.filter((toast) => !about || toast.about !== about), notice].slice(-TOASTS_MAX);
  setTimeout(() => dismiss(notice.id), TOAST_MS);
}

export function dismiss(id: number): void {
  if (toasts.value.some((toast) => toast.id === id)) toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

export interface Verification {
  checkpoint: VerifiedCheckpoint | null;
  /** What did not fit; stays until somebody has read it and reloads. */
  mismatch: string | null;
  /** Own balances as the last proved state has them, and in which checkpoint. */
  balance: { number: bigint; balances: readonly CommittedBalance[] } | null;
  /** The last own fill that was proved to be in the log. */
  fill: { tradeId: string; recordNo: bigint; number: bigint } | null;
  /** Checkpoints that passed since the page was loaded. */
  checked: number;
  /** Why nothing could be checked just now; no mismatch. */
  waiting: string | null;
}
export const verification = signal<Verification>({ checkpoint: null, mismatch: null, balance: null, fill: null, checked: 0, waiting: null });

export interface OperationsSample {
  readonly timeMs: number;
  readonly commandsPerSecond: number;
  /** Null while the exchange does not say. */
  readonly p50Us: number | null;
  readonly p99Us: number | null;
  readonly checkpointAgeMs: number;
}
export interface Operations {
  readonly latest: Readonly<Record<string, unknown>> | null;
  readonly samples: readonly OperationsSample[];
}
export const bots = signal<Bots>({ present: false, running: false });
export const operations = signal<Operations>({ latest: null, samples: [] });
/** Milliseconds from signing to acknowledgement, newest last. */
export const acknowledgements = signal<readonly number[]>([]);

/** Own batches that were sent and not answered yet. */
export const unanswered = signal(0);

export type Tab = 'orders' | 'history' | 'fills' | 'balances' | 'verify' | 'activity' | 'operations';
export const tab = signal<Tab>('orders');
/** Which part a phone shows. */
export type Pane = 'chart' | 'book' | 'trade' | 'orders' | 'verify';
export const pane = signal<Pane>('chart');
export const chartView = signal<'candles' | 'depth'>('candles');
export const middleView = signal<'book' | 'trades'>('book');
export type DialogName = 'markets' | 'help' | 'settings' | 'account' | 'cancel-all';
export const dialog = signal<DialogName | null>(null);
export const grouping = signal(1);
/** Whether own orders and fills in other markets are left out. */
export const onlyThisMarket = signal(false);

/** How far an order has come: answered durably, traded, covered by a checkpoint that this page verified. */
export function lifeOf(one: { record_no: string; market: string; cum_qty?: string }, traded: boolean): { stage: number; text: string } {
  const shard = markets.value.get(one.market)?.info.shard ?? 0;
  const tip = verification.value.checkpoint?.leaf.shards[shard];
  if (tip && one.record_no && BigInt(one.record_no) < tip.logSize) return { stage: 3, text: 'checkpointed' };
  return traded ? { stage: 2, text: 'matched' } : { stage: 1, text: 'accepted' };
}

export const timeText = computed(() => {
  const utc = settings.value.clock === 'utc';
  return (time: string | number, withDate = false): string => {
    const date = new Date(time);
    if (Number.isNaN(date.getTime())) return '–';
    const two = (value: number) => String(value).padStart(2, '0');
    const clock = utc
      ? `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`
      : `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
    if (!withDate) return clock;
    return utc ? `${date.toISOString().slice(0, 10)} ${clock}` : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock}`;
  };
});
