/** The kit against the native endpoint of our map server, and against ones that are not what they should be. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { nativeRole } from '../../conform/native/checks.ts';
import { Pacer } from '../../conform/pacer.ts';
import type { Report } from '../../conform/report/report.ts';
import { runConformance } from '../../conform/run.ts';
import { selfSigned } from '../lab/self-signed.ts';
import { TestOverlay } from '../mapserver/overlay.ts';

test('our map server passes the full profile', async (t) => {
  const overlay = new TestOverlay({
    limits: { connectionsPerSecondAndAddress: 1_000 },
  });
  await overlay.start();
  t.after(() => overlay.remove());
  const report = await examine(overlay.port);
  assert.deepEqual(failed(report), []);
  assert.equal(report.grade, 'full');
});

test('a server that speaks TLS 1.2 and tells everybody everything fails for that', async (t) => {
  const { key, cert } = selfSigned('localhost', []);
  const server = createServer({ key, cert, minVersion: 'TLSv1.2' }, (_request, response) => {
    response.end(JSON.stringify({ ca: cert }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const report = await examine((server.address() as AddressInfo).port, ['NAT-TLS', 'NAT-HTTP']);
  const ids = failed(report).map((line) => line.split(' ', 1)[0]);
  assert.ok(ids.includes('NAT-TLS-002'), 'TLS 1.2');
  assert.ok(!ids.includes('NAT-TLS-001') && !ids.includes('NAT-HTTP-001'));
  assert.equal(ids.filter((id) => id?.startsWith('NAT-HTTP')).length, 33, 'all but the authority, twice');
});

async function examine(port: number, only: readonly string[] = []): Promise<Report> {
  const target = { address: '127.0.0.1', port, family: 4 } as const;
  const pacer = new Pacer(1_000);
  const role = nativeRole({ target, local: '127.0.0.1', pacer, answerMs: 2_000 });
  return runConformance(role, { target, pacer, parallel: 8, only });
}

function failed({ checks }: Report): string[] {
  return checks
    .filter(({ outcome }) => outcome !== 'passed')
    .map(({ id, title, outcome, seen }) => `${id} ${title}: ${outcome}: ${seen}`);
}
