// The fields of the order form. Each says its rule beside it, and what is wrong with what was typed.

import type { ComponentChildren } from 'preact';
import { grouped } from '../market/decimal';
import { hasLimit, mayHaveMinimum, mayPost, maySpend, stays, tifOf, tifsOf, triggerOf, waitsAbove } from '../market/draft';
import type { Draft, Field, SelfTradePrevention, TimeInForce } from '../market/draft';
import type { Market } from '../market/market';
import { live } from '../state/live';
import { settings } from '../state/settings';
import { draft, phase } from '../state/store';
import { Segments } from './bits';
import { advancedOpen, assessment, change, problemOf, stepPrice } from './form';

interface InputProps {
  id: string;
  field: Field;
  label: string;
  hint?: ComponentChildren;
  value: string;
  onInput: (value: string) => void;
  onKeyDown?: (event: KeyboardEvent) => void;
  children?: ComponentChildren;
}

/** A field for a number, with what belongs to it on its right. */
function NumberField(props: InputProps) {
  const problem = problemOf(props.field, props.value);
  return (
    <div class="field">
      <label for={props.id}>
        {props.label} {props.hint && <small>{props.hint}</small>}
      </label>
      <div class="input-row">
        <input
          id={props.id}
          inputMode="decimal"
          autoComplete="off"
          value={props.value}
          aria-invalid={problem ? true : undefined}
          aria-describedby={`${props.id}-problem`}
          onInput={(event) => props.onInput(event.currentTarget.value)}
          onKeyDown={props.onKeyDown}
        />
        {props.children}
      </div>
      <p class="problem" id={`${props.id}-problem`}>
        {problem}
      </p>
    </div>
  );
}

const direction = (form: Draft): string => (waitsAbove(triggerOf(form), form.side) ? 'rises' : 'falls');

/** What an order waits for: a price, or a distance from the best price since it was entered. */
export function TriggerField(props: { market: Market }) {
  const form = draft.value;
  const { info } = props.market;
  const trigger = triggerOf(form);
  if (trigger === 'none') return null;
  const start = assessment.value?.startTicks;
  const verb = form.side === 'buy' ? 'Buys' : 'Sells';
  if (trigger === 'trailing')
    return (
      <>
        <NumberField
          id="trail"
          field="trail"
          label="Distance"
          hint={start ? `now ${grouped(props.market.priceText(start))}` : `behind the ${form.side === 'buy' ? 'lowest' : 'highest'} price`}
          value={form.trail}
          onInput={(trail) => change({ trail })}
        >
          <Segments label="Distance in" value={form.trailUnit} choices={[['percent', '%'], ['price', info.quote]]} onChoose={(trailUnit) => change({ trailUnit, trail: '' })} />
        </NumberField>
        <p class="rule">
          {verb} once the price {form.side === 'buy' ? 'rises this far from its lowest' : 'falls this far from its highest'} since the order was entered.
        </p>
      </>
    );
  return (
    <NumberField
      id="trigger"
      field="trigger"
      label="Trigger"
      hint={`${verb.toLowerCase()} once the price ${direction(form)} to it`}
      value={form.trigger}
      onInput={(text) => change({ trigger: text })}
    >
      <span class="unit">{info.quote}</span>
    </NumberField>
  );
}

/** The limit, or how far from the best or the trigger price a fill may be. */
export function PriceField(props: { market: Market }) {
  const form = draft.value;
  const shown = props.market;
  if (hasLimit(form))
    return (
      <NumberField
        id="price"
        field="price"
        label={form.type === 'limit' ? 'Price' : 'Limit'}
        hint={`${shown.info.quote}, in steps of ${shown.info.tick_size}`}
        value={form.price}
        onInput={(price) => change({ price })}
        onKeyDown={(event) => {
          if (event.key !== 'ArrowUp' && event.key !== 'ArrowDown') return;
          event.preventDefault();
          stepPrice((event.key === 'ArrowUp' ? 1n : -1n) * (event.shiftKey ? 10n : 1n));
        }}
      >
        <BestButton side="buy" text="Bid" market={shown} />
        <BestButton side="sell" text="Ask" market={shown} />
      </NumberField>
    );
  const found = assessment.value;
  const problem = problemOf('price', true);
  return (
    <div class="field">
      <label for="protection">
        Worst price <small>at most this far from {form.type === 'market' ? 'the best' : 'the trigger'}</small>
      </label>
      <div class="input-row">
        <select id="protection" value={form.protectionBps} aria-describedby="price-problem" onChange={(event) => change({ protectionBps: Number(event.currentTarget.value) })}>
          {[10, 50, 100, 200, 500].map((bps) => (
            <option key={bps} value={bps}>
              {bps / 100} %
            </option>
          ))}
        </select>
        <output class="worst">{found?.ticks ? grouped(shown.priceText(found.ticks)) : '–'}</output>
      </div>
      {form.type === 'trailing_stop' && <p class="rule">A limit: it stays where it is now while the trigger follows the price.</p>}
      <p class="problem" id="price-problem">
        {problem}
      </p>
    </div>
  );
}

