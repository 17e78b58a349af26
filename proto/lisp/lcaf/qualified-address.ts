/**
 * An address and what it is said of (RFC 8060; 4, 8, 14 and 16 are experimental there).
 *
 * ```
 *   2   instance ID           Rsvd2 = IID mask-len; | IID (32) | address
 *   3   AS number             | AS number (32) | address
 *   4   application data      | TOS, traffic class or flow label (24) | protocol (8) | local port, lowest (16) |
 *                             | highest (16) | remote port, lowest (16) | highest (16) | address
 *   8   nonce locator         | Rsvd (8) | nonce (24) | address
 *   14  JSON                  Rsvd2 = Rsvd (7) B; | length (16) | JSON | address, AFI 0 = none
 *   16  encapsulation format  | Rsvd (25) | U G N v V l L | address
 * ```
 */

import type { LispAddress } from '../afi.ts';
import { bit, isSet } from '../header.ts';
import type { LcafCodec } from './codec.ts';

export interface InstanceIdAddress {
  readonly kind: 'instance-id';
  /** 32 bits on the wire, of which the data plane can carry the low 24. */
  readonly iid: number;
  /** 0 or 32 in practice; only ranges of instances give it a meaning. */
  readonly iidMaskLength: number;
  readonly address: LispAddress;
}

export interface AsNumberAddress {
  readonly kind: 'as-number';
  readonly asNumber: number;
  readonly address: LispAddress;
}

export interface ApplicationAddress {
  readonly kind: 'application';
  /** TOS, traffic class or flow label, as the address is. */
  readonly trafficClass: number;
  /** IP protocol. */
  readonly protocol: number;
  readonly localPorts: PortRange;
  readonly remotePorts: PortRange;
  readonly address: LispAddress;
}

export interface PortRange {
  readonly from: number;
  readonly to: number;
}

export interface NonceAddress {
  readonly kind: 'nonce-locator';
  /** 24 bits. */
  readonly nonce: number;
  readonly address: LispAddress;
}

export interface JsonAddress {
  readonly kind: 'json';
  /** B: JSON in a binary encoding. */
  readonly binary: boolean;
  /** As it came: nobody promises that it is JSON. */
  readonly json: Uint8Array;
  readonly address: LispAddress;
}

export interface EncapsulationAddress {
  readonly kind: 'encapsulation';
  /** What the locator takes, in the order of ENCAPSULATIONS. */
  readonly formats: readonly Encapsulation[];
  readonly address: LispAddress;
}

/** By their bits, L first. */
export const ENCAPSULATIONS = ['lisp', 'lisp-l2', 'vxlan', 'vxlan-gpe', 'nvgre', 'geneve', 'gue'] as const;
export type Encapsulation = (typeof ENCAPSULATIONS)[number];

export const INSTANCE_ID: LcafCodec<InstanceIdAddress> = {
  type: 2,
  kind: 'instance-id',
  decode: ({ reader, rsvd2, address }) => ({
    kind: 'instance-id',
    iid: reader.u32('instance ID'),
    iidMaskLength: rsvd2,
    address: address(),
  }),
  encode: (lcaf, { writer, address }) => {
    writer.u32(lcaf.iid, 'instance ID');
    address(lcaf.address);
  },
  rsvd2: ({ iidMaskLength }) => iidMaskLength,
};

export const AS_NUMBER: LcafCodec<AsNumberAddress> = {
  type: 3,
  kind: 'as-number',
  decode: ({ reader, address }) => ({ kind: 'as-number', asNumber: reader.u32('AS number'), address: address() }),
  encode: (lcaf, { writer, address }) => {
    writer.u32(lcaf.asNumber, 'AS number');
    address(lcaf.address);
  },
};

export const APPLICATION: LcafCodec<ApplicationAddress> = {
  type: 4,
  kind: 'application',
  decode: ({ reader, address }) => ({
    kind: 'application',
    trafficClass: reader.u24('traffic class'),
    protocol: reader.u8('protocol'),
    localPorts: { from: reader.u16('local port'), to: reader.u16('local port') },
    remotePorts: { from: reader.u16('remote port'), to: reader.u16('remote port') },
    address: address(),
  }),
  encode: ({ trafficClass, protocol, localPorts, remotePorts, ...lcaf }, { writer, address }) => {
    writer.u24(trafficClass, 'traffic class').u8(protocol, 'protocol');
    writer.u16(localPorts.from, 'local port').u16(localPorts.to, 'local port');
    writer.u16(remotePorts.from, 'remote port').u16(remotePorts.to, 'remote port');
    address(lcaf.address);
  },
};

export const NONCE_LOCATOR: LcafCodec<NonceAddress> = {
  type: 8,
  kind: 'nonce-locator',
  decode: ({ reader, address }) => {
    reader.skip(1, 'reserved');
    return { kind: 'nonce-locator', nonce: reader.u24('nonce'), address: address() };
  },
  encode: (lcaf, { writer, address }) => {
    writer.u8(0, 'reserved').u24(lcaf.nonce, 'nonce');
    address(lcaf.address);
  },
};

export const JSON_DATA: LcafCodec<JsonAddress> = {
  type: 14,
  kind: 'json',
  decode: ({ reader, rsvd2, address }) => ({
    kind: 'json',
    binary: isSet(rsvd2, B),
    json: reader.bytes(reader.u16('JSON length'), 'JSON'),
    address: address(),
  }),
  encode: (lcaf, { writer, address }) => {
    writer.u16(lcaf.json.length, 'JSON length').bytes(lcaf.json);
    address(lcaf.address);
  },
  rsvd2: ({ binary }) => bit(binary, B),
};

export const ENCAPSULATION: LcafCodec<EncapsulationAddress> = {
  type: 16,
  kind: 'encapsulation',
  decode: ({ reader, address }) => {
    const bits = reader.u32('encapsulations');
    const formats = ENCAPSULATIONS.filter((_, i) => isSet(bits, 1 << i));
    return { kind: 'encapsulation', formats, address: address() };
  },
  encode: (lcaf, { writer, address }) => {
    const bits = ENCAPSULATIONS.map((format, i) => bit(lcaf.formats.includes(format), 1 << i));
    writer.u32(
      bits.reduce((word, mask) => word | mask, 0),
      'encapsulations',
    );
    address(lcaf.address);
  },
};

const B = 0x01;
