/** RLOC-probes and Map-Requests to an ETR (RFC 9301 5, RFC 9300 10), and SMRs to an ITR (RFC 9301 6.1). */
import { setTimeout as sleep } from 'node:timers/promises';
import { type IpAddress, ipToBytes, isIpAddress } from '../../proto/address.ts';
import { type Check, demand, group } from '../check.ts';
import { type Answer, type AnswerRecord, describeAnswer, readAnswer } from '../lisp/answers.ts';
import { decapsulated, encapsulated } from '../lisp/encapsulation.ts';
import { inInstance, ip, NO_ADDRESS, query, REQUEST, TYPE } from '../lisp/octets.ts';
import { type RequestChange, solicitation, type XtrStage } from './stage.ts';

type Draft = Omit<Check<XtrStage>, 'id'>;

export function probeChecks(): readonly Check<XtrStage>[] {
  return group('XTR-PRB', [...JUDGEMENTS.map(probeCheck), ...VARIANTS.map(variantCheck), ...PROBES]);
}

export function requestChecks(): readonly Check<XtrStage>[] {
  return group('XTR-REQ', REQUESTS);
}

export function solicitChecks(): readonly Check<XtrStage>[] {
  return group('XTR-SMR', SOLICITS);
}

type Reply = Answer & { readonly fromPort: number };

interface Judgement {
  readonly level?: Check<XtrStage>['level'];
  readonly source: string;
  readonly title: string;
  readonly expected: string;
  readonly holds: (reply: Reply, stage: XtrStage) => boolean;
}

/** What the answer to a right probe has to be. */
const JUDGEMENTS: readonly Judgement[] = [
  {
    source: 'RFC 9301 5.4',
    title: 'An RLOC-probe for its EID is answered with its nonce',
    expected: 'A Map-Reply with the nonce and one record.',
    holds: ({ records }) => records.length === 1,
  },
  {
    source: 'RFC 9301 5.4',
    title: 'The answer to a probe says that it is one',
    expected: 'A Map-Reply with the P bit.',
    holds: ({ word }) => (word & P_IN_REPLY) !== 0,
  },
  {
    source: 'RFC 9301 5.4',
    title: 'The answer to a probe is authoritative',
    expected: 'A record with A=1.',
    holds: ({ records }) => records[0]?.authoritative === true,
  },
  {
    source: 'RFC 9301 5.4',
    title: 'The answer to a probe marks one locator as probed',
    expected: 'One locator with p=1.',
    holds: ({ records }) => records[0]?.locators.filter(({ probed }) => probed).length === 1,
  },
  {
    level: 'interop',
    source: 'RFC 9301 5.4',
    title: 'The probed locator is the address that was probed',
    expected: 'p=1 at the address of the target, unless a NAT is in front of it.',
    holds: ({ records }, { subject }) =>
      records[0]?.locators.find(({ probed }) => probed)?.address.text === subject.target.address,
  },
  {
    source: 'RFC 9301 5.4',
    title: 'The probed locator is local and reachable',
    expected: 'L=1 and R=1 where p=1.',
    holds: ({ records }) =>
      records[0]?.locators.some(({ probed, local, reachable }) => probed && local && reachable) === true,
  },
  {
    source: 'RFC 9301 5.4',
    title: 'The answer to a probe is about the EID',
    expected: 'A record whose EID-prefix is the probed EID, or holds it.',
    holds: ({ records: [record] }, { subject }) =>
      record !== undefined && record.eid.instance === subject.instance && holdsEid(record, subject.eid),
  },
  {
    source: 'RFC 9301 5.4',
    title: 'The answer to a probe may be kept',
    expected: 'A record with a TTL that is not 0.',
    holds: ({ records }) => (records[0]?.ttl ?? 0) !== 0,
  },
  {
    source: 'RFC 9301 5.4',
    title: 'The answer to a probe comes from port 4342',
    expected: 'A Map-Reply from UDP port 4342.',
    holds: ({ fromPort }, { subject }) => fromPort === subject.target.port,
  },
];

function probeCheck({ level = 'MUST', source, title, expected, holds }: Judgement): Draft {
  return {
    level,
    source,
    title,
    expected,
    sent: 'A Map-Request with P=1 for the EID, from a port of its own.',
    run: async (stage) => {
      const reply = await stage.reply(stage.probe());
      demand(holds(reply, stage), described(reply));
      return described(reply);
    },
  };
}

/** Stimuli: other forms of a probe, which are to be answered all the same. */
const VARIANTS: readonly (readonly [string, (stage: XtrStage) => RequestChange])[] = [
  ['the nonce 0', () => ({ nonce: 0n })],
  ['the nonce of all ones', () => ({ nonce: 0xffff_ffff_ffff_ffffn })],
  ['a source EID', (stage) => ({ sourceEid: stage.eid(stage.outside.v4(1)) })],
  ['a source EID of no family', () => ({ sourceEid: NO_ADDRESS })],
  ['two ITR-RLOCs', ({ subject }) => ({ itrRlocs: [ip(subject.local), ip('192.0.2.7')] })],
  ['an ITR-RLOC of either family', ({ subject }) => ({ itrRlocs: [ip('2001:db8::7'), ip(subject.local)] })],
  ['all reserved bits of the header', () => ({ flags: REQUEST.P | 0x000f_8000 })],
  ['the bit of a PITR', () => ({ flags: REQUEST.P | REQUEST.p })],
  ['reserved bits of the record', () => ({ recordFlags: 0x7f })],
  ['two records', (stage) => ({ moreRecords: [query(stage.eid(stage.outside.v4(2)))] })],
];

