// The built page in front of a running exchange, which tests/webapp/test_live.py starts: ZX_LIVE_WEB and ZX_LIVE_ADMIN are its
// addresses, ZX_LIVE_DATA its folder. BTC-USD trades around 50,000, with orders of somebody else on both sides.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { open, openAccount, sendOrder, synced, text, useBrowser } from '../browser/kit';

useBrowser();

const rowHas = (page: Page, wanted: string) => page.waitForSelector(`#tab-panel tbody tr:has(td:has-text("${wanted}"))`);

/** Ends a process of the exchange as a crash would; its supervisor starts another. */
function kill(name: string): void {
  const { processes } = JSON.parse(readFileSync(join(process.env.ZX_LIVE_DATA!, 'run/exchange.json'), 'utf8')) as { processes: Record<string, { pid: number }> };
  process.kill(processes[name]!.pid, 'SIGKILL');
}

async function admin(path: string, body: object): Promise<void> {
  const answer = await fetch(`${process.env.ZX_LIVE_ADMIN}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
  expect(answer.ok, await answer.text()).toBe(true);
}

const setState = (state: string, market = 'BTC-USD') => admin(`/markets/${market}/state`, { state });

async function limit(page: Page, price: string, size: string): Promise<void> {
  await page.click('.sides [data-value="buy"]');
  await page.click('.order-form [data-value="limit"]');
  await page.fill('#price', price);
  await page.fill('#size', size);
  await sendOrder(page);
}

it('loads, follows the book and verifies checkpoints', async () => {
  const { page, context, faults } = await open();
  await page.waitForSelector('.badge.good');
  await page.waitForSelector('.market-button .state:has-text("continuous")', { state: 'attached' });
  await page.waitForFunction(() => /verified to seq \d/.test(document.querySelector('.ladder-foot')?.textContent ?? ''));
  await page.click('#tab-operations');
  await page.waitForSelector('.operations table:has(caption:text-is("Shards")) td:has-text("BTC-USD")');
  await page.waitForSelector('.operations .cores meter');
  await page.waitForSelector('.operations table:has(caption:text-is("Latency by stage, the last ten seconds")) tr:has(td:text-is("acknowledge"))');
  await page.waitForSelector('.operations table:has(caption:text-is("What waits")) tr:has(th:text-is("Sessions at order entry"))');
  await page.waitForSelector('.operations table.data td:has-text("matcher-0")');
  expect(faults).toEqual([]);
  await context.close();
});

describe('orders', () => {
  it('rest, are committed to by a checkpoint, amended and cancelled', async () => {
    const { page, context, faults } = await open();
    await openAccount(page);
    await limit(page, '40000', '0.5');
    await rowHas(page, '40,000.00');
    await page.waitForSelector('#tab-panel .life[data-stage="3"]');
    await page.click('button[aria-label^="Amend order"]');
    await page.fill('input[aria-label^="New price"]', '41000');
    await page.fill('input[aria-label^="New shown size"]', '0.1');
    await page.keyboard.press('Enter');
    await page.click('dialog .submit');
    await rowHas(page, '41,000.00');
    await rowHas(page, '0.1000');
    await page.click('button[aria-label^="Cancel order"]');
    await page.waitForSelector('.empty:has-text("No open orders")');
    await page.click('#tab-history');
    await rowHas(page, 'cancelled');
    expect(faults).toEqual([]);
    await context.close();
  });

  it('cross, fill, change the balance, and are proved', async () => {
    const { page, context, faults } = await open();
    await openAccount(page);
    const before = await text(page, '.order-form .facts dd');
    await page.click('.order-form [data-value="market"]');
    await page.fill('#size', '0.05');
    await sendOrder(page);
    await page.waitForSelector('.toast:has-text("Order filled")');
    await page.waitForFunction((was) => document.querySelector('.order-form .facts dd')?.textContent !== was, before);
    await page.click('#tab-fills');
    await page.waitForSelector('#tab-panel .life[data-stage="3"]');
    await page.click('#tab-verify');
    await page.waitForSelector('.check-line.good:has-text("Your balance")');
    await page.waitForSelector('.check-line.good:has-text("Your last fill")');
    expect(faults).toEqual([]);
    await context.close();
  });

  it('of every kind are taken, and told of again after a reload', async () => {
    const { page, context, faults } = await open();
    await openAccount(page);
    await page.fill('#price', '45000');
    await page.fill('#size', '0.2');
    await page.selectOption('#tif', 'gtd');
    await page.fill('#expiry', '2099-12-31T12:00:00');
    await page.click('.advanced summary');
    await page.fill('#display', '0.05');
    await sendOrder(page);
    await rowHas(page, 'iceberg');
    await page.fill('#display', '');
    await page.click('.advanced .check:has-text("Hidden")');
    await page.click('.check:has-text("Post-only")');
    await page.selectOption('#tif', 'day');
    await page.fill('#price', '44000');
    await sendOrder(page);
    await rowHas(page, 'limit · day · post-only · hidden');
    await page.click('.advanced .check:has-text("Hidden")');
    await page.click('.check:has-text("Post-only")');
    await page.click('.advanced .check:has-text("With a stop")');
    await page.fill('#pair-trigger', '70000');
    await page.fill('#price', '43000');
    await sendOrder(page);
    await rowHas(page, 'pair');
    for (const [type, field, value, said] of [
      ['stop', '#trigger', '60000', '≥ 60,000.00'],
      ['take_profit', '#trigger', '42000', '≤ 42,000.00'],
      ['trailing_stop', '#trail', '2.5', 'trails 2.5 %'],
    ] as const) {
      await page.selectOption('.types select', type);
      await page.fill(field, value);
      await sendOrder(page);
      await rowHas(page, said);
    }
    await page.selectOption('.types select', 'stop_limit');
    await page.fill('#trigger', '61000');
    await page.fill('#price', '61500');
    await page.selectOption('#tif', 'gtc');
    await sendOrder(page);
    await rowHas(page, 'stop limit');
    await page.waitForSelector('#tab-orders .count:text-is("8")');
    await page.reload();
    await synced(page);
    await page.waitForSelector('#tab-orders .count:text-is("8")');
    for (const told of ['iceberg', 'limit · day · post-only · hidden', 'one cancels the other: order', '≥ 60,000.00', 'take profit', 'trails 2.5 %', 'stop limit', '2099-12-31 12:00:00'])
      await rowHas(page, told);
    await page.locator('#tab-panel tbody tr:has(td:has-text("trails 2.5 %")) button[aria-label^="Amend"]').click();
    await page.fill('input[aria-label^="New trigger"]', '4');
    await page.keyboard.press('Enter');
    await page.click('dialog .submit');
    await rowHas(page, 'trails 4 %');
    await page.click('button:text-is("Cancel all")');
    await page.click('dialog button:has-text("All markets")');
    await page.waitForSelector('#tab-orders .count', { state: 'detached' });
    await page.reload();
    await synced(page);
    await page.click('#tab-history');
    for (const told of ['iceberg', 'limit · day · post-only · hidden', 'trailing stop', 'pair']) await rowHas(page, told);
    expect(faults).toEqual([]);
    await context.close();
  });
});

it('a halted market is explained, and orders go on when it is continuous again', async () => {
  const { page, context } = await open();
  await openAccount(page);
  await setState('halted');
  await page.waitForSelector('.state-note:has-text("BTC-USD is halted")');
  await page.fill('#price', '40000');
  await page.fill('#size', '0.1');
  await page.waitForSelector('.order-form .submit[aria-disabled="true"]');
  await setState('continuous');
  await page.waitForSelector('.state-note', { state: 'detached' });
  await limit(page, '40000', '0.1');
  await rowHas(page, '40,000.00');
  await context.close();
});

it('a new asset, a new market and other sizes are there without a reload', async () => {
  const { page, context, faults } = await open();
  await openAccount(page);
  await admin('/assets', { symbol: 'GOLD', decimals: 4 });
  await admin('/markets', { symbol: 'GOLD-USD', base: 'GOLD', quote: 'USD', tick_size: '0.05', lot_size: '0.001' });
  await page.click('#tab-balances');
  await page.click('#tab-panel .empty:has-text("None yet of GOLD") button');
  await rowHas(page, '100.0000');
  await page.waitForSelector('#tab-panel .empty', { state: 'detached' });
  await page.click('#tab-orders');
  await page.keyboard.press('/');
  await page.click('.market-list :text-is("GOLD-USD")');
  await page.waitForSelector('.ladder:not([data-stale])');
  await limit(page, '1900.05', '0.125');
  await rowHas(page, '1,900.05');
  await page.waitForSelector('.level[data-own]');
  await page.click('button[aria-label^="Cancel order"]');
  await page.waitForSelector('.empty:has-text("No open orders")');
  await setState('closed', 'GOLD-USD');
  await page.waitForSelector('.state-note:has-text("GOLD-USD is closed")');
  await admin('/markets/GOLD-USD/sizes', { tick_size: '0.5', lot_size: '0.01' });
  await page.waitForSelector('label[for="price"]:has-text("steps of 0.5")');
  await setState('continuous', 'GOLD-USD');
  await page.waitForSelector('.ladder:not([data-stale])');
  await page.fill('#price', '1900.05');
  await page.waitForSelector('#price-problem:has-text("1900.0 or 1900.5")');
  await limit(page, '1900.5', '0.12');
  await rowHas(page, '1,900.5');
  await page.waitForSelector('.level[data-own]');
  expect(faults).toEqual([]);
  await context.close();
});

describe('when a process dies', () => {
  it('the book is greyed while the web process is gone, and synchronised again', async () => {
    const { page, context } = await open();
    await openAccount(page);
    kill('web');
    await page.waitForSelector('.ladder[data-stale]');
    await synced(page);
    await page.waitForSelector('.form-panel .submit.buy');
    await limit(page, '40000', '0.1');
    await rowHas(page, '40,000.00');
    await context.close();
  });

  it('orders go on after the matcher was replaced', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await limit(page, '40000', '0.1');
    await rowHas(page, '40,000.00');
    kill('matcher-0');
    await page.waitForSelector('.form-panel .submit.buy');
    await limit(page, '39000', '0.1');
    await rowHas(page, '39,000.00');
    await rowHas(page, '40,000.00');
    await page.waitForSelector('.badge.good');
    expect(await page.$('.banner.bad')).toBeNull();
    await context.close();
  });
});
