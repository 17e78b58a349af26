/** Map-Requests and their answers (RFC 9301 5.2 to 5.4, 8.3); those in an ECM are in `encapsulated-requests.ts`. */
import { type Check, demand, group } from '../check.ts';
import { type Answer, describeAnswer, readAnswer } from '../lisp/answers.ts';
import { decapsulated } from '../lisp/encapsulation.ts';
import {
  distinguishedName,
  inInstance,
  ip,
  locator,
  NO_ADDRESS,
  type Octets,
  REGISTER,
  REQUEST,
  record,
  TYPE,
  u8,
} from '../lisp/octets.ts';
import type { MapServerStage, RequestChange } from './stage.ts';

type Draft = Omit<Check<MapServerStage>, 'id'>;

export function requestChecks(): readonly Check<MapServerStage>[] {
  return group('MS-REQ', [
    ...REPLY,
    ...FORMS.map(formCheck),
    ...NONCES.map(nonceCheck),
    ...UNANSWERED.map(unansweredCheck),
    ...FORWARDED,
  ]);
}

/** A Map-Reply for an EID that is registered with P=1. */
async function replied(stage: MapServerStage, change: RequestChange = {}): Promise<Answer> {
  const eid = ip(stage.block.v4(1));
  await stage.etr().register([{ eid }]);
  return stage.reply(eid, change);
}

/** What it says, if it is one. @throws Deviation */
export function positive(answer: Answer): string {
  demand((answer.records[0]?.locators.length ?? 0) > 0, describeAnswer(answer));
  return `${describeAnswer(answer)}.`;
}

