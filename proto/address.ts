/**
 * IPv4 and IPv6 addresses and prefixes as branded canonical text (RFC 5952 for IPv6).
 *
 * Canonical text makes equality `===`, works as a Map key and travels through JSON unchanged. IPv4-mapped
 * IPv6 addresses are kept as IPv6. Zone identifiers are refused: an EID or a global locator has none.
 */
import { DecodeError } from './errors.ts';

export type IpAddress = string & { readonly __brand: 'IpAddress' };
/** `address/length` with all host bits zero. */
export type IpPrefix = string & { readonly __brand: 'IpPrefix' };
export type IpFamily = 4 | 6;

/** Parses canonical or non-canonical text. @throws DecodeError */
export function parseIpAddress(text: string): IpAddress {
  return ipFromBytes(text.includes(':') ? parseIpv6(text) : parseIpv4(text));
}

export function isIpAddress(text: string): boolean {
  try {
    parseIpAddress(text);
    return true;
  } catch {
    return false;
  }
}

export function ipFamily(address: IpAddress): IpFamily {
  return address.includes(':') ? 6 : 4;
}

/** 4 or 16 octets in network order. */
export function ipToBytes(address: IpAddress): Uint8Array {
  return address.includes(':') ? parseIpv6(address) : parseIpv4(address);
}

/** @throws DecodeError when the length is neither 4 nor 16 */
export function ipFromBytes(bytes: Uint8Array): IpAddress {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as IpAddress;
  if (bytes.length === 16) return formatIpv6(bytes) as IpAddress;
  throw new DecodeError('address', 0, `an address has 4 or 16 octets, not ${bytes.length}`);
}

/** Parses `address` (a host prefix) or `address/length`; host bits must be zero. @throws DecodeError */
export function parseIpPrefix(text: string): IpPrefix {
  const slash = text.indexOf('/');
  const address = parseIpAddress(slash < 0 ? text : text.slice(0, slash));
  const width = ipFamily(address) === 4 ? 32 : 128;
  if (slash < 0) return `${address}/${width}` as IpPrefix;
  const lengthText = text.slice(slash + 1);
  const length = Number(lengthText);
  if (!/^(0|[1-9]\d{0,2})$/.test(lengthText) || length > width) {
    throw new DecodeError('prefix length', 0, `"${lengthText}" is not a number from 0 to ${width} in "${text}"`);
  }
  const prefix = ipPrefix(address, length);
  if (prefixAddress(prefix) !== address) {
    throw new DecodeError('prefix', 0, `"${text}" has bits set behind its length; did you mean ${prefix}?`);
  }
  return prefix;
}

/** The prefix of `length` bits that contains `address`. @throws DecodeError when the address has fewer bits */
export function ipPrefix(address: IpAddress, length: number): IpPrefix {
  if (length === (ipFamily(address) === 4 ? 32 : 128)) return `${address}/${length}` as IpPrefix;
  const bytes = ipToBytes(address);
  if (!Number.isInteger(length) || length < 0 || length > bytes.length * 8) {
    throw new DecodeError('prefix length', 0, `${length} is not a whole number from 0 to ${bytes.length * 8}`);
  }
  for (let i = 0; i < bytes.length; i++) {
    const kept = Math.min(8, Math.max(0, length - i * 8));
    bytes[i] = (bytes[i] ?? 0) & ((0xff00 >> kept) & 0xff);
  }
  return `${ipFromBytes(bytes)}/${length}` as IpPrefix;
}

export function hostPrefix(address: IpAddress): IpPrefix {
  return `${address}/${ipFamily(address) === 4 ? 32 : 128}` as IpPrefix;
}

export function prefixAddress(prefix: IpPrefix): IpAddress {
  return prefix.slice(0, prefix.indexOf('/')) as IpAddress;
}

export function prefixLength(prefix: IpPrefix): number {
  return Number(prefix.slice(prefix.indexOf('/') + 1));
}

export function isHostPrefix(prefix: IpPrefix): boolean {
  return prefixLength(prefix) === (prefix.includes(':') ? 128 : 32);
}

