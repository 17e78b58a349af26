/** EDNS (RFC 6891) and TCP (RFC 7766). */
import { type Check, demand, group } from '../check.ts';
import { join, type Octets, u8, u16 } from '../lisp/octets.ts';
import { type DnsAnswer, describeDns, ednsOption, type OptOptions, opt, RCODE, RRTYPE } from './message.ts';
import type { DnsStage, TcpClient } from './stage.ts';

type Draft = Omit<Check<DnsStage>, 'id'>;

export function ednsChecks(): readonly Check<DnsStage>[] {
  return group('DNS-EDNS', EDNS.map(ednsCheck));
}

export function tcpChecks(): readonly Check<DnsStage>[] {
  return group('DNS-TCP', TCP.map(tcpCheck));
}

interface Edns {
  readonly what: string;
  readonly level?: Draft['level'];
  readonly source?: string;
  /** None: no OPT is sent. */
  readonly opt?: OptOptions;
  readonly more?: Octets;
  readonly additional?: number;
  readonly expected: string;
  readonly holds: (answer: DnsAnswer) => boolean;
}

const hasSoa = ({ rcode, answers }: DnsAnswer): boolean => rcode === RCODE.NOERROR && answers.length > 0;

const EDNS: readonly Edns[] = [
  { what: 'no OPT', expected: 'No OPT.', holds: (answer) => hasSoa(answer) && answer.opt === undefined },
  {
    what: 'an OPT',
    opt: {},
    expected: 'One OPT.',
    holds: (answer) => hasSoa(answer) && answer.additionals.filter(({ type }) => type === RRTYPE.OPT).length === 1,
  },
  {
    what: 'an OPT',
    opt: {},
    expected: 'An OPT of version 0.',
    holds: ({ opt: said }) => said !== undefined && ((said.ttl >>> 16) & 0xff) === 0,
  },
  {
    what: 'an OPT',
    opt: {},
    expected: 'An OPT whose own size is at least 512.',
    holds: ({ opt: said }) => (said?.class ?? 0) >= 512,
  },
  {
    what: 'EDNS version 1',
    opt: { version: 1 },
    expected: 'BADVERS and no answers.',
    holds: ({ rcode, answers }) => rcode === RCODE.BADVERS && answers.length === 0,
  },
  {
    what: 'EDNS version 255',
    opt: { version: 255 },
    expected: 'BADVERS and no answers.',
    holds: ({ rcode, answers }) => rcode === RCODE.BADVERS && answers.length === 0,
  },
  ...[0, 100, 512, 1232, 4096, 65535].map((size) => ({
    what: `a UDP size of ${size}`,
    opt: { size },
    expected: `An answer of at most ${Math.max(512, size)} octets.`,
    holds: (answer: DnsAnswer) => hasSoa(answer) && answer.octets.length <= Math.max(512, size),
  })),
  {
    what: 'an unknown option',
    opt: { options: ednsOption(65001, u8(1, 2, 3)) },
    expected: 'The same answer as without.',
    holds: hasSoa,
  },
  {
    what: 'an unknown option',
    opt: { options: ednsOption(65001, u8(1, 2, 3)) },
    expected: 'No such option in the answer.',
    holds: ({ opt: said }) => !Buffer.from(said?.data ?? u8()).includes(Buffer.from(ednsOption(65001, u8(1, 2, 3)))),
  },
  {
    what: 'an empty unknown option',
    opt: { options: ednsOption(65001, u8()) },
    expected: 'The same answer as without.',
    holds: hasSoa,
  },
  {
    what: 'unknown flags',
    opt: { flags: 0x7fff },
    expected: 'An answer whose OPT has none of them.',
    holds: (answer) => hasSoa(answer) && ((answer.opt?.ttl ?? 0) & 0x7fff) === 0,
  },
  {
    what: 'DO=1',
    level: 'SHOULD',
    source: 'RFC 3225 3',
    opt: { flags: 0x8000 },
    expected: 'DO=1.',
    holds: ({ opt: said }) => ((said?.ttl ?? 0) & 0x8000) !== 0,
  },
  {
    what: 'DO=0',
    source: 'RFC 3225 3',
    opt: {},
    expected: 'DO=0.',
    holds: ({ opt: said }) => ((said?.ttl ?? 0) & 0x8000) === 0,
  },
  {
    what: 'a client cookie',
    source: 'RFC 7873 5',
    opt: { options: ednsOption(10, u8(1, 2, 3, 4, 5, 6, 7, 8)) },
    expected: 'An answer.',
    holds: hasSoa,
  },
  {
    what: 'a cookie of 3 octets',
    level: 'SHOULD',
    source: 'RFC 7873 5.2.2',
    opt: { options: ednsOption(10, u8(1, 2, 3)) },
    expected: 'FORMERR, or an answer as if there were none.',
    holds: (answer) => answer.rcode === RCODE.FORMERR || hasSoa(answer),
  },
  { what: 'NSID', source: 'RFC 5001 2', opt: { options: ednsOption(3, u8()) }, expected: 'An answer.', holds: hasSoa },
  {
    what: 'padding',
    source: 'RFC 7830 3',
    opt: { options: ednsOption(12, new Uint8Array(64)) },
    expected: 'An answer.',
    holds: hasSoa,
  },
  {
    what: 'a client subnet',
    source: 'RFC 7871 7',
    opt: { options: ednsOption(8, u8(0, 1, 24, 0, 192, 0, 2)) },
    expected: 'An answer, or REFUSED.',
    holds: (answer) => hasSoa(answer) || answer.rcode === RCODE.REFUSED,
  },
  {
    what: 'two OPT records',
    opt: {},
    more: opt(),
    additional: 2,
    expected: 'FORMERR.',
    holds: ({ rcode }) => rcode === RCODE.FORMERR,
  },
  {
    what: 'an OPT whose owner is not the root',
    level: 'SHOULD',
    opt: { owner: u8(1, 0x61, 0) },
    expected: 'FORMERR.',
    holds: ({ rcode }) => rcode === RCODE.FORMERR,
  },
  {
    what: 'an option that goes beyond its OPT',
    level: 'SHOULD',
    opt: { options: join(u16(10), u16(50), u8(1)) },
    expected: 'FORMERR.',
    holds: ({ rcode }) => rcode === RCODE.FORMERR,
  },
  {
    what: 'fifty options',
    opt: { options: join(...Array.from({ length: 50 }, (_, at) => ednsOption(65001 + at, u8(at)))) },
    expected: 'An answer.',
    holds: hasSoa,
  },
];

