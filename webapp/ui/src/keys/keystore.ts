// The trading key. Made here, kept here: WebCrypto Ed25519, not extractable, in IndexedDB. Where WebCrypto or its Ed25519
// is missing (plain-http origins other than localhost, old browsers) the noble library signs, and the key lives in the
// memory of this page only.
//
// A key that cannot be exported cannot be backed up later either. So the seed of a new key is handed out once, for an
// encrypted backup, and forgotten.

import { concat, equal, fromBase64, fromHex, toBase64, toHex, utf8 } from '../wire/bytes';

export interface Signer {
  readonly publicKey: Uint8Array;
  /** Whether the browser guards the key: nothing on this page can read it. */
  readonly guarded: boolean;
  sign(bytes: Uint8Array): Promise<Uint8Array>;
}

export interface NewKey {
  readonly signer: Signer;
  /** 32 bytes; overwritten by `forget`. */
  readonly seed: Uint8Array;
}

const DATABASE = 'zexchange';
const STORE = 'keys';
const RECORD = 'trading';
const PKCS8_PREFIX = fromHex('302e020100300506032b657004220420');
const PBKDF2_ITERATIONS = 600_000;
const BACKUP_FORMAT = 'zx.v1/key-backup';

interface StoredKey {
  readonly privateKey: CryptoKey;
  readonly publicKey: Uint8Array;
}

/** Bytes in memory of their own, as WebCrypto wants them. */
const owned = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(bytes);

let guardedSupport: Promise<boolean> | null = null;

/** Whether this browser can keep an Ed25519 key that nobody can read. */
export function canGuard(): Promise<boolean> {
  guardedSupport ??= (async () => {
    if (!globalThis.crypto?.subtle || !globalThis.indexedDB) return false;
    try {
      await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify']);
      return true;
    } catch {
      return false;
    }
  })();
  return guardedSupport;
}

async function noble(): Promise<typeof import('./noble')> {
  return import('./noble');
}

export async function verifySignature(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): Promise<boolean> {
  if (!(await canGuard())) return (await noble()).verify(signature, message, publicKey);
  const key = await crypto.subtle.importKey('raw', owned(publicKey), 'Ed25519', false, ['verify']);
  return crypto.subtle.verify('Ed25519', key, owned(signature), owned(message));
}

class GuardedSigner implements Signer {
  readonly guarded = true;

  constructor(
    readonly publicKey: Uint8Array,
    readonly privateKey: CryptoKey,
  ) {}

  async sign(bytes: Uint8Array): Promise<Uint8Array> {
    return new Uint8Array(await crypto.subtle.sign('Ed25519', this.privateKey, owned(bytes)));
  }
}

class MemorySigner implements Signer {
  readonly guarded = false;

  constructor(
    readonly publicKey: Uint8Array,
    readonly seed: Uint8Array,
  ) {}

  async sign(bytes: Uint8Array): Promise<Uint8Array> {
    return (await noble()).sign(bytes, this.seed);
  }
}

/** The key of this browser, if there is one. */
export async function loadSigner(): Promise<Signer | null> {
  if (!(await canGuard())) return null;
  const stored = (await request(await open('readonly'), (store) => store.get(RECORD))) as StoredKey | undefined;
  return stored ? new GuardedSigner(stored.publicKey, stored.privateKey) : null;
}

export async function createKey(): Promise<NewKey> {
  return keyFromSeed(crypto.getRandomValues(new Uint8Array(32)));
}

async function keyFromSeed(seed: Uint8Array): Promise<NewKey> {
  if (!(await canGuard())) {
    const publicKey = (await noble()).publicKeyOf(seed);
    return { signer: new MemorySigner(publicKey, seed.slice()), seed };
  }
  const pkcs8 = owned(concat(PKCS8_PREFIX, seed));
  // Readable for the one moment in which its public half is taken from it.
  const readable = await crypto.subtle.importKey('pkcs8', pkcs8, 'Ed25519', true, ['sign']);
  const publicKey = fromBase64Url((await crypto.subtle.exportKey('jwk', readable)).x!);
  const privateKey = await crypto.subtle.importKey('pkcs8', pkcs8, 'Ed25519', false, ['sign']);
  pkcs8.fill(0);
  await request(await open('readwrite'), (store) => store.put({ privateKey, publicKey } satisfies StoredKey, RECORD));
  return { signer: new GuardedSigner(publicKey, privateKey), seed };
}

