// Serves the fake exchange: the built page under a strict policy, REST, the feed and the session tunnel. Faults are switched
// on with POST /fake/<what>, so that a test can see what the page does about them.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import * as ed from '@noble/ed25519';
import { WebSocketServer } from 'ws';
import type { WebSocket } from 'ws';
import { equal, fromHex, toBase64, toHex } from '../../src/wire/bytes';
import { decode, encode } from '../../src/wire/codec';
import { FrameSplitter } from '../../src/wire/session';
import { feedLogonBytes, signedBytes } from '../../src/wire/signing';
import { ASSETS, DEPLOYMENT_ID, FakeExchange, MARKETS, ORIGIN, SETTLEMENT_KEY, nowText } from './exchange';
import type { FakeMarket } from './exchange';
import type { ExecutionReport } from '../../src/wire/messages';

const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const dist = join(import.meta.dirname, '../../dist');

interface Client {
  socket: WebSocket;
  challenge: Uint8Array;
  subscriptions: Map<string, { channel: string; market?: string; interval?: string }>;
  /** Sequence of the last book message by market. */
  sent: Map<string, bigint>;
  loggedOn: boolean;
}

export interface FakeServer {
  readonly url: string;
  readonly port: number;
  readonly exchange: FakeExchange;
  close(): Promise<void>;
}

const INTERVAL_MS = 50;
const TOKEN = 'fake-token';

