// The REST interface, as far as the page uses it. Errors are RFC 9457 problem documents and become `Problem`.

import type { MarketInfo } from '../market/market';

export interface Version {
  version: string;
  deployment_id: string;
  name: string;
  demo: boolean;
  operator_public_key: string;
  settlement_public_key: string;
  checkpoint_origin: string;
}

/** Traders with play money. */
export interface Bots {
  present: boolean;
  running: boolean;
}

export interface Asset {
  asset_id: number;
  symbol: string;
  decimals: number;
}

export interface Ticker {
  market: string;
  last: string | null;
  bid: string | null;
  ask: string | null;
  open_24h: string | null;
  high_24h: string | null;
  low_24h: string | null;
  volume_24h: string;
  quote_volume_24h: string;
  change_ppm: number | null;
}

export interface Trade {
  trade_id: string;
  market: string;
  price: string;
  qty: string;
  /** The taker's; empty in an auction. */
  side: 'buy' | 'sell' | '';
  time: string;
  record_no: string;
}

export interface Candle {
  time: string;
  open: string;
  high: string;
  low: string;
  close: string;
  volume: string;
  trades: number;
}

export interface Order {
  order_id: string;
  client_order_id: string;
  market: string;
  side: 'buy' | 'sell';
  /** What an order has besides: of now while it is open, then as it was entered; `type` is empty where nobody knows any more. */
  type?: string;
  time_in_force?: string;
  /** What it waits for: stop, take_profit or trailing; empty once it rests. */
  trigger?: string;
  trigger_price?: string;
  display_qty?: string;
  expire_time?: string;
  min_qty?: string;
  max_notional?: string;
  hidden?: boolean;
  paired?: boolean;
  /** The other of a pair, while both are open. */
  pair_order_id?: string;
  on_reference?: boolean;
  /** Null where it is not known any more, as `slide`. */
  post_only?: boolean | null;
  slide?: boolean | null;
  self_trade_prevention?: string;
  /** Of a trailing order: its distance as a price, or else in parts per million. */
  trail?: string;
  trail_ppm?: number;
  /** It has waited, and no longer does. */
  triggered?: boolean;
  /** Number of the command that it came with; of a refused order, which has no number of its own. */
  seq?: string;
  /** Why it ended, as the name of a reason code. */
  reason?: string;
  price: string;
  qty: string;
  leaves_qty: string;
  cum_qty: string;
  status: string;
  time: string;
  /** Of the last report about it; empty in a snapshot of open orders. */
  record_no: string;
}

/** Tells open orders apart: each shard counts its own, and a market is on one shard. */
export const orderKey = (order: { market: string; order_id: string }): string => `${order.market} ${order.order_id}`;

export interface Fill {
  trade_id: string;
  order_id: string;
  client_order_id?: string;
  market: string;
  side: 'buy' | 'sell';
  price: string;
  qty: string;
  fee: string;
  liquidity: 'maker' | 'taker' | 'auction';
  time: string;
  record_no: string;
  seq: string;
}

export interface Balance {
  /** Of it, what is on each shard: an order can only use what is on its market's. */
  shards?: readonly { shard: number; held: string; available: string }[];
  asset: string;
  asset_id: number;
  total: string;
  held: string;
  available: string;
}

export interface CheckpointInfo {
  number: string;
  time: string;
  note: string;
  leaf: string;
}

export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
}

export class Api {
  #token: string | null = null;

  constructor(readonly base = '/api/v1') {}

  set token(token: string | null) {
    this.#token = token;
  }

  get authorised(): boolean {
    return this.#token !== null;
  }

  async get<Answer>(path: string): Promise<Answer> {
    return this.#ask<Answer>('GET', path, undefined);
  }

  async post<Answer>(path: string, body: unknown): Promise<Answer> {
    return this.#ask<Answer>('POST', path, body);
  }

  async #ask<Answer>(method: string, path: string, body: unknown): Promise<Answer> {
    const headers: Record<string, string> = {};
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    const answer = await fetch(this.base + path, {
      method,
      headers,
      cache: 'no-store',
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!answer.ok) {
      const problem = (await answer.json().catch(() => ({}))) as { code?: string; detail?: string; title?: string };
      throw new Problem(answer.status, problem.code ?? `HTTP_${answer.status}`, problem.detail ?? problem.title ?? answer.statusText);
    }
    return (await answer.json()) as Answer;
  }

  markets = async (): Promise<MarketInfo[]> => (await this.get<{ markets: MarketInfo[] }>('/markets')).markets;
  assets = async (): Promise<Asset[]> => (await this.get<{ assets: Asset[] }>('/assets')).assets;
  version = (): Promise<Version> => this.get<Version>('/version');
}

const PAGE_ROWS = 1000;
type Page<Row> = { next_cursor: string | null } & Readonly<Record<string, readonly Row[]>>;

/** All rows of a list that comes in pages. `get` asks for one. */
export async function allPages<Row>(get: (path: string) => Promise<Page<Row>>, path: string, field: string, progress: (rows: number) => void): Promise<Row[]> {
  const rows: Row[] = [];
  for (let cursor: string | null = ''; cursor !== null; ) {
    const page: Page<Row> = await get(`${path}?limit=${PAGE_ROWS}${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
    rows.push(...page[field]!);
    progress(rows.length);
    cursor = page.next_cursor;
  }
  return rows;
}
