/**
 * NAT traversal, type 7 (RFC 8060 4.4): what a map server saw of an xTR behind a NAT, and which RTRs there are.
 *
 * ```
 * | MS port (16) | ETR port (16) | global ETR | MS | private ETR | RTR, RTR ... |   addresses, AFI 0 = none
 * ```
 */
import type { LispAddress } from '../afi.ts';
import { type LcafCodec, untilEnd } from './codec.ts';

export interface NatAddress {
  readonly kind: 'nat';
  readonly msPort: number;
  readonly etrPort: number;
  readonly globalEtr: LispAddress;
  readonly ms: LispAddress;
  readonly privateEtr: LispAddress;
  readonly rtrs: readonly LispAddress[];
}

export const NAT: LcafCodec<NatAddress> = {
  type: 7,
  kind: 'nat',
  decode: (body) => {
    const { reader, address } = body;
    return {
      kind: 'nat',
      msPort: reader.u16('MS port'),
      etrPort: reader.u16('ETR port'),
      globalEtr: address(),
      ms: address(),
      privateEtr: address(),
      rtrs: untilEnd(body, address),
    };
  },
  encode: ({ msPort, etrPort, globalEtr, ms, privateEtr, rtrs }, { writer, address }) => {
    writer.u16(msPort, 'MS port').u16(etrPort, 'ETR port');
    [globalEtr, ms, privateEtr, ...rtrs].forEach(address);
  },
};
