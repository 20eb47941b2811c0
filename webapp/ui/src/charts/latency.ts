// Rates and latencies of the operations view over the last minutes.

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
    return [samples.map((one) => one.timeMs / 1000), samples.map((one) => one.p50Us / 1000), samples.map((one) => one.p99Us / 1000)];
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
        scales: { y: { range: (_, __, most) => [0, (most || 1) * 1.1] } },
        axes: [axis, { ...axis, size: 56, values: (_, values) => values.map((value) => `${value} ms`) }],
        series: [{}, { label: 'p50', stroke: colour('--accent'), width: 1.5, points: { show: false } }, { label: 'p99', stroke: colour('--warn'), width: 1.5, points: { show: false } }],
      },
      [[], [], []],
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
