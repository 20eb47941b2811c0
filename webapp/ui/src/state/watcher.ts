// Runs the light client over the checkpoints of the feed, and proves the own balance and the last fill after each.

import { verifySignature } from '../keys/keystore';
import { Problem } from '../net/api';
import type { Api, CheckpointInfo, Version } from '../net/api';
import { LightClient, Mismatch, NotYet } from '../verification/light';
import type { Kept } from '../verification/light';
import { fromBase64, fromHex } from '../wire/bytes';
import { accountId, fills, markets, notify, verification } from './store';

/** Proofs of own balance and fill are asked for at most this often. */
const PROOF_INTERVAL_MS = 5000;
const REFUSED_PAUSE_MS = 60_000;

interface InclusionAnswer {
  leaf: string;
  hashes: string[];
}

interface RecordAnswer {
  frame: string;
  checkpoint: string;
  hashes: string[];
}

/** Besides it the checkpoint's note and leaf, which the page has checked already. */
interface BalanceAnswer {
  checkpoint: string;
  shards: { shard: number; leaf: string | null; hashes: string[]; subtrees: { leaves: string; root: string }[] }[];
}

export class Watcher {
  readonly #light: LightClient;
  readonly #keptKey: string;
  #queue: CheckpointInfo | null = null;
  #busy = false;
  #provedMs = -PROOF_INTERVAL_MS;
  #pausedUntilMs = { balance: 0, record: 0 };

  constructor(
    readonly api: Api,
    version: Version,
    /** Called when the server has forgotten who asks. */
    readonly unauthorised: () => void,
  ) {
    this.#keptKey = `zx.checkpoint.${version.deployment_id}`;
    const pinnedKey = `zx.settlement-key.${version.deployment_id}`;
    const pinned = localStorage.getItem(pinnedKey);
    if (pinned === null) localStorage.setItem(pinnedKey, version.settlement_public_key);
    else if (pinned !== version.settlement_public_key) this.#fail('the settlement key is not the one that was seen before');
    let kept: Kept | null = null;
    try {
      kept = JSON.parse(localStorage.getItem(this.#keptKey) ?? 'null') as Kept | null;
    } catch {
      // Damaged by hand: as good as never seen.
    }
    this.#light = new LightClient(
      { name: version.checkpoint_origin, publicKey: fromHex(pinned ?? version.settlement_public_key) },
      verifySignature,
      {
        consistency: async (oldSize, newSize) => (await api.get<{ hashes: string[] }>(`/proofs/consistency?old=${oldSize}&new=${newSize}`)).hashes.map(fromHex),
        inclusion: async (number, size) => (await this.#inclusion(number, size)).hashes.map(fromHex),
      },
      kept,
    );
  }

  #inclusion(number: bigint, size: bigint): Promise<InclusionAnswer> {
    return this.api.get<InclusionAnswer>(`/proofs/checkpoint/${number}?size=${size}`);
  }

  /** Takes published checkpoints, oldest first; only the newest of a burst is checked when there is no time for all. */
  take(checkpoints: readonly CheckpointInfo[]): void {
    for (const one of checkpoints) if (!this.#queue || BigInt(one.number) > BigInt(this.#queue.number)) this.#queue = one;
    if (!this.#busy) void this.#run();
  }

  async #run(): Promise<void> {
    this.#busy = true;
    try {
      while (this.#queue && !verification.value.mismatch) {
        const next = this.#queue;
        this.#queue = null;
        await this.#check(next);
      }
    } finally {
      this.#busy = false;
    }
  }

  async #check(next: CheckpointInfo): Promise<void> {
    try {
      const checkpoint = await this.#light.take(next);
      localStorage.setItem(this.#keptKey, JSON.stringify(this.#light.kept));
      verification.value = { ...verification.value, checkpoint, checked: verification.value.checked + 1, waiting: null };
      if (performance.now() - this.#provedMs >= PROOF_INTERVAL_MS) {
        this.#provedMs = performance.now();
        await this.#proveBalance();
        await this.#proveFill();
      }
    } catch (error) {
      if (error instanceof Mismatch) this.#fail(error.message);
      else if (!(error instanceof NotYet)) verification.value = { ...verification.value, waiting: error instanceof Error ? error.message : String(error) };
    }
  }

  #fail(what: string): void {
    verification.value = { ...verification.value, mismatch: what };
    notify('bad', 'Verification mismatch', what);
  }

  #fetchLeaf = async (number: bigint): Promise<Uint8Array> => fromBase64((await this.#inclusion(number, this.#light.last!.size)).leaf);

  async #proveBalance(): Promise<void> {
    const account = accountId.value;
    if (account === null || !this.api.authorised) return;
    const answer = await this.#asked('balance', () => this.api.get<BalanceAnswer>('/proofs/balance'));
    if (!answer) return;
    const number = BigInt(answer.checkpoint);
    const proofs = answer.shards.map((one) => ({
      shard: one.shard,
      leaf: one.leaf === null ? null : fromBase64(one.leaf),
      hashes: one.hashes.map(fromHex),
      subtrees: one.subtrees.map((tree) => ({ leaves: BigInt(tree.leaves), root: fromHex(tree.root) })),
    }));
    try {
      const balances = await this.#light.checkAccount(account, proofs, number, this.#fetchLeaf);
      verification.value = { ...verification.value, balance: { number, balances } };
    } catch (error) {
      if (!(error instanceof NotYet)) throw error;
    }
  }

  async #proveFill(): Promise<void> {
    const fill = fills.value[0];
    const info = fill && markets.value.get(fill.market)?.info;
    if (!fill || !info || !fill.record_no) return;
    if (verification.value.fill?.tradeId === fill.trade_id) return;
    const tip = verification.value.checkpoint?.leaf.shards[info.shard];
    if (!tip || BigInt(fill.record_no) >= tip.logSize) return;
    const answer = await this.#asked('record', () => this.api.get<RecordAnswer>(`/proofs/record/${info.shard}/${fill.record_no}`));
    if (!answer) return;
    const number = BigInt(answer.checkpoint);
    const recordNo = BigInt(fill.record_no);
    try {
      await this.#light.checkRecord(info.shard, recordNo, fromBase64(answer.frame), number, answer.hashes.map(fromHex), this.#fetchLeaf);
      verification.value = { ...verification.value, fill: { tradeId: fill.trade_id, recordNo, number } };
    } catch (error) {
      if (!(error instanceof NotYet)) throw error;
    }
  }

  /** Null when the server has no such proof (yet): that proves nothing either way. What it does not know at all is left alone for a while. */
  async #asked<Answer>(kind: 'balance' | 'record', ask: () => Promise<Answer>): Promise<Answer | null> {
    if (performance.now() < this.#pausedUntilMs[kind]) return null;
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 401) this.unauthorised();
      if (error.status < 500) this.#pausedUntilMs[kind] = performance.now() + REFUSED_PAUSE_MS;
      return null;
    }
  }
}
