// The ladder and the tape. Preact makes the tables; rows are the frame loop's.

import { useEffect, useRef } from 'preact/hooks';
import { Ladder } from '../draw/ladder';
import { addDrawer, drawSoon } from '../draw/loop';
import { Cell, Mark } from '../draw/patch';
import { Tape } from '../draw/tape';
import { fillForm } from '../state/controller';
import { live } from '../state/live';
import { bookState, grouping, market, middleView, notify } from '../state/store';
import { Segments } from './bits';

const GROUPS = [1, 2, 5, 10, 50, 100, 500, 1000];
const STATE_TEXT = {
  loading: 'Loading the book…',
  synced: '',
  gap: 'A message was missed: synchronising…',
  checksum: 'The checksum does not fit: synchronising…',
  crossed: 'The book contradicts itself: synchronising…',
  offline: 'Not connected: reconnecting…',
};

let shownLadder: Ladder | null = null;

/** Stops and restarts the ladder, for reading; says which. */
export function toggleFreeze(): void {
  if (!shownLadder) return;
  shownLadder.frozen = !shownLadder.frozen;
  notify('info', shownLadder.frozen ? 'Ladder frozen' : 'Ladder live', 'F');
  drawSoon();
}

export function BookPanel() {
  return (
    <section class="panel book-panel" aria-label="Order book and trades" data-view={middleView.value}>
      <div class="panel-head">
        <Segments label="Order book or trades" class="tabs view-choice" value={middleView.value} choices={[['book', 'Order book'], ['trades', 'Trades']]} onChoose={(value) => (middleView.value = value)} />
        <span class="spacer" />
        {market.value && (
          <label class="grouping">
            <span class="unseen">Group prices by</span>
            <select value={grouping.value} onChange={(event) => {
              grouping.value = Number(event.currentTarget.value);
              drawSoon();
            }}>
              {GROUPS.map((step) => (
                <option key={step} value={step}>
                  {market.value!.priceText(BigInt(step))}
                </option>
              ))}
            </select>
          </label>
        )}
      </div>
      <LadderTable />
      <TapeTable />
    </section>
  );
}

function LadderTable() {
  const holder = useRef<HTMLDivElement>(null);
  const table = useRef<HTMLTableElement>(null);
  const seq = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    const find = (selector: string) => table.current!.querySelector<HTMLElement>(selector)!;
    const ladder = new Ladder(
      table.current!,
      { price: new Cell(find('.mid-price')), spread: new Cell(find('.spread')), arrow: new Mark(find('.mid-price'), 'data-side') },
      fillForm,
    );
    shownLadder = ladder;
    const badge = new Cell(seq.current!);
    const observer = new ResizeObserver(([entry]) => {
      ladder.fit(entry!.contentRect.height);
      drawSoon();
    });
    observer.observe(holder.current!);
    const remove = addDrawer(() => {
      ladder.draw();
      badge.text = live.book.verifiedSeq ? `verified to seq ${live.book.verifiedSeq}` : '';
    });
    return () => {
      shownLadder = null;
      observer.disconnect();
      remove();
    };
  }, []);
  const state = bookState.value;
  return (
    <div class="ladder" data-stale={state === 'synced' ? undefined : ''}>
      <div class="ladder-holder" ref={holder}>
        <table ref={table} class="rows" aria-label="Order book" aria-describedby="ladder-help">
          <thead>
            <tr>
              <th scope="col">Price</th>
              <th scope="col">Size</th>
              <th scope="col">Total</th>
            </tr>
          </thead>
          <tbody />
          <tbody>
            <tr class="middle">
              <td class="mid-price" />
              <td class="spread" colSpan={2} />
            </tr>
          </tbody>
          <tbody />
        </table>
      </div>
      <p class="stale-note" role="status">{STATE_TEXT[state]}</p>
      <p class="ladder-foot">
        <span class={state === 'synced' ? 'good' : ''} ref={seq} title="The checksum of the top ten levels was right up to this command of the exchange" />
        <span id="ladder-help" class="unseen">
          Arrow keys move, Enter copies the price to the order form.
        </span>
      </p>
    </div>
  );
}

function TapeTable() {
  const holder = useRef<HTMLDivElement>(null);
  const table = useRef<HTMLTableElement>(null);
  useEffect(() => {
    const tape = new Tape(table.current!);
    const observer = new ResizeObserver(([entry]) => {
      tape.fit(entry!.contentRect.height);
      drawSoon();
    });
    observer.observe(holder.current!);
    const remove = addDrawer(() => tape.draw());
    return () => {
      observer.disconnect();
      remove();
    };
  }, []);
  return (
    <div class="tape">
      <h2 class="tape-title">Trades</h2>
      <div class="tape-holder" ref={holder}>
        <table ref={table} class="rows" aria-label="Recent trades">
          <thead>
            <tr>
              <th scope="col">Price</th>
              <th scope="col">Size</th>
              <th scope="col">Time</th>
            </tr>
          </thead>
          <tbody />
        </table>
      </div>
    </div>
  );
}
