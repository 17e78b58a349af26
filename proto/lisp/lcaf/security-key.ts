/**
 * Security key, type 11 (RFC 8060 4.7, RFC 8061).
 *
 * ```
 * | key count (8) | Rsvd3 (8) | algorithm (8) | Rsvd4 (7) R | { length (16) | key } | address
 * ```
 */
import type { LispAddress } from '../afi.ts';
import type { LcafCodec } from './codec.ts';

export interface SecurityKeyAddress {
  readonly kind: 'security-key';
  readonly algorithm: number;
  /** R: the key is no longer to be used. */
  readonly revoked: boolean;
  readonly keys: readonly Uint8Array[];
  readonly address: LispAddress;
}

export const SECURITY_KEY: LcafCodec<SecurityKeyAddress> = {
  type: 11,
  kind: 'security-key',
  decode: ({ reader, address }) => {
    const count = reader.u8('key count');
    reader.skip(1, 'LCAF Rsvd3');
    const algorithm = reader.u8('key algorithm');
    const revoked = (reader.u8('LCAF Rsvd4') & 1) === 1;
    reader.expect(2 * count, 'keys');
    const keys = Array.from({ length: count }, () => reader.bytes(reader.u16('key length'), 'key'));
    return { kind: 'security-key', algorithm, revoked, keys, address: address() };
  },
  encode: (lcaf, { writer, address }) => {
    writer.u8(lcaf.keys.length, 'key count').u8(0, 'LCAF Rsvd3').u8(lcaf.algorithm, 'key algorithm');
    writer.u8(lcaf.revoked ? 1 : 0, 'LCAF Rsvd4');
    for (const key of lcaf.keys) writer.u16(key.length, 'key length').bytes(key);
    address(lcaf.address);
  },
};
