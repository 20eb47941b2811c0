// Everything that opens over the page.

import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { BackupError, makeBackup, restoreBackup } from '../keys/keystore';
import { grouped } from '../market/decimal';
import type { Market } from '../market/market';
import { cancelAll, confirmReview, forgetSeed, makeKey, openDemoAccount, selectMarket, signOut, useSigner } from '../state/controller';
import { choose, settings } from '../state/settings';
import { accountId, dialog, freshSeed, guardedKeys, markets, notify, review, signer, symbol, tickers, version } from '../state/store';
import { toHex } from '../wire/bytes';
import type { Command } from '../wire/messages';
import { Bytes, Dialog, Segments, download } from './bits';
import { changeText } from './Header';
import { SHORTCUTS } from './keyboard';

const close = () => (dialog.value = null);

export function Dialogs() {
  return (
    <>
      {dialog.value === 'markets' && <Markets />}
      {dialog.value === 'help' && <Help />}
      {dialog.value === 'settings' && <SettingsDialog />}
      {dialog.value === 'account' && <Account />}
      {dialog.value === 'cancel-all' && <CancelAll />}
      {review.value && <ReviewDialog />}
    </>
  );
}

function Markets() {
  const search = useRef(signal('')).current;
  const cursor = useRef(signal(0)).current;
  const found = [...markets.value.values()].filter((market) => `${market.symbol} ${market.info.base} ${market.info.quote}`.toLowerCase().includes(search.value.trim().toLowerCase()));
  const pick = (name: string | undefined) => {
    if (!name) return;
    selectMarket(name);
    close();
  };
  return (
    <Dialog title="Markets" onClose={close}>
      <input
        type="search"
        class="search"
        placeholder="Search"
        aria-label="Search markets"
        autofocus
        value={search.value}
        onInput={(event) => {
          search.value = event.currentTarget.value;
          cursor.value = 0;
        }}
        onKeyDown={(event) => {
          if (event.key === 'ArrowDown') cursor.value = Math.min(cursor.value + 1, found.length - 1);
          else if (event.key === 'ArrowUp') cursor.value = Math.max(cursor.value - 1, 0);
          else if (event.key === 'Enter') pick(found[cursor.value]?.symbol);
          else return;
          event.preventDefault();
        }}
      />
      <ul class="market-list">
        {found.map((market, index) => {
          const ticker = tickers.value.get(market.symbol);
          const change = ticker?.change_ppm ?? null;
          return (
            <li key={market.symbol}>
              <button type="button" data-cursor={index === cursor.value ? '' : undefined} aria-current={market.symbol === symbol.value ? 'true' : undefined} onClick={() => pick(market.symbol)}>
                <strong>{market.symbol}</strong>
                <span>{ticker?.last ? grouped(ticker.last) : '–'}</span>
                <span class={change === null || change === 0 ? '' : change > 0 ? 'buy' : 'sell'}>{changeText(change)}</span>
              </button>
            </li>
          );
        })}
      </ul>
      {!found.length && <p class="empty">No market is called that.</p>}
    </Dialog>
  );
}

