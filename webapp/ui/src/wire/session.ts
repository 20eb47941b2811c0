// The client's side of one connection, without I/O: bytes, signatures and the time come in by method call, bytes and
// events come out. The moves are those of docs/protocol.md, Session; a move of the server that is not in the table ends
// the session with a Terminate.
//
// Signing may be asynchronous, so the challenge comes back as an event: sign `bytes`, then call `establish`.

import { concat, equal, viewOf } from './bytes';
import { WireError, decode, encode } from './codec';
import type { EstablishmentAck, Message, ReasonCode } from './messages';
import { SIGNATURE_BYTES, signedBytes, withSignature } from './signing';

export type SessionState = 'connected' | 'challenged' | 'establishing' | 'established' | 'ended';

export type SessionEvent =
  | { kind: 'challenged'; bytes: Uint8Array; deploymentId: Uint8Array; serverTimeNs: bigint }
  | { kind: 'established'; ack: EstablishmentAck }
  | { kind: 'message'; message: Message }
  | { kind: 'ended'; reason: ReasonCode; byPeer: boolean };

type Name = Message['message'];

const ANSWERS: readonly Name[] = [
  'ExecutionReport', 'NotApplied', 'Genesis', 'Balances', 'OpenOrders', 'BookDepth', 'Trades', 'ShardStatus', 'QueryReject',
];
const REQUESTS: readonly Name[] = [
  'SignedBatch', 'GenesisRequest', 'BalancesRequest', 'OpenOrdersRequest', 'BookRequest', 'TradesRequest', 'ShardStatusRequest',
];
const fromServer: Record<SessionState, Partial<Record<Name, SessionState>>> = {
  connected: { Challenge: 'challenged', EstablishmentReject: 'ended', Terminate: 'ended' },
  challenged: { EstablishmentReject: 'ended', Terminate: 'ended' },
  establishing: { EstablishmentAck: 'established', EstablishmentReject: 'ended', Terminate: 'ended' },
  established: {
    ...Object.fromEntries([...ANSWERS, 'Sequence'].map((name) => [name, 'established'])),
    Terminate: 'ended',
  },
  ended: {},
};

const HEARTBEAT_INTERVALS_MISSED = 3;
const MAX_FRAME_BYTES = 16_777_216;
const MIN_FRAME_BYTES = 14;

/** Cuts a stream into frames. Throws WireError when there is no frame boundary any more. */
export class FrameSplitter {
  #pending: Uint8Array<ArrayBufferLike> = new Uint8Array(0);

  feed(data: Uint8Array): Uint8Array[] {
    let rest: Uint8Array = this.#pending.length ? concat(this.#pending, data) : data;
    const frames: Uint8Array[] = [];
    while (rest.length >= 4) {
      const length = viewOf(rest).getUint32(0);
      if (length < MIN_FRAME_BYTES || length > MAX_FRAME_BYTES) throw new WireError('frameLengthInvalid', `${length} bytes`);
      if (rest.length < length) break;
      frames.push(rest.slice(0, length));
      rest = rest.subarray(length);
    }
    this.#pending = rest.slice();
    return frames;
  }
}

export class ClientSession {
  state: SessionState = 'connected';
  deploymentId: Uint8Array;
  #heartbeatMs: number;
  #splitter = new FrameSplitter();
  #output: Uint8Array[] = [];
  #sentMessages = 0;
  #sentMs: number;
  #receivedMs: number;
  #challenge: Uint8Array | null = null;

  /** `deploymentId`: the deployment that is meant; null accepts what the server names. */
  constructor(
    readonly publicKey: Uint8Array,
    deploymentId: Uint8Array | null,
    nowMs: number,
    heartbeatMs = 5000,
  ) {
    this.deploymentId = deploymentId ?? new Uint8Array(0);
    this.#heartbeatMs = heartbeatMs;
    this.#sentMs = this.#receivedMs = nowMs;
  }

