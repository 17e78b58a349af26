/** What no implementation may stumble over: after each of these the target goes on to answer, and answers none of them. */
import { type Check, demand, group } from '../check.ts';
import { encapsulated } from '../lisp/encapsulation.ts';
import { codeLengths } from '../lisp/message-code.ts';
import {
  altered,
  distinguishedName,
  inInstance,
  ip,
  join,
  lcaf,
  locator,
  type Octets,
  REQUEST,
  record,
  TYPE,
  u8,
  u16,
  u32,
  xtrTrailer,
} from '../lisp/octets.ts';
import { PROXY_NOTIFY } from './etr.ts';
import type { MapServerStage } from './stage.ts';

type Draft = Omit<Check<MapServerStage>, 'id'>;

export function robustnessChecks(): readonly Check<MapServerStage>[] {
  return group('MS-ROB', [
    ...TRUNCATED_REGISTERS.map((at) =>
      harmless(`a Map-Register that ends after ${at}`, (stage) => cut(register(stage), at, stage)),
    ),
    ...TRUNCATED_REQUESTS.map(([what, length]) =>
      harmless(`a Map-Request that ends ${what}`, (stage) => request(stage).subarray(0, length)),
    ),
    ...TRUNCATED_ECMS.map(([what, length]) =>
      harmless(`an ECM that ends ${what}`, (stage) => ecm(stage).subarray(0, length)),
    ),
    ...UNEXPECTED.map(([what, octets]) => harmless(what, octets)),
    ...OVERSTATED.map(([what, octets]) => harmless(what, octets)),
    ...ADDRESSES.map(([what, eid]) =>
      harmless(`a Map-Request for ${what}`, (stage) => stage.request(eid(stage)).octets, true),
    ),
    ...REGISTERED_ADDRESSES.map(([what, eid]) =>
      harmless(`a right Map-Register with ${what}`, (stage) => registerOf(stage, eid(stage)), true),
    ),
    ...[...Array(10).keys()].map((seed) =>
      harmless(`random octets (${seed + 1} of 10)`, () => randomOctets(seed + 1), true),
    ),
    ...FLOODS.map(floodCheck),
  ]);
}

/** Sends something and demands that the target goes on to answer, and, unless it may answer this, that it does not. */
function harmless(what: string, octets: (stage: MapServerStage) => Octets, mayAnswer = false): Draft {
  const title = `${what[0]?.toUpperCase()}${what.slice(1)}`;
  return {
    level: 'MUST',
    source: 'RFC 9301 9',
    title: `${title} does no harm`,
    sent: `${title}.`,
    expected: mayAnswer ? 'The target goes on to answer.' : 'No answer, and the target goes on to answer others.',
    run: async (stage) => {
      const sent = octets(stage);
      if (!mayAnswer) return stage.unanswered(sent, what);
      await stage.port.send(sent);
      await stage.fence();
      return 'The target went on to answer.';
    },
  };
}

function register(stage: MapServerStage): Octets {
  const eid = ip(stage.block.v4(1));
  if (stage.subject.key !== undefined) return stage.etr().message([{ eid }]).octets;
  return join(
    u32(0x3a00_0101),
    u32(7),
    u32(8),
    u8(1, 2),
    u16(16),
    new Uint8Array(16),
    record(eid, { locators: [locator(ip('192.0.2.7'))] }),
    xtrTrailer(new Uint8Array(16)),
  );
}

function request(stage: MapServerStage): Octets {
  return stage.request(ip(stage.outside.v4(1)), { sourceEid: ip(stage.block.v4(1)) }).octets;
}

function ecm(stage: MapServerStage): Octets {
  return encapsulated(request(stage), {
    source: '192.0.2.1',
    destination: stage.outside.v4(1),
    sourcePort: stage.port.port,
  });
}

const TRUNCATED_REGISTERS = [
  'its first octet',
  'its first word',
  'half of its nonce',
  'its nonce',
  'its key ID',
  'the length of its code',
  'half of its code',
  'its code',
  'the TTL of its record',
  'the counts of its record',
  'the flags of its record',
  'the AFI of its EID',
  'half of its EID',
  'its EID',
  'the priorities of its locator',
  'the AFI of its locator',
  'half of its locator',
  'its records, with an xTR-ID announced',
  'half of its xTR-ID',
] as const;

