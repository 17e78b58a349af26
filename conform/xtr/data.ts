/** The data plane of an xTR (RFC 9300 5): LISP headers, instances, and what is inside, by pings to an EID behind it. */
import { type Check, demand, group } from '../check.ts';
import { REQUEST, TYPE } from '../lisp/octets.ts';
import { type Echo, HEADER } from './echo.ts';
import type { XtrStage } from './stage.ts';

type Draft = Omit<Check<XtrStage>, 'id'>;

export function dataChecks(): readonly Check<XtrStage>[] {
  return group('XTR-DAT', [
    ...TAKEN.map(takenCheck),
    ...REFUSED.map(refusedCheck),
    ...CUT.map(cutCheck),
    ...ANSWERS,
    ...LATER.map(takenCheck),
    ...VERSIONED,
  ]);
}

/** Stimuli: headers that an ETR takes, whether it acts on them or not. */
const TAKEN: readonly (readonly [string, string, Partial<Echo>])[] = [
  ['no bits but I', 'RFC 9300 5.3', {}],
  ['N and a nonce', 'RFC 9300 5.3', { flags: HEADER.N, nonce: 0x123456 }],
  ['L and status bits', 'RFC 9300 5.3', { flags: HEADER.L, statusBits: 1 }],
  ['L and all status bits', 'RFC 9300 5.3', { flags: HEADER.L, statusBits: 0xffff_ffff }],
  ['N, L and E', 'RFC 9300 10.1', { flags: HEADER.N | HEADER.L | HEADER.E, nonce: 0xabcdef, statusBits: 1 }],
  ['E without N, which is then ignored', 'RFC 9300 5.3', { flags: HEADER.E }],
  ['status bits without L, which are then ignored', 'RFC 9300 5.3', { statusBits: 0xff }],
  ['a nonce without N, which is then ignored', 'RFC 9300 5.3', { nonce: 0xffffff }],
  ['the reserved bit, which is ignored', 'RFC 9300 5.3', { flags: HEADER.R }],
  ['an inner packet of ECT(0)', 'RFC 6040 4.2', { trafficClass: 2 }],
  ['an inner packet of CE', 'RFC 6040 4.2', { trafficClass: 3 }],
  ['an inner packet with a DSCP', 'RFC 9300 5.3', { trafficClass: 0xb8 }],
  ['an inner packet with a TTL of 255', 'RFC 9300 5.3', { hopLimit: 255 }],
];

/** The same, of later versions of the kit. */
const LATER: typeof TAKEN = [
  ['N and V at once, which is a nonce', 'RFC 9300 5.3', { flags: HEADER.N | HEADER.V, nonce: 0x001001 }],
  ['N, V, L, E and the reserved bit', 'RFC 9300 5.3', { flags: 0xf4, nonce: 0xffffff, statusBits: 0xff }],
];

function takenCheck([what, source, echo]: (typeof TAKEN)[number]): Draft {
  return {
    level: 'MUST',
    source,
    title: `A packet with ${what} is delivered`,
    sent: `A ping to the EID with ${what}.`,
    expected: 'The answer, in a LISP packet to port 4341.',
    run: async (stage) => {
      demand((await stage.echo(echo)) !== undefined, 'No answer to three pings.');
      return 'The answer came.';
    },
  };
}

/** Stimuli: packets that an ETR must not deliver. */
const REFUSED: readonly (readonly [string, string, (stage: XtrStage) => Partial<Echo>])[] = [
  [
    'of another instance',
    'RFC 9300 5.3',
    ({ subject }) => ({ instance: subject.instance === 0 ? 5 : subject.instance ^ 1 }),
  ],
  ['of the largest instance', 'RFC 9300 5.3', () => ({ instance: 0xff_ffff })],
  [
    'to an EID that is not behind it',
    'RFC 9300 5',
    ({ subject, outside }) => ({ destination: foreign(subject.eid, outside) }),
  ],
  ['of IP version 5', 'RFC 9300 5', () => ({ version: 5 })],
  ['of IP version 0', 'RFC 9300 5', () => ({ version: 0 })],
  ['that is shorter than it says', 'RFC 9300 5', () => ({ excess: 400 })],
];

function foreign(eid: string, outside: XtrStage['outside']): string {
  return eid.includes(':') ? outside.v6(1) : outside.v4(1);
}

function refusedCheck([what, source, echo]: (typeof REFUSED)[number]): Draft {
  return {
    level: 'MUST',
    source,
    title: `A packet ${what} is dropped`,
    sent: `A ping ${what}, between right ones.`,
    expected: 'No answer to it, and answers to the others.',
    run: async (stage) => stage.unechoed(echo(stage), `A packet ${what}`),
  };
}

/** Octets that are left. */
const CUT: readonly (readonly [string, number])[] = [
  ['nothing', 0],
  ['one octet', 1],
  ['half of its header', 4],
  ['its header', 8],
  ['one octet of the inner packet', 9],
  ['a part of the inner header', 20],
  ['the inner IP header', 28],
];

