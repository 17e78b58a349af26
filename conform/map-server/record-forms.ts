/** Forms of EID-records and of Map-Registers that a Map-Server is to accept (RFC 9301 5.4, 5.6; RFC 8060). */
import { type Check, demand } from '../check.ts';
import { describeAnswer, describeRecord } from '../lisp/answers.ts';
import {
  distinguishedName,
  hostMask,
  inInstance,
  ip,
  join,
  lcaf,
  locator,
  NO_ADDRESS,
  type Octets,
  REGISTER,
  u8,
  u16,
  u32,
} from '../lisp/octets.ts';
import { type EidRecord, PROXY_NOTIFY } from './etr.ts';
import type { MapServerStage } from './stage.ts';

type Draft = Omit<Check<MapServerStage>, 'id'>;

/** One registration of the block's first address, confirmed. */
export async function registered(stage: MapServerStage, change: Partial<EidRecord> = {}, flags = PROXY_NOTIFY) {
  const eid = ip(stage.block.v4(1));
  return { eid, ...(await stage.etr().register([{ eid, ...change }], { flags })) };
}

interface RecordForm {
  readonly what: string;
  readonly level?: Check<MapServerStage>['level'];
  readonly source?: string;
  readonly record: (stage: MapServerStage) => EidRecord;
}

/** Stimuli: forms of an EID-record that are to be accepted. */
const RECORDS: readonly RecordForm[] = [
  { what: 'an IPv6 host', record: ({ block }) => ({ eid: ip(block.v6(1)) }) },
  { what: 'an IPv6 /64', record: ({ block }) => ({ eid: ip(block.v6(0)), maskLength: 64 }) },
  { what: 'an IPv6 /127', record: ({ block }) => ({ eid: ip(block.v6(2)), maskLength: 127 }) },
  { what: 'an IPv4 /31', record: ({ block }) => ({ eid: ip(block.v4(2)), maskLength: 31 }) },
  { what: 'an IPv4 /30', record: ({ block }) => ({ eid: ip(block.v4(4)), maskLength: 30 }) },
  { what: 'an IPv4 /29', record: ({ block }) => ({ eid: ip(block.v4(0)), maskLength: 29 }) },
  {
    what: 'an IPv4 host in the instance 0 of an LCAF',
    level: 'interop',
    source: 'RFC 8060 4.1',
    record: ({ block }) => ({ eid: inInstance(0, ip(block.v4(1))) }),
  },
  { what: 'the A bit off', level: 'interop', record: ({ block }) => ({ eid: ip(block.v4(1)), word: 0 }) },
  { what: 'a map version', source: 'RFC 9302 6', record: ({ block }) => ({ eid: ip(block.v4(1)), version: 0x123 }) },
  {
    what: 'the highest map version',
    source: 'RFC 9302 6',
    record: ({ block }) => ({ eid: ip(block.v4(1)), version: 0xfff }),
  },
  {
    what: 'an action, which has no meaning with locators',
    record: ({ block }) => ({ eid: ip(block.v4(1)), word: 0x7000 }),
  },
];

function recordCheck({ what, level = 'MUST', source = 'RFC 9301 5.6', record }: RecordForm): Draft {
  return {
    level,
    source,
    title: `A record with ${what} is registered`,
    sent: `A right Map-Register whose record has ${what}, then a Map-Request for it.`,
    expected: 'A Map-Notify, then a Map-Reply with the locator.',
    run: async (stage) => {
      const each = record(stage);
      await stage.etr().register([each]);
      const { records } = await stage.reply(each.eid, { maskLength: hostMask(each.eid) });
      demand((records[0]?.locators.length ?? 0) > 0, 'The Map-Reply is negative.');
      return `A Map-Reply of ${records.map(describeRecord).join(', ')}.`;
    },
  };
}

interface LocatorSet {
  readonly what: string;
  readonly locators: readonly { readonly address: string; readonly priority?: number; readonly weight?: number }[];
}

