/** What no xTR may stumble over on UDP 4342: after each of these it goes on to answer, and answers none of them. */
import { type Check, group } from '../check.ts';
import {
  altered,
  distinguishedName,
  inInstance,
  ip,
  join,
  lcaf,
  locator,
  type Octets,
  record,
  u8,
  u16,
  u32,
} from '../lisp/octets.ts';
import type { XtrStage } from './stage.ts';

type Draft = Omit<Check<XtrStage>, 'id'>;
type Stimulus = readonly [string, (stage: XtrStage) => Octets];

export function robustnessChecks(): readonly Check<XtrStage>[] {
  return group('XTR-ROB', [...TRUNCATED, ...UNEXPECTED, ...OVERSTATED, ...ADDRESSES].map(harmless));
}

function harmless([what, octets]: Stimulus): Draft {
  const title = `${what[0]?.toUpperCase()}${what.slice(1)}`;
  return {
    level: 'MUST',
    source: 'RFC 9301 9',
    title: `${title} does no harm`,
    sent: `${title}.`,
    expected: 'No answer, and the target goes on to answer others.',
    run: async (stage) => stage.unanswered(octets(stage), what),
  };
}

/** Stimuli: a probe without instance that ends early. */
const TRUNCATED: readonly Stimulus[] = [1, 4, 9, 12, 13, 14, 17, 20, 21, 24].map(
  (length): Stimulus => [
    `a probe of which ${length} octets are left`,
    (stage) => stage.probe().octets.subarray(0, length),
  ],
);

/** Stimuli: messages that nobody waits for, or that mean nothing. */
const UNEXPECTED: readonly Stimulus[] = [
  ['an empty datagram', () => u8()],
  ...[0, 6, 9, 10, 14, 15].map(
    (type): Stimulus => [`a message of type ${type}`, () => join(u32((type << 28) >>> 0), new Uint8Array(40))],
  ),
  ['a Map-Reply that nobody asked for', (stage) => replyFor(stage)],
  ['a Map-Reply to a probe that nobody sent', (stage) => altered(replyFor(stage), (copy) => copy.set([0x28]))],
  ['a Map-Register', (stage) => authenticated(0x3a00_0101, stage)],
  ['a Map-Notify that nobody waits for', (stage) => authenticated(0x4000_0001, stage)],
  ['a Map-Notify-Ack that nobody waits for', (stage) => authenticated(0x5000_0001, stage)],
  ['an ECM of four octets', () => u32(0x8000_0000)],
  ['an ECM with half of an inner header', () => join(u32(0x8000_0000), u8(0x45), new Uint8Array(9))],
  ['an ECM in an ECM without end', () => Uint8Array.from({ length: 400 }, (_, at) => (at % 4 === 0 ? 0x80 : 0))],
  ['a DNS question', () => Buffer.from('123401000001000000000000076578616d706c6503636f6d0000010001', 'hex')],
  ['text', () => Buffer.from('GET / HTTP/1.1\r\n\r\n')],
];

/** Stimuli: counts and lengths that say more than there is. */
const OVERSTATED: readonly Stimulus[] = [
  ['a probe that says 255 records', (stage) => altered(stage.probe().octets, (copy) => copy.set([255], 3))],
  ['a probe without records', (stage) => altered(stage.probe().octets, (copy) => copy.set([0], 3))],
  ['a probe that says 32 ITR-RLOCs', (stage) => altered(stage.probe().octets, (copy) => copy.set([0x1f], 2))],
  ['a probe that says M and holds no record', (stage) => altered(stage.probe().octets, (copy) => copy.set([0x16]))],
  ['a probe with a mask of 255 bits', (stage) => stage.probe({ maskLength: 255 }).octets],
  ['a probe for an LCAF beyond its end', (stage) => stage.probe({ eid: lcaf(2, u32(0), { length: 4_000 }) }).octets],
  ['a probe for an empty LCAF 2', (stage) => stage.probe({ eid: lcaf(2, u8()) }).octets],
  ['a name without an end', (stage) => stage.probe({ eid: join(u16(17), Buffer.alloc(300, 0x61)) }).octets],
];

/** Stimuli: EIDs that are nobody's. */
const ADDRESSES: readonly Stimulus[] = [
  ['a probe for an EID of no family', (stage) => stage.probe({ eid: u16(0) }).octets],
  ['a probe for a name', (stage) => stage.probe({ eid: distinguishedName('conform') }).octets],
  ['a probe for an unknown AFI', (stage) => stage.probe({ eid: u8(0x7f, 0xff, 1, 2, 3, 4) }).octets],
  ['a probe for an LCAF of the unassigned type 77', (stage) => stage.probe({ eid: lcaf(77, u32(0)) }).octets],
  ['a probe for LCAFs that are nested 100 deep', (stage) => stage.probe({ eid: nested(100) }).octets],
  [
    'a probe for an instance in an instance',
    (stage) => stage.probe({ eid: inInstance(1, inInstance(2, ip(stage.subject.eid))) }).octets,
  ],
];

function nested(depth: number): Octets {
  let address = ip('192.0.2.1');
  for (let at = 0; at < depth; at++) address = lcaf(1, address);
  return address;
}

function replyFor(stage: XtrStage): Octets {
  const mapping = record(stage.eid(stage.outside.v4(1)), { ttl: 1, locators: [locator(ip('192.0.2.66'))] });
  return join(u32(0x2000_0001), u32(1), u32(2), mapping);
}

function authenticated(word: number, stage: XtrStage): Octets {
  const mapping = record(stage.eid(stage.outside.v4(1)), { ttl: 1 });
  return join(u32(word), u32(1), u32(2), u8(0, 2), u16(16), new Uint8Array(16), mapping);
}
