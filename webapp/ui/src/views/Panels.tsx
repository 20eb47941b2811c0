// The tabs below: own orders, history, fills, balances, and what the page has verified.

import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { grouped } from '../market/decimal';
import type { Balance, Fill, Order } from '../net/api';
import { amendOrder, cancelOrder } from '../state/controller';
import { accountId, activity, balances, dialog, fills, lifeOf, openOrders, pastOrders, symbol, tab, timeText, verification } from '../state/store';
import type { Notice, Tab } from '../state/store';
import { SideMark, Table, csv, download } from './bits';
import { Operations } from './Operations';
import { VerifyPanel } from './VerifyPanel';

const TABS: readonly (readonly [Tab, string])[] = [
  ['orders', 'Open orders'],
  ['history', 'Order history'],
  ['fills', 'Fills'],
  ['balances', 'Balances'],
  ['verify', 'Verification'],
  ['activity', 'Activity'],
  ['operations', 'Operations'],
];

const onlyThisMarket = signal(false);
const inView = <Row extends { market: string }>(rows: readonly Row[]): readonly Row[] => (onlyThisMarket.value ? rows.filter((row) => row.market === symbol.value) : rows);

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

function Life(props: { row: { record_no: string; market: string }; traded: boolean }) {
  const { stage, text } = lifeOf(props.row, props.traded);
  return (
    <span class="life" data-stage={stage} title="Accepted durably, matched, covered by a checkpoint that this page verified">
      <span aria-hidden="true" class="steps">
        <i />
        <i />
        <i />
      </span>
      <span class="life-text">{text}</span>
    </span>
  );
}

const wasFilled = (order: Order): boolean => /[1-9]/.test(order.cum_qty);
const noAccount = (text: string): string => (accountId.value === null ? 'Open an account to trade.' : text);

interface Edit {
  id: string;
  price: string;
  size: string;
  problem: string | null;
}
const editing = signal<Edit | null>(null);

function saveEdit(order: Order): void {
  const edit = editing.value;
  if (!edit) return;
  const problem = amendOrder(order, edit.price, edit.size);
  editing.value = problem ? { ...edit, problem } : null;
}

function selectOnce(element: HTMLInputElement | null): void {
  if (!element || element.dataset.seen) return;
  element.dataset.seen = '1';
  element.select();
}

function EditCell(props: { order: Order; name: 'price' | 'size' }) {
  const edit = editing.value!;
  return (
    <input
      class="inline"
      inputMode="decimal"
      aria-label={`New ${props.name} of order ${props.order.order_id}`}
      value={edit[props.name]}
      ref={props.name === 'price' ? selectOnce : undefined}
      onInput={(event) => (editing.value = { ...edit, [props.name]: event.currentTarget.value, problem: null })}
      onKeyDown={(event) => {
        if (event.key === 'Enter') saveEdit(props.order);
        if (event.key === 'Escape') editing.value = null;
      }}
    />
  );
}

function OpenOrders() {
  const rows = [...inView([...openOrders.value.values()])].reverse();
  const isEdited = (order: Order) => editing.value?.id === order.order_id;
  return (
    <>
      {editing.value?.problem && (
        <p class="problem" role="alert">
          {editing.value.problem}
        </p>
      )}
      <Table<Order>
        caption="Open orders"
        rows={rows}
        rowKey={(order) => order.order_id}
        empty={noAccount('No open orders.')}
        columns={[
          { name: 'Time', minor: true, cell: (order) => timeText.value(order.time) },
          { name: 'Market', minor: true, cell: (order) => order.market },
          { name: 'Side', cell: (order) => <SideMark side={order.side} /> },
          { name: 'Type', minor: true, cell: (order) => `${order.type ?? 'limit'}${order.post_only ? ' · post-only' : ''}` },
          { name: 'Price', number: true, cell: (order) => (isEdited(order) ? <EditCell order={order} name="price" /> : grouped(order.price)) },
          { name: 'Size', number: true, cell: (order) => (isEdited(order) ? <EditCell order={order} name="size" /> : order.qty) },
          { name: 'Filled', number: true, minor: true, cell: (order) => order.cum_qty },
          { name: 'Status', cell: (order) => <Life row={order} traded={wasFilled(order)} /> },
          {
            name: 'Actions',
            number: true,
            cell: (order) =>
              isEdited(order) ? (
                <span class="actions">
                  <button type="button" class="small" onClick={() => saveEdit(order)}>
                    Save
                  </button>
                  <button type="button" class="small" onClick={() => (editing.value = null)}>
                    Keep
                  </button>
                </span>
              ) : (
                <span class="actions">
                  <button
                    type="button"
                    class="small"
                    aria-label={`Amend order ${order.order_id}`}
                    onClick={() => (editing.value = { id: order.order_id, price: order.price, size: order.qty, problem: null })}
                  >
                    Amend
                  </button>
                  <button type="button" class="small" aria-label={`Cancel order ${order.order_id}`} onClick={() => cancelOrder(order)}>
                    Cancel
                  </button>
                </span>
              ),
          },
        ]}
      />
    </>
  );
}

function OrderHistory() {
  return (
    <Table<Order>
      caption="Order history"
      rows={inView(pastOrders.value)}
      rowKey={(order) => `${order.market} ${order.order_id}`}
      empty={noAccount('No orders yet.')}
      columns={[
        { name: 'Time', minor: true, cell: (order) => timeText.value(order.time, true) },
        { name: 'Market', minor: true, cell: (order) => order.market },
        { name: 'Side', cell: (order) => <SideMark side={order.side} /> },
        { name: 'Type', minor: true, cell: (order) => order.type ?? '' },
        { name: 'Price', number: true, cell: (order) => grouped(order.price) },
        { name: 'Size', number: true, cell: (order) => order.qty },
        { name: 'Filled', number: true, minor: true, cell: (order) => order.cum_qty },
        { name: 'Outcome', cell: (order) => order.status.replace(/_/g, ' ') },
        { name: 'Proof', cell: (order) => <Life row={order} traded={wasFilled(order)} /> },
        { name: 'Order', number: true, minor: true, cell: (order) => order.order_id },
      ]}
    />
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

function saveHistory(): void {
  const head = ['time', 'market', 'side', 'type', 'time_in_force', 'price', 'qty', 'cum_qty', 'status', 'order_id', 'client_order_id', 'record_no'] as const;
  download('orders.csv', csv([head, ...inView(pastOrders.value).map((order) => head.map((name) => String(order[name] ?? '')))]), 'text/csv');
}
