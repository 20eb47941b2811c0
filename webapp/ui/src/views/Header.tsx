// Market, last price, figures of the day, what was verified, connection and clock. Prices are drawn by the frame loop.

import { useEffect, useRef } from 'preact/hooks';
import { addDrawer } from '../draw/loop';
import { Cell, Mark } from '../draw/patch';
import { compact, formatUnits, grouped } from '../market/decimal';
import { live } from '../state/live';
import { choose, settings, shownTheme } from '../state/settings';
import { accountId, dialog, feedState, pane, signer, symbol, tab, timeText, tradingState, verification, version } from '../state/store';
import { StateTag } from './MarketState';

const STATS = ['24h change', '24h high', '24h low', '24h volume'] as const;

export function changeText(ppm: number | null): string {
  if (ppm === null) return '–';
  const sign = ppm > 0 ? '+' : ppm < 0 ? '−' : '';
  return `${sign}${formatUnits(BigInt(Math.abs(Math.round(ppm / 100))), 2)} %`;
}

export function Header() {
  return (
    <header class="top">
      <span class="brand">
        <svg width="18" height="18" viewBox="0 0 32 32" aria-hidden="true">
          <path d="M6 7h20L6 25h20" fill="none" stroke="currentColor" stroke-width="4" stroke-linejoin="round" stroke-linecap="round" />
        </svg>
        <h1>zexchange</h1>
      </span>
      <button class="market-button" type="button" onClick={() => (dialog.value = 'markets')} aria-haspopup="dialog" title="Change market (/)">
        <strong>{symbol.value || '…'}</strong>
        <StateTag />
        <span aria-hidden="true" class="caret">
          ▾
        </span>
      </button>
      <Figures />
      <span class="spacer" />
      <VerifyBadge />
      <Connection />
      <Clock />
      <button
        class="quiet icon wide-only"
        type="button"
        aria-label={`Theme: ${shownTheme()}`}
        title="Theme (T)"
        onClick={() => choose({ theme: shownTheme() === 'dark' ? 'light' : 'dark' })}
      >
        {shownTheme() === 'dark' ? '☾' : '☀'}
      </button>
      <button class="quiet icon" type="button" aria-label="Settings" title="Settings" onClick={() => (dialog.value = 'settings')}>
        ⚙
      </button>
      <button class="account-button" type="button" onClick={() => (dialog.value = 'account')}>
        {accountId.value !== null ? `Account ${accountId.value}` : !signer.value ? (version.value ? 'Connect' : '…') : tradingState.value === 'established' ? 'Key only' : 'Account …'}
      </button>
    </header>
  );
}

function Figures() {
  const ref = useRef<HTMLDListElement>(null);
  useEffect(() => {
    const root = ref.current!;
    const [lastElement, ...rest] = [...root.querySelectorAll('dd')];
    const last = new Cell(lastElement!);
    const lastSide = new Mark(lastElement!, 'data-side');
    const cells = rest.map((element) => new Cell(element));
    const changeSide = new Mark(rest[0]!, 'data-side');
    let title = '';
    return addDrawer(() => {
      const { market: shown, ticker, tape } = live;
      if (!shown) return;
      const price = tape[0]?.price ?? ticker?.last ?? null;
      const text = (value: string | null | undefined) => (value ? grouped(shown.priceText(shown.ticksOf(value))) : '–');
      last.text = text(price);
      lastSide.value = tape[0]?.side || null;
      const change = ticker?.change_ppm ?? null;
      cells[0]!.text = changeText(change);
      changeSide.value = change === null || change === 0 ? null : change > 0 ? 'buy' : 'sell';
      cells[1]!.text = text(ticker?.high_24h);
      cells[2]!.text = text(ticker?.low_24h);
      cells[3]!.text = ticker ? `${compact(ticker.volume_24h)} ${shown.info.base}` : '–';
      const wanted = price ? `${text(price)} ${shown.symbol} · zexchange` : 'zexchange';
      if (wanted !== title) document.title = title = wanted;
    });
  }, []);
  return (
    <dl class="figures" ref={ref} aria-label="Prices">
      <div class="last">
        <dt class="unseen">Last price</dt>
        <dd />
      </div>
      {STATS.map((name) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd />
        </div>
      ))}
    </dl>
  );
}

function VerifyBadge() {
  const { checkpoint, mismatch, waiting } = verification.value;
  const open = () => {
    tab.value = 'verify';
    pane.value = 'verify';
  };
  const [kind, text] = mismatch
    ? ['bad', 'Mismatch']
    : checkpoint
      ? ['good', `Checkpoint ${checkpoint.number} verified`]
      : ['', waiting ? 'Not verified yet' : 'Verifying…'];
  return (
    <button class={`badge ${kind}`} type="button" onClick={open} title="What this page has checked itself (V)">
      <span aria-hidden="true">{kind === 'bad' ? '✕' : kind === 'good' ? '✓' : '…'}</span>
      {text}
    </button>
  );
}

function Connection() {
  const feed = feedState.value;
  const session = tradingState.value;
  const good = feed === 'open' && (session === 'established' || session === 'off');
  const text = feed !== 'open' ? (feed === 'connecting' ? 'Connecting' : 'Reconnecting') : session === 'established' || session === 'off' ? 'Live' : 'Signing on';
  return (
    <span class="connection" title={`Market data: ${feed}. Order session: ${session}.`}>
      <span class={`dot ${good ? 'good' : 'warn'}`} aria-hidden="true" />
      {text}
      {version.value?.demo && <span class="tag">demo</span>}
    </span>
  );
}

function Clock() {
  const ref = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const cell = new Cell(ref.current!);
    const tick = () => (cell.text = `${timeText.peek()(live.nowMs())} ${settings.peek().clock === 'utc' ? 'UTC' : ''}`);
    tick();
    const timer = setInterval(tick, 250);
    return () => clearInterval(timer);
  }, []);
  return (
    <button
      ref={ref}
      class="quiet clock"
      type="button"
      title="Clock of the exchange; click for local time or UTC"
      onClick={() => choose({ clock: settings.value.clock === 'utc' ? 'local' : 'utc' })}
    />
  );
}
