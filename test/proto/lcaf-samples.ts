/** One LCAF of each type, laid out by hand from the figures of RFC 8060 and RFC 9306. */
import type { IpAddress } from '../../proto/address.ts';
import type { LispAddress } from '../../proto/lisp/afi.ts';

export interface LcafSample {
  readonly type: number;
  /** From the AFI on; the parts are words of the figure. */
  readonly octets: string;
  readonly address: LispAddress;
}

export const LCAF_SAMPLES: readonly LcafSample[] = [
  { type: 0, octets: frame(0, '00', 0), address: { kind: 'null-body' } },
  {
    type: 1,
    octets: `${frame(1, '00', 24)}00010a000001000220010db8000000000000000000000001`,
    address: { kind: 'afi-list', addresses: [ip('10.0.0.1'), ip('2001:db8::1')] },
  },
  {
    type: 2,
    octets: `${frame(2, '20', 10)}000003e800010a000001`,
    address: { kind: 'instance-id', iid: 1000, iidMaskLength: 32, address: ip('10.0.0.1') },
  },
  {
    type: 3,
    octets: `${frame(3, '00', 10)}0000fde800010a000001`,
    address: { kind: 'as-number', asNumber: 65000, address: ip('10.0.0.1') },
  },
  {
    type: 4,
    octets: `${frame(4, '00', 18)}00002e0604000400005001bb00010a000001`,
    address: {
      kind: 'application',
      trafficClass: 0x2e,
      protocol: 6,
      localPorts: { from: 1024, to: 1024 },
      remotePorts: { from: 80, to: 443 },
      address: ip('10.0.0.1'),
    },
  },
  {
    type: 5,
    octets: `${frame(5, '00', 18)}80341e0f000d1804ffffffd800010a000001`,
    address: {
      kind: 'geo',
      latitude: { positive: true, degrees: 52, minutes: 30, seconds: 15 },
      longitude: { positive: false, degrees: 13, minutes: 24, seconds: 4 },
      altitude: -40,
      address: ip('10.0.0.1'),
    },
  },
  {
    type: 5,
    octets: `${frame(5, '00', 14)}00210000809700007fffffff0000`,
    address: {
      kind: 'geo',
      latitude: { positive: false, degrees: 33, minutes: 0, seconds: 0 },
      longitude: { positive: true, degrees: 151, minutes: 0, seconds: 0 },
      altitude: null,
      address: { kind: 'none' },
    },
  },
  {
    type: 6,
    octets: `${frame(6, '00', 4)}cafebabe`,
    address: { kind: 'lcaf', type: 6, flags: 0, rsvd2: 0, body: Uint8Array.of(0xca, 0xfe, 0xba, 0xbe) },
  },
  {
    type: 7,
    octets: `${frame(7, '00', 30)}10f6a0010001cb0071050001c000020100010a00000200000001c6336401`,
    address: {
      kind: 'nat',
      msPort: 4342,
      etrPort: 40961,
      globalEtr: ip('203.0.113.5'),
      ms: ip('192.0.2.1'),
      privateEtr: ip('10.0.0.2'),
      rtrs: [{ kind: 'none' }, ip('198.51.100.1')],
    },
  },
  {
    type: 7,
    octets: `${frame(7, '00', 12)}10f610f5${'0000'.repeat(4)}`,
    address: {
      kind: 'nat',
      msPort: 4342,
      etrPort: 4341,
      globalEtr: { kind: 'none' },
      ms: { kind: 'none' },
      privateEtr: { kind: 'none' },
      rtrs: [{ kind: 'none' }],
    },
  },
  {
    type: 8,
    octets: `${frame(8, '00', 10)}00abcdef00010a000001`,
    address: { kind: 'nonce-locator', nonce: 0xabcdef, address: ip('10.0.0.1') },
  },
  {
    type: 9,
    octets: `${frame(9, '05', 20)}000000070000202000010a0000010001e8010101`,
    address: {
      kind: 'multicast',
      iid: 7,
      rendezvousPoint: true,
      leave: false,
      join: true,
      sourceMaskLength: 32,
      groupMaskLength: 32,
      source: ip('10.0.0.1'),
      group: ip('232.1.1.1'),
    },
  },
  {
    type: 10,
    octets: `${frame(10, '00', 16)}000500010a000001000200010a000002`,
    address: {
      kind: 'explicit-path',
      hops: [
        { lookup: true, probe: false, strict: true, address: ip('10.0.0.1') },
        { lookup: false, probe: true, strict: false, address: ip('10.0.0.2') },
      ],
    },
  },
  {
    type: 11,
    octets: `${frame(11, '00', 15)}01000501000301020300010a000001`,
    address: {
      kind: 'security-key',
      algorithm: 5,
      revoked: true,
      keys: [Uint8Array.of(1, 2, 3)],
      address: ip('10.0.0.1'),
    },
  },
  {
    type: 12,
    octets: `${frame(12, '00', 16)}0000182000010a01010000010a000001`,
    address: {
      kind: 'source-destination',
      sourceMaskLength: 24,
      destinationMaskLength: 32,
      source: ip('10.1.1.0'),
      destination: ip('10.0.0.1'),
    },
  },
  {
    type: 13,
    octets: `${frame(13, '00', 20)}0000000100010a0000010000000200010a000002`,
    address: {
      kind: 'replication-list',
      entries: [
        { level: 1, address: ip('10.0.0.1') },
        { level: 2, address: ip('10.0.0.2') },
      ],
    },
  },
  {
    type: 14,
    octets: `${frame(14, '00', 11)}00077b2261223a317d0000`,
    address: {
      kind: 'json',
      binary: false,
      json: new TextEncoder().encode('{"a":1}'),
      address: { kind: 'none' },
    },
  },
  {
    type: 15,
    octets: `${frame(15, '00', 12)}00010a00000100010a000002`,
    address: { kind: 'key-value', key: ip('10.0.0.1'), value: ip('10.0.0.2') },
  },
  {
    type: 16,
    octets: `${frame(16, '00', 10)}0000004500010a000001`,
    address: { kind: 'encapsulation', formats: ['lisp', 'vxlan', 'gue'], address: ip('10.0.0.1') },
  },
  {
    type: 255,
    octets: `${frame(255, '00', 6)}000253500102`,
    address: { kind: 'vendor', oui: 0x025350, data: Uint8Array.of(1, 2) },
  },
];

function ip(address: string): LispAddress {
  return { kind: 'ip', address: address as IpAddress };
}

function frame(type: number, rsvd2: string, length: number): string {
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  return `40030000${hex(type, 2)}${rsvd2}${hex(length, 4)}`;
}
