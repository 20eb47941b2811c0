// Makes docs/images anew, from the built page with the fake exchange behind it: npm run build && npm run screenshots

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { createServer } from 'vite';

const SIZES = [
  [1440, 900],
  [1024, 768],
  [390, 844],
];
const images = join(import.meta.dirname, '../../../../docs/images');
const executablePath = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => path && existsSync(path));
const vite = await createServer({ server: { middlewareMode: true, ws: false }, appType: 'custom', logLevel: 'error', optimizeDeps: { noDiscovery: true } });
const { serve } = await vite.ssrLoadModule('/tests/fake/server.ts');
const server = await serve(0);
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });

async function order(page, fill) {
  await fill();
  await page.click('.order-form .submit');
  await page.click('dialog .submit');
  await page.waitForSelector('dialog', { state: 'detached' });
}

for (const [width, height] of SIZES) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: 'dark', reducedMotion: 'reduce' });
  const page = await context.newPage();
  await page.goto(server.url);
  await page.waitForSelector('.badge.good', { state: 'attached' });
  if (width >= 768) {
    await page.click('.form-panel .submit.primary');
    await page.waitForSelector('.form-panel .submit.buy');
    await page.click('.banner button');
    await page.click('dialog button:has-text("No backup")');
    await page.keyboard.press('Escape');
    await order(page, async () => {
      await page.fill('#price', '59990');
      await page.fill('#size', '0.5');
      await page.click('.check:has-text("Post-only")');
    });
    await order(page, async () => {
      await page.click('.check:has-text("Post-only")');
      await page.click('.advanced summary');
      await page.fill('#price', '59900');
      await page.fill('#size', '2');
      await page.fill('#display', '0.25');
      await page.click('.advanced summary');
    });
    await order(page, async () => {
      await page.click('.sides [data-value="sell"]');
      await page.selectOption('.types select', 'stop');
      await page.fill('#trigger', '59600');
      await page.fill('#size', '0.5');
    });
    await page.click('.order-form [data-value="limit"]');
    await page.click('.advanced summary');
    await page.fill('#display', '');
    await page.click('.advanced summary');
    await page.click('.sides [data-value="buy"]');
    await page.click('button[title="Best bid"]');
    await page.fill('#size', '0.1');
    await page.locator('.form-panel').evaluate((panel) => (panel.scrollTop = 0));
    await page.waitForSelector('.bottom-panel .life[data-stage="3"]');
    await page.waitForFunction(() => !document.querySelector('.toast'));
  }
  await page.screenshot({ path: join(images, `page-${width}.png`) });
  await context.close();
}
await browser.close();
await server.close();
await vite.close();
process.exit(0);
