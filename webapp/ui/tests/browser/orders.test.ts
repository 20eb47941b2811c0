// Every type of order: how it is entered, what its row says, and how it is changed and ends.

import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { decode } from '../../src/wire/codec';
import type { Command } from '../../src/wire/messages';
import { fromHex } from '../../src/wire/bytes';
import { make, open, openAccount, sendOrder, synced, text, useBrowser } from './kit';

useBrowser();

/** The commands of the last batch that the exchange was sent. */
async function sent(): Promise<readonly Command[]> {
  const { frame } = (await make('last-batch')) as { frame: string };
  const batch = decode(fromHex(frame));
  return batch.message === 'SignedBatch' ? batch.commands : [];
}

const rowHas = (page: Page, wanted: string) => page.waitForSelector(`#tab-panel tbody tr:has(td:has-text("${wanted}"))`);
const waiting = (page: Page, type: string) => page.selectOption('.types select', type);

async function history(page: Page, outcome: string): Promise<void> {
  await page.click('#tab-history');
  await rowHas(page, outcome);
}

describe('orders that wait for a price', () => {
  it('a stop is explained, shown with what it waits for, amended, triggered and filled', async () => {
    const { page, context, faults } = await open();
    await openAccount(page);
    await page.click('.sides [data-value="sell"]');
    await waiting(page, 'stop');
    await page.waitForSelector('label[for="trigger"]:has-text("sells once the price falls to it")');
    await page.fill('#size', '0.01');
    await page.fill('#trigger', '90000');
    await page.waitForSelector('#trigger-problem:has-text("must be below")');
    await page.fill('#trigger', '50000');
    await page.waitForSelector('.worst:has-text("49,500.0")');
    await sendOrder(page);
    await rowHas(page, '≤ 50,000.0');
    expect((await sent())[0]).toMatchObject({ trigger: 'stop', orderType: 'market', timeInForce: 'ioc', triggerTicks: 100_000n, priceTicks: 99_000n });

    await page.click('button[aria-label^="Amend order"]');
    await page.fill('input[aria-label^="New trigger"]', '51000');
    await page.keyboard.press('Enter');
    await page.click('dialog .submit');
    await rowHas(page, '≤ 51,000.0');
    expect((await sent())[0]).toMatchObject({ kind: 'amend', triggerTicks: 102_000n, priceTicks: 0n, qtyLots: 0n });

    await make('trade?value=50500');
    await page.waitForSelector('#tab-orders .count', { state: 'detached' });
    await page.waitForSelector('.toast:has-text("Order triggered")');
    await history(page, 'triggered, filled');
    expect(faults).toEqual([]);
    await context.close();
  });

  it('a trailing stop follows by a distance, in percent or as a price', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await page.click('.sides [data-value="sell"]');
    await waiting(page, 'trailing_stop');
    await page.fill('#size', '0.01');
    await page.fill('#trail', '200');
    await page.waitForSelector('#trail-problem:has-text("below 100 %")');
    await page.fill('#trail', '2.5');
    await sendOrder(page);
    await rowHas(page, 'trails 2.5 %');
    expect((await sent())[0]).toMatchObject({ trigger: 'trailing', trailPpm: 25_000, triggerTicks: 0n });
    await page.click('[aria-label="Distance in"] [data-value="price"]');
    await page.fill('#trail', '1000');
    await sendOrder(page);
    await rowHas(page, 'trails 1000');
    expect((await sent())[0]).toMatchObject({ trailPpm: 0, triggerTicks: 2000n });
    await context.close();
  });

  it('stop limit and take profit', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await waiting(page, 'stop_limit');
    await page.fill('#trigger', '70000');
    await page.fill('#price', '70500');
    await page.fill('#size', '0.1');
    await page.selectOption('#tif', 'day');
    await sendOrder(page);
    await rowHas(page, 'stop limit · day');
    await rowHas(page, '≥ 70,000.0');
    await waiting(page, 'take_profit');
    await page.click('.sides [data-value="sell"]');
    await page.fill('#trigger', '70000');
    await sendOrder(page);
    await rowHas(page, 'take profit');
    expect((await sent())[0]).toMatchObject({ trigger: 'takeProfit', orderType: 'market' });
    await context.close();
  });
});

