/**
 * What has no address in it: type 0, the null body, and type 255, vendor specific (RFC 9306).
 *
 * ```
 *   0    nothing
 *   255  | Rsvd3 (8) | OUI (24) | data
 * ```
 */
import type { LcafCodec } from './codec.ts';

export interface NullBody {
  readonly kind: 'null-body';
}

export interface VendorAddress {
  readonly kind: 'vendor';
  /** Organizationally unique identifier, 24 bits. */
  readonly oui: number;
  readonly data: Uint8Array;
}

export const NULL_BODY: LcafCodec<NullBody> = {
  type: 0,
  kind: 'null-body',
  decode: () => ({ kind: 'null-body' }),
  encode: () => {},
};

export const VENDOR: LcafCodec<VendorAddress> = {
  type: 255,
  kind: 'vendor',
  decode: ({ reader }) => {
    reader.skip(1, 'LCAF Rsvd3');
    return { kind: 'vendor', oui: reader.u24('OUI'), data: reader.rest() };
  },
  encode: ({ oui, data }, { writer }) => {
    writer.u8(0, 'LCAF Rsvd3').u24(oui, 'OUI').bytes(data);
  },
};
