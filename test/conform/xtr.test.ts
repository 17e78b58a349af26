/** The kit against an xTR that does everything right, and against ones with one fault each. */
import assert from 'node:assert/strict';
import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { AddressRange } from '../../conform/address-range.ts';
import type { Verdict } from '../../conform/engine.ts';
import { Exclusive } from '../../conform/exclusive.ts';
import { readAnswer } from '../../conform/lisp/answers.ts';
import { encapsulated } from '../../conform/lisp/encapsulation.ts';
import { ip, mapRequest } from '../../conform/lisp/octets.ts';
import { DEFAULT_OUTSIDE } from '../../conform/map-server/subject.ts';
import { Pacer } from '../../conform/pacer.ts';
import type { Report } from '../../conform/report/report.ts';
import { runConformance } from '../../conform/run.ts';
import { xtrRole } from '../../conform/xtr/subject.ts';
import { type Fault, OTHER_EID, type Place, XtrDouble } from './xtr-double.ts';

const EID = '198.18.0.9';
const WITHOUT_RAW_SOCKETS = ['XTR-PRB', 'XTR-REQ', 'XTR-SMR', 'XTR-ROB', 'XTR-DAT'];
const VERSIONS = ['XTR-DAT-001', 'XTR-DAT-032', 'XTR-DAT-033', 'XTR-DAT-034'];

test('an xTR that does everything right passes the full profile', async () => {
  for (const version of [0, 1, 4_095]) {
    const only = version === 0 ? WITHOUT_RAW_SOCKETS : VERSIONS;
    const report = await examine(undefined, only, true, { version });
    assert.deepEqual(report.checks.filter(({ outcome }) => outcome !== 'passed').map(line), []);
    assert.equal(report.grade, 'full');
  }
});

test('what needs a raw socket is not tried without', async () => {
  const { checks } = await examine(undefined, ['XTR-OUT']);
  assert.ok(checks.length > 10);
  const why = 'It needs stayput-dataplane on this machine, for a raw socket.';
  assert.deepEqual(checks.filter(({ outcome, seen }) => outcome !== 'not-tried' || seen !== why).map(line), []);
});

test('what needs an EID of the kit, or the kit as Map-Server, is not tried without', async () => {
  const report = await examine(undefined, ['XTR-DAT', 'XTR-SMR'], false);
  assert.deepEqual(report.checks.filter(({ outcome }) => outcome === 'failed' || outcome === 'broken').map(line), []);
  assert.equal(report.grade, 'incomplete');
  assert.equal(report.counts.passed, 2);
});

test('an xTR that answers with the prefix around the EID does nothing wrong', async () => {
  const report = await examine(undefined, ['XTR-PRB', 'XTR-REQ'], false, { maskLength: 24 });
  assert.deepEqual(report.checks.filter(({ outcome }) => outcome !== 'passed').map(line), []);
});

test('who asks the kit as a Map-Resolver is answered at the port that it asked from', async (t) => {
  const [address, local] = addresses();
  const stage = await subject(address, local).stage();
  t.after(() => stage.clear());
  await stage.lispPort();
  const asker = createSocket('udp4');
  t.after(() => asker.close());
  asker.bind(0, address);
  await once(asker, 'listening');
  const request = mapRequest({ nonce: 7n, itrRlocs: [ip(address)], eid: ip(OTHER_EID) });
  const inner = { source: address, destination: OTHER_EID, sourcePort: asker.address().port };
  asker.send(encapsulated(request, inner), 4342, local);
  const [octets, from] = (await once(asker, 'message')) as [Buffer, RemoteInfo];
  const { nonce, records } = readAnswer(new Uint8Array(octets));
  assert.deepEqual([nonce, records[0]?.eid.text, from.port], [7n, OTHER_EID, 4342]);
});

/** Checks that have to fail, of these alone. */
const FAULTS: Readonly<
  Partial<Record<Fault, { readonly only: readonly string[]; readonly fails: readonly string[] }>>
