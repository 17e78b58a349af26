/** What `/readyz` of the daemons makes of their state. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type AgentState, agentReadiness } from '../../agent/shell/readiness.ts';
import { MapServerReadiness } from '../../mapserver/shell/readiness.ts';
import { StoreError } from '../../mapserver/store/store.ts';
import { isReady } from '../../runtime/readiness.ts';
import { TestOverlay } from '../mapserver/overlay.ts';

const ATTACHED = { connected: true, superseded: false, problem: null, answers: true } as const;
const WORKING: AgentState = {
  fence: null,
  dataplane: ATTACHED,
  mapServer: { connected: true, problem: null },
  registered: true,
  locators: 1,
  eids: [{ eid: '10.77.0.5/32', state: 'live', takenOver: false, problem: null }],
  dns: { listening: true },
  unwritten: [],
  certificate: null,
};

test('an agent that works is ready', () => {
  assert.deepEqual(new Set(agentReadiness(WORKING).map(({ status }) => status)), new Set(['ok']));
});

for (const [what, change, name, detail] of [
  ['is fenced', { fence: 'is a copy' }, 'identity', /^is a copy$/],
  [
    'has no data plane',
    { dataplane: { ...ATTACHED, connected: false, problem: 'ENOENT', answers: false } },
    'dataplane',
    /ENOENT.*stayput-dataplane/,
  ],
  [
    'has lost it to another agent',
    { dataplane: { ...ATTACHED, connected: false, superseded: true, answers: false } },
    'dataplane',
    /another agent controls/,
  ],
  ['has one that hangs', { dataplane: { ...ATTACHED, answers: false } }, 'dataplane', /gives no answer/],
  ['has one that refuses its configuration', { dataplane: { ...ATTACHED, problem: 'no TUN' } }, 'dataplane', /no TUN/],
  ['has no map server', { mapServer: { connected: false, problem: 'timeout' } }, 'map-server', /timeout.*map-cache/],
  ['is not registered', { registered: false }, 'map-server', /has not confirmed/],
  ['has no address', { locators: 0 }, 'locators', /no usable underlay address/],
  [
    'has EIDs that are not granted',
    {
      eids: Array.from({ length: 7 }, (_, i) => ({
        eid: `e${i}`,
        state: 'base',
        takenOver: false,
        problem: 'not granted',
      })),
    },
    'eids',
    /^e0: not granted; .*and 2 more$/,
  ],
  ['does not answer DNS', { dns: { listening: false } }, 'dns', /does not listen/],
] as const) {
  test(`an agent that ${what} is not ready and says why`, () => {
    const checks = agentReadiness({ ...WORKING, ...change });
    assert.equal(isReady(checks), false);
    const [failed, ...others] = checks.filter(({ status }) => status === 'failed');
    assert.equal(others.length, 0);
    assert.equal(failed?.name, name);
    assert.match(failed?.detail ?? '', detail);
  });
}

for (const [what, change, name] of [
  ['cannot write its state', { unwritten: ['disk full'] }, 'state'],
  ['has a certificate that ends', { certificate: 'ends tomorrow' }, 'certificate'],
  ['lost an EID', { eids: [{ eid: 'e', state: 'lost', takenOver: true, problem: null }] }, 'eids'],
] as const) {
  test(`an agent that ${what} is ready, with a warning`, () => {
    const checks = agentReadiness({ ...WORKING, ...change });
    assert.ok(isReady(checks));
    assert.deepEqual(
      checks.filter(({ status }) => status === 'warning').map((check) => check.name),
      [name],
    );
  });
}

test('an agent that waits for a workload, or has given one away, is ready', () => {
  const eids = ['target', 'drain', 'lost'].map((state) => ({ eid: state, state, takenOver: false, problem: null }));
  assert.ok(agentReadiness({ ...WORKING, eids }).every(({ status }) => status === 'ok'));
});

test('a map server that runs is ready: its store is written to', async (t) => {
  const overlay = new TestOverlay();
  t.after(() => overlay.stop());
  await overlay.start();
  const url = overlay.metricsUrl.replace(/metrics$/, 'readyz');
  const answer = await fetch(url);
  const body = (await answer.json()) as { status: string; checks: { name: string; status: string }[] };
  assert.equal(answer.status, 200);
  assert.deepEqual(
    body.checks.map(({ name, status }) => `${name} ${status}`),
    ['store ok', 'listen ok', 'certificates ok', 'audit-log ok'],
  );
});

test('a map server is asked often and writes rarely; that the store fails it notices, and that it works again', async () => {
  let now = Date.UTC(2030, 0, 1);
  let broken = false;
  let writes = 0;
  const readiness = new MapServerReadiness({
    store: {
      compareAndSet: async () => {
        writes++;
        if (broken) throw new StoreError('disk full');
        return { ok: true, revision: writes };
      },
    },
    listen: () => ['0.0.0.0:4342'],
    auditLost: () => 0,
    ends: () => ({ authority: now + 1e11, server: now + 1e10 }),
    clock: () => now,
  });
  for (let i = 0; i < 100; i++) assert.ok(isReady(await readiness.checks()));
  assert.equal(writes, 1);
  broken = true;
  now += 5_000;
  const checks = await readiness.checks();
  assert.equal(isReady(checks), false);
  assert.deepEqual(checks[0], { name: 'store', status: 'failed', detail: 'disk full' });
  broken = false;
  now += 5_000;
  assert.ok(isReady(await readiness.checks()));
});

test('certificates that end and audit lines that are lost are told', async () => {
  const now = Date.UTC(2030, 0, 1);
  const at = (server: number, lost: number) =>
    new MapServerReadiness({
      store: { compareAndSet: async () => ({ ok: true, revision: 1 }) },
      listen: () => [],
      auditLost: () => lost,
      ends: () => ({ authority: now + 1e11, server }),
      clock: () => now,
    }).checks();
  const told = async (server: number, lost: number) =>
    (await at(server, lost)).map(({ name, status }) => `${name} ${status}`);
  assert.deepEqual(await told(now, 2), ['store ok', 'listen failed', 'certificates failed', 'audit-log warning']);
  assert.deepEqual(await told(now + 86_400_000, 0), [
    'store ok',
    'listen failed',
    'certificates warning',
    'audit-log ok',
  ]);
});
