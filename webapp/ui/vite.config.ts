import { defineConfig } from 'vitest/config';

// Addresses of a running exchange, for `vite` in development: the page from here, everything else from there.
const server = process.env.ZX_WEB ?? 'http://127.0.0.1:3000';

export default defineConfig({
  build: {
    target: 'es2022',
    // A strict Content-Security-Policy allows no inline script, and the page needs no polyfill of module preloading.
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    // What is bundled is distributed: its licences go with it.
    license: { fileName: 'licenses.md' },
    chunkSizeWarningLimit: 400,
  },
  server: {
    proxy: { '/api': server, '/ws': { target: server, ws: true } },
  },
  test: {
    projects: [
      { test: { name: 'unit', include: ['tests/unit/**/*.test.ts'] } },
      { test: { name: 'browser', include: ['tests/browser/**/*.test.ts'], maxWorkers: 1, testTimeout: 180_000, hookTimeout: 120_000 } },
      { test: { name: 'live', include: ['tests/live/**/*.test.ts'], maxWorkers: 1, testTimeout: 180_000, hookTimeout: 120_000 } },
    ],
  },
});
