// Merkle trees of RFC 6962 with SHA-256: proofs are checked, never made. A leaf hashes as H(0x00 || data), an inner node as
// H(0x01 || left || right), a lone right subtree is promoted unchanged. Every check throws ProofInvalid; there is no result
// to forget to look at.

import { sha256 } from '@noble/hashes/sha2.js';
import { concat, equal } from '../wire/bytes';

export const HASH_BYTES = 32;
export const EMPTY_ROOT = sha256(new Uint8Array(0));

export class ProofInvalid extends Error {}

export function leafHash(data: Uint8Array): Uint8Array {
  return sha256(concat(Uint8Array.of(0), data));
}

export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  requireHashes([left, right]);
  return sha256(concat(Uint8Array.of(1), left, right));
}

function requireHashes(values: readonly Uint8Array[]): void {
  for (const value of values) if (value.length !== HASH_BYTES) throw new ProofInvalid(`a hash of ${value.length} bytes`);
}

/** The root that the proof leads to for `leaf` (a hash) at `index` in a tree of `size` leaves. RFC 9162, 2.1.3.2. */
export function inclusionRoot(leaf: Uint8Array, index: bigint, size: bigint, proof: readonly Uint8Array[]): Uint8Array {
  requireHashes([leaf, ...proof]);
  if (index < 0n || index >= size) throw new ProofInvalid(`no leaf ${index} in a tree of ${size}`);
  let node = index;
  let last = size - 1n;
  let computed = leaf;
  for (const sibling of proof) {
    if (last === 0n) throw new ProofInvalid('the proof is too long');
    if (node & 1n || node === last) {
      computed = nodeHash(sibling, computed);
      while (node !== 0n && !(node & 1n)) {
        node >>= 1n;
        last >>= 1n;
      }
    } else computed = nodeHash(computed, sibling);
    node >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) throw new ProofInvalid('the proof is too short');
  return computed;
}

/** Checks that `leaf` (a hash) is leaf `index` of the tree of `size` leaves with this root. */
export function verifyInclusion(leaf: Uint8Array, index: bigint, size: bigint, proof: readonly Uint8Array[], root: Uint8Array): void {
  if (!equal(inclusionRoot(leaf, index, size, proof), root)) throw new ProofInvalid('the proof leads to another root');
}

/** Checks that the tree (oldSize, oldRoot) is a prefix of the tree (size, root). RFC 9162, 2.1.4.2. */
export function verifyConsistency(oldSize: bigint, oldRoot: Uint8Array, size: bigint, root: Uint8Array, proof: readonly Uint8Array[]): void {
  if (oldSize < 0n || oldSize > size) throw new ProofInvalid(`a tree of ${size} leaves has no prefix of ${oldSize}`);
  if ((oldSize === 0n || oldSize === size) && proof.length) throw new ProofInvalid('the proof is too long');
  if (oldSize === 0n && !equal(oldRoot, EMPTY_ROOT)) throw new ProofInvalid('the root of the empty old tree is another');
  if (oldSize === size) {
    if (!equal(oldRoot, root)) throw new ProofInvalid('two roots for one size');
    return;
  }
  requireHashes([oldRoot, root, ...proof]);
  if (oldSize === 0n) return;
  if (!proof.length) throw new ProofInvalid('the proof is too short');
  const path = (oldSize & (oldSize - 1n)) === 0n ? [oldRoot, ...proof] : [...proof];
  let node = oldSize - 1n;
  let last = size - 1n;
  while (node & 1n) {
    node >>= 1n;
    last >>= 1n;
  }
  let computedOld = path[0]!;
  let computedNew = path[0]!;
  for (const sibling of path.slice(1)) {
    if (last === 0n) throw new ProofInvalid('the proof is too long');
    if (node & 1n || node === last) {
      computedOld = nodeHash(sibling, computedOld);
      computedNew = nodeHash(sibling, computedNew);
      while (node !== 0n && !(node & 1n)) {
        node >>= 1n;
        last >>= 1n;
      }
    } else computedNew = nodeHash(computedNew, sibling);
    node >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) throw new ProofInvalid('the proof is too short');
  if (!equal(computedOld, oldRoot)) throw new ProofInvalid('the proof leads to another old root');
  if (!equal(computedNew, root)) throw new ProofInvalid('the proof leads to another root');
}

/** A growing tree of which only the roots of its perfect subtrees are kept, largest first. */
export class CompactRange {
  #hashes: Uint8Array[];
  #size: bigint;

  constructor(size = 0n, hashes: readonly Uint8Array[] = []) {
    if (hashes.length !== bitCount(size)) throw new ProofInvalid(`${hashes.length} subtree roots cannot make a tree of ${size} leaves`);
    requireHashes(hashes);
    this.#size = size;
    this.#hashes = [...hashes];
  }

  /** The range before the last leaf of a tree: what the inclusion proof of that leaf consists of. */
  static beforeLast(size: bigint, proof: readonly Uint8Array[]): CompactRange {
    return new CompactRange(size - 1n, [...proof].reverse());
  }

  get size(): bigint {
    return this.#size;
  }

  copy(): CompactRange {
    return new CompactRange(this.#size, this.#hashes);
  }

  append(leaf: Uint8Array): void {
    requireHashes([leaf]);
    let computed = leaf;
    for (let size = this.#size; size & 1n; size >>= 1n) computed = nodeHash(this.#hashes.pop()!, computed);
    this.#hashes.push(computed);
    this.#size += 1n;
  }

  root(): Uint8Array {
    if (!this.#hashes.length) return EMPTY_ROOT;
    return this.#hashes.slice(0, -1).reduceRight((computed, left) => nodeHash(left, computed), this.#hashes.at(-1)!);
  }
}

function bitCount(value: bigint): number {
  let count = 0;
  for (let rest = value; rest > 0n; rest >>= 1n) count += Number(rest & 1n);
  return count;
}