describe('advanced options', () => {
  it('an iceberg till a date shows both, is amended in its row and expires', async () => {
    const { page, context, faults } = await open();
    await openAccount(page);
    await page.fill('#price', '50000');
    await page.fill('#size', '0.5');
    await page.selectOption('#tif', 'gtd');
    await page.press('#size', 'Enter');
    await page.waitForSelector('#expiry-problem:has-text("Enter a date")');
    await page.waitForFunction(() => document.activeElement?.id === 'expiry');
    await page.fill('#expiry', '2020-01-01T00:00:00');
    await page.waitForSelector('#expiry-problem:has-text("ahead")');
    await page.fill('#expiry', '2099-12-31T12:00:00');
    await page.click('.advanced summary');
    await page.fill('#display', '0.6');
    await page.waitForSelector('#display-problem:has-text("more than its size")');
    // Folded away, what is wrong in it is said in its head.
    await page.click('.advanced summary');
    await page.waitForSelector('.advanced:not([open]) summary .problem:has-text("more than its size")');
    await page.click('.advanced summary');
    await page.fill('#display', '0.1');
    await sendOrder(page);
    await rowHas(page, 'iceberg');
    await rowHas(page, '2099-12-31 12:00:00');
    expect((await sent())[0]).toMatchObject({ displayQtyLots: 1000n, timeInForce: 'gtd', expireTimeNs: BigInt(Date.UTC(2099, 11, 31, 12)) * 1_000_000n });

    await page.click('button[aria-label^="Amend order"]');
    await page.fill('input[aria-label^="New shown size"]', '0.9');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.edit-note.problem:has-text("more than its size")');
    await page.fill('input[aria-label^="New shown size"]', '0.2');
    await page.waitForSelector('.edit-note:has-text("back of the queue")');
    await page.fill('input[aria-label^="New end"]', '2099-12-31T13:00:00');
    await page.click('button:text-is("Save")');
    await page.click('dialog .submit');
    await rowHas(page, '2099-12-31 13:00:00');
    await rowHas(page, '0.2000');
    await make('expire');
    await page.waitForSelector('#tab-orders .count', { state: 'detached' });
    await history(page, 'expired');
    expect(faults).toEqual([]);
    await context.close();
  });

  it('hidden, sliding, self-trade prevention and a minimum', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await page.fill('#price', '50000');
    await page.fill('#size', '0.1');
    await page.click('.check:has-text("Post-only")');
    await page.click('.check:has-text("Slide")');
    await page.click('.advanced summary');
    await page.click('.advanced .check:has-text("Hidden")');
    await page.selectOption('.advanced select', 'decrement');
    await sendOrder(page);
    await rowHas(page, 'hidden');
    expect((await sent())[0]).toMatchObject({ options: ['postOnly', 'slide', 'hidden'], selfTradePrevention: 'decrement' });
    await page.selectOption('#tif', 'ioc');
    await page.waitForSelector('#tif-problem:has-text("must stay")');
    await page.click('.check:has-text("Post-only")');
    await page.fill('#minimum', '0.05');
    await page.waitForSelector('.warning:has-text("does not fill the minimum")');
    await context.close();
  });

  it('a pair is two commands of one batch, and both are shown before they are signed', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await page.click('.sides [data-value="sell"]');
    await page.fill('#price', '70000');
    await page.fill('#size', '0.1');
    await page.click('.advanced summary');
    await page.click('.advanced .check:has-text("With a stop")');
    await page.fill('#pair-trigger', '50000');
    await page.click('.order-form .submit');
    expect(await text(page, '.review-title')).toMatch(/^Sell 0.1000 BTC at 70,000.0, or at market once the price falls to 50,000.0$/);
    await page.click('dialog summary');
    expect(await page.locator('dialog dt:text-is("kind")').count()).toBe(2);
    await page.click('dialog .submit');
    await page.waitForSelector('#tab-orders .count:text-is("2")');
    expect((await sent()).map((one) => one.options)).toEqual([[], ['ocoWithPrevious']]);
    await context.close();
  });

  it('a market order for an amount', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await page.click('.order-form [data-value="market"]');
    await page.click('[aria-label="Size in"] [data-value="quote"]');
    await page.waitForSelector('label[for="size"]:has-text("the most it spends")');
    await page.fill('#size', '1000');
    await sendOrder(page);
    expect((await sent())[0]).toMatchObject({ maxNotional: 1_000_000_000n, orderType: 'market' });
    await page.waitForSelector('.toast:has-text("Order filled")');
    await context.close();
  });
});

