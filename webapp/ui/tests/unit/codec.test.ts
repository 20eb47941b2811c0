import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import * as ed from '@noble/ed25519';
import { sha512 } from '@noble/hashes/sha2.js';
import { describe, expect, it } from 'vitest';
import { fromHex, toHex, viewOf } from '../../src/wire/bytes';
import { EncodeError, WireError, decode, encode } from '../../src/wire/codec';
import { MESSAGES } from '../../src/wire/messages';
import type { Message } from '../../src/wire/messages';
import { nextNonce, signedBytes, withSignature } from '../../src/wire/signing';

ed.hashes.sha512 = sha512;

interface Golden {
  message: string;
  deploymentId?: string;
  seed?: string;
  cases: { description: string; fields: Record<string, unknown>; frame: string }[];
}

const folder = join(import.meta.dirname, '../../../../protocol/golden');
const files = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Golden);
const cases = files.flatMap((file) => file.cases.map((one) => ({ ...one, message: file.message, file })));

/** A record as the vectors write it: 64-bit integers as strings, bytes in hex. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Uint8Array) return toHex(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === 'object')
    return Object.fromEntries(Object.entries(value).filter(([name]) => name !== 'message').map(([name, one]) => [name, plain(one)]));
  return value;
}

function withLength(frame: Uint8Array): Uint8Array {
  const copy = frame.slice();
  viewOf(copy).setUint32(0, copy.length);
  return copy;
}

function refusal(frame: Uint8Array): string | null {
  try {
    decode(frame);
    return null;
  } catch (error) {
    if (error instanceof WireError) return error.reason;
    throw error;
  }
}

describe('golden vectors', () => {
  it('there is a file for every message', () => {
    expect(new Set(files.map((file) => file.message))).toEqual(new Set(MESSAGES.map((table) => table.name)));
  });

  it.each(cases.map((one) => [`${one.message}: ${one.description}`, one] as const))('%s', (_, one) => {
    const frame = fromHex(one.frame);
    const message = decode(frame);
    expect(message.message).toBe(one.message);
    // `genesis` files are text of one case; numbers of enums and sets are not in the vectors.
    expect(plain(message)).toEqual(one.fields);
    expect(toHex(encode(message))).toBe(one.frame);
  });

  it.each(cases.filter((one) => one.frame.length < 1200).map((one) => [`${one.message}: ${one.description}`, one] as const))(
    'a damaged copy is refused or means something else: %s',
    (_, one) => {
      const frame = fromHex(one.frame);
      const original = plain(decode(frame));
      for (let position = 0; position < frame.length; position++) {
        const damaged = frame.slice();
        damaged[position]! ^= 0xff;
        if (refusal(damaged) === null) expect(plain(decode(damaged)), `byte ${position}`).not.toEqual(original);
      }
      for (let length = 14; length < frame.length; length++) expect(refusal(withLength(frame.slice(0, length)))).toBe('frameTruncated');
      expect(refusal(withLength(new Uint8Array([...frame, 0])))).toBe('trailingBytes');
      expect(refusal(frame.slice(0, -1))).toBe('frameLengthInvalid');
    },
  );

  it.each(cases.filter((one) => one.file.seed).map((one) => [`${one.message}: ${one.description}`, one] as const))(
    'signing gives the same frame: %s',
    (_, one) => {
      const frame = fromHex(one.frame);
      const unsigned = withSignature(frame, new Uint8Array(64));
      const bytes = signedBytes(one.message === 'Establish' ? 'logon' : 'batch', unsigned, fromHex(one.file.deploymentId!));
      expect(toHex(withSignature(unsigned, ed.sign(bytes, fromHex(one.file.seed!))))).toBe(one.frame);
    },
  );
});

describe('encode', () => {
  const sequence = (nextSeqNo: unknown): Message => ({ message: 'Sequence', nextSeqNo }) as Message;

  it.each([[2n ** 64n], [-1n], [1]])('refuses %s in a field of 64 bits', (value) => {
    expect(() => encode(sequence(value))).toThrow(EncodeError);
  });

  it('refuses a batch without commands', () => {
    const batch = decode(fromHex(cases.find((one) => one.message === 'SignedBatch')!.frame)) as Message & { commands: unknown[] };
    expect(() => encode({ ...batch, commands: [] } as Message)).toThrow(EncodeError);
  });
});

it('nonces grow even when the clock does not', () => {
  expect(nextNonce(100n, 5n)).toBe(100n);
  expect(nextNonce(100n, 100n)).toBe(101n);
  expect(nextNonce(100n, 200n)).toBe(201n);
});
