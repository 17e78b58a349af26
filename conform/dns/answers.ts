/** What a name server says: headers, names that exist and names that do not (RFC 1034, 1035, 2308, 4343, 8020). */
import { type Check, demand, group } from '../check.ts';
import { type DnsAnswer, describeDns, FLAG, RCODE, RRTYPE } from './message.ts';
import type { Asked, DnsStage } from './stage.ts';

type Draft = Omit<Check<DnsStage>, 'id'>;

export function answerChecks(): readonly Check<DnsStage>[] {
  return group('DNS-ANS', [
    ...HEADERS.map(headerCheck),
    ...ZONE,
    ...CASES.map(caseCheck),
    ...ABSENT_TYPES.map(absentCheck),
    ...NEGATIVE,
    ...EMPTY_TYPES.map(emptyCheck),
    ...NAMES,
  ]);
}

interface Header {
  readonly what: string;
  readonly asked?: Asked;
  readonly expected: string;
  readonly level?: Draft['level'];
  readonly holds: (answer: DnsAnswer, stage: DnsStage) => boolean;
}

const HEADERS: readonly Header[] = [
  ...[0, 1, 0x8000, 0xffff].map((id) => ({
    what: `the ID ${id}`,
    asked: { id },
    expected: 'The same ID.',
    holds: (answer: DnsAnswer) => answer.id === id,
  })),
  { what: 'a question', expected: 'QR=1.', holds: ({ flags }) => (flags & FLAG.QR) !== 0 },
  { what: 'a question with opcode 0', expected: 'Opcode 0.', holds: ({ opcode }) => opcode === 0 },
  { what: 'RD=1', asked: { flags: FLAG.RD }, expected: 'RD=1.', holds: ({ flags }) => (flags & FLAG.RD) !== 0 },
  { what: 'RD=0', asked: { flags: 0 }, expected: 'RD=0.', holds: ({ flags }) => (flags & FLAG.RD) === 0 },
  {
    what: 'the reserved bit Z',
    asked: { flags: FLAG.RD | FLAG.Z },
    expected: 'Z=0.',
    holds: ({ flags }) => (flags & FLAG.Z) === 0,
  },
  {
    what: 'CD=1',
    asked: { flags: FLAG.RD | FLAG.CD },
    level: 'SHOULD',
    expected: 'An answer.',
    holds: ({ rcode }) => rcode === RCODE.NOERROR,
  },
  {
    what: 'AD=1',
    asked: { flags: FLAG.RD | FLAG.AD },
    expected: 'An answer.',
    holds: ({ rcode }) => rcode === RCODE.NOERROR,
  },
  {
    what: 'a question',
    expected: 'The same question in the answer.',
    holds: ({ questions: [first, ...more] }, { zone }) =>
      more.length === 0 && first?.type === RRTYPE.SOA && first.class === 1 && sameName(first.name, zone),
  },
  { what: 'a question', expected: 'An answer that is not cut (TC=0).', holds: ({ flags }) => (flags & FLAG.TC) === 0 },
];

function headerCheck({ what, asked = {}, expected, level = 'MUST', holds }: Header): Draft {
  return {
    level,
    source: 'RFC 1035 4.1.1',
    title: `A question with ${what.replace(/^a question( with)? ?/, '') || 'nothing special'}: ${expected.replace(/\.$/, '')}`,
    sent: `${what.startsWith('a ') ? `${what[0]?.toUpperCase()}${what.slice(1)}` : `A question with ${what}`} for the SOA of the zone.`,
    expected,
    run: async (stage) => {
      const answer = await stage.ask(asked);
      demand(holds(answer, stage), `${describeDns(answer)}.`);
      return `${describeDns(answer)}.`;
    },
  };
}

