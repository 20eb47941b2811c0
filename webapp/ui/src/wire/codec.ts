// Encodes and decodes every message by the tables of messages.ts. Strict: `decode` throws a WireError, with the reason
// of the first failing check of docs/protocol.md, for every frame that is not exactly one well-formed message.

import { viewOf } from './bytes';
import { MESSAGES, SCHEMA_ID, SCHEMA_VERSION } from './messages';
import type { Message, ReasonCode } from './messages';

export type EnumTable = Readonly<Record<string, number>>;
export type FieldKind = 'u8' | 'u16' | 'u32' | 'u64' | 'i32' | 'i64' | 'bytes' | 'reserved' | 'enum' | 'set';
/** Name, kind, bytes, and the values of an enum or set. */
export type FieldRow = readonly [name: string, kind: FieldKind, size: number, values?: EnumTable];
export interface CommandRule {
  readonly allowed: Readonly<Record<string, readonly string[]>>;
  readonly zero: readonly string[];
}
export interface BlockTable {
  readonly length: number;
  readonly fields: readonly FieldRow[];
  /** By kind of command: what it allows. */
  readonly rules?: Readonly<Record<string, CommandRule>>;
}
export interface GroupTable {
  readonly name: string;
  readonly entry: BlockTable;
  readonly min: number;
  readonly max: number;
}
export interface MessageTable extends BlockTable {
  readonly name: string;
  readonly templateId: number;
  readonly groups?: readonly GroupTable[];
  readonly data?: readonly string[];
}

export const ENCODING_TYPE = 0xeb50;
export const BODY_OFFSET = 14;
const GROUP_HEADER_BYTES = 4;
const DATA_HEADER_BYTES = 4;

/** Bytes that are not a well-formed frame. `reason` is what the peer would be told. */
export class WireError extends Error {
  constructor(
    readonly reason: ReasonCode,
    detail = '',
  ) {
    super(detail ? `${reason} (${detail})` : reason);
  }
}

/** A record holds a value that its field cannot carry; nothing was encoded. */
export class EncodeError extends Error {}

type Fields = Record<string, unknown>;

const byName = new Map(MESSAGES.map((table) => [table.name, table]));
const byTemplate = new Map(MESSAGES.map((table) => [table.templateId, table]));

const RANGES: Partial<Record<FieldKind, readonly [number | bigint, number | bigint]>> = {
  u8: [0, 0xff],
  u16: [0, 0xffff],
  u32: [0, 0xffffffff],
  u64: [0n, 2n ** 64n - 1n],
  i32: [-0x80000000, 0x7fffffff],
  i64: [-(2n ** 63n), 2n ** 63n - 1n],
};

/** The whole frame of a message. Throws EncodeError. */
export function encode(message: Message): Uint8Array {
  const table = byName.get(message.message);
  if (!table) throw new EncodeError(`no message ${String(message.message)}`);
  const fields = message as unknown as Fields;
  let length = BODY_OFFSET + table.length;
  for (const group of table.groups ?? []) {
    const entries = fields[group.name] as Fields[];
    if (entries.length < group.min || entries.length > group.max)
      throw new EncodeError(`${group.name}: ${entries.length} entries, must be ${group.min} to ${group.max}`);
    length += GROUP_HEADER_BYTES + entries.length * group.entry.length;
  }
  for (const name of table.data ?? []) length += DATA_HEADER_BYTES + (fields[name] as Uint8Array).length;

  const frame = new Uint8Array(length);
  const view = new DataView(frame.buffer);
  view.setUint32(0, length);
  view.setUint16(4, ENCODING_TYPE);
  view.setUint16(6, table.length, true);
  view.setUint16(8, table.templateId, true);
  view.setUint16(10, SCHEMA_ID, true);
  view.setUint16(12, SCHEMA_VERSION, true);
  writeBlock(view, BODY_OFFSET, table, fields);
  let offset = BODY_OFFSET + table.length;
  for (const group of table.groups ?? []) {
    const entries = fields[group.name] as Fields[];
    view.setUint16(offset, group.entry.length, true);
    view.setUint16(offset + 2, entries.length, true);
    offset += GROUP_HEADER_BYTES;
    for (const entry of entries) {
      writeBlock(view, offset, group.entry, entry);
      offset += group.entry.length;
    }
  }
  for (const name of table.data ?? []) {
    const data = fields[name] as Uint8Array;
    view.setUint32(offset, data.length, true);
    frame.set(data, offset + DATA_HEADER_BYTES);
    offset += DATA_HEADER_BYTES + data.length;
  }
  return frame;
}

