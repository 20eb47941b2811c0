// Ties the connections to the state: what arrives goes into `live` and the signals, what a person does goes out.

import { createKey, canGuard, loadSigner, removeKey } from '../keys/keystore';
import type { Signer } from '../keys/keystore';
import type { BookMessage } from '../market/book';
import { assess, hasLimit } from '../market/draft';
import type { Assessment, Available, Conditions } from '../market/draft';
import { Market } from '../market/market';
import type { MarketInfo, Side } from '../market/market';
import { phaseAfter, phaseOf } from '../market/phase';
import type { Asset, Bots, Candle, CheckpointInfo, Ticker, Trade } from '../net/api';
import { Feed } from '../net/feed';
import type { FeedMessage, Subscription } from '../net/feed';
import { toHex } from '../wire/bytes';
import { drawSoon } from '../draw/loop';
import { api, links, socketBase } from './links';
import type { Entry } from './links';
import { live } from './live';
import { choose, settings } from './settings';
import * as store from './store';
import { Watcher } from './watcher';

let entry: Entry | null = null;
let fetching: Promise<Entry> | null = null;
let watcher: Watcher | null = null;
let resyncTimer: ReturnType<typeof setTimeout> | undefined;
let askedMs = 0;

const SAMPLES_MAX = 300;
const RESYNC_PAUSE_MS = 250;
const RESYNC_AGAIN_MS = 1000;
/** A market with fewer candles of the default interval has just begun. */
const YOUNG_CANDLES = 20;
/** A market may be looked at without a key: a browser whose storage hangs is not waited for. */
const KEY_WAIT_MS = 1000;
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 5000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Order entry, fetched when it is first asked for. */
function withEntry(): Promise<Entry> {
  fetching ??= (async () => {
    for (let pauseMs = RETRY_MIN_MS; ; pauseMs = Math.min(pauseMs * 2, RETRY_MAX_MS)) {
      try {
        return (entry = await import('./entry'));
      } catch {
        await sleep(pauseMs); // the exchange restarts
      }
    }
  })();
  return fetching;
}

export async function boot(): Promise<void> {
  const loading = loadSigner().catch(() => null);
  void loading.then((signer) => signer && withEntry());
  for (let pauseMs = RETRY_MIN_MS; ; pauseMs = Math.min(pauseMs * 2, RETRY_MAX_MS)) {
    try {
      const [version, infos, assets, signer] = await Promise.all([api.version(), api.markets(), api.assets(), Promise.race([loading, sleep(KEY_WAIT_MS).then(() => null)])]);
      if (signer) expect(signer); // before the form is shown, which otherwise offers an account
      store.version.value = version;
      store.assets.value = assets;
      store.markets.value = new Map(infos.map((info) => [info.symbol, new Market(info)]));
      store.bootError.value = null;
      watcher = new Watcher(api, version, () => {
        api.token = null;
        if (store.signer.value) void entry?.loadHistory();
      });
      break;
    } catch (error) {
      store.bootError.value = error instanceof Error ? error.message : String(error);
      await sleep(pauseMs);
    }
  }
  const feed = (links.feed = new Feed(`${socketBase}/ws`, {
    state: (state) => {
      store.feedState.value = state;
      if (state !== 'open') {
        live.book.invalidate();
        store.bookState.value = 'offline';
        links.isPrivate = false;
        links.challenge = null;
        drawSoon();
      }
    },
    hello: (hello) => {
      links.challenge = hello.challenge;
      if (hello.deployment_id && hello.deployment_id !== store.version.value!.deployment_id) location.reload();
      void entry?.logonToFeed();
    },
    time: (serverMs) => (live.clockOffsetMs = serverMs - Date.now()),
    message: (message) => onFeed(message),
    problem: (text) => store.notify('bad', 'Subscription refused', text),
  }));
  const first = store.markets.value.has(settings.value.market) ? settings.value.market : [...store.markets.value.keys()][0];
  if (first) selectMarket(first);
  feed.subscribe({ channel: 'definitions' }, { channel: 'ticker' }, { channel: 'checkpoints' });
  feed.start();
  if (watchesStats) feed.subscribe({ channel: 'stats' });
  setInterval(() => (store.bookTick.value += 1), 250);
  store.guardedKeys.value = await canGuard();
  const signer = await loading;
  if (signer) await useSigner(signer);
}

