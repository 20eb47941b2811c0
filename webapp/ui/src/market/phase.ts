// The states of a market: what they are called, what they take, and why one refuses an order (docs/rules.md, section 8).

/** What the feed sends with a book; each but the state is empty where there is none. */
export interface Phase {
  readonly state: string;
  /** When the state ends by itself. */
  readonly until: string;
  /** The operator's. */
  readonly reference_price: string;
  /** What an auction would trade at now, and how much. */
  readonly indicative_price: string;
  readonly indicative_qty: string;
}

export const phaseOf = (state: string): Phase => ({ state, until: '', reference_price: '', indicative_price: '', indicative_qty: '' });

/** The phase after a message that holds only what changed. */
export function phaseAfter(phase: Phase, message: Partial<Phase>): Phase {
  const changed = (Object.keys(phase) as (keyof Phase)[]).filter((name) => message[name] !== undefined && message[name] !== phase[name]);
  return changed.length ? { ...phase, ...Object.fromEntries(changed.map((name) => [name, message[name]])) } : phase;
}

const NO_ORDERS = 'No orders and amends; cancels work.';
const COLLECTS = 'Takes limit orders that stay and are not post-only, and orders with a trigger.';

/** Name, how a sentence says that a market is so, and what it takes. */
const STATES: Readonly<Record<string, readonly [name: string, is: string, takes: string]>> = {
  continuous: ['continuous', 'continuous', 'Takes every order but those at the open. Orders trade as they come.'],
  pre_open: ['pre-open', 'in pre-open', `${COLLECTS} Nothing trades before the auction that follows.`],
  auction: ['auction', 'in an auction', `${COLLECTS} They trade at one price when it ends.`],
  closing_auction: ['closing auction', 'in its closing auction', `${COLLECTS} They trade at one price at the close.`],
  post_only: ['post-only', 'post-only', 'Takes orders that stay and do not trade at once.'],
  halted: ['halted', 'halted', NO_ORDERS],
  closed: ['closed', 'closed', 'No orders and amends but those at the open; cancels work.'],
  expired: ['over', 'over for good', NO_ORDERS],
  uncrossing: ['uncrossing', 'on its way to another state', NO_ORDERS],
};

export const stateName = (state: string): string => STATES[state]?.[0] ?? state;
export const stateIs = (state: string): string => STATES[state]?.[1] ?? state;
export const stateTakes = (state: string): string => STATES[state]?.[2] ?? '';

/** Whether orders are gathered that trade later, so that the book may be crossed. */
export const collects = (state: string): boolean => state === 'pre_open' || state === 'auction' || state === 'closing_auction' || state === 'uncrossing';
export const takesOrders = (state: string): boolean => state === 'continuous' || state === 'post_only' || (collects(state) && state !== 'uncrossing');

/** Whether the book may be crossed: what an auction gathered can lie there while the market is halted or closed. */
export const mayBeCrossed = (state: string): boolean => state !== '' && state !== 'continuous' && state !== 'post_only';

/** Whether an order would wait for its auction, out of the book, if the market takes it. */
export function awaitsAuction(state: string, tif: string): boolean {
  if (tif === 'atTheOpen' || tif === 'at_the_open') return state !== 'pre_open' && state !== 'auction';
  return (tif === 'atTheClose' || tif === 'at_the_close') && state !== 'closing_auction';
}

export interface Wish {
  readonly tif: string;
  readonly isMarket: boolean;
  readonly hasTrigger: boolean;
  readonly postOnly: boolean;
}

/** Why a market in this state would refuse such an order, by the field to change; null if it takes it. */
export function refusal(symbol: string, state: string, wish: Wish): { field: 'tif' | 'form'; text: string } | null {
  const name = stateIs(state);
  const isForOpen = wish.tif === 'atTheOpen' || wish.tif === 'at_the_open';
  if (isForOpen && state === 'closed') return null;
  if (!takesOrders(state)) return { field: 'form', text: `${symbol} is ${name}: only cancels${state === 'closed' ? ' and orders at the open' : ''} are accepted.` };
  const awaits = awaitsAuction(state, wish.tif);
  if (isForOpen && awaits) return { field: 'tif', text: `At the open is for a market that is closed, in pre-open or in an auction; ${symbol} is ${name}.` };
  if (awaits) return null;
  if (wish.hasTrigger || state === 'continuous') return null;
  if (wish.isMarket) return { field: 'form', text: `${symbol} is ${name}: no market orders, only orders that stay.` };
  if (wish.tif === 'ioc' || wish.tif === 'fok') return { field: 'tif', text: `${symbol} is ${name}: only orders that stay.` };
  if (wish.postOnly && collects(state)) return { field: 'tif', text: `${symbol} is ${name}: no post-only orders.` };
  return null;
}

/** Milliseconds as a clock counts them down: 1:05, 2:00:00. */
export function countdown(ms: number): string {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const two = (value: number) => String(value).padStart(2, '0');
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}
