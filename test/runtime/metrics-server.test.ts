import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Counter, Registry } from 'prom-client';
import { UsageError } from '../../proto/errors.ts';
import { startMetricsServer } from '../../runtime/metrics-server.ts';
import { VERSION } from '../../runtime/project-root.ts';
import type { ReadinessCheck } from '../../runtime/readiness.ts';

const idle = { registry: new Registry(), readiness: () => Promise.resolve([]) };

test('metrics, health and readiness are served; everything else is refused', async (t) => {
  const registry = new Registry();
  new Counter({ name: 'stayput_test_total', help: 'a test', registers: [registry] }).inc(3);
  let checks: readonly ReadinessCheck[] = [{ name: 'store', status: 'ok', detail: 'writable' }];
  const server = await startMetricsServer('127.0.0.1:0', { registry, readiness: () => Promise.resolve(checks) });
  t.after(() => server.close());
  const base = `http://127.0.0.1:${server.port}`;
  const metrics = await fetch(`${base}/metrics`);
  assert.match(metrics.headers.get('content-type') ?? '', /^text\/plain/);
  assert.match(await metrics.text(), /^stayput_test_total 3$/m);
  const ready = await fetch(`${base}/readyz?verbose`);
  assert.equal(ready.status, 200);
  assert.equal(ready.headers.get('content-type'), 'application/json');
  assert.deepEqual(await ready.json(), { status: 'ready', version: VERSION, checks });
  checks = [{ name: 'disk', status: 'warning', detail: 'slow' }];
  assert.equal((await fetch(`${base}/readyz`)).status, 200);
  checks = [...checks, { name: 'store', status: 'failed', detail: 'full' }];
  const unready = await fetch(`${base}/readyz`);
  assert.equal(unready.status, 503);
  assert.deepEqual(await unready.json(), { status: 'not ready', version: VERSION, checks });
  const health = await fetch(`${base}/healthz`);
  assert.equal(health.status, 200);
  assert.equal(((await health.json()) as { status: string }).status, 'ok');
  assert.equal((await fetch(`${base}/healthz`, { method: 'HEAD' })).status, 200);
  assert.equal((await fetch(`${base}/other`)).status, 404);
  assert.equal((await fetch(`${base}/metrics`, { method: 'POST' })).status, 405);
});

test('a reading that fails is an answer, too', async (t) => {
  const server = await startMetricsServer('127.0.0.1:0', {
    registry: new Registry(),
    readiness: () => Promise.reject(new Error('no')),
  });
  t.after(() => server.close());
  assert.equal((await fetch(`http://127.0.0.1:${server.port}/readyz`)).status, 500);
});

test('an address that is taken or wrong is one clear line', async (t) => {
  const server = await startMetricsServer('[::1]:0', idle);
  t.after(() => server.close());
  const again = startMetricsServer(`[::1]:${server.port}`, idle);
  await assert.rejects(again, { message: `cannot listen on [::1]:${server.port} (EADDRINUSE)` });
  await assert.rejects(startMetricsServer('nonsense', idle), UsageError);
});