function cutCheck([what, length]: (typeof CUT)[number]): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9300 5',
    title: `A LISP packet of which ${what} is left does no harm`,
    sent: `The first ${length} octets of a LISP packet, between right pings.`,
    expected: 'Answers to the right pings.',
    run: async (stage) => stage.unechoed({}, `A packet of ${length} octets`, length),
  };
}

const ANSWERS: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9300 5.3',
    title: 'What the target sends has the instance of the run',
    sent: 'A ping to the EID.',
    expected: 'The answer with I=1 and the instance; without I, or with instance 0, if the run has none.',
    run: async (stage) => {
      const packet = await answered(stage);
      const has = ((packet[0] ?? 0) & HEADER.I) !== 0;
      const instance = has ? ((packet[4] ?? 0) << 16) | ((packet[5] ?? 0) << 8) | (packet[6] ?? 0) : 0;
      demand(instance === stage.subject.instance, `Instance ${instance}.`);
      return `Instance ${instance}.`;
    },
  },
  {
    level: 'SHOULD',
    source: 'RFC 9300 4.1',
    title: 'What the target sends has neither N, L, E nor V',
    sent: 'A ping to the EID, with none of these bits.',
    expected: 'The answer without them, as on the public Internet.',
    run: async (stage) => {
      const first = (await answered(stage))[0] ?? 0;
      demand((first & 0xf0) === 0, `The first octet is ${first.toString(16)}.`);
      return 'None of them.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9300 5.3',
    title: 'What the target sends has no reserved bit',
    sent: 'A ping to the EID.',
    expected: 'The answer with the reserved bit 0.',
    run: async (stage) => {
      const first = (await answered(stage))[0] ?? 0;
      demand((first & HEADER.R) === 0, `The first octet is ${first.toString(16)}.`);
      return 'It is 0.';
    },
  },
];

/**
 * Map-versions (RFC 9302). They are optional: an xTR that says version 0 of its mapping has none, and takes such packets
 * or not, as it likes.
 */
const VERSIONED: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9302 7.1',
    title: 'A packet with V and the map-version that the target says of the EID is delivered',
    sent: 'A Map-Request for the EID, then a ping with V, the version of the answer as destination version and none as source version.',
    expected: 'The answer. Of a target that says version 0: the answer or nothing, and the answer to a right ping.',
    run: async (stage) => {
      const own = await versionOf(stage);
      if (own === 0) return harmlessVersion(stage, 1);
      demand((await stage.echo(versioned(own))) !== undefined, `No answer to three pings with version ${own}.`);
      return `The answer came to one with version ${own}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9302 7.1',
    title: 'A packet with V and a newer map-version than that of the EID is dropped',
    sent: 'The same with a destination version that is newer by one, between right pings.',
    expected: 'No answer to it, and answers to the others. Of a target that says version 0: no harm.',
    run: async (stage) => {
      const own = await versionOf(stage);
      if (own === 0) return harmlessVersion(stage, 2_000);
      return stage.unechoed(versioned(next(own)), `A packet with version ${next(own)} instead of ${own}`);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9302 7.1',
    title: 'Who sends V and an older map-version than that of the EID is told',
    sent: 'The same with a destination version that is older by one.',
    expected: 'An SMR, or another Map-Request, at port 4342 of this machine. Of a target that says version 0: no harm.',
    run: async (stage) => {
      const own = await versionOf(stage);
      if (own === 0) return harmlessVersion(stage, MAX_VERSION);
      // Always in this order (`XtrStage.dataPort`).
      const lisp = await stage.lispPort();
      const before = lisp.inbox.length;
      await stage.echo(versioned(previous(own)));
      const told = await lisp.wait(({ octets }) => isTold(octets) || undefined, TOLD_WITHIN_MS, before);
      demand(told !== undefined, `Nothing came for version ${previous(own)} instead of ${own}.`);
      return 'A Map-Request came.';
    },
  },
];

/** Of the mapping of the EID, as the target says it. */
async function versionOf(stage: XtrStage): Promise<number> {
  return (await stage.reply(stage.request())).records[0]?.version ?? 0;
}

function versioned(destination: number): Partial<Echo> {
  return { flags: HEADER.V, nonce: destination };
}

async function harmlessVersion(stage: XtrStage, version: number): Promise<string> {
  await answered(stage);
  const came = await stage.echo(versioned(version));
  await answered(stage);
  return `The target says no version, ${came === undefined ? 'drops' : 'takes'} such packets, and went on to answer.`;
}

/** 0 is no version. */
function next(version: number): number {
  return version === MAX_VERSION ? 1 : version + 1;
}

function previous(version: number): number {
  return version === 1 ? MAX_VERSION : version - 1;
}

/** A Map-Request that is no RLOC-probe. */
function isTold([first = 0]: Uint8Array): boolean {
  return first >>> 4 === TYPE.mapRequest && (first & (REQUEST.P >>> 24)) === 0;
}

async function answered(stage: XtrStage): Promise<Uint8Array> {
  const packet = await stage.echo();
  demand(packet !== undefined, 'No answer to three pings.');
  return packet;
}

const MAX_VERSION = 0xfff;
const TOLD_WITHIN_MS = 3_000;
