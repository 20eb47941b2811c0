// The light client: follows the checkpoints of one exchange and keeps what it has seen, so that the exchange cannot tell
// two stories. No I/O: proofs are fetched by the caller through `Proofs`.
//
// Each checkpoint must be signed by the settlement key, must be the tree head of `number + 1` leaves of which its own leaf is
// the last, and must extend the last one that was seen. Of consecutive checkpoints the page needs no proofs: it appends
// the leaf to the compact range that the first inclusion proof consisted of, and compares the root.

import { fromBase64, fromHex, toHex } from '../wire/bytes';
import { decodeCheckpointLeaf, verifyAccount } from './leaves';
import type { AccountProof, CheckpointLeaf, CommittedBalance } from './leaves';
import { CompactRange, ProofInvalid, leafHash, verifyConsistency, verifyInclusion } from './merkle';
import { NoteInvalid, openNote, parseTreeHead } from './note';
import type { NoteKey, Verify } from './note';

/** What survives a reload: the last tree head whose checks all passed. */
export interface Kept {
  readonly size: string;
  readonly root: string;
}

export interface PublishedCheckpoint {
  readonly number: string;
  readonly note: string;
  /** Base64 of the settlement-log leaf. */
  readonly leaf: string;
}

export interface Proofs {
  consistency(oldSize: bigint, newSize: bigint): Promise<Uint8Array[]>;
  /** Of leaf `number` in the tree of `size` leaves. */
  inclusion(number: bigint, size: bigint): Promise<Uint8Array[]>;
}

export interface VerifiedCheckpoint {
  readonly number: bigint;
  readonly size: bigint;
  readonly root: Uint8Array;
  readonly leaf: CheckpointLeaf;
  readonly note: string;
}

/** Something the exchange signed or served contradicts itself or what was seen before. */
export class Mismatch extends Error {}

const REMEMBERED = 600;

export class LightClient {
  last: VerifiedCheckpoint | null = null;
  kept: Kept | null;
  #range: CompactRange | null = null;
  #leaves = new Map<bigint, CheckpointLeaf>();

  constructor(
    readonly key: NoteKey,
    readonly verify: Verify,
    readonly proofs: Proofs,
    kept: Kept | null,
  ) {
    this.kept = kept;
  }

