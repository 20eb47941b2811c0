// The tape: the last trades in a fixed pool of rows. It stands still while the pointer rests on it.

import { grouped } from '../market/decimal';
import { live } from '../state/live';
import { timeText } from '../state/store';
import { Cell, Mark, create } from './patch';

const ROW_PX = 20;
const HEAD_PX = 24;
const MAX_ROWS = 60;
/** A trade this many times the median of the tape stands out. */
const LARGE = 4;

class Row {
  readonly element = create('tr');
  readonly #price: Cell;
  readonly #size: Cell;
  readonly #time: Cell;
  readonly #side: Mark;
  readonly #large: Mark;

  constructor() {
    const price = create('td', 'price');
    const size = create('td');
    const time = create('td', 'time');
    this.element.append(price, size, time);
    this.#price = new Cell(price);
    this.#size = new Cell(size);
    this.#time = new Cell(time);
    this.#side = new Mark(this.element, 'data-side');
    this.#large = new Mark(this.element, 'data-large');
  }

  show(price: string, size: string, time: string, side: 'buy' | 'sell' | '' | null, large: boolean): void {
    this.#price.text = price && `${side === 'buy' ? '▲' : side ? '▼' : '●'} ${price}`;
    this.#size.text = size;
    this.#time.text = time;
    this.#side.value = side || null;
    this.#large.value = large ? '' : null;
  }
}

export class Tape {
  #rows: Row[] = [];
  #drawn = -1;
  #paused = false;

  constructor(readonly table: HTMLTableElement) {
    table.addEventListener('pointerenter', () => (this.#paused = true));
    table.addEventListener('pointerleave', () => {
      this.#paused = false;
      this.#drawn = -1;
    });
  }

  fit(heightPx: number): void {
    const rows = Math.max(3, Math.min(MAX_ROWS, Math.floor((heightPx - HEAD_PX) / ROW_PX)));
    if (rows === this.#rows.length) return;
    this.#rows = Array.from({ length: rows }, () => new Row());
    this.table.tBodies[0]!.replaceChildren(...this.#rows.map((row) => row.element));
    this.#drawn = -1;
  }

  draw(): void {
    const { market, tape } = live;
    if (!market || this.#paused || this.#drawn === live.tapeVersion) return;
    this.#drawn = live.tapeVersion;
    const sizes = tape.map((trade) => Number(trade.qty)).sort((left, right) => left - right);
    const large = (sizes[sizes.length >> 1] ?? 0) * LARGE;
    this.#rows.forEach((row, index) => {
      const trade = tape[index];
      if (!trade) row.show('', '', '', null, false);
      else
        row.show(
          grouped(market.priceText(market.ticksOf(trade.price))), market.sizeText(market.lotsOf(trade.qty)), timeText.peek()(trade.time), trade.side,
          Number(trade.qty) >= large,
        );
    });
  }
}
