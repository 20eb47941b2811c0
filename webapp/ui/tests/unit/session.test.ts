import { describe, expect, it } from 'vitest';
import { concat, equal } from '../../src/wire/bytes';
import { decode, encode } from '../../src/wire/codec';
import type { Message } from '../../src/wire/messages';
import { ClientSession, FrameSplitter } from '../../src/wire/session';
import type { SessionEvent } from '../../src/wire/session';

const KEY = new Uint8Array(32).fill(7);
const DEPLOYMENT = new Uint8Array(32).fill(1);
const challenge = encode({ message: 'Challenge', deploymentId: DEPLOYMENT, challenge: new Uint8Array(32).fill(9), serverTimeNs: 5n });
const ack = (publicKey = KEY) =>
  encode({ message: 'EstablishmentAck', publicKey, serverTimeNs: 6n, heartbeatIntervalMs: 1000, durability: 'always', shards: [{ shard: 0, accountId: 3n, reportSeq: 0n }] });
const balances = encode({ message: 'BalancesRequest', requestId: 1n, shard: 0 } as Message);

function established(): ClientSession {
  const session = new ClientSession(KEY, null, 0);
  session.receive(challenge, 1);
  session.establish(new Uint8Array(64).fill(2), 2);
  session.takeOutput();
  session.receive(ack(), 3);
  return session;
}

const sent = (session: ClientSession): Message[] => new FrameSplitter().feed(session.takeOutput()).map(decode);
const only = (events: SessionEvent[]): SessionEvent => {
  expect(events).toHaveLength(1);
  return events[0]!;
};

describe('logon', () => {
  it('answers the challenge with a signature over what it names', () => {
    const session = new ClientSession(KEY, DEPLOYMENT, 0);
    const event = only(session.receive(challenge, 1));
    expect(event).toMatchObject({ kind: 'challenged', serverTimeNs: 5n });
    session.establish(new Uint8Array(64).fill(2), 2);
    expect(sent(session)).toMatchObject([{ message: 'Establish', signature: new Uint8Array(64).fill(2), challenge: new Uint8Array(32).fill(9) }]);
    expect(only(session.receive(ack(), 3))).toMatchObject({ kind: 'established', ack: { shards: [{ accountId: 3n }] } });
    expect(session.state).toBe('established');
  });

  it('takes a stream in pieces of any size', () => {
    const session = new ClientSession(KEY, DEPLOYMENT, 0);
    const events = [...challenge].flatMap((byte) => session.receive(Uint8Array.of(byte), 1));
    expect(events.map((event) => event.kind)).toEqual(['challenged']);
  });

  it.each([
    ['another deployment', new ClientSession(KEY, new Uint8Array(32).fill(3), 0), challenge, 'deploymentMismatch'],
    ['an answer before the logon', new ClientSession(KEY, null, 0), encode({ message: 'Sequence', nextSeqNo: 1n }), 'notEstablished'],
    ['bytes that are no frame', new ClientSession(KEY, null, 0), new Uint8Array(20), 'frameLengthInvalid'],
  ])('ends on %s', (_, session, bytes, reason) => {
    expect(only(session.receive(bytes, 1))).toEqual({ kind: 'ended', reason, byPeer: false });
    expect(sent(session)).toEqual([{ message: 'Terminate', reason }]);
    expect(session.receive(challenge, 2)).toEqual([]);
  });

  it('ends on an acknowledgement for another key', () => {
    const session = new ClientSession(KEY, null, 0);
    session.receive(challenge, 1);
    session.establish(new Uint8Array(64), 2);
    expect(only(session.receive(ack(new Uint8Array(32)), 3))).toMatchObject({ kind: 'ended', reason: 'keyNotOfSession' });
  });

  it('passes on why the server refused', () => {
    const session = new ClientSession(KEY, null, 0);
    expect(only(session.receive(encode({ message: 'EstablishmentReject', reason: 'sessionLimit' }), 1))).toEqual({ kind: 'ended', reason: 'sessionLimit', byPeer: true });
  });
});

describe('established', () => {
  it('refuses to send before, and anything a client does not send', () => {
    expect(() => new ClientSession(KEY, null, 0).send(balances, 1)).toThrow();
    expect(() => established().send(challenge, 4)).toThrow();
  });

  it('sends requests and hands on answers, several in one read', () => {
    const session = established();
    session.send(balances, 4);
    expect(equal(session.takeOutput(), balances)).toBe(true);
    const reject = encode({ message: 'QueryReject', requestId: 1n, reason: 'shardUnknown' });
    const events = session.receive(concat(reject, encode({ message: 'Sequence', nextSeqNo: 2n }), reject), 5);
    expect(events.map((event) => event.kind)).toEqual(['message', 'message']);
  });

  it('sends a heartbeat after a silent interval and counts what it sent', () => {
    const session = established();
    session.send(balances, 10);
    session.takeOutput();
    expect(session.tick(1009)).toBeNull();
    expect(sent(session)).toEqual([]);
    session.tick(1010);
    expect(sent(session)).toEqual([{ message: 'Sequence', nextSeqNo: 2n }]);
  });

  it('ends when the server is silent for three intervals', () => {
    const session = established();
    expect(session.tick(3002)).toBeNull();
    session.takeOutput();
    expect(session.tick(3003)).toEqual({ kind: 'ended', reason: 'heartbeatTimeout', byPeer: false });
    expect(sent(session)).toEqual([{ message: 'Terminate', reason: 'heartbeatTimeout' }]);
  });
});
