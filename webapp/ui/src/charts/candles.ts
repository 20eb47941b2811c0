// Candles and volume with lightweight-charts: live last bar, own fills as markers, own orders as price lines. Redrawn at
// most ten times a second. Loaded on its own, after the page is up.

import { CandlestickSeries, ColorType, CrosshairMode, HistogramSeries, LineStyle, createChart, createSeriesMarkers } from 'lightweight-charts';
import type { IPriceLine, SeriesMarker, Time, UTCTimestamp } from 'lightweight-charts';
import { effect } from '@preact/signals';
import { orderKey } from '../net/api';
import type { Candle } from '../net/api';
import { live } from '../state/live';
import { looks, settings } from '../state/settings';
import { fills, openOrders, symbol } from '../state/store';
import { colour } from './colours';

const REDRAW_MS = 100;

function timeOf(candle: { time: string }): UTCTimestamp {
  const ms = Date.parse(candle.time);
  // The library knows UTC only; local time is shown by shifting what it is given.
  const shift = settings.peek().clock === 'local' ? new Date(ms).getTimezoneOffset() * 60_000 : 0;
  return Math.floor((ms - shift) / 1000) as UTCTimestamp;
}

export interface Legend {
  (bar: Candle | null): void;
}

export function mountCandles(container: HTMLElement, legend: Legend): () => void {
  const chart = createChart(container, {
    autoSize: true,
    // The library's own logo needs an inline style, which the page's policy forbids; the attribution is beside the chart.
    layout: { attributionLogo: false, fontSize: 11, fontFamily: getComputedStyle(document.body).fontFamily },
    crosshair: { mode: CrosshairMode.Normal },
    timeScale: { timeVisible: true, secondsVisible: settings.peek().interval === '1s', rightOffset: 6, minBarSpacing: 2 },
    rightPriceScale: { scaleMargins: { top: 0.08, bottom: 0.24 } },
  });
  const candles = chart.addSeries(CandlestickSeries, { borderVisible: false, priceLineStyle: LineStyle.Dotted });
  const volume = chart.addSeries(HistogramSeries, { priceScaleId: 'volume', priceFormat: { type: 'volume' }, lastValueVisible: false, priceLineVisible: false });
  chart.priceScale('volume').applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
  const markers = createSeriesMarkers(candles, []);
  const lines = new Map<string, { line: IPriceLine; key: string }>();
  let epoch = -1;
  let version = -1;
  let shownSymbol = '';
  let shownTick = '';
  let tints = { up: '', down: '' };

  const bar = (one: Candle) => ({ time: timeOf(one), open: Number(one.open), high: Number(one.high), low: Number(one.low), close: Number(one.close) });
  const volumeBar = (one: Candle) => ({ time: timeOf(one), value: Number(one.volume), color: Number(one.close) >= Number(one.open) ? tints.up : tints.down });

  function redraw(): void {
    const market = live.market;
    if (!market || document.hidden) return;
    if (shownSymbol !== market.symbol || shownTick !== market.info.tick_size) {
      [shownSymbol, shownTick] = [market.symbol, market.info.tick_size];
      const minMove = Number(market.info.tick_size);
      candles.applyOptions({ priceFormat: { type: 'price', precision: market.priceDecimals, minMove } });
    }
    if (epoch !== live.candlesEpoch) {
      candles.setData(live.candles.map(bar));
      volume.setData(live.candles.map(volumeBar));
      if (live.candles.length) chart.timeScale().setVisibleLogicalRange({ from: live.candles.length - Math.max(40, container.clientWidth / 7), to: live.candles.length + 6 });
      epoch = live.candlesEpoch;
      version = live.candlesVersion;
      drawMarkers();
    } else if (version !== live.candlesVersion) {
      version = live.candlesVersion;
      // The closed bar before the live one may have had its last trade since.
      for (const one of live.candles.slice(-2)) {
        try {
          candles.update(bar(one));
          volume.update(volumeBar(one));
        } catch {
          epoch = -1; // older than what is drawn: draw everything anew
        }
      }
      legend(null);
    }
  }

  function drawMarkers(): void {
    const first = live.candles[0];
    const shown = fills.peek().filter((fill) => fill.market === shownSymbol && first && fill.time >= first.time);
    const seconds = { '1s': 1, '1m': 60, '5m': 300, '1h': 3600, '1d': 86400 }[settings.peek().interval] ?? 60;
    const bars = new Map<string, { time: number; buy: boolean; count: number }>();
    for (const fill of shown) {
      const [time, buy] = [Math.floor(timeOf(fill) / seconds) * seconds, fill.side === 'buy'];
      const known = bars.get(`${time} ${fill.side}`);
      if (known) known.count += 1;
      else bars.set(`${time} ${fill.side}`, { time, buy, count: 1 });
    }
    markers.setMarkers(
      [...bars.values()]
        .sort((left, right) => left.time - right.time)
        .map(({ time, buy, count }): SeriesMarker<Time> => ({
          time: time as UTCTimestamp, position: buy ? 'belowBar' : 'aboveBar', shape: buy ? 'arrowUp' : 'arrowDown', color: colour(buy ? '--buy' : '--sell'), size: 0.8,
          ...(count > 1 ? { text: `×${count}` } : {}),
        })),
    );
  }

  function drawLines(): void {
    const wanted = new Set<string>();
    for (const order of openOrders.value.values()) {
      if (order.market !== symbol.value) continue;
      const id = orderKey(order);
      wanted.add(id);
      // An order that waits is where it waits for the price, not at its limit.
      const at = (order.trigger && order.trigger_price) || order.price;
      const key = `${at} ${order.trigger ?? ''} ${order.leaves_qty} ${looks.value}`;
      const known = lines.get(id);
      if (known?.key === key) continue;
      if (known) candles.removePriceLine(known.line);
      const line = candles.createPriceLine({
        price: Number(at), color: colour(order.side === 'buy' ? '--buy' : '--sell'), lineWidth: 1, lineStyle: order.trigger ? LineStyle.Dotted : LineStyle.Dashed, axisLabelVisible: true,
        title: `${order.trigger ? `${order.trigger.replace('_', ' ')} ` : ''}${order.side} ${order.leaves_qty}`,
      });
      lines.set(id, { line, key });
    }
    for (const [id, { line }] of lines)
      if (!wanted.has(id)) {
        candles.removePriceLine(line);
        lines.delete(id);
      }
  }

  chart.subscribeCrosshairMove((event) => {
    const at = event.time as number | undefined;
    legend(at === undefined ? null : (live.candles.find((one) => timeOf(one) === at) ?? null));
  });

  const stops = [
    effect(() => {
      looks.value;
      const line = colour('--line');
      chart.applyOptions({
        layout: { background: { type: ColorType.Solid, color: colour('--panel') }, textColor: colour('--muted') },
        grid: { vertLines: { color: colour('--grid') }, horzLines: { color: colour('--grid') } },
        rightPriceScale: { borderColor: line },
        timeScale: { borderColor: line, secondsVisible: settings.value.interval === '1s' },
      });
      const [up, down] = [colour('--buy'), colour('--sell')];
      candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
      tints = { up: colour('--buy-tint'), down: colour('--sell-tint') };
      epoch = -1;
    }),
    effect(drawLines),
    effect(() => {
      fills.value;
      drawMarkers();
    }),
  ];
  const timer = setInterval(redraw, REDRAW_MS);
  redraw();
  return () => {
    clearInterval(timer);
    stops.forEach((stop) => stop());
    chart.remove();
  };
}
