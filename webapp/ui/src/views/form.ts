// What the parts of the order form share: what it makes of the draft, and how the draft is changed.

import { computed, signal } from '@preact/signals';
import { draftTicks, hasLimit } from '../market/draft';
import type { Draft, Field } from '../market/draft';
import { assessDraft, submitDraft } from '../state/controller';
import { live } from '../state/live';
import { accountId, balances, bookState, bookTick, draft, market } from '../state/store';

/** Whether the form was sent and refused as it stands. */
export const tried = signal(false);
export const advancedOpen = signal(false);

export const assessment = computed(() => {
  bookTick.value;
  bookState.value;
  balances.value;
  accountId.value;
  return assessDraft();
});

export function change(part: Partial<Draft>): void {
  tried.value = false;
  draft.value = { ...draft.value, ...part };
}

/** In the order of the form, with the element to go to. */
const ELEMENTS: readonly (readonly [Field, string])[] = [
  ['trigger', 'trigger'],
  ['trail', 'trail'],
  ['price', 'price'],
  ['size', 'size'],
  ['tif', 'tif'],
  ['expiry', 'expiry'],
  ['display', 'display'],
  ['minimum', 'minimum'],
  ['pair', 'pair-trigger'],
];
const ADVANCED: ReadonlySet<Field> = new Set(['display', 'minimum', 'pair']);

/** Sends the draft; if it breaks a rule, goes to the first field that does. */
export function submit(): void {
  tried.value = !submitDraft();
  if (!tried.value) return;
  const problems = assessDraft()?.problems ?? {};
  const found = ELEMENTS.find(([field]) => problems[field]);
  if (!found) return;
  if (ADVANCED.has(found[0])) advancedOpen.value = true;
  // What was closed opens after this turn.
  requestAnimationFrame(() => document.getElementById(found[1])?.focus());
}

/** What is wrong with a field; an empty one is no mistake until somebody wants to send it. */
export function problemOf(field: Field, typed: string | boolean): string | undefined {
  return typed || tried.value ? assessment.value?.problems[field] : undefined;
}

/** Moves the price by whole ticks; an empty field starts at the best price of the own side. */
export function stepPrice(ticks: bigint): void {
  const shown = market.value;
  if (!shown || !hasLimit(draft.value)) return;
  const best = draft.value.side === 'buy' ? live.book.bids[0] : live.book.asks[0];
  const now = draftTicks(draft.value, shown, live.book) ?? (best ? BigInt(best.ticks) - ticks : 0n);
  const next = now + ticks;
  if (next > 0n) change({ price: shown.priceText(next) });
}