// --- market -----------------------------------------------------------------------------------------------------------

function marketSubscriptions(symbol: string): Subscription[] {
  return [
    { channel: 'book', market: symbol },
    { channel: 'trades', market: symbol },
    { channel: 'candles', market: symbol, interval: settings.value.interval },
  ];
}

export function selectMarket(symbol: string): void {
  const market = store.markets.value.get(symbol);
  if (!market || store.symbol.value === symbol) return;
  if (store.symbol.value) links.feed?.unsubscribe(...marketSubscriptions(store.symbol.value));
  store.symbol.value = symbol;
  store.grouping.value = 1;
  store.bookState.value = 'loading';
  store.phase.value = phaseOf(market.info.state);
  store.draft.value = { ...store.draft.value, price: '', size: '', trigger: '', trail: '', display: '', minimum: '', pairTrigger: '' };
  choose({ market: symbol });
  live.select(market);
  const ticker = store.tickers.value.get(symbol);
  if (ticker) live.ticker = ticker;
  links.feed?.subscribe(...marketSubscriptions(symbol));
  drawSoon();
}

/** `chosen`: by a person. */
export function selectInterval(interval: string, chosen = true): void {
  if (chosen) choose({ intervalChosen: true });
  if (interval === settings.value.interval) return;
  links.feed?.unsubscribe({ channel: 'candles', market: store.symbol.value, interval: settings.value.interval });
  choose({ interval });
  live.addCandles([], true);
  links.feed?.subscribe({ channel: 'candles', market: store.symbol.value, interval });
}

let watchesStats = false;

/** The operations view is fed only while somebody looks at it. */
export function watchStats(on: boolean): void {
  if (on === watchesStats) return;
  watchesStats = on;
  if (on) links.feed?.subscribe({ channel: 'stats' });
  else links.feed?.unsubscribe({ channel: 'stats' });
}

// --- feed -------------------------------------------------------------------------------------------------------------

function onFeed(message: FeedMessage): void {
  const replace = message.type === 'snapshot';
  const current = message.market === store.symbol.value;
  switch (message.channel) {
    case 'book':
      if (current) onBook(message as unknown as BookMessage);
      break;
    case 'trades':
      if (current) {
        live.addTrades(message.trades as Trade[], replace);
        drawSoon();
      }
      break;
    case 'candles':
      if (current && message.interval === settings.value.interval) {
        const candles = message.candles as Candle[];
        live.addCandles(candles, replace);
        if (replace && !settings.value.intervalChosen && candles.length < YOUNG_CANDLES) selectInterval('1s', false);
      }
      break;
    case 'definitions':
      onDefinitions(message.assets as Asset[], message.markets as MarketInfo[], replace);
      break;
    case 'ticker':
      onTickers(message.tickers as Ticker[]);
      break;
    case 'checkpoints':
      watcher!.take([...(message.checkpoints as CheckpointInfo[])].sort((left, right) => Number(BigInt(left.number) - BigInt(right.number))));
      break;
    case 'stats':
      onStats(message);
      break;
    default:
      entry?.onPrivate(message);
  }
}

function onBook(message: BookMessage): void {
  const was = store.bookState.peek();
  live.bookMessages += 1;
  store.phase.value = phaseAfter(store.phase.peek(), message);
  if (live.book.apply(message)) {
    if (was !== 'synced') {
      if (was !== 'loading' && was !== 'offline') store.notify('info', 'Order book synchronised', `sequence ${message.seq}`);
      store.bookState.value = 'synced';
    }
  } else if (live.book.fault) {
    store.bookState.value = live.book.fault;
    askForSnapshot();
  }
  drawSoon();
}

