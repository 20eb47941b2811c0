// What the account has: orders that are open, each amended and cancelled in its row, those that are gone, with how they
// ended, fills and balances.

import { signal } from '@preact/signals';
import { grouped } from '../market/decimal';
import { orderKey } from '../net/api';
import type { Balance, Fill, Order } from '../net/api';
import { editOf, mayAmend } from '../state/amend';
import type { AmendField, Edit } from '../state/amend';
import { amendOrder, askForPlayMoney, assessEdit, cancelOrder } from '../state/entry';
import { allFills, allPastOrders, exported } from '../state/export';
import { pastKey } from '../state/orders';
import { fineTerms, kindOf, outcomeOf, trailText, whyOf } from '../state/terms';
import { settings } from '../state/settings';
import { assets, balances, fills, lifeOf, notify, onlyThisMarket, openOrders, ordersTruncated, pastOrders, symbol, tab, timeText, version } from '../state/store';
import { SideMark, Table, csv, download } from './bits';
import type { Column } from './bits';

const inView = <Row extends { market: string }>(rows: readonly Row[]): readonly Row[] => (onlyThisMarket.value ? rows.filter((row) => row.market === symbol.value) : rows);

function Life(props: { row: { record_no: string; market: string }; traded: boolean; tight?: boolean }) {
  const { stage, text } = lifeOf(props.row, props.traded);
  return (
    <span class="life" data-stage={stage} title={`${text}: accepted durably, matched, covered by a checkpoint that this page verified`}>
      <span aria-hidden="true" class="steps">
        <i />
        <i />
        <i />
      </span>
      <span class={props.tight ? 'unseen' : 'life-text'}>{text}</span>
    </span>
  );
}

const wasFilled = (order: Order): boolean => /[1-9]/.test(order.cum_qty);
const editing = signal<Edit | null>(null);
const isEdited = (order: Order): boolean => editing.value?.id === orderKey(order);

function saveEdit(order: Order): void {
  const edit = editing.value;
  if (!edit) return;
  const problem = amendOrder(order, edit);
  editing.value = problem ? { ...edit, problem } : null;
}

function selectOnce(element: HTMLInputElement | null): void {
  if (!element || element.dataset.seen) return;
  element.dataset.seen = '1';
  element.select();
}

const NAMES: Readonly<Record<AmendField, string>> = { price: 'price', size: 'size', trigger: 'trigger', display: 'shown size', expiry: 'end' };

function EditCell(props: { order: Order; field: AmendField; text: string }) {
  const edit = editing.value;
  const { order, field } = props;
  if (!edit || !isEdited(order) || !mayAmend(order, field)) return <>{props.text}</>;
  const input = (
    <input
      class={`inline ${field}`}
      {...(field === 'expiry' ? { type: 'datetime-local', step: 1 } : { inputMode: 'decimal' as const })}
      aria-label={`New ${NAMES[field]} of order ${order.order_id}`}
      value={edit[field]}
      ref={field === 'price' ? selectOnce : undefined}
      onInput={(event) => (editing.value = { ...edit, [field]: event.currentTarget.value, problem: null })}
      onKeyDown={(event) => {
        if (event.key === 'Enter') saveEdit(order);
        if (event.key === 'Escape') editing.value = null;
      }}
    />
  );
  return field === 'trigger' && order.trail_ppm ? <span class="with-unit">{input} %</span> : input;
}

const SIGNS: Readonly<Record<string, readonly [rises: string, falls: string]>> = { stop: ['≥', '≤'], take_profit: ['≤', '≥'], trailing: ['≥', '≤'] };

/** What a waiting order waits for. */
function triggerText(order: Order): string {
  const sign = SIGNS[order.trigger ?? '']?.[order.side === 'buy' ? 0 : 1];
  if (!sign) return '';
  const at = order.trigger_price ? `${sign} ${grouped(order.trigger_price)}` : '';
  const trail = order.trigger === 'trailing' ? `trails ${trailText(order)}${order.trail_ppm ? ' %' : ''}`.trim() : '';
  // In two lines where there is no room for one, and no more.
  return [at, trail].filter(Boolean).map((text) => text.replace(/ /g, '\u00a0')).join(', ');
}

const expiryText = (order: Order): string => (order.expire_time ? timeText.value(order.expire_time, true) : order.time_in_force === 'day' ? 'midnight UTC' : '');

