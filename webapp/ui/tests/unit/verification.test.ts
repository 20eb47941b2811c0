import * as ed from '@noble/ed25519';
import { sha512 } from '@noble/hashes/sha2.js';
import { describe, expect, it } from 'vitest';
import { crc32 } from '../../src/market/crc32';
import { verifyAccount } from '../../src/verification/leaves';
import type { AccountProof } from '../../src/verification/leaves';
import { LightClient, Mismatch, NotYet } from '../../src/verification/light';
import type { Kept, PublishedCheckpoint } from '../../src/verification/light';
import { CompactRange, ProofInvalid, leafHash, verifyConsistency, verifyInclusion } from '../../src/verification/merkle';
import { NoteInvalid, keyId, openNote, parseTreeHead } from '../../src/verification/note';
import { fromBase64, fromHex, toBase64, toHex } from '../../src/wire/bytes';
import vectors from './vectors.json';

ed.hashes.sha512 = sha512;
const verify = async (signature: Uint8Array, message: Uint8Array, key: Uint8Array) => ed.verify(signature, message, key);

const leaves = vectors.merkle.leaves.map(fromHex);
const roots = vectors.merkle.roots as Record<string, string>;
const rootOf = (size: number) => fromHex(roots[size]!);

describe('merkle proofs made by the Python code', () => {
  it.each(vectors.merkle.inclusion.map((one) => [`${one.index} of ${one.size}`, one] as const))('inclusion of %s', (_, one) => {
    const leaf = leafHash(leaves[one.index]!);
    const proof = one.hashes.map(fromHex);
    verifyInclusion(leaf, BigInt(one.index), BigInt(one.size), proof, rootOf(one.size));
    expect(() => verifyInclusion(leafHash(leaf), BigInt(one.index), BigInt(one.size), proof, rootOf(one.size))).toThrow(ProofInvalid);
    expect(() => verifyInclusion(leaf, BigInt(one.size), BigInt(one.size), proof, rootOf(one.size))).toThrow(ProofInvalid);
    expect(() => verifyInclusion(leaf, BigInt(one.index), BigInt(one.size), [...proof, leaf], rootOf(one.size))).toThrow(ProofInvalid);
    for (let index = 0; index < proof.length; index++) {
      const damaged = proof.map((hash) => hash.slice());
      damaged[index]![3]! ^= 1;
      expect(() => verifyInclusion(leaf, BigInt(one.index), BigInt(one.size), damaged, rootOf(one.size))).toThrow(ProofInvalid);
    }
    if (proof.length) expect(() => verifyInclusion(leaf, BigInt(one.index), BigInt(one.size), proof.slice(1), rootOf(one.size))).toThrow(ProofInvalid);
  });

  it.each(vectors.merkle.consistency.map((one) => [`${one.old} in ${one.new}`, one] as const))('consistency of %s', (_, one) => {
    const proof = one.hashes.map(fromHex);
    const check = (old: Uint8Array, hashes: Uint8Array[], root: Uint8Array) => verifyConsistency(BigInt(one.old), old, BigInt(one.new), root, hashes);
    check(rootOf(one.old), proof, rootOf(one.new));
    expect(() => check(leafHash(rootOf(one.old)), proof, rootOf(one.new))).toThrow(ProofInvalid);
    expect(() => check(rootOf(one.old), proof, leafHash(rootOf(one.new)))).toThrow(ProofInvalid);
    expect(() => check(rootOf(one.old), [...proof, rootOf(1)], rootOf(one.new))).toThrow(ProofInvalid);
    if (proof.length) expect(() => check(rootOf(one.old), proof.slice(1), rootOf(one.new))).toThrow(ProofInvalid);
  });

  it('a compact range has the roots of the whole tree', () => {
    const range = new CompactRange();
    leaves.forEach((leaf, index) => {
      range.append(leafHash(leaf));
      if (roots[index + 1]) expect(toHex(range.root())).toBe(roots[index + 1]);
    });
  });
});

const { state } = vectors;
const accountProof = (): AccountProof => ({
  shard: 0, leaf: fromHex(state.leaf), hashes: state.hashes.map(fromHex), subtrees: state.subtrees.map((one) => ({ leaves: BigInt(one.leaves), root: fromHex(one.root) })),
});