/** Stimuli: RLOC-sets that have to come back from a Map-Request as they were registered. */
const LOCATOR_SETS: readonly LocatorSet[] = [
  { what: 'one IPv6 locator for an IPv4 EID', locators: [{ address: '2001:db8::7' }] },
  { what: 'locators of both families', locators: [{ address: '192.0.2.7' }, { address: '2001:db8::7' }] },
  { what: 'a locator not to be used (priority 255)', locators: [{ address: '192.0.2.7', priority: 255 }] },
  {
    what: 'weights of 0',
    locators: [
      { address: '192.0.2.7', weight: 0 },
      { address: '192.0.2.8', weight: 0 },
    ],
  },
  { what: 'the highest weight', locators: [{ address: '192.0.2.7', weight: 255 }] },
  { what: 'a priority of 0', locators: [{ address: '192.0.2.7', priority: 0 }] },
  {
    what: 'four locators of two priorities',
    locators: [1, 1, 2, 2].map((priority, at) => ({ address: `192.0.2.${at + 1}`, priority })),
  },
  { what: 'eight locators', locators: Array.from({ length: 8 }, (_, at) => ({ address: `192.0.2.${at + 1}` })) },
  { what: 'sixteen locators', locators: Array.from({ length: 16 }, (_, at) => ({ address: `192.0.2.${at + 1}` })) },
];

function locatorsCheck({ what, locators }: LocatorSet): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 8.3',
    title: `A mapping with ${what} is handed out as registered`,
    sent: `A right Map-Register with ${what}, then a Map-Request.`,
    expected: 'A Map-Reply with exactly these locators, priorities and weights.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const given = locators.map(({ address, priority = 1, weight = 100 }) => ({ address, priority, weight }));
      await stage.etr().register([{ eid, locators: given.map(({ address, ...rest }) => locator(ip(address), rest)) }]);
      const said = (await stage.reply(eid)).records[0]?.locators ?? [];
      const text = (each: { address: string; priority: number; weight: number }): string =>
        `${each.address} p${each.priority} w${each.weight}`;
      const seen = said
        .map(({ address, priority, weight }) => text({ address: address.text, priority, weight }))
        .sort();
      demand(seen.join() === given.map(text).sort().join(), `The Map-Reply has ${seen.join(', ') || 'no locators'}.`);
      return `The Map-Reply has ${seen.join(', ')}.`;
    },
  };
}

interface LocatorForm {
  readonly what: string;
  readonly address: (stage: MapServerStage) => Octets;
}

/** Stimuli: locators in LCAFs, which a Map-Server hands on as they are. */
const LOCATOR_FORMS: readonly LocatorForm[] = [
  { what: 'an AFI list (LCAF 1)', address: () => lcaf(1, join(ip('192.0.2.7'), distinguishedName('host'))) },
  { what: 'an AS number (LCAF 3)', address: () => lcaf(3, join(u32(64500), ip('192.0.2.7'))) },
  {
    what: 'geo coordinates (LCAF 5)',
    address: () => lcaf(5, join(u16(0x8030), u8(1, 2), u16(0x8010), u8(3, 4), u32(0x7fffffff), ip('192.0.2.7'))),
  },
  {
    what: 'NAT traversal (LCAF 7)',
    address: () => lcaf(7, join(u16(4342), u16(4341), ip('192.0.2.7'), ip('192.0.2.1'), ip('10.0.0.7'), NO_ADDRESS)),
  },
  {
    what: 'an explicit path (LCAF 10)',
    address: () => lcaf(10, join(u16(0), ip('192.0.2.7'), u16(1), ip('192.0.2.8'))),
  },
  {
    what: 'a security key (LCAF 11)',
    address: () => lcaf(11, join(u8(1, 0, 5, 0), u16(4), u32(0x01020304), ip('192.0.2.7'))),
  },
  {
    what: 'a replication list (LCAF 13)',
    address: () => lcaf(13, join(u8(0, 0, 0, 1), ip('192.0.2.7'), u8(0, 0, 0, 2), ip('192.0.2.8'))),
  },
  {
    what: 'JSON (LCAF 14)',
    address: () => lcaf(14, join(u16(7), Buffer.from('{"a":1}'), ip('192.0.2.7'))),
  },
  { what: 'a vendor’s own (LCAF 255)', address: () => lcaf(255, join(u8(0, 0x02, 0x43, 0x46), u32(7))) },
];

function locatorFormCheck({ what, address }: LocatorForm): Draft {
  return {
    level: 'interop',
    source: 'RFC 8060',
    title: `A locator with ${what} is handed out unchanged`,
    sent: `A right Map-Register with a plain locator and one that is ${what}, then a Map-Request.`,
    expected: 'A Map-Reply that holds the octets of this locator.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const wanted = address(stage);
      await stage.etr().register([{ eid, locators: [locator(ip('192.0.2.66')), locator(wanted, { priority: 2 })] }]);
      const answer = await stage.reply(eid);
      demand(Buffer.from(answer.octets).includes(Buffer.from(wanted)), `It is not in ${describeAnswer(answer)}.`);
      return 'Its octets are in the Map-Reply.';
    },
  };
}

