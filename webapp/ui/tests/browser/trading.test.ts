import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { INSECURE_HOST, make, open, openAccount, restingOrder, sendOrder, server, synced, text, useBrowser } from './kit';

useBrowser();

describe('key', () => {
  it('is made here, cannot be exported, and signs again after a reload', async () => {
    const { page, context, faults } = await open();
    await openAccount(page);
    const refused = await page.evaluate(async () => {
      const database = await new Promise<IDBDatabase>((resolve, reject) => {
        const opening = indexedDB.open('zexchange');
        opening.onsuccess = () => resolve(opening.result);
        opening.onerror = () => reject(new Error('no database'));
      });
      const stored = await new Promise<{ privateKey: CryptoKey }>((resolve) => {
        const asked = database.transaction('keys').objectStore('keys').get('trading');
        asked.onsuccess = () => resolve(asked.result as { privateKey: CryptoKey });
      });
      database.close();
      return Promise.all(
        (['pkcs8', 'jwk'] as const).map((format) => crypto.subtle.exportKey(format, stored.privateKey).then(() => 'exported', (error: DOMException) => error.name)),
      );
    });
    expect(refused).toEqual(['InvalidAccessError', 'InvalidAccessError']);
    await page.reload();
    await synced(page);
    await page.waitForSelector('.form-panel .submit.buy');
    await restingOrder(page);
    await sendOrder(page);
    await page.waitForSelector('#tab-orders .count');
    expect(faults).toEqual([]);
    await context.close();
  });

  it('is backed up once, under a passphrase, and restored in another browser', async () => {
    const first = await open();
    await openAccount(first.page);
    await first.page.click('.banner button');
    const publicKey = await text(first.page, 'dialog .bytes code');
    await first.page.fill('#backup-passphrase', 'correct horse battery');
    const [saved] = await Promise.all([first.page.waitForEvent('download'), first.page.click('dialog button:has-text("Save the backup")')]);
    const backup = { name: saved.suggestedFilename(), mimeType: 'application/json', buffer: readFileSync(await saved.path()) };
    await first.page.waitForSelector('#backup-passphrase', { state: 'detached' });
    await first.context.close();

    const second = await open();
    await second.page.keyboard.press('a');
    await second.page.click('dialog summary');
    await second.page.setInputFiles('#backup-file', backup);
    await second.page.fill('#restore-passphrase', 'wrong');
    await second.page.click('dialog button:has-text("Restore")');
    await second.page.waitForSelector('dialog .problem:has-text("does not fit")');
    await second.page.fill('#restore-passphrase', 'correct horse battery');
    await second.page.click('dialog button:has-text("Restore")');
    await second.page.waitForSelector('.form-panel .submit.buy');
    await second.page.keyboard.press('a');
    expect(await text(second.page, 'dialog .bytes code')).toBe(publicKey);
    await second.context.close();
  });

  it('lives in memory, with a banner, where the browser cannot guard it', async () => {
    const { page, context, faults } = await open({ url: `http://${INSECURE_HOST}:${server.port}` });
    expect(await page.evaluate(() => typeof crypto.subtle)).toBe('undefined');
    await openAccount(page);
    await page.waitForSelector('.banner:has-text("memory of this page")');
    await restingOrder(page);
    await sendOrder(page);
    await page.waitForSelector('#tab-orders .count');
    await page.waitForSelector('.badge.good');
    expect(faults).toEqual([]);
    await context.close();
  });
});

