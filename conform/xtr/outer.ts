/**
 * What an xTR does with outer headers (RFC 9300 5.3, RFC 6040): TTL, ECN, and UDP checksums of zero.
 *
 * How a packet was delivered is said by the EID's host: of a datagram to a port that it does not have, it sends the IP
 * header back. Networks between that clear ECN make these checks fail.
 */
import { type Check, demand, group, NotTried } from '../check.ts';
import type { OuterHeader, RawDatagram } from '../lisp/raw-udp.ts';
import { type InnerHeader, innerHeader, isEchoReply } from './echo.ts';
import type { XtrStage } from './stage.ts';

type Draft = Omit<Check<XtrStage>, 'id'>;

export function outerChecks(): readonly Check<XtrStage>[] {
  return group('XTR-OUT', [...LIFETIMES, ...CONGESTION.map(congestionCheck), ...REST]);
}

const LIFETIMES: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9300 5.3',
    title: 'A packet whose outer TTL is smaller than the inner one is delivered with the smaller one',
    sent: 'A datagram to the EID with TTL 200 in a LISP packet with TTL 90.',
    expected: 'It is delivered with a TTL of 90 or less.',
    run: (stage) => lifetime(stage, 200, { ttl: 90 }, 90),
  },
  {
    level: 'MUST',
    source: 'RFC 9300 5.3',
    title: 'A packet whose outer TTL is larger than the inner one keeps its own',
    sent: 'A datagram to the EID with TTL 40 in a LISP packet with TTL 250.',
    expected: 'It is delivered with a TTL of 40 or less.',
    run: (stage) => lifetime(stage, 40, { ttl: 250 }, 40),
  },
];

async function lifetime(stage: XtrStage, hopLimit: number, outer: Partial<OuterHeader>, most: number): Promise<string> {
  const said = await delivered(stage, { trafficClass: 0, hopLimit }, outer);
  demand(said.hopLimit <= most, `It was delivered with TTL ${said.hopLimit}.`);
  return `It was delivered with TTL ${said.hopLimit}.`;
}

/** RFC 6040 figure 4, as far as it matters: ECN inside, outside, and as delivered. */
const CONGESTION: readonly (readonly [inner: number, outer: number, delivered: number])[] = [
  [2, 3, 3],
  [1, 3, 3],
  [2, 1, 1],
  [2, 0, 2],
  [3, 0, 3],
  [0, 2, 0],
];

function congestionCheck([inner, outer, expected]: (typeof CONGESTION)[number]): Draft {
  return {
    level: 'MUST',
    source: 'RFC 6040 4.2',
    title: `${ECN[inner]} inside and ${ECN[outer]} outside is delivered as ${ECN[expected]}`,
    sent: `A datagram to the EID with ${ECN[inner]} in a LISP packet with ${ECN[outer]}.`,
    expected: `It is delivered with ${ECN[expected]}.`,
    run: async (stage) => {
      const said = await delivered(stage, { trafficClass: inner, hopLimit: 64 }, { tos: outer });
      demand((said.trafficClass & 3) === expected, `It was delivered with ${ECN[said.trafficClass & 3]}.`);
      return `It was delivered with ${ECN[expected]}.`;
    },
  };
}

const REST: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 6040 4.2',
    title: 'Not-ECT inside and CE outside is dropped',
    sent: 'A datagram to the EID with Not-ECT in a LISP packet with CE, then one with Not-ECT in both.',
    expected: 'Only the second is delivered.',
    run: async (stage) => {
      const inner = { trafficClass: 0, hopLimit: 64 };
      await delivered(stage, inner, {});
      const said = await stage.delivered(inner, { tos: CE }, 1);
      await delivered(stage, inner, {});
      demand(said === undefined, 'It was delivered.');
      return 'It was not delivered, and the others were.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9300 5.3',
    title: 'A packet with a UDP checksum of zero is delivered',
    sent: 'A ping to the EID in a LISP packet with a UDP checksum of zero.',
    expected: 'The answer.',
    run: async (stage) => {
      await answered(stage, 0, { checksum: 'zero' });
      return 'The answer came.';
    },
  },
  {
    level: 'SHOULD',
    source: 'RFC 9300 5.3',
    title: 'What the target sends has an outer TTL that is not larger than the inner one',
    sent: 'A ping to the EID.',
    expected: 'The answer with an outer TTL that was copied from the inner one.',
    run: async (stage) => {
      const { ttl, octets } = await answered(stage, 0);
      const { hopLimit } = innerHeader(octets.subarray(LISP_HEADER));
      demand(ttl <= hopLimit, `TTL ${ttl} outside and ${hopLimit} inside.`);
      return `TTL ${ttl} outside and ${hopLimit} inside.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 6040 4.1',
    title: 'What the target sends has the ECN of the inner packet outside',
    sent: 'A ping to the EID with ECT(0), whose answer has it too at most hosts.',
    expected: 'The answer with the same ECN inside and outside.',
    run: async (stage) => {
      const { tos, octets } = await answered(stage, 2);
      const { trafficClass } = innerHeader(octets.subarray(LISP_HEADER));
      const seen = `${ECN[trafficClass & 3]} inside and ${ECN[tos & 3]} outside.`;
      demand((tos & 3) === (trafficClass & 3), seen);
      return seen;
    },
  },
  {
    level: 'SHOULD',
    source: 'RFC 9300 5.3',
    title: 'What the target sends has a UDP checksum of zero',
    sent: 'A ping to the EID.',
    expected: 'The answer with a UDP checksum of zero.',
    run: async (stage) => {
      const { checksum } = await answered(stage, 0);
      demand(checksum === 'zero', 'It is not zero.');
      return 'It is zero.';
    },
  },
];

/** @throws Deviation when it was not delivered @throws NotTried when the host of the EID never says so */
async function delivered(stage: XtrStage, inner: InnerHeader, outer: Partial<OuterHeader>): Promise<InnerHeader> {
  const said = await stage.delivered(inner, outer);
  if (said !== undefined) return said;
  const plain = await stage.delivered({ trafficClass: 0, hopLimit: 64 }, {});
  if (plain === undefined) {
    throw new NotTried(`It needs a host at ${stage.subject.eid} that says which ports it does not have.`);
  }
  demand(false, 'It was not delivered.');
}

/** The LISP packet with the answer to one of three pings. @throws Deviation */
async function answered(stage: XtrStage, trafficClass: number, outer: Partial<OuterHeader> = {}): Promise<RawDatagram> {
  const raw = await stage.rawPort();
  for (let turn = 0; turn < TURNS; turn++) {
    const { octets, serial } = stage.ping({ trafficClass });
    const before = raw.inbox.length;
    await raw.send(octets, stage.subject.target.address, DATA_PORT, outer);
    const came = await raw.wait((each) => (isEchoReply(each.octets, serial) ? each : undefined), 1_000, before);
    if (came !== undefined) return came;
  }
  demand(false, `No answer to ${TURNS} pings.`);
}

const ECN = ['Not-ECT', 'ECT(1)', 'ECT(0)', 'CE'] as const;
const CE = 3;
const LISP_HEADER = 8;
const DATA_PORT = 4341;
const TURNS = 3;