function writeBlock(view: DataView, start: number, table: BlockTable, fields: Fields): void {
  let offset = start;
  for (const [name, kind, size, values] of table.fields) {
    const value = fields[name];
    switch (kind) {
      case 'reserved':
        break;
      case 'bytes': {
        const bytes = value as Uint8Array;
        if (bytes.length !== size) throw new EncodeError(`${name}: ${bytes.length} bytes, must be ${size}`);
        new Uint8Array(view.buffer).set(bytes, offset);
        break;
      }
      case 'enum':
        writeInteger(view, offset, size, numberOf(values, name, value as string));
        break;
      case 'set':
        writeInteger(view, offset, size, (value as string[]).reduce((bits, one) => bits | numberOf(values, name, one), 0));
        break;
      default: {
        const [least, most] = RANGES[kind]!;
        const number = value as number | bigint;
        if (typeof number !== typeof least || number < least || number > most || (typeof number === 'number' && !Number.isInteger(number)))
          throw new EncodeError(`${name}: ${String(value)} does not fit ${kind}`);
        if (kind === 'u64') view.setBigUint64(offset, number as bigint, true);
        else if (kind === 'i64') view.setBigInt64(offset, number as bigint, true);
        else if (kind === 'i32') view.setInt32(offset, number as number, true);
        else writeInteger(view, offset, size, number as number);
      }
    }
    offset += size;
  }
}

function numberOf(values: EnumTable | undefined, name: string, value: string): number {
  const number = values?.[value];
  if (number === undefined) throw new EncodeError(`${name}: no value ${String(value)}`);
  return number;
}

function writeInteger(view: DataView, offset: number, size: number, value: number): void {
  if (size === 1) view.setUint8(offset, value);
  else if (size === 2) view.setUint16(offset, value, true);
  else view.setUint32(offset, value, true);
}

/** Checks both headers of a whole frame; returns its message's table. Throws WireError. */
export function tableOf(frame: Uint8Array): MessageTable {
  if (frame.length < BODY_OFFSET) throw new WireError('frameLengthInvalid', `${frame.length} bytes`);
  const view = viewOf(frame);
  if (view.getUint32(0) !== frame.length) throw new WireError('frameLengthInvalid', `says ${view.getUint32(0)}, has ${frame.length}`);
  if (view.getUint16(4) !== ENCODING_TYPE) throw new WireError('encodingTypeUnknown');
  if (view.getUint16(10, true) !== SCHEMA_ID) throw new WireError('schemaUnknown');
  if (view.getUint16(12, true) !== SCHEMA_VERSION) throw new WireError('versionUnsupported');
  const table = byTemplate.get(view.getUint16(8, true));
  if (!table) throw new WireError('templateUnknown', String(view.getUint16(8, true)));
  if (view.getUint16(6, true) !== table.length) throw new WireError('blockLengthInvalid');
  return table;
}

