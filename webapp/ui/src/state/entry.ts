// Order entry: the session of a key, what is sent over it, and what comes back of it and of the feed's private channels.
// Fetched once there is a key; nothing of it is needed to look at a market.

import { drawSoon } from '../draw/loop';
import type { Signer } from '../keys/keystore';
import { NO_COMMAND, commandsOf, summaryOf } from '../market/commands';
import { formatUnits, grouped, meanTicks } from '../market/decimal';
import type { Market } from '../market/market';
import { Problem, orderKey } from '../net/api';
import type { Balance, Fill, Order } from '../net/api';
import type { FeedMessage } from '../net/feed';
import { Trading, isAccount } from '../net/trading';
import type { PendingBatch } from '../net/trading';
import { fromBase64, fromHex, toHex } from '../wire/bytes';
import { REASON_DESCRIPTIONS } from '../wire/messages';
import type { Command, ExecutionReport, NotApplied } from '../wire/messages';
import { feedLogonBytes, isLogonBytes } from '../wire/signing';
import { amendOf, amendedTerms } from './amend';
import type { Amended, Edit } from './amend';
import { assessDraft, available, conditions } from './controller';
import { api, links, socketBase } from './links';
import { live } from './live';
import { fillOfReport, orderOfReport, refusedOf, takeFills, takeHistory, takeOrders, takeRefused } from './orders';
import { settings } from './settings';
import * as store from './store';
import { termsOf } from './terms';

const ACKNOWLEDGEMENTS_MAX = 200;

let trading: Trading | null = null;

export async function logonToFeed(): Promise<void> {
  const signer = store.signer.value;
  const version = store.version.value;
  if (!signer || !links.challenge || !version || links.isPrivate || store.feedState.value !== 'open') return;
  try {
    const signature = await signer.sign(feedLogonBytes(fromHex(links.challenge), fromHex(version.deployment_id)));
    await links.feed?.logon(toHex(signer.publicKey), toHex(signature));
    links.isPrivate = true;
    links.feed?.subscribe({ channel: 'orders' }, { channel: 'fills' }, { channel: 'balances' });
    void loadHistory();
  } catch (error) {
    // The session's own reports still tell about orders and balances, and the next hello is answered again.
    if (store.accountId.value !== null) store.notify('bad', 'Logon to the feed failed', error instanceof Error ? error.message : String(error));
  }
}

/** Logs on to a REST session with the key. Throws Problem. */
export async function authorise(): Promise<void> {
  const signer = store.signer.value;
  if (!signer) throw new Problem(401, 'UNAUTHORIZED', 'There is no key.');
  const begun = await api.post<{ session_id: string; to_sign: string }>('/sessions', { public_key: toHex(signer.publicKey) });
  const bytes = fromBase64(begun.to_sign);
  if (!isLogonBytes(bytes, signer.publicKey, fromHex(store.version.value!.deployment_id))) throw new Error('the server asks for a signature over something else than a logon');
  api.token = (await api.post<{ token: string }>(`/sessions/${begun.session_id}`, { signature: toHex(await signer.sign(bytes)) })).token;
}

