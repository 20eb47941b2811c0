// Ties the connections to the state: what arrives goes into `live` and the signals, what a person does goes out.

import { createKey, canGuard, loadSigner, removeKey } from '../keys/keystore';
import type { Signer } from '../keys/keystore';
import type { BookMessage } from '../market/book';
import { formatUnits, grouped } from '../market/decimal';
import { NO_COMMAND, assess, commandsOf, hasLimit, summaryOf } from '../market/draft';
import type { Assessment, Available, Conditions } from '../market/draft';
import { Market } from '../market/market';
import type { Side } from '../market/market';
import { phaseAfter, phaseOf } from '../market/phase';
import { Api, Problem } from '../net/api';
import type { Balance, Bots, Candle, CheckpointInfo, Fill, Order, Ticker, Trade } from '../net/api';
import { Feed } from '../net/feed';
import type { FeedMessage, Subscription } from '../net/feed';
import { Trading, isAccount } from '../net/trading';
import type { PendingBatch } from '../net/trading';
import { fromBase64, fromHex, toHex } from '../wire/bytes';
import { REASON_DESCRIPTIONS } from '../wire/messages';
import type { Command, ExecutionReport, NotApplied } from '../wire/messages';
import { feedLogonBytes, isLogonBytes } from '../wire/signing';
import { amendOf, amendedTerms } from './amend';
import type { Amended, Edit } from './amend';
import { drawSoon } from '../draw/loop';
import { live } from './live';
import { fillOfReport, orderOfReport, refusedOf, takeFills, takeHistory, takeOrders, takeRefused, termsOf } from './orders';
import { choose, settings } from './settings';
import * as store from './store';
import { Watcher } from './watcher';

const api = new Api();
const socketBase = location.origin.replace(/^http/, 'ws');
let feed: Feed | null = null;
let trading: Trading | null = null;
let watcher: Watcher | null = null;
let feedChallenge: string | null = null;
let feedPrivate = false;
let resyncTimer: ReturnType<typeof setTimeout> | undefined;
let askedMs = 0;

const SAMPLES_MAX = 300;
const ACKNOWLEDGEMENTS_MAX = 200;
const RESYNC_PAUSE_MS = 250;
const RESYNC_AGAIN_MS = 1000;