> = {
  'answers with another nonce': { only: ['XTR-PRB-001', 'XTR-REQ-001'], fails: ['XTR-PRB-001', 'XTR-REQ-001'] },
  'does not say P in answers to probes': {
    only: ['XTR-PRB', 'XTR-REQ'],
    fails: ['002', ...Array.from({ length: 10 }, (_, at) => `0${at + 10}`)].map((number) => `XTR-PRB-${number}`),
  },
  'marks all locators as probed': { only: ['XTR-PRB', 'XTR-REQ'], fails: ['XTR-PRB-004'] },
  'says A=0': { only: ['XTR-PRB', 'XTR-REQ'], fails: ['XTR-PRB-003'] },
  'vouches for any EID': {
    only: ['XTR-PRB', 'XTR-REQ'],
    fails: ['XTR-PRB-020', 'XTR-PRB-021', 'XTR-PRB-022'],
  },
  'answers without an ITR-RLOC': { only: ['XTR-REQ'], fails: ['XTR-REQ-005'] },
  'answers D': { only: ['XTR-REQ'], fails: ['XTR-REQ-004'] },
  'asks the source of an SMR': {
    only: ['XTR-SMR', 'XTR-REQ'],
    fails: ['XTR-SMR-001', 'XTR-SMR-003', 'XTR-SMR-004'],
  },
  'does not react to SMRs': { only: ['XTR-SMR'], fails: ['XTR-SMR-003', 'XTR-SMR-004'] },
  'asks for each SMR': { only: ['XTR-SMR'], fails: ['XTR-SMR-004'] },
  'answers what it cannot read': {
    only: ['XTR-ROB-00'],
    fails: Array.from({ length: 9 }, (_, at) => `XTR-ROB-00${at + 1}`),
  },
  'takes any instance': { only: ['XTR-DAT'], fails: ['XTR-DAT-014', 'XTR-DAT-015'] },
  'drops nonces': { only: ['XTR-DAT-00'], fails: ['XTR-DAT-002', 'XTR-DAT-005'] },
  'drops status bits': { only: ['XTR-DAT-00'], fails: ['XTR-DAT-003', 'XTR-DAT-004', 'XTR-DAT-005'] },
  'reads map-versions beside a nonce': { only: ['XTR-DAT'], fails: ['XTR-DAT-030', 'XTR-DAT-031'] },
  'refuses its own map-version': { only: VERSIONS, fails: ['XTR-DAT-032'] },
  'takes newer map-versions': { only: VERSIONS, fails: ['XTR-DAT-033'] },
  'does not tell of newer map-versions': { only: VERSIONS, fails: ['XTR-DAT-034'] },
  'answers about another EID': { only: ['XTR-PRB', 'XTR-REQ'], fails: ['XTR-PRB-007'] },
  'answers for any EID inside': { only: ['XTR-DAT'], fails: ['XTR-DAT-016'] },
  'sends status bits': { only: ['XTR-DAT'], fails: ['XTR-DAT-028'] },
  'stops at a truncated packet': { only: ['XTR-DAT-020', 'XTR-DAT-001'], fails: ['XTR-DAT-020'] },
};

describe('an xTR with one fault fails the checks of that and no others:', { concurrency: 4 }, () => {
  for (const [fault, { only, fails }] of Object.entries(FAULTS)) {
    test(`it ${fault}`, async () => {
      const report = await examine(fault as Fault, only, true, { version: 69 });
      const failed = report.checks.filter(({ outcome }) => outcome !== 'passed');
      assert.deepEqual(failed.map(({ id }) => id).sort(), [...fails].sort(), failed.map(line).join('\n'));
    });
  }
});

let runs = 0;

/** Of the loopback, that nobody else uses, so that their ports 4341 and 4342 are free: the target's and the kit's. */
function addresses(): readonly [string, string] {
  runs++;
  return [`127.77.46.${runs}`, `127.77.47.${runs}`];
}

const pacer = (): Pacer => new Pacer(5_000);

function subject(address: string, local: string, all = true) {
  return xtrRole({
    target: { address, port: 4342, family: 4 },
    local,
    pacer: pacer(),
    dataPort: new Exclusive(),
    lispPort: new Exclusive(),
    answerMs: 400,
    graceMs: 40,
    eid: EID,
    ownEid: all ? OTHER_EID : undefined,
    instance: 0,
    outside: new AddressRange([], DEFAULT_OUTSIDE),
    isMapServer: all,
    rawProgram: undefined,
  });
}

async function examine(
  fault?: Fault,
  only: readonly string[] = [],
  all = true,
  place: Partial<Place> = {},
): Promise<Report> {
  const [address, local] = addresses();
  const double = new XtrDouble({ address, eid: EID, peer: local, ...place }, fault);
  await double.start();
  const target = { address, port: 4342, family: 4 } as const;
  try {
    return await runConformance(subject(address, local, all), { target, pacer: pacer(), parallel: 8, only });
  } finally {
    double.close();
  }
}

function line({ id, title, outcome, seen }: Verdict): string {
  return `${id} ${title}: ${outcome}: ${seen}`;
}
