// The operations view: rates, latencies, queues, checkpoint age, shards and cores, as the exchange reports them.

import { useEffect, useRef } from 'preact/hooks';
import { watchStats } from '../state/controller';
import { acknowledgements, operations } from '../state/store';

function Figure(props: { name: string; value: string }) {
  return (
    <div>
      <dt>{props.name}</dt>
      <dd>{props.value}</dd>
    </div>
  );
}

const ms = (us: number): string => `${(us / 1000).toFixed(2)} ms`;

function percentile(sorted: readonly number[], share: number): string {
  if (!sorted.length) return '–';
  return `${sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!.toFixed(1)} ms`;
}

export function Operations() {
  useEffect(() => {
    watchStats(true);
    return () => watchStats(false);
  }, []);
  const { latest, samples } = operations.value;
  const sample = samples.at(-1);
  const own = [...acknowledgements.value].sort((left, right) => left - right);
  const shards = (latest?.shards ?? []) as Record<string, unknown>[];
  const cpus = (latest?.cpus ?? []) as number[];
  const queue = latest?.queue;
  return (
    <div class="operations">
      <dl class="facts tiles">
        <Figure name="Orders per second" value={sample ? sample.ordersPerSecond.toFixed(0) : '–'} />
        <Figure name="Latency p50" value={sample ? ms(sample.p50Us) : '–'} />
        <Figure name="Latency p99" value={sample ? ms(sample.p99Us) : '–'} />
        <Figure name="Queue" value={queue === undefined ? '–' : typeof queue === 'object' ? JSON.stringify(queue) : String(queue)} />
        <Figure name="Checkpoint age" value={sample ? `${(sample.checkpointAgeMs / 1000).toFixed(1)} s` : '–'} />
        <Figure name="Records" value={latest?.records === undefined ? '–' : String(latest.records)} />
        <Figure name="Pages connected" value={latest?.ws_clients === undefined ? '–' : String(latest.ws_clients)} />
        <Figure name="Your orders, p50 / p99" value={`${percentile(own, 0.5)} / ${percentile(own, 0.99)}`} />
      </dl>
      <div class="operations-detail">
        <figure>
          <figcaption>
            Latency, <span class="accent">p50</span> and <span class="warn">p99</span>
          </figcaption>
          <LatencyPlot />
        </figure>
        <div>
          <h3>Cores</h3>
          <ul class="cores" aria-label="Load of each core">
            {cpus.map((load, index) => (
              <li key={index}>
                <span>{index}</span>
                <meter min={0} max={100} value={load} aria-label={`Core ${index}`} />
                <span>{load.toFixed(0)} %</span>
              </li>
            ))}
          </ul>
          <h3>Shards</h3>
          <ul class="shards" aria-label="Shards">
            {shards.map((shard, index) => (
              <li key={index}>
                {Object.entries(shard).map(([name, value]) => (
                  <span key={name}>
                    {name.replace(/_/g, ' ')} <b>{typeof value === 'object' ? JSON.stringify(value) : String(value)}</b>
                  </span>
                ))}
              </li>
            ))}
          </ul>
        </div>
      </div>
    </div>
  );
}

function LatencyPlot() {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    let stop: (() => void) | null = null;
    let gone = false;
    void import('../charts/latency').then(({ mountLatency }) => {
      if (!gone) stop = mountLatency(ref.current!);
    });
    return () => {
      gone = true;
      stop?.();
    };
  }, []);
  return <div class="plot" ref={ref} role="img" aria-label="Latency over time" />;
}