describe('orders', () => {
  it('breaking a rule of the market is explained beside the field, before sending', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await page.fill('#price', '50000.3');
    await page.waitForSelector('#price-problem:has-text("steps of 0.5")');
    await page.fill('#price', '50000');
    await page.fill('#size', '0.00001');
    await page.waitForSelector('#size-problem:has-text("steps of 0.0001")');
    await page.fill('#size', '100');
    await page.waitForSelector('#size-problem:has-text("available are")');
    await page.press('#size', 'Enter');
    expect(await page.$('dialog')).toBeNull();
    await context.close();
  });

  it('rest, are marked in the book, amended in their row and cancelled', async () => {
    const { page, context, faults } = await open();
    await openAccount(page);
    // Just below the best bid, so that the level is on screen.
    await page.click('button[title="Best bid"]');
    await page.click('#price');
    for (let step = 0; step < 4; step++) await page.keyboard.press('ArrowDown');
    await page.fill('#size', '0.25');
    await page.click('.check:has-text("Post-only")');
    await sendOrder(page);
    await page.waitForSelector('.level[data-own][title*="ahead"]');
    await page.click('button:text-is("Amend")');
    await page.fill('input[aria-label^="New price"]', '50000');
    await page.fill('input[aria-label^="New size"]', '0.3');
    await page.keyboard.press('Enter');
    await page.click('dialog .submit');
    await page.waitForSelector('.bottom-panel td:text-is("50,000.0")');
    await page.waitForSelector('.bottom-panel .life[data-stage="3"]');
    await page.click('button[aria-label^="Cancel order"]');
    await page.waitForSelector('.empty:has-text("No open orders")');
    await page.click('#tab-history');
    await page.waitForSelector('.bottom-panel td :text-is("cancelled")');
    expect(faults).toEqual([]);
    await context.close();
  });

  it('cross, fill, change balances, and are proved by a checkpoint', async () => {
    const { page, context, faults } = await open();
    await openAccount(page);
    const before = await text(page, '.order-form .facts dd');
    await page.click('.order-form [data-value="market"]');
    await page.fill('#size', '0.01');
    await page.waitForFunction(() => /\d/.test(document.querySelector('.worst')?.textContent ?? ''));
    await sendOrder(page);
    await page.waitForSelector('.toast:has-text("Order filled")');
    await page.waitForFunction((was) => document.querySelector('.order-form .facts dd')?.textContent !== was, before);
    await page.click('#tab-fills');
    await page.waitForSelector('.bottom-panel .life[data-stage="3"]');
    await page.click('#tab-verify');
    await page.waitForSelector('.check-line.good:has-text("Your balance")');
    await page.waitForSelector('.check-line.good:has-text("Your last fill")');
    const [saved] = await Promise.all([page.waitForEvent('download'), page.click('#tab-fills').then(() => page.click('button:text-is("CSV")'))]);
    expect(saved.suggestedFilename()).toBe('fills.csv');
    expect(faults).toEqual([]);
    await context.close();
  });

  it('all fills are exported, with its progress, also by a page whose session is over', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await make('older-fills?value=2400');
    await page.click('.order-form [data-value="market"]');
    await page.fill('#size', '0.01');
    await sendOrder(page);
    await page.waitForSelector('.toast:has-text("Order filled")');
    await page.click('#tab-fills');
    await make('forget-session');
    let release = () => undefined as void;
    const held = new Promise<void>((resolve) => (release = resolve));
    await page.route('**/fills?*cursor=1000*', async (route) => {
      await held;
      await route.continue();
    });
    const download = page.waitForEvent('download');
    await page.click('button:text-is("CSV")');
    await page.waitForSelector('button:text-is("CSV… 1,000")');
    release();
    const rows = readFileSync(await (await download).path(), 'utf8').trim().split('\r\n');
    expect(rows[0]).toMatch(/^time,market,side,price,qty,fee,liquidity,trade_id,order_id,/);
    expect(rows.length).toBeGreaterThanOrEqual(2402);
    expect(new Set(rows).size).toBe(rows.length);
    await page.waitForSelector('.toast:has-text("fills.csv saved")');
    await page.click('.check:has-text("Only BTC-USD")');
    const [fewer] = await Promise.all([page.waitForEvent('download'), page.click('button:text-is("CSV")')]);
    const market = readFileSync(await fewer.path(), 'utf8');
    expect(market.includes('ETH-USD')).toBe(false);
    expect(market.trim().split('\r\n').length).toBe(rows.length - 480);
    await make('older-fills?value=0');
    await context.close();
  });

  it('can be placed and cancelled with the keyboard alone', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await page.evaluate(() => (document.activeElement as HTMLElement).blur());
    await page.keyboard.press('s');
    await page.waitForFunction(() => document.activeElement?.id === 'size');
    await page.keyboard.type('0.1');
    await page.keyboard.press('Escape');
    await page.keyboard.press('p');
    await page.waitForFunction(() => document.activeElement?.id === 'price');
    await page.keyboard.type('70000');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelector('dialog')?.contains(document.activeElement));
    await page.keyboard.press('Enter');
    await page.waitForSelector('#tab-orders .count');
    await page.keyboard.press('Shift+X');
    await page.waitForSelector('dialog:has-text("Cancel all")');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#tab-orders .count', { state: 'detached' });
    await page.keyboard.press('?');
    await page.waitForSelector('dialog kbd');
    await page.keyboard.press('Escape');
    await page.waitForSelector('dialog', { state: 'detached' });
    await page.keyboard.press('o');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    expect(await page.inputValue('#price')).toMatch(/^\d+\.\d$/);
    await context.close();
  });

  it('can be placed, amended and cancelled on a phone', async () => {
    const { page, context, faults } = await open({ width: 390, height: 844 });
    await page.click('.panes button:has-text("Trade")');
    await openAccount(page);
    await restingOrder(page);
    await sendOrder(page);
    await page.click('.panes button:has-text("Orders")');
    await page.waitForSelector('.bottom-panel td:text-is("50,000.0")');
    await page.click('button:text-is("Amend")');
    await page.fill('input[aria-label^="New price"]', '49000');
    await page.keyboard.press('Enter');
    await page.click('dialog .submit');
    await page.waitForSelector('.bottom-panel td:text-is("49,000.0")');
    expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth)).toBe(true);
    await page.click('button[aria-label^="Cancel order"]');
    await page.waitForSelector('.empty:has-text("No open orders")');
    expect(faults).toEqual([]);
    await context.close();
  });

  it('shows exactly the bytes that are signed', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await restingOrder(page, '0.0007');
    await page.click('.order-form .submit');
    await page.click('dialog summary');
    const shown = await text(page, 'dialog .bytes code');
    const tag = Buffer.from('zx.v1/batch').toString('hex');
    expect(shown.startsWith(tag)).toBe(true);
    // 100,000 ticks and 7 lots, little-endian, then the terms that a plain order does not have.
    expect(shown.endsWith('a086010000000000' + '0700000000000000' + '00'.repeat(40))).toBe(true);
    await page.click('dialog .submit');
    await page.waitForSelector('#tab-orders .count');
    const { frame } = (await make('last-batch')) as { frame: string };
    expect(frame.slice(2 * 78)).toBe(shown.slice(2 * (16 + 32 + 8)));
    await context.close();
  });

  it('a lost session comes back and says so', async () => {
    const { page, context } = await open();
    await openAccount(page);
    await make('cut-session');
    await page.waitForSelector('.banner:has-text("Order session lost")');
    await page.waitForSelector('.banner:has-text("Order session lost")', { state: 'detached' });
    await restingOrder(page);
    await sendOrder(page);
    await page.waitForSelector('#tab-orders .count');
    await context.close();
  });
});
