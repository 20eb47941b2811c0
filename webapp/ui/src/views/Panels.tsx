// The tabs below: own orders, history, fills, balances, and what the page has verified.

import type { ComponentChildren } from 'preact';
import { grouped } from '../market/decimal';
import type { Balance, Fill } from '../net/api';
import { activity, balances, dialog, fills, openOrders, pastOrders, symbol, tab, timeText, verification } from '../state/store';
import type { Notice, Tab } from '../state/store';
import { SideMark, Table, csv, download } from './bits';
import { lazy } from './lazy';
import { Life, OpenOrders, OrderHistory, inView, noAccount, onlyThisMarket, saveHistory } from './Orders';

const Operations = lazy(() => import('./Operations').then((one) => one.Operations));
const VerifyPanel = lazy(() => import('./VerifyPanel').then((one) => one.VerifyPanel));

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

const CONTENT: Record<Tab, () => ComponentChildren> = {
  orders: () => <OpenOrders />,
  history: () => <OrderHistory />,
  fills: () => <Fills />,
  balances: () => <Balances />,
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
      {rows > 0 && (
        <button type="button" class="small" onClick={name === 'fills' ? saveFills : saveHistory}>
          CSV
        </button>
      )}
    </>
  );
}

function Fills() {
  return (
    <Table<Fill>
      caption="Fills"
      rows={inView(fills.value)}
      rowKey={(fill) => `${fill.market} ${fill.trade_id} ${fill.liquidity}`}
      empty={noAccount('No fills yet.')}
      columns={[
        { name: 'Time', minor: true, cell: (fill) => timeText.value(fill.time, true) },
        { name: 'Market', minor: true, cell: (fill) => fill.market },
        { name: 'Side', cell: (fill) => <SideMark side={fill.side} /> },
        { name: 'Price', number: true, cell: (fill) => grouped(fill.price) },
        { name: 'Size', number: true, cell: (fill) => fill.qty },
        { name: 'Fee', number: true, minor: true, cell: (fill) => fill.fee },
        { name: 'Liquidity', minor: true, cell: (fill) => fill.liquidity },
        { name: 'Proof', cell: (fill) => <Life row={fill} traded /> },
        { name: 'Record', number: true, minor: true, cell: (fill) => fill.record_no },
      ]}
    />
  );
}

function Balances() {
  return (
    <Table<Balance>
      caption="Balances"
      rows={balances.value}
      rowKey={(balance) => String(balance.asset_id)}
      empty={noAccount('No balances yet.')}
      columns={[
        { name: 'Asset', cell: (balance) => balance.asset },
        { name: 'Total', number: true, cell: (balance) => grouped(balance.total) },
        { name: 'Held by orders', number: true, cell: (balance) => grouped(balance.held) },
        { name: 'Available', number: true, cell: (balance) => grouped(balance.available) },
      ]}
    />
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

function saveFills(): void {
  const head = ['time', 'market', 'side', 'price', 'qty', 'fee', 'liquidity', 'trade_id', 'order_id', 'record_no'] as const;
  download('fills.csv', csv([head, ...inView(fills.value).map((fill) => head.map((name) => String(fill[name])))]), 'text/csv');
}
