// What this page has checked itself, and how to check it elsewhere.

import { signal } from '@preact/signals';
import { formatExact, grouped } from '../market/decimal';
import { noteForKeeping } from '../state/controller';
import { live } from '../state/live';
import { accountId, assets, bookTick, fills, verification, version } from '../state/store';
import { toHex } from '../wire/bytes';
import { Bytes, download } from './bits';

const showNote = signal(false);

function Check(props: { done: boolean | null; title: string; detail: string }) {
  const state = props.done === null ? 'open' : props.done ? 'good' : 'bad';
  return (
    <li class={`check-line ${state}`}>
      <span aria-hidden="true">{props.done === null ? '○' : props.done ? '✓' : '✕'}</span>
      <div>
        <strong>{props.title}</strong>
        <small>{props.detail}</small>
      </div>
    </li>
  );
}

function Age(props: { timeNs: bigint }) {
  bookTick.value;
  const seconds = Math.max(0, (live.nowMs() - Number(props.timeNs / 1_000_000n)) / 1000);
  return <>{seconds.toFixed(1)} s</>;
}

export function VerifyPanel() {
  const { checkpoint, mismatch, balance, fill, checked, waiting } = verification.value;
  const known = accountId.value !== null;
  const asset = (id: number) => assets.value.find((one) => one.asset_id === id);
  return (
    <div class="verify">
      <ul class="checks" aria-label="Checks">
        <Check
          done={mismatch ? false : checkpoint ? true : null}
          title="Signed by the settlement key"
          detail={checkpoint ? `${checked} checkpoints checked since this page was opened` : (waiting ?? 'Waiting for the first checkpoint')}
        />
        <Check
          done={mismatch ? false : checkpoint ? true : null}
          title="Consistent with everything seen before"
          detail="Each checkpoint extends the last one this browser has kept, also across visits"
        />
        <Check
          done={balance ? true : null}
          title="Your balance is in the committed state"
          detail={
            balance
              ? `Checkpoint ${balance.number}: ${balance.balances
                  .map((one) => `${grouped(formatExact(one.available + one.held, asset(one.assetId)?.decimals ?? 0))} ${asset(one.assetId)?.symbol ?? one.assetId}`)
                  .join(', ')}`
              : known
                ? 'Waiting for a proof'
                : 'Needs an account'
          }
        />
        <Check
          done={fill ? true : null}
          title="Your last fill is in the log"
          detail={fill ? `Trade ${fill.tradeId}: record ${fill.recordNo}, proved by checkpoint ${fill.number}` : fills.value.length ? 'Waiting for a proof' : 'No fills yet'}
        />
      </ul>
      {mismatch && <p class="problem" role="alert">{mismatch}</p>}
      {checkpoint && (
        <div class="verify-facts">
          <dl class="facts">
            <div>
              <dt>Checkpoint</dt>
              <dd>{String(checkpoint.number)}</dd>
            </div>
            <div>
              <dt>Age</dt>
              <dd>
                <Age timeNs={checkpoint.leaf.timeNs} />
              </dd>
            </div>
            {checkpoint.leaf.shards.map((tip) => (
              <div key={tip.shard}>
                <dt>Records of shard {tip.shard}</dt>
                <dd>{grouped(String(tip.logSize))}</dd>
              </div>
            ))}
          </dl>
          <Bytes label="Settlement root" text={toHex(checkpoint.root)} />
          {checkpoint.leaf.shards.map((tip) => (
            <div key={tip.shard}>
              <Bytes label={`Log root, shard ${tip.shard}`} text={toHex(tip.logRoot)} />
              <Bytes label={`State root, shard ${tip.shard}`} text={toHex(tip.stateRoot)} />
            </div>
          ))}
          <Bytes label="Deployment" text={version.value?.deployment_id ?? ''} />
          <div class="verify-actions">
            <button type="button" class="small" onClick={() => download(`checkpoint-${checkpoint.number}.note`, noteForKeeping(), 'text/plain')}>
              Keep this checkpoint
            </button>
            <button type="button" class="small" aria-expanded={showNote.value} onClick={() => (showNote.value = !showNote.value)}>
              {showNote.value ? 'Hide the note' : 'Show the note'}
            </button>
            <code>zexchange verify --checkpoint checkpoint-{String(checkpoint.number)}.note</code>
          </div>
          {showNote.value && (
            <pre tabIndex={0} aria-label="Signed note">
              {checkpoint.note}
            </pre>
          )}
        </div>
      )}
    </div>
  );
}
