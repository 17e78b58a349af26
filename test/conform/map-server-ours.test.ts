/** The kit against our map server on UDP, at the loopback; `e2e/lisp-conform` has it over a network. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AddressRange } from '../../conform/address-range.ts';
import { Exclusive } from '../../conform/exclusive.ts';
import { DEFAULT_OUTSIDE, DEFAULT_RANGE, mapServerRole } from '../../conform/map-server/subject.ts';
import { XtrPool } from '../../conform/map-server/xtrs.ts';
import { Pacer } from '../../conform/pacer.ts';
import { runConformance } from '../../conform/run.ts';
import { parseHostPort } from '../../runtime/host-port.ts';
import { TestOverlay } from '../mapserver/overlay.ts';

const KEY = { keyId: 1, algorithm: 2, secret: Buffer.from('secret of the site') };

test('our map server passes, has nothing left of it, and is ready for the next run', async (t) => {
  const overlay = new TestOverlay({
    lisp: { listen: ['127.0.0.1:0'], requesters: [`${LOCAL}/32`], messagesPerSecond: 20_000, repliesPerSecond: 20_000 },
  });
  await overlay.start();
  t.after(() => overlay.remove());
  await overlay.admin('POST', '/v1/sites', {
    name: 'conform',
    prefixes: [DEFAULT_RANGE.v4, DEFAULT_RANGE.v6].map((prefix) => ({ prefix, moreSpecifics: true })),
    keys: [{ keyId: KEY.keyId, algorithm: KEY.algorithm, secret: KEY.secret.toString('base64') }],
  });
  const { host, port } = parseHostPort(overlay.lispAddress);
  const target = { address: host, port, family: 4 } as const;
  const pacer = new Pacer(1_000);
  for (const { only, fail } of [
    { only: [] as string[], fail: FORWARDED },
    { only: ['MS-AUTH', 'MS-REPLAY', 'MS-SUB'], fail: [] as string[] },
  ]) {
    const role = mapServerRole({
      target,
      local: LOCAL,
      pacer,
      lispPort: new Exclusive(),
      xtrs: new XtrPool(LOCAL),
      answerMs: 1_000,
      graceMs: 40,
      key: KEY,
      range: new AddressRange([], DEFAULT_RANGE),
      outside: new AddressRange([], DEFAULT_OUTSIDE),
    });
    const report = await runConformance(role, { target, pacer, parallel: 16, only });
    const failed = report.checks.filter(({ outcome }) => outcome !== 'passed');
    const others = failed.filter(({ id }) => !fail.includes(id));
    assert.deepEqual(
      others.map(({ id, title, outcome, seen }) => `${id} ${title}: ${outcome}: ${seen}`),
      [],
    );
    assert.equal(failed.length, fail.length);
  }
  const { registered } = await overlay.admin<{ registered: { eid: string; state: string }[] }>(
    'GET',
    '/v1/sites/conform',
  );
  assert.deepEqual(
    registered.filter(({ state }) => state !== 'withdrawn').map(({ eid }) => eid),
    [],
  );
});

/** What goes on to an ETR, which the map server does not send to RLOCs of the loopback. */
const FORWARDED: readonly string[] = ['MS-REQ-050', 'MS-REQ-051'];
/** An address of the loopback whose port 4342 is free. */
const LOCAL = '127.77.45.1';
