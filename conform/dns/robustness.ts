/** What a name server must refuse or leave unanswered, and what it may not stumble over. */
import { type Check, demand, group } from '../check.ts';
import { altered, join, type Octets, u8, u16 } from '../lisp/octets.ts';
import { encodedName, FLAG, RCODE, RRTYPE, strayRecord } from './message.ts';
import type { DnsStage } from './stage.ts';

type Draft = Omit<Check<DnsStage>, 'id'>;

export function robustnessChecks(): readonly Check<DnsStage>[] {
  return group('DNS-ROB', [...SILENT.map(silentCheck), ...REFUSED.map(refusedCheck), ...HARMLESS.map(harmlessCheck)]);
}

type Stimulus = readonly [what: string, octets: (stage: DnsStage) => Octets];

/** Stimuli: what has no question to answer, or would make two servers answer each other for ever. */
const SILENT: readonly Stimulus[] = [
  ['an empty datagram', () => u8()],
  ['one octet', () => u8(1)],
  ['eleven octets', (stage) => stage.query().subarray(0, 11)],
  ['an answer (QR=1)', (stage) => stage.query({ flags: FLAG.QR | FLAG.RD })],
  ['an answer that says an error', (stage) => stage.query({ flags: FLAG.QR | RCODE.SERVFAIL })],
  ['an answer with an unknown opcode', (stage) => stage.query({ flags: FLAG.QR | (9 << 11) })],
];

function silentCheck([what, octets]: Stimulus): Draft {
  return {
    level: 'MUST',
    source: 'RFC 1035 4.1.1',
    title: `${capital(what)} is not answered`,
    sent: `${capital(what)}.`,
    expected: 'No answer, and the target goes on to answer others.',
    run: (stage) => stage.unanswered(octets(stage), what),
  };
}

interface Refused {
  readonly what: string;
  readonly octets: (stage: DnsStage) => Octets;
  readonly rcodes: readonly (keyof typeof RCODE)[];
  readonly level?: Draft['level'];
  readonly source?: string;
  /** Whether no answer at all will do. */
  readonly silence?: boolean;
}

const { RD } = FLAG;

