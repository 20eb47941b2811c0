// The tabs below: what the account has and does, what the page has verified, and how the exchange is. Most are fetched
// when they are first shown.

import type { ComponentChildren, ComponentType } from 'preact';
import { effect } from '@preact/signals';
import { accountId, activity, dialog, fills, onlyThisMarket, openOrders, pastOrders, signer, symbol, tab, timeText, verification } from '../state/store';
import type { Notice, Tab } from '../state/store';
import { Table } from './bits';
import { lazy } from './lazy';

const own = () => import('./Own');
const OpenOrders = lazy(() => own().then((one) => one.OpenOrders));
const OrderHistory = lazy(() => own().then((one) => one.OrderHistory));
const Fills = lazy(() => own().then((one) => one.Fills));
const Balances = lazy(() => own().then((one) => one.Balances));
const ExportButton = lazy(() => own().then((one) => one.ExportButton));
const Operations = lazy(() => import('./Operations').then((one) => one.Operations));
const VerifyPanel = lazy(() => import('./VerifyPanel').then((one) => one.VerifyPanel));

// They are there before the account is known.
effect(() => {
  if (signer.value) for (const part of [OpenOrders, OrderHistory, Fills, Balances, ExportButton]) part.fetch();
});

const TABS: readonly (readonly [Tab, string])[] = [
  ['orders', 'Open orders'],
  ['history', 'Order history'],
  ['fills', 'Fills'],
  ['balances', 'Balances'],
  ['verify', 'Verification'],
  ['activity', 'Activity'],
  ['operations', 'Operations'],
];

export function Panels() {
  const shown = tab.value;
  const move = (event: KeyboardEvent) => {
    const step = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
    if (!step) return;
    const at = TABS.findIndex(([name]) => name === tab.value);
    tab.value = TABS[(at + step + TABS.length) % TABS.length]![0];
    document.getElementById(`tab-${tab.value}`)?.focus();
  };
  return (
    <section class="panel bottom-panel" aria-label="Account and verification">
      <div class="panel-head">
        <div class="segments tabs" role="tablist" aria-label="Account and verification" onKeyDown={move}>
          {TABS.map(([name, text]) => (
            <button
              key={name}
              id={`tab-${name}`}
              type="button"
              role="tab"
              data-value={name}
              aria-selected={shown === name}
              aria-controls="tab-panel"
              tabIndex={shown === name ? 0 : -1}
              onClick={() => (tab.value = name)}
            >
              {text}
              {name === 'orders' && openOrders.value.size > 0 && <span class="count">{openOrders.value.size}</span>}
              {name === 'verify' && verification.value.mismatch && <span class="count bad">!</span>}
            </button>
          ))}
        </div>
        <span class="spacer" />
        <TabActions />
      </div>
      <div class="tab-panel" id="tab-panel" tabIndex={0} role="tabpanel" aria-labelledby={`tab-${shown}`}>
        {CONTENT[shown]()}
      </div>
    </section>
  );
}

const ofAccount = (Part: ComponentType) => () => (accountId.value === null ? <p class="empty">Open an account to trade.</p> : <Part />);

const CONTENT: Record<Tab, () => ComponentChildren> = {
  orders: ofAccount(OpenOrders),
  history: ofAccount(OrderHistory),
  fills: ofAccount(Fills),
  balances: ofAccount(Balances),
  verify: () => <VerifyPanel />,
  activity: () => <Activity />,
  operations: () => <Operations />,
};

function TabActions() {
  const name = tab.value;
  const rows = name === 'history' ? pastOrders.value.length : name === 'fills' ? fills.value.length : 0;
  return (
    <>
      {(name === 'orders' || name === 'history' || name === 'fills') && (
        <label class="check small">
          <input type="checkbox" checked={onlyThisMarket.value} onChange={(event) => (onlyThisMarket.value = event.currentTarget.checked)} />
          <span>Only {symbol.value}</span>
        </label>
      )}
      {name === 'orders' && openOrders.value.size > 0 && (
        <button type="button" class="small" title="Shift+X" onClick={() => (dialog.value = 'cancel-all')}>
          Cancel all
        </button>
      )}
      {rows > 0 && <ExportButton />}
    </>
  );
}

function Activity() {
  return (
    <Table<Notice>
      caption="Activity"
      rows={activity.value}
      rowKey={(notice) => String(notice.id)}
      empty="What happens to your orders and to the connection is listed here."
      columns={[
        { name: 'Time', cell: (notice) => timeText.value(notice.time) },
        { name: 'What', cell: (notice) => <span class={`notice ${notice.kind}`}>{notice.text}</span> },
        { name: 'Detail', cell: (notice) => notice.detail },
      ]}
    />
  );
}