function BestButton(props: { side: 'buy' | 'sell'; text: string; market: Market }) {
  return (
    <button
      type="button"
      title={props.side === 'buy' ? 'Best bid' : 'Best ask'}
      onClick={() => {
        const best = props.side === 'buy' ? live.book.bids[0] : live.book.asks[0];
        if (best) change({ price: props.market.priceText(BigInt(best.ticks)) });
      }}
    >
      {props.text}
    </button>
  );
}

export function SizeField(props: { market: Market }) {
  const form = draft.value;
  const { info } = props.market;
  return (
    <NumberField
      id="size"
      field="size"
      label={maySpend(form) ? 'Amount' : 'Size'}
      hint={maySpend(form) ? 'the most it spends, fee included' : form.unit === 'base' ? `in steps of ${info.lot_size}` : 'of which whole lots are bought'}
      value={form.size}
      onInput={(size) => change({ size })}
    >
      <Segments label="Size in" value={form.unit} choices={[['base', info.base], ['quote', info.quote]]} onChoose={(unit) => change({ unit, size: '' })} />
    </NumberField>
  );
}

/** Name, and what it means. */
const TIFS: Readonly<Partial<Record<TimeInForce, readonly [string, string]>>> = {
  gtc: ['Good till cancelled', ''],
  day: ['For the day', 'Ends at midnight UTC.'],
  gtd: ['Till a date', 'Ends at the time below.'],
  ioc: ['Immediate or cancel', 'What does not trade at once is cancelled.'],
  fok: ['Fill or kill', 'All of it trades at once, or it is refused.'],
  atTheOpen: ['At the open', 'Waits unseen until orders are gathered for the auction that opens the market; what is left ends with it.'],
  atTheClose: ['At the close', 'Waits unseen until the closing auction begins and trades in it; what is left ends with it.'],
};

export function TimeFields() {
  const form = draft.value;
  const tif = tifOf(form);
  const utc = settings.value.clock === 'utc';
  const expiryProblem = problemOf('expiry', form.expiry);
  return (
    <>
      <div class="options">
        <label>
          <span>Time in force</span>
          <select id="tif" value={tif} aria-describedby="tif-rule tif-problem" onChange={(event) => change({ tif: event.currentTarget.value as TimeInForce })}>
            {tifsOf(form).map((one) => (
              <option key={one} value={one}>
                {TIFS[one]?.[0]}
              </option>
            ))}
          </select>
        </label>
        {mayPost(form) && (
          <span class="checks-row">
            <label class="check" title="Refused rather than traded at once: you are never the taker">
              <input type="checkbox" checked={form.postOnly} onChange={(event) => change({ postOnly: event.currentTarget.checked })} />
              <span>Post-only</span>
            </label>
            {form.postOnly && (
              <label class="check" title="One tick away from the best opposite price rather than refused">
                <input type="checkbox" checked={form.slide} onChange={(event) => change({ slide: event.currentTarget.checked })} />
                <span>Slide</span>
              </label>
            )}
          </span>
        )}
      </div>
      <p class="rule" id="tif-rule">
        {TIFS[tif]?.[1]}
        {form.postOnly && mayPost(form) && (form.slide ? ' Where it would trade, it takes the price one tick before.' : ' Where it would trade, it is refused.')}
      </p>
      <p class="problem" id="tif-problem">
        {assessment.value?.problems.tif}
      </p>
      {tif === 'gtd' && (
        <div class="field">
          <label for="expiry">
            Ends <small>{utc ? 'UTC' : 'local time'}</small>
          </label>
          <div class="input-row">
            <input
              id="expiry"
              type="datetime-local"
              step={1}
              value={form.expiry}
              aria-invalid={expiryProblem ? true : undefined}
              aria-describedby="expiry-problem"
              onInput={(event) => change({ expiry: event.currentTarget.value })}
            />
          </div>
          <p class="problem" id="expiry-problem">
            {expiryProblem}
          </p>
        </div>
      )}
    </>
  );
}

