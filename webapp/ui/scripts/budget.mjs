// Fails when the first load is above its budget: the page, what it names, and the chart that it fetches at once, gzipped.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const BUDGET_BYTES = 120 * 1024;
const dist = join(import.meta.dirname, '../dist');
const html = readFileSync(join(dist, 'index.html'), 'utf8');
const named = [...html.matchAll(/(?:src|href)="\/([^"]+)"/g)].map((match) => match[1]);
const candles = readdirSync(join(dist, 'assets')).filter((name) => /^(candles|colours)-.*\.js$/.test(name)).map((name) => `assets/${name}`);
if (!candles.length) throw new Error('the chart is not where this script looks for it');

let total = 0;
for (const name of new Set(['index.html', ...named, ...candles])) {
  const bytes = gzipSync(readFileSync(join(dist, name)), { level: 9 }).length;
  total += bytes;
  console.log(`${(bytes / 1024).toFixed(1).padStart(7)} KB  ${name}`);
}
console.log(`${(total / 1024).toFixed(1).padStart(7)} KB  first load, of ${BUDGET_BYTES / 1024}`);
if (total > BUDGET_BYTES) {
  console.error('the first load is above its budget');
  process.exit(1);
}
if (/<style|<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=/i.test(html)) {
  console.error('index.html has inline script or style, which the policy of the page forbids');
  process.exit(1);
}
