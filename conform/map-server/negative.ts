/** What is said of EIDs that nobody has registered (RFC 9301 8.1 and 8.3). */
import { type IpAddress, type IpPrefix, ipPrefix, prefixContains } from '../../proto/address.ts';
import { type Check, demand, group } from '../check.ts';
import { type Answer, type AnswerRecord, describeAnswer } from '../lisp/answers.ts';
import { ip } from '../lisp/octets.ts';
import type { MapServerStage } from './stage.ts';

type Draft = Omit<Check<MapServerStage>, 'id'>;

export function negativeChecks(): readonly Check<MapServerStage>[] {
  return group('MS-NEG', [...(['v4', 'v6'] as const).flatMap((family) => familyChecks(family)), ...HOLES]);
}

type Asked = readonly [what: string, eid: (stage: MapServerStage) => IpAddress, ttl: number];

function familyChecks(family: 'v4' | 'v6'): readonly Draft[] {
  const name = family === 'v4' ? 'IPv4' : 'IPv6';
  const asked: readonly Asked[] = [
    [`an ${name} EID of the site that is not registered`, ({ block }) => block[family](1), 1],
    [`an ${name} EID of no site`, ({ outside }) => outside[family](1), 15],
  ];
  return asked.flatMap(([what, eid, ttl]): Draft[] => [
    {
      level: 'MUST',
      source: 'RFC 9301 8.3',
      title: `A Map-Request for ${what} is answered negatively`,
      sent: `A Map-Request for ${what}.`,
      expected: 'A Map-Reply with one record without locators.',
      run: async (stage) => describe(await negative(stage, eid(stage))),
    },
    {
      level: 'MUST',
      source: 'RFC 9301 5.4',
      title: `The negative answer for ${what} covers what was asked`,
      sent: `A Map-Request for ${what}.`,
      expected: 'A Map-Reply whose prefix holds the EID.',
      run: async (stage) => {
        const answer = await negative(stage, eid(stage));
        demand(prefixContains(prefixOf(answer.records[0]), eid(stage)), describe(answer));
        return describe(answer);
      },
    },
    {
      level: 'MUST',
      source: 'RFC 9301 5.4',
      title: `The negative answer for ${what} has an action that there is`,
      sent: `A Map-Request for ${what}.`,
      expected: 'A Map-Reply with ACT 0 to 5.',
      run: async (stage) => {
        const answer = await negative(stage, eid(stage));
        demand((answer.records[0]?.action ?? 7) <= 5, describe(answer));
        return describe(answer);
      },
    },
    {
      level: 'MUST',
      source: 'RFC 9301 5.4',
      title: `The negative answer for ${what} may be kept`,
      sent: `A Map-Request for ${what}.`,
      expected: 'A Map-Reply with a TTL other than 0, which would say that there is nothing to keep.',
      run: async (stage) => {
        const answer = await negative(stage, eid(stage));
        demand(answer.records[0]?.ttl !== 0, describe(answer));
        return describe(answer);
      },
    },
    {
      level: 'SHOULD',
      source: 'RFC 9301 8.3',
      title: `The negative answer for ${what} has a TTL of ${ttl} min`,
      sent: `A Map-Request for ${what}.`,
      expected: `A Map-Reply with a TTL of ${ttl} min.`,
      run: async (stage) => {
        const answer = await negative(stage, eid(stage));
        demand(answer.records[0]?.ttl === ttl, describe(answer));
        return describe(answer);
      },
    },
  ]);
}

const HOLES: readonly Draft[] = (['v4', 'v6'] as const).flatMap((family): Draft[] => {
  const name = family === 'v4' ? 'IPv4' : 'IPv6';
  return [
    {
      level: 'MUST',
      source: 'RFC 9301 8.3',
      title: `A negative answer leaves out a registered ${name} neighbour`,
      sent: `A right Map-Register for one ${name} host, then a Map-Request for its neighbour.`,
      expected: 'A Map-Reply whose prefix holds the neighbour and not the host.',
      run: (stage) => besideRegistered(stage, [stage.block[family](1)], stage.block[family](2)),
    },
    {
      level: 'MUST',
      source: 'RFC 9301 8.3',
      title: `A negative answer between two registered ${name} hosts leaves out both`,
      sent: `A right Map-Register for two ${name} hosts, then a Map-Request for one between.`,
      expected: 'A Map-Reply whose prefix holds the one between and none of the two.',
      run: (stage) => besideRegistered(stage, [stage.block[family](1), stage.block[family](3)], stage.block[family](2)),
    },
    {
      level: 'SHOULD',
      source: 'RFC 9301 8.3',
      title: `A negative answer beside a registered ${name} host is as wide as may be`,
      sent: `A right Map-Register for one ${name} host, then a Map-Request for the fourth host behind it.`,
      expected: 'A Map-Reply whose prefix is wider than one host.',
      run: async (stage) => {
        await stage.etr().register([{ eid: ip(stage.block[family](0)) }]);
        const answer = await negative(stage, stage.block[family](4));
        demand((answer.records[0]?.maskLength ?? 128) < (family === 'v4' ? 32 : 128), describe(answer));
        return describe(answer);
      },
    },
  ];
});

async function besideRegistered(stage: MapServerStage, hosts: readonly IpAddress[], asked: IpAddress): Promise<string> {
  await stage.etr().register(hosts.map((host) => ({ eid: ip(host) })));
  const answer = await negative(stage, asked);
  const prefix = prefixOf(answer.records[0]);
  demand(prefixContains(prefix, asked), describe(answer));
  demand(!hosts.some((host) => prefixContains(prefix, host)), describe(answer));
  return describe(answer);
}

async function negative(stage: MapServerStage, eid: IpAddress): Promise<Answer> {
  const answer = await stage.reply(ip(eid));
  demand(answer.records.length === 1 && answer.records[0]?.locators.length === 0, describe(answer));
  return answer;
}

function prefixOf(record: AnswerRecord | undefined): IpPrefix {
  return ipPrefix((record?.eid.text ?? '0.0.0.0') as IpAddress, record?.maskLength ?? 0);
}

function describe(answer: Answer): string {
  return `${describeAnswer(answer)}.`;
}
