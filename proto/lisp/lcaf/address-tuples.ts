/**
 * Several addresses in one (RFC 8060).
 *
 * ```
 *   1   AFI list            address, address, ...
 *   9   multicast info      Rsvd2 = Rsvd (5) R L J; | IID (32) | Rsvd (16) | source mask-len (8) | group mask-len (8) |
 *                           source | group
 *   12  source/destination  | Rsvd (16) | source mask-len (8) | destination mask-len (8) | source | destination
 *   15  key/value           key | value
 * ```
 */

import type { LispAddress } from '../afi.ts';
import { bit, isSet } from '../header.ts';
import { type LcafCodec, untilEnd } from './codec.ts';

export interface AfiList {
  readonly kind: 'afi-list';
  readonly addresses: readonly LispAddress[];
}

export interface MulticastInfo {
  readonly kind: 'multicast';
  readonly iid: number;
  /** R: (*,G) towards a rendezvous point. */
  readonly rendezvousPoint: boolean;
  /** L */
  readonly leave: boolean;
  /** J */
  readonly join: boolean;
  readonly sourceMaskLength: number;
  readonly groupMaskLength: number;
  readonly source: LispAddress;
  readonly group: LispAddress;
}

export interface SourceDestination {
  readonly kind: 'source-destination';
  readonly sourceMaskLength: number;
  readonly destinationMaskLength: number;
  readonly source: LispAddress;
  readonly destination: LispAddress;
}

export interface KeyValue {
  readonly kind: 'key-value';
  readonly key: LispAddress;
  readonly value: LispAddress;
}

export const AFI_LIST: LcafCodec<AfiList> = {
  type: 1,
  kind: 'afi-list',
  decode: (body) => ({ kind: 'afi-list', addresses: untilEnd(body, body.address) }),
  encode: ({ addresses }, { address }) => addresses.forEach(address),
};

export const MULTICAST: LcafCodec<MulticastInfo> = {
  type: 9,
  kind: 'multicast',
  decode: ({ reader, rsvd2, address }) => {
    const iid = reader.u32('instance ID');
    reader.skip(2, 'reserved');
    return {
      kind: 'multicast',
      iid,
      rendezvousPoint: isSet(rsvd2, R),
      leave: isSet(rsvd2, L),
      join: isSet(rsvd2, J),
      sourceMaskLength: reader.u8('source mask-len'),
      groupMaskLength: reader.u8('group mask-len'),
      source: address(),
      group: address(),
    };
  },
  encode: ({ iid, sourceMaskLength, groupMaskLength, source, group }, { writer, address }) => {
    writer.u32(iid, 'instance ID').u16(0, 'reserved');
    writer.u8(sourceMaskLength, 'source mask-len').u8(groupMaskLength, 'group mask-len');
    [source, group].forEach(address);
  },
  rsvd2: ({ rendezvousPoint, leave, join }) => bit(rendezvousPoint, R) | bit(leave, L) | bit(join, J),
};

export const SOURCE_DESTINATION: LcafCodec<SourceDestination> = {
  type: 12,
  kind: 'source-destination',
  decode: ({ reader, address }) => {
    reader.skip(2, 'reserved');
    return {
      kind: 'source-destination',
      sourceMaskLength: reader.u8('source mask-len'),
      destinationMaskLength: reader.u8('destination mask-len'),
      source: address(),
      destination: address(),
    };
  },
  encode: ({ sourceMaskLength, destinationMaskLength, source, destination }, { writer, address }) => {
    writer.u16(0, 'reserved').u8(sourceMaskLength, 'source mask-len');
    writer.u8(destinationMaskLength, 'destination mask-len');
    [source, destination].forEach(address);
  },
};

export const KEY_VALUE: LcafCodec<KeyValue> = {
  type: 15,
  kind: 'key-value',
  decode: ({ address }) => ({ kind: 'key-value', key: address(), value: address() }),
  encode: ({ key, value }, { address }) => [key, value].forEach(address),
};

const R = 0x04;
const L = 0x02;
const J = 0x01;