  /** Checks a checkpoint and remembers it. Throws Mismatch; other errors (no network) leave everything as it was. */
  async take(published: PublishedCheckpoint): Promise<VerifiedCheckpoint> {
    return this.#explained(`checkpoint ${published.number}`, async () => {
      const head = parseTreeHead(await openNote(published.note, this.key, this.verify));
      const data = bytesOf(published.leaf);
      const leaf = decodeCheckpointLeaf(data);
      if (head.origin !== this.key.name) throw new Mismatch(`its origin is ${head.origin}, not ${this.key.name}`);
      if (leaf.number !== BigInt(published.number)) throw new Mismatch(`its leaf is number ${leaf.number}`);
      if (head.size !== leaf.number + 1n) throw new Mismatch(`the signed size is ${head.size}`);
      if (this.last && head.size < this.last.size) return this.#older(head.size, head.root);
      const range = await this.#rangeWith(data, head.size, head.root);
      this.#range = range;
      this.#leaves.set(leaf.number, leaf);
      if (this.#leaves.size > REMEMBERED) this.#leaves.delete(this.#leaves.keys().next().value!);
      this.last = { number: leaf.number, size: head.size, root: head.root, leaf, note: published.note };
      this.kept = { size: String(head.size), root: toHex(head.root) };
      return this.last;
    });
  }

  async #older(size: bigint, root: Uint8Array): Promise<VerifiedCheckpoint> {
    const last = this.last!;
    verifyConsistency(size, root, last.size, last.root, await this.proofs.consistency(size, last.size));
    return last;
  }

  async #rangeWith(data: Uint8Array, size: bigint, root: Uint8Array): Promise<CompactRange> {
    if (this.#range && this.#range.size === size - 1n) {
      const grown = this.#range.copy();
      grown.append(leafHash(data));
      if (toHex(grown.root()) !== toHex(root)) throw new Mismatch('its root is not that of the checkpoints before it');
      return grown;
    }
    const proof = await this.proofs.inclusion(size - 1n, size);
    verifyInclusion(leafHash(data), size - 1n, size, proof, root);
    if (this.kept) {
      const oldSize = BigInt(this.kept.size);
      if (oldSize > size) {
        const path = await this.proofs.consistency(size, oldSize);
        verifyConsistency(size, root, oldSize, fromHex(this.kept.root), path);
        throw new Mismatch(`the exchange has gone back: ${oldSize} checkpoints were seen before`);
      }
      const path = oldSize === size ? [] : await this.proofs.consistency(oldSize, size);
      verifyConsistency(oldSize, fromHex(this.kept.root), size, root, path);
    }
    const range = CompactRange.beforeLast(size, proof);
    range.append(leafHash(data));
    return range;
  }

  /** The verified leaf of checkpoint `number`, fetched and proved if it is not remembered. */
  async #leafOf(number: bigint, fetchLeaf: (number: bigint) => Promise<Uint8Array>): Promise<CheckpointLeaf> {
    const known = this.#leaves.get(number);
    if (known) return known;
    const last = this.last;
    if (!last || number >= last.size) throw new NotYet();
    const data = await fetchLeaf(number);
    verifyInclusion(leafHash(data), number, last.size, await this.proofs.inclusion(number, last.size), last.root);
    return decodeCheckpointLeaf(data);
  }

  /** Checks that `frame` is record `recordNo` of the log that checkpoint `number` commits to. Throws Mismatch, NotYet. */
  async checkRecord(
    shard: number,
    recordNo: bigint,
    frame: Uint8Array,
    number: bigint,
    hashes: readonly Uint8Array[],
    fetchLeaf: (number: bigint) => Promise<Uint8Array>,
  ): Promise<void> {
    await this.#explained(`record ${recordNo}`, async () => {
      const tip = (await this.#leafOf(number, fetchLeaf)).shards[shard];
      if (!tip) throw new Mismatch(`checkpoint ${number} has no shard ${shard}`);
      verifyInclusion(leafHash(frame), recordNo, tip.logSize, hashes, tip.logRoot);
    });
  }

  /**
   * Checks what checkpoint `number` says about an account, on every shard that it has; returns the sums by asset. Throws Mismatch,
   * NotYet.
   */
  async checkAccount(
    accountId: bigint,
    proofs: readonly AccountProof[],
    number: bigint,
    fetchLeaf: (number: bigint) => Promise<Uint8Array>,
  ): Promise<CommittedBalance[]> {
    return this.#explained(`account ${accountId}`, async () => {
      const { shards } = await this.#leafOf(number, fetchLeaf);
      if (proofs.length !== shards.length || proofs.some((one, index) => one.shard !== shards[index]!.shard))
        throw new Mismatch('the proof does not have exactly the shards of the checkpoint');
      const sums = new Map<number, CommittedBalance>();
      proofs.forEach((proof, index) => {
        for (const one of verifyAccount(accountId, proof, shards[index]!.stateRoot)?.balances ?? []) {
          const known = sums.get(one.assetId);
          sums.set(one.assetId, known ? { ...one, available: known.available + one.available, held: known.held + one.held } : one);
        }
      });
      return [...sums.values()].sort((left, right) => left.assetId - right.assetId);
    });
  }

  async #explained<Result>(subject: string, check: () => Promise<Result>): Promise<Result> {
    try {
      return await check();
    } catch (error) {
      if (error instanceof Mismatch || error instanceof ProofInvalid || error instanceof NoteInvalid)
        throw new Mismatch(error.message.startsWith(subject) ? error.message : `${subject}: ${error.message}`);
      throw error;
    }
  }
}

/** The checkpoint that a proof names was not seen yet; ask again after the next one. */
export class NotYet extends Error {}

function bytesOf(base64: string): Uint8Array {
  try {
    return fromBase64(base64);
  } catch {
    throw new Mismatch('its leaf is not base64');
  }
}
