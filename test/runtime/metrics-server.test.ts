import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Counter, Registry } from 'prom-client';
import { UsageError } from '../../proto/errors.ts';
import { startMetricsServer } from '../../runtime/metrics-server.ts';

test('metrics and health are served; everything else is refused', async (t) => {
  const registry = new Registry();
  new Counter({ name: 'stayput_test_total', help: 'a test', registers: [registry] }).inc(3);
  let healthy = true;
  const server = await startMetricsServer('127.0.0.1:0', registry, () => healthy);
  t.after(() => server.close());
  const base = `http://127.0.0.1:${server.port}`;
  const metrics = await fetch(`${base}/metrics`);
  assert.match(metrics.headers.get('content-type') ?? '', /^text\/plain/);
  assert.match(await metrics.text(), /^stayput_test_total 3$/m);
  assert.equal((await fetch(`${base}/healthz`)).status, 200);
  healthy = false;
  assert.equal((await fetch(`${base}/healthz?x`)).status, 503);
  assert.equal((await fetch(`${base}/other`)).status, 404);
  assert.equal((await fetch(`${base}/metrics`, { method: 'POST' })).status, 405);
});

test('an address that is taken or wrong is one clear line', async (t) => {
  const server = await startMetricsServer('[::1]:0', new Registry(), () => true);
  t.after(() => server.close());
  const again = startMetricsServer(`[::1]:${server.port}`, new Registry(), () => true);
  await assert.rejects(again, { message: `cannot listen on [::1]:${server.port} (EADDRINUSE)` });
  await assert.rejects(
    startMetricsServer('nonsense', new Registry(), () => true),
    UsageError,
  );
});