it('all terms are known after a reload, and amends keep to them', async () => {
  const { page, context, faults } = await open();
  await openAccount(page);
  await page.click('.sides [data-value="sell"]');
  await waiting(page, 'trailing_stop');
  await page.fill('#size', '0.01');
  await page.fill('#trail', '2.5');
  await sendOrder(page);
  await rowHas(page, 'trails 2.5 %');
  await page.click('.order-form [data-value="limit"]');
  await page.click('.sides [data-value="buy"]');
  await page.fill('#price', '50000');
  await page.fill('#size', '0.1');
  await page.click('.check:has-text("Post-only")');
  await page.click('.check:has-text("Slide")');
  await page.click('.advanced summary');
  await page.selectOption('.advanced select', 'decrement');
  await sendOrder(page);
  await rowHas(page, 'limit · post-only, slides');
  await page.click('.check:has-text("Post-only")');
  await page.fill('#price', '49000');
  await page.click('.advanced .check:has-text("With a stop")');
  await page.fill('#pair-trigger', '70000');
  await sendOrder(page);
  await page.waitForSelector('#tab-orders .count:text-is("4")');

  await page.reload();
  await synced(page);
  await page.waitForSelector('#tab-orders .count:text-is("4")');
  await rowHas(page, 'trails 2.5 %');
  expect(await page.locator('#tab-panel td:has-text("one cancels the other: order")').count()).toBe(2);
  const row = (wanted: string) => page.locator(`#tab-panel tbody tr:has(td:has-text("${wanted}"))`);
  await row('trails 2.5 %').locator('button[aria-label^="Amend"]').click();
  await page.fill('input[aria-label^="New trigger"]', '3');
  await page.keyboard.press('Enter');
  await page.click('dialog .submit');
  await rowHas(page, 'trails 3 %');
  expect((await sent())[0]).toMatchObject({ kind: 'amend', trailPpm: 30_000, triggerTicks: 0n, selfTradePrevention: 'cancelNewest' });
  await row('post-only, slides').locator('button[aria-label^="Amend"]').click();
  await page.fill('input[aria-label^="New price"]', '49500');
  await page.keyboard.press('Enter');
  await page.click('dialog .submit');
  await rowHas(page, '49,500.0');
  expect((await sent())[0]).toMatchObject({ kind: 'amend', options: ['postOnly', 'slide'], selfTradePrevention: 'decrement' });
  expect(faults).toEqual([]);
  await context.close();
});

it('a refused order is in the history with the reason', async () => {
  const { page, context } = await open();
  await openAccount(page);
  await page.fill('#price', '50000');
  await page.fill('#size', '0.5');
  await make('refuse');
  await sendOrder(page);
  await page.waitForSelector('.toast:has-text("Order refused")');
  await history(page, 'refused');
  await page.waitForSelector('#tab-panel .why:has-text("balance")');
  const [saved] = await Promise.all([page.waitForEvent('download'), page.click('button:text-is("CSV")')]);
  expect(saved.suggestedFilename()).toBe('orders.csv');
  await context.close();
});
