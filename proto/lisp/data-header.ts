/**
 * LISP header of the data plane (RFC 9300 section 5), 8 octets between outer UDP (port 4341) and inner IP header.
 *
 * ```
 * |N|L|E|V|I|R|K|K|  Nonce (24), or Source (12) and Dest (12) Map-Version  |
 * | Locator-Status-Bits (32), or when I: Instance ID (24) and LSBs (8)     |
 * ```
 *
 * Fields are there exactly when their flag is set. N together with V is read as N.
 */
import { EncodeError, Reader, Writer, within } from '../bytes.ts';
import type { InstanceId } from '../eid.ts';
import { bit, isSet } from './header.ts';

export interface DataHeader {
  /** N: 24 bits. */
  readonly nonce?: number;
  /** E: the nonce shall be echoed; only with a nonce. */
  readonly echoNonce: boolean;
  /** V; not together with a nonce. */
  readonly mapVersions?: { readonly source: number; readonly destination: number };
  /** I */
  readonly instanceId?: InstanceId;
  /** L: 32 bits, or 8 with an instance ID. */
  readonly locatorStatusBits?: number;
  /** KK: 0 = not encrypted (RFC 8061). */
  readonly keyId: number;
}

/** UDP, of data packets (RFC 9300 section 5.3). */
export const LISP_DATA_PORT = 4341;

export const DATA_HEADER_LENGTH = 8;

/** @throws DecodeError when there are less than 8 octets */
export function decodeDataHeader(bytes: Uint8Array): DataHeader {
  const reader = new Reader(bytes);
  const flags = reader.u8('flags');
  const first = reader.u24('nonce');
  const second = reader.u32('locator-status-bits');
  const hasNonce = isSet(flags, N);
  const hasInstance = isSet(flags, I);
  return {
    ...(hasNonce ? { nonce: first } : {}),
    echoNonce: hasNonce && isSet(flags, E),
    ...(isSet(flags, V) && !hasNonce ? { mapVersions: { source: first >>> 12, destination: first & 0xfff } } : {}),
    ...(hasInstance ? { instanceId: (second >>> 8) as InstanceId } : {}),
    ...(isSet(flags, L) ? { locatorStatusBits: hasInstance ? second & 0xff : second } : {}),
    keyId: flags & KK,
  };
}

export function encodeDataHeader(header: DataHeader): Uint8Array {
  const { nonce, mapVersions: versions, instanceId, locatorStatusBits: status } = header;
  if (nonce !== undefined && versions !== undefined) throw new EncodeError('nonce', 'not with map-versions');
  if (nonce === undefined && header.echoNonce) throw new EncodeError('echo-nonce', 'needs a nonce');
  const versionField =
    versions === undefined
      ? 0
      : within(versions.source, 0xfff, 'source map-version') * 0x1000 +
        within(versions.destination, 0xfff, 'destination map-version');
  const statusField =
    instanceId === undefined
      ? (status ?? 0)
      : within(instanceId, 0xffffff, 'instance ID') * 0x100 + within(status ?? 0, 0xff, 'locator-status-bits');
  return new Writer()
    .u8(
      bit(nonce !== undefined, N) |
        bit(status !== undefined, L) |
        bit(header.echoNonce, E) |
        bit(versions !== undefined, V) |
        bit(instanceId !== undefined, I) |
        within(header.keyId, KK, 'key ID'),
      'flags',
    )
    .u24(nonce ?? versionField, 'nonce')
    .u32(statusField, 'locator-status-bits')
    .finish();
}

const N = 0x80;
const L = 0x40;
const E = 0x20;
const V = 0x10;
const I = 0x08;
const KK = 0x03;
