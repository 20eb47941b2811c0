// The order form. Every figure follows from `assess`; every broken rule of the market is said beside its field, before
// anything is sent.

import { formatExact, grouped } from '../market/decimal';
import { hasLimit, lotsForPercent, triggerOf } from '../market/draft';
import type { Draft, OrderKind } from '../market/draft';
import { takesOrders } from '../market/phase';
import { available, openDemoAccount } from '../state/controller';
import { live } from '../state/live';
import { accountId, balances, dialog, draft, market, openOrders, phase, tradingState, version } from '../state/store';
import { Segments } from './bits';
import { assessment, change, submit } from './form';
import { Advanced, PriceField, SizeField, TimeFields, TriggerField } from './OrderFields';
import { StateNote } from './MarketState';

const PERCENTS = [25, 50, 75, 100];
const CONDITIONAL: readonly (readonly [OrderKind, string])[] = [
  ['stop', 'Stop'],
  ['stop_limit', 'Stop limit'],
  ['take_profit', 'Take profit'],
  ['trailing_stop', 'Trailing stop'],
];

/** Limit and market at a click; orders that wait for a price in a list. */
function TypeChoice(props: { form: Draft }) {
  const { type } = props.form;
  const waits = triggerOf(props.form) !== 'none';
  return (
    <div class="types">
      <Segments label="Order type" class="tabs" value={type} choices={[['limit', 'Limit'], ['market', 'Market']]} onChoose={(value) => change({ type: value })} />
      <select
        class={waits ? 'chosen' : ''}
        aria-label="Order that waits for a price"
        value={waits ? type : ''}
        onChange={(event) => change({ type: (event.currentTarget.value || 'limit') as OrderKind })}
      >
        <option value="">Conditional…</option>
        {CONDITIONAL.map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
    </div>
  );
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
  const blocked = !found || Object.keys(problems).length > 0;
  const ready = accountId.value !== null && tradingState.value === 'established';
  const takes = (found?.takes ?? false) || (!hasLimit(form) && form.type !== 'market');
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
          submit();
        }}
      >
        <Segments label="Side" class="sides" value={form.side} choices={[['buy', 'Buy'], ['sell', 'Sell']]} onChoose={(side) => change({ side })} />
        <TypeChoice form={form} />
        <StateNote />
        <dl class="facts">
          <div>
            <dt>Available{balances.value.some((one) => (one.shards?.length ?? 0) > 1) && <small> on shard {info.shard}</small>}</dt>
            <dd>{spentUnits === undefined ? '–' : `${grouped(formatExact(spentUnits, spentDecimals))} ${spent}`}</dd>
          </div>
        </dl>
        <TriggerField market={shown} />
        <PriceField market={shown} />
        <SizeField market={shown} />
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
        <TimeFields />
        <Advanced market={shown} />
        <dl class="facts">
          {form.type === 'market' && (
            <div>
              <dt>Mean price now</dt>
              <dd>{found?.meanTicks ? grouped(shown.priceText(found.meanTicks)) : '–'}</dd>
            </div>
          )}
          <div>
            <dt>{found?.maxNotional ? 'Spends at most' : form.side === 'buy' ? 'Cost' : 'Proceeds'}</dt>
            <dd>{money(found?.notional ?? null)}</dd>
          </div>
          <div>
            <dt>
              Fee <small>{takes ? 'taker' : 'maker'} {((takes ? info.taker_fee_ppm : info.maker_fee_ppm) / 10_000).toFixed(3)} %</small>
            </dt>
            <dd>{money(found?.fee ?? null)}</dd>
          </div>
          <div title="Set aside until the order is done; includes the worst fee">
            <dt>Held{found?.pair && <small> for both</small>}</dt>
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
        <p class="problem form-problem">{ready && takesOrders(phase.value.state || info.state) && problems.form}</p>
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

function Connect() {
  const state = tradingState.value;
  const isWaiting = state === 'connecting' || state === 'reconnecting';
  if (accountId.value === null && version.value?.demo && !isWaiting)
    return (
      <button class="submit primary" type="button" onClick={() => void openDemoAccount()}>
        Open a demo account
      </button>
    );
  if (state === 'off' || (accountId.value === null && !isWaiting))
    return (
      <button class="submit primary" type="button" onClick={() => (dialog.value = 'account')}>
        {state === 'off' ? 'Make a key to trade' : 'This key has no account'}
      </button>
    );
  return (
    <button class="submit" type="button" disabled>
      {state === 'reconnecting' ? 'Reconnecting…' : 'Signing on…'}
    </button>
  );
}