/** True when every address of `inner` is in `outer`. */
export function prefixContains(outer: IpPrefix, inner: IpPrefix | IpAddress): boolean {
  const innerPrefix = inner.includes('/') ? (inner as IpPrefix) : hostPrefix(inner as IpAddress);
  const innerAddress = prefixAddress(innerPrefix);
  if (ipFamily(innerAddress) !== ipFamily(prefixAddress(outer))) return false;
  const length = prefixLength(outer);
  return prefixLength(innerPrefix) >= length && ipPrefix(innerAddress, length) === outer;
}

function parseIpv4(text: string): Uint8Array {
  const bytes = new Uint8Array(4);
  const end = readIpv4(text, 0, bytes, 0);
  if (end !== text.length) throw notAnAddress(text);
  return bytes;
}

/** Reads dotted octets from `at` into `bytes`; returns where the text went on, or -1 if it is not an address. */
function readIpv4(text: string, at: number, bytes: Uint8Array, into: number): number {
  let next = at;
  for (let i = 0; i < 4; i++) {
    if (i > 0 && text.charCodeAt(next++) !== DOT) return -1;
    const start = next;
    let octet = 0;
    for (let digit = text.charCodeAt(next) - ZERO; digit >= 0 && digit <= 9; digit = text.charCodeAt(++next) - ZERO) {
      octet = octet * 10 + digit;
      if (octet > 255 || (next > start && text.charCodeAt(start) === ZERO)) return -1;
    }
    if (next === start) return -1;
    bytes[into + i] = octet;
  }
  return next;
}

function parseIpv6(text: string): Uint8Array {
  if (text.length > 45) throw notAnAddress(text.slice(0, 60));
  const bytes = new Uint8Array(16);
  /** Octets read, and how many of them stand before the `::`. */
  let [length, gap] = [0, -1];
  let at = 0;
  if (text.startsWith('::')) [at, gap] = [2, 0];
  while (at < text.length) {
    if (length > 14) throw notAnAddress(text);
    const colon = text.indexOf(':', at);
    if (colon < 0 && length <= 12 && text.indexOf('.', at) > 0) {
      if (readIpv4(text, at, bytes, length) !== text.length) throw notAnAddress(text);
      [at, length] = [text.length, length + 4];
      break;
    }
    const end = colon < 0 ? text.length : colon;
    const group = hexGroup(text, at, end);
    if (group < 0) throw notAnAddress(text);
    bytes[length++] = group >> 8;
    bytes[length++] = group & 0xff;
    at = end;
    if (colon < 0) break;
    at++;
    if (text.charCodeAt(at) === COLON) {
      if (gap >= 0) throw notAnAddress(text);
      [at, gap] = [at + 1, length];
    } else if (at === text.length) throw notAnAddress(text);
  }
  if (gap < 0 ? length !== 16 : length > 14) throw notAnAddress(text);
  if (gap >= 0) bytes.copyWithin(16 - (length - gap), gap, length).fill(0, gap, 16 - (length - gap));
  return bytes;
}

/** One to four hexadecimal digits; -1 for anything else. */
function hexGroup(text: string, start: number, end: number): number {
  if (end === start || end - start > 4) return -1;
  let group = 0;
  for (let i = start; i < end; i++) {
    const code = text.charCodeAt(i);
    const lower = code | 0x20;
    if (code >= ZERO && code <= ZERO + 9) group = group * 16 + code - ZERO;
    else if (lower >= LOWER_A && lower <= LOWER_A + 5) group = group * 16 + lower - LOWER_A + 10;
    else return -1;
  }
  return group;
}

function formatIpv6(bytes: Uint8Array): string {
  const group = (i: number): number => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0);
  let [start, length] = [-1, 1];
  for (let i = 0; i < 8; ) {
    let j = i;
    while (j < 8 && group(j) === 0) j++;
    if (j - i > length) [start, length] = [i, j - i];
    i = Math.max(j, i + 1);
  }
  let text = '';
  for (let i = 0; i < 8; i++) {
    if (i === start) {
      text += '::';
      i += length - 1;
    } else text += i === 0 || text.endsWith(':') ? group(i).toString(16) : `:${group(i).toString(16)}`;
  }
  return text;
}

function notAnAddress(text: string): DecodeError {
  return new DecodeError('address', 0, `"${text}" is not an IPv4 or IPv6 address`);
}

const DOT = 0x2e;
const ZERO = 0x30;
const COLON = 0x3a;
const LOWER_A = 0x61;