function ednsCheck({
  what,
  level = 'MUST',
  source = 'RFC 6891 6',
  opt: options,
  more = u8(),
  additional = 1,
  expected,
  holds,
}: Edns): Draft {
  return {
    level,
    source,
    title: `A question with ${what}: ${expected.replace(/\.$/, '')}`,
    sent: `A question for the SOA of the zone with ${what}.`,
    expected,
    run: async (stage) => {
      const extra = options === undefined ? {} : { more: join(opt(options), more), additional };
      const answer = await stage.ask(extra);
      demand(holds(answer), `${describeDns(answer)}.`);
      return `${describeDns(answer)}, ${answer.octets.length} octets.`;
    },
  };
}

interface Tcp {
  readonly title: string;
  readonly level?: Draft['level'];
  readonly sent: string;
  readonly expected: string;
  readonly run: (stage: DnsStage, client: TcpClient) => Promise<string>;
}

const TCP: readonly Tcp[] = [
  {
    title: 'A question over TCP is answered',
    sent: 'A question for the SOA of the zone over TCP.',
    expected: 'NOERROR with the SOA.',
    run: async (stage, client) => {
      client.send(stage.query());
      const [answer] = await client.take(1);
      demand(answer !== undefined && hasSoa(answer), answer === undefined ? 'None.' : `${describeDns(answer)}.`);
      return `${describeDns(answer)}.`;
    },
  },
  {
    title: 'TCP says the same as UDP',
    sent: 'A question for a name that does not exist, over UDP and over TCP.',
    expected: 'The same RCODE.',
    run: async (stage, client) => {
      const name = stage.absent();
      const overUdp = await stage.ask({ name, type: RRTYPE.A });
      client.send(stage.query({ name, type: RRTYPE.A }));
      const [overTcp] = await client.take(1);
      demand(overTcp?.rcode === overUdp.rcode, `RCODE ${overUdp.rcode} over UDP, ${overTcp?.rcode} over TCP.`);
      return `RCODE ${overUdp.rcode} over both.`;
    },
  },
  {
    title: 'One connection carries several questions, one after the other',
    sent: 'Three questions over one connection, each after the answer to the one before.',
    expected: 'Three answers.',
    run: async (stage, client) => {
      for (let count = 1; count <= 3; count++) {
        client.send(stage.query());
        await client.take(count);
      }
      return 'Three answers.';
    },
  },
  {
    title: 'One connection carries several questions at once',
    sent: 'Ten questions in one segment.',
    expected: 'Ten answers, each with the ID of a question.',
    run: async (stage, client) => {
      const queries = Array.from({ length: 10 }, (_, at) => stage.query({ id: 1000 + at }));
      client.send(...queries);
      const ids = new Set((await client.take(10)).map(({ id }) => id));
      demand(ids.size === 10, `${ids.size} different IDs.`);
      return 'Ten answers with ten IDs.';
    },
  },
  {
    title: 'A question may come octet by octet',
    level: 'SHOULD',
    sent: 'A question over TCP, each octet in a write of its own.',
    expected: 'An answer.',
    run: async (stage, client) => {
      const query = stage.query();
      client.socket.setNoDelay(true);
      for (const octet of join(u16(query.length), query)) {
        client.write(u8(octet));
        await new Promise((resolve) => setImmediate(resolve));
      }
      const [answer] = await client.take(1);
      return `${answer === undefined ? 'None' : describeDns(answer)}.`;
    },
  },
  {
    title: 'The length and the message may come apart',
    sent: 'The length of a question, and after the answer to another question over UDP the question.',
    expected: 'An answer.',
    run: async (stage, client) => {
      const query = stage.query();
      client.write(u16(query.length));
      await stage.ask();
      client.write(query);
      const [answer] = await client.take(1);
      return `${answer === undefined ? 'None' : describeDns(answer)}.`;
    },
  },
  {
    title: 'A client that has said all may close its side',
    level: 'SHOULD',
    sent: 'A question over TCP and the end of the stream behind it.',
    expected: 'An answer.',
    run: async (stage, client) => {
      client.send(stage.query());
      client.socket.end();
      const [answer] = await client.take(1);
      return `${answer === undefined ? 'None' : describeDns(answer)}.`;
    },
  },
  ...(
    [
      ['a message of length 0', u16(0)],
      ['a message of one octet', join(u16(1), u8(7))],
      ['a length of 65,535 and little behind it', join(u16(65_535), u8(1, 2, 3))],
      ['HTTP', new Uint8Array(Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n'))],
    ] as const
  ).map(
    ([what, octets]): Tcp => ({
      title: `After ${what} over TCP the target goes on to answer others`,
      sent: `${what[0]?.toUpperCase()}${what.slice(1)} over TCP, then a question over another connection.`,
      expected: 'An answer over the other connection.',
      run: async (stage, client) => {
        client.write(octets);
        const other = await stage.tcp();
        other.send(stage.query());
        await other.take(1);
        return 'The other connection was answered.';
      },
    }),
  ),
];

function tcpCheck({ title, level = 'MUST', sent, expected, run }: Tcp): Draft {
  return { level, source: 'RFC 7766', title, sent, expected, run: async (stage) => run(stage, await stage.tcp()) };
}
