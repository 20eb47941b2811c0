// The order form. Every figure follows from `assess`; every broken rule of the market is said beside its field, before
// anything is sent.

import { computed, signal } from '@preact/signals';
import { formatExact, grouped } from '../market/decimal';
import { draftTicks, lotsForPercent } from '../market/draft';
import type { Draft, TimeInForce } from '../market/draft';
import { assessDraft, available, openDemoAccount, submitDraft } from '../state/controller';
import { live } from '../state/live';
import { accountId, balances, bookState, bookTick, dialog, draft, market, openOrders, tradingState, version } from '../state/store';
import { Segments } from './bits';

const TYPE_NAMES: Record<string, string> = { limit: 'Limit', market: 'Market', stop: 'Stop', stop_limit: 'Stop limit', trailing_stop: 'Trailing' };
const PERCENTS = [25, 50, 75, 100];
/** What this page knows how to put into a command. */
const SENDABLE = new Set(['limit', 'market']);

/** Whether the form was sent and refused as it stands. */
const tried = signal(false);

const assessment = computed(() => {
  bookTick.value;
  bookState.value;
  balances.value;
  accountId.value;
  return assessDraft();
});

export const change = (part: Partial<Draft>): void => {
  tried.value = false;
  draft.value = { ...draft.value, ...part };
};

/** Moves the price by whole ticks; an empty field starts at the best price of the own side. */
export function stepPrice(ticks: bigint): void {
  const shown = market.value;
  if (!shown || draft.value.type === 'market') return;
  const best = draft.value.side === 'buy' ? live.book.bids[0] : live.book.asks[0];
  const now = draftTicks(draft.value, shown, live.book) ?? (best ? BigInt(best.ticks) - ticks : 0n);
  const next = now + ticks;
  if (next > 0n) change({ price: shown.priceText(next) });
}

export function OrderForm() {
  const shown = market.value;
  const form = draft.value;
  const found = assessment.value;
  if (!shown) return <section class="panel form-panel" aria-label="Order form" />;
  const { info } = shown;
  const has = available(shown);
  const [spent, spentDecimals, spentUnits] = form.side === 'buy' ? [info.quote, info.quote_decimals, has?.quote] : [info.base, info.base_decimals, has?.base];
  const problems = found?.problems ?? {};
  // An empty field is no mistake until somebody wants to send it.
  const sizeProblem = form.size || tried.value ? problems.size : undefined;
  const priceProblem = form.price || form.type === 'market' || tried.value ? problems.price : undefined;
  const blocked = !found || Object.keys(problems).length > 0;
  const ready = accountId.value !== null && tradingState.value === 'established';
  const isMarket = form.type === 'market';
  const money = (units: bigint | null) => (units === null ? '–' : `${grouped(shown.quoteText(units, Math.min(info.quote_decimals, 2)))} ${info.quote}`);
  const percent = has && found?.hold && spentUnits ? Math.min(100, Number((found.hold * 100n) / (spentUnits || 1n))) : 0;
  const setPercent = (value: number) => {
    if (!has) return;
    const lots = lotsForPercent({ ...form, unit: 'base' }, shown, live.book, has, value);
    change({ unit: 'base', size: lots > 0n ? shown.sizeText(lots) : '' });
  };

  return (
    <section class="panel form-panel" aria-label="Order form">
      <form
        class="order-form"
        data-side={form.side}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          if (submitDraft()) tried.value = false;
          else {
            tried.value = true;
            const field = ['price', 'size'].find((name) => assessDraft()?.problems[name as 'price' | 'size']);
            if (field) document.getElementById(field)?.focus();
          }
        }}
      >
        <Segments label="Side" class="sides" value={form.side} choices={[['buy', 'Buy'], ['sell', 'Sell']]} onChoose={(side) => change({ side })} />
        <Segments
          label="Order type"
          class="tabs"
          value={form.type}
          choices={shown.orderTypes.filter((type) => SENDABLE.has(type)).map((type) => [type, TYPE_NAMES[type] ?? type] as const)}
          onChoose={(type) => change({ type })}
        />
        <dl class="facts">
          <div>
            <dt>Available</dt>
            <dd>{spentUnits === undefined ? '–' : `${grouped(formatExact(spentUnits, spentDecimals))} ${spent}`}</dd>
          </div>
        </dl>
        {isMarket ? (
          <div class="field">
            <label for="protection">
              Worst price <small>at most this far from the best</small>
            </label>
            <div class="input-row">
              <select id="protection" value={form.protectionBps} onChange={(event) => change({ protectionBps: Number(event.currentTarget.value) })}>
                {[10, 50, 100, 200, 500].map((bps) => (
                  <option key={bps} value={bps}>
                    {bps / 100} %
                  </option>
                ))}
              </select>
              <output class="worst">{found?.ticks ? grouped(shown.priceText(found.ticks)) : '–'}</output>
            </div>
            <p class="problem" id="price-problem">
              {priceProblem}
            </p>
          </div>
        ) : (
          <div class="field">
            <label for="price">
              Price <small>{info.quote}</small>
            </label>
            <div class="input-row">
              <input
                id="price"
                inputMode="decimal"
                autoComplete="off"
                value={form.price}
                aria-invalid={priceProblem ? true : undefined}
                aria-describedby="price-problem"
                onInput={(event) => change({ price: event.currentTarget.value })}
                onKeyDown={(event) => {
                  if (event.key !== 'ArrowUp' && event.key !== 'ArrowDown') return;
                  event.preventDefault();
                  stepPrice((event.key === 'ArrowUp' ? 1n : -1n) * (event.shiftKey ? 10n : 1n));
                }}
              />
              <BestButton side="buy" text="Bid" />
              <BestButton side="sell" text="Ask" />
            </div>
            <p class="problem" id="price-problem">
              {priceProblem}
            </p>
          </div>
        )}
        <div class="field">
          <label for="size">Size</label>
          <div class="input-row">
            <input
              id="size"
              inputMode="decimal"
              autoComplete="off"
              value={form.size}
              aria-invalid={sizeProblem ? true : undefined}
              aria-describedby="size-problem"
              onInput={(event) => change({ size: event.currentTarget.value })}
            />
            <Segments label="Size in" value={form.unit} choices={[['base', info.base], ['quote', info.quote]]} onChoose={(unit) => change({ unit, size: '' })} />
          </div>
          <p class="problem" id="size-problem">
            {sizeProblem}
          </p>
        </div>
        <div class="slider">
          <input
            type="range"
            min={0}
            max={100}
            step={1}
            value={percent}
            disabled={!has}
            aria-label="Share of what is available, in percent"
            onInput={(event) => setPercent(Number(event.currentTarget.value))}
          />
          <div class="percents">
            {PERCENTS.map((value) => (
              <button key={value} type="button" disabled={!has} onClick={() => setPercent(value)}>
                {value}%
              </button>
            ))}
          </div>
        </div>
        <div class="options">
          <label>
            <span>Time in force</span>
            <select
              value={isMarket && form.tif === 'gtc' ? 'ioc' : form.tif}
              aria-describedby="tif-problem"
              onChange={(event) => change({ tif: event.currentTarget.value as TimeInForce })}
            >
              {!isMarket && <option value="gtc">Good till cancelled</option>}
              <option value="ioc">Immediate or cancel</option>
              <option value="fok">Fill or kill</option>
            </select>
          </label>
          {!isMarket && (
            <label class="check" title="Refused rather than traded at once: you are never the taker">
              <input type="checkbox" checked={form.postOnly} onChange={(event) => change({ postOnly: event.currentTarget.checked })} />
              <span>Post-only</span>
            </label>
          )}
        </div>
        <p class="problem" id="tif-problem">
          {problems.tif}
        </p>
        <dl class="facts">
          {isMarket && (
            <div>
              <dt>Mean price now</dt>
              <dd>{found?.meanTicks ? grouped(shown.priceText(found.meanTicks)) : '–'}</dd>
            </div>
          )}
          <div>
            <dt>{form.side === 'buy' ? 'Cost' : 'Proceeds'}</dt>
            <dd>{money(found?.notional ?? null)}</dd>
          </div>
          <div>
            <dt>
              Fee <small>{found?.takes ? 'taker' : 'maker'} {((found?.takes ? info.taker_fee_ppm : info.maker_fee_ppm) / 10_000).toFixed(3)} %</small>
            </dt>
            <dd>{money(found?.fee ?? null)}</dd>
          </div>
          <div title="Set aside until the order is done; includes the worst fee">
            <dt>Held</dt>
            <dd>{found?.hold ? `${grouped(formatExact(found.hold, spentDecimals))} ${spent}` : '–'}</dd>
          </div>
        </dl>
        {found?.warning && <p class="warning">{found.warning}</p>}
        {ready ? (
          <button class={`submit ${form.side}`} type="submit" aria-disabled={blocked}>
            {form.side === 'buy' ? 'Buy' : 'Sell'} {info.base}
          </button>
        ) : (
          <Connect />
        )}
        <p class="problem form-problem">{ready && problems.form}</p>
      </form>
      <AccountBox />
    </section>
  );
}

