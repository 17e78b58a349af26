/** Map-Requests in an ECM (RFC 9301 5.8): those that are answered, and what in an ECM is not. */
import { type Check, demand, group } from '../check.ts';
import type { Answer } from '../lisp/answers.ts';
import { encapsulated, type InnerOptions } from '../lisp/encapsulation.ts';
import { ip, type Octets, REQUEST, TYPE, u8 } from '../lisp/octets.ts';
import { positive } from './requests.ts';
import type { MapServerStage } from './stage.ts';

type Draft = Omit<Check<MapServerStage>, 'id'>;

export function encapsulatedChecks(): readonly Check<MapServerStage>[] {
  return group('MS-ECM', [...ENVELOPES.map(envelopeCheck), ...NOT_FOR_ECM.map(notForEcmCheck)]);
}

interface Envelope {
  readonly what: string;
  readonly level?: Check<MapServerStage>['level'];
  readonly source?: string;
  readonly flags?: number;
  readonly inner?: Partial<InnerOptions>;
  readonly six?: boolean;
}

/** Stimuli: ECMs around a right Map-Request, all of which are to be answered. */
const ENVELOPES: readonly Envelope[] = [
  { what: 'an inner IPv4 header' },
  { what: 'an inner IPv6 header', six: true },
  { what: 'an inner UDP checksum of 0, as lispers.net sends it', level: 'interop', inner: { udpChecksum: 0 } },
  { what: 'an inner hop limit of 1', inner: { hopLimit: 1 } },
  { what: 'an inner hop limit of 255', inner: { hopLimit: 255 } },
  { what: 'the D bit, from a DDT node', source: 'RFC 8111 5', flags: 0x0400_0000 },
  { what: 'the E bit', flags: 0x0200_0000 },
  { what: 'the M bit', flags: 0x0100_0000 },
  ...[0x0080_0000, 0x0040_0000, 0x0020_0000, 0x0001_0000, 0x8000, 1].map((flags) => ({
    what: `the reserved bit ${Math.clz32(flags)}`,
    flags,
  })),
];

function envelopeCheck({
  what,
  level = 'MUST',
  source = 'RFC 9301 5.8',
  flags = 0,
  inner = {},
  six = false,
}: Envelope): Draft {
  return {
    level,
    source,
    title: `A Map-Request in an ECM with ${what} is answered`,
    sent: `An ECM with ${what} around a Map-Request for an EID that was registered with P=1.`,
    expected: 'A Map-Reply, which is not encapsulated, to the ITR-RLOC and the inner source port.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      await stage.etr().register([{ eid }]);
      const answer = await askEncapsulated(stage, eid, { ...envelopeOf(stage, six), ...inner }, flags);
      demand(answer !== undefined, 'No answer.');
      demand(answer.type === TYPE.mapReply, `A message of type ${answer.type}.`);
      return positive(answer);
    },
  };
}

async function askEncapsulated(
  stage: MapServerStage,
  eid: Octets,
  inner: InnerOptions,
  flags: number,
): Promise<Answer | undefined> {
  for (let turn = 0; turn < 3; turn++) {
    const { octets, nonce } = stage.request(eid);
    await stage.port.send(encapsulated(octets, inner, flags));
    const answer = await stage.answer(nonce, Math.max(stage.subject.answerMs, turn * 1000));
    if (answer !== undefined) return answer;
  }
  return undefined;
}

function envelopeOf(stage: MapServerStage, six = false): InnerOptions {
  const { block, subject, port } = stage;
  const ends = six
    ? { source: '2001:db8::1', destination: block.v6(1) }
    : { source: subject.target.family === 4 ? subject.local : '192.0.2.1', destination: block.v4(1) };
  return { ...ends, sourcePort: port.port };
}

interface NotForEcm {
  readonly what: string;
  readonly level?: Check<MapServerStage>['level'];
  readonly octets: (stage: MapServerStage) => Octets;
}

/** Stimuli: ECMs that must not be answered. */
const NOT_FOR_ECM: readonly NotForEcm[] = [
  {
    what: 'an RLOC-probe in an ECM',
    octets: (stage) =>
      encapsulated(stage.request(ip(stage.block.v4(1)), { flags: REQUEST.P }).octets, envelopeOf(stage)),
  },
  {
    what: 'a Map-Reply in an ECM',
    octets: (stage) => encapsulated(u8(0x20, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8), envelopeOf(stage)),
  },
  { what: 'an ECM with nothing in it', octets: () => u8(0x80, 0, 0, 0) },
  {
    what: 'an ECM in an ECM in an ECM',
    octets: (stage) => {
      let octets = stage.request(ip(stage.block.v4(1))).octets;
      for (let depth = 0; depth < 3; depth++) octets = encapsulated(octets, envelopeOf(stage));
      return octets;
    },
  },
  {
    what: 'an ECM around TCP',
    octets: (stage) => encapsulated(stage.request(ip(stage.block.v4(1))).octets, { ...envelopeOf(stage), protocol: 6 }),
  },
  {
    what: 'an ECM whose inner UDP length goes beyond its end',
    octets: (stage) =>
      encapsulated(stage.request(ip(stage.block.v4(1))).octets, {
        ...envelopeOf(stage),
        udpLength: 4000,
        totalLength: 4020,
      }),
  },
  {
    what: 'an ECM whose inner UDP length is less than its header',
    octets: (stage) =>
      encapsulated(stage.request(ip(stage.block.v4(1))).octets, { ...envelopeOf(stage), udpLength: 3 }),
  },
  {
    what: 'an ECM with an inner header of IP version 7',
    octets: (stage) => {
      const octets = encapsulated(stage.request(ip(stage.block.v4(1))).octets, envelopeOf(stage));
      octets[4] = 0x75;
      return octets;
    },
  },
  {
    what: 'an ECM whose security data goes beyond its end',
    octets: () => u8(0x88, 0, 0, 0, 1, 0, 0, 2, 0xff, 0xff, 1, 1, 0, 0),
  },
];

function notForEcmCheck({ what, level = 'MUST', octets }: NotForEcm): Draft {
  return {
    level,
    source: 'RFC 9301 5.8',
    title: `${what[0]?.toUpperCase()}${what.slice(1)} is dropped`,
    sent: `${what[0]?.toUpperCase()}${what.slice(1)}, the EID being registered with P=1.`,
    expected: 'No answer.',
    run: async (stage) => {
      await stage.etr().register([{ eid: ip(stage.block.v4(1)) }]);
      return stage.unanswered(octets(stage), what);
    },
  };
}