describe('state tree', () => {
  const [accountId, stateRoot] = [BigInt(state.account_id), fromHex(state.state_root)];

  it('an account leads to the state root', () => {
    expect(verifyAccount(accountId, accountProof(), stateRoot)!.balances).toEqual([
      { assetId: 1, available: 150_000_000n, held: 25_000_000n },
      { assetId: 2, available: 9_876_543_210n, held: 1n },
    ]);
  });

  it('an account that is not open has an empty leaf, or none', () => {
    const { no_entry: none } = state;
    expect(verifyAccount(BigInt(none.account_id), { ...accountProof(), leaf: fromHex(none.leaf), hashes: none.hashes.map(fromHex) }, stateRoot)).toBeNull();
    expect(verifyAccount(7n, { ...accountProof(), leaf: null, hashes: [] }, stateRoot)).toBeNull();
  });

  const subtrees = (change: (index: number) => object) => accountProof().subtrees.map((one, index) => ({ ...one, ...change(index) }));
  it.each([
    ['another balance', accountId, { leaf: fromHex(state.leaf.replace('01000000', '02000000')) }],
    ['a leaf without what the operator laid down', accountId, { leaf: fromHex(state.leaf.slice(0, 48) + state.leaf.slice(112)) }],
    ['a leaf cut in its head', accountId, { leaf: fromHex(state.leaf.slice(0, 100)) }],
    ['another account', 6n, {}],
    ['an account that is said to be missing', accountId, { leaf: null, hashes: [] }],
    ['a missing account with a path', 7n, { leaf: null }],
    ['another leaf count', accountId, { subtrees: subtrees((index) => (index === 1 ? { leaves: 6n } : {})) }],
    ['another root of another subtree', accountId, { subtrees: subtrees((index) => (index === 3 ? { root: leafHash(new Uint8Array(1)) } : {})) }],
    ['six subtrees', accountId, { subtrees: accountProof().subtrees.slice(1) }],
    ['a path that is too short', accountId, { hashes: accountProof().hashes.slice(1) }],
  ] as [string, bigint, Partial<AccountProof>][])('refuses %s', (_, id, change) => {
    expect(() => verifyAccount(id, { ...accountProof(), ...change }, stateRoot)).toThrow(ProofInvalid);
  });
});

const { checkpoints } = vectors;
const key = { name: checkpoints.name, publicKey: fromHex(checkpoints.public_key) };
const entry = (number: number): PublishedCheckpoint => ({ ...checkpoints.entries[number]!, number: String(number) });

describe('notes', () => {
  it('the key id is that of the verifier key', () => {
    expect(checkpoints.verifier_key.split('+')[1]).toBe(toHex(keyId(key)));
  });

  it('opens a note of the Python code', async () => {
    const head = parseTreeHead(await openNote(entry(3).note, key, verify));
    expect(head).toMatchObject({ origin: key.name, size: 4n });
  });

  it.each([
    ['another size', (note: string) => note.replace('\n4\n', '\n5\n')],
    ['no signature', (note: string) => note.slice(0, note.indexOf('—'))],
    ['a control character', (note: string) => note.replace('golden', 'gol\tden')],
    ['another key name', (note: string) => note.replace('— golden', '— silver')],
    ['no final line feed', (note: string) => note.trimEnd()],
  ])('refuses %s', async (_, change) => {
    await expect(openNote(change(entry(3).note), key, verify)).rejects.toThrow(NoteInvalid);
  });

  it.each(['a\n1\n', 'a\n01\nAAAA\n', `a\n1\n${toBase64(new Uint8Array(31))}\n`, `a\n1\n${toBase64(new Uint8Array(32))}\nmore\n`])('refuses the tree head %j', (text) => {
    expect(() => parseTreeHead(text)).toThrow(NoteInvalid);
  });
});

