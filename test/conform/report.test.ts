/** Grades, signatures and the forms of a report. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseXml } from '@rgrove/parse-xml';
import { type Check, Deviation, group, NotTried } from '../../conform/check.ts';
import { runChecks, type Stage, type Verdict } from '../../conform/engine.ts';
import { badge } from '../../conform/report/badge.ts';
import { htmlReport } from '../../conform/report/html.ts';
import { junitReport } from '../../conform/report/junit.ts';
import { makeReport, type Report } from '../../conform/report/report.ts';
import { generateSigningKey, signReport, verifyReport } from '../../conform/report/signature.ts';
import { textReport } from '../../conform/report/text.ts';

describe('the engine', () => {
  test('says of each check what was seen, in the order of the checks', async () => {
    const verdicts = await carryOut([
      check('MUST', async () => 'fine'),
      check('MUST', () => Promise.reject(new Deviation('wrong'))),
      check('MUST', () => Promise.reject(new NotTried('no key'))),
      check('MUST', () => Promise.reject(new Error('oops'))),
      check('MUST', () => new Promise(() => {})),
    ]);
    assert.deepEqual(
      verdicts.map(({ id, outcome, seen }) => [id, outcome, seen]),
      [
        ['T-001', 'passed', 'fine'],
        ['T-002', 'failed', 'wrong'],
        ['T-003', 'not-tried', 'no key'],
        ['T-004', 'broken', 'oops'],
        ['T-005', 'broken', 'no end after 50 ms'],
      ],
    );
  });

  test('clears the stage of each check, however it ended, before it is done', async () => {
    let open = 0;
    const stage = async (): Promise<Stage> => {
      open++;
      return {
        clear: async () => {
          open--;
        },
      };
    };
    await carryOut([check('MUST', async () => ''), check('MUST', () => Promise.reject(new Deviation('')))], stage);
    assert.equal(open, 0);
  });

  test('an interrupted run tries nothing more', async () => {
    const verdicts = await carryOut([check('MUST', async () => '')], undefined, AbortSignal.abort());
    assert.equal(verdicts[0]?.outcome, 'not-tried');
  });
});

describe('the grade', () => {
  const grades = {
    full: [check('MUST', async () => ''), check('interop', async () => '')],
    core: [check('MUST', async () => ''), check('SHOULD', () => Promise.reject(new Deviation('')))],
    incomplete: [check('MUST', async () => ''), check('MUST', () => Promise.reject(new NotTried('')))],
    failed: [check('MUST', async () => ''), check('MUST', () => Promise.reject(new Deviation('')))],
  } as const;
  for (const [grade, checks] of Object.entries(grades)) {
    test(`${grade}`, async () => {
      assert.equal(makeReport(HEAD, await carryOut(checks)).grade, grade);
    });
  }
});

describe('a signature', () => {
  const { privateKey, publicKey } = generateSigningKey();

  test('tells whose key signed the report, also on the HTML page', async () => {
    const signed = signReport(await sample(), privateKey);
    assert.equal(verifyReport(JSON.stringify(signed)).signedBy, publicKey);
    assert.equal(verifyReport(htmlReport(signed)).signedBy, publicKey);
  });

  test('does not hold for a report in which something was changed', async () => {
    const text = JSON.stringify(signReport(await sample(), privateKey));
    for (const [from, to] of [
      ['192.0.2.1:4342', '192.0.2.2:4342'],
      ['2026-05-04', '2026-05-05'],
      ['seen <it>', 'seen it'],
    ] as const) {
      assert.ok(text.includes(from));
      assert.throws(() => verifyReport(text.replace(from, to)), /signature is wrong/);
    }
  });

  test('is of no use for a grade that the checks do not give', async () => {
    const report = { ...(await sample()), grade: 'full' } as const;
    assert.throws(() => verifyReport(JSON.stringify(signReport(report, privateKey))), /does not follow/);
  });

  test('is not demanded, but its absence is told', async () => {
    assert.equal(verifyReport(JSON.stringify(await sample())).signedBy, undefined);
  });

  test('what is no report is refused', () => {
    for (const text of ['', '{}', 'null', '<html>', '{"format":"stayput-conformance-1"}']) {
      assert.throws(() => verifyReport(text), { code: 'STAYPUT_CONFORM_REPORT' });
    }
    assert.throws(() => signReport({} as Report, 'no key'), { code: 'STAYPUT_CONFORM_REPORT' });
  });
});

describe('forms of a report', () => {
  test('JUnit: failed MUSTs are failures, other failures are skipped', async () => {
    const xml = junitReport(await sample());
    parseXml(xml);
    assert.match(xml, /tests="4" failures="1" errors="0" skipped="2"/);
    assert.match(xml, /seen &lt;it&gt;/);
  });

  test('HTML and badge hold nothing that the target could say unescaped', async () => {
    const report = { ...(await sample()), target: '<script>alert(1)</script>' };
    const page = htmlReport(report);
    assert.doesNotMatch(page, /<script>alert/);
    assert.doesNotMatch(page, /seen <it>/);
    parseXml(badge(report));
  });

  test('text: what did not pass at length, then the sums', async () => {
    const lines = textReport(await sample());
    assert.match(lines[0] ?? '', /^T-002 failed \(MUST, RFC 1\)/);
    assert.deepEqual(lines.slice(-2), [
      'T                1/4',
      '192.0.2.1:4342 as map-server: failed (1 passed, 2 failed, 1 not-tried)',
    ]);
  });
});

async function sample(): Promise<Report> {
  const checks = [
    check('MUST', async () => 'fine'),
    check('MUST', () => Promise.reject(new Deviation('seen <it> & "it"'))),
    check('SHOULD', () => Promise.reject(new Deviation('seen'))),
    check('interop', () => Promise.reject(new NotTried('no key'))),
  ];
  return makeReport(
    HEAD,
    (await carryOut(checks)).map((verdict) => ({ ...verdict, milliseconds: 5 })),
  );
}

type Draft = Omit<Check<Stage>, 'id'>;

function check(level: Draft['level'], run: Draft['run']): Draft {
  return { level, source: 'RFC 1', title: 'A title', sent: 'Something.', expected: 'Something else.', run };
}

function carryOut(
  checks: readonly Draft[],
  stage: () => Promise<Stage> = async () => ({ clear: async () => {} }),
  signal?: AbortSignal,
): Promise<Verdict[]> {
  return runChecks({ checks: group('T', checks), stage, parallel: 2, limitMs: 50, signal });
}

const HEAD = {
  tool: 'stayput 1',
  role: 'map-server',
  target: '192.0.2.1:4342',
  startedAt: '2026-05-04T10:00:00.000Z',
  endedAt: '2026-05-04T10:01:00.000Z',
  settings: { 'own address': '192.0.2.7' },
  sent: 7,
};
