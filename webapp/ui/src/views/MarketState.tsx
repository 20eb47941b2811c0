// The state of the market that is shown: a tag for the header, and a note for the order form where it is not continuous.

import { grouped } from '../market/decimal';
import { countdown, stateIs, stateName, stateTakes, takesOrders } from '../market/phase';
import { live } from '../state/live';
import { bookTick, market, phase, timeText } from '../state/store';

/** How long yet; empty where the state does not end by itself. */
function leftText(until: string): string {
  if (!until) return '';
  bookTick.value;
  return countdown(Date.parse(until) - live.nowMs());
}

/** The state of the market, and for how long yet. */
export function StateTag() {
  const { state, until } = phase.value;
  if (!market.value) return null;
  const kind = state === 'continuous' ? 'wide-only' : takesOrders(state) ? 'warn' : 'bad';
  return (
    <span class={`tag state ${kind}`} title={stateTakes(state)}>
      {stateName(state)} {leftText(until)}
    </span>
  );
}

/** What the market takes now, until when, and what its auction would trade. */
export function StateNote() {
  const { state, until, indicative_price: price, indicative_qty: qty } = phase.value;
  const shown = market.value;
  if (!shown || !state || state === 'continuous') return null;
  const auction = state === 'pre_open' || state === 'auction' || state === 'closing_auction';
  return (
    <div class={`state-note ${takesOrders(state) ? 'warn' : 'bad'}`} role="status">
      <p>
        <strong>
          {shown.symbol} is {stateIs(state)}
        </strong>
        {until && ` until ${timeText.value(until)}`}. {stateTakes(state)}
      </p>
      {auction && (
        <p class="indicated">
          {price ? (
            <>
              The auction would trade <b>{qty}</b> {shown.info.base} at <b>{grouped(shown.priceText(shown.ticksOf(price)))}</b>.
            </>
          ) : (
            'Nothing would trade in the auction now.'
          )}
        </p>
      )}
    </div>
  );
}