/** Asks for a new snapshot of the book; a server that keeps sending nonsense is asked once a second. */
function askForSnapshot(): void {
  if (resyncTimer !== undefined) return;
  const symbol = store.symbol.value;
  const pauseMs = Math.max(RESYNC_PAUSE_MS, askedMs + RESYNC_AGAIN_MS - performance.now());
  resyncTimer = setTimeout(() => {
    resyncTimer = undefined;
    if (store.symbol.value !== symbol || live.book.synced) return;
    askedMs = performance.now();
    live.resyncs += 1;
    links.feed?.resubscribe({ channel: 'book', market: symbol });
  }, pauseMs);
}

/** Assets and markets that are new, or whose rules, sizes or state changed. */
function onDefinitions(assets: readonly Asset[], infos: readonly MarketInfo[], replace: boolean): void {
  const known = store.markets.value;
  store.assets.value = [...new Map([...(replace ? [] : store.assets.value), ...assets].map((one) => [one.asset_id, one])).values()];
  const all = new Map(replace ? [] : known);
  for (const info of infos) {
    const was = known.get(info.symbol);
    all.set(info.symbol, was && JSON.stringify(was.info) === JSON.stringify(info) ? was : new Market(info));
  }
  const [was, now] = [live.market, all.get(store.symbol.value)];
  const resized = was && now && was.symbol === now.symbol && was.info.sizes_no !== now.info.sizes_no;
  if (resized) live.select(now);
  else if (was && now) live.market = now;
  store.markets.value = all;
  if (resized) {
    // Nothing that was drawn counts in the new sizes.
    store.bookState.value = 'loading';
    for (const one of marketSubscriptions(now.symbol)) links.feed?.resubscribe(one);
    store.notify('info', `${now.symbol} has other steps`, `prices ${now.info.tick_size} ${now.info.quote}, sizes ${now.info.lot_size} ${now.info.base}`);
  }
  if (!store.symbol.value && all.size) selectMarket([...all.keys()][0]!);
  drawSoon();
}

function onTickers(tickers: readonly Ticker[]): void {
  const all = new Map(store.tickers.value);
  for (const ticker of tickers) {
    all.set(ticker.market, ticker);
    if (ticker.market === store.symbol.value) {
      live.ticker = ticker;
      live.tickerVersion += 1;
      drawSoon();
    }
  }
  store.tickers.value = all;
}

function onStats(message: FeedMessage): void {
  const latency = (message.latency_us ?? {}) as { p50?: number; p99?: number };
  const sample = {
    timeMs: live.nowMs(),
    commandsPerSecond: Number(message.commands_per_s ?? 0),
    p50Us: latency.p50 ?? null,
    p99Us: latency.p99 ?? null,
    checkpointAgeMs: Number(message.checkpoint_age_ms ?? 0),
  };
  store.operations.value = { latest: message, samples: [...store.operations.value.samples, sample].slice(-SAMPLES_MAX) };
}

// --- key and account ----------------------------------------------------------------------------------------------------

/** There is a key: what is shown waits for its session. */
function expect(signer: Signer): void {
  store.signer.value = signer;
  store.tradingState.value = 'connecting';
}

export async function useSigner(signer: Signer): Promise<void> {
  expect(signer);
  (await withEntry()).start(signer);
}

export async function makeKey(): Promise<Signer> {
  const made = await createKey();
  store.freshSeed.value = made.seed;
  await useSigner(made.signer);
  return made.signer;
}

/** Whether the bots of a demo trade. */
export async function readBots(): Promise<void> {
  try {
    store.bots.value = await api.get<Bots>('/demo/bots');
  } catch {
    store.bots.value = { present: false, running: false };
  }
}

export async function letBots(running: boolean): Promise<void> {
  try {
    store.bots.value = await api.post<Bots>('/demo/bots', { running });
  } catch (error) {
    store.notify('bad', 'The bots did not hear', error instanceof Error ? error.message : String(error));
  }
}

