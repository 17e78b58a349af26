/** `stayput mapserver doctor` on map servers that are wrong in one thing each. */
import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { CONFIG } from '../../mapserver/config.ts';
import { examineMapServer } from '../../mapserver/shell/doctor.ts';
import { TestOverlay } from './overlay.ts';

describe('a map server', () => {
  const overlay = new TestOverlay();
  const look = async (check: string, limits: object = {}) => {
    const findings = await examineMapServer(CONFIG.parse({ dataDir: overlay.dataDir, limits }));
    return findings.filter((finding) => finding.check === check);
  };
  const only = async (check: string, level: string, found: RegExp, advice: RegExp, limits?: object): Promise<void> => {
    const finding = (await look(check, limits)).find((each) => each.level === level);
    assert.ok(finding !== undefined, check);
    assert.match(finding.found, found);
    assert.match(finding.advice ?? '', advice);
  };

  before(() => overlay.start());
  afterEach(() => chmodSync(join(overlay.dataDir, 'overlay.json'), 0o600));
  after(() => overlay.remove());

  test('that runs is well', async () => {
    for (const check of ['data', 'store', 'certificates', 'running']) {
      assert.deepEqual([...new Set((await look(check)).map(({ level }) => level))], ['ok'], check);
    }
  });

  test('whose files are open to others', async () => {
    chmodSync(join(overlay.dataDir, 'overlay.json'), 0o644);
    await only('data', 'fail', /others may read overlay\.json/, /chmod/);
  });

  test('that is near a limit', async () => {
    await overlay.agent({ eids: ['10.77.0.1/32'] });
    await only('running', 'warn', /1 of 1 agents/, /raise limits\.agents/, { agents: 1 });
  });

  test('that does not listen where agents are sent', async () => {
    await only('reachable', 'fail', /127\.0\.0\.1:4342/, /does the name lead here/);
  });

  test('that is down, and whose store is damaged', async () => {
    await overlay.stop();
    await only('running', 'fail', /no answer from the map server/, /systemctl start/);
    writeFileSync(join(overlay.dataDir, 'store.db'), 'a'.repeat(8_192));
    await only('store', 'fail', /damaged/, /restore/);
  });

  test('that was never made', async () => {
    const findings = await examineMapServer(CONFIG.parse({ dataDir: join(overlay.dataDir, 'none') }));
    const data = findings.find(({ check }) => check === 'data');
    assert.equal(data?.level, 'fail');
    assert.match(data?.advice ?? '', /mapserver init/);
  });
});
