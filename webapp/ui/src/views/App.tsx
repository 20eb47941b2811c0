// The page: what is where. Everything exists once; the style sheets place it for desktop, tablet and phone.

import { effect } from '@preact/signals';
import { dialog, pane, review, signer, tab, verification } from '../state/store';
import type { Pane } from '../state/store';
import { BookPanel } from './BookPanel';
import { ChartPanel } from './ChartPanel';
import { Header } from './Header';
import { lazy } from './lazy';
import { OrderForm } from './OrderForm';
import { Panels } from './Panels';
import { Banners, Toasts } from './Toasts';

const Dialogs = lazy(() => import('./Dialogs').then((one) => one.Dialogs));
// Whoever trades will have to confirm: the dialog must not wait for the network then.
effect(() => {
  if (signer.value) Dialogs.fetch();
});

const PANES: readonly (readonly [Pane, string])[] = [
  ['chart', 'Chart'],
  ['book', 'Book'],
  ['trade', 'Trade'],
  ['orders', 'Orders'],
  ['verify', 'Verify'],
];

/** Two of the panes of a phone are tabs of one panel. */
function show(value: Pane): void {
  pane.value = value;
  if (value === 'verify') tab.value = 'verify';
  else if (value === 'orders' && tab.value === 'verify') tab.value = 'orders';
}

export function App() {
  return (
    <div class="page" data-pane={pane.value}>
      <Header />
      <Banners />
      <main class="grid">
        <ChartPanel />
        <BookPanel />
        <OrderForm />
        <Panels />
        <Toasts />
      </main>
      <nav class="panes" aria-label="Parts of the page">
        {PANES.map(([value, text]) => (
          <button key={value} type="button" aria-pressed={pane.value === value} onClick={() => show(value)}>
            {text}
            {value === 'verify' && <span class={`dot ${verification.value.mismatch ? 'bad' : verification.value.checkpoint ? 'good' : ''}`} aria-hidden="true" />}
          </button>
        ))}
      </nav>
      {(dialog.value !== null || review.value !== null) && <Dialogs />}
    </div>
  );
}