/** What kind of order it is; what else it has is said where one points. */
function Kind(props: { order: Order }) {
  const more = fineTerms(props.order);
  return more ? <span class="more" title={more}>{kindOf(props.order)}<span class="unseen"> ({more})</span></span> : <>{kindOf(props.order)}</>;
}

/** What comes of the edit, or what is wrong with it. */
function EditNote(props: { edit: Edit; order: Order }) {
  if (props.edit.problem)
    return (
      <p class="problem edit-note" role="alert">
        {props.edit.problem}
      </p>
    );
  const found = assessEdit(props.order, props.edit);
  const queue = 'problem' in found || props.order.trigger ? '' : found.keepsPlace ? 'It keeps its place in the queue.' : 'It goes to the back of the queue, or trades at once if the price allows.';
  return <p class="edit-note">{queue || 'The size counts what is filled. Enter saves, Esc keeps the order as it is.'}</p>;
}

export function OpenOrders() {
  const rows = [...inView([...openOrders.value.values()])].reverse();
  const edited = rows.find(isEdited);
  /** A column only while some order has it, or may get it now. */
  const special = (name: string, field: AmendField, text: (order: Order) => string): Column<Order>[] =>
    rows.some(text) || (edited && mayAmend(edited, field))
      ? [{ name, number: true, wraps: true, minor: !edited && field !== 'trigger', cell: (order) => <EditCell order={order} field={field} text={text(order)} /> }]
      : [];
  const specials = [
    special('Trigger', 'trigger', triggerText),
    special('Shown', 'display', (order) => (order.hidden ? 'hidden' : (order.display_qty ?? ''))),
    special(settings.value.clock === 'utc' ? 'Ends, UTC' : 'Ends', 'expiry', expiryText),
  ] as const;
  const isTight = specials.some((columns) => columns.length > 0);
  /** A column that gives way to those that fewer orders have, unless it is of use now. */
  const optional = (column: Column<Order>, useful: boolean): Column<Order>[] => (isTight && !useful ? [] : [column]);
  return (
    <>
      {ordersTruncated.value && (
        <p class="edit-note" role="status">
          There are more open orders than are listed here. The oldest are shown, and those that change; the API lists all.
        </p>
      )}
      {edited && <EditNote edit={editing.value!} order={edited} />}
      <Table<Order>
        caption="Open orders"
        rows={rows}
        rowKey={orderKey}
        empty="No open orders."
        columns={[
          ...optional({ name: 'Time', minor: true, cell: (order) => timeText.value(order.time) }, false),
          ...optional({ name: 'Market', minor: true, cell: (order) => order.market }, rows.some((order) => order.market !== symbol.value)),
          { name: 'Side', cell: (order) => <SideMark side={order.side} /> },
          { name: 'Type', minor: true, cell: (order) => <Kind order={order} /> },
          ...specials[0],
          { name: 'Price', number: true, cell: (order) => <EditCell order={order} field="price" text={grouped(order.price)} /> },
          { name: 'Size', number: true, cell: (order) => <EditCell order={order} field="size" text={order.qty} /> },
          ...specials[1],
          ...optional({ name: 'Filled', number: true, minor: true, cell: (order) => order.cum_qty }, rows.some(wasFilled)),
          ...specials[2],
          { name: 'Status', cell: (order) => <Life row={order} traded={wasFilled(order)} tight={isTight} /> },
          { name: 'Actions', number: true, stays: true, cell: (order) => <Actions order={order} /> },
        ]}
      />
    </>
  );
}

function Actions(props: { order: Order }) {
  const { order } = props;
  if (isEdited(order))
    return (
      <span class="actions">
        <button type="button" class="small save" aria-label={`Save order ${order.order_id}`} onClick={() => saveEdit(order)}>
          Save
        </button>
        <button type="button" class="small keep" aria-label={`Keep order ${order.order_id} as it is`} onClick={() => (editing.value = null)}>
          Keep
        </button>
      </span>
    );
  return (
    <span class="actions">
      <button type="button" class="small amend" aria-label={`Amend order ${order.order_id}`} onClick={() => (editing.value = editOf(order, settings.value.clock === 'utc'))}>
        Amend
      </button>
      <button type="button" class="small cancel" aria-label={`Cancel order ${order.order_id}`} onClick={() => cancelOrder(order)}>
        Cancel
      </button>
    </span>
  );
}

