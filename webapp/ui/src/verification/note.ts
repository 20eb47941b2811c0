// C2SP signed notes with Ed25519, and the tree head of three lines inside one. Strict: one way to write a note, everything
// else is refused (docs/formats.md, section 6).

import { sha256 } from '@noble/hashes/sha2.js';
import { concat, equal, fromBase64, utf8 } from '../wire/bytes';

export class NoteInvalid extends Error {}

export interface NoteKey {
  readonly name: string;
  readonly publicKey: Uint8Array;
}

export interface TreeHead {
  readonly origin: string;
  readonly size: bigint;
  readonly root: Uint8Array;
}

/** Resolves to whether the signature is good. */
export type Verify = (signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array) => Promise<boolean>;

const ED25519 = 1;
const KEY_ID_BYTES = 4;
const MAX_SIGNATURES = 16;
const MAX_NOTE_LENGTH = 1 << 16;
const PREFIX = '— ';

export function keyId(key: NoteKey): Uint8Array {
  return sha256(concat(utf8(key.name + '\n'), Uint8Array.of(ED25519), key.publicKey)).slice(0, KEY_ID_BYTES);
}

/** The text of a note that `key` signed. Throws NoteInvalid; signatures of others are ignored. */
export async function openNote(note: string, key: NoteKey, verify: Verify): Promise<string> {
  if (note.length > MAX_NOTE_LENGTH) throw new NoteInvalid('malformed: too long');
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u0009\u000b-\u001f]/.test(note)) throw new NoteInvalid('malformed: control character');
  const blank = note.lastIndexOf('\n\n');
  if (blank < 0 || !note.endsWith('\n') || blank + 2 >= note.length) throw new NoteInvalid('malformed: no signature lines');
  const text = note.slice(0, blank + 1);
  const lines = note.slice(blank + 2, -1).split('\n');
  if (lines.length > MAX_SIGNATURES) throw new NoteInvalid('malformed: too many signatures');
  const id = keyId(key);
  let verified = false;
  for (const line of lines) {
    const found = signatureLine(line);
    if (found.name !== key.name || !equal(found.blob.subarray(0, KEY_ID_BYTES), id)) continue;
    const signature = found.blob.subarray(KEY_ID_BYTES);
    if (signature.length !== 64 || !(await verify(signature, utf8(text), key.publicKey))) throw new NoteInvalid('invalid signature');
    verified = true;
  }
  if (!verified) throw new NoteInvalid('no signature by the settlement key');
  return text;
}

function signatureLine(line: string): { name: string; blob: Uint8Array } {
  if (!line.startsWith(PREFIX)) throw new NoteInvalid('malformed: signature line');
  const rest = line.slice(PREFIX.length);
  const space = rest.indexOf(' ');
  const name = space < 0 ? rest : rest.slice(0, space);
  const blob = strictBase64(space < 0 ? '' : rest.slice(space + 1));
  if (!name || /[+\s]/.test(name) || blob.length <= KEY_ID_BYTES) throw new NoteInvalid('malformed: signature line');
  return { name, blob };
}

export function parseTreeHead(text: string): TreeHead {
  const lines = text.split('\n');
  if (lines.length !== 4 || lines[3] !== '' || !lines[0]) throw new NoteInvalid('malformed: a tree head has exactly three lines');
  const [origin, size, root64] = lines as [string, string, string];
  if (!/^(0|[1-9][0-9]{0,18})$/.test(size) || BigInt(size) >= 2n ** 63n) throw new NoteInvalid('malformed: tree size');
  const root = strictBase64(root64);
  if (root.length !== 32) throw new NoteInvalid('malformed: root');
  return { origin, size: BigInt(size), root };
}

function strictBase64(text: string): Uint8Array {
  try {
    return fromBase64(text);
  } catch {
    throw new NoteInvalid('malformed: base64');
  }
}