/** Stimuli: TTLs of records, in minutes. */
const TIMES_TO_LIVE: readonly (readonly [what: string, ttl: number])[] = [
  ['one minute', 1],
  ['three minutes', 3],
  ['a day', 1440],
  ['0xffffffff, as the receiver likes', 0xffff_ffff],
  ['0x7fffffff minutes', 0x7fff_ffff],
];

function timeToLiveCheck([what, ttl]: readonly [string, number]): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: `A record with a TTL of ${what} is registered, and handed out with a TTL that ends`,
    sent: `A right Map-Register whose record has a TTL of ${what}, then a Map-Request.`,
    expected: 'A Map-Reply with locators and a TTL other than 0.',
    run: async (stage) => {
      const { eid } = await registered(stage, { ttl });
      const [first] = (await stage.reply(eid)).records;
      demand(first !== undefined && first.locators.length > 0, 'The Map-Reply is negative.');
      demand(first.ttl !== 0, 'The Map-Reply has a TTL of 0.');
      return `The Map-Reply has a TTL of ${first.ttl} minutes.`;
    },
  };
}

interface Reserved {
  readonly what: string;
  readonly flags?: number;
  readonly record?: Partial<EidRecord>;
  readonly locatorFlags?: number;
}

/** Stimuli: bits that mean nothing here, and with which nothing may be refused. */
const RESERVED: readonly Reserved[] = [
  ...[0x0100_0000, 0x0080_0000, 0x0040_0000, 0x0020_0000, 0x0010_0000, 0x0008_0000, 0x0004_0000, 0x0002_0000].map(
    (flags) => ({ what: `bit ${Math.clz32(flags)} of the Map-Register`, flags }),
  ),
  ...[0x0001_0000, 0x8000, 0x4000].map((flags) => ({ what: `bit ${Math.clz32(flags)} of the Map-Register`, flags })),
  { what: 'the mobile node bit of the Map-Register', flags: REGISTER.m },
  ...[0x800, 0x100, 0x10, 0x1].map((bit) => ({
    what: `bit ${Math.clz32(bit) - 16} of a record’s flags`,
    record: { word: 0x1000 | bit },
  })),
  { what: 'the bits before the map version', record: { version: 0xf000 } },
  { what: 'the unused bits of a locator', locatorFlags: 0xfff8 | 5 },
  { what: 'the p bit of a locator', locatorFlags: 7 },
];

function reservedCheck({ what, flags = 0, record = {}, locatorFlags }: Reserved): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: `Nothing is refused for ${what}`,
    sent: `A Map-Register that is right but for ${what}, set to 1.`,
    expected: 'A Map-Notify.',
    run: async (stage) => {
      const flagged =
        locatorFlags === undefined ? {} : { locators: [locator(ip(stage.subject.local), { flags: locatorFlags })] };
      const { notify } = await registered(stage, { ...record, ...flagged }, PROXY_NOTIFY | flags);
      return `${describeAnswer(notify)}.`;
    },
  };
}

/** Stimuli: how many records a Map-Register has. */
const COUNTS: readonly number[] = [2, 3, 5, 10, 20];

function countCheck(count: number): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: `A Map-Register of ${count} records registers all of them`,
    sent: `A right Map-Register of ${count} records, then a Map-Request for the first and for the last.`,
    expected: `Map-Notify messages that tell all ${count}, then two Map-Replies with locators.`,
    run: async (stage) => {
      const records = Array.from({ length: count }, (_, at) => ({ eid: ip(stage.block.v6(at + 1)) }));
      const { notify } = await stage.etr().register(records);
      demand(notify.records.length === count, `A Map-Notify of ${notify.records.length} records.`);
      for (const each of [records[0], records.at(-1)]) {
        demand(each !== undefined && (await stage.isRegistered(each.eid)), 'One of them is not registered.');
      }
      return `A Map-Notify of ${count} records, and the first and the last are registered.`;
    },
  };
}

export const RECORD_FORMS: readonly Draft[] = [
  ...RECORDS.map(recordCheck),
  ...LOCATOR_SETS.map(locatorsCheck),
  ...LOCATOR_FORMS.map(locatorFormCheck),
  ...TIMES_TO_LIVE.map(timeToLiveCheck),
  ...RESERVED.map(reservedCheck),
  ...COUNTS.map(countCheck),
];
