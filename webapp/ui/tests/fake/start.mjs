// Serves the built page with the fake exchange behind it: npm run build && npm run dev [PORT]

import { createServer } from 'vite';

const vite = await createServer({ server: { middlewareMode: true, ws: false }, appType: 'custom', logLevel: 'error', optimizeDeps: { noDiscovery: true } });
const { serve } = await vite.ssrLoadModule('/tests/fake/server.ts');
const server = await serve(Number(process.argv[2] ?? 3000));
console.log(`ready ${server.url}`);
const stop = async () => {
  await server.close();
  await vite.close();
  process.exit(0);
};
process.on('SIGINT', stop);
process.on('SIGTERM', stop);