export async function boot(): Promise<void> {
  for (let pauseMs = 500; ; pauseMs = Math.min(pauseMs * 2, 5000)) {
    try {
      const [version, infos, assets] = await Promise.all([api.version(), api.markets(), api.assets()]);
      store.version.value = version;
      store.assets.value = assets;
      store.markets.value = new Map(infos.map((info) => [info.symbol, new Market(info)]));
      store.bootError.value = null;
      watcher = new Watcher(api, version, () => {
        api.token = null;
        if (store.signer.value) void loadHistory(store.signer.value);
      });
      break;
    } catch (error) {
      store.bootError.value = error instanceof Error ? error.message : String(error);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
  feed = new Feed(`${socketBase}/ws`, {
    state: (state) => {
      store.feedState.value = state;
      if (state !== 'open') {
        live.book.invalidate();
        store.bookState.value = 'offline';
        feedPrivate = false;
        feedChallenge = null;
        drawSoon();
      }
    },
    hello: (hello) => {
      feedChallenge = hello.challenge;
      if (hello.deployment_id && hello.deployment_id !== store.version.value!.deployment_id) location.reload();
      void logonToFeed();
    },
    time: (serverMs) => (live.clockOffsetMs = serverMs - Date.now()),
    message: (message) => onFeed(message),
    problem: (text) => store.notify('bad', 'Subscription refused', text),
  });
  const first = store.markets.value.has(settings.value.market) ? settings.value.market : [...store.markets.value.keys()][0];
  if (first) selectMarket(first);
  feed?.subscribe({ channel: 'ticker' }, { channel: 'checkpoints' });
  feed?.start();
  if (watchesStats) feed?.subscribe({ channel: 'stats' });
  setInterval(() => (store.bookTick.value += 1), 250);
  store.guardedKeys.value = await canGuard();
  const signer = await loadSigner();
  if (signer) useSigner(signer);
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
  if (store.symbol.value) feed?.unsubscribe(...marketSubscriptions(store.symbol.value));
  store.symbol.value = symbol;
  store.grouping.value = 1;
  store.bookState.value = 'loading';
  store.phase.value = phaseOf(market.info.state);
  store.draft.value = { ...store.draft.value, price: '', size: '', trigger: '', trail: '', display: '', minimum: '', pairTrigger: '' };
  choose({ market: symbol });
  live.select(market);
  const ticker = store.tickers.value.get(symbol);
  if (ticker) live.ticker = ticker;
  feed?.subscribe(...marketSubscriptions(symbol));
  drawSoon();
}

export function selectInterval(interval: string): void {
  if (interval === settings.value.interval) return;
  feed?.unsubscribe({ channel: 'candles', market: store.symbol.value, interval: settings.value.interval });
  choose({ interval });
  live.addCandles([], true);
  feed?.subscribe({ channel: 'candles', market: store.symbol.value, interval });
}

let watchesStats = false;

/** The operations view is fed only while somebody looks at it. */
export function watchStats(on: boolean): void {
  if (on === watchesStats) return;
  watchesStats = on;
  if (on) feed?.subscribe({ channel: 'stats' });
  else feed?.unsubscribe({ channel: 'stats' });
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
      if (current && message.interval === settings.value.interval) live.addCandles(message.candles as Candle[], replace);
      break;
    case 'ticker':
      onTickers(message.tickers as Ticker[]);
      break;
    case 'checkpoints':
      watcher!.take([...(message.checkpoints as CheckpointInfo[])].sort((left, right) => Number(BigInt(left.number) - BigInt(right.number))));
      break;
    case 'orders':
      takeOrders(message.orders as Order[], replace);
      drawSoon();
      break;
    case 'fills':
      takeFills(message.fills as Fill[]);
      break;
    case 'balances':
      onBalances(message.balances as Balance[], replace);
      break;
    case 'stats':
      onStats(message);
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
    feed?.resubscribe({ channel: 'book', market: symbol });
  }, pauseMs);
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

function onBalances(balances: readonly Balance[], replace: boolean): void {
  const all = new Map(replace ? [] : store.balances.value.map((one) => [one.asset_id, one]));
  for (const one of balances) all.set(one.asset_id, one);
  store.balances.value = [...all.values()].sort((left, right) => left.asset_id - right.asset_id);
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

async function logonToFeed(): Promise<void> {
  const signer = store.signer.value;
  const version = store.version.value;
  if (!signer || !feedChallenge || !version || feedPrivate || store.feedState.value !== 'open') return;
  try {
    const signature = await signer.sign(feedLogonBytes(fromHex(feedChallenge), fromHex(version.deployment_id)));
    await feed?.logon(toHex(signer.publicKey), toHex(signature));
    feedPrivate = true;
    feed?.subscribe({ channel: 'orders' }, { channel: 'fills' }, { channel: 'balances' });
    void loadHistory(signer);
  } catch (error) {
    // The session's own reports still tell about orders and balances, and the next hello is answered again.
    if (store.accountId.value !== null) store.notify('bad', 'Logon to the feed failed', error instanceof Error ? error.message : String(error));
  }
}

/** Orders of earlier days, by REST; what the page has seen itself is there without it. */
async function loadHistory(signer: Signer): Promise<void> {
  try {
    const begun = await api.post<{ session_id: string; to_sign: string }>('/sessions', { public_key: toHex(signer.publicKey) });
    const bytes = fromBase64(begun.to_sign);
    if (!isLogonBytes(bytes, signer.publicKey, fromHex(store.version.value!.deployment_id))) throw new Error('the server asks for a signature over something else than a logon');
    api.token = (await api.post<{ token: string }>(`/sessions/${begun.session_id}`, { signature: toHex(await signer.sign(bytes)) })).token;
    takeHistory((await api.get<{ orders: Order[] }>('/orders/history?limit=500')).orders);
    takeFills((await api.get<{ fills: Fill[] }>('/fills?limit=200')).fills);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}

// --- key and account ----------------------------------------------------------------------------------------------------

export function useSigner(signer: Signer): void {
  trading?.stop();
  store.signer.value = signer;
  trading = new Trading(`${socketBase}/ws/session`, signer, fromHex(store.version.value!.deployment_id), {
    state: (state, reason) => {
      store.tradingState.value = state;
      store.tradingReason.value = reason ? REASON_DESCRIPTIONS[reason] : null;
    },
    established: (ack) => {
      const shard = ack.shards.find((one) => isAccount(one.accountId));
      store.accountId.value = shard ? shard.accountId : null;
      void logonToFeed();
      if (shard && !feedPrivate) requestBalances();
    },
    report: onReport,
    unanswered: (count) => (store.unanswered.value = count),
    notApplied: onNotApplied,
    answer: (message) => {
      if (message.message !== 'Balances' || feedPrivate) return;
      onBalances(
        message.balances.map((one) => {
          const asset = store.assets.value.find((candidate) => candidate.asset_id === one.assetId);
          const decimals = asset?.decimals ?? 0;
          return {
            asset: asset?.symbol ?? String(one.assetId), asset_id: one.assetId, available: formatUnits(one.available, decimals), held: formatUnits(one.held, decimals),
            total: formatUnits(one.available + one.held, decimals),
          };
        }),
        true,
      );
    },
  });
}

function requestBalances(): void {
  const shard = store.market.value?.info.shard ?? 0;
  trading?.request({ message: 'BalancesRequest', requestId: 1n, shard });
}

export async function makeKey(): Promise<Signer> {
  const made = await createKey();
  store.freshSeed.value = made.seed;
  useSigner(made.signer);
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
  try {
    const signer = store.signer.value ?? (await makeKey());
    const { account_id } = await api.post<{ account_id: string }>('/demo/account', { public_key: toHex(signer.publicKey) });
    store.notify('good', 'Demo account opened', `account ${account_id}, with play money`);
    // A new session learns the account's number, and then the feed is logged on to.
    useSigner(signer);
  } catch (error) {
    store.notify('bad', 'The account could not be opened', error instanceof Error ? error.message : String(error));
  }
}

export function forgetSeed(): void {
  store.freshSeed.value?.fill(0);
  store.freshSeed.value = null;
}

export async function signOut(): Promise<void> {
  trading?.stop();
  trading = null;
  await removeKey();
  forgetSeed();
  api.token = null;
  store.signer.value = null;
  store.accountId.value = null;
  store.openOrders.value = new Map();
  store.pastOrders.value = [];
  store.fills.value = [];
  store.balances.value = [];
  store.unanswered.value = 0;
  feedPrivate = false;
  feed?.unsubscribe({ channel: 'orders' }, { channel: 'fills' }, { channel: 'balances' });
  feed?.restart();
}

// --- orders -------------------------------------------------------------------------------------------------------------

export function available(market: Market): Available | null {
  if (store.accountId.value === null) return null;
  const units = (assetId: number, decimals: number): bigint => {
    const text = store.balances.value.find((one) => one.asset_id === assetId)?.available ?? '0';
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

let lastClientOrderId = 0n;

function newClientOrderId(): bigint {
  const now = BigInt(Date.now()) * 1000n;
  lastClientOrderId = now > lastClientOrderId ? now : lastClientOrderId + 1n;
  return lastClientOrderId;
}

/** What was asked for, by client order id: reports do not repeat the terms of an order. */
const asked = new Map<string, Partial<Order>>();

/** Checks the form and opens the dialog, or sends at once if that is chosen. False if something is wrong with it. */
export function submitDraft(): boolean {
  const market = store.market.value;
  const found = assessDraft();
  if (!market || !found || Object.keys(found.problems).length || found.ticks === null || found.lots === null || !trading?.ready) return false;
  const draft = store.draft.value;
  const commands = commandsOf(draft, found, market, newClientOrderId);
  for (const command of commands) asked.set(String(command.clientOrderId), termsOf(command, market, commands.length > 1));
  propose(summaryOf(draft, found, market), market, commands);
  return true;
}

function propose(title: string, market: Market, commands: readonly Command[]): void {
  if (!trading?.ready) {
    store.notify('bad', 'Not connected', 'Orders can be sent once the session is established.');
    return;
  }
  const prepared = trading.prepare(market.info.shard, commands);
  if (settings.value.confirm) store.review.value = { title, prepared, symbol: market.symbol };
  else void trading.send(prepared);
}

export function confirmReview(): void {
  const review = store.review.value;
  store.review.value = null;
  if (review && trading) void trading.send(review.prepared);
}

/** Cancels at once: taking an order back is never asked about. */
export function cancelOrder(order: Order): void {
  const market = store.markets.value.get(order.market);
  if (!market || !trading?.ready) return;
  void trading.send(trading.prepare(market.info.shard, [{ ...NO_COMMAND, marketId: market.info.market_id, orderId: BigInt(order.order_id) }]));
}

export function cancelAll(symbol: string | null): void {
  const shards = new Map<number, Command>();
  for (const market of store.markets.value.values())
    if (symbol === null || market.symbol === symbol)
      shards.set(market.info.shard, { ...NO_COMMAND, kind: 'cancelAll', marketId: symbol === null ? 0 : market.info.market_id });
  if (trading?.ready) for (const [shard, command] of shards) void trading.send(trading.prepare(shard, [command]));
}

/** What an edit of an open order comes to: the command, or what is wrong with it. */
export function assessEdit(order: Order, edit: Edit): Amended {
  const market = store.markets.value.get(order.market);
  if (!market) return { problem: 'No such market.' };
  const now = conditions(market);
  return market === store.market.value
    ? amendOf(order, edit, market, live.book, available(market), now)
    : amendOf(order, edit, market, null, available(market), { ...now, state: market.info.state, lastTicks: null, referenceTicks: null });
}

/** Returns what is wrong with the edit, null once the amend is on its way. */
export function amendOrder(order: Order, edit: Edit): string | null {
  const market = store.markets.value.get(order.market);
  const found = assessEdit(order, edit);
  if ('problem' in found || !market) return 'problem' in found ? found.problem : 'No such market.';
  propose(`Amend order ${order.order_id}: ${edit.size} ${market.info.base} at ${grouped(edit.price)}${found.keepsPlace ? '' : ', to the back of the queue'}`, market, [found.command]);
  return null;
}

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

function onReport(report: ExecutionReport, pending: PendingBatch | null, latencyMs: number | null): void {
  if (latencyMs !== null) store.acknowledgements.value = [...store.acknowledgements.value, latencyMs].slice(-ACKNOWLEDGEMENTS_MAX);
  const market = [...store.markets.value.values()].find((one) => one.info.market_id === report.marketId);
  const took = latencyMs === null ? '' : ` · ${latencyMs.toFixed(1)} ms`;
  if (report.execType === 'rejected') {
    const command = pending?.prepared.commands[report.commandIndex];
    const refused = command?.kind === 'new' && market ? refusedOf(report, market, asked.get(String(report.clientOrderId))) : null;
    if (refused) takeRefused(refused);
    store.notify('bad', command?.kind === 'amend' ? 'Amend refused' : command?.kind === 'cancel' ? 'Cancel refused' : 'Order refused', REASON_DESCRIPTIONS[report.reason] + took);
    return;
  }
  if (report.execType === 'massCancelled') {
    store.notify('info', `${report.qtyLots} orders cancelled`, took.slice(3));
    return;
  }
  if (!market) return;
  const entered = store.openOrders.value.get(String(report.orderId)) ?? asked.get(String(report.clientOrderId));
  const command = pending?.prepared.commands[report.commandIndex];
  const known = report.execType === 'replaced' && command?.kind === 'amend' ? { ...entered, ...amendedTerms(command, market, entered) } : entered;
  const order = orderOfReport(report, market, known);
  const what = `${report.side} ${market.sizeText(report.qtyLots)} ${market.info.base} ${known?.type === 'market' ? 'at market, worst price' : 'at'} ${grouped(market.priceText(report.priceTicks))}`;
  switch (report.execType) {
    case 'new':
      store.notify('info', 'Order accepted', what + took);
      break;
    case 'replaced':
      store.notify('info', 'Order amended', what + took);
      break;
    case 'trade': {
      takeFills([fillOfReport(report, market)]);
      const done = report.leavesLots === 0n ? 'Order filled' : 'Partly filled';
      store.notify('good', done, `${report.side} ${market.sizeText(report.lastQtyLots)} ${market.info.base} at ${grouped(market.priceText(report.lastPriceTicks))}`);
      break;
    }
    case 'triggered':
      store.notify('info', 'Order triggered', what);
      break;
    case 'expired':
      store.notify('info', 'Order expired', what);
      break;
    case 'cancelled':
    case 'selfTradePrevented':
      store.notify('info', report.leavesLots ? 'Order lowered' : 'Order cancelled', `${what} · ${REASON_DESCRIPTIONS[report.reason]}${took}`);
  }
  if (order) takeOrders([order], false);
  if (!feedPrivate) requestBalances();
  drawSoon();
}

function onNotApplied(message: NotApplied): void {
  store.notify('bad', 'Not applied', REASON_DESCRIPTIONS[message.reason]);
}

/** The bytes of a note to keep elsewhere. */
export const noteForKeeping = (): string => store.verification.value.checkpoint?.note ?? '';