/** What the account has of this market's two assets, and where its orders stand. */
function AccountBox() {
  const info = market.value?.info;
  if (!info || accountId.value === null) return null;
  const rows = [info.base_asset_id, info.quote_asset_id].map((id) => balances.value.find((one) => one.asset_id === id)).filter((one) => one !== undefined);
  const open = [...openOrders.value.values()].filter((order) => order.market === info.symbol).length;
  return (
    <div class="account-box">
      <h2>Account {String(accountId.value)}</h2>
      <table class="data">
        <caption class="unseen">Balances of this market's assets</caption>
        <thead>
          <tr>
            <th scope="col">Asset</th>
            <th scope="col" class="number">
              Held
            </th>
            <th scope="col" class="number">
              Total
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((one) => (
            <tr key={one.asset_id}>
              <td>{one.asset}</td>
              <td class="number">{grouped(trimmed(one.held))}</td>
              <td class="number">{grouped(trimmed(one.total))}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="quiet-text">
        {open === 0 ? 'No open orders in this market.' : `${open} open ${open === 1 ? 'order' : 'orders'} in this market.`}
      </p>
    </div>
  );
}

const trimmed = (decimal: string): string => (decimal.includes('.') ? decimal.replace(/\.?0+$/, '') : decimal);

function BestButton(props: { side: 'buy' | 'sell'; text: string }) {
  return (
    <button
      type="button"
      title={props.side === 'buy' ? 'Best bid' : 'Best ask'}
      onClick={() => {
        const best = props.side === 'buy' ? live.book.bids[0] : live.book.asks[0];
        if (best && market.value) change({ price: market.value.priceText(BigInt(best.ticks)) });
      }}
    >
      {props.text}
    </button>
  );
}

function Connect() {
  const state = tradingState.value;
  if (accountId.value === null && version.value?.demo)
    return (
      <button class="submit primary" type="button" onClick={() => void openDemoAccount()}>
        Open a demo account
      </button>
    );
  if (state === 'off' || accountId.value === null)
    return (
      <button class="submit primary" type="button" onClick={() => (dialog.value = 'account')}>
        {state === 'off' ? 'Make a key to trade' : 'This key has no account'}
      </button>
    );
  return (
    <button class="submit" type="button" disabled>
      {state === 'connecting' ? 'Signing on…' : 'Reconnecting…'}
    </button>
  );
}
