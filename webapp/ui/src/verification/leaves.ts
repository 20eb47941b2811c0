// The leaves that a page reads itself instead of believing a JSON field: a checkpoint's, and an account's in the state
// tree (docs/formats.md, sections 3 and 6).

import { concat, utf8 } from '../wire/bytes';
import { viewOf } from '../wire/codec';
import { ProofInvalid, inclusionRoot, leafHash, verifyInclusion } from './merkle';

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

/** One tree of the path from an account to the state root. */
export interface TreeStep {
  readonly index: bigint;
  readonly size: bigint;
  readonly hashes: readonly Uint8Array[];
}

const ACCOUNTS_SUBTREE = 1n;
const SUBTREES = 7n;

/**
 * Checks that `leaf` is that of account `accountId` in the state with this root: it is leaf `accountId` of the accounts'
 * subtree, and that subtree, with its leaf count, is leaf 1 of the top tree of seven.
 */
export function verifyAccount(leaf: Uint8Array, accountId: bigint, accounts: TreeStep, top: TreeStep, stateRoot: Uint8Array): AccountLeaf {
  const account = decodeAccountLeaf(leaf);
  if (account.accountId !== accountId || accounts.index !== accountId) throw new ProofInvalid('the leaf of another account');
  if (top.index !== ACCOUNTS_SUBTREE || top.size !== SUBTREES) throw new ProofInvalid('not the subtree of accounts');
  const subtreeRoot = inclusionRoot(leafHash(leaf), accounts.index, accounts.size, accounts.hashes);
  const head = new Uint8Array(16);
  head.set(utf8('ZXT1'));
  viewOf(head).setUint32(4, Number(ACCOUNTS_SUBTREE), true);
  viewOf(head).setBigUint64(8, accounts.size, true);
  verifyInclusion(leafHash(concat(head, subtreeRoot)), top.index, top.size, top.hashes, stateRoot);
  return account;
}