/** Orders of earlier days, by REST; what the page has seen itself is there without it. */
export async function loadHistory(): Promise<void> {
  try {
    await authorise();
    takeHistory((await api.get<{ orders: Order[] }>('/orders/history?limit=500')).orders);
    takeFills((await api.get<{ fills: Fill[] }>('/fills?limit=200')).fills);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}

/** A session of this key, instead of the one before. */
export function start(signer: Signer): void {
  trading?.stop();
  trading = new Trading(`${socketBase}/ws/session`, signer, fromHex(store.version.value!.deployment_id), {
    state: (state, reason) => {
      store.tradingState.value = state;
      store.tradingReason.value = reason ? REASON_DESCRIPTIONS[reason] : null;
    },
    established: (ack) => {
      const shard = ack.shards.find((one) => isAccount(one.accountId));
      store.accountId.value = shard ? shard.accountId : null;
      void logonToFeed();
      if (shard && !links.isPrivate) requestBalances();
    },
    report: onReport,
    unanswered: (count) => (store.unanswered.value = count),
    notApplied: onNotApplied,
    answer: (message) => {
      if (message.message !== 'Balances' || links.isPrivate) return;
      takeBalances(
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

export function stop(): void {
  trading?.stop();
  trading = null;
}

/** What the feed says about the own account. */
export function onPrivate(message: FeedMessage): void {
  const replace = message.type === 'snapshot';
  if (message.channel === 'orders') takeOrders(message.orders as Order[], replace, message.truncated === true);
  else if (message.channel === 'fills') takeFills(message.fills as Fill[]);
  else takeBalances(message.balances as Balance[], replace);
  drawSoon();
}

function takeBalances(balances: readonly Balance[], replace: boolean): void {
  const all = new Map(replace ? [] : store.balances.value.map((one) => [one.asset_id, one]));
  for (const one of balances) all.set(one.asset_id, one);
  store.balances.value = [...all.values()].sort((left, right) => left.asset_id - right.asset_id);
}

/** Play money of assets that the account of a demo has never had. */
export async function askForPlayMoney(): Promise<void> {
  try {
    await api.post('/demo/account', { public_key: toHex(store.signer.value!.publicKey) });
    store.notify('good', 'Play money arrived');
    if (!links.isPrivate) requestBalances();
  } catch (error) {
    store.notify('bad', 'There is no play money', error instanceof Error ? error.message : String(error));
  }
}

function requestBalances(): void {
  const shard = store.market.value?.info.shard ?? 0;
  trading?.request({ message: 'BalancesRequest', requestId: 1n, shard });
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
  const entered = store.openOrders.value.get(orderKey({ market: market.symbol, order_id: String(report.orderId) })) ?? asked.get(String(report.clientOrderId));
  const command = pending?.prepared.commands[report.commandIndex];
  const known = report.execType === 'replaced' && command?.kind === 'amend' ? { ...entered, ...amendedTerms(command, market, entered) } : entered;
  const order = orderOfReport(report, market, known);
  const what = `${report.side} ${market.sizeText(report.qtyLots)} ${market.info.base} ${known?.type === 'market' ? 'at market, worst price' : 'at'} ${grouped(market.priceText(report.priceTicks))}`;
  const tell = (kind: store.Notice['kind'], text: string, detail: string) => store.notify(kind, text, detail, `order ${market.symbol} ${report.orderId}`);
  switch (report.execType) {
    case 'new':
      tell('info', 'Order accepted', what + took);
      break;
    case 'replaced':
      tell('info', 'Order amended', what + took);
      break;
    case 'trade': {
      takeFills([fillOfReport(report, market)]);
      const own = store.fills.value.filter((fill) => fill.order_id === String(report.orderId) && fill.market === market.symbol);
      const mean = meanTicks(own.map((fill) => [market.ticksOf(fill.price), market.lotsOf(fill.qty)]));
      const done = report.leavesLots === 0n ? 'Order filled' : 'Partly filled';
      tell('good', done, `${report.side} ${market.sizeText(report.cumQtyLots)} ${market.info.base} at ${grouped(market.priceText(mean))}${own.length > 1 ? `, mean of ${own.length} fills` : ''}`);
      break;
    }
    case 'triggered':
      // What comes of it must not hide that it was.
      store.notify('info', 'Order triggered', what);
      break;
    case 'expired':
      tell('info', 'Order expired', what);
      break;
    case 'cancelled':
    case 'selfTradePrevented':
      tell('info', report.leavesLots ? 'Order lowered' : 'Order cancelled', `${what} · ${REASON_DESCRIPTIONS[report.reason]}${took}`);
  }
  if (order) takeOrders([order], false);
  if (!links.isPrivate) requestBalances();
  drawSoon();
}

function onNotApplied(message: NotApplied): void {
  store.notify('bad', 'Not applied', REASON_DESCRIPTIONS[message.reason]);
}
