/** The conformance kit against pylisp as an xTR: an implementation that is not ours, which is not changed for it. Budget: 60 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Verdict } from '../../conform/engine.ts';
import { type Host, Lab } from '../lab/lab.ts';
import { missingPylisp, startLispd } from '../lab/pylisp.ts';
import { requireLab } from './require.ts';

requireLab();

const MAIN = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

/** Two records in a request; requests in an ECM; D, which asks for no answer; SMRs, which it answers as requests. */
const KNOWN = ['XTR-PRB-019', 'XTR-REQ-003', 'XTR-REQ-004', 'XTR-SMR-002'];

describe('the conformance kit and pylisp', { skip: missingPylisp() }, () => {
  let lab: Lab;
  let kit: Host;

  before(async () => {
    lab = await Lab.create({ name: 'pyconf' });
    kit = await lab.host('kit');
    const router = await lab.host('router');
    await lab.cable(kit, 'eth0', router, 'eth0');
    await kit.ip(['addr add 192.0.2.1/24 dev eth0']);
    await router.ip(['addr add 192.0.2.7/24 dev eth0', 'addr add 10.77.50.7/32 dev lo']);
    const lispd = startLispd(router, {
      ...{ rloc: '192.0.2.7', mapServer: '192.0.2.1', secret: 'not asked for', prefixes: ['10.77.50.0/24'] },
    });
    await lispd.waitUntil('it runs', async () => {
      const { stdout } = await router.exec(['ss', '-Hlun', 'sport = :4342']);
      return stdout !== '';
    });
  });
  after(async () => {
    await lab?.close();
  });

  it('say what it does otherwise', async () => {
    const options = ['--role', 'xtr', '--eid', '10.77.50.7', '--local', '192.0.2.1', '--json'];
    const { stdout } = await kit.exec([process.execPath, MAIN, 'conform', '192.0.2.7', ...options], { anyExit: true });
    const { checks } = JSON.parse(stdout) as { checks: readonly Verdict[] };
    const failed = checks.filter(({ outcome }) => outcome === 'failed' || outcome === 'broken');
    assert.deepEqual(
      failed.map(({ id }) => id),
      KNOWN,
      failed.map(({ id, title, seen }) => `${id} ${title}: ${seen}`).join('\n'),
    );
    assert.ok(checks.filter(({ outcome }) => outcome === 'passed').length >= 60);
  });
});
