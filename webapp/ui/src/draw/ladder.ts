// The ladder: a fixed pool of table rows, asks above, the spread in the middle, bids below, so that nothing jumps. Rows are
// made once for the height of the panel; what changes are text nodes and the transforms of the depth bars.

import { grouped } from '../market/decimal';
import { groupLevels } from '../market/book';
import { QueueEstimate } from '../market/queue';
import type { Grouped } from '../market/book';
import { orderKey } from '../net/api';
import { live } from '../state/live';
import { grouping, openOrders, phase } from '../state/store';
import { Bar, Cell, Mark, create } from './patch';

export const ROW_PX = 20;
const MIDDLE_PX = 34;
const HEAD_PX = 24;
const MAX_ROWS = 60;

class Row {
  readonly element = create('tr', 'level');
  readonly #price: Cell;
  readonly #size: Cell;
  readonly #total: Cell;
  readonly #bar: Bar;
  readonly #own: Mark;
  readonly #title: Mark;
  readonly #hidden: Mark;
  priceText = '';
  totalText = '';

  constructor(readonly side: 'buy' | 'sell') {
    this.element.dataset.side = side;
    const price = create('td', 'price');
    const bar = create('span', 'bar');
    bar.setAttribute('aria-hidden', 'true');
    price.append(bar);
    const size = create('td');
    const total = create('td', 'total');
    this.element.append(price, size, total);
    this.#price = new Cell(price);
    this.#size = new Cell(size);
    this.#total = new Cell(total);
    this.#bar = new Bar(bar);
    this.#own = new Mark(this.element, 'data-own');
    this.#title = new Mark(this.element, 'title');
    this.#hidden = new Mark(this.element, 'data-empty');
    this.element.tabIndex = -1;
  }

  clear(): void {
    this.priceText = '';
    this.totalText = '';
    this.#price.text = this.#size.text = this.#total.text = '';
    this.#bar.share = 0;
    this.#own.value = null;
    this.#title.value = null;
    this.#hidden.value = '';
  }

  show(price: string, size: string, total: string, share: number, own: string | null): void {
    this.priceText = price;
    this.totalText = total;
    this.#price.text = grouped(price);
    this.#size.text = size;
    this.#total.text = total;
    this.#bar.share = share;
    this.#own.value = own === null ? null : '';
    this.#title.value = own;
    this.#hidden.value = null;
  }
}

interface OwnAtLevel {
  lots: number;
  ahead: number;
}

export class Ladder {
  readonly #asks: Row[] = [];
  readonly #bids: Row[] = [];
  readonly #queue = new QueueEstimate();
  readonly #asksBody: HTMLTableSectionElement;
  readonly #bidsBody: HTMLTableSectionElement;
  #drawn = '';
  #rows = 0;
  frozen = false;