const SELF_TRADES: readonly (readonly [SelfTradePrevention, string])[] = [
  ['cancelNewest', 'Cancel the new order'],
  ['cancelOldest', 'Cancel the resting order'],
  ['cancelBoth', 'Cancel both'],
  ['decrement', 'Lower both'],
];

/** What few orders need: closed until somebody opens it, and saying when something is set. */
export function Advanced(props: { market: Market }) {
  const form = draft.value;
  const { info } = props.market;
  const shows = hasLimit(form) && stays(form);
  const pairs = form.type === 'limit' && stays(form);
  const set = [
    shows && form.display && 'iceberg', shows && form.hidden && 'hidden', mayHaveMinimum(form) && form.minimum && 'minimum', pairs && form.paired && 'pair',
    triggerOf(form) !== 'none' && form.onReference && 'reference price', form.selfTrade !== 'cancelNewest' && 'self-trade',
  ].filter(Boolean);
  const broken = problemOf('display', form.display) ?? problemOf('minimum', form.minimum) ?? problemOf('pair', form.pairTrigger);
  return (
    <details class="advanced" open={advancedOpen.value} onToggle={(event) => (advancedOpen.value = event.currentTarget.open)}>
      <summary>
        Advanced {set.length > 0 && <small class={broken ? 'bad' : 'accent'}>{set.join(', ')}</small>}
        {broken && !advancedOpen.value && <span class="problem"> {broken}</span>}
      </summary>
      {shows && (
        <>
          <NumberField id="display" field="display" label="Show at a time" hint="empty shows all of it" value={form.display} onInput={(display) => change({ display, hidden: false })}>
            <span class="unit">{info.base}</span>
          </NumberField>
          <label class="check" title="Not in the book that others see; behind what is shown at its price">
            <input type="checkbox" checked={form.hidden} onChange={(event) => change({ hidden: event.currentTarget.checked, ...(event.currentTarget.checked ? { display: '' } : {}) })} />
            <span>
              Hidden <small>behind what is shown at its price</small>
            </span>
          </label>
        </>
      )}
      {mayHaveMinimum(form) && (
        <NumberField id="minimum" field="minimum" label="At least" hint="refused if less would trade" value={form.minimum} onInput={(minimum) => change({ minimum })}>
          <span class="unit">{info.base}</span>
        </NumberField>
      )}
      {triggerOf(form) !== 'none' && (
        <label class="check">
          <input type="checkbox" checked={form.onReference} onChange={(event) => change({ onReference: event.currentTarget.checked })} />
          <span>
            Follow the reference price <small>{phase.value.reference_price ? grouped(phase.value.reference_price) : 'there is none now'}</small>
          </span>
        </label>
      )}
      {pairs && (
        <>
          <label class="check">
            <input type="checkbox" checked={form.paired} onChange={(event) => change({ paired: event.currentTarget.checked })} />
            <span>
              With a stop <small>one cancels the other</small>
            </span>
          </label>
          {form.paired && (
            <NumberField
              id="pair-trigger"
              field="pair"
              label="Stop"
              hint={`${form.side === 'buy' ? 'buys' : 'sells'} at market once the price ${form.side === 'buy' ? 'rises' : 'falls'} to it`}
              value={form.pairTrigger}
              onInput={(pairTrigger) => change({ pairTrigger })}
            >
              <span class="unit">{info.quote}</span>
            </NumberField>
          )}
        </>
      )}
      <div class="options">
        <label>
          <span>When it meets an order of your own</span>
          <select value={form.selfTrade} onChange={(event) => change({ selfTrade: event.currentTarget.value as SelfTradePrevention })}>
            {SELF_TRADES.map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
        </label>
      </div>
    </details>
  );
}