  /** Takes received bytes; events in order. After an `ended` event, send the output and close. */
  receive(data: Uint8Array, nowMs: number): SessionEvent[] {
    const events: SessionEvent[] = [];
    try {
      for (const frame of this.#splitter.feed(data)) {
        if (this.state === 'ended') break;
        const event = this.#take(decode(frame), nowMs);
        if (event) events.push(event);
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      events.push(this.terminate(error.reason, nowMs));
    }
    return events;
  }

  #take(message: Message, nowMs: number): SessionEvent | null {
    const next = fromServer[this.state][message.message];
    if (!next) throw new WireError(this.state === 'established' ? 'alreadyEstablished' : 'notEstablished', message.message);
    switch (message.message) {
      case 'Challenge':
        if (this.deploymentId.length && !equal(this.deploymentId, message.deploymentId)) throw new WireError('deploymentMismatch');
        this.deploymentId = message.deploymentId;
        this.#challenge = message.challenge;
        this.#moved(next, nowMs);
        return {
          kind: 'challenged',
          bytes: signedBytes('logon', this.#establishFrame(), this.deploymentId),
          deploymentId: message.deploymentId,
          serverTimeNs: message.serverTimeNs,
        };
      case 'EstablishmentAck':
        if (!equal(message.publicKey, this.publicKey)) throw new WireError('keyNotOfSession');
        this.#heartbeatMs = message.heartbeatIntervalMs;
        this.#moved(next, nowMs);
        return { kind: 'established', ack: message };
      case 'EstablishmentReject':
      case 'Terminate':
        this.#moved(next, nowMs);
        return { kind: 'ended', reason: message.reason, byPeer: true };
      case 'Sequence':
        this.#moved(next, nowMs);
        return null;
      default:
        this.#moved(next, nowMs);
        return { kind: 'message', message };
    }
  }

  #moved(state: SessionState, nowMs: number): void {
    this.state = state;
    this.#receivedMs = nowMs;
  }

  #establishFrame(): Uint8Array {
    return encode({
      message: 'Establish',
      signature: new Uint8Array(SIGNATURE_BYTES),
      publicKey: this.publicKey,
      challenge: this.#challenge!,
      heartbeatIntervalMs: this.#heartbeatMs,
      options: [],
      lastReportSeq: 0n,
    });
  }

  /** Answers the challenge with the signature over the event's `bytes`. */
  establish(signature: Uint8Array, nowMs: number): void {
    if (this.state !== 'challenged') throw new Error(`cannot establish when ${this.state}`);
    this.#push(withSignature(this.#establishFrame(), signature), nowMs);
    this.state = 'establishing';
  }

  /** Sends the frame of a signed batch or of a request. */
  send(frame: Uint8Array, nowMs: number): void {
    if (this.state !== 'established') throw new Error(`cannot send when ${this.state}`);
    if (!REQUESTS.includes(decode(frame).message)) throw new Error('not a batch or request');
    this.#sentMessages += 1;
    this.#push(frame, nowMs);
  }

  /** Sends a heartbeat if one is due; ends the session when the server has been silent for too long. */
  tick(nowMs: number): SessionEvent | null {
    if (this.state === 'ended') return null;
    if (nowMs - this.#receivedMs >= HEARTBEAT_INTERVALS_MISSED * this.#heartbeatMs)
      return this.terminate(this.state === 'established' ? 'heartbeatTimeout' : 'establishTimeout', nowMs);
    if (this.state === 'established' && nowMs - this.#sentMs >= this.#heartbeatMs)
      this.#push(encode({ message: 'Sequence', nextSeqNo: BigInt(this.#sentMessages + 1) }), nowMs);
    return null;
  }

  terminate(reason: ReasonCode, nowMs: number): SessionEvent {
    if (this.state !== 'ended') this.#push(encode({ message: 'Terminate', reason }), nowMs);
    this.state = 'ended';
    return { kind: 'ended', reason, byPeer: false };
  }

  /** Everything to be sent since the last call. */
  takeOutput(): Uint8Array {
    const output = concat(...this.#output);
    this.#output = [];
    return output;
  }

  #push(frame: Uint8Array, nowMs: number): void {
    this.#output.push(frame);
    this.#sentMs = nowMs;
  }
}
