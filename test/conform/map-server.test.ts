/** The kit against a Map-Server that does everything right, and against ones with one fault each. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AddressRange } from '../../conform/address-range.ts';
import type { Verdict } from '../../conform/engine.ts';
import { Exclusive } from '../../conform/exclusive.ts';
import { DEFAULT_OUTSIDE, DEFAULT_RANGE, mapServerRole } from '../../conform/map-server/subject.ts';
import { XtrPool } from '../../conform/map-server/xtrs.ts';
import { Pacer } from '../../conform/pacer.ts';
import type { Report } from '../../conform/report/report.ts';
import { runConformance } from '../../conform/run.ts';
import type { IpPrefix } from '../../proto/address.ts';
import { type Fault, MapServerDouble } from './map-server-double.ts';

const KEY = { keyId: 1, algorithm: 2, secret: Buffer.from('secret of the site') };
const SITE = [DEFAULT_RANGE.v4, DEFAULT_RANGE.v6] as IpPrefix[];

test('a Map-Server that does everything right passes the full profile, and has nothing left of it', async () => {
  const double = new MapServerDouble(KEY, SITE);
  const report = await examine(double);
  assert.deepEqual(report.checks.filter(({ outcome }) => outcome !== 'passed').map(line), []);
  assert.equal(report.grade, 'full');
  assert.ok(report.checks.length >= 250, `${report.checks.length}`);
  assert.deepEqual(double.registered, []);
  assert.deepEqual(double.unacknowledged, []);
});

test('what comes late to the port that checks share, about EIDs of an earlier one, is nobody’s fault', async () => {
  const report = await examine(new MapServerDouble(KEY, SITE, undefined, LATE), SHARED);
  assert.deepEqual(report.checks.filter(({ outcome }) => outcome !== 'passed').map(line), []);
});

test('nor does it stand in for what does not come', async () => {
  for (const fault of ['does not merge', 'publishes with the same nonce'] as const) {
    const report = await examine(new MapServerDouble(KEY, SITE, fault, LATE), SHARED);
    const failed = report.checks.filter(({ outcome }) => outcome !== 'passed');
    const fails = FAULTS[fault].fails.flatMap(idsOf).filter((id) => SHARED.some((start) => id.startsWith(start)));
    assert.deepEqual(failed.map(({ id }) => id).sort(), fails.sort(), failed.map(line).join('\n'));
  }
});

test('without a site key what needs one is not tried, and the rest is', async () => {
  const report = await examine(new MapServerDouble(KEY, SITE), ['MS-NEG', 'MS-ROB', 'MS-AUTH-001'], null);
  assert.deepEqual(report.checks.filter(({ outcome }) => outcome === 'failed' || outcome === 'broken').map(line), []);
  assert.equal(report.grade, 'incomplete');
  assert.ok(report.counts.passed > report.counts['not-tried'], JSON.stringify(report.counts));
  assert.match(report.checks[0]?.seen ?? '', /--site-key/);
});

test('a target that is not there fails, and the run ends', async () => {
  const double = new MapServerDouble(KEY, SITE);
  const { grade, counts } = await examine(double, ['MS-NEG-001', 'MS-REG-001'], KEY, 1);
  assert.equal(grade, 'failed');
  assert.equal(counts.failed, 2);
});

/** Checks that have to fail, and no others; `NAME 1-3 7` stands for NAME-001, -002, -003 and -007. */
const FAULTS: Readonly<Record<Fault, { readonly only?: readonly string[]; readonly fails: readonly string[] }>> = {
  'accepts replays': { fails: ['MS-REPLAY 1-9'] },
  'ignores the code': { fails: ['MS-AUTH 5-13 15-38', 'MS-INFO 4', 'MS-ROB 60'] },
  'registers any prefix': { fails: ['MS-AUTH 39-41'] },
  'says A=1 in proxy replies': { fails: ['MS-REQ 2'] },
  'says L=1 in proxy replies': { fails: ['MS-REQ 3'] },
  'answers with another nonce': { only: ['MS-NEG', 'MS-AUTH-001'], fails: ['MS-NEG 1-26'] },
  'answers negatively with TTL 0': { fails: ['MS-NEG 4 5 9 10 14 15 19 20'] },
  'answers negatively for a /24': { fails: ['MS-NEG 21 22 24 25'] },
  'answers probes': { fails: ['MS-REQ 44', 'MS-ECM 15'] },
  'believes mapping data': { fails: ['MS-REQ 12'] },
  'refuses reserved bits': { fails: ['MS-REG 45-55'] },
  'does not sign Map-Notify': { fails: ['MS-REG 2', 'MS-SUB 2'] },
  'does not merge': { fails: ['MS-REG 75-78'] },
  'answers what it cannot read': {
    fails: ['MS-REQ 48 49', 'MS-ECM 17 19-23', 'MS-ROB 2-17 20-29 31-36 51-57 61 62 65-67 72'],
  },
  'publishes with the same nonce': { fails: ['MS-SUB 3-7 14'] },
  'does not publish again': { fails: ['MS-SUB 6'] },
  'keeps those who unsubscribed': { fails: ['MS-SUB 12'] },
  'forgets locators of IPv6': { fails: ['MS-REG 22 23', 'MS-REQ 11'] },
  'does not withdraw': { fails: ['MS-REG 69 70 78', 'MS-REPLAY 2', 'MS-SUB 5'] },
};

describe('a Map-Server with one fault fails the checks of that and no others:', { concurrency: 5 }, () => {
  for (const [fault, { only, fails }] of Object.entries(FAULTS)) {
    test(`it ${fault}`, async () => {
      const report = await examine(new MapServerDouble(KEY, SITE, fault as Fault), only);
      const failed = report.checks.filter(({ outcome }) => outcome !== 'passed');
      assert.deepEqual(failed.map(({ id }) => id).sort(), fails.flatMap(idsOf).sort(), failed.map(line).join('\n'));
    });
  }
});

/** Checks that take turns with port 4342. */
const SHARED = ['MS-REG-077', 'MS-REQ-050', 'MS-REQ-051', 'MS-SUB'];
/** An EID of the site that no check comes to. */
const LATE = '198.18.255.249';

let runs = 0;

async function examine(
  double: MapServerDouble,
  only: readonly string[] = [],
  key: typeof KEY | null = KEY,
  port?: number,
): Promise<Report> {
  const bound = await double.start();
  runs++;
  const target = { address: '127.0.0.1', port: port ?? bound, family: 4 } as const;
  const pacer = new Pacer(5_000);
  const role = mapServerRole({
    target,
    // An address of the loopback that nobody else uses, so that its port 4342 is free.
    local: `127.77.43.${runs}`,
    pacer,
    lispPort: new Exclusive(),
    xtrs: new XtrPool(`127.77.43.${runs}`),
    answerMs: port === undefined ? 1_000 : 50,
    graceMs: 40,
    key: key ?? undefined,
    range: new AddressRange([], DEFAULT_RANGE),
    outside: new AddressRange([], DEFAULT_OUTSIDE),
  });
  try {
    return await runConformance(role, { target, pacer, parallel: 24, only });
  } finally {
    double.close();
  }
}

function idsOf(text: string): string[] {
  const [name, ...ranges] = text.split(' ');
  return ranges.flatMap((range) => {
    const [from = 0, to = from] = range.split('-').map(Number);
    return Array.from({ length: to - from + 1 }, (_, at) => `${name}-${String(from + at).padStart(3, '0')}`);
  });
}

function line({ id, title, outcome, seen }: Verdict): string {
  return `${id} ${title}: ${outcome}: ${seen}`;
}