/** The message that is exactly this frame. Throws WireError. */
export function decode(frame: Uint8Array): Message {
  const table = tableOf(frame);
  const view = viewOf(frame);
  let offset = BODY_OFFSET + table.length;
  if (offset > frame.length) throw new WireError('frameTruncated');
  const groups: { table: GroupTable; start: number; count: number }[] = [];
  for (const group of table.groups ?? []) {
    if (offset + GROUP_HEADER_BYTES > frame.length) throw new WireError('frameTruncated');
    const length = view.getUint16(offset, true);
    const count = view.getUint16(offset + 2, true);
    if (length !== group.entry.length) throw new WireError('groupSizeInvalid', `${length} bytes`);
    if (count < group.min || count > group.max) throw new WireError('commandCountInvalid', `${count} entries`);
    groups.push({ table: group, start: offset + GROUP_HEADER_BYTES, count });
    offset += GROUP_HEADER_BYTES + count * length;
    if (offset > frame.length) throw new WireError('frameTruncated');
  }
  const data: [string, Uint8Array][] = [];
  for (const name of table.data ?? []) {
    if (offset + DATA_HEADER_BYTES > frame.length) throw new WireError('frameTruncated');
    const end = offset + DATA_HEADER_BYTES + view.getUint32(offset, true);
    if (end > frame.length) throw new WireError('frameTruncated');
    data.push([name, frame.slice(offset + DATA_HEADER_BYTES, end)]);
    offset = end;
  }
  if (offset < frame.length) throw new WireError('trailingBytes');

  const fields: Fields = { message: table.name, ...readBlock(view, BODY_OFFSET, table) };
  for (const group of groups) {
    const entries: Fields[] = [];
    for (let index = 0; index < group.count; index++)
      entries.push(readBlock(view, group.start + index * group.table.entry.length, group.table.entry));
    fields[group.table.name] = entries;
  }
  for (const [name, bytes] of data) fields[name] = bytes;
  return fields as unknown as Message;
}

function readBlock(view: DataView, start: number, table: BlockTable): Fields {
  const raw: (number | bigint | Uint8Array)[] = [];
  let offset = start;
  for (const [, kind, size, values] of table.fields) {
    const value =
      kind === 'bytes'
        ? new Uint8Array(view.buffer, view.byteOffset + offset, size).slice()
        : size === 8
          ? kind === 'i64'
            ? view.getBigInt64(offset, true)
            : view.getBigUint64(offset, true)
          : kind === 'i32'
            ? view.getInt32(offset, true)
            : readInteger(view, offset, size);
    const mask = kind === 'set' ? Object.values(values!).reduce((bits, bit) => bits | bit, 0) : 0;
    if ((kind === 'reserved' || kind === 'set') && ((value as number) & ~mask) !== 0) throw new WireError('reservedBitsSet');
    raw.push(value);
    offset += size;
  }
  const fields: Fields = {};
  table.fields.forEach(([name, kind, , values], index) => {
    if (kind === 'reserved') return;
    if (kind === 'enum') fields[name] = nameOf(values!, name, raw[index] as number);
    else if (kind === 'set')
      fields[name] = Object.entries(values!)
        .filter(([, bit]) => (raw[index] as number) & bit)
        .map(([choice]) => choice);
    else fields[name] = raw[index];
  });
  if (table.rules) checkRules(table.rules, fields);
  return fields;
}

function checkRules(rules: Readonly<Record<string, CommandRule>>, fields: Fields): void {
  const rule = rules[fields.kind as string];
  if (!rule) throw new WireError('enumValueUnknown', 'kind');
  for (const [name, allowed] of Object.entries(rule.allowed))
    if (!allowed.includes(fields[name] as string)) throw new WireError('enumValueUnknown', name);
  for (const name of rule.zero) if (!isZero(fields[name])) throw new WireError('enumValueUnknown', name);
}

function isZero(value: unknown): boolean {
  if (value instanceof Uint8Array) return value.every((byte) => byte === 0);
  if (Array.isArray(value)) return value.length === 0;
  return value === 0 || value === 0n;
}

function nameOf(values: EnumTable, field: string, value: number): string {
  for (const name in values) if (values[name] === value) return name;
  throw new WireError('enumValueUnknown', `${field} ${value}`);
}

function readInteger(view: DataView, offset: number, size: number): number {
  if (size === 1) return view.getUint8(offset);
  return size === 2 ? view.getUint16(offset, true) : view.getUint32(offset, true);
}