describe('light client', () => {
  const hashes = checkpoints.leaf_hashes.map(fromHex);

  /** Proofs computed plainly, and a count of how often they were asked for. */
  function proofs() {
    const asked = { consistency: 0, inclusion: 0 };
    const rootOfHashes = (part: Uint8Array[]): Uint8Array => {
      const range = new CompactRange();
      part.forEach((hash) => range.append(hash));
      return range.root();
    };
    const split = (size: number) => 2 ** Math.floor(Math.log2(size - 1));
    const inclusion = (part: Uint8Array[], index: number): Uint8Array[] => {
      if (part.length === 1) return [];
      const at = split(part.length);
      return index < at ? [...inclusion(part.slice(0, at), index), rootOfHashes(part.slice(at))] : [...inclusion(part.slice(at), index - at), rootOfHashes(part.slice(0, at))];
    };
    const subproof = (part: Uint8Array[], old: number, known: boolean): Uint8Array[] => {
      if (old === part.length) return known ? [] : [rootOfHashes(part)];
      const at = split(part.length);
      return old <= at ? [...subproof(part.slice(0, at), old, known), rootOfHashes(part.slice(at))] : [...subproof(part.slice(at), old - at, false), rootOfHashes(part.slice(0, at))];
    };
    return {
      asked,
      source: {
        consistency: async (old: bigint, size: bigint) => ((asked.consistency += 1), old === size ? [] : subproof(hashes.slice(0, Number(size)), Number(old), true)),
        inclusion: async (number: bigint, size: bigint) => ((asked.inclusion += 1), inclusion(hashes.slice(0, Number(size)), Number(number))),
      },
    };
  }

  const client = (kept: Kept | null = null) => {
    const { asked, source } = proofs();
    return { light: new LightClient(key, verify, source, kept), asked };
  };

  it('follows consecutive checkpoints with one proof', async () => {
    const { light, asked } = client();
    for (let number = 2; number < 12; number++) await light.take(entry(number));
    expect(light.last!.leaf.shards[0]!.logSize).toBe(24n);
    expect(asked).toEqual({ consistency: 0, inclusion: 1 });
  });

  it('asks for a consistency proof after a gap and after a reload', async () => {
    const first = client();
    await first.light.take(entry(2));
    await first.light.take(entry(7));
    expect(first.asked).toEqual({ consistency: 1, inclusion: 2 });
    const second = client(first.light.kept);
    await second.light.take(entry(9));
    expect(second.asked).toEqual({ consistency: 1, inclusion: 1 });
  });

  it('refuses a fork of what was kept', async () => {
    const { light } = client({ size: '3', root: toHex(leafHash(new Uint8Array(1))) });
    await expect(light.take(entry(5))).rejects.toThrow(Mismatch);
    expect(light.last).toBeNull();
  });

  it('refuses an exchange that has gone back', async () => {
    const { light } = client();
    await light.take(entry(9));
    const again = client(light.kept);
    await expect(again.light.take(entry(4))).rejects.toThrow(/gone back/);
  });

  it('refuses a leaf that the note does not commit to', async () => {
    const { light } = client();
    await expect(light.take({ ...entry(4), leaf: entry(3).leaf })).rejects.toThrow(Mismatch);
    await light.take(entry(4));
    const leaf = fromBase64(entry(5).leaf);
    leaf[60]! ^= 1;
    await expect(light.take({ ...entry(5), leaf: toBase64(leaf) })).rejects.toThrow(Mismatch);
    await light.take(entry(5));
  });

  it('leaves everything as it was when a proof cannot be fetched', async () => {
    const failing = { consistency: () => Promise.reject(new TypeError('no network')), inclusion: () => Promise.reject(new TypeError('no network')) };
    const light = new LightClient(key, verify, failing, null);
    await expect(light.take(entry(4))).rejects.toThrow(TypeError);
    expect(light.last).toBeNull();
  });

  it('proves a record and an account', async () => {
    const { light } = client();
    const proof = checkpoints.record_proof;
    const frame = fromHex(checkpoints.records[proof.record_no]!);
    const fetchLeaf = async (number: bigint) => fromBase64(entry(Number(number)).leaf);
    const record = (data: Uint8Array) => light.checkRecord(0, BigInt(proof.record_no), data, BigInt(proof.checkpoint), proof.hashes.map(fromHex), fetchLeaf);
    await light.take(entry(3));
    await expect(record(frame)).rejects.toThrow(NotYet);
    await light.take(entry(10));
    await record(frame);
    await expect(record(fromHex(checkpoints.records[6]!))).rejects.toThrow(Mismatch);
    expect(await light.checkAccount(5n, [accountProof()], 10n, fetchLeaf)).toEqual([
      { assetId: 1, available: 150_000_000n, held: 25_000_000n },
      { assetId: 2, available: 9_876_543_210n, held: 1n },
    ]);
    await expect(light.checkAccount(5n, [], 10n, fetchLeaf)).rejects.toThrow(/exactly the shards/);
    await expect(light.checkAccount(5n, [{ ...accountProof(), shard: 1 }], 10n, fetchLeaf)).rejects.toThrow(/exactly the shards/);
    await expect(light.checkAccount(4n, [accountProof()], 10n, fetchLeaf)).rejects.toThrow(Mismatch);
    await expect(light.checkAccount(5n, [accountProof()], 11n, fetchLeaf)).rejects.toThrow(NotYet);
  });
});

it.each(vectors.crc32.map((one) => [one.text, one.crc] as const))('crc32 of %j', (text, crc) => {
  expect(crc32(text)).toBe(crc);
});
