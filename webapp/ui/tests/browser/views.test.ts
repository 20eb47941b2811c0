// The views beside trading: grouping of the ladder, depth, operations, and proofs that are forged.

import { afterEach, describe, expect, it } from 'vitest';
import { make, open, openAccount, sendOrder, synced, text, useBrowser } from './kit';

useBrowser();

it('order entry is fetched once there is a key, and a reload with one never offers an account', async () => {
  const { page, context, faults } = await open();
  const fetched: string[] = [];
  page.on('request', (request) => fetched.push(new URL(request.url()).pathname));
  await page.reload();
  await synced(page);
  await page.waitForSelector('.chart canvas');
  await page.waitForSelector('.empty:has-text("Open an account to trade.")');
  const isEntry = (path: string) => /\/(entry|Own|Dialogs)-/.test(path);
  expect(fetched.some((path) => path.includes('/assets/index-'))).toBe(true);
  expect(fetched.filter(isEntry)).toEqual([]);
  await openAccount(page);
  expect(fetched.filter(isEntry).length).toBeGreaterThanOrEqual(3);

  // Everything that the button of the form, and that of the account, ever say.
  await page.addInitScript(() => {
    const said = ((window as unknown as { said: string[] }).said = [] as string[]);
    new MutationObserver(() => {
      for (const selector of ['.order-form .submit', '.account-button']) {
        const text = document.querySelector(selector)?.textContent;
        if (text && !said.includes(text)) said.push(text);
      }
    }).observe(document, { childList: true, characterData: true, subtree: true });
  });
  await page.reload();
  await synced(page);
  await page.waitForSelector('.form-panel .submit.buy');
  const said = await page.evaluate(() => (window as unknown as { said: string[] }).said);
  expect(said).toContain('Buy BTC');
  expect(said.filter((text) => !/^(…|Account …|Account \d+|Signing on…|Buy BTC)$/.test(text))).toEqual([]);
  expect(faults).toEqual([]);
  await context.close();
});

describe('without a reload', () => {
  const define = (market: object) => make(`define?value=${encodeURIComponent(JSON.stringify(market))}`);

  it('a new market is there, and can be traded', async () => {
    const { page, context, faults } = await open();
    await openAccount(page);
    await page.keyboard.press('/');
    await page.waitForSelector('dialog .market-list li');
    expect(await page.locator('.market-list :text-is("SALT-USD")').count()).toBe(0);
    await define({ symbol: 'SALT-USD', tick_size: '0.01', lot_size: '1', price: 5, young: true });
    await page.click('.market-list :text-is("SALT-USD")');
    await page.waitForSelector('.market-button:has-text("SALT-USD")');
    await synced(page);
    await page.fill('#price', '3');
    await page.fill('#size', '7');
    await sendOrder(page);
    await page.waitForSelector('#tab-panel td:text-is("7")');
    // Its history is short: it is shown by the second, until somebody chooses.
    await page.waitForSelector('[aria-label="Interval"] [data-value="1s"][aria-pressed="true"]');
    await page.click('[aria-label="Interval"] [data-value="1m"]');
    await page.reload();
    await synced(page);
    await page.waitForSelector('.market-button:has-text("SALT-USD")');
    await page.waitForSelector('[aria-label="Interval"] [data-value="1m"][aria-pressed="true"]');
    expect(faults).toEqual([]);
    await context.close();
  });

  it('other sizes of the market that is shown are followed by form, ladder and grouping', async () => {
    const { page, context, faults } = await open();
    await page.keyboard.press('/');
    await page.click('.market-list :text-is("ETH-USD")');
    await synced(page);
    await page.waitForSelector('label[for="price"]:has-text("steps of 0.05")');
    await page.fill('#price', '2500.05');
    await page.fill('#size', '1.005');
    expect((await text(page, '#price-problem')) + (await text(page, '#size-problem'))).toBe('');
    await define({ symbol: 'ETH-USD', tick_size: '2', lot_size: '0.01', price: 3000 });
    await page.waitForSelector('label[for="price"]:has-text("steps of 2")');
    await page.waitForSelector('#price-problem:has-text("2500 or 2502")');
    await page.waitForSelector('#size-problem:has-text("1.00 or 1.01")');
    await page.waitForSelector('.toast:has-text("ETH-USD has other steps")');
    await synced(page);
    await page.waitForFunction(() => [...document.querySelectorAll('.level:not([data-empty]) .price')].every((cell) => Number(cell.textContent?.replace(',', '')) % 2 === 0));
    expect(await page.locator('.grouping option').first().textContent()).toBe('2');
    expect(faults).toEqual([]);
    await context.close();
  });
});

