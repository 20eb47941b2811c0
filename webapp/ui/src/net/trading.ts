// Order entry: the TCP protocol through the tunnel at /ws/session. Signs here, keeps every batch until it is answered, and
// sends unanswered ones again, byte for byte, after a reconnect: the nonce inside makes that exactly-once.

import type { Signer } from '../keys/keystore';
import { encode } from '../wire/codec';
import type { Command, EstablishmentAck, ExecutionReport, Message, NotApplied, ReasonCode } from '../wire/messages';
import { ClientSession } from '../wire/session';
import type { SessionEvent } from '../wire/session';
import { SIGNATURE_BYTES, nextNonce, signedBytes, withSignature } from '../wire/signing';

export type TradingState = 'off' | 'connecting' | 'established' | 'reconnecting';

/** A batch before it is signed: what the dialog shows. */
export interface PreparedBatch {
  readonly commands: readonly Command[];
  readonly nonce: bigint;
  readonly shard: number;
  /** The frame with a signature of zeros. */
  readonly frame: Uint8Array;
  /** What the signature will cover. */
  readonly bytes: Uint8Array;
}

export interface PendingBatch {
  readonly prepared: PreparedBatch;
  readonly frame: Uint8Array;
  readonly sentMs: number;
  answered: number;
}

export interface TradingHandlers {
  state(state: TradingState, reason: ReasonCode | null): void;
  established(ack: EstablishmentAck): void;
  /** `pending` is the batch that the report answers, and `latencyMs` how long that took. */
  report(report: ExecutionReport, pending: PendingBatch | null, latencyMs: number | null): void;
  notApplied(message: NotApplied, pending: PendingBatch | null): void;
  answer(message: Message): void;
  /** How many batches are not answered. */
  unanswered(count: number): void;
}

const TICK_MS = 500;
const BACKOFF_MIN_MS = 300;
const BACKOFF_MAX_MS = 10_000;
const ACCOUNT_NONE = 2n ** 64n - 1n;

export const isAccount = (accountId: bigint): boolean => accountId !== ACCOUNT_NONE;

export class Trading {
  #socket: WebSocket | null = null;
  #session: ClientSession | null = null;
  #lastNonce = 0n;
  #offsetUs = 0n;
  #pending = new Map<bigint, PendingBatch>();
  #backoffMs = BACKOFF_MIN_MS;
  #stopped = false;
  #ticker: ReturnType<typeof setInterval>;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly url: string,
    readonly signer: Signer,
    readonly deploymentId: Uint8Array,
    readonly handlers: TradingHandlers,
  ) {
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    this.#connect('connecting');
  }

  get ready(): boolean {
    return this.#session?.state === 'established';
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#retry);
    if (this.#session) this.#session.terminate('clientRequest', performance.now());
    this.#flush();
    this.#socket?.close();
    this.handlers.state('off', null);
  }

  prepare(shard: number, commands: readonly Command[]): PreparedBatch {
    this.#lastNonce = nextNonce(BigInt(Date.now()) * 1000n + this.#offsetUs, this.#lastNonce);
    const frame = encode({
      message: 'SignedBatch',
      signature: new Uint8Array(SIGNATURE_BYTES),
      publicKey: this.signer.publicKey,
      nonce: this.#lastNonce,
      shard,
      flags: [],
      commands: [...commands],
    });
    return { commands, nonce: this.#lastNonce, shard, frame, bytes: signedBytes('batch', frame, this.deploymentId) };
  }

  async send(prepared: PreparedBatch): Promise<void> {
    const frame = withSignature(prepared.frame, await this.signer.sign(prepared.bytes));
    this.#pending.set(prepared.nonce, { prepared, frame, sentMs: performance.now(), answered: 0 });
    this.handlers.unanswered(this.#pending.size);
    if (this.ready) this.#push(frame);
  }

  request(message: Message): void {
    if (this.ready) this.#push(encode(message));
  }

  #push(frame: Uint8Array): void {
    this.#session!.send(frame, performance.now());
    this.#flush();
  }

  #connect(state: TradingState): void {
    this.handlers.state(state, null);
    const socket = new WebSocket(this.url);
    socket.binaryType = 'arraybuffer';
    const session = new ClientSession(this.signer.publicKey, this.deploymentId, performance.now());
    this.#socket = socket;
    this.#session = session;
    let reason: ReasonCode | null = null;
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => {
      for (const one of session.receive(new Uint8Array(event.data), performance.now())) {
        if (one.kind === 'ended') reason = one.reason;
        void this.#handle(one, session);
      }
      this.#flush();
    };
    socket.onclose = () => {
      if (this.#socket !== socket || this.#stopped) return;
      this.#socket = null;
      this.#session = null;
      this.handlers.state('reconnecting', reason);
      this.#retry = setTimeout(() => this.#connect('reconnecting'), this.#backoffMs * (0.5 + Math.random()));
      this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MAX_MS);
    };
  }

  async #handle(event: SessionEvent, session: ClientSession): Promise<void> {
    switch (event.kind) {
      case 'challenged': {
        this.#offsetUs = event.serverTimeNs / 1000n - BigInt(Date.now()) * 1000n;
        const signature = await this.signer.sign(event.bytes);
        if (session.state !== 'challenged') return;
        session.establish(signature, performance.now());
        this.#flush();
        break;
      }
      case 'established':
        this.#backoffMs = BACKOFF_MIN_MS;
        this.handlers.state('established', null);
        this.handlers.established(event.ack);
        for (const pending of this.#pending.values()) this.#push(pending.frame);
        break;
      case 'message':
        this.#answer(event.message);
        break;
      case 'ended':
        this.#flush();
        this.#socket?.close();
    }
  }

  #answer(message: Message): void {
    if (message.message === 'ExecutionReport') {
      const pending = this.#pending.get(message.nonce) ?? null;
      let latencyMs: number | null = null;
      // Fills follow the report that answers the command; only the answers are counted.
      if (pending && message.execType !== 'trade') {
        if (pending.answered === 0) latencyMs = performance.now() - pending.sentMs;
        const index = message.commandIndex;
        const last = index === pending.prepared.commands.length - 1;
        const isAnswer = pending.prepared.commands[index]?.kind !== 'cancelAll' || message.execType === 'massCancelled' || message.execType === 'rejected';
        if (isAnswer) pending.answered += 1;
        if (isAnswer && last) this.#settle(message.nonce);
      }
      this.handlers.report(message, pending, latencyMs);
    } else if (message.message === 'NotApplied') {
      const pending = this.#pending.get(message.nonce) ?? null;
      this.#settle(message.nonce);
      this.handlers.notApplied(message, pending);
    } else this.handlers.answer(message);
  }

  #settle(nonce: bigint): void {
    this.#pending.delete(nonce);
    this.handlers.unanswered(this.#pending.size);
  }

  #tick(): void {
    const event = this.#session?.tick(performance.now());
    this.#flush();
    if (event?.kind === 'ended') this.#socket?.close();
  }

  #flush(): void {
    if (!this.#session || this.#socket?.readyState !== WebSocket.OPEN) return;
    const output = this.#session.takeOutput();
    if (output.length) this.#socket.send(new Uint8Array(output));
  }
}