function variantCheck([what, change]: (typeof VARIANTS)[number]): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 5.2',
    title: `An RLOC-probe with ${what} is answered`,
    sent: `A Map-Request with P=1 for the EID, with ${what}.`,
    expected: 'A Map-Reply with the nonce and the P bit.',
    run: async (stage) => {
      const reply = await stage.reply(stage.probe(change(stage)));
      demand((reply.word & P_IN_REPLY) !== 0, described(reply));
      return described(reply);
    },
  };
}

const PROBES: readonly Draft[] = [
  foreign('An EID that is not behind the target', (stage) => stage.eid(stage.outside.v4(1))),
  foreign('An IPv6 EID that is not behind the target', (stage) => stage.eid(stage.outside.v6(1))),
  foreign('The EID in another instance', ({ subject }) => inInstance(subject.instance ^ 0x5a_5a5a, ip(subject.eid))),
  {
    level: 'MUST',
    source: 'RFC 9301 9',
    title: 'After 40 probes in a row the target goes on to answer',
    sent: '40 RLOC-probes for the EID, as fast as the bound of the run allows.',
    expected: 'The target goes on to answer, and sends back less than four times the octets that it was sent.',
    run: async (stage) => {
      let sent = 0;
      for (let at = 0; at < 40; at++) {
        const { octets } = stage.probe();
        sent += octets.length;
        await stage.port.send(octets);
      }
      const received = stage.port.inbox.reduce((sum, { octets }) => sum + octets.length, 0);
      demand(received <= 4 * sent, `${received} octets for ${sent}.`);
      await stage.fence();
      return `${received} octets came back for ${sent}, and the target went on to answer.`;
    },
  },
];

/** Nobody else's EIDs are vouched for. */
function foreign(what: string, eid: (stage: XtrStage) => ReturnType<typeof ip>): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: `${what} is not vouched for`,
    sent: `A Map-Request with P=1. ${what}.`,
    expected: 'No answer, or one without locators.',
    run: async (stage) => {
      const { octets, nonce } = stage.probe({ eid: eid(stage) });
      await stage.port.send(octets);
      await stage.fence();
      const answer = await stage.port.wait((each) => answerTo(each.octets, nonce), 0);
      demand((answer?.records[0]?.locators.length ?? 0) === 0, answer === undefined ? '' : described(answer));
      return answer === undefined ? 'No answer.' : described(answer);
    },
  };
}

const REQUESTS: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'A Map-Request for its EID is answered with locators',
    sent: 'A Map-Request for the EID.',
    expected: 'A Map-Reply with the nonce and at least one locator.',
    run: async (stage) => {
      const reply = await stage.reply(stage.request());
      demand((reply.records[0]?.locators.length ?? 0) > 0, described(reply));
      return described(reply);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'The answer to a Map-Request that is no probe does not say that it is one',
    sent: 'A Map-Request for the EID.',
    expected: 'A Map-Reply with P=0, and no locator with p=1.',
    run: async (stage) => {
      const reply = await stage.reply(stage.request());
      const marked = reply.records.some(({ locators }) => locators.some(({ probed }) => probed));
      demand((reply.word & P_IN_REPLY) === 0 && !marked, described(reply));
      return described(reply);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 8.3',
    title: 'A Map-Request in an ECM, as Map-Servers pass it on, is answered',
    sent: 'A Map-Request for the EID in an ECM.',
    expected: 'A Map-Reply, not in an ECM, at the inner source port.',
    run: async (stage) => {
      const { octets, nonce } = stage.request();
      const { local, eid } = stage.subject;
      const source =
        eid.includes(':') === local.includes(':') ? local : eid.includes(':') ? '2001:db8::7' : '192.0.2.7';
      const inner = { source, destination: eid, sourcePort: stage.port.port };
      return described(await stage.reply({ octets: encapsulated(octets, inner), nonce }));
    },
  },
  {
    level: 'SHOULD',
    source: 'RFC 9301 5.2',
    title: 'A Map-Request with D=1 is not answered',
    sent: 'A Map-Request for the EID with D=1.',
    expected: 'No answer.',
    run: async (stage) => stage.unanswered(stage.request({ flags: REQUEST.D }).octets, 'a Map-Request with D=1'),
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.2',
    title: 'A Map-Request without a usable ITR-RLOC is not answered',
    sent: 'A Map-Request for the EID whose only ITR-RLOC has AFI 0.',
    expected: 'No answer.',
    run: async (stage) => {
      return stage.unanswered(stage.request({ itrRlocs: [NO_ADDRESS] }).octets, 'a Map-Request without an ITR-RLOC');
    },
  },
];