const REPLY: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9301 8.3',
    title: 'A Map-Request for an EID that was registered with P=1 is answered',
    sent: 'A right Map-Register with P=1, then a Map-Request.',
    expected: 'A Map-Reply with the nonce of the Map-Request and the locator.',
    run: async (stage) => positive(await replied(stage)),
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'A proxy reply is not authoritative',
    sent: 'A Map-Request for an EID that was registered with P=1 and A=1.',
    expected: 'A Map-Reply whose record has A=0.',
    run: async (stage) => {
      const { records } = await replied(stage);
      demand(records[0]?.authoritative === false, 'A=1.');
      return 'A=0.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'In a proxy reply no locator is local',
    sent: 'A Map-Request for an EID that was registered with P=1, the locator with L=1.',
    expected: 'A Map-Reply whose locators have L=0.',
    run: async (stage) => {
      const { records } = await replied(stage);
      demand(records[0]?.locators.every(({ local }) => !local) === true, 'L=1.');
      return 'L=0.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'A proxy reply is no reply to a probe',
    sent: 'A Map-Request for an EID that was registered with P=1.',
    expected: 'A Map-Reply with P=0, no locator of which has p=1.',
    run: async (stage) => {
      const { word, records } = await replied(stage);
      demand((word & 0x0800_0000) === 0, 'P=1.');
      demand(records[0]?.locators.every(({ probed }) => !probed) === true, 'A locator has p=1.');
      return 'P=0 and p=0.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'A reachable locator is told as reachable',
    sent: 'A Map-Request for an EID that was registered with a locator with R=1.',
    expected: 'A Map-Reply whose locator has R=1.',
    run: async (stage) => {
      const { records } = await replied(stage);
      demand(records[0]?.locators.every(({ reachable }) => reachable) === true, 'R=0.');
      return 'R=1.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'A locator that was registered as not reachable is not told as reachable',
    sent: 'A Map-Request for an EID with two locators, one of them with R=0.',
    expected: 'A Map-Reply in which that one has R=0 or is missing.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const locators = [locator(ip('192.0.2.7')), locator(ip('192.0.2.8'), { flags: 4 })];
      await stage.etr().register([{ eid, locators }]);
      const answer = await stage.reply(eid);
      const said = answer.records[0]?.locators.find(({ address }) => address.text === '192.0.2.8');
      demand(said?.reachable !== true, 'R=1.');
      return said === undefined ? 'It is missing.' : 'R=0.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'The prefix in a reply is the one that was registered',
    sent: 'A Map-Request for one address of a registered /30.',
    expected: 'A Map-Reply with the /30.',
    run: async (stage) => {
      await stage.etr().register([{ eid: ip(stage.block.v4(0)), maskLength: 30 }]);
      const answer = await stage.reply(ip(stage.block.v4(2)));
      const [first] = answer.records;
      demand(first?.maskLength === 30 && first.eid.text === stage.block.v4(0), describeAnswer(answer));
      return `${describeAnswer(answer)}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'The longest registered prefix answers',
    sent: 'A Map-Request for a host that is registered beside the /30 around it.',
    expected: 'A Map-Reply whose record for the host has the locator of the host.',
    run: async (stage) => {
      const host = ip(stage.block.v4(1));
      await overlapping(stage);
      const answer = await stage.reply(host);
      const said = answer.records.find(({ maskLength }) => maskLength === 32);
      demand(said?.locators[0]?.address.text === '192.0.2.8', describeAnswer(answer));
      return `${describeAnswer(answer)}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.5',
    title: 'A reply for a prefix tells the longer prefixes in it',
    sent: 'A Map-Request for a host of a registered /30 in which another host is registered by itself.',
    expected: 'A Map-Reply with the /30 and with that host, or with a prefix that leaves that host out.',
    run: async (stage) => {
      await overlapping(stage);
      const answer = await stage.reply(ip(stage.block.v4(2)));
      const whole = answer.records.some(({ maskLength }) => maskLength === 30);
      const host = answer.records.some(({ maskLength }) => maskLength === 32);
      demand(!whole || host, describeAnswer(answer));
      return `${describeAnswer(answer)}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.5',
    title: 'Overlapping prefixes in one reply have one TTL',
    sent: 'A Map-Request for a host of a registered /30 in which another host is registered with another TTL.',
    expected: 'A Map-Reply all records of which have the same TTL.',
    run: async (stage) => {
      await overlapping(stage);
      const answer = await stage.reply(ip(stage.block.v4(2)));
      demand(new Set(answer.records.map(({ ttl }) => ttl)).size === 1, describeAnswer(answer));
      return `${describeAnswer(answer)}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'Locators are sorted by address, IPv4 first',
    sent: 'A Map-Request for an EID that was registered with four locators in no order.',
    expected: 'A Map-Reply with the locators in ascending order, those of IPv4 first.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const order = ['192.0.2.9', '192.0.2.30', '2001:db8::1', '2001:db8::20'];
      const locators = [3, 1, 2, 0].map((at) => locator(ip(order[at] ?? '')));
      await stage.etr().register([{ eid, locators }]);
      const said = (await stage.reply(eid)).records[0]?.locators.map(({ address }) => address.text).join(' ');
      demand(said === order.join(' '), `${said}.`);
      return `${said}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.3',
    title: 'Mapping data in a Map-Request is not believed',
    sent: 'A Map-Request with M=1 that carries a mapping for an EID that nobody has, then a Map-Request for that EID.',
    expected: 'A negative Map-Reply to the second.',
    run: async (stage) => {
      const victim = ip(stage.block.v4(3));
      const mapData = record(victim, { ttl: 60, locators: [locator(ip('192.0.2.66'))] });
      await stage.port.send(
        stage.request(ip(stage.block.v4(1)), { flags: REQUEST.M, sourceEid: victim, mapData }).octets,
      );
      await stage.fence();
      demand(!(await stage.isRegistered(victim)), 'It is answered with the locator of the Map-Request.');
      return 'It is answered negatively.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 6.1',
    title: 'A solicit-map-request changes nothing at a Map-Server',
    sent: 'A Map-Request with S=1 for a registered EID, then a plain one.',
    expected: 'A Map-Reply with the registered locator to the second.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      await stage.etr().register([{ eid, locators: [locator(ip('192.0.2.7'))] }]);
      await stage.port.send(stage.request(eid, { flags: REQUEST.S, sourceEid: eid }).octets);
      await stage.fence();
      const answer = await stage.reply(eid);
      demand(answer.records[0]?.locators[0]?.address.text === '192.0.2.7', describeAnswer(answer));
      return `${describeAnswer(answer)}.`;
    },
  },
];

async function overlapping(stage: MapServerStage): Promise<void> {
  await stage.etr().register([
    { eid: ip(stage.block.v4(0)), maskLength: 30, ttl: 10, locators: [locator(ip('192.0.2.7'))] },
    { eid: ip(stage.block.v4(1)), ttl: 5, locators: [locator(ip('192.0.2.8'))] },
  ]);
}

interface Form {
  readonly what: string;
  readonly level?: Check<MapServerStage>['level'];
  readonly source?: string;
  readonly change: (stage: MapServerStage) => RequestChange;
}

/** Stimuli: Map-Requests that are to be answered like a plain one. */
const FORMS: readonly Form[] = [
  { what: 'an IPv4 source EID', change: ({ block }) => ({ sourceEid: ip(block.v4(5)) }) },
  { what: 'an IPv6 source EID', change: ({ block }) => ({ sourceEid: ip(block.v6(5)) }) },
  {
    what: 'a source EID in an instance',
    source: 'RFC 8060 4.1',
    change: ({ block }) => ({ sourceEid: inInstance(0, ip(block.v4(5))) }),
  },
  {
    what: 'a name as source EID',
    level: 'interop',
    source: 'RFC 9735',
    change: () => ({ sourceEid: distinguishedName('host') }),
  },
  {
    what: 'a MAC address as source EID',
    level: 'interop',
    source: 'RFC 8060 4.1',
    change: () => ({ sourceEid: u8(0, 6, 2, 0, 0, 0, 0, 1) }),
  },
  ...[2, 3, 8, 32].map((count) => ({
    what: `${count} ITR-RLOCs`,
    change: ({ subject }: MapServerStage) => ({
      itrRlocs: Array.from({ length: count }, (_, at) => ip(at === 0 ? subject.local : `192.0.2.${at}`)),
    }),
  })),
  {
    what: 'an ITR-RLOC of the other family behind the right one',
    change: ({ subject }) => ({
      itrRlocs: [ip(subject.local), ip(subject.target.family === 4 ? '2001:db8::1' : '192.0.2.1')],
    }),
  },
  { what: 'the A bit', change: () => ({ flags: REQUEST.A }) },
  { what: 'the p bit of a proxy ITR', change: () => ({ flags: REQUEST.p }) },
  { what: 'the s bit, invoked by an SMR', change: () => ({ flags: REQUEST.s }) },
  { what: 'the mobile node bit', level: 'interop', source: 'draft-ietf-lisp-mn', change: () => ({ flags: REQUEST.m }) },
  { what: 'the L bit of a local xTR', change: () => ({ flags: REQUEST.L }) },
  ...[0x0008_0000, 0x0004_0000, 0x0002_0000, 0x0001_0000, 0x8000].map((flags) => ({
    what: `the reserved bit ${Math.clz32(flags)}`,
    change: () => ({ flags }),
  })),
  ...[0x40, 0x10, 0x01].map((recordFlags) => ({
    what: `the reserved bit ${Math.clz32(recordFlags) - 24} of its record`,
    change: () => ({ recordFlags }),
  })),
  {
    what: 'an xTR-ID and no wish to subscribe',
    source: 'RFC 9437 4',
    change: () => ({ flags: REQUEST.I, trailer: new Uint8Array(24).fill(7) }),
  },
  {
    what: 'mapping data of its sender',
    change: ({ block }) => ({
      flags: REQUEST.M,
      sourceEid: ip(block.v4(5)),
      mapData: record(ip(block.v4(5)), { locators: [locator(ip('192.0.2.9'))] }),
    }),
  },
  {
    what: 'octets behind its end',
    level: 'interop',
    source: 'RFC 9301 5',
    change: () => ({ trailer: u8(1, 2, 3, 4) }),
  },
];

function formCheck({ what, level = 'MUST', source = 'RFC 9301 5.2', change }: Form): Draft {
  return {
    level,
    source,
    title: `A Map-Request with ${what} is answered`,
    sent: `A Map-Request with ${what} for an EID that was registered with P=1.`,
    expected: 'A Map-Reply with the locator.',
    run: async (stage) => positive(await replied(stage, change(stage))),
  };
}

const NONCES: readonly bigint[] = [0n, 1n, 0x8000_0000_0000_0000n, 0xffff_ffff_ffff_ffffn];

function nonceCheck(nonce: bigint): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: `The nonce ${nonce.toString(16)} comes back as it was sent`,
    sent: `A Map-Request with the nonce ${nonce.toString(16)}.`,
    expected: 'A Map-Reply with this nonce.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      await stage.etr().register([{ eid }]);
      const { octets } = stage.request(eid);
      new DataView(octets.buffer).setBigUint64(4, nonce);
      await stage.port.send(octets);
      const answer = await stage.answer(nonce, stage.subject.answerMs * 3);
      demand(answer !== undefined, 'No answer with this nonce.');
      return positive(answer);
    },
  };
}

interface Unanswered {
  readonly what: string;
  readonly source?: string;
  readonly level?: Check<MapServerStage>['level'];
  readonly change?: (stage: MapServerStage) => RequestChange;
  /** Instead of the registered one. */
  readonly eid?: Octets;
}

/** Stimuli: Map-Requests for a registered EID that a Map-Server must not answer. */
const UNANSWERED: readonly Unanswered[] = [
  { what: 'a Map-Request that probes an RLOC', source: 'RFC 9301 7.1', change: () => ({ flags: REQUEST.P }) },
  { what: 'a Map-Request that wants no answer (D=1)', level: 'SHOULD', change: () => ({ flags: REQUEST.D }) },
  { what: 'a Map-Request without a usable ITR-RLOC', change: () => ({ itrRlocs: [NO_ADDRESS] }) },
  { what: 'a Map-Request without records', change: () => ({ recordCount: 0 }) },
  {
    what: 'a Map-Request with a source EID of an unknown AFI',
    source: 'RFC 9301 5',
    change: () => ({ sourceEid: u8(0x7f, 0xff, 1, 2, 3, 4) }),
  },
  { what: 'a Map-Request for an EID of an unknown AFI', source: 'RFC 9301 5', eid: u8(0x7f, 0xff, 1, 2, 3, 4) },
];

function unansweredCheck({ what, source = 'RFC 9301 5.2', level = 'MUST', change, eid: other }: Unanswered): Draft {
  return {
    level,
    source,
    title: `${what[0]?.toUpperCase()}${what.slice(1)} is dropped`,
    sent: `${what[0]?.toUpperCase()}${what.slice(1)}, for an EID that was registered with P=1.`,
    expected: 'No answer.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      await stage.etr().register([{ eid }]);
      return stage.unanswered(stage.request(other ?? eid, change?.(stage)).octets, what);
    },
  };
}

/** Where the EID is registered without P, the ETR answers: the kit listens on its port 4342 for what is sent on to it. */
const FORWARDED: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9301 8.3',
    title: 'A Map-Request for an EID that was registered without P goes on to its ETR',
    sent: 'A right Map-Register with P=0, then a Map-Request.',
    expected: 'An ECM with this Map-Request to port 4342 of the locator.',
    run: async (stage) => {
      const { message, destinationPort } = await forwarded(stage);
      demand(destinationPort === 4342, `The inner destination port is ${destinationPort}.`);
      return `${describeAnswer(message)} came in an ECM.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 8.3',
    title: 'A Map-Request that goes on to its ETR keeps its nonce and its ITR-RLOC',
    sent: 'A right Map-Register with P=0, then a Map-Request.',
    expected: 'An ECM whose Map-Request has the nonce and the ITR-RLOC of the one that was sent.',
    run: async (stage) => {
      const { message, nonce } = await forwarded(stage);
      demand(message.nonce === nonce, 'It has another nonce.');
      demand(
        message.itrRlocs.some(({ text }) => text === stage.subject.local),
        'It has another ITR-RLOC.',
      );
      return 'Both are kept.';
    },
  },
];

async function forwarded(stage: MapServerStage) {
  const etrPort = await stage.lispPort();
  const eid = ip(stage.block.v4(1));
  await stage.etr().register([{ eid }], { flags: REGISTER.M });
  const { octets, nonce } = stage.request(eid);
  let ecm: Octets | undefined;
  for (let turn = 0; turn < FORWARD_TURNS && ecm === undefined; turn++) {
    await stage.port.send(octets);
    ecm = await etrPort.wait(
      (datagram) => {
        if ((datagram.octets[0] ?? 0) >>> 4 !== TYPE.ecm) return undefined;
        const asked = readAnswer(decapsulated(datagram.octets).message).records[0]?.eid.text;
        return asked === stage.block.v4(1) ? datagram.octets : undefined;
      },
      Math.max(stage.subject.answerMs, turn * 1_000),
    );
  }
  demand(ecm !== undefined, 'No ECM came to port 4342.');
  const { message, destinationPort } = decapsulated(ecm);
  return { message: readAnswer(message), destinationPort, nonce };
}

const FORWARD_TURNS = 3;