const REFUSED: readonly Refused[] = [
  ...[1, 3, 6, 7, 9, 15].map((opcode) => ({
    what: `the opcode ${opcode}`,
    octets: (stage: DnsStage) => stage.query({ flags: opcode << 11 }),
    rcodes: ['NOTIMP', 'REFUSED', 'FORMERR'] as const,
    silence: true,
  })),
  {
    what: 'STATUS (opcode 2)',
    octets: (stage) => stage.query({ flags: 2 << 11 }),
    rcodes: ['NOTIMP', 'REFUSED'],
    silence: true,
  },
  {
    what: 'NOTIFY (opcode 4) of a stranger',
    source: 'RFC 1996 3',
    octets: (stage) => stage.query({ flags: (4 << 11) | FLAG.AA }),
    rcodes: ['NOTIMP', 'REFUSED', 'NOTAUTH', 'FORMERR'],
    silence: true,
  },
  {
    what: 'an update (opcode 5) that nobody signed',
    source: 'RFC 2136 3.3',
    octets: (stage) => stage.query({ flags: 5 << 11 }),
    rcodes: ['NOTIMP', 'REFUSED', 'NOTAUTH'],
    silence: true,
  },
  {
    what: 'no question',
    octets: (stage) => stage.query({ counts: [0, 0, 0, 0] }).subarray(0, 12),
    rcodes: ['FORMERR', 'NOTIMP', 'REFUSED'],
    silence: true,
  },
  {
    what: 'two questions',
    source: 'RFC 9619 4',
    octets: (stage) =>
      stage.query({ counts: [2, 0, 0, 0], more: join(encodedName(stage.zone), u16(RRTYPE.A), u16(1)) }),
    rcodes: ['FORMERR', 'NOTIMP', 'REFUSED'],
    silence: true,
  },
  {
    what: 'a question that is announced and missing',
    octets: (stage) => stage.query().subarray(0, 12),
    rcodes: ['FORMERR'],
    silence: true,
  },
  { what: 'a name that is cut', octets: (stage) => stage.query().subarray(0, 15), rcodes: ['FORMERR'], silence: true },
  { what: 'a type that is cut', octets: (stage) => stage.query().subarray(0, -3), rcodes: ['FORMERR'], silence: true },
  { what: 'a class that is cut', octets: (stage) => stage.query().subarray(0, -1), rcodes: ['FORMERR'], silence: true },
  {
    what: 'a name that points to itself',
    octets: (stage) => stage.query({ rawName: u8(0xc0, 0x0c) }),
    rcodes: ['FORMERR', 'SERVFAIL', 'REFUSED'],
    silence: true,
  },
  {
    what: 'a name that points behind itself',
    octets: (stage) => stage.query({ rawName: u8(0xc0, 0x10) }),
    rcodes: ['FORMERR', 'SERVFAIL', 'REFUSED'],
    silence: true,
  },
  {
    what: 'a name that points beyond the message',
    octets: (stage) => stage.query({ rawName: u8(0xff, 0xff) }),
    rcodes: ['FORMERR', 'SERVFAIL', 'REFUSED'],
    silence: true,
  },
  {
    what: 'a name that points in a circle of two',
    octets: (stage) => stage.query({ rawName: u8(0xc0, 0x0e, 0xc0, 0x0c) }),
    rcodes: ['FORMERR', 'SERVFAIL', 'REFUSED'],
    silence: true,
  },
  {
    what: 'a label of the reserved kind 01',
    octets: (stage) => stage.query({ rawName: u8(0x41, 0x61, 0) }),
    rcodes: ['FORMERR', 'SERVFAIL', 'REFUSED', 'NOTIMP'],
    silence: true,
  },
  {
    what: 'a label of the reserved kind 10',
    octets: (stage) => stage.query({ rawName: u8(0x81, 0x61, 0) }),
    rcodes: ['FORMERR', 'SERVFAIL', 'REFUSED', 'NOTIMP'],
    silence: true,
  },
  {
    what: 'a name of 300 octets',
    octets: (stage) =>
      stage.query({ rawName: join(...Array.from({ length: 75 }, () => u8(3, 0x61, 0x61, 0x61)), u8(0)) }),
    rcodes: ['FORMERR', 'SERVFAIL', 'REFUSED', 'NXDOMAIN'],
    silence: true,
  },
  {
    what: 'counts that say 65,535 answers',
    octets: (stage) => stage.query({ counts: [1, 0xffff, 0, 0] }),
    rcodes: ['FORMERR', 'NOTIMP', 'REFUSED'],
    level: 'SHOULD',
    silence: true,
  },
  {
    what: 'counts that say 65,535 additional records',
    octets: (stage) => stage.query({ counts: [1, 0, 0, 0xffff] }),
    rcodes: ['FORMERR', 'NOTIMP', 'REFUSED'],
    level: 'SHOULD',
    silence: true,
  },
  {
    what: 'a zone transfer over UDP',
    source: 'RFC 5936 4.2',
    octets: (stage) => stage.query({ type: 252 }),
    rcodes: ['FORMERR', 'NOTIMP', 'REFUSED', 'NOTAUTH', 'SERVFAIL'],
    silence: true,
  },
  {
    what: 'the type OPT as question',
    level: 'SHOULD',
    octets: (stage) => stage.query({ type: RRTYPE.OPT }),
    rcodes: ['FORMERR', 'NOTIMP', 'REFUSED', 'NOERROR'],
    silence: true,
  },
  {
    what: 'MAILB (type 253), which is no more',
    level: 'SHOULD',
    source: 'RFC 6895 3.1',
    octets: (stage) => stage.query({ type: 253 }),
    rcodes: ['NOTIMP', 'FORMERR', 'REFUSED', 'NOERROR'],
    silence: true,
  },
  {
    what: 'the class 0',
    level: 'SHOULD',
    octets: (stage) => stage.query({ class: 0 }),
    rcodes: ['FORMERR', 'NOTIMP', 'REFUSED', 'NXDOMAIN', 'SERVFAIL'],
    silence: true,
  },
  {
    what: 'the class HS',
    level: 'SHOULD',
    octets: (stage) => stage.query({ class: 4 }),
    rcodes: ['FORMERR', 'NOTIMP', 'REFUSED', 'NXDOMAIN', 'SERVFAIL'],
    silence: true,
  },
  {
    what: 'the unassigned class 1000',
    level: 'SHOULD',
    octets: (stage) => stage.query({ class: 1000 }),
    rcodes: ['FORMERR', 'NOTIMP', 'REFUSED', 'NXDOMAIN', 'SERVFAIL'],
    silence: true,
  },
];