it('the ladder groups prices', async () => {
  const { page, context } = await open();
  await page.selectOption('.grouping select', '10');
  const prices = () => page.$$eval('.level[data-side="sell"]:not([data-empty]) .price', (cells) => cells.map((cell) => Number((cell.textContent ?? '').replace(/,/g, ''))));
  await page.waitForFunction(() => [...document.querySelectorAll('.level:not([data-empty]) .price')].every((cell) => /[05]\.0$/.test(cell.textContent ?? '')));
  const shown = await prices();
  expect(shown.length).toBeGreaterThan(3);
  // Ten ticks of 0.5.
  shown.slice(1).forEach((price, index) => expect(shown[index]! - price).toBe(5));
  await context.close();
});

it('the depth view tells total, mean price and slippage where one points', async () => {
  const { page, context, faults } = await open();
  await page.keyboard.press('c');
  const over = await page.waitForSelector('.u-over');
  const box = (await over.boundingBox())!;
  await page.mouse.move(box.x + box.width * 0.9, box.y + box.height / 2);
  await page.waitForSelector('.legend:has-text("Asks up to")');
  expect(await text(page, '.legend')).toMatch(/^Asks up to [\d,]+\.\dTotal [\d.]+ BTCMean [\d,]+\.\dSlippage \d+\.\d bps$/);
  await page.mouse.click(box.x + box.width * 0.9, box.y + box.height / 2);
  expect(await page.inputValue('#price')).toMatch(/^\d+\.\d$/);
  await page.mouse.move(box.x + box.width * 0.1, box.y + box.height / 2);
  await page.waitForSelector('.legend:has-text("Bids down to")');
  expect(faults).toEqual([]);
  await context.close();
});

it('operations: rates, percentiles by stage, queues, what waits, checkpoint age, shards, processes and cores', async () => {
  const { page, context, faults } = await open();
  await page.keyboard.press('7');
  for (const name of ['Commands per second', 'Latency p50', 'Latency p90', 'Latency p99', 'Waiting for a checkpoint', 'Checkpoint age'])
    await page.waitForFunction((wanted) => [...document.querySelectorAll('.tiles div')].some((one) => one.querySelector('dt')?.textContent === wanted && /\d/.test(one.querySelector('dd')?.textContent ?? '')), name);
  await page.waitForSelector('table:has(caption:text-is("Shards")) td:has-text("BTC-USD, ETH-USD, AAPL-USD")');
  await page.waitForSelector('.operations td:has-text("1 restarts")');
  const cells = async (caption: string, row: string) => page.locator(`.operations table:has(caption:text-is("${caption}")) tr:has(:text-is("${row}")) td`).allTextContents();
  expect(await cells('Latency by stage, the last ten seconds', 'append')).toEqual(['append', '1,801', '311 µs', '492 µs', '918 µs']);
  expect(await cells('Latency by stage, the last ten seconds', 'acknowledge')).toEqual(['acknowledge', '2,610', '459 µs', '819 µs', '1.57 ms']);
  expect(await cells('Latency by stage, the last ten seconds', 'visible')).toEqual(['visible', '0.0', '–', '–', '–']);
  expect(await cells('What waits', 'Frames for the matcher')).toEqual(['12']);
  expect(await cells('What waits', 'For clients to read')).toEqual(['68.4 KiB']);
  expect(await page.locator('.cores meter').count()).toBe(2);
  expect(faults).toEqual([]);
  await context.close();
});

describe('a forged proof raises the red banner', () => {
  afterEach(() => make('forge?value='));

  it.each([
    ['balance', /account \d+/],
    ['record', /record \d+/],
  ])('of a %s', async (what, subject) => {
    const { page, context } = await open();
    await make(`forge?value=${what}`);
    await openAccount(page);
    await page.click('.order-form [data-value="market"]');
    await page.fill('#size', '0.01');
    await sendOrder(page);
    await page.waitForSelector('.banner.bad');
    expect(await text(page, '.banner.bad')).toMatch(subject);
    await page.waitForSelector('.badge.bad');
    // It stays, whatever else is looked at.
    await make('forge?value=');
    await page.keyboard.press('Escape');
    await page.click('#tab-verify');
    await page.waitForSelector('.verify .problem');
    await synced(page);
    expect(await page.isVisible('.banner.bad')).toBe(true);
    await context.close();
  });
});