/** One click on a demo deployment: a key if there is none, an account for it, and funds. */
export async function openDemoAccount(): Promise<void> {
  let signer = store.signer.value;
  try {
    if (!signer) {
      const made = await createKey();
      store.freshSeed.value = made.seed;
      signer = made.signer;
    }
    expect(signer);
    const { account_id } = await api.post<{ account_id: string }>('/demo/account', { public_key: toHex(signer.publicKey) });
    store.notify('good', 'Demo account opened', `account ${account_id}, with play money`);
  } catch (error) {
    store.notify('bad', 'The account could not be opened', error instanceof Error ? error.message : String(error));
  }
  // A new session learns the account's number, and then the feed is logged on to.
  if (signer) await useSigner(signer);
}

export function forgetSeed(): void {
  store.freshSeed.value?.fill(0);
  store.freshSeed.value = null;
}

export async function signOut(): Promise<void> {
  entry?.stop();
  store.tradingState.value = 'off';
  await removeKey();
  forgetSeed();
  api.token = null;
  store.signer.value = null;
  store.accountId.value = null;
  store.openOrders.value = new Map();
  store.ordersTruncated.value = false;
  store.pastOrders.value = [];
  store.fills.value = [];
  store.balances.value = [];
  store.unanswered.value = 0;
  links.isPrivate = false;
  links.feed?.unsubscribe({ channel: 'orders' }, { channel: 'fills' }, { channel: 'balances' });
  links.feed?.restart();
}

// --- orders -------------------------------------------------------------------------------------------------------------

export function available(market: Market): Available | null {
  if (store.accountId.value === null) return null;
  const units = (assetId: number, decimals: number): bigint => {
    const balance = store.balances.value.find((one) => one.asset_id === assetId);
    const text = (balance?.shards ? balance.shards.find((one) => one.shard === market.info.shard)?.available : balance?.available) ?? '0';
    const [whole, fraction = ''] = text.split('.');
    return BigInt(whole + fraction.slice(0, decimals).padEnd(decimals, '0'));
  };
  const { info } = market;
  return { base: units(info.base_asset_id, info.base_decimals), quote: units(info.quote_asset_id, info.quote_decimals) };
}

/** What the market that is shown is like now, besides its book. */
export function conditions(market: Market): Conditions {
  const { state, reference_price: reference } = store.phase.value;
  const last = live.tape[0]?.price ?? live.ticker?.last ?? null;
  return {
    state: state || market.info.state,
    lastTicks: last === null ? null : market.ticksOf(last),
    referenceTicks: reference ? market.ticksOf(reference) : null,
    nowMs: live.nowMs(),
    openOrders: [...store.openOrders.value.values()].filter((order) => order.market === market.symbol).length,
    utc: settings.value.clock === 'utc',
  };
}

export function assessDraft(): Assessment | null {
  const market = store.market.value;
  return market ? assess(store.draft.value, market, live.book, available(market), conditions(market)) : null;
}

/** Checks the form and opens the dialog, or sends at once if that is chosen. False if something is wrong with it. */
export const submitDraft = (): boolean => entry?.submitDraft() ?? false;
export const confirmReview = (): void => entry?.confirmReview();
export const cancelAll = (symbol: string | null): void => entry?.cancelAll(symbol);

/** Puts a price that was picked into the form: where it has one, or as what it waits for. */
export function fillForm(side: Side | null, price: string, size: string | null): void {
  const draft = store.draft.value;
  const waits = draft.type === 'stop' || draft.type === 'take_profit';
  store.draft.value = {
    ...draft,
    ...(side && !waits ? { side } : {}),
    type: hasLimit(draft) || waits ? draft.type : 'limit',
    ...(waits ? { trigger: price } : { price }),
    ...(size === null ? {} : { size, unit: 'base' as const }),
  };
}

/** The bytes of a note to keep elsewhere. */
export const noteForKeeping = (): string => store.verification.value.checkpoint?.note ?? '';
