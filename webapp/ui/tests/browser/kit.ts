// A browser, an exchange, and pages of it. Run `npm run build` first: what is tested is the built page. The exchange is the
// fake one, or a running one that ZX_LIVE_WEB names.

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, expect } from 'vitest';

export const INSECURE_HOST = 'exchange.test';
const CANDIDATES = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

export let browser: Browser;
/** Of the fake exchange, which has a process of its own: it must not compete with the test for a thread. */
export let server: { url: string; port: number };

let child: ChildProcess | null = null;

async function startFake(): Promise<void> {
  child = spawn(process.execPath, [join(import.meta.dirname, '../fake/start.mjs'), '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const line of createInterface(child.stdout!)) {
    const ready = /^ready (\S+)/.exec(line);
    if (!ready) continue;
    server = { url: ready[1]!, port: Number(new URL(ready[1]!).port) };
    break;
  }
}

/** Starts both before the tests of a file, and ends both after. */
export function useBrowser(): void {
  beforeAll(async () => {
    const executablePath = CANDIDATES.find((path) => path && existsSync(path));
    if (!executablePath) throw new Error('no Chromium: apt-get install chromium');
    const live = process.env.ZX_LIVE_WEB;
    if (live) server = { url: live, port: Number(new URL(live).port) };
    else await startFake();
    browser = await chromium.launch({
      executablePath,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', `--host-resolver-rules=MAP ${INSECURE_HOST} 127.0.0.1`],
    });
  });
  afterAll(async () => {
    await browser?.close();
    if (!child) return;
    const ended = new Promise((resolve) => child!.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  });
}

export interface Opened {
  page: Page;
  context: BrowserContext;
  /** What went wrong in the page: errors, and everything the policy forbade. */
  faults: string[];
}

export async function open(options: { width?: number; height?: number; theme?: 'dark' | 'light'; url?: string } = {}): Promise<Opened> {
  const { width = 1440, height = 900, theme = 'dark', url = server.url } = options;
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: 'reduce' });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('console', (message) => {
    // The fake exchange has no REST sessions; the page lives without.
    if (message.type() === 'error' && !message.text().includes('404')) faults.push(message.text());
  });
  await page.goto(url);
  if (url.startsWith('http')) await synced(page);
  return { page, context, faults };
}

export async function synced(page: Page): Promise<void> {
  await page.waitForSelector('.ladder:not([data-stale]) .level[data-side="sell"]:not([data-empty])', { state: 'attached' });
}

export async function openAccount(page: Page): Promise<void> {
  await page.click('.form-panel .submit.primary');
  await page.waitForSelector('.form-panel .submit:is(.buy, .sell)');
  await page.waitForFunction(() => document.querySelector('.order-form .facts dd')?.textContent !== '–');
}

/** Switches something on in the fake exchange. */
export async function make(what: string): Promise<unknown> {
  const answer = await fetch(`${server.url}/fake/${what}`);
  expect(answer.ok).toBe(true);
  return answer.json();
}

export async function text(page: Page, selector: string): Promise<string> {
  return (await page.textContent(selector)) ?? '';
}

/** Fills the form with a limit order so far from the market that it rests. */
export async function restingOrder(page: Page, size = '0.5'): Promise<string> {
  await page.click('.sides [data-value="buy"]');
  const price = '50000.0';
  await page.fill('#price', price);
  await page.fill('#size', size);
  return price;
}

export async function sendOrder(page: Page): Promise<void> {
  await page.click('.order-form .submit');
  await page.click('dialog .submit');
  await page.waitForSelector('dialog', { state: 'detached' });
}
