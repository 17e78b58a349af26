/** Dissections as JSON: octets in hex, 64-bit numbers as `0x…`, everything else as the codecs name it. */
import type { Dissection } from './dissection.ts';

export function dissectionJson(dissection: Dissection): Record<string, unknown> {
  const { kind } = dissection;
  switch (kind) {
    case 'malformed': {
      const { field, offset, message } = dissection.error;
      return { kind, error: { field, offset, message }, octets: hex(dissection.bytes) };
    }
    case 'control': {
      const { octets, bits, message, verification, inner } = dissection;
      return {
        kind,
        octets,
        bits: bits.names.map(({ name, meaning }) => `${name}: ${meaning}`),
        ...(bits.unknown === 0 ? {} : { unknownBits: `0x${bits.unknown.toString(16).padStart(8, '0')}` }),
        message: plain(message),
        ...(verification === undefined ? {} : { verification }),
        ...(inner === undefined ? {} : { inner: dissectionJson(inner) }),
      };
    }
    case 'data': {
      const { octets, header, tunnel, packet, inner } = dissection;
      return {
        kind,
        octets,
        header,
        ...(tunnel === undefined ? {} : { tunnel }),
        ...(packet === undefined ? {} : { packet }),
        ...(inner === undefined ? {} : { inner: dissectionJson(inner) }),
      };
    }
    default:
      return dissection satisfies never;
  }
}

function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return hex(value);
  if (typeof value === 'bigint') return `0x${value.toString(16).padStart(16, '0')}`;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]));
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
