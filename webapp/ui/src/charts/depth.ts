// The depth view: what is on the book up to each price, as steps on a linear price axis. Hovering tells the total and the
// slippage of taking it; a click puts the price into the order form. Redrawn at most five times a second.

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { effect } from '@preact/signals';
import { takingTo } from '../market/book';
import { live } from '../state/live';
import { looks } from '../state/settings';
import { colour } from './colours';

const REDRAW_MS = 200;
const LEVELS = 200;
/** Shown is twice the distance within which this share of the levels is: a few far orders must not squeeze the rest. */
const NEAR_SHARE = 0.75;

export interface DepthPoint {
  side: 'buy' | 'sell';
  price: string;
  total: string;
  /** Price of taking all of it, and how much worse than the best price that is, in hundredths of a percent. */
  mean: string;
  slippageBps: number;
}

export function mountDepth(container: HTMLElement, hovered: (point: DepthPoint | null) => void, picked: (point: DepthPoint) => void): () => void {
  let plot: uPlot | null = null;
  let version = -1;

  function columns(): uPlot.AlignedData {
    const { book } = live;
    const market = live.market!;
    const lot = Number(market.info.lot_size);
    const tick = Number(market.info.tick_size);
    const prices: number[] = [];
    const bids: (number | null)[] = [];
    const asks: (number | null)[] = [];
    const middle = ((book.bids[0] ?? book.asks[0])?.ticks ?? 0) / 2 + ((book.asks[0] ?? book.bids[0])?.ticks ?? 0) / 2;
    const distance = (levels: typeof book.bids): number => Math.abs((levels[Math.floor((Math.min(levels.length, LEVELS) - 1) * NEAR_SHARE)]?.ticks ?? middle) - middle);
    const most = 2 * Math.max(distance(book.bids), distance(book.asks));
    const side = (levels: typeof book.bids): { price: number; total: number }[] => {
      let total = 0;
      return levels.slice(0, LEVELS).filter((level) => Math.abs(level.ticks - middle) <= most).map((level) => ({ price: level.ticks * tick, total: (total += level.lots * lot) }));
    };
    for (const { price, total } of side(book.bids).reverse()) {
      prices.push(price);
      bids.push(total);
      asks.push(null);
    }
    for (const { price, total } of side(book.asks)) {
      prices.push(price);
      bids.push(null);
      asks.push(total);
    }
    return [prices, bids, asks];
  }

  function pointAt(index: number | null | undefined): DepthPoint | null {
    const market = live.market;
    if (!plot || !market || index === null || index === undefined) return null;
    const [prices, bids, asks] = plot.data as [number[], (number | null)[], (number | null)[]];
    const price = prices[index];
    const buy = bids[index];
    const total = buy ?? asks[index];
    if (price === undefined || total === null || total === undefined) return null;
    const side = buy !== null && buy !== undefined ? 'buy' : 'sell';
    const taking = takingTo(side === 'buy' ? live.book.bids : live.book.asks, Math.round(price / Number(market.info.tick_size)), side === 'sell');
    if (!taking) return null;
    return {
      side,
      price: price.toFixed(market.priceDecimals),
      total: total.toFixed(market.sizeDecimals),
      mean: (taking.meanTicks * Number(market.info.tick_size)).toFixed(market.priceDecimals),
      slippageBps: taking.slippageBps,
    };
  }

  function make(): void {
    plot?.destroy();
    const stepped = uPlot.paths.stepped!;
    const axis = { stroke: colour('--muted'), grid: { stroke: colour('--grid'), width: 1 }, ticks: { show: false }, font: '11px sans-serif' };
    plot = new uPlot(
      {
        width: container.clientWidth,
        height: container.clientHeight,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
        scales: { x: { time: false }, y: { range: (_, __, most) => [0, most * 1.05 || 1] } },
        axes: [axis, { ...axis, side: 1, size: 60 }],
        series: [
          {},
          { stroke: colour('--buy'), fill: colour('--buy-tint'), width: 1.5, paths: stepped({ align: -1 }), points: { show: false } },
          { stroke: colour('--sell'), fill: colour('--sell-tint'), width: 1.5, paths: stepped({ align: 1 }), points: { show: false } },
        ],
        hooks: { setCursor: [(self) => hovered(pointAt(self.cursor.idx))] },
      },
      live.market ? columns() : [[], [], []],
      container,
    );
  }

  const click = () => {
    const point = pointAt(plot?.cursor.idx);
    if (point) picked(point);
  };
  container.addEventListener('click', click);
  const stop = effect(() => {
    looks.value;
    make();
  });
  const observer = new ResizeObserver(() => plot?.setSize({ width: container.clientWidth, height: container.clientHeight }));
  observer.observe(container);
  const timer = setInterval(() => {
    if (!live.market || document.hidden || version === live.book.version) return;
    version = live.book.version;
    plot?.setData(columns());
  }, REDRAW_MS);
  return () => {
    clearInterval(timer);
    observer.disconnect();
    stop();
    container.removeEventListener('click', click);
    plot?.destroy();
  };
}
