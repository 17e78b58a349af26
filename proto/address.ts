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
  if (bytes.length === 4) return bytes.join('.') as IpAddress;
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
  const bytes = ipToBytes(address).slice();
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
  const parts = text.split('.');
  const bytes = new Uint8Array(4);
  if (parts.length !== 4) throw notAnAddress(text);
  for (const [i, part] of parts.entries()) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) throw notAnAddress(text);
    bytes[i] = Number(part);
  }
  return bytes;
}

function parseIpv6(text: string): Uint8Array {
  if (text.length > 45) throw notAnAddress(text.slice(0, 60));
  let body = text;
  const tail: number[] = [];
  const lastColon = body.lastIndexOf(':');
  if (body.includes('.')) {
    const v4 = parseIpv4(body.slice(lastColon + 1));
    tail.push(((v4[0] ?? 0) << 8) | (v4[1] ?? 0), ((v4[2] ?? 0) << 8) | (v4[3] ?? 0));
    body = body.slice(0, lastColon + 1);
    body = body.endsWith('::') ? body : body.slice(0, -1);
  }
  const halves = body.split('::');
  if (halves.length > 2) throw notAnAddress(text);
  const groups = (half: string | undefined): number[] =>
    half === undefined || half === ''
      ? []
      : half.split(':').map((group) => {
          if (!/^[0-9a-fA-F]{1,4}$/.test(group)) throw notAnAddress(text);
          return Number.parseInt(group, 16);
        });
  const head = groups(halves[0]);
  const rest = [...groups(halves[1]), ...tail];
  const missing = 8 - head.length - rest.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) throw notAnAddress(text);
  const all = [...head, ...new Array<number>(missing).fill(0), ...rest];
  const bytes = new Uint8Array(16);
  for (const [i, group] of all.entries()) {
    bytes[2 * i] = group >> 8;
    bytes[2 * i + 1] = group & 0xff;
  }
  return bytes;
}

function formatIpv6(bytes: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0));
  let best = { start: -1, length: 1 };
  for (let i = 0; i < 8; ) {
    let j = i;
    while (j < 8 && groups[j] === 0) j++;
    if (j - i > best.length) best = { start: i, length: j - i };
    i = Math.max(j, i + 1);
  }
  const hex = groups.map((group) => group.toString(16));
  if (best.start < 0) return hex.join(':');
  return `${hex.slice(0, best.start).join(':')}::${hex.slice(best.start + best.length).join(':')}`;
}

function notAnAddress(text: string): DecodeError {
  return new DecodeError('address', 0, `"${text}" is not an IPv4 or IPv6 address`);
}
