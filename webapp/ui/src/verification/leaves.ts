// The leaves that a page reads itself instead of believing a JSON field: a checkpoint's, and an account's in the state
// tree (docs/formats.md, sections 3 and 6).

import { concat, equal, utf8, viewOf } from '../wire/bytes';
import { CompactRange, ProofInvalid, leafHash, verifyInclusion } from './merkle';

export interface ShardTip {
  readonly shard: number;
  /** Leaves of the execution tree: the number of the next record. */
  readonly logSize: bigint;
  readonly logRoot: Uint8Array;
  readonly chain: Uint8Array;
  readonly stateRoot: Uint8Array;
}

export interface CheckpointLeaf {
  readonly number: bigint;
  readonly timeNs: bigint;
  readonly previousLeafHash: Uint8Array;
  readonly shards: readonly ShardTip[];
}

const HEAD_BYTES = 54;
const SHARD_BYTES = 106;
const TAIL_BYTES = 64;

function magicIs(data: Uint8Array, magic: string): boolean {
  return utf8(magic).every((byte, index) => data[index] === byte);
}

/** Throws ProofInvalid for any byte out of place. */
export function decodeCheckpointLeaf(data: Uint8Array): CheckpointLeaf {
  if (data.length < HEAD_BYTES || !magicIs(data, 'ZXC1')) throw new ProofInvalid('not the leaf of a checkpoint');
  const view = viewOf(data);
  const count = view.getUint16(52, true);
  if (data.length !== HEAD_BYTES + count * SHARD_BYTES + TAIL_BYTES) throw new ProofInvalid('a checkpoint leaf of another length');
  const shards: ShardTip[] = [];
  for (let index = 0; index < count; index++) {
    const at = HEAD_BYTES + index * SHARD_BYTES;
    if (view.getUint16(at, true) !== index) throw new ProofInvalid('shards of a checkpoint out of order');
    shards.push({
      shard: index,
      logSize: view.getBigUint64(at + 2, true),
      logRoot: data.slice(at + 10, at + 42),
      chain: data.slice(at + 42, at + 74),
      stateRoot: data.slice(at + 74, at + 106),
    });
  }
  return { number: view.getBigUint64(4, true), timeNs: view.getBigUint64(12, true), previousLeafHash: data.slice(20, 52), shards };
}

export interface CommittedBalance {
  readonly assetId: number;
  readonly available: bigint;
  readonly held: bigint;
}

export interface AccountLeaf {
  readonly accountId: bigint;
  readonly reportSeq: bigint;
  readonly balances: readonly CommittedBalance[];
}

/** Tag, account, report number and count of balances, then what the operator laid down, which the page has no use for. */
const ACCOUNT_BYTES = 56;
const BALANCE_BYTES = 20;

export function decodeAccountLeaf(data: Uint8Array): AccountLeaf {
  if (data.length < ACCOUNT_BYTES || !magicIs(data, 'ZXA1')) throw new ProofInvalid('not the leaf of an account');
  const view = viewOf(data);
  const count = view.getUint32(20, true);
  if (data.length !== ACCOUNT_BYTES + count * BALANCE_BYTES) throw new ProofInvalid('an account leaf of another length');
  const balances: CommittedBalance[] = [];
  for (let index = 0; index < count; index++) {
    const at = ACCOUNT_BYTES + index * BALANCE_BYTES;
    balances.push({ assetId: view.getUint32(at, true), available: view.getBigUint64(at + 4, true), held: view.getBigUint64(at + 12, true) });
  }
  return { accountId: view.getBigUint64(4, true), reportSeq: view.getBigUint64(12, true), balances };
}

/** One subtree of a state tree. */
export interface Subtree {
  readonly leaves: bigint;
  readonly root: Uint8Array;
}

/** What one shard's state says about an account: its leaf, null where the accounts' subtree ends before it, and the path from it. */
export interface AccountProof {
  readonly shard: number;
  readonly leaf: Uint8Array | null;
  /** From the leaf to the root of the accounts' subtree, lowest first. */
  readonly hashes: readonly Uint8Array[];
  /** All seven, in the order of the state tree. */
  readonly subtrees: readonly Subtree[];
}

const ACCOUNTS = 1;
const SUBTREES = 7;

function topLeaf(subtree: Subtree, number: number): Uint8Array {
  const head = new Uint8Array(16);
  head.set(utf8('ZXT1'));
  viewOf(head).setUint32(4, number, true);
  viewOf(head).setBigUint64(8, subtree.leaves, true);
  return leafHash(concat(head, subtree.root));
}

/**
 * What a state with this root says about account `accountId`: its leaf, or null if it has none. The seven subtrees, each with
 * its leaf count, are the leaves of the top tree; the account is leaf `accountId` of the second.
 */
export function verifyAccount(accountId: bigint, proof: AccountProof, stateRoot: Uint8Array): AccountLeaf | null {
  if (proof.subtrees.length !== SUBTREES) throw new ProofInvalid(`a state tree has ${SUBTREES} subtrees`);
  const range = new CompactRange();
  proof.subtrees.forEach((subtree, number) => range.append(topLeaf(subtree, number)));
  if (!equal(range.root(), stateRoot)) throw new ProofInvalid('the subtrees are not those of the signed state');
  const accounts = proof.subtrees[ACCOUNTS]!;
  if (!proof.leaf) {
    if (accountId < accounts.leaves || proof.hashes.length) throw new ProofInvalid('the leaf of the account is missing');
    return null;
  }
  verifyInclusion(leafHash(proof.leaf), accountId, accounts.leaves, proof.hashes, accounts.root);
  if (proof.leaf.length === 4 && magicIs(proof.leaf, 'ZXN1')) return null;
  const account = decodeAccountLeaf(proof.leaf);
  if (account.accountId !== accountId) throw new ProofInvalid('the leaf of another account');
  return account;
}
