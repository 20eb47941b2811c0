// The operations view: rates, latencies, queues, checkpoint age, shards and cores, as the exchange reports them.

import { useEffect, useRef } from 'preact/hooks';
import { grouped } from '../market/decimal';
import { letBots, readBots, watchStats } from '../state/controller';
import { acknowledgements, bots, operations, version } from '../state/store';

interface Process {
  name: string;
  state: string;
  restarts: number;
  cpus: number[];
  rss_mb: number;
  cpu_share: number;
}

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

/** Stops the bots of a demo, and lets them go on; nothing where there are none. */
function Bots() {
  useEffect(() => void readBots(), []);
  const { present, running } = bots.value;
  if (!present) return null;
  return (
    <p>
      Bots with play money {running ? 'trade in every market' : 'have stopped'}.{' '}
      <button type="button" onClick={() => void letBots(!running)}>
        {running ? 'Stop the bots' : 'Start the bots'}
      </button>
    </p>
  );
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
  const processes = (latest?.processes ?? []) as Process[];
  const cpus = (latest?.cpus ?? []) as number[];
  const known = (name: string): string => (latest?.[name] === undefined || latest[name] === null ? '–' : grouped(String(latest[name])));
  return (
    <div class="operations">
      {version.value?.demo && <Bots />}
      <dl class="facts tiles">
        <Figure name="Commands per second" value={sample ? grouped(sample.commandsPerSecond.toFixed(0)) : '–'} />
        {sample?.p50Us != null && <Figure name="Latency p50" value={ms(sample.p50Us)} />}
        {sample?.p99Us != null && <Figure name="Latency p99" value={ms(sample.p99Us)} />}
        {latest?.queue !== undefined && <Figure name="Queue" value={String(latest.queue)} />}
        <Figure name="Checkpoint age" value={sample ? `${(sample.checkpointAgeMs / 1000).toFixed(1)} s` : '–'} />
        <Figure name="Records" value={known('records')} />
        <Figure name="Commands" value={known('commands')} />
        <Figure name="Pages connected" value={known('ws_clients')} />
        <Figure name="Your orders, p50 / p99" value={`${percentile(own, 0.5)} / ${percentile(own, 0.99)}`} />
      </dl>
      <div class="operations-detail">
        <figure>
          <figcaption>
            Commands per second{sample?.p50Us != null && (
              <>
                ; latency <span class="accent">p50</span> and <span class="warn">p99</span>
              </>
            )}
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
          {processes.length > 0 && (
            <table class="data">
              <caption class="unseen">Processes</caption>
              <thead>
                <tr>
                  <th scope="col">Process</th>
                  <th scope="col">State</th>
                  <th scope="col" class="number">
                    Cores
                  </th>
                  <th scope="col" class="number">
                    Load
                  </th>
                  <th scope="col" class="number">
                    Memory
                  </th>
                </tr>
              </thead>
              <tbody>
                {processes.map((one) => (
                  <tr key={one.name}>
                    <td>{one.name}</td>
                    <td>
                      {one.state}
                      {one.restarts > 0 && ` (${one.restarts} restarts)`}
                    </td>
                    <td class="number">{one.cpus.join(', ') || 'any'}</td>
                    <td class="number">{(one.cpu_share * 100).toFixed(0)} %</td>
                    <td class="number">{one.rss_mb} MB</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
          <h3>Shards</h3>
          <ul class="shards" aria-label="Shards">
            {shards.map((shard, index) => (
              <li key={index}>
                {Object.entries(shard).map(([name, value]) => (
                  <span key={name}>
                    {name.replace(/_/g, ' ')} <b>{Array.isArray(value) ? value.join(', ') : String(value)}</b>
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
  return <div class="plot" ref={ref} role="img" aria-label="Commands per second and latency over time" />;
}