const ZONE: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 1035 3.3.13',
    title: 'The zone has one SOA',
    sent: 'A question for the SOA of the zone.',
    expected: 'NOERROR with one SOA of the zone in the answers.',
    run: async (stage) => {
      const answer = await stage.ask();
      const [first, ...more] = answer.answers.filter(({ type }) => type === RRTYPE.SOA);
      demand(answer.rcode === RCODE.NOERROR && first !== undefined && more.length === 0, `${describeDns(answer)}.`);
      demand(sameName(first.name, stage.zone), `The SOA of ${first.name}`);
      return `${describeDns(answer)}.`;
    },
  },
  {
    level: 'SHOULD',
    source: 'RFC 1034 4.2.1',
    title: 'The zone has name servers',
    sent: 'A question for the NS of the zone.',
    expected: 'NOERROR with NS records.',
    run: async (stage) => {
      const answer = await stage.ask({ type: RRTYPE.NS });
      demand(
        answer.answers.some(({ type }) => type === RRTYPE.NS),
        `${describeDns(answer)}.`,
      );
      return `${describeDns(answer)}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 1035 4.1.1',
    title: 'Who has authority for the zone says so, for names that do not exist as well',
    sent: 'A question for a name that does not exist.',
    expected: 'AA=1.',
    run: async (stage) => {
      await stage.demandAuthority();
      const answer = await stage.ask({ name: stage.absent(), type: RRTYPE.A });
      demand((answer.flags & FLAG.AA) !== 0, `${describeDns(answer)}.`);
      return `${describeDns(answer)}.`;
    },
  },
];

/** Stimuli: ways to write the zone's name. */
const CASES: readonly (readonly [string, (name: string) => string])[] = [
  ['capitals', (name) => name.toUpperCase()],
  ['small letters', (name) => name.toLowerCase()],
  [
    'letters of alternating case',
    (name) => [...name].map((c, at) => (at % 2 === 0 ? c.toUpperCase() : c.toLowerCase())).join(''),
  ],
  ['a capital at its beginning', (name) => `${name[0]?.toUpperCase()}${name.slice(1)}`],
];

function caseCheck([what, write]: (typeof CASES)[number]): Draft {
  return {
    level: 'MUST',
    source: 'RFC 4343 4.1',
    title: `A name in ${what} is the same name, and comes back as it was written`,
    sent: `A question for the SOA of the zone, its name in ${what}.`,
    expected: 'NOERROR with the SOA, and the question letter by letter (what resolvers rely on against forgery).',
    run: async (stage) => {
      const name = write(stage.zone);
      const answer = await stage.ask({ name });
      demand(answer.answers.length > 0, `${describeDns(answer)}.`);
      demand(answer.questions[0]?.name === `${name}.`, `The question came back as ${answer.questions[0]?.name}`);
      return `${describeDns(answer)}.`;
    },
  };
}

const ABSENT_TYPES: readonly (readonly [string, number])[] = [
  ['A', RRTYPE.A],
  ['AAAA', RRTYPE.AAAA],
  ['TXT', RRTYPE.TXT],
  ['SRV', RRTYPE.SRV],
  ['MX', RRTYPE.MX],
  ['SOA', RRTYPE.SOA],
  ['NS', RRTYPE.NS],
  ['ANY', RRTYPE.ANY],
  ['the unassigned type 65280', 65280],
];

function absentCheck([what, type]: (typeof ABSENT_TYPES)[number]): Draft {
  return {
    level: 'MUST',
    source: 'RFC 2308 2.1',
    title: `A name that does not exist is NXDOMAIN, asked for ${what}`,
    sent: `A question for ${what} of a name that does not exist.`,
    expected: 'NXDOMAIN without answers.',
    run: async (stage) => {
      const answer = await stage.ask({ name: stage.absent(), type });
      demand(answer.rcode === RCODE.NXDOMAIN && answer.answers.length === 0, `${describeDns(answer)}.`);
      return `${describeDns(answer)}.`;
    },
  };
}

const NEGATIVE: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 8020 2',
    title: 'Below a name that does not exist nothing exists',
    sent: 'A question for a name two labels below one that does not exist.',
    expected: 'NXDOMAIN.',
    run: async (stage) => {
      const answer = await stage.ask({ name: `a.b.${stage.absent()}`, type: RRTYPE.A });
      demand(answer.rcode === RCODE.NXDOMAIN, `${describeDns(answer)}.`);
      return `${describeDns(answer)}.`;
    },
  },
  ...(['NXDOMAIN', 'NODATA'] as const).flatMap((kind): Draft[] => [
    {
      level: 'MUST',
      source: 'RFC 2308 3',
      title: `${kind} comes with the SOA of the zone, so that it can be kept`,
      sent: `A question that is answered with ${kind}.`,
      expected: 'The SOA of the zone among the authorities, and nothing else.',
      run: async (stage) => {
        const answer = await negative(stage, kind);
        const [soa, ...more] = answer.authorities.filter(({ type }) => type === RRTYPE.SOA);
        demand(soa !== undefined && more.length === 0 && sameName(soa.name, stage.zone), `${describeDns(answer)}.`);
        return `${describeDns(answer)}.`;
      },
    },
    {
      level: 'MUST',
      source: 'RFC 2308 3',
      title: `The SOA of ${kind} has a TTL that is not above its own MINIMUM`,
      sent: `A question that is answered with ${kind}.`,
      expected: 'The TTL of the SOA is at most its last field.',
      run: async (stage) => {
        const answer = await negative(stage, kind);
        const soa = answer.authorities.find(({ type }) => type === RRTYPE.SOA);
        demand(soa !== undefined, `${describeDns(answer)}.`);
        const minimum = Buffer.from(soa.data).readUInt32BE(soa.data.length - 4);
        demand(soa.ttl <= minimum, `A TTL of ${soa.ttl}, and a MINIMUM of ${minimum}.`);
        return `A TTL of ${soa.ttl}, and a MINIMUM of ${minimum}.`;
      },
    },
  ]),
];

/** Stimuli: types that the zone's own name hardly has. */
const EMPTY_TYPES: readonly (readonly [string, number])[] = [
  ['LOC', RRTYPE.LOC],
  ['NAPTR', RRTYPE.NAPTR],
  ['the unassigned type 65280', 65280],
  ['the unassigned type 65534', 65534],
];

function emptyCheck([what, type]: (typeof EMPTY_TYPES)[number]): Draft {
  return {
    level: 'MUST',
    source: 'RFC 2308 2.2',
    title: `A name that exists is NODATA and not NXDOMAIN, asked for ${what}`,
    sent: `A question for ${what} of the zone’s own name.`,
    expected: 'NOERROR without answers.',
    run: async (stage) => {
      const answer = await stage.ask({ type });
      demand(answer.rcode === RCODE.NOERROR && answer.answers.length === 0, `${describeDns(answer)}.`);
      return `${describeDns(answer)}.`;
    },
  };
}

const NAMES: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 1035 3.4.1',
    title: 'A name that has addresses is answered with them',
    sent: 'A question for A of the given name, or for AAAA if there are none.',
    expected: 'NOERROR with records of that name, or with a CNAME and its target.',
    run: async (stage) => `${describeDns(await addresses(stage))}.`,
  },
  {
    level: 'MUST',
    source: 'RFC 2181 8',
    title: 'The TTLs of a name are no negative numbers, and those of one set are equal',
    sent: 'A question for the addresses of the given name.',
    expected: 'TTLs below 2^31, all the same for records of one type.',
    run: async (stage) => {
      const { answers } = await addresses(stage);
      const byType = new Map(answers.map(({ type, ttl }) => [type, ttl]));
      demand(
        answers.every(({ ttl, type }) => ttl < 2 ** 31 && byType.get(type) === ttl),
        'They differ.',
      );
      return `TTLs of ${[...new Set(byType.values())].join(', ')} s.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 2308 2.2',
    title: 'A name that has addresses is not NXDOMAIN for another type',
    sent: 'A question for the unassigned type 65280 of the given name.',
    expected: 'NOERROR.',
    run: async (stage) => {
      const answer = await stage.ask({ name: stage.name, type: 65280 });
      demand(answer.rcode === RCODE.NOERROR, `${describeDns(answer)}.`);
      return `${describeDns(answer)}.`;
    },
  },
  {
    level: 'SHOULD',
    source: 'RFC 8482 4',
    title: 'ANY is answered in a few octets',
    sent: 'A question for ANY of the given name.',
    expected: 'An answer of at most 512 octets, or none that would help a flood.',
    run: async (stage) => {
      const answer = await stage.ask({ name: stage.name, type: RRTYPE.ANY });
      demand(answer.octets.length <= 512, `${answer.octets.length} octets.`);
      return `${describeDns(answer)}, ${answer.octets.length} octets.`;
    },
  },
];

async function negative(stage: DnsStage, kind: 'NXDOMAIN' | 'NODATA'): Promise<DnsAnswer> {
  return kind === 'NODATA' ? stage.ask({ type: 65280 }) : stage.ask({ name: stage.absent(), type: RRTYPE.A });
}

async function addresses(stage: DnsStage): Promise<DnsAnswer> {
  const four = await stage.ask({ name: stage.name, type: RRTYPE.A });
  const answer = four.answers.length > 0 ? four : await stage.ask({ name: stage.name, type: RRTYPE.AAAA });
  demand(answer.rcode === RCODE.NOERROR && answer.answers.length > 0, `${describeDns(answer)}.`);
  return answer;
}

function sameName(one: string, other: string): boolean {
  return one.toLowerCase().replace(/\.$/, '') === other.toLowerCase().replace(/\.$/, '');
}