export function OrderHistory() {
  return (
    <Table<Order>
      caption="Order history"
      rows={inView(pastOrders.value)}
      rowKey={pastKey}
      empty="No orders yet."
      columns={[
        { name: 'Time', minor: true, cell: (order) => timeText.value(order.time, true) },
        { name: 'Market', minor: true, cell: (order) => order.market },
        { name: 'Side', cell: (order) => <SideMark side={order.side} /> },
        { name: 'Type', minor: true, cell: (order) => order.type && <Kind order={order} /> },
        { name: 'Price', number: true, cell: (order) => grouped(order.price) },
        { name: 'Size', number: true, cell: (order) => order.qty },
        { name: 'Filled', number: true, minor: true, cell: (order) => order.cum_qty },
        {
          name: 'Outcome',
          cell: (order) => (
            <span class={order.status === 'rejected' ? 'bad' : ''} title={whyOf(order)}>
              {outcomeOf(order)}
              {order.status === 'rejected' && <small class="why"> {whyOf(order)}</small>}
            </span>
          ),
        },
        { name: 'Proof', cell: (order) => <Life row={order} traded={wasFilled(order)} /> },
        { name: 'Order', number: true, minor: true, cell: (order) => (order.order_id === '0' ? '–' : order.order_id) },
      ]}
    />
  );
}

export function Fills() {
  return (
    <Table<Fill>
      caption="Fills"
      rows={inView(fills.value)}
      rowKey={(fill) => `${fill.market} ${fill.trade_id} ${fill.liquidity}`}
      empty="No fills yet."
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

export function Balances() {
  const missing = version.value?.demo ? assets.value.filter((asset) => !balances.value.some((one) => one.asset_id === asset.asset_id)) : [];
  return (
    <>
      <Table<Balance>
        caption="Balances"
        rows={balances.value}
        rowKey={(balance) => String(balance.asset_id)}
        empty="No balances yet."
        columns={[
          { name: 'Asset', cell: (balance) => balance.asset },
          { name: 'Total', number: true, cell: (balance) => grouped(balance.total) },
          { name: 'Held by orders', number: true, cell: (balance) => grouped(balance.held) },
          { name: 'Available', number: true, cell: (balance) => grouped(balance.available) },
        ]}
      />
      {missing.length > 0 && (
        <p class="empty">
          None yet of {missing.map((asset) => asset.symbol).join(', ')}.{' '}
          <button type="button" class="small" onClick={() => void askForPlayMoney()}>
            Get play money
          </button>
        </p>
      )}
    </>
  );
}

const COLUMNS = [
  'time', 'market', 'side', 'type', 'time_in_force', 'price', 'qty', 'cum_qty', 'trigger', 'trigger_price', 'trail', 'trail_ppm', 'on_reference', 'display_qty', 'min_qty', 'max_notional',
  'expire_time', 'hidden', 'post_only', 'slide', 'self_trade_prevention', 'paired', 'status', 'reason', 'order_id', 'client_order_id', 'record_no',
] as const;

const FILL_COLUMNS = ['time', 'market', 'side', 'price', 'qty', 'fee', 'liquidity', 'trade_id', 'order_id', 'client_order_id', 'record_no'] as const;

/** Asks for all rows and offers them as a file. */
async function save<Row extends { market: string }>(name: string, columns: readonly (keyof Row & string)[], all: () => Promise<readonly Row[]>): Promise<void> {
  if (exported.value !== null) return;
  try {
    const rows = inView(await all());
    download(name, csv([columns, ...rows.map((row) => columns.map((column) => String(row[column] ?? '')))]), 'text/csv');
    notify('good', `${name} saved`, `${grouped(String(rows.length))} rows`);
  } catch (error) {
    notify('bad', `${name} could not be made`, error instanceof Error ? error.message : String(error));
  }
}

/** CSV of everything that the exchange still tells; says how far it has come. */
export function ExportButton() {
  const rows = exported.value;
  const saves = tab.value === 'fills' ? () => save<Fill>('fills.csv', FILL_COLUMNS, allFills) : () => save<Order>('orders.csv', COLUMNS, allPastOrders);
  return (
    <button type="button" class="small" aria-disabled={rows !== null} title="All of them, not only those that are listed" onClick={() => void saves()}>
      {rows === null ? 'CSV' : `CSV… ${grouped(String(rows))}`}
    </button>
  );
}