function Help() {
  return (
    <Dialog title="Keyboard" onClose={close}>
      <table class="data shortcuts">
        <caption class="unseen">Keyboard shortcuts</caption>
        <tbody>
          {SHORTCUTS.map(([keys, text]) => (
            <tr key={keys}>
              <th scope="row">
                {keys.split(' ').map((key) => (
                  <kbd key={key}>{key}</kbd>
                ))}
              </th>
              <td>{text}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Dialog>
  );
}

function SettingsDialog() {
  const now = settings.value;
  return (
    <Dialog title="Settings" onClose={close}>
      <div class="setting">
        <span>Theme</span>
        <Segments label="Theme" value={now.theme} choices={[['system', 'System'], ['dark', 'Dark'], ['light', 'Light']]} onChoose={(theme) => choose({ theme })} />
      </div>
      <div class="setting">
        <span>Buy and sell</span>
        <Segments label="Palette" value={now.palette} choices={[['classic', 'Green / red'], ['blue-orange', 'Blue / orange']]} onChoose={(palette) => choose({ palette })} />
      </div>
      <div class="setting">
        <span>Times</span>
        <Segments label="Times" value={now.clock} choices={[['utc', 'UTC'], ['local', 'Local']]} onChoose={(clock) => choose({ clock })} />
      </div>
      <label class="check">
        <input type="checkbox" checked={now.confirm} onChange={(event) => choose({ confirm: event.currentTarget.checked })} />
        <span>Show what is signed before an order is sent</span>
      </label>
      <p class="quiet-text">
        zexchange {version.value?.version} · {version.value?.name}. <a href="/docs">API</a> · <a href="/licenses.md">Licences of what this page uses</a>
      </p>
    </Dialog>
  );
}

/** Every field of a command. */
function termsShown(command: Command, market: Market): (readonly [string, string])[] {
  return [
    ['kind', command.kind],
    ['market', `${command.marketId} (${market.symbol})`],
    ['side', command.side],
    ['order type', command.orderType],
    ['time in force', command.timeInForce],
    ['options', command.options.join(', ') || 'none'],
    ['self-trade prevention', command.selfTradePrevention],
    ['price', `${command.priceTicks} ticks = ${market.priceText(command.priceTicks)} ${market.info.quote}`],
    ['quantity', `${command.qtyLots} lots = ${market.sizeText(command.qtyLots)} ${market.info.base}`],
    ['trigger', command.trigger],
    ['trigger price or distance', `${command.triggerTicks} ticks, ${command.trailPpm} ppm`],
    ['shown, at least', `${command.displayQtyLots} lots, ${command.minQtyLots} lots`],
    ['expires', `${command.expireTimeNs} ns`],
    ['at most', `${command.maxNotional} base units of ${market.info.quote}`],
    ['order id', String(command.orderId)],
    ['client order id', String(command.clientOrderId)],
  ];
}

function ReviewDialog() {
  const { title, prepared, symbol: name } = review.value!;
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => button.current?.focus(), []);
  const command = prepared.commands[0]!;
  const market = markets.value.get(name)!;
  return (
    <Dialog title="Sign and send" onClose={() => (review.value = null)}>
      <p class={`review-title ${command.side}`}>{title}</p>
      <details>
        <summary>Exactly what is signed</summary>
        {prepared.commands.map((one, index) => (
          <dl class="facts" key={index}>
            {termsShown(one, market).map(([term, value]) => (
              <div key={term}>
                <dt>{term}</dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
        ))}
        <dl class="facts">
          <div>
            <dt>nonce</dt>
            <dd>{String(prepared.nonce)}</dd>
          </div>
          <div>
            <dt>shard</dt>
            <dd>{prepared.shard}</dd>
          </div>
        </dl>
        <Bytes label={`Signed bytes (${prepared.bytes.length})`} text={toHex(prepared.bytes)} />
        <Bytes label="Key" text={signer.value ? toHex(signer.value.publicKey) : ''} />
      </details>
      <label class="check">
        <input type="checkbox" checked={!settings.value.confirm} onChange={(event) => choose({ confirm: !event.currentTarget.checked })} />
        <span>Send without asking from now on</span>
      </label>
      <div class="dialog-actions">
        <button type="button" onClick={() => (review.value = null)}>
          Back
        </button>
        <button ref={button} type="button" class={`submit ${command.side === 'none' ? 'primary' : command.side}`} onClick={confirmReview}>
          Sign and send
        </button>
      </div>
    </Dialog>
  );
}

function CancelAll() {
  const done = (name: string | null) => {
    cancelAll(name);
    close();
  };
  return (
    <Dialog title="Cancel all orders" onClose={close}>
      <p>Every open order is taken off the book.</p>
      <div class="dialog-actions">
        <button type="button" onClick={() => done(symbol.value)}>
          Only {symbol.value}
        </button>
        <button type="button" class="submit sell" autofocus onClick={() => done(null)}>
          All markets
        </button>
      </div>
    </Dialog>
  );
}

function Account() {
  const key = signer.value;
  return (
    <Dialog title="Account and key" onClose={close}>
      {key ? (
        <>
          <dl class="facts">
            <div>
              <dt>Account</dt>
              <dd>{accountId.value === null ? 'none yet' : String(accountId.value)}</dd>
            </div>
            <div>
              <dt>Key</dt>
              <dd>{key.guarded ? 'guarded by this browser, cannot be exported' : 'in the memory of this page only'}</dd>
            </div>
          </dl>
          <Bytes label="Public key" text={toHex(key.publicKey)} />
          {accountId.value === null && version.value?.demo && (
            <button type="button" class="submit primary" onClick={() => void openDemoAccount().then(close)}>
              Open a demo account
            </button>
          )}
          {accountId.value === null && !version.value?.demo && <p class="quiet-text">Give the public key to the operator, who opens an account for it.</p>}
          {freshSeed.value && guardedKeys.value && <Backup />}
          <details>
            <summary>Remove this key from the browser</summary>
            <p>Without a backup nobody can sign for its account any more.</p>
            <button type="button" class="submit sell" onClick={() => void signOut().then(close)}>
              Remove the key
            </button>
          </details>
        </>
      ) : (
        <>
          <p>Orders are signed in this browser with a key that never leaves it. The exchange only ever sees the public half.</p>
          {version.value?.demo && (
            <button type="button" class="submit primary" onClick={() => void openDemoAccount().then(close)}>
              Open a demo account
            </button>
          )}
          <button type="button" class={version.value?.demo ? '' : 'submit primary'} onClick={() => void makeKey()}>
            Make a key
          </button>
          {guardedKeys.value && <Restore />}
        </>
      )}
    </Dialog>
  );
}

const MIN_PASSPHRASE = 10;

function Backup() {
  const passphrase = useRef(signal('')).current;
  const tooShort = passphrase.value.length < MIN_PASSPHRASE;
  const save = async () => {
    const key = signer.value!;
    download(`zexchange-key-${toHex(key.publicKey).slice(0, 8)}.json`, await makeBackup(freshSeed.value!, key.publicKey, passphrase.value), 'application/json');
    forgetSeed();
    notify('good', 'Backup saved', 'The key can no longer be read by this page.');
  };
  return (
    <form
      class="box"
      onSubmit={(event) => {
        event.preventDefault();
        if (!tooShort) void save();
      }}
    >
      <label for="backup-passphrase">Passphrase for the backup</label>
      <input
        id="backup-passphrase"
        type="password"
        autoComplete="new-password"
        value={passphrase.value}
        aria-describedby="backup-hint"
        onInput={(event) => (passphrase.value = event.currentTarget.value)}
      />
      <p id="backup-hint" class="quiet-text">
        At least {MIN_PASSPHRASE} characters. Whoever has the file and the passphrase can trade for this account.
      </p>
      <div class="dialog-actions">
        <button type="button" onClick={forgetSeed}>
          No backup
        </button>
        <button type="submit" disabled={tooShort}>
          Save the backup
        </button>
      </div>
    </form>
  );
}

function Restore() {
  const file = useRef<HTMLInputElement>(null);
  const state = useRef(signal({ passphrase: '', problem: '' })).current;
  const restore = async () => {
    const chosen = file.current?.files?.[0];
    if (!chosen) {
      state.value = { ...state.value, problem: 'Choose the backup file.' };
      return;
    }
    try {
      useSigner(await restoreBackup(await chosen.text(), state.value.passphrase));
      notify('good', 'Key restored');
      close();
    } catch (error) {
      if (!(error instanceof BackupError)) throw error;
      state.value = { ...state.value, problem: error.message };
    }
  };
  return (
    <details>
      <summary>Restore a key from a backup</summary>
      <form
        class="box"
        onSubmit={(event) => {
          event.preventDefault();
          void restore();
        }}
      >
        <label for="backup-file">Backup file</label>
        <input id="backup-file" ref={file} type="file" accept="application/json,.json" />
        <label for="restore-passphrase">Passphrase</label>
        <input
          id="restore-passphrase"
          type="password"
          autoComplete="off"
          value={state.value.passphrase}
          onInput={(event) => (state.value = { passphrase: event.currentTarget.value, problem: '' })}
        />
        <p class="problem" role="alert">
          {state.value.problem}
        </p>
        <button type="submit">Restore</button>
      </form>
    </details>
  );
}
