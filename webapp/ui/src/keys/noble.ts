// Ed25519 in TypeScript, loaded only where the browser has none.

import * as ed from '@noble/ed25519';
import { sha512 } from '@noble/hashes/sha2.js';

ed.hashes.sha512 = sha512;

export const publicKeyOf = (seed: Uint8Array): Uint8Array => ed.getPublicKey(seed);
export const sign = (bytes: Uint8Array, seed: Uint8Array): Uint8Array => ed.sign(bytes, seed);

export function verify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
  try {
    // The cofactorless rule of RFC 8032 with canonical encodings, as everywhere in this exchange.
    return ed.verify(signature, message, publicKey, { zip215: false });
  } catch {
    return false;
  }
}
