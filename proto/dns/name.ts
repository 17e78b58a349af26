/**
 * Domain names as text: lower case, without the final dot, the root as ``.
 *
 * Octets other than letters, digits, `-`, `_` and `*` are written `\DDD` (RFC 1035 section 5.1), so that two names are
 * the same if and only if their texts are, and a label with a dot in it cannot pass for two.
 */
import { DecodeError } from '../errors.ts';
import { HEADER_SIZE } from './header.ts';

/** Decoded names are at most 255 octets on the wire (RFC 1035 section 3.1). */
const MAX_NAME = 255;
const MAX_LABEL = 63;
/** As many as labels: more would lead from one to the next, thousands of them for each name of a hostile message. */
const MAX_POINTERS = 127;

/** The text, and the offset behind the name. Pointers must go backwards, to names (RFC 1035 4.1.4). @throws DecodeError */
export function readName(message: Uint8Array, start: number): { readonly name: string; readonly end: number } {
  const labels: string[] = [];
  let size = 1;
  let offset = start;
  let end: number | undefined;
  // Each pointer must lead before all that was read, so following them ends.
  let lowest = start;
  let pointers = 0;
  for (;;) {
    const length = octet(message, offset);
    if (length >= 0xc0) {
      const target = ((length & 0x3f) << 8) | octet(message, offset + 1);
      end ??= offset + 2;
      if (target >= lowest) throw new DecodeError('name', offset, 'points forwards');
      if (target < HEADER_SIZE) throw new DecodeError('name', offset, 'points into the header');
      if (++pointers > MAX_POINTERS) throw new DecodeError('name', offset, 'has too many pointers');
      lowest = target;
      offset = target;
      continue;
    }
    if (length > MAX_LABEL) throw new DecodeError('name', offset, 'has an unknown label type');
    offset += 1;
    if (length === 0) break;
    size += 1 + length;
    if (size > MAX_NAME) throw new DecodeError('name', offset, 'has more than 255 octets');
    if (offset + length > message.length) throw new DecodeError('name', offset, 'ends early');
    labels.push(labelText(message.subarray(offset, offset + length)));
    offset += length;
  }
  return { name: labels.join('.'), end: end ?? offset };
}

/** Uncompressed, from labels of one character per octet that are known to be short enough. */
export function encodeLabels(labels: readonly string[]): Uint8Array {
  const octets = labels.flatMap((label) => [label.length, ...Array.from(label, (letter) => letter.charCodeAt(0))]);
  return Uint8Array.of(...octets, 0);
}

/** Uncompressed. @throws DecodeError when a label or the name is too long or a label is empty */
export function encodeName(name: string): Uint8Array {
  const labels = labelsOf(name).map(labelOctets);
  const bytes = new Uint8Array(labels.reduce((sum, label) => sum + 1 + label.length, 1));
  if (bytes.length > MAX_NAME) throw new DecodeError('name', 0, `"${name.slice(0, 80)}" has more than 255 octets`);
  let offset = 0;
  for (const label of labels) {
    if (label.length === 0 || label.length > MAX_LABEL) {
      throw new DecodeError('name', 0, `"${name.slice(0, 80)}" has a label that is not 1 to 63 octets long`);
    }
    bytes[offset] = label.length;
    bytes.set(label, offset + 1);
    offset += 1 + label.length;
  }
  return bytes;
}

/** What people write, with or without the final dot. @throws DecodeError */
export function parseDomainName(text: string): string {
  const name = text.replace(/\.$/, '').toLowerCase();
  if (!/^[a-z0-9_*-]+(\.[a-z0-9_*-]+)*$/.test(name)) {
    throw new DecodeError('name', 0, `"${text.slice(0, 80)}" is not a domain name`);
  }
  encodeName(name);
  return name;
}

/** Whether it is short enough; for names without escapes, such as we make up of a name and a zone. */
export function fitsDomainName(name: string): boolean {
  return name.length <= MAX_NAME - 2;
}

export function labelsOf(name: string): string[] {
  return name === '' ? [] : name.split('.');
}

/** The name without its first label; undefined for the root. */
export function parentOf(name: string): string | undefined {
  if (name === '') return undefined;
  const dot = name.indexOf('.');
  return dot < 0 ? '' : name.slice(dot + 1);
}

/** Whether `name` is `ancestor` or below it. */
export function isWithin(name: string, ancestor: string): boolean {
  return ancestor === '' || name === ancestor || name.endsWith(`.${ancestor}`);
}

function labelText(label: Uint8Array): string {
  let text = '';
  for (const each of label) {
    const code = each >= 0x41 && each <= 0x5a ? each + 0x20 : each;
    text += isPlain(code) ? String.fromCharCode(code) : `\\${String(code).padStart(3, '0')}`;
  }
  return text;
}

function labelOctets(label: string): Uint8Array {
  const octets: number[] = [];
  for (let i = 0; i < label.length; i++) {
    const escaped = label[i] === '\\';
    const code = escaped ? Number.parseInt(label.slice(i + 1, i + 4), 10) : label.charCodeAt(i);
    if (!(code >= 0 && code <= 255)) throw new DecodeError('name', 0, `"${label.slice(0, 80)}" is not a label`);
    octets.push(code);
    if (escaped) i += 3;
  }
  return Uint8Array.from(octets);
}

function isPlain(code: number): boolean {
  return (
    (code >= 0x61 && code <= 0x7a) || (code >= 0x30 && code <= 0x39) || code === 0x2d || code === 0x5f || code === 0x2a
  );
}

function octet(message: Uint8Array, offset: number): number {
  const value = message[offset];
  if (value === undefined) throw new DecodeError('name', offset, 'ends early');
  return value;
}