function fromBase64Url(text: string): Uint8Array {
  return fromBase64(text.replace(/-/g, '+').replace(/_/g, '/').padEnd(Math.ceil(text.length / 4) * 4, '='));
}

/** Removes the key from this browser. Without a backup nobody can sign for its account any more. */
export async function removeKey(): Promise<void> {
  if (await canGuard()) await request(await open('readwrite'), (store) => store.delete(RECORD));
}

function open(mode: IDBTransactionMode): Promise<IDBObjectStore> {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onerror = () => reject(opening.error ?? new Error('IndexedDB'));
    opening.onsuccess = () => {
      const transaction = opening.result.transaction(STORE, mode);
      transaction.oncomplete = () => opening.result.close();
      resolve(transaction.objectStore(STORE));
    };
  });
}

function request<Result>(store: IDBObjectStore, act: (store: IDBObjectStore) => IDBRequest<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    const asked = act(store);
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error ?? new Error('IndexedDB'));
  });
}

export class BackupError extends Error {}

async function wrappingKey(passphrase: string, salt: Uint8Array, iterations: number): Promise<CryptoKey> {
  const material = await crypto.subtle.importKey('raw', owned(utf8(passphrase)), 'PBKDF2', false, ['deriveKey']);
  return crypto.subtle.deriveKey(
    { name: 'PBKDF2', hash: 'SHA-256', salt: owned(salt), iterations }, material, { name: 'AES-GCM', length: 256 }, false, ['encrypt', 'decrypt'],
  );
}

/** The text of a backup file: the seed under a passphrase, PBKDF2-SHA-256 and AES-256-GCM. */
export async function makeBackup(seed: Uint8Array, publicKey: Uint8Array, passphrase: string): Promise<string> {
  const salt = crypto.getRandomValues(new Uint8Array(16));
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const key = await wrappingKey(passphrase, salt, PBKDF2_ITERATIONS);
  const sealed = new Uint8Array(await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, key, owned(seed)));
  return JSON.stringify(
    {
      format: BACKUP_FORMAT, public_key: toHex(publicKey), kdf: 'PBKDF2-SHA-256', iterations: PBKDF2_ITERATIONS,
      salt: toBase64(salt), cipher: 'AES-256-GCM', iv: toBase64(iv), sealed: toBase64(sealed),
    },
    null, 2,
  );
}

/** The key of a backup file, stored in this browser. Throws BackupError. */
export async function restoreBackup(text: string, passphrase: string): Promise<Signer> {
  let seed: Uint8Array;
  let publicKey: Uint8Array;
  try {
    const backup = JSON.parse(text) as Record<string, unknown>;
    if (backup.format !== BACKUP_FORMAT) throw new BackupError('This is not a key backup.');
    publicKey = fromHex(String(backup.public_key));
    const iterations = Number(backup.iterations);
    if (!(iterations > 0 && iterations <= 10_000_000)) throw new BackupError('This backup is damaged.');
    const key = await wrappingKey(passphrase, fromBase64(String(backup.salt)), iterations);
    const iv = owned(fromBase64(String(backup.iv)));
    seed = new Uint8Array(await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, key, owned(fromBase64(String(backup.sealed)))));
  } catch (error) {
    if (error instanceof BackupError) throw error;
    throw new BackupError('The passphrase does not fit, or the file is damaged.');
  }
  const restored = await keyFromSeed(seed);
  seed.fill(0);
  if (!equal(restored.signer.publicKey, publicKey)) throw new BackupError('The file names another public key.');
  return restored.signer;
}
