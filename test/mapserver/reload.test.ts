/** A map server whose configuration is read again while agents are connected. */

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CONFIG } from '../../mapserver/config.ts';
import { loadConfig } from '../../runtime/config-file.ts';
import type { LogLevelView } from '../../runtime/log-level.ts';
import { type TestAgent, TestOverlay } from './overlay.ts';

describe('a map server that reads its configuration again', () => {
  const overlay = new TestOverlay();
  const file = join(overlay.dataDir, 'mapserver.json');
  let agent: TestAgent;
  const write = (more: object) =>
    writeFileSync(
      file,
      JSON.stringify({
        dataDir: overlay.dataDir,
        listen: '127.0.0.1:0',
        metricsListen: '127.0.0.1:0',
        logLevel: 'silent',
        ...more,
      }),
    );

  before(async () => {
    write({});
    await overlay.start(() => loadConfig(CONFIG, file, { required: true }));
    agent = await overlay.agent({ eids: ['10.77.0.0/24'] });
  });
  after(() => overlay.remove());

  test('applies limits at once, names what needs a restart, and keeps the sessions', async () => {
    write({ limits: { tokens: 1 }, heartbeatMs: 2_000 });
    assert.deepEqual(await overlay.admin('POST', '/v1/reload'), {
      applied: ['limits.tokens'],
      needRestart: ['heartbeatMs'],
    });
    await assert.rejects(overlay.token({ eids: ['10.77.0.1/32'] }), /too many tokens/);
    write({ limits: { tokens: 10 } });
    await overlay.admin('POST', '/v1/reload');
    await overlay.token({ eids: ['10.77.0.1/32'] });
    const [answer] = await agent.register(agent.mapping('10.77.0.9'));
    assert.equal(answer?.owner, agent.xtrId, 'in the session of before');
  });

  test('goes on with the one before when the new one is wrong', async () => {
    write({ limits: { tokens: 'many' } });
    await assert.rejects(overlay.admin('POST', '/v1/reload'), /limits\.tokens/);
    write({});
    await overlay.admin('POST', '/v1/reload');
  });

  test('does it on SIGHUP', async () => {
    write({ limits: { tokens: 1 } });
    process.kill(process.pid, 'SIGHUP');
    await new Promise((resolve) => setImmediate(resolve));
    await assert.rejects(overlay.token({ eids: ['10.77.0.2/32'] }), /too many tokens/);
  });

  test('changes the level of its log for a while', async () => {
    const view = await overlay.admin<{ level: string; configured: string; until: string }>('POST', '/v1/log-level', {
      level: 'error',
      forMs: 60_000,
    });
    assert.deepEqual([view.level, view.configured], ['error', 'silent']);
    assert.ok(Date.parse(view.until) > Date.now());
    await overlay.admin('POST', '/v1/log-level', { level: null });
    const { modules, ...whole } = await overlay.admin<LogLevelView>('GET', '/v1/log-level');
    assert.deepEqual(whole, { level: 'silent', configured: 'silent', until: null });
    assert.deepEqual(
      modules.map(({ module }) => module),
      ['agents', 'audit', 'reflector', 'zone'],
    );
    await assert.rejects(overlay.admin('POST', '/v1/log-level', { level: 'debug', module: 'dns' }), /there are agents/);
    assert.match(readFileSync(join(overlay.dataDir, 'audit.log'), 'utf8'), /"event":"log-level-set"/);
  });
});