type Place = (typeof TRUNCATED_REGISTERS)[number];

function cut(octets: Octets, place: Place, stage: MapServerStage): Octets {
  const code = stage.subject.key === undefined ? 16 : codeLengths(stage.subject.key.algorithm).rfc;
  const inRecord = (offset: number): number => 16 + code + offset;
  const lengths: Readonly<Record<Place, number>> = {
    'its first octet': 1,
    'its first word': 4,
    'half of its nonce': 8,
    'its nonce': 12,
    'its key ID': 13,
    'the length of its code': 16,
    'half of its code': 16 + code / 2,
    'its code': 16 + code,
    'the TTL of its record': inRecord(4),
    'the counts of its record': inRecord(6),
    'the flags of its record': inRecord(8),
    'the AFI of its EID': inRecord(12),
    'half of its EID': inRecord(14),
    'its EID': inRecord(16),
    'the priorities of its locator': inRecord(20),
    'the AFI of its locator': inRecord(24),
    'half of its locator': inRecord(26),
    'its records, with an xTR-ID announced': inRecord(28),
    'half of its xTR-ID': inRecord(36),
  };
  return octets.subarray(0, lengths[place]);
}

/** Offsets in the Map-Request of `request`. */
const TRUNCATED_REQUESTS: readonly (readonly [string, number])[] = [
  ['after its first word', 4],
  ['in its nonce', 9],
  ['after its nonce', 12],
  ['in the AFI of its source EID', 13],
  ['in its source EID', 16],
  ['after its source EID', 18],
  ['in its ITR-RLOC', 21],
  ['after its ITR-RLOC', 24],
  ['after the mask length', 26],
  ['in its EID', 30],
];

const TRUNCATED_ECMS: readonly (readonly [string, number])[] = [
  ['in its first word', 3],
  ['in the first octet of the inner header', 5],
  ['in the inner IP header', 14],
  ['after the inner IP header', 24],
  ['in the inner UDP header', 28],
  ['after the inner UDP header', 32],
  ['in the inner Map-Request', 46],
];

/** Stimuli: messages that a Map-Server is not sent, or that mean nothing. */
const UNEXPECTED: readonly (readonly [string, (stage: MapServerStage) => Octets])[] = [
  ['an empty datagram', () => u8()],
  ...[0, 6, 9, 10, 11, 12, 13, 14].map((type): [string, () => Octets] => [
    `a message of type ${type}`,
    () => join(u32((type << 28) >>> 0), new Uint8Array(40)),
  ]),
  ['a shared extension message (type 15) of an unknown kind', () => join(u32(0xf7ff_0000), new Uint8Array(40))],
  ['a Map-Reply that nobody asked for', (stage) => mapReplyFor(ip(stage.block.v4(1)))],
  [
    'a Map-Reply to a probe that nobody sent',
    (stage) => altered(mapReplyFor(ip(stage.block.v4(1))), (copy) => copy.set([0x28])),
  ],
  [
    'a Map-Notify that nobody waits for',
    (stage) =>
      join(u32(0x4000_0001), u32(1), u32(2), u8(0, 2), u16(16), new Uint8Array(16), record(ip(stage.block.v4(1)))),
  ],
  [
    'a Map-Notify-Ack that nobody waits for',
    (stage) =>
      join(u32(0x5000_0001), u32(1), u32(2), u8(0, 2), u16(16), new Uint8Array(16), record(ip(stage.block.v4(1)))),
  ],
  ['a LISP data packet', () => join(u8(0x88, 1, 2, 3), u32(0), u8(0x45), new Uint8Array(60))],
  ['a DNS question', () => Buffer.from('123401000001000000000000076578616d706c6503636f6d0000010001', 'hex')],
  ['text', () => Buffer.from('GET / HTTP/1.1\r\n\r\n')],
];

function mapReplyFor(eid: Octets): Octets {
  return join(u32(0x2000_0001), u32(1), u32(2), record(eid, { ttl: 60, locators: [locator(ip('192.0.2.66'))] }));
}

