// The keyboard: every action has a key. Letters do nothing while somebody is typing.

import { grouped } from '../market/decimal';
import { EMPTY_DRAFT, hasLimit, triggerOf } from '../market/draft';
import { live } from '../state/live';
import { choose, shownTheme } from '../state/settings';
import { chartView, dialog, draft, notify, openOrders, pane, review, tab } from '../state/store';
import type { Tab } from '../state/store';
import { toggleFreeze } from './BookPanel';
import { advancedOpen, change, stepPrice } from './form';

export const SHORTCUTS: readonly (readonly [string, string])[] = [
  ['/', 'Change market'],
  ['B', 'Buy'],
  ['S', 'Sell'],
  ['L', 'Limit order'],
  ['M', 'Market order'],
  ['W', 'Stop order: waits for a price'],
  ['D', 'Advanced options of the order'],
  ['P', 'Go to the price'],
  ['Z', 'Go to the size'],
  ['↑ ↓', 'Price one tick up or down; with Shift ten'],
  ['Enter', 'Send the order'],
  ['Esc', 'Clear the form, close what is open'],
  ['Shift+X', 'Cancel all orders'],
  ['O', 'Order book: then arrows, Enter copies a price'],
  ['F', 'Freeze the order book'],
  ['Q', 'Read the best bid and ask aloud'],
  ['C', 'Price chart or depth'],
  ['1 … 7', 'Open orders, history, fills, balances, verification, activity, operations'],
  ['V', 'What was verified'],
  ['T', 'Dark or light'],
  ['A', 'Account and key'],
  ['?', 'This list'],
];

const TABS: readonly Tab[] = ['orders', 'history', 'fills', 'balances', 'verify', 'activity', 'operations'];

function focus(id: string): void {
  pane.value = 'trade';
  // The pane of a phone is shown after this turn.
  requestAnimationFrame(() => {
    const element = document.getElementById(id);
    element?.focus();
    if (element instanceof HTMLInputElement) element.select();
  });
}

function readBook(): void {
  const { market, book } = live;
  const [bid, ask] = [book.bids[0], book.asks[0]];
  if (market) notify('info', `${market.symbol}: bid ${bid ? grouped(bid.price) : 'none'}, ask ${ask ? grouped(ask.price) : 'none'}`);
}

const ACTIONS: Readonly<Record<string, () => void>> = {
  '/': () => (dialog.value = 'markets'),
  '?': () => (dialog.value = 'help'),
  b: () => {
    change({ side: 'buy' });
    focus('size');
  },
  s: () => {
    change({ side: 'sell' });
    focus('size');
  },
  l: () => {
    change({ type: 'limit' });
    focus('price');
  },
  m: () => {
    change({ type: 'market' });
    focus('size');
  },
  p: () => focus(hasLimit(draft.value) ? 'price' : triggerOf(draft.value) === 'none' ? 'protection' : draft.value.type === 'trailing_stop' ? 'trail' : 'trigger'),
  w: () => {
    change({ type: 'stop' });
    focus('trigger');
  },
  d: () => (advancedOpen.value = !advancedOpen.value),
  z: () => focus('size'),
  o: () => {
    pane.value = 'book';
    requestAnimationFrame(() => document.querySelector<HTMLElement>('.ladder tr.level[tabindex="0"]')?.focus());
  },
  f: toggleFreeze,
  q: readBook,
  c: () => (chartView.value = chartView.value === 'candles' ? 'depth' : 'candles'),
  t: () => choose({ theme: shownTheme() === 'dark' ? 'light' : 'dark' }),
  a: () => (dialog.value = 'account'),
  v: () => {
    tab.value = 'verify';
    pane.value = 'verify';
  },
  X: () => {
    if (openOrders.value.size) dialog.value = 'cancel-all';
  },
};

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.matches('input, select, textarea') || target.isContentEditable);
}

export function listenForKeys(): void {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.value || review.value) return;
    if (event.key === 'Escape') {
      if (isTyping(event.target)) (event.target as HTMLElement).blur();
      else draft.value = { ...EMPTY_DRAFT, side: draft.value.side };
      return;
    }
    if (isTyping(event.target) || event.defaultPrevented) return;
    if ((event.key === 'ArrowUp' || event.key === 'ArrowDown') && document.activeElement === document.body) {
      stepPrice((event.key === 'ArrowUp' ? 1n : -1n) * (event.shiftKey ? 10n : 1n));
      event.preventDefault();
      return;
    }
    const chosen = TABS[Number(event.key) - 1];
    const action = chosen ? () => (tab.value = chosen) : ACTIONS[event.shiftKey ? event.key : event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
