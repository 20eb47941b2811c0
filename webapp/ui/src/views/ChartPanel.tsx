// Candles or depth. The chart libraries are fetched once the page is up.

import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type { DepthPoint } from '../charts/depth';
import { grouped } from '../market/decimal';
import type { Candle } from '../net/api';
import { fillForm, selectInterval } from '../state/controller';
import { live } from '../state/live';
import { settings } from '../state/settings';
import { chartView, market, symbol } from '../state/store';
import { Segments } from './bits';

const INTERVALS = [['1s', '1s'], ['1m', '1m'], ['5m', '5m'], ['1h', '1h'], ['1d', '1d']] as const;

export function ChartPanel() {
  return (
    <section class="panel chart-panel" aria-label="Chart">
      <div class="panel-head">
        <Segments label="View" class="tabs" value={chartView.value} choices={[['candles', 'Price'], ['depth', 'Depth']]} onChoose={(value) => (chartView.value = value)} />
        {chartView.value === 'candles' && (
          <Segments label="Interval" value={settings.value.interval as '1m'} choices={INTERVALS as readonly (readonly ['1m', string])[]} onChoose={selectInterval} />
        )}
        <span class="spacer" />
        {chartView.value === 'candles' && (
          <a class="attribution" href="https://www.tradingview.com/" target="_blank" rel="noopener noreferrer">
            <span class="roomy">Charts by </span>TradingView
          </a>
        )}
      </div>
      {chartView.value === 'candles' ? <Candles /> : <Depth key={`${symbol.value} ${market.value?.info.sizes_no}`} />}
    </section>
  );
}

const hoveredBar = signal<Candle | null>(null);
const legendVersion = signal(0);

function Candles() {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    let stop: (() => void) | null = null;
    let gone = false;
    void import('../charts/candles').then(({ mountCandles }) => {
      if (gone) return;
      stop = mountCandles(ref.current!, (bar) => {
        hoveredBar.value = bar;
        // The chart may say so while an effect changes it, which must not depend on this.
        legendVersion.value = legendVersion.peek() + 1;
      });
    });
    return () => {
      gone = true;
      stop?.();
    };
  }, []);
  return (
    <div class="chart-body">
      <Legend />
      <div class="chart" ref={ref} role="img" aria-label={`Candles of ${symbol.value}`} />
    </div>
  );
}

function Legend() {
  legendVersion.value;
  const bar = hoveredBar.value ?? live.candles.at(-1);
  const shown = market.value;
  if (!bar || !shown) return null;
  const up = Number(bar.close) >= Number(bar.open);
  const price = (text: string) => grouped(shown.priceText(shown.ticksOf(text)));
  return (
    <p class="legend">
      {(['open', 'high', 'low', 'close'] as const).map((name) => (
        <span key={name}>
          {name[0]!.toUpperCase()} <b class={up ? 'buy' : 'sell'}>{price(bar[name])}</b>
        </span>
      ))}
      <span>
        Vol <b>{bar.volume}</b>
      </span>
    </p>
  );
}

const hoveredDepth = signal<DepthPoint | null>(null);

function Depth() {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    let stop: (() => void) | null = null;
    let gone = false;
    void import('../charts/depth').then(({ mountDepth }) => {
      if (gone) return;
      stop = mountDepth(
        ref.current!,
        (point) => (hoveredDepth.value = point),
        (point) => fillForm(point.side === 'sell' ? 'buy' : 'sell', point.price, point.total),
      );
    });
    return () => {
      gone = true;
      hoveredDepth.value = null;
      stop?.();
    };
  }, []);
  const point = hoveredDepth.value;
  return (
    <div class="chart-body">
      <p class="legend">
        {point ? (
          <>
            <span>
              {point.side === 'buy' ? 'Bids down to' : 'Asks up to'} <b class={point.side}>{grouped(point.price)}</b>
            </span>
            <span>
              Total <b>{point.total}</b> {market.value?.info.base}
            </span>
            <span>
              Mean <b>{grouped(point.mean)}</b>
            </span>
            <span>
              Slippage <b>{point.slippageBps.toFixed(1)} bps</b>
            </span>
          </>
        ) : (
          <span>Point at a price to see how much is on the book up to there, and the slippage of taking it.</span>
        )}
      </p>
      <div class="chart" ref={ref} role="img" aria-label={`Depth of ${symbol.value}`} />
    </div>
  );
}