const SOLICITS: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9301 6.1',
    title: 'An SMR is not followed by a Map-Request to its source',
    sent: 'An SMR for an EID that the target may have in its map-cache.',
    expected: 'No Map-Request comes to the source of the SMR, but in an ECM of the mapping system.',
    run: async (stage) => {
      const lisp = await stage.lispPort();
      await lisp.send(solicitation(stage, stage.subject.ownEid ?? stage.outside.v4(1)));
      await stage.fence();
      // A probe or a solicitation of its own is no answer to ours.
      const isQuestion = (first: number): boolean => first >>> 4 === TYPE.mapRequest && (first & 0x01) === 0;
      const direct = lisp.inbox.filter(({ octets: [first = 0] }) => isQuestion(first) && !isProbe(first));
      demand(direct.length === 0, 'A Map-Request came directly.');
      return 'None came directly.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 6.1',
    title: 'An SMR for an EID that the target does not know does no harm',
    sent: 'An SMR for an EID that nobody has.',
    expected: 'No answer, and the target goes on to answer.',
    run: async (stage) => stage.unanswered(solicitation(stage, stage.outside.v4(1)), 'the SMR'),
  },
  {
    level: 'MUST',
    source: 'RFC 9301 6.1',
    title: 'An SMR is followed by a Map-Request with s=1 through the mapping system',
    sent: 'A ping from the own EID, then an SMR for it, with this machine as the Map-Server of the target.',
    expected: 'An ECM with a Map-Request for the EID that has s=1 and S=0.',
    run: async (stage) => {
      const [first] = await solicitedRequests(stage, 1);
      demand(first !== undefined, 'No Map-Request came.');
      demand((first.word & REQUEST.s) !== 0 && (first.word & REQUEST.S) === 0, 'Its S or s bit is wrong.');
      return 'It came with s=1.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 6.1',
    title: 'SMRs in a row lead to one Map-Request',
    sent: 'Five SMRs for one EID in a row, with this machine as the Map-Server of the target.',
    expected: 'One Map-Request, or repetitions of it, within 3 s.',
    run: async (stage) => {
      const nonces = new Set((await solicitedRequests(stage, 5)).map(({ nonce }) => nonce));
      demand(nonces.size === 1, `${nonces.size} Map-Requests.`);
      return 'One.';
    },
  },
];

/** Map-Requests in ECMs for the own EID, after so many SMRs. */
async function solicitedRequests(stage: XtrStage, count: number): Promise<Answer[]> {
  stage.demandMapServerHere();
  const lisp = await stage.lispPort();
  // So that it is in the map-cache; and other checks may have solicited it.
  await stage.echo();
  await sleep(SMR_INTERVAL);
  const before = lisp.inbox.length;
  for (let at = 0; at < count; at++) await lisp.send(solicitation(stage, stage.ownEid));
  await stage.fence();
  await lisp.wait(({ octets }) => isEcm(octets), stage.subject.answerMs, before);
  const asked = lisp.inbox.slice(before).filter(({ octets }) => isEcm(octets) === true);
  return asked
    .map(({ octets }) => readAnswer(decapsulated(octets).message))
    .filter(({ type, records }) => type === TYPE.mapRequest && records[0]?.eid.text === stage.ownEid);
}

function isEcm(octets: Uint8Array): true | undefined {
  return (octets[0] ?? 0) >>> 4 === TYPE.ecm ? true : undefined;
}

/** By the first octet. RLOC-probes go to RLOCs directly, whatever is solicited. */
function isProbe(first: number): boolean {
  return (first & (REQUEST.P >>> 24)) !== 0;
}

/** Whether an EID is in the prefix of a record. */
function holdsEid({ eid, maskLength }: AnswerRecord, address: string): boolean {
  if (!isIpAddress(eid.text) || !isIpAddress(address)) return false;
  const [network, asked] = [eid.text, address].map((text) => ipToBytes(text as IpAddress));
  if (network === undefined || asked?.length !== network.length || maskLength > network.length * 8) return false;
  const differs = network.map((octet, at) => octet ^ (asked[at] ?? 0));
  return differs.every((bits, at) => bits >>> (8 - Math.min(8, Math.max(0, maskLength - 8 * at))) === 0);
}

function answerTo(octets: Uint8Array, nonce: bigint): Answer | undefined {
  const answer = isEcm(octets) ? undefined : readAnswer(octets);
  return answer?.nonce === nonce ? answer : undefined;
}

function described(answer: Answer): string {
  const probe = (answer.word & P_IN_REPLY) === 0 ? '' : ', P=1';
  return `${describeAnswer(answer)}${probe}.`;
}

const P_IN_REPLY = 0x0800_0000;
/** Longer than xTRs may leave unheeded what they were solicited for (3 s). */
const SMR_INTERVAL = 3_500;