/** Stimuli: counts and lengths that say more, or less, than there is. Unauthenticated, so that nothing may be believed. */
const OVERSTATED: readonly (readonly [string, (stage: MapServerStage) => Octets])[] = [
  ['a Map-Register that says 255 records', (stage) => altered(register(stage), (copy) => copy.set([255], 3))],
  [
    'a Map-Register that says a code of 65,535 octets',
    (stage) => altered(register(stage), (copy) => copy.set([255, 255], 14)),
  ],
  ['a Map-Register that says a code of 0 octets', (stage) => altered(register(stage), (copy) => copy.set([0, 0], 14))],
  ['a Map-Register that says 255 locators', (stage) => atRecord(stage, 4, 255)],
  ['a Map-Register whose IPv4 EID has a mask of 33 bits', (stage) => atRecord(stage, 5, 33)],
  ['a Map-Register whose IPv4 EID has a mask of 255 bits', (stage) => atRecord(stage, 5, 255)],
  ['a Map-Register without records', (stage) => altered(register(stage), (copy) => copy.set([0], 3))],
  ['a Map-Request that says 32 ITR-RLOCs', (stage) => altered(request(stage), (copy) => copy.set([0x1f], 2))],
  ['a Map-Request that says 255 records', (stage) => altered(request(stage), (copy) => copy.set([255], 3))],
  [
    'a Map-Request that says M and holds no record',
    (stage) => altered(request(stage), (copy) => copy.set([(TYPE.mapRequest << 4) | 0x04], 0)),
  ],
  [
    'a subscription that ends in its xTR-ID',
    (stage) =>
      stage.request(ip(stage.block.v4(1)), { flags: REQUEST.I, recordFlags: 0x80, trailer: new Uint8Array(9) }).octets,
  ],
  [
    'a Map-Request for an LCAF that goes beyond its end',
    (stage) => stage.request(lcaf(2, u32(0), { length: 4000 })).octets,
  ],
  [
    'a Map-Request for an LCAF that ends before its address does',
    (stage) => stage.request(lcaf(2, join(u32(0), ip(stage.block.v4(1))), { length: 6 })).octets,
  ],
  ['a Map-Request for an empty LCAF 2', (stage) => stage.request(lcaf(2, u8())).octets],
  [
    'a Map-Request for an IPv4 EID with a mask of 33 bits',
    (stage) => stage.request(ip(stage.block.v4(1)), { maskLength: 33 }).octets,
  ],
  [
    'a Map-Request for an IPv4 EID with a mask of 255 bits',
    (stage) => stage.request(ip(stage.block.v4(1)), { maskLength: 255 }).octets,
  ],
  [
    'a Map-Request for an IPv6 EID with a mask of 129 bits',
    (stage) => stage.request(ip(stage.block.v6(1)), { maskLength: 129 }).octets,
  ],
  ['a Map-Request for LCAFs that are nested 100 deep', (stage) => stage.request(nested(100, stage)).octets],
  ['a Map-Request for a name without an end', (stage) => stage.request(join(u16(17), Buffer.alloc(300, 0x61))).octets],
];

function atRecord(stage: MapServerStage, offset: number, value: number): Octets {
  const octets = register(stage);
  const code = ((octets[14] ?? 0) << 8) | (octets[15] ?? 0);
  return altered(octets, (copy) => copy.set([value], 16 + code + offset));
}

function nested(depth: number, stage: MapServerStage): Octets {
  let address = ip(stage.block.v4(1));
  for (let at = 0; at < depth; at++) address = lcaf(1, address);
  return address;
}

