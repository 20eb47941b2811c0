// The operations view: rates, latencies, queues, checkpoint age, shards and cores, as the exchange reports them.

import { useEffect, useRef } from 'preact/hooks';
import { grouped } from '../market/decimal';
import { letBots, readBots, watchStats } from '../state/controller';
import { acknowledgements, bots, operations, unanswered, verification, version } from '../state/store';

interface Shard {
  shard: number;
  markets: string[];
  /** Number of the newest. */
  records: string;
  open_orders: number;
  trades: string;
}

interface Process {
  name: string;
  state: string;
  restarts: number;
  cpus: number[];
  rss_mb: number;
  cpu_share: number;
}

/** Over all processes. */
interface Stage {
  stage: string;
  per_s: number;
  /** Of the last seconds; null while it does not happen. */
  p50_us: number | null;
  p90_us: number | null;
  p99_us: number | null;
}

const STAGES: Readonly<Record<string, string>> = {
  verify: 'signatures are verified',
  bus: 'an order waits for the matcher',
  match: 'a batch is applied',
  append: 'the store puts it on disk',
  publish: 'reports are sent',
  acknowledge: 'from verified to answered',
  visible: 'until this page can show it',
};

const QUEUES: readonly (readonly [name: string, text: string, isBytes?: true])[] = [
  ['unverified_frames', 'Frames to verify'],
  ['matcher_frames', 'Frames for the matcher'],
  ['matcher_questions', 'Logons and queries'],
  ['batches_in_flight', 'Batches on their way to disk'],
  ['link_bytes', 'On the way to matchers', true],
  ['unsent_bytes', 'For clients to read', true],
  ['unsigned_records', 'Records without a checkpoint'],
  ['ws_clients_waiting', 'Pages that do not keep up'],
  ['sessions', 'Sessions at order entry'],
];

function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  return count < 1024 ** 2 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / 1024 ** 2).toFixed(1)} MiB`;
}

/** Three digits, in the unit that suits it. */
function duration(us: number): string {
  if (us >= 1_000_000) return `${(us / 1_000_000).toPrecision(3)} s`;
  return us >= 1_000 ? `${(us / 1_000).toPrecision(3)} ms` : `${us.toPrecision(3)} µs`;
}

function Stages(props: { stages: readonly Stage[] }) {
  return (
    <table class="data">
      <caption>Latency by stage, the last ten seconds</caption>
      <thead>
        <tr>
          <th scope="col">Stage</th>
          {['Per second', 'p50', 'p90', 'p99'].map((name) => (
            <th key={name} scope="col" class="number">
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {props.stages.map((one) => (
          <tr key={one.stage}>
            <td title={STAGES[one.stage]}>{one.stage}</td>
            <td class="number">{grouped(one.per_s.toFixed(one.per_s < 10 ? 1 : 0))}</td>
            {[one.p50_us, one.p90_us, one.p99_us].map((value, index) => (
              <td key={index} class="number">
                {value === null ? '–' : duration(value)}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Queues(props: { queues: Readonly<Record<string, number>> }) {
  const known = QUEUES.filter(([name]) => props.queues[name] !== undefined);
  return (
    <table class="data">
      <caption>What waits</caption>
      <tbody>
        {known.map(([name, text, isBytes]) => (
          <tr key={name}>
            <th scope="row">{text}</th>
            <td class="number">{isBytes ? bytes(props.queues[name]!) : grouped(String(props.queues[name]))}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
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
  const stages = (latest?.stages ?? []) as Stage[];
  const queues = (latest?.queues ?? {}) as Record<string, number>;
  const shards = (latest?.shards ?? []) as Shard[];
  const latency = (latest?.latency_us ?? {}) as Partial<Record<'p50' | 'p90' | 'p99', number>>;
  const tips = verification.value.checkpoint?.leaf.shards;
  /** Records that no checkpoint covers that this page has verified. */
  const waiting = (shard: Shard): bigint | null => {
    const tip = tips?.[shard.shard];
    if (!tip) return null;
    const behind = BigInt(shard.records) + 1n - tip.logSize;
    return behind > 0n ? behind : 0n;
  };
  const allWaiting = shards.reduce((sum, shard) => sum + (waiting(shard) ?? 0n), 0n);
  const processes = (latest?.processes ?? []) as Process[];
  const cpus = (latest?.cpus ?? []) as number[];
  const known = (name: string): string => (latest?.[name] === undefined || latest[name] === null ? '–' : grouped(String(latest[name])));
  return (
    <div class="operations">
      {version.value?.demo && <Bots />}
      <dl class="facts tiles">
        <Figure name="Commands per second" value={sample ? grouped(sample.commandsPerSecond.toFixed(0)) : '–'} />
        {(['p50', 'p90', 'p99'] as const).map((name) => (
          <Figure key={name} name={`Latency ${name}`} value={latency[name] === undefined ? '–' : ms(latency[name])} />
        ))}
        <Figure name="Waiting for a checkpoint" value={tips ? `${grouped(String(allWaiting))} records` : '–'} />
        <Figure name="Your unanswered batches" value={String(unanswered.value)} />
        <Figure name="Checkpoint age" value={sample ? `${(sample.checkpointAgeMs / 1000).toFixed(1)} s` : '–'} />
        <Figure name="Records" value={known('records')} />
        <Figure name="Commands" value={known('commands')} />
        <Figure name="Pages connected" value={known('ws_clients')} />
        <Figure name="Your orders, p50 / p99" value={`${percentile(own, 0.5)} / ${percentile(own, 0.99)}`} />
      </dl>
      <div class="operations-detail">
        <div>
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
          {stages.length > 0 && <Stages stages={stages} />}
        </div>
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
          <table class="data">
            <caption>Shards</caption>
            <thead>
              <tr>
                <th scope="col">Shard</th>
                <th scope="col">Markets</th>
                <th scope="col" class="number">
                  Records
                </th>
                <th scope="col" class="number">
                  Waiting
                </th>
                <th scope="col" class="number">
                  Open orders
                </th>
                <th scope="col" class="number">
                  Trades
                </th>
              </tr>
            </thead>
            <tbody>
              {shards.map((shard) => (
                <tr key={shard.shard}>
                  <td>{shard.shard}</td>
                  <td class="markets" title={shard.markets.join(', ')}>
                    {shard.markets.length > 3 ? `${shard.markets.slice(0, 3).join(', ')} and ${shard.markets.length - 3} more` : shard.markets.join(', ')}
                  </td>
                  <td class="number">{grouped(shard.records)}</td>
                  <td class="number">{waiting(shard) === null ? '–' : grouped(String(waiting(shard)))}</td>
                  <td class="number">{grouped(String(shard.open_orders))}</td>
                  <td class="number">{grouped(shard.trades)}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {Object.keys(queues).length > 0 && <Queues queues={queues} />}
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