  constructor(
    readonly table: HTMLTableElement,
    readonly middle: { price: Cell; spread: Cell; arrow: Mark },
    readonly pick: (side: 'buy' | 'sell', price: string, total: string | null) => void,
  ) {
    [this.#asksBody, this.#bidsBody] = [table.tBodies[0]!, table.tBodies[2]!];
    table.addEventListener('click', (event) => {
      const row = this.#rowOf(event.target);
      if (row?.priceText) this.pick(row.side === 'sell' ? 'buy' : 'sell', row.priceText, event.shiftKey ? row.totalText : null);
    });
    table.addEventListener('keydown', (event) => this.#onKey(event));
  }

  #rowOf(target: EventTarget | null): Row | undefined {
    const element = target instanceof Element ? target.closest('tr') : null;
    return [...this.#asks, ...this.#bids].find((row) => row.element === element);
  }

  #onKey(event: KeyboardEvent): void {
    const shown = [...this.#asks].reverse().concat(this.#bids).filter((row) => row.priceText);
    const at = shown.findIndex((row) => row.element === document.activeElement);
    if (event.key === 'Enter') {
      const row = shown[at];
      if (!row) return;
      this.pick(row.side === 'sell' ? 'buy' : 'sell', row.priceText, event.shiftKey ? row.totalText : null);
      event.preventDefault();
      return;
    }
    const next = event.key === 'ArrowDown' ? at + 1 : event.key === 'ArrowUp' ? at - 1 : event.key === 'Home' ? 0 : event.key === 'End' ? shown.length - 1 : -1;
    const row = shown[next];
    if (!row || (event.key !== 'ArrowDown' && event.key !== 'ArrowUp' && event.key !== 'Home' && event.key !== 'End')) return;
    event.preventDefault();
    event.stopPropagation();
    row.element.focus();
  }

  /** Makes as many rows as fit; one row of each side can be tabbed to. */
  fit(heightPx: number): void {
    const rows = Math.max(3, Math.min(MAX_ROWS, Math.floor((heightPx - MIDDLE_PX - HEAD_PX) / 2 / ROW_PX)));
    // Rows share what is left over, so that the table always fills its panel.
    this.table.style.setProperty('--row', `${Math.max(ROW_PX, (heightPx - MIDDLE_PX - HEAD_PX - 1) / 2 / rows)}px`);
    if (rows === this.#rows) return;
    this.#rows = rows;
    for (const [pool, side] of [[this.#asks, 'sell'], [this.#bids, 'buy']] as const) {
      while (pool.length > rows) pool.pop();
      while (pool.length < rows) pool.push(new Row(side));
      pool.forEach((row, index) => (row.element.tabIndex = index === 0 ? 0 : -1));
    }
    this.#asksBody.replaceChildren(...[...this.#asks].reverse().map((row) => row.element));
    this.#bidsBody.replaceChildren(...this.#bids.map((row) => row.element));
    this.#drawn = '';
  }

  draw(): void {
    const { market, book, ticker } = live;
    if (!market || this.frozen) return;
    const orders = openOrders.peek();
    const state = `${market.symbol} ${book.version} ${grouping.peek()} ${live.tickerVersion} ${ordersVersion(orders)} ${phase.peek().indicative_price} ${phase.peek().indicative_qty}`;
    if (state === this.#drawn) return;
    this.#drawn = state;
    const step = grouping.peek();
    const asks = groupLevels(book.asks, step, true, this.#rows);
    const bids = groupLevels(book.bids, step, false, this.#rows);
    const most = Math.max(asks.at(-1)?.total ?? 0, bids.at(-1)?.total ?? 0, 1);
    const own = this.#own(step);
    this.#side(this.#asks, asks, most, own.sell);
    this.#side(this.#bids, bids, most, own.buy);
    this.#drawMiddle(ticker?.last ?? null);
  }

  #drawMiddle(last: string | null): void {
    const { market, book, tape } = live;
    const [bid, ask] = [book.bids[0], book.asks[0]];
    const shown = tape[0]?.price ?? last;
    this.middle.price.text = shown ? grouped(market!.priceText(market!.ticksOf(shown))) : '–';
    this.middle.arrow.value = tape[0]?.side || null;
    const { indicative_price: indicated, indicative_qty: qty } = phase.peek();
    if (indicated) {
      this.middle.price.text = grouped(market!.priceText(market!.ticksOf(indicated)));
      this.middle.arrow.value = null;
      this.middle.spread.text = `auction: ${qty} ${market!.info.base}`;
    } else if (!bid || !ask) this.middle.spread.text = 'one side is empty';
    else {
      const spread = Math.max(0, ask.ticks - bid.ticks);
      const bps = (spread / ((ask.ticks + bid.ticks) / 2)) * 10_000;
      this.middle.spread.text = `${market!.priceText(BigInt(spread))} · ${bps < 10 ? bps.toFixed(2) : bps.toFixed(0)} bps`;
    }
  }

  #side(pool: readonly Row[], levels: readonly Grouped[], most: number, own: ReadonlyMap<number, OwnAtLevel>): void {
    const market = live.market!;
    for (let index = 0; index < pool.length; index++) {
      const row = pool[index]!;
      const level = levels[index];
      if (!level) {
        row.clear();
        continue;
      }
      const mine = own.get(level.ticks);
      row.show(
        market.priceText(BigInt(level.ticks)), market.sizeText(BigInt(level.lots)), market.sizeText(BigInt(level.total)), level.total / most,
        mine ? `Your ${market.sizeText(BigInt(mine.lots))} ${market.info.base}, about ${market.sizeText(BigInt(mine.ahead))} ahead of it` : null,
      );
    }
  }

  /** Own quantity by grouped price, with the estimate of what is in front of it. */
  #own(step: number): { buy: Map<number, OwnAtLevel>; sell: Map<number, OwnAtLevel> } {
    const found = { buy: new Map<number, OwnAtLevel>(), sell: new Map<number, OwnAtLevel>() };
    const { market, book } = live;
    const orders = openOrders.peek();
    for (const order of orders.values()) {
      if (order.market !== market!.symbol || order.trigger || order.hidden) continue;
      const ticks = Number(market!.ticksOf(order.price));
      const open = Number(market!.lotsOf(order.leaves_qty));
      const lots = order.display_qty ? Math.min(open, Number(market!.lotsOf(order.display_qty))) : open;
      const level = (order.side === 'buy' ? book.bids : book.asks).find((one) => one.ticks === ticks);
      const ahead = this.#queue.estimate(orderKey(order), ticks, lots, level?.lots ?? lots);
      const at = order.side === 'buy' ? Math.floor(ticks / step) * step : Math.ceil(ticks / step) * step;
      const known = found[order.side].get(at);
      if (known) {
        known.lots += lots;
        known.ahead = Math.max(known.ahead, ahead);
      } else found[order.side].set(at, { lots, ahead });
    }
    this.#queue.keep(new Set(orders.keys()));
    return found;
  }
}

let versionOf: ReadonlyMap<string, unknown> | null = null;
let versionNumber = 0;

function ordersVersion(orders: ReadonlyMap<string, unknown>): number {
  if (orders !== versionOf) {
    versionOf = orders;
    versionNumber += 1;
  }
  return versionNumber;
}
