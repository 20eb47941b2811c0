// What is signed: tag[16] || deployment_id[32] || SBE header || everything behind the signature (docs/protocol.md,
// Signatures). The signature is the first field, so a signed frame is the encoded one with 64 bytes replaced.

import { concat, equal, utf8 } from './bytes';
import { BODY_OFFSET } from './codec';

export const SIGNATURE_BYTES = 64;
export const DEPLOYMENT_ID_BYTES = 32;
const FRAME_HEADER_BYTES = 6;

export type Purpose = 'batch' | 'logon';

/** ASCII `zx.v1/<purpose>`, padded with NUL to 16 bytes. */
export function tagOf(purpose: string): Uint8Array {
  const tag = new Uint8Array(16);
  tag.set(utf8(`zx.v1/${purpose}`));
  return tag;
}

export function signedBytes(purpose: Purpose, frame: Uint8Array, deploymentId: Uint8Array): Uint8Array {
  if (deploymentId.length !== DEPLOYMENT_ID_BYTES) throw new RangeError(`deployment id of ${deploymentId.length} bytes`);
  return concat(
    tagOf(purpose),
    deploymentId,
    frame.subarray(FRAME_HEADER_BYTES, BODY_OFFSET),
    frame.subarray(BODY_OFFSET + SIGNATURE_BYTES),
  );
}

export function withSignature(frame: Uint8Array, signature: Uint8Array): Uint8Array {
  if (signature.length !== SIGNATURE_BYTES) throw new RangeError(`signature of ${signature.length} bytes`);
  const signed = frame.slice();
  signed.set(signature, BODY_OFFSET);
  return signed;
}

/** The next nonce of a key: now in microseconds, and always above the last one. */
export function nextNonce(nowUs: bigint, last: bigint): bigint {
  return nowUs > last ? nowUs : last + 1n;
}

/** What a logon to the feed signs: tag[16] || deployment_id[32] || the challenge of its hello. */
export function feedLogonBytes(challenge: Uint8Array, deploymentId: Uint8Array): Uint8Array {
  return concat(tagOf('feed'), deploymentId, challenge);
}

/**
 * Whether bytes that a server asks to be signed are a logon to this deployment. Nothing else is signed on request: it might
 * be an order.
 */
export function isLogonBytes(bytes: Uint8Array, publicKey: Uint8Array, deploymentId: Uint8Array): boolean {
  const head = concat(tagOf('logon'), deploymentId);
  const keyAt = head.length + BODY_OFFSET - FRAME_HEADER_BYTES;
  return equal(bytes.subarray(0, head.length), head) && equal(bytes.subarray(keyAt, keyAt + publicKey.length), publicKey);
}