export async function serve(port = 0, host = '127.0.0.1'): Promise<FakeServer> {
  const exchange = new FakeExchange();
  for (let index = 0; index < 3; index++) exchange.checkpoint();
  const clients = new Set<Client>();
  const sessions = new Set<WebSocket>();
  const tunnels = new Map<WebSocket, boolean>();
  let botsRun = true;
  let updatesPerSecond = 0;
  let fault: string | null = null;
  let quiet = false;
  /** Whether the session of the page is over. */
  let forgotten = false;
  const first = [...exchange.markets.values()][0]!;

  const send = (client: Client, message: object) => client.socket.readyState === 1 && client.socket.send(JSON.stringify(message));
  const toAll = (channel: string, market: string | undefined, message: object) => {
    for (const client of clients) if ([...client.subscriptions.values()].some((one) => one.channel === channel && one.market === market)) send(client, message);
  };

  function bookUpdate(fake: FakeMarket): void {
    const market = fake.info.symbol;
    const bids = [...fake.changed].filter(([key]) => key.startsWith('b')).map(([, row]) => row);
    const asks = [...fake.changed].filter(([key]) => key.startsWith('a')).map(([, row]) => row);
    const phase = fake.phaseChanged;
    if (!bids.length && !asks.length && !Object.keys(phase).length) return;
    fake.changed.clear();
    fake.phaseChanged = {};
    const previous = fake.seq;
    fake.seq += 1n;
    let checksum = fake.checksum();
    if (fault === 'checksum') {
      checksum ^= 1;
      fault = null;
    }
    const isGap = fault === 'gap';
    if (isGap) fault = null;
    for (const client of clients) {
      if (!client.subscriptions.has(`book/${market}`)) continue;
      const last = client.sent.get(market) ?? previous;
      client.sent.set(market, fake.seq);
      if (isGap) continue;
      send(client, { channel: 'book', market, type: 'update', seq: String(fake.seq), prev_seq: String(last), bids, asks, checksum, time: nowText(), ...phase });
    }
  }

  function snapshot(client: Client, one: { channel: string; market?: string; interval?: string }): void {
    const fake = exchange.markets.get(one.market ?? '');
    const common = { channel: one.channel, type: 'snapshot', ...(one.market ? { market: one.market } : {}) };
    switch (one.channel) {
      case 'book':
        if (fake!.changed.size) bookUpdate(fake!);
        client.sent.set(one.market!, fake!.seq);
        return void send(client, { ...common, seq: String(fake!.seq), bids: fake!.rows('buy'), asks: fake!.rows('sell'), checksum: fake!.checksum(), time: nowText(), ...fake!.phase });
      case 'trades':
        return void send(client, { ...common, seq: '1', trades: fake!.trades.slice(0, 100) });
      case 'candles':
        return void send(client, { ...common, interval: one.interval, seq: '1', candles: [...fake!.bars.values()] });
      case 'definitions':
        return void send(client, { ...common, assets: ASSETS, markets: exchange.infos() });
      case 'ticker':
        return void send(client, { ...common, tickers: [...exchange.markets.values()].map((each) => each.ticker()) });
      case 'checkpoints':
        return void send(client, { ...common, checkpoints: exchange.checkpoints.slice(-3) });
      case 'orders':
        return void send(client, { ...common, orders: exchange.openOrders() });
      case 'fills':
        return void send(client, { ...common, fills: exchange.fills });
      case 'balances':
        return void send(client, { ...common, balances: exchange.balanceRows() });
    }
  }

  const keyOf = (one: { channel: string; market?: string; interval?: string }) => `${one.channel}${one.market ? `/${one.market}` : ''}${one.interval ? `/${one.interval}` : ''}`;

  function onFeedMessage(client: Client, text: string): void {
    const message = JSON.parse(text) as { op: string; id: number; channels: { channel: string; market?: string; interval?: string }[]; signature: string; public_key: string };
    switch (message.op) {
      case 'subscribe': {
        const { channels } = message;
        send(client, { op: 'subscribed', id: message.id, results: channels.map((one) => ({ ...one, ok: true })) });
        for (const one of channels) {
          client.subscriptions.set(keyOf(one), one);
          snapshot(client, one);
        }
        break;
      }
      case 'unsubscribe':
        for (const one of message.channels) client.subscriptions.delete(keyOf(one));
        break;
      case 'logon': {
        const good = ed.verify(fromHex(message.signature), feedLogonBytes(client.challenge, DEPLOYMENT_ID), fromHex(message.public_key));
        client.loggedOn = good && exchange.accounts.has(message.public_key);
        send(client, client.loggedOn ? { op: 'logon', id: message.id, ok: true, account_id: String(exchange.accounts.get(message.public_key)) } : { op: 'logon', id: message.id, ok: false, error: { detail: 'No such account.' } });
      }
    }
  }

  function privateUpdates(reports: readonly { execType: string }[]): void {
    if (!reports.length) return;
    for (const client of clients) {
      if (!client.loggedOn) continue;
      send(client, { channel: 'orders', type: 'update', orders: exchange.openOrders() });
      if (reports.some((one) => one.execType === 'trade')) send(client, { channel: 'fills', type: 'update', fills: exchange.fills.slice(0, 20) });
      send(client, { channel: 'balances', type: 'update', balances: exchange.balanceRows() });
    }
  }

  /** Tells everybody of what happened without a command. */
  function tell(reports: readonly ExecutionReport[]): void {
    for (const report of reports) for (const socket of tunnels.keys()) socket.send(encode(report));
    privateUpdates(reports);
    for (const fake of exchange.markets.values()) bookUpdate(fake);
  }

  function onTunnel(socket: WebSocket): void {
    const challenge = crypto.getRandomValues(new Uint8Array(32));
    const splitter = new FrameSplitter();
    let key: Uint8Array | null = null;
    sessions.add(socket);
    socket.on('close', () => {
      sessions.delete(socket);
      tunnels.delete(socket);
    });
    socket.send(encode({ message: 'Challenge', deploymentId: DEPLOYMENT_ID, challenge, serverTimeNs: BigInt(Date.now()) * 1_000_000n }));
    socket.on('message', (data: Buffer) => {
      for (const frame of splitter.feed(new Uint8Array(data))) {
        const message = decode(frame);
        if (message.message === 'Establish') {
          const good = equal(message.challenge, challenge) && ed.verify(message.signature, signedBytes('logon', frame, DEPLOYMENT_ID), message.publicKey);
          if (!good) {
            socket.send(encode({ message: 'EstablishmentReject', reason: 'signatureInvalid' }));
            socket.close();
            return;
          }
          key = message.publicKey;
          const accountId = exchange.accounts.get(toHex(key)) ?? 2n ** 64n - 1n;
          tunnels.set(socket, true);
          socket.send(
            encode({
              message: 'EstablishmentAck', publicKey: key, serverTimeNs: BigInt(Date.now()) * 1_000_000n, heartbeatIntervalMs: message.heartbeatIntervalMs, durability: 'always',
              shards: [{ shard: 0, accountId, reportSeq: 0n }],
            }),
          );
        } else if (message.message === 'SignedBatch') {
          if (!key || !equal(key, message.publicKey) || !ed.verify(message.signature, signedBytes('batch', frame, DEPLOYMENT_ID), message.publicKey)) {
            socket.send(encode({ message: 'NotApplied', nonce: message.nonce, reason: 'signatureInvalid', strikes: 1 }));
            continue;
          }
          const reports = exchange.apply(frame);
          for (const report of reports) socket.send(encode(report));
          privateUpdates(reports);
          for (const fake of exchange.markets.values()) bookUpdate(fake);
        } else if (message.message === 'Sequence') socket.send(encode({ message: 'Sequence', nextSeqNo: 1n }));
      }
    });
  }

  function answer(request: IncomingMessage, response: ServerResponse, body: string): void {
    const url = new URL(request.url!, 'http://fake');
    const json = (value: unknown, status = 200) => {
      response.writeHead(status, { 'content-type': status < 400 ? 'application/json' : 'application/problem+json' });
      response.end(JSON.stringify(value));
    };
    const parts = url.pathname.split('/').slice(1);
    if (parts[0] === 'fake') {
      const value = url.searchParams.get('value') ?? '';
      if (parts[1] === 'rate') updatesPerSecond = Number(value);
      else if (parts[1] === 'tamper') exchange.tamper = true;
      else if (parts[1] === 'forge') exchange.forged = value as 'balance' | 'record';
      else if (parts[1] === 'quiet') quiet = value !== '';
      else if (parts[1] === 'book') return json({ bids: first.rows('buy'), asks: first.rows('sell') });
      else if (parts[1] === 'trade') tell(exchange.tradeAt(first, first.market.ticksOf(value)));
      else if (parts[1] === 'refuse') exchange.refuseNext = true;
      else if (parts[1] === 'older-fills') exchange.makeOlderFills(Number(value));
      else if (parts[1] === 'forget-session') forgotten = true;
      else if (parts[1] === 'expire') tell(exchange.expire());
      else if (parts[1] === 'phase') {
        first.setPhase(JSON.parse(value) as object);
        bookUpdate(first);
      }
      else if (parts[1] === 'define') {
        const { price, young, ...info } = JSON.parse(value) as { price: number; symbol: string; young?: boolean };
        const like = exchange.markets.get('ETH-USD')!.info;
        const known = exchange.markets.get(info.symbol)?.info;
        const market = { ...like, market_id: exchange.markets.size + 1, ...known, ...info };
        const made = exchange.define({ ...market, sizes_no: known ? (known.sizes_no ?? 0) + 1 : 0 }, price);
        if (young) for (const minute of [...made.bars.keys()].slice(0, -3)) made.bars.delete(minute);
        toAll('definitions', undefined, { channel: 'definitions', type: 'update', assets: [], markets: [exchange.markets.get(info.symbol)!.info] });
        for (const client of clients) for (const one of client.subscriptions.values()) if (one.market === info.symbol) snapshot(client, one);
      }
      else if (parts[1] === 'last-batch') return json({ frame: toHex(exchange.frames.findLast((one) => one.length > 100)!) });
      else if (parts[1] === 'cut') for (const client of clients) client.socket.terminate();
      else if (parts[1] === 'cut-session') for (const socket of sessions) socket.terminate();
      else fault = parts[1]!;
      return json({});
    }
    if (parts[0] !== 'api') {
      const name = url.pathname === '/' ? '/index.html' : normalize(url.pathname);
      try {
        const file = readFileSync(join(dist, name));
        response.writeHead(200, { 'content-type': TYPES[extname(name)] ?? 'application/octet-stream', 'content-security-policy': POLICY, 'x-content-type-options': 'nosniff' });
        response.end(file);
      } catch {
        response.writeHead(404).end();
      }
      return;
    }
    const [what, one, two, three] = parts.slice(2);
    const hex = (hashes: Uint8Array[]) => hashes.map(toHex);
    const authorised = request.headers.authorization === `Bearer ${TOKEN}` && !forgotten;
    const refused = (status: number, code: string) => json({ type: 'about:blank', title: code, status, code, detail: 'The fake exchange does not answer this.' }, status);
    switch (what) {
      case 'version':
        return json({
          version: '0.1.0', deployment_id: toHex(DEPLOYMENT_ID), name: 'fake', demo: true, operator_public_key: '00'.repeat(32), settlement_public_key: toHex(SETTLEMENT_KEY),
          checkpoint_origin: ORIGIN,
        });
      case 'markets':
        return json({ markets: exchange.infos() });
      case 'assets':
        return json({ assets: ASSETS });
      case 'demo':
        if (one === 'bots') {
          if (request.method === 'POST') botsRun = (JSON.parse(body) as { running: boolean }).running;
          return json({ present: true, running: botsRun });
        }
        return json({ account_id: String(exchange.open((JSON.parse(body) as { public_key: string }).public_key)) });
      case 'proofs': {
        const number = Number(two);
        if (one === 'consistency') return json({ hashes: hex(exchange.settlement.consistency(Number(url.searchParams.get('old')), Number(url.searchParams.get('new')))) });
        if (one === 'checkpoint') {
          const size = Number(url.searchParams.get('size'));
          return json({ index: number, size, leaf: toBase64(exchange.leaves[number]!), hashes: hex(exchange.settlement.inclusion(number, size)) });
        }
        const newest = exchange.proofs.length - 1;
        const proof = exchange.proofs[newest]!;
        const forged = (data: Uint8Array, kind: string) => toBase64(exchange.forged === kind ? data.map((byte, index) => (index === data.length - 1 ? byte ^ 1 : byte)) : data);
        if (one === 'record') {
          const frame = forged(exchange.frames[Number(three)]!, 'record');
          return json({ record_no: three, frame, checkpoint: newest, log_size: String(proof.size), hashes: hex(exchange.log.inclusion(Number(three), proof.size)) });
        }
        if (!authorised) return refused(401, 'UNAUTHORIZED');
        const index = proof.accounts.leaves.length - 1;
        return json({
          account_id: String(index), checkpoint: String(newest), note: '', leaf: '', hashes: [],
          shards: [{ shard: 0, leaf: forged(proof.leaf, 'balance'), hashes: hex(proof.accounts.inclusion(index, index + 1)), subtrees: proof.subtrees }],
        });
      }
      case 'sessions': {
        if (one) {
          forgotten = false;
          return json({ token: TOKEN });
        }
        const { public_key: publicKey } = JSON.parse(body) as { public_key: string };
        const frame = encode({
          message: 'Establish', signature: new Uint8Array(64), publicKey: fromHex(publicKey), challenge: new Uint8Array(32), heartbeatIntervalMs: 1000, options: [], lastReportSeq: 0n,
        });
        return json({ session_id: '1', to_sign: toBase64(signedBytes('logon', frame, DEPLOYMENT_ID)) }, 201);
      }
      case 'orders':
      case 'fills':
        if (!authorised) return refused(401, 'UNAUTHORIZED');
        {
          const [from, limit] = [Number(url.searchParams.get('cursor') ?? 0), Number(url.searchParams.get('limit') ?? 100)];
          const rows = what === 'fills' ? [...exchange.fills, ...exchange.olderFills] : [];
          return json({ [what]: rows.slice(from, from + limit), next_cursor: from + limit < rows.length ? String(from + limit) : null });
        }
      default:
        return refused(404, 'NOT_FOUND');
    }
  }

  const http: Server = createServer((request, response) => {
    let body = '';
    request.on('data', (part: Buffer) => (body += part.toString()));
    request.on('end', () => answer(request, response, body));
  });
  const sockets = new WebSocketServer({ noServer: true });
  http.on('upgrade', (request, socket, head) => {
    sockets.handleUpgrade(request, socket, head, (accepted) => {
      if (request.url === '/ws/session') return onTunnel(accepted);
      const client: Client = { socket: accepted, challenge: crypto.getRandomValues(new Uint8Array(32)), subscriptions: new Map(), sent: new Map(), loggedOn: false };
      clients.add(client);
      accepted.on('close', () => clients.delete(client));
      accepted.on('message', (data: Buffer) => onFeedMessage(client, data.toString()));
      send(client, { op: 'hello', time: nowText(), challenge: toHex(client.challenge), deployment_id: toHex(DEPLOYMENT_ID), version: '0.1.0' });
    });
  });

  let owed = 0;
  const flow = setInterval(() => {
    if (quiet) return;
    for (const fake of exchange.markets.values()) {
      if (updatesPerSecond && fake.info.market_id === 1) {
        // Each change is a message of its own: what a page has to stand that nobody conflates for.
        for (owed += (updatesPerSecond * INTERVAL_MS) / 1000; owed >= 1; owed--) {
          fake.stir(1);
          bookUpdate(fake);
        }
      } else {
        fake.stir(4);
        bookUpdate(fake);
      }
      if (fake.phase.state === 'continuous' && Math.random() < 0.12) {
        const before = fake.trades.length ? fake.trades[0]!.trade_id : '';
        const own = fake.trade();
        bookUpdate(fake);
        const fresh = fake.trades.filter((trade) => BigInt(trade.trade_id as string) > BigInt((before as string) || '0'));
        toAll('trades', fake.info.symbol, { channel: 'trades', market: fake.info.symbol, type: 'update', seq: '2', prev_seq: '1', trades: fresh });
        for (const client of clients)
          for (const one of client.subscriptions.values())
            if (one.channel === 'candles' && one.market === fake.info.symbol) send(client, { ...one, type: 'update', seq: '2', prev_seq: '1', candles: [...fake.bars.values()].slice(-2) });
        if (own) {
          const report = exchange.fill(fake, own.report, own.ticks, own.lots, 'maker');
          for (const socket of tunnels.keys()) socket.send(encode(report));
          privateUpdates([report]);
        }
      }
    }
  }, INTERVAL_MS);
  const seconds = setInterval(() => {
    exchange.append(crypto.getRandomValues(new Uint8Array(40)));
    const checkpoint = exchange.checkpoint();
    toAll('checkpoints', undefined, { channel: 'checkpoints', type: 'update', checkpoints: [checkpoint] });
    toAll('ticker', undefined, { channel: 'ticker', type: 'update', tickers: [...exchange.markets.values()].map((fake) => fake.ticker()) });
    toAll('stats', undefined, {
      channel: 'stats', type: 'update', commands_per_s: 2400 + Math.round(Math.random() * 500), records: String(exchange.frames.length - 1), commands: '5000', checkpoint_age_ms: 400,
      latency_us: { p50: 900 + Math.random() * 200, p90: 2100 + Math.random() * 400, p99: 3800 + Math.random() * 900 }, cpus: [38 + Math.random() * 10, 55 + Math.random() * 10],
      shards: [{ shard: 0, markets: MARKETS.map((one) => one.symbol), records: String(exchange.frames.length - 1), open_orders: 14_203, trades: '1200' }], ws_clients: clients.size,
      stages: [
        { stage: 'verify', per_s: 2610.4, p50_us: 95.2, p90_us: 131.1, p99_us: 253.9 },
        { stage: 'bus', per_s: 2610.4, p50_us: 65.5, p90_us: 393.2, p99_us: 786.4 },
        { stage: 'match', per_s: 1800.5, p50_us: 9.2, p90_us: 15.4, p99_us: 31.7 },
        { stage: 'append', per_s: 1800.5, p50_us: 311.3, p90_us: 491.5, p99_us: 917.5 },
        { stage: 'publish', per_s: 1800.5, p50_us: 22.5, p90_us: 36.9, p99_us: 73.7 },
        { stage: 'acknowledge', per_s: 2610.4, p50_us: 458.8, p90_us: 819.2, p99_us: 1572.9 },
        { stage: 'visible', per_s: 0, p50_us: null, p90_us: null, p99_us: null },
      ],
      queues: { unverified_frames: 0, matcher_frames: 12, matcher_questions: 1, batches_in_flight: 1, link_bytes: 0, unsent_bytes: 70_042, unsigned_records: 1204, ws_clients_waiting: 0, sessions: 9 },
      processes: [{ name: 'matcher-0', state: 'ready', restarts: 1, cpus: [0], rss_mb: 180, cpu_share: 0.42 }],
    });
    for (const client of clients) send(client, { op: 'heartbeat', time: nowText() });
  }, 1000);

  await new Promise<void>((resolve) => http.listen(port, host, resolve));
  const bound = (http.address() as AddressInfo).port;
  return {
    url: `http://localhost:${bound}`,
    port: bound,
    exchange,
    close: () =>
      new Promise((resolve) => {
        clearInterval(flow);
        clearInterval(seconds);
        for (const client of clients) client.socket.terminate();
        for (const socket of sessions) socket.terminate();
        sockets.close();
        http.closeAllConnections();
        http.close(() => resolve());
      }),
  };
}
