// Commands a second over the last minutes, and latencies where the exchange reports them.

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { effect } from '@preact/signals';
import { looks } from '../state/settings';
import { operations } from '../state/store';
import { colour } from './colours';

export function mountLatency(container: HTMLElement): () => void {
  let plot: uPlot | null = null;
  const columns = (): uPlot.AlignedData => {
    const { samples } = operations.value;
    const ms = (us: number | null) => (us === null ? null : us / 1000);
    return [samples.map((one) => one.timeMs / 1000), samples.map((one) => one.commandsPerSecond), samples.map((one) => ms(one.p50Us)), samples.map((one) => ms(one.p99Us))];
  };
  const stopLooks = effect(() => {
    looks.value;
    plot?.destroy();
    const axis = { stroke: colour('--muted'), grid: { stroke: colour('--grid'), width: 1 }, ticks: { show: false }, font: '11px sans-serif' };
    plot = new uPlot(
      {
        width: container.clientWidth,
        height: container.clientHeight,
        legend: { show: false },
        scales: { y: { range: (_, __, most) => [0, (most || 1) * 1.1] }, ms: { range: (_, __, most) => [0, (most || 1) * 1.1] } },
        axes: [axis, { ...axis, size: 50 }, { ...axis, scale: 'ms', side: 1, size: 56, grid: { show: false }, values: (_, values) => values.map((value) => `${value} ms`) }],
        series: [{}, { label: 'commands/s', stroke: colour('--text'), width: 1.5, points: { show: false } }, { label: 'p50', scale: 'ms', stroke: colour('--accent'), width: 1.5, points: { show: false } }, { label: 'p99', scale: 'ms', stroke: colour('--warn'), width: 1.5, points: { show: false } }],
      },
      columns(),
      container,
    );
  });
  const stopData = effect(() => plot?.setData(columns()));
  const observer = new ResizeObserver(() => plot?.setSize({ width: container.clientWidth, height: container.clientHeight }));
  observer.observe(container);
  return () => {
    observer.disconnect();
    stopLooks();
    stopData();
    plot?.destroy();
  };
}
