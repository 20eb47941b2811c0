// Everything that the exchange still tells of an account's orders and fills, page by page, as CSV.

import { signal } from '@preact/signals';
import { Problem, allPages } from '../net/api';
import type { Fill, Order } from '../net/api';
import { authorise } from './entry';
import { api } from './links';
import { currentOf, fillKey, isOpen, newestFirst, pastKey } from './orders';
import { fills, pastOrders } from './store';

/** How many rows have come so far; null while nothing is exported. */
export const exported = signal<number | null>(null);

/** A session that the server has forgotten is made anew, once. */
async function ask<Answer>(path: string): Promise<Answer> {
  try {
    if (!api.authorised) await authorise();
    return await api.get<Answer>(path);
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
    await authorise();
    return api.get<Answer>(path);
  }
}

async function collected<Row>(path: string, field: string): Promise<Row[]> {
  exported.value = 0;
  try {
    return await allPages<Row>(ask, path, field, (rows) => (exported.value = rows));
  } finally {
    exported.value = null;
  }
}

/** Orders that are gone, newest first: each as its last report has it, with the time at which it was entered. */
export async function allPastOrders(): Promise<Order[]> {
  const reports = await collected<Order>('/orders/history', 'orders');
  const told = [...currentOf(reports).values()].filter((order) => !isOpen(order));
  // What the page has seen itself may be older than what the exchange keeps.
  const keys = new Set(told.map(pastKey));
  return [...told, ...pastOrders.value.filter((order) => !keys.has(pastKey(order)))].sort(newestFirst);
}

export async function allFills(): Promise<Fill[]> {
  const told = await collected<Fill>('/fills', 'fills');
  const keys = new Set(told.map(fillKey));
  return [...told, ...fills.value.filter((fill) => !keys.has(fillKey(fill)))];
}