function refusedCheck({
  what,
  octets,
  rcodes,
  level = 'MUST',
  source = 'RFC 1035 4.1.1',
  silence = false,
}: Refused): Draft {
  return {
    level,
    source,
    title: `A message with ${what} is not taken for a right question`,
    sent: `A message with ${what}.`,
    expected: `${rcodes.join(', ')}${silence ? ', or no answer' : ''}; the target goes on to answer others.`,
    run: (stage) =>
      stage.refused(
        octets(stage),
        rcodes.map((name) => RCODE[name]),
        silence,
      ),
  };
}

/** Stimuli: what may be answered or not, if only the target goes on to answer. */
const HARMLESS: readonly Stimulus[] = [
  ['the root as name', (stage) => stage.query({ name: '', type: RRTYPE.NS })],
  [
    'a name with a zero octet',
    (stage) => stage.query({ rawName: join(u8(3, 0x61, 0, 0x62), encodedName(stage.zone)) }),
  ],
  [
    'a name with a dot in a label',
    (stage) => stage.query({ rawName: join(u8(3, 0x61, 0x2e, 0x62), encodedName(stage.zone)) }),
  ],
  [
    'a name with octets above 127',
    (stage) => stage.query({ rawName: join(u8(3, 0xff, 0xfe, 0x80), encodedName(stage.zone)) }),
  ],
  ['a label of 63 octets', (stage) => stage.query({ name: `${'a'.repeat(63)}.${stage.zone}` })],
  [
    'a name of as many labels as fit',
    (stage) => stage.query({ name: `${'a.'.repeat(Math.floor((253 - stage.zone.length) / 2))}${stage.zone}` }),
  ],
  ['octets behind the question', (stage) => join(stage.query(), u8(1, 2, 3, 4, 5))],
  ['an answer in the question', (stage) => stage.query({ counts: [1, 1, 0, 0], more: strayRecord(stage.zone) })],
  ['TC=1', (stage) => stage.query({ flags: RD | FLAG.TC })],
  ['AA=1', (stage) => stage.query({ flags: RD | FLAG.AA })],
  ['RA=1', (stage) => stage.query({ flags: RD | FLAG.RA })],
  ['an RCODE in a question', (stage) => stage.query({ flags: RD | RCODE.REFUSED })],
  ['the class ANY', (stage) => stage.query({ class: 255 })],
  ['the class CH', (stage) => stage.query({ name: 'version.bind', type: RRTYPE.TXT, class: 3 })],
  ['the type 0', (stage) => stage.query({ type: 0 })],
  ['the type 65535', (stage) => stage.query({ type: 65535 })],
  ['IXFR over UDP without a SOA', (stage) => stage.query({ type: 251 })],
  ['4,000 octets of zeros', () => altered(new Uint8Array(4000), (copy) => copy.set([1, 2]))],
  ['4,000 octets of ones', () => altered(new Uint8Array(4000).fill(0xff), (copy) => copy.set([1, 2, 0]))],
];

function harmlessCheck([what, octets]: Stimulus): Draft {
  return {
    level: 'MUST',
    source: 'RFC 1035 4',
    title: `A message with ${what} does no harm`,
    sent: `A message with ${what}.`,
    expected: 'The target goes on to answer others, and sends back less than four times the octets.',
    run: async (stage) => {
      const sent = octets(stage);
      await stage.port.send(sent);
      await stage.ask();
      const octetsBack = stage.port.inbox.slice(0, -1).reduce((sum, each) => sum + each.octets.length, 0);
      demand(octetsBack <= Math.max(512, 4 * sent.length), `${octetsBack} octets for ${sent.length}.`);
      return 'The target went on to answer.';
    },
  };
}

function capital(text: string): string {
  return `${text[0]?.toUpperCase()}${text.slice(1)}`;
}
