// The WebSocket feed: one connection, a set of subscriptions that survives reconnects, and a watch over its silence. The
// server sends a heartbeat each second, so five silent seconds mean that the connection is dead although nobody said so.

export interface Subscription {
  readonly channel: string;
  readonly market?: string;
  readonly interval?: string;
}

export type FeedState = 'connecting' | 'open' | 'reconnecting';

export interface FeedHandlers {
  state(state: FeedState): void;
  hello(hello: { challenge: string; deployment_id: string; time: string }): void;
  /** Milliseconds since 1970 by the server's clock. */
  time(serverMs: number): void;
  message(message: FeedMessage): void;
  problem(message: string): void;
}

/** Anything that names a channel; its content depends on that. */
export interface FeedMessage {
  readonly channel: string;
  readonly market?: string;
  readonly [field: string]: unknown;
}

const SILENCE_MS = 5000;
const BACKOFF_MIN_MS = 300;
const BACKOFF_MAX_MS = 10_000;

export const subscriptionKey = (one: Subscription): string => `${one.channel}/${one.market ?? ''}/${one.interval ?? ''}`;

export class Feed {
  #socket: WebSocket | null = null;
  #wanted = new Map<string, Subscription>();
  #nextId = 1;
  #backoffMs = BACKOFF_MIN_MS;
  #heardMs = 0;
  #ready = false;
  #waiting = new Map<number, { resolve: () => void; reject: (error: Error) => void }>();
  #reconnect: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly url: string,
    readonly handlers: FeedHandlers,
  ) {}

  start(): void {
    this.#connect();
    setInterval(() => this.#watch(), 1000);
  }

  subscribe(...subscriptions: Subscription[]): void {
    for (const one of subscriptions) this.#wanted.set(subscriptionKey(one), one);
    if (this.#ready) this.#send({ op: 'subscribe', channels: subscriptions });
  }

  unsubscribe(...subscriptions: Subscription[]): void {
    for (const one of subscriptions) this.#wanted.delete(subscriptionKey(one));
    if (this.#ready) this.#send({ op: 'unsubscribe', channels: subscriptions });
  }

  /** Asks for a new snapshot of something that went wrong. */
  resubscribe(one: Subscription): void {
    if (!this.#ready) return;
    this.#send({ op: 'unsubscribe', channels: [one] });
    this.#send({ op: 'subscribe', channels: [one] });
  }

  /** Proves to the server that the session's key is held here. Rejects with what the server said. */
  logon(publicKey: string, signature: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const id = this.#send({ op: 'logon', public_key: publicKey, signature });
      if (id === null) reject(new Error('not connected'));
      else this.#waiting.set(id, { resolve, reject });
    });
  }

  /** Drops the connection and makes a new one: the only way to log on with another key. */
  restart(): void {
    this.#socket?.close();
  }

  #connect(): void {
    this.#reconnect = undefined;
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    this.#heardMs = performance.now();
    socket.onmessage = (event: MessageEvent<string>) => {
      this.#heardMs = performance.now();
      this.#take(JSON.parse(event.data) as Record<string, unknown>);
    };
    socket.onclose = () => {
      if (this.#socket === socket) this.#lost();
    };
  }

  #lost(): void {
    this.#socket = null;
    this.#ready = false;
    for (const { reject } of this.#waiting.values()) reject(new Error('connection lost'));
    this.#waiting.clear();
    this.handlers.state('reconnecting');
    if (this.#reconnect === undefined) this.#reconnect = setTimeout(() => this.#connect(), this.#backoffMs * (0.5 + Math.random()));
    this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MAX_MS);
  }

  #watch(): void {
    if (!this.#socket || performance.now() - this.#heardMs < SILENCE_MS) return;
    const silent = this.#socket;
    this.#socket = null;
    silent.onclose = null;
    silent.close();
    this.#lost();
  }

  #take(message: Record<string, unknown>): void {
    if (typeof message.channel === 'string') return this.handlers.message(message as FeedMessage);
    if (typeof message.time === 'string') this.handlers.time(Date.parse(message.time));
    const waiting = this.#waiting.get(message.id as number);
    switch (message.op) {
      case 'hello':
        this.#ready = true;
        this.#backoffMs = BACKOFF_MIN_MS;
        this.handlers.state('open');
        if (this.#wanted.size) this.#send({ op: 'subscribe', channels: [...this.#wanted.values()] });
        this.handlers.hello(message as { challenge: string; deployment_id: string; time: string } & typeof message);
        break;
      case 'subscribed':
        for (const result of (message.results ?? []) as { ok: boolean; channel: string; error?: { detail?: string } }[])
          if (!result.ok) this.handlers.problem(`${result.channel}: ${result.error?.detail ?? 'refused'}`);
        break;
      default:
        if (waiting) {
          this.#waiting.delete(message.id as number);
          const error = (message.error ?? (message.ok === false || message.op === 'error' ? message : null)) as { detail?: string } | null;
          if (error) waiting.reject(new Error(error.detail ?? 'refused'));
          else waiting.resolve();
        }
    }
  }

  #send(message: object): number | null {
    if (!this.#socket || this.#socket.readyState !== WebSocket.OPEN) return null;
    const id = this.#nextId++;
    this.#socket.send(JSON.stringify({ ...message, id }));
    return id;
  }
}
