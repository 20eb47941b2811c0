// What the page says of a market that is not continuous, and what it lets be sent.

import type { Page } from 'playwright-core';
import { afterEach, describe, expect, it } from 'vitest';
import { make, open, openAccount, sendOrder, text, useBrowser } from './kit';

useBrowser();

const phase = (change: object) => make(`phase?value=${encodeURIComponent(JSON.stringify(change))}`);
const badge = (page: Page, wanted: string) => page.waitForSelector(`.market-button .state:has-text("${wanted}")`);

afterEach(() => phase({ state: 'continuous', until: '', indicative_price: '', indicative_qty: '' }));

describe('an auction', () => {
  it('says when it ends and what it would trade, and takes what it may', async () => {
    const { page, context, faults } = await open();
    await openAccount(page);
    await badge(page, 'continuous');
    expect(await page.$('.state-note')).toBeNull();
    await phase({ state: 'auction', until: '2099-01-01T00:00:00.000000000Z', indicative_price: '60010.5', indicative_qty: '1.2500' });
    await badge(page, 'auction');
    expect(await text(page, '.market-button .state')).toMatch(/auction \d+:\d\d:\d\d/);
    await page.waitForSelector('.state-note:has-text("BTC-USD is in an auction until 00:00:00")');
    expect(await text(page, '.indicated')).toBe('The auction would trade 1.2500 BTC at 60,010.5.');
    expect(await text(page, '.mid-price')).toBe('60,010.5');
    await page.waitForSelector('.spread:has-text("auction: 1.2500 BTC")');
    await phase({ indicative_price: '', indicative_qty: '' });
    await page.waitForSelector('.indicated:has-text("Nothing would trade")');

    await page.click('.order-form [data-value="market"]');
    await page.fill('#size', '0.1');
    await page.waitForSelector('.form-problem:has-text("no market orders")');
    await page.click('.order-form [data-value="limit"]');
    await page.fill('#price', '50000');
    await page.selectOption('#tif', 'atTheOpen');
    await sendOrder(page);
    await page.waitForSelector('#tab-panel td:has-text("at the open")');
    expect(faults).toEqual([]);
    await context.close();
  });
});

it.each([
  ['halted', 'BTC-USD is halted', 'only cancels|No orders'],
  ['closed', 'BTC-USD is closed', 'No orders'],
  ['post_only', 'BTC-USD is post-only', 'do not trade at once'],
])('a market that is %s is explained', async (state, title, takes) => {
  const { page, context } = await open();
  await openAccount(page);
  await phase({ state });
  await page.waitForSelector(`.state-note:has-text("${title}")`);
  expect(await text(page, '.state-note')).toMatch(new RegExp(takes));
  await page.fill('#price', '62000');
  await page.fill('#size', '0.1');
  await page.waitForSelector('.order-form .submit[aria-disabled="true"]');
  if (state === 'post_only') {
    await page.waitForSelector('#price-problem:has-text("would trade")');
    await page.fill('#price', '50000');
    await page.waitForSelector('.order-form .submit[aria-disabled="false"]');
  }
  await context.close();
});