/** Stimuli: forms of an EID in a Map-Request that a target may know or not. */
const ADDRESSES: readonly (readonly [string, (stage: MapServerStage) => Octets])[] = [
  ['an EID of no family (AFI 0)', () => u16(0)],
  ['a MAC address (AFI 6)', () => u8(0, 6, 2, 0, 0, 0, 0, 1)],
  ['a MAC address (AFI 16389)', () => u8(0x40, 5, 2, 0, 0, 0, 0, 1)],
  ['a name', () => distinguishedName('conform')],
  ['a name of 255 octets', () => distinguishedName('a'.repeat(255))],
  ['an address in the instance 7', ({ outside }) => inInstance(7, ip(outside.v4(1)))],
  ['an address in the instance 16,777,215', ({ outside }) => inInstance(0xff_ffff, ip(outside.v4(1)))],
  ['an address in an instance of 32 bits', ({ outside }) => inInstance(0xffff_ffff, ip(outside.v4(1)))],
  ['an instance in an instance', ({ outside }) => inInstance(1, inInstance(2, ip(outside.v4(1))))],
  ['a multicast entry (LCAF 9)', () => lcaf(9, join(u32(0), u16(0), u8(32, 32), ip('192.0.2.1'), ip('239.1.1.1')))],
  ['source and destination (LCAF 12)', () => lcaf(12, join(u16(0), u8(32, 32), ip('192.0.2.1'), ip('192.0.2.2')))],
  ['an LCAF of the unassigned type 77', () => lcaf(77, u32(0))],
  ['an LCAF of type 255', () => lcaf(255, u32(0x00020305))],
  ['all of IPv4', () => ip('0.0.0.0')],
  ['a multicast group', () => ip('239.1.1.1')],
  ['the broadcast address', () => ip('255.255.255.255')],
  ['a loopback address', () => ip('::1')],
];

/** Stimuli: EIDs with a right code that a target may take or not. */
const REGISTERED_ADDRESSES: readonly (readonly [string, (stage: MapServerStage) => Octets])[] = [
  ['a name as EID', () => distinguishedName('conform')],
  ['an EID of no family', () => u16(0)],
  ['an EID of an unknown AFI', () => u8(0x7f, 0xff, 1, 2, 3, 4)],
  ['an EID in an instance that is not the site’s', ({ block }) => inInstance(0x00ab_cdef, ip(block.v4(1)))],
  ['an EID in LCAFs that are nested 20 deep', (stage) => nested(20, stage)],
  ['a multicast group as EID', () => ip('239.1.1.1')],
];

function registerOf(stage: MapServerStage, eid: Octets): Octets {
  return stage.etr().message([{ eid }], { flags: PROXY_NOTIFY }).octets;
}

interface Flood {
  readonly what: string;
  readonly count: number;
  readonly octets: (stage: MapServerStage, at: number) => Octets;
}

/** Stimuli: many in a row, as fast as the bound of the run allows. */
const FLOODS: readonly Flood[] = [
  {
    what: 'Map-Requests for 40 different EIDs',
    count: 40,
    octets: (stage, at) => stage.request(ip(stage.block.v6(at + 1))).octets,
  },
  { what: '40 Map-Requests for one EID', count: 40, octets: (stage) => stage.request(ip(stage.block.v4(1))).octets },
  {
    what: '40 Map-Registers with wrong codes',
    count: 40,
    octets: (stage) => altered(register(stage), (copy) => copy.set([1, 2, 3], 17)),
  },
  { what: '20 datagrams of 8,000 octets', count: 20, octets: () => join(u32(0x3a00_0101), new Uint8Array(7996)) },
];

function floodCheck({ what, count, octets }: Flood): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 9',
    title: `After ${what} the target goes on to answer`,
    sent: `${what[0]?.toUpperCase()}${what.slice(1)}.`,
    expected: 'The target goes on to answer, and sends back less than four times the octets that it was sent.',
    run: async (stage) => {
      let sent = 0;
      for (let at = 0; at < count; at++) {
        const each = octets(stage, at);
        sent += each.length;
        await stage.port.send(each);
      }
      const received = stage.port.inbox.reduce((sum, each) => sum + each.octets.length, 0);
      demand(received <= 4 * sent, `${received} octets for ${sent}.`);
      await stage.fence();
      return `${received} octets came back for ${sent}, and the target went on to answer.`;
    },
  };
}

/** The same in each run, so that what breaks a target can be sent again. */
function randomOctets(seed: number): Octets {
  let state = seed * 2_654_435_761;
  return Uint8Array.from({ length: 40 + seed * 60 }, (_, at) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return at === 0 ? ((seed % 9) << 4) | (state >>> 28) : state >>> 24;
  });
}
